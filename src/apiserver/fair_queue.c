#include "apiserver/fair_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"

#define GUESS_S 0.003 /* upstream: what a request is thought to take before it is known */

struct waiting { /* on its fiber's stack */
	struct waiting *next;
	struct waitq wake;
	struct fair_request *r;
	double arrived; /* virtual time */
	bool seated;
};
struct fair_queue {
	struct waiting *head, *last;
	struct fair_queue_state is;
};

void fair_add(struct fair_group *g, struct fair *f)
{
	f->group = g;
	f->next = g->levels;
	g->levels = f;
}

/* ---- seats ---- */

static int max(int a, int b)
{
	return a > b ? a : b;
}

static int min(int a, int b)
{
	return a < b ? a : b;
}

/*
 * Seats that nobody uses and nobody keeps for himself. What is exempt takes none away as long as there are some that nobody wants: that
 * is what comes of upstream's division, which is of all seats or, when those that are wanted are not left, of what is left.
 */
static int free_for(const struct fair *f)
{
	int total = f->group->total, taken = 0, exempt = 0, least = 0;

	for (const struct fair *o = f->group->levels; o; o = o->next) {
		if (o->exempt) {
			exempt += max(o->reserved, o->used);
			continue;
		}
		least += max(o->reserved, min(o->nominal, o->used + o->wanted));
		taken += o == f ? o->used : max(o->reserved, o->used);
	}
	return (total - exempt <= least ? total - exempt : total) - taken;
}

static int most_of(const struct fair *f)
{
	return f->borrow_max < 0 ? f->group->total : f->nominal + f->borrow_max;
}

int fair_limit(const struct fair *f)
{
	return max(f->reserved, min(f->used + max(0, free_for(f)), most_of(f)));
}

/* Who is wider than his level runs alone. */
static bool can_take(const struct fair *f, int seats)
{
	int limit = fair_limit(f);

	return seats > limit ? !f->executing : f->used + seats <= limit;
}

int fair_seats(const struct fair_request *r)
{
	return max(r->initial, r->final);
}

void fair_fit(const struct fair *f, struct fair_request *r)
{
	int most = max(1, most_of(f));

	if (f->exempt)
		return;
	r->initial = min(r->initial, most);
	if (r->final > most) {
		r->linger_ns = r->linger_ns * r->final / most;
		r->final = most;
	}
}

/* ---- queues ---- */

static double work_of(const struct fair_request *r)
{
	return r->initial * GUESS_S + r->final * ((double)r->linger_ns / 1e9);
}

void fair_sync(struct fair *f)
{
	int64_t now = now_ns();

	if (f->active)
		f->now += (double)min(f->used + f->wanted, fair_limit(f)) / f->active * ((double)(now - f->since_ns) / 1e9);
	f->since_ns = now;
}

static bool busy(const struct fair_queue *q)
{
	return q->is.waiting || q->is.executing;
}

static int queues_of(const struct fair *f)
{
	return max(1, min(f->queues, FAIR_QUEUES_MAX));
}

/* More at once; fewer when those behind are empty: nothing is dealt to them any more. */
static void make_queues(struct fair *f)
{
	int n = queues_of(f);

	while (f->n_queues > n && !busy(&f->q[f->n_queues - 1]) && !f->q[f->n_queues - 1].is.seats)
		f->n_queues--;
	if (f->n_queues >= n)
		return;
	f->q = xrealloc(f->q, (size_t)n * sizeof *f->q);
	memset(f->q + f->n_queues, 0, (size_t)(n - f->n_queues) * sizeof *f->q);
	f->n_queues = n;
}

/*
 * The hand: different queues, dealt by the flow's number as by a shuffled deck; of them the one where the least work waits, looking first
 * at another each time.
 */
static struct fair_queue *choose(struct fair *f, uint64_t flow)
{
	int deck = queues_of(f), hand = max(1, min(min(f->hand, FAIR_HAND_MAX), deck));
	int cards[FAIR_HAND_MAX], dealt[FAIR_HAND_MAX];
	struct fair_queue *best = NULL;

