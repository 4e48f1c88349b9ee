/* Service addresses and node ports. */
#include <arpa/inet.h>
#include "apiserver/alloc.h"

#define PORTS_KEY "/registry/ranges/servicenodeports"
#define IP_TRIES 256

struct cidr {
	int family;               /* AF_INET, AF_INET6 */
	unsigned char base[16];
	int bits;
	uint64_t size;            /* usable host numbers: 1 .. size */
	struct str text;
};
struct alloc {
	struct cidr cidrs[2];
	size_t n;
	int port_min, port_max;
	unsigned char *ports;     /* bit i: port_min + i is taken */
	struct storage *services, *ips;
	struct resource *ip_res;
	struct fiber_mutex lock;  /* of the ports */
};

static struct error *parse_cidr(struct arena *a, struct str text, struct cidr *c)
{
	struct str rest = text, ip = str_cut(&rest, '/');
	int64_t bits;
	int width, host;

	memset(c, 0, sizeof *c);
	if (!rest.p || !str_to_i64(rest, &bits))
		return error_new("--service-cluster-ip-range: %.*s is not a CIDR", STR_ARG(text));
	if (inet_pton(AF_INET, arena_strz(a, ip), c->base) == 1)
		c->family = AF_INET;
	else if (inet_pton(AF_INET6, arena_strz(a, ip), c->base) == 1)
		c->family = AF_INET6;
	else
		return error_new("--service-cluster-ip-range: %.*s is not a CIDR", STR_ARG(text));
	width = c->family == AF_INET ? 32 : 128;
	if (bits < 0 || bits > width)
		return error_new("--service-cluster-ip-range: %.*s: bad prefix length", STR_ARG(text));
	c->bits = (int)bits;
	host = width - c->bits;
	if (host < 2)
		return error_new("--service-cluster-ip-range: %.*s holds no addresses to give", STR_ARG(text));
	/* upstream caps the dynamic range of IPv6 at 2^64 as well */
	c->size = host >= 62 ? (1ull << 62) : (1ull << host) - (c->family == AF_INET ? 2 : 1);
	for (int i = c->bits; i < width; i++)
		c->base[i / 8] &= (unsigned char)~(0x80 >> i % 8);
	c->text = text;
	return NULL;
}

static struct str nth_ip(struct arena *a, const struct cidr *c, uint64_t n)
{
	unsigned char ip[16];
	char text[INET6_ADDRSTRLEN];
	int len = c->family == AF_INET ? 4 : 16;
	unsigned carry = 0;

	memcpy(ip, c->base, sizeof ip);
	for (int i = len - 1; i >= 0; i--) {
		unsigned v = ip[i] + (unsigned)(n & 0xff) + carry;

		ip[i] = (unsigned char)v;
		carry = v >> 8;
		n >>= 8;
	}
	inet_ntop(c->family, ip, text, sizeof text);
	return arena_str(a, str_from(text));
}

static const struct cidr *cidr_of(struct apiserver *s, struct str ip)
{
	unsigned char addr[16];
	char z[64];

	if (ip.n >= sizeof z)
		return NULL;
	memcpy(z, ip.p ? ip.p : "", ip.n);
	z[ip.n] = 0;
	for (size_t i = 0; i < s->alloc->n; i++) {
		const struct cidr *c = &s->alloc->cidrs[i];
		bool in = true;

		if (inet_pton(c->family, z, addr) != 1)
			continue;
		for (int b = 0; b < c->bits; b++)
			in &= ((addr[b / 8] ^ c->base[b / 8]) & (0x80 >> b % 8)) == 0;
		if (in)
			return c;
	}
	return NULL;
}

static struct str family_name(const struct cidr *c)
{
	return c->family == AF_INET ? STR("IPv4") : STR("IPv6");
}

size_t alloc_cidrs(struct apiserver *s, struct str out[2])
{
	for (size_t i = 0; i < s->alloc->n; i++)
		out[i] = s->alloc->cidrs[i].text;
	return s->alloc->n;
}

struct str alloc_first_ip(struct apiserver *s, struct arena *a)
{
	return nth_ip(a, &s->alloc->cidrs[0], 1);
}

/* ---- node ports ---- */

static bool port_in_range(const struct alloc *al, int32_t p)
{
	return p >= al->port_min && p <= al->port_max;
}

static bool port_taken(const struct alloc *al, int32_t p)
{
	int i = p - al->port_min;

	return al->ports[i / 8] >> i % 8 & 1;
}

static void port_set(struct alloc *al, int32_t p, bool taken)
{
	int i = p - al->port_min;

	if (!port_in_range(al, p))
		return;
	if (taken)
		al->ports[i / 8] |= (unsigned char)(1 << i % 8);
	else
		al->ports[i / 8] &= (unsigned char)~(1 << i % 8);
}

