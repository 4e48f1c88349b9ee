/*
 * The embedded engine: one LMDB file, one commit thread.
 *
 * Tables: keys (key -> struct key_rec, a tombstone until its delete is
 * compacted), log (revision, big-endian -> struct log_rec, key, value: every
 * version that history still needs; the newest version of each live key is
 * never removed), leases (id -> ttl), and in the main table "~format" and
 * "~state".
 *
 * A version points at the one before it (prev), so a read at an old revision
 * walks that chain; compaction walks the log once, and for each record past
 * which history is forgotten removes the record it replaced.
 *
 * Writers put a struct op into the queue and suspend. The committer fiber
 * hands all that wait to the commit thread, which evaluates them in order in
 * one LMDB transaction and commits it once; then the fiber publishes: raises
 * the revision, offers the events to the watches, wakes the writers. LMDB
 * syncs data, then the header page that points to it.
 *
 * A commit does not bring the table of keys up to date each time: what it
 * lacks is in `behind` (memory) and, after a crash, read from the log's end.
 *
 * STORE_NOSYNC writes live in `dirty` (memory) until they are flushed. Only
 * publishing changes `dirty` and `behind`, and no batch runs then, so the commit thread
 * and the loop both read it without locks.
 *
 * Revisions after a crash: a NOSYNC write may use revisions only up to
 * state.ceiling, which is on disk; an unclean start goes on from there, so that
 * no revision is ever given twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/io.h"
#include "store/embedded.h"

/* ---- commit thread ---- */

static void batch_back(void *arg)
{
	struct embedded *em = arg;
	em->batch_done = true;
	waitq_wake_all(&em->batch_wait);
}

static void *commit_thread(void *arg)
{
	struct embedded *em = arg;
	pthread_setname_np(pthread_self(), "commit");
	pthread_mutex_lock(&em->mu);
	for (;;) {
		while (!em->handed && !em->quit)
			pthread_cond_wait(&em->cond, &em->mu);
		struct batch *b = em->handed;
		em->handed = NULL;
		if (!b)
			break;
		pthread_mutex_unlock(&em->mu);
		run_batch(b);
		loop_post(em->loop, batch_back, em);
		pthread_mutex_lock(&em->mu);
	}
	pthread_mutex_unlock(&em->mu);
	return NULL;
}

static void hand_over(struct embedded *em, struct batch *b)
{
	em->batch_done = false;
	pthread_mutex_lock(&em->mu);
	em->handed = b;
	pthread_cond_signal(&em->cond);
	pthread_mutex_unlock(&em->mu);
	fiber_shield_begin();
	while (!em->batch_done)
		error_free(waitq_wait(&em->batch_wait)); /* shielded: never fails */
	fiber_shield_end();
}

static uint64_t file_used(struct embedded *em)
{
	MDB_envinfo info;
	return mdb_env_info(em->env, &info) ? 0 : (uint64_t)(info.me_last_pgno + 1) * 4096;
}

/* ---- publishing ---- */

static struct lease *lease_find(struct embedded *em, int64_t id)
{
	return map_get(&em->leases, str_of((const char *)&id, sizeof(id)));
}

static void lease_free(struct lease *l)
{
	map_free(&l->keys);
	free(l);
}

static void lease_add(struct embedded *em, int64_t id, int64_t ttl_ms)
{
	struct lease *l = xcalloc(1, sizeof(*l));
	*l = (struct lease){.id = id, .ttl_ms = ttl_ms, .deadline = now_ms() + ttl_ms};
	map_set(&em->leases, str_of((const char *)&id, sizeof(id)), l);
}

static void lease_move(struct embedded *em, struct str key, int64_t from, int64_t to)
{
	if (from == to)
		return;
	struct lease *l = from ? lease_find(em, from) : NULL;
	if (l)
		map_del(&l->keys, key);
	l = to ? lease_find(em, to) : NULL;
	if (l)
		map_set(&l->keys, key, l);
}

