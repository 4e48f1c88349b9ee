/*
 * Admission webhooks (admissionregistration.k8s.io/v1): asked one after another
 * for changes, then all for their judgement.
 *
 * Not built: match conditions (CEL). A webhook that has them is asked as if they
 * held, which never lets through what it would have refused.
 */
#include "apiserver/admission.h"
#include "apiserver/connect.h"
#include "apiserver/custom.h"
#include "apiserver/extend.h"
#include "apiserver/server.h"
#include "schema/defaults.h"
#include "schema/patch.h"

#define ANSWER_MAX (10u << 20)

struct hook {
	struct admissionregistration_v1_mutating_webhook w; /* a validating one has the same members */
	bool mutating;
	struct hook_conn conn;
};
struct config {
	struct arena arena;
	struct str name;
	struct hook *hooks;
	uint32_t n;
};
struct follow {
	struct storage *st;
	struct cache_watch *watch;
	struct map by_name;
	struct config **list;
	size_t n;
};
struct webhooks {
	struct follow mutating, validating;
};

static int config_cmp(const void *x, const void *y)
{
	return str_cmp((*(struct config *const *)x)->name, (*(struct config *const *)y)->name);
}

/* Configurations that were replaced stay allocated: a request may be waiting in one. They change rarely. */
static void apply(struct follow *f, bool mutating, const struct cache_entry *en, bool deleted)
{
	struct str name = cache_entry_name(en), key;
	struct config *c;
	size_t it = 0, n = 0;
	void *v;
	struct error *e;

	if (deleted) {
		map_del(&f->by_name, name);
	} else {
		c = xcalloc(1, sizeof *c);
		if (mutating) {
			struct admissionregistration_v1_mutating_webhook_configuration *o =
				arena_new(&c->arena, struct admissionregistration_v1_mutating_webhook_configuration);

			e = cache_entry_decode(&c->arena, &admissionregistration_v1_mutating_webhook_configuration_type, en, true, o);
			c->n = o->webhooks.n;
			c->hooks = arena_array(&c->arena, struct hook, c->n);
			for (uint32_t i = 0; i < c->n; i++)
				c->hooks[i].w = o->webhooks.v[i];
		} else {
			struct admissionregistration_v1_validating_webhook_configuration *o =
				arena_new(&c->arena, struct admissionregistration_v1_validating_webhook_configuration);

			e = cache_entry_decode(&c->arena, &admissionregistration_v1_validating_webhook_configuration_type, en, true, o);
			c->n = o->webhooks.n;
			c->hooks = arena_array(&c->arena, struct hook, c->n);
			for (uint32_t i = 0; i < c->n; i++) {
				struct admissionregistration_v1_validating_webhook *w = &o->webhooks.v[i];
				struct admissionregistration_v1_mutating_webhook *m = &c->hooks[i].w;

				m->name = w->name;
				m->client_config = w->client_config;
				memcpy(&m->rules, &w->rules, sizeof m->rules);
				m->failure_policy = w->failure_policy;
				m->namespace_selector = w->namespace_selector;
				m->object_selector = w->object_selector;
				m->side_effects = w->side_effects;
				m->timeout_seconds = w->timeout_seconds;
			}
		}
		for (uint32_t i = 0; i < c->n; i++)
			c->hooks[i].mutating = mutating;
		log_and_free(e, "webhook configuration %.*s", STR_ARG(name));
		c->name = arena_str(&c->arena, name);
		map_set(&f->by_name, name, c);
	}
	f->list = xrealloc(f->list, (f->by_name.n + 1) * sizeof *f->list);
	while (map_next(&f->by_name, &it, &key, &v))
		f->list[n++] = v;
	f->n = n;
	qsort(f->list, n, sizeof *f->list, config_cmp);
}

static void sync(struct follow *f, bool mutating)
{
	for (int tries = 0; tries < 3;) {
		struct cache_event ev;
		struct error *e;

		if (!f->watch) {
			struct cache_watch_opts o = {.initial = true, .mode = CACHE_ANY};

			tries++;
			e = cache_watch_open(f->st->cache, &o, &f->watch);
			if (e) {
				log_and_free(e, "following webhook configurations");
				return;
			}
		}
		if (!cache_watch_ready(f->watch))
			return;
		e = cache_watch_next(f->watch, &ev);
		if (e) {
			error_free(e);
			cache_watch_close(f->watch);
			f->watch = NULL;
			continue;
		}
		if (ev.obj)
			apply(f, mutating, ev.obj, ev.type == CACHE_DELETED);
	}
}

