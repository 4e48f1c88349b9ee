/* Masquerading and host ports, each in an nftables table of its own, so that nobody else's rules are touched. */
#include "runtime/internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <nftables/libnftables.h>
#include <pthread.h>
#include <stdlib.h>

/*
 * libnftables is opened for each use and closed again: rules change when the network is set up and with pods that have
 * host ports, and its libraries take megabytes that an idle runtime should not keep.
 */
#define NFT_FNS(X)                                                                                                                 \
	X(nft_ctx_new) X(nft_ctx_free) X(nft_run_cmd_from_buffer) X(nft_ctx_buffer_output) X(nft_ctx_buffer_error)                 \
	X(nft_ctx_get_error_buffer)
struct nft_api {
#define X(f) __typeof__(&f) f;
	NFT_FNS(X)
#undef X
};

static struct error *run_with(const struct nft_api *n, const char *commands)
{
	struct error *e = NULL;
	struct nft_ctx *ctx = n->nft_ctx_new(NFT_CTX_DEFAULT);
	if (!ctx)
		return error_new("nftables can't be used (does the kernel have nf_tables?)");
	n->nft_ctx_buffer_error(ctx);
	n->nft_ctx_buffer_output(ctx);
	if (n->nft_run_cmd_from_buffer(ctx, commands)) {
		const char *why = n->nft_ctx_get_error_buffer(ctx);
		struct str line = str_from(why && *why ? why : "unknown reason");
		line = str_cut(&line, '\n');
		e = error_new("nftables refuses: %.*s", STR_ARG(line));
	}
	n->nft_ctx_free(ctx);
	return e;
}

