/*
 * net/remotecommand.h: exec, attach and port-forward as kubectl speaks them, over
 * SPDY/3.1 or WebSocket, behind one interface. The server side is the kubelet's (and
 * the runtime's streaming server), the client side is for tests, probes and tools. The API server
 * between them splices bytes (http_upgrade, http_do_upgrade, stream_splice) and needs neither.
 *
 * Protocols. exec/attach: SPDY with X-Stream-Protocol-Version v5..v1.channel.k8s.io and streamType headers; WebSocket
 * v5, v4, v3..v1.channel.k8s.io, their base64 forms and no subprotocol at all (= v1). port-forward: SPDY "portforward.k8s.io"; SPDY
 * tunnelled through WebSocket "SPDY/3.1+portforward.k8s.io"; plain WebSocket v4.channel.k8s.io with ?ports=.
 */
#ifndef SKIFF_NET_REMOTECOMMAND_H
#define SKIFF_NET_REMOTECOMMAND_H

#include "net/http.h"

/* ---- exec and attach ---- */

struct rc_opts { /* which streams the request asked for, by its query (stdin=true or stdin=1, ...) */
	bool in, out, err, tty; /* err is false with tty: the terminal joins them */
};
/* From ?stdin= / ?input=, ?stdout= / ?output=, ?stderr= / ?error=, ?tty=. An error 400 when no stream is asked for. */
struct error *rc_opts_from_query(struct arena *a, struct str query, struct rc_opts *out);

struct rc_session {
	struct rc_opts o;
	struct stream *in;  /* read: what the client types; end of stream when it closed stdin. NULL unless o.in */
	struct stream *out; /* write; NULL unless o.out */
	struct stream *err; /* write; NULL unless o.err */
	void *impl;
};
/* Negotiates, answers 101, collects the streams (30 s at most). An error before the answer has its HTTP status and nothing was sent. */
struct error *rc_accept(struct http_exchange *x, const struct rc_opts *o, struct rc_session **out);
/* The next terminal size ({"Width":..,"Height":..} messages). sys == EPIPE when there will be none. One fiber. */
struct error *rc_resize(struct rc_session *s, uint16_t *width, uint16_t *height);
/* Suspends until the client has gone. */
struct error *rc_wait_gone(struct rc_session *s);
/*
 * Ends the session: writes the outcome to the error channel (v4+: a metav1.Status with reason NonZeroExitCode and cause
 * ExitCode; older: text), ends all streams orderly and frees. e == NULL and exit_code == 0: Success. e is freed.
 */
void rc_finish(struct rc_session *s, int exit_code, struct error *e);

/* ---- port-forward ---- */

struct pf_session;
struct pf_pair { /* one connection to one port */
	uint16_t port;
	struct stream *data; /* both ways */
	void *impl;
};
struct error *pf_accept(struct http_exchange *x, struct pf_session **out);
/* The next connection the client opens. sys == EPIPE when the session has ended. At most 1,000 at once. */
struct error *pf_next(struct pf_session *s, struct pf_pair **out);
/* Ends the pair: e (freed) goes to its error stream as text. */
void pf_pair_finish(struct pf_pair *p, struct error *e);
void pf_free(struct pf_session *s);

/* ---- client ---- */

enum rc_transport { RC_WEBSOCKET, RC_SPDY };
struct rc_client {
	struct stream *in, *out, *err; /* in: write, shutdown = end of stdin (v5); out, err: read; NULL where not asked for */
	void *impl;
};
/* POST (SPDY) or GET (WebSocket) of target, which has the query of the streams `o`. */
struct error *rc_dial(struct http_client *c, struct arena *a, enum rc_transport t, struct str target,
		      const struct http_header *headers, size_t n_headers, const struct rc_opts *o, struct rc_client **out);
struct error *rc_client_resize(struct rc_client *c, uint16_t width, uint16_t height);
/* Suspends until the server says how it ended: NULL and *exit_code, or an error. Read out and err to their ends first or from other fibers. */
struct error *rc_client_wait(struct rc_client *c, int *exit_code);
void rc_client_free(struct rc_client *c);

struct pf_client;
struct error *pf_dial(struct http_client *c, struct arena *a, enum rc_transport t, struct str target,
		      const struct http_header *headers, size_t n_headers, struct pf_client **out);
/* A connection to `port`; bytes both ways; its end is an error holding the text of the error stream if there was some. */
struct error *pf_connect(struct pf_client *c, uint16_t port, struct stream **out);
void pf_client_free(struct pf_client *c);

#endif
