/*
 * apiserver/stored.h: an object as bytes for the store, of its storage version
 * and sealed where it is encrypted, and the way of these bytes into it. It
 * decides nothing about the object but that managedFields may go to make it fit.
 */
#ifndef SKIFF_APISERVER_STORED_H
#define SKIFF_APISERVER_STORED_H

#include "apiserver/server.h"

struct stored {
	struct buf bytes, plain;           /* plain: what the cache takes, where that is another: unsealed, and v1; else empty */
	bool bare;               /* the store is not given what reads fill in (strategy.h) */
};
#define stored_cleanup __attribute__((cleanup(stored_free)))
void stored_free(struct stored *s);

/* Makes the bytes of obj, an object of rq's resource in the request's version. obj is as before afterwards. */
struct error *stored_encode(struct request *rq, void *obj, struct stored *s);
/*
 * What a dry run answers with: the object as the store would give it back (empty lists are absent ones by then), as upstream's
 * DryRunnableStorage makes it. *obj is replaced.
 */
struct error *stored_read(struct request *rq, const struct stored *s, void **obj);

struct stored_put {
	struct str ns, name; /* ns: empty for what is cluster-wide */
	int64_t expect, lease;
	unsigned flags; /* CACHE_* */
	bool applied;   /* managedFields are what the request is about: they stay */
};
/*
 * cache_put of s, made of obj. What is too large for the store is tried once more without managedFields (obj loses them then);
 * what still is: 500, as upstream answers it.
 */
struct error *stored_put(struct request *rq, void *obj, struct stored *s, struct stored_put p, bool *ok, struct cache_entry **out);

#endif
