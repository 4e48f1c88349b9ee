/*
 * Evaluation: a walk over the checked tree, with cel-go's order of evaluation (interpreter/interpretable.go, attributes.go) and its costs
 * (runtimecost.go): a chain of selections costs one for its root and one for each step, but nothing for the root of a chain that is a
 * branch of ?: or an index.
 */
#include "cel/check.h"

static struct cel_value eval(struct run *r, const struct node *x);
static struct cel_value resolve(struct run *r, const struct node *x);

static inline void charge(struct run *r, uint64_t n)
{
	r->cost += n;
	if (r->cost > r->limit)
		r->stopped = true;
}

static struct cel_value stopped(void)
{
	static const struct cel_error_info info = {STR_INIT("operation cancelled: actual cost limit exceeded"), true};

	return (struct cel_value){.kind = CEL_ERROR, .ptr = &info};
}

static bool is_attribute(const struct node *x)
{
	if (x->folded)
		return false;
	switch (x->kind) {
	case NODE_IDENT:
	case NODE_SELECT:
		return true;
	case NODE_CALL:
		return x->op == OP_INDEX || x->op == OP_OPT_INDEX || x->op == OP_OPT_SELECT || x->op == OP_COND;
	default:
		return false;
	}
}

static bool is_step(const struct node *x)
{
	return !x->folded && (x->kind == NODE_SELECT || (x->kind == NODE_CALL && (x->op == OP_INDEX || x->op == OP_OPT_INDEX ||
										   x->op == OP_OPT_SELECT)));
}

/* ---- attributes ---- */

static struct cel_value bool_error(struct run *r, struct cel_value v)
{
	return v.kind == CEL_ERROR ? v : cel_no_overload(r);
}

/* An optional that an attribute resolves to is made anew of its native value. */
static __attribute__((noinline)) struct cel_value optional_anew(struct run *r, struct cel_value v)
{
	struct cel_value *kept = arena_new(r->a, struct cel_value);

	*kept = cel_native(r->a, *(const struct cel_value *)v.ptr);
	return cel_optional(kept);
}

static inline struct cel_value attribute(struct run *r, struct cel_value v)
{
	return v.kind == CEL_OPTIONAL && v.ptr ? optional_anew(r, v) : v;
}

static struct cel_value variable(struct run *r, const struct node *x)
{
	return attribute(r, x->local ? r->locals[x->slot] : r->vars[x->slot]);
}

/* A comprehension's variable may not have its value yet. */
static void start_local(struct run *r, const struct node *x);

static struct cel_value no_such_key(struct run *r, struct cel_value key)
{
	struct str s = cel_show(r->a, key);

	return cel_fail(r, "no such key: %.*s", STR_ARG(s));
}

/* Member or element `key` of obj. 1: *out; 0: absent; -1: *out is an error. */
static __attribute__((noinline)) int qualify(struct run *r, struct cel_value obj, struct cel_value key, struct cel_value *out)
{
	int64_t i;

	switch (obj.kind) {
	case CEL_ERROR:
		*out = obj;
		return -1;
	case CEL_MAP:
	case CEL_OBJECT:
		return cel_find(r->a, obj, key, out);
	case CEL_LIST:
		switch (key.kind) {
		case CEL_INT:
			i = key.i;
			break;
		case CEL_UINT:
			i = key.u > INT64_MAX ? -1 : (int64_t)key.u;
			break;
		case CEL_DOUBLE:
			if (key.d >= -9e15 && key.d <= 9e15 && key.d == (double)(int64_t)key.d) {
				i = (int64_t)key.d;
				break;
			}
			*out = cel_fail(r, "unsupported index value %g in list", key.d);
			return -1;
		default: {
			struct str s = cel_kind_name(key);

			*out = cel_fail(r, "unsupported index type '%.*s' in list", STR_ARG(s));
			return -1;
		}
		}
		if (i < 0 || i >= (int64_t)cel_size(obj))
			return 0;
		*out = cel_at(r->a, obj, (uint32_t)i);
		return out->kind == CEL_ERROR ? -1 : 1;
	default:
		return 0;
	}
}

