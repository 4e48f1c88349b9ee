/*
 * store/embedded.h: the embedded engine's own state, shared by its files:
 * embedded.c (queue, publishing, leases), batch.c (the commit thread's
 * work), wal.c (the write-ahead log), tail.c (what it holds, in memory),
 * open.c, and read.c (reads on the loop).
 */
#ifndef SKIFF_STORE_EMBEDDED_H
#define SKIFF_STORE_EMBEDDED_H

#include <lmdb.h>
#include <pthread.h>

#include "base/map.h"
#include "store/internal.h"

#define BATCH_OPS 4096
#define BATCH_BYTES (32u << 20)
#define CEILING_STEP 4096
#define WAL_BYTES (4 << 20)
/*
 * Records in the log's tail, and their bytes: the commit that would exceed either is a checkpoint. LMDB never gives back the memory of
 * the pages that its largest transaction changed.
 */
#define TAIL_MAX 1024
#define TAIL_BYTES (1u << 20)
#define TAIL_IDLE (256u << 10)  /* bytes of the log: more memory than this is given back by a checkpoint, when idle */
#define TAIL_MS 60000           /* or after this */
#define DIRTY_SYNC_MS 60000    /* dirty heartbeats older than this go with the next synced write */
#define DIRTY_MAX_MS 600000    /* and are flushed without one after this */
#define GROW_BYTES (8u << 20)  /* kept allocated behind the file's last page, or more if a checkpoint of the tail may need it */
#define FREE_BYTES (1u << 20)  /* kept free inside the file on a full disk: deletes need room */
#define FULL_LOG_MS 10000
#define AGE_SAMPLE_MS 10000
#define COMPACT_IDLE 10000     /* records: so many are cleaned even without writes to go with */
#define LEASES_MAX 100000
#define VIEWS_MAX 64            /* each has a read transaction, of which LMDB has 126; who gets none reads on the loop */
#define TRIM_COMMITS 256        /* the mapping is trimmed after so many, when idle */
#define TRIM_BYTES (64u << 20)  /* at once after reading so much, */
#define TRIM_MS 5000            /* or any after this */

struct key_rec {
	int64_t mod, create, version, lease; /* version 0: tombstone */
};
struct log_rec {
	uint32_t sum;     /* over all that follows */
	uint8_t is_delete, pad;
	uint16_t key_n;
	int64_t create, version, lease, prev;
};
struct state_rec {
	int64_t compacted; /* log records up to here have been cleaned */
	int64_t ceiling;   /* revisions up to here may have been given to NOSYNC writes */
	int64_t clean_rev; /* > 0: closed cleanly at this revision */
	uint64_t wal;      /* id of the write-ahead log whose frames continue this state; 0: none does */
};

struct dirty { /* the newest version of a key that is not on disk yet */
	struct key_rec k;
	int64_t disk_prev; /* revision of the version on disk, 0: none */
	struct block *value;
	bool gone;         /* in a batch's `fresh` only: disk is newer again */
};

enum op_kind { OP_PUT, OP_DELETE, OP_GRANT, OP_REVOKE, OP_SYNC };
struct op { /* on its writer's stack; the writer waits until done */
	struct op *next;
	enum op_kind kind;
	struct str key;
	struct block *value, *cookie;
	int64_t expect, lease, lease_ttl, if_lease;
	unsigned flags;
	/* results */
	bool ok, done;
	int64_t rev;
	struct key_rec now;       /* what was there before */
	struct block *now_value;  /* when !ok and there is something */
	struct key_rec made;      /* put: the new version */
	struct error *err;
	struct waitq wait;
};

struct lease {
	int64_t id, ttl_ms, deadline;
	struct map keys;          /* key -> lease (only presence counts) */
};

/* ---- the log's tail: what the write-ahead log holds, in memory (wal.c, tail.c) ---- */

struct wal {
	int fd;                   /* -1: there is none, each commit is a checkpoint */
	uint64_t bytes, at;       /* its size; where the next frame goes */
	char *mem;                /* as large: frames are put together here, each where it stands in the file, and stay until a checkpoint */
};
struct frame { /* one commit's records, as they are written */
	char *p;
	size_t n;
	bool logged;              /* p is in the log's memory; else malloc'ed: there is no log, or no room in it */
};
struct tail_rec {
	int64_t rev;
	MDB_val record;           /* as it will stand in the log's table; in a frame's memory */
	uint32_t hash;            /* of its key */
	bool replaced;            /* there is a newer one of its key */
};
struct tail {
	struct tail_rec *v;       /* by revision */
	size_t n, cap, bytes;
	uint32_t *slots;          /* by the keys' hashes, 2 * cap: place in v of a key's newest record, from 1; 0: free */
};

