/* API aggregation: APIService objects, their health, and the proxy to the servers behind them. */
#include "apiserver/background.h"
#include "apiserver/cache_follow.h"
#include "apiserver/connect.h"
#include "apiserver/convert.h"
#include "apiserver/custom.h"
#include "apiserver/extend.h"
#include "apiserver/metrics.h"
#include "schema/jv.h"

struct remote {
	struct arena arena;
	unsigned refs;           /* the aggregator, and who talks to it */
	struct apiregistration_v1_api_service *obj;
	struct tls_client *tls;
	struct map clients;      /* base URL -> struct http_client * */
	bool available;
	struct str resources;    /* its APIResourceList as JSON, as last seen; in `arena2` */
	LIST(struct str_pair) documents; /* path of an OpenAPI v3 document -> where it is; in `arena2` */
	struct arena arena2;
};
#define DOCUMENTS_MAX 1000 /* of one remote server */
#define ANSWER_MAX ((size_t)4 << 20)
#define CHECK_MS 1000
struct aggregator {
	struct waitq changed;    /* an APIService was written: it is checked at once */
	struct cache_follower follower;
	struct map by_name;      /* "v1.group" -> struct remote * */
	struct remote **list;
	size_t n;
};

static void remote_unref(struct remote *r)
{
	size_t it = 0;
	struct str key;
	void *v;

	if (!r || --r->refs)
		return;
	while (map_next(&r->clients, &it, &key, &v))
		http_client_free(v);
	map_free(&r->clients);
	tls_client_free(r->tls);
	arena_free(&r->arena);
	arena_free(&r->arena2);
	free(r);
}

static int remote_cmp(const void *x, const void *y)
{
	const struct apiregistration_v1_api_service_spec *a = &(*(struct remote *const *)x)->obj->spec, *b = &(*(struct remote *const *)y)->obj->spec;
	int r = a->group_priority_minimum != b->group_priority_minimum ? (a->group_priority_minimum > b->group_priority_minimum ? -1 : 1) :
									 str_cmp(a->group, b->group);

	if (!r && a->version_priority != b->version_priority)
		r = a->version_priority > b->version_priority ? -1 : 1;
	return r ? r : str_cmp(a->version, b->version);
}

static void relist(struct apiserver *s)
{
	struct aggregator *g = s->aggregator;
	size_t it = 0, n = 0;
	struct str key;
	void *v;

	g->list = xrealloc(g->list, (g->by_name.n + 1) * sizeof *g->list);
	while (map_next(&g->by_name, &it, &key, &v))
		g->list[n++] = v;
	g->n = n;
	qsort(g->list, n, sizeof *g->list, remote_cmp);
}

static void apply(void *ctx, struct str name, const struct cache_entry *en)
{
	struct apiserver *s = ctx;
	struct aggregator *g = s->aggregator;
	struct remote *r, *old = map_get(&g->by_name, name);
	struct error *e;
	struct tls_client_opts o = {.cert_file = s->o.proxy_client_cert_file, .key_file = s->o.proxy_client_key_file};

	r = xcalloc(1, sizeof *r);
	r->refs = 1;
	r->obj = arena_new(&r->arena, struct apiregistration_v1_api_service);
	e = !en ? NULL : cache_entry_decode(&r->arena, &apiregistration_v1_api_service_type, en, true, r->obj);
	if (e || !en || !r->obj->spec.service) {
		log_and_free(e, "APIService %.*s", STR_ARG(name));
		remote_unref(r);
		if (old) {
			map_del(&g->by_name, name);
			relist(s);
			remote_unref(old);
		}
		return;
	}
	for (uint32_t i = 0; i < r->obj->status.conditions.n; i++)
		if (str_eqz(r->obj->status.conditions.v[i].type, "Available"))
			r->available = str_eqz(r->obj->status.conditions.v[i].status, "True");
	if (old && object_field_equal(&apiregistration_v1_api_service_type, old->obj, r->obj, "spec")) {
		old->available = r->available;
		remote_unref(r);
		return;
	}
	o.server_name = arena_printf(&r->arena, "%.*s.%.*s.svc", STR_ARG(r->obj->spec.service->name), STR_ARG(r->obj->spec.service->namespace)).p;
	o.ca_pem = r->obj->spec.ca_bundle;
	o.insecure_skip_verify = r->obj->spec.insecure_skip_tls_verify;
	e = tls_client_new(&o, &r->tls);
	if (e) {
		log_and_free(e, "APIService %.*s", STR_ARG(name));
		remote_unref(r);
		return;
	}
	map_set(&g->by_name, name, r);
	relist(s);
	remote_unref(old);
}

