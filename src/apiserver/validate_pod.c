/* Pods: create, and what an update of each subresource may change. */
#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

static const char mirror_key[] = "kubernetes.io/config.mirror";

static void metadata_and_spec(struct field_errors *e, const struct core_v1_pod *p, const struct pod_options *o)
{
	const struct field_path *spec = FIELD_ROOT("spec");

	rule_pod_annotations(e, AT(FIELD_ROOT("metadata"), "annotations"), API_MAP(&p->metadata.annotations), &p->spec, o);
	rule_pod_spec(e, spec, &p->spec, &p->metadata, o);
	for (uint32_t i = 0; !p->spec.service_account_name.n && i < p->spec.volumes.n; i++) {
		const struct core_v1_projected_volume_source *v = p->spec.volumes.v[i].volume_source.projected;
		const struct field_path *at = AT(EL(AT(spec, "volumes"), i), "projected");

		for (uint32_t k = 0; v && k < v->sources.n; k++)
			if (v->sources.v[k].service_account_token)
				field_forbidden(e, AT(EL(AT(at, "sources"), k), "serviceAccountToken"),
						"must not be specified when serviceAccountName is not set");
	}
	rule_pod_images(e, spec, &p->spec);
}

void pod_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_pod *p = obj;
	const struct field_path *spec = FIELD_ROOT("spec");
	struct pod_options o = {.is_pod = true};

	metadata_and_spec(e, p, &o);
	if (p->spec.ephemeral_containers.n && !rq->internal)
		field_forbidden(e, AT(spec, "ephemeralContainers"), "cannot be set on create");
	if (p->spec.scheduling_gates.n && p->spec.node_name.n)
		field_forbidden(e, AT(spec, "nodeName"), "cannot be set until all schedulingGates have been cleared");
	rule_annotations_match_fields(e, spec, API_MAP(&p->metadata.annotations), &p->spec);
}

/* ---- update ---- */

static void annotation_updates(struct field_errors *e, const struct core_v1_pod *p, const struct core_v1_pod *o, const struct pod_options *opt)
{
	static const struct str armor = STR_INIT("container.apparmor.security.beta.kubernetes.io/");
	const struct field_path *at = AT(FIELD_ROOT("metadata"), "annotations");
	const struct str_map *now = API_MAP(&p->metadata.annotations), *was = API_MAP(&o->metadata.annotations);

	for (uint32_t i = 0; i < was->n; i++) {
		struct str k = was->v[i].key;

		if (str_map_has(now, k) && str_eq(str_map_get(now, k), was->v[i].value))
			continue;
		if (str_has_prefix(k, armor))
			field_forbidden(e, KEY(at, k), "may not remove or update AppArmor annotations");
		if (str_eqz(k, mirror_key))
			field_forbidden(e, KEY(at, k), "may not remove or update mirror pod annotation");
	}
	for (uint32_t i = 0; i < now->n; i++) {
		struct str k = now->v[i].key;

		if (str_map_has(was, k))
			continue;
		if (str_has_prefix(k, armor))
			field_forbidden(e, KEY(at, k), "may not add AppArmor annotations");
		if (str_eqz(k, mirror_key))
			field_forbidden(e, KEY(at, k), "may not add mirror pod annotation");
	}
	rule_pod_annotations(e, at, now, &p->spec, opt);
}

/* Whether the lists can be compared one by one. */
static bool same_containers(struct field_errors *e, const struct field_path *p, const struct core_v1_container *c, uint32_t n, uint32_t was)
{
	if (n != was) {
		field_forbidden(e, p, "pod updates may not add or remove containers");
		return false;
	}
	for (uint32_t i = 0; i < n; i++) {
		rule_required(e, AT(EL(p, i), "image"), c[i].image);
		if (str_trim(c[i].image).n != c[i].image.n)
			field_invalid(e, AT(EL(p, i), "image"), c[i].image, "must not have leading or trailing whitespace");
	}
	return true;
}

/* Whether it makes sense to go on. */
static bool deadline(struct field_errors *e, const struct field_path *p, const int64_t *now, const int64_t *was)
{
	if (!now && was)
		field_invalid_raw(e, p, STR("null"), "must not update from a positive integer to nil value");
	if (!now)
		return true;
	if (*now < 0 || *now > INT32_MAX) {
		rule_range(e, p, *now, 0, INT32_MAX);
		return false;
	}
	if (was && *was < *now) {
		field_invalid_int(e, p, *now, "must be less than or equal to previous value");
		return false;
	}
	return true;
}

