/* LimitRanger and ResourceQuota: what a namespace may use. */
#include "apiserver/admission.h"
#include "apiserver/server.h"
#include "schema/quantity.h"

/* Calls fn for each object of a namespace, decoded; NULL or the first error. */
static struct error *each(struct request *rq, struct storage *st, struct str ns, struct error *(*fn)(void *ctx, void *obj), void *ctx)
{
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e;

	TRY(cache_snapshot(st->cache, CACHE_CONSISTENT, 0, &snap));
	cache_iter_init(&it, st->cache, snap, ns, STR_NULL, NULL);
	e = NULL;
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		void *obj = arena_alloc(rq->a, st->type->size);

		e = json_decode(rq->a, st->type, arena_str(rq->a, cache_entry_json(en)), NULL, obj);
		if (!e)
			e = fn(ctx, obj);
	}
	cache_snap_free(snap);
	return e;
}

/* ---- LimitRanger ---- */

struct limits {
	struct admission *a;
	struct core_v1_pod *pod;
	struct core_v1_persistent_volume_claim *pvc;
	bool fill;               /* set defaults; else judge */
	struct buf why;
	size_t complaints;
	bool filled;
	struct str range;
};

static void sum(struct arena *a, struct str_map *into, const struct str_map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct str old = str_map_get(into, m->v[i].key);

		str_map_set(a, into, m->v[i].key, old.n ? quantity_add(a, old, m->v[i].value) : m->v[i].value);
	}
}

static void raise_to(struct arena *a, struct str_map *into, const struct str_map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct str old = str_map_get(into, m->v[i].key);

		if (!old.n || quantity_cmp(old, m->v[i].value) < 0)
			str_map_set(a, into, m->v[i].key, m->v[i].value);
	}
}

/* What a pod asks for: the sum over containers, at least what any init container asks for, plus overhead. */
static void pod_totals(struct arena *a, const struct core_v1_pod *p, bool limits, struct str_map *out)
{
	memset(out, 0, sizeof *out);
	for (uint32_t i = 0; i < p->spec.containers.n; i++) {
		const struct core_v1_resource_requirements *r = &p->spec.containers.v[i].resources;

		sum(a, out, limits ? API_MAP(&r->limits) : API_MAP(&r->requests));
	}
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++) {
		const struct core_v1_container *c = &p->spec.init_containers.v[i];
		const struct str_map *m = limits ? API_MAP(&c->resources.limits) : API_MAP(&c->resources.requests);

		if (c->restart_policy && str_eqz(*c->restart_policy, "Always"))
			sum(a, out, m);
		else
			raise_to(a, out, m);
	}
	sum(a, out, API_MAP(&p->spec.overhead));
}

static void complain(struct limits *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct limits *l, const char *fmt, ...)
{
	va_list ap;

	l->complaints++;
	if (l->why.n)
		buf_puts(&l->why, ", ");
	va_start(ap, fmt);
	buf_vprintf(&l->why, fmt, ap);
	va_end(ap);
}

