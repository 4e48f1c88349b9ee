/* What HTTP/1.1 and HTTP/2 have in common: fields, targets, and the handler's side of an exchange. */
#include "net/http.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "net/internal.h"

char *net_scratch(void)
{
	static _Thread_local char *scratch;

	if (!scratch)
		scratch = xmalloc(SCRATCH);
	return scratch;
}

struct str http_header_get(const struct http_headers *h, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < h->n; i++)
		if (h->v[i].name.n == n && memcmp(h->v[i].name.p, name, n) == 0)
			return h->v[i].value;
	return STR_NULL;
}

struct str http_reason(int status)
{
	static const struct {
		int status;
		struct str text;
	} known[] = {
		{100, STR_INIT("Continue")},
		{101, STR_INIT("Switching Protocols")},
		{200, STR_INIT("OK")},
		{201, STR_INIT("Created")},
		{202, STR_INIT("Accepted")},
		{204, STR_INIT("No Content")},
		{206, STR_INIT("Partial Content")},
		{301, STR_INIT("Moved Permanently")},
		{302, STR_INIT("Found")},
		{303, STR_INIT("See Other")},
		{304, STR_INIT("Not Modified")},
		{307, STR_INIT("Temporary Redirect")},
		{308, STR_INIT("Permanent Redirect")},
		{400, STR_INIT("Bad Request")},
		{401, STR_INIT("Unauthorized")},
		{403, STR_INIT("Forbidden")},
		{404, STR_INIT("Not Found")},
		{405, STR_INIT("Method Not Allowed")},
		{406, STR_INIT("Not Acceptable")},
		{408, STR_INIT("Request Timeout")},
		{409, STR_INIT("Conflict")},
		{410, STR_INIT("Gone")},
		{411, STR_INIT("Length Required")},
		{412, STR_INIT("Precondition Failed")},
		{413, STR_INIT("Request Entity Too Large")},
		{414, STR_INIT("URI Too Long")},
		{415, STR_INIT("Unsupported Media Type")},
		{416, STR_INIT("Requested Range Not Satisfiable")},
		{417, STR_INIT("Expectation Failed")},
		{422, STR_INIT("Unprocessable Entity")},
		{426, STR_INIT("Upgrade Required")},
		{429, STR_INIT("Too Many Requests")},
		{431, STR_INIT("Request Header Fields Too Large")},
		{500, STR_INIT("Internal Server Error")},
		{501, STR_INIT("Not Implemented")},
		{502, STR_INIT("Bad Gateway")},
		{503, STR_INIT("Service Unavailable")},
		{504, STR_INIT("Gateway Timeout")},
		{505, STR_INIT("HTTP Version Not Supported")},
		{507, STR_INIT("Insufficient Storage")},
	};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].status == status)
			return known[i].text;
	return STR("Status");
}

struct str http_date(void)
{
	static _Thread_local time_t at;
	static _Thread_local char text[40];
	time_t now = (time_t)(wall_ns() / 1000000000);
	struct tm tm;

	if (now != at) {
		static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

		gmtime_r(&now, &tm);
		/* strftime would follow the locale. */
		snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday, tm.tm_mday,
			 months + 3 * tm.tm_mon, (tm.tm_year + 1900) % 10000, tm.tm_hour, tm.tm_min, tm.tm_sec);
		at = now;
	}
	return str_from(text);
}

static bool token_char(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

bool http_is_token(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!token_char((unsigned char)s.p[i]))
			return false;
	return s.n > 0;
}

bool http_value_ok(struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if ((c < 32 && c != '\t') || c == 127)
			return false;
	}
	return true;
}

bool http_bodyless(int status)
{
	return (status >= 100 && status < 200) || status == 204 || status == 304;
}

void http_set_target(struct http_exchange *x, struct str target)
{
	ptrdiff_t q = str_index(target, '?');

	x->path = q < 0 ? target : str_sub(target, 0, (size_t)q);
	x->query = q < 0 ? STR_NULL : str_sub(target, (size_t)q + 1, target.n);
}

void http_handle(const struct http_server_opts *o, struct http_exchange *x)
{
	if (str_eq(x->method, STR("OPTIONS")) && str_eq(x->path, STR("*")))
		error_free(http_respond(x, 200, STR_NULL)); /* of the server, not of what it serves */
	else
		o->handler(x, o->ctx);
}

/* ---- the handler's side ---- */

