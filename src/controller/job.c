/*
 * controller/job.c: runs pods to completion. Each pod carries the finalizer batch.kubernetes.io/job-tracking until its end has been
 * counted in the Job's status, so that no end is lost and none counted twice (KEP-2307). Indexed Jobs: KEP-2214; pod failure
 * policies: KEP-3329; success policies: KEP-3998. Limits per index (KEP-3850) are not built: such Jobs get an event that says so.
 */
#include "controller/common.h"

#include <stdlib.h>

#include "base/buf.h"

#define FINALIZER "batch.kubernetes.io/job-tracking"
#define INDEX "batch.kubernetes.io/job-completion-index"
#define BURST 500
#define BACKOFF_MS 10000
#define BACKOFF_MAX_MS 600000
#define INDEXES_MAX 100000 /* upstream's limit of completions of an Indexed Job that are counted one by one */

struct job_controller {
	struct manager *m;
	struct informer *jobs, *pods;
	struct workqueue *q;
	struct event_recorder *rec;
	struct expectations x;
};

struct sync { /* one reconcile */
	struct job_controller *c;
	struct arena *a;
	struct batch_v1_job *job;
	struct batch_v1_job_status st;
	struct str key;
	struct owner owner;
	struct core_v1_pod **pods, **active;
	size_t n, n_active;
	int32_t ready, terminating, new_failed, restarts;
	bool indexed;
	uint8_t *done;                /* by index: has succeeded */
	const char *fail_reason;
	struct str fail_message;
	bool succeeded_early;         /* by the success policy */
	int64_t last_failure_ms;
};

static bool finished(const struct batch_v1_job_status *st, const char **type)
{
	for (uint32_t i = 0; i < st->conditions.n; i++) {
		const struct batch_v1_job_condition *k = &st->conditions.v[i];

		if ((str_eqz(k->type, "Complete") || str_eqz(k->type, "Failed")) && str_eqz(k->status, "True")) {
			if (type)
				*type = str_eqz(k->type, "Complete") ? "Complete" : "Failed";
			return true;
		}
	}
	return false;
}

static const struct batch_v1_job_condition *condition(const struct batch_v1_job_status *st, const char *type)
{
	for (uint32_t i = 0; i < st->conditions.n; i++)
		if (str_eqz(st->conditions.v[i].type, type) && str_eqz(st->conditions.v[i].status, "True"))
			return &st->conditions.v[i];
	return NULL;
}

static void set_condition(struct sync *s, const char *type, bool on, const char *reason, struct str message)
{
	struct batch_v1_job_condition *k = NULL;

	for (uint32_t i = 0; i < s->st.conditions.n && !k; i++)
		if (str_eqz(s->st.conditions.v[i].type, type))
			k = &s->st.conditions.v[i];
	if (!k) {
		if (!on)
			return;
		k = arena_push(s->a, &s->st.conditions);
	} else if (str_eqz(k->status, on ? "True" : "False")) {
		return;
	}
	*k = (struct batch_v1_job_condition){.type = str_from(type), .status = on ? STR("True") : STR("False"), .reason = str_from(reason),
					     .message = message, .last_probe_time = time_now(), .last_transition_time = time_now()};
}

/* ---- indexes ---- */

/* "0,2-4" into s->done. */
static void parse_indexes(struct sync *s, struct str text)
{
	int32_t n = i32_or(s->job->spec.completions, 0);

	for (struct str rest = text; rest.p && rest.n;) {
		struct str part = str_cut(&rest, ','), from = str_cut(&part, '-');
		int64_t a, b;

		if (!str_to_i64(from, &a))
			continue;
		if (!part.p || !str_to_i64(part, &b))
			b = a;
		for (int64_t i = a; i <= b && i < n; i++)
			if (i >= 0)
				s->done[i] = 1;
	}
}

static struct str format_indexes(struct sync *s)
{
	buf_cleanup struct buf b = {0};
	int32_t n = i32_or(s->job->spec.completions, 0);

	for (int32_t i = 0; i < n; i++) {
		int32_t last = i;

		if (!s->done[i])
			continue;
		while (last + 1 < n && s->done[last + 1])
			last++;
		buf_printf(&b, "%s%d", b.n ? "," : "", i);
		if (last > i)
			buf_printf(&b, last == i + 1 ? ",%d" : "-%d", last);
		i = last;
	}
	return arena_str(s->a, buf_view(&b));
}

