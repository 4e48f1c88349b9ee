/* Who a token belongs to: the static file, service accounts, bootstrap tokens. */
#include <openssl/crypto.h>
#include "apiserver/authn_internal.h"
#include "apiserver/csv.h"
#include "apiserver/metrics.h"

/* ---- static tokens: token,user,uid,"group1,group2": one record a line ---- */

struct error *static_tokens_load(struct apiserver *s, const char *path)
{
	struct buf b buf_cleanup = {0};
	struct str rest;
	LIST(struct static_token) list = {0};
	csv_fields f;
	int line = 1, record = 0;

	TRY(error_wrap(file_read(path, &b), "token auth file %s", path));
	for (rest = buf_view(&b);;) {
		struct static_token *t = NULL;
		csv_fields groups = {0};

		TRY(error_wrap(csv_record(&s->arena, &rest, &f, &line), "token auth file %s", path));
		if (!f.n)
			break;
		if (f.n < 3)
			return error_new("token file '%s' must have at least 3 columns (token, user name, user uid), found %u", path, f.n);
		record++;
		if (!f.v[0].n) {
			log_warn("empty token has been found in token file '%s', record number '%d'", path, record);
			continue;
		}
		for (uint32_t i = 0; i < list.n && !t; i++)
			if (str_eq(list.v[i].token, f.v[0]))
				t = &list.v[i];
		if (t)
			log_warn("duplicate token has been found in token file '%s', record number '%d'", path, record);
		else
			t = arena_push(&s->arena, &list);
		t->token = f.v[0];
		t->user = (struct user){.name = f.v[1], .uid = f.v[2]};
		if (f.n > 3)
			for (struct str g = f.v[3]; g.p;)
				*arena_push(&s->arena, &groups) = str_cut(&g, ',');
		user_set_authenticated(&s->arena, &t->user, groups.v, groups.n);
	}
	s->authn->tokens = list.v;
	s->authn->n_tokens = list.n;
	return NULL;
}

bool static_token_user(struct apiserver *s, struct str token, struct user *u)
{
	static const struct str groups[] = {STR_INIT("system:authenticated"), STR_INIT("system:masters")};
	bool found = token.n == strlen(s->loopback_token) && !CRYPTO_memcmp(s->loopback_token, token.p, token.n);

	if (found)
		*u = (struct user){.name = STR("system:apiserver"), .groups = groups, .n_groups = 2};
	/* all are compared, so that the time taken tells nothing */
	for (uint32_t i = 0; i < s->authn->n_tokens; i++) {
		const struct static_token *t = &s->authn->tokens[i];

		if (t->token.n == token.n && !CRYPTO_memcmp(t->token.p, token.p, token.n)) {
			*u = t->user;
			found = true;
		}
	}
	return found;
}

/* ---- service account tokens: bound objects ---- */

#define DELETED_LEEWAY_S 60 /* what is being deleted for longer is gone */
#define LAST_USED "kubernetes.io/legacy-token-last-used"
#define INVALID_SINCE "kubernetes.io/legacy-token-invalid-since"

static bool lives(const struct meta_v1_object_meta *m, int64_t now)
{
	return !m->deletion_timestamp || m->deletion_timestamp->s >= now - DELETED_LEEWAY_S;
}

static struct error *make_used(void *ctx, struct request *rq, const void *old, void **out)
{
	struct core_v1_secret *sec = arena_new(rq->a, struct core_v1_secret);

	object_copy(rq->a, &core_v1_secret_type, old, sec);
	str_map_set(rq->a, API_MAP(&sec->metadata.labels), STR(LAST_USED), *(const struct str *)ctx);
	*out = sec;
	return NULL;
}

/* The day on which a Secret's token was last used stands on the Secret. */
static void label_used(struct apiserver *s, struct arena *a, const struct core_v1_secret *sec)
{
	struct api_time now = time_now(), next = now;
	struct str today = str_sub(time_format(a, now, false), 0, 10), was = str_map_get(API_MAP(&sec->metadata.labels), STR(LAST_USED));
	struct request rq;
	struct write_result res;
	struct update u = {.make = make_used, .ctx = &today, .uid = sec->metadata.uid, .retry = true};
	struct error *e;

	next.s += 24 * 3600;
	if (str_eq(was, today) || str_eq(was, str_sub(time_format(a, next, false), 0, 10)))
		return;
	request_internal(&rq, s, a, resource_any(s, STR(""), STR("secrets")), sec->metadata.namespace);
	e = registry_update(&rq, sec->metadata.namespace, sec->metadata.name, &u, &res);
	if (!e)
		cache_entry_unref(res.entry);
	log_and_free(e, "labelling a service account token's secret as used");
}

static void note(struct arena *a, struct token_notes *n, const char *key, struct str value)
{
	struct str_pair *p = arena_push(a, &n->audit);

	p->key = str_from(key);
	p->value = value;
}

/* A token that stands in a Secret: what it says must be so, and the Secret still hold it. */
static bool legacy_token(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, const struct sa_claims *c,
			 struct token_notes *notes, struct str *why)
{
	struct core_v1_service_account *sa;
	struct core_v1_secret *sec;
	struct str held;
	bool own = false;

