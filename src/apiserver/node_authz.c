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
	struct storage *pods, *volumes;
};

struct error *node_authz_init(struct apiserver *s)
{
	struct node_graph *g = arena_new(&s->arena, struct node_graph);

	bootstrap_policy_rules(&s->arena, STR("system:node"), &g->rules, &g->n);
	g->pods = storage_find(s, STR(""), STR("pods"));
	g->volumes = storage_find(s, STR(""), STR("persistentvolumes"));
	s->node_graph = g;
	return g->pods && g->volumes ? NULL : error_new("no storage for pods and volumes");
}

/* name.p NULL: any. */
static bool refers(struct str have, struct str name)
{
	return name.p ? str_eq(have, name) : have.n > 0;
}

static bool env_uses(const struct core_v1_env_var *env, uint32_t n, const struct core_v1_env_from_source *from, uint32_t n_from, bool secret,
		     struct str name)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct core_v1_env_var_source *v = env[i].value_from;

		if (!v)
			continue;
		if (secret && v->secret_key_ref && refers(v->secret_key_ref->local_object_reference.name, name))
			return true;
		if (!secret && v->config_map_key_ref && refers(v->config_map_key_ref->local_object_reference.name, name))
			return true;
	}
	for (uint32_t i = 0; i < n_from; i++) {
		if (secret && from[i].secret_ref && refers(from[i].secret_ref->local_object_reference.name, name))
			return true;
		if (!secret && from[i].config_map_ref && refers(from[i].config_map_ref->local_object_reference.name, name))
			return true;
	}
	return false;
}

static bool volumes_use(const struct core_v1_pod_spec *p, bool secret, struct str name)
{
	for (uint32_t i = 0; i < p->volumes.n; i++) {
		const struct core_v1_volume_source *v = &p->volumes.v[i].volume_source;

		if (secret) {
			if (v->secret && refers(v->secret->secret_name, name))
				return true;
			if ((v->iscsi && v->iscsi->secret_ref && refers(v->iscsi->secret_ref->name, name)) ||
			    (v->rbd && v->rbd->secret_ref && refers(v->rbd->secret_ref->name, name)) ||
			    (v->cephfs && v->cephfs->secret_ref && refers(v->cephfs->secret_ref->name, name)) ||
			    (v->cinder && v->cinder->secret_ref && refers(v->cinder->secret_ref->name, name)) ||
			    (v->flex_volume && v->flex_volume->secret_ref && refers(v->flex_volume->secret_ref->name, name)) ||
			    (v->scale_io && v->scale_io->secret_ref && refers(v->scale_io->secret_ref->name, name)) ||
			    (v->storageos && v->storageos->secret_ref && refers(v->storageos->secret_ref->name, name)) ||
			    (v->azure_file && refers(v->azure_file->secret_name, name)) ||
			    (v->csi && v->csi->node_publish_secret_ref && refers(v->csi->node_publish_secret_ref->name, name)))
				return true;
		} else if (v->config_map && refers(v->config_map->local_object_reference.name, name)) {
			return true;
		}
		for (uint32_t k = 0; v->projected && k < v->projected->sources.n; k++) {
			const struct core_v1_volume_projection *s = &v->projected->sources.v[k];

			if (secret && s->secret && refers(s->secret->local_object_reference.name, name))
				return true;
			if (!secret && s->config_map && refers(s->config_map->local_object_reference.name, name))
				return true;
		}
	}
	return false;
}

