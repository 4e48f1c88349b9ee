#include "apiserver/cache_follow.h"
#include "base/log.h"

#define OPEN_MAX 2 /* a call begins to read so often */

static void take(struct cache_follower *f, const struct cache_event *ev)
{
	struct str key = cache_entry_key(ev->obj);

	if (ev->type == CACHE_DELETED)
		map_del(&f->keys, key);
	else
		map_set(&f->keys, key, (void *)f->reading);
	f->apply(f->ctx, key, ev->type == CACHE_DELETED ? NULL : ev->obj);
}

/* What the reading that has just ended did not find. */
static void sweep(struct cache_follower *f)
{
	size_t it = 0;
	struct str key;
	void *reading;

	while (map_next(&f->keys, &it, &key, &reading))
		if ((uintptr_t)reading != f->reading) {
			f->apply(f->ctx, key, NULL);
			map_del(&f->keys, key);
		}
}

void cache_follow(struct cache_follower *f)
{
	for (int opened = 0;;) {
		struct cache_event ev;
		struct error *e;

		if (!f->watch) {
			struct cache_watch_opts o = {.initial = true, .mode = CACHE_ANY, .initial_end = true};

			if (opened++ == OPEN_MAX)
				return;
			e = cache_watch_open(f->cache, &o, &f->watch);
			if (e) {
				if (!f->failing)
					log_warn("following %s: %s", f->what, error_message(e));
				error_free(e);
				f->failing = true;
				return;
			}
			f->failing = false;
			f->reading++;
		}
		if (!cache_watch_ready(f->watch))
			return;
		e = cache_watch_next(f->watch, &ev);
		if (e) {
			error_free(e); /* it fell behind, or the cache reads again: from the start */
			cache_watch_close(f->watch);
			f->watch = NULL;
			continue;
		}
		if (ev.obj)
			take(f, &ev);
		else if (ev.initial_end)
			sweep(f);
	}
}
