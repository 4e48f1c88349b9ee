/* A Job's pods one by one: indexes, what a failure means, when the next try is, pods made from the template. */
#include "controller/job.h"

#include <stdlib.h>

#define INDEX "batch.kubernetes.io/job-completion-index"
#define FAILURES "batch.kubernetes.io/job-index-failure-count"
#define IGNORED "batch.kubernetes.io/job-index-ignored-failure-count"
#define BACKOFF_MS 10000
#define BACKOFF_MAX_MS 600000
#define NAME_MAX_GENERATED 58 /* the API server adds five */

/* ---- indexes ---- */

static void append(struct arena *a, struct indexes *x, struct index_range r)
{
	struct index_range *last = x->n ? &x->v[x->n - 1] : NULL;

	if (!last || r.first > last->last + 1)
		*arena_push(a, x) = r;
	else if (r.last > last->last)
		last->last = r.last;
}

struct indexes indexes_parse(struct arena *a, struct str text, int32_t completions)
{
	struct indexes x = {0};

	while (text.p) {
		struct str high = str_cut(&text, ','), low = str_cut(&high, '-');
		int64_t first, last;

		if (!str_to_i64(low, &first) || first < 0 || first >= completions)
			continue;
		last = first;
		if (high.p && (!str_to_i64(high, &last) || last < first))
			continue;
		append(a, &x, (struct index_range){(int32_t)first, last >= completions ? completions - 1 : (int32_t)last});
	}
	return x;
}

struct str indexes_format(struct arena *a, const struct indexes *x)
{
	struct buf buf_cleanup b = {0};

	for (uint32_t i = 0; i < x->n; i++) {
		int32_t first = x->v[i].first, last = x->v[i].last;

		buf_printf(&b, "%s%d", i ? "," : "", first);
		if (last > first)
			buf_printf(&b, "%c%d", last == first + 1 ? ',' : '-', last);
	}
	return arena_str(a, buf_view(&b));
}

bool indexes_have(const struct indexes *x, int32_t i)
{
	uint32_t lo = 0, hi = x->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (x->v[mid].last < i)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < x->n && x->v[lo].first <= i;
}

int32_t indexes_count(const struct indexes *x)
{
	int32_t n = 0;

	for (uint32_t i = 0; i < x->n; i++)
		n += x->v[i].last - x->v[i].first + 1;
	return n;
}

struct indexes indexes_merge(struct arena *a, const struct indexes *x, const struct indexes *y)
{
	struct indexes r = {0};
	uint32_t i = 0, k = 0;

	while (i < x->n || k < y->n) {
		bool from_x = k == y->n || (i < x->n && x->v[i].first < y->v[k].first);

		append(a, &r, from_x ? x->v[i++] : y->v[k++]);
	}
	return r;
}

static int cmp_i32(const void *pa, const void *pb)
{
	int32_t x = *(const int32_t *)pa, y = *(const int32_t *)pb;

	return x == y ? 0 : x < y ? -1 : 1;
}

struct indexes indexes_with(struct arena *a, const struct indexes *x, int32_t *more, size_t n)
{
	struct indexes y = {0};

	if (n)
		qsort(more, n, sizeof(*more), cmp_i32);
	for (size_t i = 0; i < n; i++)
		append(a, &y, (struct index_range){more[i], more[i]});
	return indexes_merge(a, x, &y);
}

int32_t indexes_common(const struct indexes *x, const struct indexes *y)
{
	int32_t n = 0;
	uint32_t i = 0, k = 0;

	while (i < x->n && k < y->n) {
		const struct index_range *p = &x->v[i], *q = &y->v[k];
		int32_t first = p->first > q->first ? p->first : q->first, last = p->last < q->last ? p->last : q->last;

		if (last >= first)
			n += last - first + 1;
		i += p->last <= q->last;
		k += q->last <= p->last;
	}
	return n;
}

/* ---- what a pod says ---- */

static int32_t annotation(const pod_t *p, const char *key, int32_t none)
{
	int64_t v;

	return str_to_i64(str_map_get(API_MAP(&p->metadata.annotations), str_from(key)), &v) && v >= 0 && v <= INT32_MAX ? (int32_t)v : none;
}

int32_t job_pod_index(const pod_t *p)
{
	return annotation(p, INDEX, -1);
}

int32_t job_pod_failures(const pod_t *p)
{
	return annotation(p, FAILURES, 0);
}

int32_t job_pod_ignored_failures(const pod_t *p)
{
	return annotation(p, IGNORED, 0);
}

bool job_replaces_failed_only(const job_t *j)
{
	return j->spec.pod_failure_policy || (j->spec.pod_replacement_policy && str_eqz(*j->spec.pod_replacement_policy, "Failed"));
}

