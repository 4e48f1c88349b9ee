/*
 * controller/deployment.c: a Deployment as ReplicaSets: one a pod template,
 * revisions, rollouts and their conditions. Sizes are deployment_scale.c's.
 */
#include "controller/deployment.h"

#include <limits.h>
#include <stdlib.h>

#define HISTORY_MAX 2000 /* bytes of the revision-history annotation */

bool has_deadline(const struct apps_v1_deployment *d)
{
	return d->spec.progress_deadline_seconds && *d->spec.progress_deadline_seconds != INT32_MAX;
}

/* ---- conditions ---- */

struct apps_v1_deployment_condition *deployment_condition(struct apps_v1_deployment_status *st, const char *type)
{
	for (uint32_t i = 0; i < st->conditions.n; i++)
		if (str_eqz(st->conditions.v[i].type, type))
			return &st->conditions.v[i];
	return NULL;
}

static void remove_condition(struct apps_v1_deployment_status *st, const char *type)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < st->conditions.n; i++)
		if (!str_eqz(st->conditions.v[i].type, type))
			st->conditions.v[n++] = st->conditions.v[i];
	st->conditions.n = n;
}

void deployment_set_condition(struct arena *a, struct apps_v1_deployment_status *st, const char *type, const char *status,
			      const char *reason, struct str message)
{
	struct apps_v1_deployment_condition *old = deployment_condition(st, type), c = {
		.type = str_from(type), .status = str_from(status), .reason = str_from(reason), .message = message,
		.last_update_time = api_now(), .last_transition_time = api_now()};

	if (old && str_eqz(old->status, status) && str_eqz(old->reason, reason))
		return;
	if (old && str_eqz(old->status, status))
		c.last_transition_time = old->last_transition_time;
	remove_condition(st, type);
	*arena_push(a, &st->conditions) = c;
}

static struct error *update_status(struct rollout *r, const struct apps_v1_deployment_status *st)
{
	struct apps_v1_deployment copy = *r->d;
	void *out;

	copy.status = *st;
	TRY(client_update(r->c->m->client, r->a, &apps_v1_deployments_resource, r->d->metadata.namespace, "status", &copy, &out));
	r->d->status = ((struct apps_v1_deployment *)out)->status;
	r->d->metadata.resource_version = ((struct apps_v1_deployment *)out)->metadata.resource_version;
	return NULL;
}

/* A copy whose condition list may be changed. */
static struct apps_v1_deployment_status status_copy(struct rollout *r)
{
	struct apps_v1_deployment_status *st = object_clone(r->a, &apps_v1_deployment_status_type, &r->d->status);

	return *st;
}

/* ---- revisions ---- */

static int64_t revision_of(const struct meta_v1_object_meta *m)
{
	int64_t v = 0;

	str_to_i64(str_map_get(API_MAP(&m->annotations), STR(ANNOTATION_REVISION)), &v);
	return v;
}

static bool skip_annotation(struct str key)
{
	static const char *const ours[] = {"kubectl.kubernetes.io/last-applied-configuration", ANNOTATION_REVISION,
		ANNOTATION_HISTORY, ANNOTATION_DESIRED, ANNOTATION_MAX, "deprecated.deployment.rollback.to"};

	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		if (str_eqz(key, ours[i]))
			return true;
	return false;
}