static void check_item(struct limits *l, const struct core_v1_limit_range_item *it, const struct str_map *requests, const struct str_map *limits)
{
	const struct str_map *min = API_MAP(&it->min), *max = API_MAP(&it->max), *ratio = API_MAP(&it->max_limit_request_ratio);

	for (uint32_t i = 0; i < min->n; i++) {
		struct str r = str_map_get(requests, min->v[i].key), k = min->v[i].key, lim = str_map_get(limits, k);

		if (!r.n)
			complain(l, "minimum %.*s usage per %.*s is %.*s.  No request is specified", STR_ARG(k), STR_ARG(it->type), STR_ARG(min->v[i].value));
		else if (quantity_cmp(r, min->v[i].value) < 0)
			complain(l, "minimum %.*s usage per %.*s is %.*s, but request is %.*s", STR_ARG(k), STR_ARG(it->type),
				 STR_ARG(min->v[i].value), STR_ARG(r));
		else if (lim.n && quantity_cmp(lim, min->v[i].value) < 0)
			complain(l, "minimum %.*s usage per %.*s is %.*s, but limit is %.*s", STR_ARG(k), STR_ARG(it->type), STR_ARG(min->v[i].value),
				 STR_ARG(lim));
	}
	for (uint32_t i = 0; i < max->n; i++) {
		struct str k = max->v[i].key, lim = str_map_get(limits, k), r = str_map_get(requests, k);

		if (str_eqz(it->type, "PersistentVolumeClaim")) {
			if (r.n && quantity_cmp(r, max->v[i].value) > 0)
				complain(l, "maximum %.*s usage per %.*s is %.*s, but request is %.*s", STR_ARG(k), STR_ARG(it->type),
					 STR_ARG(max->v[i].value), STR_ARG(r));
		} else if (!lim.n) {
			complain(l, "maximum %.*s usage per %.*s is %.*s.  No limit is specified", STR_ARG(k), STR_ARG(it->type), STR_ARG(max->v[i].value));
		} else if (quantity_cmp(lim, max->v[i].value) > 0) {
			complain(l, "maximum %.*s usage per %.*s is %.*s, but limit is %.*s", STR_ARG(k), STR_ARG(it->type), STR_ARG(max->v[i].value),
				 STR_ARG(lim));
		}
	}
	for (uint32_t i = 0; i < ratio->n; i++) {
		struct str k = ratio->v[i].key, lim = str_map_get(limits, k), r = str_map_get(requests, k);
		double want = (double)quantity_milli(ratio->v[i].value) / 1000;

		if (!lim.n || !r.n)
			complain(l, "%.*s max limit to request ratio per %.*s is %.*s, but no request is specified or request is 0", STR_ARG(k),
				 STR_ARG(it->type), STR_ARG(ratio->v[i].value));
		else if (quantity_milli(r) > 0 && (double)quantity_milli(lim) / (double)quantity_milli(r) > want)
			complain(l, "%.*s max limit to request ratio per %.*s is %.*s, but provided ratio is %f", STR_ARG(k), STR_ARG(it->type),
				 STR_ARG(ratio->v[i].value), (double)quantity_milli(lim) / (double)quantity_milli(r));
	}
}

static void fill_container(struct limits *l, const struct core_v1_limit_range_item *it, struct core_v1_resource_requirements *r)
{
	struct arena *a = l->a->rq->a;
	const struct str_map *def = API_MAP(&it->default_), *req = API_MAP(&it->default_request);

	for (uint32_t i = 0; i < def->n; i++)
		if (!str_map_has(API_MAP(&r->limits), def->v[i].key)) {
			str_map_set(a, API_MAP(&r->limits), def->v[i].key, def->v[i].value);
			l->filled = true;
		}
	for (uint32_t i = 0; i < req->n; i++)
		if (!str_map_has(API_MAP(&r->requests), req->v[i].key)) {
			str_map_set(a, API_MAP(&r->requests), req->v[i].key, req->v[i].value);
			l->filled = true;
		}
}

static struct error *one_range(void *ctx, void *obj)
{
	struct limits *l = ctx;
	struct core_v1_limit_range *lr = obj;
	struct arena *a = l->a->rq->a;

	for (uint32_t i = 0; i < lr->spec.limits.n; i++) {
		const struct core_v1_limit_range_item *it = &lr->spec.limits.v[i];

		if (l->pvc && str_eqz(it->type, "PersistentVolumeClaim") && !l->fill)
			check_item(l, it, API_MAP(&l->pvc->spec.resources.requests), API_MAP(&l->pvc->spec.resources.limits));
		if (!l->pod)
			continue;
		if (str_eqz(it->type, "Container")) {
			for (uint32_t k = 0; k < l->pod->spec.containers.n; k++) {
				struct core_v1_resource_requirements *r = &l->pod->spec.containers.v[k].resources;

				if (l->fill)
					fill_container(l, it, r);
				else
					check_item(l, it, API_MAP(&r->requests), API_MAP(&r->limits));
			}
			for (uint32_t k = 0; k < l->pod->spec.init_containers.n; k++) {
				struct core_v1_resource_requirements *r = &l->pod->spec.init_containers.v[k].resources;

				if (l->fill)
					fill_container(l, it, r);
				else
					check_item(l, it, API_MAP(&r->requests), API_MAP(&r->limits));
			}
		} else if (str_eqz(it->type, "Pod") && !l->fill) {
			struct str_map requests, limits;

			pod_totals(a, l->pod, false, &requests);
			pod_totals(a, l->pod, true, &limits);
			check_item(l, it, &requests, &limits);
		}
	}
	return NULL;
}

static struct error *ranger(struct admission *a, bool fill)
{
	struct storage *st = storage_find(a->rq->s, STR(""), STR("limitranges"));
	struct limits l = {.a = a, .fill = fill};
	struct error *e;

