/* Whether aggregated servers can be reached and answer: the condition Available of APIServices. */
#include "apiserver/aggregator.h"
#include "apiserver/connect.h"
#include "apiserver/convert.h"
#include "apiserver/metrics.h"

#define ATTEMPTS 5 /* of a check; one that succeeds is enough */
#define CHECK_TIMEOUT_MS 5000

struct verdict {
	bool ok;
	struct str reason, message;
};

#define LOCAL                                                                                                          \
	((struct verdict){.ok = true, .reason = STR("Local"), .message = STR("Local APIServices are always available")})

static void put_condition(struct arena *a, struct apiregistration_v1_api_service *o, const struct verdict *v)
{
	struct apiregistration_v1_api_service_condition *c =
		(struct apiregistration_v1_api_service_condition *)(uintptr_t)available_condition(o);
	struct str status = v->ok ? STR("True") : STR("False");

	if (!c) {
		c = arena_push(a, &o->status.conditions);
		c->type = STR("Available");
	}
	if (!str_eq(c->status, status))
		c->last_transition_time = time_now();
	c->status = status;
	c->reason = v->reason;
	c->message = v->message;
}

void apiservice_local_condition(struct arena *a, struct apiregistration_v1_api_service *o)
{
	put_condition(a, o, &LOCAL);
}

static struct error *make_verdict(void *ctx, struct request *rq, const void *old, void **out)
{
	struct apiregistration_v1_api_service *o = arena_new(rq->a, struct apiregistration_v1_api_service);

	object_copy(rq->a, &apiregistration_v1_api_service_type, old, o);
	put_condition(rq->a, o, ctx);
	o->metadata.resource_version = STR_NULL;
	*out = o;
	return NULL;
}

