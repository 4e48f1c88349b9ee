/*
 * controller/csr.c: CertificateSigningRequests: approves those of kubelets for themselves, signs what is approved for upstream's
 * signers with the cluster's CA, and removes what is old.
 */
#include "controller/common.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "loop/io.h"

#define SIGNER_CLIENT "kubernetes.io/kube-apiserver-client"
#define SIGNER_KUBELET_CLIENT "kubernetes.io/kube-apiserver-client-kubelet"
#define SIGNER_KUBELET_SERVING "kubernetes.io/kubelet-serving"
#define BACKDATE_S 300
#define MIN_EXPIRATION_S 600

/* How long each kind is kept (upstream's cleaner). */
#define KEEP_APPROVED_MS (60 * 60 * 1000LL)
#define KEEP_DENIED_MS (60 * 60 * 1000LL)
#define KEEP_PENDING_MS (24 * 60 * 60 * 1000LL)

struct csr_controller {
	struct manager *m;
	struct informer *csrs;
	struct workqueue *q;
	X509 *ca;
	EVP_PKEY *key;
};

typedef struct certificates_v1_certificate_signing_request csr;

static bool has_condition(const csr *r, const char *type)
{
	for (uint32_t i = 0; i < r->status.conditions.n; i++)
		if (str_eqz(r->status.conditions.v[i].type, type))
			return true;
	return false;
}

static struct error *ssl_error(const char *what)
{
	char text[256];

	ERR_error_string_n(ERR_get_error(), text, sizeof text);
	ERR_clear_error();
	return error_new("%s: %s", what, text);
}

static X509_REQ *parse(const csr *r)
{
	BIO *bio = BIO_new_mem_buf(r->spec.request.p, (int)r->spec.request.n);
	X509_REQ *q = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);

	BIO_free(bio);
	if (!q)
		ERR_clear_error();
	return q;
}

static struct str subject_text(struct arena *a, X509_REQ *q, int nid)
{
	X509_NAME *name = X509_REQ_get_subject_name(q);
	int i = X509_NAME_get_index_by_NID(name, nid, -1);
	ASN1_STRING *s = i < 0 ? NULL : X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i));

	return s ? arena_str(a, str_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s))) : STR_NULL;
}

static struct error *put_condition(struct csr_controller *c, struct arena *a, csr *r, const char *sub, const char *type, const char *reason,
				   const char *message)
{
	struct certificates_v1_certificate_signing_request_condition *k = arena_push(a, &r->status.conditions);

	*k = (struct certificates_v1_certificate_signing_request_condition){
		.type = str_from(type), .status = STR("True"), .reason = str_from(reason), .message = str_from(message),
		.last_update_time = api_now(), .last_transition_time = api_now()};
	return client_update(c->m->client, a, &certificates_v1_certificatesigningrequests_resource, STR_NULL, sub, r, NULL);
}

/* ---- approving: a kubelet's client certificate for itself (upstream's sarapprove recognizers) ---- */

static bool usages_are_client(const csr *r)
{
	bool client = false;

	for (uint32_t i = 0; i < r->spec.usages.n; i++) {
		struct str u = r->spec.usages.v[i];

		client |= str_eqz(u, "client auth");
		if (!str_eqz(u, "client auth") && !str_eqz(u, "digital signature") && !str_eqz(u, "key encipherment"))
			return false;
	}
	return client;
}

static struct error *allowed(struct csr_controller *c, struct arena *a, const csr *r, const char *sub, bool *yes)
{
	struct authorization_v1_subject_access_review req = {0}, *resp = NULL;
	struct authorization_v1_resource_attributes ra = {.group = STR("certificates.k8s.io"), .resource = STR("certificatesigningrequests"),
							  .verb = STR("create"), .subresource = str_from(sub), .version = STR("*")};

	req.spec.user = r->spec.username;
	req.spec.uid = r->spec.uid;
	req.spec.groups.v = r->spec.groups.v;
	req.spec.groups.n = r->spec.groups.n;
	req.spec.resource_attributes = &ra;
	TRY(client_create(c->m->client, a, &authorization_v1_subjectaccessreviews_resource, STR_NULL, &req, (void **)&resp));
	*yes = resp->status.allowed;
	return NULL;
}

static struct error *approve(struct csr_controller *c, struct arena *a, csr *r)
{
	X509_REQ *q = str_eqz(r->spec.signer_name, SIGNER_KUBELET_CLIENT) && usages_are_client(r) ? parse(r) : NULL;
	bool yes = false, node;

	if (!q)
		return NULL;
	struct str cn = subject_text(a, q, NID_commonName);

	node = str_has_prefix(cn, STR("system:node:")) && str_eqz(subject_text(a, q, NID_organizationName), "system:nodes");
	X509_REQ_free(q);
	if (!node)
		return NULL;
	bool self = str_eq(r->spec.username, cn);

	TRY(allowed(c, a, r, self ? "selfnodeclient" : "nodeclient", &yes));
	if (!yes)
		return NULL;
	return put_condition(c, a, r, "approval", "Approved", "AutoApproved", self ? "Auto approving self kubelet client certificate after SubjectAccessReview."
			     : "Auto approving kubelet client certificate after SubjectAccessReview.");
}

