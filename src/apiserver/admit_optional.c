/*
 * Admission plugins that are off unless --enable-admission-plugins names them: AlwaysAdmit, AlwaysDeny, NamespaceAutoProvision,
 * NamespaceExists, LimitPodHardAntiAffinityTopology, AlwaysPullImages, PodNodeSelector, ExtendedResourceToleration,
 * DenyServiceExternalIPs, OwnerReferencesPermissionEnforcement (upstream's plugin/pkg/admission).
 */
#include "apiserver/admission.h"
#include "apiserver/authz.h"
#include "apiserver/convert.h"
#include "apiserver/custom.h"
#include "apiserver/rules.h"
#include "apiserver/server.h"
#include "schema/defaults.h"
#include "schema/jv.h"

#define EVERY_OP (ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE | ADMIT_CONNECT)

static struct core_v1_pod *pod_of(const struct admission *a)
{
	return admission_is(a, "", "pods", "") ? a->obj : NULL;
}

static struct core_v1_namespace *namespace_of(const struct admission *a)
{
	return registry_peek(a->rq->s, a->rq->a, storage_find(a->rq->s, STR(""), STR("namespaces")), STR_NULL, a->ns);
}

/* In a namespace, and not the namespace itself. */
static bool in_namespace(const struct admission *a)
{
	return a->ns.n && !str_eqz(a->kind, "Namespace");
}

/* ---- AlwaysAdmit, AlwaysDeny ---- */

const struct admission_plugin admit_always = {.name = "AlwaysAdmit", .off_by_default = true};

static struct error *deny(struct admission *a)
{
	return a->rq->internal ? NULL : admission_forbidden(a, "admission control is denying all modifications");
}

const struct admission_plugin admit_never = {.name = "AlwaysDeny", .ops = EVERY_OP, .off_by_default = true, .admit = deny, .validate = deny};

/* ---- NamespaceExists, NamespaceAutoProvision ---- */

static struct error *exists(struct admission *a)
{
	if (!in_namespace(a) || namespace_of(a))
		return NULL;
	return err_not_found(STR(""), STR("namespaces"), a->ns);
}

const struct admission_plugin admit_namespace_exists = {
	.name = "NamespaceExists", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE, .off_by_default = true, .validate = exists,
};

static struct error *provision(struct admission *a)
{
	struct core_v1_namespace *ns;
	struct write_result res;
	struct request rq;
	struct error *e;

	if (a->dry_run || !in_namespace(a) || namespace_of(a))
		return NULL;
	request_internal(&rq, a->rq->s, a->rq->a, resource_any(a->rq->s, STR(""), STR("namespaces")), STR_NULL);
	ns = arena_new(a->rq->a, struct core_v1_namespace);
	ns->metadata.name = a->ns;
	object_default(a->rq->a, &core_v1_namespace_type, ns);
	e = registry_create(&rq, ns, &res);
	if (e && !error_is(e, 409, "AlreadyExists"))
		return admission_forbidden(a, "%s", e->message);
	if (!e)
		cache_entry_unref(res.entry);
	error_free(e);
	return NULL;
}

const struct admission_plugin admit_namespace_provision = {
	.name = "NamespaceAutoProvision", .ops = ADMIT_CREATE, .off_by_default = true, .admit = provision,
};

/* ---- LimitPodHardAntiAffinityTopology ---- */

static struct error *anti_affinity(struct admission *a)
{
	const struct core_v1_pod *p = pod_of(a);
	const struct core_v1_pod_anti_affinity *x = p && p->spec.affinity ? p->spec.affinity->pod_anti_affinity : NULL;

	for (uint32_t i = 0; x && i < x->required_during_scheduling_ignored_during_execution.n; i++) {
		struct str key = x->required_during_scheduling_ignored_during_execution.v[i].topology_key;

		if (!str_eqz(key, "kubernetes.io/hostname"))
			return admission_forbidden(a, "a required anti-affinity has the topology key %.*s, but only kubernetes.io/hostname is allowed",
						   STR_ARG(key));
	}
	return NULL;
}

const struct admission_plugin admit_hard_anti_affinity = {
	.name = "LimitPodHardAntiAffinityTopology", .ops = ADMIT_CREATE | ADMIT_UPDATE, .off_by_default = true, .validate = anti_affinity,
};

/* ---- AlwaysPullImages ---- */

struct puller {
	struct str *image, *policy;
};