/* Written as upstream's RangeAllocation: the bitmap as a big-endian number without leading zeros. */
static struct error *ports_save(struct apiserver *s, struct arena *a)
{
	struct alloc *al = s->alloc;
	size_t bytes = (size_t)(al->port_max - al->port_min) / 8 + 1, n = bytes;
	struct core_v1_range_allocation r = {.kind = STR("RangeAllocation"), .api_version = STR("v1")};
	char *data = arena_bytes(a, bytes);
	struct buf b buf_cleanup = {0};
	bool ok;
	int64_t rev;

	while (n && !al->ports[n - 1])
		n--;
	for (size_t i = 0; i < n; i++)
		data[i] = (char)al->ports[n - 1 - i];
	r.range = arena_printf(a, "%d-%d", al->port_min, al->port_max);
	r.data = str_of(data, n);
	pb_envelope_encode(&b, r.api_version, r.kind, &core_v1_range_allocation_type, &r);
	TRY(store_put(s->store, STR(PORTS_KEY), buf_view(&b), STORE_ANY, 0, 0, NULL, &ok, &rev, NULL));
	return NULL;
}

static struct error *port_allocate(struct apiserver *s, int32_t *out)
{
	struct alloc *al = s->alloc;
	int n = al->port_max - al->port_min + 1, start = (int)(random_u64() % (uint64_t)n);
	/* the lower band is left to those who choose themselves, as long as there is room above it */
	int band = n / 32 < 16 ? (n / 32 > 0 ? 16 : 0) : n / 32 > 128 ? 128 : n / 32;

	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < n; i++) {
			int32_t p = al->port_min + (start + i) % n;

			if (!pass && p < al->port_min + band)
				continue;
			if (!port_taken(al, p)) {
				port_set(al, p, true);
				*out = p;
				return NULL;
			}
		}
	return err_internal("failed to allocate a nodePort: range is full");
}

/* ---- addresses ---- */

static struct error *ip_object(struct request *rq, struct str ip, const struct core_v1_service *svc, bool *taken)
{
	struct request in;
	struct networking_v1_ip_address *o = arena_new(rq->a, struct networking_v1_ip_address);
	struct write_result r;
	const struct cidr *c = cidr_of(rq->s, ip);
	struct error *e;

	*taken = false;
	request_internal(&in, rq->s, rq->a, rq->s->alloc->ip_res, STR_NULL);
	o->kind = STR("IPAddress");
	o->api_version = STR("networking.k8s.io/v1");
	o->metadata.name = ip;
	str_map_set(rq->a, API_MAP(&o->metadata.labels), STR("ipaddress.kubernetes.io/managed-by"), STR("ipallocator.k8s.io"));
	str_map_set(rq->a, API_MAP(&o->metadata.labels), STR("ipaddress.kubernetes.io/ip-family"), c ? family_name(c) : STR("IPv4"));
	o->spec.parent_ref = arena_new(rq->a, struct networking_v1_parent_reference);
	o->spec.parent_ref->resource = STR("services");
	o->spec.parent_ref->namespace = svc->metadata.namespace;
	o->spec.parent_ref->name = svc->metadata.name;
	e = registry_create(&in, o, &r);
	if (!e) {
		cache_entry_unref(r.entry);
		return NULL;
	}
	if (error_is(e, 409, "AlreadyExists")) {
		struct networking_v1_ip_address *now = registry_peek(rq->s, rq->a, rq->s->alloc->ips, STR_NULL, ip);

		/* this Service's own, from a write that was cut short */
		*taken = !(now && now->spec.parent_ref && str_eq(now->spec.parent_ref->namespace, svc->metadata.namespace) &&
			   str_eq(now->spec.parent_ref->name, svc->metadata.name) &&
			   !cache_peek(rq->s->alloc->services->cache, svc->metadata.namespace, svc->metadata.name));
		error_free(e);
		return NULL;
	}
	return e;
}

static void ip_release(struct request *rq, struct str ip, const struct core_v1_service *svc)
{
	struct request in;
	struct meta_v1_delete_options o = {0};
	struct write_result r;
	struct networking_v1_ip_address *now = registry_peek(rq->s, rq->a, rq->s->alloc->ips, STR_NULL, ip);
	struct error *e;

	if (!now || !now->spec.parent_ref || !str_eq(now->spec.parent_ref->name, svc->metadata.name) ||
	    !str_eq(now->spec.parent_ref->namespace, svc->metadata.namespace))
		return;
	request_internal(&in, rq->s, rq->a, rq->s->alloc->ip_res, STR_NULL);
	e = registry_delete(&in, STR_NULL, ip, &o, &r);
	if (error_is(e, 404, NULL))
		error_clear(&e);
	log_and_free(e, "releasing service address %.*s", STR_ARG(ip));
}

