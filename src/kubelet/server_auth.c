/*
 * Who may ask this node: client certificates and bearer tokens (TokenReview), then SubjectAccessReview on the
 * subresource of nodes that upstream uses for each path (proxy, stats, metrics, log, healthz, pods, configz; KEP-2862). Answers are cached.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kubelet/internal.h"

#define AUTHN_TTL_MS 120000
#define ALLOWED_TTL_MS 300000
#define DENIED_TTL_MS 30000
#define CACHE_MAX 1000

struct answer {
	int64_t until_ms;
	bool yes;
	struct arena arena;
	struct str user;
	struct strings groups;
};

static void answer_free(void *v)
{
	struct answer *a = v;

	arena_free(&a->arena);
	free(a);
}

static struct answer *cached(struct map *m, struct str key)
{
	struct answer *a = map_get(m, key);

	return a && a->until_ms > now_ms() ? a : NULL;
}

static struct answer *keep(struct map *m, struct str key, int64_t ttl_ms, bool yes)
{
	if (m->n >= CACHE_MAX)
		map_free_values(m, answer_free);
	struct answer *a = xcalloc(1, sizeof *a), *old;

	a->until_ms = now_ms() + ttl_ms;
	a->yes = yes;
	old = map_set(m, key, a);
	if (old)
		answer_free(old);
	return a;
}

static struct error *token_user(struct kubelet *k, struct http_exchange *x, struct str token, struct str *user, struct strings *groups)
{
	char hash[32];
	struct authentication_v1_token_review req = {0}, *resp = NULL;

	/* The cache must not hold tokens: their hash, keyed by this process's start. */
	snprintf(hash, sizeof hash, "%016llx", (unsigned long long)(str_hash(token) ^ (uint64_t)k->started_wall));
	struct answer *a = cached(&k->authn_cache, str_from(hash));

	if (!a) {
		req.spec.token = token;
		TRY(client_create(k->client, x->arena, &authentication_v1_tokenreviews_resource, STR_NULL, &req, (void **)&resp));
		a = keep(&k->authn_cache, str_from(hash), AUTHN_TTL_MS, resp->status.authenticated);
		a->user = arena_str(&a->arena, resp->status.user.username);
		for (uint32_t i = 0; i < resp->status.user.groups.n; i++)
			*arena_push(&a->arena, &a->groups) = arena_str(&a->arena, resp->status.user.groups.v[i]);
	}
	if (!a->yes)
		return error_status(401, "Unauthorized", "Unauthorized");
	*user = arena_str(x->arena, a->user);
	for (uint32_t i = 0; i < a->groups.n; i++)
		*arena_push(x->arena, groups) = arena_str(x->arena, a->groups.v[i]);
	return NULL;
}

static struct error *authenticate(struct kubelet *k, struct http_exchange *x, struct str *user, struct strings *groups)
{
	struct str auth = http_header_get(&x->headers, "authorization");

	if (x->peer && x->peer->common_name.n) {
		*user = x->peer->common_name;
		for (size_t i = 0; i < x->peer->n_organizations; i++)
			*arena_push(x->arena, groups) = x->peer->organizations[i];
		*arena_push(x->arena, groups) = STR("system:authenticated");
		return NULL;
	}
	if (str_has_prefix(auth, STR("Bearer ")) && k->client && k->c->webhook_auth)
		return token_user(k, x, str_trim(str_sub(auth, 7, auth.n)), user, groups);
	if (!k->c->anonymous_auth)
		return error_status(401, "Unauthorized", "Unauthorized");
	*user = STR("system:anonymous");
	*arena_push(x->arena, groups) = STR("system:unauthenticated");
	return NULL;
}

static const char *subresource(struct str path)
{
	static const struct {
		const char *prefix, *sub;
	} table[] = {{"/stats", "stats"}, {"/metrics", "metrics"}, {"/logs", "log"}, {"/checkpoint", "checkpoint"}};

	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		if (str_has_prefix(path, str_from(table[i].prefix)))
			return table[i].sub;
	return "proxy";
}

/* KEP-2862: paths with a right of their own below "proxy". */
static const char *fine_subresource(struct str path)
{
	return str_eqz(path, "/pods") || str_has_prefix(path, STR("/runningpods")) ? "pods" : str_has_prefix(path, STR("/healthz")) ? "healthz"
	       : str_eqz(path, "/configz")				 ? "configz"
									  : NULL;
}

static const char *verb(struct str method)
{
	static const char *const table[][2] = {{"POST", "create"}, {"GET", "get"}, {"HEAD", "get"}, {"PUT", "update"},
					       {"PATCH", "patch"}, {"DELETE", "delete"}};

	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		if (str_eqz(method, table[i][0]))
			return table[i][1];
	return "";
}

static struct error *authorize(struct kubelet *k, struct http_exchange *x, struct str user, struct strings *groups, const char *sub)
{
	const char *v = verb(x->method);
	struct str key = arena_printf(x->arena, "%.*s %s %s", STR_ARG(user), v, sub);
	struct answer *a = cached(&k->authz_cache, key);

	if (k->c->always_allow)
		return NULL;
	if (!a) {
		struct authorization_v1_subject_access_review req = {0}, *resp = NULL;
		struct authorization_v1_resource_attributes ra = {.verb = str_from(v), .version = STR("v1"), .resource = STR("nodes"),
								  .subresource = str_from(sub), .name = str_from(k->c->node_name)};

		if (!k->client)
			return error_status(403, "Forbidden", "no API server to ask for authorization");
		req.spec.user = user;
		req.spec.groups.v = groups->v;
		req.spec.groups.n = groups->n;
		req.spec.resource_attributes = &ra;
		TRY(client_create(k->client, x->arena, &authorization_v1_subjectaccessreviews_resource, STR_NULL, &req, (void **)&resp));
		a = keep(&k->authz_cache, key, resp->status.allowed ? ALLOWED_TTL_MS : DENIED_TTL_MS, resp->status.allowed);
	}
	return a->yes ? NULL : error_status(403, "Forbidden", "Forbidden (user=%.*s, verb=%s, resource=nodes, subresource(s)=[%s])", STR_ARG(user), v, sub);
}

bool server_authorize(struct kubelet *k, struct http_exchange *x)
{
	struct str user = STR_NULL;
	struct strings groups = {0};
	struct error *e = authenticate(k, x, &user, &groups);

	if (!e) {
		const char *fine = fine_subresource(x->path);

		/* The narrower right is enough where there is one, else the one for everything. */
		e = authorize(k, x, user, &groups, fine ? fine : subresource(x->path));
		if (fine && error_is(e, 403, NULL)) {
			error_free(e);
			e = authorize(k, x, user, &groups, "proxy");
		}
	}
	if (!e)
		return true;
	server_error(x, e->status ? e->status : 500, "%s", e->message);
	error_free(e);
	return false;
}
