/* Calls to identity providers and to webhooks of kubeconfig files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"
#include "base/log.h"
#include "base/map.h"
#include "schema/codec.h"
#include "schema/jv.h"

#define REQUESTS_MAX 10 /* that one may become by redirects */
#define TRIES 5

struct outbound {
	struct arena arena;
	struct tls_client *tls;
	struct map clients;       /* "https://host:port" -> struct http_client * */
	unsigned refs;
	/* of a kubeconfig */
	struct str url;
	struct outbound_user user;
};

static void let_go(void *client)
{
	http_client_free(client);
}

void clients_let_go(struct map *clients)
{
	map_free_values(clients, let_go);
}

struct error *clients_get(struct map *clients, size_t max, const struct http_client_opts *o, struct http_client **out)
{
	*out = map_get(clients, str_from(o->base));
	if (*out)
		return NULL;
	if (clients->n >= max)
		clients_let_go(clients);
	TRY(http_client_new(o, out));
	map_set(clients, str_from(o->base), *out);
	return NULL;
}

static void outbound_unref(struct outbound *o)
{
	if (--o->refs)
		return;
	clients_let_go(&o->clients);
	tls_client_free(o->tls);
	arena_free(&o->arena);
	free(o);
}

struct error *outbound_new(const struct tls_client_opts *t, struct outbound **out)
{
	struct outbound *o = xcalloc(1, sizeof *o);
	struct tls_client_opts t2 = *t;
	struct error *e;

	t2.http2 = http2_wanted();
	e = tls_client_new(&t2, &o->tls);
	if (e) {
		free(o);
		return e;
	}
	o->refs = 1;
	*out = o;
	return NULL;
}

void outbound_free(struct outbound *o)
{
	if (o)
		outbound_unref(o);
}

struct error *url_split(struct arena *a, struct str url, struct str *base, struct str *target)
{
	ptrdiff_t scheme = str_find(url, STR("://")), hash = str_index(url, '#');
	size_t i;

	if (hash >= 0)
		url = str_sub(url, 0, (size_t)hash);
	if (!str_has_prefix(url, STR("https://")) && !str_has_prefix(url, STR("http://")))
		return error_new("the URL \"%.*s\" is neither https nor http", STR_ARG(url));
	for (i = (size_t)scheme + 3; i < url.n && url.p[i] != '/' && url.p[i] != '?'; i++)
		;
	*base = str_sub(url, 0, i);
	*target = i == url.n ? STR("/") : url.p[i] == '?' ? arena_printf(a, "/%.*s", STR_ARG(str_sub(url, i, url.n))) : str_sub(url, i, url.n);
	for (size_t k = 0; k < url.n; k++)
		if ((unsigned char)url.p[k] <= ' ' || url.p[k] == 0x7f)
			return error_new("the URL \"%.*s\" has characters that no URL has", STR_ARG(url));
	return NULL;
}

static struct error *ask_once(struct outbound *o, struct arena *a, const struct hop *hop, struct outbound_answer *out)
{
	struct http_client *c;
	struct http_response resp;
	struct str base, target;
	struct error *e;

	TRY(url_split(a, hop->url, &base, &target));
	TRY(clients_get(&o->clients, OUTBOUND_HOSTS_MAX, &(struct http_client_opts){.base = arena_strz(a, base), .tls = o->tls, .max_idle = 16}, &c));
	o->refs++;
	e = http_do(c, a, hop->method, target, hop->h, hop->n, hop->body, &resp);
	if (o->url.n)
		metrics_certificates(hop->rq, false, url_host(a, hop->url), e, resp.faults);
	if (!e) {
		e = http_response_all(&resp, a, OUTBOUND_ANSWER_MAX, &out->body);
		out->status = resp.status;
		out->headers = resp.headers;
		http_response_close(&resp);
	}
	outbound_unref(o);
	return e;
}

static struct error *call(struct outbound *o, struct arena *a, struct hop hop, int64_t timeout_ms, struct outbound_answer *out)
{
	int64_t d = deadline_push(timeout_ms);
	bool again = false;
	struct error *e;

