/* Claims to users. */
#include <ctype.h>
#include "apiserver/authn_internal.h"
#include "apiserver/expressions.h"
#include "apiserver/oidc_rules.h"

struct rule { /* an expression; program NULL: there is none */
	struct str source, key, message;
	struct cel_program *program;
};
struct jwt_rules {
	const struct apiserverconfig_v1_jwt_authenticator *c;
	struct rule username, groups, uid;
	struct rule *extra, *claim_rules, *user_rules;
	uint32_t n_extra, n_claim_rules, n_user_rules;
};

const char *claim_kind(const struct jv *v)
{
	switch ((enum jv_kind)v->kind) {
	case JV_BOOL:
		return "bool";
	case JV_INT:
	case JV_DOUBLE:
		return "number";
	case JV_STRING:
		return "string";
	case JV_ARRAY:
		return "array";
	case JV_OBJECT:
		return "object";
	case JV_NULL:
		break;
	}
	return "null";
}

/* As Go decodes into a string: null leaves it empty. */
static struct error *claim_string(const struct jv *claims, struct str name, struct str *out)
{
	const struct jv *v = jv_get(claims, name);

	*out = STR_NULL;
	if (!v)
		return error_new("claim not present");
	if (v->kind != JV_STRING && v->kind != JV_NULL)
		return error_new("json: cannot unmarshal %s into Go value of type string", claim_kind(v));
	*out = jv_str(v);
	return NULL;
}

/* ---- claims to a user ---- */

static struct error *claimed_username(const struct jwt_rules *t, struct arena *a, const struct jv *claims, struct user *u)
{
	const struct apiserverconfig_v1_prefixed_claim_or_expression *m = &t->c->claim_mappings.username;
	const struct jv *verified;
	struct str name;

	TRY(error_wrap(claim_string(claims, m->claim, &name), "oidc: parse username claims \"%.*s\"", STR_ARG(m->claim)));
	verified = str_eqz(m->claim, "email") ? jv_get(claims, STR("email_verified")) : NULL;
	if (verified && verified->kind != JV_BOOL)
		return error_new("oidc: parse 'email_verified' claim: json: cannot unmarshal %s into Go value of type bool", claim_kind(verified));
	if (verified && !verified->b)
		return error_new("oidc: email not verified");
	u->name = arena_printf(a, "%.*s%.*s", STR_ARG(m->prefix ? *m->prefix : STR_NULL), STR_ARG(name));
	return NULL;
}

static struct error *claimed_groups(const struct jwt_rules *t, struct arena *a, const struct jv *claims, struct strings *out)
{
	const struct apiserverconfig_v1_prefixed_claim_or_expression *m = &t->c->claim_mappings.groups;
	const struct jv *v = m->claim.n ? jv_get(claims, m->claim) : NULL;
	struct str prefix = m->prefix ? *m->prefix : STR_NULL;

	if (!v || v->kind == JV_NULL)
		return NULL;
	if (v->kind == JV_STRING) {
		*arena_push(a, out) = arena_printf(a, "%.*s%.*s", STR_ARG(prefix), STR_ARG(jv_str(v)));
		return NULL;
	}
	for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++) {
		if (v->items[i].kind != JV_STRING && v->items[i].kind != JV_NULL)
			return error_new("oidc: parse groups claim \"%.*s\": json: cannot unmarshal %s into Go value of type string",
					 STR_ARG(m->claim), claim_kind(v));
		*arena_push(a, out) = arena_printf(a, "%.*s%.*s", STR_ARG(prefix), STR_ARG(jv_str(&v->items[i])));
	}
	if (v->kind != JV_ARRAY)
		return error_new("oidc: parse groups claim \"%.*s\": json: cannot unmarshal %s into Go value of type string", STR_ARG(m->claim),
				 claim_kind(v));
	return NULL;
}

static struct error *check_required(const struct jwt_rules *t, const struct jv *claims)
{
	for (uint32_t i = 0; i < t->c->claim_validation_rules.n; i++) {
		const struct apiserverconfig_v1_claim_validation_rule *r = &t->c->claim_validation_rules.v[i];
		struct str v;

		if (!r->claim.n)
			continue;
		if (!jv_get(claims, r->claim))
			return error_new("oidc: required claim %.*s not present in ID token", STR_ARG(r->claim));
		TRY(error_wrap(claim_string(claims, r->claim, &v), "oidc: parse claim %.*s", STR_ARG(r->claim)));
		if (!str_eq(v, r->required_value))
			return error_new("oidc: required claim %.*s value does not match. Got = %.*s, want = %.*s", STR_ARG(r->claim), STR_ARG(v),
					 STR_ARG(r->required_value));
	}
	return NULL;
}

