/*
 * store/internal.h: what the engines share: the table of an engine's calls,
 * and the hub, which hands committed events to the watches of this process.
 */
#ifndef SKIFF_STORE_INTERNAL_H
#define SKIFF_STORE_INTERNAL_H

#include "store/store.h"

#define WATCH_QUEUE_MAX 100000 /* events a receiver may be behind */
#define PROGRESS_MS 10000

struct hub_event { /* one committed change, shared by the queues of the watches it concerns */
	unsigned refs;
	struct store_event e;
};
/* Takes the references and the key (malloc'ed) of e. One reference, the caller's. */
struct hub_event *hub_event_new(struct store_event e);
void hub_event_unref(struct hub_event *h);

struct store_watch {
	struct store *s;              /* NULL once the store was closed */
	char *start_p, *end_p;
	struct str start, end;        /* end empty: no upper bound */
	/* History still to be read from the engine: revisions [next, last], then the queue. */
	int64_t hist_next, hist_last;
	struct hub_event **q;         /* ring of cap, a power of two */
	size_t head, n, cap;
	bool expired;                 /* fell behind, or the engine lost the thread */
	struct waitq wait;
	void (*notify)(void *ctx);
	void *ctx;
};

struct hub {
	struct store_watch **v;       /* sorted by start */
	struct str *max_end;          /* of v[0..i]; empty: no bound */
	size_t n, cap;
	int64_t rev;                  /* everything up to here has been offered to the watches */
	struct waitq seen;
};

/* In commit order. Takes the references. `rev`: everything up to it is complete (at least the last event's). */
void hub_publish(struct hub *h, struct hub_event **events, size_t n, int64_t rev);
/* Puts events before those w has queued. Takes the references. */
void hub_prepend(struct store_watch *w, struct hub_event **events, size_t n);
/* All watches answer 410 Expired from now on: events may have been missed. */
void hub_expire(struct hub *h);

struct store_ops {
	void (*close)(struct store *s);
	struct error *(*current)(struct store *s, int64_t *rev);
	struct error *(*get)(struct store *s, struct str key, int64_t rev, bool *found, struct store_kv *out);
	/* view NULL: with all values; else *view, NULL, may be set. */
	struct error *(*range)(struct store *s, struct str start, struct str end, int64_t *rev, size_t limit,
			       bool (*each)(void *ctx, struct store_kv *kv), void *ctx, struct store_view **view);
	struct error *(*view_value)(struct store_view *v, struct str key, int64_t mod_rev, struct str *value);
	void (*view_end)(struct store_view *v);
	struct error *(*count)(struct store *s, struct str start, struct str end, size_t *n);
	struct error *(*put)(struct store *s, struct str key, struct str value, int64_t expect, int64_t lease, unsigned flags,
			     struct block *cookie, bool *ok, int64_t *rev, struct store_kv *now);
	struct error *(*del)(struct store *s, struct str key, int64_t expect, bool *ok, int64_t *rev, struct store_kv *now);
	/* 410 when a watch from `from` would miss something. */
	struct error *(*watch_check)(struct store *s, int64_t from);
	/* The first event of w's range in [w->hist_next, w->hist_last]; moves hist_next behind it. *got false: none is left. */
	struct error *(*history)(struct store *s, struct store_watch *w, struct store_event *e, bool *got);
	/* NULL, or instead of history: queues (hub_prepend) the events of w's range in (from, last]. May suspend. */
	struct error *(*catch_up)(struct store *s, struct store_watch *w, int64_t from, int64_t last);
	struct error *(*grant)(struct store *s, int64_t ttl_ms, int64_t *id);
	struct error *(*keepalive)(struct store *s, int64_t id);
	struct error *(*revoke)(struct store *s, int64_t id);
	struct error *(*sync)(struct store *s); /* NULL: nothing is kept back */
	struct error *(*compact)(struct store *s, int64_t rev);
	struct error *(*save)(struct store *s, const char *path);
	void (*stats)(struct store *s, struct store_stats *out);
	/* NULL, or: somebody has waited in vain for revision rev to be shown. */
	void (*late)(struct store *s, int64_t rev);
};

struct store { /* first member of every engine's struct */
	const struct store_ops *ops;
	struct hub hub;
	int64_t history_ms;
};
struct store_view { /* first member of every engine's struct */
	struct store *s;
};
#define HISTORY_MS 300000 /* unless it was said */

struct error *embedded_open(const struct store_opts *o, struct store **out);
struct error *etcd_open(const struct store_opts *o, struct store **out);

struct error *store_expired(int64_t rev, int64_t compacted);
static inline bool in_range(struct str key, struct str start, struct str end)
{
	return str_cmp(key, start) >= 0 && (!end.n || str_cmp(key, end) < 0);
}

/* ---- the LMDB file (lmdbfile.c) ---- */

#define STORE_FORMAT 3 /* 1: no write-ahead log; 2: nor that, and the table of keys may lack the log's end */
#define STORE_BOM 0x01020304u
#define STORE_FULL_DISK "no space left on the store's disk: the write was not done; free some space and try again"
#define STORE_FULL_MAP "the store is full: its file has reached the size limit; delete objects or raise the limit"

struct format_record { /* key "~format" of the main table */
	uint32_t format, bom;
	uint64_t cluster;
};
/*
 * Walks the B-trees of an LMDB 0.9 data file and changes nothing: every reachable page must be there, be what its parent says, and
 * hold nodes inside its bounds. LMDB itself trusts its file: a damaged one would crash the process.
 * `made` (or NULL) gets false for a file of the right kind without Skiff's tables.
 */
struct error *lmdbfile_check(const char *path);
/* Maps all of a mapped file in at once, unless it is large for the machine. -1 and errno: EFAULT for what the disk does not give. */
int lmdbfile_fill(void *map, size_t bytes);
/* A new, empty store file at path, complete and on disk when it appears. */
struct error *lmdbfile_create(const char *path, uint64_t cluster);
/* fsync of the directory that holds path. */
struct error *lmdbfile_sync_dir(const char *path);
/* Gives the file tmp, which is on disk, the name path for good. */
struct error *lmdbfile_publish(const char *tmp, const char *path);
struct error *lmdb_error(int rc, const char *what);

#endif