struct embedded;
struct batch {
	struct embedded *em;
	struct op *ops;
	size_t n;
	bool flush;               /* write all dirty ones */
	bool clean;               /* and the clean mark: closing */
	bool sync_dirty;          /* dirty ones are old enough to go with a commit */
	int64_t rev;              /* in: last revision; out: the same after the batch */
	int64_t compact_to;
	int64_t log_last;         /* in and out: no record of the log's table is newer */
	uint64_t wal_next;        /* the write-ahead log's id after a checkpoint */
	bool checkpoint;          /* in: wanted; out: done */
	/* results */
	struct error *err;        /* the whole batch failed */
	struct map fresh;         /* key -> struct dirty: changes of em->dirty */
	struct frame frame;
	struct state_rec state;
	bool committed, flushed;
	bool revokes;             /* a lease was revoked by an operation before this one */
	int wal_err;              /* errno of the write-ahead log; the batch went to the data file then */
};

struct age {
	int64_t ms, rev;
};

struct embedded {
	struct store s;
	MDB_env *env;
	MDB_dbi main, keys, log, lease_t;
	int lock_fd, data_fd;
	char *dir;
	uint64_t cluster;
	struct state_rec state;   /* as on disk */
	int64_t compacted;        /* reads below answer 410 */
	int64_t log_last;         /* no record of the log's table is newer */
	int64_t gap_lo, gap_hi;   /* revisions lost in a crash: nobody may watch from between */
	struct wal wal;
	struct tail tail;         /* committed, but not in the data file yet */
	struct tail added;        /* what the running batch adds to it, in its frame */
	int64_t tail_since;       /* ms */
	struct map dirty;
	int64_t dirty_since;      /* oldest, ms */
	struct map leases;        /* 8-byte id -> struct lease */
	int64_t live_keys, commits;
	int views;
	MDB_txn *spare;           /* a reset read transaction of the loop's, */
	MDB_txn *commit_spare;    /* and one of the commit thread's */
	void *map;                /* where LMDB has mapped the file; NULL: not found */
	size_t map_n;
	int64_t trimmed_commits;  /* commits when it was last trimmed */
	size_t touched;           /* bytes read through it since */
	int64_t touched_at;       /* when last, ms */
	bool filled;              /* the whole file is mapped in, for the caches' first reading; until the store is idle */
	struct age ages[64];      /* ring: revision reached at a time */
	size_t age_head, age_n;
	uint64_t allocated;       /* bytes of the file with disk blocks behind them */
	const char *full;         /* why there is no room for writes; NULL: there is */
	int64_t refused_at;       /* ms: when a write last was; 0: never; told once until none was for FULL_LOG_MS */
	bool doubt;               /* a frame of writes that were refused may be whole in the log: the next batch voids it */
	int64_t failed_at;        /* ms: when the last batch failed; 0: it did not */

	struct op *head, **last;  /* the queue */
	bool closing;
	struct waitq work, lease_wait;
	struct fiber *committer, *leaser;
	/* commit thread */
	pthread_t thread;
	pthread_mutex_t mu;
	pthread_cond_t cond;
	struct batch *handed;
	bool quit;
	struct loop *loop;
	bool batch_done;
	struct waitq batch_wait;
};

static inline struct embedded *of(struct store *s)
{
	return (struct embedded *)s;
}

/* ---- records (batch.c) ---- */

void rev_key(int64_t rev, uint8_t out[8]);
int64_t rev_of(const MDB_val *k);
/*
 * The two records of the main table. *indexed: the table of keys knows the log's records up to here; all of them (INT64_MAX) but in
 * format 2, which had no write-ahead log. Writing makes the file's format this version's.
 */
struct error *header_get(MDB_txn *txn, MDB_dbi main, struct format_record *f, struct state_rec *st, int64_t *indexed);
int header_put(MDB_txn *txn, MDB_dbi main, uint64_t cluster, const struct state_rec *st); /* LMDB's codes */
static inline MDB_val val(struct str s)
{
	return (MDB_val){s.n, (void *)s.p};
}
struct error *damaged_record(int64_t rev);
/* Parses and verifies a log record; key and value point into v. */
struct error *log_parse(const MDB_val *v, int64_t rev, struct log_rec *r, struct str *key, struct str *value);
/* The version that the record of revision rev makes. */
static inline struct key_rec log_version(const struct log_rec *r, int64_t rev)
{
	return (struct key_rec){.mod = rev, .create = r->create, .version = r->is_delete ? 0 : r->version, .lease = r->lease};
}
/* The record of revision rev, from the tail or the table. LMDB's codes. */
int log_get(const struct embedded *em, MDB_txn *txn, int64_t rev, MDB_val *v);
/* key -> the newest struct key_rec (malloc'ed) of what the log's table holds behind revision `indexed`, into m. */
struct error *store_log_tail(MDB_txn *txn, MDB_dbi log, int64_t indexed, struct map *m);
/* Format 2 left the table of keys behind: brings it up to date, as the formats after it expect it. */
struct error *store_raise(MDB_txn *txn, MDB_dbi log, MDB_dbi keys, int64_t indexed);
/* A key's newest version on disk. A key that is not there gives a zeroed record. */
int key_get(const struct embedded *em, MDB_txn *txn, struct str key, struct key_rec *out);
int table_put(MDB_txn *txn, MDB_dbi keys, struct str key, const struct key_rec *r);
void dirty_free(void *dirty); /* struct dirty *, or NULL */
/* On the commit thread: evaluates and commits the batch; touches nothing of em but the LMDB environment, and the log's file. */
void run_batch(struct batch *b);

