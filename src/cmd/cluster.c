#include "cmd/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/buf.h"
#include "cmd/pki.h"
#include "loop/io.h"
#include "schema/jv.h"

const char *data_path(const struct cluster *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	struct str rest = arena_vprintf(c->a, fmt, ap);

	va_end(ap);
	return arena_printf(c->a, "%s/%.*s", c->data_dir, STR_ARG(rest)).p;
}

const char *run_path(const struct cluster *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	struct str rest = arena_vprintf(c->a, fmt, ap);

	va_end(ap);
	return arena_printf(c->a, "%s/%.*s", c->run_dir, STR_ARG(rest)).p;
}

/* Nodes of a multi-node cluster sit on a bridge of their own; the range is RFC 6598's end, unlikely to be in use at home or in a data centre. */
#define NODE_NET "100.127.200."

const char *cluster_node_name(const struct cluster *c, int i)
{
	return i == 0 ? c->node_name : arena_printf(c->a, "%s-%d", c->node_name, i + 1).p;
}

const char *cluster_node_ip(const struct cluster *c, int i)
{
	return i == 0 ? c->node_ip : arena_printf(c->a, NODE_NET "%d", i + 1).p;
}

/* The address that the kernel would use towards the outside (no packet is sent), else the first global one. */
static const char *find_address(struct arena *a)
{
	char text[INET_ADDRSTRLEN];
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0xc6336401)}, me = {0};
	socklen_t len = sizeof me;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
		  getsockname(fd, (struct sockaddr *)&me, &len) == 0;

	if (fd >= 0)
		close(fd);
	if (ok && inet_ntop(AF_INET, &me.sin_addr, text, sizeof text))
		return arena_strz(a, str_from(text));
	struct ifaddrs *list, *i;
	const char *found = NULL;

	if (getifaddrs(&list) < 0)
		return NULL;
	for (i = list; i && !found; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP))
			continue;
		if (inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, text, sizeof text))
			found = arena_strz(a, str_from(text));
	}
	freeifaddrs(list);
	return found;
}

/* A node's name: the host name in lower case, what is not a DNS-1123 character replaced. */
static const char *find_name(struct arena *a)
{
	struct utsname u;

	uname(&u);
	char *name = arena_strz(a, str_from(u.nodename[0] ? u.nodename : "node"));

	for (char *p = name; *p; p++) {
		if (*p >= 'A' && *p <= 'Z')
			*p |= 0x20;
		else if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '.'))
			*p = '-';
	}
	while (*name == '-' || *name == '.')
		name++;
	return *name ? name : "node";
}

static struct error *nth_address(struct arena *a, const char *cidr, uint32_t n, const char **out)
{
	char text[INET_ADDRSTRLEN];
	struct in_addr in;
	struct str rest = str_from(cidr), base = str_cut(&rest, '/');
	uint64_t bits;

	if (!rest.p || !str_to_u64(rest, &bits) || bits < 8 || bits > 28 || inet_pton(AF_INET, arena_strz(a, base), &in) != 1)
		return error_new("\"%s\" is not an IPv4 range with a prefix length from 8 to 28", cidr);
	in.s_addr = htonl((ntohl(in.s_addr) & ~0u << (32 - bits)) + n);
	*out = arena_strz(a, str_from(inet_ntop(AF_INET, &in, text, sizeof text)));
	return NULL;
}

struct error *cluster_init(struct cluster *c)
{
	if (!c->data_dir)
		c->data_dir = SKIFF_DATA_DIR;
	if (c->data_dir[0] != '/') {
		char cwd[4096];

		if (!getcwd(cwd, sizeof cwd))
			return error_sys(errno, "current directory");
		c->data_dir = arena_printf(c->a, "%s/%s", cwd, c->data_dir).p;
	}
	bool usual = strcmp(c->data_dir, SKIFF_DATA_DIR) == 0;