/* ---- expressions ---- */

static const struct cel_type *const is_bool[] = {&cel_type_bool};

static bool compile(struct arena *a, struct str source, bool of_user, bool condition, struct field_errors *e, const struct field_path *p,
		    struct rule *out)
{
	const struct cel_var var = {of_user ? STR("user") : STR("claims"), of_user ? expression_user_info : &cel_type_map_string_dyn};
	const struct cel_env env = {.vars = &var, .n_vars = 1};
	struct str error;

	out->source = source;
	if (program_compile(a, &env, source, is_bool, condition ? 1 : 0, false, &out->program, &error))
		return true;
	if (e)
		field_invalid(e, p, source, "%.*s", STR_ARG(error));
	return false;
}

/* Names that are no identifiers can be read escaped, at every level: x.y as x__dot__y. Numbers are Go's, float64. */
static struct jv readable(struct arena *a, const struct jv *v, bool escaped)
{
	struct jv out = *v;

	if (v->kind == JV_INT)
		return jv_double((double)v->i);
	if (v->kind == JV_ARRAY) {
		out = jv_array();
		for (uint32_t i = 0; i < v->n; i++)
			jv_push(a, &out, readable(a, &v->items[i], escaped));
	} else if (v->kind == JV_OBJECT) {
		out = jv_object();
		for (uint32_t i = 0; i < v->n; i++)
			jv_set(a, &out, v->members[i].key, readable(a, &v->members[i].value, escaped));
		for (uint32_t i = 0; escaped && i < v->n; i++) {
			struct str name;

			if (cel_escape(a, v->members[i].key, &name) && !str_eq(name, v->members[i].key) && !jv_get(&out, name))
				jv_set(a, &out, name, readable(a, &v->members[i].value, escaped));
		}
	}
	return out;
}

static struct error *eval(struct arena *a, const struct rule *r, const struct jv *plain, struct cel_value *out)
{
	bool escaped = str_contains(r->source, STR("__"));
	struct jv *tree = arena_new(a, struct jv);
	struct cel_value v;

	*tree = readable(a, plain, escaped);
	v = cel_from_jv(a, tree, NULL);
	*out = cel_eval(r->program, &v, a, CEL_PER_CALL_LIMIT, NULL);
	if (out->kind == CEL_ERROR)
		return error_new("expression '%.*s' resulted in error: %.*s", STR_ARG(r->source), STR_ARG(cel_error_text(*out)));
	return NULL;
}

/* A string or a list of strings; what is empty is not there. */
static struct error *strings_of(struct arena *tmp, struct arena *a, struct cel_value v, struct strings *out)
{
	if (v.kind == CEL_NULL)
		return NULL;
	if (v.kind == CEL_STRING) {
		if (cel_str(v).n)
			*arena_push(a, out) = arena_str(a, cel_str(v));
		return NULL;
	}
	for (uint32_t i = 0; v.kind == CEL_LIST && i < cel_size(v); i++) {
		struct cel_value x = cel_at(tmp, v, i);

		if (x.kind != CEL_STRING)
			return error_new("expression must return a string or a list of strings");
		if (cel_str(x).n)
			*arena_push(a, out) = arena_str(a, cel_str(x));
	}
	return v.kind == CEL_LIST ? NULL : error_new("expression must return a string or a list of strings");
}

static struct error *map_username(const struct jwt_rules *t, struct arena *tmp, struct arena *a, const struct jv *claims, struct user *u)
{
	struct cel_value v;

	if (!t->username.program)
		return claimed_username(t, a, claims, u);
	TRY(error_wrap(eval(tmp, &t->username, claims, &v), "oidc: error evaluating username claim expression"));
	if (v.kind != CEL_STRING)
		return error_new("oidc: error evaluating username claim expression: username claim expression must return a string");
	u->name = arena_str(a, cel_str(v));
	return u->name.n ? NULL : error_new("oidc: empty username via CEL expression is not allowed");
}

static struct error *map_groups(const struct jwt_rules *t, struct arena *tmp, struct arena *a, const struct jv *claims, struct strings *out)
{
	struct cel_value v;

	if (!t->groups.program)
		return claimed_groups(t, a, claims, out);
	TRY(error_wrap(eval(tmp, &t->groups, claims, &v), "oidc: error evaluating group claim expression"));
	return error_wrap(strings_of(tmp, a, v, out), "oidc: error evaluating group claim expression");
}

