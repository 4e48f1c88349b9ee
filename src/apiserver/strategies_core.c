/* Strategies of core/v1: pods, namespaces, nodes, services, secrets and the rest. Validation in depth stands in validate_*.c. */
#include "schema/defaults.h"
#include "apiserver/alloc.h"
#include "apiserver/validate_pod.h"
#include "apiserver/validate_core.h"
#include "schema/quantity.h"
#include "apiserver/server.h"

/* ---- namespaces ---- */

static void namespace_normalize(struct arena *a, void *obj)
{
	struct core_v1_namespace *n = obj;

	if (n->metadata.name.n)
		str_map_set(a, API_MAP(&n->metadata.labels), STR("kubernetes.io/metadata.name"), n->metadata.name);
}

static void namespace_create(struct request *rq, void *obj)
{
	struct core_v1_namespace *n = obj;
	bool has = false;

	memset(&n->status, 0, sizeof n->status);
	n->status.phase = STR("Active");
	for (uint32_t i = 0; i < n->spec.finalizers.n; i++)
		has |= str_eqz(n->spec.finalizers.v[i], "kubernetes");
	if (!has)
		*arena_push(rq->a, &n->spec.finalizers) = STR("kubernetes");
}

static void namespace_canonicalize(struct request *rq, void *obj)
{
	namespace_normalize(rq->a, obj);
}

static void namespace_update(struct request *rq, void *obj, const void *old)
{
	struct core_v1_namespace *n = obj;
	const struct core_v1_namespace *o = old;

	(void)rq;
	n->spec = o->spec;
	n->status = o->status;
}

static void namespace_sub(struct request *rq, const char *sub, void *obj, const void *old)
{
	struct core_v1_namespace *n = obj;
	const struct core_v1_namespace *o = old;

	(void)rq;
	if (!strcmp(sub, "status"))
		n->spec = o->spec;
	else if (!strcmp(sub, "finalize"))
		n->status = o->status;
}

static const struct cache_field namespace_fields[] = {{.name = STR_INIT("status.phase")}};
static const struct strategy namespaces = {
	.plural = STR_INIT("namespaces"), .meta_update = "M*U", .return_deleted = true, .keep_status_on_create = true, .name_check = validate_dns1123_label,
	.normalize = namespace_normalize, .canonicalize = namespace_canonicalize, .prepare_create = namespace_create, .prepare_update = namespace_update,
	.prepare_sub_update = namespace_sub, .fields = namespace_fields, .n_fields = 1,
	.checks_all = true, .validate = namespace_validate, .validate_update = namespace_validate_update, .validate_sub_update = namespace_validate_sub,
};

/* ---- nodes ---- */

/* podCIDR is the first of podCIDRs, and comes first when they differ. */
static void node_normalize(struct arena *a, void *obj)
{
	struct core_v1_node *n = obj;

	if (n->spec.pod_cidr.n && (!n->spec.pod_cidrs.n || !str_eq(n->spec.pod_cidrs.v[0], n->spec.pod_cidr))) {
		memset(&n->spec.pod_cidrs, 0, sizeof n->spec.pod_cidrs);
		*arena_push(a, &n->spec.pod_cidrs) = n->spec.pod_cidr;
	}
	n->spec.pod_cidr = n->spec.pod_cidrs.n ? n->spec.pod_cidrs.v[0] : STR_NULL;
}

/* An empty map is none by the time the store gives it back, and then it is the capacity. */
static void node_canonicalize(struct request *rq, void *obj)
{
	struct core_v1_node *n = obj;

	(void)rq;
	if (!n->status.allocatable.n)
		n->status.allocatable.v = NULL;
}

/* Dynamic kubelet configuration is gone: kept only where it stands already. */
static void node_create(struct request *rq, void *obj)
{
	(void)rq;
	((struct core_v1_node *)obj)->spec.config_source = NULL;
	((struct core_v1_node *)obj)->status.config = NULL;
}

static void node_update(struct request *rq, void *obj, const void *old)
{
	(void)rq;
	if (!((const struct core_v1_node *)old)->spec.config_source)
		((struct core_v1_node *)obj)->spec.config_source = NULL;
}

static void node_sub_update(struct request *rq, const char *sub, void *obj, const void *old)
{
	struct core_v1_node *n = obj;

	(void)rq;
	(void)sub;
	n->spec = ((const struct core_v1_node *)old)->spec;
	if (!((const struct core_v1_node *)old)->status.config)
		n->status.config = NULL;
}

