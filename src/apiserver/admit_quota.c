/*
 * ResourceQuota: charges what a write uses to the quotas of its namespace, by compare-and-put on their status.used, before
 * the write: so writes that come at once never take more than there is. The controller manager counts anew what is freed.
 *
 * The writes of a namespace queue up; whoever comes first charges for all that wait, with one status write a quota.
 */
#include <stdlib.h>

#include "apiserver/admission.h"
#include "apiserver/admission_config.h"
#include "apiserver/server.h"
#include "schema/quantity.h"
#include "schema/quota.h"

#define CHARGE_TIMEOUT_MS 10000 /* upstream's */

struct waiter { /* on its request's stack */
	struct admission *a;
	const struct quota_devices *devices; /* of a ResourceClaim */
	struct error *result, *verdict; /* verdict: of the attempt under way */
	bool done;
	struct waiter *next;
};

struct line { /* of one namespace; lives while somebody stands in it */
	struct waiter *first, **last;
	struct waitq q;
	unsigned users;
	bool busy;
};

static struct map lines; /* namespace -> struct line; one loop serves all requests */

/* ---- one write, one quota ---- */

static struct str names_of(struct arena *a, const struct str_map *m)
{
	struct buf b buf_cleanup = {0};

	for (uint32_t i = 0; i < m->n; i++)
		buf_printf(&b, "%s%.*s", i ? "," : "", STR_ARG(m->v[i].key));
	return arena_str(a, buf_view(&b));
}

/* What the write adds to the usage of its namespace; of updates only growth counts. */
static void growth(struct arena *ar, const struct waiter *w, const struct core_v1_resource_quota *q, struct str_map *out)
{
	const struct admission *a = w->a;
	struct str_map before, now;
	int64_t s = time_now().s;

	quota_usage(ar, a->group, a->resource, a->obj, s, w->devices, &now);
	memset(out, 0, sizeof *out);
	memset(&before, 0, sizeof before);
	/* An update that moves the object into the quota's scopes costs all of it. */
	if (a->op == ADMIT_UPDATE && a->old && quota_scopes_match(&q->spec, a->group, a->resource, a->old))
		quota_usage(ar, a->group, a->resource, a->old, s, w->devices, &before);
	for (uint32_t i = 0; i < now.n; i++) {
		struct str b = str_map_get(&before, now.v[i].key);
		struct str d = b.n ? quantity_sub(ar, now.v[i].value, b) : now.v[i].value;

		if (quantity_cmp(d, STR("0")) > 0)
			str_map_set(ar, out, now.v[i].key, d);
	}
}

/* *is: the quota counts something of the write, as far as its scopes go. An error when it cannot be judged by the quota. */
static struct error *pertinent(struct arena *ar, const struct waiter *w, struct core_v1_resource_quota *q, bool *is)
{
	const struct admission *a = w->a;
	const struct str_map *hard = API_MAP(&q->status.hard);
	struct str_map counted = {0};
	bool known = true;

	*is = false;
	for (uint32_t i = 0; i < hard->n; i++) {
		if (!quota_counts(a->group, a->resource, hard->v[i].key, w->devices))
			continue;
		str_map_set(ar, &counted, hard->v[i].key, hard->v[i].value);
		known &= str_map_has(API_MAP(&q->status.used), hard->v[i].key);
	}
	if (!counted.n || !quota_scopes_match(&q->spec, a->group, a->resource, a->obj))
		return NULL;
	if (str_eqz(a->resource, "pods") && !a->group.n) {
		struct str missing = quota_missing(ar, &counted, a->obj);

		if (missing.n)
			return admission_forbidden(a, "failed quota: %.*s: must specify %.*s", STR_ARG(q->metadata.name), STR_ARG(missing));
	}
	if (!known)
		return admission_forbidden(a, "status unknown for quota: %.*s, resources: %.*s", STR_ARG(q->metadata.name),
					   STR_ARG(names_of(ar, &counted)));
	*is = true;
	return NULL;
}

