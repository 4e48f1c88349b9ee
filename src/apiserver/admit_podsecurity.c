/*
 * PodSecurity (pod-security-admission/admission): which standard a namespace's labels or the plugin's configuration want of a pod, and
 * what follows: a refusal, a warning, an annotation of the audit event.
 */
#include <limits.h>
#include <stdlib.h>
#include "apiserver/admission.h"
#include "apiserver/admission_config.h"
#include "apiserver/metrics.h"
#include "apiserver/pod_standards.h"
#include "apiserver/server.h"

#define CHECK_PODS_MAX 3000 /* of a namespace whose labels change, and for how long: upstream's */
#define CHECK_PODS_MS 1000

struct pod_policy {
	enum pod_level level;
	int version;
};
struct pod_policies {
	struct pod_policy enforce, audit, warn;
};
static const char *const level_names[] = {"privileged", "baseline", "restricted"};

static struct { /* one server a process */
	struct pod_policies defaults;
	struct podsecurity_v1_pod_security_exemptions exempt;
} config = {.defaults = {{POD_PRIVILEGED, POD_LATEST}, {POD_PRIVILEGED, POD_LATEST}, {POD_PRIVILEGED, POD_LATEST}}};

/* ---- levels and versions ---- */

static bool parse_level(struct str v, enum pod_level *out)
{
	for (int i = POD_PRIVILEGED; i <= POD_RESTRICTED; i++)
		if (str_eqz(v, level_names[i])) {
			*out = (enum pod_level)i;
			return true;
		}
	return false;
}

static bool parse_version(struct str v, int *out)
{
	struct str n = str_has_prefix(v, STR("v1.")) ? str_sub(v, 3, v.n) : STR("");
	int64_t minor;

	if (str_eqz(v, "latest")) {
		*out = POD_LATEST;
		return true;
	}
	for (size_t i = 0; i < n.n; i++)
		if (n.p[i] < '0' || n.p[i] > '9')
			return false;
	if ((n.n > 1 && n.p[0] == '0') || !str_to_i64(n, &minor) || minor >= POD_LATEST)
		return false;
	*out = (int)minor;
	return true;
}

static struct str policy_text(struct arena *a, const struct pod_policy *p)
{
	return p->version == POD_LATEST ? arena_printf(a, "%s:latest", level_names[p->level]) :
					  arena_printf(a, "%s:v1.%d", level_names[p->level], p->version);
}

static bool same_policy(const struct pod_policy *x, const struct pod_policy *y)
{
	return x->level == y->level && x->version == y->version;
}

static bool same_effect(const struct pod_policy *x, const struct pod_policy *y)
{
	return (x->level == POD_PRIVILEGED && y->level == POD_PRIVILEGED) || same_policy(x, y);
}

static bool all_privileged(const struct pod_policies *p)
{
	return p->enforce.level == POD_PRIVILEGED && p->audit.level == POD_PRIVILEGED && p->warn.level == POD_PRIVILEGED;
}

/* One mode's labels; otherwise: the level when the label's is none. *level_set: it has a level that is one. */
static void mode_policy(const struct str_map *labels, const char *mode, enum pod_level otherwise, struct pod_policy *out, bool *level_set,
			struct field_errors *e)
{
	const struct field_path *p = FIELD_CHILD(FIELD_ROOT("metadata"), "labels");
	struct str key = arena_printf(e->arena, "pod-security.kubernetes.io/%s", mode), version = arena_printf(e->arena, "%.*s-version", STR_ARG(key));
	struct str v = str_map_get(labels, key);

	*level_set = false;
	if (str_map_has(labels, key)) {
		*level_set = parse_level(v, &out->level);
		if (!*level_set) {
			out->level = otherwise;
			field_invalid(e, FIELD_KEY(p, key), v, "must be one of privileged, baseline, restricted");
		}
	}
	if (!str_map_has(labels, version))
		return;
	v = str_map_get(labels, version);
	if (!parse_version(v, &out->version)) {
		out->version = POD_LATEST;
		field_invalid(e, FIELD_KEY(p, version), v, "must be \"latest\" or \"v1.x\"");
	}
}

