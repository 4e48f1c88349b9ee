/*
 * apiserver/policy.h: admission policies of the API (KEP-3488, KEP-3962):
 * Validating- and MutatingAdmissionPolicy with their bindings, compiled when they
 * are first needed and evaluated on each write. policy.c selects policies,
 * bindings and parameters, as upstream's admission/plugin/policy/generic;
 * policy_validate.c judges; policy_mutate.c changes; policy_rules.c says what
 * these objects may be. Their type checking (status.typeChecking) is the controller manager's.
 */
#ifndef SKIFF_APISERVER_POLICY_H
#define SKIFF_APISERVER_POLICY_H

#include "apiserver/expressions.h"

struct policy { /* compiled; counted: a request may be waiting in it when it is replaced */
	unsigned refs;
	struct arena arena;
	struct str name;
	bool fail;                    /* failurePolicy */
	const struct admissionregistration_v1_param_kind *param_kind; /* NULL: none */
	const struct admissionregistration_v1_match_resources *match;
	struct composition variables;
	struct match_conditions conditions;
	/* validating */
	const struct admissionregistration_v1_validating_admission_policy *validating;
	struct expression *validations, *messages, *annotations; /* a message without source: none */
	/* mutating */
	const struct admissionregistration_v1_mutating_admission_policy *mutating;
	struct expression *mutations;
};
struct policy_binding {
	unsigned refs;
	struct arena arena;
	struct str name, policy;
	const struct admissionregistration_v1_param_ref *param_ref; /* NULL: none */
	const struct admissionregistration_v1_match_resources *match; /* NULL: what the policy matches */
	struct str *actions;          /* validating */
	uint32_t n_actions;
};
struct policy_hook {
	struct policy *policy;
	struct policy_binding **bindings; /* by name */
	uint32_t n;
};
struct policy_hooks { /* policies that have bindings, by name */
	unsigned refs;
	struct policy_hook *v;
	uint32_t n;
};

struct error *policies_init(struct apiserver *s);
/* What the admission configuration says for one of the two plugins; the text may be empty. */
struct error *policies_configure(struct apiserver *s, struct str text, const char *kinds);
/* The newest; the caller gives it back. */
struct policy_hooks *policy_hooks_get(struct apiserver *s, bool mutating);
void policy_hooks_put(struct policy_hooks *h);
/* The request is one that policies never see: reviews, policies and their bindings. */
bool policy_exempt(const struct admission *a);
/*
 * Parameters for a binding: trees of JSON in the request's arena; one NULL where there is none to give. Errors are configuration
 * errors, as sentences.
 */
struct policy_params {
	const struct jv **v;
	struct str *names, *namespaces;
	uint32_t n, cap;
};
struct error *policy_params(struct admission *a, const struct policy *p, const struct policy_binding *b, struct policy_params *out);
/* The namespace of the request, *out NULL when it has none. 404. */
struct error *policy_namespace(struct admission *a, struct core_v1_namespace **out);
/* The resource of a kind, custom ones too; NULL when there is none. */
const struct resource *policy_kind(struct apiserver *s, struct str api_version, struct str kind);

/* ---- policy_rules.c, webhook_rules.c: field errors of policies, bindings and configurations of webhooks ---- */
void operations_rule_validate(struct field_errors *e, const struct admissionregistration_v1_rule_with_operations *r, const struct field_path *p);
extern const struct strategy strategy_vwc, strategy_mwc;
extern const struct strategy strategy_vap, strategy_vapb, strategy_map, strategy_mapb;

#endif
