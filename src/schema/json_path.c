/* JSONPath: a path is a list of steps; each makes of the values so far the next ones. */
#include "schema/json_path.h"

#include <ctype.h>
#include <stdlib.h>

#define STEPS_MAX 256
#define NESTED_MAX 16    /* filters and unions in one another */
#define VALUES_MAX 10000 /* at a time */

enum step_kind { FIELD, LITERAL, WILDCARD, RECURSIVE, SLICE, UNION, FILTER };
enum op { EXISTS, LESS, LESS_EQUAL, EQUAL, NOT_EQUAL, GREATER_EQUAL, GREATER };

struct bound {
	bool known;
	int64_t value;
};

typedef LIST(struct json_path) path_list;

struct step {
	enum step_kind kind;
	struct str name;   /* FIELD */
	struct jv literal; /* LITERAL: what was found is forgotten for it */
	struct bound from, to, by;
	bool single;     /* SLICE: an index */
	path_list paths; /* UNION: each; FILTER: left, right */
	enum op op;
};

struct json_path {
	LIST(struct step) steps;
};

/* ---- reading ---- */

struct reader {
	struct arena *a;
	int depth;
	int steps; /* so far, with those of paths within */
};

static bool read_path(struct reader *r, struct str text, struct json_path *out);

static struct step *add(struct reader *r, struct json_path *p, enum step_kind kind)
{
	struct step *s;

	if (++r->steps > STEPS_MAX)
		return NULL;
	s = arena_push(r->a, &p->steps);
	s->kind = kind;
	return s;
}

static bool add_field(struct reader *r, struct json_path *p, struct str raw)
{
	struct step *s = add(r, p, str_eqz(raw, "*") ? WILDCARD : FIELD);
	char *to = arena_bytes(r->a, raw.n + 1);
	size_t n = 0;

	for (size_t i = 0; i < raw.n; i++)
		if (raw.p[i] != '\\')
			to[n++] = raw.p[i];
	if (s)
		s->name = str_of(to, n);
	return s != NULL;
}

static bool add_literal(struct reader *r, struct json_path *p, struct jv v)
{
	struct step *s = add(r, p, LITERAL);

	if (s)
		s->literal = v;
	return s != NULL;
}

static bool ends_name(char c)
{
	return strchr(" \t\r\n.,[]$@{}", c) != NULL;
}

static struct str take_name(struct str *text)
{
	size_t n = 0;
	struct str name;

	while (n < text->n && !ends_name(text->p[n]))
		n += text->p[n] == '\\' && n + 1 < text->n ? 2 : 1;
	name = str_sub(*text, 0, n);
	*text = str_sub(*text, n, text->n);
	return name;
}

/* -1, 2:, :3, 1:5:2 */
static bool read_slice(struct str text, struct step *s)
{
	struct bound *b[] = {&s->from, &s->to, &s->by};

	s->single = str_index(text, ':') < 0;
	for (int i = 0; text.p; i++) {
		struct str part = str_cut(&text, ':');

		if (i == 3 || (part.n && !str_to_i64(part, &b[i]->value)) || (part.n && part.p[0] == '+'))
			return false;
		b[i]->known = part.n > 0;
	}
	if (s->single)
		s->to = (struct bound){true, s->from.value + 1};
	return true;
}

/* What stands in brackets. */
static bool read_brackets(struct reader *r, struct str inside, struct json_path *p)
{
	struct step *s;

	if (str_index(inside, ',') >= 0) {
		if (!(s = add(r, p, UNION)))
			return false;
		while (inside.p) {
			struct json_path one = {0};
			struct str part = str_trim(str_cut(&inside, ','));

			if (!read_path(r, arena_printf(r->a, "[%.*s]", STR_ARG(part)), &one))
				return false;
			*arena_push(r->a, &s->paths) = one;
		}
		return true;
	}
	if (inside.n >= 2 && inside.p[0] == '\'' &&
	    str_index(str_sub(inside, 1, inside.n), '\'') == (ptrdiff_t)inside.n - 2) {
		struct json_path within = {0};

		if (!read_path(r, arena_printf(r->a, ".%.*s", STR_ARG(str_sub(inside, 1, inside.n - 1))), &within))
			return false;
		for (uint32_t i = 0; i < within.steps.n; i++)
			*arena_push(r->a, &p->steps) = within.steps.v[i];
		return true;
	}
	if (str_eqz(inside, "*"))
		inside = STR(":");
	s = add(r, p, SLICE);
	return s && read_slice(inside, s);
}

