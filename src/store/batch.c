#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/log.h"
#include "store/embedded.h"

/* ---- records ---- */

void rev_key(int64_t rev, uint8_t out[8])
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)((uint64_t)rev >> (56 - 8 * i));
}

int64_t rev_of(const MDB_val *k)
{
	uint64_t r = 0;
	for (size_t i = 0; i < 8; i++)
		r = r << 8 | ((const uint8_t *)k->mv_data)[i];
	return (int64_t)r;
}

struct error *damaged_record(int64_t rev)
{
	return error_status(500, "InternalError", "store: the record of revision %lld is damaged; restore a snapshot", (long long)rev);
}

/* Parses and verifies a log record; key and value point into v. */
struct error *log_parse(const MDB_val *v, int64_t rev, struct log_rec *r, struct str *key, struct str *value)
{
	if (v->mv_size < sizeof(*r))
		return damaged_record(rev);
	memcpy(r, v->mv_data, sizeof(*r));
	const char *p = v->mv_data;
	if (r->key_n > v->mv_size - sizeof(*r) || r->sum != (uint32_t)XXH3_64bits(p + 4, v->mv_size - 4))
		return damaged_record(rev);
	*key = str_of(p + sizeof(*r), r->key_n);
	*value = str_of(p + sizeof(*r) + r->key_n, v->mv_size - sizeof(*r) - r->key_n);
	return NULL;
}

int log_get(const struct embedded *em, MDB_txn *txn, int64_t rev, MDB_val *v)
{
	uint8_t rk[8];
	rev_key(rev, rk);
	MDB_val k = {8, rk};
	return tail_get(&em->tail, rev, v) ? 0 : mdb_get(txn, em->log, &k, v);
}

static size_t record_size(struct str key, struct str value)
{
	return sizeof(struct log_rec) + key.n + value.n;
}

static void record_write(char *p, bool is_delete, const struct key_rec *k, int64_t prev, struct str key, struct str value)
{
	struct log_rec r = {.is_delete = is_delete, .key_n = (uint16_t)key.n, .create = k->create, .version = k->version,
			    .lease = k->lease, .prev = prev};
	memcpy(p, &r, sizeof(r));
	memcpy(p + sizeof(r), key.p, key.n);
	if (value.n)
		memcpy(p + sizeof(r) + key.n, value.p, value.n);
	r.sum = (uint32_t)XXH3_64bits(p + 4, record_size(key, value) - 4);
	memcpy(p, &r.sum, 4);
}

/* Room for a record of mv->mv_size bytes. */
static int log_put(struct batch *b, MDB_txn *txn, int64_t rev, MDB_val *mv)
{
	/* Records come in order, but for late heartbeats: told so, LMDB fills its pages; else it leaves them half empty. */
	unsigned append = rev > b->log_last ? MDB_APPEND : 0;
	uint8_t rk[8];
	rev_key(rev, rk);
	MDB_val mk = {8, rk};
	int rc = mdb_put(txn, b->em->log, &mk, mv, MDB_RESERVE | append);
	if (!rc && append)
		b->log_last = rev;
	return rc;
}

static int table_get(MDB_txn *txn, MDB_dbi keys, struct str key, struct key_rec *out)
{
	MDB_val k = val(key), v;
	*out = (struct key_rec){0};
	int rc = mdb_get(txn, keys, &k, &v);
	if (rc == MDB_NOTFOUND)
		return 0;
	if (!rc && v.mv_size != sizeof(*out))
		return MDB_CORRUPTED;
	if (!rc)
		memcpy(out, v.mv_data, sizeof(*out));
	return rc;
}

int table_put(MDB_txn *txn, MDB_dbi keys, struct str key, const struct key_rec *r)
{
	MDB_val k = val(key), v = {sizeof(*r), (void *)r};
	return mdb_put(txn, keys, &k, &v, 0);
}

int key_get(const struct embedded *em, MDB_txn *txn, struct str key, struct key_rec *out)
{
	const struct tail_rec *r = tail_find(&em->tail, key);
	if (!r)
		return table_get(txn, em->keys, key, out);
	*out = tail_version(r);
	return 0;
}