struct error *webhooks_init(struct apiserver *s)
{
	struct webhooks *w = xcalloc(1, sizeof *w);
	struct str g = STR("admissionregistration.k8s.io");

	w->mutating.st = storage_find(s, g, STR("mutatingwebhookconfigurations"));
	w->validating.st = storage_find(s, g, STR("validatingwebhookconfigurations"));
	s->webhooks = w;
	sync(&w->mutating, true);
	sync(&w->validating, false);
	return NULL;
}

/* ---- which are asked ---- */

static bool in_or_star(const struct str *v, uint32_t n, struct str want)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eqz(v[i], "*") || str_eq(v[i], want))
			return true;
	return false;
}

static const char *operation(const struct admission *a)
{
	return a->op == ADMIT_CREATE ? "CREATE" : a->op == ADMIT_UPDATE ? "UPDATE" : a->op == ADMIT_DELETE ? "DELETE" : "CONNECT";
}

static bool resource_in(const struct admission *a, const struct str *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct str rest = v[i], res = str_cut(&rest, '/');

		if (!str_eqz(res, "*") && !str_eq(res, a->resource))
			continue;
		if (str_eqz(v[i], "*/*"))
			return true;
		if (!rest.p ? !a->subresource.n : str_eqz(rest, "*") || str_eq(rest, a->subresource))
			return true;
	}
	return false;
}

static bool rules_match(const struct hook *h, const struct admission *a)
{
	bool namespaced = a->res->api->namespaced;

	for (uint32_t i = 0; i < h->w.rules.n; i++) {
		const struct admissionregistration_v1_rule_with_operations *r = &h->w.rules.v[i];
		struct str scope = r->rule.scope ? *r->rule.scope : STR("*");

		if (!in_or_star(r->operations.v, r->operations.n, str_from(operation(a))) ||
		    !in_or_star(r->rule.api_groups.v, r->rule.api_groups.n, a->group) ||
		    !in_or_star(r->rule.api_versions.v, r->rule.api_versions.n, a->version) ||
		    !resource_in(a, r->rule.resources.v, r->rule.resources.n))
			continue;
		if ((str_eqz(scope, "Namespaced") && !namespaced) || (str_eqz(scope, "Cluster") && namespaced))
			continue;
		return true;
	}
	return false;
}

static struct error *selectors_match(struct hook *h, const struct admission *a, bool *yes)
{
	struct arena *ar = a->rq->a;
	const struct selector *sel;

	*yes = false;
	if (h->w.namespace_selector) {
		bool is_ns = str_eqz(a->resource, "namespaces") && !a->group.n;

		TRY(label_selector_from(ar, h->w.namespace_selector, &sel));
		if (is_ns && !a->subresource.n) {
			const struct meta_v1_object_meta *m = object_meta(a->type, (void *)(uintptr_t)(a->obj ? a->obj : a->old));

			if (m && !selector_matches(sel, API_MAP(&m->labels)))
				return NULL;
		} else if (a->ns.n) {
			struct core_v1_namespace *ns = registry_peek(a->rq->s, ar, storage_find(a->rq->s, STR(""), STR("namespaces")), STR_NULL,
								     a->ns);

			if (!ns || !selector_matches(sel, API_MAP(&ns->metadata.labels)))
				return NULL;
		}
	}
	if (h->w.object_selector && a->type->metadata >= 0) {
		bool now, was;

		TRY(label_selector_from(ar, h->w.object_selector, &sel));
		now = a->obj && selector_matches(sel, API_MAP(&object_meta(a->type, a->obj)->labels));
		was = a->old && selector_matches(sel, API_MAP(&object_meta(a->type, (void *)(uintptr_t)a->old)->labels));
		if (!now && !was)
			return NULL;
	}
	*yes = true;
	return NULL;
}

