/* Rules of flowcontrol.apiserver.k8s.io and apiregistration.k8s.io. */
#include "apiserver/validate_kinds.h"

#include <math.h>

enum { PRECEDENCE_MAX = 10000, QUEUES_MAX = 10 * 1000 * 1000, HASH_BITS_MAX = 60 };

static bool has_star(const struct strings *l)
{
	return strings_have(l, STR("*"));
}

/* At least one; "*" stands alone. Returns whether the members are still to be looked at. */
static bool wildcard_list(struct field_errors *e, const struct field_path *p, const struct strings *l, const char *none, const char *others)
{
	if (!l->n)
		field_required(e, p, none);
	else if (has_star(l) && l->n > 1)
		field_invalid_list(e, p, l, "if '*' is present, must not specify other %s", others);
	return l->n && !has_star(l);
}

static struct str list_text(struct arena *a, const struct strings *l)
{
	struct str s = STR("[");

	for (uint32_t i = 0; i < l->n; i++)
		s = arena_printf(a, "%.*s%s\"%.*s\"", STR_ARG(s), i ? "," : "", STR_ARG(l->v[i]));
	return arena_printf(a, "%.*s]", STR_ARG(s));
}

static void verbs(struct field_errors *e, const struct field_path *p, const struct strings *l)
{
	static const struct str valid[] = {STR_INIT("create"), STR_INIT("delete"), STR_INIT("deletecollection"), STR_INIT("get"), STR_INIT("list"),
					   STR_INIT("patch"),  STR_INIT("proxy"),  STR_INIT("update"),           STR_INIT("watch")};

	if (!wildcard_list(e, p, l, "verbs must contain at least one value", "verbs"))
		return;
	for (uint32_t i = 0; i < l->n; i++) {
		bool known = false;

		for (size_t k = 0; k < sizeof valid / sizeof *valid; k++)
			known |= str_eq(l->v[i], valid[k]);
		if (known)
			continue;
		field_not_supported_raw(e, p, list_text(e->arena, l), valid, sizeof valid / sizeof *valid);
		return;
	}
}

static const char *url_problem(struct str u)
{
	if (!u.n)
		return "must not be empty";
	if (str_eqz(u, "/"))
		return NULL;
	if (u.p[0] != '/')
		return "must start with slash";
	if (str_contains(u, STR(" ")))
		return "must not contain white-space";
	if (str_contains(u, STR("//")))
		return "must not contain double slash";
	if (str_index(u, '*') >= 0 && (str_index(u, '*') != str_rindex(u, '*') || !str_has_suffix(u, STR("/*"))))
		return "wildcard can only do suffix matching";
	return NULL;
}

static void namespace_member(struct field_errors *e, const struct field_path *p, struct str ns)
{
	struct field_errors own = {.arena = e->arena};

	field_check(&own, p, ns, validate_dns1123_label);
	for (uint32_t i = 0; i < own.list.n; i++) {
		struct str body = own.list.v[i].body, head = arena_printf(e->arena, "Invalid value: \"%.*s\": ", STR_ARG(ns));

		if (str_has_prefix(body, head))
			body = str_sub(body, head.n, body.n);
		field_invalid(e, p, ns, "each member of this list must be '*' or a DNS-1123 label; %.*s", STR_ARG(body));
	}
}