static void only_added_tolerations(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *now,
				   const struct core_v1_pod_spec *was, const struct pod_options *o)
{
	for (uint32_t i = 0; i < was->tolerations.n; i++) {
		bool found = false;

		for (uint32_t k = 0; k < now->tolerations.n && !found; k++) {
			struct core_v1_toleration t = was->tolerations.v[i];

			t.toleration_seconds = now->tolerations.v[k].toleration_seconds;
			found = object_equal(&core_v1_toleration_type, &t, &now->tolerations.v[k]);
		}
		if (!found) {
			field_forbidden(e, p, "existing toleration can not be modified except its tolerationSeconds");
			return;
		}
	}
	rule_tolerations(e, p, now->tolerations.v, now->tolerations.n, o->toleration_comparison);
}

static void only_deleted_gates(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *now,
			       const struct core_v1_pod_spec *was)
{
	for (uint32_t i = 0; i < now->scheduling_gates.n; i++) {
		struct str name = now->scheduling_gates.v[i].name;
		bool old = false;

		for (uint32_t k = 0; k < was->scheduling_gates.n; k++)
			old |= str_eq(was->scheduling_gates.v[k].name, name);
		if (!old)
			field_forbidden(e, AT(EL(p, i), "name"), "only deletion is allowed, but found new scheduling gate '%.*s'", STR_ARG(name));
	}
}

static bool requirements_added(const struct core_v1_node_selector_requirement *now, uint32_t n, const struct core_v1_node_selector_requirement *was,
			       uint32_t n_was)
{
	if (n < n_was)
		return false;
	for (uint32_t i = 0; i < n_was; i++)
		if (!object_equal(&core_v1_node_selector_requirement_type, &now[i], &was[i]))
			return false;
	return true;
}