/* ---- asking ---- */

static struct error *client_of(struct apiserver *s, struct arena *a, struct hook_conn *h,
			       const struct admissionregistration_v1_webhook_client_config *cc, struct http_client **out, struct str *target)
{
	struct http_client_opts o = {.http1_only = true, .connect_timeout_ms = 5000};
	struct str base;
	const char *server_name = NULL;

	if (cc->url) {
		struct str u = *cc->url, rest = u;
		ptrdiff_t slash;

		if (!str_has_prefix(u, STR("https://")))
			return error_new("url must be https");
		rest = str_sub(u, 8, u.n);
		slash = str_index(rest, '/');
		base = slash < 0 ? u : str_sub(u, 0, 8 + (size_t)slash);
		*target = slash < 0 ? STR("/") : str_sub(rest, (size_t)slash, rest.n);
	} else if (cc->service) {
		int port = cc->service->port ? *cc->service->port : 443, at;
		struct str port_name, host;

		TRY(connect_service_port(s, a, cc->service->namespace, cc->service->name, port, &port_name));
		TRY(connect_endpoint(s, a, cc->service->namespace, cc->service->name, port_name, &host, &at));
		base = arena_printf(a, str_index(host, ':') >= 0 ? "https://[%.*s]:%d" : "https://%.*s:%d", STR_ARG(host), at);
		server_name = arena_printf(a, "%.*s.%.*s.svc", STR_ARG(cc->service->name), STR_ARG(cc->service->namespace)).p;
		*target = cc->service->path && cc->service->path->n ? *cc->service->path : STR("/");
	} else {
		return error_new("the webhook has neither url nor service");
	}
	*out = map_get(&h->clients, base);
	if (*out)
		return NULL;
	if (!h->tls) {
		struct tls_client_opts t = {.ca_pem = cc->ca_bundle, .server_name = server_name};

		TRY(tls_client_new(&t, &h->tls));
	}
	o.base = arena_strz(a, base);
	o.tls = h->tls;
	TRY(http_client_new(&o, out));
	map_set(&h->clients, base, *out);
	return NULL;
}

/* The address as its owner knows it: a Service by its name. */
static const char *shown_url(struct arena *a, const struct admissionregistration_v1_webhook_client_config *cc, struct str target)
{
	if (cc->service)
		return arena_printf(a, "https://%.*s.%.*s.svc:%d%.*s", STR_ARG(cc->service->name), STR_ARG(cc->service->namespace),
				    cc->service->port ? *cc->service->port : 443, STR_ARG(target)).p;
	struct str rest = str_sub(*cc->url, 8, cc->url->n);
	ptrdiff_t slash = str_index(rest, '/');

	return arena_printf(a, "%.*s%.*s", STR_ARG(slash < 0 ? *cc->url : str_sub(*cc->url, 0, 8 + (size_t)slash)), STR_ARG(target)).p;
}

struct error *webhook_post(struct apiserver *s, struct arena *a, struct hook_conn *conn,
			   const struct admissionregistration_v1_webhook_client_config *cc, int timeout_s, struct str body, struct str *answer)
{
	struct http_client *c;
	struct http_response resp;
	struct http_header headers[] = {{STR("content-type"), STR("application/json")}, {STR("accept"), STR("application/json, */*")}};
	struct str target;
	const char *shown;
	int64_t d;
	struct error *e;

	TRY(client_of(s, a, conn, cc, &c, &target));
	target = arena_printf(a, "%.*s?timeout=%ds", STR_ARG(target), timeout_s);
	shown = shown_url(a, cc, target);
	d = deadline_push(1000ll * timeout_s);
	e = http_do(c, a, "POST", target, headers, 2, body, &resp);
	if (!e) {
		e = http_response_all(&resp, a, ANSWER_MAX, answer);
		http_response_close(&resp);
	}
	deadline_pop(d);
	if (error_is_sys(e, ETIMEDOUT)) {
		error_free(e);
		return error_new("failed to call webhook: Post \"%s\": context deadline exceeded", shown);
	}
	if (e)
		return error_wrap(e, "failed to call webhook: Post \"%s\"", shown);
	if (resp.status != 200)
		return error_new("failed to call webhook: the server answered %d", resp.status);
	return NULL;
}

