/* The type checker: cel-go's checker.go and types.go. Types of nodes, what calls may be, what names refer to. */
#include "cel/check.h"

#define SCOPES_MAX CEL_MAX_DEPTH

struct binding {
	struct str name;
	const struct cel_type *type;
	uint32_t slot;
};

struct checker {
	struct arena *a;
	const struct cel_env *env;
	struct cel_issues *issues;
	struct str source;
	struct cel_program_info *info;
	/* substitutions of type variables, by their number */
	const struct cel_type **subs;
	uint32_t n_vars, cap_vars;
	/* undo of substitutions */
	struct undo {
		uint32_t var;
		const struct cel_type *was;
	} *undo;
	uint32_t n_undo, cap_undo;
	struct binding scope[SCOPES_MAX * 3];
	uint32_t n_scope;
	uint32_t next_slot;
	LIST(const struct cel_type *) objects; /* Object... types named so far */
};

static void check(struct checker *c, struct node *x);

/* ---- type variables ---- */

static const struct cel_type *new_var(struct checker *c)
{
	struct cel_type *t = arena_new(c->a, struct cel_type);

	if (c->n_vars == c->cap_vars) {
		uint32_t cap = c->cap_vars ? c->cap_vars * 2 : 32;
		const struct cel_type **v = arena_array(c->a, const struct cel_type *, cap);

		if (c->n_vars)
			memcpy(v, c->subs, c->n_vars * sizeof *v);
		c->subs = v;
		c->cap_vars = cap;
	}
	c->subs[c->n_vars] = NULL;
	t->kind = CEL_PARAM;
	t->min_serialized = c->n_vars;
	t->name = arena_printf(c->a, "_var%u", c->n_vars++);
	return t;
}

static const struct cel_type *sub_of(const struct checker *c, const struct cel_type *t)
{
	return t->kind == CEL_PARAM ? c->subs[t->min_serialized] : NULL;
}

static void bind_var(struct checker *c, const struct cel_type *var, const struct cel_type *t)
{
	if (c->n_undo == c->cap_undo) {
		uint32_t cap = c->cap_undo ? c->cap_undo * 2 : 64;
		struct undo *v = arena_array(c->a, struct undo, cap);

		if (c->n_undo)
			memcpy(v, c->undo, c->n_undo * sizeof *v);
		c->undo = v;
		c->cap_undo = cap;
	}
	c->undo[c->n_undo++] = (struct undo){(uint32_t)var->min_serialized, c->subs[var->min_serialized]};
	c->subs[var->min_serialized] = t;
}

static void roll_back(struct checker *c, uint32_t to)
{
	while (c->n_undo > to) {
		c->n_undo--;
		c->subs[c->undo[c->n_undo].var] = c->undo[c->n_undo].was;
	}
}

static bool is_dyn(const struct cel_type *t)
{
	return t->kind == CEL_DYN;
}

static bool dyn_or_error(const struct cel_type *t)
{
	return t->kind == CEL_DYN || t->kind == CEL_ERROR;
}

static const struct cel_type *substitute(struct checker *c, const struct cel_type *t, bool to_dyn)
{
	const struct cel_type *s = sub_of(c, t), *k, *e;

	if (s)
		return substitute(c, s, to_dyn);
	switch (t->kind) {
	case CEL_PARAM:
		return to_dyn ? &cel_type_dyn : t;
	case CEL_LIST:
		e = substitute(c, cel_elem(t), to_dyn);
		return e == cel_elem(t) ? t : cel_type_list_of(c->a, e);
	case CEL_OPTIONAL:
		e = substitute(c, cel_elem(t), to_dyn);
		return e == cel_elem(t) ? t : cel_type_optional_of(c->a, e);
	case CEL_TYPE:
		e = t->elem ? substitute(c, t->elem, to_dyn) : NULL;
		return e == t->elem ? t : cel_type_type_of(c->a, e);
	case CEL_MAP:
		k = substitute(c, cel_key(t), to_dyn);
		e = substitute(c, cel_elem(t), to_dyn);
		return k == cel_key(t) && e == cel_elem(t) ? t : cel_type_map_of(c->a, k, e);
	default:
		return t;
	}
}

