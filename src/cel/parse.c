/* The grammar of cel-go's CEL.g4 by precedence; macros are expanded where their call ends. */
#include <errno.h>
#include <stdlib.h>
#include "cel/lex.h"


struct parser {
	struct arena *a;
	struct str source;
	struct cel_issues *issues;
	struct lexeme *t; /* next */
	uint32_t depth;
};

static struct node *expr(struct parser *p);

void cel_issue(struct arena *a, struct cel_issues *issues, struct str source, uint32_t pos, const char *fmt, ...)
{
	struct cel_issue *i;
	uint32_t at = 0;
	va_list ap;

	if (issues->list.n >= CEL_MAX_ISSUES)
		return;
	i = arena_push(a, &issues->list);
	va_start(ap, fmt);
	i->message = arena_vprintf(a, fmt, ap);
	va_end(ap);
	if (pos == UINT32_MAX) { /* nowhere: upstream prints -1:0 */
		i->line = 0;
		i->column = 0;
		return;
	}
	i->line = i->column = 1;
	for (size_t k = 0; k < source.n && at < pos; k++) {
		if (source.p[k] == '\n') {
			i->line++;
			i->column = 1;
		} else {
			i->column++;
		}
		at++;
		while (k + 1 < source.n && ((unsigned char)source.p[k + 1] & 0xc0) == 0x80)
			k++;
	}
}

struct node *node_new(struct arena *a, enum node_kind kind, uint32_t pos)
{
	struct node *x = arena_new(a, struct node);

	x->kind = (uint8_t)kind;
	x->pos = pos;
	x->height = 1;
	x->count = 1;
	return x;
}

struct node *node_ident(struct arena *a, uint32_t pos, struct str name)
{
	struct node *x = node_new(a, NODE_IDENT, pos);

	x->name = name;
	return x;
}

struct node *node_const(struct arena *a, uint32_t pos, struct cel_value v)
{
	struct node *x = node_new(a, NODE_CONST, pos);

	x->value = v;
	return x;
}

static void taller(struct node *x, const struct node *child)
{
	if (!child)
		return;
	if (child->height >= x->height)
		x->height = (uint16_t)(child->height + 1);
	x->count = x->count + child->count < CEL_MAX_NODES ? x->count + child->count : CEL_MAX_NODES;
}

void node_measure(struct node *x)
{
	x->count = 1;
	for (uint32_t i = 0; i < x->n; i++)
		taller(x, x->args[i]);
	if (x->fold) {
		taller(x, x->fold->range);
		taller(x, x->fold->init);
		taller(x, x->fold->cond);
		taller(x, x->fold->step);
		taller(x, x->fold->result);
	}
}

struct node *node_call(struct arena *a, uint32_t pos, struct str name, struct node **args, uint32_t n, bool member)
{
	struct node *x = node_new(a, NODE_CALL, pos);

	x->name = name;
	x->args = args;
	x->n = n;
	x->member = member;
	node_measure(x);
	return x;
}

struct node *node_list(struct arena *a, uint32_t pos, struct node **args, uint32_t n)
{
	struct node *x = node_new(a, NODE_LIST, pos);

	x->args = args;
	x->n = n;
	node_measure(x);
	return x;
}

struct node *node_copy(struct arena *a, const struct node *x)
{
	struct node *y;

	if (!x)
		return NULL;
	y = arena_new(a, struct node);
	*y = *x;
	if (x->n) {
		y->args = arena_array(a, struct node *, x->n);
		for (uint32_t i = 0; i < x->n; i++)
			y->args[i] = node_copy(a, x->args[i]);
	}
	if (x->fold) {
		y->fold = arena_new(a, struct fold);
		*y->fold = *x->fold;
		y->fold->range = node_copy(a, x->fold->range);
		y->fold->init = node_copy(a, x->fold->init);
		y->fold->cond = node_copy(a, x->fold->cond);
		y->fold->step = node_copy(a, x->fold->step);
		y->fold->result = node_copy(a, x->fold->result);
	}
	return y;
}