static void affinity_narrowed(struct field_errors *e, const struct field_path *p, const struct core_v1_node_affinity *now,
			      const struct core_v1_node_affinity *was)
{
	const struct core_v1_node_selector *a = now ? now->required_during_scheduling_ignored_during_execution : NULL,
					   *b = was ? was->required_during_scheduling_ignored_during_execution : NULL;
	const struct field_path *terms = AT(AT(p, "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms");

	if (!b)
		return;
	if (b->node_selector_terms.n && (!a || a->node_selector_terms.n != b->node_selector_terms.n)) {
		field_invalid_raw(e, terms, a ? field_json(e->arena, &core_v1_node_selector_type, a, STR("nodeSelectorTerms")) : STR("null"),
				  "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
		return;
	}
	for (uint32_t i = 0; i < b->node_selector_terms.n; i++) {
		const struct core_v1_node_selector_term *x = &a->node_selector_terms.v[i], *y = &b->node_selector_terms.v[i];
		bool was_empty = !y->match_expressions.n && !y->match_fields.n, is_empty = !x->match_expressions.n && !x->match_fields.n;

		if ((was_empty && !is_empty) ||
		    !requirements_added(x->match_expressions.v, x->match_expressions.n, y->match_expressions.v, y->match_expressions.n) ||
		    !requirements_added(x->match_fields.v, x->match_fields.n, y->match_fields.v, y->match_fields.n))
			field_invalid_obj(e, EL(terms, i), &core_v1_node_selector_term_type, x,
					  "only additions are allowed (no mutations or deletions)");
	}
}

/* A pod that waits behind gates may still be narrowed: *x gets back what was narrowed rightly. */
static void gated_changes(struct field_errors *e, struct core_v1_pod_spec *x, const struct core_v1_pod_spec *was)
{
	const struct field_path *spec = FIELD_ROOT("spec");
	const struct core_v1_node_affinity *na = x->affinity ? x->affinity->node_affinity : NULL,
					   *old = was->affinity ? was->affinity->node_affinity : NULL;
	static const struct core_v1_node_affinity none;

	for (uint32_t i = 0; i < was->node_selector.n; i++)
		if (!str_eq(str_map_get(API_MAP(&x->node_selector), was->node_selector.v[i].key), was->node_selector.v[i].value)) {
			field_invalid_map(e, AT(spec, "nodeSelector"), API_MAP(&x->node_selector),
					  "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
			break;
		}
	memcpy(&x->node_selector, &was->node_selector, sizeof x->node_selector);
	if (!na == !old && object_equal(&core_v1_node_affinity_type, na ? na : &none, old ? old : &none))
		return;
	affinity_narrowed(e, AT(AT(spec, "affinity"), "nodeAffinity"), na, old);
	if (x->affinity && !was->affinity && !x->affinity->pod_affinity && !x->affinity->pod_anti_affinity) {
		x->affinity = NULL;
	} else if (x->affinity || old) {
		struct core_v1_affinity *a = arena_new(e->arena, struct core_v1_affinity);

		if (x->affinity)
			*a = *x->affinity;
		a->node_affinity = (struct core_v1_node_affinity *)(uintptr_t)old;
		x->affinity = a;
	}
}

static void copy_images(struct arena *a, struct core_v1_pod_spec *x, const struct core_v1_pod_spec *was)
{
	LIST(struct core_v1_container) main = {0}, init = {0};

	for (uint32_t i = 0; i < x->containers.n; i++) {
		struct core_v1_container *c = arena_push(a, &main);

		*c = x->containers.v[i];
		c->image = was->containers.v[i].image;
	}
	for (uint32_t i = 0; i < x->init_containers.n; i++) {
		struct core_v1_container *c = arena_push(a, &init);

		*c = x->init_containers.v[i];
		c->image = was->init_containers.v[i].image;
	}
	memcpy(&x->containers, &main, sizeof x->containers);
	memcpy(&x->init_containers, &init, sizeof x->init_containers);
}

void pod_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_pod *p = obj, *o = old;
	const struct field_path *spec = FIELD_ROOT("spec");
	struct pod_options opt = pod_options_from(e->arena, &o->spec, &o->metadata);
	struct core_v1_pod_spec x = p->spec;

	(void)rq;
	opt.is_pod = true;
	metadata_and_spec(e, p, &opt);
	annotation_updates(e, p, o, &opt);
	if (!same_containers(e, AT(spec, "containers"), p->spec.containers.v, p->spec.containers.n, o->spec.containers.n) ||
	    !same_containers(e, AT(spec, "initContainers"), p->spec.init_containers.v, p->spec.init_containers.n, o->spec.init_containers.n) ||
	    !deadline(e, AT(spec, "activeDeadlineSeconds"), p->spec.active_deadline_seconds, o->spec.active_deadline_seconds))
		return;
	only_added_tolerations(e, AT(spec, "tolerations"), &p->spec, &o->spec, &opt);
	only_deleted_gates(e, AT(spec, "schedulingGates"), &p->spec, &o->spec);
	/* with what may change set back, nothing may have changed */
	copy_images(e->arena, &x, &o->spec);
	x.active_deadline_seconds = o->spec.active_deadline_seconds;
	memcpy(&x.tolerations, &o->spec.tolerations, sizeof x.tolerations);
	memcpy(&x.scheduling_gates, &o->spec.scheduling_gates, sizeof x.scheduling_gates);
	if (o->spec.termination_grace_period_seconds && *o->spec.termination_grace_period_seconds < 0 && x.termination_grace_period_seconds &&
	    *x.termination_grace_period_seconds == 1)
		x.termination_grace_period_seconds = o->spec.termination_grace_period_seconds;
	if (o->spec.scheduling_gates.n)
		gated_changes(e, &x, &o->spec);
	if (!object_equal(&core_v1_pod_spec_type, &x, &o->spec))
		field_forbidden(e, spec, "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
				"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
				"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n");
}

/* ---- ephemeral containers ---- */

static void ephemeral_update(struct field_errors *e, const struct core_v1_pod *p, const struct core_v1_pod *o, const struct pod_options *opt)
{
	const struct field_path *at = AT(FIELD_ROOT("spec"), "ephemeralContainers");

	if (str_map_has(API_MAP(&o->metadata.annotations), str_from(mirror_key))) {
		field_forbidden(e, FIELD_ROOT("[]"), "static pods do not support ephemeral containers");
		return;
	}
	metadata_and_spec(e, p, opt);
	annotation_updates(e, p, o, opt);
	for (uint32_t i = 0; i < o->spec.ephemeral_containers.n; i++) {
		const struct core_v1_ephemeral_container *was = &o->spec.ephemeral_containers.v[i], *now = NULL;
		struct str name = was->ephemeral_container_common.name;

		for (uint32_t k = 0; k < p->spec.ephemeral_containers.n; k++)
			if (str_eq(p->spec.ephemeral_containers.v[k].ephemeral_container_common.name, name))
				now = &p->spec.ephemeral_containers.v[k];
		if (!now)
			field_forbidden(e, at, "existing ephemeral containers \"%.*s\" may not be removed\n", STR_ARG(name));
		else if (!object_equal(&core_v1_ephemeral_container_type, now, was))
			field_forbidden(e, at, "existing ephemeral containers \"%.*s\" may not be changed\n", STR_ARG(name));
	}
}

/* ---- resize ---- */

static bool resource_taken_away(const struct str_map *now, const struct str_map *was)
{
	for (uint32_t i = 0; i < was->n; i++)
		if (!str_map_has(now, was->v[i].key))
			return true;
	return was->n > now->n;
}

static void nothing_taken_away(struct field_errors *e, const struct field_path *p, const struct core_v1_resource_requirements *now,
			       const struct core_v1_resource_requirements *was, const char *prefix)
{
	if (resource_taken_away(API_MAP(&now->requests), API_MAP(&was->requests)))
		field_forbidden(e, AT(p, "requests"), "%sresource requests cannot be removed", prefix);
	if (resource_taken_away(API_MAP(&now->limits), API_MAP(&was->limits)))
		field_forbidden(e, AT(p, "limits"), "%sresource limits cannot be removed", prefix);
}

/* `now` with cpu and memory as they were. */
static struct str_map compute_restored(struct arena *a, const struct str_map *now, const struct str_map *was)
{
	static const char *const names[] = {"cpu", "memory"};
	struct str_map m = {0};

	for (uint32_t i = 0; i < now->n; i++)
		if (!str_eqz(now->v[i].key, "cpu") && !str_eqz(now->v[i].key, "memory"))
			str_map_set(a, &m, now->v[i].key, now->v[i].value);
	for (int i = 0; i < 2; i++)
		if (str_map_has(was, str_from(names[i])))
			str_map_set(a, &m, str_from(names[i]), str_map_get(was, str_from(names[i])));
	return m;
}

static void restore_compute(struct arena *a, struct core_v1_resource_requirements *r, const struct core_v1_resource_requirements *was)
{
	struct str_map l = compute_restored(a, API_MAP(&r->limits), API_MAP(&was->limits)),
		       q = compute_restored(a, API_MAP(&r->requests), API_MAP(&was->requests));

	memcpy(&r->limits, &l, sizeof l);
	memcpy(&r->requests, &q, sizeof q);
}

static bool resize_supported(const struct core_v1_pod *p)
{
	for (uint32_t i = 0; i < p->status.container_statuses.n; i++)
		if (p->status.container_statuses.v[i].state.running)
			return p->status.container_statuses.v[i].resources != NULL;
	return true;
}

static bool same_order(struct field_errors *e, const struct field_path *p, const struct core_v1_container *now, uint32_t n,
		       const struct core_v1_container *was, uint32_t n_was, const char *what)
{
	bool same = true;

	if (n != n_was) {
		field_forbidden(e, p, "%s may not be added or removed on resize", what);
		return false;
	}
	for (uint32_t i = 0; i < n; i++)
		if (!str_eq(now[i].name, was[i].name)) {
			field_forbidden(e, AT(EL(p, i), "name"), "%s may not be renamed or reordered on resize", what);
			same = false;
		}
	return same;
}

static void resize_update(struct field_errors *e, const struct core_v1_pod *p, const struct core_v1_pod *o, const struct pod_options *opt)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *inits = AT(spec, "initContainers");
	const struct core_v1_resource_requirements none = {0}, *now = p->spec.resources, *was = o->spec.resources;
	struct core_v1_pod_spec x = p->spec;
	bool ordered, changed = false;

	if (str_map_has(API_MAP(&o->metadata.annotations), str_from(mirror_key))) {
		field_forbidden(e, FIELD_ROOT(""), "static pods cannot be resized");
		return;
	}
	if (o->spec.os && str_eqz(o->spec.os->name, "windows")) {
		field_forbidden(e, FIELD_ROOT("[]"), "windows pods cannot be resized");
		return;
	}
	metadata_and_spec(e, p, opt);
	if (!str_eq(o->status.qos_class.n ? o->status.qos_class : pod_qos_class(o), pod_qos_class(p)))
		field_invalid(e, spec, p->status.qos_class, "Pod QOS Class may not change as a result of resizing");
	if (!resize_supported(o))
		field_forbidden(e, spec, "Pod running on node without support for resize");
	if ((was && was->requests.n + was->limits.n) || (now && now->requests.n + now->limits.n)) {
		if (was && !now) {
			field_forbidden(e, AT(spec, "resources"), "pod-level resources cannot be removed");
		} else {
			struct core_v1_resource_requirements *r = arena_new(e->arena, struct core_v1_resource_requirements);

			if (was)
				nothing_taken_away(e, AT(spec, "resources"), now, was, "pod-level ");
			*r = *now;
			restore_compute(e->arena, r, was ? was : &none);
			x.resources = !was && !r->limits.n && !r->requests.n && !r->claims.n ? NULL : r;
			if (!x.resources != !was || (was && !object_equal(&core_v1_resource_requirements_type, x.resources, was)))
				field_forbidden(e, spec, "only cpu and memory resources are mutable at pod-level");
		}
	}
	ordered = same_order(e, AT(spec, "containers"), p->spec.containers.v, p->spec.containers.n, o->spec.containers.v, o->spec.containers.n,
			     "containers");
	ordered &= same_order(e, inits, p->spec.init_containers.v, p->spec.init_containers.n, o->spec.init_containers.v, o->spec.init_containers.n,
			      "initContainers");
	if (!ordered)
		return;
	for (uint32_t i = 0; i < o->spec.init_containers.n; i++)
		nothing_taken_away(e, AT(EL(inits, i), "resources"), &p->spec.init_containers.v[i].resources, &o->spec.init_containers.v[i].resources,
				   "");
	for (uint32_t i = 0; i < o->spec.containers.n; i++)
		nothing_taken_away(e, AT(EL(AT(spec, "containers"), i), "resources"), &p->spec.containers.v[i].resources,
				   &o->spec.containers.v[i].resources, "");
	for (uint32_t i = 0; i < o->spec.containers.n; i++) {
		struct core_v1_container c = p->spec.containers.v[i];

		restore_compute(e->arena, &c.resources, &o->spec.containers.v[i].resources);
		memset(&c.resources.claims, 0, sizeof c.resources.claims);
		if (!object_equal(&core_v1_container_type, &c, &o->spec.containers.v[i])) {
			field_forbidden(e, spec, "only cpu and memory resources are mutable");
			changed = true;
		}
	}
	for (uint32_t i = 0; i < o->spec.init_containers.n; i++) {
		struct core_v1_container c = p->spec.init_containers.v[i];
		bool modified = !object_equal(&core_v1_container_type, &c, &o->spec.init_containers.v[i]);

		restore_compute(e->arena, &c.resources, &o->spec.init_containers.v[i].resources);
		memset(&c.resources.claims, 0, sizeof c.resources.claims);
		if (!object_equal(&core_v1_container_type, &c, &o->spec.init_containers.v[i])) {
			field_forbidden(e, EL(inits, i), "only cpu and memory resources for init or sidecar containers are mutable");
			changed = true;
		}
		for (uint32_t k = 0; modified && !ptr_is(c.restart_policy, "Always") && k < c.resize_policy.n; k++)
			if (str_eqz(c.resize_policy.v[k].restart_policy, "RestartContainer"))
				field_forbidden(e, EL(inits, i),
						"non-sidecar init containers with a resize policy of RestartContainer cannot be resized");
	}
	if (e->list.n || changed)
		return;
	memcpy(&x.containers, &o->spec.containers, sizeof x.containers);
	memcpy(&x.init_containers, &o->spec.init_containers, sizeof x.init_containers);
	if (!object_equal(&core_v1_pod_spec_type, &x, &o->spec))
		field_forbidden(e, spec, "only cpu and memory resources are mutable");
}

/* ---- status ---- */

/* Whether a container that ended with this code may run again. */
static bool may_restart(const struct core_v1_container *c, struct str pod_policy, int32_t code)
{
	struct str policy = c->restart_policy ? *c->restart_policy : pod_policy;

	for (uint32_t i = 0; i < c->restart_policy_rules.n; i++) {
		const struct core_v1_container_restart_rule_on_exit_codes *x = c->restart_policy_rules.v[i].exit_codes;
		bool in = false;

		for (uint32_t k = 0; x && k < x->values.n; k++)
			in |= x->values.v[k] == code;
		if (x && in == str_eqz(x->operator, "In"))
			return true;
	}
	return str_eqz(policy, "Always") || (str_eqz(policy, "OnFailure") && code);
}

static bool all_may_restart(const struct core_v1_pod_spec *s)
{
	POD_CONTAINERS(it, s, NULL)
		for (uint32_t i = 0; i < it.c->restart_policy_rules.n; i++)
			if (str_eqz(it.c->restart_policy_rules.v[i].action, "RestartAllContainers"))
				return true;
	return false;
}

static void transitions(struct field_errors *e, const struct field_path *p, const struct core_v1_container_status *now, uint32_t n,
			const struct core_v1_container_status *was, uint32_t n_was, const struct core_v1_container *containers, uint32_t n_containers,
			const struct core_v1_pod_spec *s)
{
	if (containers && all_may_restart(s))
		return;
	for (uint32_t i = 0; i < n_was; i++) {
		bool again = false, allowed = false;

		if (!was[i].state.terminated)
			continue;
		for (uint32_t k = 0; k < n; k++)
			again |= str_eq(now[k].name, was[i].name) && !now[k].state.terminated;
		for (uint32_t k = 0; again && k < n_containers; k++)
			if (str_eq(containers[k].name, was[i].name))
				allowed = may_restart(&containers[k], s->restart_policy, was[i].state.terminated->exit_code);
		if (again && !allowed)
			field_forbidden(e, AT(EL(p, i), "state"), "may not be transitioned to non-terminated state");
	}
}

static void addresses(struct field_errors *e, const struct field_path *p, const struct str *ips, uint32_t n, const struct str *old, uint32_t n_old)
{
	bool four = false, six = false;

	for (uint32_t i = 0; i < n; i++)
		rule_legacy_ip(e, EL(p, i), ips[i], old, n_old);
	if (n < 2)
		return;
	for (uint32_t i = 0; i < n; i++) {
		int family = ip_family(ips[i]);

		four |= family == 4;
		six |= family == 6;
		if (family)
			continue;
		field_internal(e, p, "failed to check for dual stack with error:invalid IP[%u]: %.*s", i, STR_ARG(ips[i]));
		four = six = false;
		break;
	}
	if (!four || !six || n > 2)
		field_invalid_raw(e, p, STR("[]"), "may specify no more than one IP for each IP family");
}

static void status_users(struct field_errors *e, const struct field_path *p, const struct core_v1_container_status *s, uint32_t n,
			 const struct core_v1_pod_os *os)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct core_v1_linux_container_user *u = s[i].user ? s[i].user->linux_ : NULL;
		const struct field_path *at = AT(AT(EL(p, i), "user"), "linux");

		if (!u)
			continue;
		if (os && str_eqz(os->name, "windows")) {
			field_forbidden(e, at, "cannot be set for a windows pod");
			continue;
		}
		rule_id(e, AT(at, "uid"), &u->uid);
		rule_id(e, AT(at, "gid"), &u->gid);
		for (uint32_t k = 0; k < u->supplemental_groups.n; k++)
			rule_id(e, EL(AT(at, "supplementalGroups"), k), &u->supplemental_groups.v[k]);
	}
}

