/*
 * controller/endpoints.c: the Endpoints object of each Service with a selector.
 */
#include <stdlib.h>

#include "controller/services.h"

#define MANAGED_BY "endpoints.kubernetes.io/managed-by"
#define OVER_CAPACITY "endpoints.kubernetes.io/over-capacity"
#define HEADLESS "service.kubernetes.io/headless"
#define MAX_ADDRESSES 1000

struct endpoints_controller {
	struct manager *m;
	struct informer *services, *pods, *endpoints;
	struct service_index *index;
	struct workqueue *q;
	struct event_recorder *rec;
};

static void on_service(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct endpoints_controller *c = ctx;
	const struct cached_object *o = new_ ? new_ : old;
	arena_cleanup struct arena a = {0};

	workqueue_add(c->q, object_key(&a, o->ns, o->name));
}

static void on_endpoints(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct endpoints_controller *c = ctx;

	if (ev == INFORMER_DELETED) {
		arena_cleanup struct arena a = {0};

		workqueue_add(c->q, object_key(&a, old->ns, old->name));
	}
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct endpoints_controller *c = ctx;

	if (pod_change_matters(c->pods, old, new_))
		service_index_enqueue(c->index, c->q, old, new_);
}

static struct str ip_of_family(const struct core_v1_pod *p, const struct core_v1_service *s)
{
	bool v6 = s->spec.ip_families.n ? str_eqz(s->spec.ip_families.v[0], "IPv6") : str_index(s->spec.cluster_ip, ':') >= 0;

	for (uint32_t i = 0; i < p->status.pod_ips.n; i++)
		if ((str_index(p->status.pod_ips.v[i].ip, ':') >= 0) == v6)
			return p->status.pod_ips.v[i].ip;
	if (!p->status.pod_ips.n && (str_index(p->status.pod_ip, ':') >= 0) == v6)
		return p->status.pod_ip;
	return STR_NULL;
}

static bool goes_to_not_ready(const struct core_v1_pod *p)
{
	if (str_eqz(p->spec.restart_policy, "Never"))
		return !pod_is_terminal(p);
	if (str_eqz(p->spec.restart_policy, "OnFailure"))
		return !str_eqz(p->status.phase, "Succeeded");
	return true;
}

static int cmp_address(const void *x, const void *y)
{
	const struct core_v1_endpoint_address *a = x, *b = y;
	int c = str_cmp(a->ip, b->ip);

	return c || !a->target_ref || !b->target_ref ? c : str_cmp(a->target_ref->uid, b->target_ref->uid);
}

static bool same_ports(const struct core_v1_endpoint_subset *x, const struct core_v1_endpoint_subset *y)
{
	if (x->ports.n != y->ports.n)
		return false;
	for (uint32_t i = 0; i < x->ports.n; i++)
		if (!SAME(core_v1_endpoint_port, &x->ports.v[i], &y->ports.v[i]))
			return false;
	return true;
}

static void add_pod(struct arena *a, struct core_v1_endpoints *ep, const struct core_v1_service *s, const struct core_v1_pod *p)
{
	struct core_v1_endpoint_subset sub = {0};
	struct core_v1_endpoint_address addr = {.ip = ip_of_family(p, s)};
	bool ready = s->spec.publish_not_ready_addresses || pod_is_ready(p);

	if (str_empty(addr.ip) || (!ready && !goes_to_not_ready(p)))
		return;
	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		const struct core_v1_service_port *sp = &s->spec.ports.v[i];
		int32_t port;

		if (!find_port(p, sp, &port))
			continue;
		*arena_push(a, &sub.ports) = (struct core_v1_endpoint_port){
			.name = sp->name, .port = port, .protocol = sp->protocol, .app_protocol = sp->app_protocol};
	}
	if (s->spec.ports.n && !sub.ports.n)
		return; /* it has none of the named ports */
	if (p->spec.node_name.n)
		addr.node_name = new_str(a, p->spec.node_name);
	if (p->spec.hostname.n && str_eq(p->spec.subdomain, s->metadata.name))
		addr.hostname = p->spec.hostname;
	addr.target_ref = arena_new(a, struct core_v1_object_reference);
	*addr.target_ref = (struct core_v1_object_reference){
		.kind = STR("Pod"), .namespace = p->metadata.namespace, .name = p->metadata.name, .uid = p->metadata.uid};
	struct core_v1_endpoint_subset *to = NULL;

	for (uint32_t i = 0; i < ep->subsets.n && !to; i++)
		if (same_ports(&ep->subsets.v[i], &sub))
			to = &ep->subsets.v[i];
	if (!to) {
		to = arena_push(a, &ep->subsets);
		*to = sub;
	}
	if (ready)
		*arena_push(a, &to->addresses) = addr;
	else
		*arena_push(a, &to->not_ready_addresses) = addr;
}

