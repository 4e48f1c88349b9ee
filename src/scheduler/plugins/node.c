/* Plugins that ask about one node alone: gates, name, unschedulable, taints, affinity, ports, images. */
#include "scheduler/plugins/plugins.h"

#include <stdint.h>

static struct status unresolvable(const char *reason)
{
	return (struct status){CODE_UNSCHEDULABLE_UNRESOLVABLE, str_from(reason)};
}

/* ---- SchedulingGates (KEP-3521) ---- */

static struct status gates(const struct core_v1_pod *pod, struct arena *a)
{
	struct buf b = {0};

	if (!pod->spec.scheduling_gates.n)
		return STATUS_OK;
	for (uint32_t i = 0; i < pod->spec.scheduling_gates.n; i++)
		buf_printf(&b, "%s%.*s", i ? " " : "", STR_ARG(pod->spec.scheduling_gates.v[i].name));
	struct str names = arena_str(a, buf_view(&b));

	buf_free(&b);
	return (struct status){CODE_UNSCHEDULABLE_UNRESOLVABLE,
			       arena_printf(a, "waiting for scheduling gates: [%.*s]", STR_ARG(names))};
}

const struct plugin plugin_scheduling_gates = {.name = "SchedulingGates", .pre_enqueue = gates};

/* ---- tolerations ---- */

static bool tolerates(const struct core_v1_toleration *t, const struct core_v1_taint *taint)
{
	int64_t have, want;

	if (t->effect.n && !str_eq(t->effect, taint->effect))
		return false;
	if (t->key.n && !str_eq(t->key, taint->key))
		return false;
	if (!t->operator.n || str_eq(t->operator, STR("Equal")))
		return str_eq(t->value, taint->value);
	if (str_eq(t->operator, STR("Exists")))
		return true;
	/* KEP-5471: numeric comparison of the taint's value with the toleration's. */
	if (!str_to_i64(taint->value, &have) || !str_to_i64(t->value, &want))
		return false;
	return str_eq(t->operator, STR("Lt")) ? have < want : str_eq(t->operator, STR("Gt")) ? have > want : false;
}

static bool tolerated(const struct core_v1_pod *pod, const struct core_v1_taint *taint)
{
	for (uint32_t i = 0; i < pod->spec.tolerations.n; i++)
		if (tolerates(&pod->spec.tolerations.v[i], taint))
			return true;
	return false;
}

const struct core_v1_taint *untolerated_taint(const struct core_v1_node *n, const struct core_v1_pod *pod, bool prefer)
{
	for (uint32_t i = 0; i < n->spec.taints.n; i++) {
		const struct core_v1_taint *t = &n->spec.taints.v[i];
		bool hard = str_eq(t->effect, STR("NoSchedule")) || str_eq(t->effect, STR("NoExecute"));

		if (hard != prefer && (hard || str_eq(t->effect, STR("PreferNoSchedule"))) && !tolerated(pod, t))
			return t;
	}
	return NULL;
}

/* ---- NodeUnschedulable ---- */

static struct status unschedulable(struct cycle *c, int self, const struct node_info *n)
{
	static const struct core_v1_taint taint = {.key = STR_INIT("node.kubernetes.io/unschedulable"),
						   .effect = STR_INIT("NoSchedule")};

	return !n->node->spec.unschedulable || tolerated(c->pod, &taint) ? STATUS_OK : unresolvable("node(s) were unschedulable");
}

const struct plugin plugin_node_unschedulable = {
	.name = "NodeUnschedulable", .events = EVENT_NODE_ADD | EVENT_NODE_TAINT, .filter = unschedulable,
};

/* ---- NodeName ---- */

static struct status node_name(struct cycle *c, int self, const struct node_info *n)
{
	return !c->pod->spec.node_name.n || str_eq(c->pod->spec.node_name, n->name)
		? STATUS_OK : unresolvable("node(s) didn't match the requested node name");
}

const struct plugin plugin_node_name = {.name = "NodeName", .events = EVENT_NODE_ADD, .filter = node_name};

/* ---- TaintToleration ---- */

static struct status taints(struct cycle *c, int self, const struct node_info *n)
{
	return untolerated_taint(n->node, c->pod, false) ? unresolvable("node(s) had untolerated taint(s)") : STATUS_OK;
}

static int64_t taint_score(struct cycle *c, int self, const struct node_info *n)
{
	int64_t count = 0;

	for (uint32_t i = 0; i < n->node->spec.taints.n; i++) {
		const struct core_v1_taint *t = &n->node->spec.taints.v[i];

		count += str_eq(t->effect, STR("PreferNoSchedule")) && !tolerated(c->pod, t);
	}
	return count;
}

