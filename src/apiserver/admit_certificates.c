/* Who may approve and sign certificates, and whose they may not be. */
#include "apiserver/admission.h"
#include "apiserver/authz.h"
#include "apiserver/csr_pem.h"
#include "apiserver/server.h"

static bool may_use_signer(struct admission *a, struct str signer, const char *verb)
{
	struct authz_attrs at = {.user = a->rq->user, .verb = str_from(verb), .resource_request = true, .group = STR("certificates.k8s.io"),
				 .version = STR("*"), .resource = STR("signers"), .name = signer};
	ptrdiff_t slash = str_index(signer, '/');

	if (authorize(a->rq->s, a->rq->a, &at, NULL) == AUTHZ_ALLOW)
		return true;
	at.name = arena_printf(a->rq->a, "%.*s/*", (int)(slash < 0 ? 0 : slash), signer.p);
	return authorize(a->rq->s, a->rq->a, &at, NULL) == AUTHZ_ALLOW;
}

static struct error *approval(struct admission *a)
{
	const struct certificates_v1_certificate_signing_request *c = a->old;

	if (!admission_is(a, "certificates.k8s.io", "certificatesigningrequests", "approval") || a->rq->internal)
		return NULL;
	if (may_use_signer(a, c->spec.signer_name, "approve"))
		return NULL;
	return admission_forbidden(a, "user not permitted to approve requests with signerName \"%.*s\"", STR_ARG(c->spec.signer_name));
}

const struct admission_plugin admit_certificate_approval = {.name = "CertificateApproval", .ops = ADMIT_UPDATE, .validate = approval};

static struct error *signing(struct admission *a)
{
	const struct certificates_v1_certificate_signing_request *c = a->obj, *o = a->old;

	if (!admission_is(a, "certificates.k8s.io", "certificatesigningrequests", "status") || a->rq->internal)
		return NULL;
	if (object_field_identical(&certificates_v1_certificate_signing_request_status_type, &c->status, &o->status, "certificate") &&
	    object_field_equal(&certificates_v1_certificate_signing_request_status_type, &c->status, &o->status, "conditions"))
		return NULL;
	if (may_use_signer(a, o->spec.signer_name, "sign"))
		return NULL;
	return admission_forbidden(a, "user not permitted to sign requests with signerName \"%.*s\"", STR_ARG(o->spec.signer_name));
}

const struct admission_plugin admit_certificate_signing = {.name = "CertificateSigning", .ops = ADMIT_UPDATE, .validate = signing};

/* ---- CertificateSubjectRestriction ---- */

static struct error *subject(struct admission *a)
{
	const struct certificates_v1_certificate_signing_request *c = a->obj;
	const char *problem;
	X509_REQ *req;
	bool bad;

	if (!admission_is(a, "certificates.k8s.io", "certificatesigningrequests", "") ||
	    !str_eqz(c->spec.signer_name, "kubernetes.io/kube-apiserver-client"))
		return NULL;
	req = csr_pem_read(c->spec.request, &problem);
	if (!req)
		return admission_forbidden(a, "failed to parse CSR: %s", problem);
	bad = csr_organization_is(req, "system:masters");
	X509_REQ_free(req);
	return bad ? admission_forbidden(a, "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed") : NULL;
}

const struct admission_plugin admit_certificate_subject = {.name = "CertificateSubjectRestriction", .ops = ADMIT_CREATE, .validate = subject};