bool pod_refers(const struct core_v1_pod *pod, bool secret, struct str name)
{
	const struct core_v1_pod_spec *p = &pod->spec;

	for (uint32_t i = 0; secret && i < p->image_pull_secrets.n; i++)
		if (refers(p->image_pull_secrets.v[i].name, name))
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

static bool uses_claim(const struct core_v1_pod *pod, struct arena *a, struct str name)
{
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

enum what { USES_SECRET, USES_CONFIGMAP, USES_CLAIM, USES_ACCOUNT, USES_RESOURCE_CLAIM, IS_POD };

/* A claim named by the pod, or made of the template it names: the status says which that is. */
static bool claims(const struct core_v1_pod *pod, struct str name)
{
	const struct core_v1_pod_status *st = &pod->status;

	for (uint32_t i = 0; i < pod->spec.resource_claims.n; i++) {
		const struct core_v1_pod_resource_claim *c = &pod->spec.resource_claims.v[i];

		if (c->resource_claim_name && str_eq(*c->resource_claim_name, name))
			return true;
		for (uint32_t k = 0; !c->resource_claim_name && c->resource_claim_template_name && k < st->resource_claim_statuses.n; k++) {
			const struct core_v1_pod_resource_claim_status *made = &st->resource_claim_statuses.v[k];

			if (str_eq(made->name, c->name) && made->resource_claim_name && str_eq(*made->resource_claim_name, name))
				return true;
		}
	}
	return st->extended_resource_claim_status && str_eq(st->extended_resource_claim_status->resource_claim_name, name);
}

/* Secrets that a kubelet needs to mount a volume (upstream's VisitPVSecretNames). */
static bool volume_uses_secret(const struct core_v1_persistent_volume *pv, struct str ns, struct str name)
{
	const struct core_v1_persistent_volume_source *v = &pv->spec.persistent_volume_source;
	struct str own = pv->spec.claim_ref->namespace;
#define REF(r)                                                                                                                          \
	if ((r) && str_eq((r)->name, name) && str_eq((r)->namespace.n ? (r)->namespace : own, ns))                                      \
		return true;
	if (v->azure_file && str_eq(v->azure_file->secret_name, name) &&
	    str_eq(v->azure_file->secret_namespace && v->azure_file->secret_namespace->n ? *v->azure_file->secret_namespace : own, ns))
		return true;
	if (v->cephfs)
		REF(v->cephfs->secret_ref);
	if (v->cinder)
		REF(v->cinder->secret_ref);
	if (v->flex_volume)
		REF(v->flex_volume->secret_ref);
	if (v->rbd)
		REF(v->rbd->secret_ref);
	if (v->scale_io)
		REF(v->scale_io->secret_ref);
	if (v->iscsi)
		REF(v->iscsi->secret_ref);
	if (v->storageos && v->storageos->secret_ref)
		REF(v->storageos->secret_ref);
	if (v->csi) {
		REF(v->csi->node_publish_secret_ref);
		REF(v->csi->node_stage_secret_ref);
		REF(v->csi->node_expand_secret_ref);
	}
#undef REF
	return false;
}

static bool pod_uses(struct arena *a, const struct core_v1_pod *pod, enum what what, struct str name)
{
	switch (what) {
	case USES_SECRET:
		return pod_refers(pod, true, name);
	case USES_CONFIGMAP:
		return pod_refers(pod, false, name);
	case USES_CLAIM:
		return uses_claim(pod, a, name);
	case USES_ACCOUNT:
		return str_eq(pod->spec.service_account_name, name);
	case USES_RESOURCE_CLAIM:
		return claims(pod, name);
	case IS_POD:
		break;
	}
	return false;
}

/* Whether a pod of the node uses the thing, which is in the pod's namespace. */
static bool related(struct apiserver *s, struct arena *a, struct str node, enum what what, struct str ns, struct str name)
{
	struct cache *c = s->node_graph->pods->cache;
	struct cache_snap *snap;
	struct cache_filter f = {0};
	struct cache_iter it;
	const struct cache_entry *e;
	struct error *err;
	bool yes = false;

	if (!ns.n)
		return false;
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
		/* a mirror pod is the node's own making: it gives no rights */
		if (!str_map_has(API_MAP(&pod->metadata.annotations), STR("kubernetes.io/config.mirror")))
			yes = pod_uses(a, pod, what, name);
	}
	cache_snap_free(snap);
	return yes;
}

/*
 * A volume that needs the secret and is meant for a claim of such a pod. The volume's word counts: what a claim says it may have been told
 * to say. Most volumes are passed over by their bytes.
 */
static bool volume_gives(struct apiserver *s, struct arena *a, struct str node, struct str ns, struct str name)
{
	struct cache *c = s->node_graph->volumes->cache;
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *e;
	struct error *err = cache_snapshot(c, CACHE_ANY, 0, &snap);
	bool yes = false;

	if (err) {
		log_and_free(err, "node authorizer");
		return false;
	}
	cache_iter_init(&it, c, snap, STR_NULL, STR_NULL, NULL);
	while (!yes && (e = cache_iter_next(&it)) != NULL) {
		struct core_v1_persistent_volume *pv;
		struct str bytes = block_str(e->body);

		if (!memmem(bytes.p, bytes.n, name.p, name.n))
			continue;
		pv = arena_new(a, struct core_v1_persistent_volume);
		err = cache_entry_decode(a, &core_v1_persistent_volume_type, e, true, pv);
		if (err)
			log_and_free(err, "node authorizer: cached volume");
		else
			yes = pv->spec.claim_ref && volume_uses_secret(pv, ns, name) &&
			      related(s, a, node, USES_CLAIM, pv->spec.claim_ref->namespace, pv->spec.claim_ref->name);
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

static bool bound_volume(struct apiserver *s, struct arena *a, struct str node, struct str name)
{
	struct core_v1_persistent_volume *pv = registry_peek(s, a, storage_find(s, STR(""), STR("persistentvolumes")), STR_NULL, name);

	return pv && pv->spec.claim_ref && related(s, a, node, USES_CLAIM, pv->spec.claim_ref->namespace, pv->spec.claim_ref->name);
}

static bool own_slice(struct apiserver *s, struct arena *a, struct str node, struct str name)
{
	struct resource_v1_resource_slice *r = registry_peek(s, a, storage_find(s, STR("resource.k8s.io"), STR("resourceslices")), STR_NULL, name);

	return r && r->spec.node_name && str_eq(*r->spec.node_name, node);
}

static bool own_attachment(struct apiserver *s, struct arena *a, struct str node, struct str name)
{
	struct storage_v1_volume_attachment *va = registry_peek(s, a, storage_find(s, STR("storage.k8s.io"), STR("volumeattachments")), STR_NULL, name);

	return va && str_eq(va->spec.node_name, node);
}

/* The field selector leaves only this value. */
static bool selects(const struct authz_attrs *at, const char *field, struct str value)
{
	for (uint32_t i = 0; i < at->n_fields; i++)
		if (str_eqz(at->fields[i].key, field) && str_eqz(at->fields[i].operator, "In") && str_eq(at->fields[i].values.v[0], value))
			return true;
	return false;
}

/* ---- decisions, with their reasons in upstream's words ---- */

static enum authz no(struct str *reason, const char *why)
{
	*reason = str_from(why);
	return AUTHZ_NO_OPINION;
}

static enum authz by_relation(struct arena *a, struct str *reason, struct str node, bool yes)
{
	if (yes)
		return AUTHZ_ALLOW;
	*reason = arena_printf(a, "no relationship found between node '%.*s' and this object", STR_ARG(node));
	return AUTHZ_NO_OPINION;
}

static const char *get_only(const struct authz_attrs *at)
{
	if (!str_eqz(at->verb, "get"))
		return "can only get individual resources of this type";
	if (at->subresource.n)
		return "cannot get subresource";
	return at->name.n ? NULL : "No Object name found";
}

static const char *read_only(const struct authz_attrs *at)
{
	if (!verb_in(at->verb, "get list watch"))
		return "can only read resources of this type";
	if (at->subresource.n)
		return "cannot read subresource";
	if (!at->ns.n)
		return "can only read namespaced object of this type";
	return at->name.n ? NULL : "No Object name found";
}

static enum authz claim_authz(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str node, struct str *reason)
{
	const char *why = get_only(at);

	if (str_eqz(at->subresource, "status"))
		why = verb_in(at->verb, "update patch") ? (at->name.n ? NULL : "No Object name found") : "can only get/update/patch this type";
	return why ? no(reason, why) : by_relation(a, reason, node, related(s, a, node, USES_CLAIM, at->ns, at->name));
}

static enum authz account_authz(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str node, struct str *reason)
{
	const char *why = NULL;

	if (str_eqz(at->verb, "get") && !at->subresource.n)
		why = read_only(at);
	else if (!str_eqz(at->verb, "create") || !at->name.n)
		why = "can only create tokens for individual service accounts";
	else if (!str_eqz(at->subresource, "token"))
		why = "can only create token subresource of serviceaccount";
	return why ? no(reason, why) : by_relation(a, reason, node, related(s, a, node, USES_ACCOUNT, at->ns, at->name));
}

static enum authz lease_authz(const struct authz_attrs *at, struct str node, struct str *reason)
{
	if (!verb_in(at->verb, "get create update patch delete"))
		return no(reason, "can only get, create, update, patch, or delete a node lease");
	if (!str_eqz(at->ns, "kube-node-lease"))
		return no(reason, "can only access leases in the \"kube-node-lease\" system namespace");
	if (!str_eqz(at->verb, "create") && !str_eq(at->name, node))
		return no(reason, "can only access node lease with the same name as the requesting node");
	return AUTHZ_ALLOW;
}

static enum authz csinode_authz(const struct authz_attrs *at, struct str node, struct str *reason)
{
	if (!verb_in(at->verb, "get create update patch delete"))
		return no(reason, "can only get, create, update, patch, or delete a CSINode");
	if (at->subresource.n)
		return no(reason, "cannot authorize CSINode subresources");
	if (!str_eqz(at->verb, "create") && !str_eq(at->name, node))
		return no(reason, "can only access CSINode with the same name as the requesting node");
	return AUTHZ_ALLOW;
}

static enum authz slice_authz(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str node, struct str *reason)
{
	if (at->subresource.n)
		return no(reason, "cannot authorize ResourceSlice subresources");
	if (str_eqz(at->verb, "create"))
		return AUTHZ_ALLOW;
	if (verb_in(at->verb, "get update patch delete"))
		return at->name.n ? by_relation(a, reason, node, !at->ns.n && own_slice(s, a, node, at->name)) : no(reason, "No Object name found");
	if (verb_in(at->verb, "watch list deletecollection"))
		return selects(at, "spec.nodeName", node) ?
			       AUTHZ_ALLOW :
			       no(reason, "can only list/watch/deletecollection resourceslices with nodeName field selector");
	return no(reason, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, "
			  "deletecollection");
}

static enum authz node_object_authz(struct arena *a, const struct authz_attrs *at, struct str node, struct str *reason)
{
	/* NodeRestriction sees to it that what is written is the node's own */
	if (!at->subresource.n && verb_in(at->verb, "create update patch"))
		return AUTHZ_ALLOW;
	if (str_eqz(at->subresource, "status") && verb_in(at->verb, "update patch"))
		return AUTHZ_ALLOW;
	if (at->subresource.n || !verb_in(at->verb, "get list watch"))
		return AUTHZ_NO_OPINION;
	if (str_eq(at->name, node))
		return AUTHZ_ALLOW;
	*reason = at->name.n ? arena_printf(a, "node '%.*s' cannot read '%.*s', only its own Node object", STR_ARG(node), STR_ARG(at->name)) :
			       arena_printf(a, "node '%.*s' cannot read all nodes, only its own Node object", STR_ARG(node));
	return AUTHZ_NO_OPINION;
}

static enum authz pod_authz(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str node, struct str *reason)
{
	if (str_eqz(at->subresource, "status"))
		return verb_in(at->verb, "update patch") ? AUTHZ_ALLOW : AUTHZ_NO_OPINION;
	if (str_eqz(at->subresource, "eviction"))
		return str_eqz(at->verb, "create") ? AUTHZ_ALLOW : AUTHZ_NO_OPINION;
	if (at->subresource.n)
		return AUTHZ_NO_OPINION;
	if (verb_in(at->verb, "create delete"))
		return AUTHZ_ALLOW;
	if (verb_in(at->verb, "list watch") && selects(at, "spec.nodeName", node))
		return AUTHZ_ALLOW;
	if (verb_in(at->verb, "get list watch") && at->name.n)
		return by_relation(a, reason, node, related(s, a, node, IS_POD, at->ns, at->name));
	if (str_eqz(at->verb, "get"))
		return no(reason, "No Object name found");
	return verb_in(at->verb, "list watch") ? no(reason, "can only list/watch pods with spec.nodeName field selector") : AUTHZ_NO_OPINION;
}

static bool rules_allow(const struct node_graph *g, struct arena *a, const struct authz_attrs *at)
{
	struct str resource = at->subresource.n ? arena_printf(a, "%.*s/%.*s", STR_ARG(at->resource), STR_ARG(at->subresource)) : at->resource;
	struct rbac_v1_policy_rule want = {0};

	want.verbs.v = (struct str *)(uintptr_t)&at->verb;
	want.api_groups.v = (struct str *)(uintptr_t)&at->group;
	want.resources.v = &resource;
	want.verbs.n = want.api_groups.n = want.resources.n = 1;
	for (uint32_t i = 0; i < g->n; i++)
		if (rbac_rule_covers(&g->rules[i], &want))
			return true;
	return false;
}

enum authz node_authorize(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason)
{
	struct str node, r = at->resource;
	struct node_graph *g = s->node_graph;
	const char *why;

	if (!g || !user_in_group(at->user, "system:nodes") || !str_has_prefix(at->user->name, STR("system:node:")))
		return AUTHZ_NO_OPINION;
	if (!user_is_node(at->user, &node) || !node.n) {
		*reason = arena_printf(a, "unknown node for user \"%.*s\"", STR_ARG(at->user->name));
		return AUTHZ_NO_OPINION;
	}
	if (!at->resource_request)
		return AUTHZ_NO_OPINION;
	if (!at->group.n) {
		if (str_eqz(r, "secrets")) {
			why = read_only(at);
			return why ? no(reason, why) :
				     by_relation(a, reason, node, related(s, a, node, USES_SECRET, at->ns, at->name) ||
									  volume_gives(s, a, node, at->ns, at->name));
		}
		if (str_eqz(r, "configmaps")) {
			why = read_only(at);
			return why ? no(reason, why) : by_relation(a, reason, node, related(s, a, node, USES_CONFIGMAP, at->ns, at->name));
		}
		if (str_eqz(r, "persistentvolumeclaims"))
			return claim_authz(s, a, at, node, reason);
		if (str_eqz(r, "persistentvolumes")) {
			why = get_only(at);
			return why ? no(reason, why) : by_relation(a, reason, node, !at->ns.n && bound_volume(s, a, node, at->name));
		}
		if (str_eqz(r, "serviceaccounts"))
			return account_authz(s, a, at, node, reason);
		if (str_eqz(r, "nodes"))
			return node_object_authz(a, at, node, reason);
		if (str_eqz(r, "pods"))
			return pod_authz(s, a, at, node, reason);
	} else if (str_eqz(at->group, "resource.k8s.io")) {
		if (str_eqz(r, "resourceclaims")) {
			why = get_only(at);
			return why ? no(reason, why) : by_relation(a, reason, node, related(s, a, node, USES_RESOURCE_CLAIM, at->ns, at->name));
		}
		if (str_eqz(r, "resourceslices"))
			return slice_authz(s, a, at, node, reason);
	} else if (str_eqz(at->group, "storage.k8s.io")) {
		if (str_eqz(r, "volumeattachments")) {
			why = get_only(at);
			return why ? no(reason, why) : by_relation(a, reason, node, !at->ns.n && own_attachment(s, a, node, at->name));
		}
		if (str_eqz(r, "csinodes"))
			return csinode_authz(at, node, reason);
	} else if (str_eqz(at->group, "coordination.k8s.io") && str_eqz(r, "leases")) {
		return lease_authz(at, node, reason);
	}
	return rules_allow(g, a, at) ? AUTHZ_ALLOW : AUTHZ_NO_OPINION;
}
