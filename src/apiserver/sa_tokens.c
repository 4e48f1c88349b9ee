/* Service-account tokens: JWTs (RFC 7519) signed RS256, ES256, ES384 or ES512 with OpenSSL. */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include "apiserver/admission.h"
#include "apiserver/authn_internal.h"
#include "apiserver/authz.h"
#include "apiserver/jwt.h"
#include "schema/jv.h"

#define KEYS_MAX 32
#define LEGACY_ISSUER "kubernetes/serviceaccount"

struct key {
	EVP_PKEY *pkey;
	char id[48];
	const char *alg;
};

struct sa_tokens {
	struct key keys[KEYS_MAX]; /* public, for verifying */
	size_t n;
	EVP_PKEY *signing;
	const char *signing_alg;
	char signing_id[48];
	struct str issuers_v[FLAG_LIST_MAX];
	struct strings issuers; /* the first is whose tokens are made */
	struct str audiences[FLAG_LIST_MAX];
	size_t n_audiences;
};

static const char *key_alg(EVP_PKEY *k)
{
	if (EVP_PKEY_is_a(k, "RSA"))
		return "RS256";
	if (EVP_PKEY_is_a(k, "EC")) {
		char curve[32];

		if (EVP_PKEY_get_group_name(k, curve, sizeof curve, NULL) != 1)
			return NULL;
		return !strcmp(curve, "prime256v1") ? "ES256" :
		       !strcmp(curve, "secp384r1")  ? "ES384" :
		       !strcmp(curve, "secp521r1")  ? "ES512" :
						      NULL;
	}
	return NULL;
}

/* Bytes of a coordinate of the key's curve. */
static size_t ec_coord(const char *alg)
{
	return !strcmp(alg, "ES256") ? 32 : !strcmp(alg, "ES384") ? 48 : 66;
}

/* kid: base64url of the SHA-256 over the key's SubjectPublicKeyInfo, as upstream. */
static void key_id(EVP_PKEY *k, char out[48])
{
	unsigned char *der = NULL, sum[32];
	int n = i2d_PUBKEY(k, &der);
	struct buf b buf_cleanup = {0};

	SHA256(der, n > 0 ? (size_t)n : 0, sum);
	OPENSSL_free(der);
	base64url_encode(&b, str_of((char *)sum, sizeof sum));
	snprintf(out, 48, "%s", buf_z(&b));
}

static struct error *add_key(struct sa_tokens *t, EVP_PKEY *k)
{
	struct key *slot;

	if (t->n == KEYS_MAX) {
		EVP_PKEY_free(k);
		return error_new("more than %d service account keys", KEYS_MAX);
	}
	slot = &t->keys[t->n];
	slot->pkey = k;
	slot->alg = key_alg(k);
	key_id(k, slot->id);
	t->n++;
	return NULL;
}

/* A block of a PEM file, as upstream takes them: public keys, certificates, private keys, but for EC ones in PKCS#8. */
static EVP_PKEY *key_of_block(const char *name, const unsigned char *data, long len)
{
	const unsigned char *p = data;
	EVP_PKEY *k = NULL;

	if (!strcmp(name, "PUBLIC KEY"))
		k = d2i_PUBKEY(NULL, &p, len);
	else if (!strcmp(name, "RSA PRIVATE KEY") || !strcmp(name, "PRIVATE KEY") || !strcmp(name, "EC PRIVATE KEY"))
		k = d2i_AutoPrivateKey(NULL, &p, len);
	else if (!strcmp(name, "CERTIFICATE")) {
		X509 *x = d2i_X509(NULL, &p, len);

		k = x ? X509_get_pubkey(x) : NULL;
		X509_free(x);
	}
	if (k && (!key_alg(k) || (!strcmp(name, "PRIVATE KEY") && !EVP_PKEY_is_a(k, "RSA")))) {
		EVP_PKEY_free(k);
		k = NULL;
	}
	return k;
}

/* Every key of a PEM file, at least one. */
static struct error *load_keys(struct sa_tokens *t, const char *path)
{
	struct buf b buf_cleanup = {0};
	char *name, *header;
	unsigned char *data;
	long len;
	BIO *bio;
	size_t before = t->n;
	struct error *e = NULL;

