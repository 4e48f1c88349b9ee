/*
 * Protobuf to JSON without the struct between: each message is walked once, noting where its fields stand, then the
 * fields are written in JSON's order. Whatever is not as our encoder and upstream's write it (fields twice, unsorted maps,
 * packed lists, unions, deep nesting, anything malformed) goes through the struct instead, which also finds the right error.
 */
#include "schema/codec.h"
#include "schema/codec_internal.h"

#define MAX_LEVELS 24 /* each takes 1.1 KiB of stack */

struct slot { /* where a field's value is */
	const char *p;
	size_t n; /* bytes; of a list or map, of all its elements with their tags */
};

struct tj {
	struct je e;
	struct arena a;  /* for the few values that need memory */
	bool verbatim;   /* raw JSON has been looked at before: it is copied */
	bool unchanged;  /* all raw JSON met so far stands in the output as it was */
};

/* A varint of at most 10 bytes; NULL when cut short or too long. */
static inline const char *varint(const char *p, const char *end, uint64_t *out)
{
	if (likely(p < end && (uint8_t)*p < 0x80)) {
		*out = (uint8_t)*p;
		return p + 1;
	}
	uint64_t v = 0;

	for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
		uint8_t c = (uint8_t)*p++;

		v |= (uint64_t)(c & 0x7f) << shift;
		if (c < 0x80) {
			*out = v;
			return p;
		}
	}
	return NULL;
}

static inline const char *payload(const char *p, const char *end, struct str *out)
{
	uint64_t n;

	p = varint(p, end, &n);
	if (unlikely(!p || n > (size_t)(end - p)))
		return NULL;
	*out = str_of(p, n);
	return p + n;
}

static inline unsigned wire_of(uint8_t kind)
{
	return kind >= FIELD_BOOL && kind <= FIELD_UINT64 ? 0 : kind == FIELD_DOUBLE ? 1 : 2;
}

static inline bool is_struct(uint8_t kind)
{
	return kind >= FIELD_QUANTITY;
}

/* Writers return where they stopped, NULL to give up. */
static char *message(struct tj *j, char *w, const struct schema_type *t, struct str in, unsigned level, const struct str *meta);

/* Notes the fields of `in`, of type t, whose first JSON field is slot `base`. */
static bool note(const struct schema_type *t, struct str in, unsigned base, struct slot *slots, uint64_t *present, unsigned level)
{
	const char *p = in.p, *end = in.p + in.n;

	if (unlikely(!t->wire))
		return false;
	while (p < end) {
		const char *tag_at = p;
		uint64_t tag, v;
		struct str s;

		p = varint(p, end, &tag);
		if (unlikely(!p))
			return false;
		unsigned wire = tag & 7;

		if (unlikely(tag >> 3 >= t->n_pindex || t->wire[tag >> 3].json == 255)) {
			/* An unknown field, from a newer or an older version. */
			if (tag >> 3 == 0 || tag >> 3 > INT32_MAX || (wire != 0 && wire != 2) ||
			    (tag >> 3 < t->n_pindex && t->pindex[tag >> 3]))
				return false;
			p = wire == 0 ? varint(p, end, &v) : payload(p, end, &s);
			if (!p)
				return false;
			continue;
		}
		struct schema_wire f = t->wire[tag >> 3];
		unsigned i = base + f.json;

		if (unlikely(f.flags & 2)) {
			const struct schema_field *inlined = &t->pfields[t->pindex[tag >> 3] - 1];

			if (wire != 2 || level > MAX_LEVELS)
				return false;
			p = payload(p, end, &s);
			if (!p || !note(inlined->type, s, i, slots, present, level + 1))
				return false;
			continue;
		}
		uint64_t bit = 1ULL << i;

		if (f.card >= CARD_LIST) {
			size_t n = (size_t)(p - tag_at);
			unsigned want = f.card == CARD_MAP ? 2 : wire_of(f.kind);

			if (unlikely(*present & bit || wire != want))
				return false;
			for (;;) {
				if (wire == 2) {
					p = payload(p, end, &s);
				} else if (wire == 0) {
					p = varint(p, end, &v);
				} else {
					p = end - p >= 8 ? p + 8 : NULL;
				}
				if (unlikely(!p))
					return false;
				if ((size_t)(end - p) <= n || *p != *tag_at || (unlikely(n > 1) && memcmp(p, tag_at, n) != 0))
					break;
				p += n;
			}
			slots[i] = (struct slot){tag_at, (size_t)(p - tag_at)};
			*present |= bit;
			continue;
		}
		if (unlikely(wire != wire_of(f.kind)))
			return false;
		bool empty;

		if (wire == 2) {
			p = payload(p, end, &s);
			if (unlikely(!p))
				return false;
			/* Messages given twice are merged: the struct's business. */
			if (unlikely(is_struct(f.kind) && *present & bit))
				return false;
			slots[i] = (struct slot){s.p, s.n};
			empty = s.n == 0 && !is_struct(f.kind);
			if (unlikely(f.kind == FIELD_STRINGS && f.flags & 1))
				return false;
		} else if (wire == 0) {
			slots[i].p = p;
			p = varint(p, end, &v);
			if (unlikely(!p))
				return false;
			slots[i].n = (size_t)(p - slots[i].p);
			empty = f.kind == FIELD_INT32 || f.kind == FIELD_UINT32 ? (uint32_t)v == 0 : v == 0;
		} else {
			double d;

			if (end - p < 8)
				return false;
			slots[i] = (struct slot){p, 8};
			memcpy(&d, p, 8);
			empty = d == 0;
			p += 8;
		}
		/* omitempty of what is not a pointer; the last one counts. */
		if (empty && f.card == CARD_ONE && f.flags & 1)
			*present &= ~bit;
		else
			*present |= bit;
	}
	return true;
}

