#include "scheduler/config.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/buf.h"
#include "schema/codec.h"
#include "scheduler/framework.h"

/* Upstream's system defaults of PodTopologySpread (KEP-1258). */
static const struct core_v1_topology_spread_constraint system_spread[] = {
	{.topology_key = STR_INIT("kubernetes.io/hostname"), .when_unsatisfiable = STR_INIT("ScheduleAnyway"), .max_skew = 3},
	{.topology_key = STR_INIT("topology.kubernetes.io/zone"), .when_unsatisfiable = STR_INIT("ScheduleAnyway"), .max_skew = 5},
};

static bool has_point(const struct plugin *p, enum point at)
{
	switch (at) {
	case POINT_PRE_ENQUEUE: return p->pre_enqueue != NULL;
	case POINT_PRE_FILTER: return p->pre_filter != NULL;
	case POINT_FILTER: return p->filter != NULL;
	case POINT_PRE_SCORE: return p->pre_score != NULL;
	case POINT_SCORE: return p->score != NULL;
	case POINT_RESERVE: return p->reserve != NULL;
	case POINT_PRE_BIND: return p->pre_bind != NULL;
	case POINT_POST_FILTER: case N_POINTS: break;
	}
	return false;
}

static void profile_default(struct profile *p)
{
	*p = (struct profile){
		.name = STR("default-scheduler"), .preemption = true, .hard_affinity_weight = 1,
		.fit_resources = {{STR("cpu"), 1}, {STR("memory"), 1}}, .n_fit_resources = 2,
		.balanced = {{STR("cpu"), 1}, {STR("memory"), 1}}, .n_balanced = 2,
		.spread = system_spread, .n_spread = 2, .system_spread = true,
		.bind_timeout_ms = 600000, .candidates_percent = 10, .candidates_min = 100,
	};
	for (int i = 0; i < n_plugins; i++) {
		p->weight[i] = plugins[i]->weight;
		for (int at = 0; at < N_POINTS; at++)
			if (has_point(plugins[i], at))
				p->on[at] |= 1u << i;
	}
}

void scheduler_config_default(struct scheduler_config *out)
{
	*out = (struct scheduler_config){
		.n_profiles = 1, .backoff_min_ms = 1000, .backoff_max_ms = 10000, .leader_elect = true, .lease_ms = 15000, .renew_ms = 10000,
		.retry_ms = 2000, .leader_ns = "kube-system", .leader_name = "kube-scheduler",
	};
	profile_default(&out->profiles[0]);
}

const struct profile *scheduler_profile(const struct scheduler_config *c, struct str name)
{
	for (int i = 0; i < c->n_profiles; i++)
		if (str_eq(c->profiles[i].name, name))
			return &c->profiles[i];
	return NULL;
}

/* ---- plugins ---- */

static int plugin_index(struct str name)
{
	for (int i = 0; i < n_plugins; i++)
		if (str_eqz(name, plugins[i]->name))
			return i;
	return -1;
}

/* Parts of upstream's default profile that are no entries of our table: sorting, binding, preempting; and what is not built. */
static bool is_fixed(struct str name)
{
	return str_eqz(name, "PrioritySort") || str_eqz(name, "DefaultBinder");
}

static bool is_absent(struct str name)
{
	return str_eqz(name, "DynamicResources") || str_eqz(name, "NodeDeclaredFeatures") || str_eqz(name, "GangScheduling");
}