	hop.first = hop.url;
	do {
		e = ask_once(o, a, &hop, out);
		if (!e)
			e = hop_next(&hop, a, out->status, &out->headers, &again);
	} while (!e && again);
	deadline_pop(d);
	if (error_is_sys(e, ETIMEDOUT) && !fiber_cancelled()) {
		error_free(e);
		e = error_sys(ETIMEDOUT, "context deadline exceeded");
	}
	return error_wrap(e, "%s \"%.*s\"", hop.method, STR_ARG(hop.url));
}

/* ---- redirects ---- */

/* Without dot segments (RFC 3986, 5.2.4). */
static struct str plain_path(struct arena *a, struct str path)
{
	char *to = arena_alloc(a, path.n + 1);
	size_t n = 0;

	for (size_t i = 0, end; i < path.n; i = end) {
		struct str segment;

		for (end = i + 1; end < path.n && path.p[end] != '/'; end++)
			;
		segment = str_sub(path, i + 1, end);
		if (str_eqz(segment, "..")) {
			while (n && to[--n] != '/')
				;
		} else if (!str_eqz(segment, ".")) {
			memcpy(to + n, path.p + i, end - i);
			n += end - i;
			continue;
		}
		if (end == path.n)
			to[n++] = '/';
	}
	return str_of(to, n);
}

static bool has_scheme(struct str url)
{
	ptrdiff_t colon = str_index(url, ':');

	for (ptrdiff_t i = 0; i < colon; i++)
		if (!((url.p[i] | 32) >= 'a' && (url.p[i] | 32) <= 'z') &&
		    (!i || !((url.p[i] >= '0' && url.p[i] <= '9') || url.p[i] == '+' || url.p[i] == '-' || url.p[i] == '.')))
			return false;
	return colon > 0;
}

/* A reference as it is meant on the page `url` (RFC 3986, 5.2.2). */
static struct error *url_resolve(struct arena *a, struct str url, struct str ref, struct str *out)
{
	ptrdiff_t hash = str_index(ref, '#'), query, slash;
	struct str base, target, path, ask;

	TRY(url_split(a, url, &base, &target));
	if (hash >= 0)
		ref = str_sub(ref, 0, (size_t)hash);
	if (has_scheme(ref)) {
		*out = ref;
	} else if (str_has_prefix(ref, STR("//"))) {
		*out = arena_printf(a, "%.*s%.*s", (int)str_index(base, ':') + 1, base.p, STR_ARG(ref));
	} else {
		query = str_index(ref, '?');
		path = query < 0 ? ref : str_sub(ref, 0, (size_t)query);
		ask = query < 0 ? STR_NULL : str_sub(ref, (size_t)query, ref.n);
		query = str_index(target, '?');
		if (!path.n && !ask.n && query >= 0)
			ask = str_sub(target, (size_t)query, target.n);
		if (query >= 0)
			target.n = (size_t)query;
		slash = str_rindex(target, '/');
		if (!path.n)
			path = target;
		else if (path.p[0] != '/')
			path = arena_printf(a, "%.*s%.*s", (int)slash + 1, target.p, STR_ARG(path));
		*out = arena_printf(a, "%.*s%.*s%.*s", STR_ARG(base), STR_ARG(plain_path(a, path)), STR_ARG(ask));
	}
	return url_split(a, *out, &base, &target);
}

struct str url_host(struct arena *a, struct str url)
{
	struct str base, target;
	size_t n;

	error_free(url_split(a, url, &base, &target)); /* it was taken apart before */
	base = str_sub(base, (size_t)str_find(base, STR("://")) + 3, base.n);
	for (n = base.n; n && base.p[n - 1] >= '0' && base.p[n - 1] <= '9'; n--)
		;
	return n > 1 && base.p[n - 1] == ':' ? str_sub(base, 0, n - 1) : base;
}

/* The same host or one below it. */
static bool may_be_told(struct str host, struct str first)
{
	return str_eq_nocase(host, first) ||
	       (host.n > first.n && host.p[0] != '[' && host.p[host.n - first.n - 1] == '.' &&
		str_eq_nocase(str_sub(host, host.n - first.n, host.n), first));
}

