/* Which policies, bindings and parameters hold for a request. */
#include <stdlib.h>
#include "apiserver/admission_config.h"
#include "apiserver/cache_follow.h"
#include "apiserver/custom.h"
#include "apiserver/policy.h"
#include "schema/selector.h"

struct kind;
struct follow {
	struct kind *kind;
	struct cache_follower follower;
	struct map by_name;
};
struct policies {
	struct kind {
		bool mutating;
		struct follow policies, bindings;
		struct policy_hooks *hooks; /* NULL: to be made */
	} kinds[2];
};

static const struct cel_type *const is_bool[] = {&cel_type_bool};
static const struct cel_type *const is_string[] = {&cel_type_string};
static const struct cel_type *const is_string_or_null[] = {&cel_type_string, &cel_type_null};
static const struct cel_type *const is_patch[] = {&cel_type_list_json_patch};
static const struct cel_type *const is_object[] = {&cel_type_object};

/* ---- compiled policies ---- */

static void policy_unref(struct policy *p)
{
	if (--p->refs)
		return;
	composition_free(&p->variables);
	match_conditions_free(&p->conditions);
	for (uint32_t i = 0; p->validating && i < p->validating->spec.validations.n; i++) {
		expression_free(&p->validations[i]);
		expression_free(&p->messages[i]);
	}
	for (uint32_t i = 0; p->validating && i < p->validating->spec.audit_annotations.n; i++)
		expression_free(&p->annotations[i]);
	for (uint32_t i = 0; p->mutating && i < p->mutating->spec.mutations.n; i++)
		expression_free(&p->mutations[i]);
	arena_free(&p->arena);
	free(p);
}

static void binding_unref(struct policy_binding *b)
{
	if (--b->refs)
		return;
	arena_free(&b->arena);
	free(b);
}

static void compile_validating(struct policy *p, const struct admissionregistration_v1_validating_admission_policy *o)
{
	struct arena *a = &p->arena;
	unsigned params = o->spec.param_kind ? EXPR_PARAMS : 0, have = params | EXPR_AUTHORIZER;
	struct composition *c = &p->variables;

	p->validating = o;
	p->fail = !o->spec.failure_policy || !str_eqz(*o->spec.failure_policy, "Ignore");
	p->param_kind = o->spec.param_kind;
	p->match = o->spec.match_constraints;
	for (uint32_t i = 0; i < o->spec.variables.n; i++)
		composition_add(a, c, o->spec.variables.v[i].name, o->spec.variables.v[i].expression, have);
	match_conditions_compile(a, o->spec.match_conditions.v, o->spec.match_conditions.n, have, c, &p->conditions);
	p->validations = arena_array(a, struct expression, o->spec.validations.n);
	p->messages = arena_array(a, struct expression, o->spec.validations.n);
	for (uint32_t i = 0; i < o->spec.validations.n; i++) {
		const struct admissionregistration_v1_validation *v = &o->spec.validations.v[i];

		expression_compile(a, v->expression, have, c, is_bool, 1, &p->validations[i]);
		if (v->message_expression.n)
			expression_compile(a, v->message_expression, params, c, is_string, 1, &p->messages[i]);
	}
	p->annotations = arena_array(a, struct expression, o->spec.audit_annotations.n);
	for (uint32_t i = 0; i < o->spec.audit_annotations.n; i++)
		expression_compile(a, o->spec.audit_annotations.v[i].value_expression, have, c, is_string_or_null, 2, &p->annotations[i]);
}

static void compile_mutating(struct policy *p, const struct admissionregistration_v1_mutating_admission_policy *o)
{
	struct arena *a = &p->arena;
	unsigned have = (o->spec.param_kind ? EXPR_PARAMS : 0) | EXPR_AUTHORIZER;
	struct composition *c = &p->variables;

	p->mutating = o;
	p->fail = !o->spec.failure_policy || !str_eqz(*o->spec.failure_policy, "Ignore");
	p->param_kind = o->spec.param_kind;
	p->match = o->spec.match_constraints;
	for (uint32_t i = 0; i < o->spec.variables.n; i++)
		composition_add(a, c, o->spec.variables.v[i].name, o->spec.variables.v[i].expression, have);
	match_conditions_compile(a, o->spec.match_conditions.v, o->spec.match_conditions.n, have, c, &p->conditions);
	p->mutations = arena_array(a, struct expression, o->spec.mutations.n);
	for (uint32_t i = 0; i < o->spec.mutations.n; i++) {
		const struct admissionregistration_v1_mutation *m = &o->spec.mutations.v[i];

		if (m->json_patch)
			expression_compile(a, m->json_patch->expression, have | EXPR_PATCH, c, is_patch, 1, &p->mutations[i]);
		else if (m->apply_configuration)
			expression_compile(a, m->apply_configuration->expression, have | EXPR_PATCH, c, is_object, 1, &p->mutations[i]);
	}
}

