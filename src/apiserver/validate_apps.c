/* Workloads of apps, disruption budgets and autoscalers. */
#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"
#include "schema/jv.h"
#include "schema/quantity.h"

/* ---- shared ---- */

void rule_workload_selector(struct field_errors *e, const struct field_path *spec, const struct meta_v1_label_selector *s, const char *what, bool lax)
{
	const struct field_path *p = AT(spec, "selector");

	if (!s) {
		field_required(e, p, "");
		return;
	}
	validate_label_selector_lax(e, s, p, lax);
	if (!s->match_labels.n && !s->match_expressions.n)
		field_invalid_obj(e, p, &meta_v1_label_selector_type, s, "empty selector is invalid for %s", what);
}

bool rule_selects(struct arena *a, const struct meta_v1_label_selector *s, const struct str_map *labels, bool *readable)
{
	const struct selector *sel;
	struct error *err = label_selector_from(a, s, &sel);

	if (readable)
		*readable = !err;
	if (!err)
		return selector_matches(sel, labels);
	error_free(err);
	return true;
}

/* A selector (none selects nothing) that does not select the template; `bad`: what is said of one that cannot be read. */
bool rule_selects_template(struct field_errors *e, const struct field_path *spec, const struct meta_v1_label_selector *s,
			   const struct core_v1_pod_template_spec *template, const char *bad)
{
	bool readable, selects = rule_selects(e->arena, s, API_MAP(&template->metadata.labels), &readable);

	if (!readable)
		field_invalid_obj(e, AT(spec, "selector"), &meta_v1_label_selector_type, s, "%s", bad);
	else if (!selects)
		field_invalid_map(e, AT(AT(AT(spec, "template"), "metadata"), "labels"), API_MAP(&template->metadata.labels),
				  "`selector` does not match template `labels`");
	return readable;
}

/* `kind` is named where a deadline stands that it does not know. */
static void always_template(struct field_errors *e, const struct field_path *spec, const struct core_v1_pod_template_spec *t, const char *kind)
{
	const struct field_path *p = AT(AT(spec, "template"), "spec");

	if (!str_eqz(t->spec.restart_policy, "Always"))
		field_unsupported(e, AT(p, "restartPolicy"), t->spec.restart_policy, "Always");
	if (t->spec.active_deadline_seconds)
		field_forbidden(e, AT(p, "activeDeadlineSeconds"), "activeDeadlineSeconds in %s is not Supported", kind);
}

static int64_t int_or_percent_value(struct arena *a, const struct int_or_string *v)
{
	int64_t n = 0;

	if (!v)
		return 0;
	if (!v->is_str)
		return v->i;
	if (validate_percent(a, v->s) || !str_to_i64(str_sub(v->s, 0, v->s.n - 1), &n))
		return str_to_i64(v->s, &n) ? n : 0;
	return n;
}

static void immutable_selector(struct field_errors *e, const struct schema_type *t, const void *now, const void *was)
{
	rule_immutable(e, AT(FIELD_ROOT("spec"), "selector"), t, now, was, "selector");
}

static void not_decremented(struct field_errors *e, const int32_t *now, const int32_t *was)
{
	if (was && (!now || *now < *was))
		field_invalid_int(e, AT(FIELD_ROOT("status"), "collisionCount"), now ? *now : 0, "cannot be decremented");
}

static void no_more_than(struct field_errors *e, const struct field_path *p, int32_t v, int32_t max, const char *what)
{
	if (v > max)
		field_invalid_int(e, p, v, "cannot be greater than %s", what);
}

/* ---- deployments ---- */

