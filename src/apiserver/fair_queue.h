/*
 * apiserver/fair_queue.h: seats of priority levels, and fair queues before them (KEP-1040).
 *
 * It knows nothing of requests or of the API: a flow is a number, a request a width in seats. One loop.
 */
#ifndef SKIFF_APISERVER_FAIR_QUEUE_H
#define SKIFF_APISERVER_FAIR_QUEUE_H

#include "loop/fiber.h"

#define FAIR_QUEUES_MAX 10000   /* of a level (upstream's limit is 10 million; they are made when first needed) */
#define FAIR_HAND_MAX 64

struct fair_group { /* all levels of a server share its seats; zeroed and `total` set */
	int total;
	struct fair *levels;
};
struct fair_queue;
struct fair { /* one priority level; zeroed, filled in, then fair_add */
	int nominal;            /* its seats */
	int reserved;           /* of them, those that are never lent */
	int borrow_max;         /* how many above nominal it may take from others; < 0: any number */
	bool reject;            /* limitResponse Reject: no queues */
	int queues, hand, length; /* of QueuingConfiguration; may change while requests wait: takes effect when none does */
	/* its state */
	struct fair_group *group;
	struct fair *next;
	int used, waiting;
	struct fair_queue *q;
	int n_queues;
	uint64_t dispatched;    /* out of queues */
	double now;             /* virtual time: seats given out, as the queue that is furthest behind has seen it */
};
void fair_add(struct fair_group *g, struct fair *f);

enum fair_answer { FAIR_SEATED, FAIR_CONCURRENCY_LIMIT, FAIR_QUEUE_FULL, FAIR_TIME_OUT };
/*
 * Takes `width` seats (at most what the level can ever have), waiting at most max_wait_ms in the shortest queue of the
 * flow's hand (shuffle sharding). FAIR_SEATED: end it by fair_leave with *width. *place is told while it waits. An error
 * only when the fiber was cancelled.
 */
struct fair_place {
	int queue;        /* -1: it never waited */
	int length;       /* of the queue with it, when it came there */
	unsigned no_room; /* how often it was the next of its level, and there were too few seats */
};
struct error *fair_enter(struct fair *f, uint64_t flow, int *width, int64_t max_wait_ms, enum fair_answer *answer,
			 struct fair_place *place);
/* What waits in queue i (less than `queues`), and how much the queue has been given. */
struct fair_queue_state {
	int waiting, seats;
	double given;
};
struct fair_queue_state fair_queue_state(const struct fair *f, int i);
void fair_leave(struct fair *f, int width);
/* Seats that a level can have now: those it uses and what it would get. */
int fair_limit(const struct fair *f);
/* The least and the greatest virtual time at which a queue that waits is due; false: none waits. */
bool fair_due(const struct fair *f, double *least, double *greatest);

/* How many requests of a level were refused in each of the last seconds, and after how many who is refused is told to come
 * again: more while there are many (upstream's dropped requests tracker). */
#define FAIR_RETRY_MAX 32 /* seconds */
struct fair_retry {
	struct {
		int64_t second;
		int n;
	} refused[2 * FAIR_RETRY_MAX]; /* by second */
	int after; /* 0: as 1 */
	int64_t raised; /* the second in which it was made more; 0: never */
};
/* One more at `second`; returns after how many seconds to come again. */
int fair_retry_after(struct fair_retry *r, int64_t second);

#endif
