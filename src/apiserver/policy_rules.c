/* What admission policies and their bindings may be: upstream's pkg/apis/admissionregistration/validation and its registries. */
#include "apiserver/authz.h"
#include "apiserver/policy.h"
#include "apiserver/rules.h"

#define AUDIT_ANNOTATIONS_MAX 20
#define ANNOTATION_EXPRESSION_MAX (5 * 1024) /* bytes */

typedef struct admissionregistration_v1_validating_admission_policy vap;
typedef struct admissionregistration_v1_validating_admission_policy_binding vapb;
typedef struct admissionregistration_v1_mutating_admission_policy map_;
typedef struct admissionregistration_v1_mutating_admission_policy_binding mapb;

static const struct cel_type *const is_bool[] = {&cel_type_bool};
static const struct cel_type *const is_string[] = {&cel_type_string};
static const struct cel_type *const is_string_or_null[] = {&cel_type_string, &cel_type_null};
static const struct cel_type *const is_patch[] = {&cel_type_list_json_patch};
static const struct cel_type *const is_object[] = {&cel_type_object};

/* ---- what they share ---- */

static bool has_star(const struct str *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eqz(v[i], "*"))
			return true;
	return false;
}

/* A list as upstream prints it in the value of an error: ["a","b"]. */
static struct str list_text(struct arena *a, const struct str *v, uint32_t n)
{
	struct buf b buf_cleanup = {0};

	buf_putc(&b, '[');
	for (uint32_t i = 0; i < n; i++)
		buf_printf(&b, "%s\"%.*s\"", i ? "," : "", STR_ARG(v[i]));
	buf_putc(&b, ']');
	return arena_str(a, buf_view(&b));
}

static void resources_rules(struct field_errors *e, const struct str *v, uint32_t n, const struct field_path *p)
{
	bool any_with_sub = false, any = false, plain = false;

	if (!n)
		field_required(e, p, "");
	for (uint32_t i = 0; i < n; i++) {
		struct str sub = v[i], res = str_cut(&sub, '/');

		if (!v[i].n) {
			field_required(e, FIELD_INDEX(p, i), "");
			continue;
		}
		any_with_sub |= str_eqz(v[i], "*/*");
		any |= str_eqz(v[i], "*");
		if (!sub.p) {
			plain = !str_eqz(v[i], "*");
			continue;
		}
		for (uint32_t k = 0; k < i; k++) {
			struct str osub = v[k], ores = str_cut(&osub, '/');

			if (osub.p && str_eqz(osub, "*") && str_eq(ores, res)) {
				field_invalid(e, FIELD_INDEX(p, i), v[i], "if '%.*s/*' is present, must not specify %.*s", STR_ARG(res), STR_ARG(v[i]));
				break;
			}
		}
		for (uint32_t k = 0; k < i; k++) {
			struct str osub = v[k], ores = str_cut(&osub, '/');

			if (osub.p && str_eqz(ores, "*") && str_eq(osub, sub)) {
				field_invalid(e, FIELD_INDEX(p, i), v[i], "if '*/%.*s' is present, must not specify %.*s", STR_ARG(sub), STR_ARG(v[i]));
				break;
			}
		}
	}
	if (n > 1 && any_with_sub)
		field_invalid_raw(e, p, list_text(e->arena, v, n), "if '*/*' is present, must not specify other resources");
	if (any && plain)
		field_invalid_raw(e, p, list_text(e->arena, v, n), "if '*' is present, must not specify other resources without subresources");
}

