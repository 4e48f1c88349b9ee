/*
 * controller/hpa.c: HorizontalPodAutoscaler (autoscaling/v2): every 15 s asks each metric how many replicas it wants, takes the
 * most, keeps within the object's bounds and its behavior, and sets the target's scale.
 */
#include <errno.h>
#include <stdlib.h>

#include "controller/hpa.h"
#include "controller/scale.h"
#include "schema/quantity.h"

#define TOLERANCE 0.1                 /* --horizontal-pod-autoscaler-tolerance */
#define DOWN_STABILIZATION_S 300      /* --horizontal-pod-autoscaler-downscale-stabilization */
#define HISTORY_MAX 1024              /* recommendations and events kept of one autoscaler */

typedef struct autoscaling_v2_horizontal_pod_autoscaler hpa_t;

struct past {
	int64_t at_ms;
	int32_t n;                    /* a recommendation, or by how much was scaled */
};
struct history {
	struct past v[HISTORY_MAX];
	uint32_t n;
};
struct memory { /* of one autoscaler */
	struct history recommended, ups, downs;
};

struct hpa_controller {
	struct manager *m;
	struct informer *hpas, *pods;
	struct workqueue *q;
	struct event_recorder *rec;
	struct map memories;          /* "ns/name" -> struct memory */
};

/* ---- memory ---- */

static void remember(struct history *h, int32_t n, int64_t keep_ms)
{
	int64_t now = now_ms();
	uint32_t k = 0;

	for (uint32_t i = 0; i < h->n; i++)
		if (now - h->v[i].at_ms <= keep_ms)
			h->v[k++] = h->v[i];
	if (k == HISTORY_MAX) {
		memmove(h->v, h->v + 1, (HISTORY_MAX - 1) * sizeof(*h->v));
		k--;
	}
	h->v[k] = (struct past){now, n};
	h->n = k + 1;
}

static int32_t changed_within(const struct history *h, int32_t seconds)
{
	int32_t sum = 0;

	for (uint32_t i = 0; i < h->n; i++)
		if (now_ms() - h->v[i].at_ms < seconds * 1000LL)
			sum += h->v[i].n;
	return sum;
}

/* ---- conditions, events ---- */

static void condition(struct arena *a, hpa_t *h, const char *type, const char *status, const char *reason, struct str message)
{
	struct autoscaling_v2_horizontal_pod_autoscaler_condition *c = NULL;

	for (uint32_t i = 0; i < h->status.conditions.n && !c; i++)
		if (str_eqz(h->status.conditions.v[i].type, type))
			c = &h->status.conditions.v[i];
	if (!c) {
		c = arena_push(a, &h->status.conditions);
		c->type = str_from(type);
	}
	if (!str_eqz(c->status, status))
		c->last_transition_time = api_now();
	c->status = str_from(status);
	c->reason = str_from(reason);
	c->message = message;
}

static void event(struct hpa_controller *c, const hpa_t *h, const char *type, const char *reason, struct str message)
{
	struct core_v1_object_reference ref = object_reference(&autoscaling_v2_horizontalpodautoscalers_resource, h);

	event_record(c->rec, &ref, type, reason, "%.*s", STR_ARG(message));
}

static struct str text_of(struct arena *a, const struct error *e)
{
	return arena_printf(a, "%s", error_message(e));
}

static struct error *write_status(struct hpa_controller *c, struct arena *a, const hpa_t *before, const hpa_t *h)
{
	if (SAME(autoscaling_v2_horizontal_pod_autoscaler_status, &before->status, &h->status))
		return NULL;
	struct error *e = client_update(c->m->client, a, &autoscaling_v2_horizontalpodautoscalers_resource, h->metadata.namespace, "status", h, NULL);

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL)) /* looked at again soon anyway */
		error_clear(&e);
	return e;
}

/* ---- bounds and behavior ---- */

static int32_t min_of(const hpa_t *h)
{
	return i32_or(h->spec.min_replicas, 1);
}

static const struct autoscaling_v2_hpa_scaling_rules *rules(const hpa_t *h, bool up)
{
	return !h->spec.behavior ? NULL : up ? h->spec.behavior->scale_up : h->spec.behavior->scale_down;
}

static int32_t stabilization(const hpa_t *h, bool up)
{
	const struct autoscaling_v2_hpa_scaling_rules *r = rules(h, up);

	return r && r->stabilization_window_seconds ? *r->stabilization_window_seconds : up ? 0 : DOWN_STABILIZATION_S;
}

