/* Workloads, and the strategies that use these rules. */
#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"
#include "loop/io.h"
#include "schema/cron.h"

/* ---- storage, scheduling, coordination, networking ---- */

void storageclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct storage_v1_storage_class *c = obj;

	(void)rq;
	if (!c->provisioner.n)
		field_required(e, FIELD_ROOT("provisioner"), "");
}

void storageclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct storage_v1_storage_class *c = obj, *o = old;
	const struct schema_type *t = &storage_v1_storage_class_type;

	if (!object_field_equal(t, c, o, "parameters"))
		field_forbidden(e, FIELD_ROOT("parameters"), "updates to parameters are forbidden.");
	if (!str_eq(c->provisioner, o->provisioner))
		field_forbidden(e, FIELD_ROOT("provisioner"), "updates to provisioner are forbidden.");
	if (!object_field_equal(t, c, o, "reclaimPolicy"))
		field_forbidden(e, FIELD_ROOT("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
	if (!object_field_equal(t, c, o, "volumeBindingMode"))
		field_forbidden(e, FIELD_ROOT("volumeBindingMode"), "field is immutable");
}

void priorityclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct scheduling_v1_priority_class *c = obj;

	if (rq->internal)
		return;
	if (str_has_prefix(c->metadata.name, STR("system-"))) {
		if (!str_eqz(c->metadata.name, "system-node-critical") && !str_eqz(c->metadata.name, "system-cluster-critical"))
			field_forbidden(e, FIELD_CHILD(FIELD_ROOT("metadata"), "name"), "priority class names with 'system-' prefix are reserved for "
					"system use only. error: %.*s is not a known system priority class", STR_ARG(c->metadata.name));
	} else if (c->value > 1000000000) {
		field_forbidden(e, FIELD_ROOT("value"), "maximum allowed value of a user defined priority is 1000000000");
	}
}

void priorityclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct scheduling_v1_priority_class *c = obj, *o = old;

	(void)rq;
	if (c->value != o->value)
		field_forbidden(e, FIELD_ROOT("value"), "may not be changed in an update.");
	if (!object_field_equal(&scheduling_v1_priority_class_type, c, o, "preemptionPolicy"))
		field_invalid_raw(e, FIELD_ROOT("preemptionPolicy"), STR("null"), "field is immutable");
}

void lease_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct coordination_v1_lease *l = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	if (l->spec.lease_duration_seconds && *l->spec.lease_duration_seconds <= 0)
		field_invalid_int(e, FIELD_CHILD(spec, "leaseDurationSeconds"), *l->spec.lease_duration_seconds, "must be greater than 0");
	if (l->spec.lease_transitions && *l->spec.lease_transitions < 0)
		field_invalid_int(e, FIELD_CHILD(spec, "leaseTransitions"), *l->spec.lease_transitions, "must be greater than or equal to 0");
}

void slice_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct discovery_v1_endpoint_slice *s = obj;
	const struct field_path *eps = FIELD_ROOT("endpoints");

	(void)rq;
	for (uint32_t i = 0; i < s->endpoints.n; i++) {
		const struct field_path *p = FIELD_CHILD(FIELD_INDEX(eps, i), "addresses");

		if (!s->endpoints.v[i].addresses.n)
			field_required(e, p, "must contain at least 1 address");
		for (uint32_t k = 0; k < s->endpoints.v[i].addresses.n; k++) {
			struct str a = s->endpoints.v[i].addresses.v[k];
			const char *m = str_eqz(s->address_type, "IPv4") ? validate_ipv4(e->arena, a) :
					str_eqz(s->address_type, "IPv6") ? validate_ipv6(e->arena, a) :
					validate_dns1123_subdomain(e->arena, a);

			if (m)
				field_invalid(e, FIELD_INDEX(p, k), a, "%s", m);
		}
	}
	if (s->endpoints.n > 1000)
		field_too_many(e, eps, s->endpoints.n, 1000);
}

void slice_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct discovery_v1_endpoint_slice *s = obj, *o = old;

	slice_validate(rq, obj, e);
	if (!str_eq(s->address_type, o->address_type))
		field_invalid(e, FIELD_ROOT("addressType"), s->address_type, "field is immutable");
}

