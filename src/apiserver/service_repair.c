/* What addresses and node ports say of Services, and Services of them: put right, with an event of what was wrong. */
#include "apiserver/alloc_internal.h"
#include "apiserver/background.h"
#include "apiserver/metrics.h"

#define ROUND_MS (180 * 1000)
#define LEAK_S 60                /* as long as a request may last: the Service of a new address may not be written yet */
#define UNDONE_S 5               /* a create of a Service that was there already is taken back within that */
#define LEAK_ROUNDS 2            /* repairs that leave a port taken that nobody has */
#define RETRY_MS 1000

#define IP_REPAIR "ipallocator-repair-controller"
#define PORT_REPAIR "portallocator-repair-controller"

/* ---- events ---- */

struct about {
	const char *kind, *api_version;
	const struct meta_v1_object_meta *meta;
};

/* Counted as upstream names what is wrong. */
static void count(const char *who, const char *reason)
{
	static const struct {
		const char *reason, *type;
	} types[] = {
		{"ClusterIPNotValid", "type=\"invalid\""},	     {"ClusterIPOutOfRange", "type=\"outOfRange\""},
		{"ClusterIPNotAllocated", "type=\"repair\""},	     {"ClusterIPAlreadyAllocated", "type=\"duplicate\""},
		{"IPAddressNotAllocated", "type=\"leak\""},	     {"IPAddressWrongReference", "type=\"leak\""},
		{"PortOutOfRange", "type=\"outOfRange\""},	     {"PortAlreadyAllocated", "type=\"duplicate\""},
		{"PortNotAllocated", "type=\"repair\""},
	};

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (!strcmp(types[i].reason, reason))
			metrics_count(!strcmp(who, IP_REPAIR) ? METRIC_IP_REPAIR_ERRORS : METRIC_PORT_REPAIR_ERRORS, types[i].type, 1);
}

static void tell(struct apiserver *s, struct arena *a, struct about o, const char *who, const char *reason, const char *action, struct str note)
{
	struct core_v1_event *ev = arena_new(a, struct core_v1_event);
	struct str ns = o.meta->namespace.n ? o.meta->namespace : STR("default");
	struct request rq;
	struct write_result r;
	struct error *e;

	log_warn("%.*s", STR_ARG(note));
	count(who, reason);
	ev->kind = STR("Event");
	ev->api_version = STR("v1");
	ev->metadata.name = arena_printf(a, "%.*s.%llx", STR_ARG(o.meta->name), (unsigned long long)wall_ns());
	ev->metadata.namespace = ns;
	ev->event_time = time_now_micro();
	ev->reporting_component = str_from(who);
	ev->reporting_instance = arena_printf(a, "%s-skiff", who);
	ev->action = str_from(action);
	ev->reason = str_from(reason);
	ev->type = STR("Warning");
	ev->message = note;
	ev->involved_object.kind = str_from(o.kind);
	ev->involved_object.api_version = str_from(o.api_version);
	ev->involved_object.namespace = o.meta->namespace;
	ev->involved_object.name = o.meta->name;
	ev->involved_object.uid = o.meta->uid;
	ev->involved_object.resource_version = o.meta->resource_version;
	request_internal(&rq, s, a, resource_any(s, STR("events.k8s.io"), STR("events")), ns);
	rq.nosync = true;
	e = registry_create(&rq, ev, &r);
	if (!e)
		cache_entry_unref(r.entry);
	log_and_free(e, "event");
}

static struct about about_service(const struct core_v1_service *s)
{
	return (struct about){"Service", "v1", &s->metadata};
}

static struct about about_ip(const struct networking_v1_ip_address *ip)
{
	return (struct about){"IPAddress", "networking.k8s.io/v1", &ip->metadata};
}

/* ---- addresses ---- */

static bool has_address(const struct core_v1_service *s, struct str ip)
{
	for (uint32_t i = 0; i < s->spec.cluster_ips.n; i++)
		if (str_eq(s->spec.cluster_ips.v[i], ip))
			return true;
	return false;
}

