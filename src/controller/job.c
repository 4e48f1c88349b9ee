/*
 * controller/job.c: runs pods to completion. Every ended pod is counted exactly once: its uid is noted in the status before its
 * finalizer goes, and counted after (KEP-2307). What single pods mean is job_pods.c's.
 */
#include "controller/job.h"

#include <stdlib.h>

#define BURST 500         /* pods made or deleted in one go */
#define MAX_UNCOUNTED 500 /* uids in the status */

struct backoff { /* of a job: lost with the process, as upstream's */
	int32_t failures;  /* since the last success */
	int64_t last_ms;
};

struct job_controller {
	struct manager *m;
	struct informer *jobs, *pods;
	struct workqueue *q;
	struct event_recorder *rec;
	struct expectations x;
	struct pod_watch watch;
	struct map written;  /* key -> resourceVersion (+1) of the status we wrote last, until the informer has it */
	struct map released; /* uids of pods whose finalizer we took, until the informer shows it */
	struct map backoffs; /* key -> struct backoff */
};

struct verdict { /* how the job ends; type NULL: not yet */
	const char *type;
	struct str reason, message;
};

struct delayed { /* a failed pod that stays until its replacement knows how often the index failed */
	int32_t index;
	pod_t *p;
};

struct run { /* one reconcile */
	struct job_controller *c;
	struct arena *a;
	struct str key;
	job_t *j;
	pod_t **pods, **active;
	size_t n, n_active;
	int32_t live, ready, terminating; /* active pods, ... of what this round leaves */
	int64_t succeeded, failed;       /* with those not counted yet */
	bool indexed, per_index;
	int32_t completions;             /* of an indexed job */
	struct indexes counted, done, failed_indexes; /* done: counted and new */
	struct delayed *delayed;
	size_t n_delayed;
	struct backoff backoff;
	struct verdict end;
};

/* ---- conditions ---- */

static struct batch_v1_job_condition *condition(struct batch_v1_job_status *st, const char *type)
{
	for (uint32_t i = 0; i < st->conditions.n; i++)
		if (str_eqz(st->conditions.v[i].type, type))
			return &st->conditions.v[i];
	return NULL;
}

static struct batch_v1_job_condition *true_condition(struct batch_v1_job_status *st, const char *type)
{
	struct batch_v1_job_condition *c = condition(st, type);

	return c && str_eqz(c->status, "True") ? c : NULL;
}

static void set_condition(struct run *r, const char *type, const char *status, struct str reason, struct str message)
{
	struct batch_v1_job_condition *c = condition(&r->j->status, type);

	if (!c)
		c = arena_push(r->a, &r->j->status.conditions);
	*c = (struct batch_v1_job_condition){.type = str_from(type), .status = str_from(status), .reason = reason, .message = message,
		.last_probe_time = api_now(), .last_transition_time = api_now()};
}

static bool is_suspended(const job_t *j)
{
	return is_true(j->spec.suspend);
}

static void event(struct run *r, const char *type, struct str reason, struct str message)
{
	struct core_v1_object_reference ref = object_reference(&batch_v1_jobs_resource, r->j);

	event_record(r->c->rec, &ref, type, arena_strz(r->a, reason), "%.*s", STR_ARG(message));
}

/* ---- what the pods say ---- */

static bool has_uid(const struct str *v, uint32_t n, struct str uid)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eq(v[i], uid))
			return true;
	return false;
}

/* Not counted yet, as far as we know. */
static bool is_open(const struct run *r, const pod_t *p)
{
	return job_pod_tracked(p) && !map_has(&r->c->released, p->metadata.uid);
}

static bool index_valid(const struct run *r, int32_t index)
{
	return index >= 0 && index < r->completions;
}

static void count_active(struct run *r)
{
	r->active = arena_array(r->a, pod_t *, r->n + 1);
	for (size_t i = 0; i < r->n; i++) {
		pod_t *p = r->pods[i];

		if (pod_is_active(p)) {
			r->active[r->n_active++] = p;
			r->ready += pod_is_ready(p);
		} else if (p->metadata.deletion_timestamp && !pod_is_terminal(p)) {
			r->terminating++;
		}
	}
	r->live = (int32_t)r->n_active;
}