/* Adds what a write uses to q->status.used of a quota that is pertinent; *charged when there was any. */
static struct error *charge(struct arena *ar, const struct waiter *w, struct core_v1_resource_quota *q, bool *charged)
{
	const struct admission *a = w->a;
	const struct str_map *hard = API_MAP(&q->status.hard);
	struct str_map *used = API_MAP(&q->status.used);
	struct str_map delta, next = {0};
	struct buf req buf_cleanup = {0}, was buf_cleanup = {0}, lim buf_cleanup = {0};

	*charged = false;
	growth(ar, w, q, &delta);
	for (uint32_t i = 0; i < delta.n; i++) {
		struct str k = delta.v[i].key, d = delta.v[i].value, h = str_map_get(hard, k), u = str_map_get(used, k);

		if (!h.n)
			continue;
		struct str sum = quantity_add(ar, u.n ? u : STR("0"), d);

		str_map_set(ar, &next, k, sum);
		/* Status updates (claims that grew) are facts: counted, not refused. */
		if (quantity_cmp(sum, h) <= 0 || str_eqz(a->subresource, "status"))
			continue;
		buf_printf(&req, "%s%.*s=%.*s", req.n ? "," : "", STR_ARG(k), STR_ARG(d));
		buf_printf(&was, "%s%.*s=%.*s", was.n ? "," : "", STR_ARG(k), STR_ARG(u.n ? u : STR("0")));
		buf_printf(&lim, "%s%.*s=%.*s", lim.n ? "," : "", STR_ARG(k), STR_ARG(h));
	}
	if (req.n)
		return admission_forbidden(a, "exceeded quota: %.*s, requested: %.*s, used: %.*s, limited: %.*s", STR_ARG(q->metadata.name),
					   STR_ARG(buf_view(&req)), STR_ARG(buf_view(&was)), STR_ARG(buf_view(&lim)));
	*charged = next.n > 0;
	for (uint32_t i = 0; i < next.n; i++)
		str_map_set(ar, used, next.v[i].key, next.v[i].value);
	return NULL;
}

/* ---- what is limited by configuration: it needs a quota to be used at all ---- */

static const struct apiserverconfig_v1_resource_quota_configuration *config; /* NULL: nothing */

static struct error *configure(struct apiserver *s, struct str text)
{
	struct apiserverconfig_v1_resource_quota_configuration *c = arena_new(&s->arena, struct apiserverconfig_v1_resource_quota_configuration);
	struct field_errors e = {.arena = &s->arena};

	if (!text.n)
		return NULL;
	TRY(config_decode(&s->arena, &apiserverconfig_v1_resource_quota_configuration_type,
			  CONFIG_V1("ResourceQuotaConfiguration") "|Configuration of resourcequota.admission.k8s.io/v1beta1|"
								  "Configuration of resourcequota.admission.k8s.io/v1alpha1",
			  text, c));
	for (uint32_t i = 0; i < c->limited_resources.n; i++)
		if (!c->limited_resources.v[i].resource.n)
			field_required(&e, FIELD_CHILD(FIELD_INDEX(FIELD_ROOT("limitedResources"), i), "resource"), "");
	TRY(config_errors(&e));
	config = c->limited_resources.n ? c : NULL;
	return NULL;
}

/* A quota that is pertinent has the name in its status.hard. */
static bool covers_name(const struct waiter *w, struct core_v1_resource_quota *const *v, const bool *is, size_t n, struct str name)
{
	const struct admission *a = w->a;
	for (size_t i = 0; i < n; i++)
		if (is[i] && str_map_has(API_MAP(&v[i]->status.hard), name) && quota_counts(a->group, a->resource, name, w->devices))
			return true;
	return false;
}

