/* Jobs and CronJobs. */
#include <ctype.h>
#include <unistd.h>

#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"

#define MANAGED_BY_MAX 63
#define INDEXED_PARALLELISM_MAX 100000
#define FAILED_INDEXES_MAX 100000
#define COMPLETIONS_SOFT 100000
#define PARALLELISM_HIGH 10000
#define FAILED_INDEXES_HIGH 10000
#define FAILURE_RULES_MAX 20
#define FAILURE_CODES_MAX 255
#define FAILURE_CONDITIONS_MAX 20
#define SUCCESS_RULES_MAX 20
#define SUCCEEDED_INDEXES_BYTES (64 << 10)

/* ---- indexes: "0,2-5" ---- */

static const char *go_int(struct str s, int64_t *out)
{
	return s.n && str_to_i64(s, out) ? NULL : "cannot convert string to integer for index";
}

/* One interval; an error text in the arena, or NULL. */
static const char *interval(struct arena *a, struct str s, int64_t completions, int64_t *x, int64_t *y)
{
	struct str rest = s, first = str_cut(&rest, '-'), last = rest;

	if (rest.p && str_index(rest, '-') >= 0)
		return arena_printf(a, "the fragment \"%.*s\" violates the requirement that an index interval can have at most two parts separated by '-'",
				    STR_ARG(s)).p;
	if (go_int(first, x))
		return arena_printf(a, "cannot convert string to integer for index: \"%.*s\"", STR_ARG(first)).p;
	if (*x >= completions)
		return arena_printf(a, "too large index: \"%.*s\"", STR_ARG(first)).p;
	*y = *x;
	if (!last.p)
		return NULL;
	if (go_int(last, y))
		return arena_printf(a, "cannot convert string to integer for index: \"%.*s\"", STR_ARG(last)).p;
	if (*y >= completions)
		return arena_printf(a, "too large index: \"%.*s\"", STR_ARG(last)).p;
	return *x >= *y ? arena_printf(a, "non-increasing order, previous: %lld, current: %lld", (long long)*x, (long long)*y).p : NULL;
}

static const char *indexes(struct arena *a, struct str s, int64_t completions, int64_t *total)
{
	int64_t last = -1, x, y;
	bool any = false;

	*total = 0;
	if (!s.n)
		return NULL;
	for (struct str rest = s; rest.p;) {
		const char *m = interval(a, str_cut(&rest, ','), completions, &x, &y);

		if (m)
			return m;
		if (any && last >= x)
			return arena_printf(a, "non-increasing order, previous: %lld, current: %lld", (long long)last, (long long)x).p;
		*total += y - x + 1;
		last = y;
		any = true;
	}
	return NULL;
}

/* The first index in both, or -1. Texts that cannot be read have none. */
static int64_t overlap(struct arena *a, struct str done, struct str failed, int64_t completions)
{
	for (struct str d = done; d.p && d.n;) {
		int64_t x, y;

		if (interval(a, str_cut(&d, ','), completions, &x, &y))
			continue;
		for (struct str f = failed; f.p && f.n;) {
			int64_t u, v;

			if (!interval(a, str_cut(&f, ','), completions, &u, &v) && x <= v && u <= y)
				return x > u ? x : u;
		}
	}
	return -1;
}

/* ---- the spec ---- */

static void failure_codes(struct field_errors *e, const struct field_path *p, const struct batch_v1_pod_failure_policy_on_exit_codes_requirement *c,
			  const struct batch_v1_job_spec *s)
{
	const struct field_path *values = AT(p, "values");
	bool found = false, ordered = true;
	struct buf text buf_cleanup = {0};

	if (!c->operator.n)
		field_required(e, AT(p, "operator"), "valid values: [\"In\" \"NotIn\"]");
	else
		field_one_of(e, AT(p, "operator"), c->operator, "In,NotIn");
	if (c->container_name) {
		for (uint32_t i = 0; i < s->template.spec.containers.n; i++)
			found |= str_eq(s->template.spec.containers.v[i].name, *c->container_name);
		for (uint32_t i = 0; i < s->template.spec.init_containers.n; i++)
			found |= str_eq(s->template.spec.init_containers.v[i].name, *c->container_name);
		if (!found)
			field_invalid(e, AT(p, "containerName"), *c->container_name,
				      "must be one of the container or initContainer names in the pod template");
	}
	buf_puts(&text, c->values.v ? "[" : "null");
	for (uint32_t i = 0; i < c->values.n; i++)
		buf_printf(&text, "%s%d", i ? "," : "", c->values.v[i]);
	if (c->values.v)
		buf_putc(&text, ']');
	if (!c->values.n)
		field_invalid_raw(e, values, arena_str(e->arena, buf_view(&text)), "at least one value is required");
	else if (c->values.n > FAILURE_CODES_MAX)
		field_too_many(e, values, c->values.n, FAILURE_CODES_MAX);
	for (uint32_t i = 0; i < c->values.n; i++) {
		if (str_eqz(c->operator, "In") && !c->values.v[i])
			field_invalid_int(e, EL(values, i), 0, "must not be 0 for the In operator");
		for (uint32_t k = 0; k < i; k++)
			if (c->values.v[k] == c->values.v[i]) {
				field_duplicate_int(e, EL(values, i), c->values.v[i]);
				break;
			}
		ordered &= !i || c->values.v[i - 1] <= c->values.v[i];
	}
	if (!ordered)
		field_invalid_raw(e, values, arena_str(e->arena, buf_view(&text)), "must be ordered");
}

