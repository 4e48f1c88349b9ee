/*
 * Costs: the estimate before evaluation (cel-go's checker/cost.go) and what a call costs when evaluated (interpreter/runtimecost.go), both
 * with Kubernetes' estimator (apiserver/pkg/cel/library/cost.go). The figures are an interface: they decide which rules a CRD may have.
 */
#include <math.h>
#include "cel/check.h"

#define LIST_BASE 10
#define MAP_BASE 30
#define STRUCT_BASE 40
#define TRAVERSAL 0.1
#define REGEX_FACTOR 0.25

typedef struct cel_cost range; /* of sizes and of costs */

static const range unknown = {0, UINT64_MAX};

static uint64_t add_sat(uint64_t x, uint64_t y)
{
	return y > UINT64_MAX - x ? UINT64_MAX : x + y;
}

static uint64_t mul_sat(uint64_t x, uint64_t y)
{
	return y && x > UINT64_MAX / y ? UINT64_MAX : x * y;
}

static uint64_t scale(uint64_t x, double f)
{
	double d = (double)x, c;

	if (d > 0 && f > 0 && d > 18446744073709551615.0 / f)
		return UINT64_MAX;
	c = ceil(d * f);
	return c >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)c;
}

static range fixed(uint64_t n)
{
	return (range){n, n};
}

static range add(range x, range y)
{
	return (range){add_sat(x.min, y.min), add_sat(x.max, y.max)};
}

static range mul(range x, range y)
{
	return (range){mul_sat(x.min, y.min), mul_sat(x.max, y.max)};
}

static range by(range x, double f)
{
	return (range){scale(x.min, f), scale(x.max, f)};
}

static range either(range x, range y)
{
	return (range){x.min < y.min ? x.min : y.min, x.max > y.max ? x.max : y.max};
}

/* ---- estimate ---- */

struct entry { /* sizes of keys and values of a list or map */
	bool has;
	uint8_t kind;
	range key, value;
};

struct path {
	bool has;
	const struct cel_type *t; /* NULL: leads nowhere */
};

struct maybe {
	bool has;
	range v;
};

struct local {
	struct str name;
	struct path path;
	struct maybe size;
	struct entry entry;
};

struct coster {
	struct arena *a;
	const struct cel_type *root; /* NULL: sizes are unknown */
	LIST(struct local) locals;
};

static range cost(struct coster *c, struct node *x);

static struct local *local_of(struct coster *c, struct str name)
{
	for (uint32_t i = c->locals.n; i-- > 0;)
		if (str_eq(c->locals.v[i].name, name))
			return &c->locals.v[i];
	return NULL;
}

enum step { STEP_ITEM, STEP_KEY, STEP_FIELD };

static __attribute__((noinline)) struct path step(struct coster *c, struct path p, enum step s, struct str field)
{
	const struct cel_field *f;

	if (!p.has) /* a path of one element is the root, whatever its name */
		return (struct path){true, c->root};
	if (!p.t)
		return p;
	switch (s) {
	case STEP_ITEM:
		p.t = p.t->kind == CEL_LIST || p.t->kind == CEL_MAP ? cel_elem(p.t) : NULL;
		break;
	case STEP_KEY:
		p.t = p.t->kind == CEL_MAP ? cel_key(p.t) : NULL;
		break;
	case STEP_FIELD:
		/* values of anything with a size of their own (attributes of devices) have it under every name */
		if (p.t->kind == CEL_MAP && cel_elem(p.t)->kind == CEL_DYN && cel_elem(p.t) != &cel_type_dyn) {
			p.t = cel_elem(p.t);
			break;
		}
		f = p.t->kind == CEL_OBJECT ? cel_type_field(p.t, field) : NULL;
		p.t = f ? f->type : NULL;
		break;
	}
	return p;
}

static __attribute__((noinline)) struct path path_of(struct coster *c, struct node *x)
{
	if (x->kind == NODE_IDENT) {
		struct local *l = local_of(c, x->name);

		if (l)
			return l->path;
	}
	return (struct path){x->has_path, x->path};
}

