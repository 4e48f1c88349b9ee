/*
 * net/upgrade.h: a proxied Upgrade: the request goes to a backend, and once both
 * sides have switched protocols their bytes are spliced. For exec, attach and
 * port-forward on their way through; neither end's protocol is understood here.
 */
#ifndef SKIFF_NET_UPGRADE_H
#define SKIFF_NET_UPGRADE_H

#include "net/http.h"

/*
 * Sends x's method and headers (without Authorization and Host) to `target` of c, answers x with the backend's 101 and splices
 * until either side ends. When the backend refuses: an error with its status (502 when it has none) and its text; nothing was
 * sent to x then.
 */
struct error *http_proxy_upgrade(struct http_exchange *x, struct http_client *c, struct str target);

#endif
