/* Nodes, storage, quotas, data, endpoints, namespaces: rules of core/v1 but pods and Services. */
#include <ctype.h>

#include "apiserver/validate_core.h"
#include "apiserver/validate_pod.h"
#include "schema/jv.h"
#include "schema/quantity.h"

/* ---- nodes ---- */

static void node_amounts(struct field_errors *e, const struct field_path *p, const struct str_map *list)
{
	for (uint32_t i = 0; i < list->n; i++)
		rule_quantity(e, FIELD_CHILD_S(p, list->v[i].key), list->v[i].key, list->v[i].value);
}

#define FEATURE_NAME_MAX 253

static bool feature_name(struct str s)
{
	bool first = true;

	for (struct str rest = s; first || rest.p; first = false) {
		struct str part = str_cut(&rest, '/');

		if (!part.n || !(first ? isupper((unsigned char)part.p[0]) : isalpha((unsigned char)part.p[0])))
			return false;
		for (size_t i = 0; i < part.n; i++)
			if (!isalnum((unsigned char)part.p[i]))
				return false;
	}
	return true;
}

static void node_features(struct field_errors *e, const struct strings *f)
{
	const struct field_path *p = AT(FIELD_ROOT("status"), "declaredFeatures");

	for (uint32_t i = 0; i < f->n; i++) {
		if (f->v[i].n > FEATURE_NAME_MAX)
			field_invalid(e, EL(p, i), f->v[i], "invalid feature name \"%.*s\": must be no more than 253 characters", STR_ARG(f->v[i]));
		else if (!feature_name(f->v[i]))
			field_invalid(e, EL(p, i), f->v[i], "invalid feature name \"%.*s\": must start with an UpperCamelCase segment, with subsequent "
				      "segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters "
				      "and slashes", STR_ARG(f->v[i]));
		if (i + 1 == f->n)
			continue;
		if (str_eq(f->v[i], f->v[i + 1]))
			field_duplicate(e, EL(p, i + 1), f->v[i + 1]);
		else if (str_cmp(f->v[i], f->v[i + 1]) > 0)
			field_invalid(e, EL(p, i + 1), f->v[i + 1], "list must be sorted alphabetically");
	}
}

static void node_common(struct field_errors *e, const struct core_v1_node *n)
{
	node_amounts(e, AT(FIELD_ROOT("status"), "capacity"), API_MAP(&n->status.capacity));
	node_amounts(e, AT(FIELD_ROOT("status"), "allocatable"), API_MAP(&n->status.allocatable));
	node_features(e, (const void *)&n->status.declared_features);
}

/* Pods a node would rather not have: JSON in an annotation, of old. */
static void avoid_pods(struct field_errors *e, const struct core_v1_node *n)
{
	const struct str key = STR("scheduler.alpha.kubernetes.io/preferAvoidPods");
	const struct field_path *p = AT(FIELD_ROOT("metadata"), "annotations");
	struct str text = str_map_get(API_MAP(&n->metadata.annotations), key);
	struct core_v1_avoid_pods avoid = {0};
	struct error *err;

	if (!text.n)
		return;
	err = json_decode(e->arena, &core_v1_avoid_pods_type, text, NULL, &avoid);
	if (err) {
		field_invalid(e, AT(p, "AvoidPods"), key, "%s", error_message(err));
		error_free(err);
		return;
	}
	for (uint32_t i = 0; i < avoid.prefer_avoid_pods.n; i++) {
		const struct meta_v1_owner_reference *by = avoid.prefer_avoid_pods.v[i].pod_signature.pod_controller;
		const struct field_path *at = AT(EL(FIELD_CHILD_S(p, key), i), "PodSignature");

		if (!by)
			field_required(e, at, "");
		else if (!is_true(by->controller))
			field_invalid_raw(e, AT(AT(at, "PodController"), "Controller"), STR("false"), "must point to a controller");
	}
}

void node_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_node *n = obj;
	const struct field_path *cidrs = AT(FIELD_ROOT("spec"), "podCIDRs"), *meta = FIELD_ROOT("metadata");
	bool v4 = false, v6 = false, none = false;

	(void)rq;
	avoid_pods(e, n);
	rule_taints(e, AT(meta, "taints"), n->spec.taints.v, n->spec.taints.n);
	node_common(e, n);
	if (n->status.node_info.swap && n->status.node_info.swap->capacity)
		rule_positive(e, AT(AT(meta, "nodeSwapStatus"), "capacity"), *n->status.node_info.swap->capacity);
	for (uint32_t i = 0; i < n->spec.pod_cidrs.n; i++) {
		struct str rest = n->spec.pod_cidrs.v[i], ip = str_cut(&rest, '/');

		rule_legacy_cidr(e, EL(cidrs, i), n->spec.pod_cidrs.v[i], NULL, 0);
		none |= !cidr_parses(n->spec.pod_cidrs.v[i]);
		v4 |= ip_family(ip) == 4;
		v6 |= ip_family(ip) == 6;
	}
	if (n->spec.pod_cidrs.n > 1 && none)
		field_internal(e, cidrs, "invalid PodCIDRs. failed to check with dual stack with error:one of them is none");
	if (n->spec.pod_cidrs.n > 2 || (n->spec.pod_cidrs.n == 2 && (none || !(v4 && v6))))
		field_invalid_list(e, cidrs, (const void *)&n->spec.pod_cidrs, "may specify no more than one CIDR for each IP family");
}

static void node_config(struct field_errors *e, const struct field_path *p, const struct core_v1_node_config_source *s)
{
	const struct core_v1_config_map_node_config_source *c = s->config_map;

	if (!c) {
		field_invalid_obj(e, p, &core_v1_node_config_source_type, s, "exactly one reference subfield must be non-nil");
		return;
	}
	p = AT(p, "configMap");
	if (c->uid.n)
		field_forbidden(e, AT(p, "uid"), "uid must not be set in spec");
	if (c->resource_version.n)
		field_forbidden(e, AT(p, "resourceVersion"), "resourceVersion must not be set in spec");
	rule_name(e, AT(p, "namespace"), c->namespace, validate_dns1123_label);
	rule_name(e, AT(p, "name"), c->name, validate_dns1123_subdomain);
	rule_name(e, AT(p, "kubeletConfigKey"), c->kubelet_config_key, validate_config_map_key);
}

