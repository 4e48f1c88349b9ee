/* JSONPath of printer columns: "PATH\n" and then the JSON that it is looked up in, which it leaves as it was. */
#include "schema/json_path.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	struct str rest = arena_str(&a, str_of((const char *)data, n)), text = str_cut(&rest, '\n');
	const struct json_path *p = json_path_new(&a, text);
	struct jv v = {0}, before;
	struct error *e;

	if (!p)
		return 0;
	e = jv_parse(&a, rest, NULL, &v);
	if (e) {
		error_free(e);
		return 0;
	}
	before = jv_copy_all(&a, &v);
	json_path_first(&a, p, &v);
	FUZZ_CHECK(jv_equal(&v, &before));
	return 0;
}
