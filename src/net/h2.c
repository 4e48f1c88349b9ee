/*
 * HTTP/2 connections on nghttp2, server and client.
 *
 * One fiber reads the connection; each request's handler has a fiber of its own. nghttp2 turns what they
 * submit into frames, which h2_pump() collects in one buffer; a write fiber, queued behind all handlers that
 * are ready, sends what they have all produced with one write. What does not fit the peer's window or the
 * buffer stays with the handler, which waits: nothing is queued without bound.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/h2_internal.h"

#define FRAME_TLS (FRAME - 9)         /* frame and head fill one TLS record */
#define OUT_CAP (7 * (FRAME + 9) + 4096) /* below malloc's threshold for mappings of their own */
#define SPARE_OUT 32
#define OUT_EXT (1u << 20)            /* bytes of handlers' memory in one write */
#define EXT_MIN 4096u                 /* smaller pieces are copied */
#define STREAM_WINDOW (256 << 10)     /* of request bodies */
#define CONN_WINDOW (1 << 20)
#define FRAME_MAX (256 << 10)         /* that a client may send: upstream's */
#define CLIENT_STREAM_WINDOW (4 << 20)
#define CLIENT_CONN_WINDOW (16 << 20)
#define STALL_MS 120000               /* a peer that takes or sends nothing for so long, where it should, is gone */
#define CLOSE_FLUSH_MS 5000
#define TOKENS 10000                  /* what frames that cost us work may cost at once, */
#define TOKENS_PER_SECOND 2000        /* and for ever */
#define SPARE_STREAMS 64

/* ---- pools of the thread ---- */

static _Thread_local struct out *spare_out[SPARE_OUT];
static _Thread_local int n_spare_out;
static _Thread_local struct h2s *spare_streams;
static _Thread_local int n_spare_streams;

static struct out *out_get(void)
{
	struct out *o = n_spare_out ? spare_out[--n_spare_out] : NULL;

	if (!o) {
		o = xmalloc(sizeof *o);
		o->p = xmalloc(OUT_CAP);
	}
	o->n = o->ext = 0;
	o->niov = 0;
	return o;
}

static void out_put(struct out *o)
{
	if (!o)
		return;
	if (n_spare_out < SPARE_OUT) {
		spare_out[n_spare_out++] = o;
	} else {
		free(o->p);
		free(o);
	}
}

struct h2s *h2_stream_new(struct h2 *c)
{
	struct h2s *s = spare_streams;

	if (s) {
		spare_streams = s->next;
		n_spare_streams--;
		struct arena keep = s->x.arena;
		struct buf body = s->body;

		memset(s, 0, sizeof *s);
		s->x.arena = keep;
		s->body = body;
	} else {
		s = xcalloc(1, sizeof *s);
	}
	s->c = c;
	s->content_length = -1;
	s->next = c->streams;
	if (s->next)
		s->next->prev = s;
	c->streams = s;
	c->n_streams++;
	return s;
}

void h2_stream_free(struct h2s *s)
{
	struct h2 *c = s->c;

	if (s->prev)
		s->prev->next = s->next;
	else
		c->streams = s->next;
	if (s->next)
		s->next->prev = s->prev;
	c->n_streams--;
	if (!c->n_streams && !c->server)
		c->idle_at = now_ms();
	/* The reader waits for the last one when the connection is to end. */
	if (!c->n_streams && c->draining && c->reader)
		fiber_cancel(c->reader);
	if (n_spare_streams < SPARE_STREAMS) {
		if (s->x.arena.total > 16384)
			arena_free(&s->x.arena);
		else
			arena_reset(&s->x.arena);
		if (s->body.cap > 4096)
			buf_free(&s->body);
		s->body.n = 0;
		s->next = spare_streams;
		spare_streams = s;
		n_spare_streams++;
		return;
	}
	arena_free(&s->x.arena);
	buf_free(&s->body);
	free(s);
}

/* ---- output ---- */