	TRY(error_wrap(file_read(path, &b), "service account key %s", path));
	bio = BIO_new_mem_buf(b.p, (int)b.n);
	while (!e && PEM_read_bio(bio, &name, &header, &data, &len)) {
		EVP_PKEY *k = header && *header ? NULL : key_of_block(name, data, len); /* a header: it is encrypted */

		if (k)
			e = add_key(t, k);
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_free(data);
	}
	BIO_free(bio);
	ERR_clear_error();
	if (!e && t->n == before)
		return error_new("%s holds no RSA or EC key in PEM form", path);
	return e;
}

struct error *sa_tokens_init(struct apiserver *s)
{
	struct sa_tokens *t = xcalloc(1, sizeof *t);
	struct str rest;

	s->tokens = t;
	for (size_t i = 0; i < s->o.sa_key_files.n; i++)
		TRY(load_keys(t, s->o.sa_key_files.v[i]));
	if (s->o.sa_signing_key_file) {
		struct buf b buf_cleanup = {0};
		BIO *bio;

		TRY(error_wrap(file_read(s->o.sa_signing_key_file, &b), "service account signing key"));
		bio = BIO_new_mem_buf(b.p, (int)b.n);
		t->signing = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(uintptr_t)""); /* nobody is asked for a password */
		BIO_free(bio);
		ERR_clear_error();
		if (!t->signing || !key_alg(t->signing))
			return error_new("%s holds no RSA or EC private key in PEM form", s->o.sa_signing_key_file);
		t->signing_alg = key_alg(t->signing);
		key_id(t->signing, t->signing_id);
		if (!s->o.sa_key_files.n) {
			EVP_PKEY_up_ref(t->signing);
			TRY(add_key(t, t->signing));
		}
	}
	t->issuers.v = t->issuers_v;
	for (size_t i = 0; i < s->o.sa_issuers.n; i++)
		t->issuers.v[t->issuers.n++] = str_from(s->o.sa_issuers.v[i]);
	if (!t->issuers.n)
		t->issuers.v[t->issuers.n++] = STR("https://kubernetes.default.svc.cluster.local");
	rest = str_from(s->o.api_audiences);
	while (rest.p && rest.n && t->n_audiences < FLAG_LIST_MAX)
		t->audiences[t->n_audiences++] = str_cut(&rest, ',');
	if (!t->n_audiences) {
		memcpy(t->audiences, t->issuers_v, sizeof t->audiences);
		t->n_audiences = t->issuers.n;
	}
	return NULL;
}

void sa_tokens_free(struct apiserver *s)
{
	if (!s->tokens)
		return;
	for (size_t i = 0; i < s->tokens->n; i++)
		EVP_PKEY_free(s->tokens->keys[i].pkey);
	EVP_PKEY_free(s->tokens->signing);
	free(s->tokens);
	s->tokens = NULL;
}

const struct strings *sa_issuers(struct apiserver *s)
{
	return &s->tokens->issuers;
}

static bool issues(const struct sa_tokens *t, struct str issuer)
{
	for (uint32_t i = 0; i < t->issuers.n; i++)
		if (str_eq(t->issuers.v[i], issuer))
			return true;
	return false;
}

void sa_default_audiences(struct apiserver *s, const struct str **v, size_t *n)
{
	*v = s->tokens->audiences;
	*n = s->tokens->n_audiences;
}

/* ---- claims, read as strictly as upstream's types read them ---- */

struct claims {
	bool bad; /* something is of another type than it must be */
};

static struct str claim(struct claims *c, const struct jv *o, const char *key)
{
	const struct jv *v = jv_get(o, str_from(key));

	c->bad |= v && !jv_is(v, JV_STRING) && !jv_is(v, JV_NULL);
	return jv_is(v, JV_STRING) ? jv_str(v) : STR("");
}

/* Seconds; *given: it is there. */
static int64_t claim_time(struct claims *c, const struct jv *o, const char *key, bool *given)
{
	const struct jv *v = jv_get(o, str_from(key));

	*given = jv_is(v, JV_INT) || jv_is(v, JV_DOUBLE);
	c->bad |= v && !*given && !jv_is(v, JV_NULL);
	if (jv_is(v, JV_DOUBLE)) /* what is no time was long ago */
		return v->d > -9.2e18 && v->d < 9.2e18 ? (int64_t)v->d : INT64_MIN;
	return *given ? v->i : 0;
}

