/* Seats and fair queues of priority levels (apiserver/fair_queue.h). */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "apiserver/fair_queue.h"

struct guest { /* one request: enters, stays until told, leaves */
	struct fair *f;
	uint64_t flow;
	int width, wait_ms;
	enum fair_answer answer;
	bool in, out, cancelled;
	int order;
	struct waitq go;
	struct fiber *fiber;
};
static int entered;

static void visit(void *arg)
{
	struct guest *g = arg;
	struct fair_place place;
	struct error *e = fair_enter(g->f, g->flow, &g->width, g->wait_ms ? g->wait_ms : 10000, &g->answer, &place);

	g->cancelled = e != NULL;
	error_free(e);
	if (!g->cancelled && g->answer == FAIR_SEATED) {
		g->in = true;
		g->order = ++entered;
		while (!g->out)
			error_free(waitq_wait(&g->go));
		fair_leave(g->f, g->width);
	}
	g->in = false;
}

static void come(struct guest *g, struct fair *f, uint64_t flow, int width)
{
	*g = (struct guest){.f = f, .flow = flow, .width = width};
	g->fiber = fiber_start("guest", visit, g);
	fiber_yield();
}

static void leave(struct guest *g)
{
	g->out = true;
	waitq_wake_all(&g->go);
	fiber_join(g->fiber);
	fiber_yield();
}

static void seats(void *arg)
{
	struct fair_group g = {.total = 4};
	struct fair f = {.nominal = 4, .reserved = 4, .borrow_max = -1, .queues = 1, .hand = 1, .length = 2};
	struct guest v[8];

	fair_add(&g, &f);
	come(&v[0], &f, 1, 3);
	come(&v[1], &f, 1, 1);
	assert_true(v[0].in && v[1].in);
	come(&v[2], &f, 1, 2);
	come(&v[3], &f, 1, 1);
	assert_true(!v[2].in && !v[3].in && f.waiting == 2);
	come(&v[4], &f, 1, 1);
	assert_int_equal(v[4].answer, FAIR_QUEUE_FULL);
	fiber_join(v[4].fiber);
	/* One seat is free, but the first in the queue wants two: nobody overtakes it. */
	leave(&v[1]);
	assert_true(!v[2].in && !v[3].in);
	leave(&v[0]);
	assert_true(v[2].in && v[3].in);
	/* Wider than the level: as wide as it can be. */
	leave(&v[2]);
	leave(&v[3]);
	come(&v[5], &f, 1, 100);
	assert_true(v[5].in);
	assert_int_equal(v[5].width, 4);
	/* Nobody waits for ever, and who is cancelled leaves no trace. */
	v[6] = (struct guest){.f = &f, .flow = 1, .width = 1, .wait_ms = 20};
	v[6].fiber = fiber_start("guest", visit, &v[6]);
	fiber_join(v[6].fiber);
	assert_int_equal(v[6].answer, FAIR_TIME_OUT);
	come(&v[7], &f, 1, 1);
	fiber_stop(v[7].fiber);
	assert_true(v[7].cancelled);
	assert_int_equal(f.waiting, 0);
	leave(&v[5]);
	assert_int_equal(f.used, 0);
	f.reject = true;
	come(&v[0], &f, 1, 4);
	come(&v[1], &f, 1, 1);
	fiber_join(v[1].fiber);
	assert_int_equal(v[1].answer, FAIR_CONCURRENCY_LIMIT);
	leave(&v[0]);
	free(f.q);
}