static struct xchg *of(const struct http_exchange *x)
{
	return (struct xchg *)(uintptr_t)x;
}

void xchg_init(struct xchg *x, const struct xchg_ops *ops)
{
	x->ops = ops;
	x->x.arena = &x->arena;
	x->x.content_length = -1;
	x->x.impl = x;
	x->length = -1;
}

struct error *http_body_read(struct http_exchange *x, void *p, size_t n, size_t *got)
{
	*got = 0;
	return of(x)->ops->body_read(of(x), p, n, got);
}

struct error *http_body_all(struct http_exchange *x, size_t limit, struct str *out)
{
	size_t cap, n = 0, got;
	char *p;

	*out = STR_NULL;
	if (x->content_length >= 0 && (uint64_t)x->content_length > limit)
		goto too_large;
	/* Announced sizes are believed only so far: memory follows bytes that came. */
	cap = x->content_length >= 0 && x->content_length < 1 << 20 ? (size_t)x->content_length + 1 : 16384;
	p = arena_bytes(x->arena, cap);
	for (;;) {
		if (n == cap) {
			char *bigger = arena_bytes(x->arena, cap * 2);

			memcpy(bigger, p, n);
			p = bigger;
			cap *= 2;
		}
		TRY(http_body_read(x, p + n, cap - n, &got));
		if (!got)
			break;
		n += got;
		if (n > limit)
			goto too_large;
	}
	*out = str_of(p, n);
	return NULL;
too_large:
	return error_status(413, "RequestEntityTooLarge", "the request body is larger than %zu bytes", limit);
}

/* What the server itself decides. */
static bool own_header(struct str n)
{
	static const char *const own[] = {"content-length", "date", "connection", "transfer-encoding", "keep-alive", "upgrade",
					  "proxy-connection"};

	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		if (str_eqz(n, own[i]))
			return true;
	return false;
}

static void put_header(struct xchg *x, header_list *list, const char *name, struct str value, bool replace)
{
	size_t n = strlen(name);
	char *lower = arena_strz(&x->arena, str_of(name, n));

	for (size_t i = 0; i < n; i++)
		if (lower[i] >= 'A' && lower[i] <= 'Z')
			lower[i] = (char)(lower[i] + 32);
	struct http_header h = {str_of(lower, n), STR_NULL};

	assert(http_is_token(h.name));
	if (own_header(h.name))
		return;
	char *v = arena_strz(&x->arena, value);

	/* Values may come from users (names, warnings): they must not be able to start a line of their own. */
	for (size_t i = 0; i < value.n; i++)
		if (((unsigned char)v[i] < 32 && v[i] != '\t') || v[i] == 127)
			v[i] = ' ';
	h.value = str_trim(str_of(v, value.n));
	if (replace)
		for (uint32_t i = 0; i < list->n; i++)
			if (str_eq(list->v[i].name, h.name)) {
				list->v[i].value = h.value;
				return;
			}
	*arena_push(&x->arena, list) = h;
}

void http_set_header(struct http_exchange *x, const char *name, struct str value)
{
	assert(!of(x)->started);
	put_header(of(x), &of(x)->out, name, value, true);
}

void http_unset_header(struct http_exchange *x, const char *name)
{
	struct xchg *g = of(x);
	uint32_t n = 0;

	assert(!g->started);
	for (uint32_t i = 0; i < g->out.n; i++)
		if (!str_eqz(g->out.v[i].name, name))
			g->out.v[n++] = g->out.v[i];
	g->out.n = n;
}

void http_add_header(struct http_exchange *x, const char *name, struct str value)
{
	assert(!of(x)->started);
	put_header(of(x), &of(x)->out, name, value, false);
}

void http_set_trailer(struct http_exchange *x, const char *name, struct str value)
{
	assert(!of(x)->ended);
	put_header(of(x), &of(x)->trailers, name, value, true);
}

struct error *http_respond(struct http_exchange *x, int status, struct str body)
{
	struct iovec v = {(void *)(uintptr_t)body.p, body.n};

	return http_respond_iov(x, status, &v, body.n ? 1 : 0);
}

static size_t iov_total(const struct iovec *iov, int n)
{
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	return total;
}

/* Go's server drops the connection of a handler that says what is none. */
static struct error *check_status(int status)
{
	return status >= 100 && status <= 999 ? NULL : error_sys(EPROTO, "%d is no HTTP status", status);
}

