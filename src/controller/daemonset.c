/*
 * controller/daemonset.c: one pod on each node that fits the template, kept up
 * to date. The pods are bound by the scheduler, through node affinity to the one node's name.
 */
#include <stdlib.h>

#include "controller/history.h"

#define HASH "controller-revision-hash"
#define BURST 250

struct ds_controller {
	struct manager *m;
	struct informer *sets, *pods, *nodes, *revisions;
	struct workqueue *q;
	struct event_recorder *rec;
	struct expectations x;
	struct pod_watch watch;
};

struct place { /* a node and our pods there */
	const struct core_v1_node *node;
	LIST(struct core_v1_pod *) pods;
	bool run, go_on; /* should a new one start; may one that is there stay */
};

struct sync {
	struct ds_controller *c;
	struct arena *a;
	struct str key, hash;
	struct apps_v1_daemon_set *ds;
	struct place *places;
	size_t n;
	LIST(struct str) create;               /* node names */
	LIST(struct core_v1_pod *) doomed;
	size_t tried;
};

/* ---- does a node fit ---- */

static bool in_values(const struct core_v1_node_selector_requirement *q, struct str v)
{
	for (uint32_t i = 0; i < q->values.n; i++)
		if (str_eq(q->values.v[i], v))
			return true;
	return false;
}

static bool requirement(const struct core_v1_node_selector_requirement *q, bool has, struct str v)
{
	int64_t x, y;

	if (str_eqz(q->operator, "In"))
		return has && in_values(q, v);
	if (str_eqz(q->operator, "NotIn"))
		return !has || !in_values(q, v);
	if (str_eqz(q->operator, "Exists"))
		return has;
	if (str_eqz(q->operator, "DoesNotExist"))
		return !has;
	if (!has || q->values.n != 1 || !str_to_i64(v, &x) || !str_to_i64(q->values.v[0], &y))
		return false;
	return str_eqz(q->operator, "Gt") ? x > y : str_eqz(q->operator, "Lt") && x < y;
}

static bool affinity_fits(const struct core_v1_pod_spec *s, const struct core_v1_node *n)
{
	const struct str_map *labels = API_MAP(&n->metadata.labels);

	for (uint32_t i = 0; i < s->node_selector.n; i++)
		if (!str_map_has(labels, s->node_selector.v[i].key) ||
		    !str_eq(str_map_get(labels, s->node_selector.v[i].key), s->node_selector.v[i].value))
			return false;
	const struct core_v1_node_selector *sel = s->affinity && s->affinity->node_affinity ?
		s->affinity->node_affinity->required_during_scheduling_ignored_during_execution : NULL;

	if (!sel)
		return true;
	for (uint32_t i = 0; i < sel->node_selector_terms.n; i++) {
		const struct core_v1_node_selector_term *t = &sel->node_selector_terms.v[i];
		bool ok = t->match_expressions.n || t->match_fields.n;

		for (uint32_t k = 0; k < t->match_expressions.n && ok; k++)
			ok = requirement(&t->match_expressions.v[k], str_map_has(labels, t->match_expressions.v[k].key),
					 str_map_get(labels, t->match_expressions.v[k].key));
		for (uint32_t k = 0; k < t->match_fields.n && ok; k++)
			ok = str_eqz(t->match_fields.v[k].key, "metadata.name") &&
			     requirement(&t->match_fields.v[k], true, n->metadata.name);
		if (ok)
			return true;
	}
	return false;
}

static bool tolerated(const struct core_v1_pod_spec *s, const struct core_v1_taint *t)
{
	for (uint32_t i = 0; i < s->tolerations.n; i++) {
		const struct core_v1_toleration *x = &s->tolerations.v[i];

		if ((x->effect.n && !str_eq(x->effect, t->effect)) || (x->key.n && !str_eq(x->key, t->key)))
			continue;
		if (str_eqz(x->operator, "Exists") || (x->key.n && str_eq(x->value, t->value)))
			return true;
	}
	return false;
}

static void judge(const struct core_v1_pod_spec *s, struct place *p)
{
	p->run = p->go_on = false;
	if ((s->node_name.n && !str_eq(s->node_name, p->node->metadata.name)) || !affinity_fits(s, p->node))
		return;
	p->run = p->go_on = true;
	for (uint32_t i = 0; i < p->node->spec.taints.n; i++) {
		const struct core_v1_taint *t = &p->node->spec.taints.v[i];

		if (str_eqz(t->effect, "PreferNoSchedule") || tolerated(s, t))
			continue;
		p->run = false;
		if (str_eqz(t->effect, "NoExecute"))
			p->go_on = false;
	}
}