static void out_copy(struct h2 *c, const void *p, size_t n)
{
	struct out *o = c->out;

	assert(OUT_CAP - o->n >= n);
	char *at = o->p + o->n;

	memcpy(at, p, n);
	o->n += n;
	struct iovec *last = o->niov ? &o->iov[o->niov - 1] : NULL;

	if (last && (char *)last->iov_base + last->iov_len == at)
		last->iov_len += n;
	else
		o->iov[o->niov++] = (struct iovec){at, n};
}

static bool out_has_room(const struct h2 *c)
{
	const struct out *o = c->out;

	/* One frame takes at most three vectors and, copied, its size; odd vectors of a handler may take more: see send_data. */
	return !o || (OUT_CAP - o->n >= FRAME + 9 && o->niov < OUT_IOV - 4 && o->ext < OUT_EXT);
}

void h2_break(struct h2 *c)
{
	if (c->broken)
		return;
	c->broken = true;
	if (c->reader)
		fiber_cancel(c->reader);
	waitq_wake_all(&c->room);
	for (struct h2s *s = c->streams; s; s = s->next)
		waitq_wake_all(&s->wq);
}

static void flush_fiber(void *arg);

/* Collects frames from nghttp2 while there is room, and has them written soon. */
void h2_pump(struct h2 *c)
{
	const uint8_t *p;
	ssize_t n;

	while (!c->broken && out_has_room(c)) {
		if (!c->out) {
			if (!nghttp2_session_want_write(c->ng))
				break;
			c->out = out_get();
			c->out->gen = ++c->gen;
		}
		n = nghttp2_session_mem_send(c->ng, &p);
		if (n < 0)
			h2_break(c);
		if (n <= 0)
			break;
		out_copy(c, p, (size_t)n);
	}
	if (c->out && !c->out->niov) {
		out_put(c->out);
		c->out = NULL;
		c->gen--;
	}
	if (c->out && !c->flushing) {
		c->flushing = true;
		fiber_spawn("http2 write", flush_fiber, c);
	}
}

static void flush_fiber(void *arg)
{
	struct h2 *c = arg;

	c->flusher = fiber_self();
	while (c->out && !c->broken) {
		struct out *o = c->writing = c->out;

		c->out = NULL;
		int64_t t = deadline_push(STALL_MS);
		struct error *e = stream_writev(c->s, o->iov, o->niov);

		deadline_pop(t);
		c->writing = NULL;
		c->written = o->gen;
		out_put(o);
		if (e) {
			log_v(4, "http2: %s", e->message);
			error_free(e);
			h2_break(c);
		} else {
			h2_pump(c);
		}
		waitq_wake_all(&c->room);
	}
	c->flusher = NULL;
	c->flushing = false;
	waitq_wake_all(&c->room);
	waitq_wake_all(&c->ends);
}

nghttp2_nv h2_nv(struct str name, struct str value)
{
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n, NGHTTP2_NV_FLAG_NONE};
}

static void submit_trailers(struct h2s *s)
{
	nghttp2_nv nv[32];
	size_t n = 0;

	if (s->trailers_sent || !s->x.trailers.n)
		return;
	s->trailers_sent = true;
	for (uint32_t i = 0; i < s->x.trailers.n && n < 32; i++)
		nv[n++] = h2_nv(s->x.trailers.v[i].name, s->x.trailers.v[i].value);
	nghttp2_submit_trailer(s->c->ng, s->id, nv, n);
}

ssize_t h2_read_src(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
		    nghttp2_data_source *source, void *user)
{
	struct h2s *s = source->ptr;

	if (!s->src_left && !s->src_eof)
		return NGHTTP2_ERR_DEFERRED;
	size_t n = s->src_left < length ? s->src_left : length;

	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (s->src_eof && n == s->src_left) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (s->x.trailers.n) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			submit_trailers(s);
		}
	}
	return (ssize_t)n;
}

