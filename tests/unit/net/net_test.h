/* tests/unit/net/net_test.h: checks on fibers, certificates for tests. */
#ifndef SKIFF_TESTS_NET_TEST_H
#define SKIFF_TESTS_NET_TEST_H

#include "../test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/log.h"
#include "loop/io.h"
#include "net/http.h"

/* cmocka's assertions long-jump and must stay on the thread's own stack; on fibers a failed check aborts the test program. */
#define CHECK(c)                                                                                   \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			log_error("%s:%d: %s", __FILE__, __LINE__, #c);                            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)
#define OK(call)                                                                                   \
	do {                                                                                       \
		struct error *ok_e_ = (call);                                                      \
		if (ok_e_) {                                                                       \
			log_error("%s:%d: %s: %s", __FILE__, __LINE__, #call, ok_e_->message);     \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static inline bool is_sys(struct error *e, int sys)
{
	bool yes = error_is_sys(e, sys);

	if (!yes)
		log_warn("not errno %d: %s", sys, error_message(e));
	error_free(e);
	return yes;
}

static inline void write_pem_cert(const char *dir, const char *name, X509 *x, EVP_PKEY *key)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s.crt", dir, name);
	CHECK((f = fopen(path, "w")) && PEM_write_X509(f, x) && fclose(f) == 0);
	snprintf(path, sizeof path, "%s/%s.key", dir, name);
	CHECK((f = fopen(path, "w")) && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) && fclose(f) == 0);
}

static inline void add_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX c;

	X509V3_set_ctx(&c, issuer, x, NULL, NULL, 0);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &c, nid, value);

	CHECK(e && X509_add_ext(x, e, -1));
	X509_EXTENSION_free(e);
}

struct test_ca {
	X509 *cert;
	EVP_PKEY *key;
};

/* DIR/NAME.crt and .key; ca NULL: self-signed CA. subject: "O=a,O=b,CN=c" pieces separated by ','. days < 0: expired. */
static inline struct test_ca make_cert(const char *dir, const char *name, const char *subject, const char *san,
				       const struct test_ca *ca, int days)
{
	static long serial = 1;
	struct test_ca out = {X509_new(), EVP_EC_gen("P-256")};
	X509_NAME *n = X509_get_subject_name(out.cert);

	X509_set_version(out.cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(out.cert), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(out.cert), -86400 * 3);
	X509_gmtime_adj(X509_getm_notAfter(out.cert), 86400L * days);
	for (struct str rest = str_from(subject); rest.p;) {
		struct str v = str_cut(&rest, ','), k = str_cut(&v, '=');
		char *kz = str_dupz(k);

		CHECK(X509_NAME_add_entry_by_txt(n, kz, MBSTRING_UTF8, (const unsigned char *)v.p, (int)v.n, -1, 0));
		free(kz);
	}
	X509_set_pubkey(out.cert, out.key);
	X509 *issuer = ca ? ca->cert : out.cert;

	X509_set_issuer_name(out.cert, X509_get_subject_name(issuer));
	add_ext(out.cert, issuer, NID_basic_constraints, ca ? "critical,CA:FALSE" : "critical,CA:TRUE");
	if (ca)
		add_ext(out.cert, issuer, NID_ext_key_usage, "serverAuth,clientAuth");
	if (san)
		add_ext(out.cert, issuer, NID_subject_alt_name, san);
	CHECK(X509_sign(out.cert, ca ? ca->key : out.key, EVP_sha256()));
	write_pem_cert(dir, name, out.cert, out.key);
	return out;
}

static inline void free_ca(struct test_ca c)
{
	X509_free(c.cert);
	EVP_PKEY_free(c.key);
}

#endif
