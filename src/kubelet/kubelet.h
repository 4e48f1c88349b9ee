/*
 * kubelet/kubelet.h: the node agent: runs the pods that the API (or a manifest
 * directory) assigns to this node, and reports them and the node.
 *
 * It knows the API only through client/, the container runtime only as CRI over
 * a unix socket. It keeps no state of its own that cannot be rebuilt from those
 * two: it may be killed and started again at any moment, and adopts what runs.
 */
#ifndef SKIFF_KUBELET_KUBELET_H
#define SKIFF_KUBELET_KUBELET_H

/* `skiff kubelet`: runs until SIGTERM or SIGINT, which leave all pods running. Returns the exit status. */
int kubelet_main(int argc, char **argv);

#endif
