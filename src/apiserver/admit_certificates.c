/* Who may approve and sign certificates, and whose they may not be. */
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "apiserver/admission.h"
#include "apiserver/authz.h"
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

	if (!admission_is(a, "certificates.k8s.io", "certificatesigningrequests", "status") || a->rq->internal ||
	    str_eq(c->status.certificate, o->status.certificate))
		return NULL;
	if (may_use_signer(a, o->spec.signer_name, "sign"))
		return NULL;
	return admission_forbidden(a, "user not permitted to sign requests with signerName \"%.*s\"", STR_ARG(o->spec.signer_name));
}

const struct admission_plugin admit_certificate_signing = {.name = "CertificateSigning", .ops = ADMIT_UPDATE, .validate = signing};

/* ---- CertificateSubjectRestriction ---- */

/* *bad: the request (PEM) has this group among its organizations. False: it is no request. */
static bool organization_is(struct str pem, const char *group, bool *bad)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	X509_REQ *req = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
	const X509_NAME *subject = req ? X509_REQ_get_subject_name(req) : NULL;
	int at = -1;

	*bad = false;
	while (subject && (at = X509_NAME_get_index_by_NID(subject, NID_organizationName, at)) >= 0) {
		const ASN1_STRING *o = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
		unsigned char *text = NULL;
		int n = ASN1_STRING_to_UTF8(&text, o);

		*bad |= n >= 0 && str_eqz(str_of((char *)text, (size_t)n), group);
		OPENSSL_free(text);
	}
	X509_REQ_free(req);
	BIO_free(bio);
	return req != NULL;
}

static struct error *subject(struct admission *a)
{
	const struct certificates_v1_certificate_signing_request *c = a->obj;
	bool bad;

	if (!admission_is(a, "certificates.k8s.io", "certificatesigningrequests", "") ||
	    !str_eqz(c->spec.signer_name, "kubernetes.io/kube-apiserver-client"))
		return NULL;
	if (!organization_is(c->spec.request, "system:masters", &bad))
		return admission_forbidden(a, "failed to parse CSR: PEM block type must be CERTIFICATE REQUEST");
	return bad ? admission_forbidden(a, "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed") : NULL;
}

const struct admission_plugin admit_certificate_subject = {.name = "CertificateSubjectRestriction", .ops = ADMIT_CREATE, .validate = subject};