static bool less_specific(const struct cel_type *x, const struct cel_type *y)
{
	if (is_dyn(x) || x->kind == CEL_PARAM)
		return true;
	if (is_dyn(y) || y->kind == CEL_PARAM || x->kind != y->kind)
		return false;
	switch (x->kind) {
	case CEL_LIST:
	case CEL_OPTIONAL:
		return less_specific(cel_elem(x), cel_elem(y));
	case CEL_MAP:
		return less_specific(cel_key(x), cel_key(y)) && less_specific(cel_elem(x), cel_elem(y));
	case CEL_TYPE:
		return true;
	default:
		return cel_type_equal(x, y);
	}
}

static const struct cel_type *most_general(const struct cel_type *x, const struct cel_type *y)
{
	return less_specific(x, y) ? x : y;
}

/* t does not occur within w: the occurs check of unification. */
static bool not_within(struct checker *c, const struct cel_type *t, const struct cel_type *w)
{
	const struct cel_type *s;

	if (cel_type_equal(t, w))
		return false;
	switch (w->kind) {
	case CEL_PARAM:
		s = sub_of(c, w);
		return !s || not_within(c, t, s);
	case CEL_LIST:
	case CEL_OPTIONAL:
		return not_within(c, t, cel_elem(w));
	case CEL_TYPE:
		return !w->elem || not_within(c, t, w->elem);
	case CEL_MAP:
		return not_within(c, t, cel_key(w)) && not_within(c, t, cel_elem(w));
	default:
		return true;
	}
}

static bool assignable_in(struct checker *c, const struct cel_type *x, const struct cel_type *y);

static bool valid_substitution(struct checker *c, const struct cel_type *x, const struct cel_type *var, bool *has)
{
	const struct cel_type *s, *next;

	*has = true;
	if (x->kind == var->kind && cel_type_equal(x, var))
		return true;
	s = sub_of(c, var);
	if (s) {
		if (x->kind == s->kind && cel_type_equal(x, s))
			return true;
		if (assignable_in(c, x, s)) {
			next = most_general(x, s);
			if (not_within(c, var, next))
				bind_var(c, var, next);
			return true;
		}
		return false;
	}
	*has = false;
	if (not_within(c, var, x)) {
		bind_var(c, var, x);
		return true;
	}
	return false;
}

static bool nullable(const struct cel_type *t)
{
	return t->wrapper || t->kind == CEL_NULL || t->kind == CEL_OPAQUE || t->kind == CEL_OPTIONAL ||
	       t->kind == CEL_OBJECT || t->kind == CEL_DURATION || t->kind == CEL_TIMESTAMP;
}

static bool assignable_in(struct checker *c, const struct cel_type *x, const struct cel_type *y)
{
	bool has;

	if (y->kind == CEL_PARAM) {
		if (valid_substitution(c, x, y, &has))
			return true;
		if (has)
			return false;
	}
	if (x->kind == CEL_PARAM)
		return valid_substitution(c, y, x, &has);
	if (dyn_or_error(x) || dyn_or_error(y))
		return true;
	if (x->kind == CEL_NULL)
		return nullable(y);
	if (y->kind == CEL_NULL)
		return nullable(x);
	if (x->kind != y->kind)
		return false;
	switch (x->kind) {
	case CEL_TYPE:
		return true;
	case CEL_LIST:
	case CEL_OPTIONAL:
		return assignable_in(c, cel_elem(x), cel_elem(y));
	case CEL_MAP:
		return assignable_in(c, cel_key(x), cel_key(y)) && assignable_in(c, cel_elem(x), cel_elem(y));
	case CEL_OBJECT:
	case CEL_OPAQUE:
		return str_eq(x->name, y->name);
	default:
		return true;
	}
}