static int64_t index_of(const struct core_v1_pod *p)
{
	int64_t v = -1;

	if (!str_to_i64(str_map_get(API_MAP(&p->metadata.annotations), STR(INDEX)), &v))
		return -1;
	return v;
}

static int32_t count_done(struct sync *s)
{
	int32_t k = 0;

	for (int32_t i = 0; s->done && i < i32_or(s->job->spec.completions, 0); i++)
		k += s->done[i];
	return k;
}

/* ---- failure and success policies ---- */

static bool exit_codes_match(const struct batch_v1_pod_failure_policy_on_exit_codes_requirement *r, const struct core_v1_pod *p)
{
	for (uint32_t i = 0; i < p->status.container_statuses.n; i++) {
		const struct core_v1_container_status *c = &p->status.container_statuses.v[i];
		bool in = false;

		if (!c->state.terminated || c->state.terminated->exit_code == 0 || (r->container_name && !str_eq(*r->container_name, c->name)))
			continue;
		for (uint32_t k = 0; k < r->values.n; k++)
			in |= r->values.v[k] == c->state.terminated->exit_code;
		if (in == str_eqz(r->operator, "In"))
			return true;
	}
	return false;
}

static bool conditions_match(const struct batch_v1_pod_failure_policy_rule *r, const struct core_v1_pod *p)
{
	for (uint32_t i = 0; i < r->on_pod_conditions.n; i++) {
		struct str want = r->on_pod_conditions.v[i].status.n ? r->on_pod_conditions.v[i].status : STR("True");

		for (uint32_t k = 0; k < p->status.conditions.n; k++)
			if (str_eq(p->status.conditions.v[k].type, r->on_pod_conditions.v[i].type) && str_eq(p->status.conditions.v[k].status, want))
				return true;
	}
	return false;
}

/* "FailJob", "Ignore", "Count", or NULL when no rule matches. */
static const char *failure_action(struct sync *s, const struct core_v1_pod *p, uint32_t *rule)
{
	const struct batch_v1_pod_failure_policy *pol = s->job->spec.pod_failure_policy;

	for (uint32_t i = 0; pol && i < pol->rules.n; i++) {
		const struct batch_v1_pod_failure_policy_rule *r = &pol->rules.v[i];

		if (r->on_exit_codes ? !exit_codes_match(r->on_exit_codes, p) : !conditions_match(r, p))
			continue;
		*rule = i;
		return str_eqz(r->action, "FailJob") ? "FailJob" : str_eqz(r->action, "Ignore") ? "Ignore" : "Count";
	}
	return NULL;
}

static bool success_policy_met(struct sync *s)
{
	const struct batch_v1_success_policy *pol = s->job->spec.success_policy;
	uint8_t *all = s->done;

	for (uint32_t i = 0; pol && s->indexed && i < pol->rules.n; i++) {
		const struct batch_v1_success_policy_rule *r = &pol->rules.v[i];
		int32_t n = i32_or(s->job->spec.completions, 0), have = 0, want = 0;

		if (r->succeeded_indexes) {
			uint8_t *asked = arena_array(s->a, uint8_t, (size_t)n + 1);

			s->done = asked;
			parse_indexes(s, *r->succeeded_indexes);
			s->done = all;
			for (int32_t k = 0; k < n; k++) {
				want += asked[k];
				have += asked[k] && all[k];
			}
		} else {
			want = n;
			have = count_done(s);
		}
		if (r->succeeded_count)
			want = *r->succeeded_count;
		if (have >= want)
			return true;
	}
	return false;
}

/* ---- counting ends ---- */

static bool in_list(const struct str *v, uint32_t n, struct str uid)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eq(v[i], uid))
			return true;
	return false;
}

static const struct core_v1_pod *pod_with_uid(struct sync *s, struct str uid)
{
	for (size_t i = 0; i < s->n; i++)
		if (str_eq(s->pods[i]->metadata.uid, uid))
			return s->pods[i];
	return NULL;
}

