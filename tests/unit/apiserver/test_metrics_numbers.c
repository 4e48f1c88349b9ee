/* What /metrics computes: quantiles (apiserver/metrics_summary.h), demand of seats (apiserver/flow_demand.h). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "apiserver/fair_queue.h"
#include "apiserver/flow_demand.h"
#include "apiserver/metrics_summary.h"

#define HOUR_MS ((int64_t)3600 * 1000)
#define SECOND ((int64_t)1000000000)

static void near(double got, double want, double part)
{
	if (!(fabs(got - want) <= part * fabs(want) + 1e-9))
		fail_msg("%g is not about %g", got, want);
}

static void test_quantiles(void **state)
{
	struct summary s = {0};
	int64_t now = 100 * HOUR_MS;

	assert_true(isnan(summary_quantile(&s, 0.5, now)));
	for (int i = 1; i <= 1000; i++)
		summary_observe(&s, i / 1000.0, now);
	near(summary_quantile(&s, 0.5, now), 0.5, 0.06);
	near(summary_quantile(&s, 0.9, now), 0.9, 0.06);
	near(summary_quantile(&s, 0.99, now), 0.99, 0.06);
	/* what is out of range is at its ends */
	summary_observe(&s, 0, now);
	near(summary_quantile(&s, 0, now), 1e-6, 0.06);
	summary_observe(&s, 1e9, now);
	assert_true(summary_quantile(&s, 1, now) > 1000);
	/* old ones are forgotten, an hour's at a time */
	for (int i = 0; i < 10; i++)
		summary_observe(&s, 7, now + 4 * HOUR_MS);
	near(summary_quantile(&s, 0.5, now + 4 * HOUR_MS), 0.5, 0.06);
	near(summary_quantile(&s, 0.5, now + 5 * HOUR_MS), 7, 0.06);
	summary_observe(&s, 3, now + 5 * HOUR_MS); /* in the place of the first hour */
	near(summary_quantile(&s, 0.01, now + 5 * HOUR_MS), 3, 0.06);
	assert_true(isnan(summary_quantile(&s, 0.5, now + 20 * HOUR_MS)));
	summary_clear(&s);
	assert_true(isnan(summary_quantile(&s, 0.5, now)));
}

static void test_demand(void **state)
{
	struct seat_demand d = {0};
	int64_t t = 5 * SECOND;

	/* a half of ten seconds 4, the other half 0: 2 on average, deviation 2 */
	seat_demand_add(&d, 4, t);
	seat_demand_add(&d, -4, t + 5 * SECOND);
	assert_true(d.average == 0 && d.smoothed == 0);
	seat_demand_add(&d, 0, t + 10 * SECOND);
	near(d.average, 2, 1e-6);
	near(d.deviation, 2, 1e-6);
	near(d.high, 4, 1e-6);
	near(d.smoothed, 4, 1e-6);
	/* nothing for ten minutes: smoothed has halved twice */
	seat_demand_add(&d, 0, t + 610 * SECOND);
	near(d.average, 0, 1e-6);
	near(d.high, 0, 1e-6);
	near(d.smoothed, 1, 0.02);
	/* one at a time would say the same */
	struct seat_demand e = {0};

	seat_demand_add(&e, 4, t);
	seat_demand_add(&e, -4, t + 5 * SECOND);
	for (int i = 0; i <= 61; i++)
		seat_demand_add(&e, 0, t + i * 10 * SECOND);
	near(e.smoothed, d.smoothed, 1e-6);
	/* what goes on over a period's end is in both */
	seat_demand_add(&d, 3, t + 619 * SECOND);
	seat_demand_add(&d, 0, t + 621 * SECOND);
	near(d.average, 0.3, 1e-6);
	near(d.high, 3, 1e-6);
	seat_demand_add(&d, 0, t + 630 * SECOND);
	near(d.average, 3, 1e-6);
	near(d.deviation, 0, 1e-6);
	near(d.smoothed, 3, 1e-6);
}

static void test_fraction(void **state)
{
	/* who wants twice as much gets twice as much, but for bounds */
	struct seat_claim v[] = {{1, 100, 10}, {1, 100, 20}};

	near(seat_fair_fraction(v, 2, 60), 2, 1e-6);
	v[1].high = 30;
	near(seat_fair_fraction(v, 2, 60), 3, 1e-6);
	v[0].low = 40;
	near(seat_fair_fraction(v, 2, 60), 1, 1e-6);
	near(seat_fair_fraction(v, 2, 41), 0, 1e-6);
	near(seat_fair_fraction(v, 0, 0), 0, 1e-6);
}

static void test_limit(void **state)
{
	struct fair_group g = {.total = 10};
	struct fair a = {.nominal = 5, .reserved = 2, .borrow_max = 2}, b = {.nominal = 5, .reserved = 4, .borrow_max = -1};

	fair_add(&g, &a);
	fair_add(&g, &b);
	assert_int_equal(fair_limit(&a), 6); /* what the other keeps is not for it */
	assert_int_equal(fair_limit(&b), 8);
	a.used = 6;
	assert_int_equal(fair_limit(&a), 6);
	assert_int_equal(fair_limit(&b), 4);
	a.used = 1;
	assert_int_equal(fair_limit(&b), 8);
	a.used = 3;
	assert_int_equal(fair_limit(&b), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_quantiles), cmocka_unit_test(test_demand), cmocka_unit_test(test_fraction),
					   cmocka_unit_test(test_limit)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
