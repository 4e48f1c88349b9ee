/*
 * Admission webhooks (admissionregistration.k8s.io/v1): asked one after another
 * for changes, then all at once for their judgement. Upstream's
 * admission/plugin/webhook.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include "apiserver/cache_follow.h"
#include "apiserver/connect.h"
#include "apiserver/custom.h"
#include "apiserver/expressions.h"
#include "apiserver/admission_config.h"
#include "apiserver/extend.h"
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"
#include "schema/defaults.h"
#include "schema/patch.h"
#include "schema/validate.h"

#define ANSWER_MAX (10u << 20)
#define ADDRESSES_MAX 256 /* that connections of one webhook are kept to */
#define TRIES_MAX 11      /* where a webhook says when to ask again */

struct hook {
	struct admissionregistration_v1_mutating_webhook w; /* a validating one has the same members */
	struct str config;                                  /* the configuration's name */
	struct str key;                                     /* config/webhook */
	struct match_conditions conditions;
	struct hook_conn conn;
};
struct config { /* counted: a request may be waiting in it when it is replaced */
	unsigned refs;
	struct arena arena;
	struct str name;
	struct hook *hooks;
	uint32_t n;
};
struct follow {
	struct cache_follower follower;
	bool mutating;
	struct map by_name;
	struct config **list; /* by name */
	size_t n;
};
struct webhooks {
	struct follow mutating, validating;
};

static struct outbound_users *hook_users[2]; /* validating, mutating: of their configurations; one server a process */

static int config_cmp(const void *x, const void *y)
{
	return str_cmp((*(struct config *const *)x)->name, (*(struct config *const *)y)->name);
}

void hook_conn_free(struct hook_conn *h)
{
	clients_let_go(&h->clients);
	tls_client_free(h->tls);
	h->tls = NULL;
}

static void config_unref(struct config *c)
{
	if (--c->refs)
		return;
	for (uint32_t i = 0; i < c->n; i++) {
		match_conditions_free(&c->hooks[i].conditions);
		hook_conn_free(&c->hooks[i].conn);
	}
	arena_free(&c->arena);
	free(c);
}

static struct error *load_mutating(struct config *c, const struct cache_entry *en)
{
	struct admissionregistration_v1_mutating_webhook_configuration *o =
		arena_new(&c->arena, struct admissionregistration_v1_mutating_webhook_configuration);

	TRY(cache_entry_decode(&c->arena, &admissionregistration_v1_mutating_webhook_configuration_type, en, true, o));
	c->hooks = arena_array(&c->arena, struct hook, o->webhooks.n);
	c->n = o->webhooks.n;
	for (uint32_t i = 0; i < c->n; i++)
		c->hooks[i].w = o->webhooks.v[i];
	return NULL;
}

void webhook_as_mutating(const struct admissionregistration_v1_validating_webhook *w, struct admissionregistration_v1_mutating_webhook *m)
{
	*m = (struct admissionregistration_v1_mutating_webhook){0};
	m->name = w->name;
	m->client_config = w->client_config;
	memcpy(&m->rules, &w->rules, sizeof m->rules);
	m->failure_policy = w->failure_policy;
	m->match_policy = w->match_policy;
	m->namespace_selector = w->namespace_selector;
	m->object_selector = w->object_selector;
	m->side_effects = w->side_effects;
	m->timeout_seconds = w->timeout_seconds;
	memcpy(&m->admission_review_versions, &w->admission_review_versions, sizeof m->admission_review_versions);
	memcpy(&m->match_conditions, &w->match_conditions, sizeof m->match_conditions);
}

static struct error *load_validating(struct config *c, const struct cache_entry *en)
{
	struct admissionregistration_v1_validating_webhook_configuration *o =
		arena_new(&c->arena, struct admissionregistration_v1_validating_webhook_configuration);

	TRY(cache_entry_decode(&c->arena, &admissionregistration_v1_validating_webhook_configuration_type, en, true, o));
	c->hooks = arena_array(&c->arena, struct hook, o->webhooks.n);
	c->n = o->webhooks.n;
	for (uint32_t i = 0; i < c->n; i++)
		webhook_as_mutating(&o->webhooks.v[i], &c->hooks[i].w);
	return NULL;
}

static struct config *config_new(struct str name, bool mutating, const struct cache_entry *en)
{
	struct config *c = xcalloc(1, sizeof *c);

	c->refs = 1;
	c->name = arena_str(&c->arena, name);
	log_and_free(mutating ? load_mutating(c, en) : load_validating(c, en), "webhook configuration %.*s", STR_ARG(name));
	for (uint32_t i = 0; i < c->n; i++) {
		struct hook *h = &c->hooks[i];

		h->config = c->name;
		h->conn.users = hook_users[mutating];
		h->key = arena_printf(&c->arena, "%.*s/%.*s", STR_ARG(name), STR_ARG(h->w.name));
		match_conditions_compile(&c->arena, h->w.match_conditions.v, h->w.match_conditions.n, EXPR_AUTHORIZER, NULL, &h->conditions);
	}
	return c;
}

