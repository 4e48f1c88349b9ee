/* Rules of certificates.k8s.io: requests, what is approved of them, what is issued for them. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "apiserver/csr_pem.h"
#include "apiserver/metrics.h"
#include "apiserver/validate_core.h"
#include "apiserver/validate_kinds.h"

#define USAGES                                                                                                               \
	"any,cert sign,client auth,code signing,content commitment,crl sign,data encipherment,decipher only,digital signature,"  \
	"email protection,encipher only,ipsec end system,ipsec tunnel,ipsec user,key agreement,key encipherment,microsoft sgc," \
	"netscape sgc,ocsp signing,s/mime,server auth,signing,timestamping"
enum { EXPIRATION_SECONDS_MIN = 600 };

typedef struct certificates_v1_certificate_signing_request csr;
typedef struct certificates_v1_certificate_signing_request_condition condition;

/* A signing request in PEM, signed by its own key: NULL, or what is wrong. */
static const char *request_problem(struct str pem)
{
	const char *problem;
	X509_REQ *req = csr_pem_read(pem, &problem);
	EVP_PKEY *key = req ? X509_REQ_get0_pubkey(req) : NULL;

	if (req && !key)
		problem = "x509: unsupported public key";
	else if (req && X509_REQ_verify(req, key) != 1)
		problem = "x509: signature does not verify";
	X509_REQ_free(req);
	ERR_clear_error();
	return problem;
}

/* Certificates in PEM, at least one: NULL, or what is wrong. */
static const char *chain_problem(struct arena *a, struct str pem)
{
	BIO *bio = BIO_new_mem_buf(pem.p, pem.n > INT32_MAX ? INT32_MAX : (int)pem.n);
	const char *problem = NULL;
	int blocks = 0;

	while (bio && !problem) {
		char *name = NULL, *header = NULL;
		unsigned char *data = NULL;
		const unsigned char *p;
		long n = 0;
		bool whole = true;

		if (!PEM_read_bio(bio, &name, &header, &data, &n))
			break;
		blocks++;
		p = data;
		while (whole && p < data + n) { /* a block may hold several */
			X509 *cert = d2i_X509(NULL, &p, data + n - p);

			whole = cert != NULL;
			X509_free(cert);
		}
		if (strcmp(name, "CERTIFICATE") != 0)
			problem = arena_printf(a, "only CERTIFICATE PEM blocks are allowed, found \"%s\"", name).p;
		else if (header && *header)
			problem = "no PEM block headers are permitted";
		else if (!n || !whole)
			problem = n ? "x509: malformed certificate" : "found CERTIFICATE PEM block containing 0 certificates";
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_free(data);
	}
	BIO_free(bio);
	ERR_clear_error();
	return problem ? problem : blocks ? NULL : "must contain at least one CERTIFICATE PEM block";
}

static uint32_t count_of(const csr *c, const char *type)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->status.conditions.n; i++)
		n += str_eqz(c->status.conditions.v[i].type, type);
	return n;
}

static bool same_conditions(const csr *a, const csr *b, const char *type)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < a->status.conditions.n; i++) {
		if (!str_eqz(a->status.conditions.v[i].type, type))
			continue;
		while (k < b->status.conditions.n && !str_eqz(b->status.conditions.v[k].type, type))
			k++;
		if (k == b->status.conditions.n || !object_equal(&certificates_v1_certificate_signing_request_condition_type,
								  &a->status.conditions.v[i], &b->status.conditions.v[k]))
			return false;
		k++;
	}
	return true;
}

static bool repeats(const csr *c)
{
	for (uint32_t i = 0; c && i < c->status.conditions.n; i++)
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(c->status.conditions.v[i].type, c->status.conditions.v[k].type))
				return true;
	return false;
}

static void conditions(struct field_errors *e, const csr *c, const csr *o)
{
	const struct field_path *p = AT(FIELD_ROOT("status"), "conditions");
	bool both = o && count_of(o, "Approved") && count_of(o, "Denied"), again = repeats(o), nameless = o && count_of(o, ""), seen = false;

	for (uint32_t i = 0; i < c->status.conditions.n; i++) {
		const condition *x = &c->status.conditions.v[i];
		bool decided = str_eqz(x->type, "Approved") || str_eqz(x->type, "Denied");

		if (!nameless)
			rule_required(e, AT(EL(p, i), "type"), x->type);
		rule_enum(e, AT(EL(p, i), "status"), x->status, decided || str_eqz(x->type, "Failed") ? "True" : "False,True,Unknown");
		for (uint32_t k = 0; k < i && decided && !both; k++) {
			struct str other = c->status.conditions.v[k].type;

			if (str_eq(other, x->type) || (!str_eqz(other, "Approved") && !str_eqz(other, "Denied")))
				continue;
			field_invalid(e, p, x->type, "Approved and Denied conditions are mutually exclusive");
			break;
		}
		seen = false;
		for (uint32_t k = 0; k < i; k++)
			seen |= str_eq(c->status.conditions.v[k].type, x->type);
		if (seen && !again)
			field_duplicate(e, AT(EL(p, i), "type"), x->type);
	}
}

