/* Who a request is from. */
#include <ctype.h>
#include <openssl/crypto.h>
#include "apiserver/authn.h"
#include "apiserver/authz.h"
#include "schema/jv.h"

#define TOKEN_CACHE_MS 10000 /* upstream's success TTL */
#define TOKEN_CACHE_MAX 4096

struct token_entry { /* a verified token and whose it is */
	struct arena arena;
	struct user user;
	int64_t until;
	unsigned refs;
};

struct static_token {
	struct str token;
	struct user user;
};

struct authn {
	struct map cache; /* token -> struct token_entry * */
	struct static_token *tokens;
	size_t n_tokens;
	struct str allowed_names[32];
	size_t n_allowed;
	struct str user_headers[4], group_headers[4], extra_prefixes[4], uid_headers[4];
	size_t n_user, n_group, n_extra, n_uid;
};

bool user_in_group(const struct user *u, const char *group)
{
	for (size_t i = 0; i < u->n_groups; i++)
		if (str_eqz(u->groups[i], group))
			return true;
	return false;
}

bool user_is_node(const struct user *u, struct str *node)
{
	if (!str_has_prefix(u->name, STR("system:node:")) || !user_in_group(u, "system:nodes"))
		return false;
	*node = str_sub(u->name, sizeof "system:node:" - 1, u->name.n);
	return true;
}

/* Groups plus one more. */
static void set_groups(struct arena *a, struct user *u, const struct str *groups, size_t n, const char *extra)
{
	struct str *v = arena_array(a, struct str, n + 1);

	for (size_t i = 0; i < n; i++) {
		if (extra && str_eqz(groups[i], extra))
			extra = NULL;
		v[i] = arena_str(a, groups[i]);
	}
	if (extra)
		v[n++] = str_from(extra);
	u->groups = v;
	u->n_groups = n;
}

static const struct str anonymous_groups[] = {STR_INIT("system:unauthenticated")};
static const struct user anonymous = {.name = STR_INIT("system:anonymous"), .groups = anonymous_groups, .n_groups = 1};

/* ---- static tokens: token,user,uid,"group1,group2" ---- */

static struct str csv_field(struct arena *a, struct str *rest)
{
	struct buf b buf_cleanup = {0};

	*rest = str_trim(*rest);
	if (rest->n && rest->p[0] == '"') {
		size_t i = 1;

		while (i < rest->n) {
			if (rest->p[i] == '"') {
				if (i + 1 < rest->n && rest->p[i + 1] == '"')
					i++;
				else
					break;
			}
			buf_putc(&b, rest->p[i++]);
		}
		*rest = str_sub(*rest, i + 1, rest->n);
		str_cut(rest, ',');
		return arena_str(a, buf_view(&b));
	}
	return arena_str(a, str_trim(str_cut(rest, ',')));
}

static struct error *load_static_tokens(struct apiserver *s, struct authn *n)
{
	struct buf b buf_cleanup = {0};
	struct str rest;
	LIST(struct static_token) list = {0};

	TRY(error_wrap(file_read(s->o.token_auth_file, &b), "token auth file %s", s->o.token_auth_file));
	rest = buf_view(&b);
	while (rest.p) {
		struct str line = str_trim(str_cut(&rest, '\n')), groups;
		struct static_token *t;
		LIST(struct str) gs = {0};

		if (!line.n || line.p[0] == '#')
			continue;
		t = arena_push(&s->arena, &list);
		t->token = csv_field(&s->arena, &line);
		t->user.name = csv_field(&s->arena, &line);
		t->user.uid = csv_field(&s->arena, &line);
		groups = csv_field(&s->arena, &line);
		if (!t->token.n || !t->user.name.n)
			return error_new("%s: a line needs token,user,uid[,\"groups\"]", s->o.token_auth_file);
		while (groups.p && groups.n) {
			struct str g = str_trim(str_cut(&groups, ','));

			if (g.n)
				*arena_push(&s->arena, &gs) = g;
		}
		set_groups(&s->arena, &t->user, gs.v, gs.n, "system:authenticated");
	}
	n->tokens = list.v;
	n->n_tokens = list.n;
	return NULL;
}

