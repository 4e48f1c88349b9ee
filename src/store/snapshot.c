/* Snapshots: files made by store_snapshot_save, looked at and made a store again. They are LMDB files of one table set, complete. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"

#include "loop/io.h"
#include "store/embedded.h"

#define RESTORE_BUMP 1000000000 /* revisions; etcd's advice */

struct snapshot_env {
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi main, keys, log;
	struct format_record format;
	struct state_rec state;
	int64_t last;    /* of the log */
	int64_t indexed; /* see header_get */
};

static void snapshot_close(struct snapshot_env *v)
{
	if (v->txn)
		mdb_txn_abort(v->txn);
	if (v->env)
		mdb_env_close(v->env);
}

static struct error *snapshot_open(const char *path, unsigned flags, struct snapshot_env *v)
{
	MDB_val k, d;
	MDB_cursor *cur = NULL;
	struct stat st;
	int rc;
	*v = (struct snapshot_env){0};
	if (stat(path, &st))
		return error_sys(errno, "%s", path);
	size_t map = (size_t)st.st_size + (16u << 20);
	if ((rc = mdb_env_create(&v->env)) || (rc = mdb_env_set_maxdbs(v->env, 8)) || (rc = mdb_env_set_mapsize(v->env, map & ~(size_t)4095)) ||
	    (rc = mdb_env_open(v->env, path, MDB_NOSUBDIR | MDB_NOLOCK | flags, 0600)) ||
	    (rc = mdb_txn_begin(v->env, NULL, flags & MDB_RDONLY, &v->txn)) || (rc = mdb_dbi_open(v->txn, NULL, 0, &v->main)) ||
	    (rc = mdb_dbi_open(v->txn, "keys", 0, &v->keys)) || (rc = mdb_dbi_open(v->txn, "log", 0, &v->log)) ||
	    (rc = mdb_cursor_open(v->txn, v->log, &cur)))
		return lmdb_error(rc, path);
	struct error *e = NULL;
	if (!(rc = mdb_cursor_get(cur, &k, &d, MDB_LAST)))
		v->last = rev_of(&k);
	else if (rc != MDB_NOTFOUND)
		e = lmdb_error(rc, "reading the log");
	mdb_cursor_close(cur);
	return e ? e : header_get(v->txn, v->main, &v->format, &v->state, &v->indexed);
}

static int64_t revision(const struct snapshot_env *v)
{
	int64_t rev = v->last > v->state.compacted ? v->last : v->state.compacted;
	if (v->state.clean_rev > rev)
		rev = v->state.clean_rev;
	else if (!v->state.clean_rev && v->state.ceiling > rev)
		rev = v->state.ceiling;
	return rev ? rev : 1;
}

struct status_call {
	const char *path;
	struct store_snapshot_status *out;
	struct error *e;
};

/* Of one record; those of all are added: the keys that the table is behind by come in no order. */
static uint64_t hash_of(struct str key, const void *p, size_t n)
{
	return XXH3_64bits_withSeed(p, n, XXH3_64bits(key.p, key.n));
}

static void count_key(struct store_snapshot_status *out, struct str key, const void *rec)
{
	struct key_rec r;
	memcpy(&r, rec, sizeof(r));
	out->keys += r.version != 0;
	out->hash += hash_of(key, rec, sizeof(r));
}

static struct error *status_of(const char *path, struct store_snapshot_status *out)
{
	struct snapshot_env v;
	struct stat st;
	TRY(lmdbfile_check(path));
	struct error *e = snapshot_open(path, MDB_RDONLY, &v);
	struct map tail = {0};
	MDB_cursor *cur = NULL;
	MDB_val k, d;
	int rc = 0;
	*out = (struct store_snapshot_status){0};
	if (!e)
		e = store_log_tail(v.txn, v.log, v.indexed, &tail);
	for (int table = 0; table < 2 && !e; table++) {
		if ((rc = mdb_cursor_open(v.txn, table ? v.log : v.keys, &cur))) {
			e = lmdb_error(rc, path);
			break;
		}
		while (!(rc = mdb_cursor_get(cur, &k, &d, MDB_NEXT)))
			if (table)
				out->hash += hash_of(str_of(k.mv_data, k.mv_size), d.mv_data, d.mv_size);
			else if (d.mv_size == sizeof(struct key_rec) && !map_has(&tail, str_of(k.mv_data, k.mv_size)))
				count_key(out, str_of(k.mv_data, k.mv_size), d.mv_data);
		mdb_cursor_close(cur);
		if (rc != MDB_NOTFOUND)
			e = lmdb_error(rc, path);
	}
	size_t it = 0;
	struct str key;
	void *rec;
	while (map_next(&tail, &it, &key, &rec))
		count_key(out, key, rec);
	map_free_values(&tail, free);
	if (!e && stat(path, &st))
		e = error_sys(errno, "%s", path);
	if (!e) {
		out->revision = v.state.clean_rev > v.last ? v.state.clean_rev : v.last > v.state.compacted ? v.last : v.state.compacted;
		out->bytes = st.st_size;
	}
	snapshot_close(&v);
	return e;
}

