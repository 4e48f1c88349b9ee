/* HTTP/2 requests: the client's side of h2.c. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/h2_internal.h"

int64_t h2_ping_after_ms = 30000, h2_ping_wait_ms = 15000;

/* ---- client ---- */

int h2_on_header_client(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t nn, const uint8_t *value,
			size_t nv, uint8_t flags, void *user)
{
	struct h2s *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);

	if (!s || !s->in_use || f->hd.type != NGHTTP2_HEADERS)
		return 0;
	s->head_bytes += nn + nv + 32;
	if (s->head_bytes > MAX_HEADER_BYTES || s->headers.n + s->rtrailers.n > HEADERS_MAX) {
		s->too_large = true;
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets the stream */
	}
	if (nn == 7 && memcmp(name, ":status", 7) == 0) {
		int64_t st = 0;

		str_to_i64(str_of((const char *)value, nv), &st);
		s->status = (int)st;
		return 0;
	}
	if (s->status >= 100 && s->status < 200)
		return 0;
	struct http_header *h = s->head_done ? arena_push(s->ra, &s->rtrailers) : arena_push(s->ra, &s->headers);

	h->name = arena_str(s->ra, str_of((const char *)name, nn));
	h->value = arena_str(s->ra, str_of((const char *)value, nv));
	if (!s->head_done && str_eq(h->name, STR("content-length")))
		str_to_i64(h->value, &s->content_length);
	return 0;
}

int h2_on_frame_client(nghttp2_session *ng, const nghttp2_frame *f, void *user)
{
	struct h2 *c = user;
	struct h2s *s = f->hd.stream_id ? nghttp2_session_get_stream_user_data(ng, f->hd.stream_id) : NULL;

	switch (f->hd.type) {
	case NGHTTP2_HEADERS:
		if (s && s->status >= 200)
			s->head_done = true;
		__attribute__((fallthrough));
	case NGHTTP2_DATA:
		if (s && (f->hd.flags & NGHTTP2_FLAG_END_STREAM))
			s->in_ended = true;
		if (s)
			waitq_wake_all(&s->wq);
		break;
	case NGHTTP2_GOAWAY:
		c->goaway = true;
		break;
	default:
		break;
	}
	return 0;
}

static void client_fiber(void *arg)
{
	struct h2 *c = arg;

	c->reader = fiber_self();
	if (!c->broken) {
		h2_pump(c);
		h2_read_loop(c, 0);
	}
	c->goaway = true;
	h2_wind_up(c);
	h2_free_idle(c);
	stream_close(c->s);
	c->s = NULL;
	h2_unref(c);
}

struct h2 *h2_client_new(struct stream *s, bool ping)
{
	struct h2 *c = h2_new(s, NULL);

	c->ping = ping;
	c->refs = 2; /* the caller and the connection's fiber */
	fiber_spawn("http2 client", client_fiber, c);
	return c;
}

bool h2_usable(struct h2 *c)
{
	return !c->broken && !c->goaway && !c->closing && nghttp2_session_check_request_allowed(c->ng);
}