/* Newly ended pods: how many, and how long to wait before the next ones. */
static void count_new(struct run *r)
{
	const struct batch_v1_uncounted_terminated_pods *u = r->j->status.uncounted_terminated_pods;
	const struct backoff *old = map_get(&r->c->backoffs, r->key);
	int64_t last_ok = -1;
	int32_t ok = 0, bad = 0, ignored = 0;

	r->backoff = old ? *old : (struct backoff){0};
	for (size_t i = 0; i < r->n; i++) {
		const pod_t *p = r->pods[i];

		if (!is_open(r, p) || !str_eqz(p->status.phase, "Succeeded") || has_uid(u->succeeded.v, u->succeeded.n, p->metadata.uid) ||
		    (r->indexed && !index_valid(r, job_pod_index(p))))
			continue;
		ok++;
		if (job_pod_finished_ms(p) > last_ok)
			last_ok = job_pod_finished_ms(p);
	}
	if (ok)
		r->backoff = (struct backoff){0};
	for (size_t i = 0; i < r->n; i++) {
		const pod_t *p = r->pods[i];

		if (!is_open(r, p) || !job_pod_failed(r->j, p) || has_uid(u->failed.v, u->failed.n, p->metadata.uid) ||
		    (r->indexed && !index_valid(r, job_pod_index(p))))
			continue;
		bad++;
		ignored += job_failure_action(r->a, r->j, p, NULL) == FAILURE_IGNORE;
		int64_t at = job_pod_finished_ms(p);

		if (at <= last_ok)
			continue;
		r->backoff.failures++;
		if (at > r->backoff.last_ms)
			r->backoff.last_ms = at;
	}
	r->succeeded = (int64_t)r->j->status.succeeded + ok + u->succeeded.n;
	r->failed = (int64_t)r->j->status.failed + bad - ignored + u->failed.n;
}

/* Indexes of the pods for which `which` is true, in an arena array. */
static size_t indexes_of(struct run *r, bool (*which)(const struct run *r, const pod_t *p), int32_t **out)
{
	size_t n = 0;

	*out = arena_array(r->a, int32_t, r->n + 1);
	for (size_t i = 0; i < r->n; i++) {
		int32_t index = job_pod_index(r->pods[i]);

		if (index_valid(r, index) && which(r, r->pods[i]))
			(*out)[n++] = index;
	}
	return n;
}

static bool newly_succeeded(const struct run *r, const pod_t *p)
{
	return str_eqz(p->status.phase, "Succeeded") && job_pod_tracked(p);
}

static bool newly_failed_index(const struct run *r, const pod_t *p)
{
	return job_pod_tracked(p) && job_index_failed(r->a, r->j, p);
}

static bool is_active_pod(const struct run *r, const pod_t *p)
{
	return pod_is_active(p);
}

static bool is_busy_pod(const struct run *r, const pod_t *p)
{
	return !pod_is_terminal(p);
}

static int cmp_delayed(const void *pa, const void *pb)
{
	int32_t x = ((const struct delayed *)pa)->index, y = ((const struct delayed *)pb)->index;

	return x == y ? 0 : x < y ? -1 : 1;
}

static const pod_t *delayed_pod(const struct run *r, int32_t index)
{
	const struct delayed *d = r->n_delayed ? bsearch(&(struct delayed){.index = index}, r->delayed, r->n_delayed, sizeof(*r->delayed),
							 cmp_delayed) : NULL;

	return d ? d->p : NULL;
}

/* Per index the last failed pod, where no other pod runs for it and it is not decided. */
static void find_delayed(struct run *r)
{
	int32_t *v;
	uint32_t n_active = indexes_of(r, is_active_pod, &v);
	struct indexes none = {0}, active = indexes_with(r->a, &none, v, n_active);
	size_t n = 0, k = 0;

	r->delayed = arena_array(r->a, struct delayed, r->n + 1);
	for (size_t i = 0; i < r->n; i++) {
		int32_t index = job_pod_index(r->pods[i]);

		if (is_open(r, r->pods[i]) && index_valid(r, index) && job_pod_failed(r->j, r->pods[i]) && !indexes_have(&r->done, index) &&
		    !indexes_have(&r->failed_indexes, index) && !indexes_have(&active, index))
			r->delayed[n++] = (struct delayed){index, r->pods[i]};
	}
	qsort(r->delayed, n, sizeof(*r->delayed), cmp_delayed);
	for (size_t i = 0; i < n; i++) {
		struct delayed *last = k ? &r->delayed[k - 1] : NULL, *d = &r->delayed[i];

		if (!last || last->index != d->index)
			r->delayed[k++] = *d;
		else if (job_pod_failures(last->p) + job_pod_ignored_failures(last->p) <=
				 job_pod_failures(d->p) + job_pod_ignored_failures(d->p) &&
			 job_pod_finished_ms(d->p) >= job_pod_finished_ms(last->p))
			*last = *d;
	}
	r->n_delayed = k;
}

/* ---- the verdict ---- */

static void end_with(struct run *r, const char *type, const char *reason, struct str message)
{
	r->end = (struct verdict){type, str_from(reason), message};
}

static void fail(struct run *r, const char *reason, const char *message)
{
	end_with(r, "FailureTarget", reason, str_from(message));
}

