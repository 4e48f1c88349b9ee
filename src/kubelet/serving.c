/* A self-signed serving certificate, when none was given: clients then cannot verify this node, as with upstream's default. */
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include "kubelet/internal.h"

#define VALID_S (365L * 86400)

static struct error *write_pem(const char *path, BIO *bio, mode_t mode)
{
	char *p;
	long n = BIO_get_mem_data(bio, &p);

	return file_write_atomic(path, str_of(p, (size_t)n), mode);
}

struct error *serving_cert_ensure(struct kubelet *k)
{
	struct kubelet_config *c = k->c;

	if (c->cert_file && c->key_file)
		return NULL;
	c->cert_file = arena_printf(&c->arena, "%s/pki/kubelet.crt", c->root_dir).p;
	c->key_file = arena_printf(&c->arena, "%s/pki/kubelet.key", c->root_dir).p;
	if (access(c->cert_file, R_OK) == 0 && access(c->key_file, R_OK) == 0)
		return NULL;
	TRY(dir_make(arena_printf(&c->arena, "%s/pki", c->root_dir).p, 0700));
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	X509V3_CTX ctx;
	struct str sans = arena_printf(&c->arena, "DNS:%s,IP:127.0.0.1", c->node_name);

	for (int i = 0; i < k->n_host_ips; i++)
		sans = arena_printf(&c->arena, "%.*s,IP:%s", STR_ARG(sans), k->host_ips[i]);
	X509_set_version(x, 2);
	ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), random_u64() >> 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), VALID_S);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (const unsigned char *)c->node_name, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	X509_set_pubkey(x, key);
	X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, sans.p);
	BIO *cert = BIO_new(BIO_s_mem()), *priv = BIO_new(BIO_s_mem());
	struct error *e = key && ext && X509_add_ext(x, ext, -1) && X509_sign(x, key, EVP_sha256()) && PEM_write_bio_X509(cert, x) &&
			PEM_write_bio_PrivateKey(priv, key, NULL, NULL, 0, NULL, NULL)
		? NULL : error_new("making a serving certificate failed");

	if (!e)
		e = write_pem(c->key_file, priv, 0600);
	if (!e)
		e = write_pem(c->cert_file, cert, 0644);
	BIO_free(cert);
	BIO_free(priv);
	X509_EXTENSION_free(ext);
	X509_free(x);
	EVP_PKEY_free(key);
	return e;
}
