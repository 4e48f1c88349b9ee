/* controller/ephemeral.c: makes the claims of generic ephemeral volumes (KEP-1698): owned by their pod, gone with it. */
#include <stdlib.h>

#include "controller/common.h"
#include "schema/storage.h"

struct ephemeral {
	struct manager *m;
	struct informer *pods, *claims;
	struct workqueue *q;
	struct event_recorder *rec;
};

static struct error *make_claim(struct ephemeral *c, struct arena *a, const struct core_v1_pod *p, const struct core_v1_volume *v, struct str name)
{
	const struct core_v1_persistent_volume_claim_template *t = v->volume_source.ephemeral->volume_claim_template;
	struct core_v1_persistent_volume_claim *claim = arena_new(a, struct core_v1_persistent_volume_claim);
	struct owner owner = {&core_v1_pods_resource, &p->metadata};
	void *out;

	if (!t)
		return NULL;
	claim->metadata.name = name;
	claim->metadata.namespace = p->metadata.namespace;
	memcpy(&claim->metadata.labels, &t->metadata.labels, sizeof(t->metadata.labels));
	memcpy(&claim->metadata.annotations, &t->metadata.annotations, sizeof(t->metadata.annotations));
	claim->spec = t->spec;
	owner_add_controller_ref(a, &claim->metadata, &owner);
	return client_create(c->m->client, a, &core_v1_persistentvolumeclaims_resource, p->metadata.namespace, claim, &out);
}

static struct error *one_volume(struct ephemeral *c, struct arena *a, const struct core_v1_pod *p, const struct core_v1_volume *v)
{
	struct str name = ephemeral_claim_name(a, p->metadata.name, v->name);
	const struct core_v1_persistent_volume_claim *claim = informer_get(c->claims, a, p->metadata.namespace, name);
	struct core_v1_object_reference ref = object_reference(&core_v1_pods_resource, p);
	struct error *e = NULL;

	if (claim && claim_made_for(claim, p))
		return NULL;
	if (claim)
		e = error_new("PVC \"%.*s/%.*s\" was not created for pod \"%.*s/%.*s\" (pod is not owner)", STR_ARG(p->metadata.namespace),
			      STR_ARG(name), STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name));
	else
		e = make_claim(c, a, p, v, name);
	if (error_is(e, 409, "AlreadyExists")) { /* its event will come */
		error_free(e);
		return NULL;
	}
	if (e)
		event_record(c->rec, &ref, "Warning", "FailedBinding", "ephemeral volume %.*s: %s", STR_ARG(v->name), error_message(e));
	return e;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct ephemeral *c = ctx;
	const struct core_v1_pod *p = informer_get(c->pods, a, ns, name);

	if (!p || p->metadata.deletion_timestamp)
		return NULL;
	for (uint32_t i = 0; i < p->spec.volumes.n; i++)
		if (p->spec.volumes.v[i].volume_source.ephemeral)
			TRY(one_volume(c, a, p, &p->spec.volumes.v[i]));
	return NULL;
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct ephemeral *c = ctx;
	arena_cleanup struct arena a = {0};

	if (ev == INFORMER_ADDED && !new_->deleting && str_contains(block_str(new_->json), STR("\"ephemeral\"")))
		workqueue_add(c->q, object_key(&a, new_->ns, new_->name));
}

/* A claim that went while its pod lives is made again. */
static void on_claim(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct ephemeral *c = ctx;
	arena_cleanup struct arena a = {0};

	if (ev == INFORMER_DELETED && str_eqz(old->controller_kind, "Pod"))
		workqueue_add(c->q, object_key(&a, old->ns, old->controller_name));
}

void ephemeral_volume_start(struct manager *m)
{
	struct ephemeral *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("ephemeral_volume");
	c->rec = event_recorder_new(m->client, "ephemeral_volume", "");
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->claims = manager_informer(m, &core_v1_persistentvolumeclaims_resource);
	informer_on_event(c->pods, on_pod, c);
	informer_on_event(c->claims, on_claim, c);
	controller_run(m, c->q, "ephemeral-volume", 4, reconcile, c, c->pods, c->claims, NULL);
}