static bool restarted_too_often(const struct run *r)
{
	int32_t limit = i32_or(r->j->spec.backoff_limit, 6);
	int64_t restarts = 0;

	if (!str_eqz(r->j->spec.template.spec.restart_policy, "OnFailure"))
		return false;
	for (size_t i = 0; i < r->n; i++) {
		const pod_t *p = r->pods[i];

		if (!str_eqz(p->status.phase, "Running") && !str_eqz(p->status.phase, "Pending"))
			continue;
		for (uint32_t k = 0; k < p->status.container_statuses.n; k++)
			restarts += p->status.container_statuses.v[k].restart_count;
		for (uint32_t k = 0; k < p->status.init_container_statuses.n; k++)
			restarts += p->status.init_container_statuses.v[k].restart_count;
	}
	return limit ? restarts >= limit : restarts > 0;
}

/* What earlier rounds decided stands; then what makes the job fail; then what makes it succeed. */
static void judge_failures(struct run *r)
{
	const struct batch_v1_job_spec *s = &r->j->spec;
	const struct batch_v1_job_condition *c;
	struct str message;

	if ((c = true_condition(&r->j->status, "SuccessCriteriaMet"))) {
		r->end = (struct verdict){"SuccessCriteriaMet", c->reason, c->message};
		return;
	}
	if ((c = true_condition(&r->j->status, "FailureTarget"))) {
		r->end = (struct verdict){"Failed", c->reason, c->message};
		return;
	}
	for (size_t i = 0; s->pod_failure_policy && i < r->n; i++)
		if (job_pod_failed(r->j, r->pods[i]) && job_failure_action(r->a, r->j, r->pods[i], &message) == FAILURE_FAIL_JOB) {
			end_with(r, "FailureTarget", "PodFailurePolicy", message);
			return;
		}
	if (r->failed > i32_or(s->backoff_limit, 6) || restarted_too_often(r)) {
		fail(r, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
		return;
	}
	if (!s->active_deadline_seconds || !r->j->status.start_time || is_suspended(r->j))
		return;
	int64_t left = time_ms(*r->j->status.start_time) + *s->active_deadline_seconds * 1000 - wall_ms();

	if (left <= 0)
		fail(r, "DeadlineExceeded", "Job was active longer than specified deadline");
	else
		workqueue_add_after(r->c->q, r->key, left + 1);
}

static void judge_indexes(struct run *r)
{
	const struct batch_v1_job_spec *s = &r->j->spec;
	struct str message;
	int32_t *v;
	size_t n;

	r->counted = indexes_parse(r->a, r->j->status.completed_indexes, r->completions);
	n = indexes_of(r, newly_succeeded, &v);
	r->done = indexes_with(r->a, &r->counted, v, n);
	r->succeeded = indexes_count(&r->done);
	if (r->per_index) {
		struct indexes old = indexes_parse(r->a, r->j->status.failed_indexes ? *r->j->status.failed_indexes : STR_NULL, r->completions);

		n = indexes_of(r, newly_failed_index, &v);
		r->failed_indexes = indexes_with(r->a, &old, v, n);
		int32_t bad = indexes_count(&r->failed_indexes);

		if (!r->end.type && s->max_failed_indexes && bad > *s->max_failed_indexes)
			fail(r, "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
		else if (!r->end.type && bad && bad + r->succeeded >= r->completions)
			fail(r, "FailedIndexes", "Job has failed indexes");
		find_delayed(r);
	}
	if (!r->end.type && job_success_policy(r->a, r->j, &r->done, &message))
		end_with(r, "SuccessCriteriaMet", "SuccessPolicy", message);
}

/* ---- pods ---- */

struct work {
	struct run *r;
	struct owner owner;
	const int32_t *indexes;
	pod_t **doomed;
	bool *deleted;
	size_t tried;
};

static struct work work_of(struct run *r)
{
	return (struct work){.r = r, .owner = {&batch_v1_jobs_resource, &r->j->metadata}};
}

/* A conflict (another pod of that name) and 404 are success: there is nothing left to release, and the informer will show it. */
static struct error *release_pod(struct job_controller *c, struct arena *a, const pod_t *p)
{
	map_set(&c->released, p->metadata.uid, c);
	struct error *e = client_patch(c->m->client, a, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name, NULL, PATCH_STRATEGIC,
		arena_printf(a, "{\"metadata\":{\"uid\":\"%.*s\",\"$deleteFromPrimitiveList/finalizers\":[\"" JOB_TRACKING "\"]}}",
			     STR_ARG(p->metadata.uid)), NULL, false, NULL);

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	if (e)
		map_del(&c->released, p->metadata.uid);
	return e;
}

static struct error *create_one(void *ctx, struct arena *a, size_t i)
{
	struct work *w = ctx;
	struct run *r = w->r;
	int32_t index = w->indexes ? w->indexes[i] : -1;

	w->tried++;
	struct error *e = pod_create(r->c->m, a, r->c->rec, &w->owner, job_new_pod(a, r->j, index, delayed_pod(r, index)), NULL);

	if (e)
		creation_observed(&r->c->x, r->key);
	return e;
}

static struct error *delete_one(void *ctx, struct arena *a, size_t i)
{
	struct work *w = ctx;
	struct error *e = pod_delete(w->r->c->m, a, w->r->c->rec, &w->owner, w->doomed[i]);

	w->deleted[i] = !e;
	return e;
}

/* A pod that is not wanted any more: it counts neither way. */
static struct error *drop_one(void *ctx, struct arena *a, size_t i)
{
	struct work *w = ctx;
	const pod_t *p = w->doomed[i];
	struct error *e = job_pod_tracked(p) ? release_pod(w->r->c, a, p) : NULL;

	if (!e)
		e = pod_delete(w->r->c->m, a, w->r->c->rec, &w->owner, p);
	if (e)
		deletion_observed(&w->r->c->x, w->r->key, p->metadata.uid);
	w->deleted[i] = !e;
	return e;
}

static void note_deleted(struct run *r, const struct work *w, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!w->deleted[i])
			continue;
		r->live--;
		r->terminating++;
		r->ready -= pod_is_ready(w->doomed[i]);
	}
}

