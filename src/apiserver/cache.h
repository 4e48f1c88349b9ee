/*
 * apiserver/cache.h: the watch cache: every read, list and watch of one stored
 * resource is served from here; lists and watches never touch the store.
 *
 * One `struct cache` per stored resource, built-in or custom. It holds for each
 * object one immutable, reference-counted entry: its bytes as they are stored,
 * with metadata.resourceVersion put in (protobuf for built-in types, half as
 * many as JSON; JSON for custom resources), and a small index of labels and
 * selectable fields. GET, LIST and WATCH write these bytes out unchanged. JSON
 * of built-in types is made when somebody wants it and kept for a while,
 * within a limit (see cache_entry_json).
 *
 * Entries hang in a persistent (copy-on-write) B+tree, so a snapshot
 * costs O(1) and holds references only, and in a ring of the latest events,
 * into which every watcher keeps a cursor: an event costs a watcher nothing.
 *
 * It is fed by a watch of its prefix in the store; writes of this process go
 * through cache_put/cache_delete. When they return, the cache holds the write.
 *
 * It never validates, authorises, converts versions or frames HTTP.
 *
 * Threads: all calls are made on fibers of the loop that made the cache, but
 * entries and snapshots, once got, may be read (not as JSON) and dropped on any thread.
 */
#ifndef SKIFF_APISERVER_CACHE_H
#define SKIFF_APISERVER_CACHE_H

#include "schema/codec.h"
#include "schema/selector.h"
#include "store/store.h"

/* ---- what is cached ---- */

#define CACHE_FIELDS_MAX 16

/* A selectable field beyond metadata.name and metadata.namespace, which every resource has. */
struct cache_field {
	struct str name;    /* in field selectors: "spec.nodeName" */
	struct str path;    /* dotted path in the JSON; strings give their text, numbers and booleans their JSON; empty: = name */
	struct str absent;  /* the value where path is not there, e.g. "false" for spec.unschedulable; may be empty */
	struct str path2;   /* tried when path is absent or "" (Event's source: source.component, then reportingComponent) */
};

enum cache_call { CACHE_CALL_LIST, CACHE_CALL_CREATE, CACHE_CALL_UPDATE, CACHE_CALL_DELETE, CACHE_CALLS };

struct cache_resource { /* copied by cache_new; strings and arrays must outlive the cache */
	struct str prefix;               /* "/registry/pods/": keys are prefix + [namespace + "/"] + name */
	struct str group, version, kind; /* of what is held: the storage version */
	const struct schema_type *type;  /* NULL: custom resource, stored and held as JSON */
	bool namespaced;
	const struct cache_field *fields;
	uint8_t n_fields;                /* at most CACHE_FIELDS_MAX */
	int8_t node_field;               /* index in fields of the one with an index of its own (pods: spec.nodeName), or -1 */
	/*
	 * NULL, or: stored bytes (encrypted at rest, or a custom resource in another version) to plain ones, appended to out:
	 * a protobuf envelope or JSON for built-in types, JSON for custom ones. Called on the loop's thread. may_wait: on a fiber, and it may
	 * suspend. An error with sys == EAGAIN says that it cannot be told now (a key is elsewhere): such an object is never left out, the
	 * cache stands still before it and asks again, with may_wait. Any other error leaves the object out.
	 */
	struct error *(*plain)(void *ctx, struct str key, struct str stored, bool may_wait, struct buf *out);
	uint8_t (*sealed)(void *ctx, struct str stored); /* NULL, or: what the entry's `sealed` is to be, at most 127 */
	void *ctx;
	/* NULL, or: makes of an object as it is stored what is held (strategy.h) */
	bool (*shown)(struct arena *a, void *obj);
	/* NULL, or: told of each call to the store: how long it took, of a list how many objects there were */
	void (*called)(void *ctx, enum cache_call call, int64_t ns, size_t n, bool failed);
	/* NULL, or: a read of a revision has waited so long for the cache to see it (mostly not at all) */
	void (*waited)(void *ctx, int64_t ns);
	void *called_ctx; /* of both */
	/*
	 * NULL, or: makes of an object that another server has stored what this one would have: defaults that are younger than
	 * the object, what older versions said otherwise (api_version is as stored; text, too, when it is no protobuf). Of built-in
	 * types; on any thread.
	 */
	struct error *(*complete)(void *ctx, struct arena *a, struct str api_version, struct str text, void *obj);
	void *complete_ctx;
	bool late;                       /* see cache_new */
	int64_t held_ms;                 /* the cache stands still so long before an event that cannot be read; 0: as long as upstream's */
	const struct cache_paths *paths; /* cache_new's own: where the fields stand in protobuf */
};

