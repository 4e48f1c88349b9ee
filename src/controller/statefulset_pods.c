/* Pods of a StatefulSet: their names, labels and volumes, and the claims that are made for them and outlive them or not. */
#include "controller/statefulset.h"

static const struct api_resource *const pods = &core_v1_pods_resource, *const claims = &core_v1_persistentvolumeclaims_resource;

int64_t sts_ordinal(const sts_t *s, struct str name)
{
	int64_t v;
	size_t n = s->metadata.name.n;

	if (name.n < n + 2 || !str_has_prefix(name, s->metadata.name) || name.p[n] != '-' || name.p[n + 1] == '+' || name.p[n + 1] == '-')
		return -1;
	return str_to_i64(str_sub(name, n + 1, name.n), &v) && v <= INT32_MAX ? v : -1;
}

bool sts_in_range(const sts_t *s, int64_t ordinal)
{
	return ordinal >= sts_start(s) && ordinal < sts_start(s) + i32_or(s->spec.replicas, 1);
}

/* ---- events ---- */

static void tell(struct sts_sync *s, const char *reason_verb, const struct error *e, struct str what)
{
	struct core_v1_object_reference ref = object_reference(&apps_v1_statefulsets_resource, s->set);
	arena_cleanup struct arena a = {0};

	if (namespace_terminating(e))
		return;
	const char *reason = arena_printf(&a, "%s%s", e ? "Failed" : "Successful", reason_verb).p;

	if (e)
		event_record(s->c->rec, &ref, "Warning", reason, "%s %.*s failed error: %s", reason_verb, STR_ARG(what), error_message(e));
	else
		event_record(s->c->rec, &ref, "Normal", reason, "%s %.*s", reason_verb, STR_ARG(what));
}

static void tell_pod(struct sts_sync *s, const char *verb, const struct error *e, struct str pod)
{
	arena_cleanup struct arena a = {0};

	tell(s, verb, e, arena_printf(&a, "Pod %.*s in StatefulSet %.*s%s", STR_ARG(pod), STR_ARG(s->set->metadata.name), e ? "" : " successful"));
}

/* ---- identity, storage ---- */

static struct str claim_name(struct arena *a, const sts_t *s, const struct core_v1_persistent_volume_claim *t, int64_t ordinal)
{
	return arena_printf(a, "%.*s-%.*s-%lld", STR_ARG(t->metadata.name), STR_ARG(s->metadata.name), (long long)ordinal);
}

static void set_identity(const sts_t *s, struct arena *a, pod_t *p, int64_t ordinal)
{
	p->metadata.namespace = s->metadata.namespace;
	p->metadata.name = arena_printf(a, "%.*s-%lld", STR_ARG(s->metadata.name), (long long)ordinal);
	str_map_set(a, API_MAP(&p->metadata.labels), STR(STS_POD_NAME_LABEL), p->metadata.name);
	str_map_set(a, API_MAP(&p->metadata.labels), STR(STS_INDEX_LABEL), arena_printf(a, "%lld", (long long)ordinal));
}

static const struct core_v1_persistent_volume_claim *template_of(const sts_t *s, struct str volume)
{
	for (uint32_t i = 0; i < s->spec.volume_claim_templates.n; i++)
		if (str_eq(s->spec.volume_claim_templates.v[i].metadata.name, volume))
			return &s->spec.volume_claim_templates.v[i];
	return NULL;
}

/* The claims' volumes first, then the template's others. */
static void set_storage(const sts_t *s, struct arena *a, pod_t *p, int64_t ordinal)
{
	struct core_v1_volume *old = p->spec.volumes.v;
	uint32_t n_old = p->spec.volumes.n;

	if (!s->spec.volume_claim_templates.n)
		return;
	p->spec.volumes.v = NULL;
	p->spec.volumes.n = p->spec.volumes.cap = 0;
	for (uint32_t i = 0; i < s->spec.volume_claim_templates.n; i++) {
		const struct core_v1_persistent_volume_claim *t = &s->spec.volume_claim_templates.v[i];
		struct core_v1_volume *v = arena_push(a, &p->spec.volumes);

		v->name = t->metadata.name;
		v->volume_source.persistent_volume_claim = arena_new(a, struct core_v1_persistent_volume_claim_volume_source);
		v->volume_source.persistent_volume_claim->claim_name = claim_name(a, s, t, ordinal);
	}
	for (uint32_t i = 0; i < n_old; i++)
		if (!template_of(s, old[i].name))
			*arena_push(a, &p->spec.volumes) = old[i];
}

