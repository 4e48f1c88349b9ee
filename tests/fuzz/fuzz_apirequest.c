/* What clients send before anybody knows them: paths, queries, Accept headers, bearer tokens. */
#include "apiserver/authn.h"
#include "apiserver/request.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct apiserver s;
	arena_cleanup struct arena a = {0};
	struct str in = str_of((const char *)data, n);

	if (!n)
		return 0;
	in = str_sub(in, 1, n);
	if (!s.tokens)
		FUZZ_OK(sa_tokens_init(&s));
	switch (data[0] % 3) {
	case 0: {
		static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "X"};
		struct request_info i;
		struct query q;
		struct str query = in, path = str_cut(&query, '?');

		query_parse(&a, query, &q);
		FUZZ_CHECK(q.n <= QUERY_PARAMS_MAX);
		request_info_parse(&a, str_from(methods[data[0] / 3 % 7]), path, query, &i);
		FUZZ_CHECK(!i.resource_request || i.api_prefix.n);
		break;
	}
	case 1: {
		struct http_header h = {STR("accept"), in};
		struct http_headers hs = {&h, 1};
		struct query q = {0};
		struct negotiated out = {0};
		enum media_type media;

		struct negotiation want = {.answers = (enum answers)(n % 4), .stream = n & 4, .routed = n & 8, .cbor = n & 16};

		error_free(negotiate_answer(&a, &hs, &q, &want, &out));
		FUZZ_CHECK(out.content_type.n);
		error_free(negotiate_body(&a, in, n % 2, &media));
		break;
	}
	default: {
		struct sa_claims c;
		bool ours;
		struct error *e = sa_token_verify(&s, &a, in, NULL, 0, &ours, &c);

		/* there are no keys: nothing is ever valid */
		FUZZ_CHECK(!ours || e);
		error_free(e);
	}
	}
	return 0;
}