static struct error *policy_of(const struct cache_entry *en, bool mutating, struct policy **out)
{
	struct policy *p = xcalloc(1, sizeof *p);
	const struct schema_type *t = mutating ? &admissionregistration_v1_mutating_admission_policy_type :
						 &admissionregistration_v1_validating_admission_policy_type;
	void *o = arena_alloc(&p->arena, t->size);
	struct error *e = cache_entry_decode(&p->arena, t, en, true, o);

	p->refs = 1;
	p->name = arena_str(&p->arena, cache_entry_name(en));
	if (e) {
		policy_unref(p);
		return e;
	}
	if (mutating)
		compile_mutating(p, o);
	else
		compile_validating(p, o);
	*out = p;
	return NULL;
}

static struct error *binding_of(const struct cache_entry *en, bool mutating, struct policy_binding **out)
{
	struct policy_binding *b = xcalloc(1, sizeof *b);
	struct error *e;

	b->refs = 1;
	b->name = arena_str(&b->arena, cache_entry_name(en));
	if (mutating) {
		struct admissionregistration_v1_mutating_admission_policy_binding *o =
			arena_new(&b->arena, struct admissionregistration_v1_mutating_admission_policy_binding);

		e = cache_entry_decode(&b->arena, &admissionregistration_v1_mutating_admission_policy_binding_type, en, true, o);
		b->policy = o->spec.policy_name;
		b->param_ref = o->spec.param_ref;
		b->match = o->spec.match_resources;
	} else {
		struct admissionregistration_v1_validating_admission_policy_binding *o =
			arena_new(&b->arena, struct admissionregistration_v1_validating_admission_policy_binding);

		e = cache_entry_decode(&b->arena, &admissionregistration_v1_validating_admission_policy_binding_type, en, true, o);
		b->policy = o->spec.policy_name;
		b->param_ref = o->spec.param_ref;
		b->match = o->spec.match_resources;
		b->actions = o->spec.validation_actions.v;
		b->n_actions = o->spec.validation_actions.n;
	}
	if (e) {
		binding_unref(b);
		return e;
	}
	*out = b;
	return NULL;
}

/* ---- following the objects ---- */

/* The list made of both kinds of objects is to be made anew. */
static void list_again(struct kind *k)
{
	policy_hooks_put(k->hooks);
	k->hooks = NULL;
}

static void apply_policy(void *ctx, struct str name, const struct cache_entry *en)
{
	struct follow *f = ctx;
	struct policy *p = NULL, *old;

	if (en)
		log_and_free(policy_of(en, f->kind->mutating, &p), "admission policy %.*s", STR_ARG(name));
	old = p ? map_set(&f->by_name, p->name, p) : map_del(&f->by_name, name);
	if (old)
		policy_unref(old);
	list_again(f->kind);
}

static void apply_binding(void *ctx, struct str name, const struct cache_entry *en)
{
	struct follow *f = ctx;
	struct policy_binding *b = NULL, *old;

	if (en)
		log_and_free(binding_of(en, f->kind->mutating, &b), "admission policy binding %.*s", STR_ARG(name));
	old = b ? map_set(&f->by_name, b->name, b) : map_del(&f->by_name, name);
	if (old)
		binding_unref(old);
	list_again(f->kind);
}

static int hook_cmp(const void *x, const void *y)
{
	return str_cmp(((const struct policy_hook *)x)->policy->name, ((const struct policy_hook *)y)->policy->name);
}

static int binding_cmp(const void *x, const void *y)
{
	return str_cmp((*(struct policy_binding *const *)x)->name, (*(struct policy_binding *const *)y)->name);
}

