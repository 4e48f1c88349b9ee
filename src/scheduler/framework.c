#include "scheduler/framework.h"

#include <assert.h>
#include <stdlib.h>

#include "base/buf.h"
#include "loop/fiber.h"
#include "scheduler/plugins/plugins.h"

const struct plugin *const plugins[] = {
	&plugin_scheduling_gates, &plugin_node_unschedulable, &plugin_node_name, &plugin_taint_toleration,
	&plugin_node_affinity, &plugin_node_ports, &plugin_node_resources_fit, &plugin_volume_restrictions, &plugin_node_volume_limits,
	&plugin_volume_binding, &plugin_volume_zone, &plugin_pod_topology_spread, &plugin_inter_pod_affinity, &plugin_balanced_allocation, &plugin_image_locality,
};
const int n_plugins = sizeof plugins / sizeof *plugins;

void default_normalize(int64_t *scores, size_t n, bool reverse)
{
	int64_t max = 0;

	for (size_t i = 0; i < n; i++)
		max = scores[i] > max ? scores[i] : max;
	for (size_t i = 0; i < n; i++) {
		int64_t s = max ? scores[i] * SCORE_MAX / max : 0;

		scores[i] = reverse ? SCORE_MAX - s : s;
	}
}

static bool is_on(const struct cycle *c, enum point at, int i)
{
	return c->profile->on[at] >> i & 1;
}

static struct status filters_once(struct cycle *c, const struct node_info *n, int *by)
{
	for (uint32_t m = c->profile->on[POINT_FILTER] & ~c->skip_filter; m; m &= m - 1) {
		int i = __builtin_ctz(m);
		struct status s = plugins[i]->filter(c, i, n);

		if (s.code != CODE_SUCCESS) {
			*by = i;
			return s;
		}
	}
	return STATUS_OK;
}

void what_if(struct cycle *c, struct node_info *n, struct pod_info *p, int sign)
{
	node_info_what_if(n, p, sign);
	for (uint32_t m = c->profile->on[POINT_FILTER] & ~c->skip_filter; m; m &= m - 1) {
		int i = __builtin_ctz(m);

		if (plugins[i]->pod_changed)
			plugins[i]->pod_changed(c, i, n, p, sign);
	}
}

/*
 * Pods that are to come here after a preemption, and that are no less important, count as if they ran: it must fit with them,
 * and (they may yet go elsewhere) without.
 */
struct status run_filters(struct cycle *c, struct node_info *n, int *by)
{
	LIST(struct pod_info *) guests = {0};

	for (uint32_t i = 0; i < n->nominated.n; i++)
		if (n->nominated.v[i]->priority >= c->info->priority && !str_eq(n->nominated.v[i]->key, c->info->key))
			*arena_push(c->a, &guests) = n->nominated.v[i];
	if (guests.n) {
		for (uint32_t i = 0; i < guests.n; i++)
			what_if(c, n, guests.v[i], 1);
		struct status s = filters_once(c, n, by);

		for (uint32_t i = 0; i < guests.n; i++)
			what_if(c, n, guests.v[i], -1);
		if (s.code != CODE_SUCCESS)
			return s;
	}
	return filters_once(c, n, by);
}

/* Upstream's percentageOfNodesToScore: 0: fewer, the larger the cluster; never below 100 nodes or 5 %. */
static size_t enough_nodes(size_t n, int32_t wanted)
{
	if (n < 100)
		return n;
	size_t percent = wanted > 0 ? (size_t)wanted : n / 125 >= 45 ? 5 : 50 - n / 125;
	size_t k = n * percent / 100;

	return k < 100 ? 100 : k;
}

struct reason {
	struct str text;
	size_t count;
};

struct tally {
	LIST(struct reason) reasons;
};

/* Rejections mostly repeat: newest first would not help, few kinds do. */
static void count_one(struct arena *a, struct tally *t, struct str text)
{
	for (uint32_t i = 0; i < t->reasons.n; i++) {
		if (str_eq(t->reasons.v[i].text, text)) {
			t->reasons.v[i].count++;
			return;
		}
	}
	*arena_push(a, &t->reasons) = (struct reason){text, 1};
}

static void count_reasons(struct arena *a, struct tally *t, struct str text)
{
	for (struct str rest = text; rest.p;)
		count_one(a, t, str_cut(&rest, '\n'));
}

/* Upstream sorts the finished strings ("1 Insufficient cpu"). */
struct sorted {
	struct str text;
};

static int by_text(const void *a, const void *b)
{
	return str_cmp(((const struct sorted *)a)->text, ((const struct sorted *)b)->text);
}

static struct str explain(struct arena *a, size_t n_nodes, const struct tally *t, struct str pre_filter)
{
	buf_cleanup struct buf b = {0};

	if (n_nodes == 0)
		return STR("no nodes available to schedule pods");
	buf_printf(&b, "0/%zu nodes are available:", n_nodes);
	if (pre_filter.n)
		buf_printf(&b, " %.*s.", STR_ARG(pre_filter));
	struct sorted *list = arena_array(a, struct sorted, t->reasons.n + 1);