static void publish_op(struct embedded *em, struct op *op, struct hub_event **events, size_t *n)
{
	if (op->kind == OP_GRANT && op->ok)
		lease_add(em, op->lease, op->lease_ttl);
	if (op->kind == OP_REVOKE) {
		struct lease *l = lease_find(em, op->lease);
		if (l && l->keys.n) { /* got one in this very batch: the lease fiber deletes it */
			l->deadline = 0;
			waitq_wake_all(&em->lease_wait);
		} else if (l) {
			map_del(&em->leases, str_of((const char *)&op->lease, sizeof(op->lease)));
			lease_free(l);
		}
	}
	if ((op->kind != OP_PUT && op->kind != OP_DELETE) || !op->ok)
		return;
	int64_t had = op->now.version ? op->now.mod : 0;
	em->live_keys += (op->kind == OP_PUT) - (had != 0);
	lease_move(em, op->key, had ? op->now.lease : 0, op->made.lease);
	struct store_event e = {.is_delete = op->kind == OP_DELETE, .prev_rev = had};
	e.kv = (struct store_kv){.key = str_of(str_dupz(op->key), op->key.n), .create_rev = op->made.create, .mod_rev = op->rev,
				 .version = op->made.version, .lease = op->made.lease};
	if (op->value)
		e.kv.value = block_ref(op->value);
	if (op->cookie)
		e.cookie = block_ref(op->cookie);
	events[(*n)++] = hub_event_new(e);
}

static void merge_fresh(struct embedded *em, struct batch *b)
{
	size_t it = 0;
	struct str key;
	void *v;
	int64_t now = now_ms();
	while (map_next(&b->fresh, &it, &key, &v)) {
		struct dirty *d = v;
		if (d->gone) {
			dirty_free(map_del(&em->dirty, key));
			dirty_free(d);
			continue;
		}
		dirty_free(map_set(&em->dirty, key, d));
	}
	if (b->flushed || !em->dirty.n || !em->dirty_since)
		em->dirty_since = em->dirty.n ? now : 0;
}

static void merge_written(struct embedded *em, struct batch *b)
{
	size_t it = 0;
	struct str key;
	void *v;
	if (b->committed && b->index)
		key_recs_free(&em->behind);
	while (map_next(&b->written, &it, &key, &v))
		free(map_set(&em->behind, key, v));
	map_free(&b->written);
}

static void fresh_free(struct batch *b, bool values)
{
	size_t it = 0;
	struct str key;
	void *v;
	while (values && map_next(&b->fresh, &it, &key, &v))
		dirty_free(v);
	map_free(&b->fresh);
}

static void age_sample(struct embedded *em)
{
	size_t cap = sizeof(em->ages) / sizeof(*em->ages);
	int64_t now = now_ms(), step = em->s.history_ms / 32 < AGE_SAMPLE_MS ? em->s.history_ms / 32 : AGE_SAMPLE_MS;
	struct age *last = em->age_n ? &em->ages[(em->age_head + em->age_n - 1) % cap] : NULL;
	if (!last || now - last->ms >= step) {
		if (em->age_n == cap) {
			em->age_head = (em->age_head + 1) % cap;
			em->age_n--;
		}
		em->ages[(em->age_head + em->age_n++) % cap] = (struct age){now, em->s.hub.rev};
	}
	while (em->age_n && now - em->ages[em->age_head].ms >= em->s.history_ms) {
		if (em->ages[em->age_head].rev > em->compacted)
			em->compacted = em->ages[em->age_head].rev;
		em->age_head = (em->age_head + 1) % cap;
		em->age_n--;
	}
}

/* Dirty versions still have to enter the log: compaction, which passes each record once, must not overtake them. */
static int64_t compact_target(struct embedded *em)
{
	int64_t to = em->compacted;
	size_t it = 0;
	struct str key;
	void *v;
	if (to > em->state.compacted)
		while (map_next(&em->dirty, &it, &key, &v))
			if (((struct dirty *)v)->k.mod <= to)
				to = ((struct dirty *)v)->k.mod - 1;
	return to;
}

