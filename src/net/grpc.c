#include "net/grpc.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/internal.h"

#define PREFIX 5 /* compressed flag and length before each message */

/* ---- codes ---- */

static const struct {
	enum grpc_code code;
	int status;
	const char *reason;
} codes[] = {
	{GRPC_CANCELLED, 499, "ClientClosedRequest"},
	{GRPC_UNKNOWN, 500, "InternalError"},
	{GRPC_INVALID_ARGUMENT, 400, "BadRequest"},
	{GRPC_DEADLINE_EXCEEDED, 504, "Timeout"},
	{GRPC_NOT_FOUND, 404, "NotFound"},
	{GRPC_ALREADY_EXISTS, 409, "AlreadyExists"},
	{GRPC_PERMISSION_DENIED, 403, "Forbidden"},
	{GRPC_RESOURCE_EXHAUSTED, 429, "TooManyRequests"},
	{GRPC_FAILED_PRECONDITION, 412, "PreconditionFailed"},
	{GRPC_UNIMPLEMENTED, 501, "NotImplemented"},
	{GRPC_UNAVAILABLE, 503, "ServiceUnavailable"},
	{GRPC_UNAUTHENTICATED, 401, "Unauthorized"},
	/* Several codes share a status: only the way out of HTTP is unique. */
	{GRPC_ABORTED, 409, "Conflict"},
	{GRPC_OUT_OF_RANGE, 400, "OutOfRange"},
	{GRPC_INTERNAL, 500, "Internal"},
	{GRPC_DATA_LOSS, 500, "DataLoss"},
};

struct error *grpc_error(enum grpc_code code, const char *fmt, ...)
{
	int status = 500;
	const char *reason = "InternalError";
	va_list ap;
	char *msg;

	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		if (codes[i].code == code) {
			status = codes[i].status;
			reason = codes[i].reason;
		}
	va_start(ap, fmt);
	if (vasprintf(&msg, fmt, ap) < 0)
		die_oom();
	va_end(ap);
	struct error *e = error_status(status, reason, "%s", msg);

	free(msg);
	return e;
}

enum grpc_code grpc_error_code(const struct error *e)
{
	if (!e)
		return GRPC_OK;
	if (!e->status && e->sys == ETIMEDOUT)
		return GRPC_DEADLINE_EXCEEDED;
	if (!e->status && e->sys == ECANCELED)
		return GRPC_CANCELLED;
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		if (codes[i].status == e->status && e->reason && strcmp(codes[i].reason, e->reason) == 0)
			return codes[i].code;
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		if (codes[i].status == e->status && e->status != 500)
			return codes[i].code;
	return GRPC_UNKNOWN;
}

/* ---- messages ---- */

static void put_prefix(char p[PREFIX], size_t n)
{
	p[0] = 0;
	p[1] = (char)(n >> 24);
	p[2] = (char)(n >> 16);
	p[3] = (char)(n >> 8);
	p[4] = (char)n;
}

/* Length in a prefix, or an error. */
static struct error *read_prefix(const char *p, size_t *n)
{
	const unsigned char *u = (const unsigned char *)p;

	if (u[0])
		return grpc_error(GRPC_UNIMPLEMENTED, "compressed gRPC message");
	*n = (size_t)u[1] << 24 | (size_t)u[2] << 16 | (size_t)u[3] << 8 | u[4];
	if (*n > GRPC_MESSAGE_MAX)
		return grpc_error(GRPC_RESOURCE_EXHAUSTED, "gRPC message of %zu bytes is larger than %u", *n, GRPC_MESSAGE_MAX);
	return NULL;
}

/* grpc-message is percent-encoded UTF-8. */
static struct str encode_message(struct arena *a, const char *msg)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t n = strlen(msg), k = 0;

	if (n > 4096)
		n = 4096;
	char *p = arena_bytes(a, n * 3 + 1);

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)msg[i];

		if (c >= 32 && c < 127 && c != '%') {
			p[k++] = (char)c;
		} else {
			p[k++] = '%';
			p[k++] = digits[c >> 4];
			p[k++] = digits[c & 15];
		}
	}
	return str_of(p, k);
}

