/* Programs: compiling (parse, check, validators, estimate, constants) and running; results as JSON. */
#include <stdlib.h>
#include "base/log.h"
#include "cel/check.h"

#define SLOTS_ON_STACK 12
#define ARGS_ON_STACK (8 * ARGS_MAX)

struct cel_program {
	struct arena a;
	struct node *root;
	const struct cel_type *type;
	struct cel_cost cost;
	struct cel_program_info info;
	LIST(const struct cel_regex *) patterns; /* its constants, compiled */
};

struct compiling {
	struct arena *a;
	struct cel_program *p;
	struct cel_issues *issues;
	struct str source;
	bool failed;
};

static void visit(const struct node *x, void (*fn)(struct node *x, bool in_format, void *ctx), bool in_format, void *ctx)
{
	bool fmt = in_format || (x->kind == NODE_CALL && str_eqz(x->name, "format"));

	fn((struct node *)x, in_format, ctx);
	if (x->kind == NODE_IDENT || x->kind == NODE_CONST)
		return;
	for (uint32_t i = 0; i < x->n; i++)
		visit(x->args[i], fn, fmt, ctx);
	if (x->fold) {
		visit(x->fold->range, fn, fmt, ctx);
		visit(x->fold->init, fn, fmt, ctx);
		visit(x->fold->cond, fn, fmt, ctx);
		visit(x->fold->step, fn, fmt, ctx);
		visit(x->fold->result, fn, fmt, ctx);
	}
}

/* ---- validators: what upstream checks of literals (cel/validator.go, ext/formatting.go) ---- */

static void mismatch(struct compiling *c, const struct node *x, const struct cel_type *want, const struct cel_type *got)
{
	struct str w = cel_type_shown(c->a, want), g = cel_type_shown(c->a, got);

	cel_issue(c->a, c->issues, c->source, x->pos, "expected type '%.*s' but found '%.*s'", STR_ARG(w), STR_ARG(g));
}

static const struct cel_type *element(const struct node *x, bool opt)
{
	return opt && x->type->kind == CEL_OPTIONAL ? cel_elem(x->type) : x->type;
}

static void check_literals(struct node *x, bool in_format, void *ctx)
{
	struct compiling *c = ctx;

	if (in_format)
		return;
	if (x->kind == NODE_LIST) {
		const struct cel_type *first = NULL;

		for (uint32_t i = 0; i < x->n; i++) {
			const struct cel_type *t = element(x->args[i], x->opts && x->opts[i]);

			if (first && !cel_type_equal(first, t)) {
				mismatch(c, x->args[i], first, t);
				break;
			}
			first = first ? first : t;
		}
	}
	if (x->kind == NODE_MAP && x->n) {
		const struct cel_type *k = x->args[0]->type, *v = element(x->args[1], x->opts && x->opts[0]);

		for (uint32_t i = 2; i + 1 < x->n; i += 2) {
			const struct cel_type *t = element(x->args[i + 1], x->opts && x->opts[i / 2]);

			if (!cel_type_equal(k, x->args[i]->type))
				mismatch(c, x->args[i], k, x->args[i]->type);
			if (!cel_type_equal(v, t))
				mismatch(c, x->args[i + 1], v, t);
		}
	}
}

