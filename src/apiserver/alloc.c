/* Service addresses and node ports. */
#include <arpa/inet.h>
#include "apiserver/alloc_internal.h"
#include "apiserver/storage_flags.h"
#include "apiserver/metrics.h"

#define IP_TRIES 256
#define PORTS_TRIES 16 /* against other servers that take ports at the same time */

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

/* Whether it is one of the addresses to give: neither the range's own nor, of IPv4, the broadcast address. */
static bool cidr_holds(const struct cidr *c, struct str ip)
{
	unsigned char addr[16];
	char z[64];
	bool in = true, zeros = true, ones = c->family == AF_INET;

	if (ip.n >= sizeof z)
		return false;
	memcpy(z, ip.p ? ip.p : "", ip.n);
	z[ip.n] = 0;
	if (inet_pton(c->family, z, addr) != 1)
		return false;
	for (int b = 0; b < c->bits; b++)
		in &= ((addr[b / 8] ^ c->base[b / 8]) & (0x80 >> b % 8)) == 0;
	for (int b = c->bits; b < (c->family == AF_INET ? 32 : 128); b++) {
		zeros &= !(addr[b / 8] & (0x80 >> b % 8));
		ones &= (addr[b / 8] & (0x80 >> b % 8)) != 0;
	}
	return in && !zeros && !ones;
}

static struct str family_name(const struct cidr *c)
{
	return c->family == AF_INET ? STR("IPv4") : STR("IPv6");
}

#define RANGES_MAX 64

struct ranges { /* of one family: the flag's, then those of ServiceCIDRs (KEP-1880) */
	struct cidr v[RANGES_MAX];
	size_t n;
};

static bool same_cidr(const struct cidr *a, const struct cidr *b)
{
	return a->family == b->family && a->bits == b->bits && memcmp(a->base, b->base, sizeof a->base) == 0;
}

/* ended: the flag's range, r's first, is one that goes; it counts no more, then, unless another has it, too. */
static void add_service_cidr(struct arena *a, const struct networking_v1_service_cidr *o, bool all, struct ranges *r, bool *kept,
			     bool *ended)
{
	bool ready = true; /* as long as nobody says anything of it: there may be no controller */

	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		if (str_eqz(o->status.conditions.v[i].type, "Ready"))
			ready = str_eqz(o->status.conditions.v[i].status, "True");
	ready = all || (ready && !o->metadata.deletion_timestamp);
	for (uint32_t i = 0; i < o->spec.cidrs.n && r->n < RANGES_MAX; i++) {
		struct cidr *c = &r->v[r->n];
		struct error *e = parse_cidr(a, o->spec.cidrs.v[i], c);
		bool known = e || c->family != r->v[0].family, first = !known && same_cidr(&r->v[0], c);

		*kept |= first && ready;
		*ended |= first && !ready;
		for (size_t k = 0; k < r->n; k++)
			known |= same_cidr(&r->v[k], c);
		error_free(e); /* too small to give any address */
		if (!known && ready)
			r->n++;
	}
}

/* all: also those that give no more addresses. */
static struct error *ranges_of(struct request *rq, const struct cidr *first, bool all, struct ranges *r)
{
	struct storage *st = storage_find(rq->s, STR("networking.k8s.io"), STR("servicecidrs"));
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e = NULL;
	bool kept = false, ended = false;

	r->v[0] = *first;
	r->n = 1;
	TRY(cache_snapshot(st->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, st->cache, snap, STR_NULL, STR_NULL, NULL);
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		struct networking_v1_service_cidr *o = arena_new(rq->a, struct networking_v1_service_cidr);

		e = cache_entry_decode(rq->a, st->type, en, true, o);
		if (!e)
			add_service_cidr(rq->a, o, all, r, &kept, &ended);
	}
	cache_snap_free(snap);
	if (ended && !kept)
		memmove(r->v, r->v + 1, --r->n * sizeof *r->v);
	return e;
}

struct error *ip_in_ranges(struct request *rq, struct str ip, bool *in)
{
	const struct alloc *al = rq->s->alloc;
	int family = ip_family(ip) == 6 ? AF_INET6 : AF_INET;
	struct ranges *r = arena_new(rq->a, struct ranges);
	struct cidr none = {.family = family, .bits = family == AF_INET ? 32 : 128};
	const struct cidr *first = &none;

