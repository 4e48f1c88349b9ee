#include "proxy/conntrack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"

struct tuple {
	uint32_t src, dst;
	uint16_t sport, dport;
	uint8_t proto;
};

struct clean {
	const struct map *udp;
	struct tuple *stale;
	size_t n, cap;
};

static int keep_attr(const struct nlattr *attr, void *data)
{
	const struct nlattr **tb = data;

	if (mnl_attr_get_type(attr) < 16)
		tb[mnl_attr_get_type(attr)] = attr;
	return MNL_CB_OK;
}

static bool parse_tuple(const struct nlattr *nest, struct tuple *t)
{
	const struct nlattr *tb[16] = {0}, *ip[16] = {0}, *proto[16] = {0};

	mnl_attr_parse_nested(nest, keep_attr, tb);
	if (!tb[CTA_TUPLE_IP] || !tb[CTA_TUPLE_PROTO])
		return false;
	mnl_attr_parse_nested(tb[CTA_TUPLE_IP], keep_attr, ip);
	mnl_attr_parse_nested(tb[CTA_TUPLE_PROTO], keep_attr, proto);
	if (!ip[CTA_IP_V4_SRC] || !ip[CTA_IP_V4_DST] || !proto[CTA_PROTO_NUM] || !proto[CTA_PROTO_SRC_PORT] || !proto[CTA_PROTO_DST_PORT])
		return false;
	*t = (struct tuple){mnl_attr_get_u32(ip[CTA_IP_V4_SRC]), mnl_attr_get_u32(ip[CTA_IP_V4_DST]),
			    mnl_attr_get_u16(proto[CTA_PROTO_SRC_PORT]), mnl_attr_get_u16(proto[CTA_PROTO_DST_PORT]),
			    mnl_attr_get_u8(proto[CTA_PROTO_NUM])};
	return true;
}

static struct str address(char *buf, size_t cap, uint32_t ip, uint16_t port)
{
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &ip, text, sizeof text);
	return str_of(buf, (size_t)snprintf(buf, cap, "%s:%u", text, ntohs(port)));
}

static int on_entry(const struct nlmsghdr *nlh, void *data)
{
	struct clean *c = data;
	const struct nlattr *tb[CTA_MAX + 1 < 16 ? 16 : CTA_MAX + 1] = {0};
	struct tuple orig, reply;
	char a[64], b[64], port[16];

	mnl_attr_parse(nlh, sizeof(struct nfgenmsg), keep_attr, tb);
	if (!tb[CTA_TUPLE_ORIG] || !tb[CTA_TUPLE_REPLY] || !parse_tuple(tb[CTA_TUPLE_ORIG], &orig) || !parse_tuple(tb[CTA_TUPLE_REPLY], &reply) ||
	    orig.proto != IPPROTO_UDP)
		return MNL_CB_OK;
	struct map *endpoints = map_get(c->udp, address(a, sizeof a, orig.dst, orig.dport));

	/* A node port is known by its port alone; then only translated entries are ours. */
	if (!endpoints && (orig.dst != reply.src || orig.dport != reply.sport))
		endpoints = map_get(c->udp, str_of(port, (size_t)snprintf(port, sizeof port, ":%u", ntohs(orig.dport))));
	if (!endpoints || map_has(endpoints, address(b, sizeof b, reply.src, reply.sport)) ||
	    c->n >= CONNTRACK_DELETE_MAX)
		return MNL_CB_OK;
	if (c->n == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 64;
		c->stale = xrealloc(c->stale, c->cap * sizeof *c->stale);
	}
	c->stale[c->n++] = orig;
	return MNL_CB_OK;
}

static struct nlmsghdr *header(char *buf, uint16_t type, uint16_t flags, uint32_t seq)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = (NFNL_SUBSYS_CTNETLINK << 8) | type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	nlh->nlmsg_seq = seq;
	struct nfgenmsg *nf = mnl_nlmsg_put_extra_header(nlh, sizeof *nf);

	nf->nfgen_family = AF_INET;
	nf->version = NFNETLINK_V0;
	nf->res_id = 0;
	return nlh;
}

static int talk(struct mnl_socket *nl, struct nlmsghdr *nlh, mnl_cb_t cb, void *data)
{
	char buf[16384];
	unsigned portid = mnl_socket_get_portid(nl);
	uint32_t seq = nlh->nlmsg_seq;

	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -1;
	for (;;) {
		ssize_t n = mnl_socket_recvfrom(nl, buf, sizeof buf);

		if (n < 0)
			return -1;
		int r = mnl_cb_run(buf, (size_t)n, seq, portid, cb, data);

		if (r <= MNL_CB_STOP)
			return r;
	}
}

static int delete_entry(struct mnl_socket *nl, const struct tuple *t, uint32_t seq)
{
	char buf[512];
	struct nlmsghdr *nlh = header(buf, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, seq);
	struct nlattr *tuple = mnl_attr_nest_start(nlh, CTA_TUPLE_ORIG), *part = mnl_attr_nest_start(nlh, CTA_TUPLE_IP);

	mnl_attr_put_u32(nlh, CTA_IP_V4_SRC, t->src);
	mnl_attr_put_u32(nlh, CTA_IP_V4_DST, t->dst);
	mnl_attr_nest_end(nlh, part);
	part = mnl_attr_nest_start(nlh, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(nlh, CTA_PROTO_NUM, t->proto);
	mnl_attr_put_u16(nlh, CTA_PROTO_SRC_PORT, t->sport);
	mnl_attr_put_u16(nlh, CTA_PROTO_DST_PORT, t->dport);
	mnl_attr_nest_end(nlh, part);
	mnl_attr_nest_end(nlh, tuple);
	return talk(nl, nlh, NULL, NULL);
}

struct error *conntrack_clean_udp(const struct map *udp, unsigned *deleted)
{
	struct mnl_socket *nl = mnl_socket_open(NETLINK_NETFILTER);
	struct clean c = {.udp = udp};
	char buf[512];
	uint32_t seq = (uint32_t)time(NULL); /* only has to differ from the last one of this socket */

	*deleted = 0;
	if (!nl)
		return error_sys(errno, "netlink socket for conntrack");
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    talk(nl, header(buf, IPCTNL_MSG_CT_GET, NLM_F_DUMP, seq), on_entry, &c) < 0) {
		int err = errno;

		mnl_socket_close(nl);
		free(c.stale);
		return error_sys(err, "listing conntrack entries");
	}
	struct error *e = NULL;

	for (size_t i = 0; i < c.n && !e; i++) {
		if (delete_entry(nl, &c.stale[i], ++seq) < 0 && errno != ENOENT)
			e = error_sys(errno, "deleting a conntrack entry");
		else
			(*deleted)++;
	}
	mnl_socket_close(nl);
	free(c.stale);
	return e;
}