static bool assignable(struct checker *c, const struct cel_type *x, const struct cel_type *y)
{
	uint32_t mark = c->n_undo;

	if (assignable_in(c, x, y))
		return true;
	roll_back(c, mark);
	return false;
}

/* ---- errors ---- */

static struct str text_of(struct checker *c, const struct cel_type *t)
{
	return cel_type_shown(c->a, t);
}

#define report(c, pos, ...) cel_issue((c)->a, (c)->issues, (c)->source, pos, __VA_ARGS__)

static void mismatch(struct checker *c, uint32_t pos, const struct cel_type *want, const struct cel_type *got)
{
	struct str w = text_of(c, want), g = text_of(c, got);

	report(c, pos, "expected type '%.*s' but found '%.*s'", STR_ARG(w), STR_ARG(g));
}

static void undeclared(struct checker *c, uint32_t pos, struct str name)
{
	report(c, pos, "undeclared reference to '%.*s' (in container '')", STR_ARG(name));
}

/* ---- names ---- */

static const struct cel_type *object_type(struct checker *c, struct str name)
{
	struct cel_type *t;

	if (!c->env->patch_types)
		return NULL;
	if (str_eqz(name, "JSONPatch"))
		return &cel_type_json_patch;
	if (str_eqz(name, "Object"))
		return &cel_type_object;
	if (!str_has_prefix(name, STR("Object.")))
		return NULL;
	for (uint32_t i = 0; i < c->objects.n; i++)
		if (str_eq(c->objects.v[i]->name, name))
			return c->objects.v[i];
	t = arena_new(c->a, struct cel_type);
	t->kind = CEL_OBJECT;
	t->name = name;
	t->any_field = true;
	*arena_push(c->a, &c->objects) = t;
	return t;
}

/* A name of a type as a value ("int", "list"); its type is type(T). */
static const struct cel_type *type_ident(struct checker *c, struct str name)
{
	static const struct {
		const char *name;
		const struct cel_type *t;
	} known[] = {
		{"bool", &cel_type_bool},      {"bytes", &cel_type_bytes},   {"double", &cel_type_double},
		{"int", &cel_type_int},        {"uint", &cel_type_uint},     {"string", &cel_type_string},
		{"null_type", &cel_type_null}, {"list", &cel_type_list_dyn}, {"map", &cel_type_map_dyn},
		{"type", &cel_type_type},
	};
	static const struct cel_type optional = {.kind = CEL_OPTIONAL};
	const struct cel_message *m = cel_message_find(name);

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (str_eqz(name, known[i].name))
			return known[i].t;
	if (str_eqz(name, "optional_type"))
		return &optional;
	if (str_eqz(name, "net.IP"))
		return &cel_type_ip;
	if (str_eqz(name, "net.CIDR"))
		return &cel_type_cidr;
	return m ? cel_message_type(m) : object_type(c, name);
}

/* Resolves a (qualified) name: the node becomes an identifier with a slot, or a constant. */
static bool resolve(struct checker *c, struct node *x, struct str name)
{
	const struct cel_type *t;

	if (name.n && name.p[0] == '.')
		name = str_sub(name, 1, name.n);
	for (uint32_t i = c->n_scope; i-- > 0;)
		if (str_eq(c->scope[i].name, name)) {
			x->kind = NODE_IDENT;
			x->local = true;
			x->slot = c->scope[i].slot;
			x->type = c->scope[i].type;
			x->name = name;
			return true;
		}
	for (uint32_t i = 0; i < c->env->n_vars; i++)
		if (str_eq(c->env->vars[i].name, name)) {
			x->kind = NODE_IDENT;
			x->local = false;
			x->slot = i;
			x->type = c->env->vars[i].type;
			x->name = c->env->vars[i].name;
			if (i < 64)
				c->info->uses |= 1ull << i;
			return true;
		}
	t = type_ident(c, name);
	if (!t && !str_eqz(name, "google.protobuf.NullValue.NULL_VALUE"))
		return false;
	x->kind = NODE_IDENT;
	x->name = name;
	if (!t) {
		x->type = &cel_type_int;
		x->folded = true;
		x->value = cel_int(0);
		return true;
	}
	x->type = cel_type_type_of(c->a, t);
	x->folded = true;
	x->value = (struct cel_value){.kind = CEL_TYPE, .type = t};
	return true;
}

