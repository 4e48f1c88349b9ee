/* Conditional defaults of the groups other than core (named by `defaults` in api/). */
#include "schema/defaults.h"

static int32_t *int32_new(struct arena *a, int32_t v)
{
	int32_t *p = arena_new(a, int32_t);

	*p = v;
	return p;
}

static bool *bool_new(struct arena *a, bool v)
{
	bool *p = arena_new(a, bool);

	*p = v;
	return p;
}

static struct str *str_new(struct arena *a, struct str v)
{
	struct str *p = arena_new(a, struct str);

	*p = v;
	return p;
}

/* ---- apps ---- */

void apps_v1_deployment_strategy_default(struct arena *a, void *obj)
{
	struct apps_v1_deployment_strategy *s = obj;

	if (str_eqz(s->type, "RollingUpdate") && !s->rolling_update)
		s->rolling_update = arena_new(a, struct apps_v1_rolling_update_deployment);
}

void apps_v1_daemon_set_update_strategy_default(struct arena *a, void *obj)
{
	struct apps_v1_daemon_set_update_strategy *s = obj;

	if (str_eqz(s->type, "RollingUpdate") && !s->rolling_update)
		s->rolling_update = arena_new(a, struct apps_v1_rolling_update_daemon_set);
}

/* A strategy named without parameters keeps none. */
void apps_v1_stateful_set_update_strategy_default(struct arena *a, void *obj)
{
	struct apps_v1_stateful_set_update_strategy *s = obj;

	if (s->type.n)
		return;
	s->type = STR("RollingUpdate");
	if (!s->rolling_update)
		s->rolling_update = arena_new(a, struct apps_v1_rolling_update_stateful_set_strategy);
}

/* ---- batch ---- */

void batch_v1_job_default(struct arena *a, void *obj)
{
	struct batch_v1_job *job = obj;
	struct batch_v1_job_spec *s = &job->spec;

	if (!s->completions && !s->parallelism)
		s->completions = int32_new(a, 1);
	if (!s->parallelism)
		s->parallelism = int32_new(a, 1);
	if (!s->backoff_limit)
		s->backoff_limit = int32_new(a, s->backoff_limit_per_index ? INT32_MAX : 6);
	if (!job->metadata.labels.n) /* the same ones: what a create adds to the one is in the other */
		memcpy(&job->metadata.labels, &s->template.metadata.labels, sizeof job->metadata.labels);
	if (!s->completion_mode)
		s->completion_mode = str_new(a, STR("NonIndexed"));
	if (!s->suspend)
		s->suspend = bool_new(a, false);
	if (!s->pod_replacement_policy)
		s->pod_replacement_policy = str_new(a, s->pod_failure_policy ? STR("Failed") : STR("TerminatingOrFailed"));
	if (!s->manual_selector)
		s->manual_selector = bool_new(a, false);
}

/* ---- autoscaling ---- */

static void add_policy(struct arena *a, struct autoscaling_v2_hpa_scaling_rules *r, struct str type, int32_t value,
		       int32_t period)
{
	struct autoscaling_v2_hpa_scaling_policy *p = arena_push(a, &r->policies);

	p->type = type;
	p->value = value;
	p->period_seconds = period;
}

/* Rules with everything set: up at once and by much, down slowly. */
static struct autoscaling_v2_hpa_scaling_rules *scaling_rules(struct arena *a, struct autoscaling_v2_hpa_scaling_rules *r,
							      bool up)
{
	if (!r)
		r = arena_new(a, struct autoscaling_v2_hpa_scaling_rules);
	if (!r->select_policy)
		r->select_policy = str_new(a, STR("Max"));
	if (!r->stabilization_window_seconds && up)
		r->stabilization_window_seconds = int32_new(a, 0);
	if (!r->policies.v) {
		if (up)
			add_policy(a, r, STR("Pods"), 4, 15);
		add_policy(a, r, STR("Percent"), 100, 15);
	}
	return r;
}

