#include "cmd/pki.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/io.h"
#include "schema/codec.h"

#define CA_DAYS (10 * 365)
#define LEAF_DAYS 365
#define RENEW_DAYS 30
#define DAY 86400L

static inline void free_pkey(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}
static inline void free_x509(X509 **x)
{
	X509_free(*x);
}
#define pkey_cleanup __attribute__((cleanup(free_pkey)))
#define x509_cleanup __attribute__((cleanup(free_x509)))

static struct error *ssl_error(const char *what)
{
	char text[256];

	ERR_error_string_n(ERR_get_error(), text, sizeof text);
	ERR_clear_error();
	return error_new("%s: %s", what, text);
}

/* Files of secrets: readable by root and by the one component that needs it. */
static struct error *write_file(const char *path, struct str data, mode_t mode, unsigned uid)
{
	TRY(file_write_atomic(path, data, mode));
	if (uid && chown(path, uid, uid) < 0)
		return error_sys(errno, "chown %s", path);
	return NULL;
}

static struct error *bio_to_file(BIO *bio, const char *path, mode_t mode, unsigned uid)
{
	char *p;
	long n = BIO_get_mem_data(bio, &p);

	return write_file(path, str_of(p, (size_t)n), mode, uid);
}

static struct error *read_key(const char *path, EVP_PKEY **out)
{
	buf_cleanup struct buf b = {0};

	TRY(file_read(path, &b));
	BIO *bio = BIO_new_mem_buf(b.p, (int)b.n);

	*out = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	BIO_free(bio);
	return *out ? NULL : ssl_error(path);
}

static struct error *read_cert(const char *path, X509 **out)
{
	buf_cleanup struct buf b = {0};

	TRY(file_read(path, &b));
	BIO *bio = BIO_new_mem_buf(b.p, (int)b.n);

	*out = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	BIO_free(bio);
	return *out ? NULL : ssl_error(path);
}

static struct error *new_key(const char *path, unsigned uid, EVP_PKEY **out)
{
	EVP_PKEY *k = EVP_EC_gen("P-256");

	if (!k)
		return ssl_error("making a key");
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_PrivateKey(bio, k, NULL, NULL, 0, NULL, NULL);
	struct error *e = bio_to_file(bio, path, 0600, uid);

	BIO_free(bio);
	if (e)
		EVP_PKEY_free(k);
	else
		*out = k;
	return e;
}

struct cert_request {
	const char *base;         /* path without .crt/.key */
	const char *common_name;
	const char *organization; /* or NULL */
	const char *sans;         /* OpenSSL's subjectAltName text, or NULL */
	bool server, client, ca;
	unsigned uid;             /* owner of the key */
};

static struct error *add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);

	if (!ext)
		return ssl_error(value);
	X509_add_ext(x, ext, -1);
	X509_EXTENSION_free(ext);
	return NULL;
}

static struct error *fill(X509 *x, const struct cert_request *r, X509 *issuer)
{
	unsigned char serial[16];
	X509_NAME *name = X509_get_subject_name(x);
	BIGNUM *bn;

	if (RAND_bytes(serial, sizeof serial) != 1)
		return ssl_error("random serial");
	serial[0] &= 0x7f;
	bn = BN_bin2bn(serial, sizeof serial, NULL);
	BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x));
	BN_free(bn);
	X509_set_version(x, 2);
	/* An hour back: clocks of nodes differ. */
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), DAY * (r->ca ? CA_DAYS : LEAF_DAYS));
	if (r->organization)
		X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)r->organization, -1, -1, 0);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)r->common_name, -1, -1, 0);
	X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : name);
	X509 *iss = issuer ? issuer : x;

	if (r->ca) {
		TRY(add_extension(x, iss, NID_basic_constraints, "critical,CA:TRUE"));
		TRY(add_extension(x, iss, NID_key_usage, "critical,digitalSignature,keyEncipherment,keyCertSign"));
		TRY(add_extension(x, iss, NID_subject_key_identifier, "hash"));
	} else {
		TRY(add_extension(x, iss, NID_basic_constraints, "critical,CA:FALSE"));
		TRY(add_extension(x, iss, NID_key_usage, "critical,digitalSignature,keyEncipherment"));
		TRY(add_extension(x, iss, NID_ext_key_usage,
				  r->server && r->client ? "serverAuth,clientAuth" : r->server ? "serverAuth" : "clientAuth"));
		TRY(add_extension(x, iss, NID_authority_key_identifier, "keyid"));
	}
	if (r->sans)
		TRY(add_extension(x, iss, NID_subject_alt_name, r->sans));
	return NULL;
}

