/*
 * controller/replicaset.c: keeps as many pods as a ReplicaSet says. A
 * ReplicationController is the same with an older shape: both are seen as a `struct set`.
 */
#include "controller/common.h"

#include <stdlib.h>

#define BURST 500 /* pods made or deleted in one go */

struct rs_controller {
	struct manager *m;
	const struct api_resource *r;
	const char *name; /* of the controller, in events */
	struct informer *sets, *pods;
	struct workqueue *q;
	struct event_recorder *rec;
	struct expectations x;
	struct pod_watch watch;
};

struct set {
	void *obj;
	struct meta_v1_object_meta *meta;
	int32_t replicas, min_ready;
	const struct selector *selector;
	const struct core_v1_pod_template_spec *template;
	struct apps_v1_replica_set_status status;
};

static bool is_rc(const struct rs_controller *c)
{
	return c->r == &core_v1_replicationcontrollers_resource;
}

static struct error *set_of(struct rs_controller *c, struct arena *a, void *obj, struct set *s)
{
	s->obj = obj;
	s->meta = object_meta(c->r->type, obj);
	if (!is_rc(c)) {
		struct apps_v1_replica_set *rs = obj;

		s->replicas = i32_or(rs->spec.replicas, 1);
		s->min_ready = rs->spec.min_ready_seconds;
		s->template = &rs->spec.template;
		s->status = rs->status;
		return label_selector_from(a, rs->spec.selector, &s->selector);
	}
	struct core_v1_replication_controller *rc = obj;

	s->replicas = i32_or(rc->spec.replicas, 1);
	s->min_ready = rc->spec.min_ready_seconds;
	s->template = rc->spec.template;
	s->status = (struct apps_v1_replica_set_status){
		.replicas = rc->status.replicas, .fully_labeled_replicas = rc->status.fully_labeled_replicas,
		.ready_replicas = rc->status.ready_replicas, .available_replicas = rc->status.available_replicas,
		.observed_generation = rc->status.observed_generation,
	};
	/* The two condition types have the same members. */
	_Static_assert(sizeof(struct apps_v1_replica_set_condition) == sizeof(struct core_v1_replication_controller_condition), "");
	s->status.conditions.v = (struct apps_v1_replica_set_condition *)(void *)rc->status.conditions.v;
	s->status.conditions.n = rc->status.conditions.n;
	if (!rc->spec.selector.n || !rc->spec.template)
		return error_new("%.*s/%.*s has no selector or template", STR_ARG(s->meta->namespace), STR_ARG(s->meta->name));
	s->selector = label_selector_from_map(a, API_MAP(&rc->spec.selector));
	return NULL;
}

/* ---- making and deleting pods ---- */

struct work {
	struct rs_controller *c;
	struct owner owner;
	struct str key;
	const struct core_v1_pod *pod;  /* to create */
	struct core_v1_pod **doomed;
	size_t tried;
};

static struct error *create_one(void *ctx, struct arena *a, size_t i)
{
	struct work *w = ctx;
	w->tried++;
	struct error *e = pod_create(w->c->m, a, w->c->rec, &w->owner, w->pod, NULL);

	if (e)
		creation_observed(&w->c->x, w->key); /* it will not come */
	return e;
}

static struct error *delete_one(void *ctx, struct arena *a, size_t i)
{
	struct work *w = ctx;
	struct error *e = pod_delete(w->c->m, a, w->c->rec, &w->owner, w->doomed[i]);

	if (e)
		deletion_observed(&w->c->x, w->key, w->doomed[i]->metadata.uid);
	return e;
}

