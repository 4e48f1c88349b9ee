/* Rules of resource.k8s.io: claims, classes, slices. */
#include "apiserver/expressions.h"
#include "apiserver/validate_kinds.h"
#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

enum {
	REQUESTS_MAX = 32,
	CONSTRAINTS_MAX = 32,
	CONFIG_MAX = 32,
	SELECTORS_MAX = 32,
	FIRST_AVAILABLE_MAX = 8,
	EXPRESSION_BYTES = 10 << 10,
	SELECTOR_COST_MAX = 1000000,
	PARAMETERS_BYTES = 10 << 10,
	ID_BYTES = 32,
	POOL_NAME_BYTES = 253,
	VALUE_BYTES = 64,
	DEVICES_MAX = 128,
	DEVICES_MAX_ADVANCED = 64,
	COUNTER_SETS_MAX = 8,
	COUNTERS_MAX = 32,
	COUNTER_USES_MAX = 2,
	ATTRIBUTES_MAX = 32,
	ATTRIBUTE_VALUES_MAX = 48,
	TAINTS_MAX = 16,
	POLICY_VALUES_MAX = 10,
	KEY_BYTES = 63 + 1 + 32,
	INTERFACE_NAME_BYTES = 256,
	HARDWARE_ADDRESS_BYTES = 128,
	DEVICE_IPS_MAX = 16,
	BINDING_CONDITIONS_MAX = 4,
	RESERVED_MAX = 256,
	RESULTS_MAX = 32,
	STATUS_CONDITIONS_MAX = 8,
};

/* ---- names and values ---- */

/* Whether there are few enough; else that is all that is said of them. */
static bool few(struct field_errors *e, const struct field_path *p, uint32_t n, uint32_t max)
{
	if (n > max)
		field_too_many(e, p, n, max);
	return n <= max;
}

/* An error for each element whose key was there before. */
#define UNIQUE(e, p, l, key)                                                                  \
	do {                                                                                  \
		for (uint32_t i_ = 0; i_ < (l).n; i_++)                                       \
			for (uint32_t k_ = 0; k_ < i_; k_++)                                  \
				if (str_eq((l).v[k_] key, (l).v[i_] key)) {                   \
					field_duplicate((e), EL((p), i_), (l).v[i_] key);     \
					break;                                                \
				}                                                             \
	} while (0)

static void identifier(struct field_errors *e, const struct field_path *p, struct str id)
{
	if (id.n > ID_BYTES)
		field_too_long(e, p, ID_BYTES);
	field_check(e, p, id, validate_c_identifier);
}

/* A name, perhaps behind a domain and a slash. */
static void qualified(struct field_errors *e, const struct field_path *p, struct str name)
{
	ptrdiff_t slash = str_index(name, '/');

	if (slash < 0) {
		identifier(e, p, name);
	} else if (slash == str_rindex(name, '/')) {
		struct str domain = str_sub(name, 0, (size_t)slash), id = str_sub(name, (size_t)slash + 1, name.n);

		if (!domain.n)
			field_invalid(e, p, STR(""), "the domain must not be empty");
		else
			rule_csi_driver_name(e, p, domain);
		if (!id.n)
			field_invalid(e, p, STR(""), "the name must not be empty");
		else
			identifier(e, p, id);
	}
}

static void fully_qualified(struct field_errors *e, const struct field_path *p, struct str name)
{
	qualified(e, p, name);
	if (str_index(name, '/') < 0)
		field_invalid(e, p, name, "a fully qualified name must be a domain and a name separated by a slash");
}

static void pool_name(struct field_errors *e, const struct field_path *p, struct str name)
{
	if (!name.n) {
		field_required(e, p, "");
		return;
	}
	if (name.n > POOL_NAME_BYTES)
		field_too_long(e, p, POOL_NAME_BYTES);
	for (size_t from = 0, i = 0; i <= name.n; i++) {
		if (i < name.n && name.p[i] != '/')
			continue;
		field_check(e, p, str_sub(name, from, i), validate_dns1123_subdomain);
		from = i + 1;
	}
}

static void object_data(struct field_errors *e, const struct field_path *p, struct str raw, bool stored)
{
	if (!raw.n || str_eqz(raw, "null"))
		field_required(e, p, "");
	else if (!stored && raw.n > PARAMETERS_BYTES)
		field_too_long(e, p, PARAMETERS_BYTES);
	else if (raw.p[0] != '{')
		field_invalid(e, p, STR("<value omitted>"), "must be a valid JSON object");
}

static const char taint_effects[] = "NoExecute,NoSchedule,None";

static void device_taint(struct field_errors *e, const struct field_path *p, const struct resource_v1_device_taint *t)
{
	field_check(e, AT(p, "key"), t->key, validate_qualified_name);
	if (t->value.n)
		field_check(e, AT(p, "value"), t->value, validate_label_value);
	rule_enum(e, AT(p, "effect"), t->effect, taint_effects);
}

static void device_toleration(struct field_errors *e, const struct field_path *p, const struct resource_v1_device_toleration *t)
{
	if (t->key.n)
		field_check(e, AT(p, "key"), t->key, validate_qualified_name);
	if (str_eqz(t->operator, "Exists")) {
		if (t->value.n)
			field_invalid(e, AT(p, "value"), t->value, "must be empty for operator `Exists`");
	} else if (str_eqz(t->operator, "Equal")) {
		field_check(e, AT(p, "value"), t->value, validate_label_value);
	} else {
		rule_enum(e, AT(p, "operator"), t->operator, "Equal,Exists");
	}
	if (t->effect.n)
		field_one_of(e, AT(p, "effect"), t->effect, taint_effects);
}

