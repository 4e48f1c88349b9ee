/*
 * controller/job.c: runs pods to completion. Every ended pod is counted exactly
 * once: its uid is noted in the status before its finalizer goes, and counted after.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "controller/common.h"

#define TRACKING "batch.kubernetes.io/job-tracking"
#define INDEX "batch.kubernetes.io/job-completion-index"
#define BURST 500
#define BACKOFF_MS 10000
#define BACKOFF_MAX_MS 600000
#define MAX_INDEXES 100000
#define MAX_UNCOUNTED 500

struct job_controller {
	struct manager *m;
	struct informer *jobs, *pods;
	struct workqueue *q;
	struct event_recorder *rec;
	struct expectations x;
	struct pod_watch watch;
	struct map written; /* key -> resourceVersion (+1) of the status we wrote last, until the informer has it */
};

struct run { /* one reconcile */
	struct job_controller *c;
	struct arena *a;
	struct str key;
	struct batch_v1_job *j;
	struct core_v1_pod **pods;
	size_t n;
	int32_t active, ready, terminating;
	int64_t succeeded, failed;  /* with those not counted yet */
	bool indexed;
	uint8_t *done;              /* completed indexes, a byte each */
	int32_t n_indexes;
	int32_t seen_ok;            /* pods that are seen to have succeeded: the Job's status in the informer may lag behind theirs */
	struct batch_v1_job_status st;
	struct str ignored_message;
	const char *fail_reason;    /* the job has failed */
	struct str fail_message;
	bool success;
};

/* ---- conditions ---- */

static struct batch_v1_job_condition *condition(struct batch_v1_job_status *st, const char *type)
{
	for (uint32_t i = 0; i < st->conditions.n; i++)
		if (str_eqz(st->conditions.v[i].type, type))
			return &st->conditions.v[i];
	return NULL;
}

static bool has(struct batch_v1_job_status *st, const char *type)
{
	const struct batch_v1_job_condition *c = condition(st, type);

	return c && str_eqz(c->status, "True");
}

static void set_condition(struct run *r, const char *type, const char *status, const char *reason, struct str message)
{
	struct batch_v1_job_condition *c = condition(&r->st, type);

	if (c && str_eqz(c->status, status) && str_eqz(c->reason, reason))
		return;
	if (!c)
		c = arena_push(r->a, &r->st.conditions);
	*c = (struct batch_v1_job_condition){.type = str_from(type), .status = str_from(status), .reason = str_from(reason),
		.message = message, .last_probe_time = api_now(), .last_transition_time = api_now()};
}

/* ---- indexes ---- */

static int32_t pod_index(const struct core_v1_pod *p)
{
	int64_t v;

	return str_to_i64(str_map_get(API_MAP(&p->metadata.annotations), STR(INDEX)), &v) && v >= 0 && v < INT32_MAX ? (int32_t)v : -1;
}

/* "1,3-5" into bytes. */
static void parse_indexes(struct str text, uint8_t *set, int32_t n)
{
	while (text.p) {
		struct str part = str_cut(&text, ','), from = str_cut(&part, '-');
		int64_t lo, hi;

		if (!str_to_i64(from, &lo))
			continue;
		hi = lo;
		if (part.p && !str_to_i64(part, &hi))
			continue;
		for (int64_t i = lo < 0 ? 0 : lo; i <= hi && i < n; i++)
			set[i] = 1;
	}
}

static struct str format_indexes(struct arena *a, const uint8_t *set, int32_t n)
{
	struct buf buf_cleanup b = {0};

	for (int32_t i = 0; i < n; i++) {
		int32_t j = i;

		if (!set[i])
			continue;
		while (j + 1 < n && set[j + 1])
			j++;
		buf_printf(&b, j == i ? "%s%d" : j == i + 1 ? "%s%d,%d" : "%s%d-%d", b.n ? "," : "", i, j);
		i = j;
	}
	return arena_str(a, buf_view(&b));
}

static int32_t count_set(const uint8_t *set, int32_t n)
{
	int32_t k = 0;

	for (int32_t i = 0; i < n; i++)
		k += set[i];
	return k;
}

/* ---- pod failure policy ---- */