static struct str object_json(struct admission *a, const void *obj)
{
	const struct resource *res = a->res;
	struct buf b buf_cleanup = {0};
	const struct schema_type *t = a->type;
	struct str *tm;

	if (!obj)
		return STR_NULL;
	if (t == res->st->type && res->from_storage) {
		void *v = arena_alloc(a->rq->a, res->api->type->size);

		res->from_storage(a->rq->a, obj, v);
		obj = v;
		t = res->api->type;
	}
	tm = (struct str *)(uintptr_t)obj;
	tm[0] = t == res->api->type ? res->api->kind : str_from(t->name);
	tm[1] = t == res->api->type ? res->api_version :
		t->group.n	    ? arena_printf(a->rq->a, "%.*s/%.*s", STR_ARG(t->group), STR_ARG(t->version)) : t->version;
	json_encode(&b, t, obj);
	return arena_str(a->rq->a, buf_view(&b));
}

static void fill_user(struct arena *a, const struct user *u, struct authentication_v1_user_info *out)
{
	out->username = u->name;
	out->uid = u->uid;
	out->groups.v = (struct str *)(uintptr_t)u->groups;
	out->groups.n = (uint32_t)u->n_groups;
	for (size_t i = 0; i < u->n_extra; i++)
		*(struct strings_pair *)(void *)arena_push(a, &out->extra) = u->extra[i];
}

static struct error *ask(struct admission *a, struct hook *h, struct admission_v1_admission_response **out)
{
	struct arena *ar = a->rq->a;
	struct admission_v1_admission_review rev = {.kind = STR("AdmissionReview"), .api_version = STR("admission.k8s.io/v1")};
	struct admission_v1_admission_request *rq = arena_new(ar, struct admission_v1_admission_request);
	struct admission_v1_admission_review *ans = arena_new(ar, struct admission_v1_admission_review);
	struct buf b buf_cleanup = {0};
	struct str body;
	char uid[37];

	random_uuid(uid);
	rq->uid = str_from(uid);
	rq->kind.group = a->group;
	rq->kind.version = a->version;
	rq->kind.kind = a->kind;
	if (a->type != a->res->api->type && a->type != a->res->st->type) {
		/* a subresource's own: Eviction, Binding, PodExecOptions */
		rq->kind.group = a->type->group;
		rq->kind.version = a->type->version;
		rq->kind.kind = str_from(a->type->name);
	}
	rq->resource.group = a->group;
	rq->resource.version = a->version;
	rq->resource.resource = a->resource;
	rq->sub_resource = a->subresource;
	rq->request_kind = &rq->kind;
	rq->request_resource = &rq->resource;
	rq->request_sub_resource = a->subresource;
	rq->name = a->name;
	rq->namespace = a->ns;
	rq->operation = str_from(operation(a));
	fill_user(ar, a->rq->user, &rq->user_info);
	rq->object = object_json(a, a->obj);
	rq->old_object = object_json(a, a->old);
	rq->dry_run = arena_new(ar, bool);
	*rq->dry_run = a->dry_run;
	rev.request = rq;
	json_encode(&b, &admission_v1_admission_review_type, &rev);
	TRY(webhook_post(a->rq->s, ar, &h->conn, &h->w.client_config, h->w.timeout_seconds ? *h->w.timeout_seconds : 10, buf_view(&b), &body));
	TRY(error_wrap(json_decode(ar, &admission_v1_admission_review_type, body, NULL, ans), "failed to call webhook"));
	if (!ans->response)
		return error_new("failed to call webhook: webhook response was absent");
	if (!str_eqz(ans->response->uid, uid))
		return error_new("failed to call webhook: expected response.uid=\"%s\", got \"%.*s\"", uid, STR_ARG(ans->response->uid));
	*out = ans->response;
	return NULL;
}

static struct error *denied(struct hook *h, const struct admission_v1_admission_response *r)
{
	int code = 403;
	struct str msg = STR("without explanation");
	struct error *e;

