/*
 * controller/nodelifecycle.c: sees nodes go silent: conditions become Unknown,
 * taints follow conditions, pods of dead nodes are marked not ready. Evicting them is tainteviction.c's.
 * How fast nodes get the taint that evicts depends on their zone: many silent ones speak of the network rather than of the nodes, and
 * when all are silent, of ourselves: then nobody is evicted (upstream's zone states).
 */
#include <stdio.h>
#include <stdlib.h>

#include "controller/common.h"

#define NOT_READY "node.kubernetes.io/not-ready"
#define UNREACHABLE "node.kubernetes.io/unreachable"

struct health { /* of one node, by our clock: theirs may be wrong */
	struct api_time lease, heartbeat;
	char ready[8];
	int64_t probe_ms; /* when it last showed life */
	bool pods_marked;
};

enum disruption { ZONE_NEW, ZONE_NORMAL, ZONE_PARTIAL, ZONE_FULL };

struct zone {
	enum disruption state;
	uint32_t ready, silent; /* nodes, at the last look */
	double rate;            /* taints that evict, a second */
	double tokens;          /* of a bucket of one */
	int64_t filled_ms;
};

struct lifecycle {
	struct manager *m;
	struct informer *nodes, *leases, *pods;
	struct workqueue *q;
	struct event_recorder *rec;
	struct map health; /* node -> struct health */
	struct map zones;  /* region and zone -> struct zone; one that had nodes once stays */
	bool judged;       /* the zones have been looked at */
	bool all_silent;
};

static struct core_v1_node_condition *condition(struct core_v1_node *n, const char *type)
{
	for (uint32_t i = 0; i < n->status.conditions.n; i++)
		if (str_eqz(n->status.conditions.v[i].type, type))
			return &n->status.conditions.v[i];
	return NULL;
}

static bool time_same(struct api_time x, struct api_time y)
{
	return x.set == y.set && x.s == y.s && x.ns == y.ns;
}

/* ---- health ---- */

static struct health *observe(struct lifecycle *c, struct arena *a, struct core_v1_node *n)
{
	struct health *h = map_get(&c->health, n->metadata.name);
	const struct core_v1_node_condition *ready = condition(n, "Ready");
	const struct coordination_v1_lease *l = informer_get(c->leases, a, STR("kube-node-lease"), n->metadata.name);
	struct api_time lease = l && l->spec.renew_time ? *l->spec.renew_time : (struct api_time){0};
	struct api_time beat = ready ? ready->last_heartbeat_time : (struct api_time){0};

	if (!h) {
		h = xcalloc(1, sizeof(*h));
		h->probe_ms = now_ms();
		map_set(&c->health, n->metadata.name, h);
	} else if ((lease.set && !time_same(lease, h->lease)) || (beat.set && !time_same(beat, h->heartbeat))) {
		h->probe_ms = now_ms();
	}
	h->lease = lease;
	h->heartbeat = beat;
	return h;
}

static void lost(struct core_v1_node *n, struct arena *a, const char *type)
{
	struct core_v1_node_condition *c = condition(n, type);
	bool never = !c;

	if (never) {
		c = arena_push(a, &n->status.conditions);
		c->type = str_from(type);
		c->last_heartbeat_time = n->metadata.creation_timestamp;
	} else if (str_eqz(c->status, "Unknown")) {
		return;
	}
	c->status = STR("Unknown");
	c->reason = never ? STR("NodeStatusNeverUpdated") : STR("NodeStatusUnknown");
	c->message = never ? STR("Kubelet never posted node status.") : STR("Kubelet stopped posting node status.");
	c->last_transition_time = api_now();
}

static struct error *mark_pods_not_ready(struct lifecycle *c, struct arena *a, const struct core_v1_node *n)
{
	void **pods;
	size_t count = informer_list(c->pods, a, STR_NULL, NULL, &pods);

