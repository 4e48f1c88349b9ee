/*
 * client/events.h: records Events (core/v1) with upstream's aggregation and
 * spam filter; in the background, never waits, drops when 1,000 are queued.
 */
#ifndef SKIFF_CLIENT_EVENTS_H
#define SKIFF_CLIENT_EVENTS_H

#include "client/client.h"

struct event_recorder;
/* component: "kubelet", "deployment-controller"...; host: node name or "". */
struct event_recorder *event_recorder_new(struct client *c, const char *component, const char *host);
void event_recorder_free(struct event_recorder *r);
/* type "Normal" or "Warning". ref: kind, apiVersion, namespace, name, uid (fieldPath as needed); copied. */
void event_record(struct event_recorder *r, const struct core_v1_object_reference *ref, const char *type, const char *reason,
		  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Reference to an object of r->type. */
struct core_v1_object_reference object_reference(const struct api_resource *r, const void *obj);

#endif