	for (size_t i = 0; i < al->n; i++)
		if (al->cidrs[i].family == family)
			first = &al->cidrs[i];
	TRY(ranges_of(rq, first, true, r));
	*in = false;
	for (size_t i = 0; i < r->n; i++)
		*in |= cidr_holds(&r->v[i], ip);
	return NULL;
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

bool port_in_range(const struct alloc *al, int32_t p)
{
	return p >= al->port_min && p <= al->port_max;
}

bool port_taken(const struct alloc *al, int32_t p)
{
	int i = p - al->port_min;

	return al->ports[i / 8] >> i % 8 & 1;
}

void port_set(struct alloc *al, int32_t p, bool taken)
{
	int i = p - al->port_min;

	if (!port_in_range(al, p))
		return;
	if (taken)
		al->ports[i / 8] |= (unsigned char)(1 << i % 8);
	else
		al->ports[i / 8] &= (unsigned char)~(1 << i % 8);
}

static struct str ports_key(const struct apiserver *s, struct arena *a)
{
	return arena_printf(a, "%s/ranges/servicenodeports", s->o.etcd_prefix);
}

/* Written as upstream's RangeAllocation: the bitmap as a big-endian number without leading zeros. */
struct error *ports_save(struct apiserver *s, struct arena *a, bool *ok)
{
	struct alloc *al = s->alloc;
	size_t bytes = (size_t)(al->port_max - al->port_min) / 8 + 1, n = bytes;
	struct core_v1_range_allocation r = {.kind = STR("RangeAllocation"), .api_version = STR("v1")};
	char *data = arena_bytes(a, bytes);
	struct buf b buf_cleanup = {0};

	while (n && !al->ports[n - 1])
		n--;
	for (size_t i = 0; i < n; i++)
		data[i] = (char)al->ports[n - 1 - i];
	r.range = arena_printf(a, "%d-%d", al->port_min, al->port_max);
	r.data = str_of(data, n);
	object_encode(&b, storage_media(s, STR("")), &core_v1_range_allocation_type, &r);
	return store_put(store_of(s, STR(""), STR("services")), ports_key(s, a), buf_view(&b), al->ports_rev, 0, 0, NULL, ok, &al->ports_rev, NULL);
}

struct error *ports_load(struct apiserver *s, struct arena *a)
{
	struct alloc *al = s->alloc;
	size_t bytes = (size_t)(al->port_max - al->port_min) / 8 + 1;
	struct core_v1_range_allocation r = {0};
	struct store_kv kv = {0};
	bool found = false;
	struct error *e;

	memset(al->ports, 0, bytes);
	al->ports_rev = 0;
	TRY(store_get(store_of(s, STR(""), STR("services")), ports_key(s, a), 0, &found, &kv));
	if (!found)
		return NULL;
	al->ports_rev = kv.mod_rev;
	e = object_decode(a, media_recognize(block_str(kv.value)), &core_v1_range_allocation_type, block_str(kv.value), NULL, &r);
	/* of another range: counted anew by the next repair */
	if (!e && str_eq(r.range, arena_printf(a, "%d-%d", al->port_min, al->port_max)))
		for (size_t i = 0; i < r.data.n && i < bytes; i++)
			al->ports[i] = (unsigned char)r.data.p[r.data.n - 1 - i];
	store_kv_free(&kv);
	return e;
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

struct error *ip_object(struct request *rq, struct str ip, const struct core_v1_service *svc, bool *taken)
{
	struct request in;
	struct networking_v1_ip_address *o = arena_new(rq->a, struct networking_v1_ip_address);
	struct write_result r;
	struct error *e;

