/* Events (core/v1 and events.k8s.io/v1) and HorizontalPodAutoscalers (autoscaling/v1 and v2). */
#include "apiserver/convert.h"
#include "schema/codec.h"
#include "schema/jv.h"

void convert_events_to_core(struct arena *a, const void *from, void *to)
{
	const struct events_v1_event *e = from;
	struct core_v1_event *c = to;

	c->kind = STR("Event");
	c->api_version = STR("v1");
	c->metadata = e->metadata;
	c->involved_object = e->regarding;
	c->reason = e->reason;
	c->message = e->note;
	c->source = e->deprecated_source;
	c->first_timestamp = e->deprecated_first_timestamp;
	c->last_timestamp = e->deprecated_last_timestamp;
	c->count = e->deprecated_count;
	c->type = e->type;
	c->event_time = e->event_time;
	if (e->series) {
		c->series = arena_new(a, struct core_v1_event_series);
		c->series->count = e->series->count;
		c->series->last_observed_time = e->series->last_observed_time;
	}
	c->action = e->action;
	c->related = e->related;
	c->reporting_component = e->reporting_controller;
	c->reporting_instance = e->reporting_instance;
}

const struct str events_field_names[][2] = {
	{STR_INIT("reason"), STR_INIT("reason")}, {STR_INIT("type"), STR_INIT("type")},
	{STR_INIT("regarding.kind"), STR_INIT("involvedObject.kind")}, {STR_INIT("regarding.namespace"), STR_INIT("involvedObject.namespace")},
	{STR_INIT("regarding.name"), STR_INIT("involvedObject.name")}, {STR_INIT("regarding.uid"), STR_INIT("involvedObject.uid")},
	{STR_INIT("regarding.apiVersion"), STR_INIT("involvedObject.apiVersion")},
	{STR_INIT("regarding.resourceVersion"), STR_INIT("involvedObject.resourceVersion")},
	{STR_INIT("regarding.fieldPath"), STR_INIT("involvedObject.fieldPath")},
	{STR_INIT("reportingController"), STR_INIT("reportingComponent")},
	{STR_INIT("metadata.name"), STR_INIT("metadata.name")}, {STR_INIT("metadata.namespace"), STR_INIT("metadata.namespace")},
};
const size_t events_n_field_names = sizeof events_field_names / sizeof *events_field_names;

void convert_core_to_events(struct arena *a, const void *from, void *to)
{
	const struct core_v1_event *c = from;
	struct events_v1_event *e = to;

	e->metadata = c->metadata;
	e->regarding = c->involved_object;
	e->reason = c->reason;
	e->note = c->message;
	e->deprecated_source = c->source;
	e->deprecated_first_timestamp = c->first_timestamp;
	e->deprecated_last_timestamp = c->last_timestamp;
	e->deprecated_count = c->count;
	e->type = c->type;
	e->event_time = c->event_time;
	if (c->series) {
		e->series = arena_new(a, struct events_v1_event_series);
		e->series->count = c->series->count;
		e->series->last_observed_time = c->series->last_observed_time;
	}
	e->action = c->action;
	e->related = c->related;
	e->reporting_controller = c->reporting_component;
	e->reporting_instance = c->reporting_instance;
}

/* ---- autoscaling: what v1 cannot say travels in annotations ---- */

#define METRICS "autoscaling.alpha.kubernetes.io/metrics"
#define CURRENT "autoscaling.alpha.kubernetes.io/current-metrics"
#define CONDITIONS "autoscaling.alpha.kubernetes.io/conditions"
#define BEHAVIOR "autoscaling.alpha.kubernetes.io/behavior"

