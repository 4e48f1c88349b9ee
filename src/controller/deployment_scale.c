/* Sizes of a Deployment's ReplicaSets: rolling updates, scaling in proportion. */
#include <math.h>
#include <stdlib.h>

#include "controller/deployment.h"

int max_surge(const struct apps_v1_deployment *d)
{
	const struct apps_v1_rolling_update_deployment *u = d->spec.strategy.rolling_update;

	return is_rolling(d) && u ? scaled_value(u->max_surge, d_replicas(d), true) : 0;
}

int max_unavailable(const struct apps_v1_deployment *d)
{
	const struct apps_v1_rolling_update_deployment *u = d->spec.strategy.rolling_update;

	if (!is_rolling(d) || !d_replicas(d))
		return 0;
	int n = u ? scaled_value(u->max_unavailable, d_replicas(d), false) : 0;

	/* Both rounded to nothing would never go on. */
	if (!n && !max_surge(d))
		n = 1;
	return n > d_replicas(d) ? d_replicas(d) : n;
}

static bool set_annotation(struct arena *a, rs_t *rs, const char *key, int32_t v)
{
	struct str text = arena_printf(a, "%d", v);

	if (str_eq(str_map_get(API_MAP(&rs->metadata.annotations), str_from(key)), text))
		return false;
	str_map_set(a, API_MAP(&rs->metadata.annotations), str_from(key), text);
	return true;
}

bool set_replica_annotations(struct arena *a, rs_t *rs, int32_t desired, int32_t max)
{
	bool x = set_annotation(a, rs, ANNOTATION_DESIRED, desired), y = set_annotation(a, rs, ANNOTATION_MAX, max);

	return x || y;
}

struct error *scale_set(struct rollout *r, rs_t *rs, int32_t replicas, bool *changed)
{
	struct apps_v1_deployment *d = r->d;
	int32_t old = rs_replicas(rs);
	rs_t *copy = object_clone(r->a, &apps_v1_replica_set_type, rs);
	bool annotations = set_replica_annotations(r->a, copy, d_replicas(d), d_replicas(d) + max_surge(d));
	void *out;

	if (old == replicas && !annotations)
		return NULL;
	copy->spec.replicas = new_i32(r->a, replicas);
	TRY(client_update(r->c->m->client, r->a, &apps_v1_replicasets_resource, d->metadata.namespace, NULL, copy, &out));
	*rs = *(rs_t *)out;
	if (old == replicas)
		return NULL;
	struct core_v1_object_reference ref = object_reference(&apps_v1_deployments_resource, d);

	event_record(r->c->rec, &ref, "Normal", "ScalingReplicaSet", "Scaled %s replica set %.*s from %d to %d",
		     replicas > old ? "up" : "down", STR_ARG(rs->metadata.name), old, replicas);
	if (changed)
		*changed = true;
	return NULL;
}

static bool annotation_i32(const rs_t *rs, const char *key, int32_t *out)
{
	int64_t v;

	if (!str_to_i64(str_map_get(API_MAP(&rs->metadata.annotations), str_from(key)), &v))
		return false;
	*out = (int32_t)v;
	return true;
}

bool is_scaling_event(const struct rollout *r)
{
	for (size_t i = 0; i < r->n; i++) {
		int32_t desired;

		if (rs_replicas(r->all[i]) > 0 && annotation_i32(r->all[i], ANNOTATION_DESIRED, &desired) &&
		    desired != d_replicas(r->d))
			return true;
	}
	return false;
}

/* ---- rolling update ---- */

static int32_t total_replicas(const struct rollout *r)
{
	int32_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		n += rs_replicas(r->all[i]);
	return n;
}

static struct error *grow_new(struct rollout *r, bool *changed)
{
	int32_t want = d_replicas(r->d), have = rs_replicas(r->new_);

	if (have == want)
		return NULL;
	if (have > want)
		return scale_set(r, r->new_, want, changed);
	int32_t room = want + max_surge(r->d) - total_replicas(r);

	if (room <= 0)
		return scale_set(r, r->new_, have, changed);
	if (room > want - have)
		room = want - have;
	return scale_set(r, r->new_, have + room, changed);
}

static struct error *shrink_old(struct rollout *r, bool *changed)
{
	int32_t old_pods = total_replicas(r) - rs_replicas(r->new_);

	if (old_pods <= 0)
		return NULL;
	int32_t min_available = d_replicas(r->d) - max_unavailable(r->d);
	int32_t new_unavailable = rs_replicas(r->new_) - r->new_->status.available_replicas;
	int32_t most = total_replicas(r) - min_available - new_unavailable, done = 0;

