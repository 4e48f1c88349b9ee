#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "store/embedded.h"

/* ---- reads ---- */

void map_trim(struct embedded *em)
{
	em->trimmed_commits = em->commits;
	em->touched = 0;
	em->filled = false;
	if (em->map)
		madvise(em->map, em->map_n, MADV_DONTNEED); /* advice: a failure costs memory only */
}

void map_fill(struct embedded *em, uint64_t used)
{
	if (!em->map || !used || used > em->map_n)
		return;
	em->filled = !lmdbfile_fill(em->map, used);
	em->touched = em->filled; /* the committer gives it back when idle */
	em->touched_at = now_ms();
}

/* A read transaction; spare ones are reset and renewed, which costs no lock. */
static struct error *read_begin(struct embedded *em, MDB_txn **txn)
{
	int rc;
	if (em->spare) {
		*txn = em->spare;
		em->spare = NULL;
		rc = mdb_txn_renew(*txn);
		if (rc)
			mdb_txn_abort(*txn);
	} else {
		rc = mdb_txn_begin(em->env, NULL, MDB_RDONLY, txn);
	}
	return rc ? lmdb_error(rc, "reading") : NULL;
}

static void read_end(struct embedded *em, MDB_txn *txn)
{
	if (em->spare) {
		mdb_txn_abort(txn);
	} else {
		mdb_txn_reset(txn);
		em->spare = txn;
	}
}

struct version { /* of a key, at a revision */
	struct key_rec k;    /* version 0: not there */
	struct str value;    /* in the transaction's pages or a dirty block */
};

/*
 * The version of `key` at rev, from the disk's newest one (disk) and the dirty one. A batch may have been committed but not yet
 * published: what is newer than rev is skipped, so reads see exactly what watchers have been told.
 */
static struct error *version_at(struct embedded *em, MDB_txn *txn, struct str key, struct key_rec disk, int64_t rev, bool want_value,
				struct version *out)
{
	struct dirty *d = em->dirty.n ? map_get(&em->dirty, key) : NULL;
	int64_t floor = 0; /* a dirty version: anything at or below it on disk does not count */
	*out = (struct version){0};
	if (d && d->k.mod <= rev) {
		out->k = d->k;
		out->value = block_str(d->value);
		floor = d->k.mod;
	}
	int64_t at = disk.mod;
	bool first = true;
	while (at > floor) {
		if (first && at <= rev && (!want_value || !disk.version)) {
			out->k = disk;
			return NULL;
		}
		MDB_val v;
		int rc = log_get(em, txn, at, &v);
		if (rc == MDB_NOTFOUND && !first)
			return NULL; /* older versions were compacted: they are not what rev asks for */
		if (rc)
			return rc == MDB_NOTFOUND ? damaged_record(at) : lmdb_error(rc, "reading");
		struct log_rec r;
		struct str k, value;
		TRY(log_parse(&v, at, &r, &k, &value));
		if (!str_eq(k, key))
			return damaged_record(at);
		if (at <= rev) {
			out->k = log_version(&r, at);
			out->value = value;
			return NULL;
		}
		if (r.prev >= at)
			return damaged_record(at);
		at = r.prev;
		first = false;
	}
	return NULL;
}

static struct error *read_rev(struct embedded *em, int64_t *rev)
{
	if (!*rev)
		*rev = em->s.hub.rev;
	if (*rev < em->compacted)
		return store_expired(*rev, em->compacted);
	if (*rev > em->s.hub.rev)
		return error_status(504, "Timeout", "store: revision %lld is in the future; the newest is %lld", (long long)*rev,
				    (long long)em->s.hub.rev);
	return NULL;
}

