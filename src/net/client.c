/* The HTTP client: a pool of HTTP/1.1 connections to one server, or HTTP/2 connections that all requests share. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "net/internal.h"

#define HEAD_MAX MAX_HEADER_BYTES
#define H2_MAX 8       /* HTTP/2 connections to one server; requests past their streams wait */
#define REFUSALS_MAX 6 /* of one request by HTTP/2 servers, after which it is sent once more */

int64_t http_idle_ms = 90000;

struct h1conn {
	struct h1conn *next; /* idle list */
	int64_t since;       /* in it */
	struct stream *s;
	struct rbuf in;
	unsigned generation; /* of the certificate it was made with */
};

struct http_client {
	struct http_client_opts o;
	char *addr;      /* for stream_connect */
	char *host;      /* without port, for TLS */
	char *authority; /* Host */
	unsigned faults; /* of the certificates of the last connection */
	bool https;
	struct h1conn *idle; /* the last used first */
	size_t n_idle;
	struct fiber *closer; /* of what is idle for too long, while anything is idle */
	bool closing;
	struct h2 *h2[H2_MAX];
	size_t n_h2;
	bool speaks_h1;       /* as the server was last */
	unsigned generation;
	/* One fiber connects, the others wait: it may turn out to be HTTP/2. */
	struct fiber_mutex connecting;
	unsigned refs;   /* responses still open */
	bool freed;
};

struct h1resp {
	struct resp resp;
	struct http_client *c;
	struct h1conn *conn;
	struct h1_body body;
	bool keep;
};

static void client_unref(struct http_client *c)
{
	if (--c->refs)
		return;
	free(c->addr);
	free(c->host);
	free(c->authority);
	free((char *)(uintptr_t)c->o.base);
	free(c);
}

static void h1_drop(struct h1conn *k)
{
	stream_close(k->s);
	rbuf_free(&k->in);
	free(k);
}

struct error *http_client_new(const struct http_client_opts *o, struct http_client **out)
{
	struct str base = str_from(o->base), rest;
	struct http_client *c = xcalloc(1, sizeof *c);

	*out = NULL;
	c->refs = 1;
	c->o = *o;
	c->o.base = xstrdup(o->base);
	if (!c->o.connect_timeout_ms)
		c->o.connect_timeout_ms = 10000;
	if (!c->o.max_idle)
		c->o.max_idle = 8;
	if (str_has_prefix(base, STR("http+unix://")) || str_has_prefix(base, STR("unix://"))) {
		rest = str_sub(base, (size_t)str_find(base, STR("://")) + 3, base.n);
		c->addr = xasprintf("unix:%.*s", STR_ARG(rest));
		c->host = xstrdup("localhost");
		c->authority = xstrdup("localhost");
	} else if (str_has_prefix(base, STR("https://")) || str_has_prefix(base, STR("http://"))) {
		c->https = base.p[4] == 's';
		rest = str_sub(base, c->https ? 8 : 7, base.n);
		/* A trailing slash is tolerated, a path is not: targets are whole. */
		if (rest.n && rest.p[rest.n - 1] == '/')
			rest.n--;
		bool v6 = rest.n && rest.p[0] == '[';
		ptrdiff_t colon = str_rindex(rest, ':'), close = str_index(rest, ']');
		bool port = colon > 0 && (!v6 || colon > close);

		c->authority = str_dupz(rest);
		c->addr = port ? str_dupz(rest) : xasprintf("%.*s:%d", STR_ARG(rest), c->https ? 443 : 80);
		struct str host = port ? str_sub(rest, 0, (size_t)colon) : rest;

		c->host = str_dupz(v6 && close > 0 ? str_sub(host, 1, (size_t)close) : host);
		if (!host.n || str_index(rest, '/') >= 0 || (c->https && !o->tls)) {
			client_unref(c);
			return error_sys(EINVAL, "HTTP server address \"%s\"", o->base);
		}
	} else {
		client_unref(c);
		return error_sys(EINVAL, "HTTP server address \"%s\"", o->base);
	}
	*out = c;
	return NULL;
}

static void drop_pool(struct http_client *c)
{
	for (struct h1conn *k; (k = c->idle);) {
		c->idle = k->next;
		h1_drop(k);
	}
	c->n_idle = 0;
	while (c->n_h2)
		h2_unref(c->h2[--c->n_h2]);
}

