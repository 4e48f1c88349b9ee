/* What a definition becomes: its type, the place its objects are stored in, the resources that are served; and its end. */
#include "apiserver/crd_internal.h"
#include "apiserver/encrypt.h"
#include "apiserver/metrics.h"
#include "apiserver/storage_flags.h"

static const struct schema_field_info no_info = {.min_length = -1, .max_length = -1};

static void add_field(struct crd *c, uint16_t *n, struct str name, uint32_t offset, uint16_t flags, uint8_t kind,
		      const struct schema_type *type)
{
	c->fields[(*n)++] = (struct schema_field){.name = name, .flags = flags, .kind = kind, .card = CARD_ONE, .offset = offset, .type = type,
						  .info = &no_info, .elem_size = sizeof(struct str)};
}

static void make_type(struct crd *c, const crd_object_t *whole)
{
	const struct apiextensions_v1_custom_resource_definition_spec *s = &whole->spec;
	LIST(struct str) names = {0};
	uint16_t n = 0, *by_name;
	uint32_t offset = (sizeof(struct custom_head) + 15) & ~15u;

	*arena_push(&c->arena, &names) = STR("spec");
	*arena_push(&c->arena, &names) = STR("status");
	for (uint32_t i = 0; i < s->versions.n; i++) {
		const struct apiextensions_v1_json_schema_props *p = crd_schema_of(whole, i);

		for (uint32_t k = 0; p && k < p->properties.n; k++) {
			struct str key = p->properties.v[k].key;
			bool seen = str_eqz(key, "apiVersion") || str_eqz(key, "kind") || str_eqz(key, "metadata");

			for (uint32_t j = 0; j < names.n && !seen; j++)
				seen = str_eq(names.v[j], key);
			if (!seen && names.n < 1000)
				*arena_push(&c->arena, &names) = arena_str(&c->arena, key);
		}
	}
	/* sorted, as Go writes maps; spec and status fall into place */
	for (uint32_t i = 1; i < names.n; i++)
		for (uint32_t k = i; k > 0 && str_cmp(names.v[k - 1], names.v[k]) > 0; k--) {
			struct str t = names.v[k];

			names.v[k] = names.v[k - 1];
			names.v[k - 1] = t;
		}
	c->fields = arena_array(&c->arena, struct schema_field, names.n + 4);
	add_field(c, &n, STR("kind"), offsetof(struct custom_head, kind), FIELD_OMITEMPTY | FIELD_TYPEMETA, FIELD_STRING, NULL);
	add_field(c, &n, STR("apiVersion"), offsetof(struct custom_head, api_version), FIELD_OMITEMPTY | FIELD_TYPEMETA, FIELD_STRING, NULL);
	add_field(c, &n, STR("metadata"), offsetof(struct custom_head, metadata), 0, FIELD_MESSAGE, &meta_v1_object_meta_type);
	for (uint32_t i = 0; i < names.n; i++) {
		add_field(c, &n, names.v[i], offset, FIELD_OMITEMPTY, FIELD_ANY, NULL);
		offset += sizeof(struct str);
	}
	/* what no schema names: pruned, unless preserved */
	c->fields[n++] = (struct schema_field){.flags = FIELD_OMITEMPTY | FIELD_REST, .kind = FIELD_ANY, .card = CARD_MAP, .offset = offset,
					       .info = &no_info, .elem_size = 2 * sizeof(struct str), .value_offset = sizeof(struct str)};
	offset += sizeof(LIST(struct str_pair));
	by_name = arena_array(&c->arena, uint16_t, n - 1u);
	for (uint16_t i = 0; i < n - 1u; i++) {
		uint16_t k = i;

		for (; k > 0 && str_cmp(c->fields[by_name[k - 1]].name, c->fields[i].name) > 0; k--)
			by_name[k] = by_name[k - 1];
		by_name[k] = i;
	}
	c->type = (struct schema_type){
		.name = arena_strz(&c->arena, s->names.kind), .openapi = "", .group = c->obj->spec.group, .version = STR(""), .fields = c->fields,
		.n_fields = n, .pfields = c->fields, .n_pfields = 0, .size = offset, .metadata = offsetof(struct custom_head, metadata), .top = true,
		.by_name = by_name,
	};
}

