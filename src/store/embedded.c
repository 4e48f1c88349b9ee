/*
 * The embedded engine: one LMDB file, a write-ahead log before it, one commit thread.
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
 * hands all that wait to the commit thread, which evaluates them in order and
 * commits them once; then the fiber publishes: raises the revision, offers
 * the events to the watches, wakes the writers.
 *
 * A commit is a frame at the end of the write-ahead log (wal.c): one write,
 * one sync. Its records stay in memory (`tail`) until a checkpoint puts them
 * into the tables, with one LMDB transaction for many commits; so do leases,
 * compaction, and whatever finds no room in the log. After a crash the tail
 * is read from the log's file.
 *
 * STORE_NOSYNC writes live in `dirty` (memory) until they are flushed. Only
 * publishing changes `dirty` and `tail`, and no batch runs then, so the commit
 * thread and the loop both read them without locks. What the batch adds
 * (`added`) is the commit thread's alone while it runs.
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

/* ---- publishing ---- */

static struct lease *lease_find(struct embedded *em, int64_t id)
{
	return map_get(&em->leases, str_of((const char *)&id, sizeof(id)));
}

static void lease_free(void *lease)
{
	struct lease *l = lease;
	map_free(&l->keys);
	free(l);
}

void lease_add(struct embedded *em, int64_t id, int64_t ttl_ms)
{
	struct lease *l = xcalloc(1, sizeof(*l));
	*l = (struct lease){.id = id, .ttl_ms = ttl_ms, .deadline = now_ms() + ttl_ms};
	map_set(&em->leases, str_of((const char *)&id, sizeof(id)), l);
}

void lease_move(struct embedded *em, struct str key, int64_t from, int64_t to)
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
	if (b->flushed) /* but what the batch made, unless all had to go */
		map_free_values(&em->dirty, dirty_free);
	while (map_next(&b->fresh, &it, &key, &v)) {
		struct dirty *d = v;
		if (d->gone || (b->flushed && (b->flush || b->clean))) {
			dirty_free(map_del(&em->dirty, key));
			dirty_free(d);
			continue;
		}
		dirty_free(map_set(&em->dirty, key, d));
	}
	if (b->flushed || !em->dirty.n || !em->dirty_since)
		em->dirty_since = em->dirty.n ? now : 0;
}

