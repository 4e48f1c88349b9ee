/*
 * apiserver/cache_internal.h: the parts of the watch cache:
 * cache_entry.c (stored bytes in, entry out; cache_index_json.c and cache_index_pb.c find what is indexed), cache_hot.c (JSON made of
 * protobuf), cache_tree.c (persistent B+tree of entries), cache_load.c (the first reading), cache.c (feed, reads, writes),
 * cache_watch.c (the ring and its watchers).
 */
#ifndef SKIFF_APISERVER_CACHE_INTERNAL_H
#define SKIFF_APISERVER_CACHE_INTERNAL_H

#include "apiserver/cache.h"
#include "base/map.h"

/* ---- the index of an object ---- */

#define SLICE_TAIL 0x80000000u

struct index {
	const struct cache_resource *r;
	struct buf tail;                 /* key bytes and values that do not stand in the object as they are */
	struct cache_slice uid, fields[CACHE_FIELDS_MAX], alt[CACHE_FIELDS_MAX];
	/* JSON: where resourceVersion is to go. */
	struct str rv;                   /* the value's text with its quotes, or NULL */
	const char *insert;              /* where to put resourceVersion when there is none */
	bool first;                      /* ... and that is the start of metadata */
	bool has_metadata;
	/* Protobuf: offsets. */
	uint32_t meta_at, meta_from, meta_n; /* metadata's tag, its bytes */
	uint32_t rv_from, rv_to;         /* resourceVersion with its tag, or both where it belongs */
	int n_labels;
	struct cache_slice labels[2 * 255]; /* last: not cleared */
};
bool index_json(struct index *x, struct str json);

/*
 * Where the selectable fields stand in protobuf. A path that leads through more than messages to a string, boolean or number
 * (`others`) is looked for in the JSON instead.
 */
#define PATH_MAX_DEPTH 5
struct cache_path {
	uint8_t depth;                   /* 0: none, or one of the others */
	uint8_t kind;                    /* enum field_kind of the last */
	bool omitzero;                   /* zero is as absent */
	uint32_t number[PATH_MAX_DEPTH];
};
struct cache_paths {
	struct cache_path path[CACHE_FIELDS_MAX], path2[CACHE_FIELDS_MAX];
	bool others;
	uint64_t numbers[PATH_MAX_DEPTH]; /* bits of the field numbers that any path has there: most fields are on none */
	uint32_t metadata;               /* field number */
};
void paths_init(struct cache_paths *p, const struct cache_resource *r);
/* `raw`: a bare message; slices are offsets in it. False: not as our encoder writes it (or not at all protobuf). */
bool index_pb(struct index *x, struct str raw);

/* ---- entries ---- */

/*
 * From the plain stored bytes: an envelope or JSON for resources with a type, JSON for the others. Puts metadata.resourceVersion = rev in.
 * One reference. 500 when they are no object with metadata. `stored`: what they were made of, or the same.
 */
struct error *entry_new(const struct cache_resource *r, struct str key, int64_t rev, struct str stored, struct str plain,
			struct cache_entry **out);
/* The same object with another resourceVersion. */
struct cache_entry *entry_at_rev(const struct cache_resource *r, const struct cache_entry *e, int64_t rev);
/* From stored bytes (runs r->plain, with may_wait). What cannot be opened is a 500 InternalError, what then is no object a 500 without a reason. */
struct error *entry_decode(const struct cache_resource *r, struct str key, int64_t rev, struct str stored, bool may_wait,
			   struct cache_entry **out);
static inline struct str entry_slice(const struct cache_entry *e, struct cache_slice s)
{
	if (!s.n)
		return STR_NULL;
	if (s.off & SLICE_TAIL)
		return str_of((const char *)&e->slices[2 * e->n_labels + e->n_fields] + (s.off & ~SLICE_TAIL), s.n);
	return str_of(e->body->bytes + s.off, s.n);
}
/* A protobuf entry's bare message. */
struct str entry_raw(const struct cache_entry *e);

/* ---- JSON kept (cache_hot.c) ---- */

/* Bytes that all caches of this loop hold changed by this. */
void hot_holding(ptrdiff_t more);
/* Drops what has not been used since the last call; `all`: everything. Returns the bytes freed. */
size_t hot_sweep(bool all);
size_t hot_bytes(void);

/* ---- trees ---- */

/*
 * Ordered by key, or (by >= 0) by the value of selectable field `by`, then key. Nodes are shared between copies: a writer copies
 * the path it changes when anyone else holds it, and changes it in place otherwise.
 */
struct tnode;
struct tree {
	struct tnode *root; /* NULL: empty */
	int by;
};
struct tkey {
	struct str by, key;
};
struct tree tree_ref(const struct tree *t);
void tree_free(struct tree *t);
/* Takes a reference of its own; returns the reference it held on the entry of the same key, or NULL. */
struct cache_entry *tree_put(struct tree *t, struct cache_entry *e);
/* Removes the entry with this key; returns the tree's reference, or NULL. */
struct cache_entry *tree_del(struct tree *t, struct tkey key);
struct cache_entry *tree_get(const struct tree *t, struct tkey key); /* borrowed */
size_t tree_rank(const struct tree *t, struct tkey key);             /* entries below key */
size_t tree_bytes(const struct tree *t);                             /* of nodes; walks them */
/* Lower bound into path; entry at it, or NULL; step. */
int tree_seek(const struct tree *t, struct tkey key, struct cache_iter *it);
const struct cache_entry *tree_next(struct cache_iter *it); /* the entry at the path, then moves on; NULL at the end */

