/* Strategies of the other groups: RBAC, certificates, networking, storage, scheduling, policies, extensions. */
#include "apiserver/authz.h"
#include "apiserver/custom.h"
#include "apiserver/extend.h"
#include "apiserver/policy.h"
#include "apiserver/server.h"
#include "apiserver/validate_kinds.h"

/* ---- RBAC: what one may give is what one has ---- */

/* Owners and finalizers alone are changed: whoever deletes may do so. */
static bool lets_go(struct request *rq, const void *obj, const void *old, bool same_version)
{
	const struct schema_type *t = rq->res->st->type;
	void *now;
	struct meta_v1_object_meta *m;
	const struct meta_v1_object_meta *o;

	if (!old || !same_version)
		return false;
	now = arena_alloc(rq->a, t->size);
	memcpy(now, obj, t->size);
	((struct str *)now)[0] = ((const struct str *)old)[0]; /* kind and apiVersion, which are not compared */
	((struct str *)now)[1] = ((const struct str *)old)[1];
	m = object_meta(t, now);
	o = object_meta(t, (void *)(uintptr_t)old);
	memcpy(&m->owner_references, &o->owner_references, sizeof m->owner_references);
	memcpy(&m->finalizers, &o->finalizers, sizeof m->finalizers);
	memcpy(&m->managed_fields, &o->managed_fields, sizeof m->managed_fields);
	return object_equal(t, now, old);
}

static struct error *role_permit(struct request *rq, const void *obj, const void *old, bool same_version)
{
	const struct rbac_v1_role *r = obj;

	if (lets_go(rq, obj, old, same_version))
		return NULL;
	return rbac_check_role(rq, rq->ns, r->metadata.name, r->rules.v, r->rules.n, false);
}

static bool aggregates(const struct rbac_v1_cluster_role *r)
{
	return r && r->aggregation_rule && r->aggregation_rule->cluster_role_selectors.n;
}

static struct error *cluster_role_permit(struct request *rq, const void *obj, const void *old, bool same_version)
{
	const struct rbac_v1_cluster_role *r = obj;

	if (lets_go(rq, obj, old, same_version))
		return NULL;
	return rbac_check_role(rq, STR_NULL, r->metadata.name, r->rules.v, r->rules.n, aggregates(r) || aggregates(old));
}

static struct error *binding_permit(struct request *rq, const void *obj, const void *old, bool same_version)
{
	/* RoleBinding and ClusterRoleBinding have the same fields */
	const struct rbac_v1_role_binding *b = obj;

	if (lets_go(rq, obj, old, same_version))
		return NULL;
	return rbac_check_binding(rq, rq->res->st->namespaced ? rq->ns : STR_NULL, b->metadata.name, &b->role_ref);
}

#define RBAC STR_INIT("rbac.authorization.k8s.io")
static const struct strategy roles = {
	.group = RBAC, .plural = STR_INIT("roles"), .checks_all = true, .meta_update = "M*U", .create_on_update = true, .name_check = validate_path_segment,
	.permit = role_permit, .validate = role_validate, .validate_update = role_validate_update,
};
static const struct strategy clusterroles = {
	.group = RBAC, .plural = STR_INIT("clusterroles"), .checks_all = true, .meta_update = "M*U", .create_on_update = true, .name_check = validate_path_segment,
	.permit = cluster_role_permit, .validate = clusterrole_validate, .validate_update = clusterrole_validate_update,
};
static const struct strategy rolebindings = {
	.group = RBAC, .plural = STR_INIT("rolebindings"), .checks_all = true, .meta_update = "MCU*", .create_on_update = true, .name_check = validate_path_segment,
	.permit = binding_permit, .validate = binding_validate, .validate_update = binding_validate_update,
};
static const struct strategy clusterrolebindings = {
	.group = RBAC, .plural = STR_INIT("clusterrolebindings"), .checks_all = true, .meta_update = "MCU*", .create_on_update = true, .name_check = validate_path_segment,
	.permit = binding_permit, .validate = binding_validate, .validate_update = binding_validate_update,
};

/* ---- certificates ---- */

