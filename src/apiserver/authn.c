/* Who a request is from. */
#include <ctype.h>
#include "apiserver/authn_internal.h"
#include "apiserver/metrics.h"
#include "apiserver/jwt.h"
#include "net/websocket.h"
#include "schema/jv.h"

#define TOKEN_CACHE_MS 10000 /* upstream's success TTL */
#define TOKEN_CACHE_MAX 4096

struct token_entry { /* a verified token, whose it is, and of the audiences asked for those it is for */
	struct arena arena;
	struct user user;
	struct strings audiences;
	struct token_notes notes;
	int64_t until;
	unsigned refs;
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
void user_set_groups(struct arena *a, struct user *u, const struct str *groups, size_t n, const char *extra)
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

void user_set_authenticated(struct arena *a, struct user *u, const struct str *groups, size_t n)
{
	bool adds = !str_eqz(u->name, "system:anonymous");

	for (size_t i = 0; i < n; i++)
		adds &= !str_eqz(groups[i], "system:unauthenticated");
	user_set_groups(a, u, groups, n, adds ? "system:authenticated" : NULL);
}

struct str extra_key(struct arena *a, struct str encoded)
{
	for (size_t i = 0; i < encoded.n; i++)
		if (encoded.p[i] == '%' && (i + 2 >= encoded.n || !isxdigit((unsigned char)encoded.p[i + 1]) ||
					    !isxdigit((unsigned char)encoded.p[i + 2])))
			return encoded;
	return http_unescape(a, encoded, false);
}

void user_add_extra(struct arena *a, struct user *u, const char *key, struct str value)
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

static const struct str anonymous_groups[] = {STR_INIT("system:unauthenticated")};
static const struct user anonymous = {.name = STR_INIT("system:anonymous"), .groups = anonymous_groups, .n_groups = 1};

static size_t split_list(struct arena *a, const char *text, struct str *out, size_t max, bool lower)
{
	struct str rest = arena_str(a, str_from(text ? text : ""));
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
	random_uuid(s->loopback_token);
	TRY(authn_flags_check(s));
	if (s->o.token_auth_file)
		TRY(static_tokens_load(s, s->o.token_auth_file));
	TRY(sa_tokens_init(s));
	TRY(authn_config_init(s));
	TRY(token_webhook_init(s));
	n->n_allowed = split_list(&s->arena, s->o.requestheader_allowed_names, n->allowed_names, 32, false);
	n->n_user = split_list(&s->arena, s->o.requestheader_username_headers, n->user_headers, 4, true);
	n->n_group = split_list(&s->arena, s->o.requestheader_group_headers, n->group_headers, 4, true);
	n->n_extra = split_list(&s->arena, s->o.requestheader_extra_prefixes, n->extra_prefixes, 4, true);
	n->n_uid = split_list(&s->arena, s->o.requestheader_uid_headers, n->uid_headers, 4, true);
	return NULL;
}

/* ---- tokens: one authenticator after another; what they hold against the token is collected ---- */

struct complaints {
	struct arena *a;
	LIST(struct str) list;
};

static void complain(struct complaints *c, struct str why)
{
	*arena_push(c->a, &c->list) = arena_str(c->a, why);
}

/* As Go's aggregate errors print: one alone, several in brackets. */
static struct str complaints_text(const struct complaints *c)
{
	struct buf b buf_cleanup = {0};

	if (!c->list.n)
		return STR("invalid bearer token");
	if (c->list.n == 1)
		return c->list.v[0];
	for (uint32_t i = 0; i < c->list.n; i++)
		buf_printf(&b, "%s%.*s", i ? ", " : "[", STR_ARG(c->list.v[i]));
	buf_putc(&b, ']');
	return arena_str(c->a, buf_view(&b));
}

/* Tokens that name no audience are for this server: those of `audiences` (empty: any) that are its own. False: none is. */
static bool own_audiences(struct apiserver *s, struct arena *a, const struct str *audiences, size_t n, struct strings *out)
{
	const struct str *own;
	size_t n_own;

	if (!n)
		return true;
	sa_default_audiences(s, &own, &n_own);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n_own; j++)
			if (str_eq(audiences[i], own[j])) {
				*arena_push(a, out) = arena_str(a, audiences[i]);
				break;
			}
	return out->n > 0;
}