struct error *store_log_tail(MDB_txn *txn, MDB_dbi log, int64_t indexed, struct map *m)
{
	if (indexed == INT64_MAX)
		return NULL;
	MDB_cursor *cur;
	uint8_t rk[8];
	rev_key(indexed + 1, rk);
	MDB_val k = {8, rk}, v;
	struct error *e = NULL;
	int rc = mdb_cursor_open(txn, log, &cur);
	if (rc)
		return lmdb_error(rc, "reading the log");
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); !rc && !e; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		struct log_rec r;
		struct str key, value;
		e = log_parse(&v, rev_of(&k), &r, &key, &value);
		if (!e) {
			struct key_rec *newest = xmalloc(sizeof(*newest));
			*newest = log_version(&r, rev_of(&k));
			free(map_set(m, key, newest));
		}
	}
	mdb_cursor_close(cur);
	if (!e && rc != MDB_NOTFOUND)
		e = lmdb_error(rc, "reading the log");
	return e;
}

struct error *store_raise(MDB_txn *txn, MDB_dbi log, MDB_dbi keys, int64_t indexed)
{
	struct map tail = {0};
	struct error *e = store_log_tail(txn, log, indexed, &tail);
	size_t it = 0;
	struct str key;
	void *r;
	int rc = 0;
	while (!e && !rc && map_next(&tail, &it, &key, &r))
		rc = table_put(txn, keys, key, r);
	map_free_values(&tail, free);
	return e || !rc ? e : lmdb_error(rc, "raising the data file's format");
}

struct error *header_get(MDB_txn *txn, MDB_dbi main, struct format_record *f, struct state_rec *st, int64_t *indexed)
{
	MDB_val k = {7, (void *)"~format"}, v;
	int rc = mdb_get(txn, main, &k, &v);
	if (rc || v.mv_size != sizeof(*f))
		return lmdb_error(rc ? rc : MDB_CORRUPTED, "reading the format record");
	memcpy(f, v.mv_data, sizeof(*f));
	*st = (struct state_rec){0};
	*indexed = INT64_MAX;
	k = (MDB_val){6, (void *)"~state"};
	rc = mdb_get(txn, main, &k, &v);
	size_t n = f->format < 2 ? offsetof(struct state_rec, wal) : sizeof(*st);
	if (!rc && v.mv_size == n)
		memcpy(st, v.mv_data, n);
	else if (rc != MDB_NOTFOUND)
		return lmdb_error(rc ? rc : MDB_CORRUPTED, "reading the state record");
	if (f->format == 2) { /* had that number in this place */
		*indexed = (int64_t)st->wal;
		st->wal = 0;
	}
	return NULL;
}

int header_put(MDB_txn *txn, MDB_dbi main, uint64_t cluster, const struct state_rec *st)
{
	struct format_record f = {STORE_FORMAT, STORE_BOM, cluster};
	MDB_val k = {7, (void *)"~format"}, v = {sizeof(f), &f};
	int rc = mdb_put(txn, main, &k, &v, 0);
	k = (MDB_val){6, (void *)"~state"};
	v = (MDB_val){sizeof(*st), (void *)st};
	return rc ? rc : mdb_put(txn, main, &k, &v, 0);
}

void dirty_free(void *dirty)
{
	struct dirty *d = dirty;
	if (d)
		block_unref(d->value);
	free(d);
}

/* ---- commit thread ---- */

/* What is there for key: the batch's own change, else dirty, else disk. *disk_mod: the version on disk. */
static int current(struct batch *b, MDB_txn *txn, struct str key, struct key_rec *cur, struct dirty **d, int64_t *disk_mod)
{
	struct dirty *f = map_get(&b->fresh, key);
	*d = f && f->gone ? NULL : f ? f : map_get(&b->em->dirty, key);
	if (*d) {
		*cur = (*d)->k;
		*disk_mod = (*d)->disk_prev;
		return 0;
	}
	const struct tail_rec *r = tail_find(&b->em->added, key);
	int rc = 0;
	if (r)
		*cur = tail_version(r);
	else
		rc = key_get(b->em, txn, key, cur);
	*disk_mod = cur->mod;
	return rc;
}

static void set_fresh(struct batch *b, struct str key, struct dirty *d)
{
	dirty_free(map_set(&b->fresh, key, d));
}

static bool revoked_before(const struct batch *b, const struct op *op)
{
	if (!b->revokes)
		return false;
	for (const struct op *x = b->ops; x != op; x = x->next)
		if (x->kind == OP_REVOKE && x->lease == op->lease)
			return true;
	return false;
}

