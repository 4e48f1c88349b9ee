/* Workloads, and the strategies that use these rules. */
#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"
#include "loop/io.h"
#include "schema/cron.h"

static const struct str always[] = {STR_INIT("Always")}, once[] = {STR_INIT("Never"), STR_INIT("OnFailure")};

static void validate_non_negative(struct field_errors *e, int64_t v, const struct field_path *at)
{
	rule_nonneg(e, at, v);
}

static void validate_template(struct field_errors *e, const struct core_v1_pod_template_spec *t, const struct meta_v1_label_selector *selector,
		       const struct str *policies, size_t n_policies, const struct field_path *spec)
{
	const struct field_path *at = FIELD_CHILD(spec, "template");
	const struct selector *sel;
	bool allowed = n_policies == 0;

	if (selector) {
		struct error *err = label_selector_from(e->arena, selector, &sel);

		if (err)
			error_free(err);
		else if (!selector_matches(sel, API_MAP(&t->metadata.labels)))
			field_invalid_map(e, FIELD_CHILD(FIELD_CHILD(at, "metadata"), "labels"), API_MAP(&t->metadata.labels),
					  "`selector` does not match template `labels`");
	}
	rule_pod_template(e, at, t, NULL);
	for (size_t i = 0; i < n_policies; i++)
		allowed |= str_eq(t->spec.restart_policy, policies[i]);
	if (!allowed)
		field_not_supported(e, FIELD_CHILD(FIELD_CHILD(at, "spec"), "restartPolicy"), t->spec.restart_policy, policies, n_policies);
}

static void selector_required(struct field_errors *e, const struct meta_v1_label_selector *s, const struct field_path *spec)
{
	const struct field_path *at = FIELD_CHILD(spec, "selector");

	if (!s) {
		field_required(e, at, "");
		return;
	}
	validate_label_selector(e, s, at);
	if (!s->match_labels.n && !s->match_expressions.n)
		field_invalid_raw(e, at, STR("{}"), "empty selector is invalid for deployment");
}

static void immutable_selector(struct field_errors *e, const struct meta_v1_label_selector *a, const struct meta_v1_label_selector *b,
			       const struct field_path *spec)
{
	static const struct meta_v1_label_selector none;

	if (!object_equal(&meta_v1_label_selector_type, a ? a : &none, b ? b : &none)) {
		struct buf buf buf_cleanup = {0};

		json_encode(&buf, &meta_v1_label_selector_type, a ? a : &none);
		field_invalid_raw(e, FIELD_CHILD(spec, "selector"), arena_str(e->arena, buf_view(&buf)), "field is immutable");
	}
}

static void replicas(struct field_errors *e, const int32_t *v, const struct field_path *spec)
{
	if (v)
		validate_non_negative(e, *v, FIELD_CHILD(spec, "replicas"));
}

static void int_or_percent(struct field_errors *e, const struct int_or_string *v, const struct field_path *at)
{
	if (!v)
		return;
	if (v->is_str) {
		const char *m = validate_percent(e->arena, v->s);

		if (m)
			field_invalid(e, at, v->s, "%s", m);
	} else {
		validate_non_negative(e, v->i, at);
	}
}

static bool is_zero(const struct int_or_string *v)
{
	return !v || (v->is_str ? str_eqz(v->s, "0%") : v->i == 0);
}

