/*
 * controller/servicecidr.c: ServiceCIDR (KEP-1880): ready as soon as it is there; held by a finalizer as long as an IPAddress lies
 * in no other range, and for ten seconds more, in which allocators of all API servers learn that it goes.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "controller/conditions.h"

#define FINALIZER "networking.k8s.io/service-cidr-finalizer"
#define GRACE_MS 10000

struct cidrs {
	struct manager *m;
	struct informer *ranges, *addresses;
	struct workqueue *q;
};

typedef struct networking_v1_service_cidr range_t;

struct prefix {
	int family;
	int bits;
	unsigned char ip[16];
};

static bool parse_ip(struct str s, int *family, unsigned char ip[16])
{
	char z[64];

	if (s.n >= sizeof(z))
		return false;
	snprintf(z, sizeof(z), "%.*s", STR_ARG(s));
	*family = strchr(z, ':') ? AF_INET6 : AF_INET;
	memset(ip, 0, 16);
	return inet_pton(*family, z, ip) == 1;
}

static bool parse_prefix(struct str s, struct prefix *p)
{
	ptrdiff_t slash = str_index(s, '/');
	int64_t bits;

	if (slash < 0 || !str_to_i64(str_sub(s, (size_t)slash + 1, s.n), &bits) || !parse_ip(str_sub(s, 0, (size_t)slash), &p->family, p->ip))
		return false;
	p->bits = (int)bits;
	return bits >= 0 && bits <= (p->family == AF_INET ? 32 : 128);
}

static bool contains(const struct prefix *p, int family, const unsigned char ip[16])
{
	int whole = p->bits / 8, rest = p->bits % 8;

	if (p->family != family || memcmp(p->ip, ip, (size_t)whole))
		return false;
	return !rest || !((p->ip[whole] ^ ip[whole]) >> (8 - rest));
}

static bool range_contains(const range_t *r, int family, const unsigned char ip[16], int at_least_bits)
{
	struct prefix p;

	for (uint32_t i = 0; i < r->spec.cidrs.n; i++)
		if (parse_prefix(r->spec.cidrs.v[i], &p) && p.bits <= at_least_bits && contains(&p, family, ip))
			return true;
	return false;
}

/* Some range other than `not` holds the address (or the whole prefix that starts there). */
static bool elsewhere(range_t **all, size_t n, const range_t *not, int family, const unsigned char ip[16], int bits)
{
	for (size_t i = 0; i < n; i++)
		if (!str_eq(all[i]->metadata.name, not->metadata.name) && !all[i]->metadata.deletion_timestamp &&
		    range_contains(all[i], family, ip, bits))
			return true;
	return false;
}

static bool may_go(struct cidrs *c, struct arena *a, const range_t *r)
{
	range_t **all;
	struct networking_v1_ip_address **ips;
	size_t n = informer_list(c->ranges, a, STR_NULL, NULL, (void ***)&all), n_ips;
	bool covered = true;
	struct prefix p;

	for (uint32_t i = 0; i < r->spec.cidrs.n && covered; i++)
		covered = parse_prefix(r->spec.cidrs.v[i], &p) && elsewhere(all, n, r, p.family, p.ip, p.bits);
	if (covered)
		return true;
	n_ips = informer_list(c->addresses, a, STR_NULL, NULL, (void ***)&ips);
	for (size_t i = 0; i < n_ips; i++) {
		unsigned char ip[16];
		int family;

		if (parse_ip(ips[i]->metadata.name, &family, ip) && range_contains(r, family, ip, 128) &&
		    !elsewhere(all, n, r, family, ip, 128))
			return false;
	}
	return true;
}

static struct error *patch(struct cidrs *c, struct arena *a, struct str name, const char *sub, struct str body)
{
	struct error *e = client_patch(c->m->client, a, &networking_v1_servicecidrs_resource, STR_NULL, name, sub, PATCH_STRATEGIC, body, NULL,
				       false, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static struct error *say_ready(struct cidrs *c, struct arena *a, range_t *r, bool ready)
{
	struct buf b buf_cleanup = {0};

	if (!condition_set(a, CONDITIONS(&r->status.conditions), "Ready", ready ? "True" : "False", ready ? "" : "Terminating",
			   ready ? STR("Kubernetes Service CIDR is ready") :
				   STR("There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"), 0))
		return NULL;
	buf_puts(&b, "{\"status\":");
	json_encode(&b, &networking_v1_service_cidr_status_type, &r->status);
	buf_putc(&b, '}');
	return patch(c, a, r->metadata.name, "status", buf_view(&b));
}

static struct error *reconcile(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct cidrs *c = ctx;
	range_t *r = informer_get(c->ranges, a, STR_NULL, name);

	if (!r)
		return NULL;
	if (!r->metadata.deletion_timestamp) {
		if (!has_finalizer(&r->metadata, FINALIZER))
			TRY(patch(c, a, name, NULL, STR("{\"metadata\":{\"finalizers\":[\"" FINALIZER "\"]}}")));
		return say_ready(c, a, r, true);
	}
	if (!has_finalizer(&r->metadata, FINALIZER))
		return NULL;
	if (!may_go(c, a, r))
		return say_ready(c, a, r, false);
	int64_t left = time_ms(*r->metadata.deletion_timestamp) + GRACE_MS - wall_ms();

	if (left > 0) {
		workqueue_add_after(c->q, arena_str(a, name), left + 1);
		return NULL;
	}
	return patch(c, a, name, NULL, STR("{\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[\"" FINALIZER "\"]}}"));
}

static bool queue_deleting(void *ctx, const struct cached_object *o)
{
	if (o->deleting)
		workqueue_add(((struct cidrs *)ctx)->q, o->name);
	return true;
}

static void on_range(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct cidrs *c = ctx;

	if (new_)
		workqueue_add(c->q, new_->name);
	if (ev != INFORMER_UPDATED) /* a new one may cover what an old one must wait for */
		informer_each(c->ranges, STR_NULL, NULL, queue_deleting, c);
}

static void on_address(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct cidrs *c = ctx;

	if (ev == INFORMER_DELETED)
		informer_each(c->ranges, STR_NULL, NULL, queue_deleting, c);
}

void service_cidr_start(struct manager *m)
{
	struct cidrs *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("servicecidrs");
	c->ranges = manager_informer(m, &networking_v1_servicecidrs_resource);
	c->addresses = manager_informer(m, &networking_v1_ipaddresses_resource);
	informer_on_event(c->ranges, on_range, c);
	informer_on_event(c->addresses, on_address, c);
	controller_run(m, c->q, "servicecidr", 2, reconcile, c, c->ranges, c->addresses, NULL);
}
