/*
 * apiserver/flow_work.h: what a request will cost, in seats, before it has begun, as upstream's work estimators guess it: a list by the
 * bytes that it holds at once, a watch by those that it begins with, a write by the watches that will be told of it.
 */
#ifndef SKIFF_APISERVER_FLOW_WORK_H
#define SKIFF_APISERVER_FLOW_WORK_H

#include "apiserver/fair_queue.h"
#include "apiserver/server.h"

struct list_work {
	int64_t objects, bytes; /* of the resource */
	int64_t limit;          /* 0: none */
	bool one, cached, selects; /* of one name; read from the cache; with selectors */
};
/* most: seats that a request of the level may have; 0: it says nothing. */
int list_seats(const struct list_work *w, int most);
void write_seats(int64_t watches, int most, struct fair_request *out);

/* Seats of a request; *watches: those that it concerns, -1: they do not matter. */
void request_seats(const struct request *rq, int most, struct fair_request *out, int64_t *watches);

/* Watches of a resource are counted while they last: n is 1 and, in the end, -1. */
void watches_count(const struct request *rq, int n);
/* Those of what a request is of: all of the resource, of its namespace, of its name. */
int64_t watches_of(const struct request_info *i);

#endif