static struct error *map_uid(const struct jwt_rules *t, struct arena *tmp, struct arena *a, const struct jv *claims, struct user *u)
{
	struct str claim = t->c->claim_mappings.uid.claim;
	struct cel_value v;

	if (claim.n) {
		TRY(error_wrap(claim_string(claims, claim, &u->uid), "oidc: parse uid claim \"%.*s\"", STR_ARG(claim)));
	} else if (t->uid.program) {
		TRY(error_wrap(eval(tmp, &t->uid, claims, &v), "oidc: error evaluating uid claim expression"));
		if (v.kind != CEL_STRING)
			return error_new("oidc: error evaluating uid claim expression: uid claim expression must return a string");
		u->uid = cel_str(v);
	}
	u->uid = arena_str(a, u->uid);
	return NULL;
}

static struct error *map_extra(const struct jwt_rules *t, struct arena *tmp, struct arena *a, const struct jv *claims, struct user *u)
{
	struct strings_pair *extra = arena_array(a, struct strings_pair, t->n_extra + 1u);
	struct str jti = jv_str(jv_get(claims, STR("jti")));
	uint32_t n = 0;

	if (jti.n) {
		extra[n].key = STR("authentication.kubernetes.io/credential-id");
		*arena_push(a, &extra[n].value) = arena_printf(a, "JTI=%.*s", STR_ARG(jti));
		n++;
	}
	for (uint32_t i = 0; i < t->n_extra; i++) {
		struct cel_value v;

		TRY(eval(tmp, &t->extra[i], claims, &v));
		memset(&extra[n], 0, sizeof extra[n]);
		TRY(error_wrap(strings_of(tmp, a, v, &extra[n].value), "oidc: error evaluating extra claim expression: %.*s",
			       STR_ARG(t->extra[i].source)));
		if (!extra[n].value.n)
			continue;
		extra[n++].key = arena_str(a, t->extra[i].key);
	}
	u->extra = extra;
	u->n_extra = n;
	return NULL;
}

static struct error *check_rules(const struct rule *v, uint32_t n, struct arena *tmp, const struct jv *tree, const char *what)
{
	for (uint32_t i = 0; i < n; i++) {
		struct cel_value r;

		TRY(error_wrap(eval(tmp, &v[i], tree, &r), "oidc: error evaluating %s", what));
		if (r.kind != CEL_BOOL)
			return error_new("oidc: error evaluating %s: validation expression must return a boolean", what);
		if (!r.b)
			return error_new("oidc: error evaluating %s: validation expression '%.*s' failed: %.*s", what, STR_ARG(v[i].source),
					 STR_ARG(v[i].message));
	}
	return NULL;
}

static struct jv user_tree(struct arena *a, const struct user *u, const struct strings *groups)
{
	struct jv out = jv_object(), list = jv_array(), extra = jv_object();

	for (uint32_t i = 0; i < groups->n; i++)
		jv_push(a, &list, jv_string(groups->v[i]));
	for (size_t i = 0; i < u->n_extra; i++) {
		struct jv values = jv_array();

		for (uint32_t k = 0; k < u->extra[i].value.n; k++)
			jv_push(a, &values, jv_string(u->extra[i].value.v[k]));
		jv_set(a, &extra, u->extra[i].key, values);
	}
	jv_set(a, &out, STR("username"), jv_string(u->name));
	jv_set(a, &out, STR("uid"), jv_string(u->uid));
	jv_set(a, &out, STR("groups"), list);
	jv_set(a, &out, STR("extra"), extra);
	return out;
}

struct error *jwt_rules_user(const struct jwt_rules *t, struct arena *tmp, struct arena *a, const struct jv *claims, struct user *u)
{
	struct strings groups = {0};

	memset(u, 0, sizeof *u);
	TRY(map_username(t, tmp, a, claims, u));
	TRY(map_groups(t, tmp, a, claims, &groups));
	TRY(map_uid(t, tmp, a, claims, u));
	TRY(map_extra(t, tmp, a, claims, u));
	TRY(check_required(t, claims));
	TRY(check_rules(t->claim_rules, t->n_claim_rules, tmp, claims, "claim validation expression"));
	if (t->n_user_rules) {
		struct jv tree = user_tree(tmp, u, &groups);

		TRY(check_rules(t->user_rules, t->n_user_rules, tmp, &tree, "user info validation rule"));
	}
	user_set_authenticated(a, u, groups.v, groups.n);
	return NULL;
}

/* ---- what they may be ---- */