bool job_pod_failed(const job_t *j, const pod_t *p)
{
	if (str_eqz(p->status.phase, "Failed"))
		return true;
	/* An orphan that is deleted may never get the chance to fail. */
	return !job_replaces_failed_only(j) && p->metadata.deletion_timestamp && !str_eqz(p->status.phase, "Succeeded");
}

static bool is_sidecar(const pod_t *p, struct str name)
{
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++)
		if (str_eq(p->spec.init_containers.v[i].name, name))
			return p->spec.init_containers.v[i].restart_policy && str_eqz(*p->spec.init_containers.v[i].restart_policy, "Always");
	return false;
}

int64_t job_pod_finished_ms(const pod_t *p)
{
	int64_t last = -1;
	bool all = true;

	for (uint32_t i = 0; i < p->status.container_statuses.n + p->status.init_container_statuses.n && all; i++) {
		uint32_t n = p->status.container_statuses.n;
		const struct core_v1_container_status *s = i < n ? &p->status.container_statuses.v[i] : &p->status.init_container_statuses.v[i - n];

		if (i >= n && !is_sidecar(p, s->name))
			continue;
		all = s->state.terminated && s->state.terminated->finished_at.set;
		if (all && time_ms(s->state.terminated->finished_at) > last)
			last = time_ms(s->state.terminated->finished_at);
	}
	if (all && last >= 0)
		return last;
	const struct core_v1_pod_condition *ready = pod_condition(p, "Ready");

	if (ready && str_eqz(ready->status, "False") && ready->last_transition_time.set)
		return time_ms(ready->last_transition_time);
	if (p->metadata.deletion_timestamp)
		return time_ms(*p->metadata.deletion_timestamp) -
		       (p->metadata.deletion_grace_period_seconds ? *p->metadata.deletion_grace_period_seconds * 1000 : 0);
	return time_ms(p->metadata.creation_timestamp);
}

/* ---- pod failure policy (KEP-3329) ---- */

static const struct core_v1_container_status *exit_code_match(const struct core_v1_container_status *v, uint32_t n,
							       const struct batch_v1_pod_failure_policy_on_exit_codes_requirement *q)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct core_v1_container_state_terminated *t = v[i].state.terminated;
		bool in = false;

		if (!t || !t->exit_code || (q->container_name && !str_eq(*q->container_name, v[i].name)))
			continue;
		for (uint32_t k = 0; k < q->values.n; k++)
			in |= q->values.v[k] == t->exit_code;
		if (str_eqz(q->operator, "In") ? in : str_eqz(q->operator, "NotIn") && !in)
			return &v[i];
	}
	return NULL;
}

static const struct core_v1_pod_condition *condition_match(const pod_t *p, const struct batch_v1_pod_failure_policy_rule *rule)
{
	for (uint32_t i = 0; i < p->status.conditions.n; i++)
		for (uint32_t k = 0; k < rule->on_pod_conditions.n; k++)
			if (str_eq(p->status.conditions.v[i].type, rule->on_pod_conditions.v[k].type) &&
			    str_eq(p->status.conditions.v[i].status, rule->on_pod_conditions.v[k].status))
				return &p->status.conditions.v[i];
	return NULL;
}

enum failure_action job_failure_action(struct arena *a, const job_t *j, const pod_t *p, struct str *message)
{
	const struct batch_v1_pod_failure_policy *policy = j->spec.pod_failure_policy;

	for (uint32_t i = 0; policy && i < policy->rules.n; i++) {
		const struct batch_v1_pod_failure_policy_rule *rule = &policy->rules.v[i];
		const struct core_v1_container_status *s = NULL;
		const struct core_v1_pod_condition *c = NULL;

		if (rule->on_exit_codes) {
			s = exit_code_match(p->status.container_statuses.v, p->status.container_statuses.n, rule->on_exit_codes);
			if (!s)
				s = exit_code_match(p->status.init_container_statuses.v, p->status.init_container_statuses.n, rule->on_exit_codes);
		} else {
			c = condition_match(p, rule);
		}
		if (!s && !c)
			continue;
		if (str_eqz(rule->action, "Ignore"))
			return FAILURE_IGNORE;
		if (str_eqz(rule->action, "FailIndex"))
			return FAILURE_FAIL_INDEX;
		if (str_eqz(rule->action, "Count"))
			return FAILURE_COUNT;
		if (!str_eqz(rule->action, "FailJob"))
			continue;
		if (message && s)
			*message = arena_printf(a, "Container %.*s for pod %.*s/%.*s failed with exit code %d matching %.*s rule at index %u",
						STR_ARG(s->name), STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name),
						s->state.terminated->exit_code, STR_ARG(rule->action), i);
		else if (message)
			*message = arena_printf(a, "Pod %.*s/%.*s has condition %.*s matching %.*s rule at index %u", STR_ARG(p->metadata.namespace),
						STR_ARG(p->metadata.name), STR_ARG(c->type), STR_ARG(rule->action), i);
		return FAILURE_FAIL_JOB;
	}
	return FAILURE_COUNT;
}