/* The calmest of the recent recommendations: the lowest of the up window when growing, the highest of the down window when shrinking. */
static int32_t stabilize(struct arena *a, hpa_t *h, struct memory *m, int32_t current, int32_t want)
{
	int32_t up = want, down = want, up_s = stabilization(h, true), down_s = stabilization(h, false), out = current;
	int64_t now = now_ms();

	for (uint32_t i = 0; i < m->recommended.n; i++) {
		const struct past *p = &m->recommended.v[i];

		if (now - p->at_ms <= up_s * 1000LL && p->n < up)
			up = p->n;
		if (now - p->at_ms <= down_s * 1000LL && p->n > down)
			down = p->n;
	}
	remember(&m->recommended, want, (up_s > down_s ? up_s : down_s) * 1000LL);
	if (out < up)
		out = up;
	if (out > down)
		out = down;
	if (out == want)
		condition(a, h, "AbleToScale", "True", "ReadyForNewScale", STR("recommended size matches current size"));
	else if (out > want)
		condition(a, h, "AbleToScale", "True", "ScaleDownStabilized",
			  STR("recent recommendations were higher than current one, applying the highest recent recommendation"));
	else
		condition(a, h, "AbleToScale", "True", "ScaleUpStabilized",
			  STR("recent recommendations were lower than current one, applying the lowest recent recommendation"));
	return out;
}

/* The most (up) or least (down) that the policies allow now. */
static int32_t limit(const hpa_t *h, const struct memory *m, int32_t current, bool up)
{
	static struct autoscaling_v2_hpa_scaling_policy defaults_up[] = {
		{STR_INIT("Percent"), 100, 15}, {STR_INIT("Pods"), 4, 15},
	}, defaults_down[] = {{STR_INIT("Percent"), 100, 15}};
	const struct autoscaling_v2_hpa_scaling_rules *r = rules(h, up);
	const struct autoscaling_v2_hpa_scaling_policy *v = r && r->policies.n ? r->policies.v : up ? defaults_up : defaults_down;
	uint32_t n = r && r->policies.n ? r->policies.n : up ? 2 : 1;
	bool least = r && r->select_policy && str_eqz(*r->select_policy, "Min");
	int64_t best = -1;

	if (r && r->select_policy && str_eqz(*r->select_policy, "Disabled"))
		return current;
	for (uint32_t i = 0; i < n; i++) {
		int32_t added = changed_within(&m->ups, v[i].period_seconds), removed = changed_within(&m->downs, v[i].period_seconds);
		int64_t start = (int64_t)current + removed - added, x;

		if (str_eqz(v[i].type, "Pods"))
			x = up ? start + v[i].value : start - v[i].value;
		else if (up)
			x = (start * (100 + (int64_t)v[i].value) + 99) / 100;
		else
			x = start * (100 - (int64_t)v[i].value) / 100;
		/* Most change wins unless the least is asked for. */
		bool more = up ? x > best : x < best;

		if (best < 0 || more != least)
			best = x < 0 ? 0 : x;
	}
	return best > INT32_MAX ? INT32_MAX : (int32_t)best;
}

static int32_t bounded(struct arena *a, hpa_t *h, const struct memory *m, int32_t current, int32_t want)
{
	int32_t lo = min_of(h), hi = h->spec.max_replicas, out = want;
	const char *reason = "DesiredWithinRange";
	struct str why = STR("the desired count is within the acceptable range");

	if (want > current || (want == current && want > hi)) {
		int32_t most = h->spec.behavior ? limit(h, m, current, true) : current * 2 > 4 ? current * 2 : 4;

		if (most < current)
			most = current;
		if (out > (most < hi ? most : hi)) {
			bool by_rate = most < hi;

			out = by_rate ? most : hi;
			reason = by_rate ? "ScaleUpLimit" : "TooManyReplicas";
			why = by_rate ? STR("the desired replica count is increasing faster than the maximum scale rate") :
					STR("the desired replica count is more than the maximum replica count");
		}
	} else if (want < current) {
		int32_t least = h->spec.behavior ? limit(h, m, current, false) : 0;

		if (least > current)
			least = current;
		if (out < (least > lo ? least : lo)) {
			bool by_rate = least > lo;

			out = by_rate ? least : lo;
			reason = by_rate ? "ScaleDownLimit" : "TooFewReplicas";
			why = by_rate ? STR("the desired replica count is decreasing faster than the maximum scale rate") :
					STR("the desired replica count is less than the minimum replica count");
		}
	}
	if (out < lo) {
		out = lo;
		reason = "TooFewReplicas";
		why = STR("the desired replica count is less than the minimum replica count");
	}
	condition(a, h, "ScalingLimited", strcmp(reason, "DesiredWithinRange") ? "True" : "False", reason, why);
	return out;
}

