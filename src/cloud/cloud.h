/*
 * cloud/cloud.h: cloud-controller-manager: what a cluster needs to know of the
 * machines below it, and addresses for Services of type LoadBalancer.
 *
 * The controllers are the same for every provider (cloud/provider.h). It changes
 * only Nodes (labels, addresses, the uninitialized taint, deletion), the status and
 * finalizers of Services, and the approval of kubelets' serving certificates.
 */
#ifndef SKIFF_CLOUD_CLOUD_H
#define SKIFF_CLOUD_CLOUD_H

/* The component: upstream's flags where they mean the same (--help lists them). */
int cloud_controller_manager_main(int argc, char **argv);

#endif
