/*
 * JSON to structs, one pass, driven by descriptors.
 *
 * Precedence of errors is that of Go's decoder, which checks the syntax of the
 * whole text first: a syntax error, then the first error of a value with a
 * decoder of its own (quantity, time...), then the first type mismatch. So after the
 * latter two the rest is still read.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "schema/codec.h"
#include "schema/codec_internal.h"
#include "schema/quantity.h"

struct frame { /* where we are, for messages */
	const struct frame *up;
	const struct schema_type *t; /* the struct whose field `key` is being read; NULL: a map's key or a list's index */
	struct str key;
	uint32_t index;
	bool list;
};

struct jd {
	const char *end;
	struct arena *a;
	struct decode_report *report; /* NULL: not asked */
	struct error *hard, *soft;
	struct json_syntax_error syn;
	unsigned depth;
	bool wraps; /* integers too large lose their upper bits */
	struct str in;
};

static const char *dec_value(struct jd *d, const char *p, const struct schema_field *f, void *dst, const struct frame *fr);

/* ---- messages ---- */

void decode_problem(struct decode_report *r, struct str problem)
{
	if (!r || r->problems.n >= CODEC_MAX_PROBLEMS)
		return;
	for (uint32_t i = 0; i < r->problems.n; i++)
		if (str_eq(r->problems.v[i], problem))
			return;
	*arena_push(r->arena, &r->problems) = arena_str(r->arena, problem);
}

static void put_path(struct buf *b, const struct frame *fr, bool strict)
{
	const struct frame *at[2 * CODEC_MAX_DEPTH + 8];
	size_t n = 0;

	for (; fr && n < sizeof at / sizeof *at; fr = fr->up)
		at[n++] = fr;
	while (n--) {
		if (at[n]->list) {
			if (strict)
				buf_printf(b, "[%u]", at[n]->index);
		} else if (at[n]->t || strict) {
			if (b->n)
				buf_putc(b, '.');
			buf_str(b, at[n]->key);
		}
	}
}

static void strict_problem(struct jd *d, const char *what, const struct frame *fr)
{
	buf_cleanup struct buf path = {0}, b = {0};

	if (d->report->problems.n >= CODEC_MAX_PROBLEMS)
		return;
	put_path(&path, fr, true);
	buf_puts(&b, what);
	buf_quote(&b, buf_view(&path));
	decode_problem(d->report, buf_view(&b));
}

static void put_go_type(struct buf *b, const struct schema_field *f, const struct frame *fr, bool element)
{
	static const char *const names[] = {
		[FIELD_BOOL] = "bool", [FIELD_INT32] = "int32", [FIELD_INT64] = "int64", [FIELD_UINT32] = "uint32",
		[FIELD_UINT64] = "uint64", [FIELD_DOUBLE] = "float64", [FIELD_BYTES] = "[]uint8",
		[FIELD_QUANTITY] = "resource.Quantity", [FIELD_INTSTR] = "int32", [FIELD_TIME] = "string",
		[FIELD_MICROTIME] = "string", [FIELD_DURATION] = "string", [FIELD_RAW] = "runtime.RawExtension",
		[FIELD_FIELDSV1] = "v1.FieldsV1", [FIELD_JSON] = "v1.JSON", [FIELD_ANY] = "interface {}",
		[FIELD_STRINGS] = "[]string",
	};

	if (!element && f->card == CARD_LIST)
		buf_puts(b, "[]");
	if (!element && f->card == CARD_MAP)
		buf_puts(b, "map[string]");
	if (f->kind == FIELD_MESSAGE) {
		buf_printf(b, "%.*s.%s", STR_ARG(f->type->version), f->type->name);
	} else if (f->kind == FIELD_STRING) {
		const char *version = "v1";

		for (; fr; fr = fr->up)
			if (fr->t && fr->t->version.n) {
				version = fr->t->version.p;
				break;
			}
		if (f->info && f->info->enum_)
			buf_printf(b, "%s.%s", version, f->info->enum_->name);
		else
			buf_puts(b, "string");
	} else {
		buf_puts(b, names[f->kind]);
	}
}

