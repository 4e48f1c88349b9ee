/* MutatingAdmissionPolicy: changing the object of a request. */
#include "apiserver/metrics.h"
#include "apiserver/custom.h"
#include "apiserver/config_file.h"
#include "apiserver/policy.h"
#include "schema/defaults.h"
#include "schema/managed_fields.h"
#include "schema/patch.h"

struct invocation { /* a policy, binding and parameter that hold for the request */
	const struct policy *policy;
	const struct policy_binding *binding;
	const struct resource *as;
	const struct jv *param;
	struct str key;
};
struct policy_error {
	const struct policy *policy;
	const struct policy_binding *binding; /* or NULL */
	struct str message;
	const char *reason;
};
struct run {
	struct admission *a;
	struct reinvocable *again;
	LIST(struct invocation) list;
	LIST(struct policy_error) errors;
	struct core_v1_namespace *ns;
	/* the object in the version of the invocation that runs */
	struct admit_version v;
	struct expression_input in;
	bool dirty;             /* v.obj has changes that a->obj has not */
	bool mutated;           /* some mutation was made, be it without effect */
};

static void add_error(struct run *r, const struct policy *p, const struct policy_binding *b, struct str message, const char *reason)
{
	if (p->fail)
		*arena_push(r->a->rq->a, &r->errors) = (struct policy_error){p, b, message, reason};
	else
		log_v(2, "MutatingAdmissionPolicy %.*s is ignored: %.*s", STR_ARG(p->name), STR_ARG(message));
}

/* Takes e. */
static void config_error(struct run *r, const struct policy *p, const struct policy_binding *b, struct error *e)
{
	add_error(r, p, b, arena_printf(r->a->rq->a, "failed to configure %s: %s", b ? "binding" : "policy", error_message(e)), NULL);
	error_free(e);
}

static void select_bindings(struct run *r, const struct policy_hook *h, const struct resource *as)
{
	struct admission *a = r->a;
	const struct policy *p = h->policy;

	for (uint32_t i = 0; i < h->n; i++) {
		const struct policy_binding *b = h->bindings[i];
		const struct resource *ignored = as;
		struct policy_params params;
		struct error *e = b->match ? admit_match(a, b->match, &ignored) : NULL;

		if (!e && !ignored)
			continue;
		if (!e)
			e = policy_params(a, p, b, &params);
		if (e) {
			config_error(r, p, b, e);
			continue;
		}
		for (uint32_t k = 0; k < params.n; k++)
			*arena_push(a->rq->a, &r->list) = (struct invocation){
				.policy = p, .binding = b, .as = as, .param = params.v[k],
				.key = arena_printf(a->rq->a, "%.*s/%.*s/%.*s/%.*s", STR_ARG(p->name), STR_ARG(b->name), STR_ARG(params.namespaces[k]),
						    STR_ARG(params.names[k])),
			};
	}
}

static void select_policy(struct run *r, const struct policy_hook *h)
{
	struct admission *a = r->a;
	const struct policy *p = h->policy;
	const struct resource *as = NULL;
	struct error *e = p->match ? admit_match(a, p->match, &as) : error_new("policy contained no match constraints, a required field");

	if (!e && as && p->param_kind && !policy_kind(a->rq->s, p->param_kind->api_version, p->param_kind->kind)) {
		struct str group, version;

		api_version_split(p->param_kind->api_version, &group, &version);
		e = error_new("failed to find resource referenced by paramKind: '%.*s/%.*s, Kind=%.*s'", STR_ARG(group), STR_ARG(version),
			      STR_ARG(p->param_kind->kind));
	}
	if (e)
		config_error(r, p, NULL, e);
	else if (as)
		select_bindings(r, h, as);
}

/* ---- one mutation ---- */

static struct shape shape_as(const struct run *r)
{
	return r->v.as->crd ? custom_shape(r->v.as) : shape_of_type(r->v.type);
}

