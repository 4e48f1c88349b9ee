#include "apiserver/identity.h"

#include <openssl/sha.h>
#include <unistd.h>

#include "apiserver/background.h"
#include "apiserver/bootstrap.h"

#define NS "kube-system"
#define LABEL "apiserver.kubernetes.io/identity"
#define COMPONENT "kube-apiserver"
#define LEASE_S 3600
#define ROUND_MS 10000
#define CLEAN_MS (3600 * 1000)
#define LEAVE_MS 10000 /* most time that taking the Lease away may hold up the server's end */

static char holder[80];          /* of this process: the name and a uuid */
static struct fiber_mutex writing; /* a renewal under way does not bring back what the end has taken away */
static int64_t peer_lease;       /* the store's, by which the peers' key stands */

/* Never longer than a label may be on Linux. */
static void host_name(char out[256])
{
	memset(out, 0, 256);
	if (gethostname(out, 255) != 0)
		*out = 0;
}

const char *identity_name(void)
{
	static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
	static char id[40];
	unsigned char md[SHA256_DIGEST_LENGTH];
	char host[256];
	struct buf b buf_cleanup = {0};
	size_t at = sizeof "apiserver-" - 1;

	if (*id)
		return id;
	host_name(host);
	/* host and component, each behind its length; the first 16 bytes of the digest in base32 */
	buf_append(&b, (char[]){0, (char)strlen(host)}, 2);
	buf_puts(&b, host);
	buf_append(&b, (char[]){0, sizeof COMPONENT - 1}, 2);
	buf_puts(&b, COMPONENT);
	SHA256((const unsigned char *)b.p, b.n, md);
	md[16] = 0;
	memcpy(id, "apiserver-", at);
	for (unsigned bit = 0; bit < 128; bit += 5)
		id[at++] = digits[((md[bit / 8] << 8 | md[bit / 8 + 1]) >> (11 - bit % 8)) & 31];
	return id;
}

/* Where other servers of the cluster reach this one. */
static void peer_address(const struct apiserver *s, const char **ip, struct str *port, struct arena *a)
{
	bool told = s->o.peer_advertise_ip && *s->o.peer_advertise_ip && s->o.peer_advertise_port && *s->o.peer_advertise_port;

	*ip = told ? s->o.peer_advertise_ip : s->o.advertise_address;
	*port = told ? str_from(s->o.peer_advertise_port) : arena_printf(a, "%d", s->port);
}

/* ---- the Lease ---- */

static struct resource *leases(struct apiserver *s, struct arena *a, struct request *rq)
{
	struct resource *res = resource_any(s, STR("coordination.k8s.io"), STR("leases"));

	request_internal(rq, s, a, res, STR(NS));
	rq->nosync = true; /* as the heartbeats of nodes */
	return res;
}

static struct error *make_lease(void *ctx, struct request *rq, const void *old, void **out)
{
	struct apiserver *s = ctx;
	struct coordination_v1_lease *l = arena_new(rq->a, struct coordination_v1_lease);
	const char *ip;
	struct str port;
	char host[256];

	*out = l;
	if (old) {
		object_copy(rq->a, &coordination_v1_lease_type, old, l);
		l->metadata.resource_version = STR_NULL;
	} else {
		l->metadata.name = str_from(identity_name());
		l->metadata.namespace = STR(NS);
		l->spec.holder_identity = arena_new(rq->a, struct str);
		*l->spec.holder_identity = str_from(holder);
	}
	l->spec.lease_duration_seconds = arena_new(rq->a, int32_t);
	*l->spec.lease_duration_seconds = LEASE_S;
	l->spec.renew_time = arena_new(rq->a, struct api_time);
	*l->spec.renew_time = time_now_micro();
	host_name(host);
	peer_address(s, &ip, &port, rq->a);
	str_map_set(rq->a, API_MAP(&l->metadata.labels), STR(LABEL), STR(COMPONENT));
	str_map_set(rq->a, API_MAP(&l->metadata.labels), STR("kubernetes.io/hostname"), arena_str(rq->a, str_from(host)));
	str_map_set(rq->a, API_MAP(&l->metadata.annotations), STR("kubernetes.io/peer-advertise-address"),
		    arena_printf(rq->a, strchr(ip, ':') ? "[%s]:%.*s" : "%s:%.*s", ip, STR_ARG(port)));
	return NULL;
}

static struct error *renew(struct apiserver *s, struct arena *a)
{
	struct update u = {.make = make_lease, .ctx = s, .flags = UPDATE_CREATE | UPDATE_UNCONDITIONAL, .retry = true};
	struct request rq;
	struct write_result r;

	if (!resource_served(s, leases(s, a, &rq)))
		return NULL;
	TRY(registry_update(&rq, STR(NS), str_from(identity_name()), &u, &r));
	if (r.entry)
		cache_entry_unref(r.entry);
	return NULL;
}

/* o: may have preconditions; somebody else may have done it. */
static struct error *take_away(struct apiserver *s, struct arena *a, struct str name, const struct meta_v1_delete_options *o)
{
	struct request rq;
	struct write_result r = {0};
	struct error *e;