static struct error *drop_pods(struct run *r, pod_t **v, size_t n)
{
	struct work w = work_of(r);

	w.doomed = v;
	w.deleted = arena_array(r->a, bool, n + 1);
	expect_deletions(&r->c->x, r->key, r->c->pods, v, n);
	struct error *e = fan_out(n, drop_one, &w);

	note_deleted(r, &w, n);
	return e;
}

/* All active pods go, because the job has ended. True when none is left. */
static struct error *delete_active(struct run *r, bool *all)
{
	struct work w = work_of(r);

	w.doomed = r->active;
	w.deleted = arena_array(r->a, bool, r->n_active + 1);
	struct error *e = fan_out(r->n_active, delete_one, &w);

	note_deleted(r, &w, r->n_active);
	*all = !r->live;
	return e;
}

static int cmp_index(const void *pa, const void *pb)
{
	int32_t x = job_pod_index(*(pod_t *const *)pa), y = job_pod_index(*(pod_t *const *)pb);

	return x == y ? 0 : x < y ? -1 : 1;
}

/* Active pods that must go: those without a valid index or of an index that has others, then the least useful, at_least of them. */
static size_t surplus(struct run *r, size_t at_least, pod_t ***out)
{
	pod_t **rm = arena_array(r->a, pod_t *, r->n_active + 1), **left = arena_array(r->a, pod_t *, r->n_active + 1);
	size_t n = 0, n_left = 0;

	memcpy(left, r->active, r->n_active * sizeof(*left));
	if (r->indexed && r->n_active) {
		pod_t **v = arena_array(r->a, pod_t *, r->n_active);

		memcpy(v, left, r->n_active * sizeof(*v));
		qsort(v, r->n_active, sizeof(*v), cmp_index);
		for (size_t i = 0, k; i < r->n_active; i = k) {
			int32_t index = job_pod_index(v[i]);

			for (k = i + 1; k < r->n_active && job_pod_index(v[k]) == index; k++)
				;
			pods_sort_for_deletion(v + i, k - i, NULL);
			for (size_t m = i; m < k; m++)
				if (index_valid(r, index) && m == k - 1)
					left[n_left++] = v[m];
				else
					rm[n++] = v[m];
		}
	} else {
		n_left = r->n_active;
	}
	if (n < at_least) {
		pods_sort_for_deletion(left, n_left, NULL);
		for (size_t i = 0; i < n_left && n < at_least; i++)
			rm[n++] = left[i];
	}
	*out = rm;
	return n;
}

/* The first `want` indexes that nobody works on and that are not decided. */
static int32_t pending_indexes(struct run *r, int32_t want, int32_t *out)
{
	int32_t *v, n = 0, next = 0;
	size_t k = indexes_of(r, job_replaces_failed_only(r->j) ? is_busy_pod : is_active_pod, &v);
	struct indexes taken = indexes_with(r->a, &r->done, v, k);

	taken = indexes_merge(r->a, &taken, &r->failed_indexes);
	for (uint32_t i = 0; i <= taken.n && n < want; i++) {
		int32_t end = i < taken.n ? taken.v[i].first : r->completions;

		for (; next < end && next < r->completions && n < want; next++)
			out[n++] = next;
		if (i < taken.n && next <= taken.v[i].last)
			next = taken.v[i].last + 1;
	}
	return n;
}

/* Of indexes that may be tried now; when there is none, *wait says for how long. */
static int32_t due_indexes(struct run *r, int32_t *v, int32_t n, int64_t *wait)
{
	int64_t first = 0;
	int32_t k = 0;

	for (int32_t i = 0; i < n; i++) {
		const pod_t *last = delayed_pod(r, v[i]);
		int64_t left = last ? job_backoff_ms(job_pod_failures(last) + job_pod_ignored_failures(last) + 1, job_pod_finished_ms(last)) : 0;

		if (!left)
			v[k++] = v[i];
		else if (!first || left < first)
			first = left;
	}
	*wait = k ? 0 : first;
	return k;
}