void operations_rule_validate(struct field_errors *e, const struct admissionregistration_v1_rule_with_operations *r, const struct field_path *p)
{
	const struct field_path *ops = FIELD_CHILD(p, "operations"), *versions = FIELD_CHILD(p, "apiVersions");

	if (!r->operations.n)
		field_required(e, ops, "");
	if (r->operations.n > 1 && has_star(r->operations.v, r->operations.n))
		field_invalid_raw(e, ops, list_text(e->arena, r->operations.v, r->operations.n), "if '*' is present, must not specify other operations");
	for (uint32_t i = 0; i < r->operations.n; i++)
		field_one_of(e, FIELD_INDEX(ops, i), r->operations.v[i], "*,CONNECT,CREATE,DELETE,UPDATE");
	if (!r->rule.api_groups.n)
		field_required(e, FIELD_CHILD(p, "apiGroups"), "");
	if (r->rule.api_groups.n > 1 && has_star(r->rule.api_groups.v, r->rule.api_groups.n))
		field_invalid_raw(e, FIELD_CHILD(p, "apiGroups"), list_text(e->arena, r->rule.api_groups.v, r->rule.api_groups.n),
				  "if '*' is present, must not specify other API groups");
	if (!r->rule.api_versions.n)
		field_required(e, versions, "");
	if (r->rule.api_versions.n > 1 && has_star(r->rule.api_versions.v, r->rule.api_versions.n))
		field_invalid_raw(e, versions, list_text(e->arena, r->rule.api_versions.v, r->rule.api_versions.n),
				  "if '*' is present, must not specify other API versions");
	for (uint32_t i = 0; i < r->rule.api_versions.n; i++)
		if (!r->rule.api_versions.v[i].n)
			field_required(e, FIELD_INDEX(versions, i), "");
	resources_rules(e, r->rule.resources.v, r->rule.resources.n, FIELD_CHILD(p, "resources"));
	if (r->rule.scope)
		field_one_of(e, FIELD_CHILD(p, "scope"), *r->rule.scope, "*,Cluster,Namespaced");
}

static void named_rules(struct field_errors *e, const struct admissionregistration_v1_named_rule_with_operations *r, const struct field_path *p)
{
	for (uint32_t i = 0; i < r->resource_names.n; i++) {
		const struct field_path *q = FIELD_INDEX(FIELD_CHILD(p, "resourceNames"), i);
		const char *m = validate_path_segment(e->arena, r->resource_names.v[i]);

		if (m)
			field_invalid(e, q, r->resource_names.v[i], "%s", m);
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(r->resource_names.v[k], r->resource_names.v[i])) {
				field_duplicate(e, q, r->resource_names.v[i]);
				break;
			}
	}
	operations_rule_validate(e, &r->rule_with_operations, p);
}

static void match_rules(struct field_errors *e, const struct admissionregistration_v1_match_resources *m, const struct field_path *p)
{
	if (!m)
		return;
	if (!m->match_policy)
		field_required(e, FIELD_CHILD(p, "matchPolicy"), "");
	else
		field_one_of(e, FIELD_CHILD(p, "matchPolicy"), *m->match_policy, "Equivalent,Exact");
	if (!m->namespace_selector)
		field_required(e, FIELD_CHILD(p, "namespaceSelector"), "");
	else
		validate_label_selector(e, m->namespace_selector, FIELD_CHILD(p, "namespaceSelector"));
	if (!m->object_selector)
		field_required(e, FIELD_CHILD(p, "objectSelector"), "");
	else
		validate_label_selector(e, m->object_selector, FIELD_CHILD(p, "objectSelector"));
	for (uint32_t i = 0; i < m->resource_rules.n; i++)
		named_rules(e, &m->resource_rules.v[i], FIELD_INDEX(FIELD_CHILD(p, "resourceRules"), i));
	for (uint32_t i = 0; i < m->exclude_resource_rules.n; i++)
		named_rules(e, &m->exclude_resource_rules.v[i], FIELD_INDEX(FIELD_CHILD(p, "excludeResourceRules"), i));
}

static void constraints_rules(struct field_errors *e, const struct admissionregistration_v1_match_resources *m, const struct field_path *spec)
{
	const struct field_path *p = FIELD_CHILD(spec, "matchConstraints");

	if (!m) {
		field_required(e, p, "");
		return;
	}
	match_rules(e, m, p);
	if (!m->resource_rules.n)
		field_required(e, FIELD_CHILD(p, "resourceRules"), "");
}

