/* Who a token belongs to: the static file, service accounts, bootstrap tokens. */
#include <openssl/crypto.h>
#include "apiserver/authn_internal.h"

/* ---- static tokens: token,user,uid,"group1,group2": one record a line, as Go's encoding/csv reads it ---- */

typedef LIST(struct str) str_list;

static struct error *csv_quoted(struct arena *a, struct str *rest, struct str *field, int *line)
{
	struct buf b buf_cleanup = {0};
	size_t i = 1;

	for (;; i++) {
		if (i >= rest->n)
			return error_new("line %d: extraneous or missing \" in quoted-field", *line);
		if (rest->p[i] == '"') {
			if (i + 1 >= rest->n || rest->p[i + 1] != '"')
				break;
			i++;
		}
		if (rest->p[i] == '\r' && i + 1 < rest->n && rest->p[i + 1] == '\n')
			continue;
		if (rest->p[i] == '\n')
			++*line;
		buf_putc(&b, rest->p[i]);
	}
	i++;
	if (i < rest->n && rest->p[i] == '\r' && i + 1 < rest->n && rest->p[i + 1] == '\n')
		i++;
	if (i < rest->n && rest->p[i] != ',' && rest->p[i] != '\n')
		return error_new("line %d: extraneous or missing \" in quoted-field", *line);
	*rest = str_sub(*rest, i, rest->n);
	*field = arena_str(a, buf_view(&b));
	return NULL;
}

/* The next record that is not an empty line; fields->n == 0 at the end. */
static struct error *csv_record(struct arena *a, struct str *rest, str_list *fields, int *line)
{
	memset(fields, 0, sizeof *fields);
	for (;;) {
		if (str_has_prefix(*rest, STR("\r\n")))
			*rest = str_sub(*rest, 2, rest->n);
		else if (rest->n && rest->p[0] == '\n')
			*rest = str_sub(*rest, 1, rest->n);
		else
			break;
		++*line;
	}
	while (rest->n || fields->n) {
		struct str *f = arena_push(a, fields);

		if (rest->n && rest->p[0] == '"') {
			TRY(csv_quoted(a, rest, f, line));
		} else {
			size_t i = 0;

			while (i < rest->n && rest->p[i] != ',' && rest->p[i] != '\n') {
				if (rest->p[i] == '"')
					return error_new("line %d: bare \" in non-quoted-field", *line);
				i++;
			}
			*f = arena_str(a, str_sub(*rest, 0, i && i < rest->n && rest->p[i] == '\n' && rest->p[i - 1] == '\r' ? i - 1 : i));
			*rest = str_sub(*rest, i, rest->n);
		}
		if (!rest->n)
			return NULL;
		if (rest->p[0] == '\n') {
			*rest = str_sub(*rest, 1, rest->n);
			++*line;
			return NULL;
		}
		*rest = str_sub(*rest, 1, rest->n);
	}
	return NULL;
}

struct error *static_tokens_load(struct apiserver *s, const char *path)
{
	struct buf b buf_cleanup = {0};
	struct str rest;
	LIST(struct static_token) list = {0};
	str_list f;
	int line = 1, record = 0;

	TRY(error_wrap(file_read(path, &b), "token auth file %s", path));
	for (rest = buf_view(&b);;) {
		struct static_token *t = NULL;
		str_list groups = {0};

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
		user_set_groups(&s->arena, &t->user, groups.v, groups.n, "system:authenticated");
	}
	s->authn->tokens = list.v;
	s->authn->n_tokens = list.n;
	return NULL;
}

bool static_token_user(struct apiserver *s, struct str token, struct user *u)
{
	bool found = false;

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

bool service_account_user(struct apiserver *s, struct arena *tmp, struct arena *a, const struct sa_claims *c, struct user *u, struct str *why)
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
	user_set_groups(a, u, groups, 2, "system:authenticated");
	if (c->jti.n)
		user_add_extra(a, u, "authentication.kubernetes.io/credential-id", arena_printf(a, "JTI=%.*s", STR_ARG(c->jti)));
	user_add_extra(a, u, "authentication.kubernetes.io/node-name", c->node_name);
	user_add_extra(a, u, "authentication.kubernetes.io/node-uid", c->node_uid);
	user_add_extra(a, u, "authentication.kubernetes.io/pod-name", c->pod_name);
	user_add_extra(a, u, "authentication.kubernetes.io/pod-uid", c->pod_uid);
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
	while (text.p && text.n) {
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
	user_set_groups(a, u, groups.v, groups.n, "system:authenticated");
	return true;
}
