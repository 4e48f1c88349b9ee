/*
 * controller/pvbinder.c: binds PersistentVolumeClaims to PersistentVolumes and reclaims volumes whose claim is gone.
 *
 * Both objects say who belongs to whom (the volume's claimRef, the claim's volumeName); the volume is written first and each
 * write names the version it was made from, so that of two who want the same volume one has a conflict and looks again.
 *
 * It makes no volumes: what a class' external provisioner shall make is asked for by annotation; what in-tree plugins
 * would do says so in an event.
 */
#include <stdlib.h>

#include "controller/common.h"
#include "schema/quantity.h"
#include "schema/storage.h"

#define CONFLICT_MS 20

typedef struct core_v1_persistent_volume pv_t;
typedef struct core_v1_persistent_volume_claim pvc_t;

struct binder {
	struct manager *m;
	struct informer *volumes, *claims, *classes, *pods;
	struct workqueue *volume_q, *claim_q;
	struct event_recorder *rec;
};

static void claim_event(struct binder *b, const pvc_t *c, const char *type, const char *reason, struct str message)
{
	struct core_v1_object_reference ref = object_reference(&core_v1_persistentvolumeclaims_resource, c);

	event_record(b->rec, &ref, type, reason, "%.*s", STR_ARG(message));
}

static void volume_event(struct binder *b, const pv_t *v, const char *type, const char *reason, struct str message)
{
	struct core_v1_object_reference ref = object_reference(&core_v1_persistentvolumes_resource, v);

	event_record(b->rec, &ref, type, reason, "%.*s", STR_ARG(message));
}

/* ---- writes: each takes the object as it is known and leaves it as written ---- */

static struct error *write_volume(struct binder *b, struct arena *a, pv_t **v, const char *sub)
{
	void *out = NULL;

	TRY(client_update(b->m->client, a, &core_v1_persistentvolumes_resource, STR_NULL, sub, *v, &out));
	*v = out;
	return NULL;
}

static struct error *write_claim(struct binder *b, struct arena *a, pvc_t **c, const char *sub)
{
	void *out = NULL;

	TRY(client_update(b->m->client, a, &core_v1_persistentvolumeclaims_resource, (*c)->metadata.namespace, sub, *c, &out));
	*c = out;
	return NULL;
}

/* *changed (NULL-able) tells whether the phase was another. */
static struct error *set_volume_phase(struct binder *b, struct arena *a, pv_t **v, const char *phase, struct str message, bool *changed)
{
	bool same = str_eqz((*v)->status.phase, phase);

	if (changed)
		*changed = !same;
	if (same)
		return NULL;
	(*v)->status.phase = str_from(phase);
	(*v)->status.message = message;
	return write_volume(b, a, v, "status");
}

static struct error *fail_volume(struct binder *b, struct arena *a, pv_t **v, const char *reason, struct str message)
{
	bool changed;

	TRY(set_volume_phase(b, a, v, "Failed", message, &changed));
	if (changed)
		volume_event(b, *v, "Warning", reason, message);
	return NULL;
}

static bool same_strings(const struct strings *x, const struct strings *y)
{
	if (x->n != y->n)
		return false;
	for (uint32_t i = 0; i < x->n; i++)
		if (!str_eq(x->v[i], y->v[i]))
			return false;
	return true;
}
#define STRINGS(field) ((struct strings *)(void *)(field))

/* v NULL: what the claim had of a volume goes. */
static struct error *set_claim_status(struct binder *b, struct arena *a, pvc_t **c, const char *phase, const pv_t *v)
{
	struct core_v1_persistent_volume_claim_status *st = &(*c)->status;
	bool other = !str_eqz(st->phase, phase), dirty = other, pending = str_eqz(st->phase, "Pending");

