/* The request pipeline: who, may they, what; and then the verb. */
#include <inttypes.h>
#include "apiserver/audit.h"
#include "apiserver/authn.h"
#include "apiserver/authz.h"
#include "apiserver/connect.h"
#include "apiserver/convert.h"
#include "apiserver/custom.h"
#include "apiserver/discovery.h"
#include "apiserver/extend.h"
#include "apiserver/flow.h"
#include "apiserver/metrics.h"
#include "apiserver/pipeline.h"
#include "apiserver/server.h"

static bool is_long_running(const struct request *rq)
{
	const struct request_info *i = &rq->info;

	if (!i->resource_request)
		return str_has_prefix(i->path, STR("/debug/pprof/"));
	if (str_eqz(i->verb, "watch") || str_eqz(i->verb, "proxy"))
		return true;
	return str_eqz(i->subresource, "attach") || str_eqz(i->subresource, "exec") || str_eqz(i->subresource, "proxy") ||
	       str_eqz(i->subresource, "log") || str_eqz(i->subresource, "portforward");
}

static bool is_mutating(const struct request *rq)
{
	struct str m = rq->x->method;

	return !str_eqz(m, "GET") && !str_eqz(m, "HEAD") && !str_eqz(m, "OPTIONS");
}

static unsigned verb_bit(struct str verb)
{
	static const struct {
		const char *name;
		unsigned bit;
	} verbs[] = {
		{"create", VERB_CREATE}, {"delete", VERB_DELETE}, {"deletecollection", VERB_DELETECOLLECTION}, {"get", VERB_GET},
		{"list", VERB_LIST}, {"patch", VERB_PATCH}, {"update", VERB_UPDATE}, {"watch", VERB_WATCH},
	};

	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (str_eqz(verb, verbs[i].name))
			return verbs[i].bit;
	return 0;
}

static const struct api_subresource *find_sub(const struct api_resource *r, struct str name)
{
	for (uint8_t i = 0; i < r->n_subresources; i++)
		if (str_eq(r->subresources[i].name, name))
			return &r->subresources[i];
	return NULL;
}

static struct error *dispatch_verb(struct request *rq)
{
	struct str v = rq->info.verb;

	if (str_eqz(v, "get"))
		return rest_get(rq);
	if (str_eqz(v, "list"))
		return rest_list(rq);
	if (str_eqz(v, "watch"))
		return rest_watch(rq);
	if (str_eqz(v, "create"))
		return rest_create(rq);
	if (str_eqz(v, "update"))
		return rest_update(rq);
	if (str_eqz(v, "patch"))
		return rest_patch(rq);
	if (str_eqz(v, "delete"))
		return rest_delete(rq);
	if (str_eqz(v, "deletecollection"))
		return rest_delete_collection(rq);
	return err_method(rq->res->api->group, rq->res->api->plural, v);
}

