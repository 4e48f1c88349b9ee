/*
 * Metrics of autoscalers: read through the aggregated APIs metrics.k8s.io, custom.metrics.k8s.io and external.metrics.k8s.io,
 * and turned into a number of replicas by upstream's rules: pods that are not ready, or without figures, are assumed to
 * use what makes the smaller change.
 */
#include <math.h>

#include "controller/hpa.h"
#include "schema/quantity.h"

#define CPU_INITIALIZATION_MS (5 * 60 * 1000)  /* --horizontal-pod-autoscaler-cpu-initialization-period */
#define INITIAL_READINESS_MS 30000             /* --horizontal-pod-autoscaler-initial-readiness-delay */

struct sample {
	struct str pod;
	int64_t milli;
	int64_t at_ms, window_ms;
};
typedef LIST(struct sample) samples;

static struct sample *sample_of(samples *s, struct str pod)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (str_eq(s->v[i].pod, pod))
			return &s->v[i];
	return NULL;
}

static void drop(samples *s, struct str pod)
{
	struct sample *x = sample_of(s, pod);

	if (x)
		*x = s->v[--s->n];
}

/* ---- the three APIs ---- */

static void escape(struct buf *b, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '~')
			buf_putc(b, (char)c);
		else
			buf_printf(b, "%%%02X", c);
	}
}

static struct error *fetch(struct manager *m, struct arena *a, struct buf *target, struct jv *out)
{
	struct str body;

	TRY(client_raw(m->client, a, "GET", buf_view(target), NULL, STR_NULL, &body));
	return jv_parse(a, body, NULL, out);
}

static int64_t when_ms(const struct jv *item, int64_t *window_ms)
{
	struct api_time t = {0};
	int64_t ns = 60LL * 1000000000;

	if (window_ms) {
		struct str w = jv_str(jv_get(item, STR("window")));

		if (w.n)
			duration_parse(w, &ns);
		*window_ms = ns / 1000000;
	}
	return time_parse(jv_str(jv_get(item, STR("timestamp"))), &t) ? time_ms(t) : wall_ms();
}

/* A pod counts only when each of its containers (or the one asked for) has the figure. */
static bool pod_usage(const struct jv *item, struct str resource, struct str container, int64_t *milli)
{
	const struct jv *cs = jv_get(item, STR("containers"));
	bool found = false;

	*milli = 0;
	for (uint32_t i = 0; jv_is(cs, JV_ARRAY) && i < cs->n; i++) {
		struct str v = jv_str(jv_get(jv_get(&cs->items[i], STR("usage")), resource));

		if (container.n && !str_eq(jv_str(jv_get(&cs->items[i], STR("name"))), container))
			continue;
		if (!v.n)
			return false;
		*milli += quantity_milli(v);
		found = true;
	}
	return found;
}

static struct error *resource_samples(const struct hpa_target *t, struct arena *a, struct str resource, struct str container, samples *out)
{
	struct buf b buf_cleanup = {0};
	struct jv doc;

	buf_printf(&b, "/apis/metrics.k8s.io/v1beta1/namespaces/%.*s/pods?labelSelector=", STR_ARG(t->ns));
	escape(&b, t->selector_text);
	struct error *e = fetch(t->m, a, &b, &doc);

	if (e)
		return error_wrap(e, "unable to get metrics for resource %.*s: unable to fetch metrics from resource metrics API", STR_ARG(resource));
	const struct jv *items = jv_get(&doc, STR("items"));

	for (uint32_t i = 0; jv_is(items, JV_ARRAY) && i < items->n; i++) {
		struct sample s = {.pod = jv_str(jv_path(&items->items[i], STR("metadata.name")))};

		s.at_ms = when_ms(&items->items[i], &s.window_ms);
		if (pod_usage(&items->items[i], resource, container, &s.milli))
			*arena_push(a, out) = s;
	}
	if (!out->n)
		return error_new("unable to get metrics for resource %.*s: no metrics returned from resource metrics API", STR_ARG(resource));
	return NULL;
}

