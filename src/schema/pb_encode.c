/*
 * Structs to Kubernetes protobuf, byte for byte as upstream's generated code: fields in order of number,
 * values that are not pointers always written, lists unpacked, maps sorted by key.
 * Written backwards, so that the length of a message is known when it is needed.
 */
#include <stdlib.h>

#include "base/log.h"
#include "schema/codec.h"
#include "schema/codec_internal.h"

struct pw { /* bytes [p, end) are written; [start, p) is free */
	char *start, *p, *end;
	struct buf *b;
	size_t keep; /* bytes of b before our output */
};

static void grow(struct pw *w, size_t n)
{
	struct buf *b = w->b;
	size_t used = (size_t)(w->end - w->p), from = (size_t)(w->p - b->p), want;

	if (__builtin_add_overflow(used, n, &want) || want > SIZE_MAX / 4)
		die_oom();
	b->n = w->keep;
	/* buf_reserve keeps the whole allocation's bytes; move ours to its new end. */
	size_t cap = w->keep + 2 * want + 512;

	b->p = xrealloc(b->p, cap);
	b->cap = cap;
	memmove(b->p + cap - used, b->p + from, used);
	w->start = b->p + w->keep;
	w->end = b->p + cap;
	w->p = w->end - used;
}

static inline void need(struct pw *w, size_t n)
{
	if (unlikely((size_t)(w->p - w->start) < n))
		grow(w, n);
}

static inline void put_varint(struct pw *w, uint64_t v)
{
	need(w, 10);
	if (likely(v < 0x80)) {
		*--w->p = (char)v;
		return;
	}
	unsigned n = (unsigned)(64 - __builtin_clzll(v) + 6) / 7;
	char *p = w->p -= n;

	while (v >= 0x80) {
		*p++ = (char)(v | 0x80);
		v >>= 7;
	}
	*p = (char)v;
}

static inline void put_tag(struct pw *w, uint32_t number, uint32_t wire)
{
	put_varint(w, number << 3 | wire);
}

static inline void put_bytes(struct pw *w, uint32_t number, struct str s)
{
	need(w, s.n);
	w->p -= s.n;
	if (s.n)
		memcpy(w->p, s.p, s.n);
	put_varint(w, s.n);
	put_tag(w, number, 2);
}

static void put_message(struct pw *w, const struct schema_type *t, const char *obj);

static void put_value(struct pw *w, uint32_t number, uint8_t kind, const struct schema_type *type, const void *v)
{
	char *end;

	switch (kind) {
	case FIELD_STRING:
		put_bytes(w, number, *(const struct str *)v);
		return;
	case FIELD_BYTES:
		if (((const struct str *)v)->p)
			put_bytes(w, number, *(const struct str *)v);
		return;
	case FIELD_BOOL:
		put_varint(w, *(const bool *)v);
		put_tag(w, number, 0);
		return;
	case FIELD_INT32:
		put_varint(w, (uint64_t)(int64_t)*(const int32_t *)v);
		put_tag(w, number, 0);
		return;
	case FIELD_UINT32:
		put_varint(w, *(const uint32_t *)v);
		put_tag(w, number, 0);
		return;
	case FIELD_INT64:
	case FIELD_UINT64:
		put_varint(w, *(const uint64_t *)v);
		put_tag(w, number, 0);
		return;
	case FIELD_DOUBLE: {
		uint64_t bits;

		memcpy(&bits, v, 8);
		need(w, 8);
		for (int i = 7; i >= 0; i--)
			*--w->p = (char)(bits >> 8 * i);
		put_tag(w, number, 1);
		return;
	}
	default:
		break;
	}
	/* Messages. */
	size_t after = (size_t)(w->end - w->p);

	switch (kind) {
	case FIELD_QUANTITY: {
		struct str s = *(const struct str *)v;

		put_bytes(w, 1, s.n ? s : STR("0"));
		break;
	}
	case FIELD_INTSTR: {
		const struct int_or_string *is = v;

		put_bytes(w, 3, is->is_str ? is->s : STR_NULL);
		put_varint(w, is->is_str ? 0 : (uint64_t)(int64_t)is->i);
		put_tag(w, 2, 0);
		put_varint(w, is->is_str);
		put_tag(w, 1, 0);
		break;
	}
	case FIELD_TIME:
	case FIELD_MICROTIME: {
		const struct api_time *t = v;

		if (!t->set)
			break;
		put_varint(w, kind == FIELD_MICROTIME ? (uint64_t)(t->ns / 1000 * 1000) : 0);
		put_tag(w, 2, 0);
		put_varint(w, (uint64_t)t->s);
		put_tag(w, 1, 0);
		break;
	}
	case FIELD_DURATION:
		put_varint(w, *(const uint64_t *)v);
		put_tag(w, 1, 0);
		break;
	case FIELD_RAW:
	case FIELD_FIELDSV1:
	case FIELD_JSON:
		if (((const struct str *)v)->p)
			put_bytes(w, 1, *(const struct str *)v);
		break;
	case FIELD_STRINGS: {
		const struct strings *l = v;

		for (uint32_t i = l->n; i--;)
			put_bytes(w, 1, l->v[i]);
		break;
	}
	case FIELD_MESSAGE:
		put_message(w, type, v);
		break;
	default:
		return; /* FIELD_ANY is JSON only */
	}
	end = w->end - after;
	put_varint(w, (uint64_t)(end - w->p));
	put_tag(w, number, 2);
}