void http_client_free(struct http_client *c)
{
	if (!c)
		return;
	c->freed = true;
	drop_pool(c);
	if (c->closer)
		fiber_cancel(c->closer);
	client_unref(c);
}

static void seconds(const char *name, int64_t none, int64_t *ms)
{
	const char *z = getenv(name);
	int64_t n;

	if (!z || !*z)
		return;
	if (str_to_i64(str_from(z), &n) && n >= 0 && n <= INT32_MAX)
		*ms = n ? n * 1000 : none;
	else
		log_warn("%s=%s is no number of seconds", name, z);
}

bool http2_wanted(void)
{
	static bool read;
	const char *off = getenv("DISABLE_HTTP2");

	if (!read) {
		seconds("HTTP2_READ_IDLE_TIMEOUT_SECONDS", INT64_MAX, &h2_ping_after_ms);
		seconds("HTTP2_PING_TIMEOUT_SECONDS", h2_ping_wait_ms, &h2_ping_wait_ms);
		read = true;
	}
	return !off || !*off;
}

/* ---- connections ---- */

static struct error *dial(struct http_client *c, bool http2, struct stream **out)
{
	int64_t t = deadline_push(c->o.connect_timeout_ms);
	struct error *e = stream_connect(c->addr, out);

	if (!e && c->https) {
		struct stream *raw = *out;

		e = tls_connect(c->o.tls, raw, c->host, http2, out);
		if (!e)
			c->faults = tls_stream_faults(*out);
	}
	deadline_pop(t);
	return e;
}

