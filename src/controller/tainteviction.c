/*
 * controller/tainteviction.c: deletes pods from nodes with NoExecute taints
 * they do not tolerate, now or when their tolerationSeconds are over.
 */
#include <limits.h>
#include <stdlib.h>

#include "controller/common.h"

struct eviction {
	struct manager *m;
	struct informer *nodes, *pods;
	struct workqueue *node_q, *pod_q;
	struct event_recorder *rec;
	struct map tainted; /* names of nodes with NoExecute taints */
};

static bool tolerates(const struct core_v1_toleration *t, const struct core_v1_taint *taint)
{
	if (t->effect.n && !str_eq(t->effect, taint->effect))
		return false;
	if (t->key.n && !str_eq(t->key, taint->key))
		return false;
	if (str_eqz(t->operator, "Exists"))
		return true;
	return t->key.n && str_eq(t->value, taint->value);
}

/* ms until the pod must go: 0 now, -1 never. */
static int64_t time_left(const struct core_v1_node *n, const struct core_v1_pod *p)
{
	int64_t left = -1;

	for (uint32_t i = 0; i < n->spec.taints.n; i++) {
		const struct core_v1_taint *t = &n->spec.taints.v[i];
		bool tolerated = false, for_ever = false;
		int64_t seconds = INT64_MAX;

		if (!str_eqz(t->effect, "NoExecute"))
			continue;
		for (uint32_t k = 0; k < p->spec.tolerations.n; k++) {
			const struct core_v1_toleration *tol = &p->spec.tolerations.v[k];

			if (!tolerates(tol, t))
				continue;
			tolerated = true;
			if (!tol->toleration_seconds)
				for_ever = true;
			else if (*tol->toleration_seconds < seconds)
				seconds = *tol->toleration_seconds;
		}
		if (!tolerated)
			return 0;
		if (seconds == INT64_MAX)
			continue;
		(void)for_ever; /* of several the shortest counts */
		int64_t since = t->time_added ? time_ms(*t->time_added) : wall_ms();
		int64_t ms = since + (seconds < 0 ? 0 : seconds) * 1000 - wall_ms();

		if (ms < 0)
			ms = 0;
		if (left < 0 || ms < left)
			left = ms;
	}
	return left;
}

static struct error *reconcile_pod(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct eviction *c = ctx;
	const struct core_v1_pod *p = informer_get(c->pods, a, ns, name);
	const struct core_v1_node *n = p && p->spec.node_name.n ? informer_get(c->nodes, a, STR_NULL, p->spec.node_name) : NULL;

	if (!n || p->metadata.deletion_timestamp || pod_is_terminal(p))
		return NULL;
	int64_t left = time_left(n, p);

	if (left < 0)
		return NULL;
	if (left > 0) {
		workqueue_add_after(c->pod_q, object_key(a, ns, name), left + 1);
		return NULL;
	}
	struct core_v1_object_reference ref = object_reference(&core_v1_pods_resource, p);
	struct str when = time_format(a, api_now(), false);

	event_record(c->rec, &ref, "Normal", "TaintManagerEviction", "Marking for deletion Pod %.*s/%.*s", STR_ARG(ns), STR_ARG(name));
	struct error *e = client_patch(c->m->client, a, &core_v1_pods_resource, ns, name, "status", PATCH_STRATEGIC,
		arena_printf(a, "{\"metadata\":{\"uid\":\"%.*s\"},\"status\":{\"conditions\":[{\"type\":\"DisruptionTarget\",\"status\":"
			     "\"True\",\"reason\":\"DeletionByTaintManager\",\"message\":\"Taint manager: deleting due to NoExecute taint\","
			     "\"lastTransitionTime\":\"%.*s\"}]}}", STR_ARG(p->metadata.uid), STR_ARG(when)), NULL, false, NULL);

	if (error_is(e, 404, NULL)) {
		error_free(e);
		return NULL;
	}
	TRY(e);
	e = client_delete(c->m->client, a, &core_v1_pods_resource, ns, name,
			  &(struct delete_opts){.grace_seconds = -1, .uid = p->metadata.uid});
	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

static struct error *reconcile_node(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct eviction *c = ctx;
	void **pods;

	if (!map_has(&c->tainted, name))
		return NULL;
	size_t n = informer_list(c->pods, a, STR_NULL, NULL, &pods);

	for (size_t i = 0; i < n; i++) {
		const struct core_v1_pod *p = pods[i];

		if (str_eq(p->spec.node_name, name))
			workqueue_add(c->pod_q, object_key(a, p->metadata.namespace, p->metadata.name));
	}
	return NULL;
}

static void on_node(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct eviction *c = ctx;
	arena_cleanup struct arena a = {0};
	const struct core_v1_node *n = new_ ? cached_decode(c->nodes, &a, new_) : NULL;
	bool tainted = false;

	for (uint32_t i = 0; n && i < n->spec.taints.n; i++)
		tainted |= str_eqz(n->spec.taints.v[i].effect, "NoExecute");
	if (!tainted) {
		map_del(&c->tainted, (new_ ? new_ : old)->name);
		return;
	}
	map_set(&c->tainted, new_->name, c);
	workqueue_add(c->node_q, new_->name);
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct eviction *c = ctx;

	if (!new_ || !c->tainted.n || new_->deleting) /* only then are pods worth reading */
		return;
	arena_cleanup struct arena a = {0};
	const struct core_v1_pod *p = cached_decode(c->pods, &a, new_);

	if (p && map_has(&c->tainted, p->spec.node_name))
		workqueue_add(c->pod_q, object_key(&a, new_->ns, new_->name));
}

void taint_eviction_start(struct manager *m)
{
	struct eviction *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->node_q = workqueue_new("taint-eviction-node");
	c->pod_q = workqueue_new("taint-eviction");
	c->rec = event_recorder_new(m->client, "taint-eviction-controller", "");
	c->nodes = manager_informer(m, &core_v1_nodes_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	informer_on_event(c->nodes, on_node, c);
	informer_on_event(c->pods, on_pod, c);
	controller_run(m, c->node_q, "taint-eviction-node", 1, reconcile_node, c, c->nodes, c->pods, NULL);
	controller_run(m, c->pod_q, "taint-eviction", 4, reconcile_pod, c, c->nodes, c->pods, NULL);
}
