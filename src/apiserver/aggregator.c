/* API aggregation: the APIService objects, who attends to them, and those that this server makes for what it has
 * itself. */
#include "apiserver/aggregator.h"
#include "apiserver/background.h"
#include "apiserver/convert.h"
#include "apiserver/custom.h"
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"

#define TICK_MS 1000 /* how often the way to a remote server is looked at */

#define RELEARN_MS 60000
#define SPEC_PAUSE_MAX_MS 3600000

/* ---- due ---- */

void due_set(struct due *d, int64_t in_ms)
{
	*d = (struct due){.at_ms = now_ms() + in_ms};
}

void due_next(struct due *d, bool ok, int64_t every_ms, int64_t first_ms, int64_t most_ms)
{
	if (ok)
		d->pause_ms = 0;
	else
		d->pause_ms = !d->pause_ms ? first_ms : d->pause_ms * 2 < most_ms ? d->pause_ms * 2 : most_ms;
	d->at_ms = now_ms() + (ok ? every_ms : d->pause_ms);
}

/* ---- the objects ---- */

void remote_unref(struct remote *r)
{
	if (!r || --r->refs)
		return;
	clients_let_go(&r->clients);
	tls_client_free(r->tls);
	arena_free(&r->arena);
	free(r);
}

static struct remote *remote_new(struct apiserver *s, const struct apiregistration_v1_api_service *obj)
{
	struct remote *r = xcalloc(1, sizeof *r);
	struct apiregistration_v1_api_service *copy = arena_new(&r->arena, struct apiregistration_v1_api_service);
	struct tls_client_opts o = {.cert_file = s->o.proxy_client_cert_file, .key_file = s->o.proxy_client_key_file};
	struct buf b buf_cleanup = {0};
	struct error *e;

	r->refs = 1;
	/* strings of its own: the object is replaced at each change of its status */
	json_encode(&b, &apiregistration_v1_api_service_type, obj);
	e = json_decode(&r->arena, &apiregistration_v1_api_service_type, arena_str(&r->arena, buf_view(&b)), NULL,
			copy);
	r->spec = &copy->spec;
	o.server_name = arena_printf(&r->arena, "%.*s.%.*s.svc", STR_ARG(obj->spec.service->name),
				     STR_ARG(obj->spec.service->namespace))
				.p;
	o.ca_pem = copy->spec.ca_bundle;
	o.insecure_skip_verify = copy->spec.insecure_skip_tls_verify;
	o.http2 = http2_wanted();
	if (!e)
		e = tls_client_new(&o, &r->tls);
	if (e)
		r->error = arena_str(&r->arena, str_from(error_message(e)));
	log_and_free(e, "APIService %.*s", STR_ARG(obj->metadata.name));
	return r;
}

static void service_unref(struct aggregator *g, struct api_service *v)
{
	if (--v->refs)
		return;
	aggregator_forget(g, v);
	remote_unref(v->remote);
	arena_free(&v->arena);
	arena_free(&v->name_arena);
	free(v);
}

static int by_priority(const void *x, const void *y)
{
	const struct api_service *a = *(struct api_service *const *)x, *b = *(struct api_service *const *)y;
	int32_t pa = a->obj->spec.group_priority_minimum, pb = b->obj->spec.group_priority_minimum;

	return pa != pb ? (pa > pb ? -1 : 1) : str_cmp(a->name, b->name);
}

static void relist(struct aggregator *g)
{
	size_t it = 0, n = 0;
	struct str key;
	void *v;

	g->list = xrealloc(g->list, (g->by_name.n + 1) * sizeof *g->list);
	g->remotes = 0;
	while (map_next(&g->by_name, &it, &key, &v)) {
		g->remotes += ((struct api_service *)v)->obj->spec.service != NULL;
		g->list[n++] = v;
	}
	g->n = n;
	qsort(g->list, n, sizeof *g->list, by_priority);
}

static void attend(void *arg);

const struct apiregistration_v1_api_service_condition *
available_condition(const struct apiregistration_v1_api_service *o)
{
	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		if (str_eqz(o->status.conditions.v[i].type, "Available"))
			return &o->status.conditions.v[i];
	return NULL;
}

static void removed(struct aggregator *g, struct str name)
{
	struct api_service *v = map_del(&g->by_name, name);

	if (!v)
		return;
	v->gone = true;
	aggregator_forget(g, v);
	waitq_wake_all(&v->wake);
	relist(g);
	service_unref(g, v);
}

struct attendance {
	struct apiserver *s;
	struct api_service *v;
};

/* What it says is old: it is asked anew, and soon what it did not say last time. */
static void expect_news(struct api_service *v)
{
	due_set(&v->check, 0);
	due_set(&v->discovery, 0);
	due_set(&v->v2, 0);
	if (v->v3.pause_ms)
		due_set(&v->v3, 0);
	waitq_wake_all(&v->wake);
}

