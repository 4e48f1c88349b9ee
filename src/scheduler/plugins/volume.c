/*
 * The volume plugins. VolumeBinding: claims must exist; those that are bound must have a volume usable on the node; those that
 * wait for their first consumer get, for each node, the volumes that would be theirs there, or a provisioner to make them.
 * The chosen node's volumes are bound before the pod is (the PersistentVolume controller finishes what is written here).
 * VolumeRestrictions, VolumeZone and NodeVolumeLimits are about single properties of volumes.
 */
#include "scheduler/plugins/plugins.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "schema/quantity.h"
#include "schema/storage.h"

typedef struct core_v1_persistent_volume pv_t;
typedef struct core_v1_persistent_volume_claim pvc_t;

#define SKIP ((struct status){CODE_SKIP, STR_NULL})

static struct status unresolvable(struct str reason)
{
	return (struct status){CODE_UNSCHEDULABLE_UNRESOLVABLE, reason};
}

static struct status failure(struct cycle *c, struct error *e)
{
	struct status s = {CODE_ERROR, arena_printf(c->a, "%s", error_message(e))};

	error_free(e);
	return s;
}

/* ---- VolumeBinding ---- */

struct choice {
	pvc_t *claim;
	pv_t *volume;   /* to be bound, or NULL: to be provisioned for the node */
};

struct waiting {
	pvc_t *claim;
	struct storage_v1_storage_class *class;
	pv_t **volumes; /* of its class */
	size_t n;
};

struct volumes {
	LIST(pv_t *) bound;
	LIST(struct waiting) waiting;   /* WaitForFirstConsumer */
	LIST(struct choice) chosen;     /* of the node that was reserved */
	LIST(char *) assumed;           /* names of volumes in cache->assumed_volumes that are this pod's */
};

static struct status add_claim(struct cycle *c, struct volumes *v, struct str name, bool own)
{
	const struct volume_lister *l = c->volumes;
	pvc_t *claim = l->claim(l->ctx, c->a, c->info->ns, name);

