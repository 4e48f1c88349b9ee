/* Documents as Go's http.ServeContent gives them out: conditional requests and one range (RFC 9110 sections 13 and 14).
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

enum range { RANGE_WHOLE, RANGE_PART, RANGE_BEYOND, RANGE_BAD };

/* Several ranges are answered with the whole, which a server may. */
static enum range range_of(struct request *rq, const struct content *c, size_t *from, size_t *n)
{
	struct str r = http_header_get(&rq->x->headers, "range"), first;
	int64_t a = 0, b = 0, size = (int64_t)c->body.n;

	if (!r.n || !range_holds(rq, c))
		return RANGE_WHOLE;
	if (!str_has_prefix(r, STR("bytes=")))
		return RANGE_BAD;
	r = str_trim(str_sub(r, 6, r.n));
	if (!r.n || str_index(r, ',') >= 0)
		return RANGE_WHOLE;
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
	*from = (size_t)a;
	*n = (size_t)(b - a + 1);
	return RANGE_PART;
}

static struct error *no_range(struct request *rq, const struct content *c, enum range why)
{
	if (why == RANGE_BEYOND)
		http_set_header(rq->x, "content-range", arena_printf(rq->a, "bytes */%zu", c->body.n));
	rq->status = 416;
	respond_headers(rq);
	http_set_header(rq->x, "content-type", STR("text/plain; charset=utf-8"));
	http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	return http_respond(rq->x, 416,
			    why == RANGE_BEYOND ? STR("invalid range: failed to overlap\n") : STR("invalid range\n"));
}

struct error *respond_content(struct request *rq, const struct content *c)
{
	int status = precondition(rq, c);
	struct str body = c->body;
	size_t from = 0, n = 0;
	enum range range = status ? RANGE_WHOLE : range_of(rq, c, &from, &n);

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
	rq->status = status ? status : range == RANGE_PART ? 206 : 200;
	respond_headers(rq);
	if (status != 304 && (!status || c->etag.n)) /* what has no tag has no type before it is read */
		http_set_header(rq->x, "content-type", c->type);
	if (status)
		return http_respond(rq->x, status, STR_NULL);
	if (range == RANGE_PART) {
		http_set_header(rq->x, "accept-ranges", STR("bytes"));
		http_set_header(rq->x, "content-range",
				arena_printf(rq->a, "bytes %zu-%zu/%zu", from, from + n - 1, c->body.n));
		body = str_sub(body, from, from + n);
	}
	return http_respond(rq->x, rq->status, body);
}