static void csr_create(struct request *rq, void *obj)
{
	struct certificates_v1_certificate_signing_request *c = obj;

	c->spec.username = rq->user->name;
	c->spec.uid = rq->user->uid;
	c->spec.groups.n = 0;
	c->spec.groups.v = NULL;
	c->spec.groups.cap = 0;
	for (size_t i = 0; i < rq->user->n_groups; i++)
		*arena_push(rq->a, &c->spec.groups) = rq->user->groups[i];
	memset(&c->spec.extra, 0, sizeof c->spec.extra);
	for (size_t i = 0; i < rq->user->n_extra; i++) {
		struct strings_pair *p = (struct strings_pair *)(void *)arena_push(rq->a, &c->spec.extra);

		*p = rq->user->extra[i];
	}
	memset(&c->status, 0, sizeof c->status);
}

static void csr_update(struct request *rq, void *obj, const void *old)
{
	struct certificates_v1_certificate_signing_request *c = obj;
	const struct certificates_v1_certificate_signing_request *o = old;

	(void)rq;
	c->spec = o->spec;
	c->status = o->status;
}

typedef struct certificates_v1_certificate_signing_request_condition csr_condition;

/* Times that are not given: now, but for the last transition of what stood there with the same status. */
static void condition_times(struct certificates_v1_certificate_signing_request *c,
			    const struct certificates_v1_certificate_signing_request *o)
{
	struct api_time now = time_now();

	for (uint32_t i = 0; i < c->status.conditions.n; i++) {
		csr_condition *x = &c->status.conditions.v[i];

		if (!x->last_update_time.set)
			x->last_update_time = now;
		for (uint32_t k = 0; k < o->status.conditions.n && !x->last_transition_time.set; k++) {
			const csr_condition *was = &o->status.conditions.v[k];

			if (str_eq(was->type, x->type) && str_eq(was->status, x->status))
				x->last_transition_time = was->last_transition_time;
		}
		if (!x->last_transition_time.set)
			x->last_transition_time = now;
	}
}

/* Conditions of a type stay as they were, as long as none is added or taken away: validation refuses that. */
static void keep_conditions(struct certificates_v1_certificate_signing_request *c,
			    const struct certificates_v1_certificate_signing_request *o, const char *type)
{
	uint32_t now = 0, was = 0, k = 0;

	for (uint32_t i = 0; i < c->status.conditions.n; i++)
		now += str_eqz(c->status.conditions.v[i].type, type);
	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		was += str_eqz(o->status.conditions.v[i].type, type);
	for (uint32_t i = 0; now == was && i < c->status.conditions.n; i++) {
		if (!str_eqz(c->status.conditions.v[i].type, type))
			continue;
		while (!str_eqz(o->status.conditions.v[k].type, type))
			k++;
		c->status.conditions.v[i] = o->status.conditions.v[k++];
	}
}

static void csr_sub(struct request *rq, const char *sub, void *obj, const void *old)
{
	struct certificates_v1_certificate_signing_request *c = obj;
	const struct certificates_v1_certificate_signing_request *o = old;

	(void)rq;
	c->spec = o->spec;
	if (!strcmp(sub, "approval")) {
		c->status.certificate = o->status.certificate;
	} else {
		keep_conditions(c, o, "Approved");
		keep_conditions(c, o, "Denied");
	}
	condition_times(c, o);
}

static const struct cache_field csr_fields[] = {{.name = STR_INIT("spec.signerName")}};
/* No name is wrong but what no path could have, which is said last. */
static const char *csr_name(struct arena *a, struct str name)
{
	(void)a;
	(void)name;
	return NULL;
}

static const struct strategy csrs = {
	.group = STR_INIT("certificates.k8s.io"), .plural = STR_INIT("certificatesigningrequests"), .checks_all = true, .meta_update = "UM*",
	.name_check = csr_name, .keep_status_on_create = true,
	.prepare_create = csr_create, .prepare_update = csr_update, .prepare_sub_update = csr_sub, .fields = csr_fields, .n_fields = 1,
	.validate = csr_validate, .validate_update = csr_validate_update, .validate_sub_update = csr_validate_sub, .sub_written = csr_issued,
};

/* ---- facts of the rest ---- */

#define FACTS(name, grp, res, ...) static const struct strategy name = {.group = STR_INIT(grp), .plural = STR_INIT(res), __VA_ARGS__}

FACTS(leases, "coordination.k8s.io", "leases", .checks_all = true, .meta_create = "m*", .meta_update = "u*", .create_on_update = true, .no_unconditional_update = true,
      .validate = lease_validate, .validate_update = lease_validate_update);
FACTS(ingresses, "networking.k8s.io", "ingresses", .checks_all = true, .meta_update = "UM*", .generation = true, .validate = ingress_validate,
      .validate_update = ingress_validate_update, .validate_sub_update = ingress_validate_sub, .warn = ingress_warn);