static void set_path(struct node *x, struct path p)
{
	x->has_path = p.has;
	x->path = p.t;
}

static struct maybe path_size(struct coster *c, struct path p)
{
	if (!c->root || !p.has || !p.t)
		return (struct maybe){0};
	return (struct maybe){true, {0, p.t->max_size}};
}

static bool scalar(const struct cel_type *t)
{
	switch (t->kind) {
	case CEL_BOOL:
	case CEL_DOUBLE:
	case CEL_DURATION:
	case CEL_INT:
	case CEL_TIMESTAMP:
	case CEL_UINT:
		return true;
	case CEL_OPTIONAL:
		return scalar(cel_elem(t));
	default:
		return false;
	}
}

static __attribute__((noinline)) struct maybe size_of(struct coster *c, struct node *x)
{
	struct maybe m;
	struct local *l;

	if (x->has_size)
		return (struct maybe){true, x->size};
	switch (x->kind) {
	case NODE_CONST:
		return (struct maybe){true, fixed(x->value.kind == CEL_STRING ? cel_runes(cel_str(x->value)) :
						  x->value.kind == CEL_BYTES ? x->value.n : 1)};
	case NODE_LIST:
		return (struct maybe){true, fixed(x->n)};
	case NODE_MAP:
		return (struct maybe){true, fixed(x->n / 2)};
	default:
		break;
	}
	m = path_size(c, path_of(c, x));
	if (m.has) {
		x->has_size = true;
		x->size = m.v;
		return m;
	}
	if (scalar(x->type))
		return (struct maybe){true, fixed(1)};
	l = x->kind == NODE_IDENT ? local_of(c, x->name) : NULL;
	return l ? l->size : (struct maybe){0};
}

static range size_or(struct coster *c, struct node *x)
{
	struct maybe m = size_of(c, x);

	return m.has ? m.v : unknown;
}

static __attribute__((noinline)) struct entry entry_of(struct coster *c, struct node *x)
{
	struct local *l;

	if (x->has_entry)
		return (struct entry){true, x->entry_kind, x->entry_key, x->entry_value};
	l = x->kind == NODE_IDENT ? local_of(c, x->name) : NULL;
	return l ? l->entry : (struct entry){0};
}

static void set_entry(struct node *x, struct entry e)
{
	if (!e.has)
		return;
	x->has_entry = true;
	x->entry_kind = e.kind;
	x->entry_key = e.key;
	x->entry_value = e.value;
}

static void set_size(struct node *x, struct maybe m)
{
	if (m.has) {
		x->has_size = true;
		x->size = m.v;
	}
}

static struct entry both(struct entry x, struct entry y)
{
	if (!x.has || !y.has)
		return (struct entry){0};
	return (struct entry){true, x.kind, either(x.key, y.key), either(x.value, y.value)};
}

static __attribute__((noinline)) void push(struct coster *c, struct str name, struct path p, struct maybe size, struct entry e)
{
	*arena_push(c->a, &c->locals) = (struct local){name, p, size, e};
}

static struct maybe of_key(struct entry e)
{
	return e.has ? (struct maybe){true, e.key} : (struct maybe){0};
}

static struct maybe of_value(struct entry e)
{
	return e.has ? (struct maybe){true, e.value} : (struct maybe){0};
}

/* An argument of a call as the estimators see it. */
struct arg {
	struct node *x;
	struct maybe size;
	struct path path;
};

static struct arg arg_of(struct coster *c, struct node *x)
{
	struct arg g = {x, size_of(c, x), path_of(c, x)};

	if (x->kind == NODE_IDENT && str_eqz(x->name, ACCU_NAME))
		g.path = (struct path){0};
	return g;
}

static range arg_size(struct coster *c, const struct arg *g)
{
	struct maybe m;

	if (g->size.has)
		return g->size.v;
	m = path_size(c, g->path);
	return m.has ? m.v : unknown;
}

/* Sizes of the elements of a list, by its path or (no path) unknown. */
static range element_size(struct coster *c, const struct arg *list)
{
	struct maybe m = {0};

	if (list->path.has)
		m = path_size(c, step(c, list->path, STEP_ITEM, STR_NULL));
	return m.has ? m.v : unknown;
}