static void taint_normalize(struct cycle *c, int self, struct node_info **nodes, int64_t *scores, size_t n)
{
	default_normalize(scores, n, true);
}

const struct plugin plugin_taint_toleration = {
	.name = "TaintToleration", .weight = 3, .events = EVENT_NODE_ADD | EVENT_NODE_TAINT,
	.filter = taints, .score = taint_score, .normalize = taint_normalize,
};

/* ---- NodeAffinity ---- */

static bool requirement_matches(const struct core_v1_node_selector_requirement *r, bool has, struct str value)
{
	int64_t have, want;

	if (str_eq(r->operator, STR("Exists")))
		return has;
	if (str_eq(r->operator, STR("DoesNotExist")))
		return !has;
	if (str_eq(r->operator, STR("Gt")) || str_eq(r->operator, STR("Lt"))) {
		if (!has || r->values.n != 1 || !str_to_i64(value, &have) || !str_to_i64(r->values.v[0], &want))
			return false;
		return str_eq(r->operator, STR("Gt")) ? have > want : have < want;
	}
	bool in = false;

	for (uint32_t i = 0; i < r->values.n && has && !in; i++)
		in = str_eq(r->values.v[i], value);
	return str_eq(r->operator, STR("NotIn")) ? !in : in;
}

static bool term_matches(const struct core_v1_node_selector_term *t, const struct core_v1_node *n)
{
	if (!t->match_expressions.n && !t->match_fields.n)
		return false;
	for (uint32_t i = 0; i < t->match_expressions.n; i++) {
		const struct core_v1_node_selector_requirement *r = &t->match_expressions.v[i];
		struct str v = str_map_get(API_MAP(&n->metadata.labels), r->key);

		if (!requirement_matches(r, v.p != NULL, v))
			return false;
	}
	for (uint32_t i = 0; i < t->match_fields.n; i++) {
		const struct core_v1_node_selector_requirement *r = &t->match_fields.v[i];

		if (!str_eq(r->key, STR("metadata.name")) || !requirement_matches(r, true, n->metadata.name))
			return false;
	}
	return true;
}

bool node_selector_matches(const struct core_v1_node_selector *s, const struct core_v1_node *n)
{
	for (uint32_t i = 0; i < s->node_selector_terms.n; i++)
		if (term_matches(&s->node_selector_terms.v[i], n))
			return true;
	return false;
}

bool node_affinity_matches(struct cycle *c, const struct core_v1_pod *pod, const struct node_info *n)
{
	for (uint32_t i = 0; i < pod->spec.node_selector.n; i++) {
		struct str v = str_map_get(node_labels(n), pod->spec.node_selector.v[i].key);

		if (!v.p || !str_eq(v, pod->spec.node_selector.v[i].value))
			return false;
	}
	const struct core_v1_node_selector *s =
		pod->spec.affinity && pod->spec.affinity->node_affinity
			? pod->spec.affinity->node_affinity->required_during_scheduling_ignored_during_execution : NULL;

	return !s || node_selector_matches(s, n->node);
}

/* NodeAffinityArgs.addedAffinity, of every pod of the profile. */
static const struct core_v1_node_selector *added_required(const struct cycle *c)
{
	return c->profile->added_affinity ? c->profile->added_affinity->required_during_scheduling_ignored_during_execution : NULL;
}

static struct status affinity_pre(struct cycle *c, int self)
{
	const struct core_v1_affinity *af = c->pod->spec.affinity;

	return c->pod->spec.node_selector.n || added_required(c) ||
	       (af && af->node_affinity && af->node_affinity->required_during_scheduling_ignored_during_execution)
		? STATUS_OK : (struct status){CODE_SKIP, STR_NULL};
}

static struct status affinity(struct cycle *c, int self, const struct node_info *n)
{
	if (added_required(c) && !node_selector_matches(added_required(c), n->node))
		return unresolvable("node(s) didn't match scheduler-enforced node affinity");
	return node_affinity_matches(c, c->pod, n) ? STATUS_OK : unresolvable("node(s) didn't match Pod's node affinity/selector");
}

static const struct core_v1_node_affinity *own_affinity(const struct cycle *c)
{
	return c->pod->spec.affinity ? c->pod->spec.affinity->node_affinity : NULL;
}

static bool prefers(const struct core_v1_node_affinity *na)
{
	return na && na->preferred_during_scheduling_ignored_during_execution.n;
}

