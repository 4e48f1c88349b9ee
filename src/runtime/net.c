/* The pod network: namespaces pinned to files, a bridge, veth pairs, addresses from the node's range. */
#include "runtime/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ADDRESSES 65536u /* leased out of one range */

/* ---- addresses ---- */

bool rt_addr_parse(struct str s, struct rt_addr *out)
{
	char z[INET6_ADDRSTRLEN];
	if (!s.n || s.n >= sizeof(z))
		return false;
	memcpy(z, s.p, s.n);
	z[s.n] = 0;
	*out = (struct rt_addr){0};
	out->family = str_index(s, ':') >= 0 ? AF_INET6 : AF_INET;
	return inet_pton(out->family, z, out->b) == 1;
}

bool rt_cidr_parse(struct str s, struct rt_cidr *out)
{
	ptrdiff_t slash = str_index(s, '/');
	int64_t bits;
	if (slash < 0 || !rt_addr_parse(str_sub(s, 0, (size_t)slash), &out->addr) ||
	    !str_to_i64(str_sub(s, (size_t)slash + 1, s.n), &bits))
		return false;
	int max = out->addr.family == AF_INET ? 32 : 128;
	if (bits < 0 || bits > max)
		return false;
	out->bits = (int)bits;
	for (int i = out->bits; i < max; i++) /* the network's own address */
		out->addr.b[i / 8] &= (uint8_t)~(0x80 >> (i % 8));
	return true;
}

const char *rt_addr_text(const struct rt_addr *a, char out[INET6_ADDRSTRLEN])
{
	if (!a->family || !inet_ntop(a->family, a->b, out, INET6_ADDRSTRLEN))
		out[0] = 0;
	return out;
}

struct rt_addr rt_cidr_nth(const struct rt_cidr *c, uint32_t n)
{
	struct rt_addr a = c->addr;
	int len = a.family == AF_INET ? 4 : 16;
	uint64_t carry = n;
	for (int i = len - 1; i >= 0 && carry; i--) {
		carry += a.b[i];
		a.b[i] = (uint8_t)carry;
		carry >>= 8;
	}
	return a;
}

static uint32_t cidr_size(const struct rt_cidr *c)
{
	int host = (c->addr.family == AF_INET ? 32 : 128) - c->bits;
	return host >= 16 ? MAX_ADDRESSES : 1u << host;
}

/* ---- rtnetlink ---- */

struct nl {
	struct mnl_socket *s;
	uint32_t seq;
	char buf[8192];
};

static struct error *nl_open(struct nl *n)
{
	n->seq = 1;
	n->s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!n->s)
		return error_sys(errno, "open a netlink socket");
	if (mnl_socket_bind(n->s, 0, MNL_SOCKET_AUTOPID) < 0) {
		struct error *e = error_sys(errno, "bind a netlink socket");
		mnl_socket_close(n->s);
		n->s = NULL;
		return e;
	}
	return NULL;
}

static void nl_close(struct nl *n)
{
	if (n->s)
		mnl_socket_close(n->s);
	n->s = NULL;
}

static struct nlmsghdr *nl_msg(struct nl *n, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(n->buf);
	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	h->nlmsg_seq = ++n->seq;
	return h;
}

/* 0 or a positive errno. */
static int nl_talk(struct nl *n, struct nlmsghdr *h)
{
	char reply[8192];
	uint32_t seq = h->nlmsg_seq;
	if (mnl_socket_sendto(n->s, h, h->nlmsg_len) < 0)
		return errno;
	ssize_t r = mnl_socket_recvfrom(n->s, reply, sizeof(reply));
	if (r < 0)
		return errno;
	return mnl_cb_run(reply, (size_t)r, seq, mnl_socket_get_portid(n->s), NULL, NULL) < 0 ? errno : 0;
}

static struct ifinfomsg *put_link(struct nlmsghdr *h, int index)
{
	struct ifinfomsg *i = mnl_nlmsg_put_extra_header(h, sizeof(*i));
	i->ifi_family = AF_UNSPEC;
	i->ifi_index = index;
	return i;
}

static int link_up(struct nl *n, int index)
{
	struct nlmsghdr *h = nl_msg(n, RTM_NEWLINK, 0);
	struct ifinfomsg *i = put_link(h, index);
	i->ifi_flags = i->ifi_change = IFF_UP;
	return nl_talk(n, h);
}

