/*
 * controller/daemonset.c: one pod on each node that fits the template, kept up
 * to date. The pods are bound by the scheduler, through node affinity to the one node's name.
 */
#include <stdlib.h>

#include "controller/history.h"

#define HASH "controller-revision-hash"
#define BURST 250
#define FAILURE_MS 1000
#define FAILURE_MAX_MS (15 * 60 * 1000)
#define MAX_FAILURES 10000

struct ds_controller {
	struct manager *m;
	struct informer *sets, *pods, *nodes, *revisions;
	struct workqueue *q;
	struct event_recorder *rec;
	struct expectations x;
	struct pod_watch watch;
	struct map failures;        /* "uid/generation/node" -> struct failure: failed pods there are not deleted at once for ever */
};

struct failure {
	int64_t wait_ms, at_ms;
};

struct place { /* a node and our pods there */
	const struct core_v1_node *node;
	LIST(struct core_v1_pod *) pods;
	bool run, go_on; /* should a new one start; may one that is there stay */
};

struct sync {
	struct ds_controller *c;
	struct arena *a;
	struct str key, hash, generation; /* of the template: the controller revision's, the annotation's (may be empty) */
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
	if (s->generation.n)
		str_map_set(a, API_MAP(&p->metadata.labels), STR("pod-template-generation"), s->generation);
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
	size_t n = s->create.n > BURST ? BURST : s->create.n, k = s->doomed.n > BURST ? BURST : s->doomed.n, done;
	struct error *e = NULL;

	if (n)
		expect_creations(&s->c->x, s->key, (int)n);
	if (k)
		expect_deletions(&s->c->x, s->key, s->c->pods, s->doomed.v, k);
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

/* ---- what each node needs ---- */

static bool updated(const struct sync *s, const struct core_v1_pod *p)
{
	const struct str_map *labels = API_MAP(&p->metadata.labels);

	return str_eq(str_map_get(labels, STR(HASH)), s->hash) ||
	       (s->generation.n && str_eq(str_map_get(labels, STR("pod-template-generation")), s->generation));
}

static bool is_available(const struct sync *s, const struct core_v1_pod *p)
{
	return pod_is_available(p, s->ds->spec.min_ready_seconds, NULL);
}

/* Scheduled ones first, then the oldest. */
static int cmp_pods(const void *pa, const void *pb)
{
	const struct core_v1_pod *x = *(struct core_v1_pod *const *)pa, *y = *(struct core_v1_pod *const *)pb;

	if (!x->spec.node_name.n != !y->spec.node_name.n)
		return x->spec.node_name.n ? -1 : 1;
	int c = time_cmp(x->metadata.creation_timestamp, y->metadata.creation_timestamp);

	return c ? c : str_cmp(x->metadata.name, y->metadata.name);
}

static void place_pods(struct sync *s, void **pods, size_t n)
{
	struct map by_name = {0};

	for (size_t i = 0; i < s->n; i++)
		map_set(&by_name, s->places[i].node->metadata.name, &s->places[i]);
	for (size_t i = 0; i < n; i++) {
		struct core_v1_pod *pod = pods[i];
		struct place *p = map_get(&by_name, node_of(pod));

		if (pod->metadata.deletion_timestamp && pod_is_terminal(pod))
			continue; /* as good as gone */
		if (p)
			*arena_push(s->a, &p->pods) = pod;
		else if (!pod->metadata.deletion_timestamp && str_empty(pod->spec.node_name))
			*arena_push(s->a, &s->doomed) = pod; /* meant for a node that is gone: it would wait for ever */
	}
	map_free(&by_name);
	for (size_t i = 0; i < s->n; i++)
		if (s->places[i].pods.n > 1)
			qsort(s->places[i].pods.v, s->places[i].pods.n, sizeof(*s->places[i].pods.v), cmp_pods);
}

static int32_t surge_of(const struct sync *s, int desired)
{
	const struct apps_v1_rolling_update_daemon_set *u = s->ds->spec.update_strategy.rolling_update;

	return str_eqz(s->ds->spec.update_strategy.type, "RollingUpdate") && u ? scaled_value(u->max_surge, desired, true) : 0;
}

static int32_t unavailable_of(const struct sync *s, int desired)
{
	const struct apps_v1_rolling_update_daemon_set *u = s->ds->spec.update_strategy.rolling_update;

	return str_eqz(s->ds->spec.update_strategy.type, "RollingUpdate") && u ? scaled_value(u->max_unavailable, desired, true) : 0;
}

/* True when a failed pod may be deleted now; a kubelet that refuses each new one at once would keep us busy otherwise. */
static bool failed_pod_due(struct sync *s, const struct place *p)
{
	struct map *m = &s->c->failures;
	struct str key = arena_printf(s->a, "%.*s/%lld/%.*s", STR_ARG(s->ds->metadata.uid), (long long)s->ds->status.observed_generation,
				      STR_ARG(p->node->metadata.name));
	struct failure *f = map_get(m, key);
	int64_t now = now_ms();

	if (f && now - f->at_ms < f->wait_ms) {
		workqueue_add_after(s->c->q, s->key, f->wait_ms - (now - f->at_ms) + 1);
		return false;
	}
	if (!f) {
		if (m->n >= MAX_FAILURES) /* the counts begin again: at worst pods are replaced sooner */
			map_free_values(m, free);
		f = xcalloc(1, sizeof(*f));
		map_set(m, key, f);
	}
	bool old = now - f->at_ms > 2 * FAILURE_MAX_MS;

	f->wait_ms = !f->wait_ms || old ? FAILURE_MS : f->wait_ms * 2 > FAILURE_MAX_MS ? FAILURE_MAX_MS : f->wait_ms * 2;
	f->at_ms = now;
	return true;
}

static void tell_ended(struct sync *s, const struct place *p, const struct core_v1_pod *pod)
{
	struct core_v1_object_reference ref = object_reference(&apps_v1_daemonsets_resource, s->ds);
	bool failed = str_eqz(pod->status.phase, "Failed");

	event_record(s->c->rec, &ref, failed ? "Warning" : "Normal", failed ? "FailedDaemonPod" : "SucceededDaemonPod",
		     "Found %s daemon pod %.*s/%.*s on node %.*s, will try to %s it", failed ? "failed" : "succeeded",
		     STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.name), STR_ARG(p->node->metadata.name), failed ? "kill" : "delete");
}

