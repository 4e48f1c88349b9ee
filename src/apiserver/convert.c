/* Events (core/v1 and events.k8s.io/v1) and HorizontalPodAutoscalers (autoscaling/v1 and v2). */
#include "apiserver/convert.h"
#include "schema/codec.h"
#include "schema/jv.h"
#include "schema/quantity.h"

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

/*
 * How v1 wrote metrics, member by member: its name there and where the same is in v2; both in the order of v1's types,
 * which is how they are written. NEEDED: quantities that are written when there are none, as 0. Upstream's
 * autoscaling/v1 MetricSpec and MetricStatus.
 */
enum { WHEN_SET, NEEDED, TEXT };
struct v1_member {
	const char *metric, *v1, *v2;
	int kind;
};
static const struct v1_member spec_members[] = {
	{"object", "target", "describedObject", TEXT},
	{"object", "metricName", "metric.name", TEXT},
	{"object", "targetValue", "target.value", NEEDED},
	{"object", "selector", "metric.selector", WHEN_SET},
	{"object", "averageValue", "target.averageValue", WHEN_SET},
	{"pods", "metricName", "metric.name", TEXT},
	{"pods", "targetAverageValue", "target.averageValue", NEEDED},
	{"pods", "selector", "metric.selector", WHEN_SET},
	{"resource", "name", "name", TEXT},
	{"resource", "targetAverageUtilization", "target.averageUtilization", WHEN_SET},
	{"resource", "targetAverageValue", "target.averageValue", WHEN_SET},
	{"containerResource", "name", "name", TEXT},
	{"containerResource", "targetAverageUtilization", "target.averageUtilization", WHEN_SET},
	{"containerResource", "targetAverageValue", "target.averageValue", WHEN_SET},
	{"containerResource", "container", "container", TEXT},
	{"external", "metricName", "metric.name", TEXT},
	{"external", "metricSelector", "metric.selector", WHEN_SET},
	{"external", "targetValue", "target.value", WHEN_SET},
	{"external", "targetAverageValue", "target.averageValue", WHEN_SET},
	{NULL, NULL, NULL, 0},
};
static const struct v1_member status_members[] = {
	{"object", "target", "describedObject", TEXT},
	{"object", "metricName", "metric.name", TEXT},
	{"object", "currentValue", "current.value", NEEDED},
	{"object", "selector", "metric.selector", WHEN_SET},
	{"object", "averageValue", "current.averageValue", WHEN_SET},
	{"pods", "metricName", "metric.name", TEXT},
	{"pods", "currentAverageValue", "current.averageValue", NEEDED},
	{"pods", "selector", "metric.selector", WHEN_SET},
	{"resource", "name", "name", TEXT},
	{"resource", "currentAverageUtilization", "current.averageUtilization", WHEN_SET},
	{"resource", "currentAverageValue", "current.averageValue", NEEDED},
	{"containerResource", "name", "name", TEXT},
	{"containerResource", "currentAverageUtilization", "current.averageUtilization", WHEN_SET},
	{"containerResource", "currentAverageValue", "current.averageValue", NEEDED},
	{"containerResource", "container", "container", TEXT},
	{"external", "metricName", "metric.name", TEXT},
	{"external", "metricSelector", "metric.selector", WHEN_SET},
	{"external", "currentValue", "current.value", NEEDED},
	{"external", "currentAverageValue", "current.averageValue", WHEN_SET},
	{NULL, NULL, NULL, 0},
};

/* As Go finds the member of a struct: by its name, else by that in other letters. */
static const struct jv *member_of(const struct jv *v, const char *name)
{
	const struct jv *exact = jv_get(v, str_from(name));

	for (uint32_t i = 0; !exact && jv_is(v, JV_OBJECT) && i < v->n; i++)
		if (v->members[i].key.n == strlen(name) && !strncasecmp(v->members[i].key.p, name, strlen(name)))
			exact = &v->members[i].value;
	return exact && exact->kind != JV_NULL ? exact : NULL;
}

/* One metric as v1 wrote it. */
static struct jv metric_to_v1(struct arena *a, const struct v1_member *m, const struct jv *v2)
{
	struct jv out = jv_object();