struct error *em_get(struct store *s, struct str key, int64_t rev, bool *found, struct store_kv *out)
{
	struct embedded *em = of(s);
	TRY(read_rev(em, &rev));
	MDB_txn *txn;
	TRY(read_begin(em, &txn));
	struct key_rec disk;
	struct version v;
	int rc = key_get(em, txn, key, &disk);
	struct error *e = rc ? lmdb_error(rc, "reading") : version_at(em, txn, key, disk, rev, true, &v);
	if (!e && v.k.version) {
		*found = true;
		*out = (struct store_kv){.key = str_of(str_dupz(key), key.n), .value = block_new(v.value), .create_rev = v.k.create,
					 .mod_rev = v.k.mod, .version = v.k.version, .lease = v.k.lease};
	}
	read_end(em, txn);
	return e;
}

static int cmp_str(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* Keys of the range that the table may not know: sorted; malloc'ed, the keys are where they were. */
static struct str *keys_aside(struct embedded *em, struct str start, struct str end, size_t *n)
{
	*n = 0;
	if (!em->dirty.n && !em->tail.n)
		return NULL;
	struct str *v = xmalloc((em->dirty.n + em->tail.n) * sizeof(*v)), key;
	size_t it = 0;
	void *d;
	while (map_next(&em->dirty, &it, &key, &d))
		if (in_range(key, start, end))
			v[(*n)++] = key;
	for (size_t i = 0; i < em->tail.n; i++) {
		key = tail_key(&em->tail.v[i]);
		if (!em->tail.v[i].replaced && in_range(key, start, end) && !map_has(&em->dirty, key))
			v[(*n)++] = key;
	}
	qsort(v, *n, sizeof(*v), cmp_str);
	return v;
}

/* Walks the keys of [start, end) that exist at rev; want_value false: values that have to be looked up are NULL. */
static struct error *walk(struct embedded *em, MDB_txn *txn, struct str start, struct str end, int64_t rev, bool want_value,
			  struct error *(*each)(void *ctx, struct str key, struct version *v, bool *more), void *ctx)
{
	MDB_cursor *cur;
	int rc = mdb_cursor_open(txn, em->keys, &cur);
	if (rc)
		return lmdb_error(rc, "reading");
	size_t nd, di = 0;
	struct str *dk = keys_aside(em, start, end, &nd);
	struct error *e = NULL;
	MDB_val k = val(start), v;
	rc = start.n ? mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE) : mdb_cursor_get(cur, &k, &v, MDB_FIRST);
	bool more = true;
	while (more && !e) {
		struct str key = STR_NULL;
		bool on_disk = rc == 0 && (!end.n || str_cmp(str_of(k.mv_data, k.mv_size), end) < 0);
		if (rc && rc != MDB_NOTFOUND) {
			e = lmdb_error(rc, "reading");
			break;
		}
		if (on_disk)
			key = str_of(k.mv_data, k.mv_size);
		struct key_rec disk = {0};
		int order = di < nd && on_disk ? str_cmp(dk[di], key) : di < nd ? -1 : 1;
		if (order < 0)
			key = dk[di];
		else if (!on_disk)
			break;
		if (order >= 0) {
			if (v.mv_size != sizeof(disk)) {
				e = lmdb_error(MDB_CORRUPTED, "reading");
				break;
			}
			memcpy(&disk, v.mv_data, sizeof(disk));
		}
		const struct tail_rec *newer = order <= 0 ? tail_find(&em->tail, key) : NULL;
		if (newer)
			disk = tail_version(newer);
		struct version ver;
		e = version_at(em, txn, key, disk, rev, want_value, &ver);
		if (!e && ver.k.version)
			e = each(ctx, key, &ver, &more);
		if (order <= 0)
			di++;
		if (order >= 0)
			rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
	}
	free(dk);
	mdb_cursor_close(cur);
	return e;
}

struct range_ctx {
	struct embedded *em;
	bool (*each)(void *ctx, struct store_kv *kv);
	void *ctx;
	size_t limit, n, bytes, apart;
	bool view; /* values in the log's table stay there */
};

struct view {
	struct store_view v;
	MDB_txn *txn;
	MDB_cursor *cur; /* of the log */
	size_t bytes;
};

/* The kernel maps the neighbours of a page with it. */
static size_t touched_by(struct str value)
{
	return value.n + 16384;
}

