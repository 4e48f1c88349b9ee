#include "dns/records.h"

#include <stdio.h>

enum { A = 1, NS = 2, SOA = 6, PTR = 12, TXT = 16, AAAA = 28, SRV = 33, ANY = 255 };

struct query {
	const struct dns_view *v;
	struct arena *a;
	struct str domain, name;
	uint16_t type;
	struct dns_answer *out;
};

static bool wants(const struct query *q, uint16_t type)
{
	return q->type == type || q->type == ANY;
}

static void answer(struct query *q, struct str rr)
{
	if (q->out->answers.n < DNS_ANSWERS_MAX)
		*arena_push(q->a, &q->out->answers) = rr;
}

static bool is_v6(struct str ip)
{
	return str_index(ip, ':') >= 0;
}

static struct str address_rr(struct query *q, struct str owner, struct str ip)
{
	return arena_printf(q->a, "%.*s. %d IN %s %.*s", STR_ARG(owner), DNS_TTL, is_v6(ip) ? "AAAA" : "A", STR_ARG(ip));
}

static void answer_address(struct query *q, struct str ip)
{
	if (wants(q, is_v6(ip) ? AAAA : A))
		answer(q, address_rr(q, q->name, ip));
}

/* Takes the last label off *name. */
static struct str pop(struct str *name)
{
	ptrdiff_t dot = str_rindex(*name, '.');
	struct str label = dot < 0 ? *name : str_sub(*name, (size_t)dot + 1, name->n);

	*name = dot < 0 ? STR_NULL : str_sub(*name, 0, (size_t)dot);
	return label;
}

static struct str dashed(struct arena *a, struct str ip)
{
	char *p = arena_strz(a, ip);

	for (size_t i = 0; i < ip.n; i++)
		if (p[i] == '.' || p[i] == ':')
			p[i] = '-';
	return str_of(p, ip.n);
}

/* An endpoint's label: its hostname, else its address with dashes. */
static struct str endpoint_label(struct query *q, const struct discovery_v1_endpoint *e)
{
	return e->hostname && e->hostname->n ? *e->hostname : dashed(q->a, e->addresses.v[0]);
}

static bool published(const struct core_v1_service *s, const struct discovery_v1_endpoint *e)
{
	return e->addresses.n && (s->spec.publish_not_ready_addresses || !e->conditions.ready || *e->conditions.ready);
}

static struct str protocol(struct str label)
{
	return str_eq_nocase(label, STR("_tcp")) ? STR("TCP") : str_eq_nocase(label, STR("_udp")) ? STR("UDP")
		: str_eq_nocase(label, STR("_sctp")) ? STR("SCTP") : STR_NULL;
}

static void srv(struct query *q, int32_t port, unsigned weight, struct str target, struct str ip)
{
	answer(q, arena_printf(q->a, "%.*s. %d IN SRV 0 %u %d %.*s.", STR_ARG(q->name), DNS_TTL, weight, port, STR_ARG(target)));
	if (q->out->additional.n < DNS_ANSWERS_MAX)
		*arena_push(q->a, &q->out->additional) = address_rr(q, target, ip);
}

struct service_query {
	struct query *q;
	const struct core_v1_service *s;
	struct str base;                /* "svc.ns.svc.cluster.local" */
	struct str endpoint;            /* label before it, may be empty */
	struct str port, proto;         /* of SRV questions; port empty: not asked */
	bool exists;
};

static unsigned weight_of(size_t n)
{
	return n ? (unsigned)(100 / n ? 100 / n : 1) : 100;
}

static bool port_asked(const struct service_query *sq, struct str name, struct str proto)
{
	return !sq->port.n || (str_eq_nocase(name, sq->port) && str_eq(proto, sq->proto));
}

static void cluster_ip(struct service_query *sq)
{
	struct query *q = sq->q;
	const struct core_v1_service_spec *s = &sq->s->spec;

	if (sq->endpoint.n)
		return;
	if (sq->port.n || q->type == SRV) {
		for (uint32_t i = 0; i < s->ports.n; i++) {
			const struct core_v1_service_port *p = &s->ports.v[i];

			if (!port_asked(sq, p->name, p->protocol.n ? p->protocol : STR("TCP")))
				continue;
			sq->exists = true;
			if (wants(q, SRV))
				srv(q, p->port, weight_of(1), sq->base, s->cluster_ip);
		}
		return;
	}
	sq->exists = true;
	for (uint32_t i = 0; i < s->cluster_ips.n; i++)
		answer_address(q, s->cluster_ips.v[i]);
	if (!s->cluster_ips.n)
		answer_address(q, s->cluster_ip);
}

