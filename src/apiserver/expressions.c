/* Environments, composition and evaluation of the expressions of admission. */
#include <stdlib.h>
#include "apiserver/metrics.h"
#include "apiserver/admit_match.h"
#include "apiserver/authz.h"
#include "apiserver/expressions.h"
#include "schema/validate.h"

/* ---- compiling ---- */

static struct str types_text(struct arena *a, const struct cel_type *const *v, size_t n)
{
	struct buf b buf_cleanup = {0};

	for (size_t i = 0; i < n; i++)
		buf_printf(&b, "%s%.*s", i ? " " : "", STR_ARG(cel_type_text(a, v[i])));
	return arena_str(a, buf_view(&b));
}

#define NOT_MADE "program instantiation failed" /* to upstream its own fault */

bool program_compile(struct arena *a, const struct cel_env *env, struct str source, const struct cel_type *const *returns, size_t n, bool got,
		     struct cel_program **out, struct str *error)
{
	struct cel_issues issues = {0};
	struct str but = STR_NULL;
	const struct cel_type *t;
	bool fits = n == 0;

	*error = STR_NULL;
	if (!cel_compile(a, env, source, out, &issues)) {
		*out = NULL;
		*error = issues.instantiation ? arena_printf(a, NOT_MADE ": %.*s",
							     STR_ARG(issues.list.n ? issues.list.v[0].message : STR_NULL)) :
						arena_printf(a, "compilation failed: %.*s", STR_ARG(cel_issues_text(a, source, &issues)));
		return false;
	}
	t = cel_program_type(*out);
	for (size_t i = 0; i < n; i++)
		fits |= cel_type_equal(t, returns[i]);
	if (fits)
		return true;
	if (got)
		but = arena_printf(a, " but got %.*s", STR_ARG(cel_type_text(a, t)));
	if (n == 1)
		*error = arena_printf(a, "must evaluate to %.*s%.*s", STR_ARG(cel_type_text(a, returns[0])), STR_ARG(but));
	else
		*error = arena_printf(a, "must evaluate to one of [%.*s]%.*s", STR_ARG(types_text(a, returns, n)), STR_ARG(but));
	cel_program_free(*out);
	*out = NULL;
	return false;
}

void expression_compile(struct arena *a, struct str source, unsigned have, const struct composition *c, const struct cel_type *const *returns,
			size_t n, struct expression *out)
{
	struct cel_var vars[ADMISSION_VARS_MAX];
	struct cel_env env = {.vars = vars, .patch_types = have & EXPR_PATCH};

	*out = (struct expression){.source = arena_str(a, source), .have = have, .variables = c && c->type};
	env.n_vars = admission_vars(have, NULL, NULL, c ? c->type : NULL, vars);
	program_compile(a, &env, out->source, returns, n, true, &out->program, &out->error);
}

void expression_wrong(struct field_errors *e, const struct field_path *p, struct str source, struct str error)
{
	if (str_has_prefix(error, STR(NOT_MADE)))
		field_internal(e, p, "%.*s", STR_ARG(error));
	else
		field_invalid(e, p, source, "%.*s", STR_ARG(error));
}

void expression_free(struct expression *e)
{
	cel_program_free(e->program);
	e->program = NULL;
}

static void composition_type(struct arena *a, struct composition *c)
{
	const struct cel_type **types = arena_array(a, const struct cel_type *, c->n);

	for (uint32_t i = 0; i < c->n; i++)
		types[i] = c->v[i].program ? cel_program_type(c->v[i].program) : NULL;
	c->type = admission_variables_type(a, c->names, types, c->n);
}

const struct expression *composition_add(struct arena *a, struct composition *c, struct str name, struct str source, unsigned have)
{
	struct str *names = arena_array(a, struct str, c->n + 1);
	struct expression *v = arena_array(a, struct expression, c->n + 1);

	if (!c->type)
		composition_type(a, c);
	if (c->n) {
		memcpy(names, c->names, c->n * sizeof *names);
		memcpy(v, c->v, c->n * sizeof *v);
	}
	names[c->n] = arena_str(a, name);
	expression_compile(a, source, have, c, NULL, 0, &v[c->n]);
	c->names = names;
	c->v = v;
	c->n++;
	composition_type(a, c);
	return &c->v[c->n - 1];
}

