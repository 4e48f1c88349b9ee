/* controller/scale.h: the scale subresource of whatever resource, by kind: what budgets and autoscalers know a workload by. */
#ifndef SKIFF_CONTROLLER_SCALE_H
#define SKIFF_CONTROLLER_SCALE_H

#include "controller/common.h"

struct scale_ref {
	struct str path; /* of the subresource */
	struct autoscaling_v1_scale *scale;
};
/*
 * The scale of ns/name of this kind. 404 when there is no such object, or (reason "NoKindMatch") no such kind, or (reason
 * "NoScale") the resource has no scale.
 */
struct error *scale_get(struct manager *m, struct arena *a, struct str api_version, struct str kind, struct str ns, struct str name,
			struct scale_ref *out);
/* Writes spec.replicas; a conflict when it changed meanwhile. */
struct error *scale_set_replicas(struct manager *m, struct arena *a, const struct scale_ref *s, int32_t replicas);

#endif
