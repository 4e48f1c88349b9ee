/* Subresources with rules of their own: binding, eviction, tokens; leases of events. */
#include "apiserver/admission.h"
#include "apiserver/authn.h"
#include "apiserver/server.h"

/* ---- events vanish ---- */

#define LEASE_REUSE_MS 60000 /* events of one minute share a lease, as upstream's lease manager does */

struct error *event_lease(struct apiserver *s, int64_t ttl_ms, int64_t *lease)
{
	static int64_t id, until;

	(void)s;
	if (!id || now_ms() > until) {
		TRY(store_lease_grant(s->store, ttl_ms + LEASE_REUSE_MS, &id));
		until = now_ms() + LEASE_REUSE_MS;
	}
	*lease = id;
	return NULL;
}

static struct error *decode(struct request *rq, const struct schema_type *t, const char *kind, void *out)
{
	enum media_type media;
	struct str body;
	struct error *e;

	TRY(negotiate_body(rq->a, http_header_get(&rq->x->headers, "content-type"), &media));
	TRY(http_body_all(rq->x, 3 << 20, &body));
	e = object_decode(rq->a, media, t, body, NULL, out);
	if (e) {
		struct error *w = err_bad_request("the body cannot be handled as a %s: %s", kind, error_message(e));

		error_free(e);
		return w;
	}
	rq->dry_run = str_eqz(query_get(&rq->q, "dryRun"), "All");
	return NULL;
}

/* ---- binding ---- */

static struct error *make_bound(void *ctx, struct request *rq, const void *old, void **out)
{
	struct core_v1_binding *b = ctx;
	struct core_v1_pod *pod = arena_new(rq->a, struct core_v1_pod);
	struct core_v1_pod_condition *c = NULL;

	object_copy(rq->a, &core_v1_pod_type, old, pod);
	*out = pod;
	if (pod->metadata.deletion_timestamp)
		return err_conflict(STR(""), STR("pods/binding"), pod->metadata.name,
				    arena_printf(rq->a, "pod %.*s is being deleted, cannot be assigned to a host", STR_ARG(pod->metadata.name)).p);
	if (pod->spec.node_name.n)
		return err_conflict(STR(""), STR("pods/binding"), pod->metadata.name,
				    arena_printf(rq->a, "pod %.*s is already assigned to node \"%.*s\"", STR_ARG(pod->metadata.name),
						 STR_ARG(pod->spec.node_name)).p);
	if (pod->spec.scheduling_gates.n)
		return err_conflict(STR(""), STR("pods/binding"), pod->metadata.name,
				    arena_printf(rq->a, "pod %.*s has non-empty .spec.schedulingGates", STR_ARG(pod->metadata.name)).p);
	pod->spec.node_name = b->target.name;
	for (uint32_t i = 0; i < b->metadata.annotations.n; i++)
		str_map_set(rq->a, API_MAP(&pod->metadata.annotations), b->metadata.annotations.v[i].key, b->metadata.annotations.v[i].value);
	for (uint32_t i = 0; i < b->metadata.labels.n; i++)
		if (!str_map_has(API_MAP(&pod->metadata.labels), b->metadata.labels.v[i].key))
			str_map_set(rq->a, API_MAP(&pod->metadata.labels), b->metadata.labels.v[i].key, b->metadata.labels.v[i].value);
	for (uint32_t i = 0; i < pod->status.conditions.n; i++)
		if (str_eqz(pod->status.conditions.v[i].type, "PodScheduled"))
			c = &pod->status.conditions.v[i];
	if (!c) {
		c = arena_push(rq->a, &pod->status.conditions);
		c->type = STR("PodScheduled");
	}
	if (!str_eqz(c->status, "True"))
		c->last_transition_time = time_now();
	c->status = STR("True");
	c->reason = c->message = STR_NULL;
	c->observed_generation = pod->metadata.generation;
	pod->metadata.resource_version = STR_NULL;
	return NULL;
}

static struct error *binding(struct request *rq, struct str name)
{
	struct core_v1_binding *b = arena_new(rq->a, struct core_v1_binding);
	struct resource *pods = resource_find(rq->s, STR(""), STR("v1"), STR("pods"));
	struct field_errors fe = {.arena = rq->a};
	static const struct str kinds[] = {STR_INIT("Node"), STR_INIT("<empty>")};
	struct write_result r;
	struct update u = {.make = make_bound, .ctx = b, .sub = "binding", .retry = true, .flags = UPDATE_NO_ADMISSION | UPDATE_UNCONDITIONAL};
	struct meta_v1_status ok = {.kind = STR("Status"), .api_version = STR("v1"), .status = STR("Success"), .code = 201};