void composition_free(struct composition *c)
{
	for (uint32_t i = 0; i < c->n; i++)
		expression_free(&c->v[i]);
	c->n = 0;
}

/* ---- the authorizer ---- */

struct authz_call {
	struct cel_authorizer base;
	struct request *rq;
};

static void authz_check(struct cel_authorizer *self, struct arena *a, const struct cel_authz_check *c, struct cel_authz_decision *out)
{
	struct authz_call *z = (struct authz_call *)self;
	struct authz_attrs at = {.user = z->rq->user, .verb = c->verb};
	struct user sa = {0};
	struct str groups[2], why, reason;
	enum authz d;

	if (c->service_account.n) {
		sa.name = arena_printf(a, "system:serviceaccount:%.*s:%.*s", STR_ARG(c->service_account_ns), STR_ARG(c->service_account));
		groups[0] = STR("system:serviceaccounts");
		groups[1] = arena_printf(a, "system:serviceaccounts:%.*s", STR_ARG(c->service_account_ns));
		sa.groups = groups;
		sa.n_groups = 2;
		at.user = &sa;
	}
	if (c->resource) {
		at.resource_request = true;
		at.group = c->group;
		at.version = STR("*");
		at.resource = c->resource_name;
		at.subresource = c->subresource;
		at.ns = c->ns;
		at.name = c->name;
		authz_selectors(a, &at, c->has_field_selector ? c->field_selector : STR_NULL, c->has_label_selector ? c->label_selector : STR_NULL);
	} else {
		at.path = c->path;
	}
	d = authorize_explained(z->rq->s, a, &at, &reason, &why);
	out->allowed = d == AUTHZ_ALLOW;
	out->reason = reason;
	out->error = why;
}

/* ---- input ---- */

static struct str options_json(const struct admission *a)
{
	struct request *rq = a->rq;
	struct buf b buf_cleanup = {0};
	const char *kind = a->op == ADMIT_CREATE ? "CreateOptions" : a->op == ADMIT_UPDATE ? "UpdateOptions" : "DeleteOptions";
	struct str v;

	if (a->op == ADMIT_CONNECT)
		return STR_NULL;
	if (a->op == ADMIT_DELETE && a->delete_options) {
		struct meta_v1_delete_options o = *a->delete_options;

		o.kind = STR("DeleteOptions");
		o.api_version = STR("meta.k8s.io/v1");
		json_encode(&b, &meta_v1_delete_options_type, &o);
		return arena_str(rq->a, buf_view(&b));
	}
	buf_printf(&b, "{\"kind\":\"%s\",\"apiVersion\":\"meta.k8s.io/v1\"", kind);
	if (a->dry_run)
		buf_puts(&b, ",\"dryRun\":[\"All\"]");
	v = query_get(&rq->q, "fieldManager");
	if (v.n) {
		buf_puts(&b, ",\"fieldManager\":");
		jv_encode_string(&b, v);
	}
	v = query_get(&rq->q, "fieldValidation");
	if (v.n) {
		buf_puts(&b, ",\"fieldValidation\":");
		jv_encode_string(&b, v);
	}
	buf_putc(&b, '}');
	return arena_str(rq->a, buf_view(&b));
}

