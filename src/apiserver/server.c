/* The request pipeline: who, may they, what; and then the verb. */
#include <inttypes.h>
#include "apiserver/audit.h"
#include "apiserver/authn.h"
#include "apiserver/authz.h"
#include "apiserver/connect.h"
#include "apiserver/convert.h"
#include "apiserver/cors.h"
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
	return err_method();
}

/* Upstream's APILifecycleDeprecated of what is served still. */
static void warn_deprecated(struct request *rq)
{
	const struct api_resource *r = rq->res->api;

	rq->deprecated = !r->group.n && (str_eqz(r->plural, "endpoints") || str_eqz(r->plural, "componentstatuses"));
	if (!rq->deprecated)
		return;
	if (str_eqz(r->plural, "endpoints"))
		request_warn(rq, "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
	else
		request_warn(rq, "v1 ComponentStatus is deprecated in v1.19+");
}

/* Upstream's storage makes a Table of it: of few subresources, and not of all statuses. */
static bool has_table(const struct request *rq, const struct api_subresource *sub)
{
	static const char *const plain[] = {"apiservices", "customresourcedefinitions", "resourceclaims"};

	if (!rq->res->st && !(rq->res->api->verbs & VERB_LIST))
		return false;
	for (size_t i = 0; sub && str_eqz(sub->name, "status") && !rq->res->crd && i < sizeof plain / sizeof *plain; i++)
		if (str_eqz(rq->res->api->plural, plain[i]))
			return false;
	return !sub || str_eqz(sub->name, "status") || str_eqz(sub->name, "scale");
}

static struct error *negotiate_resource(struct request *rq, const struct api_subresource *sub)
{
	struct negotiation n = {
		.answers = has_table(rq, sub) ? ANSWERS_RESOURCE : ANSWERS_PARTIAL,
		.stream = str_eqz(rq->info.verb, "watch"),
		.listed = str_eqz(rq->info.verb, "watch") || str_eqz(rq->info.verb, "list"),
		.routed = !rq->res->crd,
		.no_protobuf = rq->res->crd && !(sub && str_eqz(sub->name, "scale")),
		.cbor = rq->s->o.cbor,
	};

	return negotiate_answer(rq->a, &rq->x->headers, &rq->q, &n, &rq->out);
}

static bool over_namespaces(struct str verb)
{
	return str_eqz(verb, "list") || str_eqz(verb, "watch");
}

static bool is_proxied(struct str method)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"};
	bool one = false;

	for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
		one |= str_eqz(method, methods[i]);
	return one;
}

/* Paths that upstream's router has for a built-in resource, and their methods. */
static struct error *route(struct request *rq, const struct api_subresource *sub)
{
	const struct request_info *i = &rq->info;
	const struct api_resource *r = rq->res->api;
	bool whole = !i->ns.n && r->namespaced && rq->res->st && !over_namespaces(i->verb); /* of all namespaces */
	bool proxied = sub && str_eqz(sub->name, "proxy"); /* which passes on whatever is sent */
	uint16_t verbs = sub ? sub->verbs : r->verbs;

	if (i->by_path && (!str_eqz(i->verb, "watch") || sub || !(verbs & VERB_WATCH)))
		return err_unknown_path();
	if (i->subresource.n && (!sub || (i->rest.n && !proxied)))
		return err_unknown_path();
	/* what is only created has its collection's path, in a namespace if it has one */
	if (r->verbs == VERB_CREATE && !sub && (i->name.n || (r->namespaced && !i->ns.n)))
		return err_unknown_path();
	if (whole && i->name.n && str_contains(i->path, STR("/namespaces//")))
		return err_bad_request("Namespace parameter required.");
	if ((whole && i->name.n) || (!r->namespaced && i->ns.n && !(str_eqz(i->resource, "namespaces") && str_eq(i->ns, i->name))))
		return err_unknown_path();
	if (sub && !i->name.n)
		return err_bad_request("name must be provided");
	if (whole || (!i->name.n && (str_eqz(i->verb, "update") || str_eqz(i->verb, "patch"))))
		return err_method();
	if (proxied ? !is_proxied(rq->x->method) : str_eqz(rq->x->method, "HEAD"))
		return err_method();
	if (i->by_path && !str_eqz(rq->x->method, "GET"))
		return err_method();
	/* a list's parameter makes a watch of it, of which the resource itself says that it has none */
	return verbs & verb_bit(i->verb) || proxied || str_eqz(i->verb, "watch") ? NULL : err_method();
}

