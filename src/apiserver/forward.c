/* Requests passed on to a backend, and their answers. */
#include <arpa/inet.h>
#include "apiserver/authn.h"
#include "apiserver/forward.h"
#include "apiserver/metrics.h"
#include "apiserver/proxy_html.h"

#define HTML_MAX (8u << 20)    /* longer pages are passed on as they are */
#define SNIFFED_MAX 512u       /* bytes of an answer without a type that are looked at */
#define REFUSAL_MAX (1u << 20) /* of what a backend says instead of switching protocols */
#define PIECE (32 * 1024)

/* ---- headers ---- */

static bool listed(struct str list, struct str name)
{
	while (list.p && list.n)
		if (str_eq_nocase(str_trim(str_cut(&list, ',')), name))
			return true;
	return false;
}

/* Of the connection that it came over (RFC 9110, section 7.6.1), and what the server itself writes. */
static bool hop_header(const struct http_headers *all, struct str n)
{
	static const char *const hop[] = {"connection",
					  "keep-alive",
					  "proxy-authenticate",
					  "proxy-authorization",
					  "proxy-connection",
					  "te",
					  "trailer",
					  "transfer-encoding",
					  "upgrade",
					  "content-length",
					  "date"};

	for (size_t i = 0; i < sizeof hop / sizeof *hop; i++)
		if (str_eqz(n, hop[i]))
			return true;
	for (size_t i = 0; i < all->n; i++)
		if (str_eqz(all->v[i].name, "connection") && listed(all->v[i].value, n))
			return true;
	return false;
}

/* Who the client is, which is for this server only, and what this server says of it. */
static bool own_business(struct request *rq, struct str n, bool aggregated)
{
	if (str_eqz(n, "authorization") || str_eqz(n, "host") || str_eqz(n, "content-length") ||
	    str_eqz(n, "x-forwarded-for") || str_has_prefix(n, STR("impersonate-")) ||
	    authn_front_proxy_header(rq->s, n))
		return true;
	return aggregated && (str_eqz(n, "x-forwarded-host") || str_eqz(n, "x-forwarded-proto") ||
			      str_eqz(n, "x-forwarded-uri") || str_eqz(n, "audit-id"));
}

/* A bearer token in a WebSocket subprotocol stays here. */
static struct str protocols_without_token(struct request *rq, struct str rest)
{
	struct buf b buf_cleanup = {0};

	while (rest.p && rest.n) {
		struct str tok = str_trim(str_cut(&rest, ','));

		if (str_has_prefix(tok, STR("base64url.bearer.authorization.k8s.io.")))
			continue;
		if (b.n)
			buf_puts(&b, ", ");
		buf_str(&b, tok);
	}
	return arena_str(rq->a, buf_view(&b));
}

/* The client's chain of proxies with the client behind it. */
static struct str forwarded_for(struct request *rq)
{
	const struct http_headers *h = &rq->x->headers;
	const struct sockaddr_storage *r = &rq->x->remote;
	char text[INET6_ADDRSTRLEN] = "";
	struct buf b buf_cleanup = {0};

	for (size_t i = 0; i < h->n; i++)
		if (str_eqz(h->v[i].name, "x-forwarded-for"))
			buf_printf(&b, "%.*s, ", STR_ARG(h->v[i].value));
	if (r->ss_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)r)->sin_addr, text, sizeof text);
	else if (r->ss_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)r)->sin6_addr, text, sizeof text);
	buf_puts(&b, text);
	return arena_str(rq->a, buf_view(&b));
}

static struct http_header *request_headers(struct request *rq, const struct forward *f, bool upgrade, size_t *n)
{
	const struct http_headers *h = &rq->x->headers;
	struct http_header *v = arena_array(rq->a, struct http_header, h->n + f->n_more + 6);