static void add_selector(struct buf *b, struct arena *a, const char *name, const struct meta_v1_label_selector *s)
{
	const struct selector *sel;
	struct error *e = s ? label_selector_from(a, s, &sel) : NULL;

	if (s && !e) {
		buf_printf(b, "%c%s=", memchr(b->p, '?', b->n) ? '&' : '?', name);
		escape(b, selector_format(a, sel));
	}
	error_free(e); /* the API server has validated it */
}

/* The version that the group's server prefers. */
static struct error *custom_version(struct manager *m, struct arena *a, struct str *out)
{
	struct buf b buf_cleanup = {0};
	struct jv doc;

	buf_puts(&b, "/apis/custom.metrics.k8s.io");
	TRY(error_wrap(fetch(m, a, &b, &doc), "unable to fetch metrics from custom metrics API"));
	*out = jv_str(jv_path(&doc, STR("preferredVersion.version")));
	if (!out->n)
		*out = STR("v1beta2");
	return NULL;
}

static struct str item_value(const struct jv *item)
{
	return jv_str(jv_get(item, STR("value")));
}

static struct error *custom_samples(const struct hpa_target *t, struct arena *a, const struct autoscaling_v2_metric_identifier *metric, samples *out)
{
	struct buf b buf_cleanup = {0};
	struct str version;
	struct jv doc;

	TRY(custom_version(t->m, a, &version));
	buf_printf(&b, "/apis/custom.metrics.k8s.io/%.*s/namespaces/%.*s/pods/*/", STR_ARG(version), STR_ARG(t->ns));
	escape(&b, metric->name);
	buf_puts(&b, "?labelSelector=");
	escape(&b, t->selector_text);
	add_selector(&b, a, "metricLabelSelector", metric->selector);
	struct error *e = fetch(t->m, a, &b, &doc);

	if (e)
		return error_wrap(e, "unable to get metric %.*s: unable to fetch metrics from custom metrics API", STR_ARG(metric->name));
	const struct jv *items = jv_get(&doc, STR("items"));

	for (uint32_t i = 0; jv_is(items, JV_ARRAY) && i < items->n; i++) {
		struct sample *s = arena_push(a, out);

		s->pod = jv_str(jv_path(&items->items[i], STR("describedObject.name")));
		s->milli = quantity_milli(item_value(&items->items[i]));
		s->at_ms = when_ms(&items->items[i], &s->window_ms);
	}
	if (!out->n)
		return error_new("unable to get metric %.*s: no metrics returned from custom metrics API", STR_ARG(metric->name));
	return NULL;
}

static struct error *object_value(const struct hpa_target *t, struct arena *a, const struct autoscaling_v2_object_metric_source *o, int64_t *milli)
{
	const struct autoscaling_v2_cross_version_object_reference *ref = &o->described_object;
	struct buf b buf_cleanup = {0};
	const struct api_resource **v, *r = NULL;
	struct str version, group, ver;
	size_t n;
	struct jv doc;

	api_version_split(ref->api_version, &group, &ver);
	TRY(manager_discover(t->m, &v, &n, NULL));
	for (size_t i = 0; i < n && !r; i++)
		if (str_eq(v[i]->group, group) && str_eq(v[i]->kind, ref->kind))
			r = v[i];
	if (!r)
		return error_new("unable to get metric %.*s: no matches for kind \"%.*s\" in version \"%.*s\"", STR_ARG(o->metric.name),
				 STR_ARG(ref->kind), STR_ARG(ref->api_version));
	TRY(custom_version(t->m, a, &version));
	if (str_eqz(ref->kind, "Namespace") && !group.n)
		buf_printf(&b, "/apis/custom.metrics.k8s.io/%.*s/namespaces/%.*s/metrics/", STR_ARG(version), STR_ARG(t->ns));
	else
		buf_printf(&b, "/apis/custom.metrics.k8s.io/%.*s/%s%.*s%s%.*s%s%.*s/%.*s/", STR_ARG(version), r->namespaced ? "namespaces/" : "",
			   r->namespaced ? (int)t->ns.n : 0, t->ns.p, r->namespaced ? "/" : "", STR_ARG(r->plural), group.n ? "." : "",
			   STR_ARG(group), STR_ARG(ref->name));
	escape(&b, o->metric.name);
	add_selector(&b, a, "metricLabelSelector", o->metric.selector);
	struct error *e = fetch(t->m, a, &b, &doc);
	const struct jv *items = e ? NULL : jv_get(&doc, STR("items"));