/* Annotations of the new ReplicaSet: those of the Deployment, its revision, its history. True when something changed. */
static bool set_new_annotations(struct rollout *r, rs_t *rs, int64_t revision, bool exists)
{
	struct str_map *to = API_MAP(&rs->metadata.annotations);
	const struct str_map *from = API_MAP(&r->d->metadata.annotations);
	bool changed = false;

	for (uint32_t i = 0; i < from->n; i++) {
		struct str k = from->v[i].key, v = from->v[i].value;

		if (skip_annotation(k) || (str_map_has(to, k) && str_eq(str_map_get(to, k), v)))
			continue;
		str_map_set(r->a, to, k, v);
		changed = true;
	}
	struct str old = str_map_get(to, STR(ANNOTATION_REVISION));

	if (revision_of(&rs->metadata) < revision) {
		str_map_set(r->a, to, STR(ANNOTATION_REVISION), arena_printf(r->a, "%lld", (long long)revision));
		changed = true;
		if (!str_empty(old)) {
			struct str history = str_map_get(to, STR(ANNOTATION_HISTORY));

			while (history.n && history.n + old.n + 1 > HISTORY_MAX) /* the oldest go */
				str_cut(&history, ',');
			str_map_set(r->a, to, STR(ANNOTATION_HISTORY), str_empty(history) ? old :
				    arena_printf(r->a, "%.*s,%.*s", STR_ARG(history), STR_ARG(old)));
		}
	}
	if (!exists && set_replica_annotations(r->a, rs, d_replicas(r->d), d_replicas(r->d) + max_surge(r->d)))
		changed = true;
	return changed;
}

/* The Deployment says which revision is current: with its next status. True when that is new. */
static bool set_deployment_revision(struct rollout *r, struct str revision)
{
	struct str_map *annotations = API_MAP(&r->d->metadata.annotations);

	if (str_empty(revision) || str_eq(str_map_get(annotations, STR(ANNOTATION_REVISION)), revision))
		return false;
	str_map_set(r->a, annotations, STR(ANNOTATION_REVISION), revision);
	return true;
}

static bool same_template(struct arena *a, const struct core_v1_pod_template_spec *x, const struct core_v1_pod_template_spec *y)
{
	struct core_v1_pod_template_spec cx = *x, cy = *y;
	struct str_map lx = {0}, ly = {0};

	for (uint32_t i = 0; i < x->metadata.labels.n; i++)
		if (!str_eqz(x->metadata.labels.v[i].key, HASH_LABEL))
			str_map_set(a, &lx, x->metadata.labels.v[i].key, x->metadata.labels.v[i].value);
	for (uint32_t i = 0; i < y->metadata.labels.n; i++)
		if (!str_eqz(y->metadata.labels.v[i].key, HASH_LABEL))
			str_map_set(a, &ly, y->metadata.labels.v[i].key, y->metadata.labels.v[i].value);
	*API_MAP(&cx.metadata.labels) = lx;
	*API_MAP(&cy.metadata.labels) = ly;
	return SAME(core_v1_pod_template_spec, &cx, &cy);
}

static int cmp_age(const void *pa, const void *pb)
{
	const rs_t *x = *(rs_t *const *)pa, *y = *(rs_t *const *)pb;
	int c = time_cmp(x->metadata.creation_timestamp, y->metadata.creation_timestamp);

	return c ? c : str_cmp(x->metadata.name, y->metadata.name);
}

static void add_set(struct rollout *r, rs_t *rs)
{
	rs_t **v = arena_array(r->a, rs_t *, r->n + 1);

	if (r->n)
		memcpy(v, r->all, r->n * sizeof(*v));
	v[r->n++] = rs;
	r->all = v;
}

/* Written also when nothing changed, where `annotations` says that those did. reason may be NULL. */
static struct error *note_progress(struct rollout *r, bool annotations, const char *status, const char *reason, struct str message)
{
	struct apps_v1_deployment_status st = status_copy(r);

	if (has_deadline(r->d) && reason)
		deployment_set_condition(r->a, &st, "Progressing", status, reason, message);
	if (!annotations && SAME(apps_v1_deployment_status, &st, &r->d->status))
		return NULL;
	return update_status(r, &st);
}

static struct error *create_new(struct rollout *r, int64_t revision)
{
	struct apps_v1_deployment *d = r->d;
	struct arena *a = r->a;
	struct client *client = r->c->m->client;
	struct str hash = object_hash(a, &core_v1_pod_template_spec_type, &d->spec.template, d->status.collision_count);
	rs_t *rs = arena_new(a, rs_t);
	struct owner owner = {&apps_v1_deployments_resource, &d->metadata};
	int32_t total = 0;