static struct error *bad(const char *at, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static struct error *bad(const char *at, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return error_new("%s: %s", at, text);
}

static void switch_plugin(struct profile *p, enum point at, int i, bool on)
{
	for (int k = 0; k < N_POINTS; k++) {
		if (at != N_POINTS && k != (int)at)
			continue;
		if (on && has_point(plugins[i], k))
			p->on[k] |= 1u << i;
		else if (!on)
			p->on[k] &= ~(1u << i);
	}
}

static struct error *disable(struct profile *p, enum point at, const char *where, struct str name)
{
	bool all = str_eqz(name, "*");
	int i = plugin_index(name);

	if (all || str_eqz(name, "DefaultPreemption"))
		if (at == POINT_POST_FILTER || at == N_POINTS)
			p->preemption = false;
	if (all) {
		for (int k = 0; k < n_plugins; k++)
			switch_plugin(p, at, k, false);
		return NULL;
	}
	if (i >= 0)
		switch_plugin(p, at, i, false);
	else if (is_fixed(name))
		return bad(where, "%.*s cannot be disabled: there is no other plugin for it", STR_ARG(name));
	/* Disabling what does not exist changes nothing, as upstream. */
	return NULL;
}

static struct error *enable(struct profile *p, enum point at, const char *where, const struct kubescheduler_v1_plugin *x)
{
	int i = plugin_index(x->name);

	if (str_eqz(x->name, "DefaultPreemption")) {
		if (at == POINT_POST_FILTER || at == N_POINTS)
			p->preemption = true;
		return NULL;
	}
	if (is_fixed(x->name))
		return NULL;
	if (is_absent(x->name))
		return bad(where, "plugin \"%.*s\" is not built into this scheduler", STR_ARG(x->name));
	if (i < 0)
		return bad(where, "plugin \"%.*s\" does not exist", STR_ARG(x->name));
	if (at != N_POINTS && !has_point(plugins[i], at))
		return bad(where, "plugin \"%.*s\" does not extend this point", STR_ARG(x->name));
	switch_plugin(p, at, i, true);
	if (x->weight && *x->weight < 0)
		return bad(where, "plugin \"%.*s\" has a negative weight", STR_ARG(x->name));
	if (x->weight && *x->weight && (at == N_POINTS || at == POINT_SCORE))
		p->weight[i] = *x->weight;
	if (!p->weight[i] && plugins[i]->score)
		p->weight[i] = 1;
	return NULL;
}

static struct error *apply_set(struct profile *p, enum point at, const char *where, const struct kubescheduler_v1_plugin_set *set)
{
	for (uint32_t i = 0; i < set->disabled.n; i++)
		TRY(disable(p, at, where, set->disabled.v[i].name));
	for (uint32_t i = 0; i < set->enabled.n; i++)
		TRY(enable(p, at, where, &set->enabled.v[i]));
	return NULL;
}

/* Points that have one plugin here: only it may be named. */
static struct error *apply_fixed(const char *where, const struct kubescheduler_v1_plugin_set *set, const char *only)
{
	for (uint32_t i = 0; i < set->enabled.n; i++)
		if (!str_eqz(set->enabled.v[i].name, only))
			return bad(where, "plugin \"%.*s\" does not exist", STR_ARG(set->enabled.v[i].name));
	for (uint32_t i = 0; i < set->disabled.n && !set->enabled.n && *only; i++)
		if (str_eqz(set->disabled.v[i].name, only) || str_eqz(set->disabled.v[i].name, "*"))
			return bad(where, "%s cannot be disabled: there is no other plugin for it", only);
	return NULL;
}

static struct error *apply_plugins(struct profile *p, const struct kubescheduler_v1_plugins *x)
{
	TRY(apply_set(p, N_POINTS, "plugins.multiPoint", &x->multi_point));
	TRY(apply_set(p, POINT_PRE_ENQUEUE, "plugins.preEnqueue", &x->pre_enqueue));
	TRY(apply_set(p, POINT_PRE_FILTER, "plugins.preFilter", &x->pre_filter));
	TRY(apply_set(p, POINT_FILTER, "plugins.filter", &x->filter));
	TRY(apply_set(p, POINT_POST_FILTER, "plugins.postFilter", &x->post_filter));
	TRY(apply_set(p, POINT_PRE_SCORE, "plugins.preScore", &x->pre_score));
	TRY(apply_set(p, POINT_SCORE, "plugins.score", &x->score));
	TRY(apply_set(p, POINT_RESERVE, "plugins.reserve", &x->reserve));
	TRY(apply_set(p, POINT_PRE_BIND, "plugins.preBind", &x->pre_bind));
	TRY(apply_fixed("plugins.queueSort", &x->queue_sort, "PrioritySort"));
	TRY(apply_fixed("plugins.bind", &x->bind, "DefaultBinder"));
	TRY(apply_fixed("plugins.permit", &x->permit, ""));
	return apply_fixed("plugins.postBind", &x->post_bind, "");
}

/* ---- arguments ---- */

static struct error *decode_strict(struct arena *a, const struct schema_type *t, struct str json, const char *where, void *out)
{
	struct decode_report report = {.arena = a};

	TRY(error_wrap(json_decode(a, t, json, &report, out), "%s", where));
	if (report.problems.n)
		return bad(where, "strict decoding error: %.*s", STR_ARG(report.problems.v[0]));
	return NULL;
}

static struct error *check_kind(const char *where, struct str kind, struct str version, const char *want)
{
	if ((kind.n && !str_eqz(kind, want)) || (version.n && !str_eqz(version, "kubescheduler.config.k8s.io/v1")))
		return bad(where, "expected kind %s of kubescheduler.config.k8s.io/v1, got \"%.*s\" of \"%.*s\"", want, STR_ARG(kind), STR_ARG(version));
	return NULL;
}

static struct error *score_resources(const char *where, const struct kubescheduler_v1_resource_spec *v, uint32_t n, struct score_resource *out,
				     int *n_out)
{
	if (n > SCORE_RESOURCES_MAX)
		return bad(where, "more than %d resources", SCORE_RESOURCES_MAX);
	for (uint32_t i = 0; i < n; i++) {
		if (v[i].weight < 0 || v[i].weight > 100)
			return bad(where, "weight of \"%.*s\": %lld is not within 1-100", STR_ARG(v[i].name), (long long)v[i].weight);
		out[i] = (struct score_resource){v[i].name, v[i].weight ? v[i].weight : 1};
	}
	if (n)
		*n_out = (int)n;
	return NULL;
}

static struct error *fit_args(struct arena *a, struct profile *p, struct str json, const char *where)
{
	struct kubescheduler_v1_node_resources_fit_args x = {0};
	const struct kubescheduler_v1_scoring_strategy *s;

	TRY(decode_strict(a, &kubescheduler_v1_node_resources_fit_args_type, json, where, &x));
	TRY(check_kind(where, x.kind, x.api_version, "NodeResourcesFitArgs"));
	memcpy(&p->ignored_resources, &x.ignored_resources, sizeof p->ignored_resources);
	memcpy(&p->ignored_groups, &x.ignored_resource_groups, sizeof p->ignored_groups);
	s = x.scoring_strategy;
	if (!s)
		return NULL;
	if (!s->type.n || str_eqz(s->type, "LeastAllocated"))
		p->fit = FIT_LEAST;
	else if (str_eqz(s->type, "MostAllocated"))
		p->fit = FIT_MOST;
	else if (str_eqz(s->type, "RequestedToCapacityRatio"))
		p->fit = FIT_RATIO;
	else
		return bad(where, "scoringStrategy.type: Unsupported value: \"%.*s\"", STR_ARG(s->type));
	TRY(score_resources(where, s->resources.v, s->resources.n, p->fit_resources, &p->n_fit_resources));
	if (p->fit != FIT_RATIO)
		return NULL;
	if (!s->requested_to_capacity_ratio || !s->requested_to_capacity_ratio->shape.n)
		return bad(where, "scoringStrategy.requestedToCapacityRatio.shape: Required value: at least one point must be specified");
	if (s->requested_to_capacity_ratio->shape.n > SHAPE_MAX)
		return bad(where, "scoringStrategy.requestedToCapacityRatio.shape: more than %d points", SHAPE_MAX);
	for (uint32_t i = 0; i < s->requested_to_capacity_ratio->shape.n; i++) {
		const struct kubescheduler_v1_utilization_shape_point *pt = &s->requested_to_capacity_ratio->shape.v[i];

		if (pt->utilization < 0 || pt->utilization > 100 || pt->score < 0 || pt->score > 10 ||
		    (i && pt->utilization <= s->requested_to_capacity_ratio->shape.v[i - 1].utilization))
			return bad(where, "scoringStrategy.requestedToCapacityRatio.shape[%u]: utilization must rise within 0-100, score be within 0-10", i);
		p->shape[p->n_shape++] = (struct shape_point){pt->utilization, pt->score * 10};
	}
	return NULL;
}

static struct error *spread_args(struct arena *a, struct profile *p, struct str json, const char *where)
{
	struct kubescheduler_v1_pod_topology_spread_args x = {0};

	TRY(decode_strict(a, &kubescheduler_v1_pod_topology_spread_args_type, json, where, &x));
	TRY(check_kind(where, x.kind, x.api_version, "PodTopologySpreadArgs"));
	if (x.defaulting_type.n && !str_eqz(x.defaulting_type, "System") && !str_eqz(x.defaulting_type, "List"))
		return bad(where, "defaultingType: Unsupported value: \"%.*s\": supported values: \"System\", \"List\"", STR_ARG(x.defaulting_type));
	if (!str_eqz(x.defaulting_type, "List")) {
		if (x.default_constraints.n)
			return bad(where, "defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty");
		return NULL;
	}
	for (uint32_t i = 0; i < x.default_constraints.n; i++) {
		const struct core_v1_topology_spread_constraint *t = &x.default_constraints.v[i];

		if (t->max_skew <= 0 || !t->topology_key.n || t->label_selector ||
		    (!str_eqz(t->when_unsatisfiable, "DoNotSchedule") && !str_eqz(t->when_unsatisfiable, "ScheduleAnyway")))
			return bad(where, "defaultConstraints[%u]: needs a positive maxSkew, a topologyKey, whenUnsatisfiable DoNotSchedule or "
				   "ScheduleAnyway, and no labelSelector", i);
	}
	p->spread = x.default_constraints.v;
	p->n_spread = x.default_constraints.n;
	p->system_spread = false;
	return NULL;
}

static struct error *plugin_args(struct arena *a, struct profile *p, struct str name, struct str json, const char *where)
{
	if (!json.n || str_eqz(json, "null"))
		return NULL;
	if (str_eqz(name, "NodeResourcesFit"))
		return fit_args(a, p, json, where);
	if (str_eqz(name, "PodTopologySpread"))
		return spread_args(a, p, json, where);
	if (str_eqz(name, "NodeResourcesBalancedAllocation")) {
		struct kubescheduler_v1_node_resources_balanced_allocation_args x = {0};

		TRY(decode_strict(a, &kubescheduler_v1_node_resources_balanced_allocation_args_type, json, where, &x));
		TRY(check_kind(where, x.kind, x.api_version, "NodeResourcesBalancedAllocationArgs"));
		return score_resources(where, x.resources.v, x.resources.n, p->balanced, &p->n_balanced);
	}
	if (str_eqz(name, "InterPodAffinity")) {
		struct kubescheduler_v1_inter_pod_affinity_args x = {0};

		TRY(decode_strict(a, &kubescheduler_v1_inter_pod_affinity_args_type, json, where, &x));
		TRY(check_kind(where, x.kind, x.api_version, "InterPodAffinityArgs"));
		if (x.hard_pod_affinity_weight && (*x.hard_pod_affinity_weight < 0 || *x.hard_pod_affinity_weight > 100))
			return bad(where, "hardPodAffinityWeight: Invalid value: %d: not in valid range [0-100]", *x.hard_pod_affinity_weight);
		if (x.hard_pod_affinity_weight)
			p->hard_affinity_weight = *x.hard_pod_affinity_weight;
		p->ignore_preferred_of_existing = x.ignore_preferred_terms_of_existing_pods;
		return NULL;
	}
	if (str_eqz(name, "NodeAffinity")) {
		struct kubescheduler_v1_node_affinity_args x = {0};

		TRY(decode_strict(a, &kubescheduler_v1_node_affinity_args_type, json, where, &x));
		TRY(check_kind(where, x.kind, x.api_version, "NodeAffinityArgs"));
		p->added_affinity = x.added_affinity;
		return NULL;
	}
	if (str_eqz(name, "VolumeBinding")) {
		struct kubescheduler_v1_volume_binding_args x = {0};

		TRY(decode_strict(a, &kubescheduler_v1_volume_binding_args_type, json, where, &x));
		TRY(check_kind(where, x.kind, x.api_version, "VolumeBindingArgs"));
		if (x.bind_timeout_seconds && *x.bind_timeout_seconds < 0)
			return bad(where, "bindTimeoutSeconds: Invalid value: %lld: invalid BindTimeoutSeconds, should not be a negative value",
				   (long long)*x.bind_timeout_seconds);
		if (x.bind_timeout_seconds)
			p->bind_timeout_ms = *x.bind_timeout_seconds * 1000;
		return NULL;
	}
	if (str_eqz(name, "DefaultPreemption")) {
		struct kubescheduler_v1_default_preemption_args x = {0};

		TRY(decode_strict(a, &kubescheduler_v1_default_preemption_args_type, json, where, &x));
		TRY(check_kind(where, x.kind, x.api_version, "DefaultPreemptionArgs"));
		if (x.min_candidate_nodes_percentage)
			p->candidates_percent = *x.min_candidate_nodes_percentage;
		if (x.min_candidate_nodes_absolute)
			p->candidates_min = *x.min_candidate_nodes_absolute;
		if (p->candidates_percent < 0 || p->candidates_percent > 100 || p->candidates_min < 0 ||
		    (!p->candidates_percent && !p->candidates_min))
			return bad(where, "minCandidateNodesPercentage must be within 0-100, minCandidateNodesAbsolute not negative, not both 0");
		return NULL;
	}
	if (str_eqz(name, "DynamicResources")) /* of a plugin that is off */
		return NULL;
	return bad(where, "plugin \"%.*s\" takes no arguments, or does not exist", STR_ARG(name));
}

/* ---- the file ---- */

static struct error *read_profile(struct arena *a, const struct kubescheduler_v1_kube_scheduler_profile *x, int index, int32_t percentage,
				  struct profile *out)
{
	profile_default(out);
	out->percentage = percentage;
	if (x->scheduler_name)
		out->name = *x->scheduler_name;
	if (!out->name.n)
		return error_new("profiles[%d].schedulerName: Required value", index);
	if (x->percentage_of_nodes_to_score)
		out->percentage = *x->percentage_of_nodes_to_score;
	if (out->percentage < 0 || out->percentage > 100)
		return error_new("percentageOfNodesToScore: Invalid value: %d: not in valid range [0-100]", out->percentage);
	if (x->plugins)
		TRY(error_wrap(apply_plugins(out, x->plugins), "profiles[%d]", index));
	for (uint32_t i = 0; i < x->plugin_config.n; i++) {
		struct str where = arena_printf(a, "profiles[%d].pluginConfig[%u].args", index, i);

		for (uint32_t k = 0; k < i; k++)
			if (str_eq(x->plugin_config.v[k].name, x->plugin_config.v[i].name))
				return error_new("profiles[%d].pluginConfig[%u]: Duplicate value: \"%.*s\"", index, i, STR_ARG(x->plugin_config.v[i].name));
		TRY(plugin_args(a, out, x->plugin_config.v[i].name, x->plugin_config.v[i].args, where.p));
	}
	return NULL;
}

static const char *or_default(struct arena *a, struct str s, const char *def)
{
	return s.n ? arena_strz(a, s) : def;
}

struct error *scheduler_config_parse(struct arena *a, struct str text, struct scheduler_config *out)
{
	struct kubescheduler_v1_kube_scheduler_configuration *x = arena_new(a, struct kubescheduler_v1_kube_scheduler_configuration);
	struct buf json buf_cleanup = {0};
	struct decode_report report = {.arena = a};
	int32_t percentage;

	scheduler_config_default(out);
	TRY(yaml_to_json(text, &report, &json));
	if (report.problems.n)
		return error_new("strict decoding error: %.*s", STR_ARG(report.problems.v[0]));
	TRY(decode_strict(a, &kubescheduler_v1_kube_scheduler_configuration_type, arena_str(a, buf_view(&json)), "KubeSchedulerConfiguration", x));
	if (!str_eqz(x->kind, "KubeSchedulerConfiguration") || !str_eqz(x->api_version, "kubescheduler.config.k8s.io/v1"))
		return error_new("expected KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1, got kind \"%.*s\", apiVersion \"%.*s\"",
				 STR_ARG(x->kind), STR_ARG(x->api_version));
	if (x->extenders.n)
		return error_new("extenders: not built into this scheduler; use a scheduler of your own beside it (spec.schedulerName)");
	if (x->profiles.n > PROFILES_MAX)
		return error_new("profiles: more than %d", PROFILES_MAX);
	if (x->parallelism && *x->parallelism <= 0)
		return error_new("parallelism: Invalid value: %d: should be an integer value greater than zero", *x->parallelism);
	percentage = x->percentage_of_nodes_to_score ? *x->percentage_of_nodes_to_score : 0;
	if (percentage < 0 || percentage > 100)
		return error_new("percentageOfNodesToScore: Invalid value: %d: not in valid range [0-100]", percentage);
	out->profiles[0].percentage = percentage;
	for (uint32_t i = 0; i < x->profiles.n; i++) {
		TRY(read_profile(a, &x->profiles.v[i], (int)i, percentage, &out->profiles[i]));
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(out->profiles[k].name, out->profiles[i].name))
				return error_new("profiles[%u].schedulerName: Duplicate value: \"%.*s\"", i, STR_ARG(out->profiles[i].name));
	}
	if (x->profiles.n)
		out->n_profiles = (int)x->profiles.n;
	if (x->pod_initial_backoff_seconds)
		out->backoff_min_ms = *x->pod_initial_backoff_seconds * 1000;
	if (x->pod_max_backoff_seconds)
		out->backoff_max_ms = *x->pod_max_backoff_seconds * 1000;
	if (out->backoff_min_ms <= 0 || out->backoff_max_ms < out->backoff_min_ms)
		return error_new("podInitialBackoffSeconds must be greater than 0, podMaxBackoffSeconds not smaller than it");
	if (x->leader_election.leader_elect)
		out->leader_elect = *x->leader_election.leader_elect;
	if (x->leader_election.lease_duration)
		out->lease_ms = x->leader_election.lease_duration / 1000000;
	if (x->leader_election.renew_deadline)
		out->renew_ms = x->leader_election.renew_deadline / 1000000;
	if (x->leader_election.retry_period)
		out->retry_ms = x->leader_election.retry_period / 1000000;
	out->leader_ns = or_default(a, x->leader_election.resource_namespace, out->leader_ns);
	out->leader_name = or_default(a, x->leader_election.resource_name, out->leader_name);
	out->kubeconfig = or_default(a, x->client_connection.kubeconfig, NULL);
	out->qps = x->client_connection.qps;
	out->burst = x->client_connection.burst;
	return NULL;
}
