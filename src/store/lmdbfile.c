#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/io.h"
#include "store/internal.h"

struct error *lmdb_error(int rc, const char *what)
{
	if (rc == MDB_MAP_FULL)
		return error_status(507, "InsufficientStorage", STORE_FULL_MAP);
	if (rc == ENOSPC || rc == EDQUOT)
		return error_status(507, "InsufficientStorage", STORE_FULL_DISK);
	if (rc > 0)
		return error_sys(rc, "store: %s", what);
	if (rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND)
		return error_status(500, "InternalError", "store: %s: the data file is damaged (%s); restore a snapshot", what,
				    mdb_strerror(rc));
	return error_status(500, "InternalError", "store: %s: %s", what, mdb_strerror(rc));
}

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

int lmdbfile_fill(void *map, size_t bytes)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	if (pages <= 0 || bytes > (uint64_t)pages * (uint64_t)page / 2) {
		errno = ENOMEM;
		return -1;
	}
	return madvise(map, bytes, MADV_POPULATE_READ);
}

/* ---- check ---- */

/* The file format of LMDB 0.9 on a 64-bit machine (lmdb's mdb.c: MDB_page, MDB_node, MDB_meta, MDB_db). */
struct pg_head {
	uint64_t pgno;
	uint16_t pad, flags;
	union {
		struct {
			uint16_t lower, upper;
		};
		uint32_t pages;
	};
};
struct pg_node {
	uint16_t lo, hi, flags, ksize;
};
struct pg_db {
	uint32_t pad;
	uint16_t flags, depth;
	uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};
struct pg_meta {
	uint32_t magic, version;
	uint64_t address, mapsize;
	struct pg_db dbs[2];
	uint64_t last_pg, txnid;
};
enum { PG_BRANCH = 1, PG_LEAF = 2, PG_OVERFLOW = 4, PG_META = 8, PG_LEAF2 = 0x20 };
enum { NODE_BIG = 1, NODE_SUB = 2, NODE_DUP = 4 };
#define LMDB_MAGIC 0xBEEFC0DEu
#define DEPTH_MAX 32

struct check {
	const char *map;    /* the file */
	uint64_t bytes;
	size_t psize;
	uint64_t last;
	uint8_t *seen;      /* one bit a page */
	struct str format;  /* the ~format record, in fmt */
	struct format_record fmt;
};

#define DAMAGED "nothing was changed; restore a snapshot, or move the file away to begin with an empty cluster"

static struct error *damaged(uint64_t pgno, const char *what)
{
	return error_new("the data file is damaged (page %llu: %s): " DAMAGED, (unsigned long long)pgno, what);
}

/* A page and `more` behind it; NULL and *e: they are not all there. */
static const char *page_at(const struct check *c, uint64_t pgno, uint64_t more, struct pg_head *h, struct error **e)
{
	const char *page = c->map + pgno * c->psize;
	if (pgno < 2 || pgno > c->last || more > c->last - pgno)
		*e = damaged(pgno, "page number out of range");
	else if ((pgno + more + 1) * c->psize > c->bytes)
		*e = error_new("the data file is truncated (page %llu is missing): " DAMAGED, (unsigned long long)(pgno + more));
	else if (memcpy(h, page, sizeof(*h)), h->pgno != pgno)
		*e = damaged(pgno, "wrong page number");
	return *e ? NULL : page;
}

static struct error *mark(struct check *c, uint64_t pgno)
{
	if (pgno > c->last)
		return damaged(pgno, "page number out of range");
	if (c->seen[pgno / 8] & (1 << (pgno % 8)))
		return damaged(pgno, "used twice");
	c->seen[pgno / 8] |= (uint8_t)(1 << (pgno % 8));
	return NULL;
}

static struct error *check_tree(struct check *c, uint64_t pgno, int level, int depth, bool main_table);