static void sync(struct apiserver *s)
{
	if (s->aggregator)
		cache_follow(&s->aggregator->follower);
}

/* ---- what this server has itself ---- */

static const struct {
	const char *group, *version;
	int32_t group_priority, version_priority;
} priorities[] = {
	{"", "v1", 18000, 1},
	{"apps", "v1", 17800, 15},
	{"events.k8s.io", "v1", 17750, 15},
	{"authentication.k8s.io", "v1", 17700, 15},
	{"authorization.k8s.io", "v1", 17600, 15},
	{"autoscaling", "v1", 17500, 15},
	{"autoscaling", "v2", 17500, 30},
	{"batch", "v1", 17400, 15},
	{"certificates.k8s.io", "v1", 17300, 15},
	{"networking.k8s.io", "v1", 17200, 15},
	{"policy", "v1", 17100, 15},
	{"rbac.authorization.k8s.io", "v1", 17000, 15},
	{"storage.k8s.io", "v1", 16800, 15},
	{"apiextensions.k8s.io", "v1", 16700, 15},
	{"admissionregistration.k8s.io", "v1", 16700, 15},
	{"scheduling.k8s.io", "v1", 16600, 15},
	{"coordination.k8s.io", "v1", 16500, 15},
	{"node.k8s.io", "v1", 16300, 15},
	{"discovery.k8s.io", "v1", 16200, 15},
	{"flowcontrol.apiserver.k8s.io", "v1", 16100, 21},
	{"resource.k8s.io", "v1", 16200, 21},
};

#define CUSTOM_GROUP_PRIORITY 1000
#define CUSTOM_VERSION_PRIORITY 100

void apiservice_priority(struct apiserver *s, struct str group, struct str version, int32_t *group_priority, int32_t *version_priority)
{
	struct aggregator *g = s->aggregator;

	for (size_t i = 0; i < sizeof priorities / sizeof *priorities; i++)
		if (str_eqz(group, priorities[i].group) && str_eqz(version, priorities[i].version)) {
			*group_priority = priorities[i].group_priority;
			*version_priority = priorities[i].version_priority;
			return;
		}
	for (size_t i = 0; g && i < g->n; i++) {
		const struct apiregistration_v1_api_service_spec *spec = &g->list[i]->obj->spec;

		if (str_eq(spec->group, group) && str_eq(spec->version, version)) {
			*group_priority = spec->group_priority_minimum;
			*version_priority = spec->version_priority;
			return;
		}
	}
	*group_priority = CUSTOM_GROUP_PRIORITY;
	*version_priority = CUSTOM_VERSION_PRIORITY;
}

bool aggregator_remote_at(struct apiserver *s, size_t i, struct str *group, struct str *version)
{
	struct aggregator *g = s->aggregator;

	if (!g)
		return false;
	if (!i)
		sync(s);
	for (size_t k = 0; k < g->n; k++)
		if (g->list[k]->available && !i--) {
			*group = g->list[k]->obj->spec.group;
			*version = g->list[k]->obj->spec.version;
			return true;
		}
	return false;
}

struct str aggregator_resources(struct apiserver *s, struct str group, struct str version)
{
	struct aggregator *g = s->aggregator;

	for (size_t k = 0; g && k < g->n; k++)
		if (str_eq(g->list[k]->obj->spec.group, group) && str_eq(g->list[k]->obj->spec.version, version))
			return g->list[k]->resources;
	return STR_NULL;
}

static struct error *client_of(struct apiserver *s, struct arena *a, struct remote *r, struct http_client **out)
{
	const struct apiregistration_v1_service_reference *ref = r->obj->spec.service;
	int port = ref->port && *ref->port ? *ref->port : 443, target;
	struct str port_name, host, base;
	struct http_client_opts o = {.tls = r->tls, .http1_only = true, .connect_timeout_ms = 5000};

	TRY(connect_service_port(s, a, ref->namespace, ref->name, port, &port_name));
	TRY(connect_endpoint(s, a, ref->namespace, ref->name, port_name, &host, &target));
	base = arena_printf(a, str_index(host, ':') >= 0 ? "https://[%.*s]:%d" : "https://%.*s:%d", STR_ARG(host), target);
	*out = map_get(&r->clients, base);
	if (*out)
		return NULL;
	o.base = base.p;
	TRY(http_client_new(&o, out));
	map_set(&r->clients, base, *out);
	return NULL;
}