/* a.b.c as "a.b.c"; false for anything but identifiers and selections. */
static bool qualified(struct checker *c, const struct node *x, struct str *out)
{
	struct str s;

	if (x->kind == NODE_IDENT) {
		*out = x->name;
		return true;
	}
	if (x->kind != NODE_SELECT || x->test || !qualified(c, x->args[0], &s))
		return false;
	*out = arena_printf(c->a, "%.*s.%.*s", STR_ARG(s), STR_ARG(x->name));
	return true;
}

/* Could it be the name of something declared with dots? Saves making the names. */
static bool worth_qualifying(const struct node *x)
{
	while (x->kind == NODE_SELECT && !x->test)
		x = x->args[0];
	return x->kind == NODE_IDENT;
}

static void check_ident(struct checker *c, struct node *x)
{
	if (resolve(c, x, x->name))
		return;
	x->type = &cel_type_error;
	undeclared(c, x->pos, x->name);
}

static const struct cel_type *select_field(struct checker *c, struct node *x, struct node *operand, struct str field, bool optional)
{
	const struct cel_type *t, *result = &cel_type_error;
	const struct cel_field *f;
	bool opt = false;

	check(c, operand);
	t = substitute(c, operand->type, false);
	if (t->kind == CEL_OPTIONAL) {
		opt = true;
		t = substitute(c, cel_elem(t), false);
	}
	switch (t->kind) {
	case CEL_MAP:
		result = cel_elem(t);
		break;
	case CEL_OBJECT:
		f = cel_type_field(t, field);
		if (f)
			result = f->type;
		else if (t->any_field)
			result = &cel_type_dyn;
		else
			report(c, x->pos, "undefined field '%.*s'", STR_ARG(field));
		break;
	case CEL_PARAM:
		assignable(c, &cel_type_dyn, t);
		result = &cel_type_dyn;
		break;
	default:
		if (!dyn_or_error(t)) {
			struct str s = text_of(c, t);

			report(c, x->pos, "type '%.*s' does not support field selection", STR_ARG(s));
		}
		result = &cel_type_dyn;
	}
	return opt || optional ? cel_type_optional_of(c->a, result) : result;
}

static void check_select(struct checker *c, struct node *x)
{
	struct str name;
	const struct cel_type *t;

	if (!x->test && worth_qualifying(x) && qualified(c, x, &name) && resolve(c, x, name))
		return;
	t = select_field(c, x, x->args[0], x->name, false);
	x->type = x->test ? &cel_type_bool : substitute(c, t, false);
}

/* ---- calls ---- */

static const struct cel_type *instantiate(struct checker *c, const struct overload *o, const struct cel_type *t, const struct cel_type *const *fresh)
{
	const struct cel_type *k, *e;

	switch (t->kind) {
	case CEL_PARAM:
		for (uint32_t i = 0; i < o->n_params; i++)
			if (t == o->params[i])
				return fresh[i];
		return t;
	case CEL_LIST:
		e = instantiate(c, o, cel_elem(t), fresh);
		return e == cel_elem(t) ? t : cel_type_list_of(c->a, e);
	case CEL_OPTIONAL:
		e = instantiate(c, o, cel_elem(t), fresh);
		return e == cel_elem(t) ? t : cel_type_optional_of(c->a, e);
	case CEL_TYPE:
		e = instantiate(c, o, cel_elem(t), fresh);
		return e == cel_elem(t) ? t : cel_type_type_of(c->a, e);
	case CEL_MAP:
		k = instantiate(c, o, cel_key(t), fresh);
		e = instantiate(c, o, cel_elem(t), fresh);
		return k == cel_key(t) && e == cel_elem(t) ? t : cel_type_map_of(c->a, k, e);
	default:
		return t;
	}
}