	*taken = false;
	request_internal(&in, rq->s, rq->a, rq->s->alloc->ip_res, STR_NULL);
	o->kind = STR("IPAddress");
	o->api_version = STR("networking.k8s.io/v1");
	o->metadata.name = ip;
	str_map_set(rq->a, API_MAP(&o->metadata.labels), STR("ipaddress.kubernetes.io/managed-by"), STR("ipallocator.k8s.io"));
	str_map_set(rq->a, API_MAP(&o->metadata.labels), STR("ipaddress.kubernetes.io/ip-family"),
		    str_index(ip, ':') >= 0 ? STR("IPv6") : STR("IPv4"));
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

/* *out empty: c is full. */
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
	*out = STR_NULL;
	return NULL;
}

static struct error *ip_allocate_any(struct request *rq, const struct ranges *r, const struct core_v1_service *svc, struct str *out)
{
	for (size_t i = 0; i < r->n; i++) {
		TRY(ip_allocate(rq, &r->v[i], svc, out));
		if (out->n)
			return NULL;
	}
	return err_internal("failed to allocate a serviceIP: range is full");
}

/* ---- the Service strategy ---- */

static bool needs_ip(const struct core_v1_service *s)
{
	return !service_is(s, "ExternalName");
}

static bool headless(const struct core_v1_service *s)
{
	return str_eqz(s->spec.cluster_ip, "None");
}

/* Whether a port without a number gets one. */
static bool gives_ports(const struct core_v1_service *s)
{
	return service_is(s, "NodePort") || (service_is(s, "LoadBalancer") && !(s->spec.allocate_load_balancer_node_ports &&
										!*s->spec.allocate_load_balancer_node_ports));
}

/* Whether ports may have numbers on the nodes at all. */
static bool may_have_ports(const struct core_v1_service *s)
{
	return service_is(s, "NodePort") || service_is(s, "LoadBalancer");
}

static bool same_strings(const struct strings *a, const struct strings *b)
{
	if (a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (!str_eq(a->v[i], b->v[i]))
			return false;
	return true;
}

static bool same_ips(const struct core_v1_service *s, const struct core_v1_service *o)
{
	return same_strings((const void *)&s->spec.cluster_ips, (const void *)&o->spec.cluster_ips);
}

static bool same_families(const struct core_v1_service *s, const struct core_v1_service *o)
{
	return same_strings((const void *)&s->spec.ip_families, (const void *)&o->spec.ip_families);
}

void service_prepare_create(struct request *rq, void *obj)
{
	struct core_v1_service *s = obj;

	memset(&s->status, 0, sizeof s->status);
	if (s->spec.cluster_ip.n && !s->spec.cluster_ips.n)
		*arena_push(rq->a, &s->spec.cluster_ips) = s->spec.cluster_ip;
}

/* What was given to the Service and the client does not know of stays (upstream's patchAllocatedValues). */
static void keep_allocated(struct arena *a, struct core_v1_service *s, const struct core_v1_service *o)
{
	int32_t *asked = arena_alloc(a, (s->spec.ports.n + 1) * sizeof *asked);

	if (needs_ip(s) && needs_ip(o)) {
		if (!s->spec.cluster_ip.n)
			s->spec.cluster_ip = o->spec.cluster_ip;
		if (!s->spec.cluster_ips.n && o->spec.cluster_ips.n)
			memcpy(&s->spec.cluster_ips, &o->spec.cluster_ips, sizeof s->spec.cluster_ips);
	}
	for (uint32_t i = 0; i < s->spec.ports.n; i++)
		asked[i] = s->spec.ports.v[i].node_port;
	if (gives_ports(s) && gives_ports(o))
		for (uint32_t i = 0; i < s->spec.ports.n; i++) {
			struct core_v1_service_port *p = &s->spec.ports.v[i];
			int32_t was = 0;
			bool used = false;

			if (p->node_port)
				continue;
			for (uint32_t k = 0; k < o->spec.ports.n; k++)
				if (str_eq(o->spec.ports.v[k].name, p->name))
					was = o->spec.ports.v[k].node_port;
			for (uint32_t k = 0; k < s->spec.ports.n; k++)
				used |= asked[k] == was;
			if (!used)
				p->node_port = was;
		}
	if (service_needs_health_port(s) && service_needs_health_port(o) && !s->spec.health_check_node_port)
		s->spec.health_check_node_port = o->spec.health_check_node_port;
}

/* clusterIP and clusterIPs say the same: who changes one only, means both. */
static void sync_ips(struct arena *a, struct core_v1_service *s, const struct core_v1_service *o)
{
	if (o->spec.cluster_ips.n && !s->spec.cluster_ips.n && str_eq(s->spec.cluster_ip, o->spec.cluster_ip))
		memcpy(&s->spec.cluster_ips, &o->spec.cluster_ips, sizeof s->spec.cluster_ips);
	if (str_eq(s->spec.cluster_ip, o->spec.cluster_ip) || !same_ips(s, o))
		return;
	memset(&s->spec.cluster_ips, 0, sizeof s->spec.cluster_ips);
	if (s->spec.cluster_ip.n || !o->spec.cluster_ip.n)
		*arena_push(a, &s->spec.cluster_ips) = s->spec.cluster_ip;
}

void service_prepare_update(struct request *rq, void *obj, const void *old)
{
	struct core_v1_service *s = obj;
	const struct core_v1_service *o = old;

	s->status = o->status;
	keep_allocated(rq->a, s, o);
	sync_ips(rq->a, s, o);
}

/* What the old type had and the new one has not, and the client did not touch. */
static void drop_type_fields(struct core_v1_service *s, const struct core_v1_service *o)
{
	const struct str *policy = s->spec.ip_family_policy, *was = o->spec.ip_family_policy, *c = s->spec.load_balancer_class,
			 *wc = o->spec.load_balancer_class;

	if (needs_ip(o) && !needs_ip(s)) {
		bool ips = str_eq(s->spec.cluster_ip, o->spec.cluster_ip) && same_ips(s, o), families = same_families(s, o);

		if (ips) {
			s->spec.cluster_ip = STR_NULL;
			memset(&s->spec.cluster_ips, 0, sizeof s->spec.cluster_ips);
		}
		if (families)
			memset(&s->spec.ip_families, 0, sizeof s->spec.ip_families);
		if (str_eq(policy ? *policy : STR(""), was ? *was : STR("")))
			s->spec.ip_family_policy = NULL;
	}
	if (may_have_ports(o) && !may_have_ports(s)) {
		bool known = true;

		for (uint32_t i = 0; i < s->spec.ports.n; i++) {
			bool had = !s->spec.ports.v[i].node_port;

			for (uint32_t k = 0; k < o->spec.ports.n; k++)
				had |= o->spec.ports.v[k].node_port == s->spec.ports.v[i].node_port;
			known &= had;
		}
		for (uint32_t i = 0; known && i < s->spec.ports.n; i++)
			s->spec.ports.v[i].node_port = 0;
	}
	if (service_needs_health_port(o) && !service_needs_health_port(s) && s->spec.health_check_node_port == o->spec.health_check_node_port)
		s->spec.health_check_node_port = 0;
	if (service_is(o, "LoadBalancer") && !service_is(s, "LoadBalancer")) {
		const bool *a = s->spec.allocate_load_balancer_node_ports, *b = o->spec.allocate_load_balancer_node_ports;

		if (a && b && *a == *b)
			s->spec.allocate_load_balancer_node_ports = NULL;
		if (!c == !wc && (!c || str_eq(*c, *wc)))
			s->spec.load_balancer_class = NULL;
	}
	if (service_external(o) && !service_external(s) && str_eq(s->spec.external_traffic_policy, o->spec.external_traffic_policy))
		s->spec.external_traffic_policy = STR_NULL;
	if (!service_is(s, "LoadBalancer"))
		memset(&s->status.load_balancer, 0, sizeof s->status.load_balancer);
}

struct taken { /* what a write took, to give back when it fails */
	LIST(struct str) ips;
	LIST(int32_t) ports;
	bool saved;         /* the ports, in the store */
	int32_t dry_port;   /* the highest port of a dry run */
	bool dry_ports;     /* which has any */
};

static struct error *invalid(struct request *rq, const struct core_v1_service *s, struct field_errors *e)
{
	return field_errors_status(e, STR(""), STR("Service"), s->metadata.name);
}

/* The range of a family, or NULL. */
static const struct cidr *range_of(const struct alloc *al, struct str family)
{
	for (size_t i = 0; i < al->n; i++)
		if (str_eq(family_name(&al->cidrs[i]), family))
			return &al->cidrs[i];
	return NULL;
}

/* One that prefers two families and was given one stays so when the server has two ranges by now, until somebody changes what it wants. */
static bool prefers_as_before(const struct core_v1_service *s, const struct core_v1_service *o)
{
	const struct str *now = s->spec.ip_family_policy, *was = o ? o->spec.ip_family_policy : NULL;

	return now && was && str_eqz(*now, "PreferDualStack") && str_eq(*now, *was) && str_eq(s->spec.type, o->spec.type) && same_ips(s, o) &&
	       same_families(s, o);
}

/*
 * Address families and their policy, where the client did not say (upstream's initIPFamilyFields; KEP-563).
 * `o` NULL: create.
 */
static struct error *init_families(struct request *rq, struct core_v1_service *s, const struct core_v1_service *o)
{
	const struct alloc *al = rq->s->alloc;
	const struct field_path *spec = FIELD_ROOT("spec"), *policy = FIELD_CHILD(spec, "ipFamilyPolicy");
	struct field_errors e = {.arena = rq->a};
	bool bare = headless(s) && !s->spec.selector.n, single;

	if (!needs_ip(s) || prefers_as_before(s, o))
		return NULL;
	if (!s->spec.ip_family_policy) {
		if (o && o->spec.ip_family_policy) {
			s->spec.ip_family_policy = o->spec.ip_family_policy;
		} else {
			s->spec.ip_family_policy = arena_new(rq->a, struct str);
			/* without a selector the endpoints may be of any family */
			*s->spec.ip_family_policy = bare ? STR("RequireDualStack") : STR("SingleStack");
		}
	}
	service_rules_cluster_ips(s, o, &e);
	if (e.list.n)
		return invalid(rq, s, &e);
	single = str_eqz(*s->spec.ip_family_policy, "SingleStack");
	if (o && single) {
		if (same_ips(s, o) && s->spec.cluster_ips.n > 1)
			s->spec.cluster_ips.n = 1;
		if (same_families(s, o) && s->spec.ip_families.n > 1)
			s->spec.ip_families.n = 1;
	} else if (o) {
		if (s->spec.cluster_ips.n && s->spec.cluster_ips.n < o->spec.cluster_ips.n)
			field_invalid(&e, policy, *s->spec.ip_family_policy, "must be 'SingleStack' to release the secondary cluster IP");
		if (s->spec.ip_families.n && s->spec.ip_families.n < o->spec.ip_families.n)
			field_invalid(&e, policy, *s->spec.ip_family_policy, "must be 'SingleStack' to release the secondary IP family");
	}
	if (single && s->spec.cluster_ips.n == 2)
		field_invalid(&e, policy, *s->spec.ip_family_policy,
			      "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified");
	if (single && s->spec.ip_families.n == 2)
		field_invalid(&e, policy, *s->spec.ip_family_policy,
			      "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified");
	for (uint32_t i = 0; i < s->spec.cluster_ips.n && !str_eqz(s->spec.cluster_ips.v[i], "None"); i++) {
		struct str family = ip_family(s->spec.cluster_ips.v[i]) == 6 ? STR("IPv6") : STR("IPv4");

		if (i < s->spec.ip_families.n)
			continue;
		if (range_of(al, family))
			*arena_push(rq->a, &s->spec.ip_families) = family;
		else
			field_invalid_list(&e, FIELD_INDEX(FIELD_CHILD(spec, "clusterIPs"), i), (const void *)&s->spec.cluster_ips,
					   "%.*s is not configured on this cluster", STR_ARG(family));
	}
	if (e.list.n)
		return invalid(rq, s, &e);
	if (!bare) {
		if (str_eqz(*s->spec.ip_family_policy, "RequireDualStack") && al->n < 2)
			field_invalid(&e, policy, *s->spec.ip_family_policy, "this cluster is not configured for dual-stack services");
		for (uint32_t i = 0; i < s->spec.ip_families.n; i++)
			if (!range_of(al, s->spec.ip_families.v[i]))
				field_invalid(&e, FIELD_INDEX(FIELD_CHILD(spec, "ipFamilies"), i), s->spec.ip_families.v[i],
					      "not configured on this cluster");
		if (e.list.n)
			return invalid(rq, s, &e);
	}
	if (!s->spec.ip_families.n)
		*arena_push(rq->a, &s->spec.ip_families) = family_name(&al->cidrs[0]);
	if (!single && s->spec.ip_families.n == 1 && (bare || al->n == 2)) {
		struct str other = str_eqz(s->spec.ip_families.v[0], "IPv4") ? STR("IPv6") : STR("IPv4");

		*arena_push(rq->a, &s->spec.ip_families) = other;
	}
	return NULL;
}

static void count_ip(struct arena *a, const struct cidr *c, bool asked, bool given)
{
	metrics_count(given ? METRIC_IP_ALLOCATIONS : METRIC_IP_FAILURES,
		      arena_printf(a, "cidr=\"%.*s\",scope=\"%s\"", STR_ARG(c->text), asked ? "static" : "dynamic").p, 1);
}

static struct error *take_ip(struct request *rq, struct core_v1_service *s, struct taken *t, struct str family, struct str want, struct str *got,
			     bool dry_run)
{
	const struct cidr *c = range_of(rq->s->alloc, family);
	struct field_errors fe = {.arena = rq->a};
	struct ranges *r = arena_new(rq->a, struct ranges);
	bool taken = false, fits = !want.n;

	TRY(ranges_of(rq, c, false, r));
	for (size_t i = 0; i < r->n; i++)
		fits |= cidr_holds(&r->v[i], want);
	if (!fits) {
		field_invalid_list(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "clusterIPs"), (const void *)&s->spec.cluster_ips,
				   "failed to allocate IP %.*s: the provided IP (%.*s) is not in the valid range. The range of valid IPs is %.*s",
				   STR_ARG(want), STR_ARG(want), STR_ARG(c->text));
		return invalid(rq, s, &fe);
	}
	if (dry_run) { /* as upstream's: nothing is looked up, the range's own address stands for one of it */
		*got = want.n ? want : nth_ip(rq->a, c, 0);
	} else {
		int64_t since = now_ns();
		struct error *err = want.n ? ip_object(rq, want, s, &taken) : ip_allocate_any(rq, r, s, got);

		metrics_observe(METRIC_IP_TIME, arena_printf(rq->a, "cidr=\"%.*s\"", STR_ARG(c->text)).p, (double)(now_ns() - since) / 1e9);
		count_ip(rq->a, c, want.n > 0, !err && !taken);
		if (err && !error_is(err, 500, NULL)) {
			field_invalid_list(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "clusterIPs"), (const void *)&s->spec.cluster_ips,
					   "failed to allocate IP%s%.*s: %s", want.n ? " " : "", STR_ARG(want), error_message(err));
			error_free(err);
			return invalid(rq, s, &fe);
		}
		TRY(err);
		if (want.n)
			*got = want;
	}
	if (taken) {
		field_invalid_list(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "clusterIPs"), (const void *)&s->spec.cluster_ips,
				   "failed to allocate IP %.*s: provided IP is already allocated", STR_ARG(want));
		return invalid(rq, s, &fe);
	}
	if (!dry_run)
		*arena_push(rq->a, &t->ips) = *got;
	return NULL;
}