const struct apiextensions_v1_custom_resource_definition_version *crd_storage_version(const crd_object_t *o)
{
	for (uint32_t i = 0; i < o->spec.versions.n; i++)
		if (o->spec.versions.v[i].storage)
			return &o->spec.versions.v[i];
	return o->spec.versions.n ? &o->spec.versions.v[0] : NULL;
}

static void store_unref(struct crd_store *t)
{
	if (!t || --t->refs)
		return;
	cache_free(t->cache);
	arena_free(&t->arena);
	free(t);
}

static struct error *make_store(struct apiserver *s, struct crd *c)
{
	const struct apiextensions_v1_custom_resource_definition_spec *sp = &c->obj->spec;
	const struct apiextensions_v1_custom_resource_definition_version *sv = crd_storage_version(c->obj);
	struct cache_resource cr = {.node_field = -1};
	struct crd_store *t = xcalloc(1, sizeof *t);
	struct cache_field *fields;
	struct error *e;

	t->refs = 1;
	cr.prefix = arena_str(&t->arena, c->st->prefix);
	cr.group = arena_str(&t->arena, sp->group);
	cr.version = arena_str(&t->arena, sv->name);
	cr.kind = arena_str(&t->arena, sp->names.kind);
	cr.namespaced = c->st->namespaced;
	cr.n_fields = (uint8_t)(sv->selectable_fields.n > CACHE_FIELDS_MAX ? CACHE_FIELDS_MAX : sv->selectable_fields.n);
	cr.fields = fields = arena_array(&t->arena, struct cache_field, cr.n_fields + 1);
	for (uint32_t i = 0; i < cr.n_fields; i++) {
		struct str p = sv->selectable_fields.v[i].json_path;

		fields[i].name = arena_str(&t->arena, p.n && p.p[0] == '.' ? str_sub(p, 1, p.n) : p);
	}
	cr.called = metrics_store_call;
	cr.waited = metrics_cache_waited;
	cr.called_ctx = c->st->metrics;
	if (c->st->encryption) {
		cr.plain = encryption_open;
		cr.sealed = encryption_sealed;
		cr.ctx = c->st->encryption;
		cr.late = true;
	}
	e = cache_new(s->store, &cr, &t->cache);
	if (e) {
		arena_free(&t->arena);
		free(t);
		return e;
	}
	c->store = t;
	return NULL;
}

static struct error *make_storage(struct apiserver *s, struct crd *c, const struct crd *old)
{
	const struct apiextensions_v1_custom_resource_definition_spec *sp = &c->obj->spec;
	struct storage *st = arena_new(&c->arena, struct storage);

	c->st = st;
	st->group = sp->group;
	st->plural = sp->names.plural;
	st->prefix = arena_printf(&c->arena, "%s/%.*s/%.*s/", s->o.etcd_prefix, STR_ARG(sp->group),
				  STR_ARG(sp->names.plural));
	st->type = &c->type;
	st->kind = sp->names.kind;
	st->api_version = arena_printf(&c->arena, "%.*s/%.*s", STR_ARG(sp->group), STR_ARG(crd_storage_version(c->obj)->name));
	st->namespaced = str_eqz(sp->scope, "Namespaced");
	st->stored_version = st->api_version;
	st->media = MEDIA_JSON;
	st->store = s->store;
	st->uncached = !storage_cached(&s->o, sp->group, sp->names.plural);
	st->crd = c;
	st->metrics = metrics_storage(sp->group, sp->names.plural);
	st->encryption = encryption_for(s, sp->group, sp->names.plural, st->prefix);
	if (old && old->store) {
		c->store = old->store;
		c->store->refs++;
	} else {
		struct error *e = make_store(s, c);

		if (e) {
			c->st = NULL;
			return e;
		}
	}
	st->cache = c->store->cache;
	return NULL;
}

