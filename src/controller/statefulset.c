/*
 * controller/statefulset.c: pods with names that stay: made in order, replaced in reverse order, each with its claims
 * (statefulset_pods.c). Revisions are history.c's.
 */
#include "controller/statefulset.h"

#include <stdlib.h>

/* ---- how pods are ---- */

static bool running_and_ready(const pod_t *p)
{
	return str_eqz(p->status.phase, "Running") && pod_is_ready(p);
}

static bool available(const struct sts_sync *s, const pod_t *p)
{
	return pod_is_available(p, s->set->spec.min_ready_seconds, NULL);
}

static bool unavailable(const struct sts_sync *s, const pod_t *p)
{
	return !available(s, p) || p->metadata.deletion_timestamp;
}

static struct str revision_of(const pod_t *p)
{
	return str_map_get(API_MAP(&p->metadata.labels), STR(STS_REVISION_LABEL));
}

/* ---- status ---- */

static void count_pods(struct sts_sync *s, pod_t *const *v, size_t n)
{
	struct apps_v1_stateful_set_status *st = &s->st;

	for (size_t i = 0; i < n; i++) {
		const pod_t *p = v[i];

		if (!pod_is_made(p))
			continue;
		st->replicas++;
		if (running_and_ready(p)) {
			st->ready_replicas++;
			st->available_replicas += available(s, p);
		}
		if (!p->metadata.deletion_timestamp) {
			st->current_replicas += str_eq(revision_of(p), s->current);
			st->updated_replicas += str_eq(revision_of(p), s->update);
		}
	}
}

static void recount(struct sts_sync *s)
{
	s->st.replicas = s->st.ready_replicas = s->st.available_replicas = s->st.current_replicas = s->st.updated_replicas = 0;
	count_pods(s, s->replicas, s->n_replicas);
	count_pods(s, s->condemned, s->n_condemned);
}

static struct error *write_status(struct sts_sync *s)
{
	struct apps_v1_stateful_set_status *st = &s->st;
	const struct apps_v1_stateful_set_status *old = &s->set->status;
	int32_t want = i32_or(s->set->spec.replicas, 1);

	/* A rolling update that has reached everything: what was new is what is current. */
	if (str_eqz(s->set->spec.update_strategy.type, "RollingUpdate") && st->updated_replicas == want && st->ready_replicas == want &&
	    st->replicas == want) {
		st->current_replicas = st->updated_replicas;
		st->current_revision = st->update_revision;
	}
	if (st->observed_generation <= old->observed_generation && st->replicas == old->replicas &&
	    st->current_replicas == old->current_replicas && st->ready_replicas == old->ready_replicas &&
	    st->updated_replicas == old->updated_replicas && st->available_replicas == old->available_replicas &&
	    str_eq(st->current_revision, old->current_revision) && str_eq(st->update_revision, old->update_revision))
		return NULL;
	sts_t copy = *s->set;

