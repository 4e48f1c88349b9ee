/* The chain and its order. */
#include "apiserver/admission.h"
#include "apiserver/admission_config.h"
#include "apiserver/metrics.h"
#include "apiserver/server.h"
#include "schema/managed_fields.h"

/* Upstream's order (pkg/kubeapiserver/options/plugins.go). */
static const struct admission_plugin *const all[] = {
	&admit_always, &admit_namespace_provision, &admit_namespace_lifecycle, &admit_namespace_exists, &admit_hard_anti_affinity,
	&admit_limit_ranger, &admit_service_account, &admit_node_restriction, &admit_taint_nodes, &admit_always_pull, &admit_images, &admit_pod_security,
	&admit_node_selector, &admit_priority, &admit_default_tolerations, &admit_extended_tolerations, &admit_default_storage_class,
	&admit_storage_in_use, &admit_owner_references, &admit_pvc_resize, &admit_runtime_class, &admit_certificate_approval,
	&admit_certificate_signing, &admit_certificate_subject, &admit_default_ingress_class, &admit_no_external_ips, &admit_pod_topology_labels,
	&admit_declared_features, &admit_pod_resize,
	&admit_mutating_policy, &admit_mutating_webhook, &admit_validating_policy, &admit_validating_webhook, &admit_resource_quota, &admit_never,
};

/* Names of upstream that stand for nothing here: of features that are off, or of kinds that are not served. */
static const char *const without_effect[] = {"PodGroupProtection", "ClusterTrustBundleAttest", "PodGroupWorkloadExists", "JobValidation"};
static const char *const not_built[] = {"PodTolerationRestriction", "EventRateLimit"};

static bool listed(const char *list, const char *name)
{
	struct str rest = str_from(list);

	while (rest.p && rest.n)
		if (str_eqz(str_trim(str_cut(&rest, ',')), name))
			return true;
	return false;
}

static bool among(struct str name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (str_eqz(name, list[i]))
			return true;
	return false;
}
#define AMONG(name, list) among(name, list, sizeof list / sizeof *list)

static struct error *check_names(const char *flag, const char *list, bool on)
{
	for (struct str rest = str_from(list); rest.p && rest.n;) {
		struct str name = str_trim(str_cut(&rest, ','));
		bool built = false;

		for (size_t i = 0; i < sizeof all / sizeof *all; i++)
			built |= str_eqz(name, all[i]->name);
		if (on && AMONG(name, not_built))
			return error_new("%s: admission plugin %.*s is not built", flag, STR_ARG(name));
		if (name.n && !built && !AMONG(name, without_effect) && !AMONG(name, not_built))
			return error_new("%s: admission plugin \"%.*s\" is unknown", flag, STR_ARG(name));
	}
	return NULL;
}

struct error *admission_init(struct apiserver *s)
{
	const char *enable = s->o.enable_admission, *disable = s->o.disable_admission;
	struct str text;

	TRY(check_names("--enable-admission-plugins", enable, true));
	TRY(check_names("--disable-admission-plugins", disable, false));
	TRY(admission_config_init(s));
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		const struct admission_plugin *p = all[i];
		bool on = listed(enable, p->name), off = listed(disable, p->name);

		if (on && off)
			return error_new("admission plugin %s is in --enable-admission-plugins and in --disable-admission-plugins", p->name);
		if (off || (p->off_by_default && !on))
			continue;
		if (p->configure) {
			TRY(error_wrap(admission_config_of(s, str_from(p->name), &text), "configuration of admission plugin %s", p->name));
			TRY(error_wrap(p->configure(s, text), "admission plugin %s", p->name));
		}
		s->plugins[s->n_plugins++] = p;
	}
	return NULL;
}

/* ---- metrics: the series of a plugin and of a whole step, by operation and outcome ---- */
enum { ADMIT, VALIDATE, STEPS };
static const char *const step_names[STEPS] = {"admit", "validate"};
#define OPS 4
struct admission_series {
	struct metric *m[OPS][STEPS][2], *summary[OPS][STEPS][2]; /* the latter of whole steps */
};
static struct admission_series of_plugin[sizeof all / sizeof *all], of_step;

static void observe(struct admission *a, struct admission_series *v, const char *name, int step, int64_t since,
		    bool rejected)
{
	static const char *const ops[OPS] = {"CREATE", "UPDATE", "DELETE", "CONNECT"};
	int op = __builtin_ctz(a->op);
	struct metric **m = &v->m[op][step][rejected];
	double seconds;

	if (!*m) {
		char labels[200];

		snprintf(labels, sizeof labels, "%s%s%soperation=\"%s\",rejected=\"%s\",type=\"%s\"",
			 name ? "name=\"" : "", name ? name : "", name ? "\"," : "", ops[op],
			 rejected ? "true" : "false", step_names[step]);
		*m = metric_series(name ? METRIC_ADMISSION_PLUGIN : METRIC_ADMISSION_STEP, labels);
		if (!name)
			v->summary[op][step][rejected] = metric_series(METRIC_STEP_SUMMARY, labels);
	}
	seconds = (double)(now_ns() - since) / 1e9;
	metric_observe(*m, seconds);
	if (!name)
		metric_observe(v->summary[op][step][rejected], seconds);
}

static struct error *run_plugins(struct admission *a, int step)
{
	struct apiserver *s = a->rq->s;
	struct error *e = NULL;