static struct error *make_pods(struct run *r, int32_t n)
{
	struct work w = work_of(r);
	int64_t wait = r->per_index ? 0 : job_backoff_ms(r->backoff.failures, r->backoff.last_ms);
	size_t done;

	if (!wait && r->indexed) {
		int32_t *indexes = arena_array(r->a, int32_t, (size_t)n + 1);

		n = pending_indexes(r, n > BURST ? BURST : n, indexes);
		if (r->per_index)
			n = due_indexes(r, indexes, n, &wait);
		w.indexes = indexes;
	}
	if (wait) {
		workqueue_add_after(r->c->q, r->key, wait + 1);
		return NULL;
	}
	if (n > BURST)
		n = BURST;
	if (n <= 0)
		return NULL;
	expect_creations(&r->c->x, r->key, n);
	struct error *e = slow_start((size_t)n, create_one, &w, &done);

	for (size_t i = w.tried; i < (size_t)n; i++)
		creation_observed(&r->c->x, r->key); /* slow start ended early: these will not come */
	r->live += (int32_t)done;
	return e;
}

static struct error *manage(struct run *r)
{
	int32_t parallelism = i32_or(r->j->spec.parallelism, 1), want = parallelism;
	pod_t **rm;

	if (is_suspended(r->j)) {
		size_t n = surplus(r, r->n_active, &rm);

		return drop_pods(r, rm, n);
	}
	if (r->j->spec.completions) {
		int64_t left = *r->j->spec.completions - r->succeeded;

		want = left < 0 ? 0 : left < parallelism ? (int32_t)left : parallelism;
	} else if (r->succeeded) {
		want = r->live; /* a work queue: once one has succeeded no more are started */
	}
	size_t n = surplus(r, r->live > want ? (size_t)(r->live - want) : 0, &rm);

	if (n)
		return drop_pods(r, rm, n > BURST ? BURST : n);
	int64_t diff = (int64_t)want - r->live - (job_replaces_failed_only(r->j) ? r->terminating : 0);

	return diff > 0 ? make_pods(r, (int32_t)diff) : NULL;
}

/* ---- status ---- */

static struct error *write_status(struct run *r)
{
	void *out;
	uint64_t version;

	TRY(client_update(r->c->m->client, r->a, &batch_v1_jobs_resource, r->j->metadata.namespace, "status", r->j, &out));
	r->j = out;
	if (!r->j->status.uncounted_terminated_pods)
		r->j->status.uncounted_terminated_pods = arena_new(r->a, struct batch_v1_uncounted_terminated_pods);
	if (str_to_u64(r->j->metadata.resource_version, &version))
		map_set(&r->c->written, r->key, (void *)(uintptr_t)(version + 1));
	return NULL;
}

static void keep_backoff(struct run *r)
{
	struct backoff *b = map_get(&r->c->backoffs, r->key);

	if (!b) {
		if (!r->backoff.failures)
			return;
		b = xcalloc(1, sizeof(*b));
		map_set(&r->c->backoffs, r->key, b);
	}
	*b = r->backoff;
}

static void forget(struct job_controller *c, struct str key)
{
	expectations_forget(&c->x, key);
	map_del(&c->written, key);
	free(map_del(&c->backoffs, key));
}

/* Noted uids whose pod has no finalizer any more are counted. True when there were some. */
static bool settle(struct run *r, const struct map *open)
{
	struct batch_v1_uncounted_terminated_pods *u = r->j->status.uncounted_terminated_pods;
	uint32_t ok = 0, bad = 0, old = u->succeeded.n + u->failed.n;

	for (uint32_t i = 0; i < u->succeeded.n; i++)
		if (map_has(open, u->succeeded.v[i]))
			u->succeeded.v[ok++] = u->succeeded.v[i];
	for (uint32_t i = 0; i < u->failed.n; i++)
		if (map_has(open, u->failed.v[i]))
			u->failed.v[bad++] = u->failed.v[i];
	r->j->status.succeeded += (int32_t)(u->succeeded.n - ok);
	r->j->status.failed += (int32_t)(u->failed.n - bad);
	u->succeeded.n = ok;
	u->failed.n = bad;
	return ok + bad != old;
}

static bool may_release(struct run *r, const pod_t *p, bool failed)
{
	if (r->j->metadata.deletion_timestamp || r->end.type || str_eqz(p->status.phase, "Succeeded"))
		return true;
	if (!failed)
		return false;
	return !r->per_index || delayed_pod(r, job_pod_index(p)) != p;
}

struct release {
	struct run *r;
	pod_t **v;
	bool *done;
};

static struct error *release_one(void *ctx, struct arena *a, size_t i)
{
	struct release *w = ctx;
	struct error *e = release_pod(w->r->c, a, w->v[i]);

	w->done[i] = !e;
	return e;
}

struct notes { /* what a round notes in the status */
	pod_t **release;
	size_t n;
	int32_t *indexes;
	size_t n_indexes;
	bool changed, full;
};