/* JSON that is stored as text. */
static char *raw(struct tj *j, char *w, uint8_t kind, struct str s)
{
	if (j->verbatim) {
		w = je_need(&j->e, w, s.n);
		memcpy(w, s.p, s.n);
		return je_check(&j->e, w + s.n);
	}
	size_t from = (size_t)(w - j->e.b->p);

	w = je_value(&j->e, w, kind, NULL, &s);
	j->unchanged &= str_eq(str_of(j->e.b->p + from, (size_t)(w - j->e.b->p) - from), s);
	return w;
}

/* One value whose bytes are `s` (a number: its varint or 8 bytes). */
static char *value(struct tj *j, char *w, const struct schema_field *f, struct str s, unsigned level)
{
	union {
		struct str s;
		bool b;
		int32_t i32;
		uint64_t u64;
		double d;
		struct int_or_string is;
		struct api_time t;
		struct strings l;
	} v;
	uint64_t n;

	switch (f->kind) {
	case FIELD_STRING:
		return je_string(&j->e, w, s);
	case FIELD_MESSAGE:
		if (unlikely(f->type == &core_v1_persistent_volume_claim_type) && !str_eqz(f->name, "items")) { /* a template, not of a list */
			static const struct str named[2] = {STR_INIT("PersistentVolumeClaim"), STR_INIT("v1")};

			return message(j, w, f->type, s, level + 1, named);
		}
		return message(j, w, f->type, s, level + 1, NULL);
	case FIELD_BYTES:
		if (!s.p)
			s.p = "";
		v.s = s;
		break;
	case FIELD_BOOL:
	case FIELD_INT32:
	case FIELD_UINT32:
	case FIELD_INT64:
	case FIELD_UINT64:
		if (unlikely(!varint(s.p, s.p + s.n, &n)))
			return NULL;
		if (f->kind == FIELD_BOOL)
			v.b = n != 0;
		else if (f->kind == FIELD_INT32 || f->kind == FIELD_UINT32)
			v.i32 = (int32_t)n;
		else
			v.u64 = n;
		break;
	case FIELD_DOUBLE:
		memcpy(&v.d, s.p, 8);
		break;
	default:
		memset(&v, 0, sizeof v);
		if (unlikely(!pb_special(&j->a, f->kind, s, &v)))
			return NULL;
		if (f->kind == FIELD_RAW || f->kind == FIELD_FIELDSV1 || f->kind == FIELD_JSON)
			return raw(j, w, f->kind, v.s);
	}
	return je_value(&j->e, w, f->kind, NULL, &v);
}

/* The value of a field (or of a map's entry) that protobuf does not have. */
static char *absent(struct tj *j, char *w, const struct schema_field *f, uint8_t card, unsigned level)
{
	static const uint64_t zero[8];
	static const struct str empty = {"", 0};

	if (card != CARD_ONE) {
		memcpy(w, "null", 4);
		return w + 4;
	}
	if (f->kind == FIELD_MESSAGE)
		return message(j, w, f->type, STR(""), level + 1, NULL);
	/* Upstream's decoder makes bytes of a map empty, not nil. */
	return je_value(&j->e, w, f->kind, NULL, f->kind == FIELD_BYTES && f->card == CARD_MAP ? (const void *)&empty : zero);
}

static char *list(struct tj *j, char *w, const struct schema_field *f, struct str run, unsigned level)
{
	const char *p = run.p, *end = run.p + run.n;
	unsigned wire = wire_of(f->kind);

	*w++ = '[';
	while (p < end) {
		uint64_t skipped;
		struct str s = STR_NULL;

		if (p != run.p)
			*w++ = ',';
		/* note() has been here: nothing is cut short. */
		p = varint(p, end, &skipped);
		if (wire == 2) {
			p = payload(p, end, &s);
		} else {
			const char *from = p;

			p = wire == 0 ? varint(p, end, &skipped) : p + 8;
			s = str_of(from, (size_t)(p - from));
		}
		w = value(j, w, f, s, level);
		if (unlikely(!w))
			return NULL;
		w = je_check(&j->e, w);
	}
	*w++ = ']';
	return je_check(&j->e, w);
}

