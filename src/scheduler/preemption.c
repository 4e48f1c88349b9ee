/*
 * DefaultPreemption: on each node that eviction could open, the fewest and least
 * important pods that must go; of the nodes the one that loses least.
 */
#include "scheduler/framework.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"

#define CANDIDATES_MIN 100 /* upstream's minCandidateNodesAbsolute */

static int more_important(const void *a, const void *b)
{
	const struct pod_info *x = *(struct pod_info *const *)a, *y = *(struct pod_info *const *)b;

	if (x->priority != y->priority)
		return x->priority > y->priority ? -1 : 1;
	return x->start_s < y->start_s ? -1 : x->start_s > y->start_s;
}

static void what_if(struct cycle *c, struct node_info *n, struct pod_info *p, int sign)
{
	node_info_account(n, p, sign);
	for (int i = 0; i < 32 && i < n_plugins; i++)
		if (plugins[i]->pod_changed && !(c->skip_filter >> i & 1))
			plugins[i]->pod_changed(c, i, n, p, sign);
	/* Filters that walk n->pods must not see it. */
	for (uint32_t i = 0; sign < 0 && i < n->pods.n; i++) {
		if (n->pods.v[i] == p) {
			n->pods.v[i] = n->pods.v[--n->pods.n];
			return;
		}
	}
	if (sign > 0)
		n->pods.v[n->pods.n++] = p; /* it came from there: there is room */
}

struct victims {
	struct node_info *node;
	struct pod_info **v;
	size_t n;
};

/* Takes all less important pods away, then gives back the most important ones that fit. */
static bool try_node(struct cycle *c, struct node_info *n, struct victims *out)
{
	size_t k = 0;
	int by;
	struct pod_info **lower = arena_array(c->a, struct pod_info *, n->pods.n + 1);

	for (uint32_t i = 0; i < n->pods.n; i++)
		if (n->pods.v[i]->priority < c->info->priority)
			lower[k++] = n->pods.v[i];
	if (!k)
		return false;
	for (size_t i = 0; i < k; i++)
		what_if(c, n, lower[i], -1);
	bool fits = run_filters(c, n, &by).code == CODE_SUCCESS;

	*out = (struct victims){n, arena_array(c->a, struct pod_info *, k), 0};
	qsort(lower, k, sizeof *lower, more_important);
	for (size_t i = 0; i < k; i++) {
		what_if(c, n, lower[i], 1);
		if (!fits)
			continue;
		if (run_filters(c, n, &by).code != CODE_SUCCESS) {
			what_if(c, n, lower[i], -1);
			out->v[out->n++] = lower[i];
		}
	}
	for (size_t i = 0; i < out->n; i++)
		what_if(c, n, out->v[i], 1);
	return fits && out->n;
}

/* Lower highest victim, smaller sum of priorities, fewer victims, later start of the most important one. */
static bool better(const struct victims *a, const struct victims *b)
{
	int64_t sum_a = 0, sum_b = 0;

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

struct str find_victims(struct cycle *c, struct diagnosis *why, struct node_info **node, struct pod_info ***victims, size_t *n)
{
	struct victims best = {0}, v;
	size_t unhelpful = why->n_nodes - why->candidates.n, no_victims = 0;

	*node = NULL;
	*n = 0;
	if (c->pod->spec.preemption_policy && str_eq(*c->pod->spec.preemption_policy, STR("Never")))
		return arena_printf(c->a, "preemption: not eligible due to preemptionPolicy=Never.");
	for (uint32_t i = 0, found = 0; i < why->candidates.n && found < CANDIDATES_MIN; i++) {
		if (!try_node(c, why->candidates.v[i], &v)) {
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
