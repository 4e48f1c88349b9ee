#include "client/workqueue.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/map.h"

#define BACKOFF_BASE_MS 5
#define BACKOFF_MAX_MS 1000000 /* 1,000 s */

/* One known key. There are as many as the caller has objects: the queue itself needs no other limit. */
struct item {
	struct item *next;    /* in the ready list */
	char *key;
	struct str k;
	bool dirty;           /* wants work */
	bool processing;
	uint32_t failures;
	size_t heap;          /* 1 + place in the delay heap, 0: not in it */
	int64_t due;          /* monotonic ms */
};

struct workqueue {
	char *name;
	struct map items;
	struct item *head, *tail;
	size_t ready;
	struct item **heap;   /* by due */
	size_t heap_n, heap_cap;
	struct waitq waiters;
	uint64_t adds, retries;
	struct workqueue *next; /* of all there are */
};

static struct workqueue *queues;

struct workqueue *workqueue_new(const char *name)
{
	struct workqueue *q = xcalloc(1, sizeof(*q));

	q->name = xstrdup(name);
	q->next = queues;
	queues = q;
	return q;
}

static void figure(struct buf *b, const char *name, const char *type, const char *help, uint64_t (*value)(const struct workqueue *q))
{
	buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
	for (const struct workqueue *q = queues; q; q = q->next)
		buf_printf(b, "%s{name=\"%s\"} %llu\n", name, q->name, (unsigned long long)value(q));
}

static uint64_t depth_of(const struct workqueue *q)
{
	return q->ready;
}

static uint64_t adds_of(const struct workqueue *q)
{
	return q->adds;
}

static uint64_t retries_of(const struct workqueue *q)
{
	return q->retries;
}

void workqueue_metrics(struct buf *b)
{
	figure(b, "workqueue_depth", "gauge", "Current depth of workqueue.", depth_of);
	figure(b, "workqueue_adds_total", "counter", "Total number of adds handled by workqueue.", adds_of);
	figure(b, "workqueue_retries_total", "counter", "Total number of retries handled by workqueue.", retries_of);
}

static void item_free(void *v)
{
	struct item *i = v;

	free(i->key);
	free(i);
}

void workqueue_free(struct workqueue *q)
{
	if (!q)
		return;
	for (struct workqueue **at = &queues; *at; at = &(*at)->next) {
		if (*at == q) {
			*at = q->next;
			break;
		}
	}
	map_free_values(&q->items, item_free);
	free(q->heap);
	free(q->name);
	free(q);
}

static struct item *item_of(struct workqueue *q, struct str key)
{
	struct item *i = map_get(&q->items, key);

	if (i)
		return i;
	i = xcalloc(1, sizeof(*i));
	i->key = str_dupz(key);
	i->k = str_of(i->key, key.n);
	map_set(&q->items, key, i);
	return i;
}

/* A key nobody wants anything of is forgotten. */
static void item_maybe_free(struct workqueue *q, struct item *i)
{
	if (i->dirty || i->processing || i->failures || i->heap)
		return;
	map_del(&q->items, i->k);
	item_free(i);
}

static void heap_place(struct workqueue *q, size_t at, struct item *i)
{
	q->heap[at] = i;
	i->heap = at + 1;
}