/* All containers of a pod, of whatever kind. */
static size_t containers_of(struct arena *a, struct core_v1_pod_spec *s, struct puller **out)
{
	struct puller *c = arena_array(a, struct puller, s->containers.n + s->init_containers.n + s->ephemeral_containers.n + 1);
	size_t n = 0;

	for (uint32_t i = 0; i < s->init_containers.n; i++)
		c[n++] = (struct puller){&s->init_containers.v[i].image, &s->init_containers.v[i].image_pull_policy};
	for (uint32_t i = 0; i < s->containers.n; i++)
		c[n++] = (struct puller){&s->containers.v[i].image, &s->containers.v[i].image_pull_policy};
	for (uint32_t i = 0; i < s->ephemeral_containers.n; i++)
		c[n++] = (struct puller){&s->ephemeral_containers.v[i].ephemeral_container_common.image,
					 &s->ephemeral_containers.v[i].ephemeral_container_common.image_pull_policy};
	*out = c;
	return n;
}

static bool brings_images(const struct admission *a, struct core_v1_pod *p)
{
	struct puller *now, *was;
	size_t n = containers_of(a->rq->a, &p->spec, &now), m;

	if (a->op != ADMIT_UPDATE)
		return true;
	m = containers_of(a->rq->a, &((struct core_v1_pod *)(uintptr_t)a->old)->spec, &was);
	for (size_t i = 0; i < n; i++) {
		bool old = false;

		for (size_t k = 0; k < m && !old; k++)
			old = str_eq(*now[i].image, *was[k].image);
		if (!old)
			return true;
	}
	return false;
}

static struct error *pull_admit(struct admission *a)
{
	struct core_v1_pod *p = pod_of(a);
	struct puller *c;
	size_t n;

	if (!p || !brings_images(a, p))
		return NULL;
	n = containers_of(a->rq->a, &p->spec, &c);
	for (size_t i = 0; i < n; i++)
		*c[i].policy = STR("Always");
	for (uint32_t i = 0; i < p->spec.volumes.n; i++)
		if (p->spec.volumes.v[i].volume_source.image)
			p->spec.volumes.v[i].volume_source.image->pull_policy = STR("Always");
	return NULL;
}

static struct error *pull_validate(struct admission *a)
{
	struct core_v1_pod *p = pod_of(a);
	struct puller *c;
	size_t n;

	if (!p || !brings_images(a, p))
		return NULL;
	n = containers_of(a->rq->a, &p->spec, &c);
	for (size_t i = 0; i < n; i++)
		if (!str_eqz(*c[i].policy, "Always"))
			return admission_forbidden(a, "the image %.*s: imagePullPolicy: Unsupported value: \"%.*s\": supported values: \"Always\"",
						   STR_ARG(*c[i].image), STR_ARG(*c[i].policy));
	for (uint32_t i = 0; i < p->spec.volumes.n; i++) {
		const struct core_v1_image_volume_source *v = p->spec.volumes.v[i].volume_source.image;

		if (v && !str_eqz(v->pull_policy, "Always"))
			return admission_forbidden(a, "spec.volumes[%u].image.pullPolicy: Unsupported value: \"%.*s\": supported values: \"Always\"", i,
						   STR_ARG(v->pull_policy));
	}
	return NULL;
}

const struct admission_plugin admit_always_pull = {
	.name = "AlwaysPullImages", .ops = ADMIT_CREATE | ADMIT_UPDATE, .off_by_default = true, .admit = pull_admit, .validate = pull_validate,
};

/* ---- PodNodeSelector ---- */

static struct jv node_selectors; /* podNodeSelectorPluginConfig: namespace or clusterDefaultNodeSelector -> "key=value,..." */

static struct error *selector_configure(struct apiserver *s, struct str text)
{
	struct buf json buf_cleanup = {0};
	struct jv doc, *of;

	node_selectors = jv_object();
	if (!text.n)
		return NULL;
	TRY(yaml_to_json(text, NULL, &json));
	TRY(jv_parse(&s->arena, arena_str(&s->arena, buf_view(&json)), NULL, &doc));
	of = jv_get(&doc, STR("podNodeSelectorPluginConfig"));
	if (jv_is(of, JV_OBJECT))
		node_selectors = *of;
	return NULL;
}

/* "key=value,key=value" into a map. */
static struct error *labels_of(struct admission *a, struct str text, struct str_map *out)
{
	memset(out, 0, sizeof *out);
	for (struct str rest = text; rest.p && rest.n;) {
		struct str v = str_trim(str_cut(&rest, ',')), k = str_trim(str_cut(&v, '='));

		if (!v.p)
			return error_new("the node selector \"%.*s\" of namespace %.*s is not of the form key=value", STR_ARG(text), STR_ARG(a->ns));
		str_map_set(a->rq->a, out, k, str_trim(v));
	}
	return NULL;
}

