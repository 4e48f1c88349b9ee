#include "../test.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/fiber.h"

/* Runs fn(NULL) on a loop: assertions of cmocka long-jump, so they are made outside or on plain results. */
static void run(fiber_fn *fn, void *arg)
{
	assert_ok(loop_run(fn, arg));
}

static bool is_sys(struct error *e, int sys)
{
	bool yes = error_is_sys(e, sys);

	error_free(e);
	return yes;
}

struct log {
	char s[256];
	size_t n;
};

static void put(struct log *l, char c)
{
	if (l->n < sizeof l->s - 1)
		l->s[l->n++] = c;
}

/* ---- spawn, join, order ---- */

static void child_a(void *arg)
{
	put(arg, 'a');
	fiber_yield();
	put(arg, 'A');
}

static void child_b(void *arg)
{
	put(arg, 'b');
	fiber_yield();
	put(arg, 'B');
}

static void spawn_main(void *arg)
{
	struct fiber *a = fiber_start("a", child_a, arg), *b = fiber_start("b", child_b, arg);

	put(arg, '1');
	fiber_join(a);
	put(arg, '2');
	fiber_join(b);
	put(arg, '3');
}

static void test_spawn_join(void **state)
{
	struct log l = {0};

	run(spawn_main, &l);
	assert_string_equal(l.s, "1abAB23");
}

/* ---- cancellation ---- */

struct sleeper {
	int why, again;
	bool shielded, shield_slept;
	int64_t took;
};

static void sleep_long(void *arg)
{
	struct sleeper *s = arg;
	int64_t t = now_ms();
	struct error *e = fiber_sleep(60000);

	s->why = e ? e->sys : 0;
	error_free(e);
	e = fiber_sleep(60000);
	s->again = e ? e->sys : 0;
	error_free(e);
	if (s->shielded) {
		fiber_shield_begin();
		s->shield_slept = !fiber_cancelled() && !fiber_sleep(20);
		fiber_shield_end();
		s->shield_slept = s->shield_slept && fiber_cancelled();
	}
	s->took = now_ms() - t;
}

static void cancel_main(void *arg)
{
	struct fiber *f = fiber_start("sleeper", sleep_long, arg);

	fiber_yield();
	fiber_cancel(f);
	fiber_cancel(f);
	fiber_join(f);
	fiber_stop(NULL);
}

static void test_cancel(void **state)
{
	struct sleeper s = {.shielded = true};

	run(cancel_main, &s);
	assert_int_equal(s.why, ECANCELED);
	assert_int_equal(s.again, ECANCELED);
	assert_true(s.shield_slept);
	assert_in_range(s.took, 20, 5000);
}

static void cancel_before_start_main(void *arg)
{
	struct fiber *f = fiber_start("sleeper", sleep_long, arg);

	fiber_stop(f);
}

static void test_cancel_before_it_ran(void **state)
{
	struct sleeper s = {0};

	run(cancel_before_start_main, &s);
	assert_int_equal(s.why, ECANCELED);
}

static void leave_running_main(void *arg)
{
	for (int i = 0; i < 10; i++)
		fiber_spawn("sleeper", sleep_long, arg);
	fiber_yield();
}

static void test_end_of_main_cancels_others(void **state)
{
	struct sleeper s = {0};

	run(leave_running_main, &s);
	assert_int_equal(s.why, ECANCELED);
}

/* ---- deadlines ---- */

struct deadlines {
	bool inner_first, outer_counts, after_pop, zero, shield, wide_inside;
	int64_t inner_took, outer_took, slept;
};

static void deadline_main(void *arg)
{
	struct deadlines *d = arg;
	int64_t t = now_ms(), outer = deadline_push(150), inner = deadline_push(30);

	d->inner_first = is_sys(fiber_sleep(10000), ETIMEDOUT);
	d->inner_took = now_ms() - t;
	deadline_pop(inner);
	inner = deadline_push(60000); /* wider than what is around it */
	d->outer_counts = is_sys(fiber_sleep(10000), ETIMEDOUT);
	d->outer_took = now_ms() - t;
	d->wide_inside = is_sys(fiber_check(), ETIMEDOUT);
	fiber_shield_begin();
	int64_t in_shield = deadline_push(20);

	d->shield = is_sys(fiber_sleep(10000), ETIMEDOUT);
	deadline_pop(in_shield);
	d->shield = d->shield && !fiber_sleep(5);
	fiber_shield_end();
	deadline_pop(inner);
	deadline_pop(outer);
	t = now_ms();
	d->after_pop = !fiber_sleep(25);
	d->slept = now_ms() - t;
	int64_t z = deadline_push(0);

	d->zero = is_sys(fiber_sleep(10), ETIMEDOUT);
	deadline_pop(z);
}