static uint64_t int_arg(const struct node *x, uint64_t otherwise)
{
	if (x->kind != NODE_CONST || x->value.kind != CEL_INT)
		return otherwise;
	return x->value.i < 0 ? 0 : (uint64_t)x->value.i;
}

struct estimate {
	range cost;
	struct maybe result;
};

static struct estimate list_call(double factor, range size)
{
	return (struct estimate){add(add(by(size, factor), fixed(1)), fixed(LIST_BASE)), {true, size}};
}

static range regex_cost(range str, range pattern)
{
	return mul(by(add(str, fixed(1)), TRAVERSAL), by(pattern, REGEX_FACTOR));
}

/* bounds of what replace() makes; see upstream for the reasoning */
static range replaced(range sz, range what, range with)
{
	range count = {0, 0}, kept = {0, 0};

	if (what.min == 0) {
		count.max = add_sat(sz.max, 1);
		kept.max = sz.max;
	} else if (with.max <= what.min) {
		kept.max = sz.max;
	} else {
		count.max = (uint64_t)fmin(ceil((double)sz.max / (double)what.min), 18446744073709549568.0);
	}
	if (what.max == 0) {
		count.min = add_sat(sz.min, 1);
		kept.min = sz.min;
	} else if (what.max <= with.min) {
		kept.min = sz.min;
	} else {
		count.min = (uint64_t)ceil((double)sz.min / (double)what.max);
	}
	return add(mul(count, with), kept);
}

/* Kubernetes' estimator. `g` are the arguments without the receiver, `t` the receiver or NULL. */
static __attribute__((noinline)) bool named_cost(struct coster *c, const struct overload *o, const struct arg *t, const struct arg *g, uint32_t n, struct estimate *out)
{
	range sz, s;
	uint8_t k;

	switch (o->cost) {
	case COST_CHECK:
		out->cost = fixed(350000);
		return true;
	case COST_SELECTOR:
		sz = arg_size(c, &g[0]);
		out->cost = add(add(fixed(LIST_BASE), by(sz, TRAVERSAL)), by(by(sz, .5), LIST_BASE + STRUCT_BASE));
		return true;
	case COST_LIST_TRAVERSE:
		k = t->x->type->kind;
		if (k == CEL_LIST || k == CEL_MAP || k == CEL_OPTIONAL) {
			const struct cel_type *e = k == CEL_MAP ? cel_key(t->x->type) : cel_elem(t->x->type);
			range each = fixed(1);

			if (e->kind == CEL_STRING || e->kind == CEL_BYTES)
				each = add(each, by(element_size(c, t), TRAVERSAL));
			out->cost = mul(arg_size(c, t), each);
		} else {
			out->cost = by(arg_size(c, t), TRAVERSAL);
		}
		return true;
	case COST_STRING:
		sz = arg_size(c, t ? t : &g[0]);
		out->cost = by(sz, TRAVERSAL);
		out->result = (struct maybe){true, sz};
		return true;
	case COST_PARSE:
		out->cost = by(arg_size(c, &g[0]), TRAVERSAL);
		return true;
	case COST_CANONICAL:
		out->cost = by(arg_size(c, &g[0]), 2 * TRAVERSAL);
		return true;
	case COST_REPLACE:
		sz = arg_size(c, t);
		out->cost = by(sz, 2 * TRAVERSAL);
		out->result = (struct maybe){true, replaced(sz, arg_size(c, &g[0]), arg_size(c, &g[1]))};
		return true;
	case COST_SPLIT:
		sz = arg_size(c, t);
		out->cost = by(sz, 2 * TRAVERSAL);
		out->result = (struct maybe){true, {0, sz.max}};
		if (n > 1 && g[1].x->kind == NODE_CONST && g[1].x->value.kind == CEL_INT)
			out->result.v.max = (uint64_t)g[1].x->value.i;
		return true;
	case COST_JOIN: {
		range l = arg_size(c, t), between;

		sz = t->x->type->kind == CEL_LIST ? mul(l, element_size(c, t)) : (range){0, 0};
		if (n > 0) {
			between = (range){l.min ? l.min - 1 : 0, l.max ? l.max - 1 : 0};
			sz = add(sz, mul(arg_size(c, &g[0]), between));
		}
		out->cost = by(sz, TRAVERSAL);
		out->result = (struct maybe){true, sz};
		return true;
	}
	case COST_FIND:
		sz = arg_size(c, t);
		out->cost = regex_cost(sz, arg_size(c, &g[0]));
		out->result = (struct maybe){true, {0, sz.max}};
		return true;
	case COST_CONTAINS_IP:
		s = (range){4, 16};
		out->cost = by(add(s, s), TRAVERSAL);
		if (o->parsed_string)
			out->cost = add(out->cost, by(arg_size(c, &g[0]), TRAVERSAL));
		return true;
	case COST_CONTAINS_CIDR:
		s = (range){4, 16};
		out->cost = add(add(by(add(s, s), TRAVERSAL), by(s, TRAVERSAL)), fixed(1));
		if (o->parsed_string)
			out->cost = add(out->cost, by(arg_size(c, &g[0]), TRAVERSAL));
		return true;
	case COST_VALIDATE:
		out->cost = by(by(arg_size(c, &g[0]), TRAVERSAL), 128 * REGEX_FACTOR);
		return true;
	default:
		return false;
	}
}

