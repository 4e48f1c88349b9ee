/* Trees of JSON texts, and texts of trees. */
#include "schema/jv_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "schema/codec_internal.h"

/* ---- parser ---- */

struct frame { /* where we are, for reports */
	const struct frame *parent;
	struct str key;
	int64_t index; /* >= 0: array */
};

struct parser {
	struct arena *a;
	const char *start, *p, *end;
	struct decode_report *report;
	char *stack; /* children of open containers; nodes of the innermost last */
	size_t stack_n, stack_cap;
	LIST(size_t) places; /* of the duplicates that were reported, in the text and in the report's order */
};

static struct error *syntax(struct parser *p, const char *context)
{
	struct json_syntax_error e = {.at = p->p, .context = p->p < p->end ? context : NULL};

	return json_syntax_error(str_of(p->start, (size_t)(p->end - p->start)), &e);
}

/* What json_scan.c says of the place behind a string or number; NULL: it is none. */
static struct error *go_on(struct parser *p, const char *behind, const struct json_syntax_error *e)
{
	p->p = behind ? behind : e->at;
	return behind ? NULL : syntax(p, e->context);
}

static void *stack_push(struct parser *p, size_t size)
{
	if (p->stack_cap - p->stack_n < size) {
		p->stack_cap = p->stack_cap ? p->stack_cap * 2 : 4096;
		p->stack = realloc(p->stack, p->stack_cap);
		if (!p->stack)
			abort();
	}
	p->stack_n += size;
	return p->stack + p->stack_n - size;
}

static void skip_space(struct parser *p)
{
	while (p->p < p->end && (*p->p == ' ' || *p->p == '\n' || *p->p == '\t' || *p->p == '\r'))
		p->p++;
}

static struct error *parse_string(struct parser *p, struct str *out)
{
	struct json_syntax_error e;

	return go_on(p, json_string(p->a, p->p + 1, p->end, out, &e), &e);
}

static struct error *parse_number(struct parser *p, struct jv *out)
{
	const char *from = p->p;
	struct json_syntax_error e;

	TRY(go_on(p, json_skip_number(from, p->end, &e), &e));
	struct str text = str_of(from, (size_t)(p->p - from));
	bool negative = *from == '-', integer = true;
	uint64_t v = 0;

	for (size_t i = negative; i < text.n && integer; i++) {
		uint64_t d = (uint64_t)(text.p[i] - '0');

		integer = d <= 9 && v <= (UINT64_MAX - d) / 10;
		v = v * 10 + d;
	}
	if (integer && v <= (uint64_t)INT64_MAX + negative) {
		*out = jv_int(negative ? (int64_t)(0 - v) : (int64_t)v);
		return NULL;
	}
	double d = strtod(arena_strz(p->a, text), NULL);

	if (d - d != 0)
		return error_status(400, "BadRequest", "number %.*s at offset %zu is out of range",
				    (int)(text.n > 64 ? 64 : text.n), text.p, (size_t)(from - p->start));
	*out = jv_double(d);
	return NULL;
}

static struct error *parse_word(struct parser *p, const char *word, struct jv v, struct jv *out)
{
	for (size_t i = 0; word[i]; i++, p->p++) {
		if (p->p >= p->end || *p->p != word[i]) {
			char context[48];

			snprintf(context, sizeof context, "in literal %s (expecting '%c')", word, word[i]);
			return syntax(p, context);
		}
	}
	*out = v;
	return NULL;
}

static void path_text(struct buf *b, const struct frame *f)
{
	if (!f)
		return;
	path_text(b, f->parent);
	if (f->index >= 0) {
		buf_printf(b, "[%lld]", (long long)f->index);
	} else {
		if (b->n)
			buf_putc(b, '.');
		buf_str(b, f->key);
	}
}

