/* controller/statefulset.h: what the two files of the StatefulSet controller share. */
#ifndef SKIFF_CONTROLLER_STATEFULSET_H
#define SKIFF_CONTROLLER_STATEFULSET_H

#include "controller/history.h"

#define STS_REVISION_LABEL "controller-revision-hash" /* of pods: the name of their ControllerRevision */
#define STS_POD_NAME_LABEL "statefulset.kubernetes.io/pod-name"
#define STS_INDEX_LABEL "apps.kubernetes.io/pod-index"

typedef struct apps_v1_stateful_set sts_t;
typedef struct core_v1_pod pod_t;

struct sts_controller {
	struct manager *m;
	struct informer *sets, *pods, *claims, *revisions;
	struct workqueue *q;
	struct event_recorder *rec;
	struct expectations x;
	struct pod_watch watch;
};

struct sts_sync { /* one reconcile */
	struct sts_controller *c;
	struct arena *a;
	struct str key;
	sts_t *set;
	const struct core_v1_pod_template_spec *current_template, *update_template;
	struct str current, update;  /* names of the revisions */
	bool monotonic;
	pod_t **replicas;            /* spec.replicas of them, by ordinal; those not there yet have no phase */
	size_t n_replicas;
	pod_t **condemned;           /* descending ordinals */
	size_t n_condemned;
	pod_t *first_unavailable;
	struct apps_v1_stateful_set_status st;
};

static inline int64_t sts_start(const sts_t *s)
{
	return s->spec.ordinals ? s->spec.ordinals->start : 0;
}
static inline bool pod_is_made(const pod_t *p) /* known to the API server */
{
	return p->status.phase.n > 0;
}

/* ---- statefulset_pods.c ---- */
/* "web-3" of set "web" -> 3; -1 when it is not a pod's name of this set. */
int64_t sts_ordinal(const sts_t *s, struct str pod_name);
bool sts_in_range(const sts_t *s, int64_t ordinal);
/* The pod of an ordinal by a template, not yet created. */
pod_t *sts_new_pod(struct sts_sync *s, struct arena *a, const struct core_v1_pod_template_spec *t, struct str revision, int64_t ordinal);
/* Creates the claims of the pod that are missing, then the pod, with their events. */
struct error *sts_create_pod(struct sts_sync *s, struct arena *a, pod_t *p);
struct error *sts_delete_pod(struct sts_sync *s, struct arena *a, pod_t *p);
/* Claims that are missing are made; owners of the claims follow the retention policy (KEP-1847). */
struct error *sts_make_claims(struct sts_sync *s, struct arena *a, const pod_t *p);
bool sts_claims_match(struct sts_sync *s, struct arena *a, const pod_t *p);
struct error *sts_fix_claims(struct sts_sync *s, struct arena *a, const pod_t *p);
/* A claim still belongs to an earlier pod of this name, with which it will go. */
bool sts_claim_is_stale(struct sts_sync *s, struct arena *a, const pod_t *p);
/* Name, labels and volumes of the pod as the set says; writes it when they were not. */
bool sts_identity_matches(struct sts_sync *s, struct arena *a, const pod_t *p);
struct error *sts_fix_pod(struct sts_sync *s, struct arena *a, const pod_t *p);

#endif
