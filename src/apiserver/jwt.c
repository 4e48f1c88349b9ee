/* JWS and JWKS over OpenSSL. */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include "apiserver/jwt.h"
#include "base/log.h"
#include "schema/codec.h"

#define RSA_MIN_BITS 1024 /* Go's crypto/rsa refuses less */
#define RSA_MAX_BITS 16384

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void base64url_encode(struct buf *b, struct str s)
{
	size_t i;

	for (i = 0; i + 3 <= s.n; i += 3) {
		uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16 | (uint32_t)(unsigned char)s.p[i + 1] << 8 | (unsigned char)s.p[i + 2];

		buf_putc(b, alphabet[v >> 18]);
		buf_putc(b, alphabet[v >> 12 & 63]);
		buf_putc(b, alphabet[v >> 6 & 63]);
		buf_putc(b, alphabet[v & 63]);
	}
	if (s.n - i == 1) {
		uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16;

		buf_putc(b, alphabet[v >> 18]);
		buf_putc(b, alphabet[v >> 12 & 63]);
	} else if (s.n - i == 2) {
		uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16 | (uint32_t)(unsigned char)s.p[i + 1] << 8;

		buf_putc(b, alphabet[v >> 18]);
		buf_putc(b, alphabet[v >> 12 & 63]);
		buf_putc(b, alphabet[v >> 6 & 63]);
	}
}

bool base64url_decode(struct arena *a, struct str text, struct str *out)
{
	char *p;
	size_t n = 0;
	uint32_t acc = 0;
	int bits = 0;

	while (text.n && text.p[text.n - 1] == '=')
		text.n--;
	if (text.n % 4 == 1)
		return false;
	p = arena_bytes(a, text.n + 1);
	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];
		int v;

		if (c >= 'A' && c <= 'Z')
			v = c - 'A';
		else if (c >= 'a' && c <= 'z')
			v = c - 'a' + 26;
		else if (c >= '0' && c <= '9')
			v = c - '0' + 52;
		else if (c == '-')
			v = 62;
		else if (c == '_')
			v = 63;
		else
			return false;
		acc = acc << 6 | (uint32_t)v;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			p[n++] = (char)(acc >> bits & 0xff);
		}
	}
	p[n] = 0;
	*out = str_of(p, n);
	return true;
}

/* ---- algorithms ---- */

struct alg {
	const char *name;
	const char *key;      /* OpenSSL's name of the key's kind */
	const char *md;
	size_t coord;         /* EC: bytes of a coordinate */
	bool pss;
};
static const struct alg algs[] = {
	{"RS256", "RSA", "SHA2-256", 0, false}, {"RS384", "RSA", "SHA2-384", 0, false}, {"RS512", "RSA", "SHA2-512", 0, false},
	{"PS256", "RSA", "SHA2-256", 0, true}, {"PS384", "RSA", "SHA2-384", 0, true}, {"PS512", "RSA", "SHA2-512", 0, true},
	{"ES256", "EC", "SHA2-256", 32, false}, {"ES384", "EC", "SHA2-384", 48, false}, {"ES512", "EC", "SHA2-512", 66, false},
};

static const struct alg *alg_find(struct str name)
{
	for (size_t i = 0; i < sizeof algs / sizeof *algs; i++)
		if (str_eqz(name, algs[i].name))
			return &algs[i];
	return NULL;
}

bool jws_alg_known(struct str alg)
{
	return alg_find(alg) != NULL;
}

static bool key_fits(const struct alg *g, EVP_PKEY *k)
{
	if (!EVP_PKEY_is_a(k, g->key))
		return false;
	return !g->coord || (size_t)(EVP_PKEY_get_bits(k) + 7) / 8 == g->coord;
}

/* ECDSA: JWS wants r || s, OpenSSL has DER. */
static bool ecdsa_to_raw(struct str der, size_t coord, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)der.p;
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &p, (long)der.n);
	unsigned char raw[132];
	bool ok;

	if (!sig)
		return false;
	ok = BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, (int)coord) > 0 && BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + coord, (int)coord) > 0;
	ECDSA_SIG_free(sig);
	if (ok)
		buf_append(out, raw, 2 * coord);
	return ok;
}