static struct error *check_leaf_node(struct check *c, uint64_t pgno, const char *page, size_t at, bool main_table, int level)
{
	struct pg_node n;
	memcpy(&n, page + at, sizeof(n));
	size_t size = n.lo | (size_t)n.hi << 16;
	const char *key = page + at + sizeof(n), *data = key + n.ksize;
	size_t room = c->psize - at - sizeof(n);
	if (n.ksize > room)
		return damaged(pgno, "key out of bounds");
	if (n.flags & NODE_BIG) {
		uint64_t ov;
		if (n.ksize + sizeof(ov) > room)
			return damaged(pgno, "node out of bounds");
		memcpy(&ov, data, sizeof(ov));
		uint64_t pages = (size + sizeof(struct pg_head) + c->psize - 1) / c->psize;
		struct pg_head h;
		struct error *e = NULL;
		if (!page_at(c, ov, pages - 1, &h, &e))
			return e;
		if (!(h.flags & PG_OVERFLOW) || h.pages < pages)
			return damaged(ov, "not the overflow page it should be");
		for (uint64_t i = 0; i < h.pages; i++)
			TRY(mark(c, ov + i));
		return NULL;
	}
	if (n.ksize + size > room)
		return damaged(pgno, "node out of bounds");
	if (!main_table)
		return NULL;
	if (n.flags & NODE_SUB) {
		struct pg_db db;
		if (size != sizeof(db))
			return damaged(pgno, "table record of a wrong size");
		memcpy(&db, data, sizeof(db));
		if (db.root != UINT64_MAX)
			return check_tree(c, db.root, level + 1, db.depth, false);
	} else if (n.ksize == 7 && !memcmp(key, "~format", 7) && size == sizeof(c->fmt)) {
		memcpy(&c->fmt, data, sizeof(c->fmt));
		c->format = STR("~format");
	}
	return NULL;
}

/* Recursion is bounded by DEPTH_MAX, work by the bitmap: no page is walked twice. */
static struct error *check_tree(struct check *c, uint64_t pgno, int level, int depth, bool main_table)
{
	if (level >= DEPTH_MAX || depth < 1)
		return damaged(pgno, "tree too deep");
	struct pg_head h;
	struct error *e = NULL;
	const char *page = page_at(c, pgno, 0, &h, &e);
	if (!page)
		return e;
	TRY(mark(c, pgno));
	bool branch = depth > 1;
	if (!(h.flags & (branch ? PG_BRANCH : PG_LEAF)) || (h.flags & (PG_OVERFLOW | PG_META | PG_LEAF2)))
		return damaged(pgno, "not the kind of page it should be");
	if (h.lower < sizeof(h) || h.lower > h.upper || h.upper > c->psize || h.lower % 2)
		return damaged(pgno, "bounds");
	size_t n = (h.lower - sizeof(h)) / 2;
	if (branch && n < 1)
		return damaged(pgno, "empty branch");
	for (size_t i = 0; i < n; i++) {
		uint16_t at;
		memcpy(&at, page + sizeof(h) + 2 * i, 2);
		if (at < h.upper || at + sizeof(struct pg_node) > c->psize)
			return damaged(pgno, "node offset out of bounds");
		if (branch) {
			struct pg_node node;
			memcpy(&node, page + at, sizeof(node));
			if (at + sizeof(node) + node.ksize > c->psize)
				return damaged(pgno, "key out of bounds");
			uint64_t child = node.lo | (uint64_t)node.hi << 16 | (uint64_t)node.flags << 32;
			TRY(check_tree(c, child, level + 1, depth - 1, main_table));
		} else {
			TRY(check_leaf_node(c, pgno, page, at, main_table, level));
		}
	}
	return NULL;
}

static struct error *check_file(struct check *c)
{
	struct pg_meta best = {0};
	c->psize = 4096;
	for (int i = 0; i < 2; i++) {
		struct pg_head h;
		struct pg_meta m;
		uint64_t at = (uint64_t)i * c->psize;
		if (c->bytes < at + sizeof(h) + sizeof(m))
			return error_new("the data file is truncated (%llu bytes): " DAMAGED, (unsigned long long)c->bytes);
		memcpy(&h, c->map + at, sizeof(h));
		memcpy(&m, c->map + at + sizeof(h), sizeof(m));
		if (!(h.flags & PG_META) || m.magic != LMDB_MAGIC)
			return error_new("the data file is damaged or no store at all (page %d has no LMDB header): " DAMAGED, i);
		if (m.version != 1)
			return error_new("the data file has LMDB format %u, this program knows 1: use the version of Skiff "
					 "that wrote it", m.version);
		size_t psize = m.dbs[0].pad;
		if (psize < 512 || psize > 65536 || (psize & (psize - 1)))
			return damaged((uint64_t)i, "page size");
		if (!i)
			c->psize = psize;
		else if (c->psize != psize)
			return damaged(1, "page size");
		if (!i || m.txnid > best.txnid)
			best = m;
	}
	if (best.last_pg > (uint64_t)1 << 44)
		return damaged(0, "last page number");
	c->last = best.last_pg;
	c->seen = xcalloc(1, c->last / 8 + 1);
	/* The free list may name no page that is in use, but that only LMDB relies on; its tree must be sound. */
	if (best.dbs[0].root != UINT64_MAX)
		TRY(check_tree(c, best.dbs[0].root, 0, best.dbs[0].depth, false));
	if (best.dbs[1].root == UINT64_MAX)
		return damaged(0, "no tables");
	TRY(check_tree(c, best.dbs[1].root, 0, best.dbs[1].depth, true));
	if (!c->format.n)
		return error_new("the data file is LMDB's, and damaged or not one of Skiff (it has no format record): nothing was changed; "
				 "restore a snapshot, or give another directory");
	if (c->fmt.bom != STORE_BOM)
		return error_new("the data file was written on a machine of another byte order: nothing was changed");
	if (c->fmt.format > STORE_FORMAT)
		return error_new("the data file was written by a newer Skiff (format %u, this one knows up to %d): nothing was "
				 "changed; use that version, or restore an older snapshot", c->fmt.format, STORE_FORMAT);
	return NULL;
}

