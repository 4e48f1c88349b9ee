/*
 * The watch cache's feed, reads and writes.
 */
#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "apiserver/cache_internal.h"
#include "base/log.h"

#define WAIT_MS 3000          /* upstream's blockTimeout */
#define OLD_SNAP_MS 75000
#define TRIM_MS 30000
#define HELD_MS 30000         /* upstream's MaxInternalErrorRetryDuration */

static struct tkey main_key(struct str key)
{
	return (struct tkey){STR_NULL, key};
}

static struct str make_key(char *to, size_t cap, struct str prefix, struct str ns, struct str name)
{
	size_t n = 0;
	if (prefix.n + ns.n + 1 + name.n > cap)
		return STR_NULL;
	memcpy(to, prefix.p, prefix.n);
	n = prefix.n;
	if (ns.n) {
		memcpy(to + n, ns.p, ns.n);
		n += ns.n;
		to[n++] = '/';
	}
	if (name.n)
		memcpy(to + n, name.p, name.n);
	return str_of(to, n + name.n);
}

static struct error *object_key(const struct cache *c, struct str ns, struct str name, char buf[STORE_KEY_MAX], struct str *key)
{
	*key = make_key(buf, STORE_KEY_MAX, c->r.prefix, ns, name);
	if (!key->p || !name.n || (ns.n != 0) != c->r.namespaced)
		return error_status(400, "BadRequest", "%.*s: no object can have the namespace \"%.*s\" and the name \"%.*s\"",
				    STR_ARG(c->r.kind), STR_ARG(ns), STR_ARG(name));
	return NULL;
}

/* ---- the trees ---- */

static void snap_unref(struct cache_snap *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	tree_free(&s->main);
	tree_free(&s->node);
	free(s);
}

void cache_snap_free(struct cache_snap *s)
{
	snap_unref(s);
}

