/* LimitRanger: how much one pod, container or claim of a namespace may ask for. */
#include "apiserver/admission.h"
#include "apiserver/rules.h"
#include "apiserver/server.h"
#include "schema/quantity.h"
#include "schema/quota.h"

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

		e = cache_entry_decode(rq->a, st->type, en, true, obj);
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
	struct buf filled;       /* what one range has set, for the annotation */
};

/*
 * What a pod asks for: the sum over containers and sidecars, at least what any init container asks for beside the
 * sidecars before it; what is said of the pod as a whole goes before. Upstream's LimitRanger leaves the overhead out.
 */
static void pod_totals(struct arena *a, const struct core_v1_pod *p, bool limits, struct str_map *out)
{
	struct str_map most = {0}, sidecars = {0};

	memset(out, 0, sizeof *out);
	for (uint32_t i = 0; i < p->spec.containers.n; i++) {
		const struct core_v1_resource_requirements *r = &p->spec.containers.v[i].resources;

		quota_add(a, out, limits ? API_MAP(&r->limits) : API_MAP(&r->requests));
	}
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++) {
		const struct core_v1_container *c = &p->spec.init_containers.v[i];
		const struct str_map *m = limits ? API_MAP(&c->resources.limits) : API_MAP(&c->resources.requests);
		struct str_map here = {0};

		quota_add(a, &here, &sidecars);
		quota_add(a, &here, m);
		if (c->restart_policy && str_eqz(*c->restart_policy, "Always")) {
			quota_add(a, out, m);
			sidecars = here;
		}
		quota_raise(a, &most, &here);
	}
	quota_raise(a, out, &most);
	if (p->spec.resources) {
		const struct str_map *m =
			limits ? API_MAP(&p->spec.resources->limits) : API_MAP(&p->spec.resources->requests);

		for (uint32_t i = 0; i < m->n; i++)
			if (str_eqz(m->v[i].key, "cpu") || str_eqz(m->v[i].key, "memory") ||
			    resource_hugepages(m->v[i].key))
				str_map_set(a, out, m->v[i].key, m->v[i].value);
	}
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

/* limits: NULL for a claim. */
static void check_item(struct limits *l, const struct core_v1_limit_range_item *it, const struct str_map *requests, const struct str_map *limits)
{
	const struct str_map *min = API_MAP(&it->min), *max = API_MAP(&it->max), *ratio = API_MAP(&it->max_limit_request_ratio);
	bool claim = !limits; /* which has none, and so no ratio */

	for (uint32_t i = 0; i < min->n; i++) {
		struct str r = str_map_get(requests, min->v[i].key), k = min->v[i].key, lim = claim ? STR_NULL : str_map_get(limits, k);

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
		struct str k = max->v[i].key, lim = claim ? STR_NULL : str_map_get(limits, k), r = str_map_get(requests, k);

		if (!claim && !lim.n)
			complain(l, "maximum %.*s usage per %.*s is %.*s.  No limit is specified", STR_ARG(k), STR_ARG(it->type), STR_ARG(max->v[i].value));
		else if (!claim && quantity_cmp(lim, max->v[i].value) > 0)
			complain(l, "maximum %.*s usage per %.*s is %.*s, but limit is %.*s", STR_ARG(k), STR_ARG(it->type), STR_ARG(max->v[i].value),
				 STR_ARG(lim));
		else if (r.n && quantity_cmp(r, max->v[i].value) > 0)
			complain(l, "maximum %.*s usage per %.*s is %.*s, but request is %.*s", STR_ARG(k), STR_ARG(it->type),
				 STR_ARG(max->v[i].value), STR_ARG(r));
	}
	for (uint32_t i = 0; !claim && i < ratio->n; i++) {
		struct str k = ratio->v[i].key, lim = str_map_get(limits, k), r = str_map_get(requests, k);
		bool asked = r.n && quantity_cmp(r, STR("0"));
		double want = (double)quantity_milli(ratio->v[i].value) / 1000;

		if (!asked || !lim.n || !quantity_cmp(lim, STR("0")))
			complain(l, "%.*s max limit to request ratio per %.*s is %.*s, but no %s is specified or %s is 0", STR_ARG(k), STR_ARG(it->type),
				 STR_ARG(ratio->v[i].value), asked ? "limit" : "request", asked ? "limit" : "request");
		else if ((double)quantity_milli(lim) / (double)quantity_milli(r) > want)
			complain(l, "%.*s max limit to request ratio per %.*s is %.*s, but provided ratio is %f", STR_ARG(k), STR_ARG(it->type),
				 STR_ARG(ratio->v[i].value), (double)quantity_milli(lim) / (double)quantity_milli(r));
	}
}

