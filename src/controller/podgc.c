/*
 * controller/podgc.c: deletes pods nobody will: ended ones beyond a threshold,
 * those of nodes that are gone, unscheduled ones that are being deleted.
 */
#include <stdlib.h>

#include "controller/common.h"

#define PERIOD_MS 20000
#define QUARANTINE_MS 40000 /* a node must be gone for so long */

struct pod_gc {
	struct manager *m;
	struct informer *pods, *nodes;
	struct map missing; /* node -> when it was missed first, ms */
};

static int cmp_age(const void *pa, const void *pb)
{
	const struct core_v1_pod *x = *(struct core_v1_pod *const *)pa, *y = *(struct core_v1_pod *const *)pb;
	int c = time_cmp(x->metadata.creation_timestamp, y->metadata.creation_timestamp);

	return c ? c : str_cmp(x->metadata.name, y->metadata.name);
}

static struct error *force_delete(struct pod_gc *c, struct arena *a, const struct core_v1_pod *p, const char *why)
{
	if (!pod_is_terminal(p)) { /* whoever counts it shall see how it ended */
		struct error *e = client_patch(c->m->client, a, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name, "status",
			PATCH_STRATEGIC, arena_printf(a, "{\"metadata\":{\"uid\":\"%.*s\"},\"status\":{\"phase\":\"Failed\",\"conditions\":[{\"type\":"
						      "\"DisruptionTarget\",\"status\":\"True\",\"reason\":\"DeletionByPodGC\",\"message\":\"%s\","
						      "\"lastTransitionTime\":\"%.*s\"}]}}", STR_ARG(p->metadata.uid), why,
						      STR_ARG(time_format(a, api_now(), false))), NULL, false, NULL);

		if (error_is(e, 404, NULL)) {
			error_free(e);
			return NULL;
		}
		TRY(e);
	}
	log_info("pod gc: deleting %.*s/%.*s (%s)", STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name), why);
	struct error *e = client_delete(c->m->client, a, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name,
					&(struct delete_opts){.grace_seconds = 0, .uid = p->metadata.uid});

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

/* Gone for the quarantine, and the API server says so too. */
static struct error *node_gone(struct pod_gc *c, struct arena *a, struct str node, bool *gone)
{
	void *obj;
	uintptr_t since = (uintptr_t)map_get(&c->missing, node);

	*gone = false;
	if (informer_peek(c->nodes, STR_NULL, node)) {
		map_del(&c->missing, node);
		return NULL;
	}
	if (!since) {
		map_set(&c->missing, node, (void *)(uintptr_t)(now_ms() + 1));
		return NULL;
	}
	if (now_ms() - (int64_t)since < QUARANTINE_MS)
		return NULL;
	struct error *e = client_get(c->m->client, a, &core_v1_nodes_resource, STR_NULL, node, &obj);

	*gone = error_is(e, 404, NULL);
	if (*gone)
		error_clear(&e);
	return e;
}

static struct error *sweep(void *ctx, struct arena *a)
{
	struct pod_gc *c = ctx;
	void **v;
	size_t n = informer_list(c->pods, a, STR_NULL, NULL, &v), n_ended = 0;
	struct core_v1_pod **ended = arena_array(a, struct core_v1_pod *, n + 1);

	for (size_t i = 0; i < n; i++) {
		struct core_v1_pod *p = v[i];
		bool gone = false;

		if (!str_empty(p->spec.node_name))
			TRY(node_gone(c, a, p->spec.node_name, &gone));
		if (gone)
			TRY(force_delete(c, a, p, "PodGC: node no longer exists"));
		else if (str_empty(p->spec.node_name) && p->metadata.deletion_timestamp)
			TRY(force_delete(c, a, p, "PodGC: unscheduled and being deleted"));
		else if (pod_is_terminal(p))
			ended[n_ended++] = p;
	}
	int64_t limit = c->m->flags.terminated_pod_threshold;

	if (limit <= 0 || (int64_t)n_ended <= limit)
		return NULL;
	qsort(ended, n_ended, sizeof(*ended), cmp_age);
	for (size_t i = 0; i < n_ended - (size_t)limit; i++)
		TRY(force_delete(c, a, ended[i], "PodGC: too many ended pods"));
	return NULL;
}

void pod_gc_start(struct manager *m)
{
	struct pod_gc *c = arena_new(&m->root->arena, struct pod_gc);

	c->m = m;
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->nodes = manager_informer(m, &core_v1_nodes_resource);
	controller_every(m, "pod-gc", PERIOD_MS, sweep, c, c->pods, c->nodes, NULL);
}