static const char *skip(struct jd *d, const char *p)
{
	bool spaces = false;

	return json_skip(p, d->end, JSON_SKIP_DEPTH - d->depth, &spaces, &d->syn);
}

/* Records that the value at p does not fit and reads past it. */
static const char *mismatch(struct jd *d, const char *p, struct str go_type, const char *restored, bool numeric, bool hard,
			    const struct frame *fr)
{
	const char *from = p;

	p = skip(d, p);
	if (!p)
		return NULL;
	struct error **slot = hard ? &d->hard : &d->soft;

	if (*slot)
		return p;
	buf_cleanup struct buf b = {0};
	const struct frame *in = fr;

	buf_puts(&b, *from == '"'   ? "string"
		     : *from == '{' ? "object"
		     : *from == '[' ? "array"
		     : *from == 't' || *from == 'f' ? "bool"
						    : "number");
	if (numeric && (*from == '-' || (*from >= '0' && *from <= '9'))) {
		buf_putc(&b, ' ');
		buf_str(&b, str_sub(str_of(from, (size_t)(p - from)), 0, 256));
	}
	while (in && !in->t)
		in = in->up;
	if (d->wraps && !hard && restored) { /* merged objects are read from values, with messages of their own */
		const char *kind = "int64";

		if (*from == '"')
			kind = "string";
		else if (*from == '{')
			kind = "map";
		else if (*from == '[')
			kind = "slice";
		else if (*from == 't' || *from == 'f')
			kind = "bool";
		else if (memchr(from, '.', (size_t)(p - from)))
			kind = "float64";
		*slot = error_status(400, "BadRequest", "cannot restore %s %s", restored, kind);
	} else if (in) {
		buf_cleanup struct buf path = {0};

		put_path(&path, fr, false);
		*slot = error_status(400, "BadRequest", "json: cannot unmarshal %.*s into Go struct field %s.%.*s of type %.*s",
				     STR_ARG(buf_view(&b)), in->t->name, STR_ARG(buf_view(&path)), STR_ARG(go_type));
	} else {
		*slot = error_status(400, "BadRequest", "json: cannot unmarshal %.*s into Go value of type %.*s",
				     STR_ARG(buf_view(&b)), STR_ARG(go_type));
	}
	return p;
}

static const char *type_mismatch(struct jd *d, const char *p, const struct schema_field *f, bool element, const struct frame *fr)
{
	buf_cleanup struct buf b = {0};
	const char *restored = !element && f->card == CARD_MAP ? "map from" : !element && f->card == CARD_LIST ? "slice from" :
			       f->kind == FIELD_MESSAGE ? "struct from:" : NULL;
	bool numeric = f->kind == FIELD_INT32 || f->kind == FIELD_INT64 || f->kind == FIELD_UINT32 ||
		       f->kind == FIELD_UINT64 || f->kind == FIELD_DOUBLE || f->kind == FIELD_INTSTR;
	bool hard = f->kind == FIELD_INTSTR || f->kind == FIELD_TIME || f->kind == FIELD_MICROTIME || f->kind == FIELD_DURATION;

	put_go_type(&b, f, fr, element);
	if (!element && (f->card == CARD_LIST || f->card == CARD_MAP))
		numeric = hard = false;
	return mismatch(d, p, buf_view(&b), restored, numeric, hard, fr);
}

static void hard_error(struct jd *d, struct error *e)
{
	if (d->hard)
		error_free(e);
	else
		d->hard = e;
}

static const char *syntax(struct jd *d, const char *p, const char *context)
{
	d->syn.at = p;
	d->syn.context = p < d->end ? context : NULL;
	return NULL;
}

static const char *too_deep(struct jd *d, const char *p)
{
	d->syn.at = p;
	d->syn.context = NULL;
	return NULL;
}

/* ---- scalars ---- */

/* The string at p, which is a quote. */
static inline const char *dec_str(struct jd *d, const char *p, struct str *out)
{
	const char *q = json_plain_end(p + 1, d->end);

	if (likely(q < d->end && *q == '"')) {
		*out = str_of(p + 1, (size_t)(q - p - 1));
		return q + 1;
	}
	return json_string(d->a, p + 1, d->end, out, &d->syn);
}

