/*
 * controller/nodeipam.c: gives each node a range of the cluster's pod addresses
 * (spec.podCIDR), one an IP family, and never one twice.
 */
#include <arpa/inet.h>
#include <stdlib.h>

#include "controller/common.h"

#define MAX_RANGES 65536 /* nodes a cluster CIDR may be cut for; the map is a bit each */

struct cidr_set {
	bool v6;
	unsigned __int128 base;
	int bits, mask, node_mask; /* 32 or 128; of the cluster; of a node */
	uint32_t n, next;
	uint8_t *used;
};

struct ipam {
	struct manager *m;
	struct informer *nodes;
	struct workqueue *q;
	struct event_recorder *rec;
	struct cidr_set sets[2];
	int n_sets;
};

static bool parse_cidr(struct str s, bool *v6, unsigned __int128 *base, int *mask)
{
	arena_cleanup struct arena a = {0};
	unsigned char raw[16];
	ptrdiff_t slash = str_index(s, '/');
	int64_t n;

	if (slash < 0 || !str_to_i64(str_sub(s, (size_t)slash + 1, s.n), &n))
		return false;
	const char *ip = arena_strz(&a, str_sub(s, 0, (size_t)slash));

	*v6 = strchr(ip, ':') != NULL;
	int len = *v6 ? 16 : 4;

	if (inet_pton(*v6 ? AF_INET6 : AF_INET, ip, raw) != 1 || n < 0 || n > len * 8)
		return false;
	*base = 0;
	for (int i = 0; i < len; i++)
		*base = *base << 8 | raw[i];
	*mask = (int)n;
	if (n < len * 8)
		*base = n ? *base >> (len * 8 - n) << (len * 8 - n) : 0;
	return true;
}

static struct str format_range(struct arena *a, const struct cidr_set *s, uint32_t i)
{
	unsigned __int128 v = s->base + ((unsigned __int128)i << (s->bits - s->node_mask));
	unsigned char raw[16];
	char text[INET6_ADDRSTRLEN];

	for (int k = s->bits / 8 - 1; k >= 0; k--, v >>= 8)
		raw[k] = (unsigned char)v;
	inet_ntop(s->v6 ? AF_INET6 : AF_INET, raw, text, sizeof(text));
	return arena_printf(a, "%s/%d", text, s->node_mask);
}

/* Marks (or frees) every range of s that overlaps `cidr`. */
static void mark(struct cidr_set *s, struct str cidr, bool used)
{
	bool v6;
	unsigned __int128 base;
	int mask;

	if (!parse_cidr(cidr, &v6, &base, &mask) || v6 != s->v6)
		return;
	unsigned __int128 size = (unsigned __int128)1 << (s->bits - s->node_mask);
	unsigned __int128 last = mask ? base + (((unsigned __int128)1 << (s->bits - mask)) - 1) : ~(unsigned __int128)0;
	unsigned __int128 end = s->base + size * s->n - 1;

	if (last < s->base || base > end)
		return;
	uint32_t from = base <= s->base ? 0 : (uint32_t)((base - s->base) / size);
	uint32_t to = last >= end ? s->n - 1 : (uint32_t)((last - s->base) / size);

	for (uint32_t i = from; i <= to; i++) {
		if (used)
			s->used[i / 8] |= (uint8_t)(1 << i % 8);
		else
			s->used[i / 8] &= (uint8_t)~(1 << i % 8);
	}
}

/* The next free range, round robin; false when there is none. */
static bool take(struct cidr_set *s, uint32_t *out)
{
	for (uint32_t k = 0; k < s->n; k++) {
		uint32_t i = (s->next + k) % s->n;

		if (s->used[i / 8] & 1 << i % 8)
			continue;
		s->used[i / 8] |= (uint8_t)(1 << i % 8);
		s->next = i + 1;
		*out = i;
		return true;
	}
	return false;
}

static void mark_node(struct ipam *c, const struct core_v1_node *n, bool used)
{
	for (int k = 0; k < c->n_sets; k++) {
		for (uint32_t i = 0; i < n->spec.pod_cidrs.n; i++)
			mark(&c->sets[k], n->spec.pod_cidrs.v[i], used);
		if (!n->spec.pod_cidrs.n && n->spec.pod_cidr.n)
			mark(&c->sets[k], n->spec.pod_cidr, used);
	}
}

static void on_node(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct ipam *c = ctx;
	arena_cleanup struct arena a = {0};
	const struct core_v1_node *n = cached_decode(c->nodes, &a, new_ ? new_ : old);

	if (!n)
		return;
	if (ev == INFORMER_DELETED) {
		mark_node(c, n, false);
		return;
	}
	if (n->spec.pod_cidr.n || n->spec.pod_cidrs.n)
		mark_node(c, n, true);
	else
		workqueue_add(c->q, n->metadata.name);
}

