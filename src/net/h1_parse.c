/*
 * HTTP/1.1 messages (RFC 9112), as forgiving as Go's net/http and no more: lines may end with a bare LF, fields may be
 * folded, chunks overrule a length. What is passed on is written anew, so nothing is smuggled through.
 */
#include <errno.h>
#include <stdlib.h>

#include "net/internal.h"

#define CHUNK_LINE_MAX 4096u
#define EXCESS_MAX 16384u
#define TRAILER_MAX (64u << 10)

size_t h1_head_end(const char *p, size_t n, size_t seen)
{
	const char *lf, *end = p + n;

	for (const char *at = p + (seen > 2 ? seen - 2 : 0);
	     at < end && (lf = memchr(at, '\n', (size_t)(end - at))) != NULL; at = lf + 1) {
		if (lf == p || (lf == p + 1 && *p == '\r'))
			return (size_t)(lf - p) + 1; /* no request, which its parser says */
		if (lf + 1 < end && lf[1] == '\n')
			return (size_t)(lf - p) + 2;
		if (lf + 2 < end && lf[1] == '\r' && lf[2] == '\n')
			return (size_t)(lf - p) + 3;
	}
	return 0;
}

static struct error *bad(const char *what)
{
	return error_status(400, "BadRequest", "malformed HTTP message: %s", what);
}