static void test_deadlines(void **state)
{
	struct deadlines d = {0};

	run(deadline_main, &d);
	assert_true(d.inner_first);
	assert_in_range(d.inner_took, 30, 149);
	assert_true(d.outer_counts);
	assert_true(d.wide_inside);
	assert_in_range(d.outer_took, 150, 2000);
	assert_true(d.shield);
	assert_true(d.after_pop);
	assert_in_range(d.slept, 25, 2000);
	assert_true(d.zero);
}

#define TIMERS 200
struct many_timers {
	int64_t began[TIMERS + 1]; /* before each went to sleep, and so after the one before it did */
	int ms[TIMERS];
	int order[TIMERS];
	int n;
};

struct one_timer {
	struct many_timers *m;
	int i;
};

static void one_timer(void *arg)
{
	struct one_timer *o = arg;
	struct many_timers *m = o->m;

	m->began[o->i] = now_ms();
	if (!fiber_sleep(m->ms[o->i]))
		m->order[m->n++] = o->i;
	free(o);
}

static void timers_main(void *arg)
{
	struct many_timers *m = arg;
	struct fiber *f[TIMERS];
	unsigned seed = 1;

	for (int i = 0; i < TIMERS; i++) {
		struct one_timer *o = malloc(sizeof *o);

		seed = seed * 1103515245 + 12345;
		m->ms[i] = (int)(seed >> 16) % 100;
		*o = (struct one_timer){m, i};
		f[i] = fiber_start("timer", one_timer, o);
	}
	fiber_yield();
	m->began[TIMERS] = now_ms();
	for (int i = 0; i < TIMERS; i++)
		fiber_join(f[i]);
}

static void test_many_timers(void **state)
{
	struct many_timers m = {0};

	run(timers_main, &m);
	assert_int_equal(m.n, TIMERS);
	/* In the order of their times, each of which lies between two looks at the clock; deadlines are rounded up to a millisecond. */
	int64_t last = 0;

	for (int k = 0; k < m.n; k++) {
		int i = m.order[k];
		int64_t from = m.began[i] + m.ms[i], to = m.began[i + 1] + m.ms[i] + 1;

		assert_true(to >= last);
		last = from > last ? from : last;
	}
}

/* ---- wait queues and mutexes ---- */

struct queue {
	struct waitq q;
	int items, taken, timed_out;
	struct fiber *first;
};

static void taker(void *arg)
{
	struct queue *q = arg;

	while (!q->items) {
		struct error *e = waitq_wait(&q->q);

		if (e) {
			error_free(e);
			return;
		}
	}
	q->items--;
	q->taken++;
}

static void waitq_main(void *arg)
{
	struct queue *q = arg;
	struct fiber *f[3];

	for (int i = 0; i < 3; i++)
		f[i] = fiber_start("taker", taker, q);
	fiber_yield();
	/* The first waiter is cancelled in the same breath: its wake-up must go to the next. */
	fiber_cancel(f[0]);
	q->items = 1;
	waitq_wake_one(&q->q);
	fiber_join(f[0]);
	fiber_join(f[1]);
	q->items = 1;
	waitq_wake_all(&q->q);
	fiber_join(f[2]);
	struct error *e = waitq_wait_ms(&q->q, 10);

	q->timed_out = e ? e->sys : 0;
	error_free(e);
}

static void test_waitq(void **state)
{
	struct queue q = {0};

	run(waitq_main, &q);
	assert_int_equal(q.taken, 2);
	assert_int_equal(q.timed_out, ETIMEDOUT);
	assert_null(q.q.head);
}

struct guarded {
	struct fiber_mutex m;
	int inside, worst, rounds;
	bool cancelled_ok;
};

static void locker(void *arg)
{
	struct guarded *g = arg;

	for (int i = 0; i < 10; i++) {
		if (fiber_mutex_lock(&g->m))
			abort();
		if (++g->inside > g->worst)
			g->worst = g->inside;
		fiber_yield();
		g->inside--;
		g->rounds++;
		fiber_mutex_unlock(&g->m);
	}
}

static void lock_cancelled(void *arg)
{
	struct guarded *g = arg;

	g->cancelled_ok = is_sys(fiber_mutex_lock(&g->m), ECANCELED);
}

