#include "schema/selector.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "schema/validate.h"

enum op { OP_EXISTS, OP_NOT_EXISTS, OP_IN, OP_NOT_IN, OP_EQ, OP_EQ2, OP_NE, OP_GT, OP_LT };

struct requirement {
	struct str key;
	enum op op;
	const struct str *values; /* sorted, no duplicates */
	uint32_t n;
};

struct selector {
	bool nothing, fields; /* fields: an absent key has the value "" */
	const struct requirement *v;
	uint32_t n;
};

static const struct selector nothing_selector = {.nothing = true};

/* ---- values ---- */

static int str_order(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static uint32_t sort_unique(struct str *v, uint32_t n)
{
	uint32_t to = 0;

	if (n)
		qsort(v, n, sizeof *v, str_order);
	for (uint32_t i = 0; i < n; i++)
		if (!to || !str_eq(v[to - 1], v[i]))
			v[to++] = v[i];
	return to;
}

static int by_key(const void *a, const void *b)
{
	return str_cmp(((const struct requirement *)a)->key, ((const struct requirement *)b)->key);
}

static bool has_value(const struct requirement *r, struct str value)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (str_eq(r->values[i], value))
			return true;
	return false;
}

static bool requirement_matches(const struct selector *s, const struct requirement *r, const struct str_map *labels)
{
	struct str value = labels ? str_map_get(labels, r->key) : STR_NULL;
	bool exists = value.p != NULL || s->fields;
	int64_t have, want;

	switch (r->op) {
	case OP_EXISTS:
		return exists;
	case OP_NOT_EXISTS:
		return !exists;
	case OP_IN:
	case OP_EQ:
	case OP_EQ2:
		return exists && has_value(r, value);
	case OP_NOT_IN:
	case OP_NE:
		return !exists || !has_value(r, value);
	case OP_GT:
	case OP_LT:
		if (!exists || !str_to_i64(value, &have) || !str_to_i64(r->values[0], &want))
			return false;
		return r->op == OP_GT ? have > want : have < want;
	}
	return false;
}

bool selector_matches(const struct selector *s, const struct str_map *labels)
{
	if (!s)
		return true;
	if (s->nothing)
		return false;
	for (uint32_t i = 0; i < s->n; i++)
		if (!requirement_matches(s, &s->v[i], labels))
			return false;
	return true;
}

bool selector_is_nothing(const struct selector *s)
{
	return s && s->nothing;
}

struct str selector_format(struct arena *a, const struct selector *s)
{
	static const char *const symbols[] = {
		[OP_IN] = " in (", [OP_NOT_IN] = " notin (", [OP_EQ] = "=", [OP_EQ2] = "==",
		[OP_NE] = "!=",	   [OP_GT] = ">",	     [OP_LT] = "<",
	};
	buf_cleanup struct buf b = {0};

	for (uint32_t i = 0; s && i < s->n; i++) {
		const struct requirement *r = &s->v[i];

		if (i)
			buf_putc(&b, ',');
		if (r->op == OP_NOT_EXISTS)
			buf_putc(&b, '!');
		buf_str(&b, r->key);
		if (r->op == OP_EXISTS || r->op == OP_NOT_EXISTS)
			continue;
		buf_puts(&b, symbols[r->op]);
		for (uint32_t k = 0; k < r->n; k++) {
			if (k)
				buf_putc(&b, ',');
			for (size_t c = 0; s->fields && c < r->values[k].n; c++) {
				/* Field values escape what separates terms. */
				if (r->values[k].p[c] && strchr("\\,=", r->values[k].p[c]))
					buf_putc(&b, '\\');
				buf_putc(&b, r->values[k].p[c]);
			}
			if (!s->fields)
				buf_str(&b, r->values[k]);
		}
		if (r->op == OP_IN || r->op == OP_NOT_IN)
			buf_putc(&b, ')');
	}
	return arena_str(a, buf_view(&b));
}

/* ---- requirements ---- */