/* Group and version of a path under /apis, or false. */
static bool path_gv(struct str path, struct str *group, struct str *version)
{
	struct str rest;

	if (!str_has_prefix(path, STR("/apis/")))
		return false;
	rest = str_sub(path, 6, path.n);
	*group = str_cut(&rest, '/');
	if (!rest.p)
		return false;
	*version = str_cut(&rest, '/');
	return group->n && version->n;
}

static struct error *forward(struct request *rq, struct remote *r)
{
	struct http_client *c;
	LIST(struct http_header) h = {0};
	struct str target;
	struct error *e;

	if (!r->available)
		return err_unavailable("service unavailable");
	TRY(client_of(rq->s, rq->a, r, &c));
	*arena_push(rq->a, &h) = (struct http_header){STR("x-remote-user"), rq->user->name};
	if (rq->user->uid.n)
		*arena_push(rq->a, &h) = (struct http_header){STR("x-remote-uid"), rq->user->uid};
	for (size_t i = 0; i < rq->user->n_groups; i++)
		*arena_push(rq->a, &h) = (struct http_header){STR("x-remote-group"), rq->user->groups[i]};
	for (size_t i = 0; i < rq->user->n_extra; i++)
		for (uint32_t k = 0; k < rq->user->extra[i].value.n; k++) {
			struct str esc = http_escape(rq->a, rq->user->extra[i].key);

			*arena_push(rq->a, &h) = (struct http_header){arena_printf(rq->a, "x-remote-extra-%.*s", STR_ARG(esc)),
								      rq->user->extra[i].value.v[k]};
		}
	target = rq->x->query.n ? arena_printf(rq->a, "%.*s?%.*s", STR_ARG(rq->x->path), STR_ARG(rq->x->query)) : rq->x->path;
	r->refs++;
	e = connect_forward(rq, c, target, STR_NULL, STR_NULL, h.v, h.n);
	remote_unref(r);
	return e;
}

struct error *aggregate(struct request *rq, bool *handled)
{
	struct aggregator *g = rq->s->aggregator;
	struct str group, version;
	struct remote *r;
	char key[600];

	*handled = false;
	if (!g || !path_gv(rq->info.path, &group, &version))
		return NULL;
	sync(rq->s);
	if (!g->n)
		return NULL;
	snprintf(key, sizeof key, "%.*s.%.*s", STR_ARG(version), STR_ARG(group));
	r = map_get(&g->by_name, str_from(key));
	if (!r)
		return NULL;
	*handled = true;
	return forward(rq, r);
}

bool aggregator_document_at(struct apiserver *s, size_t i, struct str *path, struct str *url)
{
	struct aggregator *g = s->aggregator;

	for (size_t k = 0; g && k < g->n; k++) {
		if (i < g->list[k]->documents.n) {
			*path = g->list[k]->documents.v[i].key;
			*url = g->list[k]->documents.v[i].value;
			return true;
		}
		i -= g->list[k]->documents.n;
	}
	return false;
}

struct error *aggregate_document(struct request *rq, struct str path, bool *handled)
{
	struct aggregator *g = rq->s->aggregator;

	*handled = false;
	for (size_t k = 0; g && k < g->n; k++)
		for (uint32_t i = 0; i < g->list[k]->documents.n; i++)
			if (str_eq(g->list[k]->documents.v[i].key, path)) {
				*handled = true;
				return forward(rq, g->list[k]);
			}
	return NULL;
}

/* ---- health of remote services ---- */

struct verdict {
	bool ok;
	struct str reason, message;
};

static struct error *make_verdict(void *ctx, struct request *rq, const void *old, void **out)
{
	struct verdict *v = ctx;
	struct apiregistration_v1_api_service *o = arena_new(rq->a, struct apiregistration_v1_api_service);
	struct apiregistration_v1_api_service_condition *c = NULL;
	struct str status = v->ok ? STR("True") : STR("False");

	object_copy(rq->a, &apiregistration_v1_api_service_type, old, o);
	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		if (str_eqz(o->status.conditions.v[i].type, "Available"))
			c = &o->status.conditions.v[i];
	if (!c) {
		c = arena_push(rq->a, &o->status.conditions);
		c->type = STR("Available");
	}
	if (!str_eq(c->status, status))
		c->last_transition_time = time_now();
	c->status = status;
	c->reason = v->reason;
	c->message = v->message;
	o->metadata.resource_version = STR_NULL;
	*out = o;
	return NULL;
}

