/*
 * controller/resourcequota.c: counts what each namespace uses of its quotas, into status.used.
 *
 * The API server charges writes as they come (admission); this controller gives status.hard its first value, follows changes
 * of the spec, and finds what was freed: when a counted object goes or shrinks, and all anew every five minutes, as upstream.
 */
#include <stdio.h>
#include <stdlib.h>

#include "controller/common.h"
#include "schema/quantity.h"
#include "schema/quota.h"

#define RESYNC_MS (5 * 60 * 1000)
#define DISCOVERY_MS 2200 /* after a change, until what is served is asked for again */
#define SYNC_TIMEOUT_MS 10000 /* for a resource that cannot be listed */
/*
 * A charge precedes the object that it is for. Counting lower right behind a charge would miss objects still on their way, so
 * a count that frees something waits until nobody has charged for a moment, yet not for ever.
 */
#define QUIET_MS 300
#define PATIENCE_MS 3000

struct tracked { /* a resource that some quota counts */
	struct quota_controller *c;
	struct str group, plural;   /* owned: live as long as the controller */
	const struct api_resource *r;
	struct arena a;             /* of custom resources: their descriptor */
	struct informer *informer;
	bool own;                   /* a custom resource's informer is ours alone: it goes with the resource */
	unsigned users;             /* workers that count by it */
};

struct settling {
	int64_t seen, first;        /* now_ms of the last status and of the first wish to count lower */
	char rv[24];
};

struct quota_controller {
	struct manager *m;
	struct informer *quotas;
	struct workqueue *q;
	struct map tracked;         /* "group/plural" -> struct tracked */
	struct map settling;        /* "ns/name" -> struct settling */
};

/* ---- what is freed ---- */

struct wake {
	struct quota_controller *c;
	const struct tracked *t;
};

static bool counts_any(const struct core_v1_resource_quota *q, const struct tracked *t)
{
	for (uint32_t i = 0; i < q->spec.hard.n; i++)
		if (quota_counts(t->group, t->plural, q->spec.hard.v[i].key, NULL))
			return true;
	return false;
}

static bool wake_one(void *ctx, const struct cached_object *o)
{
	struct wake *w = ctx;
	arena_cleanup struct arena a = {0};
	const struct core_v1_resource_quota *q = cached_decode(w->c->quotas, &a, o);

	if (q && counts_any(q, w->t))
		workqueue_add(w->c->q, object_key(&a, o->ns, o->name));
	return true;
}

static bool any_quota(void *ctx, const struct cached_object *o)
{
	*(bool *)ctx = true;
	return false;
}

/* Usage, and for pods what their scopes depend on. */
static bool usage_changed(struct tracked *t, const struct cached_object *old, const struct cached_object *new_)
{
	arena_cleanup struct arena a = {0};
	struct str_map was, is;
	int64_t now = wall_ms() / 1000;
	const void *o = cached_decode(t->informer, &a, old), *n = cached_decode(t->informer, &a, new_);

	if (!o || !n)
		return true;
	if (t->r == &core_v1_pods_resource) {
		const struct core_v1_pod *p = o, *q = n;

		if (!p->spec.active_deadline_seconds != !q->spec.active_deadline_seconds)
			return true;
	}
	quota_usage(&a, t->group, t->plural, o, now, NULL, &was);
	quota_usage(&a, t->group, t->plural, n, now, NULL, &is);
	return !map_equal(&was, &is);
}

static void on_object(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct tracked *t = ctx;
	struct wake w = {t->c, t};
	struct str ns = (new_ ? new_ : old)->ns;
	bool any = false;

	if (ev == INFORMER_ADDED || (ev == INFORMER_UPDATED && !quota_reads_object(t->group, t->plural)))
		return;
	informer_each(t->c->quotas, ns, NULL, any_quota, &any);
	if (!any || (ev == INFORMER_UPDATED && !usage_changed(t, old, new_)))
		return;
	informer_each(t->c->quotas, ns, NULL, wake_one, &w);
}

