/*
 * client/leaderelection.h: leader election by a Lease (coordination.k8s.io), as client-go's.
 */
#ifndef SKIFF_CLIENT_LEADERELECTION_H
#define SKIFF_CLIENT_LEADERELECTION_H

#include "client/client.h"

struct leader_opts {
	struct client *client;
	const char *ns, *name;   /* "kube-system", "kube-scheduler" */
	const char *identity;    /* host name + "_" + uuid */
	int64_t lease_ms, renew_ms, retry_ms; /* upstream's defaults 15,000, 10,000, 2,000 when 0 */
};
/* Suspends until this process leads; then renews on a fiber. When the lease is lost, `lost` is called (upstream exits then). */
struct error *leader_acquire(const struct leader_opts *o, void (*lost)(void *ctx), void *ctx);
/* Gives the lease up (on clean shutdown), so that another takes over at once. */
void leader_release(void);

#endif
