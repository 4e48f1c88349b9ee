#include "schema/storage.h"

#include "schema/quantity.h"
#include "schema/selector.h"

#define BETA_CLASS "volume.beta.kubernetes.io/storage-class"

typedef struct core_v1_persistent_volume pv_t;
typedef struct core_v1_persistent_volume_claim pvc_t;

struct str claim_class(const pvc_t *c)
{
	const struct str_map *notes = API_MAP(&c->metadata.annotations);

	if (str_map_has(notes, STR(BETA_CLASS)))
		return str_map_get(notes, STR(BETA_CLASS));
	return c->spec.storage_class_name ? *c->spec.storage_class_name : STR_NULL;
}

bool claim_has_class(const pvc_t *c)
{
	return str_map_has(API_MAP(&c->metadata.annotations), STR(BETA_CLASS)) || c->spec.storage_class_name;
}

struct str volume_class(const pv_t *v)
{
	const struct str_map *notes = API_MAP(&v->metadata.annotations);

	return str_map_has(notes, STR(BETA_CLASS)) ? str_map_get(notes, STR(BETA_CLASS)) : v->spec.storage_class_name;
}

bool class_waits(const struct storage_v1_storage_class *sc)
{
	return sc && sc->volume_binding_mode && str_eqz(*sc->volume_binding_mode, "WaitForFirstConsumer");
}

bool volume_bound_to(const pv_t *v, const pvc_t *c)
{
	const struct core_v1_object_reference *r = v->spec.claim_ref;

	return r && str_eq(r->name, c->metadata.name) && str_eq(r->namespace, c->metadata.namespace) &&
	       (!r->uid.n || str_eq(r->uid, c->metadata.uid));
}

static bool is_block(const struct str *mode)
{
	return mode && str_eqz(*mode, "Block");
}

bool volume_mode_differs(const pv_t *v, const pvc_t *c)
{
	return is_block(v->spec.volume_mode) != is_block(c->spec.volume_mode);
}

bool volume_modes_cover(const pv_t *v, const pvc_t *c)
{
	for (uint32_t i = 0; i < c->spec.access_modes.n; i++) {
		bool has = false;

		for (uint32_t k = 0; k < v->spec.access_modes.n && !has; k++)
			has = str_eq(v->spec.access_modes.v[k], c->spec.access_modes.v[i]);
		if (!has)
			return false;
	}
	return true;
}

static struct str size_wanted(const pvc_t *c)
{
	struct str q = str_map_get(API_MAP(&c->spec.resources.requests), STR("storage"));

	return q.n ? q : STR("0");
}

static struct str size_of(const pv_t *v)
{
	struct str q = str_map_get(API_MAP(&v->spec.capacity), STR("storage"));

	return q.n ? q : STR("0");
}

/* KEP-3751: attributes are part of what is asked for. */
static bool attributes_differ(const pv_t *v, const pvc_t *c)
{
	struct str x = v->spec.volume_attributes_class_name ? *v->spec.volume_attributes_class_name : STR_NULL;
	struct str y = c->spec.volume_attributes_class_name ? *c->spec.volume_attributes_class_name : STR_NULL;

	return !str_eq(x, y);
}

const char *volume_mismatch(const pv_t *v, const pvc_t *c)
{
	if (v->metadata.deletion_timestamp)
		return "the volume is marked for deletion";
	if (quantity_cmp(size_of(v), size_wanted(c)) < 0)
		return "requested PV is too small";
	if (!str_eq(volume_class(v), claim_class(c)))
		return "storageClassName does not match";
	if (attributes_differ(v, c))
		return "volumeAttributesClassName does not match";
	if (volume_mode_differs(v, c))
		return "incompatible volumeMode";
	if (!volume_modes_cover(v, c))
		return "incompatible accessMode";
	return NULL;
}

/* Fewer modes fit closer; then the smaller volume. */
static bool better(const pv_t *x, const pv_t *y)
{
	if (x->spec.access_modes.n != y->spec.access_modes.n)
		return x->spec.access_modes.n < y->spec.access_modes.n;
	return quantity_cmp(size_of(x), size_of(y)) < 0;
}

struct error *volume_find(struct arena *a, const pvc_t *c, pv_t **v, size_t n, bool (*fits)(void *ctx, const pv_t *v, bool bound), void *ctx,
			  bool delay, pv_t **out)
{
	const struct selector *sel = NULL;
	struct str class = claim_class(c);
	pv_t *best = NULL;

	*out = NULL;
	if (c->spec.selector)
		TRY(label_selector_from(a, c->spec.selector, &sel));
	for (size_t i = 0; i < n; i++) {
		bool bound = volume_bound_to(v[i], c);

		if ((v[i]->spec.claim_ref && !bound) || v[i]->metadata.deletion_timestamp || volume_mode_differs(v[i], c) ||
		    attributes_differ(v[i], c) || quantity_cmp(size_of(v[i]), size_wanted(c)) < 0)
			continue;
		if (!fits && !volume_modes_cover(v[i], c))
			continue;
		if (bound) { /* this one or none */
			*out = !fits || fits(ctx, v[i], true) ? v[i] : NULL;
			return NULL;
		}
		if ((!fits && delay) || !str_eqz(v[i]->status.phase, "Available") || !str_eq(volume_class(v[i]), class) ||
		    (c->spec.selector && !selector_matches(sel, API_MAP(&v[i]->metadata.labels))) || !volume_modes_cover(v[i], c) ||
		    (fits && !fits(ctx, v[i], false)))
			continue;
		if (!best || better(v[i], best))
			best = v[i];
	}
	*out = best;
	return NULL;
}

bool volume_set_claim(struct arena *a, pv_t *v, const pvc_t *c)
{
	bool was = volume_bound_to(v, c), changed = false;
	struct core_v1_object_reference *r = v->spec.claim_ref;
	struct str_map *notes = API_MAP(&v->metadata.annotations);

	if (!was || !str_eq(r->uid, c->metadata.uid)) {
		r = v->spec.claim_ref = arena_new(a, struct core_v1_object_reference);
		*r = (struct core_v1_object_reference){
			.kind = STR("PersistentVolumeClaim"), .api_version = STR("v1"), .namespace = c->metadata.namespace,
			.name = c->metadata.name, .uid = c->metadata.uid, .resource_version = c->metadata.resource_version};
		changed = true;
	}
	if (!was && !str_map_has(notes, STR(ANN_BOUND_BY_CONTROLLER))) {
		str_map_set(a, notes, STR(ANN_BOUND_BY_CONTROLLER), STR("yes"));
		changed = true;
	}
	return changed;
}

struct str ephemeral_claim_name(struct arena *a, struct str pod, struct str volume)
{
	return arena_printf(a, "%.*s-%.*s", STR_ARG(pod), STR_ARG(volume));
}

bool claim_made_for(const pvc_t *c, const struct core_v1_pod *p)
{
	for (uint32_t i = 0; i < c->metadata.owner_references.n; i++) {
		const struct meta_v1_owner_reference *o = &c->metadata.owner_references.v[i];

		if (o->controller && *o->controller)
			return str_eq(o->uid, p->metadata.uid);
	}
	return false;
}