static void tolerate(struct arena *a, struct core_v1_pod_spec *s, const char *key, const char *effect)
{
	for (uint32_t i = 0; i < s->tolerations.n; i++)
		if (str_eqz(s->tolerations.v[i].key, key) && str_eqz(s->tolerations.v[i].effect, effect) &&
		    str_eqz(s->tolerations.v[i].operator, "Exists") && !s->tolerations.v[i].toleration_seconds)
			return;
	*arena_push(a, &s->tolerations) = (struct core_v1_toleration){
		.key = str_from(key), .operator = STR("Exists"), .effect = str_from(effect)};
}

static void add_tolerations(struct arena *a, struct core_v1_pod_spec *s)
{
	tolerate(a, s, "node.kubernetes.io/not-ready", "NoExecute");
	tolerate(a, s, "node.kubernetes.io/unreachable", "NoExecute");
	tolerate(a, s, "node.kubernetes.io/disk-pressure", "NoSchedule");
	tolerate(a, s, "node.kubernetes.io/memory-pressure", "NoSchedule");
	tolerate(a, s, "node.kubernetes.io/pid-pressure", "NoSchedule");
	tolerate(a, s, "node.kubernetes.io/unschedulable", "NoSchedule");
	if (s->host_network)
		tolerate(a, s, "node.kubernetes.io/network-unavailable", "NoSchedule");
}

/* ---- pods ---- */

/* The node a pod is on, or is meant for. */
static struct str node_of(const struct core_v1_pod *p)
{
	const struct core_v1_node_selector *sel = p->spec.affinity && p->spec.affinity->node_affinity ?
		p->spec.affinity->node_affinity->required_during_scheduling_ignored_during_execution : NULL;

	if (p->spec.node_name.n || !sel)
		return p->spec.node_name;
	for (uint32_t i = 0; i < sel->node_selector_terms.n; i++)
		for (uint32_t k = 0; k < sel->node_selector_terms.v[i].match_fields.n; k++) {
			const struct core_v1_node_selector_requirement *q = &sel->node_selector_terms.v[i].match_fields.v[k];

			if (str_eqz(q->key, "metadata.name") && q->values.n == 1)
				return q->values.v[0];
		}
	return STR_NULL;
}

static struct error *create_one(void *ctx, struct arena *a, size_t i)
{
	struct sync *s = ctx;
	struct owner owner = {&apps_v1_daemonsets_resource, &s->ds->metadata};
	struct core_v1_pod *p = pod_from_template(a, &s->ds->spec.template, s->ds->metadata.namespace, STR_NULL, &owner);
	struct core_v1_node_selector_requirement *q;

	s->tried++;
	str_map_set(a, API_MAP(&p->metadata.labels), STR(HASH), s->hash);
	str_map_set(a, API_MAP(&p->metadata.labels), STR("pod-template-generation"),
		    str_map_get(API_MAP(&s->ds->metadata.annotations), STR("deprecated.daemonset.template.generation")).n ?
		    str_map_get(API_MAP(&s->ds->metadata.annotations), STR("deprecated.daemonset.template.generation")) : STR("1"));
	add_tolerations(a, &p->spec);
	if (!p->spec.affinity)
		p->spec.affinity = arena_new(a, struct core_v1_affinity);
	if (!p->spec.affinity->node_affinity)
		p->spec.affinity->node_affinity = arena_new(a, struct core_v1_node_affinity);
	struct core_v1_node_affinity *na = p->spec.affinity->node_affinity;

	if (!na->required_during_scheduling_ignored_during_execution)
		na->required_during_scheduling_ignored_during_execution = arena_new(a, struct core_v1_node_selector);
	struct core_v1_node_selector *sel = na->required_during_scheduling_ignored_during_execution;

	if (!sel->node_selector_terms.n)
		arena_push(a, &sel->node_selector_terms);
	for (uint32_t k = 0; k < sel->node_selector_terms.n; k++) {
		struct core_v1_node_selector_term *t = &sel->node_selector_terms.v[k];

		t->match_fields.n = 0;
		q = arena_push(a, &t->match_fields);
		*q = (struct core_v1_node_selector_requirement){.key = STR("metadata.name"), .operator = STR("In")};
		*arena_push(a, &q->values) = s->create.v[i];
	}
	struct error *e = pod_create(s->c->m, a, s->c->rec, &owner, p, NULL);