static void node_change(struct field_errors *e, const void *obj, const void *old)
{
	const struct core_v1_node *n = obj, *o = old;
	const struct field_path *spec = FIELD_ROOT("spec");

	avoid_pods(e, n);
	node_common(e, n);
	for (uint32_t i = 0; i < n->status.addresses.n; i++)
		for (uint32_t k = 0; k < i; k++)
			if (object_equal(&core_v1_node_address_type, &n->status.addresses.v[k], &n->status.addresses.v[i])) {
				struct buf b buf_cleanup = {0};

				json_encode(&b, &core_v1_node_address_type, &n->status.addresses.v[i]);
				field_duplicate_raw(e, EL(AT(FIELD_ROOT("status"), "addresses"), i), arena_str(e->arena, buf_view(&b)), "");
				break;
			}
	if (o->spec.pod_cidrs.n) {
		if (o->spec.pod_cidrs.n != n->spec.pod_cidrs.n)
			field_forbidden(e, AT(spec, "podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
		else
			for (uint32_t i = 0; i < o->spec.pod_cidrs.n; i++)
				if (!str_eq(o->spec.pod_cidrs.v[i], n->spec.pod_cidrs.v[i]))
					field_forbidden(e, AT(spec, "podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
	}
	if (o->spec.provider_id.n && !str_eq(o->spec.provider_id, n->spec.provider_id))
		field_forbidden(e, AT(spec, "providerID"), "node updates may not change providerID except from \"\" to valid");
	if (n->spec.config_source)
		node_config(e, AT(spec, "configSource"), n->spec.config_source);
	rule_taints(e, AT(FIELD_ROOT("metadata"), "taints"), n->spec.taints.v, n->spec.taints.n);
	if (!str_eq(n->spec.external_id, o->spec.external_id))
		field_forbidden(e, AT(spec, "externalID"), "may not be updated");
}

void node_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	node_change(e, obj, old);
}

void node_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	if (!strcmp(sub, "status"))
		node_change(e, obj, old);
}

void node_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_node *n = obj;

	(void)old;
	if (n->spec.config_source)
		request_warn(rq, "spec.configSource: the feature is removed");
	if (n->spec.external_id.n)
		request_warn(rq, "spec.externalID: this field is deprecated, and is unused by Kubernetes");
	for (uint32_t i = 0; i < n->spec.pod_cidrs.n; i++)
		cidr_warn(rq, EL(AT(FIELD_ROOT("spec"), "podCIDRs"), i), n->spec.pod_cidrs.v[i]);
}

/* ---- PersistentVolumes ---- */

void pv_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_persistent_volume *v = obj;

	(void)rq;
	rule_pv_spec(e, FIELD_ROOT("spec"), &v->spec, v->metadata.name, false, false);
}

/* Labels of nodes that have a new name may be put for the old. */
static bool only_label_renames(struct arena *a, const struct core_v1_volume_node_affinity *now, const struct core_v1_volume_node_affinity *was)
{
	static const char *const renamed[][2] = {
		{"failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"},
		{"failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"},
		{"beta.kubernetes.io/os", "kubernetes.io/os"},
		{"beta.kubernetes.io/arch", "kubernetes.io/arch"},
		{"beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"},
	};
	const struct core_v1_node_selector *x = now ? now->required : NULL, *y = was->required;

	(void)a;
	if (!x || !y || x->node_selector_terms.n != y->node_selector_terms.n)
		return now && !x == !y && !x;
	for (uint32_t i = 0; i < x->node_selector_terms.n; i++) {
		const struct core_v1_node_selector_term *t = &x->node_selector_terms.v[i], *u = &y->node_selector_terms.v[i];

		if (t->match_expressions.n != u->match_expressions.n || t->match_fields.n != u->match_fields.n)
			return false;
		for (uint32_t k = 0; k < t->match_expressions.n; k++) {
			struct core_v1_node_selector_requirement r = u->match_expressions.v[k];

			for (size_t j = 0; j < sizeof renamed / sizeof *renamed; j++)
				if (str_eqz(r.key, renamed[j][0]) && str_eqz(t->match_expressions.v[k].key, renamed[j][1]))
					r.key = t->match_expressions.v[k].key;
			if (!object_equal(&core_v1_node_selector_requirement_type, &r, &t->match_expressions.v[k]))
				return false;
		}
		for (uint32_t k = 0; k < t->match_fields.n; k++)
			if (!object_equal(&core_v1_node_selector_requirement_type, &t->match_fields.v[k], &u->match_fields.v[k]))
				return false;
	}
	return true;
}

void pv_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_persistent_volume *v = obj, *o = old;
	const struct field_path *spec = FIELD_ROOT("spec");
	struct core_v1_persistent_volume_source now = v->spec.persistent_volume_source, was = o->spec.persistent_volume_source;
	struct core_v1_csi_persistent_volume_source csi;

	(void)rq;
	/* upstream's strategy looks at it as at a new one, and its rules of updates do so again */
	for (int i = 0; i < 2; i++) {
		validate_object_meta(e, &v->metadata, false, NULL, FIELD_ROOT("metadata"), true);
		rule_pv_spec(e, spec, &v->spec, v->metadata.name, false,
			     o->spec.node_affinity && node_selector_has_bad_values(o->spec.node_affinity->required, e->arena));
	}
	if (was.csi && !was.csi->controller_expand_secret_ref && now.csi) {
		csi = *now.csi;
		csi.controller_expand_secret_ref = NULL;
		now.csi = &csi;
	}
	if (!object_equal(&core_v1_persistent_volume_source_type, &now, &was))
		field_forbidden(e, AT(spec, "persistentvolumesource"), "spec.persistentvolumesource is immutable after creation\n");
	rule_immutable(e, FIELD_ROOT("volumeMode"), &core_v1_persistent_volume_spec_type, &v->spec, &o->spec, "volumeMode");
	if (o->spec.node_affinity && !only_label_renames(e->arena, v->spec.node_affinity, o->spec.node_affinity))
		field_invalid_obj(e, FIELD_ROOT("nodeAffinity"), &core_v1_volume_node_affinity_type, v->spec.node_affinity,
				  "field is immutable, except for updating from beta label to GA");
	if (o->spec.volume_attributes_class_name && !v->spec.volume_attributes_class_name)
		field_forbidden(e, AT(spec, "volumeAttributesClassName"), "update from non-nil value to nil is forbidden");
}