/* An address of each family, from `from` on: those asked for, or any. */
static struct error *take_ips(struct request *rq, struct core_v1_service *s, struct taken *t, uint32_t from, bool dry_run)
{
	struct strings ips = {0};

	for (uint32_t i = 0; i < s->spec.cluster_ips.n; i++)
		*arena_push(rq->a, &ips) = s->spec.cluster_ips.v[i];
	for (uint32_t i = from; i < s->spec.ip_families.n; i++) {
		struct str got;

		TRY(take_ip(rq, s, t, s->spec.ip_families.v[i], i < ips.n ? ips.v[i] : STR_NULL, &got, dry_run));
		if (i < ips.n)
			ips.v[i] = got;
		else
			*arena_push(rq->a, &ips) = got;
	}
	memcpy(&s->spec.cluster_ips, &ips, sizeof ips);
	if (from == 0 && ips.n)
		s->spec.cluster_ip = ips.v[0];
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

static void count_port(bool asked, bool given)
{
	metrics_count(given ? METRIC_PORT_ALLOCATIONS : METRIC_PORT_FAILURES, asked ? "scope=\"static\"" : "scope=\"dynamic\"", 1);
}

static struct error *take_port(struct request *rq, struct core_v1_service *s, struct taken *t, const struct field_path *p, int32_t port)
{
	struct alloc *al = rq->s->alloc;
	struct field_errors fe = {.arena = rq->a};

