/*
 * controller/disruption.c: the status of PodDisruptionBudgets: how many pods they want, have, and can spare; what the API
 * server's eviction subresource goes by. Also takes back DisruptionTarget conditions of pods that did not go after all.
 */
#include <errno.h>
#include <stdlib.h>

#include "controller/conditions.h"
#include "controller/scale.h"

#define DELETION_TIMEOUT_MS (2 * 60 * 1000) /* after an eviction, until the pod is thought to stay */
#define STALE_MS (2 * 60 * 1000)            /* the same for its condition */

struct disruption {
	struct manager *m;
	struct informer *budgets, *pods, *rcs, *sets, *deployments, *statefulsets;
	struct workqueue *q, *stale;
	struct event_recorder *rec;
};

typedef struct policy_v1_pod_disruption_budget pdb_t;

/* ---- how many pods there should be ---- */

struct scales {
	LIST(struct { struct str uid; int32_t n; }) known;
};

static bool add_scale(struct arena *a, struct scales *s, struct str uid, int32_t n)
{
	for (uint32_t i = 0; i < s->known.n; i++)
		if (str_eq(s->known.v[i].uid, uid))
			return true;
	arena_push(a, &s->known);
	s->known.v[s->known.n - 1].uid = uid;
	s->known.v[s->known.n - 1].n = n;
	return true;
}

/* *found false: not a controller of these kinds, or it is gone. */
static bool built_in_scale(struct disruption *c, struct arena *a, const struct meta_v1_owner_reference *o, struct str ns, struct scales *s)
{
	struct str group, version;

	api_version_split(o->api_version, &group, &version);
	if (str_eqz(o->kind, "ReplicationController") && !group.n) {
		const struct core_v1_replication_controller *rc = informer_get(c->rcs, a, ns, o->name);

		return rc && str_eq(rc->metadata.uid, o->uid) && add_scale(a, s, o->uid, i32_or(rc->spec.replicas, 1));
	}
	if (!str_eqz(group, "apps"))
		return false;
	if (str_eqz(o->kind, "StatefulSet")) {
		const struct apps_v1_stateful_set *ss = informer_get(c->statefulsets, a, ns, o->name);

		return ss && str_eq(ss->metadata.uid, o->uid) && add_scale(a, s, o->uid, i32_or(ss->spec.replicas, 1));
	}
	if (!str_eqz(o->kind, "ReplicaSet"))
		return false;
	const struct apps_v1_replica_set *rs = informer_get(c->sets, a, ns, o->name);

	if (!rs || !str_eq(rs->metadata.uid, o->uid))
		return false;
	const struct meta_v1_owner_reference *up = controller_of(&rs->metadata);

	if (!up || !str_eqz(up->kind, "Deployment"))
		return add_scale(a, s, o->uid, i32_or(rs->spec.replicas, 1));
	const struct apps_v1_deployment *d = informer_get(c->deployments, a, ns, up->name);

	return d && str_eq(d->metadata.uid, up->uid) && add_scale(a, s, up->uid, i32_or(d->spec.replicas, 1));
}

static struct error *no_controller(const struct core_v1_pod *p)
{
	return error_new("found no controllers for pod \"%.*s\"", STR_ARG(p->metadata.name));
}

static struct error *scale_of(struct disruption *c, struct arena *a, const struct core_v1_pod *p, const struct meta_v1_owner_reference *o,
			      struct scales *s)
{
	struct scale_ref ref;

	for (uint32_t i = 0; i < s->known.n; i++)
		if (str_eq(s->known.v[i].uid, o->uid))
			return NULL;
	if (built_in_scale(c, a, o, p->metadata.namespace, s))
		return NULL;
	struct error *e = scale_get(c->m, a, o->api_version, o->kind, p->metadata.namespace, o->name, &ref);

	if (error_is(e, 404, "NotFound")) {
		error_free(e);
		return no_controller(p);
	}
	TRY(e);
	if (!str_eq(ref.scale->metadata.uid, o->uid))
		return no_controller(p);
	add_scale(a, s, o->uid, ref.scale->spec.replicas);
	return NULL;
}

