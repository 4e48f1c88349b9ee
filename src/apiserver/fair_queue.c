#include "apiserver/fair_queue.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"

struct waiting { /* on its fiber's stack */
	struct waiting *next;
	struct waitq wake;
	int width;
	bool seated;
	struct fair_place *place;
};
struct fair_queue {
	struct waiting *head, **tail;
	int n, seats;   /* requests that wait, and what they want */
	double virtual_start; /* of its head */
};

void fair_add(struct fair_group *g, struct fair *f)
{
	f->group = g;
	f->next = g->levels;
	g->levels = f;
}

/* Seats that nobody uses and nobody keeps for himself. */
static int free_for(const struct fair *f)
{
	int left = f->group->total;

	for (const struct fair *o = f->group->levels; o; o = o->next) {
		left -= o->used;
		if (o != f && o->reserved > o->used)
			left -= o->reserved - o->used;
	}
	return left;
}

static int most_of(const struct fair *f)
{
	return f->borrow_max < 0 ? f->group->total : f->nominal + f->borrow_max;
}

int fair_limit(const struct fair *f)
{
	int left = free_for(f), n = f->used + (left > 0 ? left : 0), most = most_of(f);

	n = n < most ? n : most;
	return n > f->reserved ? n : f->reserved;
}

static bool can_take(const struct fair *f, int width)
{
	if (!f->used || f->used + width <= f->reserved)
		return true;
	if (f->borrow_max >= 0 && f->used + width > f->nominal + f->borrow_max)
		return false;
	return free_for(f) >= width;
}

/* ---- queues ---- */

static void make_queues(struct fair *f)
{
	int n = f->queues < 1 ? 1 : f->queues > FAIR_QUEUES_MAX ? FAIR_QUEUES_MAX : f->queues;

	if (f->waiting || n == f->n_queues)
		return;
	free(f->q);
	f->q = xcalloc((size_t)n, sizeof *f->q);
	f->n_queues = n;
	for (int i = 0; i < n; i++)
		f->q[i].tail = &f->q[i].head;
}

/* The hand: different queues, dealt by the flow's number as by a shuffled deck; of them the one where least is wanted. */
static struct fair_queue *choose(struct fair *f, uint64_t flow)
{
	int hand = f->hand < 1 ? 1 : f->hand > FAIR_HAND_MAX ? FAIR_HAND_MAX : f->hand;
	int cards[FAIR_HAND_MAX];
	struct fair_queue *best = NULL;

	if (hand > f->n_queues)
		hand = f->n_queues;
	for (int i = 0; i < hand; i++) {
		uint64_t left = (uint64_t)(f->n_queues - i);
		int card = (int)(flow % left), k;

		flow /= left;
		/* The card'th of those that are still in the deck. */
		for (k = 0; k < i && cards[k] <= card; k++)
			card++;
		for (int j = i; j > k; j--)
			cards[j] = cards[j - 1];
		cards[k] = card;
		if (!best || f->q[card].seats < best->seats)
			best = &f->q[card];
	}
	return best;
}

static void remove_waiting(struct fair *f, struct fair_queue *q, struct waiting *w)
{
	for (struct waiting **p = &q->head; *p; p = &(*p)->next) {
		if (*p != w)
			continue;
		*p = w->next;
		if (!*p)
			q->tail = p;
		q->n--;
		q->seats -= w->width;
		f->waiting--;
		return;
	}
}

/* Of the queues that wait, the one that has been given least. */
static struct fair_queue *next_queue(struct fair *f)
{
	struct fair_queue *best = NULL;

	for (int i = 0; i < f->n_queues; i++)
		if (f->q[i].n && (!best || f->q[i].virtual_start < best->virtual_start))
			best = &f->q[i];
	return best;
}

static void dispatch(struct fair *f)
{
	while (f->waiting) {
		struct fair_queue *q = next_queue(f);
		struct waiting *w = q->head;

		if (!can_take(f, w->width)) {
			w->place->no_room++;
			return;
		}
		remove_waiting(f, q, w);
		f->now = q->virtual_start;
		q->virtual_start += w->width;
		f->used += w->width;
		f->dispatched++;
		w->seated = true;
		waitq_wake_one(&w->wake);
	}
}

/* ---- the way in and out ---- */

struct error *fair_enter(struct fair *f, uint64_t flow, int *width, int64_t max_wait_ms, enum fair_answer *answer,
			 struct fair_place *place)
{
	int most = most_of(f);
	struct waiting w = {.width = *width, .place = place};

	if (w.width > most)
		w.width = most;
	if (w.width < 1)
		w.width = 1;
	*width = w.width;
	*answer = FAIR_SEATED;
	*place = (struct fair_place){.queue = -1};
	if (!f->waiting && can_take(f, w.width)) {
		f->used += w.width;
		return NULL;
	}
	if (f->reject) {
		*answer = FAIR_CONCURRENCY_LIMIT;
		return NULL;
	}
	make_queues(f);
	struct fair_queue *q = choose(f, flow);

	if (q->n >= f->length) {
		*answer = FAIR_QUEUE_FULL;
		return NULL;
	}
	/* A queue that was empty has no claim on the past. */
	if (!q->n && q->virtual_start < f->now)
		q->virtual_start = f->now;
	*q->tail = &w;
	q->tail = &w.next;
	q->n++;
	q->seats += w.width;
	f->waiting++;
	place->queue = (int)(q - f->q);
	place->length = q->n;
	int64_t until = now_ms() + max_wait_ms;
	struct error *e = NULL;

	while (!w.seated && !e && now_ms() < until)
		e = waitq_wait_ms(&w.wake, until - now_ms());
	if (w.seated) {
		if (!error_is_sys(e, ECANCELED)) {
			error_free(e);
			return NULL;
		}
		fair_leave(f, w.width);
		return e;
	}
	remove_waiting(f, q, &w);
	if (error_is_sys(e, ETIMEDOUT) && now_ms() >= until)
		error_clear(&e);
	if (!e)
		*answer = FAIR_TIME_OUT;
	return e;
}

void fair_leave(struct fair *f, int width)
{
	f->used -= width;
	/* What was lent goes to whoever waits for it. */
	dispatch(f);
	for (struct fair *o = f->group->levels; o; o = o->next)
		if (o != f)
			dispatch(o);
}

bool fair_due(const struct fair *f, double *least, double *greatest)
{
	bool any = false;

	for (int i = 0; i < f->n_queues; i++) {
		double due = f->q[i].virtual_start;

		if (!f->q[i].n)
			continue;
		*least = any && *least < due ? *least : due;
		*greatest = any && *greatest > due ? *greatest : due;
		any = true;
	}
	return any;
}

struct fair_queue_state fair_queue_state(const struct fair *f, int i)
{
	if (i >= f->n_queues)
		return (struct fair_queue_state){0};
	return (struct fair_queue_state){f->q[i].n, f->q[i].seats, f->q[i].virtual_start};
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
