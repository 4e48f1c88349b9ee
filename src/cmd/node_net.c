#include "cmd/node_net.h"

#include <errno.h>
#include <net/if.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/io.h"

#define BRIDGE "skiff-nodes"

static const char *netns_name(const struct cluster *c, int i)
{
	return arena_printf(c->a, "skiff-node-%d", i + 1).p;
}

const char *node_netns_path(const struct cluster *c, int i)
{
	return arena_printf(c->a, "/run/netns/%s", netns_name(c, i)).p;
}

/* iproute2 is setup-time only (a few calls a node), so the program serves better than netlink code of our own. */
static struct error *ip(const char *const *args)
{
	const char *argv[24] = {"ip"};

	for (size_t i = 0; args[i] && i < 22; i++)
		argv[i + 1] = args[i];
	return proc_run(argv, STR_NULL, NULL, NULL, NULL);
}
#define IP(...) ip((const char *const[]){__VA_ARGS__, NULL})

/* Asked of the kernel and not of /sys, which may show another network namespace's links. */
static bool link_exists(const char *name)
{
	return if_nametoindex(name) != 0;
}

static const char *veth_name(struct cluster *c, int i)
{
	return arena_printf(c->a, "skiffn%d", i + 1).p;
}

static struct error *node_up(struct cluster *c, int i)
{
	const char *ns = netns_name(c, i), *veth = veth_name(c, i);
	const char *addr = arena_printf(c->a, "%s/24", cluster_node_ip(c, i)).p;

	if (access(node_netns_path(c, i), F_OK) == 0)
		return NULL;
	TRY(IP("netns", "add", ns));
	TRY(IP("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", ns));
	TRY(IP("link", "set", veth, "master", BRIDGE, "up"));
	/* With bridge-nf-call-iptables a NodePort's DNAT back to the node it came from is bridged: out of the port it came in by. */
	TRY(IP("link", "set", veth, "type", "bridge_slave", "hairpin", "on"));
	TRY(IP("-n", ns, "link", "set", "lo", "up"));
	TRY(IP("-n", ns, "addr", "add", addr, "dev", "eth0"));
	TRY(IP("-n", ns, "link", "set", "eth0", "up"));
	TRY(IP("-n", ns, "route", "add", "default", "via", c->node_ip));
	return IP("netns", "exec", ns, "sysctl", "-qw", "net.ipv4.ip_forward=1");
}

struct error *node_net_up(struct cluster *c)
{
	if (c->nodes < 2)
		return NULL;
	if (!link_exists(BRIDGE)) {
		TRY(IP("link", "add", BRIDGE, "type", "bridge"));
		TRY(IP("addr", "add", arena_printf(c->a, "%s/24", c->node_ip).p, "dev", BRIDGE));
		TRY(IP("link", "set", BRIDGE, "up"));
	}
	for (int i = 1; i < c->nodes; i++)
		TRY(error_wrap(node_up(c, i), "network of node %s", cluster_node_name(c, i)));
	return NULL;
}

static void keep_first(struct error **first, struct error *e)
{
	if (!*first)
		*first = e;
	else
		error_free(e);
}

struct error *node_net_down(struct cluster *c)
{
	struct error *first = NULL;

	if (c->server) /* what is there is another cluster's */
		return NULL;
	for (int i = 1; i < SKIFF_NODES_MAX; i++) {
		const char *veth = veth_name(c, i);

		/* The kernel takes away the links of a namespace some time after it; this one shall be gone now. */
		if (link_exists(veth))
			keep_first(&first, IP("link", "del", veth));
		if (access(node_netns_path(c, i), F_OK) == 0)
			keep_first(&first, IP("netns", "del", netns_name(c, i)));
	}
	if (link_exists(BRIDGE))
		keep_first(&first, IP("link", "del", BRIDGE));
	return first;
}