/* A flow of many does not hold up a flow of few. */
static void fairness(void *arg)
{
	enum { MANY = 40 };
	struct fair_group g = {.total = 1};
	struct fair f = {.nominal = 1, .reserved = 1, .borrow_max = 0, .queues = 64, .hand = 4, .length = 50};
	struct guest first, many[MANY], few[2];

	fair_add(&g, &f);
	come(&first, &f, 7, 1);
	entered = 0;
	for (int i = 0; i < MANY; i++)
		come(&many[i], &f, 12345678901234567u, 1);
	for (int i = 0; i < 2; i++)
		come(&few[i], &f, 98765432109876543u, 1);
	assert_int_equal(f.waiting, MANY + 2);
	leave(&first);
	for (int left = MANY + 2; left > 0; left--) {
		struct guest *in = NULL;

		for (int i = 0; i < MANY && !in; i++)
			in = many[i].in ? &many[i] : NULL;
		for (int i = 0; i < 2 && !in; i++)
			in = few[i].in ? &few[i] : NULL;
		assert_non_null(in);
		leave(in);
	}
	/* The many share four queues at most, so that the few come within some five turns each. */
	assert_true(few[0].order <= 6 && few[1].order <= 11);
	assert_int_equal(f.used, 0);
	free(f.q);
}

static void lending(void *arg)
{
	struct fair_group g = {.total = 10};
	struct fair a = {.nominal = 5, .reserved = 2, .borrow_max = 2, .queues = 1, .hand = 1, .length = 50};
	struct fair b = {.nominal = 5, .reserved = 4, .borrow_max = -1, .queues = 1, .hand = 1, .length = 50};
	struct guest va[12], vb[12];
	int n = 0;

	fair_add(&g, &a);
	fair_add(&g, &b);
	for (int i = 0; i < 8; i++) {
		come(&va[i], &a, 1, 1);
		n += va[i].in;
	}
	/* Of b's five one is lent: a has six of the ten, though it might borrow two. */
	assert_int_equal(n, 6);
	for (int i = 0; i < 5; i++)
		come(&vb[i], &b, 1, 1);
	assert_int_equal(b.used, 4);
	assert_int_equal(b.waiting, 1);
	/* What was lent comes back to whoever asks: levels are served in their order. */
	leave(&va[0]);
	assert_int_equal(a.used + b.used, 10);
	for (int i = 1; i < 8; i++)
		leave(&va[i]);
	assert_int_equal(b.waiting, 0);
	for (int i = 0; i < 5; i++)
		leave(&vb[i]);
	assert_int_equal(a.used + b.used, 0);
	free(a.q);
	free(b.q);
}

static int refused(struct fair_retry *r, int64_t second, int n)
{
	int after = 0;

	for (int i = 0; i < n; i++)
		after = fair_retry_after(r, second);
	return after;
}

static void test_retry(void **state)
{
	struct fair_retry r = {0};
	int64_t now = 1000;

	(void)state;
	assert_int_equal(refused(&r, now, 9), 1);
	assert_int_equal(refused(&r, ++now, 9), 2); /* nine in the second before: three times one, and more */
	assert_int_equal(refused(&r, ++now, 9), 2); /* not again so soon */
	assert_int_equal(refused(&r, ++now, 9), 4);
	while (now < 1100)
		refused(&r, ++now, 200);
	assert_int_equal(r.after, FAIR_RETRY_MAX);
	assert_int_equal(refused(&r, 1101, 1), FAIR_RETRY_MAX);
	assert_int_equal(refused(&r, 1200, 1), FAIR_RETRY_MAX - 1); /* nothing for a while: slowly less */
	assert_int_equal(refused(&r, 1232, 1), FAIR_RETRY_MAX - 2);
	for (now = 2000; now < 8000; now += 100)
		refused(&r, now, 1);
	assert_int_equal(r.after, 1);
}

static void on_loop(void **state, fiber_fn *fn)
{
	assert_ok(loop_run(fn, NULL));
}
static void test_seats(void **state) { on_loop(state, seats); }
static void test_fairness(void **state) { on_loop(state, fairness); }
static void test_lending(void **state) { on_loop(state, lending); }

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_seats), cmocka_unit_test(test_fairness), cmocka_unit_test(test_lending),
					   cmocka_unit_test(test_retry)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