static char *map(struct tj *j, char *w, const struct schema_field *f, struct str run, unsigned level)
{
	const char *p = run.p, *end = run.p + run.n;
	struct str last = STR_NULL;

	*w++ = '{';
	while (p < end) {
		struct str entry = STR_NULL, key = STR(""), s = STR_NULL;
		uint64_t tag;
		bool has_key = false, has_value = false, first = p == run.p;

		p = varint(p, end, &tag);
		p = payload(p, end, &entry);
		for (const char *q = entry.p, *stop = q + entry.n; q < stop;) {
			q = varint(q, stop, &tag);
			if (!q)
				return NULL;
			if (tag == (1 << 3 | 2) && !has_key) {
				has_key = true;
				q = payload(q, stop, &key);
			} else if (tag == (2 << 3 | wire_of(f->kind)) && !has_value) {
				const char *from = q;

				has_value = true;
				if (wire_of(f->kind) == 2) {
					q = payload(q, stop, &s);
				} else {
					q = wire_of(f->kind) == 0 ? varint(q, stop, &tag) : stop - q >= 8 ? q + 8 : NULL;
					s = str_of(from, q ? (size_t)(q - from) : 0);
				}
			} else {
				return NULL;
			}
			if (!q)
				return NULL;
		}
		if (!first) {
			if (str_cmp(last, key) >= 0)
				return NULL;
			*w++ = ',';
		}
		last = key;
		w = je_string(&j->e, w, key);
		*w++ = ':';
		w = has_value ? value(j, w, f, s, level) : absent(j, w, f, CARD_ONE, level);
		if (unlikely(!w))
			return NULL;
		w = je_check(&j->e, w);
	}
	*w++ = '}';
	return je_check(&j->e, w);
}

static char *message(struct tj *j, char *w, const struct schema_type *t, struct str in, unsigned level, const struct str *meta)
{
	struct slot slots[64];
	uint64_t present = 0;
	char before = '{';

	if (unlikely(level > MAX_LEVELS || t->json != SCHEMA_OBJECT || !t->wire))
		return NULL;
	if (unlikely(!note(t, in, 0, slots, &present, level)))
		return NULL;
	if (meta)
		for (unsigned i = 0; i < 2; i++)
			if (meta[i].n) {
				slots[i] = (struct slot){meta[i].p, meta[i].n};
				present |= 1ULL << i;
			}
	for (uint64_t bits = present | t->json_always; bits; bits &= bits - 1) {
		unsigned i = (unsigned)__builtin_ctzll(bits);
		const struct schema_field *f = &t->fields[i];
		struct str s = str_of(slots[i].p, slots[i].n);

		if (unlikely(f->flags & FIELD_OMITZERO)) {
			struct api_time time;

			/* Whether a time is zero is seen in its value only. */
			if (f->kind != FIELD_TIME || f->card != CARD_ONE || !pb_special(&j->a, FIELD_TIME, s, &time))
				return NULL;
			if (!time.set)
				continue;
		}
		w = je_key(&j->e, w, before, f);
		before = ',';
		if (unlikely(!(present >> i & 1)))
			w = absent(j, w, f, f->card, level);
		else if (f->card <= CARD_PTR)
			w = f->kind == FIELD_STRING ? je_string(&j->e, w, s) : value(j, w, f, s, level);
		else
			w = f->card == CARD_LIST ? list(j, w, f, s, level) : map(j, w, f, s, level);
		if (unlikely(!w))
			return NULL;
	}
	if (before == '{')
		*w++ = '{';
	*w++ = '}';
	return je_check(&j->e, w);
}

/* As value() does for what is read in one look. */
static void name_claims(struct apps_v1_stateful_set *s)
{
	for (uint32_t i = 0; i < s->spec.volume_claim_templates.n; i++) {
		s->spec.volume_claim_templates.v[i].kind = STR("PersistentVolumeClaim");
		s->spec.volume_claim_templates.v[i].api_version = STR("v1");
	}
}

struct error *pb_to_json(struct buf *b, const struct schema_type *t, struct str pb, struct str api_version, struct str kind, bool *verbatim)
{
	struct str meta[2] = {kind, api_version};
	struct tj j = {.e.b = b, .verbatim = verbatim && *verbatim, .unchanged = true};
	size_t limit = b->limit, before = b->n;

	if (limit && b->overflow)
		return NULL;
	b->limit = 0;
	char *w = message(&j, je_begin(&j.e), t, pb, 1, t->top ? meta : NULL);

	b->limit = limit;
	if (!w) {
		b->n = before;
		void *obj = arena_alloc(&j.a, t->size);
		struct error *e = pb_decode(&j.a, t, pb, obj);

		if (!e) {
			if (t->top)
				memcpy(obj, meta, sizeof meta);
			if (t == &apps_v1_stateful_set_type)
				name_claims(obj);
			json_encode(b, t, obj);
		}
		arena_free(&j.a);
		return e;
	}
	arena_free(&j.a);
	if (verbatim)
		*verbatim = j.unchanged;
	b->n = (size_t)(w - b->p);
	if (limit && b->n > limit) {
		b->n = before;
		b->overflow = true;
	}
	return NULL;
}