static void deployment_rules(struct field_errors *e, const struct apps_v1_deployment *d, const struct apps_v1_deployment *o)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *st = AT(spec, "strategy"), *ru = AT(st, "rollingUpdate");
	const struct apps_v1_rolling_update_deployment *r = d->spec.strategy.rolling_update;

	rule_nonneg32(e, AT(spec, "replicas"), d->spec.replicas);
	rule_workload_selector(e, spec, d->spec.selector, "deployment", false);
	if (rule_selects_template(e, spec, d->spec.selector, &d->spec.template, "invalid label selector")) {
		rule_pod_template(e, AT(spec, "template"), &d->spec.template, o ? &o->spec.template : NULL);
		always_template(e, spec, &d->spec.template, "ReplicaSet");
	}
	if (str_eqz(d->spec.strategy.type, "Recreate")) {
		if (r)
			field_forbidden(e, ru, "may not be specified when strategy `type` is 'Recreate'");
	} else if (!str_eqz(d->spec.strategy.type, "RollingUpdate")) {
		static const struct str types[] = {STR_INIT("Recreate"), STR_INIT("RollingUpdate")};

		field_not_supported_raw(e, st, field_json(e->arena, &apps_v1_deployment_spec_type, &d->spec, STR("strategy")), types, 2);
	} else if (!r) {
		field_required(e, ru, "this should be defaulted and never be nil");
	} else {
		rule_percent_or_count(e, AT(ru, "maxUnavailable"), r->max_unavailable);
		rule_percent_or_count(e, AT(ru, "maxSurge"), r->max_surge);
		if (!int_or_percent_value(e->arena, r->max_unavailable) && !int_or_percent_value(e->arena, r->max_surge))
			field_invalid_raw(e, AT(ru, "maxUnavailable"),
					  field_json(e->arena, &apps_v1_rolling_update_deployment_type, r, STR("maxUnavailable")),
					  "may not be 0 when `maxSurge` is 0");
		rule_at_most_100_percent(e, AT(ru, "maxUnavailable"), r->max_unavailable);
	}
	rule_nonneg(e, AT(spec, "minReadySeconds"), d->spec.min_ready_seconds);
	rule_nonneg32(e, AT(spec, "revisionHistoryLimit"), d->spec.revision_history_limit);
	rule_nonneg32(e, AT(spec, "progressDeadlineSeconds"), d->spec.progress_deadline_seconds);
	if (d->spec.progress_deadline_seconds && *d->spec.progress_deadline_seconds <= d->spec.min_ready_seconds)
		field_invalid_int(e, AT(spec, "progressDeadlineSeconds"), *d->spec.progress_deadline_seconds, "must be greater than minReadySeconds");
	/* a field of the API's older versions that lives on as an annotation */
	struct str to = str_map_get(API_MAP(&d->metadata.annotations), STR("deprecated.deployment.rollback.to"));
	int64_t revision;

	if (str_to_i64(to, &revision))
		rule_nonneg(e, AT(AT(spec, "rollback"), "version"), revision);
}

void deployment_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	deployment_rules(e, obj, NULL);
}

void deployment_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_deployment *d = obj, *o = old;

	(void)rq;
	deployment_rules(e, d, o);
	immutable_selector(e, &apps_v1_deployment_spec_type, &d->spec, &o->spec);
}

void deployment_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_deployment_status *s = &((const struct apps_v1_deployment *)obj)->status,
					       *o = &((const struct apps_v1_deployment *)old)->status;
	const struct field_path *p = FIELD_ROOT("status");

	(void)rq;
	if (strcmp(sub, "status"))
		return;
	rule_nonneg(e, AT(p, "observedGeneration"), s->observed_generation);
	rule_nonneg(e, AT(p, "replicas"), s->replicas);
	rule_nonneg(e, AT(p, "updatedReplicas"), s->updated_replicas);
	rule_nonneg(e, AT(p, "readyReplicas"), s->ready_replicas);
	rule_nonneg(e, AT(p, "availableReplicas"), s->available_replicas);
	rule_nonneg(e, AT(p, "unavailableReplicas"), s->unavailable_replicas);
	rule_nonneg32(e, AT(p, "terminatingReplicas"), s->terminating_replicas);
	rule_nonneg32(e, AT(p, "collisionCount"), s->collision_count);
	no_more_than(e, AT(p, "updatedReplicas"), s->updated_replicas, s->replicas, "status.replicas");
	no_more_than(e, AT(p, "readyReplicas"), s->ready_replicas, s->replicas, "status.replicas");
	no_more_than(e, AT(p, "availableReplicas"), s->available_replicas, s->replicas, "status.replicas");
	no_more_than(e, AT(p, "availableReplicas"), s->available_replicas, s->ready_replicas, "readyReplicas");
	not_decremented(e, s->collision_count, o->collision_count);
}

/* ---- replica sets ---- */

static void replicaset_rules(struct field_errors *e, const struct apps_v1_replica_set *r, const struct apps_v1_replica_set *o)
{
	const struct field_path *spec = FIELD_ROOT("spec");

	rule_nonneg32(e, AT(spec, "replicas"), r->spec.replicas);
	rule_nonneg(e, AT(spec, "minReadySeconds"), r->spec.min_ready_seconds);
	rule_workload_selector(e, spec, r->spec.selector, "deployment", false); /* upstream's word */
	if (rule_selects_template(e, spec, r->spec.selector, &r->spec.template, "invalid label selector")) {
		rule_pod_template(e, AT(spec, "template"), &r->spec.template, o ? &o->spec.template : NULL);
		always_template(e, spec, &r->spec.template, "ReplicaSet");
	}
}

void replicaset_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	replicaset_rules(e, obj, NULL);
}

void replicaset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_replica_set *r = obj, *o = old;

	(void)rq;
	replicaset_rules(e, r, o);
	immutable_selector(e, &apps_v1_replica_set_spec_type, &r->spec, &o->spec);
}