static bool ecdsa_from_raw(struct str raw, size_t coord, struct buf *out)
{
	ECDSA_SIG *sig;
	BIGNUM *r, *s;
	unsigned char *der = NULL;
	int n;

	if (raw.n != 2 * coord)
		return false;
	sig = ECDSA_SIG_new();
	r = BN_bin2bn((const unsigned char *)raw.p, (int)coord, NULL);
	s = BN_bin2bn((const unsigned char *)raw.p + coord, (int)coord, NULL);
	if (!sig || !r || !s || !ECDSA_SIG_set0(sig, r, s)) {
		BN_free(r);
		BN_free(s);
		ECDSA_SIG_free(sig);
		return false;
	}
	n = i2d_ECDSA_SIG(sig, &der);
	ECDSA_SIG_free(sig);
	if (n <= 0)
		return false;
	buf_append(out, der, (size_t)n);
	OPENSSL_free(der);
	return true;
}

static bool set_padding(EVP_PKEY_CTX *pc, const struct alg *g, bool signing)
{
	if (!g->pss)
		return true;
	/* a signer's salt is as long as the digest (RFC 7518); a verifier takes any, as Go's PSSSaltLengthAuto */
	return EVP_PKEY_CTX_set_rsa_padding(pc, RSA_PKCS1_PSS_PADDING) > 0 &&
	       EVP_PKEY_CTX_set_rsa_pss_saltlen(pc, signing ? RSA_PSS_SALTLEN_DIGEST : RSA_PSS_SALTLEN_AUTO) > 0;
}

bool jws_verify(const struct jws *j, EVP_PKEY *key)
{
	const struct alg *g = alg_find(j->alg);
	struct buf der buf_cleanup = {0};
	struct str sig = j->signature;
	EVP_MD_CTX *c;
	EVP_PKEY_CTX *pc = NULL;
	bool ok;

	if (!g || !key_fits(g, key))
		return false;
	if (g->coord) {
		if (!ecdsa_from_raw(sig, g->coord, &der))
			return false;
		sig = buf_view(&der);
	}
	c = EVP_MD_CTX_new();
	ok = c && EVP_DigestVerifyInit_ex(c, &pc, g->md, NULL, NULL, key, NULL) == 1 && set_padding(pc, g, false) &&
	     EVP_DigestVerify(c, (const unsigned char *)sig.p, sig.n, (const unsigned char *)j->signed_part.p, j->signed_part.n) == 1;
	EVP_MD_CTX_free(c);
	ERR_clear_error();
	return ok;
}

bool jws_sign(EVP_PKEY *key, const char *alg, struct str signed_part, struct buf *signature)
{
	const struct alg *g = alg_find(str_from(alg));
	unsigned char sig[RSA_MAX_BITS / 8];
	size_t n = sizeof sig;
	EVP_MD_CTX *c;
	EVP_PKEY_CTX *pc = NULL;
	bool ok;

	if (!g || !key_fits(g, key))
		return false;
	c = EVP_MD_CTX_new();
	ok = c && EVP_DigestSignInit_ex(c, &pc, g->md, NULL, NULL, key, NULL) == 1 && set_padding(pc, g, true) &&
	     EVP_DigestSign(c, sig, &n, (const unsigned char *)signed_part.p, signed_part.n) == 1;
	EVP_MD_CTX_free(c);
	ERR_clear_error();
	if (!ok)
		return false;
	if (g->coord)
		return ecdsa_to_raw(str_of((const char *)sig, n), g->coord, signature);
	buf_append(signature, sig, n);
	return true;
}

/* ---- tokens ---- */

static struct error *part_json(struct arena *a, struct str part, const char *what, struct str *text, struct jv *out)
{
	struct error *e;

	if (!base64url_decode(a, part, text))
		return error_new("malformed jwt: the %s is not base64url", what);
	e = jv_parse(a, *text, NULL, out);
	if (e)
		return error_wrap(e, "malformed jwt: the %s", what);
	if (out->kind != JV_OBJECT)
		return error_new("malformed jwt: the %s is no JSON object", what);
	return NULL;
}

static struct error *header_text(const struct jv *h, const char *name, struct str *out)
{
	const struct jv *v = jv_get(h, str_from(name));

	*out = jv_str(v);
	return v && !jv_is(v, JV_STRING) && !jv_is(v, JV_NULL) ? error_new("malformed jwt: %s in the header is no string", name) : NULL;
}