static bool storage_matches(const sts_t *s, struct arena *a, const pod_t *p, int64_t ordinal)
{
	for (uint32_t i = 0; i < s->spec.volume_claim_templates.n; i++) {
		const struct core_v1_persistent_volume_claim *t = &s->spec.volume_claim_templates.v[i];
		bool found = false;

		for (uint32_t k = 0; k < p->spec.volumes.n && !found; k++) {
			const struct core_v1_volume *v = &p->spec.volumes.v[k];

			found = str_eq(v->name, t->metadata.name) && v->volume_source.persistent_volume_claim &&
				str_eq(v->volume_source.persistent_volume_claim->claim_name, claim_name(a, s, t, ordinal));
		}
		if (!found)
			return false;
	}
	return true;
}

static bool named_rightly(const pod_t *p)
{
	return str_eq(str_map_get(API_MAP(&p->metadata.labels), STR(STS_POD_NAME_LABEL)), p->metadata.name);
}

bool sts_identity_matches(struct sts_sync *s, struct arena *a, const pod_t *p)
{
	return named_rightly(p) && storage_matches(s->set, a, p, sts_ordinal(s->set, p->metadata.name));
}

struct error *sts_fix_pod(struct sts_sync *s, struct arena *a, const pod_t *p)
{
	int64_t ordinal = sts_ordinal(s->set, p->metadata.name);
	struct error *e = NULL;

	if (!storage_matches(s->set, a, p, ordinal))
		e = sts_make_claims(s, a, p);
	if (!e)
		e = sts_fix_claims(s, a, p);
	if (!e && !sts_identity_matches(s, a, p)) {
		pod_t *copy = object_clone(a, &core_v1_pod_type, p);

		set_identity(s->set, a, copy, ordinal);
		set_storage(s->set, a, copy, ordinal);
		e = client_update(s->c->m->client, a, pods, copy->metadata.namespace, NULL, copy, NULL);
		if (!e)
			tell_pod(s, "Update", NULL, p->metadata.name);
	}
	if (e)
		tell_pod(s, "Update", e, p->metadata.name);
	return e;
}

pod_t *sts_new_pod(struct sts_sync *s, struct arena *a, const struct core_v1_pod_template_spec *t, struct str revision, int64_t ordinal)
{
	struct owner owner = {&apps_v1_statefulsets_resource, &s->set->metadata};
	pod_t *p = pod_from_template(a, t, s->set->metadata.namespace, STR_NULL, &owner);

	set_identity(s->set, a, p, ordinal);
	p->spec.hostname = p->metadata.name;
	p->spec.subdomain = s->set->spec.service_name;
	set_storage(s->set, a, p, ordinal);
	str_map_set(a, API_MAP(&p->metadata.labels), STR(STS_REVISION_LABEL), revision);
	return p;
}

/* ---- pods ---- */

struct error *sts_create_pod(struct sts_sync *s, struct arena *a, pod_t *p)
{
	struct error *e = sts_make_claims(s, a, p);
	void *out;

	if (e) {
		tell_pod(s, "Create", e, p->metadata.name);
		return e;
	}
	expect_creations(&s->c->x, s->key, 1);
	e = client_create(s->c->m->client, a, pods, p->metadata.namespace, p, &out);
	if (e)
		creation_observed(&s->c->x, s->key); /* it will not come */
	if (error_is(e, 409, "AlreadyExists"))
		return e; /* the informer lags, or somebody else's pod has the name: it must go first */
	if (!e)
		e = sts_fix_claims(s, a, out); /* now that it has a uid */
	tell_pod(s, "Create", e, p->metadata.name);
	return e;
}

struct error *sts_delete_pod(struct sts_sync *s, struct arena *a, pod_t *p)
{
	expect_deletions(&s->c->x, s->key, s->c->pods, &p, 1);
	struct error *e = client_delete(s->c->m->client, a, pods, p->metadata.namespace, p->metadata.name,
					&(struct delete_opts){.grace_seconds = -1, .uid = p->metadata.uid});
	bool gone = error_is(e, 404, NULL) || error_is(e, 409, "Conflict"); /* or another pod of that name */

	if (e)
		deletion_observed(&s->c->x, s->key, p->metadata.uid);
	if (gone)
		error_clear(&e);
	tell_pod(s, "Delete", e, p->metadata.name);
	return e;
}

/* ---- claims ---- */

static struct core_v1_persistent_volume_claim *claim_of(struct sts_sync *s, struct arena *a, uint32_t i, const pod_t *p)
{
	return informer_get(s->c->claims, a, s->set->metadata.namespace,
			    claim_name(a, s->set, &s->set->spec.volume_claim_templates.v[i], sts_ordinal(s->set, p->metadata.name)));
}

