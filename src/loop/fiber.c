#include "loop/fiber.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/internal.h"

#if LOOP_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if LOOP_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#define END_WAIT_MS 10000
#define IO_BUDGET 64
#define ROUNDS 4
#define TRIM_MS 2000
#define REST_MS 15000
#define REST_SOME 64 /* fibers a turn */
#define HEAP_TRIM_MS 10000
#define TRIM_ABOVE 8 /* free stacks with pages that are worth a timer */

_Thread_local struct loop *loop_cur;

/* ---- switching ---- */

static void trim_cb(uv_timer_t *t)
{
	struct loop *l = t->data;
	int64_t now = now_ms();

	stack_trim(&l->stacks);
	/* Still more than at rest: look again, until load has really gone. Then the timer sleeps. */
	if (l->stacks.n_hot > TRIM_ABOVE) {
		uv_timer_start(t, trim_cb, TRIM_MS, 0);
	} else if (now - l->trimmed_at >= HEAP_TRIM_MS) {
		/* The C library keeps what a peak has freed, unless it is told; a few hundred MB take it some 50 ms. */
		malloc_trim(0);
		l->trimmed_at = now;
	} else {
		uv_timer_start(t, trim_cb, HEAP_TRIM_MS, 0);
	}
}

static void bury(struct loop *l)
{
	struct fiber *f = l->dead;

	l->dead = NULL;
	stack_put(&l->stacks, f->stack);
	f->stack = NULL;
#if LOOP_TSAN
	__tsan_destroy_fiber(f->tsan);
#endif
	if (!f->joinable)
		free(f);
	if (l->stacks.n_hot > TRIM_ABOVE && !uv_is_active((uv_handle_t *)&l->trim)) {
		l->stacks.low_hot = l->stacks.n_hot;
		uv_timer_start(&l->trim, trim_cb, TRIM_MS, 0);
	}
}

static void run_fiber(struct loop *l, struct fiber *f)
{
	l->cur = f;
	f->rest = 0;
	f->io_budget = IO_BUDGET;
#if LOOP_TSAN
	__tsan_switch_to_fiber(f->tsan, 0);
#endif
#if LOOP_ASAN
	__sanitizer_start_switch_fiber(&l->sched_fake, f->stack->base, f->stack->size);
#endif
	ctx_switch(&l->sched_sp, f->sp);
#if LOOP_ASAN
	__sanitizer_finish_switch_fiber(l->sched_fake, NULL, NULL);
#endif
	l->cur = NULL;
	if (l->dead)
		bury(l);
}

static void to_scheduler(struct loop *l, struct fiber *f)
{
#if LOOP_TSAN
	__tsan_switch_to_fiber(l->sched_tsan, 0);
#endif
#if LOOP_ASAN
	__sanitizer_start_switch_fiber(f->done ? NULL : &f->fake_stack, l->sched_bottom, l->sched_size);
#endif
	ctx_switch(&f->sp, l->sched_sp);
#if LOOP_ASAN
	__sanitizer_finish_switch_fiber(f->fake_stack, &l->sched_bottom, &l->sched_size);
#endif
}

static void push_ready(struct loop *l, struct fiber *f)
{
	assert(!f->ready);
	f->ready = true;
	f->next = NULL;
	if (l->ready_tail)
		l->ready_tail->next = f;
	else
		l->ready = f;
	l->ready_tail = f;
	l->n_ready++;
	/* Timers run before libuv polls: it must not sleep when one of them made a fiber ready. */
	if (l->in_uv)
		uv_stop(&l->uv);
}

/* ---- timers: a heap of fibers; a fiber stays in it between waits, so moving a deadline outward costs nothing ---- */

static void heap_set(struct loop *l, size_t i, struct fiber *f)
{
	l->heap[i] = f;
	f->heap_idx = i + 1;
}

