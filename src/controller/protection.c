/*
 * controller/protection.c: finalizers that keep storage objects while they are used (KEP: "storage object in use protection"):
 * claims of scheduled pods, bound volumes, attribute classes that are named. The API server's admission adds them; here they are
 * added to what is older and taken away once nothing uses the object.
 */
#include <stdlib.h>

#include "controller/common.h"
#include "schema/storage.h"

#define CLAIM_FINALIZER "kubernetes.io/pvc-protection"
#define VOLUME_FINALIZER "kubernetes.io/pv-protection"
#define CLASS_FINALIZER "kubernetes.io/vac-protection"

struct protection {
	struct manager *m;
	struct informer *own, *pods, *claims, *volumes;
	struct workqueue *q;
};

/* Writes the object's finalizers; conflicts and objects that are gone come again by their events. */
static struct error *write_finalizers(struct protection *c, struct arena *a, const struct api_resource *r, struct str ns, const void *obj)
{
	struct error *e = client_update(c->m->client, a, r, ns, NULL, obj, NULL);

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

static struct error *protect(struct protection *c, struct arena *a, const struct api_resource *r, struct meta_v1_object_meta *m, const void *obj,
			     const char *finalizer)
{
	if (m->deletion_timestamp || has_finalizer(m, finalizer))
		return NULL;
	*arena_push(a, &m->finalizers) = str_from(finalizer);
	return write_finalizers(c, a, r, m->namespace, obj);
}

/* ---- claims ---- */

/* A pod counts from its scheduling until it is gone: a kubelet starts none whose claim is being deleted. */
static bool uses(struct arena *a, const struct core_v1_pod *p, const struct core_v1_persistent_volume_claim *c)
{
	bool shut_down = p->metadata.deletion_timestamp && p->metadata.deletion_grace_period_seconds &&
			 *p->metadata.deletion_grace_period_seconds == 0;

	for (uint32_t i = 0; p->spec.node_name.n && i < p->spec.volumes.n; i++) {
		const struct core_v1_volume *v = &p->spec.volumes.v[i];

		if (v->volume_source.persistent_volume_claim &&
		    str_eq(v->volume_source.persistent_volume_claim->claim_name, c->metadata.name))
			return true;
		if (!shut_down && v->volume_source.ephemeral &&
		    str_eq(ephemeral_claim_name(a, p->metadata.name, v->name), c->metadata.name) && claim_made_for(c, p))
			return true;
	}
	return false;
}

static struct error *in_use(struct protection *c, struct arena *a, const struct core_v1_persistent_volume_claim *claim, bool *used)
{
	struct core_v1_pod **v;
	size_t n = informer_list(c->pods, a, claim->metadata.namespace, NULL, (void ***)&v);
	void *list;

	*used = true;
	for (size_t i = 0; i < n; i++)
		if (uses(a, v[i], claim))
			return NULL;
	/* What was scheduled a moment ago may not be known here. */
	TRY(client_list(c->m->client, a, &core_v1_pods_resource, claim->metadata.namespace, &(struct list_opts){0}, &list));
	const struct core_v1_pod_list *pods = list;