struct error *sts_make_claims(struct sts_sync *s, struct arena *a, const pod_t *p)
{
	struct error *first = NULL;
	const sts_t *set = s->set;

	for (uint32_t i = 0; i < set->spec.volume_claim_templates.n; i++) {
		const struct core_v1_persistent_volume_claim *t = &set->spec.volume_claim_templates.v[i], *there = claim_of(s, a, i, p);
		struct error *e = NULL;

		if (there && there->metadata.deletion_timestamp) {
			e = error_new("pvc %.*s is being deleted", STR_ARG(there->metadata.name));
		} else if (!there) {
			struct core_v1_persistent_volume_claim *c = object_clone(a, &core_v1_persistent_volume_claim_type, t);
			const struct meta_v1_label_selector *sel = set->spec.selector;

			c->metadata.name = claim_name(a, set, t, sts_ordinal(set, p->metadata.name));
			c->metadata.namespace = set->metadata.namespace;
			for (uint32_t k = 0; sel && k < sel->match_labels.n; k++)
				str_map_set(a, API_MAP(&c->metadata.labels), sel->match_labels.v[k].key, sel->match_labels.v[k].value);
			e = client_create(s->c->m->client, a, claims, c->metadata.namespace, c, NULL);
			if (error_is(e, 409, "AlreadyExists")) {
				error_clear(&e); /* the informer lags: the next round looks at it */
				continue;
			}
			tell(s, "Create", e, arena_printf(a, "Claim %.*s %sPod %.*s in StatefulSet %.*s%s", STR_ARG(c->metadata.name), e ? "for " : "",
							  STR_ARG(p->metadata.name), STR_ARG(set->metadata.name), e ? "" : " success"));
			if (e)
				e = error_wrap(e, "failed to create PVC %.*s", STR_ARG(c->metadata.name));
		}
		if (first)
			error_free(e);
		else
			first = e;
	}
	return first;
}

static bool ref_is(const struct meta_v1_owner_reference *r, const char *api_version, const char *kind, struct str name)
{
	return str_eqz(r->api_version, api_version) && str_eqz(r->kind, kind) && str_eq(r->name, name);
}

static bool ref_is_set(const struct meta_v1_owner_reference *r, const sts_t *s)
{
	return ref_is(r, "apps/v1", "StatefulSet", s->metadata.name);
}

static bool ref_is_pod(const struct meta_v1_owner_reference *r, const pod_t *p)
{
	return ref_is(r, "v1", "Pod", p->metadata.name);
}

static bool has_owner(const struct core_v1_persistent_volume_claim *c, struct str uid)
{
	for (uint32_t i = 0; i < c->metadata.owner_references.n; i++)
		if (str_eq(c->metadata.owner_references.v[i].uid, uid))
			return true;
	return false;
}

/* Names the set or the pod, but an earlier one. */
static bool stale_set(const struct core_v1_persistent_volume_claim *c, const sts_t *s)
{
	for (uint32_t i = 0; i < c->metadata.owner_references.n; i++)
		if (ref_is_set(&c->metadata.owner_references.v[i], s))
			return !str_eq(c->metadata.owner_references.v[i].uid, s->metadata.uid);
	return false;
}

static bool stale_pod(const struct core_v1_persistent_volume_claim *c, const pod_t *p)
{
	for (uint32_t i = 0; i < c->metadata.owner_references.n; i++)
		if (ref_is_pod(&c->metadata.owner_references.v[i], p))
			return !str_eq(c->metadata.owner_references.v[i].uid, p->metadata.uid);
	return false;
}

static bool when_scaled_delete(const sts_t *s)
{
	const struct apps_v1_stateful_set_persistent_volume_claim_retention_policy *k = s->spec.persistent_volume_claim_retention_policy;

	return k && str_eqz(k->when_scaled, "Delete");
}

static bool when_deleted_delete(const sts_t *s)
{
	const struct apps_v1_stateful_set_persistent_volume_claim_retention_policy *k = s->spec.persistent_volume_claim_retention_policy;

	return k && str_eqz(k->when_deleted, "Delete");
}