static void heap_up(struct loop *l, size_t i)
{
	struct fiber *f = l->heap[i];

	while (i > 0 && l->heap[(i - 1) / 2]->heap_at > f->heap_at) {
		heap_set(l, i, l->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_set(l, i, f);
}

static void heap_down(struct loop *l, size_t i)
{
	struct fiber *f = l->heap[i];

	for (size_t c; (c = 2 * i + 1) < l->heap_n; i = c) {
		if (c + 1 < l->heap_n && l->heap[c + 1]->heap_at < l->heap[c]->heap_at)
			c++;
		if (l->heap[c]->heap_at >= f->heap_at)
			break;
		heap_set(l, i, l->heap[c]);
	}
	heap_set(l, i, f);
}

static void heap_remove(struct loop *l, struct fiber *f)
{
	if (!f->heap_idx)
		return;
	size_t i = f->heap_idx - 1;
	struct fiber *last = l->heap[--l->heap_n];

	f->heap_idx = 0;
	if (last != f) {
		heap_set(l, i, last);
		heap_up(l, i);
		heap_down(l, last->heap_idx - 1);
	}
}

static void timer_cb(uv_timer_t *t);

static void timer_update(struct loop *l)
{
	int64_t at = l->heap_n ? l->heap[0]->heap_at : NEVER;

	/* Firing early is harmless and rare; firing late is not allowed. */
	if (at >= l->timer_at)
		return;
	int64_t in = at - (int64_t)uv_now(&l->uv);

	l->timer_at = at;
	uv_timer_start(&l->timer, timer_cb, in > 0 ? (uint64_t)in : 0, 0);
}

static void timer_cb(uv_timer_t *t)
{
	struct loop *l = t->data;
	int64_t now = now_ns() / 1000000;

	while (l->heap_n && l->heap[0]->heap_at <= now) {
		struct fiber *f = l->heap[0];

		if (!f->waiting || f->until == NEVER) {
			heap_remove(l, f);
		} else if (f->until > now) {
			f->heap_at = f->until;
			heap_down(l, 0);
		} else {
			heap_remove(l, f);
			fiber_wake(f, ETIMEDOUT);
		}
	}
	l->timer_at = NEVER;
	timer_update(l);
}

static void heap_arm(struct loop *l, struct fiber *f)
{
	if (f->heap_idx) {
		if (f->heap_at <= f->until)
			return;
		f->heap_at = f->until;
		heap_up(l, f->heap_idx - 1);
	} else {
		if (l->heap_n == l->heap_cap) {
			l->heap_cap = l->heap_cap ? l->heap_cap * 2 : 64;
			l->heap = xrealloc(l->heap, l->heap_cap * sizeof(struct fiber *));
		}
		f->heap_at = f->until;
		l->heap[l->heap_n] = f;
		heap_up(l, l->heap_n++);
	}
	timer_update(l);
}

/* ---- waiting ---- */

int fiber_must_stop(void)
{
	struct fiber *f = loop_cur->cur;

	assert(f);
	if (f->cancelled && !f->shield)
		return ECANCELED;
	if (f->deadline != NEVER && now_ns() / 1000000 >= f->deadline)
		return ETIMEDOUT;
	return 0;
}

struct error *fiber_stop_error(int why)
{
	switch (why) {
	case 0:
		return NULL;
	case ECANCELED:
		return error_sys(ECANCELED, "stopped");
	case ETIMEDOUT:
		return error_sys(ETIMEDOUT, "deadline exceeded");
	default:
		return error_sys(why, "wait");
	}
}

int fiber_park(int64_t until, bool nointr)
{
	struct loop *l = loop_cur;
	struct fiber *f = l ? l->cur : NULL;

	assert(f && "waits happen on fibers");
	f->waiting = true;
	f->nointr = nointr;
	f->why = 0;
	f->until = until;
	if (until != NEVER)
		heap_arm(l, f);
	to_scheduler(l, f);
	return f->why;
}

void fiber_wake(struct fiber *f, int why)
{
	if (!f->waiting)
		return;
	f->waiting = false;
	f->why = why;
	push_ready(loop_cur, f);
}

int64_t deadline_after(int64_t ms)
{
	/* Rounded up: never early. */
	return ms < 0 ? NEVER : (now_ns() + 999999) / 1000000 + (ms > INT64_MAX / 4 ? INT64_MAX / 4 : ms);
}

struct error *fiber_io_point(void)
{
	struct loop *l = loop_cur;
	struct fiber *f = l ? l->cur : NULL;

	assert(f && "I/O happens on fibers");
	if (f->cancelled && !f->shield)
		return fiber_stop_error(ECANCELED);
	if (f->deadline != NEVER && (int64_t)uv_now(&l->uv) >= f->deadline)
		return fiber_stop_error(ETIMEDOUT);
	if (--f->io_budget <= 0)
		fiber_yield();
	return NULL;
}

void fiber_yield(void)
{
	struct loop *l = loop_cur;
	struct fiber *f = l->cur;

	assert(f);
	f->waiting = false;
	push_ready(l, f);
	to_scheduler(l, f);
}

void fiber_yield_io(void)
{
	struct loop *l = loop_cur;
	struct fiber *f = l->cur;

	assert(f);
	f->waiting = false;
	f->next = NULL;
	*l->later_end = f;
	l->later_end = &f->next;
	to_scheduler(l, f);
}

struct error *fiber_check(void)
{
	return fiber_stop_error(fiber_must_stop());
}

bool fiber_cancelled(void)
{
	return loop_cur->cur->cancelled && !loop_cur->cur->shield;
}

struct fiber *fiber_self(void)
{
	return loop_cur ? loop_cur->cur : NULL;
}

struct error *fiber_sleep(int64_t ms)
{
	int why = fiber_must_stop();

	if (why)
		return fiber_stop_error(why);
	int64_t until = deadline_after(ms < 0 ? 0 : ms);
	struct fiber *f = loop_cur->cur;

	if (f->deadline < until) {
		why = fiber_park(f->deadline, false);
	} else {
		why = fiber_park(until, false);
		if (why == ETIMEDOUT)
			why = 0;
	}
	return fiber_stop_error(why);
}

int64_t deadline_push(int64_t ms)
{
	struct fiber *f = loop_cur->cur;
	int64_t old = f->deadline, at = deadline_after(ms);

	if (at < old)
		f->deadline = at;
	return old;
}

void deadline_pop(int64_t token)
{
	loop_cur->cur->deadline = token;
}

int64_t deadline_left(void)
{
	int64_t at = loop_cur->cur->deadline, now = now_ms();

	return at == NEVER ? -1 : at > now ? at - now : 0;
}

void fiber_shield_begin(void)
{
	struct fiber *f = loop_cur->cur;

	assert(f->shield < SHIELDS_MAX);
	f->shielded[f->shield++] = f->deadline;
	f->deadline = NEVER;
}

void fiber_shield_end(void)
{
	struct fiber *f = loop_cur->cur;

	assert(f->shield > 0);
	f->deadline = f->shielded[--f->shield];
}

/* ---- wait queues ---- */

static void waitq_unlink(struct waitq *q, struct waiter *w)
{
	if (!w->queued)
		return;
	w->queued = false;
	if (w->prev)
		w->prev->next = w->next;
	else
		q->head = w->next;
	if (w->next)
		w->next->prev = w->prev;
	else
		q->tail = w->prev;
}

static int waitq_park(struct waitq *q, int64_t until, bool nointr)
{
	struct waiter w = {.f = loop_cur->cur, .prev = q->tail, .queued = true};

	if (q->tail)
		q->tail->next = &w;
	else
		q->head = &w;
	q->tail = &w;
	int why = fiber_park(until, nointr);

	waitq_unlink(q, &w);
	return why;
}

static struct error *waitq_wait_until(struct waitq *q, int64_t until)
{
	int why = fiber_must_stop();

	if (why)
		return fiber_stop_error(why);
	int64_t deadline = loop_cur->cur->deadline;

	return fiber_stop_error(waitq_park(q, until < deadline ? until : deadline, false));
}

struct error *waitq_wait(struct waitq *q)
{
	return waitq_wait_until(q, NEVER);
}

struct error *waitq_wait_ms(struct waitq *q, int64_t ms)
{
	return waitq_wait_until(q, deadline_after(ms));
}

/* Waiters that were cancelled already, but have not run since, must not swallow a wake-up. */
void waitq_wake_one(struct waitq *q)
{
	for (struct waiter *w; (w = q->head);) {
		bool live = w->f->waiting;

		waitq_unlink(q, w);
		if (live) {
			fiber_wake(w->f, 0);
			return;
		}
	}
}

void waitq_wake_all(struct waitq *q)
{
	for (struct waiter *w; (w = q->head);) {
		waitq_unlink(q, w);
		fiber_wake(w->f, 0);
	}
}

struct error *fiber_mutex_lock(struct fiber_mutex *m)
{
	while (m->locked)
		TRY(waitq_wait(&m->q));
	m->locked = true;
	return NULL;
}

void fiber_mutex_unlock(struct fiber_mutex *m)
{
	assert(m->locked);
	m->locked = false;
	waitq_wake_one(&m->q);
}

/* ---- life and death ---- */

static void fiber_main(void *arg)
{
	struct fiber *f = arg;
	struct loop *l = loop_cur;

#if LOOP_ASAN
	__sanitizer_finish_switch_fiber(NULL, &l->sched_bottom, &l->sched_size);
#endif
	f->fn(f->arg);
	l = loop_cur;
	f->done = true;
	heap_remove(l, f);
	if (l->rest_at == f)
		l->rest_at = f->all_next;
	if (f->all_prev)
		f->all_prev->all_next = f->all_next;
	else
		l->all = f->all_next;
	if (f->all_next)
		f->all_next->all_prev = f->all_prev;
	l->n_fibers--;
	if (f->joiner)
		fiber_wake(f->joiner, 0);
	l->dead = f;
	to_scheduler(l, f);
	__builtin_unreachable();
}

static struct fiber *fiber_make(const char *name, fiber_fn *fn, void *arg, bool joinable)
{
	struct loop *l = loop_cur;

	assert(l && "fibers are started on a loop's thread");
	struct fiber *f = xcalloc(1, sizeof *f);

	f->stack = stack_get(&l->stacks);
	f->name = name;
	f->fn = fn;
	f->arg = arg;
	f->joinable = joinable;
	f->deadline = f->until = NEVER;
	f->sp = ctx_make(f->stack->base + f->stack->size - stack_color(f->stack), fiber_main, f);
#if LOOP_TSAN
	f->tsan = __tsan_create_fiber(0);
#endif
	f->all_next = l->all;
	if (l->all)
		l->all->all_prev = f;
	l->all = f;
	l->n_fibers++;
	push_ready(l, f);
	return f;
}

void fiber_spawn(const char *name, fiber_fn *fn, void *arg)
{
	fiber_make(name, fn, arg, false);
}

struct fiber *fiber_start(const char *name, fiber_fn *fn, void *arg)
{
	return fiber_make(name, fn, arg, true);
}

void fiber_join(struct fiber *f)
{
	assert(f->joinable && !f->joiner && f != loop_cur->cur);
	while (!f->done) {
		f->joiner = loop_cur->cur;
		fiber_park(NEVER, true);
	}
	/* Buried before anyone else ran: its stack is back in the pool. */
	assert(!f->stack);
	free(f);
}

void fiber_cancel(struct fiber *f)
{
	f->cancelled = true;
	if (f->waiting && !f->shield && !f->nointr)
		fiber_wake(f, ECANCELED);
}

void fiber_stop(struct fiber *f)
{
	if (!f)
		return;
	fiber_cancel(f);
	fiber_join(f);
}

/* ---- the loop ---- */

static void post_cb(uv_async_t *a)
{
	struct loop *l = a->data;

	pthread_mutex_lock(&l->post_lock);
	struct posted *p = l->posts;

	l->posts = l->posts_tail = NULL;
	pthread_mutex_unlock(&l->post_lock);
	while (p) {
		struct posted *next = p->next;

		p->fn(p->arg);
		free(p);
		p = next;
	}
}

struct loop *loop_self(void)
{
	return loop_cur;
}

void loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct posted *p = xmalloc(sizeof *p);

	*p = (struct posted){.fn = fn, .arg = arg};
	pthread_mutex_lock(&l->post_lock);
	if (l->posts_tail)
		l->posts_tail->next = p;
	else
		l->posts = p;
	l->posts_tail = p;
	pthread_mutex_unlock(&l->post_lock);
	uv_async_send(&l->async);
}

struct offload {
	uv_work_t work;
	void (*fn)(void *arg);
	void *arg;
	struct fiber *f;
	bool done;
};

static void offload_work(uv_work_t *w)
{
	struct offload *o = w->data;

	o->fn(o->arg);
}

static void offload_done(uv_work_t *w, int status)
{
	struct offload *o = w->data;

	o->done = true;
	fiber_wake(o->f, 0);
}

void loop_offload(void (*fn)(void *arg), void *arg)
{
	if (!loop_cur || !loop_cur->cur) {
		fn(arg); /* outside fibers there is nobody to let run */
		return;
	}
	struct offload o = {.fn = fn, .arg = arg, .f = loop_cur->cur};

	o.work.data = &o;
	if (uv_queue_work(&loop_cur->uv, &o.work, offload_work, offload_done) < 0) {
		fn(arg);
		return;
	}
	while (!o.done)
		fiber_park(NEVER, true);
}

/* Says which fiber needs a larger stack (or less recursion) before the fault takes its course. */
static void on_fault(int sig, siginfo_t *si, void *context)
{
	const struct loop *l = loop_cur;
	const struct fiber *f = l ? l->cur : NULL;
	const char *at = si->si_addr;

	if (f && f->stack && at < f->stack->base && at >= f->stack->base - STACK_GUARD) {
		struct iovec v[3] = {{(void *)(uintptr_t)"stack overflow in fiber \"", 25}, {(void *)(uintptr_t)f->name, strlen(f->name)},
				     {(void *)(uintptr_t)"\"\n", 2}};

		if (writev(STDERR_FILENO, v, 3) < 0)
			_exit(139);
	}
	signal(sig, SIG_DFL); /* the access is made again, and ends the process as it would have */
}

static void watch_faults(void)
{
	static _Thread_local char stack[16384];
	struct sigaction was, sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack}, old;

	/* Sanitizers have handlers and stacks of their own. */
	if (sigaction(SIGSEGV, NULL, &was) < 0 || (was.sa_flags & SA_SIGINFO ? was.sa_sigaction != on_fault : was.sa_handler != SIG_DFL))
		return;
	if (sigaltstack(NULL, &old) == 0 && (old.ss_flags & SS_DISABLE) && sigaltstack(&ss, NULL) == 0)
		sigaction(SIGSEGV, &sa, NULL);
}