static void csr_rules(struct field_errors *e, const csr *c, const csr *o)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *usages = AT(spec, "usages");
	const char *m = request_problem(c->spec.request);
	struct field_errors were = {.arena = e->arena};
	bool repeated = false, legacy = o && str_eqz(o->spec.signer_name, "kubernetes.io/legacy-unknown");

	if (m)
		field_invalid_raw(e, AT(spec, "request"), field_json(e->arena, &certificates_v1_certificate_signing_request_spec_type, &c->spec, STR("request")),
				  "%s", m);
	if (!c->spec.usages.n)
		field_required(e, usages, "");
	for (uint32_t i = 0; o && i < o->spec.usages.n; i++) {
		field_one_of(&were, usages, o->spec.usages.v[i], USAGES);
		for (uint32_t k = 0; k < i; k++)
			repeated |= str_eq(o->spec.usages.v[k], o->spec.usages.v[i]);
	}
	for (uint32_t i = 0; i < c->spec.usages.n; i++) {
		bool seen = false;

		if (!were.list.n)
			field_one_of(e, EL(usages, i), c->spec.usages.v[i], USAGES);
		for (uint32_t k = 0; k < i; k++)
			seen |= str_eq(c->spec.usages.v[k], c->spec.usages.v[i]);
		if (seen && !repeated)
			field_duplicate(e, EL(usages, i), c->spec.usages.v[i]);
	}
	if (!legacy && str_eqz(c->spec.signer_name, "kubernetes.io/legacy-unknown"))
		field_invalid(e, AT(spec, "signerName"), c->spec.signer_name, "the legacy signerName is not allowed via this API version");
	else
		rule_signer_name(e, AT(spec, "signerName"), c->spec.signer_name);
	if (c->spec.expiration_seconds && *c->spec.expiration_seconds < EXPIRATION_SECONDS_MIN)
		field_invalid_int(e, AT(spec, "expirationSeconds"), *c->spec.expiration_seconds,
				  "may not specify a duration less than 600 seconds (10 minutes)");
	conditions(e, c, o);
	if (c->status.certificate.n && !(o && str_eq(o->status.certificate, c->status.certificate)) &&
	    !(o && o->status.certificate.n && chain_problem(e->arena, o->status.certificate))) {
		m = chain_problem(e->arena, c->status.certificate);
		if (m)
			field_invalid(e, AT(FIELD_ROOT("status"), "certificate"), STR("<certificate data>"), "%s", m);
	}
}

static void csr_changes(struct field_errors *e, const csr *c, const csr *o, bool approves, bool issues)
{
	static const char *const types[] = {"Approved", "Denied", "Failed"};
	const struct field_path *status = FIELD_ROOT("status"), *p = AT(status, "conditions");

	csr_rules(e, c, o);
	for (int i = 0; i < 3; i++)
		if (count_of(c, types[i]) < count_of(o, types[i]))
			field_forbidden(e, p, "updates may not remove a condition of type \"%s\"", types[i]);
	for (int i = 0; i < 2 && !approves; i++) {
		if (count_of(c, types[i]) > count_of(o, types[i]))
			field_forbidden(e, p, "updates may not add a condition of type \"%s\"", types[i]);
		else if (count_of(c, types[i]) == count_of(o, types[i]) && !same_conditions(c, o, types[i]))
			field_forbidden(e, p, "updates may not modify a condition of type \"%s\"", types[i]);
	}
	if (str_eq(c->status.certificate, o->status.certificate))
		return;
	if (!issues)
		field_forbidden(e, AT(status, "certificate"), "updates may not set certificate content");
	else if (o->status.certificate.n)
		field_forbidden(e, AT(status, "certificate"), "updates may not modify existing certificate content");
}

void csr_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	csr_rules(e, obj, NULL);
}

void csr_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	csr_changes(e, obj, old, false, false);
}

void csr_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	csr_changes(e, obj, old, !strcmp(sub, "approval"), !strcmp(sub, "status"));
}

/* ---- secrets of type kubernetes.io/tls ---- */

/*
 * The first block of PEM that is called a certificate (or a private key); *cert, *pkey are NULL where it is none. False: there is no such
 * block, and *problem says so.
 */
