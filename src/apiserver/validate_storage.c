/* Rules of storage.k8s.io. */
#include "apiserver/validate_kinds.h"
#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

enum { PARAMETERS_MAX = 512, PARAMETERS_BYTES = 256 << 10, VOLUME_ERROR_BYTES = 1024, NODE_ID_BYTES = 256, TOKEN_SECONDS_MIN = 600 };

/* ---- classes ---- */

static size_t map_bytes(const struct str_map *m)
{
	size_t n = 0;

	for (uint32_t i = 0; i < m->n; i++)
		n += m->v[i].key.n + m->v[i].value.n;
	return n;
}

static void provisioner(struct field_errors *e, const struct field_path *p, struct str v)
{
	char *lower = arena_bytes(e->arena, v.n + 1);

	for (size_t i = 0; i < v.n; i++)
		lower[i] = v.p[i] >= 'A' && v.p[i] <= 'Z' ? (char)(v.p[i] | 0x20) : v.p[i];
	rule_name(e, p, str_of(lower, v.n), validate_qualified_name);
}

static void parameters(struct field_errors *e, const struct str_map *m, bool required)
{
	const struct field_path *p = FIELD_ROOT("parameters");

	if (m->n > PARAMETERS_MAX) {
		field_too_long(e, p, PARAMETERS_MAX);
		return;
	}
	for (uint32_t i = 0; i < m->n; i++)
		if (!m->v[i].key.n)
			field_invalid(e, p, STR(""), "field can not be empty.");
	if (map_bytes(m) > PARAMETERS_BYTES)
		field_too_long(e, p, PARAMETERS_BYTES);
	if (required && !m->n)
		field_required(e, p, "must contain at least one key/value pair");
}

void storageclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct storage_v1_storage_class *c = obj;

	(void)rq;
	provisioner(e, FIELD_ROOT("provisioner"), c->provisioner);
	parameters(e, API_MAP(&c->parameters), false);
	if (c->reclaim_policy && c->reclaim_policy->n)
		field_one_of(e, FIELD_ROOT("reclaimPolicy"), *c->reclaim_policy, "Delete,Retain");
	if (!c->volume_binding_mode)
		field_required(e, FIELD_ROOT("volumeBindingMode"), "");
	else
		field_one_of(e, FIELD_ROOT("volumeBindingMode"), *c->volume_binding_mode, "Immediate,WaitForFirstConsumer");
	rule_topology_terms(e, FIELD_ROOT("allowedTopologies"), c->allowed_topologies.v, c->allowed_topologies.n);
}

void storageclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	static const char *const fixed[] = {"parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"};

	(void)rq;
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		rule_immutable(e, FIELD_CHILD_S(NULL, str_from(fixed[i])), &storage_v1_storage_class_type, obj, old, fixed[i]);
}

/* `message` and the path of a label of nodes that is older than its name. */
static void label_warn(struct request *rq, const struct field_path *p, struct str key, bool named)
{
	const char *m = node_label_deprecated(key);
	struct str at = m ? field_path_format(rq->a, p) : STR_NULL;

	if (m && named)
		request_warn(rq, "%.*s: %.*s is %s", STR_ARG(at), STR_ARG(key), m);
	else if (m)
		request_warn(rq, "%.*s: %s", STR_ARG(at), m);
}

void storageclass_warn(struct request *rq, const void *obj, const void *old)
{
	const struct storage_v1_storage_class *c = obj;

	(void)old;
	for (uint32_t i = 0; i < c->allowed_topologies.n; i++)
		for (uint32_t k = 0; k < c->allowed_topologies.v[i].match_label_expressions.n; k++)
			label_warn(rq, AT(EL(AT(EL(FIELD_ROOT("allowedTopologies"), i), "matchLabelExpressions"), k), "key"),
				   c->allowed_topologies.v[i].match_label_expressions.v[k].key, false);
}

void attributesclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct storage_v1_volume_attributes_class *c = obj;

	(void)rq;
	provisioner(e, FIELD_ROOT("driverName"), c->driver_name);
	parameters(e, API_MAP(&c->parameters), true);
}

void attributesclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct storage_v1_volume_attributes_class *c = obj, *o = old;

	if (!str_eq(c->driver_name, o->driver_name))
		field_forbidden(e, FIELD_ROOT("driverName"), "updates to driverName are forbidden.");
	if (!object_field_equal(&storage_v1_volume_attributes_class_type, c, o, "parameters"))
		field_forbidden(e, FIELD_ROOT("parameters"), "updates to parameters are forbidden.");
	(void)rq;
}

/* ---- attachments ---- */

static void volume_error(struct field_errors *e, const struct field_path *p, const struct storage_v1_volume_error *v)
{
	if (v && v->message.n > VOLUME_ERROR_BYTES)
		field_too_long(e, AT(p, "message"), PARAMETERS_BYTES); /* the number upstream prints */
	if (v && v->error_code && *v->error_code < 0)
		field_invalid_int(e, AT(p, "errorCode"), *v->error_code, "must be between 0 and 2147483647, inclusive");
}