/* At most MAX_ADDRESSES, ready ones first. True when some were left out. */
static bool truncate_addresses(struct core_v1_endpoints *ep)
{
	uint32_t room = MAX_ADDRESSES;
	bool cut = false;

	for (int pass = 0; pass < 2; pass++)
		for (uint32_t i = 0; i < ep->subsets.n; i++) {
			uint32_t *n = pass ? &ep->subsets.v[i].not_ready_addresses.n : &ep->subsets.v[i].addresses.n;

			if (*n > room) {
				*n = room;
				cut = true;
			}
			room -= *n;
		}
	return cut;
}

static struct error *write(struct endpoints_controller *c, struct arena *a, const struct core_v1_service *s, struct core_v1_endpoints *want)
{
	struct core_v1_endpoints *have = informer_get(c->endpoints, a, s->metadata.namespace, s->metadata.name);
	struct str_map labels = {0};

	for (uint32_t i = 0; i < s->metadata.labels.n; i++)
		str_map_set(a, &labels, s->metadata.labels.v[i].key, s->metadata.labels.v[i].value);
	if (is_headless(s))
		str_map_set(a, &labels, STR(HEADLESS), STR_NULL);
	else
		str_map_del(&labels, STR(HEADLESS));
	str_map_set(a, &labels, STR(MANAGED_BY), STR("endpoint-controller"));
	bool over = truncate_addresses(want);

	if (!have) {
		want->metadata.name = s->metadata.name;
		want->metadata.namespace = s->metadata.namespace;
		*API_MAP(&want->metadata.labels) = labels;
		if (over)
			str_map_set(a, API_MAP(&want->metadata.annotations), STR(OVER_CAPACITY), STR("truncated"));
		struct error *e = client_create(c->m->client, a, &core_v1_endpoints_resource, s->metadata.namespace, want, NULL);

		if (namespace_terminating(e))
			error_clear(&e);
		if (e && !error_is(e, 409, NULL)) {
			struct core_v1_object_reference ref = object_reference(&core_v1_services_resource, s);

			event_record(c->rec, &ref, "Warning", "FailedToCreateEndpoint",
				     "Failed to create endpoint for service %.*s/%.*s: %s", STR_ARG(s->metadata.namespace),
				     STR_ARG(s->metadata.name), error_message(e));
		}
		return e;
	}
	struct core_v1_endpoints *next = object_clone(a, &core_v1_endpoints_type, have);

	*API_MAP(&next->metadata.labels) = labels;
	next->subsets.v = want->subsets.v;
	next->subsets.n = want->subsets.n;
	if (over)
		str_map_set(a, API_MAP(&next->metadata.annotations), STR(OVER_CAPACITY), STR("truncated"));
	else
		str_map_del(API_MAP(&next->metadata.annotations), STR(OVER_CAPACITY));
	if (SAME(core_v1_endpoints, have, next))
		return NULL;
	return client_update(c->m->client, a, &core_v1_endpoints_resource, s->metadata.namespace, NULL, next, NULL);
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct endpoints_controller *c = ctx;
	const struct core_v1_service *s = informer_get(c->services, a, ns, name);
	void **pods;

	if (!s) { /* its Endpoints go with it */
		if (!informer_peek(c->endpoints, ns, name))
			return NULL;
		/* Only ours: others keep Endpoints without a Service (leases of old). */
		const struct cached_object *o = informer_peek(c->endpoints, ns, name);

		if (!str_eqz(str_map_get(&o->labels, STR(MANAGED_BY)), "endpoint-controller"))
			return NULL;
		struct error *e = client_delete(c->m->client, a, &core_v1_endpoints_resource, ns, name, NULL);

		if (error_is(e, 404, NULL))
			error_clear(&e);
		return e;
	}
	if (!s->spec.selector.n || str_eqz(s->spec.type, "ExternalName"))
		return NULL;
	size_t n = informer_list(c->pods, a, ns, label_selector_from_map(a, API_MAP(&s->spec.selector)), &pods);
	struct core_v1_endpoints want = {0};

	for (size_t i = 0; i < n; i++)
		if (pod_wants_endpoint(pods[i], s->spec.publish_not_ready_addresses))
			add_pod(a, &want, s, pods[i]);
	for (uint32_t i = 0; i < want.subsets.n; i++) {
		struct core_v1_endpoint_subset *sub = &want.subsets.v[i];

		if (sub->addresses.n)
			qsort(sub->addresses.v, sub->addresses.n, sizeof(*sub->addresses.v), cmp_address);
		if (sub->not_ready_addresses.n)
			qsort(sub->not_ready_addresses.v, sub->not_ready_addresses.n, sizeof(*sub->addresses.v), cmp_address);
	}
	return write(c, a, s, &want);
}

void endpoints_start(struct manager *m)
{
	struct endpoints_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("endpoints");
	c->rec = event_recorder_new(m->client, "endpoint-controller", "");
	c->index = service_index_get(m);
	c->services = manager_informer(m, &core_v1_services_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->endpoints = manager_informer(m, &core_v1_endpoints_resource);
	informer_on_event(c->services, on_service, c);
	informer_on_event(c->pods, on_pod, c);
	informer_on_event(c->endpoints, on_endpoints, c);
	controller_run(m, c->q, "endpoints", 3, reconcile, c, c->services, c->pods, c->endpoints, NULL);
}
