/*
 * PodTopologySpread (KEP-895) and InterPodAffinity: both count pods a topology
 * domain. A domain is a (key, value) pair of a node label and has a number; counts live in
 * arrays in the cycle's arena.
 */
#include "scheduler/plugins/plugins.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/log.h"

/* Counts by the numbers of domains (types.h); made when the first is counted. */
struct table {
	int64_t *count;
	bool *known;
	LIST(uint32_t) domains; /* those that are known */
};

/* make: a domain that is not known becomes so, with 0. NULL for domain 0, which is none. */
static int64_t *counter(struct cycle *c, struct table *t, uint32_t domain, bool make)
{
	if (!domain || (!t->count && !make))
		return NULL;
	if (!t->count) {
		t->count = arena_array(c->a, int64_t, c->cache->domain_limit);
		t->known = arena_array(c->a, bool, c->cache->domain_limit);
	}
	if (!t->known[domain]) {
		if (!make)
			return NULL;
		t->known[domain] = true;
		*arena_push(c->a, &t->domains) = domain;
	}
	return &t->count[domain];
}

static int64_t get(const struct table *t, uint32_t domain)
{
	return t->count ? t->count[domain] : 0;
}

/* ---- PodTopologySpread ---- */

struct constraint {
	struct str key;
	int key_index;
	int64_t max_skew, min_domains;
	const struct selector *selector;
	bool honor_affinity, honor_taints;
	bool self;                      /* the pod itself matches the selector */
	bool per_node;                  /* the key is the host's name: scoring counts each node by itself */
	double weight;                  /* of scoring */
	struct table counts;            /* domain -> matching pods */
	int64_t min;                    /* the smallest count of a domain */
	int64_t n_domains;
};

struct spread {
	LIST(struct constraint) hard, soft;
	bool all_keys;                  /* a node without one of the keys has no part in it */
};

static void add_constraint(struct cycle *c, struct spread *s, const struct core_v1_topology_spread_constraint *t,
			   const struct meta_v1_label_selector *labels)
{
	bool hard = str_eq(t->when_unsatisfiable, STR("DoNotSchedule"));
	struct constraint *k = hard ? arena_push(c->a, &s->hard) : arena_push(c->a, &s->soft);

	k->key = t->topology_key;
	k->key_index = topology_key_index(k->key);
	k->max_skew = t->max_skew;
	k->min_domains = t->min_domains ? *t->min_domains : 1;
	/* KEP-3243: the API server has merged matchLabelKeys into labelSelector (since v1.34). */
	struct error *e = label_selector_from(c->a, labels, &k->selector);

	log_and_free(e, "label selector of a topology spread constraint");
	k->honor_affinity = !t->node_affinity_policy || str_eq(*t->node_affinity_policy, STR("Honor"));
	k->honor_taints = t->node_taints_policy && str_eq(*t->node_taints_policy, STR("Honor"));
	k->self = selector_matches(k->selector, &c->info->labels);
	k->per_node = str_eqz(k->key, "kubernetes.io/hostname");
}

/* Pods that say nothing are spread as the profile says, among those that the same Services and controller select (KEP-1258). */
static void add_defaults(struct cycle *c, struct spread *s)
{
	const struct owner_lister *l = c->owners;
	const struct meta_v1_label_selector *sel = l && c->profile->n_spread ? l->selector(l->ctx, c->a, c->pod) : NULL;

	for (uint32_t i = 0; sel && i < c->profile->n_spread; i++)
		add_constraint(c, s, &c->profile->spread[i], sel);
	s->all_keys = !c->profile->system_spread;
}

static uint32_t domain_of(struct cycle *c, const struct constraint *k, const struct node_info *n)
{
	return node_domain(c->cache, n, k->key_index, k->key);
}

static bool counts_node(struct cycle *c, const struct constraint *k, const struct node_info *n)
{
	if (k->honor_affinity && !node_affinity_matches(c, c->pod, n))
		return false;
	return !k->honor_taints || !untolerated_taint(n->node, c->pod, false);
}

