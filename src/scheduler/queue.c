#include "scheduler/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"

enum where { NOWHERE, ACTIVE, BACKOFF, UNSCHEDULABLE, GATED, IN_FLIGHT };

struct item {
	char *key;
	size_t key_n;
	int32_t priority;
	uint64_t seq;              /* age: order of first arrival */
	int attempts;
	enum where where;
	size_t heap;               /* index in its heap */
	int64_t ready_ms;          /* BACKOFF: when; UNSCHEDULABLE: since */
	uint32_t rejected_by;
	uint64_t popped;           /* IN_FLIGHT: clock when it was popped */
	bool changed;              /* IN_FLIGHT: its spec changed since */
	bool deleted;              /* while IN_FLIGHT */
};

struct heap {
	struct item **v;
	size_t n, cap;
	bool (*less)(const struct item *a, const struct item *b);
};

struct queue {
	struct map items;
	struct heap active, backoff;
	size_t n_unschedulable, n_gated;
	uint64_t seq;
	uint64_t clock;            /* raised by each event */
	uint64_t last[32];         /* clock of the last event of each kind */
	struct waitq wake;
	int64_t backoff_min_ms, backoff_max_ms;
};

static bool less_active(const struct item *a, const struct item *b)
{
	return a->priority != b->priority ? a->priority > b->priority : a->seq < b->seq;
}

static bool less_backoff(const struct item *a, const struct item *b)
{
	return a->ready_ms < b->ready_ms;
}

static void place(struct heap *h, size_t i, struct item *it)
{
	h->v[i] = it;
	it->heap = i;
}

static void up(struct heap *h, size_t i)
{
	struct item *it = h->v[i];

	for (; i && h->less(it, h->v[(i - 1) / 2]); i = (i - 1) / 2)
		place(h, i, h->v[(i - 1) / 2]);
	place(h, i, it);
}

static void down(struct heap *h, size_t i)
{
	struct item *it = h->v[i];

	for (size_t k; (k = 2 * i + 1) < h->n; i = k) {
		if (k + 1 < h->n && h->less(h->v[k + 1], h->v[k]))
			k++;
		if (!h->less(h->v[k], it))
			break;
		place(h, i, h->v[k]);
	}
	place(h, i, it);
}

static void heap_push(struct heap *h, struct item *it)
{
	if (h->n == h->cap) {
		h->cap = h->cap ? h->cap * 2 : 64;
		h->v = xrealloc(h->v, h->cap * sizeof *h->v);
	}
	place(h, h->n++, it);
	up(h, it->heap);
}

static void heap_remove(struct heap *h, struct item *it)
{
	size_t i = it->heap;
	struct item *last = h->v[--h->n];

	if (last == it)
		return;
	place(h, i, last);
	up(h, i);
	down(h, last->heap);
}

struct queue *queue_new(int64_t backoff_min_ms, int64_t backoff_max_ms)
{
	struct queue *q = xcalloc(1, sizeof *q);

	q->backoff_min_ms = backoff_min_ms;
	q->backoff_max_ms = backoff_max_ms;
	q->active.less = less_active;
	q->backoff.less = less_backoff;
	return q;
}

static struct item *find(struct queue *q, struct str key)
{
	return map_get(&q->items, key);
}

static void take_out(struct queue *q, struct item *it)
{
	switch (it->where) {
	case ACTIVE: heap_remove(&q->active, it); break;
	case BACKOFF: heap_remove(&q->backoff, it); break;
	case UNSCHEDULABLE: q->n_unschedulable--; break;
	case GATED: q->n_gated--; break;
	default: break;
	}
	it->where = NOWHERE;
}

static void put(struct queue *q, struct item *it, enum where where)
{
	assert(it->where == NOWHERE);
	it->where = where;
	if (where == ACTIVE)
		heap_push(&q->active, it);
	else if (where == BACKOFF)
		heap_push(&q->backoff, it);
	else if (where == UNSCHEDULABLE)
		q->n_unschedulable++;
	else if (where == GATED)
		q->n_gated++;
	if (where == ACTIVE || where == BACKOFF)
		waitq_wake_all(&q->wake);
}

static struct item *get_or_make(struct queue *q, struct str key, int32_t priority)
{
	struct item *it = find(q, key);

	if (!it) {
		it = xcalloc(1, sizeof *it);
		it->key = str_dupz(key);
		it->key_n = key.n;
		it->seq = q->seq++;
		map_set(&q->items, key, it);
	}
	it->priority = priority;
	return it;
}

static int64_t backoff_ms(const struct queue *q, const struct item *it)
{
	int64_t ms = q->backoff_min_ms;

	for (int i = 1; i < it->attempts && ms < q->backoff_max_ms; i++)
		ms *= 2;
	return ms < q->backoff_max_ms ? ms : q->backoff_max_ms;
}