/* In the order of the text: what is within a value was found before the value's own repetition. */
static void report_duplicate(struct parser *p, const struct frame *f, size_t at)
{
	struct decode_report *r = p->report;

	if (!r || r->problems.n >= 1000)
		return;
	buf_cleanup struct buf b = {0};

	buf_puts(&b, "duplicate field \"");
	buf_cleanup struct buf path = {0};

	path_text(&path, f);
	buf_str(&b, buf_view(&path));
	buf_putc(&b, '"');
	struct str text = arena_str(r->arena, buf_view(&b));

	for (uint32_t i = 0; i < r->problems.n; i++)
		if (str_eq(r->problems.v[i], text))
			return;
	uint32_t i = p->places.n, problem;

	*arena_push(p->a, &p->places) = at;
	*arena_push(r->arena, &r->problems) = text;
	problem = r->problems.n - 1;
	for (; i > 0 && p->places.v[i - 1] > at; i--, problem--) {
		p->places.v[i] = p->places.v[i - 1];
		r->problems.v[problem] = r->problems.v[problem - 1];
	}
	p->places.v[i] = at;
	r->problems.v[problem] = text;
}

static struct error *parse_value(struct parser *p, const struct frame *up, int depth, struct jv *out);

static struct error *parse_array(struct parser *p, const struct frame *up, int depth, struct jv *out)
{
	size_t base = p->stack_n;
	struct frame f = {up, STR_NULL, 0};

	p->p++;
	skip_space(p);
	if (p->p < p->end && *p->p == ']') {
		p->p++;
		*out = jv_array();
		return NULL;
	}
	for (;;) {
		struct jv v;

		TRY(parse_value(p, &f, depth, &v));
		f.index++;
		memcpy(stack_push(p, sizeof v), &v, sizeof v);
		skip_space(p);
		if (p->p < p->end && *p->p == ',') {
			p->p++;
			continue;
		}
		if (p->p >= p->end || *p->p != ']')
			return syntax(p, "after array element");
		p->p++;
		break;
	}
	*out = jv_array();
	out->n = (uint32_t)((p->stack_n - base) / sizeof(struct jv));
	out->items = jv_elements_new(p->a, out->n, sizeof(struct jv));
	memcpy(out->items, p->stack + base, p->stack_n - base);
	p->stack_n = base;
	return NULL;
}

struct parsed_member {
	struct jv_member m;
	size_t at; /* its key, in the text */
};

/* Members with the last of duplicates winning; reports the others. */
static void object_close(struct parser *p, const struct frame *up, const struct parsed_member *v, uint32_t n, struct jv *out)
{
	*out = jv_object();
	if (!n)
		return;
	jv_members_new(p->a, out, n);
	for (uint32_t i = 0; i < n; i++) {
		if (jv_get(out, v[i].m.key))
			report_duplicate(p, &(struct frame){up, v[i].m.key, -1}, v[i].at);
		jv_set(p->a, out, v[i].m.key, v[i].m.value);
	}
}

static struct error *parse_object(struct parser *p, const struct frame *up, int depth, struct jv *out)
{
	size_t base = p->stack_n;

	p->p++;
	skip_space(p);
	if (p->p < p->end && *p->p == '}') {
		p->p++;
		*out = jv_object();
		return NULL;
	}
	for (;;) {
		struct parsed_member m = {.at = (size_t)(p->p - p->start)};

		if (p->p >= p->end || *p->p != '"')
			return syntax(p, "looking for beginning of object key string");
		TRY(parse_string(p, &m.m.key));
		skip_space(p);
		if (p->p >= p->end || *p->p != ':')
			return syntax(p, "after object key");
		p->p++;
		struct frame f = {up, m.m.key, -1};

		TRY(parse_value(p, &f, depth, &m.m.value));
		memcpy(stack_push(p, sizeof m), &m, sizeof m);
		skip_space(p);
		if (p->p < p->end && *p->p == ',') {
			p->p++;
			skip_space(p);
			continue;
		}
		if (p->p >= p->end || *p->p != '}')
			return syntax(p, "after object key:value pair");
		p->p++;
		break;
	}
	object_close(p, up, (const struct parsed_member *)(void *)(p->stack + base),
		     (uint32_t)((p->stack_n - base) / sizeof(struct parsed_member)), out);
	p->stack_n = base;
	return NULL;
}

