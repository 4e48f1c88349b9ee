/*
 * JSON made of protobuf objects, kept for the next reader: a queue over all caches of a loop. What was used since it was last
 * looked at gets another round; the rest goes when there is too much, or after half a minute.
 */
#include <stdio.h>
#include <stdlib.h>

#include "apiserver/cache_internal.h"
#include "base/log.h"

#define HOT_MIN ((size_t)4 << 20)
#define HOT_SHARE 8 /* of what the caches hold */

struct cache_hot {
	struct cache_hot *next, *prev;
	struct cache_entry *e;  /* a reference: an entry whose JSON is kept is freed by this thread only */
	struct block *json;
	bool used;
};

static __thread struct {
	struct cache_hot *head, *tail;
	size_t bytes, held;
} hot;

static __thread struct buf scratch; /* kept: most objects are small */

static size_t cost(const struct cache_hot *h)
{
	return sizeof(*h) + h->json->n + h->e->bytes + h->e->body->n;
}

static void append(struct cache_hot *h)
{
	h->next = NULL;
	h->prev = hot.tail;
	*(hot.tail ? &hot.tail->next : &hot.head) = h;
	hot.tail = h;
}

static struct cache_hot *take_first(void)
{
	struct cache_hot *h = hot.head;
	hot.head = h->next;
	*(hot.head ? &hot.head->prev : &hot.tail) = NULL;
	return h;
}

static void drop(struct cache_hot *h)
{
	hot.bytes -= cost(h);
	h->e->hot = NULL;
	block_unref(h->json);
	cache_entry_unref(h->e);
	free(h);
}

size_t cache_hot_limit(void)
{
	return HOT_MIN + hot.held / HOT_SHARE;
}

size_t hot_bytes(void)
{
	return hot.bytes;
}

void hot_holding(ptrdiff_t more)
{
	hot.held += (size_t)more;
}

static void shrink(size_t limit)
{
	while (hot.bytes > limit) {
		struct cache_hot *h = take_first();
		if (h->used) {
			h->used = false;
			append(h);
		} else {
			drop(h);
		}
	}
}

size_t hot_sweep(bool all)
{
	size_t before = hot.bytes;
	struct cache_hot *last = hot.tail;
	while (hot.head) {
		struct cache_hot *h = take_first();
		bool end = h == last;
		if (h->used && !all) {
			h->used = false;
			append(h);
		} else {
			drop(h);
		}
		if (end)
			break;
	}
	if (all)
		buf_free(&scratch);
	return before - hot.bytes;
}

static struct error *transcode(const struct cache *c, const struct cache_entry *e, bool named, struct buf *b)
{
	const struct cache_resource *r = &c->r;
	char version[256];
	struct str v = named ? r->version : STR_NULL;
	bool verbatim = e->verbatim;
	if (named && r->group.n) {
		int n = snprintf(version, sizeof(version), "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version));
		v = str_of(version, (size_t)n);
	}
	struct error *err = pb_to_json(b, r->type, entry_raw(e), v, named ? r->kind : STR_NULL, &verbatim);
	if (!err) {
		((struct cache_entry *)(uintptr_t)e)->verbatim = verbatim;
		return NULL;
	}
	struct error *out = error_status(500, "InternalError", "%.*s%.*s: the stored object is damaged: %s", STR_ARG(r->prefix),
					 STR_ARG(cache_entry_key(e)), error_message(err));
	error_free(err);
	return out;
}

struct error *cache_entry_json(const struct cache *c, const struct cache_entry *e, struct block **out)
{
	*out = NULL;
	if (!e->pb) {
		*out = block_ref(e->body);
		return NULL;
	}
	if (e->hot) {
		e->hot->used = true;
		*out = block_ref(e->hot->json);
		return NULL;
	}
	scratch.n = 0;
	TRY(transcode(c, e, true, &scratch));
	*out = block_new(buf_view(&scratch));
	if (scratch.cap > 1 << 16)
		buf_free(&scratch);
	if ((*out)->n > cache_hot_limit() / 4)
		return NULL;
	struct cache_hot *h = xmalloc(sizeof(*h));
	*h = (struct cache_hot){.e = cache_entry_ref((struct cache_entry *)(uintptr_t)e), .json = block_ref(*out), .used = true};
	h->e->hot = h;
	hot.bytes += cost(h);
	append(h);
	shrink(cache_hot_limit());
	return NULL;
}

struct error *cache_entry_json_append(const struct cache *c, const struct cache_entry *e, struct str without, struct buf *b)
{
	if (e->pb && !e->hot)
		return transcode(c, e, !without.n, b);
	struct str json = block_str(e->pb ? e->hot->json : e->body);
	if (without.n && str_has_prefix(json, without)) {
		buf_putc(b, '{');
		json = str_sub(json, without.n, json.n);
	}
	buf_str(b, json);
	return NULL;
}
