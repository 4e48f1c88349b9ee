/* Macros: cel-go's parser/macro.go, cel/library.go (optMap), ext/comprehensions.go, ext/lists.go (sortBy). Expanded as upstream does: costs follow. */
#include "cel/ast.h"

struct maker {
	struct arena *a;
	uint32_t pos;
};

static struct node *accu(struct maker *m)
{
	return node_ident(m->a, m->pos, STR(ACCU_NAME));
}

static struct node *yes(struct maker *m, bool b)
{
	return node_const(m->a, m->pos, cel_bool(b));
}

static struct node **pair(struct maker *m, struct node *x, struct node *y)
{
	struct node **v = arena_array(m->a, struct node *, 2);

	v[0] = x;
	v[1] = y;
	return v;
}

static struct node *call1(struct maker *m, const char *name, struct node *x)
{
	struct node **v = arena_array(m->a, struct node *, 1);

	v[0] = x;
	return node_call(m->a, m->pos, str_from(name), v, 1, false);
}

static struct node *member1(struct maker *m, const char *name, struct node *x)
{
	struct node **v = arena_array(m->a, struct node *, 1);

	v[0] = x;
	return node_call(m->a, m->pos, str_from(name), v, 1, true);
}

static struct node *call2(struct maker *m, const char *name, struct node *x, struct node *y)
{
	return node_call(m->a, m->pos, str_from(name), pair(m, x, y), 2, false);
}

static struct node *cond(struct maker *m, struct node *c, struct node *t, struct node *f)
{
	struct node **v = arena_array(m->a, struct node *, 3);

	v[0] = c;
	v[1] = t;
	v[2] = f;
	return node_call(m->a, m->pos, STR("_?_:_"), v, 3, false);
}

static struct node *list1(struct maker *m, struct node *x)
{
	struct node **v = arena_array(m->a, struct node *, 1);

	v[0] = x;
	return node_list(m->a, m->pos, v, 1);
}

static struct node *fold(struct maker *m, struct node *range, struct str iter, struct str iter2, struct str accu_name, struct node *init,
			 struct node *c, struct node *step, struct node *result)
{
	struct node *x = node_new(m->a, NODE_FOLD, m->pos);

	x->fold = arena_new(m->a, struct fold);
	*x->fold = (struct fold){.range = range, .iter = iter, .iter2 = iter2, .accu = accu_name, .init = init, .cond = c, .step = step,
				 .result = result};
	node_measure(x);
	return x;
}

/* A variable over an expression: a comprehension over nothing. */
static struct node *bind(struct maker *m, struct str name, struct node *init, struct node *body)
{
	return fold(m, node_list(m->a, m->pos, NULL, 0), STR("#unused"), STR_NULL, name, init, yes(m, false), node_ident(m->a, m->pos, name), body);
}

static bool simple(const struct node *x, const char *msg, const char **why, uint32_t *at)
{
	if (x->kind != NODE_IDENT) {
		*why = msg;
	} else if (str_eqz(x->name, ACCU_NAME) || str_eqz(x->name, "__result__")) {
		*why = "iteration variable overwrites accumulator variable";
	} else {
		return true;
	}
	*at = x->pos;
	return false;
}

enum quantifier { ALL, EXISTS, EXISTS_ONE };

static struct node *quantifier(struct maker *m, enum quantifier q, struct node *target, struct str v1, struct str v2, struct node *pred)
{
	switch (q) {
	case ALL:
		return fold(m, target, v1, v2, STR(ACCU_NAME), yes(m, true), call1(m, "@not_strictly_false", accu(m)),
			    call2(m, "_&&_", accu(m), pred), accu(m));
	case EXISTS:
		return fold(m, target, v1, v2, STR(ACCU_NAME), yes(m, false), call1(m, "@not_strictly_false", call1(m, "!_", accu(m))),
			    call2(m, "_||_", accu(m), pred), accu(m));
	default:
		return fold(m, target, v1, v2, STR(ACCU_NAME), node_const(m->a, m->pos, cel_int(0)), yes(m, true),
			    cond(m, pred, call2(m, "_+_", accu(m), node_const(m->a, m->pos, cel_int(1))), accu(m)),
			    call2(m, "_==_", accu(m), node_const(m->a, m->pos, cel_int(1))));
	}
}

static struct node *collect(struct maker *m, struct node *target, struct str v1, struct str v2, struct node *filter, struct node *value)
{
	struct node *step = call2(m, "_+_", accu(m), list1(m, value));

	if (filter)
		step = cond(m, filter, step, accu(m));
	return fold(m, target, v1, v2, STR(ACCU_NAME), node_list(m->a, m->pos, NULL, 0), yes(m, true), step, accu(m));
}

static struct node *collect_map(struct maker *m, struct node *target, struct str v1, struct str v2, struct node *filter, struct node *value,
				bool entry)
{
	struct node *step;

	if (entry) {
		step = call2(m, "cel.@mapInsert", accu(m), value);
	} else {
		struct node **v = arena_array(m->a, struct node *, 3);

		v[0] = accu(m);
		v[1] = node_ident(m->a, m->pos, v1);
		v[2] = value;
		step = node_call(m->a, m->pos, STR("cel.@mapInsert"), v, 3, false);
	}
	if (filter)
		step = cond(m, filter, step, accu(m));
	return fold(m, target, v1, v2, STR(ACCU_NAME), node_new(m->a, NODE_MAP, m->pos), yes(m, true), step, accu(m));
}