static int64_t count_matching(struct cycle *c, const struct constraint *k, const struct node_info *n)
{
	int64_t sum = 0;

	for (uint32_t i = 0; i < n->pods.n; i++) {
		const struct pod_info *p = n->pods.v[i];

		sum += p->ns_hash == c->info->ns_hash && !p->deleting && str_eq(p->ns, c->info->ns) && selector_matches(k->selector, &p->labels);
	}
	return sum;
}

static void find_min(struct constraint *k)
{
	k->min = INT64_MAX;
	k->n_domains = k->counts.domains.n;
	for (uint32_t i = 0; i < k->counts.domains.n; i++)
		if (k->counts.count[k->counts.domains.v[i]] < k->min)
			k->min = k->counts.count[k->counts.domains.v[i]];
	if (k->n_domains < k->min_domains)
		k->min = 0;
}

static void count_all(struct cycle *c, struct constraint *list, uint32_t n)
{
	for (size_t i = 0; i < c->cache->n_nodes; i++) {
		const struct node_info *node = c->cache->nodes[i];
		bool all = true;

		/* A node counts only where it has every key. */
		for (uint32_t j = 0; j < n && all; j++)
			all = domain_of(c, &list[j], node) != 0;
		for (uint32_t j = 0; j < n && all; j++)
			if (counts_node(c, &list[j], node))
				*counter(c, &list[j].counts, domain_of(c, &list[j], node), true) += count_matching(c, &list[j], node);
	}
	for (uint32_t j = 0; j < n; j++)
		find_min(&list[j]);
}

static struct status spread_pre(struct cycle *c, int self)
{
	struct spread *s = arena_new(c->a, struct spread);

	s->all_keys = true;
	for (uint32_t i = 0; i < c->pod->spec.topology_spread_constraints.n; i++) {
		const struct core_v1_topology_spread_constraint *t = &c->pod->spec.topology_spread_constraints.v[i];

		add_constraint(c, s, t, t->label_selector);
	}
	if (!c->pod->spec.topology_spread_constraints.n)
		add_defaults(c, s);
	c->state[self] = s;
	if (!s->hard.n)
		return (struct status){CODE_SKIP, STR_NULL};
	count_all(c, s->hard.v, s->hard.n);
	return STATUS_OK;
}

static struct status spread_filter(struct cycle *c, int self, const struct node_info *n)
{
	struct spread *s = c->state[self];

	for (uint32_t i = 0; i < s->hard.n; i++) {
		struct constraint *k = &s->hard.v[i];
		uint32_t at = domain_of(c, k, n);

		if (!at)
			return (struct status){CODE_UNSCHEDULABLE_UNRESOLVABLE,
					       STR("node(s) didn't match pod topology spread constraints (missing required label)")};
		int64_t here = get(&k->counts, at);

		if (here + k->self - (k->min == INT64_MAX ? 0 : k->min) > k->max_skew)
			return (struct status){CODE_UNSCHEDULABLE, STR("node(s) didn't match pod topology spread constraints")};
	}
	return STATUS_OK;
}

static void spread_changed(struct cycle *c, int self, const struct node_info *n, const struct pod_info *p, int sign)
{
	struct spread *s = c->state[self];

	for (uint32_t i = 0; i < s->hard.n; i++) {
		struct constraint *k = &s->hard.v[i];
		uint32_t at = domain_of(c, k, n);

		if (!at || p->deleting || !str_eq(p->ns, c->info->ns) || !selector_matches(k->selector, &p->labels) ||
		    !counts_node(c, k, n))
			continue;
		*counter(c, &k->counts, at, true) += sign;
		find_min(k);
	}
}

