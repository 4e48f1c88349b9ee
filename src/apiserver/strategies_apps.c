/* Strategies of apps, batch, autoscaling, policy: workloads. */
#include "apiserver/server.h"
#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"

#define TEMPLATE_NORMALIZE(name, type, template)                               \
	static void name(struct arena *a, void *obj)                           \
	{                                                                      \
		pod_spec_normalize(a, &((struct type *)obj)->template.spec);   \
	}
TEMPLATE_NORMALIZE(deployment_normalize, apps_v1_deployment, spec.template)
TEMPLATE_NORMALIZE(replicaset_normalize, apps_v1_replica_set, spec.template)
TEMPLATE_NORMALIZE(cronjob_normalize, batch_v1_cron_job, spec.job_template.spec.template)

/* The kind of claim templates is not stored, but always shown. */
static void claim_templates_kind(struct apps_v1_stateful_set *s, struct str kind, struct str api_version)
{
	for (uint32_t i = 0; i < s->spec.volume_claim_templates.n; i++) {
		s->spec.volume_claim_templates.v[i].kind = kind;
		s->spec.volume_claim_templates.v[i].api_version = api_version;
	}
}

static void statefulset_normalize(struct arena *a, void *obj)
{
	struct apps_v1_stateful_set *s = obj;

	pod_spec_normalize(a, &s->spec.template.spec);
	claim_templates_kind(s, STR_NULL, STR_NULL);
}

static void statefulset_decorate(void *obj)
{
	claim_templates_kind(obj, STR("PersistentVolumeClaim"), STR("v1"));
}

static void job_normalize(struct arena *a, void *obj)
{
	pod_spec_normalize(a, &((struct batch_v1_job *)obj)->spec.template.spec);
}

/* Annotations are copied to the replica sets, so they count as a change. */
static void deployment_update(struct request *rq, void *obj, const void *old)
{
	struct apps_v1_deployment *d = obj;
	const struct apps_v1_deployment *o = old;

	(void)rq;
	if (!object_field_equal(&meta_v1_object_meta_type, &d->metadata, &o->metadata, "annotations"))
		d->metadata.generation = o->metadata.generation + 1;
}

static const struct strategy deployments = {
	.group = STR_INIT("apps"), .plural = STR_INIT("deployments"), .checks_all = true, .generation = true, .normalize = deployment_normalize, .prepare_update = deployment_update,
	.validate = deployment_validate, .validate_update = deployment_validate_update, .validate_sub_update = deployment_validate_sub,
	.warn = workload_warn,
};
static const struct strategy replicasets = {
	.group = STR_INIT("apps"), .plural = STR_INIT("replicasets"), .checks_all = true, .generation = true, .normalize = replicaset_normalize, .validate = replicaset_validate, .validate_update = replicaset_validate_update,
	.validate_sub_update = replicaset_validate_sub, .warn = workload_warn,
};
static const struct strategy statefulsets = {
	.group = STR_INIT("apps"), .plural = STR_INIT("statefulsets"), .checks_all = true, .generation = true, .normalize = statefulset_normalize,
	.decorate = statefulset_decorate,
	.name_check = validate_dns1123_label, .validate = statefulset_validate, .validate_update = statefulset_validate_update,
	.validate_sub_update = statefulset_validate_sub, .warn = workload_warn,
};
/* How often the template changed: a field of older API versions, which this one keeps as an annotation. */
#define TEMPLATE_GENERATION "deprecated.daemonset.template.generation"

static void set_template_generation(struct request *rq, struct apps_v1_daemon_set *d, int64_t n)
{
	str_map_set(rq->a, API_MAP(&d->metadata.annotations), STR(TEMPLATE_GENERATION), arena_printf(rq->a, "%lld", (long long)n));
}

static int64_t template_generation(const struct apps_v1_daemon_set *d)
{
	int64_t n;

	return str_to_i64(str_map_get(API_MAP(&d->metadata.annotations), STR(TEMPLATE_GENERATION)), &n) && n > 0 ? n : 1;
}