	for (int i = 0; i < hand; i++) {
		uint64_t left = (uint64_t)(deck - i);
		int card = (int)(flow % left), k;

		flow /= left;
		/* The card'th of those that are still in the deck. */
		for (k = 0; k < i && cards[k] <= card; k++)
			card++;
		for (int j = i; j > k; j--)
			cards[j] = cards[j - 1];
		cards[k] = dealt[i] = card;
	}
	for (int i = 0; i < hand; i++) {
		struct fair_queue *q = &f->q[dealt[(f->dealt + (unsigned)i) % (unsigned)hand]];

		if (!best || q->is.work < best->is.work)
			best = q;
	}
	f->dealt++;
	return best;
}

/* Nothing is due before it came: a queue gathers no claims that it did not use. */
static void bound(struct fair_queue *q)
{
	if (q->head && q->is.due < q->head->arrived)
		q->is.due = q->head->arrived;
}

static void count_waiting(struct fair *f, struct fair_queue *q, const struct fair_request *r, int n)
{
	f->waiting += n;
	f->wanted += n * fair_seats(r);
	q->is.waiting += n;
	q->is.initial += n * r->initial;
	q->is.most += n * fair_seats(r);
	q->is.work = q->is.waiting ? q->is.work + n * work_of(r) : 0;
}

static void enqueue(struct fair *f, struct fair_queue *q, struct waiting *w)
{
	if (!busy(q)) {
		f->active++;
		q->is.due = f->now;
	}
	*(q->head ? &q->last->next : &q->head) = w;
	q->last = w;
	w->arrived = f->now;
	count_waiting(f, q, w->r, 1);
	bound(q);
}

static void dequeue(struct fair *f, struct fair_queue *q, struct waiting *w)
{
	struct waiting *before = NULL;

	while ((before ? before->next : q->head) != w)
		before = before ? before->next : q->head;
	*(before ? &before->next : &q->head) = w->next;
	if (q->last == w)
		q->last = before;
	count_waiting(f, q, w->r, -1);
}

static void seat(struct fair *f, struct fair_queue *q, struct fair_request *r)
{
	f->used += fair_seats(r);
	f->executing++;
	r->since_ns = now_ns();
	if (!q)
		return;
	q->is.executing++;
	q->is.seats += fair_seats(r);
	q->is.due += work_of(r);
}

/* Of the queues that wait, the one whose next request would be done first, had each its share; of several the first from `at` on. */
static struct fair_queue *next_queue(struct fair *f, int at, struct fair_dispatch *d)
{
	struct fair_queue *best = NULL;
	double done = 0;
	int left = f->waiting;

	*d = (struct fair_dispatch){0};
	for (; left > 0; at++) {
		struct fair_queue *q = &f->q[at = at < f->n_queues ? at : 0];
		double would, discounted;

		if (!q->head)
			continue;
		left -= q->is.waiting;
		would = q->is.due + work_of(q->head->r);
		discounted = q->is.due - q->is.seats * GUESS_S;
		d->least = !d->any || q->is.due < d->least ? q->is.due : d->least;
		d->greatest = !d->any || q->is.due > d->greatest ? q->is.due : d->greatest;
		d->discounted_least = !d->any || discounted < d->discounted_least ? discounted : d->discounted_least;
		d->discounted_greatest = !d->any || discounted > d->discounted_greatest ? discounted : d->discounted_greatest;
		d->any = true;
		if (!best || would < done) {
			best = q;
			done = would;
		}
	}
	return best;
}

static void dispatch(struct fair *f, int from)
{
	while (f->waiting && f->used < fair_limit(f)) {
		struct fair_dispatch d;
		struct fair_queue *q = next_queue(f, from, &d);
		struct waiting *w = q->head;

		if (!can_take(f, fair_seats(w->r))) {
			w->r->no_room++;
			return;
		}
		f->robin = (int)(q - f->q);
		from = f->robin + 1;
		d.now = f->now;
		d.due = q->is.due;
		f->last = d;
		dequeue(f, q, w);
		seat(f, q, w->r);
		bound(q);
		w->seated = true;
		waitq_wake_one(&w->wake);
	}
}

