#include "proxy/model.h"

#include "base/log.h"

#define ENDPOINTS_MAX 2000 /* of one port; nft handles more, a rule line need not */

struct endpoint {
	struct str ip;
	int32_t port;
	bool ready, serving, local, terminating;
	bool zone_hint, in_zone;
};
typedef LIST(struct endpoint) endpoints;

bool model_serves(const struct core_v1_service *s)
{
	if (str_eq(s->spec.type, STR("ExternalName")) || !s->spec.cluster_ip.n || str_eq(s->spec.cluster_ip, STR("None")))
		return false;
	return !str_map_has(API_MAP(&s->metadata.labels), STR("service.kubernetes.io/service-proxy-name"));
}

static bool is_ipv4(struct str ip)
{
	return ip.n && str_index(ip, ':') < 0;
}

static struct str lower(struct arena *a, struct str s)
{
	char *p = arena_strz(a, s);

	for (size_t i = 0; i < s.n; i++)
		if (p[i] >= 'A' && p[i] <= 'Z')
			p[i] |= 0x20;
	return str_of(p, s.n);
}

static bool flag(const bool *p, bool otherwise)
{
	return p ? *p : otherwise;
}

static void add_endpoint(struct model *m, endpoints *out, const struct discovery_v1_endpoint *e, int32_t port)
{
	for (uint32_t i = 0; i < out->n; i++)
		if (str_eq(out->v[i].ip, e->addresses.v[0]) && out->v[i].port == port)
			return; /* slices may overlap while they are rewritten */
	if (out->n == ENDPOINTS_MAX)
		return;
	struct endpoint *p = arena_push(m->a, out);

	*p = (struct endpoint){.ip = e->addresses.v[0], .port = port, .ready = flag(e->conditions.ready, true)};
	p->serving = flag(e->conditions.serving, p->ready);
	p->terminating = flag(e->conditions.terminating, false);
	p->local = e->node_name && str_eq(*e->node_name, m->node);
	if (e->hints && e->hints->for_zones.n) {
		p->zone_hint = true;
		for (uint32_t i = 0; i < e->hints->for_zones.n; i++)
			p->in_zone |= m->zone.n && str_eq(e->hints->for_zones.v[i].name, m->zone);
	}
}

static endpoints port_endpoints(struct model *m, const struct core_v1_service_port *sp, struct discovery_v1_endpoint_slice *const *slices,
				size_t n)
{
	endpoints out = {0};
	struct str proto = sp->protocol.n ? sp->protocol : STR("TCP");

	for (size_t i = 0; i < n; i++) {
		const struct discovery_v1_endpoint_slice *s = slices[i];

		if (!str_eq(s->address_type, STR("IPv4")))
			continue;
		for (uint32_t k = 0; k < s->ports.n; k++) {
			const struct discovery_v1_endpoint_port *p = &s->ports.v[k];

			if (!p->port || !str_eq(p->name ? *p->name : STR(""), sp->name) ||
			    !str_eq(p->protocol ? *p->protocol : STR("TCP"), proto))
				continue;
			for (uint32_t j = 0; j < s->endpoints.n; j++)
				if (s->endpoints.v[j].addresses.n)
					add_endpoint(m, &out, &s->endpoints.v[j], *p->port);
		}
	}
	return out;
}

/* Ready ones; where there are none, those that terminate but still serve (KEP-1669). Zone hints count when all have one (KEP-2433). */
static endpoints usable(struct model *m, const endpoints *all, bool local_only)
{
	endpoints ready = {0}, last = {0}, zone = {0};
	bool hints = m->zone.n > 0;

	for (uint32_t i = 0; i < all->n; i++) {
		const struct endpoint *e = &all->v[i];

		if (local_only && !e->local)
			continue;
		if (e->ready) {
			*arena_push(m->a, &ready) = *e;
			hints &= e->zone_hint;
			if (e->in_zone)
				*arena_push(m->a, &zone) = *e;
		} else if (e->serving && e->terminating) {
			*arena_push(m->a, &last) = *e;
		}
	}
	if (!ready.n)
		return last;
	return hints && zone.n && !local_only ? zone : ready;
}

size_t model_local_endpoints(const struct model *m, struct discovery_v1_endpoint_slice *const *slices, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < slices[i]->endpoints.n; j++) {
			const struct discovery_v1_endpoint *e = &slices[i]->endpoints.v[j];

			k += flag(e->conditions.ready, true) && e->node_name && str_eq(*e->node_name, m->node);
		}
	return k;
}

