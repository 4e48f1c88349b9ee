/*
 * controller/endpointslice.c: EndpointSlices of Services: from pods, and
 * mirrored from Endpoints that somebody else wrote. Slices change as little as possible.
 */
#include <stdlib.h>

#include "controller/services.h"

#define LABEL_SERVICE "kubernetes.io/service-name"
#define LABEL_MANAGED_BY "endpointslice.kubernetes.io/managed-by"
#define LABEL_SKIP_MIRROR "endpointslice.kubernetes.io/skip-mirror"
#define HEADLESS "service.kubernetes.io/headless"
#define OURS "endpointslice-controller.k8s.io"
#define MIRROR "endpointslicemirroring-controller.k8s.io"
#define MAX_ENDPOINTS 100

typedef struct discovery_v1_endpoint_slice slice_t;

struct slice_controller {
	struct manager *m;
	const char *managed_by;
	struct informer *services, *pods, *nodes, *endpoints, *slices;
	struct service_index *index;
	struct workqueue *q;
	struct expectations x;
};

/* ---- the difference between what is and what should be ---- */

struct group { /* endpoints with one address type and one set of ports */
	struct str address_type;
	LIST(struct discovery_v1_endpoint_port) ports;
	LIST(struct discovery_v1_endpoint) want;
};
typedef LIST(struct group) groups_t;

struct plan {
	struct arena *a;
	struct slice_controller *c;
	struct str key;
	struct owner owner;          /* the Service, or the Endpoints mirrored */
	struct str service;
	struct str_map labels;
	struct str_map annotations;
	LIST(slice_t *) create, update, delete_;
};

static bool ports_equal(const struct discovery_v1_endpoint_port *x, uint32_t nx, const struct discovery_v1_endpoint_port *y, uint32_t ny)
{
	if (nx != ny)
		return false;
	for (uint32_t i = 0; i < nx; i++) {
		bool found = false;

		for (uint32_t k = 0; k < ny && !found; k++)
			found = SAME(discovery_v1_endpoint_port, &x[i], &y[k]);
		if (!found)
			return false;
	}
	return true;
}

/* The endpoints are of the same thing, whatever its state. */
static bool same_thing(const struct discovery_v1_endpoint *x, const struct discovery_v1_endpoint *y)
{
	if (x->target_ref && y->target_ref)
		return str_eq(x->target_ref->uid, y->target_ref->uid);
	if (x->target_ref || y->target_ref || x->addresses.n != y->addresses.n)
		return false;
	for (uint32_t i = 0; i < x->addresses.n; i++)
		if (!str_eq(x->addresses.v[i], y->addresses.v[i]))
			return false;
	return true;
}

static slice_t *new_slice(struct plan *p, const struct group *g)
{
	slice_t *s = arena_new(p->a, slice_t);
	struct str base = str_sub(p->service, 0, 253 - 6);

	s->metadata.generate_name = arena_printf(p->a, "%.*s-", STR_ARG(base));
	s->metadata.namespace = p->owner.meta->namespace;
	owner_add_controller_ref(p->a, &s->metadata, &p->owner);
	*API_MAP(&s->metadata.labels) = p->labels;
	*API_MAP(&s->metadata.annotations) = p->annotations;
	s->address_type = g->address_type;
	s->ports.v = g->ports.v;
	s->ports.n = g->ports.n;
	/* Go's decoder of clients tells null from []: an empty list it is. */
	s->endpoints.v = arena_array(p->a, struct discovery_v1_endpoint, 1);
	return s;
}

