#include "controller/services.h"

#include <stdlib.h>

struct selecting {
	struct arena a;
	struct str_map selector;
};

struct service_index {
	struct informer *services;
	struct map selectors; /* "ns/name" -> struct selecting */
};

static void on_service(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct service_index *x = ctx;
	const struct cached_object *o = new_ ? new_ : old;
	arena_cleanup struct arena a = {0};
	struct str key = object_key(&a, o->ns, o->name);
	struct core_v1_service *s = new_ ? cached_decode(x->services, &a, new_) : NULL;
	struct selecting *was = map_del(&x->selectors, key);

	if (was) {
		arena_free(&was->a);
		free(was);
	}
	if (!s || !s->spec.selector.n || str_eqz(s->spec.type, "ExternalName"))
		return;
	struct selecting *sel = xcalloc(1, sizeof(*sel));

	for (uint32_t i = 0; i < s->spec.selector.n; i++)
		str_map_set(&sel->a, &sel->selector, arena_str(&sel->a, s->spec.selector.v[i].key),
			    arena_str(&sel->a, s->spec.selector.v[i].value));
	map_set(&x->selectors, key, sel);
}

struct service_index *service_index_get(struct manager *m)
{
	static struct service_index *index;

	if (index)
		return index;
	index = xcalloc(1, sizeof(*index));
	index->services = manager_informer(m, &core_v1_services_resource);
	informer_on_event(index->services, on_service, index);
	return index;
}

static bool selects(const struct selecting *s, const struct cached_object *o)
{
	for (uint32_t i = 0; o && i < s->selector.n; i++) {
		struct str v = str_map_get(&o->labels, s->selector.v[i].key);

		if (!v.p && !str_map_has(&o->labels, s->selector.v[i].key))
			return false;
		if (!str_eq(v, s->selector.v[i].value))
			return false;
	}
	return o != NULL;
}

struct walk {
	struct service_index *x;
	struct workqueue *q;
	const struct cached_object *old, *new_;
};

static bool enqueue_if_selects(void *ctx, const struct cached_object *svc)
{
	struct walk *w = ctx;
	arena_cleanup struct arena a = {0};
	struct str key = object_key(&a, svc->ns, svc->name);
	const struct selecting *s = map_get(&w->x->selectors, key);

	if (s && (selects(s, w->old) || selects(s, w->new_)))
		workqueue_add(w->q, key);
	return true;
}

void service_index_enqueue(struct service_index *x, struct workqueue *q, const struct cached_object *old, const struct cached_object *new_)
{
	informer_each(x->services, (new_ ? new_ : old)->ns, NULL, enqueue_if_selects, &(struct walk){x, q, old, new_});
}

bool pod_change_matters(struct informer *pods, const struct cached_object *old, const struct cached_object *new_)
{
	if (!old || !new_)
		return true;
	if (old->deleting != new_->deleting || !map_equal(&old->labels, &new_->labels))
		return true;
	arena_cleanup struct arena a = {0};
	const struct core_v1_pod *x = cached_decode(pods, &a, old), *y = cached_decode(pods, &a, new_);

	if (!x || !y || pod_is_ready(x) != pod_is_ready(y) || pod_is_terminal(x) != pod_is_terminal(y) ||
	    !str_eq(x->spec.node_name, y->spec.node_name) || x->status.pod_ips.n != y->status.pod_ips.n ||
	    !str_eq(x->status.pod_ip, y->status.pod_ip) || !str_eq(x->status.phase, y->status.phase))
		return true;
	for (uint32_t i = 0; i < x->status.pod_ips.n; i++)
		if (!str_eq(x->status.pod_ips.v[i].ip, y->status.pod_ips.v[i].ip))
			return true;
	return false;
}

bool pod_wants_endpoint(const struct core_v1_pod *p, bool include_terminating)
{
	if (pod_is_terminal(p) || (str_empty(p->status.pod_ip) && !p->status.pod_ips.n))
		return false;
	return include_terminating || !p->metadata.deletion_timestamp;
}

static bool port_in(const struct core_v1_container *c, const struct core_v1_service_port *sp, int32_t *port)
{
	for (uint32_t i = 0; i < c->ports.n; i++)
		if (str_eq(c->ports.v[i].name, sp->target_port.s) &&
		    str_eq(str_empty(c->ports.v[i].protocol) ? STR("TCP") : c->ports.v[i].protocol,
			   str_empty(sp->protocol) ? STR("TCP") : sp->protocol)) {
			*port = c->ports.v[i].container_port;
			return true;
		}
	return false;
}

bool find_port(const struct core_v1_pod *p, const struct core_v1_service_port *sp, int32_t *port)
{
	if (!sp->target_port.is_str) {
		*port = sp->target_port.i ? sp->target_port.i : sp->port;
		return true;
	}
	for (uint32_t i = 0; i < p->spec.containers.n; i++)
		if (port_in(&p->spec.containers.v[i], sp, port))
			return true;
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++) { /* sidecars */
		const struct core_v1_container *c = &p->spec.init_containers.v[i];

		if (c->restart_policy && str_eqz(*c->restart_policy, "Always") && port_in(c, sp, port))
			return true;
	}
	return false;
}
