/* The server's side of an HTTP/1.1 connection. Handlers run on the connection's fiber. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/internal.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PREFACE_N 24
#define DRAIN_MAX (256u << 10)  /* of an unread body; a longer one ends the connection */
#define DRAIN_MS 5000
#define PIECE (256u << 10)
#define STALL_MS 120000         /* without progress, either way */

struct h1 {
	struct xchg x; /* first */
	struct conn *c;
	struct rbuf *in;
	struct h1_body body;
	struct h1_head head;
	bool in_handler, hung_up, close, must_continue, broken, bad_body;
	bool reading; /* the handler reads the body, maybe while it answers */
	bool idle; /* between requests */
};

static struct h1 *of(struct xchg *x)
{
	return (struct h1 *)x;
}

/* In pieces, each of which must be taken in time: a peer that takes nothing is gone, a slow one is only slow. */
static struct error *send_iov(struct h1 *h, struct iovec *iov, int n)
{
	while (n) {
		struct iovec part, *v = iov;
		size_t sum = 0;
		int k = 0, m;

		while (k < n && iov[k].iov_len <= PIECE - sum)
			sum += iov[k++].iov_len;
		m = k;
		if (!k) {
			part = (struct iovec){iov->iov_base, PIECE};
			iov->iov_base = (char *)iov->iov_base + PIECE;
			iov->iov_len -= PIECE;
			v = &part;
			m = 1;
		}
		iov += k;
		n -= k;
		int64_t d = deadline_push(STALL_MS);
		struct error *e = stream_writev(h->c->s, v, m);

		deadline_pop(d);
		if (e) {
			h->broken = true;
			return e;
		}
	}
	return NULL;
}

/* ---- the answer's head ---- */

static void put_name(struct buf *b, struct str name)
{
	/* The way people write them, for those who read along. */
	buf_reserve(b, name.n + 2);
	bool up = true;

	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];

		b->p[b->n++] = (char)(up && c >= 'a' && c <= 'z' ? c - 32 : c);
		up = c == '-';
	}
	b->p[b->n++] = ':';
	b->p[b->n++] = ' ';
}

static void put_fields(struct buf *b, const header_list *list)
{
	for (uint32_t i = 0; i < list->n; i++) {
		put_name(b, list->v[i].name);
		buf_str(b, list->v[i].value);
		buf_append(b, "\r\n", 2);
	}
}

/* length >= 0: Content-Length; -1: chunked where the client knows it, else until the connection closes. */
static void put_head(struct h1 *h, struct buf *b, int64_t length)
{
	bool old = h->head.minor == 0;

	buf_str(b, old ? STR("HTTP/1.0 ") : STR("HTTP/1.1 "));
	buf_u64(b, (uint64_t)h->x.status);
	buf_putc(b, ' ');
	buf_str(b, http_reason(h->x.status));
	buf_append(b, "\r\n", 2);
	put_fields(b, &h->x.out);
	buf_str(b, STR("Date: "));
	buf_str(b, http_date());
	buf_append(b, "\r\n", 2);
	if (!http_bodyless(h->x.status)) {
		if (length >= 0) {
			buf_str(b, STR("Content-Length: "));
			buf_u64(b, (uint64_t)length);
			buf_append(b, "\r\n", 2);
		} else if (!old) {
			buf_str(b, STR("Transfer-Encoding: chunked\r\n"));
		} else {
			h->close = true;
		}
	}
	if (h->close || h->c->srv->stopping || h->broken) {
		h->close = true;
		if (!old)
			buf_str(b, STR("Connection: close\r\n"));
	} else if (old) {
		buf_str(b, STR("Connection: keep-alive\r\n"));
	}
	buf_append(b, "\r\n", 2);
}

/* ---- exchange ---- */

static struct error *h1x_body_read(struct xchg *x, void *p, size_t n, size_t *got)
{
	struct h1 *h = of(x);