void replicaset_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_replica_set_status *s = &((const struct apps_v1_replica_set *)obj)->status;

	(void)rq;
	(void)old;
	if (strcmp(sub, "status"))
		return;
	rule_nonneg32(e, AT(FIELD_ROOT("status"), "terminatingReplicas"), s->terminating_replicas);
	rule_replica_status(e, FIELD_ROOT("status"), s->replicas, s->fully_labeled_replicas, s->ready_replicas, s->available_replicas,
			    s->observed_generation);
}

/* ---- daemon sets ---- */

static void daemonset_rules(struct field_errors *e, const struct apps_v1_daemon_set *d, const struct apps_v1_daemon_set *o)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *us = AT(spec, "updateStrategy"), *ru = AT(us, "rollingUpdate");
	const struct apps_v1_rolling_update_daemon_set *r = d->spec.update_strategy.rolling_update;

	validate_label_selector(e, d->spec.selector, AT(spec, "selector"));
	if (!rule_selects(e->arena, d->spec.selector, API_MAP(&d->spec.template.metadata.labels), NULL))
		field_invalid_map(e, AT(AT(AT(spec, "template"), "metadata"), "labels"), API_MAP(&d->spec.template.metadata.labels),
				  "`selector` does not match template `labels`");
	if (d->spec.selector && !d->spec.selector->match_labels.n && !d->spec.selector->match_expressions.n)
		field_invalid_obj(e, AT(spec, "selector"), &meta_v1_label_selector_type, d->spec.selector, "empty selector is invalid for daemonset");
	rule_pod_template(e, AT(spec, "template"), &d->spec.template, o ? &o->spec.template : NULL);
	always_template(e, spec, &d->spec.template, "DaemonSet");
	rule_nonneg(e, AT(spec, "minReadySeconds"), d->spec.min_ready_seconds);
	if (str_eqz(d->spec.update_strategy.type, "RollingUpdate")) {
		if (!r) {
			field_required(e, ru, "");
		} else {
			bool down = int_or_percent_value(e->arena, r->max_unavailable) != 0, up = int_or_percent_value(e->arena, r->max_surge) != 0;

			rule_percent_or_count(e, AT(ru, "maxUnavailable"), r->max_unavailable);
			rule_percent_or_count(e, AT(ru, "maxSurge"), r->max_surge);
			rule_at_most_100_percent(e, AT(ru, "maxUnavailable"), r->max_unavailable);
			rule_at_most_100_percent(e, AT(ru, "maxSurge"), r->max_surge);
			if (down && up)
				field_invalid_raw(e, AT(ru, "maxSurge"), field_json(e->arena, &apps_v1_rolling_update_daemon_set_type, r, STR("maxSurge")),
						  "may not be set when maxUnavailable is non-zero");
			if (!down && !up)
				field_required(e, AT(ru, "maxUnavailable"), "cannot be 0 when maxSurge is 0");
		}
	} else if (!str_eqz(d->spec.update_strategy.type, "OnDelete")) {
		static const struct str types[] = {STR_INIT("RollingUpdate"), STR_INIT("OnDelete")};

		field_not_supported_raw(e, us, field_json(e->arena, &apps_v1_daemon_set_spec_type, &d->spec, STR("updateStrategy")), types, 2);
	}
	rule_nonneg32(e, AT(spec, "revisionHistoryLimit"), d->spec.revision_history_limit);
}

void daemonset_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	daemonset_rules(e, obj, NULL);
}

void daemonset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_daemon_set *d = obj, *o = old;

	(void)rq;
	immutable_selector(e, &apps_v1_daemon_set_spec_type, &d->spec, &o->spec);
	daemonset_rules(e, d, o);
}

void daemonset_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_daemon_set_status *s = &((const struct apps_v1_daemon_set *)obj)->status,
					       *o = &((const struct apps_v1_daemon_set *)old)->status;
	const struct field_path *p = FIELD_ROOT("status");

	(void)rq;
	if (strcmp(sub, "status"))
		return;
	rule_nonneg(e, AT(p, "currentNumberScheduled"), s->current_number_scheduled);
	rule_nonneg(e, AT(p, "numberMisscheduled"), s->number_misscheduled);
	rule_nonneg(e, AT(p, "desiredNumberScheduled"), s->desired_number_scheduled);
	rule_nonneg(e, AT(p, "numberReady"), s->number_ready);
	rule_nonneg(e, AT(p, "observedGeneration"), s->observed_generation);
	rule_nonneg(e, AT(p, "updatedNumberScheduled"), s->updated_number_scheduled);
	rule_nonneg(e, AT(p, "numberAvailable"), s->number_available);
	rule_nonneg(e, AT(p, "numberUnavailable"), s->number_unavailable);
	rule_nonneg32(e, AT(p, "collisionCount"), s->collision_count);
	not_decremented(e, s->collision_count, o->collision_count);
}