	if (e)
		return error_wrap(e, "unable to get metric %.*s: %.*s on %.*s %.*s/unable to fetch metrics from custom metrics API", STR_ARG(o->metric.name),
				  STR_ARG(ref->kind), STR_ARG(t->ns), STR_ARG(ref->name));
	if (!jv_is(items, JV_ARRAY) || !items->n)
		return error_new("unable to get metric %.*s: no metrics returned from custom metrics API", STR_ARG(o->metric.name));
	*milli = quantity_milli(item_value(&items->items[0]));
	return NULL;
}

static struct error *external_value(const struct hpa_target *t, struct arena *a, const struct autoscaling_v2_metric_identifier *metric, int64_t *milli)
{
	struct buf b buf_cleanup = {0};
	struct jv doc;

	buf_printf(&b, "/apis/external.metrics.k8s.io/v1beta1/namespaces/%.*s/", STR_ARG(t->ns));
	escape(&b, metric->name);
	add_selector(&b, a, "labelSelector", metric->selector);
	struct error *e = fetch(t->m, a, &b, &doc);
	const struct jv *items = e ? NULL : jv_get(&doc, STR("items"));

	if (e)
		return error_wrap(e, "unable to get external metric %.*s/%.*s: unable to fetch metrics from external metrics API", STR_ARG(t->ns),
				  STR_ARG(metric->name));
	if (!jv_is(items, JV_ARRAY) || !items->n)
		return error_new("unable to get external metric %.*s/%.*s: no metrics returned from external metrics API", STR_ARG(t->ns),
				 STR_ARG(metric->name));
	*milli = 0;
	for (uint32_t i = 0; i < items->n; i++)
		*milli += quantity_milli(item_value(&items->items[i]));
	return NULL;
}

/* ---- pods ---- */

struct grouped {
	struct core_v1_pod **pods;
	size_t n;
	int32_t ready;
	LIST(struct str) unready, missing;
};

/* During its start a pod's CPU says nothing of its load. */
static bool cpu_unready(const struct core_v1_pod *p, const struct sample *s)
{
	const struct core_v1_pod_condition *c = pod_condition(p, "Ready");

	if (!c || !p->status.start_time)
		return true;
	int64_t start = time_ms(*p->status.start_time), changed = time_ms(c->last_transition_time);

	if (start + CPU_INITIALIZATION_MS > wall_ms())
		return str_eqz(c->status, "False") || s->at_ms < changed + s->window_ms;
	return str_eqz(c->status, "False") && start + INITIAL_READINESS_MS > changed;
}

static void group_pods(const struct hpa_target *t, struct arena *a, samples *s, bool cpu, struct grouped *g)
{
	g->n = informer_list(t->pods, a, t->ns, t->selector, (void ***)&g->pods);
	for (size_t i = 0; i < g->n; i++) {
		const struct core_v1_pod *p = g->pods[i];
		const struct sample *x = sample_of(s, p->metadata.name);

		if (p->metadata.deletion_timestamp || str_eqz(p->status.phase, "Failed"))
			drop(s, p->metadata.name);
		else if (str_eqz(p->status.phase, "Pending"))
			*arena_push(a, &g->unready) = p->metadata.name;
		else if (!x)
			*arena_push(a, &g->missing) = p->metadata.name;
		else if (cpu && cpu_unready(p, x))
			*arena_push(a, &g->unready) = p->metadata.name;
		else
			g->ready++;
	}
	for (uint32_t i = 0; i < g->unready.n; i++)
		drop(s, g->unready.v[i]);
}