static void apply(void *ctx, struct str name, const struct cache_entry *en)
{
	struct apiserver *s = ctx;
	struct aggregator *g = s->aggregator;
	struct api_service *v = map_get(&g->by_name, name);
	struct arena a = {0};
	struct apiregistration_v1_api_service *obj;
	const struct apiregistration_v1_api_service_condition *c;
	struct error *e;

	if (!en) {
		removed(g, name);
		return;
	}
	obj = arena_new(&a, struct apiregistration_v1_api_service);
	e = cache_entry_decode(&a, &apiregistration_v1_api_service_type, en, true, obj);
	if (e) {
		log_and_free(e, "APIService %.*s", STR_ARG(name));
		arena_free(&a);
		return;
	}
	if (!v) {
		v = xcalloc(1, sizeof *v);
		v->refs = 1;
		v->name = arena_str(&v->name_arena, name);
		map_set(&g->by_name, name, v);
	}
	if (v->remote &&
	    !(obj->spec.service && object_field_equal(&apiregistration_v1_api_service_type, v->obj, obj, "spec"))) {
		remote_unref(v->remote);
		v->remote = NULL;
	}
	arena_free(&v->arena);
	v->arena = a;
	v->obj = obj;
	c = available_condition(obj);
	v->available = c && str_eqz(c->status, "True");
	relist(g);
	if (!obj->spec.service) {
		aggregator_forget(g, v);
		return;
	}
	if (!v->remote)
		v->remote = remote_new(s, obj);
	expect_news(v);
	if (!v->attended) {
		struct attendance *at = xcalloc(1, sizeof *at);

		*at = (struct attendance){s, v};
		v->attended = true;
		v->refs++;
		background_start(s, "aggregator-remote", attend, at);
	}
}

void aggregator_sync(struct apiserver *s)
{
	if (s->aggregator)
		cache_follow(&s->aggregator->follower);
}

bool aggregator_at(struct apiserver *s, size_t i, struct api_service_info *out)
{
	struct aggregator *g = s->aggregator;
	const struct api_service *v;

	if (!i)
		aggregator_sync(s);
	if (!g || i >= g->n)
		return false;
	v = g->list[i];
	*out = (struct api_service_info){.name = v->name,
					 .group = v->obj->spec.group,
					 .version = v->obj->spec.version,
					 .group_priority = v->obj->spec.group_priority_minimum,
					 .version_priority = v->obj->spec.version_priority,
					 .remote = v->remote != NULL, .available = v->available,
					 .resources = v->resources ? block_str(v->resources) : STR_NULL,
					 .stale = !v->fresh};
	return true;
}

/* ---- who attends to them ---- */

/* One remote APIService for as long as it is one. */
static void attend(void *arg)
{
	struct attendance at = *(struct attendance *)arg;
	struct aggregator *g = at.s->aggregator;
	struct api_service *v = at.v;
	struct error *e = NULL;

	free(arg);
	while (!e && !v->gone && v->remote) {
		/* one that does not answer is asked each second, one that does when its Service changes or half a
		 * minute has gone */
		if (due(&v->check) || !v->available)
			aggregator_check(at.s, v);
		else
			aggregator_check_way(at.s, v);
		aggregator_sync(at.s);
		if (!v->gone && v->remote && due(&v->discovery))
			due_next(&v->discovery, aggregator_learn_resources(at.s, v), RELEARN_MS, 500, RELEARN_MS);
		if (!v->gone && v->remote && v->available && due(&v->v3))
			due_next(&v->v3, aggregator_learn_documents(at.s, v), RELEARN_MS, RELEARN_MS,
				 SPEC_PAUSE_MAX_MS);
		if (!v->gone && v->remote && v->available && due(&v->v2))
			due_next(&v->v2, aggregator_learn_spec(at.s, v), RELEARN_MS, RELEARN_MS, SPEC_PAUSE_MAX_MS);
		if (v->gone || !v->remote)
			break;
		e = waitq_wait_ms(&v->wake, TICK_MS);
		if (error_is_sys(e, ETIMEDOUT))
			error_clear(&e);
	}
	error_free(e);
	v->attended = false;
	service_unref(g, v);
}

static bool register_custom(struct apiserver *s);

static void local_conditions(struct apiserver *s)
{
	struct aggregator *g = s->aggregator;

	/* the list changes while one is written */
	for (size_t i = 0; i < g->n; i++) {
		const struct apiregistration_v1_api_service_condition *c = available_condition(g->list[i]->obj);
		struct arena a arena_cleanup = {0};

		if (!g->list[i]->remote && !(c && str_eqz(c->status, "True") && str_eqz(c->reason, "Local")))
			aggregator_local_status(s, arena_str(&a, g->list[i]->name));
	}
}

