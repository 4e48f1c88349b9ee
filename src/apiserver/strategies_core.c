/* Strategies of core/v1: pods, namespaces, nodes, services, secrets and the rest. Validation in depth stands in validate_*.c. */
#include "apiserver/alloc.h"
#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"
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
	str_map_set(rq->a, API_MAP(&n->metadata.labels), STR("kubernetes.io/metadata.name"), n->metadata.name);
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
	.plural = STR_INIT("namespaces"), .return_deleted = true, .keep_status_on_create = true, .name_check = validate_dns1123_label,
	.normalize = namespace_normalize, .prepare_create = namespace_create, .prepare_update = namespace_update,
	.prepare_sub_update = namespace_sub, .fields = namespace_fields, .n_fields = 1,
};

/* ---- nodes ---- */

static const struct cache_field node_fields[] = {{.name = STR_INIT("spec.unschedulable"), .absent = STR_INIT("false")}};
static const struct strategy nodes = {
	.plural = STR_INIT("nodes"), .keep_status_on_create = true, .fields = node_fields, .n_fields = 1,
};

/* ---- services: addresses and ports are alloc.c's ---- */

static const struct cache_field service_fields[] = {{.name = STR_INIT("spec.clusterIP")}, {.name = STR_INIT("spec.type")}};
static const struct strategy services = {
	.plural = STR_INIT("services"), .create_on_update = true, .return_deleted = true, .name_check = validate_dns1035_label,
	.prepare_create = service_prepare_create, .prepare_update = service_prepare_update, .begin_write = service_begin_write,
	.end_write = service_end_write, .validate = service_validate, .validate_update = service_validate_update,
	.fields = service_fields, .n_fields = 2,
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

static void data_keys(struct field_errors *e, const struct str_map *m, const struct field_path *p)
{
	for (uint32_t i = 0; i < m->n; i++) {
		const char *msg = validate_config_map_key(e->arena, m->v[i].key);

		if (msg)
			field_invalid(e, FIELD_KEY(p, m->v[i].key), m->v[i].key, "%s", msg);
	}
}

static void secret_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_secret *s = obj;
	size_t total = 0;

	(void)rq;
	data_keys(e, API_MAP(&s->data), FIELD_ROOT("data"));
	for (uint32_t i = 0; i < s->data.n; i++)
		total += s->data.v[i].value.n;
	if (total > 1 << 20)
		field_too_long(e, FIELD_ROOT("data"), 1 << 20);
	struct {
		const char *type, *keys[2];
		bool any;
	} const want[] = {
		{"kubernetes.io/dockercfg", {".dockercfg"}, false},
		{"kubernetes.io/dockerconfigjson", {".dockerconfigjson"}, false},
		{"kubernetes.io/basic-auth", {"username", "password"}, true},
		{"kubernetes.io/ssh-auth", {"ssh-privatekey"}, false},
		{"kubernetes.io/tls", {"tls.crt", "tls.key"}, false},
	};
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		bool found = false;

		if (!str_eqz(s->type, want[i].type))
			continue;
		for (int k = 0; k < 2 && want[i].keys[k]; k++) {
			bool has = str_map_has(API_MAP(&s->data), str_from(want[i].keys[k]));

			found |= has;
			if (!has && !want[i].any)
				field_required(e, FIELD_KEY(FIELD_ROOT("data"), str_from(want[i].keys[k])), "");
		}
		if (want[i].any && !found) {
			field_required(e, FIELD_KEY(FIELD_ROOT("data"), STR("username")), "");
			field_required(e, FIELD_KEY(FIELD_ROOT("data"), STR("password")), "");
		}
	}
	if (str_eqz(s->type, "kubernetes.io/service-account-token") &&
	    !str_map_get(API_MAP(&s->metadata.annotations), STR("kubernetes.io/service-account.name")).n)
		field_required(e, FIELD_KEY(FIELD_CHILD(FIELD_ROOT("metadata"), "annotations"), STR("kubernetes.io/service-account.name")), "");
}

static void immutable_data(struct field_errors *e, bool was, const bool *now, bool changed)
{
	if (!was)
		return;
	if (!now || !*now)
		field_forbidden(e, FIELD_ROOT("immutable"), "field is immutable when `immutable` is set");
	if (changed)
		field_forbidden(e, FIELD_ROOT("data"), "field is immutable when `immutable` is set");
}