	jv_set(a, &out, STR("type"), jv_string(jv_str(jv_get(v2, STR("type")))));
	for (; m->metric; m++) {
		const struct jv *source = jv_get(v2, str_from(m->metric)),
				*v = source ? jv_path(source, str_from(m->v2)) : NULL;

		if (!source || (!v && m->kind == WHEN_SET))
			continue;
		jv_set(a, jv_sub(a, &out, str_from(m->metric)), str_from(m->v1),
		       v ? *v : jv_string(m->kind == NEEDED ? STR("0") : STR("")));
	}
	return out;
}

static void set_path(struct arena *a, struct jv *o, const char *path, struct jv v)
{
	struct str rest = str_from(path), name = str_cut(&rest, '.');

	if (rest.p)
		o = jv_sub(a, o, name);
	jv_set(a, o, rest.p ? rest : name, v);
}

static bool is_nothing(struct arena *a, const struct jv *quantity)
{
	struct str text = STR_NULL;

	if (jv_is(quantity, JV_STRING))
		error_free(quantity_canonical(a, jv_str(quantity), &text));
	return str_eqz(text, "0") || (jv_is(quantity, JV_INT) && !quantity->i);
}

/* What v1 did not say: what a target is a target of. */
static void metric_targets(struct arena *a, const char *metric, struct jv *source)
{
	struct jv *target = jv_sub(a, source, STR("target"));
	const struct jv *value = jv_get(target, STR("value")), *average = jv_get(target, STR("averageValue"));
	const char *type = "AverageValue";

	if (!strcmp(metric, "resource") || !strcmp(metric, "containerResource"))
		type = jv_get(target, STR("averageUtilization")) ? "Utilization" : type;
	else if (!strcmp(metric, "external"))
		type = value ? "Value" : type;
	else if (!strcmp(metric, "object") && !average)
		type = "Value";
	else if (!strcmp(metric, "object") && is_nothing(a, value))
		jv_del(target, STR("value")); /* which v1 could not leave out */
	jv_set(a, target, STR("type"), jv_string(str_from(type)));
}

static struct jv metric_from_v1(struct arena *a, const struct v1_member *m, bool spec, const struct jv *v1)
{
	struct jv out = jv_object();
	const char *last = NULL;
	const struct jv *type = member_of(v1, "type");

	if (type)
		jv_set(a, &out, STR("type"), *type);
	for (; m->metric; m++) {
		const struct jv *source = member_of(v1, m->metric), *v = source ? member_of(source, m->v1) : NULL;

		if (!source)
			continue;
		last = m->metric;
		if (v || m->kind == NEEDED)
			set_path(a, jv_sub(a, &out, str_from(m->metric)), m->v2, v ? *v : jv_string(STR("0")));
		if (spec && last && (!m[1].metric || strcmp(m[1].metric, last)))
			metric_targets(a, last, jv_sub(a, &out, str_from(last)));
	}
	return out;
}

/* An annotation's metrics, as structs of v2; false, and nothing, where it is malformed: that is ignored, as upstream
 * does. */
static bool metrics_from_v1(struct arena *a, struct str text, const struct v1_member *m, const struct schema_type *t,
			    void *list)
{
	struct jv v;
	LIST(char) *l = list;
	char *items;
	struct error *e = jv_parse(a, text, NULL, &v);

	if (e || (v.kind != JV_ARRAY && v.kind != JV_NULL)) {
		error_free(e);
		return false;
	}
	items = arena_alloc(a, (size_t)t->size * (v.n + 1)); /* and one more, which v1 has in a field */
	for (uint32_t i = 0; v.kind == JV_ARRAY && i < v.n; i++) {
		struct jv one = metric_from_v1(a, m, m == spec_members, &v.items[i]);

		e = v.items[i].kind == JV_OBJECT ? jv_to_object(a, t, &one, NULL, items + (size_t)i * t->size) : NULL;
		if (e) {
			error_free(e);
			return false;
		}
	}
	l->v = items;
	l->n = v.kind == JV_ARRAY ? v.n : 0;
	l->cap = l->n + 1;
	return true;
}