/* There is nothing to change in a DELETE. */
static void mutable_rules(struct field_errors *e, const struct admissionregistration_v1_match_resources *m, const struct field_path *p)
{
	for (uint32_t i = 0; m && i < m->resource_rules.n; i++)
		for (uint32_t k = 0; k < m->resource_rules.v[i].rule_with_operations.operations.n; k++)
			field_one_of(e, FIELD_CHILD(FIELD_CHILD(p, "resourceRules"), "operations"),
				     m->resource_rules.v[i].rule_with_operations.operations.v[k], "*,CONNECT,CREATE,UPDATE");
}

static void failure_policy_rules(struct field_errors *e, const struct str *v, const struct field_path *spec)
{
	if (!v)
		field_required(e, FIELD_CHILD(spec, "failurePolicy"), "");
	else
		field_one_of(e, FIELD_CHILD(spec, "failurePolicy"), *v, "Fail,Ignore");
}

static struct str lower(struct arena *a, struct str s)
{
	char *p = arena_strz(a, s);

	for (size_t i = 0; i < s.n; i++)
		if (p[i] >= 'A' && p[i] <= 'Z')
			p[i] = (char)(p[i] + 32);
	return str_of(p, s.n);
}

static void param_kind_rules(struct field_errors *e, const struct admissionregistration_v1_param_kind *k, const struct field_path *p)
{
	const struct field_path *v = FIELD_CHILD(p, "apiVersion"), *kind = FIELD_CHILD(p, "kind");
	struct str version = k->api_version, group = str_cut(&version, '/');
	const char *m;

	if (!version.p) {
		version = group;
		group = STR_NULL;
	}
	if (!k->api_version.n) {
		field_required(e, v, "");
	} else if (str_index(version, '/') >= 0) {
		field_invalid(e, v, k->api_version, "unexpected GroupVersion string: %.*s", STR_ARG(k->api_version));
	} else {
		if (group.n && (m = validate_dns1123_subdomain(e->arena, group)) != NULL)
			field_invalid(e, v, group, "%s", m);
		if (!version.n)
			field_invalid(e, v, k->api_version, "version must be specified");
		else if ((m = validate_dns1035_label(e->arena, version)) != NULL)
			field_invalid(e, v, version, "%s", m);
	}
	if (!k->kind.n)
		field_required(e, kind, "");
	else if ((m = validate_dns1035_label(e->arena, lower(e->arena, k->kind))) != NULL)
		field_invalid(e, kind, k->kind, "may have mixed case, but should otherwise match: %s", m);
}

static bool is_identifier(struct str s)
{
	static const char *const reserved[] = {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function",
					       "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"};

	for (size_t i = 0; i < s.n; i++)
		if (!(s.p[i] == '_' || (s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= 'A' && s.p[i] <= 'Z') ||
		      (i && s.p[i] >= '0' && s.p[i] <= '9')))
			return false;
	for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
		if (str_eqz(s, reserved[i]))
			return false;
	return s.n > 0;
}

/* Each variable is compiled with those before it; the composition is for what follows and is freed by the caller. */
static void variable_rules(struct field_errors *e, const struct admissionregistration_v1_variable *v, uint32_t n, unsigned have,
			   struct composition *c, const struct field_path *spec)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *p = FIELD_INDEX(FIELD_CHILD(spec, "variables"), i);
		const struct expression *x;

		if (!str_trim(v[i].name).n)
			field_required(e, FIELD_CHILD(p, "name"), "name is not specified");
		else if (!is_identifier(v[i].name))
			field_invalid(e, FIELD_CHILD(p, "name"), v[i].name, "must be a valid CEL identifier");
		if (!str_trim(v[i].expression).n) {
			field_required(e, FIELD_CHILD(p, "expression"), "expression is not specified");
			continue;
		}
		x = composition_add(e->arena, c, v[i].name, v[i].expression, have);
		if (x->error.p)
			expression_wrong(e, FIELD_CHILD(p, "expression"), v[i].expression, x->error);
	}
}