/* ---- what is counted ---- */

static struct tracked *track(struct quota_controller *c, struct arena *a, const struct api_resource *r, bool custom)
{
	struct str key = arena_printf(a, "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->plural));
	struct tracked *t = map_get(&c->tracked, key);

	if (t)
		return t;
	t = xcalloc(1, sizeof(*t));
	t->c = c;
	t->r = custom ? client_dynamic_resource(&t->a, r->group, r->version, r->plural, r->kind, r->namespaced, r->verbs) : r;
	t->group = t->r->group;
	t->plural = t->r->plural;
	t->own = custom;
	if (custom)
		t->informer = informer_new(c->m->root->client, &(struct informer_opts){.resource = t->r, .metadata_only = true});
	else if (quota_reads_object(t->group, t->plural))
		t->informer = manager_informer(c->m, r);
	else
		t->informer = manager_metadata_informer(c->m, r);
	informer_on_event(t->informer, on_object, t);
	informer_start(t->informer);
	map_set(&c->tracked, key, t);
	return t;
}

static void untrack(struct quota_controller *c, struct arena *a, struct str group, struct str plural)
{
	struct tracked *t = map_get(&c->tracked, arena_printf(a, "%.*s/%.*s", STR_ARG(group), STR_ARG(plural)));

	if (!t || !t->own || t->users)
		return;
	map_del(&c->tracked, arena_printf(a, "%.*s/%.*s", STR_ARG(group), STR_ARG(plural)));
	informer_stop(t->informer);
	arena_free(&t->a);
	free(t);
}

typedef LIST(struct tracked *) tracked_list;

static void add_tracked(struct arena *a, tracked_list *to, struct tracked *t)
{
	for (uint32_t i = 0; i < to->n; i++)
		if (to->v[i] == t)
			return;
	t->users++;
	*arena_push(a, to) = t;
}

/* "count/PLURAL.GROUP" -> parts. */
static bool count_name(struct str name, struct str *group, struct str *plural)
{
	if (!str_has_prefix(name, STR("count/")))
		return false;
	struct str rest = str_sub(name, 6, name.n);

	*plural = str_cut(&rest, '.');
	*group = rest;
	return true;
}

/* The resource as the server prefers it, if it may be counted at all. */
static const struct api_resource *served(const struct api_resource **v, size_t n, struct str group, struct str plural)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(v[i]->group, group) && str_eq(v[i]->plural, plural) && v[i]->namespaced &&
		    (v[i]->verbs & (VERB_CREATE | VERB_LIST | VERB_DELETE)) == (VERB_CREATE | VERB_LIST | VERB_DELETE))
			return v[i];
	return NULL;
}

/* Which resources `name` counts. A name nobody counts stays out of status.used, as upstream. */
static struct error *resources_for(struct quota_controller *c, struct arena *a, struct str key, struct str name, tracked_list *out)
{
	static const struct api_resource *const known[] = {
		&core_v1_pods_resource, &core_v1_services_resource, &core_v1_persistentvolumeclaims_resource,
		&resource_v1_resourceclaims_resource, &core_v1_configmaps_resource, &core_v1_secrets_resource,
		&core_v1_replicationcontrollers_resource, &core_v1_resourcequotas_resource,
	};
	const struct api_resource **v;
	struct str group, plural;
	size_t n, before = out->n;
	bool partial;

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (quota_counts(known[i]->group, known[i]->plural, name, NULL))
			add_tracked(a, out, track(c, a, known[i], false));
	if (out->n > before || !count_name(name, &group, &plural) || quota_ignores(group, plural))
		return NULL;
	TRY(manager_discover(c->m, &v, &n, &partial));
	const struct api_resource *r = served(v, n, group, plural);

	if (!r) {
		if (manager_discovery_stale(c->m)) /* it may be served by now: what is known is a little old */
			workqueue_add_after(c->q, key, DISCOVERY_MS);
		else if (!partial)
			untrack(c, a, group, plural);
		return NULL;
	}
	const struct api_resource *built_in = api_resource_find(r->group, r->version, r->plural);

