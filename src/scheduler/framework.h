/*
 * scheduler/framework.h: the plugin interface, with upstream's extension points
 * (KEP-624), and one scheduling cycle.
 */
#ifndef SKIFF_SCHEDULER_FRAMEWORK_H
#define SKIFF_SCHEDULER_FRAMEWORK_H

#include "client/client.h"
#include "scheduler/config.h"
#include "scheduler/types.h"

#define SCORE_MAX 100

enum code {
	CODE_SUCCESS,
	CODE_UNSCHEDULABLE,                /* preemption may help */
	CODE_UNSCHEDULABLE_UNRESOLVABLE,   /* it cannot */
	CODE_ERROR,
	CODE_SKIP,                         /* pre_filter, pre_score: the plugin has nothing to say of this pod */
};
struct status {
	enum code code;
	struct str reason; /* upstream's words: "Insufficient cpu", "node(s) had untolerated taint(s)"; lives as long as the cycle */
};
#define STATUS_OK ((struct status){CODE_SUCCESS, STR_NULL})

/* What can make a pod that a plugin rejected fit after all. */
enum cluster_event {
	EVENT_NODE_ADD = 1 << 0,
	EVENT_NODE_ALLOCATABLE = 1 << 1,
	EVENT_NODE_LABEL = 1 << 2,
	EVENT_NODE_TAINT = 1 << 3,
	EVENT_POD_ADD = 1 << 4,      /* an assigned pod appeared or changed labels */
	EVENT_POD_DELETE = 1 << 5,   /* an assigned pod went or shrank */
	EVENT_VOLUME = 1 << 6,       /* claims, volumes, classes */
	EVENT_ALL = ~0,
};

struct cycle { /* one pod, one attempt */
	struct arena *a;
	struct cache *cache;
	const struct profile *profile;
	const struct core_v1_pod *pod;
	struct pod_info *info;
	void *state[PLUGINS_MAX];    /* a plugin's own, by its index */
	uint32_t skip_filter, skip_score; /* bit by plugin index */
	size_t n_feasible;
	const struct volume_lister *volumes;
	const struct owner_lister *owners;    /* NULL: no default spreading */
	const struct budget_lister *budgets;  /* NULL: no PodDisruptionBudgets */
};

struct plugin {
	const char *name;            /* upstream's, as in KubeSchedulerConfiguration */
	int weight;                  /* of score, default profile */
	unsigned events;             /* enum cluster_event */
	/* Each may be NULL. `self` is the plugin's index. */
	struct status (*pre_enqueue)(const struct core_v1_pod *pod, struct arena *a);
	struct status (*pre_filter)(struct cycle *c, int self);
	struct status (*filter)(struct cycle *c, int self, const struct node_info *n);
	/* Updates pre_filter state as if p came (sign 1) or went (-1); for preemption's what-if. */
	void (*pod_changed)(struct cycle *c, int self, const struct node_info *n, const struct pod_info *p, int sign);
	struct status (*pre_score)(struct cycle *c, int self, struct node_info **nodes, size_t n);
	int64_t (*score)(struct cycle *c, int self, const struct node_info *n);
	void (*normalize)(struct cycle *c, int self, struct node_info **nodes, int64_t *scores, size_t n);
	/* After a node is chosen, before the next cycle: takes what binding will use. A failure ends the attempt. */
	struct status (*reserve)(struct cycle *c, int self, const struct node_info *n);
	/* Gives it back: binding failed. Called whether or not reserve was. */
	void (*unreserve)(struct cycle *c, int self);
	struct error *(*pre_bind)(struct cycle *c, int self, struct client *client, struct str node);
};
/* All there are, in the order of upstream's default profile. */
extern const struct plugin *const plugins[];
extern const int n_plugins;

/* Scales scores to 0..100 by the highest; `reverse`: the highest becomes 0. */
void default_normalize(int64_t *scores, size_t n, bool reverse);

/* Bound and unbound claims, as the volume plugins ask. */
struct volume_lister {
	void *ctx;
	struct core_v1_persistent_volume_claim *(*claim)(void *ctx, struct arena *a, struct str ns, struct str name);
	struct core_v1_persistent_volume *(*volume)(void *ctx, struct arena *a, struct str name);
	struct storage_v1_storage_class *(*storage_class)(void *ctx, struct arena *a, struct str name);
	/* Volumes of a class, decoded; of every phase. */
	size_t (*of_class)(void *ctx, struct arena *a, struct str class, struct core_v1_persistent_volume ***out);
	struct storage_v1_csi_node *(*csi_node)(void *ctx, struct arena *a, struct str node); /* NULL when there is none */
	/* Suspends until a claim or volume changed, at most ms. */
	struct error *(*wait)(void *ctx, int64_t ms);
};

/* What selects a pod from outside: its Services and its controller. */
struct owner_lister {
	void *ctx;
	/* All selectors that hold for the pod, as one; NULL when nothing selects it. */
	const struct meta_v1_label_selector *(*selector)(void *ctx, struct arena *a, const struct core_v1_pod *pod);
};

struct budget { /* a PodDisruptionBudget, for preemption */
	struct str ns;
	const struct selector *selector;
	int32_t allowed;
	struct str_map disrupted;    /* names of pods that are going already */
};
struct budget_lister {
	void *ctx;
	size_t (*all)(void *ctx, struct arena *a, struct budget **out);
};

/* Why a pod fits nowhere. */
struct diagnosis {
	size_t n_nodes;
	struct str message;          /* "0/3 nodes are available: ..." */
	uint32_t rejected_by;        /* bit by plugin index */
	LIST(struct node_info *) candidates; /* nodes whose rejection preemption may resolve */
};
/* Runs pre_filter, filter, scores: *chosen is the node, or NULL with the diagnosis. Errors are a plugin's CODE_ERROR. */
struct error *schedule_pod(struct cycle *c, struct node_info **chosen, struct diagnosis *why);
/* Filters one node with the cycle's state, with and without the pods that are nominated to it. */
struct status run_filters(struct cycle *c, struct node_info *n, int *by);
/* As if p came to n (sign 1) or went from it (-1), for filters; always undone before anything waits. */
void what_if(struct cycle *c, struct node_info *n, struct pod_info *p, int sign);
/* Finds the pods to evict so that c's pod fits: *node NULL when there are none; message as upstream's PostFilter. */
struct str find_victims(struct cycle *c, struct diagnosis *why, struct node_info **node, struct pod_info ***victims, size_t *n);

#endif