/* nghttp2 has a DATA frame to send: its head, then `length` bytes of what the stream's fiber is sending. */
static int send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t length,
		     nghttp2_data_source *source, void *user)
{
	struct h2 *c = user;
	struct h2s *s = source->ptr;

	/* nghttp2 goes on to the next frame by itself; told so, it keeps this one for the next mem_send. */
	if (!out_has_room(c))
		return NGHTTP2_ERR_WOULDBLOCK;
	out_copy(c, head, 9);
	s->src_left -= length;
	while (length) {
		struct iovec *v = s->src;

		if (!v->iov_len) {
			s->src++;
			s->nsrc--;
			continue;
		}
		size_t k = v->iov_len < length ? v->iov_len : length;

		if (s->nsrc > 1)
			__builtin_prefetch(v[1].iov_base);
		if (c->tls || k < EXT_MIN || c->out->niov > OUT_IOV - 2) {
			out_copy(c, v->iov_base, k);
		} else {
			c->out->iov[c->out->niov++] = (struct iovec){v->iov_base, k};
			c->out->ext += k;
			s->ext_gen = c->out->gen;
		}
		v->iov_base = (char *)v->iov_base + k;
		v->iov_len -= k;
		length -= k;
	}
	if (!s->src_left)
		waitq_wake_all(&s->wq);
	return 0;
}

static ssize_t frame_length(nghttp2_session *ng, uint8_t type, int32_t id, int32_t session_window, int32_t stream_window,
			    uint32_t max_frame, void *user)
{
	const struct h2 *c = user;
	uint32_t n = c->tls ? FRAME_TLS : FRAME;

	return n < max_frame ? n : max_frame;
}

struct error *h2_stream_ended(const struct h2s *s)
{
	if (s->c->broken || s->c->over)
		return error_sys(ECONNRESET, "HTTP/2 connection ended");
	return error_sys(ECONNRESET, "HTTP/2 stream reset by peer: %s", nghttp2_http2_strerror(s->why));
}

/* The vectors go back to the caller: nothing may refer to them any more. */
static void src_release(struct h2s *s)
{
	struct h2 *c = s->c;

	s->src = NULL;
	s->nsrc = 0;
	s->src_left = 0;
	/* A write that holds them must end first: it does, or the connection breaks after STALL_MS. */
	fiber_shield_begin();
	while (s->ext_gen > c->written && (c->flushing || (c->out && !c->broken)))
		error_free(waitq_wait(&c->room));
	fiber_shield_end();
}

/* Hands vectors (or the end) to nghttp2 and waits until all has been taken over or written. */
struct error *h2_send(struct h2s *s, struct iovec *iov, int n, size_t total, bool eof)
{
	struct h2 *c = s->c;
	struct error *e = NULL;

	s->src = iov;
	s->nsrc = n;
	s->src_left = total;
	s->src_eof = eof;
	if (s->submitted)
		nghttp2_session_resume_data(c->ng, s->id);
	h2_pump(c);
	/* When the buffer or the peer's window is full: the write fiber or the reader pumps as soon as it is not. */
	while (!e && s->src_left && !s->closed && !c->broken)
		e = waitq_wait(&s->wq);
	bool cut = s->src_left > 0;

	if (s->src_left || s->ext_gen > c->written)
		src_release(s);
	if (e) {
		/* Half a body was promised and will not come. */
		if (!s->closed && !c->broken) {
			nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_INTERNAL_ERROR);
			h2_pump(c);
		}
		return e;
	}
	if (cut || c->broken)
		return h2_stream_ended(s);
	return NULL;
}

/* ---- input ---- */

struct error *h2_body_read(struct h2s *s, void *p, size_t n, size_t *got)
{
	struct h2 *c = s->c;