/* Pods of sets with the same controller (a Deployment's), by node: a node with many of them loses one first. */
static int *related_ranks(struct rs_controller *c, struct arena *a, const struct set *s, struct core_v1_pod **pods, size_t n)
{
	const struct meta_v1_owner_reference *owner = controller_of(s->meta);
	struct map nodes = {0};
	void **sets, **of_set;
	size_t n_sets = owner ? informer_list_owned(c->sets, a, owner->uid, &sets) : 0;
	int *ranks = arena_array(a, int, n);

	for (size_t i = 0; i < (n_sets ? n_sets : 1); i++) {
		struct str uid = n_sets ? object_meta(c->r->type, sets[i])->uid : s->meta->uid;
		size_t k = informer_list_owned(c->pods, a, uid, &of_set);

		for (size_t j = 0; j < k; j++) {
			const struct core_v1_pod *p = of_set[j];

			if (pod_is_active(p) && !str_empty(p->spec.node_name))
				map_set(&nodes, p->spec.node_name,
					(void *)((uintptr_t)map_get(&nodes, p->spec.node_name) + 1));
		}
	}
	for (size_t i = 0; i < n; i++)
		ranks[i] = (int)(uintptr_t)map_get(&nodes, pods[i]->spec.node_name);
	map_free(&nodes);
	return ranks;
}

static struct error *manage(struct rs_controller *c, struct arena *a, struct set *s, struct str key, struct core_v1_pod **pods, size_t n)
{
	struct work w = {.c = c, .owner = {c->r, s->meta}, .key = key};
	int64_t diff = (int64_t)n - s->replicas;

	if (diff < 0) {
		size_t want = -diff > BURST ? BURST : (size_t)-diff, done;

		w.pod = pod_from_template(a, s->template, s->meta->namespace, STR_NULL, &w.owner);
		expect_creations(&c->x, key, (int)want);
		log_v(2, "%s %.*s: too few pods, creating %zu", c->name, STR_ARG(key), want);
		struct error *e = slow_start(want, create_one, &w, &done);

		for (size_t i = w.tried; i < want; i++) /* slow start ended early: these will not come */
			creation_observed(&c->x, key);
		if (namespace_terminating(e))
			error_clear(&e);
		return e;
	}
	if (diff > 0) {
		size_t k = diff > BURST ? BURST : (size_t)diff;

		log_v(2, "%s %.*s: too many pods, deleting %zu", c->name, STR_ARG(key), k);
		if (k < n)
			pods_sort_for_deletion(pods, n, related_ranks(c, a, s, pods, n));
		expect_deletions(&c->x, key, c->pods, pods, k);
		w.doomed = pods;
		return fan_out(k, delete_one, &w);
	}
	return NULL;
}

/* ---- status ---- */

static void set_condition(struct arena *a, struct apps_v1_replica_set_status *st, bool on, const char *reason, const char *message)
{
	struct apps_v1_replica_set_condition *v = arena_array(a, struct apps_v1_replica_set_condition, st->conditions.n + 1);
	uint32_t n = 0;

	for (uint32_t i = 0; i < st->conditions.n; i++) {
		if (str_eqz(st->conditions.v[i].type, "ReplicaFailure")) {
			if (on && str_eqz(st->conditions.v[i].reason, reason))
				return; /* as it is */
			continue;
		}
		v[n++] = st->conditions.v[i];
	}
	if (on)
		v[n++] = (struct apps_v1_replica_set_condition){
			.type = STR("ReplicaFailure"), .status = STR("True"), .reason = str_from(reason),
			.message = arena_str(a, str_from(message)), .last_transition_time = api_now()};
	st->conditions.v = v;
	st->conditions.n = n;
}