/* "100m" -> ms; -1 for none or nonsense. */
static int64_t parse_timeout(struct str s)
{
	uint64_t n;

	if (s.n < 2 || s.n > 9 || !str_to_u64(str_sub(s, 0, s.n - 1), &n))
		return -1;
	switch (s.p[s.n - 1]) {
	case 'H':
		return (int64_t)n * 3600000;
	case 'M':
		return (int64_t)n * 60000;
	case 'S':
		return (int64_t)n * 1000;
	case 'm':
		return (int64_t)n;
	case 'u':
		return (int64_t)(n / 1000);
	case 'n':
		return (int64_t)(n / 1000000);
	default:
		return -1;
	}
}

/* ---- server ---- */

struct grpc_server {
	struct http_server *http;
	struct grpc_server_opts o;
};

struct grpc_stream {
	struct http_exchange *x;
};

struct error *grpc_send(struct grpc_stream *s, struct str message)
{
	char prefix[PREFIX];

	if (message.n > GRPC_MESSAGE_MAX)
		return grpc_error(GRPC_RESOURCE_EXHAUSTED, "gRPC message of %zu bytes is larger than %u", message.n,
				  GRPC_MESSAGE_MAX);
	put_prefix(prefix, message.n);
	struct iovec v[2] = {{prefix, PREFIX}, {(void *)(uintptr_t)message.p, message.n}};

	return http_writev(s->x, v, message.n ? 2 : 1);
}

static struct error *read_request(struct http_exchange *x, struct str *req)
{
	struct str body;
	size_t n;
	struct error *e = http_body_all(x, GRPC_MESSAGE_MAX + PREFIX, &body);

	if (error_is(e, 413, NULL)) {
		error_free(e);
		return grpc_error(GRPC_RESOURCE_EXHAUSTED, "gRPC request larger than %u bytes", GRPC_MESSAGE_MAX);
	}
	TRY(e);
	if (body.n < PREFIX)
		return grpc_error(GRPC_INTERNAL, "gRPC request without a message");
	TRY(read_prefix(body.p, &n));
	if (n != body.n - PREFIX)
		return grpc_error(n > body.n - PREFIX ? GRPC_INTERNAL : GRPC_UNIMPLEMENTED,
				  n > body.n - PREFIX ? "gRPC message ended early" : "gRPC client streaming");
	*req = str_sub(body, PREFIX, body.n);
	return NULL;
}

static struct error *serve_method(struct http_exchange *x, struct grpc_server *s)
{
	struct grpc_stream out = {x};
	struct str req, resp = STR_NULL;

	for (size_t i = 0; i < s->o.n_methods; i++) {
		const struct grpc_method *m = &s->o.methods[i];

		if (!str_eqz(x->path, m->path))
			continue;
		TRY(read_request(x, &req));
		if (m->streaming)
			return m->streaming(x->arena, req, &out, s->o.ctx);
		TRY(m->unary(x->arena, req, &resp, s->o.ctx));
		return grpc_send(&out, resp);
	}
	return grpc_error(GRPC_UNIMPLEMENTED, "unknown method %.*s", STR_ARG(x->path));
}

static void serve(struct http_exchange *x, void *ctx)
{
	struct str type = http_header_get(&x->headers, "content-type");

	if (x->version != 20 || !str_eqz(x->method, "POST") || !str_has_prefix(type, STR("application/grpc"))) {
		error_free(http_respond(x, 415, STR("this is a gRPC server\n")));
		return;
	}
	http_set_header(x, "Content-Type", STR("application/grpc"));
	struct error *e = http_start(x, 200);

	if (e) {
		error_free(e);
		return;
	}
	int64_t t = deadline_push(parse_timeout(http_header_get(&x->headers, "grpc-timeout")));

	e = serve_method(x, ctx);
	deadline_pop(t);
	http_set_trailer(x, "Grpc-Status", arena_printf(x->arena, "%d", grpc_error_code(e)));
	if (e)
		http_set_trailer(x, "Grpc-Message", encode_message(x->arena, e->message));
	error_free(e);
	error_free(http_end(x));
}

struct error *grpc_server_start(struct listener *l, const struct grpc_server_opts *o, struct grpc_server **out)
{
	struct grpc_server *s = xcalloc(1, sizeof *s);
	struct http_server_opts h = {
		.tls = o->tls, .handler = serve, .ctx = s, .max_streams = 1000,
		/* gRPC clients keep their connection for ever. */
		.idle_timeout_ms = 24 * 3600 * 1000,
	};