static bool unexpected_controller(const struct core_v1_persistent_volume_claim *c, const sts_t *s, const pod_t *p)
{
	if (!when_scaled_delete(s) && !when_deleted_delete(s))
		return false; /* who keeps the claims does not mind who else does */
	for (uint32_t i = 0; i < c->metadata.owner_references.n; i++) {
		const struct meta_v1_owner_reference *r = &c->metadata.owner_references.v[i];

		if (ref_is_set(r, s)) {
			if (!str_eq(r->uid, s->metadata.uid))
				return true;
		} else if (ref_is_pod(r, p)) {
			if (!str_eq(r->uid, p->metadata.uid))
				return true;
		} else if (is_true(r->controller)) {
			return true;
		}
	}
	return false;
}

/* Whom the policy makes the claim's owner: of a scaled-down pod the pod itself, else the set. */
static void wanted_owners(const sts_t *s, const pod_t *p, bool *by_set, bool *by_pod)
{
	bool out = !sts_in_range(s, sts_ordinal(s, p->metadata.name));

	*by_pod = when_scaled_delete(s) && out;
	*by_set = when_deleted_delete(s) && !*by_pod;
}

static bool owners_match(const struct core_v1_persistent_volume_claim *c, const sts_t *s, const pod_t *p)
{
	bool by_set, by_pod;

	if (stale_set(c, s) || stale_pod(c, p))
		return true; /* the garbage collector's business */
	if (unexpected_controller(c, s, p))
		return !has_owner(c, s->metadata.uid) && !has_owner(c, p->metadata.uid);
	for (uint32_t i = 0; i < c->metadata.owner_references.n; i++) {
		const struct meta_v1_owner_reference *r = &c->metadata.owner_references.v[i];

		if ((str_eq(r->uid, s->metadata.uid) || str_eq(r->uid, p->metadata.uid)) && !is_true(r->controller))
			return false;
	}
	wanted_owners(s, p, &by_set, &by_pod);
	return has_owner(c, s->metadata.uid) == by_set && has_owner(c, p->metadata.uid) == by_pod;
}

static void set_owners(struct arena *a, struct core_v1_persistent_volume_claim *c, const sts_t *s, const pod_t *p)
{
	bool by_set, by_pod, foreign = unexpected_controller(c, s, p);
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->metadata.owner_references.n; i++)
		if (!ref_is_set(&c->metadata.owner_references.v[i], s) && !ref_is_pod(&c->metadata.owner_references.v[i], p))
			c->metadata.owner_references.v[n++] = c->metadata.owner_references.v[i];
	c->metadata.owner_references.n = n;
	if (foreign)
		return;
	wanted_owners(s, p, &by_set, &by_pod);
	if (by_set)
		owner_add_controller_ref(a, &c->metadata, &(struct owner){&apps_v1_statefulsets_resource, &s->metadata});
	if (by_pod)
		owner_add_controller_ref(a, &c->metadata, &(struct owner){&core_v1_pods_resource, &p->metadata});
}

bool sts_claims_match(struct sts_sync *s, struct arena *a, const pod_t *p)
{
	for (uint32_t i = 0; i < s->set->spec.volume_claim_templates.n; i++) {
		const struct core_v1_persistent_volume_claim *c = claim_of(s, a, i, p);

		if (c && !owners_match(c, s->set, p))
			return false;
	}
	return true;
}

struct error *sts_fix_claims(struct sts_sync *s, struct arena *a, const pod_t *p)
{
	for (uint32_t i = 0; i < s->set->spec.volume_claim_templates.n; i++) {
		struct core_v1_persistent_volume_claim *c = claim_of(s, a, i, p);

		if (!c)
			continue; /* the informer lags; the next round comes when it does not */
		if (unexpected_controller(c, s->set, p)) {
			struct core_v1_object_reference ref = object_reference(&apps_v1_statefulsets_resource, s->set);

			event_record(s->c->rec, &ref, "Warning", "ConflictingController",
				     "PersistentVolumeClaim %.*s has a conflicting OwnerReference that acts as a managing controller, the "
				     "retention policy is ignored for this claim", STR_ARG(c->metadata.name));
		}
		if (owners_match(c, s->set, p))
			continue;
		set_owners(a, c, s->set, p);
		struct error *e = client_update(s->c->m->client, a, claims, c->metadata.namespace, NULL, c, NULL);

		if (e)
			return error_wrap(e, "could not update claim %.*s for delete policy ownerRefs", STR_ARG(c->metadata.name));
	}
	return NULL;
}

bool sts_claim_is_stale(struct sts_sync *s, struct arena *a, const pod_t *p)
{
	if (!when_scaled_delete(s->set))
		return false;
	for (uint32_t i = 0; i < s->set->spec.volume_claim_templates.n; i++) {
		const struct core_v1_persistent_volume_claim *c = claim_of(s, a, i, p);

		if (c && stale_pod(c, p))
			return true;
	}
	return false;
}
