/*
 * apiserver/flow.h: API priority and fairness (KEP-1040): each request belongs
 * to a FlowSchema and its PriorityLevelConfiguration, and says so in its
 * headers; levels have seats, lend and borrow them, and what finds none waits
 * in fair queues (fair_queue.h) or is answered 429.
 *
 * A request takes one seat, a list as many as its objects want; long-running ones take none.
 */
#ifndef SKIFF_APISERVER_FLOW_H
#define SKIFF_APISERVER_FLOW_H

#include "apiserver/fair_queue.h"
#include "apiserver/server.h"

struct error *flow_init(struct apiserver *s);
struct flow_series;
struct flow_seat { /* zeroed */
	struct fair *level;         /* NULL: of an exempt one */
	struct flow_series *series; /* counted there; NULL: not at all */
	int width;
};
/* Classifies, sets the headers, waits for a seat; it goes back by flow_end. 429 when there is none in time. */
struct error *flow_begin(struct request *rq, struct flow_seat *seat);
void flow_end(struct flow_seat *seat); /* again is allowed */
/* For /metrics: how many seats each level has, keeps and may have at most. */
void flow_collect(void);

#endif
