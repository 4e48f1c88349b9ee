/* Strategies of pods and pod templates. */
#include "apiserver/server.h"
#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

/* What a pod's class is judged by: sums of cpu and memory, of what is more than nothing. */
struct qos {
	int64_t requests[2], limits[2];
	bool requested[2], limited[2], all_limited;
};

static void qos_add(struct qos *q, const struct core_v1_resource_requirements *r)
{
	static const char *const names[] = {"cpu", "memory"};

	for (int i = 0; i < 2; i++) {
		struct str l = str_map_get(API_MAP(&r->limits), str_from(names[i])), v = str_map_get(API_MAP(&r->requests), str_from(names[i]));

		if (v.n && quantity_cmp(v, STR("0")) > 0) {
			q->requests[i] += i ? quantity_value(v) : quantity_milli(v);
			q->requested[i] = true;
		}
		if (l.n && quantity_cmp(l, STR("0")) > 0) {
			q->limits[i] += i ? quantity_value(l) : quantity_milli(l);
			q->limited[i] = true;
		} else {
			q->all_limited = false;
		}
	}
}

struct str pod_qos_class(const struct core_v1_pod *p)
{
	struct qos q = {.all_limited = true};

	/* resources of the pod as a whole are the ones that count */
	if (p->spec.resources)
		qos_add(&q, p->spec.resources);
	for (uint32_t i = 0; !p->spec.resources && i < p->spec.containers.n; i++)
		qos_add(&q, &p->spec.containers.v[i].resources);
	for (uint32_t i = 0; !p->spec.resources && i < p->spec.init_containers.n; i++)
		qos_add(&q, &p->spec.init_containers.v[i].resources);
	if (!q.requested[0] && !q.requested[1] && !q.limited[0] && !q.limited[1])
		return STR("BestEffort");
	for (int i = 0; i < 2; i++)
		if (q.requested[i] != q.limited[i] || q.requests[i] != q.limits[i])
			q.all_limited = false;
	return q.all_limited ? STR("Guaranteed") : STR("Burstable");
}

void pod_spec_normalize(struct arena *a, struct core_v1_pod_spec *s)
{
	if (!s->service_account_name.n)
		s->service_account_name = s->service_account;
	s->service_account = s->service_account_name;
	(void)a;
}

static void pod_normalize(struct arena *a, void *obj)
{
	struct core_v1_pod *p = obj;
	struct core_v1_pod_status *st = &p->status;

	pod_spec_normalize(a, &p->spec);
	if (p->spec.termination_grace_period_seconds && *p->spec.termination_grace_period_seconds < 0) {
		p->spec.termination_grace_period_seconds = arena_new(a, int64_t);
		*p->spec.termination_grace_period_seconds = 1;
	}
	/* podIP is the first of podIPs, and comes first when they differ */
	if (st->pod_ip.n && (!st->pod_ips.n || !str_eq(st->pod_ips.v[0].ip, st->pod_ip))) {
		memset(&st->pod_ips, 0, sizeof st->pod_ips);
		arena_push(a, &st->pod_ips)->ip = st->pod_ip;
	}
	st->pod_ip = st->pod_ips.n ? st->pod_ips.v[0].ip : STR_NULL;
}

/* matchLabelKeys and mismatchLabelKeys become requirements of the selector, with the pod's own values (KEP-3633, KEP-3243). */
static void keys_to_selector(struct arena *a, const struct str_map *labels, const struct strings *match, const struct strings *mismatch,
			     struct meta_v1_label_selector *s)
{
	if (!s)
		return;
	for (int i = 0; i < 2; i++) {
		const struct strings *keys = i ? mismatch : match;

		for (uint32_t k = 0; k < keys->n; k++) {
			struct meta_v1_label_selector_requirement *r;

			if (!str_map_has(labels, keys->v[k]))
				continue;
			r = arena_push(a, &s->match_expressions);
			r->key = keys->v[k];
			r->operator = i ? STR("NotIn") : STR("In");
			*arena_push(a, &r->values) = str_map_get(labels, keys->v[k]);
		}
	}
}

