/* Kubernetes protobuf to structs, driven by descriptors; strings point into the input. */
#include <stdlib.h>

#include "schema/codec.h"
#include "schema/codec_internal.h"
#include "schema/quantity.h"

struct pd {
	struct arena *a;
	struct error *e;
	bool outside; /* from a client: what is JSON within is looked at */
};

static const char *bad(struct pd *d, const char *what)
{
	if (!d->e)
		d->e = error_status(400, "BadRequest", "%s", what);
	return NULL;
}

#define EOF_TEXT "unexpected EOF"
#define OVERFLOW_TEXT "proto: integer overflow"

static const char *varint_slow(struct pd *d, const char *p, const char *end, uint64_t *out)
{
	uint64_t v = 0;

	for (unsigned shift = 0;; shift += 7) {
		if (shift >= 64)
			return bad(d, OVERFLOW_TEXT);
		if (p == end)
			return bad(d, EOF_TEXT);
		uint8_t c = (uint8_t)*p++;

		v |= (uint64_t)(c & 0x7f) << shift;
		if (c < 0x80)
			break;
	}
	*out = v;
	return p;
}

static inline const char *varint(struct pd *d, const char *p, const char *end, uint64_t *out)
{
	if (likely(p < end && (uint8_t)*p < 0x80)) {
		*out = (uint8_t)*p;
		return p + 1;
	}
	if (likely(end - p >= 2 && (uint8_t)p[1] < 0x80)) {
		*out = ((uint64_t)(uint8_t)p[1] << 7) | ((uint8_t)p[0] & 0x7f);
		return p + 2;
	}
	uint64_t v = 0; /* so that *out may live in a register */

	p = varint_slow(d, p, end, &v);
	*out = v;
	return p;
}

/* Length-delimited payload at p. */
static inline const char *payload(struct pd *d, const char *p, const char *end, struct str *out)
{
	uint64_t n;

	p = varint(d, p, end, &n);
	if (unlikely(!p))
		return NULL;
	if (unlikely(n > (size_t)(end - p)))
		return bad(d, EOF_TEXT);
	*out = str_of(p, n);
	return p + n;
}

/* Skips one field's value; groups too, as upstream. */
static const char *skip(struct pd *d, const char *p, const char *end, unsigned wire, unsigned depth)
{
	uint64_t v;
	struct str s = STR_NULL;

	switch (wire) {
	case 0:
		return varint(d, p, end, &v);
	case 1:
		return end - p < 8 ? bad(d, EOF_TEXT) : p + 8;
	case 2:
		return payload(d, p, end, &s);
	case 3:
		if (depth >= CODEC_MAX_DEPTH)
			return bad(d, "proto: groups are nested too deep");
		for (;;) {
			p = varint(d, p, end, &v);
			if (!p)
				return NULL;
			if ((v & 7) == 4)
				return p;
			p = skip(d, p, end, v & 7, depth + 1);
			if (!p)
				return NULL;
		}
	case 5:
		return end - p < 4 ? bad(d, EOF_TEXT) : p + 4;
	case 4:
		return bad(d, "proto: unexpected end of group");
	default:
		return bad(d, "proto: illegal wireType");
	}
}

static const char *wrong_wire(struct pd *d, unsigned wire, struct str name)
{
	if (!d->e)
		d->e = error_status(400, "BadRequest", "proto: wrong wireType = %u for field %.*s", wire, STR_ARG(name));
	return NULL;
}

static bool dec_message(struct pd *d, const struct schema_type *t, struct str in, char *out, unsigned depth);

/* The small messages of fixed shape: fields 1..3 as varint or bytes. */
struct small {
	uint64_t v[4];
	struct str s[4];
	bool has_s[4];
};

static bool dec_small(struct pd *d, struct str in, struct small *m)
{
	const char *p = in.n ? in.p : "", *end = p + in.n;

	*m = (struct small){0};
	while (p < end) {
		uint64_t tag, number;

		p = varint(d, p, end, &tag);
		if (!p)
			return false;
		number = tag >> 3;
		if (number == 0) {
			bad(d, "proto: illegal tag 0");
			return false;
		}
		if (number < 4 && (tag & 7) == 0) {
			p = varint(d, p, end, &m->v[number]);
		} else if (number < 4 && (tag & 7) == 2) {
			p = payload(d, p, end, &m->s[number]);
			m->has_s[number] = true;
		} else {
			p = skip(d, p, end, tag & 7, 0);
		}
		if (!p)
			return false;
	}
	return true;
}