	TRY(decode(rq, &core_v1_binding_type, "Binding", b));
	if (!name.n)
		name = b->metadata.name;
	if (b->metadata.name.n && !str_eq(b->metadata.name, name))
		return err_bad_request("the name of the object (%.*s) does not match the name on the URL (%.*s)", STR_ARG(b->metadata.name),
				       STR_ARG(name));
	if (b->target.kind.n && !str_eqz(b->target.kind, "Node"))
		field_not_supported(&fe, FIELD_CHILD(FIELD_ROOT("target"), "kind"), b->target.kind, kinds, 2);
	if (!b->target.name.n)
		field_required(&fe, FIELD_CHILD(FIELD_ROOT("target"), "name"), "");
	TRY(field_errors_status(&fe, STR(""), STR("Binding"), name));
	topology_labels(rq, b->target.name, API_MAP(&b->metadata.labels));
	rq->res = pods;
	u.uid = b->metadata.uid;
	rq->manager = STR("kube-scheduler");
	TRY(registry_update(rq, rq->info.ns, name, &u, &r));
	cache_entry_unref(r.entry);
	return respond_struct(rq, 201, &meta_v1_status_type, &ok);
}

/* ---- eviction (policy/v1), guarded by PodDisruptionBudgets ---- */

static bool pod_ready(const struct core_v1_pod *p)
{
	for (uint32_t i = 0; i < p->status.conditions.n; i++)
		if (str_eqz(p->status.conditions.v[i].type, "Ready"))
			return str_eqz(p->status.conditions.v[i].status, "True");
	return false;
}

static struct error *make_disrupted(void *ctx, struct request *rq, const void *old, void **out)
{
	struct core_v1_pod *pod = ctx;
	struct policy_v1_pod_disruption_budget *b = arena_new(rq->a, struct policy_v1_pod_disruption_budget);
	struct time_pair *t;
	struct error *e;

	object_copy(rq->a, &policy_v1_pod_disruption_budget_type, old, b);
	if (b->status.observed_generation < b->metadata.generation) {
		e = err_too_many(0, "Cannot evict pod as it would violate the pod's disruption budget.");
		error_add_cause(e, "DisruptionBudget", "", "The disruption budget %.*s is still being processed by the server.",
				STR_ARG(b->metadata.name));
		return e;
	}
	if (b->status.disruptions_allowed < 0)
		return err_forbidden(STR("policy"), STR("poddisruptionbudget"), b->metadata.name, "pdb disruptions allowed is negative");
	if (b->status.disruptions_allowed == 0) {
		e = err_too_many(0, "Cannot evict pod as it would violate the pod's disruption budget.");
		error_add_cause(e, "DisruptionBudget", "", "The disruption budget %.*s needs %d healthy pods and has %d currently",
				STR_ARG(b->metadata.name), b->status.desired_healthy, b->status.current_healthy);
		return e;
	}
	if (b->status.disrupted_pods.n > 2000)
		return err_forbidden(STR("policy"), STR("poddisruptionbudget"), b->metadata.name, "DisruptedPods map too big - too many evictions not "
				     "confirmed by PDB controller");
	b->status.disruptions_allowed--;
	t = (struct time_pair *)(void *)arena_push(rq->a, &b->status.disrupted_pods);
	t->key = pod->metadata.name;
	t->value = time_now();
	b->metadata.resource_version = STR_NULL;
	*out = b;
	return NULL;
}

static struct error *check_budgets(struct request *rq, struct core_v1_pod *pod, bool dry_run)
{
	struct resource *pdbs = resource_any(rq->s, STR("policy"), STR("poddisruptionbudgets")), *was = rq->res;
	struct policy_v1_pod_disruption_budget *match = NULL;
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	size_t n = 0;
	struct update u = {.make = make_disrupted, .ctx = pod, .sub = "status", .retry = true, .flags = UPDATE_NO_ADMISSION};
	struct write_result r;
	struct error *e = NULL;
	bool internal = rq->internal;