static void rules_compile(struct arena *a, struct jwt_rules *t, struct field_errors *e, const struct field_path *p)
{
	const struct field_path *root = FIELD_CHILD(p, "claimValidationRules");

	t->claim_rules = arena_array(a, struct rule, t->c->claim_validation_rules.n);
	for (uint32_t i = 0; i < t->c->claim_validation_rules.n; i++) {
		const struct apiserverconfig_v1_claim_validation_rule *r = &t->c->claim_validation_rules.v[i];
		const struct field_path *q = FIELD_INDEX(root, i);
		bool again = false;

		for (uint32_t k = 0; k < i; k++)
			again |= r->claim.n ? str_eq(t->c->claim_validation_rules.v[k].claim, r->claim) :
					      r->expression.n && str_eq(t->c->claim_validation_rules.v[k].expression, r->expression);
		if (r->claim.n && r->expression.n) {
			if (e)
				field_invalid(e, q, r->claim, "claim and expression can't both be set");
		} else if (!r->claim.n && !r->expression.n) {
			if (e)
				field_required(e, q, "claim or expression is required");
		} else if (r->claim.n) {
			if (e && r->message.n)
				field_invalid(e, FIELD_CHILD(q, "message"), r->message, "may not be specified when claim is set");
			if (e && again)
				field_duplicate(e, FIELD_CHILD(q, "claim"), r->claim);
		} else {
			struct rule *x = &t->claim_rules[t->n_claim_rules];

			if (e && r->required_value.n)
				field_invalid(e, FIELD_CHILD(q, "requiredValue"), r->required_value, "may not be specified when expression is set");
			if (again) {
				if (e)
					field_duplicate(e, FIELD_CHILD(q, "expression"), r->expression);
				continue;
			}
			x->message = r->message;
			if (compile(a, r->expression, false, true, e, FIELD_CHILD(q, "expression"), x))
				t->n_claim_rules++;
		}
	}
}

static void mapping_compile(struct arena *a, const struct apiserverconfig_v1_prefixed_claim_or_expression *m, bool required, struct field_errors *e,
			    const struct field_path *p, struct rule *out)
{
	if (m->claim.n && m->expression.n) {
		if (e)
			field_invalid(e, p, STR(""), "claim and expression can't both be set");
	} else if (!m->claim.n && !m->expression.n) {
		if (e && required)
			field_required(e, p, "claim or expression is required");
	} else if (m->expression.n) {
		if (e && m->prefix)
			field_invalid(e, FIELD_CHILD(p, "prefix"), *m->prefix, "may not be specified when expression is set");
		compile(a, m->expression, false, false, e, FIELD_CHILD(p, "expression"), out);
	} else if (e && !m->prefix) {
		field_required(e, FIELD_CHILD(p, "prefix"), "prefix is required when claim is set. It can be set to an empty string to disable prefixing");
	}
}

