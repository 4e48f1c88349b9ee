/* Tokens and key sets: whatever comes in, nothing is believed that was not signed; parts stay within the token. */
#include "apiserver/jwt.h"
#include "fuzz.h"

static void token(struct arena *a, struct str in, const struct jwk_set *keys)
{
	struct jws j;
	struct error *e = jws_parse(a, in, &j);

	if (e) {
		error_free(e);
		return;
	}
	FUZZ_CHECK(j.payload.kind == JV_OBJECT);
	FUZZ_CHECK(j.signed_part.p == in.p && j.signed_part.n < in.n);
	/* no key signed it */
	FUZZ_CHECK(!jwk_set_verify(keys, &j));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char known[] = "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
				    "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\"}]}"; /* RFC 7517, A.1 */
	arena_cleanup struct arena a = {0};
	struct jwk_set *keys = NULL, *mine = NULL;
	struct str in = str_of((const char *)data, n), decoded;
	struct error *e;

	FUZZ_OK(jwk_set_parse(&a, str_from(known), &keys));
	FUZZ_CHECK(jwk_set_size(keys) == 1);
	e = jwk_set_parse(&a, in, &mine);
	if (!e)
		FUZZ_CHECK(jwk_set_size(mine) <= JWKS_MAX_KEYS);
	error_free(e);
	token(&a, in, keys);
	if (base64url_decode(&a, in, &decoded)) {
		struct buf b buf_cleanup = {0};
		struct str again;

		base64url_encode(&b, decoded);
		FUZZ_CHECK(base64url_decode(&a, buf_view(&b), &again) && str_eq(decoded, again));
	}
	jwk_set_free(mine);
	jwk_set_free(keys);
	return 0;
}