/* Types of Objects that an expression makes must be called as the fields they stand in. */
static void check_names(struct arena *a, struct cel_value v, const struct jv *tree, struct str path, struct buf *out)
{
	struct str name = cel_object_type(v);

	if (name.n && !str_eq(name, path))
		buf_printf(out, "%sunexpected type name \"%.*s\", expected \"%.*s\", which matches field name path from root Object type",
			   out->n ? "\n" : "", STR_ARG(name), STR_ARG(path));
	for (uint32_t i = 0; tree->kind == JV_OBJECT && i < tree->n; i++) {
		struct cel_value m;

		if (cel_get(a, v, tree->members[i].key, &m))
			check_names(a, m, &tree->members[i].value,
				    name.n ? arena_printf(a, "%.*s.%.*s", STR_ARG(path), STR_ARG(tree->members[i].key)) : path, out);
	}
	for (uint32_t i = 0; tree->kind == JV_ARRAY && i < tree->n && i < cel_size(v); i++)
		check_names(a, cel_at(a, v, i), &tree->items[i], path, out);
}

static struct error *apply_tree(struct run *r, struct cel_value value, struct jv *tree, bool *same)
{
	struct arena *a = r->a->rq->a;
	struct buf wrong buf_cleanup = {0};
	struct jv config, live;
	struct error *e;

	*same = false;
	/* schemas are looked up by the group and version of the kind: a Scale is in the documents of others */
	if (admit_own_kind(r->a) &&
	    !(str_eq(r->a->type->group, r->a->group) && str_eq(r->a->type->version, r->a->version)))
		return error_new("error applying patch: failed to convert patch object to typed object: no "
				 "corresponding type for %.*s/%.*s, Kind=%s",
				 STR_ARG(r->a->type->group), STR_ARG(r->a->type->version), r->a->type->name);
	TRY(error_wrap(cel_to_configuration(a, value, &config), "error applying patch"));
	check_names(a, value, &config, STR("Object"), &wrong);
	if (wrong.n)
		return error_new("type mismatch: %s", buf_z(&wrong));
	jv_from_object(a, r->v.type, r->v.obj, &live);
	jv_set(a, &config, STR("apiVersion"), jv_string(r->v.as->api_version));
	jv_set(a, &config, STR("kind"), jv_string(r->v.as->api->kind));
	e = apply_configuration(a, shape_as(r), &live, &config, tree);
	return error_wrap(e, "error applying patch");
}

static struct error *patch_operation(struct arena *a, struct cel_value op, struct jv *out)
{
	static const char *const names[] = {"op", "path", "from"};
	struct cel_value v;
	struct buf wrong buf_cleanup = {0};
	struct jv value;

	*out = jv_object();
	for (size_t i = 0; i < 3; i++)
		if (cel_get(a, op, str_from(names[i]), &v) && (i < 2 || cel_str(v).n))
			jv_set(a, out, str_from(names[i]), jv_string(cel_str(v)));
	if (!cel_get(a, op, STR("value"), &v))
		return NULL;
	TRY(error_wrap(cel_to_jv(a, v, &value), "JSONPath valueExpression evaluated to a type that could not marshal to JSON"));
	if (cel_object_type(v).n)
		check_names(a, v, &value, cel_object_type(v), &wrong);
	if (wrong.n)
		return error_new("type mismatch: %s", buf_z(&wrong));
	jv_set(a, out, STR("value"), value);
	return NULL;
}

static struct error *patch_tree(struct run *r, struct cel_value list, struct jv *tree, bool *same)
{
	struct arena *a = r->a->rq->a;
	struct jv ops = jv_array();
	struct buf text buf_cleanup = {0};
	struct str why;
	struct error *e;
	bool never = false;

	*same = false;
	for (uint32_t i = 0; i < cel_size(list) && !never; i++) {
		struct jv op;

		TRY(patch_operation(a, cel_at(a, list, i), &op));
		/* a null that an expression gives is equal to nothing: the patch ends there, with no effect */
		never = str_eqz(jv_str(jv_get(&op, STR("op"))), "test") && jv_get(&op, STR("value")) &&
			jv_is(jv_get(&op, STR("value")), JV_NULL);
		if (never)
			break;
		jv_push(a, &ops, op);
	}
	jv_encode(&text, &ops);
	jv_from_object(a, r->v.type, r->v.obj, tree);
	e = json_patch(a, tree, arena_str(a, buf_view(&text)));
	*same = !e && never;
	if (!e)
		return NULL;
	why = arena_str(a, str_from(e->n_causes ? e->causes[0].message : error_message(e)));
	error_free(e);
	/* a test that fails leaves the object as it is */
	*same = str_has_suffix(why, STR(": test failed"));
	return *same ? NULL : error_new("JSON Patch: %.*s", STR_ARG(why));
}

