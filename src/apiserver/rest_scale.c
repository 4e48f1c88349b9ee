/* The scale subresource: an autoscaling/v1 Scale made of an object, and what a change of it changes in that. */
#include "apiserver/rest_write_internal.h"

#include "apiserver/admission.h"
#include "apiserver/custom.h"
#include "apiserver/list.h"

static const struct api_column scale_columns[] = {
	{.name = "Name", .type = "string", .path = STR_INIT("metadata.name"), .absent = ""},
	{.name = "Desired", .type = "integer", .path = STR_INIT("spec.replicas"), .absent = ""},
	{.name = "Available", .type = "integer", .path = STR_INIT("status.replicas"), .absent = ""},
	{.name = "Age", .type = "string", .absent = "", .cell = table_cell_age},
};
static const struct api_resource scales = {
	.group = STR_INIT("autoscaling"),
	.version = STR_INIT("v1"),
	.kind = STR_INIT("Scale"),
	.plural = STR_INIT("scales"),
	.type = &autoscaling_v1_scale_type,
	.columns = scale_columns,
	.n_columns = sizeof scale_columns / sizeof *scale_columns,
};

/* A custom resource's replicas that its object does not have, as long as nothing sets them. */
#define NO_REPLICAS INT32_MIN

static struct str scale_path(struct str json_path)
{
	return json_path.n && json_path.p[0] == '.' ? str_sub(json_path, 1, json_path.n) : json_path;
}

static struct error *scale_number(struct str path, const struct jv *obj, int32_t absent, int32_t *out)
{
	bool wrong;
	const struct jv *v = custom_at_path(obj, path, &wrong);

	if (wrong || (v && v->kind != JV_INT))
		return error_status(500, "", "%.*s accessor error: no integer is there", STR_ARG(path));
	*out = v ? (int32_t)v->i : absent;
	return NULL;
}

static struct error *custom_scale_read(struct request *rq, void *obj, struct autoscaling_v1_scale *s)
{
	const struct apiextensions_v1_custom_resource_subresource_scale *c = custom_scale(rq->res);
	struct jv tree;

	if (!c)
		return err_unknown_path();
	jv_from_object(rq->a, rq->res->st->type, obj, &tree);
	TRY(scale_number(c->spec_replicas_path, &tree, NO_REPLICAS, &s->spec.replicas));
	TRY(scale_number(c->status_replicas_path, &tree, 0, &s->status.replicas));
	if (c->label_selector_path && c->label_selector_path->n) {
		bool wrong;
		const struct jv *v = custom_at_path(&tree, *c->label_selector_path, &wrong);

		if (wrong || (v && v->kind != JV_STRING))
			return error_status(500, "", "%.*s accessor error: no string is there", STR_ARG(*c->label_selector_path));
		s->status.selector = jv_str(v);
	}
	return NULL;
}

/* Where replicas and selector are, by kind. */
static struct error *scale_read(struct request *rq, void *obj, struct autoscaling_v1_scale *s)
{
	struct storage *st = rq->res->st;
	const struct selector *ls = NULL;
	struct meta_v1_object_meta *m = object_meta(st->type, obj);

	memset(s, 0, sizeof *s);
	s->kind = STR("Scale");
	s->api_version = STR("autoscaling/v1");
	s->metadata.name = m->name;
	s->metadata.namespace = m->namespace;
	s->metadata.uid = m->uid;
	s->metadata.resource_version = m->resource_version;
	s->metadata.creation_timestamp = m->creation_timestamp;
#define TYPED(ctype, desc)                                                                                             \
	if (st->type == &desc) {                                                                                       \
		struct ctype *o = obj;                                                                                 \
		s->spec.replicas = o->spec.replicas ? *o->spec.replicas : 1;                                           \
		s->status.replicas = o->status.replicas;                                                               \
		if (o->spec.selector)                                                                                  \
			TRY(label_selector_from(rq->a, o->spec.selector, &ls));                                        \
		if (ls)                                                                                                \
			s->status.selector = selector_format(rq->a, ls);                                               \
		return NULL;                                                                                           \
	}
	TYPED(apps_v1_deployment, apps_v1_deployment_type)
	TYPED(apps_v1_replica_set, apps_v1_replica_set_type)
	TYPED(apps_v1_stateful_set, apps_v1_stateful_set_type)
#undef TYPED
	if (st->type == &core_v1_replication_controller_type) {
		struct core_v1_replication_controller *o = obj;

		s->spec.replicas = o->spec.replicas ? *o->spec.replicas : 1;
		s->status.replicas = o->status.replicas;
		s->status.selector = selector_format(rq->a, label_selector_from_map(rq->a, API_MAP(&o->spec.selector)));
		return NULL;
	}
	return rq->res->crd ? custom_scale_read(rq, obj, s) : err_unknown_path();
}