/* A chain of certificates (RFC 7515, 4.1.6): nothing trusts it, but upstream takes no token with one that is none. */
static bool chain_ok(struct arena *a, const struct jv *v)
{
	if (!v || jv_is(v, JV_NULL))
		return true;
	if (!jv_is(v, JV_ARRAY))
		return false;
	for (uint32_t i = 0; i < v->n; i++) {
		struct str der;
		X509 *x = NULL;

		if (!jv_is(&v->items[i], JV_STRING) || !base64_decode(a, jv_str(&v->items[i]), &der))
			return false;
		const unsigned char *p = (const unsigned char *)der.p, *end = p + der.n;

		x = d2i_X509(NULL, &p, (long)der.n);
		X509_free(x);
		if (!x || p != end) {
			ERR_clear_error();
			return false;
		}
	}
	return true;
}

static EVP_PKEY *ec_key(struct arena *a, const struct jv *o);

/* The same of a key (RFC 7517), which must be a public one. */
static bool key_ok(struct arena *a, const struct jv *v)
{
	struct str kty = jv_str(jv_get(v, STR("kty"))), bytes;
	EVP_PKEY *k;

	if (!v || jv_is(v, JV_NULL))
		return true;
	if (!jv_is(v, JV_OBJECT) || jv_get(v, STR("d")) || !chain_ok(a, jv_get(v, STR("x5c"))))
		return false;
	if (str_eqz(kty, "OKP"))
		return str_eqz(jv_str(jv_get(v, STR("crv"))), "Ed25519") &&
		       base64url_decode(a, jv_str(jv_get(v, STR("x"))), &bytes) && bytes.n;
	if (str_eqz(kty, "RSA")) /* of any size */
		return base64url_decode(a, jv_str(jv_get(v, STR("n"))), &bytes) && bytes.n &&
		       base64url_decode(a, jv_str(jv_get(v, STR("e"))), &bytes) && bytes.n;
	k = str_eqz(kty, "EC") ? ec_key(a, v) : NULL;
	EVP_PKEY_free(k);
	return k != NULL;
}

struct error *jws_parse(struct arena *a, struct str token, struct jws *out)
{
	struct str rest = token, head, body, text;
	const struct jv *b64;
	struct jv h;

	memset(out, 0, sizeof *out);
	if (str_index(token, '=') >= 0)
		return error_new("malformed jwt: padded");
	if (token.n > JWT_MAX)
		return error_new("malformed jwt: longer than %u bytes", JWT_MAX);
	head = str_cut(&rest, '.');
	body = rest.p ? str_cut(&rest, '.') : STR_NULL;
	if (!rest.p || str_index(rest, '.') >= 0)
		return error_new("malformed jwt: it has not three parts");
	out->signed_part = str_of(token.p, head.n + 1 + body.n);
	TRY(part_json(a, head, "header", &text, &h));
	/* what a header marks critical must be understood (RFC 7515, 4.1.11); nothing is */
	if (jv_get(&h, STR("crit")))
		return error_new("malformed jwt: unsupported critical header");
	b64 = jv_get(&h, STR("b64"));
	if (b64 && !(jv_is(b64, JV_BOOL) && b64->b))
		return error_new("malformed jwt: an unencoded payload");
	TRY(header_text(&h, "alg", &out->alg));
	TRY(header_text(&h, "kid", &out->kid));
	TRY(header_text(&h, "nonce", &text));
	if (!chain_ok(a, jv_get(&h, STR("x5c"))) || !key_ok(a, jv_get(&h, STR("jwk"))))
		return error_new("malformed jwt: x5c or jwk in the header is none");
	TRY(part_json(a, body, "payload", &out->payload_text, &out->payload));
	if (!base64url_decode(a, rest, &out->signature))
		return error_new("malformed jwt: the signature is not base64url");
	return NULL;
}

/* ---- key sets ---- */

struct jwk {
	EVP_PKEY *key;
	char *kid; /* "" where it has none */
};
struct jwk_set {
	struct jwk *v;
	size_t n;
};

void jwk_set_free(struct jwk_set *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++) {
		EVP_PKEY_free(s->v[i].key);
		free(s->v[i].kid);
	}
	free(s->v);
	free(s);
}

size_t jwk_set_size(const struct jwk_set *s)
{
	return s->n;
}

static EVP_PKEY *key_of(const char *type, OSSL_PARAM_BLD *b)
{
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(b);
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *k = NULL;

	if (!params || !c || EVP_PKEY_fromdata_init(c) <= 0 || EVP_PKEY_fromdata(c, &k, EVP_PKEY_PUBLIC_KEY, params) <= 0)
		k = NULL;
	EVP_PKEY_CTX_free(c);
	OSSL_PARAM_free(params);
	ERR_clear_error();
	return k;
}