static void backend(struct field_errors *e, const struct networking_v1_ingress_backend *b, const struct field_path *at)
{
	if (!b->service && !b->resource)
		field_required(e, at, "port name or number is required");
	if (b->service && b->resource)
		field_invalid(e, at, STR(""), "cannot set both resource and service backends");
	if (b->service) {
		const struct field_path *s = FIELD_CHILD(at, "service");

		if (!b->service->name.n)
			field_required(e, FIELD_CHILD(s, "name"), "");
		if (!b->service->port.name.n && !b->service->port.number)
			field_required(e, at, "port name or number is required");
		if (b->service->port.name.n && b->service->port.number)
			field_invalid(e, at, STR(""), "cannot set both port name & port number");
	}
}

void ingress_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct networking_v1_ingress *in = obj;
	const struct field_path *spec = FIELD_ROOT("spec"), *rules = FIELD_CHILD(spec, "rules");
	static const struct str types[] = {STR_INIT("Exact"), STR_INIT("ImplementationSpecific"), STR_INIT("Prefix")};

	(void)rq;
	if (!in->spec.rules.n && !in->spec.default_backend)
		field_invalid_raw(e, spec, STR("[]"), "either `defaultBackend` or `rules` must be specified");
	if (in->spec.default_backend)
		backend(e, in->spec.default_backend, FIELD_CHILD(spec, "defaultBackend"));
	for (uint32_t i = 0; i < in->spec.rules.n; i++) {
		const struct networking_v1_ingress_rule *r = &in->spec.rules.v[i];
		const struct field_path *p = FIELD_INDEX(rules, i), *paths = FIELD_CHILD(FIELD_CHILD(p, "http"), "paths");
		const char *m = NULL;

		if (r->host.n)
			m = r->host.p[0] == '*' ? validate_wildcard_dns1123_subdomain(e->arena, r->host) : validate_dns1123_subdomain(e->arena, r->host);
		if (m)
			field_invalid(e, FIELD_CHILD(p, "host"), r->host, "%s", m);
		if (!r->ingress_rule_value.http)
			continue;
		if (!r->ingress_rule_value.http->paths.n)
			field_required(e, paths, "");
		for (uint32_t k = 0; k < r->ingress_rule_value.http->paths.n; k++) {
			const struct networking_v1_http_ingress_path *h = &r->ingress_rule_value.http->paths.v[k];
			const struct field_path *hp = FIELD_INDEX(paths, k);

			if (!h->path_type)
				field_required(e, FIELD_CHILD(hp, "pathType"), "pathType must be specified");
			else if (!str_eq(*h->path_type, types[0]) && !str_eq(*h->path_type, types[1]) && !str_eq(*h->path_type, types[2]))
				field_not_supported(e, FIELD_CHILD(hp, "pathType"), *h->path_type, types, 3);
			else if (!str_eq(*h->path_type, types[1]) && (!h->path.n || h->path.p[0] != '/'))
				field_invalid(e, FIELD_CHILD(hp, "path"), h->path, "must be an absolute path");
			backend(e, &h->backend, FIELD_CHILD(hp, "backend"));
		}
	}
}

void csr_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct certificates_v1_certificate_signing_request *c = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	if (!str_contains(c->spec.request, STR("BEGIN CERTIFICATE REQUEST")))
		field_invalid_raw(e, FIELD_CHILD(spec, "request"), STR("\"\""), "PEM block type must be CERTIFICATE REQUEST");
	if (!c->spec.usages.n)
		field_required(e, FIELD_CHILD(spec, "usages"), "");
	if (!c->spec.signer_name.n)
		field_required(e, FIELD_CHILD(spec, "signerName"), "");
	else if (str_index(c->spec.signer_name, '/') < 0)
		field_invalid(e, FIELD_CHILD(spec, "signerName"), c->spec.signer_name,
			      "must be a fully qualified domain and path of the form 'example.com/signer-name'");
	if (c->spec.expiration_seconds && *c->spec.expiration_seconds < 600)
		field_invalid_int(e, FIELD_CHILD(spec, "expirationSeconds"), *c->spec.expiration_seconds,
				  "may not specify a duration less than 600 seconds (10 minutes)");
}