static struct error *ip_allocate(struct request *rq, const struct cidr *c, const struct core_v1_service *svc, struct str *out)
{
	/* the lower band is left to chosen addresses: min(max(16, size/16), 256) */
	uint64_t band = c->size / 16 < 16 ? 16 : c->size / 16 > 256 ? 256 : c->size / 16;

	if (band >= c->size)
		band = 0;
	for (int i = 0; i < IP_TRIES; i++) {
		bool taken;
		struct str ip = nth_ip(rq->a, c, 1 + band + random_u64() % (c->size - band));

		if (cache_peek(rq->s->alloc->ips->cache, STR_NULL, ip))
			continue;
		TRY(ip_object(rq, ip, svc, &taken));
		if (!taken) {
			*out = ip;
			return NULL;
		}
	}
	for (uint64_t n = 1; n <= c->size && n < 1 << 20; n++) {
		bool taken;
		struct str ip = nth_ip(rq->a, c, n);

		if (cache_peek(rq->s->alloc->ips->cache, STR_NULL, ip))
			continue;
		TRY(ip_object(rq, ip, svc, &taken));
		if (!taken) {
			*out = ip;
			return NULL;
		}
	}
	return err_internal("failed to allocate a serviceIP: range is full");
}

/* ---- the Service strategy ---- */

static bool needs_ip(const struct core_v1_service *s)
{
	return !str_eqz(s->spec.type, "ExternalName");
}

static bool headless(const struct core_v1_service *s)
{
	return str_eqz(s->spec.cluster_ip, "None");
}

static bool needs_ports(const struct core_v1_service *s)
{
	if (str_eqz(s->spec.type, "NodePort"))
		return true;
	return str_eqz(s->spec.type, "LoadBalancer") &&
	       !(s->spec.allocate_load_balancer_node_ports && !*s->spec.allocate_load_balancer_node_ports);
}

static bool needs_health_port(const struct core_v1_service *s)
{
	return str_eqz(s->spec.type, "LoadBalancer") && str_eqz(s->spec.external_traffic_policy, "Local");
}

void service_prepare_create(struct request *rq, void *obj)
{
	struct core_v1_service *s = obj;

	(void)rq;
	memset(&s->status, 0, sizeof s->status);
}

static void set_ips(struct arena *a, struct core_v1_service *s, const struct core_v1_service *from)
{
	s->spec.cluster_ip = from->spec.cluster_ip;
	memcpy(&s->spec.cluster_ips, &from->spec.cluster_ips, sizeof s->spec.cluster_ips);
	(void)a;
}

void service_prepare_update(struct request *rq, void *obj, const void *old)
{
	struct core_v1_service *s = obj;
	const struct core_v1_service *o = old;

	s->status = o->status;
	if (needs_ip(s) && needs_ip(o)) {
		/* an update that does not know the addresses keeps them */
		if (!s->spec.cluster_ip.n && !s->spec.cluster_ips.n)
			set_ips(rq->a, s, o);
		else if (!s->spec.cluster_ips.n && str_eq(s->spec.cluster_ip, o->spec.cluster_ip))
			set_ips(rq->a, s, o);
		else if (!s->spec.cluster_ip.n && s->spec.cluster_ips.n)
			s->spec.cluster_ip = s->spec.cluster_ips.v[0];
		if (!s->spec.ip_families.n)
			memcpy(&s->spec.ip_families, &o->spec.ip_families, sizeof o->spec.ip_families);
		if (!s->spec.ip_family_policy)
			s->spec.ip_family_policy = o->spec.ip_family_policy;
	}
	if (needs_ports(s) && needs_ports(o))
		for (uint32_t i = 0; i < s->spec.ports.n; i++) {
			struct core_v1_service_port *p = &s->spec.ports.v[i];

			for (uint32_t k = 0; !p->node_port && k < o->spec.ports.n; k++)
				if (o->spec.ports.v[k].port == p->port && str_eq(o->spec.ports.v[k].protocol, p->protocol))
					p->node_port = o->spec.ports.v[k].node_port;
		}
	if (needs_health_port(s) && needs_health_port(o) && !s->spec.health_check_node_port)
		s->spec.health_check_node_port = o->spec.health_check_node_port;
	/* what the old type had and the new one has not */
	if (!needs_ip(s) && needs_ip(o)) {
		if (str_eq(s->spec.cluster_ip, o->spec.cluster_ip)) {
			s->spec.cluster_ip = STR_NULL;
			memset(&s->spec.cluster_ips, 0, sizeof s->spec.cluster_ips);
			memset(&s->spec.ip_families, 0, sizeof s->spec.ip_families);
			s->spec.ip_family_policy = NULL;
		}
	}
	if (!needs_ports(s) && needs_ports(o) && !str_eqz(s->spec.type, "LoadBalancer"))
		for (uint32_t i = 0; i < s->spec.ports.n; i++)
			for (uint32_t k = 0; k < o->spec.ports.n; k++)
				if (s->spec.ports.v[i].node_port == o->spec.ports.v[k].node_port)
					s->spec.ports.v[i].node_port = 0;
	if (!needs_health_port(s) && s->spec.health_check_node_port == o->spec.health_check_node_port)
		s->spec.health_check_node_port = 0;
	if (!str_eqz(s->spec.type, "LoadBalancer")) {
		if (s->spec.allocate_load_balancer_node_ports && o->spec.allocate_load_balancer_node_ports)
			s->spec.allocate_load_balancer_node_ports = NULL;
		if (s->spec.load_balancer_class && o->spec.load_balancer_class)
			s->spec.load_balancer_class = NULL;
		if (str_eqz(o->spec.type, "LoadBalancer"))
			memset(&s->status.load_balancer, 0, sizeof s->status.load_balancer);
	}
	if (!str_eqz(s->spec.type, "NodePort") && !str_eqz(s->spec.type, "LoadBalancer") && !s->spec.external_ips.n &&
	    str_eq(s->spec.external_traffic_policy, o->spec.external_traffic_policy))
		s->spec.external_traffic_policy = STR_NULL;
}

