/* NodeResourcesFit (LeastAllocated) and NodeResourcesBalancedAllocation. */
#include "scheduler/plugins/plugins.h"

#include <math.h>

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

		if (want->scalar[i] > 0 && want->scalar[i] > have->scalar[i] - used->scalar[i]) {
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

static int64_t least(int64_t requested, int64_t capacity)
{
	return capacity <= 0 || requested > capacity ? 0 : (capacity - requested) * SCORE_MAX / capacity;
}

static int64_t least_allocated(struct cycle *c, int self, const struct node_info *n)
{
	int64_t sum = 0, weights = 0;

	if (n->allocatable.milli_cpu) {
		sum += least(n->nonzero_requested.milli_cpu + c->info->nonzero.milli_cpu, n->allocatable.milli_cpu);
		weights++;
	}
	if (n->allocatable.memory) {
		sum += least(n->nonzero_requested.memory + c->info->nonzero.memory, n->allocatable.memory);
		weights++;
	}
	return weights ? sum / weights : 0;
}

const struct plugin plugin_node_resources_fit = {
	.name = "NodeResourcesFit", .weight = 1, .events = EVENT_NODE_ADD | EVENT_NODE_ALLOCATABLE | EVENT_POD_DELETE,
	.filter = fit, .score = least_allocated,
};

static struct status balanced_pre(struct cycle *c, int self, struct node_info **nodes, size_t n)
{
	/* Best-effort pods do not change the balance. */
	return c->info->requests.milli_cpu || c->info->requests.memory ? STATUS_OK : (struct status){CODE_SKIP, STR_NULL};
}

static int64_t balanced(struct cycle *c, int self, const struct node_info *n)
{
	if (!n->allocatable.milli_cpu || !n->allocatable.memory)
		return 0;
	double cpu = (double)(n->requested.milli_cpu + c->info->requests.milli_cpu) / (double)n->allocatable.milli_cpu;
	double mem = (double)(n->requested.memory + c->info->requests.memory) / (double)n->allocatable.memory;

	/* Of two fractions the standard deviation is half their distance. */
	double std = fabs(fmin(cpu, 1) - fmin(mem, 1)) / 2;

	return (int64_t)((1 - std) * SCORE_MAX);
}

const struct plugin plugin_balanced_allocation = {
	.name = "NodeResourcesBalancedAllocation", .weight = 1, .pre_score = balanced_pre, .score = balanced,
};