	if (!c->ns.n || !c->name.n || !c->uid.n || !c->secret_name.n ||
	    !str_eq(c->subject, arena_printf(tmp, "system:serviceaccount:%.*s:%.*s", STR_ARG(c->ns), STR_ARG(c->name)))) {
		*why = STR("a claim is missing or the sub claim is invalid");
		return false;
	}
	if (!s->o.sa_lookup)
		return true;
	sec = registry_peek(s, tmp, storage_find(s, STR(""), STR("secrets")), c->ns, c->secret_name);
	if (!sec || sec->metadata.deletion_timestamp) {
		*why = STR("Token has been invalidated");
		return false;
	}
	held = str_map_get(API_MAP(&sec->data), STR("token"));
	if (held.n != token.n || CRYPTO_memcmp(held.p, token.p, token.n)) {
		*why = STR("Token does not match server's copy");
		return false;
	}
	sa = registry_peek(s, tmp, storage_find(s, STR(""), STR("serviceaccounts")), c->ns, c->name);
	if (!sa || sa->metadata.deletion_timestamp || !str_eq(sa->metadata.uid, c->uid)) {
		*why = STR("service account does not exist, is being deleted, or its UID differs from the token's");
		return false;
	}
	if (str_map_get(API_MAP(&sec->metadata.labels), STR(INVALID_SINCE)).n) {
		metrics_count(METRIC_SA_LEGACY_INVALID, "", 1);
		*why = arena_printf(tmp, "the token in secret %.*s/%.*s has been marked invalid by the label " INVALID_SINCE, STR_ARG(c->ns),
				    STR_ARG(c->secret_name));
		label_used(s, tmp, sec);
		return false;
	}
	for (uint32_t i = 0; i < sa->secrets.n; i++)
		own |= str_eq(sa->secrets.v[i].name, c->secret_name);
	if (own)
		notes->warning = STR("the token is of a Secret that was made for the service account: ask for tokens (TokenRequest), or use a "
				     "Secret made by hand");
	note(a, notes, own ? "authentication.k8s.io/legacy-token-autogenerated-secret" : "authentication.k8s.io/legacy-token-manual-secret",
	     arena_str(a, c->secret_name));
	metrics_count(own ? METRIC_SA_LEGACY_AUTO : METRIC_SA_LEGACY_MANUAL, "", 1);
	label_used(s, tmp, sec);
	return true;
}

/* The service account and the object that the token is bound to are there still. */
static bool bound_token(struct apiserver *s, struct arena *tmp, const struct sa_claims *c, struct str *why)
{
	struct core_v1_service_account *sa = registry_peek(s, tmp, storage_find(s, STR(""), STR("serviceaccounts")), c->ns, c->name);
	int64_t now = wall_ns() / 1000000000;

	if (!sa || !str_eq(sa->metadata.uid, c->uid)) {
		*why = STR("service account does not exist or its UID differs from the token's");
		return false;
	}
	if (!lives(&sa->metadata, now)) {
		*why = STR("service account has been deleted");
		return false;
	}
	*why = STR("service account token has been invalidated");
	if (c->secret_name.p) {
		struct core_v1_secret *sec = registry_peek(s, tmp, storage_find(s, STR(""), STR("secrets")), c->ns, c->secret_name);

		if (!sec || !str_eq(sec->metadata.uid, c->secret_uid) || !lives(&sec->metadata, now))
			return false;
	}
	if (c->pod_name.p) {
		struct core_v1_pod *pod = registry_peek(s, tmp, storage_find(s, STR(""), STR("pods")), c->ns, c->pod_name);

		if (!pod || !str_eq(pod->metadata.uid, c->pod_uid) || !lives(&pod->metadata, now))
			return false;
	} else if (c->node_name.p) {
		struct core_v1_node *node = registry_peek(s, tmp, storage_find(s, STR(""), STR("nodes")), STR_NULL, c->node_name);

		if (!node || !str_eq(node->metadata.uid, c->node_uid) || !lives(&node->metadata, now))
			return false;
	}
	return true;
}

bool service_account_user(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, const struct sa_claims *c, struct user *u,
			  struct token_notes *notes, struct str *why)
{
	int64_t now = wall_ns() / 1000000000;
	struct str groups[2];