/* One step of a chain over *obj. False: the chain ends with *obj. */
static __attribute__((noinline)) bool take(struct run *r, const struct node *x, struct cel_value *obj, bool *opt)
{
	struct cel_value key, out = {0};
	bool index = x->kind == NODE_CALL;
	int found;

	if (!index) {
		key = cel_string(x->name);
	} else {
		const struct node *k = x->args[1];

		key = k->kind == NODE_CONST || k->folded ? k->value : is_attribute(k) ? resolve(r, k) : eval(r, k);
		if (x->op != OP_INDEX)
			*opt = true;
		if (r->stopped) {
			*obj = stopped();
			return false;
		}
		if (key.kind == CEL_ERROR || !(key.kind == CEL_STRING || key.kind == CEL_BOOL || key.kind == CEL_INT || key.kind == CEL_UINT ||
					       key.kind == CEL_DOUBLE)) {
			if (!*opt)
				charge(r, 1);
			if (key.kind != CEL_ERROR) {
				struct str s = cel_kind_name(key);

				key = cel_fail(r, "invalid qualifier type: %.*s", STR_ARG(s));
			}
			*obj = key;
			return false;
		}
	}
	found = qualify(r, *obj, key, &out);
	if (*opt) {
		if (found > 0)
			charge(r, 1);
		if (found == 0) {
			*obj = cel_optional(NULL);
			*opt = false;
			return false;
		}
		*obj = out;
		return found > 0;
	}
	charge(r, 1);
	if (x->test) {
		*obj = found < 0 ? out : cel_bool(found > 0);
		return found >= 0;
	}
	if (found == 0) {
		struct str s;

		if (obj->kind != CEL_LIST) {
			*obj = no_such_key(r, key);
		} else {
			s = cel_show(r->a, key);
			*obj = cel_fail(r, "index out of bounds: %.*s", STR_ARG(s));
		}
		return false;
	}
	*obj = out;
	return found > 0;
}

/* The value of a chain, without the cost of its root. */
static __attribute__((noinline)) struct cel_value chain(struct run *r, const struct node *x)
{
	const struct node *base = x, *at;
	uint32_t n = 0;
	struct cel_value v;
	bool opt = false;

	for (; is_step(base); n++)
		base = base->args[0];
	v = is_attribute(base) ? resolve(r, base) : eval(r, base);
	if (v.kind == CEL_ERROR)
		return v;
	if (v.kind == CEL_OPTIONAL) {
		if (!v.ptr)
			return v;
		v = cel_native(r->a, *(const struct cel_value *)v.ptr);
		opt = true;
	}
	while (n) { /* outwards: chains are short, a list of the steps would cost stack at each level */
		at = x;
		for (uint32_t i = 1; i < n; i++)
			at = at->args[0];
		n--;
		if (!take(r, at, &v, &opt) && (v.kind == CEL_ERROR || !opt))
			return v;
	}
	if (opt) {
		struct cel_value *kept = arena_new(r->a, struct cel_value);

		*kept = v;
		return cel_optional(kept);
	}
	return v;
}

/* An attribute's value, its root not paid for. */
static struct cel_value resolve(struct run *r, const struct node *x)
{
	struct cel_value v;
	const struct node *branch;

	if (x->kind == NODE_IDENT) {
		start_local(r, x);
		return variable(r, x);
	}
	if (x->kind != NODE_CALL || x->op != OP_COND)
		return chain(r, x);
	v = eval(r, x->args[0]);
	if (v.kind != CEL_BOOL)
		return bool_error(r, v);
	branch = x->args[v.b ? 1 : 2];
	return is_attribute(branch) ? resolve(r, branch) : attribute(r, eval(r, branch));
}

/* ---- calls ---- */

/* As an overload's guard: of a list only the first element is looked at. */
static bool fits(struct run *r, const struct cel_type *t, struct cel_value v)
{
	const struct cel_type *elem;

	switch (t->kind) {
	case CEL_DYN:
	case CEL_PARAM:
		return true;
	case CEL_LIST:
		elem = cel_elem(t);
		if (v.kind != CEL_LIST || elem->kind == CEL_DYN || elem->kind == CEL_PARAM || !cel_size(v))
			return v.kind == CEL_LIST;
		return fits(r, elem, cel_at(r->a, v, 0));
	case CEL_OBJECT:
	case CEL_OPAQUE:
		return v.kind == CEL_OPAQUE && v.type == t;
	default:
		return v.kind == t->kind;
	}
}

static bool all_fit(struct run *r, const struct overload *o, const struct cel_value *args)
{
	if (o->cost == COST_FLATTEN) /* has no guard */
		return args[0].kind == CEL_LIST && (o->n < 2 || args[1].kind == CEL_INT);
	for (uint32_t k = 0; k < o->n; k++)
		if (!fits(r, o->args[k], args[k]))
			return false;
	return true;
}

/* These are bound to what a value can do, not to the types that the checker settled on (cel-go's singleton bindings).
 */