	/* a dry run, as upstream's, looks at what is taken only */
	if (rq->dry_run) {
		t->dry_port = !t->dry_ports || port > t->dry_port ? port : t->dry_port;
		t->dry_ports = true;
	}
	if (rq->dry_run && !port_in_range(al, port))
		return NULL;
	if (!port_in_range(al, port))
		field_invalid_int(&fe, p, port, "provided port is not in the valid range. The range of valid ports is %d-%d", al->port_min, al->port_max);
	else if (port_taken(al, port))
		field_invalid_int(&fe, p, port, "provided port is already allocated");
	if (!rq->dry_run)
		count_port(true, !fe.list.n);
	if (fe.list.n)
		return invalid(rq, s, &fe);
	port_set(al, port, true);
	*arena_push(rq->a, &t->ports) = port;
	return NULL;
}

#define DRY_PORT 32769 /* what a dry run gives first */

static struct error *any_port(struct request *rq, struct taken *t, int32_t *port)
{
	struct error *e;

	if (rq->dry_run) {
		/* upstream does not look for one: the next after those of this request */
		*port = !t->dry_ports ? DRY_PORT : t->dry_port < 0 ? 1 : (int32_t)((uint32_t)t->dry_port + 1);
		t->dry_port = *port;
		t->dry_ports = true;
		return NULL;
	}
	e = port_allocate(rq->s, port);
	count_port(false, !e);
	if (!e)
		*arena_push(rq->a, &t->ports) = *port;
	return e;
}

static bool just_taken(const struct taken *t, int32_t port)
{
	for (uint32_t i = 0; i < t->ports.n; i++)
		if (t->ports.v[i] == port)
			return true;
	return false;
}

/* Node ports of a Service that had none: one number serves a port under several protocols (upstream's initNodePorts). */
static struct error *first_ports(struct request *rq, struct core_v1_service *s, struct taken *t)
{
	const struct field_path *ports = FIELD_CHILD(FIELD_ROOT("spec"), "ports");

	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		struct core_v1_service_port *p = &s->spec.ports.v[i];
		const struct field_path *at = FIELD_CHILD(FIELD_INDEX(ports, i), "nodePort");
		int32_t same = 0, asked = 0;