static void put_map(struct pw *w, const struct schema_field *f, const struct raw_list *l)
{
	struct raw_list sorted = *l;
	char *copy = NULL;

	if (unlikely(!map_is_sorted(l, f->elem_size))) {
		copy = xmalloc(l->n * (size_t)f->elem_size);
		memcpy(copy, l->v, l->n * (size_t)f->elem_size);
		sorted.v = copy;
		map_sort(&sorted, f->elem_size);
	}
	for (uint32_t i = sorted.n; i--;) {
		const char *e = sorted.v + (size_t)i * f->elem_size;
		size_t after = (size_t)(w->end - w->p);

		put_value(w, 2, f->kind, f->type, e + f->value_offset);
		put_bytes(w, 1, *(const struct str *)(const void *)e);
		put_varint(w, (uint64_t)(w->end - after - w->p));
		put_tag(w, f->number, 2);
	}
	free(copy);
}

static void put_message(struct pw *w, const struct schema_type *t, const char *obj)
{
	for (unsigned k = t->n_pfields; k--;) {
		const struct schema_field *f = &t->pfields[k];
		const char *v = obj + f->offset;

		switch (f->card) {
		case CARD_ONE:
			put_value(w, f->number, f->kind, f->type, v);
			break;
		case CARD_PTR: {
			const void *p = *(void *const *)(const void *)v;

			if (p)
				put_value(w, f->number, f->kind, f->type, p);
			break;
		}
		case CARD_LIST: {
			const struct raw_list *l = (const void *)v;

			for (uint32_t i = l->n; i--;)
				put_value(w, f->number, f->kind, f->type, l->v + (size_t)i * f->elem_size);
			break;
		}
		default: {
			const struct raw_list *l = (const void *)v;

			if (l->n)
				put_map(w, f, l);
		}
		}
	}
}

static struct pw begin(struct buf *b)
{
	buf_reserve(b, 512);
	return (struct pw){b->p + b->n, b->p + b->cap, b->p + b->cap, b, b->n};
}

static void finish(struct pw *w)
{
	struct buf *b = w->b;
	size_t used = (size_t)(w->end - w->p);

	if (b->limit && used > b->limit - (w->keep < b->limit ? w->keep : b->limit)) {
		b->n = w->keep;
		b->overflow = true;
		return;
	}
	memmove(b->p + w->keep, w->p, used);
	b->n = w->keep + used;
}

void pb_encode(struct buf *b, const struct schema_type *t, const void *obj)
{
	if (b->limit && b->overflow)
		return;
	struct pw w = begin(b);

	put_message(&w, t, obj);
	finish(&w);
}

size_t pb_size(const struct schema_type *t, const void *obj)
{
	buf_cleanup struct buf b = {0};

	pb_encode(&b, t, obj);
	return b.n;
}

void pb_envelope_encode(struct buf *b, struct str api_version, struct str kind, const struct schema_type *t, const void *obj)
{
	if (b->limit && b->overflow)
		return;
	struct pw w = begin(b);

	put_bytes(&w, 4, STR_NULL);
	put_bytes(&w, 3, STR_NULL);
	size_t after = (size_t)(w.end - w.p);

	put_message(&w, t, obj);
	put_varint(&w, (uint64_t)(w.end - after - w.p));
	put_tag(&w, 2, 2);
	after = (size_t)(w.end - w.p);
	put_bytes(&w, 2, kind);
	put_bytes(&w, 1, api_version);
	put_varint(&w, (uint64_t)(w.end - after - w.p));
	put_tag(&w, 1, 2);
	need(&w, 4);
	w.p -= 4;
	memcpy(w.p, "k8s\0", 4);
	finish(&w);
}