/* While surging, an old pod stays beside the new one as long as it is ready and the new one is not available. */
static void prune_surge(struct sync *s, struct core_v1_pod **v, size_t n)
{
	struct core_v1_pod *fresh = NULL, *old = NULL;

	for (size_t i = 0; i < n; i++) {
		struct core_v1_pod **slot = updated(s, v[i]) ? &fresh : &old;

		if (*slot)
			*arena_push(s->a, &s->doomed) = v[i];
		else
			*slot = v[i];
	}
	if (fresh && old && (!pod_is_ready(old) || is_available(s, fresh)))
		*arena_push(s->a, &s->doomed) = old;
}

static void manage_place(struct sync *s, const struct place *p)
{
	struct core_v1_pod **live = arena_array(s->a, struct core_v1_pod *, p->pods.n + 1);
	size_t n = 0;

	if (p->run && !p->pods.n) {
		*arena_push(s->a, &s->create) = p->node->metadata.name;
		return;
	}
	for (uint32_t k = 0; k < p->pods.n; k++) {
		struct core_v1_pod *pod = p->pods.v[k];

		if (pod->metadata.deletion_timestamp)
			continue;
		if (p->go_on && !pod_is_terminal(pod)) {
			live[n++] = pod;
			continue;
		}
		if (p->go_on) {
			if (str_eqz(pod->status.phase, "Failed") && !failed_pod_due(s, p))
				continue;
			tell_ended(s, p, pod);
		}
		*arena_push(s->a, &s->doomed) = pod;
	}
	if (surge_of(s, 1) <= 0) {
		for (size_t i = 1; i < n; i++)
			*arena_push(s->a, &s->doomed) = live[i];
	} else if (n > 1) {
		prune_surge(s, live, n);
	} else if (!n && p->run) {
		*arena_push(s->a, &s->create) = p->node->metadata.name; /* not waiting for the last one to be gone */
	}
}