/* ---- ValidatingAdmissionPolicy ---- */

static bool has_newline(struct str s)
{
	return str_index(s, '\n') >= 0 || str_index(s, '\r') >= 0;
}

static void validation_rules(struct field_errors *e, const struct admissionregistration_v1_validation *v, unsigned params,
			     const struct composition *c, const struct field_path *p)
{
	if (!str_trim(v->expression).n)
		field_required(e, FIELD_CHILD(p, "expression"), "expression is not specified");
	else
		expression_validate(e, v->expression, params | EXPR_AUTHORIZER, c, is_bool, 1, FIELD_CHILD(p, "expression"));
	if (v->message_expression.n && !str_trim(v->message_expression).n)
		field_invalid(e, FIELD_CHILD(p, "messageExpression"), v->message_expression, "must be non-empty if specified");
	else if (v->message_expression.n)
		expression_validate(e, v->message_expression, params, c, is_string, 1, FIELD_CHILD(p, "messageExpression"));
	if (v->message.n && !str_trim(v->message).n)
		field_invalid(e, FIELD_CHILD(p, "message"), v->message, "must be non-empty if specified");
	else if (has_newline(str_trim(v->message)))
		field_invalid(e, FIELD_CHILD(p, "message"), v->message, "must not contain line breaks");
	if (v->reason)
		field_one_of(e, FIELD_CHILD(p, "reason"), *v->reason, "Forbidden,Invalid,RequestEntityTooLarge");
}

static void annotation_rules(struct field_errors *e, const vap *o, uint32_t i, unsigned params, const struct composition *c,
			     const struct field_path *list)
{
	const struct admissionregistration_v1_audit_annotation *v = &o->spec.audit_annotations.v[i];
	const struct field_path *p = FIELD_INDEX(list, i);
	struct str trimmed = str_trim(v->value_expression);

	if (!o->metadata.name.n)
		field_invalid(e, FIELD_CHILD(p, "key"), v->key, "requires metadata.name be non-empty");
	else {
		struct str full = arena_printf(e->arena, "%.*s/%.*s", STR_ARG(o->metadata.name), STR_ARG(v->key));

		field_check(e, FIELD_CHILD(p, "key"), full, validate_qualified_name);
	}
	if (!trimmed.n) {
		field_required(e, FIELD_CHILD(p, "valueExpression"), "valueExpression is not specified");
	} else if (trimmed.n > ANNOTATION_EXPRESSION_MAX) {
		field_required(e, FIELD_CHILD(p, "valueExpression"), "must not exceed 5120 bytes in length");
	} else {
		struct expression x;

		expression_compile(e->arena, trimmed, params | EXPR_AUTHORIZER, c, is_string_or_null, 2, &x);
		if (x.error.p)
			expression_wrong(e, FIELD_CHILD(p, "valueExpression"), v->value_expression, x.error);
		expression_free(&x);
	}
	for (uint32_t k = 0; k < i; k++)
		if (str_eq(o->spec.audit_annotations.v[k].key, v->key)) {
			field_duplicate(e, FIELD_CHILD(p, "key"), v->key);
			break;
		}
}

static bool same_conditions(const struct schema_type *t, const void *a, const void *b)
{
	return object_field_equal(t, a, b, "paramKind") && object_field_equal(t, a, b, "matchConditions");
}