struct cache;
/*
 * Loads everything under the prefix (suspends) and follows it from there. When plain() cannot tell yet: r->late false: its error,
 * sys == EAGAIN; true: a cache that goes on trying, and until then answers gets and lists with 500, watches with 429, peeks with nothing.
 */
struct error *cache_new(struct store *s, const struct cache_resource *r, struct cache **out);
/* Its watchers get what there is for them and end then (cache_watch_next answers sys == ECANCELED). The cache goes on. */
void cache_watches_end(struct cache *c);
/* False: see above. */
bool cache_loaded(const struct cache *c);
/* Ends its watchers (their cache_watch_next answers sys == ECANCELED) and frees; entries and snapshots held outside stay valid. */
void cache_free(struct cache *c);
const struct cache_resource *cache_resource(const struct cache *c);
/* The store's revision up to which the cache has seen everything. */
int64_t cache_rev(const struct cache *c);

/* ---- entries ---- */

struct cache_slice { /* bytes of body, or (top bit of off) of the entry's own tail */
	uint32_t off, n;
};
struct cache_hot;
struct cache_entry { /* immutable, but for hot and verbatim */
	_Atomic uint32_t refs;
	uint8_t n_labels, n_fields; /* labels past 255 are not indexed: see cache_entry_labels */
	bool pb : 1;
	bool unlike : 1;            /* the stored bytes say otherwise: see cache_resource.shown and .complete */
	uint8_t : 0;                /* what follows is of the loop's thread only */
	uint8_t sealed : 7;         /* cache_resource.sealed of the stored bytes; 0 */
	bool verbatim : 1;          /* of pb_to_json, for this body */
	uint16_t ns_n, name_n;
	uint32_t bytes;             /* of memory, without body's */
	int64_t rev;                /* metadata.resourceVersion */
	/*
	 * The whole object with its resourceVersion. pb: the message behind the tag of field 2 and its length, as it stands
	 * among the items of a list and in an envelope. Else JSON, compact if it was stored so.
	 */
	struct block *body;
	struct cache_hot *hot;      /* JSON made of protobuf lately; the loop's thread only */
	struct cache_slice uid;
	struct cache_slice slices[]; /* labels: key, value, ...; fields; then the key's bytes and the tail */
};
static inline struct cache_entry *cache_entry_ref(struct cache_entry *e)
{
	atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	return e;
}
void cache_entry_unref(struct cache_entry *e); /* NULL is allowed */
/* All slices live as long as the entry. */
struct str cache_entry_key(const struct cache_entry *e); /* "ns/name" or "name": order of lists, continue tokens */
struct str cache_entry_ns(const struct cache_entry *e);  /* empty for cluster-scoped */
struct str cache_entry_name(const struct cache_entry *e);
struct str cache_entry_uid(const struct cache_entry *e);
/*
 * The object as JSON, kind, apiVersion and metadata.resourceVersion filled in: one reference. JSON made of protobuf stays with the entry
 * for the next reader and watcher, as long as all such JSON fits into cache_hot_limit() and has been used within a minute.
 * 500 when the stored bytes are damaged.
 */
struct error *cache_entry_json(const struct cache *c, const struct cache_entry *e, struct block **out);
/*
 * The same appended to b and not kept: for lists too large to stay. without: empty, or `{"kind":K,"apiVersion":V,` of the resource, which is
 * left out but for the brace: items of lists of built-in types do not have it.
 */
struct error *cache_entry_json_append(const struct cache *c, const struct cache_entry *e, struct str without, struct buf *b);
size_t cache_hot_limit(void); /* bytes: 4 MiB and an eighth of all that the caches of this loop hold */
/*
 * The object as a struct of type t: the resource's, or one whose fields are among its fields (PartialObjectMetadata). kind and apiVersion
 * are not set for built-in types. Strings point into the entry, or, copy given, into the arena.
 */
struct error *cache_entry_decode(struct arena *a, const struct schema_type *t, const struct cache_entry *e, bool copy, void *out);
/* Value of the resource's selectable field i. */
struct str cache_entry_field(const struct cache *c, const struct cache_entry *e, size_t i);
/* The labels into pairs[255]; returns their number. For selector_matches: struct str_map m = {pairs, n, 0}. */
size_t cache_entry_labels(const struct cache_entry *e, struct str_pair *pairs);