static struct status affinity_pre_score(struct cycle *c, int self, struct node_info **nodes, size_t n)
{
	return prefers(own_affinity(c)) || prefers(c->profile->added_affinity) ? STATUS_OK : (struct status){CODE_SKIP, STR_NULL};
}

static int64_t preference(const struct core_v1_node_affinity *na, const struct node_info *n)
{
	int64_t sum = 0;

	for (uint32_t i = 0; na && i < na->preferred_during_scheduling_ignored_during_execution.n; i++) {
		const struct core_v1_preferred_scheduling_term *t = &na->preferred_during_scheduling_ignored_during_execution.v[i];

		if (t->weight && term_matches(&t->preference, n->node))
			sum += t->weight;
	}
	return sum;
}

static int64_t affinity_score(struct cycle *c, int self, const struct node_info *n)
{
	return preference(own_affinity(c), n) + preference(c->profile->added_affinity, n);
}

static void affinity_normalize(struct cycle *c, int self, struct node_info **nodes, int64_t *scores, size_t n)
{
	default_normalize(scores, n, false);
}

const struct plugin plugin_node_affinity = {
	.name = "NodeAffinity", .weight = 2, .events = EVENT_NODE_ADD | EVENT_NODE_LABEL,
	.pre_filter = affinity_pre, .filter = affinity, .pre_score = affinity_pre_score, .score = affinity_score,
	.normalize = affinity_normalize,
};

/* ---- NodePorts ---- */

static struct status ports_pre(struct cycle *c, int self)
{
	return c->info->ports.n ? STATUS_OK : (struct status){CODE_SKIP, STR_NULL};
}

static bool ports_clash(const struct host_port *a, const struct host_port *b)
{
	return a->port == b->port && str_eq(a->protocol, b->protocol) && (!a->ip.n || !b->ip.n || str_eq(a->ip, b->ip));
}

static struct status ports(struct cycle *c, int self, const struct node_info *n)
{
	for (uint32_t i = 0; i < n->pods.n; i++) {
		const struct pod_info *p = n->pods.v[i];

		for (uint32_t k = 0; k < p->ports.n; k++)
			for (uint32_t m = 0; m < c->info->ports.n; m++)
				if (ports_clash(&p->ports.v[k], &c->info->ports.v[m]))
					return (struct status){CODE_UNSCHEDULABLE,
							       STR("node(s) didn't have free ports for the requested pod ports")};
	}
	return STATUS_OK;
}

const struct plugin plugin_node_ports = {
	.name = "NodePorts", .events = EVENT_NODE_ADD | EVENT_POD_DELETE, .pre_filter = ports_pre, .filter = ports,
};

/* ---- ImageLocality ---- */

#define IMAGE_MIN (23LL << 20)
#define IMAGE_MAX_EACH (1000LL << 20)

static bool same_image(struct str name, struct str image)
{
	if (str_eq(name, image))
		return true;
	/* "nginx" is "nginx:latest"; a digest or a tag stays. */
	ptrdiff_t colon = str_rindex(image, ':'), slash = str_rindex(image, '/');

	return colon <= slash && str_has_prefix(name, image) && str_eq(str_sub(name, image.n, name.n), STR(":latest"));
}

static int64_t image_score(struct cycle *c, int self, const struct node_info *n)
{
	int64_t sum = 0, containers = 0;

	for (uint32_t i = 0; i < c->pod->spec.containers.n; i++, containers++) {
		struct str image = c->pod->spec.containers.v[i].image;

		for (uint32_t k = 0; k < n->node->status.images.n; k++) {
			const struct core_v1_container_image *im = &n->node->status.images.v[k];
			bool has = false;

			for (uint32_t m = 0; m < im->names.n && !has; m++)
				has = same_image(im->names.v[m], image);
			if (!has)
				continue;
			intptr_t spread = (intptr_t)map_get(&c->cache->images, im->names.v[0]);

			/* Weighed by how many nodes have it, so that one node's images do not draw everything. */
			sum += (int64_t)((double)im->size_bytes * (double)spread / (double)c->cache->n_nodes);
			break;
		}
	}
	int64_t max = IMAGE_MAX_EACH * (containers ? containers : 1);

	if (sum < IMAGE_MIN)
		sum = IMAGE_MIN;
	if (sum > max)
		sum = max;
	return SCORE_MAX * (sum - IMAGE_MIN) / (max - IMAGE_MIN);
}

const struct plugin plugin_image_locality = {.name = "ImageLocality", .weight = 1, .score = image_score};
