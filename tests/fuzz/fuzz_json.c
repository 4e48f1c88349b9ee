/* JSON to structs and back: first byte chooses the type. What was decoded encodes to a fixed point. */
#include <stdio.h>
#include <stdlib.h>

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
	struct decode_report report = {.arena = &a};
	void *obj = arena_alloc(&a, t->size), *again = arena_alloc(&a, t->size), *copy = arena_alloc(&a, t->size);
	struct str api_version, kind;

	error_free(object_peek(&a, MEDIA_JSON, in, true, &api_version, &kind));
	struct error *e = json_decode(&a, t, in, &report, obj);

	if (e) {
		error_free(e);
		return 0;
	}
	json_encode(&one, t, obj);
	FUZZ_OK(json_decode(&a, t, buf_view(&one), NULL, again));
	json_encode(&two, t, again);
	/* At the second time nothing changes any more (at the first, 312.5Ki does: see fuzz_quantity.c). */
	again = arena_alloc(&a, t->size);
	FUZZ_OK(json_decode(&a, t, arena_str(&a, buf_view(&two)), NULL, again));
	buf_cleanup struct buf three = {0};

	json_encode(&three, t, again);
	FUZZ_CHECK(str_eq(buf_view(&two), buf_view(&three)));
	object_copy(&a, t, obj, copy);
	FUZZ_CHECK(object_equal(t, obj, copy));
	two.n = 0;
	json_encode(&two, t, copy);
	FUZZ_CHECK(str_eq(buf_view(&one), buf_view(&two)));
	two.n = 0;
	pb_encode(&two, t, obj);
	FUZZ_CHECK(pb_size(t, obj) == two.n);
	return 0;
}
