/* scheduler/plugins/plugins.h: the built-in plugins, for framework.c's table. */
#ifndef SKIFF_SCHEDULER_PLUGINS_H
#define SKIFF_SCHEDULER_PLUGINS_H

#include "scheduler/framework.h"

extern const struct plugin plugin_scheduling_gates, plugin_node_unschedulable, plugin_node_name, plugin_taint_toleration,
	plugin_node_affinity, plugin_node_ports, plugin_node_resources_fit, plugin_balanced_allocation, plugin_image_locality,
	plugin_pod_topology_spread, plugin_inter_pod_affinity, plugin_volume_binding,
	plugin_volume_restrictions, plugin_volume_zone, plugin_node_volume_limits;

/* Does the pod's nodeSelector and required node affinity select n? */
bool node_affinity_matches(struct cycle *c, const struct core_v1_pod *pod, const struct node_info *n);
/* One NodeSelector (terms are ORed; no term matches nothing). */
bool node_selector_matches(const struct core_v1_node_selector *s, const struct core_v1_node *n);
/* First taint with one of the effects that no toleration covers, or NULL. */
const struct core_v1_taint *untolerated_taint(const struct core_v1_node *n, const struct core_v1_pod *pod, bool prefer_no_schedule);

#endif
