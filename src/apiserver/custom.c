/* What a custom resource is, by the version that a request names: its schema over objects (crd_schema.c), what it has besides. */
#include "apiserver/crd_internal.h"

const struct apiextensions_v1_custom_resource_definition *crd_object(const struct resource *res)
{
	return res->crd->obj;
}

const struct apiextensions_v1_custom_resource_definition_version *crd_version(const struct resource *res)
{
	return res->crd_version->v;
}

const struct apiextensions_v1_json_schema_props *crd_schema(const struct resource *res)
{
	const struct apiextensions_v1_custom_resource_definition_version *v = res->crd_version->v;

	return v->schema ? v->schema->open_apiv3_schema : NULL;
}

struct shape custom_shape(const struct resource *res)
{
	return shape_of_crd(crd_schema(res));
}

void custom_reset_fields(const struct resource *res, const char *sub, struct managed_fields_request *mr)
{
	static const char *const main_reset[] = {"status", NULL};
	static const char *const status_only[] = {"status", NULL};

	if (!custom_has_status(res))
		return;
	if (!sub || !*sub)
		mr->reset = main_reset;
	else if (!strcmp(sub, "status"))
		mr->only = status_only;
}

void custom_warn_deprecated(struct request *rq)
{
	const struct apiextensions_v1_custom_resource_definition_version *v = rq->res->crd_version->v;

	if (!v->deprecated)
		return;
	if (v->deprecation_warning)
		request_warn(rq, "%.*s", STR_ARG(*v->deprecation_warning));
	else
		request_warn(rq, "%.*s %.*s is deprecated", STR_ARG(rq->res->api_version), STR_ARG(rq->res->api->kind));
}

bool custom_has_status(const struct resource *res)
{
	return res->crd_version->v->subresources && res->crd_version->v->subresources->status;
}

const struct apiextensions_v1_custom_resource_subresource_scale *custom_scale(const struct resource *res)
{
	return res->crd_version->v->subresources ? res->crd_version->v->subresources->scale : NULL;
}

bool custom_is_storage_version(const struct resource *res)
{
	return res->crd_version->v->storage;
}

bool crd_terminating(const struct resource *res)
{
	const struct crd *now = map_get(&res->crd->s->crds->by_name, res->crd->name);

	return (now ? now : res->crd)->terminating;
}

static struct error *rewrite(struct arena *a, const struct resource *res, struct jv *tree, void *obj)
{
	memset(obj, 0, res->st->type->size);
	return jv_to_object(a, res->st->type, tree, NULL, obj);
}

bool custom_bytes_fit(const struct resource *res, const struct cache_entry *e)
{
	/* A later write went through this schema; an earlier one may lack a default. */
	if (res->crd_version->defaults && e->rev <= res->crd->rev)
		return false;
	return str_has_prefix(block_str(e->body), res->crd_version->json_prefix);
}

struct error *custom_read_all(struct arena *a, const struct resource *res, void **objs, size_t n)
{
	TRY(custom_convert_all(a, res, objs, n, res->api_version));
	for (size_t i = 0; res->crd_version->defaults && i < n; i++) {
		struct jv tree;

		jv_from_object(a, res->st->type, objs[i], &tree);
		schema_default(a, crd_schema(res), &tree, true);
		TRY(rewrite(a, res, &tree, objs[i]));
	}
	return NULL;
}

struct error *custom_read(struct arena *a, const struct resource *res, void **obj)
{
	return custom_read_all(a, res, obj, 1);
}

struct error *custom_prune(struct arena *a, const struct resource *res, void *obj, struct decode_report *report)
{
	const struct apiextensions_v1_json_schema_props *p = crd_schema(res);
	struct jv tree;

	if (!p || res->crd->obj->spec.preserve_unknown_fields)
		return NULL;
	jv_from_object(a, res->st->type, obj, &tree);
	schema_prune(a, p, &tree, true, STR_NULL, report);
	return rewrite(a, res, &tree, obj);
}

struct error *custom_default_and_prune(struct request *rq, void *obj)
{
	const struct apiextensions_v1_json_schema_props *p = crd_schema(rq->res);
	struct jv tree;

	if (!p)
		return NULL;
	jv_from_object(rq->a, rq->res->st->type, obj, &tree);
	if (!rq->res->crd->obj->spec.preserve_unknown_fields)
		schema_prune(rq->a, p, &tree, true, STR_NULL, NULL);
	schema_default(rq->a, p, &tree, true);
	return rewrite(rq->a, rq->res, &tree, obj);
}

void custom_prepare_create(struct request *rq, void *obj)
{
	struct custom_head *h = obj;

	h->metadata.generation = 1;
	if (custom_has_status(rq->res))
		object_field_zero(rq->res->st->type, obj, "status");
}

void custom_validate(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apiextensions_v1_json_schema_props *p = crd_schema(rq->res);
	struct jv now, was;

	if (!p)
		return;
	jv_from_object(rq->a, rq->res->st->type, obj, &now);
	if (old)
		jv_from_object(rq->a, rq->res->st->type, old, &was);
	for (uint32_t i = 0; i < now.n; i++) {
		/* paths start at the members, not at the object */
		const struct jv_member *m = &now.members[i];
		const struct apiextensions_v1_json_schema_props *c = NULL;

		for (uint32_t k = 0; k < p->properties.n; k++)
			if (str_eq(p->properties.v[k].key, m->key))
				c = &p->properties.v[k].value;
		if (c && !str_eqz(m->key, "kind") && !str_eqz(m->key, "apiVersion"))
			schema_validate(e, c, &m->value, old ? jv_get(&was, m->key) : NULL, FIELD_CHILD_S(NULL, m->key), false);
	}
	for (uint32_t i = 0; i < p->required.n; i++)
		if (!jv_get(&now, p->required.v[i]))
			field_required(e, FIELD_CHILD_S(NULL, p->required.v[i]), "");
	{
		struct apiextensions_v1_json_schema_props rest = *p;

		/* what the root says besides members: allOf, anyOf, oneOf, not */
		memset(&rest.properties, 0, sizeof rest.properties);
		memset(&rest.required, 0, sizeof rest.required);
		rest.additional_properties = NULL;
		if (rest.all_of.n || rest.any_of.n || rest.one_of.n || rest.not)
			schema_validate(e, &rest, &now, old ? &was : NULL, NULL, true);
	}
	{
		struct crd_version *v = (struct crd_version *)(uintptr_t)rq->res->crd_version;

		if (!v->rules_known) {
			v->rules = crd_rules_new(p);
			v->rules_known = true;
		}
		crd_rules_validate(rq, v->rules, p, &now, old ? &was : NULL, e);
	}
}

void custom_columns(const struct resource *res, struct table_options *o)
{
	o->columns = res->crd_version->columns;
	o->n_columns = res->crd_version->v->additional_printer_columns.n;
}

struct error *custom_take_managed_fields(struct arena *a, const struct jv *tree, struct meta_v1_object_meta *m)
{
	struct jv wrap = jv_object();
	struct jv *mf = jv_at(tree, "metadata", "managedFields", NULL);
	struct meta_v1_object_meta *tmp = arena_new(a, struct meta_v1_object_meta);

	if (mf)
		jv_set(a, &wrap, STR("managedFields"), *mf);
	TRY(jv_to_object(a, &meta_v1_object_meta_type, &wrap, NULL, tmp));
	memcpy(&m->managed_fields, &tmp->managed_fields, sizeof m->managed_fields);
	return NULL;
}
