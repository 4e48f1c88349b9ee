/* Rules that several kinds share. */
#include "apiserver/rules.h"
#include "schema/quantity.h"

/* ---- scalars ---- */

void rule_min(struct field_errors *e, const struct field_path *p, int64_t v, int64_t min)
{
	if (v < min)
		field_invalid_int(e, p, v, "must be greater than or equal to %lld", (long long)min);
}

void rule_nonneg(struct field_errors *e, const struct field_path *p, int64_t v)
{
	rule_min(e, p, v, 0);
}

void rule_nonneg32(struct field_errors *e, const struct field_path *p, const int32_t *v)
{
	if (v)
		rule_min(e, p, *v, 0);
}

void rule_nonneg64(struct field_errors *e, const struct field_path *p, const int64_t *v)
{
	if (v)
		rule_min(e, p, *v, 0);
}

void rule_positive(struct field_errors *e, const struct field_path *p, int64_t v)
{
	if (v <= 0)
		field_invalid_int(e, p, v, "must be greater than zero");
}

void rule_range(struct field_errors *e, const struct field_path *p, int64_t v, int64_t min, int64_t max)
{
	if (v < min || v > max)
		field_invalid_int(e, p, v, "must be between %lld and %lld, inclusive", (long long)min, (long long)max);
}

void rule_id(struct field_errors *e, const struct field_path *p, const int64_t *v)
{
	if (v)
		rule_range(e, p, *v, 0, INT32_MAX);
}

void rule_object_name(struct field_errors *e, const struct meta_v1_object_meta *m, struct str want,
		      const char *(*first)(struct arena *a, struct str name), const char *message)
{
	static const char *const fields[] = {"metadata.generateName", "metadata.name"};
	const struct str values[] = {m->generate_name, m->name};

	for (int i = 0; i < 2; i++) {
		if (!values[i].n || str_eq(values[i], want) || (first && first(e->arena, values[i])) || e->list.n >= FIELD_ERRORS_MAX)
			continue;
		field_invalid(e, FIELD_CHILD_S(FIELD_ROOT("metadata"), str_from(fields[i] + sizeof "metadata")), values[i], "%s", message);
		for (uint32_t at = e->list.n - 1; at > 0; at--) {
			struct field_error *v = e->list.v, t = v[at];

			if (!str_has_prefix(v[at - 1].field, STR("metadata.")) || str_eqz(v[at - 1].field, fields[i]) ||
			    str_eqz(v[at - 1].field, fields[0]))
				break;
			v[at] = v[at - 1];
			v[at - 1] = t;
		}
	}
}

void rule_required(struct field_errors *e, const struct field_path *p, struct str v)
{
	if (!v.n)
		field_required(e, p, "");
}

void rule_name(struct field_errors *e, const struct field_path *p, struct str v, const char *(*check)(struct arena *a, struct str s))
{
	if (!v.n)
		field_required(e, p, "");
	else
		field_check(e, p, v, check);
}

void rule_enum(struct field_errors *e, const struct field_path *p, struct str v, const char *valid)
{
	if (!v.n)
		field_required(e, p, "");
	else
		field_one_of(e, p, v, valid);
}

void rule_port_number(struct field_errors *e, const struct field_path *p, int32_t v)
{
	rule_range(e, p, v, 1, 65535);
}

void rule_port(struct field_errors *e, const struct field_path *p, const struct int_or_string *v)
{
	if (v->is_str)
		field_check(e, p, v->s, validate_port_name);
	else
		rule_port_number(e, p, v->i);
}

void rule_percent_or_count(struct field_errors *e, const struct field_path *p, const struct int_or_string *v)
{
	if (!v)
		return;
	if (v->is_str)
		field_check(e, p, v->s, validate_percent);
	else
		rule_nonneg(e, p, v->i);
}

void rule_at_most_100_percent(struct field_errors *e, const struct field_path *p, const struct int_or_string *v)
{
	int64_t n;

	if (v && v->is_str && !validate_percent(e->arena, v->s) && str_to_i64(str_sub(v->s, 0, v->s.n - 1), &n) && n > 100)
		field_invalid(e, p, v->s, "must not be greater than 100%%");
}

static bool among(struct str v, const struct str *old, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eq(v, old[i]))
			return true;
	return false;
}

void rule_legacy_ip(struct field_errors *e, const struct field_path *p, struct str v, const struct str *old, uint32_t n_old)
{
	if (!among(v, old, n_old))
		field_check(e, p, v, validate_ip);
}

void rule_legacy_cidr(struct field_errors *e, const struct field_path *p, struct str v, const struct str *old, uint32_t n_old)
{
	if (!among(v, old, n_old))
		field_check(e, p, v, validate_cidr);
}