	if (most <= 0)
		return NULL;
	/* Unhealthy ones first: they help nobody, and would hold the rollout up for ever. */
	for (size_t i = 0; i < r->n && done < most; i++) {
		rs_t *rs = r->all[i];
		int32_t have = rs_replicas(rs), k = have - rs->status.available_replicas;

		if (rs == r->new_ || !have || k <= 0)
			continue;
		if (k > most - done)
			k = most - done;
		TRY(scale_set(r, rs, have - k, changed));
		done += k;
	}
	int32_t available = 0;

	for (size_t i = 0; i < r->n; i++)
		available += r->all[i]->status.available_replicas;
	int32_t surplus = available - min_available;

	for (size_t i = 0; i < r->n && surplus > 0; i++) {
		rs_t *rs = r->all[i];
		int32_t have = rs_replicas(rs);

		if (rs == r->new_ || !have)
			continue;
		int32_t k = have < surplus ? have : surplus;

		TRY(scale_set(r, rs, have - k, changed));
		surplus -= k;
	}
	return NULL;
}

struct error *rollout_rolling(struct rollout *r, bool *changed)
{
	*changed = false;
	TRY(grow_new(r, changed));
	if (*changed)
		return NULL;
	return shrink_old(r, changed);
}

struct error *scale_down_for_recreate(struct rollout *r, bool *changed)
{
	*changed = false;
	for (size_t i = 0; i < r->n; i++)
		if (r->all[i] != r->new_ && rs_replicas(r->all[i]))
			TRY(scale_set(r, r->all[i], 0, changed));
	return NULL;
}

/* ---- scaling in the middle of a rollout ---- */

static int cmp_larger(const void *pa, const void *pb)
{
	const rs_t *x = *(rs_t *const *)pa, *y = *(rs_t *const *)pb;

	if (rs_replicas(x) != rs_replicas(y))
		return rs_replicas(y) - rs_replicas(x);
	return -time_cmp(x->metadata.creation_timestamp, y->metadata.creation_timestamp);
}

static int cmp_larger_older(const void *pa, const void *pb)
{
	const rs_t *x = *(rs_t *const *)pa, *y = *(rs_t *const *)pb;

	if (rs_replicas(x) != rs_replicas(y))
		return rs_replicas(y) - rs_replicas(x);
	return time_cmp(x->metadata.creation_timestamp, y->metadata.creation_timestamp);
}

/* How many replicas rs gains or loses by its share of the Deployment. */
static int32_t fraction(const struct rollout *r, const rs_t *rs)
{
	int32_t have = rs_replicas(rs), annotated;

	if (!d_replicas(r->d))
		return -have;
	if (!annotation_i32(rs, ANNOTATION_MAX, &annotated) || !annotated)
		annotated = r->d->status.replicas;
	if (!annotated)
		return 0;
	return (int32_t)lround((double)have * (d_replicas(r->d) + max_surge(r->d)) / annotated) - have;
}

static bool saturated(const struct rollout *r)
{
	int32_t desired;

	return r->new_ && annotation_i32(r->new_, ANNOTATION_DESIRED, &desired) && rs_replicas(r->new_) == d_replicas(r->d) &&
	       desired == d_replicas(r->d) && r->new_->status.available_replicas == d_replicas(r->d);
}

struct error *scale_proportionally(struct rollout *r)
{
	rs_t **active = arena_array(r->a, rs_t *, r->n + 1), *only = NULL;
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		if (rs_replicas(r->all[i]) > 0)
			active[n++] = r->all[i];
	if (n == 1)
		only = active[0];
	else if (!n)
		only = r->new_ ? r->new_ : r->n ? r->all[r->n - 1] : NULL;
	if (n <= 1)
		return only ? scale_set(r, only, d_replicas(r->d), NULL) : NULL;
	if (saturated(r)) {
		bool changed;

		return scale_down_for_recreate(r, &changed);
	}
	if (!is_rolling(r->d))
		return NULL;
	int32_t allowed = d_replicas(r->d) ? d_replicas(r->d) + max_surge(r->d) : 0, add = allowed - total_replicas(r), added = 0;

	qsort(active, n, sizeof(*active), add > 0 ? cmp_larger : cmp_larger_older);
	int32_t *sizes = arena_array(r->a, int32_t, n);

	for (size_t i = 0; i < n; i++) {
		int32_t k = 0, left = add - added, f;

		if (add && left) {
			f = fraction(r, active[i]);
			k = add > 0 ? (f < left ? f : left) : (f > left ? f : left);
		}
		sizes[i] = rs_replicas(active[i]) + k;
		added += k;
	}
	/* What rounding leaves over goes to the largest. */
	sizes[0] += add - added;
	if (sizes[0] < 0)
		sizes[0] = 0;
	for (size_t i = 0; i < n; i++)
		TRY(scale_set(r, active[i], sizes[i], NULL));
	return NULL;
}