	for (uint32_t i = 0; i < t->reasons.n; i++)
		list[i].text = arena_printf(a, "%zu %.*s", t->reasons.v[i].count, STR_ARG(t->reasons.v[i].text));
	qsort(list, t->reasons.n, sizeof *list, by_text);
	for (uint32_t i = 0; i < t->reasons.n; i++)
		buf_printf(&b, "%s %.*s", i ? "," : "", STR_ARG(list[i].text));
	if (t->reasons.n)
		buf_putc(&b, '.');
	return arena_str(a, buf_view(&b));
}

static struct error *plugin_error(int i, struct status s)
{
	return error_new("running plugin \"%s\": %.*s", plugins[i]->name, STR_ARG(s.reason));
}

/* *ok false: a pre_filter rejected the pod for every node. */
static struct error *pre_filter(struct cycle *c, struct diagnosis *why, bool *ok)
{
	struct tally none = {0};

	for (int i = 0; i < n_plugins; i++) {
		if (!is_on(c, POINT_PRE_FILTER, i))
			continue;
		struct status s = plugins[i]->pre_filter(c, i);

		if (s.code == CODE_SKIP) {
			c->skip_filter |= 1u << i;
		} else if (s.code == CODE_ERROR) {
			return plugin_error(i, s);
		} else if (s.code != CODE_SUCCESS) {
			why->rejected_by |= 1u << i;
			why->message = explain(c->a, c->cache->n_nodes, &none, s.reason);
			*ok = false;
			return NULL;
		}
	}
	*ok = true;
	return NULL;
}

static size_t next_start; /* so that every node is looked at in turn */

static struct error *find_feasible(struct cycle *c, struct diagnosis *why, struct node_info **feasible, size_t *n)
{
	size_t total = c->cache->n_nodes, want = enough_nodes(total, c->profile->percentage), i;
	struct tally t = {0};

	*n = 0;
	for (i = 0; i < total && *n < want; i++) {
		struct node_info *node = c->cache->nodes[(next_start + i) % total];
		int by = 0;
		struct status s = run_filters(c, node, &by);

		if (s.code == CODE_SUCCESS) {
			feasible[(*n)++] = node;
			continue;
		}
		if (s.code == CODE_ERROR)
			return plugin_error(by, s);
		why->rejected_by |= 1u << by;
		count_reasons(c->a, &t, s.reason);
		if (s.code == CODE_UNSCHEDULABLE)
			*arena_push(c->a, &why->candidates) = node;
	}
	next_start = total ? (next_start + i) % total : 0;
	why->n_nodes = total;
	if (!*n)
		why->message = explain(c->a, total, &t, STR_NULL);
	return NULL;
}

static struct node_info *best(struct cycle *c, struct node_info **nodes, size_t n)
{
	int64_t *total = arena_array(c->a, int64_t, n), *scores = arena_array(c->a, int64_t, n);

	for (int i = 0; i < n_plugins; i++) {
		const struct plugin *p = plugins[i];

		if (!is_on(c, POINT_SCORE, i) || !c->profile->weight[i])
			continue;
		if (p->pre_score && (!is_on(c, POINT_PRE_SCORE, i) || p->pre_score(c, i, nodes, n).code == CODE_SKIP))
			continue;
		for (size_t k = 0; k < n; k++)
			scores[k] = p->score(c, i, nodes[k]);
		if (p->normalize)
			p->normalize(c, i, nodes, scores, n);
		for (size_t k = 0; k < n; k++)
			total[k] += c->profile->weight[i] * scores[k];
	}
	/* Among equals one at random (reservoir), so that they fill evenly. */
	struct node_info *pick = nodes[0];
	int64_t high = total[0];
	uint64_t ties = 1, r = random_u64();

	for (size_t k = 1; k < n; k++) {
		if (total[k] > high) {
			high = total[k];
			pick = nodes[k];
			ties = 1;
		} else if (total[k] == high) {
			r = r * 6364136223846793005u + 1442695040888963407u;
			if ((r >> 33) % ++ties == 0)
				pick = nodes[k];
		}
	}
	return pick;
}

struct error *schedule_pod(struct cycle *c, struct node_info **chosen, struct diagnosis *why)
{
	struct node_info **feasible = arena_array(c->a, struct node_info *, c->cache->n_nodes);
	size_t n;
	bool ok;

	*chosen = NULL;
	*why = (struct diagnosis){.n_nodes = c->cache->n_nodes};
	if (!c->cache->n_nodes) {
		why->message = STR("no nodes available to schedule pods");
		return NULL;
	}
	TRY(pre_filter(c, why, &ok));
	if (!ok)
		return NULL;
	TRY(find_feasible(c, why, feasible, &n));
	c->n_feasible = n;
	if (n)
		*chosen = n == 1 ? feasible[0] : best(c, feasible, n);
	return NULL;
}