/* == between Kubernetes' own types, by their static type */
static bool equality_cost(const struct arg *x, const struct arg *y, range *out)
{
	const struct cel_type *t = x->x->type;

	if (!cel_type_equal(t, y->x->type))
		return false;
	if (t == &cel_type_ip || t == &cel_type_cidr || t == &cel_type_quantity || t == &cel_type_authorizer || t == &cel_type_path_check ||
	    t == &cel_type_group_check || t == &cel_type_resource_check || t == &cel_type_decision || t == &cel_type_semver) {
		*out = fixed(1);
		return true;
	}
	if (t == &cel_type_format) {
		*out = by((range){1, 64}, TRAVERSAL);
		return true;
	}
	if (t == &cel_type_url) {
		*out = by((range){1, y->size.has ? y->size.v.max : 1}, TRAVERSAL);
		return true;
	}
	return false;
}

static __attribute__((noinline)) struct estimate function_cost(struct coster *c, struct node *x, const struct overload *o, const struct arg *t, const struct arg *g, uint32_t n,
				     const range *costs)
{
	struct estimate e = {0};
	range sum = {0, 0}, l, r, z;

	for (uint32_t i = 0; i < n; i++)
		sum = add(sum, costs[i]);
	switch (o->cost) {
	case COST_SETS:
	case COST_SETS_TWICE:
		e.cost = add(by(mul(arg_size(c, &g[0]), arg_size(c, &g[1])), o->cost == COST_SETS ? 1 : 2), fixed(1));
		e.cost = add(e.cost, sum);
		return e;
	case COST_SLICE:
		z = arg_size(c, t);
		e = list_call(1, fixed(int_arg(g[1].x, z.max) - int_arg(g[0].x, 0)));
		e.cost = add(e.cost, sum);
		return e;
	case COST_RANGE:
		e = list_call(1, fixed(int_arg(g[0].x, UINT64_MAX)));
		e.cost = add(e.cost, sum);
		return e;
	case COST_REVERSE:
		e = list_call(1, arg_size(c, t));
		e.cost = add(e.cost, sum);
		return e;
	case COST_FLATTEN:
		e = list_call(n ? (double)int_arg(g[0].x, UINT64_MAX) : 1, arg_size(c, t));
		e.cost = add(e.cost, sum);
		return e;
	case COST_DISTINCT:
		z = arg_size(c, t);
		e = list_call(2, mul(z, z));
		e.cost = add(e.cost, sum);
		return e;
	case COST_SORT:
	case COST_SORT_BY: {
		uint8_t k = cel_elem(o->args[o->cost == COST_SORT ? 0 : 1])->kind;

		z = arg_size(c, o->cost == COST_SORT ? t : &g[0]);
		e = list_call(k == CEL_STRING || k == CEL_BYTES ? 2.0 + TRAVERSAL : 2, mul(z, z));
		e.cost = add(e.cost, sum);
		return e;
	}
	default:
		break;
	}
	if (named_cost(c, o, t, g, n, &e)) {
		e.cost = add(e.cost, sum);
		return e;
	}
	switch (o->cost) {
	case COST_FORMAT:
		e.cost = add(by(t->size.has ? t->size.v : unknown, TRAVERSAL), sum);
		return e;
	case COST_TO_BYTES:
	case COST_FROM_BYTES:
	case COST_QUOTE:
		z = g[0].size.has ? g[0].size.v : unknown;
		e.cost = add(by(z, TRAVERSAL), sum);
		/* these wrap around in upstream, too */
		if (o->cost == COST_TO_BYTES)
			e.result = (struct maybe){true, {z.min, z.max * 4}};
		else if (o->cost == COST_FROM_BYTES)
			e.result = (struct maybe){true, {z.min / 4, z.max}};
		else
			e.result = (struct maybe){true, {z.min + 2, z.max * 2 + 2}};
		return e;
	case COST_AFFIX:
		e.cost = add(by(g[0].size.has ? g[0].size.v : unknown, TRAVERSAL), sum);
		return e;
	case COST_IN_LIST:
		e.cost = add(by(g[1].size.has ? g[1].size.v : unknown, 1), sum);
		return e;
	case COST_MATCHES:
		e.cost = add(regex_cost(t->size.has ? t->size.v : unknown, g[0].size.has ? g[0].size.v : unknown), sum);
		return e;
	case COST_CONTAINS:
		e.cost = add(mul(by(t->size.has ? t->size.v : unknown, TRAVERSAL), by(g[0].size.has ? g[0].size.v : unknown, TRAVERSAL)), sum);
		return e;
	case COST_LOGIC:
		e.cost = (range){costs[0].min, add_sat(costs[0].max, costs[1].max)};
		return e;
	case COST_CONDITIONAL:
		set_entry(x, both(entry_of(c, g[1].x), entry_of(c, g[2].x)));
		e.result = (struct maybe){true, either(size_or(c, g[1].x), size_or(c, g[2].x))};
		e.cost = add(costs[0], either(costs[1], costs[2]));
		return e;
	case COST_ADD_STRING:
	case COST_ADD_LIST:
		z = add(g[0].size.has ? g[0].size.v : unknown, g[1].size.has ? g[1].size.v : unknown);
		set_entry(x, both(entry_of(c, g[0].x), entry_of(c, g[1].x)));
		e.cost = add(o->cost == COST_ADD_LIST ? fixed(1) : by(z, TRAVERSAL), sum);
		e.result = (struct maybe){true, z};
		return e;
	case COST_EQUALS:
		if (equality_cost(&g[0], &g[1], &z)) {
			e.cost = add(z, sum);
			return e;
		}
		/* fall through */
	case COST_COMPARE:
		l = g[0].size.has ? g[0].size.v : unknown;
		r = g[1].size.has ? g[1].size.v : unknown;
		z.max = l.max < r.max ? l.max : r.max;
		z.min = z.max > 0;
		e.cost = add(by(z, TRAVERSAL), sum);
		return e;
	default:
		e.cost = add(fixed(1), sum);
		return e;
	}
}

