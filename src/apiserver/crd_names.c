/*
 * The server's own writes to CustomResourceDefinitions, as upstream's controllers make them: names accepted, established,
 * approved (apiextensions-apiserver/pkg/controller/{status,establish,apiapproval}), and the end of the objects of a deleted one
 * (controller/finalizer).
 */
#include "apiserver/background.h"
#include "apiserver/crd_internal.h"

#define CLEAN_WAIT_MAX_MS 2000
#define SETTLE_ROUNDS_MAX 1000 /* of one group: each round one definition or more get names */

static const struct schema_type *const crd_type = &apiextensions_v1_custom_resource_definition_type;

static const struct apiextensions_v1_custom_resource_definition_condition *condition(const crd_object_t *o, const char *type)
{
	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		if (str_eqz(o->status.conditions.v[i].type, type))
			return &o->status.conditions.v[i];
	return NULL;
}

void crd_set_condition(struct arena *a, crd_object_t *o, const char *type, struct str status, struct str reason, struct str message)
{
	struct apiextensions_v1_custom_resource_definition_condition *c = (void *)(uintptr_t)condition(o, type);

	if (!c) {
		c = arena_push(a, &o->status.conditions);
		c->type = str_from(type);
	}
	if (!str_eq(c->status, status) || !c->last_transition_time.set)
		c->last_transition_time = time_now();
	c->status = status;
	c->reason = arena_str(a, reason);
	c->message = arena_str(a, message);
}

/* ---- writing ---- */

/* Changes *o, a copy of what is there, or leaves it. */
typedef void change_fn(struct request *rq, crd_object_t *o, void *ctx);
struct change {
	change_fn *fn;
	void *ctx;
};

static struct error *make(void *ctx, struct request *rq, const void *old, void **out)
{
	struct change *c = ctx;
	crd_object_t *o = arena_new(rq->a, crd_object_t);

	object_copy(rq->a, crd_type, old, o);
	o->metadata.resource_version = STR_NULL;
	c->fn(rq, o, c->ctx);
	*out = o;
	return NULL;
}

/* One write of the status, as the controllers' client makes it. *changed: there was something to write. Gone is fine. */
static struct error *write_status(struct apiserver *s, struct str name, change_fn *fn, void *ctx, bool *changed)
{
	struct arena a arena_cleanup = {0};
	struct change c = {fn, ctx};
	struct update u = {.make = make, .ctx = &c, .sub = "status", .retry = true, .flags = UPDATE_UNCONDITIONAL};
	struct cache_entry *was;
	struct request rq;
	struct write_result r;
	struct error *e;

	*changed = false;
	TRY(cache_get(s->crds->st->cache, STR_NULL, name, CACHE_ANY, 0, &was));
	if (!was)
		return NULL;
	request_internal(&rq, s, &a, resource_any(s, STR("apiextensions.k8s.io"), STR("customresourcedefinitions")), STR_NULL);
	e = registry_update(&rq, STR_NULL, name, &u, &r);
	if (error_is(e, 404, NULL)) {
		error_clear(&e);
	} else if (!e) {
		*changed = r.deleted || !r.entry || r.entry->rev != was->rev;
		cache_entry_unref(r.entry);
	}
	cache_entry_unref(was);
	return e;
}

/* ---- names ---- */

/* Whether a name (of a resource, or a kind) is one that another definition of the group has been given. */
static bool taken(const struct crds *cs, const crd_object_t *o, struct str name, bool kind)
{
	size_t it = 0;
	struct str key;
	void *v;

	while (map_next(&cs->by_name, &it, &key, &v)) {
		const crd_object_t *x = ((struct crd *)v)->obj;
		const struct apiextensions_v1_custom_resource_definition_names *n = &x->status.accepted_names;

		if (!str_eq(x->spec.group, o->spec.group) || str_eq(key, o->metadata.name))
			continue;
		if (kind && (str_eq(n->kind, name) || str_eq(n->list_kind, name)))
			return true;
		if (!kind && (str_eq(n->plural, name) || str_eq(n->singular, name)))
			return true;
		for (uint32_t i = 0; !kind && i < n->short_names.n; i++)
			if (str_eq(n->short_names.v[i], name))
				return true;
	}
	return false;
}

struct naming {
	const struct crds *cs;
	const crd_object_t *o;
	const char *reason; /* of the last conflict */
	struct str message;
};

