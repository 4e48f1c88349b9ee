/* Rules and selectors of webhooks and policies; objects in equivalent versions. */
#include "apiserver/admit_match.h"
#include "apiserver/custom.h"
#include "schema/selector.h"

const char *admit_operation(const struct admission *a)
{
	return a->op == ADMIT_CREATE ? "CREATE" : a->op == ADMIT_UPDATE ? "UPDATE" : a->op == ADMIT_DELETE ? "DELETE" : "CONNECT";
}

static bool is_namespace(const struct admission *a)
{
	return !a->group.n && str_eqz(a->resource, "namespaces");
}

struct str admit_namespace(const struct admission *a)
{
	return is_namespace(a) ? a->name : a->ns;
}

static const struct str_map *labels_of(const struct admission *a, const void *obj)
{
	return obj && a->type->metadata >= 0 ? API_MAP(&object_meta(a->type, (void *)(uintptr_t)obj)->labels) : NULL;
}

static bool selects_all(const struct meta_v1_label_selector *s)
{
	return !s || (!s->match_labels.n && !s->match_expressions.n);
}

struct error *admit_match_namespace(const struct admission *a, const struct meta_v1_label_selector *s, bool *yes)
{
	struct arena *ar = a->rq->a;
	const struct selector *sel;
	const struct str_map *labels;
	struct core_v1_namespace *ns;

	*yes = true;
	/* what has no namespace is never left out by it */
	if (selects_all(s) || (!a->ns.n && !is_namespace(a)))
		return NULL;
	*yes = false;
	TRY(label_selector_from(ar, s, &sel));
	if (is_namespace(a) && !a->subresource.n && (a->op == ADMIT_CREATE || a->op == ADMIT_UPDATE)) {
		labels = labels_of(a, a->obj);
		*yes = labels && selector_matches(sel, labels);
		return NULL;
	}
	ns = registry_peek(a->rq->s, ar, storage_find(a->rq->s, STR(""), STR("namespaces")), STR_NULL, admit_namespace(a));
	if (!ns)
		return err_not_found(STR(""), STR("namespaces"), admit_namespace(a));
	*yes = selector_matches(sel, API_MAP(&ns->metadata.labels));
	return NULL;
}

struct error *admit_match_object(const struct admission *a, const struct meta_v1_label_selector *s, bool *yes)
{
	const struct selector *sel;
	const struct str_map *now = labels_of(a, a->obj), *was = labels_of(a, a->old);

	*yes = true;
	if (selects_all(s))
		return NULL;
	*yes = false;
	TRY(label_selector_from(a->rq->a, s, &sel));
	*yes = (now && selector_matches(sel, now)) || (was && selector_matches(sel, was));
	return NULL;
}

/* ---- rules ---- */

static bool in_or_star(const struct str *v, uint32_t n, struct str want)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eqz(v[i], "*") || str_eq(v[i], want))
			return true;
	return false;
}

static bool resource_in(const struct str *v, uint32_t n, struct str resource, struct str subresource)
{
	for (uint32_t i = 0; i < n; i++) {
		struct str rest = v[i], res = str_cut(&rest, '/');

		if ((str_eqz(res, "*") || str_eq(res, resource)) && (str_eqz(rest, "*") || str_eq(rest, subresource)))
			return true;
	}
	return false;
}

bool admit_match_rule(const struct admission *a, const struct admissionregistration_v1_rule_with_operations *r, const struct resource *as)
{
	struct str scope = r->rule.scope ? *r->rule.scope : STR("*");
	bool namespaced = a->ns.n && !is_namespace(a);

	if ((str_eqz(scope, "Namespaced") && !namespaced) || (str_eqz(scope, "Cluster") && namespaced))
		return false;
	return in_or_star(r->operations.v, r->operations.n, str_from(admit_operation(a))) &&
	       in_or_star(r->rule.api_groups.v, r->rule.api_groups.n, as->api->group) &&
	       in_or_star(r->rule.api_versions.v, r->rule.api_versions.n, as->api->version) &&
	       resource_in(r->rule.resources.v, r->rule.resources.n, as->api->plural, a->subresource);
}

const struct resource *admit_equivalent(const struct admission *a, size_t i)
{
	struct apiserver *s = a->rq->s;
	const struct resource *r;

	if (!a->res->st)
		return NULL;
	if (a->res->crd) {
		for (size_t k = 0; (r = crd_resource_at(s, k)) != NULL; k++)
			if (r != a->res && r->crd == a->res->crd && !i--)
				return r;
		return NULL;
	}
	for (size_t k = 0; k < s->n_resources; k++)
		if (s->resources[k] != a->res && s->resources[k]->st == a->res->st && !i--)
			return s->resources[k];
	return NULL;
}

static bool named(const struct admissionregistration_v1_named_rule_with_operations *r, struct str name)
{
	bool yes = !r->resource_names.n;

	for (uint32_t i = 0; i < r->resource_names.n; i++)
		yes |= str_eq(r->resource_names.v[i], name);
	return yes;
}