/* The variable `device` of selectors (upstream's dynamic-resource-allocation/cel). */
static const struct cel_type quantity_type = {.kind = CEL_OBJECT, .name = STR_INIT("kubernetes.Quantity")};
static const struct cel_type domain_type = {.kind = CEL_STRING, .max_size = 63}; /* of drivers too */
static const struct cel_type id_type = {.kind = CEL_STRING, .max_size = 32};
static const struct cel_type value_type = {.kind = CEL_DYN, .max_size = 64};
static const struct cel_type attributes_inner = {.kind = CEL_MAP, .key = &id_type, .elem = &value_type, .max_size = ATTRIBUTES_MAX};
static const struct cel_type attributes_type = {.kind = CEL_MAP, .key = &domain_type, .elem = &attributes_inner, .max_size = ATTRIBUTES_MAX};
static const struct cel_type capacity_inner = {.kind = CEL_MAP, .key = &id_type, .elem = &quantity_type, .max_size = ATTRIBUTES_MAX};
static const struct cel_type capacity_type = {.kind = CEL_MAP, .key = &domain_type, .elem = &capacity_inner, .max_size = ATTRIBUTES_MAX};
static const struct cel_field device_fields[] = {
	{STR_INIT("allowMultipleAllocations"), STR_INIT("allowMultipleAllocations"), &cel_type_bool},
	{STR_INIT("attributes"), STR_INIT("attributes"), &attributes_type},
	{STR_INIT("capacity"), STR_INIT("capacity"), &capacity_type},
	{STR_INIT("driver"), STR_INIT("driver"), &domain_type},
};
static const struct cel_type device_type = {
	.kind = CEL_OBJECT, .name = STR_INIT("kubernetes.DRADevice"), .fields = device_fields, .n_fields = sizeof device_fields / sizeof *device_fields,
};

static void expression(struct field_errors *e, const struct field_path *p, struct str source)
{
	static const struct cel_var var = {STR_INIT("device"), &device_type};
	static const struct cel_type *const returns[] = {&cel_type_bool, &cel_type_dyn};
	const struct cel_env env = {.vars = &var, .n_vars = 1, .sizes = &device_type};
	struct cel_program *program = NULL;
	struct str problem = {0};

	if (!program_compile(e->arena, &env, source, returns, 2, true, &program, &problem))
		expression_wrong(e, p, source, problem);
	else if (cel_program_cost(program).max > SELECTOR_COST_MAX)
		field_forbidden(e, p, "too complex, exceeds cost limit");
	cel_program_free(program);
}

static void selectors(struct field_errors *e, const struct field_path *p, const struct resource_v1_device_selector *s, uint32_t n)
{
	if (!few(e, p, n, SELECTORS_MAX))
		return;
	for (uint32_t i = 0; i < n; i++) {
		if (!s[i].cel)
			field_required(e, AT(EL(p, i), "cel"), "");
		else if (s[i].cel->expression.n > EXPRESSION_BYTES)
			field_too_long(e, AT(AT(EL(p, i), "cel"), "expression"), EXPRESSION_BYTES);
		else
			expression(e, AT(AT(EL(p, i), "cel"), "expression"), s[i].cel->expression);
	}
}

static void configuration(struct field_errors *e, const struct field_path *p, const struct resource_v1_device_configuration *c, bool stored)
{
	if (!c->opaque) {
		field_required(e, AT(p, "opaque"), "");
		return;
	}
	rule_csi_driver_name(e, AT(AT(p, "opaque"), "driver"), c->opaque->driver);
	object_data(e, AT(AT(p, "opaque"), "parameters"), c->opaque->parameters, stored);
}

/* ---- claims ---- */

static void allocation(struct field_errors *e, const struct field_path *p, struct str mode, int64_t count)
{
	if (str_eqz(mode, "All")) {
		if (count)
			field_invalid_int(e, AT(p, "count"), count, "must not be specified when allocationMode is 'All'");
	} else if (str_eqz(mode, "ExactCount")) {
		if (count <= 0)
			field_invalid_int(e, AT(p, "count"), count, "must be greater than zero");
	} else {
		field_unsupported(e, AT(p, "allocationMode"), mode, "All,ExactCount");
	}
}

/* What requests one by one and their alternatives have in common. */
#define REQUEST(e, p, r)                                                                                   \
	do {                                                                                               \
		rule_name((e), AT((p), "deviceClassName"), (r)->device_class_name, validate_dns1123_subdomain); \
		selectors((e), AT((p), "selectors"), (r)->selectors.v, (r)->selectors.n);                  \
		allocation((e), (p), (r)->allocation_mode, (r)->count);                                    \
		for (uint32_t t_ = 0; t_ < (r)->tolerations.n; t_++)                                       \
			device_toleration((e), EL(AT((p), "tolerations"), t_), &(r)->tolerations.v[t_]);   \
	} while (0)

static void device_request(struct field_errors *e, const struct field_path *p, const struct resource_v1_device_request *r)
{
	const struct field_path *first = AT(p, "firstAvailable");

	field_check(e, AT(p, "name"), r->name, validate_dns1123_label);
	if (!r->exactly && !r->first_available.n) {
		field_required(e, p, "exactly one of `exactly` or `firstAvailable` is required");
	} else if (r->exactly && r->first_available.n) {
		field_invalid_raw(e, p, STR("null"), "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set");
	} else if (r->exactly) {
		REQUEST(e, AT(p, "exactly"), r->exactly);
	} else if (few(e, first, r->first_available.n, FIRST_AVAILABLE_MAX)) {
		for (uint32_t i = 0; i < r->first_available.n; i++) {
			field_check(e, AT(EL(first, i), "name"), r->first_available.v[i].name, validate_dns1123_label);
			REQUEST(e, EL(first, i), &r->first_available.v[i]);
		}
		UNIQUE(e, first, r->first_available, .name);
	}
}