/* Uncounted ends whose pod has lost its finalizer are counted for good. */
static void settle(struct sync *s, struct str **v, uint32_t *n, int32_t *counter)
{
	uint32_t keep = 0;

	for (uint32_t i = 0; i < *n; i++) {
		const struct core_v1_pod *p = pod_with_uid(s, (*v)[i]);

		if (p && has_finalizer(&p->metadata, FINALIZER))
			(*v)[keep++] = (*v)[i];
		else
			(*counter)++;
	}
	*n = keep;
}

static int64_t finish_ms(const struct core_v1_pod *p)
{
	int64_t t = 0;

	for (uint32_t i = 0; i < p->status.container_statuses.n; i++) {
		const struct core_v1_container_state_terminated *d = p->status.container_statuses.v[i].state.terminated;

		if (d && time_ms(d->finished_at) > t)
			t = time_ms(d->finished_at);
	}
	return t ? t : p->metadata.deletion_timestamp ? time_ms(*p->metadata.deletion_timestamp) : time_ms(p->metadata.creation_timestamp);
}

static void count_end(struct sync *s, const struct core_v1_pod *p)
{
	struct batch_v1_uncounted_terminated_pods *u = s->st.uncounted_terminated_pods;
	bool ok = str_eqz(p->status.phase, "Succeeded");
	int64_t index = index_of(p);
	uint32_t rule = 0;

	if (!has_finalizer(&p->metadata, FINALIZER) || in_list(u->succeeded.v, u->succeeded.n, p->metadata.uid) ||
	    in_list(u->failed.v, u->failed.n, p->metadata.uid))
		return;
	if (ok) {
		if (s->indexed && index >= 0 && index < i32_or(s->job->spec.completions, 0)) {
			if (s->done[index])
				return; /* the same index twice counts once; its finalizer goes all the same */
			s->done[index] = 1;
		}
		*arena_push(s->a, &u->succeeded) = p->metadata.uid;
		return;
	}
	const char *action = failure_action(s, p, &rule);

	if (finish_ms(p) > s->last_failure_ms)
		s->last_failure_ms = finish_ms(p);
	if (action && strcmp(action, "Ignore") == 0)
		return;
	if (action && strcmp(action, "FailJob") == 0 && !s->fail_reason) {
		s->fail_reason = "PodFailurePolicy";
		s->fail_message = arena_printf(s->a, "Pod %.*s/%.*s matching FailJob rule at index %u", STR_ARG(p->metadata.namespace),
					       STR_ARG(p->metadata.name), rule);
	}
	*arena_push(s->a, &u->failed) = p->metadata.uid;
	s->new_failed++;
}

static void look_at_pods(struct sync *s)
{
	bool replace_failed_only = s->job->spec.pod_replacement_policy && str_eqz(*s->job->spec.pod_replacement_policy, "Failed");

	s->active = arena_array(s->a, struct core_v1_pod *, s->n + 1);
	for (size_t i = 0; i < s->n; i++) {
		struct core_v1_pod *p = s->pods[i];

		if (pod_is_terminal(p)) {
			count_end(s, p);
		} else if (p->metadata.deletion_timestamp) {
			s->terminating++;
			/* A pod that goes before its end has failed, unless its replacement waits for the end itself. */
			if (!replace_failed_only && !s->job->spec.pod_failure_policy)
				count_end(s, p);
		} else {
			s->active[s->n_active++] = p;
			s->ready += pod_is_ready(p);
			for (uint32_t k = 0; k < p->status.container_statuses.n; k++)
				s->restarts += p->status.container_statuses.v[k].restart_count;
		}
	}
}

/* ---- making and deleting pods ---- */

struct creation {
	struct sync *s;
	const int32_t *indexes; /* or NULL */
	size_t tried;
};