static const struct resource *match_rules(const struct admission *a, const struct admissionregistration_v1_named_rule_with_operations *v,
					  uint32_t n, bool equivalent)
{
	const struct resource *as;

	for (uint32_t i = 0; i < n; i++)
		if (admit_match_rule(a, &v[i].rule_with_operations, a->res) && named(&v[i], a->name))
			return a->res;
	for (uint32_t i = 0; equivalent && i < n; i++)
		for (size_t k = 0; (as = admit_equivalent(a, k)) != NULL; k++)
			if (admit_match_rule(a, &v[i].rule_with_operations, as) && named(&v[i], a->name))
				return as;
	return NULL;
}

struct error *admit_match(const struct admission *a, const struct admissionregistration_v1_match_resources *m, const struct resource **as)
{
	struct error *ens, *eobj;
	bool yes, equivalent = m->match_policy && str_eqz(*m->match_policy, "Equivalent");
	const struct resource *found = NULL;

	/* trouble with selectors counts only where the rules match */
	*as = NULL;
	ens = admit_match_namespace(a, m->namespace_selector, &yes);
	if (!ens && !yes)
		return NULL;
	eobj = admit_match_object(a, m->object_selector, &yes);
	if (eobj || yes)
		if (!match_rules(a, m->exclude_resource_rules.v, m->exclude_resource_rules.n, equivalent))
			found = m->resource_rules.n ? match_rules(a, m->resource_rules.v, m->resource_rules.n, equivalent) : a->res;
	if (found && (ens || eobj)) {
		if (ens)
			error_free(eobj);
		return ens ? ens : eobj;
	}
	error_free(ens);
	error_free(eobj);
	*as = found;
	return NULL;
}

/* ---- versions ---- */

static void set_kind(const struct schema_type *t, const struct resource *as, void *obj)
{
	struct str *tm = obj; /* kind, apiVersion */

	if (obj && t->top) {
		tm[0] = as->api->kind;
		tm[1] = as->api_version;
	}
}

bool admit_own_kind(const struct admission *a)
{
	return a->type != a->res->api->type && !(a->res->st && a->type == a->res->st->type);
}

static struct error *in_version(struct admission *a, const struct resource *as, const void *obj, const struct schema_type **t, void **out)
{
	struct arena *ar = a->rq->a;

	*t = a->type;
	*out = (void *)(uintptr_t)obj;
	if (!obj)
		return NULL;
	if (admit_own_kind(a) && a->type->top) {
		((struct str *)*out)[0] = str_from(a->type->name);
		((struct str *)*out)[1] = a->type->group.n ? arena_printf(ar, "%.*s/%.*s", STR_ARG(a->type->group), STR_ARG(a->type->version)) :
							     a->type->version;
	}
	if (!a->res->st || a->type != a->res->st->type)
		return NULL;
	if (as->crd) {
		if (as != a->res) {
			void *copy = arena_alloc(ar, a->type->size);

			object_copy(ar, a->type, obj, copy);
			TRY(custom_convert(ar, a->res, &copy, as->api_version));
			*out = copy;
		}
		set_kind(*t, as, *out);
		return NULL;
	}
	if (as->from_storage) {
		*t = as->api->type;
		*out = arena_alloc(ar, (*t)->size);
		as->from_storage(ar, obj, *out);
	} else if (as != a->res) {
		*out = arena_alloc(ar, (*t)->size);
		memcpy(*out, obj, (*t)->size);
	}
	set_kind(*t, as, *out);
	return NULL;
}

struct error *admit_version_of(struct admission *a, const struct resource *as, struct admit_version *out)
{
	const struct schema_type *t;

	*out = (struct admit_version){.as = as, .type = a->type};
	TRY(in_version(a, as, a->old, &out->type, &out->old));
	TRY(in_version(a, as, a->obj, &t, &out->obj));
	if (a->obj)
		out->type = t;
	return NULL;
}

struct error *admit_version_finish(struct admission *a, const struct admit_version *v)
{
	bool custom = a->res->crd && !admit_own_kind(a);

	/* by the schema of the version that it was changed in; conversion prunes */
	if (custom && v->as != a->res)
		TRY(custom_default(a->rq->a, v->as, v->obj));
	TRY(admit_version_back(a, v));
	return custom && v->as == a->res ? custom_default_and_prune(a->rq, a->obj) : NULL;
}

struct error *admit_version_back(struct admission *a, const struct admit_version *v)
{
	void *obj = v->obj;

	if (!obj || obj == a->obj)
		return NULL;
	a->reread = true;
	if (admit_own_kind(a)) { /* which is of one version, whatever the resource's is */
		memcpy(a->obj, obj, a->type->size);
		return NULL;
	}
	if (v->as->crd) {
		if (v->as != a->res)
			TRY(custom_convert(a->rq->a, v->as, &obj, a->res->api_version));
	} else if (v->as->to_storage) {
		obj = arena_alloc(a->rq->a, a->type->size);
		v->as->to_storage(a->rq->a, v->obj, obj);
	}
	memcpy(a->obj, obj, a->type->size);
	set_kind(a->type, a->res, a->obj);
	return NULL;
}