static void drop_header(struct hop *h, const char *name)
{
	for (size_t i = 0; i < h->n; i++)
		if (str_eqz(h->h[i].name, name)) {
			memmove(h->h + i, h->h + i + 1, (--h->n - i) * sizeof *h->h);
			return;
		}
}

struct error *hop_next(struct hop *h, struct arena *a, int status, const struct http_headers *answer, bool *again)
{
	struct str location = http_header_get(answer, "location"), from = h->url;
	bool whole = status == 307 || status == 308;

	*again = location.n && (whole || (status >= 301 && status <= 303));
	if (!*again)
		return NULL;
	TRY(error_wrap(url_resolve(a, from, location, &h->url), "failed to parse Location header"));
	if (++h->redirects >= REQUESTS_MAX)
		return error_new("stopped after %d redirects", REQUESTS_MAX);
	if (!whole) {
		h->method = strcmp(h->method, "HEAD") ? "GET" : h->method;
		h->body = STR_NULL;
		drop_header(h, "content-type");
	}
	if (!h->says_who && !may_be_told(url_host(a, h->url), url_host(a, h->first)))
		drop_header(h, "authorization"); /* for all that follow */
	drop_header(h, "host");
	drop_header(h, "referer");
	if (!str_has_prefix(from, STR("https:")) || str_has_prefix(h->url, STR("https:")))
		h->h[h->n++] = (struct http_header){STR("referer"), from};
	return NULL;
}

struct error *outbound_get(struct outbound *o, struct arena *a, struct str url, struct str bearer, int64_t timeout_ms, struct outbound_answer *out)
{
	struct hop hop = {.method = "GET", .url = url, .h = {{STR("accept"), STR("application/json, */*")}}, .n = 1};

	if (bearer.n)
		hop.h[hop.n++] = (struct http_header){STR("authorization"), arena_printf(a, "Bearer %.*s", STR_ARG(bearer))};
	return call(o, a, hop, timeout_ms, out);
}

static bool worth_another_try(const struct error *e, const struct outbound_answer *ans)
{
	if (e)
		return error_is_sys(e, ECONNRESET) || error_is_sys(e, EPIPE);
	return ans->status == 429 || ans->status == 500 || ans->status == 504 || http_header_get(&ans->headers, "retry-after").n > 0;
}

/* What a Status in the body says, or its first words. */
static struct error *refused(struct arena *a, struct str url, const struct outbound_answer *ans)
{
	struct jv doc;
	struct str msg = STR_NULL;
	struct error *e = jv_parse(a, ans->body, NULL, &doc);

	if (!e)
		msg = jv_str(jv_get(&doc, STR("message")));
	error_free(e);
	if (!msg.n)
		msg = str_trim(str_sub(ans->body, 0, 200));
	return error_new("Post \"%.*s\": the server answered %d%s%.*s", STR_ARG(url), ans->status, msg.n ? ": " : "", STR_ARG(msg));
}

struct error *outbound_user_header(const struct outbound_user *o, struct arena *a, struct str *out)
{
	struct buf b buf_cleanup = {0};

	*out = o->authorization;
	if (!o->token_file)
		return NULL;
	TRY(file_read(o->token_file, &b));
	*out = arena_printf(a, "Bearer %.*s", STR_ARG(str_trim(buf_view(&b))));
	return NULL;
}

static struct error *post(struct outbound *o, struct request *rq, struct arena *a, struct str body, int64_t timeout_ms, int64_t pause,
			  bool always, struct str *answer)
{
	struct hop hop = {.method = "POST", .url = o->url, .body = body, .says_who = true, .rq = rq, .n = 2,
			  .h = {{STR("content-type"), STR("application/json")}, {STR("accept"), STR("application/json, */*")}}};
	struct str auth;

	TRY(outbound_user_header(&o->user, a, &auth));
	if (auth.n)
		hop.h[hop.n++] = (struct http_header){STR("authorization"), auth};
	for (int i = 1;; i++) {
		struct outbound_answer ans = {0};
		struct error *e = call(o, a, hop, timeout_ms, &ans);

		if (!e && ans.status >= 200 && ans.status < 300) {
			*answer = ans.body;
			return NULL;
		}
		if (i == TRIES || error_is_sys(e, ECANCELED) || !(always || worth_another_try(e, &ans)))
			return e ? e : refused(a, o->url, &ans);
		error_free(e);
		TRY(fiber_sleep(pause + (int64_t)(random_u64() % (uint64_t)(pause / 5 + 1))));
		pause += pause / 2;
	}
}