void deployment_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct apps_v1_deployment *d = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	replicas(e, d->spec.replicas, spec);
	selector_required(e, d->spec.selector, spec);
	validate_template(e, &d->spec.template, d->spec.selector, always, 1, spec);
	validate_non_negative(e, d->spec.min_ready_seconds, FIELD_CHILD(spec, "minReadySeconds"));
	if (d->spec.revision_history_limit)
		validate_non_negative(e, *d->spec.revision_history_limit, FIELD_CHILD(spec, "revisionHistoryLimit"));
	if (d->spec.progress_deadline_seconds) {
		validate_non_negative(e, *d->spec.progress_deadline_seconds, FIELD_CHILD(spec, "progressDeadlineSeconds"));
		if (*d->spec.progress_deadline_seconds <= d->spec.min_ready_seconds)
			field_invalid_int(e, FIELD_CHILD(spec, "progressDeadlineSeconds"), *d->spec.progress_deadline_seconds,
					  "must be greater than minReadySeconds");
	}
	if (str_eqz(d->spec.strategy.type, "Recreate") && d->spec.strategy.rolling_update)
		field_forbidden(e, FIELD_CHILD(FIELD_CHILD(spec, "strategy"), "rollingUpdate"),
				"may not be specified when strategy `type` is 'Recreate'");
	if (d->spec.strategy.rolling_update) {
		const struct field_path *ru = FIELD_CHILD(FIELD_CHILD(spec, "strategy"), "rollingUpdate");

		int_or_percent(e, d->spec.strategy.rolling_update->max_surge, FIELD_CHILD(ru, "maxSurge"));
		int_or_percent(e, d->spec.strategy.rolling_update->max_unavailable, FIELD_CHILD(ru, "maxUnavailable"));
		if (is_zero(d->spec.strategy.rolling_update->max_surge) && is_zero(d->spec.strategy.rolling_update->max_unavailable))
			field_invalid_raw(e, FIELD_CHILD(ru, "maxUnavailable"), STR("0"), "may not be 0 when `maxSurge` is 0");
	}
}

void deployment_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_deployment *d = obj, *o = old;

	deployment_validate(rq, obj, e);
	immutable_selector(e, d->spec.selector, o->spec.selector, FIELD_ROOT("spec"));
}

void replicaset_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct apps_v1_replica_set *d = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	replicas(e, d->spec.replicas, spec);
	selector_required(e, d->spec.selector, spec);
	validate_template(e, &d->spec.template, d->spec.selector, always, 1, spec);
	validate_non_negative(e, d->spec.min_ready_seconds, FIELD_CHILD(spec, "minReadySeconds"));
}

void replicaset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_replica_set *d = obj, *o = old;

	replicaset_validate(rq, obj, e);
	immutable_selector(e, d->spec.selector, o->spec.selector, FIELD_ROOT("spec"));
}

void daemonset_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct apps_v1_daemon_set *d = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	selector_required(e, d->spec.selector, spec);
	validate_template(e, &d->spec.template, d->spec.selector, always, 1, spec);
	validate_non_negative(e, d->spec.min_ready_seconds, FIELD_CHILD(spec, "minReadySeconds"));
}

void daemonset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_daemon_set *d = obj, *o = old;

	daemonset_validate(rq, obj, e);
	immutable_selector(e, d->spec.selector, o->spec.selector, FIELD_ROOT("spec"));
}

void statefulset_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct apps_v1_stateful_set *d = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	replicas(e, d->spec.replicas, spec);
	selector_required(e, d->spec.selector, spec);
	validate_template(e, &d->spec.template, d->spec.selector, always, 1, spec);
	validate_non_negative(e, d->spec.min_ready_seconds, FIELD_CHILD(spec, "minReadySeconds"));
	if (d->spec.template.spec.active_deadline_seconds)
		field_forbidden(e, FIELD_CHILD(FIELD_CHILD(FIELD_CHILD(spec, "template"), "spec"), "activeDeadlineSeconds"),
				"activeDeadlineSeconds in StatefulSet is not Supported");
}

void statefulset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_stateful_set *d = obj, *o = old;
	struct apps_v1_stateful_set_spec x = d->spec;

	statefulset_validate(rq, obj, e);
	x.replicas = o->spec.replicas;
	x.template = o->spec.template;
	x.update_strategy = o->spec.update_strategy;
	x.min_ready_seconds = o->spec.min_ready_seconds;
	x.ordinals = o->spec.ordinals;
	x.revision_history_limit = o->spec.revision_history_limit;
	x.persistent_volume_claim_retention_policy = o->spec.persistent_volume_claim_retention_policy;
	if (!object_equal(&apps_v1_stateful_set_spec_type, &x, &o->spec))
		field_forbidden(e, FIELD_ROOT("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
				"'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are "
				"forbidden");
}

void rc_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_replication_controller *d = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	replicas(e, d->spec.replicas, spec);
	if (!d->spec.selector.n)
		field_required(e, FIELD_CHILD(spec, "selector"), "");
	if (!d->spec.template) {
		field_required(e, FIELD_CHILD(spec, "template"), "");
		return;
	}
	if (d->spec.selector.n &&
	    !selector_matches(label_selector_from_map(e->arena, API_MAP(&d->spec.selector)), API_MAP(&d->spec.template->metadata.labels)))
		field_invalid_raw(e, FIELD_CHILD(FIELD_CHILD(FIELD_CHILD(spec, "template"), "metadata"), "labels"), STR("{}"),
				  "`selector` does not match template `labels`");
	validate_template(e, d->spec.template, NULL, always, 1, spec);
}