	rs->metadata.name = arena_printf(a, "%.*s-%.*s", STR_ARG(d->metadata.name), STR_ARG(hash));
	rs->metadata.namespace = d->metadata.namespace;
	owner_add_controller_ref(a, &rs->metadata, &owner);
	rs->spec.template = *(struct core_v1_pod_template_spec *)object_clone(a, &core_v1_pod_template_spec_type, &d->spec.template);
	str_map_set(a, API_MAP(&rs->spec.template.metadata.labels), STR(HASH_LABEL), hash);
	for (uint32_t i = 0; i < rs->spec.template.metadata.labels.n; i++)
		*arena_push(a, &rs->metadata.labels) = rs->spec.template.metadata.labels.v[i];
	rs->spec.selector = object_clone(a, &meta_v1_label_selector_type, d->spec.selector);
	str_map_set(a, API_MAP(&rs->spec.selector->match_labels), STR(HASH_LABEL), hash);
	rs->spec.min_ready_seconds = d->spec.min_ready_seconds;
	for (size_t i = 0; i < r->n; i++)
		total += rs_replicas(r->all[i]);
	int32_t replicas = d_replicas(d);

	if (is_rolling(d)) {
		int32_t room = d_replicas(d) + max_surge(d) - total;

		replicas = room < 0 ? 0 : room < replicas ? room : replicas;
	}
	rs->spec.replicas = new_i32(a, replicas);
	set_new_annotations(r, rs, revision, false);
	void *out;
	struct error *e = client_create(client, a, &apps_v1_replicasets_resource, d->metadata.namespace, rs, &out);

	if (error_is(e, 409, "AlreadyExists")) {
		error_clear(&e);
		TRY(client_get(client, a, &apps_v1_replicasets_resource, d->metadata.namespace, rs->metadata.name, &out));
		rs_t *there = out;

		if (controlled_by(&there->metadata, d->metadata.uid) && same_template(a, &d->spec.template, &there->spec.template)) {
			r->new_ = there; /* our own, from before the informer knew */
			add_set(r, there);
			return NULL;
		}
		/* Another template with this hash: the next try hashes something else. */
		struct apps_v1_deployment_status st = status_copy(r);

		st.collision_count = new_i32(a, i32_or(st.collision_count, 0) + 1);
		TRY(update_status(r, &st));
		return error_status(409, "AlreadyExists", "hash collision: replica set %.*s belongs to another template",
				    STR_ARG(rs->metadata.name));
	}
	if (namespace_terminating(e))
		return e;
	struct core_v1_object_reference ref = object_reference(&apps_v1_deployments_resource, d);

	if (e) {
		struct str msg = arena_printf(a, "Failed to create new replica set \"%.*s\": %s", STR_ARG(rs->metadata.name),
					      error_message(e));

		struct error *e2 = note_progress(r, false, "False", "ReplicaSetCreateError", msg);

		error_free(e2); /* the creation's error is what counts */
		event_record(r->c->rec, &ref, "Warning", "ReplicaSetCreateError", "%.*s", STR_ARG(msg));
		return e;
	}
	rs = out;
	if (replicas > 0)
		event_record(r->c->rec, &ref, "Normal", "ScalingReplicaSet", "Scaled up replica set %.*s from 0 to %d",
			     STR_ARG(rs->metadata.name), replicas);
	r->new_ = rs;
	add_set(r, rs);
	bool moved = set_deployment_revision(r, str_map_get(API_MAP(&rs->metadata.annotations), STR(ANNOTATION_REVISION)));

	return note_progress(r, moved, "True", "NewReplicaSetCreated", arena_printf(a, "Created new replica set \"%.*s\"",
										    STR_ARG(rs->metadata.name)));
}

/* Finds (or with `create` makes) the ReplicaSet of the template; brings revisions up to date. */
static struct error *sync_revision(struct rollout *r, bool create)
{
	int64_t max_old = 0;

