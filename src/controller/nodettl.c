/*
 * controller/nodettl.c: tells kubelets, by an annotation of their Node, how long they may use what they know of Secrets and
 * ConfigMaps: longer, the more nodes there are.
 */
#include <stdlib.h>

#include "controller/common.h"

#define ANNOTATION "node.alpha.kubernetes.io/ttl"

struct node_ttl {
	struct manager *m;
	struct informer *nodes;
	struct workqueue *q;
	size_t step; /* index in steps */
};

/* Up to `most` nodes; below `least` it goes a step down: the two overlap, so that a cluster on the edge does not flap. */
static const struct {
	size_t least, most;
	int seconds;
} steps[] = {{0, 100, 0}, {90, 500, 15}, {450, 1000, 30}, {900, 2000, 60}, {1800, SIZE_MAX, 300}};

static struct error *reconcile(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct node_ttl *c = ctx;
	const struct core_v1_node *n = informer_get(c->nodes, a, STR_NULL, name);
	struct str want = arena_printf(a, "%d", steps[c->step].seconds);

	if (!n || str_eq(str_map_get(API_MAP(&n->metadata.annotations), STR(ANNOTATION)), want))
		return NULL;
	struct error *e = client_patch(c->m->client, a, &core_v1_nodes_resource, STR_NULL, name, NULL, PATCH_STRATEGIC,
				       arena_printf(a, "{\"metadata\":{\"annotations\":{\"" ANNOTATION "\":\"%.*s\"}}}", STR_ARG(want)), NULL, false, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static bool queue_node(void *ctx, const struct cached_object *o)
{
	workqueue_add(((struct node_ttl *)ctx)->q, o->name);
	return true;
}

static void on_node(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct node_ttl *c = ctx;
	size_t n = informer_count(c->nodes), was = c->step;

	while (n > steps[c->step].most)
		c->step++;
	while (n < steps[c->step].least)
		c->step--;
	if (c->step != was)
		informer_each(c->nodes, STR_NULL, NULL, queue_node, c);
	else if (new_)
		workqueue_add(c->q, new_->name);
}

void ttl_start(struct manager *m)
{
	struct node_ttl *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("ttlcontroller");
	c->nodes = manager_informer(m, &core_v1_nodes_resource);
	informer_on_event(c->nodes, on_node, c);
	controller_run(m, c->q, "ttl", 1, reconcile, c, c->nodes, NULL);
}