/* A bound object's; name->p NULL: it is bound to none. */
static void claim_object(struct claims *c, const struct jv *o, const char *key, struct str *name, struct str *uid)
{
	const struct jv *v = jv_get(o, str_from(key));

	c->bad |= v && !jv_is(v, JV_OBJECT) && !jv_is(v, JV_NULL);
	if (!jv_is(v, JV_OBJECT))
		return;
	*name = claim(c, v, "name");
	*uid = claim(c, v, "uid");
}

static void claim_audiences(struct arena *a, struct claims *c, const struct jv *o, struct strings *out)
{
	const struct jv *v = jv_get(o, STR("aud"));

	if (jv_is(v, JV_STRING))
		*arena_push(a, out) = jv_str(v);
	else
		c->bad |= v && !jv_is(v, JV_ARRAY);
	for (uint32_t i = 0; jv_is(v, JV_ARRAY) && i < v->n; i++) {
		c->bad |= !jv_is(&v->items[i], JV_STRING);
		*arena_push(a, out) = jv_str(&v->items[i]);
	}
}

static struct error *check_times(struct claims *c, const struct jv *o, struct sa_claims *out)
{
	bool exp, nbf, iat;
	int64_t now = wall_ns() / 1000000000;

	out->exp = claim_time(c, o, "exp", &exp);
	out->nbf = claim_time(c, o, "nbf", &nbf);
	out->iat = claim_time(c, o, "iat", &iat);
	if (c->bad)
		return NULL;
	/* one minute of leeway */
	if (nbf && now < out->nbf && out->nbf - now > 60)
		return error_status(401, "Unauthorized", "service account token is not valid yet");
	if (exp && out->exp < now - 60)
		return error_status(401, "Unauthorized", "service account token has expired");
	if (iat && now < out->iat && out->iat - now > 60)
		return error_status(401, "Unauthorized", "service account token is issued in the future");
	return NULL;
}

/* Of those that are asked for the ones that the token is for. */
static bool shared_audiences(struct sa_tokens *t, struct arena *a, const struct str *audiences, size_t n, struct strings *io)
{
	struct strings has = *io;

	if (!has.n) {
		has.v = t->audiences;
		has.n = (uint32_t)t->n_audiences;
	}
	memset(io, 0, sizeof *io);
	for (size_t k = 0; k < n; k++) {
		bool for_it = false;

		for (uint32_t i = 0; i < has.n; i++)
			for_it |= str_eq(has.v[i], audiences[k]);
		if (for_it)
			*arena_push(a, io) = audiences[k];
	}
	return io->n > 0;
}

