/* Subresources with rules of their own: binding, eviction, tokens; leases of events. */
#include "apiserver/admission.h"
#include "apiserver/authn.h"
#include "apiserver/authz.h"
#include "apiserver/metrics.h"
#include "apiserver/server.h"

/* ---- events vanish ---- */

#define LEASE_OBJECTS_MAX 1000

/* Events of a minute share a lease, at most a twentieth of what they live, as with upstream's lease manager. */
struct error *event_lease(struct storage *st, int64_t *lease)
{
	int64_t reuse_s = st->ttl_ms / 1000 / 20, id;

	if (reuse_s > st->s->o.lease_reuse_s)
		reuse_s = st->s->o.lease_reuse_s;
	st->lease.objects++;
	if (!st->lease.id || now_ms() >= st->lease.until_ms || st->lease.objects > LEASE_OBJECTS_MAX) {
		TRY(store_lease_grant(st->store, st->ttl_ms + reuse_s * 1000, &id));
		st->lease.id = id;
		st->lease.until_ms = now_ms() + reuse_s * 1000;
		metrics_observe(METRIC_ETCD_LEASES, "", (double)st->lease.objects);
		st->lease.objects = 1;
	}
	*lease = st->lease.id;
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
	pod->status.nominated_node_name = STR_NULL;
	for (uint32_t i = 0; i < b->metadata.annotations.n; i++)
		str_map_set(rq->a, API_MAP(&pod->metadata.annotations), b->metadata.annotations.v[i].key, b->metadata.annotations.v[i].value);
	for (uint32_t i = 0; i < b->metadata.labels.n; i++)
		str_map_set(rq->a, API_MAP(&pod->metadata.labels), b->metadata.labels.v[i].key, b->metadata.labels.v[i].value);
	for (uint32_t i = 0; i < pod->status.conditions.n; i++)
		if (str_eqz(pod->status.conditions.v[i].type, "PodScheduled"))
			c = &pod->status.conditions.v[i];
	if (!c)
		c = arena_push(rq->a, &pod->status.conditions);
	*c = (struct core_v1_pod_condition){.type = STR("PodScheduled"), .status = STR("True"),
					    .last_transition_time = str_eqz(c->status, "True") ? c->last_transition_time : time_now()};
	pod->metadata.resource_version = STR_NULL;
	return NULL;
}

static struct error *binding(struct request *rq, struct str name)
{
	struct core_v1_binding *b;
	struct admission a;
	struct resource *pods = resource_any(rq->s, STR(""), STR("pods"));
	struct write_result r;
	/* apply: managedFields stay as they are */
	struct update u = {.make = make_bound, .sub = "binding", .retry = true, .apply = true, .flags = UPDATE_NO_ADMISSION | UPDATE_UNCONDITIONAL};
	struct meta_v1_status ok = {.kind = STR("Status"), .api_version = STR("v1"), .status = STR("Success"), .code = 201};