/* The sum of what the pods' controllers want; *unmanaged: pods that have none. */
static struct error *expected_scale(struct disruption *c, struct arena *a, struct core_v1_pod **pods, size_t n, int32_t *out, size_t *unmanaged)
{
	struct scales s = {0};

	*out = 0;
	for (size_t i = 0; i < n; i++) {
		const struct meta_v1_owner_reference *o = controller_of(&pods[i]->metadata);

		if (!o)
			(*unmanaged)++;
		else
			TRY(scale_of(c, a, pods[i], o, &s));
	}
	for (uint32_t i = 0; i < s.known.n; i++)
		*out += s.known.v[i].n;
	return NULL;
}

static struct error *expected_count(struct disruption *c, struct arena *a, const pdb_t *b, struct core_v1_pod **pods, size_t n,
				    int32_t *expected, int32_t *desired, size_t *unmanaged)
{
	const struct int_or_string *max = b->spec.max_unavailable, *min = b->spec.min_available;

	*expected = *desired = 0;
	if (max) {
		TRY(expected_scale(c, a, pods, n, expected, unmanaged));
		*desired = *expected - scaled_value(max, *expected, true);
		if (*desired < 0)
			*desired = 0;
	} else if (min && min->is_str) {
		TRY(expected_scale(c, a, pods, n, expected, unmanaged));
		*desired = scaled_value(min, *expected, true);
	} else if (min) {
		*desired = min->i;
		*expected = (int32_t)n;
	}
	return NULL;
}

/* ---- status ---- */

static bool is_disrupted(const pdb_t *b, const struct core_v1_pod *p, struct api_time *when)
{
	for (uint32_t i = 0; i < b->status.disrupted_pods.n; i++) {
		if (!str_eq(b->status.disrupted_pods.v[i].key, p->metadata.name))
			continue;
		*when = b->status.disrupted_pods.v[i].value;
		return true;
	}
	return false;
}

/* Who was evicted and is not yet being deleted; *recheck_ms: when the first of them is thought to stay, -1: never. */
static void still_disrupted(struct disruption *c, struct arena *a, const pdb_t *b, struct core_v1_pod **pods, size_t n,
			    struct policy_v1_pod_disruption_budget_status *out, int64_t *recheck_ms)
{
	*recheck_ms = -1;
	for (size_t i = 0; i < n; i++) {
		struct api_time when;

		if (pods[i]->metadata.deletion_timestamp || !is_disrupted(b, pods[i], &when))
			continue;
		int64_t left = time_ms(when) + DELETION_TIMEOUT_MS - wall_ms();

		if (left < 0) {
			struct core_v1_object_reference ref = object_reference(&core_v1_pods_resource, pods[i]);

			event_record(c->rec, &ref, "Warning", "NotDeleted", "Pod was expected by PDB %.*s/%.*s to be deleted but it wasn't",
				     STR_ARG(b->metadata.namespace), STR_ARG(b->metadata.name));
			continue;
		}
		if (*recheck_ms < 0 || left < *recheck_ms)
			*recheck_ms = left;
		*arena_push(a, &out->disrupted_pods) = (struct time_pair){pods[i]->metadata.name, when};
	}
}

static struct error *write_status(struct disruption *c, struct arena *a, const pdb_t *b)
{
	return client_update(c->m->client, a, &policy_v1_poddisruptionbudgets_resource, b->metadata.namespace, "status", b, NULL);
}

static struct error *try_sync(struct disruption *c, struct arena *a, pdb_t *b, struct str key)
{
	struct policy_v1_pod_disruption_budget_status st = {.observed_generation = b->metadata.generation}, *was = &b->status;
	struct core_v1_object_reference ref = object_reference(&policy_v1_poddisruptionbudgets_resource, b);
	const struct selector *sel;
	struct core_v1_pod **pods;
	size_t n, unmanaged = 0;
	int64_t recheck_ms;

	TRY(label_selector_from(a, b->spec.selector, &sel));
	n = informer_list(c->pods, a, b->metadata.namespace, sel, (void ***)&pods);
	if (!n)
		event_record(c->rec, &ref, "Normal", "NoPods", "No matching pods found");
	struct error *e = expected_count(c, a, b, pods, n, &st.expected_pods, &st.desired_healthy, &unmanaged);

