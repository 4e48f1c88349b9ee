/*
 * controller/common.h: what the controllers share: the manager with its
 * informers, expectations, owners, pods made from templates. Not for other rooms.
 */
#ifndef SKIFF_CONTROLLER_COMMON_H
#define SKIFF_CONTROLLER_COMMON_H

#include "base/log.h"
#include "base/map.h"
#include "client/events.h"
#include "client/informer.h"
#include "client/workqueue.h"

struct manager_flags {
	const char *kubeconfig, *master;
	const char *controllers;            /* "*", "-name", "name": comma separated */
	bool leader_elect;
	const char *leader_ns, *leader_name;
	int64_t leader_lease_ms, leader_renew_ms, leader_retry_ms;
	const char *signing_cert_file, *signing_key_file;
	int64_t signing_duration_s;
	const char *root_ca_file;
	const char *sa_private_key_file;
	const char *cluster_cidr;           /* comma separated, at most one an IP family */
	const char *service_cidr;
	bool allocate_node_cidrs, use_accounts;
	int node_mask_v4, node_mask_v6;
	int64_t node_monitor_period_ms, node_monitor_grace_ms, node_startup_grace_ms;
	double eviction_rate, secondary_eviction_rate; /* nodes a second, of a zone */
	double unhealthy_zone_threshold;               /* part of its nodes */
	int large_cluster_size;
	int64_t terminated_pod_threshold;
	int64_t pv_sync_ms, hpa_sync_ms;
	const char *bind_address, *cert_file, *key_file; /* of /healthz and /metrics */
	int secure_port;
	int verbosity;
};

/*
 * What a controller is given. With --use-service-account-credentials each has one of its own: `client` acts as the controller's
 * service account, all else is the root's.
 */
struct manager {
	struct manager *root;               /* itself, in the root */
	struct client *client;
	struct client *connection;          /* in the root: the one that the accounts' clients share */
	const char *account;                /* service account in kube-system; NULL in the root */
	struct manager_flags flags;
	struct map informers;               /* "group/version/plural" -> struct informer */
	struct {
		struct arena a[2];          /* the current and the last: readers may still hold that */
		int current;
		const struct api_resource **v;
		size_t n;
		bool partial, stale, watching;
		int64_t at_ms;
		struct fiber_mutex lock;
	} discovery;
	struct arena arena;                 /* lives as long as the manager */
};

/* The one informer of a resource, over all namespaces; started by the first caller. Register handlers at once, before waiting. */
struct informer *manager_informer(struct manager *m, const struct api_resource *r);
/* The same with metadata only, unless somebody holds the whole objects anyway. */
struct informer *manager_metadata_informer(struct manager *m, const struct api_resource *r);
/* Of metadata informers of resources that are gone: stops it. */
void manager_drop_informer(struct manager *m, const struct api_resource *r);
/*
 * What the server serves now: learnt again when CRDs or APIServices change (at most every 2 s), or after 10 minutes; 30 s when
 * part of it did not answer. Valid until the second-next discovery: copy what you keep.
 */
struct error *manager_discover(struct manager *m, const struct api_resource ***v, size_t *n, bool *partial);
/* What manager_discover knows may be old: CRDs or APIServices have changed since. */
bool manager_discovery_stale(const struct manager *m);
/* Calls fn(ctx) when what is served may have changed. At most 4. */
void manager_on_discovery(struct manager *m, void (*fn)(void *ctx), void *ctx);
/* Starts the workers of a controller once the informers (NULL-terminated) are synced. All must live on. */
void controller_run(struct manager *m, struct workqueue *q, const char *name, int workers, reconcile_fn *fn, void *ctx, ...)
	__attribute__((sentinel));
/* Runs fn(ctx) every `ms` on a fiber, the first time when the informers are synced. Errors are logged. */
void controller_every(struct manager *m, const char *name, int64_t ms, struct error *(*fn)(void *ctx, struct arena *a), void *ctx, ...)
	__attribute__((sentinel));