void pv_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	(void)sub;
	(void)obj;
	(void)old;
	(void)e; /* metadata is all that is looked at */
}

void pv_warn(struct request *rq, const void *obj, const void *old)
{
	static const struct {
		const char *source, *message;
	} gone[] = {
		{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
		{"scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
		{"storageos", "deprecated in v1.22, non-functional in v1.25+"},
		{"glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
		{"cephfs", "deprecated in v1.28, non-functional in v1.31+"},
		{"rbd", "deprecated in v1.28, non-functional in v1.31+"},
	};
	static const char *const annotations[] = {"volume.beta.kubernetes.io/storage-class"};
	const struct core_v1_persistent_volume *v = obj;

	(void)old;
	for (size_t i = 0; i < sizeof annotations / sizeof *annotations; i++)
		if (str_map_has(API_MAP(&v->metadata.annotations), str_from(annotations[i])))
			request_warn(rq, "metadata.annotations[%s]: deprecated since v1.8; use \"storageClassName\" attribute instead", annotations[i]);
	if (str_map_has(API_MAP(&v->metadata.annotations), STR("volume.beta.kubernetes.io/mount-options")))
		request_warn(rq, "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" attribute instead");
	if (str_eqz(v->spec.persistent_volume_reclaim_policy, "Recycle"))
		request_warn(rq, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use "
				 "dynamic provisioning.");
	if (v->spec.node_affinity && v->spec.node_affinity->required)
		for (uint32_t i = 0; i < v->spec.node_affinity->required->node_selector_terms.n; i++)
			node_term_warn(rq, EL(AT(AT(AT(FIELD_ROOT("spec"), "nodeAffinity"), "required"), "nodeSelectorTerms"), i),
				       &v->spec.node_affinity->required->node_selector_terms.v[i], false);
	for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
		const struct schema_field *f = schema_field(&core_v1_persistent_volume_source_type, str_from(gone[i].source));

		if (*(void *const *)(const void *)((const char *)&v->spec.persistent_volume_source + f->offset))
			request_warn(rq, "spec.%s: %s", strcmp(gone[i].source, "storageos") ? gone[i].source : "storageOS", gone[i].message);
	}
}

/* ---- claims ---- */

void pvc_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	rule_pvc_spec(e, FIELD_ROOT("spec"), &((const struct core_v1_persistent_volume_claim *)obj)->spec, &(struct pvc_options){0});
}

static const struct str beta_class = STR_INIT("volume.beta.kubernetes.io/storage-class");

static struct pvc_options pvc_options_from(struct arena *a, const struct core_v1_persistent_volume_claim *o)
{
	struct field_errors e = {.arena = a};
	struct pvc_options opt = {.lax_group = (o->spec.data_source && o->spec.data_source->api_group) ||
					       (o->spec.data_source_ref && o->spec.data_source_ref->api_group)};

	validate_label_selector(&e, o->spec.selector, FIELD_ROOT(""));
	opt.lax_selector = e.list.n > 0;
	return opt;
}

static void set_storage(struct arena *a, struct core_v1_persistent_volume_claim_spec *s, struct str q)
{
	struct str_map m = {0};

	for (uint32_t i = 0; i < s->resources.requests.n; i++)
		str_map_set(a, &m, s->resources.requests.v[i].key, s->resources.requests.v[i].value);
	str_map_set(a, &m, STR("storage"), q);
	memcpy(&s->resources.requests, &m, sizeof m);
}

void pvc_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_persistent_volume_claim *c = obj, *o = old;
	const struct str_map *an = API_MAP(&c->metadata.annotations), *was_an = API_MAP(&o->metadata.annotations);
	const struct field_path *spec = FIELD_ROOT("spec");
	struct core_v1_persistent_volume_claim_spec x = c->spec, y = o->spec;
	struct pvc_options opt = pvc_options_from(e->arena, o);
	struct str now = str_map_get(API_MAP(&c->spec.resources.requests), STR("storage")),
		   was = str_map_get(API_MAP(&o->spec.resources.requests), STR("storage")), held;
	const struct str *vac = c->spec.volume_attributes_class_name;
	bool bound = str_eqz(c->status.phase, "Bound"), has = str_map_has(was_an, beta_class);

	(void)rq;
	rule_pvc_spec(e, spec, &c->spec, &opt);
	if (!y.volume_name.n)
		y.volume_name = x.volume_name;
	/* the class may move from the annotation, or from nothing, into the field */
	if (has && !y.storage_class_name && x.storage_class_name && str_eq(*x.storage_class_name, str_map_get(was_an, beta_class)) &&
	    (!str_map_has(an, beta_class) || str_eq(str_map_get(an, beta_class), *x.storage_class_name))) {
		x.storage_class_name = NULL;
	} else {
		if (!str_eq(str_map_get(an, beta_class), str_map_get(was_an, beta_class)))
			field_invalid(e, FIELD_CHILD_S(AT(FIELD_ROOT("metadata"), "annotations"), beta_class), str_map_get(an, beta_class),
				      "field is immutable");
		if (x.storage_class_name && !y.storage_class_name && (!has || str_eq(*x.storage_class_name, str_map_get(was_an, beta_class))))
			x.storage_class_name = NULL;
	}
	if (bound && (x.resources.requests.n || x.resources.requests.v)) /* an empty map is one */
		set_storage(e->arena, &x, was);
	if (bound)
		x.volume_attributes_class_name = y.volume_attributes_class_name;
	if (!object_equal(&core_v1_persistent_volume_claim_spec_type, &x, &y))
		field_forbidden(e, spec,
				"spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n");
	held = str_map_get(API_MAP(&o->status.capacity), STR("storage"));
	if (quantity_cmp(now, was) < 0 && quantity_cmp(now, held.n ? held : STR("0")) <= 0)
		field_forbidden(e, AT(AT(AT(spec, "resources"), "requests"), "storage"), "field can not be less than status.capacity");
	rule_immutable(e, FIELD_ROOT("volumeMode"), &core_v1_persistent_volume_claim_spec_type, &c->spec, &o->spec, "volumeMode");
	if (o->status.current_volume_attributes_class_name) {
		if (!vac && o->spec.volume_attributes_class_name)
			field_forbidden(e, AT(spec, "volumeAttributesClassName"),
					"update to nil is forbidden when status.currentVolumeAttributesClassName is not nil");
		else if (vac && !vac->n && !(o->spec.volume_attributes_class_name && !o->spec.volume_attributes_class_name->n))
			field_forbidden(e, AT(spec, "volumeAttributesClassName"),
					"update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil");
	}
}

static bool claim_resource(struct field_errors *e, const struct field_path *p, struct str name)
{
	if (field_check(e, p, name, validate_qualified_name))
		return false;
	if (resource_native(name) && !str_eqz(name, "storage")) {
		field_unsupported(e, p, name, "storage");
		return false;
	}
	return true;
}

void pvc_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_persistent_volume_claim *c = obj;
	const struct field_path *st = FIELD_ROOT("status");

	(void)rq;
	(void)old;
	if (strcmp(sub, "status"))
		return;
	for (uint32_t i = 0; i < c->status.capacity.n; i++)
		if (quantity_value(c->status.capacity.v[i].value) < 0)
			field_invalid_int(e, KEY(AT(st, "capacity"), c->status.capacity.v[i].key), quantity_value(c->status.capacity.v[i].value),
					  "must be a valid resource quantity");
	for (uint32_t i = 0; i < c->status.allocated_resource_statuses.n; i++) {
		const struct field_path *p = AT(st, "allocatedResourceStatuses");
		struct field_errors probe = {.arena = e->arena};

		claim_resource(e, p, c->status.allocated_resource_statuses.v[i].key);
		if (!field_one_of(&probe, p, c->status.allocated_resource_statuses.v[i].value,
				  "ControllerResizeInProgress,ControllerResizeInfeasible,NodeResizeInProgress,NodeResizeInfeasible,NodeResizePending"))
			field_unsupported(e, p, c->status.allocated_resource_statuses.v[i].key,
					  "ControllerResizeInProgress,ControllerResizeInfeasible,NodeResizeInProgress,NodeResizeInfeasible,NodeResizePending");
	}
	for (uint32_t i = 0; i < c->status.allocated_resources.n; i++) {
		struct str k = c->status.allocated_resources.v[i].key, q = c->status.allocated_resources.v[i].value;

		if (claim_resource(e, AT(st, "allocatedResources"), k) && quantity_value(q) < 0)
			field_invalid_int(e, KEY(AT(st, "allocatedResources"), k), quantity_value(q), "must be a valid resource quantity");
	}
}