/* Notes each ended pod; those noted lose their finalizer afterwards. */
static void note_pods(struct run *r, struct notes *k)
{
	struct batch_v1_uncounted_terminated_pods *u = r->j->status.uncounted_terminated_pods;

	k->release = arena_array(r->a, pod_t *, r->n + 1);
	k->indexes = arena_array(r->a, int32_t, r->n + 1);
	for (size_t i = 0; i < r->n && !k->full; i++) {
		pod_t *p = r->pods[i];
		bool failed = job_pod_failed(r->j, p);
		int32_t index = job_pod_index(p);

		if (!is_open(r, p) || !may_release(r, p, failed))
			continue;
		k->release[k->n++] = p;
		bool noted_bad = has_uid(u->failed.v, u->failed.n, p->metadata.uid);

		if (str_eqz(p->status.phase, "Succeeded") && !noted_bad) {
			if (r->indexed && index_valid(r, index) && !indexes_have(&r->counted, index)) {
				k->indexes[k->n_indexes++] = index; /* an index is counted once: no uid is needed */
				k->changed = true;
			} else if (!r->indexed && !has_uid(u->succeeded.v, u->succeeded.n, p->metadata.uid)) {
				*arena_push(r->a, &u->succeeded) = p->metadata.uid;
				k->changed = true;
			}
		} else if (!noted_bad && (failed || (r->end.type && strcmp(r->end.type, "SuccessCriteriaMet"))) &&
			   (!r->indexed || index_valid(r, index)) && job_failure_action(r->a, r->j, p, NULL) != FAILURE_IGNORE) {
			*arena_push(r->a, &u->failed) = p->metadata.uid;
			k->changed = true;
		}
		k->full = k->n_indexes + u->succeeded.n + u->failed.n >= MAX_UNCOUNTED;
	}
}

static bool same_str(const struct str *x, const struct str *y)
{
	return x && y ? str_eq(*x, *y) : x == y;
}

static bool note_indexes(struct run *r, struct notes *k)
{
	struct batch_v1_job_status *st = &r->j->status;
	bool changed = false;

	/* With those of this round only: of a burst, the rest is noted in the next. */
	r->done = indexes_with(r->a, &r->counted, k->indexes, k->n_indexes);
	struct str text = indexes_format(r->a, &r->done);

	changed |= !str_eq(text, st->completed_indexes);
	st->completed_indexes = text;
	st->succeeded = indexes_count(&r->done);
	if (r->per_index) {
		struct str *bad = new_str(r->a, indexes_format(r->a, &r->failed_indexes));

		changed |= !same_str(bad, st->failed_indexes);
		st->failed_indexes = bad;
	}
	return changed;
}

/* The interim condition is written before finalizers go, the final one after. */
static bool note_verdict(struct run *r)
{
	bool failing = !strcmp(r->end.type, "FailureTarget"), met = !strcmp(r->end.type, "SuccessCriteriaMet"), changed = false;

	if (failing || (met && !true_condition(&r->j->status, "SuccessCriteriaMet"))) {
		set_condition(r, r->end.type, "True", r->end.reason, r->end.message);
		changed = true;
	}
	if (failing || met)
		r->end.type = failing ? "Failed" : "Complete";
	return changed;
}

static bool finish(struct run *r)
{
	const struct batch_v1_uncounted_terminated_pods *u = r->j->status.uncounted_terminated_pods;

	if (!r->end.type || u->succeeded.n || u->failed.n || r->terminating > 0)
		return false;
	set_condition(r, r->end.type, "True", r->end.reason, r->end.message);
	if (!strcmp(r->end.type, "Complete")) {
		r->j->status.completion_time = arena_new(r->a, struct api_time);
		*r->j->status.completion_time = api_now();
	}
	return true;
}

static void tell_finished(struct run *r)
{
	const job_t *j = r->j;

	if (strcmp(r->end.type, "Complete")) {
		event(r, "Warning", r->end.reason, r->end.message);
		return;
	}
	if (j->spec.completions && j->status.succeeded > *j->spec.completions)
		event(r, "Warning", STR("TooManySucceededPods"), STR("Too many succeeded pods running after completion count reached"));
	event(r, "Normal", STR("Completed"), STR("Job completed"));
}

static struct error *track_with(struct run *r, struct map *open, bool changed)
{
	struct notes k = {0};

	for (size_t i = 0; i < r->n; i++)
		if (is_open(r, r->pods[i]))
			map_set(open, r->pods[i]->metadata.uid, r);
	changed |= settle(r, open);
	note_pods(r, &k);
	changed |= k.changed;
	if (r->indexed)
		changed |= note_indexes(r, &k);
	if (r->end.type)
		changed |= note_verdict(r);
	if (changed) {
		TRY(write_status(r));
		keep_backoff(r);
	}
	struct release w = {.r = r, .v = k.release, .done = arena_array(r->a, bool, k.n + 1)};
	struct error *e = fan_out(k.n, release_one, &w);