static size_t split_list(struct arena *a, const char *text, const char *fallback, struct str *out, size_t max, bool lower)
{
	struct str rest = arena_str(a, str_from(text ? text : fallback));
	size_t n = 0;

	while (rest.p && rest.n && n < max) {
		struct str tok = str_trim(str_cut(&rest, ','));
		char *p = arena_strz(a, tok);

		for (size_t i = 0; lower && i < tok.n; i++)
			p[i] = (char)tolower((unsigned char)p[i]);
		if (tok.n)
			out[n++] = str_of(p, tok.n);
	}
	return n;
}

struct error *authn_init(struct apiserver *s)
{
	struct authn *n = xcalloc(1, sizeof *n);

	s->authn = n;
	if (s->o.token_auth_file)
		TRY(load_static_tokens(s, n));
	n->n_allowed = split_list(&s->arena, s->o.requestheader_allowed_names, "", n->allowed_names, 32, false);
	n->n_user = split_list(&s->arena, s->o.requestheader_username_headers, "x-remote-user", n->user_headers, 4, true);
	n->n_group = split_list(&s->arena, s->o.requestheader_group_headers, "x-remote-group", n->group_headers, 4, true);
	n->n_extra = split_list(&s->arena, s->o.requestheader_extra_prefixes, "x-remote-extra-", n->extra_prefixes, 4, true);
	n->n_uid = split_list(&s->arena, s->o.requestheader_uid_headers, "x-remote-uid", n->uid_headers, 4, true);
	return sa_tokens_init(s);
}

/* ---- service account tokens: bound objects ---- */

static void add_extra(struct arena *a, struct user *u, const char *key, struct str value)
{
	struct strings_pair *v = (struct strings_pair *)(uintptr_t)u->extra;
	struct strings_pair *n;

	if (!value.n)
		return;
	n = arena_array(a, struct strings_pair, u->n_extra + 1);
	if (u->n_extra)
		memcpy(n, v, u->n_extra * sizeof *n);
	n[u->n_extra].key = str_from(key);
	*arena_push(a, &n[u->n_extra].value) = arena_str(a, value);
	u->extra = n;
	u->n_extra++;
}

static bool sa_user(struct apiserver *s, struct arena *tmp, struct arena *a, const struct sa_claims *c, struct user *u, struct str *why)
{
	struct core_v1_service_account *sa = registry_peek(s, tmp, storage_find(s, STR(""), STR("serviceaccounts")), c->ns, c->name);
	int64_t now = wall_ns() / 1000000000;
	struct str groups[2];

	if (!sa || !str_eq(sa->metadata.uid, c->uid)) {
		*why = STR("service account does not exist or its UID differs from the token's");
		return false;
	}
	if (sa->metadata.deletion_timestamp && sa->metadata.deletion_timestamp->s < now - 60) {
		*why = STR("service account has been deleted");
		return false;
	}
	if (c->secret_name.n) {
		struct core_v1_secret *sec = registry_peek(s, tmp, storage_find(s, STR(""), STR("secrets")), c->ns, c->secret_name);

		if (!sec || sec->metadata.deletion_timestamp || (c->secret_uid.n && !str_eq(sec->metadata.uid, c->secret_uid))) {
			*why = STR("service account token has been invalidated");
			return false;
		}
	}
	if (c->pod_name.n) {
		struct core_v1_pod *pod = registry_peek(s, tmp, storage_find(s, STR(""), STR("pods")), c->ns, c->pod_name);

		if (!pod || !str_eq(pod->metadata.uid, c->pod_uid) ||
		    (pod->metadata.deletion_timestamp && pod->metadata.deletion_timestamp->s < now - 60)) {
			*why = STR("service account token has been invalidated");
			return false;
		}
	} else if (c->node_name.n) {
		struct core_v1_node *node = registry_peek(s, tmp, storage_find(s, STR(""), STR("nodes")), STR_NULL, c->node_name);

		if (!node || (c->node_uid.n && !str_eq(node->metadata.uid, c->node_uid))) {
			*why = STR("service account token has been invalidated");
			return false;
		}
	}
	memset(u, 0, sizeof *u);
	u->name = arena_printf(a, "system:serviceaccount:%.*s:%.*s", STR_ARG(c->ns), STR_ARG(c->name));
	u->uid = arena_str(a, c->uid);
	groups[0] = STR("system:serviceaccounts");
	groups[1] = arena_printf(a, "system:serviceaccounts:%.*s", STR_ARG(c->ns));
	set_groups(a, u, groups, 2, "system:authenticated");
	if (c->jti.n)
		add_extra(a, u, "authentication.kubernetes.io/credential-id", arena_printf(a, "JTI=%.*s", STR_ARG(c->jti)));
	add_extra(a, u, "authentication.kubernetes.io/node-name", c->node_name);
	add_extra(a, u, "authentication.kubernetes.io/node-uid", c->node_uid);
	add_extra(a, u, "authentication.kubernetes.io/pod-name", c->pod_name);
	add_extra(a, u, "authentication.kubernetes.io/pod-uid", c->pod_uid);
	return true;
}

