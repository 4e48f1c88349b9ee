/* The authorizers in order, and what a refusal says. */
#include "apiserver/authz_internal.h"
#include "apiserver/metrics.h"
#include "schema/selector.h"

struct error *authz_init(struct apiserver *s)
{
	s->authz = xcalloc(1, sizeof *s->authz);
	TRY(authz_config_init(s));
	TRY(rbac_init(s));
	return node_authz_init(s);
}

static enum authz ask(struct apiserver *s, const struct authorizer *z, struct arena *a, const struct authz_attrs *at, struct str *reason,
		      struct str *trouble)
{
	switch (z->type) {
	case AUTHORIZER_RBAC:
		return rbac_authorize(s, a, at, reason);
	case AUTHORIZER_NODE:
		return node_authorize(s, a, at, reason);
	case AUTHORIZER_WEBHOOK:
		return authz_webhook_ask(z->webhook, a, at, reason, trouble);
	case AUTHORIZER_ABAC:
		return abac_authorize(z->abac, at, reason);
	case AUTHORIZER_ALWAYS_ALLOW:
		return AUTHZ_ALLOW;
	case AUTHORIZER_ALWAYS_DENY:
		*reason = STR("Everything is forbidden.");
		return AUTHZ_NO_OPINION;
	case N_AUTHORIZER_TYPES:
		break;
	}
	return AUTHZ_NO_OPINION;
}

enum authz authorize_explained(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason, struct str *trouble)
{
	struct authz_chain *c = s->authz->chain;
	struct buf reasons buf_cleanup = {0}, troubles buf_cleanup = {0};
	enum authz d = AUTHZ_NO_OPINION;

	*reason = *trouble = STR_NULL;
	if (user_in_group(at->user, "system:masters"))
		return AUTHZ_ALLOW;
	c->refs++;
	for (uint32_t i = 0; i < c->n && d == AUTHZ_NO_OPINION; i++) {
		struct str r = STR_NULL, t = STR_NULL;

		d = ask(s, &c->v[i], a, at, &r, &t);
		if (d != AUTHZ_NO_OPINION) {
			metrics_count(METRIC_AUTHZ_DECISIONS, d == AUTHZ_ALLOW ? c->v[i].allowed : c->v[i].denied, 1);
			*reason = arena_str(a, r);
			*trouble = t.p ? arena_str(a, t) : STR_NULL;
		}
		if (r.n)
			buf_printf(&reasons, "%s%.*s", reasons.n ? "\n" : "", STR_ARG(r));
		if (t.p)
			buf_printf(&troubles, "%s%.*s", troubles.n ? ", " : "", STR_ARG(t));
	}
	authz_chain_unref(c);
	if (d == AUTHZ_NO_OPINION) {
		*reason = arena_str(a, buf_view(&reasons));
		if (troubles.n)
			*trouble = arena_str(a, buf_view(&troubles));
	}
	return d;
}

enum authz authorize(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason)
{
	struct str r, trouble;
	enum authz d = authorize_explained(s, a, at, &r, &trouble);

	if (reason)
		*reason = r;
	return d;
}

static void everything(struct arena *a, struct rbac_v1_policy_rule_list *out)
{
	struct rbac_v1_policy_rule *r = arena_push(a, out);

	*arena_push(a, &r->verbs) = *arena_push(a, &r->api_groups) = *arena_push(a, &r->resources) = *arena_push(a, &r->non_resource_urls) = STR("*");
}

void authz_untold_add(struct arena *a, struct authz_untold *u, struct str text)
{
	if (u->n == AUTHZ_UNTOLD_MAX)
		return;
	for (uint32_t i = 0; i < u->n; i++)
		if (str_eq(u->v[i], text))
			return;
	*arena_push(a, u) = text;
}

struct str authz_untold_text(struct arena *a, const struct authz_untold *u)
{
	struct buf b buf_cleanup = {0};

	for (uint32_t i = 0; i < u->n; i++)
		buf_printf(&b, "%s%.*s", i ? ", " : u->n > 1 ? "[" : "", STR_ARG(u->v[i]));
	if (u->n > 1)
		buf_putc(&b, ']');
	return arena_str(a, buf_view(&b));
}

bool authz_rules_for(struct apiserver *s, struct arena *a, const struct user *u, struct str ns, struct rbac_v1_policy_rule_list *out,
		     struct authz_untold *untold)
{
	const struct authz_chain *c = s->authz->chain;
	bool complete = true;
	struct str node;

	for (uint32_t i = 0; i < c->n; i++) {
		enum authorizer_type type = c->v[i].type;
		const char *silent = type == AUTHORIZER_WEBHOOK			      ? "webhook" :
				     type == AUTHORIZER_NODE && user_is_node(u, &node) ? "node" :
											 NULL;

		if (type == AUTHORIZER_RBAC)
			rbac_rules_for(s, a, u, ns, out, untold);
		else if (type == AUTHORIZER_ABAC)
			abac_rules_for(c->v[i].abac, a, u, ns, out);
		else if (type == AUTHORIZER_ALWAYS_ALLOW)
			everything(a, out);
		if (silent) {
			authz_untold_add(a, untold, arena_printf(a, "%s authorizer does not support user rule resolution", silent));
			complete = false;
		}
	}
	return complete;
}