struct port { /* one port of one Service on its way into rules */
	struct model *m;
	const struct core_v1_service *s;
	const struct core_v1_service_port *sp;
	struct str proto;            /* "tcp" */
	struct str id;               /* "ab12cd34-ns/name/tcp/port", unique and valid in a chain's name */
	endpoints all;
};

static struct str port_id(struct arena *a, const struct core_v1_service *s, const struct core_v1_service_port *sp, struct str proto)
{
	struct str full = arena_printf(a, "%.*s/%.*s/%.*s/%.*s", STR_ARG(s->metadata.namespace), STR_ARG(s->metadata.name),
				       STR_ARG(proto), STR_ARG(sp->name));

	/* nft names end at 128 bytes; the hash keeps cut ones apart. */
	return arena_printf(a, "%08x-%.*s", (unsigned)str_hash(full), (int)(full.n > 90 ? 90 : full.n), full.p);
}

/* ClientIP affinity: an endpoint chain remembers who came, the choosing chain asks those memories first. */
static struct str affinity_rules(struct port *p, const endpoints *list)
{
	struct arena *a = p->m->a;
	struct buf b = {0}, vmap = {0};
	int32_t timeout = 10800;

	if (p->s->spec.session_affinity_config && p->s->spec.session_affinity_config->client_ip &&
	    p->s->spec.session_affinity_config->client_ip->timeout_seconds)
		timeout = *p->s->spec.session_affinity_config->client_ip->timeout_seconds;
	for (uint32_t i = 0; i < list->n; i++) {
		const struct endpoint *e = &list->v[i];
		struct str tail = arena_printf(a, "%.*s/%.*s/%d", STR_ARG(p->id), STR_ARG(e->ip), e->port);
		struct str chain = arena_printf(a, "endpoint-%.*s", STR_ARG(tail));
		struct str set = arena_printf(a, "affinity-%d-%.*s", timeout, STR_ARG(tail));

		ruleset_set(p->m->rules, set, arena_printf(a, "type ipv4_addr; flags dynamic,timeout; timeout %ds;", timeout));
		ruleset_chain(p->m->rules, chain, arena_printf(a, "update @%.*s { ip saddr }\nmeta l4proto %.*s dnat to %.*s:%d", STR_ARG(set),
							       STR_ARG(p->proto), STR_ARG(e->ip), e->port));
		buf_printf(&b, "ip saddr @%.*s goto %.*s\n", STR_ARG(set), STR_ARG(chain));
		buf_printf(&vmap, "%s%u : goto %.*s", i ? ", " : "", i, STR_ARG(chain));
	}
	buf_printf(&b, "numgen random mod %u vmap { %.*s }", list->n, STR_ARG(buf_view(&vmap)));
	struct str out = arena_str(a, buf_view(&b));

	buf_free(&b);
	buf_free(&vmap);
	return out;
}

static struct str choose_rules(struct port *p, const endpoints *list)
{
	struct arena *a = p->m->a;
	struct buf b = {0};

	if (str_eq(p->s->spec.session_affinity, STR("ClientIP")))
		return affinity_rules(p, list);
	if (list->n == 1)
		return arena_printf(a, "meta l4proto %.*s dnat to %.*s:%d", STR_ARG(p->proto), STR_ARG(list->v[0].ip), list->v[0].port);
	buf_printf(&b, "meta l4proto %.*s dnat ip to numgen random mod %u map { ", STR_ARG(p->proto), list->n);
	for (uint32_t i = 0; i < list->n; i++)
		buf_printf(&b, "%s%u : %.*s . %d", i ? ", " : "", i, STR_ARG(list->v[i].ip), list->v[i].port);
	buf_puts(&b, " }");
	struct str out = arena_str(a, buf_view(&b));

	buf_free(&b);
	return out;
}

static void hairpins(struct port *p, const endpoints *list)
{
	for (uint32_t i = 0; i < list->n; i++)
		ruleset_element(p->m->rules, "hairpin", arena_printf(p->m->a, "%.*s . %.*s", STR_ARG(list->v[i].ip), STR_ARG(list->v[i].ip)),
				STR_NULL);
}

