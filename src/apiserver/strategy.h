/*
 * apiserver/strategy.h: what is particular to one resource: the hooks the
 * registry calls on the way of a write, one table a resource.
 *
 * A hook that is NULL is the default behaviour (strategy.c): names are DNS-1123 subdomains; create and update keep
 * `status` out of the main resource and everything but `status` out of the status subresource; generation follows
 * `spec` when `generation` is set; the schema's own checks (required, enum, format) are always made.
 * Hooks get the storage version's struct. They never wait unless said, and never write to the store.
 */
#ifndef SKIFF_APISERVER_STRATEGY_H
#define SKIFF_APISERVER_STRATEGY_H

#include "schema/validate.h"

struct request;   /* apiserver/server.h: user, arena, query, request_warn() */
struct apiserver;
struct resource;
struct cache_field;

struct strategy {
	struct str group, plural;

	/* ---- facts ---- */
	bool generation;             /* metadata.generation is kept: 1 at create, +1 when anything but metadata and status changes */
	bool generation_from_zero;   /* with generation: nothing at create, the first change makes it 1 (CSIDriver) */
	bool generation_exact;       /* with generation: an empty list where none was is a change, too (upstream's reflect.DeepEqual) */
	/* Makes of an object as it is stored what every read shows of it; false: that is the same. On any thread. */
	bool (*shown)(struct arena *a, void *obj);
	/*
	 * NULL, or: what upstream's create leaves out of the store and every read gives (a default of its versions) is taken away. Where
	 * `shown` has given it, that is; the first update writes it, even one that changes nothing.
	 */
	void (*unfill)(void *obj);
	bool generation_stays;       /* metadata.generation is 1 for ever */
	bool generation_first;       /* with generation: fields that are dropped afterwards count as a change, too */
	bool name_as_generate_name;  /* what generateName says is the name (IPAddress) */
	bool status_keeps_metadata;  /* an update of status changes nothing of metadata but managedFields */
	bool status_resets_metadata; /* an update of status changes no labels, annotations, finalizers, owners (upstream's ResetObjectMetaForStatus) */
	bool no_unconditional_update;/* updates must carry resourceVersion */
	bool create_on_update;       /* PUT creates what is not there (upstream's AllowCreateOnUpdate) */
	bool keep_status_on_create;  /* `status` in a create is kept (nodes) */
	bool no_status_split;        /* the main resource may write status too (kinds without a status subresource) */
	bool return_deleted;         /* a delete answers with the object, not with a Status */
	bool checks_all;             /* the validate hooks make every check; the tables' are theirs to call (validate_rules()) */
	/*
	 * What the kind's validation of an update says of metadata, behind what is said for every kind, in upstream's order: U, an update's
	 * rules with finalizers of known names, u, without; M, all of a create's rules, m, without known names of finalizers; *, the kind's own
	 * rules. NULL: "U*". meta_status: of the subresources. meta_create: of a create, where N is M but for the generateName, which is not
	 * looked at; NULL: "M*". C, of an update: the kind's rules of a create. Behind it comes what every kind's metadata has to be.
	 */
	const char *meta_create, *meta_update, *meta_status;
	bool orphan_by_default;      /* delete without a propagation policy orphans dependents (v1 of old kinds) */

	/* ---- names ---- */
	const char *(*name_check)(struct arena *a, struct str name);

	/* ---- create and update; obj may be changed by prepare_* only ---- */
	/*
	 * Whether the request's user may make this of it, as it came out of admission and before anything is filled in. old NULL: create.
	 * same_version: obj names old's resourceVersion.
	 */
	struct error *(*permit)(struct request *rq, const void *obj, const void *old, bool same_version);
	/* Of an object that another release has stored, in whatever version it had: what is missing of it, or meant otherwise. On any thread. */
	void (*on_read)(const struct apiserver *s, struct arena *a, struct str api_version, void *obj);
	/* Before that, of one stored as text: what another version has under other names. */
	struct error *(*read_text)(struct arena *a, struct str api_version, struct str text, void *obj);
	/* What upstream's conversion does to a decoded, defaulted object (Secret's stringData, Pod's serviceAccount); before anything else. */
	void (*normalize)(struct arena *a, void *obj);
	void (*prepare_create)(struct request *rq, void *obj);
	void (*prepare_update)(struct request *rq, void *obj, const void *old);
	/* `sub` is the subresource: "status", "resize", "ephemeralcontainers", "approval", "finalize" */
	void (*prepare_sub_update)(struct request *rq, const char *sub, void *obj, const void *old);
	void (*validate)(struct request *rq, const void *obj, struct field_errors *e);
	void (*validate_update)(struct request *rq, const void *obj, const void *old, struct field_errors *e);
	void (*validate_sub_update)(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e);
	void (*warn)(struct request *rq, const void *obj, const void *old /* NULL: create */);
	void (*canonicalize)(struct request *rq, void *obj);