/* A name asked for is given unless another has it. */
static void give(struct request *rq, struct naming *n, struct str want, struct str *have, bool kind, const char *reason)
{
	if (str_eq(want, *have))
		return;
	if (!taken(n->cs, n->o, want, kind)) {
		*have = want;
		return;
	}
	n->reason = reason;
	n->message = arena_printf(rq->a, "\"%.*s\" is already in use", STR_ARG(want));
}

static void give_short_names(struct request *rq, struct naming *n, const struct apiextensions_v1_custom_resource_definition_names *want,
			     struct apiextensions_v1_custom_resource_definition_names *have)
{
	struct buf b buf_cleanup = {0};
	uint32_t conflicts = 0;

	for (uint32_t i = 0; i < want->short_names.n; i++) {
		bool own = false;

		for (uint32_t k = 0; k < have->short_names.n; k++)
			own |= str_eq(have->short_names.v[k], want->short_names.v[i]);
		if (!own && taken(n->cs, n->o, want->short_names.v[i], false))
			buf_printf(&b, "%s\"%.*s\" is already in use", conflicts++ ? ", " : "", STR_ARG(want->short_names.v[i]));
	}
	if (!conflicts) {
		have->short_names.v = want->short_names.v;
		have->short_names.n = want->short_names.n;
		return;
	}
	n->reason = "ShortNamesConflict";
	n->message = conflicts > 1 ? arena_printf(rq->a, "[%.*s]", STR_ARG(buf_view(&b))) : arena_str(rq->a, buf_view(&b));
}

static bool equivalent(const struct apiextensions_v1_custom_resource_definition_condition *c, const char *status, const char *reason, struct str message)
{
	return c && str_eqz(c->status, status) && str_eqz(c->reason, reason) && str_eq(c->message, message);
}

static void accept_names(struct request *rq, crd_object_t *o, void *ctx)
{
	const struct schema_type *t = &apiextensions_v1_custom_resource_definition_names_type;
	struct apiextensions_v1_custom_resource_definition_names have = o->status.accepted_names;
	const struct apiextensions_v1_custom_resource_definition_names *want = &o->spec.names;
	struct naming n = {.cs = ctx, .o = o};
	const char *status;

	if (object_equal(t, want, &have))
		return;
	give(rq, &n, want->plural, &have.plural, false, "PluralConflict");
	give(rq, &n, want->singular, &have.singular, false, "SingularConflict");
	give_short_names(rq, &n, want, &have);
	give(rq, &n, want->kind, &have.kind, true, "KindConflict");
	give(rq, &n, want->list_kind, &have.list_kind, true, "ListKindConflict");
	have.categories.v = want->categories.v;
	have.categories.n = want->categories.n;
	status = n.reason ? "False" : "True";
	if (!n.reason) {
		n.reason = "NoConflicts";
		n.message = STR("no conflicts found");
	}
	if (object_equal(t, &have, &o->status.accepted_names) && equivalent(condition(o, "NamesAccepted"), status, n.reason, n.message))
		return;
	o->status.accepted_names = have;
	crd_set_condition(rq->a, o, "NamesAccepted", str_from(status), str_from(n.reason), n.message);
	if (!crd_condition(o, "Established") && crd_condition(o, "NamesAccepted"))
		crd_set_condition(rq->a, o, "Established", STR("False"), STR("Installing"), STR("the initial names have been accepted"));
	else if (!condition(o, "Established"))
		crd_set_condition(rq->a, o, "Established", STR("False"), STR("NotAccepted"), STR("not all names are accepted"));
}

static void establish(struct request *rq, crd_object_t *o, void *ctx)
{
	const struct apiextensions_v1_webhook_conversion *w = o->spec.conversion ? o->spec.conversion->webhook : NULL;

	(void)ctx;
	if (!crd_condition(o, "NamesAccepted") || crd_condition(o, "Established"))
		return;
	if (w && w->client_config && w->client_config->ca_bundle.n && !crd_ca_bundle_valid(w->client_config->ca_bundle))
		crd_set_condition(rq->a, o, "Established", STR("False"), STR("InvalidCABundle"),
				  STR("The conversion webhook CABundle is invalid"));
	else
		crd_set_condition(rq->a, o, "Established", STR("True"), STR("InitialNamesAccepted"),
				  STR("the initial names have been accepted"));
}

