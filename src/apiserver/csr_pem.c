/* Certificate signing requests in PEM. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include "apiserver/csr_pem.h"

X509_REQ *csr_pem_read(struct str pem, const char **problem)
{
	BIO *bio = BIO_new_mem_buf(pem.p, pem.n > INT32_MAX ? INT32_MAX : (int)pem.n);
	char *name = NULL, *header = NULL;
	unsigned char *data = NULL;
	X509_REQ *req = NULL;
	long n = 0;

	if (!bio || !PEM_read_bio(bio, &name, &header, &data, &n) || strcmp(name, "CERTIFICATE REQUEST") != 0) {
		*problem = "PEM block type must be CERTIFICATE REQUEST";
	} else {
		const unsigned char *p = data;

		req = d2i_X509_REQ(NULL, &p, n);
		*problem = req ? NULL : "asn1: structure error";
		if (req && p != data + n) {
			X509_REQ_free(req);
			req = NULL;
			*problem = "asn1: syntax error: trailing data";
		}
	}
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_free(data);
	BIO_free(bio);
	ERR_clear_error();
	return req;
}

struct str csr_common_name(struct arena *a, const X509_REQ *req)
{
	const X509_NAME *subject = X509_REQ_get_subject_name(req);
	unsigned char *text = NULL;
	struct str out = STR("");
	int at = -1, next, n;

	while ((next = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0)
		at = next;
	if (at < 0)
		return out;
	n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (n >= 0)
		out = arena_str(a, str_of((char *)text, (size_t)n));
	OPENSSL_free(text);
	return out;
}

bool csr_organization_is(const X509_REQ *req, const char *group)
{
	const X509_NAME *subject = X509_REQ_get_subject_name(req);
	bool yes = false;

	for (int at = -1; !yes && (at = X509_NAME_get_index_by_NID(subject, NID_organizationName, at)) >= 0;) {
		unsigned char *text = NULL;
		int n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));

		yes = n >= 0 && str_eqz(str_of((char *)text, (size_t)n), group);
		OPENSSL_free(text);
	}
	return yes;
}
