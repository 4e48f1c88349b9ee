#include "client/internal.h"

#include <stdlib.h>

#include "base/log.h"

struct client {
	struct http_client *http;
	struct tls_client *tls;
	char *base;    /* scheme and host, as http_client_opts has it */
	char *prefix;  /* path below which the API is served, no slash at its end */
	char *ns, *user_agent;
	char *token, *token_file;
	int64_t token_read_ms; /* 0: never */
	double qps, tokens;
	int burst;
	int64_t refill_ns;
	bool shared;             /* the connection is another client's */
	client_token_fn *token_fn;
	void *token_ctx;
	int64_t token_until_ms;  /* of token_fn's; 0: ask */
	struct fiber_mutex token_lock;
};

static struct str path_prefix(const char *server, struct str *base)
{
	struct str s = str_from(server);

	*base = s;
	if (str_has_prefix(s, STR("http+unix:")))
		return STR_NULL;
	ptrdiff_t i = str_find(s, STR("://"));
	size_t from = i < 0 ? 0 : (size_t)i + 3;
	ptrdiff_t slash = str_index(str_sub(s, from, s.n), '/');

	if (slash < 0)
		return STR_NULL;
	struct str prefix = str_sub(s, from + (size_t)slash, s.n);

	*base = str_sub(s, 0, from + (size_t)slash);
	while (prefix.n && prefix.p[prefix.n - 1] == '/')
		prefix.n--;
	return prefix;
}

struct error *client_new(const struct client_config *cfg, struct client **out)
{
	struct str base, server = str_from(cfg->server);

	*out = NULL;
	if (str_empty(server))
		return error_new("no API server is configured (the kubeconfig's cluster names no server)");
	char *url = str_contains(server, STR("://")) ? xstrdup(cfg->server) : xasprintf("http://%s", cfg->server);
	struct client *c = xcalloc(1, sizeof(*c));
	struct str prefix = path_prefix(url, &base);

	c->prefix = str_dupz(prefix);
	c->base = str_dupz(base);
	free(url);
	c->ns = xstrdup(cfg->ns && cfg->ns[0] ? cfg->ns : "default");
	c->user_agent = xstrdup(cfg->user_agent ? cfg->user_agent : "skiff/v1.36");
	c->token = cfg->token ? xstrdup(cfg->token) : NULL;
	c->token_file = cfg->token_file ? xstrdup(cfg->token_file) : NULL;
	c->qps = cfg->qps;
	c->burst = cfg->burst > 0 ? cfg->burst : cfg->qps > 0 ? (int)cfg->qps * 2 + 1 : 0;
	c->tokens = c->burst;
	c->refill_ns = now_ns();
	struct error *e = NULL;

	if (str_has_prefix(str_from(c->base), STR("https://"))) {
		struct tls_client_opts t = {
			.ca_file = cfg->ca_file,
			.ca_pem = cfg->ca_pem,
			.cert_file = cfg->cert_file,
			.key_file = cfg->key_file,
			.cert_pem = cfg->cert_pem,
			.key_pem = cfg->key_pem,
			.server_name = cfg->tls_server_name,
			.insecure_skip_verify = cfg->insecure_skip_tls_verify,
			.http2 = http2_wanted(),
		};

		e = tls_client_new(&t, &c->tls);
	}
	if (!e)
		e = http_client_new(&(struct http_client_opts){.base = c->base, .tls = c->tls}, &c->http);
	if (e) {
		client_free(c);
		return e;
	}
	*out = c;
	return NULL;
}

static void take_token(struct client *c, char *token)
{
	if (c->token)
		memset(c->token, 0, strlen(c->token));
	free(c->token);
	c->token = token;
}

struct client *client_with_token(struct client *base, client_token_fn *fn, void *ctx, const char *user_agent)
{
	struct client *c = xcalloc(1, sizeof(*c));

	c->http = base->http;
	c->tls = base->tls;
	c->shared = true;
	c->base = xstrdup(base->base);
	c->prefix = xstrdup(base->prefix);
	c->ns = xstrdup(base->ns);
	c->user_agent = xstrdup(user_agent);
	c->token_fn = fn;
	c->token_ctx = ctx;
	return c;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	if (c->http && !c->shared)
		http_client_free(c->http);
	if (c->tls && !c->shared)
		tls_client_free(c->tls);
	free(c->base);
	free(c->prefix);
	free(c->ns);
	free(c->user_agent);
	take_token(c, NULL);
	free(c->token_file);
	free(c);
}