	c->run_dir = usual ? "/run/skiff" : data_path(c, "run");
	c->cgroup = usual ? "/skiff" : arena_printf(c->a, "/skiff-%08x", (unsigned)XXH32(c->data_dir, strlen(c->data_dir), 0)).p;
	TRY(cluster_load(c));
	if (c->nodes < 0)
		c->nodes = 0;
	if (!c->api_port)
		c->api_port = PORT_API;
	if (!c->service_cidr)
		c->service_cidr = "10.96.0.0/16";
	if (!c->pod_cidr)
		c->pod_cidr = "10.244.0.0/16";
	if (!c->cluster_domain)
		c->cluster_domain = "cluster.local";
	if (!c->lb_pool)
		c->lb_pool = "10.97.0.1-10.97.0.254";
	if (!c->node_name)
		c->node_name = find_name(c->a);
	/* Extra nodes reach the first one, and its pods, over their common bridge only. */
	if (c->nodes > 1 && c->node_ip && strcmp(c->node_ip, NODE_NET "1") != 0)
		return error_new("--node-ip=%s: with --nodes=%d the first node's address is " NODE_NET "1; leave out one of the two",
				 c->node_ip, c->nodes);
	if (!c->node_ip)
		c->node_ip = c->nodes > 1 ? NODE_NET "1" : find_address(c->a);
	if (!c->node_ip)
		return error_new("this machine has no IPv4 address but loopback; give one with --node-ip, e.g. after "
				 "'ip addr add 192.0.2.1/32 dev lo'");
	TRY(nth_address(c->a, c->service_cidr, 1, &c->api_service_ip));
	return c->dns_ip ? NULL : nth_address(c->a, c->service_cidr, 10, &c->dns_ip);
}

struct error *cluster_save(const struct cluster *c)
{
	buf_cleanup struct buf b = {0};

	buf_printf(&b, "{\"nodes\":%d,\"nodeName\":\"%s\",\"apiPort\":%d,\"serviceCIDR\":\"%s\","
		   "\"podCIDR\":\"%s\",\"clusterDomain\":\"%s\",\"loadBalancerPool\":\"%s\",\"server\":\"%s\",\"etcdServers\":\"%s\",\"dnsIP\":\"%s\"}\n",
		   c->nodes, c->node_name, c->api_port, c->service_cidr, c->pod_cidr, c->cluster_domain,
		   c->lb_pool, c->server ? c->server : "", c->etcd_servers ? c->etcd_servers : "", c->server ? c->dns_ip : "");
	return file_write_atomic(data_path(c, "cluster.json"), buf_view(&b), 0644);
}

static const char *field(struct cluster *c, const struct jv *doc, const char *name)
{
	struct str s = jv_str(jv_get(doc, str_from(name)));

	return s.n ? arena_strz(c->a, s) : NULL;
}

static int number(const struct jv *doc, const char *name)
{
	const struct jv *v = jv_get(doc, str_from(name));

	return v && v->kind == JV_INT ? (int)v->i : 0;
}

struct error *cluster_load(struct cluster *c)
{
	buf_cleanup struct buf b = {0};
	struct jv root, *doc = &root;
	struct error *e = file_read(data_path(c, "cluster.json"), &b);

	if (error_is_sys(e, ENOENT)) {
		error_free(e);
		return NULL;
	}
	if (!e)
		e = jv_parse(c->a, arena_str(c->a, buf_view(&b)), NULL, &root);
	if (e)
		return error_wrap(e, "%s", data_path(c, "cluster.json"));
	int nodes = number(doc, "nodes");

	if (c->nodes < 0)
		c->nodes = nodes;
	if (!c->node_name)
		c->node_name = field(c, doc, "nodeName");
	if (!c->api_port)
		c->api_port = number(doc, "apiPort");
	if (!c->service_cidr)
		c->service_cidr = field(c, doc, "serviceCIDR");
	if (!c->pod_cidr)
		c->pod_cidr = field(c, doc, "podCIDR");
	if (!c->cluster_domain)
		c->cluster_domain = field(c, doc, "clusterDomain");
	if (!c->lb_pool)
		c->lb_pool = field(c, doc, "loadBalancerPool");
	if (!c->server)
		c->server = field(c, doc, "server");
	if (!c->etcd_servers)
		c->etcd_servers = field(c, doc, "etcdServers");
	if (!c->dns_ip)
		c->dns_ip = field(c, doc, "dnsIP");
	return NULL;
}

int cluster_supervisor_pid(const struct cluster *c)
{
	int fd = open(run_path(c, "supervisor.pid"), O_RDWR | O_CLOEXEC);
	char text[32] = "";

	if (fd < 0)
		return 0;
	/* The supervisor holds the lock while it lives, so that a stale file means nothing. */
	bool running = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
	ssize_t n = read(fd, text, sizeof text - 1);

	close(fd);
	return running && n > 0 ? atoi(text) : 0;
}