/* ---- stateful sets ---- */

/* The template with the volumes its claim templates make, and without what names each pod. */
static struct core_v1_pod_template_spec effective_template(struct arena *a, const struct apps_v1_stateful_set_spec *s)
{
	struct core_v1_pod_template_spec t = s->template;
	LIST(struct core_v1_volume) volumes = {0};

	t.spec.subdomain = t.spec.hostname = STR_NULL;
	if (!s->volume_claim_templates.n)
		return t;
	for (uint32_t i = 0; i < s->volume_claim_templates.n; i++) {
		bool again = false;

		for (uint32_t k = 0; k < i; k++)
			again |= str_eq(s->volume_claim_templates.v[k].metadata.name, s->volume_claim_templates.v[i].metadata.name);
		if (again)
			continue;
		struct core_v1_volume *v = arena_push(a, &volumes);

		v->name = s->volume_claim_templates.v[i].metadata.name;
		v->volume_source.persistent_volume_claim = arena_new(a, struct core_v1_persistent_volume_claim_volume_source);
		v->volume_source.persistent_volume_claim->claim_name = v->name;
	}
	for (uint32_t i = 0; i < s->template.spec.volumes.n; i++) {
		bool made = false;

		for (uint32_t k = 0; k < s->volume_claim_templates.n; k++)
			made |= str_eq(s->volume_claim_templates.v[k].metadata.name, s->template.spec.volumes.v[i].name);
		if (!made)
			*arena_push(a, &volumes) = s->template.spec.volumes.v[i];
	}
	memcpy(&t.spec.volumes, &volumes, sizeof t.spec.volumes);
	return t;
}

static void statefulset_rules(struct field_errors *e, const struct apps_v1_stateful_set_spec *s, const struct apps_v1_stateful_set_spec *o,
			      bool skip_template)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *us = AT(spec, "updateStrategy"), *ru = AT(us, "rollingUpdate"), *t = AT(spec, "template");
	const struct apps_v1_rolling_update_stateful_set_strategy *r = s->update_strategy.rolling_update;
	struct core_v1_pod_template_spec template = effective_template(e->arena, s);
	struct pod_options opt = pod_options_from(e->arena, o ? &o->template.spec : NULL, o ? &o->template.metadata : NULL);

	if (!s->pod_management_policy.n)
		field_required(e, AT(spec, "podManagementPolicy"), "");
	else if (!str_eqz(s->pod_management_policy, "OrderedReady") && !str_eqz(s->pod_management_policy, "Parallel"))
		field_invalid(e, AT(spec, "podManagementPolicy"), s->pod_management_policy, "must be 'OrderedReady' or 'Parallel'");
	if (!s->update_strategy.type.n) {
		field_required(e, us, "");
	} else if (str_eqz(s->update_strategy.type, "OnDelete")) {
		if (r)
			field_invalid_obj(e, ru, &apps_v1_rolling_update_stateful_set_strategy_type, r, "only allowed for updateStrategy 'RollingUpdate'");
	} else if (!str_eqz(s->update_strategy.type, "RollingUpdate")) {
		field_invalid_obj(e, us, &apps_v1_stateful_set_update_strategy_type, &s->update_strategy, "must be 'RollingUpdate' or 'OnDelete'");
	} else if (r) {
		rule_nonneg(e, AT(ru, "partition"), r->partition ? *r->partition : 0);
		if (r->max_unavailable) {
			rule_percent_or_count(e, AT(ru, "maxUnavailable"), r->max_unavailable);
			if (!int_or_percent_value(e->arena, r->max_unavailable))
				field_invalid_raw(e, AT(ru, "maxUnavailable"),
						  field_json(e->arena, &apps_v1_rolling_update_stateful_set_strategy_type, r, STR("maxUnavailable")),
						  "cannot be 0");
			rule_at_most_100_percent(e, AT(ru, "maxUnavailable"), r->max_unavailable);
		}
	}
	if (s->persistent_volume_claim_retention_policy) {
		const struct field_path *p = AT(spec, "persistentVolumeClaimRetentionPolicy");

		field_one_of(e, AT(p, "whenDeleted"), s->persistent_volume_claim_retention_policy->when_deleted, "Retain,Delete");
		field_one_of(e, AT(p, "whenScaled"), s->persistent_volume_claim_retention_policy->when_scaled, "Retain,Delete");
	}
	for (uint32_t i = 0; !o && i < s->volume_claim_templates.n; i++)
		rule_pvc_spec(e, AT(EL(AT(spec, "volumeClaimTemplates"), i), "spec"), &s->volume_claim_templates.v[i].spec, &(struct pvc_options){0});
	rule_nonneg32(e, AT(spec, "replicas"), s->replicas);
	rule_nonneg(e, AT(spec, "minReadySeconds"), s->min_ready_seconds);
	if (s->ordinals)
		rule_nonneg(e, AT(spec, "ordinals.start"), s->ordinals->start);
	if (!o && s->service_name.n)
		field_check(e, AT(spec, "serviceName"), s->service_name, validate_dns1123_label);
	rule_workload_selector(e, spec, s->selector, "statefulset", false);
	if (rule_selects_template(e, spec, s->selector, &template, "")) {
		if (!skip_template)
			rule_pod_template(e, t, &template, o ? &o->template : NULL);
		validate_labels(e, API_MAP(&template.metadata.labels), AT(t, "labels"));
		validate_annotations(e, API_MAP(&template.metadata.annotations), AT(t, "annotations"));
		rule_pod_annotations(e, AT(t, "annotations"), API_MAP(&template.metadata.annotations), &template.spec, &opt);
	}
	always_template(e, spec, &s->template, "StatefulSet");
}

