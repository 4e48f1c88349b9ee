/*
 * The Node authorizer: a kubelet may read what the pods bound to its node use,
 * and write what is its own. Relations are found on demand through the pods'
 * node index of the watch cache; there is no graph to keep.
 */
#include "apiserver/authz.h"
#include "apiserver/bootstrap.h"

struct node_graph {
	struct rbac_v1_policy_rule *rules; /* of ClusterRole system:node */
	uint32_t n;
	struct storage *pods;
};

struct error *node_authz_init(struct apiserver *s)
{
	struct node_graph *g = arena_new(&s->arena, struct node_graph);

	bootstrap_policy_rules(&s->arena, STR("system:node"), &g->rules, &g->n);
	g->pods = storage_find(s, STR(""), STR("pods"));
	s->node_graph = g;
	return g->pods ? NULL : error_new("no storage for pods");
}

static bool env_uses(const struct core_v1_env_var *env, uint32_t n, const struct core_v1_env_from_source *from, uint32_t n_from, bool secret,
		     struct str name)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct core_v1_env_var_source *v = env[i].value_from;

		if (!v)
			continue;
		if (secret && v->secret_key_ref && str_eq(v->secret_key_ref->local_object_reference.name, name))
			return true;
		if (!secret && v->config_map_key_ref && str_eq(v->config_map_key_ref->local_object_reference.name, name))
			return true;
	}
	for (uint32_t i = 0; i < n_from; i++) {
		if (secret && from[i].secret_ref && str_eq(from[i].secret_ref->local_object_reference.name, name))
			return true;
		if (!secret && from[i].config_map_ref && str_eq(from[i].config_map_ref->local_object_reference.name, name))
			return true;
	}
	return false;
}

static bool volumes_use(const struct core_v1_pod_spec *p, bool secret, struct str name)
{
	for (uint32_t i = 0; i < p->volumes.n; i++) {
		const struct core_v1_volume_source *v = &p->volumes.v[i].volume_source;

		if (secret) {
			if (v->secret && str_eq(v->secret->secret_name, name))
				return true;
			if ((v->iscsi && v->iscsi->secret_ref && str_eq(v->iscsi->secret_ref->name, name)) ||
			    (v->rbd && v->rbd->secret_ref && str_eq(v->rbd->secret_ref->name, name)) ||
			    (v->cephfs && v->cephfs->secret_ref && str_eq(v->cephfs->secret_ref->name, name)) ||
			    (v->cinder && v->cinder->secret_ref && str_eq(v->cinder->secret_ref->name, name)) ||
			    (v->flex_volume && v->flex_volume->secret_ref && str_eq(v->flex_volume->secret_ref->name, name)) ||
			    (v->scale_io && v->scale_io->secret_ref && str_eq(v->scale_io->secret_ref->name, name)) ||
			    (v->storageos && v->storageos->secret_ref && str_eq(v->storageos->secret_ref->name, name)) ||
			    (v->azure_file && str_eq(v->azure_file->secret_name, name)) ||
			    (v->csi && v->csi->node_publish_secret_ref && str_eq(v->csi->node_publish_secret_ref->name, name)))
				return true;
		} else if (v->config_map && str_eq(v->config_map->local_object_reference.name, name)) {
			return true;
		}
		for (uint32_t k = 0; v->projected && k < v->projected->sources.n; k++) {
			const struct core_v1_volume_projection *s = &v->projected->sources.v[k];

			if (secret && s->secret && str_eq(s->secret->local_object_reference.name, name))
				return true;
			if (!secret && s->config_map && str_eq(s->config_map->local_object_reference.name, name))
				return true;
		}
	}
	return false;
}

static bool uses(const struct core_v1_pod *pod, bool secret, struct str name)
{
	const struct core_v1_pod_spec *p = &pod->spec;

	for (uint32_t i = 0; secret && i < p->image_pull_secrets.n; i++)
		if (str_eq(p->image_pull_secrets.v[i].name, name))
			return true;
	if (volumes_use(p, secret, name))
		return true;
#define CONTAINERS(list)                                                                                                                \
	for (uint32_t i = 0; i < p->list.n; i++)                                                                                        \
		if (env_uses(p->list.v[i].env.v, p->list.v[i].env.n, p->list.v[i].env_from.v, p->list.v[i].env_from.n, secret, name))   \
			return true;
	CONTAINERS(containers)
	CONTAINERS(init_containers)
#undef CONTAINERS
	for (uint32_t i = 0; i < p->ephemeral_containers.n; i++) {
		const struct core_v1_ephemeral_container_common *c = &p->ephemeral_containers.v[i].ephemeral_container_common;

		if (env_uses(c->env.v, c->env.n, c->env_from.v, c->env_from.n, secret, name))
			return true;
	}
	return false;
}