static bool has_request(const struct resource_v1_device_claim *c, struct str name)
{
	ptrdiff_t slash = str_index(name, '/');
	struct str main = slash < 0 ? name : str_sub(name, 0, (size_t)slash);

	for (uint32_t i = 0; i < c->requests.n; i++) {
		const struct resource_v1_device_request *r = &c->requests.v[i];

		if (!str_eq(r->name, main))
			continue;
		if (slash < 0)
			return true;
		for (uint32_t k = 0; k < r->first_available.n; k++)
			if (str_eq(r->first_available.v[k].name, str_sub(name, (size_t)slash + 1, name.n)))
				return true;
	}
	return false;
}

static void request_reference(struct field_errors *e, const struct field_path *p, struct str name, const struct resource_v1_device_claim *c)
{
	static const char text[] = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
	ptrdiff_t slash = str_index(name, '/');

	if (slash != str_rindex(name, '/')) {
		field_invalid(e, p, name, text);
		return;
	}
	field_check(e, p, slash < 0 ? name : str_sub(name, 0, (size_t)slash), validate_dns1123_label);
	if (slash >= 0)
		field_check(e, p, str_sub(name, (size_t)slash + 1, name.n), validate_dns1123_label);
	if (!has_request(c, name))
		field_invalid(e, p, name, text);
}

static void request_references(struct field_errors *e, const struct field_path *p, const struct strings *l, const struct resource_v1_device_claim *c)
{
	if (!few(e, p, l->n, REQUESTS_MAX))
		return;
	for (uint32_t i = 0; i < l->n; i++)
		request_reference(e, EL(p, i), l->v[i], c);
	UNIQUE(e, p, *l, );
}

static void claim_rules(struct field_errors *e, const struct field_path *spec, const struct resource_v1_device_claim *c)
{
	const struct field_path *p = AT(spec, "devices"), *requests = AT(p, "requests"), *constraints = AT(p, "constraints"), *config = AT(p, "config");

	if (few(e, requests, c->requests.n, REQUESTS_MAX)) {
		for (uint32_t i = 0; i < c->requests.n; i++)
			device_request(e, EL(requests, i), &c->requests.v[i]);
		UNIQUE(e, requests, c->requests, .name);
	}
	if (few(e, constraints, c->constraints.n, CONSTRAINTS_MAX))
		for (uint32_t i = 0; i < c->constraints.n; i++) {
			const struct resource_v1_device_constraint *k = &c->constraints.v[i];
			const struct field_path *at = EL(constraints, i);

			request_references(e, AT(at, "requests"), (const struct strings *)&k->requests, c);
			if (k->match_attribute)
				fully_qualified(e, AT(at, "matchAttribute"), *k->match_attribute);
			else if (k->distinct_attribute)
				fully_qualified(e, AT(at, "distinctAttribute"), *k->distinct_attribute);
			else
				field_required(e, at, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set");
		}
	if (few(e, config, c->config.n, CONFIG_MAX))
		for (uint32_t i = 0; i < c->config.n; i++) {
			request_references(e, AT(EL(config, i), "requests"), (const struct strings *)&c->config.v[i].requests, c);
			configuration(e, EL(config, i), &c->config.v[i].device_configuration, false);
		}
}

/* KEP-5018: devices are seen through only from namespaces that are marked for it. */
static void marked_for_admin(struct request *rq, struct field_errors *e, const struct field_path *p)
{
	const struct core_v1_namespace *ns;

	ns = registry_peek(rq->s, e->arena, storage_find(rq->s, STR(""), STR("namespaces")), STR_NULL, rq->info.ns);
	if (!ns)
		field_internal(e, p, "could not retrieve namespace to verify admin access: namespaces \"%.*s\" not found", STR_ARG(rq->info.ns));
	else if (!str_eqz(str_map_get(API_MAP(&ns->metadata.labels), STR("resource.kubernetes.io/admin-access")), "true"))
		field_forbidden(e, p, "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace");
}

static void admin_access(struct request *rq, struct field_errors *e, const struct resource_v1_device_claim *c)
{
	for (uint32_t i = 0; i < c->requests.n; i++)
		if (c->requests.v[i].exactly && is_true(c->requests.v[i].exactly->admin_access)) {
			marked_for_admin(rq, e, AT(EL(AT(AT(FIELD_ROOT("spec"), "devices"), "requests"), i), "adminAccess"));
			return;
		}
}

/* The first result with admin access; n when there is none. */
static uint32_t admin_result(const struct resource_v1_allocation_result *a)
{
	uint32_t i = 0;

	while (a && i < a->devices.results.n && !is_true(a->devices.results.v[i].admin_access))
		i++;
	return i;
}

static void admin_access_granted(struct request *rq, struct field_errors *e, const struct resource_v1_allocation_result *a,
				 const struct resource_v1_allocation_result *was)
{
	uint32_t i = admin_result(a);

	if (a && i < a->devices.results.n && (!was || admin_result(was) == was->devices.results.n))
		marked_for_admin(rq, e, AT(EL(AT(AT(AT(FIELD_ROOT("status"), "allocation"), "devices"), "results"), i), "adminAccess"));
}

void claim_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct resource_v1_resource_claim *c = obj;

	admin_access(rq, e, &c->spec.devices);
	validate_object_meta(e, &c->metadata, true, NULL, FIELD_ROOT("metadata"), true);
	claim_rules(e, FIELD_ROOT("spec"), &c->spec.devices);
}

void claim_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	rule_immutable(e, FIELD_ROOT("spec"), &resource_v1_resource_claim_type, obj, old, "spec");
}