	if (a->op == ADMIT_CREATE && admission_is(a, "", "pods", ""))
		l.pod = a->obj;
	else if ((a->op == ADMIT_CREATE || a->op == ADMIT_UPDATE) && admission_is(a, "", "persistentvolumeclaims", ""))
		l.pvc = a->obj;
	else
		return NULL;
	e = each(a->rq, st, a->ns, one_range, &l);
	if (!e && l.why.n) {
		struct str why = arena_str(a->rq->a, buf_view(&l.why));

		e = admission_forbidden(a, l.complaints > 1 ? "[%.*s]" : "%.*s", STR_ARG(why));
	}
	buf_free(&l.why);
	return e;
}

static struct error *limits_admit(struct admission *a)
{
	return ranger(a, true);
}

static struct error *limits_validate(struct admission *a)
{
	return ranger(a, false);
}

const struct admission_plugin admit_limit_ranger = {
	.name = "LimitRanger", .ops = ADMIT_CREATE | ADMIT_UPDATE, .admit = limits_admit, .validate = limits_validate,
};

/* ---- ResourceQuota ---- */

/*
 * Use is counted from the cache at the time of the request, so that it is right
 * without a controller; a controller keeps status for people to read. Two
 * creates at the same instant may both be let in at the last place.
 */

struct usage {
	struct arena *a;
	struct str_map used;
	const struct core_v1_resource_quota *q;
};

static void count(struct usage *u, const char *name, struct str n)
{
	struct str old = str_map_get(&u->used, str_from(name));

	str_map_set(u->a, &u->used, str_from(name), old.n ? quantity_add(u->a, old, n) : n);
}

static bool best_effort(const struct core_v1_pod *p)
{
	if (p->status.qos_class.n)
		return str_eqz(p->status.qos_class, "BestEffort");
	for (uint32_t i = 0; i < p->spec.containers.n; i++)
		if (p->spec.containers.v[i].resources.requests.n || p->spec.containers.v[i].resources.limits.n)
			return false;
	return true;
}

static bool scope_holds(const struct core_v1_pod *p, struct str scope, struct str op, const struct str *values, uint32_t n)
{
	if (str_eqz(scope, "Terminating"))
		return p->spec.active_deadline_seconds != NULL;
	if (str_eqz(scope, "NotTerminating"))
		return p->spec.active_deadline_seconds == NULL;
	if (str_eqz(scope, "BestEffort"))
		return best_effort(p);
	if (str_eqz(scope, "NotBestEffort"))
		return !best_effort(p);
	if (str_eqz(scope, "PriorityClass")) {
		bool in = false;

		for (uint32_t i = 0; i < n; i++)
			in |= str_eq(values[i], p->spec.priority_class_name);
		if (str_eqz(op, "In"))
			return in;
		if (str_eqz(op, "NotIn"))
			return !in;
		return str_eqz(op, "DoesNotExist") ? !p->spec.priority_class_name.n : p->spec.priority_class_name.n > 0;
	}
	if (str_eqz(scope, "CrossNamespacePodAffinity"))
		return false;
	return true;
}

static bool scopes_hold(const struct core_v1_resource_quota *q, const struct core_v1_pod *p)
{
	for (uint32_t i = 0; i < q->spec.scopes.n; i++)
		if (!scope_holds(p, q->spec.scopes.v[i], STR("Exists"), NULL, 0))
			return false;
	for (uint32_t i = 0; q->spec.scope_selector && i < q->spec.scope_selector->match_expressions.n; i++) {
		const struct core_v1_scoped_resource_selector_requirement *r = &q->spec.scope_selector->match_expressions.v[i];

		if (!scope_holds(p, r->scope_name, r->operator, r->values.v, r->values.n))
			return false;
	}
	return true;
}

static bool is_scoped(const struct core_v1_resource_quota *q)
{
	return q->spec.scopes.n || (q->spec.scope_selector && q->spec.scope_selector->match_expressions.n);
}

static struct error *pod_usage(void *ctx, void *obj)
{
	struct usage *u = ctx;
	const struct core_v1_pod *p = obj;
	struct str_map requests, limits;

	count(u, "count/pods", STR("1"));
	if (str_eqz(p->status.phase, "Succeeded") || str_eqz(p->status.phase, "Failed") || !scopes_hold(u->q, p))
		return NULL;
	count(u, "pods", STR("1"));
	pod_totals(u->a, p, false, &requests);
	pod_totals(u->a, p, true, &limits);
	for (uint32_t i = 0; i < requests.n; i++) {
		struct str k = requests.v[i].key;

		count(u, arena_printf(u->a, "requests.%.*s", STR_ARG(k)).p, requests.v[i].value);
		if (str_eqz(k, "cpu") || str_eqz(k, "memory") || str_eqz(k, "ephemeral-storage"))
			count(u, arena_strz(u->a, k), requests.v[i].value);
	}
	for (uint32_t i = 0; i < limits.n; i++)
		count(u, arena_printf(u->a, "limits.%.*s", STR_ARG(limits.v[i].key)).p, limits.v[i].value);
	return NULL;
}

