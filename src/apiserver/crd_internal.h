/*
 * apiserver/crd_internal.h: what a CustomResourceDefinition becomes, for the files crd*.c and custom*.c alone.
 *
 * A struct crd is made of one state of a definition and never changes in what requests look at. The next state that means
 * something else gets a struct of its own; the old one is freed when neither a request (grace.h) nor a watch (crd_hold) has it.
 */
#ifndef SKIFF_APISERVER_CRD_INTERNAL_H
#define SKIFF_APISERVER_CRD_INTERNAL_H

#include "apiserver/custom.h"
#include "apiserver/extend.h"
#include "apiserver/grace.h"

typedef struct apiextensions_v1_custom_resource_definition crd_object_t;

struct custom_head { /* how every custom object begins in memory */
	struct str kind, api_version;
	struct meta_v1_object_meta metadata;
};

/* The objects of a definition in the cache: shared by its states. */
struct crd_store {
	unsigned refs;
	struct arena arena; /* what the cache borrows */
	struct cache *cache;
};
struct crd_version;
struct crd_tree {
	struct arena arena;
	struct apiextensions_v1_json_schema_props *schema;
	struct crd_rules *rules;      /* compiled at the first write */
	bool rules_known;
	struct crd_version *of;
	int64_t used_ns;
	struct crd_tree *prev, *next; /* by use */
};
struct crd_version {
	const struct apiextensions_v1_custom_resource_definition_version *v; /* without its schema */
	const struct str *schema;     /* protobuf; p NULL: none */
	struct crd_tree *tree;        /* NULL: not made */
	struct resource *res;
	struct str json_version;      /* how cached JSON of this version names it */
	bool defaults, embedded;      /* its schema has some */
	const struct table_column *columns;
	size_t n_columns;
};
struct crd {
	unsigned refs;                /* the table's, and of those who last */
	struct arena arena;
	struct str name;
	crd_object_t *obj;            /* without schemas and managedFields */
	struct str *schemas;          /* of its versions, defaults pruned */
	struct schema_type type;
	struct schema_field *fields;
	struct storage *st;           /* NULL: not served */
	struct crd_store *store;
	struct crd_version *versions; /* all of them, as in the spec; by_path has those that are served */
	size_t n_versions;
	int64_t rev;                  /* of obj */
	bool terminating, finalizing, established;
	bool cleaning;
	uint64_t round;               /* of the watch that it was last seen by */
	struct apiserver *s;
	struct hook_conn conn;        /* of its conversion webhook */
};
struct crds {
	struct storage *st;
	struct cache_watch *watch;
	struct map by_name;           /* CRD name -> struct crd * */
	struct map by_path;           /* group/version/plural -> struct resource * */
	struct resource **list;       /* served, in discovery order */
	size_t n;
	uint64_t round;
	struct fiber_mutex lock;
	bool dirty;
	struct crd_tree *newest, *oldest;
};

const struct apiextensions_v1_custom_resource_definition_version *crd_storage_version(const crd_object_t *o);
/* Of version i; NULL: none. */
struct apiextensions_v1_json_schema_props *crd_schema_of(const crd_object_t *o, uint32_t i);
/* The condition is there and True. */
bool crd_condition(const crd_object_t *o, const char *type);
/* Sets it; lastTransitionTime follows the status. The list is o's own. reason and message are copied. */
void crd_set_condition(struct arena *a, crd_object_t *o, const char *type, struct str status, struct str reason, struct str message);

/* ---- crd_tables.c ---- */
/* The resource of a version ("group/version") of the same definition, served or not; NULL: none. */
const struct resource *crd_version_of(const struct resource *res, struct str api_version);
/* Type, storage and resources of an established definition, whole: c->obj with its schemas. Shares the store of `old` (NULL: none). */
struct error *crd_make(struct apiserver *s, struct crd *c, const crd_object_t *whole, const struct crd *old);
/* Of one whose references are gone; it may wait. */
void crd_free(void *crd);

/* ---- crd_trees.c ---- */
/*
 * The schema of a version as a tree; made when first asked for. NULL: none. It lives as long as the request that asked (grace.h): one
 * that nobody has asked for this long goes when another is asked for. crd_tree_at: at that time of the monotonic clock.
 */
#define CRD_TREE_UNUSED_NS (60 * INT64_C(1000000000))
struct crd_tree *crd_tree(const struct resource *res);
struct crd_tree *crd_tree_at(const struct resource *res, int64_t now);
/* Of a version that nobody can ask for any more. */
void crd_tree_drop(struct crds *cs, struct crd_version *v);

/* ---- crd_names.c ---- */
#define CRD_FINALIZER "customresourcecleanup.apiextensions.k8s.io"
/* The server's own writes that a definition of this name needs now: names accepted, established, approved. Waits. */
struct error *crd_settle(struct apiserver *s, struct str name);
/* One was deleted, or gave up names: others of its group may have them now. */
void crd_settle_group(struct apiserver *s, struct str group);
/* Starts removing the objects of a terminating definition. */
void crd_clean_start(struct crd *c);

/* ---- crd_v1beta1.c ---- */

/* What a definition stored as v1beta1 says otherwise than v1, put into obj (strategy.h read_text). */
struct error *crd_read_text(struct arena *a, struct str api_version, struct str text, void *obj);

/* ---- crd_strategy.c ---- */
enum crd_approval { CRD_APPROVED, CRD_APPROVAL_BYPASSED, CRD_APPROVAL_MISSING, CRD_APPROVAL_INVALID };
/* Groups of the Kubernetes community: k8s.io, kubernetes.io and all below. */
bool crd_group_protected(struct str group);
/* What the annotation api-approved.kubernetes.io says; *why in words. */
enum crd_approval crd_approval_of(struct arena *a, const crd_object_t *o, struct str *why);
bool crd_ca_bundle_valid(struct str pem);

#endif