static int addr_add(struct nl *n, int index, const struct rt_addr *a, int bits)
{
	struct nlmsghdr *h = nl_msg(n, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
	struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	size_t len = a->family == AF_INET ? 4 : 16;
	m->ifa_family = (uint8_t)a->family;
	m->ifa_prefixlen = (uint8_t)bits;
	m->ifa_index = (uint32_t)index;
	m->ifa_flags = a->family == AF_INET6 ? IFA_F_NODAD : 0;
	mnl_attr_put(h, IFA_LOCAL, len, a->b);
	mnl_attr_put(h, IFA_ADDRESS, len, a->b);
	int e = nl_talk(n, h);
	return e == EEXIST ? 0 : e;
}

/* dst NULL: default; bits: of its prefix. gateway NULL: on the link. */
static int route_put(struct nl *n, int index, const struct rt_addr *dst, int bits, const struct rt_addr *gateway, uint8_t table)
{
	const struct rt_addr *any = dst ? dst : gateway;
	size_t len = any->family == AF_INET ? 4 : 16;
	struct nlmsghdr *h = nl_msg(n, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->rtm_family = (uint8_t)any->family;
	m->rtm_dst_len = dst ? (uint8_t)bits : 0;
	m->rtm_table = table;
	m->rtm_protocol = RTPROT_STATIC;
	m->rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	m->rtm_type = RTN_UNICAST;
	if (dst)
		mnl_attr_put(h, RTA_DST, len, dst->b);
	if (gateway)
		mnl_attr_put(h, RTA_GATEWAY, len, gateway->b);
	mnl_attr_put_u32(h, RTA_OIF, (uint32_t)index);
	return nl_talk(n, h);
}

/* dst, if any, is one host. */
static int route_add(struct nl *n, int index, const struct rt_addr *dst, const struct rt_addr *gateway)
{
	return route_put(n, index, dst, dst && dst->family == AF_INET ? 32 : 128, gateway, RT_TABLE_MAIN);
}

/* A locally administered address made of an IP address, so that it stays the same. */
static void mac_of(const struct rt_addr *a, uint8_t mac[6])
{
	const uint8_t *last = a->family == AF_INET ? a->b : a->b + 12;
	mac[0] = 0x0a;
	mac[1] = 0x58;
	memcpy(mac + 2, last, 4);
}

static int bridge_add(struct nl *n, const char *name, const uint8_t mac[6])
{
	struct nlmsghdr *h = nl_msg(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
	put_link(h, 0);
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
	struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
	mnl_attr_put_strz(h, IFLA_INFO_KIND, "bridge");
	mnl_attr_nest_end(h, info);
	return nl_talk(n, h);
}

static int veth_add(struct nl *n, const char *name, int bridge, int netns, const uint8_t mac[6])
{
	struct nlmsghdr *h = nl_msg(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
	struct ifinfomsg *i = put_link(h, 0);
	i->ifi_flags = i->ifi_change = IFF_UP;
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	mnl_attr_put_u32(h, IFLA_MASTER, (uint32_t)bridge);
	struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
	mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
	struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	struct nlattr *peer = mnl_attr_nest_start(h, VETH_INFO_PEER);
	struct ifinfomsg *p = mnl_nlmsg_put_extra_header(h, sizeof(*p));
	p->ifi_family = AF_UNSPEC;
	mnl_attr_put_strz(h, IFLA_IFNAME, "eth0");
	mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
	mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)netns);
	mnl_attr_nest_end(h, peer);
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	return nl_talk(n, h);
}

/* Frames may leave by the port they came in: a pod may reach itself through a Service. */
static int bridge_port_hairpin(struct nl *n, int index)
{
	struct nlmsghdr *h = nl_msg(n, RTM_SETLINK, 0);
	put_link(h, index)->ifi_family = AF_BRIDGE;
	struct nlattr *port = mnl_attr_nest_start(h, IFLA_PROTINFO);
	mnl_attr_put_u8(h, IFLA_BRPORT_MODE, 1);
	mnl_attr_nest_end(h, port);
	return nl_talk(n, h);
}

static struct error *write_sysctl(const char *key, const char *value)
{
	static const char root[] = "/proc/sys/";
	char path[256];
	char *name = path + sizeof(root) - 1;
	size_t n = strlen(key);
	if (n + sizeof(root) > sizeof(path))
		return error_status(400, "Invalid", "invalid sysctl \"%.100s\"", key);
	memcpy(path, root, sizeof(root));
	memcpy(name, key, n + 1);
	str_sysctl_dots(name, n);
	str_sysctl_swap(name, n);
	if (strstr(name, ".."))
		return error_status(400, "Invalid", "invalid sysctl \"%.100s\"", key);
	fd_cleanup int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		return error_sys(errno, "sysctl %s=%s", key, value);
	return NULL;
}

/* ---- the bridge ---- */

struct bridge_job {
	struct rt *rt;
	struct rt_cidr cidrs[2];
	int n;
	int index;
};

/*
 * A packet to a Service needs a route before kube-proxy's rules see it, whichever that is. A machine without a default route
 * has none: theirs are in the table that is asked when all others have nothing.
 */
static int service_routes(struct rt *rt, struct nl *n, int index)
{
	int r = 0;
	for (struct str rest = str_from(rt->o.service_cidr); rest.n && !r;) {
		struct rt_cidr c;
		if (!rt_cidr_parse(str_trim(str_cut(&rest, ',')), &c))
			return EINVAL;
		struct rt_addr first = rt_cidr_nth(&c, 0);
		r = route_put(n, index, &first, c.bits, NULL, RT_TABLE_DEFAULT);
		if (first.family == AF_INET6 && r == EACCES)
			r = 0; /* no IPv6 here */
	}
	return r;
}

static struct error *bridge_make(void *arg)
{
	struct bridge_job *j = arg;
	const char *name = j->rt->o.bridge;
	struct nl n = {0};
	TRY(nl_open(&n));
	struct rt_addr gw = rt_cidr_nth(&j->cidrs[0], 1);
	uint8_t mac[6];
	mac_of(&gw, mac);
	int r = bridge_add(&n, name, mac);
	struct error *e = r && r != EEXIST ? error_sys(r, "make the bridge %s", name) : NULL;
	j->index = e ? 0 : (int)if_nametoindex(name);
	if (!e && !j->index)
		e = error_sys(errno, "find the bridge %s", name);
	if (!e && (r = link_up(&n, j->index)))
		e = error_sys(r, "set the bridge %s up", name);
	bool v6 = false;
	for (int i = 0; i < j->n && !e; i++) {
		gw = rt_cidr_nth(&j->cidrs[i], 1);
		v6 |= gw.family == AF_INET6;
		if ((r = addr_add(&n, j->index, &gw, j->cidrs[i].bits)))
			e = error_sys(r, "give the bridge %s its address", name);
	}
	if (!e && (r = service_routes(j->rt, &n, j->index)))
		log_warn("Services may be out of reach for this machine: routing %s: %s", j->rt->o.service_cidr, strerror(r));
	nl_close(&n);
	if (e)
		return e;
	char key[64];
	TRY(write_sysctl("net.ipv4.ip_forward", "1"));
	if (v6)
		TRY(write_sysctl("net.ipv6.conf.all.forwarding", "1"));
	/* Connections from 127.0.0.1 to a host port go out to the pod; all pod traffic is routed here on purpose. */
	snprintf(key, sizeof(key), "net/ipv4/conf/%s/route_localnet", name);
	TRY(write_sysctl(key, "1"));
	snprintf(key, sizeof(key), "net/ipv4/conf/%s/send_redirects", name);
	TRY(write_sysctl(key, "0"));
	struct rt_cidr was[2] = {j->rt->pod_cidrs[0], j->rt->pod_cidrs[1]};
	int n_was = j->rt->n_cidrs;
	memcpy(j->rt->pod_cidrs, j->cidrs, sizeof(j->cidrs));
	j->rt->n_cidrs = j->n;
	e = rt_nft_masquerade(j->rt);
	if (e) {
		memcpy(j->rt->pod_cidrs, was, sizeof(was));
		j->rt->n_cidrs = n_was;
	}
	return e;
}

struct error *rt_network_configure(struct rt *rt, struct str cidrs)
{
	struct bridge_job j = {.rt = rt};
	for (struct str rest = cidrs; rest.p && j.n < 2;) {
		struct str one = str_trim(str_cut(&rest, ','));
		if (!one.n)
			continue;
		if (!rt_cidr_parse(one, &j.cidrs[j.n]))
			return error_status(400, "Invalid", "pod CIDR \"%.*s\" is not valid", STR_ARG(one));
		if (cidr_size(&j.cidrs[j.n]) < 4)
			return error_status(400, "Invalid", "pod CIDR \"%.*s\" is too small", STR_ARG(one));
		j.n++;
	}
	if (!j.n)
		return error_status(400, "Invalid", "no pod CIDR given");
	if (rt->network_up && rt->n_cidrs == j.n && !memcmp(rt->pod_cidrs, j.cidrs, sizeof(j.cidrs[0]) * (size_t)j.n))
		return NULL;
	TRY(fiber_mutex_lock(&rt->network_lock));
	struct error *e = sys_offload(bridge_make, &j);
	if (!e) {
		uint32_t size = MAX_ADDRESSES;
		for (int i = 0; i < j.n; i++)
			size = cidr_size(&j.cidrs[i]) < size ? cidr_size(&j.cidrs[i]) : size;
		free(rt->ip_used);
		rt->ip_used = xcalloc(size / 8 + 1, 1);
		rt->ip_count = size;
		rt->ip_next = 2;
		rt->bridge_index = j.index;
		rt_ip_mark(rt, 0);
		rt_ip_mark(rt, 1);
		rt_ip_mark(rt, size - 1);
		for (struct rt_sandbox *s = rt->sandbox_list; s; s = s->next) {
			s->ip_index = s->rec.veth.n && s->rec.ips.n ? rt_ip_index(rt, s->rec.ips.v[0]) : 0;
			if (s->ip_index)
				rt_ip_mark(rt, s->ip_index);
		}
		rt->network_up = true;
		str_cleanup char *path = sys_path(rt->o.root, "pod-cidr");
		e = sys_write_atomic(path, cidrs, 0644, false);
		log_info("pod network: bridge %s, %.*s", rt->o.bridge, STR_ARG(cidrs));
	}
	fiber_mutex_unlock(&rt->network_lock);
	return e;
}

/* ---- leases: kept in the sandboxes' records ---- */

void rt_ip_mark(struct rt *rt, uint32_t i)
{
	if (i < rt->ip_count)
		rt->ip_used[i / 8] |= (uint8_t)(1u << (i % 8));
}

void rt_ip_free(struct rt *rt, uint32_t i)
{
	if (i >= 2 && i < rt->ip_count)
		rt->ip_used[i / 8] &= (uint8_t)~(1u << (i % 8));
}

/* In a circle, so that an address is not used again at once. */
struct error *rt_ip_take(struct rt *rt, uint32_t *out)
{
	for (uint32_t n = 0; n < rt->ip_count; n++) {
		uint32_t i = rt->ip_next++;
		if (rt->ip_next >= rt->ip_count)
			rt->ip_next = 2;
		if (!(rt->ip_used[i / 8] & (1u << (i % 8)))) {
			rt_ip_mark(rt, i);
			*out = i;
			return NULL;
		}
	}
	return error_status(429, "TooManyRequests", "no free address is left in the pod CIDR of %u addresses", rt->ip_count);
}

uint32_t rt_ip_index(struct rt *rt, struct str ip)
{
	struct rt_addr a;
	if (!rt_addr_parse(ip, &a))
		return 0;
	for (int i = 0; i < rt->n_cidrs; i++) {
		const struct rt_addr *base = &rt->pod_cidrs[i].addr;
		if (base->family != a.family)
			continue;
		int len = a.family == AF_INET ? 4 : 16;
		uint64_t diff = 0;
		for (int k = 0; k < len; k++)
			diff = (diff << 8) + (uint64_t)a.b[k] - base->b[k];
		return diff < rt->ip_count ? (uint32_t)diff : 0;
	}
	return 0;
}

/* ---- a pod's namespaces ---- */

static struct error *pin(const char *dir, const char *name)
{
	str_cleanup char *path = sys_path(dir, name);
	char ns[64];
	fd_cleanup int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_sys(errno, "create %s", path);
	snprintf(ns, sizeof(ns), "/proc/thread-self/ns/%s", name);
	if (mount(ns, path, NULL, MS_BIND, NULL) < 0)
		return error_sys(errno, "pin a namespace to %s", path);
	return NULL;
}

static struct error *configure_inside(struct rt_ns_job *j)
{
	struct nl n = {0};
	TRY(nl_open(&n));
	int r = link_up(&n, (int)if_nametoindex("lo")), eth = 0;
	struct error *e = r ? error_sys(r, "set the pod's loopback up") : NULL;
	if (!e && j->bridged) {
		/* Routes by the gateway only: packets between pods of a node pass the host, where Services are undone. */
		eth = (int)if_nametoindex("eth0");
		if (!eth)
			e = error_sys(errno, "find the pod's eth0");
		if (!e && (r = link_up(&n, eth)))
			e = error_sys(r, "set the pod's eth0 up");
		for (int i = 0; i < j->rt->n_cidrs && !e; i++) {
			const struct rt_cidr *c = &j->rt->pod_cidrs[i];
			struct rt_addr gw = rt_cidr_nth(c, 1);
			j->ips[i] = rt_cidr_nth(c, j->ip_index);
			j->n_ips = i + 1;
			if ((r = addr_add(&n, eth, &j->ips[i], c->addr.family == AF_INET ? 32 : 128)) ||
			    (r = route_add(&n, eth, &gw, NULL)) || (r = route_add(&n, eth, NULL, &gw)))
				e = error_sys(r, "set the pod's address and routes");
		}
	}
	nl_close(&n);
	if (e)
		return e;
	/* As other runtimes: low ports and ping are free inside a pod, whose root is not the node's. */
	TRY(write_sysctl("net.ipv4.ip_unprivileged_port_start", "0"));
	TRY(write_sysctl("net.ipv4.ping_group_range", "0 2147483647"));
	TRY(write_sysctl("net.ipv4.conf.all.accept_redirects", "0"));
	if (eth)
		TRY(write_sysctl("net.ipv4.conf.eth0.accept_redirects", "0"));
	return NULL;
}

static struct error *make_inside(struct rt_ns_job *j, struct nl *host)
{
	if (j->uts && sethostname(j->hostname, strlen(j->hostname)) < 0)
		return error_sys(errno, "set the pod's host name");
	if (j->net) {
		if (j->bridged) {
			fd_cleanup int ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
			if (ns < 0)
				return error_sys(errno, "open the pod's network namespace");
			uint8_t mac[6];
			struct rt_addr ip = rt_cidr_nth(&j->rt->pod_cidrs[0], j->ip_index);
			mac_of(&ip, mac);
			int r = veth_add(host, j->veth, j->rt->bridge_index, ns, mac);
			if (r)
				return error_sys(r, "connect the pod to the bridge %s", j->rt->o.bridge);
		}
		TRY(configure_inside(j));
	}
	for (uint32_t i = 0; j->sysctls && i < j->sysctls->n; i++) {
		str_cleanup char *key = str_dupz(j->sysctls->v[i].key);
		str_cleanup char *value = str_dupz(j->sysctls->v[i].value);
		bool net = !strncmp(key, "net.", 4) || !strncmp(key, "net/", 4);
		if (net ? !j->net : !j->ipc)
			return error_status(400, "Invalid", "sysctl %s is not allowed: the pod uses the host's namespace", key);
		TRY(write_sysctl(key, value));
	}
	if (j->net)
		TRY(pin(j->dir, "net"));
	if (j->ipc)
		TRY(pin(j->dir, "ipc"));
	if (j->uts)
		TRY(pin(j->dir, "uts"));
	return NULL;
}

/* unshare(2) and setns(2) work on the calling thread: no process is needed to make namespaces. */
struct error *rt_ns_make(void *arg)
{
	struct rt_ns_job *j = arg;
	int flags = (j->net ? CLONE_NEWNET : 0) | (j->ipc ? CLONE_NEWIPC : 0) | (j->uts ? CLONE_NEWUTS : 0);
	struct nl host = {0};
	if (!flags)
		return NULL;
	fd_cleanup int net = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	fd_cleanup int ipc = open("/proc/thread-self/ns/ipc", O_RDONLY | O_CLOEXEC);
	fd_cleanup int uts = open("/proc/thread-self/ns/uts", O_RDONLY | O_CLOEXEC);
	if (net < 0 || ipc < 0 || uts < 0)
		return error_sys(errno, "open this thread's namespaces");
	if (j->bridged)
		TRY(nl_open(&host));
	struct error *e;
	if (unshare(flags) < 0) {
		e = error_sys(errno, "make the pod's namespaces");
	} else {
		e = make_inside(j, &host);
		/* A thread that can't come back must not serve anything else. */
		if ((j->net && setns(net, CLONE_NEWNET) < 0) || (j->ipc && setns(ipc, CLONE_NEWIPC) < 0) ||
		    (j->uts && setns(uts, CLONE_NEWUTS) < 0)) {
			log_error("a thread can't return to the host's namespaces: %s", strerror(errno));
			abort();
		}
	}
	if (!e && j->bridged) {
		int index = (int)if_nametoindex(j->veth);
		int r = index ? bridge_port_hairpin(&host, index) : errno;
		if (r)
			e = error_sys(r, "set hairpin mode of %s", j->veth);
	}
	nl_close(&host);
	return e;
}

void rt_ns_unmake(const char *dir)
{
	static const char *const names[] = {"net", "ipc", "uts", "shm"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		str_cleanup char *p = sys_path(dir, names[i]);
		while (umount2(p, MNT_DETACH) == 0)
			;
	}
	log_and_free(sys_remove_tree(dir), "remove %s", dir);
}

struct error *rt_veth_delete(struct rt *rt, const char *name)
{
	struct nl n = {0};
	TRY(nl_open(&n));
	struct nlmsghdr *h = nl_msg(&n, RTM_DELLINK, 0);
	put_link(h, 0);
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	int r = nl_talk(&n, h);
	nl_close(&n);
	return r && r != ENODEV ? error_sys(r, "remove the interface %s", name) : NULL;
}

struct error *rt_netns_socket(const char *netns, int family, int *fd)
{
	fd_cleanup int target = open(netns, O_RDONLY | O_CLOEXEC);
	fd_cleanup int back = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (target < 0 || back < 0)
		return error_sys(errno, "open %s", netns);
	if (setns(target, CLONE_NEWNET) < 0)
		return error_sys(errno, "enter %s", netns);
	*fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int sys = errno;
	if (setns(back, CLONE_NEWNET) < 0) {
		log_error("a thread can't return to the host's network namespace: %s", strerror(errno));
		abort();
	}
	return *fd < 0 ? error_sys(sys, "make a socket in the pod") : NULL;
}

static int on_stats(const struct nlmsghdr *h, void *arg)
{
	struct nlattr *a;
	mnl_attr_for_each(a, h, sizeof(struct ifinfomsg)) {
		struct rtnl_link_stats64 st;
		if (mnl_attr_get_type(a) != IFLA_STATS64 || mnl_attr_get_payload_len(a) < sizeof(uint64_t) * 8)
			continue;
		memset(&st, 0, sizeof(st));
		size_t n = mnl_attr_get_payload_len(a);
		memcpy(&st, mnl_attr_get_payload(a), n < sizeof(st) ? n : sizeof(st));
		/* What the host sent, the pod received. */
		*(struct rt_netdev *)arg = (struct rt_netdev){st.tx_bytes, st.tx_errors, st.rx_bytes, st.rx_errors};
	}
	return MNL_CB_OK;
}

bool rt_veth_stats(const char *name, struct rt_netdev *out)
{
	struct nl n = {0};
	char reply[16384];
	struct error *e = *name ? nl_open(&n) : error_new("no interface");
	if (e) {
		error_free(e);
		return false;
	}
	/* Not through /sys: that shows the namespace it was mounted in. */
	struct nlmsghdr *h = nl_msg(&n, RTM_GETLINK, 0);
	h->nlmsg_flags = NLM_F_REQUEST;
	put_link(h, 0);
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	ssize_t r = mnl_socket_sendto(n.s, h, h->nlmsg_len);
	if (r >= 0)
		r = mnl_socket_recvfrom(n.s, reply, sizeof(reply));
	bool ok = r > 0 && mnl_cb_run(reply, (size_t)r, h->nlmsg_seq, mnl_socket_get_portid(n.s), on_stats, out) >= 0;
	nl_close(&n);
	return ok;
}