/* A chain that picks one of `list`; its name, or what to do when the list is empty (no name then). */
static struct str choosing_chain(struct port *p, const char *prefix, const endpoints *list)
{
	if (!list->n)
		return STR_NULL;
	struct str name = arena_printf(p->m->a, "%s-%.*s", prefix, STR_ARG(p->id));

	ruleset_chain(p->m->rules, name, choose_rules(p, list));
	hairpins(p, list);
	return name;
}

static void destination(struct port *p, struct str ip, struct str chain, bool drop)
{
	struct arena *a = p->m->a;
	struct str key = arena_printf(a, "%.*s . %.*s . %d", STR_ARG(ip), STR_ARG(p->proto), p->sp->port);

	if (chain.n)
		ruleset_element(p->m->rules, "service-ips", key, arena_printf(a, "goto %.*s", STR_ARG(chain)));
	else
		ruleset_element(p->m->rules, "no-endpoint-services", key, drop ? STR("drop") : STR("goto reject-chain"));
}

/* Where LoadBalancer, external and node-port traffic goes: source ranges, then masquerade or local only. */
static struct str external_chain(struct port *p, struct str cluster_chain, bool *drop)
{
	struct arena *a = p->m->a;
	bool local = str_eq(p->s->spec.external_traffic_policy, STR("Local"));
	struct buf b = {0};

	*drop = local && p->all.n > 0; /* others have endpoints: their clients are not told "refused" here */
	if (local) {
		endpoints mine = usable(p->m, &p->all, true);
		struct str chain = choosing_chain(p, "local", &mine);

		if (!chain.n && !cluster_chain.n)
			return STR_NULL;
		/* Pods and this node reach all endpoints: for them it is a short cut to the Service. */
		if (cluster_chain.n) {
			if (p->m->cluster_cidr)
				buf_printf(&b, "ip saddr @pod-cidr goto %.*s\n", STR_ARG(cluster_chain));
			buf_printf(&b, "fib saddr type local jump mark-for-masquerade\nfib saddr type local goto %.*s\n", STR_ARG(cluster_chain));
		}
		if (chain.n)
			buf_printf(&b, "goto %.*s", STR_ARG(chain));
		else
			buf_puts(&b, "drop");
	} else {
		if (!cluster_chain.n)
			return STR_NULL;
		buf_printf(&b, "jump mark-for-masquerade\ngoto %.*s", STR_ARG(cluster_chain));
	}
	struct str name = arena_printf(a, "external-%.*s", STR_ARG(p->id));

	ruleset_chain(p->m->rules, name, buf_view(&b));
	buf_free(&b);
	return name;
}

static struct str firewall_chain(struct port *p, struct str external)
{
	struct arena *a = p->m->a;
	struct buf b = {0};
	const struct core_v1_service_spec *s = &p->s->spec;

	if (!external.n || !s->load_balancer_source_ranges.n)
		return external;
	buf_puts(&b, "ip saddr { ");
	for (uint32_t i = 0; i < s->load_balancer_source_ranges.n; i++)
		if (is_ipv4(s->load_balancer_source_ranges.v[i]))
			buf_printf(&b, "%s%.*s", b.n > 11 ? ", " : "", STR_ARG(str_trim(s->load_balancer_source_ranges.v[i])));
	buf_printf(&b, " } goto %.*s\ndrop", STR_ARG(external));
	struct str name = arena_printf(a, "firewall-%.*s", STR_ARG(p->id));

	ruleset_chain(p->m->rules, name, buf_view(&b));
	buf_free(&b);
	return name;
}

