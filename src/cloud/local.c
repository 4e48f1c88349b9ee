/*
 * The provider `local`: nodes are this machine's (provider ids local://NAME), load balancers are addresses of a pool that
 * kube-proxy answers for on every node. It keeps no state: what is taken stands in the Services' status.
 */
#include <arpa/inet.h>
#include <stdio.h>

#include "cloud/provider.h"

#define NODES_MAX 64
#define PREFIX "local://"

static struct str nodes[NODES_MAX]; /* names of the nodes that exist, of --local-nodes */
static size_t n_nodes;
static bool nodes_known;
static uint32_t first, last; /* pool, host byte order; 0: none */

static bool parse_ip(struct str s, uint32_t *ip)
{
	char text[INET_ADDRSTRLEN];
	struct in_addr in;

	if (s.n >= sizeof text)
		return false;
	snprintf(text, sizeof text, "%.*s", STR_ARG(s));
	if (inet_pton(AF_INET, text, &in) != 1)
		return false;
	*ip = ntohl(in.s_addr);
	return true;
}

static bool option(const char *name, const char *value, struct error **e)
{
	struct str v = str_from(value);

	if (strcmp(name, "local-load-balancer-pool") == 0) {
		struct str from = str_cut(&v, '-');

		if (!parse_ip(str_trim(from), &first) || !parse_ip(str_trim(v), &last) || last < first)
			*e = error_new("--%s: \"%s\" is not FIRST-LAST, two IPv4 addresses", name, value);
		return true;
	}
	if (strcmp(name, "local-nodes") == 0) {
		nodes_known = true;
		while (v.p && n_nodes < NODES_MAX)
			nodes[n_nodes++] = str_trim(str_cut(&v, ','));
		return true;
	}
	return false;
}

static bool is_ours(const struct core_v1_node *n)
{
	return str_has_prefix(n->spec.provider_id, STR(PREFIX));
}

static struct error *instance_exists(const struct core_v1_node *n, bool *exists)
{
	struct str name = str_sub(n->spec.provider_id, sizeof PREFIX - 1, n->spec.provider_id.n);

	/* Machines that joined from elsewhere are not for this provider to judge. */
	*exists = !is_ours(n) || !nodes_known;
	for (size_t i = 0; i < n_nodes && !*exists; i++)
		*exists = str_eq(nodes[i], name);
	return NULL;
}

static struct error *instance_shutdown(const struct core_v1_node *n, bool *down)
{
	*down = false;
	return NULL;
}

static struct error *instance(struct arena *a, const struct core_v1_node *n, struct cloud_instance *out)
{
	*out = (struct cloud_instance){
		.provider_id = n->spec.provider_id.n ? n->spec.provider_id : arena_printf(a, PREFIX "%.*s", STR_ARG(n->metadata.name)),
		.instance_type = STR("local"), .zone = STR("local"), .region = STR("local"),
	};
	/* The kubelet knows the addresses of the machine it runs on; they are confirmed, not replaced. */
	for (uint32_t i = 0; i < n->status.addresses.n; i++) {
		struct cloud_address *p = arena_push(a, &out->addresses);

		p->type = arena_strz(a, n->status.addresses.v[i].type);
		p->address = n->status.addresses.v[i].address;
	}
	return NULL;
}

static bool has_ip(const struct core_v1_service *s, uint32_t ip)
{
	uint32_t have;

	for (uint32_t i = 0; i < s->status.load_balancer.ingress.n; i++)
		if (parse_ip(s->status.load_balancer.ingress.v[i].ip, &have) && have == ip)
			return true;
	return false;
}

/* One Service an address: kube-proxy knows a port of an address once. */
static bool is_free(const struct core_v1_service *s, struct core_v1_service *const *all, size_t n, uint32_t ip)
{
	for (size_t i = 0; i < n; i++)
		if (!str_eq(all[i]->metadata.uid, s->metadata.uid) && has_ip(all[i], ip))
			return false;
	return true;
}

static struct error *ensure(struct arena *a, const struct core_v1_service *s, struct core_v1_service *const *all, size_t n,
			    struct core_v1_load_balancer_status *status)
{
	uint32_t ip = 0, want;
	char text[INET_ADDRSTRLEN];

	if (!first)
		return error_new("no addresses for load balancers: give the pool with --local-load-balancer-pool");
	if (s->spec.load_balancer_ip.n) {
		if (!parse_ip(s->spec.load_balancer_ip, &want) || want < first || want > last)
			return error_new("spec.loadBalancerIP %.*s is not in the pool", STR_ARG(s->spec.load_balancer_ip));
		if (!is_free(s, all, n, want))
			return error_new("spec.loadBalancerIP %.*s is taken by another Service", STR_ARG(s->spec.load_balancer_ip));
		ip = want;
	}
	for (uint32_t i = 0; i < s->status.load_balancer.ingress.n && !ip; i++)
		if (parse_ip(s->status.load_balancer.ingress.v[i].ip, &want) && want >= first && want <= last && is_free(s, all, n, want))
			ip = want;
	for (uint64_t i = first; i <= last && !ip; i++)
		if (is_free(s, all, n, (uint32_t)i))
			ip = (uint32_t)i;
	if (!ip)
		return error_new("all %u addresses of the pool are taken", last - first + 1);
	struct in_addr in = {.s_addr = htonl(ip)};
	struct core_v1_load_balancer_ingress *out = arena_push(a, &status->ingress);

	out->ip = arena_str(a, str_from(inet_ntop(AF_INET, &in, text, sizeof text)));
	out->ip_mode = arena_new(a, struct str);
	*out->ip_mode = STR("VIP");
	return NULL;
}

static struct error *delete(const struct core_v1_service *s)
{
	return NULL; /* the address is free again with the Service's status */
}

const struct cloud_provider cloud_local = {
	.name = "local", .option = option, .instance_exists = instance_exists, .instance_shutdown = instance_shutdown,
	.instance = instance, .ensure_load_balancer = ensure, .delete_load_balancer = delete,
};