/* The end of "@.a=='b')]", behind "[?(": where ")]" stands outside of quotes. */
static ptrdiff_t filter_end(struct str text)
{
	char quote = 0;

	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];

		if ((c == '"' || c == '\'') && !quote)
			quote = c;
		else if (quote && c == quote && text.p[i - 1] != '\\')
			quote = 0;
		else if (c == ')' && !quote)
			return i + 1 < text.n && text.p[i + 1] == ']' ? (ptrdiff_t)i : -1;
	}
	return -1;
}

static bool read_filter(struct reader *r, struct str text, struct json_path *p)
{
	static const char *const ops[] = {[LESS] = "<",       [LESS_EQUAL] = "<=",    [EQUAL] = "==",
					  [NOT_EQUAL] = "!=", [GREATER_EQUAL] = ">=", [GREATER] = ">"};
	struct step *s = add(r, p, FILTER);
	struct json_path *left, *right;
	size_t from = 0, to;

	if (!s)
		return false;
	left = arena_push(r->a, &s->paths);
	while (from < text.n && !strchr("!<>=", text.p[from]))
		from++;
	for (to = from; to < text.n && strchr("!<>=", text.p[to]);)
		to++;
	if (!from || from == text.n || to == text.n)
		return read_path(r, text, left);
	for (size_t i = LESS; i <= GREATER; i++)
		if (str_eqz(str_sub(text, from, to), ops[i]))
			s->op = (enum op)i;
	if (s->op == EXISTS || !read_path(r, str_sub(text, 0, from), left))
		return false;
	right = arena_push(r->a, &s->paths);
	return read_path(r, str_sub(text, to, text.n), right);
}

static bool read_quoted(struct reader *r, struct str *text, struct json_path *p)
{
	char quote = text->p[0];
	struct buf b buf_cleanup = {0};
	size_t i = 1;

	for (; i < text->n && text->p[i] != quote; i++) {
		if (text->p[i] == '\\' && i + 1 < text->n)
			i++;
		buf_putc(&b, text->p[i]);
	}
	if (i >= text->n)
		return false;
	*text = str_sub(*text, i + 1, text->n);
	return add_literal(r, p, jv_string(arena_str(r->a, buf_view(&b))));
}

static bool read_number(struct reader *r, struct str *text, struct json_path *p)
{
	size_t n = text->p[0] == '+' || text->p[0] == '-';
	struct str number;
	int64_t i;
	char *end, *z;
	double d;

	while (n < text->n && (isdigit((unsigned char)text->p[n]) || text->p[n] == '.'))
		n++;
	number = str_sub(*text, 0, n);
	*text = str_sub(*text, n, text->n);
	if (str_to_i64(number, &i))
		return add_literal(r, p, jv_int(i));
	z = arena_strz(r->a, number);
	d = strtod(z, &end);
	return end != z && !*end && add_literal(r, p, jv_double(d));
}

static bool read_word(struct reader *r, struct str *text, struct json_path *p)
{
	struct str word = take_name(text);

	return (str_eqz(word, "true") || str_eqz(word, "false")) && add_literal(r, p, jv_bool(str_eqz(word, "true")));
}

