/*
 * The ring of events and its watchers. A watcher is a cursor: it holds no
 * queue. When it has read everything it waits; an event that does not concern
 * it moves its cursor on without waking its fiber.
 */
#include <errno.h>
#include <stdlib.h>

#include "apiserver/cache_internal.h"
#include "base/log.h"

#define RING_MIN 100
#define RING_MAX 102400
#define FRESH_MS 75000             /* upstream's eventFreshDuration */
#define STALE_MS 300000
#define BYTES_HARD (256u << 20)    /* of objects only the ring still holds */
#define BYTES_STALE (1u << 20)
#define BOOKMARK_MS 60000
#define BOOKMARK_END_MS 2000       /* before the watch's own end */

struct initial { /* events of a snapshot, that come first */
	struct cache_snap *snap;
	struct cache_iter it;
	bool end;                   /* and a bookmark that ends them */
};

struct cache_watch { /* what each event needs comes first */
	struct cache *c;            /* NULL: the cache is gone */
	struct cache_watch *next, *prev; /* in the cache's or the channel's list */
	struct cache_filter filter;
	struct str ns;
	struct str name;            /* selects metadata.name=x and nothing else: x, borrowed of the filter */
	bool waiting, due, expired, last, asked_was, asked_is;
	/* What ask() found out about one event of the ring: it is asked again soon after. */
	uint64_t asked_seq;         /* sequence number + 1; 0: none */
	uint64_t pos;               /* next event: a position in chan, or a sequence number in the ring */
	uint64_t begun;             /* the first that there was not yet when it was opened */
	struct chan *chan;          /* events of one node; NULL: all */
	struct waitq q;
	const void *group;
	struct cache_watch *due_next, *due_prev; /* among those to be woken */
	int64_t rev;                /* of the last event or bookmark given, or where it began */
	struct cache_entry *held;   /* lent to the reader until its next call */
	struct forms *forms;
	struct initial *initial;    /* NULL: none, or done */
	/* times, monotonic ms; 0: none */
	int64_t end_ms, bookmark_ms;
	unsigned turns;             /* calls of cache_watch_next: the clock is read at some only */
	bool last_bookmark;
	struct str node;
	char *ns_p;                 /* the bytes of ns and node */
};

/* ---- ring ---- */

static void forms_unref(struct forms *f)
{
	if (!f || --f->refs)
		return;
	for (int i = 0; i < 3; i++)
		for (int j = 0; j < CACHE_EVENT_FORMS; j++)
			block_unref(f->slots[i][j]);
	free(f);
}

static size_t entry_size(const struct cache_entry *e)
{
	return e ? e->bytes + e->body->n : 0;
}

/* Bytes that live only because the ring holds them. */
static size_t ev_bytes(const struct ev *e)
{
	return sizeof(*e) + entry_size(e->prev) + entry_size(e->gone);
}

static void ring_pop(struct cache *c)
{
	struct ev *e = ring_at(c, c->first_seq++);
	c->event_bytes -= ev_bytes(e);
	c->oldest_rev = e->rev;
	cache_entry_unref(e->cur);
	cache_entry_unref(e->prev);
	cache_entry_unref(e->gone);
	forms_unref(e->forms);
}

void ring_trim(struct cache *c, int64_t now)
{
	for (uint64_t n; (n = c->next_seq - c->first_seq) > 0;) {
		int64_t age = now - ring_at(c, c->first_seq)->ms;
		bool drop = n > RING_MAX || c->event_bytes > BYTES_HARD ||
			    (age > FRESH_MS && c->event_bytes > BYTES_STALE + c->object_bytes / 16) ||
			    (age > STALE_MS && (n > RING_MIN || c->event_bytes > BYTES_STALE));
		if (!drop)
			break;
		ring_pop(c);
	}
	size_t n = (size_t)(c->next_seq - c->first_seq);
	if (c->ring_cap > 256 && n < c->ring_cap / 8) {
		size_t cap = c->ring_cap / 4;
		struct ev *ring = xmalloc(cap * sizeof(*ring));
		for (uint64_t s = c->first_seq; s < c->next_seq; s++)
			ring[s & (cap - 1)] = *ring_at(c, s);
		free(c->ring);
		c->ring = ring;
		c->ring_cap = cap;
		c->shrunk++;
	}
}

