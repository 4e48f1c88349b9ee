#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "store/internal.h"

void store_kv_free(struct store_kv *kv)
{
	block_unref(kv->value);
	free((char *)kv->key.p);
	*kv = (struct store_kv){0};
}

void store_event_free(struct store_event *e)
{
	block_unref(e->cookie);
	store_kv_free(&e->kv);
	*e = (struct store_event){0};
}

struct error *store_expired(int64_t rev, int64_t compacted)
{
	return error_status(410, "Expired", "the resourceVersion %lld is too old: history begins at %lld", (long long)rev,
			    (long long)compacted);
}

struct error *store_open(const struct store_opts *o, struct store **out)
{
	*out = NULL;
	if (o->etcd_servers && *o->etcd_servers)
		return etcd_open(o, out);
	if (!o->dir || !*o->dir)
		return error_new("store: neither a data directory nor etcd servers were given");
	return embedded_open(o, out);
}

int64_t store_history_ms(const struct store *s)
{
	return s->history_ms;
}

/* ---- hub ---- */

struct hub_event *hub_event_new(struct store_event e)
{
	struct hub_event *h = xmalloc(sizeof(*h));
	*h = (struct hub_event){.refs = 1, .e = e};
	return h;
}

void hub_event_unref(struct hub_event *h)
{
	if (--h->refs)
		return;
	store_event_free(&h->e);
	free(h);
}

static void queue_clear(struct store_watch *w)
{
	for (; w->n; w->n--)
		hub_event_unref(w->q[w->head++ & (w->cap - 1)]);
	free(w->q);
	w->q = NULL;
	w->head = w->cap = 0;
}

static void queue_push(struct store_watch *w, struct hub_event *h)
{
	if (w->expired)
		return;
	if (w->n == WATCH_QUEUE_MAX) {
		w->expired = true;
		queue_clear(w);
		return;
	}
	if (w->n == w->cap) {
		size_t cap = w->cap ? w->cap * 2 : 8;
		struct hub_event **q = xmalloc(cap * sizeof(*q));
		for (size_t i = 0; i < w->n; i++)
			q[i] = w->q[(w->head + i) & (w->cap - 1)];
		free(w->q);
		w->q = q;
		w->head = 0;
		w->cap = cap;
	}
	h->refs++;
	w->q[(w->head + w->n++) & (w->cap - 1)] = h;
}

void hub_prepend(struct store_watch *w, struct hub_event **events, size_t n)
{
	if (w->expired || w->n + n > WATCH_QUEUE_MAX) {
		for (size_t i = 0; i < n; i++)
			hub_event_unref(events[i]);
		w->expired |= n != 0;
		return;
	}
	size_t cap = 8;
	while (cap < w->n + n)
		cap *= 2;
	struct hub_event **q = xmalloc(cap * sizeof(*q));
	if (n)
		memcpy(q, events, n * sizeof(*q));
	for (size_t i = 0; i < w->n; i++)
		q[n + i] = w->q[(w->head + i) & (w->cap - 1)];
	free(w->q);
	w->q = q;
	w->head = 0;
	w->n += n;
	w->cap = cap;
}

static void watch_wake(struct store_watch *w)
{
	waitq_wake_all(&w->wait);
	if (w->notify)
		w->notify(w->ctx);
}

