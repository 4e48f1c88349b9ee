/*
 * net/http.h: HTTP/1.1 (RFC 9112) and HTTP/2 (RFC 9113, nghttp2) on one port,
 * chosen by ALPN under TLS or by the client preface in clear text; server and client.
 *
 * It frames, limits and flow-controls; it knows nothing of Kubernetes.
 * A handler runs on a fiber of its own with a request arena; response bytes
 * wait for the peer's window, so a slow reader suspends its writer and never
 * becomes memory.
 */
#ifndef SKIFF_NET_HTTP_H
#define SKIFF_NET_HTTP_H

#include "base/ref.h"
#include "loop/io.h"
#include "net/tls.h"

struct http_header {
	struct str name; /* lower case */
	struct str value;
};
struct http_headers {
	struct http_header *v;
	size_t n;
};
/* First value of a header (name lower case), STR_NULL when absent. */
struct str http_header_get(const struct http_headers *h, const char *name);

/* ---- server ---- */

struct http_exchange { /* one request and its response; owned by the server */
	struct arena *arena;        /* lives until the handler has returned */
	struct str method;          /* "GET" */
	struct str path;            /* raw, before '?', still percent-encoded */
	struct str query;           /* raw, behind '?', no '?' */
	struct str host;
	struct http_headers headers;
	int version;                /* 11 or 20 */
	const struct tls_peer *peer; /* client certificate, or NULL: net/tls.h */
	const char *peer_error;     /* why the one shown was not accepted, or NULL */
	bool secure;                /* over TLS */
	struct sockaddr_storage remote;
	const void *connection;     /* identity: the same for all requests of one connection */
	int64_t content_length;     /* -1: unknown */
	uint64_t sent;              /* bytes of the answer's body so far, of a whole one at once */
	void *impl;
};

typedef void http_handler(struct http_exchange *x, void *ctx);

struct http_server_opts {
	struct tls_server *tls;     /* NULL: clear text */
	http_handler *handler;
	void *ctx;
	size_t max_header_bytes;    /* default 1 MiB (Go's) */
	size_t max_streams;         /* HTTP/2 concurrent streams a connection, default 250 */
	size_t max_connections;     /* default 20,000; past it new ones are closed at once */
	int64_t header_timeout_ms;  /* default 32,000: whole request head must arrive in it */
	int64_t idle_timeout_ms;    /* default 90,000 */
};
struct http_server;
/* Serves l (taken over) on fibers of the calling thread's loop. */
struct error *http_server_start(struct listener *l, const struct http_server_opts *o, struct http_server **out);
/* Stops accepting, lets running requests end for grace_ms (GOAWAY), then cancels them; frees. */
void http_server_stop(struct http_server *s, int64_t grace_ms);
/* Connections whose TLS handshake failed. */
uint64_t http_server_bad_handshakes(const struct http_server *s);

/* Reads body bytes: *got == 0 at its end. */
struct error *http_body_read(struct http_exchange *x, void *p, size_t n, size_t *got);
/* The whole body in the request's arena; past `limit` bytes an error with status 413. */
struct error *http_body_all(struct http_exchange *x, size_t limit, struct str *out);

/* Response. Headers may be set until the first of respond/start. Values are copied. Content-Length, Date, Connection and
 * Transfer-Encoding are the server's own business. */
void http_set_header(struct http_exchange *x, const char *name, struct str value); /* replaces one set before */
void http_add_header(struct http_exchange *x, const char *name, struct str value); /* one more of that name (Warning) */
void http_unset_header(struct http_exchange *x, const char *name);
/* A whole answer. One whose status is none (below 100, above 999) is not given: the stream, or the connection of HTTP/1.1, is cut off. */
struct error *http_respond(struct http_exchange *x, int status, struct str body);
/* The same from shared blocks: the vectors are written without copying where TLS allows. */
struct error *http_respond_iov(struct http_exchange *x, int status, struct iovec *iov, int n);
/* Streamed answer: start, write..., end. Unknown length: chunked or DATA frames. Writes are flushed at once (watch). */
struct error *http_start(struct http_exchange *x, int status);
/* As http_start where the length is known (-1: it is not): with Content-Length. Writing more is EPROTO, and so is
 * ending before it. */