	TRY(rest_body(rq, "CreateOptions", &core_v1_binding_type, STR("Binding"), STR("v1"), (void **)&b));
	u.ctx = b;
	if (b->metadata.namespace.n && !str_eq(b->metadata.namespace, rq->info.ns))
		return err_bad_request("the namespace of the provided object does not match the namespace sent on the request");
	if (!name.n)
		name = b->metadata.name;
	b->metadata.namespace = rq->info.ns;
	TRY(review_manage_fields(rq, &core_v1_binding_type, b));
	if (b->target.name.n)
		topology_labels(rq, b->target.name, API_MAP(&b->metadata.labels));
	TRY(admission_admit_body(&a, rq, &core_v1_binding_type, name, b, NULL));
	if (!str_eq(b->metadata.name, name))
		return err_bad_request("name in URL does not match name in Binding object");
	if (!name.n)
		return err_bad_request("name is required");
	/* upstream makes no 422 of these */
	if (b->target.kind.n && !str_eqz(b->target.kind, "Node"))
		return error_status(500, "", "target.kind: Unsupported value: \"%.*s\": supported values: \"Node\", \"<empty>\"",
				    STR_ARG(b->target.kind));
	if (!b->target.name.n)
		return error_status(500, "", "target.name: Required value");
	TRY(admission_validate(&a));
	rq->res = pods;
	u.uid = b->metadata.uid;
	u.rv = b->metadata.resource_version;
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

static struct error *too_many(int after_s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static struct error *too_many(int after_s, const char *fmt, ...)
{
	struct error *e = err_too_many(after_s, "Cannot evict pod as it would violate the pod's disruption budget.");
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	error_add_cause(e, "DisruptionBudget", "", "%s", text);
	return e;
}

static struct error *still_processed(struct str budget)
{
	return too_many(10, "The disruption budget %.*s is still being processed by the server.", STR_ARG(budget));
}

static struct error *none_allowed(const struct policy_v1_pod_disruption_budget *b)
{
	const struct meta_v1_condition *c = NULL;
	struct str name = b->metadata.name;

	for (uint32_t i = 0; i < b->status.conditions.n; i++)
		if (str_eqz(b->status.conditions.v[i].type, "DisruptionAllowed"))
			c = &b->status.conditions.v[i];
	if (c && (!str_eqz(c->status, "False") || !c->message.n))
		c = NULL;
	if (c && str_eqz(c->reason, "SyncFailed"))
		return too_many(0, "The disruption budget %.*s does not allow evicting pods currently because it failed sync: %.*s", STR_ARG(name),
				STR_ARG(c->message));
	if (b->status.current_healthy <= b->status.desired_healthy)
		return too_many(0, "The disruption budget %.*s needs %d healthy pods and has %d currently", STR_ARG(name),
				b->status.desired_healthy, b->status.current_healthy);
	if (c)
		return too_many(0, "The disruption budget %.*s does not allow evicting pods currently (%.*s): %.*s", STR_ARG(name),
				STR_ARG(c->reason), STR_ARG(c->message));
	return too_many(0, "The disruption budget %.*s does not allow evicting pods currently", STR_ARG(name));
}

static void say_insufficient(struct arena *a, struct policy_v1_pod_disruption_budget *b)
{
	struct meta_v1_condition *c = NULL;

	for (uint32_t i = 0; i < b->status.conditions.n && !c; i++)
		if (str_eqz(b->status.conditions.v[i].type, "DisruptionAllowed"))
			c = &b->status.conditions.v[i];
	if (!c) {
		c = arena_push(a, &b->status.conditions);
		c->type = STR("DisruptionAllowed");
	}
	if (!str_eqz(c->status, "False"))
		c->last_transition_time = time_now();
	c->status = STR("False");
	c->reason = STR("InsufficientPods");
	c->message = STR_NULL;
	c->observed_generation = b->status.observed_generation;
}

static struct error *make_disrupted(void *ctx, struct request *rq, const void *old, void **out)
{
	struct core_v1_pod *pod = ctx;
	struct policy_v1_pod_disruption_budget *b = arena_new(rq->a, struct policy_v1_pod_disruption_budget);
	struct time_pair *t = NULL;

	object_copy(rq->a, &policy_v1_pod_disruption_budget_type, old, b);
	if (b->status.observed_generation < b->metadata.generation)
		return still_processed(b->metadata.name);
	if (b->status.disruptions_allowed < 0)
		return err_forbidden(STR("policy"), STR("poddisruptionbudget"), b->metadata.name, "pdb disruptions allowed is negative");
	if (b->status.disrupted_pods.n > 2000)
		return err_forbidden(STR("policy"), STR("poddisruptionbudget"), b->metadata.name, "DisruptedPods map too big - too many evictions not "
				     "confirmed by PDB controller");
	if (b->status.disruptions_allowed == 0)
		return none_allowed(b);
	if (--b->status.disruptions_allowed == 0)
		say_insufficient(rq->a, b);
	for (uint32_t i = 0; i < b->status.disrupted_pods.n && !t; i++)
		if (str_eq(b->status.disrupted_pods.v[i].key, pod->metadata.name))
			t = &b->status.disrupted_pods.v[i];
	if (!t)
		t = (struct time_pair *)(void *)arena_push(rq->a, &b->status.disrupted_pods);
	t->key = pod->metadata.name;
	t->value = time_now();
	b->metadata.resource_version = STR_NULL;
	*out = b;
	return NULL;
}

/* *many: several budgets select it. *pinned: the budget let it go for what it is now (not ready); it must not be deleted once it has become something else. */
static struct error *check_budgets(struct request *rq, struct core_v1_pod *pod, struct str *budget, bool *pinned, bool *many)
{
	struct resource *pdbs = resource_any(rq->s, STR("policy"), STR("poddisruptionbudgets")), *was = rq->res;
	struct policy_v1_pod_disruption_budget *match = NULL;
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	size_t n = 0;
	struct update u = {.make = make_disrupted, .ctx = pod, .sub = "status", .retry = true, .flags = UPDATE_NO_ADMISSION | UPDATE_UNCONDITIONAL};
	struct write_result r;
	struct error *e = NULL;
	bool internal = rq->internal;

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
	*many = n > 1;
	if (*many)
		return NULL;
	if (!match)
		return NULL;
	*budget = match->metadata.name;
	/* pods that are not ready may go without a budget when enough others are healthy, or always by policy */
	if (!pod_ready(pod)) {
		if (match->spec.unhealthy_pod_eviction_policy && str_eqz(*match->spec.unhealthy_pod_eviction_policy, "AlwaysAllow"))
			*pinned = true;
		if (match->status.current_healthy >= match->status.desired_healthy && match->status.desired_healthy > 0)
			*pinned = true;
		if (*pinned)
			return NULL;
	}
	rq->res = pdbs;
	rq->internal = true;
	e = registry_update(rq, pod->metadata.namespace, match->metadata.name, &u, &r);
	if (!e)
		cache_entry_unref(r.entry);
	rq->res = was;
	rq->internal = internal;
	return e;
}

static struct error *make_evicted(void *ctx, struct request *rq, const void *old, void **out)
{
	const struct meta_v1_preconditions *pre = ctx;
	struct core_v1_pod *p = arena_new(rq->a, struct core_v1_pod);
	const struct meta_v1_object_meta *om = &((const struct core_v1_pod *)old)->metadata;
	struct core_v1_pod_condition *c = NULL;

	if (pre->uid && pre->uid->n && !str_eq(*pre->uid, om->uid))
		return err_conflict(STR(""), STR("Pod"), om->name, "the UID in the precondition does not match the UID in record");
	if (pre->resource_version && pre->resource_version->n && !str_eq(*pre->resource_version, om->resource_version))
		return err_conflict(STR(""), STR("Pod"), om->name, "the ResourceVersion in the precondition does not match the one in record");
	object_copy(rq->a, &core_v1_pod_type, old, p);
	for (uint32_t i = 0; i < p->status.conditions.n && !c; i++)
		if (str_eqz(p->status.conditions.v[i].type, "DisruptionTarget"))
			c = &p->status.conditions.v[i];
	if (!c) {
		c = arena_push(rq->a, &p->status.conditions);
		c->type = STR("DisruptionTarget");
	}
	if (!str_eqz(c->status, "True"))
		c->last_transition_time = time_now();
	c->status = STR("True");
	c->reason = STR("EvictionByEvictionAPI");
	c->message = STR("Eviction API: evicting");
	p->metadata.resource_version = STR_NULL;
	*out = p;
	return NULL;
}

/* The pod's condition says why it goes, then it goes; uid and rv are preconditions of both. */
static struct error *mark_and_delete(struct request *rq, const struct meta_v1_delete_options *o, struct str rv)
{
	struct meta_v1_delete_options mine = *o;
	struct meta_v1_preconditions pre = o->preconditions ? *o->preconditions : (struct meta_v1_preconditions){0};
	/* apply: managedFields stay as they are */
	struct update u = {.make = make_evicted, .ctx = &pre, .sub = "status", .retry = !rv.n, .apply = true, .flags = UPDATE_NO_ADMISSION};
	struct write_result r;
	struct error *e;
	bool internal = rq->internal;

	pre.resource_version = rv.n ? &rv : NULL;

	if (!rq->dry_run) {
		struct core_v1_pod *p;
		void *obj;

		TRY(registry_update(rq, rq->info.ns, rq->info.name, &u, &r));
		cache_entry_unref(r.entry);
		if (rv.n) { /* our own write moved it */
			TRY(registry_get(rq, rq->info.ns, rq->info.name, &obj));
			p = obj;
			rv = p->metadata.resource_version;
		}
	}
	if (rv.n) {
		pre.resource_version = &rv;
		mine.preconditions = &pre;
	}
	TRY(delete_options_validate(rq, o));
	/* admission has judged the eviction, and does not judge the delete as well */
	rq->internal = true;
	e = registry_delete(rq, rq->info.ns, rq->info.name, &mine, &r);
	rq->internal = internal;
	TRY(e);
	cache_entry_unref(r.entry);
	return NULL;
}

static bool needs_no_budget(const struct core_v1_pod *p, bool *gone)
{
	*gone = str_eqz(p->status.phase, "Succeeded") || str_eqz(p->status.phase, "Failed") || p->metadata.deletion_timestamp;
	return *gone || str_eqz(p->status.phase, "Pending");
}

#define EVICTION_RETRIES 20

/* *many: nothing is done, as more than one budget selects the pod. */
static struct error *evict(struct request *rq, const struct meta_v1_delete_options *o, bool *many)
{
	struct str asked = o->preconditions && o->preconditions->resource_version ? *o->preconditions->resource_version : STR_NULL;
	struct str budget = STR_NULL, pin;
	bool pinned = false, gone;
	struct core_v1_pod *pod;
	struct error *e;
	void *obj;

	for (int i = 0; i < EVICTION_RETRIES; i++) {
		TRY(registry_get(rq, rq->info.ns, rq->info.name, &obj));
		pod = obj;
		if (!needs_no_budget(pod, &gone))
			break;
		/* A pending pod may become ready meanwhile, and then its budget counts. */
		e = mark_and_delete(rq, o, asked.n ? asked : gone ? STR_NULL : pod->metadata.resource_version);
		if (!error_is(e, 409, NULL) || asked.n || i == EVICTION_RETRIES - 1)
			return e;
		error_free(e);
	}
	TRY(check_budgets(rq, pod, &budget, &pinned, many));
	if (*many)
		return NULL;
	pin = asked.n ? asked : pinned ? pod->metadata.resource_version : STR_NULL;
	e = mark_and_delete(rq, o, pin);
	if (error_is(e, 409, NULL) && pinned && !asked.n) {
		error_free(e);
		e = still_processed(budget);
	}
	return e;
}

static struct error *eviction(struct request *rq)
{
	struct policy_v1_eviction *ev;
	struct admission a;
	struct meta_v1_delete_options none = {0}, *o = &none;
	bool many = false;
	struct meta_v1_status ok = {.kind = STR("Status"), .api_version = STR("v1"), .status = STR("Success"), .code = 201};

	TRY(rest_body(rq, "CreateOptions", &policy_v1_eviction_type, STR("Eviction"), STR("policy/v1"), (void **)&ev));
	ev->metadata.namespace = rq->info.ns;
	TRY(review_manage_fields(rq, &policy_v1_eviction_type, ev));
	TRY(admission_admit_body(&a, rq, &policy_v1_eviction_type, rq->info.name, ev, NULL));
	if (!str_eq(ev->metadata.name, rq->info.name))
		return err_bad_request("name in URL does not match name in Eviction object");
	if (rq->dry_run) {
		if (!ev->delete_options)
			ev->delete_options = arena_new(rq->a, struct meta_v1_delete_options);
		if (!ev->delete_options->dry_run.n)
			*arena_push(rq->a, &ev->delete_options->dry_run) = STR("All");
		if (ev->delete_options->dry_run.n != 1 || !str_eqz(ev->delete_options->dry_run.v[0], "All"))
			return error_status(500, "", "the request and the eviction in it ask for different dry runs");
	}
	TRY(admission_validate(&a));
	if (ev->delete_options)
		o = ev->delete_options;
	if (o->dry_run.n)
		rq->dry_run = true;
	TRY(evict(rq, o, &many));
	if (many) /* created, says upstream, and what it made is a failure */
		ok = (struct meta_v1_status){.kind = STR("Status"), .api_version = STR("v1"), .status = STR("Failure"), .code = 500,
					     .message = STR("This pod has more than one PodDisruptionBudget, which the eviction subresource does "
							    "not support.")};
	return respond_struct(rq, 201, &meta_v1_status_type, &ok);
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
		return rest_component_status(rq);
	*handled = false;
	return NULL;
}