/* ---- opening (open.c) ---- */

/* The directory of o: made, locked, and its files opened and read. What is open after an error, em_free closes. */
struct error *em_open(struct embedded *em, const struct store_opts *o);
void lease_add(struct embedded *em, int64_t id, int64_t ttl_ms);
void lease_move(struct embedded *em, struct str key, int64_t from, int64_t to); /* ids; 0: none */

/* ---- the write-ahead log (wal.c) ---- */

/* For items of so many bytes together. Frames do not overlap: each is committed or given up before the next begins. */
void frame_begin(struct frame *f, const struct wal *w, size_t bytes);
void frame_end(struct frame *f);         /* gives its memory back, unless it is the log's */
size_t frame_item(size_t record);        /* bytes that a record takes in a frame */
char *frame_add(struct frame *f, int64_t rev, size_t bytes); /* where the record is to be written */

/* ---- the log's tail (tail.c) ---- */

void tail_add(struct tail *t, int64_t rev, MDB_val record); /* newer than all in it; whole, and stays where it is */
void tail_join(struct tail *t, struct tail *more); /* puts it behind; more is empty then */
struct str tail_key(const struct tail_rec *r); /* points into the record */
struct key_rec tail_version(const struct tail_rec *r);
const struct tail_rec *tail_find(const struct tail *t, struct str key); /* the newest of the key, until the tail changes; or NULL */
bool tail_get(const struct tail *t, int64_t rev, MDB_val *v);
size_t tail_from(const struct tail *t, int64_t rev); /* index of the first that is not older */
void tail_clear(struct tail *t); /* empty, with the memory it has */
void tail_free(struct tail *t);

/* A log without frames, complete and on disk when it appears. */
struct error *wal_create(const char *path, uint64_t cluster);
/* ENOENT: there is none. The errors of this and the next say what to do. */
struct error *wal_open(const char *path, uint64_t cluster, struct wal *w);
/* Reads the frames of log `id` into t, which is empty; their records must be newer than `last`. */
struct error *wal_read(struct wal *w, uint64_t id, int64_t last, struct tail *t);
int wal_write(const struct wal *w, uint64_t id, struct frame *f); /* one that is `logged`. errno; on disk when it returns */
void wal_wrote(struct wal *w, const struct frame *f); /* it counts: the next one goes behind it */
void wal_void(struct wal *w); /* after a checkpoint: the next one goes to the beginning */
void wal_trim(struct wal *w); /* gives memory back that no frame uses */
void wal_close(struct wal *w); /* its frames' memory goes with it */

/* ---- reads (read.c) ---- */

/*
 * Gives the mapped pages back to the page cache: what the cache above holds need not count as this process's memory a second time.
 */
void map_trim(struct embedded *em);
/*
 * Maps the whole file in at once, when it is not large for the machine: the caches are about to read all of it, in another order than
 * it lies in, and a page fault for each record takes longer than the reading.
 */
void map_fill(struct embedded *em, uint64_t used);
struct error *em_current(struct store *s, int64_t *rev);
struct error *em_get(struct store *s, struct str key, int64_t rev, bool *found, struct store_kv *out);
struct error *em_range(struct store *s, struct str start, struct str end, int64_t *rev, size_t limit,
		       bool (*each)(void *ctx, struct store_kv *kv), void *ctx, struct store_view **view);
struct error *em_view_value(struct store_view *v, struct str key, int64_t mod_rev, struct str *value);
void em_view_end(struct store_view *v);
struct error *em_count(struct store *s, struct str start, struct str end, size_t *n);
struct error *em_watch_check(struct store *s, int64_t from);
struct error *em_history(struct store *s, struct store_watch *w, struct store_event *e, bool *got);

#endif