static void status_off_loop(void *arg)
{
	struct status_call *c = arg;
	c->e = status_of(c->path, c->out);
}

struct error *store_snapshot_status(const char *snapshot, struct store_snapshot_status *out)
{
	struct status_call c = {.path = snapshot, .out = out};
	loop_offload(status_off_loop, &c);
	return c.e;
}

struct restore {
	const char *from, *dir;
	struct error *e;
};

static struct error *copy_to(int in, int out)
{
	char *p = xmalloc(1 << 20);
	struct error *e = NULL;
	for (;;) {
		ssize_t n = read(in, p, 1 << 20);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			e = error_sys(errno, "reading the snapshot");
		if (n <= 0)
			break;
		for (ssize_t done = 0; done < n && !e;) {
			ssize_t w = write(out, p + done, (size_t)(n - done));
			if (w < 0 && errno != EINTR)
				e = error_sys(errno, "writing the data file");
			else if (w > 0)
				done += w;
		}
		if (e)
			break;
	}
	if (!e && fsync(out))
		e = error_sys(errno, "writing the data file");
	free(p);
	return e;
}

/* Revisions given after the snapshot was saved must never mean other objects to those who have seen them: as etcdutl's --bump-revision. */
static struct error *bump(const char *tmp)
{
	struct snapshot_env v;
	struct error *e = snapshot_open(tmp, 0, &v);
	if (!e) {
		v.state.ceiling = revision(&v) + RESTORE_BUMP;
		v.state.clean_rev = 0;
		v.state.wal = 0; /* it has none */
		e = store_raise(v.txn, v.log, v.keys, v.indexed);
	}
	if (!e) {
		int rc = header_put(v.txn, v.main, v.format.cluster, &v.state);
		if (!rc) {
			rc = mdb_txn_commit(v.txn);
			v.txn = NULL;
		}
		if (rc)
			e = lmdb_error(rc, "writing the revision");
	}
	snapshot_close(&v);
	return e;
}

static struct error *restore(const char *from, const char *dir)
{
	TRY(lmdbfile_check(from));
	char *data = xasprintf("%s/data.mdb", dir), *tmp = xasprintf("%s/data.mdb.new", dir), *lock = xasprintf("%s/lock", dir);
	struct error *e = NULL;
	int in = -1, out = -1, lk = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lk < 0)
		e = error_sys(errno, "%s", lock);
	else if (flock(lk, LOCK_EX | LOCK_NB))
		e = error_new("%s is in use by a running API server: stop it first", dir);
	else if (!access(data, F_OK))
		e = error_new("%s already holds a store: restore into another directory, or move it away", dir);
	else if ((in = open(from, O_RDONLY | O_CLOEXEC)) < 0)
		e = error_sys(errno, "%s", from);
	else if ((out = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
		e = error_sys(errno, "%s", tmp);
	else
		e = copy_to(in, out);
	if (!e)
		e = bump(tmp);
	if (!e)
		e = lmdbfile_publish(tmp, data);
	if (e && out >= 0)
		unlink(tmp);
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	if (lk >= 0)
		close(lk);
	free(data);
	free(tmp);
	free(lock);
	return e;
}

static void restore_off_loop(void *arg)
{
	struct restore *r = arg;
	r->e = restore(r->from, r->dir);
}

struct error *store_restore(const char *snapshot, const char *dir)
{
	struct restore r = {.from = snapshot, .dir = dir};
	TRY(dir_make(dir, 0700));
	loop_offload(restore_off_loop, &r);
	return error_wrap(r.e, "restoring %s", snapshot);
}
