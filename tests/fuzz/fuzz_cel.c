/* Expressions: an expression, and behind a zero byte an object it is evaluated over. Costs keep within their limit. */
#include "cel/cel.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	struct str in = str_of((const char *)data, n), expr = str_cut(&in, 0);
	struct cel_var vars[] = {{STR("object"), &cel_type_dyn}, {STR("s"), &cel_type_string}, {STR("l"), &cel_type_list_dyn}};
	struct cel_env env = {.vars = vars, .n_vars = 3, .patch_types = true, .sizes = &cel_type_list_dyn};
	struct cel_value values[3], v;
	struct cel_program *p;
	struct cel_issues issues;
	struct jv tree = {0};
	struct error *e;
	uint64_t cost;

	if (n > 20000)
		return 0;
	e = in.n ? jv_parse(&a, in, NULL, &tree) : NULL;
	error_free(e);
	values[0] = cel_from_jv(&a, e ? NULL : &tree, NULL);
	values[1] = cel_string(STR("a string"));
	values[2] = cel_list(values, 2);
	if (!cel_compile(&a, &env, expr, &p, &issues)) {
		FUZZ_CHECK(issues.list.n > 0);
		FUZZ_CHECK(cel_issues_text(&a, expr, &issues).n > 0);
		return 0;
	}
	v = cel_eval(p, values, &a, 20000, &cost);
	FUZZ_CHECK(cost <= 20000 || (v.kind == CEL_ERROR && cel_error_is_cost(v)));
	if (v.kind != CEL_ERROR) {
		error_free(cel_to_jv(&a, v, &tree));
		(void)cel_equal(&a, v, v);
	}
	cel_program_free(p);
	return 0;
}
