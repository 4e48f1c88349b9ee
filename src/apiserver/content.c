/* Documents as Go's http.ServeContent gives them out: conditional requests and ranges (RFC 9110 sections 13 and 14).
 */
#include <time.h>
#include "apiserver/discovery.h"

#define HTTP_DATE "%a, %d %b %Y %H:%M:%S GMT" /* RFC 9110 section 5.6.7 */

struct str http_date_at(struct arena *a, int64_t wall)
{
	time_t at = (time_t)(wall / 1000000000);
	struct tm tm;
	char text[64];

	gmtime_r(&at, &tm);
	return arena_str(a, str_of(text, strftime(text, sizeof text, HTTP_DATE, &tm)));
}

/* The three forms of the RFC. */
static bool date_parse(struct arena *a, struct str text, time_t *out)
{
	static const char *const forms[] = {HTTP_DATE, "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"};
	const char *z = arena_strz(a, text);

	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		struct tm tm = {0};
		const char *end = strptime(z, forms[i], &tm);

		if (end && !*end) {
			*out = timegm(&tm);
			return true;
		}
	}
	return false;
}

static bool is_read(const struct request *rq)
{
	return str_eqz(rq->x->method, "GET") || str_eqz(rq->x->method, "HEAD");
}

/* Of a list of entity tags, or "*"; strong: weak ones are none. */
static bool tag_among(struct str list, struct str etag, bool strong)
{
	while (list.n) {
		struct str one = str_trim(str_cut(&list, ','));

		if (str_eqz(one, "*"))
			return true;
		if (!strong && str_has_prefix(one, STR("W/")))
			one = str_sub(one, 2, one.n);
		if (etag.n && str_eq(one, etag))
			return true;
	}
	return false;
}

bool etag_matches(struct request *rq, struct str etag)
{
	return tag_among(http_header_get(&rq->x->headers, "if-none-match"), etag, false);
}

/* 0, or the answer that takes the place of the document: 304, 412. */
static int precondition(struct request *rq, const struct content *c)
{
	const struct http_headers *h = &rq->x->headers;
	struct str match = http_header_get(h, "if-match"), none = http_header_get(h, "if-none-match");
	time_t modified = (time_t)(c->modified_ns / 1000000000), at;

	if (match.n) {
		if (!tag_among(match, c->etag, true))
			return 412;
	} else if (date_parse(rq->a, http_header_get(h, "if-unmodified-since"), &at) && modified > at) {
		return 412;
	}
	if (none.n)
		return !tag_among(none, c->etag, false) ? 0 : is_read(rq) ? 304 : 412;
	return is_read(rq) && date_parse(rq->a, http_header_get(h, "if-modified-since"), &at) && modified <= at ? 304
														: 0;
}

/* Whether the range is of this document, not of one before it. */
static bool range_holds(struct request *rq, const struct content *c)
{
	struct str cond = http_header_get(&rq->x->headers, "if-range");
	time_t at;

	if (!cond.n || !is_read(rq))
		return true;
	if (cond.p[0] == '"')
		return tag_among(cond, c->etag, true);
	return date_parse(rq->a, cond, &at) && at == (time_t)(c->modified_ns / 1000000000);
}

enum range { RANGE_WHOLE, RANGE_PARTS, RANGE_BEYOND, RANGE_BAD };

struct span {
	size_t from, n;
};

/* One of the header's, as `1-2`, `1-` or `-2` (RFC 9110 section 14.1.2). */
static enum range range_one(struct str r, int64_t size, struct span *out)
{
	struct str first;
	int64_t a = 0, b = 0;

	if (str_index(r, '-') < 0)
		return RANGE_BAD;
	first = str_trim(str_cut(&r, '-'));
	r = str_trim(r);
	if ((first.n && (!str_to_i64(first, &a) || a < 0)) || (r.n && (!str_to_i64(r, &b) || b < 0)) ||
	    (!first.n && !r.n) || (first.n && r.n && a > b))
		return RANGE_BAD;
	if (!first.n) { /* the last b bytes */
		a = b > size ? 0 : size - b;
		b = size - 1;
	} else if (a >= size) {
		return RANGE_BEYOND;
	} else if (!r.n || b >= size) {
		b = size - 1;
	}
	*out = (struct span){(size_t)a, (size_t)(b - a + 1)};
	return RANGE_PARTS;
}