static const struct cache_field node_fields[] = {{.name = STR_INIT("spec.unschedulable"), .absent = STR_INIT("false")}};
static const struct strategy nodes = {
	.plural = STR_INIT("nodes"), .keep_status_on_create = true, .fields = node_fields, .n_fields = 1,
	.checks_all = true, .meta_update = "MCU*", .normalize = node_normalize, .canonicalize = node_canonicalize, .prepare_create = node_create, .prepare_update = node_update,
	.prepare_sub_update = node_sub_update, .validate = node_validate, .validate_update = node_validate_update, .validate_sub_update = node_validate_sub, .warn = node_warn,
};

/* ---- services: addresses and ports are alloc.c's ---- */

static const struct cache_field service_fields[] = {{.name = STR_INIT("spec.clusterIP")}, {.name = STR_INIT("spec.type")}};
/*
 * What has no address has no policy of it: it is kept for the time when there is one again. And where an address says nothing, nobody has
 * looked at whether there are several.
 */
static bool service_shown(struct arena *a, void *obj)
{
	struct core_v1_service_spec *sp = &((struct core_v1_service *)obj)->spec;
	bool hidden = sp->internal_traffic_policy && str_eqz(sp->type, "ExternalName"), alone = sp->cluster_ip.n && !sp->cluster_ips.n;

	if (hidden)
		sp->internal_traffic_policy = NULL;
	if (alone)
		*arena_push(a, &sp->cluster_ips) = sp->cluster_ip;
	return hidden || alone;
}

/* Services from before addresses and families were several (upstream's defaultOnRead). */
static void service_on_read(const struct apiserver *s, struct arena *a, struct str api_version, void *obj)
{
	const char *range = s->o.service_cidr ? s->o.service_cidr : "";
	bool six = memchr(range, ':', strcspn(range, ",")) != NULL;
	struct core_v1_service *o = obj;
	struct core_v1_service_spec *sp = &o->spec;

	(void)api_version;
	service_shown(a, o);
	if (str_eqz(sp->type, "ExternalName") || sp->ip_families.n || !sp->cluster_ips.n)
		return;
	if (str_eqz(sp->cluster_ip, "None")) {
		*arena_push(a, &sp->ip_families) = six ? STR("IPv6") : STR("IPv4");
		if (!sp->selector.n)
			*arena_push(a, &sp->ip_families) = six ? STR("IPv4") : STR("IPv6");
	} else {
		for (uint32_t i = 0; i < sp->cluster_ips.n; i++)
			*arena_push(a, &sp->ip_families) = str_index(sp->cluster_ips.v[i], ':') >= 0 ? STR("IPv6") : STR("IPv4");
	}
	sp->ip_family_policy = arena_new(a, struct str);
	*sp->ip_family_policy = sp->ip_families.n == 1 ? STR("SingleStack") : STR("RequireDualStack");
}

static const struct strategy services = {
	.on_read = service_on_read, .shown = service_shown,
	.plural = STR_INIT("services"), .checks_all = true, .create_on_update = true, .return_deleted = true, .name_check = validate_dns1123_label,
	.prepare_create = service_prepare_create, .prepare_update = service_prepare_update, .begin_write = service_begin_write,
	.end_write = service_end_write, .validate = service_validate, .validate_update = service_validate_update,
	.validate_sub_update = service_validate_sub, .warn = service_warn, .fields = service_fields, .n_fields = 2,
};

/* ---- secrets, config maps ---- */

static void secret_normalize(struct arena *a, void *obj)
{
	struct core_v1_secret *s = obj;

	for (uint32_t i = 0; i < s->string_data.n; i++) {
		struct str v = s->string_data.v[i].value;

		str_map_set(a, API_MAP(&s->data), s->string_data.v[i].key, v.p ? v : STR(""));
	}
	memset(&s->string_data, 0, sizeof s->string_data);
}

static void secret_update(struct request *rq, void *obj, const void *old)
{
	struct core_v1_secret *s = obj;

	(void)rq;
	/* an absent type is the old one */
	if (!s->type.n)
		s->type = ((const struct core_v1_secret *)old)->type;
}

static const struct cache_field secret_fields[] = {{.name = STR_INIT("type")}};
static const struct strategy secrets = {
	.plural = STR_INIT("secrets"), .normalize = secret_normalize, .prepare_update = secret_update, .fields = secret_fields, .n_fields = 1,
	.checks_all = true, .meta_update = "U*MC", .validate = secret_validate, .validate_update = secret_validate_update, .warn = secret_warn,
};

static const struct strategy configmaps = {
	.plural = STR_INIT("configmaps"),
	.checks_all = true, .meta_update = "U*MC", .validate = configmap_validate, .validate_update = configmap_validate_update,
};

/* ---- the rest ---- */