static bool by_trait(const char *fn)
{
	static const char *const names[] = {"_+_",  "_-_", "_*_",  "_/_",  "_%_",     "-_",   "_<_",
					    "_<=_", "_>_", "_>=_", "size", "matches", "sort", "@sortByAssociatedKeys",
					    "@in"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(fn, names[i]))
			return true;
	return false;
}

static const struct overload *pick(struct run *r, const struct node *x, const struct cel_value *args)
{
	const struct function *f;

	for (uint32_t i = 0; i < x->n_ov; i++)
		if (all_fit(r, x->ov[i], args))
			return x->ov[i];
	if (!by_trait(x->ov[0]->fn))
		return NULL;
	f = cel_function(str_from(x->ov[0]->fn), false);
	for (uint32_t i = 0; i < f->n; i++)
		if (f->ov[i].n == x->n && all_fit(r, &f->ov[i], args))
			return &f->ov[i];
	return NULL;
}

static __attribute__((noinline)) struct cel_value no_overload(struct run *r, const struct node *x, const struct cel_value *args)
{
	struct buf b buf_cleanup = {0};

	for (uint32_t i = x->member; i < x->n; i++) {
		if (i > x->member)
			buf_puts(&b, ", ");
		buf_str(&b, cel_kind_name(args[i]));
	}
	if (x->member) {
		struct str t = cel_kind_name(args[0]);

		return cel_fail(r, "no such overload: %.*s.%.*s(%.*s)", STR_ARG(t), STR_ARG(x->name), STR_ARG(buf_view(&b)));
	}
	return cel_fail(r, "no such overload: %.*s(%.*s)", STR_ARG(x->name), STR_ARG(buf_view(&b)));
}

static __attribute__((noinline)) struct cel_value apply(struct run *r, const struct node *x, const struct cel_value *args,
							const struct cel_value *failed)
{
	struct cel_value native[ARGS_MAX], v;
	const struct overload *o;

	if (failed) {
		v = *failed;
	} else if (x->op == OP_EQ || x->op == OP_NE) {
		enum equality eq = cel_equality(r->a, args[0], args[1]);

		v = x->op == OP_EQ && eq == EQ_FAILED ? cel_no_overload(r) : cel_bool((eq == EQ_YES) == (x->op == OP_EQ));
	} else {
		r->pattern = x->cache;
		if (x->cache && (args[0].kind == CEL_OPTIONAL || args[0].kind == CEL_TYPE)) {
			/* where the pattern is a constant, cel-go asks for a native string */
			native[0] = cel_native(r->a, args[0]);
			for (uint32_t i = 1; i < x->n; i++)
				native[i] = args[i];
			args = native;
		}
		o = pick(r, x, args);
		v = o ? o->impl(r, args, x->n) : no_overload(r, x, args);
	}
	charge(r, cel_call_cost(r, x, args, v));
	return v;
}

/*
 * Arguments are evaluated until one fails. Two of a function that is known when it is planned are both evaluated
 * (cel-go's evalBinary and evalVarArgs).
 */
static bool in_turn(const struct node *x)
{
	const char *id = x->ov[0]->id;

	return x->n > 2 || (x->n_ov > 1 && !by_trait(x->ov[0]->fn)) || !strcmp(id, "string_format") ||
	       (x->cache && x->ov[0]->cost == COST_FIND);
}

static __attribute__((noinline)) struct cel_value call(struct run *r, const struct node *x)
{
	struct cel_value *args = r->top, *top = r->top, v;
	const struct cel_value *failed = NULL;

	if (args + x->n > r->end) /* below a variable that is computed when it is read */
		args = arena_array(r->a, struct cel_value, x->n);
	else
		r->top += x->n;

	for (uint32_t i = 0; i < x->n; i++) {
		args[i] = eval(r, x->args[i]);
		if (args[i].kind == CEL_ERROR && !failed) {
			failed = &args[i];
			if (i + 1 < x->n && in_turn(x)) { /* the others are not evaluated, and nothing is counted */
				r->top = top;
				return r->stopped ? stopped() : args[i];
			}
		}
	}
	if (r->stopped)
		v = stopped();
	else
		v = apply(r, x, args, failed);
	r->top = top;
	return v;
}

static __attribute__((noinline)) struct cel_value logic(struct run *r, const struct node *x, bool or)
{
	struct cel_value err = {0}, v;
	bool failed = false;

	for (uint32_t i = 0; i < x->n; i++) {
		v = eval(r, x->args[i]);
		if (r->stopped)
			return stopped();
		if (v.kind == CEL_BOOL) {
			if (v.b == or)
				return v;
			continue;
		}
		if (!failed)
			err = bool_error(r, v);
		failed = true;
	}
	return failed ? err : cel_bool(!or);
}