struct error *http_start_length(struct http_exchange *x, int status, int64_t length);
struct error *http_write(struct http_exchange *x, struct str data);
struct error *http_writev(struct http_exchange *x, struct iovec *iov, int n);
struct error *http_end(struct http_exchange *x);
bool http_started(const struct http_exchange *x);
/* A trailer field, sent behind the body of a streamed answer (http_start..http_end; HTTP/2, or chunked HTTP/1.1). Set before http_end. */
void http_set_trailer(struct http_exchange *x, const char *name, struct str value);
/* HTTP/1.1 Upgrade: sends 101 with `protocol` and the headers set, gives the raw stream (caller closes). For HTTP/2: sys == ENOTSUP. */
struct error *http_upgrade(struct http_exchange *x, const char *protocol, struct stream **out);
/* The connection ends when what runs on it has, and the client is told so: "Connection: close", or GOAWAY. Before the
 * answer. */
void http_close(struct http_exchange *x);
/* The peer has reset the stream or closed the connection. Does not wait. When it happens, the handler's fiber is cancelled. */
bool http_peer_gone(struct http_exchange *x);

/* ---- client ---- */

struct http_client_opts {
	const char *base;           /* "https://host:port", "http://host:port" or "http+unix:///path" */
	struct tls_client *tls;     /* for https; if it offers HTTP/2, that is spoken where the server has it */
	bool http2_prior_knowledge; /* clear text: HTTP/2 at once (gRPC over unix sockets) */
	int64_t connect_timeout_ms; /* default 10,000 */
	size_t max_idle;            /* kept HTTP/1.1 connections, default 8 */
};
/*
 * What the environment says of HTTP/2 to all clients of Kubernetes: not with DISABLE_HTTP2. How long a silent connection is
 * trusted (HTTP2_READ_IDLE_TIMEOUT_SECONDS, 0: for ever; HTTP2_PING_TIMEOUT_SECONDS) is taken up by the first call.
 */
bool http2_wanted(void);
/*
 * A pool; used by many fibers of one loop. Over HTTP/2 requests share a connection up to the streams that the server allows at a time,
 * then the next, eight at most. What is not used for 90 seconds is closed, over HTTP/2 by the next ping (not in clear text).
 */
struct http_client;
struct error *http_client_new(const struct http_client_opts *o, struct http_client **out);
void http_client_free(struct http_client *c);

struct http_response {
	int status;
	struct http_headers headers; /* in the arena given to http_do */
	int64_t content_length;
	unsigned faults; /* tls.h's, of the server's certificates */
	void *impl;
};
/*
 * Sends a request (body whole) and returns when the response head is here. `target` is path + query.
 * A connection that proves dead before a byte of answer is retried once on a new one for any method whose request was not sent,
 * and for GET/HEAD/PUT/DELETE otherwise. What an HTTP/2 server refuses to look at (GOAWAY, REFUSED_STREAM) is sent again at once, then
 * after 1, 2, 4... seconds, six times more, as Go's client does. The caller ends every response with http_response_close.
 */
struct error *http_do(struct http_client *c, struct arena *a, const char *method, struct str target,
		      const struct http_header *headers, size_t n_headers, struct str body, struct http_response *out);
/* As http_do with a request body of `length` bytes (-1: unknown) produced by `next` (called until *n == 0). */
struct error *http_do_stream(struct http_client *c, struct arena *a, const char *method, struct str target,
			     const struct http_header *headers, size_t n_headers,
			     struct error *(*next)(void *ctx, void *p, size_t cap, size_t *n), void *ctx,
			     int64_t length, struct http_response *out);
struct error *http_response_read(struct http_response *r, void *p, size_t n, size_t *got);
struct error *http_response_all(struct http_response *r, struct arena *a, size_t limit, struct str *out);
void http_response_close(struct http_response *r);
/* Trailer fields (HTTP/2 or chunked); complete once http_response_read gave *got == 0. In the arena given to http_do. */
struct http_headers http_response_trailers(const struct http_response *r);
/* Upgrade request over a new HTTP/1.1 connection; on 101 *out is the raw stream, else NULL and the response is readable. */
struct error *http_do_upgrade(struct http_client *c, struct arena *a, const char *method, struct str target,
			      const struct http_header *headers, size_t n_headers, struct http_response *resp,
			      struct stream **out);

/* Percent-decoding (plus: '+' is a space, for queries) into the arena; malformed escapes stay as they are. */
struct str http_unescape(struct arena *a, struct str s, bool plus);
struct str http_escape(struct arena *a, struct str s); /* for path segments and query values */
/* First value of a query parameter, decoded; STR_NULL when absent. `present` (or NULL) tells absent from empty. */
struct str http_query_get(struct arena *a, struct str query, const char *name, bool *present);

#endif