static void check_calls(struct node *x, bool in_format, void *ctx)
{
	struct compiling *c = ctx;
	const char *why;
	struct cel_value v;
	int64_t ns;

	(void)in_format;
	if (x->kind != NODE_CALL)
		return;
	if (str_eqz(x->name, "duration") && x->n == 1 && x->args[0]->kind == NODE_CONST) {
		if (!cel_parse_duration(cel_str(x->args[0]->value), &ns))
			cel_issue(c->a, c->issues, c->source, x->args[0]->pos, "invalid duration argument");
	} else if (str_eqz(x->name, "timestamp") && x->n == 1 && x->args[0]->kind == NODE_CONST) {
		v = x->args[0]->value;
		if (v.kind == CEL_INT ? !cel_timestamp_ok(v.i) : v.kind != CEL_STRING || !cel_parse_timestamp(cel_str(v), &v))
			cel_issue(c->a, c->issues, c->source, x->args[0]->pos, "invalid timestamp argument");
	} else if (str_eqz(x->name, "matches") && x->n == 2) {
		const struct node *p = x->args[x->member ? 1 : 0];

		if (p->kind == NODE_CONST && p->value.kind == CEL_STRING) {
			const struct cel_regex *re = cel_regex_new(cel_str(p->value), &why);

			if (!re)
				cel_issue(c->a, c->issues, c->source, p->pos, "invalid matches argument");
			cel_regex_free(re);
		}
	} else if (str_eqz(x->name, "format") && x->member && x->n == 2 && x->args[0]->kind == NODE_CONST &&
		   x->args[0]->value.kind == CEL_STRING && x->args[1]->kind == NODE_LIST) {
		struct str m;
		const struct node *at = x;

		if (!cel_format_check(c->a, cel_str(x->args[0]->value), x->args[1]->args, x->args[1]->n, &m, &at))
			cel_issue(c->a, c->issues, c->source, at ? at->pos : x->pos, "%.*s", STR_ARG(m));
	}
}

/* ---- constants (interpreter/decorators.go) ---- */

static bool constant(const struct node *x)
{
	return x->kind == NODE_CONST || x->folded;
}

static void broken(struct compiling *c, const struct node *x, struct str why)
{
	if (c->issues->list.n)
		return;
	cel_issue(c->a, c->issues, c->source, x->pos, "%.*s", STR_ARG(why));
	c->issues->instantiation = true;
}

static void keep(struct compiling *c, struct node *x)
{
	struct run r = {.a = &c->p->a, .p = c->p, .limit = UINT64_MAX};

	r.top = arena_array(r.a, struct cel_value, ARGS_MAX * (size_t)x->height);
	r.end = r.top + ARGS_MAX * (size_t)x->height;
	r.level = x->height;
	x->value = cel_eval_node(&r, x);
	if (x->value.kind == CEL_ERROR) {
		broken(c, x, cel_error_text(x->value));
		return;
	}
	x->folded = true;
}

/* A constant key of a kind that keys never have: no program is made. */
static void check_key(struct compiling *c, const struct node *key)
{
	struct cel_value v = key->value;

	if (constant(key) && v.kind != CEL_STRING && v.kind != CEL_BOOL && v.kind != CEL_INT && v.kind != CEL_UINT &&
	    v.kind != CEL_DOUBLE)
		broken(c, key, arena_printf(c->a, "invalid qualifier type: %.*s", STR_ARG(cel_kind_name(v))));
}

/* What is of type type(T) must be the name of a type: not a variable, nor a message that is known by its literals only.
 */
static void check_type_name(struct compiling *c, const struct node *x)
{
	const struct cel_message *m = cel_message_find(x->name);

	if (x->type->kind == CEL_TYPE && (!x->folded || (m && !cel_message_named(m))))
		broken(c, x, arena_printf(c->a, "reference to undefined type: %.*s", STR_ARG(x->name)));
}