static bool exit_codes_match(const struct batch_v1_pod_failure_policy_on_exit_codes_requirement *q, const struct core_v1_container_status *s)
{
	const struct core_v1_container_state_terminated *t = s->state.terminated;

	if (!t || !t->exit_code || (q->container_name && !str_eq(*q->container_name, s->name)))
		return false;
	bool in = false;

	for (uint32_t i = 0; i < q->values.n; i++)
		in |= q->values.v[i] == t->exit_code;
	return str_eqz(q->operator, "In") ? in : !in;
}

/* The action for a failed pod, "Count" by default; the message says why. */
static struct str failure_action(struct run *r, const struct core_v1_pod *p, struct str *message)
{
	const struct batch_v1_pod_failure_policy *policy = r->j->spec.pod_failure_policy;

	for (uint32_t i = 0; policy && i < policy->rules.n; i++) {
		const struct batch_v1_pod_failure_policy_rule *rule = &policy->rules.v[i];

		for (uint32_t k = 0; rule->on_exit_codes && k < p->status.container_statuses.n + p->status.init_container_statuses.n; k++) {
			const struct core_v1_container_status *s = k < p->status.container_statuses.n ?
				&p->status.container_statuses.v[k] :
				&p->status.init_container_statuses.v[k - p->status.container_statuses.n];

			if (!exit_codes_match(rule->on_exit_codes, s))
				continue;
			*message = arena_printf(r->a, "Container %.*s for pod %.*s/%.*s failed with exit code %d matching %.*s rule at index %u",
						STR_ARG(s->name), STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name),
						s->state.terminated->exit_code, STR_ARG(rule->action), i);
			return rule->action;
		}
		for (uint32_t k = 0; k < rule->on_pod_conditions.n; k++)
			for (uint32_t c = 0; c < p->status.conditions.n; c++) {
				if (!str_eq(p->status.conditions.v[c].type, rule->on_pod_conditions.v[k].type) ||
				    !str_eq(p->status.conditions.v[c].status, rule->on_pod_conditions.v[k].status))
					continue;
				*message = arena_printf(r->a, "Pod %.*s/%.*s has condition %.*s matching %.*s rule at index %u",
							STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name),
							STR_ARG(p->status.conditions.v[c].type), STR_ARG(rule->action), i);
				return rule->action;
			}
	}
	return STR("Count");
}

/* ---- counting ---- */

static bool has_uid(const struct str *v, uint32_t n, struct str uid)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eq(v[i], uid))
			return true;
	return false;
}

static const struct core_v1_pod *find_pod(struct run *r, struct str uid)
{
	for (size_t i = 0; i < r->n; i++)
		if (str_eq(r->pods[i]->metadata.uid, uid))
			return r->pods[i];
	return NULL;
}