static void registrar(void *arg)
{
	struct apiserver *s = arg;
	uint64_t epoch = 0;
	bool done = true;

	for (;;) {
		struct error *e = NULL;

		aggregator_sync(s);
		crds_sync(s);
		if (s->ready && (epoch != s->resources_epoch || !done)) {
			epoch = s->resources_epoch;
			done = register_custom(s);
		}
		if (s->ready)
			local_conditions(s);
		/* Who changed something meanwhile woke nobody. */
		crds_sync(s);
		if (!s->ready || epoch == s->resources_epoch)
			e = waitq_wait_ms(&s->aggregator->changed, TICK_MS);
		if (error_is_sys(e, ETIMEDOUT))
			error_clear(&e);
		if (e) {
			error_free(e);
			return;
		}
	}
}

static struct error *watcher(struct apiserver *s, struct cache_watch *w)
{
	struct cache_event ev;

	for (;;) {
		struct error *e = cache_watch_next(w, &ev);

		aggregator_sync(s);
		waitq_wake_all(&s->aggregator->changed);
		if (e)
			return e;
	}
}

struct error *aggregator_init(struct apiserver *s)
{
	struct aggregator *g = xcalloc(1, sizeof *g);

	g->follower = (struct cache_follower){
		.cache = storage_find(s, STR("apiregistration.k8s.io"), STR("apiservices"))->cache,
		.what = "APIServices",
		.apply = apply,
		.ctx = s};
	g->specs_epoch = 1;
	s->aggregator = g;
	aggregator_sync(s);
	background_start(s, "aggregator", registrar, s);
	background_watch(s, "aggregator-watch", g->follower.cache, watcher);
	return NULL;
}

void aggregator_wake(struct apiserver *s)
{
	if (s->aggregator)
		waitq_wake_all(&s->aggregator->changed);
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

void local_priority(struct str group, struct str version, int32_t *group_priority, int32_t *version_priority)
{
	for (size_t i = 0; i < sizeof priorities / sizeof *priorities; i++)
		if (str_eqz(group, priorities[i].group) && str_eqz(version, priorities[i].version)) {
			*group_priority = priorities[i].group_priority;
			*version_priority = priorities[i].version_priority;
			return;
		}
	*group_priority = CUSTOM_GROUP_PRIORITY;
	*version_priority = CUSTOM_VERSION_PRIORITY;
}

/* One APIService for each served group-version of custom resources, gone with it. False: what has gone cannot be told now. */
static bool register_custom(struct apiserver *s)
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
		struct request rq;
		struct write_result w;

		map_set(&want, name, r);
		if (cache_peek(res->st->cache, STR_NULL, name))
			continue;
		o = arena_new(&a, struct apiregistration_v1_api_service);
		o->metadata.name = name;
		str_map_set(&a, API_MAP(&o->metadata.labels), STR("kube-aggregator.kubernetes.io/automanaged"),
			    STR("true"));
		o->spec.group = arena_str(&a, r->api->group);
		o->spec.version = arena_str(&a, r->api->version);
		o->spec.group_priority_minimum = CUSTOM_GROUP_PRIORITY;
		o->spec.version_priority = CUSTOM_VERSION_PRIORITY;
		request_internal(&rq, s, &a, res, STR_NULL);
		e = registry_create(&rq, o, &w);
		if (!e)
			cache_entry_unref(w.entry);
		log_and_free(e, "APIService %.*s", STR_ARG(name));
	}
	/* A definition that cannot be read has not gone. */
	e = cache_whole(storage_find(s, STR("apiextensions.k8s.io"), STR("customresourcedefinitions"))->cache);
	if (!e)
		e = cache_snapshot(res->st->cache, CACHE_CONSISTENT, 0, &snap);
	if (e) {
		log_v(2, "APIServices: %s", error_message(e));
		error_free(e);
		map_free(&want);
		return false;
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
	return true;
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
		str_map_set(&a, API_MAP(&o->metadata.labels), STR("kube-aggregator.kubernetes.io/automanaged"),
			    STR("onstart"));
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
	}
	return NULL;
}

void aggregate_collect(struct apiserver *s)
{
	struct api_service_info v;
	struct arena a arena_cleanup = {0};

	metrics_forget(METRIC_APISERVICE_DOWN);
	for (size_t i = 0; aggregator_at(s, i, &v); i++)
		metrics_set(METRIC_APISERVICE_DOWN, arena_printf(&a, "name=\"%.*s\"", STR_ARG(metric_label(&a, v.name))).p,
			    v.remote && !v.available);
}