static void binding_conditions(struct field_errors *e, const struct field_path *p, const struct strings *on, const struct strings *off)
{
	const struct field_path *a = AT(p, "bindingConditions"), *b = AT(p, "bindingFailureConditions");

	if (few(e, a, on->n, BINDING_CONDITIONS_MAX))
		for (uint32_t i = 0; i < on->n; i++)
			field_check(e, EL(a, i), on->v[i], validate_qualified_name);
	if (few(e, b, off->n, BINDING_CONDITIONS_MAX))
		for (uint32_t i = 0; i < off->n; i++)
			field_check(e, EL(b, i), off->v[i], validate_qualified_name);
	UNIQUE(e, a, *on, );
	UNIQUE(e, b, *off, );
	for (uint32_t i = 0; i < off->n; i++)
		if (strings_have(on, off->v[i]))
			field_invalid(e, EL(b, i), off->v[i], "bindingFailureConditions must not overlap with bindingConditions");
	if (!on->n && off->n)
		field_invalid_list(e, a, on, "bindingConditions are required to use bindingFailureConditions");
	if (!off->n && on->n)
		field_invalid_list(e, b, off, "bindingFailureConditions are required to use bindingConditions");
}

static bool is_uid(struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23, hex = (s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f');

		if (dash ? s.p[i] != '-' : !hex)
			return false;
	}
	return s.n == 36;
}

static void share_id(struct field_errors *e, const struct field_path *p, const struct str *id)
{
	if (id && !is_uid(*id))
		field_invalid(e, p, *id, "error validating uid: it must be in RFC 4122 normalized form, "
			      "`xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters");
}

static void allocation_result(struct field_errors *e, const struct field_path *p, const struct resource_v1_allocation_result *a,
			      const struct resource_v1_device_claim *c)
{
	const struct field_path *devices = AT(p, "devices"), *results = AT(devices, "results"), *config = AT(devices, "config");

	if (few(e, results, a->devices.results.n, RESULTS_MAX))
		for (uint32_t i = 0; i < a->devices.results.n; i++) {
			const struct resource_v1_device_request_allocation_result *r = &a->devices.results.v[i];
			const struct field_path *at = EL(results, i);

			request_reference(e, AT(at, "request"), r->request, c);
			rule_csi_driver_name(e, AT(at, "driver"), r->driver);
			pool_name(e, AT(at, "pool"), r->pool);
			field_check(e, AT(at, "device"), r->device, validate_dns1123_label);
			binding_conditions(e, at, (const struct strings *)&r->binding_conditions,
					   (const struct strings *)&r->binding_failure_conditions);
			share_id(e, AT(at, "shareID"), r->share_id);
		}
	if (few(e, config, a->devices.config.n, 2 * CONFIG_MAX))
		for (uint32_t i = 0; i < a->devices.config.n; i++) {
			const struct resource_v1_device_allocation_configuration *k = &a->devices.config.v[i];

			rule_enum(e, AT(EL(config, i), "source"), k->source, "FromClaim,FromClass");
			request_references(e, AT(EL(config, i), "requests"), (const struct strings *)&k->requests, c);
			configuration(e, EL(config, i), &k->device_configuration, false);
		}
	if (a->node_selector)
		rule_node_selector(e, AT(p, "nodeSelector"), a->node_selector, false);
}

static bool allocated(const struct resource_v1_allocation_result *a, const struct resource_v1_allocated_device_status *d)
{
	for (uint32_t i = 0; a && i < a->devices.results.n; i++) {
		const struct resource_v1_device_request_allocation_result *r = &a->devices.results.v[i];

		if (str_eq(r->driver, d->driver) && str_eq(r->pool, d->pool) && str_eq(r->device, d->device) &&
		    !r->share_id == !d->share_id && (!r->share_id || str_eq(*r->share_id, *d->share_id)))
			return true;
	}
	return false;
}

static void network_data(struct field_errors *e, const struct field_path *p, const struct resource_v1_network_device_data *d)
{
	const struct field_path *ips = AT(p, "ips");

	if (d->interface_name.n > INTERFACE_NAME_BYTES)
		field_too_long(e, AT(p, "interfaceName"), INTERFACE_NAME_BYTES);
	if (d->hardware_address.n > HARDWARE_ADDRESS_BYTES)
		field_too_long(e, AT(p, "hardwareAddress"), HARDWARE_ADDRESS_BYTES);
	if (!few(e, ips, d->ips.n, DEVICE_IPS_MAX))
		return;
	for (uint32_t i = 0; i < d->ips.n; i++)
		field_check(e, EL(ips, i), d->ips.v[i], validate_interface_address);
	UNIQUE(e, ips, d->ips, );
}