static void set_status(struct apiserver *s, struct arena *a, struct str name, struct verdict *v)
{
	struct request rq;
	struct write_result r;
	struct update u = {
		.make = make_verdict, .ctx = v, .sub = "status", .retry = true, .flags = UPDATE_UNCONDITIONAL};
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

void aggregator_local_status(struct apiserver *s, struct str name)
{
	struct arena a arena_cleanup = {0};
	struct verdict v = LOCAL;

	set_status(s, &a, name, &v);
}

/* Writes what is other than what is there. */
static void count_lost(struct arena *a, struct str name, struct str reason)
{
	metrics_count(METRIC_APISERVICE_LOST,
		      arena_printf(a, "name=\"%.*s\",reason=\"%.*s\"", STR_ARG(metric_label(a, name)), STR_ARG(reason)).p, 1);
}

static void conclude(struct apiserver *s, struct arena *a, struct api_service *v, struct verdict *d)
{
	const struct apiregistration_v1_api_service_condition *c = available_condition(v->obj);

	if (!c || !str_eqz(c->status, d->ok ? "True" : "False") || !str_eq(c->reason, d->reason) ||
	    !str_eq(c->message, d->message))
		set_status(s, a, v->name, d);
	if (!d->ok && c && str_eqz(c->status, "True"))
		count_lost(a, v->name, d->reason);
}

/* A slice with a ready endpoint, and with the port. */
static bool serves(const struct discovery_v1_endpoint_slice *slice, struct str port_name)
{
	bool ready = false;

	for (uint32_t i = 0; i < slice->endpoints.n; i++)
		ready |= !slice->endpoints.v[i].conditions.ready || *slice->endpoints.v[i].conditions.ready;
	for (uint32_t i = 0; ready && i < slice->ports.n; i++)
		if (slice->ports.v[i].name && str_eq(*slice->ports.v[i].name, port_name) && slice->ports.v[i].port)
			return true;
	return false;
}

/* What its Service and their EndpointSlices say: of one with a cluster IP, that it has the port and somebody behind it.
 */
static bool way_blocked(struct apiserver *s, struct arena *a, const struct apiregistration_v1_api_service_spec *spec,
			struct verdict *d)
{
	const struct apiregistration_v1_service_reference *ref = spec->service;
	const struct core_v1_service *svc =
		registry_peek(s, a, storage_find(s, STR(""), STR("services")), ref->namespace, ref->name);
	int32_t port = ref->port ? *ref->port : 443;
	const struct core_v1_service_port *found = NULL;
	struct endpoint_slices slices;
	struct error *e;

	if (!svc) {
		*d = (struct verdict){.reason = STR("ServiceNotFound"),
				      .message = arena_printf(a, "service/%.*s in \"%.*s\" is not present",
							      STR_ARG(ref->name), STR_ARG(ref->namespace))};
		return true;
	}
	if (!str_eqz(svc->spec.type, "ClusterIP"))
		return false;
	for (uint32_t i = 0; !found && i < svc->spec.ports.n; i++)
		if (svc->spec.ports.v[i].port == port)
			found = &svc->spec.ports.v[i];
	if (!found) {
		*d = (struct verdict){.reason = STR("ServicePortError"),
				      .message = arena_printf(a, "service/%.*s in \"%.*s\" is not listening on port %d",
							      STR_ARG(ref->name), STR_ARG(ref->namespace), port)};
		return true;
	}
	e = connect_slices(s, a, ref->namespace, ref->name, &slices);
	if (e) {
		*d = (struct verdict){
			.reason = STR("EndpointsAccessError"),
			.message = arena_printf(a, "service/%.*s in \"%.*s\" cannot be checked due to: %s",
						STR_ARG(ref->name), STR_ARG(ref->namespace), error_message(e))};
		error_free(e);
		return true;
	}
	if (!slices.list.n) {
		*d = (struct verdict){.reason = STR("EndpointsNotFound"),
				      .message =
					      arena_printf(a, "cannot find endpointslices for service/%.*s in \"%.*s\"",
							   STR_ARG(ref->name), STR_ARG(ref->namespace))};
		return true;
	}
	for (uint32_t i = 0; i < slices.list.n; i++)
		if (serves(slices.list.v[i], found->name))
			return false;
	*d = (struct verdict){
		.reason = STR("MissingEndpoints"),
		.message = arena_printf(
			a, "endpointslices for service/%.*s in \"%.*s\" have no addresses with port name \"%.*s\"",
			STR_ARG(ref->name), STR_ARG(ref->namespace), STR_ARG(found->name))};
	return true;
}

bool aggregator_check_way(struct apiserver *s, struct api_service *v)
{
	struct arena a arena_cleanup = {0};
	struct verdict d;

	if (!way_blocked(s, &a, v->remote->spec, &d))
		return true;
	conclude(s, &a, v, &d);
	return false;
}

void aggregator_check(struct apiserver *s, struct api_service *v)
{
	struct arena a arena_cleanup = {0};
	struct remote *r = v->remote;
	struct verdict d = {.ok = true, .reason = STR("Passed"), .message = STR("all checks passed")};
	struct str group = r->spec->group, version = r->spec->version;
	struct remote_ask ask = {.target =
					 group.n ? arena_printf(&a, "/apis/%.*s/%.*s", STR_ARG(group), STR_ARG(version))
						 : arena_printf(&a, "/api/%.*s", STR_ARG(version)),
				 .user = STR("system:kube-aggregator"),
				 .group = STR("system:masters"),
				 .limit = DISCOVERY_MAX};
	struct remote_told told;
	struct error *e = NULL;
	int64_t t;

	if (!aggregator_check_way(s, v)) {
		due_set(&v->check, 0);
		return;
	}
	r->refs++;
	t = deadline_push(CHECK_TIMEOUT_MS);
	for (int i = 0; i < ATTEMPTS && (!i || (e && deadline_left() > 0)); i++) {
		error_free(e);
		e = remote_get(s, &a, r, &ask, &told);
		if (!e && (told.status < 200 || told.status > 299))
			e = error_new("bad status from %.*s: %d", STR_ARG(ask.target), told.status);
	}
	deadline_pop(t);
	if (e)
		d = (struct verdict){.reason = STR("FailedDiscoveryCheck"),
				     .message = arena_printf(&a, "failing or missing response from %.*s: %s",
							     STR_ARG(ask.target), error_message(e))};
	/* who waits for it to be available then looks for what it serves */
	if (d.ok && !v->available && !v->gone && v->remote == r)
		aggregator_learn_resources(s, v);
	/* a spec that changed meanwhile was another's */
	if (!error_is_sys(e, ECANCELED) && !v->gone && v->remote == r) {
		due_next(&v->check, d.ok, CHECK_EVERY_MS, 0, 0);
		conclude(s, &a, v, &d);
	}
	error_free(e);
	remote_unref(r);
}
