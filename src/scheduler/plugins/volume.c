/*
 * VolumeBinding: claims must exist and be bound (or wait for their first consumer), bound volumes must allow the node.
 * Binding of unbound claims is the PersistentVolume controller's; here the chosen node is told to it by upstream's annotation.
 */
#include "scheduler/plugins/plugins.h"

#define SELECTED_NODE "volume.kubernetes.io/selected-node"

struct volumes {
	LIST(struct core_v1_persistent_volume *) bound;
	LIST(struct core_v1_persistent_volume_claim *) waiting; /* WaitForFirstConsumer */
};

static struct status unresolvable(struct str reason)
{
	return (struct status){CODE_UNSCHEDULABLE_UNRESOLVABLE, reason};
}

static struct status add_claim(struct cycle *c, struct volumes *v, struct str name)
{
	const struct volume_lister *l = c->volumes;
	struct core_v1_persistent_volume_claim *claim = l->claim(l->ctx, c->a, c->info->ns, name);

	if (!claim)
		return unresolvable(arena_printf(c->a, "persistentvolumeclaim \"%.*s\" not found", STR_ARG(name)));
	if (claim->metadata.deletion_timestamp)
		return unresolvable(arena_printf(c->a, "persistentvolumeclaim \"%.*s\" is being deleted", STR_ARG(name)));
	if (claim->spec.volume_name.n && str_eq(claim->status.phase, STR("Bound"))) {
		struct core_v1_persistent_volume *pv = l->volume(l->ctx, c->a, claim->spec.volume_name);

		if (!pv)
			return unresolvable(STR("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
		*arena_push(c->a, &v->bound) = pv;
		return STATUS_OK;
	}
	struct storage_v1_storage_class *sc = claim->spec.storage_class_name && claim->spec.storage_class_name->n
		? l->storage_class(l->ctx, c->a, *claim->spec.storage_class_name) : NULL;

	if (!sc || !sc->volume_binding_mode || !str_eq(*sc->volume_binding_mode, STR("WaitForFirstConsumer")))
		return unresolvable(STR("pod has unbound immediate PersistentVolumeClaims"));
	*arena_push(c->a, &v->waiting) = claim;
	return STATUS_OK;
}

static struct status volume_pre(struct cycle *c, int self)
{
	struct volumes *v = arena_new(c->a, struct volumes);

	c->state[self] = v;
	for (uint32_t i = 0; i < c->pod->spec.volumes.n; i++) {
		const struct core_v1_volume *vol = &c->pod->spec.volumes.v[i];
		struct status s = STATUS_OK;

		if (vol->volume_source.persistent_volume_claim)
			s = add_claim(c, v, vol->volume_source.persistent_volume_claim->claim_name);
		else if (vol->volume_source.ephemeral)
			s = add_claim(c, v, arena_printf(c->a, "%.*s-%.*s", STR_ARG(c->info->name), STR_ARG(vol->name)));
		if (s.code != CODE_SUCCESS)
			return s;
	}
	return v->bound.n || v->waiting.n ? STATUS_OK : (struct status){CODE_SKIP, STR_NULL};
}

static struct status volume_filter(struct cycle *c, int self, const struct node_info *n)
{
	struct volumes *v = c->state[self];

	for (uint32_t i = 0; i < v->bound.n; i++) {
		const struct core_v1_volume_node_affinity *af = v->bound.v[i]->spec.node_affinity;

		if (af && af->required && !node_selector_matches(af->required, n->node))
			return unresolvable(STR("node(s) didn't match PersistentVolume's node affinity"));
	}
	return STATUS_OK;
}

static struct error *volume_pre_bind(struct cycle *c, int self, struct client *client, struct str node)
{
	struct volumes *v = c->state[self];

	for (uint32_t i = 0; v && i < v->waiting.n; i++) {
		struct core_v1_persistent_volume_claim *claim = v->waiting.v[i];

		if (str_eq(str_map_get(API_MAP(&claim->metadata.annotations), STR(SELECTED_NODE)), node))
			continue;
		TRY(client_patch(client, c->a, &core_v1_persistentvolumeclaims_resource, claim->metadata.namespace, claim->metadata.name,
				 NULL, PATCH_MERGE, arena_printf(c->a, "{\"metadata\":{\"annotations\":{\"" SELECTED_NODE "\":\"%.*s\"}}}",
								 STR_ARG(node)), NULL, false, NULL));
	}
	return NULL;
}

const struct plugin plugin_volume_binding = {
	.name = "VolumeBinding", .events = EVENT_NODE_ADD | EVENT_NODE_LABEL | EVENT_VOLUME,
	.pre_filter = volume_pre, .filter = volume_filter, .pre_bind = volume_pre_bind,
};