/* What the namespace (its annotation, or the cluster's default) adds to a pod's node selector. */
static struct error *namespace_selector(struct admission *a, const struct core_v1_pod *p, struct str_map *out)
{
	const struct core_v1_namespace *ns = namespace_of(a);
	struct str note = STR("scheduler.alpha.kubernetes.io/node-selector"), text;

	if (!ns)
		return err_not_found(STR(""), STR("namespaces"), a->ns);
	text = str_map_has(API_MAP(&ns->metadata.annotations), note) ? str_map_get(API_MAP(&ns->metadata.annotations), note) :
								       jv_str(jv_get(&node_selectors, STR("clusterDefaultNodeSelector")));
	TRY(labels_of(a, text, out));
	for (uint32_t i = 0; i < out->n; i++) {
		const struct str_map *own = API_MAP(&p->spec.node_selector);

		if (str_map_has(own, out->v[i].key) && !str_eq(str_map_get(own, out->v[i].key), out->v[i].value))
			return admission_forbidden(a, "pod node label selector conflicts with its namespace node label selector");
	}
	return NULL;
}

static struct error *selector_validate(struct admission *a)
{
	const struct core_v1_pod *p = pod_of(a);
	struct str_map add, allowed;

	if (!p)
		return NULL;
	TRY(namespace_selector(a, p, &add));
	TRY(labels_of(a, jv_str(jv_get(&node_selectors, a->ns)), &allowed));
	for (uint32_t i = 0; allowed.n && i < p->spec.node_selector.n; i++)
		if (!str_map_has(&allowed, p->spec.node_selector.v[i].key) ||
		    !str_eq(str_map_get(&allowed, p->spec.node_selector.v[i].key), p->spec.node_selector.v[i].value))
			return admission_forbidden(a, "pod node label selector labels conflict with its namespace whitelist");
	return NULL;
}

static struct error *selector_admit(struct admission *a)
{
	struct core_v1_pod *p = pod_of(a);
	struct str_map add;

	if (!p)
		return NULL;
	TRY(namespace_selector(a, p, &add));
	for (uint32_t i = 0; i < add.n; i++)
		str_map_set(a->rq->a, API_MAP(&p->spec.node_selector), add.v[i].key, add.v[i].value);
	return selector_validate(a);
}

const struct admission_plugin admit_node_selector = {
	.name = "PodNodeSelector", .ops = ADMIT_CREATE, .off_by_default = true, .configure = selector_configure, .admit = selector_admit,
	.validate = selector_validate,
};

/* ---- ExtendedResourceToleration ---- */

static void extended_of(struct arena *a, const struct str_map *requests, struct str_map *out)
{
	for (uint32_t i = 0; i < requests->n; i++)
		if (resource_extended(requests->v[i].key, a))
			str_map_set(a, out, requests->v[i].key, STR(""));
}

static struct error *extended_admit(struct admission *a)
{
	struct core_v1_pod *p = pod_of(a);
	struct str_map seen = {0};

	if (!p)
		return NULL;
	for (uint32_t i = 0; i < p->spec.containers.n; i++)
		extended_of(a->rq->a, API_MAP(&p->spec.containers.v[i].resources.requests), &seen);
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++)
		extended_of(a->rq->a, API_MAP(&p->spec.init_containers.v[i].resources.requests), &seen);
	for (uint32_t i = 0; i < seen.n; i++) {
		struct core_v1_toleration *t = NULL;

		for (uint32_t k = 0; k < p->spec.tolerations.n && !t; k++) {
			struct core_v1_toleration *x = &p->spec.tolerations.v[k];

			if (str_eq(x->key, seen.v[i].key) && str_eqz(x->operator, "Exists") && str_eqz(x->effect, "NoSchedule") && !x->value.n)
				t = x;
		}
		if (!t)
			t = arena_push(a->rq->a, &p->spec.tolerations);
		*t = (struct core_v1_toleration){.key = seen.v[i].key, .operator = STR("Exists"), .effect = STR("NoSchedule")};
	}
	return NULL;
}

const struct admission_plugin admit_extended_tolerations = {
	.name = "ExtendedResourceToleration", .ops = ADMIT_CREATE | ADMIT_UPDATE, .off_by_default = true, .admit = extended_admit,
};