struct error *sa_token_verify(struct apiserver *s, struct arena *a, struct str token, const struct str *audiences, size_t n_audiences,
			      bool *ours, struct sa_claims *out)
{
	struct sa_tokens *t = s->tokens;
	struct claims claims = {0};
	struct jws j;
	struct str iss;
	bool valid = false, none, given;
	struct error *e, *times;
	const struct jv *k8s, *c = &j.payload;

	*ours = false;
	memset(out, 0, sizeof *out);
	e = jws_parse(a, token, &j);
	if (e) {
		/* some other kind of token */
		error_free(e);
		return NULL;
	}
	iss = jv_str(jv_get(c, STR("iss")));
	out->legacy = str_eqz(iss, LEGACY_ISSUER) && !issues(t, iss);
	if (!out->legacy && !issues(t, iss))
		return NULL;
	*ours = true;
	for (size_t i = 0; i < t->n && !valid; i++)
		if (!j.kid.n || str_eqz(j.kid, t->keys[i].id))
			valid = jws_verify(&j, t->keys[i].pkey);
	if (!valid)
		return error_status(401, "Unauthorized", "invalid bearer token: failed to verify signature");
	out->jti = claim(&claims, c, "jti");
	out->subject = claim(&claims, c, "sub");
	claim_audiences(a, &claims, c, &out->audiences);
	times = check_times(&claims, c, out);
	if (out->legacy) {
		out->ns = claim(&claims, c, "kubernetes.io/serviceaccount/namespace");
		out->name = claim(&claims, c, "kubernetes.io/serviceaccount/service-account.name");
		out->uid = claim(&claims, c, "kubernetes.io/serviceaccount/service-account.uid");
		out->secret_name = claim(&claims, c, "kubernetes.io/serviceaccount/secret.name");
		/* such a token has no end */
		error_clear(&times);
	} else {
		struct str sa_name = STR(""), sa_uid = STR("");

		k8s = jv_get(c, STR("kubernetes.io"));
		claims.bad |= k8s && !jv_is(k8s, JV_OBJECT) && !jv_is(k8s, JV_NULL);
		out->ns = claim(&claims, k8s, "namespace");
		claim_object(&claims, k8s, "serviceaccount", &sa_name, &sa_uid);
		out->name = sa_name;
		out->uid = sa_uid;
		claim_object(&claims, k8s, "pod", &out->pod_name, &out->pod_uid);
		claim_object(&claims, k8s, "secret", &out->secret_name, &out->secret_uid);
		claim_object(&claims, k8s, "node", &out->node_name, &out->node_uid);
		out->warn_after = claim_time(&claims, k8s, "warnafter", &given);
	}
	if (claims.bad) {
		error_free(times);
		return error_status(401, "Unauthorized", "a claim of the token is of another type than it must be");
	}
	if (!n_audiences)
		sa_default_audiences(s, &audiences, &n_audiences);
	none = !out->audiences.n;
	if (!shared_audiences(t, a, audiences, n_audiences, &out->audiences)) {
		error_free(times);
		return error_status(401, "Unauthorized", "token audiences do not include any of those asked for");
	}
	out->no_audience = none;
	return times;
}

static void claim_ref(struct buf *b, const char *key, struct str name, struct str uid)
{
	buf_printf(b, ",\"%s\":{\"name\":", key);
	jv_encode_string(b, name);
	if (uid.n) {
		buf_puts(b, ",\"uid\":");
		jv_encode_string(b, uid);
	}
	buf_putc(b, '}');
}

struct error *sa_token_issue(struct apiserver *s, struct arena *a, const struct sa_claims *c, struct str *token)
{
	struct sa_tokens *t = s->tokens;
	struct buf claims buf_cleanup = {0}, out buf_cleanup = {0}, raw buf_cleanup = {0};

	if (!t->signing)
		return error_status(404, "NotFound", "this API server has no service account signing key");
	buf_printf(&raw, "{\"alg\":\"%s\",\"kid\":\"%s\"}", t->signing_alg, t->signing_id);
	base64url_encode(&out, buf_view(&raw));
	buf_puts(&claims, "{\"aud\":[");
	for (uint32_t i = 0; i < c->audiences.n; i++) {
		if (i)
			buf_putc(&claims, ',');
		jv_encode_string(&claims, c->audiences.v[i]);
	}
	buf_printf(&claims, "],\"exp\":%lld,\"iat\":%lld,\"iss\":", (long long)c->exp, (long long)c->iat);
	jv_encode_string(&claims, t->issuers.v[0]);
	buf_puts(&claims, ",\"jti\":");
	jv_encode_string(&claims, c->jti);
	buf_puts(&claims, ",\"kubernetes.io\":{\"namespace\":");
	jv_encode_string(&claims, c->ns);
	if (c->node_name.n)
		claim_ref(&claims, "node", c->node_name, c->node_uid);
	if (c->pod_name.n)
		claim_ref(&claims, "pod", c->pod_name, c->pod_uid);
	if (c->secret_name.n)
		claim_ref(&claims, "secret", c->secret_name, c->secret_uid);
	claim_ref(&claims, "serviceaccount", c->name, c->uid);
	if (c->warn_after)
		buf_printf(&claims, ",\"warnafter\":%lld", (long long)c->warn_after);
	buf_printf(&claims, "},\"nbf\":%lld,\"sub\":\"system:serviceaccount:%.*s:%.*s\"}", (long long)c->nbf, STR_ARG(c->ns),
		   STR_ARG(c->name));
	buf_putc(&out, '.');
	base64url_encode(&out, buf_view(&claims));
	raw.n = 0;
	if (!jws_sign(t->signing, t->signing_alg, buf_view(&out), &raw))
		return err_internal("signing a service account token failed");
	buf_putc(&out, '.');
	base64url_encode(&out, buf_view(&raw));
	*token = arena_str(a, buf_view(&out));
	return NULL;
}