		if (!p->node_port && !gives_ports(s))
			continue;
		for (uint32_t k = 0; k < i; k++)
			if (s->spec.ports.v[k].port == p->port && !same)
				same = s->spec.ports.v[k].node_port;
		for (uint32_t k = 0; k < s->spec.ports.n && !asked; k++)
			if (s->spec.ports.v[k].port == p->port)
				asked = s->spec.ports.v[k].node_port;
		if (!same && asked) {
			TRY(take_port(rq, s, t, at, asked));
			p->node_port = asked;
		} else if (!same) {
			TRY(any_port(rq, t, &p->node_port));
		} else if (!p->node_port) {
			p->node_port = same;
		} else if (p->node_port != same) {
			TRY(take_port(rq, s, t, at, p->node_port));
		}
	}
	return NULL;
}

static struct error *more_ports(struct request *rq, struct core_v1_service *s, const struct core_v1_service *o, struct taken *t)
{
	const struct field_path *ports = FIELD_CHILD(FIELD_ROOT("spec"), "ports");

	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		struct core_v1_service_port *p = &s->spec.ports.v[i];
		bool had = false;

		if (!p->node_port && !gives_ports(s))
			continue;
		for (uint32_t k = 0; k < o->spec.ports.n; k++)
			had |= o->spec.ports.v[k].node_port == p->node_port;
		if (!p->node_port)
			TRY(any_port(rq, t, &p->node_port));
		else if (!had && !just_taken(t, p->node_port))
			TRY(take_port(rq, s, t, FIELD_CHILD(FIELD_INDEX(ports, i), "nodePort"), p->node_port));
		for (uint32_t k = 0; k < i; k++)
			if (s->spec.ports.v[k].node_port == p->node_port && str_eq(s->spec.ports.v[k].protocol, p->protocol))
				return error_status(500, "", "duplicate nodePort: {%.*s %d}", STR_ARG(p->protocol), p->node_port);
	}
	return NULL;
}