/* The values that are not there yet; said as "cpu, memory request for container c". */
static void fill(struct limits *l, const struct str_map *values, struct str_map *into, const char *what, const char *of, struct str container)
{
	bool any = false;

	for (uint32_t i = 0; i < values->n; i++) {
		struct str k = values->v[i].key;

		if (str_map_has(into, k))
			continue;
		str_map_set(l->a->rq->a, into, k, values->v[i].value);
		buf_printf(&l->filled, "%s%.*s", any ? ", " : l->filled.n ? "; " : "", STR_ARG(k));
		any = true;
	}
	if (any)
		buf_printf(&l->filled, " %s for %s %.*s", what, of, STR_ARG(container));
}

static void fill_containers(struct limits *l, const struct core_v1_limit_range_item *it, struct core_v1_container *c, uint32_t n, const char *of)
{
	for (uint32_t i = 0; i < n; i++) {
		struct core_v1_resource_requirements *r = &c[i].resources;

		fill(l, API_MAP(&it->default_request), API_MAP(&r->requests), "request", of, c[i].name);
		fill(l, API_MAP(&it->default_), API_MAP(&r->limits), "limit", of, c[i].name);
	}
}

static void fill_pod(struct limits *l, const struct core_v1_limit_range *lr)
{
	struct core_v1_pod *p = l->pod;
	struct arena *a = l->a->rq->a;

	l->filled.n = 0;
	for (uint32_t i = 0; i < lr->spec.limits.n; i++) {
		const struct core_v1_limit_range_item *it = &lr->spec.limits.v[i];

		if (!str_eqz(it->type, "Container"))
			continue;
		fill_containers(l, it, p->spec.containers.v, p->spec.containers.n, "container");
		fill_containers(l, it, p->spec.init_containers.v, p->spec.init_containers.n, "init container");
	}
	if (l->filled.n)
		str_map_set(a, API_MAP(&p->metadata.annotations), STR("kubernetes.io/limit-ranger"),
			    arena_printf(a, "LimitRanger plugin set: %.*s", (int)l->filled.n, l->filled.p));
}

static void check_containers(struct limits *l, const struct core_v1_limit_range_item *it, const struct core_v1_container *c, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		check_item(l, it, API_MAP(&c[i].resources.requests), API_MAP(&c[i].resources.limits));
}

static struct error *one_range(void *ctx, void *obj)
{
	struct limits *l = ctx;
	struct core_v1_limit_range *lr = obj;
	struct arena *a = l->a->rq->a;

	if (l->fill) {
		if (l->pod)
			fill_pod(l, lr);
		return NULL;
	}
	for (uint32_t i = 0; i < lr->spec.limits.n; i++) {
		const struct core_v1_limit_range_item *it = &lr->spec.limits.v[i];

		if (l->pvc && str_eqz(it->type, "PersistentVolumeClaim"))
			check_item(l, it, API_MAP(&l->pvc->spec.resources.requests), NULL);
		if (!l->pod)
			continue;
		if (str_eqz(it->type, "Container")) {
			check_containers(l, it, l->pod->spec.containers.v, l->pod->spec.containers.n);
			check_containers(l, it, l->pod->spec.init_containers.v, l->pod->spec.init_containers.n);
		} else if (str_eqz(it->type, "Pod")) {
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

	if ((a->op == ADMIT_CREATE && admission_is(a, "", "pods", "")) || (a->op == ADMIT_UPDATE && admission_is(a, "", "pods", "resize")))
		l.pod = a->obj;
	else if ((a->op == ADMIT_CREATE || a->op == ADMIT_UPDATE) && admission_is(a, "", "persistentvolumeclaims", ""))
		l.pvc = a->obj;
	else
		return NULL;
	if (a->old && object_meta(a->type, (void *)(uintptr_t)a->old)->deletion_timestamp)
		return NULL;
	e = each(a->rq, st, a->ns, one_range, &l);
	if (!e && l.why.n) {
		struct str why = arena_str(a->rq->a, buf_view(&l.why));

		e = admission_forbidden(a, l.complaints > 1 ? "[%.*s]" : "%.*s", STR_ARG(why));
	}
	buf_free(&l.why);
	buf_free(&l.filled);
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