	if (!resource_served(s, leases(s, a, &rq)))
		return NULL;
	e = registry_delete(&rq, STR(NS), name, o, &r);
	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	if (r.entry)
		cache_entry_unref(r.entry);
	return e;
}

/* ---- the peers' key ---- */

static struct str peer_key(struct apiserver *s, struct arena *a)
{
	return arena_printf(a, "%s/peerserverleases/%s", s->o.etcd_prefix, identity_name());
}

static struct error *share_address(struct apiserver *s, struct arena *a)
{
	struct core_v1_endpoints *ep = arena_new(a, struct core_v1_endpoints);
	struct core_v1_endpoint_subset *ss;
	struct core_v1_endpoint_port *p;
	struct store_kv now = {0};
	const char *ip;
	struct str port;
	bool there;

	if (!s->o.etcd_servers)
		return NULL;
	TRY(address_renew(s, &peer_lease));
	TRY(store_get(s->store, peer_key(s, a), 0, &there, &now)); /* another server of this host takes it away when it ends */
	store_kv_free(&now);
	if (peer_lease && there)
		return NULL;
	peer_address(s, &ip, &port, a);
	str_map_set(a, API_MAP(&ep->metadata.labels), STR("apiserverIdentity"), str_from(identity_name()));
	ss = arena_push(a, &ep->subsets);
	arena_push(a, &ss->addresses)->ip = str_from(ip);
	p = arena_push(a, &ss->ports);
	*p = (struct core_v1_endpoint_port){.name = STR("https"), .port = atoi(arena_strz(a, port)), .protocol = STR("TCP")};
	return address_write(s, peer_key(s, a), ep, &peer_lease);
}

/* ---- servers that are gone ---- */

static bool expired(const struct coordination_v1_lease *l)
{
	return !l->spec.renew_time || !l->spec.lease_duration_seconds ||
	       l->spec.renew_time->s + *l->spec.lease_duration_seconds < wall_ns() / 1000000000;
}

static struct error *clean(struct apiserver *s, struct arena *a)
{
	struct storage *st = storage_find(s, STR("coordination.k8s.io"), STR("leases"));
	LIST(struct coordination_v1_lease *) gone = {0};
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e = NULL;

	TRY(cache_snapshot(st->cache, CACHE_CONSISTENT, 0, &snap));
	cache_iter_init(&it, st->cache, snap, STR(NS), STR_NULL, NULL);
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		struct coordination_v1_lease *l = arena_new(a, struct coordination_v1_lease);

		e = cache_entry_decode(a, &coordination_v1_lease_type, en, true, l);
		if (!e && str_eqz(str_map_get(API_MAP(&l->metadata.labels), STR(LABEL)), COMPONENT) && expired(l))
			*arena_push(a, &gone) = l;
	}
	cache_snap_free(snap);
	for (uint32_t i = 0; !e && i < gone.n; i++) {
		struct meta_v1_object_meta *m = &gone.v[i]->metadata;
		struct meta_v1_preconditions same = {.uid = &m->uid, .resource_version = &m->resource_version};
		struct meta_v1_delete_options o = {.preconditions = &same};

		e = take_away(s, a, m->name, &o);
	}
	return e;
}

/* ---- the server's life ---- */

static struct error *renew_both(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	struct error *e;

	TRY(fiber_mutex_lock(&writing));
	e = s->stopping ? NULL : renew(s, &a);
	if (!e && !s->stopping)
		e = share_address(s, &a);
	fiber_mutex_unlock(&writing);
	return e;
}

struct error *identity_begin(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	char uuid[37];

	random_uuid(uuid);
	snprintf(holder, sizeof holder, "%s_%s", identity_name(), uuid);
	/* Nobody is to be sent to a server that is not there any more: its successor has a Lease of its own. */
	TRY(take_away(s, &a, str_from(identity_name()), &(struct meta_v1_delete_options){0}));
	return renew_both(s);
}

static void follow(void *arg)
{
	struct apiserver *s = arg;
	int64_t clean_at = now_ms();
	struct error *e = NULL;

	while (!e) {
		if (now_ms() >= clean_at) {
			struct arena a arena_cleanup = {0};

			clean_at = now_ms() + CLEAN_MS;
			e = clean(s, &a);
		}
		if (!e && !(e = fiber_sleep(ROUND_MS)))
			e = renew_both(s);
		if (!error_is_sys(e, ECANCELED)) {
			log_and_free(e, "the Lease of this server");
			e = NULL;
		}
	}
	error_free(e);
}

void identity_start(struct apiserver *s)
{
	background_start(s, "identity", follow, s);
}

static struct error *leave(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	struct store_kv now = {0};
	int64_t rev;
	bool ok;
	struct error *e;

	TRY(fiber_mutex_lock(&writing));
	e = take_away(s, &a, str_from(identity_name()), &(struct meta_v1_delete_options){0});
	if (!e && s->o.etcd_servers)
		e = store_delete(s->store, peer_key(s, &a), STORE_ANY, &ok, &rev, &now);
	fiber_mutex_unlock(&writing);
	return e;
}

void identity_leave(struct apiserver *s)
{
	int64_t token = deadline_push(LEAVE_MS);

	log_and_free(leave(s), "taking the Lease of this server away");
	deadline_pop(token);
}