/* What upstream hands on, to where nothing is. */
static bool in_scope(const struct request *rq)
{
	return rq->res->api->namespaced ? rq->info.ns.n || over_namespaces(rq->info.verb) : !rq->info.ns.n;
}

static struct error *route_custom(struct request *rq, const struct api_subresource *sub)
{
	const struct request_info *i = &rq->info;

	custom_warn_deprecated(rq);
	if (i->subresource.n && !sub)
		return err_not_found(i->group, i->resource, i->name);
	if (!((sub ? sub->verbs : rq->res->api->verbs) & verb_bit(i->verb)))
		return err_method_of(i->group, i->resource);
	if (!i->name.n && (sub || str_eqz(i->verb, "update") || str_eqz(i->verb, "patch")))
		return err_bad_request("name must be provided");
	return NULL;
}

static struct error *dispatch_resource(struct request *rq)
{
	struct request_info *i = &rq->info;
	const struct api_subresource *sub = NULL;
	bool handled = false;
	enum patch_type patch;
	struct error *e;

	rq->res = resource_find(rq->s, i->group, i->version, i->resource);
	/* definitions in a group of the server itself are written down and not served, as upstream's */
	if (!rq->res && !built_in_group(rq->s, i->group))
		rq->res = crd_find(rq->s, i->group, i->version, i->resource);
	if (!rq->res || str_has_prefix(i->path, STR("//")))
		return built_in_group(rq->s, i->group) && !str_has_prefix(i->path, STR("//")) ? err_unknown_path() : respond_unknown(rq);
	sub = i->subresource.n ? find_sub(rq->res->api, i->subresource) : NULL;
	if (rq->res->crd && !in_scope(rq))
		return respond_unknown(rq);
	TRY(rq->res->crd ? route_custom(rq, sub) : route(rq, sub));
	rq->ns = i->ns;
	warn_deprecated(rq);
	metrics_routed(rq);
	if (rq->long_running)
		metrics_long_running(rq);
	if (str_eqz(i->verb, "watch") && !(rq->res->api->verbs & VERB_WATCH))
		return err_method_of(i->group, i->resource);
	/* proxies and streams choose their own formats, and last; they are of built-in resources */
	if (rq->long_running && !str_eqz(i->verb, "watch"))
		grace_leave(&rq->reading);
	TRY(rest_connect(rq, &handled));
	grace_enter(rq->s->grace, &rq->reading);
	if (handled)
		return NULL;
	if (str_eqz(i->verb, "patch"))
		TRY(rest_patch_type(rq, &patch));
	e = negotiate_resource(rq, sub);
	if (rq->out.unrouted)
		rq->warnings.n = 0;
	TRY(e);
	TRY(rest_review(rq, &handled));
	if (handled)
		return NULL;
	TRY(rest_special(rq, &handled));
	if (handled)
		return NULL;
	if (sub && str_eqz(sub->name, "scale"))
		return rest_scale(rq);
	if (!rq->res->st)
		return err_method();
	return dispatch_verb(rq);
}

/* Upstream cannot tell what is asked for, which it takes for a fault of its own. */
static struct error *answer_broken(struct request *rq)
{
	http_set_header(rq->x, "audit-id", rq->audit_id);
	http_set_header(rq->x, "content-type", STR("text/plain; charset=utf-8"));
	http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	rq->status = 500;
	return http_respond(rq->x, 500, STR("Internal Server Error: no resource behind the verb in the path\n"));
}

/* ?timeout= of what is not long-running, at most the server's own. */
static struct error *time_allowed(const struct request *rq, int64_t *ms)
{
	struct str t = query_get(&rq->q, "timeout");
	int64_t ns;

	*ms = rq->s->o.request_timeout_ms;
	if (rq->long_running || !t.n)
		return NULL;
	if (!duration_parse(t, &ns))
		return err_bad_request("invalid timeout specified in the request URL");
	if (ns > 0 && ns / 1000000 < *ms)
		*ms = ns / 1000000;
	return NULL;
}