static void reserve(struct embedded *em, uint64_t used)
{
	if (used + RESERVE_BYTES <= em->allocated) {
		em->disk_full = false;
		return;
	}
	/* From where it ended the last time: a walk over the whole of a large file takes long. */
	uint64_t from = em->allocated, to = used + GROW_BYTES;
	int rc = fallocate(em->data_fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
	if (rc && (errno == ENOSPC || errno == EDQUOT)) { /* the last bit, then */
		to = used + RESERVE_BYTES;
		rc = fallocate(em->data_fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
	}
	if (!rc) {
		em->allocated = to;
		em->disk_full = false;
	} else if (errno == ENOSPC || errno == EDQUOT) {
		if (!em->disk_full)
			log_error("store: no space left on the disk of %s: writes are refused until there is some", em->dir);
		em->disk_full = true;
	} else {
		em->allocated = UINT64_MAX; /* a file system without fallocate: LMDB's own ENOSPC must do */
	}
}

static void finish(struct op *op)
{
	op->done = true;
	waitq_wake_all(&op->wait);
}

static void publish(struct embedded *em, struct batch *b)
{
	if (b->committed)
		em->commits++;
	struct hub_event **events = b->n ? xmalloc(b->n * sizeof(*events)) : NULL;
	size_t n = 0;
	if (b->err) {
		bool first = true;
		for (struct op *op = b->ops; op; op = op->next) {
			if (op->err)
				continue;
			block_unref(op->now_value);
			op->now_value = NULL;
			op->ok = false;
			op->err = error_status(b->err->status, b->err->reason, "%s", b->err->message);
			op->err->sys = b->err->sys;
			first = false;
		}
		if (first) /* nobody to tell */
			log_error("%s", b->err->message);
		error_clear(&b->err);
		b->flushed = false;
		fresh_free(b, true);
		key_recs_free(&b->written);
		em->disk_full = em->disk_full || em->allocated != UINT64_MAX;
		em->allocated = em->allocated == UINT64_MAX ? UINT64_MAX : 0; /* look again before the next put */
	} else {
		em->state = b->committed ? b->state : em->state;
		em->log_last = b->committed ? b->log_last : em->log_last;
		em->format = b->committed ? STORE_FORMAT : em->format;
		merge_written(em, b);
		merge_fresh(em, b);
		fresh_free(b, false);
		for (struct op *op = b->ops; op; op = op->next)
			if (!op->err)
				publish_op(em, op, events, &n);
		if (b->file_bytes)
			reserve(em, b->file_bytes);
	}
	struct op *ops = b->ops;
	hub_publish(&em->s.hub, events, n, b->rev * (n != 0));
	free(events);
	for (struct op *op = ops, *next; op; op = next) {
		next = op->next; /* op is gone once its writer runs */
		finish(op);
	}
	age_sample(em);
}

/* ---- the committer ---- */

/* Free pages inside the file, which need no room on the disk. Walks LMDB's free list: only asked when the disk is full. */
static uint64_t file_free(struct embedded *em)
{
	MDB_txn *txn;
	MDB_cursor *cur;
	MDB_val k, v;
	uint64_t pages = 0;
	if (mdb_txn_begin(em->env, NULL, MDB_RDONLY, &txn))
		return 0;
	if (!mdb_cursor_open(txn, 0 /* the free list's table */, &cur)) {
		while (!mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
			size_t n;
			memcpy(&n, v.mv_data, sizeof(n));
			pages += n;
		}
		mdb_cursor_close(cur);
	}
	mdb_txn_abort(txn);
	return pages * 4096;
}

static void take_batch(struct embedded *em, struct batch *b)
{
	size_t bytes = 0;
	struct op **end = &b->ops;
	bool puts = false;
	while (em->head && b->n < BATCH_OPS && bytes < BATCH_BYTES) {
		struct op *op = em->head;
		em->head = op->next;
		op->next = NULL;
		*end = op;
		end = &op->next;
		b->n++;
		bytes += op->value ? op->value->n : 0;
		puts |= op->kind == OP_PUT;
		b->flush |= op->kind == OP_SYNC;
	}
	if (!em->head)
		em->tail = &em->head;
	if (puts && (em->disk_full || !em->allocated))
		reserve(em, file_used(em));
	if (!em->disk_full)
		return;
	/* History is the first thing to go. Puts may use what that and deletes free, but for the deletes' own reserve. */
	em->compacted = em->s.hub.rev;
	b->compact_to = compact_target(em);
	if (file_free(em) >= FREE_BYTES + 4 * bytes)
		return;
	for (struct op *op = b->ops; op; op = op->next)
		if (op->kind == OP_PUT)
			op->err = error_status(507, "InsufficientStorage",
					       "no space left on the store's disk: the write was not done; free some space and try again");
}

static void commit_loop(void *arg)
{
	struct embedded *em = arg;
	for (;;) {
		int64_t now = now_ms(), wake = now + 3600000;
		age_sample(em);
		if (em->dirty.n && em->dirty_since + DIRTY_MAX_MS < wake)
			wake = em->dirty_since + DIRTY_MAX_MS;
		if (em->age_n && em->ages[em->age_head].ms + em->s.history_ms < wake)
			wake = em->ages[em->age_head].ms + em->s.history_ms;
		bool due = em->dirty.n && now >= em->dirty_since + DIRTY_MAX_MS;
		int64_t to = compact_target(em);
		bool compact = to - em->state.compacted > COMPACT_IDLE;
		if (!em->head && !due && !compact) {
			if (em->closing)
				break;
			bool touched = em->touched || em->commits - em->trimmed_commits >= TRIM_COMMITS;
			int64_t trim = (em->touched ? em->touched_at : now) + TRIM_MS;
			if (touched && trim < wake)
				wake = trim;
			struct error *e = waitq_wait_ms(&em->work, wake > now ? wake - now : 1);
			if (e && !error_is_sys(e, ETIMEDOUT))
				em->closing = true; /* cancelled with the loop */
			else if (e && touched && now_ms() >= trim && now_ms() - em->touched_at >= TRIM_MS)
				map_trim(em);
			error_free(e);
			continue;
		}
		struct batch b = {.em = em, .flush = due, .rev = em->s.hub.rev, .state = em->state, .log_last = em->log_last, .compact_to = to};
		b.sync_dirty = em->dirty.n && now - em->dirty_since >= DIRTY_SYNC_MS;
		take_batch(em, &b);
		hand_over(em, &b);
		publish(em, &b);
	}
	struct batch b = {.em = em, .clean = true, .rev = em->s.hub.rev, .state = em->state, .log_last = em->log_last, .compact_to = compact_target(em)};
	hand_over(em, &b);
	publish(em, &b);
}

static struct error *submit(struct embedded *em, struct op *op)
{
	if (em->closing)
		return error_status(503, "ServiceUnavailable", "the store is closing");
	op->next = NULL;
	*em->tail = op;
	em->tail = &op->next;
	waitq_wake_one(&em->work);
	/* The commit thread reads op, which is on our stack. */
	fiber_shield_begin();
	while (!op->done)
		error_free(waitq_wait(&op->wait));
	fiber_shield_end();
	return op->err;
}

static struct error *write_op(struct embedded *em, struct op *op, bool *ok, int64_t *rev, struct store_kv *now)
{
	struct error *e = submit(em, op);
	*ok = op->ok;
	*rev = op->rev;
	if (!e && !op->ok && now && op->now.version) {
		*now = (struct store_kv){.key = str_of(str_dupz(op->key), op->key.n), .value = op->now_value,
					 .create_rev = op->now.create, .mod_rev = op->now.mod, .version = op->now.version,
					 .lease = op->now.lease};
		op->now_value = NULL;
	}
	block_unref(op->now_value);
	return e;
}

static struct error *em_put(struct store *s, struct str key, struct str value, int64_t expect, int64_t lease, unsigned flags,
			    struct block *cookie, bool *ok, int64_t *rev, struct store_kv *now)
{
	struct embedded *em = of(s);
	if (lease && !lease_find(em, lease))
		return error_status(404, "NotFound", "store: there is no lease %lld", (long long)lease);
	struct op op = {.kind = OP_PUT, .key = key, .value = block_new(value), .cookie = cookie, .expect = expect, .lease = lease,
			.flags = flags};
	struct error *e = write_op(em, &op, ok, rev, now);
	block_unref(op.value);
	return e;
}

static struct error *em_delete(struct store *s, struct str key, int64_t expect, bool *ok, int64_t *rev, struct store_kv *now)
{
	struct op op = {.kind = OP_DELETE, .key = key, .expect = expect};
	return write_op(of(s), &op, ok, rev, now);
}

/* ---- leases ---- */

static struct error *em_grant(struct store *s, int64_t ttl_ms, int64_t *id)
{
	struct embedded *em = of(s);
	if (em->leases.n >= LEASES_MAX)
		return error_status(429, "TooManyRequests", "store: %d leases are open already", LEASES_MAX);
	struct op op = {.kind = OP_GRANT, .lease_ttl = ttl_ms};
	do
		op.lease = (int64_t)(random_u64() >> 1);
	while (!op.lease || lease_find(em, op.lease));
	TRY(submit(em, &op));
	*id = op.lease;
	waitq_wake_all(&em->lease_wait);
	return NULL;
}

static struct error *em_keepalive(struct store *s, int64_t id)
{
	struct lease *l = lease_find(of(s), id);
	if (!l)
		return error_status(404, "NotFound", "store: there is no lease %lld", (long long)id);
	l->deadline = now_ms() + l->ttl_ms;
	return NULL;
}

static struct error *em_revoke(struct store *s, int64_t id)
{
	struct embedded *em = of(s);
	struct lease *l = lease_find(em, id);
	if (!l)
		return error_status(404, "NotFound", "store: there is no lease %lld", (long long)id);
	/* A key may get the lease while others are being deleted: until none is left. */
	while ((l = lease_find(em, id)) && l->keys.n) {
		size_t it = 0, n = 0;
		struct str key;
		void *v;
		struct str keys[256];
		while (n < 256 && map_next(&l->keys, &it, &key, &v))
			keys[n++] = str_of(str_dupz(key), key.n);
		struct error *e = NULL;
		for (size_t i = 0; i < n; i++) {
			struct op op = {.kind = OP_DELETE, .key = keys[i], .expect = STORE_ANY, .if_lease = id};
			bool ok;
			int64_t rev;
			if (!e)
				e = write_op(em, &op, &ok, &rev, NULL);
			if (!e && !ok && (l = lease_find(em, id)))
				map_del(&l->keys, keys[i]); /* it has another lease, or went */
			free((char *)keys[i].p);
		}
		TRY(e);
	}
	struct op op = {.kind = OP_REVOKE, .lease = id};
	return submit(em, &op);
}

static int64_t expire_leases(struct embedded *em)
{
	int64_t now = now_ms(), next = now + 3600000;
	for (;;) {
		size_t it = 0;
		struct str key;
		void *v;
		int64_t due = 0;
		next = now + 3600000;
		while (!due && map_next(&em->leases, &it, &key, &v)) {
			struct lease *l = v;
			if (l->deadline <= now)
				due = l->id;
			else if (l->deadline < next)
				next = l->deadline;
		}
		if (!due)
			return next - now;
		struct error *e = em_revoke(&em->s, due);
		if (e) {
			log_and_free(e, "store: ending lease %lld", (long long)due);
			struct lease *l = lease_find(em, due);
			if (l)
				l->deadline = now + 10000; /* a full disk, say: again later */
		}
		if (em->closing)
			return 0;
	}
}

static void lease_loop(void *arg)
{
	struct embedded *em = arg;
	while (!em->closing) {
		int64_t ms = expire_leases(em);
		if (em->closing)
			break;
		struct error *e = waitq_wait_ms(&em->lease_wait, ms > 0 ? ms : 1);
		bool end = e && !error_is_sys(e, ETIMEDOUT);
		error_free(e);
		if (end)
			break;
	}
}

/* ---- maintenance ---- */

static struct error *em_compact(struct store *s, int64_t rev)
{
	struct embedded *em = of(s);
	if (rev > em->s.hub.rev)
		return error_status(400, "BadRequest", "store: cannot compact at the future revision %lld", (long long)rev);
	if (rev <= em->compacted)
		return NULL;
	em->compacted = rev;
	waitq_wake_all(&em->work); /* cleaning follows with the next commits */
	return NULL;
}

struct copy {
	MDB_env *env;
	int fd, rc;
};

static void copy_off_loop(void *arg)
{
	struct copy *c = arg;
	c->rc = mdb_env_copyfd2(c->env, c->fd, MDB_CP_COMPACT);
	if (!c->rc && fsync(c->fd))
		c->rc = errno;
}

static struct error *em_sync(struct store *s)
{
	struct op op = {.kind = OP_SYNC};

	return submit(of(s), &op);
}

static struct error *em_save(struct store *s, const char *path)
{
	struct embedded *em = of(s);
	TRY(em_sync(s)); /* what is dirty belongs to the copy */
	char *tmp = xasprintf("%s.part", path);
	struct copy c = {.env = em->env, .fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
	struct error *e = NULL;
	if (c.fd < 0) {
		e = error_sys(errno, "%s", tmp);
	} else {
		loop_offload(copy_off_loop, &c);
		if (c.rc > 0)
			e = error_sys(c.rc, "writing %s", tmp);
		else if (c.rc)
			e = lmdb_error(c.rc, "copying");
		if (close(c.fd) && !e)
			e = error_sys(errno, "writing %s", tmp);
		if (!e && rename(tmp, path))
			e = error_sys(errno, "%s", path);
		if (e)
			unlink(tmp);
	}
	free(tmp);
	return error_wrap(e, "saving the snapshot");
}

static void em_stats(struct store *s, struct store_stats *out)
{
	struct embedded *em = of(s);
	out->compacted = em->compacted;
	out->keys = em->live_keys;
	out->commits = out->syncs = em->commits;
	MDB_envinfo info;
	if (!mdb_env_info(em->env, &info)) {
		out->bytes_used = (int64_t)(info.me_last_pgno + 1) * 4096;
		out->bytes_map = (int64_t)info.me_mapsize;
	}
}

static void em_free(struct embedded *em)
{
	if (em->spare)
		mdb_txn_abort(em->spare);
	if (em->env)
		mdb_env_close(em->env);
	size_t it = 0;
	struct str key;
	void *v;
	while (map_next(&em->leases, &it, &key, &v))
		lease_free(v);
	map_free(&em->leases);
	it = 0;
	while (map_next(&em->dirty, &it, &key, &v))
		dirty_free(v);
	map_free(&em->dirty);
	key_recs_free(&em->behind);
	if (em->data_fd >= 0)
		close(em->data_fd);
	if (em->lock_fd >= 0)
		close(em->lock_fd);
	pthread_mutex_destroy(&em->mu);
	pthread_cond_destroy(&em->cond);
	free(em->dir);
	free(em);
}

static void em_close(struct store *s)
{
	struct embedded *em = of(s);
	em->closing = true;
	waitq_wake_all(&em->work);
	waitq_wake_all(&em->lease_wait);
	fiber_join(em->leaser);
	fiber_join(em->committer);
	pthread_mutex_lock(&em->mu);
	em->quit = true;
	pthread_cond_signal(&em->cond);
	pthread_mutex_unlock(&em->mu);
	pthread_join(em->thread, NULL);
	em_free(em);
}

static const struct store_ops embedded_ops = {
	.close = em_close, .current = em_current, .get = em_get, .range = em_range, .count = em_count, .put = em_put,
	.del = em_delete, .watch_check = em_watch_check, .history = em_history, .grant = em_grant,
	.keepalive = em_keepalive, .revoke = em_revoke, .sync = em_sync, .compact = em_compact, .save = em_save, .stats = em_stats,
};

/* ---- open ---- */

static struct error *lock_dir(struct embedded *em)
{
	char *path = xasprintf("%s/lock", em->dir);
	struct error *e = NULL;
	char text[32] = "";
	em->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (em->lock_fd < 0) {
		e = error_sys(errno, "%s", path);
	} else if (flock(em->lock_fd, LOCK_EX | LOCK_NB)) {
		ssize_t n = pread(em->lock_fd, text, sizeof(text) - 1, 0);
		if (n > 0 && text[n - 1] == '\n')
			text[n - 1] = 0;
		e = error_new("%s is in use by another API server (process %s): stop it first, or give another directory", em->dir,
			      n > 0 ? text : "unknown");
	} else {
		int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
		if (ftruncate(em->lock_fd, 0) || pwrite(em->lock_fd, text, (size_t)n, 0) != n)
			log_warn("store: %s: the process id could not be noted: %s", path, strerror(errno));
	}
	free(path);
	return e;
}

struct check_call {
	const char *path;
	struct error *e;
};

static void check_off_loop(void *arg)
{
	struct check_call *c = arg;
	c->e = lmdbfile_check(c->path);
}

static void load_key(struct embedded *em, struct str key, const struct key_rec *r)
{
	em->live_keys += r->version != 0;
	if (r->version && r->lease)
		lease_move(em, key, 0, r->lease);
}

static struct error *load(struct embedded *em, MDB_txn *txn)
{
	int rc;
	if ((rc = mdb_dbi_open(txn, NULL, 0, &em->main)) || (rc = mdb_dbi_open(txn, "keys", 0, &em->keys)) ||
	    (rc = mdb_dbi_open(txn, "log", 0, &em->log)) || (rc = mdb_dbi_open(txn, "leases", 0, &em->lease_t)))
		return lmdb_error(rc, "opening");
	MDB_cursor *cur;
	MDB_val k, v;
	int64_t last = 0;
	if ((rc = mdb_cursor_open(txn, em->log, &cur)))
		return lmdb_error(rc, "opening");
	rc = mdb_cursor_get(cur, &k, &v, MDB_LAST);
	if (!rc)
		last = rev_of(&k);
	mdb_cursor_close(cur);
	if (rc && rc != MDB_NOTFOUND)
		return lmdb_error(rc, "reading the log");
	struct format_record f;
	TRY(header_get(txn, em->main, last, &f, &em->state));
	em->format = f.format;
	em->cluster = f.cluster;
	TRY(store_log_tail(txn, em->log, em->state.indexed, &em->behind));
	em->log_last = last;
	if (em->state.compacted > last)
		last = em->state.compacted;
	em->compacted = em->state.compacted;
	em->s.hub.rev = last;
	if (em->state.clean_rev > last) {
		em->s.hub.rev = em->state.clean_rev;
	} else if (!em->state.clean_rev && em->state.ceiling > last) {
		em->gap_lo = last;
		em->gap_hi = em->s.hub.rev = em->state.ceiling;
	}
	if (!em->s.hub.rev)
		em->s.hub.rev = 1; /* as etcd: an empty store has revision 1 */

	if ((rc = mdb_cursor_open(txn, em->lease_t, &cur)))
		return lmdb_error(rc, "opening");
	while (!(rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT))) {
		int64_t id, ttl;
		if (k.mv_size != 8 || v.mv_size != 8)
			continue;
		memcpy(&id, k.mv_data, 8);
		memcpy(&ttl, v.mv_data, 8);
		lease_add(em, id, ttl);
	}
	mdb_cursor_close(cur);
	if (rc != MDB_NOTFOUND)
		return lmdb_error(rc, "reading the leases");

	if ((rc = mdb_cursor_open(txn, em->keys, &cur)))
		return lmdb_error(rc, "opening");
	while (!(rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT))) {
		struct key_rec r;
		if (v.mv_size != sizeof(r))
			continue;
		memcpy(&r, v.mv_data, sizeof(r));
		struct str key = str_of(k.mv_data, k.mv_size);
		if (!map_has(&em->behind, key))
			load_key(em, key, &r);
	}
	mdb_cursor_close(cur);
	if (rc != MDB_NOTFOUND)
		return lmdb_error(rc, "reading the keys");
	size_t it = 0;
	struct str key;
	void *p;
	while (map_next(&em->behind, &it, &key, &p))
		load_key(em, key, p);
	return NULL;
}

/* LMDB does not tell where it mapped the file; the kernel does. */
static void find_map(struct embedded *em)
{
	struct stat st;
	FILE *f = fopen("/proc/self/maps", "re");
	char line[4400];
	if (!f || fstat(em->data_fd, &st)) {
		if (f)
			fclose(f);
		return;
	}
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to, offset, inode;
		unsigned major_, minor_;
		char perms[8];
		if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu", &from, &to, perms, &offset, &major_, &minor_, &inode) == 7 &&
		    inode == st.st_ino && !offset && perms[3] == 's' && perms[1] == '-') {
			em->map = (void *)from;
			em->map_n = to - from;
		}
	}
	fclose(f);
}