/* ---- rolling update ---- */

/* The new and the old pod of a node; false when there are several of a kind, which manage_place thins out. */
static bool find_pods(const struct sync *s, const struct place *p, struct core_v1_pod **fresh, struct core_v1_pod **old)
{
	*fresh = *old = NULL;
	for (uint32_t k = 0; k < p->pods.n; k++) {
		struct core_v1_pod *pod = p->pods.v[k], **slot = updated(s, pod) ? fresh : old;

		if (pod->metadata.deletion_timestamp)
			continue;
		if (*slot)
			return false;
		*slot = pod;
	}
	return true;
}

/* As many old pods go as maxUnavailable allows; those that are not available anyway, at once. */
static void update_in_place(struct sync *s, int most)
{
	struct core_v1_pod **candidates = arena_array(s->a, struct core_v1_pod *, s->n + 1), *fresh, *old;
	int missing = 0, n = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct place *p = &s->places[i];

		if (!p->pods.n && !p->run)
			continue;
		if (!find_pods(s, p, &fresh, &old) || !old == !fresh) {
			missing++;
		} else if (fresh) {
			missing += !is_available(s, fresh);
		} else if (!is_available(s, old)) {
			*arena_push(s->a, &s->doomed) = old;
			missing++;
		} else {
			candidates[n++] = old;
		}
	}
	for (int i = 0; i < n && missing < most; i++, missing++)
		*arena_push(s->a, &s->doomed) = candidates[i];
}

/* New pods beside old ones, at most maxSurge of them where the old one is available (KEP-1591). */
static void update_by_surge(struct sync *s, int most, int desired)
{
	struct core_v1_pod **sunset = arena_array(s->a, struct core_v1_pod *, s->n + 1), *fresh, *old;
	struct str *candidates = arena_array(s->a, struct str, s->n + 1);
	int surging = 0, available = 0, n = 0, n_sunset = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct place *p = &s->places[i];

		if (!p->pods.n && !p->run)
			continue;
		if (!find_pods(s, p, &fresh, &old)) {
			surging++;
			continue;
		}
		const struct core_v1_pod *first = old ? old : fresh;

		available += first && is_available(s, first);
		if (!old)
			continue;
		if (fresh) {
			if (is_available(s, fresh))
				*arena_push(s->a, &s->doomed) = old;
			else
				surging++;
		} else if (!is_available(s, old)) {
			if (p->run)
				*arena_push(s->a, &s->create) = p->node->metadata.name;
			else
				*arena_push(s->a, &s->doomed) = old;
		} else if (!p->run) {
			sunset[n_sunset++] = old;
		} else {
			candidates[n++] = p->node->metadata.name;
		}
	}
	/* A pod on a node that is not wanted any more goes when enough others are available. */
	for (int i = 0; i < n_sunset && i < available - desired; i++)
		*arena_push(s->a, &s->doomed) = sunset[i];
	for (int i = 0; i < n && surging < most; i++, surging++)
		*arena_push(s->a, &s->create) = candidates[i];
}

static void rolling_update(struct sync *s)
{
	int desired = 0;

	for (size_t i = 0; i < s->n; i++)
		desired += s->places[i].run;
	int surge = surge_of(s, desired), most = unavailable_of(s, desired);

	if (surge)
		update_by_surge(s, surge, desired);
	else
		update_in_place(s, !most && desired ? 1 : most);
}

/* ---- status ---- */

static struct error *write_status(struct sync *s, int32_t collisions, bool observed)
{
	struct apps_v1_daemon_set_status st = s->ds->status;
	int64_t wait = -1;