static void job_spec(struct field_errors *e, const struct batch_v1_job_spec *s, const struct field_path *spec, bool created)
{
	struct {
		const int32_t *v;
		const char *name;
	} const counts[] = {{s->parallelism, "parallelism"}, {s->completions, "completions"}, {s->backoff_limit, "backoffLimit"},
			    {s->ttl_seconds_after_finished, "ttlSecondsAfterFinished"}, {s->backoff_limit_per_index, "backoffLimitPerIndex"}};

	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		if (counts[i].v)
			validate_non_negative(e, *counts[i].v, FIELD_CHILD_S(spec, str_from(counts[i].name)));
	if (s->active_deadline_seconds)
		validate_non_negative(e, *s->active_deadline_seconds, FIELD_CHILD(spec, "activeDeadlineSeconds"));
	if (s->completion_mode && str_eqz(*s->completion_mode, "Indexed") && !s->completions)
		field_required(e, FIELD_CHILD(spec, "completions"), "when completion mode is Indexed");
	if (created && !s->selector)
		field_required(e, FIELD_CHILD(spec, "selector"), "");
	validate_template(e, &s->template, created ? s->selector : NULL, once, 2, spec);
}

void job_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	job_spec(e, &((const struct batch_v1_job *)obj)->spec, FIELD_ROOT("spec"), true);
}

void job_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct batch_v1_job *j = obj, *o = old;
	const struct field_path *spec = FIELD_ROOT("spec");
	bool indexed = o->spec.completion_mode && str_eqz(*o->spec.completion_mode, "Indexed");
	bool may_change = o->spec.suspend && *o->spec.suspend && !o->status.start_time;

	job_validate(rq, obj, e);
	immutable_selector(e, j->spec.selector, o->spec.selector, spec);
	if (!indexed && (!j->spec.completions != !o->spec.completions ||
			 (j->spec.completions && *j->spec.completions != *o->spec.completions)))
		field_invalid_int(e, FIELD_CHILD(spec, "completions"), j->spec.completions ? *j->spec.completions : 0, "field is immutable");
	if (!may_change && !object_equal(&core_v1_pod_template_spec_type, &j->spec.template, &o->spec.template))
		field_invalid_raw(e, FIELD_CHILD(spec, "template"), STR("{}"), "field is immutable");
}

