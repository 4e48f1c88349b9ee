/*
 * Acting as somebody else: the Impersonate-* headers. First the constrained modes (KEP-5284): a right to do this very request as such a
 * user, and a right to be it; then the older one, which is a right to be it whatever is done.
 */
#include "apiserver/authn_internal.h"
#include "apiserver/authz.h"
#include "apiserver/metrics.h"
#include "schema/validate.h"

#define NODE_KEY "authentication.kubernetes.io/node-name"
#define MODES_KEPT 10000
#define MANY 4 /* so many groups or extra values are first asked for at once */

enum mode { ASSOCIATED_NODE, ARBITRARY_NODE, SERVICE_ACCOUNT, USER_INFO, LEGACY, N_MODES };
static const char *const mode_names[N_MODES] = {"associated-node", "arbitrary-node", "serviceaccount", "user-info", ""};

struct wanted {
	struct str name, uid;
	LIST(struct str) groups;
	LIST(struct strings_pair) extra;
	struct str node;                  /* of system:node:NAME, or empty */
	struct str sa_ns, sa_name;        /* of system:serviceaccount:NS:NAME, or empty */
};

static void count(enum metric_id n, enum metric_id time, const char *mode, bool allowed, int64_t since_ns)
{
	char labels[80];

	snprintf(labels, sizeof labels, "decision=\"%s\",mode=\"%s\"", allowed ? "allowed" : "denied", mode);
	metrics_count(n, labels, 1);
	metrics_observe(time, labels, (double)(now_ns() - since_ns) / 1e9);
}

static struct error *check(struct request *rq, const struct authz_attrs *at, enum mode m)
{
	struct str reason, trouble, text;
	int64_t since = now_ns();
	bool allowed = authorize_explained(rq->s, rq->a, at, &reason, &trouble) == AUTHZ_ALLOW;

	count(METRIC_IMPERSONATION_CHECKS, METRIC_IMPERSONATION_CHECK_TIME, m == LEGACY ? "legacy" : mode_names[m], allowed, since);
	if (allowed)
		return NULL;
	if (trouble.p)
		reason = reason.n ? arena_printf(rq->a, "%.*s: %.*s", STR_ARG(trouble), STR_ARG(reason)) : trouble;
	text = authz_forbidden_text(rq->a, at);
	return err_forbidden(at->group, at->resource, at->name, "%.*s%s%.*s", STR_ARG(text), reason.n ? ": " : "", STR_ARG(reason));
}

static struct error *forbidden(struct request *rq, const struct authz_attrs *at, const char *why)
{
	return err_forbidden(at->group, at->resource, at->name, "%.*s: %s", STR_ARG(authz_forbidden_text(rq->a, at)), why);
}

/* ---- what is wanted ---- */

static void add_extra(struct arena *a, struct wanted *w, struct str key, struct str value)
{
	struct strings_pair *p = NULL;

	for (uint32_t k = 0; k < w->extra.n; k++)
		if (str_eq(w->extra.v[k].key, key))
			p = &w->extra.v[k];
	if (!p) {
		p = arena_push(a, &w->extra);
		p->key = key;
	}
	*arena_push(a, &p->value) = value;
}

static void parse_name(struct arena *a, struct wanted *w)
{
	static const char node[] = "system:node:", sa[] = "system:serviceaccount:";
	struct str rest, ns;

	if (str_has_prefix(w->name, str_from(node))) {
		rest = str_sub(w->name, sizeof node - 1, w->name.n);
		if (!validate_dns1123_subdomain(a, rest))
			w->node = rest;
	} else if (str_has_prefix(w->name, str_from(sa))) {
		rest = str_sub(w->name, sizeof sa - 1, w->name.n);
		ns = str_cut(&rest, ':');
		if (rest.p && !validate_dns1123_label(a, ns) && !validate_dns1123_subdomain(a, rest)) {
			w->sa_ns = ns;
			w->sa_name = rest;
		}
	}
}