static struct error *remove_ip(struct request *rq, struct str ip)
{
	struct request in;
	struct meta_v1_delete_options o = {0};
	struct write_result r;
	struct error *e;

	request_internal(&in, rq->s, rq->a, rq->s->alloc->ip_res, STR_NULL);
	e = registry_delete(&in, STR_NULL, ip, &o, &r);
	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static struct error *make_ip(struct request *rq, struct str ip, const struct core_v1_service *svc, bool anew)
{
	bool taken;

	if (anew)
		TRY(remove_ip(rq, ip));
	return ip_object(rq, ip, svc, &taken);
}

static bool labelled(const struct networking_v1_ip_address *ip)
{
	const struct str_map *l = API_MAP(&ip->metadata.labels);

	return str_eqz(str_map_get(l, STR("ipaddress.kubernetes.io/managed-by")), "ipallocator.k8s.io") &&
	       str_eqz(str_map_get(l, STR("ipaddress.kubernetes.io/ip-family")), ip_family(ip->metadata.name) == 6 ? "IPv6" : "IPv4");
}

static bool of_a_service(const struct networking_v1_ip_address *ip)
{
	const struct networking_v1_parent_reference *p = ip->spec.parent_ref;

	return p && !p->group.n && str_eqz(p->resource, "services");
}

/* The IPAddress as it is by now, also where this server's cache is behind; NULL: none. */
static struct error *read_ip(struct request *rq, struct str ip, struct networking_v1_ip_address **out)
{
	struct cache_entry *en = NULL;
	struct error *e = NULL;

	*out = registry_peek(rq->s, rq->a, rq->s->alloc->ips, STR_NULL, ip);
	if (*out)
		return NULL;
	TRY(cache_get(rq->s->alloc->ips->cache, STR_NULL, ip, CACHE_CONSISTENT, 0, &en));
	if (!en)
		return NULL;
	*out = arena_new(rq->a, struct networking_v1_ip_address);
	e = cache_entry_decode(rq->a, &networking_v1_ip_address_type, en, false, *out);
	cache_entry_unref(en);
	return e;
}

static struct error *sync_address(struct request *rq, const struct core_v1_service *svc, struct str ip)
{
	const char *family = ip_family(ip) == 6 ? "IPv6" : "IPv4", action[] = "ClusterIPAllocation";
	struct networking_v1_ip_address *a;
	const struct core_v1_service *other;
	bool in;

	if (!ip_family(ip)) {
		tell(rq->s, rq->a, about_service(svc), IP_REPAIR, "ClusterIPNotValid", "ClusterIPValidation",
		     arena_printf(rq->a, "Cluster IP %.*s is not a valid IP; please recreate Service", STR_ARG(ip)));
		return NULL;
	}
	TRY(ip_in_ranges(rq, ip, &in));
	if (!in) {
		tell(rq->s, rq->a, about_service(svc), IP_REPAIR, "ClusterIPOutOfRange", action,
		     arena_printf(rq->a, "Cluster IP [%s]: %.*s is not within any configured Service CIDR; please recreate service", family, STR_ARG(ip)));
		return NULL;
	}
	TRY(read_ip(rq, ip, &a));
	if (!a) {
		tell(rq->s, rq->a, about_service(svc), IP_REPAIR, "ClusterIPNotAllocated", action,
		     arena_printf(rq->a, "Cluster IP [%s]: %.*s is not allocated; repairing", family, STR_ARG(ip)));
		return make_ip(rq, ip, svc, false);
	}
	other = of_a_service(a) ? registry_peek(rq->s, rq->a, rq->s->alloc->services, a->spec.parent_ref->namespace, a->spec.parent_ref->name) : NULL;
	if (!other) {
		tell(rq->s, rq->a, about_service(svc), IP_REPAIR, "ClusterIPNotAllocated", action,
		     arena_printf(rq->a, "the ClusterIP [%s]: %.*s for Service %.*s/%.*s has a wrong reference; repairing", family, STR_ARG(ip),
				  STR_ARG(svc->metadata.namespace), STR_ARG(svc->metadata.name)));
		return make_ip(rq, ip, svc, true);
	}
	if ((!str_eq(other->metadata.namespace, svc->metadata.namespace) || !str_eq(other->metadata.name, svc->metadata.name)) && has_address(other, ip))
		tell(rq->s, rq->a, about_service(svc), IP_REPAIR, "ClusterIPAlreadyAllocated", action,
		     arena_printf(rq->a, "Cluster IP [%s]:%.*s was assigned to multiple services; please recreate service", family, STR_ARG(ip)));
	return labelled(a) ? NULL : make_ip(rq, ip, svc, true);
}

static struct error *sync_service(struct request *rq, const struct cache_entry *en, int64_t *due_ms)
{
	struct core_v1_service *svc = arena_new(rq->a, struct core_v1_service);