	for (size_t i = 0; i < s->n_plugins && !e; i++) {
		const struct admission_plugin *p = s->plugins[i];
		struct error *(*f)(struct admission *) = step == ADMIT ? p->admit : p->validate;
		int64_t since;

		if (!(p->ops & a->op) || !f)
			continue;
		since = now_ns();
		e = f(a);
		observe(a, &of_plugin[i], p->name, step, since, e != NULL);
	}
	return e;
}

struct error *admission_admit(struct admission *a)
{
	int64_t since = now_ns();
	struct error *e = run_plugins(a, ADMIT);

	if (!e && a->should_reinvoke) {
		a->reinvocation = true;
		e = run_plugins(a, ADMIT);
	}
	observe(a, &of_step, NULL, ADMIT, since, e != NULL);
	return e;
}

/* ---- what admission may have broken ---- */

void admission_dedup_owners(struct request *rq, struct meta_v1_object_meta *m, bool admitted)
{
	struct buf twice buf_cleanup = {0};
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->owner_references.n; i++) {
		bool seen = false;

		for (uint32_t k = 0; k < n; k++)
			seen |= object_equal(&meta_v1_owner_reference_type, &m->owner_references.v[i], &m->owner_references.v[k]);
		if (seen)
			buf_printf(&twice, "%s%.*s", twice.n ? ", " : "", STR_ARG(m->owner_references.v[i].uid));
		else
			m->owner_references.v[n++] = m->owner_references.v[i];
	}
	m->owner_references.n = n;
	if (twice.n)
		request_warn(rq, ".metadata.ownerReferences contains duplicate entries%s; API server dedups owner references in 1.20+, and may "
				 "reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %s",
			     admitted ? " after mutating admission happens" : "", buf_z(&twice));
}

struct error *admission_admit_object(struct admission *a)
{
	struct meta_v1_object_meta *m = object_meta(a->type, a->obj), before = *m;
	struct error *e;

	TRY(admission_admit(a));
	e = a->reread ? managed_fields_check(a->rq->a, m) : NULL; /* only patches change them */
	if (e) {
		memcpy(&m->managed_fields, &before.managed_fields, sizeof m->managed_fields);
		request_warn(a->rq, ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated "
				    "mutating admission controller; please fix your requests: %s",
			     error_message(e));
		error_free(e);
	}
	admission_dedup_owners(a->rq, m, true);
	return NULL;
}

/* ---- reinvocation ---- */

static void require_again(struct admission *a, struct reinvocable *r)
{
	for (uint32_t i = 0; i < r->before.n; i++)
		*arena_push(a->rq->a, &r->again) = r->before.v[i];
	r->before.n = 0;
}

struct reinvocable *reinvocation_begin(struct admission *a, struct reinvocable **r)
{
	bool same;

	if (!*r)
		*r = arena_new(a->rq->a, struct reinvocable);
	same = (*r)->output && a->obj ? object_equal(a->type, (*r)->output, a->obj) : !(*r)->output && !a->obj;
	if (a->reinvocation && !same)
		require_again(a, *r);
	return *r;
}

void reinvocation_end(struct admission *a, struct reinvocable *r)
{
	void *copy = NULL;

	if (a->obj) {
		copy = arena_alloc(a->rq->a, a->type->size);
		object_copy(a->rq->a, a->type, a->obj, copy);
	}
	r->output = copy;
}

bool reinvocation_skips(const struct admission *a, const struct reinvocable *r, struct str key)
{
	if (!a->reinvocation)
		return false;
	for (uint32_t i = 0; i < r->again.n; i++)
		if (str_eq(r->again.v[i], key))
			return false;
	return true;
}

void reinvocation_changed(struct admission *a, struct reinvocable *r)
{
	require_again(a, r);
	a->should_reinvoke = true;
}

void reinvocation_ran(struct admission *a, struct reinvocable *r, struct str key)
{
	*arena_push(a->rq->a, &r->before) = key;
}

struct error *admission_validate(struct admission *a)
{
	int64_t since = now_ns();
	struct error *e = run_plugins(a, VALIDATE);

	observe(a, &of_step, NULL, VALIDATE, since, e != NULL);
	return e;
}

struct error *admission_admit_body(struct admission *a, struct request *rq, const struct schema_type *t,
				   struct str name, void *obj, const void *old)
{
	*a = (struct admission){.rq = rq,
				.res = rq->res,
				.group = rq->info.group,
				.version = rq->info.version,
				.resource = rq->info.resource,
				.kind = str_from(t->name),
				.subresource = rq->info.subresource,
				.ns = rq->info.ns,
				.name = name,
				.op = old ? ADMIT_UPDATE : ADMIT_CREATE,
				.type = t,
				.obj = obj,
				.old = old,
				.dry_run = rq->dry_run};
	return admission_admit(a);
}

struct error *admission_of_body(struct request *rq, const struct schema_type *t, struct str name, void *obj)
{
	struct admission a;

	TRY(admission_admit_body(&a, rq, t, name, obj, NULL));
	return admission_validate(&a);
}

struct error *admission_forbidden(const struct admission *a, const char *fmt, ...)
{
	va_list ap;
	struct str text, name = a->name.n ? a->name : STR("Unknown");

	va_start(ap, fmt);
	text = arena_vprintf(a->rq->a, fmt, ap);
	va_end(ap);
	if (!a->name.n && a->obj && a->type->metadata >= 0) {
		const struct meta_v1_object_meta *m = object_meta(a->type, a->obj);

		if (m->name.n || m->generate_name.n)
			name = m->name.n ? m->name : m->generate_name;
	}
	return err_forbidden(a->group, a->resource, name, "%.*s", STR_ARG(text));
}