static bool read_step(struct reader *r, struct str *text, struct json_path *p)
{
	ptrdiff_t end;
	char c = text->p[0];

	if (str_has_prefix(*text, STR("[?("))) {
		struct str rest = str_sub(*text, 3, text->n);

		end = filter_end(rest);
		*text = end < 0 ? *text : str_sub(rest, (size_t)end + 2, rest.n);
		return end >= 0 && read_filter(r, str_sub(rest, 0, (size_t)end), p);
	}
	if (str_has_prefix(*text, STR(".."))) {
		*text = str_sub(*text, 2, text->n);
		if ((p->steps.n && p->steps.v[p->steps.n - 1].kind == RECURSIVE) || !add(r, p, RECURSIVE))
			return false;
		return !text->n || !(isalnum((unsigned char)text->p[0]) || text->p[0] == '_') ||
		       add_field(r, p, take_name(text));
	}
	if (c == '"' || c == '\'')
		return read_quoted(r, text, p);
	if (c == '+' || c == '-' || isdigit((unsigned char)c))
		return read_number(r, text, p);
	if (isalpha((unsigned char)c) || c == '_')
		return read_word(r, text, p);
	*text = str_sub(*text, 1, text->n);
	if (c == ' ' || c == '@' || c == '$')
		return true;
	if (c == '.')
		return add_field(r, p, take_name(text));
	if (c != '[' || (end = str_index(*text, ']')) < 0)
		return false;
	struct str inside = str_sub(*text, 0, (size_t)end);

	*text = str_sub(*text, (size_t)end + 1, text->n);
	return read_brackets(r, inside, p);
}

static bool read_path(struct reader *r, struct str text, struct json_path *out)
{
	bool ok = ++r->depth <= NESTED_MAX;

	while (ok && text.n)
		ok = read_step(r, &text, out);
	r->depth--;
	return ok;
}

const struct json_path *json_path_new(struct arena *a, struct str text)
{
	struct reader r = {.a = a};
	struct json_path *p = arena_new(a, struct json_path);

	return read_path(&r, text, p) ? p : NULL;
}

/* ---- walking ---- */

struct values {
	LIST(const struct jv *) list;
};

static bool push(struct arena *a, struct values *v, const struct jv *x)
{
	if (v->list.n >= VALUES_MAX)
		return false;
	*arena_push(a, &v->list) = x;
	return true;
}

/* False: it does not fit; *v is then what there was before the step that did not. */
static bool walk(struct arena *a, const struct json_path *p, struct values *v);

static const struct jv *child(struct arena *a, const struct jv *v, uint32_t i)
{
	struct jv *byte;

	if (v->kind == JV_ARRAY)
		return &v->items[i];
	if (v->kind == JV_OBJECT)
		return &v->members[i].value;
	byte = arena_new(a, struct jv);
	*byte = jv_int((unsigned char)jv_str(v).p[i]);
	return byte;
}

/* Of what has parts: a string's are its bytes, as upstream has it. */
static uint32_t children(const struct jv *v)
{
	return v->kind == JV_STRING ? (uint32_t)jv_str(v).n : v->kind == JV_ARRAY || v->kind == JV_OBJECT ? v->n : 0;
}

static bool recurse(struct arena *a, const struct jv *v, struct values *out, int depth)
{
	if (!children(v))
		return true;
	if (depth > JV_MAX_DEPTH || !push(a, out, v))
		return false;
	for (uint32_t i = 0; v->kind != JV_STRING && i < v->n; i++)
		if (!recurse(a, child(a, v, i), out, depth + 1))
			return false;
	return true;
}

static bool slice(struct arena *a, const struct step *s, const struct jv *v, struct values *out)
{
	int64_t n = v->n, from = s->from.known ? s->from.value : 0, to = s->to.known ? s->to.value : n,
		by = s->by.known ? s->by.value : 1;

	if (v->kind != JV_ARRAY)
		return v->kind == JV_NULL;
	if (from < 0)
		from += n;
	if (to < 0 || (!to && s->single))
		to += n;
	if (from == to)
		return true;
	if (from >= n || from < 0 || to > n || to < 0 || from > to || by <= 0)
		return false;
	for (int64_t i = from; i < to; i += by)
		if (!push(a, out, &v->items[i]))
			return false;
	return true;
}