static void subject(struct field_errors *e, const struct field_path *p, const struct flowcontrol_v1_subject *s)
{
	static const char *const members[] = {"serviceAccount", "user", "group"}, *const kinds[] = {"ServiceAccount", "User", "Group"};
	const bool there[] = {s->service_account != NULL, s->user != NULL, s->group != NULL};
	int kind = -1;

	for (int i = 0; i < 3; i++)
		if (str_eqz(s->kind, kinds[i]))
			kind = i;
	if (kind < 0) {
		field_unsupported(e, AT(p, "kind"), s->kind, "Group,ServiceAccount,User");
		return;
	}
	if (!there[kind]) {
		field_required(e, FIELD_CHILD_S(p, str_from(members[kind])),
			       arena_printf(e->arena, "%s is required when subject kind is '%s'", members[kind], kinds[kind]).p);
	} else if (kind == 0) {
		const struct field_path *at = AT(p, "serviceAccount");

		if (!s->service_account->name.n)
			field_required(e, AT(at, "name"), "");
		else if (!str_eqz(s->service_account->name, "*"))
			field_check(e, AT(at, "name"), s->service_account->name, validate_dns1123_subdomain);
		if (s->service_account->namespace.n)
			field_check(e, AT(at, "namespace"), s->service_account->namespace, validate_dns1123_label);
		else
			field_required(e, AT(at, "namespace"), "must specify namespace for service account");
	} else if (!(kind == 2 ? s->group->name : s->user->name).n) {
		field_required(e, AT(FIELD_CHILD_S(p, str_from(members[kind])), "name"), "");
	}
	for (int i = 0; i < 3; i++)
		if (i != kind && there[i])
			field_forbidden(e, FIELD_CHILD_S(p, str_from(members[i])), "%s is forbidden when subject kind is not '%s'", members[i],
					kinds[i]);
}

static void flow_rule(struct field_errors *e, const struct field_path *p, const struct flowcontrol_v1_policy_rules_with_subjects *r)
{
	if (!r->subjects.n)
		field_required(e, AT(p, "subjects"), "subjects must contain at least one value");
	for (uint32_t i = 0; i < r->subjects.n; i++)
		subject(e, EL(AT(p, "subjects"), i), &r->subjects.v[i]);
	if (!r->resource_rules.n && !r->non_resource_rules.n)
		field_required(e, p, "at least one of resourceRules and nonResourceRules has to be non-empty");
	for (uint32_t i = 0; i < r->resource_rules.n; i++) {
		const struct flowcontrol_v1_resource_policy_rule *q = &r->resource_rules.v[i];
		const struct field_path *at = EL(AT(p, "resourceRules"), i), *ns = AT(at, "namespaces");

		verbs(e, AT(at, "verbs"), (const struct strings *)&q->verbs);
		wildcard_list(e, AT(at, "apiGroups"), (const struct strings *)&q->api_groups, "resource rules must supply at least one api group",
			      "api groups");
		wildcard_list(e, AT(at, "resources"), (const struct strings *)&q->resources, "resource rules must supply at least one resource",
			      "resources");
		if (!q->namespaces.n && q->cluster_scope)
			continue;
		if (!wildcard_list(e, ns, (const struct strings *)&q->namespaces,
				   "resource rules that are not cluster scoped must supply at least one namespace", "namespaces"))
			continue;
		for (uint32_t k = 0; k < q->namespaces.n; k++)
			namespace_member(e, EL(ns, k), q->namespaces.v[k]);
	}
	for (uint32_t i = 0; i < r->non_resource_rules.n; i++) {
		const struct flowcontrol_v1_non_resource_policy_rule *q = &r->non_resource_rules.v[i];
		const struct field_path *at = EL(AT(p, "nonResourceRules"), i), *urls = AT(at, "nonResourceURLs");

		verbs(e, AT(at, "verbs"), (const struct strings *)&q->verbs);
		if (!wildcard_list(e, urls, (const struct strings *)&q->non_resource_urls, "nonResourceURLs must contain at least one value",
				   "non-resource URLs"))
			continue;
		for (uint32_t k = 0; k < q->non_resource_urls.n; k++) {
			const char *m = url_problem(q->non_resource_urls.v[k]);

			if (m)
				field_invalid(e, EL(urls, k), q->non_resource_urls.v[k], "%s", m);
		}
	}
}