static bool dec_strings(struct pd *d, struct str in, struct strings *l)
{
	static struct str none;
	const char *p = in.n ? in.p : "", *end = p + in.n;

	if (!l->v)
		l->v = &none; /* a message without elements is an empty list */
	while (p < end) {
		uint64_t tag;
		struct str s = STR_NULL;

		p = varint(d, p, end, &tag);
		if (!p)
			return false;
		if (tag == (1 << 3 | 2)) {
			p = payload(d, p, end, &s);
			if (p)
				*arena_push(d->a, l) = s;
		} else {
			p = skip(d, p, end, tag & 7, 0);
		}
		if (!p)
			return false;
	}
	return true;
}

static bool dec_special(struct pd *d, uint8_t kind, struct str s, void *dst)
{
	struct small m;

	if (kind == FIELD_STRINGS)
		return dec_strings(d, s, dst);
	if (!dec_small(d, s, &m))
		return false;
	switch (kind) {
	case FIELD_QUANTITY:
		if (!m.has_s[1]) {
			*(struct str *)dst = STR_NULL;
			return true;
		}
		if (!quantity_normal(d->a, m.s[1], dst)) {
			if (!d->e)
				d->e = quantity_canonical(d->a, m.s[1], dst);
			return false;
		}
		return true;
	case FIELD_INTSTR:
		*(struct int_or_string *)dst =
			m.v[1] ? (struct int_or_string){.is_str = true, .s = m.s[3]} : (struct int_or_string){.i = (int32_t)m.v[2]};
		return true;
	case FIELD_TIME:
	case FIELD_MICROTIME: {
		struct api_time t = {0};

		if (s.n) {
			t.set = true;
			t.s = (int64_t)m.v[1];
			if (kind == FIELD_MICROTIME) {
				int64_t ns = (int32_t)m.v[2] / 1000 * 1000;

				t.s += ns / 1000000000;
				ns %= 1000000000;
				if (ns < 0) {
					ns += 1000000000;
					t.s--;
				}
				t.ns = (int32_t)ns;
			}
			/* The range RFC 3339 can write. */
			if (t.s < -62167219200LL || t.s > 253402300799LL) {
				bad(d, "proto: time is out of range");
				return false;
			}
			if (t.s == -62135596800LL && !t.ns)
				t = (struct api_time){0};
		}
		*(struct api_time *)dst = t;
		return true;
	}
	case FIELD_DURATION:
		*(int64_t *)dst = (int64_t)m.v[1];
		return true;
	default: /* FIELD_RAW, FIELD_FIELDSV1, FIELD_JSON */
		if (m.has_s[1])
			*(struct str *)dst = m.s[1];
		return true;
	}
}

bool pb_special(struct arena *a, uint8_t kind, struct str s, void *dst)
{
	struct pd d = {.a = a};
	bool ok = dec_special(&d, kind, s, dst);

	error_free(d.e);
	return ok;
}

/* JSON within a message must not be more than trees of the whole can hold; what is no JSON is written as null. */
static bool fits_json(struct pd *d, struct str raw, unsigned depth)
{
	struct json_syntax_error e = {0};
	bool spaces = false;

	if (!raw.n || (json_skip(raw.p, raw.p + raw.n, CODEC_MAX_DEPTH - depth, &spaces, &e) && !e.huge.n))
		return true;
	if (e.huge.n)
		return bad(d, "json: cannot unmarshal a number beyond float64 into Go value of type float64");
	return !json_skip(raw.p, raw.p + raw.n, JSON_SKIP_DEPTH, &spaces, &e) || bad(d, "exceeded max depth");
}

static inline unsigned wire_of(uint8_t kind)
{
	return kind >= FIELD_BOOL && kind <= FIELD_UINT64 ? 0 : kind == FIELD_DOUBLE ? 1 : 2;
}

static inline void set_int(uint8_t kind, void *dst, uint64_t v)
{
	switch (kind) {
	case FIELD_BOOL:
		*(bool *)dst = v != 0;
		break;
	case FIELD_INT32:
	case FIELD_UINT32:
		*(uint32_t *)dst = (uint32_t)v;
		break;
	default:
		*(uint64_t *)dst = v;
	}
}