static bool scope_matches(struct arena *ar, const struct admission *a, const struct core_v1_scoped_resource_selector_requirement *r)
{
	struct core_v1_resource_quota_spec spec = {.scope_selector = arena_new(ar, struct core_v1_scope_selector)};

	*arena_push(ar, &spec.scope_selector->match_expressions) = *r;
	return quota_scopes_match(&spec, a->group, a->resource, a->obj);
}

/* Any quota of the namespace selects the write by this scope, in whatever way. */
static bool covers_scope(struct arena *ar, const struct admission *a, struct core_v1_resource_quota *const *v, size_t n, struct str scope)
{
	for (size_t i = 0; i < n; i++) {
		const struct core_v1_scope_selector *s = v[i]->spec.scope_selector;

		for (uint32_t k = 0; k < v[i]->spec.scopes.n; k++) {
			const struct core_v1_scoped_resource_selector_requirement r = {.scope_name = scope, .operator = STR("Exists")};

			if (str_eq(v[i]->spec.scopes.v[k], scope) && scope_matches(ar, a, &r))
				return true;
		}
		for (uint32_t k = 0; s && k < s->match_expressions.n; k++)
			if (str_eq(s->match_expressions.v[k].scope_name, scope) && scope_matches(ar, a, &s->match_expressions.v[k]))
				return true;
	}
	return false;
}

static bool contains_any(struct str name, const struct apiserverconfig_v1_limited_resource *l)
{
	for (uint32_t i = 0; i < l->match_contains.n; i++)
		if (str_contains(name, l->match_contains.v[i]))
			return true;
	return false;
}

/* The write uses more of anything, by the quotas that are pertinent or, where there is none, at all. */
static bool grows(struct arena *ar, const struct waiter *w, struct core_v1_resource_quota *const *v, const bool *is, size_t n)
{
	static const struct core_v1_resource_quota none;
	struct str_map delta = {0};
	bool any = false;

	for (size_t i = 0; i < n && !delta.n; i++) {
		any |= is[i];
		if (is[i])
			growth(ar, w, v[i], &delta);
	}
	if (!any)
		growth(ar, w, &none, &delta);
	return delta.n > 0;
}

/* v, n: all quotas of the namespace; is: those that are pertinent. */
static struct error *check_limited(struct arena *ar, const struct waiter *w, struct core_v1_resource_quota *const *v, const bool *is,
				   size_t n)
{
	const struct admission *a = w->a;
	struct buf names buf_cleanup = {0};
	struct str_map usage;

	if (!config || !grows(ar, w, v, is, n))
		return NULL;
	quota_usage(ar, a->group, a->resource, a->obj, time_now().s, w->devices, &usage);
	for (uint32_t i = 0; i < usage.n; i++)
		for (uint32_t k = 0; k < config->limited_resources.n; k++) {
			const struct apiserverconfig_v1_limited_resource *l = &config->limited_resources.v[k];

			if (!str_eq(l->api_group, a->group) || !str_eq(l->resource, a->resource) || !contains_any(usage.v[i].key, l) ||
			    quantity_cmp(usage.v[i].value, STR("0")) <= 0 || covers_name(w, v, is, n, usage.v[i].key))
				continue;
			buf_printf(&names, "%s%.*s", names.n ? "," : "", STR_ARG(usage.v[i].key));
			break;
		}
	if (names.n)
		return admission_forbidden(a, "insufficient quota to consume: %s", buf_z(&names));
	for (uint32_t k = 0; k < config->limited_resources.n; k++)
		for (uint32_t i = 0; i < config->limited_resources.v[k].match_scopes.n; i++) {
			const struct core_v1_scoped_resource_selector_requirement *r = &config->limited_resources.v[k].match_scopes.v[i];

			if (scope_matches(ar, a, r) && !covers_scope(ar, a, v, n, r->scope_name)) /* upstream answers 500, too */
				return error_new("insufficient quota to match these scopes: %.*s %.*s", STR_ARG(r->scope_name), STR_ARG(r->operator));
		}
	return NULL;
}

/* ---- claims of devices ---- */