	add_tracked(a, out, track(c, a, built_in ? built_in : r, !built_in));
	return NULL;
}

struct tally {
	const struct core_v1_resource_quota *q;
	struct arena *a;
	const struct tracked *t;
	struct str_map used;
	int64_t now_s;
};

static bool count_one(void *ctx, const struct cached_object *o)
{
	struct tally *t = ctx;
	bool read = quota_reads_object(t->t->group, t->t->plural);
	struct str_map usage;
	void *obj = read ? cached_decode(t->t->informer, t->a, o) : NULL;

	if (read && !obj)
		return true;
	if (!quota_scopes_match(&t->q->spec, t->t->group, t->t->plural, obj))
		return true;
	quota_usage(t->a, t->t->group, t->t->plural, obj, t->now_s, NULL, &usage);
	quota_add(t->a, &t->used, &usage);
	return true;
}

/* ---- one quota ---- */

static bool same_amounts(const struct str_map *x, const struct str_map *y)
{
	if (x->n != y->n)
		return false;
	for (uint32_t i = 0; i < x->n; i++) {
		struct str v = str_map_get(y, x->v[i].key);

		if (!v.n || quantity_cmp(v, x->v[i].value))
			return false;
	}
	return true;
}

static bool frees(const struct str_map *was, const struct str_map *is)
{
	for (uint32_t i = 0; i < is->n; i++) {
		struct str w = str_map_get(was, is->v[i].key);

		if (w.n && quantity_cmp(is->v[i].value, w) < 0)
			return true;
	}
	return false;
}

/* ms to wait before counting lower; 0: now. */
static int64_t settle(struct quota_controller *c, struct str key, const struct core_v1_resource_quota *q)
{
	struct settling *s = map_get(&c->settling, key);
	struct str rv = q->metadata.resource_version;

	if (!s) {
		s = xcalloc(1, sizeof(*s));
		s->first = s->seen = now_ms();
		snprintf(s->rv, sizeof(s->rv), "%.*s", STR_ARG(rv));
		map_set(&c->settling, key, s);
		return QUIET_MS;
	}
	if (!str_eqz(rv, s->rv)) {
		s->seen = now_ms();
		snprintf(s->rv, sizeof(s->rv), "%.*s", STR_ARG(rv));
	}
	int64_t left = QUIET_MS - (now_ms() - s->seen), patience = PATIENCE_MS - (now_ms() - s->first);

	return left < patience ? left : patience;
}

static struct error *wait_synced(const tracked_list *all)
{
	struct error *e = NULL;
	int64_t token = deadline_push(SYNC_TIMEOUT_MS);

	for (uint32_t i = 0; i < all->n && !e; i++)
		e = error_wrap(informer_wait_synced(all->v[i]->informer), "waiting for %.*s", STR_ARG(all->v[i]->plural));
	deadline_pop(token);
	return e;
}

static struct error *count_anew(struct quota_controller *c, struct arena *a, struct str ns, struct str name, const tracked_list *trackeds)
{
	const tracked_list all = *trackeds;
	struct str key = object_key(a, ns, name);
	struct str_map used = {0};

	TRY(wait_synced(&all));
	/* Read after the waits: what is older than the status that it is put on is refused by the server. */
	struct core_v1_resource_quota *q = informer_get(c->quotas, a, ns, name);

	if (!q)
		return NULL;
	const struct str_map *hard = API_MAP(&q->spec.hard), *was = API_MAP(&q->status.used);
	struct tally t = {.q = q, .a = a, .now_s = wall_ms() / 1000};