void pvc_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_persistent_volume_claim *c = obj;

	(void)old;
	if (str_map_has(API_MAP(&c->metadata.annotations), beta_class))
		request_warn(rq, "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead");
	pvc_spec_warn(rq, FIELD_ROOT("spec"), &c->spec);
}

/* ---- limits and quotas ---- */

static void limit_resource(struct field_errors *e, const struct field_path *p, struct str type, struct str name)
{
	if (str_eqz(type, "Pod") || str_eqz(type, "Container"))
		rule_container_resource_name(e, p, name);
	else
		rule_resource_name(e, p, name);
}

static void greater(struct field_errors *e, const struct field_path *p, struct str shown, const char *what, struct str a, const char *than, struct str b)
{
	if (a.n && b.n && quantity_cmp(a, b) > 0)
		field_invalid(e, p, shown, "%s %.*s is greater than %s %.*s", what, STR_ARG(a), than, STR_ARG(b));
}

static void one_limit(struct field_errors *e, const struct field_path *at, const struct core_v1_limit_range_item *l, struct str k)
{
	bool pod = str_eqz(l->type, "Pod");
	struct str min = str_map_get(API_MAP(&l->min), k), max = str_map_get(API_MAP(&l->max), k),
		   def = pod ? STR_NULL : str_map_get(API_MAP(&l->default_), k), req = pod ? STR_NULL : str_map_get(API_MAP(&l->default_request), k),
		   ratio = str_map_get(API_MAP(&l->max_limit_request_ratio), k);

	greater(e, KEY(AT(at, "min"), k), min, "min value", min, "max value", max);
	greater(e, KEY(AT(at, "defaultRequest"), k), req, "min value", min, "default request value", req);
	greater(e, KEY(AT(at, "defaultRequest"), k), req, "default request value", req, "max value", max);
	greater(e, KEY(AT(at, "defaultRequest"), k), req, "default request value", req, "default limit value", def);
	greater(e, KEY(AT(at, "default"), k), min, "min value", min, "default value", def);
	greater(e, KEY(AT(at, "default"), k), max, "default value", def, "max value", max);
	if (ratio.n && quantity_cmp(ratio, STR("1")) < 0)
		field_invalid(e, KEY(AT(at, "maxLimitRequestRatio"), k), ratio, "ratio %.*s is less than 1", STR_ARG(ratio));
	if (ratio.n && min.n && max.n) {
		double limit = (double)quantity_milli(max) / (double)quantity_milli(min);

		if ((double)quantity_milli(ratio) / 1000 > limit)
			field_invalid(e, KEY(AT(at, "maxLimitRequestRatio"), k), ratio, "ratio %.*s is greater than max/min = %f", STR_ARG(ratio), limit);
	}
	if (!resource_overcommit(k) && def.n && req.n && quantity_cmp(def, req))
		field_invalid(e, KEY(AT(at, "defaultRequest"), k), req, "default value %.*s must equal to defaultRequest value %.*s in %.*s", STR_ARG(def),
			      STR_ARG(req), STR_ARG(k));
}

