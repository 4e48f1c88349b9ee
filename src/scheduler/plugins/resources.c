/* NodeResourcesFit, with its three ways to score, and NodeResourcesBalancedAllocation. */
#include "scheduler/plugins/plugins.h"

#include <math.h>

/* NodeResourcesFitArgs: extended resources that somebody else (an operator's own scheduler plugin, say) accounts for. */
static bool is_ignored(const struct cycle *c, struct str name)
{
	const struct strings *all = &c->profile->ignored_resources, *groups = &c->profile->ignored_groups;
	ptrdiff_t slash = str_index(name, '/');

	for (uint32_t i = 0; i < all->n; i++)
		if (str_eq(all->v[i], name))
			return true;
	for (uint32_t i = 0; i < groups->n && slash >= 0; i++)
		if (str_eq(groups->v[i], str_sub(name, 0, (size_t)slash)))
			return true;
	return false;
}

static struct status fit(struct cycle *c, int self, const struct node_info *n)
{
	const struct resources *want = &c->info->requests, *have = &n->allocatable, *used = &n->requested;
	struct str reasons[4 + SCALARS_MAX];
	size_t k = 0;
	bool never = false; /* more than the node has at all: preemption cannot help */

	if (used->pods + 1 > have->pods) {
		reasons[k++] = STR("Too many pods");
		never |= have->pods < 1;
	}
	if (want->milli_cpu > 0 && want->milli_cpu > have->milli_cpu - used->milli_cpu) {
		reasons[k++] = STR("Insufficient cpu");
		never |= want->milli_cpu > have->milli_cpu;
	}
	if (want->memory > 0 && want->memory > have->memory - used->memory) {
		reasons[k++] = STR("Insufficient memory");
		never |= want->memory > have->memory;
	}
	if (want->ephemeral_storage > 0 && want->ephemeral_storage > have->ephemeral_storage - used->ephemeral_storage) {
		reasons[k++] = STR("Insufficient ephemeral-storage");
		never |= want->ephemeral_storage > have->ephemeral_storage;
	}
	for (uint32_t m = want->scalars; m; m &= m - 1) {
		int i = __builtin_ctz(m);

		if (want->scalar[i] > 0 && want->scalar[i] > have->scalar[i] - used->scalar[i] && !is_ignored(c, scalar_name(i))) {
			reasons[k++] = arena_printf(c->a, "Insufficient %.*s", STR_ARG(scalar_name(i)));
			never |= want->scalar[i] > have->scalar[i];
		}
	}
	if (!k)
		return STATUS_OK;
	struct str all = reasons[0];

	/* Several reasons of one node are counted each; a newline parts them (framework.c). */
	for (size_t i = 1; i < k; i++)
		all = arena_printf(c->a, "%.*s\n%.*s", STR_ARG(all), STR_ARG(reasons[i]));
	return (struct status){never ? CODE_UNSCHEDULABLE_UNRESOLVABLE : CODE_UNSCHEDULABLE, all};
}

/* Of one resource: what the node offers, and what would be asked of it with this pod (nonzero: with scoring's defaults). */
static bool amounts(struct cycle *c, const struct node_info *n, struct str name, bool nonzero, int64_t *requested, int64_t *capacity)
{
	const struct resources *want = &c->info->requests, *used = &n->requested;

	if (str_eqz(name, "cpu")) {
		*capacity = n->allocatable.milli_cpu;
		*requested = nonzero ? n->nonzero_requested.milli_cpu + c->info->nonzero.milli_cpu : used->milli_cpu + want->milli_cpu;
	} else if (str_eqz(name, "memory")) {
		*capacity = n->allocatable.memory;
		*requested = nonzero ? n->nonzero_requested.memory + c->info->nonzero.memory : used->memory + want->memory;
	} else if (str_eqz(name, "ephemeral-storage")) {
		*capacity = n->allocatable.ephemeral_storage;
		*requested = used->ephemeral_storage + want->ephemeral_storage;
	} else {
		int i = scalar_index(name);

		if (i < 0 || !want->scalar[i]) /* an extended resource matters only to pods that ask for it */
			return false;
		*capacity = n->allocatable.scalar[i];
		*requested = used->scalar[i] + want->scalar[i];
	}
	return *capacity > 0;
}

/* The broken line through the profile's points. */
static int64_t on_line(const struct profile *p, int64_t utilization)
{
	for (int i = 0; i < p->n_shape; i++) {
		const struct shape_point *b = &p->shape[i], *a = b - 1;

		if (utilization > b->utilization)
			continue;
		if (i == 0)
			return b->score;
		return a->score + (b->score - a->score) * (utilization - a->utilization) / (b->utilization - a->utilization);
	}
	return p->shape[p->n_shape - 1].score;
}

static int64_t fit_one(const struct profile *p, int64_t requested, int64_t capacity)
{
	switch (p->fit) {
	case FIT_LEAST: return requested > capacity ? 0 : (capacity - requested) * SCORE_MAX / capacity;
	case FIT_MOST: return (requested > capacity ? capacity : requested) * SCORE_MAX / capacity;
	case FIT_RATIO: return on_line(p, requested > capacity ? 100 : requested * 100 / capacity);
	}
	return 0;
}

static int64_t fit_score(struct cycle *c, int self, const struct node_info *n)
{
	const struct profile *p = c->profile;
	int64_t sum = 0, weights = 0, requested, capacity;

	for (int i = 0; i < p->n_fit_resources; i++) {
		if (!amounts(c, n, p->fit_resources[i].name, true, &requested, &capacity))
			continue;
		int64_t s = fit_one(p, requested, capacity);

		if (p->fit == FIT_RATIO && s <= 0)
			continue;
		sum += s * p->fit_resources[i].weight;
		weights += p->fit_resources[i].weight;
	}
	if (!weights)
		return 0;
	return p->fit == FIT_RATIO ? llround((double)sum / (double)weights) : sum / weights;
}

const struct plugin plugin_node_resources_fit = {
	.name = "NodeResourcesFit", .weight = 1, .events = EVENT_NODE_ADD | EVENT_NODE_ALLOCATABLE | EVENT_POD_DELETE,
	.filter = fit, .score = fit_score,
};

static struct status balanced_pre(struct cycle *c, int self, struct node_info **nodes, size_t n)
{
	/* Best-effort pods do not change the balance. */
	return c->info->requests.milli_cpu || c->info->requests.memory ? STATUS_OK : (struct status){CODE_SKIP, STR_NULL};
}

static int64_t balanced(struct cycle *c, int self, const struct node_info *n)
{
	double f[SCORE_RESOURCES_MAX], sum = 0, variance = 0;
	int64_t requested, capacity;
	int k = 0;

	for (int i = 0; i < c->profile->n_balanced; i++) {
		if (!amounts(c, n, c->profile->balanced[i].name, false, &requested, &capacity))
			continue;
		f[k] = fmin((double)requested / (double)capacity, 1);
		sum += f[k++];
	}
	if (k < 2)
		return k ? SCORE_MAX : 0;
	if (k == 2) /* of two fractions the standard deviation is half their distance */
		return (int64_t)((1 - fabs(f[0] - f[1]) / 2) * SCORE_MAX);
	for (int i = 0; i < k; i++)
		variance += (f[i] - sum / k) * (f[i] - sum / k);
	return (int64_t)((1 - sqrt(variance / k)) * SCORE_MAX);
}

const struct plugin plugin_balanced_allocation = {
	.name = "NodeResourcesBalancedAllocation", .weight = 1, .pre_score = balanced_pre, .score = balanced,
};