#define HEALTH_MESSAGE_MAX 1024

static void allocated_health(struct field_errors *e, const struct field_path *p, const struct core_v1_resource_status *r)
{
	for (uint32_t k = 0; k < r->resources.n; k++) {
		const struct core_v1_resource_health *h = &r->resources.v[k];
		const struct field_path *at = EL(AT(p, "resources"), k);

		field_one_of(e, AT(at, "health"), h->health, "Healthy,Unhealthy,Unknown");
		if (h->message && !h->message->n)
			field_required(e, AT(at, "message"), "must be non-empty if specified");
		else if (h->message && h->message->n > HEALTH_MESSAGE_MAX)
			field_too_long(e, AT(at, "message"), HEALTH_MESSAGE_MAX);
		for (uint32_t j = 0; j < k; j++)
			if (str_eq(r->resources.v[j].resource_id, h->resource_id)) {
				field_duplicate(e, AT(at, "resourceID"), h->resource_id);
				break;
			}
	}
}

static void allocated_resources(struct field_errors *e, const struct field_path *p, const struct core_v1_container_status *s, uint32_t n,
				const struct core_v1_container *containers, uint32_t n_containers)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct core_v1_container *c = NULL;
		const struct field_path *list = AT(EL(p, i), "allocatedResourcesStatus");

		for (uint32_t k = 0; k < n_containers && !c; k++)
			if (str_eq(containers[k].name, s[i].name))
				c = &containers[k];
		for (uint32_t k = 0; k < s[i].allocated_resources_status.n; k++) {
			const struct core_v1_resource_status *r = &s[i].allocated_resources_status.v[k];
			bool claim = str_has_prefix(r->name, STR("claim:")), found = false;

			for (uint32_t j = 0; c && claim && j < c->resources.claims.n; j++) {
				const struct core_v1_resource_claim *rc = &c->resources.claims.v[j];

				found |= str_eq(r->name, arena_printf(e->arena, "claim:%.*s%s%.*s", STR_ARG(rc->name), rc->request.n ? "/" : "",
								      STR_ARG(rc->request)));
			}
			if (c && !claim)
				found = str_map_has(API_MAP(&c->resources.requests), r->name);
			if (c && !found)
				field_invalid(e, AT(EL(list, k), "name"), r->name, "%s",
					      claim ? "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or "
						      "'claim:<claimName>' if request is empty"
						    : "must match one of the container's resource requests");
			allocated_health(e, EL(list, k), r);
		}
	}
}