void fair_changed(struct fair_group *g)
{
	for (struct fair *o = g->levels; o; o = o->next) {
		if (!o->waiting)
			continue;
		fair_sync(o);
		dispatch(o, o->robin + 1);
	}
}

/* ---- the way in and out ---- */

struct error *fair_enter(struct fair *f, uint64_t flow, struct fair_request *r, int64_t max_wait_ms, enum fair_answer *answer)
{
	struct waiting w = {.r = r};
	struct fair_queue *q;
	struct error *e = NULL;
	int64_t until = now_ms() + max_wait_ms;

	*answer = FAIR_SEATED;
	r->queue = -1;
	r->length = 0;
	r->no_room = 0;
	fair_sync(f);
	if (f->exempt || f->reject) {
		if (f->exempt || can_take(f, fair_seats(r)))
			seat(f, NULL, r);
		else
			*answer = FAIR_CONCURRENCY_LIMIT;
		return NULL;
	}
	make_queues(f);
	q = choose(f, flow);
	if (q->is.waiting >= f->length && f->used >= fair_limit(f)) {
		*answer = FAIR_QUEUE_FULL;
		return NULL;
	}
	enqueue(f, q, &w);
	r->queue = (int)(q - f->q);
	r->length = q->is.waiting;
	dispatch(f, q->is.waiting == f->waiting ? r->queue : f->robin + 1); /* where only it waits there is nothing to look for */
	while (!w.seated && !e && now_ms() < until)
		e = waitq_wait_ms(&w.wake, until - now_ms());
	if (w.seated) {
		if (!error_is_sys(e, ECANCELED)) {
			error_free(e);
			return NULL;
		}
		fair_done(f, r);
		fair_leave(f, r);
		return e;
	}
	fair_sync(f);
	q = &f->q[r->queue]; /* they may have become more */
	dequeue(f, q, &w);
	f->active -= !busy(q);
	bound(q);
	dispatch(f, f->robin + 1); /* it may have been the wide one that the others waited for */
	if (error_is_sys(e, ETIMEDOUT) && now_ms() >= until)
		error_clear(&e);
	if (!e)
		*answer = FAIR_TIME_OUT;
	return e;
}

void fair_done(struct fair *f, const struct fair_request *r)
{
	fair_sync(f);
	f->executing--;
	if (r->queue < 0)
		return;
	struct fair_queue *q = &f->q[r->queue];

	q->is.executing--;
	f->active -= !busy(q);
	/* what it has taken, in place of what was thought */
	q->is.due += r->initial * ((double)(now_ns() - r->since_ns) / 1e9 - GUESS_S);
	bound(q);
}

void fair_leave(struct fair *f, const struct fair_request *r)
{
	fair_sync(f);
	f->used -= fair_seats(r);
	if (r->queue >= 0)
		f->q[r->queue].is.seats -= fair_seats(r);
	dispatch(f, f->robin + 1);
	fair_changed(f->group); /* what was lent goes to whoever waits for it */
}

struct fair_queue_state fair_queue_state(const struct fair *f, int i)
{
	return i < f->n_queues ? f->q[i].is : (struct fair_queue_state){0};
}

/* ---- who is refused ---- */

int fair_retry_after(struct fair_retry *r, int64_t second)
{
	size_t slot = (size_t)second % (sizeof r->refused / sizeof *r->refused);
	int recent = 0;

	if (!r->after)
		r->after = 1;
	if (r->refused[slot].second == second && r->refused[slot].n) {
		r->refused[slot].n++;
		return r->after;
	}
	for (size_t i = 0; i < sizeof r->refused / sizeof *r->refused; i++)
		if (r->refused[i].second < second && second - r->refused[i].second <= r->after)
			recent += r->refused[i].n;
	r->refused[slot].second = second;
	r->refused[slot].n = 1;
	if (recent >= 3 * r->after && (!r->raised || second - r->raised >= r->after)) {
		r->after = 2 * r->after > FAIR_RETRY_MAX ? FAIR_RETRY_MAX : 2 * r->after;
		r->raised = second;
	} else if (recent < r->after && r->after > 1) {
		r->after--;
	}
	return r->after;
}
