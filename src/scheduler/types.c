#include "scheduler/types.h"

#include <stdlib.h>

#include "base/log.h"
#include "schema/codec.h"
#include "schema/quantity.h"
#include "schema/storage.h"

/* Names of extended resources: few, never forgotten. */
static struct str scalars[SCALARS_MAX];
static int n_scalars;

int scalar_index(struct str name)
{
	for (int i = 0; i < n_scalars; i++)
		if (str_eq(scalars[i], name))
			return i;
	if (n_scalars == SCALARS_MAX) {
		log_warn("more than %d extended resources: %.*s is not counted", SCALARS_MAX, STR_ARG(name));
		return -1;
	}
	scalars[n_scalars] = str_of(str_dupz(name), name.n);
	return n_scalars++;
}

struct str scalar_name(int index)
{
	return scalars[index];
}

static struct str topology_keys[TOPOLOGY_KEYS_MAX];
static int n_topology_keys;

int topology_key_index(struct str key)
{
	for (int i = 0; i < n_topology_keys; i++)
		if (str_eq(topology_keys[i], key))
			return i;
	if (n_topology_keys == TOPOLOGY_KEYS_MAX)
		return -1;
	topology_keys[n_topology_keys] = str_of(str_dupz(key), key.n);
	return n_topology_keys++;
}

/* Extended resources have a domain that is not kubernetes.io's; hugepages and attachable volumes count likewise. */
static bool is_scalar(struct str name)
{
	if (str_has_prefix(name, STR("hugepages-")) || str_has_prefix(name, STR("attachable-volumes-")))
		return true;
	return str_index(name, '/') >= 0 && !str_has_prefix(name, STR("requests."));
}

void resources_add_list(struct resources *r, const struct str_map *list)
{
	for (uint32_t i = 0; i < list->n; i++) {
		struct str name = list->v[i].key, q = list->v[i].value;

		if (str_eq(name, STR("cpu")))
			r->milli_cpu += quantity_milli(q);
		else if (str_eq(name, STR("memory")))
			r->memory += quantity_value(q);
		else if (str_eq(name, STR("ephemeral-storage")))
			r->ephemeral_storage += quantity_value(q);
		else if (str_eq(name, STR("pods")))
			r->pods += quantity_value(q);
		else if (is_scalar(name)) {
			int k = scalar_index(name);

			if (k >= 0) {
				r->scalar[k] += quantity_value(q);
				r->scalars |= 1u << k;
			}
		}
	}
}

void resources_add(struct resources *r, const struct resources *x)
{
	r->milli_cpu += x->milli_cpu;
	r->memory += x->memory;
	r->ephemeral_storage += x->ephemeral_storage;
	r->pods += x->pods;
	r->scalars |= x->scalars;
	for (uint32_t m = x->scalars; m; m &= m - 1)
		r->scalar[__builtin_ctz(m)] += x->scalar[__builtin_ctz(m)];
}

void resources_sub(struct resources *r, const struct resources *x)
{
	r->milli_cpu -= x->milli_cpu;
	r->memory -= x->memory;
	r->ephemeral_storage -= x->ephemeral_storage;
	r->pods -= x->pods;
	for (uint32_t m = x->scalars; m; m &= m - 1)
		r->scalar[__builtin_ctz(m)] -= x->scalar[__builtin_ctz(m)];
}

static int64_t max64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static void resources_max(struct resources *r, const struct resources *x)
{
	r->milli_cpu = max64(r->milli_cpu, x->milli_cpu);
	r->memory = max64(r->memory, x->memory);
	r->ephemeral_storage = max64(r->ephemeral_storage, x->ephemeral_storage);
	for (uint32_t m = x->scalars; m; m &= m - 1) {
		int k = __builtin_ctz(m);

		r->scalar[k] = r->scalars >> k & 1 ? max64(r->scalar[k], x->scalar[k]) : x->scalar[k];
	}
	r->scalars |= x->scalars;
}

static struct resources list_of(const struct core_v1_resource_requirements *req)
{
	struct resources r = {0};

	resources_add_list(&r, API_MAP(&req->requests));
	return r;
}