	(void)due_ms;
	TRY(cache_entry_decode(rq->a, &core_v1_service_type, en, true, svc));
	if (!svc->spec.cluster_ip.n || service_headless(svc))
		return NULL;
	/* what the cache says of it may be older than the Service that is being written */
	if (!cache_peek(rq->s->alloc->services->cache, svc->metadata.namespace, svc->metadata.name))
		return NULL;
	for (uint32_t i = 0; i < svc->spec.cluster_ips.n; i++)
		TRY(sync_address(rq, svc, svc->spec.cluster_ips.v[i]));
	return NULL;
}

/* *due_ms: to be looked at again then. */
static struct error *sync_ip(struct request *rq, const struct cache_entry *en, int64_t *due_ms)
{
	struct networking_v1_ip_address *ip = arena_new(rq->a, struct networking_v1_ip_address);
	const struct core_v1_service *svc;
	int64_t age, wait = 0;

	TRY(cache_entry_decode(rq->a, &networking_v1_ip_address_type, en, true, ip));
	if (!str_eqz(str_map_get(API_MAP(&ip->metadata.labels), STR("ipaddress.kubernetes.io/managed-by")), "ipallocator.k8s.io"))
		return NULL;
	if (!of_a_service(ip)) {
		tell(rq->s, rq->a, about_ip(ip), IP_REPAIR, "IPAddressNotAllocated", "IPAddressAllocation",
		     arena_printf(rq->a, "IPAddress %.*s appears to have been modified, not referencing a Service: cleaning up",
				  STR_ARG(ip->metadata.name)));
		return remove_ip(rq, ip->metadata.name);
	}
	age = time_now().s - ip->metadata.creation_timestamp.s;
	svc = registry_peek(rq->s, rq->a, rq->s->alloc->services, ip->spec.parent_ref->namespace, ip->spec.parent_ref->name);
	if (svc && has_address(svc, ip->metadata.name))
		return NULL;
	if (!svc || service_is(svc, "ExternalName"))
		wait = LEAK_S + 1 - age;
	else if (ip->metadata.creation_timestamp.s > svc->metadata.creation_timestamp.s)
		wait = UNDONE_S - age;
	if (wait > 0) {
		*due_ms = wall_ns() / 1000000 + wait * 1000;
		return NULL;
	}
	if (!svc)
		tell(rq->s, rq->a, about_ip(ip), IP_REPAIR, "IPAddressNotAllocated", "IPAddressAllocation",
		     arena_printf(rq->a, "IPAddress: %.*s for Service %.*s/%.*s appears to have leaked: cleaning up", STR_ARG(ip->metadata.name),
				  STR_ARG(ip->spec.parent_ref->namespace), STR_ARG(ip->spec.parent_ref->name)));
	else
		tell(rq->s, rq->a, about_ip(ip), IP_REPAIR, "IPAddressWrongReference", "IPAddressAllocation",
		     arena_printf(rq->a, "IPAddress: %.*s for Service %.*s/%.*s has a wrong reference; cleaning up", STR_ARG(ip->metadata.name),
				  STR_ARG(svc->metadata.namespace), STR_ARG(svc->metadata.name)));
	return remove_ip(rq, ip->metadata.name);
}

/* ---- following ---- */

struct follow {
	struct apiserver *s;
	struct cache *cache;
	struct error *(*sync)(struct request *rq, const struct cache_entry *en, int64_t *due_ms);
	const char *what;
	int64_t end_ms; /* of this round */
};

/* One reading of all and what changes behind it, until the round's end, which comes earlier when something is to be looked at again. */
static struct error *follow_round(struct follow *f)
{
	struct cache_watch_opts o = {.initial = true, .mode = CACHE_ANY};
	struct cache_event ev;

