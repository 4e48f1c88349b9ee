#include "net/selfsigned.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "loop/fiber.h"
#include "loop/io.h"

#define VALID_S (365L * 24 * 3600)

/* The bytes of b in an anonymous file. */
static struct error *keep(struct arena *a, const char *name, BIO *b, const char **path)
{
	char *p;
	long n = BIO_get_mem_data(b, &p);
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || write(fd, p, (size_t)n) != n) {
		struct error *e = error_sys(errno, "keeping a serving certificate");

		if (fd >= 0)
			close(fd);
		return e;
	}
	*path = arena_printf(a, "/proc/self/fd/%d", fd).p;
	return NULL;
}

static bool make(X509 *x, EVP_PKEY *key, const char *name, const char *sans)
{
	X509V3_CTX ctx;
	X509_EXTENSION *ext;
	bool ok;

	X509_set_version(x, 2);
	ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), random_u64() >> 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), VALID_S);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	X509_set_pubkey(x, key);
	X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, sans);
	ok = ext && X509_add_ext(x, ext, -1) && X509_sign(x, key, EVP_sha256());
	X509_EXTENSION_free(ext);
	return ok;
}

/* Takes key. */
static struct error *make_pair(EVP_PKEY *key, const char *name, const char *sans, BIO *cert, BIO *priv)
{
	X509 *x = X509_new();
	bool ok = key && make(x, key, name, sans) && PEM_write_bio_X509(cert, x) &&
		  PEM_write_bio_PrivateKey(priv, key, NULL, NULL, 0, NULL, NULL);

	X509_free(x);
	EVP_PKEY_free(key);
	return ok ? NULL : error_new("making a serving certificate failed");
}

struct error *selfsigned_files(struct arena *a, const char *name, const char **cert_file, const char **key_file)
{
	BIO *cert = BIO_new(BIO_s_mem()), *priv = BIO_new(BIO_s_mem());
	struct error *e = make_pair(EVP_EC_gen("P-256"), name, arena_printf(a, "DNS:%s,IP:127.0.0.1", name).p, cert, priv);

	if (!e)
		e = keep(a, "serving.key", priv, key_file);
	if (!e)
		e = keep(a, "serving.crt", cert, cert_file);
	BIO_free(cert);
	BIO_free(priv);
	return e;
}

static struct error *write_pem(const char *path, BIO *b, mode_t mode)
{
	char *p;
	long n = BIO_get_mem_data(b, &p);

	return file_write_atomic(path, str_of(p, (size_t)n), mode);
}

struct error *selfsigned_kept(struct arena *a, const char *base, const char *name, const char *sans,
			      const char **cert_file, const char **key_file)
{
	const char *crt = arena_printf(a, "%s.crt", base).p, *key = arena_printf(a, "%s.key", base).p,
		   *slash = strrchr(base, '/');
	bool has_crt = access(crt, R_OK) == 0, has_key = access(key, R_OK) == 0;
	BIO *cert, *priv;
	struct error *e = NULL;

	*cert_file = crt;
	*key_file = key;
	if (has_crt && has_key)
		return NULL;
	if (has_crt || has_key)
		return error_new("could not read existing certificate file %s, must be able to read both %s and %s",
				 has_crt ? key : crt, crt, key);
	if (slash && slash > base)
		TRY(dir_make(arena_printf(a, "%.*s", (int)(slash - base), base).p, 0755));
	cert = BIO_new(BIO_s_mem());
	priv = BIO_new(BIO_s_mem());
	e = make_pair(EVP_RSA_gen(2048), name, sans, cert, priv);
	if (!e)
		e = write_pem(crt, cert, 0644);
	if (!e)
		e = write_pem(key, priv, 0600);
	BIO_free(cert);
	BIO_free(priv);
	return e;
}
