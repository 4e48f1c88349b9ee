/*
 * proxy/conntrack.h: forgets UDP connections whose endpoint has gone: conntrack
 * would send a client's datagrams there for as long as it keeps sending.
 */
#ifndef SKIFF_PROXY_CONNTRACK_H
#define SKIFF_PROXY_CONNTRACK_H

#include <stdint.h>

#include "base/error.h"
#include "base/map.h"

#define CONNTRACK_DELETE_MAX 100000 /* entries deleted in one run; more want another */

/*
 * udp: "IP:PORT" of each UDP Service address (node ports: ":PORT") -> struct map * of "IP:PORT" of its endpoints. Deletes each
 * UDP entry whose original destination is such an address and whose answering side is none of its endpoints. Blocks: offload it.
 */
struct error *conntrack_clean_udp(const struct map *udp, unsigned *deleted);

#endif