static struct cache_snap *snap_ref(struct cache_snap *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

static struct cache_snap *snap_new(const struct tree *main, const struct tree *node, bool has_node, int64_t rev)
{
	struct cache_snap *s = xmalloc(sizeof(*s));
	*s = (struct cache_snap){.refs = 1, .rev = rev, .main = tree_ref(main), .node = tree_ref(node), .has_node = has_node};
	return s;
}

/* Puts e into (or, e NULL, removes key from) both trees; returns the reference of the entry it replaces. */
struct cache_entry *trees_set(const struct cache_resource *r, struct tree *main, struct tree *node, struct str key,
			      struct cache_entry *e)
{
	struct cache_entry *old = e ? tree_put(main, e) : tree_del(main, main_key(key));
	if (r->node_field < 0)
		return old;
	struct str was = old ? entry_node(r, old) : STR_NULL, is = e ? entry_node(r, e) : STR_NULL;
	if (was.n && !str_eq(was, is))
		cache_entry_unref(tree_del(node, (struct tkey){was, key}));
	if (is.n)
		cache_entry_unref(tree_put(node, e));
	return old;
}

static void set_current(struct cache *c, struct str key, struct cache_entry *e, struct cache_entry **old)
{
	/* The shared snapshot of the newest revision is stale now; without readers it would only make us copy nodes. */
	snap_unref(c->snap);
	c->snap = NULL;
	*old = trees_set(&c->r, &c->main, &c->node, key, e);
	size_t before = c->object_bytes + c->entry_bytes;
	if (e) {
		c->object_bytes += e->body->n;
		c->entry_bytes += e->bytes;
	}
	if (*old) {
		c->object_bytes -= (*old)->body->n;
		c->entry_bytes -= (*old)->bytes;
	}
	hot_holding((ptrdiff_t)(c->object_bytes + c->entry_bytes - before));
}

/* ---- what cannot be read ---- */

#define UNREADABLE_MAX 10000 /* more look as if they were not there */
struct unreadable {
	bool sealed; /* not opened; else it is no object */
	char why[];
};

static void unreadable_del(struct map *m, struct str key)
{
	if (m->n)
		free(map_del(m, key));
}

void unreadable_set(struct map *m, struct str key, struct error *err)
{
	unreadable_del(m, key);
	if (m->n < UNREADABLE_MAX) {
		size_t n = strlen(error_message(err)) + 1;
		struct unreadable *u = xmalloc(sizeof *u + n);
		u->sealed = error_is(err, 500, "InternalError");
		memcpy(u->why, error_message(err), n);
		map_set(m, key, u);
	}
	log_and_free(err, "cache: an object is left out");
}

/* ---- feed ---- */

/*
 * An error: it cannot be read. While all else can, the cache stands still before it, for a while: it may be readable again (its key comes
 * back). Where others are unreadable already, and lists and watches refused, it is another one of them.
 */
static struct error *apply(struct cache *c, struct store_event *ev, bool may_wait)
{
	struct str key = str_sub(ev->kv.key, c->r.prefix.n, ev->kv.key.n);
	int64_t rev = ev->kv.mod_rev;
	struct cache_entry *e = NULL, *old = tree_get(&c->main, main_key(key));
	if (rev > c->load_rev)
		unreadable_del(&c->unreadable, key);
	if (rev <= c->load_rev || (old && old->rev >= rev) || (ev->is_delete && !old))
		return NULL; /* the load has it */
	if (!ev->is_delete) {
		struct str stored = block_str(ev->kv.value);
		struct error *err = ev->cookie ? entry_new(&c->r, key, rev, stored, block_str(ev->cookie), &e) :
						 entry_decode(&c->r, key, rev, stored, may_wait, &e);
		if (err && (!c->unreadable.n || error_is_sys(err, EAGAIN)))
			return err;
		if (err) {
			c->failed++;
			unreadable_set(&c->unreadable, key, err);
			return NULL;
		}
		old = tree_get(&c->main, main_key(key)); /* the one before may have gone meanwhile */
	}
	set_current(c, key, e, &old);
	ring_push(c, rev, e, old);
	return NULL;
}

static void relist(void *arg);
static void hold(struct cache *c, struct store_event *ev);

/* Between two tries; true: the cache is being closed. */
static bool wait_again(struct cache *c, int64_t *ms)
{
	struct error *e = fiber_sleep(*ms);
	bool end = e || c->closing;
	error_free(e);
	*ms = *ms < 5000 ? *ms * 2 : 10000;
	return end;
}

static void lost(struct cache *c)
{
	c->broken = true;
	if (c->closing || c->relisting)
		return;
	c->relisting = true;
	if (c->relister)
		fiber_join(c->relister); /* it has ended */
	c->relister = fiber_start("cache-relist", relist, c);
}

static void drain(void *arg)
{
	struct cache *c = arg;
	while (!c->broken && !c->holding) {
		struct store_event ev;
		bool got;
		struct error *e = store_watch_poll(c->feed, &ev, &got, NULL);
		if (e) {
			c->broken = true;
			if (!error_is_sys(e, ECANCELED) && !c->closing && !c->relisting) {
				log_warn("cache: %.*s: %s; listing again", STR_ARG(c->r.prefix), e->message);
				lost(c);
			}
			error_free(e);
			return;
		}
		if (!got)
			return;
		e = apply(c, &ev, false);
		if (e) {
			error_free(e);
			hold(c, &ev);
			return;
		}
		store_event_free(&ev);
	}
}

/* Asks again until the held event can be read; then goes on with what has come behind it. In vain for half a minute: lists again. */
static void hold_on(void *arg)
{
	struct cache *c = arg;
	do {
		int64_t ms = 100, until = now_ms() + (c->r.held_ms ? c->r.held_ms : HELD_MS);
		struct error *e;
		while ((e = apply(c, &c->held, true))) {
			bool end = now_ms() >= until;
			log_and_free(e, end ? "cache: listing again" : "cache: what follows waits for this");
			if (end)
				lost(c);
			if (end || wait_again(c, &ms))
				break;
			ms = ms < until - now_ms() ? ms : until - now_ms() + 1;
		}
		store_event_free(&c->held);
		c->holding = false;
		if (!c->closing)
			drain(c);
	} while (c->holding);
	c->holder_runs = false;
	waitq_wake_all(&c->held_wait);
}

/* Takes the event. Events behind it stay in the feed, which has a limit of its own. */
static void hold(struct cache *c, struct store_event *ev)
{
	c->held = *ev;
	c->holding = true;
	if (c->holder_runs)
		return; /* it has called us */
	if (c->holder)
		fiber_join(c->holder); /* it has ended */
	c->holder_runs = true;
	c->holder = fiber_start("cache-hold", hold_on, c);
}

void cache_called(const struct cache *c, enum cache_call call, int64_t since_ns, size_t n, const struct error *e)
{
	if (c->r.called)
		c->r.called(c->r.called_ctx, call, now_ns() - since_ns, n, e != NULL);
}

static struct str prefix_end(const struct cache *c, char buf[STORE_KEY_MAX])
{
	memcpy(buf, c->r.prefix.p, c->r.prefix.n);
	buf[c->r.prefix.n - 1]++;
	return str_of(buf, c->r.prefix.n);
}

/* Opens the feed, then reads everything at a revision no older: what the feed says up to there is passed over. */
static struct error *load(struct cache *c)
{
	char end[STORE_KEY_MAX];
	struct str p = c->r.prefix;
	if (!p.n || p.n >= STORE_KEY_MAX - 1 || p.p[p.n - 1] != '/')
		return error_new("cache: \"%.*s\" is no key prefix: it has to end with '/'", STR_ARG(p));
	struct store_watch *feed;
	TRY(store_watch_open(c->s, p, prefix_end(c, end), store_revision(c->s), &feed));
	struct load l = {.c = c, .main = {.by = -1}, .node = {.by = c->r.node_field}};
	int64_t rev = 0;
	struct error *e = load_all(&l, p, prefix_end(c, end), &rev);
	if (e) {
		load_drop(&l);
		store_watch_close(feed);
		return e;
	}
	store_watch_close(c->feed);
	tree_free(&c->main);
	tree_free(&c->node);
	snap_unref(c->snap);
	c->snap = NULL;
	for (size_t i = 0; i < sizeof(c->old) / sizeof(*c->old); i++) {
		snap_unref(c->old[i].snap);
		c->old[i].snap = NULL;
	}
	c->feed = feed;
	c->main = l.main;
	c->node = l.node;
	if (!c->unreadable.n)
		c->unwhole_ms = now_ms();
	map_free_values(&c->unreadable, free);
	c->unreadable = l.unreadable;
	hot_holding((ptrdiff_t)(l.object_bytes + l.entry_bytes) - (ptrdiff_t)(c->object_bytes + c->entry_bytes));
	c->object_bytes = l.object_bytes;
	c->entry_bytes = l.entry_bytes;
	c->load_rev = rev;
	c->broken = false;
	ring_clear(c, rev);
	store_watch_notify(feed, drain, c);
	drain(c);
	return NULL;
}

static void set_unready(struct cache *c, const struct error *e)
{
	c->unready = xstrdup(e->message);
	c->unwhole_ms = now_ms();
}

static void relist(void *arg)
{
	struct cache *c = arg;
	int64_t ms = 100;
	/* Watchers learn at once; lists wait for nothing and get what there is. */
	ring_clear(c, INT64_MAX);
	while (!c->closing) {
		struct error *e = load(c);
		if (!e && !c->broken) {
			free(c->unready);
			c->unready = NULL;
			break;
		}
		bool end = error_is_sys(e, ECANCELED);
		if (error_is_sys(e, EAGAIN) && !c->unready)
			set_unready(c, e);
		log_and_free(e, "cache: %.*s: listing again", STR_ARG(c->r.prefix));
		if (end || wait_again(c, &ms))
			break;
	}
	c->relisting = false;
}

/* ---- one trimmer for all caches of a loop ---- */

static __thread struct cache *caches;
static __thread struct fiber *trimmer;
static __thread struct waitq trim_wait;

static void exact_tick(struct cache *c, int64_t now)
{
	if (c->exact.marked_ms && now - c->exact.marked_ms < store_history_ms(c->s))
		return;
	c->exact.rev = c->exact.next_rev;
	c->exact.next_rev = cache_rev(c);
	c->exact.marked_ms = now;
}

static void trim_loop(void *arg)
{
	for (;;) {
		int64_t interval = caches ? store_history_ms(caches->s) : TRIM_MS;
		struct error *e = waitq_wait_ms(&trim_wait, interval < TRIM_MS ? interval : TRIM_MS);
		bool end = !caches || (e && !error_is_sys(e, ETIMEDOUT));
		error_free(e);
		if (end)
			return;
		int64_t now = now_ms();
		size_t before = 0, after = 0;
		for (struct cache *c = caches; c; c = c->next_cache) {
			exact_tick(c, now);
			before += c->event_bytes;
			ring_trim(c, now);
			after += c->event_bytes;
			for (size_t i = 0; i < sizeof(c->old) / sizeof(*c->old); i++) {
				struct cache_snap *s = c->old[i].snap;
				if (s && (now - c->old[i].used_ms > OLD_SNAP_MS || s->rev < c->exact.rev)) {
					snap_unref(c->old[i].snap);
					c->old[i].snap = NULL;
				}
			}
		}
		if (before - after + hot_sweep(false) > 1u << 20)
			malloc_trim(0);
	}
}

/* ---- life ---- */

struct error *cache_new(struct store *s, const struct cache_resource *r, struct cache **out)
{
	*out = NULL;
	if (r->n_fields > CACHE_FIELDS_MAX || r->node_field >= (int)r->n_fields)
		return error_new("cache: %.*s: more than %d selectable fields", STR_ARG(r->prefix), CACHE_FIELDS_MAX);
	struct cache *c = xcalloc(1, sizeof(*c));
	c->r = *r;
	paths_init(&c->paths, r);
	c->r.paths = &c->paths;
	c->s = s;
	c->main.by = -1;
	c->node.by = r->node_field;
	struct error *e = load(c);
	if (e && !(r->late && error_is_sys(e, EAGAIN))) {
		free(c);
		return error_wrap(e, "cache: %.*s", STR_ARG(r->prefix));
	}
	if (e) {
		set_unready(c, e);
		lost(c);
		error_free(e);
	}
	c->next_cache = caches;
	caches = c;
	fan_out_start();
	if (!trimmer)
		trimmer = fiber_start("cache-trim", trim_loop, NULL);
	*out = c;
	return NULL;
}

bool cache_loaded(const struct cache *c)
{
	return !c->unready;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	c->closing = true;
	fiber_stop(c->relister);
	fiber_stop(c->holder);
	free(c->unready);
	map_free_values(&c->unreadable, free);
	struct cache **p = &caches;
	while (*p != c)
		p = &(*p)->next_cache;
	*p = c->next_cache;
	hot_holding(-(ptrdiff_t)(c->object_bytes + c->entry_bytes));
	if (!caches) {
		hot_sweep(true);
		fan_out_stop();
		waitq_wake_all(&trim_wait);
		fiber_stop(trimmer);
		trimmer = NULL;
	}
	watchers_end(c);
	store_watch_close(c->feed);
	snap_unref(c->snap);
	for (size_t i = 0; i < sizeof(c->old) / sizeof(*c->old); i++)
		snap_unref(c->old[i].snap);
	ring_free(c);
	tree_free(&c->main);
	tree_free(&c->node);
	free(c);
}

const struct cache_resource *cache_resource(const struct cache *c)
{
	return &c->r;
}

int64_t cache_rev(const struct cache *c)
{
	/* drain() runs whenever there is something, so all the store has shown is here. */
	int64_t seen = c->broken ? 0 : store_revision(c->s);
	if (c->holding && seen >= c->held.kv.mod_rev)
		seen = c->held.kv.mod_rev - 1;
	return seen > c->load_rev ? seen : c->load_rev;
}

size_t cache_count(const struct cache *c)
{
	return tree_count(&c->main);
}

size_t cache_bytes(const struct cache *c)
{
	return c->object_bytes;
}

void cache_stats(const struct cache *c, struct cache_stats *out)
{
	*out = (struct cache_stats){.objects = cache_count(c),
				    .watchers = c->n_watchers,
				    .received = c->next_seq,
				    .initial = c->initial,
				    .left_behind = c->left_behind,
				    .unreadable = c->failed,
				    .capacity = c->ring_cap,
				    .grown = c->grown,
				    .shrunk = c->shrunk,
				    .events = (size_t)(c->next_seq - c->first_seq),
				    .object_bytes = c->object_bytes,
				    .hot_bytes = hot_bytes(),
				    .index_bytes = c->entry_bytes + tree_bytes(&c->main) + tree_bytes(&c->node),
				    .event_bytes = c->event_bytes,
				    .oldest_rev = c->oldest_rev};
}

/* ---- reads ---- */

static struct error *too_large(int64_t rev, int64_t current)
{
	struct error *e = error_status(504, "Timeout", "Too large resource version: %lld, current: %lld", (long long)rev, (long long)current);

	error_add_cause(e, "ResourceVersionTooLarge", "", "Too large resource version");
	return e;
}

static struct error *wait_for(struct cache *c, int64_t rev)
{
	if (cache_rev(c) >= rev)
		return NULL;
	int64_t d = deadline_push(WAIT_MS);
	struct error *e = store_wait_seen(c->s, rev, WAIT_MS);
	while (!e && c->holding && cache_rev(c) < rev)
		e = waitq_wait(&c->held_wait);
	deadline_pop(d);
	if (e && !error_is_sys(e, ETIMEDOUT))
		return e;
	error_free(e);
	if (cache_rev(c) >= rev)
		return NULL;
	e = too_large(rev, cache_rev(c));
	e->retry_after_seconds = 1;
	return e;
}

struct error *cache_has_come_to(const struct cache *c, int64_t rev)
{
	int64_t current = cache_rev(c);

	if (current < rev)
		TRY(store_current(c->s, &current));
	return current < rev ? too_large(rev, current) : NULL;
}

static struct error *wait_mode(struct cache *c, enum cache_mode mode, int64_t rev)
{
	if (c->unready)
		return error_status(500, "InternalError", "%s", c->unready);
	if (mode == CACHE_CONSISTENT)
		TRY(store_current(c->s, &rev));
	return mode == CACHE_ANY ? NULL : wait_for(c, rev);
}

/* The same, and told of where somebody wants to know. */
static struct error *wait_told(struct cache *c, enum cache_mode mode, int64_t rev)
{
	struct error *e;
	int64_t since = 0;

	if (mode == CACHE_ANY || !c->r.waited)
		return wait_mode(c, mode, rev);
	if (mode == CACHE_CONSISTENT || cache_rev(c) < rev)
		since = now_ns();
	e = wait_mode(c, mode, rev);
	c->r.waited(c->r.called_ctx, since ? now_ns() - since : 0);
	return e;
}

/* As upstream has it, only what cannot be opened has a reason. */
static struct error *unreadable_as(bool sealed, const char *why)
{
	return sealed ? error_status(500, "InternalError", "Internal error occurred: %s", why) : error_status(500, "", "%s", why);
}

static struct error *unreadable_error(const struct unreadable *u)
{
	return unreadable_as(u->sealed, u->why);
}

/* The object as the store has it now. Waits. */
static struct error *get_stored(const struct cache *c, struct str ns, struct str name, struct cache_entry **out)
{
	char buf[STORE_KEY_MAX];
	struct str key = make_key(buf, sizeof buf, c->r.prefix, ns, name);
	struct store_kv kv;
	struct error *e, *told;
	bool found;

	if (!key.p)
		return NULL;
	TRY(store_get(c->s, key, 0, &found, &kv));
	if (!found)
		return NULL;
	e = entry_decode(&c->r, str_sub(key, c->r.prefix.n, key.n), kv.mod_rev, block_str(kv.value), true, out);
	store_kv_free(&kv);
	if (!e)
		return NULL;
	told = unreadable_as(error_is_sys(e, EAGAIN) || error_is(e, 500, "InternalError"), error_message(e));
	error_free(e);
	return told;
}

/* That nobody can read it does not mean it has gone: who looks for owners must not take it for that. */
static struct error *unreadable_told(const struct cache *c, struct str ns, struct str name)
{
	char buf[STORE_KEY_MAX];
	struct str key = make_key(buf, sizeof buf, STR(""), ns, name);
	const struct unreadable *u = key.p ? map_get(&c->unreadable, key) : NULL;

	return u ? unreadable_error(u) : NULL;
}

/* Upstream's: e^(0.06 s), from 1 to 30. */
static int32_t retry_after(int64_t since_ms)
{
	double s = exp(0.06 * (double)(now_ms() - since_ms) / 1000);

	return s < 1 ? 1 : s > 30 ? 30 : (int32_t)s;
}

struct error *cache_readable(const struct cache *c)
{
	size_t it = 0;
	struct str key;
	void *u;

	if (c->unready)
		return error_status(500, "InternalError", "Internal error occurred: %s", c->unready);
	return map_next(&c->unreadable, &it, &key, &u) ? unreadable_error(u) : NULL;
}

struct error *cache_whole(const struct cache *c)
{
	size_t it = 0;
	struct str key;
	const char *why = c->unready;
	struct error *e;
	void *u;

	if (!why && !map_next(&c->unreadable, &it, &key, &u))
		return NULL;
	e = error_status(429, "TooManyRequests", "storage is (re)initializing: %s", why ? why : ((const struct unreadable *)u)->why);
	e->retry_after_seconds = retry_after(c->unwhole_ms);
	return e;
}

struct error *cache_get(struct cache *c, struct str ns, struct str name, enum cache_mode mode, int64_t rev, struct cache_entry **out)
{
	*out = NULL;
	if (mode == CACHE_EXACT)
		return error_status(400, "BadRequest", "an exact resourceVersion is only for lists");
	/* the newest state of one object is upstream's store's to answer; so it is here when the cache stands still */
	if (c->unready || (c->holding && mode == CACHE_CONSISTENT))
		return get_stored(c, ns, name, out);
	TRY(mode == CACHE_CONSISTENT ? wait_mode(c, mode, rev) : wait_told(c, mode, rev));
	if (c->unreadable.n)
		TRY(unreadable_told(c, ns, name));
	struct cache_entry *e = (struct cache_entry *)cache_peek(c, ns, name);
	if (e)
		*out = cache_entry_ref(e);
	return NULL;
}

const struct cache_entry *cache_peek(const struct cache *c, struct str ns, struct str name)
{
	char buf[STORE_KEY_MAX];
	struct str key = make_key(buf, sizeof(buf), STR(""), ns, name);
	return key.p ? tree_get(&c->main, main_key(key)) : NULL;
}

static struct cache_snap *current_snap(struct cache *c)
{
	int64_t rev = cache_rev(c);
	if (c->snap && c->snap->rev == rev)
		return snap_ref(c->snap);
	snap_unref(c->snap);
	c->snap = snap_new(&c->main, &c->node, c->r.node_field >= 0, rev);
	return snap_ref(c->snap);
}

int64_t cache_oldest_exact(const struct cache *c)
{
	return c->oldest_rev > c->exact.rev ? c->oldest_rev : c->exact.rev;
}

/* From before this cache began, or what its ring has no more: read from the store, which has it until it is compacted. Waits. */
static struct error *past_snap(struct cache *c, int64_t rev, struct cache_snap **out)
{
	char end[STORE_KEY_MAX];
	struct load l = {.c = c, .main = {.by = -1}, .node = {.by = c->r.node_field}};
	struct error *e = fiber_mutex_lock(&c->past_lock); /* one at a time: each takes as much memory as the objects do */
	struct str key;
	size_t it = 0;
	void *u;
	if (e)
		return e;
	e = load_all(&l, c->r.prefix, prefix_end(c, end), &rev);
	fiber_mutex_unlock(&c->past_lock);
	if (error_is_sys(e, EAGAIN)) {
		struct error *told = unreadable_as(true, e->message);
		error_free(e);
		e = told;
	}
	if (!e && map_next(&l.unreadable, &it, &key, &u))
		e = unreadable_error(u);
	if (!e)
		*out = snap_new(&l.main, &l.node, c->r.node_field >= 0, rev);
	load_drop(&l);
	return e;
}

/* The newest state with the events after rev undone, from the nearest known snapshot. */
static struct error *exact_snap(struct cache *c, int64_t rev, struct cache_snap **out)
{
	for (size_t i = 0; i < sizeof(c->old) / sizeof(*c->old); i++) {
		if (c->old[i].snap && c->old[i].snap->rev == rev) {
			c->old[i].used_ms = now_ms();
			*out = snap_ref(c->old[i].snap);
			return NULL;
		}
	}
	if (rev < 1 || rev < c->exact.rev)
		return error_status(410, "Expired", "The resourceVersion for the provided list is too old.");
	if (rev < c->oldest_rev)
		return past_snap(c, rev, out);
	const struct tree *main = &c->main, *node = &c->node;
	uint64_t from = c->next_seq, to = ring_after(c, rev);
	for (size_t i = 0; i < sizeof(c->old) / sizeof(*c->old); i++) {
		struct cache_snap *s = c->old[i].snap;
		if (!s || s->rev < rev)
			continue;
		uint64_t after = ring_after(c, s->rev);
		if (after < from) {
			from = after;
			main = &s->main;
			node = &s->node;
		}
	}
	struct cache_snap *s = snap_new(main, node, c->r.node_field >= 0, rev);
	for (uint64_t seq = from; seq-- > to;) {
		struct ev *ev = ring_at(c, seq);
		struct str key = cache_entry_key(ev->cur ? ev->cur : ev->prev);
		cache_entry_unref(trees_set(&c->r, &s->main, &s->node, key, ev->prev));
	}
	cache_snap_keep(c, s);
	*out = s;
	return NULL;
}

void cache_snap_keep(struct cache *c, struct cache_snap *s)
{
	size_t slot = 0;
	for (size_t i = 0; i < sizeof(c->old) / sizeof(*c->old); i++) {
		if (c->old[i].snap && c->old[i].snap->rev == s->rev) {
			c->old[i].used_ms = now_ms();
			return;
		}
		if (c->old[slot].snap && (!c->old[i].snap || c->old[i].used_ms < c->old[slot].used_ms))
			slot = i; /* a free or the least used one */
	}
	snap_unref(c->old[slot].snap);
	c->old[slot].snap = snap_ref(s);
	c->old[slot].used_ms = now_ms();
}

struct error *cache_snapshot(struct cache *c, enum cache_mode mode, int64_t rev, struct cache_snap **out)
{
	*out = NULL;
	struct error *e = wait_told(c, mode, rev);
	if (e && mode == CACHE_CONSISTENT && c->holding) {
		error_free(e);
		return past_snap(c, 0, out); /* as it is in the store */
	}
	TRY(e);
	if (mode == CACHE_EXACT && rev != cache_rev(c))
		return exact_snap(c, rev, out);
	*out = current_snap(c);
	return NULL;
}

int64_t cache_snap_rev(const struct cache_snap *s)
{
	return s->rev;
}

/* [lo, hi) of a namespace's keys; buf holds "ns/" and is changed to "ns0" for hi. */
static struct str ns_bound(char buf[STORE_KEY_MAX], struct str ns, bool end)
{
	struct str k = make_key(buf, STORE_KEY_MAX, STR(""), ns, STR(""));
	if (end && k.n)
		buf[k.n - 1] = '/' + 1;
	return k;
}

size_t cache_snap_count(const struct cache_snap *s, struct str ns, struct str after)
{
	char lo_buf[STORE_KEY_MAX], hi_buf[STORE_KEY_MAX];
	struct str lo = ns_bound(lo_buf, ns, false), hi = ns_bound(hi_buf, ns, true);
	size_t from = tree_rank(&s->main, main_key(lo)), to = ns.n ? tree_rank(&s->main, main_key(hi)) : tree_count(&s->main);
	if (after.n) {
		size_t a = tree_rank(&s->main, main_key(after)) + (tree_get(&s->main, main_key(after)) != NULL);
		from = a > from ? a : from;
	}
	return to > from ? to - from : 0;
}

void cache_iter_init(struct cache_iter *it, const struct cache *c, const struct cache_snap *s, struct str ns, struct str after,
		     const struct cache_filter *f)
{
	char buf[STORE_KEY_MAX];
	*it = (struct cache_iter){.snap = s, .cache = c, .ns = ns};
	if (f)
		it->filter = *f;
	it->node = s->has_node && c ? filter_node(&c->r, f) : STR_NULL;
	it->by_node = it->node.n != 0;
	struct str from = ns_bound(buf, ns, false);
	bool skip = after.n && str_cmp(after, from) >= 0;
	if (skip)
		from = after;
	struct tkey k = {it->node, from};
	tree_seek(it->by_node ? &s->node : &s->main, k, it);
	if (skip) {
		const struct tree *t = it->by_node ? &s->node : &s->main;
		if (tree_get(t, k))
			tree_next(it);
	}
}

static bool in_range(const struct cache_iter *it, const struct cache_entry *e)
{
	return (!it->by_node || str_eq(entry_node(&it->cache->r, e), it->node)) && (!it->ns.n || str_eq(cache_entry_ns(e), it->ns));
}

const struct cache_entry *cache_iter_next(struct cache_iter *it)
{
	const struct cache_entry *e;
	while ((e = tree_next(it))) {
		const struct tnode *leaf = it->path[it->depth - 1].node;
		/* Where the last one of a leaf belongs to the range, all behind the range's first do. */
		if (leaf != it->inside) {
			if (in_range(it, leaf->e[leaf->n - 1]))
				it->inside = leaf;
			else if (!in_range(it, e))
				break;
		}
		it->looked++;
		if ((!it->filter.labels && !it->filter.fields) || entry_matches(&it->cache->r, e, &it->filter))
			return e;
	}
	it->depth = 0;
	return NULL;
}

/* ---- writes ---- */

/* The entry our write of rev made: from the ring, where the feed has put it by now. */
static struct ev *written(struct cache *c, int64_t rev)
{
	uint64_t seq = ring_after(c, rev - 1);
	struct ev *ev = seq < c->next_seq ? ring_at(c, seq) : NULL;
	return ev && ev->rev == rev ? ev : NULL;
}

static struct error *what_is_there(struct cache *c, struct str key, struct store_kv *now, struct cache_entry **out)
{
	if (!now->mod_rev)
		return NULL;
	struct cache_entry *e = tree_get(&c->main, main_key(key));
	if (e && e->rev == now->mod_rev) {
		*out = cache_entry_ref(e);
		return NULL;
	}
	struct error *err = entry_decode(&c->r, key, now->mod_rev, block_str(now->value), true, out), *told;
	if (!err || error_is_sys(err, EAGAIN))
		return err;
	told = error_status(500, "InternalError", "Internal error occurred: %s", error_message(err));
	error_free(err);
	return told;
}

struct error *cache_stored(struct cache *c, const struct cache_entry *e, struct buf *out)
{
	char buf[STORE_KEY_MAX];
	struct str key;
	bool found;
	struct store_kv now;
	struct error *err;
	TRY(object_key(c, cache_entry_ns(e), cache_entry_name(e), buf, &key));
	TRY(store_get(c->s, key, 0, &found, &now));
	if (!found)
		return NULL;
	err = NULL;
	if (now.mod_rev == e->rev && c->r.plain)
		err = c->r.plain(c->r.ctx, cache_entry_key(e), block_str(now.value), true, out);
	else if (now.mod_rev == e->rev)
		buf_str(out, block_str(now.value));
	store_kv_free(&now);
	return err;
}

/* With a store elsewhere the event may come after the answer. */
static void wait_written(struct cache *c, int64_t rev)
{
	if (store_revision(c->s) >= rev)
		return;
	fiber_shield_begin();
	struct error *e = store_wait_seen(c->s, rev, WAIT_MS);
	fiber_shield_end();
	if (e)
		log_v(2, "cache: %.*s: %s", STR_ARG(c->r.prefix), e->message);
	error_free(e);
}

struct error *cache_put(struct cache *c, struct str ns, struct str name, int64_t expect, struct str stored, struct str plain,
			int64_t lease, unsigned flags, bool *ok, struct cache_entry **out)
{
	char buf[STORE_KEY_MAX];
	struct str key;
	int64_t rev;
	struct store_kv now;
	*ok = false;
	*out = NULL;
	TRY(object_key(c, ns, name, buf, &key));
	if (!plain.n)
		plain = stored;
	struct block *cookie = c->r.plain || c->r.complete ? block_new(plain) : NULL; /* an event of ours needs no decoding */
	int64_t since = now_ns();
	struct error *e = store_put(c->s, key, stored, expect, lease, flags, cookie, ok, &rev, &now);
	cache_called(c, expect ? CACHE_CALL_UPDATE : CACHE_CALL_CREATE, since, 1, e);
	key = str_sub(key, c->r.prefix.n, key.n);
	if (!e && *ok) {
		wait_written(c, rev);
		struct ev *ev = written(c, rev);
		if (ev && ev->cur)
			*out = cache_entry_ref(ev->cur);
		else
			e = entry_new(&c->r, key, rev, stored, c->r.plain ? plain : stored, out);
	} else if (!e) {
		e = what_is_there(c, key, &now, out);
		if (!expect && e && !error_is_sys(e, EAGAIN))
			error_clear(&e); /* it is there: what it is does not matter to who wants to make it */
	}
	store_kv_free(&now);
	block_unref(cookie);
	return e;
}

struct error *cache_delete(struct cache *c, struct str ns, struct str name, int64_t expect, bool *ok, struct cache_entry **out)
{
	char buf[STORE_KEY_MAX];
	struct str key;
	int64_t rev;
	struct store_kv now;
	*ok = false;
	*out = NULL;
	TRY(object_key(c, ns, name, buf, &key));
	struct cache_entry *was = NULL;
	if (c->holding || c->unready)
		TRY(get_stored(c, ns, name, &was));
	else if ((was = (struct cache_entry *)cache_peek(c, ns, name)))
		cache_entry_ref(was);
	int64_t since = now_ns();
	struct error *e = store_delete(c->s, key, expect, ok, &rev, &now);
	cache_called(c, CACHE_CALL_DELETE, since, 1, e);
	key = str_sub(key, c->r.prefix.n, key.n);
	if (!e && *ok) {
		wait_written(c, rev);
		struct ev *ev = written(c, rev);
		if (ev && ev->prev)
			*out = cache_entry_ref(ev_gone(c, ev));
		else if (was)
			*out = entry_at_rev(&c->r, was, rev);
		else
			e = error_status(500, "InternalError", "%.*s%.*s was deleted, but could not be read before", STR_ARG(c->r.prefix),
					 STR_ARG(key));
	} else if (!e) {
		e = what_is_there(c, key, &now, out);
	}
	store_kv_free(&now);
	cache_entry_unref(was);
	return e;
}