static void failure_policy(struct field_errors *e, const struct field_path *p, const struct batch_v1_job_spec *s)
{
	const struct field_path *rules = AT(p, "rules");
	static const char actions[] = "Count,FailIndex,FailJob,Ignore";

	if (s->pod_failure_policy->rules.n > FAILURE_RULES_MAX)
		field_too_many(e, rules, s->pod_failure_policy->rules.n, FAILURE_RULES_MAX);
	for (uint32_t i = 0; i < s->pod_failure_policy->rules.n; i++) {
		const struct batch_v1_pod_failure_policy_rule *r = &s->pod_failure_policy->rules.v[i];
		const struct field_path *at = EL(rules, i), *conditions = AT(at, "onPodConditions");

		if (!r->action.n)
			field_required(e, AT(at, "action"), "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]");
		else if (!str_eqz(r->action, "FailIndex"))
			field_one_of(e, AT(at, "action"), r->action, actions);
		else if (!s->backoff_limit_per_index)
			field_invalid(e, AT(at, "action"), r->action, "requires the backoffLimitPerIndex to be set");
		if (r->on_exit_codes)
			failure_codes(e, AT(at, "onExitCodes"), r->on_exit_codes, s);
		if (r->on_pod_conditions.n > FAILURE_CONDITIONS_MAX)
			field_too_many(e, conditions, r->on_pod_conditions.n, FAILURE_CONDITIONS_MAX);
		for (uint32_t k = 0; k < r->on_pod_conditions.n; k++) {
			const struct field_path *c = EL(conditions, k);

			field_check(e, AT(c, "type"), r->on_pod_conditions.v[k].type, validate_qualified_name);
			if (!r->on_pod_conditions.v[k].status.n)
				field_required(e, AT(c, "status"), "valid values: [\"False\" \"True\" \"Unknown\"]");
			else
				field_one_of(e, AT(c, "status"), r->on_pod_conditions.v[k].status, "False,True,Unknown");
		}
		if (r->on_exit_codes && r->on_pod_conditions.n)
			field_invalid_omitted(e, at, "specifying both OnExitCodes and OnPodConditions is not supported");
		if (!r->on_exit_codes && !r->on_pod_conditions.n)
			field_invalid_omitted(e, at, "specifying one of OnExitCodes and OnPodConditions is required");
	}
}

static void success_policy(struct field_errors *e, const struct field_path *p, const struct batch_v1_job_spec *s)
{
	const struct field_path *rules = AT(p, "rules");
	int64_t completions = s->completions ? *s->completions : 0;

	if (!s->success_policy->rules.n)
		field_required(e, rules, "at least one rules must be specified when the successPolicy is specified");
	if (s->success_policy->rules.n > SUCCESS_RULES_MAX)
		field_too_many(e, rules, s->success_policy->rules.n, SUCCESS_RULES_MAX);
	for (uint32_t i = 0; i < s->success_policy->rules.n; i++) {
		const struct batch_v1_success_policy_rule *r = &s->success_policy->rules.v[i];
		const struct field_path *at = EL(rules, i), *count = AT(at, "succeededCount");
		int64_t total = 0;

		if (!r->succeeded_count && !r->succeeded_indexes)
			field_required(e, at, "at least one of succeededCount or succeededIndexes must be specified");
		if (r->succeeded_indexes) {
			const char *m = indexes(e->arena, *r->succeeded_indexes, completions, &total);

			if (r->succeeded_indexes->n > SUCCEEDED_INDEXES_BYTES)
				field_too_long(e, AT(at, "succeededIndexes"), SUCCEEDED_INDEXES_BYTES);
			if (m)
				field_invalid(e, AT(at, "succeededIndexes"), *r->succeeded_indexes, "error parsing succeededIndexes: %s", m);
			if (m)
				total = 0;
		}
		if (!r->succeeded_count)
			continue;
		rule_nonneg(e, count, *r->succeeded_count);
		if (*r->succeeded_count > completions)
			field_invalid_int(e, count, *r->succeeded_count, "must be less than or equal to %lld (the number of specified completions)",
					  (long long)completions);
		if (r->succeeded_indexes && *r->succeeded_count > total)
			field_invalid_int(e, count, *r->succeeded_count,
					  "must be less than or equal to %lld (the number of indexes in the specified succeededIndexes field)",
					  (long long)total);
	}
}

void rule_domain_prefixed_path(struct field_errors *e, const struct field_path *p, struct str v)
{
	struct str path = v, host = str_cut(&path, '/');

	if (!v.n) {
		field_required(e, p, "");
		return;
	}
	if (!host.n || !path.n) {
		field_invalid(e, p, v, "must be a domain-prefixed path (such as \"acme.io/foo\")");
		return;
	}
	field_check(e, p, host, validate_dns1123_subdomain);
	for (size_t i = 0; i < path.n; i++)
		if (!isalnum((unsigned char)path.p[i]) && (!path.p[i] || !strchr("/-._~%!$&'()*+,;=:", path.p[i]))) {
			field_invalid(e, p, path, "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%%!$&'()*+,;=:]+')");
			return;
		}
}