	f->end_ms = wall_ns() / 1000000 + ROUND_MS;
	for (;;) {
		int64_t left = f->end_ms - wall_ns() / 1000000, until = f->end_ms, last = 0;
		struct cache_watch *w;
		struct error *e;

		o.timeout_ms = left > 0 ? left : 1;
		TRY(cache_watch_open(f->cache, &o, &w));
		while (!(e = cache_watch_next(w, &ev))) {
			struct arena a arena_cleanup = {0};
			struct request rq;
			int64_t due = INT64_MAX;

			last = ev.rev;
			if (!ev.obj || ev.type == CACHE_DELETED)
				continue;
			request_internal(&rq, f->s, &a, f->s->alloc->ip_res, STR_NULL);
			e = f->sync(&rq, ev.obj, &due);
			if (error_is_sys(e, ECANCELED))
				break;
			if (e)
				metrics_count(METRIC_IP_REPAIR_FAILURES, "", 1);
			log_and_free(e, "%s", f->what);
			e = NULL;
			f->end_ms = due < f->end_ms ? due : f->end_ms;
			if (f->end_ms < until && !cache_watch_ready(w))
				break;
		}
		cache_watch_close(w);
		if (error_is_sys(e, ETIMEDOUT)) {
			error_free(e);
			return NULL;
		}
		if (e)
			return e;
		o.initial = false; /* on from here, to an earlier end */
		o.rev = last;
	}
}

static void follow_all(void *arg)
{
	struct follow *f = arg;
	struct error *e;

	do {
		e = follow_round(f);
		if (e && !error_is_sys(e, ECANCELED)) { /* too slow, or the cache had to read anew */
			error_free(e);
			e = fiber_sleep(RETRY_MS);
		}
	} while (!e);
	error_free(e);
}

/* ---- node ports ---- */

struct port_use {
	int32_t port;
	struct str protocol;
};

/* Each port once for all of its protocols, and once more for each time that a protocol repeats it. */
static void ports_of(struct arena *a, const struct core_v1_service *s, int32_t **out, uint32_t *n)
{
	LIST(int32_t) ports = {0};
	uint32_t total = s->spec.ports.n + (s->spec.health_check_node_port != 0);
	struct port_use *use = arena_alloc(a, (total + 1) * sizeof *use);

	for (uint32_t i = 0; i < total; i++) {
		bool seen = false, same = false;

		use[i] = i < s->spec.ports.n ? (struct port_use){s->spec.ports.v[i].node_port, s->spec.ports.v[i].protocol} :
					       (struct port_use){s->spec.health_check_node_port, STR("TCP")};
		for (uint32_t k = 0; k < i; k++) {
			seen |= use[k].port == use[i].port;
			same |= use[k].port == use[i].port && str_eq(use[k].protocol, use[i].protocol);
		}
		if (use[i].port && (!seen || same))
			*arena_push(a, &ports) = use[i].port;
	}
	*out = ports.v;
	*n = ports.n;
}

static void count_port(struct apiserver *s, struct arena *a, const struct core_v1_service *svc, int32_t port, unsigned char *rebuilt)
{
	struct alloc *al = s->alloc;
	int i = port - al->port_min;

	if (!port_in_range(al, port)) {
		tell(s, a, about_service(svc), PORT_REPAIR, "PortOutOfRange", "PortAllocation",
		     arena_printf(a, "Port %d is not within the port range %d-%d; please recreate service", port, al->port_min, al->port_max));
		return;
	}
	if (rebuilt[i]) {
		tell(s, a, about_service(svc), PORT_REPAIR, "PortAlreadyAllocated", "PortAllocation",
		     arena_printf(a, "Port %d was assigned to multiple services; please recreate service", port));
		return;
	}
	rebuilt[i] = 1;
	al->leaks[i] = 0;
	if (!port_taken(al, port))
		tell(s, a, about_service(svc), PORT_REPAIR, "PortNotAllocated", "PortAllocation",
		     arena_printf(a, "Port %d is not allocated; repairing", port));
}

/* Under the lock. */
static struct error *recount(struct apiserver *s, struct arena *a, bool *ok)
{
	struct alloc *al = s->alloc;
	size_t n = (size_t)(al->port_max - al->port_min) + 1;
	unsigned char *rebuilt = arena_alloc(a, n);
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e = NULL;