	for (uint32_t i = 0; i < all.n; i++) {
		t.t = all.v[i];
		informer_each(t.t->informer, ns, NULL, count_one, &t);
	}
	for (uint32_t i = 0; i < hard->n; i++) {
		struct str k = hard->v[i].key, v = str_map_get(&t.used, k);
		bool counted = false;

		for (uint32_t j = 0; j < all.n && !counted; j++)
			counted = quota_counts(all.v[j]->group, all.v[j]->plural, k, NULL);
		if (counted)
			str_map_set(a, &used, k, v.n ? v : STR("0"));
		else if (str_map_has(was, k))
			str_map_set(a, &used, k, str_map_get(was, k));
	}
	bool same_hard = same_amounts(hard, API_MAP(&q->status.hard));

	if (same_hard && same_amounts(&used, was)) {
		free(map_del(&c->settling, key));
		return NULL;
	}
	if (same_hard && frees(was, &used)) {
		int64_t wait = settle(c, key, q);

		if (wait > 0) {
			workqueue_add_after(c->q, key, wait);
			return NULL;
		}
	}
	free(map_del(&c->settling, key));
	*API_MAP(&q->status.hard) = *hard;
	*API_MAP(&q->status.used) = used;
	struct error *e = client_update(c->m->client, a, &core_v1_resourcequotas_resource, ns, "status", q, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	if (error_is(e, 409, NULL)) { /* charged meanwhile: count again when that is seen here */
		error_clear(&e);
		workqueue_add_after(c->q, key, 50);
	}
	return e;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct quota_controller *c = ctx;
	struct core_v1_resource_quota *q = informer_get(c->quotas, a, ns, name);
	struct str key = object_key(a, ns, name);
	struct error *e = NULL;
	tracked_list all = {0};

	if (!q) {
		free(map_del(&c->settling, key));
		return NULL;
	}
	for (uint32_t i = 0; i < q->spec.hard.n && !e; i++)
		e = resources_for(c, a, key, q->spec.hard.v[i].key, &all);
	if (!e)
		e = count_anew(c, a, ns, name, &all);
	for (uint32_t i = 0; i < all.n; i++)
		all.v[i]->users--;
	return e;
}

static void on_quota(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct quota_controller *c = ctx;
	arena_cleanup struct arena a = {0};

	if (ev == INFORMER_UPDATED) { /* charges change status.used alone */
		const struct core_v1_resource_quota *n = cached_decode(c->quotas, &a, new_), *o = cached_decode(c->quotas, &a, old);

		if (n && o && same_amounts(API_MAP(&n->spec.hard), API_MAP(&n->status.hard)) &&
		    SAME(core_v1_resource_quota_spec, &n->spec, &o->spec))
			return;
	}
	workqueue_add(c->q, object_key(&a, (new_ ? new_ : old)->ns, (new_ ? new_ : old)->name));
}

static bool queue_one(void *ctx, const struct cached_object *o)
{
	struct quota_controller *c = ctx;
	arena_cleanup struct arena a = {0};

	workqueue_add(c->q, object_key(&a, o->ns, o->name));
	return true;
}

static bool queue_late(void *ctx, const struct cached_object *o)
{
	struct quota_controller *c = ctx;
	arena_cleanup struct arena a = {0};

	workqueue_add_after(c->q, object_key(&a, o->ns, o->name), DISCOVERY_MS);
	return true;
}

/* A custom resource may have come or gone. */
static void on_discovery(void *ctx)
{
	struct quota_controller *c = ctx;

	informer_each(c->quotas, STR_NULL, NULL, queue_late, c);
}

static struct error *resync(void *ctx, struct arena *a)
{
	struct quota_controller *c = ctx;

	informer_each(c->quotas, STR_NULL, NULL, queue_one, c);
	return NULL;
}

void resource_quota_start(struct manager *m)
{
	struct quota_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("resource_quota_controller");
	c->quotas = manager_informer(m, &core_v1_resourcequotas_resource);
	informer_on_event(c->quotas, on_quota, c);
	manager_on_discovery(m, on_discovery, c);
	controller_run(m, c->q, "resourcequota", 5, reconcile, c, c->quotas, NULL);
	controller_every(m, "resourcequota-resync", RESYNC_MS, resync, c, c->quotas, NULL);
}