struct resources pod_requests(const struct core_v1_pod *pod)
{
	struct resources total = {0}, sidecars = {0}, init = {0};

	for (uint32_t i = 0; i < pod->spec.containers.n; i++) {
		struct resources r = list_of(&pod->spec.containers.v[i].resources);

		resources_add(&total, &r);
	}
	for (uint32_t i = 0; i < pod->spec.init_containers.n; i++) {
		const struct core_v1_container *c = &pod->spec.init_containers.v[i];
		struct resources r = list_of(&c->resources);

		/* Restartable init containers run on: they add to the pod and to every later init container. */
		if (c->restart_policy && str_eq(*c->restart_policy, STR("Always"))) {
			resources_add(&total, &r);
			resources_add(&sidecars, &r);
			r = sidecars;
		} else {
			resources_add(&r, &sidecars);
		}
		resources_max(&init, &r);
	}
	resources_max(&total, &init);
	if (pod->spec.resources) {
		const struct str_map *own = API_MAP(&pod->spec.resources->requests);
		struct resources r = {0};

		/* Pod-level requests replace the sum, for the resources that they name. */
		resources_add_list(&r, own);
		if (str_map_has(own, STR("cpu")))
			total.milli_cpu = r.milli_cpu;
		if (str_map_has(own, STR("memory")))
			total.memory = r.memory;
	}
	resources_add_list(&total, API_MAP(&pod->spec.overhead));
	total.pods = 1;
	return total;
}

/* Scoring counts a container without requests as upstream does: 100m and 200 MB. */
#define DEFAULT_MILLI_CPU 100
#define DEFAULT_MEMORY (200 * 1024 * 1024)

static void nonzero_requests(struct pod_info *p, const struct core_v1_pod *pod)
{
	int64_t cpu = 0, mem = 0;

	for (uint32_t i = 0; i < pod->spec.containers.n; i++) {
		const struct str_map *m = API_MAP(&pod->spec.containers.v[i].resources.requests);

		cpu += str_map_has(m, STR("cpu")) ? quantity_milli(str_map_get(m, STR("cpu"))) : DEFAULT_MILLI_CPU;
		mem += str_map_has(m, STR("memory")) ? quantity_value(str_map_get(m, STR("memory"))) : DEFAULT_MEMORY;
	}
	p->nonzero.milli_cpu = max64(cpu, p->requests.milli_cpu);
	p->nonzero.memory = max64(mem, p->requests.memory);
}

static void copy_map(struct arena *a, struct str_map *to, const struct str_map *from)
{
	for (uint32_t i = 0; i < from->n; i++)
		*arena_push(a, to) = (struct str_pair){arena_str(a, from->v[i].key), arena_str(a, from->v[i].value)};
}

/* Selectors keep slices of what they were made from, so the LabelSelector is copied first. */
static const struct selector *own_selector(struct arena *a, const struct meta_v1_label_selector *s)
{
	const struct selector *out = NULL;
	struct meta_v1_label_selector *copy = NULL;

	if (s) { /* NULL selects nothing */
		copy = arena_new(a, struct meta_v1_label_selector);
		object_copy(a, &meta_v1_label_selector_type, s, copy);
	}
	struct error *e = label_selector_from(a, copy, &out);

	/* The API server has validated it. */
	log_and_free(e, "label selector of a pod affinity term");
	return out;
}

static void add_terms(struct pod_info *p, affinity_terms *to, const struct core_v1_pod_affinity_term *terms, uint32_t n, int32_t weight)
{
	struct arena *a = &p->arena;

	for (uint32_t i = 0; i < n; i++) {
		const struct core_v1_pod_affinity_term *t = &terms[i];
		struct affinity_term *out = arena_push(a, to);

		out->topology_key = arena_str(a, t->topology_key);
		out->key = topology_key_index(t->topology_key);
		out->weight = weight;
		/* KEP-3633: the API server has merged matchLabelKeys into labelSelector. */
		out->selector = own_selector(a, t->label_selector);
		out->has_ns_selector = t->namespace_selector != NULL;
		if (t->namespace_selector)
			out->ns_selector = own_selector(a, t->namespace_selector);
		for (uint32_t k = 0; k < t->namespaces.n; k++)
			*arena_push(a, &out->namespaces) = arena_str(a, t->namespaces.v[k]);
	}
}

