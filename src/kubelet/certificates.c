/*
 * The node's certificates: the client one by TLS bootstrap (--bootstrap-kubeconfig), the serving one by the cluster
 * (--rotate-server-certificates) or self-signed, and their renewal. Keys are made here and never leave the machine.
 */
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include "kubelet/internal.h"

#define SELF_SIGNED_S (365L * 86400)
#define WAIT_ISSUED_MS (15 * 60 * 1000) /* upstream's limit for a request to be approved and signed */
#define POLL_MS 500
#define RETRY_MS 10000
#define CHECK_MS (60 * 60 * 1000)
#define RENEW_PERCENT 80 /* of its life (upstream: 70 to 90) */

static inline void free_pkey(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}
static inline void free_x509(X509 **x)
{
	X509_free(*x);
}
static inline void free_req(X509_REQ **q)
{
	X509_REQ_free(*q);
}
static inline void free_bio(BIO **b)
{
	BIO_free(*b);
}
#define pkey_cleanup __attribute__((cleanup(free_pkey)))
#define x509_cleanup __attribute__((cleanup(free_x509)))
#define req_cleanup __attribute__((cleanup(free_req)))
#define bio_cleanup __attribute__((cleanup(free_bio)))

static struct str bio_view(BIO *bio)
{
	char *p;
	long n = BIO_get_mem_data(bio, &p);

	return str_of(p, (size_t)n);
}

static const char *pki_path(struct kubelet *k, struct arena *a, const char *name)
{
	return arena_printf(a, "%s/pki/%s", k->c->root_dir, name).p;
}

/* "DNS:name,IP:a,...": what others call this node by, as in its status. */
static struct str alt_names(struct kubelet *k, struct arena *a)
{
	struct str s = arena_printf(a, "DNS:%s", k->c->node_name);

	for (int i = 0; i < k->n_host_ips; i++)
		s = arena_printf(a, "%.*s,IP:%s", STR_ARG(s), k->host_ips[i]);
	return s;
}

/* ---- self-signed: clients then cannot verify this node, as with upstream's default ---- */

static struct error *self_sign(struct kubelet *k, const char *cert_path, const char *key_path)
{
	arena_cleanup struct arena a = {0};
	pkey_cleanup EVP_PKEY *key = EVP_EC_gen("P-256");
	x509_cleanup X509 *x = X509_new();
	bio_cleanup BIO *cert = BIO_new(BIO_s_mem()), *priv = BIO_new(BIO_s_mem());
	X509V3_CTX ctx;
	struct str sans = arena_printf(&a, "%.*s,IP:127.0.0.1", STR_ARG(alt_names(k, &a)));

	X509_set_version(x, 2);
	ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), random_u64() >> 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), SELF_SIGNED_S);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (const unsigned char *)k->c->node_name, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	X509_set_pubkey(x, key);
	X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, sans.p);
	bool ok = key && ext && X509_add_ext(x, ext, -1) && X509_sign(x, key, EVP_sha256()) && PEM_write_bio_X509(cert, x) &&
		  PEM_write_bio_PrivateKey(priv, key, NULL, NULL, 0, NULL, NULL);

	X509_EXTENSION_free(ext);
	if (!ok)
		return error_new("making a serving certificate failed");
	/* One file may be both: a reader never sees a key that is not the certificate's. */
	if (strcmp(cert_path, key_path) == 0)
		return file_write_atomic(cert_path, arena_printf(&a, "%.*s%.*s", STR_ARG(bio_view(cert)), STR_ARG(bio_view(priv))), 0600);
	TRY(file_write_atomic(key_path, bio_view(priv), 0600));
	return file_write_atomic(cert_path, bio_view(cert), 0644);
}

/* ---- signed by the cluster: certificates.k8s.io/v1 ---- */

struct certificate {
	const char *file;   /* below pki/: certificate and key in one, replaced whole */
	const char *signer;
	const char *usage;  /* beside "digital signature" */
	bool serving;
};
static const struct certificate client_certificate = {"kubelet-client-current.pem", "kubernetes.io/kube-apiserver-client-kubelet",
						       "client auth", false};
static const struct certificate serving_certificate = {"kubelet-server-current.pem", "kubernetes.io/kubelet-serving", "server auth", true};