/* n calls of fn(ctx, i), each on a fiber of its own, at most 64 at once; the first error (others are freed). fn gets an arena of its own. */
struct error *fan_out(size_t n, struct error *(*fn)(void *ctx, struct arena *a, size_t i), void *ctx);
/* The same with batches that double from 1 while all succeed (upstream's slow start); *done counts successes. */
struct error *slow_start(size_t n, struct error *(*fn)(void *ctx, struct arena *a, size_t i), void *ctx, size_t *done);

/* ---- time, pointers ---- */
struct api_time api_now(void);                 /* whole seconds, as metav1.Now() is stored */
struct api_time api_now_micro(void);
int64_t time_ms(struct api_time t);             /* since 1970 */
int64_t wall_ms(void);
int time_cmp(struct api_time a, struct api_time b);
static inline int32_t *new_i32(struct arena *a, int32_t v)
{
	int32_t *p = arena_new(a, int32_t);
	*p = v;
	return p;
}
static inline bool *new_bool(struct arena *a, bool v)
{
	bool *p = arena_new(a, bool);
	*p = v;
	return p;
}
static inline struct str *new_str(struct arena *a, struct str v)
{
	struct str *p = arena_new(a, struct str);
	*p = v;
	return p;
}
static inline int32_t i32_or(const int32_t *p, int32_t def)
{
	return p ? *p : def;
}
static inline bool is_true(const bool *p)
{
	return p && *p;
}
/* Deep copy of an object. */
void *object_clone(struct arena *a, const struct schema_type *t, const void *obj);
/* Percentages of total, rounded up or down; plain numbers as they are. */
int scaled_value(const struct int_or_string *v, int total, bool round_up);

/* ---- owners ---- */
struct owner { /* an object as the controller of others */
	const struct api_resource *r;
	const struct meta_v1_object_meta *meta;
};
const struct meta_v1_owner_reference *controller_of(const struct meta_v1_object_meta *m);
static inline bool controlled_by(const struct meta_v1_object_meta *m, struct str uid)
{
	const struct meta_v1_owner_reference *o = controller_of(m);
	return o && str_eq(o->uid, uid);
}
/* "apps/v1" */
struct str resource_api_version(struct arena *a, const struct api_resource *r);
void owner_add_controller_ref(struct arena *a, struct meta_v1_object_meta *m, const struct owner *o);
struct core_v1_object_reference owner_reference(struct arena *a, const struct owner *o);
bool has_finalizer(const struct meta_v1_object_meta *m, const char *f);
bool remove_finalizer(struct meta_v1_object_meta *m, const char *f);

/*
 * Objects in i (of resource r) that o controls or, matching the selector, should: orphans are adopted (after a fresh look at the
 * owner), those that no longer match are released. Decoded in the arena.
 */
struct claim {
	struct manager *m;
	struct informer *i;
	const struct api_resource *r;
	struct owner owner;
	const struct selector *selector;
	const char *finalizer;  /* added when adopting, or NULL */
	bool active_pods;       /* pods that have ended are not adopted */
	bool (*member)(void *ctx, const struct cached_object *o); /* or NULL: what the selector must match besides */
	void *member_ctx;
};
struct error *claim_objects(const struct claim *c, struct arena *a, void ***objs, size_t *n);

/* ---- expectations: what was asked for and not yet seen in the informer ---- */
struct expectations {
	struct map keys;
	struct workqueue *q; /* or NULL: where a key comes back when it has waited in vain */
};
void expect_creations(struct expectations *x, struct str key, int n);
/* Of pods that the informer still holds, not being deleted: of others no event would come that says more. */
void expect_deletions(struct expectations *x, struct str key, struct informer *pods, struct core_v1_pod *const *v, size_t n);
void creation_observed(struct expectations *x, struct str key);
void deletion_observed(struct expectations *x, struct str key, struct str uid);
/* True when nothing is outstanding, or it has been for 5 minutes. */
bool expectations_met(const struct expectations *x, struct str key);
void expectations_forget(struct expectations *x, struct str key);

/*
 * What happens to pods, for the queue of one kind of owners: expectations are met, the owner before and the owner now are
 * queued, and of a new orphan every owner that would adopt it. Fill it, then pod_watch_start; it must live on.
 */