void rule_endpoint_ip(struct field_errors *e, const struct field_path *p, struct str v)
{
	switch (ip_scope(v)) {
	case IP_INVALID:
		field_invalid(e, p, v, "must be a valid IP address");
		break;
	case IP_UNSPECIFIED:
		field_invalid(e, p, v, "may not be unspecified (%.*s)", STR_ARG(v));
		break;
	case IP_LOOPBACK:
		field_invalid(e, p, v, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
		break;
	case IP_LINK_LOCAL:
		field_invalid(e, p, v, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
		break;
	case IP_LINK_LOCAL_MULTICAST:
		field_invalid(e, p, v, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
		break;
	case IP_GLOBAL:
		break;
	}
}

void rule_immutable(struct field_errors *e, const struct field_path *p, const struct schema_type *t, const void *a, const void *b,
		    const char *member)
{
	if (!object_field_equal(t, a, b, member))
		field_invalid_raw(e, p, field_json(e->arena, t, a, str_from(member)), "field is immutable");
}

static struct str lower_case(struct arena *a, struct str s)
{
	char *z = arena_strz(a, s);

	for (size_t i = 0; i < s.n; i++)
		if (z[i] >= 'A' && z[i] <= 'Z')
			z[i] = (char)(z[i] + 32);
	return str_of(z, s.n);
}

void rule_csi_driver_name(struct field_errors *e, const struct field_path *p, struct str v)
{
	const char *m;

	if (!v.n) {
		field_required(e, p, "");
		return;
	}
	if (v.n > 63)
		field_too_long(e, p, 63);
	m = validate_dns1123_subdomain(e->arena, lower_case(e->arena, v));
	if (m)
		field_invalid(e, p, v, "%s", m);
}

static const char *condition_reason(struct arena *a, struct str s)
{
	bool ok = s.n > 0;

	(void)a;
	for (size_t i = 0; i < s.n && ok; i++) {
		char c = s.p[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'), digit = (c >= '0' && c <= '9') || c == '_';

		ok = i == 0 ? letter : letter || digit || (i + 1 < s.n && (c == ',' || c == ':'));
	}
	return ok ? NULL : "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or "
			   "'_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or "
			   "'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
}

void rule_conditions(struct field_errors *e, const struct field_path *p, const struct meta_v1_condition *c, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *at = EL(p, i);

		for (uint32_t k = 0; k < i; k++)
			if (str_eq(c[k].type, c[i].type)) {
				field_duplicate(e, AT(at, "type"), c[i].type);
				break;
			}
		field_check(e, AT(at, "type"), c[i].type, validate_qualified_name);
		field_one_of(e, AT(at, "status"), c[i].status, "False,True,Unknown");
		if (c[i].observed_generation < 0)
			field_invalid_int(e, AT(at, "observedGeneration"), c[i].observed_generation, "must be greater than or equal to zero");
		if (!c[i].last_transition_time.set)
			field_required(e, AT(at, "lastTransitionTime"), "");
		rule_name(e, AT(at, "reason"), c[i].reason, condition_reason);
		if (c[i].reason.n > 1024)
			field_too_long(e, AT(at, "reason"), 1024);
		if (c[i].message.n > 32768)
			field_too_long(e, AT(at, "message"), 32768);
	}
}

/* The first part of `text` (between dots) that is wrong, with all that is wrong with it. */
static void signer_part(struct field_errors *e, const struct field_path *p, struct str text,
			const char *(*check)(struct arena *a, struct str s))
{
	for (struct str d = text; d.p;) {
		struct str part = str_cut(&d, '.');
		const char *m = check(e->arena, part);

		if (!m)
			continue;
		for (struct str rest = str_from(m); rest.n;) {
			ptrdiff_t i = str_find(rest, STR("; "));
			struct str one = i < 0 ? rest : str_sub(rest, 0, (size_t)i);

			field_invalid(e, p, text, "validating label \"%.*s\": %.*s", STR_ARG(part), STR_ARG(one));
			rest = i < 0 ? STR_NULL : str_sub(rest, (size_t)i + 2, rest.n);
		}
		return;
	}
}

#define SIGNER_DOMAIN_MAX 253
#define SIGNER_MAX (SIGNER_DOMAIN_MAX + 1 + 253 + 63 + 1)

void rule_signer_name(struct field_errors *e, const struct field_path *p, struct str v)
{
	struct str path = v, domain;

	if (!v.n) {
		field_required(e, p, "");
		return;
	}
	domain = str_cut(&path, '/');
	if (!path.p || str_index(path, '/') >= 0) {
		field_invalid(e, p, v, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
		return;
	}
	if (domain.n > SIGNER_DOMAIN_MAX)
		field_too_long(e, p, SIGNER_DOMAIN_MAX);
	signer_part(e, p, domain, validate_dns1123_label);
	if (str_index(domain, '.') < 0)
		field_invalid(e, p, domain, "should be a domain with at least two segments separated by dots");
	signer_part(e, p, path, validate_dns1123_subdomain);
	if (v.n > SIGNER_MAX)
		field_too_long(e, p, SIGNER_MAX);
}

void rule_replica_status(struct field_errors *e, const struct field_path *p, int32_t replicas, int32_t labeled, int32_t ready, int32_t available,
			 int64_t observed)
{
	static const char more[] = "cannot be greater than status.replicas";

	rule_nonneg(e, AT(p, "replicas"), replicas);
	rule_nonneg(e, AT(p, "fullyLabeledReplicas"), labeled);
	rule_nonneg(e, AT(p, "readyReplicas"), ready);
	rule_nonneg(e, AT(p, "availableReplicas"), available);
	rule_nonneg(e, AT(p, "observedGeneration"), observed);
	if (labeled > replicas)
		field_invalid_int(e, AT(p, "fullyLabeledReplicas"), labeled, "%s", more);
	if (ready > replicas)
		field_invalid_int(e, AT(p, "readyReplicas"), ready, "%s", more);
	if (available > replicas)
		field_invalid_int(e, AT(p, "availableReplicas"), available, "%s", more);
	if (available > ready)
		field_invalid_int(e, AT(p, "availableReplicas"), available, "cannot be greater than readyReplicas");
}

bool strings_have(const struct strings *l, struct str s)
{
	return among(s, l->v, l->n);
}

/* ---- resources ---- */

bool resource_native(struct str name)
{
	return str_index(name, '/') < 0 || str_contains(name, STR("kubernetes.io/"));
}

bool resource_hugepages(struct str name)
{
	return str_has_prefix(name, STR("hugepages-"));
}

bool resource_extended(struct str name, struct arena *a)
{
	return !resource_native(name) && !str_has_prefix(name, STR("requests.")) &&
	       !validate_qualified_name(a, arena_printf(a, "requests.%.*s", STR_ARG(name)));
}

bool resource_overcommit(struct str name)
{
	return resource_native(name) && !resource_hugepages(name);
}

static bool listed(struct str name, const char *const *list)
{
	for (; *list; list++)
		if (str_eqz(name, *list))
			return true;
	return false;
}

#define QUOTA_RESOURCES                                                                                                          \
	"cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage", "requests.ephemeral-storage", \
		"limits.cpu", "limits.memory", "limits.ephemeral-storage", COUNTED

#define COUNTED                                                                                                             \
	"pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims", \
		"services.nodeports", "services.loadbalancers"

static const char *const counted[] = {COUNTED, NULL}, *const quota_resources[] = {QUOTA_RESOURCES, NULL};

bool resource_standard_quota(struct str name)
{
	return listed(name, quota_resources) || resource_hugepages(name) || str_has_prefix(name, STR("requests.hugepages-"));
}

void rule_resource_name(struct field_errors *e, const struct field_path *p, struct str name)
{
	if (field_check(e, p, name, validate_qualified_name))
		return;
	if (str_index(name, '/') < 0 && !resource_standard_quota(name) && !str_eqz(name, "storage"))
		field_invalid(e, p, name, "must be a standard resource type or fully qualified");
}

void rule_container_resource_name(struct field_errors *e, const struct field_path *p, struct str name)
{
	rule_resource_name(e, p, name);
	if (str_index(name, '/') < 0) {
		if (!str_eqz(name, "cpu") && !str_eqz(name, "memory") && !str_eqz(name, "ephemeral-storage") && !resource_hugepages(name))
			field_invalid(e, p, name, "must be a standard resource for containers");
	} else if (!resource_native(name) && !resource_extended(name, e->arena)) {
		field_invalid(e, p, name, "doesn't follow extended resource name standard");
	}
}

void rule_quota_resource_name(struct field_errors *e, const struct field_path *p, struct str name)
{
	rule_resource_name(e, p, name);
	if (str_index(name, '/') < 0 && !resource_standard_quota(name))
		field_invalid(e, p, name, "must be a standard resource for quota");
}

void rule_quantity(struct field_errors *e, const struct field_path *p, struct str name, struct str q)
{
	if (quantity_cmp(q, STR("0")) < 0)
		field_invalid(e, p, q, "must be greater than or equal to 0");
	if ((listed(name, counted) || resource_extended(name, e->arena)) && !quantity_whole(q))
		field_invalid(e, p, q, "must be an integer");
}

/* ---- selectors of nodes ---- */

static void node_requirement(struct field_errors *e, const struct field_path *p, const struct core_v1_node_selector_requirement *r, bool lax)
{
	if (str_eqz(r->operator, "In") || str_eqz(r->operator, "NotIn")) {
		if (!r->values.n)
			field_required(e, AT(p, "values"), "must be specified when `operator` is 'In' or 'NotIn'");
	} else if (str_eqz(r->operator, "Exists") || str_eqz(r->operator, "DoesNotExist")) {
		if (r->values.n)
			field_forbidden(e, AT(p, "values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
	} else if (str_eqz(r->operator, "Gt") || str_eqz(r->operator, "Lt")) {
		if (r->values.n != 1)
			field_required(e, AT(p, "values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
	} else {
		field_invalid(e, AT(p, "operator"), r->operator, "not a valid selector operator");
	}
	field_check(e, AT(p, "key"), r->key, validate_qualified_name);
	for (uint32_t i = 0; i < r->values.n && !lax; i++)
		field_check(e, EL(AT(p, "values"), i), r->values.v[i], validate_label_value);
}

void rule_node_selector_term(struct field_errors *e, const struct field_path *p, const struct core_v1_node_selector_term *t, bool lax)
{
	for (uint32_t i = 0; i < t->match_expressions.n; i++)
		node_requirement(e, EL(AT(p, "matchExpressions"), i), &t->match_expressions.v[i], lax);
	for (uint32_t i = 0; i < t->match_fields.n; i++) {
		const struct core_v1_node_selector_requirement *r = &t->match_fields.v[i];
		const struct field_path *at = EL(AT(p, "matchFields"), i);

		if (!str_eqz(r->operator, "In") && !str_eqz(r->operator, "NotIn"))
			field_invalid(e, AT(at, "operator"), r->operator, "not a valid selector operator");
		else if (r->values.n != 1)
			field_required(e, AT(at, "values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
		if (!str_eqz(r->key, "metadata.name"))
			field_invalid(e, AT(at, "key"), r->key, "not a valid field selector key");
		for (uint32_t k = 0; k < r->values.n && str_eqz(r->key, "metadata.name"); k++)
			field_check(e, EL(AT(at, "values"), k), r->values.v[k], validate_dns1123_subdomain);
	}
}

void rule_node_selector(struct field_errors *e, const struct field_path *p, const struct core_v1_node_selector *s, bool lax)
{
	const struct field_path *terms = AT(p, "nodeSelectorTerms");

	if (!s->node_selector_terms.n)
		field_required(e, terms, "must have at least one node selector term");
	for (uint32_t i = 0; i < s->node_selector_terms.n; i++)
		rule_node_selector_term(e, EL(terms, i), &s->node_selector_terms.v[i], lax);
}

bool node_selector_has_bad_values(const struct core_v1_node_selector *s, struct arena *a)
{
	for (uint32_t i = 0; s && i < s->node_selector_terms.n; i++) {
		const struct core_v1_node_selector_term *t = &s->node_selector_terms.v[i];

		for (uint32_t k = 0; k < t->match_expressions.n; k++)
			for (uint32_t v = 0; v < t->match_expressions.v[k].values.n; v++)
				if (validate_label_value(a, t->match_expressions.v[k].values.v[v]))
					return true;
	}
	return false;
}

/* Whether for each key of a, its last values are those of b's last of that key, in any order. */
static bool topology_within(const struct core_v1_topology_selector_term *a, const struct core_v1_topology_selector_term *b)
{
	for (uint32_t i = 0; i < a->match_label_expressions.n; i++) {
		const struct core_v1_topology_selector_label_requirement *x = &a->match_label_expressions.v[i], *y = NULL;
		bool last = true;

		for (uint32_t k = i + 1; k < a->match_label_expressions.n; k++)
			last &= !str_eq(a->match_label_expressions.v[k].key, x->key);
		if (!last)
			continue;
		for (uint32_t k = 0; k < b->match_label_expressions.n; k++)
			if (str_eq(b->match_label_expressions.v[k].key, x->key))
				y = &b->match_label_expressions.v[k];
		if (!y)
			return false;
		for (uint32_t k = 0; k < x->values.n; k++)
			if (!among(x->values.v[k], y->values.v, y->values.n))
				return false;
		for (uint32_t k = 0; k < y->values.n; k++)
			if (!among(y->values.v[k], x->values.v, x->values.n))
				return false;
	}
	return true;
}

void rule_topology_terms(struct field_errors *e, const struct field_path *p, const struct core_v1_topology_selector_term *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *exprs = AT(EL(p, i), "matchLabelExpressions");

		for (uint32_t k = 0; k < t[i].match_label_expressions.n; k++) {
			const struct core_v1_topology_selector_label_requirement *r = &t[i].match_label_expressions.v[k];
			const struct field_path *at = EL(exprs, k), *values = AT(at, "values");

			if (!r->values.n)
				field_required(e, values, "");
			for (uint32_t v = 0; v < r->values.n; v++)
				if (among(r->values.v[v], r->values.v, v))
					field_duplicate(e, EL(values, v), r->values.v[v]);
			field_check(e, AT(at, "key"), r->key, validate_qualified_name);
			for (uint32_t j = 0; j < k; j++)
				if (str_eq(t[i].match_label_expressions.v[j].key, r->key)) {
					field_duplicate(e, AT(at, "key"), r->key);
					break;
				}
		}
		/* upstream compares with as many that have no expressions as there are terms, too */
		for (uint32_t k = 0; k < n && !t[i].match_label_expressions.n; k++)
			field_duplicate_raw(e, AT(EL(p, i), "matchLabelExpressions"), STR("\"\""), "");
		for (uint32_t k = 0; k < i; k++)
			if (topology_within(&t[i], &t[k]) && topology_within(&t[k], &t[i]))
				field_duplicate_raw(e, AT(EL(p, i), "matchLabelExpressions"), STR("\"\""), "");
	}
}

static void taint_effect(struct field_errors *e, const struct field_path *p, struct str effect)
{
	field_one_of(e, p, effect, "NoSchedule,PreferNoSchedule,NoExecute");
}

void rule_taints(struct field_errors *e, const struct field_path *p, const struct core_v1_taint *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *at = EL(p, i);
		const char *m = validate_label_value(e->arena, t[i].value);

		field_check(e, AT(at, "key"), t[i].key, validate_qualified_name);
		if (m)
			field_invalid(e, AT(at, "value"), t[i].value, "%s", m);
		if (!t[i].effect.n)
			field_required(e, AT(at, "effect"), "");
		else
			taint_effect(e, AT(at, "effect"), t[i].effect);
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(t[k].key, t[i].key) && str_eq(t[k].effect, t[i].effect)) {
				struct buf b buf_cleanup = {0};

				json_encode(&b, &core_v1_taint_type, &t[i]);
				field_duplicate_raw(e, at, arena_str(e->arena, buf_view(&b)), "taints must be unique by key and effect pair");
				break;
			}
	}
}

static bool canonical_integer(struct str v)
{
	size_t i = v.n && v.p[0] == '-';

	if (v.n == i || (v.p[i] == '0' && v.n > 1))
		return false;
	for (; i < v.n; i++)
		if (v.p[i] < '0' || v.p[i] > '9')
			return false;
	return true;
}

void rule_tolerations(struct field_errors *e, const struct field_path *p, const struct core_v1_toleration *t, uint32_t n, bool comparison)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *at = EL(p, i), *op = AT(at, "operator");
		struct str o = t[i].operator, v = t[i].value;
		int64_t number;

		if (t[i].key.n)
			field_check(e, AT(at, "key"), t[i].key, validate_qualified_name);
		if (!t[i].key.n && !str_eqz(o, "Exists"))
			field_invalid(e, op, o, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
		if (t[i].toleration_seconds && !str_eqz(t[i].effect, "NoExecute"))
			field_invalid(e, AT(at, "effect"), t[i].effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
		if (!o.n || str_eqz(o, "Equal")) {
			const char *m = validate_label_value(e->arena, v);

			if (m)
				field_invalid(e, op, v, "%s", m);
		} else if (str_eqz(o, "Exists")) {
			if (v.n)
				field_invalid(e, op, v, "value must be empty when `operator` is 'Exists'");
		} else if (str_eqz(o, "Lt") || str_eqz(o, "Gt")) {
			if (!comparison) {
				field_unsupported(e, op, o, "Equal,Exists,Lt,Gt");
			} else {
				if (!canonical_integer(v))
					field_invalid(e, AT(at, "value"), v, v.n ? "must be a valid decimal integer in canonical form" : "must be non-empty");
				if (!str_to_i64(v, &number))
					field_invalid(e, AT(at, "value"), v, "strconv.ParseInt: parsing \"%.*s\": invalid syntax", STR_ARG(v));
			}
		} else {
			field_unsupported(e, op, o, "Equal,Exists");
		}
		if (t[i].effect.n)
			taint_effect(e, AT(at, "effect"), t[i].effect);
	}
}
