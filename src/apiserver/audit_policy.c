/* The audit policy: rules in order, the first that fits decides (upstream's pkg/audit/policy). */
#include "apiserver/audit.h"
#include "schema/jv.h"

struct group_resources {
	struct str group;
	struct strings resources, names;
};
struct rule {
	enum audit_level level;
	unsigned omit_stages;
	int omit_managed_fields; /* -1: as the policy says */
	struct strings users, groups, verbs, namespaces, urls;
	LIST(struct group_resources) resources;
};
struct audit_policy {
	LIST(struct rule) rules;
	unsigned omit_stages;
	bool omit_managed_fields;
};

static const char *const levels[] = {"None", "Metadata", "Request", "RequestResponse"};
static const char *const stages[] = {"RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"};

/* ---- reading ---- */

static struct error *unknown(const struct jv *o, const char *where, const char *const *names)
{
	for (uint32_t i = 0; jv_is(o, JV_OBJECT) && i < o->n; i++) {
		bool known = false;

		for (size_t k = 0; names[k] && !known; k++)
			known = str_eqz(o->members[i].key, names[k]);
		if (!known)
			return error_new("%s: unknown field \"%.*s\"", where, STR_ARG(o->members[i].key));
	}
	return NULL;
}

static struct error *texts(struct arena *a, const struct jv *o, const char *name, struct strings *out)
{
	const struct jv *v = jv_get(o, str_from(name));

	if (!v || v->kind == JV_NULL)
		return NULL;
	if (!jv_is(v, JV_ARRAY))
		return error_new("%s is not a list", name);
	for (uint32_t i = 0; i < v->n; i++) {
		if (!jv_is(&v->items[i], JV_STRING))
			return error_new("%s[%u] is not a string", name, i);
		*arena_push(a, out) = jv_str(&v->items[i]);
	}
	return NULL;
}

static struct error *stage_bits(struct arena *a, const struct jv *o, unsigned *bits)
{
	struct strings names = {0};

	TRY(texts(a, o, "omitStages", &names));
	for (uint32_t i = 0; i < names.n; i++) {
		unsigned k = 0;

		while (k < AUDIT_STAGES && !str_eqz(names.v[i], stages[k]))
			k++;
		if (k == AUDIT_STAGES)
			return error_new("omitStages[%u]: \"%.*s\" is none of RequestReceived, ResponseStarted, ResponseComplete, Panic", i,
					 STR_ARG(names.v[i]));
		*bits |= 1u << k;
	}
	return NULL;
}

static struct error *read_resources(struct arena *a, const struct jv *o, struct rule *r)
{
	static const char *const known[] = {"group", "resources", "resourceNames", NULL};
	const struct jv *list = jv_get(o, STR("resources"));

	for (uint32_t i = 0; jv_is(list, JV_ARRAY) && i < list->n; i++) {
		struct group_resources *g = arena_push(a, &r->resources);

		TRY(unknown(&list->items[i], "resources", known));
		g->group = jv_str(jv_get(&list->items[i], STR("group")));
		TRY(texts(a, &list->items[i], "resources", &g->resources));
		TRY(texts(a, &list->items[i], "resourceNames", &g->names));
		if (g->names.n && !g->resources.n)
			return error_new("resources[%u]: resourceNames needs resources", i);
	}
	return NULL;
}

static struct error *read_rule(struct arena *a, const struct jv *o, struct rule *r)
{
	static const char *const known[] = {"level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages",
					    "omitManagedFields", NULL};
	struct str level = jv_str(jv_get(o, STR("level")));
	const struct jv *omit = jv_get(o, STR("omitManagedFields"));
	size_t k = 0;

	TRY(unknown(o, "rule", known));
	while (k < sizeof levels / sizeof *levels && !str_eqz(level, levels[k]))
		k++;
	if (k == sizeof levels / sizeof *levels)
		return error_new("level: \"%.*s\" is none of None, Metadata, Request, RequestResponse", STR_ARG(level));
	r->level = (enum audit_level)k;
	r->omit_managed_fields = omit && omit->kind == JV_BOOL ? omit->b : -1;
	TRY(texts(a, o, "users", &r->users));
	TRY(texts(a, o, "userGroups", &r->groups));
	TRY(texts(a, o, "verbs", &r->verbs));
	TRY(texts(a, o, "namespaces", &r->namespaces));
	TRY(texts(a, o, "nonResourceURLs", &r->urls));
	TRY(stage_bits(a, o, &r->omit_stages));
	TRY(read_resources(a, o, r));
	if (r->urls.n && (r->resources.n || r->namespaces.n))
		return error_new("a rule is for resources and namespaces or for nonResourceURLs, not for both");
	for (uint32_t i = 0; i < r->urls.n; i++) {
		struct str u = r->urls.v[i];

		if (!str_eqz(u, "*") && (!u.n || u.p[0] != '/'))
			return error_new("nonResourceURLs[%u]: \"%.*s\" does not begin with /", i, STR_ARG(u));
		if (u.n > 1 && memchr(u.p, '*', u.n - 1))
			return error_new("nonResourceURLs[%u]: \"%.*s\" has a * before its end", i, STR_ARG(u));
	}
	return NULL;
}