static struct error *take_ports(struct request *rq, struct core_v1_service *s, const struct core_v1_service *o, struct taken *t)
{
	struct error *e;

	if (may_have_ports(s))
		TRY(o ? more_ports(rq, s, o, t) : first_ports(rq, s, t));
	if (!service_needs_health_port(s) || (o && service_needs_health_port(o)))
		return NULL;
	if (!s->spec.health_check_node_port)
		return any_port(rq, t, &s->spec.health_check_node_port);
	e = take_port(rq, s, t, FIELD_ROOT("spec"), s->spec.health_check_node_port);
	if (e) {
		error_free(e);
		return err_internal("failed to allocate requested HealthCheck NodePort %d: %s", s->spec.health_check_node_port,
				    port_in_range(rq->s->alloc, s->spec.health_check_node_port) ?
					    "provided port is already allocated" :
					    arena_printf(rq->a, "provided port is not in the valid range. The range of valid ports is %d-%d",
							 rq->s->alloc->port_min, rq->s->alloc->port_max).p);
	}
	return NULL;
}

static struct error *release_ports(struct request *rq, const int32_t *ports, uint32_t n)
{
	struct alloc *al = rq->s->alloc;
	bool ok = false;
	struct error *e = fiber_mutex_lock(&al->lock);

	if (e)
		return e;
	for (int i = 0; i < PORTS_TRIES && !e && !ok; i++) {
		e = ports_load(rq->s, rq->a);
		for (uint32_t k = 0; k < n; k++)
			port_set(al, ports[k], false);
		if (!e)
			e = ports_save(rq->s, rq->a, &ok);
	}
	fiber_mutex_unlock(&al->lock);
	return e; /* what stays taken is found by the next repair */
}

static void give_back(struct request *rq, const struct core_v1_service *s, struct taken *t)
{
	for (uint32_t i = 0; i < t->ips.n; i++)
		ip_release(rq, t->ips.v[i], s);
	if (t->saved)
		log_and_free(release_ports(rq, t->ports.v, t->ports.n), "releasing node ports");
}

/* Takes the ports and has them in the store; anew when another server was faster. */
static struct error *hold_ports(struct request *rq, struct core_v1_service *s, const struct core_v1_service *o, struct taken *t, bool dry_run)
{
	struct alloc *al = rq->s->alloc;
	int32_t *asked = arena_alloc(rq->a, (s->spec.ports.n + 1) * sizeof *asked);
	struct error *e = fiber_mutex_lock(&al->lock);

