/* Workloads, and the strategies that use these rules. */
#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"
#include "loop/io.h"
#include "schema/cron.h"

/* ---- storage, scheduling, coordination, networking ---- */

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