static void schedule_validate(const struct batch_v1_cron_job *c, const struct field_path *spec, struct field_errors *e)
{
	struct cron cron;
	struct error *bad = cron_parse(c->spec.schedule, &cron);

	if (bad)
		field_invalid(e, FIELD_CHILD(spec, "schedule"), c->spec.schedule, "%s", error_message(bad));
	error_free(bad);
	if (str_contains(c->spec.schedule, STR("TZ")))
		field_invalid(e, FIELD_CHILD(spec, "schedule"), c->spec.schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
}

/* The zone must be in this machine's tz database. */
static void zone_validate(struct str name, const struct field_path *p, struct field_errors *e)
{
	arena_cleanup struct arena a = {0};
	struct buf buf_cleanup b = {0};
	const struct time_zone *z;

	if (!name.n) {
		field_invalid(e, p, name, "timeZone must be nil or non-empty string");
		return;
	}
	if (!time_zone_name_ok(name)) {
		field_invalid(e, p, name, "unknown time zone %.*s", STR_ARG(name));
		return;
	}
	if (str_eq_nocase(name, STR("Local")))
		field_invalid(e, p, name, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
	if (str_eqz(name, "UTC"))
		return;
	struct error *bad = file_read(arena_printf(&a, "/usr/share/zoneinfo/%.*s", STR_ARG(name)).p, &b);

	if (!bad)
		bad = time_zone_parse(&a, buf_view(&b), &z);
	if (bad)
		field_invalid(e, p, name, "unknown time zone %.*s", STR_ARG(name));
	error_free(bad);
}

void cronjob_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct batch_v1_cron_job *c = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	if (!c->spec.schedule.n)
		field_required(e, FIELD_CHILD(spec, "schedule"), "");
	else
		schedule_validate(c, spec, e);
	if (c->spec.time_zone)
		zone_validate(*c->spec.time_zone, FIELD_CHILD(spec, "timeZone"), e);
	if (c->metadata.name.n > 52)
		field_invalid(e, FIELD_CHILD(FIELD_ROOT("metadata"), "name"), c->metadata.name, "must be no more than 52 characters");
	if (c->spec.starting_deadline_seconds)
		validate_non_negative(e, *c->spec.starting_deadline_seconds, FIELD_CHILD(spec, "startingDeadlineSeconds"));
	if (c->spec.successful_jobs_history_limit)
		validate_non_negative(e, *c->spec.successful_jobs_history_limit, FIELD_CHILD(spec, "successfulJobsHistoryLimit"));
	if (c->spec.failed_jobs_history_limit)
		validate_non_negative(e, *c->spec.failed_jobs_history_limit, FIELD_CHILD(spec, "failedJobsHistoryLimit"));
	job_spec(e, &c->spec.job_template.spec, FIELD_CHILD(FIELD_CHILD(spec, "jobTemplate"), "spec"), false);
}

void hpa_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct autoscaling_v2_horizontal_pod_autoscaler *h = obj;
	const struct field_path *spec = FIELD_ROOT("spec"), *ref = FIELD_CHILD(spec, "scaleTargetRef");

	(void)rq;
	if (h->spec.min_replicas && *h->spec.min_replicas < 1)
		field_invalid_int(e, FIELD_CHILD(spec, "minReplicas"), *h->spec.min_replicas, "must be greater than or equal to 1");
	if (h->spec.max_replicas < 1)
		field_invalid_int(e, FIELD_CHILD(spec, "maxReplicas"), h->spec.max_replicas, "must be greater than 0");
	if (h->spec.min_replicas && h->spec.max_replicas < *h->spec.min_replicas)
		field_invalid_int(e, FIELD_CHILD(spec, "maxReplicas"), h->spec.max_replicas, "must be greater than or equal to `minReplicas`");
	if (!h->spec.scale_target_ref.kind.n)
		field_required(e, FIELD_CHILD(ref, "kind"), "");
	if (!h->spec.scale_target_ref.name.n)
		field_required(e, FIELD_CHILD(ref, "name"), "");
}

void pdb_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct policy_v1_pod_disruption_budget *p = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	if (p->spec.min_available && p->spec.max_unavailable)
		field_invalid_raw(e, spec, STR("{}"), "minAvailable and maxUnavailable cannot be both set");
	int_or_percent(e, p->spec.min_available, FIELD_CHILD(spec, "minAvailable"));
	int_or_percent(e, p->spec.max_unavailable, FIELD_CHILD(spec, "maxUnavailable"));
	if (p->spec.selector)
		validate_label_selector(e, p->spec.selector, FIELD_CHILD(spec, "selector"));
}

/* ---- storage, scheduling, coordination, networking ---- */

void pvc_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_persistent_volume_claim *c = obj;
	const struct field_path *spec = FIELD_ROOT("spec");
	struct str q = str_map_get(API_MAP(&c->spec.resources.requests), STR("storage"));

	(void)rq;
	if (!c->spec.access_modes.n)
		field_required(e, FIELD_CHILD(spec, "accessModes"), "at least 1 access mode is required");
	if (!q.n)
		field_required(e, FIELD_KEY(FIELD_CHILD(FIELD_CHILD(spec, "resources"), "requests"), STR("storage")), "");
}

void pvc_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_persistent_volume_claim *c = obj, *o = old;
	struct core_v1_persistent_volume_claim_spec x = c->spec;

	pvc_validate(rq, obj, e);
	memcpy(&x.resources, &o->spec.resources, sizeof x.resources);
	x.volume_attributes_class_name = o->spec.volume_attributes_class_name;
	if (!o->spec.volume_name.n)
		x.volume_name = o->spec.volume_name;
	if (!o->spec.storage_class_name)
		x.storage_class_name = NULL;
	if (!object_equal(&core_v1_persistent_volume_claim_spec_type, &x, &o->spec))
		field_forbidden(e, FIELD_ROOT("spec"), "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
				"bound claims\n");
}

void storageclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct storage_v1_storage_class *c = obj;

	(void)rq;
	if (!c->provisioner.n)
		field_required(e, FIELD_ROOT("provisioner"), "");
}

void storageclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct storage_v1_storage_class *c = obj, *o = old;
	const struct schema_type *t = &storage_v1_storage_class_type;

	if (!object_field_equal(t, c, o, "parameters"))
		field_forbidden(e, FIELD_ROOT("parameters"), "updates to parameters are forbidden.");
	if (!str_eq(c->provisioner, o->provisioner))
		field_forbidden(e, FIELD_ROOT("provisioner"), "updates to provisioner are forbidden.");
	if (!object_field_equal(t, c, o, "reclaimPolicy"))
		field_forbidden(e, FIELD_ROOT("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
	if (!object_field_equal(t, c, o, "volumeBindingMode"))
		field_forbidden(e, FIELD_ROOT("volumeBindingMode"), "field is immutable");
}

void priorityclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct scheduling_v1_priority_class *c = obj;

	if (rq->internal)
		return;
	if (str_has_prefix(c->metadata.name, STR("system-"))) {
		if (!str_eqz(c->metadata.name, "system-node-critical") && !str_eqz(c->metadata.name, "system-cluster-critical"))
			field_forbidden(e, FIELD_CHILD(FIELD_ROOT("metadata"), "name"), "priority class names with 'system-' prefix are reserved for "
					"system use only. error: %.*s is not a known system priority class", STR_ARG(c->metadata.name));
	} else if (c->value > 1000000000) {
		field_forbidden(e, FIELD_ROOT("value"), "maximum allowed value of a user defined priority is 1000000000");
	}
}

void priorityclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct scheduling_v1_priority_class *c = obj, *o = old;

	(void)rq;
	if (c->value != o->value)
		field_forbidden(e, FIELD_ROOT("value"), "may not be changed in an update.");
	if (!object_field_equal(&scheduling_v1_priority_class_type, c, o, "preemptionPolicy"))
		field_invalid_raw(e, FIELD_ROOT("preemptionPolicy"), STR("null"), "field is immutable");
}

void lease_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct coordination_v1_lease *l = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	if (l->spec.lease_duration_seconds && *l->spec.lease_duration_seconds <= 0)
		field_invalid_int(e, FIELD_CHILD(spec, "leaseDurationSeconds"), *l->spec.lease_duration_seconds, "must be greater than 0");
	if (l->spec.lease_transitions && *l->spec.lease_transitions < 0)
		field_invalid_int(e, FIELD_CHILD(spec, "leaseTransitions"), *l->spec.lease_transitions, "must be greater than or equal to 0");
}

void slice_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct discovery_v1_endpoint_slice *s = obj;
	const struct field_path *eps = FIELD_ROOT("endpoints");

	(void)rq;
	for (uint32_t i = 0; i < s->endpoints.n; i++) {
		const struct field_path *p = FIELD_CHILD(FIELD_INDEX(eps, i), "addresses");

		if (!s->endpoints.v[i].addresses.n)
			field_required(e, p, "must contain at least 1 address");
		for (uint32_t k = 0; k < s->endpoints.v[i].addresses.n; k++) {
			struct str a = s->endpoints.v[i].addresses.v[k];
			const char *m = str_eqz(s->address_type, "IPv4") ? validate_ipv4(e->arena, a) :
					str_eqz(s->address_type, "IPv6") ? validate_ipv6(e->arena, a) :
					validate_dns1123_subdomain(e->arena, a);

			if (m)
				field_invalid(e, FIELD_INDEX(p, k), a, "%s", m);
		}
	}
	if (s->endpoints.n > 1000)
		field_too_many(e, eps, s->endpoints.n, 1000);
}

void slice_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct discovery_v1_endpoint_slice *s = obj, *o = old;

	slice_validate(rq, obj, e);
	if (!str_eq(s->address_type, o->address_type))
		field_invalid(e, FIELD_ROOT("addressType"), s->address_type, "field is immutable");
}

static void backend(struct field_errors *e, const struct networking_v1_ingress_backend *b, const struct field_path *at)
{
	if (!b->service && !b->resource)
		field_required(e, at, "port name or number is required");
	if (b->service && b->resource)
		field_invalid(e, at, STR(""), "cannot set both resource and service backends");
	if (b->service) {
		const struct field_path *s = FIELD_CHILD(at, "service");

		if (!b->service->name.n)
			field_required(e, FIELD_CHILD(s, "name"), "");
		if (!b->service->port.name.n && !b->service->port.number)
			field_required(e, at, "port name or number is required");
		if (b->service->port.name.n && b->service->port.number)
			field_invalid(e, at, STR(""), "cannot set both port name & port number");
	}
}