/* An integer in [min, max] (as two's complement; is_unsigned: max as uint64). False: not an integer of that range, *q behind the number. */
static inline bool parse_int(const char *p, const char *end, const char **q, bool is_unsigned, int64_t min, uint64_t max,
			     uint64_t *out)
{
	bool neg = *p == '-';
	const char *s = p + neg;
	uint64_t v = 0;
	const char *from = s;

	while (s < end && (unsigned char)(*s - '0') < 10 && s - from < 19)
		v = v * 10 + (uint64_t)(*s++ - '0');
	if (s == from || (*from == '0' && s - from > 1))
		return false;
	if (s < end) {
		unsigned char c = (unsigned char)*s;

		if ((unsigned char)(c - '0') < 10) { /* a 20th digit: only some uint64 */
			unsigned digit = c - '0';

			if (!is_unsigned || v > (UINT64_MAX - digit) / 10)
				return false;
			v = v * 10 + digit;
			s++;
			if (s < end && (unsigned char)(*s - '0') < 10)
				return false;
			c = s < end ? (unsigned char)*s : 0;
		}
		if (c == '.' || c == 'e' || c == 'E')
			return false;
	}
	if (neg) {
		if (is_unsigned || v > 0 - (uint64_t)min)
			return false;
		v = 0 - v;
	} else if (v > max) {
		return false;
	}
	*q = s;
	*out = v;
	return true;
}

static bool is_number(const char *p)
{
	return *p == '-' || (unsigned char)(*p - '0') < 10;
}

/* The number at p, behind which *q is left; false: beyond a double. NULL there: no number. */
static bool parse_double(struct jd *d, const char *p, const char **q, double *v)
{
	*q = json_skip_number(p, d->end, &d->syn);
	if (!*q)
		return false;
	char small[64], *z = small;
	size_t n = (size_t)(*q - p);

	if (n >= sizeof small)
		z = arena_bytes(d->a, n + 1);
	memcpy(z, p, n);
	z[n] = 0;
	errno = 0;
	*v = strtod(z, NULL);
	return errno != ERANGE || (*v <= 1 && *v >= -1);
}

/* As Go converts an int64 or a whole float64 on amd64, which upstream's converter of trees leaves it to; NULL: a
 * fraction. */
static const char *dec_wrapped(struct jd *d, const char *p, const struct schema_field *f, void *dst)
{
	const char *q;
	uint64_t v;
	double x;

	if (!parse_int(p, d->end, &q, false, INT64_MIN, INT64_MAX, &v)) {
		if (!parse_double(d, p, &q, &x) || x != trunc(x))
			return NULL;
		v = (uint64_t)(x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN);
	}
	if (f->kind == FIELD_INT32 || f->kind == FIELD_UINT32)
		*(uint32_t *)dst = (uint32_t)v;
	else
		*(uint64_t *)dst = v;
	return q;
}

static const char *dec_int(struct jd *d, const char *p, const struct schema_field *f, void *dst, const struct frame *fr)
{
	const char *q;
	uint64_t v;

	if (unlikely(!is_number(p)))
		return type_mismatch(d, p, f, true, fr);
	if (d->wraps && (q = dec_wrapped(d, p, f, dst)))
		return q;
	switch (f->kind) {
	case FIELD_INT32:
		if (!parse_int(p, d->end, &q, false, INT32_MIN, INT32_MAX, &v))
			break;
		*(int32_t *)dst = (int32_t)v;
		return q;
	case FIELD_INT64:
		if (!parse_int(p, d->end, &q, false, INT64_MIN, INT64_MAX, &v))
			break;
		*(int64_t *)dst = (int64_t)v;
		return q;
	case FIELD_UINT32:
		if (!parse_int(p, d->end, &q, true, 0, UINT32_MAX, &v))
			break;
		*(uint32_t *)dst = (uint32_t)v;
		return q;
	default:
		if (!parse_int(p, d->end, &q, true, 0, UINT64_MAX, &v))
			break;
		*(uint64_t *)dst = v;
		return q;
	}
	return type_mismatch(d, p, f, true, fr);
}