static void no_match(struct checker *c, struct node *x)
{
	struct buf b buf_cleanup = {0};
	struct str s;

	for (uint32_t i = 0; i < x->n; i++) {
		s = text_of(c, substitute(c, x->args[i]->type, true));
		if (i == 0 && x->member) {
			buf_str(&b, s);
			buf_putc(&b, '.');
			buf_putc(&b, '(');
			continue;
		}
		if (i == 0)
			buf_putc(&b, '(');
		else if (!(i == 1 && x->member))
			buf_puts(&b, ", ");
		buf_str(&b, s);
	}
	if (!x->n)
		buf_putc(&b, '(');
	buf_putc(&b, ')');
	report(c, x->pos, "found no matching overload for '%.*s' applied to '%.*s'", STR_ARG(x->name), STR_ARG(buf_view(&b)));
	x->type = &cel_type_error;
}

static void resolve_call(struct checker *c, struct node *x, const struct function *f)
{
	const struct cel_type *result = NULL;
	LIST(const struct overload *) found = {0};

	if (f->ov[0].op == OP_AND || f->ov[0].op == OP_OR) {
		bool bad = false;

		for (uint32_t i = 0; i < x->n; i++)
			if (!assignable(c, x->args[i]->type, &cel_type_bool)) {
				mismatch(c, x->args[i]->pos, &cel_type_bool, substitute(c, x->args[i]->type, false));
				bad = true;
			}
		x->type = bad ? &cel_type_error : &cel_type_bool;
		*arena_push(c->a, &found) = &f->ov[0];
		x->ov = found.v;
		x->n_ov = 1;
		x->op = f->ov[0].op;
		return;
	}
	for (uint32_t i = 0; i < f->n; i++) {
		const struct overload *o = &f->ov[i];
		const struct cel_type *fresh[2] = {0}, *r;
		uint32_t mark = c->n_undo;
		bool fits = true;

		if (o->member != x->member || o->n != x->n)
			continue;
		for (uint32_t k = 0; k < o->n_params; k++)
			fresh[k] = new_var(c);
		for (uint32_t k = 0; k < o->n && fits; k++)
			fits = assignable_in(c, x->args[k]->type, instantiate(c, o, o->args[k], fresh));
		if (!fits) {
			roll_back(c, mark);
			continue;
		}
		*arena_push(c->a, &found) = o;
		r = substitute(c, instantiate(c, o, o->result, fresh), false);
		if (!result)
			result = r;
		else if (!is_dyn(result) && !cel_type_equal(r, result))
			result = &cel_type_dyn;
	}
	if (!result) {
		no_match(c, x);
		return;
	}
	x->type = result;
	x->ov = found.v;
	x->n_ov = (uint16_t)found.n;
	x->op = f->ov[0].op;
}

static void check_call(struct checker *c, struct node *x)
{
	const struct function *f;
	struct str name;

	if (str_eqz(x->name, "_?._")) {
		LIST(const struct overload *) one = {0};

		x->type = substitute(c, select_field(c, x, x->args[0], cel_str(x->args[1]->value), true), false);
		x->args[1]->type = &cel_type_string;
		f = cel_function(x->name, false);
		*arena_push(c->a, &one) = &f->ov[0];
		x->ov = one.v;
		x->n_ov = 1;
		x->op = OP_OPT_SELECT;
		return;
	}
	for (uint32_t i = x->member; i < x->n; i++)
		check(c, x->args[i]);
	if (x->member && worth_qualifying(x->args[0]) && qualified(c, x->args[0], &name)) {
		name = arena_printf(c->a, "%.*s.%.*s", STR_ARG(name), STR_ARG(x->name));
		f = cel_function(name, c->env->patch_types);
		if (f) {
			x->name = f->name;
			x->args++;
			x->n--;
			x->member = false;
			resolve_call(c, x, f);
			return;
		}
	}
	if (x->member)
		check(c, x->args[0]);
	f = cel_function(x->name, c->env->patch_types);
	if (!f) {
		undeclared(c, x->pos, x->name);
		x->type = &cel_type_error;
		return;
	}
	resolve_call(c, x, f);
}

