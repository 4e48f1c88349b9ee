/*
 * controller/controller.h: kube-controller-manager: the loops that make the
 * cluster as its objects say. It knows only the API (client/): no store, no nodes, no containers.
 */
#ifndef SKIFF_CONTROLLER_CONTROLLER_H
#define SKIFF_CONTROLLER_CONTROLLER_H

/* The component's main: flags as upstream's, runs until SIGTERM or SIGINT or the lease is lost. Returns the exit status. */
int kube_controller_manager_main(int argc, char **argv);

#endif