static struct node *fail(struct parser *p, uint32_t pos, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static struct node *fail(struct parser *p, uint32_t pos, const char *fmt, ...)
{
	va_list ap;
	struct str m;

	va_start(ap, fmt);
	m = arena_vprintf(p->a, fmt, ap);
	va_end(ap);
	cel_issue(p->a, p->issues, p->source, pos, "%.*s", STR_ARG(m));
	return NULL;
}

#define EXPRESSION                                                                                                                    \
	"{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"

static struct node *unexpected(struct parser *p, const char *expecting)
{
	struct str text = p->t->t == T_END ? STR("<EOF>") : p->t->text;

	return fail(p, p->t->pos, "Syntax error: mismatched input '%.*s' expecting %s", STR_ARG(text), expecting);
}

static bool at(const struct parser *p, char c)
{
	return p->t->t == T_PUNCT && p->t->c == c;
}

static bool accept(struct parser *p, char c)
{
	if (!at(p, c))
		return false;
	p->t++;
	return true;
}

static struct node *too_deep(struct parser *p)
{
	return fail(p, UINT32_MAX, "expression recursion limit exceeded: %d", CEL_MAX_DEPTH);
}

/* A finished node: within the limit of nesting. */
static struct node *done(struct parser *p, struct node *x)
{
	return x && x->height > CEL_MAX_DEPTH ? too_deep(p) : x;
}

static bool reserved_ident(struct str s)
{
	static const char *const words[] = {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop",
					    "package", "namespace", "return", "var", "void", "while"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (str_eqz(s, words[i]))
			return true;
	return false;
}

struct nodes {
	LIST(struct node *) list;
	LIST(uint8_t) opts;
	bool any_opt;
};

/* Elements up to `close`, which is consumed. */
static bool elements(struct parser *p, char close, bool optional, struct nodes *out)
{
	if (accept(p, close))
		return true;
	for (;;) {
		struct node *x;
		bool opt = optional && accept(p, '?');

		if (optional && !opt && at(p, ',') && !out->list.n) { /* [,] */
			p->t++;
			if (accept(p, close))
				return true;
			unexpected(p, "']'");
			return false;
		}
		x = expr(p);
		if (!x)
			return false;
		*arena_push(p->a, &out->list) = x;
		*arena_push(p->a, &out->opts) = opt;
		out->any_opt |= opt;
		if (accept(p, close))
			return true;
		if (!accept(p, ',')) {
			unexpected(p, close == ')' ? "{')', ','}" : "{']', ','}");
			return false;
		}
		if (optional && accept(p, close))
			return true;
	}
}

static struct node *call(struct parser *p, uint32_t pos, struct str name, struct node *target, struct nodes *args)
{
	struct node *x, **v;
	const char *why = NULL;
	uint32_t where = pos;

	if (cel_expand(p->a, pos, name, target, args->list.v, args->list.n, &x, &why, &where))
		return x ? done(p, x) : fail(p, where, "%s", why);
	if (!target)
		return done(p, node_call(p->a, pos, name, args->list.v, args->list.n, false));
	v = arena_array(p->a, struct node *, args->list.n + 1);
	v[0] = target;
	if (args->list.n)
		memcpy(v + 1, args->list.v, args->list.n * sizeof *v);
	return done(p, node_call(p->a, pos, name, v, args->list.n + 1, true));
}

static struct node *map_literal(struct parser *p)
{
	struct node *x = node_new(p->a, NODE_MAP, p->t->pos);
	struct nodes v = {0};
	LIST(uint32_t) positions = {0};

	p->t++;
	while (!accept(p, '}')) {
		bool opt;
		struct node *k, *val;

		if (v.list.n && !accept(p, ','))
			return unexpected(p, "{'}', ','}");
		if (at(p, '}'))
			continue;
		if (!v.list.n && at(p, ',')) {
			p->t++;
			if (!at(p, '}'))
				return unexpected(p, "'}'");
			continue;
		}
		opt = accept(p, '?');
		k = expr(p);
		if (!k)
			return NULL;
		if (!at(p, ':'))
			return unexpected(p, "':'");
		*arena_push(p->a, &positions) = p->t->pos;
		p->t++;
		val = expr(p);
		if (!val)
			return NULL;
		*arena_push(p->a, &v.list) = k;
		*arena_push(p->a, &v.list) = val;
		*arena_push(p->a, &v.opts) = opt;
		v.any_opt |= opt;
	}
	x->args = v.list.v;
	x->n = v.list.n;
	x->opts = v.any_opt ? v.opts.v : NULL;
	x->positions = positions.v;
	node_measure(x);
	return done(p, x);
}

static struct node *struct_literal(struct parser *p, struct str name)
{
	struct node *x = node_new(p->a, NODE_STRUCT, p->t->pos);
	struct nodes v = {0};
	LIST(uint32_t) positions = {0};
	LIST(struct str) names = {0};

	p->t++;
	while (!accept(p, '}')) {
		bool opt;
		struct node *val;
		struct str field;

		if (v.list.n && !accept(p, ','))
			return unexpected(p, "{'}', ','}");
		if (at(p, '}'))
			continue;
		if (!v.list.n && at(p, ',')) {
			p->t++;
			if (!at(p, '}'))
				return unexpected(p, "'}'");
			continue;
		}
		opt = accept(p, '?');
		if (p->t->t == T_ESC_IDENT)
			return fail(p, p->t->pos, "unsupported syntax: '`'");
		if (p->t->t != T_IDENT)
			return unexpected(p, "{IDENTIFIER, ESC_IDENTIFIER}");
		field = p->t->text;
		p->t++;
		if (!at(p, ':'))
			return unexpected(p, "':'");
		*arena_push(p->a, &positions) = p->t->pos;
		p->t++;
		val = expr(p);
		if (!val)
			return NULL;
		*arena_push(p->a, &v.list) = val;
		*arena_push(p->a, &names) = field;
		*arena_push(p->a, &v.opts) = opt;
		v.any_opt |= opt;
	}
	x->name = name;
	x->args = v.list.v;
	x->n = v.list.n;
	x->names = names.v;
	x->opts = v.any_opt ? v.opts.v : NULL;
	x->positions = positions.v;
	node_measure(x);
	return done(p, x);
}

static bool to_uint(struct str text, uint64_t *out)
{
	bool hex = text.n > 2 && text.p[1] == 'x';
	uint64_t v = 0, base = hex ? 16 : 10;

	for (size_t i = hex ? 2 : 0; i < text.n; i++) {
		char c = text.p[i];
		uint64_t d = (uint64_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);

		if (v > (UINT64_MAX - d) / base)
			return false;
		v = v * base + d;
	}
	*out = v;
	return true;
}

static struct node *number(struct parser *p, uint32_t pos, bool minus)
{
	const struct lexeme *t = p->t++;
	uint64_t u;
	char *z;
	double d;

	if (t->t == T_FLOAT) {
		z = arena_strz(p->a, arena_printf(p->a, "%s%.*s", minus ? "-" : "", STR_ARG(t->text)));
		errno = 0;
		d = strtod(z, NULL);
		if (errno == ERANGE && (d > 1 || d < -1))
			return fail(p, pos, "invalid double literal");
		return node_const(p->a, pos, cel_double(d));
	}
	if (t->t == T_UINT)
		return to_uint(str_sub(t->text, 0, t->text.n - 1), &u) ? node_const(p->a, pos, cel_uint(u)) :
									   fail(p, pos, "invalid uint literal");
	if (!to_uint(t->text, &u) || u > (uint64_t)INT64_MAX + minus)
		return fail(p, pos, "invalid int literal");
	return node_const(p->a, pos, cel_int(minus ? (int64_t)(0 - u) : (int64_t)u));
}

static struct node *ident(struct parser *p, bool dot)
{
	const struct lexeme *first = p->t, *t = first;
	struct str name = first->text;
	struct nodes args = {0};
	uint32_t pos;

	/* a.b.C{...}: only a brace behind the names tells */
	while (t[0].t == T_IDENT && t[1].t == T_PUNCT && t[1].c == '.' && t[2].t == T_IDENT)
		t += 2;
	if (t[0].t == T_IDENT && t[1].t == T_PUNCT && t[1].c == '{') {
		struct buf b buf_cleanup = {0};

		if (dot)
			buf_putc(&b, '.');
		for (const struct lexeme *x = first; x <= t; x++)
			buf_str(&b, x->text);
		p->t = (struct lexeme *)t + 1;
		return struct_literal(p, arena_str(p->a, buf_view(&b)));
	}
	p->t++;
	if (reserved_ident(name))
		return fail(p, first->pos, "reserved identifier: %.*s", STR_ARG(name));
	if (dot)
		name = arena_printf(p->a, ".%.*s", STR_ARG(name));
	if (!at(p, '('))
		return node_ident(p->a, first->pos, name);
	pos = p->t->pos;
	p->t++;
	if (!elements(p, ')', false, &args))
		return NULL;
	return call(p, pos, name, NULL, &args);
}

static struct node *primary(struct parser *p)
{
	const struct lexeme *t = p->t;
	struct node *x;
	struct nodes v = {0};
	struct str s;
	const char *why;

	switch (t->t) {
	case T_INT:
	case T_UINT:
	case T_FLOAT:
		return number(p, t->pos, false);
	case T_STRING:
	case T_BYTES:
		why = cel_unquote(p->a, t->text, t->t == T_BYTES, &s);
		p->t++;
		if (why)
			return fail(p, t->pos, "%s", why);
		return node_const(p->a, t->pos, t->t == T_BYTES ? cel_bytes(s) : cel_string(s));
	case T_TRUE:
	case T_FALSE:
		p->t++;
		return node_const(p->a, t->pos, cel_bool(t->t == T_TRUE));
	case T_NULL:
		p->t++;
		return node_const(p->a, t->pos, CEL_NULL_VALUE);
	case T_IDENT:
		return ident(p, false);
	case T_ESC_IDENT:
		return fail(p, t->pos, "unsupported syntax: '`'");
	case T_PUNCT:
		break;
	default:
		return unexpected(p, EXPRESSION);
	}
	switch (t->c) {
	case '.':
		p->t++;
		return p->t->t == T_IDENT ? ident(p, true) : unexpected(p, "IDENTIFIER");
	case '(':
		p->t++;
		x = expr(p);
		if (x && !accept(p, ')'))
			return unexpected(p, "')'");
		return x;
	case '[':
		p->t++;
		if (!elements(p, ']', true, &v))
			return NULL;
		x = node_list(p->a, t->pos, v.list.v, v.list.n);
		x->opts = v.any_opt ? v.opts.v : NULL;
		return done(p, x);
	case '{':
		return map_literal(p);
	default:
		return unexpected(p, EXPRESSION);
	}
}

static struct node *two(struct parser *p, uint32_t pos, const char *name, struct node *x, struct node *y)
{
	struct node **v = arena_array(p->a, struct node *, 2);

	v[0] = x;
	v[1] = y;
	return done(p, node_call(p->a, pos, str_from(name), v, 2, false));
}

static struct node *member(struct parser *p)
{
	struct node *x = primary(p), *y;

	while (x) {
		uint32_t pos = p->t->pos;

		if (accept(p, '[')) {
			bool opt = accept(p, '?');

			y = expr(p);
			if (!y)
				return NULL;
			if (!accept(p, ']'))
				return unexpected(p, "']'");
			x = two(p, pos, opt ? "_[?_]" : "_[_]", x, y);
		} else if (accept(p, '.')) {
			bool opt = accept(p, '?');
			const struct lexeme *t = p->t;

			if (t->t == T_ESC_IDENT)
				return fail(p, t->pos, "unsupported syntax: '`'");
			if (t->t != T_IDENT)
				return unexpected(p, "IDENTIFIER");
			p->t++;
			if (at(p, '(') && !opt) {
				struct nodes args = {0};

				pos = p->t->pos;
				p->t++;
				if (!elements(p, ')', false, &args))
					return NULL;
				x = call(p, pos, t->text, x, &args);
			} else if (opt) {
				x = two(p, pos, "_?._", x, node_const(p->a, t->pos, cel_string(t->text)));
			} else {
				y = node_new(p->a, NODE_SELECT, pos);
				y->name = t->text;
				y->args = arena_array(p->a, struct node *, 1);
				y->args[0] = x;
				y->n = 1;
				node_measure(y);
				x = done(p, y);
			}
		} else {
			return x;
		}
	}
	return NULL;
}

static struct node *unary(struct parser *p)
{
	const struct lexeme *first = p->t;
	struct node **v, *x;
	uint32_t n = 0;
	char c = 0;

	if (at(p, '-') && (p->t[1].t == T_INT || p->t[1].t == T_FLOAT)) {
		/* a signed literal, and members of it */
		struct lexeme *t = p->t;
		struct node *lit;

		p->t++;
		lit = number(p, t->pos, true);
		if (!lit)
			return NULL;
		if (!at(p, '.') && !at(p, '['))
			return lit;
		/* rare: -1.foo is a member of the literal; the type checker has its say */
		return fail(p, p->t->pos, "Syntax error: extraneous input '%.*s' expecting <EOF>", STR_ARG(p->t->text));
	}
	if (at(p, '!') || at(p, '-'))
		for (c = first->c; accept(p, c); n++)
			;
	x = member(p);
	if (!x || n % 2 == 0)
		return x;
	v = arena_array(p->a, struct node *, 1);
	v[0] = x;
	return done(p, node_call(p->a, first->pos, c == '!' ? STR("!_") : STR("-_"), v, 1, false));
}

static int binary(const struct lexeme *t, const char **name)
{
	switch (t->t) {
	case T_EQ: *name = "_==_"; return 3;
	case T_NE: *name = "_!=_"; return 3;
	case T_LT: *name = "_<_"; return 3;
	case T_LE: *name = "_<=_"; return 3;
	case T_GE: *name = "_>=_"; return 3;
	case T_GT: *name = "_>_"; return 3;
	case T_IN: *name = "@in"; return 3;
	case T_PUNCT:
		switch (t->c) {
		case '+': *name = "_+_"; return 4;
		case '-': *name = "_-_"; return 4;
		case '*': *name = "_*_"; return 5;
		case '/': *name = "_/_"; return 5;
		case '%': *name = "_%_"; return 5;
		}
	}
	return 0;
}

/* relations (3), sums (4), products (5), all left-associative */
static struct node *binaries(struct parser *p, int least)
{
	struct node *x = unary(p);

	while (x) {
		const char *name = NULL;
		uint32_t pos = p->t->pos;
		int level = binary(p->t, &name);
		struct node *y;

		if (level < least)
			return x;
		p->t++;
		y = binaries(p, level + 1);
		x = y ? two(p, pos, name, x, y) : NULL;
	}
	return NULL;
}

/* a && b && c...: a balanced tree, as upstream's, so that long chains are not deep. */
static struct node *balance(struct parser *p, const char *name, struct node **terms, const uint32_t *ops, int64_t lo, int64_t hi)
{
	int64_t mid = (lo + hi + 1) / 2;
	struct node *l = mid == lo ? terms[mid] : balance(p, name, terms, ops, lo, mid - 1);
	struct node *r = mid == hi ? terms[mid + 1] : balance(p, name, terms, ops, mid + 1, hi);

	return l && r ? two(p, ops[mid], name, l, r) : NULL;
}

static struct node *logic(struct parser *p, bool or)
{
	LIST(struct node *) terms = {0};
	LIST(uint32_t) ops = {0};

	for (;;) {
		struct node *x = or ? logic(p, false) : binaries(p, 3);

		if (!x)
			return NULL;
		if (p->t->t != (or ? T_OR : T_AND) && !terms.n)
			return x;
		*arena_push(p->a, &terms) = x;
		if (p->t->t != (or ? T_OR : T_AND))
			return balance(p, or ? "_||_" : "_&&_", terms.v, ops.v, 0, (int64_t)ops.n - 1);
		*arena_push(p->a, &ops) = p->t->pos;
		p->t++;
	}
}

static struct node *expr(struct parser *p)
{
	struct node *c, *t, *f, **v;
	uint32_t pos;

	if (++p->depth > CEL_MAX_NESTING)
		return too_deep(p);
	c = logic(p, true);
	pos = p->t->pos;
	if (c && accept(p, '?')) {
		t = logic(p, true);
		if (!t)
			return NULL;
		if (!accept(p, ':'))
			return unexpected(p, "':'");
		f = expr(p);
		if (!f)
			return NULL;
		v = arena_array(p->a, struct node *, 3);
		v[0] = c;
		v[1] = t;
		v[2] = f;
		c = done(p, node_call(p->a, pos, STR("_?_:_"), v, 3, false));
	}
	p->depth--;
	return c;
}

struct node *cel_parse(struct arena *a, struct str source, struct cel_issues *issues)
{
	struct parser p = {.a = a, .source = source, .issues = issues};
	struct node *x;
	size_t n = 0;

	for (size_t i = 0; i < source.n; i++)
		n += ((unsigned char)source.p[i] & 0xc0) != 0x80;
	if (n > CEL_MAX_SOURCE)
		return fail(&p, UINT32_MAX, "expression code point size exceeds limit: size: %zu, limit %d", n, CEL_MAX_SOURCE);
	p.t = cel_lex(a, source, issues);
	if (!p.t)
		return NULL;
	x = expr(&p);
	if (x && p.t->t != T_END)
		return fail(&p, p.t->pos, "Syntax error: %s input '%.*s' expecting <EOF>", p.t[1].t == T_END ? "extraneous" : "mismatched",
			    STR_ARG(p.t->text));
	return x;
}