/* ---- literals ---- */

static const struct cel_type *join(struct checker *c, const struct cel_type *was, const struct cel_type *t)
{
	if (!was)
		return t;
	return assignable(c, was, t) ? most_general(was, t) : &cel_type_dyn;
}

/* Type of an element that may be optional (`?x`). */
static const struct cel_type *unwrapped(struct checker *c, struct node *x, bool opt)
{
	const struct cel_type *t = x->type;

	if (!opt)
		return t;
	if (t->kind == CEL_OPTIONAL)
		return cel_elem(t);
	if (!is_dyn(t))
		mismatch(c, x->pos, cel_type_optional_of(c->a, t), t);
	return t;
}

static void check_list(struct checker *c, struct node *x)
{
	const struct cel_type *e = NULL;

	for (uint32_t i = 0; i < x->n; i++) {
		check(c, x->args[i]);
		e = join(c, e, unwrapped(c, x->args[i], x->opts && x->opts[i]));
	}
	x->type = cel_type_list_of(c->a, e ? e : new_var(c));
}

static void check_map(struct checker *c, struct node *x)
{
	const struct cel_type *k = NULL, *v = NULL;

	for (uint32_t i = 0; i + 1 < x->n; i += 2) {
		check(c, x->args[i]);
		k = join(c, k, x->args[i]->type);
		check(c, x->args[i + 1]);
		v = join(c, v, unwrapped(c, x->args[i + 1], x->opts && x->opts[i / 2]));
	}
	if (!k) {
		k = new_var(c);
		v = new_var(c);
	}
	x->type = cel_type_map_of(c->a, k, v);
}

static void check_struct(struct checker *c, struct node *x)
{
	struct str name = x->name.n && x->name.p[0] == '.' ? str_sub(x->name, 1, x->name.n) : x->name;
	const struct cel_message *m = cel_message_find(name);
	const struct cel_type *t = m ? cel_message_type(m) : object_type(c, name);

	x->cache = (void *)m;
	if (!t) {
		const struct cel_type *other = type_ident(c, name);

		if (other) {
			struct str s = cel_type_name(other);

			report(c, x->pos, "'%.*s' is not a message type", STR_ARG(s));
		} else {
			undeclared(c, x->pos, x->name);
		}
		x->type = &cel_type_error;
		if (!other)
			return;
	} else {
		x->type = t;
	}
	for (uint32_t i = 0; i < x->n; i++) {
		const struct cel_field *f = m   ? cel_message_field(m, x->names[i])
					    : t ? cel_type_field(t, x->names[i])
						: NULL;
		const struct cel_type *want = f ? f->type : t && t->any_field ? &cel_type_dyn : &cel_type_error, *got;

		check(c, x->args[i]);
		if (t && !f && !t->any_field)
			report(c, x->positions[i], "undefined field '%.*s'", STR_ARG(x->names[i]));
		got = unwrapped(c, x->args[i], x->opts && x->opts[i]);
		if (!assignable(c, want, got)) {
			struct str w = text_of(c, want), g = text_of(c, substitute(c, got, false));

			report(c, x->positions[i], "expected type of field '%.*s' is '%.*s' but provided type is '%.*s'", STR_ARG(x->names[i]),
			       STR_ARG(w), STR_ARG(g));
		}
	}
}

static void assert_type(struct checker *c, struct node *x, const struct cel_type *t)
{
	if (!assignable(c, t, x->type))
		mismatch(c, x->pos, substitute(c, t, false), substitute(c, x->type, false));
}

static void declare(struct checker *c, struct str name, const struct cel_type *t, uint32_t slot)
{
	if (c->n_scope < sizeof c->scope / sizeof *c->scope)
		c->scope[c->n_scope++] = (struct binding){name, t, slot};
}