struct taken { /* what a write took, to give back when it fails */
	LIST(struct str) ips;
	LIST(int32_t) ports;
};

static struct error *take_ip(struct request *rq, struct core_v1_service *s, struct taken *t, const struct cidr *c, struct str want, struct str *got,
			     bool dry_run)
{
	bool taken;

	if (dry_run) {
		*got = want.n ? want : nth_ip(rq->a, c, 1 + random_u64() % c->size);
		return NULL;
	}
	if (!want.n) {
		TRY(ip_allocate(rq, c, s, got));
	} else {
		TRY(ip_object(rq, want, s, &taken));
		if (taken) {
			struct field_errors fe = {.arena = rq->a};

			field_invalid_raw(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "clusterIPs"), arena_printf(rq->a, "[\"%.*s\"]", STR_ARG(want)),
					  "failed to allocate IP %.*s: provided IP is already allocated", STR_ARG(want));
			return field_errors_status(&fe, STR(""), STR("Service"), s->metadata.name);
		}
		*got = want;
	}
	*arena_push(rq->a, &t->ips) = *got;
	return NULL;
}

static struct error *take_ips(struct request *rq, struct core_v1_service *s, struct taken *t, bool dry_run)
{
	struct alloc *al = rq->s->alloc;
	struct str want[2] = {0};
	size_t n = 0, families;
	bool dual;