	for (uint32_t i = 0; i < pods->items.n; i++)
		if (uses(a, &pods->items.v[i], claim))
			return NULL;
	*used = false;
	return NULL;
}

static struct error *reconcile_claim(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct protection *c = ctx;
	struct core_v1_persistent_volume_claim *claim = informer_get(c->own, a, ns, name);
	bool used;

	if (!claim)
		return NULL;
	if (!claim->metadata.deletion_timestamp || !has_finalizer(&claim->metadata, CLAIM_FINALIZER))
		return protect(c, a, &core_v1_persistentvolumeclaims_resource, &claim->metadata, claim, CLAIM_FINALIZER);
	TRY(in_use(c, a, claim, &used));
	if (used)
		return NULL;
	remove_finalizer(&claim->metadata, CLAIM_FINALIZER);
	return write_finalizers(c, a, &core_v1_persistentvolumeclaims_resource, ns, claim);
}

static void on_own(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct protection *c = ctx;
	arena_cleanup struct arena a = {0};

	if (new_)
		workqueue_add(c->q, object_key(&a, new_->ns, new_->name));
}

static void queue_claims(struct protection *c, const struct cached_object *o)
{
	arena_cleanup struct arena a = {0};

	if (!str_contains(block_str(o->json), STR("\"persistentVolumeClaim\"")) && !str_contains(block_str(o->json), STR("\"ephemeral\"")))
		return;
	const struct core_v1_pod *p = cached_decode(c->pods, &a, o);

	for (uint32_t i = 0; p && i < p->spec.volumes.n; i++) {
		const struct core_v1_volume *v = &p->spec.volumes.v[i];

		if (v->volume_source.persistent_volume_claim)
			workqueue_add(c->q, object_key(&a, o->ns, v->volume_source.persistent_volume_claim->claim_name));
		else if (v->volume_source.ephemeral)
			workqueue_add(c->q, object_key(&a, o->ns, ephemeral_claim_name(&a, o->name, v->name)));
	}
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct protection *c = ctx;

	/* Only the end of a use matters: the pod is gone, another of its name came, or it ends. */
	if (!new_ || (old && !str_eq(old->uid, new_->uid)))
		queue_claims(c, old);
	else if (new_->deleting)
		queue_claims(c, new_);
}

void pvc_protection_start(struct manager *m)
{
	struct protection *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("pvcprotection");
	c->own = manager_informer(m, &core_v1_persistentvolumeclaims_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	informer_on_event(c->own, on_own, c);
	informer_on_event(c->pods, on_pod, c);
	controller_run(m, c->q, "pvc-protection", 4, reconcile_claim, c, c->own, c->pods, NULL);
}

/* ---- volumes ---- */

static struct error *reconcile_volume(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct protection *c = ctx;
	struct core_v1_persistent_volume *v = informer_get(c->own, a, STR_NULL, name);

	if (!v)
		return NULL;
	if (!v->metadata.deletion_timestamp || !has_finalizer(&v->metadata, VOLUME_FINALIZER))
		return protect(c, a, &core_v1_persistentvolumes_resource, &v->metadata, v, VOLUME_FINALIZER);
	if (str_eqz(v->status.phase, "Bound"))
		return NULL;
	remove_finalizer(&v->metadata, VOLUME_FINALIZER);
	return write_finalizers(c, a, &core_v1_persistentvolumes_resource, STR_NULL, v);
}

void pv_protection_start(struct manager *m)
{
	struct protection *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("pvprotection");
	c->own = manager_informer(m, &core_v1_persistentvolumes_resource);
	informer_on_event(c->own, on_own, c);
	controller_run(m, c->q, "pv-protection", 1, reconcile_volume, c, c->own, NULL);
}

/* ---- attribute classes (KEP-3751) ---- */

struct named {
	struct protection *c;
	struct arena *a;
	struct str name;
	bool found;
};

static bool is_name(const struct str *p, struct str name)
{
	return p && str_eq(*p, name);
}

static bool claim_names(void *ctx, const struct cached_object *o)
{
	struct named *w = ctx;
	const struct core_v1_persistent_volume_claim *c = cached_decode(w->c->claims, w->a, o);

	w->found = c && (is_name(c->spec.volume_attributes_class_name, w->name) || is_name(c->status.current_volume_attributes_class_name, w->name) ||
			 (c->status.modify_volume_status &&
			  str_eq(c->status.modify_volume_status->target_volume_attributes_class_name, w->name)));
	return !w->found;
}

static bool volume_names(void *ctx, const struct cached_object *o)
{
	struct named *w = ctx;
	const struct core_v1_persistent_volume *v = cached_decode(w->c->volumes, w->a, o);

	w->found = v && is_name(v->spec.volume_attributes_class_name, w->name);
	return !w->found;
}

static struct error *reconcile_class(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct protection *c = ctx;
	struct storage_v1_volume_attributes_class *v = informer_get(c->own, a, STR_NULL, name);
	struct named w = {c, a, name, false};

	if (!v)
		return NULL;
	if (!v->metadata.deletion_timestamp || !has_finalizer(&v->metadata, CLASS_FINALIZER))
		return protect(c, a, &storage_v1_volumeattributesclasses_resource, &v->metadata, v, CLASS_FINALIZER);
	informer_each(c->claims, STR_NULL, NULL, claim_names, &w);
	if (!w.found)
		informer_each(c->volumes, STR_NULL, NULL, volume_names, &w);
	if (w.found)
		return NULL;
	remove_finalizer(&v->metadata, CLASS_FINALIZER);
	return write_finalizers(c, a, &storage_v1_volumeattributesclasses_resource, STR_NULL, v);
}

static bool queue_deleting(void *ctx, const struct cached_object *o)
{
	if (o->deleting)
		workqueue_add(((struct protection *)ctx)->q, o->name);
	return true;
}

/* Few classes are ever being deleted: all of those look again when a user of some class changes. */
static void on_user(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct protection *c = ctx;

	if (old && str_contains(block_str(old->json), STR("olumeAttributesClassName\"")))
		informer_each(c->own, STR_NULL, NULL, queue_deleting, c);
}

void vac_protection_start(struct manager *m)
{
	struct protection *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("vacprotection");
	c->own = manager_informer(m, &storage_v1_volumeattributesclasses_resource);
	c->claims = manager_informer(m, &core_v1_persistentvolumeclaims_resource);
	c->volumes = manager_informer(m, &core_v1_persistentvolumes_resource);
	informer_on_event(c->own, on_own, c);
	informer_on_event(c->claims, on_user, c);
	informer_on_event(c->volumes, on_user, c);
	controller_run(m, c->q, "vac-protection", 1, reconcile_class, c, c->own, c->claims, c->volumes, NULL);
}