	if (e)
		return e;
	for (uint32_t i = 0; i < s->spec.ports.n; i++)
		asked[i] = s->spec.ports.v[i].node_port;
	asked[s->spec.ports.n] = s->spec.health_check_node_port;
	for (int i = 0; i < PORTS_TRIES; i++) {
		e = ports_load(rq->s, rq->a);
		if (!e)
			e = take_ports(rq, s, o, t);
		if (e || dry_run || !t->ports.n)
			break;
		e = ports_save(rq->s, rq->a, &t->saved);
		if (e || t->saved)
			break;
		for (uint32_t k = 0; k < s->spec.ports.n; k++)
			s->spec.ports.v[k].node_port = asked[k];
		s->spec.health_check_node_port = asked[s->spec.ports.n];
		t->ports.n = 0;
		e = err_internal("failed to allocate a nodePort: other servers were faster");
		if (i + 1 < PORTS_TRIES) {
			error_free(e);
			e = NULL;
		}
	}
	fiber_mutex_unlock(&al->lock);
	return e;
}

struct error *service_begin_write(struct request *rq, void *obj, const void *old, bool dry_run, void **state)
{
	struct core_v1_service *s = obj;
	const struct core_v1_service *o = old;
	struct taken *t = arena_new(rq->a, struct taken);
	struct error *e = NULL;

	*state = t;
	e = init_families(rq, s, o);
	if (!e && needs_ip(s)) {
		if ((!o || !needs_ip(o)) && !headless(s))
			e = take_ips(rq, s, t, 0, dry_run);
		else if (o && needs_ip(o) && !headless(o) && o->spec.ip_families.n == 1 && s->spec.ip_families.n == 2)
			e = take_ips(rq, s, t, 1, dry_run); /* single to dual stack: the second address */
	}
	if (!e && (may_have_ports(s) || service_needs_health_port(s)))
		e = hold_ports(rq, s, o, t, dry_run);
	if (e || dry_run) {
		give_back(rq, s, t);
		memset(t, 0, sizeof *t);
	}
	if (!e && o)
		drop_type_fields(s, o);
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
	LIST(int32_t) gone = {0};

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
		if (o->spec.ports.v[i].node_port && !had_port(s, o->spec.ports.v[i].node_port))
			*arena_push(rq->a, &gone) = o->spec.ports.v[i].node_port;
	if (o->spec.health_check_node_port && !had_port(s, o->spec.health_check_node_port))
		*arena_push(rq->a, &gone) = o->spec.health_check_node_port;
	if (gone.n)
		log_and_free(release_ports(rq, gone.v, gone.n), "releasing node ports");
}



void alloc_collect(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	const struct alloc *al = s->alloc;
	const struct cache_entry *e;
	double taken[2] = {0}, ports = 0;
	struct cache_snap *snap;
	struct cache_iter it;

	struct error *err = cache_snapshot(al->ips->cache, CACHE_ANY, 0, &snap);

	if (!err) {
		cache_iter_init(&it, al->ips->cache, snap, STR_NULL, STR_NULL, NULL);
		while ((e = cache_iter_next(&it)) != NULL)
			for (size_t i = 0; i < al->n; i++)
				taken[i] += cidr_holds(&al->cidrs[i], cache_entry_name(e));
		cache_snap_free(snap);
	}
	log_and_free(err, "counting addresses");
	for (size_t i = 0; i < al->n; i++) {
		const char *label = arena_printf(&a, "cidr=\"%.*s\"", STR_ARG(al->cidrs[i].text)).p;

		metrics_set(METRIC_IPS_ALLOCATED, label, taken[i]);
		metrics_set(METRIC_IPS_AVAILABLE, label, (double)al->cidrs[i].size - taken[i]);
	}
	for (int p = al->port_min; p <= al->port_max; p++)
		ports += port_taken(al, p);
	metrics_set(METRIC_PORTS_ALLOCATED, "", ports);
	metrics_set(METRIC_PORTS_AVAILABLE, "", al->port_max - al->port_min + 1 - ports);
}

struct error *alloc_init(struct apiserver *s)
{
	struct alloc *al = arena_new(&s->arena, struct alloc);
	struct str rest = str_from(s->o.service_cidr ? s->o.service_cidr : "10.0.0.0/24"), ports;
	int64_t lo, hi;

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
	al->leaks = arena_alloc(&s->arena, (size_t)(hi - lo) + 1);
	al->services = storage_find(s, STR(""), STR("services"));
	al->ips = storage_find(s, STR("networking.k8s.io"), STR("ipaddresses"));
	al->ip_res = resource_any(s, STR("networking.k8s.io"), STR("ipaddresses"));
	return NULL;
}