static void relist(struct kind *k)
{
	struct policy_hooks *h = xcalloc(1, sizeof *h);
	size_t it = 0, bt;
	struct str key;
	void *v, *bv;

	h->refs = 1;
	h->v = xcalloc(k->policies.by_name.n + 1, sizeof *h->v);
	while (map_next(&k->policies.by_name, &it, &key, &v)) {
		struct policy_hook *hook = &h->v[h->n];

		hook->bindings = xcalloc(k->bindings.by_name.n + 1, sizeof *hook->bindings);
		bt = 0;
		while (map_next(&k->bindings.by_name, &bt, &key, &bv)) {
			struct policy_binding *b = bv;

			if (str_eq(b->policy, ((struct policy *)v)->name)) {
				b->refs++;
				hook->bindings[hook->n++] = b;
			}
		}
		if (!hook->n) {
			free(hook->bindings);
			continue;
		}
		qsort(hook->bindings, hook->n, sizeof *hook->bindings, binding_cmp);
		hook->policy = v;
		hook->policy->refs++;
		h->n++;
	}
	qsort(h->v, h->n, sizeof *h->v, hook_cmp);
	k->hooks = h;
}

void policy_hooks_put(struct policy_hooks *h)
{
	if (!h || --h->refs)
		return;
	for (uint32_t i = 0; i < h->n; i++) {
		for (uint32_t j = 0; j < h->v[i].n; j++)
			binding_unref(h->v[i].bindings[j]);
		policy_unref(h->v[i].policy);
		free(h->v[i].bindings);
	}
	free(h->v);
	free(h);
}

struct policy_hooks *policy_hooks_get(struct apiserver *s, bool mutating)
{
	struct kind *k = &s->policies->kinds[mutating];

	cache_follow(&k->policies.follower);
	cache_follow(&k->bindings.follower);
	if (!k->hooks)
		relist(k);
	k->hooks->refs++;
	return k->hooks;
}

static void follow_begin(struct follow *f, struct kind *k, const struct storage *st,
			 void (*apply)(void *ctx, struct str key, const struct cache_entry *e))
{
	f->kind = k;
	f->follower = (struct cache_follower){.cache = st->cache, .what = "admission policies", .apply = apply, .ctx = f};
}

struct error *policies_init(struct apiserver *s)
{
	struct str g = STR("admissionregistration.k8s.io");
	struct policies *p = xcalloc(1, sizeof *p);

	for (int m = 0; m < 2; m++) {
		struct kind *k = &p->kinds[m];

		k->mutating = m;
		follow_begin(&k->policies, k, storage_find(s, g, m ? STR("mutatingadmissionpolicies") : STR("validatingadmissionpolicies")),
			     apply_policy);
		follow_begin(&k->bindings, k, storage_find(s, g, m ? STR("mutatingadmissionpolicybindings") : STR("validatingadmissionpolicybindings")),
			     apply_binding);
	}
	s->policies = p;
	return NULL;
}

struct error *policies_configure(struct apiserver *s, struct str text, const char *kinds)
{
	/* both kinds of policies have the same */
	struct apiserverconfig_v1_validating_admission_policy_configuration c = {0};

	if (!text.n)
		return NULL;
	TRY(config_decode(&s->arena, &apiserverconfig_v1_validating_admission_policy_configuration_type, kinds, text, &c));
	return c.static_manifests_dir.n ? error_new(NO_STATIC_MANIFESTS) : NULL;
}

bool policy_exempt(const struct admission *a)
{
	bool own = str_eqz(a->group, "admissionregistration.k8s.io") && !str_has_suffix(a->resource, STR("webhookconfigurations"));

	return a->rq->internal || str_eqz(a->group, "authentication.k8s.io") || str_eqz(a->group, "authorization.k8s.io") || own;
}

/* ---- parameters ---- */

const struct resource *policy_kind(struct apiserver *s, struct str api_version, struct str kind)
{
	struct str group, version;
	const struct resource *r;

	api_version_split(api_version, &group, &version);
	r = resource_for_kind(s, group, version, kind);
	for (size_t i = 0; !r && (r = crd_resource_at(s, i)) != NULL; i++)
		if (!str_eq(r->api->group, group) || !str_eq(r->api->version, version) || !str_eq(r->api->kind, kind))
			r = NULL;
	return r && r->st ? r : NULL;
}

/* The object of the cache as JSON of the parameter's version. */
static struct error *param_tree(struct admission *a, const struct resource *r, const struct cache_entry *en, struct jv **out)
{
	struct arena *ar = a->rq->a;
	struct buf b buf_cleanup = {0};
	struct str json;
	void *obj;
	const struct schema_type *t = r->st->type;