/* Moves noted pods whose finalizer is gone to the counters; notes the newly ended. */
static void count(struct run *r)
{
	struct batch_v1_uncounted_terminated_pods *old = r->st.uncounted_terminated_pods;
	struct batch_v1_uncounted_terminated_pods *now = arena_new(r->a, struct batch_v1_uncounted_terminated_pods);

	for (uint32_t i = 0; old && i < old->succeeded.n; i++) {
		const struct core_v1_pod *p = find_pod(r, old->succeeded.v[i]);

		if (p && has_finalizer(&p->metadata, TRACKING))
			*arena_push(r->a, &now->succeeded) = old->succeeded.v[i];
		else
			r->st.succeeded++;
	}
	for (uint32_t i = 0; old && i < old->failed.n; i++) {
		const struct core_v1_pod *p = find_pod(r, old->failed.v[i]);

		if (p && has_finalizer(&p->metadata, TRACKING))
			*arena_push(r->a, &now->failed) = old->failed.v[i];
		else
			r->st.failed++;
	}
	bool ending = has(&r->st, "FailureTarget") || has(&r->st, "SuccessCriteriaMet") || is_true(r->j->spec.suspend);

	for (size_t i = 0; i < r->n; i++) {
		const struct core_v1_pod *p = r->pods[i];
		bool ok = str_eqz(p->status.phase, "Succeeded"), bad = str_eqz(p->status.phase, "Failed");
		int32_t index = r->indexed ? pod_index(p) : -1;

		if (pod_is_active(p)) {
			r->active++;
			r->ready += pod_is_ready(p);
		} else if (!ok && !bad) {
			r->terminating++;
		}
		r->seen_ok += ok;
		if (ok && index >= 0 && index < r->n_indexes && !has_finalizer(&p->metadata, TRACKING))
			r->done[index] = 1;
		if (!has_finalizer(&p->metadata, TRACKING) || now->succeeded.n + now->failed.n >= MAX_UNCOUNTED)
			continue;
		if (has_uid(now->succeeded.v, now->succeeded.n, p->metadata.uid) || has_uid(now->failed.v, now->failed.n, p->metadata.uid))
			continue;
		if (ok) {
			if (r->indexed && (index < 0 || index >= r->n_indexes || r->done[index]))
				continue; /* an index is counted once */
			if (r->indexed)
				r->done[index] = 1;
			*arena_push(r->a, &now->succeeded) = p->metadata.uid;
		} else if (bad || (p->metadata.deletion_timestamp && !ending && !r->j->spec.pod_failure_policy &&
				   !(r->j->spec.pod_replacement_policy && str_eqz(*r->j->spec.pod_replacement_policy, "Failed")))) {
			struct str message = STR_NULL, action = failure_action(r, p, &message);

			if (bad && str_eqz(action, "FailJob") && !r->fail_reason) {
				r->fail_reason = "PodFailurePolicy";
				r->fail_message = message;
			}
			if (bad && str_eqz(action, "Ignore"))
				continue;
			*arena_push(r->a, &now->failed) = p->metadata.uid;
		}
	}
	r->st.uncounted_terminated_pods = now->succeeded.n || now->failed.n || old ? now : NULL;
	if (r->indexed) {
		r->st.completed_indexes = format_indexes(r->a, r->done, r->n_indexes);
		r->st.succeeded = count_set(r->done, r->n_indexes);
		r->succeeded = r->st.succeeded;
	} else {
		r->succeeded = r->st.succeeded + now->succeeded.n;
	}
	r->failed = r->st.failed + now->failed.n;
}

/* Ended pods lose their finalizer once the status that notes them is written. */
static struct error *release_pods(struct run *r, bool all)
{
	for (size_t i = 0; i < r->n; i++) {
		struct core_v1_pod *p = r->pods[i];

		if (!has_finalizer(&p->metadata, TRACKING) || (pod_is_active(p) && !all))
			continue;
		if (!all && !pod_is_terminal(p) && !p->metadata.deletion_timestamp)
			continue;
		struct error *e = client_patch(r->c->m->client, r->a, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name, NULL,
			PATCH_STRATEGIC, arena_printf(r->a, "{\"metadata\":{\"uid\":\"%.*s\",\"$deleteFromPrimitiveList/finalizers\":[\""
						      TRACKING "\"]}}", STR_ARG(p->metadata.uid)), NULL, false, NULL);

		if (error_is(e, 404, NULL) || error_is(e, 409, NULL) || error_is(e, 422, NULL))
			error_clear(&e);
		TRY(e);
	}
	return NULL;
}

/* ---- pods ---- */

struct work {
	struct run *r;
	struct owner owner;
	const int32_t *indexes;
	struct core_v1_pod **doomed;
	size_t tried;
};

static void add_index(struct arena *a, struct run *r, struct core_v1_pod *p, int32_t index)
{
	struct str text = arena_printf(a, "%d", index);

	str_map_set(a, API_MAP(&p->metadata.annotations), STR(INDEX), text);
	str_map_set(a, API_MAP(&p->metadata.labels), STR(INDEX), text);
	p->spec.hostname = arena_printf(a, "%.*s-%d", STR_ARG(r->j->metadata.name), index);
	p->metadata.generate_name = arena_printf(a, "%.*s-%d-", STR_ARG(r->j->metadata.name), index);
	for (int pass = 0; pass < 2; pass++) {
		struct core_v1_container *v = pass ? p->spec.init_containers.v : p->spec.containers.v;
		uint32_t n = pass ? p->spec.init_containers.n : p->spec.containers.n;

		for (uint32_t i = 0; i < n; i++) {
			bool there = false;

			for (uint32_t k = 0; k < v[i].env.n; k++)
				there |= str_eqz(v[i].env.v[k].name, "JOB_COMPLETION_INDEX");
			if (there)
				continue;
			struct core_v1_env_var *env = arena_push(a, &v[i].env);

			env->name = STR("JOB_COMPLETION_INDEX");
			env->value_from = arena_new(a, struct core_v1_env_var_source);
			env->value_from->field_ref = arena_new(a, struct core_v1_object_field_selector);
			env->value_from->field_ref->field_path = STR("metadata.labels['" INDEX "']");
		}
	}
}

