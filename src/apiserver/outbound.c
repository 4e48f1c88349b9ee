/* Calls to identity providers and to webhooks of kubeconfig files. */
#include <errno.h>
#include <stdlib.h>
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"
#include "base/log.h"
#include "base/map.h"
#include "schema/codec.h"
#include "schema/jv.h"

#define REDIRECTS_MAX 10
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

	t2.http2 = true;
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

/* "https://host/path?query#fragment" into base and target. */
static struct error *split_url(struct arena *a, struct str url, struct str *base, struct str *target)
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

static struct error *call(struct outbound *o, struct arena *a, const char *method, struct str url, const struct http_header *h, size_t n,
			  struct str body, int64_t timeout_ms, struct outbound_answer *out)
{
	struct http_client *c;
	struct http_response resp;
	struct str base, target;
	int64_t d;
	struct error *e;

	TRY(split_url(a, url, &base, &target));
	TRY(clients_get(&o->clients, OUTBOUND_HOSTS_MAX, &(struct http_client_opts){.base = arena_strz(a, base), .tls = o->tls, .max_idle = 16}, &c));
	o->refs++;
	d = deadline_push(timeout_ms);
	e = http_do(c, a, method, target, h, n, body, &resp);
	if (!e) {
		e = http_response_all(&resp, a, OUTBOUND_ANSWER_MAX, &out->body);
		out->status = resp.status;
		out->headers = resp.headers;
		http_response_close(&resp);
	}
	deadline_pop(d);
	outbound_unref(o);
	if (error_is_sys(e, ETIMEDOUT) && !fiber_cancelled()) {
		error_free(e);
		e = error_sys(ETIMEDOUT, "context deadline exceeded");
	}
	return error_wrap(e, "%s \"%.*s\"", method, STR_ARG(url));
}

/* Location may be an absolute URL, or a path on the same server. */
static struct str redirect(struct arena *a, struct str url, struct str location)
{
	struct str base, target;
	struct error *e;

	if (str_find(location, STR("://")) >= 0)
		return location;
	e = split_url(a, url, &base, &target);
	if (e || !location.n || location.p[0] != '/') {
		error_free(e);
		return STR_NULL;
	}
	return arena_printf(a, "%.*s%.*s", STR_ARG(base), STR_ARG(location));
}

struct error *outbound_get(struct outbound *o, struct arena *a, struct str url, struct str bearer, int64_t timeout_ms, struct outbound_answer *out)
{
	struct http_header h[2] = {{STR("accept"), STR("application/json, */*")}};
	size_t n = 1;
	struct str first, base, target;

	TRY(split_url(a, url, &first, &target));
	if (bearer.n)
		h[n++] = (struct http_header){STR("authorization"), arena_printf(a, "Bearer %.*s", STR_ARG(bearer))};
	for (int i = 0; i <= REDIRECTS_MAX; i++) {
		/* a secret goes to the server it is for and no other */
		TRY(split_url(a, url, &base, &target));
		TRY(call(o, a, "GET", url, h, str_eq(base, first) ? n : 1, STR_NULL, timeout_ms, out));
		if (out->status != 301 && out->status != 302 && out->status != 303 && out->status != 307 && out->status != 308)
			return NULL;
		url = redirect(a, url, http_header_get(&out->headers, "location"));
		if (!url.n)
			return error_new("a redirect without a Location that can be followed");
	}
	return error_new("stopped after %d redirects", REDIRECTS_MAX);
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

static struct error *post(struct outbound *o, struct arena *a, struct str body, int64_t timeout_ms, int64_t pause,
			  bool always, struct str *answer)
{
	struct http_header h[3] = {{STR("content-type"), STR("application/json")}, {STR("accept"), STR("application/json, */*")}};
	size_t n = 2;
	struct str auth;

	TRY(outbound_user_header(&o->user, a, &auth));
	if (auth.n)
		h[n++] = (struct http_header){STR("authorization"), auth};
	for (int i = 1;; i++) {
		struct outbound_answer ans = {0};
		struct error *e = call(o, a, "POST", o->url, h, n, body, timeout_ms, &ans);

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

struct error *outbound_post(struct outbound *o, struct arena *a, struct str body, int64_t timeout_ms, int64_t first_ms,
			    struct str *answer)
{
	return post(o, a, body, timeout_ms, first_ms, false, answer);
}

struct error *outbound_deliver(struct outbound *o, struct arena *a, struct str body, int64_t timeout_ms,
			       int64_t first_ms)
{
	struct str answer;

	return post(o, a, body, timeout_ms, first_ms, true, &answer);
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
	struct tls_client_opts t = {.refused = &metrics_refused_webhooks};
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
	TRY(split_url(a, o->url, &base, &target));
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
	t.http2 = true;
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