void admission_request_fill(struct admission *a, const struct admit_version *v, struct admission_v1_admission_request *r)
{
	struct arena *ar = a->rq->a;
	const struct user *u = a->rq->user;

	r->kind.group = v->as->api->group;
	r->kind.version = v->as->api->version;
	r->kind.kind = v->as == a->res ? a->kind : v->as->api->kind;
	r->resource.group = v->as->api->group;
	r->resource.version = v->as->api->version;
	r->resource.resource = v->as->api->plural;
	r->sub_resource = r->request_sub_resource = a->subresource;
	r->request_kind = arena_new(ar, struct meta_v1_group_version_kind);
	*r->request_kind = (struct meta_v1_group_version_kind){.group = a->group, .version = a->version, .kind = a->kind};
	if (admit_own_kind(a))
		r->kind = *r->request_kind = (struct meta_v1_group_version_kind){.group = a->type->group, .version = a->type->version,
										 .kind = str_from(a->type->name)};
	r->request_resource = arena_new(ar, struct meta_v1_group_version_resource);
	*r->request_resource = (struct meta_v1_group_version_resource){.group = a->group, .version = a->version, .resource = a->resource};
	if (!str_eqz(a->rq->info.verb, "deletecollection")) /* which has no name, whatever is deleted */
		r->name = a->name;
	r->namespace = admit_namespace(a);
	r->operation = str_from(admit_operation(a));
	r->user_info.username = u->name;
	r->user_info.uid = u->uid;
	r->user_info.groups.v = (struct str *)(uintptr_t)u->groups;
	r->user_info.groups.n = (uint32_t)u->n_groups;
	for (size_t i = 0; i < u->n_extra; i++)
		*(struct strings_pair *)(void *)arena_push(ar, &r->user_info.extra) = u->extra[i];
	r->dry_run = arena_new(ar, bool);
	*r->dry_run = a->dry_run;
	r->options = options_json(a);
}

/* own_resource: `resource` is what was asked for, also where the objects are of an equivalent version. */
static struct cel_value request_value(struct admission *a, const struct admit_version *v, bool own_resource)
{
	struct admission_v1_admission_request *r = arena_new(a->rq->a, struct admission_v1_admission_request);

	admission_request_fill(a, v, r);
	if (own_resource)
		r->resource = *r->request_resource;
	return cel_from_object(&admission_v1_admission_request_type, r);
}

/* Custom resources are raw JSON in their structs: they are read as trees. */
static struct cel_value object_value(struct admission *a, const struct admit_version *v, const void *obj)
{
	struct jv *tree;

	if (!obj)
		return CEL_NULL_VALUE;
	if (!v->as->crd)
		return cel_from_object(v->type, obj);
	tree = arena_new(a->rq->a, struct jv);
	jv_from_object(a->rq->a, v->type, obj, tree);
	return cel_from_jv(a->rq->a, tree, NULL);
}

void expression_input_init(struct expression_input *in, struct admission *a, const struct admit_version *v, const struct core_v1_namespace *ns)
{
	struct authz_call *z = arena_new(a->rq->a, struct authz_call);
	struct cel_authz_check base = {.resource = true, .verb = STR_NULL, .group = v->as->api->group, .resource_name = v->as->api->plural,
				       .subresource = a->subresource, .ns = admit_namespace(a), .name = a->name};

	*in = (struct expression_input){.a = a, .v = v};
	in->object = object_value(a, v, v->obj);
	in->old_object = object_value(a, v, v->old);
	in->request = request_value(a, v, false);
	if (ns)
		in->namespace_object = cel_from_object(&core_v1_namespace_type, ns);
	base.group = a->group;
	base.resource_name = a->resource;
	z->base.check = authz_check;
	z->rq = a->rq;
	in->authorizer = cel_authorizer_value(a->rq->a, &z->base);
	in->resource_check = cel_resource_check_value(a->rq->a, &z->base, &base);
}

void expression_input_params(struct expression_input *in, const struct jv *params)
{
	in->params = cel_from_jv(in->a->rq->a, params, NULL);
}

/* ---- evaluation ---- */

struct lazy_variables {
	struct cel_lazy base;
	struct evaluation *ev;
	struct cel_value *values;
	bool *known;
};

static uint32_t activation(struct evaluation *ev, unsigned have, bool variables, struct cel_value *v)
{
	struct expression_input *in = ev->in;
	uint32_t n = 0;

	v[n++] = in->object;
	v[n++] = in->old_object;
	v[n++] = in->namespace_object;
	v[n++] = in->request;
	if (have & EXPR_PARAMS)
		v[n++] = in->params;
	if (have & EXPR_AUTHORIZER) {
		v[n++] = in->authorizer;
		v[n++] = in->resource_check;
	}
	if (variables)
		v[n++] = cel_lazy_map(&ev->lazy->base);
	return n;
}