/* ---- signing ---- */

static bool known_signer(struct str s)
{
	return str_eqz(s, SIGNER_CLIENT) || str_eqz(s, SIGNER_KUBELET_CLIENT) || str_eqz(s, SIGNER_KUBELET_SERVING);
}

static struct error *extension(X509 *x, X509 *ca, int nid, const char *value)
{
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, ca, x, NULL, NULL, 0);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);

	if (!e)
		return ssl_error(value);
	X509_add_ext(x, e, -1);
	X509_EXTENSION_free(e);
	return NULL;
}

static void add_word(struct arena *a, struct str *list, const char *word)
{
	*list = arena_printf(a, "%.*s%s%s", STR_ARG(*list), list->n ? "," : "", word);
}

/* API's usages to X.509's: key usage and extended key usage. */
static struct error *usages(struct arena *a, const csr *r, X509 *x, X509 *ca)
{
	static const struct {
		const char *api, *ku, *eku;
	} table[] = {
		{"signing", "digitalSignature", NULL}, {"digital signature", "digitalSignature", NULL},
		{"content commitment", "nonRepudiation", NULL}, {"key encipherment", "keyEncipherment", NULL},
		{"key agreement", "keyAgreement", NULL}, {"data encipherment", "dataEncipherment", NULL},
		{"server auth", NULL, "serverAuth"}, {"client auth", NULL, "clientAuth"}, {"code signing", NULL, "codeSigning"},
	};
	struct str ku = STR_NULL, eku = STR_NULL;

	for (uint32_t i = 0; i < r->spec.usages.n; i++) {
		for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
			if (!str_eqz(r->spec.usages.v[i], table[k].api))
				continue;
			if (table[k].ku)
				add_word(a, &ku, table[k].ku);
			if (table[k].eku)
				add_word(a, &eku, table[k].eku);
		}
	}
	if (ku.n)
		TRY(extension(x, ca, NID_key_usage, arena_printf(a, "critical,%.*s", STR_ARG(ku)).p));
	return eku.n ? extension(x, ca, NID_ext_key_usage, arena_strz(a, eku)) : NULL;
}

/* Subject alternative names are taken over as asked (the signer's rules were checked before). */
static void copy_names(X509_REQ *q, X509 *x)
{
	STACK_OF(X509_EXTENSION) *list = X509_REQ_get_extensions(q);
	int i = X509v3_get_ext_by_NID(list, NID_subject_alt_name, -1);

	if (i >= 0)
		X509_add_ext(x, X509v3_get_ext(list, i), -1);
	sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
}

static int64_t lifetime_s(struct csr_controller *c, const csr *r)
{
	int64_t s = c->m->flags.signing_duration_s;

	if (r->spec.expiration_seconds && *r->spec.expiration_seconds < s)
		s = *r->spec.expiration_seconds < MIN_EXPIRATION_S ? MIN_EXPIRATION_S : *r->spec.expiration_seconds;
	return s;
}

static struct error *fill(struct csr_controller *c, struct arena *a, const csr *r, X509_REQ *q, X509 *x)
{
	unsigned char serial[16];
	EVP_PKEY *pub = X509_REQ_get0_pubkey(q);

	if (!pub || X509_REQ_verify(q, pub) != 1) {
		ERR_clear_error();
		return error_new("the request's signature does not fit its key");
	}
	if (RAND_bytes(serial, sizeof serial) != 1)
		return ssl_error("random serial");
	serial[0] &= 0x7f;
	BIGNUM *bn = BN_bin2bn(serial, sizeof serial, NULL);

	BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x));
	BN_free(bn);
	X509_set_version(x, 2);
	X509_gmtime_adj(X509_getm_notBefore(x), -BACKDATE_S);
	X509_gmtime_adj(X509_getm_notAfter(x), (long)lifetime_s(c, r));
	X509_set_subject_name(x, X509_REQ_get_subject_name(q));
	X509_set_issuer_name(x, X509_get_subject_name(c->ca));
	X509_set_pubkey(x, pub);
	TRY(usages(a, r, x, c->ca));
	TRY(extension(x, c->ca, NID_basic_constraints, "critical,CA:FALSE"));
	if (X509_get0_subject_key_id(c->ca)) /* an authority without one has no name for its key */
		TRY(extension(x, c->ca, NID_authority_key_identifier, "keyid"));
	copy_names(q, x);
	return X509_sign(x, c->key, EVP_sha256()) ? NULL : ssl_error("signing");
}

static struct error *sign(struct csr_controller *c, struct arena *a, csr *r)
{
	X509_REQ *q = parse(r);

	if (!q)
		return put_condition(c, a, r, "status", "Failed", "SignerValidationFailure", "unable to parse the request as a certificate request in PEM");
	X509 *x = X509_new();
	struct error *e = fill(c, a, r, q, x);