static struct error *make_request(struct kubelet *k, struct arena *a, const struct certificate *c, struct str *request, struct str *key_pem)
{
	pkey_cleanup EVP_PKEY *key = EVP_EC_gen("P-256");
	req_cleanup X509_REQ *q = X509_REQ_new();
	bio_cleanup BIO *out = BIO_new(BIO_s_mem()), *priv = BIO_new(BIO_s_mem());
	X509_NAME *name = X509_REQ_get_subject_name(q);
	struct str cn = arena_printf(a, "system:node:%s", k->c->node_name);
	bool ok = key && X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"system:nodes", -1, -1, 0) &&
		  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn.p, (int)cn.n, -1, 0) &&
		  X509_REQ_set_pubkey(q, key);

	if (ok && c->serving) {
		STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
		X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alt_names(k, a).p);

		ok = ext && sk_X509_EXTENSION_push(list, ext) && X509_REQ_add_extensions(q, list);
		sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
	}
	if (!ok || !X509_REQ_sign(q, key, EVP_sha256()) || !PEM_write_bio_X509_REQ(out, q) ||
	    !PEM_write_bio_PrivateKey(priv, key, NULL, NULL, 0, NULL, NULL))
		return error_new("making a certificate request failed");
	*request = arena_str(a, bio_view(out));
	*key_pem = arena_str(a, bio_view(priv));
	return NULL;
}

static struct error *wait_issued(struct client *cl, struct arena *a, struct str name, struct str *cert)
{
	int64_t until = now_ms() + WAIT_ISSUED_MS;

	for (;;) {
		struct certificates_v1_certificate_signing_request *r;

		TRY(client_get(cl, a, &certificates_v1_certificatesigningrequests_resource, STR_NULL, name, (void **)&r));
		for (uint32_t i = 0; i < r->status.conditions.n; i++)
			if (str_eqz(r->status.conditions.v[i].type, "Denied") || str_eqz(r->status.conditions.v[i].type, "Failed"))
				return error_new("CertificateSigningRequest %.*s is %.*s: %.*s", STR_ARG(name),
						 STR_ARG(r->status.conditions.v[i].type), STR_ARG(r->status.conditions.v[i].message));
		if (r->status.certificate.n) {
			*cert = r->status.certificate;
			return NULL;
		}
		if (now_ms() > until)
			return error_new("CertificateSigningRequest %.*s was not approved and signed within %d min", STR_ARG(name),
					 WAIT_ISSUED_MS / 60000);
		TRY(fiber_sleep(POLL_MS));
	}
}

/* Asks the cluster for a certificate and puts it, with its key, where it belongs. */
static struct error *obtain(struct kubelet *k, struct client *cl, const struct certificate *c)
{
	arena_cleanup struct arena a = {0};
	struct certificates_v1_certificate_signing_request r = {0}, *made;
	struct str key, cert = STR_NULL;

	r.metadata.generate_name = STR("csr-");
	r.spec.signer_name = str_from(c->signer);
	*arena_push(&a, &r.spec.usages) = STR("digital signature");
	*arena_push(&a, &r.spec.usages) = str_from(c->usage);
	TRY(make_request(k, &a, c, &r.spec.request, &key));
	TRY(client_create(cl, &a, &certificates_v1_certificatesigningrequests_resource, STR_NULL, &r, (void **)&made));
	TRY(wait_issued(cl, &a, made->metadata.name, &cert));
	TRY(file_write_atomic(pki_path(k, &a, c->file), arena_printf(&a, "%.*s%.*s", STR_ARG(cert), STR_ARG(key)), 0600));
	log_info("the certificate for %s was issued", c->signer);
	return NULL;
}

/* Not there, self-signed, or past most of its life. *expired: of no use at all. */
static bool wants_renewal(const char *path, bool *expired)
{
	buf_cleanup struct buf b = {0};
	x509_cleanup X509 *x = NULL;
	int total_d = 0, total_s = 0, left_d = 0, left_s = 0;
	struct error *e = file_read(path, &b);

	*expired = true;
	if (!e) {
		bio_cleanup BIO *bio = BIO_new_mem_buf(b.p, (int)b.n);

		x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	}
	error_free(e);
	if (!x || !ASN1_TIME_diff(&total_d, &total_s, X509_get0_notBefore(x), X509_get0_notAfter(x)) ||
	    !ASN1_TIME_diff(&left_d, &left_s, NULL, X509_get0_notAfter(x)))
		return true;
	int64_t total = total_d * 86400LL + total_s, left = left_d * 86400LL + left_s;

	*expired = left <= 0;
	return X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) == 0 || left < total * (100 - RENEW_PERCENT) / 100;
}