static struct error *bad(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static struct error *bad(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return error_status(400, "BadRequest", "%s", text);
}

static struct error *check_requirement(struct arena *a, const struct requirement *r)
{
	const char *problem = validate_qualified_name(a, r->key);

	if (problem)
		return bad("key: Invalid value: \"%.*s\": %s", STR_ARG(r->key), problem);
	if ((r->op == OP_IN || r->op == OP_NOT_IN) && !r->n)
		return bad("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty");
	if ((r->op == OP_EXISTS || r->op == OP_NOT_EXISTS) && r->n)
		return bad("values: Invalid value: values set must be empty for exists and does not exist");
	for (uint32_t i = 0; i < r->n; i++) {
		int64_t number;

		if ((r->op == OP_GT || r->op == OP_LT) && !str_to_i64(r->values[i], &number))
			return bad("values[%u]: Invalid value: \"%.*s\": for 'Gt', 'Lt' operators, the value must be an integer",
				   i, STR_ARG(r->values[i]));
		problem = validate_label_value(a, r->values[i]);
		if (problem)
			return bad("values[%u][%.*s]: Invalid value: \"%.*s\": %s", i, STR_ARG(r->key),
				   STR_ARG(r->values[i]), problem);
	}
	return NULL;
}

/* ---- parser of label selectors ---- */

enum token { T_END, T_ERROR, T_ID, T_IN, T_NOT_IN, T_CLOSE, T_OPEN, T_COMMA, T_NOT, T_EQ2, T_EQ, T_NE, T_GT, T_LT };

struct lexer {
	struct str text;
	size_t at;
	enum token token; /* the current one */
	struct str literal;
};

static bool special(char c)
{
	return c == '=' || c == '!' || c == '(' || c == ')' || c == ',' || c == '>' || c == '<';
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void next(struct lexer *l)
{
	while (l->at < l->text.n && blank(l->text.p[l->at]))
		l->at++;
	if (l->at >= l->text.n || !l->text.p[l->at]) {
		l->token = T_END;
		l->literal = STR("");
		return;
	}
	size_t from = l->at;
	char c = l->text.p[l->at++], c2 = l->at < l->text.n ? l->text.p[l->at] : 0;

	switch (c) {
	case '=':
		l->token = c2 == '=' ? T_EQ2 : T_EQ;
		l->at += c2 == '=';
		break;
	case '!':
		l->token = c2 == '=' ? T_NE : T_NOT;
		l->at += c2 == '=';
		break;
	case '(':
		l->token = T_OPEN;
		break;
	case ')':
		l->token = T_CLOSE;
		break;
	case ',':
		l->token = T_COMMA;
		break;
	case '>':
		l->token = T_GT;
		break;
	case '<':
		l->token = T_LT;
		break;
	default:
		while (l->at < l->text.n && l->text.p[l->at] && !special(l->text.p[l->at]) && !blank(l->text.p[l->at]))
			l->at++;
		l->token = T_ID;
	}
	l->literal = str_sub(l->text, from, l->at);
	if (str_eqz(l->literal, "in"))
		l->token = T_IN;
	else if (str_eqz(l->literal, "notin"))
		l->token = T_NOT_IN;
}

/* A name or value: the words `in` and `notin` are names here. */
static bool identifier(const struct lexer *l)
{
	return l->token == T_ID || l->token == T_IN || l->token == T_NOT_IN;
}

static void add_value(struct arena *a, struct strings *v, struct str s)
{
	*arena_push(a, v) = s;
}

static struct error *parse_set(struct arena *a, struct lexer *l, struct strings *out)
{
	if (l->token != T_OPEN)
		return bad("found '%.*s' expected: '('", STR_ARG(l->literal));
	next(l);
	if (l->token == T_CLOSE) {
		add_value(a, out, STR(""));
		next(l);
		return NULL;
	}
	if (!identifier(l) && l->token != T_COMMA)
		return bad("found '%.*s', expected: ',', ')' or identifier", STR_ARG(l->literal));
	for (;;) {
		if (identifier(l)) {
			add_value(a, out, l->literal);
			next(l);
			if (l->token == T_CLOSE)
				break;
			if (l->token != T_COMMA)
				return bad("found '%.*s', expected: ',' or ')'", STR_ARG(l->literal));
		} else if (l->token == T_COMMA) {
			if (!out->n)
				add_value(a, out, STR(""));
			next(l);
			if (l->token == T_CLOSE || l->token == T_COMMA)
				add_value(a, out, STR(""));
			if (l->token == T_CLOSE)
				break;
		} else {
			return bad("found '%.*s', expected: ',', or identifier", STR_ARG(l->literal));
		}
	}
	next(l);
	return NULL;
}

static struct error *parse_requirement(struct arena *a, struct lexer *l, struct requirement *r)
{
	bool negated = l->token == T_NOT;
	struct strings values = {0};

	if (negated)
		next(l);
	if (!identifier(l))
		return bad("found '%.*s', expected: identifier", STR_ARG(l->literal));
	r->key = l->literal;
	const char *problem = validate_qualified_name(a, r->key);

	if (problem)
		return bad("<nil>: Invalid value: \"%.*s\": %s", STR_ARG(r->key), problem);
	next(l);
	if (negated || l->token == T_END || l->token == T_COMMA) {
		r->op = negated ? OP_NOT_EXISTS : OP_EXISTS;
		return check_requirement(a, r);
	}
	switch (l->token) {
	case T_IN:
		r->op = OP_IN;
		break;
	case T_NOT_IN:
		r->op = OP_NOT_IN;
		break;
	case T_EQ:
		r->op = OP_EQ;
		break;
	case T_EQ2:
		r->op = OP_EQ2;
		break;
	case T_NE:
		r->op = OP_NE;
		break;
	case T_GT:
		r->op = OP_GT;
		break;
	case T_LT:
		r->op = OP_LT;
		break;
	default:
		return bad("found '%.*s', expected: in, notin, =, ==, !=, gt, lt", STR_ARG(l->literal));
	}
	next(l);
	if (r->op == OP_IN || r->op == OP_NOT_IN) {
		TRY(parse_set(a, l, &values));
	} else if (l->token == T_END || l->token == T_COMMA) {
		add_value(a, &values, STR(""));
	} else if (identifier(l)) {
		add_value(a, &values, l->literal);
		next(l);
	} else {
		return bad("found '%.*s', expected: identifier", STR_ARG(l->literal));
	}
	r->n = sort_unique(values.v, values.n);
	r->values = values.v;
	return check_requirement(a, r);
}

struct requirements {
	struct requirement *v;
	uint32_t n, cap;
};

static const struct selector *selector_new(struct arena *a, struct requirements *r, bool fields)
{
	if (!r->n)
		return NULL;
	struct selector *s = arena_new(a, struct selector);

	if (!fields)
		qsort(r->v, r->n, sizeof *r->v, by_key);
	s->v = r->v;
	s->n = r->n;
	s->fields = fields;
	return s;
}

struct error *label_selector_parse(struct arena *a, struct str text, const struct selector **out)
{
	struct lexer l = {.text = arena_str(a, text)};
	struct requirements r = {0};

	*out = NULL;
	next(&l);
	while (l.token != T_END) {
		if (!identifier(&l) && l.token != T_NOT)
			return bad("found '%.*s', expected: !, identifier, or 'end of string'", STR_ARG(l.literal));
		TRY(error_wrap(parse_requirement(a, &l, arena_push(a, &r)), "unable to parse requirement"));
		if (l.token == T_END)
			break;
		if (l.token != T_COMMA)
			return bad("found '%.*s', expected: ',' or 'end of string'", STR_ARG(l.literal));
		next(&l);
		if (!identifier(&l) && l.token != T_NOT)
			return bad("found '%.*s', expected: identifier after ','", STR_ARG(l.literal));
	}
	*out = selector_new(a, &r, false);
	return NULL;
}

struct error *label_selector_from(struct arena *a, const struct meta_v1_label_selector *s, const struct selector **out)
{
	struct requirements r = {0};

	*out = NULL;
	if (!s) {
		*out = &nothing_selector;
		return NULL;
	}
	for (uint32_t i = 0; i < s->match_labels.n; i++) {
		struct requirement *q = arena_push(a, &r);

		*q = (struct requirement){s->match_labels.v[i].key, OP_EQ, &s->match_labels.v[i].value, 1};
		TRY(check_requirement(a, q));
	}
	for (uint32_t i = 0; i < s->match_expressions.n; i++) {
		const struct meta_v1_label_selector_requirement *e = &s->match_expressions.v[i];
		struct requirement *q = arena_push(a, &r);

		if (str_eqz(e->operator, "In"))
			q->op = OP_IN;
		else if (str_eqz(e->operator, "NotIn"))
			q->op = OP_NOT_IN;
		else if (str_eqz(e->operator, "Exists"))
			q->op = OP_EXISTS;
		else if (str_eqz(e->operator, "DoesNotExist"))
			q->op = OP_NOT_EXISTS;
		else
			return bad("\"%.*s\" is not a valid label selector operator", STR_ARG(e->operator));
		q->key = e->key;
		struct str *values = arena_array(a, struct str, e->values.n + 1);

		for (uint32_t k = 0; k < e->values.n; k++)
			values[k] = e->values.v[k];
		q->n = e->values.n; /* told as often as they are named */
		q->values = values;
		if (q->n)
			qsort(values, q->n, sizeof *values, str_order);
		TRY(check_requirement(a, q));
	}
	*out = selector_new(a, &r, false);
	return NULL;
}

const struct selector *label_selector_from_map(struct arena *a, const struct str_map *m)
{
	struct requirements r = {0};

	for (uint32_t i = 0; m && i < m->n; i++)
		*arena_push(a, &r) = (struct requirement){m->v[i].key, OP_EQ, &m->v[i].value, 1};
	return selector_new(a, &r, false);
}

/* ---- field selectors ---- */

/* A backslash stands before what it makes plain: backslash, comma, equals sign. */
static struct error *unescape(struct arena *a, struct str s, struct str *out)
{
	char *p = arena_bytes(a, s.n + 1);
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '\\') {
			if (++i >= s.n)
				return bad("invalid field selector: invalid escape sequence: \\");
			c = s.p[i];
			if (c != '\\' && c != ',' && c != '=')
				return bad("invalid field selector: invalid escape sequence: \\%c", c);
		} else if (c == '=') {
			return bad("invalid field selector: unescaped character in value: %d", c);
		}
		p[n++] = c;
	}
	*out = str_of(p, n);
	return NULL;
}