	X509_REQ_free(q);
	if (e) {
		struct error *w = put_condition(c, a, r, "status", "Failed", "SignerValidationFailure", arena_strz(a, str_from(e->message)));

		error_free(e);
		X509_free(x);
		return w;
	}
	BIO *bio = BIO_new(BIO_s_mem());
	char *p;

	PEM_write_bio_X509(bio, x);
	long n = BIO_get_mem_data(bio, &p);

	r->status.certificate = arena_str(a, str_of(p, (size_t)n));
	BIO_free(bio);
	X509_free(x);
	return client_update(c->m->client, a, &certificates_v1_certificatesigningrequests_resource, STR_NULL, "status", r, NULL);
}

static bool decided(const csr *r)
{
	return r->status.certificate.n || has_condition(r, "Denied") || has_condition(r, "Failed");
}

static struct error *reconcile_approval(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct csr_controller *c = ctx;
	csr *r = informer_get(c->csrs, a, STR_NULL, name);

	if (!r || decided(r) || has_condition(r, "Approved"))
		return NULL;
	struct error *e = approve(c, a, r);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static struct error *reconcile_signing(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct csr_controller *c = ctx;
	csr *r = informer_get(c->csrs, a, STR_NULL, name);

	if (!r || decided(r) || !has_condition(r, "Approved") || !known_signer(r->spec.signer_name))
		return NULL;
	struct error *e = sign(c, a, r);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

/* ---- cleaning ---- */

struct old {
	struct csr_controller *c;
	struct arena *a;
	LIST(struct str) names;
};

static bool collect_old(void *ctx, const struct cached_object *o)
{
	struct old *w = ctx;
	arena_cleanup struct arena a = {0};
	csr *r = cached_decode(w->c->csrs, &a, o);
	int64_t age = wall_ms() - time_ms(r->metadata.creation_timestamp);
	int64_t keep = r->status.certificate.n || has_condition(r, "Approved") ? KEEP_APPROVED_MS : has_condition(r, "Denied") || has_condition(r, "Failed")
		? KEEP_DENIED_MS : KEEP_PENDING_MS;

	if (age > keep)
		*arena_push(w->a, &w->names) = arena_str(w->a, o->name);
	return true;
}

static struct error *clean(void *ctx, struct arena *a)
{
	struct old w = {.c = ctx, .a = a};
	struct delete_opts d = DELETE_DEFAULT;

	informer_each(w.c->csrs, STR_NULL, NULL, collect_old, &w);
	for (uint32_t i = 0; i < w.names.n; i++) {
		struct error *e = client_delete(w.c->m->client, a, &certificates_v1_certificatesigningrequests_resource, STR_NULL, w.names.v[i], &d);

		if (e && !error_is(e, 404, NULL))
			return e;
		error_free(e);
	}
	return NULL;
}

static void on_csr(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	if (new_)
		workqueue_add(((struct csr_controller *)ctx)->q, new_->name);
}

static struct error *read_ca(struct csr_controller *c)
{
	const struct manager_flags *f = &c->m->flags;
	buf_cleanup struct buf cert = {0}, key = {0};

	TRY(file_read(f->signing_cert_file, &cert));
	TRY(file_read(f->signing_key_file, &key));
	BIO *b = BIO_new_mem_buf(cert.p, (int)cert.n);

	c->ca = PEM_read_bio_X509(b, NULL, NULL, NULL);
	BIO_free(b);
	b = BIO_new_mem_buf(key.p, (int)key.n);
	c->key = PEM_read_bio_PrivateKey(b, NULL, NULL, (void *)(uintptr_t)""); /* nobody is asked for a password */
	BIO_free(b);
	return c->ca && c->key ? NULL : ssl_error("reading the signing certificate and key");
}

static struct csr_controller *csr_controller_new(struct manager *m, const char *name)
{
	struct csr_controller *c = arena_new(&m->root->arena, struct csr_controller);

	c->m = m;
	c->csrs = manager_informer(m, &certificates_v1_certificatesigningrequests_resource);
	if (name) {
		c->q = workqueue_new(name);
		informer_on_event(c->csrs, on_csr, c);
	}
	return c;
}

void csr_approving_start(struct manager *m)
{
	struct csr_controller *c = csr_controller_new(m, "certificate-approving");

	controller_run(m, c->q, "certificate-approving", 1, reconcile_approval, c, c->csrs, NULL);
}

void csr_signing_start(struct manager *m)
{
	if (!m->flags.signing_cert_file || !m->flags.signing_key_file)
		return; /* nothing is signed here then */
	struct csr_controller *c = csr_controller_new(m, "certificate-signing");
	struct error *e = read_ca(c);

	if (e) {
		/* Requests stay approved and unsigned until the flags are right. */
		log_and_free(e, "certificates are not signed");
		return;
	}
	controller_run(m, c->q, "certificate-signing", 1, reconcile_signing, c, c->csrs, NULL);
}

void csr_cleaner_start(struct manager *m)
{
	struct csr_controller *c = csr_controller_new(m, NULL);

	controller_every(m, "certificate-cleaner", 60 * 60 * 1000, clean, c, c->csrs, NULL);
}