struct variable_job {
	struct evaluation *ev;
	const struct expression *e;
	struct arena *arena;
	struct cel_value out;
	uint64_t cost;
};

static void variable_fiber(void *arg)
{
	struct variable_job *j = arg;
	struct cel_value v[ADMISSION_VARS_MAX];

	activation(j->ev, j->e->have, j->e->variables, v);
	j->out = cel_eval(j->e->program, v, j->arena, CEL_PER_CALL_LIMIT, &j->cost);
}

/* A variable is read. It is computed on a fiber of its own: variables that use variables would need a stack each. */
static bool variable_get(struct cel_lazy *self, struct arena *a, struct str name, struct cel_value *out)
{
	struct lazy_variables *z = (struct lazy_variables *)self;
	const struct composition *c = z->ev->c;

	for (uint32_t i = c->n; i-- > 0;) {
		struct variable_job j = {.ev = z->ev, .e = &c->v[i], .arena = z->ev->arena};

		if (!str_eq(c->names[i], name))
			continue;
		if (!z->known[i]) {
			if (!j.e->program) {
				z->values[i] = cel_error(j.arena, "composited variable \"%.*s\" fails to compile: %.*s", STR_ARG(name),
							 STR_ARG(j.e->error));
			} else {
				fiber_join(fiber_start("cel-variable", variable_fiber, &j));
				z->ev->variables_cost += j.cost;
				z->values[i] = j.out.kind == CEL_ERROR ? cel_error(j.arena, "composited variable \"%.*s\" fails to evaluate: %.*s",
										   STR_ARG(name), STR_ARG(cel_error_text(j.out))) :
									 j.out;
			}
			z->known[i] = true;
		}
		(void)a;
		*out = z->values[i];
		return true;
	}
	return false;
}

void evaluation_begin(struct evaluation *ev, struct expression_input *in, const struct composition *c, int64_t budget)
{
	struct arena *a = in->a->rq->a;

	*ev = (struct evaluation){.in = in, .c = c, .arena = a, .budget = budget};
	if (c && c->type) {
		ev->lazy = arena_new(a, struct lazy_variables);
		ev->lazy->base.get = variable_get;
		ev->lazy->ev = ev;
		ev->lazy->values = arena_array(a, struct cel_value, c->n);
		ev->lazy->known = arena_array(a, bool, c->n);
	}
}

bool evaluate(struct evaluation *ev, const struct expression *e, struct cel_value *out, struct str *error)
{
	struct cel_value v[ADMISSION_VARS_MAX];
	uint64_t cost = 0, all;

	*error = STR_NULL;
	*out = CEL_NULL_VALUE;
	if (!e->program) {
		*error = arena_printf(ev->arena, "compilation error: %.*s", STR_ARG(e->error));
		return true;
	}
	activation(ev, e->have, e->variables, v);
	*out = cel_eval(e->program, v, ev->arena, CEL_PER_CALL_LIMIT, &cost);
	all = cost + ev->variables_cost;
	ev->variables_cost = 0;
	if (all > INT64_MAX || (int64_t)all > ev->budget) {
		*error = STR(EVALUATION_OUT_OF_BUDGET);
		return false;
	}
	ev->budget -= (int64_t)all;
	if (out->kind == CEL_ERROR)
		*error = arena_printf(ev->arena, "expression '%.*s' resulted in error: %.*s", STR_ARG(e->source), STR_ARG(cel_error_text(*out)));
	return true;
}

/* ---- match conditions ---- */

void match_conditions_compile(struct arena *a, const struct admissionregistration_v1_match_condition *v, uint32_t n, unsigned have,
			      const struct composition *c, struct match_conditions *out)
{
	static const struct cel_type *const boolean[] = {&cel_type_bool};

	out->n = n;
	out->names = arena_array(a, struct str, n);
	out->v = arena_array(a, struct expression, n);
	for (uint32_t i = 0; i < n; i++) {
		out->names[i] = arena_str(a, v[i].name);
		expression_compile(a, v[i].expression, have, c, boolean, 1, &out->v[i]);
	}
}