static void set_status(struct apiserver *s, struct arena *a, struct str name, struct verdict *v)
{
	struct request rq;
	struct write_result r;
	struct update u = {.make = make_verdict, .ctx = v, .sub = "status", .retry = true, .flags = UPDATE_UNCONDITIONAL};
	struct error *e;

	request_internal(&rq, s, a, resource_any(s, STR("apiregistration.k8s.io"), STR("apiservices")), STR_NULL);
	rq.nosync = true; /* found again by the next check */
	e = registry_update(&rq, STR_NULL, name, &u, &r);
	if (error_is(e, 404, NULL))
		error_clear(&e);
	else if (!e)
		cache_entry_unref(r.entry);
	log_and_free(e, "status of APIService %.*s", STR_ARG(name));
}

/* Why there is no way to it: upstream's reasons. */
static struct str missing(struct apiserver *s, struct arena *a, const struct remote *r)
{
	const struct apiregistration_v1_service_reference *ref = r->obj->spec.service;
	const struct core_v1_service *svc = registry_peek(s, a, storage_find(s, STR(""), STR("services")), ref->namespace, ref->name);

	if (!svc)
		return STR("ServiceNotFound");
	for (uint32_t i = 0; i < svc->spec.ports.n; i++)
		if (svc->spec.ports.v[i].port == (ref->port ? *ref->port : 443))
			return STR("MissingEndpoints");
	return STR("ServicePortError");
}

/* The documents that a remote server's /openapi/v3 lists. One that has none is no less available. */
static void learn_documents(struct remote *r, struct str index)
{
	struct arena a arena_cleanup = {0};
	struct jv doc = {0};
	struct error *e = index.n ? jv_parse(&a, index, NULL, &doc) : NULL;
	const struct jv *paths = e ? NULL : jv_get(&doc, STR("paths"));

	log_and_free(e, "the OpenAPI documents of APIService %.*s", STR_ARG(r->obj->metadata.name));
	for (uint32_t i = 0; paths && jv_is(paths, JV_OBJECT) && i < paths->n && i < DOCUMENTS_MAX; i++) {
		const struct jv *url = jv_get(&paths->members[i].value, STR("serverRelativeURL"));
		struct str_pair *p;

		if (!url || !jv_is(url, JV_STRING))
			continue;
		p = arena_push(&r->arena2, &r->documents);
		p->key = arena_str(&r->arena2, paths->members[i].key);
		p->value = arena_str(&r->arena2, jv_str(url));
	}
}

static struct error *fetch(struct http_client *c, struct arena *a, struct str target, const struct http_header *h, size_t n, int *status,
			   struct str *body)
{
	struct http_response resp;

	TRY(http_do(c, a, "GET", target, h, n, STR_NULL, &resp));
	*status = resp.status;

	struct error *e = http_response_all(&resp, a, ANSWER_MAX, body);

	http_response_close(&resp);
	return e;
}

static void check(struct apiserver *s, struct remote *r)
{
	struct arena a arena_cleanup = {0};
	struct http_client *c;
	int status;
	struct verdict v = {.ok = true, .reason = STR("Passed"), .message = STR("all checks passed")};
	struct str target = arena_printf(&a, "/apis/%.*s/%.*s", STR_ARG(r->obj->spec.group), STR_ARG(r->obj->spec.version)), body = STR_NULL,
		   index = STR_NULL,
		   name = arena_str(&a, r->obj->metadata.name);
	struct http_header h[] = {{STR("x-remote-user"), STR("system:kube-aggregator")}, {STR("x-remote-group"), STR("system:masters")},
				  {STR("accept"), STR("application/json")}};
	int64_t d = deadline_push(5000);

	r->refs++;
	struct error *e = client_of(s, &a, r, &c);

	if (e) {
		v = (struct verdict){.reason = missing(s, &a, r), .message = arena_str(&a, str_from(error_message(e)))};
	} else {
		e = fetch(c, &a, target, h, 3, &status, &body);
		if (e || status != 200)
			v = (struct verdict){.reason = STR("FailedDiscoveryCheck"),
					     .message = e ? arena_printf(&a, "failing or missing response: %s", error_message(e)) :
							    arena_printf(&a, "failing or missing response from %.*s: bad status: %d",
									 STR_ARG(target), status)};
	}
	error_free(e);
	if (v.ok) {
		h[0].value = STR("system:aggregator");
		e = fetch(c, &a, STR("/openapi/v3"), h, 3, &status, &index);
		if (e || status != 200)
			index = STR_NULL;
		log_and_free(e, "the OpenAPI documents of APIService %.*s", STR_ARG(name));
	}
	deadline_pop(d);
	if (v.ok) {
		arena_reset(&r->arena2);
		r->documents.n = 0;
		r->documents.v = NULL;
		r->resources = arena_str(&r->arena2, body);
		learn_documents(r, index);
	}
	if (v.ok != r->available || !r->obj->status.conditions.n)
		set_status(s, &a, name, &v);
	r->available = v.ok;
	remote_unref(r);
}