static int run_write(struct batch *b, MDB_txn *txn, struct op *op)
{
	struct embedded *em = b->em;
	struct dirty *d;
	int64_t disk_mod;
	int rc = current(b, txn, op->key, &op->now, &d, &disk_mod);
	if (rc)
		return rc;
	int64_t there = op->now.version ? op->now.mod : 0;
	bool match = op->expect == STORE_ANY || op->expect == there;
	if (op->kind == OP_DELETE && (!there || (op->if_lease && op->now.lease != op->if_lease)))
		match = false;
	if (!match) {
		if (!there)
			return 0;
		if (d) {
			op->now_value = block_ref(d->value);
			return 0;
		}
		MDB_val v;
		struct log_rec r;
		struct str key, value;
		rc = tail_get(&em->added, there, &v) ? 0 : log_get(em, txn, there, &v);
		if (rc)
			return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
		op->err = log_parse(&v, there, &r, &key, &value);
		if (!op->err)
			op->now_value = block_new(value);
		return 0;
	}
	if (op->lease) {
		MDB_val lk = {8, &op->lease}, lv;
		rc = revoked_before(b, op) ? MDB_NOTFOUND : mdb_get(txn, em->lease_t, &lk, &lv);
		if (rc == MDB_NOTFOUND)
			op->err = error_status(404, "NotFound", "store: there is no lease %lld", (long long)op->lease);
		if (rc)
			return rc == MDB_NOTFOUND ? 0 : rc;
	}
	int64_t rev = b->rev + 1;
	struct key_rec k = {.mod = rev, .create = there ? op->now.create : rev, .version = there ? op->now.version + 1 : 1,
			    .lease = op->lease};
	if (op->kind == OP_DELETE)
		k = (struct key_rec){.mod = rev};
	if (op->kind == OP_PUT && (op->flags & STORE_NOSYNC)) {
		struct dirty *nd = xmalloc(sizeof(*nd));
		*nd = (struct dirty){.k = k, .disk_prev = disk_mod, .value = block_ref(op->value)};
		set_fresh(b, op->key, nd);
		if (rev > b->state.ceiling || b->state.clean_rev) {
			b->state.ceiling = rev + CEILING_STEP;
			b->checkpoint = true;
		}
	} else {
		struct str value = op->value ? block_str(op->value) : STR_NULL;
		size_t n = record_size(op->key, value);
		char *p = frame_add(&b->frame, rev, n);
		record_write(p, op->kind == OP_DELETE, &k, disk_mod, op->key, value);
		tail_add(&em->added, rev, (MDB_val){n, p});
		if (d) {
			struct dirty *gone = xcalloc(1, sizeof(*gone));
			gone->gone = true;
			set_fresh(b, op->key, gone);
		}
	}
	b->rev = rev;
	op->made = k;
	op->rev = rev;
	op->ok = true;
	return 0;
}