static struct error *parse_value(struct parser *p, const struct frame *up, int depth, struct jv *out)
{
	skip_space(p);
	if (p->p >= p->end)
		return syntax(p, "");
	switch (*p->p) {
	case '{':
	case '[':
		if (depth >= JV_MAX_DEPTH)
			return error_status(400, "BadRequest", "exceeded max depth of %d at offset %zu", JV_MAX_DEPTH,
					    (size_t)(p->p - p->start));
		return *p->p == '{' ? parse_object(p, up, depth + 1, out) : parse_array(p, up, depth + 1, out);
	case '"': {
		struct str s;

		TRY(parse_string(p, &s));
		*out = jv_string(s);
		return NULL;
	}
	case 't':
		return parse_word(p, "true", jv_bool(true), out);
	case 'f':
		return parse_word(p, "false", jv_bool(false), out);
	case 'n':
		return parse_word(p, "null", JV_NULL_VALUE, out);
	case '-':
	case '0' ... '9':
		return parse_number(p, out);
	}
	return syntax(p, "looking for beginning of value");
}

struct error *jv_parse(struct arena *a, struct str text, struct decode_report *report, struct jv *out)
{
	if (text.n > UINT32_MAX)
		return error_status(413, "RequestEntityTooLarge", "JSON text of %zu bytes is over the limit of 4 GiB", text.n);
	if (!text.p)
		text.p = ""; /* nothing is added to a null pointer */
	struct parser p = {.a = a, .start = text.p, .p = text.p, .end = text.p + text.n, .report = report};
	struct error *e = parse_value(&p, NULL, 0, out);

	if (!e) {
		skip_space(&p);
		if (p.p < p.end)
			e = syntax(&p, "after top-level value");
	}
	free(p.stack);
	return e;
}

/* ---- encoder ---- */

void jv_encode_string(struct buf *b, struct str s)
{
	json_put_string(b, s);
}

enum { ENCODE_SORTED = 1, ENCODE_FLOATS = 2 };

static void encode(struct buf *b, const struct jv *v, unsigned how)
{
	switch ((enum jv_kind)v->kind) {
	case JV_NULL:
		buf_append(b, "null", 4);
		return;
	case JV_BOOL:
		buf_puts(b, v->b ? "true" : "false");
		return;
	case JV_INT:
		buf_i64(b, v->i);
		return;
	case JV_DOUBLE:
		json_put_double(b, v->d);
		if ((how & ENCODE_FLOATS) && fabs(v->d) < 0x1p63 && v->d == (double)(int64_t)v->d)
			buf_puts(b, ".0");
		return;
	case JV_STRING:
		jv_encode_string(b, jv_str(v));
		return;
	case JV_ARRAY:
		buf_putc(b, '[');
		for (uint32_t i = 0; i < v->n; i++) {
			if (i)
				buf_putc(b, ',');
			encode(b, &v->items[i], how);
		}
		buf_putc(b, ']');
		return;
	case JV_OBJECT: {
		const struct jv_member **order = (how & ENCODE_SORTED) && v->n > 1 ? jv_members_sorted(v) : NULL;

		buf_putc(b, '{');
		for (uint32_t i = 0; i < v->n; i++) {
			const struct jv_member *m = order ? order[i] : &v->members[i];

			if (i)
				buf_putc(b, ',');
			jv_encode_string(b, m->key);
			buf_putc(b, ':');
			encode(b, &m->value, how);
		}
		buf_putc(b, '}');
		free(order);
		return;
	}
	}
}

void jv_encode(struct buf *b, const struct jv *v)
{
	encode(b, v, 0);
}

void jv_encode_sorted(struct buf *b, const struct jv *v)
{
	encode(b, v, ENCODE_SORTED);
}

void jv_encode_exact(struct buf *b, const struct jv *v)
{
	encode(b, v, ENCODE_SORTED | ENCODE_FLOATS);
}

void jv_encode_floats(struct buf *b, const struct jv *v)
{
	encode(b, v, ENCODE_FLOATS);
}