static __attribute__((noinline)) struct cel_value or_else(struct run *r, const struct node *x)
{
	struct cel_value v = eval(r, x->args[0]);

	if (v.kind != CEL_OPTIONAL)
		return v;
	if (v.ptr)
		return x->op == OP_OR_VALUE ? *(const struct cel_value *)v.ptr : v;
	return eval(r, x->args[1]);
}

static __attribute__((noinline)) struct cel_value in_set(struct run *r, const struct node *x)
{
	struct cel_value v = eval(r, x->args[0]);

	if (v.kind == CEL_ERROR)
		return v;
	return cel_bool(v.kind != CEL_NULL && v.kind <= CEL_STRING && cel_map_find(x->cache, v));
}

/* ---- literals and comprehensions ---- */

static __attribute__((noinline)) struct cel_value not_optional(struct run *r, struct cel_value v)
{
	struct str s = cel_show(r->a, v);

	return cel_fail(r, "cannot initialize optional element from non-optional value %.*s", STR_ARG(s));
}

static __attribute__((noinline)) struct cel_value list(struct run *r, const struct node *x)
{
	struct cel_value *v = arena_array(r->a, struct cel_value, x->n ? x->n : 1), e;
	uint32_t n = 0;

	for (uint32_t i = 0; i < x->n; i++) {
		e = eval(r, x->args[i]);
		if (e.kind != CEL_ERROR && x->opts && x->opts[i]) {
			if (e.kind != CEL_OPTIONAL)
				e = not_optional(r, e);
			else if (!e.ptr)
				continue;
			else
				e = *(const struct cel_value *)e.ptr;
		}
		if (e.kind == CEL_ERROR) {
			charge(r, 10);
			return e;
		}
		v[n++] = e;
	}
	charge(r, 10);
	return cel_list(v, n);
}

/* Go has no hash for slices of bytes. */
static __attribute__((noinline)) struct cel_value unhashable(struct run *r)
{
	return cel_fail(r, "internal error: runtime error: hash of unhashable type types.Bytes");
}

static __attribute__((noinline)) struct cel_value map(struct run *r, const struct node *x)
{
	struct cel_map *m = cel_map_new(r->a, x->n / 2);
	struct cel_value k, v;

	for (uint32_t i = 0; i + 1 < x->n; i += 2) {
		k = eval(r, x->args[i]);
		if (k.kind == CEL_BYTES)
			k = unhashable(r);
		v = k.kind == CEL_ERROR ? k : eval(r, x->args[i + 1]);
		if (v.kind != CEL_ERROR && x->opts && x->opts[i / 2]) {
			if (v.kind != CEL_OPTIONAL)
				v = not_optional(r, v);
			else if (!v.ptr)
				continue;
			else
				v = *(const struct cel_value *)v.ptr;
		}
		if (v.kind == CEL_ERROR) {
			charge(r, 30);
			return v;
		}
		cel_map_put(r->a, m, k, v);
	}
	charge(r, 30);
	return cel_map_value(m);
}

static __attribute__((noinline)) struct cel_value object(struct run *r, const struct node *x)
{
	struct cel_map *m = cel_map_new(r->a, x->n);
	struct cel_value v;

	for (uint32_t i = 0; i < x->n; i++) {
		v = eval(r, x->args[i]);
		if (v.kind != CEL_ERROR && x->opts && x->opts[i]) {
			if (v.kind != CEL_OPTIONAL)
				v = not_optional(r, v);
			else if (!v.ptr)
				continue;
			else
				v = *(const struct cel_value *)v.ptr;
		}
		if (v.kind != CEL_ERROR && x->type == &cel_type_json_patch && !str_eqz(x->names[i], "value") && v.kind != CEL_STRING)
			v = cel_fail(r, "unexpected type for JSONPatchType '%.*s' field", STR_ARG(x->names[i]));
		if (v.kind == CEL_ERROR) {
			charge(r, 40);
			return v;
		}
		cel_map_put(r->a, m, cel_string(x->names[i]), v);
	}
	charge(r, 40);
	if (x->cache)
		return cel_message_make(r, x->cache, m);
	return (struct cel_value){.kind = CEL_OBJECT, .rep = REP_OBJECT, .ptr = m, .type = x->type};
}