	if (e)
		creation_observed(&s->c->x, s->key);
	return e;
}

static struct error *delete_one(void *ctx, struct arena *a, size_t i)
{
	struct sync *s = ctx;
	struct error *e = pod_delete(s->c->m, a, s->c->rec, &(struct owner){&apps_v1_daemonsets_resource, &s->ds->metadata}, s->doomed.v[i]);

	if (e)
		deletion_observed(&s->c->x, s->key, s->doomed.v[i]->metadata.uid);
	return e;
}

static struct error *carry_out(struct sync *s)
{
	struct str *uids = arena_array(s->a, struct str, s->doomed.n + 1);
	size_t n = s->create.n > BURST ? BURST : s->create.n, k = s->doomed.n > BURST ? BURST : s->doomed.n, done;
	struct error *e = NULL;

	for (size_t i = 0; i < k; i++)
		uids[i] = s->doomed.v[i]->metadata.uid;
	if (n)
		expect_creations(&s->c->x, s->key, (int)n);
	if (k)
		expect_deletions(&s->c->x, s->key, uids, k);
	s->tried = 0;
	if (n) {
		e = slow_start(n, create_one, s, &done);
		for (size_t i = s->tried; i < n; i++)
			creation_observed(&s->c->x, s->key);
	}
	struct error *e2 = fan_out(k, delete_one, s);

	s->create.n = s->doomed.n = 0;
	if (e && e2) {
		error_free(e2);
		return e;
	}
	return e ? e : e2;
}

static bool updated(const struct sync *s, const struct core_v1_pod *p)
{
	return str_eq(str_map_get(API_MAP(&p->metadata.labels), STR(HASH)), s->hash);
}

static void place_pods(struct sync *s, void **pods, size_t n)
{
	struct map by_name = {0};

	for (size_t i = 0; i < s->n; i++)
		map_set(&by_name, s->places[i].node->metadata.name, &s->places[i]);
	for (size_t i = 0; i < n; i++) {
		struct place *p = map_get(&by_name, node_of(pods[i]));

		if (p)
			*arena_push(s->a, &p->pods) = pods[i];
		else if (pod_is_active(pods[i]) && str_empty(((struct core_v1_pod *)pods[i])->spec.node_name))
			*arena_push(s->a, &s->doomed) = pods[i]; /* meant for a node that is gone */
	}
	map_free(&by_name);
}

static void manage(struct sync *s)
{
	for (size_t i = 0; i < s->n; i++) {
		struct place *p = &s->places[i];
		struct core_v1_pod *keep = NULL;
		bool waits = false, surge = s->ds->spec.update_strategy.rolling_update &&
			scaled_value(s->ds->spec.update_strategy.rolling_update->max_surge, (int)s->n, true) > 0;

		for (uint32_t k = 0; k < p->pods.n; k++) {
			struct core_v1_pod *pod = p->pods.v[k];

			if (pod->metadata.deletion_timestamp) {
				waits = true; /* its place is free when it is gone */
				continue;
			}
			if (str_eqz(pod->status.phase, "Failed") || str_eqz(pod->status.phase, "Succeeded")) {
				struct core_v1_object_reference ref = object_reference(&apps_v1_daemonsets_resource, s->ds);

				event_record(s->c->rec, &ref, "Warning", str_eqz(pod->status.phase, "Failed") ? "FailedDaemonPod" :
					     "SucceededDaemonPod", "Found %s daemon pod %.*s/%.*s on node %.*s, will try to kill it",
					     str_eqz(pod->status.phase, "Failed") ? "failed" : "succeeded", STR_ARG(pod->metadata.namespace),
					     STR_ARG(pod->metadata.name), STR_ARG(p->node->metadata.name));
				*arena_push(s->a, &s->doomed) = pod;
				waits = true;
				continue;
			}
			if (!p->go_on) {
				*arena_push(s->a, &s->doomed) = pod;
				continue;
			}
			if (!keep) {
				keep = pod;
				continue;
			}
			/* Two: the older stays; with surge an old template's waits for the new one. */
			if (surge && updated(s, keep) != updated(s, pod)) {
				struct core_v1_pod *fresh = updated(s, keep) ? keep : pod, *old = fresh == keep ? pod : keep;

				if (pod_is_available(fresh, s->ds->spec.min_ready_seconds, NULL))
					*arena_push(s->a, &s->doomed) = old;
				continue;
			}
			bool older = time_cmp(keep->metadata.creation_timestamp, pod->metadata.creation_timestamp) <= 0;

			*arena_push(s->a, &s->doomed) = older ? pod : keep;
			keep = older ? keep : pod;
		}
		if (p->run && !keep && !waits)
			*arena_push(s->a, &s->create) = p->node->metadata.name;
	}
}

