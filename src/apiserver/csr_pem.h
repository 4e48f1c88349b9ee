/*
 * apiserver/csr_pem.h: what the rules about CertificateSigningRequests ask of
 * the PKCS#10 request (RFC 2986) in PEM that one carries.
 */
#ifndef SKIFF_APISERVER_CSR_PEM_H
#define SKIFF_APISERVER_CSR_PEM_H

#include <openssl/x509.h>
#include "base/arena.h"
#include "base/str.h"

/* The first block of the PEM, which must be a CERTIFICATE REQUEST and nothing more. NULL: *problem says why not. X509_REQ_free() it. */
X509_REQ *csr_pem_read(struct str pem, const char **problem);
/* The subject's common name (the last one), in the arena; empty: it has none. */
struct str csr_common_name(struct arena *a, const X509_REQ *req);
/* Whether the subject is of this organization, among others. */
bool csr_organization_is(const X509_REQ *req, const char *group);

#endif