static int run_lease(struct batch *b, MDB_txn *txn, struct op *op)
{
	MDB_val k = {8, &op->lease}, v = {8, &op->lease_ttl};
	int rc = op->kind == OP_GRANT ? mdb_put(txn, b->em->lease_t, &k, &v, 0) : mdb_del(txn, b->em->lease_t, &k, NULL);
	op->ok = rc == 0;
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int flush_one(struct batch *b, MDB_txn *txn, struct str key, const struct dirty *d)
{
	MDB_val mv = {record_size(key, block_str(d->value)), NULL};
	int rc = log_put(b, txn, d->k.mod, &mv);
	if (rc)
		return rc;
	record_write(mv.mv_data, false, &d->k, d->disk_prev, key, block_str(d->value));
	return table_put(txn, b->em->keys, key, &d->k);
}

/* Writes dirty versions out, but for those that the batch has replaced; of its own, those too when all must go. */
static int flush_dirty(struct batch *b, MDB_txn *txn)
{
	size_t it = 0;
	struct str key;
	void *v;
	int rc = 0;
	while (!rc && (b->flush || b->clean) && map_next(&b->fresh, &it, &key, &v))
		if (!((struct dirty *)v)->gone)
			rc = flush_one(b, txn, key, v);
	it = 0;
	while (!rc && map_next(&b->em->dirty, &it, &key, &v))
		if (!map_has(&b->fresh, key))
			rc = flush_one(b, txn, key, v);
	b->flushed = true;
	return rc;
}

/* Cleans up to `max` log records behind state.compacted. */
static int compact_some(struct batch *b, MDB_txn *txn, size_t max)
{
	MDB_cursor *cur;
	struct embedded *em = b->em;
	int rc = mdb_cursor_open(txn, em->log, &cur);
	if (rc)
		return rc;
	int64_t at = b->state.compacted;
	for (size_t i = 0; i < max && !rc; i++) {
		uint8_t rk[8];
		rev_key(at + 1, rk);
		MDB_val k = {8, rk}, v;
		rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
		if (rc == MDB_NOTFOUND || (!rc && rev_of(&k) > b->compact_to)) {
			at = b->compact_to;
			rc = 0;
			break;
		}
		if (rc)
			break;
		struct log_rec r;
		at = rev_of(&k);
		if (v.mv_size < sizeof(r)) {
			rc = MDB_CORRUPTED;
			break;
		}
		memcpy(&r, v.mv_data, sizeof(r));
		if (r.is_delete) {
			char key_p[STORE_KEY_MAX];
			size_t key_n = r.key_n <= STORE_KEY_MAX ? r.key_n : 0;
			memcpy(key_p, (char *)v.mv_data + sizeof(r), key_n);
			struct str key = str_of(key_p, key_n);
			struct key_rec kr;
			MDB_val mk = val(key);
			rc = mdb_cursor_del(cur, 0);
			if (!rc)
				rc = table_get(txn, em->keys, key, &kr);
			if (!rc && kr.mod == at)
				rc = mdb_del(txn, em->keys, &mk, NULL);
		}
		if (!rc && r.prev) {
			rev_key(r.prev, rk);
			MDB_val pk = {8, rk};
			rc = mdb_del(txn, em->log, &pk, NULL);
			if (rc == MDB_NOTFOUND)
				rc = 0; /* a tombstone that went with its own turn */
		}
	}
	mdb_cursor_close(cur);
	b->state.compacted = at;
	return rc;
}

/* The records of a tail into the table of the log, and what is newest of each key into the table of keys, unless `newer` has the key. */
static int tail_put(struct batch *b, MDB_txn *txn, const struct tail *t, const struct tail *newer)
{
	int rc = 0;
	for (size_t i = 0; i < t->n && !rc; i++) {
		MDB_val mv = t->v[i].record;
		rc = log_put(b, txn, t->v[i].rev, &mv);
		if (!rc)
			memcpy(mv.mv_data, t->v[i].record.mv_data, mv.mv_size);
	}
	for (size_t i = 0; i < t->n && !rc; i++) {
		struct str key = tail_key(&t->v[i]);
		if (t->v[i].replaced || tail_find(newer, key))
			continue;
		struct key_rec r = tail_version(&t->v[i]);
		rc = table_put(txn, b->em->keys, key, &r);
	}
	return rc;
}

static size_t frame_bytes(const struct batch *b)
{
	size_t n = 0;
	for (const struct op *op = b->ops; op; op = op->next)
		if (!op->err && (op->kind == OP_DELETE || (op->kind == OP_PUT && !(op->flags & STORE_NOSYNC))))
			n += frame_item(record_size(op->key, op->value ? block_str(op->value) : STR_NULL));
	return n;
}

static int evaluate(struct batch *b, MDB_txn *txn)
{
	size_t bytes = frame_bytes(b);
	int rc = 0;
	if (bytes)
		frame_begin(&b->frame, &b->em->wal, bytes);
	for (struct op *op = b->ops; op && !rc; op = op->next) {
		if (op->err)
			continue; /* refused beforehand */
		if (op->kind == OP_PUT || op->kind == OP_DELETE)
			rc = run_write(b, txn, op);
		else if (op->kind == OP_SYNC)
			op->ok = true;
		else {
			b->checkpoint = true;
			b->revokes |= op->kind == OP_REVOKE;
		}
	}
	return rc;
}

/* Must the data file be written, now that the batch is evaluated? */
static bool checkpoint_due(const struct batch *b)
{
	const struct embedded *em = b->em;
	int64_t clean = b->compact_to - b->state.compacted;
	size_t tail = em->tail.n + em->added.n, bytes = em->tail.bytes + em->added.bytes;
	if (b->checkpoint || clean > COMPACT_IDLE || (em->full && (tail || clean > 0)))
		return true;
	if (b->clean)
		return tail || em->dirty.n || b->state.wal || clean > 0 || (b->state.ceiling && !b->state.clean_rev);
	if (b->flush && (tail || em->dirty.n || b->fresh.n))
		return true;
	return em->added.n && (b->sync_dirty || !b->state.wal || tail > TAIL_MAX || bytes > TAIL_BYTES || !b->frame.logged);
}

/* `clean`: so many records are cleaned at most; 0: only what must be done is. */
static int checkpoint(struct batch *b, MDB_txn *txn, size_t clean)
{
	struct embedded *em = b->em;
	int rc = tail_put(b, txn, &em->tail, &em->added);
	if (!rc)
		rc = tail_put(b, txn, &em->added, &(struct tail){0});
	/* Old heartbeats go along; what the batch made of them (fresh) wins, and stays dirty unless all must go. */
	if (!rc && (b->flush || b->clean || (b->sync_dirty && clean)))
		rc = flush_dirty(b, txn);
	for (struct op *op = b->ops; op && !rc; op = op->next)
		if (!op->err && (op->kind == OP_GRANT || op->kind == OP_REVOKE))
			rc = run_lease(b, txn, op);
	if (!rc && clean && b->compact_to > b->state.compacted)
		rc = compact_some(b, txn, clean);
	if (rc)
		return rc;
	if (b->clean)
		b->state.ceiling = 0;
	else if (b->state.clean_rev > b->log_last && b->state.clean_rev > b->state.ceiling)
		b->state.ceiling = b->state.clean_rev; /* no record tells that revisions up to there were given */
	b->state.clean_rev = b->clean ? b->rev : 0;
	b->state.wal = b->clean || em->wal.fd < 0 || b->wal_err ? 0 : b->wal_next;
	return header_put(txn, em->main, em->cluster, &b->state);
}

static void read_done(struct embedded *em, MDB_txn *txn)
{
	mdb_txn_reset(txn);
	em->commit_spare = txn;
}

static int read_txn(struct embedded *em, MDB_txn **txn)
{
	*txn = em->commit_spare;
	em->commit_spare = NULL;
	if (!*txn)
		return mdb_txn_begin(em->env, NULL, MDB_RDONLY, txn);
	int rc = mdb_txn_renew(*txn);
	if (rc)
		mdb_txn_abort(*txn);
	return rc;
}

static int write_once(struct batch *b, size_t clean)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(b->em->env, NULL, 0, &txn);
	if (rc)
		return rc;
	rc = checkpoint(b, txn, clean);
	if (rc)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);
	return rc == EIO && b->em->full ? ENOSPC : rc; /* LMDB says so when a write was cut short for want of room */
}