	st->phase = str_from(phase);
	if (!v) {
		dirty |= st->access_modes.n || st->capacity.n || st->current_volume_attributes_class_name;
		st->access_modes.n = st->capacity.n = 0;
		st->current_volume_attributes_class_name = NULL;
		return dirty ? write_claim(b, a, c, "status") : NULL;
	}
	if (!same_strings(STRINGS(&st->access_modes), STRINGS(&v->spec.access_modes))) {
		memcpy(&st->access_modes, &v->spec.access_modes, sizeof(st->access_modes));
		dirty = true;
	}
	if (other) { /* later the file system may be smaller than the volume, and that is its kubelet's business */
		struct str has = str_map_get(API_MAP(&v->spec.capacity), STR("storage"));
		struct str before = str_map_get(API_MAP(&v->metadata.annotations), STR("volume.alpha.kubernetes.io/pre-resize-capacity"));

		if (!has.n)
			return error_new("PersistentVolume \"%.*s\" is without a storage capacity", STR_ARG(v->metadata.name));
		if (before.n)
			str_map_set(a, API_MAP(&st->capacity), STR("storage"), before);
		else
			memcpy(&st->capacity, &v->spec.capacity, sizeof(st->capacity));
		if (pending)
			st->current_volume_attributes_class_name = v->spec.volume_attributes_class_name;
	}
	return dirty ? write_claim(b, a, c, "status") : NULL;
}

static struct error *lose_claim(struct binder *b, struct arena *a, pvc_t *c, const char *reason, const char *message)
{
	if (str_eqz(c->status.phase, "Lost"))
		return NULL;
	TRY(set_claim_status(b, a, &c, "Lost", NULL));
	claim_event(b, c, "Warning", reason, str_from(message));
	return NULL;
}

static struct error *bind_both(struct binder *b, struct arena *a, pv_t *v, pvc_t *c)
{
	struct str_map *notes = API_MAP(&c->metadata.annotations);
	bool dirty = false;

	if (volume_set_claim(a, v, c))
		TRY(write_volume(b, a, &v, NULL));
	TRY(set_volume_phase(b, a, &v, "Bound", STR_NULL, NULL));
	if (!str_eq(c->spec.volume_name, v->metadata.name)) {
		c->spec.volume_name = v->metadata.name;
		if (!str_map_has(notes, STR(ANN_BOUND_BY_CONTROLLER)))
			str_map_set(a, notes, STR(ANN_BOUND_BY_CONTROLLER), STR("yes"));
		dirty = true;
	}
	if (!str_map_has(notes, STR(ANN_BIND_COMPLETED))) {
		str_map_set(a, notes, STR(ANN_BIND_COMPLETED), STR("yes"));
		dirty = true;
	}
	if (dirty)
		TRY(write_claim(b, a, &c, NULL));
	return set_claim_status(b, a, &c, "Bound", v);
}

/* What this controller bound becomes free; what the user reserved stays so. */
static struct error *unbind(struct binder *b, struct arena *a, pv_t *v)
{
	struct str_map *notes = API_MAP(&v->metadata.annotations);

	if (str_map_has(notes, STR(ANN_BOUND_BY_CONTROLLER))) {
		v->spec.claim_ref = NULL;
		str_map_del(notes, STR(ANN_BOUND_BY_CONTROLLER));
	} else {
		v->spec.claim_ref->uid = STR_NULL;
	}
	TRY(write_volume(b, a, &v, NULL));
	return set_volume_phase(b, a, &v, "Available", STR_NULL, NULL);
}

/* ---- claims ---- */

static struct storage_v1_storage_class *class_of(struct binder *b, struct arena *a, const pvc_t *c)
{
	struct str name = claim_class(c);

	return name.n ? informer_get(b->classes, a, STR_NULL, name) : NULL;
}

/* The newest of the default classes. */
static const struct storage_v1_storage_class *default_class(struct binder *b, struct arena *a)
{
	struct storage_v1_storage_class **v, *best = NULL;
	size_t n = informer_list(b->classes, a, STR_NULL, NULL, (void ***)&v);

	for (size_t i = 0; i < n; i++) {
		const struct str_map *notes = API_MAP(&v[i]->metadata.annotations);

		if (!str_eqz(str_map_get(notes, STR("storageclass.kubernetes.io/is-default-class")), "true") &&
		    !str_eqz(str_map_get(notes, STR("storageclass.beta.kubernetes.io/is-default-class")), "true"))
			continue;
		int cmp = best ? time_cmp(v[i]->metadata.creation_timestamp, best->metadata.creation_timestamp) : 1;

		if (cmp > 0 || (cmp == 0 && str_cmp(v[i]->metadata.name, best->metadata.name) < 0))
			best = v[i];
	}
	return best;
}

