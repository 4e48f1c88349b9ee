/*
 * net/websocket.h: RFC 6455 over an upgraded HTTP/1.1 stream, client and server.
 * Pings are answered while something reads. It knows nothing of Kubernetes' channels (net/remotecommand.h).
 */
#ifndef SKIFF_NET_WEBSOCKET_H
#define SKIFF_NET_WEBSOCKET_H

#include "net/http.h"

enum ws_kind { WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8 };

struct websocket;
/* True when the request asks for a WebSocket (Upgrade, Connection and version 13). */
bool ws_requested(const struct http_exchange *x);
/*
 * Server: answers 101 choosing the first of `protocols` (NULL-terminated, by our preference, NULL: none) the client offers.
 * When it offers some and none fits: an error with status 400, nothing sent. *chosen (or NULL) is the literal chosen, NULL for none.
 * message_max: larger messages end the connection with 1009.
 */
struct error *ws_accept(struct http_exchange *x, const char *const *protocols, size_t message_max, const char **chosen,
			struct websocket **out);
/* Client: GET target. When the server does not switch, an error with its HTTP status and the beginning of its body. */
struct error *ws_connect(struct http_client *c, struct arena *a, struct str target, const struct http_header *headers,
			 size_t n_headers, const char *const *protocols, size_t message_max, const char **chosen,
			 struct websocket **out);

/*
 * The next message, whole, valid until the next ws_read. WS_CLOSE: the peer ended; msg is its reason, *code (or NULL) its
 * close code (1005: none, 1006: the stream ended without a close frame). Afterwards only ws_free.
 */
struct error *ws_read(struct websocket *w, enum ws_kind *kind, struct str *msg, int *code);
/* One message of the parts joined. Several fibers may write: messages do not interleave. */
struct error *ws_write(struct websocket *w, enum ws_kind kind, struct str head, struct str body);
struct error *ws_ping(struct websocket *w);
/* Sends a close frame (once); reading goes on until the peer's. */
struct error *ws_close(struct websocket *w, int code, struct str reason);
/* Closes the stream and frees; NULL is allowed. */
void ws_free(struct websocket *w);

/* The binary messages of one connection as a byte stream (tunnels). Takes w over. */
struct stream *ws_stream(struct websocket *w);

#endif