#define CONDITIONS(e, l)                                                                                        \
	do {                                                                                                    \
		const struct field_path *at_ = AT(FIELD_ROOT("status"), "conditions");                          \
		for (uint32_t i_ = 0; i_ < (l).n; i_++) {                                                       \
			for (uint32_t k_ = 0; k_ < i_; k_++)                                                    \
				if (str_eq((l).v[k_].type, (l).v[i_].type)) {                                   \
					field_duplicate(e, AT(EL(at_, i_), "type"), (l).v[i_].type);            \
					break;                                                                  \
				}                                                                               \
			rule_required(e, AT(EL(at_, i_), "type"), (l).v[i_].type);                              \
		}                                                                                               \
	} while (0)

/* The mandatory ones stay as they were made: what there is of that name, or NULL for the others. */
static const void *mandatory(struct request *rq, struct str name)
{
	if (rq->internal || (!str_eqz(name, "exempt") && !str_eqz(name, "catch-all")))
		return NULL;
	return registry_peek(rq->s, rq->a, rq->res->st, STR_NULL, name);
}

void flowschema_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct schema_type *t = &flowcontrol_v1_flow_schema_type;
	const struct flowcontrol_v1_flow_schema *f = obj, *fixed = mandatory(rq, f->metadata.name);
	const struct flowcontrol_v1_flow_schema_spec *s = &f->spec;
	const struct field_path *spec = FIELD_ROOT("spec"), *precedence = AT(spec, "matchingPrecedence");
	static const struct str methods[] = {STR_INIT("ByNamespace"), STR_INIT("ByUser")};

	if (s->matching_precedence <= 0)
		field_invalid_int(e, precedence, s->matching_precedence, "must be a positive value");
	if (s->matching_precedence > PRECEDENCE_MAX)
		field_invalid_int(e, precedence, s->matching_precedence, "must not be greater than %d", PRECEDENCE_MAX);
	if (s->matching_precedence == 1 && !str_eqz(f->metadata.name, "exempt"))
		field_invalid_int(e, precedence, s->matching_precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
	if (s->distinguisher_method && !str_eqz(s->distinguisher_method->type, "ByNamespace") && !str_eqz(s->distinguisher_method->type, "ByUser"))
		field_not_supported_raw(e, AT(AT(spec, "distinguisherMethod"), "type"),
					field_json(e->arena, &flowcontrol_v1_flow_schema_spec_type, s, STR("distinguisherMethod")), methods, 2);
	if (s->priority_level_configuration.name.n)
		field_check(e, AT(AT(spec, "priorityLevelConfiguration"), "name"), s->priority_level_configuration.name, validate_dns1123_subdomain);
	else
		field_required(e, AT(AT(spec, "priorityLevelConfiguration"), "name"), "must reference a priority level");
	for (uint32_t i = 0; i < s->rules.n; i++)
		flow_rule(e, EL(AT(spec, "rules"), i), &s->rules.v[i]);
	if (fixed && !object_field_equal(t, f, fixed, "spec"))
		field_invalid_raw(e, spec, field_json(e->arena, t, f, STR("spec")), "spec of '%.*s' must equal the fixed value",
				  STR_ARG(f->metadata.name));
	CONDITIONS(e, f->status.conditions);
}

void flowschema_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)old;
	flowschema_validate(rq, obj, e);
}

void flowschema_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct flowcontrol_v1_flow_schema *f = obj;

	(void)rq;
	(void)sub;
	(void)old;
	CONDITIONS(e, f->status.conditions);
}

static void percent(struct field_errors *e, const struct field_path *p, const int32_t *v)
{
	if (v && (*v < 0 || *v > 100))
		field_invalid_int(e, p, *v, "must be between 0 and 100, inclusive");
}

static void shares(struct field_errors *e, const struct field_path *p, const int32_t *v)
{
	if (v && *v < 0)
		field_invalid_int(e, p, *v, "must be a non-negative integer");
}