static void vap_rules(struct field_errors *e, const vap *o, const vap *old)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *list = FIELD_CHILD(spec, "auditAnnotations");
	unsigned params = o->spec.param_kind ? EXPR_PARAMS : 0;
	struct composition vars = {0};
	const struct composition *c = o->spec.variables.n ? &vars : NULL;

	failure_policy_rules(e, o->spec.failure_policy, spec);
	if (o->spec.param_kind)
		param_kind_rules(e, o->spec.param_kind, FIELD_CHILD(spec, "paramKind"));
	constraints_rules(e, o->spec.match_constraints, spec);
	if (!old || !same_conditions(&admissionregistration_v1_validating_admission_policy_spec_type, &o->spec, &old->spec))
		match_conditions_validate(e, o->spec.match_conditions.v, o->spec.match_conditions.n, params != 0, FIELD_CHILD(spec, "matchConditions"));
	variable_rules(e, o->spec.variables.v, o->spec.variables.n, params | EXPR_AUTHORIZER, &vars, spec);
	if (!o->spec.validations.n && !o->spec.audit_annotations.n) {
		field_required(e, FIELD_CHILD(spec, "validations"), "validations or auditAnnotations must contain at least one item");
		field_required(e, list, "validations or auditAnnotations must contain at least one item");
	}
	for (uint32_t i = 0; i < o->spec.validations.n; i++)
		validation_rules(e, &o->spec.validations.v[i], params, c, FIELD_INDEX(FIELD_CHILD(spec, "validations"), i));
	if (o->spec.audit_annotations.n > AUDIT_ANNOTATIONS_MAX)
		field_invalid_raw(e, list, STR("[]"), "must not have more than %d auditAnnotations", AUDIT_ANNOTATIONS_MAX);
	for (uint32_t i = 0; i < o->spec.audit_annotations.n; i++)
		annotation_rules(e, o, i, params, c, list);
	composition_free(&vars);
}

/* ---- MutatingAdmissionPolicy ---- */

static void mutation_rules(struct field_errors *e, const struct admissionregistration_v1_mutation *m, unsigned have, const struct composition *c,
			   const struct field_path *p)
{
	const struct field_path *json = FIELD_CHILD(p, "jsonPatch"), *apply = FIELD_CHILD(p, "applyConfiguration");

	if (!m->patch_type.n) {
		field_required(e, FIELD_CHILD(p, "patchType"), "");
	} else if (str_eqz(m->patch_type, "JSONPatch")) {
		if (!m->json_patch)
			field_required(e, json, "must be specified when patchType is JSONPatch");
		else if (!str_trim(m->json_patch->expression).n)
			field_required(e, FIELD_CHILD(json, "expression"), "");
		else
			expression_validate(e, str_trim(m->json_patch->expression), have, c, is_patch, 1, FIELD_CHILD(json, "expression"));
		if (m->apply_configuration)
			field_invalid(e, apply, STR("{applyConfiguration}"), "must not be specified when patchType is JSONPatch");
	} else if (str_eqz(m->patch_type, "ApplyConfiguration")) {
		if (!m->apply_configuration)
			field_required(e, apply, "must be specified when patchType is ApplyConfiguration");
		else if (!str_trim(m->apply_configuration->expression).n)
			field_required(e, FIELD_CHILD(apply, "expression"), "");
		else
			expression_validate(e, str_trim(m->apply_configuration->expression), have, c, is_object, 1, FIELD_CHILD(apply, "expression"));
		if (m->json_patch)
			field_invalid(e, json, STR("{jsonPatch}"), "must not be specified when patchType is ApplyConfiguration");
	} else {
		field_one_of(e, FIELD_CHILD(p, "patchType"), m->patch_type, "ApplyConfiguration,JSONPatch");
	}
}