	copy.status = *st;
	struct error *e = client_update(s->c->m->client, s->a, &apps_v1_statefulsets_resource, copy.metadata.namespace, "status", &copy, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

/* ---- one pod ---- */

/* *stop: nothing more may happen in this round. */
static struct error *process_replica(struct sts_sync *s, struct arena *a, size_t i, bool *stop)
{
	pod_t *p = s->replicas[i];

	*stop = true;
	if (pod_is_terminal(p)) /* whatever way it ended: a new one comes when it is gone */
		return p->metadata.deletion_timestamp ? NULL : sts_delete_pod(s, a, p);
	if (!pod_is_made(p)) {
		if (sts_claim_is_stale(s, a, p))
			return NULL;
		TRY(sts_create_pod(s, a, p));
		*stop = s->monotonic;
		return NULL;
	}
	if (str_eqz(p->status.phase, "Pending"))
		TRY(sts_make_claims(s, a, p));
	if (s->monotonic && (p->metadata.deletion_timestamp || !running_and_ready(p) || !available(s, p)))
		return NULL;
	*stop = false;
	if (sts_identity_matches(s, a, p) && sts_claims_match(s, a, p))
		return NULL;
	return sts_fix_pod(s, a, p);
}

static struct error *process_condemned(struct sts_sync *s, struct arena *a, size_t i, bool *stop)
{
	pod_t *p = s->condemned[i];

	*stop = true;
	if (p->metadata.deletion_timestamp) {
		*stop = s->monotonic;
		return NULL;
	}
	if (s->monotonic && (!running_and_ready(p) || !available(s, p)) && p != s->first_unavailable)
		return NULL;
	return sts_delete_pod(s, a, p);
}

static struct error *fix_condemned(struct sts_sync *s, struct arena *a, size_t i, bool *stop)
{
	*stop = false;
	return sts_claims_match(s, a, s->condemned[i]) ? NULL : sts_fix_claims(s, a, s->condemned[i]);
}

struct step {
	struct sts_sync *s;
	struct error *(*fn)(struct sts_sync *s, struct arena *a, size_t i, bool *stop);
};

static struct error *call_step(void *ctx, struct arena *a, size_t i)
{
	struct step *k = ctx;
	bool stop;

	return k->fn(k->s, a, i, &stop);
}

/* In order, until one says stop; or all at once. */
static struct error *for_all(struct sts_sync *s, size_t n, struct error *(*fn)(struct sts_sync *s, struct arena *a, size_t i, bool *stop),
			     bool *stop)
{
	size_t done;

	*stop = false;
	if (!s->monotonic)
		return slow_start(n, call_step, &(struct step){s, fn}, &done);
	for (size_t i = 0; i < n && !*stop; i++)
		TRY(fn(s, s->a, i, stop));
	return NULL;
}

/* ---- the whole set ---- */

/* Which revision a missing pod gets: below the partition (or what was current before a first rolling update) the old one. */
static bool gets_current(const struct sts_sync *s, int64_t ordinal)
{
	const struct apps_v1_stateful_set_update_strategy *u = &s->set->spec.update_strategy;

	if (u->rolling_update)
		return ordinal < sts_start(s->set) + i32_or(u->rolling_update->partition, 0);
	return str_eqz(u->type, "RollingUpdate") && ordinal < sts_start(s->set) + s->set->status.current_replicas;
}

static int cmp_descending(const void *pa, const void *pb, void *ctx)
{
	const sts_t *s = ctx;
	int64_t x = sts_ordinal(s, (*(pod_t *const *)pa)->metadata.name), y = sts_ordinal(s, (*(pod_t *const *)pb)->metadata.name);

	return x == y ? 0 : x > y ? -1 : 1;
}

static void sort_pods(struct sts_sync *s, void **pods, size_t n)
{
	int64_t start = sts_start(s->set);

	s->n_replicas = (size_t)i32_or(s->set->spec.replicas, 1);
	s->replicas = arena_array(s->a, pod_t *, s->n_replicas + 1);
	s->condemned = arena_array(s->a, pod_t *, n + 1);
	for (size_t i = 0; i < n; i++) {
		pod_t *p = pods[i];
		int64_t ordinal = sts_ordinal(s->set, p->metadata.name);

		if (sts_in_range(s->set, ordinal))
			s->replicas[ordinal - start] = p;
		else if (ordinal >= 0)
			s->condemned[s->n_condemned++] = p;
	}
	for (size_t i = 0; i < s->n_replicas; i++) {
		bool old = gets_current(s, start + (int64_t)i);

		if (!s->replicas[i])
			s->replicas[i] = sts_new_pod(s, s->a, old ? s->current_template : s->update_template, old ? s->current : s->update,
						     start + (int64_t)i);
		if (!s->first_unavailable && unavailable(s, s->replicas[i]))
			s->first_unavailable = s->replicas[i];
	}
	qsort_r(s->condemned, s->n_condemned, sizeof(*s->condemned), cmp_descending, s->set);
	for (size_t i = s->n_condemned; i > 0 && !s->first_unavailable; i--)
		if (unavailable(s, s->condemned[i - 1]))
			s->first_unavailable = s->condemned[i - 1];
}

static struct error *replace(struct sts_sync *s, pod_t *p)
{
	TRY(sts_delete_pod(s, s->a, p));
	s->st.current_replicas--;
	return NULL;
}

/* Old pods go from the highest ordinal down to the partition: one at a time, or as many as maxUnavailable lets (KEP-961). */
static struct error *rolling_update(struct sts_sync *s)
{
	const struct apps_v1_rolling_update_stateful_set_strategy *u = s->set->spec.update_strategy.rolling_update;
	size_t min = u && u->partition && *u->partition > 0 ? (size_t)*u->partition : 0;

	if (!u || !u->max_unavailable) {
		for (size_t i = s->n_replicas; i > min; i--) {
			pod_t *p = s->replicas[i - 1];

			if (!str_eq(revision_of(p), s->update) && !p->metadata.deletion_timestamp)
				return replace(s, p);
			if (unavailable(s, p))
				return NULL;
		}
		return NULL;
	}
	int most = scaled_value(u->max_unavailable, (int)s->n_replicas, false), missing = 0;

	for (size_t i = 0; i < s->n_replicas; i++)
		missing += unavailable(s, s->replicas[i]);
	for (size_t i = s->n_replicas; i > min && missing < (most < 1 ? 1 : most); i--) {
		pod_t *p = s->replicas[i - 1];

		if (str_eq(revision_of(p), s->update) || p->metadata.deletion_timestamp)
			continue;
		TRY(replace(s, p));
		missing++;
	}
	return NULL;
}

static struct error *update(struct sts_sync *s)
{
	bool stop;
	struct error *e;

	if (s->set->metadata.deletion_timestamp)
		return NULL;
	s->monotonic = !str_eqz(s->set->spec.pod_management_policy, "Parallel");
	e = for_all(s, s->n_replicas, process_replica, &stop);
	if (!e && !stop)
		e = for_all(s, s->n_condemned, fix_condemned, &stop);
	if (!e && !stop)
		e = for_all(s, s->n_condemned, process_condemned, &stop);
	recount(s);
	if (e || stop || str_eqz(s->set->spec.update_strategy.type, "OnDelete"))
		return e;
	return rolling_update(s);
}

static bool is_member(void *ctx, const struct cached_object *o)
{
	return sts_ordinal(ctx, o->name) >= 0;
}

/* When the next pod becomes available by time alone. */
static void look_again(struct sts_sync *s)
{
	int64_t first = -1;

	if (s->set->spec.min_ready_seconds <= 0 || s->st.ready_replicas == s->st.available_replicas)
		return;
	for (size_t i = 0; i < s->n_replicas + s->n_condemned; i++) {
		int64_t wait;

		pod_is_available(i < s->n_replicas ? s->replicas[i] : s->condemned[i - s->n_replicas], s->set->spec.min_ready_seconds, &wait);
		if (wait >= 0 && (first < 0 || wait < first))
			first = wait;
	}
	workqueue_add_after(s->c->q, s->key, first < 0 ? s->set->spec.min_ready_seconds * 1000LL : first + 1);
}

static struct error *find_revisions(struct sts_sync *s, const struct history *h, struct apps_v1_controller_revision ***revs, size_t *n)
{
	struct apps_v1_controller_revision *update, *current;
	int32_t collisions = i32_or(s->set->status.collision_count, 0);
	struct core_v1_pod_template_spec *t;

	TRY(history_sync(h, s->a, &s->set->spec.template, &collisions, &update, revs, n));
	current = update;
	for (size_t i = 0; i < *n; i++)
		if (str_eq((*revs)[i]->metadata.name, s->set->status.current_revision))
			current = (*revs)[i];
	s->current = current->metadata.name;
	s->update = update->metadata.name;
	s->update_template = &s->set->spec.template;
	TRY(history_template(s->a, current, &t));
	s->current_template = t;
	s->st.observed_generation = s->set->metadata.generation;
	s->st.current_revision = s->current;
	s->st.update_revision = s->update;
	s->st.collision_count = new_i32(s->a, collisions);
	s->st.conditions.v = s->set->status.conditions.v;
	s->st.conditions.n = s->set->status.conditions.n;
	return NULL;
}

static struct error *truncate(struct sts_sync *s, const struct history *h, struct apps_v1_controller_revision **revs, size_t n)
{
	struct str *live = arena_array(s->a, struct str, s->n_replicas + s->n_condemned + 2);
	size_t k = 0;

	live[k++] = s->current;
	live[k++] = s->update;
	for (size_t i = 0; i < s->n_replicas + s->n_condemned; i++)
		live[k++] = revision_of(i < s->n_replicas ? s->replicas[i] : s->condemned[i - s->n_replicas]);
	return history_truncate(h, s->a, revs, n, i32_or(s->set->spec.revision_history_limit, 10), live, k);
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct sts_controller *c = ctx;
	struct sts_sync s = {.c = c, .a = a, .key = object_key(a, ns, name)};
	const struct selector *sel;
	struct apps_v1_controller_revision **revs;
	void **pods;
	size_t n, n_revs;

	s.set = informer_get(c->sets, a, ns, name);
	if (!s.set) {
		expectations_forget(&c->x, s.key);
		return NULL;
	}
	if (!expectations_met(&c->x, s.key))
		return NULL; /* the pods' events come back here */
	TRY(label_selector_from(a, s.set->spec.selector, &sel));
	struct owner owner = {&apps_v1_statefulsets_resource, &s.set->metadata};
	struct history h = {.m = c->m, .revisions = c->revisions, .owner = owner, .selector = sel, .hash_label = "controller.kubernetes.io/hash"};

	TRY(claim_objects(&(struct claim){.m = c->m, .i = c->pods, .r = &core_v1_pods_resource, .owner = owner, .selector = sel,
					  .member = is_member, .member_ctx = s.set}, a, &pods, &n));
	TRY(find_revisions(&s, &h, &revs, &n_revs));
	sort_pods(&s, pods, n);
	recount(&s);
	struct error *e = update(&s), *e2 = write_status(&s);

	if (e)
		error_free(e2);
	else
		e = e2;
	e2 = truncate(&s, &h, revs, n_revs);
	if (e)
		error_free(e2);
	else
		e = e2;
	look_again(&s);
	if (namespace_terminating(e))
		error_clear(&e);
	return e;
}

static struct error *selector_of(struct arena *a, void *obj, const struct selector **out)
{
	return label_selector_from(a, ((sts_t *)obj)->spec.selector, out);
}

/* "data-web-3" may be of set "web". */
static bool enqueue_if_claims(void *ctx, const struct cached_object *o)
{
	const struct cached_object *claim = ((const struct cached_object **)ctx)[0];
	struct workqueue *q = ((void **)ctx)[1];
	ptrdiff_t dash = str_rindex(claim->name, '-');
	struct str head = str_sub(claim->name, 0, dash < 0 ? 0 : (size_t)dash);
	arena_cleanup struct arena a = {0};

	if (head.n > o->name.n && str_has_suffix(head, o->name) && head.p[head.n - o->name.n - 1] == '-')
		workqueue_add(q, object_key(&a, o->ns, o->name));
	return true;
}

/* A claim that held up a new pod is gone. */
static void on_claim(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct sts_controller *c = ctx;

	if (ev == INFORMER_DELETED)
		informer_each(c->sets, old->ns, NULL, enqueue_if_claims, (const void *[]){old, c->q});
}

void statefulset_start(struct manager *m)
{
	struct sts_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("statefulset");
	c->rec = event_recorder_new(m->client, "statefulset-controller", "");
	c->sets = manager_informer(m, &apps_v1_statefulsets_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->claims = manager_informer(m, &core_v1_persistentvolumeclaims_resource);
	c->revisions = manager_informer(m, &apps_v1_controllerrevisions_resource);
	c->watch = (struct pod_watch){.r = &apps_v1_statefulsets_resource, .owners = c->sets, .pods = c->pods, .q = c->q, .x = &c->x,
				      .selector = selector_of};
	pod_watch_start(&c->watch);
	informer_on_event(c->claims, on_claim, c);
	controller_run(m, c->q, "statefulset", 5, reconcile, c, c->sets, c->pods, c->claims, c->revisions, NULL);
}