static struct error *create_one(void *ctx, struct arena *a, size_t i)
{
	struct work *w = ctx;
	struct run *r = w->r;
	struct core_v1_pod *p = pod_from_template(a, &r->j->spec.template, r->j->metadata.namespace, STR_NULL, &w->owner);

	w->tried++;
	*arena_push(a, &p->metadata.finalizers) = STR(TRACKING);
	if (w->indexes)
		add_index(a, r, p, w->indexes[i]);
	struct error *e = pod_create(r->c->m, a, r->c->rec, &w->owner, p, NULL);

	if (e)
		creation_observed(&r->c->x, r->key);
	return e;
}

static struct error *delete_one(void *ctx, struct arena *a, size_t i)
{
	struct work *w = ctx;
	struct error *e = pod_delete(w->r->c->m, a, w->r->c->rec, &w->owner, w->doomed[i]);

	if (e)
		deletion_observed(&w->r->c->x, w->r->key, w->doomed[i]->metadata.uid);
	return e;
}

/* Deletes active pods until `keep` are left. */
static struct error *delete_active(struct run *r, int32_t keep)
{
	struct work w = {.r = r, .owner = {&batch_v1_jobs_resource, &r->j->metadata}};
	size_t n = 0;

	w.doomed = arena_array(r->a, struct core_v1_pod *, r->n + 1);
	for (size_t i = 0; i < r->n; i++)
		if (pod_is_active(r->pods[i]))
			w.doomed[n++] = r->pods[i];
	if (n <= (size_t)keep)
		return NULL;
	pods_sort_for_deletion(w.doomed, n, NULL);
	n -= (size_t)keep;
	struct str *uids = arena_array(r->a, struct str, n);

	for (size_t i = 0; i < n; i++)
		uids[i] = w.doomed[i]->metadata.uid;
	expect_deletions(&r->c->x, r->key, uids, n);
	return fan_out(n, delete_one, &w);
}

/* How long to wait before new pods after failures. */
static int64_t backoff_left(struct run *r)
{
	int64_t last_ok = 0, last_bad = 0, newest;
	int bad = 0;

	for (size_t i = 0; i < r->n; i++)
		if (str_eqz(r->pods[i]->status.phase, "Succeeded")) {
			newest = time_ms(r->pods[i]->metadata.creation_timestamp);
			last_ok = newest > last_ok ? newest : last_ok;
		}
	for (size_t i = 0; i < r->n; i++) {
		const struct core_v1_pod *p = r->pods[i];

		if (!str_eqz(p->status.phase, "Failed") || time_ms(p->metadata.creation_timestamp) < last_ok)
			continue;
		newest = time_ms(p->metadata.creation_timestamp);
		for (uint32_t k = 0; k < p->status.container_statuses.n; k++) {
			const struct core_v1_container_state_terminated *t = p->status.container_statuses.v[k].state.terminated;

			if (t && t->finished_at.set && time_ms(t->finished_at) > newest)
				newest = time_ms(t->finished_at);
		}
		last_bad = newest > last_bad ? newest : last_bad;
		bad++;
	}
	if (!bad)
		return 0;
	int64_t wait = bad > 7 ? BACKOFF_MAX_MS : (int64_t)BACKOFF_MS << (bad - 1);
	int64_t left = last_bad + (wait > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : wait) - wall_ms();

	return left > 0 ? left : 0;
}

static struct error *manage(struct run *r)
{
	int32_t parallelism = i32_or(r->j->spec.parallelism, 1), want;
	int32_t succeeded = r->succeeded > r->seen_ok ? r->succeeded : r->seen_ok;

	if (is_true(r->j->spec.suspend))
		return delete_active(r, 0);
	if (r->j->spec.completions) {
		int64_t left = *r->j->spec.completions - succeeded;

		want = left < 0 ? 0 : left < parallelism ? (int32_t)left : parallelism;
	} else {
		/* Work queue: once one has succeeded no more are started. */
		want = succeeded ? (r->active < parallelism ? r->active : parallelism) : parallelism;
	}
	if (r->active > want)
		return delete_active(r, want);
	int32_t diff = want - r->active;