void ingress_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct networking_v1_ingress *in = obj;
	const struct field_path *spec = FIELD_ROOT("spec"), *rules = FIELD_CHILD(spec, "rules");
	static const struct str types[] = {STR_INIT("Exact"), STR_INIT("ImplementationSpecific"), STR_INIT("Prefix")};

	(void)rq;
	if (!in->spec.rules.n && !in->spec.default_backend)
		field_invalid_raw(e, spec, STR("[]"), "either `defaultBackend` or `rules` must be specified");
	if (in->spec.default_backend)
		backend(e, in->spec.default_backend, FIELD_CHILD(spec, "defaultBackend"));
	for (uint32_t i = 0; i < in->spec.rules.n; i++) {
		const struct networking_v1_ingress_rule *r = &in->spec.rules.v[i];
		const struct field_path *p = FIELD_INDEX(rules, i), *paths = FIELD_CHILD(FIELD_CHILD(p, "http"), "paths");
		const char *m = NULL;

		if (r->host.n)
			m = r->host.p[0] == '*' ? validate_wildcard_dns1123_subdomain(e->arena, r->host) : validate_dns1123_subdomain(e->arena, r->host);
		if (m)
			field_invalid(e, FIELD_CHILD(p, "host"), r->host, "%s", m);
		if (!r->ingress_rule_value.http)
			continue;
		if (!r->ingress_rule_value.http->paths.n)
			field_required(e, paths, "");
		for (uint32_t k = 0; k < r->ingress_rule_value.http->paths.n; k++) {
			const struct networking_v1_http_ingress_path *h = &r->ingress_rule_value.http->paths.v[k];
			const struct field_path *hp = FIELD_INDEX(paths, k);

			if (!h->path_type)
				field_required(e, FIELD_CHILD(hp, "pathType"), "pathType must be specified");
			else if (!str_eq(*h->path_type, types[0]) && !str_eq(*h->path_type, types[1]) && !str_eq(*h->path_type, types[2]))
				field_not_supported(e, FIELD_CHILD(hp, "pathType"), *h->path_type, types, 3);
			else if (!str_eq(*h->path_type, types[1]) && (!h->path.n || h->path.p[0] != '/'))
				field_invalid(e, FIELD_CHILD(hp, "path"), h->path, "must be an absolute path");
			backend(e, &h->backend, FIELD_CHILD(hp, "backend"));
		}
	}
}

void event_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_event *ev = obj;
	struct str ns = ev->involved_object.namespace;

	(void)rq;
	/* events of cluster-scoped objects go to default */
	if (!ns.n && !str_eqz(ev->metadata.namespace, "default") && !str_eqz(ev->metadata.namespace, "kube-system"))
		field_invalid(e, FIELD_CHILD(FIELD_ROOT("involvedObject"), "namespace"), ns, "does not match event.namespace");
	else if (ns.n && !str_eq(ns, ev->metadata.namespace))
		field_invalid(e, FIELD_CHILD(FIELD_ROOT("involvedObject"), "namespace"), ns, "does not match event.namespace");
}

void csr_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct certificates_v1_certificate_signing_request *c = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	if (!str_contains(c->spec.request, STR("BEGIN CERTIFICATE REQUEST")))
		field_invalid_raw(e, FIELD_CHILD(spec, "request"), STR("\"\""), "PEM block type must be CERTIFICATE REQUEST");
	if (!c->spec.usages.n)
		field_required(e, FIELD_CHILD(spec, "usages"), "");
	if (!c->spec.signer_name.n)
		field_required(e, FIELD_CHILD(spec, "signerName"), "");
	else if (str_index(c->spec.signer_name, '/') < 0)
		field_invalid(e, FIELD_CHILD(spec, "signerName"), c->spec.signer_name,
			      "must be a fully qualified domain and path of the form 'example.com/signer-name'");
	if (c->spec.expiration_seconds && *c->spec.expiration_seconds < 600)
		field_invalid_int(e, FIELD_CHILD(spec, "expirationSeconds"), *c->spec.expiration_seconds,
				  "may not specify a duration less than 600 seconds (10 minutes)");
}
