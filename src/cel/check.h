/* cel/check.h: the steps of compiling behind the parser. */
#ifndef SKIFF_CEL_CHECK_H
#define SKIFF_CEL_CHECK_H

#include "cel/ast.h"

struct cel_program_info {
	uint64_t uses;    /* variables of the environment referred to, by number; the first 64 */
	uint32_t n_slots; /* variables of comprehensions alive at once */
};
/* check.c: types; false: issues say why. */
bool cel_check(struct arena *a, const struct cel_env *env, struct str source, struct node *x, struct cel_program_info *info,
	       struct cel_issues *issues);
/* cost.c: the estimate (checker/cost.go with Kubernetes' estimator). */
struct cel_cost cel_estimate(const struct cel_env *env, struct node *x);
/* What a call costs when evaluated. */
uint64_t cel_call_cost(struct run *r, const struct node *x, const struct cel_value *args, struct cel_value result);
/* eval.c */
struct cel_value cel_eval_node(struct run *r, const struct node *x);

#endif