static struct error *reconcile(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct ipam *c = ctx;
	const struct core_v1_node *n = informer_get(c->nodes, a, STR_NULL, name);
	struct buf buf_cleanup b = {0};
	struct str cidrs[2];

	if (!n || n->spec.pod_cidr.n || n->spec.pod_cidrs.n)
		return NULL;
	struct core_v1_object_reference ref = object_reference(&core_v1_nodes_resource, n);
	int k;

	for (k = 0; k < c->n_sets; k++) {
		uint32_t i;

		if (!take(&c->sets[k], &i))
			break;
		cidrs[k] = format_range(a, &c->sets[k], i);
	}
	if (k < c->n_sets) {
		for (int i = 0; i < k; i++)
			mark(&c->sets[i], cidrs[i], false);
		event_record(c->rec, &ref, "Normal", "CIDRNotAvailable", "Node %.*s status is now: CIDRNotAvailable", STR_ARG(name));
		return error_new("no range of --cluster-cidr is left for node %.*s", STR_ARG(name));
	}
	/* podCIDRs merge: a second range must not join one that this cache has not seen yet */
	buf_printf(&b, "{\"metadata\":{\"resourceVersion\":\"%.*s\"},", STR_ARG(n->metadata.resource_version));
	buf_printf(&b, "\"spec\":{\"podCIDR\":\"%.*s\",\"podCIDRs\":[", STR_ARG(cidrs[0]));
	for (int i = 0; i < k; i++)
		buf_printf(&b, "%s\"%.*s\"", i ? "," : "", STR_ARG(cidrs[i]));
	buf_puts(&b, "]}}");
	struct error *e = client_patch(c->m->client, a, &core_v1_nodes_resource, STR_NULL, name, NULL, PATCH_STRATEGIC, buf_view(&b), NULL,
				       false, NULL);

	if (!e) {
		log_info("node %.*s has pod addresses %.*s", STR_ARG(name), STR_ARG(cidrs[0]));
		return NULL;
	}
	/* Refused: the range is free again. Otherwise nobody knows, and the node's next event tells. */
	if (e->status >= 400 && e->status < 500)
		for (int i = 0; i < k; i++)
			mark(&c->sets[i], cidrs[i], false);
	if (error_is(e, 404, NULL)) {
		error_free(e);
		return NULL;
	}
	if (error_is(e, 409, NULL))
		return e; /* once more, with the node as it is now */
	event_record(c->rec, &ref, "Normal", "CIDRAssignmentFailed", "Node %.*s status is now: CIDRAssignmentFailed", STR_ARG(name));
	return e;
}

static struct error *add_set(struct ipam *c, struct str cidr)
{
	struct cidr_set s = {0};

	if (c->n_sets == 2)
		return error_new("--cluster-cidr names more than two ranges");
	if (!parse_cidr(cidr, &s.v6, &s.base, &s.mask))
		return error_new("--cluster-cidr: \"%.*s\" is not a CIDR", STR_ARG(cidr));
	s.bits = s.v6 ? 128 : 32;
	s.node_mask = s.v6 ? c->m->flags.node_mask_v6 : c->m->flags.node_mask_v4;
	if (c->n_sets && c->sets[0].v6 == s.v6)
		return error_new("--cluster-cidr names two ranges of one IP family");
	if (s.node_mask < s.mask)
		return error_new("--node-cidr-mask-size %d is larger than %.*s", s.node_mask, STR_ARG(cidr));
	s.n = s.node_mask - s.mask >= 16 ? MAX_RANGES : 1u << (s.node_mask - s.mask);
	s.used = xcalloc(s.n / 8 + 1, 1);
	c->sets[c->n_sets++] = s;
	return NULL;
}

void node_ipam_start(struct manager *m)
{
	if (!m->flags.allocate_node_cidrs)
		return;
	struct ipam *c = xcalloc(1, sizeof(*c));
	struct str rest = str_from(m->flags.cluster_cidr);

	c->m = m;
	while (rest.p) {
		struct error *e = add_set(c, str_trim(str_cut(&rest, ',')));

		if (e) {
			log_and_free(e, "node addresses are not allocated");
			return;
		}
	}
	rest = str_from(m->flags.service_cidr);
	while (rest.p) {
		struct str cidr = str_trim(str_cut(&rest, ','));

		for (int k = 0; k < c->n_sets; k++)
			mark(&c->sets[k], cidr, true);
	}
	c->q = workqueue_new("node-ipam");
	c->rec = event_recorder_new(m->client, "cidrAllocator", "");
	c->nodes = manager_informer(m, &core_v1_nodes_resource);
	informer_on_event(c->nodes, on_node, c);
	/* The workers start when all nodes are known, so that no range is given twice. */
	controller_run(m, c->q, "node-ipam", 1, reconcile, c, c->nodes, NULL);
}