/* Those that lie in the document, in the order asked. What together is longer than the document is answered with it whole,
 * so that an answer has a limit. */
static enum range ranges_of(struct request *rq, const struct content *c, struct span **spans, size_t *n)
{
	struct str list = http_header_get(&rq->x->headers, "range");
	bool beyond = false;
	size_t sum = 0, most = 1;

	*n = 0;
	if (!list.n || !range_holds(rq, c))
		return RANGE_WHOLE;
	if (!str_has_prefix(list, STR("bytes=")))
		return RANGE_BAD;
	list = str_sub(list, 6, list.n);
	for (size_t i = 0; i < list.n; i++)
		most += list.p[i] == ',';
	*spans = arena_array(rq->a, struct span, most);
	while (list.n) {
		struct str one = str_trim(str_cut(&list, ','));
		enum range range = one.n ? range_one(one, (int64_t)c->body.n, &(*spans)[*n]) : RANGE_WHOLE;

		if (range == RANGE_BAD)
			return range;
		beyond |= range == RANGE_BEYOND;
		if (range == RANGE_PARTS)
			sum += (*spans)[(*n)++].n;
	}
	if (!*n)
		return beyond ? RANGE_BEYOND : RANGE_WHOLE;
	return sum > c->body.n ? RANGE_WHOLE : RANGE_PARTS;
}

static struct str range_text(struct arena *a, struct span s, const struct content *c)
{
	return arena_printf(a, "bytes %zu-%zu/%zu", s.from, s.from + s.n - 1, c->body.n);
}

/* multipart/byteranges (RFC 9110 section 14.6). */
static struct str multipart(struct arena *a, const struct content *c, const struct span *spans, size_t n, const char *boundary)
{
	struct buf out buf_cleanup = {0};

	for (size_t i = 0; i < n; i++) {
		struct str range = range_text(a, spans[i], c);

		buf_printf(&out, "%s--%s\r\nContent-Range: %.*s\r\nContent-Type: %.*s\r\n\r\n", i ? "\r\n" : "", boundary,
			   STR_ARG(range), STR_ARG(c->type));
		buf_str(&out, str_sub(c->body, spans[i].from, spans[i].from + spans[i].n));
	}
	buf_printf(&out, "\r\n--%s--\r\n", boundary);
	return arena_str(a, buf_view(&out));
}

static struct error *no_range(struct request *rq, const struct content *c, enum range why)
{
	if (why == RANGE_BEYOND)
		http_set_header(rq->x, "content-range", arena_printf(rq->a, "bytes */%zu", c->body.n));
	return respond_text(rq, 416,
			    why == RANGE_BEYOND ? STR("invalid range: failed to overlap") : STR("invalid range"));
}

struct error *respond_content(struct request *rq, const struct content *c)
{
	int status = precondition(rq, c);
	struct str body = c->body, type = c->type;
	struct span *spans;
	size_t n = 0;
	enum range range = status ? RANGE_WHOLE : ranges_of(rq, c, &spans, &n);

	if (range == RANGE_BEYOND || range == RANGE_BAD)
		return no_range(rq, c, range);
	if (c->etag.n)
		http_set_header(rq->x, "etag", c->etag);
	if (status != 304 || !c->etag.n)
		http_set_header(rq->x, "last-modified", http_date_at(rq->a, c->modified_ns));
	if (!status && range == RANGE_WHOLE) {
		http_set_header(rq->x, "accept-ranges", STR("bytes"));
		if (c->compressed)
			return respond_bytes(rq, 200, c->type, body);
	}
	rq->status = status ? status : range == RANGE_PARTS ? 206 : 200;
	respond_headers(rq);
	if (range == RANGE_PARTS) {
		http_set_header(rq->x, "accept-ranges", STR("bytes"));
		if (n == 1) {
			http_set_header(rq->x, "content-range", range_text(rq->a, spans[0], c));
			body = str_sub(body, spans[0].from, spans[0].from + spans[0].n);
		} else {
			char boundary[37];

			random_uuid(boundary);
			type = arena_printf(rq->a, "multipart/byteranges; boundary=%s", boundary);
			body = multipart(rq->a, c, spans, n, boundary);
		}
	}
	if (status != 304 && (!status || c->etag.n)) /* what has no tag has no type before it is read */
		http_set_header(rq->x, "content-type", type);
	return http_respond(rq->x, rq->status, status ? STR_NULL : body);
}
