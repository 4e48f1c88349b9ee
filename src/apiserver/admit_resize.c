/* What the node of a running pod can give it: more resources (PodResizeValidator), changes that are new (NodeDeclaredFeatureValidator). */
#include "apiserver/admission.h"
#include "apiserver/server.h"
#include "schema/quantity.h"
#include "schema/quota.h"

/* ---- PodResizeValidator ---- */

static struct error *resize_refused(struct admission *a, const char *cause, struct str why)
{
	struct error *e = admission_forbidden(a, "%.*s", STR_ARG(why));

	error_add_cause(e, cause, "", "%.*s", STR_ARG(why));
	return e;
}

static void too_much(struct buf *b, const char *name, const struct str_map *requests, const struct str_map *have)
{
	struct str want = str_map_get(requests, str_from(name)), there = str_map_get(have, str_from(name));

	if (want.n && quantity_cmp(want, there.n ? there : STR("0")) > 0)
		buf_printf(b, "%s%s, requested: %.*s, allocatable: %.*s", b->n ? "; " : "", name, STR_ARG(want), STR_ARG(there.n ? there : STR("0")));
}

/* A resize that the pod's node can never give is refused at once. */
static struct error *resize(struct admission *a)
{
	const struct core_v1_pod *p = a->obj;
	struct buf b buf_cleanup = {0};
	struct core_v1_node *n;
	struct str_map requests;
	struct str os;

	if (!admission_is(a, "", "pods", "resize") || !p->spec.node_name.n || object_field_equal(&core_v1_pod_type, p, a->old, "spec"))
		return NULL;
	n = registry_peek(a->rq->s, a->rq->a, storage_find(a->rq->s, STR(""), STR("nodes")), STR_NULL, p->spec.node_name);
	if (!n)
		return admission_forbidden(a, "node \"%.*s\" not found", STR_ARG(p->spec.node_name));
	os = str_map_get(API_MAP(&n->metadata.labels), STR("kubernetes.io/os"));
	if (os.p && !str_eqz(os, "linux"))
		return resize_refused(a, "UnsupportedPlatform", arena_printf(a->rq->a, "pod resize is only supported on linux nodes, node \"%.*s\" is \"%.*s\"",
									     STR_ARG(n->metadata.name), STR_ARG(os)));
	pod_total_requests(a->rq->a, p, &requests);
	too_much(&b, "cpu", &requests, API_MAP(&n->status.allocatable));
	too_much(&b, "memory", &requests, API_MAP(&n->status.allocatable));
	if (!b.n)
		return NULL;
	return resize_refused(a, "NodeCapacity", arena_printf(a->rq->a, "node didn't have enough allocatable resources: %s", buf_z(&b)));
}

const struct admission_plugin admit_pod_resize = {.name = "PodResizeValidator", .ops = ADMIT_UPDATE, .validate = resize};

/* ---- what a node must say that it can (NodeDeclaredFeatureValidator) ---- */

static bool init_container_resized(const struct core_v1_pod_spec *s, const struct core_v1_pod_spec *old)
{
	for (uint32_t i = 0; i < old->init_containers.n && i < s->init_containers.n; i++) {
		const struct core_v1_container *c = &old->init_containers.v[i];

		if (!(c->restart_policy && str_eqz(*c->restart_policy, "Always")) &&
		    !object_equal(&core_v1_resource_requirements_type, &c->resources, &s->init_containers.v[i].resources))
			return true;
	}
	return false;
}

static bool pod_resized(const struct core_v1_pod_spec *s, const struct core_v1_pod_spec *old)
{
	if (!s->resources || !old->resources)
		return s->resources != old->resources;
	return !object_equal(&core_v1_resource_requirements_type, s->resources, old->resources);
}

/* Of the features that nodes declare, those that an update of a running pod may need (KEP-5328), sorted. */
static struct error *declared_features(struct admission *a)
{
	static const struct {
		const char *feature;
		bool (*needed)(const struct core_v1_pod_spec *s, const struct core_v1_pod_spec *old);
	} needs[] = {{"InPlacePodLevelResourcesVerticalScaling", pod_resized},
		     {"InPlacePodVerticalScalingInitContainers", init_container_resized}};
	const struct core_v1_pod *p = a->obj, *old = a->old;
	const struct core_v1_node *n = NULL;
	struct buf missing buf_cleanup = {0};

	if (!(admission_is(a, "", "pods", "") || admission_is(a, "", "pods", "resize")) || !p->spec.node_name.n ||
	    p->metadata.generation == old->metadata.generation)
		return NULL;
	for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
		bool has = false;

		if (!needs[i].needed(&p->spec, &old->spec))
			continue;
		if (!n)
			n = registry_peek(a->rq->s, a->rq->a, storage_find(a->rq->s, STR(""), STR("nodes")), STR_NULL, p->spec.node_name);
		if (!n)
			return admission_forbidden(a, "node \"%.*s\" not found", STR_ARG(p->spec.node_name));
		for (uint32_t k = 0; k < n->status.declared_features.n; k++)
			has |= str_eqz(n->status.declared_features.v[k], needs[i].feature);
		if (!has)
			buf_printf(&missing, "%s%s", missing.n ? ", " : "", needs[i].feature);
	}
	if (!missing.n)
		return NULL;
	return admission_forbidden(a, "pod update requires features %s which are not available on node \"%.*s\"", buf_z(&missing),
				   STR_ARG(p->spec.node_name));
}

const struct admission_plugin admit_declared_features = {.name = "NodeDeclaredFeatureValidator", .ops = ADMIT_UPDATE, .validate = declared_features};