static void add_index(struct arena *a, struct core_v1_pod *p, struct sync *s, int32_t index)
{
	struct str text = arena_printf(a, "%d", index);

	str_map_set(a, API_MAP(&p->metadata.annotations), STR(INDEX), text);
	str_map_set(a, API_MAP(&p->metadata.labels), STR(INDEX), text);
	p->metadata.name = STR_NULL;
	p->metadata.generate_name = arena_printf(a, "%.*s-%d-", STR_ARG(s->job->metadata.name), index);
	p->spec.hostname = arena_printf(a, "%.*s-%d", STR_ARG(s->job->metadata.name), index);
	for (uint32_t i = 0; i < p->spec.containers.n + p->spec.init_containers.n; i++) {
		struct core_v1_container *c = i < p->spec.containers.n ? &p->spec.containers.v[i] : &p->spec.init_containers.v[i - p->spec.containers.n];
		struct core_v1_env_var *e = NULL;

		for (uint32_t k = 0; k < c->env.n && !e; k++)
			if (str_eqz(c->env.v[k].name, "JOB_COMPLETION_INDEX"))
				e = &c->env.v[k];
		if (e)
			continue;
		e = arena_push(a, &c->env);
		e->name = STR("JOB_COMPLETION_INDEX");
		e->value_from = arena_new(a, struct core_v1_env_var_source);
		e->value_from->field_ref = arena_new(a, struct core_v1_object_field_selector);
		e->value_from->field_ref->field_path = STR("metadata.labels['" INDEX "']");
	}
}

static struct error *create_one(void *ctx, struct arena *a, size_t i)
{
	struct creation *k = ctx;
	struct sync *s = k->s;
	struct core_v1_pod_template_spec *t = object_clone(a, &core_v1_pod_template_spec_type, &s->job->spec.template);
	struct core_v1_pod *p = pod_from_template(a, t, s->job->metadata.namespace, STR_NULL, &s->owner);

	k->tried++;
	*arena_push(a, &p->metadata.finalizers) = STR(FINALIZER);
	if (k->indexes)
		add_index(a, p, s, k->indexes[i]);
	struct error *e = pod_create(s->c->m, a, s->c->rec, &s->owner, p, NULL);

	if (e)
		creation_observed(&s->c->x, s->key);
	return e;
}

static struct error *delete_one(void *ctx, struct arena *a, size_t i)
{
	struct sync *s = ctx;
	struct error *e = pod_delete(s->c->m, a, s->c->rec, &s->owner, s->active[i]);

	if (e)
		deletion_observed(&s->c->x, s->key, s->active[i]->metadata.uid);
	return e;
}

/* Deletes the first k of s->active. */
static struct error *delete_active(struct sync *s, size_t k)
{
	struct str *uids = arena_array(s->a, struct str, k);

	if (!k)
		return NULL;
	for (size_t i = 0; i < k; i++)
		uids[i] = s->active[i]->metadata.uid;
	expect_deletions(&s->c->x, s->key, uids, k);
	return fan_out(k, delete_one, s);
}

static struct error *strip_one(void *ctx, struct arena *a, size_t i)
{
	struct sync *s = ctx;
	const struct core_v1_pod *p = s->pods[i];

	if (!has_finalizer(&p->metadata, FINALIZER))
		return NULL;
	struct error *e = client_patch(s->c->m->client, a, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name, NULL, PATCH_STRATEGIC,
				       arena_printf(a, "{\"metadata\":{\"uid\":\"%.*s\",\"$deleteFromPrimitiveList/finalizers\":[\"" FINALIZER "\"]}}",
						    STR_ARG(p->metadata.uid)), NULL, false, NULL);

	/* Gone, or another pod of that name: nothing of this one is left to strip. */
	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

/* Takes the finalizer off pods whose end stands in the status (all: off every pod). */
static struct error *strip(struct sync *s, bool all)
{
	struct core_v1_pod **keep = s->pods;
	size_t n = 0, total = s->n;
	struct core_v1_pod **v = arena_array(s->a, struct core_v1_pod *, s->n + 1);

	for (size_t i = 0; i < s->n; i++) {
		const struct core_v1_pod *p = s->pods[i];
		bool ended = pod_is_terminal(p) || (p->metadata.deletion_timestamp && !s->job->spec.pod_failure_policy);

		if ((all || ended) && has_finalizer(&p->metadata, FINALIZER))
			v[n++] = s->pods[i];
	}
	s->pods = v;
	s->n = n;
	struct error *e = fan_out(n, strip_one, s);