struct error *http_respond_iov(struct http_exchange *x, int status, struct iovec *iov, int n)
{
	struct xchg *g = of(x);

	assert(!g->started);
	g->started = true;
	TRY(check_status(status));
	g->ended = true;
	g->status = status;
	size_t total = iov_total(iov, n);

	if (!g->head && !http_bodyless(status))
		x->sent = total;
	return g->ops->respond(g, iov, n, total);
}

struct error *http_start(struct http_exchange *x, int status)
{
	return http_start_length(x, status, -1);
}

struct error *http_start_length(struct http_exchange *x, int status, int64_t length)
{
	struct xchg *g = of(x);

	assert(!g->started);
	g->started = true;
	TRY(check_status(status));
	g->status = status;
	g->length = length;
	return g->ops->start(g);
}

struct error *http_write(struct http_exchange *x, struct str data)
{
	struct iovec v = {(void *)(uintptr_t)data.p, data.n};

	return http_writev(x, &v, 1);
}

struct error *http_writev(struct http_exchange *x, struct iovec *iov, int n)
{
	struct xchg *g = of(x);
	size_t total = iov_total(iov, n);

	assert(g->started && !g->ended);
	if (!total || g->head || http_bodyless(g->status))
		return NULL;
	if (g->length >= 0 && x->sent + total > (uint64_t)g->length)
		return error_sys(EPROTO, "HTTP response longer than its Content-Length");
	x->sent += total;
	return g->ops->writev(g, iov, n, total);
}

struct error *http_end(struct http_exchange *x)
{
	struct xchg *g = of(x);

	assert(g->started && !g->ended);
	if (g->length >= 0 && x->sent != (uint64_t)g->length && !g->head && !http_bodyless(g->status))
		return error_sys(EPROTO, "HTTP response shorter than its Content-Length");
	g->ended = true;
	return g->ops->end(g);
}

bool http_started(const struct http_exchange *x)
{
	return of(x)->started;
}

struct error *http_upgrade(struct http_exchange *x, const char *protocol, struct stream **out)
{
	struct xchg *g = of(x);

	*out = NULL;
	if (!g->ops->upgrade)
		return error_sys(ENOTSUP, "HTTP/2 has no Upgrade");
	assert(!g->started);
	g->started = g->ended = true;
	g->status = 101;
	struct error *e = g->ops->upgrade(g, protocol, out);

	/* Refused before anything was sent: the handler may still answer. */
	if (e && e->status)
		g->started = g->ended = false;
	return e;
}

bool http_peer_gone(struct http_exchange *x)
{
	return of(x)->ops->gone(of(x));
}

void http_close(struct http_exchange *x)
{
	struct conn *c = (struct conn *)(uintptr_t)x->connection;

	if (c && c->drain)
		c->drain(c);
}

/* ---- targets ---- */

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

struct str http_unescape(struct arena *a, struct str s, bool plus)
{
	size_t n = 0;

	/* Most have nothing to decode. */
	if (str_index(s, '%') < 0 && !(plus && str_index(s, '+') >= 0))
		return s;
	char *p = arena_bytes(a, s.n + 1);

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '%' && i + 2 < s.n && hex(s.p[i + 1]) >= 0 && hex(s.p[i + 2]) >= 0) {
			p[n++] = (char)(hex(s.p[i + 1]) * 16 + hex(s.p[i + 2]));
			i += 2;
		} else {
			p[n++] = plus && s.p[i] == '+' ? ' ' : s.p[i];
		}
	}
	p[n] = 0;
	return str_of(p, n);
}

struct str http_escape(struct arena *a, struct str s)
{
	static const char digits[] = "0123456789ABCDEF";
	char *p = arena_bytes(a, s.n * 3 + 1);
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
		    c == '.' || c == '~') {
			p[n++] = (char)c;
		} else {
			p[n++] = '%';
			p[n++] = digits[c >> 4];
			p[n++] = digits[c & 15];
		}
	}
	p[n] = 0;
	return str_of(p, n);
}

struct str http_query_get(struct arena *a, struct str query, const char *name, bool *present)
{
	if (present)
		*present = false;
	for (struct str rest = query; rest.p;) {
		struct str pair = str_cut(&rest, '&');
		struct str key = str_cut(&pair, '=');

		if (!str_eqz(http_unescape(a, key, true), name))
			continue;
		if (present)
			*present = true;
		return pair.p ? http_unescape(a, pair, true) : STR("");
	}
	return STR_NULL;
}