	for (size_t i = 0; i < count; i++) {
		struct core_v1_pod *p = pods[i];
		struct core_v1_pod_condition *ready = NULL;

		if (!str_eq(p->spec.node_name, n->metadata.name))
			continue;
		for (uint32_t k = 0; k < p->status.conditions.n; k++)
			if (str_eqz(p->status.conditions.v[k].type, "Ready"))
				ready = &p->status.conditions.v[k];
		if (!ready || !str_eqz(ready->status, "True"))
			continue;
		struct core_v1_object_reference ref = object_reference(&core_v1_pods_resource, p);
		struct str patch = arena_printf(a, "{\"metadata\":{\"uid\":\"%.*s\"},\"status\":{\"conditions\":[{\"type\":\"Ready\","
						"\"status\":\"False\",\"lastTransitionTime\":\"%.*s\"}]}}", STR_ARG(p->metadata.uid),
						STR_ARG(time_format(a, api_now(), false)));
		struct error *e = client_patch(c->m->client, a, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name,
					       "status", PATCH_STRATEGIC, patch, NULL, false, NULL);

		if (error_is(e, 404, NULL))
			error_clear(&e);
		TRY(e);
		event_record(c->rec, &ref, "Warning", "NodeNotReady", "Node is not ready");
	}
	return NULL;
}

static struct error *monitor_node(struct lifecycle *c, struct arena *a, struct core_v1_node *n)
{
	struct health *h = observe(c, a, n);
	const struct core_v1_node_condition *ready = condition(n, "Ready");
	int64_t grace = ready ? c->m->flags.node_monitor_grace_ms : c->m->flags.node_startup_grace_ms;

	if (now_ms() - h->probe_ms > grace) {
		static const char *const types[] = {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure"};
		void *before = object_clone(a, &core_v1_node_type, n), *out;

		for (size_t i = 0; i < 4; i++)
			lost(n, a, types[i]);
		if (!SAME(core_v1_node, before, n)) {
			log_warn("node %.*s has been silent for %lld s", STR_ARG(n->metadata.name),
				 (long long)(now_ms() - h->probe_ms) / 1000);
			TRY(client_update(c->m->client, a, &core_v1_nodes_resource, STR_NULL, "status", n, &out));
			n = out;
		}
	}
	ready = condition(n, "Ready");
	struct str now = ready ? ready->status : STR_NULL;
	struct core_v1_object_reference ref = object_reference(&core_v1_nodes_resource, n);

	if (str_eqz(now, "True")) {
		h->pods_marked = false;
	} else if (ready && !h->pods_marked) {
		if (!strcmp(h->ready, "True"))
			event_record(c->rec, &ref, "Normal", "NodeNotReady", "Node %.*s status is now: NodeNotReady",
				     STR_ARG(n->metadata.name));
		TRY(mark_pods_not_ready(c, a, n));
		h->pods_marked = true;
	}
	snprintf(h->ready, sizeof(h->ready), "%.*s", STR_ARG(now));
	return NULL;
}

/* ---- zones ---- */

static struct zone *zone_of(struct lifecycle *c, struct arena *a, const struct core_v1_node *n)
{
	struct str region = STR(""), zone = STR("");

	for (uint32_t i = 0; i < n->metadata.labels.n; i++) {
		if (str_eqz(n->metadata.labels.v[i].key, "topology.kubernetes.io/region"))
			region = n->metadata.labels.v[i].value;
		else if (str_eqz(n->metadata.labels.v[i].key, "topology.kubernetes.io/zone"))
			zone = n->metadata.labels.v[i].value;
	}
	struct str key = arena_printf(a, "%.*s/%.*s", STR_ARG(region), STR_ARG(zone));
	struct zone *z = map_get(&c->zones, key);