static bool sa_token_user(struct apiserver *s, struct arena *a, struct str token, const struct str *audiences, size_t n_aud, struct token_entry *t,
			  struct complaints *no)
{
	struct sa_claims c;
	bool ours;
	struct str why = STR_NULL;
	struct error *e = sa_token_verify(s, no->a, token, audiences, n_aud, &ours, &c);

	if (e) {
		why = str_from(error_message(e));
	} else if (!ours) {
		return false;
	} else if (service_account_user(s, no->a, a, token, &c, &t->user, &t->notes, &why)) {
		for (uint32_t i = 0; i < c.audiences.n; i++)
			*arena_push(a, &t->audiences) = arena_str(a, c.audiences.v[i]);
		return true;
	}
	/* of the two authenticators of service accounts the one for tokens of old says this */
	complain(no, STR("invalid bearer token"));
	complain(no, why);
	error_free(e);
	return false;
}

static bool jwt_token_user(struct apiserver *s, struct arena *a, struct str token, struct user *u, struct complaints *no)
{
	bool ok;
	struct error *e = oidc_authenticate(s->authn->oidc, no->a, a, token, u, &ok);

	if (e)
		complain(no, str_from(error_message(e)));
	error_free(e);
	return ok;
}

static bool webhook_token_user(struct apiserver *s, struct arena *a, struct str token, const struct str *audiences, size_t n_aud, struct user *u,
			       struct strings *auds, struct complaints *no)
{
	bool ok;
	struct error *e = token_webhook_authenticate(s, no->a, a, token, audiences, n_aud, u, auds, &ok);

	if (e) {
		log_v(1, "webhook authenticator: %s", error_message(e));
		complain(no, str_from(error_message(e)));
	}
	error_free(e);
	return ok;
}

/* Fills t->user and what goes with it. tmp: scratch. False: *why says why not; *failed: somebody had something against it, not just
 * nobody for it. May wait. */
static bool token_user(struct apiserver *s, struct arena *tmp, struct str token, const struct str *audiences, size_t n_aud, struct token_entry *t,
		       struct str *why, bool *failed)
{
	struct complaints no = {.a = tmp};
	struct arena *a = &t->arena;
	struct user *u = &t->user;

	*failed = false;
	if (static_token_user(s, token, u) && own_audiences(s, a, audiences, n_aud, &t->audiences))
		return true;
	if (sa_token_user(s, a, token, audiences, n_aud, t, &no))
		return true;
	if (s->o.bootstrap_token_auth && bootstrap_token_user(s, tmp, a, token, u) && own_audiences(s, a, audiences, n_aud, &t->audiences))
		return true;
	if (jwt_token_user(s, a, token, u, &no) && own_audiences(s, a, audiences, n_aud, &t->audiences))
		return true;
	if (webhook_token_user(s, a, token, audiences, n_aud, u, &t->audiences, &no))
		return true;
	*failed = no.list.n;
	*why = complaints_text(&no);
	return false;
}

static void token_unref(void *v)
{
	struct token_entry *t = v;

	if (--t->refs == 0) {
		arena_free(&t->arena);
		free(t);
	}
}

void authn_cache_clear(struct apiserver *s)
{
	map_free_values(&s->authn->cache, token_unref);
}

void user_copy(struct arena *a, const struct user *from, struct user *to)
{
	struct strings_pair *extra = arena_array(a, struct strings_pair, from->n_extra);

	*to = *from;
	to->name = arena_str(a, from->name);
	to->uid = arena_str(a, from->uid);
	user_set_groups(a, to, from->groups, from->n_groups, NULL);
	for (size_t i = 0; i < from->n_extra; i++) {
		extra[i].key = arena_str(a, from->extra[i].key);
		for (uint32_t j = 0; j < from->extra[i].value.n; j++)
			*arena_push(a, &extra[i].value) = arena_str(a, from->extra[i].value.v[j]);
	}
	to->extra = extra;
}