static struct error *service_usage(void *ctx, void *obj)
{
	struct usage *u = ctx;
	const struct core_v1_service *s = obj;

	count(u, "services", STR("1"));
	count(u, "count/services", STR("1"));
	if (str_eqz(s->spec.type, "LoadBalancer"))
		count(u, "services.loadbalancers", STR("1"));
	if (str_eqz(s->spec.type, "NodePort") || str_eqz(s->spec.type, "LoadBalancer"))
		for (uint32_t i = 0; i < s->spec.ports.n; i++)
			count(u, "services.nodeports", STR("1"));
	return NULL;
}

static struct error *claim_usage(void *ctx, void *obj)
{
	struct usage *u = ctx;
	const struct core_v1_persistent_volume_claim *c = obj;
	struct str q = str_map_get(API_MAP(&c->spec.resources.requests), STR("storage"));

	count(u, "persistentvolumeclaims", STR("1"));
	count(u, "count/persistentvolumeclaims", STR("1"));
	if (q.n)
		count(u, "requests.storage", q);
	if (c->spec.storage_class_name) {
		count(u, arena_printf(u->a, "%.*s.storageclass.storage.k8s.io/persistentvolumeclaims", STR_ARG(*c->spec.storage_class_name)).p, STR("1"));
		if (q.n)
			count(u, arena_printf(u->a, "%.*s.storageclass.storage.k8s.io/requests.storage", STR_ARG(*c->spec.storage_class_name)).p, q);
	}
	return NULL;
}

/* The name a kind is counted under besides count/RESOURCE.GROUP. */
static const char *plain_name(struct str group, struct str plural)
{
	static const char *const names[] = {"configmaps", "secrets", "replicationcontrollers", "resourcequotas"};

	for (size_t i = 0; i < 4 && !group.n; i++)
		if (str_eqz(plural, names[i]))
			return names[i];
	return NULL;
}

struct quota_check {
	struct admission *a;
	struct error *refused;
	bool pod, service, claim;
};

static bool constrains(const struct core_v1_resource_quota *q, struct str name)
{
	return str_map_has(API_MAP(&q->spec.hard), name);
}

static struct error *one_quota(void *ctx, void *obj)
{
	struct quota_check *c = ctx;
	struct core_v1_resource_quota *q = obj;
	struct admission *a = c->a;
	struct arena *ar = a->rq->a;
	struct usage delta = {.a = ar, .q = q}, now = {.a = ar, .q = q};
	const struct str_map *hard = API_MAP(&q->spec.hard);
	struct buf req buf_cleanup = {0}, used buf_cleanup = {0}, lim buf_cleanup = {0}, missing buf_cleanup = {0};
	struct str counted = a->group.n ? arena_printf(ar, "count/%.*s.%.*s", STR_ARG(a->resource), STR_ARG(a->group)) :
					  arena_printf(ar, "count/%.*s", STR_ARG(a->resource));
	const char *plain = plain_name(a->group, a->resource);
	bool any = false;