static bool first_block(struct arena *a, struct str pem, bool key, X509 **cert, EVP_PKEY **pkey, const char **problem)
{
	BIO *bio = BIO_new_mem_buf(pem.p ? pem.p : "", pem.n > INT32_MAX ? INT32_MAX : (int)pem.n);
	struct buf skipped buf_cleanup = {0};
	char *name = NULL, *header = NULL, *last = NULL;
	unsigned char *data = NULL;
	long n = 0;
	int others = 0;
	bool found = false;

	while (bio && !found && PEM_read_bio(bio, &name, &header, &data, &n)) {
		struct str type = str_from(name);
		const unsigned char *p = data;

		found = key ? str_eqz(type, "PRIVATE KEY") || str_has_suffix(type, STR(" PRIVATE KEY")) : str_eqz(type, "CERTIFICATE");
		if (found && key)
			*pkey = d2i_AutoPrivateKey(NULL, &p, n);
		else if (found)
			*cert = d2i_X509(NULL, &p, n);
		else
			buf_printf(&skipped, "%s%s", others++ ? " " : "", name);
		OPENSSL_free(last);
		last = name;
		OPENSSL_free(header);
		OPENSSL_free(data);
	}
	BIO_free(bio);
	if (!found && !others)
		*problem = key ? "tls: failed to find any PEM data in key input" : "tls: failed to find any PEM data in certificate input";
	else if (!found && others == 1 && key && !strcmp(last, "CERTIFICATE"))
		*problem = "tls: found a certificate rather than a key in the PEM for the private key";
	else if (!found && others == 1 && !key && str_has_suffix(str_from(last), STR("PRIVATE KEY")))
		*problem = "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been "
			   "switched";
	else if (!found)
		*problem = arena_printf(a, "tls: failed to find %s in %s input after skipping PEM blocks of the following types: [%s]",
					key ? "PEM block with type ending in \"PRIVATE KEY\"" : "\"CERTIFICATE\" PEM block",
					key ? "key" : "certificate", buf_z(&skipped)).p;
	OPENSSL_free(last);
	return found;
}

void secret_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_secret *s = obj;
	X509 *cert = NULL;
	EVP_PKEY *key = NULL, *of;
	const char *problem = NULL;

	(void)old;
	if (!str_eqz(s->type, "kubernetes.io/tls"))
		return;
	if (first_block(rq->a, str_map_get(API_MAP(&s->data), STR("tls.crt")), false, &cert, &key, &problem) &&
	    first_block(rq->a, str_map_get(API_MAP(&s->data), STR("tls.key")), true, &cert, &key, &problem)) {
		of = cert ? X509_get0_pubkey(cert) : NULL;
		if (!cert)
			problem = "x509: malformed certificate";
		else if (!of)
			problem = "tls: unknown public key algorithm";
		else if (!key)
			problem = "tls: failed to parse private key";
		else if (EVP_PKEY_get_base_id(of) != EVP_PKEY_get_base_id(key))
			problem = "tls: private key type does not match public key type";
		else if (EVP_PKEY_eq(of, key) != 1)
			problem = "tls: private key does not match public key";
	}
	X509_free(cert);
	EVP_PKEY_free(key);
	ERR_clear_error();
	if (problem)
		request_warn(rq, "%s", problem);
}

/* ---- what is counted of issued certificates ---- */

#define BACKDATED_S 300 /* a certificate may begin that much before it is issued */

void csr_issued(struct request *rq, const char *sub, const void *obj, const void *old)
{
	const csr *c = obj, *o = old;
	bool known = str_has_prefix(o->spec.signer_name, STR("kubernetes.io/"));
	struct str signer = known ? metric_label(rq->a, o->spec.signer_name) : STR("other");
	const char *labels;
	X509 *cert = NULL;
	EVP_PKEY *key = NULL;
	const char *problem;
	int days, seconds;

	if (strcmp(sub, "status") || o->status.certificate.n || !c->status.certificate.n || !o->spec.expiration_seconds)
		return;
	labels = arena_printf(rq->a, "signerName=\"%.*s\"", STR_ARG(signer)).p;
	metrics_count(METRIC_CSR_REQUESTED, labels, 1);
	if (first_block(rq->a, c->status.certificate, false, &cert, &key, &problem) && cert &&
	    ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(cert), X509_get0_notAfter(cert))) {
		int64_t want = *o->spec.expiration_seconds, delta = want - (days * INT64_C(86400) + seconds);

		if (llabs(delta) * 20 < BACKDATED_S * 20 + want)
			metrics_count(METRIC_CSR_HONORED, labels, 1);
	}
	X509_free(cert);
	ERR_clear_error();
}