static bool has_keys(struct cycle *c, const struct spread *s, const struct node_info *n)
{
	for (uint32_t i = 0; s->all_keys && i < s->soft.n; i++)
		if (!domain_of(c, &s->soft.v[i], n))
			return false;
	return true;
}

/* Only domains of the nodes in question are counted, and of them all nodes. */
static struct status spread_pre_score(struct cycle *c, int self, struct node_info **nodes, size_t n)
{
	struct spread *s = c->state[self];
	int64_t hosts = 0;
	bool domains = false;

	if (!s->soft.n)
		return (struct status){CODE_SKIP, STR_NULL};
	for (size_t i = 0; i < n; i++) {
		if (!has_keys(c, s, nodes[i]))
			continue;
		hosts++;
		for (uint32_t k = 0; k < s->soft.n; k++) {
			struct constraint *con = &s->soft.v[k];

			if (!con->per_node)
				counter(c, &con->counts, domain_of(c, con, nodes[i]), true);
		}
	}
	for (uint32_t k = 0; k < s->soft.n; k++) {
		struct constraint *con = &s->soft.v[k];

		con->weight = log((double)(con->per_node ? hosts : (int64_t)con->counts.domains.n) + 2);
		domains |= !con->per_node && con->counts.domains.n;
	}
	for (size_t i = 0; domains && i < c->cache->n_nodes; i++) {
		const struct node_info *node = c->cache->nodes[i];

		if (!node->pods.n || !has_keys(c, s, node))
			continue;
		for (uint32_t k = 0; k < s->soft.n; k++) {
			struct constraint *con = &s->soft.v[k];

			if (con->per_node || !counts_node(c, con, node))
				continue;
			int64_t *count = counter(c, &con->counts, domain_of(c, con, node), false);

			if (count)
				*count += count_matching(c, con, node);
		}
	}
	return STATUS_OK;
}

static int64_t spread_score(struct cycle *c, int self, const struct node_info *n)
{
	struct spread *s = c->state[self];
	double sum = 0;

	if (!has_keys(c, s, n))
		return INT64_MAX; /* ignored: normalised to 0 */
	for (uint32_t i = 0; i < s->soft.n; i++) {
		struct constraint *k = &s->soft.v[i];
		uint32_t at = domain_of(c, k, n);

		if (!at)
			continue;
		int64_t count = k->per_node ? count_matching(c, k, n) : get(&k->counts, at);

		sum += (double)count * k->weight + (double)(k->max_skew - 1);
	}
	return (int64_t)llround(sum);
}

static void spread_normalize(struct cycle *c, int self, struct node_info **nodes, int64_t *scores, size_t n)
{
	int64_t min = INT64_MAX, max = 0;

	for (size_t i = 0; i < n; i++) {
		if (scores[i] == INT64_MAX)
			continue;
		min = scores[i] < min ? scores[i] : min;
		max = scores[i] > max ? scores[i] : max;
	}
	for (size_t i = 0; i < n; i++)
		scores[i] = scores[i] == INT64_MAX ? 0 : max == 0 ? SCORE_MAX : SCORE_MAX * (max + min - scores[i]) / max;
}

const struct plugin plugin_pod_topology_spread = {
	.name = "PodTopologySpread", .weight = 2, .events = EVENT_NODE_ADD | EVENT_NODE_LABEL | EVENT_POD_ADD | EVENT_POD_DELETE,
	.pre_filter = spread_pre, .filter = spread_filter, .pod_changed = spread_changed, .pre_score = spread_pre_score,
	.score = spread_score, .normalize = spread_normalize,
};

/* ---- InterPodAffinity ---- */

struct affinity_state {
	struct table existing_anti;     /* domains that a running pod's anti-affinity bars */
	struct table affinity, anti;    /* domains with pods that the incoming pod's terms select */
	bool self_matches;              /* the pod fulfils its own affinity terms: the first of a group may come */
	struct table scores;
};

static uint32_t term_domain(struct cycle *c, const struct affinity_term *t, const struct node_info *n)
{
	return node_domain(c->cache, n, t->key, t->topology_key);
}