static bool pod_uses(struct arena *a, const struct core_v1_pod *p, struct str claim)
{
	for (uint32_t i = 0; i < p->spec.volumes.n; i++) {
		const struct core_v1_volume *v = &p->spec.volumes.v[i];

		if (v->volume_source.persistent_volume_claim && str_eq(v->volume_source.persistent_volume_claim->claim_name, claim))
			return true;
		if (v->volume_source.ephemeral && str_eq(ephemeral_claim_name(a, p->metadata.name, v->name), claim))
			return true;
	}
	return false;
}

static void say_waiting(struct binder *b, struct arena *a, const pvc_t *c)
{
	struct buf names buf_cleanup = {0};
	struct core_v1_pod **v;
	size_t n = informer_list(b->pods, a, c->metadata.namespace, NULL, (void ***)&v), k = 0;

	for (size_t i = 0; i < n; i++)
		if (!v[i]->spec.node_name.n && !pod_is_terminal(v[i]) && pod_uses(a, v[i], c->metadata.name))
			buf_printf(&names, "%s%.*s", k++ ? "," : "", STR_ARG(v[i]->metadata.name));
	if (k)
		claim_event(b, c, "Normal", "WaitForPodScheduled", arena_printf(a, "waiting for pod%s %.*s to be scheduled", k > 1 ? "s" : "",
										STR_ARG(buf_view(&names))));
	else
		claim_event(b, c, "Normal", "WaitForFirstConsumer", STR("waiting for first consumer to be created before binding"));
}

static struct error *provision(struct binder *b, struct arena *a, pvc_t *c, const struct storage_v1_storage_class *sc)
{
	struct str_map *notes = API_MAP(&c->metadata.annotations);
	struct str p;

	if (!sc) {
		claim_event(b, c, "Warning", "ProvisioningFailed", arena_printf(a, "storageclass.storage.k8s.io \"%.*s\" not found",
										STR_ARG(claim_class(c))));
		return NULL;
	}
	p = sc->provisioner;
	if (str_has_prefix(p, STR("kubernetes.io/"))) {
		claim_event(b, c, "Warning", "ProvisioningFailed", arena_printf(a, "no volume plugin matched name: %.*s", STR_ARG(p)));
		return NULL;
	}
	if (!str_eq(str_map_get(notes, STR(ANN_PROVISIONER)), p)) {
		str_map_set(a, notes, STR(ANN_PROVISIONER), p);
		str_map_set(a, notes, STR(ANN_BETA_PROVISIONER), p);
		TRY(write_claim(b, a, &c, NULL));
	}
	claim_event(b, c, "Normal", "ExternalProvisioning",
		    arena_printf(a, "Waiting for a volume to be created either by the external provisioner '%.*s' or manually by the system "
				 "administrator. If volume creation is delayed, please verify that the provisioner is running and correctly "
				 "registered.", STR_ARG(p)));
	return NULL;
}

/* No volume fits: one is made, or waited for. */
static struct error *want_volume(struct binder *b, struct arena *a, pvc_t *c, bool delay)
{
	const struct storage_v1_storage_class *def = claim_has_class(c) ? NULL : default_class(b, a);

	if (def) { /* a default that came after the claim (KEP-3333) */
		c->spec.storage_class_name = new_str(a, def->metadata.name);
		return write_claim(b, a, &c, NULL);
	}
	if (delay && !str_map_has(API_MAP(&c->metadata.annotations), STR(ANN_SELECTED_NODE)))
		say_waiting(b, a, c);
	else if (claim_class(c).n)
		return provision(b, a, c, class_of(b, a, c));
	else
		claim_event(b, c, "Normal", "FailedBinding", STR("no persistent volumes available for this claim and no storage class is set"));
	return set_claim_status(b, a, &c, "Pending", NULL);
}