static void add_port(struct port *p)
{
	struct model *m = p->m;
	const struct core_v1_service_spec *s = &p->s->spec;
	bool internal_local = s->internal_traffic_policy && str_eq(*s->internal_traffic_policy, STR("Local"));
	endpoints cluster = usable(m, &p->all, false), internal = internal_local ? usable(m, &p->all, true) : cluster;
	struct str cluster_chain = choosing_chain(p, "cluster", &cluster);
	struct str internal_chain = internal_local ? choosing_chain(p, "internal", &internal) : cluster_chain;
	bool drop = false;

	for (uint32_t i = 0; i < (s->cluster_ips.n ? s->cluster_ips.n : 1); i++) {
		struct str ip = s->cluster_ips.n ? s->cluster_ips.v[i] : s->cluster_ip;

		if (!is_ipv4(ip))
			continue;
		ruleset_element(m->rules, "cluster-ips", ip, STR_NULL);
		struct str chain = internal_chain;

		/* From outside the pods' range the answer must come back through this node. */
		if (chain.n && m->cluster_cidr) {
			chain = arena_printf(m->a, "clusterip-%.*s", STR_ARG(p->id));
			ruleset_chain(m->rules, chain, arena_printf(m->a, "jump from-outside\ngoto %.*s", STR_ARG(internal_chain)));
		}
		destination(p, ip, chain, internal_local && p->all.n);
	}
	bool exposed = p->sp->node_port || s->external_ips.n || p->s->status.load_balancer.ingress.n;

	if (!exposed)
		return;
	struct str external = external_chain(p, cluster_chain, &drop);

	for (uint32_t i = 0; i < s->external_ips.n; i++)
		if (is_ipv4(s->external_ips.v[i]))
			destination(p, s->external_ips.v[i], external, drop);
	struct str firewall = p->s->status.load_balancer.ingress.n ? firewall_chain(p, external) : STR_NULL;

	for (uint32_t i = 0; i < p->s->status.load_balancer.ingress.n; i++) {
		const struct core_v1_load_balancer_ingress *in = &p->s->status.load_balancer.ingress.v[i];

		if (is_ipv4(in->ip) && !(in->ip_mode && str_eq(*in->ip_mode, STR("Proxy"))))
			destination(p, in->ip, firewall, drop);
	}
	if (!p->sp->node_port)
		return;
	struct str key = arena_printf(m->a, "%.*s . %d", STR_ARG(p->proto), p->sp->node_port);

	if (external.n)
		ruleset_element(m->rules, "service-nodeports", key, arena_printf(m->a, "goto %.*s", STR_ARG(external)));
	else
		ruleset_element(m->rules, "no-endpoint-nodeports", key, drop ? STR("drop") : STR("goto reject-chain"));
}

static void note_udp_address(struct port *p, struct str address, struct map *eps)
{
	struct str ep;
	void *v;

	map_set(&p->m->udp, address, eps);
	for (size_t it = 0; map_next(eps, &it, &ep, &v);)
		p->m->udp_state += str_hash(arena_printf(p->m->a, "%.*s %.*s", STR_ARG(address), STR_ARG(ep)));
}

static void note_udp(struct port *p)
{
	struct arena *a = p->m->a;
	const struct core_v1_service_spec *s = &p->s->spec;
	struct map *eps = arena_new(a, struct map);
	struct strings ips = {0};

	for (uint32_t i = 0; i < p->all.n; i++)
		if (p->all.v[i].serving)
			map_set(eps, arena_printf(a, "%.*s:%d", STR_ARG(p->all.v[i].ip), p->all.v[i].port), p);
	if (!eps->n)
		return;
	*arena_push(a, &ips) = s->cluster_ip;
	for (uint32_t i = 0; i < s->external_ips.n; i++)
		*arena_push(a, &ips) = s->external_ips.v[i];
	for (uint32_t i = 0; i < p->s->status.load_balancer.ingress.n; i++)
		*arena_push(a, &ips) = p->s->status.load_balancer.ingress.v[i].ip;
	for (uint32_t i = 0; i < ips.n; i++)
		if (is_ipv4(ips.v[i]))
			note_udp_address(p, arena_printf(a, "%.*s:%d", STR_ARG(ips.v[i]), p->sp->port), eps);
	if (p->sp->node_port)
		note_udp_address(p, arena_printf(a, ":%d", p->sp->node_port), eps);
}

static void set_free(void *set)
{
	map_free(set);
}

void model_free_udp(struct model *m)
{
	map_free_values(&m->udp, set_free);
}

void model_add_service(struct model *m, const struct core_v1_service *s, struct discovery_v1_endpoint_slice *const *slices, size_t n)
{
	if (!model_serves(s))
		return;
	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		const struct core_v1_service_port *sp = &s->spec.ports.v[i];
		struct port p = {.m = m, .s = s, .sp = sp};

		p.proto = lower(m->a, sp->protocol.n ? sp->protocol : STR("TCP"));
		p.id = port_id(m->a, s, sp, p.proto);
		p.all = port_endpoints(m, sp, slices, n);
		add_port(&p);
		if (str_eqz(p.proto, "udp"))
			note_udp(&p);
	}
}