static void add_affinity(struct pod_info *p, const struct core_v1_affinity *af)
{
	if (!af)
		return;
	if (af->pod_affinity) {
		add_terms(p, &p->affinity, af->pod_affinity->required_during_scheduling_ignored_during_execution.v,
			  af->pod_affinity->required_during_scheduling_ignored_during_execution.n, 0);
		for (uint32_t i = 0; i < af->pod_affinity->preferred_during_scheduling_ignored_during_execution.n; i++) {
			const struct core_v1_weighted_pod_affinity_term *w =
				&af->pod_affinity->preferred_during_scheduling_ignored_during_execution.v[i];

			add_terms(p, &p->preferred, &w->pod_affinity_term, 1, w->weight);
		}
	}
	if (af->pod_anti_affinity) {
		add_terms(p, &p->anti_affinity, af->pod_anti_affinity->required_during_scheduling_ignored_during_execution.v,
			  af->pod_anti_affinity->required_during_scheduling_ignored_during_execution.n, 0);
		for (uint32_t i = 0; i < af->pod_anti_affinity->preferred_during_scheduling_ignored_during_execution.n; i++) {
			const struct core_v1_weighted_pod_affinity_term *w =
				&af->pod_anti_affinity->preferred_during_scheduling_ignored_during_execution.v[i];

			add_terms(p, &p->preferred, &w->pod_affinity_term, 1, -w->weight);
		}
	}
}

static void add_ports(struct pod_info *p, const struct core_v1_container *c)
{
	for (uint32_t i = 0; i < c->ports.n; i++) {
		const struct core_v1_container_port *cp = &c->ports.v[i];

		if (cp->host_port <= 0)
			continue;
		*arena_push(&p->arena, &p->ports) = (struct host_port){
			str_eq(cp->host_ip, STR("0.0.0.0")) ? STR_NULL : arena_str(&p->arena, cp->host_ip),
			cp->protocol.n ? arena_str(&p->arena, cp->protocol) : STR("TCP"), cp->host_port};
	}
}

static void add_claims(struct pod_info *p, const struct core_v1_pod *pod)
{
	for (uint32_t i = 0; i < pod->spec.volumes.n; i++) {
		const struct core_v1_volume *v = &pod->spec.volumes.v[i];

		if (v->volume_source.persistent_volume_claim)
			*arena_push(&p->arena, &p->claims) = arena_str(&p->arena, v->volume_source.persistent_volume_claim->claim_name);
		else if (v->volume_source.ephemeral)
			*arena_push(&p->arena, &p->claims) = ephemeral_claim_name(&p->arena, p->name, v->name);
	}
}

struct pod_info *pod_info_new(const struct core_v1_pod *pod)
{
	struct pod_info *p = xcalloc(1, sizeof *p);
	struct arena *a = &p->arena;

	p->key = arena_printf(a, "%.*s/%.*s", STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.name));
	p->ns = arena_str(a, pod->metadata.namespace);
	p->ns_hash = str_hash(p->ns);
	p->name = arena_str(a, pod->metadata.name);
	p->uid = arena_str(a, pod->metadata.uid);
	p->node = arena_str(a, pod->spec.node_name);
	copy_map(a, &p->labels, API_MAP(&pod->metadata.labels));
	p->priority = pod->spec.priority ? *pod->spec.priority : 0;
	p->start_s = pod->status.start_time ? pod->status.start_time->s : pod->metadata.creation_timestamp.s;
	p->deleting = pod->metadata.deletion_timestamp != NULL;
	p->requests = pod_requests(pod);
	nonzero_requests(p, pod);
	for (uint32_t i = 0; i < pod->spec.containers.n; i++)
		add_ports(p, &pod->spec.containers.v[i]);
	for (uint32_t i = 0; i < pod->spec.init_containers.n; i++) {
		const struct core_v1_container *c = &pod->spec.init_containers.v[i];

		if (c->restart_policy && str_eq(*c->restart_policy, STR("Always")))
			add_ports(p, c);
	}
	add_affinity(p, pod->spec.affinity);
	add_claims(p, pod);
	p->nominated = arena_str(a, pod->status.nominated_node_name);
	p->never_preempts = pod->spec.preemption_policy && str_eqz(*pod->spec.preemption_policy, "Never");
	return p;
}