/* Conversion writes it: before field managers look, and 0 where there is none. */
static void daemonset_normalize(struct arena *a, void *obj)
{
	struct apps_v1_daemon_set *d = obj;
	int64_t n;

	pod_spec_normalize(a, &d->spec.template.spec);
	if (!str_to_i64(str_map_get(API_MAP(&d->metadata.annotations), STR(TEMPLATE_GENERATION)), &n))
		n = 0;
	str_map_set(a, API_MAP(&d->metadata.annotations), STR(TEMPLATE_GENERATION), arena_printf(a, "%lld", (long long)n));
}

void daemonset_internal_meta(struct arena *a, struct meta_v1_object_meta *m)
{
	struct str_map copy = {0};

	for (uint32_t i = 0; i < m->annotations.n; i++)
		if (!str_eqz(m->annotations.v[i].key, TEMPLATE_GENERATION))
			str_map_set(a, &copy, m->annotations.v[i].key, m->annotations.v[i].value);
	m->annotations.v = copy.v;
	m->annotations.n = copy.n;
	m->annotations.cap = copy.cap;
}

static void daemonset_create(struct request *rq, void *obj)
{
	struct apps_v1_daemon_set *d = obj;

	memset(&d->status, 0, sizeof d->status);
	set_template_generation(rq, d, template_generation(d));
}

static void daemonset_update(struct request *rq, void *obj, const void *old)
{
	struct apps_v1_daemon_set *d = obj;
	const struct apps_v1_daemon_set *o = old;

	set_template_generation(rq, d, template_generation(o) + !object_equal(&core_v1_pod_template_spec_type, &d->spec.template,
									      &o->spec.template));
}

static void daemonset_sub(struct request *rq, const char *sub, void *obj, const void *old)
{
	struct apps_v1_daemon_set *d = obj;
	const struct apps_v1_daemon_set *o = old;

	(void)sub;
	d->spec = o->spec;
	set_template_generation(rq, d, template_generation(o));
}

static const struct strategy daemonsets = {
	.group = STR_INIT("apps"), .plural = STR_INIT("daemonsets"), .checks_all = true, .generation = true, .normalize = daemonset_normalize,
	.prepare_create = daemonset_create, .prepare_update = daemonset_update, .prepare_sub_update = daemonset_sub,
	.validate = daemonset_validate, .validate_update = daemonset_validate_update, .validate_sub_update = daemonset_validate_sub,
	.warn = workload_warn,
};
static const struct strategy controllerrevisions = {
	.group = STR_INIT("apps"), .plural = STR_INIT("controllerrevisions"), .checks_all = true, .meta_update = "UM*",
	.validate = revision_validate, .validate_update = revision_validate_update,
};

/* A Job's selector and pod labels are made from its uid unless manualSelector says otherwise. */
static void job_create(struct request *rq, void *obj)
{
	struct batch_v1_job *j = obj;
	struct str_map *labels = API_MAP(&j->spec.template.metadata.labels);
	struct str uid = j->metadata.uid;
	bool shared = labels->n && (void *)j->metadata.labels.v == (void *)labels->v; /* as they were defaulted */

	memset(&j->status, 0, sizeof j->status);
	if (j->spec.manual_selector && *j->spec.manual_selector)
		return;
	if (!str_map_has(labels, STR("job-name")))
		str_map_set(rq->a, labels, STR("job-name"), j->metadata.name);
	if (!str_map_has(labels, STR("batch.kubernetes.io/job-name")))
		str_map_set(rq->a, labels, STR("batch.kubernetes.io/job-name"), j->metadata.name);
	if (!str_map_has(labels, STR("controller-uid")))
		str_map_set(rq->a, labels, STR("controller-uid"), uid);
	if (!str_map_has(labels, STR("batch.kubernetes.io/controller-uid")))
		str_map_set(rq->a, labels, STR("batch.kubernetes.io/controller-uid"), uid);
	if (shared)
		memcpy(&j->metadata.labels, labels, sizeof j->metadata.labels);
	if (!j->spec.selector)
		j->spec.selector = arena_new(rq->a, struct meta_v1_label_selector);
	if (!str_map_has(API_MAP(&j->spec.selector->match_labels), STR("batch.kubernetes.io/controller-uid")))
		str_map_set(rq->a, API_MAP(&j->spec.selector->match_labels), STR("batch.kubernetes.io/controller-uid"), uid);
}

