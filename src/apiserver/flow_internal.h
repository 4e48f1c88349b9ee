/*
 * apiserver/flow_internal.h: what requests (flow.c), the configuration (flow_config.c) and the tables of both (flow_dump.c) share.
 */
#ifndef SKIFF_APISERVER_FLOW_INTERNAL_H
#define SKIFF_APISERVER_FLOW_INTERNAL_H

#include "apiserver/flow.h"
#include "apiserver/flow_demand.h"
#include "apiserver/metrics.h"

struct flow_level {
	char *name, *uid;
	struct {
		struct metric_level seats, executing, waiting, demand;
	} use; /* of its seats, for /metrics */
	struct seat_demand demand;
	bool seen;  /* there is such an object; else only until the last request of it has ended */
	int32_t shares, lendable, borrowing; /* borrowing < 0: no limit */
	int most; /* seats that one request may have; 0: it has no queues, and there is no such limit */
	int dispatched, rejected, cancelled;
	struct fair_retry retry;
	struct fair fair; /* running requests point to it: levels are never freed */
};
/* Of a schema and a level, for /metrics; never freed, as series are not. */
struct flow_series {
	char *schema;
	struct flow_level *level;
	struct metric *execution[2], *estimated, *queue_length, *watchers;
	struct metric *executing, *seats, *waiting, *waiting_seats, *dispatched, *no_room, *waited[2];
};
struct schema {
	struct flowcontrol_v1_flow_schema *obj;
	struct flow_level *level;
	struct flow_series *series;
};
struct flow {
	struct storage *schemas_st, *levels_st;
	struct arena arena;
	struct schema *v;
	size_t n;
	struct map levels;
	struct map series; /* labels -> struct flow_series */
	struct fair_group group;
	int limit; /* seats of the server */
	struct flow_seat *first, *last; /* all that wait or run */
	struct lingering *lingers, *lingers_last; /* in the order in which they end */
	struct waitq linger;
	struct waitq wake;
	bool changed;      /* a schema or a level, since all were taken up */
	struct map judged; /* schema -> struct judged */
};
extern struct flow *flow; /* NULL without priority and fairness */

/* Of an object that was deleted, as long as there are requests of it. */
static inline bool flow_live(const struct flow_level *l)
{
	return l->seen || l->fair.executing || l->fair.waiting || l->fair.used;
}

/* ---- flow_config.c ---- */
/* What is exempt is not limited: upstream tells what it has kept or taken. */
double flow_exempt_limit(const struct flow_level *l);
/* What is used is told as a part of what there is; with nothing, of a tenth of all. */
void flow_limit_use(struct flow_level *l);

/* ---- flow.c ---- */
void flow_limit_read_write(double waiting, double executing);
/* On a fiber: takes back what requests keep that are answered. */
void flow_end_lingering(void *arg);
/* In order of their names. */
size_t flow_levels(struct arena *a, const struct flow_level ***out);

#endif