	r->new_ = NULL;
	for (size_t i = 0; i < r->n && !r->new_; i++)
		if (same_template(r->a, &r->all[i]->spec.template, &r->d->spec.template))
			r->new_ = r->all[i];
	for (size_t i = 0; i < r->n; i++)
		if (r->all[i] != r->new_ && revision_of(&r->all[i]->metadata) > max_old)
			max_old = revision_of(&r->all[i]->metadata);
	if (!r->new_)
		return create ? create_new(r, max_old + 1) : NULL;
	rs_t *copy = object_clone(r->a, &apps_v1_replica_set_type, r->new_);
	bool changed = set_new_annotations(r, copy, max_old + 1, true);

	if (copy->spec.min_ready_seconds != r->d->spec.min_ready_seconds) {
		copy->spec.min_ready_seconds = r->d->spec.min_ready_seconds;
		changed = true;
	}
	if (changed) {
		void *out;

		TRY(client_update(r->c->m->client, r->a, &apps_v1_replicasets_resource, r->d->metadata.namespace, NULL, copy, &out));
		*r->new_ = *(rs_t *)out;
	}
	bool moved = set_deployment_revision(r, str_map_get(API_MAP(&r->new_->metadata.annotations), STR(ANNOTATION_REVISION)));

	return note_progress(r, moved, "True", deployment_condition(&r->d->status, "Progressing") ? NULL : "FoundNewReplicaSet",
			     arena_printf(r->a, "Found new replica set \"%.*s\"", STR_ARG(r->new_->metadata.name)));
}

static int cmp_revision(const void *pa, const void *pb)
{
	const rs_t *x = *(rs_t *const *)pa, *y = *(rs_t *const *)pb;
	int64_t rx = revision_of(&x->metadata), ry = revision_of(&y->metadata);

	return rx == ry ? cmp_age(pa, pb) : rx < ry ? -1 : 1;
}

/* Old ReplicaSets beyond revisionHistoryLimit go. */
static struct error *cleanup(struct rollout *r)
{
	int32_t limit = i32_or(r->d->spec.revision_history_limit, 10);
	rs_t **old = arena_array(r->a, rs_t *, r->n + 1);
	size_t n = 0;

	if (limit == INT32_MAX)
		return NULL;
	for (size_t i = 0; i < r->n; i++)
		if (r->all[i] != r->new_ && !r->all[i]->metadata.deletion_timestamp)
			old[n++] = r->all[i];
	if (n <= (size_t)limit)
		return NULL;
	qsort(old, n, sizeof(*old), cmp_revision);
	for (size_t i = 0; i < n - (size_t)limit; i++) {
		if (old[i]->status.replicas || rs_replicas(old[i]) ||
		    old[i]->metadata.generation > old[i]->status.observed_generation)
			continue;
		struct error *e = client_delete(r->c->m->client, r->a, &apps_v1_replicasets_resource, r->d->metadata.namespace,
						old[i]->metadata.name, &(struct delete_opts){
							.grace_seconds = -1, .propagation = "Background", .uid = old[i]->metadata.uid});

		if (error_is(e, 404, NULL))
			error_clear(&e);
		TRY(e);
	}
	return NULL;
}

/* ---- status ---- */

static struct apps_v1_deployment_status calculate_status(struct rollout *r)
{
	struct apps_v1_deployment_status st = status_copy(r);
	int32_t total = 0, terminating = 0;
	bool known = true;

	st.observed_generation = r->d->metadata.generation;
	st.replicas = st.ready_replicas = st.available_replicas = 0;
	for (size_t i = 0; i < r->n; i++) {
		const rs_t *rs = r->all[i];

		total += rs_replicas(rs);
		st.replicas += rs->status.replicas;
		st.ready_replicas += rs->status.ready_replicas;
		st.available_replicas += rs->status.available_replicas;
		known &= rs->status.terminating_replicas != NULL;
		terminating += i32_or(rs->status.terminating_replicas, 0);
	}
	st.terminating_replicas = known ? new_i32(r->a, terminating) : NULL;
	st.updated_replicas = r->new_ ? r->new_->status.replicas : 0;
	st.unavailable_replicas = total > st.available_replicas ? total - st.available_replicas : 0;
	if (st.available_replicas >= d_replicas(r->d) - max_unavailable(r->d))
		deployment_set_condition(r->a, &st, "Available", "True", "MinimumReplicasAvailable",
					 STR("Deployment has minimum availability."));
	else
		deployment_set_condition(r->a, &st, "Available", "False", "MinimumReplicasUnavailable",
					 STR("Deployment does not have minimum availability."));
	return st;
}