	s->pods = keep;
	s->n = total;
	return e;
}

static bool index_is_active(struct sync *s, int32_t index)
{
	bool replace_failed_only = s->job->spec.pod_replacement_policy && str_eqz(*s->job->spec.pod_replacement_policy, "Failed");

	for (size_t i = 0; i < s->n_active; i++)
		if (index_of(s->active[i]) == index)
			return true;
	for (size_t i = 0; replace_failed_only && i < s->n; i++)
		if (s->pods[i]->metadata.deletion_timestamp && !pod_is_terminal(s->pods[i]) && index_of(s->pods[i]) == index)
			return true;
	return false;
}

static int32_t succeeded_now(const struct sync *s)
{
	return s->st.succeeded + (int32_t)s->st.uncounted_terminated_pods->succeeded.n;
}

static int32_t failed_now(const struct sync *s)
{
	return s->st.failed + (int32_t)s->st.uncounted_terminated_pods->failed.n;
}

/* How long new pods must still wait after failures; 0: not at all. */
static int64_t backoff_left(struct sync *s)
{
	int32_t failures = failed_now(s);
	int64_t delay = BACKOFF_MS;

	if (!failures || !s->last_failure_ms)
		return 0;
	for (int i = 1; i < failures && delay < BACKOFF_MAX_MS; i++)
		delay *= 2;
	delay = delay < BACKOFF_MAX_MS ? delay : BACKOFF_MAX_MS;
	int64_t left = s->last_failure_ms + delay - wall_ms();

	return left > 0 ? left : 0;
}

static struct error *manage(struct sync *s)
{
	int32_t parallelism = i32_or(s->job->spec.parallelism, 1), want = parallelism, *indexes = NULL;
	bool replace_failed_only = s->job->spec.pod_replacement_policy && str_eqz(*s->job->spec.pod_replacement_policy, "Failed");

	if (s->job->spec.completions) {
		int32_t left = *s->job->spec.completions - succeeded_now(s);

		want = left < parallelism ? left : parallelism;
	} else if (succeeded_now(s) > 0) {
		want = (int32_t)s->n_active < parallelism ? (int32_t)s->n_active : parallelism;
	}
	if (is_true(s->job->spec.suspend) || want < 0)
		want = 0;
	if ((int32_t)s->n_active > want) {
		pods_sort_for_deletion(s->active, s->n_active, NULL);
		return delete_active(s, s->n_active - (size_t)want);
	}
	int32_t k = want - (int32_t)s->n_active - (replace_failed_only ? s->terminating : 0);

	if (k <= 0)
		return NULL;
	int64_t left = backoff_left(s);

	if (left) {
		workqueue_add_after(s->c->q, s->key, left);
		return NULL;
	}
	k = k > BURST ? BURST : k;
	if (s->indexed) {
		int32_t n = 0;

		indexes = arena_array(s->a, int32_t, (size_t)k);
		for (int32_t i = 0; i < i32_or(s->job->spec.completions, 0) && n < k; i++)
			if (!s->done[i] && !index_is_active(s, i))
				indexes[n++] = i;
		k = n;
	}
	struct creation c = {.s = s, .indexes = indexes};
	size_t done;

	expect_creations(&s->c->x, s->key, k);
	struct error *e = slow_start((size_t)k, create_one, &c, &done);