static void run_ready(struct loop *l)
{
	/*
	 * What these make ready in turn (a request's handler, the write of its answer) runs too, in a few rounds, before
	 * the next look at the world: a system call each. Fibers that only yield must not keep it waiting, though.
	 */
	for (int round = 0; round < ROUNDS && l->n_ready; round++) {
		for (size_t n = l->n_ready; n > 0; n--) {
			struct fiber *f = l->ready;

			l->ready = f->next;
			if (!l->ready)
				l->ready_tail = NULL;
			l->n_ready--;
			f->ready = false;
			if (l->ready) {
				/* Of thousands that one event wakes, each finds its stack in memory, not in a cache: fetched while this one runs. */
				const char *sp = l->ready->sp;

				for (int i = 0; i < 6; i++)
					__builtin_prefetch(sp + (ptrdiff_t)64 * i, 1);
				if (l->ready->next)
					__builtin_prefetch(l->ready->next, 1);
			}
			run_fiber(l, f);
		}
	}
}

/*
 * A fiber that has waited through two passes gives the deep end of its stack back, which a TLS handshake or a large request once
 * needed: of ten thousand idle connections that is most of their stacks. Some at a time, when there is nothing else to do.
 */
static void rest_some(struct loop *l)
{
	if (!l->rest_at) {
		int64_t now = now_ms();

		if (now < l->rest_ms)
			return;
		l->rest_ms = now + REST_MS;
		l->rest_at = l->all;
	}
	for (int i = 0; i < REST_SOME && l->rest_at; i++, l->rest_at = l->rest_at->all_next) {
		struct fiber *f = l->rest_at;

		if (f->rest < 2 && ++f->rest == 2 && f->waiting)
			stack_rest(&l->stacks, f->stack, f->sp);
	}
}