static struct error *scale_write(struct request *rq, void *obj, int32_t replicas)
{
	struct storage *st = rq->res->st;
	int32_t *v = arena_new(rq->a, int32_t);

	*v = replicas;
	if (st->type == &apps_v1_deployment_type)
		((struct apps_v1_deployment *)obj)->spec.replicas = v;
	else if (st->type == &apps_v1_replica_set_type)
		((struct apps_v1_replica_set *)obj)->spec.replicas = v;
	else if (st->type == &apps_v1_stateful_set_type)
		((struct apps_v1_stateful_set *)obj)->spec.replicas = v;
	else if (st->type == &core_v1_replication_controller_type)
		((struct core_v1_replication_controller *)obj)->spec.replicas = v;
	else if (rq->res->crd) {
		struct jv tree, *at = &tree;
		struct str rest = scale_path(custom_scale(rq->res)->spec_replicas_path);

		jv_from_object(rq->a, st->type, obj, &tree);
		for (;;) {
			struct str tok = str_cut(&rest, '.');

			if (!rest.p) {
				jv_set(rq->a, at, tok, jv_int(replicas));
				break;
			}
			at = jv_sub(rq->a, at, tok);
		}
		memset(obj, 0, st->type->size);
		return jv_to_object(rq->a, st->type, &tree, NULL, obj);
	}
	return NULL;
}

/* Where each version of the resource has its replicas. */
static const struct replicas_path *replicas_paths(struct request *rq, size_t *n)
{
	static const struct replicas_path core[] = {{STR_INIT("v1"), STR_INIT("spec.replicas")}};
	static const struct replicas_path apps[] = {
		{STR_INIT("apps/v1"), STR_INIT("spec.replicas")},
		{STR_INIT("apps/v1beta2"), STR_INIT("spec.replicas")},
		{STR_INIT("apps/v1beta1"), STR_INIT("spec.replicas")}, /* which had no ReplicaSets */
	};
	const struct apiextensions_v1_custom_resource_definition *d;
	struct replicas_path *v;

	if (!rq->res->crd) {
		*n = !rq->res->api->group.n ? 1 : rq->res->st->type == &apps_v1_replica_set_type ? 2 : 3;
		return rq->res->api->group.n ? apps : core;
	}
	d = crd_object(rq->res);
	*n = d->spec.versions.n;
	v = arena_array(rq->a, struct replicas_path, *n);
	for (size_t i = 0; i < *n; i++) {
		const struct apiextensions_v1_custom_resource_definition_version *one = &d->spec.versions.v[i];

		v[i].api_version = arena_printf(rq->a, "%.*s/%.*s", STR_ARG(d->spec.group), STR_ARG(one->name));
		if (one->subresources && one->subresources->scale)
			v[i].path = scale_path(one->subresources->scale->spec_replicas_path);
	}
	return v;
}

struct scale_ctx {
	struct autoscaling_v1_scale *scale; /* update */
	bool untyped;                       /* which did not say that it is a Scale */
	bool patch;
	struct patch_ctx p;
};

/* The scale as it will be, with its managers; rq->res is a resource of scales. */
static struct error *new_scale(struct scale_ctx *c, struct request *rq, struct autoscaling_v1_scale *was,
			       struct autoscaling_v1_scale **out)
{
	bool apply = c->patch && (c->p.type == PATCH_APPLY || c->p.type == PATCH_APPLY_CBOR);
	struct managed_fields_request mr = {
		.shape = shape_of_type(&autoscaling_v1_scale_type),
		.api_version = rq->res->api_version,
		.subresource = STR("scale"),
		.manager = rq->manager,
		.now = time_now(),
	};
	void *obj;

