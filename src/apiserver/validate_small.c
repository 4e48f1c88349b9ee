/* Rules of small groups: node.k8s.io, scheduling.k8s.io, coordination.k8s.io, rbac.authorization.k8s.io. */
#include "apiserver/validate_kinds.h"
#include "apiserver/validate_pod.h"

#define USER_PRIORITY_MAX 1000000000

/* ---- runtime classes ---- */

void runtimeclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct node_v1_runtime_class *c = obj;
	const struct field_path *scheduling = FIELD_ROOT("scheduling"), *tolerations = AT(scheduling, "tolerations");

	(void)rq;
	rule_name(e, FIELD_ROOT("handler"), c->handler, validate_dns1123_label);
	if (c->overhead) {
		struct core_v1_resource_requirements r = {0};
		struct pod_options o = {0};

		memcpy(&r.limits, &c->overhead->pod_fixed, sizeof r.limits);
		rule_resources(e, FIELD_ROOT("overhead"), &r, NULL, &o, false);
	}
	if (!c->scheduling)
		return;
	validate_labels(e, API_MAP(&c->scheduling->node_selector), AT(scheduling, "nodeSelector"));
	rule_tolerations(e, tolerations, c->scheduling->tolerations.v, c->scheduling->tolerations.n, false);
	for (uint32_t i = 0; i < c->scheduling->tolerations.n; i++)
		for (uint32_t k = 0; k < i; k++) {
			const struct core_v1_toleration *a = &c->scheduling->tolerations.v[i], *b = &c->scheduling->tolerations.v[k];

			if (!str_eq(a->key, b->key) || !str_eq(a->operator, b->operator) || !str_eq(a->value, b->value) || !str_eq(a->effect, b->effect))
				continue;
			field_duplicate_raw(e, EL(tolerations, i), field_json(e->arena, &node_v1_scheduling_type, c->scheduling, STR("tolerations")), "");
			break;
		}
}

void runtimeclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	rule_immutable(e, FIELD_ROOT("handler"), &node_v1_runtime_class_type, obj, old, "handler");
}

void runtimeclass_warn(struct request *rq, const void *obj, const void *old)
{
	const struct node_v1_runtime_class *c = obj;

	(void)old;
	for (uint32_t i = 0; c->scheduling && i < c->scheduling->node_selector.n; i++) {
		const char *m = node_label_deprecated(c->scheduling->node_selector.v[i].key);

		if (m)
			request_warn(rq, "scheduling.nodeSelector: %s", m);
	}
}

/* ---- priority classes ---- */

void priorityclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct scheduling_v1_priority_class *c = obj;

	if (c->preemption_policy)
		rule_enum(e, FIELD_ROOT("preemptionPolicy"), *c->preemption_policy, "PreemptLowerPriority,Never");
	if (rq->internal)
		return;
	if (str_has_prefix(c->metadata.name, STR("system-"))) {
		struct str name = c->metadata.name;
		int32_t value = str_eqz(name, "system-node-critical") ? 2000001000 : str_eqz(name, "system-cluster-critical") ? 2000000000 : 0;
		struct str why = !value ? arena_printf(e->arena, "%.*s is not a known system priority class", STR_ARG(name)) :
				 c->value != value ? arena_printf(e->arena, "value of %.*s PriorityClass must be %d", STR_ARG(name), value) :
				 c->global_default ? arena_printf(e->arena, "globalDefault of %.*s PriorityClass must be false", STR_ARG(name)) :
						     STR_NULL;

		if (why.n)
			field_forbidden(e, AT(FIELD_ROOT("metadata"), "name"), "priority class names with 'system-' prefix are reserved for "
					"system use only. error: %.*s", STR_ARG(why));
	} else if (c->value > USER_PRIORITY_MAX) {
		field_forbidden(e, FIELD_ROOT("value"), "maximum allowed value of a user defined priority is %d", USER_PRIORITY_MAX);
	}
}

void priorityclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct scheduling_v1_priority_class *c = obj, *o = old;

	(void)rq;
	if (c->value != o->value)
		field_forbidden(e, FIELD_ROOT("value"), "may not be changed in an update.");
	rule_immutable(e, FIELD_ROOT("preemptionPolicy"), &scheduling_v1_priority_class_type, c, o, "preemptionPolicy");
}

/* ---- leases ---- */

void lease_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct coordination_v1_lease *l = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	if (l->spec.lease_duration_seconds && *l->spec.lease_duration_seconds <= 0)
		field_invalid_int(e, AT(spec, "leaseDurationSeconds"), *l->spec.lease_duration_seconds, "must be greater than 0");
	if (l->spec.lease_transitions && *l->spec.lease_transitions < 0)
		field_invalid_int(e, AT(spec, "leaseTransitions"), *l->spec.lease_transitions, "must be greater than or equal to 0");
}

void lease_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)old;
	lease_validate(rq, obj, e);
}