static struct error *write_cert(const char *base, X509 *x)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *path = xasprintf("%s.crt", base);

	PEM_write_bio_X509(bio, x);
	struct error *e = bio_to_file(bio, path, 0644, 0);

	free(path);
	BIO_free(bio);
	return e;
}

static int64_t cert_days_left(X509 *x)
{
	int days = 0, secs = 0;

	if (!ASN1_TIME_diff(&days, &secs, NULL, X509_get0_notAfter(x)))
		return -1;
	return days;
}

/* True when base.crt was issued by ca, holds what r asks for, and does not end soon. */
static bool still_good(const struct cert_request *r, X509 *ca)
{
	x509_cleanup X509 *x = NULL;
	x509_cleanup X509 *probe = NULL;
	char *path = xasprintf("%s.crt", r->base), *key = xasprintf("%s.key", r->base);
	struct error *e = read_cert(path, &x);
	bool good = !e && access(key, R_OK) == 0 && cert_days_left(x) > (r->ca ? 0 : RENEW_DAYS);

	free(path);
	free(key);
	error_clear(&e);
	if (!good || r->ca)
		return good;
	EVP_PKEY *ca_key = X509_get0_pubkey(ca);

	if (!ca_key || X509_verify(x, ca_key) != 1) {
		ERR_clear_error();
		return false;
	}
	/* Other names or addresses than asked for (a new node address): compare with a certificate as it would be now. */
	probe = X509_new();
	e = fill(probe, r, ca);
	good = !e;
	error_clear(&e);
	if (!good || X509_NAME_cmp(X509_get_subject_name(x), X509_get_subject_name(probe)) != 0)
		return false;
	int i = X509_get_ext_by_NID(x, NID_subject_alt_name, -1), j = X509_get_ext_by_NID(probe, NID_subject_alt_name, -1);

	if ((i < 0) != (j < 0))
		return false;
	return i < 0 || ASN1_OCTET_STRING_cmp(X509_EXTENSION_get_data(X509_get_ext(x, i)),
					      X509_EXTENSION_get_data(X509_get_ext(probe, j))) == 0;
}

/* Makes base.key (kept when there) and base.crt, signed by ca (NULL: self-signed). */
static struct error *ensure_cert(const struct cert_request *r, X509 *ca, EVP_PKEY *ca_key, int *renewed)
{
	if (still_good(r, ca))
		return NULL;
	pkey_cleanup EVP_PKEY *key = NULL;
	x509_cleanup X509 *x = X509_new();
	char *key_path = xasprintf("%s.key", r->base);
	struct error *e = access(key_path, F_OK) == 0 ? read_key(key_path, &key) : new_key(key_path, r->uid, &key);

	free(key_path);
	if (e)
		return e;
	X509_set_pubkey(x, key);
	TRY(fill(x, r, ca));
	if (!X509_sign(x, ca_key ? ca_key : key, EVP_sha256()))
		return ssl_error("signing a certificate");
	TRY(write_cert(r->base, x));
	(*renewed)++;
	return NULL;
}

static struct error *ensure_ca(struct cluster *c, const char *name, const char *common_name, X509 **ca, EVP_PKEY **key,
			       int *renewed)
{
	const struct cert_request r = {.base = data_path(c, "pki/%s", name), .common_name = common_name, .ca = true};

	TRY(ensure_cert(&r, NULL, NULL, renewed));
	TRY(read_cert(data_path(c, "pki/%s.crt", name), ca));
	return read_key(data_path(c, "pki/%s.key", name), key);
}