static void plan_group(struct plan *p, struct group *g, slice_t **slices, size_t n)
{
	struct arena *a = p->a;
	bool *placed = arena_array(a, bool, g->want.n + 1);
	slice_t **kept = arena_array(a, slice_t *, n + 1);
	bool *dirty = arena_array(a, bool, n + 1);
	size_t n_kept = 0;

	for (size_t i = 0; i < n; i++) {
		slice_t *s = object_clone(a, &discovery_v1_endpoint_slice_type, slices[i]);
		uint32_t left = 0;

		for (uint32_t k = 0; k < s->endpoints.n; k++) {
			uint32_t w = 0;

			while (w < g->want.n && (placed[w] || !same_thing(&s->endpoints.v[k], &g->want.v[w])))
				w++;
			if (w == g->want.n)
				continue;
			placed[w] = true;
			s->endpoints.v[left++] = g->want.v[w];
		}
		s->endpoints.n = left;
		kept[n_kept] = s;
		dirty[n_kept++] = !SAME(discovery_v1_endpoint_slice, s, slices[i]);
	}
	uint32_t w = 0;

	/* New ones first into slices that change anyway, then into any with room. */
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < n_kept; i++)
			while (w < g->want.n && kept[i]->endpoints.n < MAX_ENDPOINTS && (pass || dirty[i])) {
				if (placed[w]) {
					w++;
					continue;
				}
				*arena_push(a, &kept[i]->endpoints) = g->want.v[w++];
				dirty[i] = true;
			}
	slice_t *fresh = NULL;

	if (!g->want.n && !n) /* a placeholder */
		*arena_push(a, &p->create) = new_slice(p, g);
	for (; w < g->want.n; w++) {
		if (placed[w])
			continue;
		if (!fresh || fresh->endpoints.n == MAX_ENDPOINTS) {
			fresh = new_slice(p, g);
			*arena_push(a, &p->create) = fresh;
		}
		*arena_push(a, &fresh->endpoints) = g->want.v[w];
	}
	for (size_t i = 0; i < n_kept; i++) {
		bool labels = !map_equal(API_MAP(&kept[i]->metadata.labels), &p->labels);

		if (!kept[i]->endpoints.n && g->want.n) {
			*arena_push(a, &p->delete_) = kept[i];
			continue;
		}
		if (labels)
			*API_MAP(&kept[i]->metadata.labels) = p->labels;
		if (labels || dirty[i])
			*arena_push(a, &p->update) = kept[i];
	}
}

static struct error *carry_out(struct plan *p)
{
	struct client *client = p->c->m->client;
	const struct api_resource *r = &discovery_v1_endpointslices_resource;
	struct str ns = p->owner.meta->namespace;

	/* Additions first: nobody shall miss an endpoint that moves. */
	if (p->create.n)
		expect_creations(&p->c->x, p->key, (int)p->create.n);
	for (uint32_t i = 0; i < p->create.n; i++) {
		struct error *e = client_create(client, p->a, r, ns, p->create.v[i], NULL);

		if (!e)
			continue;
		for (uint32_t k = i; k < p->create.n; k++)
			creation_observed(&p->c->x, p->key);
		if (namespace_terminating(e))
			error_clear(&e);
		return e;
	}
	for (uint32_t i = 0; i < p->update.n; i++)
		TRY(client_update(client, p->a, r, ns, NULL, p->update.v[i], NULL));
	for (uint32_t i = 0; i < p->delete_.n; i++) {
		struct error *e = client_delete(client, p->a, r, ns, p->delete_.v[i]->metadata.name, NULL);

		if (error_is(e, 404, NULL))
			error_clear(&e);
		TRY(e);
	}
	return NULL;
}

struct existing {
	struct slice_controller *c;
	struct arena *a;
	struct str service;
	LIST(slice_t *) list;
};

static bool collect_slice(void *ctx, const struct cached_object *o)
{
	struct existing *w = ctx;

	if (o->deleting || !str_eq(str_map_get(&o->labels, STR(LABEL_SERVICE)), w->service) ||
	    !str_eqz(str_map_get(&o->labels, STR(LABEL_MANAGED_BY)), w->c->managed_by))
		return true;
	slice_t *s = cached_decode(w->c->slices, w->a, o);

	if (s)
		*arena_push(w->a, &w->list) = s;
	return true;
}

static struct error *apply_groups(struct plan *p, groups_t *groups)
{
	struct existing have = {.c = p->c, .a = p->a, .service = p->service};

	informer_each(p->c->slices, p->owner.meta->namespace, NULL, collect_slice, &have);
	bool *used = arena_array(p->a, bool, have.list.n + 1);

	for (uint32_t i = 0; i < groups->n; i++) {
		slice_t **mine = arena_array(p->a, slice_t *, have.list.n + 1);
		size_t n = 0;

		for (uint32_t k = 0; k < have.list.n; k++) {
			slice_t *s = have.list.v[k];

			if (used[k] || !str_eq(s->address_type, groups->v[i].address_type) ||
			    !ports_equal(s->ports.v, s->ports.n, groups->v[i].ports.v, groups->v[i].ports.n))
				continue;
			used[k] = true;
			mine[n++] = s;
		}
		plan_group(p, &groups->v[i], mine, n);
	}
	for (uint32_t k = 0; k < have.list.n; k++)
		if (!used[k])
			*arena_push(p->a, &p->delete_) = have.list.v[k];
	return carry_out(p);
}