	if (h->must_continue) {
		h->must_continue = false;
		if (!h->x.started)
			TRY(stream_write(h->c->s, "HTTP/1.1 100 Continue\r\n\r\n", 25));
	}
	h->reading = true;
	int64_t d = deadline_push(STALL_MS);
	struct error *e = h1_body_read(&h->body, h->in, p, n, got);

	deadline_pop(d);
	if (e) {
		h->close = true;
		h->bad_body = true;
	}
	return e;
}

/* Before an answer, as Go does it: what cannot be read to its end closes the connection, and the answer says so. */
static void drain_body(struct h1 *h)
{
	size_t got, total = 0;

	/* The client waits for our 100 and will not send it now. */
	if (h->must_continue)
		h->close = true;
	if (h->close || h->body.done)
		return;
	int64_t t = deadline_push(DRAIN_MS);

	while (!h->body.done) {
		struct error *e = h1_body_read(&h->body, h->in, net_scratch(), SCRATCH, &got);

		total += got;
		if (e || total > DRAIN_MAX) {
			error_free(e);
			h->close = true;
			break;
		}
	}
	deadline_pop(t);
}

static struct error *h1x_respond(struct xchg *x, struct iovec *iov, int n, size_t total)
{
	struct h1 *h = of(x);
	char small[1024];
	/* Heads fit in here but for the very long. */
	struct buf b = {.p = small, .cap = sizeof small};
	struct buf big = {0};
	struct iovec few[8], *v = few;
	size_t need = 256;

	drain_body(h);
	for (uint32_t i = 0; i < x->out.n; i++)
		need += x->out.v[i].name.n + x->out.v[i].value.n + 4;
	if (need > sizeof small)
		b = big;
	buf_reserve(&b, need);
	put_head(h, &b, (int64_t)total);
	if (x->head || http_bodyless(x->status))
		n = 0;
	if (n + 1 > 8)
		v = xmalloc(((size_t)n + 1) * sizeof *v);
	v[0] = (struct iovec){b.p, b.n};
	if (n)
		memcpy(v + 1, iov, (size_t)n * sizeof *v);
	struct error *e = send_iov(h, v, n + 1);

	if (v != few)
		free(v);
	if (b.p != small)
		buf_free(&b);
	return e;
}

static struct error *h1x_start(struct xchg *x)
{
	struct h1 *h = of(x);
	buf_cleanup struct buf b = {0};

	if (!h->reading)
		drain_body(h);
	put_head(h, &b, x->length);
	struct iovec v = {b.p, b.n};

	return send_iov(h, &v, 1);
}

static struct error *h1x_writev(struct xchg *x, struct iovec *iov, int n, size_t total)
{
	struct h1 *h = of(x);
	struct iovec few[10], *v = few;
	char size[24];

	if (h->head.minor == 0 || x->length >= 0)
		return send_iov(h, iov, n);
	if (n + 2 > 10)
		v = xmalloc(((size_t)n + 2) * sizeof *v);
	v[0] = (struct iovec){size, (size_t)snprintf(size, sizeof size, "%zx\r\n", total)};
	memcpy(v + 1, iov, (size_t)n * sizeof *v);
	v[n + 1] = (struct iovec){(void *)(uintptr_t)"\r\n", 2};
	struct error *e = send_iov(h, v, n + 2);

	if (v != few)
		free(v);
	return e;
}

static struct error *h1x_end(struct xchg *x)
{
	struct h1 *h = of(x);
	buf_cleanup struct buf b = {0};

	if (x->head || http_bodyless(x->status) || h->head.minor == 0 || x->length >= 0)
		return NULL;
	buf_str(&b, STR("0\r\n"));
	put_fields(&b, &x->trailers);
	buf_append(&b, "\r\n", 2);
	struct iovec v = {b.p, b.n};

	return send_iov(h, &v, 1);
}

static struct error *h1x_upgrade(struct xchg *x, const char *protocol, struct stream **out)
{
	struct h1 *h = of(x);
	buf_cleanup struct buf b = {0};