static struct error *sync_named(struct binder *b, struct arena *a, pvc_t *c)
{
	pv_t *v = informer_get(b->volumes, a, STR_NULL, c->spec.volume_name);

	if (!v)
		return set_claim_status(b, a, &c, "Pending", NULL);
	if (!v->spec.claim_ref) {
		const char *why = volume_mismatch(v, c);

		if (!why)
			return bind_both(b, a, v, c);
		claim_event(b, c, "Warning", "VolumeMismatch",
			    arena_printf(a, "Cannot bind to requested volume \"%.*s\": %s", STR_ARG(v->metadata.name), why));
		return set_claim_status(b, a, &c, "Pending", NULL);
	}
	if (volume_bound_to(v, c))
		return bind_both(b, a, v, c);
	claim_event(b, c, "Warning", "FailedBinding",
		    arena_printf(a, "volume \"%.*s\" already bound to a different claim.", STR_ARG(v->metadata.name)));
	return set_claim_status(b, a, &c, "Pending", NULL);
}

static struct error *sync_unbound(struct binder *b, struct arena *a, pvc_t *c)
{
	pv_t **v, *found;
	size_t n;

	if (c->spec.volume_name.n)
		return sync_named(b, a, c);
	bool delay = class_waits(class_of(b, a, c));

	n = informer_list(b->volumes, a, STR_NULL, NULL, (void ***)&v);
	TRY(volume_find(a, c, v, n, NULL, NULL, delay, &found));
	return found ? bind_both(b, a, found, c) : want_volume(b, a, c, delay);
}