/* Runs what is ready, then waits for events, unless there is nothing left to wait for. */
static void turn(struct loop *l, const struct fiber *first)
{
	bool sleep;

	run_ready(l);
	sleep = !l->n_ready && !l->later && (first ? !first->done : l->n_fibers > 0);
	if (sleep)
		rest_some(l);
	l->in_uv = true;
	uv_run(&l->uv, sleep ? UV_RUN_ONCE : UV_RUN_NOWAIT);
	l->in_uv = false;
	struct fiber *later = l->later;

	l->later = NULL;
	l->later_end = &l->later;
	while (later) {
		struct fiber *f = later;

		later = f->next;
		push_ready(l, f);
	}
}

static struct error *loop_init(struct loop *l)
{
	int r = uv_loop_init(&l->uv);

	if (r < 0)
		return error_sys(r, "event loop");
	uv_timer_init(&l->uv, &l->timer);
	uv_timer_init(&l->uv, &l->trim);
	uv_unref((uv_handle_t *)&l->trim);
	r = uv_async_init(&l->uv, &l->async, post_cb);
	if (r < 0) {
		uv_close((uv_handle_t *)&l->timer, NULL);
		uv_close((uv_handle_t *)&l->trim, NULL);
		uv_run(&l->uv, UV_RUN_DEFAULT);
		uv_loop_close(&l->uv);
		return error_sys(r, "event loop");
	}
	l->later_end = &l->later;
	l->timer.data = l->trim.data = l->async.data = l;
	l->timer_at = NEVER;
	l->trimmed_at = now_ms();
	pthread_mutex_init(&l->post_lock, NULL);
#if LOOP_TSAN
	l->sched_tsan = __tsan_get_current_fiber();
#endif
	return NULL;
}