static bool term_selects(struct cycle *c, const struct affinity_term *t, struct str owner_ns, const struct pod_info *p)
{
	return affinity_term_matches(t, owner_ns, p, t->has_ns_selector ? cache_ns_labels(c->cache, p->ns) : NULL);
}

static void add_terms(struct cycle *c, struct table *t, const affinity_terms *terms, struct str owner_ns, const struct pod_info *p,
		      const struct node_info *n, int64_t by)
{
	for (uint32_t i = 0; i < terms->n; i++) {
		uint32_t at = term_domain(c, &terms->v[i], n);

		if (at && term_selects(c, &terms->v[i], owner_ns, p))
			*counter(c, t, at, true) += by;
	}
}

/* Required affinity counts a pod only when it matches all terms. */
static void add_affinity(struct cycle *c, struct affinity_state *s, const struct pod_info *p, const struct node_info *n, int64_t by)
{
	const affinity_terms *terms = &c->info->affinity;

	for (uint32_t i = 0; i < terms->n; i++)
		if (!term_selects(c, &terms->v[i], c->info->ns, p))
			return;
	for (uint32_t i = 0; i < terms->n; i++) {
		uint32_t at = term_domain(c, &terms->v[i], n);

		if (at)
			*counter(c, &s->affinity, at, true) += by;
	}
}

static void affinity_count(struct cycle *c, struct affinity_state *s, const struct node_info *n, const struct pod_info *p, int64_t by)
{
	add_terms(c, &s->existing_anti, &p->anti_affinity, p->ns, c->info, n, by);
	add_terms(c, &s->anti, &c->info->anti_affinity, c->info->ns, p, n, by);
	if (c->info->affinity.n)
		add_affinity(c, s, p, n, by);
}

static struct status affinity_pre(struct cycle *c, int self)
{
	struct affinity_state *s = arena_new(c->a, struct affinity_state);
	bool own = c->info->affinity.n || c->info->anti_affinity.n;

	c->state[self] = s;
	if (!own && !c->cache->n_anti_affinity_pods)
		return (struct status){CODE_SKIP, STR_NULL};
	for (size_t i = 0; i < c->cache->n_nodes; i++) {
		const struct node_info *n = c->cache->nodes[i];

		if (!own && !n->with_anti_affinity)
			continue;
		for (uint32_t k = 0; k < n->pods.n; k++)
			affinity_count(c, s, n, n->pods.v[k], 1);
	}
	s->self_matches = c->info->affinity.n > 0;
	for (uint32_t i = 0; i < c->info->affinity.n && s->self_matches; i++)
		s->self_matches = term_selects(c, &c->info->affinity.v[i], c->info->ns, c->info);
	if (!own && !s->existing_anti.count)
		return (struct status){CODE_SKIP, STR_NULL};
	return STATUS_OK;
}

static bool total_is_zero(const struct table *t)
{
	for (uint32_t i = 0; i < t->domains.n; i++)
		if (t->count[t->domains.v[i]])
			return false;
	return true;
}

static bool affinity_fits(struct cycle *c, struct affinity_state *s, const struct node_info *n)
{
	bool all = true;

	for (uint32_t i = 0; i < c->info->affinity.n; i++) {
		uint32_t at = term_domain(c, &c->info->affinity.v[i], n);

		if (!at)
			return false;
		all &= get(&s->affinity, at) > 0;
	}
	return all || (total_is_zero(&s->affinity) && s->self_matches);
}

static struct status affinity_filter(struct cycle *c, int self, const struct node_info *n)
{
	struct affinity_state *s = c->state[self];