void limitrange_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_limit_range *r = obj;
	const struct field_path *list = AT(FIELD_ROOT("spec"), "limits");

	(void)rq;
	for (uint32_t i = 0; i < r->spec.limits.n; i++) {
		const struct core_v1_limit_range_item *l = &r->spec.limits.v[i];
		const struct field_path *at = EL(list, i);
		bool pod = str_eqz(l->type, "Pod");
		const struct {
			const char *name;
			const struct str_map *m;
		} maps[] = {{"max", API_MAP(&l->max)}, {"min", API_MAP(&l->min)}, {"default", API_MAP(&l->default_)},
			    {"defaultRequest", API_MAP(&l->default_request)}, {"maxLimitRequestRatio", API_MAP(&l->max_limit_request_ratio)}};
		struct strings keys = {0};

		if (!field_check(e, AT(at, "type"), l->type, validate_qualified_name) && str_index(l->type, '/') < 0 && !pod &&
		    !str_eqz(l->type, "Container") && !str_eqz(l->type, "PersistentVolumeClaim"))
			field_invalid(e, AT(at, "type"), l->type, "must be a standard limit type or fully qualified");
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(r->spec.limits.v[k].type, l->type)) {
				field_duplicate(e, AT(at, "type"), l->type);
				break;
			}
		for (size_t m = 0; m < sizeof maps / sizeof *maps; m++) {
			bool refused = pod && (m == 2 || m == 3);

			if (refused && maps[m].m->n)
				field_forbidden(e, FIELD_CHILD_S(at, str_from(maps[m].name)), "may not be specified when `type` is 'Pod'");
			for (uint32_t k = 0; !refused && k < maps[m].m->n; k++) {
				struct str name = maps[m].m->v[k].key;

				limit_resource(e, KEY(FIELD_CHILD_S(at, str_from(maps[m].name)), name), l->type, name);
				if (!strings_have(&keys, name))
					*arena_push(e->arena, &keys) = name;
			}
		}
		if (str_eqz(l->type, "PersistentVolumeClaim") && !str_map_has(API_MAP(&l->min), STR("storage")) &&
		    !str_map_has(API_MAP(&l->max), STR("storage")))
			field_required(e, AT(at, "limits"), "either minimum or maximum storage value is required, but neither was provided");
		for (uint32_t k = 0; k < keys.n; k++)
			one_limit(e, at, l, keys.v[k]);
	}
}

static bool scope_fits(struct str scope, struct str resource)
{
	static const char compute[] = "pods,cpu,memory,limits.cpu,limits.memory,requests.cpu,requests.memory";
	static const char claims[] = "persistentvolumeclaims,requests.storage";
	const char *list = compute;

	if (str_eqz(scope, "BestEffort"))
		list = "pods";
	else if (str_eqz(scope, "VolumeAttributesClass"))
		list = claims;
	else if (!str_eqz(scope, "Terminating") && !str_eqz(scope, "NotTerminating") && !str_eqz(scope, "NotBestEffort") &&
		 !str_eqz(scope, "PriorityClass") && !str_eqz(scope, "CrossNamespacePodAffinity"))
		return true;
	for (struct str rest = str_from(list); rest.p;)
		if (str_eq(str_cut(&rest, ','), resource))
			return true;
	return false;
}

static bool known_scope(struct str s)
{
	for (struct str rest = STR("Terminating,NotTerminating,BestEffort,NotBestEffort,PriorityClass,VolumeAttributesClass,CrossNamespacePodAffinity");
	     rest.p;)
		if (str_eq(str_cut(&rest, ','), s))
			return true;
	return false;
}

static void scope_conflicts(struct field_errors *e, const struct field_path *p, const struct strings *seen, const struct strings *shown)
{
	if ((strings_have(seen, STR("BestEffort")) && strings_have(seen, STR("NotBestEffort"))))
		field_invalid_list(e, p, shown, "conflicting scopes");
	if (strings_have(seen, STR("Terminating")) && strings_have(seen, STR("NotTerminating")))
		field_invalid_list(e, p, shown, "conflicting scopes");
}

static void quota_amounts(struct field_errors *e, const struct field_path *p, const struct str_map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		rule_quota_resource_name(e, KEY(p, m->v[i].key), m->v[i].key);
		rule_quantity(e, KEY(p, m->v[i].key), m->v[i].key, m->v[i].value);
	}
}

static void quota_selector(struct field_errors *e, const struct field_path *spec, const struct core_v1_resource_quota_spec *s)
{
	const struct field_path *p = AT(AT(spec, "scopeSelector"), "matchExpressions");
	struct strings seen = {0};

	for (uint32_t i = 0; i < s->scope_selector->match_expressions.n; i++) {
		const struct core_v1_scoped_resource_selector_requirement *r = &s->scope_selector->match_expressions.v[i];
		bool in = str_eqz(r->operator, "In") || str_eqz(r->operator, "NotIn"),
		     exists = str_eqz(r->operator, "Exists") || str_eqz(r->operator, "DoesNotExist");

		if (!known_scope(r->scope_name))
			field_invalid(e, AT(p, "scopeName"), r->scope_name, "unsupported scope");
		for (uint32_t k = 0; k < s->hard.n; k++)
			if (resource_standard_quota(s->hard.v[k].key) && !scope_fits(r->scope_name, s->hard.v[k].key))
				field_invalid_obj(e, p, &core_v1_scope_selector_type, s->scope_selector, "unsupported scope applied to resource");
		if (known_scope(r->scope_name) && !str_eqz(r->scope_name, "PriorityClass") && !str_eqz(r->scope_name, "VolumeAttributesClass") &&
		    !str_eqz(r->operator, "Exists"))
			field_invalid(e, AT(p, "operator"), r->operator,
				      "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
				      "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
		if (in && !r->values.n)
			field_required(e, AT(p, "values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
		if (exists && r->values.n)
			field_invalid_list(e, AT(p, "values"), (const void *)&r->values,
					   "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector");
		if (!in && !exists)
			field_invalid(e, AT(p, "operator"), r->operator, "not a valid selector operator");
		*arena_push(e->arena, &seen) = r->scope_name;
	}
	scope_conflicts(e, p, &seen, (const void *)&s->scopes);
}

static void quota_spec(struct field_errors *e, const struct core_v1_resource_quota_spec *s)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *p = AT(spec, "scopes");
	const struct strings *scopes = (const void *)&s->scopes;

	quota_amounts(e, AT(spec, "hard"), API_MAP(&s->hard));
	for (uint32_t i = 0; i < scopes->n; i++) {
		if (!known_scope(scopes->v[i]))
			field_invalid_list(e, p, scopes, "unsupported scope");
		for (uint32_t k = 0; k < s->hard.n; k++)
			if (resource_standard_quota(s->hard.v[k].key) && !scope_fits(scopes->v[i], s->hard.v[k].key))
				field_invalid_list(e, p, scopes, "unsupported scope applied to resource");
	}
	scope_conflicts(e, p, scopes, scopes);
	if (s->scope_selector)
		quota_selector(e, spec, s);
}

void quota_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	quota_spec(e, &((const struct core_v1_resource_quota *)obj)->spec);
}

void quota_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_resource_quota *q = obj, *o = old;
	const struct strings *now = (const void *)&q->spec.scopes, *was = (const void *)&o->spec.scopes;
	bool same = true;

	(void)rq;
	quota_spec(e, &q->spec);
	for (uint32_t i = 0; i < now->n; i++)
		same &= strings_have(was, now->v[i]);
	for (uint32_t i = 0; i < was->n; i++)
		same &= strings_have(now, was->v[i]);
	if (!same)
		field_invalid_list(e, AT(FIELD_ROOT("spec"), "scopes"), now, "field is immutable");
}

