/*
 * apiserver/flow.h: API priority and fairness (KEP-1040): each request belongs
 * to a FlowSchema and its PriorityLevelConfiguration, and says so in its
 * headers; levels have seats, lend and borrow them, and what finds none waits
 * in fair queues (fair_queue.h) or is answered 429.
 *
 * With --enable-priority-and-fairness=false there are only two numbers of requests at once, of those that write and of
 * the others; who is above them is answered 429, system:masters never is.
 *
 * A request takes one seat or more (flow_work.h), a write some for a while longer where there are many watches; a watch takes its own until
 * it has given what there was when it began. Other long-running ones take none.
 */
#ifndef SKIFF_APISERVER_FLOW_H
#define SKIFF_APISERVER_FLOW_H

#include "apiserver/fair_queue.h"
#include "apiserver/server.h"

struct error *flow_init(struct apiserver *s);
struct flow_series;
struct flow_seat {                  /* zeroed; stays where it is until flow_end */
	struct flow_series *series; /* of its schema and level; NULL: it has none */
	struct fair_request fair;
	int *inflight; /* without priority and fairness: of how many it is one, or NULL */
	struct watermark *running; /* counted there */
	/* for who looks at what waits and runs */
	const struct request *rq;
	struct flow_seat *next, *prev;
	struct str distinguisher;
	bool waiting;
	int64_t arrived_ns, started_ns; /* wall clock; 0: not yet */
};
/*
 * Classifies, sets the headers, waits for seats, a quarter of the time that the request has, a minute at most; they go back by flow_end.
 * *refused: there were none in time, which the client was told (429).
 */
struct error *flow_begin(struct request *rq, struct flow_seat *seat, int64_t timeout_ms, bool *refused);
/* A watch has begun, or is another server's: it goes on without its seats. Again is allowed. */
void flow_begun(struct request *rq);
void flow_end(struct request *rq); /* of the whole request */
/* For /metrics: the seats of each level, and what is wanted of them. */
void flow_collect(void);

/* Tables of what levels, queues and requests do (flow_dump.c); *handled false: no such page. */
struct error *flow_dump(struct request *rq, struct str page, bool *handled);

#endif