struct error *rt_nft_run(const char *commands)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* its parser is not made for two threads */
	struct nft_api api;
	struct error *e = NULL;
	pthread_mutex_lock(&lock);
	void *so = dlopen("libnftables.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!so)
		e = error_new("libnftables is missing (Debian: apt-get install libnftables1): %s", dlerror());
#define X(f)                                                                                                                       \
	if (!e && !(api.f = (__typeof__(api.f))dlsym(so, #f)))                                                                     \
		e = error_new("libnftables has no " #f);
	NFT_FNS(X)
#undef X
	if (!e)
		e = run_with(&api, commands);
	if (so)
		dlclose(so);
	pthread_mutex_unlock(&lock);
	return e;
}

static void cidr_text(const struct rt_cidr *c, struct buf *b)
{
	char text[INET6_ADDRSTRLEN];
	buf_printf(b, "%s/%d", rt_addr_text(&c->addr, text), c->bits);
}

struct error *rt_nft_masquerade(struct rt *rt)
{
	buf_cleanup struct buf b = {0};
	for (int i = 0; i < rt->n_cidrs; i++) {
		const struct rt_cidr *pods = &rt->pod_cidrs[i];
		bool v4 = pods->addr.family == AF_INET;
		const char *fam = v4 ? "ip" : "ip6";
		struct rt_cidr cluster = *pods;
		for (struct str rest = str_from(rt->o.cluster_cidr); rest.p;) {
			struct rt_cidr c;
			struct str one = str_trim(str_cut(&rest, ','));
			if (one.n && rt_cidr_parse(one, &c) && c.addr.family == pods->addr.family)
				cluster = c;
		}
		buf_printf(&b, "add table %s skiff-runtime\ndelete table %s skiff-runtime\ntable %s skiff-runtime {\n", fam, fam, fam);
		buf_puts(&b, " chain postrouting {\n  type nat hook postrouting priority srcnat; policy accept;\n");
		buf_printf(&b, "  %s saddr ", fam);
		cidr_text(pods, &b);
		buf_printf(&b, " %s daddr != ", fam);
		cidr_text(&cluster, &b);
		/* Multicast stays as it is; what the bridge sends back to a pod is the proxy's business. */
		buf_printf(&b, " oifname != \"%s\" %s daddr != %s masquerade\n }\n}\n", rt->o.bridge, fam,
			   v4 ? "224.0.0.0/4" : "ff00::/8");
	}
	return error_wrap(rt_nft_run(buf_z(&b)), "masquerade pod traffic");
}

/* ---- host ports ---- */

bool rt_hostports_any(const struct rt_sandbox *s)
{
	const struct cri_v1_pod_sandbox_config *c = s->rec.config;
	for (uint32_t i = 0; c && i < c->port_mappings.n; i++)
		if (c->port_mappings.v[i].host_port > 0)
			return true;
	return false;
}

static void ensure_tables(struct rt *rt, struct buf *b)
{
	for (int v6 = 0; v6 < 2; v6++) {
		const char *fam = v6 ? "ip6" : "ip", *type = v6 ? "ipv6_addr" : "ipv4_addr";
		bool used = false;
		for (int i = 0; i < rt->n_cidrs; i++)
			used |= (rt->pod_cidrs[i].addr.family == AF_INET6) == v6;
		if (!used)
			continue;
		buf_printf(b,
			   "table %s skiff-hostports {\n"
			   " map ports { type inet_proto . inet_service : %s . inet_service; }\n"
			   " map ip-ports { type %s . inet_proto . inet_service : %s . inet_service; }\n"
			   " set hairpin { type %s . %s; }\n"
			   " chain hostports { }\n"
			   " chain prerouting { type nat hook prerouting priority dstnat; policy accept; }\n"
			   " chain output { type nat hook output priority -100; policy accept; }\n"
			   " chain postrouting { type nat hook postrouting priority srcnat; policy accept; }\n"
			   "}\n"
			   "flush chain %s skiff-hostports hostports\nflush chain %s skiff-hostports prerouting\n"
			   "flush chain %s skiff-hostports output\nflush chain %s skiff-hostports postrouting\n"
			   "table %s skiff-hostports {\n"
			   " chain hostports {\n"
			   "  dnat %s to %s daddr . meta l4proto . th dport map @ip-ports\n"
			   "  dnat %s to meta l4proto . th dport map @ports\n"
			   " }\n"
			   " chain prerouting { fib daddr type local meta l4proto { tcp, udp, sctp } jump hostports\n }\n"
			   " chain output { fib daddr type local meta l4proto { tcp, udp, sctp } jump hostports\n }\n"
			   " chain postrouting {\n"
			   "  ct status dnat oifname \"%s\" %s saddr . %s daddr @hairpin masquerade\n",
			   fam, type, type, type, type, type, fam, fam, fam, fam, fam, fam, fam, fam, rt->o.bridge, fam, fam);
		if (!v6)
			buf_printf(b, "  ct status dnat oifname \"%s\" ip saddr 127.0.0.0/8 masquerade\n", rt->o.bridge);
		buf_puts(b, " }\n}\n");
	}
}

static struct error *change(struct rt *rt, struct rt_sandbox *s, bool add)
{
	static const char *const protos[] = {"tcp", "udp", "sctp"};
	buf_cleanup struct buf b = {0};
	const struct cri_v1_pod_sandbox_config *c = s->rec.config;
	ensure_tables(rt, &b);
	/*
	 * Only a pod that reaches itself through the node's port is masqueraded (and local clients at 127.0.0.1): what the proxy
	 * translates between pods of this node must keep its source.
	 */
	for (uint32_t k = 0; k < s->rec.ips.n; k++) {
		struct rt_addr pod;
		char text[INET6_ADDRSTRLEN];
		if (!rt_addr_parse(s->rec.ips.v[k], &pod))
			continue;
		const char *fam = pod.family == AF_INET ? "ip" : "ip6";
		rt_addr_text(&pod, text);
		/* Added before it is deleted, too: pods of an older version have none, and a transaction does all or nothing. */
		for (int pass = 0; pass < (add ? 1 : 2); pass++)
			buf_printf(&b, "%s element %s skiff-hostports hairpin { %s . %s }\n", pass ? "delete" : "add",
				   fam, text, text);
	}
	for (uint32_t i = 0; i < c->port_mappings.n; i++) {
		const struct cri_v1_port_mapping *m = &c->port_mappings.v[i];
		struct rt_addr host = {0};
		if (m->host_port <= 0)
			continue;
		if (m->host_port > 65535 || m->container_port <= 0 || m->container_port > 65535 || m->protocol < 0 || m->protocol > 2)
			return error_status(400, "Invalid", "invalid port mapping %d -> %d", m->host_port, m->container_port);
		if (m->host_ip.n && !rt_addr_parse(m->host_ip, &host))
			return error_status(400, "Invalid", "invalid host IP \"%.*s\"", STR_ARG(m->host_ip));
		static const struct rt_addr any4 = {AF_INET, {0}}, any6 = {AF_INET6, {0}};
		bool any = !m->host_ip.n || !memcmp(&host, &any4, sizeof(host)) || !memcmp(&host, &any6, sizeof(host));
		for (uint32_t k = 0; k < s->rec.ips.n; k++) {
			struct rt_addr pod;
			if (!rt_addr_parse(s->rec.ips.v[k], &pod) || (!any && host.family != pod.family))
				continue;
			const char *fam = pod.family == AF_INET ? "ip" : "ip6";
			char text[INET6_ADDRSTRLEN];
			buf_printf(&b, "%s element %s skiff-hostports %s { ", add ? "add" : "delete", fam, any ? "ports" : "ip-ports");
			if (!any)
				buf_printf(&b, "%s . ", rt_addr_text(&host, text));
			buf_printf(&b, "%s . %d", protos[m->protocol], m->host_port);
			if (add)
				buf_printf(&b, " : %s . %d", rt_addr_text(&pod, text), m->container_port);
			buf_puts(&b, " }\n");
		}
	}
	return b.n ? rt_nft_run(buf_z(&b)) : NULL;
}

struct error *rt_hostports_add(struct rt *rt, struct rt_sandbox *s)
{
	return error_wrap(change(rt, s, true), "host ports");
}

struct error *rt_hostports_del(struct rt *rt, struct rt_sandbox *s)
{
	return error_wrap(change(rt, s, false), "host ports");
}