void match_conditions_free(struct match_conditions *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		expression_free(&m->v[i]);
}

bool match_conditions_hold(const struct match_conditions *m, const struct composition *c, struct expression_input *in, struct str *error)
{
	struct evaluation ev;
	struct buf errors buf_cleanup = {0};
	struct cel_value ns = in->namespace_object, request = in->request;
	uint32_t n = 0;
	bool no = false;

	*error = STR_NULL;
	if (!m->n)
		return true;
	/* they see no namespaceObject, and the resource of the request */
	in->namespace_object = CEL_NULL_VALUE;
	if (in->v->as != in->a->res)
		in->request = request_value(in->a, in->v, true);
	evaluation_begin(&ev, in, c, CEL_MATCH_CONDITIONS_BUDGET);
	for (uint32_t i = 0; i < m->n && !no; i++) {
		struct cel_value v;
		struct str e;

		if (!evaluate(&ev, &m->v[i], &v, &e)) {
			in->namespace_object = ns;
			in->request = request;
			*error = e;
			return false;
		}
		if (e.p) {
			buf_printf(&errors, "%s%.*s", n++ ? ", " : "", STR_ARG(e));
			continue;
		}
		no = v.kind == CEL_BOOL && !v.b;
	}
	in->namespace_object = ns;
	in->request = request;
	if (no)
		return false;
	if (n)
		*error = arena_printf(ev.arena, n > 1 ? "[%.*s]" : "%.*s", STR_ARG(buf_view(&errors)));
	return n == 0;
}

bool match_conditions_counted(const struct match_conditions *m, const struct composition *c, struct expression_input *in, const char *kind,
			      const char *type, struct str name, struct str *error)
{
	struct arena *a = in->a->rq->a;
	int64_t since = now_ns();
	bool yes = match_conditions_hold(m, c, in, error);
	const char *labels;

	if (!m->n)
		return yes;
	labels = arena_printf(a, "kind=\"%s\",name=\"%.*s\",operation=\"%s\",type=\"%s\"", kind, STR_ARG(metric_label(a, name)),
			      admit_operation(in->a), type).p;
	metrics_observe(METRIC_MATCH_TIME, labels, (double)(now_ns() - since) / 1e9);
	if (!yes)
		metrics_count(error->p ? METRIC_MATCH_ERRORS : METRIC_MATCH_EXCLUSIONS, labels, 1);
	return yes;
}

/* ---- checks ---- */

void expression_validate(struct field_errors *fe, struct str source, unsigned have, const struct composition *c,
			 const struct cel_type *const *returns, size_t n, const struct field_path *p)
{
	struct expression e;

	expression_compile(fe->arena, source, have, c, returns, n, &e);
	if (e.error.p)
		expression_wrong(fe, p, source, e.error);
	expression_free(&e);
}

void match_conditions_validate(struct field_errors *fe, const struct admissionregistration_v1_match_condition *v, uint32_t n, bool params,
			       const struct field_path *p)
{
	static const struct cel_type *const boolean[] = {&cel_type_bool};

	if (n > 64)
		field_too_many(fe, p, n, 64);
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *q = FIELD_INDEX(p, i);
		struct str trimmed = str_trim(v[i].expression);
		const char *m;

		if (!trimmed.n)
			field_required(fe, FIELD_CHILD(q, "expression"), "");
		else
			expression_validate(fe, trimmed, EXPR_AUTHORIZER | (params ? EXPR_PARAMS : 0), NULL, boolean, 1, FIELD_CHILD(q, "expression"));
		if (!v[i].name.n) {
			field_required(fe, FIELD_CHILD(q, "name"), "");
			continue;
		}
		m = validate_qualified_name(fe->arena, v[i].name);
		if (m)
			field_invalid(fe, FIELD_CHILD(q, "name"), v[i].name, "%s", m);
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(v[k].name, v[i].name)) {
				field_duplicate(fe, FIELD_CHILD(q, "name"), v[i].name);
				break;
			}
	}
}