static void indexed(struct field_errors *e, const struct field_path *spec, const struct batch_v1_job_spec *s)
{
	const struct field_path *failed = AT(spec, "maxFailedIndexes"), *parallel = AT(spec, "parallelism");

	if (!s->completions)
		field_required(e, AT(spec, "completions"), "when completion mode is Indexed");
	if (s->parallelism && *s->parallelism > INDEXED_PARALLELISM_MAX)
		field_invalid_int(e, parallel, *s->parallelism, "must be less than or equal to %d when completion mode is Indexed",
				  INDEXED_PARALLELISM_MAX);
	if (s->completions && s->max_failed_indexes && *s->max_failed_indexes > *s->completions)
		field_invalid_int(e, failed, *s->max_failed_indexes, "must be less than or equal to completions");
	if (s->max_failed_indexes && *s->max_failed_indexes > FAILED_INDEXES_MAX)
		field_invalid_int(e, failed, *s->max_failed_indexes, "must be less than or equal to %d", FAILED_INDEXES_MAX);
	if (!s->completions || *s->completions <= COMPLETIONS_SOFT || !s->backoff_limit_per_index)
		return;
	if (!s->max_failed_indexes)
		field_required(e, failed, arena_printf(e->arena, "must be specified when completions is above %d", COMPLETIONS_SOFT).p);
	if (s->parallelism && *s->parallelism > PARALLELISM_HIGH)
		field_invalid_int(e, parallel, *s->parallelism,
				  "must be less than or equal to %d when completions are above %d and used with backoff limit per index",
				  PARALLELISM_HIGH, COMPLETIONS_SOFT);
	if (s->max_failed_indexes && *s->max_failed_indexes > FAILED_INDEXES_HIGH)
		field_invalid_int(e, failed, *s->max_failed_indexes,
				  "must be less than or equal to %d when completions are above %d and used with backoff limit per index",
				  FAILED_INDEXES_HIGH, COMPLETIONS_SOFT);
}

static bool is_indexed(const struct batch_v1_job_spec *s)
{
	return ptr_is(s->completion_mode, "Indexed");
}

/* What Jobs and templates of them share. `old`: the template before, or NULL. */
static void job_rules(struct field_errors *e, const struct field_path *spec, const struct batch_v1_job_spec *s,
		      const struct core_v1_pod_template_spec *old)
{
	const struct field_path *policy = AT(AT(AT(spec, "template"), "spec"), "restartPolicy");
	struct str restart = s->template.spec.restart_policy;

	rule_nonneg32(e, AT(spec, "parallelism"), s->parallelism);
	rule_nonneg32(e, AT(spec, "completions"), s->completions);
	rule_nonneg64(e, AT(spec, "activeDeadlineSeconds"), s->active_deadline_seconds);
	rule_nonneg32(e, AT(spec, "backoffLimit"), s->backoff_limit);
	rule_nonneg32(e, AT(spec, "ttlSecondsAfterFinished"), s->ttl_seconds_after_finished);
	rule_nonneg32(e, AT(spec, "backoffLimitPerIndex"), s->backoff_limit_per_index);
	rule_nonneg32(e, AT(spec, "maxFailedIndexes"), s->max_failed_indexes);
	if (s->max_failed_indexes && !s->backoff_limit_per_index)
		field_required(e, AT(spec, "backoffLimitPerIndex"), "when maxFailedIndexes is specified");
	if (s->managed_by) {
		rule_domain_prefixed_path(e, AT(spec, "managedBy"), *s->managed_by);
		if (s->managed_by->n > MANAGED_BY_MAX)
			field_too_long(e, AT(spec, "managedBy"), MANAGED_BY_MAX);
	}
	if (s->completion_mode)
		field_one_of(e, AT(spec, "completionMode"), *s->completion_mode, "NonIndexed,Indexed");
	if (is_indexed(s))
		indexed(e, spec, s);
	if (!s->completion_mode || ptr_is(s->completion_mode, "NonIndexed")) {
		if (s->backoff_limit_per_index)
			field_invalid_int(e, AT(spec, "backoffLimitPerIndex"), *s->backoff_limit_per_index, "requires indexed completion mode");
		if (s->max_failed_indexes)
			field_invalid_int(e, AT(spec, "maxFailedIndexes"), *s->max_failed_indexes, "requires indexed completion mode");
	}
	if (s->pod_failure_policy)
		failure_policy(e, AT(spec, "podFailurePolicy"), s);
	if (s->success_policy && !is_indexed(s))
		field_invalid_obj(e, AT(spec, "successPolicy"), &batch_v1_success_policy_type, s->success_policy, "requires indexed completion mode");
	else if (s->success_policy)
		success_policy(e, AT(spec, "successPolicy"), s);
	if (s->pod_replacement_policy)
		field_one_of(e, AT(spec, "podReplacementPolicy"), *s->pod_replacement_policy,
			     s->pod_failure_policy ? "Failed" : "Failed,TerminatingOrFailed");
	rule_pod_template(e, AT(spec, "template"), &s->template, old);
	if (!restart.n || str_eqz(restart, "Always"))
		field_required(e, policy, "valid values: \"OnFailure\", \"Never\"");
	else if (!str_eqz(restart, "OnFailure") && !str_eqz(restart, "Never"))
		field_unsupported(e, policy, restart, "OnFailure,Never");
	else if (s->pod_failure_policy && !str_eqz(restart, "Never"))
		field_invalid(e, policy, restart, "only \"Never\" is supported when podFailurePolicy is specified");
}

static void job_selector(struct field_errors *e, const struct batch_v1_job_spec *s, bool lax)
{
	const struct field_path *spec = FIELD_ROOT("spec");

	if (!s->selector)
		field_required(e, AT(spec, "selector"), "");
	else
		validate_label_selector_lax(e, s->selector, AT(spec, "selector"), lax);
	if (!rule_selects(e->arena, s->selector, API_MAP(&s->template.metadata.labels), NULL))
		field_invalid_map(e, AT(AT(AT(spec, "template"), "metadata"), "labels"), API_MAP(&s->template.metadata.labels),
				  "`selector` does not match template `labels`");
}