#define EXTENDED_CLAIM "resource.kubernetes.io/extended-resource-claim"

/* The pod that owns a claim made for extended resources, or NULL. */
static const struct meta_v1_owner_reference *extended_owner(const struct meta_v1_object_meta *m)
{
	if (!str_eqz(str_map_get((const struct str_map *)&m->annotations, STR(EXTENDED_CLAIM)), "true"))
		return NULL;
	for (uint32_t i = 0; i < m->owner_references.n; i++) {
		const struct meta_v1_owner_reference *o = &m->owner_references.v[i];

		if (o->controller && *o->controller)
			return str_eqz(o->kind, "Pod") && str_eqz(o->api_version, "v1") ? o : NULL;
	}
	return NULL;
}

/* Another claim made for the pod's extended resources came before this one. */
static struct error *made_before(struct arena *ar, const struct admission *a, struct str pod_uid, bool *before)
{
	const struct meta_v1_object_meta *own = &((const struct resource_v1_resource_claim *)a->obj)->metadata;
	struct storage *st = storage_find(a->rq->s, STR("resource.k8s.io"), STR("resourceclaims"));
	const struct cache_entry *en;
	struct cache_snap *snap;
	struct cache_iter it;
	struct error *e = NULL;

	*before = false;
	TRY(cache_snapshot(st->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, st->cache, snap, a->ns, STR_NULL, NULL);
	while (!e && !*before && (en = cache_iter_next(&it)) != NULL) {
		struct meta_v1_partial_object_metadata *p = arena_new(ar, struct meta_v1_partial_object_metadata);
		const struct meta_v1_owner_reference *o;

		e = cache_entry_decode(ar, &meta_v1_partial_object_metadata_type, en, true, p);
		o = e ? NULL : extended_owner(&p->metadata);
		*before = o && str_eq(o->uid, pod_uid) && !str_eq(p->metadata.uid, own->uid) &&
			  (p->metadata.creation_timestamp.s < own->creation_timestamp.s ||
			   (p->metadata.creation_timestamp.s == own->creation_timestamp.s && str_cmp(p->metadata.name, own->name) < 0));
	}
	cache_snap_free(snap);
	return e;
}

/* The pod was charged for its extended resources: the first claim that is made for them costs only what is beyond. */
static struct error *charged_pod(struct arena *ar, const struct admission *a, struct str_map *charged)
{
	const struct resource_v1_resource_claim *c = a->obj;
	const struct meta_v1_owner_reference *o = extended_owner(&c->metadata);
	const struct core_v1_pod *pod = o ? registry_peek(a->rq->s, ar, storage_find(a->rq->s, STR(""), STR("pods")), a->ns, o->name) : NULL;
	bool before = false;

	if (!pod || !str_eq(pod->metadata.uid, o->uid))
		return NULL;
	if (pod->status.extended_resource_claim_status)
		before = !str_eq(pod->status.extended_resource_claim_status->resource_claim_name, c->metadata.name);
	else
		TRY(made_before(ar, a, o->uid, &before));
	if (!before)
		quota_usage(ar, STR(""), STR("pods"), pod, time_now().s, NULL, charged);
	return NULL;
}

static struct error *devices_of(struct arena *ar, const struct admission *a, const struct quota_devices **out)
{
	struct storage *st = storage_find(a->rq->s, STR("resource.k8s.io"), STR("deviceclasses"));
	struct quota_devices *d = arena_new(ar, struct quota_devices);
	const struct cache_entry *en;
	struct cache_snap *snap;
	struct cache_iter it;
	struct error *e = NULL;

