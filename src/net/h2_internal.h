/* net/h2_internal.h: shared by h2.c (connections, server) and h2_client.c; nobody else includes it. */
#ifndef SKIFF_NET_H2_INTERNAL_H
#define SKIFF_NET_H2_INTERNAL_H

#include <nghttp2/nghttp2.h>

#include "net/internal.h"

#define FRAME 16384u /* bytes of a DATA frame */
#define OUT_IOV 128  /* vectors of one write */
#define COST_RESET 10 /* tokens: a stream opened and reset, settings, nonsense */
#define COST_PING 1   /* gRPC clients measure with pings: one a call is normal */

struct out {
	char *p;           /* OUT_CAP bytes, from the thread's pool */
	size_t n, ext;
	struct iovec iov[OUT_IOV];
	int niov;
	uint64_t gen;
};

#define H2_PSEUDO 5

struct h2_block { /* the block of fields that is being read */
	size_t left;                    /* bytes that it may have yet */
	struct str pseudo[H2_PSEUDO];   /* in the stream's arena */
	unsigned seen;                  /* of them */
	bool regular;                   /* another field has been */
	bool bad, wrong, large;         /* a field that is none; one that must not be here; more than it may have */
};

struct h2s;
struct h2 {
	struct stream *s;
	nghttp2_session *ng;
	struct conn *conn;      /* server */
	bool server, tls, broken, closing, draining, over;
	struct out *out;        /* being filled; NULL: empty */
	struct out *writing;
	uint64_t gen, written;  /* generation being filled; the last one written */
	bool flushing;
	struct fiber *flusher, *reader;
	struct waitq room;      /* a write ended: the memory it held is released */
	struct waitq ends;      /* handlers and the flusher that end, at the close */
	struct h2s *streams;
	size_t n_streams, n_handlers;
	int64_t tokens, tokens_at;
	struct h2_block block;  /* server */
	uint32_t kill;          /* server: why a callback refuses the peer; 0: too much churn */
	unsigned refs;          /* client: pool and requests */
	bool goaway;            /* client: no new requests */
	bool ping, ping_sent;   /* client: asks a silent server for a sign of life, ends when nobody needs it */
	int64_t idle_at;        /* client: when the last stream ended */
};

struct h2s {
	struct xchg x;          /* server; first */
	struct h2 *c;
	struct h2s *next, *prev;
	int32_t id;
	struct fiber *fiber;    /* of the handler, once it runs */
	bool closed;            /* nghttp2 is done with it */
	bool in_use;            /* a handler or a caller holds it */
	bool in_ended, too_large;
	uint32_t why;           /* how it closed */
	struct buf body;
	size_t body_off;
	struct waitq wq;
	/* What its fiber is sending. */
	struct iovec *src;
	int nsrc;
	size_t src_left;
	bool src_eof, submitted, trailers_sent;
	uint64_t ext_gen;       /* the last write that holds its memory */
	/* server */
	int64_t body_bytes;     /* that have come */
	bool must_continue, trailers_announced, large;
	const char *refused;    /* a field that must not be there, as it is shown */
	/* client */
	size_t head_bytes;
	struct resp resp;
	struct arena *ra;
	struct http_headers *rh;
	header_list headers, rtrailers;
	int status;
	int64_t content_length;
	bool head_done;
};

struct h2 *h2_new(struct stream *s, struct conn *conn);
struct h2s *h2_stream_new(struct h2 *c);
void h2_stream_free(struct h2s *s);
/* Collects frames from nghttp2 while there is room, and has them written soon. */
void h2_pump(struct h2 *c);
/* The connection is of no more use: its reader ends and winds up. */
void h2_break(struct h2 *c);
/* Reads until the connection is to end. */
void h2_read_loop(struct h2 *c, int64_t idle_ms);
/* Ends everything and waits until nothing refers to the connection. */
void h2_wind_up(struct h2 *c);
/* Frees the streams that nghttp2 will not close any more. */
void h2_free_idle(struct h2 *c);
/* Hands vectors (or the end) to nghttp2 and waits until all has been taken over or written. */
struct error *h2_send(struct h2s *s, struct iovec *iov, int n, size_t total, bool eof);
struct error *h2_body_read(struct h2s *s, void *p, size_t n, size_t *got);
/* Bytes nobody will read do not count against the connection's window. */
void h2_body_drop(struct h2s *s);
struct error *h2_stream_ended(const struct h2s *s);
nghttp2_nv h2_nv(struct str name, struct str value);
ssize_t h2_read_src(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
		    nghttp2_data_source *source, void *user);
/* The peer's churn costs tokens; false: an endless supply of it, which ends the connection. */
bool h2_churn(struct h2 *c, int cost);

/* ---- h2_request.c ---- */
uint32_t h2_header_list_max(const struct h2 *c);
int h2_on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user);
int h2_on_header_server(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nn, const uint8_t *value, size_t nv,
			uint8_t flags, void *user);
/* The block was a request's: makes one of it. ended: without a body. False: it is malformed, the stream is to be reset. */
bool h2_request_judge(struct h2s *s, bool ended);
/* On the handler's fiber, for one that is `large` or `refused`. */
void h2_request_refuse(struct h2s *s);
/* The block was of trailers. False as above. */
bool h2_trailers_ok(const struct h2 *c, bool ended);

int h2_on_header_client(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nn, const uint8_t *value,
			size_t nv, uint8_t flags, void *user);
int h2_on_frame_client(nghttp2_session *ng, const nghttp2_frame *f, void *user);

#endif