static bool conversion(struct str name)
{
	static const char *const names[] = {"bool", "bytes", "double", "dyn", "duration", "int", "string", "timestamp", "type", "uint"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (str_eqz(name, names[i]))
			return true;
	return false;
}

/* x in [constants]: looked up, not searched. */
static void to_set(struct compiling *c, struct node *x)
{
	struct cel_value l = x->args[1]->value;
	uint32_t n = cel_size(l);
	struct cel_map *m;

	if (!n) {
		x->value = cel_bool(false);
		x->folded = true;
		return;
	}
	m = cel_map_new(&c->p->a, n);
	for (uint32_t i = 0; i < n; i++) {
		struct cel_value e = cel_at(&c->p->a, l, i);

		if (e.kind == CEL_NULL || e.kind > CEL_STRING)
			return;
		cel_map_put(&c->p->a, m, e, cel_bool(true));
	}
	x->op = OP_IN_SET;
	x->cache = m;
}

static void fold_constants(struct compiling *c, struct node *x)
{
	bool all = true;

	if (x->kind == NODE_IDENT)
		check_type_name(c, x);
	if (x->kind == NODE_IDENT || x->kind == NODE_CONST)
		return;
	for (uint32_t i = 0; i < x->n; i++) {
		fold_constants(c, x->args[i]);
		all &= constant(x->args[i]);
	}
	if (x->fold) {
		fold_constants(c, x->fold->range);
		fold_constants(c, x->fold->init);
		fold_constants(c, x->fold->cond);
		fold_constants(c, x->fold->step);
		fold_constants(c, x->fold->result);
		return;
	}
	if (x->kind == NODE_LIST || x->kind == NODE_MAP) {
		if (all && !x->opts)
			keep(c, x);
		return;
	}
	if (x->kind != NODE_CALL)
		return;
	if (x->op == OP_INDEX || x->op == OP_OPT_INDEX)
		check_key(c, x->args[1]);
	if (x->n == 1 && all && !x->member && conversion(x->name)) {
		keep(c, x);
	} else if (x->n_ov == 1 && x->ov[0]->cost == COST_IN_LIST && constant(x->args[1])) {
		to_set(c, x);
	} else if ((x->ov[0]->cost == COST_MATCHES || x->ov[0]->cost == COST_FIND || !strcmp(x->ov[0]->id, "matches")) && x->n >= 2 &&
		   constant(x->args[1]) && x->args[1]->value.kind == CEL_STRING) {
		const char *why;

		x->cache = (void *)cel_regex_new(cel_str(x->args[1]->value), &why);
		if (x->cache)
			*arena_push(&c->p->a, &c->p->patterns) = x->cache;
		else
			broken(c, x->args[1], arena_printf(c->a, "error parsing regexp: %s", why));
	}
}

/* ---- compiling ---- */

static int issue_order(const void *x, const void *y)
{
	const struct cel_issue *a = x, *b = y;

	if (a->line != b->line)
		return a->line < b->line ? -1 : 1;
	if (a->column != b->column)
		return a->column < b->column ? -1 : 1;
	return str_cmp(a->message, b->message);
}

static struct cel_issues copy_issues(struct arena *a, const struct cel_issues *from)
{
	struct cel_issues out = {.instantiation = from->instantiation};

	for (uint32_t i = 0; i < from->list.n; i++) {
		struct cel_issue *x = arena_push(a, &out.list);

		*x = from->list.v[i];
		x->message = arena_str(a, x->message);
	}
	if (out.list.n)
		qsort(out.list.v, out.list.n, sizeof *out.list.v, issue_order);
	return out;
}

bool cel_compile(struct arena *a, const struct cel_env *env, struct str source, struct cel_program **out, struct cel_issues *issues)
{
	struct cel_program *p = xcalloc(1, sizeof *p);
	struct cel_issues own = {0};
	struct compiling c = {.a = &p->a, .p = p, .issues = &own};

	*out = NULL;
	*issues = (struct cel_issues){0};
	source = arena_str(&p->a, source);
	c.source = source;
	p->root = cel_parse(&p->a, source, &own);
	if (p->root && cel_check(&p->a, env, source, p->root, &p->info, &own)) {
		visit(p->root, check_calls, false, &c);
		visit(p->root, check_literals, false, &c);
	}
	if (p->root && !own.list.n) {
		p->type = p->root->type;
		p->cost = cel_estimate(env, p->root);
		fold_constants(&c, p->root);
	}
	if (own.list.n) {
		*issues = copy_issues(a, &own);
		cel_program_free(p);
		return false;
	}
	*out = p;
	return true;
}

void cel_program_free(struct cel_program *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; i < p->patterns.n; i++)
		cel_regex_free(p->patterns.v[i]);
	arena_free(&p->a);
	free(p);
}

const struct cel_type *cel_program_type(const struct cel_program *p)
{
	return p->type;
}

bool cel_program_uses(const struct cel_program *p, uint32_t i)
{
	return i < 64 && p->info.uses >> i & 1;
}

struct selects {
	struct str ident, field;
	bool found;
};

