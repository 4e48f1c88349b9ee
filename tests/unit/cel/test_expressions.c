/*
 * Expressions and what becomes of them (tests/data/cel/expressions.tsv): type, value, runtime cost and estimated cost are those of
 * upstream's environment at v1.36.
 */
#include "../test.h"
#include "show.h"

static char *read_all(const char *name, size_t *n)
{
	char path[512];
	FILE *f;
	char *p = malloc(1 << 22);

	snprintf(path, sizeof path, "%s/cel/%s", getenv("SKIFF_TEST_DATA"), name);
	f = fopen(path, "r");
	assert_non_null(f);
	*n = fread(p, 1, 1 << 22, f);
	fclose(f);
	return p;
}

static struct str outcome(struct arena *a, const struct cel_env *env, const struct cel_value *vars, struct str expr, struct str want, uint64_t *cost,
			  struct cel_cost *estimate)
{
	struct cel_program *p;
	struct cel_issues issues;
	struct cel_value v;
	struct str type, out;

	if (!cel_compile(a, env, expr, &p, &issues)) {
		struct buf b buf_cleanup = {0};
		/* of syntax errors only the first is reported: upstream goes on */
		buf_putc(&b, '#');
		for (uint32_t i = 0; i < issues.list.n && !issues.instantiation; i++) {
			if (i)
				buf_putc(&b, ',');
			buf_printf(&b, "%u:%u", issues.list.v[i].line, issues.list.v[i].column);
		}
		(void)want;
		return arena_str(a, buf_view(&b));
	}
	*estimate = cel_program_cost(p);
	v = cel_eval(p, vars, a, CEL_PER_CALL_LIMIT, cost);
	type = cel_type_text(a, cel_program_type(p));
	if (v.kind == CEL_ERROR) {
		out = arena_printf(a, "!%.*s", STR_ARG(type));
	} else {
		struct str text = show(a, v);

		out = arena_printf(a, "=%.*s %.*s", STR_ARG(type), STR_ARG(text));
	}
	cel_program_free(p);
	return out;
}

static void test_expressions(void **state)
{
	size_t n, object_n, failed = 0, seen = 0;
	char *text = read_all("expressions.tsv", &n), *object = read_all("object.json", &object_n);
	struct arena keep arena_cleanup = {0};
	struct jv tree;
	struct cel_var vars[] = {{STR("object"), &cel_type_dyn}, {STR("oldObject"), &cel_type_dyn}};
	struct cel_env env = {.vars = vars, .n_vars = 2};
	struct cel_value values[2] = {{0}};
	struct str rest = str_of(text, n);

	(void)state;
	assert_ok(jv_parse(&keep, str_of(object, object_n), NULL, &tree));
	values[0] = cel_from_jv(&keep, &tree, NULL);
	while (rest.p) {
		struct arena a arena_cleanup = {0};
		struct str line = str_cut(&rest, '\n'), cells[5], got;
		struct jv expr;
		uint64_t cost = 0, want_cost = 0, min = 0, max = 0;
		struct cel_cost estimate = {0};

		if (!line.n || line.p[0] == '#')
			continue;
		for (int i = 0; i < 5; i++)
			cells[i] = str_cut(&line, '\t');
		assert_ok(jv_parse(&a, cells[0], NULL, &expr));
		got = outcome(&a, &env, values, jv_str(&expr), cells[1], &cost, &estimate);
		if (cells[2].n) {
			assert_true(str_to_u64(cells[2], &want_cost) && str_to_u64(cells[3], &min) && str_to_u64(cells[4], &max));
		}
		seen++;
		if (!str_eq(got, cells[1]) || cost != want_cost || estimate.min != min || estimate.max != max) {
			failed++;
			print_error("%.*s\n  gives %.*s cost %llu estimate %llu..%llu\n  not   %.*s cost %llu estimate %llu..%llu\n", STR_ARG(cells[0]),
				    STR_ARG(got), (unsigned long long)cost, (unsigned long long)estimate.min, (unsigned long long)estimate.max,
				    STR_ARG(cells[1]), (unsigned long long)want_cost, (unsigned long long)min, (unsigned long long)max);
		}
	}
	free(text);
	free(object);
	assert_true(seen > 1000);
	assert_int_equal(failed, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_expressions)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