static const char *dec_double(struct jd *d, const char *p, const struct schema_field *f, double *dst, const struct frame *fr)
{
	if (!is_number(p))
		return type_mismatch(d, p, f, true, fr);
	const char *q;

	if (!parse_double(d, p, &q, dst))
		return q ? type_mismatch(d, p, f, true, fr) : NULL;
	return q;
}

/* verbatim: as it was sent, which is what upstream stores of runtime.RawExtension; else compact. */
static const char *dec_raw(struct jd *d, const char *p, bool verbatim, struct str *dst)
{
	bool spaces = false;
	const char *q;

	d->syn.huge = STR_NULL;
	q = json_skip(p, d->end, CODEC_MAX_DEPTH - d->depth, &spaces, &d->syn);
	if (!q)
		return NULL;
	if (unlikely(d->syn.huge.n) && !d->hard)
		hard_error(d, error_status(400, "BadRequest", "json: cannot unmarshal number %.*s into Go value of type float64",
					   STR_ARG(str_sub(d->syn.huge, 0, d->syn.huge.n < 64 ? d->syn.huge.n : 64))));
	struct str v = str_of(p, (size_t)(q - p));

	if (spaces && !verbatim) {
		char *to = arena_bytes(d->a, v.n);

		v = str_of(to, json_compact(to, v));
		d->a->cur = to + v.n;
	}
	*dst = v;
	return q;
}

static const char *dec_quantity(struct jd *d, const char *p, struct str *dst)
{
	struct str text;

	if (*p == '"') {
		p = dec_str(d, p, &text);
	} else {
		const char *q = skip(d, p);

		text = q ? str_of(p, (size_t)(q - p)) : STR_NULL;
		p = q;
	}
	if (!p)
		return NULL;
	if (!quantity_normal(d->a, str_trim(text), dst) && !d->hard) {
		struct str ignored;

		hard_error(d, quantity_canonical(d->a, str_trim(text), &ignored));
	}
	return p;
}

static const char *dec_time(struct jd *d, const char *p, const struct schema_field *f, struct api_time *dst, const struct frame *fr)
{
	bool micro = f->kind == FIELD_MICROTIME;
	struct str text;

	if (*p != '"')
		return type_mismatch(d, p, f, true, fr);
	p = dec_str(d, p, &text);
	if (p && !(micro ? time_parse_micro(text, dst) : time_parse(text, dst)) && !d->hard)
		hard_error(d, error_status(400, "BadRequest", "%.*s", STR_ARG(time_parse_error(d->a, text, micro))));
	return p;
}

static const char *dec_duration(struct jd *d, const char *p, const struct schema_field *f, int64_t *dst, const struct frame *fr)
{
	struct str text;

	if (*p != '"')
		return type_mismatch(d, p, f, true, fr);
	p = dec_str(d, p, &text);
	if (p && !duration_parse(text, dst) && !d->hard)
		hard_error(d, error_status(400, "BadRequest", "time: invalid duration \"%.*s\"", STR_ARG(str_sub(text, 0, 256))));
	return p;
}

static const char *dec_list(struct jd *d, const char *p, const struct schema_field *f, struct raw_list *l, const struct frame *up);

/* Bytes one by one, which Go reads as well. */
static const char *dec_byte_list(struct jd *d, const char *p, struct str *dst, const struct frame *fr)
{
	static const struct schema_field element = {.kind = FIELD_INT64, .card = CARD_LIST, .elem_size = sizeof(int64_t)};
	struct raw_list l = {0};
	char *bytes;

	p = dec_list(d, p, &element, &l, fr);
	bytes = arena_bytes(d->a, l.n + 1);
	for (uint32_t i = 0; i < l.n; i++) {
		int64_t v = ((const int64_t *)(const void *)l.v)[i];

		if ((v < 0 || v > UINT8_MAX) && !d->wraps && !d->soft)
			d->soft = error_status(400, "BadRequest", "json: cannot unmarshal number %lld into Go value of type uint8", (long long)v);
		bytes[i] = (char)v;
	}
	*dst = str_of(bytes, l.n);
	return p;
}

