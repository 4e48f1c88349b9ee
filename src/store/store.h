/*
 * store/store.h: a revisioned key-value store with watches: what the API
 * server stands on. Two engines: embedded (LMDB) and etcd v3.
 *
 * It holds bytes and knows nothing of objects. Semantics are etcd's: one
 * int64 revision for the whole store, raised by one for each write; a key has
 * a create revision, a modification revision and a version; watches deliver
 * every event after a revision in order, each exactly once, or say Compacted.
 *
 * Only the API server opens a store. All calls are made on fibers of the loop
 * that opened it. A write has been made durable (fsync) when its call returns,
 * unless STORE_NOSYNC was given.
 */
#ifndef SKIFF_STORE_STORE_H
#define SKIFF_STORE_STORE_H

#include "base/ref.h"
#include "loop/fiber.h"

#define STORE_KEY_MAX 480            /* bytes; LMDB's limit is 511 */
#define STORE_VALUE_MAX (1536 * 1024) /* etcd's default request limit, 1.5 MiB */

struct store;

struct store_kv {
	struct str key;
	struct block *value;  /* one reference, the receiver's; NULL in a delete event */
	int64_t create_rev, mod_rev, version;
	int64_t lease;        /* 0: none */
};
void store_kv_free(struct store_kv *kv); /* unrefs value, frees key */

struct store_opts {
	const char *dir;             /* embedded engine: directory, made when missing */
	const char *etcd_servers;    /* or comma-separated URLs: the etcd engine */
	const char *etcd_ca, *etcd_cert, *etcd_key;
	size_t map_size;             /* embedded: upper limit of the file, default 64 GiB (sparse) */
	int64_t history_ms; /* revisions younger than this are kept for watches and exact reads; default 300,000 */
};
/* Errors say what to do: a newer format version, a corrupted file (nothing is changed), no permission, locked by another process. */
struct error *store_open(const struct store_opts *o, struct store **out);
void store_close(struct store *s);

/* The last committed revision. For etcd: of the last answer or event seen. */
int64_t store_revision(const struct store *s);
/* How long revisions are kept, as it was opened. */
int64_t store_history_ms(const struct store *s);
/* A revision no older than any write acknowledged before the call (linearizable). */
struct error *store_current(struct store *s, int64_t *rev);

/* rev 0: newest. *found false: no such key. 410 Expired when rev was compacted. */
struct error *store_get(struct store *s, struct str key, int64_t rev, bool *found, struct store_kv *out);

/* [start, end) in key order (an empty end: no upper bound), at revision rev (0: newest; *rev is set to the one read). At most
 * `limit` (0: all); each is called in turn, may take kv->value by setting it NULL, must not wait, and stops the range by
 * returning false. kv->key is borrowed. 410 Expired when *rev was compacted. */
struct error *store_range(struct store *s, struct str start, struct str end, int64_t *rev, size_t limit,
			  bool (*each)(void *ctx, struct store_kv *kv), void *ctx);
struct error *store_count(struct store *s, struct str start, struct str end, size_t *n);

/*
 * store_range for who reads much, and not on the loop's thread alone: a value that lies apart from its key is not fetched (kv->value is
 * NULL), but found in *view, which is of the same moment. *view NULL: all values came with their keys.
 */
struct store_view;
struct error *store_range_view(struct store *s, struct str start, struct str end, int64_t *rev, size_t limit,
			       bool (*each)(void *ctx, struct store_kv *kv), void *ctx, struct store_view **view);
/* Borrowed until the view ends. On any thread, one call of a view at a time. */
struct error *store_view_value(struct store_view *v, struct str key, int64_t mod_rev, struct str *value);
void store_view_end(struct store_view *v); /* on the loop's thread, before store_close; NULL is allowed */

#define STORE_ANY (-1) /* `expect`: whatever is there */
/*
 * For renewals of Leases that nobody needs after a crash: the write is visible at once but kept in memory, and reaches the disk with
 * a synced write once a minute old, else within ten minutes, and at store_close. After a crash the key may hold an older version;
 * revisions are never given twice. Reads at old revisions may skip versions written so.
 */
