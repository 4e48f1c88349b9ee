/* Acting as somebody else: the Impersonate-* headers. */
#include "apiserver/authn_internal.h"
#include "apiserver/authz.h"

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
		user_set_groups(rq->a, u, groups.v, groups.n, "system:unauthenticated");
	else
		user_set_groups(rq->a, u, groups.v, groups.n, "system:authenticated");
	rq->user = u;
	return NULL;
}