/*
 * Watchers with news are woken some at a time, by a fiber that between them lets requests in: a change that thousands watch does not
 * make others wait, and what has changed again until a watcher's turn comes goes out in one write. Those of one connection stand
 * beside one another and are woken together: what they write leaves together, too. After a round over many, requests
 * get as much time as it has taken, before the next: at most half of the loop's time goes into watches, and the more of them there
 * are, the more changes each of their writes carries.
 */
#define FAN_SLICE 64
#define FAN_PAUSE_MAX_MS 5

static __thread struct {
	struct fiber *fiber;
	struct waitq q;
	struct cache_watch *head, *tail;
	size_t n;
	bool stop;
} fan;

static void due_remove(struct cache_watch *w)
{
	if (!w->due)
		return;
	w->due = false;
	fan.n--;
	*(w->due_prev ? &w->due_prev->due_next : &fan.head) = w->due_next;
	*(w->due_next ? &w->due_next->due_prev : &fan.tail) = w->due_prev;
}

static void due_add(struct cache_watch *w)
{
	w->waiting = false;
	if (w->due)
		return;
	w->due = true;
	w->due_next = NULL;
	w->due_prev = fan.tail;
	*(fan.tail ? &fan.tail->due_next : &fan.head) = w;
	fan.tail = w;
	fan.n++;
	waitq_wake_all(&fan.q);
}

/* Those due now, once each. */
static void fan_round(void)
{
	for (size_t left = fan.n; left && fan.head;) {
		const void *group = fan.head->group;
		for (int i = 0; i < FAN_SLICE && left && fan.head; i++, left--) {
			struct cache_watch *w = fan.head;
			if (i >= FAN_SLICE / 2 && w->group != group)
				break;
			group = w->group;
			due_remove(w);
			if (fan.head) {
				__builtin_prefetch(fan.head->q.head, 1);
				__builtin_prefetch(fan.head->due_next, 1);
				__builtin_prefetch((const char *)fan.head->due_next + 128, 1);
			}
			waitq_wake_all(&w->q);
		}
		fiber_yield_io();
	}
}

static void fan_out(void *arg)
{
	struct error *e = NULL;
	while (!fan.stop && !e) {
		if (!fan.head) {
			e = waitq_wait(&fan.q);
			continue;
		}
		bool many = fan.n > FAN_SLICE;
		int64_t start = many ? now_ns() : 0;
		fan_round();
		int64_t took = many ? (now_ns() - start) / 1000000 : 0;
		if (took)
			e = fiber_sleep(took < FAN_PAUSE_MAX_MS ? took : FAN_PAUSE_MAX_MS);
	}
	error_free(e);
}

void fan_out_start(void)
{
	if (fan.fiber)
		return;
	fan.stop = false;
	fan.fiber = fiber_start("cache-fan-out", fan_out, NULL);
}

void fan_out_stop(void)
{
	fan.stop = true;
	fiber_stop(fan.fiber);
	fan.fiber = NULL;
}

static void watch_wake(struct cache_watch *w)
{
	w->waiting = false;
	due_remove(w);
	waitq_wake_all(&w->q);
}

/* Whether the object was, and is, of those watched; false: neither. seq: the event's. */
static bool ask(struct cache_watch *w, const struct ev *e, uint64_t seq, bool *was, bool *is)
{
	const struct cache_entry *any = e->cur ? e->cur : e->prev;
	if (w->asked_seq != seq + 1) {
		bool here = !w->ns.n || str_eq(cache_entry_ns(any), w->ns), all = !w->filter.labels && !w->filter.fields;
		if (w->name.n) {
			here = here && str_eq(cache_entry_name(any), w->name);
			all = true;
		}
		w->asked_was = here && e->prev && (all || entry_matches(&w->c->r, e->prev, &w->filter));
		w->asked_is = here && e->cur && (all || entry_matches(&w->c->r, e->cur, &w->filter));
		w->asked_seq = seq + 1;
	}
	*was = w->asked_was;
	*is = w->asked_is;
	return *was || *is;
}

static bool concerns(struct cache_watch *w, const struct ev *e, uint64_t seq)
{
	bool was, is;
	return ask(w, e, seq, &was, &is);
}