/* Upstream's APILifecycleDeprecated of what is served still, and versions that a CustomResourceDefinition says are deprecated. */
static void warn_deprecated(struct request *rq)
{
	const struct api_resource *r = rq->res->api;

	if (rq->res->crd)
		custom_warn_deprecated(rq);
	else if (!r->group.n && str_eqz(r->plural, "endpoints"))
		request_warn(rq, "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
	else if (!r->group.n && str_eqz(r->plural, "componentstatuses"))
		request_warn(rq, "v1 ComponentStatus is deprecated in v1.19+");
}

static struct error *dispatch_resource(struct request *rq)
{
	struct request_info *i = &rq->info;
	const struct api_subresource *sub = NULL;
	bool handled = false;
	unsigned bit = verb_bit(i->verb);
	uint16_t verbs;

	rq->res = resource_find(rq->s, i->group, i->version, i->resource);
	if (!rq->res)
		rq->res = crd_find(rq->s, i->group, i->version, i->resource);
	if (!rq->res)
		return err_unknown_path();
	if (i->subresource.n) {
		sub = find_sub(rq->res->api, i->subresource);
		if (!sub && rq->res->crd) {
			custom_warn_deprecated(rq);
			return err_not_found(i->group, i->resource, i->name);
		}
		if (!sub || (i->rest.n && !rq->res->crd && !str_eqz(sub->name, "proxy")))
			return err_unknown_path();
	}
	verbs = sub ? sub->verbs : rq->res->api->verbs;
	if (rq->res->api->namespaced && !i->ns.n && i->name.n && rq->res->st && !str_eqz(i->verb, "list") && !str_eqz(i->verb, "watch"))
		return err_unknown_path(); /* no such route */
	if (rq->res->api->namespaced && !i->ns.n && !str_eqz(i->verb, "list") && !str_eqz(i->verb, "watch") && rq->res->st)
		return err_method(rq->res->api->group, rq->res->api->plural, i->verb);
	if (!rq->res->api->namespaced && i->ns.n && !str_eqz(i->resource, "namespaces"))
		return err_unknown_path();
	if (sub && !i->name.n)
		return err_unknown_path();
	if (!i->name.n && (str_eqz(i->verb, "update") || str_eqz(i->verb, "patch")))
		return err_method(rq->res->api->group, rq->res->api->plural, i->verb);
	rq->ns = i->ns;
	/* deprecated /watch/ and /proxy/ prefixes have the verb in the path */
	if (!(verbs & bit) && !(sub && str_eqz(sub->name, "proxy"))) /* a proxy passes every method on */
		return err_method(rq->res->api->group, rq->res->api->plural, i->verb);
	warn_deprecated(rq);
	/* proxies and streams choose their own formats */
	TRY(rest_connect(rq, &handled));
	if (handled)
		return NULL;
	rq->out.no_protobuf = rq->res->crd && !(sub && str_eqz(sub->name, "scale"));
	TRY(negotiate_answer(rq->a, &rq->x->headers, &rq->q, str_eqz(i->verb, "watch"), rq->res->st != NULL, &rq->out));
	if (rq->out.as == ANSWER_TABLE) {
		struct str v = query_get(&rq->q, "includeObject");

		if (v.n && !str_eqz(v, "None") && !str_eqz(v, "Object") && !str_eqz(v, "Metadata"))
			return err_bad_request("unrecognized includeObject value: %.*s", STR_ARG(v));
	}
	TRY(rest_review(rq, &handled));
	if (handled)
		return NULL;
	TRY(rest_special(rq, &handled));
	if (handled)
		return NULL;
	if (sub && str_eqz(sub->name, "scale"))
		return rest_scale(rq);
	if (!rq->res->st)
		return err_method(rq->res->api->group, rq->res->api->plural, i->verb);
	return dispatch_verb(rq);
}

/* Counted for /metrics; flow.c decides who waits. */
static int *count_inflight(struct request *rq)
{
	int *c = is_mutating(rq) ? &rq->s->inflight_mutating : &rq->s->inflight;

	if (rq->long_running)
		return NULL;
	++*c;
	return c;
}

static struct error *run(struct request *rq)
{
	struct apiserver *s = rq->s;
	struct flow_seat seat = {0};
	int *counter;
	struct error *e;
	bool handled = false;
	int64_t deadline = 0, timeout = s->o.request_timeout_ms;
	struct str t;

	TRY(authenticate(rq));
	TRY(impersonate(rq));
	rq->long_running = is_long_running(rq);
	audit_begin(rq);
	TRY(flow_begin(rq, &seat));
	e = authorize_request(rq);
	if (e) {
		flow_end(&seat);
		return e;
	}
	counter = count_inflight(rq);
	if (!rq->long_running) {
		t = query_get(&rq->q, "timeout");
		if (t.n) {
			int64_t ns;

			if (!duration_parse(t, &ns)) {
				if (counter)
					--*counter;
				flow_end(&seat);
				return err_bad_request("invalid timeout specified in the request URL");
			}
			if (ns > 0 && ns / 1000000 < timeout)
				timeout = ns / 1000000;
		}
		deadline = deadline_push(timeout);
	}
	e = aggregate(rq, &handled);
	if (!e && !handled)
		e = rq->info.resource_request ? dispatch_resource(rq) : serve_path(rq);
	if (!rq->long_running)
		deadline_pop(deadline);
	if (counter)
		--*counter;
	flow_end(&seat);
	return e;
}

void pipeline_handle(struct http_exchange *x, void *ctx)
{
	struct request rq = {.x = x, .a = x->arena, .s = ctx};
	struct str id = http_header_get(&x->headers, "audit-id");
	struct error *e;

	rq.start_ns = now_ns();
	request_info_parse(rq.a, x->method, x->path, x->query, &rq.info);
	query_parse(rq.a, x->query, &rq.q);
	rq.out.content_type = STR("application/json");
	if (id.n && id.n <= 36)
		snprintf(rq.audit_id, sizeof rq.audit_id, "%.*s", STR_ARG(id));
	else
		random_uuid(rq.audit_id);
	if (rq.s->stopping)
		http_set_header(x, "connection", STR("close"));
	e = run(&rq);
	if (e) {
		/* negotiate for the error where the verb has not come to it */
		if (!rq.out.media && !rq.out.pretty && !http_started(x)) {
			struct negotiated n = {0};
			struct error *ne = negotiate_answer(rq.a, &x->headers, &rq.q, false, false, &n);

			if (!ne && !n.discovery.n)
				rq.out = n;
			error_free(ne);
		}
		respond_error(&rq, e);
	}
	metrics_request(&rq);
	audit_end(&rq);
	log_v(3, "%.*s %.*s %d %" PRId64 "us user=%.*s", STR_ARG(x->method), STR_ARG(rq.info.path), rq.status,
	      (now_ns() - rq.start_ns) / 1000, rq.user ? (int)rq.user->name.n : 0, rq.user ? rq.user->name.p : "");
}