	*out = NULL;
	s->o = *o;
	struct error *e = http_server_start(l, &h, &s->http);

	if (e)
		free(s);
	else
		*out = s;
	return e;
}

void grpc_server_stop(struct grpc_server *s, int64_t grace_ms)
{
	if (!s)
		return;
	http_server_stop(s->http, grace_ms);
	free(s);
}

/* ---- client ---- */

#define METADATA_MAX 4

struct grpc_client {
	struct http_client *http;
	const struct http_header *metadata;
	size_t n_metadata;
};

struct error *grpc_client_new(const char *target, struct grpc_client **out)
{
	return grpc_client_open(&(struct grpc_client_opts){.target = target}, out);
}

struct error *grpc_client_open(const struct grpc_client_opts *o, struct grpc_client **out)
{
	*out = NULL;
	if (o->n_metadata > METADATA_MAX)
		return error_new("gRPC: more than %d metadata headers", METADATA_MAX);
	struct grpc_client *c = xcalloc(1, sizeof *c);
	struct error *e = http_client_new(&(struct http_client_opts){.base = o->target, .tls = o->tls, .http2_prior_knowledge = !o->tls},
					  &c->http);

	c->metadata = o->metadata;
	c->n_metadata = o->n_metadata;
	if (e)
		free(c);
	else
		*out = c;
	return e;
}

void grpc_client_free(struct grpc_client *c)
{
	if (!c)
		return;
	http_client_free(c->http);
	free(c);
}

struct call {
	struct http_response r;
	struct arena *a;
	char *req;
	bool open;
};

static struct error *transport_error(struct error *e)
{
	/* Deadlines and cancellations keep their errno; the rest is a server that cannot be reached. */
	if (e && !e->status && e->sys != ETIMEDOUT && e->sys != ECANCELED) {
		e->status = 503;
		e->reason = "ServiceUnavailable";
	}
	return e;
}

static struct error *start_call(struct grpc_client *c, struct call *k, const char *path, struct str req)
{
	struct http_header h[3 + METADATA_MAX] = {
		{STR("content-type"), STR("application/grpc")}, {STR("te"), STR("trailers")},
	};
	size_t n = 2;
	int64_t left = deadline_left();

	if (left >= 0) {
		/* At most eight digits. */
		h[n++] = (struct http_header){STR("grpc-timeout"), left < 99999999 ? arena_printf(k->a, "%lldm", (long long)left)
									   : arena_printf(k->a, "%lldS", (long long)(left / 1000 % 99999999))};
	}
	for (size_t i = 0; i < c->n_metadata; i++)
		h[n++] = c->metadata[i];
	k->req = xmalloc(req.n + PREFIX);
	put_prefix(k->req, req.n);
	if (req.n)
		memcpy(k->req + PREFIX, req.p, req.n);
	TRY(transport_error(http_do(c->http, k->a, "POST", str_from(path), h, n, str_of(k->req, req.n + PREFIX), &k->r)));
	k->open = true;
	if (k->r.status != 200)
		return grpc_error(k->r.status == 404 ? GRPC_UNIMPLEMENTED : GRPC_UNAVAILABLE, "%s: HTTP status %d", path,
				  k->r.status);
	return NULL;
}

static void end_call(struct call *k)
{
	if (k->open)
		http_response_close(&k->r);
	free(k->req);
}

/* Exactly n bytes; *got < n only at the end. */
static struct error *read_up_to(struct http_response *r, char *p, size_t n, size_t *got)
{
	size_t k;

	for (*got = 0; *got < n; *got += k) {
		TRY(http_response_read(r, p + *got, n - *got, &k));
		if (!k)
			break;
	}
	return NULL;
}

/* The next message; *end at the end of all. */
static struct error *next_message(struct call *k, struct arena *a, struct str *msg, bool *end)
{
	char prefix[PREFIX];
	size_t n, got;

	*end = false;
	TRY(transport_error(read_up_to(&k->r, prefix, PREFIX, &got)));
	if (!got) {
		*end = true;
		return NULL;
	}
	if (got < PREFIX)
		return grpc_error(GRPC_INTERNAL, "gRPC message ended early");
	TRY(read_prefix(prefix, &n));
	char *p = arena_bytes(a, n + 1);