static void attachment_rules(struct field_errors *e, const struct storage_v1_volume_attachment *a)
{
	const struct storage_v1_volume_attachment_source *s = &a->spec.source;
	const struct field_path *spec = FIELD_ROOT("spec"), *src = AT(spec, "source"), *status = FIELD_ROOT("status");

	rule_csi_driver_name(e, AT(spec, "attacher"), a->spec.attacher);
	if (!s->inline_volume_spec == !s->persistent_volume_name) {
		if (s->inline_volume_spec)
			field_forbidden(e, src, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
		else
			field_required(e, src, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
	} else if (s->persistent_volume_name) {
		if (!s->persistent_volume_name->n)
			field_required(e, AT(src, "persistentVolumeName"), "must specify non empty persistentVolumeName");
	} else {
		rule_pv_spec(e, AT(src, "inlineVolumeSpec"), s->inline_volume_spec, STR(""), true, false);
	}
	field_check(e, AT(spec, "nodeName"), a->spec.node_name, validate_dns1123_subdomain);
	if (map_bytes(API_MAP(&a->status.attachment_metadata)) > PARAMETERS_BYTES)
		field_too_long(e, AT(status, "attachmentMetadata"), PARAMETERS_BYTES);
	volume_error(e, AT(status, "attachError"), a->status.attach_error);
	volume_error(e, AT(status, "detachError"), a->status.detach_error);
	if (s->persistent_volume_name)
		field_check(e, FIELD_ROOT("spec.source.persistentVolumeName"), *s->persistent_volume_name, validate_dns1123_subdomain);
}

void attachment_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	attachment_rules(e, obj);
}

void attachment_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	attachment_rules(e, obj);
	rule_immutable(e, FIELD_ROOT("spec"), &storage_v1_volume_attachment_type, obj, old, "spec");
}

void attachment_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	(void)sub;
	attachment_validate_update(rq, obj, old, e);
}

/* ---- drivers and nodes ---- */

static void csidriver_rules(struct field_errors *e, const struct storage_v1_csi_driver_spec *s)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *tokens = AT(spec, "tokenRequests");

	if (!s->attach_required)
		field_required(e, AT(spec, "attachedRequired"), "");
	if (!s->pod_info_on_mount)
		field_required(e, AT(spec, "podInfoOnMount"), "");
	if (!s->storage_capacity)
		field_required(e, AT(spec, "storageCapacity"), "");
	if (s->fs_group_policy)
		field_one_of(e, AT(spec, "fsGroupPolicy"), *s->fs_group_policy, "File,None,ReadWriteOnceWithFSType");
	for (uint32_t i = 0; i < s->token_requests.n; i++) {
		const struct storage_v1_token_request *t = &s->token_requests.v[i];
		const struct field_path *at = AT(EL(tokens, i), "expirationSeconds");
		bool again = false;

		for (uint32_t k = 0; k < i; k++)
			again |= str_eq(s->token_requests.v[k].audience, t->audience);
		if (again)
			field_duplicate(e, AT(EL(tokens, i), "audience"), t->audience);
		else if (t->expiration_seconds && *t->expiration_seconds < TOKEN_SECONDS_MIN)
			field_invalid_int(e, at, *t->expiration_seconds, "may not specify a duration less than 10 minutes");
		else if (t->expiration_seconds && *t->expiration_seconds > INT64_C(1) << 32)
			field_invalid_int(e, at, *t->expiration_seconds, "may not specify a duration larger than 2^32 seconds");
	}
	for (uint32_t i = 0; i < s->volume_lifecycle_modes.n; i++)
		field_one_of(e, AT(spec, "volumeLifecycleModes"), s->volume_lifecycle_modes.v[i], "Persistent,Ephemeral");
	if (!s->se_linux_mount)
		field_required(e, AT(spec, "seLinuxMount"), "");
	if (s->node_allocatable_update_period_seconds && *s->node_allocatable_update_period_seconds < 10)
		field_invalid_int(e, AT(spec, "nodeAllocatableUpdatePeriodSeconds"), *s->node_allocatable_update_period_seconds,
				  "must be greater than or equal to 10 seconds");
	if (s->service_account_token_in_secrets && !s->token_requests.n)
		field_invalid_raw(e, AT(spec, "serviceAccountTokenInSecrets"), *s->service_account_token_in_secrets ? STR("true") : STR("false"),
				  "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
}

void csidriver_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct storage_v1_csi_driver *d = obj;

	(void)rq;
	csidriver_rules(e, &d->spec);
}

void csidriver_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct storage_v1_csi_driver *d = obj, *o = old;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	csidriver_rules(e, &d->spec);
	rule_immutable(e, AT(spec, "attachedRequired"), &storage_v1_csi_driver_spec_type, &d->spec, &o->spec, "attachRequired");
	rule_immutable(e, AT(spec, "volumeLifecycleModes"), &storage_v1_csi_driver_spec_type, &d->spec, &o->spec, "volumeLifecycleModes");
}