static bool uses_claim(struct apiserver *s, struct arena *a, const struct core_v1_pod *pod, struct str name)
{
	(void)s;
	for (uint32_t i = 0; i < pod->spec.volumes.n; i++) {
		const struct core_v1_volume *v = &pod->spec.volumes.v[i];

		if (v->volume_source.persistent_volume_claim && str_eq(v->volume_source.persistent_volume_claim->claim_name, name))
			return true;
		if (v->volume_source.ephemeral &&
		    str_eq(arena_printf(a, "%.*s-%.*s", STR_ARG(pod->metadata.name), STR_ARG(v->name)), name))
			return true;
	}
	return false;
}

enum what { USES_SECRET, USES_CONFIGMAP, USES_CLAIM, USES_VOLUME, USES_ACCOUNT, USES_RESOURCE_CLAIM, IS_POD };

/* Whether a pod of the node uses the thing. */
static bool related(struct apiserver *s, struct arena *a, struct str node, enum what what, struct str ns, struct str name)
{
	struct cache *c = s->node_graph->pods->cache;
	struct cache_snap *snap;
	struct cache_filter f = {0};
	struct cache_iter it;
	const struct cache_entry *e;
	struct error *err;
	bool yes = false;
	struct storage *pvcs = storage_find(s, STR(""), STR("persistentvolumeclaims"));

	err = field_selector_parse(a, arena_printf(a, "spec.nodeName=%.*s", STR_ARG(node)), &f.fields);
	if (!err)
		err = cache_snapshot(c, CACHE_ANY, 0, &snap);
	if (err) {
		log_and_free(err, "node authorizer");
		return false;
	}
	cache_iter_init(&it, c, snap, ns, STR_NULL, &f);
	while (!yes && (e = cache_iter_next(&it)) != NULL) {
		struct core_v1_pod *pod = arena_new(a, struct core_v1_pod);

		if (what == IS_POD) {
			yes = str_eq(cache_entry_name(e), name);
			continue;
		}
		err = cache_entry_decode(a, &core_v1_pod_type, e, true, pod);
		if (err) {
			log_and_free(err, "node authorizer: cached pod");
			continue;
		}
		switch (what) {
		case USES_SECRET:
		case USES_CONFIGMAP:
			yes = uses(pod, what == USES_SECRET, name);
			break;
		case USES_CLAIM:
			yes = uses_claim(s, a, pod, name);
			break;
		case USES_ACCOUNT:
			yes = str_eq(pod->spec.service_account_name, name);
			break;
		case USES_RESOURCE_CLAIM:
			for (uint32_t i = 0; i < pod->spec.resource_claims.n; i++)
				yes |= pod->spec.resource_claims.v[i].resource_claim_name &&
				       str_eq(*pod->spec.resource_claims.v[i].resource_claim_name, name);
			for (uint32_t i = 0; i < pod->status.resource_claim_statuses.n; i++)
				yes |= pod->status.resource_claim_statuses.v[i].resource_claim_name &&
				       str_eq(*pod->status.resource_claim_statuses.v[i].resource_claim_name, name);
			break;
		case USES_VOLUME: /* a PersistentVolume bound to a claim of the pod */
			for (uint32_t i = 0; i < pod->spec.volumes.n && !yes; i++) {
				const struct core_v1_volume *v = &pod->spec.volumes.v[i];
				struct str claim = STR_NULL;
				struct core_v1_persistent_volume_claim *pvc;

				if (v->volume_source.persistent_volume_claim)
					claim = v->volume_source.persistent_volume_claim->claim_name;
				else if (v->volume_source.ephemeral)
					claim = arena_printf(a, "%.*s-%.*s", STR_ARG(pod->metadata.name), STR_ARG(v->name));
				if (!claim.n)
					continue;
				pvc = registry_peek(s, a, pvcs, pod->metadata.namespace, claim);
				yes = pvc && str_eq(pvc->spec.volume_name, name);
			}
			break;
		default:
			break;
		}
	}
	cache_snap_free(snap);
	return yes;
}

static bool verb_in(struct str verb, const char *list)
{
	struct str rest = str_from(list);

	while (rest.p)
		if (str_eq(str_cut(&rest, ' '), verb))
			return true;
	return false;
}

static enum authz no(struct arena *a, struct str *reason, const char *fmt, struct str node)
{
	*reason = arena_printf(a, fmt, STR_ARG(node));
	return AUTHZ_NO_OPINION;
}
#define NO_RELATION "no relationship found between node '%.*s' and this object"