void statefulset_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	statefulset_rules(e, &((const struct apps_v1_stateful_set *)obj)->spec, NULL, false);
}

void statefulset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_stateful_set *d = obj, *o = old;
	struct apps_v1_stateful_set_spec x = d->spec;
	struct field_errors before = {.arena = e->arena};

	(void)rq;
	/* what would be refused today may stay */
	statefulset_rules(&before, &o->spec, &o->spec, false);
	statefulset_rules(e, &d->spec, &o->spec, before.list.n > 0);
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

void statefulset_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct apps_v1_stateful_set_status *s = &((const struct apps_v1_stateful_set *)obj)->status,
						 *o = &((const struct apps_v1_stateful_set *)old)->status;
	const struct field_path *p = FIELD_ROOT("status");
	const struct {
		const char *name;
		int32_t v;
	} parts[] = {{"readyReplicas", s->ready_replicas}, {"currentReplicas", s->current_replicas}, {"updatedReplicas", s->updated_replicas},
		     {"availableReplicas", s->available_replicas}};

	(void)rq;
	if (strcmp(sub, "status"))
		return;
	rule_nonneg(e, AT(p, "replicas"), s->replicas);
	for (size_t i = 0; i < 4; i++)
		rule_nonneg(e, FIELD_CHILD_S(p, str_from(parts[i].name)), parts[i].v);
	rule_nonneg(e, AT(p, "observedGeneration"), s->observed_generation);
	rule_nonneg32(e, AT(p, "collisionCount"), s->collision_count);
	for (size_t i = 0; i < 4; i++)
		no_more_than(e, FIELD_CHILD_S(p, str_from(parts[i].name)), parts[i].v, s->replicas, "status.replicas");
	no_more_than(e, AT(p, "availableReplicas"), s->available_replicas, s->ready_replicas, "status.readyReplicas");
	not_decremented(e, s->collision_count, o->collision_count);
}

/* ---- controller revisions ---- */

void revision_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct apps_v1_controller_revision *r = obj;
	struct jv v;
	struct error *err;

	(void)rq;
	rule_nonneg(e, FIELD_ROOT("revision"), r->revision);
	if (!r->data.n) {
		field_required(e, FIELD_ROOT("data"), "data is mandatory");
		return;
	}
	err = jv_parse(e->arena, r->data, NULL, &v);
	if (err)
		field_invalid(e, FIELD_ROOT("data"), STR("<value omitted>"), "error parsing data: %s", error_message(err));
	else if (v.kind == JV_NULL)
		field_required(e, FIELD_ROOT("data"), "data is mandatory");
	else if (v.kind != JV_OBJECT)
		field_required(e, FIELD_ROOT("data"), "data must be a valid JSON object");
	error_free(err);
}

void revision_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	rule_nonneg(e, FIELD_ROOT("revision"), ((const struct apps_v1_controller_revision *)obj)->revision);
	rule_immutable(e, FIELD_ROOT("data"), &apps_v1_controller_revision_type, obj, old, "data");
}

/* ---- disruption budgets ---- */

void pdb_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct policy_v1_pod_disruption_budget *p = obj;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	if (p->spec.min_available && p->spec.max_unavailable)
		field_invalid_obj(e, spec, &policy_v1_pod_disruption_budget_spec_type, &p->spec,
				  "minAvailable and maxUnavailable cannot be both set");
	rule_percent_or_count(e, AT(spec, "minAvailable"), p->spec.min_available);
	rule_at_most_100_percent(e, AT(spec, "minAvailable"), p->spec.min_available);
	rule_percent_or_count(e, AT(spec, "maxUnavailable"), p->spec.max_unavailable);
	rule_at_most_100_percent(e, AT(spec, "maxUnavailable"), p->spec.max_unavailable);
	validate_label_selector(e, p->spec.selector, AT(spec, "selector"));
	if (p->spec.unhealthy_pod_eviction_policy)
		field_one_of(e, AT(spec, "unhealthyPodEvictionPolicy"), *p->spec.unhealthy_pod_eviction_policy, "AlwaysAllow,IfHealthyBudget");
}

