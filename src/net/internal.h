/* net/internal.h: what the files of this room share; nobody else includes it. */
#ifndef SKIFF_NET_INTERNAL_H
#define SKIFF_NET_INTERNAL_H

#include "base/log.h"
#include "net/http.h"
#include "net/tls.h"

#define MAX_HEADER_BYTES (1u << 20)
#define HEADERS_MAX 32768u /* fields of one message; their bytes have a limit too */
#define SCRATCH (64u << 10)
#define FIBERS_SPARE 1000u       /* left to others than servers */

/* A thread's receive buffer. Streams fill what they are given only when they no longer wait, so many fibers may wait with it. */
char *net_scratch(void);

/* The last that is done before s is closed: closing with bytes unread makes the kernel reset the connection, and the peer lose what it was told. */
void net_linger(struct stream *s);

typedef LIST(struct http_header) header_list;

/* ---- server: one request and its answer ---- */
struct xchg;
struct xchg_ops {
	struct error *(*body_read)(struct xchg *x, void *p, size_t n, size_t *got);
	/* Head and whole body. */
	struct error *(*respond)(struct xchg *x, struct iovec *iov, int n, size_t total);
	struct error *(*start)(struct xchg *x);
	struct error *(*writev)(struct xchg *x, struct iovec *iov, int n, size_t total);
	struct error *(*end)(struct xchg *x);
	struct error *(*upgrade)(struct xchg *x, const char *protocol, struct stream **out);
	bool (*gone)(struct xchg *x);
};
struct xchg {
	struct http_exchange x; /* first: handlers see this */
	const struct xchg_ops *ops;
	struct arena arena;
	header_list in;
	header_list out, trailers;
	int status;
	int64_t length;                      /* of the body of a streamed answer; -1: unknown */
	bool started, ended, upgraded, head; /* head: a HEAD request, whose answers have no body */
};

struct str http_reason(int status);
/* "Tue, 24 Nov 2026 20:00:00 GMT", of this second. */
struct str http_date(void);
bool http_is_token(struct str s);
/* Every % of the path is the beginning of an escape. */
bool http_escapes_ok(struct str target);
bool http_value_ok(struct str s);
/* What may stand in a Host field. */
bool http_host_ok(struct str host);
/* Status without a body (1xx, 204, 304). */
bool http_bodyless(int status);
/* Of requests: one that has none says so with Content-Length: 0. */
bool http_may_have_body(const char *method);
/* Splits "path?query" into x. */
void http_set_target(struct http_exchange *x, struct str target);
/* Hands a request to the server's handler; "OPTIONS *" is answered here. */
void http_handle(const struct http_server_opts *o, struct http_exchange *x);
void xchg_init(struct xchg *x, const struct xchg_ops *ops);

struct http_server {
	struct http_server_opts o;
	struct listener *l;
	struct fiber *acceptor;
	struct conn *conns;
	size_t n_conns;
	bool stopping;
	struct waitq gone;
	uint64_t bad_handshakes;
};

/* One connection of a server; lives on its fiber's stack. */
struct conn {
	struct conn *next, *prev;
	struct http_server *srv;
	struct stream *s;
	struct stream *raw;            /* below TLS */
	struct fiber *fiber;
	struct sockaddr_storage remote;
	/* Asks the connection to end when it can: in h1 after the request, in h2 by GOAWAY. */
	void (*drain)(struct conn *c);
	void *impl;
};

/* ---- HTTP/1.1 (h1.c, h1_parse.c) ---- */
struct rbuf { /* buffered reading of a stream */
	struct stream *s;
	char *p;
	size_t off, n, cap;
};
struct error *rbuf_fill(struct rbuf *b, size_t limit, bool *eof); /* at least one byte more, or *eof */
void rbuf_free(struct rbuf *b);

struct h1_head {
	bool request;
	struct str method, target, reason;
	int status;
	int minor;              /* HTTP/1.x */
	header_list headers;
	struct str host;
	bool has_host;
	int64_t content_length; /* -1: none given */
	bool chunked, close, keep_alive, expect_continue, upgrade;
};
/* Length of the head in p[0, n) including its empty line, 0: not complete. `seen`: bytes looked at before (or 0). */
size_t h1_head_end(const char *p, size_t n, size_t seen);
/* Parses a whole head in place: slices point into p, which must live as long; names become lower case. Errors have
 * status 400, 417, 431, 501 or 505. */