/* ---- bootstrap tokens: Secrets kube-system/bootstrap-token-ID ---- */

static struct str secret_data(const struct core_v1_secret *sec, const char *key)
{
	return str_map_get(API_MAP(&sec->data), str_from(key));
}

static bool bootstrap_user(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, struct user *u)
{
	struct str id, secret, want, groups_text, expiration;
	struct core_v1_secret *sec;
	struct str groups[34];
	size_t n = 1;

	if (token.n != 23 || token.p[6] != '.')
		return false;
	for (size_t i = 0; i < token.n; i++)
		if (i != 6 && !((token.p[i] >= 'a' && token.p[i] <= 'z') || (token.p[i] >= '0' && token.p[i] <= '9')))
			return false;
	id = str_sub(token, 0, 6);
	secret = str_sub(token, 7, 23);
	sec = registry_peek(s, tmp, storage_find(s, STR(""), STR("secrets")), STR("kube-system"),
			    arena_printf(tmp, "bootstrap-token-%.*s", STR_ARG(id)));
	if (!sec || sec->metadata.deletion_timestamp || !str_eqz(sec->type, "bootstrap.kubernetes.io/token"))
		return false;
	want = secret_data(sec, "token-secret");
	if (want.n != secret.n || CRYPTO_memcmp(want.p, secret.p, want.n) || !str_eq(secret_data(sec, "token-id"), id))
		return false;
	expiration = secret_data(sec, "expiration");
	if (expiration.n) {
		struct api_time t;

		if (!time_parse(expiration, &t) || t.s < wall_ns() / 1000000000)
			return false;
	}
	if (!str_eqz(secret_data(sec, "usage-bootstrap-authentication"), "true"))
		return false;
	groups[0] = STR("system:bootstrappers");
	groups_text = secret_data(sec, "auth-extra-groups");
	while (groups_text.p && groups_text.n && n < 33) {
		struct str g = str_trim(str_cut(&groups_text, ','));

		if (!str_has_prefix(g, STR("system:bootstrappers:")))
			return false;
		groups[n++] = g;
	}
	memset(u, 0, sizeof *u);
	u->name = arena_printf(a, "system:bootstrap:%.*s", STR_ARG(id));
	set_groups(a, u, groups, n, "system:authenticated");
	return true;
}

/* tmp: scratch; a: where the user's strings live. */
static bool token_user(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, const struct str *audiences, size_t n_aud,
		       struct user *u, struct strings *auds, int64_t *exp, struct str *why)
{
	struct sa_claims c;
	bool ours;
	struct error *e;