static void policies_of(const struct str_map *labels, struct pod_policies *out, struct field_errors *e)
{
	bool enforces, audits, warns;

	*out = config.defaults;
	mode_policy(labels, "enforce", POD_RESTRICTED, &out->enforce, &enforces, e);
	mode_policy(labels, "audit", POD_PRIVILEGED, &out->audit, &audits, e);
	mode_policy(labels, "warn", POD_PRIVILEGED, &out->warn, &warns, e);
	/* what is enforced is warned of, unless the labels say something of warnings */
	if (enforces && !str_map_has(labels, STR("pod-security.kubernetes.io/warn")) && out->enforce.level > out->warn.level) {
		out->warn.level = out->enforce.level;
		if (!str_map_has(labels, STR("pod-security.kubernetes.io/warn-version")))
			out->warn.version = out->enforce.version;
	}
}

/* ---- configuration ---- */

static void check_names(struct field_errors *e, const char *what, const struct strings *list,
			const char *(*check)(struct arena *a, struct str s))
{
	const struct field_path *at = FIELD_CHILD_S(FIELD_ROOT("exemptions"), str_from(what));

	for (uint32_t i = 0; i < list->n; i++) {
		const struct field_path *p = FIELD_INDEX(at, i);
		const char *why = check ? check(e->arena, list->v[i]) : list->v[i].n ? NULL : "must not be empty";

		if (why) {
			field_invalid(e, p, list->v[i], "%s", why);
			continue;
		}
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(list->v[k], list->v[i])) {
				field_duplicate(e, p, list->v[i]);
				break;
			}
	}
}

static void default_policy(struct field_errors *e, const char *mode, struct str level, struct str version, struct pod_policy *out)
{
	const struct field_path *p = FIELD_ROOT("defaults");

	if (level.n && !parse_level(level, &out->level))
		field_invalid(e, FIELD_CHILD_S(p, str_from(mode)), level, "must be one of privileged, baseline, restricted");
	if (version.n && !parse_version(version, &out->version))
		field_invalid(e, FIELD_CHILD_S(p, arena_printf(e->arena, "%s-version", mode)), version, "must be \"latest\" or \"v1.x\"");
}

#define LABELS "request_operation=\"%s\",resource=\"%s\",subresource=\"%.*s\""
#define CONFIG_POD_V1 "PodSecurityConfiguration of pod-security.admission.config.k8s.io/v1"

static struct error *configure(struct apiserver *s, struct str text)
{
	struct podsecurity_v1_pod_security_configuration *c = arena_new(&s->arena, struct podsecurity_v1_pod_security_configuration);
	struct field_errors e = {.arena = &s->arena};

	/* series that upstream has from the start */
	for (int i = 0; i < 4; i++)
		metrics_count(METRIC_PODSEC_EXEMPTIONS,
			      arena_printf(&s->arena, LABELS, i & 1 ? "update" : "create", i & 2 ? "controller" : "pod", 0, "").p, 0);
	for (int i = 0; i < 2; i++)
		metrics_count(METRIC_PODSEC_EVALUATIONS,
			      arena_printf(&s->arena, "decision=\"allow\",mode=\"enforce\",policy_level=\"privileged\",policy_version=\"latest\"," LABELS,
					   i ? "update" : "create", "pod", 0, "").p, 0);
	if (!text.n)
		return NULL;
	TRY(config_decode(&s->arena, &podsecurity_v1_pod_security_configuration_type,
			  CONFIG_POD_V1 "|" CONFIG_POD_V1 "beta1|" CONFIG_POD_V1 "alpha1", text, c));
	default_policy(&e, "enforce", c->defaults.enforce, c->defaults.enforce_version, &config.defaults.enforce);
	default_policy(&e, "warn", c->defaults.warn, c->defaults.warn_version, &config.defaults.warn);
	default_policy(&e, "audit", c->defaults.audit, c->defaults.audit_version, &config.defaults.audit);
	check_names(&e, "namespaces", (struct strings *)&c->exemptions.namespaces, validate_dns1123_label);
	check_names(&e, "runtimeClasses", (struct strings *)&c->exemptions.runtime_classes, validate_dns1123_subdomain);
	check_names(&e, "usernames", (struct strings *)&c->exemptions.usernames, NULL);
	config.exempt = c->exemptions;
	return config_errors(&e);
}