static const struct cache_field event_fields[] = {
	{.name = STR_INIT("involvedObject.kind")}, {.name = STR_INIT("involvedObject.namespace")}, {.name = STR_INIT("involvedObject.name")},
	{.name = STR_INIT("involvedObject.uid")}, {.name = STR_INIT("involvedObject.apiVersion")},
	{.name = STR_INIT("involvedObject.resourceVersion")}, {.name = STR_INIT("involvedObject.fieldPath")}, {.name = STR_INIT("reason")},
	{.name = STR_INIT("reportingComponent")},
	{.name = STR_INIT("source"), .path = STR_INIT("source.component"), .path2 = STR_INIT("reportingComponent")},
	{.name = STR_INIT("type")},
};
static const struct strategy events = {
	.plural = STR_INIT("events"), .meta_create = "*", .meta_update = "*", .create_on_update = true, .fields = event_fields, .n_fields = sizeof event_fields / sizeof *event_fields,
	.checks_all = true, .name_check = validate_path_segment, .validate = event_validate, .validate_update = event_validate_update,
};
static void rc_normalize(struct arena *a, void *obj)
{
	struct core_v1_replication_controller *r = obj;

	if (r->spec.template)
		pod_spec_normalize(a, &r->spec.template->spec);
}

static const struct cache_field rc_fields[] = {{.name = STR_INIT("status.replicas"), .absent = STR_INIT("0")}};
static const struct strategy replicationcontrollers = {
	.plural = STR_INIT("replicationcontrollers"), .meta_create = "N*", .generation = true, .orphan_by_default = true, .fields = rc_fields, .n_fields = 1,
	.checks_all = true, .normalize = rc_normalize, .validate = rc_validate, .validate_update = rc_validate_update, .validate_sub_update = rc_validate_sub, .warn = rc_warn,
};
/* A LimitRange may come without a name. */
static void limitrange_create(struct request *rq, void *obj)
{
	struct core_v1_limit_range *r = obj;

	if (!r->metadata.name.n) {
		char uuid[37];

		random_uuid(uuid);
		r->metadata.name = arena_str(rq->a, str_from(uuid));
	}
}

/* Of its Secrets, a ServiceAccount keeps the names. */
static void serviceaccount_create(struct request *rq, void *obj)
{
	struct core_v1_service_account *s = obj;

	(void)rq;
	for (uint32_t i = 0; i < s->secrets.n; i++)
		s->secrets.v[i] = (struct core_v1_object_reference){.name = s->secrets.v[i].name};
}

static void serviceaccount_update(struct request *rq, void *obj, const void *old)
{
	(void)old;
	serviceaccount_create(rq, obj);
}

static void serviceaccount_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_service_account *now = obj, *was = old;
	struct str key = STR("kubernetes.io/enforce-mountable-secrets");

	if (str_map_has(API_MAP(&now->metadata.annotations), key) && (!was || !str_map_has(API_MAP(&was->metadata.annotations), key)))
		request_warn(rq, "metadata.annotations[%.*s]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
			     STR_ARG(key));
}

static const struct strategy endpoints = {.plural = STR_INIT("endpoints"), .create_on_update = true,
	.checks_all = true, .meta_update = "UM*", .validate = endpoints_validate, .validate_update = endpoints_validate_update, .warn = endpoints_warn,
};
static const struct strategy limitranges = {.plural = STR_INIT("limitranges"), .meta_update = "M*", .create_on_update = true,
	.checks_all = true, .prepare_create = limitrange_create, .validate = limitrange_validate,
};
static const struct strategy resourcequotas = {.plural = STR_INIT("resourcequotas"), .return_deleted = true,
	.checks_all = true, .validate = quota_validate, .validate_update = quota_validate_update, .validate_sub_update = quota_validate_sub, .warn = quota_warn,
};
static const struct strategy serviceaccounts = {.plural = STR_INIT("serviceaccounts"), .return_deleted = true,
	.checks_all = true, .meta_update = "UM*", .prepare_create = serviceaccount_create, .prepare_update = serviceaccount_update, .warn = serviceaccount_warn,
};

static void pv_create(struct request *rq, void *obj)
{
	struct core_v1_persistent_volume *v = obj;

	(void)rq;
	memset(&v->status, 0, sizeof v->status);
	v->status.phase = STR("Pending");
	v->status.last_phase_transition_time = arena_new(rq->a, struct api_time);
	*v->status.last_phase_transition_time = time_now();
}

/* A status with another phase, or without the time of the last, gets that time. */
static void pv_sub_update(struct request *rq, const char *sub, void *obj, const void *old)
{
	struct core_v1_persistent_volume *v = obj;
	const struct core_v1_persistent_volume *o = old;
	struct api_time *now = v->status.last_phase_transition_time, *was = o->status.last_phase_transition_time;

	(void)sub;
	v->spec = o->spec;
	if (str_eq(v->status.phase, o->status.phase)) {
		if (!now)
			v->status.last_phase_transition_time = was;
	} else if (!now || (was && now->set == was->set && now->s == was->s)) {
		v->status.last_phase_transition_time = arena_new(rq->a, struct api_time);
		*v->status.last_phase_transition_time = time_now();
	}
}