	for (size_t i = 0; i < k.n; i++)
		if (w.done[i])
			map_del(open, k.release[i]->metadata.uid);
	changed = settle(r, open);
	bool finished = !e && !k.full && finish(r);

	if (changed || finished) {
		struct error *e2 = write_status(r);

		if (!e2 && finished)
			tell_finished(r);
		if (!e)
			return e2;
		error_free(e2);
	}
	return e;
}

static struct error *track(struct run *r, bool changed)
{
	struct map open = {0};
	struct error *e = track_with(r, &open, changed);

	map_free(&open);
	return e;
}

/* ---- reconcile ---- */

/* True when the status says something new. */
static bool note_suspension(struct run *r)
{
	const struct batch_v1_job_condition *c = condition(&r->j->status, "Suspended");

	if (is_suspended(r->j)) {
		if (c && str_eqz(c->status, "True"))
			return false;
		set_condition(r, "Suspended", "True", STR("JobSuspended"), STR("Job suspended"));
		event(r, "Normal", STR("Suspended"), STR("Job suspended"));
		r->j->status.start_time = NULL;
		return true;
	}
	if (!c || str_eqz(c->status, "False"))
		return false;
	set_condition(r, "Suspended", "False", STR("JobResumed"), STR("Job resumed"));
	event(r, "Normal", STR("Resumed"), STR("Job resumed"));
	r->j->status.start_time = arena_new(r->a, struct api_time);
	*r->j->status.start_time = api_now(); /* the deadline counts the time it runs */
	return true;
}

static struct error *sync(struct run *r, bool satisfied)
{
	const struct batch_v1_job_spec *s = &r->j->spec;
	struct batch_v1_job_status *st = &r->j->status;
	struct error *e = NULL;
	bool changed = false;

	r->indexed = s->completion_mode && str_eqz(*s->completion_mode, "Indexed") && s->completions;
	r->completions = r->indexed ? *s->completions : 0;
	r->per_index = r->indexed && s->backoff_limit_per_index;
	if (!st->uncounted_terminated_pods)
		st->uncounted_terminated_pods = arena_new(r->a, struct batch_v1_uncounted_terminated_pods);
	count_active(r);
	count_new(r);
	if (!st->start_time && !is_suspended(r->j)) {
		st->start_time = arena_new(r->a, struct api_time);
		*st->start_time = api_now();
	}
	judge_failures(r);
	if (r->indexed)
		judge_indexes(r);
	if (r->end.type) {
		bool all;

		e = delete_active(r, &all);
		if (!all || !satisfied)
			r->end.type = NULL; /* not yet: pods are left, or on their way */
	} else {
		bool managed = satisfied && !r->j->metadata.deletion_timestamp;

		if (managed)
			e = manage(r);
		if (s->completions ? r->succeeded >= *s->completions && !r->live : r->succeeded > 0 && !r->live)
			end_with(r, "SuccessCriteriaMet", "CompletionsReached", STR("Reached expected number of succeeded pods"));
		else if (managed)
			changed = note_suspension(r);
	}
	changed |= r->live != st->active || !st->ready || *st->ready != r->ready || !st->terminating || *st->terminating != r->terminating;
	st->active = r->live;
	st->ready = new_i32(r->a, r->ready);
	st->terminating = new_i32(r->a, r->terminating);
	if (namespace_terminating(e))
		error_clear(&e);
	struct error *e2 = track(r, changed);

	if (e) {
		error_free(e2);
		return e;
	}
	return e2 ? error_wrap(e2, "tracking status") : NULL;
}

static bool managed_elsewhere(const job_t *j)
{
	return j->spec.managed_by && !str_eqz(*j->spec.managed_by, "kubernetes.io/job-controller");
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct job_controller *c = ctx;
	struct run r = {.c = c, .a = a, .key = object_key(a, ns, name)};
	const struct selector *selector;
	void **pods;

	r.j = informer_get(c->jobs, a, ns, name);
	if (!r.j) {
		forget(c, r.key);
		return NULL;
	}
	/* With an older status than our own, pods already counted would be missed, and made again. */
	uint64_t seen, written = (uint64_t)(uintptr_t)map_get(&c->written, r.key);

	if (written && str_to_u64(r.j->metadata.resource_version, &seen) && seen + 1 < written)
		return NULL; /* its event comes back here */
	map_del(&c->written, r.key);
	if (managed_elsewhere(r.j))
		return NULL;
	if (r.j->spec.completion_mode && !str_eqz(*r.j->spec.completion_mode, "NonIndexed") && !str_eqz(*r.j->spec.completion_mode, "Indexed")) {
		event(&r, "Warning", STR("UnknownCompletionMode"), STR("Skipped Job sync because completion mode is unknown"));
		return NULL;
	}
	bool satisfied = expectations_met(&c->x, r.key);

	TRY(label_selector_from(a, r.j->spec.selector, &selector));
	TRY(claim_objects(&(struct claim){.m = c->m, .i = c->pods, .r = &core_v1_pods_resource,
					  .owner = {&batch_v1_jobs_resource, &r.j->metadata}, .selector = selector, .finalizer = JOB_TRACKING},
			  a, &pods, &r.n));
	r.pods = (pod_t **)(void *)pods;
	if (true_condition(&r.j->status, "Complete") || true_condition(&r.j->status, "Failed")) {
		free(map_del(&c->backoffs, r.key));
		/* A pod that was adopted after the end. */
		for (size_t i = 0; i < r.n; i++)
			if (is_open(&r, r.pods[i]))
				TRY(release_pod(c, a, r.pods[i]));
		return NULL;
	}
	return sync(&r, satisfied);
}