static bool requests(const struct core_v1_pod *p, struct str resource, struct str container, int64_t *milli, struct str *without)
{
	*milli = 0;
	for (uint32_t i = 0; i < p->spec.containers.n + p->spec.init_containers.n; i++) {
		bool init = i >= p->spec.containers.n;
		const struct core_v1_container *c = init ? &p->spec.init_containers.v[i - p->spec.containers.n] : &p->spec.containers.v[i];

		if ((init && !(c->restart_policy && str_eqz(*c->restart_policy, "Always"))) || (container.n && !str_eq(c->name, container)))
			continue;
		struct str q = str_map_get(API_MAP(&c->resources.requests), resource);

		if (!q.n) {
			*without = c->name;
			return false;
		}
		*milli += quantity_milli(q);
	}
	return true;
}

static bool within(const struct tolerances *t, double ratio)
{
	return ratio >= 1 - t->down && ratio <= 1 + t->up;
}

struct usage { /* of utilization: what the pods ask for; else the target of each */
	samples asked;
	int64_t target;
	bool percent;
};

static double ratio_of(samples *s, struct usage *u, int32_t *percent, int64_t *average)
{
	int64_t used = 0, asked = 0;

	for (uint32_t i = 0; i < s->n; i++) {
		const struct sample *r = u->percent ? sample_of(&u->asked, s->v[i].pod) : NULL;

		if (u->percent && !r)
			continue;
		used += s->v[i].milli;
		asked += r ? r->milli : 0;
	}
	*average = s->n ? used / (int64_t)s->n : 0;
	if (!u->percent)
		return (double)*average / (double)u->target;
	*percent = asked ? (int32_t)(used * 100 / asked) : 0;
	return (double)*percent / (double)u->target;
}

static void assume(struct arena *a, samples *s, struct str pod, int64_t milli)
{
	*arena_push(a, s) = (struct sample){.pod = pod, .milli = milli};
}

/* Upstream's ReplicaCalculator, for percentages and for plain values. */
static struct error *calculate(const struct hpa_target *t, struct arena *a, samples *s, struct grouped *g, struct usage *u, int32_t *replicas,
			       int32_t *percent, int64_t *average)
{
	int32_t ignored_percent;
	int64_t ignored_average;

	if (!g->n)
		return error_new("no pods returned by selector while calculating replica count");
	if (!s->n)
		return error_new("did not receive metrics for targeted pods (pods might be unready)");
	double ratio = ratio_of(s, u, percent, average);
	bool up_with_unready = g->unready.n && ratio > 1;

	*replicas = t->current;
	if (!up_with_unready && !g->missing.n) {
		if (!within(&t->tolerances, ratio))
			*replicas = (int32_t)ceil(ratio * g->ready);
		return NULL;
	}
	for (uint32_t i = 0; i < g->missing.n && ratio != 1; i++) {
		const struct sample *asked = sample_of(&u->asked, g->missing.v[i]);
		int64_t full = u->percent ? (asked ? asked->milli * (u->target > 100 ? u->target : 100) / 100 : 0) : u->target;

		assume(a, s, g->missing.v[i], ratio < 1 ? full : 0);
	}
	for (uint32_t i = 0; i < g->unready.n && up_with_unready; i++)
		assume(a, s, g->unready.v[i], 0);
	double again = ratio_of(s, u, &ignored_percent, &ignored_average);

	if (within(&t->tolerances, again) || (ratio < 1 && again > 1) || (ratio > 1 && again < 1))
		return NULL;
	int32_t n = (int32_t)ceil(again * s->n);

	if (!((again < 1 && n > t->current) || (again > 1 && n < t->current)))
		*replicas = n;
	return NULL;
}

