/*
 * cmd/node_net.h: network namespaces for the nodes of `skiff up --nodes N`,
 * N > 1: one a node beyond the first, joined by the bridge skiff-nodes.
 */
#ifndef SKIFF_CMD_NODE_NET_H
#define SKIFF_CMD_NODE_NET_H

#include "cmd/cluster.h"

/* Path of node i's pinned network namespace (i > 0). */
const char *node_netns_path(const struct cluster *c, int i);
/* Makes the bridge, namespaces, veth pairs, addresses and default routes; what exists is kept. */
struct error *node_net_up(struct cluster *c);
/* Takes all of it away. Goes on after an error and returns the first. */
struct error *node_net_down(struct cluster *c);

#endif