	TRY((c->patch ? make_patch : make_put)(c->patch ? (void *)&c->p : c->scale, rq, was, &obj));
	*out = obj;
	return apply ? NULL : managed_fields_update_object(rq->a, &mr, was, obj);
}

static struct error *validate_scale(struct request *rq, const struct autoscaling_v1_scale *s,
				    const struct meta_v1_object_meta *m)
{
	struct field_errors fe = {.arena = rq->a};

	if (rq->res->crd) /* whose replicas are judged with it */
		return s->spec.replicas == NO_REPLICAS ? err_bad_request("the spec replicas field cannot be empty")
						       : NULL;
	validate_object_meta(&fe, &s->metadata, true, NULL, FIELD_ROOT("metadata"), true);
	if (s->spec.replicas < 0)
		field_invalid_int(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "replicas"), s->spec.replicas,
				  "must be greater than or equal to 0");
	TRY(field_errors_status(&fe, STR("autoscaling"), STR("Scale"), m->name));
	if (s->metadata.uid.n && !str_eq(s->metadata.uid, m->uid))
		return err_conflict(rq->res->api->group,
				    arena_printf(rq->a, "%.*s/scale", STR_ARG(rq->res->api->plural)), m->name,
				    "Precondition failed: UID does not match");
	return NULL;
}

static bool scale_changed(const struct autoscaling_v1_scale *s, const struct autoscaling_v1_scale *was)
{
	struct autoscaling_v1_scale x = *s, y = *was;

	memset(&x.metadata.managed_fields, 0, sizeof x.metadata.managed_fields);
	memset(&y.metadata.managed_fields, 0, sizeof y.metadata.managed_fields);
	return !object_equal(&autoscaling_v1_scale_type, &x, &y);
}

/* Object to scale, scale to new scale, that to a new object. */
static struct error *make_scale(void *ctx, struct request *rq, const void *old, void **out)
{
	struct scale_ctx *c = ctx;
	struct resource *res = rq->res;
	const struct schema_type *t = res->st->type;
	struct storage st = {.group = scales.group,
			     .plural = scales.plural,
			     .type = scales.type,
			     .api_version = STR("autoscaling/v1"),
			     .kind = scales.kind,
			     .namespaced = res->st->namespaced};
	struct resource as_scale = {.api = &scales, .st = &st, .api_version = STR("autoscaling/v1")};
	struct autoscaling_v1_scale was, shown, *now = NULL;
	struct meta_v1_object_meta *m, keep;
	const struct replicas_path *paths;
	struct admission ad; /* which sees scales */
	static const char no_scale[] = "autoscaling/v1, Kind=Scale) to proper version: request to convert CR to an invalid group/version: "
				       "autoscaling/v1";
	void *obj = arena_alloc(rq->a, t->size);
	bool custom_apply;
	struct error *e;
	size_t n;

	object_copy(rq->a, t, old, obj);
	m = object_meta(t, obj);
	paths = replicas_paths(rq, &n);
	TRY(scale_read(rq, obj, &was));
	TRY(managed_fields_to_scale(rq->a, paths, n, m, &was.metadata));
	/* upstream's converter of custom resources takes neither a scale that is empty nor what its merge made */
	custom_apply = res->crd && c->patch && (c->p.type == PATCH_APPLY || c->p.type == PATCH_APPLY_CBOR);
	if (custom_apply && !was.metadata.managed_fields.n)
		return error_status(500, "", "failed to create manager for existing fields: failed to convert live object (/; %s", no_scale);
	rq->res = &as_scale;
	e = new_scale(c, rq, &was, &now);
	rq->res = res;
	TRY(e);
	if (custom_apply && scale_changed(now, &was))
		return error_status(500, "", "failed to convert new object (%.*s/%.*s; %s", STR_ARG(now->metadata.namespace),
				    STR_ARG(now->metadata.name), no_scale);
	TRY(admission_admit_body(&ad, rq, &autoscaling_v1_scale_type, m->name, now, &was));
	if (res->crd && c->untyped) /* nor what has no type: that loses its managers */
		memset(&now->metadata.managed_fields, 0, sizeof now->metadata.managed_fields);
	TRY(validate_scale(rq, now, m));
	keep = *m;
	TRY(scale_write(rq, obj, now->spec.replicas));
	m = object_meta(t, obj);
	memcpy(&m->managed_fields, &keep.managed_fields, sizeof m->managed_fields);
	TRY(managed_fields_from_scale(rq->a, paths, n, res->api_version, &now->metadata, m));
	m->resource_version = now->metadata.resource_version;
	*out = obj;
	/* what is judged is made of the object and nobody's */
	was.metadata.managed_fields.n = 0;
	shown = *now;
	shown.metadata.managed_fields.n = 0;
	ad.obj = &shown;
	return admission_validate(&ad);
}