/* ---- what happens ---- */

static bool queue_left(void *ctx, const struct cached_object *o)
{
	struct job_controller *c = ctx;
	arena_cleanup struct arena a = {0};

	workqueue_add(c->q, arena_printf(&a, "%.*s//%.*s", STR_ARG(o->ns), STR_ARG(o->name)));
	return true;
}

static void on_job(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct job_controller *c = ctx;

	if (ev == INFORMER_DELETED)
		informer_each_owned(c->pods, old->uid, queue_left, c); /* its pods must not keep our finalizer */
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct job_controller *c = ctx;
	arena_cleanup struct arena a = {0};
	const struct cached_object *gone = old && (!new_ || !str_eq(old->uid, new_->uid)) ? old : NULL;

	if (gone)
		map_del(&c->released, gone->uid);
	else if (c->released.n && map_has(&c->released, new_->uid)) {
		pod_t *p = cached_decode(c->pods, &a, new_);

		if (p && !job_pod_tracked(p))
			map_del(&c->released, new_->uid);
	}
	if (!new_)
		return;
	/* A pod of a job that is gone, or that was orphaned: nobody counts it any more. */
	if (str_eqz(new_->controller_kind, "Job") ? !pod_watch_owner(&c->watch, new_) :
	    str_empty(new_->controller_uid) && str_map_has(&new_->labels, STR("batch.kubernetes.io/controller-uid")))
		queue_left(c, new_);
}

static struct error *selector_of(struct arena *a, void *obj, const struct selector **out)
{
	return label_selector_from(a, ((job_t *)obj)->spec.selector, out);
}

struct adopter {
	struct job_controller *c;
	struct arena *a;
	const pod_t *p;
	bool found;
};

static bool adopts(void *ctx, const struct cached_object *o)
{
	struct adopter *w = ctx;
	job_t *j = cached_decode(w->c->jobs, w->a, o);
	const struct selector *s = NULL;
	struct error *e = j ? selector_of(w->a, j, &s) : NULL;

	w->found |= j && !e && !o->deleting && selector_matches(s, API_MAP(&w->p->metadata.labels));
	error_free(e); /* the job's own reconcile tells */
	return !w->found;
}

static struct error *release_left(struct job_controller *c, struct arena *a, struct str ns, struct str name)
{
	pod_t *p = informer_get(c->pods, a, ns, name);
	const struct meta_v1_owner_reference *o = p ? controller_of(&p->metadata) : NULL;

	if (!p || !job_pod_tracked(p) || map_has(&c->released, p->metadata.uid))
		return NULL;
	if (o) {
		const struct cached_object *job = informer_peek(c->jobs, ns, o->name);

		if (!str_eqz(o->kind, "Job") || (job && str_eq(job->uid, o->uid)))
			return NULL;
	} else {
		struct adopter w = {c, a, p, false};

		informer_each(c->jobs, ns, NULL, adopts, &w);
		if (w.found)
			return NULL; /* it will be adopted, with its finalizer */
	}
	return release_pod(c, a, p);
}

/* Keys: "ns/job", "ns//pod". */
static struct error *reconcile_any(void *ctx, struct arena *a, struct str ns, struct str name)
{
	if (name.n && name.p[0] == '/')
		return release_left(ctx, a, ns, str_sub(name, 1, name.n));
	return reconcile(ctx, a, ns, name);
}

void job_start(struct manager *m)
{
	struct job_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("job");
	c->rec = event_recorder_new(m->client, "job-controller", "");
	c->jobs = manager_informer(m, &batch_v1_jobs_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	c->watch = (struct pod_watch){.r = &batch_v1_jobs_resource, .owners = c->jobs, .pods = c->pods, .q = c->q, .x = &c->x,
				      .selector = selector_of};
	informer_on_event(c->pods, on_pod, c); /* before the watch's: a released pod is known as such when its job is looked at */
	pod_watch_start(&c->watch);
	informer_on_event(c->jobs, on_job, c);
	controller_run(m, c->q, "job", 5, reconcile_any, c, c->jobs, c->pods, NULL);
}
