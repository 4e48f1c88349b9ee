#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "apiserver/cache_internal.h"
#include "base/log.h"

/* ---- entries ---- */

/* Memory for an entry of x, filled but for body, uid, labels and fields. */
static struct cache_entry *entry_alloc(const struct index *x, struct str key, int64_t rev)
{
	size_t slices = (size_t)(2 * x->n_labels) + x->r->n_fields;
	size_t size = sizeof(struct cache_entry) + slices * sizeof(struct cache_slice) + x->tail.n;
	struct cache_entry *e = xmalloc(size);
	ptrdiff_t slash = x->r->namespaced ? str_index(key, '/') : -1;
	*e = (struct cache_entry){.refs = 1, .n_labels = (uint8_t)x->n_labels, .n_fields = x->r->n_fields, .bytes = (uint32_t)size, .rev = rev};
	e->ns_n = (uint16_t)(slash < 0 ? 0 : slash);
	e->name_n = (uint16_t)(key.n - (size_t)(slash + 1));
	memcpy(&e->slices[slices], x->tail.p, x->tail.n);
	return e;
}

/* Slices of x, which are offsets into the original, to the entry's: from `first` on they move by `by`, from `second` on by `by2`. */
struct moves {
	uint32_t first, second;
	int32_t by, by2;
};

static struct cache_slice moved(struct cache_slice s, const struct moves *m)
{
	if (!(s.off & SLICE_TAIL) && s.off >= m->first)
		s.off = (uint32_t)((int32_t)s.off + (s.off >= m->second ? m->by2 : m->by));
	return s;
}

static void set_slices(struct cache_entry *e, const struct index *x, const struct moves *m)
{
	e->uid = moved(x->uid, m);
	for (int i = 0; i < 2 * x->n_labels; i++)
		e->slices[i] = moved(x->labels[i], m);
	for (int i = 0; i < x->r->n_fields; i++)
		e->slices[2 * x->n_labels + i] = moved(x->fields[i].n ? x->fields[i] : x->alt[i], m);
}