void pod_info_free(struct pod_info *p)
{
	if (!p)
		return;
	arena_free(&p->arena);
	free(p);
}

bool affinity_term_matches(const struct affinity_term *t, struct str owner_ns, const struct pod_info *p, const struct str_map *ns_labels)
{
	bool in = t->namespaces.n == 0 && !t->has_ns_selector && str_eq(owner_ns, p->ns);

	for (uint32_t i = 0; i < t->namespaces.n && !in; i++)
		in = str_eq(t->namespaces.v[i], p->ns);
	if (!in && t->has_ns_selector)
		in = selector_matches(t->ns_selector, ns_labels);
	return in && selector_matches(t->selector, &p->labels);
}

void node_info_account(struct node_info *n, const struct pod_info *p, int sign)
{
	if (sign > 0)
		resources_add(&n->requested, &p->requests);
	else
		resources_sub(&n->requested, &p->requests);
	n->nonzero_requested.milli_cpu += sign * p->nonzero.milli_cpu;
	n->nonzero_requested.memory += sign * p->nonzero.memory;
}

void node_info_what_if(struct node_info *n, struct pod_info *p, int sign)
{
	node_info_account(n, p, sign);
	if (sign > 0) {
		if (n->pods.n == n->pods.cap) {
			n->pods.cap = n->pods.cap ? n->pods.cap * 2 : 8;
			n->pods.v = xrealloc(n->pods.v, n->pods.cap * sizeof *n->pods.v);
		}
		n->pods.v[n->pods.n++] = p;
		return;
	}
	for (uint32_t i = n->pods.n; i-- > 0;) {
		if (n->pods.v[i] == p) {
			n->pods.v[i] = n->pods.v[--n->pods.n];
			return;
		}
	}
}

/* Its terms say where others are better placed. */
static bool draws_others(const struct pod_info *p)
{
	return p->affinity.n || p->preferred.n;
}

static void attach(struct cache *c, struct node_info *n, struct pod_info *p)
{
	if (n->pods.n == n->pods.cap) {
		n->pods.cap = n->pods.cap ? n->pods.cap * 2 : 8;
		n->pods.v = xrealloc(n->pods.v, n->pods.cap * sizeof *n->pods.v);
	}
	n->pods.v[n->pods.n++] = p;
	node_info_account(n, p, 1);
	n->with_affinity += draws_others(p);
	n->with_anti_affinity += p->anti_affinity.n > 0;
	c->n_affinity_pods += draws_others(p);
	c->n_anti_affinity_pods += p->anti_affinity.n > 0;
}

static void drop_if_unknown(struct cache *c, struct node_info *n)
{
	if (n->node || n->pods.n || n->nominated.n)
		return;
	map_del(&c->by_name, n->name);
	free(n->pods.v);
	free(n->nominated.v);
	free((char *)n->name.p);
	arena_free(&n->arena);
	free(n);
}

static void detach(struct cache *c, struct node_info *n, struct pod_info *p)
{
	for (uint32_t i = 0; i < n->pods.n; i++) {
		if (n->pods.v[i] != p)
			continue;
		n->pods.v[i] = n->pods.v[--n->pods.n];
		node_info_account(n, p, -1);
		n->with_affinity -= draws_others(p);
		n->with_anti_affinity -= p->anti_affinity.n > 0;
		c->n_affinity_pods -= draws_others(p);
		c->n_anti_affinity_pods -= p->anti_affinity.n > 0;
		return;
	}
}

static struct node_info *info_of(struct cache *c, struct str name)
{
	struct node_info *n = map_get(&c->by_name, name);

	if (!n) {
		n = xcalloc(1, sizeof *n);
		n->name = str_of(str_dupz(name), name.n);
		map_set(&c->by_name, name, n);
	}
	return n;
}

