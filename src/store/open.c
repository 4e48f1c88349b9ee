/* Opening the embedded engine's directory: lock, data.mdb, data.wal, and what is read from them. */
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
	if (!r->version || !r->lease)
		return;
	/* Revoked by the very commit that gave it the key, which a crash kept from being deleted: the lease has ended. */
	if (!map_has(&em->leases, str_of((const char *)&r->lease, sizeof(r->lease))))
		lease_add(em, r->lease, 0);
	lease_move(em, key, 0, r->lease);
}

static struct error *raise_format_2(struct embedded *em, int64_t indexed)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(em->env, NULL, 0, &txn);
	if (rc)
		return lmdb_error(rc, "opening");
	struct error *e = store_raise(txn, em->log, em->keys, indexed);
	if (!e)
		rc = header_put(txn, em->main, em->cluster, &em->state);
	if (e || rc)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);
	return e ? e : rc ? lmdb_error(rc, "raising the data file's format") : NULL;
}

static struct error *load_header(struct embedded *em)
{
	MDB_txn *txn;
	int64_t indexed = INT64_MAX;
	struct format_record f;
	int rc = mdb_txn_begin(em->env, NULL, MDB_RDONLY, &txn);
	if (rc)
		return lmdb_error(rc, "opening");
	struct error *e = NULL;
	if ((rc = mdb_dbi_open(txn, NULL, 0, &em->main)) || (rc = mdb_dbi_open(txn, "keys", 0, &em->keys)) ||
	    (rc = mdb_dbi_open(txn, "log", 0, &em->log)) || (rc = mdb_dbi_open(txn, "leases", 0, &em->lease_t)))
		e = lmdb_error(rc, "opening");
	else
		e = header_get(txn, em->main, &f, &em->state, &indexed);
	/* Committing a read transaction keeps its table handles. */
	if (e)
		mdb_txn_abort(txn);
	else if ((rc = mdb_txn_commit(txn)))
		e = lmdb_error(rc, "opening");
	if (e)
		return e;
	em->cluster = f.cluster;
	return indexed == INT64_MAX ? NULL : raise_format_2(em, indexed);
}

/* em->log_last is known. */
static struct error *load_wal(struct embedded *em)
{
	char *path = xasprintf("%s/data.wal", em->dir);
	struct error *e = wal_open(path, em->cluster, &em->wal);
	if (em->state.wal) { /* it may hold what was acknowledged */
		if (e && error_is_sys(e, ENOENT)) {
			error_free(e);
			e = error_new("%s is missing, the newest writes are in it: put it back; without it a new store can be made of data.mdb "
				      "with 'skiff snapshot restore'", path);
		}
		if (!e)
			e = wal_read(&em->wal, em->state.wal, em->log_last, &em->tail);
	} else if (e || em->wal.bytes != WAL_BYTES) {
		error_free(e);
		wal_close(&em->wal);
		e = wal_create(path, em->cluster);
		if (!e)
			e = wal_open(path, em->cluster, &em->wal);
		else if (error_is_sys(e, ENOSPC) || error_is_sys(e, EDQUOT)) {
			log_and_free(e, "store: there is no room for a write-ahead log; until the next start each write goes to the data file, which takes longer");
			e = NULL;
		}
	}
	free(path);
	return e;
}

static struct error *load(struct embedded *em, MDB_txn *txn)
{
	MDB_cursor *cur;
	MDB_val k, v;
	int64_t last = 0;
	int rc;
	if ((rc = mdb_cursor_open(txn, em->log, &cur)))
		return lmdb_error(rc, "opening");
	rc = mdb_cursor_get(cur, &k, &v, MDB_LAST);
	if (!rc)
		last = rev_of(&k);
	mdb_cursor_close(cur);
	if (rc && rc != MDB_NOTFOUND)
		return lmdb_error(rc, "reading the log");
	em->log_last = last;
	TRY(load_wal(em));
	if (em->tail.n)
		last = em->tail.v[em->tail.n - 1].rev;
	if (em->state.compacted > last)
		last = em->state.compacted;
	em->compacted = em->state.compacted;
	em->s.hub.rev = last;
	if (em->state.clean_rev > last) {
		em->s.hub.rev = em->state.clean_rev;
	} else if (!em->state.clean_rev && em->state.ceiling > last) {
		em->gap_lo = last;
		em->gap_hi = em->s.hub.rev = em->state.ceiling + 1; /* that one may have been given too */
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
		if (!tail_find(&em->tail, key))
			load_key(em, key, &r);
	}
	mdb_cursor_close(cur);
	if (rc != MDB_NOTFOUND)
		return lmdb_error(rc, "reading the keys");
	for (size_t i = 0; i < em->tail.n; i++) {
		struct key_rec r = tail_version(&em->tail.v[i]);
		if (!em->tail.v[i].replaced)
			load_key(em, tail_key(&em->tail.v[i]), &r);
	}
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
	TRY(load_header(em));
	MDB_txn *txn;
	rc = mdb_txn_begin(em->env, NULL, MDB_RDONLY, &txn);
	if (rc)
		return lmdb_error(rc, "opening");
	struct error *e = load(em, txn);
	mdb_txn_abort(txn);
	if (!e && (em->data_fd = open(data, O_RDWR | O_CLOEXEC)) < 0)
		e = error_sys(errno, "%s", data);
	if (!e) {
		find_map(em);
		MDB_envinfo info;
		map_fill(em, mdb_env_info(em->env, &info) ? 0 : (uint64_t)(info.me_last_pgno + 1) * 4096);
	}
	return e;
}

/* The write-ahead log first: a data file without one would have lost writes. One of a data file that went away is kept. */
static struct error *create(const char *dir, const char *data)
{
	char *wal = xasprintf("%s/data.wal", dir), *old = xasprintf("%s.old", wal);
	uint64_t cluster = random_u64();
	struct error *e = rename(wal, old) && errno != ENOENT ? error_sys(errno, "%s", wal) : wal_create(wal, cluster);
	if (!e)
		e = lmdbfile_create(data, cluster);
	if (!e)
		e = lmdbfile_sync_dir(dir); /* which may be new itself */
	free(wal);
	free(old);
	return e;
}

struct error *em_open(struct embedded *em, const struct store_opts *o)
{
	TRY(dir_make(o->dir, 0700));
	TRY(lock_dir(em));
	char *data = xasprintf("%s/data.mdb", em->dir);
	struct error *e = NULL;
	if (access(data, F_OK)) {
		if (errno != ENOENT)
			e = error_sys(errno, "%s", data);
		else
			e = create(em->dir, data);
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