static void secret_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_secret *s = obj, *o = old;

	if (!str_eq(s->type, o->type))
		field_invalid(e, FIELD_ROOT("type"), s->type, "field is immutable");
	immutable_data(e, o->immutable && *o->immutable, s->immutable, !object_field_equal(&core_v1_secret_type, s, o, "data"));
	secret_validate(rq, obj, e);
}

static const struct cache_field secret_fields[] = {{.name = STR_INIT("type")}};
static const struct strategy secrets = {
	.plural = STR_INIT("secrets"), .normalize = secret_normalize, .prepare_update = secret_update, .validate = secret_validate,
	.validate_update = secret_validate_update, .fields = secret_fields, .n_fields = 1,
};

static void configmap_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_config_map *c = obj;
	size_t total = 0;

	(void)rq;
	data_keys(e, API_MAP(&c->data), FIELD_ROOT("data"));
	data_keys(e, API_MAP(&c->binary_data), FIELD_ROOT("binaryData"));
	for (uint32_t i = 0; i < c->data.n; i++) {
		total += c->data.v[i].value.n;
		if (str_map_has(API_MAP(&c->binary_data), c->data.v[i].key))
			field_invalid(e, FIELD_KEY(FIELD_ROOT("data"), c->data.v[i].key), c->data.v[i].key, "duplicate of key present in binaryData");
	}
	for (uint32_t i = 0; i < c->binary_data.n; i++)
		total += c->binary_data.v[i].value.n;
	if (total > 1 << 20)
		field_too_long(e, FIELD_ROOT(""), 1 << 20);
}

static void configmap_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_config_map *c = obj, *o = old;

	immutable_data(e, o->immutable && *o->immutable, c->immutable,
		       !object_field_equal(&core_v1_config_map_type, c, o, "data") ||
			       !object_field_equal(&core_v1_config_map_type, c, o, "binaryData"));
	configmap_validate(rq, obj, e);
}

static const struct strategy configmaps = {
	.plural = STR_INIT("configmaps"), .validate = configmap_validate, .validate_update = configmap_validate_update,
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
	.plural = STR_INIT("events"), .create_on_update = true, .fields = event_fields, .n_fields = sizeof event_fields / sizeof *event_fields, .validate = event_validate,
};
static const struct cache_field rc_fields[] = {{.name = STR_INIT("status.replicas"), .absent = STR_INIT("0")}};
static const struct strategy replicationcontrollers = {
	.plural = STR_INIT("replicationcontrollers"), .generation = true, .orphan_by_default = true, .fields = rc_fields, .n_fields = 1, .validate = rc_validate,
};
static const struct strategy endpoints = {.plural = STR_INIT("endpoints"), .create_on_update = true};
static const struct strategy limitranges = {.plural = STR_INIT("limitranges"), .create_on_update = true};
static const struct strategy resourcequotas = {.plural = STR_INIT("resourcequotas"), .return_deleted = true};
static const struct strategy serviceaccounts = {.plural = STR_INIT("serviceaccounts"), .return_deleted = true};

static void pv_create(struct request *rq, void *obj)
{
	struct core_v1_persistent_volume *v = obj;

	(void)rq;
	memset(&v->status, 0, sizeof v->status);
	v->status.phase = STR("Pending");
	v->status.last_phase_transition_time = arena_new(rq->a, struct api_time);
	*v->status.last_phase_transition_time = time_now();
}

static void pvc_create(struct request *rq, void *obj)
{
	struct core_v1_persistent_volume_claim *c = obj;

	(void)rq;
	memset(&c->status, 0, sizeof c->status);
	c->status.phase = STR("Pending");
}

static const struct strategy persistentvolumes = {
	.plural = STR_INIT("persistentvolumes"), .return_deleted = true, .keep_status_on_create = true, .prepare_create = pv_create,
};
static const struct strategy persistentvolumeclaims = {
	.plural = STR_INIT("persistentvolumeclaims"), .return_deleted = true, .keep_status_on_create = true, .prepare_create = pvc_create, 
	.validate = pvc_validate, .validate_update = pvc_validate_update,
};

const struct strategy *const strategies_core[] = {
	&strategy_pods, &strategy_podtemplates, &namespaces, &nodes, &services, &secrets, &configmaps, &events, &replicationcontrollers, &endpoints, &limitranges,
	&resourcequotas, &serviceaccounts, &persistentvolumes, &persistentvolumeclaims, NULL,
};