/* ---- DenyServiceExternalIPs ---- */

static struct error *no_external_ips(struct admission *a)
{
	const struct core_v1_service *s = a->obj, *old = a->old;

	if (!admission_is(a, "", "services", ""))
		return NULL;
	for (uint32_t i = 0; i < s->spec.external_ips.n; i++) {
		bool had = false;

		for (uint32_t k = 0; old && k < old->spec.external_ips.n && !had; k++)
			had = str_eq(old->spec.external_ips.v[k], s->spec.external_ips.v[i]);
		if (!had)
			return admission_forbidden(a, "Use of external IPs is denied by admission control");
	}
	return NULL;
}

const struct admission_plugin admit_no_external_ips = {
	.name = "DenyServiceExternalIPs", .ops = ADMIT_CREATE | ADMIT_UPDATE, .off_by_default = true, .validate = no_external_ips,
};

/* ---- OwnerReferencesPermissionEnforcement ---- */

typedef struct meta_v1_owner_reference owner;

static bool blocks(const owner *o)
{
	return o->block_owner_deletion && *o->block_owner_deletion;
}

/* It blocks, and the old object's of the same uid did not. */
static bool newly_blocks(const owner *o, const struct meta_v1_object_meta *old)
{
	for (uint32_t i = 0; old && i < old->owner_references.n; i++)
		if (str_eq(old->owner_references.v[i].uid, o->uid))
			return blocks(o) && !blocks(&old->owner_references.v[i]);
	return blocks(o);
}

static bool owners_change(const struct meta_v1_object_meta *m, const struct meta_v1_object_meta *old)
{
	if (m->owner_references.n != (old ? old->owner_references.n : 0))
		return true;
	for (uint32_t i = 0; i < m->owner_references.n; i++)
		if (!object_equal(&meta_v1_owner_reference_type, &m->owner_references.v[i], &old->owner_references.v[i]))
			return true;
	return false;
}

static bool may(struct admission *a, const char *verb, struct str ns, struct str group, struct str version, struct str resource, struct str sub,
		struct str name, struct str *why)
{
	struct authz_attrs at = {.user = a->rq->user, .verb = str_from(verb), .resource_request = true, .ns = ns, .group = group,
				 .version = version, .resource = resource, .subresource = sub, .name = name};

	return authorize(a->rq->s, a->rq->a, &at, why) == AUTHZ_ALLOW;
}

static struct error *may_block(struct admission *a, const owner *o)
{
	struct str group, version, why = STR_NULL;
	const struct resource *r;

	api_version_split(o->api_version, &group, &version);
	r = resource_for_kind(a->rq->s, group, version, o->kind);
	if (!r)
		r = crd_resource_for_kind(a->rq->s, group, version, o->kind);
	if (!r)
		return admission_forbidden(a, "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %.*s Kind %.*s",
					   STR_ARG(o->api_version), STR_ARG(o->kind));
	if (may(a, "update", r->api->namespaced ? a->ns : STR_NULL, group, version, r->api->plural, STR("finalizers"), o->name, &why))
		return NULL;
	return admission_forbidden(a, "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %.*s",
				   STR_ARG(why));
}

static struct error *owner_references(struct admission *a)
{
	const struct meta_v1_object_meta *m, *old;
	struct str why = STR_NULL, all = STR("*");

	if (!a->obj || a->type->metadata < 0 || a->rq->internal || admission_is(a, "", "pods", "status"))
		return NULL;
	m = object_meta(a->type, a->obj);
	old = a->old ? object_meta(a->type, (void *)(uintptr_t)a->old) : NULL;
	if (!owners_change(m, old))
		return NULL;
	if (a->op != ADMIT_CREATE && !may(a, "delete", a->ns, a->group, a->version, a->resource, a->subresource, a->name, &why))
		return admission_forbidden(a, "cannot set an ownerRef on a resource you can't delete: %.*s", STR_ARG(why));
	for (uint32_t i = 0; i < m->owner_references.n; i++) {
		if (!newly_blocks(&m->owner_references.v[i], old))
			continue;
		if (may(a, "update", STR_NULL, all, all, all, STR("finalizers"), all, NULL))
			return NULL;
		TRY(may_block(a, &m->owner_references.v[i]));
	}
	return NULL;
}

const struct admission_plugin admit_owner_references = {
	.name = "OwnerReferencesPermissionEnforcement", .ops = ADMIT_CREATE | ADMIT_UPDATE, .off_by_default = true, .validate = owner_references,
};