static struct cache_entry *build_json(struct index *x, struct str key, int64_t rev, struct str json)
{
	/* The block: json with resourceVersion put in or replaced. */
	char rv[64];
	struct str head, tail;
	int n;
	if (x->rv.p) {
		n = snprintf(rv, sizeof(rv), "\"%lld\"", (long long)rev);
		head = str_of(json.p, (size_t)(x->rv.p - json.p));
		tail = str_of(x->rv.p + x->rv.n, json.n - head.n - x->rv.n);
	} else {
		const char *p = x->insert;
		while (p < json.p + json.n && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
			p++;
		bool empty = x->first && p < json.p + json.n && *p == '}';
		n = snprintf(rv, sizeof(rv), "%s\"resourceVersion\":\"%lld\"%s", x->first ? "" : ",", (long long)rev,
			     x->first && !empty ? "," : "");
		head = str_of(json.p, (size_t)(x->insert - json.p));
		tail = str_of(x->insert, json.n - head.n);
	}
	struct block *b = block_new(str_of(NULL, head.n + (size_t)n + tail.n));
	memcpy(b->bytes, head.p, head.n);
	memcpy(b->bytes + head.n, rv, (size_t)n);
	memcpy(b->bytes + head.n + (size_t)n, tail.p, tail.n);
	struct moves m = {.first = (uint32_t)(tail.p - json.p), .second = UINT32_MAX};
	m.by = (int32_t)((ptrdiff_t)(head.n + (size_t)n) - (tail.p - json.p));
	struct cache_entry *e = entry_alloc(x, key, rev);
	e->body = b;
	set_slices(e, x, &m);
	return e;
}

static size_t put_varint(char *p, size_t v)
{
	size_t n = 0;
	for (; v >= 0x80; v >>= 7)
		p[n++] = (char)(v | 0x80);
	p[n++] = (char)v;
	return n;
}

static struct cache_entry *build_pb(struct index *x, struct str key, int64_t rev, struct str raw)
{
	/* The body: tag and length, what stands before metadata, its tag and new length, metadata with resourceVersion, the rest. */
	char rv[32], meta_len[10], len[10];
	size_t rv_n = (size_t)snprintf(rv, sizeof(rv), "\x32%c%lld", 0, (long long)rev);
	rv[1] = (char)(rv_n - 2);
	uint32_t rest = x->meta_from + x->meta_n, tag_n = 1;
	while (raw.p[x->meta_at + tag_n - 1] & 0x80)
		tag_n++;
	size_t meta_len_n = put_varint(meta_len, x->meta_n - (x->rv_to - x->rv_from) + rv_n);
	size_t before = x->meta_at + tag_n, n = raw.n - (x->rv_to - x->rv_from) + rv_n + meta_len_n - (x->meta_from - before);
	size_t len_n = put_varint(len, n);
	struct block *b = block_new(str_of(NULL, 1 + len_n + n));
	char *w = b->bytes;
#define PUT(from, bytes) (memcpy(w, from, bytes), w += bytes)
	*w++ = 2 << 3 | 2;
	PUT(len, len_n);
	PUT(raw.p, before);
	PUT(meta_len, meta_len_n);
	PUT(raw.p + x->meta_from, x->rv_from - x->meta_from);
	PUT(rv, rv_n);
	PUT(raw.p + x->rv_to, rest - x->rv_to);
	PUT(raw.p + rest, raw.n - rest);
#undef PUT
	struct moves m = {.first = 0, .second = x->rv_to};
	m.by = (int32_t)(1 + len_n + meta_len_n) - (int32_t)(x->meta_from - before);
	m.by2 = m.by + (int32_t)rv_n - (int32_t)(x->rv_to - x->rv_from);
	struct cache_entry *e = entry_alloc(x, key, rev);
	e->pb = true;
	e->body = b;
	set_slices(e, x, &m);
	return e;
}

static void index_start(struct index *x, const struct cache_resource *r, struct str key)
{
	struct buf tail = x->tail;
	memset(x, 0, offsetof(struct index, labels));
	x->r = r;
	x->tail = tail;
	x->tail.n = 0;
	buf_str(&x->tail, key);
}

static struct error *no_object(const struct cache_resource *r, struct str key, const char *what)
{
	return error_status(500, "InternalError", "%.*s%.*s: the stored object is not %s with metadata", STR_ARG(r->prefix), STR_ARG(key), what);
}

/* Stored JSON or YAML; what names no kind is no object. */
static struct error *decode_text(struct arena *a, const struct cache_resource *r, struct str plain, void *o)
{
	TRY(object_decode(a, media_recognize(plain), r->type, plain, NULL, o));
	if (r->type->top && !((struct str *)o)->n)
		return error_status(500, "InternalError", "the stored object names no kind");
	return NULL;
}

/* A message not as our encoder writes it, or text: by way of a struct. */
static struct error *normal_pb(const struct cache_resource *r, struct str plain, struct str raw, struct buf *out)
{
	struct arena a arena_cleanup = {0};
	void *o = arena_alloc(&a, r->type->size);
	TRY(raw.p ? pb_decode(&a, r->type, raw, o) : decode_text(&a, r, plain, o));
	pb_encode(out, r->type, o);
	return NULL;
}

/* *out stays empty when it is held as it is stored. */
static struct error *held_pb(const struct cache_resource *r, struct str raw, struct buf *out)
{
	struct arena a arena_cleanup = {0};
	void *o = arena_alloc(&a, r->type->size);
	TRY(pb_decode(&a, r->type, raw, o));
	if (r->shown(&a, o))
		pb_encode(out, r->type, o);
	return NULL;
}

static struct error *entry_pb(struct index *x, struct str key, int64_t rev, struct str plain, struct cache_entry **out)
{
	const struct cache_resource *r = x->r;
	struct pb_envelope env = {0};
	struct buf normal buf_cleanup = {0}, held buf_cleanup = {0};
	if (pb_is_envelope(plain))
		TRY(pb_envelope_decode(plain, &env));
	if (env.raw.p && r->shown) {
		TRY(held_pb(r, env.raw, &held));
		if (held.n)
			env.raw = buf_view(&held);
	}
	if (!env.raw.p || !index_pb(x, env.raw)) {
		TRY(normal_pb(r, plain, env.raw, &normal));
		env.raw = buf_view(&normal);
		index_start(x, r, key);
		if (!index_pb(x, env.raw))
			return no_object(r, key, "an object");
	}
	*out = build_pb(x, key, rev, env.raw);
	(*out)->unlike = held.n > 0;
	return NULL;
}

struct error *entry_new(const struct cache_resource *r, struct str key, int64_t rev, struct str stored, struct str plain,
			struct cache_entry **out)
{
	*out = NULL;
	if (plain.n >= BLOCK_MAX / 2)
		return error_status(500, "InternalError", "an object of %zu bytes is too large to cache", plain.n);
	struct index x;
	x.tail = (struct buf){0};
	index_start(&x, r, key);
	struct error *e = NULL;
	if (r->type)
		e = entry_pb(&x, key, rev, plain, out);
	else if (index_json(&x, plain))
		*out = build_json(&x, key, rev, plain);
	else
		e = no_object(r, key, "a JSON object");
	buf_free(&x.tail);
	if (!e && r->sealed)
		(*out)->sealed = r->sealed(r->ctx, stored);
	return e;
}

struct cache_entry *entry_at_rev(const struct cache_resource *r, const struct cache_entry *e, int64_t rev)
{
	struct index x;
	struct str key = cache_entry_key(e);
	x.tail = (struct buf){0};
	index_start(&x, r, key);
	struct cache_entry *out = NULL;
	if (e->pb && index_pb(&x, entry_raw(e)))
		out = build_pb(&x, key, rev, entry_raw(e));
	else if (!e->pb && index_json(&x, block_str(e->body)))
		out = build_json(&x, key, rev, block_str(e->body));
	if (!out) { /* it was parsed once already */
		log_error("cache: %.*s cannot be read again", STR_ARG(key));
		abort();
	}
	out->sealed = e->sealed;
	out->unlike = e->unlike;
	buf_free(&x.tail);
	return out;
}

/* *out stays empty when the object is complete as it is. */
static struct error *complete_pb(const struct cache_resource *r, struct str plain, struct buf *out)
{
	struct arena a arena_cleanup = {0};
	void *o = arena_alloc(&a, r->type->size);
	struct buf before buf_cleanup = {0};
	struct pb_envelope env = {0}, now;
	struct str version, text = STR_NULL;
	if (pb_is_envelope(plain)) {
		TRY(pb_envelope_decode(plain, &env));
		TRY(pb_decode(&a, r->type, env.raw, o));
		version = env.api_version;
	} else {
		TRY(decode_text(&a, r, plain, o));
		version = r->type->top ? ((struct str *)o)[1] : STR_NULL;
		pb_encode(&before, r->type, o);
		env.raw = buf_view(&before);
		text = plain;
	}
	TRY(r->complete(r->complete_ctx, &a, version, text, o));
	version = r->group.n ? arena_printf(&a, "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version)) : r->version;
	pb_envelope_encode(out, version, r->kind, r->type, o);
	TRY(pb_envelope_decode(buf_view(out), &now));
	if (str_eq(now.raw, env.raw))
		out->n = 0;
	return NULL;
}

struct error *entry_decode(const struct cache_resource *r, struct str key, int64_t rev, struct str stored, bool may_wait,
			   struct cache_entry **out)
{
	struct buf plain buf_cleanup = {0}, completed buf_cleanup = {0};
	struct error *e = NULL, *w;
	struct str bytes;
	bool opened;
	*out = NULL;
	if (r->plain)
		e = r->plain(r->ctx, key, stored, may_wait, &plain);
	opened = !e;
	bytes = r->plain ? buf_view(&plain) : stored;
	if (!e && r->complete)
		e = complete_pb(r, bytes, &completed);
	if (!e)
		e = entry_new(r, key, rev, stored, completed.n ? buf_view(&completed) : bytes, out);
	if (!e && completed.n)
		(*out)->unlike = true;
	if (e && !error_is_sys(e, EAGAIN)) {
		w = error_status(500, opened ? "" : "InternalError", "%s", error_message(e));
		error_free(e);
		e = w;
	}
	return error_wrap(e, "%.*s%.*s", STR_ARG(r->prefix), STR_ARG(key));
}

struct str entry_raw(const struct cache_entry *e)
{
	size_t at = 1;
	while (e->body->bytes[at++] & 0x80)
		;
	return str_of(e->body->bytes + at, e->body->n - at);
}

struct error *cache_entry_decode(struct arena *a, const struct schema_type *t, const struct cache_entry *e, bool copy, void *out)
{
	struct str bytes = e->pb ? entry_raw(e) : block_str(e->body);
	if (copy)
		bytes = arena_str(a, bytes);
	return e->pb ? pb_decode(a, t, bytes, out) : json_decode(a, t, bytes, NULL, out);
}

void cache_entry_unref(struct cache_entry *e)
{
	if (!e || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
		return;
	block_unref(e->body);
	free(e);
}

static const char *tail(const struct cache_entry *e)
{
	return (const char *)&e->slices[2 * e->n_labels + e->n_fields];
}

struct str cache_entry_key(const struct cache_entry *e)
{
	return str_of(tail(e), (size_t)e->name_n + e->ns_n + (e->ns_n ? 1 : 0));
}

struct str cache_entry_ns(const struct cache_entry *e)
{
	return str_of(tail(e), e->ns_n);
}

struct str cache_entry_name(const struct cache_entry *e)
{
	return str_of(tail(e) + e->ns_n + (e->ns_n ? 1 : 0), e->name_n);
}

struct str cache_entry_uid(const struct cache_entry *e)
{
	return entry_slice(e, e->uid);
}

struct str cache_entry_field(const struct cache *c, const struct cache_entry *e, size_t i)
{
	struct str v = entry_slice(e, e->slices[2 * e->n_labels + i]);
	return v.n ? v : c->r.fields[i].absent;
}

size_t cache_entry_labels(const struct cache_entry *e, struct str_pair *pairs)
{
	for (size_t i = 0; i < e->n_labels; i++)
		pairs[i] = (struct str_pair){entry_slice(e, e->slices[2 * i]), entry_slice(e, e->slices[2 * i + 1])};
	return e->n_labels;
}

struct str entry_node(const struct cache_resource *r, const struct cache_entry *e)
{
	return r->node_field < 0 ? STR_NULL : entry_slice(e, e->slices[2 * e->n_labels + r->node_field]);
}

/* ---- filters ---- */

static int field_index(const struct cache_resource *r, struct str key)
{
	for (int i = 0; i < r->n_fields; i++)
		if (str_eq(r->fields[i].name, key))
			return i;
	return -1;
}

struct error *cache_check_fields(const struct cache *c, const struct selector *fields)
{
	struct str key, value;
	bool neg;
	for (size_t i = 0; field_selector_get(fields, i, &key, &value, &neg); i++)
		/* kinds with fields of their own say which; the others have both of metadata's */
		if (!str_eqz(key, "metadata.name") && field_index(&c->r, key) < 0 &&
		    !(str_eqz(key, "metadata.namespace") && (c->r.namespaced || !c->r.n_fields || !c->r.type)))
			return error_status(400, "BadRequest", "field label not supported: \"%.*s\"", STR_ARG(key));
	return NULL;
}

bool entry_matches(const struct cache_resource *r, const struct cache_entry *e, const struct cache_filter *f)
{
	struct str key, want;
	bool neg;
	for (size_t i = 0; field_selector_get(f->fields, i, &key, &want, &neg); i++) {
		struct str have = STR_NULL;
		int at;
		if (str_eqz(key, "metadata.name")) {
			have = cache_entry_name(e);
		} else if (str_eqz(key, "metadata.namespace")) {
			have = cache_entry_ns(e);
		} else if ((at = field_index(r, key)) >= 0) {
			have = entry_slice(e, e->slices[2 * e->n_labels + at]);
			if (!have.n)
				have = r->fields[at].absent;
		}
		if (str_eq(have, want) == neg)
			return false;
	}
	if (!f->labels)
		return true;
	struct str_pair pairs[255];
	struct str_map m = {pairs, (uint32_t)cache_entry_labels(e, pairs), 0};
	return selector_matches(f->labels, &m);
}

bool cache_matches(const struct cache *c, const struct cache_entry *e, const struct cache_filter *f)
{
	return entry_matches(&c->r, e, f);
}

struct str filter_node(const struct cache_resource *r, const struct cache_filter *f)
{
	struct str key, want;
	bool neg;
	if (!f || r->node_field < 0)
		return STR_NULL;
	for (size_t i = 0; field_selector_get(f->fields, i, &key, &want, &neg); i++)
		if (!neg && want.n && str_eq(key, r->fields[r->node_field].name))
			return want;
	return STR_NULL;
}
