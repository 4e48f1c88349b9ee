/*
 * Definitions of custom resources in OpenAPI documents: a CustomResourceDefinition's schema as it is published. v3 says
 * all of it; v2 what kubectl's reader of it can bear (apiextensions-apiserver/pkg/controller/openapi).
 */
#include "base/log.h"
#include "schema/openapi_internal.h"

#define MORE " More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#"

/* The first words of apiVersion's and of metadata's are looked for in what kubectl explain prints (conformance). */
static const char api_version_doc[] =
	"APIVersion defines the version of the schema this object is written in: group/version, or v1." MORE
	"resources";
static const char kind_doc[] =
	"Name of the kind of this object, in CamelCase; it cannot be changed." MORE "types-kinds";
static const char metadata_doc[] =
	"Standard object's metadata: its name, identity, labels and history." MORE "metadata";
static const char list_metadata_doc[] = "Standard metadata of lists." MORE "types-kinds";

static void name_types(struct openapi_doc *d, const struct schema_type *t)
{
	if (!*t->openapi || map_has(&d->built_in, str_from(t->openapi)))
		return;
	map_set(&d->built_in, str_from(t->openapi), d);
	for (unsigned i = 0; i < t->n_fields; i++)
		if (t->fields[i].type)
			name_types(d, t->fields[i].type);
}

/* In a document of everything the name of a built-in type is that type's. */
static bool is_taken(struct openapi_doc *d, struct str name)
{
	bool known = d->built_in.n > 0;

	if (d->v3)
		return false;
	for (size_t i = 0; !known && i < n_api_types; i++)
		name_types(d, api_types[i]);
	return map_has(&d->built_in, name);
}

struct str openapi_crd_name(struct openapi_doc *d, const struct openapi_crd *c, bool list)
{
	buf_cleanup struct buf b = {0};
	struct str rest = c->group;

	/* The group's parts in reverse: example.com -> com.example */
	while (rest.n) {
		ptrdiff_t dot = str_rindex(rest, '.');

		buf_str(&b, str_sub(rest, (size_t)(dot + 1), rest.n));
		buf_putc(&b, '.');
		rest = dot < 0 ? STR_NULL : str_sub(rest, 0, (size_t)dot);
	}
	buf_str(&b, c->version);
	buf_putc(&b, '.');
	buf_str(&b, list ? c->list_kind : c->kind);
	if (is_taken(d, buf_view(&b)))
		buf_puts(&b, "_v2");
	return arena_str(d->a, buf_view(&b));
}

/* ---- what a schema says of itself ---- */

static bool says(const struct jv *v, const char *name)
{
	const struct jv *m = jv_get(v, str_from(name));

	return m && m->kind == JV_BOOL && m->b;
}

static bool has_type(const struct jv *v, const char *type)
{
	const struct jv *t = jv_get(v, STR("type"));

	return t && t->kind == JV_STRING && str_eqz(jv_str(t), type);
}

static const struct jv *list_of(const struct jv *v, const char *name)
{
	const struct jv *l = jv_get(v, str_from(name));

	return l && l->kind == JV_ARRAY && l->n ? l : NULL;
}

/* What says nothing is not said: false, nothing in a list, an example that is empty, a default of null. */
static void drop_empty(struct jv *v)
{
	static const char *const flags[] = {"nullable",
					    "uniqueItems",
					    "exclusiveMinimum",
					    "exclusiveMaximum",
					    "x-kubernetes-int-or-string",
					    "x-kubernetes-embedded-resource",
					    "x-kubernetes-preserve-unknown-fields"},
				 *const lists[] = {"required",
						   "enum",
						   "allOf",
						   "anyOf",
						   "oneOf",
						   "properties",
						   "x-kubernetes-list-map-keys",
						   "x-kubernetes-validations"};
	const struct jv *example = jv_get(v, STR("example")), *value;

	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (!says(v, flags[i]))
			jv_del(v, str_from(flags[i]));
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		const struct jv *l = jv_get(v, str_from(lists[i]));

		if (l && !l->n)
			jv_del(v, str_from(lists[i]));
	}
	if (example && (example->kind == JV_NULL || (example->kind == JV_STRING && !jv_str(example).n) ||
			((example->kind == JV_ARRAY || example->kind == JV_OBJECT) && !example->n)))
		jv_del(v, STR("example"));
	value = jv_get(v, STR("default"));
	if (value && value->kind == JV_NULL)
		jv_del(v, STR("default"));
}

/* ---- int-or-string: the alternatives are spelled out ---- */

static bool only_type(const struct jv *v, const char *type)
{
	return v->kind == JV_OBJECT && v->n == 1 && has_type(v, type);
}

static bool is_integer_or_string(const struct jv *any)
{
	return any && any->n == 2 && only_type(&any->items[0], "integer") && only_type(&any->items[1], "string");
}