void csidriver_warn(struct request *rq, const void *obj, const void *old)
{
	const struct storage_v1_csi_driver *d = obj, *o = old;

	if (d->spec.token_requests.n && !d->spec.service_account_token_in_secrets &&
	    (!o || !object_field_equal(&storage_v1_csi_driver_spec_type, &d->spec, &o->spec, "tokenRequests")))
		request_warn(rq, "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent "
				 "possible logging of tokens in volume attributes");
}

void csinode_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct storage_v1_csi_node *n = obj;

	(void)rq;
	for (uint32_t i = 0; i < n->spec.drivers.n; i++) {
		const struct storage_v1_csi_node_driver *d = &n->spec.drivers.v[i];
		const struct field_path *p = EL(AT(FIELD_ROOT("spec"), "drivers"), i);
		bool again = false;

		rule_csi_driver_name(e, AT(p, "name"), d->name);
		if (!d->node_id.n)
			field_required(e, AT(p, "nodeID"), "");
		if (d->node_id.n > NODE_ID_BYTES)
			field_invalid(e, AT(p, "nodeID"), d->node_id, "must be %d characters or less", NODE_ID_BYTES);
		if (d->allocatable)
			rule_nonneg32(e, AT(AT(p, "allocatable"), "count"), d->allocatable->count);
		for (uint32_t k = 0; k < i; k++)
			again |= str_eq(n->spec.drivers.v[k].name, d->name);
		if (again)
			field_duplicate(e, AT(p, "name"), d->name);
		for (uint32_t k = 0; k < d->topology_keys.n; k++) {
			struct str key = d->topology_keys.v[k];

			if (!key.n)
				field_required(e, p, "");
			for (uint32_t x = 0; x < k; x++)
				if (str_eq(d->topology_keys.v[x], key)) {
					field_duplicate(e, p, key);
					break;
				}
			field_check(e, p, key, validate_qualified_name);
		}
	}
}

/* A driver that stays may change what it can allocate, nothing else. */
void csinode_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct storage_v1_csi_node *n = obj, *o = old;

	csinode_validate(rq, obj, e);
	for (uint32_t i = 0; i < o->spec.drivers.n; i++)
		for (uint32_t k = 0; k < n->spec.drivers.n; k++) {
			const struct storage_v1_csi_node_driver *a = &n->spec.drivers.v[k], *b = &o->spec.drivers.v[i];
			const struct schema_type *t = &storage_v1_csi_node_driver_type;

			if (str_eq(a->name, b->name) && !(object_field_equal(t, a, b, "nodeID") && object_field_equal(t, a, b, "topologyKeys")))
				field_invalid_obj(e, AT(FIELD_ROOT("spec"), "drivers"), t, a, "field is immutable");
		}
}

/* ---- capacities ---- */

static void capacity_rules(struct field_errors *e, const struct storage_v1_csi_storage_capacity *c, bool lax)
{
	if (c->node_topology)
		validate_label_selector_lax(e, c->node_topology, FIELD_ROOT("nodeTopology"), lax);
	field_check(e, FIELD_ROOT("storageClassName"), c->storage_class_name, validate_dns1123_subdomain);
	if (c->capacity && quantity_cmp(*c->capacity, STR("0")) < 0)
		field_invalid(e, FIELD_ROOT("capacity"), *c->capacity, "must be greater than or equal to 0");
}

void capacity_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	capacity_rules(e, obj, false);
}

void capacity_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct storage_v1_csi_storage_capacity *c = obj, *o = old;
	struct field_errors were = {.arena = e->arena};

	(void)rq;
	if (o->node_topology)
		validate_label_selector(&were, o->node_topology, FIELD_ROOT("nodeTopology"));
	validate_object_meta(e, &c->metadata, true, NULL, FIELD_ROOT("metadata"), true);
	capacity_rules(e, c, were.list.n > 0);
	validate_object_meta_update(e, &c->metadata, &o->metadata, FIELD_ROOT("metadata"), true);
	rule_immutable(e, FIELD_ROOT("nodeTopology"), &storage_v1_csi_storage_capacity_type, obj, old, "nodeTopology");
	rule_immutable(e, FIELD_ROOT("storageClassName"), &storage_v1_csi_storage_capacity_type, obj, old, "storageClassName");
}

void capacity_warn(struct request *rq, const void *obj, const void *old)
{
	const struct storage_v1_csi_storage_capacity *c = obj;
	const struct field_path *at = FIELD_ROOT("nodeTopology");

	(void)old;
	for (uint32_t i = 0; c->node_topology && i < c->node_topology->match_expressions.n; i++)
		label_warn(rq, AT(EL(AT(at, "matchExpressions"), i), "key"), c->node_topology->match_expressions.v[i].key, true);
	for (uint32_t i = 0; c->node_topology && i < c->node_topology->match_labels.n; i++)
		label_warn(rq, FIELD_CHILD_S(AT(at, "matchLabels"), c->node_topology->match_labels.v[i].key),
			   c->node_topology->match_labels.v[i].key, false);
}