void pdb_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct policy_v1_pod_disruption_budget_status *s = &((const struct policy_v1_pod_disruption_budget *)obj)->status;
	const struct field_path *p = FIELD_ROOT("status");

	(void)rq;
	(void)old;
	if (strcmp(sub, "status"))
		return;
	rule_conditions(e, AT(p, "conditions"), s->conditions.v, s->conditions.n);
	rule_nonneg(e, AT(p, "disruptionsAllowed"), s->disruptions_allowed);
	rule_nonneg(e, AT(p, "currentHealthy"), s->current_healthy);
	rule_nonneg(e, AT(p, "desiredHealthy"), s->desired_healthy);
	rule_nonneg(e, AT(p, "expectedPods"), s->expected_pods);
}

/* ---- autoscalers ---- */

static const char *path_name(struct arena *a, struct str s)
{
	return validate_path_segment(a, s);
}

/* `lax`: an apiVersion that cannot be read was there before; `core`: the group may be the empty one. */
static void cross_reference(struct field_errors *e, const struct field_path *p, const struct autoscaling_v2_cross_version_object_reference *r, bool lax,
			    bool core)
{
	rule_name(e, AT(p, "kind"), r->kind, path_name);
	rule_name(e, AT(p, "name"), r->name, path_name);
	if (!lax && str_index(r->api_version, '/') != str_rindex(r->api_version, '/'))
		field_invalid(e, AT(p, "apiVersion"), r->api_version, "unexpected GroupVersion string: %.*s", STR_ARG(r->api_version));
	else if (!lax && !core && str_index(r->api_version, '/') <= 0)
		field_invalid(e, AT(p, "apiVersion"), r->api_version, "apiVersion must specify API group");
}

static void metric_target(struct field_errors *e, const struct field_path *p, const struct autoscaling_v2_metric_target *t)
{
	if (!t->type.n)
		field_required(e, AT(p, "type"), "must specify a metric target type");
	if (!str_eqz(t->type, "Utilization") && !str_eqz(t->type, "Value") && !str_eqz(t->type, "AverageValue"))
		field_invalid(e, AT(p, "type"), t->type, "must be either Utilization, Value, or AverageValue");
	if (t->value && quantity_cmp(*t->value, STR("0")) <= 0)
		field_invalid(e, AT(p, "value"), *t->value, "must be positive");
	if (t->average_value && quantity_cmp(*t->average_value, STR("0")) <= 0)
		field_invalid(e, AT(p, "averageValue"), *t->average_value, "must be positive");
	if (t->average_utilization && *t->average_utilization < 1)
		field_invalid_int(e, AT(p, "averageUtilization"), *t->average_utilization, "must be greater than 0");
}

static void metric_name(struct field_errors *e, const struct field_path *p, struct str name)
{
	if (!name.n)
		field_required(e, AT(p, "name"), "must specify a metric name");
	else
		field_check(e, AT(p, "name"), name, path_name);
}

static void utilization(struct field_errors *e, const struct field_path *p, const struct autoscaling_v2_metric_target *t)
{
	metric_target(e, p, t);
	if (!t->average_utilization && !t->average_value)
		field_required(e, AT(p, "averageUtilization"), "must set either a target raw value or a target utilization");
	if (t->average_utilization && t->average_value)
		field_forbidden(e, AT(p, "averageValue"), "may not set both a target raw value and a target utilization");
}

static void metric_source(struct field_errors *e, const struct field_path *p, const struct autoscaling_v2_metric_spec *m, const char *member, bool lax)
{
	const struct field_path *at = FIELD_CHILD_S(p, str_from(member)), *target = AT(at, "target");

	if (!strcmp(member, "object")) {
		cross_reference(e, AT(at, "describedObject"), &m->object->described_object, lax, true);
		metric_name(e, AT(at, "metric"), m->object->metric.name);
		metric_target(e, target, &m->object->target);
		if (!m->object->target.value && !m->object->target.average_value)
			field_required(e, AT(target, "averageValue"), "must set either a target value or averageValue");
	} else if (!strcmp(member, "external")) {
		metric_name(e, AT(at, "metric"), m->external->metric.name);
		metric_target(e, target, &m->external->target);
		if (!m->external->target.value && !m->external->target.average_value)
			field_required(e, AT(target, "averageValue"), "must set either a target value for metric or a per-pod target");
		if (m->external->target.value && m->external->target.average_value)
			field_forbidden(e, AT(target, "value"), "may not set both a target value for metric and a per-pod target");
	} else if (!strcmp(member, "pods")) {
		metric_name(e, AT(at, "metric"), m->pods->metric.name);
		metric_target(e, target, &m->pods->target);
		if (!m->pods->target.average_value)
			field_required(e, AT(target, "averageValue"), "must specify a positive target averageValue");
	} else if (!strcmp(member, "resource")) {
		if (!m->resource->name.n)
			field_required(e, AT(at, "name"), "must specify a resource name");
		utilization(e, target, &m->resource->target);
	} else {
		if (!m->container_resource->name.n)
			field_required(e, AT(at, "name"), "must specify a resource name");
		else
			rule_container_resource_name(e, AT(at, "name"), m->container_resource->name);
		if (!m->container_resource->container.n)
			field_required(e, AT(at, "container"), "must specify a container");
		else
			field_check(e, AT(at, "container"), m->container_resource->container, validate_dns1123_label);
		utilization(e, target, &m->container_resource->target);
	}
}