static bool listed(struct str name, const struct str *v, uint32_t n)
{
	for (uint32_t i = 0; name.n && i < n; i++)
		if (str_eq(v[i], name))
			return true;
	return false;
}

/* ---- namespaces ---- */

static bool same_errors(const struct field_errors *x, const struct field_errors *y)
{
	if (x->list.n != y->list.n)
		return false;
	for (uint32_t i = 0; i < x->list.n; i++)
		if (!str_eq(x->list.v[i].field, y->list.v[i].field) || !str_eq(x->list.v[i].body, y->list.v[i].body))
			return false;
	return true;
}

static void named_policy(struct buf *b, const struct str_map *labels, const char *mode, struct arena *a, const struct pod_policy *p)
{
	struct str key = arena_printf(a, "pod-security.kubernetes.io/%s", mode), version = arena_printf(a, "%.*s-version", STR_ARG(key));

	if (p->level != POD_PRIVILEGED && (str_map_has(labels, key) || str_map_has(labels, version)))
		buf_printf(b, "%s%s=%.*s", b->n ? ", " : "", mode, STR_ARG(policy_text(a, p)));
}

static void warn_exempt(struct admission *a, const struct str_map *labels, const struct pod_policies *p)
{
	struct buf b buf_cleanup = {0};
	const struct pod_policies *d = &config.defaults;

	if (all_privileged(p) || (same_effect(&p->enforce, &d->enforce) && same_effect(&p->audit, &d->audit) && same_effect(&p->warn, &d->warn)))
		return;
	named_policy(&b, labels, "enforce", a->rq->a, &p->enforce);
	named_policy(&b, labels, "audit", a->rq->a, &p->audit);
	named_policy(&b, labels, "warn", a->rq->a, &p->warn);
	request_warn(a->rq, "namespace \"%.*s\" is exempt from Pod Security, and the policy (%s) will be ignored", STR_ARG(a->name), buf_z(&b));
}

struct violation { /* pods with the same findings */
	struct str why, first;
	size_t n;
};
struct survey {
	struct arena *a;
	struct pod_policy policy;
	LIST(struct violation) found;
	LIST(struct str) controllers; /* of which one pod has been looked at */
	size_t seen, checked;
	int64_t end_ms;
};

static struct str controller_of(const struct meta_v1_object_meta *m)
{
	for (uint32_t i = 0; i < m->owner_references.n; i++)
		if (m->owner_references.v[i].controller && *m->owner_references.v[i].controller)
			return m->owner_references.v[i].uid;
	return STR_NULL;
}

static void look_at(struct survey *s, const struct core_v1_pod *p)
{
	struct pod_findings f;
	struct violation *v = NULL;

	if (s->checked >= CHECK_PODS_MAX || now_ms() > s->end_ms)
		return;
	s->checked++;
	pod_standard_judge(s->a, s->policy.level, s->policy.version, &p->metadata, &p->spec, &f);
	if (!f.reasons.n)
		return;
	for (uint32_t i = 0; i < s->found.n && !v; i++)
		if (str_eq(s->found.v[i].why, f.reasons))
			v = &s->found.v[i];
	if (!v) {
		v = arena_push(s->a, &s->found);
		v->why = f.reasons;
		v->first = p->metadata.name;
	}
	v->n++;
}

/* One pod of each controller first, then the others; pods come sorted by name. */
static struct error *survey_pods(struct admission *a, struct survey *s)
{
	struct storage *st = storage_find(a->rq->s, STR(""), STR("pods"));
	LIST(struct core_v1_pod *) later = {0};
	const struct cache_entry *en;
	struct cache_snap *snap;
	struct cache_iter it;
	struct error *e = NULL;