	if (c->refused)
		return NULL;
	if (c->pod) {
		TRY(pod_usage(&delta, a->obj));
		if (scopes_hold(q, a->obj)) {
			static const char *const compute[] = {"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"};

			for (size_t i = 0; i < sizeof compute / sizeof *compute; i++)
				if (constrains(q, str_from(compute[i])) && !str_map_has(&delta.used, str_from(compute[i])))
					buf_printf(&missing, "%s%s", missing.n ? "," : "", compute[i]);
			if (missing.n) {
				c->refused = admission_forbidden(a, "failed quota: %.*s: must specify %.*s for: %.*s", STR_ARG(q->metadata.name),
								 STR_ARG(buf_view(&missing)),
								 STR_ARG(((struct core_v1_pod *)a->obj)->spec.containers.n ?
										 ((struct core_v1_pod *)a->obj)->spec.containers.v[0].name :
										 STR_NULL));
				return NULL;
			}
		}
	} else if (is_scoped(q)) {
		return NULL;
	} else if (c->service) {
		TRY(service_usage(&delta, a->obj));
	} else if (c->claim) {
		TRY(claim_usage(&delta, a->obj));
	} else {
		count(&delta, arena_strz(ar, counted), STR("1"));
		if (plain)
			count(&delta, plain, STR("1"));
	}
	if (a->op == ADMIT_UPDATE && a->old) {
		/* only what grows is asked for */
		struct usage before = {.a = ar, .q = q};

		if (c->service)
			TRY(service_usage(&before, (void *)(uintptr_t)a->old));
		else if (c->claim)
			TRY(claim_usage(&before, (void *)(uintptr_t)a->old));
		else
			return NULL;
		for (uint32_t i = 0; i < delta.used.n; i++) {
			struct str b = str_map_get(&before.used, delta.used.v[i].key);

			if (b.n)
				delta.used.v[i].value = quantity_sub(ar, delta.used.v[i].value, b);
		}
	}
	for (uint32_t i = 0; i < hard->n; i++) {
		struct str d = str_map_get(&delta.used, hard->v[i].key);

		any |= d.n && quantity_cmp(d, STR("0")) > 0;
	}
	if (!any)
		return NULL;
	if (c->pod)
		TRY(each(a->rq, a->res->st, a->ns, pod_usage, &now));
	else if (c->service)
		TRY(each(a->rq, a->res->st, a->ns, service_usage, &now));
	else if (c->claim)
		TRY(each(a->rq, a->res->st, a->ns, claim_usage, &now));
	else {
		struct cache_snap *snap;
		struct str n;

		TRY(cache_snapshot(a->res->st->cache, CACHE_CONSISTENT, 0, &snap));
		n = quantity_from(ar, (int64_t)cache_snap_count(snap, a->ns, STR_NULL), false);
		cache_snap_free(snap);
		count(&now, arena_strz(ar, counted), n);
		if (plain)
			count(&now, plain, n);
	}
	for (uint32_t i = 0; i < hard->n; i++) {
		struct str k = hard->v[i].key, h = hard->v[i].value, d = str_map_get(&delta.used, k), u = str_map_get(&now.used, k);

		if (!d.n || quantity_cmp(d, STR("0")) <= 0)
			continue;
		if (!u.n)
			u = STR("0");
		if (quantity_cmp(quantity_add(ar, u, d), h) <= 0)
			continue;
		buf_printf(&req, "%s%.*s=%.*s", req.n ? "," : "", STR_ARG(k), STR_ARG(d));
		buf_printf(&used, "%s%.*s=%.*s", used.n ? "," : "", STR_ARG(k), STR_ARG(u));
		buf_printf(&lim, "%s%.*s=%.*s", lim.n ? "," : "", STR_ARG(k), STR_ARG(h));
	}
	if (req.n)
		c->refused = admission_forbidden(a, "exceeded quota: %.*s, requested: %.*s, used: %.*s, limited: %.*s", STR_ARG(q->metadata.name),
						 STR_ARG(buf_view(&req)), STR_ARG(buf_view(&used)), STR_ARG(buf_view(&lim)));
	return NULL;
}

static struct error *quota_validate(struct admission *a)
{
	struct quota_check c = {.a = a};

	if (!a->ns.n || a->subresource.n || a->rq->internal || !a->res->st || !a->obj)
		return NULL;
	c.pod = admission_is(a, "", "pods", "");
	c.service = admission_is(a, "", "services", "");
	c.claim = admission_is(a, "", "persistentvolumeclaims", "");
	if (a->op == ADMIT_UPDATE && !c.service && !c.claim)
		return NULL;
	if (admission_is(a, "", "events", "") || admission_is(a, "events.k8s.io", "events", ""))
		return NULL;
	TRY(each(a->rq, storage_find(a->rq->s, STR(""), STR("resourcequotas")), a->ns, one_quota, &c));
	return c.refused;
}

const struct admission_plugin admit_resource_quota = {
	.name = "ResourceQuota", .ops = ADMIT_CREATE | ADMIT_UPDATE, .validate = quota_validate,
};

/* ---- status of quotas ---- */

/*
 * Counted here because admission counts here: once a second, when there are quotas and the store has moved. Upstream's
 * controller manager, where it runs, writes the same numbers.
 */

static struct error *count_all(struct request *rq, struct core_v1_resource_quota *q, struct usage *u)
{
	struct apiserver *s = rq->s;
	const struct str_map *hard = API_MAP(&q->spec.hard);
	struct str ns = q->metadata.namespace;

