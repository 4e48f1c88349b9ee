/*
 * scheduler/types.h: what the scheduler remembers of nodes and pods: small
 * summaries, made when an object changes, so that a cycle over thousands of nodes
 * touches little memory and parses nothing.
 */
#ifndef SKIFF_SCHEDULER_TYPES_H
#define SKIFF_SCHEDULER_TYPES_H

#include "base/map.h"
#include "schema/api.h"
#include "schema/selector.h"

#define SCALARS_MAX 32 /* extended resources known at once, cluster-wide; more are refused with a log line */

/* Amounts: CPU in thousandths, the rest in units (bytes). */
struct resources {
	int64_t milli_cpu, memory, ephemeral_storage;
	int64_t pods;
	int64_t scalar[SCALARS_MAX]; /* by index of scalar_index() */
	uint32_t scalars;            /* bit i: scalar[i] is asked for or offered */
};
/* Index of an extended resource's name, given on first use; -1 when there are SCALARS_MAX. */
int scalar_index(struct str name);
struct str scalar_name(int index);
/* Adds a ResourceList; with `requests`, pod requests' rules (milli CPU rounds as MilliValue). */
void resources_add_list(struct resources *r, const struct str_map *list);
void resources_add(struct resources *r, const struct resources *x);
void resources_sub(struct resources *r, const struct resources *x);
/* Sum of containers, max with init containers (restartable ones accumulate), overhead, pod-level resources (KEP-2837, KEP-753). */
struct resources pod_requests(const struct core_v1_pod *pod);

struct host_port {
	struct str ip, protocol; /* ip "" is 0.0.0.0 */
	int32_t port;
};

#define TOPOLOGY_KEYS_MAX 64 /* label keys that topologies go by, cluster-wide; more are looked up the slow way */
/* A key's number, given on first use; -1 when there are TOPOLOGY_KEYS_MAX. */
int topology_key_index(struct str key);

struct affinity_term { /* a parsed PodAffinityTerm */
	struct str topology_key;
	int key;                             /* its topology_key_index */
	const struct selector *selector;     /* NULL: everything */
	const struct selector *ns_selector;
	bool has_ns_selector;
	struct strings namespaces;
	int32_t weight;                      /* preferred ones, signed by kind */
};
typedef LIST(struct affinity_term) affinity_terms;

/* A pod as the cache keeps it (assigned or assumed), or as a cycle works on it. */
struct pod_info {
	struct arena arena;          /* owns all below */
	struct str key;              /* "ns/name" */
	struct str ns, name, uid, node;
	uint64_t ns_hash;            /* str_hash(ns): most comparisons are of other namespaces */
	struct str_map labels;
	int32_t priority;
	int64_t start_s;             /* status.startTime, for preemption */
	bool deleting, assumed;
	struct resources requests;
	struct { int64_t milli_cpu, memory; } nonzero; /* with upstream's defaults for scoring: 100m, 200 MB */
	LIST(struct host_port) ports;
	affinity_terms affinity, anti_affinity;           /* required */
	affinity_terms preferred;                         /* weight > 0 affinity, < 0 anti-affinity */
	LIST(struct str) claims;     /* names of the PersistentVolumeClaims it mounts */
	struct str nominated;        /* status.nominatedNodeName */
	bool never_preempts;         /* preemptionPolicy Never */
};
/* Decoded pod to summary; free with pod_info_free. */
struct pod_info *pod_info_new(const struct core_v1_pod *pod);
void pod_info_free(struct pod_info *p);
/* Does `term`, owned by a pod of namespace owner_ns, select p? ns_labels: labels of p's namespace. */
bool affinity_term_matches(const struct affinity_term *term, struct str owner_ns, const struct pod_info *p,
			   const struct str_map *ns_labels);

struct node_info {
	struct arena arena;          /* owns `node`; remade when the node changes */
	struct core_v1_node *node;   /* NULL: pods are known, the node is not (yet) */
	struct str name;             /* owned separately: lives as long as the info */
	struct resources allocatable, requested;
	struct { int64_t milli_cpu, memory; } nonzero_requested;
	LIST(struct pod_info *) pods;          /* malloc'ed array */
	LIST(struct pod_info *) nominated;     /* malloc'ed array of pods that preempted for room here; owned by cache.nominated */
	uint32_t with_affinity, with_anti_affinity; /* how many of pods have affinity or preferred terms; required anti-affinity */
	uint32_t index;              /* in cache.nodes */
	uint32_t *domains;           /* malloc'ed: for each label of the node, in order, its number (see cache.domains) */
	uint32_t n_domains;
};

struct cache {
	struct node_info **nodes;    /* those with a node object first and in zone-mixed order of arrival */
	size_t n_nodes, cap_nodes;
	struct map by_name;          /* name -> node_info, also of unknown nodes */
	struct map pods;             /* key -> pod_info, assigned and assumed */
	struct map images;           /* image name -> (void *)number of nodes that have it */
	struct map domains;          /* "key\0value" of node labels -> struct domain: small numbers, for counting in arrays */
	uint32_t *free_domains;      /* numbers that came back */
	uint32_t n_free_domains, cap_free_domains;
	uint32_t domain_limit;       /* above every number given; 0 is none */
	uint64_t labels_version;     /* raised when a node comes, goes or gets other labels */
	struct {                     /* by topology_key_index: each node's domain, by its index */
		uint32_t *at;
		size_t cap;
		uint64_t version;    /* labels_version that it was made for */
	} columns[TOPOLOGY_KEYS_MAX];
	struct map nominated;        /* key -> pod_info of pods without a node that are nominated to one */
	struct map assumed_volumes;  /* name of a PersistentVolume -> char * key of the claim it is being bound to */
	size_t n_affinity_pods;      /* pods with affinity or preferred terms, cluster-wide */
	size_t n_anti_affinity_pods; /* pods with required anti-affinity */
	struct map namespaces;       /* name -> struct ns_info */
};
struct ns_info {
	struct arena arena;
	struct str_map labels;
};
void cache_set_node(struct cache *c, const struct core_v1_node *node, struct arena *arena /* taken over */);
void cache_delete_node(struct cache *c, struct str name);
/* Takes p over (replaces the one with the same key). */
void cache_set_pod(struct cache *c, struct pod_info *p);
void cache_delete_pod(struct cache *c, struct str key);
struct node_info *cache_node(const struct cache *c, struct str name); /* NULL when unknown or without node object */
const struct str_map *cache_ns_labels(const struct cache *c, struct str ns); /* never NULL */
/* The number of the node's (key, value), or 0 when it has no such label. Equal for nodes with the same value. key_index: the key's. */
uint32_t node_domain(struct cache *c, const struct node_info *n, int key_index, struct str key);
/* Labels of a node. */
static inline const struct str_map *node_labels(const struct node_info *n)
{
	return API_MAP(&n->node->metadata.labels);
}
/* Adds (sign 1) or removes (-1) a pod's amounts. */
void node_info_account(struct node_info *n, const struct pod_info *p, int sign);
/* The same and its place among n->pods, for what-if runs; the cache's own counts stay. */
void node_info_what_if(struct node_info *n, struct pod_info *p, int sign);
/* p (taken over) is to come to its p->nominated once there is room; replaces an earlier nomination. Nothing for an empty name. */
void cache_nominate(struct cache *c, struct pod_info *p);
void cache_denominate(struct cache *c, struct str key);
/* The pod's nomination, or NULL. */
const struct pod_info *cache_nomination(const struct cache *c, struct str key);

#endif