static struct error *scale_table(struct request *rq, const struct autoscaling_v1_scale *s)
{
	struct table_options o = {.object = include_object(rq), .v1beta1 = rq->out.table_v1beta1, .now = time_now_micro()};
	struct meta_v1_list_meta lm = {.resource_version = s->metadata.resource_version};
	struct buf b buf_cleanup = {0};

	TRY(respond_table_options(rq));
	table_begin(&b, &scales, &o, &lm);
	table_row(&b, rq->a, &scales, &o, s, true);
	table_end(&b, &scales);
	return respond_json(rq, 200, buf_view(&b));
}

/* The body of an update, checked as that of any object. */
static struct error *scale_body(struct request *rq, struct scale_ctx *c)
{
	struct meta_v1_object_meta *m;

	TRY(typed_body(rq, "UpdateOptions", &autoscaling_v1_scale_type, scales.kind, STR("autoscaling/v1"),
		       (void **)&c->scale, &c->untyped));
	m = &c->scale->metadata;
	TRY(check_body_name(rq, m, false));
	if (rq->res->st->namespaced && !m->namespace.n)
		m->namespace = rq->info.ns;
	return NULL;
}

struct error *rest_scale(struct request *rq)
{
	struct autoscaling_v1_scale s;
	struct scale_ctx c = {0};
	struct update u = {.make = make_scale,
			   .ctx = &c,
			   .sub = "scale",
			   .flags = UPDATE_UNCONDITIONAL | UPDATE_NO_ADMISSION,
			   .apply = true};
	struct write_result r;
	struct error *e;
	void *obj;

	if (rq->res->crd && !custom_scale(rq->res))
		return err_unknown_path();
	if (str_eqz(rq->info.verb, "get")) {
		enum cache_mode mode;
		int64_t rev;

		TRY(rest_get_options(rq, &mode, &rev));
		TRY(registry_get(rq, rq->info.ns, rq->info.name, &obj));
		TRY(scale_read(rq, obj, &s));
		if (s.spec.replicas == NO_REPLICAS)
			return err_internal("the spec replicas field \"%.*s\" does not exist", STR_ARG(custom_scale(rq->res)->spec_replicas_path));
	} else {
		if (str_eqz(rq->info.verb, "patch")) {
			c.patch = u.retry = true;
			TRY(patch_body(rq, &c.p.type, &c.p.body, &c.p.o));
			if (c.p.type == PATCH_APPLY || c.p.type == PATCH_APPLY_CBOR)
				TRY(parse_config(rq, &c.p, STR("autoscaling/v1"), scales.kind));
		} else {
			TRY(scale_body(rq, &c));
			u.uid = c.scale->metadata.uid;
		}
		TRY(registry_update(rq, rq->info.ns, rq->info.name, &u, &r));
		/* what came of it when it was stored */
		e = r.entry && rq->res->crd ? custom_read(rq->a, rq->res, r.entry, true, &r.obj) : NULL;
		cache_entry_unref(r.entry);
		TRY(e);
		e = scale_read(rq, r.obj, &s);
		if (e) {
			struct error *w = err_bad_request("%s", error_message(e));

			error_free(e);
			return w;
		}
		if (s.spec.replicas == NO_REPLICAS) /* the schema does not know them */
			s.spec.replicas = 0;
	}
	return rq->out.as == ANSWER_TABLE ? scale_table(rq, &s) : respond_struct(rq, 200, &autoscaling_v1_scale_type, &s);
}