/*
 * LMDB's table of readers and its mutexes live in a file, DATA-lock, that it maps and touches with each transaction: 8 KiB of disk
 * writes each time the kernel looks. One process has the store (lock_dir), so the file can be memory that goes with it: LMDB is
 * led there by a link of that name, which is taken away again. Where that does not work, it makes the file.
 */
static int lock_in_memory(const char *lock)
{
	char target[64];
	int fd = memfd_create("lmdb-lock", MFD_CLOEXEC);
	if (fd < 0)
		return -1;
	snprintf(target, sizeof(target), "/proc/self/fd/%d", fd);
	if ((unlink(lock) && errno != ENOENT) || access(target, R_OK | W_OK) || symlink(target, lock)) {
		close(fd);
		return -1;
	}
	return fd;
}

static struct error *open_env(struct embedded *em, const struct store_opts *o, const char *data)
{
	size_t map = o->map_size ? o->map_size : sizeof(void *) == 8 ? (size_t)64 << 30 : (size_t)1 << 30;
	int rc = mdb_env_create(&em->env);
	if (!rc)
		rc = mdb_env_set_maxdbs(em->env, 8);
	if (!rc)
		rc = mdb_env_set_mapsize(em->env, map);
	if (rc)
		return lmdb_error(rc, data);
	char *lock = xasprintf("%s-lock", data);
	int mem = lock_in_memory(lock);
	rc = mdb_env_open(em->env, data, MDB_NOSUBDIR | MDB_NOTLS, 0600);
	if (mem >= 0) {
		close(mem); /* LMDB has opened its own */
		if (unlink(lock) && !rc)
			rc = errno;
	} else if (!rc) {
		/* Mapped: on a full disk a hole in it would be a SIGBUS. */
		struct stat st;
		int fd = open(lock, O_RDWR | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st))
			rc = errno;
		else if ((rc = posix_fallocate(fd, 0, st.st_size)) == EOPNOTSUPP || rc == EINVAL)
			rc = 0;
		if (fd >= 0)
			close(fd);
	}
	free(lock);
	if (rc)
		return lmdb_error(rc, data);
	MDB_txn *txn;
	rc = mdb_txn_begin(em->env, NULL, MDB_RDONLY, &txn);
	if (rc)
		return lmdb_error(rc, "opening");
	struct error *e = load(em, txn);
	/* Committing a read transaction keeps its table handles. */
	if (e)
		mdb_txn_abort(txn);
	else if ((rc = mdb_txn_commit(txn)))
		e = lmdb_error(rc, "opening");
	if (!e && (em->data_fd = open(data, O_RDWR | O_CLOEXEC)) < 0)
		e = error_sys(errno, "%s", data);
	if (!e) {
		find_map(em);
		map_fill(em, file_used(em));
	}
	return e;
}

