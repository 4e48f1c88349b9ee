/*
 * net/spdy.h: SPDY/3.1 as Kubernetes' exec, attach and port-forward speak it: many
 * streams over one upgraded connection, client and server. Not a browser's SPDY:
 * no push, no priorities, no credentials.
 */
#ifndef SKIFF_NET_SPDY_H
#define SKIFF_NET_SPDY_H

#include "net/http.h"

struct spdy;
/*
 * Speaks SPDY/3.1 over an upgraded stream (taken over, also on failure). `server`: who has the even stream numbers.
 * A fiber of the connection reads frames until the peer goes or spdy_free.
 */
struct error *spdy_new(struct stream *s, bool server, struct spdy **out);
/* Resets all streams, closes the connection, frees it with all its streams; NULL is allowed. */
void spdy_free(struct spdy *c);
/* Suspends until the connection has ended; the reason, or NULL for an orderly end. */
struct error *spdy_wait_end(struct spdy *c);
/* True once the peer has gone. Does not wait. */
bool spdy_ended(const struct spdy *c);

/* A stream; a byte stream by `s` (first member): read, write, shutdown (FIN). stream_close(&st->s) resets what is not ended and frees. */
struct spdy_stream {
	struct stream s;
	uint32_t id;
	struct http_headers headers; /* of SYN_STREAM (accepted) or SYN_REPLY (opened); names lower case */
	void *impl;
};
/* The next stream the peer opens; it is answered with SYN_REPLY. sys == EPIPE when the connection has ended. At most 4,096 open streams. */
struct error *spdy_accept(struct spdy *c, struct spdy_stream **out);
/* Opens a stream and waits for SYN_REPLY. */
struct error *spdy_open(struct spdy *c, const struct http_header *headers, size_t n_headers, struct spdy_stream **out);
/* Round trip of a PING. */
struct error *spdy_ping(struct spdy *c);

#endif