/* ---- metrics ---- */

static double tolerance(const hpa_t *h, bool up)
{
	const struct autoscaling_v2_hpa_scaling_rules *r = rules(h, up);

	return r && r->tolerance && r->tolerance->n ? (double)quantity_milli(*r->tolerance) / 1000 : TOLERANCE;
}

/* *want: the most that any metric wants, -1 when none can tell. Of several that fail the first error is returned. */
static struct error *ask_metrics(struct hpa_controller *c, struct arena *a, hpa_t *h, const struct scale_ref *s, int32_t *want, struct str *name,
				 bool *some_failed)
{
	struct hpa_target t = {.m = c->m, .pods = c->pods, .ns = h->metadata.namespace, .current = s->scale->spec.replicas,
			       .observed = s->scale->status.replicas, .selector_text = s->scale->status.selector,
			       .tolerances = {tolerance(h, true), tolerance(h, false)}};
	struct error *first = NULL;
	const char *reason = NULL;
	uint32_t failed = 0;

	*want = -1;
	h->status.current_metrics.v = NULL;
	h->status.current_metrics.n = h->status.current_metrics.cap = 0;
	if (!t.selector_text.n) {
		condition(a, h, "ScalingActive", "False", "InvalidSelector", STR("the HPA target's scale is missing a selector"));
		event(c, h, "Warning", "SelectorRequired", STR("selector is required"));
		return error_new("selector is required");
	}
	TRY(label_selector_parse(a, t.selector_text, &t.selector));
	for (uint32_t i = 0; i < h->spec.metrics.n; i++) {
		struct hpa_answer x;
		struct error *e = hpa_metric(&t, a, &h->spec.metrics.v[i], &x);

		if (e) {
			failed++;
			event(c, h, "Warning", x.condition, text_of(a, e));
			if (first) {
				error_free(e);
			} else {
				first = e;
				reason = x.condition;
			}
			continue;
		}
		*arena_push(a, &h->status.current_metrics) = x.status;
		if (x.replicas > *want) {
			*want = x.replicas;
			*name = x.name;
		}
	}
	/* With a metric missing the others may make it grow, never shrink. */
	if (failed && (failed == h->spec.metrics.n || *want < t.current)) {
		condition(a, h, "ScalingActive", "False", reason,
			  arena_printf(a, "the HPA was unable to compute the replica count: %s", error_message(first)));
		*want = -1;
		return error_wrap(first, "invalid metrics (%u invalid out of %u), first error is", failed, h->spec.metrics.n);
	}
	error_free(first);
	*some_failed = failed > 0;
	condition(a, h, "ScalingActive", "True", "ValidMetricFound",
		  arena_printf(a, "the HPA was able to successfully calculate a replica count from %.*s", STR_ARG(*name)));
	return NULL;
}

/* ---- one autoscaler ---- */

static struct error *set_scale(struct hpa_controller *c, struct arena *a, hpa_t *h, struct scale_ref *s, int32_t replicas)
{
	const struct autoscaling_v2_cross_version_object_reference *ref = &h->spec.scale_target_ref;
	struct error *e = scale_set_replicas(c->m, a, s, replicas);

	for (int tries = 0; client_retry_conflict(&e, &tries);) {
		TRY(scale_get(c->m, a, ref->api_version, ref->kind, h->metadata.namespace, ref->name, s));
		e = scale_set_replicas(c->m, a, s, replicas);
	}
	return e;
}

static struct error *rescale(struct hpa_controller *c, struct arena *a, hpa_t *h, struct memory *m, struct scale_ref *s, int32_t current, int32_t want,
			     struct str why)
{
	struct error *e = set_scale(c, a, h, s, want);

	if (e) {
		event(c, h, "Warning", "FailedRescale", arena_printf(a, "New size: %d; reason: %.*s; error: %s", want, STR_ARG(why), error_message(e)));
		condition(a, h, "AbleToScale", "False", "FailedUpdateScale",
			  arena_printf(a, "the HPA controller was unable to update the target scale: %s", error_message(e)));
		return e;
	}
	condition(a, h, "AbleToScale", "True", "SucceededRescale",
		  arena_printf(a, "the HPA controller was able to update the target scale to %d", want));
	event(c, h, "Normal", "SuccessfulRescale", arena_printf(a, "New size: %d; reason: %.*s", want, STR_ARG(why)));
	if (want > current)
		remember(&m->ups, want - current, 3600 * 1000LL);
	else
		remember(&m->downs, current - want, 3600 * 1000LL);
	h->status.last_scale_time = arena_new(a, struct api_time);
	*h->status.last_scale_time = api_now();
	return NULL;
}