static void headless_port(struct service_query *sq, const struct discovery_v1_endpoint_slice *es, size_t n_endpoints)
{
	struct query *q = sq->q;

	for (uint32_t i = 0; i < es->ports.n; i++) {
		const struct discovery_v1_endpoint_port *p = &es->ports.v[i];

		if (!p->port || !port_asked(sq, p->name ? *p->name : STR(""), p->protocol ? *p->protocol : STR("TCP")))
			continue;
		for (uint32_t k = 0; k < es->endpoints.n; k++) {
			const struct discovery_v1_endpoint *e = &es->endpoints.v[k];

			if (!published(sq->s, e))
				continue;
			sq->exists = true;
			if (wants(q, SRV))
				srv(q, *p->port, weight_of(n_endpoints),
				    arena_printf(q->a, "%.*s.%.*s", STR_ARG(endpoint_label(q, e)), STR_ARG(sq->base)), e->addresses.v[0]);
		}
	}
}

static void headless(struct service_query *sq)
{
	struct query *q = sq->q;
	struct discovery_v1_endpoint_slice **list = NULL;
	size_t n = q->v->slices(q->v->ctx, q->a, sq->s->metadata.namespace, sq->s->metadata.name, &list), total = 0;

	for (size_t i = 0; i < n; i++)
		total += list[i]->endpoints.n;
	if (!sq->endpoint.n && !sq->port.n)
		sq->exists = true;
	for (size_t i = 0; i < n; i++) {
		if ((sq->port.n || q->type == SRV) && !sq->endpoint.n) {
			headless_port(sq, list[i], total);
			continue;
		}
		for (uint32_t k = 0; k < list[i]->endpoints.n; k++) {
			const struct discovery_v1_endpoint *e = &list[i]->endpoints.v[k];

			if (!published(sq->s, e) || (sq->endpoint.n && !str_eq_nocase(endpoint_label(q, e), sq->endpoint)))
				continue;
			sq->exists = true;
			for (uint32_t m = 0; m < e->addresses.n; m++)
				answer_address(q, e->addresses.v[m]);
		}
	}
}

/* "[endpoint.|_port._proto.]service.namespace" + ".svc.<domain>", of which `rest` is the front. */
static void resolve_service(struct query *q, struct str rest)
{
	struct str ns = pop(&rest), name = pop(&rest);
	struct service_query sq = {.q = q};

	if (!ns.n || !q->v->has_namespace(q->v->ctx, ns)) {
		q->out->rcode = DNS_NXDOMAIN;
		return;
	}
	if (!name.n)
		return; /* the namespace itself: exists, has no records */
	struct core_v1_service *s = q->v->service(q->v->ctx, q->a, ns, name);

	q->out->rcode = DNS_NXDOMAIN;
	if (!s)
		return;
	sq.s = s;
	sq.base = arena_printf(q->a, "%.*s.%.*s.svc.%.*s", STR_ARG(name), STR_ARG(ns), STR_ARG(q->domain));
	if (rest.n) {
		struct str last = pop(&rest);

		if (rest.n) {
			sq.proto = protocol(last);
			sq.port = pop(&rest);
			if (rest.n || !sq.proto.n || sq.port.p[0] != '_')
				return;
			sq.port = str_sub(sq.port, 1, sq.port.n);
		} else {
			sq.endpoint = last;
		}
	}
	if (str_eq(s->spec.type, STR("ExternalName"))) {
		if (sq.endpoint.n || sq.port.n)
			return;
		q->out->rcode = DNS_NOERROR;
		q->out->cname = s->spec.external_name;
		answer(q, arena_printf(q->a, "%.*s. %d IN CNAME %.*s.", STR_ARG(q->name), DNS_TTL, STR_ARG(s->spec.external_name)));
		return;
	}
	if (str_eq(s->spec.cluster_ip, STR("None")))
		headless(&sq);
	else
		cluster_ip(&sq);
	if (sq.exists)
		q->out->rcode = DNS_NOERROR;
}