static struct group *group_for(struct arena *a, groups_t *groups, struct str address_type, const struct discovery_v1_endpoint_port *ports, uint32_t n)
{
	for (uint32_t i = 0; i < groups->n; i++)
		if (str_eq(groups->v[i].address_type, address_type) &&
		    ports_equal(groups->v[i].ports.v, groups->v[i].ports.n, ports, n))
			return &groups->v[i];
	struct group *g = arena_push(a, groups);

	g->address_type = address_type;
	for (uint32_t i = 0; i < n; i++)
		*arena_push(a, &g->ports) = ports[i];
	return g;
}

/* A Service without endpoints has one empty slice a family, so that "none" differs from "not yet known". */
static void placeholders(struct arena *a, groups_t *groups, struct str address_type)
{
	for (uint32_t i = 0; i < groups->n; i++)
		if (str_eq(groups->v[i].address_type, address_type))
			return;
	arena_push(a, groups)->address_type = address_type;
}

/* ---- from pods ---- */

static void add_endpoint(struct slice_controller *c, struct arena *a, groups_t *groups, const struct core_v1_service *s,
			 const struct core_v1_pod *p, struct str address_type)
{
	LIST(struct discovery_v1_endpoint_port) ports = {0};
	struct discovery_v1_endpoint ep = {0};
	bool v6 = str_eqz(address_type, "IPv6");

	for (uint32_t i = 0; i < p->status.pod_ips.n; i++)
		if ((str_index(p->status.pod_ips.v[i].ip, ':') >= 0) == v6)
			*arena_push(a, &ep.addresses) = p->status.pod_ips.v[i].ip;
	if (!p->status.pod_ips.n && (str_index(p->status.pod_ip, ':') >= 0) == v6)
		*arena_push(a, &ep.addresses) = p->status.pod_ip;
	if (!ep.addresses.n)
		return;
	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		const struct core_v1_service_port *sp = &s->spec.ports.v[i];
		int32_t port;

		if (!find_port(p, sp, &port))
			continue;
		*arena_push(a, &ports) = (struct discovery_v1_endpoint_port){
			.name = new_str(a, sp->name), .protocol = new_str(a, str_empty(sp->protocol) ? STR("TCP") : sp->protocol),
			.port = new_i32(a, port), .app_protocol = sp->app_protocol};
	}
	if (s->spec.ports.n && !ports.n)
		return;
	bool serving = pod_is_ready(p), terminating = p->metadata.deletion_timestamp != NULL;

	ep.conditions.serving = new_bool(a, serving);
	ep.conditions.terminating = new_bool(a, terminating);
	ep.conditions.ready = new_bool(a, s->spec.publish_not_ready_addresses || (serving && !terminating));
	ep.target_ref = arena_new(a, struct core_v1_object_reference);
	*ep.target_ref = (struct core_v1_object_reference){
		.kind = STR("Pod"), .namespace = p->metadata.namespace, .name = p->metadata.name, .uid = p->metadata.uid};
	if (p->spec.hostname.n && str_eq(p->spec.subdomain, s->metadata.name))
		ep.hostname = new_str(a, p->spec.hostname);
	if (p->spec.node_name.n) {
		const struct cached_object *node = informer_peek(c->nodes, STR_NULL, p->spec.node_name);
		struct str zone = node ? str_map_get(&node->labels, STR("topology.kubernetes.io/zone")) : STR_NULL;

		ep.node_name = new_str(a, p->spec.node_name);
		if (zone.n)
			ep.zone = new_str(a, arena_str(a, zone));
		struct str prefer = s->spec.traffic_distribution ? *s->spec.traffic_distribution : STR_NULL;

		if (is_true(ep.conditions.ready) && zone.n && (str_eqz(prefer, "PreferClose") || str_eqz(prefer, "PreferSameZone") ||
							       str_eqz(prefer, "PreferSameNode"))) {
			ep.hints = arena_new(a, struct discovery_v1_endpoint_hints);
			arena_push(a, &ep.hints->for_zones)->name = *ep.zone;
		}
		if (is_true(ep.conditions.ready) && str_eqz(prefer, "PreferSameNode")) {
			if (!ep.hints)
				ep.hints = arena_new(a, struct discovery_v1_endpoint_hints);
			arena_push(a, &ep.hints->for_nodes)->name = p->spec.node_name;
		}
	}
	struct group *g = group_for(a, groups, address_type, ports.v, ports.n);

	*arena_push(a, &g->want) = ep;
}