/* ---- kinds of metrics ---- */

static struct str milli_text(struct arena *a, int64_t milli)
{
	return quantity_from_milli(a, milli);
}

static struct error *resource_metric(const struct hpa_target *t, struct arena *a, struct str resource, struct str container,
				     const struct autoscaling_v2_metric_target *target, int32_t *replicas,
				     struct autoscaling_v2_metric_value_status *current)
{
	bool cpu = str_eqz(resource, "cpu");
	struct grouped g = {0};
	struct usage u = {.percent = target->average_utilization != NULL};
	samples s = {0};
	int32_t percent = 0;
	int64_t average = 0;

	if (!u.percent && !target->average_value)
		return error_new("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set");
	TRY(resource_samples(t, a, resource, container, &s));
	group_pods(t, a, &s, cpu, &g);
	u.target = u.percent ? *target->average_utilization : quantity_milli(*target->average_value);
	for (size_t i = 0; u.percent && i < g.n; i++) {
		struct str without = STR_NULL;
		int64_t milli;

		if (!requests(g.pods[i], resource, container, &milli, &without))
			return error_new("missing request for %.*s in container %.*s of Pod %.*s", STR_ARG(resource), STR_ARG(without),
					 STR_ARG(g.pods[i]->metadata.name));
		assume(a, &u.asked, g.pods[i]->metadata.name, milli);
	}
	TRY(calculate(t, a, &s, &g, &u, replicas, &percent, &average));
	current->average_value = new_str(a, milli_text(a, average));
	if (u.percent)
		current->average_utilization = new_i32(a, percent);
	return NULL;
}

static struct error *pods_metric(const struct hpa_target *t, struct arena *a, const struct autoscaling_v2_pods_metric_source *m, struct hpa_answer *out)
{
	struct grouped g = {0};
	struct usage u = {0};
	samples s = {0};
	int32_t percent;
	int64_t average;

	TRY(custom_samples(t, a, &m->metric, &s));
	group_pods(t, a, &s, false, &g);
	u.target = m->target.average_value ? quantity_milli(*m->target.average_value) : 0;
	TRY(calculate(t, a, &s, &g, &u, &out->replicas, &percent, &average));
	out->name = arena_printf(a, "pods metric %.*s", STR_ARG(m->metric.name));
	out->status.pods = arena_new(a, struct autoscaling_v2_pods_metric_status);
	out->status.pods->metric = m->metric;
	out->status.pods->current.average_value = new_str(a, milli_text(a, average));
	return NULL;
}

static int32_t ready_pods(const struct hpa_target *t, struct arena *a)
{
	struct core_v1_pod **v;
	size_t n = informer_list(t->pods, a, t->ns, t->selector, (void ***)&v);
	int32_t k = 0;

	for (size_t i = 0; i < n; i++)
		k += str_eqz(v[i]->status.phase, "Running") && pod_is_ready(v[i]);
	return k;
}

/* One value for the whole workload: compared as it is, or shared by the replicas there are. */
static struct error *single(const struct hpa_target *t, struct arena *a, const struct autoscaling_v2_metric_target *target, int64_t milli,
			    int32_t *replicas, struct autoscaling_v2_metric_value_status *current)
{
	*replicas = t->current;
	if (target->average_value) {
		int64_t each = quantity_milli(*target->average_value);
		int32_t have = t->observed;
		double ratio = (double)milli / ((double)each * have);

		*replicas = have;
		if (!have || !within(&t->tolerances, ratio))
			*replicas = (int32_t)ceil((double)milli / (double)each);
		current->average_value = new_str(a, milli_text(a, have ? (int64_t)ceil((double)milli / have) : milli));
		return NULL;
	}
	if (!target->value)
		return error_new("invalid metric source: neither a value target nor an average value target was set");
	double ratio = (double)milli / (double)quantity_milli(*target->value);

	if (!t->current)
		*replicas = (int32_t)ceil(ratio);
	else if (!within(&t->tolerances, ratio))
		*replicas = (int32_t)fmin(ceil(ratio * ready_pods(t, a)), INT32_MAX);
	current->value = new_str(a, milli_text(a, milli));
	return NULL;
}