static void has_label(struct field_errors *e, const struct batch_v1_job *j, const char *key, struct str want)
{
	const struct str_map *labels = API_MAP(&j->spec.template.metadata.labels);
	const struct field_path *p = KEY(AT(AT(AT(FIELD_ROOT("spec"), "template"), "metadata"), "labels"), str_from(key));

	if (!str_map_has(labels, str_from(key)))
		field_required(e, p, arena_printf(e->arena, "must be '%.*s'", STR_ARG(want)).p);
	else if (!str_eq(str_map_get(labels, str_from(key)), want))
		field_invalid_map(e, p, labels, "must be '%.*s'", STR_ARG(want));
}

/* Labels and selector are those the server made, unless the client keeps its own. */
static void generated_selector(struct field_errors *e, const struct batch_v1_job *j, bool prefixed)
{
	struct str_map labels = {0};

	if (is_true(j->spec.manual_selector) || !j->spec.selector)
		return;
	has_label(e, j, "controller-uid", j->metadata.uid);
	has_label(e, j, "job-name", j->metadata.name);
	if (prefixed) {
		has_label(e, j, "batch.kubernetes.io/controller-uid", j->metadata.uid);
		has_label(e, j, "batch.kubernetes.io/job-name", j->metadata.name);
		str_map_set(e->arena, &labels, STR("batch.kubernetes.io/controller-uid"), j->metadata.uid);
		str_map_set(e->arena, &labels, STR("batch.kubernetes.io/job-name"), j->metadata.name);
	}
	str_map_set(e->arena, &labels, STR("controller-uid"), j->metadata.uid);
	str_map_set(e->arena, &labels, STR("job-name"), j->metadata.name);
	if (!rule_selects(e->arena, j->spec.selector, &labels, NULL))
		field_invalid_obj(e, AT(FIELD_ROOT("spec"), "selector"), &meta_v1_label_selector_type, j->spec.selector, "`selector` not auto-generated");
}

static void job_all(struct field_errors *e, const struct batch_v1_job *j, const struct batch_v1_job *o)
{
	bool prefixed = !o || (str_map_has(API_MAP(&o->spec.template.metadata.labels), STR("batch.kubernetes.io/job-name")) &&
			       str_map_has(API_MAP(&o->spec.template.metadata.labels), STR("batch.kubernetes.io/controller-uid")));

	generated_selector(e, j, prefixed);
	job_rules(e, FIELD_ROOT("spec"), &j->spec, o ? &o->spec.template : NULL);
	job_selector(e, &j->spec, o != NULL);
	if (is_indexed(&j->spec) && j->spec.completions && *j->spec.completions > 0) {
		struct str host = arena_printf(e->arena, "%.*s-%d", STR_ARG(j->metadata.name), *j->spec.completions - 1);

		if (validate_dns1123_label(e->arena, host))
			field_invalid(e, AT(FIELD_ROOT("metadata"), "name"), j->metadata.name,
				      "will not able to create pod with invalid DNS label: %.*s", STR_ARG(host));
	}
}

void job_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	job_all(e, obj, NULL);
}

static bool condition(const struct batch_v1_job *j, const char *type, const char *status)
{
	for (uint32_t i = 0; i < j->status.conditions.n; i++)
		if (str_eqz(j->status.conditions.v[i].type, type) && str_eqz(j->status.conditions.v[i].status, status))
			return true;
	return false;
}

/* What may still change in the template of a Job that does not run. */
static struct core_v1_pod_template_spec loosened(struct arena *a, const struct core_v1_pod_template_spec *was,
						 const struct core_v1_pod_template_spec *now)
{
	struct core_v1_pod_template_spec t = *was;
	struct core_v1_affinity *x = arena_new(a, struct core_v1_affinity);

	if (was->spec.affinity)
		*x = *was->spec.affinity;
	x->node_affinity = now->spec.affinity ? now->spec.affinity->node_affinity : NULL;
	t.spec.affinity = !now->spec.affinity && !x->pod_affinity && !x->pod_anti_affinity ? NULL :
			  !now->spec.affinity && !was->spec.affinity ? NULL : x;
	memcpy(&t.spec.node_selector, &now->spec.node_selector, sizeof t.spec.node_selector);
	memcpy(&t.spec.tolerations, &now->spec.tolerations, sizeof t.spec.tolerations);
	memcpy(&t.metadata.annotations, &now->metadata.annotations, sizeof t.metadata.annotations);
	memcpy(&t.metadata.labels, &now->metadata.labels, sizeof t.metadata.labels);
	memcpy(&t.spec.scheduling_gates, &now->spec.scheduling_gates, sizeof t.spec.scheduling_gates);
	return t;
}

static void same_resources(struct arena *a, void *list, const struct core_v1_container *now, uint32_t n)
{
	const struct {
		struct core_v1_container *v;
		uint32_t n, cap;
	} *l = list;
	LIST(struct core_v1_container) out = {0};

	if (l->n != n)
		return;
	for (uint32_t i = 0; i < n; i++) {
		struct core_v1_container *c = arena_push(a, &out);

		*c = l->v[i];
		if (str_eq(c->name, now[i].name))
			c->resources = now[i].resources;
	}
	memcpy(list, &out, sizeof out);
}

