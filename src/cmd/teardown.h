/*
 * cmd/teardown.h: takes away what a cluster made on this machine: pods, then
 * whatever a killed component left: processes, cgroups, mounts, namespaces,
 * nftables tables, links. Never touches what survives: the data directory.
 */
#ifndef SKIFF_CMD_TEARDOWN_H
#define SKIFF_CMD_TEARDOWN_H

#include "cmd/cluster.h"

/* Stops and removes every pod of every node, when no runtime runs any more. Outside of loops. False after an error (logged). */
bool teardown_pods(struct cluster *c);
/* What is left when all components have ended. On a fiber. Goes on after errors; they are logged. False when something could not be removed. */
bool teardown_rest(struct cluster *c);

#endif