struct error *outbound_post(struct outbound *o, struct request *rq, struct arena *a, struct str body, int64_t timeout_ms, int64_t first_ms,
			    struct str *answer)
{
	return post(o, rq, a, body, timeout_ms, first_ms, false, answer);
}

struct error *outbound_deliver(struct outbound *o, struct arena *a, struct str body, int64_t timeout_ms,
			       int64_t first_ms)
{
	struct str answer;

	return post(o, NULL, a, body, timeout_ms, first_ms, true, &answer);
}

/* ---- kubeconfig ---- */

static const char *beside(struct arena *a, const char *path, struct str file)
{
	ptrdiff_t slash = str_rindex(str_from(path), '/');

	if (!file.n)
		return NULL;
	if (file.p[0] == '/' || slash < 0)
		return arena_strz(a, file);
	return arena_printf(a, "%.*s/%.*s", (int)slash, path, STR_ARG(file)).p;
}

static struct error *user_of(struct arena *a, const char *path, const struct clientcmd_v1_auth_info *u, struct outbound_user *out)
{
	if ((u->exec.n && !str_eqz(u->exec, "null")) || (u->auth_provider.n && !str_eqz(u->auth_provider, "null")) || u->as.n)
		return error_new("the user uses an exec plugin, an auth-provider or impersonation, which are not built here: use a client "
				 "certificate, token, tokenFile or password");
	out->cert_pem = u->client_certificate_data;
	out->key_pem = u->client_key_data;
	if (!out->cert_pem.n)
		out->cert_file = beside(a, path, u->client_certificate);
	if (!out->key_pem.n)
		out->key_file = beside(a, path, u->client_key);
	if ((out->cert_file || out->cert_pem.n) != (out->key_file || out->key_pem.n))
		return error_new("the user has a client certificate without its key, or a key without its certificate");
	if (u->token_file.n) {
		out->token_file = beside(a, path, u->token_file);
	} else if (u->token.n) {
		out->authorization = arena_printf(a, "Bearer %.*s", STR_ARG(u->token));
	} else if (u->username.n) {
		struct buf b buf_cleanup = {0};

		base64_encode(&b, arena_printf(a, "%.*s:%.*s", STR_ARG(u->username), STR_ARG(u->password)));
		out->authorization = arena_printf(a, "Basic %.*s", STR_ARG(buf_view(&b)));
	}
	return NULL;
}

static struct error *read_kubeconfig(struct arena *a, const char *path, struct clientcmd_v1_config *k)
{
	struct buf text buf_cleanup = {.limit = OUTBOUND_ANSWER_MAX}, json buf_cleanup = {0};

	TRY(file_read(path, &text));
	TRY(yaml_to_json(buf_view(&text), NULL, &json));
	return json_decode(a, &clientcmd_v1_config_type, arena_str(a, buf_view(&json)), NULL, k);
}

static const struct clientcmd_v1_context *current_context(const struct clientcmd_v1_config *k)
{
	for (uint32_t i = 0; i < k->contexts.n; i++)
		if (str_eq(k->contexts.v[i].name, k->current_context))
			return &k->contexts.v[i].context;
	return NULL;
}

static struct error *load(struct outbound *o, const char *path)
{
	struct arena *a = &o->arena;
	struct clientcmd_v1_config *k = arena_new(a, struct clientcmd_v1_config);
	const struct clientcmd_v1_context *ctx;
	const struct clientcmd_v1_cluster *cluster = NULL;
	const struct clientcmd_v1_auth_info *user = NULL;
	struct tls_client_opts t = {0};
	struct str base, target;