	while (s->body_off == s->body.n) {
		if (c->server && s->in_ended && s->x.x.content_length >= 0 && s->body_bytes != s->x.x.content_length)
			return error_sys(EPROTO, "request declared a Content-Length of %lld but only wrote %lld bytes",
					 (long long)s->x.x.content_length, (long long)s->body_bytes);
		if (s->in_ended)
			return NULL;
		if (s->closed || c->broken)
			return h2_stream_ended(s);
		/* A client that promises a body and sends nothing does not keep its handler. Answers may take any time: watches. */
		TRY(c->server ? waitq_wait_ms(&s->wq, STALL_MS) : waitq_wait(&s->wq));
	}
	*got = s->body.n - s->body_off;
	if (*got > n)
		*got = n;
	memcpy(p, s->body.p + s->body_off, *got);
	s->body_off += *got;
	if (s->body_off == s->body.n)
		s->body_off = s->body.n = 0;
	/* Now the peer may send as much again. */
	if (!c->broken) {
		if (s->closed)
			nghttp2_session_consume_connection(c->ng, *got);
		else
			nghttp2_session_consume(c->ng, s->id, *got);
		h2_pump(c);
	}
	return NULL;
}

/* Bytes nobody will read do not count against the connection's window. */
void h2_body_drop(struct h2s *s)
{
	size_t n = s->body.n - s->body_off;

	if (n && !s->c->broken)
		nghttp2_session_consume_connection(s->c->ng, n);
	s->body.n = s->body_off = 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
	struct h2s *s = nghttp2_session_get_stream_user_data(ng, id);

	if (!s || !s->in_use || s->too_large) {
		nghttp2_session_consume(ng, id, n);
		return 0;
	}
	s->body_bytes += (int64_t)n;
	if (s->c->server && s->x.x.content_length >= 0 && s->body_bytes > s->x.x.content_length) {
		s->too_large = true;
		nghttp2_session_consume(ng, id, n);
		return nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_PROTOCOL_ERROR);
	}
	/* At most a window of it. The front is moved away once it is the larger part. */
	if (s->body_off > s->body.n / 2) {
		memmove(s->body.p, s->body.p + s->body_off, s->body.n - s->body_off);
		s->body.n -= s->body_off;
		s->body_off = 0;
	}
	buf_append(&s->body, p, n);
	waitq_wake_all(&s->wq);
	return 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user)
{
	struct h2s *s = nghttp2_session_get_stream_user_data(ng, id);

	if (!s)
		return 0;
	nghttp2_session_set_stream_user_data(ng, id, NULL);
	s->closed = true;
	s->why = code;
	waitq_wake_all(&s->wq);
	if (!s->in_use)
		h2_stream_free(s);
	else if (s->fiber && code != NGHTTP2_NO_ERROR)
		fiber_cancel(s->fiber);
	return 0;
}

/* ---- server ---- */

static struct h2s *of(struct xchg *x)
{
	return (struct h2s *)x;
}

static struct error *h2x_body_read(struct xchg *x, void *p, size_t n, size_t *got)
{
	struct h2s *s = of(x);

	if (s->must_continue && !x->started && !s->closed && !s->c->broken) {
		nghttp2_nv nv = h2_nv(STR(":status"), STR("100"));

		nghttp2_submit_headers(s->c->ng, NGHTTP2_FLAG_NONE, s->id, NULL, &nv, 1, NULL);
		h2_pump(s->c);
	}
	s->must_continue = false;
	return h2_body_read(s, p, n, got);
}

static size_t fill_nv(struct h2s *s, nghttp2_nv *nv, char status[3], char length[24], int64_t total)
{
	struct xchg *x = &s->x;
	size_t n = 0;

	status[0] = (char)('0' + x->status / 100 % 10);
	status[1] = (char)('0' + x->status / 10 % 10);
	status[2] = (char)('0' + x->status % 10);
	nv[n++] = h2_nv(STR(":status"), str_of(status, 3));
	for (uint32_t i = 0; i < x->out.n; i++)
		nv[n++] = h2_nv(x->out.v[i].name, x->out.v[i].value);
	if (total >= 0 && !http_bodyless(x->status)) {
		char *p = length + 24;
		uint64_t v = (uint64_t)total;

		do {
			*--p = (char)('0' + v % 10);
			v /= 10;
		} while (v);
		nv[n++] = h2_nv(STR("content-length"), str_of(p, (size_t)(length + 24 - p)));
	}
	nv[n++] = h2_nv(STR("date"), http_date());
	return n;
}