static struct error *range_each(void *ctx, struct str key, struct version *v, bool *more)
{
	struct range_ctx *r = ctx;
	struct store_kv kv = {.key = key, .create_rev = v->k.create, .mod_rev = v->k.mod, .version = v->k.version, .lease = v->k.lease};
	struct str value = v->value;
	MDB_val record;
	bool apart = r->view && !value.p && !tail_get(&r->em->tail, kv.mod_rev, &record);
	if (r->view && !value.p && !apart) { /* the tail is the loop's */
		struct log_rec head;
		struct str same;
		TRY(log_parse(&record, kv.mod_rev, &head, &same, &value));
	}
	if (!apart) {
		kv.value = block_new(value);
		r->bytes += touched_by(value);
	}
	r->apart += apart;
	*more = r->each(r->ctx, &kv);
	block_unref(kv.value);
	if (++r->n == r->limit)
		*more = false;
	return NULL;
}

static void touch(struct embedded *em, size_t bytes)
{
	if (bytes && !em->touched)
		waitq_wake_one(&em->work); /* to set its clock */
	em->touched += bytes;
	em->touched_at = now_ms();
	if (em->touched >= TRIM_BYTES && !em->filled)
		map_trim(em);
}

static struct error *view_new(struct embedded *em, MDB_txn *txn, struct store_view **out)
{
	MDB_cursor *cur;
	int rc = mdb_cursor_open(txn, em->log, &cur);
	if (rc)
		return lmdb_error(rc, "reading");
	struct view *v = xmalloc(sizeof(*v));
	*v = (struct view){.v.s = &em->s, .txn = txn, .cur = cur};
	em->views++;
	*out = &v->v;
	return NULL;
}

struct error *em_range(struct store *s, struct str start, struct str end, int64_t *rev, size_t limit,
		       bool (*each)(void *ctx, struct store_kv *kv), void *ctx, struct store_view **view)
{
	struct embedded *em = of(s);
	struct range_ctx r = {.em = em, .each = each, .ctx = ctx, .limit = limit, .view = view && em->views < VIEWS_MAX};
	TRY(read_rev(em, rev));
	MDB_txn *txn;
	TRY(read_begin(em, &txn));
	struct error *e = walk(em, txn, start, end, *rev, !r.view, range_each, &r);
	if (!e && r.apart)
		e = view_new(em, txn, view);
	if (e || !r.apart)
		read_end(em, txn);
	touch(em, r.bytes);
	return e;
}

struct error *em_view_value(struct store_view *sv, struct str key, int64_t mod_rev, struct str *value)
{
	struct view *v = (struct view *)sv;
	uint8_t rk[8];
	rev_key(mod_rev, rk);
	MDB_val k = {8, rk}, record;
	struct log_rec head;
	struct str found;
	int rc = mdb_cursor_get(v->cur, &k, &record, MDB_SET);
	if (rc)
		return rc == MDB_NOTFOUND ? damaged_record(mod_rev) : lmdb_error(rc, "reading");
	TRY(log_parse(&record, mod_rev, &head, &found, value));
	if (!str_eq(found, key))
		return damaged_record(mod_rev);
	v->bytes += touched_by(*value);
	return NULL;
}

void em_view_end(struct store_view *sv)
{
	struct view *v = (struct view *)sv;
	struct embedded *em = of(sv->s);
	mdb_cursor_close(v->cur);
	read_end(em, v->txn);
	em->views--;
	touch(em, v->bytes);
	free(v);
}

static struct error *count_each(void *ctx, struct str key, struct version *v, bool *more)
{
	++*(size_t *)ctx;
	return NULL;
}

struct error *em_count(struct store *s, struct str start, struct str end, size_t *n)
{
	struct embedded *em = of(s);
	int64_t rev = 0;
	TRY(read_rev(em, &rev));
	MDB_txn *txn;
	TRY(read_begin(em, &txn));
	struct error *e = walk(em, txn, start, end, rev, false, count_each, n);
	read_end(em, txn);
	return e;
}