void claim_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct resource_v1_resource_claim *c = obj, *o = old;
	const struct resource_v1_resource_claim_status *s = &c->status;
	const struct field_path *status = FIELD_ROOT("status"), *reserved = AT(status, "reservedFor"), *devices = AT(status, "devices");

	(void)sub;
	admin_access_granted(rq, e, s->allocation, o->status.allocation);
	claim_authorize_status(rq, c, o, e);
	if (few(e, reserved, s->reserved_for.n, RESERVED_MAX)) {
		for (uint32_t i = 0; i < s->reserved_for.n; i++) {
			rule_required(e, AT(EL(reserved, i), "resource"), s->reserved_for.v[i].resource);
			rule_required(e, AT(EL(reserved, i), "name"), s->reserved_for.v[i].name);
			rule_required(e, AT(EL(reserved, i), "uid"), s->reserved_for.v[i].uid);
		}
		UNIQUE(e, reserved, s->reserved_for, .uid);
	}
	for (uint32_t i = 0; i < s->devices.n; i++) {
		const struct resource_v1_allocated_device_status *d = &s->devices.v[i];
		const struct field_path *at = EL(devices, i);

		rule_csi_driver_name(e, AT(at, "driver"), d->driver);
		pool_name(e, AT(at, "pool"), d->pool);
		field_check(e, AT(at, "device"), d->device, validate_dns1123_label);
		share_id(e, AT(at, "shareID"), d->share_id);
		for (uint32_t k = 0; k < i; k++) {
			const struct resource_v1_allocated_device_status *was = &s->devices.v[k];

			if (!str_eq(was->driver, d->driver) || !str_eq(was->pool, d->pool) || !str_eq(was->device, d->device) ||
			    !was->share_id != !d->share_id || (d->share_id && !str_eq(*was->share_id, *d->share_id)))
				continue;
			field_duplicate_raw(e, at, STR("{}"), "");
			break;
		}
		if (!allocated(s->allocation, d))
			field_invalid_raw(e, at, STR("{}"), "must be an allocated device in the claim");
		few(e, AT(at, "conditions"), d->conditions.n, STATUS_CONDITIONS_MAX);
		rule_conditions(e, AT(at, "conditions"), d->conditions.v, d->conditions.n);
		if (d->data && d->data->n)
			object_data(e, AT(at, "data"), *d->data, false);
		if (d->network_data)
			network_data(e, AT(at, "networkData"), d->network_data);
	}
	if (s->reserved_for.n && !s->allocation)
		field_forbidden(e, reserved, "may not be specified when `allocated` is not set");
	for (uint32_t i = 0; c->metadata.deletion_timestamp && s->allocation && i < s->reserved_for.n; i++) {
		bool was = false;

		for (uint32_t k = 0; k < o->status.reserved_for.n; k++)
			was |= object_equal(&resource_v1_resource_claim_consumer_reference_type, &s->reserved_for.v[i], &o->status.reserved_for.v[k]);
		if (was)
			continue;
		field_forbidden(e, reserved, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set");
		break;
	}
	if (s->allocation && o->status.allocation)
		rule_immutable(e, AT(status, "allocation"), &resource_v1_resource_claim_status_type, s, &o->status, "allocation");
	else if (s->allocation)
		allocation_result(e, AT(status, "allocation"), s->allocation, &c->spec.devices);
}

static void claimtemplate_rules(struct field_errors *e, const struct resource_v1_resource_claim_template *t)
{
	validate_object_meta(e, &t->metadata, true, NULL, FIELD_ROOT("metadata"), true);
	rule_template_meta(e, AT(FIELD_ROOT("spec"), "metadata"), &t->spec.metadata);
	claim_rules(e, AT(FIELD_ROOT("spec"), "spec"), &t->spec.spec.devices);
}

void claimtemplate_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct resource_v1_resource_claim_template *t = obj;

	admin_access(rq, e, &t->spec.spec.devices);
	claimtemplate_rules(e, t);
}

void claimtemplate_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct resource_v1_resource_claim_template *t = obj, *o = old;

	(void)rq;
	claimtemplate_rules(e, t);
	validate_object_meta_update(e, &t->metadata, &o->metadata, FIELD_ROOT("metadata"), true);
	rule_immutable(e, FIELD_ROOT("spec"), &resource_v1_resource_claim_template_type, obj, old, "spec");
}

/* ---- classes ---- */

static void class_rules(struct field_errors *e, const struct resource_v1_device_class_spec *s, const struct resource_v1_device_class_spec *o)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *config = AT(spec, "config");
	bool stored = o && object_field_equal(&resource_v1_device_class_spec_type, s, o, "config");

	selectors(e, AT(spec, "selectors"), s->selectors.v, s->selectors.n);
	if (few(e, config, s->config.n, CONFIG_MAX))
		for (uint32_t i = 0; i < s->config.n; i++)
			configuration(e, EL(config, i), &s->config.v[i].device_configuration, stored);
	if (s->extended_resource_name && !resource_extended(*s->extended_resource_name, e->arena))
		field_invalid(e, AT(spec, "extendedResourceName"), *s->extended_resource_name, "must be a valid extended resource name");
}

void deviceclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct resource_v1_device_class *c = obj;

	(void)rq;
	class_rules(e, &c->spec, NULL);
}

void deviceclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct resource_v1_device_class *c = obj, *o = old;

	(void)rq;
	class_rules(e, &c->spec, &o->spec);
}

/* ---- slices ---- */

static bool numeric_id(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return s.n && (s.n == 1 || s.p[0] != '0');
}

/* Dotted identifiers of letters, digits and dashes; `number`: one of digits only has no zero in front. */
static bool identifiers(struct str s, bool number)
{
	for (size_t from = 0, i = 0; i <= s.n; i++) {
		struct str id;
		bool digits = true;

		if (i < s.n && s.p[i] != '.')
			continue;
		id = str_sub(s, from, i);
		from = i + 1;
		if (!id.n)
			return false;
		for (size_t k = 0; k < id.n; k++) {
			char c = id.p[k];

			digits &= c >= '0' && c <= '9';
			if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-'))
				return false;
		}
		if (number && digits && !numeric_id(id))
			return false;
	}
	return true;
}

/* semver.org 2.0.0 */
static bool semantic_version(struct str v)
{
	ptrdiff_t plus = str_index(v, '+'), dash;
	struct str core = plus < 0 ? v : str_sub(v, 0, (size_t)plus);
	int dots = 0;

	if (plus >= 0 && !identifiers(str_sub(v, (size_t)plus + 1, v.n), false))
		return false;
	dash = str_index(core, '-');
	if (dash >= 0 && !identifiers(str_sub(core, (size_t)dash + 1, core.n), true))
		return false;
	if (dash >= 0)
		core = str_sub(core, 0, (size_t)dash);
	for (size_t from = 0, i = 0; i <= core.n; i++) {
		if (i < core.n && core.p[i] != '.')
			continue;
		if (!numeric_id(str_sub(core, from, i)))
			return false;
		from = i + 1;
		dots += i < core.n;
	}
	return dots == 2;
}