/* Closed or talking out of turn while it lay idle? */
static bool stale(struct h1conn *k)
{
	int fd = stream_fd(tls_stream_raw(k->s));
	char b;

	return k->in.n > k->in.off || fd < 0 || recv(fd, &b, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

static struct h1conn *h1_make(struct http_client *c, struct stream *s)
{
	struct h1conn *k = xcalloc(1, sizeof *k);

	k->generation = c->generation;
	k->s = k->in.s = s;
	return k;
}

struct got { /* a connection for one request: one of the two */
	struct h1conn *h1;
	struct h2 *h2; /* with a reference */
	bool reused;
};

/* The first that takes another request. */
static bool take_h2(struct http_client *c, struct got *g)
{
	struct h2 *full = NULL;

	for (size_t i = 0; i < c->n_h2 && !g->h2;) {
		struct h2 *h = c->h2[i];

		if (!h2_usable(h)) {
			memmove(&c->h2[i], &c->h2[i + 1], (--c->n_h2 - i) * sizeof *c->h2);
			h2_unref(h);
			continue;
		}
		if (h2_has_room(h))
			g->h2 = h;
		full = h;
		i++;
	}
	if (c->n_h2 == H2_MAX && !g->h2)
		g->h2 = full;
	if (!g->h2)
		return false;
	h2_ref(g->h2);
	g->reused = true;
	return true;
}

static struct error *connect_new(struct http_client *c, struct got *g)
{
	struct stream *s;

	TRY(dial(c, true, &s));
	c->speaks_h1 = c->https ? strcmp(tls_stream_alpn(s), "h2") != 0 : !c->o.http2_prior_knowledge;
	if (c->speaks_h1) {
		g->h1 = h1_make(c, s);
		return NULL;
	}
	/* gRPC servers in Go end connections that ping more often than every five minutes; in clear text the peer is near anyway. */
	g->h2 = h2_client_new(s, c->https);
	if (!c->freed && c->n_h2 < H2_MAX) {
		h2_ref(g->h2);
		c->h2[c->n_h2++] = g->h2;
	}
	return NULL;
}

/* A certificate that was replaced is not shown any more: what was connected with it is not used again. */
static void follow_certificate(struct http_client *c)
{
	unsigned now = c->https ? tls_client_generation(c->o.tls) : 0;

	if (now == c->generation)
		return;
	c->generation = now;
	drop_pool(c);
}

/* fresh: not one from the pool. */
static struct error *get(struct http_client *c, bool fresh, struct got *g)
{
	*g = (struct got){0};
	follow_certificate(c);
	while (!fresh && c->idle) {
		struct h1conn *k = c->idle;

		c->idle = k->next;
		c->n_idle--;
		if (!stale(k)) {
			g->h1 = k;
			g->reused = true;
			return NULL;
		}
		h1_drop(k);
	}
	if (!fresh && take_h2(c, g))
		return NULL;
	bool maybe_h2 = c->https ? tls_client_http2(c->o.tls) && !c->speaks_h1 : c->o.http2_prior_knowledge;

	if (!maybe_h2)
		return connect_new(c, g);
	TRY(fiber_mutex_lock(&c->connecting));
	struct error *e = NULL;

	/* Somebody may have connected while we waited. */
	if (!take_h2(c, g))
		e = connect_new(c, g);
	fiber_mutex_unlock(&c->connecting);
	return e;
}

static void closer_fiber(void *arg)
{
	struct http_client *c = arg;

	c->closer = fiber_self();
	while (c->idle && !fiber_cancelled()) {
		struct h1conn *oldest = c->idle, **at = &c->idle;

		while (oldest->next)
			oldest = oldest->next;
		int64_t left = oldest->since + http_idle_ms - now_ms();

		if (left > 0) {
			error_free(fiber_sleep(left));
			continue;
		}
		while (*at != oldest)
			at = &(*at)->next;
		*at = NULL;
		c->n_idle--;
		h1_drop(oldest);
	}
	c->closer = NULL;
	c->closing = false;
	client_unref(c);
}

static void h1_keep(struct http_client *c, struct h1conn *k)
{
	/* Bytes behind the response belong to nobody. */
	if (c->freed || c->n_idle >= c->o.max_idle || k->in.n > k->in.off || k->generation != c->generation) {
		h1_drop(k);
		return;
	}
	rbuf_free(&k->in);
	k->next = c->idle;
	k->since = now_ms();
	c->idle = k;
	c->n_idle++;
	if (!c->closing) {
		c->closing = true;
		c->refs++;
		fiber_spawn("http idle", closer_fiber, c);
	}
}

/* ---- HTTP/1.1 ---- */

bool http_may_have_body(const char *method)
{
	return !strcmp(method, "POST") || !strcmp(method, "PUT") || !strcmp(method, "PATCH");
}

static void put_request(struct http_client *c, struct buf *b, const struct h2_request *rq, const char *upgrade)
{
	buf_printf(b, "%s %.*s HTTP/1.1\r\nHost: %.*s\r\n", rq->method, STR_ARG(rq->target), STR_ARG(rq->authority));
	for (size_t i = 0; i < rq->n_headers; i++) {
		buf_str(b, rq->headers[i].name);
		buf_append(b, ": ", 2);
		buf_str(b, rq->headers[i].value);
		buf_append(b, "\r\n", 2);
	}
	if (rq->next && rq->length >= 0)
		buf_printf(b, "Content-Length: %lld\r\n", (long long)rq->length);
	else if (rq->next)
		buf_puts(b, "Transfer-Encoding: chunked\r\n");
	else if (rq->body.n || (http_may_have_body(rq->method) && !upgrade))
		buf_printf(b, "Content-Length: %zu\r\n", rq->body.n);
	buf_append(b, "\r\n", 2);
}

static struct error *send_chunks(struct stream *s, const struct h2_request *rq)
{
	char *chunk = xmalloc(16384), size[24];
	struct error *e;
	size_t n;

	while (!(e = rq->next(rq->ctx, chunk, 16384, &n))) {
		struct iovec v[3] = {
			{size, (size_t)snprintf(size, sizeof size, "%zx\r\n", n)}, {chunk, n}, {(void *)(uintptr_t)"\r\n", 2},
		};

		e = stream_writev(s, v, 3);
		if (e || !n)
			break;
	}
	free(chunk);
	return e;
}

static struct error *send_sized(struct stream *s, const struct h2_request *rq)
{
	char *piece = xmalloc(16384);
	int64_t left = rq->length;
	struct error *e;
	size_t n;

	while (!(e = rq->next(rq->ctx, piece, 16384, &n)) && n && (int64_t)n <= left) {
		left -= (int64_t)n;
		e = stream_write(s, piece, n);
		if (e)
			break;
	}
	free(piece);
	return e || (!left && !n) ? e : error_sys(EPROTO, "HTTP request body of another length than was announced");
}

static struct error *read_response_head(struct h1conn *k, struct arena *a, struct h1_head *h, bool *answered)
{
	struct rbuf *in = &k->in;
	size_t seen = 0, len;
	bool eof;

	for (;;) {
		size_t n = in->n - in->off;

		len = n ? h1_head_end(in->p + in->off, n, seen) : 0;
		if (!len) {
			seen = n;
			struct error *e = rbuf_fill(in, HEAD_MAX, &eof);

			if (e && e->status == 431) {
				e->status = 0;
				e->sys = EMSGSIZE;
			}
			TRY(e);
			if (eof)
				return error_sys(ECONNRESET, "HTTP server closed the connection");
			*answered = true;
			continue;
		}
		char *head = arena_bytes(a, len);

		memcpy(head, in->p + in->off, len);
		in->off += len;
		TRY(h1_parse_response(a, head, len, h));
		/* Interim answers are skipped; switching protocols is not one. */
		if (h->status < 100 || h->status >= 200 || h->status == 101)
			return NULL;
		seen = 0;
	}
}

static struct error *h1r_read(struct http_response *r, void *p, size_t n, size_t *got)
{
	struct h1resp *h = (struct h1resp *)r->impl;
	struct error *e = h1_body_read(&h->body, &h->conn->in, p, n, got);

	if (e)
		h->keep = false;
	return e;
}

static struct http_headers h1r_trailers(const struct http_response *r)
{
	const struct h1resp *h = (struct h1resp *)r->impl;

	return (struct http_headers){h->body.trailers.v, h->body.trailers.n};
}

static void h1r_close(struct http_response *r)
{
	struct h1resp *h = (struct h1resp *)r->impl;
	struct http_client *c = h->c;
	struct h1conn *k = h->conn;

	/* A short rest that is here already is cheaper to read than a new connection. */
	if (h->keep && !h->body.done && h->body.kind == H1_LENGTH && h->body.left <= k->in.n - k->in.off) {
		k->in.off += (size_t)h->body.left;
		h->body.done = true;
	}
	if (h->keep && h->body.done)
		h1_keep(c, k);
	else
		h1_drop(k);
	client_unref(c);
	free(h);
}

static const struct resp_ops h1_resp_ops = {h1r_read, h1r_trailers, h1r_close};

/* On error the connection is gone. *answered: the server had begun to answer. */
static struct error *h1_do(struct http_client *c, struct h1conn *k, struct arena *a, const struct h2_request *rq,
			   const char *upgrade, struct http_response *out, struct stream **raw, bool *sent, bool *answered)
{
	buf_cleanup struct buf b = {0};
	struct h1_head h = {0};

	put_request(c, &b, rq, upgrade);
	struct iovec v[2] = {{b.p, b.n}, {(void *)(uintptr_t)rq->body.p, rq->body.n}};
	struct error *e = stream_writev(k->s, v, rq->body.n && !rq->next ? 2 : 1);

	*sent = !e;
	if (!e && rq->next)
		e = rq->length >= 0 ? send_sized(k->s, rq) : send_chunks(k->s, rq);
	/* A server that refuses a body may close before it has all of it: its answer counts. */
	struct error *write_error = e;

	if (e && !error_is_sys(e, EPIPE) && !error_is_sys(e, ECONNRESET)) {
		h1_drop(k);
		return e;
	}
	e = read_response_head(k, a, &h, answered);
	if (e) {
		h1_drop(k);
		error_free(write_error);
		return e;
	}
	out->status = h.status;
	out->headers = (struct http_headers){h.headers.v, h.headers.n};
	out->content_length = -1;
	if (h.status == 101) {
		error_free(write_error);
		if (!raw) {
			h1_drop(k);
			return error_sys(EPROTO, "HTTP server switched protocols unasked");
		}
		*raw = h1_unbuffer(&k->in, k->s);
		free(k);
		return NULL;
	}
	struct h1resp *r = xcalloc(1, sizeof *r);

	r->resp.ops = &h1_resp_ops;
	r->c = c;
	c->refs++;
	r->conn = k;
	r->keep = !h.close && (h.minor > 0 || h.keep_alive) && !write_error;
	error_free(write_error);
	if (strcmp(rq->method, "HEAD") == 0 || http_bodyless(h.status)) {
		r->body.kind = H1_NONE;
		out->content_length = h.content_length;
	} else if (h.chunked) {
		r->body.kind = H1_CHUNKED;
		r->body.ta = a;
	} else if (h.content_length >= 0) {
		r->body.kind = H1_LENGTH;
		r->body.left = (uint64_t)h.content_length;
		out->content_length = h.content_length;
	} else {
		r->body.kind = H1_UNTIL_CLOSE;
		r->keep = false;
	}
	r->body.done = r->body.kind == H1_NONE || (r->body.kind == H1_LENGTH && !r->body.left);
	out->impl = &r->resp;
	return NULL;
}

/* ---- both ---- */

static struct error *check_request(struct arena *a, struct h2_request *rq, const struct http_header *headers, size_t n)
{
	struct http_header *v = arena_array(a, struct http_header, n);
	size_t kept = 0;

	if (!http_is_token(str_from(rq->method)) || !rq->target.n || rq->target.p[0] != '/')
		return error_sys(EINVAL, "HTTP request %s %.*s", rq->method, STR_ARG(rq->target));
	for (size_t i = 0; i < rq->target.n; i++)
		if ((unsigned char)rq->target.p[i] <= 32 || rq->target.p[i] == 127)
			return error_sys(EINVAL, "HTTP request target with a character that must be escaped");
	for (size_t i = 0; i < n; i++) {
		char *name = arena_strz(a, headers[i].name);

		if (!http_is_token(headers[i].name) || !http_value_ok(headers[i].value))
			return error_sys(EINVAL, "HTTP request header \"%s\"", name);
		for (char *p = name; *p; p++)
			if (*p >= 'A' && *p <= 'Z')
				*p = (char)(*p + 32);
		/* Framing is ours, as for responses; Host may be given. */
		if (strcmp(name, "host") == 0)
			rq->authority = headers[i].value;
		else if (strcmp(name, "content-length") && strcmp(name, "transfer-encoding") && strcmp(name, "keep-alive") &&
			 strcmp(name, "connection") && strcmp(name, "upgrade") && strcmp(name, "proxy-connection"))
			v[kept++] = (struct http_header){str_of(name, headers[i].name.n), headers[i].value};
	}
	rq->headers = v;
	rq->n_headers = kept;
	return NULL;
}

static bool idempotent(const char *m)
{
	return !strcmp(m, "GET") || !strcmp(m, "HEAD") || !strcmp(m, "PUT") || !strcmp(m, "DELETE");
}

static bool broken_connection(const struct error *e)
{
	return error_is_sys(e, ECONNRESET) || error_is_sys(e, EPIPE);
}

static struct error *run(struct http_client *c, struct arena *a, const struct h2_request *rq, struct http_response *out)
{
	int refusals = 0;

	for (bool fresh = false;;) {
		bool sent = false, answered = false, unsent = false;
		struct got g;
		struct error *e;

		*out = (struct http_response){.content_length = -1};
		TRY(get(c, fresh, &g));
		if (g.h2) {
			e = h2_do(g.h2, a, rq, out, &unsent);
			h2_unref(g.h2);
			sent = !unsent;
		} else {
			e = h1_do(c, g.h1, a, rq, NULL, out, NULL, &sent, &answered);
		}
		if (!e) {
			out->faults = c->faults;
			return NULL;
		}
		/* Refused by the server: certainly not acted on. */
		if (unsent && !rq->next && refusals <= REFUSALS_MAX) {
			error_free(e);
			if (refusals++)
				TRY(fiber_sleep((int64_t)((1000u << (refusals - 2)) * (1 + random_u64() % 101 / 1000.0))));
			continue;
		}
		/* A body from a callback cannot be made twice once some of it was asked for. */
		if (fresh || answered || !g.reused || (rq->next && sent) || !broken_connection(e) || (sent && !idempotent(rq->method)))
			return error_wrap(e, "%s %s", rq->method, c->o.base);
		error_free(e);
		fresh = true;
	}
}

static struct error *request(struct http_client *c, struct arena *a, struct h2_request *rq, const struct http_header *headers,
			     size_t n_headers, struct http_response *out)
{
	rq->scheme = c->https ? "https" : "http";
	rq->authority = str_from(c->authority);
	TRY(check_request(a, rq, headers, n_headers));
	c->refs++; /* may be freed by another fiber while we wait */
	struct error *e = run(c, a, rq, out);

	client_unref(c);
	return e;
}

struct error *http_do(struct http_client *c, struct arena *a, const char *method, struct str target,
		      const struct http_header *headers, size_t n_headers, struct str body, struct http_response *out)
{
	struct h2_request rq = {.method = method, .target = target, .body = body};

	return request(c, a, &rq, headers, n_headers, out);
}

struct error *http_do_stream(struct http_client *c, struct arena *a, const char *method, struct str target,
			     const struct http_header *headers, size_t n_headers,
			     struct error *(*next)(void *ctx, void *p, size_t cap, size_t *n), void *ctx,
			     int64_t length, struct http_response *out)
{
	struct h2_request rq = {.method = method, .target = target, .next = next, .ctx = ctx, .length = length};

	return request(c, a, &rq, headers, n_headers, out);
}

struct error *http_do_upgrade(struct http_client *c, struct arena *a, const char *method, struct str target,
			      const struct http_header *headers, size_t n_headers, struct http_response *resp,
			      struct stream **out)
{
	struct h2_request rq = {.method = method, .target = target, .scheme = "http", .authority = str_from(c->authority)};
	struct str protocol = STR_NULL;
	bool sent, answered = false;
	struct stream *s;

	*out = NULL;
	*resp = (struct http_response){.content_length = -1};
	for (size_t i = 0; i < n_headers; i++)
		if (str_eq_nocase(headers[i].name, STR("upgrade")))
			protocol = headers[i].value;
	if (!protocol.n)
		return error_sys(EINVAL, "HTTP upgrade without an Upgrade header");
	TRY(check_request(a, &rq, headers, n_headers));
	/* Only here the connection's own fields are sent on. */
	struct http_header *v = arena_array(a, struct http_header, rq.n_headers + 2);

	memcpy(v, rq.headers, rq.n_headers * sizeof *v);
	v[rq.n_headers++] = (struct http_header){STR("Connection"), STR("Upgrade")};
	v[rq.n_headers++] = (struct http_header){STR("Upgrade"), protocol};
	rq.headers = v;
	c->refs++;
	struct error *e = dial(c, false, &s);

	if (!e)
		e = h1_do(c, h1_make(c, s), a, &rq, "upgrade", resp, out, &sent, &answered);
	client_unref(c);
	return error_wrap(e, "%s %s", method, c->o.base);
}

struct error *http_response_read(struct http_response *r, void *p, size_t n, size_t *got)
{
	*got = 0;
	return ((struct resp *)r->impl)->ops->read(r, p, n, got);
}

struct error *http_response_all(struct http_response *r, struct arena *a, size_t limit, struct str *out)
{
	bool known = r->content_length >= 0;
	/* Announced sizes are believed only so far: memory follows bytes that came. */
	size_t cap = known && r->content_length < 8 << 20 ? (size_t)r->content_length + 1 : 16384, n = 0, got;

	*out = STR_NULL;
	if (known && (uint64_t)r->content_length > limit)
		return error_sys(EMSGSIZE, "HTTP response of %lld bytes", (long long)r->content_length);
	char *p = arena_bytes(a, cap);

	for (;;) {
		if (n == cap) {
			char *bigger = arena_bytes(a, cap * 2);

			memcpy(bigger, p, n);
			p = bigger;
			cap *= 2;
		}
		TRY(http_response_read(r, p + n, cap - n, &got));
		if (!got)
			break;
		n += got;
		if (n > limit)
			return error_sys(EMSGSIZE, "HTTP response of more than %zu bytes", limit);
	}
	*out = str_of(p, n);
	return NULL;
}

struct http_headers http_response_trailers(const struct http_response *r)
{
	return ((struct resp *)r->impl)->ops->trailers(r);
}

void http_response_close(struct http_response *r)
{
	if (!r->impl)
		return;
	((struct resp *)r->impl)->ops->close(r);
	r->impl = NULL;
}
