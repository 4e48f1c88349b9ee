/* controller/services.h: which Services select a pod; what the two endpoint controllers share. */
#ifndef SKIFF_CONTROLLER_SERVICES_H
#define SKIFF_CONTROLLER_SERVICES_H

#include "controller/common.h"

struct service_index;
/* The process' one index; its handler on the Services informer runs before the caller's. */
struct service_index *service_index_get(struct manager *m);
/* Queues the Services of the pod's namespace whose selector matches the pod as it is or was. */
void service_index_enqueue(struct service_index *x, struct workqueue *q, const struct cached_object *old, const struct cached_object *new_);
/* True when an update of a pod can change endpoints. Both NULL-able. */
bool pod_change_matters(struct informer *pods, const struct cached_object *old, const struct cached_object *new_);
/* A pod that belongs among the endpoints at all: has an address, has not ended. */
bool pod_wants_endpoint(const struct core_v1_pod *p, bool include_terminating);
/* The number targetPort means in this pod; false when the pod has no such port. */
bool find_port(const struct core_v1_pod *p, const struct core_v1_service_port *sp, int32_t *port);
static inline bool is_headless(const struct core_v1_service *s)
{
	return str_eqz(s->spec.cluster_ip, "None");
}

#endif