static struct error *parse_term(struct arena *a, struct str text, struct str term, struct requirement *r)
{
	for (size_t i = 0; i < term.n; i++) {
		bool ne = term.p[i] == '!' && i + 1 < term.n && term.p[i + 1] == '=';

		if (!ne && term.p[i] != '=')
			continue;
		size_t op = ne || (i + 1 < term.n && term.p[i + 1] == '=') ? 2 : 1;
		struct str *value = arena_new(a, struct str);

		TRY(unescape(a, str_sub(term, i + op, term.n), value));
		*r = (struct requirement){str_sub(term, 0, i), ne ? OP_NE : OP_EQ, value, 1};
		return NULL;
	}
	return bad("invalid selector: '%.*s'; can't understand '%.*s'", STR_ARG(text), STR_ARG(term));
}

static int by_text(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

struct error *field_selector_parse(struct arena *a, struct str text, const struct selector **out)
{
	struct requirements r = {0};
	struct strings terms = {0};
	size_t from = 0;

	*out = NULL;
	text = arena_str(a, text);
	for (size_t i = 0; i <= text.n; i++) {
		if (i < text.n && text.p[i] == '\\') {
			i += i + 1 < text.n;
			continue;
		}
		if (i < text.n && text.p[i] != ',')
			continue;
		if (i > from)
			*arena_push(a, &terms) = str_sub(text, from, i);
		from = i + 1;
	}
	if (terms.n)
		qsort(terms.v, terms.n, sizeof *terms.v, by_text); /* as upstream: of two for one field the first counts in places */
	for (uint32_t i = 0; i < terms.n; i++) {
		struct requirement q;

		TRY(parse_term(a, text, terms.v[i], &q));
		if (q.key.n || q.values[0].n) /* "=" asks for nothing */
			*arena_push(a, &r) = q;
	}
	*out = selector_new(a, &r, true);
	return NULL;
}

void label_selector_requirements(struct arena *a, const struct selector *s, struct label_requirements *out)
{
	for (uint32_t i = 0; s && i < s->n; i++) {
		const struct requirement *q = &s->v[i];
		struct meta_v1_label_selector_requirement *r;

		if (q->op == OP_GT || q->op == OP_LT)
			continue;
		r = arena_push(a, out);
		r->key = q->key;
		r->operator = q->op == OP_EXISTS	   ? STR("Exists") :
			      q->op == OP_NOT_EXISTS	   ? STR("DoesNotExist") :
			      q->op == OP_NOT_IN || q->op == OP_NE ? STR("NotIn") :
								     STR("In");
		for (uint32_t k = 0; k < q->n; k++)
			*arena_push(a, &r->values) = q->values[k];
	}
}

struct error *field_selector_rename(struct arena *a, const struct selector *s, const struct str (*pairs)[2], size_t n,
				    const struct selector **out)
{
	struct selector *r;
	struct requirement *v;

	*out = s;
	if (!s)
		return NULL;
	r = arena_new(a, struct selector);
	v = arena_array(a, struct requirement, s->n);
	memcpy(v, s->v, s->n * sizeof *v);
	*r = *s;
	r->v = v;
	for (uint32_t i = 0; i < s->n; i++) {
		size_t k = 0;

		while (k < n && !str_eq(pairs[k][0], s->v[i].key))
			k++;
		if (k == n)
			return error_status(400, "BadRequest", "field label not supported: %.*s", STR_ARG(s->v[i].key));
		v[i].key = pairs[k][1];
	}
	*out = r;
	return NULL;
}

bool field_selector_get(const struct selector *s, size_t i, struct str *key, struct str *value, bool *negated)
{
	if (!s || i >= s->n)
		return false;
	*key = s->v[i].key;
	*value = s->v[i].values[0];
	*negated = s->v[i].op == OP_NE;
	return true;
}