	*exp = 0;
	for (size_t i = 0; i < s->authn->n_tokens; i++) {
		struct static_token *t = &s->authn->tokens[i];

		if (t->token.n == token.n && !CRYPTO_memcmp(t->token.p, token.p, token.n)) {
			*u = t->user;
			return true;
		}
	}
	e = sa_token_verify(s, tmp, token, audiences, n_aud, &ours, &c);
	if (e) {
		*why = arena_str(a, str_from(error_message(e)));
		error_free(e);
		return false;
	}
	if (ours) {
		*exp = c.exp;
		if (auds)
			for (uint32_t i = 0; i < c.audiences.n; i++)
				for (size_t j = 0; j < n_aud; j++)
					if (str_eq(c.audiences.v[i], audiences[j]))
						*arena_push(a, auds) = arena_str(a, c.audiences.v[i]);
		return sa_user(s, tmp, a, &c, u, why);
	}
	if (s->o.bootstrap_token_auth && bootstrap_user(s, tmp, a, token, u))
		return true;
	*why = STR("invalid bearer token");
	return false;
}

void authenticate_token(struct apiserver *s, struct arena *a, struct str token, const struct str *audiences, size_t n_audiences,
			const struct user **out, struct strings *auds, struct str *why)
{
	struct user *u = arena_new(a, struct user);
	int64_t exp;

	*out = NULL;
	if (token_user(s, a, a, token, audiences, n_audiences, u, auds, &exp, why))
		*out = u;
}

static void token_unref(struct token_entry *t)
{
	if (--t->refs == 0) {
		arena_free(&t->arena);
		free(t);
	}
}

static void cache_clear(struct authn *n)
{
	size_t it = 0;
	struct str key;
	void *v;

	while (map_next(&n->cache, &it, &key, &v))
		token_unref(v);
	map_free(&n->cache);
	memset(&n->cache, 0, sizeof n->cache);
}

static void user_copy(struct arena *a, const struct user *from, struct user *to)
{
	struct strings_pair *extra = arena_array(a, struct strings_pair, from->n_extra);

	*to = *from;
	to->name = arena_str(a, from->name);
	to->uid = arena_str(a, from->uid);
	set_groups(a, to, from->groups, from->n_groups, NULL);
	for (size_t i = 0; i < from->n_extra; i++) {
		extra[i].key = arena_str(a, from->extra[i].key);
		for (uint32_t j = 0; j < from->extra[i].value.n; j++)
			*arena_push(a, &extra[i].value) = arena_str(a, from->extra[i].value.v[j]);
	}
	to->extra = extra;
}

static const struct user *cached_token(struct request *rq, struct str token)
{
	struct authn *n = rq->s->authn;
	struct token_entry *t = map_get(&n->cache, token);
	struct user *u;
	struct str why = STR_NULL;
	int64_t exp;

	if (t && t->until > now_ms()) {
		u = arena_new(rq->a, struct user);
		user_copy(rq->a, &t->user, u);
		return u;
	}
	if (t) {
		map_del(&n->cache, token);
		token_unref(t);
	}
	t = xcalloc(1, sizeof *t);
	t->refs = 1;
	if (!token_user(rq->s, rq->a, &t->arena, token, NULL, 0, &t->user, NULL, &exp, &why)) {
		log_v(2, "token rejected: %.*s", STR_ARG(why));
		token_unref(t);
		return NULL;
	}
	t->until = now_ms() + TOKEN_CACHE_MS;
	if (n->cache.n >= TOKEN_CACHE_MAX)
		cache_clear(n);
	map_set(&n->cache, token, t);
	u = arena_new(rq->a, struct user);
	user_copy(rq->a, &t->user, u);
	return u;
}

/* ---- the front proxy ---- */

static struct str first_header(struct request *rq, const struct str *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct str v = http_header_get(&rq->x->headers, names[i].p);

		if (v.n)
			return v;
	}
	return STR_NULL;
}