/* The kubeconfig that the bootstrap one leads to: same server and authority, the certificate issued. */
static struct error *write_kubeconfig(struct kubelet *k, const struct client_config *from)
{
	buf_cleanup struct buf b = {0}, ca = {0};
	arena_cleanup struct arena a = {0};

	if (!from->ca_pem.n && from->ca_file)
		TRY(file_read(from->ca_file, &ca));
	struct str pem = from->ca_pem.n ? from->ca_pem : buf_view(&ca);
	const char *file = pki_path(k, &a, client_certificate.file);

	buf_printf(&b, "apiVersion: v1\nkind: Config\nclusters:\n- name: default-cluster\n  cluster:\n    server: %s\n", from->server);
	if (pem.n) {
		buf_puts(&b, "    certificate-authority-data: ");
		base64_encode(&b, pem);
		buf_putc(&b, '\n');
	}
	if (from->insecure_skip_tls_verify)
		buf_puts(&b, "    insecure-skip-tls-verify: true\n");
	buf_printf(&b, "contexts:\n- name: default-context\n  context:\n    cluster: default-cluster\n    user: default-auth\n"
		       "current-context: default-context\nusers:\n- name: default-auth\n  user:\n    client-certificate: %s\n"
		       "    client-key: %s\n", file, file);
	return file_write_atomic(k->c->kubeconfig, buf_view(&b), 0600);
}

struct error *client_cert_ensure(struct kubelet *k)
{
	arena_cleanup struct arena a = {0};
	struct kubelet_config *c = k->c;
	struct client_config cfg = {0};
	struct client *cl;
	bool expired;

	if (!c->bootstrap_kubeconfig)
		return NULL;
	if (!c->kubeconfig)
		return error_new("--bootstrap-kubeconfig needs --kubeconfig: where the one for the certificate issued goes");
	wants_renewal(pki_path(k, &a, client_certificate.file), &expired);
	if (access(c->kubeconfig, R_OK) == 0 && !expired)
		return NULL;
	TRY(dir_make(pki_path(k, &a, ""), 0700));
	TRY(client_config_load(&a, c->bootstrap_kubeconfig, NULL, &cfg));
	TRY(client_new(&cfg, &cl));
	struct error *e = obtain(k, cl, &client_certificate);

	client_free(cl);
	return e ? error_wrap(e, "TLS bootstrap of node %s", c->node_name) : write_kubeconfig(k, &cfg);
}

struct error *serving_cert_ensure(struct kubelet *k)
{
	struct kubelet_config *c = k->c;
	bool expired;

	if (c->cert_file && c->key_file)
		return NULL;
	TRY(dir_make(pki_path(k, &c->arena, ""), 0700));
	if (c->rotate_server_cert) {
		/* Until the cluster has signed one, which it does for a node that it knows, the server needs some certificate. */
		c->cert_file = c->key_file = pki_path(k, &c->arena, serving_certificate.file);
		wants_renewal(c->cert_file, &expired);
		return expired ? self_sign(k, c->cert_file, c->key_file) : NULL;
	}
	c->cert_file = pki_path(k, &c->arena, "kubelet.crt");
	c->key_file = pki_path(k, &c->arena, "kubelet.key");
	wants_renewal(c->cert_file, &expired);
	return !expired && access(c->key_file, R_OK) == 0 ? NULL : self_sign(k, c->cert_file, c->key_file);
}

static bool is_managed(struct kubelet *k, const struct certificate *c, const char *path)
{
	return c->serving ? k->c->rotate_server_cert && k->c->cert_file && strcmp(k->c->cert_file, path) == 0
			  : k->c->rotate_client_cert && access(path, R_OK) == 0;
}

void certificates_run(void *arg)
{
	static const struct certificate *const all[] = {&client_certificate, &serving_certificate};
	struct kubelet *k = arg;
	struct error *e = NULL;

	while (!e) {
		bool failed = false, expired;

		for (size_t i = 0; i < ARRAY_LEN(all) && !fiber_cancelled(); i++) {
			arena_cleanup struct arena a = {0};
			const char *path = pki_path(k, &a, all[i]->file);

			if (!is_managed(k, all[i], path) || !wants_renewal(path, &expired))
				continue;
			e = obtain(k, k->client, all[i]);
			failed |= e != NULL;
			if (e)
				log_warn("%s: %s; trying again", all[i]->signer, e->message);
			error_clear(&e);
		}
		e = fiber_sleep(failed ? RETRY_MS : CHECK_MS);
	}
	error_free(e);
}