static void queuing(struct field_errors *e, const struct field_path *p, const struct flowcontrol_v1_queuing_configuration *q)
{
	int bits;

	if (q->queue_length_limit <= 0)
		field_invalid_int(e, AT(p, "queueLengthLimit"), q->queue_length_limit, "must be positive");
	if (q->queues <= 0)
		field_invalid_int(e, AT(p, "queues"), q->queues, "must be positive");
	else if (q->queues > QUEUES_MAX)
		field_invalid_int(e, AT(p, "queues"), q->queues, "must not be greater than %d", QUEUES_MAX);
	if (q->hand_size <= 0) {
		field_invalid_int(e, AT(p, "handSize"), q->hand_size, "must be positive");
		return;
	}
	if (q->hand_size > q->queues) {
		field_invalid_int(e, AT(p, "handSize"), q->hand_size, "should not be greater than queues (%d)", (int)q->queues);
		return;
	}
	bits = (int)ceil(log2(q->queues) * q->hand_size);
	if (bits > HASH_BITS_MAX)
		field_invalid_int(e, AT(p, "handSize"), q->hand_size,
				  "required entropy bits of deckSize %d and handSize %d should not be greater than %d", (int)q->queues,
				  (int)q->hand_size, HASH_BITS_MAX);
}

static void limited(struct field_errors *e, const struct field_path *p, const struct flowcontrol_v1_limited_priority_level_configuration *l)
{
	const struct field_path *r = AT(p, "limitResponse");

	shares(e, AT(p, "nominalConcurrencyShares"), l->nominal_concurrency_shares);
	if (str_eqz(l->limit_response.type, "Reject")) {
		if (l->limit_response.queuing)
			field_forbidden(e, AT(r, "queuing"), "must be nil if limited.limitResponse.type is not Limited");
	} else if (str_eqz(l->limit_response.type, "Queue")) {
		if (!l->limit_response.queuing)
			field_required(e, AT(r, "queuing"), "must not be empty if limited.limitResponse.type is Limited");
		else
			queuing(e, AT(r, "queuing"), l->limit_response.queuing);
	} else {
		field_unsupported(e, AT(r, "type"), l->limit_response.type, "Queue,Reject");
	}
	percent(e, AT(p, "lendablePercent"), l->lendable_percent);
	if (l->borrowing_limit_percent && *l->borrowing_limit_percent < 0)
		field_invalid_int(e, AT(p, "borrowingLimitPercent"), *l->borrowing_limit_percent, "if specified, must be a non-negative integer");
}

void prioritylevel_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct flowcontrol_v1_priority_level_configuration *l = obj, *fixed = mandatory(rq, l->metadata.name);
	const struct schema_type *t = &flowcontrol_v1_priority_level_configuration_type, *st = &flowcontrol_v1_priority_level_configuration_spec_type;
	const struct field_path *spec = FIELD_ROOT("spec");
	bool exempt = str_eqz(l->spec.type, "Exempt"), own = str_eqz(l->metadata.name, "exempt");

	if (str_map_has(API_MAP(&l->metadata.annotations), STR("flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares")))
		field_forbidden(e, AT(FIELD_ROOT("metadata"), "annotations"),
				"annotation 'flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares' is forbidden");
	if (str_eqz(l->metadata.name, "exempt") != exempt)
		field_invalid(e, AT(spec, "type"), l->spec.type, "must be 'Exempt' if and only if `name` is 'exempt'");
	if (exempt) {
		if (l->spec.limited)
			field_forbidden(e, AT(spec, "limited"), "must be nil if the type is not Limited");
		if (l->spec.exempt) {
			shares(e, AT(AT(spec, "exempt"), "nominalConcurrencyShares"), l->spec.exempt->nominal_concurrency_shares);
			percent(e, AT(AT(spec, "exempt"), "lendablePercent"), l->spec.exempt->lendable_percent);
		}
	} else if (str_eqz(l->spec.type, "Limited")) {
		if (l->spec.exempt)
			field_forbidden(e, AT(spec, "exempt"), "must be nil if the type is Limited");
		if (!l->spec.limited)
			field_required(e, AT(spec, "limited"), "must not be empty when type is Limited");
		else
			limited(e, AT(spec, "limited"), l->spec.limited);
	} else {
		field_unsupported(e, AT(spec, "type"), l->spec.type, "Exempt,Limited");
	}
	if (fixed && !(object_field_equal(st, &l->spec, &fixed->spec, "type") && object_field_equal(st, &l->spec, &fixed->spec, "limited") &&
		       (own || object_field_equal(st, &l->spec, &fixed->spec, "exempt"))))
		field_invalid_raw(e, spec, field_json(e->arena, t, l, STR("spec")),
				  own ? "spec of '%.*s' except the 'spec.exempt' field must equal the fixed value" :
					"spec of '%.*s' must equal the fixed value",
				  STR_ARG(l->metadata.name));
	CONDITIONS(e, l->status.conditions);
}