/* The accumulator's first value: computed when it is first read. */
static __attribute__((noinline)) void init_accu(struct run *r, const struct fold *f)
{
	struct cel_value v;

	/* one variable's first use may be in another's: they must not add up to more depth than a tree may have */
	if (r->level + f->init->height > CEL_MAX_DEPTH) {
		r->locals[f->slot] = cel_fail(r, "variables nest too deeply");
		return;
	}
	r->level += f->init->height;
	v = eval(r, f->init);
	r->level -= f->init->height;

	if (!f->bind && v.kind == CEL_LIST && cel_size(v) == 0)
		v = (struct cel_value){.kind = CEL_LIST, .rep = REP_GROWING, .ptr = arena_new(r->a, struct growing)};
	else if (!f->bind && v.kind == CEL_MAP && cel_size(v) == 0)
		v = cel_map_value(cel_map_new(r->a, 0));
	r->locals[f->slot] = v;
}

static __attribute__((noinline)) struct cel_value fold(struct run *r, const struct node *x)
{
	const struct fold *f = x->fold;
	struct cel_value range = eval(r, f->range), v, *slot = &r->locals[f->slot];
	bool is_map = range.kind == CEL_MAP || range.kind == CEL_OBJECT;
	uint32_t n;

	if (range.kind == CEL_ERROR)
		return range;
	if (range.kind != CEL_LIST && !is_map) {
		struct str s = cel_kind_name(range);

		return cel_fail(r, "got '%.*s', expected iterable type", STR_ARG(s));
	}
	*slot = (struct cel_value){.kind = CEL_UNSET, .ptr = f};
	n = cel_size(range);
	for (uint32_t i = 0; i < n; i++) {
		if (is_map) {
			slot[1] = cel_map_at(r->a, range, i, &v);
			slot[2] = v;
		} else if (f->iter2.n) {
			slot[1] = cel_int(i);
			slot[2] = cel_at(r->a, range, i);
		} else {
			slot[1] = cel_at(r->a, range, i);
		}
		v = eval(r, f->cond);
		if (r->stopped)
			return stopped();
		if (v.kind == CEL_BOOL && !v.b)
			break;
		v = eval(r, f->step);
		if (r->stopped)
			return stopped();
		*slot = v;
	}
	v = eval(r, f->result);
	if (v.kind == CEL_LIST && v.rep == REP_GROWING) {
		const struct growing *g = v.ptr;

		return cel_list(g->v, g->n);
	}
	return v;
}

static void start_local(struct run *r, const struct node *x)
{
	if (x->kind == NODE_IDENT && x->local && r->locals[x->slot].kind == CEL_UNSET)
		init_accu(r, r->locals[x->slot].ptr);
}

static struct cel_value eval(struct run *r, const struct node *x)
{
	struct cel_value v;
	const struct node *base;

	if (x->kind == NODE_CONST || x->folded)
		return x->value;
	if (r->stopped)
		return stopped();
	switch (x->kind) {
	case NODE_IDENT:
		start_local(r, x);
		charge(r, 1);
		return variable(r, x);
	case NODE_SELECT:
	attribute:
		v = chain(r, x);
		for (base = x; is_step(base);)
			base = base->args[0];
		if (!base->folded && base->kind == NODE_CALL && base->op == OP_COND) {
			if (x->test)
				r->cost--;
		} else if (!x->test) {
			charge(r, 1);
		}
		if (x->test && v.kind == CEL_OPTIONAL)
			return cel_bool(v.ptr != NULL);
		return v;
	case NODE_LIST:
		return list(r, x);
	case NODE_MAP:
		return map(r, x);
	case NODE_STRUCT:
		return object(r, x);
	case NODE_FOLD:
		return fold(r, x);
	default:
		break;
	}
	switch (x->op) {
	case OP_AND:
		return logic(r, x, false);
	case OP_OR:
		return logic(r, x, true);
	case OP_COND:
		return resolve(r, x);
	case OP_INDEX:
	case OP_OPT_INDEX:
	case OP_OPT_SELECT:
		goto attribute;
	case OP_OR_OPTIONAL:
	case OP_OR_VALUE:
		return or_else(r, x);
	case OP_IN_SET:
		return in_set(r, x);
	case OP_NOT_STRICTLY_FALSE:
		v = eval(r, x->args[0]);
		charge(r, 1);
		return v.kind == CEL_BOOL ? v : cel_bool(true);
	default:
		return call(r, x);
	}
}

struct cel_value cel_eval_node(struct run *r, const struct node *x)
{
	struct cel_value v = eval(r, x);

	return r->stopped ? stopped() : v;
}