static void attribute_string(struct field_errors *e, const struct field_path *p, struct str s, bool version)
{
	if (version && !semantic_version(s))
		field_invalid(e, p, s, "must be a string compatible with semver.org spec 2.0.0");
	if (s.n > VALUE_BYTES)
		field_too_long(e, p, VALUE_BYTES);
}

static void attribute(struct field_errors *e, const struct field_path *p, const struct resource_v1_device_attribute *a)
{
	int n = !!a->bool_ + !!a->int_ + !!a->string + !!a->version + !!a->bools.v + !!a->ints.v + !!a->strings.v + !!a->versions.v;

	if (a->string)
		attribute_string(e, AT(p, "string"), *a->string, false);
	if (a->version)
		attribute_string(e, AT(p, "version"), *a->version, true);
	if (a->bools.v && !a->bools.n)
		field_invalid_raw(e, AT(p, "bools"), STR("[]"), "must not be empty if specified");
	if (a->ints.v && !a->ints.n)
		field_invalid_raw(e, AT(p, "ints"), STR("[]"), "must not be empty if specified");
	if (a->strings.v && !a->strings.n)
		field_invalid_raw(e, AT(p, "strings"), STR("[]"), "must not be empty if specified");
	for (uint32_t i = 0; i < a->strings.n; i++)
		attribute_string(e, EL(AT(p, "strings"), i), a->strings.v[i], false);
	if (a->versions.v && !a->versions.n)
		field_invalid_raw(e, AT(p, "versions"), STR("[]"), "must not be empty if specified");
	for (uint32_t i = 0; i < a->versions.n; i++)
		attribute_string(e, EL(AT(p, "versions"), i), a->versions.v[i], true);
	if (!n)
		field_invalid(e, p, STR(""), "exactly one value must be specified");
	else if (n > 1)
		field_invalid_obj(e, p, &resource_v1_device_attribute_type, a, "exactly one value must be specified");
}

#define COUNTERS(e, p, m)                                                                            \
	do {                                                                                         \
		if (!(m).n)                                                                          \
			field_required((e), (p), "");                                                \
		else if (few((e), (p), (m).n, COUNTERS_MAX))                                         \
			for (uint32_t c_ = 0; c_ < (m).n; c_++)                                      \
				field_check((e), (p), (m).v[c_].key, validate_dns1123_label);        \
	} while (0)

/* What names the nodes of a slice or device: one of them. Returns how many there are; `set` gets their names. */
static int nodes(struct field_errors *e, const struct field_path *p, const struct str *name, const struct core_v1_node_selector *selector,
		 const bool *all, const char *empty, const char *terms, struct str *set)
{
	int n = 0;

	if (name && name->n) {
		field_check(e, AT(p, "nodeName"), *name, validate_dns1123_subdomain);
		*set = STR("`nodeName`");
		n++;
	} else if (name) {
		field_invalid(e, AT(p, "nodeName"), STR(""), "%s", empty);
	}
	if (selector) {
		rule_node_selector(e, AT(p, "nodeSelector"), selector, false);
		if (terms && selector->node_selector_terms.n != 1)
			field_invalid_raw(e, AT(AT(p, "nodeSelector"), "nodeSelectorTerms"),
					  field_json(e->arena, &core_v1_node_selector_type, selector, STR("nodeSelectorTerms")), "%s", terms);
		*set = arena_printf(e->arena, "%.*s%s`nodeSelector`", STR_ARG(*set), n++ ? ", " : "");
	}
	if (all && *all)
		*set = arena_printf(e->arena, "%.*s%s`allNodes`", STR_ARG(*set), n++ ? ", " : "");
	else if (all)
		field_invalid_raw(e, AT(p, "allNodes"), STR("false"), "must be either unset or set to true");
	return n;
}

static void device_nodes(struct field_errors *e, const struct field_path *p, const struct resource_v1_device *d, bool each)
{
	static const char text[] = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true "
				   "in the ResourceSlice spec";
	struct str set = STR("");
	int n;

	if (!each) {
		if (d->node_name || d->node_selector || d->all_nodes)
			field_invalid_raw(e, p, STR("null"), "`nodeName`, `nodeSelector` and `allNodes` can only be set if "
					  "`perDeviceNodeSelection` is set to true in the ResourceSlice spec");
		return;
	}
	n = nodes(e, p, d->node_name, d->node_selector, d->all_nodes, "must not be empty", NULL, &set);
	if (!n)
		field_required(e, p, text);
	else if (n > 1)
		field_invalid(e, p, arena_printf(e->arena, "{%.*s}", STR_ARG(set)), text);
}

/* How much may be asked of a capacity of `max` that several share (KEP-5075). */
static void policy_values(struct field_errors *e, const struct field_path *p, const struct resource_v1_capacity_request_policy *r, struct str max)
{
	bool found = false;

	for (uint32_t i = 1; i < r->valid_values.n; i++)
		if (quantity_cmp(r->valid_values.v[i - 1], r->valid_values.v[i]) > 0)
			field_invalid(e, EL(p, i), r->valid_values.v[i], "values must be sorted in ascending order");
	if (few(e, p, r->valid_values.n, POLICY_VALUES_MAX)) {
		for (uint32_t i = 0; i < r->valid_values.n; i++) {
			if (quantity_cmp(r->valid_values.v[i], max) > 0)
				field_invalid(e, EL(p, i), r->valid_values.v[i], "option is larger than capacity value: %.*s", STR_ARG(max));
			found |= quantity_cmp(r->valid_values.v[i], *r->default_) == 0;
		}
		for (uint32_t i = 0; i < r->valid_values.n; i++)
			for (uint32_t k = 0; k < i; k++)
				if (quantity_cmp(r->valid_values.v[k], r->valid_values.v[i]) == 0) {
					field_duplicate(e, EL(p, i), r->valid_values.v[i]);
					break;
				}
	}
	if (!found)
		field_invalid(e, p, *r->default_, "default value is not valid according to the requestPolicy");
}