static void mutex_main(void *arg)
{
	struct guarded *g = arg;
	struct fiber *f[5];

	for (int i = 0; i < 5; i++)
		f[i] = fiber_start("locker", locker, g);
	for (int i = 0; i < 5; i++)
		fiber_join(f[i]);
	if (fiber_mutex_lock(&g->m))
		abort();
	f[0] = fiber_start("locker", lock_cancelled, g);
	fiber_yield();
	fiber_stop(f[0]);
	fiber_mutex_unlock(&g->m);
}

static void test_mutex(void **state)
{
	struct guarded g = {0};

	run(mutex_main, &g);
	assert_int_equal(g.worst, 1);
	assert_int_equal(g.rounds, 50);
	assert_true(g.cancelled_ok);
	assert_false(g.m.locked);
}

/* ---- other threads ---- */

struct poster {
	struct loop *l;
	struct waitq q;
	int got, offloaded;
	bool on_other_thread;
	pthread_t me;
};

static void posted(void *arg)
{
	struct poster *p = arg;

	p->got++;
	waitq_wake_all(&p->q);
}

static void *post_thread(void *arg)
{
	struct poster *p = arg;

	for (int i = 0; i < 1000; i++)
		loop_post(p->l, posted, p);
	return NULL;
}

static void work(void *arg)
{
	struct poster *p = arg;

	p->offloaded++;
	p->on_other_thread = !pthread_equal(p->me, pthread_self());
	usleep(20000);
}

static void offload_fiber(void *arg)
{
	loop_offload(work, arg);
}

static void post_main(void *arg)
{
	struct poster *p = arg;
	pthread_t t;

	p->l = loop_self();
	p->me = pthread_self();
	pthread_create(&t, NULL, post_thread, p);
	while (p->got < 1000)
		if (waitq_wait_ms(&p->q, 10000))
			abort();
	pthread_join(t, NULL);
	struct fiber *f = fiber_start("offload", offload_fiber, p);

	fiber_yield();
	fiber_cancel(f); /* is waited for even so */
	fiber_join(f);
}

static void test_post_and_offload(void **state)
{
	struct poster p = {0};

	run(post_main, &p);
	assert_int_equal(p.got, 1000);
	assert_int_equal(p.offloaded, 1);
	assert_true(p.on_other_thread);
}

static void *loop_thread(void *arg)
{
	return loop_run(cancel_main, arg);
}

static void test_a_loop_a_thread(void **state)
{
	struct sleeper s[4] = {0};
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, loop_thread, &s[i]), 0);
	for (int i = 0; i < 4; i++) {
		void *e;

		pthread_join(t[i], &e);
		assert_ok(e);
		assert_int_equal(s[i].why, ECANCELED);
	}
}

/* ---- signals ---- */

static void signal_main(void *arg)
{
	int sigs[] = {SIGUSR1, SIGUSR2}, *got = arg;
	int64_t d = deadline_push(10);

	got[2] = is_sys(signal_wait(sigs, 2, &got[0]), ETIMEDOUT);
	deadline_pop(d);
	kill(getpid(), SIGUSR2);
	if (signal_wait(sigs, 2, &got[0]))
		abort();
	kill(getpid(), SIGUSR1);
	fiber_sleep(20); /* nobody waits: it is kept */
	if (signal_wait(sigs, 2, &got[1]))
		abort();
}

static void test_signals(void **state)
{
	int got[3] = {0};

	run(signal_main, got);
	assert_int_equal(got[0], SIGUSR2);
	assert_int_equal(got[1], SIGUSR1);
	assert_true(got[2]);
}

/* ---- random ---- */

static void test_random(void **state)
{
	char a[37], b[37];

	random_uuid(a);
	random_uuid(b);
	assert_int_equal(strlen(a), 36);
	assert_string_not_equal(a, b);
	assert_int_equal(a[14], '4');
	assert_non_null(strchr("89ab", a[19]));
	assert_true(a[8] == '-' && a[13] == '-' && a[18] == '-' && a[23] == '-');
	assert_true(random_u64() != random_u64());
	/* A forked child must not draw what its parent draws. */
	int fd[2];
	uint64_t theirs = 0;

	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();

	if (pid == 0) {
		theirs = random_u64();
		_exit(write(fd[1], &theirs, sizeof theirs) == sizeof theirs ? 0 : 1);
	}
	assert_int_equal(read(fd[0], &theirs, sizeof theirs), sizeof theirs);
	assert_true(theirs != random_u64());
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(fd[0]);
	close(fd[1]);
}