const char *client_namespace(const struct client *c)
{
	return c->ns;
}

/* Bound tokens are replaced on disk while we run: read again each minute. An unreadable file leaves the last token in use. */
static struct error *fresh_token(struct client *c)
{
	int64_t now = now_ms();

	if (!c->token_file || (c->token_read_ms && now - c->token_read_ms < 60000))
		return NULL;
	struct buf buf_cleanup b = {.limit = 1 << 20};
	struct error *e = file_read(c->token_file, &b);

	if (e) {
		if (!c->token)
			return error_wrap(e, "the token file of the API client");
		log_and_free(e, "reading the token file again");
		c->token_read_ms = now;
		return NULL;
	}
	take_token(c, str_dupz(str_trim(buf_view(&b))));
	c->token_read_ms = now ? now : 1;
	return NULL;
}

static struct error *asked_token(struct client *c)
{
	char *token = NULL;
	int64_t valid_ms;

	if (!c->token_fn || (c->token && now_ms() < c->token_until_ms))
		return NULL;
	TRY(fiber_mutex_lock(&c->token_lock));
	struct error *e = NULL;

	if (!c->token || now_ms() >= c->token_until_ms) { /* nobody did it while we waited */
		e = c->token_fn(c->token_ctx, &token, &valid_ms);
		if (!e) {
			take_token(c, token);
			c->token_until_ms = now_ms() + valid_ms;
		}
	}
	fiber_mutex_unlock(&c->token_lock);
	return e;
}

static struct error *throttle(struct client *c)
{
	if (c->qps <= 0)
		return NULL;
	int64_t now = now_ns();

	c->tokens += (double)(now - c->refill_ns) * c->qps / 1e9;
	if (c->tokens > c->burst)
		c->tokens = c->burst;
	c->refill_ns = now;
	c->tokens -= 1; /* below zero: borrowed, and waited for */
	if (c->tokens < 0)
		return fiber_sleep((int64_t)(-c->tokens * 1000 / c->qps) + 1);
	return NULL;
}

