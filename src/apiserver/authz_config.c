/* AuthorizationConfiguration (KEP-3221): from --authorization-config, or made of the older flags; reload. */
#include <stdlib.h>
#include <sys/stat.h>
#include "apiserver/authz_internal.h"
#include "apiserver/config_file.h"
#include "apiserver/metrics.h"
#include "cel/cel.h"

#define MATCH_CONDITIONS_MAX 64
#define TIMEOUT_MAX_NS (30ll * 1000000000)

const char *const authorizer_names[N_AUTHORIZER_TYPES] = {
	[AUTHORIZER_NODE] = "Node", [AUTHORIZER_RBAC] = "RBAC", [AUTHORIZER_WEBHOOK] = "Webhook", [AUTHORIZER_ALWAYS_ALLOW] = "AlwaysAllow",
	[AUTHORIZER_ALWAYS_DENY] = "AlwaysDeny", [AUTHORIZER_ABAC] = "ABAC",
};

static int type_of(struct str name)
{
	for (int i = 0; i < N_AUTHORIZER_TYPES; i++)
		if (str_eqz(name, authorizer_names[i]))
			return i;
	return -1;
}

void authz_chain_unref(struct authz_chain *c)
{
	if (!c || --c->refs)
		return;
	for (uint32_t i = 0; i < c->n; i++)
		authz_webhook_free(c->v[i].webhook);
	arena_free(&c->arena);
	free(c);
}

/* ---- rules ---- */