static struct error *autoscale(struct hpa_controller *c, struct arena *a, hpa_t *h, struct memory *m)
{
	const struct autoscaling_v2_cross_version_object_reference *ref = &h->spec.scale_target_ref;
	struct scale_ref s;
	struct str why = STR_NULL, name = STR_NULL;
	bool some_failed = false;
	struct error *e = scale_get(c->m, a, ref->api_version, ref->kind, h->metadata.namespace, ref->name, &s);

	if (e) {
		event(c, h, "Warning", "FailedGetScale", text_of(a, e));
		condition(a, h, "AbleToScale", "False", "FailedGetScale",
			  arena_printf(a, "the HPA controller was unable to get the target's current scale: %s", error_message(e)));
		return error_wrap(e, "failed to query scale subresource");
	}
	condition(a, h, "AbleToScale", "True", "SucceededGetScale", STR("the HPA controller was able to get the target's current scale"));
	int32_t current = s.scale->spec.replicas, want, lo = min_of(h);

	h->status.current_replicas = s.scale->status.replicas;
	if (!m->recommended.n)
		remember(&m->recommended, current, DOWN_STABILIZATION_S * 1000LL);
	if (current == 0 && lo != 0) {
		h->status.desired_replicas = 0;
		condition(a, h, "ScalingActive", "False", "ScalingDisabled",
			  STR("scaling is disabled since the replica count of the target is zero"));
		return NULL;
	}
	if (current > h->spec.max_replicas) {
		want = h->spec.max_replicas;
		why = STR("Current number of replicas above Spec.MaxReplicas");
	} else if (current < lo) {
		want = lo;
		why = STR("Current number of replicas below Spec.MinReplicas");
	} else {
		e = ask_metrics(c, a, h, &s, &want, &name, &some_failed);
		if (e) {
			event(c, h, "Warning", "FailedComputeMetricsReplicas", text_of(a, e));
			return error_wrap(e, "failed to compute desired number of replicas based on listed metrics for %.*s/%.*s/%.*s", STR_ARG(ref->kind),
					  STR_ARG(h->metadata.namespace), STR_ARG(ref->name));
		}
		if (want > current)
			why = arena_printf(a, "%.*s above target", STR_ARG(name));
		else if (want < current)
			why = STR("All metrics below target");
		want = stabilize(a, h, m, current, want);
		want = bounded(a, h, m, current, want);
	}
	h->status.desired_replicas = want;
	return want == current ? NULL : rescale(c, a, h, m, &s, current, want, why);
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct hpa_controller *c = ctx;
	struct str key = object_key(a, ns, name);
	hpa_t *h = informer_get(c->hpas, a, ns, name), *before;
	struct memory *m = map_get(&c->memories, key);

	if (!h) {
		free(map_del(&c->memories, key));
		return NULL;
	}
	if (!m) {
		m = xcalloc(1, sizeof(*m));
		map_set(&c->memories, key, m);
	}
	before = object_clone(a, &autoscaling_v2_horizontal_pod_autoscaler_type, h);
	h->status.observed_generation = arena_new(a, int64_t);
	*h->status.observed_generation = h->metadata.generation;
	struct error *e = autoscale(c, a, h, m), *second = write_status(c, a, before, h);

	/* Told by events and conditions; asked again at the same pace as all. */
	if (e && !error_is_sys(e, ECANCELED))
		log_v(2, "autoscaler %.*s: %s", STR_ARG(key), error_message(e));
	error_free(e);
	workqueue_add_after(c->q, key, c->m->flags.hpa_sync_ms);
	return second;
}

static void on_hpa(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct hpa_controller *c = ctx;
	arena_cleanup struct arena a = {0};
	struct str key = object_key(&a, (new_ ? new_ : old)->ns, (new_ ? new_ : old)->name);

	if (ev == INFORMER_UPDATED) { /* its own status is no news */
		const hpa_t *n = cached_decode(c->hpas, &a, new_), *o = cached_decode(c->hpas, &a, old);

		if (n && o && SAME(autoscaling_v2_horizontal_pod_autoscaler_spec, &n->spec, &o->spec))
			return;
	}
	workqueue_add(c->q, key);
}

void hpa_start(struct manager *m)
{
	struct hpa_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("horizontalpodautoscaler");
	c->rec = event_recorder_new(m->client, "horizontal-pod-autoscaler", "");
	c->hpas = manager_informer(m, &autoscaling_v2_horizontalpodautoscalers_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	informer_on_event(c->hpas, on_hpa, c);
	controller_run(m, c->q, "horizontalpodautoscaler", 5, reconcile, c, c->hpas, c->pods, NULL);
}
