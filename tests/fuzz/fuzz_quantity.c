/* Quantities, durations and times: canonical text is a fixed point and equal in value. Two texts around a '|'. */
#include "schema/codec.h"
#include "schema/quantity.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	struct str rest = arena_str(&a, str_of((const char *)data, n)), x = str_cut(&rest, '|'), y = rest, cx, cy, again;
	int64_t ns, ns2;
	struct api_time t, t2;

	if (duration_parse(x, &ns))
		FUZZ_CHECK(duration_parse(duration_format(&a, ns), &ns2) && ns == ns2);
	if (time_parse(x, &t) && t.set && t.s > -62167219200LL && t.s < 253402300799LL)
		FUZZ_CHECK(time_parse(time_format(&a, t, true), &t2) && t.s == t2.s && t.ns / 1000 == t2.ns / 1000);
	struct error *e = quantity_canonical(&a, x, &cx);

	if (e) {
		error_free(e);
		return 0;
	}
	FUZZ_OK(quantity_canonical(&a, cx, &again));
	/* A binary text that is no whole Ki loses its format once, as upstream's: 312.5Ki, 320000, 320k. */
	FUZZ_CHECK(quantity_cmp(cx, again) == 0);
	FUZZ_OK(quantity_canonical(&a, again, &cy));
	FUZZ_CHECK(str_eq(again, cy));
	FUZZ_CHECK(quantity_cmp(x, cx) == 0);
	FUZZ_CHECK(quantity_value(x) == quantity_value(cx) && quantity_milli(x) == quantity_milli(cx));
	FUZZ_CHECK(quantity_value(quantity_sub(&a, x, cx)) == 0);
	e = quantity_canonical(&a, y, &cy);
	if (e) {
		error_free(e);
		return 0;
	}
	int c = quantity_cmp(x, y);

	FUZZ_CHECK(c == -quantity_cmp(y, x));
	int64_t vx = quantity_value(x), vy = quantity_value(y), most = INT64_MAX / 2;

	if (c <= 0)
		FUZZ_CHECK(vx <= vy);
	/* A sum beyond int64 is capped when its text is binary, not when it is decimal. */
	if (vx > -most && vx < most && vy > -most && vy < most)
		FUZZ_CHECK(quantity_cmp(quantity_add(&a, x, y), quantity_add(&a, y, x)) == 0);
	return 0;
}