static void connection_validate(struct field_errors *e, const struct apiserverconfig_v1_webhook_connection_info *c, const struct field_path *p)
{
	static const struct str types[] = {STR_INIT("InClusterConfig"), STR_INIT("KubeConfigFile")};
	const struct field_path *q = FIELD_CHILD(p, "connectionInfo"), *file = FIELD_CHILD(q, "kubeConfigFile");
	struct stat st;

	if (!c->type.n) {
		field_required(e, FIELD_CHILD(q, "type"), "");
	} else if (str_eq(c->type, types[0])) {
		field_invalid(e, FIELD_CHILD(q, "type"), c->type, "an API server outside the cluster has no in-cluster configuration; use KubeConfigFile");
	} else if (!str_eq(c->type, types[1])) {
		field_not_supported(e, FIELD_CHILD(q, "type"), c->type, types, 2);
	} else if (!c->kube_config_file || !c->kube_config_file->n) {
		field_required(e, file, "");
	} else if (c->kube_config_file->p[0] != '/') {
		field_invalid(e, file, *c->kube_config_file, "must be an absolute path");
	} else if (stat(arena_strz(e->arena, *c->kube_config_file), &st)) {
		field_invalid(e, file, *c->kube_config_file, "error loading file: %s", strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		field_invalid(e, file, *c->kube_config_file, "must be a regular file");
	}
}

static void ttl_validate(struct field_errors *e, int64_t ns, const struct field_path *p)
{
	if (ns < 0)
		field_invalid(e, p, duration_format(e->arena, ns), "must be > 0s");
}

static void webhook_validate(struct field_errors *e, const struct apiserverconfig_v1_webhook_configuration *w, const struct field_path *p)
{
	static const struct str versions[] = {STR_INIT("v1"), STR_INIT("v1beta1")}, policies[] = {STR_INIT("Deny"), STR_INIT("NoOpinion")};
	const struct field_path *mc = FIELD_CHILD(p, "matchConditions");

	if (!w->timeout)
		field_required(e, FIELD_CHILD(p, "timeout"), "");
	else if (w->timeout < 0 || w->timeout > TIMEOUT_MAX_NS)
		field_invalid(e, FIELD_CHILD(p, "timeout"), duration_format(e->arena, w->timeout), "must be > 0s and <= 30s");
	ttl_validate(e, w->authorized_ttl, FIELD_CHILD(p, "authorizedTTL"));
	ttl_validate(e, w->unauthorized_ttl, FIELD_CHILD(p, "unauthorizedTTL"));
	if (!w->subject_access_review_version.n)
		field_required(e, FIELD_CHILD(p, "subjectAccessReviewVersion"), "");
	else if (!str_eq(w->subject_access_review_version, versions[0]) && !str_eq(w->subject_access_review_version, versions[1]))
		field_not_supported(e, FIELD_CHILD(p, "subjectAccessReviewVersion"), w->subject_access_review_version, versions, 2);
	if (!w->match_condition_subject_access_review_version.n) {
		if (w->match_conditions.n)
			field_required(e, FIELD_CHILD(p, "matchConditionSubjectAccessReviewVersion"), "required if match conditions are specified");
	} else if (!str_eq(w->match_condition_subject_access_review_version, versions[0])) {
		field_not_supported(e, FIELD_CHILD(p, "matchConditionSubjectAccessReviewVersion"), w->match_condition_subject_access_review_version,
				    versions, 1);
	}
	if (!w->failure_policy.n)
		field_required(e, FIELD_CHILD(p, "failurePolicy"), "");
	else if (!str_eq(w->failure_policy, policies[0]) && !str_eq(w->failure_policy, policies[1]))
		field_not_supported(e, FIELD_CHILD(p, "failurePolicy"), w->failure_policy, policies, 2);
	connection_validate(e, &w->connection_info, p);
	if (w->match_conditions.n > MATCH_CONDITIONS_MAX)
		field_too_many(e, mc, w->match_conditions.n, MATCH_CONDITIONS_MAX);
	for (uint32_t i = 0; w->match_conditions.n <= MATCH_CONDITIONS_MAX && i < w->match_conditions.n; i++) {
		const struct field_path *q = FIELD_CHILD(FIELD_INDEX(mc, i), "expression");
		struct str x = w->match_conditions.v[i].expression, error;
		struct cel_program *program;
		bool again = false;

		for (uint32_t k = 0; k < i; k++)
			again |= str_eq(w->match_conditions.v[k].expression, x);
		if (!str_trim(x).n) {
			field_required(e, q, "");
		} else if (again) {
			field_duplicate(e, q, x);
		} else if (!authz_condition_compile(e->arena, x, &program, &error)) {
			field_invalid(e, q, x, "%.*s", STR_ARG(error));
		} else {
			cel_program_free(program);
		}
	}
}

static void validate(struct field_errors *e, const authz_configuration *c)
{
	const struct field_path *root = FIELD_ROOT("authorizers");
	struct str known[N_AUTHORIZER_TYPES];
	unsigned seen = 0;

	for (int i = 0; i < N_AUTHORIZER_TYPES; i++)
		known[i] = str_from(authorizer_names[i]);
	if (!c->authorizers.n)
		field_required(e, root, "at least one authorization mode must be defined");
	for (uint32_t i = 0; i < c->authorizers.n; i++) {
		const struct apiserverconfig_v1_authorizer_configuration *z = &c->authorizers.v[i];
		const struct field_path *p = FIELD_INDEX(root, i);
		int type = type_of(z->type);
		bool named = false;

		if (!z->type.n) {
			field_required(e, FIELD_CHILD(p, "type"), "");
			continue;
		}
		if (str_eqz(z->type, "ABAC")) {
			field_invalid(e, FIELD_CHILD(p, "type"), z->type, "only --authorization-mode has this authorizer");
			continue;
		}
		if (type < 0) {
			field_not_supported(e, FIELD_CHILD(p, "type"), z->type, known, N_AUTHORIZER_TYPES);
			continue;
		}
		if (type != AUTHORIZER_WEBHOOK && (seen >> type & 1)) {
			field_duplicate(e, FIELD_CHILD(p, "type"), z->type);
			continue;
		}
		seen |= 1u << type;
		for (uint32_t k = 0; k < i; k++)
			named |= str_eq(c->authorizers.v[k].name, z->name);
		if (!z->name.n) {
			field_required(e, FIELD_CHILD(p, "name"), "");
		} else if (named) {
			field_duplicate(e, FIELD_CHILD(p, "name"), z->name);
		} else {
			const char *m = validate_dns1123_subdomain(e->arena, z->name);

			if (m)
				field_invalid(e, FIELD_CHILD(p, "name"), z->name, "authorizer name is invalid: %s", m);
			else if (type != AUTHORIZER_WEBHOOK && !str_eq_nocase(z->name, z->type))
				field_invalid(e, FIELD_CHILD(p, "name"), z->name, "expected name of an authorizer of type %.*s: its type in lower case",
					      STR_ARG(z->type));
		}
		if (type == AUTHORIZER_WEBHOOK) {
			if (z->webhook)
				webhook_validate(e, z->webhook, p);
			else
				field_required(e, FIELD_CHILD(p, "webhook"), "required when type=Webhook");
		} else if (z->webhook) {
			field_invalid(e, FIELD_CHILD(p, "webhook"), STR("non-null"), "may only be specified when type=Webhook");
		}
	}
}

/* ---- from a configuration to a chain ---- */

static void set_defaults(authz_configuration *c)
{
	for (uint32_t i = 0; i < c->authorizers.n; i++) {
		struct apiserverconfig_v1_webhook_configuration *w = c->authorizers.v[i].webhook;

		if (!w)
			continue;
		if (!w->authorized_ttl)
			w->authorized_ttl = 300ll * 1000000000;
		if (!w->unauthorized_ttl)
			w->unauthorized_ttl = 30ll * 1000000000;
	}
}

static struct error *chain_of(const authz_configuration *c, struct authz_chain **out)
{
	struct authz_chain *z = xcalloc(1, sizeof *z);

	z->refs = 1;
	z->v = arena_array(&z->arena, struct authorizer, c->authorizers.n);
	for (uint32_t i = 0; i < c->authorizers.n; i++) {
		const struct apiserverconfig_v1_authorizer_configuration *a = &c->authorizers.v[i];
		struct authorizer *t = &z->v[z->n++];
		struct error *e = NULL;

		t->type = (enum authorizer_type)type_of(a->type);
		t->allowed = arena_printf(&z->arena, "decision=\"allowed\",name=\"%.*s\",type=\"%.*s\"", STR_ARG(a->name), STR_ARG(a->type)).p;
		t->denied = arena_printf(&z->arena, "decision=\"denied\",name=\"%.*s\",type=\"%.*s\"", STR_ARG(a->name), STR_ARG(a->type)).p;
		if (t->type == AUTHORIZER_WEBHOOK)
			e = authz_webhook_new(a->name, a->webhook, arena_strz(&z->arena, *a->webhook->connection_info.kube_config_file), &t->webhook);
		if (e) {
			authz_chain_unref(z);
			return error_wrap(e, "authorizer %.*s", STR_ARG(a->name));
		}
	}
	*out = z;
	return NULL;
}

static unsigned types_of(const struct authz_chain *z)
{
	unsigned bits = 0;

	for (uint32_t i = 0; i < z->n; i++)
		bits |= 1u << z->v[i].type;
	return bits;
}

static struct error *from_text(struct arena *a, struct str text, struct authz_chain **out)
{
	authz_configuration *c = arena_new(a, authz_configuration);
	struct field_errors fe = {.arena = a};

	TRY(error_wrap(config_decode(a, &apiserverconfig_v1_authorization_configuration_type, CONFIG_V1_AND_BETA("AuthorizationConfiguration"), text, c),
		       "failed to load AuthorizationConfiguration from file"));
	validate(&fe, c);
	TRY(config_errors(&fe));
	set_defaults(c);
	return chain_of(c, out);
}

static struct error *check_types(unsigned required, unsigned have)
{
	const unsigned persistent = 1u << AUTHORIZER_NODE | 1u << AUTHORIZER_RBAC;

	for (int i = 0; i < N_AUTHORIZER_TYPES; i++) {
		if (i != AUTHORIZER_WEBHOOK && (required & ~have) >> i & 1)
			return error_new("missing required types: [%s]", authorizer_names[i]);
		if ((have & ~required & persistent) >> i & 1)
			return error_new("authorizer type %s is not allowed if it was not enabled at initial server startup", authorizer_names[i]);
	}
	return NULL;
}

static bool reload(void *ctx, struct str text)
{
	char hash[METRICS_HASH];
	struct apiserver *s = ctx;
	arena_cleanup struct arena a = {0};
	struct authz_chain *fresh = NULL, *old = s->authz->chain;
	struct error *e = from_text(&a, text, &fresh);

	if (!e)
		e = check_types(s->authz->required, types_of(fresh));
	if (e) {
		metrics_reloaded(METRIC_AUTHZ_RELOADS, METRIC_AUTHZ_RELOAD_TIME, false);
		log_and_free(e, "reloading authorization config %s; the one before stays", s->o.authorization_config);
		authz_chain_unref(fresh);
		return true;
	}
	s->authz->chain = fresh;
	authz_chain_unref(old);
	metrics_reloaded(METRIC_AUTHZ_RELOADS, METRIC_AUTHZ_RELOAD_TIME, true);
	metrics_hash(text, hash);
	metrics_in_use(METRIC_AUTHZ_CONFIG, hash);
	log_info("reloaded authorization config %s", s->o.authorization_config);
	return true;
}

/* ---- the older flags ---- */

static struct error *from_flags(struct apiserver *s, struct authz_chain **out)
{
	struct arena *a = &s->arena;
	authz_configuration *c = arena_new(a, authz_configuration);
	struct str rest = str_from(s->o.authorization_mode ? s->o.authorization_mode : "Node,RBAC");
	struct abac_policies *abac = NULL;
	bool webhook = false;

	while (rest.p && rest.n) {
		struct str m = str_cut(&rest, ',');
		struct apiserverconfig_v1_authorizer_configuration *z;

		if (type_of(m) < 0)
			return error_new("authorization-mode \"%.*s\" is not a valid mode", STR_ARG(m));
		for (uint32_t i = 0; i < c->authorizers.n; i++)
			if (str_eq(c->authorizers.v[i].type, m))
				return error_new("authorization-mode \"%.*s\" has mode specified more than once", STR_ARG(m));
		z = arena_push(a, &c->authorizers);
		z->type = z->name = m;
		if (type_of(m) == AUTHORIZER_ABAC) {
			if (!s->o.authorization_policy_file)
				return error_new("authorization-mode ABAC's authorization policy file not passed");
			abac = arena_new(a, struct abac_policies);
			TRY(abac_read(a, s->o.authorization_policy_file, abac));
		}
		if (type_of(m) == AUTHORIZER_WEBHOOK) {
			struct apiserverconfig_v1_webhook_configuration *w = z->webhook = arena_new(a, struct apiserverconfig_v1_webhook_configuration);
			struct str v = s->o.authorization_webhook_version ? str_from(s->o.authorization_webhook_version) : STR("v1beta1");

			webhook = true;
			if (!s->o.authorization_webhook_config)
				return error_new("authorization-mode Webhook's authorization config file not passed");
			if (!str_eqz(v, "v1") && !str_eqz(v, "v1beta1"))
				return error_new("unsupported webhook authorizer version \"%.*s\", supported versions are \"v1\", \"v1beta1\"",
						 STR_ARG(v));
			z->name = STR("default");
			w->subject_access_review_version = v;
			w->timeout = TIMEOUT_MAX_NS;
			w->failure_policy = STR("NoOpinion");
			w->authorized_ttl = s->o.authorization_webhook_authorized_ms * 1000000;
			w->unauthorized_ttl = s->o.authorization_webhook_unauthorized_ms * 1000000;
			w->connection_info.kube_config_file = arena_new(a, struct str);
			*w->connection_info.kube_config_file = str_from(s->o.authorization_webhook_config);
		}
	}
	if (!c->authorizers.n)
		return error_new("at least one authorization-mode must be passed");
	if (s->o.authorization_webhook_config && !webhook)
		return error_new("cannot specify --authorization-webhook-config-file without mode Webhook");
	if (s->o.authorization_policy_file && !abac)
		return error_new("cannot specify --authorization-policy-file without mode ABAC");
	TRY(chain_of(c, out));
	for (uint32_t i = 0; i < (*out)->n; i++)
		(*out)->v[i].abac = abac;
	return NULL;
}

struct error *authz_config_init(struct apiserver *s)
{
	char hash[METRICS_HASH];
	struct str text;

	if (!s->o.authorization_config) {
		TRY(from_flags(s, &s->authz->chain));
	} else {
		if (s->o.authorization_set)
			return error_new("--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are "
					 "defined");
		TRY(error_wrap(config_file_read(&s->arena, s->o.authorization_config, &text), "authorization config"));
		TRY(error_wrap(from_text(&s->arena, text, &s->authz->chain), "authorization config %s", s->o.authorization_config));
		metrics_hash(text, hash);
		metrics_in_use(METRIC_AUTHZ_CONFIG, hash);
		config_file_follow(s->o.authorization_config, text, reload, s);
	}
	s->authz->required = types_of(s->authz->chain);
	return NULL;
}