/*
 * Cleaning takes room before it gives any, more than is kept for the writes: where there is none, less of it is done. (EIO: LMDB's word
 * for a write that was cut short.)
 */
static int write_data(struct batch *b)
{
	const bool must = b->n || b->em->tail.n || b->flush || b->clean;
	const struct state_rec state = b->state;
	const int64_t log_last = b->log_last;
	size_t clean = (b->em->full || !b->n ? 4096 : 256) + 4 * (b->em->tail.n + b->n);
	for (;; clean /= 8) {
		int rc = write_once(b, clean);
		if (!clean || (clean < 8 && !must) || (rc != MDB_MAP_FULL && rc != ENOSPC && rc != EDQUOT && rc != EIO))
			return rc;
		b->state = state;
		b->log_last = log_last;
		b->flushed = false;
	}
}

void run_batch(struct batch *b)
{
	struct embedded *em = b->em;
	MDB_txn *txn;
	int rc = read_txn(em, &txn);
	if (!rc) {
		rc = evaluate(b, txn);
		read_done(em, txn);
	}
	bool data = !rc && checkpoint_due(b);
	if (!rc && !data && em->added.n) {
		b->wal_err = wal_write(&em->wal, b->state.wal, &b->frame);
		data = b->wal_err != 0;
	}
	if (data)
		rc = write_data(b);
	b->checkpoint = data && !rc;
	b->committed = !rc && (data || em->added.n);
	if (rc)
		b->err = lmdb_error(rc, "committing");
}