	if (s->spec.cluster_ip.n && !s->spec.cluster_ips.n)
		*arena_push(rq->a, &s->spec.cluster_ips) = s->spec.cluster_ip;
	if (!s->spec.cluster_ip.n && s->spec.cluster_ips.n)
		s->spec.cluster_ip = s->spec.cluster_ips.v[0];
	dual = s->spec.ip_family_policy && !str_eqz(*s->spec.ip_family_policy, "SingleStack");
	if (!s->spec.ip_families.n) {
		const struct cidr *c = headless(s) ? NULL : cidr_of(rq->s, s->spec.cluster_ip);

		*arena_push(rq->a, &s->spec.ip_families) = family_name(c ? c : &al->cidrs[0]);
	}
	if (dual && s->spec.ip_families.n < 2) {
		for (size_t i = 0; i < al->n; i++)
			if (!str_eq(family_name(&al->cidrs[i]), s->spec.ip_families.v[0])) {
				*arena_push(rq->a, &s->spec.ip_families) = family_name(&al->cidrs[i]);
				break;
			}
	}
	if (!s->spec.ip_family_policy) {
		s->spec.ip_family_policy = arena_new(rq->a, struct str);
		*s->spec.ip_family_policy = s->spec.ip_families.n > 1 ? STR("RequireDualStack") : STR("SingleStack");
	}
	if (str_eqz(*s->spec.ip_family_policy, "RequireDualStack") && al->n < 2 && !(headless(s) && !s->spec.selector.n)) {
		struct field_errors fe = {.arena = rq->a};

		field_invalid(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "ipFamilyPolicy"), *s->spec.ip_family_policy,
			      "this cluster is not configured for dual-stack services");
		return field_errors_status(&fe, STR(""), STR("Service"), s->metadata.name);
	}
	if (headless(s))
		return NULL;
	for (uint32_t i = 0; i < s->spec.cluster_ips.n && n < 2; i++)
		want[n++] = s->spec.cluster_ips.v[i];
	families = s->spec.ip_families.n > 2 ? 2 : s->spec.ip_families.n;
	for (size_t i = 0; i < families; i++) {
		const struct cidr *c = NULL;
		struct str got;

		for (size_t k = 0; k < al->n; k++)
			if (str_eq(family_name(&al->cidrs[k]), s->spec.ip_families.v[i]))
				c = &al->cidrs[k];
		if (!c) {
			struct field_errors fe = {.arena = rq->a};

			field_invalid(&fe, FIELD_INDEX(FIELD_CHILD(FIELD_ROOT("spec"), "ipFamilies"), i), s->spec.ip_families.v[i],
				      "not configured on this cluster");
			return field_errors_status(&fe, STR(""), STR("Service"), s->metadata.name);
		}
		if (want[i].n && cidr_of(rq->s, want[i]) != c) {
			struct field_errors fe = {.arena = rq->a};

			field_invalid_raw(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "clusterIPs"), arena_printf(rq->a, "[\"%.*s\"]", STR_ARG(want[i])),
					  "failed to allocate IP %.*s: the provided network does not match the current range", STR_ARG(want[i]));
			return field_errors_status(&fe, STR(""), STR("Service"), s->metadata.name);
		}
		TRY(take_ip(rq, s, t, c, want[i], &got, dry_run));
		if (i < s->spec.cluster_ips.n)
			s->spec.cluster_ips.v[i] = got;
		else
			*arena_push(rq->a, &s->spec.cluster_ips) = got;
	}
	s->spec.cluster_ip = s->spec.cluster_ips.n ? s->spec.cluster_ips.v[0] : STR_NULL;
	return NULL;
}

static bool had_port(const struct core_v1_service *o, int32_t port)
{
	if (!o)
		return false;
	for (uint32_t i = 0; i < o->spec.ports.n; i++)
		if (o->spec.ports.v[i].node_port == port)
			return true;
	return o->spec.health_check_node_port == port;
}

static struct error *take_port(struct request *rq, struct core_v1_service *s, const struct core_v1_service *o, struct taken *t,
			       const struct field_path *p, int32_t *port)
{
	struct alloc *al = rq->s->alloc;
	struct field_errors fe = {.arena = rq->a};

	if (!*port) {
		TRY(port_allocate(rq->s, port));
	} else {
		if (had_port(o, *port))
			return NULL;
		for (uint32_t i = 0; i < t->ports.n; i++)
			if (t->ports.v[i] == *port)
				return NULL; /* the same number for two protocols */
		if (!port_in_range(al, *port))
			field_invalid_int(&fe, p, *port, "provided port is not in the valid range. The range of valid ports is %d-%d", al->port_min,
					  al->port_max);
		else if (port_taken(al, *port))
			field_invalid_int(&fe, p, *port, "provided port is already allocated");
		TRY(field_errors_status(&fe, STR(""), STR("Service"), s->metadata.name));
		port_set(al, *port, true);
	}
	*arena_push(rq->a, &t->ports) = *port;
	return NULL;
}

static struct error *take_ports(struct request *rq, struct core_v1_service *s, const struct core_v1_service *o, struct taken *t)
{
	const struct field_path *ports = FIELD_CHILD(FIELD_ROOT("spec"), "ports");

	if (needs_ports(s))
		for (uint32_t i = 0; i < s->spec.ports.n; i++) {
			struct core_v1_service_port *p = &s->spec.ports.v[i];

			/* one number serves a port under several protocols */
			for (uint32_t k = 0; !p->node_port && k < i; k++)
				if (s->spec.ports.v[k].port == p->port && !str_eq(s->spec.ports.v[k].protocol, p->protocol))
					p->node_port = s->spec.ports.v[k].node_port;
			TRY(take_port(rq, s, o, t, FIELD_CHILD(FIELD_INDEX(ports, i), "nodePort"), &p->node_port));
		}
	if (needs_health_port(s))
		TRY(take_port(rq, s, o, t, FIELD_CHILD(FIELD_ROOT("spec"), "healthCheckNodePort"), &s->spec.health_check_node_port));
	return NULL;
}

static void give_back(struct request *rq, const struct core_v1_service *s, struct taken *t)
{
	for (uint32_t i = 0; i < t->ips.n; i++)
		ip_release(rq, t->ips.v[i], s);
	for (uint32_t i = 0; i < t->ports.n; i++)
		port_set(rq->s->alloc, t->ports.v[i], false);
}