enum { STORE_NOSYNC = 1 };
/*
 * Writes if the key's mod_rev is `expect` (0: must not exist). *ok false: it was not, and *now (if not NULL) holds what is there
 * (now->mod_rev 0: nothing). *rev: the write's revision. `cookie` (or NULL) is handed to watchers of this process with the event.
 * A full disk or map: status 507 "InsufficientStorage"; nothing written.
 */
struct error *store_put(struct store *s, struct str key, struct str value, int64_t expect, int64_t lease, unsigned flags,
			struct block *cookie, bool *ok, int64_t *rev, struct store_kv *now);
/* As store_put. There is no such key: *ok false and now->mod_rev 0, also with STORE_ANY. */
struct error *store_delete(struct store *s, struct str key, int64_t expect, bool *ok, int64_t *rev, struct store_kv *now);

struct store_event {
	bool is_delete;
	struct store_kv kv;        /* delete: key and mod_rev = the delete's revision */
	int64_t prev_rev;          /* revision of the version before, 0: none (or not known) */
	struct block *cookie;      /* of the put, or NULL */
};
void store_event_free(struct store_event *e);
struct store_watch;
/* Events of [start, end) with revision > from. 410 Expired when `from` is compacted away. */
struct error *store_watch_open(struct store *s, struct str start, struct str end, int64_t from, struct store_watch **out);
/* The next event; suspends. *progress (when not NULL): set to the revision the watch has seen completely, at least each 10 s: then
 * e->kv.key is empty. A receiver more than 100,000 events behind gets 410. */
struct error *store_watch_next(struct store_watch *w, struct store_event *e, int64_t *progress);
/*
 * The same without suspending: *got false when there is nothing now; then *progress (when not NULL) is the revision seen completely.
 * `notify` is called on the loop's thread, outside the receiver's fibers, when there is news (an event, progress or an error);
 * events of this process's own writes are announced before store_put and store_delete return, so a receiver that drains
 * in `notify` has seen the write when its writer goes on. `notify` must not wait and must not open or close watches.
 */
struct error *store_watch_poll(struct store_watch *w, struct store_event *e, bool *got, int64_t *progress);
void store_watch_notify(struct store_watch *w, void (*notify)(void *ctx), void *ctx);
/* Suspends until every watch of this store has been offered everything up to rev: store_revision(s) >= rev. ETIMEDOUT after ms. */
struct error *store_wait_seen(struct store *s, int64_t rev, int64_t ms);
void store_watch_close(struct store_watch *w);

/* Leases: keys put with one vanish (as deletes, in order) when ttl_ms passes without keep-alive. */
struct error *store_lease_grant(struct store *s, int64_t ttl_ms, int64_t *id);
struct error *store_lease_keepalive(struct store *s, int64_t id);
struct error *store_lease_revoke(struct store *s, int64_t id);

/* What STORE_NOSYNC kept in memory is on disk when this returns. */
struct error *store_sync(struct store *s);
/* Forgets history below rev: reads and watches from before answer 410. */
struct error *store_compact(struct store *s, int64_t rev);
/* Online consistent copy of the embedded store to a file: complete and on disk when it appears under that name. */
struct error *store_snapshot_save(struct store *s, const char *path);
struct store_snapshot_status {
	int64_t revision, keys, bytes; /* of the newest state; size of the file */
	uint64_t hash;                 /* XXH3 over the contents: equal for equal contents */
};
/* Reads a snapshot whole: an error tells what is wrong with it. Needs no store. */
struct error *store_snapshot_status(const char *snapshot, struct store_snapshot_status *out);
/*
 * Makes `dir`, which must hold no store, one from a snapshot. Its revision goes on 10^9 above the snapshot's, so that what
 * clients have seen of writes that are lost is never taken for something else: their watches answer 410 and they list again.
 */
struct error *store_restore(const char *snapshot, const char *dir);

struct store_stats {
	int64_t revision, compacted, keys, bytes_used, bytes_map, commits, syncs, watchers;
};
void store_stats(struct store *s, struct store_stats *out);

#endif