struct error *hpa_metric(const struct hpa_target *t, struct arena *a, const struct autoscaling_v2_metric_spec *m, struct hpa_answer *out)
{
	int64_t milli = 0;

	*out = (struct hpa_answer){.status = {.type = m->type}};
	if (str_eqz(m->type, "Resource") && m->resource) {
		struct autoscaling_v2_resource_metric_status *st = out->status.resource = arena_new(a, struct autoscaling_v2_resource_metric_status);

		out->condition = "FailedGetResourceMetric";
		st->name = m->resource->name;
		TRY(error_wrap(resource_metric(t, a, m->resource->name, STR_NULL, &m->resource->target, &out->replicas, &st->current),
			       "failed to get %.*s %s", STR_ARG(m->resource->name), m->resource->target.average_utilization ? "utilization" : "usage"));
		out->name = arena_printf(a, m->resource->target.average_utilization ? "%.*s resource utilization (percentage of request)" : "%.*s resource",
					 STR_ARG(m->resource->name));
		return NULL;
	}
	if (str_eqz(m->type, "ContainerResource") && m->container_resource) {
		const struct autoscaling_v2_container_resource_metric_source *c = m->container_resource;
		struct autoscaling_v2_container_resource_metric_status *st =
			out->status.container_resource = arena_new(a, struct autoscaling_v2_container_resource_metric_status);

		out->condition = "FailedGetContainerResourceMetric";
		st->name = c->name;
		st->container = c->container;
		TRY(error_wrap(resource_metric(t, a, c->name, c->container, &c->target, &out->replicas, &st->current), "failed to get %.*s %s",
			       STR_ARG(c->name), c->target.average_utilization ? "utilization" : "usage"));
		out->name = arena_printf(a, c->target.average_utilization ? "%.*s container resource utilization (percentage of request)" :
									    "%.*s container resource", STR_ARG(c->name));
		return NULL;
	}
	if (str_eqz(m->type, "Pods") && m->pods) {
		out->condition = "FailedGetPodsMetric";
		return error_wrap(pods_metric(t, a, m->pods, out), "failed to get pods metric value");
	}
	if (str_eqz(m->type, "Object") && m->object) {
		struct autoscaling_v2_object_metric_status *st = out->status.object = arena_new(a, struct autoscaling_v2_object_metric_status);

		out->condition = "FailedGetObjectMetric";
		st->metric = m->object->metric;
		st->described_object = m->object->described_object;
		TRY(error_wrap(object_value(t, a, m->object, &milli), "failed to get object metric value"));
		out->name = arena_printf(a, "%.*s metric %.*s", STR_ARG(m->object->described_object.kind), STR_ARG(m->object->metric.name));
		return single(t, a, &m->object->target, milli, &out->replicas, &st->current);
	}
	if (str_eqz(m->type, "External") && m->external) {
		struct autoscaling_v2_external_metric_status *st = out->status.external = arena_new(a, struct autoscaling_v2_external_metric_status);

		out->condition = "FailedGetExternalMetric";
		st->metric = m->external->metric;
		TRY(error_wrap(external_value(t, a, &m->external->metric, &milli), "failed to get external metric %.*s", STR_ARG(m->external->metric.name)));
		out->name = arena_printf(a, "external metric %.*s", STR_ARG(m->external->metric.name));
		return single(t, a, &m->external->target, milli, &out->replicas, &st->current);
	}
	out->condition = "InvalidMetricSourceType";
	return error_new("unknown metric source type \"%.*s\"", STR_ARG(m->type));
}