static struct error *submit_head(struct h2s *s, int64_t total, bool body)
{
	nghttp2_nv few[24], *nv = few;
	char status[3], length[24];
	nghttp2_data_provider dp = {.source.ptr = s, .read_callback = h2_read_src};

	if (s->closed || s->c->broken)
		return h2_stream_ended(s);
	if (s->x.out.n + 3 > 24)
		nv = xmalloc((s->x.out.n + 3) * sizeof *nv);
	size_t n = fill_nv(s, nv, status, length, total);
	int r = nghttp2_submit_response(s->c->ng, s->id, nv, n, body ? &dp : NULL);

	if (nv != few)
		free(nv);
	if (r < 0)
		return error_sys(EPROTO, "HTTP/2 response: %s", nghttp2_strerror(r));
	s->submitted = body;
	return NULL;
}

static struct error *h2x_respond(struct xchg *x, struct iovec *iov, int n, size_t total)
{
	struct h2s *s = of(x);
	bool body = total && !x->head && !http_bodyless(x->status);

	if (!body) {
		TRY(submit_head(s, (int64_t)total, false));
		h2_pump(s->c);
		return NULL;
	}
	s->src = iov;
	s->nsrc = n;
	s->src_left = total;
	s->src_eof = true;
	struct error *e = submit_head(s, (int64_t)total, true);

	if (e) {
		s->src_left = 0;
		return e;
	}
	/* Submitted with its data: send_src has nothing to resume. */
	s->submitted = false;
	e = h2_send(s, iov, n, total, true);
	s->submitted = true;
	return e;
}

static struct error *h2x_start(struct xchg *x)
{
	struct h2s *s = of(x);

	TRY(submit_head(s, x->length, !x->head && !http_bodyless(x->status)));
	h2_pump(s->c);
	return NULL;
}

static struct error *h2x_writev(struct xchg *x, struct iovec *iov, int n, size_t total)
{
	struct h2s *s = of(x);

	if (s->closed || s->c->broken)
		return h2_stream_ended(s);
	return h2_send(s, iov, n, total, false);
}

static struct error *h2x_end(struct xchg *x)
{
	struct h2s *s = of(x);

	if (!s->submitted)
		return NULL;
	if (s->closed || s->c->broken)
		return h2_stream_ended(s);
	/* An empty DATA frame with END_STREAM, or trailers. */
	return h2_send(s, NULL, 0, 0, true);
}

static bool h2x_gone(struct xchg *x)
{
	struct h2s *s = of(x);

	return s->c->broken || (s->closed && s->why != NGHTTP2_NO_ERROR);
}

static const struct xchg_ops h2_ops = {h2x_body_read, h2x_respond, h2x_start, h2x_writev, h2x_end, NULL, h2x_gone};

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2 *c = user;

	if (f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	struct h2s *s = h2_stream_new(c);

	s->id = f->hd.stream_id;
	xchg_init(&s->x, &h2_ops);
	nghttp2_session_set_stream_user_data(ng, s->id, s);
	return 0;
}

static void handler_fiber(void *arg)
{
	struct h2s *s = arg;
	struct h2 *c = s->c;
	struct http_server_opts *o = &c->conn->srv->o;

	s->fiber = fiber_self();
	if (!s->closed && !c->broken && (s->large || s->refused)) {
		h2_request_refuse(s);
	} else if (!s->closed && !c->broken) {
		http_handle(o, &s->x.x);
		if (!s->x.started && !s->closed && !c->broken && !fiber_cancelled()) {
			log_error("%.*s %.*s: the handler gave no answer", STR_ARG(s->x.x.method), STR_ARG(s->x.x.path));
			error_free(http_respond(&s->x.x, 500, STR_NULL));
		}
	}
	s->fiber = NULL;
	s->in_use = false;
	h2_body_drop(s);
	if (s->closed) {
		h2_stream_free(s);
	} else if (!c->broken) {
		/* Cut off; or answered before the request's body had ended, of which no more is wanted. */
		if (!s->x.ended)
			nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_INTERNAL_ERROR);
		else if (!s->in_ended)
			nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
		h2_pump(c);
	}
	c->n_handlers--;
	waitq_wake_all(&c->ends);
}

