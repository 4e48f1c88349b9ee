/* The authorizers in order, and what a refusal says. */
#include "apiserver/authz.h"

struct error *authz_init(struct apiserver *s)
{
	struct str rest = str_from(s->o.authorization_mode ? s->o.authorization_mode : "Node,RBAC");

	while (rest.p && rest.n) {
		struct str m = str_trim(str_cut(&rest, ','));

		if (!str_eqz(m, "Node") && !str_eqz(m, "RBAC") && !str_eqz(m, "AlwaysAllow") && !str_eqz(m, "AlwaysDeny"))
			return error_new("--authorization-mode %.*s is not built; known are Node, RBAC, AlwaysAllow, AlwaysDeny", STR_ARG(m));
	}
	TRY(rbac_init(s));
	return node_authz_init(s);
}

enum authz authorize(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason)
{
	struct str rest = str_from(s->o.authorization_mode ? s->o.authorization_mode : "Node,RBAC"), why = STR_NULL;

	if (reason)
		*reason = STR_NULL;
	if (user_in_group(at->user, "system:masters"))
		return AUTHZ_ALLOW;
	while (rest.p && rest.n) {
		struct str m = str_trim(str_cut(&rest, ',')), r = STR_NULL;
		enum authz d = AUTHZ_NO_OPINION;

		if (str_eqz(m, "RBAC"))
			d = rbac_authorize(s, a, at, &r);
		else if (str_eqz(m, "Node"))
			d = node_authorize(s, a, at, &r);
		else if (str_eqz(m, "AlwaysAllow"))
			d = AUTHZ_ALLOW;
		else if (str_eqz(m, "AlwaysDeny"))
			r = STR("Everything is forbidden.");
		if (d != AUTHZ_NO_OPINION) {
			if (reason)
				*reason = r;
			return d;
		}
		if (r.n)
			why = r;
	}
	if (reason)
		*reason = why;
	return AUTHZ_NO_OPINION;
}

struct authz_attrs authz_attrs_of(const struct request *rq)
{
	const struct request_info *i = &rq->info;

	return (struct authz_attrs){
		.user = rq->user, .verb = i->verb, .resource_request = i->resource_request, .ns = i->ns, .group = i->group,
		.version = i->version, .resource = i->resource, .subresource = i->subresource, .name = i->name, .path = i->path,
	};
}

struct str authz_forbidden_text(struct arena *a, const struct authz_attrs *at)
{
	struct str r = at->subresource.n ? arena_printf(a, "%.*s/%.*s", STR_ARG(at->resource), STR_ARG(at->subresource)) : at->resource;

	if (!at->resource_request)
		return arena_printf(a, "User \"%.*s\" cannot %.*s path \"%.*s\"", STR_ARG(at->user->name), STR_ARG(at->verb),
				    STR_ARG(at->path));
	if (at->ns.n)
		return arena_printf(a, "User \"%.*s\" cannot %.*s resource \"%.*s\" in API group \"%.*s\" in the namespace \"%.*s\"",
				    STR_ARG(at->user->name), STR_ARG(at->verb), STR_ARG(r), STR_ARG(at->group), STR_ARG(at->ns));
	return arena_printf(a, "User \"%.*s\" cannot %.*s resource \"%.*s\" in API group \"%.*s\" at the cluster scope",
			    STR_ARG(at->user->name), STR_ARG(at->verb), STR_ARG(r), STR_ARG(at->group));
}

struct error *authorize_request(struct request *rq)
{
	struct authz_attrs at = authz_attrs_of(rq);
	struct str reason = STR_NULL, text;

	if (authorize(rq->s, rq->a, &at, &reason) == AUTHZ_ALLOW)
		return NULL;
	text = authz_forbidden_text(rq->a, &at);
	if (!at.resource_request)
		return err_forbidden(STR_NULL, STR_NULL, STR_NULL, "%.*s%s%.*s", STR_ARG(text), reason.n ? ": " : "", STR_ARG(reason));
	return err_forbidden(at.group, at.resource, at.name, "%.*s%s%.*s", STR_ARG(text), reason.n ? ": " : "", STR_ARG(reason));
}