static EVP_PKEY *rsa_key(struct arena *a, const struct jv *o)
{
	struct str n, e;
	BIGNUM *bn = NULL, *be = NULL;
	OSSL_PARAM_BLD *b = NULL;
	EVP_PKEY *k = NULL;

	if (!base64url_decode(a, jv_str(jv_get(o, STR("n"))), &n) || !base64url_decode(a, jv_str(jv_get(o, STR("e"))), &e) || !e.n ||
	    e.n > 8 || n.n > RSA_MAX_BITS / 8 + 1)
		return NULL;
	bn = BN_bin2bn((const unsigned char *)n.p, (int)n.n, NULL);
	be = BN_bin2bn((const unsigned char *)e.p, (int)e.n, NULL);
	b = OSSL_PARAM_BLD_new();
	if (bn && be && b && BN_num_bits(bn) >= RSA_MIN_BITS && BN_num_bits(bn) <= RSA_MAX_BITS && BN_is_odd(bn) && BN_is_odd(be) &&
	    !BN_is_one(be) && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, bn) && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, be))
		k = key_of("RSA", b);
	OSSL_PARAM_BLD_free(b);
	BN_free(bn);
	BN_free(be);
	return k;
}

static EVP_PKEY *ec_key(struct arena *a, const struct jv *o)
{
	static const struct {
		const char *crv, *group;
		size_t coord;
	} curves[] = {{"P-256", "prime256v1", 32}, {"P-384", "secp384r1", 48}, {"P-521", "secp521r1", 66}};
	struct str crv = jv_str(jv_get(o, STR("crv"))), x, y;
	unsigned char point[1 + 132];

	if (!base64url_decode(a, jv_str(jv_get(o, STR("x"))), &x) || !base64url_decode(a, jv_str(jv_get(o, STR("y"))), &y))
		return NULL;
	for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
		OSSL_PARAM_BLD *b;
		EVP_PKEY *k = NULL;

		if (!str_eqz(crv, curves[i].crv))
			continue;
		if (x.n != curves[i].coord || y.n != curves[i].coord)
			return NULL;
		point[0] = 4;
		memcpy(point + 1, x.p, x.n);
		memcpy(point + 1 + x.n, y.p, y.n);
		b = OSSL_PARAM_BLD_new();
		/* a point that is not on the curve is refused */
		if (b && OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, curves[i].group, 0) &&
		    OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * x.n))
			k = key_of("EC", b);
		OSSL_PARAM_BLD_free(b);
		return k;
	}
	return NULL;
}

struct error *jwk_set_parse(struct arena *a, struct str json, struct jwk_set **out)
{
	struct jv doc;
	const struct jv *keys;
	struct jwk_set *s;

	TRY(jv_parse(a, json, NULL, &doc));
	keys = jv_get(&doc, STR("keys"));
	if (!jv_is(&doc, JV_OBJECT) || (keys && !jv_is(keys, JV_ARRAY) && !jv_is(keys, JV_NULL)))
		return error_new("a JSON Web Key Set is an object with a list of keys");
	s = xcalloc(1, sizeof *s);
	for (uint32_t i = 0; jv_is(keys, JV_ARRAY) && i < keys->n && s->n < JWKS_MAX_KEYS; i++) {
		const struct jv *o = &keys->items[i];
		struct str kty = jv_str(jv_get(o, STR("kty")));
		EVP_PKEY *k;

		if (!str_eqz(kty, "RSA") && !str_eqz(kty, "EC"))
			continue;
		k = str_eqz(kty, "RSA") ? rsa_key(a, o) : ec_key(a, o);
		if (!k) {
			jwk_set_free(s);
			return error_new("key %u is no valid %.*s key", i, STR_ARG(kty));
		}
		s->v = xrealloc(s->v, (s->n + 1) * sizeof *s->v);
		s->v[s->n].key = k;
		s->v[s->n++].kid = str_dupz(jv_str(jv_get(o, STR("kid"))));
	}
	*out = s;
	return NULL;
}

bool jwk_set_verify(const struct jwk_set *s, const struct jws *j)
{
	for (size_t i = 0; i < s->n; i++)
		if ((!j->kid.n || str_eqz(j->kid, s->v[i].kid)) && jws_verify(j, s->v[i].key))
			return true;
	return false;
}