/* To active, or first through what is left of its backoff. */
static void activate(struct queue *q, struct item *it)
{
	int64_t ready = it->ready_ms + backoff_ms(q, it);

	take_out(q, it);
	if (it->attempts && ready > now_ms()) {
		it->ready_ms = ready;
		put(q, it, BACKOFF);
	} else {
		put(q, it, ACTIVE);
	}
}

void queue_add(struct queue *q, struct str key, int32_t priority, bool spec_changed)
{
	struct item *it = get_or_make(q, key, priority);

	it->deleted = false;
	switch (it->where) {
	case NOWHERE:
	case GATED:
		take_out(q, it);
		put(q, it, ACTIVE);
		break;
	case UNSCHEDULABLE:
		if (spec_changed)
			activate(q, it);
		break;
	case IN_FLIGHT:
		if (spec_changed)
			it->changed = true;
		break;
	case ACTIVE: /* the priority may have changed */
		take_out(q, it);
		put(q, it, ACTIVE);
		break;
	case BACKOFF:
		break;
	}
}

void queue_gate(struct queue *q, struct str key, int32_t priority)
{
	struct item *it = get_or_make(q, key, priority);

	if (it->where == IN_FLIGHT)
		return;
	take_out(q, it);
	put(q, it, GATED);
}

static void item_free(void *v)
{
	struct item *it = v;

	free(it->key);
	free(it);
}

static void forget(struct queue *q, struct item *it)
{
	take_out(q, it);
	map_del(&q->items, str_of(it->key, it->key_n));
	item_free(it);
}

void queue_delete(struct queue *q, struct str key)
{
	struct item *it = find(q, key);

	if (!it)
		return;
	if (it->where == IN_FLIGHT)
		it->deleted = true;
	else
		forget(q, it);
}

struct error *queue_pop(struct queue *q, struct arena *a, struct str *key, int *attempts)
{
	for (;;) {
		int64_t now = now_ms();

		while (q->backoff.n && q->backoff.v[0]->ready_ms <= now) {
			struct item *it = q->backoff.v[0];

			take_out(q, it);
			put(q, it, ACTIVE);
		}
		if (q->active.n)
			break;
		struct error *e = q->backoff.n ? waitq_wait_ms(&q->wake, q->backoff.v[0]->ready_ms - now) : waitq_wait(&q->wake);

		if (e && (!error_is_sys(e, ETIMEDOUT) || fiber_cancelled()))
			return e;
		error_free(e);
	}
	struct item *it = q->active.v[0];

	take_out(q, it);
	it->where = IN_FLIGHT;
	it->popped = q->clock;
	it->changed = false;
	it->attempts++;
	*attempts = it->attempts;
	*key = arena_str(a, str_of(it->key, it->key_n));
	return NULL;
}

static bool helps(uint32_t rejected_by, unsigned event)
{
	if (!rejected_by)
		return event != 0;
	for (uint32_t m = rejected_by; m; m &= m - 1)
		if (plugins[__builtin_ctz(m)]->events & event)
			return true;
	return false;
}

void queue_requeue(struct queue *q, struct str key, uint32_t rejected_by, bool error)
{
	struct item *it = find(q, key);

	if (!it || it->where != IN_FLIGHT)
		return;
	it->where = NOWHERE;
	if (it->deleted) {
		forget(q, it);
		return;
	}
	it->rejected_by = rejected_by;
	it->ready_ms = now_ms();
	unsigned missed = 0;

	for (int i = 0; i < 32; i++)
		missed |= (unsigned)(q->last[i] > it->popped) << i;
	/* What happened during the attempt may not have been in its snapshot. */
	if (error || it->changed || helps(rejected_by, missed))
		activate(q, it);
	else
		put(q, it, UNSCHEDULABLE);
}

void queue_done(struct queue *q, struct str key)
{
	struct item *it = find(q, key);

	if (it && it->where == IN_FLIGHT) {
		it->where = NOWHERE;
		forget(q, it);
	}
}

void queue_event(struct queue *q, unsigned event)
{
	size_t pos = 0;
	void *value;
	int64_t now = now_ms();

	q->clock++;
	for (unsigned m = event; m; m &= m - 1)
		q->last[__builtin_ctz(m)] = q->clock;
	if (!q->n_unschedulable)
		return;
	while (map_next(&q->items, &pos, NULL, &value)) {
		struct item *it = value;

		if (it->where == UNSCHEDULABLE &&
			 (helps(it->rejected_by, event) || now - it->ready_ms > QUEUE_UNSCHEDULABLE_MAX_MS))
			activate(q, it);
	}
}

void queue_counts(const struct queue *q, size_t *active, size_t *backoff, size_t *unschedulable, size_t *gated)
{
	*active = q->active.n;
	*backoff = q->backoff.n;
	*unschedulable = q->n_unschedulable;
	*gated = q->n_gated;
}

void queue_free(struct queue *q)
{
	map_free_values(&q->items, item_free);
	free(q->active.v);
	free(q->backoff.v);
	free(q);
}