struct error *sa_openid_configuration(struct apiserver *s, struct arena *a, struct str *out)
{
	struct buf b buf_cleanup = {0}, uri buf_cleanup = {0};
	struct sa_tokens *t = s->tokens;
	static const char *const algs[] = {"ES256", "ES384", "ES512", "RS256"};
	enum { N = sizeof algs / sizeof *algs };
	bool seen[N] = {0};
	bool first = true;

	if (s->o.sa_jwks_uri)
		buf_puts(&uri, s->o.sa_jwks_uri);
	else
		buf_printf(&uri, "https://%s:%d/openid/v1/jwks",
			   s->o.external_hostname ? s->o.external_hostname : s->o.advertise_address, s->port);
	buf_puts(&b, "{\"issuer\":");
	jv_encode_string(&b, t->issuers.v[0]);
	buf_puts(&b, ",\"jwks_uri\":");
	jv_encode_string(&b, buf_view(&uri));
	buf_puts(&b, ",\"response_types_supported\":[\"id_token\"],\"subject_types_supported\":[\"public\"],"
		     "\"id_token_signing_alg_values_supported\":[");
	for (size_t i = 0; i < t->n; i++)
		for (size_t j = 0; j < N; j++)
			seen[j] |= !strcmp(t->keys[i].alg, algs[j]);
	for (size_t j = 0; j < N; j++)
		if (seen[j]) {
			buf_printf(&b, "%s\"%s\"", first ? "" : ",", algs[j]);
			first = false;
		}
	buf_puts(&b, "]}");
	*out = arena_str(a, buf_view(&b));
	return NULL;
}

static void jwk_number(struct buf *b, const char *name, const BIGNUM *n, size_t width)
{
	unsigned char raw[1024];
	size_t len = width ? width : (size_t)BN_num_bytes(n);

	if (len > sizeof raw || BN_bn2binpad(n, raw, (int)len) < 0)
		return;
	buf_printf(b, ",\"%s\":\"", name);
	base64url_encode(b, str_of((char *)raw, len));
	buf_putc(b, '"');
}

struct error *sa_jwks(struct apiserver *s, struct arena *a, struct str *out)
{
	struct buf b buf_cleanup = {0};
	struct sa_tokens *t = s->tokens;

	buf_puts(&b, "{\"keys\":[");
	for (size_t i = 0; i < t->n; i++) {
		struct key *k = &t->keys[i];
		BIGNUM *x = NULL, *y = NULL;

		if (i)
			buf_putc(&b, ',');
		if (k->alg[0] == 'R') {
			EVP_PKEY_get_bn_param(k->pkey, OSSL_PKEY_PARAM_RSA_N, &x);
			EVP_PKEY_get_bn_param(k->pkey, OSSL_PKEY_PARAM_RSA_E, &y);
			buf_printf(&b, "{\"use\":\"sig\",\"kty\":\"RSA\",\"kid\":\"%s\",\"alg\":\"%s\"", k->id, k->alg);
			jwk_number(&b, "n", x, 0);
			jwk_number(&b, "e", y, 0);
		} else {
			size_t w = ec_coord(k->alg);

			EVP_PKEY_get_bn_param(k->pkey, OSSL_PKEY_PARAM_EC_PUB_X, &x);
			EVP_PKEY_get_bn_param(k->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, &y);
			buf_printf(&b, "{\"use\":\"sig\",\"kty\":\"EC\",\"kid\":\"%s\",\"crv\":\"P-%s\",\"alg\":\"%s\"", k->id,
				   w == 32 ? "256" : w == 48 ? "384" : "521", k->alg);
			jwk_number(&b, "x", x, w);
			jwk_number(&b, "y", y, w);
		}
		BN_free(x);
		BN_free(y);
		buf_putc(&b, '}');
	}
	buf_puts(&b, "]}");
	*out = arena_str(a, buf_view(&b));
	return NULL;
}

/* ---- TokenRequest ---- */