static bool two_names(struct maker *m, struct node **args, const char **why, uint32_t *at)
{
	if (!simple(args[0], "argument must be a simple name", why, at) || !simple(args[1], "argument must be a simple name", why, at))
		return false;
	if (str_eq(args[0]->name, args[1]->name)) {
		*why = arena_strz(m->a, arena_printf(m->a, "duplicate variable name: %.*s", STR_ARG(args[0]->name)));
		*at = args[1]->pos;
		return false;
	}
	return true;
}

static struct node *receiver(struct maker *m, struct str name, struct node *target, struct node **args, uint32_t n, bool *is,
			     const char **why, uint32_t *at)
{
	static const char *const quantifiers[] = {"all", "exists", "exists_one", "existsOne"};
	static const uint8_t kinds[] = {ALL, EXISTS, EXISTS_ONE, EXISTS_ONE};
	bool transform;

	*is = true;
	for (size_t i = 0; i < 4; i++) {
		if (!str_eqz(name, quantifiers[i]))
			continue;
		if (n == 2 && i < 3) /* existsOne(x, p) is not in upstream's environment */
			return simple(args[0], "argument must be a simple name", why, at) ?
				       quantifier(m, kinds[i], target, args[0]->name, STR_NULL, args[1]) : NULL;
		if (n == 3)
			return two_names(m, args, why, at) ? quantifier(m, kinds[i], target, args[0]->name, args[1]->name, args[2]) : NULL;
	}
	if (str_eqz(name, "map") && (n == 2 || n == 3))
		return simple(args[0], "argument is not an identifier", why, at) ?
			       collect(m, target, args[0]->name, STR_NULL, n == 3 ? args[1] : NULL, args[n - 1]) : NULL;
	if (str_eqz(name, "filter") && n == 2)
		return simple(args[0], "argument is not an identifier", why, at) ?
			       collect(m, target, args[0]->name, STR_NULL, args[1], args[0]) : NULL;
	transform = str_eqz(name, "transformList") || str_eqz(name, "transformMap") || str_eqz(name, "transformMapEntry");
	if (transform && (n == 3 || n == 4)) {
		if (!two_names(m, args, why, at))
			return NULL;
		if (str_eqz(name, "transformList"))
			return collect(m, target, args[0]->name, args[1]->name, n == 4 ? args[2] : NULL, args[n - 1]);
		return collect_map(m, target, args[0]->name, args[1]->name, n == 4 ? args[2] : NULL, args[n - 1],
				   str_eqz(name, "transformMapEntry"));
	}
	if ((str_eqz(name, "optMap") || str_eqz(name, "optFlatMap")) && n == 2) {
		struct node *value, *body;

		if (args[0]->kind != NODE_IDENT) {
			*why = str_eqz(name, "optMap") ? "optMap() variable name must be a simple identifier" :
							 "optFlatMap() variable name must be a simple identifier";
			*at = args[0]->pos;
			return NULL;
		}
		/* each of a chain doubles what comes before it */
		if (target->count > CEL_MAX_NODES / 2) {
			*why = "expression is too large";
			*at = target->pos;
			return NULL;
		}
		value = member1(m, "value", node_copy(m->a, target));
		body = bind(m, args[0]->name, value, args[1]);
		if (str_eqz(name, "optMap"))
			body = call1(m, "optional.of", body);
		return cond(m, member1(m, "hasValue", target), body, node_call(m->a, m->pos, STR("optional.none"), NULL, 0, false));
	}
	if (str_eqz(name, "sortBy") && n == 2) {
		struct str input = STR("@__sortBy_input__");
		struct node *keys;

		if (target->kind != NODE_LIST && target->kind != NODE_SELECT && target->kind != NODE_IDENT && target->kind != NODE_FOLD &&
		    target->kind != NODE_CALL) {
			*why = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
			*at = target->pos;
			return NULL;
		}
		if (!simple(args[0], "argument is not an identifier", why, at))
			return NULL;
		keys = collect(m, node_ident(m->a, m->pos, input), args[0]->name, STR_NULL, NULL, args[1]);
		return bind(m, input, target,
			    node_call(m->a, m->pos, STR("@sortByAssociatedKeys"), pair(m, node_ident(m->a, m->pos, input), keys), 2, true));
	}
	*is = false;
	return NULL;
}

bool cel_expand(struct arena *a, uint32_t pos, struct str name, struct node *target, struct node **args, uint32_t n, struct node **out,
		const char **why, uint32_t *at)
{
	struct maker m = {a, pos};
	bool is;

	*out = NULL;
	if (target) {
		*out = receiver(&m, name, target, args, n, &is, why, at);
		return is;
	}
	if (!str_eqz(name, "has") || n != 1)
		return false;
	if (args[0]->kind != NODE_SELECT) {
		*why = "invalid argument to has() macro";
		*at = args[0]->pos;
		return true;
	}
	*out = node_new(a, NODE_SELECT, pos);
	(*out)->test = true;
	(*out)->name = args[0]->name;
	(*out)->args = args[0]->args;
	(*out)->n = 1;
	node_measure(*out);
	return true;
}