static bool complete(const struct apps_v1_deployment *d, const struct apps_v1_deployment_status *st)
{
	return st->updated_replicas == d_replicas(d) && st->replicas == d_replicas(d) && st->available_replicas == d_replicas(d) &&
	       st->observed_generation >= d->metadata.generation;
}

static bool progressing(const struct apps_v1_deployment_status *old, const struct apps_v1_deployment_status *st)
{
	return st->updated_replicas > old->updated_replicas ||
	       st->replicas - st->updated_replicas < old->replicas - old->updated_replicas ||
	       st->ready_replicas > old->ready_replicas || st->available_replicas > old->available_replicas;
}

static bool timed_out(struct rollout *r, struct apps_v1_deployment_status *st)
{
	const struct apps_v1_deployment_condition *c = deployment_condition(st, "Progressing");

	if (!c || str_eqz(c->reason, "NewReplicaSetAvailable"))
		return false;
	if (str_eqz(c->reason, "ProgressDeadlineExceeded"))
		return true;
	return wall_ms() > time_ms(c->last_update_time) + *r->d->spec.progress_deadline_seconds * 1000LL;
}

static void note_replica_failure(struct rollout *r, struct apps_v1_deployment_status *st)
{
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < r->n; i++) {
			const rs_t *rs = r->all[i];

			if ((rs == r->new_) != (pass == 0)) /* the new one's failure says most */
				continue;
			for (uint32_t k = 0; k < rs->status.conditions.n; k++) {
				const struct apps_v1_replica_set_condition *c = &rs->status.conditions.v[k];

				if (!str_eqz(c->type, "ReplicaFailure"))
					continue;
				remove_condition(st, "ReplicaFailure");
				*arena_push(r->a, &st->conditions) = (struct apps_v1_deployment_condition){
					.type = c->type, .status = c->status, .reason = c->reason, .message = c->message,
					.last_update_time = c->last_transition_time,
					.last_transition_time = c->last_transition_time};
				return;
			}
		}
	remove_condition(st, "ReplicaFailure");
}

/* When to look again whether the rollout is stuck. */
static void requeue_stuck(struct rollout *r, struct apps_v1_deployment_status *st)
{
	const struct apps_v1_deployment_condition *c = deployment_condition(st, "Progressing");

	if (!has_deadline(r->d) || !c || complete(r->d, st) || str_eqz(c->reason, "ProgressDeadlineExceeded"))
		return;
	int64_t ms = time_ms(c->last_update_time) + *r->d->spec.progress_deadline_seconds * 1000LL - wall_ms();

	workqueue_add_after(r->c->q, r->key, ms < 0 ? 1000 : ms + 1000);
}

static struct error *sync_rollout_status(struct rollout *r)
{
	struct apps_v1_deployment_status st = calculate_status(r);
	struct arena *a = r->a;

	if (!has_deadline(r->d))
		remove_condition(&st, "Progressing");
	const struct apps_v1_deployment_condition *cur = deployment_condition(&r->d->status, "Progressing");
	bool was_complete = st.replicas == st.updated_replicas && cur && str_eqz(cur->reason, "NewReplicaSetAvailable");
	struct str what = r->new_ ? arena_printf(a, "ReplicaSet \"%.*s\"", STR_ARG(r->new_->metadata.name)) :
			  arena_printf(a, "Deployment \"%.*s\"", STR_ARG(r->d->metadata.name));