static void policy_step(struct field_errors *e, const struct field_path *p, struct str value, struct str min, struct str step)
{
	int64_t by = quantity_value(step);
	uint64_t over = (uint64_t)quantity_value(value) - (uint64_t)quantity_value(min);

	/* upstream divides by a step of 0 */
	if (!by || (int64_t)over % by)
		field_invalid(e, p, value, "value is not a multiple of a given step (%.*s) from (%.*s)", STR_ARG(step), STR_ARG(min));
}

static void policy_range(struct field_errors *e, const struct field_path *p, const struct resource_v1_capacity_request_policy_range *r,
			 struct str normal, struct str capacity)
{
	const struct field_path *min = AT(p, "min"), *max = AT(p, "max"), *step = AT(p, "step");

	if (!r->min) {
		field_required(e, min, "required when validRange is defined");
		return;
	}
	if (quantity_cmp(*r->min, capacity) > 0)
		field_invalid(e, min, *r->min, "min is larger than capacity value: %.*s", STR_ARG(capacity));
	if (quantity_cmp(normal, *r->min) < 0)
		field_invalid(e, min, normal, "default is less than min: %.*s", STR_ARG(*r->min));
	if (r->max && quantity_cmp(*r->min, *r->max) > 0)
		field_invalid(e, max, *r->min, "min is larger than max: %.*s", STR_ARG(*r->max));
	if (r->max && quantity_cmp(*r->max, capacity) > 0)
		field_invalid(e, max, *r->max, "max is larger than capacity value: %.*s", STR_ARG(capacity));
	if (r->max && quantity_cmp(normal, *r->max) > 0)
		field_invalid(e, max, normal, "default is more than max: %.*s", STR_ARG(*r->max));
	if (!r->step)
		return;
	if (quantity_cmp(quantity_add(e->arena, *r->min, *r->step), capacity) > 0)
		field_invalid(e, step, *r->step, "one step %.*s is larger than capacity value: %.*s",
			      STR_ARG(quantity_add(e->arena, *r->min, *r->step)), STR_ARG(capacity));
	policy_step(e, step, normal, *r->min, *r->step);
	if (r->max)
		policy_step(e, step, *r->max, *r->min, *r->step);
}

static void request_policy(struct field_errors *e, const struct field_path *p, const struct resource_v1_capacity_request_policy *r, struct str capacity,
			   bool shared)
{
	if (!shared)
		field_forbidden(e, p, "allowMultipleAllocations must be true");
	else if (r->valid_values.n && r->valid_range)
		field_forbidden(e, p, "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time");
	else if ((r->valid_values.n || r->valid_range) && !r->default_)
		field_required(e, AT(p, "default"), r->valid_range ? "required when validRange is defined" : "required when validValues is defined");
	else if (r->valid_values.n)
		policy_values(e, AT(p, "validValues"), r, capacity);
	else if (r->valid_range)
		policy_range(e, AT(p, "validRange"), r->valid_range, *r->default_, capacity);
}

/* As paths show a key that is too long to be one. */
static struct str shortened(struct arena *a, struct str key)
{
	if (key.n <= KEY_BYTES)
		return key;
	return arena_printf(a, "%.*s...%.*s", (KEY_BYTES - 2) / 2, key.p, (KEY_BYTES - 3) / 2, key.p + key.n - (KEY_BYTES - 3) / 2);
}

static void device(struct field_errors *e, const struct field_path *p, const struct resource_v1_device *d, const struct resource_v1_device *o, bool each)
{
	const struct field_path *attributes = AT(p, "attributes"), *capacity = AT(p, "capacity"), *uses = AT(p, "consumesCounters");
	uint32_t n = d->attributes.n + d->capacity.n, values = 0;

	field_check(e, AT(p, "name"), d->name, validate_dns1123_label);
	if (n > ATTRIBUTES_MAX)
		field_invalid_int(e, p, n, "the total number of attributes and capacities must not exceed %d", ATTRIBUTES_MAX);
	for (uint32_t i = 0; i < d->attributes.n; i++) {
		const struct resource_v1_device_attribute *a = &d->attributes.v[i].value;
		uint32_t own = a->bools.n + a->ints.n + a->strings.n + a->versions.n;

		values += own ? own : 1;
	}
	if (values > ATTRIBUTE_VALUES_MAX)
		field_invalid_int(e, p, values, "the total number of attribute values must not exceed %d", ATTRIBUTE_VALUES_MAX);
	for (uint32_t i = 0; i < d->attributes.n; i++) {
		qualified(e, attributes, d->attributes.v[i].key);
		attribute(e, KEY(attributes, shortened(e->arena, d->attributes.v[i].key)), &d->attributes.v[i].value);
	}
	for (uint32_t i = 0; i < d->capacity.n; i++) {
		qualified(e, capacity, d->capacity.v[i].key);
		if (d->capacity.v[i].value.request_policy)
			request_policy(e, AT(KEY(capacity, shortened(e->arena, d->capacity.v[i].key)), "requestPolicy"), d->capacity.v[i].value.request_policy,
				       d->capacity.v[i].value.value, is_true(d->allow_multiple_allocations));
	}
	if ((!o || !object_field_equal(&resource_v1_device_type, d, o, "taints")) && few(e, AT(p, "taints"), d->taints.n, TAINTS_MAX))
		for (uint32_t i = 0; i < d->taints.n; i++)
			device_taint(e, EL(AT(p, "taints"), i), &d->taints.v[i]);
	if (few(e, uses, d->consumes_counters.n, COUNTER_USES_MAX)) {
		for (uint32_t i = 0; i < d->consumes_counters.n; i++) {
			rule_name(e, AT(EL(uses, i), "counterSet"), d->consumes_counters.v[i].counter_set, validate_dns1123_label);
			COUNTERS(e, AT(EL(uses, i), "counters"), d->consumes_counters.v[i].counters);
		}
		UNIQUE(e, uses, d->consumes_counters, .counter_set);
	}
	device_nodes(e, p, d, each);
	binding_conditions(e, p, (const struct strings *)&d->binding_conditions, (const struct strings *)&d->binding_failure_conditions);
}