struct error *lmdbfile_check(const char *path)
{
	struct check c = {0};
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(errno, "%s", path);
	struct error *e = fstat(fd, &st) ? error_sys(errno, "reading the data file") : NULL;
	if (!e && st.st_size < 8192)
		e = error_new("the data file is truncated (%lld bytes): " DAMAGED, (long long)st.st_size);
	void *map = e ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (!e && map == MAP_FAILED)
		e = error_sys(errno, "reading the data file");
	if (!e && lmdbfile_fill(map, (size_t)st.st_size) && errno == EFAULT)
		e = error_sys(EIO, "reading the data file");
	close(fd);
	if (!e) {
		c.map = map;
		c.bytes = (uint64_t)st.st_size;
		e = check_file(&c);
	}
	if (map != MAP_FAILED)
		munmap(map, (size_t)st.st_size);
	free(c.seen);
	return error_wrap(e, "%s", path);
}

/* ---- create ---- */

struct error *lmdbfile_sync_dir(const char *path)
{
	char *dir = xstrdup(path), *slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct error *e = NULL;
	if (fd < 0 || fsync(fd))
		e = error_sys(errno, "%s", dir);
	if (fd >= 0)
		close(fd);
	free(dir);
	return e;
}

struct error *lmdbfile_publish(const char *tmp, const char *path)
{
	return rename(tmp, path) ? error_sys(errno, "%s", path) : lmdbfile_sync_dir(path);
}

static struct error *create(MDB_env *env, const char *tmp, uint64_t cluster)
{
	static const char *const names[] = {"keys", "log", "leases"};
	struct format_record f = {STORE_FORMAT, STORE_BOM, cluster};
	MDB_val k = {7, (void *)"~format"}, v = {sizeof(f), &f};
	MDB_txn *txn = NULL;
	MDB_dbi dbi;
	int rc;
	if ((rc = mdb_env_set_maxdbs(env, 8)) || (rc = mdb_env_open(env, tmp, MDB_NOSUBDIR | MDB_NOLOCK, 0600)) ||
	    (rc = mdb_txn_begin(env, NULL, 0, &txn)))
		return lmdb_error(rc, "creating the data file");
	for (size_t i = 0; i < 3 && !rc; i++)
		rc = mdb_dbi_open(txn, names[i], MDB_CREATE, &dbi);
	if (!rc && !(rc = mdb_dbi_open(txn, NULL, 0, &dbi)))
		rc = mdb_put(txn, dbi, &k, &v, 0);
	if (rc)
		mdb_txn_abort(txn);
	else
		rc = mdb_txn_commit(txn);
	return rc ? lmdb_error(rc, "creating the data file") : NULL;
}

struct error *lmdbfile_create(const char *path, uint64_t cluster)
{
	char *tmp = xasprintf("%s.new", path);
	MDB_env *env;
	unlink(tmp); /* of a first start that was interrupted */
	int rc = mdb_env_create(&env);
	struct error *e = rc ? lmdb_error(rc, "creating the data file") : NULL;
	if (!e) {
		e = create(env, tmp, cluster);
		mdb_env_close(env);
	}
	if (!e)
		e = lmdbfile_publish(tmp, path);
	if (e)
		unlink(tmp);
	free(tmp);
	return error_wrap(e, "%s", path);
}
