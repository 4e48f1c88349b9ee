/* Selectors: what parses prints as text that parses to the same. */
#include "fuzz.h"
#include "schema/selector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	const struct selector *s, *again;
	struct str_map labels = {0};

	if (!n)
		return 0;
	struct str in = str_of((const char *)data + 1, n - 1);
	bool fields = data[0] & 1;
	struct error *e = fields ? field_selector_parse(&a, in, &s) : label_selector_parse(&a, in, &s);

	if (e) {
		FUZZ_CHECK(e->status == 400);
		error_free(e);
		return 0;
	}
	struct str text = selector_format(&a, s);

	if (fields) { /* terms are in the order of their text, in which == and = differ: printed once, they are in order */
		FUZZ_OK(field_selector_parse(&a, text, &again));
		text = selector_format(&a, again);
	}
	FUZZ_OK(fields ? field_selector_parse(&a, text, &again) : label_selector_parse(&a, text, &again));
	FUZZ_CHECK(str_eq(text, selector_format(&a, again)));
	str_map_set(&a, &labels, STR("a"), STR("b"));
	FUZZ_CHECK(selector_matches(s, &labels) == selector_matches(again, &labels));
	return 0;
}
