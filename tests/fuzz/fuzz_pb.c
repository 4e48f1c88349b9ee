/* Protobuf to structs and back: first byte chooses the type. */
#include "schema/codec.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf one = {0}, two = {0};

	if (!n)
		return 0;
	const struct schema_type *t = api_types[data[0] % n_api_types];
	struct str in = arena_str(&a, str_of((const char *)data + 1, n - 1));
	void *obj = arena_alloc(&a, t->size), *again = arena_alloc(&a, t->size);
	struct pb_envelope env;

	error_free(pb_envelope_decode(in, &env));
	bool verbatim = false;
	struct error *e = pb_decode(&a, t, in, obj), *direct = pb_to_json(&one, t, in, STR("v1"), STR("<Kind>"), &verbatim);

	FUZZ_CHECK(!e == !direct);
	if (e) {
		FUZZ_CHECK(!strcmp(e->message, direct->message) && one.n == 0);
		error_free(e);
		error_free(direct);
		return 0;
	}
	((struct str *)obj)[0] = STR("<Kind>");
	((struct str *)obj)[1] = STR("v1");
	json_encode(&two, t, obj);
	FUZZ_CHECK(str_eq(buf_view(&one), buf_view(&two)));
	one.n = 0;
	FUZZ_OK(pb_to_json(&one, t, in, STR("v1"), STR("<Kind>"), &verbatim));
	FUZZ_CHECK(str_eq(buf_view(&one), buf_view(&two)));
	one.n = two.n = 0;
	pb_encode(&one, t, obj);
	FUZZ_OK(pb_decode(&a, t, buf_view(&one), again));
	pb_encode(&two, t, again);
	FUZZ_CHECK(str_eq(buf_view(&one), buf_view(&two)));
	two.n = 0;
	json_encode(&two, t, obj);
	again = arena_alloc(&a, t->size);
	FUZZ_OK(json_decode(&a, t, buf_view(&two), NULL, again));
	return 0;
}