static const char *dec_bytes(struct jd *d, const char *p, const struct schema_field *f, struct str *dst, const struct frame *fr)
{
	struct str text;

	if (*p == '[')
		return dec_byte_list(d, p, dst, fr);
	if (*p != '"')
		return type_mismatch(d, p, f, true, fr);
	p = dec_str(d, p, &text);
	if (p && !base64_decode(d->a, text, dst) && !d->soft)
		d->soft = error_status(400, "BadRequest", "illegal base64 data at input byte %zu", base64_error_offset(text));
	return p;
}

static const char *dec_intstr(struct jd *d, const char *p, const struct schema_field *f, struct int_or_string *dst,
			      const struct frame *fr)
{
	const char *q;
	uint64_t v;

	if (*p == '"') {
		dst->is_str = true;
		return dec_str(d, p, &dst->s);
	}
	if (!is_number(p) || !parse_int(p, d->end, &q, false, INT32_MIN, INT32_MAX, &v))
		return type_mismatch(d, p, f, true, fr);
	*dst = (struct int_or_string){.i = (int32_t)v};
	return q;
}

/* ---- composites ---- */

/* The member of t called key, looked for from *next on: objects mostly come in the order of the table or sorted. */
static inline const struct schema_field *lookup(const struct schema_type *t, struct str key, unsigned *next)
{
	const struct schema_field *fields = t->fields;
	unsigned n = t->n_fields;

	for (unsigned i = *next; i < n; i++)
		if (fields[i].name.n == key.n && memcmp(fields[i].name.p, key.p, key.n) == 0) {
			*next = i + 1;
			return &fields[i];
		}
	for (unsigned i = 0; i < *next && i < n; i++)
		if (fields[i].name.n == key.n && memcmp(fields[i].name.p, key.p, key.n) == 0) {
			*next = i + 1;
			return &fields[i];
		}
	return NULL;
}

static const char *dec_one(struct jd *d, const char *p, const struct schema_field *f, void *dst, const struct frame *fr);

static const char *dec_object(struct jd *d, const char *p, const struct schema_type *t, char *out, const struct frame *up)
{
	struct frame fr = {.up = up, .t = t};
	uint64_t seen_few[2] = {0}, *seen = seen_few;
	unsigned next = 0;
	const struct schema_field *rest = t->n_fields && t->fields[t->n_fields - 1].flags & FIELD_REST ? &t->fields[t->n_fields - 1] : NULL;

	if (++d->depth > CODEC_MAX_DEPTH)
		return too_deep(d, p);
	if (unlikely(d->report && t->n_fields > 128))
		seen = arena_alloc(d->a, ((size_t)t->n_fields + 63) / 64 * 8);
	p = json_space(p + 1, d->end);
	if (p < d->end && *p == '}') {
		d->depth--;
		return p + 1;
	}
	for (;;) {
		if (unlikely(p == d->end || *p != '"'))
			return syntax(d, p, "looking for beginning of object key string");
		p = dec_str(d, p, &fr.key);
		if (unlikely(!p))
			return NULL;
		const struct schema_field *f = lookup(t, fr.key, &next);

		if (unlikely(f && f->flags & FIELD_REST))
			f = NULL; /* its own name is nobody's */
		p = json_space(p, d->end);
		if (unlikely(p == d->end || *p != ':'))
			return syntax(d, p, "after object key");
		p = json_space(p + 1, d->end);
		if (unlikely(p == d->end))
			return syntax(d, p, NULL);
		if (likely(f != NULL)) {
			if (d->report) {
				unsigned i = next - 1;

				if (seen[i / 64] >> i % 64 & 1)
					strict_problem(d, "duplicate field ", &fr);
				seen[i / 64] |= 1ULL << i % 64;
			}
			p = dec_value(d, p, f, out + f->offset, &fr);
		} else if (rest) {
			struct raw_list *l = (void *)(out + rest->offset);

			for (uint32_t i = 0; d->report && i < l->n; i++)
				if (str_eq(*(struct str *)(void *)(l->v + i * rest->elem_size), fr.key))
					strict_problem(d, "duplicate field ", &fr);
			char *v = raw_list_push(d->a, l, rest->elem_size);

			*(struct str *)(void *)v = fr.key;
			p = dec_one(d, p, rest, v + rest->value_offset, &fr);
		} else {
			if (d->report)
				strict_problem(d, "unknown field ", &fr);
			p = skip(d, p);
		}
		if (unlikely(!p))
			return NULL;
		p = json_space(p, d->end);
		if (unlikely(p == d->end))
			return syntax(d, p, NULL);
		if (*p == ',') {
			p = json_space(p + 1, d->end);
			continue;
		}
		if (unlikely(*p != '}'))
			return syntax(d, p, "after object key:value pair");
		if (unlikely(rest != NULL))
			map_sort((void *)(out + rest->offset), rest->elem_size);
		d->depth--;
		return p + 1;
	}
}

