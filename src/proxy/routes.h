/*
 * proxy/routes.h: routes to other nodes' pod ranges through their addresses, where all nodes share a link (--node-routes).
 */
#ifndef SKIFF_PROXY_ROUTES_H
#define SKIFF_PROXY_ROUTES_H

#include "base/error.h"
#include "base/map.h"

/* want: pod CIDR -> next hop (C string). have: what was set last; becomes want. */
struct error *routes_sync(struct map *have, const struct map *want);

#endif