static void map_rules(struct field_errors *e, const map_ *o, const map_ *old)
{
	const struct field_path *spec = FIELD_ROOT("spec");
	unsigned params = o->spec.param_kind ? EXPR_PARAMS : 0;
	struct composition vars = {0};

	failure_policy_rules(e, o->spec.failure_policy, spec);
	if (o->spec.param_kind)
		param_kind_rules(e, o->spec.param_kind, FIELD_CHILD(spec, "paramKind"));
	constraints_rules(e, o->spec.match_constraints, spec);
	mutable_rules(e, o->spec.match_constraints, FIELD_CHILD(spec, "matchConstraints"));
	if (!old || !same_conditions(&admissionregistration_v1_mutating_admission_policy_spec_type, &o->spec, &old->spec))
		match_conditions_validate(e, o->spec.match_conditions.v, o->spec.match_conditions.n, params != 0, FIELD_CHILD(spec, "matchConditions"));
	variable_rules(e, o->spec.variables.v, o->spec.variables.n, params | EXPR_AUTHORIZER, &vars, spec);
	if (!o->spec.mutations.n)
		field_required(e, FIELD_CHILD(spec, "mutations"), "mutations must contain at least one item");
	for (uint32_t i = 0; i < o->spec.mutations.n; i++)
		mutation_rules(e, &o->spec.mutations.v[i], params | EXPR_AUTHORIZER | EXPR_PATCH, &vars,
			       FIELD_INDEX(FIELD_CHILD(spec, "mutations"), i));
	if (!o->spec.reinvocation_policy.n)
		field_required(e, FIELD_CHILD(spec, "reinvocationPolicy"), "");
	else
		field_one_of(e, FIELD_CHILD(spec, "reinvocationPolicy"), o->spec.reinvocation_policy, "IfNeeded,Never");
	composition_free(&vars);
}

/* ---- bindings ---- */

static void param_ref_rules(struct field_errors *e, const struct admissionregistration_v1_param_ref *r, const struct field_path *p)
{
	const char *m;

	if (!r)
		return;
	if (r->name.n) {
		m = validate_path_segment(e->arena, r->name);
		if (m)
			field_invalid(e, FIELD_CHILD(p, "name"), r->name, "%s", m);
		if (r->selector)
			field_forbidden(e, FIELD_CHILD(p, "name"), "name and selector are mutually exclusive");
	}
	if (r->selector) {
		validate_label_selector(e, r->selector, FIELD_CHILD(p, "selector"));
		if (r->name.n)
			field_forbidden(e, FIELD_CHILD(p, "selector"), "name and selector are mutually exclusive");
	}
	if (!r->name.n && !r->selector)
		field_required(e, p, "one of name or selector must be specified");
	if (!r->parameter_not_found_action || !r->parameter_not_found_action->n)
		field_required(e, FIELD_CHILD(p, "parameterNotFoundAction"), "");
	else
		field_one_of(e, FIELD_CHILD(p, "parameterNotFoundAction"), *r->parameter_not_found_action, "Deny,Allow");
}

static void binding_rules(struct field_errors *e, struct str policy, const struct admissionregistration_v1_param_ref *ref,
			  const struct admissionregistration_v1_match_resources *m)
{
	const struct field_path *spec = FIELD_ROOT("spec");
	const char *bad;

	if (!policy.n)
		field_required(e, FIELD_CHILD(spec, "policyName"), "");
	else if ((bad = validate_dns1123_subdomain(e->arena, policy)) != NULL)
		field_invalid(e, FIELD_CHILD(spec, "policyName"), policy, "%s", bad);
	param_ref_rules(e, ref, FIELD_CHILD(spec, "paramRef"));
	match_rules(e, m, FIELD_CHILD(spec, "matchResources"));
}

static void actions_rules(struct field_errors *e, const struct str *v, uint32_t n)
{
	const struct field_path *p = FIELD_CHILD(FIELD_ROOT("spec"), "validationActions");
	bool deny = false, warn = false;

	for (uint32_t i = 0; i < n; i++) {
		field_one_of(e, FIELD_INDEX(p, i), v[i], "Audit,Deny,Warn");
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(v[k], v[i])) {
				field_duplicate(e, FIELD_INDEX(p, i), v[i]);
				break;
			}
		deny |= str_eqz(v[i], "Deny");
		warn |= str_eqz(v[i], "Warn");
	}
	if (deny && warn)
		field_invalid_raw(e, p, list_text(e->arena, v, n),
				  "must not contain both Deny and Warn (repeating the same validation failure information in the API response and "
				  "headers serves no purpose)");
	if (!n)
		field_required(e, p, "at least one validation action is required");
}

/* ---- who may refer to parameters: those who can read them ---- */

static struct str user_text(struct arena *a, const struct user *u)
{
	struct buf groups buf_cleanup = {0};