static struct error *ensure_service_account_key(struct cluster *c)
{
	const char *path = data_path(c, "pki/sa.key");
	pkey_cleanup EVP_PKEY *key = NULL;

	if (access(path, F_OK) == 0)
		TRY(read_key(path, &key));
	else
		TRY(new_key(path, UID_APISERVER, &key));
	if (access(data_path(c, "pki/sa.pub"), F_OK) == 0)
		return NULL;
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_PUBKEY(bio, key);
	struct error *e = bio_to_file(bio, data_path(c, "pki/sa.pub"), 0644, 0);

	BIO_free(bio);
	return e;
}

static void put_base64_file(struct buf *b, const char *key, const char *path, struct error **e)
{
	buf_cleanup struct buf pem = {0};

	if (*e || (*e = file_read(path, &pem)))
		return;
	buf_printf(b, "    %s: ", key);
	base64_encode(b, buf_view(&pem));
	buf_putc(b, '\n');
}

/* A kubeconfig that stands alone: certificates embedded. */
static struct error *write_kubeconfig(struct cluster *c, const char *path, const char *user, const char *base, unsigned uid)
{
	buf_cleanup struct buf b = {0};
	struct error *e = NULL;
	const char *server = c->server ? c->server : xasprintf("https://%s:%d", c->node_ip, c->api_port);

	buf_puts(&b, "apiVersion: v1\nkind: Config\nclusters:\n- name: skiff\n  cluster:\n");
	put_base64_file(&b, "certificate-authority-data", data_path(c, "pki/ca.crt"), &e);
	buf_printf(&b, "    server: %s\ncontexts:\n- name: skiff\n  context:\n    cluster: skiff\n    user: %s\n", server, user);
	buf_printf(&b, "current-context: skiff\npreferences: {}\nusers:\n- name: %s\n  user:\n", user);
	put_base64_file(&b, "client-certificate-data", data_path(c, "pki/%s.crt", base), &e);
	put_base64_file(&b, "client-key-data", data_path(c, "pki/%s.key", base), &e);
	if (!c->server)
		free((char *)server);
	if (e)
		return e;
	buf_cleanup struct buf old = {0};

	e = file_read(path, &old);
	bool same = !e && str_eq(buf_view(&old), buf_view(&b));

	error_clear(&e);
	return same ? NULL : write_file(path, buf_view(&b), 0600, uid);
}

struct identity {
	const char *name, *user, *group;
	unsigned uid;
};

static const struct identity identities[] = {
	{"admin", "kubernetes-admin", "system:masters", 0},
	{"kube-controller-manager", "system:kube-controller-manager", NULL, UID_CONTROLLER_MANAGER},
	{"kube-scheduler", "system:kube-scheduler", NULL, UID_SCHEDULER},
	/* Upstream has no default role for it; cmd/addons.c binds one to this user. */
	{"cloud-controller-manager", "system:cloud-controller-manager", NULL, UID_CLOUD_CONTROLLER_MANAGER},
	{"kube-proxy", "system:kube-proxy", NULL, UID_PROXY},
	{"cluster-dns", "system:cluster-dns", NULL, UID_DNS},
};

static struct error *ensure_identities(struct cluster *c, X509 *ca, EVP_PKEY *key, int *renewed)
{
	for (size_t i = 0; i < sizeof identities / sizeof *identities; i++) {
		const struct identity *id = &identities[i];
		const struct cert_request r = {.base = data_path(c, "pki/%s", id->name), .common_name = id->user,
					       .organization = id->group, .client = true};

		TRY(ensure_cert(&r, ca, key, renewed));
		const char *path = i == 0 ? data_path(c, "admin.kubeconfig") : data_path(c, "kubeconfig/%s.kubeconfig", id->name);

		TRY(write_kubeconfig(c, path, id->user, id->name, id->uid));
	}
	for (int i = 0; i < c->nodes; i++) {
		const char *node = cluster_node_name(c, i), *user = arena_printf(c->a, "system:node:%s", node).p;
		struct cert_request r = {.base = data_path(c, "pki/kubelet-%s", node), .common_name = user,
					 .organization = "system:nodes", .client = true};

		TRY(ensure_cert(&r, ca, key, renewed));
		TRY(write_kubeconfig(c, data_path(c, "kubeconfig/kubelet-%s.kubeconfig", node), user,
				     arena_printf(c->a, "kubelet-%s", node).p, 0));
		r = (struct cert_request){.base = data_path(c, "pki/kubelet-server-%s", node), .common_name = user,
					  .organization = "system:nodes", .server = true,
					  .sans = arena_printf(c->a, "DNS:%s,IP:%s,IP:127.0.0.1", node, cluster_node_ip(c, i)).p};
		TRY(ensure_cert(&r, ca, key, renewed));
	}
	return NULL;
}