	if (!claim)
		return unresolvable(own ? arena_printf(c->a, "waiting for ephemeral volume controller to create the persistentvolumeclaim \"%.*s\"",
						       STR_ARG(name)) :
					  arena_printf(c->a, "persistentvolumeclaim \"%.*s\" not found", STR_ARG(name)));
	if (str_eqz(claim->status.phase, "Lost"))
		return unresolvable(arena_printf(c->a, "persistentvolumeclaim \"%.*s\" bound to non-existent persistentvolume \"%.*s\"", STR_ARG(name),
						 STR_ARG(claim->spec.volume_name)));
	if (claim->metadata.deletion_timestamp)
		return unresolvable(arena_printf(c->a, "persistentvolumeclaim \"%.*s\" is being deleted", STR_ARG(name)));
	if (own && !claim_made_for(claim, c->pod))
		return unresolvable(arena_printf(c->a, "PVC \"%.*s/%.*s\" was not created for pod \"%.*s\" (pod is not owner)", STR_ARG(c->info->ns),
						 STR_ARG(name), STR_ARG(c->info->key)));
	if (claim->spec.volume_name.n && str_map_has(API_MAP(&claim->metadata.annotations), STR(ANN_BIND_COMPLETED))) {
		pv_t *pv = l->volume(l->ctx, c->a, claim->spec.volume_name);

		if (!pv)
			return unresolvable(STR("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
		*arena_push(c->a, &v->bound) = pv;
		return STATUS_OK;
	}
	struct str class = claim_class(claim);
	struct storage_v1_storage_class *sc = class.n ? l->storage_class(l->ctx, c->a, class) : NULL;

	if (!class_waits(sc) || claim->spec.volume_name.n)
		return unresolvable(STR("pod has unbound immediate PersistentVolumeClaims"));
	struct waiting *w = arena_push(c->a, &v->waiting);

	w->claim = claim;
	w->class = sc;
	w->n = l->of_class ? l->of_class(l->ctx, c->a, class, &w->volumes) : 0;
	return STATUS_OK;
}

static struct status binding_pre(struct cycle *c, int self)
{
	struct volumes *v = arena_new(c->a, struct volumes);

	c->state[self] = v;
	for (uint32_t i = 0; i < c->pod->spec.volumes.n; i++) {
		const struct core_v1_volume *vol = &c->pod->spec.volumes.v[i];
		struct status s = STATUS_OK;

		if (vol->volume_source.persistent_volume_claim)
			s = add_claim(c, v, vol->volume_source.persistent_volume_claim->claim_name, false);
		else if (vol->volume_source.ephemeral)
			s = add_claim(c, v, ephemeral_claim_name(c->a, c->info->name, vol->name), true);
		if (s.code != CODE_SUCCESS)
			return s;
	}
	return v->bound.n || v->waiting.n ? STATUS_OK : SKIP;
}

static bool allows_node(const pv_t *v, const struct node_info *n)
{
	const struct core_v1_volume_node_affinity *af = v->spec.node_affinity;

	return !af || !af->required || node_selector_matches(af->required, n->node);
}

struct on_node {
	struct cycle *c;
	const struct node_info *n;
	const struct choice *taken; /* by earlier claims of the pod */
	uint32_t n_taken;
	struct str claim_key;
};

static bool usable(void *ctx, const pv_t *v, bool bound)
{
	struct on_node *w = ctx;
	const char *assumed = map_get(&w->c->cache->assumed_volumes, v->metadata.name);

	if (!allows_node(v, w->n) || (assumed && !str_eqz(w->claim_key, assumed)))
		return false;
	for (uint32_t i = 0; i < w->n_taken; i++)
		if (w->taken[i].volume && str_eq(w->taken[i].volume->metadata.name, v->metadata.name))
			return false;
	return true;
}

static bool topology_allows(const struct storage_v1_storage_class *sc, const struct node_info *n)
{
	for (uint32_t i = 0; i < sc->allowed_topologies.n; i++) {
		const struct core_v1_topology_selector_term *t = &sc->allowed_topologies.v[i];
		bool all = true;

		for (uint32_t k = 0; k < t->match_label_expressions.n && all; k++) {
			struct str have = str_map_get(node_labels(n), t->match_label_expressions.v[k].key);

			all = false;
			for (uint32_t j = 0; j < t->match_label_expressions.v[k].values.n && have.p && !all; j++)
				all = str_eq(t->match_label_expressions.v[k].values.v[j], have);
		}
		if (all)
			return true;
	}
	return !sc->allowed_topologies.n;
}

/* Smaller claims choose first, so that they leave the larger volumes. */
static int by_size(const void *pa, const void *pb)
{
	const struct waiting *x = pa, *y = pb;

	return quantity_cmp(str_map_get(API_MAP(&x->claim->spec.resources.requests), STR("storage")),
			    str_map_get(API_MAP(&y->claim->spec.resources.requests), STR("storage")));
}

typedef LIST(struct choice) choices;

static struct status choose(struct cycle *c, struct volumes *v, const struct node_info *n, choices *out)
{
	static const char none[] = "node(s) didn't find available persistent volumes to bind";

	if (v->waiting.n > 1)
		qsort(v->waiting.v, v->waiting.n, sizeof *v->waiting.v, by_size);
	for (uint32_t i = 0; i < v->waiting.n; i++) {
		struct waiting *w = &v->waiting.v[i];
		struct str on = str_map_get(API_MAP(&w->claim->metadata.annotations), STR(ANN_SELECTED_NODE));
		struct on_node view = {c, n, out->v, out->n, arena_printf(c->a, "%.*s/%.*s", STR_ARG(w->claim->metadata.namespace),
									   STR_ARG(w->claim->metadata.name))};
		pv_t *pv = NULL;

		if (on.n && !str_eq(on, n->name)) /* being made for another node */
			return unresolvable(str_from(none));
		struct error *e = on.n ? NULL : volume_find(c->a, w->claim, w->volumes, w->n, usable, &view, false, &pv);

		if (e)
			return failure(c, e);
		if (!pv && (str_eqz(w->class->provisioner, NO_PROVISIONER) || !topology_allows(w->class, n)))
			return unresolvable(str_from(none));
		*arena_push(c->a, out) = (struct choice){w->claim, pv};
	}
	return STATUS_OK;
}

static struct status binding_filter(struct cycle *c, int self, const struct node_info *n)
{
	struct volumes *v = c->state[self];
	choices trial = {0};

	for (uint32_t i = 0; i < v->bound.n; i++)
		if (!allows_node(v->bound.v[i], n))
			return unresolvable(STR("node(s) didn't match PersistentVolume's node affinity"));
	return choose(c, v, n, &trial);
}

static struct status binding_reserve(struct cycle *c, int self, const struct node_info *n)
{
	struct volumes *v = c->state[self];
	choices mine = {0};

	if (c->skip_filter >> self & 1)
		return STATUS_OK;
	struct status s = choose(c, v, n, &mine);

	memcpy(&v->chosen, &mine, sizeof v->chosen);
	for (uint32_t i = 0; s.code == CODE_SUCCESS && i < mine.n; i++) {
		const pvc_t *claim = mine.v[i].claim;

		if (!mine.v[i].volume)
			continue;
		struct str name = mine.v[i].volume->metadata.name;
		struct str key = arena_printf(c->a, "%.*s/%.*s", STR_ARG(claim->metadata.namespace), STR_ARG(claim->metadata.name));

		free(map_set(&c->cache->assumed_volumes, name, str_dupz(key)));
		*arena_push(c->a, &v->assumed) = arena_strz(c->a, name);
	}
	return s;
}

static void binding_unreserve(struct cycle *c, int self)
{
	struct volumes *v = c->state[self];

	for (uint32_t i = 0; v && i < v->assumed.n; i++)
		free(map_del(&c->cache->assumed_volumes, str_from(v->assumed.v[i])));
	if (v)
		v->assumed.n = 0;
}

static struct error *write_choice(struct cycle *c, struct client *client, const struct choice *x, struct str node)
{
	pvc_t *claim = x->claim;

	if (x->volume) {
		if (!volume_set_claim(c->a, x->volume, claim))
			return NULL;
		return error_wrap(client_update(client, c->a, &core_v1_persistentvolumes_resource, STR_NULL, NULL, x->volume, NULL),
				  "binding volume \"%.*s\"", STR_ARG(x->volume->metadata.name));
	}
	if (str_eq(str_map_get(API_MAP(&claim->metadata.annotations), STR(ANN_SELECTED_NODE)), node))
		return NULL;
	return client_patch(client, c->a, &core_v1_persistentvolumeclaims_resource, claim->metadata.namespace, claim->metadata.name, NULL,
			    PATCH_MERGE, arena_printf(c->a, "{\"metadata\":{\"uid\":\"%.*s\",\"annotations\":{\"" ANN_SELECTED_NODE "\":\"%.*s\"}}}",
						      STR_ARG(claim->metadata.uid), STR_ARG(node)), NULL, false, NULL);
}

/* *done: all claims are bound. An error when that will not happen any more. */
static struct error *check_bound(struct cycle *c, const struct volumes *v, struct str node, bool *done)
{
	const struct volume_lister *l = c->volumes;

	*done = true;
	for (uint32_t i = 0; i < v->chosen.n; i++) {
		arena_cleanup struct arena a = {0};
		const struct choice *x = &v->chosen.v[i];
		pvc_t *now = l->claim(l->ctx, &a, x->claim->metadata.namespace, x->claim->metadata.name);

		if (!now || !str_eq(now->metadata.uid, x->claim->metadata.uid))
			return error_new("persistentvolumeclaim \"%.*s\" is gone", STR_ARG(x->claim->metadata.name));
		if (now->spec.volume_name.n && str_map_has(API_MAP(&now->metadata.annotations), STR(ANN_BIND_COMPLETED)))
			continue;
		*done = false;
		struct str on = str_map_get(API_MAP(&now->metadata.annotations), STR(ANN_SELECTED_NODE));
		struct str was = x->claim->metadata.resource_version;

		/* A provisioner that cannot serve the node takes the annotation away. */
		if (!x->volume && !str_eq(on, node) && !str_eq(now->metadata.resource_version, was) && str_map_has(API_MAP(&now->metadata.annotations),
														  STR(ANN_PROVISIONER)))
			return error_new("provisioning failed for PVC \"%.*s\"", STR_ARG(x->claim->metadata.name));
	}
	return NULL;
}

static struct error *binding_pre_bind(struct cycle *c, int self, struct client *client, struct str node)
{
	struct volumes *v = c->state[self];
	int64_t end = now_ms() + c->profile->bind_timeout_ms;
	bool done;

	for (uint32_t i = 0; v && i < v->chosen.n; i++)
		TRY(write_choice(c, client, &v->chosen.v[i], node));
	while (v && v->chosen.n) {
		TRY(check_bound(c, v, node, &done));
		if (done)
			break;
		int64_t left = end - now_ms();

		if (left <= 0)
			return error_new("binding volumes: timed out waiting for the condition");
		TRY(c->volumes->wait(c->volumes->ctx, left < 10000 ? left : 10000));
	}
	return NULL;
}

const struct plugin plugin_volume_binding = {
	.name = "VolumeBinding", .events = EVENT_NODE_ADD | EVENT_NODE_LABEL | EVENT_VOLUME,
	.pre_filter = binding_pre, .filter = binding_filter, .reserve = binding_reserve, .unreserve = binding_unreserve,
	.pre_bind = binding_pre_bind,
};

/* ---- VolumeRestrictions: ReadWriteOncePod (KEP-2485) ---- */

struct restricted {
	struct strings claims;
	size_t conflicts;
};

static size_t users(struct cycle *c, const struct restricted *r, const struct pod_info *p)
{
	size_t n = 0;

	for (uint32_t i = 0; str_eq(p->ns, c->info->ns) && i < p->claims.n; i++)
		for (uint32_t k = 0; k < r->claims.n; k++)
			n += str_eq(p->claims.v[i], r->claims.v[k]);
	return n;
}

static struct status restrictions_pre(struct cycle *c, int self)
{
	const struct volume_lister *l = c->volumes;
	struct restricted *r = arena_new(c->a, struct restricted);

	c->state[self] = r;
	for (uint32_t i = 0; i < c->info->claims.n; i++) {
		pvc_t *claim = l->claim(l->ctx, c->a, c->info->ns, c->info->claims.v[i]);

		for (uint32_t k = 0; claim && k < claim->spec.access_modes.n; k++)
			if (str_eqz(claim->spec.access_modes.v[k], "ReadWriteOncePod"))
				*arena_push(c->a, &r->claims) = c->info->claims.v[i];
	}
	if (!r->claims.n)
		return SKIP;
	for (size_t i = 0; i < c->cache->n_nodes; i++)
		for (uint32_t k = 0; k < c->cache->nodes[i]->pods.n; k++)
			r->conflicts += users(c, r, c->cache->nodes[i]->pods.v[k]);
	return STATUS_OK;
}

static struct status restrictions_filter(struct cycle *c, int self, const struct node_info *n)
{
	struct restricted *r = c->state[self];

	return r->conflicts ? (struct status){CODE_UNSCHEDULABLE, STR("node has pod using PersistentVolumeClaim with the same name and "
								      "ReadWriteOncePod access mode")} : STATUS_OK;
}

static void restrictions_changed(struct cycle *c, int self, const struct node_info *n, const struct pod_info *p, int sign)
{
	struct restricted *r = c->state[self];

	if (sign > 0)
		r->conflicts += users(c, r, p);
	else
		r->conflicts -= users(c, r, p);
}

const struct plugin plugin_volume_restrictions = {
	.name = "VolumeRestrictions", .events = EVENT_NODE_ADD | EVENT_POD_DELETE | EVENT_VOLUME,
	.pre_filter = restrictions_pre, .filter = restrictions_filter, .pod_changed = restrictions_changed,
};

/* ---- VolumeZone: zone and region labels of bound volumes ---- */

static const char *const zone_labels[] = {
	"topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
	"failure-domain.beta.kubernetes.io/region",
};

struct zones {
	LIST(struct str_pair) need; /* value: one or more, parted by "__" */
};

static struct status zone_pre(struct cycle *c, int self)
{
	const struct volume_lister *l = c->volumes;
	struct zones *z = arena_new(c->a, struct zones);

	c->state[self] = z;
	for (uint32_t i = 0; i < c->info->claims.n; i++) {
		pvc_t *claim = l->claim(l->ctx, c->a, c->info->ns, c->info->claims.v[i]);
		pv_t *v = claim && claim->spec.volume_name.n ? l->volume(l->ctx, c->a, claim->spec.volume_name) : NULL;

		for (size_t k = 0; v && k < sizeof zone_labels / sizeof *zone_labels; k++) {
			struct str value = str_map_get(API_MAP(&v->metadata.labels), str_from(zone_labels[k]));

			if (value.n)
				*arena_push(c->a, &z->need) = (struct str_pair){str_from(zone_labels[k]), value};
		}
	}
	return z->need.n ? STATUS_OK : SKIP;
}

static bool among(struct str values, struct str one)
{
	for (;;) {
		ptrdiff_t at = str_find(values, STR("__"));

		if (str_eq(at < 0 ? values : str_sub(values, 0, (size_t)at), one))
			return true;
		if (at < 0)
			return false;
		values = str_sub(values, (size_t)at + 2, values.n);
	}
}

static struct status zone_filter(struct cycle *c, int self, const struct node_info *n)
{
	struct zones *z = c->state[self];
	bool any = false;

	/* A node without any such label is a cluster without zones. */
	for (size_t k = 0; k < sizeof zone_labels / sizeof *zone_labels && !any; k++)
		any = str_map_has(node_labels(n), str_from(zone_labels[k]));
	for (uint32_t i = 0; any && i < z->need.n; i++) {
		struct str have = str_map_get(node_labels(n), z->need.v[i].key);

		if (!have.p || !among(z->need.v[i].value, have))
			return unresolvable(STR("node(s) had no available volume zone"));
	}
	return STATUS_OK;
}

const struct plugin plugin_volume_zone = {
	.name = "VolumeZone", .events = EVENT_NODE_ADD | EVENT_NODE_LABEL | EVENT_VOLUME, .pre_filter = zone_pre, .filter = zone_filter,
};

/* ---- NodeVolumeLimits: how many volumes a CSI driver attaches to a node ---- */

struct csi_volume {
	struct str driver, handle;
};
typedef LIST(struct csi_volume) csi_volumes;

/* The CSI volume behind a claim: the bound one's, or one that the class' provisioner will make. */
static bool csi_of(struct cycle *c, struct str ns, struct str name, struct csi_volume *out)
{
	const struct volume_lister *l = c->volumes;
	pvc_t *claim = l->claim(l->ctx, c->a, ns, name);

	if (!claim)
		return false;
	if (claim->spec.volume_name.n) {
		pv_t *v = l->volume(l->ctx, c->a, claim->spec.volume_name);

		if (!v || !v->spec.persistent_volume_source.csi)
			return false;
		*out = (struct csi_volume){v->spec.persistent_volume_source.csi->driver, v->spec.persistent_volume_source.csi->volume_handle};
		return true;
	}
	struct str class = claim_class(claim);
	struct storage_v1_storage_class *sc = class.n ? l->storage_class(l->ctx, c->a, class) : NULL;

	if (!sc || str_has_prefix(sc->provisioner, STR("kubernetes.io/")))
		return false;
	*out = (struct csi_volume){sc->provisioner, arena_printf(c->a, "claim/%.*s/%.*s", STR_ARG(ns), STR_ARG(name))};
	return true;
}

static void add_unique(struct cycle *c, csi_volumes *to, const struct csi_volume *v)
{
	for (uint32_t i = 0; i < to->n; i++)
		if (str_eq(to->v[i].driver, v->driver) && str_eq(to->v[i].handle, v->handle))
			return;
	*arena_push(c->a, to) = *v;
}

static struct status limits_pre(struct cycle *c, int self)
{
	csi_volumes *mine = arena_alloc(c->a, sizeof *mine);
	struct csi_volume v;

	c->state[self] = mine;
	for (uint32_t i = 0; c->volumes->csi_node && i < c->info->claims.n; i++)
		if (csi_of(c, c->info->ns, c->info->claims.v[i], &v))
			add_unique(c, mine, &v);
	return mine->n ? STATUS_OK : SKIP;
}

static struct status limits_filter(struct cycle *c, int self, const struct node_info *n)
{
	const csi_volumes *mine = c->state[self];
	struct storage_v1_csi_node *csi = c->volumes->csi_node(c->volumes->ctx, c->a, n->name);
	csi_volumes there = {0};
	struct csi_volume v;
	bool limited = false;

	for (uint32_t i = 0; csi && i < csi->spec.drivers.n; i++)
		limited |= csi->spec.drivers.v[i].allocatable && csi->spec.drivers.v[i].allocatable->count;
	if (!limited)
		return STATUS_OK;
	for (uint32_t i = 0; i < n->pods.n; i++)
		for (uint32_t k = 0; k < n->pods.v[i]->claims.n; k++)
			if (csi_of(c, n->pods.v[i]->ns, n->pods.v[i]->claims.v[k], &v))
				add_unique(c, &there, &v);
	uint32_t before = there.n;

	for (uint32_t i = 0; i < mine->n; i++)
		add_unique(c, &there, &mine->v[i]);
	for (uint32_t i = 0; i < csi->spec.drivers.n; i++) {
		const struct storage_v1_csi_node_driver *d = &csi->spec.drivers.v[i];
		int64_t count = 0, more = 0;

		if (!d->allocatable || !d->allocatable->count)
			continue;
		for (uint32_t k = 0; k < there.n; k++) {
			count += str_eq(there.v[k].driver, d->name);
			more += k >= before && str_eq(there.v[k].driver, d->name);
		}
		if (more && count > *d->allocatable->count)
			return (struct status){CODE_UNSCHEDULABLE, STR("node(s) exceed max volume count")};
	}
	return STATUS_OK;
}

const struct plugin plugin_node_volume_limits = {
	.name = "NodeVolumeLimits", .events = EVENT_NODE_ADD | EVENT_POD_DELETE | EVENT_VOLUME,
	.pre_filter = limits_pre, .filter = limits_filter,
};