	*n = 0;
	for (size_t i = 0; i < h->n; i++) {
		struct str name = h->v[i].name, value = h->v[i].value;

		if (own_business(rq, name, f->aggregated) || (!upgrade && hop_header(h, name)))
			continue;
		if (str_eqz(name, "sec-websocket-protocol"))
			value = protocols_without_token(rq, value);
		if (!upgrade && f->prefix.n && str_eqz(name, "accept-encoding"))
			value = STR("identity"); /* links are rewritten in clear text */
		v[(*n)++] = (struct http_header){name, value};
	}
	for (size_t i = 0; i < h->n && !upgrade; i++)
		if (str_eqz(h->v[i].name, "te") && listed(h->v[i].value, STR("trailers"))) {
			v[(*n)++] = (struct http_header){STR("te"), STR("trailers")};
			break;
		}
	for (size_t i = 0; i < f->n_more; i++)
		v[(*n)++] = f->more[i];
	v[(*n)++] = (struct http_header){STR("x-forwarded-for"), forwarded_for(rq)};
	if (f->aggregated)
		v[(*n)++] = (struct http_header){STR("audit-id"), rq->audit_id};
	if (upgrade)
		return v;
	if (f->aggregated) {
		struct str path = f->target;

		v[(*n)++] = (struct http_header){STR("x-forwarded-host"), f->host};
		v[(*n)++] = (struct http_header){STR("x-forwarded-proto"), STR("https")};
		v[(*n)++] = (struct http_header){STR("x-forwarded-uri"), str_cut(&path, '?')};
	} else {
		v[(*n)++] = (struct http_header){STR("x-forwarded-uri"), rq->x->path};
	}
	return v;
}

static void copy_header(struct request *rq, const struct http_header *h)
{
	http_add_header(rq->x, arena_strz(rq->a, h->name), h->value);
}

/* ---- upgrades ---- */

/* Of the backend's answer everything comes from there: nothing stands before it that this server says of its own. */
static void answer_is_theirs(struct request *rq)
{
	static const char *const own[] = {"x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid",
					  "strict-transport-security"};

	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		http_unset_header(rq->x, own[i]);
}

bool forward_wants_upgrade(struct request *rq)
{
	const struct http_headers *h = &rq->x->headers;

	for (size_t i = 0; i < h->n; i++)
		for (size_t k = 0; str_eqz(h->v[i].name, "connection") && k + 7 <= h->v[i].value.n; k++)
			if (str_eq_nocase(str_sub(h->v[i].value, k, k + 7), STR("upgrade")))
				return true;
	return false;
}

/* The backend would not. An API server's refusal is the client's answer; of what a kubelet says an error is made. */
static struct error *refused(struct request *rq, const struct forward *f, struct http_response *resp)
{
	struct str body;
	struct error *e = http_response_all(resp, rq->a, REFUSAL_MAX, &body);

	http_response_close(resp);
	TRY(e);
	if (resp->status == 101)
		return err_internal("the backend answered 101 without a stream");
	if (!f->aggregated)
		return error_status(resp->status >= 400 ? resp->status : 502,
				    resp->status == 400   ? "BadRequest"
				    : resp->status == 403 ? "Forbidden"
				    : resp->status == 404 ? "NotFound"
							  : "InternalError",
				    "unable to upgrade connection: %.*s", STR_ARG(str_trim(body)));
	if (resp->status < 400)
		return err_unavailable("invalid upgrade response: status code %d", resp->status);
	answer_is_theirs(rq);
	for (size_t i = 0; i < resp->headers.n; i++)
		if (!hop_header(&resp->headers, resp->headers.v[i].name))
			copy_header(rq, &resp->headers.v[i]);
	rq->status = resp->status;
	return http_respond(rq->x, resp->status, body);
}

static struct error *upgrade(struct request *rq, const struct forward *f)
{
	struct http_response resp;
	struct stream *back = NULL, *client = NULL;
	size_t n;
	struct http_header *h = request_headers(rq, f, true, &n);
	struct error *e =
		http_do_upgrade(f->client, rq->a, arena_strz(rq->a, rq->x->method), f->target, h, n, &resp, &back);

