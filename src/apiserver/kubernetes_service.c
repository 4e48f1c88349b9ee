/* The Service "kubernetes" in namespace default and its endpoints: the addresses of all API servers of the cluster. */
#include <stdlib.h>
#include "apiserver/alloc.h"
#include "apiserver/background.h"
#include "apiserver/bootstrap.h"
#include "apiserver/encrypt.h"
#include "schema/codec.h"

#define ROUND_MS 10000        /* upstream's, as the next */
#define ADDRESS_TTL_MS 15000  /* a server that says nothing for so long is gone */
#define LEAVE_MS 20000        /* most time that taking this server's address out may hold up its end */

/* Addresses of servers stand under "masterleases/" in a store that several share (upstream's keys); by which lease ours does. */
static int64_t address_lease;

struct servers {
	struct apiserver *s;
	struct str *ips; /* in order of their text */
	size_t n;
	bool ports; /* puts the ports right as well */
	bool leaving;
};

static bool by_count(const struct apiserver *s)
{
	return !strcmp(s->o.endpoint_reconciler, "master-count");
}

static bool shared_store(const struct apiserver *s)
{
	return s->o.etcd_servers != NULL;
}

static struct str address_key(struct apiserver *s, struct arena *a, const char *ip)
{
	return arena_printf(a, "%s/masterleases/%s", s->o.etcd_prefix, ip);
}

/* ---- the addresses ---- */

struct reading {
	struct arena *a;
	size_t prefix;
	LIST(struct str) ips;
};

static bool take_address(void *ctx, struct store_kv *kv)
{
	struct reading *r = ctx;

	*arena_push(r->a, &r->ips) = arena_str(r->a, str_sub(kv->key, r->prefix, kv->key.n));
	return true;
}

static struct error *read_addresses(struct apiserver *s, struct arena *a, struct reading *r)
{
	struct str prefix = address_key(s, a, ""), end = arena_str(a, prefix);
	int64_t rev = 0;

	((char *)end.p)[end.n - 1]++;
	*r = (struct reading){.a = a, .prefix = prefix.n};
	return store_range(s->store, prefix, end, &rev, 0, take_address, r);
}

static bool listed(const struct str *ips, size_t n, struct str ip)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(ips[i], ip))
			return true;
	return false;
}

struct error *address_renew(struct apiserver *s, int64_t *lease)
{
	struct error *e = *lease ? store_lease_keepalive(s->store, *lease) : NULL;

	if (error_is(e, 404, NULL)) {
		error_clear(&e);
		*lease = 0;
	}
	return e;
}

struct error *address_write(struct apiserver *s, struct str key, struct core_v1_endpoints *ep, int64_t *lease)
{
	struct storage *st = storage_find(s, STR(""), STR("endpoints"));
	struct buf plain buf_cleanup = {0}, sealed buf_cleanup = {0};
	struct store_kv now = {0};
	int64_t rev, granted;
	bool ok;

	ep->metadata.generation = 1;
	ep->kind = st->kind;
	ep->api_version = st->api_version;
	object_encode(&plain, st->media, st->type, ep);
	if (st->encryption)
		TRY(encryption_seal(st->encryption, key, buf_view(&plain), &sealed));
	TRY(store_lease_grant(s->store, ADDRESS_TTL_MS, &granted));
	TRY(store_put(s->store, key, buf_view(st->encryption ? &sealed : &plain), STORE_ANY, granted, 0, NULL, &ok, &rev, &now));
	*lease = granted;
	return NULL;
}

/* An Endpoints with nothing but the address, for upstream's servers on the same store. */
static struct error *write_address(struct apiserver *s, struct arena *a)
{
	struct core_v1_endpoints *ep = arena_new(a, struct core_v1_endpoints);
	struct core_v1_endpoint_subset *ss = arena_push(a, &ep->subsets);

	arena_push(a, &ss->addresses)->ip = str_from(s->o.advertise_address);
	return address_write(s, address_key(s, a, s->o.advertise_address), ep, &address_lease);
}

/* Keeps this server's address in the store, and reads all of them. */
static struct error *share_address(struct apiserver *s, struct arena *a, struct servers *out)
{
	struct str own = str_from(s->o.advertise_address);
	struct reading r;