static void affinity_keys(struct arena *a, const struct str_map *labels, struct core_v1_pod_affinity *p)
{
	for (uint32_t i = 0; p && i < p->required_during_scheduling_ignored_during_execution.n; i++) {
		struct core_v1_pod_affinity_term *t = &p->required_during_scheduling_ignored_during_execution.v[i];

		keys_to_selector(a, labels, (const void *)&t->match_label_keys, (const void *)&t->mismatch_label_keys, t->label_selector);
	}
	for (uint32_t i = 0; p && i < p->preferred_during_scheduling_ignored_during_execution.n; i++) {
		struct core_v1_pod_affinity_term *t = &p->preferred_during_scheduling_ignored_during_execution.v[i].pod_affinity_term;

		keys_to_selector(a, labels, (const void *)&t->match_label_keys, (const void *)&t->mismatch_label_keys, t->label_selector);
	}
}

static void label_keys(struct request *rq, struct core_v1_pod *p)
{
	const struct str_map *labels = API_MAP(&p->metadata.labels);
	static const struct strings none;

	if (p->spec.affinity) {
		affinity_keys(rq->a, labels, p->spec.affinity->pod_affinity);
		affinity_keys(rq->a, labels, (void *)p->spec.affinity->pod_anti_affinity);
	}
	for (uint32_t i = 0; i < p->spec.topology_spread_constraints.n; i++) {
		struct core_v1_topology_spread_constraint *c = &p->spec.topology_spread_constraints.v[i];

		keys_to_selector(rq->a, labels, (const void *)&c->match_label_keys, &none, c->label_selector);
	}
}

/* The annotation of a profile, older than the field, becomes the field (KEP-24). */
static void app_armor(struct request *rq, struct core_v1_pod *p)
{
	const struct core_v1_app_armor_profile *pod = p->spec.security_context ? p->spec.security_context->app_armor_profile : NULL;
	const struct str_map *an = API_MAP(&p->metadata.annotations);

	if (p->spec.os && str_eqz(p->spec.os->name, "windows"))
		return;
	POD_CONTAINERS(it, &p->spec, NULL) {
		struct core_v1_container *c = (struct core_v1_container *)(uintptr_t)it.c;
		struct str key = arena_printf(rq->a, "container.apparmor.security.beta.kubernetes.io/%.*s", STR_ARG(c->name)), text;
		struct core_v1_app_armor_profile *made;
		struct field_errors e = {.arena = rq->a};

		if (!str_map_has(an, key) || (c->security_context && c->security_context->app_armor_profile))
			continue;
		made = arena_new(rq->a, struct core_v1_app_armor_profile);
		text = str_map_get(an, key);
		if (str_eqz(text, "unconfined")) {
			made->type = STR("Unconfined");
		} else if (str_eqz(text, "runtime/default")) {
			made->type = STR("RuntimeDefault");
		} else if (str_has_prefix(text, STR("localhost/"))) {
			made->type = STR("Localhost");
			made->localhost_profile = arena_new(rq->a, struct str);
			*made->localhost_profile = str_sub(text, 10, text.n);
		}
		rule_app_armor(&e, FIELD_ROOT(""), made);
		if (!e.list.n && pod && object_equal(&core_v1_app_armor_profile_type, made, pod))
			continue;
		if (!e.list.n) {
			if (!c->security_context)
				c->security_context = arena_new(rq->a, struct core_v1_security_context);
			c->security_context->app_armor_profile = made;
		}
		request_warn(rq, "metadata.annotations[%.*s]: deprecated since v1.30; use the \"appArmorProfile\" field instead", STR_ARG(key));
	}
}

