#include "client/serve.h"

#include <stdio.h>

#include "base/log.h"
#include "loop/io.h"
#include "net/selfsigned.h"
#include "net/tls.h"
#include "schema/codec.h"

#define CONNECTIONS_MAX 64

static void answer(struct http_exchange *x, int status, const char *type, struct str body)
{
	http_set_header(x, "Content-Type", str_from(type));
	http_set_header(x, "X-Content-Type-Options", STR("nosniff"));
	log_and_free(http_respond(x, status, body), "answering %.*s", STR_ARG(x->path));
}

static void text(struct http_exchange *x, int status, const char *body)
{
	answer(x, status, "text/plain; charset=utf-8", str_from(body));
}

static void health(const struct serve_opts *o, struct http_exchange *x)
{
	const char *why = o->unready ? o->unready(o->ctx) : NULL;

	if (why) {
		char b[512];

		snprintf(b, sizeof b, "[-]%s failed: %s\nhealthz check failed\n", o->name, why);
		text(x, 500, b);
	} else if (str_contains(x->query, STR("verbose"))) {
		text(x, 200, "[+]ping ok\nhealthz check passed\n");
	} else {
		text(x, 200, "ok");
	}
}

/* 0: allowed; else the status to answer with. */
static int refused(const struct serve_opts *o, struct http_exchange *x, struct arena *a)
{
	struct str h = http_header_get(&x->headers, "authorization");
	struct authentication_v1_token_review review = {0}, *who;
	struct authorization_v1_subject_access_review may = {0}, *answered;
	struct authorization_v1_non_resource_attributes attr = {.path = x->path, .verb = STR("get")};
	struct error *e;

	if (!str_has_prefix(h, STR("Bearer ")))
		return 401;
	review.spec.token = str_sub(h, 7, h.n);
	e = client_create(o->client, a, &authentication_v1_tokenreviews_resource, STR_NULL, &review, (void **)&who);
	if (!e && !who->status.authenticated)
		return 401;
	if (!e) {
		may.spec.user = who->status.user.username;
		memcpy(&may.spec.groups, &who->status.user.groups, sizeof may.spec.groups);
		may.spec.non_resource_attributes = &attr;
		e = client_create(o->client, a, &authorization_v1_subjectaccessreviews_resource, STR_NULL, &may, (void **)&answered);
	}
	if (e) {
		log_and_free(e, "reviewing a request for %.*s", STR_ARG(x->path));
		return 500;
	}
	return answered->status.allowed ? 0 : 403;
}

static void handle(struct http_exchange *x, void *ctx)
{
	const struct serve_opts *o = ctx;
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};

	if (!str_eqz(x->method, "GET") && !str_eqz(x->method, "HEAD")) {
		text(x, 405, "Method Not Allowed\n");
		return;
	}
	if (str_eqz(x->path, "/healthz") || str_eqz(x->path, "/livez") || str_eqz(x->path, "/readyz") || str_eqz(x->path, "/healthz/ping")) {
		health(o, x);
		return;
	}
	if (!str_eqz(x->path, "/metrics") || !o->metrics) {
		text(x, 404, "404 page not found\n");
		return;
	}
	int status = refused(o, x, &a);

	if (status) {
		text(x, status, status == 401 ? "Unauthorized\n" : status == 403 ? "Forbidden\n" : "Internal Server Error\n");
		return;
	}
	o->metrics(o->ctx, &b);
	answer(x, 200, "text/plain; version=0.0.4; charset=utf-8", buf_view(&b));
}

struct error *component_serve(const struct serve_opts *given)
{
	struct arena a = {0}; /* lives on */
	struct serve_opts *o;
	struct tls_server_opts t = {.cert_file = given->cert_file, .key_file = given->key_file};
	struct http_server_opts h = {.handler = handle, .max_connections = CONNECTIONS_MAX};
	struct http_server *server;
	struct listener *l;

	if (!given->port)
		return NULL;
	o = arena_new(&a, struct serve_opts);
	*o = *given;
	h.ctx = o;
	if (!t.cert_file || !t.key_file)
		TRY(selfsigned_files(&a, o->name, &t.cert_file, &t.key_file));
	TRY(tls_server_new(&t, &h.tls));
	TRY(error_wrap(listener_open(arena_printf(&a, "%s:%d", o->address, o->port).p, 0, &l), "serving /healthz and /metrics (--secure-port)"));
	return http_server_start(l, &h, &server);
}