/* Number of watches whose start is <= key. */
static size_t upper_bound(const struct hub *h, struct str key)
{
	size_t lo = 0, hi = h->n;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (str_cmp(h->v[mid]->start, key) <= 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void hub_publish(struct hub *h, struct hub_event **events, size_t n, int64_t rev)
{
	for (size_t e = 0; e < n; e++) {
		struct str key = events[e]->e.kv.key;
		/* Ranges seldom nest: the walk back ends at the first i whose predecessors all end before key. */
		for (size_t i = upper_bound(h, key); i-- > 0;) {
			if (h->max_end[i].n && str_cmp(h->max_end[i], key) <= 0)
				break;
			if (in_range(key, h->v[i]->start, h->v[i]->end))
				queue_push(h->v[i], events[e]);
		}
	}
	if (rev > h->rev)
		h->rev = rev;
	/* Only when all is queued and rev is raised: a receiver that drains sees one consistent state. */
	for (size_t i = 0; i < h->n; i++)
		if (h->v[i]->n || h->v[i]->expired)
			watch_wake(h->v[i]);
	waitq_wake_all(&h->seen);
	for (size_t e = 0; e < n; e++)
		hub_event_unref(events[e]);
}

void hub_expire(struct hub *h)
{
	for (size_t i = 0; i < h->n; i++) {
		h->v[i]->expired = true;
		queue_clear(h->v[i]);
		watch_wake(h->v[i]);
	}
	waitq_wake_all(&h->seen);
}

static void hub_index(struct hub *h)
{
	for (size_t i = 0; i < h->n; i++) {
		struct str end = h->v[i]->end;
		if (i && end.n && (!h->max_end[i - 1].n || str_cmp(h->max_end[i - 1], end) > 0))
			end = h->max_end[i - 1];
		h->max_end[i] = end;
	}
}

/* ---- watches ---- */

struct error *store_watch_open(struct store *s, struct str start, struct str end, int64_t from, struct store_watch **out)
{
	*out = NULL;
	TRY(s->ops->watch_check(s, from));
	struct store_watch *w = xcalloc(1, sizeof(*w));
	w->s = s;
	w->start_p = str_dupz(start);
	w->end_p = str_dupz(end);
	w->start = str_of(w->start_p, start.n);
	w->end = str_of(w->end_p, end.n);
	w->hist_next = from + 1;
	w->hist_last = s->hub.rev;

	struct hub *h = &s->hub;
	if (h->n == h->cap) {
		h->cap = h->cap ? h->cap * 2 : 16;
		h->v = xrealloc(h->v, h->cap * sizeof(*h->v));
		h->max_end = xrealloc(h->max_end, h->cap * sizeof(*h->max_end));
	}
	size_t at = upper_bound(h, w->start);
	memmove(h->v + at + 1, h->v + at, (h->n - at) * sizeof(*h->v));
	h->v[at] = w;
	h->n++;
	hub_index(h);
	if (s->ops->catch_up && from < w->hist_last) {
		struct error *e = s->ops->catch_up(s, w, from, w->hist_last);
		if (e) {
			store_watch_close(w);
			return e;
		}
		w->hist_last = from; /* it is all in the queue */
	}
	*out = w;
	return NULL;
}

void store_watch_notify(struct store_watch *w, void (*notify)(void *ctx), void *ctx)
{
	w->notify = notify;
	w->ctx = ctx;
}

struct error *store_watch_poll(struct store_watch *w, struct store_event *e, bool *got, int64_t *progress)
{
	*got = false;
	*e = (struct store_event){0};
	if (!w->s)
		return error_sys(ECANCELED, "the store was closed");
	if (w->expired)
		return error_status(410, "Expired", "the watch fell behind; list again");
	if (w->hist_next <= w->hist_last) {
		TRY(w->s->ops->history(w->s, w, e, got));
		if (*got)
			return NULL;
		w->hist_next = w->hist_last + 1;
	}
	while (w->n) {
		struct hub_event *h = w->q[w->head++ & (w->cap - 1)];
		w->n--;
		if (!w->n && w->cap > 64)
			queue_clear(w);
		if (h->e.kv.mod_rev <= w->hist_last) { /* history already gave it */
			hub_event_unref(h);
			continue;
		}
		*got = true;
		if (h->refs == 1) {
			*e = h->e;
			free(h);
			return NULL;
		}
		*e = h->e;
		e->kv.key = str_of(str_dupz(h->e.kv.key), h->e.kv.key.n);
		if (e->kv.value)
			block_ref(e->kv.value);
		if (e->cookie)
			block_ref(e->cookie);
		hub_event_unref(h);
		return NULL;
	}
	if (progress)
		*progress = w->s->hub.rev;
	return NULL;
}

struct error *store_watch_next(struct store_watch *w, struct store_event *e, int64_t *progress)
{
	int64_t until = now_ms() + PROGRESS_MS;
	for (;;) {
		bool got;
		TRY(store_watch_poll(w, e, &got, progress));
		if (got)
			return NULL;
		int64_t ms = until - now_ms();
		struct error *err = NULL;
		if (!progress)
			err = waitq_wait(&w->wait);
		else if (ms > 0)
			err = waitq_wait_ms(&w->wait, ms);
		else
			return NULL; /* e is empty: progress */
		if (err && error_is_sys(err, ETIMEDOUT) && progress && now_ms() >= until) {
			error_free(err);
			continue;
		}
		TRY(err);
	}
}

void store_watch_close(struct store_watch *w)
{
	if (!w)
		return;
	if (w->s) {
		struct hub *h = &w->s->hub;
		size_t i = 0;
		while (h->v[i] != w)
			i++;
		memmove(h->v + i, h->v + i + 1, (h->n - i - 1) * sizeof(*h->v));
		h->n--;
		hub_index(h);
	}
	queue_clear(w);
	free(w->start_p);
	free(w->end_p);
	free(w);
}

struct error *store_wait_seen(struct store *s, int64_t rev, int64_t ms)
{
	int64_t until = now_ms() + ms;
	while (s->hub.rev < rev) {
		int64_t left = until - now_ms();
		if (left <= 0) {
			if (s->ops->late && ms > 0)
				s->ops->late(s, rev);
			return error_sys(ETIMEDOUT, "the store has not shown revision %lld yet", (long long)rev);
		}
		struct error *e = waitq_wait_ms(&s->hub.seen, left);
		if (e && !(error_is_sys(e, ETIMEDOUT) && now_ms() >= until))
			return e;
		error_free(e);
	}
	return NULL;
}

/* ---- calls through the engine ---- */

static struct error *check_key(struct str key)
{
	if (!key.n || key.n > STORE_KEY_MAX)
		return error_status(400, "BadRequest", "store: a key of %zu bytes: 1 to %d are allowed", key.n, STORE_KEY_MAX);
	return NULL;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	struct hub h = s->hub;
	s->hub.n = 0;
	for (size_t i = 0; i < h.n; i++)
		h.v[i]->s = NULL;
	for (size_t i = 0; i < h.n; i++)
		watch_wake(h.v[i]);
	free(h.v);
	free(h.max_end);
	s->hub.v = NULL;
	s->hub.max_end = NULL;
	s->hub.cap = 0;
	s->ops->close(s);
}

int64_t store_revision(const struct store *s)
{
	return s->hub.rev;
}

struct error *store_current(struct store *s, int64_t *rev)
{
	return s->ops->current(s, rev);
}

struct error *store_get(struct store *s, struct str key, int64_t rev, bool *found, struct store_kv *out)
{
	*found = false;
	*out = (struct store_kv){0};
	TRY(check_key(key));
	return s->ops->get(s, key, rev, found, out);
}

struct error *store_range(struct store *s, struct str start, struct str end, int64_t *rev, size_t limit,
			  bool (*each)(void *ctx, struct store_kv *kv), void *ctx)
{
	return s->ops->range(s, start, end, rev, limit, each, ctx, NULL);
}

struct error *store_range_view(struct store *s, struct str start, struct str end, int64_t *rev, size_t limit,
			       bool (*each)(void *ctx, struct store_kv *kv), void *ctx, struct store_view **view)
{
	*view = NULL;
	return s->ops->range(s, start, end, rev, limit, each, ctx, view);
}

struct error *store_view_value(struct store_view *v, struct str key, int64_t mod_rev, struct str *value)
{
	return v->s->ops->view_value(v, key, mod_rev, value);
}

void store_view_end(struct store_view *v)
{
	if (v)
		v->s->ops->view_end(v);
}

struct error *store_count(struct store *s, struct str start, struct str end, size_t *n)
{
	*n = 0;
	return s->ops->count(s, start, end, n);
}

struct error *store_put(struct store *s, struct str key, struct str value, int64_t expect, int64_t lease, unsigned flags,
			struct block *cookie, bool *ok, int64_t *rev, struct store_kv *now)
{
	*ok = false;
	*rev = 0;
	if (now)
		*now = (struct store_kv){0};
	TRY(check_key(key));
	if (value.n > STORE_VALUE_MAX)
		return error_status(413, "RequestEntityTooLarge", "the object is too large to store: %zu bytes, %d are allowed",
				    value.n, STORE_VALUE_MAX);
	return s->ops->put(s, key, value, expect, lease, flags, cookie, ok, rev, now);
}

struct error *store_delete(struct store *s, struct str key, int64_t expect, bool *ok, int64_t *rev, struct store_kv *now)
{
	*ok = false;
	*rev = 0;
	if (now)
		*now = (struct store_kv){0};
	TRY(check_key(key));
	return s->ops->del(s, key, expect, ok, rev, now);
}

struct error *store_lease_grant(struct store *s, int64_t ttl_ms, int64_t *id)
{
	*id = 0;
	if (ttl_ms <= 0)
		return error_status(400, "BadRequest", "store: a lease needs a time to live above 0");
	return s->ops->grant(s, ttl_ms, id);
}

struct error *store_lease_keepalive(struct store *s, int64_t id)
{
	return s->ops->keepalive(s, id);
}

struct error *store_lease_revoke(struct store *s, int64_t id)
{
	return s->ops->revoke(s, id);
}

struct error *store_sync(struct store *s)
{
	return s->ops->sync ? s->ops->sync(s) : NULL;
}

struct error *store_compact(struct store *s, int64_t rev)
{
	return s->ops->compact(s, rev);
}

struct error *store_snapshot_save(struct store *s, const char *path)
{
	return s->ops->save(s, path);
}

void store_stats(struct store *s, struct store_stats *out)
{
	*out = (struct store_stats){.revision = s->hub.rev, .watchers = (int64_t)s->hub.n};
	s->ops->stats(s, out);
}