static void chan_push(struct chan *ch, uint64_t seq)
{
	if (ch->next - ch->first == ch->cap) {
		size_t cap = ch->cap ? ch->cap * 2 : 16;
		uint64_t *seqs = xmalloc(cap * sizeof(*seqs));
		for (uint64_t i = ch->first; i < ch->next; i++)
			seqs[i & (cap - 1)] = ch->seqs[i & (ch->cap - 1)];
		free(ch->seqs);
		ch->seqs = seqs;
		ch->cap = cap;
	}
	ch->seqs[ch->next++ & (ch->cap - 1)] = seq;
}

static void offer(struct cache_watch *list, const struct ev *e, uint64_t seq, uint64_t pos)
{
	for (struct cache_watch *w = list; w; w = w->next) {
		if (w->next) {
			__builtin_prefetch(w->next, 1);
			__builtin_prefetch((const char *)w->next + 64, 1);
		}
		if (!w->waiting)
			continue;
		if (concerns(w, e, seq))
			due_add(w);
		else
			w->pos = pos + 1;
	}
}

static void chan_offer(struct cache *c, struct str node, const struct ev *e, uint64_t seq)
{
	struct chan *ch = node.n ? map_get(&c->nodes, node) : NULL;
	if (!ch)
		return;
	/* What the ring has dropped is of no use here either. */
	while (ch->first < ch->next && ch->seqs[ch->first & (ch->cap - 1)] < c->first_seq)
		ch->first++;
	chan_push(ch, seq);
	offer(ch->watchers, e, seq, ch->next - 1);
}

void ring_push(struct cache *c, int64_t rev, struct cache_entry *cur, struct cache_entry *prev)
{
	int64_t now = now_ms();
	if (c->next_seq - c->first_seq == c->ring_cap) {
		size_t cap = c->ring_cap ? c->ring_cap * 2 : 64;
		struct ev *ring = xmalloc(cap * sizeof(*ring));
		for (uint64_t s = c->first_seq; s < c->next_seq; s++)
			ring[s & (cap - 1)] = *ring_at(c, s);
		free(c->ring);
		c->grown += c->ring_cap != 0;
		c->ring = ring;
		c->ring_cap = cap;
	}
	uint64_t seq = c->next_seq++;
	struct ev *e = ring_at(c, seq);
	*e = (struct ev){.rev = rev, .ms = now, .cur = cur, .prev = prev};
	c->event_bytes += ev_bytes(e);
	offer(c->watchers, e, seq, seq);
	if (c->nodes.n) {
		struct str a = cur ? entry_node(&c->r, cur) : STR_NULL, b = prev ? entry_node(&c->r, prev) : STR_NULL;
		chan_offer(c, a, e, seq);
		if (!str_eq(a, b))
			chan_offer(c, b, e, seq);
	}
	ring_trim(c, now);
}

static void list_each(struct cache *c, void (*fn)(struct cache_watch *w))
{
	struct cache_watch *next;
	for (struct cache_watch *w = c->watchers; w; w = next) {
		next = w->next;
		fn(w);
	}
	size_t it = 0;
	struct str node;
	void *v;
	while (map_next(&c->nodes, &it, &node, &v)) {
		for (struct cache_watch *w = ((struct chan *)v)->watchers; w; w = next) {
			next = w->next;
			fn(w);
		}
	}
}

static void expire(struct cache_watch *w)
{
	w->expired = true;
	watch_wake(w);
}

void ring_clear(struct cache *c, int64_t rev)
{
	while (c->first_seq < c->next_seq)
		ring_pop(c);
	c->oldest_rev = rev;
	list_each(c, expire);
}

static void last(struct cache_watch *w)
{
	w->last = true;
	watch_wake(w);
}

void cache_watches_end(struct cache *c)
{
	list_each(c, last);
}

static void orphan(struct cache_watch *w)
{
	w->c = NULL;
	w->chan = NULL;
	w->prev = w->next = NULL;
	watch_wake(w);
}

static void chan_free(void *v)
{
	struct chan *ch = v;

	free(ch->seqs);
	free(ch);
}

void watchers_end(struct cache *c)
{
	list_each(c, orphan);
	c->watchers = NULL;
	map_free(&c->groups);
	map_free_values(&c->nodes, chan_free);
}

void ring_free(struct cache *c)
{
	while (c->first_seq < c->next_seq)
		ring_pop(c);
	free(c->ring);
}