	TRY(transport_error(read_up_to(&k->r, p, n, &got)));
	if (got < n)
		return grpc_error(GRPC_INTERNAL, "gRPC message ended early");
	*msg = str_of(p, n);
	return NULL;
}

/* Call at the end of the messages: what the server says. */
static struct error *final_status(struct call *k, const char *path)
{
	struct http_headers t = http_response_trailers(&k->r);
	struct str code = http_header_get(&t, "grpc-status"), msg = http_header_get(&t, "grpc-message");
	int64_t n;

	/* Without messages everything may stand in the head. */
	if (!code.p) {
		code = http_header_get(&k->r.headers, "grpc-status");
		msg = http_header_get(&k->r.headers, "grpc-message");
	}
	if (!str_to_i64(code, &n) || n < 0 || n > 16)
		return grpc_error(GRPC_UNKNOWN, "%s: the server gave no gRPC status", path);
	if (n == GRPC_OK)
		return NULL;
	msg = http_unescape(k->a, msg, false);
	return msg.n ? grpc_error((enum grpc_code)n, "%.*s", STR_ARG(msg)) : grpc_error((enum grpc_code)n, "%s: gRPC status %d", path, (int)n);
}

/* ---- counts ---- */

const char *grpc_code_name(enum grpc_code code)
{
	static const char *const names[GRPC_CODES] = {
		"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
		"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss",
		"Unauthenticated"};

	return (unsigned)code < GRPC_CODES ? names[code] : "Unknown";
}

static __thread struct {
	struct grpc_counts *v;
	size_t n;
} counts;

const struct grpc_counts *grpc_client_counts(size_t *n)
{
	*n = counts.n;
	return counts.v;
}

/* A call begins. */
static struct grpc_counts *counts_of(const char *path, bool stream)
{
	static __thread struct grpc_counts others;
	struct grpc_counts *c = &others;

	if (!counts.v)
		counts.v = xcalloc(GRPC_METHODS_MAX, sizeof *counts.v);
	for (size_t i = 0; i < counts.n && c == &others; i++)
		if (!strcmp(counts.v[i].path, path))
			c = &counts.v[i];
	if (c == &others && counts.n < GRPC_METHODS_MAX) {
		c = &counts.v[counts.n++];
		c->path = xstrdup(path);
		c->stream = stream;
	}
	c->started++;
	return c;
}

static struct error *count_end(struct grpc_counts *c, struct error *e)
{
	unsigned code = grpc_error_code(e);

	c->ended[code < GRPC_CODES ? code : GRPC_UNKNOWN]++;
	return e;
}

struct error *grpc_call(struct grpc_client *c, struct arena *a, const char *path, struct str req, struct str *resp)
{
	struct call k = {.a = a};
	struct grpc_counts *n = counts_of(path, false);
	bool end, have = false;
	struct str msg;
	struct error *e = start_call(c, &k, path, req);

	*resp = STR_NULL;
	n->sent += !e;
	while (!e) {
		e = next_message(&k, a, &msg, &end);
		if (e || end)
			break;
		n->received++;
		if (have)
			e = grpc_error(GRPC_INTERNAL, "%s: more than one answer", path);
		have = true;
		*resp = msg;
	}
	if (!e)
		e = final_status(&k, path);
	if (!e && !have)
		e = grpc_error(GRPC_INTERNAL, "%s: no answer", path);
	end_call(&k);
	return count_end(n, e);
}

struct error *grpc_call_stream(struct grpc_client *c, const char *path, struct str req,
			       struct error *(*on_message)(void *ctx, struct str message), void *ctx)
{
	struct arena a = {0}, each = {0};
	struct call k = {.a = &a};
	struct grpc_counts *n = counts_of(path, true);
	bool end = false;
	struct str msg;
	struct error *e = start_call(c, &k, path, req);

	n->sent += !e;
	while (!e) {
		arena_reset(&each);
		e = next_message(&k, &each, &msg, &end);
		if (e || end)
			break;
		n->received++;
		e = on_message(ctx, msg);
	}
	if (!e)
		e = final_status(&k, path);
	end_call(&k);
	arena_free(&each);
	arena_free(&a);
	return count_end(n, e);
}
