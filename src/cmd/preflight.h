/*
 * cmd/preflight.h: what must be so before a cluster can start, said at once and all together rather than by a component later.
 */
#ifndef SKIFF_CMD_PREFLIGHT_H
#define SKIFF_CMD_PREFLIGHT_H

#include "cmd/cluster.h"

/* On a fiber. One error naming everything that is missing and what to do about each. */
struct error *preflight(struct cluster *c);

#endif