uint64_t ring_after(const struct cache *c, int64_t rev)
{
	uint64_t lo = c->first_seq, hi = c->next_seq;
	while (lo < hi) {
		uint64_t mid = (lo + hi) / 2;
		if (ring_at(c, mid)->rev <= rev)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct cache_entry *ev_gone(struct cache *c, struct ev *e)
{
	if (!e->gone) {
		e->gone = entry_at_rev(&c->r, e->prev, e->rev);
		c->event_bytes += entry_size(e->gone);
	}
	return e->gone;
}

/* ---- watches ---- */

struct str cache_event_head(enum cache_event_type t)
{
	switch (t) {
	case CACHE_ADDED:
		return STR("{\"type\":\"ADDED\",\"object\":");
	case CACHE_MODIFIED:
		return STR("{\"type\":\"MODIFIED\",\"object\":");
	case CACHE_DELETED:
		return STR("{\"type\":\"DELETED\",\"object\":");
	case CACHE_BOOKMARK:
		break;
	}
	return STR("{\"type\":\"BOOKMARK\",\"object\":");
}

/* The channel of a node, made (with the ring's events of it) for its first watcher. */
static struct chan *chan_of(struct cache *c, struct str node)
{
	struct chan *ch = map_get(&c->nodes, node);
	if (ch)
		return ch;
	ch = xcalloc(1, sizeof(*ch));
	map_set(&c->nodes, node, ch);
	for (uint64_t s = c->first_seq; s < c->next_seq; s++) {
		struct ev *e = ring_at(c, s);
		if ((e->cur && str_eq(entry_node(&c->r, e->cur), node)) || (e->prev && str_eq(entry_node(&c->r, e->prev), node)))
			chan_push(ch, s);
	}
	return ch;
}

/* Sets the cursor to the first event after rev. */
static struct error *seek(struct cache_watch *w, int64_t rev)
{
	struct cache *c = w->c;
	if (rev < c->oldest_rev)
		return error_status(410, "Expired", "too old resource version: %lld (%lld)", (long long)rev, (long long)c->oldest_rev);
	uint64_t seq = ring_after(c, rev);
	w->rev = rev;
	w->pos = seq;
	if (w->chan) {
		uint64_t lo = w->chan->first, hi = w->chan->next;
		while (lo < hi) {
			uint64_t mid = (lo + hi) / 2;
			if (w->chan->seqs[mid & (w->chan->cap - 1)] < seq)
				lo = mid + 1;
			else
				hi = mid;
		}
		w->pos = lo;
	}
	return NULL;
}

/* x where the filter is metadata.name=x alone, as kubelets watch what pods mount. */
static struct str only_name(const struct cache_filter *f)
{
	struct str key, value, more;
	bool neg;
	if (f->labels || !field_selector_get(f->fields, 0, &key, &value, &neg) || neg || !str_eqz(key, "metadata.name"))
		return STR_NULL;
	return field_selector_get(f->fields, 1, &key, &more, &neg) ? STR_NULL : value;
}

static struct str group_key(const struct cache_watch *w)
{
	return str_of((const char *)&w->group, sizeof(w->group));
}

/* Behind the watcher of its group that came last, or first of all. */
static void link_watch(struct cache_watch *w)
{
	struct cache *c = w->c;
	struct cache_watch **at = w->chan ? &w->chan->watchers : &c->watchers;
	if (!w->chan && w->group && (w->prev = map_set(&c->groups, group_key(w), w)))
		at = &w->prev->next;
	w->next = *at;
	if (w->next)
		w->next->prev = w;
	*at = w;
	c->n_watchers++;
}

static void unlink_watch(struct cache_watch *w)
{
	struct cache *c = w->c;
	if (!c)
		return;
	if (!w->chan && w->group && map_get(&c->groups, group_key(w)) == w) {
		if (w->prev && w->prev->group == w->group)
			map_set(&c->groups, group_key(w), w->prev);
		else
			map_del(&c->groups, group_key(w));
	}
	if (w->prev)
		w->prev->next = w->next;
	else if (w->chan)
		w->chan->watchers = w->next;
	else
		c->watchers = w->next;
	if (w->next)
		w->next->prev = w->prev;
	c->n_watchers--;
	if (w->chan && !w->chan->watchers) {
		map_del(&c->nodes, w->node);
		chan_free(w->chan);
	}
	w->c = NULL;
}

struct error *cache_watch_open(struct cache *c, const struct cache_watch_opts *o, struct cache_watch **out)
{
	*out = NULL;
	struct cache_snap *snap = NULL;
	if (c->unready)
		return cache_whole(c);
	if (o->initial)
		TRY(cache_snapshot(c, o->mode, o->rev, &snap));
	struct cache_watch *w = xcalloc(1, sizeof(*w));
	w->c = c;
	/* One allocation for both copies. */
	struct str node = filter_node(&c->r, &o->filter);
	w->ns_p = xmalloc(o->ns.n + node.n + 1);
	if (o->ns.n)
		memcpy(w->ns_p, o->ns.p, o->ns.n);
	if (node.n)
		memcpy(w->ns_p + o->ns.n, node.p, node.n);
	w->ns = str_of(w->ns_p, o->ns.n);
	w->node = str_of(w->ns_p + o->ns.n, node.n);
	w->filter = o->filter;
	w->name = only_name(&w->filter);
	w->chan = node.n ? chan_of(c, w->node) : NULL;
	w->group = o->group;
	link_watch(w);
	struct error *e = seek(w, snap ? snap->rev : o->rev);
	if (e) {
		cache_snap_free(snap);
		cache_watch_close(w);
		return e;
	}
	w->begun = w->chan ? w->chan->next : c->next_seq;
	if (snap) {
		w->initial = xmalloc(sizeof(*w->initial));
		w->initial->snap = snap;
		w->initial->end = o->initial_end;
		cache_iter_init(&w->initial->it, c, snap, w->ns, STR(""), &w->filter);
	} else {
		c->initial += w->begun - w->pos;
	}
	int64_t now = now_ms();
	w->end_ms = o->timeout_ms > 0 ? now + o->timeout_ms : 0;
	/* Spread: watchers that came together shall not all be due together. */
	w->bookmark_ms = o->bookmarks ? now + BOOKMARK_MS - (int64_t)(random_u64() % (BOOKMARK_MS / 8)) : 0;
	w->last_bookmark = o->timeout_ms <= BOOKMARK_END_MS; /* too short for one before its end */
	*out = w;
	return NULL;
}

static struct ev *peek_event(struct cache_watch *w, uint64_t *seq)
{
	struct cache *c = w->c;
	if (w->chan) {
		if (w->pos == w->chan->next)
			return NULL;
		*seq = w->pos < w->chan->first ? 0 : w->chan->seqs[w->pos & (w->chan->cap - 1)];
	} else {
		if (w->pos == c->next_seq)
			return NULL;
		*seq = w->pos;
	}
	return *seq < c->first_seq ? NULL : ring_at(c, *seq);
}

/* Whether the watcher missed events: its next one has left the ring. */
static bool fell_behind(const struct cache_watch *w)
{
	if (w->expired)
		return true;
	if (!w->chan)
		return w->pos < w->c->first_seq;
	return w->pos < w->chan->first ||
	       (w->pos < w->chan->next && w->chan->seqs[w->pos & (w->chan->cap - 1)] < w->c->first_seq);
}

static void let_go(struct cache_watch *w)
{
	cache_entry_unref(w->held);
	w->held = NULL;
	forms_unref(w->forms);
	w->forms = NULL;
}

/* Gives ev to the reader as its selectors see it; false when it is nothing to them. */
static bool give(struct cache_watch *w, struct ev *e, uint64_t seq, struct cache_event *out)
{
	struct cache *c = w->c;
	bool was, is;
	if (!ask(w, e, seq, &was, &is))
		return false;
	enum cache_event_type t = !was ? CACHE_ADDED : is ? CACHE_MODIFIED : CACHE_DELETED;
	w->held = cache_entry_ref(is ? e->cur : ev_gone(c, e));
	if (!e->forms) {
		e->forms = xcalloc(1, sizeof(*e->forms));
		e->forms->refs = 1;
	}
	w->forms = e->forms;
	w->forms->refs++;
	w->rev = e->rev;
	*out = (struct cache_event){.type = t, .rev = e->rev, .obj = w->held, .forms = w->forms->slots[t]};
	return true;
}

static void initial_free(struct cache_watch *w)
{
	if (w->initial && w->c)
		w->c->initial += w->initial->it.looked;
	if (w->initial)
		cache_snap_free(w->initial->snap);
	free(w->initial);
	w->initial = NULL;
}

static bool next_initial(struct cache_watch *w, struct cache_event *out)
{
	const struct cache_entry *e = cache_iter_next(&w->initial->it);
	if (e) {
		w->held = cache_entry_ref((struct cache_entry *)e);
		*out = (struct cache_event){.type = CACHE_ADDED, .rev = e->rev, .obj = e};
		return true;
	}
	bool end = w->initial->end;
	w->rev = w->initial->snap->rev;
	initial_free(w);
	if (!end)
		return false;
	*out = (struct cache_event){.type = CACHE_BOOKMARK, .rev = w->rev, .initial_end = true};
	return true;
}

/* What is there to give without waiting. */
static bool next_now(struct cache_watch *w, struct cache_event *out)
{
	if (w->initial && next_initial(w, out))
		return true;
	uint64_t seq;
	struct ev *e;
	while (!fell_behind(w) && (e = peek_event(w, &seq))) {
		w->pos++;
		if (e->rev > w->rev && give(w, e, seq, out))
			return true;
	}
	return false;
}

struct error *cache_watch_next(struct cache_watch *w, struct cache_event *out)
{
	let_go(w);
	due_remove(w);
	*out = (struct cache_event){0};
	for (;;) {
		if (!w->c)
			return error_sys(ECANCELED, "the resource is served no more");
		TRY(fiber_check());
		/* Time is looked at before each wait, and now and then between events that come without an end. */
		if (w->turns++ % 32 && next_now(w, out))
			return NULL;
		int64_t now = now_ms();
		if (w->end_ms && now >= w->end_ms)
			return error_sys(ETIMEDOUT, "the watch has reached its timeout");
		if (next_now(w, out))
			return NULL;
		if (w->last)
			return error_sys(ECANCELED, "the resource has changed");
		if (fell_behind(w)) {
			w->c->left_behind += !w->expired;
			return error_status(410, "Expired", "too old resource version: %lld (%lld)", (long long)w->rev,
					    (long long)w->c->oldest_rev);
		}
		bool ending = w->bookmark_ms && w->end_ms && !w->last_bookmark && now >= w->end_ms - BOOKMARK_END_MS;
		if (w->bookmark_ms && (ending || now >= w->bookmark_ms)) {
			w->last_bookmark |= ending;
			w->bookmark_ms = now + BOOKMARK_MS;
			int64_t rev = cache_rev(w->c);
			if (rev > w->rev) {
				w->rev = rev;
				*out = (struct cache_event){.type = CACHE_BOOKMARK, .rev = rev};
				return NULL;
			}
			continue;
		}
		int64_t until = w->end_ms ? w->end_ms : INT64_MAX;
		if (w->bookmark_ms && w->bookmark_ms < until)
			until = w->bookmark_ms;
		if (w->bookmark_ms && w->end_ms && !w->last_bookmark && w->end_ms - BOOKMARK_END_MS < until)
			until = w->end_ms - BOOKMARK_END_MS;
		w->waiting = true;
		struct error *e = until == INT64_MAX ? waitq_wait(&w->q) : waitq_wait_ms(&w->q, until > now ? until - now : 1);
		w->waiting = false;
		if (e && error_is_sys(e, ETIMEDOUT) && now_ms() >= until) {
			error_free(e);
			continue;
		}
		TRY(e);
	}
}

bool cache_watch_ready(struct cache_watch *w)
{
	if (!w->c || w->expired || w->last)
		return true;
	if (w->initial) {
		struct cache_iter ahead = w->initial->it;
		if (w->initial->end || cache_iter_next(&ahead))
			return true;
	}
	uint64_t seq;
	struct ev *e;
	/* Passes over what does not concern it, as next would. */
	while (!fell_behind(w) && (e = peek_event(w, &seq))) {
		if (e->rev > w->rev && concerns(w, e, seq))
			return true;
		if (w->initial)
			break; /* next has to come first */
		w->pos++;
	}
	return fell_behind(w);
}

bool cache_watch_begun(struct cache_watch *w)
{
	return (!w->initial && w->pos >= w->begun) || !cache_watch_ready(w);
}

void cache_watch_close(struct cache_watch *w)
{
	if (!w)
		return;
	let_go(w);
	due_remove(w);
	initial_free(w);
	unlink_watch(w);
	free(w->ns_p);
	free(w);
}