	if (e) {
		event_record(c->rec, &ref, "Warning", "CalculateExpectedPodCountFailed",
			     "Failed to calculate the number of expected pods: %s", error_message(e));
		return e;
	}
	if (unmanaged)
		event_record(c->rec, &ref, "Warning", "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %.*s) were found to be "
			     "unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "
			     "To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
			     STR_ARG(selector_format(a, sel)));
	still_disrupted(c, a, b, pods, n, &st, &recheck_ms);
	for (size_t i = 0; i < n; i++) {
		struct api_time when;

		if (pods[i]->metadata.deletion_timestamp || !pod_is_ready(pods[i]))
			continue;
		st.current_healthy += !(is_disrupted(b, pods[i], &when) && time_ms(when) + DELETION_TIMEOUT_MS > wall_ms());
	}
	st.disruptions_allowed = st.current_healthy - st.desired_healthy;
	/* A budget without pods allows nothing: its first pods would be gone before they are counted. */
	if (st.expected_pods <= 0 || st.disruptions_allowed < 0)
		st.disruptions_allowed = 0;
	*CONDITIONS(&st.conditions) = *CONDITIONS(&was->conditions);
	uint32_t conditions = st.conditions.n;
	bool changed = condition_set(a, CONDITIONS(&st.conditions), "DisruptionAllowed", st.disruptions_allowed > 0 ? "True" : "False",
				     st.disruptions_allowed > 0 ? "SufficientPods" : "InsufficientPods", STR_NULL, b->metadata.generation);

	changed |= st.conditions.n != conditions || !SAME(policy_v1_pod_disruption_budget_status, &st, was);
	if (changed) {
		b->status = st;
		TRY(write_status(c, a, b));
	}
	if (recheck_ms >= 0)
		workqueue_add_after(c->q, key, recheck_ms + 1);
	return NULL;
}

/* What cannot be counted is not spared. */
static struct error *fail_safe(struct disruption *c, struct arena *a, struct str ns, struct str name, const struct error *why)
{
	pdb_t *b = informer_get(c->budgets, a, ns, name);

	if (!b)
		return NULL;
	bool changed = b->status.disruptions_allowed != 0;

	b->status.disruptions_allowed = 0;
	changed |= condition_set(a, CONDITIONS(&b->status.conditions), "DisruptionAllowed", "False", "SyncFailed",
				 arena_printf(a, "%s", error_message(why)), b->status.observed_generation);
	return changed ? write_status(c, a, b) : NULL;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct disruption *c = ctx;
	pdb_t *b = informer_get(c->budgets, a, ns, name);

	if (!b)
		return NULL;
	struct error *e = try_sync(c, a, b, object_key(a, ns, name));

	if (error_is(e, 404, "NotFound"))
		error_clear(&e);
	if (!e || error_is(e, 409, NULL) || error_is_sys(e, ECANCELED))
		return e;
	log_warn("budget %.*s/%.*s: %s", STR_ARG(ns), STR_ARG(name), error_message(e));
	struct error *second = fail_safe(c, a, ns, name, e);

	error_free(e);
	return second;
}

/* ---- conditions of pods that stayed ---- */

static int64_t stale_in(const struct core_v1_pod *p)
{
	const struct core_v1_pod_condition *d = pod_condition(p, "DisruptionTarget");

	if (p->metadata.deletion_timestamp || pod_is_terminal(p) || !d || !str_eqz(d->status, "True") ||
	    str_eqz(d->reason, "TerminationByKubelet"))
		return -1;
	int64_t left = time_ms(d->last_transition_time) + STALE_MS - wall_ms();

	return left > 0 ? left : 0;
}