static struct str_map slice_labels(struct arena *a, const struct str_map *from, struct str service, const char *managed_by, bool headless)
{
	struct str_map m = {0};

	for (uint32_t i = 0; i < from->n; i++)
		if (!str_eqz(from->v[i].key, HEADLESS) && !str_eqz(from->v[i].key, LABEL_SKIP_MIRROR) &&
		    !str_eqz(from->v[i].key, "endpoints.kubernetes.io/managed-by"))
			str_map_set(a, &m, from->v[i].key, from->v[i].value);
	str_map_set(a, &m, STR(LABEL_SERVICE), service);
	str_map_set(a, &m, STR(LABEL_MANAGED_BY), str_from(managed_by));
	if (headless)
		str_map_set(a, &m, STR(HEADLESS), STR_NULL);
	return m;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct slice_controller *c = ctx;
	struct core_v1_service *s = informer_get(c->services, a, ns, name);
	struct plan p = {.a = a, .c = c, .key = object_key(a, ns, name), .service = name};
	groups_t groups = {0};
	void **pods;

	if (!s) {
		expectations_forget(&c->x, p.key); /* the garbage collector takes the slices */
		return NULL;
	}
	if (!s->spec.selector.n || str_eqz(s->spec.type, "ExternalName") || s->metadata.deletion_timestamp)
		return NULL;
	if (!expectations_met(&c->x, p.key))
		return NULL; /* what was made last is not seen yet: its event comes back here */
	size_t n = informer_list(c->pods, a, ns, label_selector_from_map(a, API_MAP(&s->spec.selector)), &pods);
	uint32_t families = s->spec.ip_families.n;
	struct str one = str_index(s->spec.cluster_ip, ':') >= 0 ? STR("IPv6") : STR("IPv4");

	for (uint32_t f = 0; f < (families ? families : 1); f++) {
		struct str family = families ? s->spec.ip_families.v[f] : one;

		for (size_t i = 0; i < n; i++)
			if (pod_wants_endpoint(pods[i], true))
				add_endpoint(c, a, &groups, s, pods[i], family);
		placeholders(a, &groups, family);
	}
	p.owner = (struct owner){&core_v1_services_resource, &s->metadata};
	p.labels = slice_labels(a, API_MAP(&s->metadata.labels), name, OURS, is_headless(s));
	return apply_groups(&p, &groups);
}

/* ---- mirrored from Endpoints ---- */

static struct str address_type(struct str ip)
{
	return str_index(ip, ':') >= 0 ? STR("IPv6") : STR("IPv4");
}

static void mirror_address(struct arena *a, struct group *g, const struct core_v1_endpoint_address *addr, bool ready)
{
	struct discovery_v1_endpoint *ep = arena_push(a, &g->want);

	*arena_push(a, &ep->addresses) = addr->ip;
	ep->conditions.ready = new_bool(a, ready);
	ep->target_ref = addr->target_ref;
	ep->node_name = addr->node_name;
	if (addr->hostname.n)
		ep->hostname = new_str(a, addr->hostname);
}