static void heap_up(struct workqueue *q, size_t at, struct item *i)
{
	while (at && q->heap[(at - 1) / 2]->due > i->due) {
		heap_place(q, at, q->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_place(q, at, i);
}

static void heap_down(struct workqueue *q, size_t at, struct item *i)
{
	for (;;) {
		size_t kid = 2 * at + 1;

		if (kid + 1 < q->heap_n && q->heap[kid + 1]->due < q->heap[kid]->due)
			kid++;
		if (kid >= q->heap_n || q->heap[kid]->due >= i->due)
			break;
		heap_place(q, at, q->heap[kid]);
		at = kid;
	}
	heap_place(q, at, i);
}

static void heap_remove(struct workqueue *q, struct item *i)
{
	size_t at = i->heap - 1;
	struct item *last = q->heap[--q->heap_n];

	i->heap = 0;
	if (last == i)
		return;
	if (at && q->heap[(at - 1) / 2]->due > last->due)
		heap_up(q, at, last);
	else
		heap_down(q, at, last);
}

static void make_ready(struct workqueue *q, struct item *i)
{
	i->next = NULL;
	if (q->tail)
		q->tail->next = i;
	else
		q->head = i;
	q->tail = i;
	q->ready++;
	q->adds++;
	waitq_wake_one(&q->waiters);
}

static void add_item(struct workqueue *q, struct item *i)
{
	if (i->dirty)
		return;
	i->dirty = true;
	if (!i->processing)
		make_ready(q, i);
}

void workqueue_add(struct workqueue *q, struct str key)
{
	add_item(q, item_of(q, key));
}

void workqueue_add_after(struct workqueue *q, struct str key, int64_t ms)
{
	if (ms <= 0) {
		workqueue_add(q, key);
		return;
	}
	struct item *i = item_of(q, key);
	int64_t due = now_ms() + ms;

	if (i->heap) {
		if (i->due <= due)
			return; /* comes earlier anyway */
		heap_remove(q, i);
	}
	i->due = due;
	if (q->heap_n == q->heap_cap) {
		q->heap_cap = q->heap_cap ? q->heap_cap * 2 : 16;
		q->heap = xrealloc(q->heap, q->heap_cap * sizeof(*q->heap));
	}
	heap_up(q, q->heap_n++, i);
	/* The first to come due is what a waiting worker must sleep for. */
	if (i->heap == 1)
		waitq_wake_one(&q->waiters);
}

void workqueue_add_rate_limited(struct workqueue *q, struct str key)
{
	struct item *i = item_of(q, key);
	int64_t ms = i->failures >= 18 ? BACKOFF_MAX_MS : BACKOFF_BASE_MS << i->failures;

	if (i->failures < 1000000)
		i->failures++;
	q->retries++;
	workqueue_add_after(q, key, ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms);
}

void workqueue_forget(struct workqueue *q, struct str key)
{
	struct item *i = map_get(&q->items, key);

	if (!i)
		return;
	i->failures = 0;
	item_maybe_free(q, i);
}

int workqueue_requeues(struct workqueue *q, struct str key)
{
	struct item *i = map_get(&q->items, key);

	return i ? (int)i->failures : 0;
}

size_t workqueue_len(const struct workqueue *q)
{
	return q->ready;
}

struct error *workqueue_get(struct workqueue *q, struct arena *a, struct str *key)
{
	for (;;) {
		int64_t now = now_ms();

		while (q->heap_n && q->heap[0]->due <= now) {
			struct item *i = q->heap[0];

			heap_remove(q, i);
			add_item(q, i);
		}
		if (q->head) {
			struct item *i = q->head;

			q->head = i->next;
			if (!q->head)
				q->tail = NULL;
			q->ready--;
			i->dirty = false;
			i->processing = true;
			*key = arena_str(a, i->k);
			return NULL;
		}
		if (!q->heap_n) {
			TRY(waitq_wait(&q->waiters));
			continue;
		}
		struct error *e = waitq_wait_ms(&q->waiters, q->heap[0]->due - now);

		if (error_is_sys(e, ETIMEDOUT) && !fiber_cancelled())
			error_clear(&e); /* the timer's, not the caller's deadline: that comes again below */
		if (e)
			return e;
		TRY(fiber_check());
	}
}

void workqueue_done(struct workqueue *q, struct str key)
{
	struct item *i = map_get(&q->items, key);

	if (!i)
		return;
	i->processing = false;
	if (i->dirty)
		make_ready(q, i);
	else
		item_maybe_free(q, i);
}

struct worker {
	struct workqueue *q;
	const char *name;
	reconcile_fn *fn;
	void *ctx;
};

static void work(void *arg)
{
	struct worker *w = arg;
	arena_cleanup struct arena a = {0};
	struct str key;

	for (;;) {
		struct error *e = workqueue_get(w->q, &a, &key);

		if (e) { /* cancelled: the end */
			error_free(e);
			break;
		}
		struct str ns, name;

		object_key_split(key, &ns, &name);
		e = w->fn(w->ctx, &a, ns, name);
		if (e) {
			/* Conflicts are everyday life: the next event brings the newer object. */
			if (error_is(e, 409, NULL))
				log_v(2, "%s: %.*s: %s", w->name, STR_ARG(key), error_message(e));
			else if (!error_is_sys(e, ECANCELED))
				log_warn("%s: %.*s: %s", w->name, STR_ARG(key), error_message(e));
			error_free(e);
			workqueue_add_rate_limited(w->q, key);
		} else {
			struct item *i = map_get(&w->q->items, key);

			if (i)
				i->failures = 0;
		}
		workqueue_done(w->q, key);
		arena_reset(&a);
	}
	free(w);
}

void workqueue_run(struct workqueue *q, const char *name, int workers, reconcile_fn *fn, void *ctx)
{
	for (int i = 0; i < workers; i++) {
		struct worker *w = xcalloc(1, sizeof(*w));

		*w = (struct worker){q, name, fn, ctx};
		fiber_spawn(name, work, w);
	}
}

struct str object_key(struct arena *a, struct str ns, struct str name)
{
	return str_empty(ns) ? arena_str(a, name) : arena_printf(a, "%.*s/%.*s", STR_ARG(ns), STR_ARG(name));
}

void object_key_split(struct str key, struct str *ns, struct str *name)
{
	ptrdiff_t i = str_index(key, '/');

	*ns = i < 0 ? STR_NULL : str_sub(key, 0, (size_t)i);
	*name = i < 0 ? key : str_sub(key, (size_t)i + 1, key.n);
}