/* What tokens are kept by: no token has a line's end in it. */
static struct str cache_key(struct apiserver *s, struct arena *a, struct str token, const struct str *audiences, size_t n)
{
	struct buf b buf_cleanup = {0};
	const struct str *own;
	size_t n_own;
	bool usual = true;

	sa_default_audiences(s, &own, &n_own);
	for (size_t i = 0; i < n; i++)
		usual &= n == n_own && str_eq(audiences[i], own[i]);
	if (usual)
		return token;
	buf_printf(&b, "\n%zu:%.*s", token.n, STR_ARG(token));
	for (size_t i = 0; i < n; i++)
		buf_printf(&b, "%zu:%.*s", audiences[i].n, STR_ARG(audiences[i]));
	return arena_str(a, buf_view(&b));
}

/* What became of a token that is shown, and since when it is looked at; judged: it was not remembered, and its judgement came to errors. */
static void count_token(bool hit, int64_t since_ns, bool failed)
{
	static struct metric *n[2], *time[2], *fetched[2];
	const char *status = hit ? "status=\"hit\"" : "status=\"miss\"";

	if (!n[hit]) {
		n[hit] = metric_series(METRIC_TOKEN_CACHE_REQUESTS, status);
		time[hit] = metric_series(METRIC_TOKEN_CACHE_TIME, status);
	}
	metric_add(n[hit], 1);
	metric_observe(time[hit], (double)(now_ns() - since_ns) / 1e9);
	if (hit)
		return;
	if (!fetched[failed])
		fetched[failed] = metric_series(METRIC_TOKEN_CACHE_FETCHES, failed ? "status=\"error\"" : "status=\"ok\"");
	metric_add(fetched[failed], 1);
}

/* A request waits for a judgement of its own: upstream's share one. */
static void count_judging(int n)
{
	metrics_count(METRIC_TOKEN_CACHE_ACTIVE, "status=\"blocked\"", n);
	metrics_count(METRIC_TOKEN_CACHE_ACTIVE, "status=\"in_flight\"", n);
}

/* Borrowed until the next wait; NULL: *why. May wait. */
static struct token_entry *cached_token(struct request *rq, struct str token, const struct str *audiences, size_t n, struct str *why)
{
	int64_t since = now_ns();
	bool good, failed;
	struct authn *au = rq->s->authn;
	struct str key = cache_key(rq->s, rq->a, token, audiences, n);
	struct token_entry *t = map_get(&au->cache, key), *old;

	if (t && t->until > now_ms()) {
		count_token(true, since, false);
		return t;
	}
	if (t) {
		map_del(&au->cache, key);
		token_unref(t);
	}
	t = xcalloc(1, sizeof *t);
	t->refs = 1;
	count_judging(1);
	good = token_user(rq->s, rq->a, token, audiences, n, t, why, &failed);
	count_judging(-1);
	count_token(false, since, failed);
	if (!good) {
		log_v(2, "token rejected: %.*s", STR_ARG(*why));
		token_unref(t);
		return NULL;
	}
	t->until = now_ms() + TOKEN_CACHE_MS;
	if (au->cache.n >= TOKEN_CACHE_MAX)
		authn_cache_clear(rq->s);
	/* another request may have asked for the same token meanwhile */
	old = map_set(&au->cache, key, t);
	if (old)
		token_unref(old);
	return t;
}

/* The request's user, and what there is to say to it. */
static const struct user *user_of_token(struct request *rq, struct str token)
{
	struct str why = STR_NULL;
	struct token_entry *t = cached_token(rq, token, NULL, 0, &why);
	struct user *u;

	if (!t)
		return NULL;
	u = arena_new(rq->a, struct user);
	user_copy(rq->a, &t->user, u);
	if (t->notes.warning.p)
		request_warn(rq, "%.*s", STR_ARG(t->notes.warning));
	for (uint32_t i = 0; i < t->notes.audit.n; i++)
		request_annotate(rq, t->notes.audit.v[i].key, t->notes.audit.v[i].value);
	return u;
}