	if (r->status) {
		struct meta_v1_status st = *r->status;

		if (st.code >= 400 && st.code < 600)
			code = st.code;
		if (st.message.n)
			msg = st.message;
		else if (st.reason.n)
			msg = st.reason;
		st.code = code;
		st.message = STR("");
		e = error_from_status(&st);
		error_free(e);
	}
	return error_status(code, code == 403 ? "Forbidden" : code == 400 ? "BadRequest" : code == 422 ? "Invalid" : code == 409 ? "Conflict" : "",
			    "admission webhook \"%.*s\" denied the request: %.*s", STR_ARG(h->w.name), STR_ARG(msg));
}

static struct error *patch_object(struct admission *a, const struct admission_v1_admission_response *r)
{
	const struct resource *res = a->res;
	struct arena *ar = a->rq->a;
	const struct schema_type *t = a->type == res->st->type ? res->api->type : a->type;
	struct str json = object_json(a, a->obj);
	struct jv doc;
	void *out;

	if (r->patch_type && !str_eqz(*r->patch_type, "JSONPatch"))
		return error_new("unsupported patchType \"%.*s\"", STR_ARG(*r->patch_type));
	TRY(jv_parse(ar, json, NULL, &doc));
	TRY(json_patch(ar, &doc, r->patch));
	out = arena_alloc(ar, t->size);
	TRY(jv_to_object(ar, t, &doc, NULL, out));
	if (res->crd)
		TRY(custom_default_and_prune(a->rq, out));
	else
		object_default(ar, t, out);
	if (t != a->type) {
		void *st = arena_alloc(ar, a->type->size);

		res->to_storage(ar, out, st);
		out = st;
	}
	memcpy(a->obj, out, a->type->size);
	return NULL;
}

static struct error *run(struct admission *a, struct follow *f, bool mutating)
{
	if (a->rq->internal || str_eqz(a->group, "admissionregistration.k8s.io") || str_eqz(a->group, "authorization.k8s.io") ||
	    str_eqz(a->group, "authentication.k8s.io") || !a->res->st)
		return NULL;
	sync(f, mutating);
	for (size_t i = 0; i < f->n; i++) {
		struct config *c = f->list[i];

		for (uint32_t k = 0; k < c->n; k++) {
			struct hook *h = &c->hooks[k];
			struct admission_v1_admission_response *r = NULL;
			bool yes, ignore = h->w.failure_policy && str_eqz(*h->w.failure_policy, "Ignore");
			struct error *e;

			if (!rules_match(h, a))
				continue;
			TRY(selectors_match(h, a, &yes));
			if (!yes)
				continue;
			if (a->dry_run && h->w.side_effects && !str_eqz(*h->w.side_effects, "None") &&
			    !str_eqz(*h->w.side_effects, "NoneOnDryRun"))
				return err_bad_request("admission webhook \"%.*s\" does not support dry run", STR_ARG(h->w.name));
			e = ask(a, h, &r);
			if (!e) {
				for (uint32_t w = 0; w < r->warnings.n; w++)
					request_warn(a->rq, "%.*s", STR_ARG(r->warnings.v[w]));
				if (!r->allowed)
					return denied(h, r);
				if (mutating && r->patch.n && a->obj)
					e = patch_object(a, r);
			}
			if (!e)
				continue;
			if (ignore) {
				log_warn("webhook %.*s failed and is ignored: %s", STR_ARG(h->w.name), error_message(e));
				error_free(e);
				continue;
			}
			struct error *out = err_internal("failed calling webhook \"%.*s\": %s", STR_ARG(h->w.name), error_message(e));

			error_free(e);
			return out;
		}
	}
	return NULL;
}

static struct error *mutate(struct admission *a)
{
	return run(a, &a->rq->s->webhooks->mutating, true);
}

static struct error *judge(struct admission *a)
{
	return run(a, &a->rq->s->webhooks->validating, false);
}

const struct admission_plugin admit_mutating_webhook = {
	.name = "MutatingAdmissionWebhook", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE | ADMIT_CONNECT, .admit = mutate,
};
const struct admission_plugin admit_validating_webhook = {
	.name = "ValidatingAdmissionWebhook", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE | ADMIT_CONNECT, .validate = judge,
};