/* Labels of a template that job_create made are the Job's, too, as they would have been had the client given them. */
static bool job_shown(struct arena *a, void *obj)
{
	struct batch_v1_job *j = obj;
	bool lacks = !j->metadata.labels.n && j->spec.template.metadata.labels.n;

	(void)a;
	if (lacks)
		memcpy(&j->metadata.labels, &j->spec.template.metadata.labels, sizeof j->metadata.labels);
	return lacks;
}

static void job_unfill(void *obj)
{
	memset(&((struct batch_v1_job *)obj)->metadata.labels, 0, sizeof((struct batch_v1_job *)obj)->metadata.labels);
}

static const struct cache_field job_fields[] = {
	{.name = STR_INIT("status.successful"), .path = STR_INIT("status.succeeded"), .absent = STR_INIT("0")},
};
static const struct strategy jobs = {
	.group = STR_INIT("batch"), .plural = STR_INIT("jobs"), .checks_all = true, .meta_update = "M*", .generation = true,
	.orphan_by_default = true, .normalize = job_normalize, .prepare_create = job_create, .fields = job_fields, .n_fields = 1, .shown = job_shown, .unfill = job_unfill,
	.validate = job_validate, .validate_update = job_validate_update, .validate_sub_update = job_validate_sub, .warn = job_warn,
};
static const struct strategy cronjobs = {
	.group = STR_INIT("batch"), .plural = STR_INIT("cronjobs"), .checks_all = true, .meta_status = "*", .generation = true, .normalize = cronjob_normalize,
	.validate = cronjob_validate, .validate_update = cronjob_validate_update, .warn = cronjob_warn,
};
static const struct strategy hpas = {
	.group = STR_INIT("autoscaling"),
	.plural = STR_INIT("horizontalpodautoscalers"),
	.checks_all = true,
	.validate = hpa_validate,
	.validate_update = hpa_validate_update,
	.validate_sub_update = hpa_validate_sub,
};
/* To v1beta1 an empty selector meant no pod, as v1 says it with a label that none has (pkg/apis/policy/v1beta1). */
#define EMPTY_SELECTOR "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"

static void pdb_on_read(const struct apiserver *s, struct arena *a, struct str api_version, void *obj)
{
	struct meta_v1_label_selector *sel = ((struct policy_v1_pod_disruption_budget *)obj)->spec.selector;
	uint32_t n = 0;

	(void)s;
	if (!sel || !str_eqz(api_version, "policy/v1beta1"))
		return;
	if (!sel->match_labels.n && !sel->match_expressions.n) {
		struct meta_v1_label_selector_requirement *r = arena_push(a, &sel->match_expressions);

		r->key = STR(EMPTY_SELECTOR);
		r->operator = STR("Exists");
		return;
	}
	for (uint32_t i = 0; i < sel->match_expressions.n; i++)
		if (!str_eqz(sel->match_expressions.v[i].key, EMPTY_SELECTOR))
			sel->match_expressions.v[n++] = sel->match_expressions.v[i];
	sel->match_expressions.n = n;
}

static const struct strategy pdbs = {
	.on_read = pdb_on_read,
	.group = STR_INIT("policy"), .plural = STR_INIT("poddisruptionbudgets"), .checks_all = true, .meta_create = "*", .meta_update = "*", .meta_status = "*", .generation = true, .no_unconditional_update = true, .name_check = validate_path_segment,
	.validate = pdb_validate,
	.validate_sub_update = pdb_validate_sub,
};

const struct strategy *const strategies_apps[] = {
	&deployments, &replicasets, &statefulsets, &daemonsets, &controllerrevisions, &jobs, &cronjobs, &hpas, &pdbs, NULL,
};