static void apply(void *ctx, struct str name, const struct cache_entry *en)
{
	struct follow *f = ctx;
	struct str key;
	struct config *was = map_get(&f->by_name, name);
	size_t it = 0, n = 0;
	void *v;

	if (en)
		map_set(&f->by_name, name, config_new(name, f->mutating, en));
	else
		map_del(&f->by_name, name);
	if (was)
		config_unref(was);
	f->list = xrealloc(f->list, (f->by_name.n + 1) * sizeof *f->list);
	while (map_next(&f->by_name, &it, &key, &v))
		f->list[n++] = v;
	f->n = n;
	qsort(f->list, n, sizeof *f->list, config_cmp);
}

static void follow_begin(struct follow *f, const struct storage *st)
{
	f->follower = (struct cache_follower){.cache = st->cache, .what = "webhook configurations", .apply = apply, .ctx = f};
	cache_follow(&f->follower);
}

struct error *webhooks_init(struct apiserver *s)
{
	struct webhooks *w = xcalloc(1, sizeof *w);
	struct str g = STR("admissionregistration.k8s.io");

	w->mutating.mutating = true;
	follow_begin(&w->mutating, storage_find(s, g, STR("mutatingwebhookconfigurations")));
	follow_begin(&w->validating, storage_find(s, g, STR("validatingwebhookconfigurations")));
	s->webhooks = w;
	return NULL;
}

/* ---- which are asked ---- */

/* The resource as which the webhook wants the request, NULL: it does not. Trouble with selectors counts only where rules match. */
static struct error *wanted(struct hook *h, struct admission *a, const struct resource **as)
{
	const struct admissionregistration_v1_mutating_webhook *w = &h->w;
	struct error *ens, *eobj;
	const struct resource *r;
	bool yes;

	*as = NULL;
	ens = admit_match_namespace(a, w->namespace_selector, &yes);
	if (!ens && !yes)
		return NULL;
	eobj = admit_match_object(a, w->object_selector, &yes);
	if (eobj || yes) {
		for (uint32_t i = 0; i < w->rules.n && !*as; i++)
			if (admit_match_rule(a, &w->rules.v[i], a->res))
				*as = a->res;
		for (uint32_t i = 0; w->match_policy && str_eqz(*w->match_policy, "Equivalent") && i < w->rules.n && !*as; i++)
			for (size_t k = 0; !*as && (r = admit_equivalent(a, k)) != NULL; k++)
				if (admit_match_rule(a, &w->rules.v[i], r))
					*as = r;
	}
	if (!*as || !ens) {
		error_free(ens);
		ens = NULL;
	}
	if (!*as || ens) {
		error_free(eobj);
		eobj = NULL;
	}
	return ens ? ens : eobj;
}

/* The match conditions hold. */
static struct error *conditions_hold(struct hook *h, struct admission *a, const struct admit_version *v, const char *type, bool *yes)
{
	struct expression_input in;
	struct str why;

	*yes = true;
	if (!h->conditions.n)
		return NULL;
	expression_input_init(&in, a, v, NULL);
	*yes = match_conditions_counted(&h->conditions, NULL, &in, "webhook", type, h->w.name, &why);
	if (*yes || !why.p)
		return NULL;
	log_warn("match conditions of webhook %.*s: %.*s", STR_ARG(h->w.name), STR_ARG(why));
	if (h->w.failure_policy && str_eqz(*h->w.failure_policy, "Ignore"))
		return NULL;
	return err_forbidden(a->group, a->resource, a->name, "%.*s", STR_ARG(why));
}

/* ---- asking ---- */

/* Of "https://HOST[:PORT]"; brackets of an address are taken off. */
static struct str host_of(struct str base, int64_t *port)
{
	struct str host = str_sub(base, strlen("https://"), base.n);
	ptrdiff_t colon = str_rindex(host, ':');

	*port = 443;
	if (colon > 0 && str_to_i64(str_sub(host, (size_t)colon + 1, host.n), port))
		host.n = (size_t)colon;
	return host.n && host.p[0] == '[' ? str_sub(host, 1, host.n - 1) : host;
}

