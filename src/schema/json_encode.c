/* Structs to JSON, byte for byte as Go's encoding/json writes upstream's types. */
#include <stdlib.h>

#include "base/log.h"
#include "schema/codec.h"
#include "schema/codec_internal.h"

static char *enc_message(struct je *e, char *w, const struct schema_type *t, const char *obj);

char *je_grow(struct je *e, char *w, size_t n)
{
	e->b->n = (size_t)(w - e->b->p);
	buf_reserve(e->b, n + 2 * JE_SLACK);
	return je_resume(e);
}

static char *put_uint(char *w, uint64_t v)
{
	static const char two[201] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
				     "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
				     "9899";
	char tmp[24];
	size_t i = sizeof tmp;

	if (v < 10) {
		*w = (char)('0' + v);
		return w + 1;
	}
	while (v >= 100) {
		i -= 2;
		memcpy(tmp + i, two + v % 100 * 2, 2);
		v /= 100;
	}
	if (v >= 10) {
		i -= 2;
		memcpy(tmp + i, two + v * 2, 2);
	} else {
		tmp[--i] = (char)('0' + v);
	}
	memcpy(w, tmp + i, sizeof tmp - i);
	return w + sizeof tmp - i;
}

static char *put_int(char *w, int64_t v)
{
	if (v < 0) {
		*w++ = '-';
		return put_uint(w, 0 - (uint64_t)v);
	}
	return put_uint(w, (uint64_t)v);
}

static inline char *put_null(char *w)
{
	memcpy(w, "null", 4);
	return w + 4;
}

static char *put_strings(struct je *e, char *w, const struct raw_list *l)
{
	*w++ = '[';
	for (uint32_t i = 0; i < l->n; i++) {
		if (i)
			*w++ = ',';
		w = je_string(e, w, ((const struct str *)(const void *)l->v)[i]);
	}
	*w++ = ']';
	return je_check(e, w);
}

char *je_value(struct je *e, char *w, uint8_t kind, const struct schema_type *type, const void *v)
{
	switch (kind) {
	case FIELD_STRING:
		return je_string(e, w, *(const struct str *)v);
	case FIELD_BOOL:
		if (*(const bool *)v) {
			memcpy(w, "true", 4);
			return w + 4;
		}
		memcpy(w, "false", 5);
		return w + 5;
	case FIELD_INT32:
		return put_int(w, *(const int32_t *)v);
	case FIELD_INT64:
		return put_int(w, *(const int64_t *)v);
	case FIELD_UINT32:
		return put_uint(w, *(const uint32_t *)v);
	case FIELD_UINT64:
		return put_uint(w, *(const uint64_t *)v);
	case FIELD_QUANTITY: {
		struct str s = *(const struct str *)v;

		return je_string(e, w, s.n ? s : STR("0"));
	}
	case FIELD_INTSTR: {
		const struct int_or_string *is = v;

		return is->is_str ? je_string(e, w, is->s) : put_int(w, is->i);
	}
	case FIELD_TIME:
	case FIELD_MICROTIME: {
		const struct api_time *t = v;

		if (!t->set)
			return put_null(w);
		*w++ = '"';
		w = time_write(w, *t, kind == FIELD_MICROTIME);
		*w++ = '"';
		return je_check(e, w);
	}
	case FIELD_STRINGS: {
		const struct raw_list *l = v;

		return l->v ? put_strings(e, w, l) : put_null(w);
	}
	case FIELD_MESSAGE:
		return enc_message(e, w, type, v);
	default:
		break;
	}
	/* The rare ones append to the buffer itself. */
	struct buf *b = e->b;

	b->n = (size_t)(w - b->p);
	switch (kind) {
	case FIELD_DOUBLE:
		json_put_double(b, *(const double *)v);
		break;
	case FIELD_BYTES: {
		struct str s = *(const struct str *)v;

		if (!s.p) {
			buf_append(b, "null", 4);
			break;
		}
		buf_putc(b, '"');
		base64_encode(b, s);
		buf_putc(b, '"');
		break;
	}
	case FIELD_DURATION:
		buf_putc(b, '"');
		duration_put(b, *(const int64_t *)v);
		buf_putc(b, '"');
		break;
	default: /* FIELD_RAW, FIELD_FIELDSV1, FIELD_JSON, FIELD_ANY */
		json_put_raw(b, *(const struct str *)v);
	}
	return je_resume(e);
}