/* --shutdown-send-retry-after: who comes after the delay is sent away; whoever looks at the server's health is not. */
static bool answer_closed(struct request *rq)
{
	static const char *const exempt[] = {"/readyz", "/livez", "/healthz", "/metrics"};

	if (!rq->s->closed || str_has_prefix(http_header_get(&rq->x->headers, "user-agent"), STR("kube-apiserver/")))
		return false;
	for (size_t i = 0; i < sizeof exempt / sizeof *exempt; i++)
		if (str_has_prefix(rq->x->path, str_from(exempt[i])))
			return false;
	return true;
}

static struct error *send_away(struct request *rq)
{
	http_set_header(rq->x, "audit-id", rq->audit_id);
	http_set_header(rq->x, "retry-after", STR("5"));
	http_set_header(rq->x, "content-type", STR("text/plain; charset=utf-8"));
	http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	http_close(rq->x);
	rq->status = 429;
	return http_respond(rq->x, 429, STR("The apiserver is shutting down, please try again later.\n"));
}

static struct error *run(struct request *rq)
{
	struct flow_seat seat = {0};
	struct error *e;
	bool handled = false;
	int64_t deadline = 0, timeout;

	if (rq->info.broken)
		return answer_broken(rq);
	rq->long_running = is_long_running(rq);
	TRY(time_allowed(rq, &timeout));
	TRY(cors_answer(rq, &handled));
	if (handled)
		return NULL;
	if (answer_closed(rq))
		return send_away(rq);
	TRY(authenticate(rq));
	TRY(audit_begin(rq));
	metrics_filter(rq, FILTER_AUDIT);
	TRY(impersonate(rq));
	metrics_filter(rq, FILTER_IMPERSONATION);
	e = flow_begin(rq, &seat, timeout, &handled);
	if (!e && !handled) {
		metrics_filter(rq, FILTER_FLOW);
		e = authorize_request(rq);
	}
	if (e || handled) {
		flow_end(rq);
		return e;
	}
	metrics_filter(rq, FILTER_AUTHORIZATION);
	if (!rq->long_running)
		deadline = deadline_push(timeout);
	if (rq->long_running)
		grace_leave(&rq->reading); /* of another server's, it may last */
	e = aggregate(rq, &handled);
	grace_enter(rq->s->grace, &rq->reading);
	if (!e && !handled)
		e = rq->info.resource_request ? dispatch_resource(rq) : serve_path(rq);
	if (!rq->long_running)
		deadline_pop(deadline);
	flow_end(rq);
	return e;
}

void pipeline_handle(struct http_exchange *x, void *ctx)
{
	struct request rq = {.x = x, .a = x->arena, .s = ctx};
	struct str id = http_header_get(&x->headers, "audit-id");
	struct error *e;

	rq.start_ns = now_ns();
	grace_enter(rq.s->grace, &rq.reading);
	request_info_parse(rq.a, x->method, x->path, x->query, &rq.info);
	query_parse(rq.a, x->query, &rq.q);
	rq.out.content_type = STR("application/json");
	rq.audit_id = id;
	if (!id.n) {
		char *uuid = arena_bytes(rq.a, 37);

		random_uuid(uuid);
		rq.audit_id = str_from(uuid);
	}
	hsts_header(&rq);
	/* Go's chance is a number of [0, 1). */
	if (rq.s->o.goaway_chance > 0 && x->version == 20 &&
	    (double)(random_u64() >> 11) * 0x1p-53 < rq.s->o.goaway_chance)
		http_close(x);
	e = run(&rq);
	if (e) {
		/* an error is no Table and no stream: the format is chosen anew; JSON where there is none */
		if (!http_started(x)) {
			struct negotiation n = {.cbor = rq.s->o.cbor && rq.res};

			/* and then with line ends inside and none behind, as upstream writes it */
			struct error *none = negotiate_answer(rq.a, &x->headers, &rq.q, &n, &rq.out);

			rq.out.pretty |= none != NULL;
			error_free(none);
		}
		respond_error(&rq, e);
	}
	metrics_request(&rq);
	audit_end(&rq);
	grace_leave(&rq.reading);
	log_v(3, "%.*s %.*s %d %" PRId64 "us user=%.*s", STR_ARG(x->method), STR_ARG(rq.info.path), rq.status,
	      (now_ns() - rq.start_ns) / 1000, rq.user ? (int)rq.user->name.n : 0, rq.user ? rq.user->name.p : "");
}
