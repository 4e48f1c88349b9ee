/*
 * Aggregated ClusterRoles: the rules of a role with an aggregationRule are those of the roles its selectors
 * choose, in order of names. Kept here so that roles from charts count at once; upstream's controller
 * manager, where it runs, writes the same.
 */
#include "apiserver/background.h"
#include "apiserver/bootstrap.h"
#include "schema/selector.h"

struct found {
	struct rbac_v1_cluster_role **v;
	uint32_t n, cap;
};

static struct error *all_roles(struct apiserver *s, struct arena *a, struct found *out)
{
	struct storage *st = storage_find(s, STR("rbac.authorization.k8s.io"), STR("clusterroles"));
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *e;
	struct error *err = NULL;

	TRY(cache_snapshot(st->cache, CACHE_CONSISTENT, 0, &snap));
	cache_iter_init(&it, st->cache, snap, STR_NULL, STR_NULL, NULL);
	while (!err && (e = cache_iter_next(&it)) != NULL) {
		struct rbac_v1_cluster_role *r = arena_new(a, struct rbac_v1_cluster_role);

		err = cache_entry_decode(a, &rbac_v1_cluster_role_type, e, true, r);
		if (!err)
			*arena_push(a, out) = r;
	}
	cache_snap_free(snap);
	return err;
}

struct rules {
	LIST(struct rbac_v1_policy_rule) list;
};

static struct error *make_rules(void *ctx, struct request *rq, const void *old, void **out)
{
	struct rules *want = ctx;
	struct rbac_v1_cluster_role *r = arena_new(rq->a, struct rbac_v1_cluster_role);

	object_copy(rq->a, &rbac_v1_cluster_role_type, old, r);
	memcpy(&r->rules, &want->list, sizeof r->rules);
	r->metadata.resource_version = STR_NULL;
	*out = r;
	return NULL;
}

static struct error *aggregate_one(struct apiserver *s, struct arena *a, const struct found *all, struct rbac_v1_cluster_role *r, bool *changed)
{
	struct rules want = {0};
	struct rbac_v1_cluster_role tmp = *r;
	struct request rq;
	struct write_result res;
	struct update u = {.make = make_rules, .ctx = &want, .retry = true, .flags = UPDATE_UNCONDITIONAL};
	struct error *e;

	for (uint32_t i = 0; i < r->aggregation_rule->cluster_role_selectors.n; i++) {
		const struct selector *sel;

		TRY(label_selector_from(a, &r->aggregation_rule->cluster_role_selectors.v[i], &sel));
		for (uint32_t k = 0; k < all->n; k++) {
			struct rbac_v1_cluster_role *o = all->v[k];

			if (str_eq(o->metadata.name, r->metadata.name) || !selector_matches(sel, API_MAP(&o->metadata.labels)))
				continue;
			for (uint32_t x = 0; x < o->rules.n; x++) {
				bool has = false;

				for (uint32_t y = 0; y < want.list.n && !has; y++)
					has = object_equal(&rbac_v1_policy_rule_type, &want.list.v[y], &o->rules.v[x]);
				if (!has)
					*arena_push(a, &want.list) = o->rules.v[x];
			}
		}
	}
	memcpy(&tmp.rules, &want.list, sizeof tmp.rules);
	if (object_field_equal(&rbac_v1_cluster_role_type, &tmp, r, "rules"))
		return NULL;
	memcpy(&r->rules, &want.list, sizeof r->rules); /* roles that aggregate this one see it in the same round */
	*changed = true;
	request_internal(&rq, s, a, resource_any(s, STR("rbac.authorization.k8s.io"), STR("clusterroles")), STR_NULL);
	rq.manager = STR("clusterrole-aggregation-controller");
	e = registry_update(&rq, STR_NULL, r->metadata.name, &u, &res);
	if (error_is(e, 404, NULL))
		error_clear(&e);
	else if (!e)
		cache_entry_unref(res.entry);
	return e;
}

static struct error *round_once(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	struct found all = {0};
	bool changed = true;

	TRY(all_roles(s, &a, &all));
	/* edit aggregates view, admin aggregates edit: a few rounds settle it */
	for (int i = 0; changed && i < 5; i++) {
		changed = false;
		for (uint32_t k = 0; k < all.n; k++)
			if (all.v[k]->aggregation_rule)
				TRY(aggregate_one(s, &a, &all, all.v[k], &changed));
	}
	return NULL;
}

void aggregate_roles_start(struct apiserver *s)
{
	background_follow(s, "clusterrole-aggregation", storage_find(s, STR("rbac.authorization.k8s.io"), STR("clusterroles"))->cache, round_once);
}