	TRY(read_kubeconfig(a, path, k));
	ctx = current_context(k);
	if (!ctx)
		return error_new("its current-context \"%.*s\" is not there", STR_ARG(k->current_context));
	for (uint32_t i = 0; i < k->clusters.n; i++)
		if (str_eq(k->clusters.v[i].name, ctx->cluster))
			cluster = &k->clusters.v[i].cluster;
	for (uint32_t i = 0; i < k->users.n; i++)
		if (str_eq(k->users.v[i].name, ctx->user))
			user = &k->users.v[i].user;
	if (!cluster || !cluster->server.n)
		return error_new("its current context names no cluster with a server");
	if (cluster->proxy_url.n)
		return error_new("the cluster has a proxy-url, which is not built here");
	o->url = cluster->server;
	TRY(url_split(a, o->url, &base, &target));
	t.ca_pem = cluster->certificate_authority_data;
	if (!t.ca_pem.n)
		t.ca_file = beside(a, path, cluster->certificate_authority);
	t.server_name = cluster->tls_server_name.n ? arena_strz(a, cluster->tls_server_name) : NULL;
	t.insecure_skip_verify = cluster->insecure_skip_tls_verify;
	if (user)
		TRY(user_of(a, path, user, &o->user));
	t.cert_file = o->user.cert_file;
	t.key_file = o->user.key_file;
	t.cert_pem = o->user.cert_pem;
	t.key_pem = o->user.key_pem;
	t.http2 = http2_wanted();
	return tls_client_new(&t, &o->tls);
}

struct error *outbound_from_kubeconfig(const char *path, struct outbound **out)
{
	struct outbound *o = xcalloc(1, sizeof *o);
	struct error *e;

	o->refs = 1;
	e = load(o, path);
	if (e) {
		outbound_unref(o);
		return error_wrap(e, "kubeconfig %s", path);
	}
	*out = o;
	return NULL;
}

/* ---- users by server ---- */

struct outbound_users {
	struct arena arena;
	struct map by_name;              /* -> struct outbound_user */
	const struct outbound_user *own; /* the current context's, or NULL */
};

static struct error *read_users(struct outbound_users *u, const char *path)
{
	struct arena *a = &u->arena;
	struct clientcmd_v1_config *k = arena_new(a, struct clientcmd_v1_config);
	const struct clientcmd_v1_context *ctx;

	TRY(read_kubeconfig(a, path, k));
	for (uint32_t i = 0; i < k->users.n; i++) {
		struct outbound_user *one = arena_new(a, struct outbound_user);

		TRY(error_wrap(user_of(a, path, &k->users.v[i].user, one), "user %.*s", STR_ARG(k->users.v[i].name)));
		map_set(&u->by_name, k->users.v[i].name, one);
	}
	ctx = current_context(k);
	u->own = ctx && ctx->user.n ? map_get(&u->by_name, ctx->user) : NULL;
	return NULL;
}

struct error *outbound_users_read(const char *path, struct outbound_users **out)
{
	struct outbound_users *u = xcalloc(1, sizeof *u);
	struct error *e = read_users(u, path);

	if (e) {
		map_free(&u->by_name);
		arena_free(&u->arena);
		free(u);
		return error_wrap(e, "kubeconfig %s", path);
	}
	*out = u;
	return NULL;
}

/* The name itself, then *.DOMAIN for ever shorter domains. */
static const struct outbound_user *named(const struct outbound_users *u, struct str target)
{
	const struct outbound_user *found = map_get(&u->by_name, target);

	for (ptrdiff_t dot; !found && (dot = str_index(target, '.')) >= 0;) {
		struct buf star buf_cleanup = {0};

		target = str_sub(target, (size_t)dot + 1, target.n);
		buf_printf(&star, "*.%.*s", STR_ARG(target));
		found = map_get(&u->by_name, buf_view(&star));
	}
	return found;
}

const struct outbound_user *outbound_users_find(const struct outbound_users *u, struct str host, int port)
{
	struct buf target buf_cleanup = {0};
	const struct outbound_user *found;

	buf_printf(&target, str_index(host, ':') >= 0 ? "[%.*s]:%d" : "%.*s:%d", STR_ARG(host), port);
	found = named(u, buf_view(&target));
	if (!found && port == 443)
		found = named(u, host);
	if (!found)
		found = map_get(&u->by_name, STR("*"));
	return found ? found : u->own;
}