/* Go's rule of omitempty: structs are never empty. */
static inline bool is_empty(const struct schema_field *f, const void *v)
{
	switch (f->card) {
	case CARD_PTR:
		return !*(void *const *)v;
	case CARD_LIST:
	case CARD_MAP:
		return ((const struct raw_list *)v)->n == 0;
	default:
		break;
	}
	switch (f->kind) {
	case FIELD_STRING:
	case FIELD_BYTES:
	case FIELD_ANY:
		return ((const struct str *)v)->n == 0;
	case FIELD_BOOL:
		return !*(const bool *)v;
	case FIELD_INT32:
	case FIELD_UINT32:
		return *(const int32_t *)v == 0;
	case FIELD_INT64:
	case FIELD_UINT64:
		return *(const int64_t *)v == 0;
	case FIELD_DOUBLE:
		return *(const double *)v == 0;
	case FIELD_STRINGS:
		return ((const struct strings *)v)->n == 0;
	default:
		return false;
	}
}

static bool all_zero(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static bool is_zero(const struct schema_field *f, const void *v)
{
	if (f->card == CARD_LIST || f->card == CARD_MAP)
		return !((const struct raw_list *)v)->v;
	if (f->card == CARD_PTR)
		return !*(void *const *)v;
	if (f->kind == FIELD_TIME || f->kind == FIELD_MICROTIME)
		return !((const struct api_time *)v)->set;
	return all_zero(v, value_size(f->kind, f->type));
}

bool json_omits(const struct schema_field *f, const void *v)
{
	return (f->flags & FIELD_OMITEMPTY && is_empty(f, v)) || (f->flags & FIELD_OMITZERO && is_zero(f, v));
}

static char *enc_list(struct je *e, char *w, const struct schema_field *f, const struct raw_list *l)
{
	if (f->kind == FIELD_STRING)
		return put_strings(e, w, l);
	*w++ = '[';
	for (uint32_t i = 0; i < l->n; i++) {
		if (i)
			*w++ = ',';
		w = je_check(e, je_value(e, w, f->kind, f->type, l->v + (size_t)i * f->elem_size));
	}
	*w++ = ']';
	return je_check(e, w);
}

static char *enc_map(struct je *e, char *w, const struct schema_field *f, const struct raw_list *l)
{
	struct raw_list sorted = *l;
	char *copy = NULL;

	if (unlikely(!map_is_sorted(l, f->elem_size))) {
		copy = xmalloc(l->n * (size_t)f->elem_size);
		memcpy(copy, l->v, l->n * (size_t)f->elem_size);
		sorted.v = copy;
		map_sort(&sorted, f->elem_size);
	}
	*w++ = '{';
	for (uint32_t i = 0; i < sorted.n; i++) {
		const char *item = sorted.v + (size_t)i * f->elem_size;

		if (i)
			*w++ = ',';
		w = je_string(e, w, *(const struct str *)(const void *)item);
		*w++ = ':';
		w = je_check(e, je_value(e, w, f->kind, f->type, item + f->value_offset));
	}
	*w++ = '}';
	free(copy);
	return je_check(e, w);
}

static char *enc_union(struct je *e, char *w, const struct schema_type *t, const char *obj)
{
	const struct schema_field *schema = NULL, *other = NULL;

	for (unsigned i = 0; i < t->n_fields; i++) {
		if (t->fields[i].kind == FIELD_MESSAGE && t->fields[i].card == CARD_PTR)
			schema = &t->fields[i];
		else
			other = &t->fields[i];
	}
	const void *s = schema ? *(void *const *)(const void *)(obj + schema->offset) : NULL;

	if (t->json == SCHEMA_OR_BOOL)
		return s ? enc_message(e, w, schema->type, s) : je_value(e, w, FIELD_BOOL, NULL, obj + other->offset);
	const struct raw_list *l = (const void *)(obj + other->offset);

	if (l->n)
		return enc_list(e, w, other, l);
	return s ? enc_message(e, w, schema->type, s) : put_null(w);
}

/* One that is not left out, behind `before`. */
static inline char *enc_member(struct je *e, char *w, char before, const struct schema_field *f, const char *v)
{
	const struct raw_list *l = (const void *)v;
	const void *ptr;

	w = je_key(e, w, before, f);
	switch (f->card) {
	case CARD_ONE:
		if (f->kind == FIELD_STRING)
			return je_string(e, w, *(const struct str *)(const void *)v);
		return je_value(e, w, f->kind, f->type, v);
	case CARD_PTR:
		ptr = *(void *const *)(const void *)v;
		return ptr ? je_value(e, w, f->kind, f->type, ptr) : put_null(w);
	default:
		if (!l->v && !l->n)
			return put_null(w);
		return f->card == CARD_LIST ? enc_list(e, w, f, l) : enc_map(e, w, f, l);
	}
}

static char *enc_by_name(struct je *e, char *w, const struct schema_type *t, const char *obj)
{
	const struct schema_field *last = &t->fields[t->n_fields - 1];
	const struct raw_list *rest = last->flags & FIELD_REST ? (const void *)(obj + last->offset) : NULL;
	unsigned n = rest ? t->n_fields - 1u : t->n_fields;
	uint32_t r = 0;
	char before = '{';

	for (unsigned k = 0; k <= n; k++) {
		const struct schema_field *f = k < n ? &t->fields[t->by_name[k]] : NULL;

		for (; rest && r < rest->n; r++) {
			const char *item = rest->v + (size_t)r * last->elem_size;
			struct str name = *(const struct str *)(const void *)item;

			if (f && str_cmp(name, f->name) > 0)
				break;
			*w++ = before;
			before = ',';
			w = je_string(e, w, name);
			*w++ = ':';
			w = je_check(e, je_value(e, w, last->kind, last->type, item + last->value_offset));
		}
		if (!f || json_omits(f, obj + f->offset))
			continue;
		w = enc_member(e, w, before, f, obj + f->offset);
		before = ',';
	}
	if (before == '{')
		*w++ = '{';
	*w++ = '}';
	return je_check(e, w);
}

static char *enc_message(struct je *e, char *w, const struct schema_type *t, const char *obj)
{
	if (unlikely(t->json != SCHEMA_OBJECT))
		return enc_union(e, w, t, obj);
	if (unlikely(e->sorted))
		return enc_by_name(e, w, t, obj);
	char before = '{';

	for (unsigned k = 0; k < t->n_fields; k++) {
		const struct schema_field *f = &t->fields[k];
		const char *v = obj + f->offset;

		if (f->flags & FIELD_OMITEMPTY && is_empty(f, v))
			continue;
		if (unlikely(f->flags & FIELD_OMITZERO) && is_zero(f, v))
			continue;
		w = enc_member(e, w, before, f, v);
		before = ',';
	}
	if (before == '{')
		*w++ = '{';
	*w++ = '}';
	return je_check(e, w);
}

void json_encode(struct buf *b, const struct schema_type *t, const void *obj)
{
	/* Straight appends: the limit is looked at once, at the end. */
	size_t limit = b->limit, before = b->n;

	if (limit && b->overflow)
		return;
	b->limit = 0;
	struct je e = {.b = b, .sorted = t->by_name && t->n_fields && t->fields[t->n_fields - 1].flags & FIELD_REST};
	char *w = enc_message(&e, je_begin(&e), t, obj);

	b->n = (size_t)(w - b->p);
	b->limit = limit;
	if (limit && b->n > limit) {
		b->n = before;
		b->overflow = true;
	}
}