struct error *service_begin_write(struct request *rq, void *obj, const void *old, bool dry_run, void **state)
{
	struct core_v1_service *s = obj;
	const struct core_v1_service *o = old;
	struct taken *t = arena_new(rq->a, struct taken);
	struct error *e = NULL;

	*state = t;
	if (needs_ip(s) && (!o || !needs_ip(o))) {
		e = take_ips(rq, s, t, dry_run);
	} else if (needs_ip(s) && o && !headless(s) && s->spec.ip_family_policy && !str_eqz(*s->spec.ip_family_policy, "SingleStack") &&
		   s->spec.cluster_ips.n < 2 && rq->s->alloc->n > 1) {
		/* single to dual stack: the second address */
		const struct cidr *c = &rq->s->alloc->cidrs[0];
		struct str got;

		if (str_eq(family_name(c), s->spec.ip_families.v[0]))
			c = &rq->s->alloc->cidrs[1];
		if (s->spec.ip_families.n < 2)
			*arena_push(rq->a, &s->spec.ip_families) = family_name(c);
		e = take_ip(rq, s, t, c, STR_NULL, &got, dry_run);
		if (!e)
			*arena_push(rq->a, &s->spec.cluster_ips) = got;
	}
	if (!e && (needs_ports(s) || needs_health_port(s))) {
		e = fiber_mutex_lock(&rq->s->alloc->lock);
		if (!e) {
			e = take_ports(rq, s, o, t);
			if (!e && t->ports.n && !dry_run)
				e = ports_save(rq->s, rq->a);
			fiber_mutex_unlock(&rq->s->alloc->lock);
		}
	}
	if (e || dry_run) {
		give_back(rq, s, t);
		memset(t, 0, sizeof *t);
	}
	return e;
}

static bool has_ip(const struct core_v1_service *s, struct str ip)
{
	for (uint32_t i = 0; s && i < s->spec.cluster_ips.n; i++)
		if (str_eq(s->spec.cluster_ips.v[i], ip))
			return true;
	return false;
}

void service_end_write(struct request *rq, void *obj, const void *old, void *state, bool ok)
{
	struct core_v1_service *s = obj;
	const struct core_v1_service *o = old;
	struct taken *t = state;
	bool changed = false;

	if (!ok) {
		if (t)
			give_back(rq, s ? s : o, t);
		return;
	}
	if (!o || rq->dry_run)
		return;
	for (uint32_t i = 0; i < o->spec.cluster_ips.n; i++)
		if (!str_eqz(o->spec.cluster_ips.v[i], "None") && !has_ip(s, o->spec.cluster_ips.v[i]))
			ip_release(rq, o->spec.cluster_ips.v[i], o);
	for (uint32_t i = 0; i < o->spec.ports.n; i++)
		if (o->spec.ports.v[i].node_port && !had_port(s, o->spec.ports.v[i].node_port)) {
			port_set(rq->s->alloc, o->spec.ports.v[i].node_port, false);
			changed = true;
		}
	if (o->spec.health_check_node_port && !had_port(s, o->spec.health_check_node_port)) {
		port_set(rq->s->alloc, o->spec.health_check_node_port, false);
		changed = true;
	}
	if (changed)
		log_and_free(ports_save(rq->s, rq->a), "saving node ports");
}

/* ---- validation ---- */

static const struct str types[] = {STR_INIT("ClusterIP"), STR_INIT("ExternalName"), STR_INIT("LoadBalancer"), STR_INIT("NodePort")};
static const struct str protocols[] = {STR_INIT("SCTP"), STR_INIT("TCP"), STR_INIT("UDP")};
static const struct str affinities[] = {STR_INIT("ClientIP"), STR_INIT("None")};

static bool one_of(struct str s, const struct str *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(s, v[i]))
			return true;
	return false;
}

