/* What the watch cache indexes, found in protobuf. */
#include <stdio.h>
#include <stdlib.h>

#include "apiserver/cache_internal.h"
#include "base/log.h"

enum { META_UID = 5, META_RV = 6, META_LABELS = 11 }; /* fields of ObjectMeta */

/* ---- paths ---- */

static bool simple(uint8_t kind)
{
	return kind == FIELD_STRING || (kind >= FIELD_BOOL && kind <= FIELD_UINT64);
}

/* The field of t by its JSON name, if it stands in t's own message. */
static const struct schema_field *own_field(const struct schema_type *t, struct str name)
{
	for (uint16_t i = 0; i < t->n_pfields; i++)
		if (t->pfields[i].number && !(t->pfields[i].flags & (FIELD_INLINE | FIELD_NOJSON)) && str_eq(t->pfields[i].name, name))
			return &t->pfields[i];
	return NULL;
}

/* False: it has to be looked for in JSON. */
static bool path_init(struct cache_path *p, const struct schema_type *t, struct str path)
{
	struct cache_path out = {0};
	while (path.n) {
		struct str name = str_cut(&path, '.');
		const struct schema_field *f = t ? own_field(t, name) : NULL;
		if (!f || f->card > CARD_PTR || out.depth == PATH_MAX_DEPTH)
			return false;
		out.number[out.depth++] = f->number;
		t = f->kind == FIELD_MESSAGE ? f->type : NULL;
		if (path.n && !t)
			return false;
		if (!path.n) {
			if (!simple(f->kind))
				return false;
			out.kind = f->kind;
			out.omitzero = f->card == CARD_ONE && f->flags & FIELD_OMITEMPTY;
		}
	}
	*p = out;
	return true;
}

static uint64_t number_bit(uint64_t number)
{
	return UINT64_C(1) << (number < 63 ? number : 63);
}

static void path_numbers(struct cache_paths *p, const struct cache_path *path)
{
	for (unsigned i = 0; i < path->depth; i++)
		p->numbers[i] |= number_bit(path->number[i]);
}

void paths_init(struct cache_paths *p, const struct cache_resource *r)
{
	*p = (struct cache_paths){0};
	if (!r->type)
		return;
	const struct schema_field *meta = own_field(r->type, STR("metadata"));
	p->metadata = meta ? meta->number : 0;
	for (int i = 0; i < r->n_fields; i++) {
		const struct cache_field *f = &r->fields[i];
		bool ok = path_init(&p->path[i], r->type, f->path.n ? f->path : f->name);
		ok &= path_init(&p->path2[i], r->type, f->path2);
		p->others |= !ok;
		path_numbers(p, &p->path[i]);
		path_numbers(p, &p->path2[i]);
	}
}

/* ---- messages ---- */