/* "a-b-c-d.namespace" + ".pod.<domain>": the address is in the name (CoreDNS' pods insecure). */
static void resolve_pod(struct query *q, struct str rest)
{
	struct str ns = pop(&rest), label = pop(&rest);

	if (!ns.n || !q->v->has_namespace(q->v->ctx, ns) || rest.n) {
		q->out->rcode = DNS_NXDOMAIN;
		return;
	}
	if (!label.n)
		return;
	char *ip = arena_strz(q->a, label);
	unsigned parts[4], n = 0;
	char end;

	if (sscanf(ip, "%3u-%3u-%3u-%3u%c", &parts[0], &parts[1], &parts[2], &parts[3], &end) == 4) {
		for (n = 0; n < 4 && parts[n] < 256; n++)
			;
	}
	if (n == 4)
		answer_address(q, arena_printf(q->a, "%u.%u.%u.%u", parts[0], parts[1], parts[2], parts[3]));
	else
		q->out->rcode = DNS_NXDOMAIN;
}

static bool reverse_ip(struct arena *a, struct str name, struct str *ip)
{
	unsigned b[4];
	char end;

	if (!str_has_suffix(name, STR(".in-addr.arpa")))
		return false;
	if (sscanf(arena_strz(a, str_sub(name, 0, name.n - 13)), "%3u.%3u.%3u.%3u%c", &b[0], &b[1], &b[2], &b[3], &end) != 4 ||
	    b[0] > 255 || b[1] > 255 || b[2] > 255 || b[3] > 255)
		return false;
	*ip = arena_printf(a, "%u.%u.%u.%u", b[3], b[2], b[1], b[0]);
	return true;
}

static bool in_zone(struct str domain, struct str name)
{
	return str_eq(name, domain) ||
	       (str_has_suffix(name, domain) && name.n > domain.n && name.p[name.n - domain.n - 1] == '.');
}

bool dns_ours(const struct dns_view *v, struct arena *a, struct str domain, struct str name)
{
	struct str ip, ns, service, endpoint;

	if (in_zone(domain, name))
		return true;
	return reverse_ip(a, name, &ip) && v->by_ip(v->ctx, a, ip, &ns, &service, &endpoint);
}

static void resolve_reverse(struct query *q)
{
	struct str ip, ns, service, endpoint;

	if (!reverse_ip(q->a, q->name, &ip) || !q->v->by_ip(q->v->ctx, q->a, ip, &ns, &service, &endpoint)) {
		q->out->rcode = DNS_NXDOMAIN;
		return;
	}
	if (wants(q, PTR))
		answer(q, arena_printf(q->a, "%.*s. %d IN PTR %.*s%s%.*s.%.*s.svc.%.*s.", STR_ARG(q->name), DNS_TTL, STR_ARG(endpoint),
				       endpoint.n ? "." : "", STR_ARG(service), STR_ARG(ns), STR_ARG(q->domain)));
}

void dns_resolve(const struct dns_view *v, struct arena *a, struct str domain, struct str name, uint16_t type, struct dns_answer *out)
{
	struct query q = {v, a, domain, name, type, out};

	*out = (struct dns_answer){0};
	if (!in_zone(domain, name)) {
		resolve_reverse(&q);
		return;
	}
	if (name.n == domain.n) {
		if (wants(&q, SOA))
			answer(&q, arena_printf(a, "%.*s. %d IN SOA ns.dns.%.*s. hostmaster.%.*s. 1 7200 1800 86400 %d", STR_ARG(domain), DNS_TTL,
						STR_ARG(domain), STR_ARG(domain), DNS_TTL));
		if (wants(&q, NS))
			answer(&q, arena_printf(a, "%.*s. %d IN NS kube-dns.kube-system.svc.%.*s.", STR_ARG(domain), DNS_TTL, STR_ARG(domain)));
		return;
	}
	struct str rest = str_sub(name, 0, name.n - domain.n - 1), kind = pop(&rest);

	if (str_eq(kind, STR("svc"))) {
		if (rest.n)
			resolve_service(&q, rest);
	} else if (str_eq(kind, STR("pod"))) {
		if (rest.n)
			resolve_pod(&q, rest);
	} else if (str_eq(kind, STR("dns-version")) && !rest.n) {
		if (wants(&q, TXT))
			answer(&q, arena_printf(a, "%.*s. %d IN TXT \"1.1.0\"", STR_ARG(name), DNS_TTL));
	} else {
		out->rcode = DNS_NXDOMAIN;
	}
}