FACTS(ingressclasses, "networking.k8s.io", "ingressclasses", .checks_all = true, .meta_update = "U*MC", .generation = true,
      .validate = ingressclass_validate, .validate_update = ingressclass_validate_update);
FACTS(networkpolicies, "networking.k8s.io", "networkpolicies", .checks_all = true, .generation = true, .generation_exact = true, .validate = netpol_validate,
      .validate_update = netpol_validate_update, .warn = netpol_warn);
FACTS(ipaddresses, "networking.k8s.io", "ipaddresses", .checks_all = true, .meta_update = "MCU*", .name_as_generate_name = true, .name_check = validate_ip_canonical, .validate = ipaddress_validate,
      .validate_update = ipaddress_validate_update);
FACTS(servicecidrs, "networking.k8s.io", "servicecidrs", .checks_all = true, .status_resets_metadata = true, .validate = servicecidr_validate,
      .validate_update = servicecidr_validate_update);

/* deprecatedTopology is not written through v1; what it says of the node stays as nodeName. */
static void slice_drop_topology(struct arena *a, struct discovery_v1_endpoint_slice *s, const struct discovery_v1_endpoint_slice *o)
{
	if (o && object_field_equal(&discovery_v1_endpoint_slice_type, s, o, "endpoints"))
		return;
	for (uint32_t i = 0; i < s->endpoints.n; i++) {
		struct discovery_v1_endpoint *ep = &s->endpoints.v[i];
		struct str host = str_map_get(API_MAP(&ep->deprecated_topology), STR("kubernetes.io/hostname"));

		for (uint32_t k = 0; host.n && !ep->node_name && o && k < o->endpoints.n; k++) {
			if (!str_eq(str_map_get(API_MAP(&o->endpoints.v[k].deprecated_topology), STR("kubernetes.io/hostname")), host))
				continue;
			ep->node_name = arena_new(a, struct str);
			*ep->node_name = host;
		}
		ep->deprecated_topology.n = 0;
	}
}

static void slice_create(struct request *rq, void *obj)
{
	slice_drop_topology(rq->a, obj, NULL);
}

/* Labels count as a change. */
static void slice_update(struct request *rq, void *obj, const void *old)
{
	struct discovery_v1_endpoint_slice *s = obj;
	const struct discovery_v1_endpoint_slice *o = old;

	if (!object_field_equal(&meta_v1_object_meta_type, &s->metadata, &o->metadata, "labels"))
		s->metadata.generation = o->metadata.generation + 1;
	slice_drop_topology(rq->a, s, o);
}

FACTS(endpointslices, "discovery.k8s.io", "endpointslices", .checks_all = true, .meta_update = "M*", .generation = true, .generation_first = true, .prepare_create = slice_create,
      .prepare_update = slice_update, .validate = slice_validate, .validate_update = slice_validate_update, .warn = slice_warn);
FACTS(runtimeclasses, "node.k8s.io", "runtimeclasses", .checks_all = true, .meta_create = "m*", .meta_update = "mCu*", .create_on_update = true, .no_unconditional_update = true,
      .validate = runtimeclass_validate, .validate_update = runtimeclass_validate_update, .warn = runtimeclass_warn);
FACTS(priorityclasses, "scheduling.k8s.io", "priorityclasses", .checks_all = true, .generation_stays = true, .generation = true, .validate = priorityclass_validate,
      .validate_update = priorityclass_validate_update);
FACTS(csidrivers, "storage.k8s.io", "csidrivers", .checks_all = true, .generation = true, .generation_from_zero = true,
      .no_unconditional_update = true, .return_deleted = true, .validate = csidriver_validate, .validate_update = csidriver_validate_update,
      .warn = csidriver_warn);
FACTS(csinodes, "storage.k8s.io", "csinodes", .checks_all = true, .meta_update = "M*", .no_unconditional_update = true,
      .return_deleted = true, .validate = csinode_validate, .validate_update = csinode_validate_update);
FACTS(csistoragecapacities, "storage.k8s.io", "csistoragecapacities", .checks_all = true, .meta_update = "*", .no_unconditional_update = true,
      .validate = capacity_validate, .validate_update = capacity_validate_update, .warn = capacity_warn);
FACTS(storageclasses, "storage.k8s.io", "storageclasses", .checks_all = true, .meta_update = "MCU*", .return_deleted = true, .validate = storageclass_validate,
      .validate_update = storageclass_validate_update, .warn = storageclass_warn);
