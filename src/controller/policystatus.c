/*
 * controller/policystatus.c: type-checks the expressions of ValidatingAdmissionPolicies against the kinds that they match, and writes
 * what it finds into status.typeChecking. It changes nothing of what a policy does. Upstream:
 * apiserver/pkg/admission/plugin/policy/validating/typechecking.go, pkg/controller/validatingadmissionpolicystatus.
 */
#include <stdlib.h>

#include "cel/admission.h"
#include "controller/common.h"
#include "schema/jv.h"

#define TYPES_MAX 10       /* kinds that are checked of one rule, upstream's maxTypesToCheck */
#define SCHEMA_DEPTH_MAX 64

typedef struct admissionregistration_v1_validating_admission_policy policy;

struct policy_status {
	struct manager *m;
	struct informer *policies;
	struct workqueue *q;
};
struct gvk {
	struct str group, version, kind;
};
struct kinds {
	LIST(struct gvk) list;
};
struct checked { /* a kind, and the types of `object` and `params` with it */
	struct gvk gvk;
	const struct cel_type *object;
};
struct checking {
	struct policy_status *c;
	struct arena *a;
	const policy *p;
	LIST(struct checked) kinds;
	const struct cel_type *params; /* NULL: dyn */
	unsigned have;
	bool missing;                  /* some resource is not known (yet) */
	LIST(struct admissionregistration_v1_expression_warning) warnings;
};

/* ---- which kinds ---- */

static bool has_wildcard(const struct str *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_index(v[i], '*') >= 0)
			return true;
	return false;
}