/* The next line without its end; false when there is none or it has a CR or NUL inside. */
static bool next_line(struct str *rest, struct str *line)
{
	const char *lf = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;

	if (!lf)
		return false;
	*line = str_of(rest->p, (size_t)(lf - rest->p) - (lf > rest->p && lf[-1] == '\r'));
	*rest = str_sub(*rest, (size_t)(lf - rest->p) + 1, rest->n);
	return !(line->n && (memchr(line->p, '\r', line->n) || memchr(line->p, 0, line->n)));
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct str trim_blanks(struct str s)
{
	while (s.n && is_blank(s.p[0]))
		s = str_sub(s, 1, s.n);
	while (s.n && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* Lines that begin with a blank go on with the value before them, behind one space. */
static bool unfold(struct arena *a, struct str *rest, struct str *value)
{
	struct str line;

	while (rest->n && is_blank(rest->p[0])) {
		if (!next_line(rest, &line))
			return false;
		line = trim_blanks(line);
		*value = arena_printf(a, "%.*s %.*s", STR_ARG(*value), STR_ARG(line));
	}
	return true;
}

struct error *h1_parse_fields(struct arena *a, char *p, size_t n, header_list *out)
{
	struct str rest = str_of(p, n), line;

	for (;;) {
		if (!next_line(&rest, &line))
			return bad("line end");
		if (!line.n)
			return rest.n ? bad("bytes behind the head") : NULL;
		ptrdiff_t colon = str_index(line, ':');
		struct str name = str_sub(line, 0, colon > 0 ? (size_t)colon : 0);

		if (!http_is_token(name))
			return bad("field name");
		struct str value = trim_blanks(str_sub(line, (size_t)colon + 1, line.n));

		if (!unfold(a, &rest, &value))
			return bad("line end");
		if (!http_value_ok(value))
			return bad("field value");
		if (out->n >= HEADERS_MAX)
			return error_status(431, "RequestHeaderFieldsTooLarge", "more than %u header fields", HEADERS_MAX);
		for (size_t i = 0; i < name.n; i++) {
			char *c = (char *)(uintptr_t)&name.p[i];

			if (*c >= 'A' && *c <= 'Z')
				*c = (char)(*c + 32);
		}
		*arena_push(a, out) = (struct http_header){name, value};
	}
}

/* Is `word` one of a comma-separated list? */
static bool list_has(struct str list, const char *word)
{
	for (struct str rest = list; rest.p;)
		if (str_eq_nocase(str_trim(str_cut(&rest, ',')), str_from(word)))
			return true;
	return false;
}

/* A word between blanks and commas, as Go looks for the one it knows in Expect. */
static bool has_word(struct str s, struct str word)
{
	for (size_t i = 0; i + word.n <= s.n; i++) {
		size_t end = i + word.n;

		if ((!i || is_blank(s.p[i - 1]) || s.p[i - 1] == ',') &&
		    (end == s.n || is_blank(s.p[end]) || s.p[end] == ',') && str_eq_nocase(str_sub(s, i, end), word))
			return true;
	}
	return false;
}

static struct error *read_framing(struct h1_head *h)
{
	bool expects = false, wrong_trailer = false;
	int te = 0, connections = 0;

	h->content_length = -1;
	for (uint32_t i = 0; i < h->headers.n; i++) {
		struct str name = h->headers.v[i].name, v = h->headers.v[i].value;

		if (str_eq(name, STR("content-length"))) {
			uint64_t len;

			/* str_to_u64 takes digits only; a list, even of equal numbers, is refused. */
			if (!v.n || v.p[0] == '+' || !str_to_u64(v, &len) || len > INT64_MAX)
				return bad("Content-Length");
			if (h->content_length >= 0 && (uint64_t)h->content_length != len)
				return bad("two different Content-Length fields");
			h->content_length = (int64_t)len;
		} else if (str_eq(name, STR("transfer-encoding"))) {
			if (h->minor == 0)
				continue;
			if (te++ || !str_eq_nocase(v, STR("chunked")))
				return error_status(501, "NotImplemented", "Transfer-Encoding other than chunked");
			h->chunked = true;
		} else if (str_eq(name, STR("connection"))) {
			h->close = h->close || list_has(v, "close");
			/* of requests Go asks the first only */
			h->keep_alive = h->keep_alive || ((!h->request || !connections++) && list_has(v, "keep-alive"));
			h->upgrade = h->upgrade || list_has(v, "upgrade");
		} else if (str_eq(name, STR("host"))) {
			if (h->has_host)
				return bad("two Host fields");
			h->has_host = true;
			h->host = v;
		} else if (str_eq(name, STR("trailer"))) {
			wrong_trailer = wrong_trailer || list_has(v, "transfer-encoding") || list_has(v, "trailer") || list_has(v, "content-length");
		} else if (str_eq(name, STR("expect"))) {
			if (expects || !v.n)
				continue;
			expects = true;
			h->expect_continue = has_word(v, STR("100-continue"));
		}
	}
	if (h->chunked && wrong_trailer)
		return bad("Trailer");
	if (h->chunked)
		h->content_length = -1;
	return expects && !h->expect_continue ? error_status(417, "ExpectationFailed", "Expect other than 100-continue")
					      : NULL;
}

static bool parse_version(struct str s, int *minor)
{
	if (s.n != 8 || memcmp(s.p, "HTTP/1.", 7) != 0 || s.p[7] < '0' || s.p[7] > '9')
		return false;
	*minor = s.p[7] == '0' ? 0 : 1;
	return true;
}

/* HTTP/D.D of any major version. */
static bool is_version(struct str s)
{
	return s.n == 8 && memcmp(s.p, "HTTP/", 5) == 0 && s.p[5] >= '0' && s.p[5] <= '9' && s.p[6] == '.' &&
	       s.p[7] >= '0' && s.p[7] <= '9';
}

struct error *h1_parse_request(struct arena *a, char *p, size_t n, struct h1_head *h)
{
	struct str rest = str_of(p, n), line;

	*h = (struct h1_head){.request = true, .content_length = -1};
	if (!next_line(&rest, &line))
		return bad("request line");
	ptrdiff_t s1 = str_index(line, ' '), s2 = str_rindex(line, ' ');

	if (s1 <= 0 || s2 == s1)
		return bad("request line");
	h->method = str_sub(line, 0, (size_t)s1);
	h->target = str_sub(line, (size_t)s1 + 1, (size_t)s2);
	struct str version = str_sub(line, (size_t)s2 + 1, line.n);

	if (!http_is_token(h->method))
		return bad("request line");
	if (!parse_version(version, &h->minor))
		return is_version(version) ? error_status(505, "HTTPVersionNotSupported", "HTTP version")
					      : bad("request line");
	TRY(h1_parse_fields(a, (char *)(uintptr_t)rest.p, rest.n, &h->headers));
	TRY(read_framing(h));
	if (h->minor >= 1 && !h->has_host && !str_eq(h->method, STR("CONNECT")))
		return bad("no Host field");
	if (!http_host_ok(h->host))
		return bad("Host");
	if (!h1_target_parse(h))
		return bad("request target");
	if (h->minor == 0)
		h->expect_continue = false;
	return NULL;
}

struct error *h1_parse_response(struct arena *a, char *p, size_t n, struct h1_head *h)
{
	struct str rest = str_of(p, n), line, version, code;
	int64_t status;

	*h = (struct h1_head){.content_length = -1};
	/* As Go's client reads it: blanks before the status, which has three letters that make a number. */
	if (!next_line(&rest, &line))
		return error_sys(EPROTO, "malformed HTTP status line");
	version = str_cut(&line, ' ');
	while (line.n && line.p[0] == ' ')
		line = str_sub(line, 1, line.n);
	code = str_cut(&line, ' ');
	if (!is_version(version) || code.n != 3 || !str_to_i64(code, &status) || status < 0)
		return error_sys(EPROTO, "malformed HTTP status line");
	h->minor = memcmp(version.p, "HTTP/1.1", 8) >= 0;
	h->status = (int)status;
	h->reason = line;
	struct error *e = h1_parse_fields(a, (char *)(uintptr_t)rest.p, rest.n, &h->headers);

	if (!e)
		e = read_framing(h);
	if (e) {
		/* The status of these errors is meant for clients of ours, not for us. */
		e->status = 0;
		e->sys = EPROTO;
	}
	return e;
}

/* ---- buffered reading ---- */

struct error *rbuf_fill(struct rbuf *b, size_t limit, bool *eof)
{
	size_t got;

	*eof = false;
	if (b->off == b->n) {
		/* Nothing buffered: wait with the thread's buffer, so that idle connections hold none. */
		char *scratch = net_scratch();

		free(b->p);
		b->p = NULL;
		b->off = b->n = b->cap = 0;
		TRY(stream_read(b->s, scratch, 16384, &got));
		if (!got) {
			*eof = true;
			return NULL;
		}
		b->cap = got < 1024 ? 1024 : got;
		b->p = xmalloc(b->cap);
		memcpy(b->p, scratch, got);
		b->n = got;
		return NULL;
	}
	if (b->off) {
		memmove(b->p, b->p + b->off, b->n - b->off);
		b->n -= b->off;
		b->off = 0;
	}
	if (b->n == b->cap) {
		if (b->n >= limit)
			return error_status(431, "RequestHeaderFieldsTooLarge", "HTTP head larger than %zu bytes", limit);
		b->cap = b->cap * 2 < limit ? b->cap * 2 : limit;
		b->p = xrealloc(b->p, b->cap);
	}
	TRY(stream_read(b->s, b->p + b->n, b->cap - b->n, &got));
	b->n += got;
	*eof = got == 0;
	return NULL;
}

void rbuf_free(struct rbuf *b)
{
	free(b->p);
	*b = (struct rbuf){.s = b->s};
}

/* ---- bodies ---- */

static struct error *cut_short(void)
{
	return error_sys(EPIPE, "HTTP body ended early");
}

/* Bytes from the buffer or, when it is empty, from the stream. */
static struct error *take(struct rbuf *in, void *p, size_t n, size_t *got)
{
	size_t have = in->n - in->off;

	if (have) {
		*got = have < n ? have : n;
		memcpy(p, in->p + in->off, *got);
		in->off += *got;
		return NULL;
	}
	return stream_read(in->s, p, n, got);
}

static struct error *bad_chunk(const char *what)
{
	return error_sys(EPROTO, "malformed HTTP body: %s", what);
}

/* A line with its CRLF at the front of the buffer; *len counts both. */
static struct error *buffered_line(struct rbuf *in, size_t max, size_t *len)
{
	for (;;) {
		const char *start = in->p + in->off, *lf = in->n > in->off ? memchr(start, '\n', in->n - in->off) : NULL;
		bool eof;

		if (lf) {
			*len = (size_t)(lf - start) + 1;
			return *len >= 2 && lf[-1] == '\r' && *len <= max && memchr(start, '\r', *len) == lf - 1
				       ? NULL
				       : bad_chunk("line end");
		}
		if (in->n - in->off > max)
			return bad_chunk("chunk line too long");
		TRY(rbuf_fill(in, max + SCRATCH, &eof));
		if (eof)
			return cut_short();
	}
}

static struct error *chunk_size(struct h1_body *b, struct rbuf *in)
{
	size_t len, i = 0;
	uint64_t size = 0;

	TRY(buffered_line(in, CHUNK_LINE_MAX, &len));
	const char *p = in->p + in->off;

	for (; i < len; i++) {
		int d = p[i] >= '0' && p[i] <= '9'   ? p[i] - '0'
			: p[i] >= 'a' && p[i] <= 'f' ? p[i] - 'a' + 10
			: p[i] >= 'A' && p[i] <= 'F' ? p[i] - 'A' + 10
						     : -1;

		if (d < 0)
			break;
		if (i >= 16)
			return bad_chunk("chunk size");
		size = size * 16 + (uint64_t)d;
	}
	/* Extensions are allowed and mean nothing; so are blanks at the end. */
	if (i == 0 || (p[i] != ';' && trim_blanks(str_of(p + i, len - 2 - i)).n))
		return bad_chunk("chunk size");
	/* Bytes one at a time may be, extensions for nothing not without end: Go's measure. */
	b->excess += len + 2;
	b->excess -= b->excess < 16 || (b->excess - 16) / 2 < size ? b->excess : 16 + 2 * size;
	if (b->excess > EXCESS_MAX)
		return bad_chunk("more beside the data than data");
	in->off += len;
	b->left = size;
	b->in_chunk = true;
	return NULL;
}

static struct error *trailers(struct h1_body *b, struct rbuf *in)
{
	/* Lines up to the empty one. */
	buf_cleanup struct buf all = {0};
	size_t len;

	do {
		TRY(buffered_line(in, TRAILER_MAX, &len));
		buf_append(&all, in->p + in->off, len);
		in->off += len;
		if (all.n > TRAILER_MAX)
			return bad_chunk("trailers too long");
	} while (len > 2);
	struct arena own = {0}, *a = b->ta ? b->ta : &own;
	header_list dropped = {0};
	struct error *e = h1_parse_fields(a, arena_strz(a, buf_view(&all)), all.n, b->ta ? &b->trailers : &dropped);

	arena_free(&own);
	if (e) {
		error_free(e);
		return bad_chunk("trailer");
	}
	return NULL;
}

struct error *h1_body_read(struct h1_body *b, struct rbuf *in, void *p, size_t n, size_t *got)
{
	*got = 0;
	if (b->done || !n)
		return NULL;
	switch (b->kind) {
	case H1_NONE:
		b->done = true;
		return NULL;
	case H1_UNTIL_CLOSE:
		TRY(take(in, p, n, got));
		b->done = *got == 0;
		return NULL;
	case H1_LENGTH:
		if (b->left) {
			TRY(take(in, p, b->left < n ? (size_t)b->left : n, got));
			if (!*got)
				return cut_short();
			b->left -= *got;
		}
		b->done = b->left == 0;
		return NULL;
	case H1_CHUNKED:
		break;
	}
	if (!b->in_chunk) {
		TRY(chunk_size(b, in));
		if (!b->left) {
			TRY(trailers(b, in));
			b->done = true;
			return NULL;
		}
	}
	TRY(take(in, p, b->left < n ? (size_t)b->left : n, got));
	if (!*got)
		return cut_short();
	b->left -= *got;
	if (!b->left) {
		size_t len;

		TRY(buffered_line(in, CHUNK_LINE_MAX, &len));
		if (len != 2)
			return bad_chunk("chunk end");
		in->off += 2;
		b->in_chunk = false;
	}
	return NULL;
}

/* ---- upgraded streams ---- */

struct unbuffered {
	struct stream s;
	struct stream *under;
	char *p;
	size_t off, n;
};

static struct error *ub_read(struct stream *s, void *p, size_t n, size_t *got)
{
	struct unbuffered *u = (struct unbuffered *)s;
	size_t have = u->n - u->off;

	if (!have)
		return stream_read(u->under, p, n, got);
	*got = have < n ? have : n;
	memcpy(p, u->p + u->off, *got);
	u->off += *got;
	if (u->off == u->n) {
		free(u->p);
		u->p = NULL;
	}
	return NULL;
}

static struct error *ub_writev(struct stream *s, struct iovec *iov, int n)
{
	return stream_writev(((struct unbuffered *)s)->under, iov, n);
}

static struct error *ub_shutdown(struct stream *s)
{
	return stream_shutdown(((struct unbuffered *)s)->under);
}

static void ub_close(struct stream *s)
{
	struct unbuffered *u = (struct unbuffered *)s;

	stream_close(u->under);
	free(u->p);
	free(u);
}

static const struct stream_ops ub_ops = {ub_read, ub_writev, ub_shutdown, ub_close};

struct stream *h1_unbuffer_under(struct stream *s)
{
	return s->ops == &ub_ops ? ((struct unbuffered *)s)->under : NULL;
}

struct stream *h1_unbuffer(struct rbuf *in, struct stream *s)
{
	if (in->off == in->n) {
		rbuf_free(in);
		return s;
	}
	struct unbuffered *u = xmalloc(sizeof *u);

	*u = (struct unbuffered){.s.ops = &ub_ops, .under = s, .p = in->p, .off = in->off, .n = in->n};
	in->p = NULL;
	in->off = in->n = in->cap = 0;
	return &u->s;
}