/* dataSource and dataSourceRef, one made of the other. */
static void same_source(struct arena *a, struct core_v1_persistent_volume_claim_spec *s)
{
	const struct core_v1_typed_local_object_reference *d = s->data_source;
	const struct core_v1_typed_object_reference *r = s->data_source_ref;

	if (d && !r) {
		s->data_source_ref = arena_new(a, struct core_v1_typed_object_reference);
		s->data_source_ref->api_group = d->api_group;
		s->data_source_ref->kind = d->kind;
		s->data_source_ref->name = d->name;
	} else if (r && !d && !(r->namespace && r->namespace->n)) {
		s->data_source = arena_new(a, struct core_v1_typed_local_object_reference);
		s->data_source->api_group = r->api_group;
		s->data_source->kind = r->kind;
		s->data_source->name = r->name;
	}
}

/*
 * dataSource and dataSourceRef say the same; the older one knows claims and snapshots only, unless a source is there already (KEP-1495).
 * References to other namespaces (CrossNamespaceVolumeDataSource) are off.
 */
static void data_sources(struct arena *a, struct core_v1_persistent_volume_claim_spec *s, const struct core_v1_persistent_volume_claim_spec *old)
{
	const struct core_v1_typed_local_object_reference *d = s->data_source;
	const struct core_v1_typed_object_reference *r = s->data_source_ref;
	struct str group = d && d->api_group ? *d->api_group : STR("");

	if (r && r->namespace && r->namespace->n && !(old && old->data_source_ref))
		r = s->data_source_ref = NULL;
	if (!(old && (old->data_source || old->data_source_ref)) && !r && d && !(!group.n && str_eqz(d->kind, "PersistentVolumeClaim")) &&
	    !(str_eqz(group, "snapshot.storage.k8s.io") && str_eqz(d->kind, "VolumeSnapshot")))
		s->data_source = NULL;
	same_source(a, s);
}

static void pvc_update(struct request *rq, void *obj, const void *old)
{
	struct core_v1_persistent_volume_claim *c = obj;

	c->status = ((const struct core_v1_persistent_volume_claim *)old)->status;
	data_sources(rq->a, &c->spec, &((const struct core_v1_persistent_volume_claim *)old)->spec);
}

static void pvc_create(struct request *rq, void *obj)
{
	struct core_v1_persistent_volume_claim *c = obj;

	data_sources(rq->a, &c->spec, NULL);
	memset(&c->status, 0, sizeof c->status);
}

static void pvc_on_read(const struct apiserver *s, struct arena *a, struct str api_version, void *obj)
{
	(void)s;
	(void)api_version;
	same_source(a, &((struct core_v1_persistent_volume_claim *)obj)->spec);
}

static bool pvc_shown(struct arena *a, void *obj)
{
	struct core_v1_persistent_volume_claim *c = obj;
	bool lacks = !c->status.phase.n;

	(void)a;
	if (lacks)
		c->status.phase = STR("Pending");
	return lacks;
}

static void pvc_unfill(void *obj)
{
	((struct core_v1_persistent_volume_claim *)obj)->status.phase = STR_NULL;
}

static const struct strategy persistentvolumes = {
	.plural = STR_INIT("persistentvolumes"), .return_deleted = true, .keep_status_on_create = true, .prepare_create = pv_create, .prepare_sub_update = pv_sub_update,
	.checks_all = true, .meta_update = "*", .validate = pv_validate, .validate_update = pv_validate_update, .validate_sub_update = pv_validate_sub, .warn = pv_warn,
};
static const struct strategy persistentvolumeclaims = {
	.on_read = pvc_on_read,
	.plural = STR_INIT("persistentvolumeclaims"), .shown = pvc_shown, .unfill = pvc_unfill,
	.return_deleted = true, .keep_status_on_create = true, .prepare_create = pvc_create, .prepare_update = pvc_update,
	.checks_all = true, .meta_update = "UM*", .validate = pvc_validate, .validate_update = pvc_validate_update, .validate_sub_update = pvc_validate_sub, .warn = pvc_warn,
};

const struct strategy *const strategies_core[] = {
	&strategy_pods, &strategy_podtemplates, &namespaces, &nodes, &services, &secrets, &configmaps, &events, &replicationcontrollers, &endpoints, &limitranges,
	&resourcequotas, &serviceaccounts, &persistentvolumes, &persistentvolumeclaims, NULL,
};