static void check_fold(struct checker *c, struct node *x)
{
	struct fold *f = x->fold;
	const struct cel_type *range, *v1, *v2 = NULL;
	uint32_t scope = c->n_scope, slot;

	check(c, f->range);
	check(c, f->init);
	range = substitute(c, f->range->type, false);
	slot = c->next_slot;
	f->slot = slot;
	c->next_slot += 3;
	if (c->next_slot > c->info->n_slots)
		c->info->n_slots = c->next_slot;
	declare(c, f->accu, f->init->type, slot);
	switch (range->kind) {
	case CEL_LIST:
		v1 = cel_elem(range);
		if (f->iter2.n) {
			v2 = v1;
			v1 = &cel_type_int;
		}
		break;
	case CEL_MAP:
		v1 = cel_key(range);
		v2 = cel_elem(range);
		break;
	case CEL_DYN:
	case CEL_ERROR:
	case CEL_PARAM:
		assignable(c, &cel_type_dyn, range);
		v1 = v2 = &cel_type_dyn;
		break;
	default: {
		struct str s = text_of(c, range);

		report(c, f->range->pos, "expression of type '%.*s' cannot be range of a comprehension (must be list, map, or dynamic)", STR_ARG(s));
		v1 = v2 = &cel_type_error;
	}
	}
	declare(c, f->iter, v1, slot + 1);
	if (f->iter2.n)
		declare(c, f->iter2, v2, slot + 2);
	check(c, f->cond);
	assert_type(c, f->cond, &cel_type_bool);
	check(c, f->step);
	assert_type(c, f->step, f->init->type);
	c->n_scope = scope;
	declare(c, f->accu, f->init->type, slot);
	check(c, f->result);
	c->n_scope = scope;
	c->next_slot -= 3;
	f->bind = f->range->kind == NODE_LIST && !f->range->n && f->cond->kind == NODE_CONST && f->cond->value.kind == CEL_BOOL &&
		  !f->cond->value.b;
	x->type = substitute(c, f->result->type, false);
}

static const struct cel_type *const literal_types[] = {
	[CEL_NULL] = &cel_type_null, [CEL_BOOL] = &cel_type_bool, [CEL_INT] = &cel_type_int, [CEL_UINT] = &cel_type_uint,
	[CEL_DOUBLE] = &cel_type_double, [CEL_STRING] = &cel_type_string, [CEL_BYTES] = &cel_type_bytes,
};

static void check(struct checker *c, struct node *x)
{
	switch (x->kind) {
	case NODE_CONST:
		x->type = literal_types[x->value.kind];
		break;
	case NODE_IDENT:
		check_ident(c, x);
		break;
	case NODE_SELECT:
		check_select(c, x);
		break;
	case NODE_CALL:
		check_call(c, x);
		break;
	case NODE_LIST:
		check_list(c, x);
		break;
	case NODE_MAP:
		check_map(c, x);
		break;
	case NODE_STRUCT:
		check_struct(c, x);
		break;
	case NODE_FOLD:
		check_fold(c, x);
		break;
	}
}

/* Bound variables become their types, free ones dyn. */
static void settle(struct checker *c, struct node *x)
{
	if (x->type)
		x->type = substitute(c, x->type, true);
	if (x->kind == NODE_IDENT || x->kind == NODE_CONST)
		return;
	for (uint32_t i = 0; i < x->n; i++)
		settle(c, x->args[i]);
	if (x->fold) {
		settle(c, x->fold->range);
		settle(c, x->fold->init);
		settle(c, x->fold->cond);
		settle(c, x->fold->step);
		settle(c, x->fold->result);
	}
}

bool cel_check(struct arena *a, const struct cel_env *env, struct str source, struct node *x, struct cel_program_info *info,
	       struct cel_issues *issues)
{
	struct checker *c = arena_new(a, struct checker);

	c->a = a;
	c->env = env;
	c->issues = issues;
	c->source = source;
	c->info = info;
	check(c, x);
	settle(c, x);
	return issues->list.n == 0;
}