/* Without columns of its own it has that of its age; from the first path that cannot be read, no more columns. */
static const struct table_column *
make_columns(struct arena *a, const struct apiextensions_v1_custom_resource_definition_version *v, size_t *n)
{
	static const struct apiextensions_v1_custom_resource_column_definition age = {
		.name = STR_INIT("Age"),
		.type = STR_INIT("date"),
		.json_path = STR_INIT(".metadata.creationTimestamp"),
		.description = STR_INIT("Time since the object was created."),
	};
	uint32_t own = v->additional_printer_columns.n, count = own ? own : 1;
	struct table_column *c = arena_array(a, struct table_column, count);

	for (*n = 0; *n < count; ++*n) {
		const struct apiextensions_v1_custom_resource_column_definition *d =
			own ? &v->additional_printer_columns.v[*n] : &age;
		const struct json_path *path = json_path_new(a, d->json_path);

		if (!path)
			break;
		c[*n] = (struct table_column){.name = d->name,
					      .type = d->type,
					      .format = d->format,
					      .description = d->description,
					      .path = path,
					      .priority = d->priority};
		if (!d->description.n)
			c[*n].description = arena_printf(a, "Custom resource definition column (in JSONPath format): %.*s", STR_ARG(d->json_path));
	}
	return c;
}

static struct api_resource *make_api_resource(struct crd *c, const struct apiextensions_v1_custom_resource_definition_version *v)
{
	const struct apiextensions_v1_custom_resource_definition_spec *sp = &c->obj->spec;
	const struct apiextensions_v1_custom_resource_definition_names *names = &c->obj->status.accepted_names;
	struct api_resource *r = arena_new(&c->arena, struct api_resource);
	struct api_subresource *sub = arena_array(&c->arena, struct api_subresource, 2);

	r->group = sp->group;
	r->version = v->name;
	r->plural = names->plural;
	r->singular = names->singular;
	r->kind = names->kind;
	r->list_kind = names->list_kind;
	r->namespaced = str_eqz(sp->scope, "Namespaced");
	r->verbs = VERB_CREATE | VERB_DELETE | VERB_DELETECOLLECTION | VERB_GET | VERB_LIST | VERB_PATCH | VERB_UPDATE | VERB_WATCH;
	r->short_names = names->short_names.v;
	r->n_short_names = (uint8_t)names->short_names.n;
	r->categories = names->categories.v;
	r->n_categories = (uint8_t)names->categories.n;
	r->type = &c->type;
	r->subresources = sub;
	if (v->subresources && v->subresources->status)
		sub[r->n_subresources++] = (struct api_subresource){.name = STR("status"), .kind = names->kind,
								    .verbs = VERB_GET | VERB_PATCH | VERB_UPDATE};
	if (v->subresources && v->subresources->scale)
		sub[r->n_subresources++] = (struct api_subresource){.name = STR("scale"), .kind = STR("Scale"), .group = STR("autoscaling"),
								    .version = STR("v1"), .verbs = VERB_GET | VERB_PATCH | VERB_UPDATE};
	return r;
}

struct error *crd_make(struct apiserver *s, struct crd *c, const crd_object_t *whole, const struct crd *old)
{
	const struct apiextensions_v1_custom_resource_definition_spec *sp = &c->obj->spec;

	make_type(c, whole);
	TRY(make_storage(s, c, old));
	c->n_versions = sp->versions.n;
	c->versions = arena_array(&c->arena, struct crd_version, c->n_versions);
	for (uint32_t i = 0; i < sp->versions.n; i++) {
		const struct apiextensions_v1_custom_resource_definition_version *v = &sp->versions.v[i];
		const struct apiextensions_v1_json_schema_props *p = crd_schema_of(whole, i);
		struct resource *res = arena_new(&c->arena, struct resource);

		res->api = make_api_resource(c, v);
		res->st = c->st;
		res->crd = c;
		res->api_version = arena_printf(&c->arena, "%.*s/%.*s", STR_ARG(sp->group), STR_ARG(v->name));
		res->crd_version = &c->versions[i];
		c->versions[i] = (struct crd_version){
			.v = v,
			.res = res,
			.schema = &c->schemas[i],
			.defaults = p && schema_has_defaults(p),
			.embedded = p && schema_has_embedded(p),
			.json_version = arena_printf(&c->arena, "\"apiVersion\":\"%.*s\"", STR_ARG(res->api_version)),
		};
		c->versions[i].columns = make_columns(&c->arena, v, &c->versions[i].n_columns);
	}
	return NULL;
}

void crd_free(void *p)
{
	struct crd *c = p;

	if (c->refs) /* a watch began with it meanwhile: it is retired again when that ends */
		return;
	for (size_t i = 0; i < c->n_versions; i++)
		crd_tree_drop(c->s->crds, &c->versions[i]);
	hook_conn_free(&c->conn);
	store_unref(c->store);
	arena_free(&c->arena);
	free(c);
}
