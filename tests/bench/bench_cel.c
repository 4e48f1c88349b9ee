/* Nanoseconds of compiling and evaluating expressions as rules, policies and match conditions have them. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "cel/cel.h"

#define ROUNDS 20000

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static const char object[] =
	"{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\",\"labels\":{\"app\":\"web\",\"team\":\"a\"}},"
	"\"spec\":{\"replicas\":3,\"min\":1,\"max\":5,\"template\":{\"spec\":{\"containers\":[{\"name\":\"c1\",\"image\":\"registry.example/c1:1\"},"
	"{\"name\":\"c2\",\"image\":\"registry.example/c2:2\",\"resources\":{\"limits\":{\"memory\":\"1Gi\"}}},{\"name\":\"c3\",\"image\":\"registry.example/c3:3\"}]}}}}";

static const char *const expressions[] = {
	"object.spec.replicas <= 5",
	"object.spec.min <= object.spec.replicas && object.spec.replicas <= object.spec.max",
	"object.spec.template.spec.containers.all(c, c.image.startsWith('registry.example/'))",
	"object.spec.template.spec.containers.all(c, !has(c.resources) || quantity(c.resources.limits.memory).isLessThan(quantity('2Gi')))",
	"object.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
	"has(object.metadata.labels) && 'team' in object.metadata.labels && object.metadata.labels.team in ['a', 'b', 'c']",
	"object.metadata.?annotations[?'x/y'].orValue('none') == 'none'",
	"object.spec.template.spec.containers.map(c, c.name).join(',') == 'c1,c2,c3'",
	"[1,2,3,4,5,6,7,8,9,10].all(x, [1,2,3,4,5,6,7,8,9,10].exists(y, x == y))",
};

int main(void)
{
	arena_cleanup struct arena a = {0}, keep = {0};
	struct cel_var vars[] = {{STR("object"), &cel_type_dyn}};
	struct cel_env env = {.vars = vars, .n_vars = 1};
	struct cel_value values[1];
	struct jv tree;
	struct error *e = jv_parse(&keep, str_from(object), NULL, &tree);

	if (e) {
		fprintf(stderr, "%s\n", e->message);
		return 1;
	}
	values[0] = cel_from_jv(&keep, &tree, NULL);
	printf("%9s %9s %7s  %s\n", "compile", "evaluate", "cost", "expression");
	for (size_t i = 0; i < sizeof expressions / sizeof *expressions; i++) {
		struct cel_program *p;
		struct cel_issues issues;
		uint64_t cost = 0;
		double from = now_ns(), compile, eval;

		for (int k = 0; k < ROUNDS / 20; k++) {
			arena_reset(&a);
			if (!cel_compile(&a, &env, str_from(expressions[i]), &p, &issues)) {
				struct str s = cel_issues_text(&a, str_from(expressions[i]), &issues);

				fprintf(stderr, "%.*s\n", STR_ARG(s));
				return 1;
			}
			cel_program_free(p);
		}
		compile = (now_ns() - from) / (ROUNDS / 20);
		(void)cel_compile(&a, &env, str_from(expressions[i]), &p, &issues);
		from = now_ns();
		for (int k = 0; k < ROUNDS; k++) {
			struct cel_value v;

			arena_reset(&a);
			v = cel_eval(p, values, &a, CEL_PER_CALL_LIMIT, &cost);
			if (v.kind != CEL_BOOL || !v.b) {
				fprintf(stderr, "%s is not true\n", expressions[i]);
				return 1;
			}
		}
		eval = (now_ns() - from) / ROUNDS;
		printf("%6.0f ns %6.0f ns %7llu  %.90s\n", compile, eval, (unsigned long long)cost, expressions[i]);
		cel_program_free(p);
	}
	return 0;
}