/* The call itself, its arguments looked at. */
static __attribute__((noinline)) range cost_applied(struct coster *c, struct node *x, struct arg *args, const range *costs)
{
	range sum = {0, 0}, call = {UINT64_MAX, 0};
	struct arg *g = args, *t = NULL;
	struct maybe result = {0};
	uint32_t n = x->n;

	if (x->member) {
		sum = costs[0];
		t = args;
		g = args + 1;
		n--;
	}
	for (uint32_t i = 0; i < x->n_ov; i++) {
		struct estimate e = function_cost(c, x, x->ov[i], t, g, n, costs + x->member);

		call = either(call, e.cost);
		if (e.result.has)
			result = result.has ? (struct maybe){true, either(result.v, e.result.v)} : e.result;
		if (x->ov[i]->cost == COST_INDEX_LIST || x->ov[i]->cost == COST_INDEX_MAP) {
			result = of_value(entry_of(c, x->args[0]));
			set_path(x, step(c, path_of(c, x->args[0]), STEP_ITEM, STR_NULL));
		}
		if (!result.has)
			result = size_of(c, x);
	}
	set_size(x, result);
	return add(sum, call);
}

static __attribute__((noinline)) void same_sizes(struct coster *c, struct node *x, struct node *as)
{
	set_size(x, size_of(c, as));
	set_entry(x, entry_of(c, as));
}