/* JSONSchemaPropsOrArray, OrBool, OrStringArray. Their inside is not strict, as upstream's. */
static const char *dec_union(struct jd *d, const char *p, const struct schema_type *t, char *out, const struct frame *up)
{
	struct decode_report *report = d->report;
	const struct schema_field *schema = NULL, *other = NULL;

	for (unsigned i = 0; i < t->n_fields; i++) {
		if (t->fields[i].kind == FIELD_MESSAGE && t->fields[i].card == CARD_PTR)
			schema = &t->fields[i];
		else
			other = &t->fields[i];
	}
	d->report = NULL;
	memset(out, 0, t->size);
	if (*p == '{' && schema) {
		p = dec_value(d, p, schema, out + schema->offset, up);
		if (t->json == SCHEMA_OR_BOOL && other)
			*(bool *)(void *)(out + other->offset) = true;
	} else if (t->json == SCHEMA_OR_BOOL ? *p == 't' || *p == 'f' : *p == '[') {
		p = dec_value(d, p, other, out + other->offset, up);
	} else {
		p = skip(d, p);
		if (p && t->json == SCHEMA_OR_BOOL)
			hard_error(d, error_status(400, "BadRequest", "boolean or JSON schema expected"));
	}
	d->report = report;
	return p;
}

static const char *dec_list(struct jd *d, const char *p, const struct schema_field *f, struct raw_list *l, const struct frame *up)
{
	struct frame fr = {.up = up, .list = true};
	size_t elem = f->elem_size;
	uint32_t had = l->n; /* of the same member, given before: Go decodes onto those elements */

	if (++d->depth > CODEC_MAX_DEPTH)
		return too_deep(d, p);
	l->n = 0;
	p = json_space(p + 1, d->end);
	if (p < d->end && *p == ']') {
		l->v = arena_alloc(d->a, 0);
		d->depth--;
		return p + 1;
	}
	for (;;) {
		if (unlikely(p == d->end))
			return syntax(d, p, NULL);
		void *v = l->n < had ? l->v + l->n++ * elem : raw_list_push(d->a, l, elem);

		if (f->kind == FIELD_STRING && *p == '"')
			p = dec_str(d, p, v);
		else
			p = dec_one(d, p, f, v, &fr);
		if (unlikely(!p))
			return NULL;
		p = json_space(p, d->end);
		if (unlikely(p == d->end))
			return syntax(d, p, NULL);
		fr.index++;
		if (*p == ',') {
			p = json_space(p + 1, d->end);
			continue;
		}
		if (unlikely(*p != ']'))
			return syntax(d, p, "after array element");
		d->depth--;
		return p + 1;
	}
}

/* Strict decoding: names each key of the unsorted map that came before, `from` on. */
static void report_duplicates(struct jd *d, const struct raw_list *all, uint32_t from, size_t elem, struct frame *fr)
{
	const struct raw_list one = {all->v + from * elem, all->n - from, all->n - from}, *l = &one;
	struct raw_list sorted = {arena_alloc(d->a, l->n * elem), l->n, l->n};

	memcpy(sorted.v, l->v, l->n * elem);
	map_sort(&sorted, elem);
	if (sorted.n == l->n)
		return;
	bool *seen = arena_alloc(d->a, sorted.n);

	for (uint32_t i = 0; i < l->n; i++) {
		fr->key = *(struct str *)(void *)(l->v + i * elem);
		uint32_t lo = 0, hi = sorted.n;

		while (hi - lo > 1) {
			uint32_t mid = lo + (hi - lo) / 2;

			if (str_cmp(*(struct str *)(void *)(sorted.v + mid * elem), fr->key) <= 0)
				lo = mid;
			else
				hi = mid;
		}
		if (seen[lo])
			strict_problem(d, "duplicate field ", fr);
		seen[lo] = true;
	}
}