/* ---- many, and deep ---- */

#if defined(__SANITIZE_THREAD__)
#define MANY 1000 /* ThreadSanitizer knows 8,128 threads, and each fiber is one to it */
#else
#define MANY 10000
#endif

struct many {
	struct waitq q;
	int up, done;
	bool go;
	size_t fibers, high, rss_kb, rss_after_kb, room;
};

static size_t rss_kb(void)
{
	size_t pages = 0, rss = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f || fscanf(f, "%zu %zu", &pages, &rss) != 2)
		rss = 0;
	if (f)
		fclose(f);
	return rss * 4;
}

static void one_of_many(void *arg)
{
	struct many *m = arg;

	m->up++;
	while (!m->go)
		if (waitq_wait(&m->q))
			return;
	m->done++;
}

static void many_main(void *arg)
{
	struct many *m = arg;

	for (int i = 0; i < MANY; i++)
		fiber_spawn("many", one_of_many, m);
	while (m->up < MANY)
		fiber_yield();
	loop_stats(&m->fibers, &m->high);
	m->room = loop_fiber_room();
	m->rss_kb = rss_kb();
	m->go = true;
	waitq_wake_all(&m->q);
	while (m->done < MANY)
		fiber_yield();
	size_t fibers;

	do {
		fiber_yield();
		loop_stats(&fibers, &m->high);
	} while (fibers > 1);
	m->rss_after_kb = rss_kb();
}

static void test_10000_fibers(void **state)
{
	struct many m = {0};
	size_t before = rss_kb();

	run(many_main, &m);
	assert_int_equal(m.done, MANY);
	assert_int_equal(m.fibers, MANY + 1);
	assert_true(m.high >= 4096);
	assert_in_range(m.room, 10000, 1000000);
	print_message("# 10,000 waiting fibers: %zu KiB, after their end %zu KiB, stacks at most %zu bytes deep\n",
		      m.rss_kb - before, m.rss_after_kb > before ? m.rss_after_kb - before : 0, m.high);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* A page or two each. */
	assert_true(m.rss_kb - before < MANY * 12);
	assert_true(m.rss_after_kb < before + MANY * 2);
#endif
}

static int deep(int n, volatile char *above)
{
	volatile char here[1024];

	here[0] = above ? above[0] : 1;
	return n <= 0 ? here[0] : deep(n - 1, here) + here[0];
}

struct depth {
	int n;
	size_t high;
};

static void deep_fiber(void *arg)
{
	struct depth *d = arg;
	size_t fibers;

	deep(d->n, NULL);
	loop_stats(&fibers, &d->high);
}

static void test_high_water(void **state)
{
	struct depth d = {.n = 40};

	run(deep_fiber, &d);
	assert_in_range(d.high, 40 * 1024, 8 * FIBER_STACK);
}

static void test_overflow_is_caught(void **state)
{
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();

	if (pid == 0) {
		struct depth d = {.n = 10000};
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGSEGV, SIG_DFL);
		dup2(fd[1], 2);
		error_free(loop_run(deep_fiber, &d));
		_exit(0);
	}
	int status;
	char said[4096] = "";

	close(fd[1]);
	assert_true(read(fd[0], said, sizeof said - 1) >= 0);
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_string_equal(said, "stack overflow in fiber \"main\"\n");
#endif
	/* Killed by the guard page (or reported by a sanitizer), and nothing was overwritten silently. */
	assert_true((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) ||
		    (WIFEXITED(status) && WEXITSTATUS(status) != 0));
}

static void forked_main(void *arg)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct sleeper s = {0};

		loop_forked();
		struct error *e = loop_run(cancel_main, &s);

		_exit(e || s.why != ECANCELED ? 1 : 0);
	}
	while (waitpid(pid, arg, WNOHANG) == 0)
		fiber_sleep(2);
}

static void test_fork(void **state)
{
	int status = -1;

	run(forked_main, &status);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spawn_join),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_cancel_before_it_ran),
		cmocka_unit_test(test_end_of_main_cancels_others),
		cmocka_unit_test(test_deadlines),
		cmocka_unit_test(test_many_timers),
		cmocka_unit_test(test_waitq),
		cmocka_unit_test(test_mutex),
		cmocka_unit_test(test_post_and_offload),
		cmocka_unit_test(test_a_loop_a_thread),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_10000_fibers),
		cmocka_unit_test(test_high_water),
		cmocka_unit_test(test_overflow_is_caught),
		cmocka_unit_test(test_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
