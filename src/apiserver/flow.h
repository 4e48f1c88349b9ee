/*
 * apiserver/flow.h: API priority and fairness (KEP-1040): each request belongs
 * to a FlowSchema and its PriorityLevelConfiguration, and says so in its
 * headers; levels have seats, lend and borrow them, and what finds none waits
 * in fair queues (fair_queue.h) or is answered 429.
 *
 * With --enable-priority-and-fairness=false there are only two numbers of requests at once, of those that write and of
 * the others; who is above them is answered 429, system:masters never is.
 *
 * A request takes one seat, a list as many as its objects want; long-running ones take none.
 */
#ifndef SKIFF_APISERVER_FLOW_H
#define SKIFF_APISERVER_FLOW_H

#include "apiserver/fair_queue.h"
#include "apiserver/flow_demand.h"
#include "apiserver/metrics.h"
#include "apiserver/server.h"

struct error *flow_init(struct apiserver *s);
struct flow_series;
struct flow_seat {                  /* zeroed; stays where it is until flow_end */
	struct fair *level;         /* NULL: of an exempt one */
	struct flow_series *series; /* counted there; NULL: not at all */
	int width, wanted; /* wanted: before it was known how many it may have at most */
	int *inflight; /* without priority and fairness: of how many it is one, or NULL */
	/* for who looks at what waits and runs */
	const struct request *rq;
	struct flow_seat *next, *prev;
	struct str distinguisher;
	struct fair_place place;
	bool waiting;
	int64_t arrived_ns, started_ns; /* wall clock; 0: not yet */
};
/* Classifies, sets the headers, waits for a seat; it goes back by flow_end. *refused: there was none in time, which the client
 * was told (429). */
struct error *flow_begin(struct request *rq, struct flow_seat *seat, bool *refused);
void flow_end(struct flow_seat *seat); /* again is allowed */
/* For /metrics: the seats of each level, and what is wanted of them. */
void flow_collect(void);

/* Tables of what levels, queues and requests do (flow_dump.c); *handled false: no such page. */
struct error *flow_dump(struct request *rq, struct str page, bool *handled);

/* ---- for flow_dump.c ---- */
struct flow_level {
	char *name, *uid;
	struct {
		struct metric_level seats, executing, waiting, demand;
	} use; /* of its seats, for /metrics */
	struct seat_demand demand;
	bool exempt, seen;
	int32_t shares, lendable, borrowing; /* borrowing < 0: no limit */
	int executing, dispatched, rejected, timed_out, cancelled;
	struct fair_retry retry;
	struct fair fair; /* running requests point to it: levels are never freed */
};
/* In order of their names. */
size_t flow_levels(struct arena *a, const struct flow_level ***out);
/* All that wait or run, in the order in which they came. */
const struct flow_seat *flow_seats(void);
const struct flow_level *flow_seat_level(const struct flow_seat *seat);
const char *flow_seat_schema(const struct flow_seat *seat);

#endif