void quota_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_resource_quota *q = obj;

	(void)rq;
	(void)old;
	if (strcmp(sub, "status"))
		return;
	quota_amounts(e, AT(FIELD_ROOT("status"), "hard"), API_MAP(&q->status.hard));
	quota_amounts(e, AT(FIELD_ROOT("status"), "used"), API_MAP(&q->status.used));
}

/* What pods may ask for of a resource is more than their limits of it may be: the first is never reached. */
void quota_warn(struct request *rq, const void *obj, const void *old)
{
	static const char *const names[] = {"cpu", "memory", "ephemeral-storage"};
	const struct str_map *hard = API_MAP(&((const struct core_v1_resource_quota *)obj)->spec.hard);

	for (size_t i = 0; !old && i < sizeof names / sizeof *names; i++) {
		struct str asked = arena_printf(rq->a, "requests.%s", names[i]), most = arena_printf(rq->a, "limits.%s", names[i]);

		if (!str_map_has(hard, asked) && strcmp(names[i], "ephemeral-storage"))
			asked = str_from(names[i]);
		if (str_map_has(hard, asked) && str_map_has(hard, most) && quantity_cmp(str_map_get(hard, asked), str_map_get(hard, most)) > 0)
			request_warn(rq, "ResourceQuota %.*s (%.*s) should be less than %.*s (%.*s)", STR_ARG(asked), STR_ARG(str_map_get(hard, asked)),
				     STR_ARG(most), STR_ARG(str_map_get(hard, most)));
	}
}

/* ---- data ---- */

#define DATA_MAX (1 << 20)

static size_t data_keys(struct field_errors *e, const struct field_path *p, const struct str_map *m)
{
	size_t total = 0;

	for (uint32_t i = 0; i < m->n; i++) {
		field_check(e, KEY(p, m->v[i].key), m->v[i].key, validate_config_map_key);
		total += m->v[i].value.n;
	}
	return total;
}

static void docker_config(struct field_errors *e, const struct core_v1_secret *s, const char *key)
{
	const struct field_path *p = KEY(FIELD_ROOT("data"), str_from(key));
	struct str v = str_map_get(API_MAP(&s->data), str_from(key));
	struct jv j;
	struct error *err;

	if (!str_map_has(API_MAP(&s->data), str_from(key))) {
		field_required(e, p, "");
		return;
	}
	err = jv_parse(e->arena, v, NULL, &j);
	if (err)
		field_invalid(e, p, STR("<secret contents redacted>"), "%s", v.n ? error_message(err) : "unexpected end of JSON input");
	else if (j.kind != JV_OBJECT && j.kind != JV_NULL)
		field_invalid(e, p, STR("<secret contents redacted>"), "json: cannot unmarshal %s into Go value of type map[string]interface {}",
			      j.kind == JV_ARRAY ? "array" : j.kind == JV_STRING ? "string" : j.kind == JV_BOOL ? "bool" : "number");
	error_free(err);
}

void secret_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_secret *s = obj;
	const struct field_path *p = FIELD_ROOT("data");
	const struct str_map *d = API_MAP(&s->data);

	(void)rq;
	if (data_keys(e, p, d) > DATA_MAX)
		field_too_long(e, p, DATA_MAX);
	if (str_eqz(s->type, "kubernetes.io/service-account-token")) {
		if (!str_map_get(API_MAP(&s->metadata.annotations), STR("kubernetes.io/service-account.name")).n)
			field_required(e, KEY(AT(FIELD_ROOT("metadata"), "annotations"), STR("kubernetes.io/service-account.name")), "");
	} else if (str_eqz(s->type, "kubernetes.io/dockercfg")) {
		docker_config(e, s, ".dockercfg");
	} else if (str_eqz(s->type, "kubernetes.io/dockerconfigjson")) {
		docker_config(e, s, ".dockerconfigjson");
	} else if (str_eqz(s->type, "kubernetes.io/basic-auth")) {
		if (!str_map_has(d, STR("username")) && !str_map_has(d, STR("password"))) {
			field_required(e, KEY(p, STR("username")), "");
			field_required(e, KEY(p, STR("password")), "");
		}
	} else if (str_eqz(s->type, "kubernetes.io/ssh-auth")) {
		if (!str_map_get(d, STR("ssh-privatekey")).n)
			field_required(e, KEY(p, STR("ssh-privatekey")), "");
	} else if (str_eqz(s->type, "kubernetes.io/tls")) {
		if (!str_map_has(d, STR("tls.crt")))
			field_required(e, KEY(p, STR("tls.crt")), "");
		if (!str_map_has(d, STR("tls.key")))
			field_required(e, KEY(p, STR("tls.key")), "");
	}
}

static void immutable_data(struct field_errors *e, const struct schema_type *t, const void *now, const void *old, const bool *was, const bool *is,
			   const char *members)
{
	if (!is_true(was))
		return;
	if (!is_true(is))
		field_forbidden(e, FIELD_ROOT("immutable"), "field is immutable when `immutable` is set");
	for (struct str rest = str_from(members); rest.p;) {
		struct str m = str_cut(&rest, ',');

		if (!object_field_identical(t, now, old, arena_strz(e->arena, m)))
			field_forbidden(e, FIELD_CHILD_S(NULL, m), "field is immutable when `immutable` is set");
	}
}

void secret_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_secret *s = obj, *o = old;

	if (!str_eq(s->type, o->type))
		field_invalid(e, FIELD_ROOT("type"), s->type, "field is immutable");
	immutable_data(e, &core_v1_secret_type, s, o, o->immutable, s->immutable, "data");
	(void)rq;
}

void configmap_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_config_map *c = obj;
	size_t total = data_keys(e, FIELD_ROOT("data"), API_MAP(&c->data));

	(void)rq;
	for (uint32_t i = 0; i < c->data.n; i++)
		if (str_map_has(API_MAP(&c->binary_data), c->data.v[i].key))
			field_invalid(e, KEY(FIELD_ROOT("data"), c->data.v[i].key), c->data.v[i].key, "duplicate of key present in binaryData");
	total += data_keys(e, FIELD_ROOT("binaryData"), API_MAP(&c->binary_data));
	if (total > DATA_MAX)
		field_too_long(e, FIELD_ROOT("[]"), DATA_MAX); /* a path of nothing, as upstream writes it */
}