static __attribute__((noinline)) range cost_dyn(struct coster *c, struct node *x)
{
	range inner = cost(c, x->args[0]);

	same_sizes(c, x, x->args[0]);
	return (range){add_sat(inner.min, 1), add_sat(inner.max, 1)};
}

/* Not on the stack: trees are deep. */
struct applied {
	struct arg args[ARGS_MAX];
	range costs[ARGS_MAX];
};

static __attribute__((noinline)) void look(struct coster *c, struct node *x, struct applied *p, uint32_t i)
{
	p->args[i] = arg_of(c, x->args[i]);
}

static __attribute__((noinline)) range cost_call(struct coster *c, struct node *x)
{
	struct applied *p;

	if (str_eqz(x->name, "dyn"))
		return cost_dyn(c, x);
	p = arena_new(c->a, struct applied);
	for (uint32_t i = x->member; i < x->n; i++) {
		p->costs[i] = cost(c, x->args[i]);
		look(c, x, p, i);
	}
	if (x->member) {
		p->costs[0] = cost(c, x->args[0]);
		look(c, x, p, 0);
	}
	return cost_applied(c, x, p->args, p->costs);
}

static __attribute__((noinline)) range cost_list(struct coster *c, struct node *x)
{
	range sum = {0, 0}, v = {x->n ? UINT64_MAX : 0, 0};

	for (uint32_t i = 0; i < x->n; i++) {
		sum = add(sum, cost(c, x->args[i]));
		v = either(v, size_or(c, x->args[i]));
	}
	set_entry(x, (struct entry){true, CEL_LIST, fixed(1), v});
	return add(sum, fixed(LIST_BASE));
}

static __attribute__((noinline)) range cost_map(struct coster *c, struct node *x)
{
	range sum = {0, 0}, k = {x->n ? UINT64_MAX : 0, 0}, v = k;

	for (uint32_t i = 0; i + 1 < x->n; i += 2) {
		sum = add(add(sum, cost(c, x->args[i])), cost(c, x->args[i + 1]));
		k = either(k, size_or(c, x->args[i]));
		v = either(v, size_or(c, x->args[i + 1]));
	}
	set_entry(x, (struct entry){true, CEL_MAP, k, v});
	return add(sum, fixed(MAP_BASE));
}

static __attribute__((noinline)) range cost_select(struct coster *c, struct node *x)
{
	range sum = cost(c, x->args[0]);

	if (x->test) /* has() is free */
		return sum;
	if (x->args[0]->type->kind == CEL_MAP || x->args[0]->type->kind == CEL_OBJECT)
		sum = add(sum, fixed(1));
	set_path(x, step(c, path_of(c, x->args[0]), STEP_FIELD, x->name));
	return sum;
}

static __attribute__((noinline)) range cost_ident(struct coster *c, struct node *x)
{
	struct local *l = local_of(c, x->name);

	set_path(x, l ? l->path : (struct path){true, c->root});
	return fixed(1);
}

static __attribute__((noinline)) range cost_struct(struct coster *c, struct node *x)
{
	range sum = fixed(STRUCT_BASE);

	for (uint32_t i = 0; i < x->n; i++)
		sum = add(sum, cost(c, x->args[i]));
	return sum;
}