/* ---- roles and bindings ---- */

static void policy_rules(struct field_errors *e, const struct rbac_v1_policy_rule *r, uint32_t n, bool namespaced)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *p = EL(FIELD_ROOT("rules"), i);
		const struct strings *urls = (const struct strings *)&r[i].non_resource_urls;

		if (!r[i].verbs.n)
			field_required(e, AT(p, "verbs"), "verbs must contain at least one value");
		if (urls->n) {
			if (namespaced)
				field_invalid_list(e, AT(p, "nonResourceURLs"), urls, "namespaced rules cannot apply to non-resource URLs");
			if (r[i].api_groups.n || r[i].resources.n || r[i].resource_names.n)
				field_invalid_list(e, AT(p, "nonResourceURLs"), urls,
						   "rules cannot apply to both regular resources and non-resource URLs");
			continue;
		}
		if (!r[i].api_groups.n)
			field_required(e, AT(p, "apiGroups"), "resource rules must supply at least one api group");
		if (!r[i].resources.n)
			field_required(e, AT(p, "resources"), "resource rules must supply at least one resource");
	}
}

void role_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct rbac_v1_role *r = obj;

	(void)rq;
	policy_rules(e, r->rules.v, r->rules.n, true);
}

void role_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)old;
	role_validate(rq, obj, e);
}

static void clusterrole_rules(struct field_errors *e, const struct rbac_v1_cluster_role *r, bool lax)
{
	const struct field_path *p = AT(FIELD_ROOT("aggregationRule"), "clusterRoleSelectors");

	policy_rules(e, r->rules.v, r->rules.n, false);
	if (!r->aggregation_rule)
		return;
	if (!r->aggregation_rule->cluster_role_selectors.n)
		field_required(e, p, "at least one clusterRoleSelector required if aggregationRule is non-nil");
	for (uint32_t i = 0; i < r->aggregation_rule->cluster_role_selectors.n; i++) {
		const struct meta_v1_label_selector *s = &r->aggregation_rule->cluster_role_selectors.v[i];
		const struct selector *sel;
		struct error *err = label_selector_from(e->arena, s, &sel);

		validate_label_selector_lax(e, s, EL(p, i), lax);
		if (err)
			field_invalid_raw(e, EL(p, i), STR("null"), "invalid label selector.");
		error_free(err);
	}
}

void clusterrole_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	clusterrole_rules(e, obj, false);
}

void clusterrole_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct rbac_v1_cluster_role *o = old;
	struct field_errors were = {.arena = e->arena};

	(void)rq;
	for (uint32_t i = 0; o->aggregation_rule && i < o->aggregation_rule->cluster_role_selectors.n; i++)
		validate_label_selector(&were, &o->aggregation_rule->cluster_role_selectors.v[i], FIELD_ROOT("aggregationRule"));
	clusterrole_rules(e, obj, were.list.n > 0);
}

static void binding_subject(struct field_errors *e, const struct field_path *p, const struct rbac_v1_subject *s, bool cluster)
{
	rule_required(e, AT(p, "name"), s->name);
	if (str_eqz(s->kind, "ServiceAccount")) {
		if (s->name.n)
			field_check(e, AT(p, "name"), s->name, validate_dns1123_subdomain);
		if (s->api_group.n)
			field_not_supported(e, AT(p, "apiGroup"), s->api_group, &STR(""), 1);
		if (cluster)
			rule_required(e, AT(p, "namespace"), s->namespace);
	} else if (str_eqz(s->kind, "User") || str_eqz(s->kind, "Group")) {
		field_one_of(e, AT(p, "apiGroup"), s->api_group, "rbac.authorization.k8s.io");
	} else {
		field_unsupported(e, AT(p, "kind"), s->kind, "ServiceAccount,User,Group");
	}
}

/* Both kinds of bindings have the same members. */
void binding_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct rbac_v1_role_binding *b = obj;
	const struct field_path *ref = FIELD_ROOT("roleRef");
	bool cluster = rq->res->st->type == &rbac_v1_cluster_role_binding_type;

	field_one_of(e, AT(ref, "apiGroup"), b->role_ref.api_group, "rbac.authorization.k8s.io");
	field_one_of(e, AT(ref, "kind"), b->role_ref.kind, cluster ? "ClusterRole" : "Role,ClusterRole");
	rule_name(e, AT(ref, "name"), b->role_ref.name, validate_path_segment);
	for (uint32_t i = 0; i < b->subjects.n; i++)
		binding_subject(e, EL(FIELD_ROOT("subjects"), i), &b->subjects.v[i], cluster);
}

void binding_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct rbac_v1_role_binding *b = obj, *o = old;

	(void)rq;
	if (!object_equal(&rbac_v1_role_ref_type, &b->role_ref, &o->role_ref))
		field_invalid_obj(e, FIELD_ROOT("roleRef"), &rbac_v1_role_ref_type, &b->role_ref, "cannot change roleRef");
}