bool h2_churn(struct h2 *c, int cost)
{
	int64_t now = now_ms();

	c->tokens += (now - c->tokens_at) * TOKENS_PER_SECOND / 1000;
	if (c->tokens > TOKENS)
		c->tokens = TOKENS;
	c->tokens_at = now;
	c->tokens -= cost;
	return c->tokens >= 0;
}

static void begin_request(struct h2s *s, bool ended)
{
	struct h2 *c = s->c;
	struct http_exchange *x = &s->x.x;
	uint32_t code = !h2_request_judge(s, ended)         ? NGHTTP2_PROTOCOL_ERROR
			: loop_fiber_room() < FIBERS_SPARE ? NGHTTP2_REFUSED_STREAM
							   : NGHTTP2_NO_ERROR;

	if (code) {
		nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, code);
		return;
	}
	x->version = 20;
	x->remote = c->conn->remote;
	x->connection = c->conn;
	x->secure = c->tls;
	x->peer = tls_stream_peer(c->s);
	x->peer_error = tls_stream_peer_error(c->s);
	s->x.head = str_eq(x->method, STR("HEAD"));
	s->in_use = true;
	c->n_handlers++;
	fiber_spawn("http2 request", handler_fiber, s);
}

/* Asks the connection to end when its streams have. */
static void server_drain(struct conn *conn)
{
	struct h2 *c = conn->impl;

	if (c->draining || c->closing || c->broken)
		return;
	c->draining = true;
	nghttp2_submit_goaway(c->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->ng), NGHTTP2_NO_ERROR, NULL,
			      0);
	h2_pump(c);
	if (!c->n_streams && c->reader)
		fiber_cancel(c->reader);
}

static int on_frame_server(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2 *c = user;
	struct h2s *s;
	bool ended = f->hd.flags & NGHTTP2_FLAG_END_STREAM;

	switch (f->hd.type) {
	case NGHTTP2_HEADERS:
	case NGHTTP2_DATA:
		s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
		if (!s)
			break;
		if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST)
			begin_request(s, ended);
		else if (f->hd.type == NGHTTP2_HEADERS && !h2_trailers_ok(c, ended))
			nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_PROTOCOL_ERROR);
		else if (ended) {
			s->in_ended = true;
			waitq_wake_all(&s->wq);
		}
		break;
	case NGHTTP2_GOAWAY:
		server_drain(c->conn);
		break;
	case NGHTTP2_RST_STREAM:
	case NGHTTP2_PRIORITY:
	case NGHTTP2_PING:
	case NGHTTP2_SETTINGS:
		if (!h2_churn(c, f->hd.type == NGHTTP2_PING ? COST_PING : COST_RESET))
			return NGHTTP2_ERR_CALLBACK_FAILURE;
		break;
	default:
		break;
	}
	return 0;
}

/* ---- the connection ---- */

