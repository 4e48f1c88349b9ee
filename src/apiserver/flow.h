/*
 * apiserver/flow.h: API priority and fairness, the part a client sees: each
 * request belongs to a FlowSchema and its PriorityLevelConfiguration, and says so
 * in its headers; levels have seats, and past them answer 429.
 *
 * Not built: queues and shuffle sharding (a full level refuses at once), width estimates, borrowing.
 */
#ifndef SKIFF_APISERVER_FLOW_H
#define SKIFF_APISERVER_FLOW_H

#include "apiserver/server.h"

struct error *flow_init(struct apiserver *s);
/* Classifies, sets the headers and takes a seat; *seat (or NULL) goes back by flow_end. Long-running requests take none. */
struct error *flow_begin(struct request *rq, int **seat);
void flow_end(int *seat);

#endif