static void validate_ports(const struct core_v1_service *s, struct field_errors *e)
{
	const struct field_path *ports = FIELD_CHILD(FIELD_ROOT("spec"), "ports");

	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		const struct core_v1_service_port *p = &s->spec.ports.v[i];
		const struct field_path *at = FIELD_INDEX(ports, i);
		const char *m;

		if (s->spec.ports.n > 1 && !p->name.n) {
			field_required(e, FIELD_CHILD(at, "name"), "");
		} else if (p->name.n) {
			m = validate_dns1123_label(e->arena, p->name);
			if (m)
				field_invalid(e, FIELD_CHILD(at, "name"), p->name, "%s", m);
			for (uint32_t k = 0; k < i; k++)
				if (str_eq(s->spec.ports.v[k].name, p->name)) {
					field_duplicate(e, FIELD_CHILD(at, "name"), p->name);
					break;
				}
		}
		m = validate_port_number(e->arena, p->port);
		if (m)
			field_invalid_int(e, FIELD_CHILD(at, "port"), p->port, "%s", m);
		if (!p->protocol.n)
			field_required(e, FIELD_CHILD(at, "protocol"), "");
		else if (!one_of(p->protocol, protocols, 3))
			field_not_supported(e, FIELD_CHILD(at, "protocol"), p->protocol, protocols, 3);
		if (p->target_port.is_str) {
			m = validate_port_name(e->arena, p->target_port.s);
			if (m)
				field_invalid(e, FIELD_CHILD(at, "targetPort"), p->target_port.s, "%s", m);
		} else {
			m = validate_port_number(e->arena, p->target_port.i);
			if (m)
				field_invalid_int(e, FIELD_CHILD(at, "targetPort"), p->target_port.i, "%s", m);
		}
		if (str_eqz(s->spec.type, "ClusterIP") && p->node_port)
			field_forbidden(e, FIELD_CHILD(at, "nodePort"), "may not be used when `type` is 'ClusterIP'");
		for (uint32_t k = 0; k < i; k++)
			if (s->spec.ports.v[k].port == p->port && str_eq(s->spec.ports.v[k].protocol, p->protocol)) {
				field_duplicate(e, at, arena_printf(e->arena, "%d/%.*s", p->port, STR_ARG(p->protocol)));
				break;
			}
	}
}

void service_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_service *s = obj;
	const struct field_path *spec = FIELD_ROOT("spec");
	const char *m;

	(void)rq;
	if (!s->spec.type.n)
		field_required(e, FIELD_CHILD(spec, "type"), "");
	else if (!one_of(s->spec.type, types, 4))
		field_not_supported(e, FIELD_CHILD(spec, "type"), s->spec.type, types, 4);
	if (!s->spec.ports.n && !headless(s) && needs_ip(s))
		field_required(e, FIELD_CHILD(spec, "ports"), "");
	if (str_eqz(s->spec.type, "LoadBalancer") && headless(s))
		field_invalid(e, FIELD_CHILD(spec, "clusterIPs"), s->spec.cluster_ip, "may not be set to 'None' for LoadBalancer services");
	if (str_eqz(s->spec.type, "NodePort") && headless(s))
		field_invalid(e, FIELD_CHILD(spec, "clusterIPs"), s->spec.cluster_ip, "may not be set to 'None' for NodePort services");
	if (!needs_ip(s)) {
		struct str name = s->spec.external_name;

		if (s->spec.cluster_ip.n)
			field_forbidden(e, FIELD_CHILD(spec, "clusterIPs"), "may not be set when `type` is 'ExternalName'");
		if (name.n && name.p[name.n - 1] == '.')
			name.n--;
		if (!name.n) {
			field_required(e, FIELD_CHILD(spec, "externalName"), "");
		} else {
			m = validate_dns1123_subdomain(e->arena, name);
			if (m)
				field_invalid(e, FIELD_CHILD(spec, "externalName"), s->spec.external_name, "%s", m);
		}
	}
	validate_ports(s, e);
	validate_labels(e, API_MAP(&s->spec.selector), FIELD_CHILD(spec, "selector"));
	if (!s->spec.session_affinity.n)
		field_required(e, FIELD_CHILD(spec, "sessionAffinity"), "");
	else if (!one_of(s->spec.session_affinity, affinities, 2))
		field_not_supported(e, FIELD_CHILD(spec, "sessionAffinity"), s->spec.session_affinity, affinities, 2);
	for (uint32_t i = 0; i < s->spec.external_ips.n; i++) {
		m = validate_ip(e->arena, s->spec.external_ips.v[i]);
		if (m)
			field_invalid(e, FIELD_INDEX(FIELD_CHILD(spec, "externalIPs"), i), s->spec.external_ips.v[i], "%s", m);
	}
	for (uint32_t i = 0; i < s->spec.cluster_ips.n; i++) {
		struct str ip = s->spec.cluster_ips.v[i];

		if (str_eqz(ip, "None"))
			continue;
		m = validate_ip(e->arena, ip);
		if (m)
			field_invalid(e, FIELD_INDEX(FIELD_CHILD(spec, "clusterIPs"), i), ip, "%s", m);
	}
	if (s->spec.external_traffic_policy.n && !str_eqz(s->spec.type, "NodePort") && !str_eqz(s->spec.type, "LoadBalancer") &&
	    !s->spec.external_ips.n)
		field_invalid(e, FIELD_CHILD(spec, "externalTrafficPolicy"), s->spec.external_traffic_policy,
			      "may only be set for externally-accessible services");
}