	TRY(each(rq, storage_find(s, STR(""), STR("pods")), ns, pod_usage, u));
	if (!is_scoped(q)) {
		TRY(each(rq, storage_find(s, STR(""), STR("services")), ns, service_usage, u));
		TRY(each(rq, storage_find(s, STR(""), STR("persistentvolumeclaims")), ns, claim_usage, u));
	}
	for (uint32_t i = 0; i < hard->n; i++) {
		struct str name = hard->v[i].key, group = STR(""), plural = name;
		struct storage *st;
		struct cache_snap *snap;
		ptrdiff_t dot;

		if (str_has_prefix(name, STR("count/"))) {
			plural = str_sub(name, 6, name.n);
			dot = str_index(plural, '.');
			if (dot >= 0) {
				group = str_sub(plural, (size_t)dot + 1, plural.n);
				plural = str_sub(plural, 0, (size_t)dot);
			}
		} else if (!plain_name(group, plural)) {
			continue;
		}
		st = storage_find(s, group, plural);
		if (!st || !st->namespaced)
			continue;
		TRY(cache_snapshot(st->cache, CACHE_ANY, 0, &snap));
		str_map_set(rq->a, &u->used, name, quantity_from(rq->a, (int64_t)cache_snap_count(snap, ns, STR_NULL), false));
		cache_snap_free(snap);
	}
	return NULL;
}

static struct error *make_quota_status(void *ctx, struct request *rq, const void *old, void **out)
{
	const struct core_v1_resource_quota *want = ctx;
	struct core_v1_resource_quota *q = arena_new(rq->a, struct core_v1_resource_quota);

	object_copy(rq->a, &core_v1_resource_quota_type, old, q);
	q->status = want->status;
	q->metadata.resource_version = STR_NULL;
	*out = q;
	return NULL;
}

static struct error *refresh(struct apiserver *s, struct arena *a, struct core_v1_resource_quota *q)
{
	struct request rq;
	struct usage u = {.a = a, .q = q};
	struct core_v1_resource_quota want = {0};
	struct write_result r;
	struct update up = {.make = make_quota_status, .ctx = &want, .sub = "status", .retry = true, .flags = UPDATE_UNCONDITIONAL};
	const struct str_map *hard = API_MAP(&q->spec.hard);
	struct error *e;

	request_internal(&rq, s, a, resource_any(s, STR(""), STR("resourcequotas")), q->metadata.namespace);
	rq.nosync = true;
	TRY(count_all(&rq, q, &u));
	memcpy(&want.status.hard, &q->spec.hard, sizeof want.status.hard);
	for (uint32_t i = 0; i < hard->n; i++) {
		struct str v = str_map_get(&u.used, hard->v[i].key);

		str_map_set(a, API_MAP(&want.status.used), hard->v[i].key, v.n ? v : STR("0"));
	}
	if (object_field_equal(&core_v1_resource_quota_type, &want, q, "status"))
		return NULL;
	e = registry_update(&rq, q->metadata.namespace, q->metadata.name, &up, &r);
	if (error_is(e, 404, NULL))
		error_clear(&e);
	else if (!e)
		block_unref(r.json);
	return e;
}

static void quota_fiber(void *arg)
{
	struct apiserver *s = arg;
	struct storage *st = storage_find(s, STR(""), STR("resourcequotas"));
	int64_t seen = -1;

	for (;;) {
		struct arena a arena_cleanup = {0};
		struct cache_snap *snap;
		struct cache_iter it;
		const struct cache_entry *en;
		struct error *e = fiber_sleep(1000);

		if (e) {
			error_free(e);
			return;
		}
		if (store_revision(s->store) == seen)
			continue;
		seen = store_revision(s->store);
		e = cache_snapshot(st->cache, CACHE_ANY, 0, &snap);
		if (e) {
			log_and_free(e, "quotas");
			continue;
		}
		cache_iter_init(&it, st->cache, snap, STR_NULL, STR_NULL, NULL);
		while ((en = cache_iter_next(&it)) != NULL) {
			struct core_v1_resource_quota *q = arena_new(&a, struct core_v1_resource_quota);

			e = json_decode(&a, &core_v1_resource_quota_type, arena_str(&a, cache_entry_json(en)), NULL, q);
			if (!e)
				e = refresh(s, &a, q);
			log_and_free(e, "status of quota %.*s", STR_ARG(cache_entry_key(en)));
		}
		cache_snap_free(snap);
	}
}

void quota_status_start(struct apiserver *s)
{
	fiber_spawn("quota-status", quota_fiber, s);
}