static int str_order(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

static int gvk_order(const void *x, const void *y)
{
	const struct gvk *p = x, *q = y;
	int d = str_cmp(p->group, q->group);

	d = d ? d : str_cmp(p->version, q->version);
	return d ? d : str_cmp(p->kind, q->kind);
}

static struct str *sorted(struct arena *a, const struct str *v, uint32_t n)
{
	struct str *out = arena_array(a, struct str, n);

	for (uint32_t i = 0; i < n; i++)
		out[i] = v[i];
	qsort(out, n, sizeof *out, str_order);
	return out;
}

static void add_kind(struct arena *a, struct kinds *k, struct gvk g)
{
	for (uint32_t i = 0; i < k->list.n; i++)
		if (!gvk_order(&k->list.v[i], &g))
			return;
	g = (struct gvk){arena_str(a, g.group), arena_str(a, g.version), arena_str(a, g.kind)};
	*arena_push(a, &k->list) = g;
}

/* The kinds of a resource; an empty group is that of every group, as a RESTMapper takes it. Returns false when there are enough. */
static bool kinds_of(struct checking *z, struct gvk r, struct kinds *out, int *count)
{
	const struct api_resource **v;
	size_t n = 0;
	struct error *e = manager_discover(z->c->m, &v, &n, NULL);
	int before = *count;

	log_and_free(e, "type checking of %.*s", STR_ARG(z->p->metadata.name));
	for (size_t i = 0; i < n; i++) {
		if (!str_eq(v[i]->plural, r.kind) || !str_eq(v[i]->version, r.version) || (r.group.n && !str_eq(v[i]->group, r.group)))
			continue;
		add_kind(z->a, out, (struct gvk){v[i]->group, v[i]->version, v[i]->kind});
		if (++*count == TYPES_MAX)
			return false;
	}
	z->missing |= *count == before;
	return true;
}

static bool kinds_of_rule(struct checking *z, const struct admissionregistration_v1_rule *r, struct kinds *out)
{
	struct str *groups = sorted(z->a, r->api_groups.v, r->api_groups.n), *versions = sorted(z->a, r->api_versions.v, r->api_versions.n);
	struct str *resources = sorted(z->a, r->resources.v, r->resources.n);
	int count = 0;

	if (has_wildcard(groups, r->api_groups.n) || has_wildcard(versions, r->api_versions.n))
		return true;
	for (uint32_t g = 0; g < r->api_groups.n; g++)
		for (uint32_t v = 0; v < r->api_versions.n; v++)
			for (uint32_t k = 0; k < r->resources.n; k++) {
				if (str_index(resources[k], '*') >= 0 || str_index(resources[k], '/') >= 0)
					continue;
				if (!kinds_of(z, (struct gvk){groups[g], versions[v], resources[k]}, out, &count))
					return false;
			}
	return true;
}

/* ---- schemas as types ---- */

static const struct cel_type *type_of(struct checking *z, const struct jv *doc, const struct jv *s, int depth);

static const struct cel_type *type_of_ref(struct checking *z, const struct jv *doc, struct str ref, int depth)
{
	static const char prefix[] = "#/components/schemas/";
	struct str name = str_has_prefix(ref, str_from(prefix)) ? str_sub(ref, sizeof prefix - 1, ref.n) : ref;

	if (str_eqz(name, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"))
		return cel_type_of_schema(z->a, &meta_v1_object_meta_type);
	return type_of(z, doc, jv_get(jv_get(jv_get(doc, STR("components")), STR("schemas")), name), depth + 1);
}

static const struct cel_type *object_of(struct checking *z, const struct jv *doc, const struct jv *s, int depth)
{
	const struct jv *props = jv_get(s, STR("properties"));
	struct cel_type *t = arena_new(z->a, struct cel_type);
	struct cel_field *f = arena_array(z->a, struct cel_field, jv_is(props, JV_OBJECT) ? props->n : 0);

	t->kind = CEL_OBJECT;
	t->name = arena_printf(z->a, "object%p", (const void *)s);
	t->max_size = CEL_NO_MAX_SIZE;
	for (uint32_t i = 0; jv_is(props, JV_OBJECT) && i < props->n; i++) {
		const struct cel_type *ft = type_of(z, doc, &props->members[i].value, depth + 1);

		f[t->n_fields] = (struct cel_field){.json_name = props->members[i].key, .type = ft};
		if (ft && cel_escape(z->a, props->members[i].key, &f[t->n_fields].name))
			t->n_fields++;
	}
	t->fields = f;
	return t;
}

static const struct cel_type *container(struct arena *a, enum cel_kind kind, const struct cel_type *of)
{
	struct cel_type *t;

	if (!of)
		return NULL;
	t = arena_new(a, struct cel_type);
	t->kind = kind;
	t->key = kind == CEL_MAP ? &cel_type_string : NULL;
	t->elem = of;
	t->max_size = CEL_NO_MAX_SIZE;
	return t;
}

static const struct cel_type *string_of(struct str format)
{
	if (str_eqz(format, "byte"))
		return &cel_type_bytes;
	if (str_eqz(format, "duration"))
		return &cel_type_duration;
	if (str_eqz(format, "date") || str_eqz(format, "date-time"))
		return &cel_type_timestamp;
	return &cel_type_string;
}

/* NULL: not visible in expressions. */
static const struct cel_type *type_of(struct checking *z, const struct jv *doc, const struct jv *s, int depth)
{
	const struct jv *all = jv_get(s, STR("allOf")), *inner = jv_get(s, STR("additionalProperties")), *b;
	struct str type = jv_str(jv_get(s, STR("type"))), ref = jv_str(jv_get(s, STR("$ref")));

	if (!s || depth > SCHEMA_DEPTH_MAX)
		return NULL;
	if (!ref.n && jv_is(all, JV_ARRAY) && all->n == 1)
		ref = jv_str(jv_get(&all->items[0], STR("$ref")));
	if (ref.n)
		return type_of_ref(z, doc, ref, depth);
	b = jv_get(s, STR("x-kubernetes-int-or-string"));
	if (jv_is(b, JV_BOOL) && b->b)
		return &cel_type_dyn;
	if (str_eqz(type, "array"))
		return container(z->a, CEL_LIST, type_of(z, doc, jv_get(s, STR("items")), depth + 1));
	if (str_eqz(type, "object"))
		return jv_is(inner, JV_OBJECT) ? container(z->a, CEL_MAP, type_of(z, doc, inner, depth + 1)) : object_of(z, doc, s, depth);
	if (str_eqz(type, "string"))
		return string_of(jv_str(jv_get(s, STR("format"))));
	if (str_eqz(type, "boolean"))
		return &cel_type_bool;
	if (str_eqz(type, "number"))
		return &cel_type_double;
	return str_eqz(type, "integer") ? &cel_type_int : NULL;
}

static bool is_kind(const struct jv *schema, struct gvk g)
{
	const struct jv *v = jv_get(schema, STR("x-kubernetes-group-version-kind"));

	for (uint32_t i = 0; jv_is(v, JV_ARRAY) && i < v->n; i++)
		if (str_eq(jv_str(jv_get(&v->items[i], STR("group"))), g.group) && str_eq(jv_str(jv_get(&v->items[i], STR("version"))), g.version) &&
		    str_eq(jv_str(jv_get(&v->items[i], STR("kind"))), g.kind))
			return true;
	return false;
}

/* The type of a kind, *out NULL: it has no schema. Of kinds that are not built in, the server's OpenAPI document says it. */
static struct error *kind_type(struct checking *z, struct gvk g, const struct cel_type **out)
{
	struct str text;
	struct jv *doc;
	const struct jv *schemas;
	struct error *e;

	*out = NULL;
	for (size_t i = 0; i < n_api_resources; i++) {
		const struct api_resource *r = api_resources[i];

		if (str_eq(r->group, g.group) && str_eq(r->version, g.version) && str_eq(r->kind, g.kind)) {
			*out = cel_type_of_schema(z->a, r->type);
			return NULL;
		}
	}
	if (!g.group.n)
		return NULL;
	e = client_raw(z->c->m->client, z->a, "GET", arena_printf(z->a, "/openapi/v3/apis/%.*s/%.*s", STR_ARG(g.group), STR_ARG(g.version)), NULL,
		       STR_NULL, &text);
	if (error_is(e, 404, NULL)) {
		error_free(e);
		return NULL;
	}
	TRY(e);
	doc = arena_new(z->a, struct jv);
	TRY(jv_parse(z->a, text, NULL, doc));
	schemas = jv_get(jv_get(doc, STR("components")), STR("schemas"));
	for (uint32_t i = 0; jv_is(schemas, JV_OBJECT) && i < schemas->n && !*out; i++)
		if (is_kind(&schemas->members[i].value, g))
			*out = type_of(z, doc, &schemas->members[i].value, 0);
	return NULL;
}

/* ---- checking ---- */

static const struct cel_type *variable_types(struct checking *z, const struct cel_type *object)
{
	uint32_t n = z->p->spec.variables.n;
	struct str *names = arena_array(z->a, struct str, n);
	const struct cel_type **types = arena_array(z->a, const struct cel_type *, n), *all = admission_variables_type(z->a, names, types, 0);

	for (uint32_t i = 0; i < n; i++) {
		struct cel_var vars[ADMISSION_VARS_MAX];
		struct cel_env env = {.vars = vars};
		struct cel_issues issues = {0};
		struct cel_program *prog = NULL;

		names[i] = z->p->spec.variables.v[i].name;
		env.n_vars = admission_vars(z->have, object, z->params, all, vars);
		if (cel_compile(z->a, &env, z->p->spec.variables.v[i].expression, &prog, &issues))
			types[i] = cel_program_type(prog);
		all = admission_variables_type(z->a, names, types, i + 1);
		cel_program_free(prog);
	}
	return all;
}

/* What is wrong with the expression for each kind; empty: nothing. */
static struct str check(struct checking *z, struct str source)
{
	struct buf b buf_cleanup = {0};

	for (uint32_t i = 0; i < z->kinds.n; i++) {
		const struct checked *k = &z->kinds.v[i];
		struct cel_var vars[ADMISSION_VARS_MAX];
		struct cel_env env = {.vars = vars};
		struct cel_issues issues = {0};
		struct cel_program *prog = NULL;

		env.n_vars = admission_vars(z->have, k->object, z->params, variable_types(z, k->object), vars);
		if (!cel_compile(z->a, &env, source, &prog, &issues) && !issues.instantiation)
			buf_printf(&b, "%s%.*s/%.*s, Kind=%.*s: %.*s\n", b.n ? "\n" : "", STR_ARG(k->gvk.group), STR_ARG(k->gvk.version),
				   STR_ARG(k->gvk.kind), STR_ARG(cel_issues_text(z->a, source, &issues)));
		cel_program_free(prog);
	}
	return arena_str(z->a, buf_view(&b));
}

static void check_field(struct checking *z, uint32_t i, const char *field, struct str source)
{
	struct str warning = check(z, source);

	if (warning.n)
		*arena_push(z->a, &z->warnings) = (struct admissionregistration_v1_expression_warning){
			.field_ref = arena_printf(z->a, "spec.validations[%u].%s", i, field), .warning = warning};
}

static struct error *find_types(struct checking *z)
{
	const policy *p = z->p;
	struct kinds found = {0};
	bool more = true;

	for (uint32_t i = 0; p->spec.match_constraints && more && i < p->spec.match_constraints->resource_rules.n; i++)
		more = kinds_of_rule(z, &p->spec.match_constraints->resource_rules.v[i].rule_with_operations.rule, &found);
	if (found.list.n)
		qsort(found.list.v, found.list.n, sizeof *found.list.v, gvk_order);
	for (uint32_t i = 0; i < found.list.n; i++) {
		struct checked k = {.gvk = found.list.v[i]};

		TRY(kind_type(z, k.gvk, &k.object));
		if (k.object)
			*arena_push(z->a, &z->kinds) = k;
	}
	z->have = EXPR_AUTHORIZER | EXPR_TYPE_CHECK;
	if (p->spec.param_kind) {
		struct gvk g = {.kind = p->spec.param_kind->kind};

		api_version_split(p->spec.param_kind->api_version, &g.group, &g.version);
		z->have |= EXPR_PARAMS;
		TRY(kind_type(z, g, &z->params));
	}
	return NULL;
}

static struct str status_text(struct checking *z)
{
	struct buf b buf_cleanup = {0};

	buf_puts(&b, "{\"apiVersion\":\"admissionregistration.k8s.io/v1\",\"kind\":\"ValidatingAdmissionPolicy\",\"metadata\":{\"name\":");
	jv_encode_string(&b, z->p->metadata.name);
	buf_printf(&b, "},\"status\":{\"observedGeneration\":%lld,\"typeChecking\":{", (long long)z->p->metadata.generation);
	for (uint32_t i = 0; i < z->warnings.n; i++) {
		buf_puts(&b, i ? ",{\"fieldRef\":" : "\"expressionWarnings\":[{\"fieldRef\":");
		jv_encode_string(&b, z->warnings.v[i].field_ref);
		buf_puts(&b, ",\"warning\":");
		jv_encode_string(&b, z->warnings.v[i].warning);
		buf_putc(&b, '}');
	}
	buf_puts(&b, z->warnings.n ? "]}}}" : "}}}");
	return arena_str(z->a, buf_view(&b));
}

static struct error *reconcile(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct policy_status *c = ctx;
	struct checking z = {.c = c, .a = a, .p = informer_get(c->policies, a, STR_NULL, name)};
	struct error *e;

	if (!z.p || z.p->metadata.generation <= z.p->status.observed_generation)
		return NULL;
	TRY(find_types(&z));
	if (z.missing && manager_discovery_stale(c->m))
		return error_new("type checking of %.*s: discovery is learnt again", STR_ARG(name));
	for (uint32_t i = 0; i < z.p->spec.validations.n; i++) {
		check_field(&z, i, "expression", z.p->spec.validations.v[i].expression);
		if (z.p->spec.validations.v[i].message_expression.n)
			check_field(&z, i, "messageExpression", z.p->spec.validations.v[i].message_expression);
	}
	e = client_patch(c->m->client, a, &admissionregistration_v1_validatingadmissionpolicies_resource, STR_NULL, name, "status", PATCH_APPLY,
			 status_text(&z), "validatingadmissionpolicy-status", true, NULL);
	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static void on_policy(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	if (new_)
		workqueue_add(((struct policy_status *)ctx)->q, new_->name);
}

void policy_status_start(struct manager *m)
{
	struct policy_status *c = xcalloc(1, sizeof *c);

	c->m = m;
	c->q = workqueue_new("validatingadmissionpolicy-status");
	c->policies = manager_informer(m, &admissionregistration_v1_validatingadmissionpolicies_resource);
	informer_on_event(c->policies, on_policy, c);
	controller_run(m, c->q, "validatingadmissionpolicy-status-controller", 5, reconcile, c, c->policies, NULL);
}