void authz_selectors(struct arena *a, struct authz_attrs *at, struct str fields, struct str labels)
{
	const struct selector *sel = NULL;
	LIST(struct meta_v1_field_selector_requirement) f = {0};
	struct label_requirements l = {0};
	struct str key, value;
	bool neg;
	struct error *e = fields.n ? field_selector_parse(a, fields, &sel) : NULL;

	at->fields_broken |= e != NULL;
	for (size_t i = 0; !e && field_selector_get(sel, i, &key, &value, &neg); i++) {
		struct meta_v1_field_selector_requirement *r = arena_push(a, &f);

		r->key = key;
		r->operator = neg ? STR("NotIn") : STR("In");
		*arena_push(a, &r->values) = value;
	}
	error_clear(&e);
	sel = NULL;
	e = labels.n ? label_selector_parse(a, labels, &sel) : NULL;
	at->labels_broken |= e != NULL;
	if (!e)
		label_selector_requirements(a, sel, &l);
	error_free(e);
	at->fields = f.v;
	at->n_fields = f.n;
	at->labels = l.v;
	at->n_labels = l.n;
}

struct authz_attrs authz_attrs_of(struct request *rq)
{
	const struct request_info *i = &rq->info;
	struct authz_attrs at = {
		.user = rq->user, .verb = i->verb, .resource_request = i->resource_request, .ns = i->ns, .group = i->group,
		.version = i->version, .resource = i->resource, .subresource = i->subresource, .name = i->name, .path = i->path,
		.rq = rq,
	};

	if (i->field_selector || i->label_selector)
		authz_selectors(rq->a, &at, str_from(i->field_selector), str_from(i->label_selector));
	return at;
}

/* Errors must not look like HTML. */
static struct str sanitized(struct arena *a, struct str s)
{
	struct buf b buf_cleanup = {0};

	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '&')
			buf_puts(&b, "&amp;");
		else if (s.p[i] == '<')
			buf_puts(&b, "&lt;");
		else if (s.p[i] == '>')
			buf_puts(&b, "&gt;");
		else
			buf_putc(&b, s.p[i]);
	return arena_str(a, buf_view(&b));
}

struct str authz_forbidden_text(struct arena *a, const struct authz_attrs *at)
{
	struct str text, r = at->subresource.n ? arena_printf(a, "%.*s/%.*s", STR_ARG(at->resource), STR_ARG(at->subresource)) : at->resource;

	if (!at->resource_request)
		text = arena_printf(a, "User \"%.*s\" cannot %.*s path \"%.*s\"", STR_ARG(at->user->name), STR_ARG(at->verb),
				    STR_ARG(at->path));
	else if (at->ns.n)
		text = arena_printf(a, "User \"%.*s\" cannot %.*s resource \"%.*s\" in API group \"%.*s\" in the namespace \"%.*s\"",
				    STR_ARG(at->user->name), STR_ARG(at->verb), STR_ARG(r), STR_ARG(at->group), STR_ARG(at->ns));
	else
		text = arena_printf(a, "User \"%.*s\" cannot %.*s resource \"%.*s\" in API group \"%.*s\" at the cluster scope",
				    STR_ARG(at->user->name), STR_ARG(at->verb), STR_ARG(r), STR_ARG(at->group));
	return sanitized(a, text);
}

static struct error *refusal(struct request *rq, const struct authz_attrs *at, struct str reason)
{
	struct str text = authz_forbidden_text(rq->a, at);

	if (!at->resource_request)
		return err_forbidden(STR_NULL, STR_NULL, STR_NULL, "%.*s%s%.*s", STR_ARG(text), reason.n ? ": " : "", STR_ARG(reason));
	return err_forbidden(at->group, at->resource, at->name, "%.*s%s%.*s", STR_ARG(text), reason.n ? ": " : "", STR_ARG(reason));
}

struct error *authorize_request(struct request *rq)
{
	struct authz_attrs at = authz_attrs_of(rq);
	struct str reason, trouble;
	int64_t since = now_ns();
	enum authz decision = authorize_explained(rq->s, rq->a, &at, &reason, &trouble);
	bool allow = decision == AUTHZ_ALLOW;

	rq->spent_ns.authorization = now_ns() - since;
	metrics_authorized(!allow && trouble.p ? METRICS_AUTHZ_ERROR : (enum metrics_authz)decision, since);
	if (allow || !trouble.p) {
		request_annotate(rq, STR("authorization.k8s.io/decision"), allow ? STR("allow") : STR("forbid"));
		request_annotate(rq, STR("authorization.k8s.io/reason"), reason);
	}
	if (allow)
		return NULL;
	if (trouble.p)
		return err_internal("Internal Server Error: \"%.*s\": %.*s", STR_ARG(rq->info.path), STR_ARG(trouble));
	http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	return refusal(rq, &at, reason);
}

struct error *authorize_create(struct request *rq)
{
	struct authz_attrs at = authz_attrs_of(rq);
	struct str reason, trouble;

	at.verb = STR("create");
	if (authorize_explained(rq->s, rq->a, &at, &reason, &trouble) == AUTHZ_ALLOW)
		return NULL;
	return trouble.p ? err_internal("%.*s", STR_ARG(trouble)) : refusal(rq, &at, reason);
}