/* As Go's %#v prints a user. */
static struct str go_text(struct arena *a, const struct wanted *w)
{
	struct buf b buf_cleanup = {0};

	buf_printf(&b, "&user.DefaultInfo{Name:\"\", UID:\"%.*s\", Groups:[]string", STR_ARG(w->uid));
	for (uint32_t i = 0; i < w->groups.n; i++)
		buf_printf(&b, "%s\"%.*s\"", i ? ", " : "{", STR_ARG(w->groups.v[i]));
	buf_puts(&b, w->groups.n ? "}, Extra:map[string][]string" : "(nil), Extra:map[string][]string");
	for (uint32_t i = 0; i < w->extra.n; i++) {
		buf_printf(&b, "%s\"%.*s\":[]string{", i ? ", " : "{", STR_ARG(w->extra.v[i].key));
		for (uint32_t k = 0; k < w->extra.v[i].value.n; k++)
			buf_printf(&b, "%s\"%.*s\"", k ? ", " : "", STR_ARG(w->extra.v[i].value.v[k]));
		buf_putc(&b, '}');
	}
	buf_puts(&b, w->extra.n ? "}}" : "(nil)}");
	return arena_str(a, buf_view(&b));
}

static struct error *parse(struct request *rq, struct wanted *w)
{
	static const char prefix[] = "impersonate-extra-";
	const struct http_headers *h = &rq->x->headers;

	*w = (struct wanted){.name = http_header_get(h, "impersonate-user"), .uid = http_header_get(h, "impersonate-uid")};
	for (size_t i = 0; i < h->n; i++) {
		if (str_eqz(h->v[i].name, "impersonate-group"))
			*arena_push(rq->a, &w->groups) = h->v[i].value;
		else if (str_has_prefix(h->v[i].name, str_from(prefix)))
			add_extra(rq->a, w, extra_key(rq->a, str_sub(h->v[i].name, sizeof prefix - 1, h->v[i].name.n)), h->v[i].value);
	}
	if (!w->name.n && (w->uid.n || w->groups.n || w->extra.n))
		return err_bad_request("requested %.*s without impersonating a user name", STR_ARG(go_text(rq->a, w)));
	parse_name(rq->a, w);
	return NULL;
}

/* ---- modes ---- */

static bool mode_applies(const struct request *rq, const struct wanted *w, enum mode m)
{
	bool only_name = !w->uid.n && !w->groups.n && !w->extra.n;
	const struct user *me = rq->real_user;

	switch (m) {
	case ASSOCIATED_NODE:
		if (!only_name || !w->node.n || !str_has_prefix(me->name, STR("system:serviceaccount:")))
			return false;
		for (size_t i = 0; i < me->n_extra; i++)
			if (str_eqz(me->extra[i].key, NODE_KEY))
				return me->extra[i].value.n == 1 && str_eq(me->extra[i].value.v[0], w->node);
		return false;
	case ARBITRARY_NODE:
		return only_name && w->node.n;
	case SERVICE_ACCOUNT:
		return only_name && w->sa_name.n;
	case USER_INFO:
		return !w->node.n && !w->sa_name.n;
	default:
		return true;
	}
}