	if (e && f->aggregated && !error_is_sys(e, ETIMEDOUT) && !error_is_sys(e, ECANCELED)) {
		struct error *w = err_unavailable("error dialing backend: %s", error_message(e));

		error_free(e);
		return w;
	}
	TRY(e);
	if (!back)
		return refused(rq, f, &resp);
	answer_is_theirs(rq);
	for (size_t i = 0; i < resp.headers.n; i++) {
		struct http_header *r = &resp.headers.v[i];

		if (!str_eqz(r->name, "connection") && !str_eqz(r->name, "upgrade") && !str_eqz(r->name, "date"))
			copy_header(rq, r);
	}
	rq->status = 101;
	e = http_upgrade(rq->x, arena_strz(rq->a, http_header_get(&resp.headers, "upgrade")), &client);
	if (!e)
		e = stream_splice(client, back);
	stream_close(client);
	stream_close(back);
	http_response_close(&resp);
	if (client) {
		/* a broken connection is how these end */
		error_free(e);
		return NULL;
	}
	return e;
}

/* ---- plain requests ---- */

static struct error *body_next(void *ctx, void *p, size_t cap, size_t *n)
{
	return http_body_read(ctx, p, cap, n);
}

/* A page whose links go through this proxy. What is over HTML_MAX is in *out, unchanged; the rest is still to be read.
 */
static struct error *read_html(struct request *rq, struct http_response *resp, const struct forward *f, struct buf *out)
{
	struct buf page buf_cleanup = {0};

	for (;;) {
		size_t got;

		buf_reserve(&page, PIECE);
		TRY(http_response_read(resp, page.p + page.n, PIECE, &got));
		if (!got)
			break;
		page.n += got;
		if (page.n > HTML_MAX) {
			buf_str(out, buf_view(&page));
			return NULL;
		}
	}
	proxy_html_rewrite(buf_view(&page), f->prefix, f->host, http_header_get(&rq->x->headers, "host"), out);
	return NULL;
}

/* What Go's server would call the first bytes of an answer that has no Content-Type; of its table what an API may send.
 */
static struct str sniff(struct str s)
{
	struct str t = s;

	while (t.n && (*t.p == ' ' || *t.p == '\t' || *t.p == '\n' || *t.p == '\r' || *t.p == '\f'))
		t = str_sub(t, 1, t.n);
	if (t.n >= 5 && str_eqz(str_sub(t, 0, 5), "<?xml"))
		return STR("text/xml; charset=utf-8");
	if ((t.n > 14 && str_eq_nocase(str_sub(t, 0, 14), STR("<!doctype html"))) ||
	    (t.n > 5 && str_eq_nocase(str_sub(t, 0, 5), STR("<html"))))
		return STR("text/html; charset=utf-8");
	if (s.n >= 3 && (unsigned char)s.p[0] == 0x1f && (unsigned char)s.p[1] == 0x8b && s.p[2] == 8)
		return STR("application/x-gzip");
	for (size_t i = 0; i < t.n; i++) {
		unsigned char c = (unsigned char)t.p[i];

		if (c <= 8 || c == 0x0b || (c >= 0x0e && c <= 0x1a) || (c >= 0x1c && c <= 0x1f))
			return STR("application/octet-stream");
	}
	return STR("text/plain; charset=utf-8");
}

static bool cors_header(struct str n)
{
	return str_eqz(n, "access-control-allow-credentials") || str_eqz(n, "access-control-allow-headers") ||
	       str_eqz(n, "access-control-allow-methods") || str_eqz(n, "access-control-allow-origin");
}

static void response_headers(struct request *rq, const struct forward *f, const struct http_response *resp)
{
	respond_headers(rq);
	for (size_t i = 0; i < resp->headers.n; i++) {
		struct http_header *r = &resp->headers.v[i];

		if ((hop_header(&resp->headers, r->name) && !str_eqz(r->name, "trailer")) || cors_header(r->name))
			continue;
		if (f->prefix.n && str_eqz(r->name, "location")) {
			struct buf to buf_cleanup = {0};

			proxy_url_rewrite(r->value, f->prefix, f->host, http_header_get(&rq->x->headers, "host"), &to);
			http_add_header(rq->x, "location", arena_str(rq->a, buf_view(&to)));
		} else {
			copy_header(rq, r);
		}
	}
}

