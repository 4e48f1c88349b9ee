/*
 * cloud/provider.h: the interface of a cloud (upstream's cloudprovider.Interface,
 * InstancesV2 and LoadBalancer). A provider is one struct of functions; each may wait (fibers).
 */
#ifndef SKIFF_CLOUD_PROVIDER_H
#define SKIFF_CLOUD_PROVIDER_H

#include "schema/api.h"
#include "base/error.h"

struct cloud_address {
	const char *type; /* "InternalIP", "ExternalIP", "Hostname" */
	struct str address;
};

struct cloud_instance { /* strings in the arena given */
	struct str provider_id, instance_type, zone, region;
	LIST(struct cloud_address) addresses;
};

struct cloud_provider {
	const char *name; /* of --cloud-provider */
	/* Reads `option` ("NAME=VALUE" of --NAME) that is the provider's own; false: not known. */
	bool (*option)(const char *name, const char *value, struct error **e);
	/* Is the machine of this node there at all? An error means "cannot tell". */
	struct error *(*instance_exists)(const struct core_v1_node *n, bool *exists);
	struct error *(*instance_shutdown)(const struct core_v1_node *n, bool *down);
	struct error *(*instance)(struct arena *a, const struct core_v1_node *n, struct cloud_instance *out);
	/*
	 * Makes (or keeps) the load balancer of s; `all` are all Services, so that one without state of its own can see
	 * which addresses are taken. *status in the arena.
	 */
	struct error *(*ensure_load_balancer)(struct arena *a, const struct core_v1_service *s, struct core_v1_service *const *all, size_t n,
					      struct core_v1_load_balancer_status *status);
	struct error *(*delete_load_balancer)(const struct core_v1_service *s);
};

extern const struct cloud_provider cloud_local;

#endif
