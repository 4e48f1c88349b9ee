/* controller/deployment.h: what the two files of the Deployment controller share. */
#ifndef SKIFF_CONTROLLER_DEPLOYMENT_H
#define SKIFF_CONTROLLER_DEPLOYMENT_H

#include "controller/common.h"

#define ANNOTATION_REVISION "deployment.kubernetes.io/revision"
#define ANNOTATION_HISTORY "deployment.kubernetes.io/revision-history"
#define ANNOTATION_DESIRED "deployment.kubernetes.io/desired-replicas"
#define ANNOTATION_MAX "deployment.kubernetes.io/max-replicas"
#define HASH_LABEL "pod-template-hash"

struct deployment_controller {
	struct manager *m;
	struct informer *deployments, *sets, *pods;
	struct workqueue *q;
	struct event_recorder *rec;
};

struct rollout { /* one reconcile */
	struct deployment_controller *c;
	struct arena *a;
	struct str key;
	struct apps_v1_deployment *d;
	struct apps_v1_replica_set **all; /* owned by d, oldest first */
	size_t n;
	struct apps_v1_replica_set *new_; /* that of the template, or NULL */
};

typedef struct apps_v1_replica_set rs_t;

static inline int32_t rs_replicas(const rs_t *rs)
{
	return rs ? i32_or(rs->spec.replicas, 1) : 0;
}
static inline int32_t d_replicas(const struct apps_v1_deployment *d)
{
	return i32_or(d->spec.replicas, 1);
}
static inline bool is_rolling(const struct apps_v1_deployment *d)
{
	return !str_eqz(d->spec.strategy.type, "Recreate");
}
int max_surge(const struct apps_v1_deployment *d);
int max_unavailable(const struct apps_v1_deployment *d);
bool has_deadline(const struct apps_v1_deployment *d);
struct apps_v1_deployment_condition *deployment_condition(struct apps_v1_deployment_status *st, const char *type);
void deployment_set_condition(struct arena *a, struct apps_v1_deployment_status *st, const char *type, const char *status,
			      const char *reason, struct str message);

/* ---- deployment_scale.c ---- */
/* Sets spec.replicas and the annotations of rs; *changed (or NULL) tells whether its size changed. */
struct error *scale_set(struct rollout *r, rs_t *rs, int32_t replicas, bool *changed);
struct error *scale_proportionally(struct rollout *r);
bool is_scaling_event(const struct rollout *r);
bool set_replica_annotations(struct arena *a, rs_t *rs, int32_t desired, int32_t max);
struct error *rollout_rolling(struct rollout *r, bool *changed);
struct error *scale_down_for_recreate(struct rollout *r, bool *changed);

#endif
