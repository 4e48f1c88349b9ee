/*
 * Loading: chunks of keys are read on the loop, their values read and decoded on the thread pool, some chunks at a time (decoding is
 * pure), and the entries put into the trees in order.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "apiserver/cache_internal.h"
#include "base/arena.h"
#include "base/log.h"

#define LOAD_CHUNK 512

#define ROOM_BYTES (96u << 10) /* below malloc's threshold for mappings of their own */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/*
 * A thread's heap grows by a page or two at a time, each with a system call and faults: together they take longer than decoding.
 * Asked for at once the room is there for what comes next.
 */
static void make_room(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *p = xmalloc(ROOM_BYTES), *from = p + page - (uintptr_t)p % page;
	madvise(from, (ROOM_BYTES / page - 1) * page, MADV_POPULATE_WRITE); /* refused: they come one by one */
	free(p);
}

struct chunk {
	const struct cache_resource *r;
	struct fiber *fiber;
	struct arena keys;
	struct store_view *view; /* where the values are that kv has none of */
	struct store_kv kv[LOAD_CHUNK];
	struct cache_entry *e[LOAD_CHUNK];
	struct error *err[LOAD_CHUNK];
	struct error *failed;    /* the store's */
	size_t n;
	bool stop; /* an object cannot be read now: those behind it were not tried */
};

static bool chunk_one(void *ctx, struct store_kv *kv)
{
	struct chunk *k = ctx;
	k->kv[k->n] = *kv;
	k->kv[k->n++].key = arena_str(&k->keys, kv->key);
	kv->value = NULL;
	return true;
}

static void decode_chunk(void *arg)
{
	struct chunk *k = arg;
	for (size_t i = 0, room = 0; i < k->n && !k->stop; i++) {
		struct store_kv *kv = &k->kv[i];
		struct str stored;
		if (kv->value)
			stored = block_str(kv->value);
		else if ((k->failed = store_view_value(k->view, kv->key, kv->mod_rev, &stored)))
			return;
		size_t need = sizeof(struct cache_entry) + 512 + stored.n;
		if (room < need && need < ROOM_BYTES) {
			make_room();
			room = ROOM_BYTES;
		}
		room -= need < room ? need : room;
		k->err[i] = entry_decode(k->r, str_sub(kv->key, k->r->prefix.n, kv->key.n), kv->mod_rev, stored, true, &k->e[i]);
		k->stop = error_is_sys(k->err[i], EAGAIN);
	}
}

static void chunk_fiber(void *arg)
{
	struct chunk *k = arg;
	if (k->r->plain || k->n < 32)
		decode_chunk(k); /* the callback is promised the loop's thread */
	else
		loop_offload(decode_chunk, k);
	store_view_end(k->view);
}

/* Waits for the oldest chunk and files its entries; drops them when the load has failed, with *err or by what it sets there. */
static void file_chunk(struct load *l, struct error **err)
{
	struct chunk *k = l->chunks[l->first++ % LOAD_AHEAD];
	l->n--;
	fiber_join(k->fiber);
	if (*err)
		error_free(k->failed);
	else
		*err = k->failed;
	bool drop = k->stop || *err;
	for (size_t i = 0; i < k->n; i++) {
		struct cache_entry *e = k->e[i];
		if (error_is_sys(k->err[i], EAGAIN) && !*err) {
			*err = k->err[i];
		} else if (k->err[i]) {
			l->c->failed++;
			unreadable_set(&l->unreadable, str_sub(k->kv[i].key, l->c->r.prefix.n, k->kv[i].key.n), k->err[i]);
		} else if (!drop && e) {
			l->object_bytes += e->body->n;
			l->entry_bytes += e->bytes;
			cache_entry_unref(trees_set(&l->c->r, &l->main, &l->node, cache_entry_key(e), e));
		}
		cache_entry_unref(e);
		block_unref(k->kv[i].value);
	}
	arena_free(&k->keys);
	free(k);
}

struct error *load_all(struct load *l, struct str start, struct str end, int64_t *rev)
{
	char from[STORE_KEY_MAX + 1];
	struct error *e = NULL;
	size_t got = 0;
	do {
		if (l->n == LOAD_AHEAD)
			file_chunk(l, &e);
		if (e)
			break;
		struct chunk *k = xcalloc(1, sizeof(*k));
		k->r = &l->c->r;
		int64_t since = now_ns();
		if (k->r->plain) /* one that may wait, and then would keep the view */
			e = store_range(l->c->s, start, end, rev, LOAD_CHUNK, chunk_one, k);
		else
			e = store_range_view(l->c->s, start, end, rev, LOAD_CHUNK, chunk_one, k, &k->view);
		k->stop = e != NULL;
		got = k->n;
		cache_called(l->c, CACHE_CALL_LIST, since, got, e);
		if (got) { /* the next one starts behind this one's last key */
			struct str last = k->kv[got - 1].key;
			memcpy(from, last.p, last.n);
			from[last.n] = 0;
			start = str_of(from, last.n + 1);
		}
		l->chunks[(l->first + l->n++) % LOAD_AHEAD] = k;
		k->fiber = fiber_start("cache-load", chunk_fiber, k);
		fiber_yield();
	} while (!e && got == LOAD_CHUNK);
	while (l->n)
		file_chunk(l, &e);
	return e;
}

void load_drop(struct load *l)
{
	tree_free(&l->main);
	tree_free(&l->node);
	map_free_values(&l->unreadable, free);
}
