/*
 * schema/quota.h: what an object costs its namespace: the evaluators of
 * ResourceQuota (core/v1), for the API server's admission, which charges, and for
 * the controller, which counts anew. Pure functions over objects; it reads and writes nothing.
 */
#ifndef SKIFF_SCHEMA_QUOTA_H
#define SKIFF_SCHEMA_QUOTA_H

#include "schema/api.h"

/*
 * What a pod asks for, as upstream's resource helpers say: containers summed, init containers' highest, sidecars
 * accumulated (KEP-753), pod-level resources (KEP-2837), resizes under way (KEP-1287), overhead. Quantities in the arena.
 */
void pod_total_requests(struct arena *a, const struct core_v1_pod *p, struct str_map *out);
void pod_total_limits(struct arena *a, const struct core_v1_pod *p, struct str_map *out);
/* BestEffort by its QoS rules: no container (nor the pod) asks for or limits cpu or memory. */
bool pod_is_best_effort(const struct core_v1_pod *p);

/* Kinds that no quota counts: virtual ones and events. */
bool quota_ignores(struct str group, struct str plural);
/*
 * What is to be known of others to judge a ResourceClaim: device classes stand for extended resources (KEP-5004). classes: name ->
 * extendedResourceName or ""; charged: what the pod is charged already, when the claim is what the scheduler made for the pod's
 * extended resources.
 */
struct quota_devices {
	struct str_map classes, charged;
};
/* True when objects of this resource are charged under `name` (a key of spec.hard). d: NULL where no classes are known. */
bool quota_counts(struct str group, struct str plural, struct str name, const struct quota_devices *d);
/* The object passes the quota's scopes and scopeSelector; kinds without scopes never pass one. obj is of the resource's v1 type. */
bool quota_scopes_match(const struct core_v1_resource_quota_spec *q, struct str group, struct str plural, const void *obj);
/* What obj uses, by name; obj may be NULL for kinds that are only counted. now_s: wall clock (pods past their grace are free). */
void quota_usage(struct arena *a, struct str group, struct str plural, const void *obj, int64_t now_s, const struct quota_devices *d,
		 struct str_map *out);
/* True for kinds whose usage depends on the object: pods, services, persistentvolumeclaims, resourceclaims. Others count 1. */
bool quota_reads_object(struct str group, struct str plural);
/*
 * The requests and limits that a quota on `hard` forces a pod to state: "cpu for: a,b; memory for: a" or empty (upstream's
 * Constraints; only cpu and memory, never more).
 */
struct str quota_missing(struct arena *a, const struct str_map *hard, const struct core_v1_pod *p);
/* Adds m to *into, key by key. */
void quota_add(struct arena *a, struct str_map *into, const struct str_map *m);
/* Raises *into to at least m, key by key. */
void quota_raise(struct arena *a, struct str_map *into, const struct str_map *m);

#endif