static bool is_loopback(struct arena *a, struct str host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (str_eq_nocase(host, STR("localhost")))
		return true;
	if (inet_pton(AF_INET, arena_strz(a, host), &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET;
	if (inet_pton(AF_INET6, arena_strz(a, host), &v6) != 1)
		return false;
	return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == IN_LOOPBACKNET);
}

/* Services are known by NAME.NAMESPACE.svc and the port of the Service, URLs (base: "https://HOST:PORT") as they stand. */
static const struct outbound_user *user_for(struct arena *a, const struct outbound_users *users,
					    const struct admissionregistration_v1_webhook_client_config *cc, struct str base)
{
	struct str host;
	int64_t port;

	if (cc->service)
		return outbound_users_find(users, arena_printf(a, "%.*s.%.*s.svc", STR_ARG(cc->service->name), STR_ARG(cc->service->namespace)),
					   cc->service->port ? *cc->service->port : 443);
	host = host_of(base, &port);
	return outbound_users_find(users, host, (int)port);
}

/* What is behind the Service of the servers is asked of this one, as upstream's loopback client asks: a webhook that is an aggregated API. */
static bool is_own(const struct admissionregistration_v1_webhook_client_config *cc)
{
	return str_eqz(cc->service->namespace, "default") && str_eqz(cc->service->name, "kubernetes") &&
	       (!cc->service->port || *cc->service->port == 443);
}

static struct str own_base(struct apiserver *s, struct arena *a)
{
	const char *at = s->o.bind_address;

	if (!strcmp(at, "0.0.0.0"))
		at = "127.0.0.1";
	else if (!strcmp(at, "::"))
		at = "::1";
	return arena_printf(a, strchr(at, ':') ? "https://[%s]:%d" : "https://%s:%d", at, s->port);
}

static const struct http_client_opts client_opts = {.connect_timeout_ms = 5000, .max_idle = 25}; /* upstream's, of each host */

/* "https://HOST:PORT" of a URL */
static struct str base_of(struct str url)
{
	ptrdiff_t slash = str_index(str_sub(url, 8, url.n), '/');

	return slash < 0 ? url : str_sub(url, 0, 8 + (size_t)slash);
}

static struct error *target_of(const struct admissionregistration_v1_webhook_client_config *cc, struct str *target)
{
	if (cc->url && !str_has_prefix(*cc->url, STR("https://")))
		return error_new("url must be https");
	if (!cc->url && !cc->service)
		return error_new("the webhook has neither url nor service");
	if (cc->url)
		*target = str_sub(*cc->url, base_of(*cc->url).n, cc->url->n);
	else
		*target = cc->service->path ? *cc->service->path : STR_NULL;
	if (!target->n)
		*target = STR("/");
	return NULL;
}

/* Who we are to the webhook and how it is known, once. */
static struct error *conn_begin(struct arena *a, struct hook_conn *h, const struct admissionregistration_v1_webhook_client_config *cc)
{
	struct str base = cc->url ? base_of(*cc->url) : STR_NULL;
	int64_t port;

	if (h->tls)
		return NULL;
	h->self = cc->service && is_own(cc);
	/* Its own address needs no certificate to be known by. Over HTTP/2 all calls would go to one of several servers. */
	struct tls_client_opts t = {.ca_pem = cc->ca_bundle, .insecure_skip_verify = h->self, .http2 = cc->url && is_loopback(a, host_of(base, &port)) && http2_wanted()};

	if (cc->service)
		t.server_name = arena_printf(a, "%.*s.%.*s.svc", STR_ARG(cc->service->name), STR_ARG(cc->service->namespace)).p;
	if (h->users && !h->self)
		h->user = user_for(a, h->users, cc, base);
	if (h->user) {
		t.cert_file = h->user->cert_file;
		t.key_file = h->user->key_file;
		t.cert_pem = h->user->cert_pem;
		t.key_pem = h->user->key_pem;
	}
	return tls_client_new(&t, &h->tls);
}

static struct error *client_of(struct apiserver *s, struct arena *a, struct hook_conn *h,
			       const struct admissionregistration_v1_webhook_client_config *cc, struct http_client **out)
{
	struct http_client_opts o = client_opts;
	struct str base;

	if (cc->url)
		base = base_of(*cc->url);
	else if (h->self)
		base = own_base(s, a);
	else
		TRY(connect_service(s, a, cc->service->namespace, cc->service->name, cc->service->port ? *cc->service->port : 443, &base));
	o.base = arena_strz(a, base);
	o.tls = h->tls;
	return clients_get(&h->clients, ADDRESSES_MAX, &o, out);
}

/* The address as its owner knows it: a Service by its name. */
static const char *shown_url(struct arena *a, const struct admissionregistration_v1_webhook_client_config *cc, struct str target)
{
	if (cc->service)
		return arena_printf(a, "https://%.*s.%.*s.svc:%d%.*s", STR_ARG(cc->service->name), STR_ARG(cc->service->namespace),
				    cc->service->port ? *cc->service->port : 443, STR_ARG(target)).p;
	return arena_printf(a, "%.*s%.*s", STR_ARG(base_of(*cc->url)), STR_ARG(target)).p;
}

/* What a client says of an answer that is no good one. */
static struct error *answer_error(struct arena *a, int status, struct str type, struct str body)
{
	static const struct {
		int status;
		const char *text;
	} texts[] = {
		{400, "the server rejected our request for an unknown reason"},
		{401, "the server has asked for the client to provide credentials"},
		{403, "the server does not allow access to the requested resource"},
		{404, "the server could not find the requested resource"},
		{405, "the server does not allow this method on the requested resource"},
		{406, "the server was unable to respond with a content type that the client supports"},
		{409, "the server reported a conflict"},
		{415, "the server was unable to read the content type"},
		{422, "the server rejected our request due to an error in our request"},
		{429, "the server has received too many requests and has asked us to try again later"},
		{503, "the server is currently unable to handle the request"},
		{504, "the server was unable to return a response in the time allotted, but may still be processing the request"},
	};
	struct meta_v1_status st = {0};
	struct error *e = json_decode(a, &meta_v1_status_type, body, NULL, &st);

	if (!e && str_eqz(st.kind, "Status") && st.message.n)
		return error_new("%.*s", STR_ARG(st.message));
	error_free(e);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (texts[i].status == status)
			return error_new("%s", texts[i].text);
	if (status >= 500) {
		struct buf b buf_cleanup = {0};

		/* words for people, not what programs read */
		body = type.n && !str_has_prefix(type, STR("text/")) ? STR_NULL : str_trim(str_sub(body, 0, 2048));
		buf_quote(&b, body.n ? body : STR("unknown"));
		return error_new("an error on the server (%s) has prevented the request from succeeding", buf_z(&b));
	}
	return error_new("the server responded with the status code %d but did not return more information", status);
}

/* 429 and 5xx with Retry-After in seconds: what upstream's clients wait and ask again for. */
static bool asks_to_wait(const struct http_response *r, int64_t *seconds)
{
	return (r->status == 429 || (r->status >= 500 && r->status <= 599)) &&
	       str_to_i64(http_header_get(&r->headers, "retry-after"), seconds) && *seconds <= INT32_MAX;
}

/* The webhook, known as `base`, and where it sends us. */
static struct error *ask_hops(struct apiserver *s, struct arena *a, struct hook_conn *conn,
			      const struct admissionregistration_v1_webhook_client_config *cc, struct hop *hop, struct str base,
			      struct http_response *resp, struct str *answer)
{
	bool again;

	do {
		struct http_client_opts o = client_opts;
		struct http_client *c;
		struct str at, target;
		struct error *e;

		TRY(url_split(a, hop->url, &at, &target));
		if (str_eq(at, base)) {
			if (cc->service && !conn->self)
				hop->h[hop->n++] = (struct http_header){STR("host"), str_sub(base, strlen("https://"), base.n)};
			TRY(client_of(s, a, conn, cc, &c));
		} else {
			o.base = arena_strz(a, at);
			o.tls = conn->tls;
			TRY(clients_get(&conn->clients, ADDRESSES_MAX, &o, &c));
		}
		e = http_do(c, a, hop->method, target, hop->h, hop->n, hop->body, resp);
		metrics_certificates(hop->rq, false, url_host(a, hop->url), e, resp->faults);
		TRY(e);
		e = http_response_all(resp, a, ANSWER_MAX, answer);
		http_response_close(resp);
		TRY(e);
		TRY(hop_next(hop, a, resp->status, &resp->headers, &again));
	} while (again);
	return NULL;
}

struct error *webhook_post(struct apiserver *s, struct request *rq, struct arena *a, struct hook_conn *conn,
			   const struct admissionregistration_v1_webhook_client_config *cc, int timeout_s, struct str body, struct str *answer)
{
	struct http_response resp;
	struct hop first = {.method = "POST", .body = body, .says_who = true, .rq = rq, .n = 2,
			    .h = {{STR("content-type"), STR("application/json")}, {STR("accept"), STR("application/json, */*")}}};
	struct str target, base, type, auth = STR_NULL;
	const char *shown;
	int64_t d, left;
	struct error *e;

	TRY(target_of(cc, &target));
	TRY(conn_begin(a, conn, cc));
	left = deadline_left();
	if (left > 0 && left < 1000ll * timeout_s)
		timeout_s = (int)((left + 998) / 1000); /* deadlines are up to a millisecond late */
	target = arena_printf(a, "%.*s?timeout=%ds", STR_ARG(target), timeout_s);
	shown = shown_url(a, cc, target);
	if (conn->self)
		auth = arena_printf(a, "Bearer %s", s->loopback_token);
	else if (conn->user)
		TRY(outbound_user_header(conn->user, a, &auth));
	if (auth.n)
		first.h[first.n++] = (struct http_header){STR("authorization"), auth};
	first.first = first.url = str_from(shown);
	TRY(url_split(a, first.url, &base, &target));
	d = deadline_push(1000ll * timeout_s);
	for (int try = 1;; try++) {
		struct hop hop = first;
		int64_t again;

		e = ask_hops(s, a, conn, cc, &hop, base, &resp, answer);
		if (e || try == TRIES_MAX || !asks_to_wait(&resp, &again))
			break;
		e = fiber_sleep(1000 * again);
		if (e)
			break;
	}
	deadline_pop(d);
	if (error_is_sys(e, ETIMEDOUT)) {
		error_free(e);
		return error_new("failed to call webhook: Post \"%s\": context deadline exceeded", shown);
	}
	if (e)
		return error_wrap(e, "failed to call webhook: Post \"%s\"", shown);
	type = http_header_get(&resp.headers, "content-type");
	if (resp.status < 200 || resp.status > 206) {
		e = error_wrap(answer_error(a, resp.status, type, *answer), "failed to call webhook");
		e->status = resp.status;
	} else if (!answer->n) {
		e = error_new("failed to call webhook: 0-length response with status code: %d and content type: %.*s", resp.status, STR_ARG(type));
	}
	return e;
}

static struct str object_json(struct arena *a, const struct schema_type *t, const void *obj)
{
	struct buf b buf_cleanup = {0};

	if (!obj)
		return STR_NULL;
	if (t->fields[t->n_fields - 1].flags & FIELD_REST)
		custom_encode(a, &b, t, obj);
	else
		json_encode(&b, t, obj);
	return arena_str(a, buf_view(&b));
}

/* What is wrong with the way a webhook answers. */
static struct error *verify(const struct admission_v1_admission_review *ans, bool v1, bool mutating, struct str uid)
{
	const struct admission_v1_admission_response *r = ans->response;

	if (!r)
		return error_new("webhook response was absent");
	if (!v1)
		return NULL;
	if (!str_eq(r->uid, uid))
		return error_new("expected response.uid=\"%.*s\", got \"%.*s\"", STR_ARG(uid), STR_ARG(r->uid));
	if (!str_eqz(ans->kind, "AdmissionReview") || !str_eqz(ans->api_version, "admission.k8s.io/v1"))
		return error_new("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got %.*s, Kind=%.*s",
				 STR_ARG(ans->api_version), STR_ARG(ans->kind));
	if (!mutating && r->patch.n)
		return error_new("validating webhook may not return response.patch");
	if (!mutating && r->patch_type)
		return error_new("validating webhook may not return response.patchType");
	if (r->patch.n && !r->patch_type)
		return error_new("webhook returned response.patch but not response.patchType");
	if (!r->patch.n && r->patch_type)
		return error_new("webhook returned response.patchType but not response.patch");
	if (r->patch_type && !r->patch_type->n)
		return error_new("webhook returned invalid response.patchType of \"\"");
	return NULL;
}

/* *failure: it is the webhook that failed, which its failurePolicy may make nothing of; errors are then plain text. */
static struct error *ask(struct admission *a, struct hook *h, const struct admit_version *v, bool mutating,
			 struct admission_v1_admission_response **out, bool *failure)
{
	struct arena *ar = a->rq->a;
	struct admission_v1_admission_review rev = {.kind = STR("AdmissionReview")};
	struct admission_v1_admission_request *rq = arena_new(ar, struct admission_v1_admission_request);
	struct admission_v1_admission_review *ans = arena_new(ar, struct admission_v1_admission_review);
	struct buf b buf_cleanup = {0};
	struct str body, version = STR_NULL;
	char *uid = arena_alloc(ar, 37);

	*failure = false;
	if (a->dry_run && h->w.side_effects && !str_eqz(*h->w.side_effects, "None") && !str_eqz(*h->w.side_effects, "NoneOnDryRun"))
		return err_bad_request("admission webhook \"%.*s\" does not support dry run", STR_ARG(h->w.name));
	*failure = true;
	for (uint32_t i = 0; i < h->w.admission_review_versions.n && !version.n; i++)
		if (str_eqz(h->w.admission_review_versions.v[i], "v1") || str_eqz(h->w.admission_review_versions.v[i], "v1beta1"))
			version = h->w.admission_review_versions.v[i];
	if (!version.n)
		return error_new("could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)");
	rev.api_version = arena_printf(ar, "admission.k8s.io/%.*s", STR_ARG(version));
	random_uuid(uid);
	admission_request_fill(a, v, rq);
	rq->uid = str_from(uid);
	rq->object = object_json(ar, v->type, v->obj);
	rq->old_object = object_json(ar, v->type, v->old);
	rev.request = rq;
	json_encode(&b, &admission_v1_admission_review_type, &rev);
	TRY(webhook_post(a->rq->s, a->rq, ar, &h->conn, &h->w.client_config, h->w.timeout_seconds ? *h->w.timeout_seconds : 10, buf_view(&b), &body));
	TRY(error_wrap(json_decode(ar, &admission_v1_admission_review_type, body, NULL, ans), "failed to call webhook"));
	TRY(error_wrap(verify(ans, str_eqz(version, "v1"), mutating, rq->uid), "received invalid webhook response"));
	for (uint32_t i = 0; i < ans->response->audit_annotations.n; i++) {
		const struct str_pair *p = &ans->response->audit_annotations.v[i];

		struct str key = arena_printf(ar, "%.*s/%.*s", STR_ARG(h->w.name), STR_ARG(p->key));

		if (validate_qualified_name(ar, key))
			log_warn("webhook %.*s: no key of an audit annotation: %.*s", STR_ARG(h->w.name), STR_ARG(p->key));
		else
			request_annotate(a->rq, key, p->value);
	}
	for (uint32_t i = 0; i < ans->response->warnings.n; i++)
		request_warn(a->rq, "%.*s", STR_ARG(ans->response->warnings.v[i]));
	*failure = false;
	*out = ans->response;
	return NULL;
}

static int denied_code(const struct admission_v1_admission_response *r)
{
	return r->status && r->status->code >= 400 ? r->status->code : 400;
}

static struct error *denied(struct arena *a, struct hook *h, const struct admission_v1_admission_response *r)
{
	struct meta_v1_status st = {0};
	struct str why;

	if (r->status)
		st = *r->status;
	st.code = denied_code(r);
	why = st.message.n ? st.message : st.reason;
	st.message = arena_printf(a, why.n ? "admission webhook \"%.*s\" denied the request: %.*s" :
					     "admission webhook \"%.*s\" denied the request without explanation%.*s",
				  STR_ARG(h->w.name), STR_ARG(why));
	return error_from_status(&st);
}

static bool ignored(const struct hook *h)
{
	return h->w.failure_policy && str_eqz(*h->w.failure_policy, "Ignore");
}

/* What came of a question: r is the answer; e with failure: it was no good, without: this server could not ask. */
static void observe(struct admission *a, const struct hook *h, const char *type, int64_t since, const struct error *e, bool failure,
		    const struct admission_v1_admission_response *r)
{
	struct arena *ar = a->rq->a;
	struct str name = metric_label(ar, h->w.name);
	const char *op = admit_operation(a), *error_type = failure ? "calling_webhook_error" : e ? "apiserver_internal_error" : "no_error";
	bool open = e && failure && ignored(h), rejected = e ? !open : !r->allowed;
	int code = !e ? !r->allowed ? denied_code(r) : 200 : !failure ? 0 : e->status ? e->status : 503;
	const char *how = rejected ? "true" : "false";

	code = code > 600 ? 600 : code;
	metrics_count(METRIC_WEBHOOK_REQUESTS, arena_printf(ar, "code=\"%d\",name=\"%.*s\",operation=\"%s\",rejected=\"%s\",type=\"%s\"", code,
							    STR_ARG(name), op, how, type).p, 1);
	metrics_observe(METRIC_ADMISSION_WEBHOOK, arena_printf(ar, "name=\"%.*s\",operation=\"%s\",rejected=\"%s\",type=\"%s\"", STR_ARG(name), op,
							       how, type).p, (double)(now_ns() - since) / 1e9);
	if (rejected)
		metrics_count(METRIC_WEBHOOK_REJECTIONS, arena_printf(ar, "error_type=\"%s\",name=\"%.*s\",operation=\"%s\",rejection_code=\"%d\","
								      "type=\"%s\"", error_type, STR_ARG(name), op, code, type).p, 1);
	if (open)
		metrics_count(METRIC_WEBHOOK_FAIL_OPEN, arena_printf(ar, "name=\"%.*s\",type=\"%s\"", STR_ARG(name), type).p, 1);
}

/* An answer of a failed webhook for the request, or NULL when it is ignored. Takes e. */
static struct error *failed(struct admission *a, struct hook *h, const char *phase, int round, uint32_t index, struct error *e)
{
	struct error *out;

	if (!deadline_left()) { /* of the request, which has had its answer */
		error_free(e);
		return error_sys(ETIMEDOUT, "webhook \"%.*s\"", STR_ARG(h->w.name));
	}
	if (ignored(h)) {
		log_warn("webhook %.*s failed and is ignored: %s", STR_ARG(h->w.name), error_message(e));
		request_annotate(a->rq, arena_printf(a->rq->a, "failed-open.%s.webhook.admission.k8s.io/round_%d_index_%u", phase, round, index),
				 h->w.name);
		error_free(e);
		return NULL;
	}
	out = err_internal("failed calling webhook \"%.*s\": %s", STR_ARG(h->w.name), error_message(e));
	error_free(e);
	return out;
}

static bool exempt(const struct admission *a)
{
	return a->rq->internal || str_eqz(a->group, "admissionregistration.k8s.io");
}

/* The webhooks of all configurations in their order, held until given back. */
struct hooks {
	struct config **configs;
	size_t n;
};

static struct hooks hooks_get(struct admission *a, struct follow *f, bool mutating)
{
	struct hooks h;

	cache_follow(&f->follower);
	h = (struct hooks){arena_array(a->rq->a, struct config *, f->n), f->n};
	for (size_t i = 0; i < f->n; i++) {
		h.configs[i] = f->list[i];
		h.configs[i]->refs++;
	}
	return h;
}

static void hooks_put(struct hooks *h)
{
	for (size_t i = 0; i < h->n; i++)
		config_unref(h->configs[i]);
}

/* ---- changes ---- */

struct mutation {
	struct admission *a;
	struct admit_version v; /* the object as the webhook that is asked wants it */
	struct reinvocable *again;
	uint32_t index;
};

static void annotate(struct mutation *m, struct hook *h, const char *kind, const char *member, struct str value, const char *more)
{
	struct admission *a = m->a;
	struct buf b buf_cleanup = {0};

	buf_puts(&b, "{\"configuration\":");
	jv_encode_string(&b, h->config);
	buf_puts(&b, ",\"webhook\":");
	jv_encode_string(&b, h->w.name);
	buf_printf(&b, ",\"%s\":%.*s%s}", member, STR_ARG(value), more);
	request_annotate(a->rq, arena_printf(a->rq->a, "%s.webhook.admission.k8s.io/round_%d_index_%u", kind, a->reinvocation, m->index), buf_view(&b));
}

/*
 * A time of now, as managers have whose fields the request changes, has nanoseconds, which the patched object has not: even a patch
 * without effect has changed it then, in upstream. Custom objects have their times as text.
 */
static bool times_differ(const struct admission *a)
{
	const struct meta_v1_object_meta *now, *was;
	bool same;

	if (a->reread || a->type->metadata < 0 || (a->res->crd && !admit_own_kind(a)))
		return false;
	now = object_meta(a->type, a->obj);
	was = a->old ? object_meta(a->type, (void *)(uintptr_t)a->old) : NULL;
	same = was ? was->managed_fields.n == now->managed_fields.n : !now->managed_fields.n;
	for (uint32_t i = 0; same && i < now->managed_fields.n; i++)
		same = object_equal(&meta_v1_managed_fields_entry_type, &now->managed_fields.v[i], &was->managed_fields.v[i]);
	return !same;
}

/* The object's struct in the version that the patch made of it; only kinds that are the same thing can be that. */
static struct error *patched_version(const struct admission *a, struct admit_version *v, const struct jv *doc)
{
	const struct str *was = v->obj; /* kind, apiVersion */
	struct str kind = jv_str(jv_get(doc, STR("kind"))), version = jv_str(jv_get(doc, STR("apiVersion"))), g, n;
	const struct resource *other = a->res;

	if (!v->type->top || !was[0].n || (str_eq(kind, was[0]) && str_eq(version, was[1])))
		return NULL;
	for (size_t i = 0; other && !admit_own_kind(a); other = admit_equivalent(a, i++))
		if (str_eq(kind, other->api->kind) && str_eq(version, other->api_version)) {
			v->as = other;
			v->type = other->from_storage ? other->api->type : a->type;
			return NULL;
		}
	api_version_split(version, &g, &n);
	if (!a->res->crd && !schema_type_for_kind(g, n, kind))
		return err_internal("no kind \"%.*s\" is registered for version \"%.*s\"", STR_ARG(kind), STR_ARG(version));
	return error_status(500, "", "converting (%.*s, Kind=%.*s) to (%.*s, Kind=%.*s): unknown conversion",
			    STR_ARG(version), STR_ARG(kind), STR_ARG(was[1]), STR_ARG(was[0]));
}

/* JSON patch of a webhook. *failure as for ask. */
static struct error *patch_object(struct mutation *m, struct hook *h, const struct admission_v1_admission_response *r, bool *failure, bool *changed)
{
	struct admission *a = m->a;
	struct arena *ar = a->rq->a;
	const struct schema_type *was = m->v.type;
	struct jv doc, patch;
	struct str why;
	struct error *e;
	void *out;

	*failure = true;
	TRY(error_wrap(jv_parse(ar, r->patch, NULL, &patch), "received undecodable patch in webhook response"));
	if (patch.kind != JV_ARRAY)
		return error_new("received undecodable patch in webhook response: not a list");
	if (!patch.n)
		return NULL;
	*failure = false;
	if (!m->v.obj)
		return err_internal("admission webhook \"%.*s\" attempted to modify the object, which is not supported for this operation",
				    STR_ARG(h->w.name));
	if (r->patch_type && !str_eqz(*r->patch_type, "JSONPatch")) {
		*failure = true;
		return error_new("unsupported patch type \"%.*s\"", STR_ARG(*r->patch_type));
	}
	e = jv_parse(ar, object_json(ar, m->v.type, m->v.obj), NULL, &doc);
	if (!e)
		e = json_patch(ar, &doc, r->patch);
	if (!e)
		e = patched_version(a, &m->v, &doc);
	out = arena_alloc(ar, m->v.type->size);
	if (!e)
		e = jv_to_object(ar, m->v.type, &doc, NULL, out);
	if (e && e->status == 500)
		return e;
	if (e) {
		why = arena_str(ar, str_from(e->n_causes ? e->causes[0].message : error_message(e)));
		error_free(e);
		return err_internal("%.*s", STR_ARG(why));
	}
	*changed = m->v.type != was || times_differ(a) || !object_equal(m->v.type, m->v.obj, out);
	if (!m->v.as->crd)
		object_default(ar, m->v.type, out);
	if (a->rq->audit.level >= AUDIT_REQUEST) {
		struct buf text buf_cleanup = {0};

		jv_encode(&text, &patch);
		annotate(m, h, "patch", "patch", buf_view(&text), ",\"patchType\":\"JSONPatch\"");
	}
	m->v.obj = out;
	TRY(admit_version_finish(a, &m->v));
	m->v.as = NULL; /* made anew for the next */
	return NULL;
}

static struct error *version(struct mutation *m, const struct resource *as)
{
	return m->v.as == as ? NULL : admit_version_of(m->a, as, &m->v);
}

static struct error *mutate_by(struct mutation *m, struct hook *h)
{
	struct admission *a = m->a;
	struct admission_v1_admission_response *r = NULL;
	const struct resource *as;
	bool yes, failure, changed = false;
	int64_t since;
	struct error *e;

	TRY(wanted(h, a, &as));
	if (!as)
		return NULL;
	if (h->conditions.n) {
		TRY(version(m, as));
		TRY(conditions_hold(h, a, &m->v, "admit", &yes));
		if (!yes)
			return NULL;
	}
	if (reinvocation_skips(a, m->again, h->key))
		return NULL;
	TRY(version(m, as));
	since = now_ns();
	e = ask(a, h, &m->v, true, &r, &failure);
	a->rq->waited_ns += now_ns() - since;
	a->rq->spent_ns.mutating += now_ns() - since;
	if (!e && r->allowed && r->patch.n)
		e = patch_object(m, h, r, &failure, &changed);
	observe(a, h, "admit", since, e, failure, r);
	if (!e && !r->allowed)
		e = denied(a->rq->a, h, r);
	annotate(m, h, "mutation", "mutated", changed ? STR("true") : STR("false"), "");
	if (changed)
		reinvocation_changed(a, m->again);
	if (h->w.reinvocation_policy && str_eqz(*h->w.reinvocation_policy, "IfNeeded"))
		reinvocation_ran(a, m->again, h->key);
	return e && failure ? failed(a, h, "mutation", a->reinvocation, m->index, e) : e;
}

static struct error *mutate(struct admission *a)
{
	struct mutation m = {.a = a};
	struct error *e = NULL;
	struct hooks h;

	if (exempt(a))
		return NULL;
	h = hooks_get(a, &a->rq->s->webhooks->mutating, true);
	if (h.n)
		m.again = reinvocation_begin(a, &a->webhooks);
	for (size_t i = 0; i < h.n && !e; i++)
		for (uint32_t k = 0; k < h.configs[i]->n && !e; k++, m.index++)
			e = mutate_by(&m, &h.configs[i]->hooks[k]);
	if (h.n)
		reinvocation_end(a, m.again);
	hooks_put(&h);
	return e;
}

/* ---- judgement ---- */

struct question {
	struct judgement *all;
	struct hook *h;
	struct admit_version v;
	uint32_t index;
	struct fiber *fiber;
};
struct judgement {
	struct admission *a;
	LIST(struct question) list;
	int64_t deadline;     /* ms left for all, -1: no end */
	struct error *first;  /* of those that came, the first */
};

static void judge_by(void *arg)
{
	struct question *q = arg;
	struct admission *a = q->all->a;
	struct admission_v1_admission_response *r = NULL;
	bool failure;
	int64_t d = deadline_push(q->all->deadline), since = now_ns();
	struct error *e = ask(a, q->h, &q->v, false, &r, &failure);

	observe(a, q->h, "validating", since, e, failure, r);
	if (e && failure)
		e = failed(a, q->h, "validating", 0, q->index, e);
	else if (!e && !r->allowed)
		e = denied(a->rq->a, q->h, r);
	deadline_pop(d);
	if (e && q->all->first)
		error_free(e);
	else if (e)
		q->all->first = e;
}

static struct error *question_for(struct judgement *j, struct hook *h)
{
	struct question q = {.all = j, .h = h, .index = j->list.n};
	const struct resource *as;
	bool yes;

	TRY(wanted(h, j->a, &as));
	if (!as)
		return NULL;
	TRY(admit_version_of(j->a, as, &q.v));
	TRY(conditions_hold(h, j->a, &q.v, "validating", &yes));
	if (yes)
		*arena_push(j->a->rq->a, &j->list) = q;
	return NULL;
}

static struct error *judge(struct admission *a)
{
	struct judgement j = {.a = a};
	struct error *e = NULL;
	struct hooks h;

	if (exempt(a))
		return NULL;
	h = hooks_get(a, &a->rq->s->webhooks->validating, false);
	for (size_t i = 0; i < h.n && !e; i++)
		for (uint32_t k = 0; k < h.configs[i]->n && !e; k++)
			e = question_for(&j, &h.configs[i]->hooks[k]);
	if (!e) {
		int64_t since = now_ns();

		j.deadline = deadline_left();
		for (uint32_t i = 1; i < j.list.n; i++)
			j.list.v[i].fiber = fiber_start("webhook", judge_by, &j.list.v[i]);
		if (j.list.n)
			judge_by(&j.list.v[0]);
		for (uint32_t i = 1; i < j.list.n; i++)
			fiber_join(j.list.v[i].fiber);
		a->rq->waited_ns += now_ns() - since;
		a->rq->spent_ns.validating += now_ns() - since;
		e = j.first;
	}
	hooks_put(&h);
	return e;
}

/* ---- configuration: a kubeconfig with our users ---- */

static struct error *configure(struct apiserver *s, struct str text, struct outbound_users **out)
{
	struct apiserverconfig_v1_webhook_admission_configuration c = {0};

	if (!text.n)
		return NULL;
	TRY(config_decode(&s->arena, &apiserverconfig_v1_webhook_admission_configuration_type, CONFIG_V1("WebhookAdmissionConfiguration"), text,
			  &c));
	if (c.static_manifests_dir.n)
		return error_new(NO_STATIC_MANIFESTS);
	if (!c.kube_config_file.n)
		return NULL;
	if (c.kube_config_file.p[0] != '/')
		return error_new("kubeConfigFile: Invalid value: \"%.*s\": must be an absolute file path", STR_ARG(c.kube_config_file));
	return outbound_users_read(arena_strz(&s->arena, c.kube_config_file), out);
}

static struct error *configure_mutating(struct apiserver *s, struct str text)
{
	return configure(s, text, &hook_users[true]);
}

static struct error *configure_validating(struct apiserver *s, struct str text)
{
	return configure(s, text, &hook_users[false]);
}

const struct admission_plugin admit_mutating_webhook = {
	.name = "MutatingAdmissionWebhook", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE | ADMIT_CONNECT, .configure = configure_mutating,
	.admit = mutate,
};
const struct admission_plugin admit_validating_webhook = {
	.name = "ValidatingAdmissionWebhook", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE | ADMIT_CONNECT, .configure = configure_validating,
	.validate = judge,
};