static void set_callbacks(nghttp2_session_callbacks *cb, bool server);

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *f, int code, void *user)
{
	return h2_churn(user, COST_RESET) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

struct h2 *h2_new(struct stream *s, struct conn *conn)
{
	static _Thread_local nghttp2_session_callbacks *callbacks[2];
	struct h2 *c = xcalloc(1, sizeof *c);
	bool server = conn != NULL;
	nghttp2_option *opt;

	c->s = s;
	c->conn = conn;
	c->server = server;
	c->tls = stream_is_tls(s);
	c->tokens = TOKENS;
	c->tokens_at = c->idle_at = now_ms();
	if (!callbacks[server]) {
		if (nghttp2_session_callbacks_new(&callbacks[server]) != 0)
			die_oom();
		set_callbacks(callbacks[server], server);
	}
	if (nghttp2_option_new(&opt) != 0)
		die_oom();
	nghttp2_option_set_no_auto_window_update(opt, 1);
	/* Else nghttp2 keeps closed streams for a priority tree nobody uses. */
	nghttp2_option_set_no_closed_streams(opt, 1);
	nghttp2_option_set_peer_max_concurrent_streams(opt, 100);
	/* A value with a blank at its end is one like others, as to Go. */
	nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(opt, 1);
	if (server) {
		/* These are judged here: h2_request.c. */
		nghttp2_option_set_no_http_messaging(opt, 1);
		nghttp2_option_set_max_continuations(opt, SIZE_MAX);
	}
	int r = server ? nghttp2_session_server_new2(&c->ng, callbacks[server], c, opt)
		       : nghttp2_session_client_new2(&c->ng, callbacks[server], c, opt);

	nghttp2_option_del(opt);
	if (r != 0)
		die_oom();
	nghttp2_settings_entry iv[4] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server ? (uint32_t)conn->srv->o.max_streams : 0},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, server ? STREAM_WINDOW : CLIENT_STREAM_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, server ? h2_header_list_max(c) : MAX_HEADER_BYTES},
		{server ? NGHTTP2_SETTINGS_MAX_FRAME_SIZE : NGHTTP2_SETTINGS_ENABLE_PUSH, server ? FRAME_MAX : 0},
	};

	nghttp2_submit_settings(c->ng, NGHTTP2_FLAG_NONE, iv, 4);
	nghttp2_session_set_local_window_size(c->ng, NGHTTP2_FLAG_NONE, 0, server ? CONN_WINDOW : CLIENT_CONN_WINDOW);
	return c;
}

static bool feed(struct h2 *c, const char *p, size_t n)
{
	ssize_t r = nghttp2_session_mem_recv(c->ng, (const uint8_t *)p, n);

	if (r >= 0)
		return true;
	log_v(3, "http2: %s", nghttp2_strerror((int)r));
	/* Mostly nghttp2 has queued the GOAWAY that says why; where a callback refused the peer, we do. */
	if (r == NGHTTP2_ERR_CALLBACK_FAILURE)
		nghttp2_session_terminate_session(c->ng, c->kill ? c->kill : NGHTTP2_ENHANCE_YOUR_CALM);
	return false;
}

/* nghttp2 expects nothing and has nothing to say: after a GOAWAY with the last stream, or at once after a fatal one. */
static bool finished(struct h2 *c)
{
	return c->broken || (!nghttp2_session_want_read(c->ng) && !nghttp2_session_want_write(c->ng));
}

/* ms until a connection that nobody uses is to end, however little that is. */
static int64_t idle_left(const struct h2 *c)
{
	int64_t left = c->idle_at + http_idle_ms - now_ms();

	return c->n_streams ? INT64_MAX : left > 0 ? left : 0;
}

/* How long a client waits for bytes. */
static int64_t patience(const struct h2 *c)
{
	int64_t ms = c->ping_sent ? h2_ping_wait_ms : h2_ping_after_ms, left = idle_left(c);

	return !c->ping ? -1 : left < ms ? left : ms;
}