static int key_cmp(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

/* A service account that acts as its own node is asked for without what differs from pod to pod. */
static const struct user *requestor(struct request *rq, enum mode m)
{
	const struct user *me = rq->real_user;
	struct user *u;
	struct strings_pair *p;

	if (m != ASSOCIATED_NODE)
		return me;
	u = arena_new(rq->a, struct user);
	*u = *me;
	p = arena_new(rq->a, struct strings_pair);
	p->key = STR("authentication.kubernetes.io/associated-node-keys");
	for (size_t i = 0; i < me->n_extra; i++)
		*arena_push(rq->a, &p->value) = me->extra[i].key;
	qsort(p->value.v, p->value.n, sizeof *p->value.v, key_cmp);
	u->extra = p;
	u->n_extra = 1;
	return u;
}

static struct error *check_name(struct request *rq, const struct wanted *w, enum mode m, struct authz_attrs at)
{
	at.resource = STR("users");
	at.name = w->name;
	if (m != LEGACY && w->node.n) {
		at.resource = STR("nodes");
		at.name = m == ASSOCIATED_NODE ? STR("*") : w->node;
	} else if (w->sa_name.n) {
		at.resource = STR("serviceaccounts");
		at.ns = w->sa_ns;
		at.name = w->sa_name;
	}
	return check(rq, &at, m);
}

static struct error *check_groups(struct request *rq, const struct wanted *w, enum mode m, struct authz_attrs at)
{
	at.resource = STR("groups");
	for (uint32_t i = 0; m != LEGACY && i < w->groups.n; i++) {
		if (!w->groups.v[i].n)
			return forbidden(rq, &at, "impersonating the empty string group is not allowed");
		if (str_eqz(w->groups.v[i], "system:masters")) {
			at.name = w->groups.v[i];
			return forbidden(rq, &at, "impersonating the system:masters group is not allowed");
		}
	}
	if (m != LEGACY && w->groups.n >= MANY) {
		struct error *e;

		at.name = STR("*");
		e = check(rq, &at, m);
		if (!e)
			return NULL;
		error_free(e);
	}
	for (uint32_t i = 0; i < w->groups.n; i++) {
		at.name = w->groups.v[i];
		TRY(check(rq, &at, m));
	}
	return NULL;
}

/* Constrained modes take only keys that an authenticator of today would give. */
static const char *bad_extra(struct arena *a, const struct strings_pair *p)
{
	struct str path = p->key, domain = str_cut(&path, '/');

	if (!p->key.n)
		return "impersonating the empty string key in extra is not allowed";
	if (!path.p || !path.n || !domain.n || validate_dns1123_subdomain(a, domain))
		return arena_printf(a, "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: \"%.*s\": must be a "
				       "domain-prefixed path (such as \"acme.io/foo\")", STR_ARG(p->key)).p;
	for (uint32_t i = 0; i < p->value.n; i++)
		if (!p->value.v[i].n)
			return "impersonating the empty string value in extra is not allowed";
	return NULL;
}

static struct error *check_extra(struct request *rq, const struct wanted *w, enum mode m, struct authz_attrs at)
{
	uint32_t n = 0;

	at.group = STR("authentication.k8s.io");
	at.resource = STR("userextras");
	for (uint32_t i = 0; i < w->extra.n; i++) {
		const char *bad = m == LEGACY ? NULL : bad_extra(rq->a, &w->extra.v[i]);

		if (bad)
			return forbidden(rq, &at, bad);
		n += w->extra.v[i].value.n;
	}
	if (m != LEGACY && n >= MANY) {
		struct error *e;

		at.subresource = at.name = STR("*");
		e = check(rq, &at, m);
		if (!e)
			return NULL;
		error_free(e);
	}
	for (uint32_t i = 0; i < w->extra.n; i++)
		for (uint32_t k = 0; k < w->extra.v[i].value.n; k++) {
			at.subresource = w->extra.v[i].key;
			at.name = w->extra.v[i].value.v[k];
			TRY(check(rq, &at, m));
		}
	return NULL;
}

static struct error *check_mode(struct request *rq, const struct wanted *w, enum mode m)
{
	const struct user *me = requestor(rq, m);
	struct authz_attrs at = {.user = me, .resource_request = true, .version = STR("v1")}, on;

	if (m == LEGACY) {
		at.verb = STR("impersonate");
	} else {
		on = authz_attrs_of(rq);
		on.user = me;
		on.verb = arena_printf(rq->a, "impersonate-on:%s:%.*s", mode_names[m], STR_ARG(on.verb));
		TRY(check(rq, &on, m));
		at.verb = arena_printf(rq->a, "impersonate:%s", mode_names[m]);
		at.group = STR("authentication.k8s.io");
	}
	TRY(check_name(rq, w, m, at));
	if (w->uid.n) {
		struct authz_attrs uid = at;

		uid.group = STR("authentication.k8s.io");
		uid.resource = STR("uids");
		uid.name = w->uid;
		TRY(check(rq, &uid, m));
	}
	TRY(check_groups(rq, w, m, at));
	return check_extra(rq, w, m, at);
}

/* ---- who it is then ---- */

static bool has_group(const struct wanted *w, const char *group)
{
	for (uint32_t i = 0; i < w->groups.n; i++)
		if (str_eqz(w->groups.v[i], group))
			return true;
	return false;
}

static const struct user *become(struct request *rq, struct wanted *w, enum mode m)
{
	struct user *u = arena_new(rq->a, struct user);
	const char *add = str_eqz(w->name, "system:anonymous")   ? "system:unauthenticated" :
			  !has_group(w, "system:unauthenticated") ? "system:authenticated" :
								    NULL;

	u->name = w->name;
	u->uid = w->uid;
	u->extra = w->extra.v;
	u->n_extra = w->extra.n;
	if (m != LEGACY && w->node.n) {
		*arena_push(rq->a, &w->groups) = STR("system:nodes");
	} else if (w->sa_name.n && !w->groups.n) {
		*arena_push(rq->a, &w->groups) = STR("system:serviceaccounts");
		*arena_push(rq->a, &w->groups) = arena_printf(rq->a, "system:serviceaccounts:%.*s", STR_ARG(w->sa_ns));
	}
	user_set_groups(rq->a, u, w->groups.v, w->groups.n, add);
	return u;
}

/* The mode that worked last for a user is tried first; 0: none, else 1 + mode. As upstream's modeIndexCache. */
static uintptr_t last_mode(const struct request *rq)
{
	return (uintptr_t)map_get(&rq->s->impersonation_modes, rq->real_user->name);
}

static void remember_mode(const struct request *rq, enum mode m)
{
	struct map *modes = &rq->s->impersonation_modes;

	if (last_mode(rq) == m + 1u)
		return;
	if (modes->n >= MODES_KEPT)
		map_free(modes);
	map_set(modes, rq->real_user->name, (void *)(uintptr_t)(m + 1u));
}

/* *mode: by which it may, "" for none. */
static struct error *try_modes(struct request *rq, struct wanted *w, const char **mode)
{
	struct error *first = NULL;
	uintptr_t known = last_mode(rq);

	for (int i = known ? -1 : 0; i < N_MODES; i++) {
		enum mode m = i < 0 ? (enum mode)(known - 1) : (enum mode)i;
		struct error *e;

		if (!mode_applies(rq, w, m) || (i >= 0 && known == m + 1u))
			continue;
		e = check_mode(rq, w, m);
		if (!e) {
			error_free(first);
			remember_mode(rq, m);
			rq->user = become(rq, w, m);
			*mode = m == LEGACY ? "legacy" : mode_names[m];
			if (m != LEGACY)
				rq->impersonation = arena_printf(rq->a, "impersonate:%s", mode_names[m]);
			return NULL;
		}
		if (first)
			error_free(e);
		else
			first = e;
	}
	return first;
}

struct error *impersonate(struct request *rq)
{
	struct wanted w;
	struct error *e = parse(rq, &w);

	if (!e && w.name.n) {
		int64_t since = now_ns();
		const char *mode = "";

		e = try_modes(rq, &w, &mode);
		rq->spent_ns.impersonation = now_ns() - since;
		count(METRIC_IMPERSONATIONS, METRIC_IMPERSONATION_TIME, mode, !e, since);
	}
	if (e)
		http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	return e;
}