/* The tree becomes the object. *fatal: the error ends the request, whatever the policy says. */
static struct error *take(struct run *r, const struct jv *tree, bool patched, bool *fatal)
{
	struct arena *a = r->a->rq->a;
	struct decode_report report = {.arena = a};
	void *out = arena_alloc(a, r->v.type->size);
	struct error *e = jv_to_object(a, r->v.type, tree, &report, out);

	if (!e && report.problems.n && !r->v.as->crd)
		e = error_new("strict decoding error: %.*s", STR_ARG(report.problems.v[0]));
	if (!e && !r->v.as->crd &&
	    (!str_eq(((struct str *)out)[0], r->v.as->api->kind) ||
	     !str_eq(((struct str *)out)[1], r->v.as->api_version)))
		e = error_new("failed to convert object: it became a %.*s of %.*s", STR_ARG(((struct str *)out)[0]),
			      STR_ARG(((struct str *)out)[1]));
	if (e && patched) { /* what cannot be read after a JSON patch is nobody's policy failure */
		struct error *out_e = err_internal("%s", error_message(e));

		error_free(e);
		*fatal = true;
		return out_e;
	}
	TRY(e);
	/* upstream has no conversions between versions of built-in kinds but by way of its internal one, which is not
	 * gone here */
	if (r->v.as->crd && admit_own_kind(r->a))
		return error_new("request to convert CR to an invalid group/version: %.*s/%.*s",
				 STR_ARG(r->a->type->group), STR_ARG(r->a->type->version));
	if (!r->v.as->crd && r->v.as != r->a->res)
		return error_new("converting %.*s %.*s to %.*s: unknown conversion", STR_ARG(r->v.as->api_version),
				 STR_ARG(r->v.as->api->kind), STR_ARG(r->a->res->api_version));
	if (!r->v.as->crd)
		object_default(a, r->v.type, out);
	((struct str *)out)[0] = r->v.as->api->kind;
	((struct str *)out)[1] = r->v.as->api_version;
	r->v.obj = out;
	r->dirty = r->mutated = true;
	return NULL;
}

static struct error *mutate_once(struct run *r, const struct invocation *z, uint32_t index, bool *fatal)
{
	const struct admissionregistration_v1_mutation *m = &z->policy->mutating->spec.mutations.v[index];
	const struct expression *x = &z->policy->mutations[index];
	struct evaluation ev;
	struct cel_value v;
	struct jv tree;
	struct str why;
	bool same;

	if (x->error.p)
		return error_new("%.*s", STR_ARG(x->error));
	expression_input_init(&r->in, r->a, &r->v, r->ns);
	expression_input_params(&r->in, z->param);
	evaluation_begin(&ev, &r->in, &z->policy->variables, CEL_CRD_BUDGET);
	if (!evaluate(&ev, x, &v, &why) || why.p)
		return error_new("%.*s", STR_ARG(why));
	TRY(m->json_patch ? patch_tree(r, v, &tree, &same) : apply_tree(r, v, &tree, &same));
	return same ? NULL : take(r, &tree, m->json_patch != NULL, fatal);
}

/* The object in the version that the invocation wants. */
static struct error *version(struct run *r, const struct resource *as)
{
	if (r->v.as == as)
		return NULL;
	if (r->dirty)
		TRY(admit_version_finish(r->a, &r->v));
	r->dirty = false;
	return admit_version_of(r->a, as, &r->v);
}

static void observe(struct run *r, const struct invocation *z, int64_t ns, const struct error *e)
{
	struct arena *a = r->a->rq->a;
	struct str message = e ? str_from(error_message(e)) : STR_NULL;
	const char *type = !e					      ? "no_error"
			   : str_contains(message, STR("compilation"))	      ? "compile_error"
			   : str_contains(message, STR(EVALUATION_OUT_OF_BUDGET)) ? "out_of_budget"
									      : "invalid_error";
	const char *labels = arena_printf(a, "error_type=\"%s\",policy=\"%.*s\",policy_binding=\"%.*s\"", type,
					  STR_ARG(metric_label(a, z->policy->name)), STR_ARG(metric_label(a, z->binding->name))).p;

	metrics_count(METRIC_MUTATIONS, labels, 1);
	metrics_observe(METRIC_MUTATION_TIME, labels, (double)ns / 1e9);
}