	if (r->j->spec.pod_replacement_policy && str_eqz(*r->j->spec.pod_replacement_policy, "Failed"))
		diff -= r->terminating;
	if (diff <= 0)
		return NULL;
	int64_t wait = backoff_left(r);

	if (wait > 0) {
		workqueue_add_after(r->c->q, r->key, wait + 1);
		return NULL;
	}
	if (diff > BURST)
		diff = BURST;
	struct work w = {.r = r, .owner = {&batch_v1_jobs_resource, &r->j->metadata}};
	int32_t n = diff;

	if (r->indexed) {
		uint8_t *taken = arena_array(r->a, uint8_t, (size_t)r->n_indexes + 1);
		int32_t *indexes = arena_array(r->a, int32_t, (size_t)diff);

		memcpy(taken, r->done, (size_t)r->n_indexes);
		for (size_t i = 0; i < r->n; i++)
			if (pod_is_active(r->pods[i]) && pod_index(r->pods[i]) >= 0 && pod_index(r->pods[i]) < r->n_indexes)
				taken[pod_index(r->pods[i])] = 1;
		n = 0;
		for (int32_t i = 0; i < r->n_indexes && n < diff; i++)
			if (!taken[i])
				indexes[n++] = i;
		w.indexes = indexes;
	}
	size_t done;

	if (!n)
		return NULL;
	expect_creations(&r->c->x, r->key, n);
	struct error *e = slow_start((size_t)n, create_one, &w, &done);

	for (size_t i = w.tried; i < (size_t)n; i++)
		creation_observed(&r->c->x, r->key);
	r->active += (int32_t)done;
	return e;
}

/* ---- the verdict ---- */

static bool success_policy_met(struct run *r, struct str *message)
{
	const struct batch_v1_success_policy *s = r->j->spec.success_policy;

	for (uint32_t i = 0; r->indexed && s && i < s->rules.n; i++) {
		const struct batch_v1_success_policy_rule *rule = &s->rules.v[i];
		uint8_t *set = arena_array(r->a, uint8_t, (size_t)r->n_indexes + 1);
		int32_t in = 0, ok = 0;

		if (rule->succeeded_indexes)
			parse_indexes(*rule->succeeded_indexes, set, r->n_indexes);
		else
			memset(set, 1, (size_t)r->n_indexes);
		for (int32_t k = 0; k < r->n_indexes; k++) {
			in += set[k];
			ok += set[k] && r->done[k];
		}
		if (ok < (rule->succeeded_count ? *rule->succeeded_count : in))
			continue;
		*message = arena_printf(r->a, "Matched rules at index %u", i);
		return true;
	}
	return false;
}

static void judge(struct run *r, struct str *success_message, const char **success_reason)
{
	const struct batch_v1_job_spec *s = &r->j->spec;

	*success_message = STR("Reached expected number of succeeded pods");
	*success_reason = "CompletionsReached";
	struct batch_v1_job_condition *target = condition(&r->st, "FailureTarget"), *met = condition(&r->st, "SuccessCriteriaMet");

	if (target) { /* decided before */
		r->fail_reason = arena_strz(r->a, target->reason);
		r->fail_message = target->message;
		return;
	}
	if (met) {
		r->success = true;
		*success_message = met->message;
		*success_reason = arena_strz(r->a, met->reason);
		return;
	}
	if (!r->fail_reason && r->failed > i32_or(s->backoff_limit, 6)) {
		r->fail_reason = "BackoffLimitExceeded";
		r->fail_message = STR("Job has reached the specified backoff limit");
	}
	if (!r->fail_reason && str_eqz(s->template.spec.restart_policy, "OnFailure")) {
		int64_t restarts = 0;

		for (size_t i = 0; i < r->n; i++) {
			const struct core_v1_pod *p = r->pods[i];

			if (!str_eqz(p->status.phase, "Running") && !str_eqz(p->status.phase, "Pending"))
				continue;
			for (uint32_t k = 0; k < p->status.container_statuses.n; k++)
				restarts += p->status.container_statuses.v[k].restart_count;
			for (uint32_t k = 0; k < p->status.init_container_statuses.n; k++)
				restarts += p->status.init_container_statuses.v[k].restart_count;
		}
		int32_t limit = i32_or(s->backoff_limit, 6);

		if (limit ? restarts >= limit : restarts > 0) {
			r->fail_reason = "BackoffLimitExceeded";
			r->fail_message = STR("Job has reached the specified backoff limit");
		}
	}
	if (!r->fail_reason && s->active_deadline_seconds && r->st.start_time && !is_true(s->suspend)) {
		int64_t left = time_ms(*r->st.start_time) + *s->active_deadline_seconds * 1000 - wall_ms();

		if (left <= 0) {
			r->fail_reason = "DeadlineExceeded";
			r->fail_message = STR("Job was active longer than specified deadline");
		} else {
			workqueue_add_after(r->c->q, r->key, left + 1);
		}
	}
	if (r->fail_reason)
		return;
	if (success_policy_met(r, success_message)) {
		r->success = true;
		*success_reason = "SuccessPolicy";
	} else if (s->completions) {
		r->success = r->succeeded >= *s->completions;
	} else {
		r->success = r->succeeded > 0 && !r->active;
	}
}

