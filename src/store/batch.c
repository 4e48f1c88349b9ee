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

int log_get(MDB_txn *txn, MDB_dbi log, int64_t rev, MDB_val *v)
{
	uint8_t rk[8];
	rev_key(rev, rk);
	MDB_val k = {8, rk};
	return mdb_get(txn, log, &k, v);
}

static int log_put(struct batch *b, MDB_txn *txn, int64_t rev, bool is_delete, const struct key_rec *k, int64_t prev, struct str key,
		   struct str value)
{
	/* Records come in order, but for late heartbeats: told so, LMDB fills its pages; else it leaves them half empty. */
	unsigned append = rev > b->log_last ? MDB_APPEND : 0;
	uint8_t rk[8];
	rev_key(rev, rk);
	struct log_rec r = {.is_delete = is_delete, .key_n = (uint16_t)key.n, .create = k->create, .version = k->version,
			    .lease = k->lease, .prev = prev};
	MDB_val mk = {8, rk}, mv = {sizeof(r) + key.n + value.n, NULL};
	int rc = mdb_put(txn, b->em->log, &mk, &mv, MDB_RESERVE | append);
	if (rc)
		return rc;
	if (append)
		b->log_last = rev;
	char *p = mv.mv_data;
	memcpy(p, &r, sizeof(r));
	memcpy(p + sizeof(r), key.p, key.n);
	if (value.n)
		memcpy(p + sizeof(r) + key.n, value.p, value.n);
	r.sum = (uint32_t)XXH3_64bits(p + 4, mv.mv_size - 4);
	memcpy(p, &r.sum, 4);
	return 0;
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

static int table_put(MDB_txn *txn, MDB_dbi keys, struct str key, const struct key_rec *r)
{
	MDB_val k = val(key), v = {sizeof(*r), (void *)r};
	return mdb_put(txn, keys, &k, &v, 0);
}

int key_get(const struct embedded *em, MDB_txn *txn, struct str key, struct key_rec *out)
{
	const struct key_rec *k = em->behind.n ? map_get(&em->behind, key) : NULL;
	if (!k)
		return table_get(txn, em->keys, key, out);
	*out = *k;
	return 0;
}

static void rec_set(struct map *m, struct str key, const struct key_rec *r)
{
	struct key_rec *k = xmalloc(sizeof(*k));
	*k = *r;
	free(map_set(m, key, k));
}

void key_recs_free(struct map *m)
{
	size_t it = 0;
	struct str key;
	void *v;
	while (map_next(m, &it, &key, &v))
		free(v);
	map_free(m);
	*m = (struct map){0};
}

struct error *store_log_tail(MDB_txn *txn, MDB_dbi log, int64_t indexed, struct map *m)
{
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
		if (!e)
			rec_set(m, key, &(struct key_rec){.mod = rev_of(&k), .create = r.create, .version = r.is_delete ? 0 : r.version,
							  .lease = r.lease});
	}
	mdb_cursor_close(cur);
	if (!e && rc != MDB_NOTFOUND)
		e = lmdb_error(rc, "reading the log");
	return e;
}