/* One value of field f at p, behind its tag. */
static const char *dec_value(struct pd *d, const char *p, const char *end, uint8_t kind, const struct schema_type *type, void *dst,
			     unsigned depth)
{
	struct str s = STR_NULL;
	uint64_t v;

	switch (kind) {
	case FIELD_BOOL:
	case FIELD_INT32:
	case FIELD_INT64:
	case FIELD_UINT32:
	case FIELD_UINT64:
		p = varint(d, p, end, &v);
		if (likely(p != NULL))
			set_int(kind, dst, v);
		return p;
	case FIELD_DOUBLE:
		if (end - p < 8)
			return bad(d, EOF_TEXT);
		v = 0;
		for (int i = 7; i >= 0; i--)
			v = v << 8 | (uint8_t)p[i];
		memcpy(dst, &v, 8);
		return p + 8;
	case FIELD_STRING:
	case FIELD_BYTES:
		return payload(d, p, end, dst);
	case FIELD_MESSAGE:
		p = payload(d, p, end, &s);
		return p && dec_message(d, type, s, dst, depth + 1) ? p : NULL;
	default:
		p = payload(d, p, end, &s);
		if (!p || !dec_special(d, kind, s, dst))
			return NULL;
		if (d->outside && (kind == FIELD_RAW || kind == FIELD_FIELDSV1 || kind == FIELD_JSON) && !fits_json(d, *(const struct str *)dst, depth))
			return NULL;
		return p;
	}
}

/* How many more fields with this tag follow one another at p (each length-delimited). */
static uint32_t run_length(const char *p, const char *end, uint64_t tag)
{
	struct pd quiet = {.e = NULL};
	uint32_t n = 0;
	uint64_t t;
	struct str s = STR_NULL;

	while (p < end) {
		/* Only well-formed prefixes are counted; errors are found, and told, by the decoder. */
		const char *q = p;
		unsigned shift = 0;

		t = 0;
		while (q < end && shift < 35) {
			uint8_t c = (uint8_t)*q++;

			t |= (uint64_t)(c & 0x7f) << shift;
			shift += 7;
			if (c < 0x80)
				break;
		}
		if (t != tag || q == end)
			break;
		q = payload(&quiet, q, end, &s);
		if (!q) {
			error_free(quiet.e);
			break;
		}
		n++;
		p = q;
	}
	return n;
}

static const char *dec_map_entry(struct pd *d, const struct schema_field *f, struct str in, struct raw_list *l, bool *dirty,
				 unsigned depth)
{
	char *e = raw_list_push(d->a, l, f->elem_size);
	struct str *key = (struct str *)(void *)e;
	const char *p = in.n ? in.p : "", *end = p + in.n;

	*key = STR("");
	if (f->kind == FIELD_BYTES)
		*(struct str *)(void *)(e + f->value_offset) = STR(""); /* Go: an entry without a value is empty, not nil */
	while (p < end) {
		uint64_t tag;

		p = varint(d, p, end, &tag);
		if (unlikely(!p))
			return NULL;
		if (tag == (1 << 3 | 2))
			p = payload(d, p, end, key);
		else if (tag == (2 << 3 | wire_of(f->kind)))
			p = dec_value(d, p, end, f->kind, f->type, e + f->value_offset, depth);
		else
			p = skip(d, p, end, tag & 7, 0);
		if (unlikely(!p))
			return NULL;
	}
	if (!*dirty && l->n > 1 && str_cmp(*(struct str *)(void *)(e - f->elem_size), *key) >= 0)
		*dirty = true;
	return end;
}

/* Packed form of a list of numbers. */
static bool dec_packed(struct pd *d, const struct schema_field *f, struct str in, struct raw_list *l)
{
	const char *p = in.n ? in.p : "", *end = p + in.n;

	while (p < end) {
		p = dec_value(d, p, end, f->kind, f->type, raw_list_push(d->a, l, f->elem_size), 0);
		if (!p)
			return false;
	}
	return true;
}

static const struct schema_field *lookup_slow(const struct schema_type *t, uint64_t number)
{
	if (!t->pindex)
		for (unsigned i = 0; i < t->n_pfields; i++)
			if (t->pfields[i].number == number)
				return &t->pfields[i];
	return NULL;
}

static inline const struct schema_field *lookup(const struct schema_type *t, uint64_t number)
{
	if (likely(number < t->n_pindex && t->pindex[number]))
		return &t->pfields[t->pindex[number] - 1];
	return lookup_slow(t, number);
}

