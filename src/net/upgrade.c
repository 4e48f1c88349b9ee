#include "net/upgrade.h"

#define REFUSAL_MAX (64 * 1024)

static bool stays_here(struct str name)
{
	return str_eq(name, STR("authorization")) || str_eq(name, STR("host")) || str_eq(name, STR("content-length"));
}

static struct error *refused(struct arena *a, struct http_response *r)
{
	struct str body;
	struct error *e = http_response_all(r, a, REFUSAL_MAX, &body);
	int status = r->status >= 400 ? r->status : 502;

	http_response_close(r);
	return e ? e : error_status(status, status == 404 ? "NotFound" : status == 400 ? "BadRequest" : "InternalError",
				    "unable to upgrade connection: %.*s", STR_ARG(str_trim(body)));
}

struct error *http_proxy_upgrade(struct http_exchange *x, struct http_client *c, struct str target)
{
	struct http_header *h = arena_array(x->arena, struct http_header, x->headers.n);
	struct http_response r;
	struct stream *back = NULL, *client = NULL;
	size_t n = 0;

	for (size_t i = 0; i < x->headers.n; i++)
		if (!stays_here(x->headers.v[i].name))
			h[n++] = x->headers.v[i];
	TRY(http_do_upgrade(c, x->arena, arena_strz(x->arena, x->method), target, h, n, &r, &back));
	if (!back)
		return refused(x->arena, &r);
	for (size_t i = 0; i < r.headers.n; i++) {
		struct str name = r.headers.v[i].name;

		if (!str_eq(name, STR("connection")) && !str_eq(name, STR("upgrade")) && !str_eq(name, STR("date")))
			http_add_header(x, arena_strz(x->arena, name), r.headers.v[i].value);
	}
	struct error *e = http_upgrade(x, arena_strz(x->arena, http_header_get(&r.headers, "upgrade")), &client);

	if (!e) {
		/* A broken connection is how these end. */
		error_free(stream_splice(client, back));
	}
	stream_close(client);
	stream_close(back);
	http_response_close(&r);
	return e;
}
