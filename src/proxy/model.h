/*
 * proxy/model.h: Services and EndpointSlices to a ruleset: pure, no I/O.
 */
#ifndef SKIFF_PROXY_MODEL_H
#define SKIFF_PROXY_MODEL_H

#include "base/map.h"
#include "proxy/ruleset.h"
#include "schema/api.h"

struct model { /* what the rules depend on beside the objects */
	struct arena *a;          /* scratch for one build */
	struct str node, zone;    /* this node's */
	bool cluster_cidr;        /* masquerade what comes from outside it on its way to a ClusterIP */
	struct ruleset *rules;
	/*
	 * Out: which endpoints may answer on which UDP address, see conntrack.h; the inner maps' keys live until
	 * model_free_udp. Serving endpoints whatever the traffic policies say: their changes leave flows alone. An
	 * address that nobody serves is left out.
	 */
	struct map udp;
	uint64_t udp_state; /* differs when udp does */
};
void model_free_udp(struct model *m);
/* Adds one Service with all slices that carry its kubernetes.io/service-name label. IPv4 only; other families are left out. */
void model_add_service(struct model *m, const struct core_v1_service *s, struct discovery_v1_endpoint_slice *const *slices, size_t n);
/* Does this kube-proxy serve s? (not headless, not ExternalName, no other proxy's name) */
bool model_serves(const struct core_v1_service *s);
/* Ready endpoints on this node of all ports (for health-check node ports). */
size_t model_local_endpoints(const struct model *m, struct discovery_v1_endpoint_slice *const *slices, size_t n);

#endif
