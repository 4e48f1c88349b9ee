/* net/rc_internal.h: shared by remotecommand.c, portforward.c and remotecommand_client.c. */
#ifndef SKIFF_NET_RC_INTERNAL_H
#define SKIFF_NET_RC_INTERNAL_H

#include "net/http.h"

struct spdy;
bool rc_spdy_requested(const struct http_exchange *x);
const char *rc_choose_protocol(const struct http_exchange *x, const char *const *ours, bool *offered);
struct error *rc_spdy_upgrade(struct http_exchange *x, const char *protocol, struct spdy **out);
/* A base64 channel: the channel's digit, then the bytes as text. */
struct websocket;
struct error *rc_ws_write64(struct websocket *w, const char head[1], const char *p, size_t n);
bool rc_decode64(struct str s, struct buf *out);
bool rc_parse_size(struct str json, uint16_t *w, uint16_t *h);

#endif