static void find_select(struct node *x, bool in_format, void *ctx)
{
	struct selects *s = ctx;
	bool select = x->kind == NODE_SELECT && str_eq(x->name, s->field),
	     optional = x->kind == NODE_CALL && x->op == OP_OPT_SELECT && x->n == 2 && x->args[1]->kind == NODE_CONST &&
			str_eq(cel_str(x->args[1]->value), s->field);

	(void)in_format;
	s->found |= (select || optional) && x->args[0]->kind == NODE_IDENT && str_eq(x->args[0]->name, s->ident);
}

bool cel_program_selects(const struct cel_program *p, struct str ident, struct str field)
{
	struct selects s = {ident, field, false};

	visit(p->root, find_select, false, &s);
	return s.found;
}

struct cel_cost cel_program_cost(const struct cel_program *p)
{
	return p->cost;
}

struct str cel_issues_text(struct arena *a, struct str source, const struct cel_issues *issues)
{
	struct buf b buf_cleanup = {0};

	for (uint32_t i = 0; i < issues->list.n; i++) {
		const struct cel_issue *x = &issues->list.v[i];
		struct str rest = source, line = STR_NULL;

		if (i)
			buf_putc(&b, '\n');
		if (!x->line) {
			buf_printf(&b, "ERROR: <input>:-1:0: %.*s", STR_ARG(x->message));
			continue;
		}
		if (issues->instantiation) {
			buf_str(&b, x->message);
			continue;
		}
		buf_printf(&b, "ERROR: <input>:%u:%u: %.*s", x->line, x->column, STR_ARG(x->message));
		for (uint32_t k = 0; k < x->line && rest.p; k++)
			line = str_cut(&rest, '\n');
		buf_puts(&b, "\n | ");
		for (size_t k = 0; k < line.n; k++)
			buf_putc(&b, line.p[k] == '\t' ? ' ' : line.p[k]);
		buf_puts(&b, "\n | ");
		/* under wide characters stand wide dots */
		for (uint32_t k = 1, at = 0; k <= x->column; k++) {
			bool wide = at < line.n && (unsigned char)line.p[at] >= 0x80;

			if (k < x->column)
				buf_puts(&b, wide ? "\uff0e" : ".");
			else
				buf_puts(&b, wide ? "\uff3e" : "^");
			for (at++; at < line.n && ((unsigned char)line.p[at] & 0xc0) == 0x80; at++)
				;
		}
	}
	return arena_str(a, buf_view(&b));
}

struct cel_value cel_eval(const struct cel_program *p, const struct cel_value *vars, struct arena *a, uint64_t limit, uint64_t *cost)
{
	struct cel_value slots[SLOTS_ON_STACK], args[ARGS_ON_STACK], v;
	size_t depth = ARGS_MAX * (size_t)p->root->height;
	struct run r = {.a = a, .p = p, .vars = vars, .limit = limit};

	r.locals = p->info.n_slots <= SLOTS_ON_STACK ? slots : arena_array(a, struct cel_value, p->info.n_slots);
	r.top = depth <= ARGS_ON_STACK ? args : arena_array(a, struct cel_value, depth);
	r.end = r.top + depth;
	r.level = p->root->height;
	v = cel_eval_node(&r, p->root);
	if (cost)
		*cost = r.cost;
	return v;
}

/* ---- JSON ---- */

#define JSON_SAFE 9007199254740991ll

struct error *cel_to_jv(struct arena *a, struct cel_value v, struct jv *out)
{
	struct buf b buf_cleanup = {0};
	struct str s;
	uint32_t n = cel_size(v);