void configmap_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_config_map *c = obj, *o = old;

	immutable_data(e, &core_v1_config_map_type, c, o, o->immutable, c->immutable, "data,binaryData");
	(void)rq;
}

/* ---- endpoints ---- */

static void endpoint_addresses(struct field_errors *e, const struct field_path *p, const struct core_v1_endpoint_address *a, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *at = EL(p, i);

		rule_legacy_ip(e, AT(at, "ip"), a[i].ip, NULL, 0);
		if (a[i].hostname.n)
			field_check(e, AT(at, "hostname"), a[i].hostname, validate_dns1123_label);
		if (a[i].node_name)
			field_check(e, AT(at, "nodeName"), *a[i].node_name, validate_dns1123_subdomain);
		rule_endpoint_ip(e, AT(at, "ip"), a[i].ip);
	}
}

void endpoints_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_endpoints *ep = obj;
	const struct field_path *list = FIELD_ROOT("subsets");

	/* the server's own address may be the loopback's: a cluster of one machine */
	if (rq->internal)
		return;
	for (uint32_t i = 0; i < ep->subsets.n; i++) {
		const struct core_v1_endpoint_subset *s = &ep->subsets.v[i];
		const struct field_path *at = EL(list, i);

		if (!s->addresses.n && !s->not_ready_addresses.n)
			field_required(e, at, "must specify `addresses` or `notReadyAddresses`");
		endpoint_addresses(e, AT(at, "addresses"), s->addresses.v, s->addresses.n);
		endpoint_addresses(e, AT(at, "notReadyAddresses"), s->not_ready_addresses.v, s->not_ready_addresses.n);
		for (uint32_t k = 0; k < s->ports.n; k++) {
			const struct core_v1_endpoint_port *p = &s->ports.v[k];
			const struct field_path *pp = EL(AT(at, "ports"), k);

			if (s->ports.n > 1 && !p->name.n)
				field_required(e, AT(pp, "name"), "");
			else if (p->name.n)
				field_check(e, AT(pp, "name"), p->name, validate_dns1123_label);
			rule_port_number(e, AT(pp, "port"), p->port);
			rule_enum(e, AT(pp, "protocol"), p->protocol, "SCTP,TCP,UDP");
			if (p->app_protocol)
				field_check(e, AT(pp, "appProtocol"), *p->app_protocol, validate_qualified_name);
		}
	}
}

void endpoints_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	/* what was let through once stays as it is */
	if (!object_field_equal(&core_v1_endpoints_type, obj, old, "subsets"))
		endpoints_validate(rq, obj, e);
}

void endpoints_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_endpoints *ep = obj;

	(void)old;
	request_warn(rq, "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
	for (uint32_t i = 0; i < ep->subsets.n; i++) {
		const struct field_path *at = EL(FIELD_ROOT("subsets"), i);

		for (uint32_t k = 0; k < ep->subsets.v[i].addresses.n; k++)
			ip_warn(rq, AT(EL(AT(at, "addresses"), k), "ip"), ep->subsets.v[i].addresses.v[k].ip);
		for (uint32_t k = 0; k < ep->subsets.v[i].not_ready_addresses.n; k++)
			ip_warn(rq, AT(EL(AT(at, "notReadyAddresses"), k), "ip"), ep->subsets.v[i].not_ready_addresses.v[k].ip);
	}
}

/* ---- namespaces ---- */

static void namespace_finalizers(struct field_errors *e, const struct core_v1_namespace *n, bool indexed)
{
	const struct field_path *p = AT(FIELD_ROOT("spec"), "finalizers");

	for (uint32_t i = 0; i < n->spec.finalizers.n; i++) {
		struct str f = n->spec.finalizers.v[i];
		const struct field_path *at = indexed ? EL(p, i) : p;

		field_check(e, at, f, validate_qualified_name);
		if (str_index(f, '/') < 0 && !str_eqz(f, "kubernetes") && !str_eqz(f, "orphan") && !str_eqz(f, "foregroundDeletion"))
			field_invalid(e, at, f, "name is neither a standard finalizer name nor is it fully qualified");
	}
}

void namespace_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	namespace_finalizers(e, obj, false);
}

void namespace_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	(void)obj;
	(void)old;
	(void)e; /* metadata is all that can change */
}

void namespace_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_namespace *n = obj;
	const struct field_path *p = AT(FIELD_ROOT("status"), "Phase");

	(void)rq;
	(void)old;
	if (!strcmp(sub, "finalize"))
		namespace_finalizers(e, n, true);
	else if (!n->metadata.deletion_timestamp && !str_eqz(n->status.phase, "Active"))
		field_invalid(e, p, n->status.phase, "may only be 'Active' if `deletionTimestamp` is empty");
	else if (n->metadata.deletion_timestamp && !str_eqz(n->status.phase, "Terminating"))
		field_invalid(e, p, n->status.phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
}

/* ---- replication controllers ---- */

static void rc_rules(struct field_errors *e, const struct core_v1_replication_controller_spec *s, const struct core_v1_replication_controller_spec *o)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *t = AT(spec, "template");

	rule_nonneg(e, AT(spec, "minReadySeconds"), s->min_ready_seconds);
	if (!s->selector.n)
		field_required(e, AT(spec, "selector"), "");
	if (!s->replicas)
		field_required(e, AT(spec, "replicas"), "");
	rule_nonneg32(e, AT(spec, "replicas"), s->replicas);
	if (!s->template) {
		field_required(e, t, "");
		return;
	}
	if (s->selector.n && !selector_matches(label_selector_from_map(e->arena, API_MAP(&s->selector)), API_MAP(&s->template->metadata.labels)))
		field_invalid_map(e, AT(AT(t, "metadata"), "labels"), API_MAP(&s->template->metadata.labels),
				  "`selector` does not match template `labels`");
	rule_pod_template(e, t, s->template, o ? o->template : NULL);
	if (!str_eqz(s->template->spec.restart_policy, "Always"))
		field_unsupported(e, AT(AT(t, "spec"), "restartPolicy"), s->template->spec.restart_policy, "Always");
	if (s->template->spec.active_deadline_seconds)
		field_forbidden(e, AT(AT(t, "spec"), "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicationController is not Supported");
}