/* Reads until the connection is to end. */
void h2_read_loop(struct h2 *c, int64_t idle_ms)
{
	char *scratch = net_scratch();
	size_t n;

	while (!finished(c)) {
		int64_t t = deadline_push(c->server ? idle_ms : patience(c));
		struct error *e = stream_read(c->s, scratch, SCRATCH, &n);

		deadline_pop(t);
		if (error_is_sys(e, ETIMEDOUT)) {
			error_clear(&e);
			if (c->server && c->n_streams)
				continue;
			if (c->server || !idle_left(c)) {
				nghttp2_session_terminate_session(c->ng, NGHTTP2_NO_ERROR);
				h2_pump(c);
				return;
			}
			if (c->ping_sent)
				return; /* no sign of life */
			nghttp2_submit_ping(c->ng, NGHTTP2_FLAG_NONE, NULL);
			c->ping_sent = true;
			h2_pump(c);
			continue;
		}
		if (e || !n) {
			error_free(e);
			return;
		}
		c->ping_sent = false;
		bool ok = feed(c, scratch, n);

		h2_pump(c);
		if (!ok)
			return;
		/* Handlers of streams long reset still run: no new ones until they have ended. */
		while (c->server && c->n_handlers > 2 * c->conn->srv->o.max_streams && !c->broken) {
			e = waitq_wait(&c->ends);
			if (e) {
				error_free(e);
				return;
			}
		}
	}
}

/* Ends everything and waits until nothing refers to the connection. */
void h2_wind_up(struct h2 *c)
{
	c->reader = NULL;
	c->closing = true;
	fiber_shield_begin();
	/* What is collected (the last answers, GOAWAY) still goes out, if that is soon. */
	int64_t end = now_ms() + CLOSE_FLUSH_MS;

	while (!c->broken && c->flushing && now_ms() < end)
		error_free(waitq_wait_ms(&c->ends, end - now_ms()));
	c->over = true;
	h2_break(c);
	for (struct h2s *s = c->streams; s; s = s->next) {
		/* Handlers that have given their whole answer may finish what they do behind it. */
		if (s->fiber && !(s->closed && s->why == NGHTTP2_NO_ERROR))
			fiber_cancel(s->fiber);
		if (!s->closed) {
			s->closed = true;
			s->why = NGHTTP2_CANCEL;
		}
		waitq_wake_all(&s->wq);
	}
	if (c->flusher)
		fiber_cancel(c->flusher);
	while (c->flushing || c->n_handlers) {
		struct error *e = waitq_wait_ms(&c->ends, CLOSE_FLUSH_MS);

		/* Enough of finishing. */
		for (struct h2s *s = e ? c->streams : NULL; s; s = s->next)
			if (s->fiber)
				fiber_cancel(s->fiber);
		error_free(e);
	}
	out_put(c->out);
	c->out = NULL;
	waitq_wake_all(&c->room);
	nghttp2_session_del(c->ng);
	c->ng = NULL;
	fiber_shield_end();
}

void h2_free_idle(struct h2 *c)
{
	for (struct h2s *s = c->streams, *next; s; s = next) {
		next = s->next;
		if (!s->in_use)
			h2_stream_free(s);
	}
}

void h2_serve(struct conn *conn, struct rbuf *in)
{
	struct h2 *c = h2_new(conn->s, conn);
	bool ok = true;

	c->reader = fiber_self();
	conn->impl = c;
	conn->drain = server_drain;
	if (in->n > in->off) {
		ok = feed(c, in->p + in->off, in->n - in->off);
		rbuf_free(in);
	}
	h2_pump(c);
	if (ok)
		h2_read_loop(c, conn->srv->o.idle_timeout_ms);
	conn->drain = NULL;
	ok = !c->broken;
	h2_wind_up(c);
	if (ok)
		net_linger(conn->s);
	h2_free_idle(c);
	assert(!c->n_streams);
	free(c);
}

static void set_callbacks(nghttp2_session_callbacks *cb, bool server)
{
	nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
	nghttp2_session_callbacks_set_data_source_read_length_callback(cb, frame_length);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	if (server) {
		nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
		nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
		nghttp2_session_callbacks_set_on_begin_frame_callback(cb, h2_on_begin_frame);
		nghttp2_session_callbacks_set_on_header_callback(cb, h2_on_header_server);
		nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_server);
	} else {
		nghttp2_session_callbacks_set_on_header_callback(cb, h2_on_header_client);
		nghttp2_session_callbacks_set_on_frame_recv_callback(cb, h2_on_frame_client);
	}
}
