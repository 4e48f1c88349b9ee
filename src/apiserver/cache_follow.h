/*
 * apiserver/cache_follow.h: an index of a cache's objects that is kept without a fiber: whoever uses it first lets it take up what has
 * changed. It is then never older than the cache, and nothing runs when nobody asks.
 */
#ifndef SKIFF_APISERVER_CACHE_FOLLOW_H
#define SKIFF_APISERVER_CACHE_FOLLOW_H

#include "apiserver/cache.h"
#include "base/map.h"

struct cache_follower { /* zero but for the first four */
	struct cache *cache;
	const char *what; /* for the log: "RBAC objects" */
	/* The object of a key ("ns/name" or "name") as it is now; e NULL: it has gone. Both borrowed. Must not wait. */
	void (*apply)(void *ctx, struct str key, const struct cache_entry *e);
	void *ctx;
	struct cache_watch *watch;
	struct map keys;  /* of what apply was told, to the reading that told it */
	uintptr_t reading;
	bool failing;
};
/*
 * Calls apply for all that has changed since the last call, at first for everything; never suspends. Where the cache had to read its
 * objects again, everything is told again and what went meanwhile is told gone. When the cache cannot be followed now,
 * that is logged once and the next call tries again.
 */
void cache_follow(struct cache_follower *f);

#endif