void rc_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	rc_rules(e, &((const struct core_v1_replication_controller *)obj)->spec, NULL);
}

void rc_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_replication_controller *r = obj, *o = old;

	(void)rq;
	rc_rules(e, &r->spec, &o->spec);
	/* what a conversion from ReplicaSets of old could not express must not be changed */
	for (uint32_t i = 0; i < o->metadata.annotations.n; i++) {
		struct str rest = o->metadata.annotations.v[i].key, value = o->metadata.annotations.v[i].value;

		if (!str_has_prefix(rest, STR("non-convertible.kubernetes.io")))
			continue;
		str_cut(&rest, '/');
		if (!rest.p || str_index(rest, '/') >= 0)
			continue;
		if (!str_contains(rest, STR("selector")))
			field_not_found_detail(e, FIELD_CHILD_S(NULL, rest), value, "unknown non-convertible field");
		else if (!object_field_equal(&core_v1_replication_controller_spec_type, &r->spec, &o->spec, "selector"))
			field_invalid_map(e, AT(FIELD_ROOT("spec"), "selector"), API_MAP(&r->spec.selector), "cannot update non-convertible selector");
	}
}

void rc_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_replication_controller_status *s = &((const struct core_v1_replication_controller *)obj)->status;
	const struct field_path *st = FIELD_ROOT("status");

	(void)rq;
	(void)old;
	if (strcmp(sub, "status"))
		return;
	rule_replica_status(e, st, s->replicas, s->fully_labeled_replicas, s->ready_replicas, s->available_replicas, s->observed_generation);
}

void rc_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_replication_controller *r = obj, *o = old;

	if (o && r->metadata.generation != o->metadata.generation)
		r = o; /* upstream's warnings of an update are of what it replaces */
	else if (o)
		return;
	if (r->spec.template)
		template_warn(rq, AT(FIELD_ROOT("spec"), "template"), r->spec.template);
}

/* ---- events ---- */

#define REASON_MAX 128
#define NOTE_MAX 1024

/* What every event has to pass. Old ones have no eventTime; for them the namespaces only are looked at. */
static void event_rules(struct field_errors *e, const struct core_v1_event *ev, bool core)
{
	const struct field_path *p = AT(FIELD_ROOT("involvedObject"), "namespace"),
				*controller = core ? FIELD_ROOT("reportingComponent") : FIELD_ROOT("reportingController");
	struct str ns = ev->involved_object.namespace, own = ev->metadata.namespace;
	const struct {
		const char *member;
		struct str v;
		size_t max;
		bool must;
	} texts[] = {{"reportingInstance", ev->reporting_instance, REASON_MAX, true}, {"action", ev->action, REASON_MAX, true},
		     {"reason", ev->reason, REASON_MAX, true}, {"message", ev->message, NOTE_MAX, false}};

	if (!ev->event_time.set) {
		/* events of cluster-scoped objects go to default */
		if (ns.n ? !str_eq(ns, own) : own.n && !str_eqz(own, "default"))
			field_invalid(e, p, ns, "does not match event.namespace");
	} else {
		if (!ns.n && !str_eqz(own, "default") && !str_eqz(own, "kube-system"))
			field_invalid(e, p, ns, "does not match event.namespace");
		rule_required(e, controller, ev->reporting_component);
		field_check(e, controller, ev->reporting_component, validate_qualified_name);
		for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
			const struct field_path *at = FIELD_CHILD_S(NULL, str_from(texts[i].member));

			if (texts[i].must)
				rule_required(e, at, texts[i].v);
			if (texts[i].v.n > texts[i].max)
				field_invalid(e, at, STR(""), "can have at most %zu characters", texts[i].max);
		}
	}
	field_check(e, FIELD_ROOT("namespace"), own, validate_dns1123_subdomain);
}

static void event_series(struct field_errors *e, const struct core_v1_event *ev)
{
	if (!ev->series)
		return;
	if (ev->series->count < 2)
		field_invalid(e, FIELD_ROOT("series.count"), STR(""), "should be at least 2");
	if (!ev->series->last_observed_time.set)
		field_required(e, FIELD_ROOT("series.lastObservedTime"), "");
}

void event_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_event *ev = obj;
	bool core = !str_eqz(rq->info.group, "events.k8s.io");

	event_rules(e, ev, core);
	if (core)
		return;
	validate_object_meta(e, &ev->metadata, true, NULL, FIELD_ROOT("metadata"), true);
	event_series(e, ev);
	if (!ev->event_time.set)
		field_required(e, FIELD_ROOT("eventTime"), "");
	if (!str_eqz(ev->type, "Normal") && !str_eqz(ev->type, "Warning"))
		field_invalid(e, FIELD_ROOT("type"), STR(""), "has invalid value: %.*s", STR_ARG(ev->type));
	if (ev->first_timestamp.set)
		field_invalid(e, FIELD_ROOT("firstTimestamp"), STR(""), "needs to be unset");
	if (ev->last_timestamp.set)
		field_invalid(e, FIELD_ROOT("lastTimestamp"), STR(""), "needs to be unset");
	if (ev->count)
		field_invalid(e, FIELD_ROOT("count"), STR(""), "needs to be unset");
	if (ev->source.component.n || ev->source.host.n)
		field_invalid(e, FIELD_ROOT("source"), STR(""), "needs to be unset");
}

void event_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	static const struct {
		const char *member, *path;
	} kept[] = {{"involvedObject", "involvedObject"}, {"reason", "reason"}, {"message", "message"}, {"source", "source"},
		    {"firstTimestamp", "firstTimestamp"}, {"lastTimestamp", "lastTimestamp"}, {"count", "count"}, {"reason", "reason"},
		    {"type", "type"}, {"eventTime", "eventTime"}, {"action", "action"}, {"related", "related"},
		    {"reportingComponent", "reportingController"}, {"reportingInstance", "reportingInstance"}};
	bool core = !str_eqz(rq->info.group, "events.k8s.io");

	event_rules(e, obj, core);
	if (core)
		return;
	if (!object_field_equal(&core_v1_event_type, obj, old, "series"))
		event_series(e, obj);
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		rule_immutable(e, FIELD_CHILD_S(NULL, str_from(kept[i].path)), &core_v1_event_type, obj, old, kept[i].member);
}