	/*
	 * Around the store's write: allocate what the object needs (addresses, ports) and give it back when the write fails
	 * (ok false), or release what it no longer uses when it succeeded. old NULL: create; obj NULL: deleted. May wait.
	 */
	struct error *(*begin_write)(struct request *rq, void *obj, const void *old, bool dry_run, void **state);
	void (*end_write)(struct request *rq, void *obj, const void *old, void *state, bool ok);

	/* An update of a subresource has been written. */
	void (*sub_written)(struct request *rq, const char *sub, const void *obj, const void *old);

	/* Changes made on every read of the object in an answer (defaults on read); rare. */
	void (*decorate)(void *obj);

	/* ---- delete ---- */
	/*
	 * Graceful deletion: *grace comes in as asked for (or -1) and goes out as the seconds to wait; returns whether the object
	 * is deleted gracefully at all (its deletionTimestamp set first, gone when the grace ends by an agent's second delete).
	 */
	bool (*graceful_delete)(struct request *rq, const void *obj, int64_t *grace);
	/* Before each delete; obj is a copy that may be changed. *marked: that is all of this delete: obj is written and answered. */
	struct error *(*before_delete)(struct request *rq, void *obj, bool *marked);

	/* ---- reads: selectable fields beyond metadata.name and metadata.namespace (cache.h); another in a selector is 400 ---- */
	const struct cache_field *fields;
	uint8_t n_fields;
	int8_t node_field;           /* 1 + index in fields of the one with an index of its own (spec.nodeName), or 0 */
};

/* The table of a resource, or NULL: defaults. */
const struct strategy *strategy_find(struct str group, struct str plural);

/* Tables of the kinds; each file of kinds has one, NULL-terminated, listed in strategy.c. */
extern const struct strategy strategy_pods, strategy_podtemplates;
/* Without the annotation that stands for a field of upstream's internal version. */
void daemonset_internal_meta(struct arena *a, struct meta_v1_object_meta *m);
extern const struct strategy *const strategies_core[];
extern const struct strategy *const strategies_apps[];
extern const struct strategy *const strategies_other[];

/* ---- the generic parts, for hooks that extend them ---- */
/* obj's field `name` := old's (shallow; both structs live as long as the request). Unknown names are a bug. */
void object_field_copy(const struct schema_type *t, void *obj, const void *old, const char *name);
void object_field_zero(const struct schema_type *t, void *obj, const char *name);
bool object_field_equal(const struct schema_type *t, const void *a, const void *b, const char *name);
bool object_field_identical(const struct schema_type *t, const void *a, const void *b, const char *name); /* as object_identical() says */
/* Something besides metadata and status differs; exact: object_identical() says so. */
bool object_spec_changed(const struct schema_type *t, const void *a, const void *b, bool exact);

/* What the name of any kind has to be: a segment of a path; what names are generated from, its beginning. */
const char *validate_any_name(struct arena *a, struct str name);
/* metadata of any object: names, labels, annotations, owner references, finalizers. name_check NULL: DNS-1123 subdomain. `built_in` as below. */
void validate_object_meta(struct field_errors *e, const struct meta_v1_object_meta *m, bool namespaced,
			  const char *(*name_check)(struct arena *a, struct str name), const struct field_path *p, bool built_in);
/* `built_in`: finalizers without a domain are the standard ones. */
void validate_object_meta_update(struct field_errors *e, const struct meta_v1_object_meta *m, const struct meta_v1_object_meta *old,
				 const struct field_path *p, bool built_in);

#endif