/* The token of an Authorization header; empty: it has none. *spaced: because there is a space too many before it. */
static struct str bearer_token(struct str header, bool *spaced)
{
	struct str rest = str_trim(header), token = STR_NULL;

	*spaced = false;
	if (str_eq_nocase(str_cut(&rest, ' '), STR("Bearer")) && rest.p) {
		token = str_cut(&rest, ' ');
		*spaced = !token.n && rest.p;
	}
	return token;
}

void authenticate_token(struct request *rq, struct str token, const struct str *audiences, size_t n_audiences, const struct user **out,
			struct strings *auds, struct str *why)
{
	struct authn *n = rq->s->authn;
	struct token_entry *t;
	struct user *u;
	bool spaced;

	*out = NULL;
	token = bearer_token(arena_printf(rq->a, "Bearer %.*s", STR_ARG(token)), &spaced);
	if (!token.n) { /* what carries none is anonymous, here as anywhere */
		*out = n->anonymous && !n->n_anonymous_paths ? &anonymous : NULL;
		for (size_t i = 0; *out && i < n_audiences; i++)
			*arena_push(rq->a, auds) = audiences[i];
		return;
	}
	t = cached_token(rq, token, audiences, n_audiences, why);
	if (!t)
		return;
	u = arena_new(rq->a, struct user);
	user_copy(rq->a, &t->user, u);
	*out = u;
	for (uint32_t i = 0; i < t->audiences.n; i++)
		*arena_push(rq->a, auds) = arena_str(rq->a, t->audiences.v[i]);
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

static bool one_of(const struct str *v, size_t n, struct str name)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(v[i], name))
			return true;
	return false;
}

bool authn_front_proxy_header(const struct apiserver *s, struct str name)
{
	const struct authn *n = s->authn;

	if (str_eqz(name, "x-remote-user") || str_eqz(name, "x-remote-uid") || str_eqz(name, "x-remote-group") ||
	    str_has_prefix(name, STR("x-remote-extra-")) || one_of(n->user_headers, n->n_user, name) ||
	    one_of(n->uid_headers, n->n_uid, name) || one_of(n->group_headers, n->n_group, name))
		return true;
	for (size_t i = 0; i < n->n_extra; i++)
		if (str_has_prefix(name, n->extra_prefixes[i]))
			return true;
	return false;
}

