/* Seats and fair queues of priority levels (apiserver/fair_queue.h). */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "apiserver/fair_queue.h"
#include "apiserver/flow_work.h"

struct guest { /* one request: enters, stays until told, leaves */
	struct fair *f;
	uint64_t flow;
	struct fair_request r;
	int wait_ms;
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
	struct error *e;

	fair_fit(g->f, &g->r);
	e = fair_enter(g->f, g->flow, &g->r, g->wait_ms ? g->wait_ms : 10000, &g->answer);
	g->cancelled = e != NULL;
	error_free(e);
	if (!g->cancelled && g->answer == FAIR_SEATED) {
		g->in = true;
		g->order = ++entered;
		while (!g->out)
			error_free(waitq_wait(&g->go));
		fair_done(g->f, &g->r);
		fair_leave(g->f, &g->r);
	}
	g->in = false;
}

static void come(struct guest *g, struct fair *f, uint64_t flow, int width)
{
	*g = (struct guest){.f = f, .flow = flow, .r.initial = width};
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
	assert_int_equal(v[5].r.initial, 4);
	/* Nobody waits for ever, and who is cancelled leaves no trace. */
	v[6] = (struct guest){.f = &f, .flow = 1, .r.initial = 1, .wait_ms = 20};
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
		error_free(fiber_sleep(2)); /* longer than it took all of them to come: what counts is what each flow has had */
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

/* What is exempt takes what it wants; of the others' seats only when they want all of their own. */
static void exemption(void *arg)
{
	struct fair_group g = {.total = 12};
	struct fair x = {.nominal = 2, .reserved = 1, .borrow_max = -1, .exempt = true};
	struct fair a = {.nominal = 5, .reserved = 2, .borrow_max = -1, .queues = 1, .hand = 1, .length = 50};
	struct fair b = {.nominal = 5, .reserved = 4, .borrow_max = -1, .queues = 1, .hand = 1, .length = 50};
	struct guest vx[30], va[8], vb[5];
	int n = 0;

	fair_add(&g, &x);
	fair_add(&g, &a);
	fair_add(&g, &b);
	for (int i = 0; i < 2; i++)
		come(&vx[i], &x, 0, 1);
	assert_int_equal(x.used, 2);
	for (int i = 0; i < 8; i++) {
		come(&va[i], &a, 1, 1);
		n += va[i].in;
	}
	assert_int_equal(n, 8); /* its two, b's one and five of what is another's: 12 but for the four that b keeps */
	assert_int_equal(fair_limit(&a), 8);
	for (int i = 2; i < 30; i++)
		come(&vx[i], &x, 0, 1);
	assert_int_equal(x.used, 30);
	assert_int_equal(fair_limit(&a), 8); /* what has begun goes on */
	leave(&va[0]);
	assert_int_equal(fair_limit(&a), 7); /* but nothing is left to be lent */
	for (int i = 1; i < 8; i++)
		leave(&va[i]);
	assert_int_equal(fair_limit(&a), 2);
	for (int i = 0; i < 5; i++)
		come(&vb[i], &b, 1, 1);
	assert_int_equal(b.used, 4);
	for (int i = 0; i < 30; i++)
		leave(&vx[i]);
	assert_int_equal(x.used, 0);
	for (int i = 0; i < 5; i++) {
		assert_true(vb[i].in);
		leave(&vb[i]);
	}
	assert_int_equal(a.used + b.used, 0);
	free(a.q);
	free(b.q);
}

/* Without seats of its own and without loans nothing is let through: a jail, as upstream's shares of 0. */
static void jail(void *arg)
{
	struct fair_group g = {.total = 4};
	struct fair f = {.borrow_max = 0, .queues = 1, .hand = 1, .length = 2};
	struct guest v[3];

	fair_add(&g, &f);
	for (int i = 0; i < 3; i++) {
		v[i] = (struct guest){.f = &f, .flow = 1, .r.initial = 1, .wait_ms = 20};
		v[i].fiber = fiber_start("guest", visit, &v[i]);
		fiber_yield();
	}
	for (int i = 0; i < 3; i++)
		fiber_join(v[i].fiber);
	assert_int_equal(v[0].answer, FAIR_TIME_OUT);
	assert_int_equal(v[2].answer, FAIR_QUEUE_FULL);
	assert_int_equal(f.wanted + f.waiting + f.active, 0);
	/* who is in it when it is opened gets out */
	come(&v[0], &f, 1, 1);
	come(&v[1], &f, 1, 1);
	f.nominal = f.reserved = 1;
	fair_changed(&g);
	fiber_yield();
	assert_true(v[0].in && !v[1].in);
	leave(&v[0]);
	leave(&v[1]);
	free(f.q);
}

/* Seats that a request keeps when it has been answered. */
static void lingering(void *arg)
{
	struct fair_group g = {.total = 4};
	struct fair f = {.nominal = 4, .reserved = 4, .borrow_max = 0, .queues = 4, .hand = 1, .length = 9};
	struct fair_request r = {.initial = 1, .final = 3, .linger_ns = 5000000};
	enum fair_answer answer;
	struct guest a, b;

	fair_add(&g, &f);
	assert_ok(fair_enter(&f, 0, &r, 1000, &answer));
	assert_int_equal(answer, FAIR_SEATED);
	assert_true(r.queue == 0 && r.length == 1 && f.used == 3);
	come(&a, &f, 1, 2);
	assert_true(!a.in && fair_queue_state(&f, 1).waiting == 1);
	assert_int_equal(a.r.no_room, 1);
	fair_done(&f, &r);
	come(&b, &f, 2, 1);
	assert_true(!a.in && b.in); /* it would be done before the wide one */
	assert_true(f.executing == 1 && f.used == 4 && fair_queue_state(&f, 0).seats == 3 && !fair_queue_state(&f, 0).executing);
	fair_leave(&f, &r);
	fiber_yield();
	assert_true(a.in);
	leave(&a);
	leave(&b);
	assert_true(!f.used && !f.executing && !f.active);
	/* wider than the level: as wide as it may be, for as much longer */
	r = (struct fair_request){.initial = 1, .final = 10, .linger_ns = 4000000};
	fair_fit(&f, &r);
	assert_true(r.final == 4 && r.linger_ns == 10000000);
	free(f.q);
}

/* Queues that become more and fewer while requests run and wait. */
static void resizing(void *arg)
{
	struct fair_group g = {.total = 1};
	struct fair f = {.nominal = 1, .reserved = 1, .borrow_max = 0, .queues = 2, .hand = 1, .length = 9};
	struct guest v[4];

	fair_add(&g, &f);
	come(&v[0], &f, 1, 1);
	come(&v[1], &f, 1, 1);
	assert_int_equal(v[1].r.queue, 1);
	f.queues = 40;
	come(&v[2], &f, 39, 1);
	assert_true(f.n_queues == 40 && v[2].r.queue == 39);
	f.queues = 1;
	come(&v[3], &f, 39, 1);
	assert_true(f.n_queues == 40 && v[3].r.queue == 0 && f.waiting == 3);
	for (int left = 4; left > 0; left--)
		for (int i = 0; i < 4; i++)
			if (v[i].in) {
				leave(&v[i]);
				break;
			}
	assert_true(!f.used && !f.waiting && !f.active);
	come(&v[0], &f, 1, 1);
	assert_int_equal(f.n_queues, 1);
	leave(&v[0]);
	free(f.q);
}

/* Virtual time is seat-seconds of each queue in use: who has taken long comes later. */
static void virtual_time(void *arg)
{
	struct fair_group g = {.total = 1};
	struct fair f = {.nominal = 1, .reserved = 1, .borrow_max = 0, .queues = 2, .hand = 1, .length = 9};
	struct guest slow[2], fast[2];

	fair_add(&g, &f);
	come(&slow[0], &f, 0, 1);
	come(&slow[1], &f, 0, 1);
	come(&fast[0], &f, 1, 1);
	come(&fast[1], &f, 1, 1);
	error_free(fiber_sleep(50)); /* two queues are in use: half a second each second */
	fair_sync(&f);
	assert_true(f.now > 0.02 && f.now < 1);
	leave(&slow[0]);
	assert_true(fast[0].in && !slow[1].in);
	assert_true(f.last.any && f.last.due <= f.last.now && f.last.least <= f.last.due && f.last.greatest >= 0.05);
	leave(&fast[0]);
	assert_true(fast[1].in && !slow[1].in);
	leave(&fast[1]);
	assert_true(slow[1].in);
	leave(&slow[1]);
	free(f.q);
}

static void test_estimates(void **state)
{
	struct list_work w = {.objects = 1000, .bytes = 2000000, .cached = true};
	struct fair_request r;

	(void)state;
	assert_int_equal(list_seats(&w, 0), 10); /* what is cached is sent in pieces: a megabyte at once */
	assert_int_equal(list_seats(&w, 4), 4);
	w.limit = 120;
	assert_int_equal(list_seats(&w, 0), 3); /* 240,000 bytes */
	w.cached = false;
	w.selects = true;
	assert_int_equal(list_seats(&w, 0), 10); /* half of all are looked through */
	w.limit = 0;
	assert_int_equal(list_seats(&w, 0), 20);
	w.objects = 100000;
	w.bytes = 1000000000;
	assert_int_equal(list_seats(&w, 0), 100);
	w.one = true;
	assert_int_equal(list_seats(&w, 0), 1);
	w = (struct list_work){.objects = 3};
	assert_int_equal(list_seats(&w, 0), 45); /* of no known size */
	w = (struct list_work){.cached = true};
	assert_int_equal(list_seats(&w, 0), 1);

	write_seats(9, 0, &r);
	assert_true(r.initial == 1 && r.final == 0 && r.linger_ns == 0);
	write_seats(10, 0, &r);
	assert_true(r.initial == 1 && r.final == 1 && r.linger_ns == 5000000);
	write_seats(41, 0, &r);
	assert_true(r.final == 5 && r.linger_ns == 5000000);
	write_seats(1000, 0, &r);
	assert_true(r.final == 10 && r.linger_ns == 50000000);
	write_seats(1000, 4, &r);
	assert_true(r.final == 4 && r.linger_ns == 125000000);
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
static void test_exemption(void **state) { on_loop(state, exemption); }
static void test_jail(void **state) { on_loop(state, jail); }
static void test_lingering(void **state) { on_loop(state, lingering); }
static void test_resizing(void **state) { on_loop(state, resizing); }
static void test_virtual_time(void **state) { on_loop(state, virtual_time); }

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_seats), cmocka_unit_test(test_fairness), cmocka_unit_test(test_lending),
					   cmocka_unit_test(test_exemption), cmocka_unit_test(test_jail), cmocka_unit_test(test_lingering),
					   cmocka_unit_test(test_resizing), cmocka_unit_test(test_virtual_time), cmocka_unit_test(test_estimates),
					   cmocka_unit_test(test_retry)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