/* A JSON array of structs of t, appended to the LIST at `list`; malformed text is ignored, as upstream does. */
static void decode_array(struct arena *a, struct str text, const struct schema_type *t, void *list)
{
	struct jv v;
	LIST(char) *l = list;
	char *items;
	uint32_t n = 0;

	if (!text.n)
		return;
	struct error *e = jv_parse(a, text, NULL, &v);

	if (e || !jv_is(&v, JV_ARRAY)) {
		error_free(e);
		return;
	}
	items = arena_alloc(a, (size_t)t->size * (l->n + v.n));
	if (l->n)
		memcpy(items, l->v, (size_t)t->size * l->n);
	n = l->n;
	for (uint32_t i = 0; i < v.n; i++) {
		e = jv_to_object(a, t, &v.items[i], NULL, items + (size_t)n * t->size);
		if (!e)
			n++;
		error_free(e);
	}
	l->v = items;
	l->n = n;
	l->cap = 0;
}

static struct str encode_array(struct arena *a, const struct schema_type *t, const void *items, uint32_t n)
{
	struct buf b buf_cleanup = {0};

	buf_putc(&b, '[');
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			buf_putc(&b, ',');
		json_encode(&b, t, (const char *)items + (size_t)i * t->size);
	}
	buf_putc(&b, ']');
	return arena_str(a, buf_view(&b));
}

static void meta_copy_annotations(struct arena *a, struct meta_v1_object_meta *m)
{
	struct str_map copy = {0};

	for (uint32_t i = 0; i < m->annotations.n; i++)
		str_map_set(a, &copy, m->annotations.v[i].key, m->annotations.v[i].value);
	m->annotations.v = copy.v;
	m->annotations.n = copy.n;
	m->annotations.cap = copy.cap;
}

void convert_hpa_v1_to_v2(struct arena *a, const void *from, void *to)
{
	const struct autoscaling_v1_horizontal_pod_autoscaler *f = from;
	struct autoscaling_v2_horizontal_pod_autoscaler *t = to;
	struct str text;

	t->kind = STR("HorizontalPodAutoscaler");
	t->api_version = STR("autoscaling/v2");
	t->metadata = f->metadata;
	meta_copy_annotations(a, &t->metadata);
	t->spec.scale_target_ref.kind = f->spec.scale_target_ref.kind;
	t->spec.scale_target_ref.name = f->spec.scale_target_ref.name;
	t->spec.scale_target_ref.api_version = f->spec.scale_target_ref.api_version;
	t->spec.min_replicas = f->spec.min_replicas;
	t->spec.max_replicas = f->spec.max_replicas;
	decode_array(a, str_map_get(API_MAP(&f->metadata.annotations), STR(METRICS)), &autoscaling_v2_metric_spec_type, &t->spec.metrics);
	if (f->spec.target_cpu_utilization_percentage) {
		struct autoscaling_v2_metric_spec *m = arena_push(a, &t->spec.metrics);

		m->type = STR("Resource");
		m->resource = arena_new(a, struct autoscaling_v2_resource_metric_source);
		m->resource->name = STR("cpu");
		m->resource->target.type = STR("Utilization");
		m->resource->target.average_utilization = f->spec.target_cpu_utilization_percentage;
	}
	text = str_map_get(API_MAP(&f->metadata.annotations), STR(BEHAVIOR));
	if (text.n) {
		struct error *e;

		t->spec.behavior = arena_new(a, struct autoscaling_v2_horizontal_pod_autoscaler_behavior);
		e = json_decode(a, &autoscaling_v2_horizontal_pod_autoscaler_behavior_type, text, NULL, t->spec.behavior);
		if (e)
			t->spec.behavior = NULL;
		error_free(e);
	}
	t->status.observed_generation = f->status.observed_generation;
	t->status.last_scale_time = f->status.last_scale_time;
	t->status.current_replicas = f->status.current_replicas;
	t->status.desired_replicas = f->status.desired_replicas;
	decode_array(a, str_map_get(API_MAP(&f->metadata.annotations), STR(CURRENT)), &autoscaling_v2_metric_status_type,
		     &t->status.current_metrics);
	decode_array(a, str_map_get(API_MAP(&f->metadata.annotations), STR(CONDITIONS)),
		     &autoscaling_v2_horizontal_pod_autoscaler_condition_type, &t->status.conditions);
	if (f->status.current_cpu_utilization_percentage) {
		struct autoscaling_v2_metric_status *m = arena_push(a, &t->status.current_metrics);

		m->type = STR("Resource");
		m->resource = arena_new(a, struct autoscaling_v2_resource_metric_status);
		m->resource->name = STR("cpu");
		m->resource->current.average_utilization = f->status.current_cpu_utilization_percentage;
	}
	str_map_del(API_MAP(&t->metadata.annotations), STR(METRICS));
	str_map_del(API_MAP(&t->metadata.annotations), STR(CURRENT));
	str_map_del(API_MAP(&t->metadata.annotations), STR(CONDITIONS));
	str_map_del(API_MAP(&t->metadata.annotations), STR(BEHAVIOR));
}