	if (has_deadline(r->d) && !was_complete) {
		if (complete(r->d, &st)) {
			deployment_set_condition(a, &st, "Progressing", "True", "NewReplicaSetAvailable",
						 arena_printf(a, "%.*s has successfully progressed.", STR_ARG(what)));
		} else if (progressing(&r->d->status, &st)) {
			struct apps_v1_deployment_condition c = {
				.type = STR("Progressing"), .status = STR("True"), .reason = STR("ReplicaSetUpdated"),
				.message = arena_printf(a, "%.*s is progressing.", STR_ARG(what)),
				.last_update_time = api_now(), .last_transition_time = api_now()};

			if (cur && str_eqz(cur->status, "True"))
				c.last_transition_time = cur->last_transition_time;
			remove_condition(&st, "Progressing"); /* the update time moves with each step */
			*arena_push(a, &st.conditions) = c;
		} else if (timed_out(r, &st)) {
			deployment_set_condition(a, &st, "Progressing", "False", "ProgressDeadlineExceeded",
						 arena_printf(a, "%.*s has timed out progressing.", STR_ARG(what)));
		}
	}
	note_replica_failure(r, &st);
	requeue_stuck(r, &st);
	if (SAME(apps_v1_deployment_status, &st, &r->d->status))
		return NULL;
	return update_status(r, &st);
}

/* Without judging progress: while paused, scaled or deleted. */
static struct error *sync_status_only(struct rollout *r)
{
	struct apps_v1_deployment_status st = calculate_status(r);

	if (SAME(apps_v1_deployment_status, &st, &r->d->status))
		return NULL;
	return update_status(r, &st);
}

static struct error *check_paused(struct rollout *r)
{
	const struct apps_v1_deployment_condition *c = deployment_condition(&r->d->status, "Progressing");

	if (!has_deadline(r->d) || (c && str_eqz(c->reason, "ProgressDeadlineExceeded")))
		return NULL;
	bool noted = c && str_eqz(c->reason, "DeploymentPaused");

	if (r->d->spec.paused && !noted)
		return note_progress(r, false, "Unknown", "DeploymentPaused", STR("Deployment is paused"));
	if (!r->d->spec.paused && noted)
		return note_progress(r, false, "Unknown", "DeploymentResumed", STR("Deployment is resumed"));
	return NULL;
}

/* ---- reconcile ---- */

static bool old_pods_running(struct rollout *r)
{
	for (size_t i = 0; i < r->n; i++) {
		void **pods;

		if (r->all[i] == r->new_)
			continue;
		size_t n = informer_list_owned(r->c->pods, r->a, r->all[i]->metadata.uid, &pods);

		for (size_t k = 0; k < n; k++)
			if (!pod_is_terminal(pods[k]))
				return true;
	}
	return false;
}

static struct error *sync_scale(struct rollout *r)
{
	TRY(sync_revision(r, false));
	TRY(scale_proportionally(r));
	if (r->d->spec.paused)
		TRY(cleanup(r));
	return sync_status_only(r);
}

static struct error *sync_recreate(struct rollout *r)
{
	bool changed;

	TRY(sync_revision(r, false));
	TRY(scale_down_for_recreate(r, &changed));
	if (changed || old_pods_running(r))
		return sync_rollout_status(r);
	if (!r->new_)
		TRY(sync_revision(r, true));
	TRY(scale_set(r, r->new_, d_replicas(r->d), &changed));
	struct apps_v1_deployment_status st = calculate_status(r);

	if (complete(r->d, &st))
		TRY(cleanup(r));
	return sync_rollout_status(r);
}

static struct error *sync_rolling(struct rollout *r)
{
	bool changed;

	TRY(sync_revision(r, true));
	TRY(rollout_rolling(r, &changed));
	if (!changed) {
		struct apps_v1_deployment_status st = calculate_status(r);

		if (complete(r->d, &st))
			TRY(cleanup(r));
	}
	return sync_rollout_status(r);
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct deployment_controller *c = ctx;
	struct apps_v1_deployment *d = informer_get(c->deployments, a, ns, name);
	const struct selector *selector;
	void **sets;

	if (!d)
		return NULL;
	struct rollout r = {.c = c, .a = a, .key = object_key(a, ns, name), .d = d};