	if (!str_eqz(a->group, "resource.k8s.io") || !str_eqz(a->resource, "resourceclaims"))
		return NULL;
	TRY(cache_snapshot(st->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, st->cache, snap, STR_NULL, STR_NULL, NULL);
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		struct resource_v1_device_class *c = arena_new(ar, struct resource_v1_device_class);

		e = cache_entry_decode(ar, &resource_v1_device_class_type, en, true, c);
		if (!e)
			str_map_set(ar, &d->classes, c->metadata.name, c->spec.extended_resource_name ? *c->spec.extended_resource_name : STR(""));
	}
	cache_snap_free(snap);
	*out = d;
	return e ? e : charged_pod(ar, a, &d->charged);
}

/* ---- all that wait, all quotas ---- */

struct round {
	struct apiserver *s;
	struct str ns;
	struct waiter *waiters;
};

/* For registry_update: called with the quota as it is now, again after a lost race. */
static struct error *make_charged(void *ctx, struct request *rq, const void *old, void **out)
{
	struct round *r = ctx;
	struct core_v1_resource_quota *q = arena_new(rq->a, struct core_v1_resource_quota);
	bool is, charged;

	object_copy(rq->a, &core_v1_resource_quota_type, old, q);
	for (struct waiter *w = r->waiters; w; w = w->next) {
		error_clear(&w->verdict);
		if (w->result || w->a->dry_run)
			continue;
		w->verdict = pertinent(rq->a, w, q, &is);
		if (!w->verdict && is)
			w->verdict = charge(rq->a, w, q, &charged);
	}
	q->metadata.resource_version = STR_NULL;
	*out = q;
	return NULL;
}

static struct error *write_charged(struct round *r, struct arena *a, struct str name)
{
	struct request rq;
	struct write_result res;
	struct update u = {.make = make_charged, .ctx = r, .sub = "status", .retry = true, .flags = UPDATE_UNCONDITIONAL | UPDATE_NO_ADMISSION};

	request_internal(&rq, r->s, a, resource_any(r->s, STR(""), STR("resourcequotas")), r->ns);
	/* The write that it is for comes later in the same log: whatever keeps that keeps this. */
	rq.nosync = true;
	struct error *e = registry_update(&rq, r->ns, name, &u, &res);

	if (!e)
		cache_entry_unref(res.entry);
	if (error_is(e, 404, NULL)) /* a quota that is gone limits nothing */
		error_clear(&e);
	return e;
}

static struct error *copy_error(const struct error *e)
{
	return error_status(e->status ? e->status : 500, e->reason, "%s", e->message);
}

static struct error *read_quotas(struct round *r, struct arena *a, struct core_v1_resource_quota ***out, size_t *n)
{
	struct storage *st = storage_find(r->s, STR(""), STR("resourcequotas"));
	LIST(struct core_v1_resource_quota *) all = {0};
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e = NULL;

	TRY(cache_snapshot(st->cache, CACHE_CONSISTENT, 0, &snap));
	cache_iter_init(&it, st->cache, snap, r->ns, STR_NULL, NULL);
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		struct core_v1_resource_quota *q = arena_new(a, struct core_v1_resource_quota);

		e = cache_entry_decode(a, &core_v1_resource_quota_type, en, true, q);
		*arena_push(a, &all) = q;
	}
	cache_snap_free(snap);
	*out = all.v;
	*n = all.n;
	return e;
}

/* All quotas are asked before any is charged, so that a refused write costs none. */
static struct error *judge(struct round *r)
{
	struct arena a arena_cleanup = {0};
	struct core_v1_resource_quota **v;
	size_t n;

	TRY(read_quotas(r, &a, &v, &n));
	bool *touched = arena_array(&a, bool, n + 1);