	if (!z) {
		z = xcalloc(1, sizeof(*z));
		z->rate = c->m->flags.eviction_rate;
		z->tokens = 1;
		z->filled_ms = now_ms();
		map_set(&c->zones, key, z);
	}
	return z;
}

static bool excluded(const struct core_v1_node *n)
{
	for (uint32_t i = 0; i < n->metadata.labels.n; i++)
		if (str_eqz(n->metadata.labels.v[i].key, "node.kubernetes.io/exclude-disruption"))
			return true;
	return false;
}

static enum disruption zone_state(const struct lifecycle *c, const struct zone *z)
{
	if (!z->ready && z->silent)
		return ZONE_FULL;
	if (z->silent > 2 && z->silent >= c->m->flags.unhealthy_zone_threshold * (z->silent + z->ready))
		return ZONE_PARTIAL;
	return ZONE_NORMAL;
}

static double zone_rate(const struct lifecycle *c, const struct zone *z)
{
	if (c->all_silent)
		return 0;
	if (z->state != ZONE_PARTIAL)
		return c->m->flags.eviction_rate;
	return z->ready + z->silent > (uint32_t)c->m->flags.large_cluster_size ? c->m->flags.secondary_eviction_rate : 0;
}

/* After a look at all nodes: how fast each zone's may be tainted from now on. */
static void judge_zones(struct lifecycle *c, struct arena *a, void **nodes, size_t n)
{
	size_t it = 0;
	struct str key;
	void *v;
	bool all = true, any = false;

	while (map_next(&c->zones, &it, &key, &v))
		((struct zone *)v)->ready = ((struct zone *)v)->silent = 0;
	for (size_t i = 0; i < n; i++) {
		const struct core_v1_node_condition *ready = condition(nodes[i], "Ready");
		struct zone *z = zone_of(c, a, nodes[i]);

		if (ready && !excluded(nodes[i]))
			*(str_eqz(ready->status, "True") ? &z->ready : &z->silent) += 1;
	}
	it = 0;
	while (map_next(&c->zones, &it, &key, &v)) {
		struct zone *z = v;

		if (!z->ready && !z->silent)
			continue;
		any = true;
		z->state = zone_state(c, z);
		all &= z->state == ZONE_FULL;
	}
	all &= any;
	if (all != c->all_silent) {
		log_warn(all ? "no node is ready: pods are not evicted" : "nodes are ready again: pods of others are evicted");
		for (size_t i = 0; i < n; i++) {
			struct health *h = map_get(&c->health, ((struct core_v1_node *)nodes[i])->metadata.name);

			if (!all && h)
				h->probe_ms = now_ms(); /* who has been unheard with all others gets the time to speak */
			workqueue_add(c->q, ((struct core_v1_node *)nodes[i])->metadata.name);
		}
	}
	c->all_silent = all;
	c->judged = true;
	it = 0;
	while (map_next(&c->zones, &it, &key, &v))
		((struct zone *)v)->rate = zone_rate(c, v);
}

/* Whether a node of the zone may get the taint that evicts now; else *wait_ms is when to ask again. */
static bool may_evict(struct lifecycle *c, struct zone *z, int64_t *wait_ms)
{
	int64_t now = now_ms();

	*wait_ms = c->m->flags.node_monitor_period_ms;
	if (!c->judged || z->rate <= 0)
		return false;
	z->tokens += (double)(now - z->filled_ms) / 1000 * z->rate;
	z->filled_ms = now;
	if (z->tokens > 1)
		z->tokens = 1;
	if (z->tokens < 1) {
		int64_t ms = (int64_t)((1 - z->tokens) / z->rate * 1000) + 1;

		if (ms < *wait_ms)
			*wait_ms = ms;
		return false;
	}
	z->tokens -= 1;
	return true;
}

static struct error *monitor(void *ctx, struct arena *a)
{
	struct lifecycle *c = ctx;
	void **nodes;
	size_t n = informer_list(c->nodes, a, STR_NULL, NULL, &nodes);