#define TREE_FAN 64
struct ckey { /* separator: a key that outlives the entry it came from */
	_Atomic uint32_t refs;
	uint32_t by_n, key_n;
	char bytes[];
};
struct tnode {
	_Atomic uint32_t refs;
	uint16_t n;
	bool leaf;
	size_t count; /* entries below */
	union {
		struct cache_entry *e[TREE_FAN];
		struct {
			struct tnode *c[TREE_FAN];
			struct ckey *sep[TREE_FAN]; /* sep[i], i > 0: no key below c[i] is less */
		};
	};
};
static inline size_t tree_count(const struct tree *t)
{
	return t->root ? t->root->count : 0;
}

struct cache_snap {
	_Atomic uint32_t refs;
	int64_t rev;
	struct tree main, node; /* node: empty when the resource has no node field */
	bool has_node;
};

/* e in place of the key's entry, which it returns; e NULL: the key goes. */
struct cache_entry *trees_set(const struct cache_resource *r, struct tree *main, struct tree *node, struct str key,
			      struct cache_entry *e);

/* ---- loading (cache_load.c) ---- */

#define LOAD_AHEAD 4 /* chunks being decoded at once */
struct chunk;
struct load {
	struct cache *c;
	struct tree main, node;
	struct map unreadable;
	size_t object_bytes, entry_bytes;
	struct chunk *chunks[LOAD_AHEAD];
	size_t first, n;
};
/* All of [start, end) at *rev (0: newest) into l's trees; what was read goes with load_drop, or is taken. */
struct error *load_all(struct load *l, struct str start, struct str end, int64_t *rev);
void load_drop(struct load *l);

/* ---- ring ---- */

struct forms {
	unsigned refs;
	struct block *slots[3][CACHE_EVENT_FORMS];
};
struct ev {
	int64_t rev, ms;
	struct cache_entry *cur, *prev; /* cur NULL: deleted; prev NULL: created */
	struct cache_entry *gone;       /* prev at rev: what DELETED shows; made when first asked for */
	struct forms *forms;
};

struct chan { /* the events and watchers of one node */
	uint64_t *seqs;  /* ring of cap, a power of two */
	uint64_t first, next; /* positions */
	size_t cap;
	struct cache_watch *watchers;
};

struct cache {
	struct cache_resource r;
	struct store *s;
	struct store_watch *feed;
	int64_t load_rev;       /* everything up to here came with the load */
	struct tree main, node;
	struct cache_snap *snap; /* of the newest revision, while nothing has changed since */
	struct {
		struct cache_snap *snap;
		int64_t used_ms;
	} old[8];               /* exact revisions read lately: pages of lists */
	struct ev *ring;        /* cap, a power of two; sequence numbers first_seq .. next_seq */
	uint64_t first_seq, next_seq;
	size_t ring_cap;
	size_t event_bytes, object_bytes, entry_bytes;
	uint64_t initial, left_behind, failed; /* see struct cache_stats */
	size_t grown, shrunk;
	int64_t oldest_rev;     /* the ring holds all that happened after it */
	/* Below rev revisions have had their time, one to two intervals of compaction: exact lists and continue tokens end, however quiet it is. */
	struct {
		int64_t rev, next_rev, marked_ms;
	} exact;
	struct fiber_mutex past_lock;
	struct cache_watch *watchers; /* those of no node */
	struct map groups;      /* the last of each group among them */
	size_t n_watchers;
	struct map nodes;       /* node -> struct chan */
	struct cache_paths paths;
	struct map unreadable;  /* key -> struct unreadable *: objects that are there and nobody can be shown */
	bool broken;            /* the feed was lost: list again */
	char *unready;          /* why it was never loaded, or NULL */
	int64_t unwhole_ms;     /* since when not all can be read */
	bool holding;           /* `held` and what comes behind it wait for what plain() needs */
	struct store_event held;
	bool holder_runs;
	struct fiber *holder;   /* asks again; ended when it does not run */
	struct waitq held_wait; /* woken when nothing is held any more */
	bool closing, relisting;
	struct fiber *relister;
	struct cache *next_cache; /* of this thread, for trimming */
};

static inline struct ev *ring_at(const struct cache *c, uint64_t seq)
{
	return &c->ring[seq & (c->ring_cap - 1)];
}
/* Takes the references. */
void ring_push(struct cache *c, int64_t rev, struct cache_entry *cur, struct cache_entry *prev);
void ring_trim(struct cache *c, int64_t now);
/* Forgets all events; watchers still reading them answer 410. */
void ring_clear(struct cache *c, int64_t rev);
void ring_free(struct cache *c);
/* First event with a revision > rev. */
uint64_t ring_after(const struct cache *c, int64_t rev);
struct cache_entry *ev_gone(struct cache *c, struct ev *e); /* borrowed */
void watchers_end(struct cache *c); /* they answer ECANCELED */
/* With the loop's first cache and after its last: the fiber that wakes watchers. */
void fan_out_start(void);
void fan_out_stop(void);

/* Notes that an object of the key cannot be read, and why. Takes err. */
void unreadable_set(struct map *m, struct str key, struct error *err);
/* A call to the store that began at since_ns has ended. */
void cache_called(const struct cache *c, enum cache_call call, int64_t since_ns, size_t n, const struct error *e);

/* The value x of a requirement `<node field>=x` in f, STR_NULL when there is none. */
struct str filter_node(const struct cache_resource *r, const struct cache_filter *f);
bool entry_matches(const struct cache_resource *r, const struct cache_entry *e, const struct cache_filter *f);
struct str entry_node(const struct cache_resource *r, const struct cache_entry *e);

#endif