static void merge_tail(struct embedded *em, struct batch *b)
{
	if (b->checkpoint) {
		tail_clear(&em->tail);
		tail_clear(&em->added);
		wal_void(&em->wal);
	} else if (em->added.n) {
		if (!em->tail.n)
			em->tail_since = now_ms();
		wal_wrote(&em->wal, &b->frame);
	}
	tail_join(&em->tail, &em->added);
	frame_end(&b->frame);
	if (b->wal_err) {
		log_error("store: writing the write-ahead log in %s: %s: until the next start each write goes to the data file, which takes longer",
			  em->dir, strerror(b->wal_err));
		wal_close(&em->wal);
	}
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

/* What a checkpoint may need of the file for so many more records of so many bytes: three pages a key at most, and pages half full. */
static uint64_t tail_need(const struct embedded *em, size_t n, size_t bytes)
{
	return (em->tail.n + n) * 3 * 4096 + 2 * (em->tail.bytes + bytes);
}

static bool set_full(struct embedded *em, const char *why)
{
	em->full = why;
	return !why;
}

static int allocate(int fd, uint64_t from, uint64_t to)
{
	int rc;
	do
		rc = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
	while (rc && errno == EINTR);
	return rc;
}

/* False: there is no room, em->full says why. */
static bool reserve(struct embedded *em, size_t n, size_t bytes)
{
	MDB_envinfo info;
	int rc = mdb_env_info(em->env, &info);
	if (rc)
		return true; /* never happens; the batch would tell */
	uint64_t need = (uint64_t)(info.me_last_pgno + 1) * 4096 + FREE_BYTES + tail_need(em, n, bytes);
	if (need > info.me_mapsize)
		return set_full(em, STORE_FULL_MAP);
	if (need <= em->allocated)
		return set_full(em, NULL);
	/* From where it ended the last time: a walk over the whole of a large file takes long. */
	uint64_t from = em->allocated, to = need + GROW_BYTES;
	rc = allocate(em->data_fd, from, to);
	if (rc && (errno == ENOSPC || errno == EDQUOT)) { /* the last bit, then */
		to = need;
		rc = allocate(em->data_fd, from, to);
	}
	if (rc && (errno == ENOSPC || errno == EDQUOT))
		return set_full(em, STORE_FULL_DISK);
	em->allocated = rc ? UINT64_MAX : to; /* a file system without fallocate: LMDB's own ENOSPC must do */
	return set_full(em, NULL);
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
	em->failed_at = b->err ? now_ms() : 0;
	em->doubt = b->err ? em->doubt || b->wal_err : em->doubt && !b->checkpoint;
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
		map_free_values(&b->fresh, dirty_free);
		tail_clear(&em->added);
		frame_end(&b->frame);
		if (em->allocated != UINT64_MAX)
			set_full(em, STORE_FULL_DISK);
		em->allocated = em->allocated == UINT64_MAX ? UINT64_MAX : 0; /* look again before the next put */
	} else {
		em->state = b->checkpoint ? b->state : em->state;
		em->log_last = b->checkpoint ? b->log_last : em->log_last;
		merge_tail(em, b);
		merge_fresh(em, b);
		map_free(&b->fresh);
		for (struct op *op = b->ops; op; op = op->next)
			if (!op->err)
				publish_op(em, op, events, &n);
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

static struct batch batch_new(struct embedded *em)
{
	return (struct batch){.em = em, .rev = em->s.hub.rev, .state = em->state, .log_last = em->log_last,
			      .compact_to = compact_target(em), .wal_next = random_u64() | 1, .checkpoint = em->doubt};
}

static void run(struct embedded *em, struct batch *b)
{
	hand_over(em, b);
	publish(em, b);
}

static void checkpoint_now(struct embedded *em)
{
	struct batch b = batch_new(em);
	b.checkpoint = true;
	run(em, &b);
}

/* Puts may use what history and deletes have left free in the file, but for the deletes' own reserve. */
static void refuse_puts(struct embedded *em, struct batch *b, size_t bytes)
{
	if (file_free(em) >= FREE_BYTES + 4 * bytes)
		return;
	if (!em->refused_at || now_ms() - em->refused_at >= FULL_LOG_MS)
		log_error("store: %s: %s", em->dir, em->full);
	em->refused_at = now_ms();
	for (struct op *op = b->ops; op; op = op->next)
		if (op->kind == OP_PUT)
			op->err = error_status(507, "InsufficientStorage", "%s", em->full);
}

static void run_waiting(struct embedded *em, bool flush, bool sync_dirty, bool checkpoint)
{
	struct op *ops = NULL, **end = &ops;
	size_t bytes = 0, n = 0;
	while (em->head && n < BATCH_OPS && bytes < BATCH_BYTES) {
		struct op *op = em->head;
		em->head = op->next;
		op->next = NULL;
		*end = op;
		end = &op->next;
		n++;
		bytes += op->value ? op->value->n : 0;
		flush |= op->kind == OP_SYNC;
	}
	if (!em->head)
		em->last = &em->head;
	if (n && !reserve(em, n, bytes)) {
		em->compacted = em->s.hub.rev; /* history is the first thing to go */
		if (em->tail.n || compact_target(em) > em->state.compacted) {
			checkpoint_now(em); /* what is in the tables takes less than what is kept for it */
			reserve(em, n, bytes);
		}
	}
	struct batch b = batch_new(em);
	b.ops = ops;
	b.n = n;
	b.flush = flush;
	b.sync_dirty = sync_dirty;
	b.checkpoint |= checkpoint;
	if (em->full)
		refuse_puts(em, &b, bytes);
	run(em, &b);
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
		bool compact = compact_target(em) - em->state.compacted > COMPACT_IDLE;
		/* The memory that only writing needs is given back: by the few writes of a quiet cluster once a minute, and when idle. */
		bool tail = em->wal.at > TAIL_IDLE && !em->full;
		bool again = !em->failed_at || now - em->failed_at >= FULL_LOG_MS;
		if (em->head || ((due || compact) && again && !em->closing)) {
			run_waiting(em, due, em->dirty.n && now - em->dirty_since >= DIRTY_SYNC_MS, tail && now - em->tail_since >= TAIL_MS);
			continue;
		}
		if (em->closing)
			break;
		if (due || compact)
			wake = em->failed_at + FULL_LOG_MS;
		bool touched = em->touched || em->commits - em->trimmed_commits >= TRIM_COMMITS;
		int64_t trim = (em->touched ? em->touched_at : now) + TRIM_MS;
		if ((touched || tail) && trim < wake)
			wake = trim;
		struct error *e = waitq_wait_ms(&em->work, wake > now ? wake - now : 1);
		if (e && !error_is_sys(e, ETIMEDOUT))
			em->closing = true; /* cancelled with the loop */
		else if (e && now_ms() >= trim) {
			if (tail)
				checkpoint_now(em);
			if (touched && now_ms() - em->touched_at >= TRIM_MS)
				map_trim(em);
			wal_trim(&em->wal);
			tail_free(&em->added);
			if (!em->tail.n)
				tail_free(&em->tail);
		}
		error_free(e);
	}
	struct batch b = batch_new(em);
	b.clean = true;
	run(em, &b);
}

static struct error *submit(struct embedded *em, struct op *op)
{
	if (em->closing)
		return error_status(503, "ServiceUnavailable", "the store is closing");
	op->next = NULL;
	*em->last = op;
	em->last = &op->next;
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
		if (!e)
			e = lmdbfile_publish(tmp, path);
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
	if (em->commit_spare)
		mdb_txn_abort(em->commit_spare);
	if (em->env)
		mdb_env_close(em->env);
	map_free_values(&em->leases, lease_free);
	map_free_values(&em->dirty, dirty_free);
	tail_free(&em->tail);
	tail_free(&em->added);
	wal_close(&em->wal);
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
	.close = em_close, .current = em_current, .get = em_get, .range = em_range, .view_value = em_view_value,
	.view_end = em_view_end, .count = em_count, .put = em_put,
	.del = em_delete, .watch_check = em_watch_check, .history = em_history, .grant = em_grant,
	.keepalive = em_keepalive, .revoke = em_revoke, .sync = em_sync, .compact = em_compact, .save = em_save, .stats = em_stats,
};

struct error *embedded_open(const struct store_opts *o, struct store **out)
{
	struct embedded *em = xcalloc(1, sizeof(*em));
	em->s.ops = &embedded_ops;
	em->lock_fd = em->data_fd = em->wal.fd = -1;
	em->dir = xstrdup(o->dir);
	em->s.history_ms = o->history_ms > 0 ? o->history_ms : HISTORY_MS;
	em->last = &em->head;
	em->loop = loop_self();
	pthread_mutex_init(&em->mu, NULL);
	pthread_cond_init(&em->cond, NULL);
	struct error *e = em_open(em, o);
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