	if (!(c->legacy ? legacy_token(s, tmp, a, token, c, notes, why) : bound_token(s, tmp, c, why)))
		return false;
	if (c->legacy)
		metrics_count(METRIC_SA_LEGACY, "", 1);
	else
		metrics_count(METRIC_SA_VALID, "", 1);
	if (c->warn_after && now > c->warn_after)
		metrics_count(METRIC_SA_STALE, "", 1);
	if (c->no_audience)
		note(a, notes, "authentication.k8s.io/legacy-token", arena_str(a, c->subject));
	if (c->warn_after && now > c->warn_after)
		note(a, notes, "authentication.k8s.io/stale-token",
		     arena_printf(a, "subject: %.*s, seconds after warning threshold: %lld", STR_ARG(c->subject), (long long)(now - c->warn_after)));
	memset(u, 0, sizeof *u);
	u->name = arena_printf(a, "system:serviceaccount:%.*s:%.*s", STR_ARG(c->ns), STR_ARG(c->name));
	u->uid = arena_str(a, c->uid);
	groups[0] = STR("system:serviceaccounts");
	groups[1] = arena_printf(a, "system:serviceaccounts:%.*s", STR_ARG(c->ns));
	user_set_authenticated(a, u, groups, 2);
	if (c->legacy)
		return true;
	if (c->jti.n)
		user_add_extra(a, u, "authentication.kubernetes.io/credential-id", arena_printf(a, "JTI=%.*s", STR_ARG(c->jti)));
	user_add_extra(a, u, "authentication.kubernetes.io/node-name", c->node_name);
	if (c->node_name.n)
		user_add_extra(a, u, "authentication.kubernetes.io/node-uid", c->node_uid);
	if (c->pod_name.n && c->pod_uid.n) {
		user_add_extra(a, u, "authentication.kubernetes.io/pod-name", c->pod_name);
		user_add_extra(a, u, "authentication.kubernetes.io/pod-uid", c->pod_uid);
	}
	return true;
}

/* ---- bootstrap tokens: Secrets kube-system/bootstrap-token-ID ---- */

static struct str secret_data(const struct core_v1_secret *sec, const char *key)
{
	return str_map_get(API_MAP(&sec->data), str_from(key));
}

static bool bootstrap_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9] */
static bool bootstrap_group(struct str g)
{
	static const char prefix[] = "system:bootstrappers:";
	struct str rest;

	if (!str_has_prefix(g, str_from(prefix)))
		return false;
	rest = str_sub(g, sizeof prefix - 1, g.n);
	if (!rest.n || rest.n > 256 || !bootstrap_char(rest.p[rest.n - 1]))
		return false;
	for (size_t i = 0; i < rest.n; i++)
		if (!bootstrap_char(rest.p[i]) && rest.p[i] != ':' && rest.p[i] != '-')
			return false;
	return true;
}

static int str_order(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

bool bootstrap_token_user(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, struct user *u)
{
	struct str id, secret, want, text, name;
	struct core_v1_secret *sec;
	LIST(struct str) groups = {0};

	if (token.n != 23 || token.p[6] != '.')
		return false;
	for (size_t i = 0; i < token.n; i++)
		if (i != 6 && !bootstrap_char(token.p[i]))
			return false;
	id = str_sub(token, 0, 6);
	secret = str_sub(token, 7, 23);
	name = arena_printf(tmp, "bootstrap-token-%.*s", STR_ARG(id));
	sec = registry_peek(s, tmp, storage_find(s, STR(""), STR("secrets")), STR("kube-system"), name);
	if (!sec)
		return false;
#define REFUSE(...)                                                                                                      \
	do {                                                                                                             \
		log_v(2, "bootstrap secret kube-system/" __VA_ARGS__);                                                   \
		return false;                                                                                            \
	} while (0)
	if (sec->metadata.deletion_timestamp)
		REFUSE("%.*s is deleted and awaiting removal", STR_ARG(name));
	if (!str_eqz(sec->type, "bootstrap.kubernetes.io/token"))
		REFUSE("%.*s has invalid type", STR_ARG(name));
	want = secret_data(sec, "token-secret");
	if (want.n != secret.n || CRYPTO_memcmp(want.p, secret.p, want.n))
		REFUSE("%.*s has invalid value for key token-secret", STR_ARG(name));
	if (!str_eq(secret_data(sec, "token-id"), id))
		REFUSE("%.*s has invalid value for key token-id", STR_ARG(name));
	text = secret_data(sec, "expiration");
	if (text.n) {
		struct api_time t;

		/* what cannot be read has expired */
		if (!time_parse(text, &t) || t.s * 1000000000 + t.ns <= wall_ns())
			REFUSE("%.*s has expired", STR_ARG(name));
	}
	if (!str_eqz(secret_data(sec, "usage-bootstrap-authentication"), "true"))
		REFUSE("%.*s is not marked usage-bootstrap-authentication=true", STR_ARG(name));
	*arena_push(tmp, &groups) = STR("system:bootstrappers");
	text = secret_data(sec, "auth-extra-groups");
	if (!text.n)
		text = STR_NULL;
	while (text.p) {
		struct str g = str_cut(&text, ',');
		bool seen = false;

		if (!bootstrap_group(g))
			REFUSE("%.*s has invalid value for key auth-extra-groups", STR_ARG(name));
		for (uint32_t i = 0; i < groups.n; i++)
			seen |= str_eq(groups.v[i], g);
		if (!seen)
			*arena_push(tmp, &groups) = g;
	}
#undef REFUSE
	qsort(groups.v, groups.n, sizeof *groups.v, str_order);
	memset(u, 0, sizeof *u);
	u->name = arena_printf(a, "system:bootstrap:%.*s", STR_ARG(id));
	user_set_authenticated(a, u, groups.v, groups.n);
	return true;
}