static void one_metric(struct field_errors *e, const struct field_path *p, const struct autoscaling_v2_metric_spec *m, bool lax)
{
	static const char types[] = "ContainerResource,External,Object,Pods,Resource";
	const struct {
		const char *type, *member;
		const void *v;
	} sources[] = {{"Object", "object", m->object}, {"External", "external", m->external}, {"Pods", "pods", m->pods},
		       {"Resource", "resource", m->resource}, {"ContainerResource", "containerResource", m->container_resource}};
	int n = 0;
	bool known = false;

	if (!m->type.n)
		field_required(e, AT(p, "type"), "must specify a metric source type");
	for (size_t i = 0; i < 5; i++)
		known |= str_eqz(m->type, sources[i].type);
	if (!known)
		field_unsupported(e, AT(p, "type"), m->type, types);
	for (size_t i = 0; i < 5; i++)
		if (sources[i].v && !n++)
			metric_source(e, p, m, sources[i].member, lax);
	for (size_t i = 0; i < 5; i++)
		if (str_eqz(m->type, sources[i].type) && !sources[i].v)
			field_required(e, FIELD_CHILD_S(p, str_from(sources[i].member)), "must populate information for the given metric source");
	if (!known)
		field_unsupported(e, AT(p, "type"), m->type, types);
	for (size_t i = 0; n != 1 && i < 5; i++)
		if (sources[i].v && !str_eqz(m->type, sources[i].type))
			field_forbidden(e, FIELD_CHILD_S(p, str_from(sources[i].member)), "must populate the given metric source only");
}

#define STABILIZATION_MAX 3600
#define PERIOD_MAX 1800

static void scaling(struct field_errors *e, const struct field_path *p, const struct autoscaling_v2_hpa_scaling_rules *r)
{
	if (!r)
		return;
	if (r->stabilization_window_seconds && *r->stabilization_window_seconds < 0)
		field_invalid_int(e, AT(p, "stabilizationWindowSeconds"), *r->stabilization_window_seconds, "must be greater than or equal to zero");
	if (r->stabilization_window_seconds && *r->stabilization_window_seconds > STABILIZATION_MAX)
		field_invalid_int(e, AT(p, "stabilizationWindowSeconds"), *r->stabilization_window_seconds, "must be less than or equal to %d",
				  STABILIZATION_MAX);
	if (r->select_policy)
		field_one_of(e, AT(p, "selectPolicy"), *r->select_policy, "Disabled,Max,Min");
	if (!r->policies.n)
		field_required(e, AT(p, "policies"), "must specify at least one Policy");
	for (uint32_t i = 0; i < r->policies.n; i++) {
		const struct autoscaling_v2_hpa_scaling_policy *x = &r->policies.v[i];
		const struct field_path *at = EL(AT(p, "policies"), i);

		field_one_of(e, AT(at, "type"), x->type, "Percent,Pods");
		rule_positive(e, AT(at, "value"), x->value);
		rule_positive(e, AT(at, "periodSeconds"), x->period_seconds);
		if (x->period_seconds > PERIOD_MAX)
			field_invalid_int(e, AT(at, "periodSeconds"), x->period_seconds, "must be less than or equal to %d", PERIOD_MAX);
	}
	if (r->tolerance && quantity_cmp(*r->tolerance, STR("0")) < 0)
		field_invalid(e, AT(p, "tolerance"), *r->tolerance, "must be greater than or equal to 0");
}