static struct error *reconcile_mirror(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct slice_controller *c = ctx;
	struct core_v1_service *s = informer_get(c->services, a, ns, name);
	struct core_v1_endpoints *ep = informer_get(c->endpoints, a, ns, name);
	struct plan p = {.a = a, .c = c, .key = object_key(a, ns, name), .service = name};
	groups_t groups = {0};

	if (!expectations_met(&c->x, p.key))
		return NULL;
	bool mirror = s && ep && !s->spec.selector.n && !ep->metadata.deletion_timestamp &&
		      !str_eqz(str_map_get(API_MAP(&ep->metadata.labels), STR(LABEL_SKIP_MIRROR)), "true") &&
		      !str_map_has(API_MAP(&ep->metadata.annotations), STR("control-plane.alpha.kubernetes.io/leader"));

	if (!mirror) {
		struct meta_v1_object_meta meta = {.namespace = ns, .name = name};

		expectations_forget(&c->x, p.key);
		p.owner = (struct owner){&core_v1_endpoints_resource, &meta};
		return apply_groups(&p, &groups); /* none: what there was goes */
	}
	for (uint32_t i = 0; i < ep->subsets.n; i++) {
		const struct core_v1_endpoint_subset *sub = &ep->subsets.v[i];
		struct discovery_v1_endpoint_port *ports = arena_array(a, struct discovery_v1_endpoint_port, sub->ports.n + 1);

		for (uint32_t k = 0; k < sub->ports.n; k++)
			ports[k] = (struct discovery_v1_endpoint_port){
				.name = new_str(a, sub->ports.v[k].name), .protocol = new_str(a, sub->ports.v[k].protocol),
				.port = new_i32(a, sub->ports.v[k].port), .app_protocol = sub->ports.v[k].app_protocol};
		for (uint32_t k = 0; k < sub->addresses.n; k++)
			mirror_address(a, group_for(a, &groups, address_type(sub->addresses.v[k].ip), ports, sub->ports.n),
				       &sub->addresses.v[k], true);
		for (uint32_t k = 0; k < sub->not_ready_addresses.n; k++)
			mirror_address(a, group_for(a, &groups, address_type(sub->not_ready_addresses.v[k].ip), ports, sub->ports.n),
				       &sub->not_ready_addresses.v[k], false);
	}
	p.owner = (struct owner){&core_v1_endpoints_resource, &ep->metadata};
	p.labels = slice_labels(a, API_MAP(&ep->metadata.labels), name, MIRROR, false);
	for (uint32_t i = 0; i < ep->metadata.annotations.n; i++)
		if (!str_eqz(ep->metadata.annotations.v[i].key, "kubectl.kubernetes.io/last-applied-configuration"))
			str_map_set(a, &p.annotations, ep->metadata.annotations.v[i].key, ep->metadata.annotations.v[i].value);
	return apply_groups(&p, &groups);
}

/* ---- what happens ---- */

static void on_named(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct slice_controller *c = ctx;
	const struct cached_object *o = new_ ? new_ : old;
	arena_cleanup struct arena a = {0};

	workqueue_add(c->q, object_key(&a, o->ns, o->name));
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct slice_controller *c = ctx;

	if (pod_change_matters(c->pods, old, new_))
		service_index_enqueue(c->index, c->q, old, new_);
}

static void on_slice(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct slice_controller *c = ctx;
	const struct cached_object *o = new_ ? new_ : old;
	struct str service = str_map_get(&o->labels, STR(LABEL_SERVICE));
	arena_cleanup struct arena a = {0};

	if (str_empty(service) || !str_eqz(str_map_get(&o->labels, STR(LABEL_MANAGED_BY)), c->managed_by)) {
		/* Somebody took our label away: it is no longer ours, and is missed. */
		if (!old || !str_eqz(str_map_get(&old->labels, STR(LABEL_MANAGED_BY)), c->managed_by))
			return;
		service = str_map_get(&old->labels, STR(LABEL_SERVICE));
	}
	struct str key = object_key(&a, o->ns, service);

	if (ev == INFORMER_ADDED)
		creation_observed(&c->x, key);
	workqueue_add(c->q, key);
}

static struct slice_controller *slice_controller_new(struct manager *m, const char *name, const char *managed_by)
{
	struct slice_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->managed_by = managed_by;
	c->q = workqueue_new(name);
	c->services = manager_informer(m, &core_v1_services_resource);
	c->slices = manager_informer(m, &discovery_v1_endpointslices_resource);
	return c;
}

void endpointslice_start(struct manager *m)
{
	struct slice_controller *c = slice_controller_new(m, "endpointslice", OURS);

	c->index = service_index_get(m);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->nodes = manager_informer(m, &core_v1_nodes_resource);
	informer_on_event(c->services, on_named, c);
	informer_on_event(c->pods, on_pod, c);
	informer_on_event(c->slices, on_slice, c);
	controller_run(m, c->q, "endpointslice", 3, reconcile, c, c->services, c->pods, c->nodes, c->slices, NULL);
}

void endpointslicemirroring_start(struct manager *m)
{
	struct slice_controller *c = slice_controller_new(m, "endpointslicemirroring", MIRROR);

	c->endpoints = manager_informer(m, &core_v1_endpoints_resource);
	informer_on_event(c->services, on_named, c);
	informer_on_event(c->endpoints, on_named, c);
	informer_on_event(c->slices, on_slice, c);
	controller_run(m, c->q, "endpointslicemirroring", 2, reconcile_mirror, c, c->services, c->endpoints, c->slices, NULL);
}