static __attribute__((noinline)) range cost_fold(struct coster *c, struct node *x)
{
	struct fold *f = x->fold;
	range sum = cost(c, f->range), loop, size;
	struct entry e;
	uint8_t container;
	struct path p;

	sum = add(sum, cost(c, f->init));
	push(c, f->accu, path_of(c, f->init), size_of(c, f->init), entry_of(c, f->init));
	if (f->bind && !str_eqz(f->accu, "__result__")) {
		sum = add(sum, cost(c, f->result));
		c->locals.n--;
		same_sizes(c, x, f->result);
		return sum;
	}
	e = entry_of(c, f->range);
	container = e.has ? e.kind : f->range->type->kind;
	p = path_of(c, f->range);
	if (f->iter2.n) {
		struct path keys = container == CEL_LIST ? (p.has ? (struct path){true, NULL} : (struct path){true, c->root}) :
							   step(c, p, STEP_KEY, STR_NULL);

		push(c, f->iter, keys, of_key(e), (struct entry){0});
		push(c, f->iter2, step(c, p, STEP_ITEM, STR_NULL), of_value(e), (struct entry){0});
	} else if (container == CEL_LIST) {
		push(c, f->iter, step(c, p, STEP_ITEM, STR_NULL), of_value(e), (struct entry){0});
	} else {
		push(c, f->iter, step(c, p, STEP_KEY, STR_NULL), of_key(e), (struct entry){0});
	}
	loop = cost(c, f->cond);
	loop = add(cost(c, f->step), loop);
	c->locals.n -= f->iter2.n ? 2 : 1;
	sum = add(sum, cost(c, f->result));
	c->locals.n--;
	size = size_or(c, f->range);
	sum = add(sum, mul(size, loop));
	if (f->init->kind == NODE_CONST) {
		set_size(x, size_of(c, f->init));
	} else if (f->init->kind == NODE_LIST || f->init->kind == NODE_MAP) {
		set_size(x, (struct maybe){true, size});
		set_entry(x, entry_of(c, f->step));
	}
	return sum;
}

static range cost(struct coster *c, struct node *x)
{
	switch (x->kind) {
	case NODE_IDENT:
		return cost_ident(c, x);
	case NODE_SELECT:
		return cost_select(c, x);
	case NODE_CALL:
		return cost_call(c, x);
	case NODE_LIST:
		return cost_list(c, x);
	case NODE_MAP:
		return cost_map(c, x);
	case NODE_STRUCT:
		return cost_struct(c, x);
	case NODE_FOLD:
		return cost_fold(c, x);
	default:
		return (range){0, 0};
	}
}

struct cel_cost cel_estimate(const struct cel_env *env, struct node *x)
{
	struct arena scratch arena_cleanup = {0};
	struct coster c = {.a = &scratch, .root = env->sizes};

	return cost(&c, x);
}

/* ---- evaluation ---- */

static uint64_t up(double d)
{
	return (uint64_t)ceil(d);
}

static uint64_t traversal(struct arena *a, struct cel_value v)
{
	uint64_t sum = 0;
	uint32_t n;

	switch (v.kind) {
	case CEL_STRING:
	case CEL_BYTES:
		return (uint64_t)((double)v.n * TRAVERSAL);
	case CEL_LIST: {
		const struct cel_value *items = cel_items(a, v);

		n = cel_size(v);
		for (uint32_t i = 0; i < n; i++)
			sum += traversal(a, items[i]);
		return sum;
	}
	case CEL_MAP:
	case CEL_OBJECT:
		n = cel_size(v);
		for (uint32_t i = 0; i < n; i++) {
			struct cel_value value, key = cel_map_at(a, v, i, &value);

			sum += traversal(a, key) + traversal(a, value);
		}
		return sum;
	default:
		return 1;
	}
}

static bool own_type(struct cel_value v)
{
	return v.kind == CEL_OPAQUE;
}

static uint64_t self_compare(struct arena *a, struct cel_value list)
{
	uint64_t n = cel_size(list);
	double f = 2;

	if (n) {
		struct cel_value first = cel_at(a, list, 0);

		if (first.kind == CEL_STRING || first.kind == CEL_BYTES)
			f += TRAVERSAL;
	}
	return (uint64_t)((double)(n * n) * f) + 1 + LIST_BASE;
}