enum authz node_authorize(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason)
{
	struct str node;
	struct node_graph *g = s->node_graph;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	if (!user_is_node(at->user, &node) || !g)
		return AUTHZ_NO_OPINION;
	if (at->resource_request) {
		bool core = at->group.n == 0, sub = at->subresource.n > 0;
		enum what what;

		if (core && (str_eqz(at->resource, "secrets") || str_eqz(at->resource, "configmaps"))) {
			what = str_eqz(at->resource, "secrets") ? USES_SECRET : USES_CONFIGMAP;
			if (!verb_in(at->verb, "get list watch"))
				return no(a, reason, "can only read resources of this type", node);
			if (sub || !at->name.n || !at->ns.n)
				return no(a, reason, "can only read named objects of this type", node);
			return related(s, a, node, what, at->ns, at->name) ? AUTHZ_ALLOW : no(a, reason, NO_RELATION, node);
		}
		if (core && str_eqz(at->resource, "persistentvolumeclaims")) {
			if (str_eqz(at->subresource, "status") ? !verb_in(at->verb, "get update patch") : sub || !str_eqz(at->verb, "get"))
				return no(a, reason, "can only get, update or patch this type", node);
			return related(s, a, node, USES_CLAIM, at->ns, at->name) ? AUTHZ_ALLOW : no(a, reason, NO_RELATION, node);
		}
		if (core && str_eqz(at->resource, "persistentvolumes")) {
			if (sub || !str_eqz(at->verb, "get"))
				return no(a, reason, "can only get individual resources of this type", node);
			return related(s, a, node, USES_VOLUME, STR_NULL, at->name) ? AUTHZ_ALLOW : no(a, reason, NO_RELATION, node);
		}
		if (str_eqz(at->group, "resource.k8s.io") && str_eqz(at->resource, "resourceclaims")) {
			if (sub || !str_eqz(at->verb, "get"))
				return no(a, reason, "can only get individual resources of this type", node);
			return related(s, a, node, USES_RESOURCE_CLAIM, at->ns, at->name) ? AUTHZ_ALLOW : no(a, reason, NO_RELATION, node);
		}
		if (str_eqz(at->group, "storage.k8s.io") && str_eqz(at->resource, "volumeattachments")) {
			struct storage_v1_volume_attachment *va;

			if (sub || !str_eqz(at->verb, "get"))
				return no(a, reason, "can only get individual resources of this type", node);
			va = registry_peek(s, a, storage_find(s, at->group, at->resource), STR_NULL, at->name);
			return va && str_eq(va->spec.node_name, node) ? AUTHZ_ALLOW : no(a, reason, NO_RELATION, node);
		}
		if (core && str_eqz(at->resource, "serviceaccounts")) {
			if (!str_eqz(at->subresource, "token") || !str_eqz(at->verb, "create"))
				return no(a, reason, "can only create tokens for individual service accounts", node);
			return related(s, a, node, USES_ACCOUNT, at->ns, at->name) ? AUTHZ_ALLOW : no(a, reason, NO_RELATION, node);
		}
		if (str_eqz(at->group, "coordination.k8s.io") && str_eqz(at->resource, "leases")) {
			if (sub || !verb_in(at->verb, "get create update patch delete"))
				return no(a, reason, "can only get, create, update, patch, or delete a node lease", node);
			if (!str_eqz(at->ns, "kube-node-lease"))
				return no(a, reason, "can only access leases in the \"kube-node-lease\" system namespace", node);
			if (!str_eqz(at->verb, "create") && !str_eq(at->name, node))
				return no(a, reason, "can only access node lease with the same name as the requesting node", node);
			return AUTHZ_ALLOW;
		}
		if (str_eqz(at->group, "storage.k8s.io") && str_eqz(at->resource, "csinodes")) {
			if (sub || !verb_in(at->verb, "get create update patch delete"))
				return no(a, reason, "can only get, create, update, patch, or delete a CSINode", node);
			if (!str_eqz(at->verb, "create") && !str_eq(at->name, node))
				return no(a, reason, "can only access CSINode with the same name as the requesting node", node);
			return AUTHZ_ALLOW;
		}
		if (core && str_eqz(at->resource, "nodes") && (!sub || str_eqz(at->subresource, "status")) &&
		    verb_in(at->verb, "get list watch update patch")) {
			if (!str_eq(at->name, node))
				return no(a, reason, "node '%.*s' cannot read other nodes, only its own Node object", node);
			return AUTHZ_ALLOW;
		}
		if (core && str_eqz(at->resource, "pods") && !sub && str_eqz(at->verb, "get"))
			return related(s, a, node, IS_POD, at->ns, at->name) ? AUTHZ_ALLOW : no(a, reason, NO_RELATION, node);
	}
#pragma GCC diagnostic pop
	for (uint32_t i = 0; i < g->n; i++) {
		const struct rbac_v1_policy_rule *r = &g->rules[i];
		struct rbac_v1_policy_rule want = {0};

		if (!at->resource_request)
			break;
		want.verbs.v = (struct str *)(uintptr_t)&at->verb;
		want.verbs.n = 1;
		want.api_groups.v = (struct str *)(uintptr_t)&at->group;
		want.api_groups.n = 1;
		want.resources.n = 1;
		want.resources.v = arena_new(a, struct str);
		*want.resources.v = at->subresource.n ? arena_printf(a, "%.*s/%.*s", STR_ARG(at->resource), STR_ARG(at->subresource)) :
							at->resource;
		if (rbac_rule_covers(r, &want))
			return AUTHZ_ALLOW;
	}
	return AUTHZ_NO_OPINION;
}