static struct str metrics_to_v1(struct arena *a, const struct v1_member *m, const struct schema_type *t,
				const void *items, uint32_t n)
{
	struct buf b buf_cleanup = {0};
	struct jv list = jv_array(), one;

	for (uint32_t i = 0; i < n; i++) {
		jv_from_object(a, t, (const char *)items + (size_t)i * t->size, &one);
		jv_push(a, &list, metric_to_v1(a, m, &one));
	}
	jv_encode(&b, &list);
	return arena_str(a, buf_view(&b));
}

static bool conditions_from_v1(struct arena *a, struct str text, void *list)
{
	const struct schema_type *t = &autoscaling_v2_horizontal_pod_autoscaler_condition_type;
	LIST(char) *l = list;
	struct jv v;
	char *items;
	struct error *e = jv_parse(a, text, NULL, &v);

	if (e || (v.kind != JV_ARRAY && v.kind != JV_NULL)) {
		error_free(e);
		return false;
	}
	items = arena_alloc(a, (size_t)t->size * (v.n + 1));
	for (uint32_t i = 0; v.kind == JV_ARRAY && i < v.n; i++) {
		e = jv_to_object(a, t, &v.items[i], NULL, items + (size_t)i * t->size);
		if (e) {
			error_free(e);
			return false;
		}
	}
	l->v = items;
	l->n = l->cap = v.kind == JV_ARRAY ? v.n : 0;
	return true;
}

static struct str conditions_to_v1(struct arena *a, const struct autoscaling_v2_horizontal_pod_autoscaler_condition *v,
				   uint32_t n)
{
	struct buf b buf_cleanup = {0};

	buf_putc(&b, '[');
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			buf_putc(&b, ',');
		json_encode(&b, &autoscaling_v2_horizontal_pod_autoscaler_condition_type, &v[i]);
	}
	buf_putc(&b, ']');
	return arena_str(a, buf_view(&b));
}

/* The behavior's annotation is upstream's internal type: no field is left out, and names begin in upper case. */
static const char *const behavior_fields[] = {"ScaleUp", "ScaleDown"},
			 *const rule_fields[] = {"StabilizationWindowSeconds", "SelectPolicy", "Policies", "Tolerance"},
			 *const policy_fields[] = {"Type", "Value", "PeriodSeconds"};

static struct str in_v2(struct arena *a, const char *field)
{
	return arena_printf(a, "%c%s", field[0] + ('a' - 'A'), field + 1);
}

static struct str behavior_to_v1(struct arena *a,
				 const struct autoscaling_v2_horizontal_pod_autoscaler_behavior *behavior)
{
	struct buf b buf_cleanup = {0};
	struct jv v, out = jv_object();

	jv_from_object(a, &autoscaling_v2_horizontal_pod_autoscaler_behavior_type, behavior, &v);
	for (int i = 0; i < 2; i++) {
		const struct jv *rules = jv_get(&v, in_v2(a, behavior_fields[i]));
		struct jv *to = jv_set(a, &out, str_from(behavior_fields[i]), rules ? jv_object() : JV_NULL_VALUE);

		for (int k = 0; rules && k < 4; k++) {
			struct jv *m = jv_get(rules, in_v2(a, rule_fields[k])), policies = jv_array();

			for (uint32_t p = 0; jv_is(m, JV_ARRAY) && p < m->n; p++) {
				struct jv policy = jv_object();

				for (int f = 0; f < 3; f++) {
					struct jv *x = jv_get(&m->items[p], in_v2(a, policy_fields[f]));

					jv_set(a, &policy, str_from(policy_fields[f]),
					       x   ? *x
					       : f ? jv_int(0)
						   : jv_string(STR("")));
				}
				jv_push(a, &policies, policy);
			}
			jv_set(a, to, str_from(rule_fields[k]),
			       !m                    ? JV_NULL_VALUE
			       : m->kind == JV_ARRAY ? policies
						     : *m);
		}
	}
	jv_encode(&b, &out);
	return arena_str(a, buf_view(&b));
}

/* NULL where it is malformed or says nothing. */
static struct autoscaling_v2_horizontal_pod_autoscaler_behavior *behavior_from_v1(struct arena *a, struct str text)
{
	struct autoscaling_v2_horizontal_pod_autoscaler_behavior *behavior =
		arena_new(a, struct autoscaling_v2_horizontal_pod_autoscaler_behavior);
	struct jv v, out = jv_object();
	struct error *e = jv_parse(a, text, NULL, &v);