static void rolling_update(struct sync *s)
{
	const struct apps_v1_rolling_update_daemon_set *u = s->ds->spec.update_strategy.rolling_update;
	int desired = 0, unavailable = 0;

	for (size_t i = 0; i < s->n; i++)
		desired += s->places[i].run;
	int surge = u ? scaled_value(u->max_surge, desired, true) : 0;
	int most = u ? scaled_value(u->max_unavailable, desired, true) : 1;

	if (!most && !surge)
		most = 1;
	for (size_t i = 0; i < s->n && !surge; i++) {
		bool ok = false;

		for (uint32_t k = 0; k < s->places[i].pods.n; k++)
			ok |= pod_is_active(s->places[i].pods.v[k]) &&
			      pod_is_available(s->places[i].pods.v[k], s->ds->spec.min_ready_seconds, NULL);
		unavailable += s->places[i].run && !ok;
	}
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < s->n; i++) {
			struct place *p = &s->places[i];
			struct core_v1_pod *old = NULL;
			bool fresh = false, going = false;

			for (uint32_t k = 0; k < p->pods.n; k++) {
				going |= p->pods.v[k]->metadata.deletion_timestamp != NULL;
				if (!pod_is_active(p->pods.v[k]))
					continue;
				if (updated(s, p->pods.v[k]))
					fresh = true;
				else
					old = p->pods.v[k];
			}
			if (!old || fresh || going || !p->run)
				continue;
			bool available = pod_is_available(old, s->ds->spec.min_ready_seconds, NULL);

			if (surge) {
				if (pass == 0 && surge-- > 0)
					*arena_push(s->a, &s->create) = p->node->metadata.name;
				if (surge <= 0)
					return;
			} else if (pass == 0 && !available) {
				*arena_push(s->a, &s->doomed) = old; /* no loss */
			} else if (pass == 1 && available && unavailable < most) {
				*arena_push(s->a, &s->doomed) = old;
				unavailable++;
			}
		}
}

static struct error *write_status(struct sync *s, int32_t collisions)
{
	struct apps_v1_daemon_set_status st = s->ds->status;
	int64_t wait = -1;

	st.current_number_scheduled = st.number_misscheduled = st.desired_number_scheduled = st.number_ready = 0;
	st.updated_number_scheduled = st.number_available = 0;
	st.observed_generation = s->ds->metadata.generation;
	if (collisions)
		st.collision_count = new_i32(s->a, collisions);
	for (size_t i = 0; i < s->n; i++) {
		struct place *p = &s->places[i];
		struct core_v1_pod *first = NULL;

		for (uint32_t k = 0; k < p->pods.n; k++)
			if (!p->pods.v[k]->metadata.deletion_timestamp && (!first || updated(s, p->pods.v[k])))
				first = p->pods.v[k];
		if (!p->run) {
			st.number_misscheduled += first != NULL;
			continue;
		}
		st.desired_number_scheduled++;
		if (!first)
			continue;
		int64_t left;

		st.current_number_scheduled++;
		st.number_ready += pod_is_ready(first);
		st.number_available += pod_is_available(first, s->ds->spec.min_ready_seconds, &left);
		st.updated_number_scheduled += updated(s, first);
		if (left >= 0 && (wait < 0 || left < wait))
			wait = left;
	}
	st.number_unavailable = st.desired_number_scheduled - st.number_available;
	if (wait >= 0)
		workqueue_add_after(s->c->q, s->key, wait + 1);
	if (SAME(apps_v1_daemon_set_status, &st, &s->ds->status))
		return NULL;
	s->ds->status = st;
	return client_update(s->c->m->client, s->a, &apps_v1_daemonsets_resource, s->ds->metadata.namespace, "status", s->ds, NULL);
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct ds_controller *c = ctx;
	struct sync s = {.c = c, .a = a, .key = object_key(a, ns, name)};
	const struct selector *sel;
	void **pods, **nodes;
	size_t n, n_revs;