	for (struct waiter *w = r->waiters; w; w = w->next) {
		struct str_map *saved = arena_array(&a, struct str_map, n + 1);
		bool *mine = arena_array(&a, bool, n + 1), *is = arena_array(&a, bool, n + 1);

		for (size_t i = 0; i < n && !w->result; i++)
			w->result = pertinent(&a, w, v[i], &is[i]);
		if (!w->result)
			w->result = check_limited(&a, w, v, is, n);
		for (size_t i = 0; i < n && !w->result; i++) {
			quota_add(&a, &saved[i], API_MAP(&v[i]->status.used));
			if (is[i])
				w->result = charge(&a, w, v[i], &mine[i]);
		}
		for (size_t i = 0; i < n; i++) {
			if (w->result || w->a->dry_run) {
				if (mine[i])
					*API_MAP(&v[i]->status.used) = saved[i];
			} else {
				touched[i] |= mine[i];
			}
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (!touched[i])
			continue;
		struct error *e = write_charged(r, &a, v[i]->metadata.name);

		for (struct waiter *w = r->waiters; w; w = w->next) {
			if (e && !w->result)
				w->result = copy_error(e);
			else if (!w->result)
				w->result = w->verdict;
			else
				error_free(w->verdict);
			w->verdict = NULL;
		}
		error_free(e);
	}
	return NULL;
}

static void serve(struct line *l, struct apiserver *s, struct str ns)
{
	struct round r = {.s = s, .ns = ns, .waiters = l->first};

	l->first = NULL;
	l->last = &l->first;
	int64_t token = deadline_push(CHARGE_TIMEOUT_MS);
	struct error *e = judge(&r);

	deadline_pop(token);
	for (struct waiter *w = r.waiters; w; w = w->next) {
		if (e && !w->result)
			w->result = copy_error(e);
		w->done = true;
	}
	error_free(e);
}

/* Others hold our waiter, so nothing ends this early; each round has its deadline. */
static struct error *stand_in_line(struct admission *a)
{
	struct waiter w = {.a = a};
	struct line *l;

	TRY(devices_of(a->rq->a, a, &w.devices));
	l = map_get(&lines, a->ns);
	if (!l) {
		l = xcalloc(1, sizeof *l);
		l->last = &l->first;
		map_set(&lines, a->ns, l);
	}
	l->users++;
	*l->last = &w;
	l->last = &w.next;
	fiber_shield_begin();
	while (!w.done) {
		if (l->busy) {
			error_free(waitq_wait(&l->q));
			continue;
		}
		l->busy = true;
		serve(l, a->rq->s, a->ns);
		l->busy = false;
		waitq_wake_all(&l->q);
	}
	fiber_shield_end();
	if (--l->users == 0)
		free(map_del(&lines, a->ns));
	return w.result;
}

static bool terminating(const struct core_v1_pod *p)
{
	return p->spec.active_deadline_seconds && *p->spec.active_deadline_seconds >= 0;
}

/* Does this write cost anything at all, by its kind? */
static bool concerns(const struct admission *a)
{
	bool pods = !a->group.n && str_eqz(a->resource, "pods"), claims = !a->group.n && str_eqz(a->resource, "persistentvolumeclaims");

	if (a->subresource.n)
		return a->op == ADMIT_UPDATE && ((pods && str_eqz(a->subresource, "resize")) || (claims && str_eqz(a->subresource, "status")));
	if (a->op == ADMIT_CREATE)
		return true;
	if (pods)
		return a->old && terminating(a->obj) != terminating(a->old);
	return quota_reads_object(a->group, a->resource);
}

static struct error *quota_validate(struct admission *a)
{
	struct storage *quotas = storage_find(a->rq->s, STR(""), STR("resourcequotas"));
	struct cache_snap *snap;
	bool none;

	if (!a->ns.n || a->rq->internal || !a->res->st || !a->obj || quota_ignores(a->group, a->resource) || !concerns(a))
		return NULL;
	TRY(cache_snapshot(quotas->cache, CACHE_CONSISTENT, 0, &snap));
	none = cache_snap_count(snap, a->ns, STR_NULL) == 0;
	cache_snap_free(snap);
	return none && !config ? NULL : stand_in_line(a);
}

const struct admission_plugin admit_resource_quota = {
	.name = "ResourceQuota", .ops = ADMIT_CREATE | ADMIT_UPDATE, .configure = configure, .validate = quota_validate,
};