struct cache_filter { /* NULL members select everything; borrowed */
	const struct selector *labels, *fields;
};
/* 400 BadRequest `field label not supported: "x"` when a field selector names a field this resource has not. */
struct error *cache_check_fields(const struct cache *c, const struct selector *fields);
bool cache_matches(const struct cache *c, const struct cache_entry *e, const struct cache_filter *f);

/* ---- reads ---- */

enum cache_mode {
	CACHE_ANY,        /* resourceVersion=0: what is here, no wait */
	CACHE_AT_LEAST,   /* resourceVersion=X, NotOlderThan: waits until X is seen; 504 Timeout with cause ResourceVersionTooLarge after 3 s */
	CACHE_EXACT,      /* lists: at X exactly; 410 Expired when that is older than the store's history */
	CACHE_CONSISTENT, /* resourceVersion unset: everything acknowledged before the call */
};
/*
 * One reference in *out, NULL when there is no such object; 500 InternalError when it cannot be read (snapshots leave it out). ns empty for
 * cluster-scoped. CACHE_EXACT is not for gets (400).
 */
struct error *cache_get(struct cache *c, struct str ns, struct str name, enum cache_mode mode, int64_t rev, struct cache_entry **out);
/*
 * What a snapshot has is all there is; else 429 TooManyRequests with why: nothing was read yet, or an object cannot be read, which who
 * lists or watches would take for gone.
 */
struct error *cache_whole(const struct cache *c);
/* The same as who asks for such an object by name is told: 500. */
struct error *cache_readable(const struct cache *c);
/* Without waiting or reference: borrowed until the next wait. */
const struct cache_entry *cache_peek(const struct cache *c, struct str ns, struct str name);

/*
 * All objects at one revision. Taking one is O(1) for the newest, O(changes since * log n) for an older one; one from before the cache began
 * is read from the store.
 */
struct cache_snap;
struct error *cache_snapshot(struct cache *c, enum cache_mode mode, int64_t rev, struct cache_snap **out);
/* 504 Timeout as CACHE_AT_LEAST's, at once and without a word of trying again, for a revision that the store has not come to. */
struct error *cache_has_come_to(const struct cache *c, int64_t rev);
/* Exact reads of revisions below are no longer the cache's. */
int64_t cache_oldest_exact(const struct cache *c);
void cache_snap_free(struct cache_snap *s);       /* NULL is allowed */
/* Call when a continue token for s is handed out: CACHE_EXACT then finds it, whatever happens, until 75 s after its last use (the last 8 such). */
void cache_snap_keep(struct cache *c, struct cache_snap *s);
int64_t cache_snap_rev(const struct cache_snap *s); /* ListMeta.resourceVersion */
/* Objects of namespace ns (empty: all) with a key > after (empty: from the start). O(log n): remainingItemCount. */
size_t cache_snap_count(const struct cache_snap *s, struct str ns, struct str after);

#define CACHE_DEPTH 12
struct cache_iter { /* on the stack; needs no end; the snapshot must outlive it. May be held across waits */
	const struct cache_snap *snap;
	const struct cache *cache;
	struct str ns;
	struct cache_filter filter;
	bool by_node;
	struct str node;
	size_t looked;              /* objects that were looked at */
	const void *inside;         /* a leaf whose entries need no look whether they are in range */
	int depth;
	struct {
		const void *node;
		uint32_t i;
	} path[CACHE_DEPTH];
};
/* Objects of ns (empty: all) with a key > after that pass f (NULL: all), in key order. f's selectors, ns and after stay borrowed.
 * `c` must not have been freed while iterating with a filter. A filter spec.nodeName=x uses the index. */
void cache_iter_init(struct cache_iter *it, const struct cache *c, const struct cache_snap *s, struct str ns, struct str after,
		     const struct cache_filter *f);
/* Borrowed from the snapshot; NULL at the end. */
const struct cache_entry *cache_iter_next(struct cache_iter *it);

/* What an entry was made of, from the store (suspends): plain bytes, appended; nothing when the object has been written since. */
struct error *cache_stored(struct cache *c, const struct cache_entry *e, struct buf *out);

/* ---- writes ---- */

enum {
	CACHE_NOSYNC = STORE_NOSYNC, /* renewals of Leases whose holder did not change */
};
/*
 * Writes `stored` (protobuf envelope or JSON, as the resource is stored) under ns/name if the object's revision is `expect` (0: must not
 * exist, STORE_ANY). `plain`: what the resource's plain() would make of it; empty: the same. metadata.resourceVersion
 * may be in or not: the cache puts the right one in.
 * *ok true: *out is the new entry. *ok false: nothing was written and *out is what is there now (NULL: nothing). One reference.
 * Errors as store_put's (507 InsufficientStorage).
 */