/* The answer's body behind `first`, which is begun with, and the trailers. */
static struct error *stream_answer(struct request *rq, struct http_response *resp, struct str first)
{
	struct error *e = NULL;
	struct http_headers trailers;
	char *buf;

	if (first.n)
		TRY(http_write(rq->x, first));
	buf = xmalloc(PIECE);
	while (!e) {
		size_t got;

		e = http_response_read(resp, buf, PIECE, &got);
		if (e || !got)
			break;
		e = http_write(rq->x, str_of(buf, got));
	}
	free(buf);
	TRY(e);
	trailers = http_response_trailers(resp);
	for (size_t i = 0; i < trailers.n; i++)
		http_set_trailer(rq->x, arena_strz(rq->a, trailers.v[i].name), trailers.v[i].value);
	return http_end(rq->x);
}

static struct error *answer(struct request *rq, const struct forward *f, struct http_response *resp)
{
	struct buf first buf_cleanup = {0};
	struct str type = http_header_get(&resp->headers, "content-type"), base = type;
	bool encoded = http_header_get(&resp->headers, "content-encoding").n > 0, head = str_eqz(rq->x->method, "HEAD"),
	     rewritten = false;

	if (f->aggregated && resp->status >= 300 && resp->status <= 399 &&
	    http_header_get(&resp->headers, "location").n) {
		rq->status = 502;
		respond_headers(rq);
		http_set_header(rq->x, "content-type", STR("text/plain; charset=utf-8"));
		return http_respond(rq->x, 502,
				    STR("the backend attempted to redirect this request, which is not permitted"));
	}
	response_headers(rq, f, resp);
	rq->status = resp->status;
	base = str_trim(str_cut(&base, ';'));
	if (f->prefix.n && str_eqz(base, "text/html") && !encoded && !http_header_get(&resp->headers, "location").n &&
	    !head) {
		rewritten = true;
		TRY(read_html(rq, resp, f, &first));
	} else if (!type.p && !encoded && !head) {
		buf_reserve(&first, SNIFFED_MAX);
		TRY(http_response_read(resp, first.p, SNIFFED_MAX, &first.n));
		if (first.n)
			http_set_header(rq->x, "content-type", sniff(buf_view(&first)));
	}
	TRY(http_start_length(rq->x, resp->status, rewritten ? -1 : resp->content_length));
	return stream_answer(rq, resp, buf_view(&first));
}

struct error *forward_request(struct request *rq, const struct forward *f)
{
	struct http_response resp;
	size_t n;
	struct http_header *h;
	const char *method = arena_strz(rq->a, rq->x->method);
	struct error *e;

	if (forward_wants_upgrade(rq))
		return upgrade(rq, f);
	h = request_headers(rq, f, false, &n);
	if (rq->x->content_length == 0 ||
	    ((str_eqz(rq->x->method, "GET") || str_eqz(rq->x->method, "HEAD")) && rq->x->content_length < 0))
		e = http_do(f->client, rq->a, method, f->target, h, n, STR_NULL, &resp);
	else
		e = http_do_stream(f->client, rq->a, method, f->target, h, n, body_next, rq->x, rq->x->content_length,
				   &resp);
	if (f->aggregated)
		metrics_certificates(rq, true, f->host, e, resp.faults);
	if (error_is_sys(e, ECANCELED) || (error_is_sys(e, ETIMEDOUT) && deadline_left() == 0))
		return e; /* the client has gone, or its time is over */
	if (e) {
		struct error *w = err_unavailable("error trying to reach service: %s", error_message(e));

		error_free(e);
		return w;
	}
	e = answer(rq, f, &resp);
	http_response_close(&resp);
	return e;
}