static void loop_fini(struct loop *l)
{
	fd_slots_close(l);
	signals_close(l);
	uv_close((uv_handle_t *)&l->timer, NULL);
	uv_close((uv_handle_t *)&l->trim, NULL);
	post_cb(&l->async);
	uv_close((uv_handle_t *)&l->async, NULL);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	if (uv_loop_close(&l->uv) < 0)
		log_warn("event loop closed with work still running");
	free(l->heap);
	stack_pool_free(&l->stacks);
	pthread_mutex_destroy(&l->post_lock);
}

struct error *loop_run(fiber_fn *fn, void *arg)
{
	assert(!loop_cur);
	struct loop *l = xcalloc(1, sizeof *l);
	struct error *e = loop_init(l);

	if (e) {
		free(l);
		return e;
	}
	/* Writing to a closed pipe is an error of that write, not the end of the process. */
	signal(SIGPIPE, SIG_IGN);
	watch_faults();
	descriptors_raise();
	loop_cur = l;
	struct fiber *first = fiber_make("main", fn, arg, true);

	while (!first->done)
		turn(l, first);
	free(first);
	for (struct fiber *f = l->all; f; f = f->all_next)
		fiber_cancel(f);
	int64_t end = now_ns() / 1000000 + END_WAIT_MS;