static struct error *open_dir(struct embedded *em, const struct store_opts *o)
{
	TRY(dir_make(o->dir, 0700));
	TRY(lock_dir(em));
	char *data = xasprintf("%s/data.mdb", em->dir);
	struct error *e = NULL;
	if (access(data, F_OK)) {
		if (errno != ENOENT)
			e = error_sys(errno, "%s", data);
		else
			e = lmdbfile_create(data, random_u64());
	} else {
		struct check_call c = {.path = data};
		loop_offload(check_off_loop, &c);
		e = c.e;
	}
	if (!e)
		e = open_env(em, o, data);
	free(data);
	return e;
}

struct error *embedded_open(const struct store_opts *o, struct store **out)
{
	struct embedded *em = xcalloc(1, sizeof(*em));
	em->s.ops = &embedded_ops;
	em->lock_fd = em->data_fd = -1;
	em->dir = xstrdup(o->dir);
	em->s.history_ms = o->history_ms > 0 ? o->history_ms : HISTORY_MS;
	em->tail = &em->head;
	em->loop = loop_self();
	pthread_mutex_init(&em->mu, NULL);
	pthread_cond_init(&em->cond, NULL);
	struct error *e = open_dir(em, o);
	int rc = e ? 0 : pthread_create(&em->thread, NULL, commit_thread, em);
	if (rc)
		e = error_sys(rc, "starting the commit thread");
	if (e) {
		em_free(em);
		return error_wrap(e, "opening the store");
	}
	age_sample(em);
	em->committer = fiber_start("store-commit", commit_loop, em);
	em->leaser = fiber_start("store-leases", lease_loop, em);
	*out = &em->s;
	return NULL;
}