	if (str_eqz(pod->status.phase, "Succeeded") || str_eqz(pod->status.phase, "Failed") || str_eqz(pod->status.phase, "Pending") ||
	    pod->metadata.deletion_timestamp)
		return NULL;
	TRY(cache_snapshot(pdbs->st->cache, CACHE_CONSISTENT, 0, &snap));
	cache_iter_init(&it, pdbs->st->cache, snap, pod->metadata.namespace, STR_NULL, NULL);
	while ((en = cache_iter_next(&it)) != NULL) {
		struct policy_v1_pod_disruption_budget *b = arena_new(rq->a, struct policy_v1_pod_disruption_budget);
		const struct selector *sel;

		e = cache_entry_decode(rq->a, &policy_v1_pod_disruption_budget_type, en, true, b);
		if (!e && b->spec.selector)
			e = label_selector_from(rq->a, b->spec.selector, &sel);
		if (e)
			break;
		if (b->spec.selector && selector_matches(sel, API_MAP(&pod->metadata.labels))) {
			match = b;
			n++;
		}
	}
	cache_snap_free(snap);
	TRY(e);
	if (n > 1)
		return err_internal("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.");
	if (!match)
		return NULL;
	/* pods that are not ready may go without a budget when enough others are healthy, or always by policy */
	if (!pod_ready(pod)) {
		if (match->spec.unhealthy_pod_eviction_policy && str_eqz(*match->spec.unhealthy_pod_eviction_policy, "AlwaysAllow"))
			return NULL;
		if (match->status.current_healthy >= match->status.desired_healthy && match->status.desired_healthy > 0)
			return NULL;
	}
	if (dry_run)
		return NULL;
	rq->res = pdbs;
	rq->internal = true;
	e = registry_update(rq, pod->metadata.namespace, match->metadata.name, &u, &r);
	if (!e)
		cache_entry_unref(r.entry);
	rq->res = was;
	rq->internal = internal;
	return e;
}

static struct error *eviction(struct request *rq)
{
	struct policy_v1_eviction *ev = arena_new(rq->a, struct policy_v1_eviction);
	struct meta_v1_delete_options none = {0}, *o = &none;
	struct meta_v1_status ok = {.kind = STR("Status"), .api_version = STR("v1"), .status = STR("Success"), .code = 201};
	struct core_v1_pod *pod;
	struct write_result r;
	void *obj;

	TRY(decode(rq, &policy_v1_eviction_type, "Eviction", ev));
	if (ev->metadata.name.n && !str_eq(ev->metadata.name, rq->info.name))
		return err_bad_request("name in URL does not match name in Eviction object");
	if (ev->delete_options)
		o = ev->delete_options;
	if (o->dry_run.n)
		rq->dry_run = true;
	TRY(registry_get(rq, rq->info.ns, rq->info.name, &obj));
	pod = obj;
	TRY(check_budgets(rq, pod, rq->dry_run));
	TRY(registry_delete(rq, rq->info.ns, rq->info.name, o, &r));
	return respond_struct(rq, 201, &meta_v1_status_type, &ok);
}

/* ---- component statuses: what upstream still answers ---- */

static struct error *component_statuses(struct request *rq)
{
	int64_t rev;
	struct error *e = store_current(rq->s->store, &rev);
	bool healthy = e == NULL;
	struct core_v1_component_status *c = arena_new(rq->a, struct core_v1_component_status);
	struct core_v1_component_condition *cond = arena_push(rq->a, &c->conditions);

	error_free(e);
	request_warn(rq, "v1 ComponentStatus is deprecated in v1.19+");
	c->kind = STR("ComponentStatus");
	c->api_version = STR("v1");
	c->metadata.name = STR("etcd-0");
	cond->type = STR("Healthy");
	cond->status = healthy ? STR("True") : STR("False");
	cond->message = healthy ? STR("ok") : STR("the store does not answer");
	rq->out.as = ANSWER_OBJECT;
	if (str_eqz(rq->info.verb, "get")) {
		if (!str_eqz(rq->info.name, "etcd-0"))
			return err_not_found(STR(""), STR("componentstatuses"), rq->info.name);
		return respond_struct(rq, 200, &core_v1_component_status_type, c);
	}
	struct core_v1_component_status_list list = {.kind = STR("ComponentStatusList"), .api_version = STR("v1")};

	*arena_push(rq->a, &list.items) = *c;
	return respond_struct(rq, 200, &core_v1_component_status_list_type, &list);
}

struct error *rest_special(struct request *rq, bool *handled)
{
	bool core = rq->info.group.n == 0;
	struct str r = rq->info.resource, sub = rq->info.subresource;

	*handled = true;
	if (core && str_eqz(r, "pods") && str_eqz(sub, "binding"))
		return binding(rq, rq->info.name);
	if (core && str_eqz(r, "bindings"))
		return binding(rq, STR_NULL);
	if (core && str_eqz(r, "pods") && str_eqz(sub, "eviction"))
		return eviction(rq);
	if (core && str_eqz(r, "serviceaccounts") && str_eqz(sub, "token"))
		return rest_token_request(rq);
	if (core && str_eqz(r, "componentstatuses"))
		return component_statuses(rq);
	*handled = false;
	return NULL;
}
