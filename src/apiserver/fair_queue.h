/*
 * apiserver/fair_queue.h: seats of priority levels, and fair queues before them (KEP-1040).
 *
 * It knows nothing of requests or of the API: a flow is a number, a request what it will cost. One loop.
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
	bool exempt;            /* takes what it wants; of the others' seats only when all want theirs, as upstream's */
	bool reject;            /* limitResponse Reject: no queues */
	int queues, hand, length; /* of QueuingConfiguration; may change at any time: queues that are too many empty first */
	/* its state */
	struct fair_group *group;
	struct fair *next;
	int used, executing, wanted, waiting; /* seats that are held, requests that run; the same of those that wait */
	struct fair_queue *q;
	int n_queues, active;   /* active: queues of which requests wait or run */
	unsigned dealt;         /* hands so far */
	int robin;              /* the queue that a request left last */
	double now;             /* virtual time: seat-seconds that each active queue has been given */
	int64_t since_ns;       /* real time at which it was that */
	struct fair_dispatch {  /* the last request that left a queue */
		bool any;
		double now, due; /* when it did, and when it was due */
		double least, greatest; /* of all queues that waited: when they were due */
		double discounted_least, discounted_greatest; /* and without what of them runs */
	} last;
};
void fair_add(struct fair_group *g, struct fair *f);

enum fair_answer { FAIR_SEATED, FAIR_CONCURRENCY_LIMIT, FAIR_QUEUE_FULL, FAIR_TIME_OUT };
struct fair_request {
	int initial;       /* seats that it has while it runs */
	int final;         /* and behind that, when nobody waits for it any more, */
	int64_t linger_ns; /* for so long */
	/* told by fair_enter, also while it waits */
	int queue;        /* -1: of none */
	int length;       /* of the queue with it, when it came there */
	unsigned no_room; /* how often it was the next of its level, and there were too few seats */
	int64_t since_ns; /* when it got its seats */
};
/* The seats that it holds all the time. */
int fair_seats(const struct fair_request *r);
/* Makes r as narrow as the level can ever have it; what it does in the end is then the longer. */
void fair_fit(const struct fair *f, struct fair_request *r);
/*
 * Takes the seats of a request that fits, waiting at most max_wait_ms in that queue of the flow's hand in which the least work waits
 * (shuffle sharding). FAIR_SEATED: fair_done is called when it has been answered, then fair_leave, linger_ns later. An error only
 * when the fiber was cancelled.
 */
struct error *fair_enter(struct fair *f, uint64_t flow, struct fair_request *r, int64_t max_wait_ms, enum fair_answer *answer);
void fair_done(struct fair *f, const struct fair_request *r);
void fair_leave(struct fair *f, const struct fair_request *r);
/* Levels have other seats than before: who waits may have some now. */
void fair_changed(struct fair_group *g);
/* Seats that a level can have now: those it uses and what it would get. */
int fair_limit(const struct fair *f);
/* Brings `now` up to date. */
void fair_sync(struct fair *f);
/* What waits and runs in queue i (less than n_queues). */
struct fair_queue_state {
	int waiting, executing, seats; /* seats: of those that run */
	int initial, most;             /* seats of those that wait */
	double work, due;              /* seat-seconds that wait, and when the next of them is due */
};
struct fair_queue_state fair_queue_state(const struct fair *f, int i);

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