static struct error *invoke(struct run *r, const struct invocation *z)
{
	struct admission *a = r->a;
	struct str why;
	void *before;

	TRY(version(r, z->as));
	expression_input_init(&r->in, a, &r->v, r->ns);
	expression_input_params(&r->in, z->param);
	if (!match_conditions_counted(&z->policy->conditions, &z->policy->variables, &r->in, "policy", "validate", z->policy->name, &why)) {
		if (why.p)
			add_error(r, z->policy, z->binding, why, "Invalid");
		return NULL;
	}
	if (!r->v.obj || reinvocation_skips(a, r->again, z->key))
		return NULL;
	/* the struct of the admission itself may have been changed in place by others: compare with a copy */
	before = arena_alloc(a->rq->a, r->v.type->size);
	object_copy(a->rq->a, r->v.type, r->v.obj, before);
	for (uint32_t i = 0; i < z->policy->mutating->spec.mutations.n; i++) {
		bool fatal = false;
		int64_t since = now_ns();
		struct error *e = mutate_once(r, z, i, &fatal);

		observe(r, z, now_ns() - since, e);
		if (e && fatal)
			return e;
		if (e)
			add_error(r, z->policy, z->binding, arena_str(a->rq->a, str_from(error_message(e))), "Invalid");
		error_free(e);
	}
	if (!object_equal(r->v.type, before, r->v.obj))
		reinvocation_changed(a, r->again);
	if (str_eqz(z->policy->mutating->spec.reinvocation_policy, "IfNeeded"))
		reinvocation_ran(a, r->again, z->key);
	return NULL;
}

static struct error *refuse(struct run *r)
{
	struct arena *ar = r->a->rq->a;
	struct error *e = NULL;

	for (uint32_t i = 0; i < r->errors.n; i++) {
		const struct policy_error *x = &r->errors.v[i];
		struct str text = x->binding ? arena_printf(ar, "policy '%.*s' with binding '%.*s' denied request: %.*s", STR_ARG(x->policy->name),
							    STR_ARG(x->binding->name), STR_ARG(x->message)) :
					       arena_printf(ar, "policy \"%.*s\" denied request: %.*s", STR_ARG(x->policy->name),
							    STR_ARG(x->message));

		if (!e) {
			struct error *f = admission_forbidden(r->a, "admission request denied by policy");

			e = error_status(403, x->reason ? x->reason : "Forbidden", "%.*s", STR_ARG(text));
			error_set_details(e, str_from(f->group), str_from(f->kind), str_from(f->name));
			error_free(f);
		}
		error_add_cause(e, "", "", "%.*s", STR_ARG(text));
	}
	return e;
}

static struct error *run(struct run *r)
{
	struct admission *a = r->a;
	struct error *e = NULL;

	r->again = reinvocation_begin(a, &a->policies);
	TRY(policy_namespace(a, &r->ns));
	for (uint32_t i = 0; i < r->list.n && !e; i++)
		e = invoke(r, &r->list.v[i]);
	if (!e && r->dirty)
		e = admit_version_finish(a, &r->v);
	if (r->mutated)
		reinvocation_changed(a, r->again);
	reinvocation_end(a, r->again);
	return e;
}

static struct error *mutate(struct admission *a)
{
	struct run r = {.a = a};
	struct policy_hooks *h;
	struct error *e = NULL;

	if (policy_exempt(a))
		return NULL;
	h = policy_hooks_get(a->rq->s, true);
	for (uint32_t i = 0; i < h->n; i++)
		select_policy(&r, &h->v[i]);
	if (r.list.n)
		e = run(&r);
	policy_hooks_put(h);
	return e ? e : refuse(&r);
}

static struct error *configure(struct apiserver *s, struct str text)
{
	return policies_configure(s, text, CONFIG_V1("MutatingAdmissionPolicyConfiguration"));
}

const struct admission_plugin admit_mutating_policy = {
	.name = "MutatingAdmissionPolicy", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_CONNECT, .configure = configure, .admit = mutate,
};