	for (int i = 0; !e && i < 2; i++) {
		const struct jv *rules = member_of(&v, behavior_fields[i]);
		struct jv *to;

		if (!rules)
			continue;
		to = jv_set(a, &out, in_v2(a, behavior_fields[i]), rules->kind == JV_OBJECT ? jv_object() : *rules);
		for (int k = 0; k < 4; k++) {
			const struct jv *m = member_of(rules, rule_fields[k]);
			struct jv policies = jv_array();

			for (uint32_t p = 0; jv_is(m, JV_ARRAY) && p < m->n; p++) {
				struct jv policy = jv_object();

				for (int f = 0; f < 3; f++) {
					const struct jv *x = member_of(&m->items[p], policy_fields[f]);

					if (x)
						jv_set(a, &policy, in_v2(a, policy_fields[f]), *x);
				}
				jv_push(a, &policies, policy);
			}
			if (m)
				jv_set(a, to, in_v2(a, rule_fields[k]), m->kind == JV_ARRAY ? policies : *m);
		}
	}
	if (!e)
		e = jv_to_object(a, &autoscaling_v2_horizontal_pod_autoscaler_behavior_type, &out, NULL, behavior);
	if (e || (!behavior->scale_up && !behavior->scale_down))
		behavior = NULL;
	error_free(e);
	return behavior;
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

static bool annotation(const struct meta_v1_object_meta *m, const char *name, struct str *out)
{
	struct meta_v1_object_meta *mm = (struct meta_v1_object_meta *)(uintptr_t)m;

	*out = str_map_get(API_MAP(&mm->annotations), str_from(name));
	return str_map_has(API_MAP(&mm->annotations), str_from(name));
}

void hpa_internal_meta(struct arena *a, struct meta_v1_object_meta *m)
{
	meta_copy_annotations(a, m);
	str_map_del(API_MAP(&m->annotations), STR(METRICS));
	str_map_del(API_MAP(&m->annotations), STR(CURRENT));
	str_map_del(API_MAP(&m->annotations), STR(CONDITIONS));
	str_map_del(API_MAP(&m->annotations), STR(BEHAVIOR));
}

/* The metric that v1 has a field for. */
static void cpu_utilization(struct arena *a, struct autoscaling_v2_metric_spec *m, int32_t *percent)
{
	m->type = STR("Resource");
	m->resource = arena_new(a, struct autoscaling_v2_resource_metric_source);
	m->resource->name = STR("cpu");
	m->resource->target.type = STR("Utilization");
	m->resource->target.average_utilization = percent;
}

void convert_hpa_v1_to_v2(struct arena *a, const void *from, void *to)
{
	const struct autoscaling_v1_horizontal_pod_autoscaler *f = from;
	struct autoscaling_v2_horizontal_pod_autoscaler *t = to;
	struct str text;

	t->kind = STR("HorizontalPodAutoscaler");
	t->api_version = STR("autoscaling/v2");
	t->metadata = f->metadata;
	t->spec.scale_target_ref.kind = f->spec.scale_target_ref.kind;
	t->spec.scale_target_ref.name = f->spec.scale_target_ref.name;
	t->spec.scale_target_ref.api_version = f->spec.scale_target_ref.api_version;
	t->spec.min_replicas = f->spec.min_replicas;
	t->spec.max_replicas = f->spec.max_replicas;
	if (annotation(&f->metadata, METRICS, &text))
		metrics_from_v1(a, text, spec_members, &autoscaling_v2_metric_spec_type, &t->spec.metrics);
	if (f->spec.target_cpu_utilization_percentage)
		cpu_utilization(a, arena_push(a, &t->spec.metrics), f->spec.target_cpu_utilization_percentage);
	if (annotation(&f->metadata, BEHAVIOR, &text))
		t->spec.behavior = behavior_from_v1(a, text);
	if (!t->spec.metrics.n) {
		int32_t *percent = arena_new(a, int32_t);

		*percent = 80; /* upstream's DefaultCPUUtilization */
		cpu_utilization(a, arena_push(a, &t->spec.metrics), percent);
	}
	t->status.observed_generation = f->status.observed_generation;
	t->status.last_scale_time = f->status.last_scale_time;
	t->status.current_replicas = f->status.current_replicas;
	t->status.desired_replicas = f->status.desired_replicas;
	/* the annotation knows more than the field */
	if (!(annotation(&f->metadata, CURRENT, &text) &&
	      metrics_from_v1(a, text, status_members, &autoscaling_v2_metric_status_type,
			      &t->status.current_metrics)) &&
	    f->status.current_cpu_utilization_percentage) {
		struct autoscaling_v2_metric_status *m = arena_push(a, &t->status.current_metrics);

		m->type = STR("Resource");
		m->resource = arena_new(a, struct autoscaling_v2_resource_metric_status);
		m->resource->name = STR("cpu");
		m->resource->current.average_utilization = f->status.current_cpu_utilization_percentage;
	}
	if (annotation(&f->metadata, CONDITIONS, &text))
		conditions_from_v1(a, text, &t->status.conditions);
	hpa_internal_meta(a, &t->metadata);
}

void convert_hpa_v2_to_v1(struct arena *a, const void *from, void *to)
{
	const struct autoscaling_v2_horizontal_pod_autoscaler *f = from;
	struct autoscaling_v1_horizontal_pod_autoscaler *t = to;
	LIST(struct autoscaling_v2_metric_spec) other = {0};

	t->kind = STR("HorizontalPodAutoscaler");
	t->api_version = STR("autoscaling/v1");
	t->metadata = f->metadata;
	hpa_internal_meta(a, &t->metadata);
	t->spec.scale_target_ref.kind = f->spec.scale_target_ref.kind;
	t->spec.scale_target_ref.name = f->spec.scale_target_ref.name;
	t->spec.scale_target_ref.api_version = f->spec.scale_target_ref.api_version;
	t->spec.min_replicas = f->spec.min_replicas;
	t->spec.max_replicas = f->spec.max_replicas;
	for (uint32_t i = 0; i < f->spec.metrics.n; i++) {
		const struct autoscaling_v2_metric_spec *m = &f->spec.metrics.v[i];

		if (!str_eqz(m->type, "Resource") || !m->resource || !str_eqz(m->resource->name, "cpu") ||
		    !m->resource->target.average_utilization)
			*arena_push(a, &other) = *m;
		else if (!t->spec.target_cpu_utilization_percentage)
			t->spec.target_cpu_utilization_percentage = m->resource->target.average_utilization;
	}
	t->status.observed_generation = f->status.observed_generation;
	t->status.last_scale_time = f->status.last_scale_time;
	t->status.current_replicas = f->status.current_replicas;
	t->status.desired_replicas = f->status.desired_replicas;
	for (uint32_t i = 0; i < f->status.current_metrics.n; i++) {
		const struct autoscaling_v2_metric_status *m = &f->status.current_metrics.v[i];

		if (str_eqz(m->type, "Resource") && m->resource && str_eqz(m->resource->name, "cpu") &&
		    m->resource->current.average_utilization)
			t->status.current_cpu_utilization_percentage = m->resource->current.average_utilization;
	}
	if (other.n)
		str_map_set(a, API_MAP(&t->metadata.annotations), STR(METRICS),
			    metrics_to_v1(a, spec_members, &autoscaling_v2_metric_spec_type, other.v, other.n));
	if (f->status.current_metrics.n)
		str_map_set(a, API_MAP(&t->metadata.annotations), STR(CURRENT),
			    metrics_to_v1(a, status_members, &autoscaling_v2_metric_status_type,
					  f->status.current_metrics.v, f->status.current_metrics.n));
	if (f->spec.behavior)
		str_map_set(a, API_MAP(&t->metadata.annotations), STR(BEHAVIOR), behavior_to_v1(a, f->spec.behavior));
	if (f->status.conditions.n)
		str_map_set(a, API_MAP(&t->metadata.annotations), STR(CONDITIONS),
			    conditions_to_v1(a, f->status.conditions.v, f->status.conditions.n));
}