static void unfold(struct arena *a, struct jv *v)
{
	const struct jv *any = list_of(v, "anyOf"), *all = list_of(v, "allOf");
	struct jv both = jv_array(), first, wrapped = jv_object(), list = jv_array();

	if (is_integer_or_string(any) ||
	    (all && all->items[0].n == 1 && is_integer_or_string(list_of(&all->items[0], "anyOf"))))
		return;
	for (int i = 0; i < 2; i++) {
		first = jv_object();
		jv_set(a, &first, STR("type"), jv_string(i ? STR("string") : STR("integer")));
		jv_push(a, &both, first);
	}
	if (!any) {
		jv_set(a, v, STR("anyOf"), both);
		return;
	}
	jv_set(a, &wrapped, STR("anyOf"), both);
	jv_push(a, &list, wrapped);
	for (uint32_t i = 0; all && i < all->n; i++)
		jv_push(a, &list, all->items[i]);
	jv_set(a, v, STR("allOf"), list);
}

/* ---- v2 ---- */

static struct jv without_nullable(struct arena *a, const struct jv *required, const struct jv *properties)
{
	struct jv out = jv_array();

	for (uint32_t i = 0; i < required->n; i++)
		if (!says(jv_get(properties, jv_str(&required->items[i])), "nullable"))
			jv_push(a, &out, required->items[i]);
	return out;
}

/* One schema, before those in it. */
static void v2_subset(struct arena *a, struct jv *v)
{
	static const char *const gone[] = {"oneOf", "anyOf", "allOf", "not", "default"};
	bool open = says(v, "x-kubernetes-preserve-unknown-fields"), nullable = says(v, "nullable");
	const struct jv *required, *properties, *values;

	for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
		jv_del(v, str_from(gone[i]));
	if (nullable) {
		jv_del(v, STR("nullable"));
		jv_del(v, STR("type"));
	}
	if (nullable || open) {
		jv_del(v, STR("items"));
		jv_del(v, STR("properties"));
	}
	if ((has_type(v, "array") && !jv_get(v, STR("items"))) || (has_type(v, "object") && open))
		jv_del(v, STR("type"));
	required = list_of(v, "required");
	properties = jv_get(v, STR("properties"));
	values = jv_get(v, STR("additionalProperties"));
	if (required && properties)
		jv_set(a, v, STR("required"), without_nullable(a, required, properties));
	if (values && says(values, "nullable"))
		jv_del(v, STR("required"));
}

/* ---- the whole ---- */

static struct jv ref_tree(struct openapi_doc *d, const struct schema_type *t)
{
	struct buf *out = d->b;
	buf_cleanup struct buf b = {0};
	struct jv v;

	d->b = &b;
	openapi_ref(d, t);
	d->b = out;
	struct error *e = jv_parse(d->a, arena_str(d->a, buf_view(&b)), NULL, &v);

	if (e) {
		error_free(e); /* our own text */
		v = jv_object();
	}
	if (!d->v3)
		return v;
	struct jv wrapped = jv_object(), list = jv_array();

	jv_push(d->a, &list, v);
	jv_set(d->a, &wrapped, STR("allOf"), list);
	return wrapped;
}

static void string_property(struct openapi_doc *d, struct jv *properties, struct str name, const char *doc)
{
	struct jv s = jv_object();

	jv_set(d->a, &s, STR("description"), jv_string(str_from(doc)));
	jv_set(d->a, &s, STR("type"), jv_string(STR("string")));
	jv_set(d->a, properties, name, s);
}

/* apiVersion, kind and metadata, whatever the schema says of them. */
static void object_properties(struct openapi_doc *d, struct jv *v, const struct schema_type *meta, const char *meta_doc)
{
	struct jv *properties = jv_sub(d->a, v, STR("properties")), m = ref_tree(d, meta);

	string_property(d, properties, STR("apiVersion"), api_version_doc);
	string_property(d, properties, STR("kind"), kind_doc);
	jv_set(d->a, &m, STR("description"), jv_string(str_from(meta_doc)));
	jv_set(d->a, properties, STR("metadata"), m);
}

static void require(struct arena *a, struct jv *v, const char *name)
{
	struct jv *list = jv_get(v, STR("required"));

	if (!list)
		list = jv_set(a, v, STR("required"), jv_array());
	for (uint32_t i = 0; i < list->n; i++)
		if (str_eqz(jv_str(&list->items[i]), name))
			return;
	jv_push(a, list, jv_string(str_from(name)));
}

static void publish(struct openapi_doc *d, struct jv *v, bool junctor, int depth);

static void publish_all(struct openapi_doc *d, struct jv *v, const char *name, bool junctor, int depth)
{
	struct jv *l = jv_get(v, str_from(name));

	for (uint32_t i = 0; l && i < l->n; i++)
		publish(d, l->kind == JV_OBJECT ? &l->members[i].value : &l->items[i], junctor, depth);
}