	s.ds = informer_get(c->sets, a, ns, name);
	if (!s.ds) {
		expectations_forget(&c->x, s.key);
		return NULL;
	}
	if (s.ds->metadata.deletion_timestamp)
		return NULL;
	TRY(label_selector_from(a, s.ds->spec.selector, &sel));
	struct owner owner = {&apps_v1_daemonsets_resource, &s.ds->metadata};
	struct history h = {.m = c->m, .revisions = c->revisions, .owner = owner, .selector = sel, .hash_label = HASH};
	struct apps_v1_controller_revision *current, **revs;
	int32_t collisions = i32_or(s.ds->status.collision_count, 0);
	struct error *e = NULL;

	TRY(history_sync(&h, a, &s.ds->spec.template, &collisions, &current, &revs, &n_revs));
	s.hash = str_map_get(API_MAP(&current->metadata.labels), STR(HASH));
	TRY(claim_objects(&(struct claim){.m = c->m, .i = c->pods, .r = &core_v1_pods_resource, .owner = owner, .selector = sel}, a, &pods, &n));
	s.n = informer_list(c->nodes, a, STR_NULL, NULL, &nodes);
	s.places = arena_array(a, struct place, s.n + 1);
	struct core_v1_pod_spec *spec = object_clone(a, &core_v1_pod_spec_type, &s.ds->spec.template.spec);

	add_tolerations(a, spec);
	for (size_t i = 0; i < s.n; i++) {
		s.places[i].node = nodes[i];
		judge(spec, &s.places[i]);
	}
	place_pods(&s, pods, n);
	if (expectations_met(&c->x, s.key)) {
		manage(&s);
		e = carry_out(&s);
		if (!e && expectations_met(&c->x, s.key) && str_eqz(s.ds->spec.update_strategy.type, "RollingUpdate")) {
			rolling_update(&s);
			e = carry_out(&s);
		}
		if (namespace_terminating(e))
			error_clear(&e);
	}
	struct error *e2 = write_status(&s, collisions);

	if (e) {
		error_free(e2);
		return e;
	}
	TRY(e2);
	struct str *live = arena_array(a, struct str, n + 1);
	size_t n_live = 1;

	live[0] = current->metadata.name;
	return history_truncate(&h, a, revs, n_revs, i32_or(s.ds->spec.revision_history_limit, 10), live, n_live);
}

/* ---- what happens ---- */

static bool enqueue_set(void *ctx, const struct cached_object *o)
{
	struct ds_controller *c = ctx;
	arena_cleanup struct arena a = {0};

	workqueue_add(c->q, object_key(&a, o->ns, o->name));
	return true;
}

static void on_node(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct ds_controller *c = ctx;

	if (old && new_) { /* heartbeats change nothing for us */
		arena_cleanup struct arena a = {0};
		struct core_v1_node *x = cached_decode(c->nodes, &a, old), *y = cached_decode(c->nodes, &a, new_);

		if (x && y && map_equal(&old->labels, &new_->labels) && SAME(core_v1_node_spec, &x->spec, &y->spec))
			return;
	}
	informer_each(c->sets, STR_NULL, NULL, enqueue_set, c);
}

static struct error *selector_of(struct arena *a, void *obj, const struct selector **out)
{
	return label_selector_from(a, ((struct apps_v1_daemon_set *)obj)->spec.selector, out);
}

void daemonset_start(struct manager *m)
{
	struct ds_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("daemonset");
	c->rec = event_recorder_new(m->client, "daemonset-controller", "");
	c->sets = manager_informer(m, &apps_v1_daemonsets_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->nodes = manager_informer(m, &core_v1_nodes_resource);
	c->revisions = manager_informer(m, &apps_v1_controllerrevisions_resource);
	c->watch = (struct pod_watch){.r = &apps_v1_daemonsets_resource, .owners = c->sets, .pods = c->pods, .q = c->q, .x = &c->x,
				      .selector = selector_of};
	pod_watch_start(&c->watch);
	informer_on_event(c->nodes, on_node, c);
	controller_run(m, c->q, "daemonset", 2, reconcile, c, c->sets, c->pods, c->nodes, c->revisions, NULL);
}
