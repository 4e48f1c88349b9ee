/*
 * Who may write what of a ResourceClaim's status (KEP-4817): allocation and reservedFor want resourceclaims/binding, each driver's entries of
 * devices want resourceclaims/driver of its name, by a verb that says whether the writer is on the claim's node. resourceclaims/status alone
 * allows neither.
 */
#include "apiserver/authz.h"
#include "apiserver/validate_kinds.h"

#define SERVICE_ACCOUNT "system:serviceaccount:"

typedef struct resource_v1_resource_claim_status status;
typedef struct resource_v1_allocated_device_status device;

static bool allowed(struct request *rq, struct str verb, const char *subresource, struct str ns, struct str name)
{
	struct authz_attrs at = {
		.user = rq->user, .verb = verb, .resource_request = true, .ns = ns, .group = rq->res->api->group, .version = rq->res->api->version,
		.resource = rq->res->api->plural, .subresource = str_from(subresource), .name = name,
	};

	return authorize(rq->s, rq->a, &at, NULL) == AUTHZ_ALLOW;
}

/* The one node that an allocation names, or empty. */
static struct str node_of(const struct resource_v1_allocation_result *a)
{
	const struct core_v1_node_selector_term *t;
	const struct core_v1_node_selector_requirement *f;

	if (!a || !a->node_selector || a->node_selector->node_selector_terms.n != 1)
		return STR_NULL;
	t = &a->node_selector->node_selector_terms.v[0];
	if (t->match_expressions.n || t->match_fields.n != 1)
		return STR_NULL;
	f = &t->match_fields.v[0];
	return str_eqz(f->key, "metadata.name") && str_eqz(f->operator, "In") && f->values.n == 1 ? f->values.v[0] : STR_NULL;
}

/* A service account whose token is bound to a pod on that node. */
static bool on_node(const struct user *u, struct str node)
{
	if (!node.n || !str_has_prefix(u->name, STR(SERVICE_ACCOUNT)))
		return false;
	for (size_t i = 0; i < u->n_extra; i++)
		if (str_eqz(u->extra[i].key, "authentication.kubernetes.io/node-name"))
			return u->extra[i].value.n == 1 && str_eq(u->extra[i].value.v[0], node);
	return false;
}

static bool same_device(const device *a, const device *b)
{
	return str_eq(a->driver, b->driver) && str_eq(a->pool, b->pool) && str_eq(a->device, b->device) &&
	       str_eq(a->share_id ? *a->share_id : STR_NULL, b->share_id ? *b->share_id : STR_NULL);
}

/* Drivers of entries of s that `other` has not, or has otherwise. */
static void changed_drivers(struct arena *a, const status *s, const status *other, struct strings *drivers)
{
	for (uint32_t i = 0; i < s->devices.n; i++) {
		const device *d = &s->devices.v[i];
		bool same = false;

		for (uint32_t k = 0; k < other->devices.n && !same; k++)
			same = same_device(d, &other->devices.v[k]) &&
			       object_equal(&resource_v1_allocated_device_status_type, d, &other->devices.v[k]);
		for (uint32_t k = 0; k < drivers->n && !same; k++)
			same = str_eq(drivers->v[k], d->driver);
		if (!same)
			*arena_push(a, drivers) = d->driver;
	}
}

static bool same_binding(const status *s, const status *was)
{
	return object_field_equal(&resource_v1_resource_claim_status_type, s, was, "allocation") &&
	       object_field_equal(&resource_v1_resource_claim_status_type, s, was, "reservedFor");
}

void claim_authorize_status(struct request *rq, const struct resource_v1_resource_claim *c, const struct resource_v1_resource_claim *old,
			    struct field_errors *e)
{
	const status *s = &c->status, *was = &old->status;
	const struct field_path *p = FIELD_ROOT("status");
	struct strings drivers = {0};

	if (rq->internal)
		return;
	if (!same_binding(s, was) && !allowed(rq, rq->info.verb, "binding", STR_NULL, STR_NULL))
		field_forbidden(e, FIELD_CHILD(p, "allocation"),
				"changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"%.*s\" "
				"permission", STR_ARG(rq->info.verb));
	if (!s->allocation) /* without which there are no devices */
		return;
	changed_drivers(rq->a, s, was, &drivers);
	changed_drivers(rq->a, was, s, &drivers);
	for (uint32_t i = 0; i < drivers.n; i++) {
		bool ok = on_node(rq->user, node_of(s->allocation)) &&
			  allowed(rq, arena_printf(rq->a, "associated-node:%.*s", STR_ARG(rq->info.verb)), "driver", rq->info.ns, drivers.v[i]);

		ok = ok || allowed(rq, arena_printf(rq->a, "arbitrary-node:%.*s", STR_ARG(rq->info.verb)), "driver", rq->info.ns, drivers.v[i]);
		if (!ok)
			field_forbidden(e, FIELD_CHILD(p, "devices"), "changing status.devices requires resource=\"resourceclaims/driver\" of %.*s",
					STR_ARG(drivers.v[i]));
	}
}