static void template_update(struct field_errors *e, const struct batch_v1_job *j, const struct batch_v1_job *o)
{
	const struct field_path *spec = FIELD_ROOT("spec");
	const struct core_v1_pod_template_spec *now = &j->spec.template;
	struct core_v1_pod_template_spec was = o->spec.template;
	bool suspended = is_true(o->spec.suspend),
	     mutable_ = suspended && (!o->status.start_time || condition(o, "Suspended", "True")) && !o->status.active;

	if (mutable_)
		was = loosened(e->arena, &was, now);
	if (!mutable_) {
		if (!object_equal(&core_v1_pod_template_spec_type, now, &was))
			field_invalid_obj(e, AT(spec, "template"), &core_v1_pod_template_spec_type, now, "field is immutable");
		return;
	}
	same_resources(e->arena, &was.spec.containers, now->spec.containers.v, now->spec.containers.n);
	same_resources(e->arena, &was.spec.init_containers, now->spec.init_containers.v, now->spec.init_containers.n);
	if (!object_equal(&core_v1_pod_spec_type, &now->spec, &was.spec))
		field_invalid_obj(e, AT(spec, "template.spec"), &core_v1_pod_spec_type, &now->spec, "field is immutable");
}

void job_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	static const char *const kept[] = {"selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"};
	const struct batch_v1_job *j = obj, *o = old;
	const struct field_path *spec = FIELD_ROOT("spec");
	const struct schema_type *t = &batch_v1_job_spec_type;

	(void)rq;
	job_all(e, j, o);
	job_rules(e, spec, &j->spec, &o->spec.template);
	job_selector(e, &j->spec, true);
	validate_object_meta_update(e, &j->metadata, &o->metadata, FIELD_ROOT("metadata"), true);
	if (!is_indexed(&j->spec))
		rule_immutable(e, AT(spec, "completions"), t, &j->spec, &o->spec, "completions");
	else if (!object_field_equal(t, &j->spec, &o->spec, "completions") && j->spec.completions && j->spec.parallelism &&
		 *j->spec.completions != *j->spec.parallelism)
		field_invalid_int(e, AT(spec, "completions"), *j->spec.completions, "can only be modified in tandem with spec.parallelism");
	rule_immutable(e, AT(spec, "selector"), t, &j->spec, &o->spec, "selector");
	template_update(e, j, o);
	for (size_t i = 1; i < sizeof kept / sizeof *kept; i++)
		rule_immutable(e, FIELD_CHILD_S(spec, str_from(kept[i])), t, &j->spec, &o->spec, kept[i]);
}

/* ---- status ---- */

static bool same_time(const struct api_time *a, const struct api_time *b)
{
	return !a == !b && (!a || (a->s == b->s && a->ns == b->ns));
}

static bool before(const struct api_time *a, const struct api_time *b)
{
	return a->s != b->s ? a->s < b->s : a->ns < b->ns;
}

static struct str time_text(struct arena *a, const struct api_time *t)
{
	return t ? arena_printf(a, "\"%.*s\"", STR_ARG(time_format(a, *t, false))) : STR("null");
}

static void uncounted(struct field_errors *e, const struct field_path *p, const struct batch_v1_uncounted_terminated_pods *u)
{
	struct strings seen = {0};

	for (int i = 0; u && i < 2; i++) {
		const struct strings *l = i ? (const void *)&u->failed : (const void *)&u->succeeded;

		for (uint32_t k = 0; k < l->n; k++) {
			const struct field_path *at = EL(FIELD_CHILD_S(p, i ? STR("failed") : STR("succeeded")), k);

			if (!l->v[k].n)
				field_invalid(e, at, l->v[k], "must not be empty");
			else if (strings_have(&seen, l->v[k]))
				field_duplicate(e, at, l->v[k]);
			else
				*arena_push(e->arena, &seen) = l->v[k];
		}
	}
}