bool job_index_failed(struct arena *a, const job_t *j, const pod_t *p)
{
	if (!job_pod_failed(j, p))
		return false;
	enum failure_action action = job_failure_action(a, j, p, NULL);

	return action == FAILURE_FAIL_INDEX || (action != FAILURE_IGNORE && job_pod_failures(p) >= *j->spec.backoff_limit_per_index);
}

/* ---- success policy (KEP-3998) ---- */

bool job_success_policy(struct arena *a, const job_t *j, const struct indexes *succeeded, struct str *message)
{
	const struct batch_v1_success_policy *s = j->spec.success_policy;

	for (uint32_t i = 0; s && succeeded->n && i < s->rules.n; i++) {
		const struct batch_v1_success_policy_rule *rule = &s->rules.v[i];
		bool met;

		if (rule->succeeded_indexes) {
			struct indexes wanted = indexes_parse(a, *rule->succeeded_indexes, *j->spec.completions);
			int32_t n = indexes_common(&wanted, succeeded);

			met = wanted.n && (n == indexes_count(&wanted) || (rule->succeeded_count && n >= *rule->succeeded_count));
		} else {
			met = rule->succeeded_count && indexes_count(succeeded) >= *rule->succeeded_count;
		}
		if (!met)
			continue;
		*message = arena_printf(a, "Matched rules at index %u", i);
		return true;
	}
	return false;
}

/* ---- the next try ---- */

int64_t job_backoff_ms(int32_t failures, int64_t last_ms)
{
	int64_t wait = BACKOFF_MS;

	if (failures <= 0)
		return 0;
	for (int32_t i = 1; i < failures && wait < BACKOFF_MAX_MS; i++)
		wait *= 2;
	int64_t left = last_ms + (wait > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : wait) - wall_ms();

	return left > 0 ? left : 0;
}

static void add_index_env(struct arena *a, struct core_v1_container *c)
{
	for (uint32_t i = 0; i < c->env.n; i++)
		if (str_eqz(c->env.v[i].name, "JOB_COMPLETION_INDEX"))
			return;
	struct core_v1_env_var *env = arena_push(a, &c->env);

	env->name = STR("JOB_COMPLETION_INDEX");
	env->value_from = arena_new(a, struct core_v1_env_var_source);
	env->value_from->field_ref = arena_new(a, struct core_v1_object_field_selector);
	env->value_from->field_ref->field_path = STR("metadata.labels['" INDEX "']");
}

static void add_failures(struct arena *a, const job_t *j, pod_t *p, const pod_t *replaced)
{
	int32_t counted = replaced ? job_pod_failures(replaced) : 0, ignored = replaced ? job_pod_ignored_failures(replaced) : 0;

	if (replaced && job_failure_action(a, j, replaced, NULL) == FAILURE_IGNORE)
		ignored++;
	else if (replaced)
		counted++;
	str_map_set(a, API_MAP(&p->metadata.annotations), STR(FAILURES), arena_printf(a, "%d", counted));
	if (ignored)
		str_map_set(a, API_MAP(&p->metadata.annotations), STR(IGNORED), arena_printf(a, "%d", ignored));
}

pod_t *job_new_pod(struct arena *a, const job_t *j, int32_t index, const pod_t *replaced)
{
	struct owner owner = {&batch_v1_jobs_resource, &j->metadata};
	pod_t *p = pod_from_template(a, &j->spec.template, j->metadata.namespace, STR_NULL, &owner);

	if (!job_pod_tracked(p))
		*arena_push(a, &p->metadata.finalizers) = STR(JOB_TRACKING);
	if (index < 0)
		return p;
	struct str text = arena_printf(a, "%d", index), end = arena_printf(a, "-%d-", index);

	str_map_set(a, API_MAP(&p->metadata.annotations), STR(INDEX), text);
	str_map_set(a, API_MAP(&p->metadata.labels), STR(INDEX), text);
	p->spec.hostname = arena_printf(a, "%.*s-%d", STR_ARG(j->metadata.name), index);
	p->metadata.generate_name = arena_printf(a, "%.*s%.*s", STR_ARG(str_sub(j->metadata.name, 0, NAME_MAX_GENERATED - end.n)), STR_ARG(end));
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++)
		add_index_env(a, &p->spec.init_containers.v[i]);
	for (uint32_t i = 0; i < p->spec.containers.n; i++)
		add_index_env(a, &p->spec.containers.v[i]);
	if (j->spec.backoff_limit_per_index)
		add_failures(a, j, p, replaced);
	return p;
}