	switch (v.kind) {
	case CEL_NULL:
		*out = JV_NULL_VALUE;
		return NULL;
	case CEL_BOOL:
		*out = jv_bool(v.b);
		return NULL;
	case CEL_INT:
		*out = v.i >= -JSON_SAFE && v.i <= JSON_SAFE ? jv_int(v.i) : jv_string(arena_printf(a, "%lld", (long long)v.i));
		return NULL;
	case CEL_UINT:
		*out = v.u <= (uint64_t)JSON_SAFE ? jv_int(v.i) : jv_string(arena_printf(a, "%llu", (unsigned long long)v.u));
		return NULL;
	case CEL_DOUBLE:
		*out = jv_double(v.d);
		return NULL;
	case CEL_STRING:
		*out = jv_string(cel_str(v));
		return NULL;
	case CEL_BYTES:
		base64_encode(&b, cel_str(v));
		*out = jv_string(arena_str(a, buf_view(&b)));
		return NULL;
	case CEL_TIMESTAMP:
		*out = jv_string(cel_timestamp_text(a, v));
		return NULL;
	case CEL_DURATION:
		*out = jv_string(cel_duration_text(a, v.i));
		return NULL;
	case CEL_LIST:
		*out = jv_array();
		for (uint32_t i = 0; i < n; i++) {
			struct jv e;

			TRY(cel_to_jv(a, cel_at(a, v, i), &e));
			jv_push(a, out, e);
		}
		return NULL;
	case CEL_MAP:
	case CEL_OBJECT:
		if (v.rep == REP_JV) { /* a tree already */
			*out = *(const struct jv *)v.ptr;
			return NULL;
		}
		*out = jv_object();
		for (uint32_t i = 0; i < n; i++) {
			struct cel_value value, key = cel_map_at(a, v, i, &value);
			struct jv e;

			if (key.kind != CEL_STRING) {
				s = cel_kind_name(key);
				return error_new("map key is of type %.*s, not string", STR_ARG(s));
			}
			TRY(cel_to_jv(a, value, &e));
			jv_set(a, out, cel_str(key), e);
		}
		return NULL;
	case CEL_ERROR:
		s = cel_error_text(v);
		return error_new("%.*s", STR_ARG(s));
	case CEL_OPTIONAL:
		if (cel_optional_get(v))
			return cel_to_jv(a, *cel_optional_get(v), out);
		return error_new("optional.none() dereference");
	default:
		s = cel_kind_name(v);
		return error_new("a value of type %.*s has no JSON form", STR_ARG(s));
	}
}

static bool made_here(struct cel_value v)
{
	return (v.kind == CEL_LIST || v.kind == CEL_MAP) && v.rep != REP_JV && v.rep != REP_TYPED &&
	       v.rep != REP_FIELD && v.rep != REP_STRINGS;
}

static struct error *to_configuration(struct arena *a, struct cel_value v, bool within, struct jv *out)
{
	uint32_t n = cel_size(v);
	struct str s;

	if (v.kind == CEL_OPTIONAL && cel_optional_get(v))
		return to_configuration(a, *cel_optional_get(v), within, out);
	if (v.kind == CEL_TYPE) {
		*out = jv_string(cel_type_name(v.type));
		return NULL;
	}
	if (v.kind == CEL_NULL || v.kind == CEL_BYTES || v.kind == CEL_TIMESTAMP || v.kind == CEL_DURATION ||
	    (within && made_here(v))) {
		s = cel_kind_name(v);
		return error_new("a value of type %.*s has no form in an apply configuration", STR_ARG(s));
	}
	if (v.kind == CEL_LIST && made_here(v)) {
		*out = jv_array();
		for (uint32_t i = 0; i < n; i++) {
			struct jv e;

			TRY(to_configuration(a, cel_at(a, v, i), true, &e));
			jv_push(a, out, e);
		}
		return NULL;
	}
	if (!made_here(v) && !(v.kind == CEL_OBJECT && v.rep == REP_OBJECT))
		return cel_to_jv(a, v, out);
	*out = jv_object();
	for (uint32_t i = 0; i < n; i++) {
		struct cel_value value, key = cel_map_at(a, v, i, &value);
		struct jv e;

		if (key.kind != CEL_STRING)
			return error_new("map keys must be strings");
		TRY(to_configuration(a, value, v.kind == CEL_MAP, &e));
		jv_set(a, out, cel_str(key), e);
	}
	return NULL;
}

struct error *cel_to_configuration(struct arena *a, struct cel_value v, struct jv *out)
{
	return to_configuration(a, v, false, out);
}