	for (size_t i = 0; i < u->n_groups; i++)
		buf_printf(&groups, "%s%.*s", i ? " " : "", STR_ARG(u->groups[i]));
	return arena_printf(a, "&{%.*s %.*s [%.*s] map[]}", STR_ARG(u->name), STR_ARG(u->uid), STR_ARG(buf_view(&groups)));
}

static struct authz_attrs kind_attrs(struct request *rq, const struct admissionregistration_v1_param_kind *k, bool *resolved)
{
	struct authz_attrs at = {.user = rq->user, .resource_request = true, .group = STR("*"), .version = STR("*"), .resource = STR("*")};
	const struct resource *r;

	*resolved = false;
	if (!k)
		return at;
	api_version_split(k->api_version, &at.group, &at.version);
	r = policy_kind(rq->s, k->api_version, k->kind);
	if (r) {
		at.resource = r->api->plural;
		*resolved = true;
	}
	return at;
}

static void authorize_kind(struct request *rq, const struct admissionregistration_v1_param_kind *k,
			   const struct admissionregistration_v1_param_kind *old, struct field_errors *e)
{
	struct authz_attrs at;
	bool resolved;

	if (e->list.n || !k || rq->internal || user_in_group(rq->user, "system:masters") ||
	    (old && object_equal(&admissionregistration_v1_param_kind_type, k, old)))
		return;
	at = kind_attrs(rq, k, &resolved);
	at.verb = STR("get");
	at.name = at.ns = STR("*");
	if (authorize(rq->s, rq->a, &at, NULL) != AUTHZ_ALLOW)
		field_forbidden(e, FIELD_CHILD(FIELD_ROOT("spec"), "paramKind"),
				"user %.*s must have \"get\" permission on all objects of the referenced paramKind (kind=%.*s, apiVersion=%.*s)",
				STR_ARG(user_text(rq->a, rq->user)), STR_ARG(k->kind), STR_ARG(k->api_version));
}

static void authorize_ref(struct request *rq, const struct admissionregistration_v1_param_ref *ref, struct str policy,
			  const struct admissionregistration_v1_param_ref *old, struct str old_policy, bool mutating, struct field_errors *e)
{
	const struct field_path *p = FIELD_CHILD(FIELD_ROOT("spec"), "paramRef");
	struct str plural = mutating ? STR("mutatingadmissionpolicies") : STR("validatingadmissionpolicies");
	const struct admissionregistration_v1_param_kind *k = NULL;
	struct authz_attrs at;
	void *o;
	bool resolved;

	if (e->list.n || !ref || rq->internal || user_in_group(rq->user, "system:masters") ||
	    (old && str_eq(policy, old_policy) && object_equal(&admissionregistration_v1_param_ref_type, ref, old)))
		return;
	o = registry_peek(rq->s, rq->a, storage_find(rq->s, STR("admissionregistration.k8s.io"), plural), STR_NULL, policy);
	if (o)
		k = mutating ? ((map_ *)o)->spec.param_kind : ((vap *)o)->spec.param_kind;
	at = kind_attrs(rq, k, &resolved);
	at.verb = ref->name.n ? STR("get") : STR("list");
	at.name = ref->name;
	at.ns = ref->namespace;
	if (authorize(rq->s, rq->a, &at, NULL) == AUTHZ_ALLOW)
		return;
	if (!o)
		field_forbidden(e, p, "unable to get policy %.*s to determine minimum required permissions and user %.*s does not have \"%.*s\" "
				"permission for all groups, versions and resources", STR_ARG(policy), STR_ARG(user_text(rq->a, rq->user)),
				STR_ARG(at.verb));
	else if (k && !resolved)
		field_forbidden(e, p, "unable to resolve paramKind &ParamKind{APIVersion:%.*s,Kind:%.*s,} to determine minimum required permissions "
				"and user %.*s does not have \"%.*s\" permission for all groups, versions and resources",
				STR_ARG(k->api_version), STR_ARG(k->kind), STR_ARG(user_text(rq->a, rq->user)), STR_ARG(at.verb));
	else
		field_forbidden(e, p, "user %.*s does not have \"%.*s\" permission on the object referenced by paramRef",
				STR_ARG(user_text(rq->a, rq->user)), STR_ARG(at.verb));
}