	st.current_number_scheduled = st.number_misscheduled = st.desired_number_scheduled = st.number_ready = 0;
	st.updated_number_scheduled = st.number_available = 0;
	if (observed)
		st.observed_generation = s->ds->metadata.generation;
	if (collisions)
		st.collision_count = new_i32(s->a, collisions);
	for (size_t i = 0; i < s->n; i++) {
		const struct place *p = &s->places[i];
		const struct core_v1_pod *first = p->pods.n ? p->pods.v[0] : NULL;
		int64_t left;

		if (!p->run) {
			st.number_misscheduled += first != NULL;
			continue;
		}
		st.desired_number_scheduled++;
		if (!first)
			continue;
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
	struct error *e = client_update(s->c->m->client, s->a, &apps_v1_daemonsets_resource, s->ds->metadata.namespace, "status", s->ds, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

/* ---- reconcile ---- */

/* Revisions beyond the limit go, the oldest first, but not those of pods that are there. */
static struct error *cleanup(struct sync *s, const struct history *h, void **pods, size_t n, const struct apps_v1_controller_revision *current,
			     struct apps_v1_controller_revision **revs, size_t n_revs)
{
	struct str *live = arena_array(s->a, struct str, n_revs + 1);
	int32_t limit = i32_or(s->ds->spec.revision_history_limit, 10);
	size_t k = 0;

	live[k++] = current->metadata.name;
	for (size_t i = 0; i < n_revs; i++) {
		struct str hash = str_map_get(API_MAP(&revs[i]->metadata.labels), STR(HASH));
		bool used = false;

		for (size_t m = 0; m < n && !used && revs[i] != current; m++)
			used = hash.n && str_eq(str_map_get(API_MAP(&((struct core_v1_pod *)pods[m])->metadata.labels), STR(HASH)), hash);
		if (used)
			live[k++] = revs[i]->metadata.name;
	}
	limit -= (int32_t)k - 1; /* those count too */
	return history_truncate(h, s->a, revs, n_revs, limit < 0 ? 0 : limit, live, k);
}

static struct error *update(struct sync *s)
{
	for (size_t i = 0; i < s->n; i++)
		manage_place(s, &s->places[i]);
	if (s->create.n || s->doomed.n)
		return carry_out(s); /* its events come back here */
	if (!str_eqz(s->ds->spec.update_strategy.type, "RollingUpdate"))
		return NULL;
	rolling_update(s);
	return carry_out(s);
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
	if (!s.ds->spec.selector || (!s.ds->spec.selector->match_labels.n && !s.ds->spec.selector->match_expressions.n)) {
		struct core_v1_object_reference ref = object_reference(&apps_v1_daemonsets_resource, s.ds);

		event_record(c->rec, &ref, "Warning", "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.");
		return NULL;
	}
	if (s.ds->metadata.deletion_timestamp)
		return NULL; /* its history may be gone already: nothing could be said of its pods */
	bool satisfied = expectations_met(&c->x, s.key);

	TRY(label_selector_from(a, s.ds->spec.selector, &sel));
	struct owner owner = {&apps_v1_daemonsets_resource, &s.ds->metadata};
	struct history h = {.m = c->m, .revisions = c->revisions, .owner = owner, .selector = sel, .hash_label = HASH};
	struct apps_v1_controller_revision *current, **revs;
	int32_t collisions = i32_or(s.ds->status.collision_count, 0);

	TRY(history_sync(&h, a, &s.ds->spec.template, &collisions, &current, &revs, &n_revs));
	s.hash = str_map_get(API_MAP(&current->metadata.labels), STR(HASH));
	s.generation = str_map_get(API_MAP(&s.ds->metadata.annotations), STR("deprecated.daemonset.template.generation"));
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
	struct error *e = satisfied ? update(&s) : NULL, *e2;

	if (namespace_terminating(e))
		error_clear(&e);
	e2 = write_status(&s, collisions, satisfied);
	if (!e && !e2 && satisfied)
		e2 = cleanup(&s, &h, pods, n, current, revs, n_revs);
	if (e) {
		error_free(e2);
		return e;
	}
	return e2;
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