bool h2_has_room(struct h2 *c)
{
	return c->n_streams < nghttp2_session_get_remote_settings(c->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

void h2_ref(struct h2 *c)
{
	c->refs++;
}

void h2_unref(struct h2 *c)
{
	if (--c->refs == 1 && c->ng) {
		/* Only its own fiber is left. */
		h2_shut(c);
	} else if (c->refs == 0) {
		free(c);
	}
}

void h2_shut(struct h2 *c)
{
	if (c->ng && !c->closing)
		h2_break(c);
}

/* ---- a request ---- */

static const struct resp_ops resp_ops = {h2_response_read, h2_response_trailers, h2_response_close};

static struct h2s *of_resp(const struct http_response *r)
{
	return (struct h2s *)((char *)r->impl - offsetof(struct h2s, resp));
}

static void request_free(struct h2s *s)
{
	struct h2 *c = s->c;

	h2_body_drop(s);
	s->in_use = false;
	if (s->closed || !c->ng) {
		h2_stream_free(s);
	} else {
		/* stream_free follows when nghttp2 has closed it. */
		nghttp2_submit_rst_stream(c->ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
		h2_pump(c);
	}
	h2_unref(c);
}

static int32_t submit_request(struct h2s *s, const struct h2_request *rq, bool body)
{
	nghttp2_nv few[32], *nv = few;
	nghttp2_data_provider dp = {.source.ptr = s, .read_callback = h2_read_src};
	int64_t announced = rq->next ? rq->length : rq->body.n || http_may_have_body(rq->method) ? (int64_t)rq->body.n : -1;
	char length[24];
	size_t n = 0;

	if (rq->n_headers + 6 > 32)
		nv = xmalloc((rq->n_headers + 6) * sizeof *nv);
	nv[n++] = h2_nv(STR(":method"), str_from(rq->method));
	nv[n++] = h2_nv(STR(":scheme"), str_from(rq->scheme));
	nv[n++] = h2_nv(STR(":authority"), rq->authority);
	nv[n++] = h2_nv(STR(":path"), rq->target);
	for (size_t i = 0; i < rq->n_headers; i++)
		nv[n++] = h2_nv(rq->headers[i].name, rq->headers[i].value);
	if (announced >= 0) {
		int k = snprintf(length, sizeof length, "%lld", (long long)announced);

		nv[n++] = h2_nv(STR("content-length"), str_of(length, (size_t)k));
	}
	int32_t id = nghttp2_submit_request(s->c->ng, NULL, nv, n, body ? &dp : NULL, s);

	if (nv != few)
		free(nv);
	return id;
}

static struct error *send_body(struct h2s *s, const struct h2_request *rq)
{
	if (!rq->next) {
		struct iovec v = {(void *)(uintptr_t)rq->body.p, rq->body.n};

		return rq->body.n ? h2_send(s, &v, 1, rq->body.n, true) : NULL;
	}
	char *chunk = xmalloc(FRAME);
	int64_t left = rq->length;
	struct error *e = NULL;
	size_t n = 1;

	while (!e && n && !s->in_ended && !s->closed) {
		e = rq->next(rq->ctx, chunk, FRAME, &n);
		struct iovec v = {chunk, n};

		if (!e && rq->length >= 0 && (n ? (int64_t)n > left : left > 0))
			e = error_sys(EPROTO, "HTTP request body of another length than was announced");
		left -= (int64_t)n;
		if (!e)
			e = h2_send(s, &v, n ? 1 : 0, n, n == 0);
	}
	free(chunk);
	return e;
}

struct error *h2_do(struct h2 *c, struct arena *a, const struct h2_request *rq, struct http_response *out, bool *unsent)
{
	bool body = rq->body.n || rq->next;

	*unsent = true;
	if (!h2_usable(c))
		return error_sys(ECONNRESET, "HTTP/2 connection ended");
	struct h2s *s = h2_stream_new(c);

	s->in_use = true;
	s->ra = a;
	s->resp.ops = &resp_ops;
	h2_ref(c);
	s->id = submit_request(s, rq, body);
	if (s->id < 0) {
		struct error *e = error_sys(ECONNRESET, "HTTP/2 request: %s", nghttp2_strerror(s->id));

		s->closed = true;
		request_free(s);
		return e;
	}
	*unsent = false;
	s->submitted = body;
	h2_pump(c);
	struct error *e = body ? send_body(s, rq) : NULL;

	/* An answer may come before the body has gone (413): it counts more than that the body was cut off. */
	if (e && s->head_done)
		error_clear(&e);
	while (!e && !s->head_done) {
		if (s->closed || c->broken)
			e = s->too_large ? error_sys(EMSGSIZE, "HTTP/2 response head too large") : h2_stream_ended(s);
		else
			e = waitq_wait(&s->wq);
	}
	if (e) {
		*unsent = s->closed && s->why == NGHTTP2_REFUSED_STREAM;
		request_free(s);
		return e;
	}
	out->status = s->status;
	out->headers = (struct http_headers){s->headers.v, s->headers.n};
	out->content_length = s->content_length;
	out->impl = &s->resp;
	return NULL;
}

struct error *h2_response_read(struct http_response *r, void *p, size_t n, size_t *got)
{
	return h2_body_read(of_resp(r), p, n, got);
}

struct http_headers h2_response_trailers(const struct http_response *r)
{
	struct h2s *s = of_resp(r);

	return (struct http_headers){s->rtrailers.v, s->rtrailers.n};
}

void h2_response_close(struct http_response *r)
{
	request_free(of_resp(r));
}