static void claim_statuses(struct field_errors *e, const struct field_path *p, const struct core_v1_pod *pod)
{
	for (uint32_t i = 0; i < pod->status.resource_claim_statuses.n; i++) {
		const struct core_v1_pod_resource_claim_status *s = &pod->status.resource_claim_statuses.v[i];
		const struct field_path *at = EL(p, i);
		bool known = false;

		for (uint32_t k = 0; k < pod->spec.resource_claims.n; k++)
			known |= str_eq(pod->spec.resource_claims.v[k].name, s->name);
		if (!known)
			field_invalid(e, AT(at, "name"), s->name, "must match the name of an entry in `spec.resourceClaims`");
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(pod->status.resource_claim_statuses.v[k].name, s->name)) {
				field_duplicate(e, AT(at, "name"), s->name);
				break;
			}
		if (s->resource_claim_name)
			field_check(e, AT(at, "resourceClaimName"), *s->resource_claim_name, validate_dns1123_subdomain);
	}
}

static void extended_claim(struct field_errors *e, const struct field_path *p, const struct core_v1_pod *pod)
{
	const struct core_v1_pod_extended_resource_claim_status *s = pod->status.extended_resource_claim_status;
	const struct field_path *maps = AT(p, "requestMappings");

	if (!s)
		return;
	if (!s->request_mappings.n)
		field_required(e, maps, "at least one request mapping is required");
	for (uint32_t i = 0; i < s->request_mappings.n; i++) {
		const struct core_v1_container_extended_resource_request *r = &s->request_mappings.v[i];
		const struct core_v1_container *c = NULL;
		const struct field_path *at = EL(maps, i);

		POD_CONTAINERS(it, &pod->spec, NULL)
			if (it.list < 2 && str_eq(it.c->name, r->container_name))
				c = it.c;
		if (!c)
			field_invalid(e, AT(at, "containerName"), r->container_name,
				      "must match the name of an entry in spec.initContainers.name or spec.containers.name");
		else if (!str_map_has(API_MAP(&c->resources.requests), r->resource_name))
			field_invalid(e, AT(at, "resourceName"), r->resource_name,
				      "must match the extended resource name of an entry in spec.initContainers.resources.requests or "
				      "spec.containers.resources.requests");
		field_check(e, AT(p, "requestName"), r->request_name, validate_dns1123_label);
		for (uint32_t k = 0; k < i; k++)
			if (object_equal(&core_v1_container_extended_resource_request_type, r, &s->request_mappings.v[k])) {
				field_duplicate(e, AT(at, "containerName"), r->container_name);
				field_duplicate(e, AT(at, "resourceName"), r->resource_name);
				field_duplicate(e, AT(at, "requestName"), r->request_name);
				break;
			}
	}
	rule_name(e, AT(p, "resourceClaimName"), s->resource_claim_name, validate_dns1123_subdomain);
}

