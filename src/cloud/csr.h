/*
 * cloud/csr.h: approves the serving certificates that kubelets ask for (signer kubernetes.io/kubelet-serving), as upstream
 * leaves to the cloud: only one who knows the machines can tell whose a name and an address are. It signs nothing.
 */
#ifndef SKIFF_CLOUD_CSR_H
#define SKIFF_CLOUD_CSR_H

#include "client/informer.h"

/*
 * Starts the controller on the caller's loop; both live as long as the process. A request is approved when it comes from the
 * node that it names and all its names and addresses stand in that Node's status.addresses; any other is left to people.
 */
struct error *serving_csr_start(struct client *client, struct informer *nodes);

#endif