	while (l->n_fibers && now_ns() / 1000000 < end) {
		uv_timer_start(&l->timer, timer_cb, 100, 0); /* at least a look every 100 ms */
		l->timer_at = 0;
		turn(l, NULL);
		/* Those started meanwhile are to end too. */
		for (struct fiber *f = l->all; f; f = f->all_next)
			fiber_cancel(f);
	}
	if (l->n_fibers) {
		/* Their stacks still refer to the loop: leave all of it to the end of the process. */
		for (struct fiber *f = l->all; f; f = f->all_next)
			log_error("fiber %s did not end within %d ms of being cancelled", f->name, END_WAIT_MS);
		loop_cur = NULL;
		return error_new("%zu fibers did not end", l->n_fibers);
	}
	loop_fini(l);
	loop_cur = NULL;
	free(l);
	return NULL;
}

void loop_forked(void)
{
	struct loop *l = loop_cur;

	if (!l)
		return;
	/* The epoll set is shared with the parent: only the descriptor is given up, never its contents. */
	close(uv_backend_fd(&l->uv));
	loop_cur = NULL;
}

size_t loop_fiber_room(void)
{
	return stack_room(&loop_cur->stacks);
}

void loop_stats(size_t *fibers, size_t *high_water)
{
	*fibers = loop_cur ? loop_cur->n_fibers : 0;
	*high_water = loop_cur ? stack_high_water(&loop_cur->stacks) : 0;
}