static void pod_gates(struct request *rq, struct core_v1_pod *p)
{
	struct core_v1_pod_condition *c;

	if (!p->spec.scheduling_gates.n)
		return;
	for (uint32_t i = 0; i < p->status.conditions.n; i++)
		if (str_eqz(p->status.conditions.v[i].type, "PodScheduled"))
			return;
	c = arena_push(rq->a, &p->status.conditions);
	c->type = STR("PodScheduled");
	c->status = STR("False");
	c->reason = STR("SchedulingGated");
	c->last_transition_time = time_now();
	c->message = STR("Scheduling is blocked due to non-empty scheduling gates");
}

static void pod_create(struct request *rq, void *obj)
{
	struct core_v1_pod *p = obj;
	struct str given = p->status.qos_class; /* counts, as in upstream */

	memset(&p->status, 0, sizeof p->status);
	p->status.phase = STR("Pending");
	p->status.qos_class = given.n ? given : pod_qos_class(p);
	p->metadata.generation = 1;
	pod_gates(rq, p);
	label_keys(rq, p);
	app_armor(rq, p);
}

static void pod_update(struct request *rq, void *obj, const void *old)
{
	struct core_v1_pod *p = obj;

	(void)rq;
	p->status = ((const struct core_v1_pod *)old)->status;
}

/* Who does not say which generation was observed keeps what was said before. */
static void observed_generations(struct core_v1_pod *p, const struct core_v1_pod *o)
{
	if (!p->status.observed_generation)
		p->status.observed_generation = o->status.observed_generation;
	for (uint32_t i = 0; i < p->status.conditions.n; i++)
		for (uint32_t k = 0; k < o->status.conditions.n && !p->status.conditions.v[i].observed_generation; k++)
			if (str_eq(o->status.conditions.v[k].type, p->status.conditions.v[i].type))
				p->status.conditions.v[i].observed_generation = o->status.conditions.v[k].observed_generation;
}

/* Of metadata, such an update changes nothing but managedFields (ResetObjectMetaForStatus). */
static void status_meta(struct meta_v1_object_meta *m, const struct meta_v1_object_meta *o)
{
	m->deletion_timestamp = o->deletion_timestamp;
	m->generation = o->generation;
	m->self_link = o->self_link;
	memcpy(&m->labels, &o->labels, sizeof o->labels);
	memcpy(&m->annotations, &o->annotations, sizeof o->annotations);
	memcpy(&m->finalizers, &o->finalizers, sizeof o->finalizers);
	memcpy(&m->owner_references, &o->owner_references, sizeof o->owner_references);
}

/* The old containers with the new resources and resize policies; renamed ones stay for validation to refuse. */
static void resized(struct arena *a, const struct core_v1_container *now, const struct core_v1_container *was, uint32_t n, void *list)
{
	LIST(struct core_v1_container) out = {0};
	bool renamed = false;

	for (uint32_t i = 0; i < n; i++)
		renamed |= !str_eq(now[i].name, was[i].name);
	for (uint32_t i = 0; i < n; i++) {
		struct core_v1_container *c = arena_push(a, &out);

		*c = renamed ? now[i] : was[i];
		c->resources = now[i].resources;
		memcpy(&c->resize_policy, &now[i].resize_policy, sizeof c->resize_policy);
	}
	memcpy(list, &out, sizeof out);
}

