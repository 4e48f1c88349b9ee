/*
 * apiserver/grace.h: when what was made of a CustomResourceDefinition may be freed: when no request that could have found it
 * is running any more. Requests enter and leave; what is taken out of the server's tables is retired; a fiber frees it once all
 * have left that had entered before. Whoever neither waits nor keeps a pointer over a wait need not enter.
 *
 * A request that lasts (a watch, a stream) leaves early and keeps what it needs by a reference of its own: see crd_hold.
 * One loop's fibers only.
 */
#ifndef SKIFF_APISERVER_GRACE_H
#define SKIFF_APISERVER_GRACE_H

#include <stdbool.h>
#include <stdint.h>

struct grace;
struct grace_reader { /* zeroed at first; in the one who reads */
	struct grace *in; /* NULL: not inside */
	struct grace_reader *prev, *next;
	uint64_t since;
};

struct grace *grace_new(void);
/* Entering twice, and leaving twice, is allowed and nothing. */
void grace_enter(struct grace *g, struct grace_reader *r);
void grace_leave(struct grace_reader *r);
/* fn(obj) is called, on a fiber that may wait, when all readers of now have left. */
void grace_retire(struct grace *g, void (*fn)(void *obj), void *obj);

struct grace_stats {
	uint64_t retired, freed; /* since the start */
};
struct grace_stats grace_stats(const struct grace *g);

#endif