struct error *h1_parse_request(struct arena *a, char *p, size_t n, struct h1_head *out);
struct error *h1_parse_response(struct arena *a, char *p, size_t n, struct h1_head *out);
/* The path and query of h->target take its place, its authority that of h->host; false: upstream refuses such a target.
 * A path may be "" or "*". */
bool h1_target_parse(struct h1_head *h);
/* Field lines up to the empty line. */
struct error *h1_parse_fields(struct arena *a, char *p, size_t n, header_list *out);

enum h1_body_kind { H1_NONE, H1_LENGTH, H1_CHUNKED, H1_UNTIL_CLOSE };
struct h1_body {
	enum h1_body_kind kind;
	uint64_t left;     /* of the body (LENGTH) or the chunk */
	uint64_t excess;   /* what chunks have beside their data, beyond what is fair */
	bool in_chunk, first_seen, done;
	struct arena *ta;  /* trailers go here, or NULL: dropped */
	header_list trailers;
};
struct error *h1_body_read(struct h1_body *b, struct rbuf *in, void *p, size_t n, size_t *got);
/* A stream that gives what is buffered first; takes s over. */
struct stream *h1_unbuffer(struct rbuf *in, struct stream *s);

/* Serves requests until the connection ends. Returns true when it was a HTTP/2 preface: the bytes are in `in`. */
bool h1_serve(struct conn *c, struct rbuf *in);

/* The descriptor stream at the bottom of what this room puts on top of one another, for stream_on_hangup. */
struct stream *net_bottom(struct stream *s);
struct stream *h1_unbuffer_under(struct stream *s); /* NULL: not one of h1_unbuffer */
struct stream *ws_stream_under(struct stream *s);   /* NULL: not one of ws_stream */

struct websocket;
struct stream *ws_under(struct websocket *w);

/* A bounded queue of bytes between two fibers. */
struct bytes_queue {
	struct buf b;
	size_t off;
	bool ended;            /* no more will be put */
	struct waitq readable, writable;
};
/* Waits while `max` or more bytes lie in it. sys == EPIPE once it has ended. */
struct error *bq_put(struct bytes_queue *q, const char *p, size_t n, size_t max);
struct error *bq_get(struct bytes_queue *q, void *p, size_t n, size_t *got);
void bq_end(struct bytes_queue *q);
static inline size_t bq_len(const struct bytes_queue *q)
{
	return q->b.n - q->off;
}

/* ---- HTTP/2 (h2.c) ---- */
void h2_serve(struct conn *c, struct rbuf *in);

struct h2;
/* Client: takes s over and starts the connection's fiber. ping: asks a silent server for a sign of life, and ends when it has been idle. */
struct h2 *h2_client_new(struct stream *s, bool ping);
/* Silence after which a client asks, and after which it gives up; variables for tests only. */
extern int64_t h2_ping_after_ms, h2_ping_wait_ms;
/* How long connections without a request are kept; a variable for tests only. */
extern int64_t http_idle_ms;
bool h2_usable(struct h2 *c);  /* takes new requests */
bool h2_has_room(struct h2 *c); /* and begins the next at once: the server allows another stream */
void h2_ref(struct h2 *c);
void h2_unref(struct h2 *c);   /* the last one closes the connection */
void h2_shut(struct h2 *c);    /* ends it and all its requests now */
struct h2_request {
	const char *method, *scheme;
	struct str authority, target;
	const struct http_header *headers;
	size_t n_headers;
	struct str body;
	struct error *(*next)(void *ctx, void *p, size_t cap, size_t *n); /* instead of body, or NULL */
	void *ctx;
	int64_t length; /* of what next makes; -1: unknown */
};
/* *unsent: the server has certainly not acted on it. */
struct error *h2_do(struct h2 *c, struct arena *a, const struct h2_request *rq, struct http_response *out, bool *unsent);
struct error *h2_response_read(struct http_response *r, void *p, size_t n, size_t *got);
struct http_headers h2_response_trailers(const struct http_response *r);
void h2_response_close(struct http_response *r);

/* What http_response.impl points to begins with this. */
struct resp_ops {
	struct error *(*read)(struct http_response *r, void *p, size_t n, size_t *got);
	struct http_headers (*trailers)(const struct http_response *r);
	void (*close)(struct http_response *r);
};
struct resp {
	const struct resp_ops *ops;
};

#endif