static void count_images(struct cache *c, const struct node_info *n, int sign)
{
	for (uint32_t i = 0; i < n->node->status.images.n; i++) {
		const struct core_v1_container_image *im = &n->node->status.images.v[i];

		for (uint32_t k = 0; k < im->names.n; k++) {
			intptr_t count = (intptr_t)map_get(&c->images, im->names.v[k]) + sign;

			if (count > 0)
				map_set(&c->images, im->names.v[k], (void *)count);
			else
				map_del(&c->images, im->names.v[k]);
		}
	}
}

/* ---- domains ---- */

struct domain {
	uint32_t number, nodes;
};

static uint32_t domain_take(struct cache *c, struct str key, struct str value)
{
	arena_cleanup struct arena a = {0};
	struct str name = arena_printf(&a, "%.*s%c%.*s", STR_ARG(key), 0, STR_ARG(value));
	struct domain *d = map_get(&c->domains, name);

	if (!d) {
		d = xcalloc(1, sizeof *d);
		if (!c->domain_limit)
			c->domain_limit = 1;
		d->number = c->n_free_domains ? c->free_domains[--c->n_free_domains] : c->domain_limit++;
		map_set(&c->domains, name, d);
	}
	d->nodes++;
	return d->number;
}

static void domain_give(struct cache *c, struct str key, struct str value)
{
	arena_cleanup struct arena a = {0};
	struct str name = arena_printf(&a, "%.*s%c%.*s", STR_ARG(key), 0, STR_ARG(value));
	struct domain *d = map_get(&c->domains, name);

	if (!d || --d->nodes)
		return;
	if (c->n_free_domains == c->cap_free_domains) {
		c->cap_free_domains = c->cap_free_domains ? c->cap_free_domains * 2 : 64;
		c->free_domains = xrealloc(c->free_domains, c->cap_free_domains * sizeof *c->free_domains);
	}
	c->free_domains[c->n_free_domains++] = d->number;
	free(map_del(&c->domains, name));
}

static void give_domains(struct cache *c, struct node_info *n)
{
	const struct str_map *labels = node_labels(n);

	for (uint32_t i = 0; i < labels->n; i++)
		domain_give(c, labels->v[i].key, labels->v[i].value);
	free(n->domains);
	n->domains = NULL;
	n->n_domains = 0;
}

static void take_domains(struct cache *c, struct node_info *n)
{
	const struct str_map *labels = node_labels(n);

	n->n_domains = labels->n;
	n->domains = xmalloc((labels->n + 1) * sizeof *n->domains);
	for (uint32_t i = 0; i < labels->n; i++)
		n->domains[i] = domain_take(c, labels->v[i].key, labels->v[i].value);
}

static uint32_t label_domain(const struct node_info *n, struct str key)
{
	const struct str_map *labels = node_labels(n);

	for (uint32_t i = 0; i < labels->n; i++)
		if (str_eq(labels->v[i].key, key))
			return n->domains[i];
	return 0;
}

static void make_column(struct cache *c, int k)
{
	if (c->columns[k].cap < c->n_nodes) {
		c->columns[k].cap = c->cap_nodes;
		c->columns[k].at = xrealloc(c->columns[k].at, c->cap_nodes * sizeof *c->columns[k].at);
	}
	for (size_t i = 0; i < c->n_nodes; i++)
		c->columns[k].at[i] = label_domain(c->nodes[i], topology_keys[k]);
	c->columns[k].version = c->labels_version;
}

uint32_t node_domain(struct cache *c, const struct node_info *n, int k, struct str key)
{
	if (k < 0)
		return label_domain(n, key);
	if (c->columns[k].version != c->labels_version)
		make_column(c, k);
	return c->columns[k].at[n->index];
}

static bool same_labels(const struct core_v1_node *x, const struct core_v1_node *y)
{
	const struct str_map *a = API_MAP(&x->metadata.labels), *b = API_MAP(&y->metadata.labels);

	for (uint32_t i = 0; a->n == b->n && i < a->n; i++)
		if (!str_eq(a->v[i].key, b->v[i].key) || !str_eq(a->v[i].value, b->v[i].value))
			return false;
	return a->n == b->n;
}