	TRY(address_renew(s, &address_lease));
	TRY(read_addresses(s, a, &r));
	if (!address_lease || !listed(r.ips.v, r.ips.n, own)) {
		TRY(write_address(s, a));
		TRY(read_addresses(s, a, &r));
	}
	out->ips = r.ips.v;
	out->n = r.ips.n;
	return NULL;
}

static struct error *take_address_out(struct apiserver *s, struct arena *a, struct servers *out)
{
	struct store_kv now = {0};
	struct reading r;
	int64_t rev;
	bool ok;

	TRY(store_delete(s->store, address_key(s, a, s->o.advertise_address), STORE_ANY, &ok, &rev, &now));
	address_lease = 0;
	TRY(read_addresses(s, a, &r));
	out->ips = r.ips.v;
	out->n = r.ips.n;
	return NULL;
}

/* ---- Endpoints ---- */

static int by_text(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static void put_ports(struct arena *a, struct core_v1_endpoint_subset *ss, int port)
{
	struct core_v1_endpoint_port *p;

	ss->ports.n = 0;
	p = arena_push(a, &ss->ports);
	*p = (struct core_v1_endpoint_port){.name = STR("https"), .port = port, .protocol = STR("TCP")};
}

static bool right_ports(const struct core_v1_endpoint_subset *ss, int port)
{
	const struct core_v1_endpoint_port *p = ss->ports.v;

	return ss->ports.n == 1 && str_eqz(p->name, "https") && p->port == port && str_eqz(p->protocol, "TCP") && !p->app_protocol;
}

static bool same_addresses(const struct core_v1_endpoint_subset *ss, const struct str *ips, size_t n)
{
	if (ss->addresses.n != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!listed(ips, n, ss->addresses.v[i].ip))
			return false;
	return true;
}

/*
 * Which addresses there are to be, by --apiserver-count: ours beside those that are there; when that makes too many, those go that come
 * after ours in order, so that in the end as many are left as there are servers.
 */
static void count_addresses(struct arena *a, struct servers *want, const struct core_v1_endpoints *old)
{
	struct str own = str_from(want->s->o.advertise_address);
	size_t most = (size_t)want->s->o.apiserver_count, at = 0;
	const struct core_v1_endpoint_subset *ss = old && old->subsets.n ? &old->subsets.v[0] : NULL;

	want->ips = arena_array(a, struct str, (ss ? ss->addresses.n : 0) + 1);
	want->n = 0;
	for (uint32_t i = 0; ss && (old->subsets.n == 1 || want->leaving) && i < ss->addresses.n; i++)
		if (!str_eq(ss->addresses.v[i].ip, own))
			want->ips[want->n++] = ss->addresses.v[i].ip;
	if (want->leaving)
		return;
	want->ips[want->n++] = own;
	qsort(want->ips, want->n, sizeof *want->ips, by_text);
	while (!str_eq(want->ips[at], own))
		at++;
	while (want->n > most) {
		size_t gone = (at + 1) % want->n;

		memmove(want->ips + gone, want->ips + gone + 1, (want->n - gone - 1) * sizeof *want->ips);
		want->n--;
		at -= gone < at;
	}
}

static struct error *make_endpoints(void *ctx, struct request *rq, const void *old, void **out)
{
	struct servers *want = ctx;
	struct core_v1_endpoints *ep = arena_new(rq->a, struct core_v1_endpoints);
	struct core_v1_endpoint_subset *ss;

	*out = ep;
	if (old)
		object_copy(rq->a, &core_v1_endpoints_type, old, ep);
	ep->metadata.resource_version = STR_NULL;
	ep->metadata.name = STR("kubernetes");
	ep->metadata.namespace = STR("default");
	str_map_set(rq->a, API_MAP(&ep->metadata.labels), STR("endpointslice.kubernetes.io/skip-mirror"), STR("true"));
	if (by_count(want->s))
		count_addresses(rq->a, want, old);
	if (!want->n) {
		ep->subsets.n = 0;
		return NULL;
	}
	if (ep->subsets.n != 1) {
		ep->subsets.n = 0;
		ss = arena_push(rq->a, &ep->subsets);
		*ss = (struct core_v1_endpoint_subset){0};
		put_ports(rq->a, ss, want->s->port);
	}
	ss = &ep->subsets.v[0];
	if (!same_addresses(ss, want->ips, want->n)) {
		ss->addresses.n = 0;
		for (size_t i = 0; i < want->n; i++)
			*arena_push(rq->a, &ss->addresses) = (struct core_v1_endpoint_address){.ip = want->ips[i]};
	}
	if (want->ports && !right_ports(ss, want->s->port))
		put_ports(rq->a, ss, want->s->port);
	return NULL;
}

/* ---- the EndpointSlice that says the same ---- */

static bool is_ipv6(struct str ip)
{
	return str_index(ip, ':') >= 0;
}

static void put_slice_endpoints(struct arena *a, struct discovery_v1_endpoint_slice *sl, const struct core_v1_endpoint_address *v, uint32_t n,
				bool ready)
{
	for (uint32_t i = 0; i < n; i++) {
		struct discovery_v1_endpoint *e;

		if (is_ipv6(v[i].ip) != str_eqz(sl->address_type, "IPv6"))
			continue;
		e = arena_push(a, &sl->endpoints);
		*e = (struct discovery_v1_endpoint){.target_ref = v[i].target_ref, .node_name = v[i].node_name};
		*arena_push(a, &e->addresses) = v[i].ip;
		e->conditions.ready = arena_new(a, bool);
		*e->conditions.ready = ready;
	}
}

static struct discovery_v1_endpoint_slice *slice_of(struct arena *a, const struct core_v1_endpoints *ep)
{
	struct discovery_v1_endpoint_slice *sl = arena_new(a, struct discovery_v1_endpoint_slice);
	const struct core_v1_endpoint_subset *ss = ep->subsets.n ? &ep->subsets.v[0] : NULL;
	bool v6 = ss && ss->addresses.n + ss->not_ready_addresses.n;

	sl->metadata.name = STR("kubernetes");
	sl->metadata.namespace = STR("default");
	str_map_set(a, API_MAP(&sl->metadata.labels), STR("kubernetes.io/service-name"), STR("kubernetes"));
	for (uint32_t i = 0; ss && i < ss->addresses.n; i++)
		v6 &= is_ipv6(ss->addresses.v[i].ip);
	for (uint32_t i = 0; ss && i < ss->not_ready_addresses.n; i++)
		v6 &= is_ipv6(ss->not_ready_addresses.v[i].ip);
	sl->address_type = v6 ? STR("IPv6") : STR("IPv4");
	if (!ss)
		return sl;
	for (uint32_t i = 0; i < ss->ports.n; i++) {
		struct discovery_v1_endpoint_port *p = arena_push(a, &sl->ports);

		*p = (struct discovery_v1_endpoint_port){0};
		p->name = arena_new(a, struct str);
		*p->name = ss->ports.v[i].name;
		p->port = arena_new(a, int32_t);
		*p->port = ss->ports.v[i].port;
		p->protocol = arena_new(a, struct str);
		*p->protocol = ss->ports.v[i].protocol;
	}
	put_slice_endpoints(a, sl, ss->addresses.v, ss->addresses.n, true);
	put_slice_endpoints(a, sl, ss->not_ready_addresses.v, ss->not_ready_addresses.n, false);
	return sl;
}

static struct error *make_slice(void *ctx, struct request *rq, const void *old, void **out)
{
	const struct discovery_v1_endpoint_slice *want = ctx;
	struct discovery_v1_endpoint_slice *sl = arena_new(rq->a, struct discovery_v1_endpoint_slice);

	object_copy(rq->a, &discovery_v1_endpoint_slice_type, old ? old : ctx, sl);
	sl->metadata.resource_version = STR_NULL;
	memcpy(&sl->metadata.labels, &want->metadata.labels, sizeof sl->metadata.labels);
	memcpy(&sl->endpoints, &want->endpoints, sizeof sl->endpoints);
	memcpy(&sl->ports, &want->ports, sizeof sl->ports);
	*out = sl;
	return NULL;
}

static struct error *write(struct apiserver *s, struct arena *a, const char *group, const char *plural, struct update u, void **obj)
{
	struct resource *res = resource_any(s, str_from(group), str_from(plural));
	struct request rq;
	struct write_result r;

	request_internal(&rq, s, a, res, STR("default"));
	rq.nosync = true;
	u.retry = true;
	u.flags = UPDATE_CREATE | UPDATE_UNCONDITIONAL;
	TRY(registry_update(&rq, STR("default"), STR("kubernetes"), &u, &r));
	*obj = r.obj;
	if (r.entry)
		cache_entry_unref(r.entry);
	return NULL;
}

static struct error *mirror(struct apiserver *s, struct arena *a, const struct core_v1_endpoints *ep)
{
	struct discovery_v1_endpoint_slice *want = slice_of(a, ep), *now;
	struct resource *res = resource_any(s, STR("discovery.k8s.io"), STR("endpointslices"));
	void *obj;

	now = registry_peek(s, a, res->st, STR("default"), STR("kubernetes"));
	if (now && !str_eq(now->address_type, want->address_type)) { /* which cannot be changed */
		struct meta_v1_delete_options o = {0};
		struct request rq;
		struct write_result r;

		request_internal(&rq, s, a, res, STR("default"));
		rq.nosync = true;
		TRY(registry_delete(&rq, STR("default"), STR("kubernetes"), &o, &r));
		if (r.entry)
			cache_entry_unref(r.entry);
	}
	return write(s, a, "discovery.k8s.io", "endpointslices", (struct update){.make = make_slice, .ctx = want}, &obj);
}

/* ---- the Service ---- */

static struct error *ensure_service(struct apiserver *s, struct arena *a)
{
	struct core_v1_service *svc = arena_new(a, struct core_v1_service);
	struct core_v1_service_port *p;
	bool existed;

	svc->metadata.name = STR("kubernetes");
	svc->metadata.namespace = STR("default");
	str_map_set(a, API_MAP(&svc->metadata.labels), STR("component"), STR("apiserver"));
	str_map_set(a, API_MAP(&svc->metadata.labels), STR("provider"), STR("kubernetes"));
	svc->spec.type = s->o.kubernetes_node_port ? STR("NodePort") : STR("ClusterIP");
	svc->spec.cluster_ip = alloc_first_ip(s, a);
	*arena_push(a, &svc->spec.cluster_ips) = svc->spec.cluster_ip;
	svc->spec.session_affinity = STR("None");
	p = arena_push(a, &svc->spec.ports);
	p->name = STR("https");
	p->protocol = STR("TCP");
	p->port = 443;
	p->target_port.i = s->port;
	p->node_port = s->o.kubernetes_node_port;
	return bootstrap_ensure(s, a, "", "services", STR("default"), svc, &existed);
}

static struct error *reconcile(struct servers *want)
{
	struct arena a arena_cleanup = {0};
	struct apiserver *s = want->s;
	struct str own = str_from(s->o.advertise_address);
	struct update u = {.make = make_endpoints, .ctx = want};
	void *ep;

	if (!strcmp(s->o.endpoint_reconciler, "none"))
		return NULL;
	if (!by_count(s) && shared_store(s)) {
		TRY(want->leaving ? take_address_out(s, &a, want) : share_address(s, &a, want));
		if (!want->leaving && !want->n)
			return error_new("no addresses of API servers are in the store: the endpoints of Service kubernetes stay as they are");
	} else if (!want->leaving) {
		want->ips = &own;
		want->n = 1;
	}
	TRY(write(s, &a, "", "endpoints", u, &ep));
	return mirror(s, &a, ep);
}

struct error *kubernetes_service(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	struct servers want = {.s = s, .ports = true};

	TRY(ensure_service(s, &a));
	return reconcile(&want);
}

static void follow(void *arg)
{
	struct apiserver *s = arg;
	struct error *e;

	while (!(e = fiber_sleep(ROUND_MS)) && !s->stopping) {
		struct arena a arena_cleanup = {0};
		struct servers want = {.s = s};

		e = ensure_service(s, &a);
		if (!e)
			e = reconcile(&want);
		if (error_is_sys(e, ECANCELED))
			break;
		log_and_free(e, "the endpoints of Service kubernetes");
	}
	error_free(e);
}

void kubernetes_service_start(struct apiserver *s)
{
	background_start(s, "kubernetes-service", follow, s);
}

void kubernetes_service_leave(struct apiserver *s)
{
	struct servers want = {.s = s, .ports = true, .leaving = true};
	int64_t token;

	if (!shared_store(s)) /* nobody is left who could read it */
		return;
	token = deadline_push(LEAVE_MS);
	log_and_free(reconcile(&want), "taking this server out of the endpoints of Service kubernetes");
	deadline_pop(token);
}