/* ---- strategies ---- */

static void vap_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const vap *o = obj, *was = old;

	vap_rules(e, o, was);
	authorize_kind(rq, o->spec.param_kind, was ? was->spec.param_kind : NULL, e);
}

static void vap_create(struct request *rq, const void *obj, struct field_errors *e)
{
	vap_update(rq, obj, NULL, e);
}

static void vap_sub_update(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const vap *o = obj;
	const struct field_path *p = FIELD_CHILD(FIELD_CHILD(FIELD_ROOT("status"), "typeChecking"), "expressionWarnings");

	for (uint32_t i = 0; o->status.type_checking && i < o->status.type_checking->expression_warnings.n; i++) {
		const struct admissionregistration_v1_expression_warning *w = &o->status.type_checking->expression_warnings.v[i];

		if (!w->warning.n)
			field_required(e, FIELD_CHILD(FIELD_INDEX(p, i), "warning"), "");
		if (!str_trim(w->field_ref).n)
			field_required(e, FIELD_CHILD(FIELD_INDEX(p, i), "fieldRef"), "");
	}
	rule_conditions(e, FIELD_CHILD(FIELD_ROOT("status"), "conditions"), o->status.conditions.v, o->status.conditions.n);
}

static void vapb_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const vapb *o = obj, *was = old;

	binding_rules(e, o->spec.policy_name, o->spec.param_ref, o->spec.match_resources);
	actions_rules(e, o->spec.validation_actions.v, o->spec.validation_actions.n);
	authorize_ref(rq, o->spec.param_ref, o->spec.policy_name, was ? was->spec.param_ref : NULL, was ? was->spec.policy_name : STR_NULL, false, e);
}

static void vapb_create(struct request *rq, const void *obj, struct field_errors *e)
{
	vapb_update(rq, obj, NULL, e);
}

static void map_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const map_ *o = obj, *was = old;

	map_rules(e, o, was);
	authorize_kind(rq, o->spec.param_kind, was ? was->spec.param_kind : NULL, e);
}

static void map_create(struct request *rq, const void *obj, struct field_errors *e)
{
	map_update(rq, obj, NULL, e);
}

static void mapb_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const mapb *o = obj, *was = old;

	binding_rules(e, o->spec.policy_name, o->spec.param_ref, o->spec.match_resources);
	mutable_rules(e, o->spec.match_resources, FIELD_CHILD(FIELD_ROOT("spec"), "matchResources"));
	authorize_ref(rq, o->spec.param_ref, o->spec.policy_name, was ? was->spec.param_ref : NULL, was ? was->spec.policy_name : STR_NULL, true, e);
}

static void mapb_create(struct request *rq, const void *obj, struct field_errors *e)
{
	mapb_update(rq, obj, NULL, e);
}

#define POLICY(var, res, ...)                                                                                                         \
	const struct strategy var = {.group = STR_INIT("admissionregistration.k8s.io"), .plural = STR_INIT(res), .generation = true,   \
				     .no_unconditional_update = true, .checks_all = true, .meta_create = "m*", .meta_update = "m*", __VA_ARGS__}

POLICY(strategy_vap, "validatingadmissionpolicies", .status_resets_metadata = true, .meta_status = "*", .validate = vap_create, .validate_update = vap_update, .validate_sub_update = vap_sub_update);
POLICY(strategy_vapb, "validatingadmissionpolicybindings", .validate = vapb_create, .validate_update = vapb_update);
POLICY(strategy_map, "mutatingadmissionpolicies", .validate = map_create, .validate_update = map_update);
POLICY(strategy_mapb, "mutatingadmissionpolicybindings", .validate = mapb_create, .validate_update = mapb_update);