void autoscaling_v2_horizontal_pod_autoscaler_spec_default(struct arena *a, void *obj)
{
	struct autoscaling_v2_horizontal_pod_autoscaler_spec *s = obj;

	if (!s->metrics.n) {
		struct autoscaling_v2_metric_spec *m = arena_push(a, &s->metrics);

		m->type = STR("Resource");
		m->resource = arena_new(a, struct autoscaling_v2_resource_metric_source);
		m->resource->name = STR("cpu");
		m->resource->target.type = STR("Utilization");
		m->resource->target.average_utilization = int32_new(a, 80);
	}
	if (s->behavior) {
		s->behavior->scale_up = scaling_rules(a, s->behavior->scale_up, true);
		s->behavior->scale_down = scaling_rules(a, s->behavior->scale_down, false);
	}
}

/* ---- networking, rbac, storage ---- */

void networking_v1_network_policy_spec_default(struct arena *a, void *obj)
{
	struct networking_v1_network_policy_spec *s = obj;

	if (s->policy_types.n)
		return;
	*arena_push(a, &s->policy_types) = STR("Ingress");
	if (s->egress.n)
		*arena_push(a, &s->policy_types) = STR("Egress");
}

void rbac_v1_subject_default(struct arena *a, void *obj)
{
	struct rbac_v1_subject *s = obj;

	if (!s->api_group.n && (str_eqz(s->kind, "User") || str_eqz(s->kind, "Group")))
		s->api_group = STR("rbac.authorization.k8s.io");
}

void storage_v1_csi_driver_spec_default(struct arena *a, void *obj)
{
	struct storage_v1_csi_driver_spec *s = obj;

	if (!s->volume_lifecycle_modes.n)
		*arena_push(a, &s->volume_lifecycle_modes) = STR("Persistent");
}

/* ---- resource ---- */

static void device_count(struct str *mode, int64_t *count)
{
	if (!mode->n)
		*mode = STR("ExactCount");
	if (str_eqz(*mode, "ExactCount") && !*count)
		*count = 1;
}

void resource_v1_exact_device_request_default(struct arena *a, void *obj)
{
	struct resource_v1_exact_device_request *r = obj;

	device_count(&r->allocation_mode, &r->count);
}

void resource_v1_device_sub_request_default(struct arena *a, void *obj)
{
	struct resource_v1_device_sub_request *r = obj;

	device_count(&r->allocation_mode, &r->count);
}

/* ---- apiextensions ---- */

void apiextensions_v1_custom_resource_definition_spec_default(struct arena *a, void *obj)
{
	struct apiextensions_v1_custom_resource_definition_spec *s = obj;

	if (!s->conversion) { /* one that is given says its strategy itself */
		s->conversion = arena_new(a, struct apiextensions_v1_custom_resource_conversion);
		s->conversion->strategy = STR("None");
	}
	if (!s->names.singular.n) {
		char *lower = arena_strz(a, s->names.kind);

		for (size_t i = 0; i < s->names.kind.n; i++)
			if (lower[i] >= 'A' && lower[i] <= 'Z')
				lower[i] = (char)(lower[i] + 32);
		s->names.singular = str_of(lower, s->names.kind.n);
	}
	if (!s->names.list_kind.n && s->names.kind.n)
		s->names.list_kind = arena_printf(a, "%.*sList", STR_ARG(s->names.kind));
}

void apiextensions_v1_custom_resource_definition_default(struct arena *a, void *obj)
{
	struct apiextensions_v1_custom_resource_definition *crd = obj;

	if (crd->status.stored_versions.n)
		return;
	for (uint32_t i = 0; i < crd->spec.versions.n; i++) {
		if (crd->spec.versions.v[i].storage) {
			*arena_push(a, &crd->status.stored_versions) = crd->spec.versions.v[i].name;
			return;
		}
	}
}