/* *bad: a certificate was shown that is not a front proxy's. */
static const struct user *front_proxy_user(struct request *rq, bool *bad)
{
	struct authn *n = rq->s->authn;
	const struct http_headers *h = &rq->x->headers;
	bool allowed = n->n_allowed == 0;
	struct user *u;
	LIST(struct str) groups = {0};
	LIST(struct strings_pair) extra = {0};
	struct str name;

	if (!rq->s->o.requestheader_client_ca_file || !rq->x->peer)
		return NULL;
	for (size_t i = 0; i < n->n_allowed; i++)
		allowed |= str_eq(n->allowed_names[i], rq->x->peer->common_name);
	*bad |= !rq->x->peer->by_requestheader_ca || !allowed;
	name = first_header(rq, n->user_headers, n->n_user);
	if (!rq->x->peer->by_requestheader_ca || !allowed || !name.n)
		return NULL;
	u = arena_new(rq->a, struct user);
	u->name = name;
	u->uid = first_header(rq, n->uid_headers, n->n_uid);
	for (size_t j = 0; j < n->n_group; j++)
		for (size_t i = 0; i < h->n; i++)
			if (str_eq(h->v[i].name, n->group_headers[j]) && h->v[i].value.n)
				*arena_push(rq->a, &groups) = h->v[i].value;
	for (size_t i = 0; i < h->n; i++) {
		for (size_t j = 0; j < n->n_extra; j++)
			if (str_has_prefix(h->v[i].name, n->extra_prefixes[j])) {
				struct str key = extra_key(rq->a, str_sub(h->v[i].name, n->extra_prefixes[j].n, h->v[i].name.n));
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
	user_set_authenticated(rq->a, u, groups.v, groups.n);
	u->extra = extra.v;
	u->n_extra = extra.n;
	return u;
}

/* *bad: a certificate was shown that is no user's. */
static const struct user *x509_user(struct request *rq, bool *bad)
{
	const struct tls_peer *p = rq->x->peer;
	struct user *u;

	if (!p || !rq->s->o.client_ca_file)
		return NULL;
	*bad |= !p->by_client_ca || (p->common_name.n && (p->n_uids > 1 || (p->n_uids && !p->uid.n)));
	if (p->by_client_ca)
		metrics_client_certificate(p->not_after);
	if (!p->by_client_ca || !p->common_name.n || p->n_uids > 1 || (p->n_uids && !p->uid.n))
		return NULL;
	u = arena_new(rq->a, struct user);
	u->name = p->common_name;
	u->uid = p->uid;
	u->x509 = true;
	user_set_authenticated(rq->a, u, p->organizations, p->n_organizations);
	if (p->credential_id.n)
		user_add_extra(rq->a, u, "authentication.kubernetes.io/credential-id", p->credential_id);
	return u;
}

/*
 * Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.TOKEN, which must have another protocol beside it to be answered with.
 * False: there is such a thing, and it is malformed. token->n 0: there is none.
 */
static bool websocket_token(struct request *rq, struct str *token)
{
	static const char prefix[] = "base64url.bearer.authorization.k8s.io.";
	bool seen = false, others = false;

	*token = STR_NULL;
	if (!ws_requested(rq->x))
		return true;
	for (size_t i = 0; i < rq->x->headers.n; i++) {
		if (!str_eqz(rq->x->headers.v[i].name, "sec-websocket-protocol"))
			continue;
		for (struct str rest = rq->x->headers.v[i].value; rest.p;) {
			struct str p = str_trim(str_cut(&rest, ','));

			if (!str_has_prefix(p, str_from(prefix))) {
				others = true;
				continue;
			}
			p = str_sub(p, sizeof prefix - 1, p.n);
			if (seen || str_index(p, '=') >= 0 || !base64url_decode(rq->a, p, token))
				return false;
			seen = true;
		}
	}
	return !token->n || others;
}

static bool may_be_anonymous(const struct request *rq)
{
	const struct authn *n = rq->s->authn;
	bool ok = n->anonymous && !n->n_anonymous_paths;

	for (uint32_t i = 0; n->anonymous && i < n->n_anonymous_paths; i++)
		ok |= str_eq(n->anonymous_paths[i], rq->info.path);
	return ok;
}

struct error *authenticate(struct request *rq)
{
	bool bad = rq->x->peer_error != NULL, spaced = false;
	struct str token;

	rq->user = front_proxy_user(rq, &bad);
	if (!rq->user)
		rq->user = x509_user(rq, &bad);
	if (!rq->user) {
		token = bearer_token(http_header_get(&rq->x->headers, "authorization"), &spaced);
		if (spaced)
			request_warn(rq, "the Authorization header has a space too many before its token, and is not looked at");
		if (token.n) {
			rq->user = user_of_token(rq, token);
			bad |= !rq->user;
		}
	}
	if (!rq->user) {
		if (!websocket_token(rq, &token))
			bad = true;
		else if (token.n)
			bad |= !(rq->user = user_of_token(rq, token));
	}
	/* what was shown and is not good is no anonymous request */
	if (!rq->user && !bad && may_be_anonymous(rq))
		rq->user = &anonymous;
	metrics_authenticated(rq, bad && !rq->user);
	if (!rq->user)
		return err_unauthorized();
	rq->real_user = rq->user;
	return NULL;
}
