/* CBOR to JSON is JSON, and comes back through CBOR as the same value. */
#include "schema/jv.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf json = {0}, cbor = {0}, again = {0};
	struct jv one, two;
	struct error *e = cbor_to_json(str_of((const char *)data, n), NULL, &json);

	if (e) {
		error_free(e);
		return 0;
	}
	FUZZ_OK(jv_parse(&a, buf_view(&json), NULL, &one));
	FUZZ_OK(json_to_cbor(buf_view(&json), &cbor));
	FUZZ_OK(cbor_to_json(buf_view(&cbor), NULL, &again));
	FUZZ_OK(jv_parse(&a, buf_view(&again), NULL, &two));
	FUZZ_CHECK(jv_equal(&one, &two));
	return 0;
}
