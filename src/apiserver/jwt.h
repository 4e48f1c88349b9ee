/*
 * apiserver/jwt.h: JSON Web Tokens (RFC 7519) as compact JWS (RFC 7515), and
 * JSON Web Key Sets (RFC 7517), over OpenSSL. Pure: bytes in, keys and trees
 * out; it believes nothing about who signed. RS256/384/512, PS256/384/512,
 * ES256/384/512 only: no "none", no symmetric keys, no encryption.
 */
#ifndef SKIFF_APISERVER_JWT_H
#define SKIFF_APISERVER_JWT_H

#include <openssl/types.h>
#include "schema/jv.h"

#define JWT_MAX (1u << 20)  /* bytes of a token; what a request's header may have is less */
#define JWKS_MAX_KEYS 256   /* more in a set are not looked at */

void base64url_encode(struct buf *b, struct str bytes); /* unpadded */
bool base64url_decode(struct arena *a, struct str text, struct str *out);

struct jws {
	struct str alg, kid;
	struct str signed_part;  /* "HEADER.PAYLOAD", of the token's bytes */
	struct str signature;
	struct str payload_text; /* JSON */
	struct jv payload;       /* an object */
};
/* Splits and decodes; verifies nothing. Everything in `a` or of the token's bytes. Errors say in what it is malformed. */
struct error *jws_parse(struct arena *a, struct str token, struct jws *out);
/* The signature is of this key and algorithm. False too when the algorithm is unknown or the key of another kind. */
bool jws_verify(const struct jws *j, EVP_PKEY *key);
/* Signs with RS256, ES256, ES384 or ES512, which must fit the key. Appends nothing and returns false when OpenSSL fails. */
bool jws_sign(EVP_PKEY *key, const char *alg, struct str signed_part, struct buf *signature);
bool jws_alg_known(struct str alg);

struct jwk_set;
/* Keys of kinds that are not known are skipped; a known one that is malformed is an error. The caller frees. */
struct error *jwk_set_parse(struct arena *a, struct str json, struct jwk_set **out);
void jwk_set_free(struct jwk_set *s); /* NULL is allowed */
size_t jwk_set_size(const struct jwk_set *s);
/* Signed by one of the keys: of those with the token's kid, or of all when it has none. */
bool jwk_set_verify(const struct jwk_set *s, const struct jws *j);

#endif