static void register_custom(struct apiserver *s);

static void checker(void *arg)
{
	struct apiserver *s = arg;
	int64_t round = 0;
	uint64_t epoch = 0;

	for (;;) {
		struct error *e = waitq_wait_ms(&s->aggregator->changed, CHECK_MS);

		if (error_is_sys(e, ETIMEDOUT))
			error_clear(&e);
		if (e) {
			error_free(e);
			return;
		}
		sync(s);
		crds_sync(s);
		if (s->ready && epoch != s->resources_epoch) {
			epoch = s->resources_epoch;
			register_custom(s);
		}
		round++;
		for (size_t i = 0; i < s->aggregator->n; i++)
			if (!s->aggregator->list[i]->available || !s->aggregator->list[i]->resources.n || round % 30 == 0)
				check(s, s->aggregator->list[i]);
	}
}

static void watcher(void *arg)
{
	struct apiserver *s = arg;
	struct error *e = NULL;

	while (!e) {
		struct cache_watch_opts o = {.initial = true, .mode = CACHE_ANY};
		struct cache_watch *w;
		struct cache_event ev;

		e = cache_watch_open(s->aggregator->follower.cache, &o, &w);
		while (!e) {
			e = cache_watch_next(w, &ev);
			if (!e && ev.type != CACHE_DELETED)
				waitq_wake_all(&s->aggregator->changed);
		}
		cache_watch_close(w);
		if (!error_is_sys(e, ECANCELED)) {
			error_free(e);
			e = fiber_sleep(CHECK_MS);
		}
	}
	error_free(e);
}

struct error *aggregator_init(struct apiserver *s)
{
	struct aggregator *g = xcalloc(1, sizeof *g);

	g->follower = (struct cache_follower){.cache = storage_find(s, STR("apiregistration.k8s.io"), STR("apiservices"))->cache,
					      .what = "APIServices", .apply = apply, .ctx = s};
	s->aggregator = g;
	sync(s);
	background_start(s, "aggregator", checker, s);
	background_start(s, "aggregator-watch", watcher, s);
	return NULL;
}