	if (c->info->affinity.n && !affinity_fits(c, s, n))
		return (struct status){CODE_UNSCHEDULABLE_UNRESOLVABLE, STR("node(s) didn't match pod affinity rules")};
	for (uint32_t i = 0; i < c->info->anti_affinity.n; i++) {
		uint32_t at = term_domain(c, &c->info->anti_affinity.v[i], n);

		if (at && get(&s->anti, at) > 0)
			return (struct status){CODE_UNSCHEDULABLE, STR("node(s) didn't match pod anti-affinity rules")};
	}
	for (uint32_t i = 0; s->existing_anti.count && i < n->n_domains; i++)
		if (s->existing_anti.count[n->domains[i]] > 0)
			return (struct status){CODE_UNSCHEDULABLE,
					       STR("node(s) didn't satisfy existing pods anti-affinity rules")};
	return STATUS_OK;
}

static void affinity_changed(struct cycle *c, int self, const struct node_info *n, const struct pod_info *p, int sign)
{
	affinity_count(c, c->state[self], n, p, sign);
}

/* hard: weight of terms that are required (hardPodAffinityWeight: existing pods' towards the incoming one). */
static void preferred_terms(struct cycle *c, struct table *t, const affinity_terms *terms, struct str owner_ns,
			    const struct pod_info *p, const struct node_info *n, int64_t hard)
{
	for (uint32_t i = 0; i < terms->n; i++) {
		uint32_t at = term_domain(c, &terms->v[i], n);

		if (at && term_selects(c, &terms->v[i], owner_ns, p))
			*counter(c, t, at, true) +=
				terms->v[i].weight ? terms->v[i].weight : hard;
	}
}

static struct status affinity_pre_score(struct cycle *c, int self, struct node_info **nodes, size_t n_nodes)
{
	struct affinity_state *s = c->state[self];
	bool own = c->info->preferred.n > 0;

	if (!own && !c->cache->n_affinity_pods)
		return (struct status){CODE_SKIP, STR_NULL};
	for (size_t i = 0; i < c->cache->n_nodes; i++) {
		const struct node_info *n = c->cache->nodes[i];

		if (!own && !n->with_affinity)
			continue;
		for (uint32_t k = 0; k < n->pods.n; k++) {
			const struct pod_info *p = n->pods.v[k];

			preferred_terms(c, &s->scores, &c->info->preferred, c->info->ns, p, n, 0);
			if (c->profile->hard_affinity_weight)
				preferred_terms(c, &s->scores, &p->affinity, p->ns, c->info, n, c->profile->hard_affinity_weight);
			if (!c->profile->ignore_preferred_of_existing || own)
				preferred_terms(c, &s->scores, &p->preferred, p->ns, c->info, n, 0);
		}
	}
	return s->scores.count ? STATUS_OK : (struct status){CODE_SKIP, STR_NULL};
}

static int64_t affinity_score(struct cycle *c, int self, const struct node_info *n)
{
	struct affinity_state *s = c->state[self];
	int64_t sum = 0;

	for (uint32_t i = 0; i < n->n_domains; i++)
		sum += get(&s->scores, n->domains[i]);
	return sum;
}

static void affinity_normalize(struct cycle *c, int self, struct node_info **nodes, int64_t *scores, size_t n)
{
	int64_t min = INT64_MAX, max = INT64_MIN;

	for (size_t i = 0; i < n; i++) {
		min = scores[i] < min ? scores[i] : min;
		max = scores[i] > max ? scores[i] : max;
	}
	for (size_t i = 0; i < n; i++)
		scores[i] = max > min ? SCORE_MAX * (scores[i] - min) / (max - min) : 0;
}

const struct plugin plugin_inter_pod_affinity = {
	.name = "InterPodAffinity", .weight = 2, .events = EVENT_NODE_ADD | EVENT_NODE_LABEL | EVENT_POD_ADD | EVENT_POD_DELETE,
	.pre_filter = affinity_pre, .filter = affinity_filter, .pod_changed = affinity_changed, .pre_score = affinity_pre_score,
	.score = affinity_score, .normalize = affinity_normalize,
};