static const struct user *front_proxy_user(struct request *rq)
{
	struct authn *n = rq->s->authn;
	const struct http_headers *h = &rq->x->headers;
	bool allowed = n->n_allowed == 0;
	struct user *u;
	LIST(struct str) groups = {0};
	LIST(struct strings_pair) extra = {0};
	struct str name;

	if (!rq->x->peer || !rq->x->peer->by_requestheader_ca)
		return NULL;
	name = first_header(rq, n->user_headers, n->n_user);
	if (!name.n)
		return NULL;
	for (size_t i = 0; i < n->n_allowed; i++)
		allowed |= str_eq(n->allowed_names[i], rq->x->peer->common_name);
	if (!allowed)
		return NULL;
	u = arena_new(rq->a, struct user);
	u->name = name;
	u->uid = first_header(rq, n->uid_headers, n->n_uid);
	for (size_t i = 0; i < h->n; i++) {
		for (size_t j = 0; j < n->n_group; j++)
			if (str_eq(h->v[i].name, n->group_headers[j]))
				*arena_push(rq->a, &groups) = h->v[i].value;
		for (size_t j = 0; j < n->n_extra; j++)
			if (str_has_prefix(h->v[i].name, n->extra_prefixes[j])) {
				struct str key = http_unescape(rq->a, str_sub(h->v[i].name, n->extra_prefixes[j].n, h->v[i].name.n), false);
				struct strings_pair *p = NULL;

				for (uint32_t k = 0; k < extra.n; k++)
					if (str_eq(extra.v[k].key, key))
						p = &extra.v[k];
				if (!p) {
					p = arena_push(rq->a, &extra);
					p->key = key;
				}
				*arena_push(rq->a, &p->value) = h->v[i].value;
			}
	}
	set_groups(rq->a, u, groups.v, groups.n, "system:authenticated");
	u->extra = extra.v;
	u->n_extra = extra.n;
	return u;
}

static const struct user *x509_user(struct request *rq)
{
	const struct tls_peer *p = rq->x->peer;
	struct user *u;

	if (!p || !p->common_name.n || !p->by_client_ca)
		return NULL;
	u = arena_new(rq->a, struct user);
	u->name = p->common_name;
	u->uid = p->uid;
	u->x509 = true;
	set_groups(rq->a, u, p->organizations, p->n_organizations, "system:authenticated");
	if (p->credential_id.n)
		add_extra(rq->a, u, "authentication.kubernetes.io/credential-id", p->credential_id);
	return u;
}

/* Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.TOKEN */
static struct str websocket_token(struct request *rq)
{
	static const char prefix[] = "base64url.bearer.authorization.k8s.io.";
	struct str rest = http_header_get(&rq->x->headers, "sec-websocket-protocol");

	while (rest.p && rest.n) {
		struct str tok = str_trim(str_cut(&rest, ',')), token;

		if (str_has_prefix(tok, str_from(prefix)) &&
		    base64url_decode(rq->a, str_sub(tok, sizeof prefix - 1, tok.n), &token))
			return token;
	}
	return STR_NULL;
}

struct error *authenticate(struct request *rq)
{
	struct str auth, token = STR_NULL;

	rq->user = front_proxy_user(rq);
	if (!rq->user)
		rq->user = x509_user(rq);
	if (!rq->user) {
		auth = http_header_get(&rq->x->headers, "authorization");
		if (auth.n > 7 && str_eq_nocase(str_sub(auth, 0, 7), STR("Bearer ")))
			token = str_trim(str_sub(auth, 7, auth.n));
		else if (!auth.n)
			token = websocket_token(rq);
		if (token.n) {
			rq->user = cached_token(rq, token);
			if (!rq->user)
				return err_unauthorized();
		} else if (auth.n && !rq->s->o.anonymous_auth) {
			return err_unauthorized();
		}
	}
	if (!rq->user) {
		/* a certificate that was shown and is not good is no anonymous request */
		if (!rq->s->o.anonymous_auth || rq->x->peer_error)
			return err_unauthorized();
		rq->user = &anonymous;
	}
	rq->real_user = rq->user;
	return NULL;
}