/* A domain, a slash and a path; not one of Kubernetes' own. */
static void extra_key_validate(struct field_errors *e, struct str key, const struct field_path *p)
{
	struct str path = key, domain = str_cut(&path, '/');
	const char *m;

	if (!key.n) {
		field_required(e, p, "");
		return;
	}
	if (!path.p || !domain.n || !path.n)
		field_invalid(e, p, key, "must be a domain-prefixed path (such as \"acme.io/foo\")");
	else if ((m = validate_dns1123_subdomain(e->arena, domain)) != NULL)
		field_invalid(e, p, domain, "%s", m);
	else
		for (size_t i = 0; i < path.n; i++)
			if (!isalnum((unsigned char)path.p[i]) && !strchr("/-._~%!$&'()*+,;=:", path.p[i])) {
				field_invalid(e, p, path, "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%%!$&'()*+,;=:]+')");
				break;
			}
	for (size_t i = 0; i < key.n; i++)
		if (key.p[i] >= 'A' && key.p[i] <= 'Z') {
			field_invalid(e, p, key, "must be lowercase");
			break;
		}
	if (path.p && (str_eqz(domain, "k8s.io") || str_eqz(domain, "kubernetes.io") || str_has_suffix(domain, STR(".k8s.io")) ||
		       str_has_suffix(domain, STR(".kubernetes.io"))))
		field_invalid(e, p, key, "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
}

static void extra_compile(struct arena *a, struct jwt_rules *t, struct field_errors *e, const struct field_path *map)
{
	t->extra = arena_array(a, struct rule, t->c->claim_mappings.extra.n);
	for (uint32_t i = 0; i < t->c->claim_mappings.extra.n; i++) {
		const struct apiserverconfig_v1_extra_mapping *x = &t->c->claim_mappings.extra.v[i];
		const struct field_path *q = FIELD_INDEX(FIELD_CHILD(map, "extra"), i);
		bool again = false;

		if (e)
			extra_key_validate(e, x->key, FIELD_CHILD(q, "key"));
		for (uint32_t k = 0; k < i; k++)
			again |= str_eq(t->c->claim_mappings.extra.v[k].key, x->key);
		if (again) {
			if (e)
				field_duplicate(e, FIELD_CHILD(q, "key"), x->key);
			continue;
		}
		if (!x->value_expression.n) {
			if (e)
				field_required(e, FIELD_CHILD(q, "valueExpression"), "");
			continue;
		}
		t->extra[t->n_extra].key = x->key;
		if (compile(a, x->value_expression, false, false, e, FIELD_CHILD(q, "valueExpression"), &t->extra[t->n_extra]))
			t->n_extra++;
	}
}

static void user_rules_compile(struct arena *a, struct jwt_rules *t, struct field_errors *e, const struct field_path *p)
{
	t->user_rules = arena_array(a, struct rule, t->c->user_validation_rules.n);
	for (uint32_t i = 0; i < t->c->user_validation_rules.n; i++) {
		const struct apiserverconfig_v1_user_validation_rule *r = &t->c->user_validation_rules.v[i];
		const struct field_path *q = FIELD_CHILD(FIELD_INDEX(FIELD_CHILD(p, "userValidationRules"), i), "expression");
		bool again = false;

		for (uint32_t k = 0; k < i; k++)
			again |= str_eq(t->c->user_validation_rules.v[k].expression, r->expression);
		if (!r->expression.n || again) {
			if (e && !r->expression.n)
				field_required(e, q, "");
			else if (e)
				field_duplicate(e, q, r->expression);
			continue;
		}
		t->user_rules[t->n_user_rules].message = r->message;
		if (compile(a, r->expression, true, true, e, q, &t->user_rules[t->n_user_rules]))
			t->n_user_rules++;
	}
}

static bool selects(const struct rule *v, uint32_t n, const char *claim)
{
	bool yes = false;

	for (uint32_t i = 0; i < n; i++)
		yes |= v[i].program && cel_program_selects(v[i].program, STR("claims"), str_from(claim));
	return yes;
}

void jwt_rules_compile(struct arena *a, const struct apiserverconfig_v1_jwt_authenticator *c, struct field_errors *e, const struct field_path *p,
		       struct jwt_rules **out)
{
	const struct field_path *map = FIELD_CHILD(p, "claimMappings"), *uid = FIELD_CHILD(map, "uid");
	struct jwt_rules *t = *out = arena_new(a, struct jwt_rules);

	t->c = c;
	rules_compile(a, t, e, p);
	mapping_compile(a, &c->claim_mappings.username, true, e, FIELD_CHILD(map, "username"), &t->username);
	mapping_compile(a, &c->claim_mappings.groups, false, e, FIELD_CHILD(map, "groups"), &t->groups);
	if (c->claim_mappings.uid.claim.n && c->claim_mappings.uid.expression.n) {
		if (e)
			field_invalid(e, uid, STR(""), "claim and expression can't both be set");
	} else if (c->claim_mappings.uid.expression.n) {
		compile(a, c->claim_mappings.uid.expression, false, false, e, FIELD_CHILD(uid, "expression"), &t->uid);
	}
	extra_compile(a, t, e, map);
	/* who goes by an address must look whether it has been verified */
	if (e && selects(&t->username, 1, "email") && !selects(&t->username, 1, "email_verified") && !selects(t->extra, t->n_extra, "email_verified") &&
	    !selects(t->claim_rules, t->n_claim_rules, "email_verified"))
		field_invalid(e, FIELD_CHILD(FIELD_CHILD(map, "username"), "expression"), c->claim_mappings.username.expression,
			      "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or "
			      "claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression");
	user_rules_compile(a, t, e, p);
}

void jwt_rules_free(struct jwt_rules *t)
{
	if (!t)
		return;
	cel_program_free(t->username.program);
	cel_program_free(t->groups.program);
	cel_program_free(t->uid.program);
	for (uint32_t i = 0; i < t->n_extra; i++)
		cel_program_free(t->extra[i].program);
	for (uint32_t i = 0; i < t->n_claim_rules; i++)
		cel_program_free(t->claim_rules[i].program);
	for (uint32_t i = 0; i < t->n_user_rules; i++)
		cel_program_free(t->user_rules[i].program);
}