void cache_set_node(struct cache *c, const struct core_v1_node *node, struct arena *arena)
{
	struct node_info *n = info_of(c, node->metadata.name);

	bool labels = !n->node || !same_labels(n->node, node);

	if (n->node) {
		count_images(c, n, -1);
		if (labels)
			give_domains(c, n);
	} else {
		if (c->n_nodes == c->cap_nodes) {
			c->cap_nodes = c->cap_nodes ? c->cap_nodes * 2 : 64;
			c->nodes = xrealloc(c->nodes, c->cap_nodes * sizeof *c->nodes);
		}
		n->index = (uint32_t)c->n_nodes;
		c->nodes[c->n_nodes++] = n;
	}
	arena_free(&n->arena);
	n->arena = *arena;
	*arena = (struct arena){0};
	n->node = (struct core_v1_node *)node;
	n->allocatable = (struct resources){0};
	resources_add_list(&n->allocatable, API_MAP(&node->status.allocatable));
	count_images(c, n, 1);
	if (labels) {
		take_domains(c, n);
		c->labels_version++;
	}
}

void cache_delete_node(struct cache *c, struct str name)
{
	struct node_info *n = map_get(&c->by_name, name);

	if (!n || !n->node)
		return;
	count_images(c, n, -1);
	give_domains(c, n);
	c->labels_version++;
	c->nodes[n->index] = c->nodes[--c->n_nodes];
	c->nodes[n->index]->index = n->index;
	n->node = NULL;
	arena_free(&n->arena);
	drop_if_unknown(c, n);
}

void cache_set_pod(struct cache *c, struct pod_info *p)
{
	struct pod_info *old = map_set(&c->pods, p->key, p);

	if (old) {
		struct node_info *was = map_get(&c->by_name, old->node);

		if (was) {
			detach(c, was, old);
			if (!str_eq(old->node, p->node))
				drop_if_unknown(c, was);
		}
		pod_info_free(old);
	}
	attach(c, info_of(c, p->node), p);
}

void cache_delete_pod(struct cache *c, struct str key)
{
	struct pod_info *p = map_del(&c->pods, key);

	if (!p)
		return;
	struct node_info *n = map_get(&c->by_name, p->node);

	if (n) {
		detach(c, n, p);
		drop_if_unknown(c, n);
	}
	pod_info_free(p);
}

void cache_denominate(struct cache *c, struct str key)
{
	struct pod_info *p = map_del(&c->nominated, key);
	struct node_info *n = p ? map_get(&c->by_name, p->nominated) : NULL;

	for (uint32_t i = 0; n && i < n->nominated.n; i++) {
		if (n->nominated.v[i] != p)
			continue;
		n->nominated.v[i] = n->nominated.v[--n->nominated.n];
		drop_if_unknown(c, n);
		break;
	}
	pod_info_free(p);
}

void cache_nominate(struct cache *c, struct pod_info *p)
{
	cache_denominate(c, p->key);
	if (!p->nominated.n) {
		pod_info_free(p);
		return;
	}
	struct node_info *n = info_of(c, p->nominated);

	if (n->nominated.n == n->nominated.cap) {
		n->nominated.cap = n->nominated.cap ? n->nominated.cap * 2 : 4;
		n->nominated.v = xrealloc(n->nominated.v, n->nominated.cap * sizeof *n->nominated.v);
	}
	n->nominated.v[n->nominated.n++] = p;
	map_set(&c->nominated, p->key, p);
}

const struct pod_info *cache_nomination(const struct cache *c, struct str key)
{
	return map_get(&c->nominated, key);
}

struct node_info *cache_node(const struct cache *c, struct str name)
{
	struct node_info *n = map_get(&c->by_name, name);

	return n && n->node ? n : NULL;
}

const struct str_map *cache_ns_labels(const struct cache *c, struct str ns)
{
	static const struct str_map none;
	struct ns_info *i = map_get(&c->namespaces, ns);

	return i ? &i->labels : &none;
}