struct error *pki_ensure(struct cluster *c, int *renewed)
{
	x509_cleanup X509 *ca = NULL, *front = NULL;
	pkey_cleanup EVP_PKEY *key = NULL, *front_key = NULL;

	*renewed = 0;
	/* Servers that are not root watch it for files that change; of clusters made before, it could not be read. */
	TRY(dir_make(data_path(c, "pki"), 0755));
	if (chmod(data_path(c, "pki"), 0755) < 0)
		return error_sys(errno, "letting the servers watch %s", data_path(c, "pki"));
	TRY(dir_make(data_path(c, "kubeconfig"), 0711));
	TRY(ensure_ca(c, "ca", "kubernetes-ca", &ca, &key, renewed));
	TRY(ensure_ca(c, "front-proxy-ca", "kubernetes-front-proxy-ca", &front, &front_key, renewed));
	TRY(ensure_service_account_key(c));
	/* The API server signs tokens with it, the controller manager those of Secrets. */
	if (chown(data_path(c, "pki/sa.key"), UID_APISERVER, UID_CONTROLLER_MANAGER) < 0 || chmod(data_path(c, "pki/sa.key"), 0640) < 0)
		return error_sys(errno, "letting the controller manager read %s", data_path(c, "pki/sa.key"));
	/* The controller manager signs CertificateSigningRequests. */
	if (chown(data_path(c, "pki/ca.key"), UID_CONTROLLER_MANAGER, UID_CONTROLLER_MANAGER) < 0)
		return error_sys(errno, "chown %s", data_path(c, "pki/ca.key"));
	struct str sans = arena_printf(c->a,
		"DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.%s,"
		"DNS:localhost,IP:127.0.0.1,IP:::1,IP:%s,IP:%s", c->cluster_domain, c->api_service_ip, c->node_ip);
	const struct cert_request serving = {.base = data_path(c, "pki/apiserver"), .common_name = "kube-apiserver",
					     .sans = sans.p, .server = true, .uid = UID_APISERVER};
	const struct cert_request to_kubelet = {.base = data_path(c, "pki/apiserver-kubelet-client"),
						.common_name = "kube-apiserver-kubelet-client",
						.organization = "system:masters", .client = true, .uid = UID_APISERVER};
	const struct cert_request proxy = {.base = data_path(c, "pki/front-proxy-client"),
					   .common_name = "front-proxy-client", .client = true, .uid = UID_APISERVER};

	TRY(ensure_cert(&serving, ca, key, renewed));
	TRY(ensure_cert(&to_kubelet, ca, key, renewed));
	TRY(ensure_cert(&proxy, front, front_key, renewed));
	return ensure_identities(c, ca, key, renewed);
}

struct error *pki_days_left(struct cluster *c, int *days)
{
	const char *dir = data_path(c, "pki");
	DIR *d = opendir(dir);
	struct dirent *ent;
	struct error *e = NULL;

	if (!d)
		return error_sys(errno, "open %s", dir);
	*days = CA_DAYS;
	while (!e && (ent = readdir(d))) {
		x509_cleanup X509 *x = NULL;

		if (!str_has_suffix(str_from(ent->d_name), STR(".crt")))
			continue;
		e = read_cert(data_path(c, "pki/%s", ent->d_name), &x);
		if (!e && cert_days_left(x) < *days)
			*days = (int)cert_days_left(x);
	}
	closedir(d);
	return e;
}