static struct strings host_ip_list(struct arena *a, const struct core_v1_pod *p)
{
	struct strings l = {0};

	for (uint32_t i = 0; i < p->status.host_ips.n; i++)
		*arena_push(a, &l) = p->status.host_ips.v[i].ip;
	return l;
}

static struct strings pod_ip_list(struct arena *a, const struct core_v1_pod *p)
{
	struct strings l = {0};

	for (uint32_t i = 0; i < p->status.pod_ips.n; i++)
		*arena_push(a, &l) = p->status.pod_ips.v[i].ip;
	return l;
}

static void status_update(struct field_errors *e, const struct core_v1_pod *p, const struct core_v1_pod *o, const struct pod_options *opt)
{
	const struct field_path *st = FIELD_ROOT("status");
	const struct core_v1_pod_status *s = &p->status, *w = &o->status;
	struct strings now, was;

	annotation_updates(e, p, o, opt);
	for (uint32_t i = 0; i < s->conditions.n; i++) {
		const struct core_v1_pod_condition *c = &s->conditions.v[i];
		const struct field_path *at = EL(AT(st, "conditions"), i);

		if (c->observed_generation < 0)
			field_invalid_int(e, AT(at, "observedGeneration"), c->observed_generation, "must be a non-negative integer");
		field_check(e, AT(at, "Type"), c->type, validate_qualified_name);
	}
	if (!str_eq(s->nominated_node_name, w->nominated_node_name) && s->nominated_node_name.n) {
		field_check(e, AT(st, "nominatedNodeName"), s->nominated_node_name, validate_dns1123_subdomain);
		if (o->spec.node_name.n)
			field_forbidden(e, AT(st, "nominatedNodeName"), "may not be set on pods that are already bound to a node");
	}
	if (s->observed_generation < 0)
		field_invalid_int(e, AT(st, "observedGeneration"), s->observed_generation, "must be a non-negative integer");
	if (!str_eq(s->qos_class, w->qos_class))
		field_invalid(e, AT(st, "qosClass"), s->qos_class, "field is immutable");
	transitions(e, AT(st, "containerStatuses"), s->container_statuses.v, s->container_statuses.n, w->container_statuses.v,
		    w->container_statuses.n, o->spec.containers.v, o->spec.containers.n, &o->spec);
	transitions(e, AT(st, "initContainerStatuses"), s->init_container_statuses.v, s->init_container_statuses.n, w->init_container_statuses.v,
		    w->init_container_statuses.n, o->spec.init_containers.v, o->spec.init_containers.n, &o->spec);
	transitions(e, AT(st, "ephemeralContainerStatuses"), s->ephemeral_container_statuses.v, s->ephemeral_container_statuses.n,
		    w->ephemeral_container_statuses.v, w->ephemeral_container_statuses.n, NULL, 0, &o->spec);
	claim_statuses(e, AT(st, "resourceClaimStatuses"), p);
	extended_claim(e, AT(st, "extendedResourceClaimStatus"), p);
	now = pod_ip_list(e->arena, p);
	was = pod_ip_list(e->arena, o);
	addresses(e, AT(st, "podIPs"), now.v, now.n, was.v, was.n);
	now = host_ip_list(e->arena, p);
	was = host_ip_list(e->arena, o);
	if (now.n && !str_eq(s->host_ip, now.v[0]))
		field_invalid(e, AT(EL(AT(st, "hostIPs"), 0), "ip"), now.v[0], "must be equal to `hostIP`");
	addresses(e, AT(st, "hostIPs"), now.v, now.n, was.v, was.n);
	status_users(e, AT(st, "containerStatuses"), s->container_statuses.v, s->container_statuses.n, p->spec.os);
	status_users(e, AT(st, "initContainerStatuses"), s->init_container_statuses.v, s->init_container_statuses.n, p->spec.os);
	status_users(e, AT(st, "ephemeralContainerStatuses"), s->ephemeral_container_statuses.v, s->ephemeral_container_statuses.n, p->spec.os);
	allocated_resources(e, AT(st, "containerStatuses"), s->container_statuses.v, s->container_statuses.n, p->spec.containers.v,
			    p->spec.containers.n);
	allocated_resources(e, AT(st, "initContainerStatuses"), s->init_container_statuses.v, s->init_container_statuses.n, p->spec.init_containers.v,
			    p->spec.init_containers.n);
	for (uint32_t i = 0; i < s->ephemeral_container_statuses.n; i++)
		if (s->ephemeral_container_statuses.v[i].allocated_resources_status.n)
			field_forbidden(e, AT(EL(AT(st, "ephemeralContainerStatuses"), i), "allocatedResourcesStatus"),
					"must not be specified in container status");
}

void pod_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_pod *p = obj, *o = old;
	struct pod_options opt = pod_options_from(e->arena, &o->spec, &o->metadata);

	opt.is_pod = true;
	(void)rq;
	if (!strcmp(sub, "ephemeralcontainers"))
		ephemeral_update(e, p, o, &opt);
	else if (!strcmp(sub, "resize"))
		resize_update(e, p, o, &opt);
	else if (!strcmp(sub, "status"))
		status_update(e, p, o, &opt);
}