	TRY(cache_snapshot(st->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, st->cache, snap, a->name, STR_NULL, NULL);
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		struct core_v1_pod *p = arena_new(s->a, struct core_v1_pod);
		struct str owner;

		e = cache_entry_decode(s->a, &core_v1_pod_type, en, true, p);
		if (e || (p->spec.runtime_class_name && listed(*p->spec.runtime_class_name, config.exempt.runtime_classes.v,
							       config.exempt.runtime_classes.n)))
			continue;
		s->seen++;
		owner = controller_of(&p->metadata);
		if (owner.n && listed(owner, s->controllers.v, s->controllers.n)) {
			*arena_push(s->a, &later) = p;
			continue;
		}
		if (owner.n)
			*arena_push(s->a, &s->controllers) = owner;
		look_at(s, p);
	}
	for (uint32_t i = 0; i < later.n; i++)
		look_at(s, later.v[i]);
	cache_snap_free(snap);
	return e;
}

static int violation_cmp(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

/* Warns of pods that the namespace's new level would not have let in. */
static struct error *warn_existing(struct admission *a, const struct pod_policy *p)
{
	struct arena own arena_cleanup = {0};
	struct survey s = {.a = &own, .policy = *p, .end_ms = now_ms() + CHECK_PODS_MS};
	struct str *lines;

	TRY(survey_pods(a, &s));
	if (s.checked < s.seen)
		request_warn(a->rq, "new PodSecurity enforce level only checked against the first %zu of %zu existing pods", s.checked, s.seen);
	if (!s.found.n)
		return NULL;
	request_warn(a->rq, "existing pods in namespace \"%.*s\" violate the new PodSecurity enforce level \"%.*s\"", STR_ARG(a->name),
		     STR_ARG(policy_text(&own, p)));
	lines = arena_array(&own, struct str, s.found.n);
	for (uint32_t i = 0; i < s.found.n; i++) {
		const struct violation *v = &s.found.v[i];

		if (v->n == 1)
			lines[i] = arena_printf(&own, "%.*s: %.*s", STR_ARG(v->first), STR_ARG(v->why));
		else
			lines[i] = arena_printf(&own, "%.*s (and %zu other pod%s): %.*s", STR_ARG(v->first), v->n - 1, v->n > 2 ? "s" : "", STR_ARG(v->why));
	}
	qsort(lines, s.found.n, sizeof *lines, violation_cmp);
	for (uint32_t i = 0; i < s.found.n; i++)
		request_warn(a->rq, "%.*s", STR_ARG(lines[i]));
	return NULL;
}

/* Labels of a namespace must be levels and versions; those that were wrong before may stay. */
static struct error *namespace_labels(struct admission *a)
{
	const struct core_v1_namespace *ns = a->obj, *old = a->old;
	struct field_errors now = {.arena = a->rq->a}, was = {.arena = a->rq->a};
	struct pod_policies p, before;
	bool exempt = listed(ns->metadata.name, config.exempt.namespaces.v, config.exempt.namespaces.n);

	if (a->subresource.n)
		return NULL;
	policies_of(API_MAP(&ns->metadata.labels), &p, &now);
	if (old)
		policies_of(API_MAP(&old->metadata.labels), &before, &was);
	if (now.list.n && !(old && same_errors(&now, &was)))
		return field_errors_status(&now, STR(""), STR("Namespace"), a->name.n ? a->name : ns->metadata.name);
	if (old && (same_policy(&p.enforce, &before.enforce) || p.enforce.level == POD_PRIVILEGED ||
		    (p.enforce.version == before.enforce.version && p.enforce.level <= before.enforce.level)))
		return NULL;
	if (exempt)
		warn_exempt(a, API_MAP(&ns->metadata.labels), &p);
	return old && !exempt ? warn_existing(a, &p.enforce) : NULL;
}

/* ---- pods and what makes them ---- */

struct judged {
	const struct meta_v1_object_meta *m;
	const struct core_v1_pod_spec *spec;
	bool pod;
};

static bool of_template(const struct core_v1_pod_template_spec *t, struct judged *j)
{
	if (!t)
		return false;
	j->m = &t->metadata;
	j->spec = &t->spec;
	return true;
}

static bool judged_of(const struct admission *a, struct judged *j)
{
	const void *o = a->obj;

	if (a->type == &core_v1_pod_type) {
		j->m = &((const struct core_v1_pod *)o)->metadata;
		j->spec = &((const struct core_v1_pod *)o)->spec;
		return j->pod = true;
	}
	if (a->subresource.n)
		return false;
	return of_template(a->type == &apps_v1_deployment_type ? &((const struct apps_v1_deployment *)o)->spec.template :
			   a->type == &apps_v1_replica_set_type ? &((const struct apps_v1_replica_set *)o)->spec.template :
			   a->type == &apps_v1_stateful_set_type ? &((const struct apps_v1_stateful_set *)o)->spec.template :
			   a->type == &apps_v1_daemon_set_type ? &((const struct apps_v1_daemon_set *)o)->spec.template :
			   a->type == &batch_v1_job_type ? &((const struct batch_v1_job *)o)->spec.template :
			   a->type == &batch_v1_cron_job_type ? &((const struct batch_v1_cron_job *)o)->spec.job_template.spec.template :
			   a->type == &core_v1_pod_template_type ? &((const struct core_v1_pod_template *)o)->template :
			   a->type == &core_v1_replication_controller_type ? ((const struct core_v1_replication_controller *)o)->spec.template :
			   NULL, j);
}

static bool images_differ(const struct core_v1_container *x, uint32_t n, const struct core_v1_container *y, uint32_t m)
{
	bool differ = n != m;

	for (uint32_t i = 0; !differ && i < n; i++)
		differ = !str_eq(x[i].image, y[i].image);
	return differ;
}

/* Of a pod's update only other images and new ephemeral containers count. */
static bool counts(const struct core_v1_pod_spec *s, const struct core_v1_pod_spec *old)
{
	if (images_differ(s->containers.v, s->containers.n, old->containers.v, old->containers.n) ||
	    images_differ(s->init_containers.v, s->init_containers.n, old->init_containers.v, old->init_containers.n))
		return true;
	for (uint32_t i = 0; i < s->ephemeral_containers.n; i++) {
		const struct core_v1_ephemeral_container_common *c = &s->ephemeral_containers.v[i].ephemeral_container_common;
		bool same = false;

		for (uint32_t k = 0; k < old->ephemeral_containers.n && !same; k++)
			same = str_eq(old->ephemeral_containers.v[k].ephemeral_container_common.name, c->name) &&
			       str_eq(old->ephemeral_containers.v[k].ephemeral_container_common.image, c->image);
		if (!same)
			return true;
	}
	return false;
}

static void note(struct admission *a, const char *key, struct str value)
{
	request_annotate(a->rq, arena_printf(a->rq->a, "pod-security.kubernetes.io/%s", key), value);
}

#define KUBERNETES_MINOR 36

static const char *request_labels(struct admission *a, const struct judged *j)
{
	return arena_printf(a->rq->a, LABELS, a->op == ADMIT_CREATE ? "create" : "update", j->pod ? "pod" : "controller",
			    STR_ARG(a->subresource))
		.p;
}

static void evaluated(struct admission *a, const struct judged *j, const struct pod_policy *p, const char *mode,
		      bool allowed)
{
	static const char *const levels[] = {
		[POD_PRIVILEGED] = "privileged", [POD_BASELINE] = "baseline", [POD_RESTRICTED] = "restricted"};
	struct str policy = policy_text(a->rq->a, p);

	str_cut(&policy, ':');
	if (p->version != POD_LATEST && p->version > KUBERNETES_MINOR)
		policy = STR("future"); /* of which there are many */
	metrics_count(
		METRIC_PODSEC_EVALUATIONS,
		arena_printf(a->rq->a, "decision=\"%s\",mode=\"%s\",policy_level=\"%s\",policy_version=\"%.*s\",%s",
			     allowed ? "allow" : "deny", mode, levels[p->level], STR_ARG(policy), request_labels(a, j))
			.p,
		1);
}

static bool exempt(struct admission *a, const struct judged *j, const char *what, struct str name, const struct strings *v)
{
	if (!listed(name, v->v, v->n))
		return false;
	note(a, "exempt", str_from(what));
	metrics_count(METRIC_PODSEC_EXEMPTIONS, request_labels(a, j), 1);
	return true;
}

/* `PodSecurity "LEVEL:VERSION": what it violates`, or empty. */
static struct str violations(struct arena *a, const struct judged *j, const struct pod_policy *p)
{
	struct pod_findings f;

	pod_standard_judge(a, p->level, p->version, j->m, j->spec, &f);
	return f.details.n ? arena_printf(a, "PodSecurity \"%.*s\": %.*s", STR_ARG(policy_text(a, p)), STR_ARG(f.details)) : STR_NULL;
}

static struct error *judge(struct admission *a, const struct judged *j, const struct pod_policies *p)
{
	struct arena *ar = a->rq->a;
	struct str why = STR_NULL, audited, warned;

	if (j->pod) {
		note(a, "enforce-policy", policy_text(ar, &p->enforce));
		why = violations(ar, j, &p->enforce);
		evaluated(a, j, &p->enforce, "enforce", !why.n);
	}
	audited = violations(ar, j, &p->audit);
	if (audited.n)
		evaluated(a, j, &p->audit, "audit", false);
	if (audited.n)
		note(a, "audit-violations", arena_printf(ar, "would violate %.*s", STR_ARG(audited)));
	if (why.n)
		return admission_forbidden(a, "violates %.*s", STR_ARG(why));
	warned = violations(ar, j, &p->warn);
	if (warned.n)
		evaluated(a, j, &p->warn, "warn", false);
	if (warned.n)
		request_warn(a->rq, "would violate %.*s", STR_ARG(warned));
	return NULL;
}

static struct error *pod_security(struct admission *a)
{
	const struct podsecurity_v1_pod_security_exemptions *x = &config.exempt;
	struct arena *ar = a->rq->a;
	struct field_errors wrong = {.arena = ar};
	struct core_v1_namespace *ns;
	struct judged j = {0};
	struct pod_policies p;

	if (admission_is(a, "", "namespaces", "") && a->obj)
		return namespace_labels(a);
	if (!a->obj || !a->ns.n || str_eqz(a->subresource, "status") || !judged_of(a, &j))
		return NULL;
	if (exempt(a, &j, "namespace", a->ns, (const struct strings *)&x->namespaces) ||
	    exempt(a, &j, "user", a->rq->user->name, (const struct strings *)&x->usernames))
		return NULL;
	ns = registry_peek(a->rq->s, ar, storage_find(a->rq->s, STR(""), STR("namespaces")), STR_NULL, a->ns);
	policies_of(API_MAP(ns ? &ns->metadata.labels : &(struct core_v1_namespace){0}.metadata.labels), &p, &wrong);
	if (j.pod && !wrong.list.n && all_privileged(&p)) {
		note(a, "enforce-policy", STR("privileged:latest")); /* of whatever version */
		evaluated(a, &j, &p.enforce, "enforce", true);
		return NULL;
	}
	if (!j.pod && !wrong.list.n && p.warn.level == POD_PRIVILEGED && p.audit.level == POD_PRIVILEGED)
		return NULL;
	if (j.pod && a->op == ADMIT_UPDATE && !counts(j.spec, &((const struct core_v1_pod *)a->old)->spec))
		return NULL;
	/* runtime classes are no short cut */
	if (exempt(a, &j, "runtimeClass", j.spec->runtime_class_name ? *j.spec->runtime_class_name : STR_NULL,
		   (const struct strings *)&x->runtime_classes))
		return NULL;
	if (wrong.list.n) {
		note(a, "error", arena_printf(ar, "Failed to parse policy: %.*s", STR_ARG(wrong.list.v[0].body)));
		metrics_count(METRIC_PODSEC_ERRORS, arena_printf(ar, "fatal=\"false\",%s", request_labels(a, &j)).p, 1);
	}
	return judge(a, &j, &p);
}

const struct admission_plugin admit_pod_security = {
	.name = "PodSecurity", .ops = ADMIT_CREATE | ADMIT_UPDATE, .configure = configure, .validate = pod_security,
};