/* ---- impersonation ---- */

static struct error *may_impersonate(struct request *rq, const char *group, const char *resource, struct str sub, struct str ns, struct str name)
{
	struct authz_attrs at = {.user = rq->real_user, .verb = STR("impersonate"), .resource_request = true, .ns = ns,
				 .group = str_from(group), .version = STR("v1"), .resource = str_from(resource), .subresource = sub,
				 .name = name};
	struct str reason = STR_NULL, text;
	struct error *e;

	if (authorize(rq->s, rq->a, &at, &reason) == AUTHZ_ALLOW)
		return NULL;
	text = authz_forbidden_text(rq->a, &at);
	e = err_forbidden(at.group, at.resource, name, "%.*s%s%.*s", STR_ARG(text), reason.n ? ": " : "", STR_ARG(reason));
	return e;
}

struct error *impersonate(struct request *rq)
{
	const struct http_headers *h = &rq->x->headers;
	struct str name = http_header_get(h, "impersonate-user"), uid = http_header_get(h, "impersonate-uid");
	struct user *u;
	LIST(struct str) groups = {0};
	LIST(struct strings_pair) extra = {0};
	static const char extra_prefix[] = "impersonate-extra-";
	bool sa, any = false;

	for (size_t i = 0; i < h->n; i++) {
		if (str_eqz(h->v[i].name, "impersonate-group")) {
			*arena_push(rq->a, &groups) = h->v[i].value;
			any = true;
		} else if (str_has_prefix(h->v[i].name, str_from(extra_prefix))) {
			struct str key = http_unescape(rq->a, str_sub(h->v[i].name, sizeof extra_prefix - 1, h->v[i].name.n), false);
			struct strings_pair *p = NULL;

			for (uint32_t k = 0; k < extra.n; k++)
				if (str_eq(extra.v[k].key, key))
					p = &extra.v[k];
			if (!p) {
				p = arena_push(rq->a, &extra);
				p->key = key;
			}
			*arena_push(rq->a, &p->value) = h->v[i].value;
			any = true;
		}
	}
	if (!name.n) {
		if (any || uid.n)
			return err_internal("requested %s%s without impersonating a user", "impersonation of groups, extra or uid", "");
		return NULL;
	}
	sa = str_has_prefix(name, STR("system:serviceaccount:"));
	if (sa) {
		struct str rest = str_sub(name, sizeof "system:serviceaccount:" - 1, name.n), ns = str_cut(&rest, ':');

		TRY(may_impersonate(rq, "", "serviceaccounts", STR_NULL, ns, rest));
		if (!groups.n) {
			*arena_push(rq->a, &groups) = STR("system:serviceaccounts");
			*arena_push(rq->a, &groups) = arena_printf(rq->a, "system:serviceaccounts:%.*s", STR_ARG(ns));
		}
	} else {
		TRY(may_impersonate(rq, "", "users", STR_NULL, STR_NULL, name));
	}
	for (uint32_t i = 0; i < groups.n; i++)
		if (!sa || any)
			TRY(may_impersonate(rq, "", "groups", STR_NULL, STR_NULL, groups.v[i]));
	for (uint32_t i = 0; i < extra.n; i++)
		for (uint32_t j = 0; j < extra.v[i].value.n; j++)
			TRY(may_impersonate(rq, "authentication.k8s.io", "userextras", extra.v[i].key, STR_NULL, extra.v[i].value.v[j]));
	if (uid.n)
		TRY(may_impersonate(rq, "authentication.k8s.io", "uids", STR_NULL, STR_NULL, uid));
	u = arena_new(rq->a, struct user);
	u->name = name;
	u->uid = uid;
	u->extra = extra.v;
	u->n_extra = extra.n;
	if (str_eqz(name, "system:anonymous"))
		set_groups(rq->a, u, groups.v, groups.n, "system:unauthenticated");
	else
		set_groups(rq->a, u, groups.v, groups.n, "system:authenticated");
	rq->user = u;
	return NULL;
}