static void pod_sub(struct request *rq, const char *sub, void *obj, const void *old)
{
	struct core_v1_pod *p = obj;
	const struct core_v1_pod *o = old;

	if (!strcmp(sub, "binding"))
		return;
	if (!strcmp(sub, "status")) {
		p->spec = o->spec;
		p->metadata.deletion_timestamp = o->metadata.deletion_timestamp;
		memcpy(&p->metadata.owner_references, &o->metadata.owner_references, sizeof o->metadata.owner_references);
		if (!p->status.qos_class.n)
			p->status.qos_class = o->status.qos_class.n ? o->status.qos_class : pod_qos_class(p);
		observed_generations(p, o);
		return;
	}
	if (!strcmp(sub, "ephemeralcontainers")) {
		struct core_v1_pod_spec keep = o->spec;

		memcpy(&keep.ephemeral_containers, &p->spec.ephemeral_containers, sizeof keep.ephemeral_containers);
		p->spec = keep;
		p->status = o->status;
		status_meta(&p->metadata, &o->metadata);
	} else if (!strcmp(sub, "resize") && p->spec.containers.n == o->spec.containers.n && p->spec.init_containers.n == o->spec.init_containers.n) {
		struct core_v1_pod_spec keep = o->spec;

		resized(rq->a, p->spec.containers.v, o->spec.containers.v, o->spec.containers.n, &keep.containers);
		resized(rq->a, p->spec.init_containers.v, o->spec.init_containers.v, o->spec.init_containers.n, &keep.init_containers);
		keep.resources = p->spec.resources;
		p->spec = keep;
		p->status = o->status;
		status_meta(&p->metadata, &o->metadata);
	}
	if (object_spec_changed(&core_v1_pod_type, obj, old, false))
		p->metadata.generation = o->metadata.generation + 1;
}

static bool pod_graceful(struct request *rq, const void *obj, int64_t *grace)
{
	const struct core_v1_pod *p = obj;

	(void)rq;
	if (*grace < 0)
		*grace = p->spec.termination_grace_period_seconds ? *p->spec.termination_grace_period_seconds : 0;
	if (!p->spec.node_name.n || str_eqz(p->status.phase, "Failed") || str_eqz(p->status.phase, "Succeeded"))
		*grace = 0;
	if (*grace < 0)
		*grace = 1;
	return true;
}

static const struct cache_field pod_fields[] = {
	{.name = STR_INIT("spec.nodeName")},
	{.name = STR_INIT("spec.restartPolicy")},
	{.name = STR_INIT("spec.schedulerName")},
	{.name = STR_INIT("spec.serviceAccountName")},
	{.name = STR_INIT("spec.hostNetwork"), .absent = STR_INIT("false")},
	{.name = STR_INIT("status.phase")},
	{.name = STR_INIT("status.podIP")},
	{.name = STR_INIT("status.podIPs"), .path = STR_INIT("status.podIP")},
	{.name = STR_INIT("status.nominatedNodeName")},
};
const struct strategy strategy_pods = {
	.checks_all = true, .meta_update = "UM*", .plural = STR_INIT("pods"), .generation = true, .return_deleted = true, .keep_status_on_create = true, .normalize = pod_normalize,
	.prepare_create = pod_create, .prepare_update = pod_update, .prepare_sub_update = pod_sub, .graceful_delete = pod_graceful,
	.fields = pod_fields, .n_fields = sizeof pod_fields / sizeof *pod_fields, .node_field = 1, 
	.validate = pod_validate, .validate_update = pod_validate_update, .validate_sub_update = pod_validate_sub, .warn = pod_warn,
};

/* ---- pod templates ---- */

static void template_normalize(struct arena *a, void *obj)
{
	pod_spec_normalize(a, &((struct core_v1_pod_template *)obj)->template.spec);
}

static void template_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	rule_pod_template(e, FIELD_ROOT("template"), &((const struct core_v1_pod_template *)obj)->template, NULL);
}

static void template_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	(void)rq;
	rule_pod_template(e, FIELD_ROOT("template"), &((const struct core_v1_pod_template *)obj)->template,
			  &((const struct core_v1_pod_template *)old)->template);
}

static void podtemplate_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_pod_template *t = obj, *o = old;

	if (!o || t->metadata.generation != o->metadata.generation)
		template_warn(rq, FIELD_ROOT("template"), &t->template);
}

const struct strategy strategy_podtemplates = {
	.plural = STR_INIT("podtemplates"), .checks_all = true, .generation = true, .return_deleted = true, .normalize = template_normalize,
	.validate = template_validate,
	.validate_update = template_validate_update, .warn = podtemplate_warn,
};