/* A varint of at most 10 bytes; NULL when cut short or too long. */
static const char *varint(const char *p, const char *end, uint64_t *out)
{
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

struct field {
	const char *at;  /* its tag */
	uint64_t number;
	unsigned wire;   /* 0, 1, 2 or 5 */
	uint64_t v;      /* wire 0 */
	struct str s;    /* wire 2 */
};

/* The field at p; returns the byte behind it, NULL when it is malformed or a group. */
static const char *next_field(const char *p, const char *end, struct field *f)
{
	uint64_t tag, n;
	f->at = p;
	p = varint(p, end, &tag);
	if (!p || !(tag >> 3))
		return NULL;
	f->number = tag >> 3;
	f->wire = tag & 7;
	switch (f->wire) {
	case 0:
		return varint(p, end, &f->v);
	case 2:
		p = varint(p, end, &n);
		if (!p || n > (size_t)(end - p))
			return NULL;
		f->s = str_of(p, n);
		return p + n;
	case 1:
	case 5:
		n = f->wire == 1 ? 8 : 4;
		return (size_t)(end - p) < n ? NULL : p + n;
	default:
		return NULL;
	}
}

struct walk {
	struct index *x;
	const struct cache_paths *paths;
	const char *start;
};

static struct cache_slice in_object(const struct walk *w, struct str s)
{
	return (struct cache_slice){(uint32_t)(s.p - w->start), (uint32_t)s.n};
}

static struct cache_slice in_tail(struct index *x, struct str s)
{
	size_t at = x->tail.n;
	buf_str(&x->tail, s);
	return (struct cache_slice){(uint32_t)at | SLICE_TAIL, (uint32_t)s.n};
}

/* As JSON shows it; an empty slice where JSON has nothing. */
static bool leaf(struct walk *w, const struct cache_path *p, const struct field *f, struct cache_slice *out)
{
	char text[24];
	*out = (struct cache_slice){0};
	if (p->kind == FIELD_STRING) {
		if (f->wire == 2)
			*out = in_object(w, f->s);
		return f->wire == 2;
	}
	if (f->wire != 0)
		return false;
	if (p->kind == FIELD_BOOL) {
		if (f->v || !p->omitzero)
			*out = in_tail(w->x, f->v ? STR("true") : STR("false"));
		return true;
	}
	long long v = p->kind == FIELD_INT32 ? (int32_t)f->v : p->kind == FIELD_UINT32 ? (long long)(uint32_t)f->v : (long long)f->v;
	int n = snprintf(text, sizeof(text), p->kind == FIELD_UINT64 ? "%llu" : "%lld", v);
	if (v || !p->omitzero)
		*out = in_tail(w->x, str_of(text, (size_t)n));
	return true;
}

static bool labels(struct walk *w, struct str entry)
{
	struct index *x = w->x;
	struct field f;
	struct cache_slice kv[2] = {{0}};
	for (const char *p = entry.p, *end = p + entry.n; p < end;) {
		p = next_field(p, end, &f);
		if (!p)
			return false;
		if (f.number <= 2 && f.wire != 2)
			return false;
		if (f.number <= 2)
			kv[f.number - 1] = in_object(w, f.s);
	}
	if (x->n_labels < 255) {
		x->labels[2 * x->n_labels] = kv[0];
		x->labels[2 * x->n_labels++ + 1] = kv[1];
	}
	return true;
}

/* Bits of the paths among `want` that go on with this field at `depth`; *here: those that end at it. */
static uint32_t down(const struct cache_path *paths, uint32_t want, unsigned depth, uint64_t number, uint32_t *here)
{
	uint32_t on = 0;
	*here = 0;
	for (; want; want &= want - 1) {
		int i = __builtin_ctz(want);
		if (paths[i].number[depth] == number)
			*(paths[i].depth == depth + 1 ? here : &on) |= 1u << i;
	}
	return on;
}

static bool message(struct walk *w, struct str in, unsigned depth, uint32_t want, uint32_t want2, bool metadata)
{
	struct index *x = w->x;
	struct field f;
	for (const char *p = in.p, *end = p + in.n; p < end;) {
		p = next_field(p, end, &f);
		if (!p)
			return false;
		uint32_t here = 0, here2 = 0, on = 0, on2 = 0;
		if ((want | want2) && w->paths->numbers[depth] & number_bit(f.number)) {
			on = down(w->paths->path, want, depth, f.number, &here);
			on2 = down(w->paths->path2, want2, depth, f.number, &here2);
		}
		for (; here; here &= here - 1) {
			int i = __builtin_ctz(here);
			if (!leaf(w, &w->paths->path[i], &f, &x->fields[i]))
				return false;
		}
		for (; here2; here2 &= here2 - 1) {
			int i = __builtin_ctz(here2);
			if (!leaf(w, &w->paths->path2[i], &f, &x->alt[i]))
				return false;
		}
		bool meta = depth == 0 && f.number == w->paths->metadata;
		if (meta) {
			if (f.wire != 2 || x->has_metadata)
				return false; /* given twice: to be merged */
			x->has_metadata = true;
			x->meta_at = (uint32_t)(f.at - w->start);
			x->meta_from = (uint32_t)(f.s.p - w->start);
			x->meta_n = (uint32_t)f.s.n;
			x->rv_from = x->rv_to = x->meta_from;
		}
		if (metadata) {
			uint32_t from = (uint32_t)(f.at - w->start), to = (uint32_t)(p - w->start);
			if (f.number == META_RV) {
				if (x->rv_to > x->rv_from)
					return false;
				x->rv_from = from;
				x->rv_to = to;
			} else if (f.number < META_RV) {
				if (x->rv_to > x->rv_from)
					return false; /* out of order */
				x->rv_from = x->rv_to = to;
			}
			if (f.number == META_UID) {
				if (f.wire != 2)
					return false;
				x->uid = in_object(w, f.s);
			} else if (f.number == META_LABELS && (f.wire != 2 || !labels(w, f.s))) {
				return false;
			}
		}
		if (meta || on || on2) {
			if (f.wire != 2 || !message(w, f.s, depth + 1, on, on2, meta))
				return false;
		}
	}
	return true;
}

/* Labels in order of their keys and each once, as our encoder writes them. */
static bool labels_sorted(const struct index *x, struct str raw)
{
	for (int i = 1; i < x->n_labels; i++) {
		struct cache_slice a = x->labels[2 * i - 2], b = x->labels[2 * i];
		if (str_cmp(str_of(raw.p + a.off, a.n), str_of(raw.p + b.off, b.n)) >= 0)
			return false;
	}
	return true;
}

/* Fields that protobuf does not show plainly, by way of JSON. */
static bool by_json(struct index *x, struct str raw)
{
	struct buf json buf_cleanup = {0};
	struct index *y = xcalloc(1, sizeof(*y));
	y->r = x->r;
	struct error *e = pb_to_json(&json, x->r->type, raw, STR_NULL, STR_NULL, NULL);
	bool ok = !e && index_json(y, buf_view(&json));
	for (int i = 0; ok && i < x->r->n_fields; i++) {
		struct cache_slice v = y->fields[i].n ? y->fields[i] : y->alt[i];
		const char *from = v.off & SLICE_TAIL ? y->tail.p + (v.off & ~SLICE_TAIL) : json.p + v.off;
		x->alt[i] = (struct cache_slice){0};
		x->fields[i] = v.n ? in_tail(x, str_of(from, v.n)) : (struct cache_slice){0};
	}
	error_free(e);
	buf_free(&y->tail);
	free(y);
	return ok;
}

bool index_pb(struct index *x, struct str raw)
{
	const struct cache_paths *paths = x->r->paths;
	struct walk w = {x, paths, raw.p};
	uint32_t want = 0, want2 = 0;
	for (int i = 0; !paths->others && i < x->r->n_fields; i++) {
		want |= paths->path[i].depth ? UINT32_C(1) << i : 0;
		want2 |= paths->path2[i].depth ? UINT32_C(1) << i : 0;
	}
	if (!message(&w, raw, 0, want, want2, false) || !x->has_metadata || x->meta_at || !labels_sorted(x, raw))
		return false;
	return !paths->others || by_json(x, raw);
}