	if (!d->spec.selector || (!d->spec.selector->match_labels.n && !d->spec.selector->match_expressions.n)) {
		struct core_v1_object_reference ref = object_reference(&apps_v1_deployments_resource, d);

		event_record(c->rec, &ref, "Warning", "SelectingAll",
			     "This deployment is selecting all pods. A non-empty selector is required.");
		if (d->status.observed_generation >= d->metadata.generation)
			return NULL;
		struct apps_v1_deployment_status st = status_copy(&r);

		st.observed_generation = d->metadata.generation;
		return update_status(&r, &st);
	}
	TRY(label_selector_from(a, d->spec.selector, &selector));
	TRY(claim_objects(&(struct claim){.m = c->m, .i = c->sets, .r = &apps_v1_replicasets_resource,
					  .owner = {&apps_v1_deployments_resource, &d->metadata}, .selector = selector},
			  a, &sets, &r.n));
	r.all = (rs_t **)(void *)sets;
	if (r.n)
		qsort(r.all, r.n, sizeof(*r.all), cmp_age);
	if (d->metadata.deletion_timestamp) {
		TRY(sync_revision(&r, false));
		return sync_status_only(&r);
	}
	TRY(check_paused(&r));
	struct error *e;

	if (d->spec.paused || is_scaling_event(&r))
		e = sync_scale(&r);
	else
		e = is_rolling(d) ? sync_rolling(&r) : sync_recreate(&r);
	if (namespace_terminating(e))
		error_clear(&e);
	return e;
}

/* ---- what happens ---- */

static void on_deployment(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct deployment_controller *c = ctx;
	const struct cached_object *o = new_ ? new_ : old;
	arena_cleanup struct arena a = {0};

	workqueue_add(c->q, object_key(&a, o->ns, o->name));
}

static void enqueue_owner(struct deployment_controller *c, const struct cached_object *rs)
{
	arena_cleanup struct arena a = {0};

	if (str_eqz(rs->controller_kind, "Deployment"))
		workqueue_add(c->q, object_key(&a, rs->ns, rs->controller_name));
}

struct orphan {
	struct deployment_controller *c;
	const struct cached_object *rs;
};

static bool enqueue_if_matches(void *ctx, const struct cached_object *o)
{
	struct orphan *w = ctx;
	arena_cleanup struct arena a = {0};
	struct apps_v1_deployment *d = cached_decode(w->c->deployments, &a, o);
	const struct selector *s = NULL;
	struct error *e = d ? label_selector_from(&a, d->spec.selector, &s) : NULL;

	if (d && !e && s && selector_matches(s, &w->rs->labels))
		workqueue_add(w->c->q, object_key(&a, o->ns, o->name));
	error_free(e);
	return true;
}

static void on_set(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct deployment_controller *c = ctx;
	const struct cached_object *o = new_ ? new_ : old;

	if (old && new_ && !str_eq(old->controller_uid, new_->controller_uid))
		enqueue_owner(c, old);
	enqueue_owner(c, o);
	if (new_ && str_empty(o->controller_uid) && !o->deleting && o->labels.n &&
	    (!old || !map_equal(&old->labels, &new_->labels) || !str_empty(old->controller_uid)))
		informer_each(c->deployments, o->ns, NULL, enqueue_if_matches, &(struct orphan){c, o});
}

/* Recreate waits for the last old pod to be gone. */
static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct deployment_controller *c = ctx;

	if (ev != INFORMER_DELETED || !str_eqz(old->controller_kind, "ReplicaSet"))
		return;
	const struct cached_object *rs = informer_peek(c->sets, old->ns, old->controller_name);

	if (rs && str_eq(rs->uid, old->controller_uid))
		enqueue_owner(c, rs);
}

void deployment_start(struct manager *m)
{
	struct deployment_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("deployment");
	c->rec = event_recorder_new(m->client, "deployment-controller", "");
	c->deployments = manager_informer(m, &apps_v1_deployments_resource);
	c->sets = manager_informer(m, &apps_v1_replicasets_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	informer_on_event(c->deployments, on_deployment, c);
	informer_on_event(c->sets, on_set, c);
	informer_on_event(c->pods, on_pod, c);
	controller_run(m, c->q, "deployment", 5, reconcile, c, c->deployments, c->sets, c->pods, NULL);
}