uint64_t cel_call_cost(struct run *r, const struct node *x, const struct cel_value *v, struct cel_value result)
{
	const struct overload *o = x->ov[0];
	uint8_t family = o->cost;
	bool parsed = x->n_ov == 1 && o->parsed_string;
	uint64_t n, m;
	double product;

	/* several overloads: only what goes by the function's name is known */
	if (x->n_ov > 1 && family > COST_NAMED_LAST)
		return 1;
	switch (family) {
	case COST_CHECK:
		return 350000;
	case COST_SELECTOR:
		n = cel_actual_size(v[1], false);
		return LIST_BASE + up((double)n * TRAVERSAL) + up((double)up((double)n * .5) * (LIST_BASE + STRUCT_BASE));
	case COST_LIST_TRAVERSE:
		return traversal(r->a, v[0]);
	case COST_STRING:
	case COST_PARSE:
		return up((double)cel_actual_size(v[0], false) * TRAVERSAL);
	case COST_REPLACE:
	case COST_SPLIT:
	case COST_CANONICAL:
		return up((double)cel_actual_size(v[0], false) * 2 * TRAVERSAL);
	case COST_JOIN:
		return up((double)cel_actual_size(result, false) * 2 * TRAVERSAL);
	case COST_FIND:
		return up((1.0 + (double)cel_actual_size(v[0], false)) * TRAVERSAL) * up((double)cel_actual_size(v[1], false) * REGEX_FACTOR);
	case COST_CONTAINS_IP:
	case COST_CONTAINS_CIDR:
		n = cel_actual_size(v[0], false);
		m = up((double)(n + n) * TRAVERSAL);
		if (family == COST_CONTAINS_CIDR)
			m += up((double)n * TRAVERSAL) + 1;
		return m + (parsed ? up((double)cel_actual_size(v[1], false) * TRAVERSAL) : 0);
	case COST_VALIDATE:
		if (!cel_is_opaque(v[0], &cel_type_format))
			return 1;
		return up((1.0 + (double)cel_actual_size(v[1], false)) * TRAVERSAL) * up((double)cel_format_regex_size(v[0]) * REGEX_FACTOR);
	case COST_AFFIX:
	case COST_TO_BYTES:
	case COST_FROM_BYTES:
	case COST_QUOTE:
	case COST_FORMAT:
		return up((double)cel_actual_size(v[0], true) * TRAVERSAL);
	case COST_IN_LIST:
		return cel_actual_size(v[1], true);
	case COST_EQUALS:
		if (own_type(v[0]))
			return 1;
		/* fall through */
	case COST_COMPARE:
		n = cel_actual_size(v[0], true);
		m = cel_actual_size(v[1], true);
		return up((double)(n < m ? n : m) * TRAVERSAL);
	case COST_ADD_STRING:
		return up((double)(cel_actual_size(v[0], true) + cel_actual_size(v[1], true)) * TRAVERSAL);
	case COST_MATCHES:
		return up((1.0 + (double)cel_actual_size(v[0], true)) * TRAVERSAL) * up((double)cel_actual_size(v[1], true) * REGEX_FACTOR);
	case COST_CONTAINS:
		return up((double)cel_actual_size(v[0], true) * TRAVERSAL) * up((double)cel_actual_size(v[1], true) * TRAVERSAL);
	case COST_SETS:
	case COST_SETS_TWICE:
		return 1 + (uint64_t)((double)(cel_actual_size(v[0], false) * cel_actual_size(v[1], false)) * (family == COST_SETS ? 1 : 2));
	case COST_SLICE:
	case COST_RANGE:
	case COST_REVERSE:
		return cel_actual_size(result, false) + 1 + LIST_BASE;
	case COST_FLATTEN:
		product =
			(double)cel_actual_size(v[0], false) * (x->n == 2 && v[1].kind == CEL_INT ? (double)v[1].i : 1);
		return (product >= 0x1p63 ? 1ull << 63 : (uint64_t)product) + 1 + LIST_BASE;
	case COST_DISTINCT:
	case COST_SORT:
		return self_compare(r->a, v[0]);
	case COST_SORT_BY:
		return self_compare(r->a, v[1]);
	default:
		return 1;
	}
}