#define TOKEN_MIN_S 600
#define TOKEN_MAX_S (1ll << 32)
#define TOKEN_EXTENDED_S (365 * 24 * 3600ll) /* upstream's ExpirationExtensionSeconds */
#define TOKEN_WARN_S (60 * 60 + 7)           /* upstream's WarnOnlyBoundTokenExpirationSeconds */

/* What a token is bound to is looked for by group and kind; what is no GROUP/VERSION has no group. */
static bool core_version(struct str v)
{
	ptrdiff_t slash = str_index(v, '/');

	return slash <= 0 || str_index(str_sub(v, (size_t)slash + 1, v.n), '/') >= 0;
}

static bool binds_to(const struct authentication_v1_bound_object_reference *r, const char *kind)
{
	return str_eqz(r->kind, kind) && core_version(r->api_version);
}

static struct error *bound_object(struct request *rq, const char *plural, struct str ns, struct str name, void **out)
{
	TRY(registry_check_name(rq->a, name));
	*out = registry_peek(rq->s, rq->a, storage_find(rq->s, STR(""), str_from(plural)), ns, name);
	return *out ? NULL : err_not_found(STR(""), str_from(plural), name);
}

/* All of the audiences are this server's. */
static bool for_this_server(struct apiserver *s, const struct strings *audiences)
{
	const struct str *v;
	size_t n;

	sa_default_audiences(s, &v, &n);
	for (uint32_t i = 0; i < audiences->n; i++) {
		bool ours = false;

		for (size_t k = 0; k < n; k++)
			ours |= str_eq(v[k], audiences->v[i]);
		if (!ours)
			return false;
	}
	return true;
}

struct error *rest_token_request(struct request *rq)
{
	struct apiserver *s = rq->s;
	struct arena *a = rq->a;
	const struct schema_type *t = &authentication_v1_token_request_type;
	struct authentication_v1_token_request *tr;
	struct core_v1_service_account *sa;
	struct field_errors fe = {.arena = a};
	struct sa_claims c = {0};
	struct admission ad;
	void *obj;
	struct str token;
	int64_t now = wall_ns() / 1000000000, expiration;
	char jti[37];