struct error *cache_put(struct cache *c, struct str ns, struct str name, int64_t expect, struct str stored, struct str plain,
			int64_t lease, unsigned flags, bool *ok, struct cache_entry **out);
/* *ok true: *out is the object as deleted (its resourceVersion is the deletion's), as watchers see it. */
struct error *cache_delete(struct cache *c, struct str ns, struct str name, int64_t expect, bool *ok, struct cache_entry **out);

/* ---- watches ---- */

enum cache_event_type { CACHE_ADDED, CACHE_MODIFIED, CACHE_DELETED, CACHE_BOOKMARK };

#define CACHE_EVENT_FORMS 3
struct cache_event {
	enum cache_event_type type; /* after selectors: entering is ADDED, leaving is DELETED (the previous object, this event's revision) */
	int64_t rev;
	const struct cache_entry *obj; /* NULL for bookmarks. Borrowed until the next call on this watch */
	bool initial_end;           /* a bookmark that ends the initial events (annotation k8s.io/initial-events-end) */
	/*
	 * Encodings other than JSON (protobuf, Table, PartialObjectMetadata) shared by the watchers of this event: NULL for initial
	 * events and bookmarks, else CACHE_EVENT_FORMS slots per type; a watcher that finds its slot NULL makes the block and leaves
	 * its reference there. What a slot means is the API server's own business. Freed with the event.
	 */
	struct block **forms;
};
/* What stands before and behind the object's JSON in a JSON watch: `{"type":"ADDED","object":` and "}\n": written as vectors, never copied. */
struct str cache_event_head(enum cache_event_type t);
#define CACHE_EVENT_TAIL STR("}\n")

struct cache_watch_opts {
	struct str ns;              /* empty: all; copied */
	struct cache_filter filter; /* borrowed until close */
	bool initial;               /* first an ADDED for each object of a snapshot (mode, rev): unset and "0" resourceVersions, sendInitialEvents */
	enum cache_mode mode;       /* of the snapshot; not initial: ignored */
	int64_t rev;                /* not initial: events after this revision; 410 Expired when older than the window */
	bool initial_end;           /* a bookmark with initial_end behind the initial events */
	bool bookmarks;             /* one about each minute, and 2 s before timeout_ms */
	int64_t timeout_ms;         /* > 0: cache_watch_next answers sys == ETIMEDOUT then (timeoutSeconds) */
	const void *group;          /* identity: watchers of one are woken together, as what they write goes one way; NULL: of none */
};
struct cache_watch;
struct error *cache_watch_open(struct cache *c, const struct cache_watch_opts *o, struct cache_watch **out);
/*
 * The next event; suspends. Ends with 410 Expired when the watcher fell out of the window (too slow) or the cache had to relist,
 * ECANCELED, ETIMEDOUT.
 */
struct error *cache_watch_next(struct cache_watch *w, struct cache_event *ev);
/* Whether cache_watch_next would answer without suspending: to gather events into one write. */
bool cache_watch_ready(struct cache_watch *w);
/* Whether it has given all that there was when it was opened. */
bool cache_watch_begun(struct cache_watch *w);
void cache_watch_close(struct cache_watch *w); /* NULL is allowed */

/* How many objects there are now; costs nothing, unlike cache_stats. */
size_t cache_count(const struct cache *c);
size_t cache_bytes(const struct cache *c); /* of the objects; so does this */

/* Goes through the whole index to tell its size. */
struct cache_stats {
	size_t objects, watchers, events; /* events: in the window */
	uint64_t received;                /* events that the store has told of */
	uint64_t initial;                 /* events that watches began with: objects there were, changes there had been */
	uint64_t left_behind;             /* watches that ended because they were too slow for the window */
	uint64_t unreadable;              /* how often an object could not be read */
	size_t capacity, grown, shrunk;   /* of the window: events that have room, how often that became more and less */
	size_t object_bytes; /* of current objects */
	size_t hot_bytes;    /* JSON kept of this and all other caches of the loop */
	size_t index_bytes;  /* entries and trees */
	size_t event_bytes;  /* objects only the window still holds */
	int64_t oldest_rev;  /* watches from here on are possible */
};
void cache_stats(const struct cache *c, struct cache_stats *out);

#endif
