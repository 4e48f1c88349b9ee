/*
 * DefaultPreemption: on each node that eviction could open, the fewest and least
 * important pods that must go, with the fewest violations of their
 * PodDisruptionBudgets; of the nodes the one that loses least.
 */
#include "scheduler/framework.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"

static int more_important(const void *a, const void *b)
{
	const struct pod_info *x = *(struct pod_info *const *)a, *y = *(struct pod_info *const *)b;

	if (x->priority != y->priority)
		return x->priority > y->priority ? -1 : 1;
	return x->start_s < y->start_s ? -1 : x->start_s > y->start_s;
}

struct victims {
	struct node_info *node;
	struct pod_info **v;    /* the most important first */
	size_t n, violations;
};

struct budgets {
	struct budget *v;
	size_t n;
};

/* Would the pod's going, after those before it, take more from a budget than it allows? `left`: what each budget has left. */
static bool violates(const struct budgets *b, int32_t *left, const struct pod_info *p)
{
	bool bad = false;

	for (size_t i = 0; i < b->n; i++) {
		if (!str_eq(b->v[i].ns, p->ns) || !b->v[i].selector || selector_is_nothing(b->v[i].selector) ||
		    !selector_matches(b->v[i].selector, &p->labels) || str_map_has(&b->v[i].disrupted, p->name))
			continue;
		bad |= --left[i] < 0;
	}
	return bad;
}

/* Gives p its place back when the pod still fits beside it. */
static bool reprieve(struct cycle *c, struct node_info *n, struct pod_info *p)
{
	int by;

	what_if(c, n, p, 1);
	if (run_filters(c, n, &by).code == CODE_SUCCESS)
		return true;
	what_if(c, n, p, -1);
	return false;
}

/* Takes all less important pods away, then gives back those that may stay: first those whose budget would be violated. */
static bool try_node(struct cycle *c, struct node_info *n, const struct budgets *b, struct victims *out)
{
	size_t k = 0;
	int by;
	struct pod_info **lower = arena_array(c->a, struct pod_info *, n->pods.n + 1);
	bool *bad = arena_array(c->a, bool, n->pods.n + 1);
	int32_t *left = arena_array(c->a, int32_t, b->n + 1);

	for (uint32_t i = 0; i < n->pods.n; i++)
		if (n->pods.v[i]->priority < c->info->priority)
			lower[k++] = n->pods.v[i];
	if (!k)
		return false;
	for (size_t i = 0; i < k; i++)
		what_if(c, n, lower[i], -1);
	*out = (struct victims){n, arena_array(c->a, struct pod_info *, k), 0, 0};
	if (run_filters(c, n, &by).code != CODE_SUCCESS) {
		for (size_t i = 0; i < k; i++)
			what_if(c, n, lower[i], 1);
		return false;
	}
	qsort(lower, k, sizeof *lower, more_important);
	for (size_t i = 0; i < b->n; i++)
		left[i] = b->v[i].allowed;
	for (size_t i = 0; i < k; i++)
		bad[i] = violates(b, left, lower[i]);
	for (int pass = 1; pass >= 0; pass--) {
		for (size_t i = 0; i < k; i++) {
			if (bad[i] != pass || reprieve(c, n, lower[i]))
				continue;
			out->v[out->n++] = lower[i];
			out->violations += (size_t)pass;
		}
	}
	for (size_t i = 0; i < out->n; i++)
		what_if(c, n, out->v[i], 1);
	qsort(out->v, out->n, sizeof *out->v, more_important);
	return out->n > 0;
}

/* Fewer violations, lower highest victim, smaller sum of priorities, fewer victims, later start of the most important ones. */
static bool better(const struct victims *a, const struct victims *b)
{
	int64_t sum_a = 0, sum_b = 0;

	if (a->violations != b->violations)
		return a->violations < b->violations;
	if (a->v[0]->priority != b->v[0]->priority)
		return a->v[0]->priority < b->v[0]->priority;
	for (size_t i = 0; i < a->n; i++)
		sum_a += (int64_t)a->v[i]->priority + INT32_MAX + 1LL;
	for (size_t i = 0; i < b->n; i++)
		sum_b += (int64_t)b->v[i]->priority + INT32_MAX + 1LL;
	if (sum_a != sum_b)
		return sum_a < sum_b;
	if (a->n != b->n)
		return a->n < b->n;
	return a->v[0]->start_s > b->v[0]->start_s;
}

/* The pod made room already, and what made it is still going. */
static bool waits_for_victims(struct cycle *c)
{
	struct node_info *n = c->info->nominated.n ? cache_node(c->cache, c->info->nominated) : NULL;

	for (uint32_t i = 0; n && i < n->pods.n; i++)
		if (n->pods.v[i]->deleting && n->pods.v[i]->priority < c->info->priority)
			return true;
	return false;
}

struct str find_victims(struct cycle *c, struct diagnosis *why, struct node_info **node, struct pod_info ***victims, size_t *n)
{
	struct victims best = {0}, v;
	struct budgets budgets = {0};
	size_t unhelpful = why->n_nodes - why->candidates.n, no_victims = 0, found = 0;
	size_t enough = why->n_nodes * (size_t)c->profile->candidates_percent / 100;

	*node = NULL;
	*n = 0;
	if (!c->profile->preemption)
		return STR_NULL;
	if (c->info->never_preempts)
		return STR("preemption: not eligible due to preemptionPolicy=Never.");
	if (waits_for_victims(c))
		return STR("preemption: not eligible due to a terminating pod on the nominated node.");
	if (enough < (size_t)c->profile->candidates_min)
		enough = (size_t)c->profile->candidates_min;
	if (c->budgets && why->candidates.n)
		budgets.n = c->budgets->all(c->budgets->ctx, c->a, &budgets.v);
	for (uint32_t i = 0; i < why->candidates.n && found < enough; i++) {
		if (!try_node(c, why->candidates.v[i], &budgets, &v)) {
			no_victims++;
			continue;
		}
		found++;
		if (!best.node || better(&v, &best))
			best = v;
	}
	if (best.node) {
		*node = best.node;
		*victims = best.v;
		*n = best.n;
		return STR_NULL;
	}
	buf_cleanup struct buf b = {0};

	buf_printf(&b, "preemption: 0/%zu nodes are available: ", why->n_nodes);
	if (no_victims)
		buf_printf(&b, "%zu No preemption victims found for incoming pod%s", no_victims, unhelpful ? ", " : "");
	if (unhelpful)
		buf_printf(&b, "%zu Preemption is not helpful for scheduling", unhelpful);
	buf_putc(&b, '.');
	return arena_str(c->a, buf_view(&b));
}