/* Reasons must be literals in struct error: the vocabulary of metav1.StatusReason. */
static const char *reason_literal(struct str reason)
{
	static const char *const known[] = {
		"AlreadyExists", "BadRequest", "Conflict", "Expired", "Forbidden", "Gone", "InternalError", "Invalid",
		"MethodNotAllowed", "NotAcceptable", "NotFound", "RequestEntityTooLarge", "ServerTimeout",
		"ServiceUnavailable", "StorageReadError", "Timeout", "TooManyRequests", "Unauthorized",
		"UnsupportedMediaType",
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (str_eqz(reason, known[i]))
			return known[i];
	return "";
}

static const char *reason_of_status(int status)
{
	switch (status) {
	case 400: return "BadRequest";
	case 401: return "Unauthorized";
	case 403: return "Forbidden";
	case 404: return "NotFound";
	case 405: return "MethodNotAllowed";
	case 406: return "NotAcceptable";
	case 409: return "Conflict";
	case 410: return "Gone";
	case 413: return "RequestEntityTooLarge";
	case 415: return "UnsupportedMediaType";
	case 422: return "Invalid";
	case 429: return "TooManyRequests";
	case 503: return "ServiceUnavailable";
	case 504: return "Timeout";
	default: return status >= 500 ? "InternalError" : "";
	}
}

static char *opt_dup(struct str s)
{
	return str_empty(s) ? NULL : str_dupz(s);
}

struct error *client_status_error(const struct meta_v1_status *s, int http_status)
{
	int code = s->code ? s->code : http_status;
	struct error *e = error_status(code, reason_literal(s->reason), "%.*s",
				       STR_ARG(str_empty(s->message) ? STR("the server gave no reason") : s->message));

	if (s->details) {
		const struct meta_v1_status_details *d = s->details;

		e->group = opt_dup(d->group);
		e->kind = opt_dup(d->kind);
		e->name = opt_dup(d->name);
		e->name_n = d->name.n;
		e->uid = opt_dup(d->uid);
		e->retry_after_seconds = d->retry_after_seconds;
		for (uint32_t i = 0; i < d->causes.n; i++) {
			const struct meta_v1_status_cause *k = &d->causes.v[i];
			arena_cleanup struct arena a = {0};

			error_add_cause(e, arena_strz(&a, k->reason), arena_strz(&a, k->field), "%.*s", STR_ARG(k->message));
		}
	}
	return e;
}

struct error *client_error(struct arena *a, int status, struct str body, const char *method, struct str target)
{
	struct meta_v1_status *s = arena_new(a, struct meta_v1_status);
	struct error *bad = json_decode(a, &meta_v1_status_type, body, NULL, s);

	if (!bad && str_eqz(s->kind, "Status"))
		return client_status_error(s, status);
	error_free(bad);
	struct str text = str_trim(body);

	if (text.n > 300)
		text.n = 300;
	return error_status(status, reason_of_status(status), "%s %.*s: the server answered %d%s%.*s", method,
			    STR_ARG(target), status, text.n ? ": " : "", STR_ARG(text));
}

/* One attempt up to the response's head. */
static struct error *send_request(struct client *c, struct arena *a, const struct client_request *q, struct http_response *r)
{
	struct http_header h[5];
	size_t n = 0;

	TRY(fresh_token(c));
	TRY(asked_token(c));
	h[n++] = (struct http_header){STR("accept"), str_from(q->accept ? q->accept : ACCEPT_JSON)};
	h[n++] = (struct http_header){STR("user-agent"), str_from(c->user_agent)};
	if (q->content_type)
		h[n++] = (struct http_header){STR("content-type"), str_from(q->content_type)};
	if (c->token)
		h[n++] = (struct http_header){STR("authorization"), arena_printf(a, "Bearer %s", c->token)};
	struct str target = c->prefix[0] ? arena_printf(a, "%s%.*s", c->prefix, STR_ARG(q->target)) : q->target;
	struct error *e = http_do(c->http, a, q->method, target, h, n, q->body, r);

	return e ? error_wrap(e, "%s %s%.*s", q->method, c->base, STR_ARG(target)) : NULL;
}

static struct error *do_once(struct client *c, struct arena *a, const struct client_request *q, struct str *out, int64_t *retry_ms)
{
	struct http_response r = {0};

	*retry_ms = -1;
	TRY(send_request(c, a, q, &r));
	struct str body = STR_NULL;
	struct error *e = http_response_all(&r, a, CLIENT_BODY_MAX, &body);

	if (!e && r.status >= 400) {
		int64_t seconds;

		e = client_error(a, r.status, body, q->method, q->target);
		if (r.status == 401 && c->token_fn && c->token_until_ms) {
			c->token_until_ms = 0; /* revoked, or its account was made anew: with another one, once */
			*retry_ms = 0;
		}
		if ((r.status == 429 || r.status == 503) && !q->no_retry &&
		    str_to_i64(http_header_get(&r.headers, "retry-after"), &seconds) && seconds >= 0)
			*retry_ms = seconds > 30 ? 30000 : seconds * 1000;
	}
	http_response_close(&r);
	if (!e && out)
		*out = body;
	return e;
}

struct error *client_do(struct client *c, struct arena *a, const struct client_request *q, struct str *out)
{
	TRY(throttle(c));
	for (int tries = 0;; tries++) {
		int64_t retry_ms, deadline = deadline_push(CLIENT_TIMEOUT_MS);
		struct error *e = do_once(c, a, q, out, &retry_ms);

		deadline_pop(deadline);
		if (!e || retry_ms < 0 || tries == 5)
			return e;
		error_free(e);
		TRY(fiber_sleep(retry_ms + (int64_t)(random_u64() % 100)));
	}
}

struct error *client_raw(struct client *c, struct arena *a, const char *method, struct str target, const char *content_type,
			 struct str body, struct str *out)
{
	return client_do(c, a, &(struct client_request){
		.method = method, .target = target, .content_type = content_type, .body = body}, out);
}

struct error *client_stream(struct client *c, struct arena *a, const char *method, struct str target, const char *accept,
			    struct http_response *out)
{
	*out = (struct http_response){0};
	TRY(send_request(c, a, &(struct client_request){.method = method, .target = target, .accept = accept}, out));
	if (out->status < 400)
		return NULL;
	struct str body = STR_NULL;
	struct error *e = http_response_all(out, a, 1 << 20, &body);

	if (!e)
		e = client_error(a, out->status, body, method, target);
	http_response_close(out);
	return e;
}

bool client_retry_conflict(struct error **e, int *tries)
{
	if (!error_is(*e, 409, "Conflict") || ++*tries > 5)
		return false;
	error_clear(e);
	return true;
}