void prioritylevel_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)old;
	prioritylevel_validate(rq, obj, e);
}

void prioritylevel_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct flowcontrol_v1_priority_level_configuration *l = obj;

	(void)rq;
	(void)sub;
	(void)old;
	CONDITIONS(e, l->status.conditions);
}

/* ---- API services ---- */

void apiservice_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct apiregistration_v1_api_service *s = obj;
	const struct apiregistration_v1_api_service_spec *a = &s->spec;
	const struct field_path *spec = FIELD_ROOT("spec"), *service = AT(spec, "service");
	struct str want = arena_printf(e->arena, "%.*s.%.*s", STR_ARG(a->version), STR_ARG(a->group));

	(void)rq;
	rule_object_name(e, &s->metadata, want, validate_path_segment,
			 arena_printf(e->arena, "must be `spec.version+\".\"+spec.group`: \"%.*s\"", STR_ARG(want)).p);
	if (!a->group.n && !str_eqz(a->version, "v1"))
		field_required(e, AT(spec, "group"), "only v1 may have an empty group and it better be legacy kube");
	if (a->group.n)
		field_check(e, AT(spec, "group"), a->group, validate_dns1123_subdomain);
	field_check(e, AT(spec, "version"), a->version, validate_dns1035_label);
	if (a->group_priority_minimum <= 0 || a->group_priority_minimum > 20000)
		field_invalid_int(e, AT(spec, "groupPriorityMinimum"), a->group_priority_minimum, "must be positive and less than 20000");
	if (a->version_priority <= 0 || a->version_priority > 1000)
		field_invalid_int(e, AT(spec, "versionPriority"), a->version_priority, "must be positive and less than 1000");
	if (!a->service) {
		if (a->ca_bundle.n)
			field_invalid(e, AT(spec, "caBundle"), arena_printf(e->arena, "%zu bytes", a->ca_bundle.n),
				      "local APIServices may not have a caBundle");
		if (a->insecure_skip_tls_verify)
			field_invalid_raw(e, AT(spec, "insecureSkipTLSVerify"), STR("true"), "local APIServices may not have insecureSkipTLSVerify");
		return;
	}
	rule_required(e, AT(service, "namespace"), a->service->namespace);
	rule_required(e, AT(service, "name"), a->service->name);
	const char *m = validate_port_number(e->arena, a->service->port ? *a->service->port : 0);

	if (m)
		field_invalid_int(e, AT(service, "port"), a->service->port ? *a->service->port : 0, "port is not valid: %s", m);
	if (a->insecure_skip_tls_verify && a->ca_bundle.n)
		field_invalid_raw(e, AT(spec, "insecureSkipTLSVerify"), STR("true"), "may not be true if caBundle is present");
}

void apiservice_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)old;
	apiservice_validate(rq, obj, e);
}

void apiservice_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct apiregistration_v1_api_service *s = obj;

	(void)rq;
	(void)sub;
	(void)old;
	for (uint32_t i = 0; i < s->status.conditions.n; i++)
		field_one_of(e, AT(EL(AT(FIELD_ROOT("status"), "conditions"), i), "status"), s->status.conditions.v[i].status, "True,False,Unknown");
}