	if (h->head.minor == 0)
		return error_status(400, "BadRequest", "Upgrade in HTTP/1.0");
	buf_printf(&b, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", protocol);
	put_fields(&b, &x->out);
	buf_append(&b, "\r\n", 2);
	struct iovec v = {b.p, b.n};

	h->close = true;
	TRY(send_iov(h, &v, 1));
	/* From here on the end of the stream is for its reader to see. */
	stream_on_hangup(h->c->raw, NULL, NULL);
	x->upgraded = true;
	*out = h1_unbuffer(h->in, h->c->s);
	h->c->s = NULL;
	return NULL;
}

static bool h1x_gone(struct xchg *x)
{
	struct h1 *h = of(x);

	return h->hung_up || h->broken;
}

static const struct xchg_ops h1_ops = {
	h1x_body_read, h1x_respond, h1x_start, h1x_writev, h1x_end, h1x_upgrade, h1x_gone,
};

static void hung_up(void *arg)
{
	struct h1 *h = arg;

	h->hung_up = true;
	/* What was sent before is still read to its end: a body may lie in the socket. */
	if (h->in_handler && (h->body.done || h->body.kind == H1_NONE))
		fiber_cancel(h->c->fiber);
}

/* ---- the connection ---- */

static void refuse(struct h1 *h, const struct error *e)
{
	char text[512];
	struct buf b = {0};
	int status = e->status ? e->status : 400;

	/* For those who are so early that there is no request: a plain sentence. */
	snprintf(text, sizeof text, "%d %.*s: %.300s", status, STR_ARG(http_reason(status)), e->message);

	if (status == 417)
		buf_printf(&b, "HTTP/1.1 417 %.*s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
			   STR_ARG(http_reason(status)));
	else
		buf_printf(&b,
			   "HTTP/1.1 %d %.*s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n%s",
			   status, STR_ARG(http_reason(status)), text);
	error_free(stream_write(h->c->s, b.p, b.n));
	buf_free(&b);
	h->close = true;
	h->broken = true;
}

/* Waits for a whole head. NULL and *len == 0: the connection ended between requests (or idled out). */
static struct error *read_head(struct h1 *h, bool first, size_t *len, bool *h2)
{
	struct rbuf *in = h->in;
	const struct http_server_opts *o = &h->c->srv->o;
	const size_t most = o->max_header_bytes + 4096; /* so much more Go's server reads before it looks */
	size_t seen = 0;
	bool eof = false;
	struct error *e = NULL;

	*len = 0;
	/* While nothing of a request is here, the connection is idle and may be told to end at any time. */
	if (in->off == in->n) {
		if (h->c->srv->stopping)
			return NULL;
		int64_t t = deadline_push(first ? o->header_timeout_ms : o->idle_timeout_ms);

		h->idle = true;
		e = rbuf_fill(in, most, &eof);
		h->idle = false;
		deadline_pop(t);
		if (e || eof) {
			error_free(e); /* nobody is owed an answer */
			return NULL;
		}
	}
	int64_t t = deadline_push(o->header_timeout_ms);

