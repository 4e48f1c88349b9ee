/*
 * store/embedded.h: the embedded engine's own state, shared by its files:
 * embedded.c (queue, publishing, leases, opening), batch.c (the commit
 * thread's transaction) and read.c (reads on the loop).
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
#define BEHIND_MAX 256          /* keys whose records the table is behind by: written together with the batch that would exceed it */
#define DIRTY_SYNC_MS 60000    /* dirty heartbeats older than this go with the next synced write */
#define DIRTY_MAX_MS 600000    /* and are flushed without one after this */
/* Kept allocated behind the file's last page: for what the table of keys is behind by, three pages a key at most, and as FREE_BYTES. */
#define RESERVE_BYTES (4u << 20)
#define GROW_BYTES (8u << 20)
#define FREE_BYTES (1u << 20)  /* kept free inside the file on a full disk: deletes need room */
#define AGE_SAMPLE_MS 10000
#define COMPACT_IDLE 10000     /* records: so many are cleaned even without writes to go with */
#define LEASES_MAX 100000
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
	int64_t indexed;   /* the table of keys knows all records of the log up to here. Since format 2; in format 1 it knew all */
};
#define STATE_V1_SIZE offsetof(struct state_rec, indexed)

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
	int64_t log_last;         /* in and out: no record of the log is newer */
	bool index;               /* the table of keys gets what it is behind by, and this batch's own keys */
	/* results */
	struct error *err;        /* the whole batch failed */
	struct map fresh;         /* key -> struct dirty: changes of em->dirty */
	struct map written;       /* key -> struct key_rec: changes of em->behind */
	struct state_rec state;
	bool committed, flushed;
	uint64_t file_bytes;
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
	int64_t log_last;         /* no record of the log is newer */
	int64_t gap_lo, gap_hi;   /* revisions lost in a crash: nobody may watch from between */
	uint32_t format;          /* of the file, until a commit raises it */
	struct map behind;        /* key -> struct key_rec: newest version in the log, which the table of keys does not know yet */
	struct map dirty;
	int64_t dirty_since;      /* oldest, ms */
	struct map leases;        /* 8-byte id -> struct lease */
	int64_t live_keys, commits;
	MDB_txn *spare;           /* a reset read transaction */
	void *map;                /* where LMDB has mapped the file; NULL: not found */
	size_t map_n;
	int64_t trimmed_commits;  /* commits when it was last trimmed */
	size_t touched;           /* bytes read through it since */
	int64_t touched_at;       /* when last, ms */
	bool filled;              /* the whole file is mapped in, for the caches' first reading; until the store is idle */
	struct age ages[64];      /* ring: revision reached at a time */
	size_t age_head, age_n;
	uint64_t allocated;       /* bytes of the file with disk blocks behind them */
	bool disk_full;

	struct op *head, **tail;
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
/* The two records of the main table. last: the log's last revision. Writing makes the file's format this version's. */
struct error *header_get(MDB_txn *txn, MDB_dbi main, int64_t last, struct format_record *f, struct state_rec *st);
int header_put(MDB_txn *txn, MDB_dbi main, uint64_t cluster, const struct state_rec *st); /* LMDB's codes */
static inline MDB_val val(struct str s)
{
	return (MDB_val){s.n, (void *)s.p};
}
struct error *damaged_record(int64_t rev);
/* Parses and verifies a log record; key and value point into v. */
struct error *log_parse(const MDB_val *v, int64_t rev, struct log_rec *r, struct str *key, struct str *value);
int log_get(MDB_txn *txn, MDB_dbi log, int64_t rev, MDB_val *v);
/* key -> the newest struct key_rec (malloc'ed) of what the log holds behind revision `indexed`, into m. */
struct error *store_log_tail(MDB_txn *txn, MDB_dbi log, int64_t indexed, struct map *m);
void key_recs_free(struct map *m); /* such a map with its values */
/* What the table of keys says, or will say. A key that is not there gives a zeroed record. */
int key_get(const struct embedded *em, MDB_txn *txn, struct str key, struct key_rec *out);
void dirty_free(struct dirty *d);
/* On the commit thread: evaluates and commits the batch; touches nothing of em but the LMDB environment. */
void run_batch(struct batch *b);

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
		       bool (*each)(void *ctx, struct store_kv *kv), void *ctx);
struct error *em_count(struct store *s, struct str start, struct str end, size_t *n);
struct error *em_watch_check(struct store *s, int64_t from);
struct error *em_history(struct store *s, struct store_watch *w, struct store_event *e, bool *got);

#endif