/* One APIService for each served group-version of custom resources, gone with it. */
static void register_custom(struct apiserver *s)
{
	struct resource *res = resource_any(s, STR("apiregistration.k8s.io"), STR("apiservices")), *r;
	struct arena a arena_cleanup = {0};
	struct map want = {0};
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e;

	for (size_t i = 0; (r = crd_resource_at(s, i)) != NULL; i++) {
		struct str name = arena_printf(&a, "%.*s.%.*s", STR_ARG(r->api->version), STR_ARG(r->api->group));
		struct apiregistration_v1_api_service *o;
		struct verdict v = {.ok = true, .reason = STR("Local"), .message = STR("Local APIServices are always available")};
		struct request rq;
		struct write_result w;

		map_set(&want, name, r);
		if (cache_peek(res->st->cache, STR_NULL, name))
			continue;
		o = arena_new(&a, struct apiregistration_v1_api_service);
		o->metadata.name = name;
		str_map_set(&a, API_MAP(&o->metadata.labels), STR("kube-aggregator.kubernetes.io/automanaged"), STR("true"));
		o->spec.group = arena_str(&a, r->api->group);
		o->spec.version = arena_str(&a, r->api->version);
		o->spec.group_priority_minimum = CUSTOM_GROUP_PRIORITY;
		o->spec.version_priority = CUSTOM_VERSION_PRIORITY;
		request_internal(&rq, s, &a, res, STR_NULL);
		e = registry_create(&rq, o, &w);
		if (!e) {
			cache_entry_unref(w.entry);
			set_status(s, &a, name, &v);
		}
		log_and_free(e, "APIService %.*s", STR_ARG(name));
	}
	e = cache_snapshot(res->st->cache, CACHE_CONSISTENT, 0, &snap);
	if (e) {
		log_and_free(e, "APIServices");
		map_free(&want);
		return;
	}
	cache_iter_init(&it, res->st->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((en = cache_iter_next(&it)) != NULL) {
		struct str_pair labels[255];
		struct str_map m = {labels, (uint32_t)cache_entry_labels(en, labels), 0};
		struct request rq;
		struct meta_v1_delete_options o = {0};
		struct write_result w;

		if (!str_eqz(str_map_get(&m, STR("kube-aggregator.kubernetes.io/automanaged")), "true") ||
		    map_has(&want, cache_entry_name(en)))
			continue;
		request_internal(&rq, s, &a, res, STR_NULL);
		e = registry_delete(&rq, STR_NULL, arena_str(&a, cache_entry_name(en)), &o, &w);
		if (error_is(e, 404, NULL))
			error_clear(&e);
		log_and_free(e, "APIService");
	}
	cache_snap_free(snap);
	map_free(&want);
}

static bool served_at_all(struct apiserver *s, const char *group, const char *version)
{
	for (size_t i = 0; i < s->n_resources; i++)
		if (str_eqz(s->served[i]->group, group) && str_eqz(s->served[i]->version, version))
			return true;
	return false;
}

/* What is served no more (--runtime-config) has no APIService, if this server made it. */
static struct error *unregister_local(struct apiserver *s, struct arena *a, struct resource *res, struct str name)
{
	struct apiregistration_v1_api_service *o = registry_peek(s, a, res->st, STR_NULL, name);
	struct meta_v1_delete_options how = {0};
	struct write_result r;
	struct request rq;
	struct error *e;

	if (!o || !str_eqz(str_map_get(API_MAP(&o->metadata.labels), STR("kube-aggregator.kubernetes.io/automanaged")),
			   "onstart"))
		return NULL;
	request_internal(&rq, s, a, res, STR_NULL);
	e = registry_delete(&rq, STR_NULL, name, &how, &r);
	if (!e)
		cache_entry_unref(r.entry);
	else if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

struct error *aggregator_register_local(struct apiserver *s)
{
	struct resource *res = resource_any(s, STR("apiregistration.k8s.io"), STR("apiservices"));

	for (size_t i = 0; i < sizeof priorities / sizeof *priorities; i++) {
		struct arena a arena_cleanup = {0};
		struct apiregistration_v1_api_service *o = arena_new(&a, struct apiregistration_v1_api_service);
		struct verdict v = {.ok = true, .reason = STR("Local"), .message = STR("Local APIServices are always available")};
		struct request rq;
		struct write_result r;
		struct str name = arena_printf(&a, "%s.%s", priorities[i].version, priorities[i].group);
		struct error *e;

		if (!served_at_all(s, priorities[i].group, priorities[i].version)) {
			TRY(unregister_local(s, &a, res, name));
			continue;
		}
		if (cache_peek(res->st->cache, STR_NULL, name))
			continue;
		o->metadata.name = name;
		str_map_set(&a, API_MAP(&o->metadata.labels), STR("kube-aggregator.kubernetes.io/automanaged"), STR("onstart"));
		o->spec.group = str_from(priorities[i].group);
		o->spec.version = str_from(priorities[i].version);
		o->spec.group_priority_minimum = priorities[i].group_priority;
		o->spec.version_priority = priorities[i].version_priority;
		request_internal(&rq, s, &a, res, STR_NULL);
		rq.nosync = true;
		e = registry_create(&rq, o, &r);
		if (error_is(e, 409, NULL))
			error_clear(&e);
		else if (!e)
			cache_entry_unref(r.entry);
		TRY(e);
		set_status(s, &a, name, &v);
	}
	return NULL;
}

void aggregate_collect(struct apiserver *s)
{
	struct storage *st = storage_find(s, STR("apiregistration.k8s.io"), STR("apiservices"));
	struct arena a arena_cleanup = {0};
	const struct cache_entry *en;
	struct cache_snap *snap;
	struct cache_iter it;
	struct error *e = cache_snapshot(st->cache, CACHE_ANY, 0, &snap);

	metrics_forget(METRIC_APISERVICE_DOWN);
	if (e) {
		log_and_free(e, "APIServices");
		return;
	}
	cache_iter_init(&it, st->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((en = cache_iter_next(&it)) != NULL) {
		const struct remote *r = map_get(&s->aggregator->by_name, cache_entry_name(en));

		metrics_set(METRIC_APISERVICE_DOWN,
			    arena_printf(&a, "name=\"%.*s\"", STR_ARG(metric_label(&a, cache_entry_name(en)))).p,
			    r && !r->available);
	}
	cache_snap_free(snap);
}