struct error *audit_policy_parse(struct arena *a, struct str text, struct audit_policy **out)
{
	static const char *const known[] = {"apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields", NULL};
	struct buf json buf_cleanup = {0};
	struct audit_policy *p = arena_new(a, struct audit_policy);
	struct jv doc;
	const struct jv *rules, *omit;

	TRY(yaml_to_json(text, NULL, &json));
	TRY(jv_parse(a, arena_str(a, buf_view(&json)), NULL, &doc));
	if (!str_eqz(jv_str(jv_get(&doc, STR("apiVersion"))), "audit.k8s.io/v1") || !str_eqz(jv_str(jv_get(&doc, STR("kind"))), "Policy"))
		return error_new("apiVersion and kind are not audit.k8s.io/v1, Policy");
	TRY(unknown(&doc, "policy", known));
	omit = jv_get(&doc, STR("omitManagedFields"));
	p->omit_managed_fields = omit && omit->kind == JV_BOOL && omit->b;
	TRY(stage_bits(a, &doc, &p->omit_stages));
	rules = jv_get(&doc, STR("rules"));
	if (!jv_is(rules, JV_ARRAY) || !rules->n)
		return error_new("it has no rules");
	for (uint32_t i = 0; i < rules->n; i++)
		TRY(error_wrap(read_rule(a, &rules->items[i], arena_push(a, &p->rules)), "rules[%u]", i));
	*out = p;
	return NULL;
}

/* ---- deciding ---- */

static bool listed(const struct strings *list, struct str want)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (str_eq(list->v[i], want))
			return true;
	return false;
}

static bool in_a_group(const struct strings *groups, const struct user *u)
{
	for (size_t i = 0; u && i < u->n_groups; i++)
		if (listed(groups, u->groups[i]))
			return true;
	return false;
}

/* "*", "pods", "pods/log", "pods/<star>", "<star>/scale". */
static bool resource_fits(struct str spec, const struct request_info *i)
{
	struct str rest = spec, name = str_cut(&rest, '/');

	if (str_eqz(spec, "*"))
		return true;
	if (!rest.p)
		return !i->subresource.n && str_eq(name, i->resource);
	return i->subresource.n && (str_eqz(name, "*") || str_eq(name, i->resource)) && (str_eqz(rest, "*") || str_eq(rest, i->subresource));
}

static bool resources_fit(const struct rule *r, const struct request_info *i)
{
	if (r->namespaces.n && !listed(&r->namespaces, i->ns))
		return false;
	for (uint32_t k = 0; k < r->resources.n; k++) {
		const struct group_resources *g = &r->resources.v[k];

		if (!str_eq(g->group, i->group) && !str_eqz(g->group, "*"))
			continue;
		if (!g->resources.n)
			return true;
		for (uint32_t n = 0; n < g->resources.n; n++)
			if (resource_fits(g->resources.v[n], i) && (!g->names.n || listed(&g->names, i->name)))
				return true;
	}
	return !r->resources.n;
}

static bool url_fits(const struct rule *r, struct str path)
{
	for (uint32_t i = 0; i < r->urls.n; i++) {
		struct str u = r->urls.v[i];

		if (str_eq(u, path) || (u.n && u.p[u.n - 1] == '*' && str_has_prefix(path, str_sub(u, 0, u.n - 1))))
			return true;
	}
	return false;
}

static bool rule_fits(const struct rule *r, const struct request *rq)
{
	const struct request_info *i = &rq->info;

	if (r->users.n && !(rq->user && listed(&r->users, rq->user->name)))
		return false;
	if (r->groups.n && !in_a_group(&r->groups, rq->user))
		return false;
	if (r->verbs.n && !listed(&r->verbs, i->verb))
		return false;
	if (r->namespaces.n || r->resources.n)
		return i->resource_request && resources_fit(r, i);
	return !r->urls.n || (!i->resource_request && url_fits(r, i->path));
}

struct audit_decision audit_policy_decide(const struct audit_policy *p, const struct request *rq)
{
	for (uint32_t i = 0; i < p->rules.n; i++) {
		const struct rule *r = &p->rules.v[i];

		if (rule_fits(r, rq))
			return (struct audit_decision){r->level, r->omit_stages | p->omit_stages,
						       r->omit_managed_fields < 0 ? p->omit_managed_fields : r->omit_managed_fields == 1};
	}
	return (struct audit_decision){.level = AUDIT_NONE};
}