	for (size_t i = c.tried; i < (size_t)k; i++)
		creation_observed(&s->c->x, s->key);
	s->n_active += done;
	if (namespace_terminating(e))
		error_clear(&e);
	return e;
}

/* ---- deciding ---- */

static void check_failed(struct sync *s)
{
	const struct batch_v1_job_spec *spec = &s->job->spec;
	int32_t limit = i32_or(spec->backoff_limit, 6);
	bool on_failure = str_eqz(spec->template.spec.restart_policy, "OnFailure");
	const struct batch_v1_job_condition *target = condition(&s->st, "FailureTarget");

	if (target) {
		s->fail_reason = arena_strz(s->a, target->reason);
		s->fail_message = target->message;
	}
	if (s->fail_reason)
		return;
	if (failed_now(s) > limit || (on_failure && s->restarts > 0 && s->restarts >= limit && (limit > 0 || s->restarts > 0))) {
		s->fail_reason = "BackoffLimitExceeded";
		s->fail_message = STR("Job has reached the specified backoff limit");
	} else if (spec->active_deadline_seconds && s->st.start_time && !is_true(spec->suspend)) {
		int64_t left = time_ms(*s->st.start_time) + *spec->active_deadline_seconds * 1000 - wall_ms();

		if (left <= 0) {
			s->fail_reason = "DeadlineExceeded";
			s->fail_message = STR("Job was active longer than specified deadline");
		} else {
			workqueue_add_after(s->c->q, s->key, left + 1);
		}
	}
}

static bool complete(struct sync *s)
{
	if (condition(&s->st, "SuccessCriteriaMet"))
		return true;
	if (s->job->spec.completions)
		return succeeded_now(s) >= *s->job->spec.completions;
	return succeeded_now(s) > 0 && s->n_active == 0;
}

static void event(struct sync *s, const char *type, const char *reason, struct str message)
{
	struct core_v1_object_reference r = owner_reference(s->a, &s->owner);

	event_record(s->c->rec, &r, type, reason, "%.*s", STR_ARG(message));
}

/* The last step, once every pod has ended and is counted. */
static bool nothing_left(const struct sync *s)
{
	const struct batch_v1_uncounted_terminated_pods *u = s->st.uncounted_terminated_pods;

	return !u->succeeded.n && !u->failed.n && !s->n_active && !s->terminating;
}

static struct error *decide(struct sync *s, bool may_manage)
{
	check_failed(s);
	if (s->fail_reason) {
		set_condition(s, "FailureTarget", true, s->fail_reason, s->fail_message);
		TRY(delete_active(s, s->n_active));
		s->terminating += (int32_t)s->n_active;
		s->n_active = 0;
		s->ready = 0;
		if (nothing_left(s)) {
			set_condition(s, "Failed", true, s->fail_reason, s->fail_message);
			event(s, "Warning", s->fail_reason, s->fail_message);
		}
		return NULL;
	}
	bool early = success_policy_met(s);

	if (early || complete(s)) {
		set_condition(s, "SuccessCriteriaMet", true, early ? "SuccessPolicy" : "CompletionsReached",
			      early ? STR("Matched rules at index 0") : STR("Reached expected number of succeeded pods"));
		TRY(delete_active(s, s->n_active));
		s->terminating += (int32_t)s->n_active;
		s->n_active = 0;
		s->ready = 0;
		if (nothing_left(s)) {
			set_condition(s, "Complete", true, early ? "SuccessPolicy" : "CompletionsReached",
				      early ? STR("Matched rules at index 0") : STR("Reached expected number of succeeded pods"));
			s->st.completion_time = arena_new(s->a, struct api_time);
			*s->st.completion_time = time_now();
			event(s, "Normal", "Completed", STR("Job completed"));
		}
		return NULL;
	}
	if (is_true(s->job->spec.suspend)) {
		if (!condition(&s->st, "Suspended"))
			event(s, "Normal", "Suspended", STR("Job suspended"));
		set_condition(s, "Suspended", true, "JobSuspended", STR("Job suspended"));
	} else if (condition(&s->st, "Suspended")) {
		set_condition(s, "Suspended", false, "JobResumed", STR("Job resumed"));
		s->st.start_time = arena_new(s->a, struct api_time);
		*s->st.start_time = time_now();
		event(s, "Normal", "Resumed", STR("Job resumed"));
	}
	return may_manage ? manage(s) : NULL;
}

static struct error *write_status(struct sync *s)
{
	struct batch_v1_job copy = *s->job;