static void devices_of(struct field_errors *e, const struct field_path *p, const struct resource_v1_resource_slice_spec *s,
		       const struct resource_v1_resource_slice_spec *o)
{
	bool advanced = false;

	for (uint32_t i = 0; i < s->devices.n; i++) {
		const struct resource_v1_device *d = &s->devices.v[i];

		advanced |= d->taints.n || d->consumes_counters.n;
		for (uint32_t k = 0; k < d->attributes.n; k++) {
			const struct resource_v1_device_attribute *a = &d->attributes.v[k].value;

			advanced |= a->bools.v || a->ints.v || a->strings.v || a->versions.v;
		}
	}
	if (!few(e, p, s->devices.n, advanced ? DEVICES_MAX_ADVANCED : DEVICES_MAX))
		return;
	for (uint32_t i = 0; i < s->devices.n; i++) {
		const struct resource_v1_device *was = NULL;

		for (uint32_t k = 0; o && k < o->devices.n && !was; k++)
			if (str_eq(o->devices.v[k].name, s->devices.v[i].name))
				was = &o->devices.v[k];
		device(e, EL(p, i), &s->devices.v[i], was, is_true(s->per_device_node_selection));
	}
	UNIQUE(e, p, s->devices, .name);
}

static void resourceslice_rules(struct field_errors *e, const struct resource_v1_resource_slice_spec *s,
				const struct resource_v1_resource_slice_spec *o)
{
	static const char text[] = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
	const struct field_path *spec = FIELD_ROOT("spec"), *pool = AT(spec, "pool"), *counters = AT(spec, "sharedCounters");
	const struct schema_type *t = &resource_v1_resource_slice_spec_type;
	struct str set = STR("");
	int n;

	rule_csi_driver_name(e, AT(spec, "driver"), s->driver);
	pool_name(e, AT(pool, "name"), s->pool.name);
	if (s->pool.resource_slice_count <= 0)
		field_invalid_int(e, AT(pool, "resourceSliceCount"), s->pool.resource_slice_count, "must be greater than zero");
	if (s->pool.generation < 0)
		field_invalid_int(e, AT(pool, "generation"), s->pool.generation, "must be greater than or equal to zero");
	if (o) {
		rule_immutable(e, AT(pool, "name"), &resource_v1_resource_pool_type, &s->pool, &o->pool, "name");
		rule_immutable(e, AT(spec, "driver"), t, s, o, "driver");
		rule_immutable(e, AT(spec, "nodeName"), t, s, o, "nodeName");
	}
	n = nodes(e, spec, s->node_name, s->node_selector, s->all_nodes, "must be either unset or set to a non-empty string",
		  "must have exactly one node selector term", &set);
	if (is_true(s->per_device_node_selection))
		set = arena_printf(e->arena, "%.*s%s`perDeviceNodeSelection`", STR_ARG(set), n++ ? ", " : "");
	else if (s->per_device_node_selection)
		field_invalid_raw(e, AT(spec, "perDeviceNodeSelection"), STR("false"), "must be either unset or set to true");
	if (!n)
		field_required(e, spec, text);
	else if (n > 1)
		field_invalid(e, spec, arena_printf(e->arena, "{%.*s}", STR_ARG(set)), "%s, but multiple fields are set", text);
	if (s->shared_counters.v && s->devices.v) /* empty lists, too */
		field_invalid(e, spec, STR(""), "only one of `sharedCounters` or `devices` is allowed");
	devices_of(e, AT(spec, "devices"), s, o);
	if (!few(e, counters, s->shared_counters.n, COUNTER_SETS_MAX))
		return;
	for (uint32_t i = 0; i < s->shared_counters.n; i++) {
		rule_name(e, AT(EL(counters, i), "name"), s->shared_counters.v[i].name, validate_dns1123_label);
		COUNTERS(e, AT(EL(counters, i), "counters"), s->shared_counters.v[i].counters);
	}
	UNIQUE(e, counters, s->shared_counters, .name);
}

void resourceslice_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct resource_v1_resource_slice *s = obj;

	(void)rq;
	resourceslice_rules(e, &s->spec, NULL);
}

void resourceslice_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct resource_v1_resource_slice *s = obj, *o = old;

	(void)rq;
	resourceslice_rules(e, &s->spec, &o->spec);
}

void resourceslice_warn(struct request *rq, const void *obj, const void *old)
{
	struct str driver = ((const struct resource_v1_resource_slice *)obj)->spec.driver;

	(void)old;
	for (size_t i = 0; i < driver.n; i++)
		if (driver.p[i] >= 'A' && driver.p[i] <= 'Z') {
			request_warn(rq, "spec.driver: driver names should be lowercase; \"%.*s\" contains uppercase characters", STR_ARG(driver));
			return;
		}
}