/* A field f whose wire type is not its own: packed lists of numbers, or an error. */
static const char *dec_other_wire(struct pd *d, const char *p, const char *end, unsigned wire, const struct schema_field *f, void *dst)
{
	struct str s = STR_NULL;

	if (f->card != CARD_LIST || wire != 2 || wire_of(f->kind) == 2)
		return wrong_wire(d, wire, f->name);
	p = payload(d, p, end, &s);
	return p && dec_packed(d, f, s, dst) ? p : NULL;
}

static bool dec_message(struct pd *d, const struct schema_type *t, struct str in, char *out, unsigned depth)
{
	const char *p = in.n ? in.p : "", *end = p + in.n;
	bool dirty = false; /* some map's keys came out of order */

	if (unlikely(depth > CODEC_MAX_DEPTH)) {
		bad(d, "proto: messages are nested too deep");
		return false;
	}
	while (p < end) {
		uint64_t tag;

		p = varint(d, p, end, &tag);
		if (unlikely(!p))
			return false;
		unsigned wire = tag & 7;
		const struct schema_field *f = lookup(t, tag >> 3);

		if (unlikely(!f)) {
			if (tag >> 3 == 0 || tag >> 3 > INT32_MAX)
				p = bad(d, "proto: illegal tag");
			else
				p = skip(d, p, end, wire, 0);
			if (!p)
				return false;
			continue;
		}
		void *dst = out + f->offset;

		if (f->card == CARD_ONE && f->kind == FIELD_STRING && likely(wire == 2)) {
			p = payload(d, p, end, dst);
		} else if (unlikely(wire != wire_of(f->kind)) && (f->card != CARD_MAP || wire != 2)) {
			p = dec_other_wire(d, p, end, wire, f, dst);
		} else if (f->card == CARD_ONE) {
			p = dec_value(d, p, end, f->kind, f->type, dst, depth);
		} else if (f->card == CARD_PTR) {
			void **ptr = dst;

			if (!*ptr)
				*ptr = arena_alloc(d->a, f->elem_size);
			p = dec_value(d, p, end, f->kind, f->type, *ptr, depth);
		} else if (f->card == CARD_LIST) {
			struct raw_list *l = dst;

			/* Lists and maps count as a level, so that what is decoded can be written as JSON. */
			if (wire == 2 && l->n == l->cap) {
				struct str s = STR_NULL;
				const char *q = payload(d, p, end, &s);

				if (!q)
					return false;
				raw_list_reserve(d->a, l, f->elem_size, 1 + run_length(q, end, tag));
			}
			p = dec_value(d, p, end, f->kind, f->type, raw_list_push(d->a, l, f->elem_size), depth + 1);
		} else if (likely(wire == 2)) {
			struct raw_list *l = dst;
			struct str s = STR_NULL;

			p = payload(d, p, end, &s);
			if (unlikely(!p))
				return false;
			if (l->n == l->cap)
				raw_list_reserve(d->a, l, f->elem_size, 1 + run_length(p, end, tag));
			if (!dec_map_entry(d, f, s, l, &dirty, depth + 1))
				return false;
		} else {
			p = wrong_wire(d, wire, f->name);
		}
		if (unlikely(!p))
			return false;
	}
	if (unlikely(dirty))
		for (unsigned i = 0; i < t->n_pfields; i++)
			if (t->pfields[i].card == CARD_MAP)
				map_sort((struct raw_list *)(void *)(out + t->pfields[i].offset), t->pfields[i].elem_size);
	return true;
}

struct error *pb_decode(struct arena *a, const struct schema_type *t, struct str in, void *out)
{
	struct pd d = {.a = a};

	if (!dec_message(&d, t, in, out, 1))
		return d.e;
	return NULL;
}

struct error *pb_decode_outside(struct arena *a, const struct schema_type *t, struct str in, void *out)
{
	struct pd d = {.a = a, .outside = true};

	if (!dec_message(&d, t, in, out, 1))
		return d.e;
	return NULL;
}

bool pb_is_envelope(struct str in)
{
	return in.n >= 4 && memcmp(in.p, "k8s\0", 4) == 0;
}

struct error *pb_envelope_decode(struct str in, struct pb_envelope *out)
{
	struct pd d = {0};
	struct small m, meta;

	*out = (struct pb_envelope){0};
	if (!pb_is_envelope(in))
		return error_status(400, "BadRequest",
				    "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]");
	if (!dec_small(&d, str_sub(in, 4, in.n), &m) || !dec_small(&d, m.s[1], &meta))
		return d.e;
	out->api_version = meta.s[1];
	out->kind = meta.s[2];
	out->raw = m.s[2];
	return NULL;
}