	if (SAME(batch_v1_job_status, &s->st, &s->job->status))
		return NULL;
	copy.status = s->st;
	struct error *e = client_update(s->c->m->client, s->a, &batch_v1_jobs_resource, copy.metadata.namespace, "status", &copy, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct job_controller *c = ctx;
	struct sync s = {.c = c, .a = a, .key = object_key(a, ns, name)};
	struct batch_v1_uncounted_terminated_pods *u;
	const struct selector *sel;
	void **claimed;

	s.job = informer_get(c->jobs, a, ns, name);
	if (!s.job) {
		expectations_forget(&c->x, s.key);
		return NULL;
	}
	if (s.job->spec.managed_by && !str_eqz(*s.job->spec.managed_by, "kubernetes.io/job-controller"))
		return NULL;
	bool may_manage = expectations_met(&c->x, s.key) && !s.job->metadata.deletion_timestamp;

	s.owner = (struct owner){&batch_v1_jobs_resource, &s.job->metadata};
	s.indexed = s.job->spec.completion_mode && str_eqz(*s.job->spec.completion_mode, "Indexed") && s.job->spec.completions;
	if (s.indexed && *s.job->spec.completions > INDEXES_MAX)
		return error_new("more than %d indexes", INDEXES_MAX);
	TRY(label_selector_from(a, s.job->spec.selector, &sel));
	TRY(claim_objects(&(struct claim){.m = c->m, .i = c->pods, .r = &core_v1_pods_resource, .owner = s.owner, .selector = sel,
					  .finalizer = FINALIZER}, a, &claimed, &s.n));
	s.pods = (struct core_v1_pod **)claimed;
	if (finished(&s.job->status, NULL) || s.job->metadata.deletion_timestamp)
		return strip(&s, true);
	if (s.job->spec.backoff_limit_per_index && !s.job->status.start_time)
		event(&s, "Warning", "Unsupported", STR("backoffLimitPerIndex is not built: failures count for the whole Job"));
	s.st = s.job->status;
	s.st.conditions.v = arena_array(a, struct batch_v1_job_condition, s.st.conditions.n + 1);
	for (uint32_t i = 0; i < s.st.conditions.n; i++)
		s.st.conditions.v[i] = s.job->status.conditions.v[i];
	s.st.conditions.cap = 0;
	u = s.st.uncounted_terminated_pods = arena_new(a, struct batch_v1_uncounted_terminated_pods);
	if (s.job->status.uncounted_terminated_pods)
		object_copy(a, &batch_v1_uncounted_terminated_pods_type, s.job->status.uncounted_terminated_pods, u);
	if (s.indexed) {
		s.done = arena_array(a, uint8_t, (size_t)*s.job->spec.completions + 1);
		parse_indexes(&s, s.st.completed_indexes);
	}
	if (!s.st.start_time && !is_true(s.job->spec.suspend)) {
		s.st.start_time = arena_new(a, struct api_time);
		*s.st.start_time = time_now();
	}
	settle(&s, &u->succeeded.v, &u->succeeded.n, &s.st.succeeded);
	settle(&s, &u->failed.v, &u->failed.n, &s.st.failed);
	for (size_t i = 0; i < s.n; i++) /* for the delay before new pods */
		if (str_eqz(s.pods[i]->status.phase, "Failed") && finish_ms(s.pods[i]) > s.last_failure_ms)
			s.last_failure_ms = finish_ms(s.pods[i]);
	look_at_pods(&s);
	struct error *e = decide(&s, may_manage);

	s.st.active = (int32_t)s.n_active;
	s.st.ready = new_i32(a, s.ready);
	s.st.terminating = new_i32(a, s.terminating);
	if (s.indexed)
		s.st.completed_indexes = format_indexes(&s);
	struct error *w = write_status(&s);

	/* Only what has been written down may go: the finalizers come off behind the status. */
	if (!w)
		w = strip(&s, false);
	if (e && w) {
		error_free(w);
		return e;
	}
	return e ? e : w;
}

/* ---- what happens ---- */

static void on_job(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct job_controller *c = ctx;
	const struct cached_object *o = new_ ? new_ : old;
	arena_cleanup struct arena a = {0};

	workqueue_add(c->q, object_key(&a, o->ns, o->name));
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct job_controller *c = ctx;
	const struct cached_object *o = new_ ? new_ : old;
	arena_cleanup struct arena a = {0};

	if (!str_eqz(o->controller_kind, "Job"))
		return;
	struct str key = object_key(&a, o->ns, o->controller_name);

	if (ev == INFORMER_ADDED)
		creation_observed(&c->x, key);
	if (ev == INFORMER_DELETED || o->deleting)
		deletion_observed(&c->x, key, o->uid);
	workqueue_add(c->q, key);
}

void job_start(struct manager *m)
{
	struct job_controller *c = xcalloc(1, sizeof *c);

	c->m = m;
	c->q = workqueue_new("job");
	c->rec = event_recorder_new(m->client, "job-controller", "");
	c->jobs = manager_informer(m, &batch_v1_jobs_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	informer_on_event(c->jobs, on_job, c);
	informer_on_event(c->pods, on_pod, c);
	controller_run(m, c->q, "job", 5, reconcile, c, c->jobs, c->pods, NULL);
}
