/*
 * apiserver/background.h: what the server does without being asked and for as long as it lives: following its own objects, cleaning up. It
 * writes to the store, so it has ended before the store is closed.
 */
#ifndef SKIFF_APISERVER_BACKGROUND_H
#define SKIFF_APISERVER_BACKGROUND_H

#include "apiserver/server.h"

/* Runs fn(arg) on a fiber of its own, named by a literal, until it returns or is cancelled. */
void background_start(struct apiserver *s, const char *name, fiber_fn *fn, void *arg);
/* Calls fn with a watch of all that is and comes in the cache; again with another, a second after it ended with an error. */
void background_watch(struct apiserver *s, const char *name, struct cache *c, struct error *(*fn)(struct apiserver *s, struct cache_watch *w));
/* Calls fn at first and whenever something in the cache has changed, once for what changes together; its errors are logged. */
void background_follow(struct apiserver *s, const char *name, struct cache *c, struct error *(*fn)(struct apiserver *s));
/* Cancels all of them and waits until they have ended; one that is started from then on is cancelled from the beginning. */
void background_stop(struct apiserver *s);

#endif