static struct error *write_status(struct run *r)
{
	if (SAME(batch_v1_job_status, &r->st, &r->j->status))
		return NULL;
	struct batch_v1_job copy = *r->j;
	void *out;

	copy.status = r->st;
	TRY(client_update(r->c->m->client, r->a, &batch_v1_jobs_resource, r->j->metadata.namespace, "status", &copy, &out));
	r->j->status = r->st;
	uint64_t version;

	if (str_to_u64(((struct batch_v1_job *)out)->metadata.resource_version, &version))
		map_set(&r->c->written, r->key, (void *)(uintptr_t)(version + 1));
	r->j->metadata.resource_version = ((struct batch_v1_job *)out)->metadata.resource_version;
	return NULL;
}

static struct error *sync_suspend(struct run *r)
{
	struct core_v1_object_reference ref = object_reference(&batch_v1_jobs_resource, r->j);

	if (is_true(r->j->spec.suspend)) {
		if (!has(&r->st, "Suspended"))
			event_record(r->c->rec, &ref, "Normal", "Suspended", "Job suspended");
		set_condition(r, "Suspended", "True", "JobSuspended", STR("Job suspended"));
		r->st.start_time = NULL;
		return NULL;
	}
	if (has(&r->st, "Suspended")) {
		set_condition(r, "Suspended", "False", "JobResumed", STR("Job resumed"));
		event_record(r->c->rec, &ref, "Normal", "Resumed", "Job resumed");
		r->st.start_time = NULL;
	}
	if (!r->st.start_time) {
		r->st.start_time = arena_new(r->a, struct api_time);
		*r->st.start_time = api_now();
	}
	return NULL;
}

static struct error *finish(struct run *r, struct str message, const char *reason)
{
	struct core_v1_object_reference ref = object_reference(&batch_v1_jobs_resource, r->j);

	set_condition(r, r->success ? "SuccessCriteriaMet" : "FailureTarget", "True", reason, message);
	TRY(delete_active(r, 0));
	r->terminating += r->active;
	r->active = r->ready = 0;
	r->st.active = 0;
	r->st.ready = new_i32(r->a, 0);
	r->st.terminating = new_i32(r->a, r->terminating);
	const struct batch_v1_uncounted_terminated_pods *u = r->st.uncounted_terminated_pods;

	if (!r->terminating && (!u || (!u->succeeded.n && !u->failed.n))) {
		r->st.uncounted_terminated_pods = u ? arena_new(r->a, struct batch_v1_uncounted_terminated_pods) : NULL;
		set_condition(r, r->success ? "Complete" : "Failed", "True", reason, message);
		if (r->success) {
			r->st.completion_time = arena_new(r->a, struct api_time);
			*r->st.completion_time = api_now();
		}
		TRY(write_status(r));
		event_record(r->c->rec, &ref, r->success ? "Normal" : "Warning", r->success ? "Completed" : reason, "%.*s",
			     STR_ARG(r->success ? STR("Job completed") : message));
		return release_pods(r, true);
	}
	TRY(write_status(r));
	return release_pods(r, false);
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct job_controller *c = ctx;
	struct run r = {.c = c, .a = a, .key = object_key(a, ns, name)};
	const struct selector *selector;
	void **pods;

	r.j = informer_get(c->jobs, a, ns, name);
	if (!r.j) {
		expectations_forget(&c->x, r.key);
		map_del(&c->written, r.key);
		return NULL;
	}
	/* With an older status than our own, pods already counted would be missed, and made again. */
	uint64_t seen, written = (uint64_t)(uintptr_t)map_get(&c->written, r.key);