	for (;;) {
		const char *p;
		size_t n;

		p = in->p + in->off;
		n = in->n - in->off;
		if (first && n && memcmp(p, PREFACE, n < PREFACE_N ? n : PREFACE_N) == 0) {
			if (n >= PREFACE_N) {
				*h2 = true;
				break;
			}
		} else if (n) {
			*len = h1_head_end(p, n, seen);
			if (*len && *len <= most)
				break;
			seen = n;
		}
		if (n >= most || *len > most)
			e = error_status(431, "RequestHeaderFieldsTooLarge", "HTTP head larger than %zu bytes", most);
		else
			e = rbuf_fill(in, most, &eof);
		if (!e && eof) {
			if (in->n > in->off)
				e = error_sys(EPIPE, "request head ended early");
			break;
		}
		if (error_is_sys(e, ETIMEDOUT)) {
			error_free(e);
			e = error_status(408, "Timeout", "the request head took too long");
		}
		if (e)
			break;
	}
	deadline_pop(t);
	return e;
}

static void fill_exchange(struct h1 *h)
{
	struct http_exchange *x = &h->x.x;
	struct h1_head *d = &h->head;

	x->method = d->method;
	http_set_target(x, d->target);
	x->host = d->host;
	x->headers = (struct http_headers){d->headers.v, d->headers.n};
	x->version = 11;
	x->content_length = d->content_length;
	h->x.head = str_eq(d->method, STR("HEAD"));
	h->close = (d->minor == 0 ? !d->keep_alive : d->close) || str_eq(d->method, STR("CONNECT"));
	h->body = (struct h1_body){
		.kind = d->chunked ? H1_CHUNKED : d->content_length > 0 ? H1_LENGTH : H1_NONE,
		.left = d->content_length > 0 ? (uint64_t)d->content_length : 0,
	};
	if (h->body.kind == H1_NONE) {
		x->content_length = 0;
		h->body.done = true;
	}
	h->must_continue = d->expect_continue && h->body.kind != H1_NONE;
}

static void handle(struct h1 *h)
{
	const struct http_server_opts *o = &h->c->srv->o;

	h->in_handler = true;
	http_handle(o, &h->x.x);
	h->in_handler = false;
	if (h->x.upgraded)
		return;
	if (!h->x.started) {
		/* Cancelled handlers have nobody to answer to; others must answer. */
		if (fiber_cancelled() || h->hung_up) {
			h->close = h->broken = true;
			return;
		}
		if (h->bad_body) {
			error_free(http_respond(&h->x.x, 400, STR("malformed request body\n")));
			return;
		}
		log_error("%.*s %.*s: the handler gave no answer", STR_ARG(h->x.x.method), STR_ARG(h->x.x.path));
		error_free(http_respond(&h->x.x, 500, STR_NULL));
	} else if (!h->x.ended) {
		/* Cut off without its end mark, so that the client sees it was. */
		h->close = h->broken = true;
	}
}

static bool one_request(struct h1 *h, bool first, bool *h2)
{
	struct rbuf *in = h->in;
	size_t len;
	struct error *e = read_head(h, first, &len, h2);

	if (*h2)
		return false;
	if (!e && !len)
		return false;
	struct arena *a = &h->x.arena;

	if (!e) {
		char *head = arena_bytes(a, len);

		memcpy(head, in->p + in->off, len);
		in->off += len;
		e = h1_parse_request(a, head, len, &h->head);
	}
	if (e) {
		if (e->status)
			refuse(h, e);
		h->close = true;
		error_free(e);
		net_linger(h->c->s);
		return false;
	}
	fill_exchange(h);
	handle(h);
	if (h->x.upgraded)
		return false;
	if (!h->broken)
		drain_body(h);
	if (h->close && !h->broken && (!h->body.done || in->n > in->off))
		net_linger(h->c->s);
	return !h->close && !h->broken && !h->c->srv->stopping && !fiber_cancelled();
}

static void drain(struct conn *c)
{
	struct h1 *h = c->impl;

	h->close = true;
	if (h->idle)
		fiber_cancel(c->fiber);
}

bool h1_serve(struct conn *c, struct rbuf *in)
{
	/* Not on the fiber's stack, which an idle connection keeps small. */
	struct h1 *h = xcalloc(1, sizeof *h);
	bool h2 = false;

	h->c = c;
	h->in = in;
	c->impl = h;
	c->drain = drain;
	stream_on_hangup(c->raw, hung_up, h);
	for (bool first = true, more = true; more; first = false) {
		struct arena keep = h->x.arena;

		h->x = (struct xchg){.arena = keep};
		xchg_init(&h->x, &h1_ops);
		h->x.x.remote = c->remote;
		h->x.x.connection = c;
		h->x.x.secure = c->raw != c->s;
		h->x.x.peer = tls_stream_peer(c->s);
		h->x.x.peer_error = tls_stream_peer_error(c->s);
		h->head = (struct h1_head){0};
		h->bad_body = h->reading = false;
		more = one_request(h, first, &h2);
		arena_free(&h->x.arena);
	}
	if (c->s)
		stream_on_hangup(c->raw, NULL, NULL);
	c->drain = NULL;
	free(h);
	return h2;
}
