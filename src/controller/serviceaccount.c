/*
 * controller/serviceaccount.c: what every namespace is born with: the
 * ServiceAccount "default" and the ConfigMap with the cluster's CA.
 */
#include "controller/common.h"

#include <stdlib.h>

#define ROOT_CA "kube-root-ca.crt"

struct sa_controller {
	struct manager *m;
	struct informer *namespaces, *things; /* ServiceAccounts; or the ConfigMaps of that name */
	struct workqueue *q;
	struct str ca;
};

static void on_namespace(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct sa_controller *c = ctx;

	if (new_ && !new_->deleting)
		workqueue_add(c->q, new_->name);
}

static void on_account(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct sa_controller *c = ctx;

	if (ev == INFORMER_DELETED && str_eqz(old->name, "default"))
		workqueue_add(c->q, old->ns);
}

static void on_config_map(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct sa_controller *c = ctx;

	if (ev != INFORMER_ADDED)
		workqueue_add(c->q, (new_ ? new_ : old)->ns);
}

static bool namespace_lives(struct sa_controller *c, struct str name)
{
	const struct cached_object *ns = informer_peek(c->namespaces, STR_NULL, name);

	return ns && !ns->deleting;
}

static struct error *create(struct sa_controller *c, struct arena *a, const struct api_resource *r, struct str ns, const void *obj)
{
	struct error *e = client_create(c->m->client, a, r, ns, obj, NULL);

	/* There already, or the namespace goes meanwhile. */
	if (error_is(e, 409, "AlreadyExists") || error_is(e, 404, NULL) || namespace_terminating(e))
		error_clear(&e);
	return e;
}

static struct error *reconcile_account(void *ctx, struct arena *a, struct str none, struct str ns)
{
	struct sa_controller *c = ctx;

	if (!namespace_lives(c, ns) || informer_peek(c->things, ns, STR("default")))
		return NULL;
	struct core_v1_service_account sa = {.metadata = {.name = STR("default"), .namespace = ns}};

	return create(c, a, &core_v1_serviceaccounts_resource, ns, &sa);
}

static struct error *reconcile_ca(void *ctx, struct arena *a, struct str none, struct str ns)
{
	struct sa_controller *c = ctx;

	if (!namespace_lives(c, ns))
		return NULL;
	struct core_v1_config_map *cm = informer_get(c->things, a, ns, STR(ROOT_CA));
	bool fresh = !cm;

	if (cm && cm->data.n == 1 && str_eq(str_map_get(API_MAP(&cm->data), STR("ca.crt")), c->ca))
		return NULL;
	if (fresh)
		cm = arena_new(a, struct core_v1_config_map);
	cm->metadata.name = STR(ROOT_CA);
	cm->metadata.namespace = ns;
	str_map_set(a, API_MAP(&cm->metadata.annotations), STR("kubernetes.io/description"),
		    STR("The CA that signed the certificate of this cluster's API server, for use inside the cluster."));
	cm->data.n = 0;
	str_map_set(a, API_MAP(&cm->data), STR("ca.crt"), c->ca);
	if (fresh)
		return create(c, a, &core_v1_configmaps_resource, ns, cm);
	struct error *e = client_update(c->m->client, a, &core_v1_configmaps_resource, ns, NULL, cm, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e); /* its deletion will be seen */
	return e;
}

void serviceaccount_start(struct manager *m)
{
	struct sa_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("serviceaccount");
	c->namespaces = manager_informer(m, &core_v1_namespaces_resource);
	c->things = manager_informer(m, &core_v1_serviceaccounts_resource);
	informer_on_event(c->namespaces, on_namespace, c);
	informer_on_event(c->things, on_account, c);
	controller_run(m, c->q, "serviceaccount", 2, reconcile_account, c, c->namespaces, c->things, NULL);
}

void root_ca_start(struct manager *m)
{
	struct buf buf_cleanup pem = {.limit = 1 << 20};

	if (!m->flags.root_ca_file) {
		log_warn("no --root-ca-file: ConfigMaps %s are not published", ROOT_CA);
		return;
	}
	struct error *e = file_read(m->flags.root_ca_file, &pem);

	if (e) {
		log_and_free(e, "--root-ca-file: ConfigMaps %s are not published", ROOT_CA);
		return;
	}
	struct sa_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->ca = arena_str(&m->arena, buf_view(&pem));
	c->q = workqueue_new("root-ca");
	c->namespaces = manager_informer(m, &core_v1_namespaces_resource);
	/* Only these: a cluster's other ConfigMaps are none of ours. */
	c->things = informer_new(m->root->client, &(struct informer_opts){
		.resource = &core_v1_configmaps_resource, .field_selector = STR("metadata.name=" ROOT_CA)});
	informer_on_event(c->namespaces, on_namespace, c);
	informer_on_event(c->things, on_config_map, c);
	informer_start(c->things);
	controller_run(m, c->q, "root-ca", 2, reconcile_ca, c, c->namespaces, c->things, NULL);
}