static const char *dec_map(struct jd *d, const char *p, const struct schema_field *f, struct raw_list *l, const struct frame *up)
{
	struct frame fr = {.up = up};
	size_t elem = f->elem_size;
	uint32_t had = l->n; /* of the same member, given before: Go decodes into one map */
	bool sorted = true;

	if (++d->depth > CODEC_MAX_DEPTH)
		return too_deep(d, p);
	p = json_space(p + 1, d->end);
	if (p < d->end && *p == '}') {
		l->v = l->v ? l->v : arena_alloc(d->a, 0);
		d->depth--;
		return p + 1;
	}
	for (;;) {
		if (unlikely(p == d->end || *p != '"'))
			return syntax(d, p, "looking for beginning of object key string");
		p = dec_str(d, p, &fr.key);
		if (unlikely(!p))
			return NULL;
		p = json_space(p, d->end);
		if (unlikely(p == d->end || *p != ':'))
			return syntax(d, p, "after object key");
		p = json_space(p + 1, d->end);
		if (unlikely(p == d->end))
			return syntax(d, p, NULL);
		char *v = raw_list_push(d->a, l, elem);

		*(struct str *)(void *)v = fr.key;
		if (sorted && l->n > 1 && str_cmp(*(struct str *)(void *)(v - elem), fr.key) >= 0)
			sorted = false;
		if (f->kind == FIELD_STRING && *p == '"')
			p = dec_str(d, p, (struct str *)(void *)(v + f->value_offset));
		else
			p = dec_one(d, p, f, v + f->value_offset, &fr);
		if (unlikely(!p))
			return NULL;
		p = json_space(p, d->end);
		if (unlikely(p == d->end))
			return syntax(d, p, NULL);
		if (*p == ',') {
			p = json_space(p + 1, d->end);
			continue;
		}
		if (unlikely(*p != '}'))
			return syntax(d, p, "after object key:value pair");
		break;
	}
	if (!sorted) {
		if (d->report)
			report_duplicates(d, l, had, elem, &fr);
		map_sort(l, elem);
	}
	d->depth--;
	return p + 1;
}

/* null at p into one value. */
static const char *dec_null(struct jd *d, const char *p, const struct schema_field *f, void *dst)
{
	bool spaces;

	p = json_skip(p, d->end, 1, &spaces, &d->syn);
	switch (f->kind) {
	case FIELD_TIME:
	case FIELD_MICROTIME:
		*(struct api_time *)dst = (struct api_time){0};
		break;
	case FIELD_QUANTITY:
		*(struct str *)dst = f->card == CARD_MAP ? STR("0") : STR_NULL;
		break;
	case FIELD_BYTES:
		*(struct str *)dst = STR_NULL;
		break;
	case FIELD_ANY:
		*(struct str *)dst = STR("null");
		break;
	case FIELD_STRINGS:
		*(struct strings *)dst = (struct strings){0};
		break;
	default:
		break; /* Go leaves other values as they are */
	}
	return p;
}

static const struct schema_field strings_element = {.kind = FIELD_STRING, .card = CARD_LIST, .elem_size = sizeof(struct str)};