/* A schema as it is published, in place; junctor: within allOf and the like. */
static void publish(struct openapi_doc *d, struct jv *v, bool junctor, int depth)
{
	static const char *const one[] = {"items", "additionalProperties", "not"}, *const junctors[] = {
											   "allOf", "anyOf", "oneOf"};
	struct jv *sub;

	if (v->kind != JV_OBJECT || depth > JV_MAX_DEPTH)
		return;
	if (!d->v3)
		v2_subset(d->a, v);
	else if (!junctor && says(v, "x-kubernetes-int-or-string"))
		unfold(d->a, v);
	drop_empty(v);
	publish_all(d, v, "properties", junctor, depth + 1);
	for (size_t i = 0; i < sizeof junctors / sizeof *junctors; i++)
		publish_all(d, v, junctors[i], true, depth + 1);
	for (size_t i = 0; i < sizeof one / sizeof *one; i++)
		if ((sub = jv_get(v, str_from(one[i]))) != NULL)
			publish(d, sub, junctor || i == 2, depth + 1);
	/* kubectl takes the properties that v2 names for all there are */
	if (junctor || !says(v, "x-kubernetes-embedded-resource") ||
	    (!d->v3 && says(v, "x-kubernetes-preserve-unknown-fields")))
		return;
	object_properties(d, v, &meta_v1_object_meta_type, metadata_doc);
	require(d->a, v, "kind");
	require(d->a, v, "apiVersion");
}

static struct jv object_schema(struct openapi_doc *d, const struct openapi_crd *c)
{
	struct apiextensions_v1_json_schema_props p = {0};
	struct arena tree arena_cleanup = {0}; /* much larger than what is made of it: not kept for all */
	struct jv v = jv_object(), *metadata;

	if (c->schema.p) {
		struct error *e = pb_decode(&tree, &apiextensions_v1_json_schema_props_type, c->schema, &p);
		const bool *open = p.x_kubernetes_preserve_unknown_fields;

		if (e)
			log_and_free(e, "schema of %.*s", STR_ARG(c->kind));
		else if (d->v3 || !((open && *open) || c->preserve_unknown)) {
			jv_from_object(d->a, &apiextensions_v1_json_schema_props_type, &p, &v);
			metadata = jv_get(&v, STR("properties"));
			if (metadata)
				jv_del(metadata, STR("metadata"));
			publish(d, &v, false, 0);
			object_properties(d, &v, &meta_v1_object_meta_type, metadata_doc);
			return v;
		}
	}
	jv_set(d->a, &v, STR("type"), jv_string(STR("object")));
	return v;
}

static struct jv list_schema(struct openapi_doc *d, const struct openapi_crd *c)
{
	struct jv v = jv_object(), items = jv_object(), item = jv_object();

	jv_set(d->a, &v, STR("description"),
	       jv_string(arena_printf(d->a, "%.*s: a list of %.*s", STR_ARG(c->list_kind), STR_ARG(c->kind))));
	jv_set(d->a, &v, STR("type"), jv_string(STR("object")));
	object_properties(d, &v, &meta_v1_list_meta_type, list_metadata_doc);
	jv_set(d->a, &item, STR("$ref"),
	       jv_string(arena_printf(d->a, "#/%s/%.*s", d->v3 ? "components/schemas" : "definitions",
				      STR_ARG(openapi_crd_name(d, c, false)))));
	jv_set(d->a, &items, STR("description"), jv_string(arena_printf(d->a, "The %.*s." MORE, STR_ARG(c->plural))));
	jv_set(d->a, &items, STR("items"), item);
	jv_set(d->a, &items, STR("type"), jv_string(STR("array")));
	jv_set(d->a, jv_sub(d->a, &v, STR("properties")), STR("items"), items);
	require(d->a, &v, "items");
	return v;
}

static void selectable_fields(struct arena *a, const struct openapi_crd *c, struct jv *v)
{
	struct jv list = jv_array();

	for (uint32_t i = 0; i < c->n_selectable; i++) {
		struct jv one = jv_object();
		struct str path = c->selectable[i].json_path;

		jv_set(a, &one, STR("fieldPath"),
		       jv_string(path.n && path.p[0] == '.' ? str_sub(path, 1, path.n) : path));
		jv_push(a, &list, one);
	}
	if (list.n)
		jv_set(a, v, STR("x-kubernetes-selectable-fields"), list);
}

void openapi_crd_definition(struct openapi_doc *d, const struct openapi_crd *c, bool list)
{
	struct jv v = list ? list_schema(d, c) : object_schema(d, c), kinds = jv_array(), one = jv_object();

	jv_set(d->a, &one, STR("group"), jv_string(c->group));
	jv_set(d->a, &one, STR("kind"), jv_string(list ? c->list_kind : c->kind));
	jv_set(d->a, &one, STR("version"), jv_string(c->version));
	jv_push(d->a, &kinds, one);
	jv_set(d->a, &v, STR("x-kubernetes-group-version-kind"), kinds);
	selectable_fields(d->a, c, &v);
	jv_encode(d->b, &v);
}