/* True: they compare at all. */
static bool compare(const struct jv *l, const struct jv *r, enum op op, bool *yes)
{
	int c;

	if (l->kind != r->kind || l->kind == JV_NULL || l->kind == JV_ARRAY || l->kind == JV_OBJECT)
		return false;
	if (l->kind == JV_BOOL && op != EQUAL && op != NOT_EQUAL)
		return false;
	c = jv_cmp(l, r);
	*yes = op == LESS            ? c < 0
	       : op == LESS_EQUAL    ? c <= 0
	       : op == EQUAL         ? !c
	       : op == NOT_EQUAL     ? c != 0
	       : op == GREATER_EQUAL ? c >= 0
				     : c > 0;
	return true;
}

static bool fits(struct arena *a, const struct step *s, const struct jv *v, bool *yes)
{
	struct values l = {0}, r = {0};
	bool ok;

	push(a, &l, v);
	push(a, &r, v);
	ok = walk(a, &s->paths.v[0], &l);
	*yes = l.list.n > 0;
	if (s->op == EXISTS)
		return true;
	if (!ok || l.list.n > 1)
		return false;
	if (!l.list.n)
		return true;
	if (!walk(a, &s->paths.v[1], &r) || r.list.n > 1)
		return false;
	*yes = r.list.n > 0;
	return !r.list.n || compare(l.list.v[0], r.list.v[0], s->op, yes);
}

static bool filter(struct arena *a, const struct step *s, const struct jv *v, struct values *out)
{
	bool yes;

	if (v->kind != JV_ARRAY)
		return false;
	for (uint32_t i = 0; i < v->n; i++)
		if (!fits(a, s, &v->items[i], &yes) || (yes && !push(a, out, &v->items[i])))
			return false;
	return true;
}

static bool step_one(struct arena *a, const struct step *s, const struct jv *v, struct values *out)
{
	const struct jv *m;

	switch (s->kind) {
	case FIELD:
		m = jv_get(v, s->name);
		return !m || push(a, out, m);
	case LITERAL:
		return push(a, out, &s->literal);
	case WILDCARD:
		for (uint32_t i = 0; i < children(v); i++)
			if (!push(a, out, child(a, v, i)))
				return false;
		return true;
	case RECURSIVE:
		return recurse(a, v, out, 0);
	case SLICE:
		return slice(a, s, v, out);
	default:
		return filter(a, s, v, out);
	}
}

static bool take_step(struct arena *a, const struct step *s, const struct values *in, struct values *out)
{
	for (uint32_t i = 0; s->kind == UNION && i < s->paths.n; i++) {
		struct values one = {0};

		for (uint32_t k = 0; k < in->list.n; k++)
			push(a, &one, in->list.v[k]);
		if (!walk(a, &s->paths.v[i], &one))
			return false;
		for (uint32_t k = 0; k < one.list.n; k++)
			if (!push(a, out, one.list.v[k]))
				return false;
	}
	for (uint32_t i = 0; s->kind != UNION && i < in->list.n; i++)
		if (!step_one(a, s, in->list.v[i], out))
			return false;
	return true;
}

static bool walk(struct arena *a, const struct json_path *p, struct values *v)
{
	for (uint32_t i = 0; i < p->steps.n; i++) {
		struct values next = {0};

		if (!take_step(a, &p->steps.v[i], v, &next))
			return false;
		*v = next;
	}
	return true;
}

const struct jv *json_path_first(struct arena *a, const struct json_path *p, const struct jv *v)
{
	struct values found = {0};

	push(a, &found, v);
	return walk(a, p, &found) && found.list.n ? found.list.v[0] : NULL;
}