	if (!str_eqz(rq->info.verb, "create"))
		return err_method();
	TRY(rest_body(rq, "CreateOptions", t, STR("TokenRequest"), STR("authentication.k8s.io/v1"), (void **)&tr));
	if (tr->metadata.namespace.n && !str_eq(tr->metadata.namespace, rq->info.ns))
		return err_bad_request("the namespace of the provided object does not match the namespace sent on the request");
	if (!tr->spec.expiration_seconds) {
		tr->spec.expiration_seconds = arena_new(a, int64_t);
		*tr->spec.expiration_seconds = 3600;
	}
	tr->kind = STR("TokenRequest");
	tr->api_version = STR("authentication.k8s.io/v1");
	TRY(review_manage_fields(rq, t, tr)); /* of what was asked, not of the answer */
	TRY(admission_admit_body(&ad, rq, t, rq->info.name, tr, NULL));
	if (tr->metadata.name.n && !str_eq(tr->metadata.name, rq->info.name)) {
		field_invalid(&fe, FIELD_CHILD(FIELD_ROOT("metadata"), "name"), tr->metadata.name,
			      "must match the service account name if specified");
		return field_errors_status(&fe, STR("authentication.k8s.io"), STR("TokenRequest"), rq->info.name);
	}
	TRY(registry_get(rq, rq->info.ns, rq->info.name, &obj));
	sa = obj;
	if (tr->metadata.uid.n && !str_eq(tr->metadata.uid, sa->metadata.uid))
		return err_conflict(STR("authentication.k8s.io"), STR("TokenRequest"), rq->info.name,
				    arena_printf(a, "the UID in the token request (%.*s) does not match the UID of the service account (%.*s)",
						 STR_ARG(tr->metadata.uid), STR_ARG(sa->metadata.uid)).p);
	tr->metadata.name = sa->metadata.name;
	tr->metadata.namespace = sa->metadata.namespace;
	tr->metadata.uid = sa->metadata.uid;
	memset(&tr->status, 0, sizeof tr->status);
	if (!tr->spec.audiences.n) {
		const struct str *v;
		size_t n;

		sa_default_audiences(s, &v, &n);
		for (size_t i = 0; i < n; i++)
			*arena_push(a, &tr->spec.audiences) = v[i];
	}
	expiration = *tr->spec.expiration_seconds;
	if (expiration < TOKEN_MIN_S)
		field_invalid_int(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "expirationSeconds"), expiration,
				  "may not specify a duration less than 10 minutes");
	if (expiration > TOKEN_MAX_S)
		field_invalid_int(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "expirationSeconds"), expiration,
				  "may not specify a duration larger than 2^32 seconds");
	TRY(field_errors_status(&fe, STR("authentication.k8s.io"), STR("TokenRequest"), STR_NULL));
	tr->metadata.creation_timestamp = time_now();
	TRY(admission_validate(&ad));
	c.ns = sa->metadata.namespace;
	c.name = sa->metadata.name;
	c.uid = sa->metadata.uid;
	if (tr->spec.bound_object_ref) {
		struct authentication_v1_bound_object_reference *ref = tr->spec.bound_object_ref;
		struct str uid = STR_NULL;

		if (binds_to(ref, "Pod")) {
			struct core_v1_pod *pod;

			TRY(bound_object(rq, "pods", c.ns, ref->name, (void **)&pod));
			if (!str_eq(pod->spec.service_account_name, c.name))
				return err_bad_request("cannot bind token for serviceaccount \"%.*s\" to pod running with different "
						       "serviceaccount name.", STR_ARG(c.name));
			uid = pod->metadata.uid;
			c.pod_name = ref->name;
			c.pod_uid = uid;
			if (pod->spec.node_name.n) {
				struct core_v1_node *node = registry_peek(s, a, storage_find(s, STR(""), STR("nodes")), STR_NULL,
									  pod->spec.node_name);

				c.node_name = pod->spec.node_name;
				c.node_uid = node ? node->metadata.uid : STR_NULL;
			}
		} else if (binds_to(ref, "Secret")) {
			struct core_v1_secret *sec;

			TRY(bound_object(rq, "secrets", c.ns, ref->name, (void **)&sec));
			uid = sec->metadata.uid;
			c.secret_name = ref->name;
			c.secret_uid = uid;
		} else if (binds_to(ref, "Node")) {
			struct core_v1_node *node;

			TRY(bound_object(rq, "nodes", STR_NULL, ref->name, (void **)&node));
			uid = node->metadata.uid;
			c.node_name = ref->name;
			c.node_uid = uid;
		} else {
			return err_bad_request("cannot bind token to object of type %.*s, Kind=%.*s", STR_ARG(ref->api_version),
					       STR_ARG(ref->kind));
		}
		if (ref->uid.n && !str_eq(ref->uid, uid))
			return err_conflict(STR(""), ref->kind, ref->name,
					    arena_printf(a, "the UID in the bound object reference (%.*s) does not match the UID in record. The "
							    "object might have been deleted and then recreated", STR_ARG(ref->uid)).p);
	}
	if (s->o.sa_max_token_expiration_s && expiration > s->o.sa_max_token_expiration_s) {
		request_warn(rq, "requested expiration of %lld seconds shortened to %lld seconds", (long long)expiration,
			     (long long)s->o.sa_max_token_expiration_s);
		expiration = *tr->spec.expiration_seconds = s->o.sa_max_token_expiration_s;
	}
	c.exp = now + expiration;
	if (s->o.sa_extend_expiration && c.pod_name.n && expiration == TOKEN_WARN_S && for_this_server(s, (const struct strings *)(const void *)&tr->spec.audiences)) {
		c.warn_after = c.exp;
		c.exp = now + TOKEN_EXTENDED_S;
	}
	random_uuid(jti);
	c.jti = str_from(jti);
	request_annotate(rq, STR("authentication.kubernetes.io/issued-credential-id"), arena_printf(rq->a, "JTI=%s", jti));
	c.iat = c.nbf = now;
	c.audiences.v = tr->spec.audiences.v;
	c.audiences.n = tr->spec.audiences.n;
	TRY(sa_token_issue(s, a, &c, &token));
	tr->status.token = token;
	tr->status.expiration_timestamp = (struct api_time){.s = now + expiration, .set = true};
	tr->kind = STR("TokenRequest");
	tr->api_version = STR("authentication.k8s.io/v1");
	return respond_struct(rq, 201, t, tr);
}