struct error *em_current(struct store *s, int64_t *rev)
{
	*rev = s->hub.rev; /* one process, one loop: published is acknowledged */
	return NULL;
}

struct error *em_watch_check(struct store *s, int64_t from)
{
	struct embedded *em = of(s);
	if (from < em->compacted)
		return store_expired(from, em->compacted);
	if (from > em->gap_lo && from < em->gap_hi)
		return error_status(410, "Expired", "the resourceVersion %lld was lost in a crash; list again", (long long)from);
	return NULL;
}

/* The first dirty version of w's range: it is in neither the table nor the tail. */
static struct dirty *next_dirty(struct embedded *em, const struct store_watch *w, struct str *at)
{
	struct dirty *d = NULL;
	struct str key;
	size_t it = 0;
	void *p;
	while (map_next(&em->dirty, &it, &key, &p)) {
		struct dirty *x = p;
		if (x->k.mod >= w->hist_next && x->k.mod <= w->hist_last && in_range(key, w->start, w->end) &&
		    (!d || x->k.mod < d->k.mod)) {
			d = x;
			*at = key;
		}
	}
	return d;
}

/* Is the record an event of w's range? */
static struct error *record_event(const struct store_watch *w, const MDB_val *v, int64_t rev, struct store_event *e, bool *got)
{
	struct log_rec r;
	struct str key, value;
	TRY(log_parse(v, rev, &r, &key, &value));
	if (!in_range(key, w->start, w->end))
		return NULL;
	*e = (struct store_event){.is_delete = r.is_delete, .prev_rev = r.prev};
	e->kv = (struct store_kv){.key = str_of(str_dupz(key), key.n), .create_rev = r.create, .mod_rev = rev, .version = r.version,
				  .lease = r.lease};
	if (!r.is_delete)
		e->kv.value = block_new(value);
	*got = true;
	return NULL;
}

/* The first event of w's range at or below `last`: of the table, then of the tail. */
static struct error *next_record(struct embedded *em, MDB_txn *txn, const struct store_watch *w, int64_t last, struct store_event *e,
				 bool *got)
{
	MDB_cursor *cur;
	uint8_t rk[8];
	struct error *err = NULL;
	int rc = mdb_cursor_open(txn, em->log, &cur);
	if (rc)
		return lmdb_error(rc, "reading");
	rev_key(w->hist_next, rk);
	MDB_val k = {8, rk}, v;
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); !rc && !*got && !err; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		if (rev_of(&k) > last)
			break;
		err = record_event(w, &v, rev_of(&k), e, got);
	}
	mdb_cursor_close(cur);
	if (!err && rc && rc != MDB_NOTFOUND)
		err = lmdb_error(rc, "reading");
	for (size_t i = tail_from(&em->tail, w->hist_next); !err && !*got && i < em->tail.n && em->tail.v[i].rev <= last; i++)
		err = record_event(w, &em->tail.v[i].record, em->tail.v[i].rev, e, got);
	return err;
}

struct error *em_history(struct store *s, struct store_watch *w, struct store_event *e, bool *got)
{
	struct embedded *em = of(s);
	if (w->hist_next - 1 < em->compacted)
		return store_expired(w->hist_next - 1, em->compacted);
	MDB_txn *txn;
	TRY(read_begin(em, &txn));
	struct str key = STR_NULL;
	struct dirty *d = next_dirty(em, w, &key);
	struct error *err = next_record(em, txn, w, d ? d->k.mod : w->hist_last, e, got);
	if (!err && !*got && d) {
		*e = (struct store_event){.prev_rev = d->disk_prev};
		e->kv = (struct store_kv){.key = str_of(str_dupz(key), key.n), .value = block_ref(d->value), .create_rev = d->k.create,
					  .mod_rev = d->k.mod, .version = d->k.version, .lease = d->k.lease};
		*got = true;
	}
	if (*got)
		w->hist_next = e->kv.mod_rev + 1;
	read_end(em, txn);
	return err;
}
