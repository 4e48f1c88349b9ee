/* Workloads, and the strategies that use these rules. */
#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"
#include "loop/io.h"
#include "schema/cron.h"

/* ---- storage, scheduling, coordination, networking ---- */

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
