#include "../test.h"

#include <errno.h>

#include "client/workqueue.h"

static int runs, failures_left;
static char order[256];
static bool running;

static void in_loop(void (*fn)(void *))
{
	assert_ok(loop_run(fn, NULL));
}

static void one_at_a_time(void *arg)
{
	struct workqueue *q = workqueue_new("t");
	arena_cleanup struct arena a = {0};
	struct str k;

	workqueue_add(q, STR("ns/a"));
	workqueue_add(q, STR("ns/a"));
	workqueue_add(q, STR("ns/b"));
	assert_int_equal(workqueue_len(q), 2);
	assert_ok(workqueue_get(q, &a, &k));
	assert_str(k, "ns/a");
	/* While it is worked on it is not given out again, but not forgotten either. */
	workqueue_add(q, STR("ns/a"));
	assert_int_equal(workqueue_len(q), 1);
	workqueue_done(q, k);
	assert_int_equal(workqueue_len(q), 2);
	assert_ok(workqueue_get(q, &a, &k));
	assert_str(k, "ns/b");
	workqueue_done(q, k);
	assert_ok(workqueue_get(q, &a, &k));
	assert_str(k, "ns/a");
	workqueue_done(q, k);
	assert_int_equal(workqueue_len(q), 0);
	workqueue_free(q);
}

static void test_one_at_a_time(void **s)
{
	in_loop(one_at_a_time);
}

static void delays(void *arg)
{
	struct workqueue *q = workqueue_new("t");
	arena_cleanup struct arena a = {0};
	struct str k;
	int64_t began = now_ms();

	workqueue_add_after(q, STR("late"), 60);
	workqueue_add_after(q, STR("soon"), 20);
	workqueue_add_after(q, STR("late"), 40); /* the earlier counts */
	workqueue_add_after(q, STR("now"), 0);
	assert_ok(workqueue_get(q, &a, &k));
	assert_str(k, "now");
	workqueue_done(q, k);
	assert_ok(workqueue_get(q, &a, &k));
	assert_str(k, "soon");
	assert_true(now_ms() - began >= 20);
	workqueue_done(q, k);
	assert_ok(workqueue_get(q, &a, &k));
	assert_str(k, "late");
	assert_true(now_ms() - began >= 40);
	workqueue_done(q, k);
	/* A deadline ends the wait. */
	int64_t d = deadline_push(20);
	struct error *e = workqueue_get(q, &a, &k);

	deadline_pop(d);
	assert_true(error_is_sys(e, ETIMEDOUT));
	error_free(e);
	workqueue_add_after(q, STR("x"), 10000);
	d = deadline_push(20);
	e = workqueue_get(q, &a, &k);
	deadline_pop(d);
	assert_true(error_is_sys(e, ETIMEDOUT));
	error_free(e);
	/* Many: none before its time, in the order of their times. When exactly each was added lies between two looks at the clock. */
	struct {
		int64_t from, to;
	} due[200];

	for (int i = 0; i < 200; i++) {
		int n = i * 37 % 200, after = 1 + n / 4;

		due[n].from = now_ms() + after;
		workqueue_add_after(q, arena_printf(&a, "k%d", n), after);
		due[n].to = now_ms() + after;
	}
	int64_t last = 0;

	for (int i = 0; i < 200; i++) {
		int64_t n;

		assert_ok(workqueue_get(q, &a, &k));
		assert_true(str_to_i64(str_sub(k, 1, k.n), &n) && n >= 0 && n < 200);
		assert_true(now_ms() >= due[n].from);
		assert_true(due[n].to >= last);
		last = due[n].from > last ? due[n].from : last;
		workqueue_done(q, k);
	}
	workqueue_free(q);
}

static void test_delays(void **s)
{
	in_loop(delays);
}

static struct error *flaky(void *ctx, struct arena *a, struct str ns, struct str name)
{
	assert_false(running); /* one worker */
	running = true;
	error_free(fiber_sleep(1));
	running = false;
	runs++;
	strncat(order, arena_strz(a, name), sizeof(order) - strlen(order) - 1);
	if (failures_left-- > 0)
		return error_new("not yet");
	assert_str(ns, "ns");
	return NULL;
}

static void retries(void *arg)
{
	struct workqueue *q = workqueue_new("t");

	runs = 0;
	failures_left = 3;
	workqueue_run(q, "t", 1, flaky, NULL);
	workqueue_add(q, STR("ns/a"));
	int64_t began = now_ms();

	while (runs < 4 && now_ms() - began < 5000)
		error_free(fiber_sleep(1));
	assert_int_equal(runs, 4);
	error_free(fiber_sleep(30));
	assert_int_equal(runs, 4);
	assert_int_equal(workqueue_requeues(q, STR("ns/a")), 0);
	assert_true(now_ms() - began >= 5 + 10 + 20);
}

static void test_retries(void **s)
{
	in_loop(retries);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_delays),
		cmocka_unit_test(test_retries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