void job_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct batch_v1_job *j = obj, *o = old;
	const struct batch_v1_job_status *s = &j->status, *w = &o->status;
	const struct field_path *p = FIELD_ROOT("status"), *conditions = AT(p, "conditions");
	bool complete = condition(j, "Complete", "True"), failed = condition(j, "Failed", "True"), target = condition(j, "FailureTarget", "True"),
	     met = condition(j, "SuccessCriteriaMet", "True"), finished = complete || failed, was_complete = condition(o, "Complete", "True"),
	     was_failed = condition(o, "Failed", "True"), was_target = condition(o, "FailureTarget", "True"),
	     was_met = condition(o, "SuccessCriteriaMet", "True"), finished_changed = finished != (was_complete || was_failed),
	     complete_changed = complete != was_complete, failed_changed = failed != was_failed,
	     done_changed = !str_eq(s->completed_indexes, w->completed_indexes),
	     indexes_changed = !s->failed_indexes != !w->failed_indexes || (s->failed_indexes && !str_eq(*s->failed_indexes, *w->failed_indexes)),
	     start_changed = !same_time(s->start_time, w->start_time), end_changed = !same_time(s->completion_time, w->completion_time),
	     active_changed = s->active != w->active, indexed_ = is_indexed(&j->spec),
	     resuming = condition(o, "Suspended", "True") && condition(j, "Suspended", "False"),
	     nothing_to_do = is_true(j->spec.suspend) && j->spec.completions && !*j->spec.completions;
	int64_t completions = j->spec.completions ? *j->spec.completions : 0, total;
	const char *m;

	(void)rq;
	if (strcmp(sub, "status"))
		return;
	rule_nonneg(e, AT(p, "active"), s->active);
	rule_nonneg(e, AT(p, "succeeded"), s->succeeded);
	rule_nonneg(e, AT(p, "failed"), s->failed);
	rule_nonneg32(e, AT(p, "ready"), s->ready);
	rule_nonneg32(e, AT(p, "terminating"), s->terminating);
	uncounted(e, AT(p, "uncountedTerminatedPods"), s->uncounted_terminated_pods);
	if ((complete_changed || failed_changed) && complete && failed)
		field_invalid_omitted(e, conditions, "cannot set Complete=True and Failed=true conditions");
	if ((complete_changed || target != was_target) && complete && target)
		field_invalid_omitted(e, conditions, "cannot set Complete=True and FailureTarget=true conditions");
	if ((complete_changed || end_changed) && s->completion_time && !complete)
		field_invalid_raw(e, AT(p, "completionTime"), time_text(e->arena, s->completion_time),
				  "cannot set completionTime when there is no Complete=True condition");
	if ((complete_changed || end_changed) && !s->completion_time && complete)
		field_required(e, AT(p, "completionTime"), "completionTime is required for Complete jobs");
	if ((start_changed || end_changed) && s->start_time && s->completion_time && before(s->completion_time, s->start_time))
		field_invalid_raw(e, AT(p, "completionTime"), time_text(e->arena, s->completion_time), "must be equal to or after `startTime`");
	if ((failed_changed || indexes_changed) && failed && !target)
		field_invalid_omitted(e, conditions, "cannot set Failed=True condition without the FailureTarget=true condition");
	if ((complete_changed || met != was_met) && complete && !met)
		field_invalid_omitted(e, conditions, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
	if ((finished_changed || active_changed) && s->active > 0 && finished)
		field_invalid_int(e, AT(p, "active"), s->active, "active>0 is invalid for finished job");
	if ((finished_changed || start_changed) && !nothing_to_do && !s->start_time && finished)
		field_required(e, AT(p, "startTime"), "startTime is required for finished job");
	if ((finished_changed || !object_field_equal(&batch_v1_job_status_type, s, w, "uncountedTerminatedPods")) && finished &&
	    s->uncounted_terminated_pods && s->uncounted_terminated_pods->failed.n + s->uncounted_terminated_pods->succeeded.n)
		field_invalid_obj(e, AT(p, "uncountedTerminatedPods"), &batch_v1_uncounted_terminated_pods_type, s->uncounted_terminated_pods,
				  "must be empty for finished job");
	if (done_changed && j->spec.completions && (m = indexes(e->arena, s->completed_indexes, completions, &total)) != NULL)
		field_invalid(e, AT(p, "completedIndexes"), s->completed_indexes, "error parsing completedIndexes: %s", m);
	if (indexes_changed && j->spec.completions && j->spec.backoff_limit_per_index && s->failed_indexes &&
	    (m = indexes(e->arena, *s->failed_indexes, completions, &total)) != NULL)
		field_invalid(e, AT(p, "failedIndexes"), *s->failed_indexes, "error parsing failedIndexes: %s", m);
	if (done_changed && s->completed_indexes.n && !indexed_)
		field_invalid(e, AT(p, "completedIndexes"), s->completed_indexes, "cannot set non-empty completedIndexes when non-indexed completion mode");
	if (indexes_changed && !j->spec.backoff_limit_per_index && s->failed_indexes)
		field_invalid(e, AT(p, "failedIndexes"), *s->failed_indexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
	if ((indexes_changed || done_changed) && j->spec.completions && s->failed_indexes) {
		int64_t at = overlap(e->arena, s->completed_indexes, *s->failed_indexes, completions);

		if (at >= 0)
			field_invalid(e, AT(p, "failedIndexes"), *s->failed_indexes, "failedIndexes and completedIndexes overlap at index: %lld",
				      (long long)at);
	}
	if ((finished_changed || !object_field_equal(&batch_v1_job_status_type, s, w, "terminating")) && s->terminating && *s->terminating > 0 && finished)
		field_invalid_int(e, AT(p, "terminating"), *s->terminating, "terminating>0 is invalid for finished job");
	if ((active_changed || !object_field_equal(&batch_v1_job_status_type, s, w, "ready")) && s->ready && *s->ready > s->active)
		field_invalid_int(e, AT(p, "ready"), *s->ready, "cannot set more ready pods than active");
	if (met && failed)
		field_invalid_omitted(e, conditions, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
	if (met && target)
		field_invalid_omitted(e, conditions, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
	if (j->spec.success_policy && !met && complete)
		field_invalid_omitted(e, conditions, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True");
	if (was_failed && !failed)
		field_invalid_omitted(e, conditions, "cannot disable the terminal Failed=True condition");
	if (was_complete && !complete)
		field_invalid_omitted(e, conditions, "cannot disable the terminal Complete=True condition");
	if (was_target && !target)
		field_invalid_omitted(e, conditions, "cannot disable the terminal FailureTarget=True condition");
	if (s->failed < w->failed)
		field_invalid_int(e, AT(p, "failed"), s->failed, "cannot decrease the failed counter");
	if (s->succeeded < w->succeeded && (!indexed_ || !j->spec.completions != !j->spec.parallelism ||
					    (j->spec.completions && *j->spec.completions != *j->spec.parallelism)))
		field_invalid_int(e, AT(p, "succeeded"), s->succeeded, "cannot decrease the succeeded counter");
	if (s->completion_time && w->completion_time && end_changed)
		field_invalid_raw(e, AT(p, "completionTime"), time_text(e->arena, s->completion_time), "field is immutable");
	if (start_changed && !resuming && w->start_time && !is_true(j->spec.suspend))
		field_invalid_raw(e, AT(p, "startTime"), time_text(e->arena, s->start_time), "field is immutable for unsuspended job once set");
	if (was_met && !met)
		field_invalid_omitted(e, conditions, "cannot disable the SuccessCriteriaMet=True condition");
	if (was_complete && !was_met && met)
		field_invalid_omitted(e, conditions, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
}

/* ---- schedules: the five fields of cron, as github.com/robfig/cron reads them ---- */

struct cron_field {
	int64_t min, max;
	const char *names; /* in order from `first`, separated by commas */
	int64_t first;
};
static const struct cron_field cron_fields[] = {
	{0, 59, NULL, 0},
	{0, 23, NULL, 0},
	{1, 31, NULL, 0},
	{1, 12, "jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec", 1},
	{0, 6, "sun,mon,tue,wed,thu,fri,sat", 0},
};

static const char *cron_number(struct arena *a, struct str s, const struct cron_field *f, int64_t *out)
{
	int64_t n = f ? f->first : 0;

	for (struct str rest = str_from(f && f->names ? f->names : ""); rest.n; n++)
		if (str_eq_nocase(str_cut(&rest, ','), s)) {
			*out = n;
			return NULL;
		}
	if (!s.n || !str_to_i64(s, out))
		return arena_printf(a, "failed to parse int from %.*s: strconv.Atoi: parsing \"%.*s\": invalid syntax", STR_ARG(s), STR_ARG(s)).p;
	return *out < 0 ? arena_printf(a, "negative number (%lld) not allowed: %.*s", (long long)*out, STR_ARG(s)).p : NULL;
}

static const char *cron_range(struct arena *a, struct str s, const struct cron_field *f)
{
	struct str step_text = s, range = str_cut(&step_text, '/'), high_text = range, low = str_cut(&high_text, '-');
	bool single = !high_text.p;
	int64_t start, end, step = 1;
	const char *m;

	if (str_eqz(low, "*") || str_eqz(low, "?")) {
		start = f->min;
		end = f->max;
	} else {
		if ((m = cron_number(a, low, f, &start)) != NULL)
			return m;
		end = start;
		if (high_text.p && str_index(high_text, '-') >= 0)
			return arena_printf(a, "too many hyphens: %.*s", STR_ARG(s)).p;
		if (high_text.p && (m = cron_number(a, high_text, f, &end)) != NULL)
			return m;
	}
	if (step_text.p) {
		if (str_index(step_text, '/') >= 0)
			return arena_printf(a, "too many slashes: %.*s", STR_ARG(s)).p;
		if ((m = cron_number(a, step_text, NULL, &step)) != NULL)
			return m;
		if (single)
			end = f->max;
	}
	if (start < f->min)
		return arena_printf(a, "beginning of range (%lld) below minimum (%lld): %.*s", (long long)start, (long long)f->min, STR_ARG(s)).p;
	if (end > f->max)
		return arena_printf(a, "end of range (%lld) above maximum (%lld): %.*s", (long long)end, (long long)f->max, STR_ARG(s)).p;
	if (start > end)
		return arena_printf(a, "beginning of range (%lld) beyond end of range (%lld): %.*s", (long long)start, (long long)end, STR_ARG(s)).p;
	return step ? NULL : arena_printf(a, "step of range should be a positive number: %.*s", STR_ARG(s)).p;
}

static const char *cron_error(struct arena *a, struct str s)
{
	static const char known[] = "@yearly,@annually,@monthly,@weekly,@daily,@midnight,@hourly";
	struct strings fields = {0};
	const char *m;
	int64_t ns;

	if (!s.n)
		return "empty spec string";
	if (str_has_prefix(s, STR("TZ=")) || str_has_prefix(s, STR("CRON_TZ="))) {
		ptrdiff_t space = str_index(s, ' ');

		s = space < 0 ? STR("") : str_trim(str_sub(s, (size_t)space, s.n));
	}
	if (s.n && s.p[0] == '@') {
		for (struct str rest = str_from(known); rest.p;)
			if (str_eq(str_cut(&rest, ','), s))
				return NULL;
		if (!str_has_prefix(s, STR("@every ")))
			return arena_printf(a, "unrecognized descriptor: %.*s", STR_ARG(s)).p;
		return duration_parse(str_sub(s, 7, s.n), &ns) ? NULL :
		       arena_printf(a, "failed to parse duration %.*s: time: invalid duration \"%.*s\"", STR_ARG(s), STR_ARG(str_sub(s, 7, s.n))).p;
	}
	for (struct str rest = s; rest.p;) {
		struct str f = str_cut(&rest, ' ');

		if (f.n)
			*arena_push(a, &fields) = f;
	}
	if (fields.n != 5) {
		struct buf b buf_cleanup = {0};

		for (uint32_t i = 0; i < fields.n; i++)
			buf_printf(&b, "%s%.*s", i ? " " : "", STR_ARG(fields.v[i]));
		return arena_printf(a, "expected exactly 5 fields, found %u: [%s]", fields.n, buf_z(&b)).p;
	}
	for (uint32_t i = 0; i < 5; i++)
		for (struct str rest = fields.v[i]; rest.p;) {
			struct str one = str_cut(&rest, ',');

			if (one.n && (m = cron_range(a, one, &cron_fields[i])) != NULL)
				return m;
		}
	return NULL;
}

#define ZONES "/usr/share/zoneinfo"

static void time_zone(struct field_errors *e, const struct field_path *p, const struct str *z)
{
	if (!z)
		return;
	if (!z->n) {
		field_invalid(e, p, *z, "timeZone must be nil or non-empty string");
		return;
	}
	for (struct str rest = *z; rest.p;) {
		struct str part = str_cut(&rest, '/');
		bool ok = part.n >= 1 && part.n <= 14 && !str_eqz(part, ".") && !str_eqz(part, "..") && part.p[0] != '-';

		for (size_t i = 0; i < part.n; i++)
			ok = ok && (isalnum((unsigned char)part.p[i]) || (part.p[i] && strchr(".-_+", part.p[i])));
		if (!ok) {
			field_invalid(e, p, *z, "unknown time zone %.*s", STR_ARG(*z));
			return;
		}
	}
	if (str_eq_nocase(*z, STR("Local")))
		field_invalid(e, p, *z, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
	/* without the time zone database, what the controller knows is all there is */
	if (!str_eqz(*z, "UTC") && !str_eqz(*z, "Local") && access(ZONES, F_OK) == 0 &&
	    access(arena_strz(e->arena, arena_printf(e->arena, ZONES "/%.*s", STR_ARG(*z))), R_OK) != 0)
		field_invalid(e, p, *z, "unknown time zone %.*s", STR_ARG(*z));
}

static void cronjob_rules(struct field_errors *e, const struct batch_v1_cron_job_spec *s, const struct batch_v1_cron_job_spec *o)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *schedule = AT(spec, "schedule"), *job = AT(AT(spec, "jobTemplate"), "spec");
	bool tz = str_contains(s->schedule, STR("TZ")), tz_allowed = o && str_contains(o->schedule, STR("TZ"));

	if (!s->schedule.n) {
		field_required(e, schedule, "");
	} else {
		const char *m = cron_error(e->arena, s->schedule);

		if (m)
			field_invalid(e, schedule, s->schedule, "%s", m);
		if (tz && tz_allowed && s->time_zone)
			field_invalid(e, schedule, s->schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
		if (tz && !tz_allowed)
			field_invalid(e, schedule, s->schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
	}
	rule_nonneg64(e, AT(spec, "startingDeadlineSeconds"), s->starting_deadline_seconds);
	if (!o || !object_field_equal(&batch_v1_cron_job_spec_type, s, o, "timeZone"))
		time_zone(e, AT(spec, "timeZone"), s->time_zone);
	rule_enum(e, AT(spec, "concurrencyPolicy"), s->concurrency_policy, "Allow,Forbid,Replace");
	job_rules(e, job, &s->job_template.spec, o ? &o->job_template.spec.template : NULL);
	if (s->job_template.spec.selector)
		field_invalid_obj(e, AT(job, "selector"), &meta_v1_label_selector_type, s->job_template.spec.selector, "`selector` will be auto-generated");
	if (is_true(s->job_template.spec.manual_selector)) {
		static const struct str values[] = {STR_INIT("nil"), STR_INIT("false")};

		field_not_supported_raw(e, AT(job, "manualSelector"), STR("true"), values, 2);
	}
	rule_nonneg32(e, AT(spec, "successfulJobsHistoryLimit"), s->successful_jobs_history_limit);
	rule_nonneg32(e, AT(spec, "failedJobsHistoryLimit"), s->failed_jobs_history_limit);
}

void cronjob_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct batch_v1_cron_job *c = obj;

	(void)rq;
	cronjob_rules(e, &c->spec, NULL);
	/* its Jobs' names are longer by 11 */
	if (c->metadata.name.n > 52)
		field_invalid(e, AT(FIELD_ROOT("metadata"), "name"), c->metadata.name, "must be no more than 52 characters");
}

void cronjob_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	cronjob_rules(e, &((const struct batch_v1_cron_job *)obj)->spec, &((const struct batch_v1_cron_job *)old)->spec);
}

/* ---- warnings ---- */

static void job_spec_warn(struct request *rq, const struct field_path *p, const struct batch_v1_job_spec *s)
{
	if (is_indexed(s) && s->completions && *s->completions > COMPLETIONS_SOFT && s->parallelism && *s->parallelism > PARALLELISM_HIGH)
		request_warn(rq, "%s: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might "
				 "not be able to track completedIndexes when a big number of indexes fail",
			     arena_strz(rq->a, field_path_format(rq->a, p)));
	template_warn(rq, AT(p, "template"), &s->template);
}

void job_warn(struct request *rq, const void *obj, const void *old)
{
	const struct batch_v1_job *j = obj, *o = old;

	if (!o)
		workload_name_warn(rq, j->metadata.name);
	if (!o || j->metadata.generation != o->metadata.generation)
		job_spec_warn(rq, FIELD_ROOT("spec"), &j->spec);
}

void cronjob_warn(struct request *rq, const void *obj, const void *old)
{
	const struct batch_v1_cron_job *c = obj, *o = old;

	if (!o)
		workload_name_warn(rq, c->metadata.name);
	if (!o || c->metadata.generation != o->metadata.generation)
		job_spec_warn(rq, AT(AT(FIELD_ROOT("spec"), "jobTemplate"), "spec"), &c->spec.job_template.spec);
	if (o && str_contains(c->spec.schedule, STR("TZ")))
		request_warn(rq, "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see "
				 "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details");
}