static struct error *write_status(struct rs_controller *c, struct arena *a, struct set *s, const struct apps_v1_replica_set_status *st)
{
	if (SAME(apps_v1_replica_set_status, st, &s->status) && s->status.observed_generation == s->meta->generation)
		return NULL;
	if (!is_rc(c)) {
		((struct apps_v1_replica_set *)s->obj)->status = *st;
	} else {
		struct core_v1_replication_controller *rc = s->obj;

		rc->status.replicas = st->replicas;
		rc->status.fully_labeled_replicas = st->fully_labeled_replicas;
		rc->status.ready_replicas = st->ready_replicas;
		rc->status.available_replicas = st->available_replicas;
		rc->status.observed_generation = st->observed_generation;
		rc->status.conditions.v = (struct core_v1_replication_controller_condition *)(void *)st->conditions.v;
		rc->status.conditions.n = st->conditions.n;
	}
	struct error *e = client_update(c->m->client, a, c->r, s->meta->namespace, "status", s->obj, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct rs_controller *c = ctx;
	struct str key = object_key(a, ns, name);
	void *obj = informer_get(c->sets, a, ns, name);
	struct set s = {0};
	void **claimed;
	size_t n, n_active = 0;

	if (!obj) {
		expectations_forget(&c->x, key);
		return NULL;
	}
	bool needs_sync = expectations_met(&c->x, key);

	TRY(set_of(c, a, obj, &s));
	TRY(claim_objects(&(struct claim){.m = c->m, .i = c->pods, .r = &core_v1_pods_resource, .owner = {c->r, s.meta},
					  .selector = s.selector, .active_pods = true}, a, &claimed, &n));
	struct core_v1_pod **active = arena_array(a, struct core_v1_pod *, n);
	int32_t terminating = 0;

	for (size_t i = 0; i < n; i++) {
		struct core_v1_pod *p = claimed[i];

		if (pod_is_active(p))
			active[n_active++] = p;
		else if (p->metadata.deletion_timestamp && !pod_is_terminal(p))
			terminating++;
	}
	struct error *e = NULL;
	bool creating = (int64_t)n_active < s.replicas;

	if (needs_sync && !s.meta->deletion_timestamp)
		e = manage(c, a, &s, key, active, n_active);
	struct apps_v1_replica_set_status st = s.status;
	const struct selector *full = label_selector_from_map(a, API_MAP(&s.template->metadata.labels));
	int64_t wait = -1;

	st.replicas = (int32_t)n_active;
	st.fully_labeled_replicas = st.ready_replicas = st.available_replicas = 0;
	st.observed_generation = s.meta->generation;
	if (!is_rc(c))
		st.terminating_replicas = new_i32(a, terminating);
	for (size_t i = 0; i < n_active; i++) {
		int64_t left;

		st.fully_labeled_replicas += selector_matches(full, API_MAP(&active[i]->metadata.labels));
		st.ready_replicas += pod_is_ready(active[i]);
		st.available_replicas += pod_is_available(active[i], s.min_ready, &left);
		if (left >= 0 && (wait < 0 || left < wait))
			wait = left;
	}
	set_condition(a, &st, e != NULL, creating ? "FailedCreate" : "FailedDelete", error_message(e));
	struct error *status_error = write_status(c, a, &s, &st);

	if (wait >= 0)
		workqueue_add_after(c->q, key, wait + 1);
	if (e && status_error) {
		error_free(status_error);
		return e;
	}
	return e ? e : status_error;
}

static struct error *rs_selector(struct arena *a, void *obj, const struct selector **out)
{
	return label_selector_from(a, ((struct apps_v1_replica_set *)obj)->spec.selector, out);
}

static struct error *rc_selector(struct arena *a, void *obj, const struct selector **out)
{
	struct core_v1_replication_controller *rc = obj;

	*out = rc->spec.selector.n ? label_selector_from_map(a, API_MAP(&rc->spec.selector)) : NULL;
	return NULL;
}

static void start(struct manager *m, const struct api_resource *r, const char *name, const char *component)
{
	struct rs_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->r = r;
	c->name = name;
	c->q = workqueue_new(name);
	c->rec = event_recorder_new(m->client, component, "");
	c->sets = manager_informer(m, r);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->watch = (struct pod_watch){.r = r, .owners = c->sets, .pods = c->pods, .q = c->q, .x = &c->x,
				      .selector = is_rc(c) ? rc_selector : rs_selector};
	pod_watch_start(&c->watch);
	controller_run(m, c->q, name, 5, reconcile, c, c->sets, c->pods, NULL);
}

void replicaset_start(struct manager *m)
{
	start(m, &apps_v1_replicasets_resource, "replicaset", "replicaset-controller");
}

void replicationcontroller_start(struct manager *m)
{
	start(m, &core_v1_replicationcontrollers_resource, "replicationcontroller", "replication-controller");
}