void convert_hpa_v2_to_v1(struct arena *a, const void *from, void *to)
{
	const struct autoscaling_v2_horizontal_pod_autoscaler *f = from;
	struct autoscaling_v1_horizontal_pod_autoscaler *t = to;
	LIST(struct autoscaling_v2_metric_spec) other = {0};
	LIST(struct autoscaling_v2_metric_status) current = {0};

	t->metadata = f->metadata;
	meta_copy_annotations(a, &t->metadata);
	t->spec.scale_target_ref.kind = f->spec.scale_target_ref.kind;
	t->spec.scale_target_ref.name = f->spec.scale_target_ref.name;
	t->spec.scale_target_ref.api_version = f->spec.scale_target_ref.api_version;
	t->spec.min_replicas = f->spec.min_replicas;
	t->spec.max_replicas = f->spec.max_replicas;
	for (uint32_t i = 0; i < f->spec.metrics.n; i++) {
		const struct autoscaling_v2_metric_spec *m = &f->spec.metrics.v[i];

		if (m->resource && str_eqz(m->resource->name, "cpu") && m->resource->target.average_utilization &&
		    !t->spec.target_cpu_utilization_percentage)
			t->spec.target_cpu_utilization_percentage = m->resource->target.average_utilization;
		else
			*arena_push(a, &other) = *m;
	}
	if (other.n)
		str_map_set(a, API_MAP(&t->metadata.annotations), STR(METRICS),
			    encode_array(a, &autoscaling_v2_metric_spec_type, other.v, other.n));
	if (f->spec.behavior) {
		struct buf b buf_cleanup = {0};

		json_encode(&b, &autoscaling_v2_horizontal_pod_autoscaler_behavior_type, f->spec.behavior);
		str_map_set(a, API_MAP(&t->metadata.annotations), STR(BEHAVIOR), arena_str(a, buf_view(&b)));
	}
	t->status.observed_generation = f->status.observed_generation;
	t->status.last_scale_time = f->status.last_scale_time;
	t->status.current_replicas = f->status.current_replicas;
	t->status.desired_replicas = f->status.desired_replicas;
	for (uint32_t i = 0; i < f->status.current_metrics.n; i++) {
		const struct autoscaling_v2_metric_status *m = &f->status.current_metrics.v[i];

		if (m->resource && str_eqz(m->resource->name, "cpu") && m->resource->current.average_utilization &&
		    !t->status.current_cpu_utilization_percentage)
			t->status.current_cpu_utilization_percentage = m->resource->current.average_utilization;
		else
			*arena_push(a, &current) = *m;
	}
	if (current.n)
		str_map_set(a, API_MAP(&t->metadata.annotations), STR(CURRENT),
			    encode_array(a, &autoscaling_v2_metric_status_type, current.v, current.n));
	if (f->status.conditions.n)
		str_map_set(a, API_MAP(&t->metadata.annotations), STR(CONDITIONS),
			    encode_array(a, &autoscaling_v2_horizontal_pod_autoscaler_condition_type, f->status.conditions.v,
					 f->status.conditions.n));
}