	*out = arena_new(ar, struct jv);
	if (r->crd || !r->from_storage) {
		TRY(cache_entry_json_append(r->st->cache, en, STR_NULL, &b));
		json = arena_str(ar, buf_view(&b));
		if (!r->crd || custom_bytes_fit(r, en))
			return jv_parse(ar, json, NULL, *out);
	}
	if (r->crd) {
		TRY(custom_read(ar, r, en, true, &obj));
	} else {
		void *v = arena_alloc(ar, r->api->type->size);

		obj = arena_alloc(ar, t->size);
		TRY(cache_entry_decode(ar, t, en, true, obj));
		t = r->api->type;
		r->from_storage(ar, obj, v);
		obj = v;
		((struct str *)obj)[0] = r->api->kind;
		((struct str *)obj)[1] = r->api_version;
	}
	jv_from_object(ar, t, obj, *out);
	return NULL;
}

static struct error *add_param(struct admission *a, const struct resource *r, const struct cache_entry *en, struct policy_params *out)
{
	struct arena *ar = a->rq->a;
	struct jv *tree;

	TRY(param_tree(a, r, en, &tree));
	if (out->n == out->cap) {
		uint32_t cap = out->cap ? 2 * out->cap : 4;
		const struct jv **v = arena_array(ar, const struct jv *, cap);
		struct str *names = arena_array(ar, struct str, cap), *nss = arena_array(ar, struct str, cap);

		if (out->n) {
			memcpy(v, out->v, out->n * sizeof *v);
			memcpy(names, out->names, out->n * sizeof *names);
			memcpy(nss, out->namespaces, out->n * sizeof *nss);
		}
		out->v = v;
		out->names = names;
		out->namespaces = nss;
		out->cap = cap;
	}
	out->v[out->n] = tree;
	out->names[out->n] = arena_str(ar, jv_str(jv_at(tree, "metadata", "name", NULL)));
	out->namespaces[out->n++] = arena_str(ar, jv_str(jv_at(tree, "metadata", "namespace", NULL)));
	return NULL;
}

static struct error *selected(struct admission *a, const struct resource *r, struct str ns, const struct meta_v1_label_selector *s,
			      struct policy_params *out)
{
	struct cache_filter f = {0};
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e = NULL;

	TRY(label_selector_from(a->rq->a, s, &f.labels));
	TRY(cache_snapshot(r->st->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, r->st->cache, snap, ns, STR_NULL, &f);
	while (!e && (en = cache_iter_next(&it)) != NULL)
		e = add_param(a, r, en, out);
	cache_snap_free(snap);
	return e;
}

struct error *policy_params(struct admission *a, const struct policy *p, const struct policy_binding *b, struct policy_params *out)
{
	const struct admissionregistration_v1_param_ref *ref = b->param_ref;
	const struct resource *r;
	struct str ns = STR_NULL;

	memset(out, 0, sizeof *out);
	if (!p->param_kind || !ref) {
		out->v = arena_new(a->rq->a, const struct jv *);
		out->names = arena_new(a->rq->a, struct str);
		out->namespaces = arena_new(a->rq->a, struct str);
		out->n = 1;
		return NULL;
	}
	r = policy_kind(a->rq->s, p->param_kind->api_version, p->param_kind->kind);
	if (!r)
		return error_new("paramKind kind `&ParamKind{APIVersion:%.*s,Kind:%.*s,}` not known", STR_ARG(p->param_kind->api_version),
				 STR_ARG(p->param_kind->kind));
	if (r->api->namespaced) {
		ns = ref->namespace.n ? ref->namespace : admit_namespace(a);
		if (!ns.n)
			return error_new("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources");
	} else if (ref->namespace.n) {
		return error_new("paramRef.namespace must not be provided for a cluster-scoped `paramKind`");
	}
	if (ref->name.n) {
		const struct cache_entry *en = cache_peek(r->st->cache, ns, ref->name);

		if (en)
			TRY(add_param(a, r, en, out));
	} else if (ref->selector) {
		TRY(selected(a, r, ns, ref->selector, out));
	} else {
		return error_new("one of name or selector must be provided");
	}
	if (!out->n && ref->parameter_not_found_action && str_eqz(*ref->parameter_not_found_action, "Deny"))
		return error_new("no params found for policy binding with `Deny` parameterNotFoundAction");
	return NULL;
}

struct error *policy_namespace(struct admission *a, struct core_v1_namespace **out)
{
	bool itself = !a->group.n && str_eqz(a->kind, "Namespace");

	*out = NULL;
	if (!a->ns.n || itself)
		return NULL;
	*out = registry_peek(a->rq->s, a->rq->a, storage_find(a->rq->s, STR(""), STR("namespaces")), STR_NULL, a->ns);
	return *out ? NULL : err_not_found(STR(""), STR("namespaces"), a->ns);
}