static void approve(struct request *rq, crd_object_t *o, void *ctx)
{
	static const char *const reasons[] = {[CRD_APPROVED] = "ApprovedAnnotation", [CRD_APPROVAL_BYPASSED] = "UnapprovedAnnotation",
					      [CRD_APPROVAL_MISSING] = "MissingAnnotation", [CRD_APPROVAL_INVALID] = "InvalidAnnotation"};
	struct str why;
	enum crd_approval state;

	(void)ctx;
	if (!crd_group_protected(o->spec.group))
		return;
	state = crd_approval_of(rq->a, o, &why);
	if (!equivalent(condition(o, "KubernetesAPIApprovalPolicyConformant"), state == CRD_APPROVED ? "True" : "False", reasons[state], why))
		crd_set_condition(rq->a, o, "KubernetesAPIApprovalPolicyConformant", state == CRD_APPROVED ? STR("True") : STR("False"),
				  str_from(reasons[state]), why);
}

static void drop_condition(crd_object_t *o, const char *type)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		if (!str_eqz(o->status.conditions.v[i].type, type))
			o->status.conditions.v[n++] = o->status.conditions.v[i];
	o->status.conditions.n = n;
}

/* Definitions of old clusters need not be structural; what is written now is. */
static void judge_structure(struct request *rq, crd_object_t *o, void *ctx)
{
	static const char type[] = "NonStructuralSchema";
	struct field_errors e = {.arena = rq->a};
	struct buf b buf_cleanup = {0};
	const char *status = "True", *reason = "Violations";

	(void)ctx;
	if (o->spec.preserve_unknown_fields)
		field_invalid_raw(&e, FIELD_CHILD(FIELD_ROOT("spec"), "preserveUnknownFields"), STR("true"), "must be false");
	for (uint32_t i = 0; i < o->spec.versions.n; i++) {
		const struct apiextensions_v1_custom_resource_validation *v = o->spec.versions.v[i].schema;
		const struct field_path *at = FIELD_CHILD(FIELD_CHILD(FIELD_INDEX(FIELD_CHILD(FIELD_ROOT("spec"), "versions"), i), "schema"),
							  "openAPIV3Schema");
		const char *never = v ? schema_unsupported(v->open_apiv3_schema) : NULL;

		if (never) {
			buf_printf(&b, "the schema of version %.*s has %s", STR_ARG(o->spec.versions.v[i].name), never);
			status = "Unknown";
			reason = "StructuralError";
			break;
		}
		if (v && v->open_apiv3_schema)
			schema_check_structure(&e, v->open_apiv3_schema, at);
	}
	if (b.n)
		e.list.n = 0;
	for (uint32_t i = 0; i < e.list.n; i++)
		buf_printf(&b, "%s%.*s: %.*s", i ? ", " : e.list.n > 1 ? "[" : "", STR_ARG(e.list.v[i].field), STR_ARG(e.list.v[i].body));
	if (e.list.n > 1)
		buf_putc(&b, ']');
	if (!b.n)
		drop_condition(o, type);
	else if (!equivalent(condition(o, type), status, reason, buf_view(&b)))
		crd_set_condition(rq->a, o, type, str_from(status), str_from(reason), buf_view(&b));
}

struct error *crd_settle(struct apiserver *s, struct str name)
{
	const struct crd *c;
	bool named, changed;

	TRY(write_status(s, name, accept_names, s->crds, &named));
	TRY(write_status(s, name, establish, NULL, &changed));
	TRY(write_status(s, name, approve, NULL, &changed));
	TRY(write_status(s, name, judge_structure, NULL, &changed));
	crds_sync(s);
	c = map_get(&s->crds->by_name, name);
	if (named && c) {
		struct arena a arena_cleanup = {0};

		crd_settle_group(s, arena_str(&a, c->obj->spec.group));
	}
	return NULL;
}

/* One of the group whose names were not accepted. */
static struct str waiting(const struct crds *cs, struct arena *a, struct str group, const struct map *asked)
{
	size_t it = 0;
	struct str key;
	void *v;

	while (map_next(&cs->by_name, &it, &key, &v)) {
		const crd_object_t *o = ((struct crd *)v)->obj;

		if (str_eq(o->spec.group, group) && !map_has(asked, key) &&
		    !object_equal(&apiextensions_v1_custom_resource_definition_names_type, &o->spec.names, &o->status.accepted_names))
			return arena_str(a, key);
	}
	return STR_NULL;
}