FACTS(volumeattachments, "storage.k8s.io", "volumeattachments", .checks_all = true, .meta_update = "M*", .meta_status = "M*", .status_resets_metadata = true,
      .no_unconditional_update = true, .return_deleted = true, .validate = attachment_validate,
      .validate_update = attachment_validate_update, .validate_sub_update = attachment_validate_sub);
FACTS(volumeattributesclasses, "storage.k8s.io", "volumeattributesclasses", .checks_all = true, .meta_update = "U*MC",
      .return_deleted = true, .validate = attributesclass_validate, .validate_update = attributesclass_validate_update);
FACTS(flowschemas, "flowcontrol.apiserver.k8s.io", "flowschemas", .checks_all = true, .meta_update = "M*", .generation = true,
      .status_keeps_metadata = true,
      .validate = flowschema_validate, .validate_update = flowschema_validate_update, .validate_sub_update = flowschema_validate_sub);
FACTS(prioritylevels, "flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", .checks_all = true, .meta_update = "M*",
      .generation = true, .status_keeps_metadata = true, .validate = prioritylevel_validate, .validate_update = prioritylevel_validate_update,
      .validate_sub_update = prioritylevel_validate_sub);
/* Local ones are available from the beginning. */
static void apiservice_create(struct request *rq, void *obj)
{
	struct apiregistration_v1_api_service *o = obj;

	if (!o->spec.service)
		apiservice_local_condition(rq->a, o);
}

FACTS(apiservices, "apiregistration.k8s.io", "apiservices", .checks_all = true, .no_unconditional_update = true, .status_resets_metadata = true, .meta_create = "m*", .meta_update = "um*", .name_check = validate_path_segment,
      .prepare_create = apiservice_create, .validate = apiservice_validate, .validate_update = apiservice_validate_update, .validate_sub_update = apiservice_validate_sub);
FACTS(deviceclasses, "resource.k8s.io", "deviceclasses", .checks_all = true, .meta_create = "N*", .meta_update = "NU*", .generation = true,
      .return_deleted = true, .validate = deviceclass_validate, .validate_update = deviceclass_validate_update);
FACTS(resourceclaims, "resource.k8s.io", "resourceclaims", .checks_all = true, .meta_create = "*", .meta_update = "MU*", .status_resets_metadata = true,
      .return_deleted = true, .validate = claim_validate, .validate_update = claim_validate_update,
      .validate_sub_update = claim_validate_sub);
FACTS(resourceclaimtemplates, "resource.k8s.io", "resourceclaimtemplates", .checks_all = true, .meta_create = "*", .meta_update = "*", .return_deleted = true,
      .validate = claimtemplate_validate, .validate_update = claimtemplate_validate_update);
static const struct cache_field slice_fields[] = {{.name = STR_INIT("spec.nodeName")}, {.name = STR_INIT("spec.driver")}};
/* A taint is as old as the request that brings it. */
static void resourceslice_normalize(struct arena *a, void *obj)
{
	struct resource_v1_resource_slice *s = obj;

	for (uint32_t i = 0; i < s->spec.devices.n; i++)
		for (uint32_t k = 0; k < s->spec.devices.v[i].taints.n; k++) {
			struct resource_v1_device_taint *t = &s->spec.devices.v[i].taints.v[k];

			if (t->time_added)
				continue;
			t->time_added = arena_new(a, struct api_time);
			*t->time_added = time_now();
		}
}

FACTS(resourceslices, "resource.k8s.io", "resourceslices", .checks_all = true, .normalize = resourceslice_normalize, .generation = true, .generation_first = true, .return_deleted = true,
      .fields = slice_fields, .n_fields = 2, .validate = resourceslice_validate, .validate_update = resourceslice_validate_update,
      .warn = resourceslice_warn);

const struct strategy *const strategies_other[] = {
	&roles, &clusterroles, &rolebindings, &clusterrolebindings, &csrs, &leases, &ingresses, &ingressclasses, &networkpolicies, &ipaddresses, &servicecidrs,
	&endpointslices, &runtimeclasses, &priorityclasses, &csidrivers, &csinodes, &csistoragecapacities, &storageclasses,
	&volumeattachments, &volumeattributesclasses, &strategy_vwc, &strategy_mwc, &strategy_vap, &strategy_vapb, &strategy_map, &strategy_mapb, &flowschemas,
	&prioritylevels, &apiservices, &deviceclasses, &resourceclaims, &resourceclaimtemplates, &resourceslices, &strategy_crd, NULL,
};