/* One value (an element, or what a pointer points to). p < end. */
static const char *dec_one(struct jd *d, const char *p, const struct schema_field *f, void *dst, const struct frame *fr)
{
	if (unlikely(*p == 'n'))
		return dec_null(d, p, f, dst);
	switch (f->kind) {
	case FIELD_STRING:
		if (unlikely(*p != '"'))
			return type_mismatch(d, p, f, true, fr);
		return dec_str(d, p, dst);
	case FIELD_BOOL:
		if (d->end - p >= 4 && memcmp(p, "true", 4) == 0) {
			*(bool *)dst = true;
			return p + 4;
		}
		if (d->end - p >= 5 && memcmp(p, "false", 5) == 0) {
			*(bool *)dst = false;
			return p + 5;
		}
		return type_mismatch(d, p, f, true, fr);
	case FIELD_INT32:
	case FIELD_INT64:
	case FIELD_UINT32:
	case FIELD_UINT64:
		return dec_int(d, p, f, dst, fr);
	case FIELD_DOUBLE:
		return dec_double(d, p, f, dst, fr);
	case FIELD_BYTES:
		return dec_bytes(d, p, f, dst, fr);
	case FIELD_QUANTITY:
		return dec_quantity(d, p, dst);
	case FIELD_INTSTR:
		return dec_intstr(d, p, f, dst, fr);
	case FIELD_TIME:
	case FIELD_MICROTIME:
		return dec_time(d, p, f, dst, fr);
	case FIELD_DURATION:
		return dec_duration(d, p, f, dst, fr);
	case FIELD_RAW:
	case FIELD_FIELDSV1:
	case FIELD_JSON:
	case FIELD_ANY:
		return dec_raw(d, p, f->kind == FIELD_RAW, dst);
	case FIELD_STRINGS:
		if (unlikely(*p != '['))
			return type_mismatch(d, p, f, true, fr);
		return dec_list(d, p, &strings_element, dst, fr);
	default:
		if (unlikely(f->type->json != SCHEMA_OBJECT))
			return dec_union(d, p, f->type, dst, fr);
		if (unlikely(*p != '{'))
			return type_mismatch(d, p, f, true, fr);
		return dec_object(d, p, f->type, dst, fr);
	}
}

static const char *dec_value(struct jd *d, const char *p, const struct schema_field *f, void *dst, const struct frame *fr)
{
	switch (f->card) {
	case CARD_ONE:
		return dec_one(d, p, f, dst, fr);
	case CARD_PTR: {
		void **ptr = dst;
		bool spaces;

		if (*p == 'n') {
			*ptr = NULL;
			return json_skip(p, d->end, 1, &spaces, &d->syn);
		}
		if (!*ptr)
			*ptr = arena_alloc(d->a, f->elem_size);
		return dec_one(d, p, f, *ptr, fr);
	}
	default: {
		struct raw_list *l = dst;
		bool spaces;

		if (likely(*p == (f->card == CARD_LIST ? '[' : '{')))
			return f->card == CARD_LIST ? dec_list(d, p, f, l, fr) : dec_map(d, p, f, l, fr);
		if (*p == 'n') {
			*l = (struct raw_list){0};
			return json_skip(p, d->end, 1, &spaces, &d->syn);
		}
		return type_mismatch(d, p, f, false, fr);
	}
	}
}

static struct error *decode(struct arena *a, const struct schema_type *t, struct str in, bool wraps,
			    struct decode_report *report, void *out)
{
	struct jd d = {.end = in.p + in.n, .a = a, .report = report, .wraps = wraps, .in = in};
	struct schema_field self = {.kind = FIELD_MESSAGE, .card = CARD_ONE, .type = t};
	const char *p = json_space(in.p, d.end);

	if (p == d.end)
		p = syntax(&d, p, NULL);
	else
		p = dec_one(&d, p, &self, out, NULL);
	if (p) {
		p = json_space(p, d.end);
		if (p != d.end)
			p = syntax(&d, p, "after top-level value");
	}
	if (!p) {
		error_free(d.hard);
		error_free(d.soft);
		return json_syntax_error(in, &d.syn);
	}
	if (d.hard) {
		error_free(d.soft);
		return d.hard;
	}
	return d.soft;
}

struct error *json_decode(struct arena *a, const struct schema_type *t, struct str in, struct decode_report *report,
			  void *out)
{
	return decode(a, t, in, false, report, out);
}

struct error *json_decode_merged(struct arena *a, const struct schema_type *t, struct str in,
				 struct decode_report *report, void *out)
{
	return decode(a, t, in, true, report, out);
}