void service_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_service *s = obj, *o = old;

	service_validate(rq, obj, e);
	if (needs_ip(s) && needs_ip(o) && o->spec.cluster_ip.n && !str_eq(s->spec.cluster_ip, o->spec.cluster_ip))
		field_invalid_raw(e, FIELD_INDEX(FIELD_CHILD(FIELD_ROOT("spec"), "clusterIPs"), 0),
				  arena_printf(e->arena, "[\"%.*s\"]", STR_ARG(s->spec.cluster_ip)),
				  "may not change once set");
}

/* ---- start ---- */

static void repair_one(struct request *rq, const struct core_v1_service *svc)
{
	struct alloc *al = rq->s->alloc;

	for (uint32_t i = 0; i < svc->spec.cluster_ips.n; i++) {
		struct str ip = svc->spec.cluster_ips.v[i];
		bool taken;

		if (str_eqz(ip, "None") || cache_peek(al->ips->cache, STR_NULL, ip))
			continue;
		log_warn("service %.*s/%.*s: its address %.*s had no IPAddress", STR_ARG(svc->metadata.namespace), STR_ARG(svc->metadata.name),
			 STR_ARG(ip));
		log_and_free(ip_object(rq, ip, svc, &taken), "repairing service addresses");
	}
	for (uint32_t i = 0; i < svc->spec.ports.n; i++)
		port_set(al, svc->spec.ports.v[i].node_port, true);
	port_set(al, svc->spec.health_check_node_port, true);
}

/* Addresses of Services that are no more (or never came to be: a crash between the two writes). */
static struct error *release_orphans(struct request *rq)
{
	struct alloc *al = rq->s->alloc;
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *e;

	TRY(cache_snapshot(al->ips->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, al->ips->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((e = cache_iter_next(&it)) != NULL) {
		struct networking_v1_ip_address *ip = arena_new(rq->a, struct networking_v1_ip_address);
		struct core_v1_service svc = {0};
		struct error *err = cache_entry_decode(rq->a, &networking_v1_ip_address_type, e, true, ip);

		if (err) {
			log_and_free(err, "IPAddress");
			continue;
		}
		if (!ip->spec.parent_ref || !str_eqz(ip->spec.parent_ref->resource, "services") ||
		    cache_peek(al->services->cache, ip->spec.parent_ref->namespace, ip->spec.parent_ref->name))
			continue;
		svc.metadata.namespace = ip->spec.parent_ref->namespace;
		svc.metadata.name = ip->spec.parent_ref->name;
		log_info("releasing the address %.*s of service %.*s/%.*s, which is gone", STR_ARG(ip->metadata.name),
			 STR_ARG(svc.metadata.namespace), STR_ARG(svc.metadata.name));
		ip_release(rq, ip->metadata.name, &svc);
	}
	cache_snap_free(snap);
	return NULL;
}

struct error *alloc_init(struct apiserver *s)
{
	struct alloc *al = arena_new(&s->arena, struct alloc);
	struct str rest = str_from(s->o.service_cidr ? s->o.service_cidr : "10.0.0.0/24"), ports;
	int64_t lo, hi;
	struct arena a arena_cleanup = {0};
	struct request rq;
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *e;

	s->alloc = al;
	while (rest.p && rest.n && al->n < 2) {
		TRY(parse_cidr(&s->arena, str_trim(str_cut(&rest, ',')), &al->cidrs[al->n]));
		al->n++;
	}
	ports = str_from(s->o.node_port_range ? s->o.node_port_range : "30000-32767");
	if (!str_to_i64(str_cut(&ports, '-'), &lo) || !str_to_i64(ports, &hi) || lo < 1 || hi > 65535 || lo > hi)
		return error_new("--service-node-port-range: want FIRST-LAST, for example 30000-32767");
	al->port_min = (int)lo;
	al->port_max = (int)hi;
	al->ports = arena_alloc(&s->arena, (size_t)(hi - lo) / 8 + 1);
	al->services = storage_find(s, STR(""), STR("services"));
	al->ips = storage_find(s, STR("networking.k8s.io"), STR("ipaddresses"));
	al->ip_res = resource_any(s, STR("networking.k8s.io"), STR("ipaddresses"));
	request_internal(&rq, s, &a, al->ip_res, STR_NULL);
	TRY(cache_snapshot(al->services->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, al->services->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((e = cache_iter_next(&it)) != NULL) {
		struct core_v1_service *svc = arena_new(&a, struct core_v1_service);
		struct error *err = cache_entry_decode(&a, &core_v1_service_type, e, true, svc);

		if (err)
			log_and_free(err, "services");
		else
			repair_one(&rq, svc);
	}
	cache_snap_free(snap);
	TRY(release_orphans(&rq));
	return ports_save(s, &a);
}