	if (written && str_to_u64(r.j->metadata.resource_version, &seen) && seen + 1 < written)
		return NULL; /* its event comes back here */
	map_del(&c->written, r.key);
	if (r.j->spec.managed_by && !str_eqz(*r.j->spec.managed_by, "kubernetes.io/job-controller"))
		return NULL;
	if (r.j->spec.backoff_limit_per_index) {
		struct core_v1_object_reference ref = object_reference(&batch_v1_jobs_resource, r.j);

		event_record(c->rec, &ref, "Warning", "Unsupported", "backoffLimitPerIndex is not supported by this controller yet");
		return NULL;
	}
	r.st = *(struct batch_v1_job_status *)object_clone(a, &batch_v1_job_status_type, &r.j->status);
	bool needs = expectations_met(&c->x, r.key);

	TRY(label_selector_from(a, r.j->spec.selector, &selector));
	TRY(claim_objects(&(struct claim){.m = c->m, .i = c->pods, .r = &core_v1_pods_resource,
					  .owner = {&batch_v1_jobs_resource, &r.j->metadata}, .selector = selector, .finalizer = TRACKING},
			  a, &pods, &r.n));
	r.pods = (struct core_v1_pod **)(void *)pods;
	if (has(&r.st, "Complete") || has(&r.st, "Failed"))
		return release_pods(&r, true);
	r.indexed = r.j->spec.completion_mode && str_eqz(*r.j->spec.completion_mode, "Indexed");
	r.n_indexes = r.indexed ? i32_or(r.j->spec.completions, 0) : 0;
	if (r.n_indexes > MAX_INDEXES)
		r.n_indexes = MAX_INDEXES;
	r.done = arena_array(a, uint8_t, (size_t)r.n_indexes + 1);
	parse_indexes(r.st.completed_indexes, r.done, r.n_indexes);
	if (r.j->metadata.deletion_timestamp)
		return release_pods(&r, true);
	TRY(sync_suspend(&r));
	count(&r);
	struct str message;
	const char *reason;

	judge(&r, &message, &reason);
	if (r.fail_reason) {
		r.success = false;
		return finish(&r, r.fail_message, r.fail_reason);
	}
	if (r.success)
		return finish(&r, message, reason);
	struct error *e = needs ? manage(&r) : NULL;

	if (namespace_terminating(e))
		error_clear(&e);
	r.st.active = is_true(r.j->spec.suspend) ? 0 : r.active;
	r.st.ready = new_i32(a, r.ready);
	r.st.terminating = new_i32(a, r.terminating);
	struct error *e2 = write_status(&r);

	if (e) {
		error_free(e2);
		return e;
	}
	TRY(e2);
	return release_pods(&r, false);
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

/* A pod of a job that is gone: nobody counts it any more. */
static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct job_controller *c = ctx;

	if (new_ && str_eqz(new_->controller_kind, "Job") && informer_synced(c->jobs) && !pod_watch_owner(&c->watch, new_))
		queue_left(c, new_);
}

static struct error *selector_of(struct arena *a, void *obj, const struct selector **out)
{
	return label_selector_from(a, ((struct batch_v1_job *)obj)->spec.selector, out);
}

static struct error *reconcile_any(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct job_controller *c = ctx;

	if (!name.n || name.p[0] != '/')
		return reconcile(ctx, a, ns, name);
	struct core_v1_pod *p = informer_get(c->pods, a, ns, str_sub(name, 1, name.n));
	const struct meta_v1_owner_reference *o = p ? controller_of(&p->metadata) : NULL;

	if (!o || !has_finalizer(&p->metadata, TRACKING))
		return NULL;
	const struct cached_object *job = informer_peek(c->jobs, ns, o->name);

	if (job && str_eq(job->uid, o->uid))
		return NULL;
	struct run r = {.c = c, .a = a, .pods = &p, .n = 1};

	return release_pods(&r, true);
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
	pod_watch_start(&c->watch);
	informer_on_event(c->jobs, on_job, c);
	informer_on_event(c->pods, on_pod, c);
	controller_run(m, c->q, "job", 5, reconcile_any, c, c->jobs, c->pods, NULL);
}
