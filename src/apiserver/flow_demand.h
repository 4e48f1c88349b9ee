/*
 * apiserver/flow_demand.h: how many seats a priority level could use, in periods of ten seconds, as upstream's borrowing
 * looks at them; and how all seats would be divided by that. Only numbers: here seats are lent when they are wanted.
 */
#ifndef SKIFF_APISERVER_FLOW_DEMAND_H
#define SKIFF_APISERVER_FLOW_DEMAND_H
#include <stddef.h>
#include <stdint.h>

struct seat_demand { /* zeroed */
	double now;  /* seats that are used and waited for */
	/* of the last period that is over; smoothed: average and deviation, which fall by half in five minutes where they fall */
	double average, deviation, high, smoothed;
	/* of the period that goes on */
	double area, squares, most;
	int64_t began_ns, since_ns;
};
/* n more from now_ns on; 0: only to have seen what is over. Costs no more the longer nothing was added. */
void seat_demand_add(struct seat_demand *d, double n, int64_t now_ns);

struct seat_claim {
	double low, high, target; /* what a level keeps, what it may have at most, what it wants */
};
/* The part of its target that each level has, within its bounds, when `total` seats are divided; 0: there are too few for what is kept. */
double seat_fair_fraction(const struct seat_claim *v, size_t n, double total);
#endif