struct pod_watch {
	const struct api_resource *r;    /* of the owners */
	struct informer *owners, *pods;
	struct workqueue *q;
	struct expectations *x;
	/* The owner's selector (NULL out: it selects nothing). */
	struct error *(*selector)(struct arena *a, void *owner, const struct selector **out);
};
void pod_watch_start(struct pod_watch *w);
/* The owner of kind w->r that controls o, or NULL. */
const struct cached_object *pod_watch_owner(const struct pod_watch *w, const struct cached_object *o);
/* A handler for the owners themselves: queues them; ctx is the pod_watch. */
void pod_watch_on_owner(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_);

/* ---- pods ---- */
const struct core_v1_pod_condition *pod_condition(const struct core_v1_pod *p, const char *type);
bool pod_is_ready(const struct core_v1_pod *p);
/* Ready for min_ready seconds; *wait_ms (or NULL) gets how long it still takes when only that is missing, else -1. */
bool pod_is_available(const struct core_v1_pod *p, int32_t min_ready, int64_t *wait_ms);
bool pod_is_terminal(const struct core_v1_pod *p); /* Succeeded or Failed */
bool pod_is_active(const struct core_v1_pod *p);   /* neither terminal nor being deleted */
/* A pod by the template, owned by o; the name is the API server's (generateName) unless given. */
struct core_v1_pod *pod_from_template(struct arena *a, const struct core_v1_pod_template_spec *t, struct str ns, struct str name,
				      const struct owner *o);
/* With the events SuccessfulCreate / FailedCreate on the owner. */
struct error *pod_create(struct manager *m, struct arena *a, struct event_recorder *rec, const struct owner *o,
			 const struct core_v1_pod *p, struct core_v1_pod **out);
/* With SuccessfulDelete / FailedDelete; not found is success. */
struct error *pod_delete(struct manager *m, struct arena *a, struct event_recorder *rec, const struct owner *o,
			 const struct core_v1_pod *p);
/* Sorts so that the first are the ones to delete first (upstream's ActivePodsWithRanks; rank: pods of related owners on the same node). */
void pods_sort_for_deletion(struct core_v1_pod **v, size_t n, const int *ranks);

/* FNV-1a over the canonical JSON of the value and the collision count, in upstream's safe alphabet. */
struct str object_hash(struct arena *a, const struct schema_type *t, const void *obj, const int32_t *collision_count);
struct str safe_encode(struct arena *a, struct str s);
uint32_t fnv32a(uint32_t h, struct str s);

/* Labels of a are those of b. */
bool map_equal(const struct str_map *a, const struct str_map *b);
struct str quote(struct arena *a, struct str s); /* JSON string with quotes */
/* True when two JSON-able values are equal. */
#define SAME(type_name, a, b) object_equal(&type_name##_type, (a), (b))

/* An error worth only a retry without noise: the namespace is being deleted. */
bool namespace_terminating(const struct error *e);

/* accounts.c: the manager of the service account kube-system/NAME, over the root's connection, which has no credentials. */
struct manager *manager_as(struct manager *root, const char *account);

/* ---- the controllers: each registers its handlers and starts its fibers ---- */
typedef void controller_start(struct manager *m);
controller_start replicaset_start, replicationcontroller_start, deployment_start, namespace_start, serviceaccount_start,
	root_ca_start, endpoints_start, endpointslice_start, endpointslicemirroring_start, garbage_collector_start, node_ipam_start,
	node_lifecycle_start, job_start, cronjob_start, ttl_after_finished_start, daemonset_start, statefulset_start, pod_gc_start,
	csr_approving_start, csr_signing_start, csr_cleaner_start, pv_protection_start, pvc_protection_start, pv_binder_start,
	vac_protection_start, ephemeral_volume_start, service_cidr_start,
	resource_quota_start, disruption_start, hpa_start, clusterrole_aggregation_start, bootstrap_signer_start, token_cleaner_start,
	ttl_start, policy_status_start, sa_token_start, taint_eviction_start;

#endif
