#include <math.h>
#include "apiserver/flow_demand.h"

#define PERIOD_NS (10 * (int64_t)1000000000)
#define SMOOTH 0.977 /* to the power of 30 periods: a half */
#define TARGET_MIN 0.001
#define STEPS 100 /* of halving */

static void integrate(struct seat_demand *d, int64_t until_ns)
{
	double seconds = (double)(until_ns - d->since_ns) / 1e9;

	d->area += d->now * seconds;
	d->squares += d->now * d->now * seconds;
	d->since_ns = until_ns;
}

/* So many periods of the same are over. */
static void over(struct seat_demand *d, double average, double deviation, double most, double periods)
{
	double both = average + deviation;

	d->average = average;
	d->deviation = deviation;
	d->high = round(most);
	d->smoothed = d->smoothed > both ? both + pow(SMOOTH, periods) * (d->smoothed - both) : both;
	d->area = d->squares = 0;
	d->most = d->now;
}

static void advance(struct seat_demand *d, int64_t now_ns)
{
	int64_t more;

	if (!d->began_ns)
		d->began_ns = d->since_ns = now_ns;
	if (now_ns - d->began_ns >= PERIOD_NS) {
		double seconds = (double)PERIOD_NS / 1e9, average, variance;

		d->began_ns += PERIOD_NS;
		integrate(d, d->began_ns);
		average = d->area / seconds;
		variance = d->squares / seconds - average * average;
		over(d, average, variance > 0 ? sqrt(variance) : 0, d->most, 1);
	}
	more = (now_ns - d->began_ns) / PERIOD_NS;
	if (more > 0) { /* in which nothing changed */
		over(d, d->now, 0, d->now, (double)more);
		d->began_ns += more * PERIOD_NS;
		d->since_ns = d->began_ns;
	}
	integrate(d, now_ns);
}

void seat_demand_add(struct seat_demand *d, double n, int64_t now_ns)
{
	advance(d, now_ns);
	d->now += n;
	if (d->now > d->most)
		d->most = d->now;
}

static double target(const struct seat_claim *c)
{
	return c->target > TARGET_MIN ? c->target : TARGET_MIN;
}

static double given(const struct seat_claim *v, size_t n, double fraction)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += fmax(v[i].low, fmin(v[i].high, fraction * target(&v[i])));
	return sum;
}

double seat_fair_fraction(const struct seat_claim *v, size_t n, double total)
{
	double low = 0, high = 0;

	if (given(v, n, 0) >= total)
		return 0;
	for (size_t i = 0; i < n; i++)
		high = fmax(high, fmin(v[i].high, total) / target(&v[i]));
	for (int i = 0; i < STEPS; i++) {
		double middle = (low + high) / 2;

		*(given(v, n, middle) < total ? &low : &high) = middle;
	}
	return high;
}