static struct error *reconcile_stale(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct disruption *c = ctx;
	const struct core_v1_pod *p = informer_get(c->pods, a, ns, name);
	int64_t left = p ? stale_in(p) : -1;

	if (left > 0)
		workqueue_add_after(c->stale, object_key(a, ns, name), left + 1);
	if (left != 0)
		return NULL;
	struct error *e = client_patch(c->m->client, a, &core_v1_pods_resource, ns, name, "status", PATCH_STRATEGIC,
		arena_printf(a, "{\"metadata\":{\"uid\":\"%.*s\"},\"status\":{\"conditions\":[{\"type\":\"DisruptionTarget\",\"status\":\"False\","
			     "\"reason\":null,\"message\":null,\"lastTransitionTime\":\"%.*s\"}]}}", STR_ARG(p->metadata.uid),
			     STR_ARG(time_format(a, api_now(), false))), NULL, false, NULL);

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

/* ---- events ---- */

struct matching {
	struct disruption *c;
	const struct cached_object *pod;
	size_t n;
};

static bool queue_match(void *ctx, const struct cached_object *o)
{
	struct matching *w = ctx;
	arena_cleanup struct arena a = {0};
	const pdb_t *b = cached_decode(w->c->budgets, &a, o);
	const struct selector *sel = NULL;
	struct error *e = b ? label_selector_from(&a, b->spec.selector, &sel) : NULL;

	if (b && !e && b->spec.selector && selector_matches(sel, &w->pod->labels)) {
		workqueue_add(w->c->q, object_key(&a, o->ns, o->name));
		w->n++;
	}
	error_free(e); /* a selector that cannot be read selects nothing */
	return true;
}

static void queue_matches(struct disruption *c, const struct cached_object *pod)
{
	struct matching w = {c, pod, 0};
	arena_cleanup struct arena a = {0};

	informer_each(c->budgets, pod->ns, NULL, queue_match, &w);
	if (w.n < 2)
		return;
	const struct core_v1_pod *p = cached_decode(c->pods, &a, pod);

	if (!p)
		return;
	struct core_v1_object_reference ref = object_reference(&core_v1_pods_resource, p);

	event_record(c->rec, &ref, "Warning", "MultiplePodDisruptionBudgets",
		     "Pod \"%.*s\"/\"%.*s\" matches multiple PodDisruptionBudgets.", STR_ARG(pod->ns), STR_ARG(pod->name));
}

static bool any(void *ctx, const struct cached_object *o)
{
	*(bool *)ctx = true;
	return false;
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct disruption *c = ctx;
	arena_cleanup struct arena a = {0};
	bool guarded = false;

	informer_each(c->budgets, (new_ ? new_ : old)->ns, NULL, any, &guarded);
	if (guarded && new_)
		queue_matches(c, new_);
	if (guarded && old && (!new_ || !map_equal(&old->labels, &new_->labels)))
		queue_matches(c, old);
	/* Most pods never have the condition: their bytes say so without decoding. */
	if (!new_ || new_->deleting || !str_contains(block_str(new_->json), STR("\"DisruptionTarget\"")))
		return;
	const struct core_v1_pod *p = cached_decode(c->pods, &a, new_);
	int64_t left = p ? stale_in(p) : -1;

	if (left >= 0)
		workqueue_add_after(c->stale, object_key(&a, new_->ns, new_->name), left + 1);
}

static void on_budget(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct disruption *c = ctx;
	arena_cleanup struct arena a = {0};

	if (new_)
		workqueue_add(c->q, object_key(&a, new_->ns, new_->name));
}

void disruption_start(struct manager *m)
{
	struct disruption *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("disruption");
	c->stale = workqueue_new("stale_pod_disruption");
	c->rec = event_recorder_new(m->client, "controllermanager", "");
	c->budgets = manager_informer(m, &policy_v1_poddisruptionbudgets_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->rcs = manager_informer(m, &core_v1_replicationcontrollers_resource);
	c->sets = manager_informer(m, &apps_v1_replicasets_resource);
	c->deployments = manager_informer(m, &apps_v1_deployments_resource);
	c->statefulsets = manager_informer(m, &apps_v1_statefulsets_resource);
	informer_on_event(c->budgets, on_budget, c);
	informer_on_event(c->pods, on_pod, c);
	controller_run(m, c->q, "disruption", 2, reconcile, c, c->budgets, c->pods, c->rcs, c->sets, c->deployments, c->statefulsets, NULL);
	controller_run(m, c->stale, "disruption-stale", 1, reconcile_stale, c, c->pods, NULL);
}