static struct error *sync_bound(struct binder *b, struct arena *a, pvc_t *c)
{
	if (!c->spec.volume_name.n)
		return lose_claim(b, a, c, "ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
	pv_t *v = informer_get(b->volumes, a, STR_NULL, c->spec.volume_name);
	void *obj;

	if (!v) { /* its bytes may only not be here yet */
		struct error *e = client_get(b->m->client, a, &core_v1_persistentvolumes_resource, STR_NULL, c->spec.volume_name, &obj);

		if (error_is(e, 404, NULL)) {
			error_free(e);
			return lose_claim(b, a, c, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
		}
		TRY(e);
		v = obj;
	}
	if (!v->spec.claim_ref || str_eq(v->spec.claim_ref->uid, c->metadata.uid))
		return bind_both(b, a, v, c);
	return lose_claim(b, a, c, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly");
}

/* Larger than the volume: whoever made the volume makes it larger. */
static void say_expanding(struct binder *b, const pvc_t *c)
{
	struct str want = str_map_get(API_MAP(&c->spec.resources.requests), STR("storage"));
	struct str has = str_map_get(API_MAP(&c->status.capacity), STR("storage"));

	if (str_eqz(c->status.phase, "Bound") && want.n && has.n && quantity_cmp(want, has) > 0)
		claim_event(b, c, "Normal", "ExternalExpanding", STR("waiting for an external controller to expand this PVC"));
}

/* Conflicts are everyday here: look again once what is new has arrived. */
static struct error *look_again(struct workqueue *q, struct str key, struct error *e)
{
	if (error_is(e, 404, NULL))
		error_clear(&e);
	if (error_is(e, 409, NULL)) {
		error_clear(&e);
		workqueue_add_after(q, key, CONFLICT_MS);
	}
	return e;
}

static struct error *reconcile_claim(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct binder *b = ctx;
	pvc_t *c = informer_get(b->claims, a, ns, name);

	if (!c)
		return NULL;
	if (!str_map_has(API_MAP(&c->metadata.annotations), STR(ANN_BIND_COMPLETED)))
		return look_again(b->claim_q, object_key(a, ns, name), sync_unbound(b, a, c));
	say_expanding(b, c);
	return look_again(b->claim_q, object_key(a, ns, name), sync_bound(b, a, c));
}

/* ---- volumes ---- */

static bool in_tree(struct str provisioner)
{
	return str_has_prefix(provisioner, STR("kubernetes.io/"));
}

static struct error *reclaim(struct binder *b, struct arena *a, pv_t *v)
{
	const struct str_map *notes = API_MAP(&v->metadata.annotations);
	struct str policy = v->spec.persistent_volume_reclaim_policy, by = str_map_get(notes, STR(ANN_PROVISIONED_BY));

	if (str_map_has(notes, STR(ANN_MIGRATED_TO)) || str_eqz(policy, "Retain"))
		return NULL;
	if (str_eqz(policy, "Recycle"))
		return fail_volume(b, a, &v, "VolumeFailedRecycle", STR("No recycler plugin found for the volume!"));
	if (!str_eqz(policy, "Delete"))
		return fail_volume(b, a, &v, "VolumeUnknownReclaimPolicy", STR("Volume has unrecognized PersistentVolumeReclaimPolicy"));
	if (by.n && !in_tree(by)) /* its maker takes it away */
		return NULL;
	return fail_volume(b, a, &v, "VolumeFailedDelete", arena_printf(a, "error getting deleter volume plugin for volume \"%.*s\": no deletable "
									"volume plugin matched", STR_ARG(v->metadata.name)));
}

static struct error *release(struct binder *b, struct arena *a, pv_t *v)
{
	/* A failure stays to be seen. */
	if (!str_eqz(v->status.phase, "Released") && !str_eqz(v->status.phase, "Failed"))
		TRY(set_volume_phase(b, a, &v, "Released", STR_NULL, NULL));
	return reclaim(b, a, v);
}

/* The claim that the volume is bound to, NULL when it is gone; in doubt by asking the server: a volume is not reclaimed by mistake. */
static struct error *claim_behind(struct binder *b, struct arena *a, const pv_t *v, pvc_t **out)
{
	const struct core_v1_object_reference *r = v->spec.claim_ref;
	pvc_t *c = informer_get(b->claims, a, r->namespace, r->name);
	bool settled = str_eqz(v->status.phase, "Released") || str_eqz(v->status.phase, "Failed");
	void *obj = NULL;

	*out = NULL;
	if ((!c && !settled) || (c && !str_eq(c->metadata.uid, r->uid))) {
		struct error *e = client_get(b->m->client, a, &core_v1_persistentvolumeclaims_resource, r->namespace, r->name, &obj);

		if (error_is(e, 404, NULL))
			error_clear(&e);
		TRY(e);
		c = obj;
	}
	if (c && str_eq(c->metadata.uid, r->uid))
		*out = c;
	return NULL;
}

static struct error *sync_volume(struct binder *b, struct arena *a, pv_t *v)
{
	pvc_t *c;

	if (!v->spec.claim_ref || !v->spec.claim_ref->uid.n)
		return set_volume_phase(b, a, &v, "Available", STR_NULL, NULL);
	TRY(claim_behind(b, a, v, &c));
	if (!c)
		return release(b, a, v);
	if (str_eq(c->spec.volume_name, v->metadata.name))
		return set_volume_phase(b, a, &v, "Bound", STR_NULL, NULL);
	if (!c->spec.volume_name.n) {
		if (!volume_mode_differs(v, c)) {
			workqueue_add(b->claim_q, object_key(a, c->metadata.namespace, c->metadata.name));
			return NULL;
		}
		volume_event(b, v, "Warning", "VolumeMismatch",
			     arena_printf(a, "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"%.*s\" due to incompatible volumeMode.",
					  STR_ARG(c->metadata.name)));
		claim_event(b, c, "Warning", "VolumeMismatch",
			    arena_printf(a, "Cannot bind PersistentVolume \"%.*s\" to requested PersistentVolumeClaim due to incompatible volumeMode.",
					 STR_ARG(v->metadata.name)));
		return NULL;
	}
	/* The claim has another volume. */
	if (str_map_has(API_MAP(&v->metadata.annotations), STR(ANN_PROVISIONED_BY)) &&
	    str_eqz(v->spec.persistent_volume_reclaim_policy, "Delete"))
		return release(b, a, v);
	return unbind(b, a, v);
}

static struct error *reconcile_volume(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct binder *b = ctx;
	pv_t *v = informer_get(b->volumes, a, STR_NULL, name);

	return v ? look_again(b->volume_q, arena_str(a, name), sync_volume(b, a, v)) : NULL;
}

/* ---- events ---- */

static bool queue_unbound(void *ctx, const struct cached_object *o)
{
	struct binder *b = ctx;
	arena_cleanup struct arena a = {0};

	/* Claims that are bound are not interested: their bytes tell without decoding. */
	if (!str_contains(block_str(o->json), STR("\"" ANN_BIND_COMPLETED "\"")))
		workqueue_add(b->claim_q, object_key(&a, o->ns, o->name));
	return true;
}

static void on_volume(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct binder *b = ctx;
	arena_cleanup struct arena a = {0};
	const struct cached_object *o = new_ ? new_ : old;
	const pv_t *v = cached_decode(b->volumes, &a, o);

	if (new_)
		workqueue_add(b->volume_q, o->name);
	if (v && v->spec.claim_ref)
		workqueue_add(b->claim_q, object_key(&a, v->spec.claim_ref->namespace, v->spec.claim_ref->name));
	else if (v && new_ && str_eqz(v->status.phase, "Available")) /* somebody may have waited for it */
		informer_each(b->claims, STR_NULL, NULL, queue_unbound, b);
}

static void on_claim(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct binder *b = ctx;
	arena_cleanup struct arena a = {0};
	const struct cached_object *o = new_ ? new_ : old;
	const pvc_t *c = cached_decode(b->claims, &a, o);

	if (new_)
		workqueue_add(b->claim_q, object_key(&a, o->ns, o->name));
	if (c && c->spec.volume_name.n)
		workqueue_add(b->volume_q, arena_str(&a, c->spec.volume_name));
}

static void on_class(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct binder *b = ctx;

	if (new_)
		informer_each(b->claims, STR_NULL, NULL, queue_unbound, b);
}

static bool queue_volume(void *ctx, const struct cached_object *o)
{
	workqueue_add(((struct binder *)ctx)->volume_q, o->name);
	return true;
}

static struct error *resync(void *ctx, struct arena *a)
{
	struct binder *b = ctx;

	informer_each(b->claims, STR_NULL, NULL, queue_unbound, b);
	informer_each(b->volumes, STR_NULL, NULL, queue_volume, b);
	return NULL;
}

void pv_binder_start(struct manager *m)
{
	struct binder *b = xcalloc(1, sizeof(*b));

	b->m = m;
	b->volume_q = workqueue_new("volumes");
	b->claim_q = workqueue_new("claims");
	b->rec = event_recorder_new(m->client, "persistentvolume-controller", "");
	b->volumes = manager_informer(m, &core_v1_persistentvolumes_resource);
	b->claims = manager_informer(m, &core_v1_persistentvolumeclaims_resource);
	b->classes = manager_informer(m, &storage_v1_storageclasses_resource);
	b->pods = manager_informer(m, &core_v1_pods_resource);
	informer_on_event(b->volumes, on_volume, b);
	informer_on_event(b->claims, on_claim, b);
	informer_on_event(b->classes, on_class, b);
	/* One worker each, as upstream: two claims seldom look at the same volume at once then. */
	controller_run(m, b->claim_q, "persistentvolume-claims", 1, reconcile_claim, b, b->volumes, b->claims, b->classes, b->pods, NULL);
	controller_run(m, b->volume_q, "persistentvolume-volumes", 1, reconcile_volume, b, b->volumes, b->claims, b->classes, NULL);
	controller_every(m, "persistentvolume-resync", m->flags.pv_sync_ms, resync, b, b->volumes, b->claims, NULL);
}