void crd_settle_group(struct apiserver *s, struct str group)
{
	struct arena a arena_cleanup = {0};
	struct map asked = {0};
	struct str name;

	for (int i = 0; i < SETTLE_ROUNDS_MAX && (name = waiting(s->crds, &a, group, &asked)).n; i++) {
		bool named = false, changed;
		struct error *e = write_status(s, name, accept_names, s->crds, &named);

		if (!e)
			e = write_status(s, name, establish, NULL, &changed);
		log_and_free(e, "names of CustomResourceDefinition %.*s", STR_ARG(name));
		map_set(&asked, name, s);
		crds_sync(s);
	}
	map_free(&asked);
}

/* ---- the end ---- */

struct verdict {
	struct str status, reason, message;
	bool drop; /* the finalizer */
};

static void terminating(struct request *rq, crd_object_t *o, void *ctx)
{
	const struct verdict *v = ctx;
	uint32_t n = 0;

	crd_set_condition(rq->a, o, "Terminating", v->status, v->reason, v->message);
	if (!v->drop)
		return;
	for (uint32_t i = 0; i < o->metadata.finalizers.n; i++)
		if (!str_eqz(o->metadata.finalizers.v[i], CRD_FINALIZER))
			o->metadata.finalizers.v[n++] = o->metadata.finalizers.v[i];
	o->metadata.finalizers.n = n;
}

/* Deletes all of its objects once; *left: how many are still there. */
static struct error *delete_objects(struct crd *c, struct resource *res, size_t *left)
{
	struct arena a arena_cleanup = {0};
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;

	*left = 0;
	TRY(cache_snapshot(c->st->cache, CACHE_CONSISTENT, 0, &snap));
	cache_iter_init(&it, c->st->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((en = cache_iter_next(&it)) != NULL) {
		struct request rq;
		struct meta_v1_delete_options o = {0};
		struct write_result r;
		struct str ns, name;
		struct error *e;

		arena_reset(&a);
		ns = arena_str(&a, cache_entry_ns(en));
		name = arena_str(&a, cache_entry_name(en));
		++*left;
		request_internal(&rq, c->s, &a, res, ns);
		e = registry_delete(&rq, ns, name, &o, &r);
		if (error_is(e, 404, NULL))
			error_clear(&e);
		if (!e && r.deleted)
			--*left;
		log_and_free(e, "removing custom resource %.*s", STR_ARG(name));
	}
	cache_snap_free(snap);
	return NULL;
}

static struct error *clean(struct crd *c)
{
	struct verdict going = {STR("True"), STR("InstanceDeletionInProgress"), STR("CustomResource deletion is in progress"), false},
		       end = {STR("False"), STR("InstanceDeletionCompleted"), STR("removed all instances"), true};
	int64_t wait = 50;
	bool changed;

	TRY(write_status(c->s, c->name, terminating, &going, &changed));
	if (!c->st) {
		end.reason = STR("NeverEstablished");
		end.message = STR("resource was never established");
	}
	for (size_t i = 0; i < c->n_versions; i++) {
		size_t left = 1;

		/* in the version they are stored in, so that no webhook has to live for it */
		while (c->versions[i].v->storage && left) {
			TRY(delete_objects(c, c->versions[i].res, &left));
			if (left)
				TRY(fiber_sleep(wait));
			wait = wait < CLEAN_WAIT_MAX_MS ? wait * 2 : CLEAN_WAIT_MAX_MS;
		}
	}
	return write_status(c->s, c->name, terminating, &end, &changed);
}

static void clean_fiber(void *arg)
{
	struct crd *c = arg, *now;
	struct error *e = clean(c);

	if (e) {
		/* tried again at the next change or start */
		now = map_get(&c->s->crds->by_name, c->name);
		if (now)
			now->cleaning = false;
		if (error_is_sys(e, ECANCELED))
			error_clear(&e);
		log_and_free(e, "removing the objects of CustomResourceDefinition %.*s", STR_ARG(c->name));
	}
	crd_release(c);
}

void crd_clean_start(struct crd *c)
{
	if (c->cleaning || !c->terminating || !c->finalizing)
		return;
	c->cleaning = true;
	crd_hold(c);
	background_start(c->s, "crd-cleanup", clean_fiber, c);
}