static void hpa_rules(struct field_errors *e, const struct autoscaling_v2_horizontal_pod_autoscaler *h,
		      const struct autoscaling_v2_horizontal_pod_autoscaler *o)
{
	const struct field_path *spec = FIELD_ROOT("spec");
	const struct autoscaling_v2_cross_version_object_reference *r = &h->spec.scale_target_ref, *was = o ? &o->spec.scale_target_ref : NULL;
	bool lax = false;

	if (h->spec.min_replicas)
		rule_min(e, AT(spec, "minReplicas"), *h->spec.min_replicas, 1);
	if (!h->spec.max_replicas)
		field_required(e, AT(spec, "maxReplicas"), "must be set and greater than 0");
	else
		rule_min(e, AT(spec, "maxReplicas"), h->spec.max_replicas, 1);
	if (h->spec.min_replicas && h->spec.max_replicas < *h->spec.min_replicas)
		field_invalid_int(e, AT(spec, "maxReplicas"), h->spec.max_replicas, "must be greater than or equal to `minReplicas`");
	cross_reference(e, AT(spec, "scaleTargetRef"), r, was && str_eq(was->api_version, r->api_version) && str_eq(was->kind, r->kind),
			str_eqz(r->kind, "ReplicationController"));
	for (uint32_t i = 0; o && i < o->spec.metrics.n; i++) {
		const struct autoscaling_v2_object_metric_source *m = o->spec.metrics.v[i].object;

		lax |= m && str_index(m->described_object.api_version, '/') != str_rindex(m->described_object.api_version, '/');
	}
	for (uint32_t i = 0; i < h->spec.metrics.n; i++)
		one_metric(e, EL(AT(spec, "metrics"), i), &h->spec.metrics.v[i], lax);
	if (h->spec.min_replicas && !*h->spec.min_replicas) {
		bool outside = false;

		for (uint32_t i = 0; i < h->spec.metrics.n; i++)
			outside |= str_eqz(h->spec.metrics.v[i].type, "Object") || str_eqz(h->spec.metrics.v[i].type, "External");
		if (!outside)
			field_forbidden(e, AT(spec, "metrics"), "must specify at least one Object or External metric to support scaling to zero replicas");
	}
	if (h->spec.behavior) {
		scaling(e, AT(AT(spec, "behavior"), "scaleUp"), h->spec.behavior->scale_up);
		scaling(e, AT(AT(spec, "behavior"), "scaleDown"), h->spec.behavior->scale_down);
	}
}

void hpa_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	hpa_rules(e, obj, NULL);
}

void hpa_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	hpa_rules(e, obj, old);
}

void hpa_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct autoscaling_v2_horizontal_pod_autoscaler *h = obj;

	(void)rq;
	(void)old;
	if (strcmp(sub, "status"))
		return;
	rule_nonneg(e, AT(FIELD_ROOT("status"), "currentReplicas"), h->status.current_replicas);
	rule_nonneg(e, AT(FIELD_ROOT("status"), "desiredReplicas"), h->status.desired_replicas);
}

/* ---- warnings ---- */

void workload_name_warn(struct request *rq, struct str name)
{
	const char *m = validate_dns1123_label(rq->a, name);

	if (m)
		request_warn(rq, "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is "
				 "recommended: [%s]", m);
}

/* Templates warn when they are new. */
void workload_warn(struct request *rq, const void *obj, const void *old)
{
	const struct schema_type *t = rq->res->st->type;
	const struct field_path *p = AT(FIELD_ROOT("spec"), "template");
	const struct meta_v1_object_meta *m = object_meta(t, (void *)(uintptr_t)obj), *o = old ? object_meta(t, (void *)(uintptr_t)old) : NULL;

	const struct core_v1_pod_template_spec *template;
	bool changed;

	if (t == &apps_v1_deployment_type)
		template = &((const struct apps_v1_deployment *)obj)->spec.template;
	else if (t == &apps_v1_replica_set_type)
		template = &((const struct apps_v1_replica_set *)obj)->spec.template;
	else if (t == &apps_v1_daemon_set_type)
		template = &((const struct apps_v1_daemon_set *)obj)->spec.template;
	else
		template = &((const struct apps_v1_stateful_set *)obj)->spec.template;
	if (!o && (t == &apps_v1_deployment_type || t == &apps_v1_replica_set_type))
		workload_name_warn(rq, m->name);
	if (o && t == &apps_v1_daemon_set_type)
		changed = !object_equal(&core_v1_pod_template_spec_type, template, &((const struct apps_v1_daemon_set *)old)->spec.template);
	else
		changed = !o || o->generation != m->generation;
	if (changed)
		template_warn(rq, p, template);
	if (t == &apps_v1_stateful_set_type) {
		const struct apps_v1_stateful_set *s = obj;

		for (uint32_t i = 0; i < s->spec.volume_claim_templates.n; i++) {
			const struct field_path *at = EL(AT(FIELD_ROOT("spec"), "volumeClaimTemplates"), i);

			pvc_spec_warn(rq, o ? AT(at, "Spec") : at, &s->spec.volume_claim_templates.v[i].spec);
		}
		if (s->spec.revision_history_limit && *s->spec.revision_history_limit < 0)
			request_warn(rq, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended");
	}
}