	for (size_t i = 0; i < n; i++) {
		struct error *e = monitor_node(c, a, nodes[i]);

		if (error_is(e, 409, NULL) || error_is(e, 404, NULL))
			error_clear(&e); /* again in the next round */
		log_and_free(e, "node %.*s", STR_ARG(((struct core_v1_node *)nodes[i])->metadata.name));
	}
	judge_zones(c, a, nodes, n);
	return NULL;
}

/* ---- taints ---- */

struct want {
	const char *key, *effect;
	bool on;
};

static bool is_status(struct core_v1_node *n, const char *type, const char *status)
{
	const struct core_v1_node_condition *c = condition(n, type);

	return c && str_eqz(c->status, status);
}

static struct error *reconcile(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct lifecycle *c = ctx;
	struct core_v1_node *n = informer_get(c->nodes, a, STR_NULL, name);

	if (!n || n->metadata.deletion_timestamp)
		return NULL;
	bool no = is_status(n, "Ready", "False"), unknown = is_status(n, "Ready", "Unknown");
	struct want want[] = {
		{NOT_READY, "NoExecute", no && !c->all_silent}, {UNREACHABLE, "NoExecute", unknown && !c->all_silent},
		{NOT_READY, "NoSchedule", no}, {UNREACHABLE, "NoSchedule", unknown},
		{"node.kubernetes.io/memory-pressure", "NoSchedule", is_status(n, "MemoryPressure", "True")},
		{"node.kubernetes.io/disk-pressure", "NoSchedule", is_status(n, "DiskPressure", "True")},
		{"node.kubernetes.io/pid-pressure", "NoSchedule", is_status(n, "PIDPressure", "True")},
		{"node.kubernetes.io/network-unavailable", "NoSchedule", is_status(n, "NetworkUnavailable", "True")},
		{"node.kubernetes.io/unschedulable", "NoSchedule", n->spec.unschedulable},
	};
	LIST(struct core_v1_taint) taints = {0};
	bool changed = false, have[9] = {false}, evicts = false;

	for (uint32_t i = 0; i < n->spec.taints.n; i++) {
		struct core_v1_taint *t = &n->spec.taints.v[i];
		bool keep = true;

		for (size_t k = 0; k < 9; k++)
			if (str_eqz(t->key, want[k].key) && str_eqz(t->effect, want[k].effect)) {
				have[k] = true;
				evicts |= k < 2;
				keep = want[k].on;
			}
		if (keep)
			*arena_push(a, &taints) = *t;
		else
			changed = true;
	}
	for (size_t k = 0; k < 2; k++) {
		int64_t wait_ms;

		/* One taint that evicts is swapped for the other at once. */
		if (want[k].on && !evicts && !may_evict(c, zone_of(c, a, n), &wait_ms)) {
			want[k].on = false;
			workqueue_add_after(c->q, name, wait_ms);
		}
	}
	for (size_t k = 0; k < 9; k++) {
		if (!want[k].on || have[k])
			continue;
		/* A node that registers with not-ready is the kubelet's business until it says more. */
		struct core_v1_taint *t = arena_push(a, &taints);

		t->key = str_from(want[k].key);
		t->effect = str_from(want[k].effect);
		t->time_added = arena_new(a, struct api_time);
		*t->time_added = api_now();
		changed = true;
	}
	if (!changed)
		return NULL;
	/* The whole list, guarded by the version it was made from. */
	struct buf buf_cleanup b = {0};

	buf_printf(&b, "{\"metadata\":{\"resourceVersion\":\"%.*s\"},\"spec\":{\"taints\":", STR_ARG(n->metadata.resource_version));
	if (taints.n) {
		buf_putc(&b, '[');
		for (uint32_t i = 0; i < taints.n; i++) {
			if (i)
				buf_putc(&b, ',');
			json_encode(&b, &core_v1_taint_type, &taints.v[i]);
		}
		buf_putc(&b, ']');
	} else {
		buf_puts(&b, "null");
	}
	buf_puts(&b, "}}");
	struct error *e = client_patch(c->m->client, a, &core_v1_nodes_resource, STR_NULL, name, NULL, PATCH_MERGE, buf_view(&b), NULL,
				       false, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static void on_node(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct lifecycle *c = ctx;

	if (ev == INFORMER_DELETED)
		free(map_del(&c->health, old->name));
	else
		workqueue_add(c->q, new_->name);
}

void node_lifecycle_start(struct manager *m)
{
	struct lifecycle *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("node-lifecycle");
	c->rec = event_recorder_new(m->client, "node-controller", "");
	c->nodes = manager_informer(m, &core_v1_nodes_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->leases = informer_new(m->root->client, &(struct informer_opts){
		.resource = &coordination_v1_leases_resource, .ns = STR("kube-node-lease")});
	informer_on_event(c->nodes, on_node, c);
	informer_start(c->leases);
	controller_run(m, c->q, "node-lifecycle", 2, reconcile, c, c->nodes, NULL);
	controller_every(m, "node-monitor", m->flags.node_monitor_period_ms, monitor, c, c->nodes, c->leases, c->pods, NULL);
}