struct error *header_get(MDB_txn *txn, MDB_dbi main, int64_t last, struct format_record *f, struct state_rec *st)
{
	MDB_val k = {7, (void *)"~format"}, v;
	int rc = mdb_get(txn, main, &k, &v);
	if (rc || v.mv_size != sizeof(*f))
		return lmdb_error(rc ? rc : MDB_CORRUPTED, "reading the format record");
	memcpy(f, v.mv_data, sizeof(*f));
	*st = (struct state_rec){0};
	k = (MDB_val){6, (void *)"~state"};
	rc = mdb_get(txn, main, &k, &v);
	size_t n = f->format < 2 ? STATE_V1_SIZE : sizeof(*st);
	if (!rc && v.mv_size == n)
		memcpy(st, v.mv_data, n);
	else if (rc != MDB_NOTFOUND)
		return lmdb_error(rc ? rc : MDB_CORRUPTED, "reading the state record");
	if (f->format < 2)
		st->indexed = last;
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

void dirty_free(struct dirty *d)
{
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
	const struct key_rec *k = map_get(&b->written, key);
	int rc = 0;
	if (k)
		*cur = *k;
	else if (b->index)
		rc = table_get(txn, b->em->keys, key, cur);
	else
		rc = key_get(b->em, txn, key, cur);
	*disk_mod = cur->mod;
	return rc;
}

static void set_fresh(struct batch *b, struct str key, struct dirty *d)
{
	dirty_free(map_set(&b->fresh, key, d));
}

static int run_write(struct batch *b, MDB_txn *txn, struct op *op, bool *wrote)
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
		rc = log_get(txn, em->log, there, &v);
		if (rc)
			return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
		op->err = log_parse(&v, there, &r, &key, &value);
		if (!op->err)
			op->now_value = block_new(value);
		return 0;
	}
	if (op->lease) {
		MDB_val lk = {8, &op->lease}, lv;
		rc = mdb_get(txn, em->lease_t, &lk, &lv);
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
			*wrote = true;
		}
	} else {
		rc = log_put(b, txn, rev, op->kind == OP_DELETE, &k, disk_mod, op->key,
			     op->value ? block_str(op->value) : STR_NULL);
		if (!rc && b->index)
			rc = table_put(txn, em->keys, op->key, &k);
		else if (!rc)
			rec_set(&b->written, op->key, &k);
		if (rc)
			return rc;
		*wrote = true;
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

/* Writes dirty versions out, but for those that the batch has replaced. */
static int flush_dirty(struct batch *b, MDB_txn *txn)
{
	size_t it = 0;
	struct str key;
	void *v;
	while (map_next(&b->em->dirty, &it, &key, &v)) {
		struct dirty *d = v;
		if (map_has(&b->fresh, key))
			continue;
		int rc = log_put(b, txn, d->k.mod, false, &d->k, d->disk_prev, key, block_str(d->value));
		if (!rc)
			rc = table_put(txn, b->em->keys, key, &d->k);
		if (rc)
			return rc;
		struct dirty *gone = xcalloc(1, sizeof(*gone));
		gone->gone = true;
		set_fresh(b, key, gone);
	}
	return 0;
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

/*
 * A commit writes the page of a key and those above it, for each of its keys: most of what it writes, all over the file. So most
 * commits leave the table of keys as it is, and a later one brings it up to date; after a crash the log tells what it lacks.
 */
static int index_behind(struct batch *b, MDB_txn *txn)
{
	size_t it = 0;
	struct str key;
	void *v;
	int rc = 0;
	while (!rc && map_next(&b->em->behind, &it, &key, &v))
		rc = table_put(txn, b->em->keys, key, v);
	return rc;
}

static int run_ops(struct batch *b, MDB_txn *txn, bool *wrote)
{
	int rc = 0;
	if (b->index && b->em->behind.n) {
		rc = index_behind(b, txn);
		*wrote = true;
	}
	if (!rc && (b->flush || b->clean)) {
		rc = flush_dirty(b, txn);
		if (!rc && b->fresh.n)
			*wrote = b->flushed = true;
	}
	for (struct op *op = b->ops; op && !rc; op = op->next) {
		if (op->err)
			continue; /* refused beforehand */
		if (op->kind == OP_PUT || op->kind == OP_DELETE) {
			rc = run_write(b, txn, op, wrote);
		} else if (op->kind == OP_SYNC) {
			op->ok = true;
		} else {
			rc = run_lease(b, txn, op);
			*wrote = true;
		}
	}
	if (!rc && *wrote && b->sync_dirty && !b->flush && !b->clean) {
		/* Old heartbeats go along; what the batch made of them (fresh) wins and stays dirty. */
		rc = flush_dirty(b, txn);
		b->flushed = true;
	}
	return rc;
}

void run_batch(struct batch *b)
{
	struct embedded *em = b->em;
	MDB_txn *txn;
	bool wrote = false;
	/* What is flushed or cleaned is newer or older than what the table is behind by: it must know all. */
	b->index = b->flush || b->clean || b->sync_dirty || em->disk_full || em->behind.n + b->n > BEHIND_MAX ||
		   (b->compact_to > b->state.compacted && b->compact_to > b->state.indexed);
	int rc = mdb_txn_begin(em->env, NULL, 0, &txn);
	if (!rc) {
		rc = run_ops(b, txn, &wrote);
		bool force = b->compact_to - b->state.compacted > COMPACT_IDLE || b->em->disk_full ||
			     (b->clean && b->compact_to > b->state.compacted);
		if (!rc && b->compact_to > b->state.compacted && (wrote || force)) {
			rc = compact_some(b, txn, 256 + 4 * b->n);
			wrote = true;
		}
		if (!rc && b->clean && (wrote || (b->state.ceiling && !b->state.clean_rev))) {
			b->state.ceiling = 0;
			b->state.clean_rev = b->rev;
			wrote = true;
		} else if (wrote) {
			b->state.clean_rev = 0;
		}
		if (b->index)
			b->state.indexed = b->rev;
		if (!rc && wrote && (em->format < STORE_FORMAT || memcmp(&b->state, &em->state, sizeof(b->state))))
			rc = header_put(txn, em->main, em->cluster, &b->state);
		if (!rc && wrote) {
			rc = mdb_txn_commit(txn);
			b->committed = rc == 0;
		} else {
			mdb_txn_abort(txn);
		}
	}
	if (rc)
		b->err = lmdb_error(rc, "committing");
	MDB_envinfo info;
	if (b->committed && !mdb_env_info(em->env, &info))
		b->file_bytes = (uint64_t)(info.me_last_pgno + 1) * 4096;
}