	TRY(ports_load(s, a));
	TRY(cache_snapshot(al->services->cache, CACHE_CONSISTENT, 0, &snap));
	cache_iter_init(&it, al->services->cache, snap, STR_NULL, STR_NULL, NULL);
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		struct core_v1_service *svc = arena_new(a, struct core_v1_service);
		int32_t *ports;
		uint32_t k;

		e = cache_entry_decode(a, &core_v1_service_type, en, true, svc);
		if (e)
			break;
		ports_of(a, svc, &ports, &k);
		for (uint32_t i = 0; i < k; i++)
			count_port(s, a, svc, ports[i], rebuilt);
	}
	cache_snap_free(snap);
	if (e)
		return e;
	for (size_t i = 0; i < n; i++) {
		int32_t port = al->port_min + (int32_t)i;

		if (!rebuilt[i] && port_taken(al, port)) { /* by a Service that comes, or left behind */
			al->leaks[i] = al->leaks[i] ? (unsigned char)(al->leaks[i] - 1) : LEAK_ROUNDS;
			rebuilt[i] = al->leaks[i] > 0;
			if (!rebuilt[i])
				metrics_count(METRIC_PORT_REPAIR_ERRORS, "type=\"leak\"", 1);
		}
		port_set(al, port, rebuilt[i]);
	}
	return ports_save(s, a, ok);
}

static void repair_ports(void *arg)
{
	struct apiserver *s = arg;
	struct error *e = NULL;

	while (!e) {
		struct arena a arena_cleanup = {0};
		bool ok = false;

		e = fiber_mutex_lock(&s->alloc->lock);
		if (e)
			break;
		e = recount(s, &a, &ok);
		fiber_mutex_unlock(&s->alloc->lock);
		if (error_is_sys(e, ECANCELED))
			break;
		if (e)
			metrics_count(METRIC_PORT_REPAIR_FAILURES, "", 1);
		log_and_free(e, "repairing node ports");
		e = fiber_sleep(ok ? ROUND_MS : RETRY_MS);
	}
	error_free(e);
}

void service_repair_start(struct apiserver *s)
{
	struct follow *services = arena_new(&s->arena, struct follow), *ips = arena_new(&s->arena, struct follow);

	*services = (struct follow){s, s->alloc->services->cache, sync_service, "repairing addresses of Services", 0};
	*ips = (struct follow){s, s->alloc->ips->cache, sync_ip, "repairing IPAddresses", 0};
	background_start(s, "service-repair", follow_all, services);
	background_start(s, "address-repair", follow_all, ips);
	background_start(s, "port-repair", repair_ports, s);
}
