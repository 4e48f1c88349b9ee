/*
 * What the schema of a custom resource may say: upstream's checks of structural
 * schemas (KEP-1693), of their defaults and of the OpenAPI extensions, in its order.
 */
#include <stdlib.h>
#include "apiserver/custom.h"
#include "apiserver/schema_props.h"

enum level { ROOT, ITEM, FIELD };

static bool preserves(const props *p)
{
	return p->x_kubernetes_preserve_unknown_fields && *p->x_kubernetes_preserve_unknown_fields;
}

static bool type_meta(struct str key)
{
	return str_eqz(key, "apiVersion") || str_eqz(key, "kind") || str_eqz(key, "metadata");
}

/* ---- structure ---- */

static void nested(struct field_errors *e, const props *p, bool skip_any_of, const struct field_path *at);

/* any_of: integer or string, as x-kubernetes-int-or-string may say it again. */
static bool int_or_string(const props *p)
{
	const struct schema_type *t = &apiextensions_v1_json_schema_props_type;
	static const props integer = {.type = STR_INIT("integer")}, string = {.type = STR_INIT("string")};

	return p->any_of.n == 2 && object_equal(t, &p->any_of.v[0], &integer) && object_equal(t, &p->any_of.v[1], &string);
}

static void junctors(struct field_errors *e, const props *p, bool skip_any_of, bool skip_first, const struct field_path *at)
{
	for (uint32_t i = 0; !skip_any_of && i < p->any_of.n; i++)
		nested(e, &p->any_of.v[i], false, FIELD_INDEX(FIELD_CHILD(at, "anyOf"), i));
	for (uint32_t i = 0; i < p->all_of.n; i++)
		nested(e, &p->all_of.v[i], skip_first && !i, FIELD_INDEX(FIELD_CHILD(at, "allOf"), i));
	for (uint32_t i = 0; i < p->one_of.n; i++)
		nested(e, &p->one_of.v[i], false, FIELD_INDEX(FIELD_CHILD(at, "oneOf"), i));
	if (p->not)
		nested(e, p->not, false, FIELD_CHILD(at, "not"));
	if (p->pattern.n && !schema_pattern_valid(p->pattern))
		field_invalid(e, FIELD_CHILD(at, "pattern"), p->pattern, "must be a valid regular expression");
}

/* Below allOf, anyOf, oneOf, not: values are judged, nothing is declared. */
static void nested(struct field_errors *e, const props *p, bool skip_any_of, const struct field_path *at)
{
	junctors(e, p, skip_any_of, false, at);
	if (item_schema(p))
		nested(e, item_schema(p), false, FIELD_CHILD(at, "items"));
	for (uint32_t i = 0; i < p->properties.n; i++)
		nested(e, &p->properties.v[i].value, false, FIELD_KEY(FIELD_CHILD(at, "properties"), p->properties.v[i].key));
	if (p->type.n)
		field_forbidden(e, FIELD_CHILD(at, "type"), "must be empty to be structural");
	if (p->additional_properties)
		field_forbidden(e, FIELD_CHILD(at, "additionalProperties"), "must be undefined to be structural");
	if (p->default_)
		field_forbidden(e, FIELD_CHILD(at, "default"), "must be undefined to be structural");
	if (p->title.n)
		field_forbidden(e, FIELD_CHILD(at, "title"), "must be empty to be structural");
	if (p->description.n)
		field_forbidden(e, FIELD_CHILD(at, "description"), "must be empty to be structural");
	if (p->nullable)
		field_forbidden(e, FIELD_CHILD(at, "nullable"), "must be false to be structural");
	if (preserves(p))
		field_forbidden(e, FIELD_CHILD(at, "x-kubernetes-preserve-unknown-fields"), "must be false to be structural");
	if (p->x_kubernetes_embedded_resource)
		field_forbidden(e, FIELD_CHILD(at, "x-kubernetes-embedded-resource"), "must be false to be structural");
	if (p->x_kubernetes_int_or_string)
		field_forbidden(e, FIELD_CHILD(at, "x-kubernetes-int-or-string"), "must be false to be structural");
	if (p->x_kubernetes_list_map_keys.n)
		field_forbidden(e, FIELD_CHILD(at, "x-kubernetes-list-map-keys"), "must be empty to be structural");
	if (p->x_kubernetes_list_type)
		field_forbidden(e, FIELD_CHILD(at, "x-kubernetes-list-type"), "must be undefined to be structural");
	if (p->x_kubernetes_map_type)
		field_forbidden(e, FIELD_CHILD(at, "x-kubernetes-map-type"), "must be undefined to be structural");
	if (p->x_kubernetes_validations.n)
		field_forbidden(e, FIELD_CHILD(at, "x-kubernetes-validations"), "must be empty to be structural");
	if (property(p, STR("metadata")))
		field_forbidden(e, FIELD_KEY(FIELD_CHILD(at, "properties"), STR("metadata")), "must not be specified in a nested context");
}

/* Of metadata at the root only name and generateName may be restricted. */
static void metadata_structure(struct field_errors *e, const props *p, bool checked, enum level level, const struct field_path *at)
{
	static const props nothing;
	props rest = *p;
	uint32_t named = (property(p, STR("name")) != NULL) + (property(p, STR("generateName")) != NULL);

	if (checked && !str_eqz(p->type, "object"))
		field_invalid(e, FIELD_CHILD(at, "type"), p->type, "must be object");
	if (level != ROOT)
		return;
	if (named && named == p->properties.n)
		memset(&rest.properties, 0, sizeof rest.properties);
	rest.type = STR_NULL;
	rest.default_ = NULL;
	if (!object_equal(&apiextensions_v1_json_schema_props_type, &rest, &nothing))
		field_forbidden(e, at, "must not specify anything other than name and generateName, but metadata is implicitly specified");
}

static void structure(struct field_errors *e, const props *p, enum level level, const struct field_path *at)
{
	const struct field_path *properties = FIELD_CHILD(at, "properties");
	bool embedded = p->x_kubernetes_embedded_resource, checked = level == ROOT || embedded;
	const props *m;

	if (str_eqz(p->type, "array") && !item_schema(p) && !(p->items && p->items->j_son_schemas.n))
		field_required(e, FIELD_CHILD(at, "items"), "must be specified");
	if (item_schema(p))
		structure(e, item_schema(p), ITEM, FIELD_CHILD(at, "items"));
	for (uint32_t i = 0; i < p->properties.n; i++)
		structure(e, &p->properties.v[i].value, FIELD, FIELD_KEY(properties, p->properties.v[i].key));
	if (p->additional_properties && level == ROOT)
		field_forbidden(e, FIELD_CHILD(at, "additionalProperties"), "must not be used at the root");
	if (value_schema(p))
		structure(e, value_schema(p), FIELD, FIELD_CHILD(at, "additionalProperties"));
	if (p->x_kubernetes_int_or_string && preserves(p))
		field_invalid_raw(e, FIELD_CHILD(at, "x-kubernetes-preserve-unknown-fields"), STR("true"),
				  "must be false if x-kubernetes-int-or-string is true");
	if (p->x_kubernetes_int_or_string && embedded)
		field_invalid_raw(e, FIELD_CHILD(at, "x-kubernetes-embedded-resource"), STR("true"),
				  "must be false if x-kubernetes-int-or-string is true");
	junctors(e, p, int_or_string(p), p->all_of.n && int_or_string(&p->all_of.v[0]), at);
	if (embedded && !str_eqz(p->type, "object")) {
		if (!p->type.n)
			field_required(e, FIELD_CHILD(at, "type"), "must be object if x-kubernetes-embedded-resource is true");
		else
			field_invalid(e, FIELD_CHILD(at, "type"), p->type, "must be object if x-kubernetes-embedded-resource is true");
	} else if (!p->type.n && !p->x_kubernetes_int_or_string && !preserves(p)) {
		field_required(e, FIELD_CHILD(at, "type"), level == ROOT ? "must not be empty at the root" : level == ITEM ?
			       "must not be empty for specified array items" : "must not be empty for specified object fields");
	}
	if (embedded && p->additional_properties)
		field_forbidden(e, FIELD_CHILD(at, "additionalProperties"), "must not be used if x-kubernetes-embedded-resource is set");
	if (level == ROOT && p->type.n && !str_eqz(p->type, "object"))
		field_invalid(e, FIELD_CHILD(at, "type"), p->type, "must be object at the root");
	for (int i = 0; checked && i < 2; i++) {
		struct str key = i ? STR("apiVersion") : STR("kind");

		m = property(p, key);
		if (m && !str_eqz(m->type, "string"))
			field_invalid(e, FIELD_CHILD(FIELD_KEY(properties, key), "type"), m->type, "must be string");
	}
	m = property(p, STR("metadata"));
	if (m)
		metadata_structure(e, m, checked, level, FIELD_KEY(properties, STR("metadata")));
	if (embedded && !preserves(p) && !p->properties.n)
		field_required(e, properties, "must not be empty if x-kubernetes-embedded-resource is true without "
					      "x-kubernetes-preserve-unknown-fields");
}

/* What v (below a junctor) speaks of is declared in s. */
static void complete(struct field_errors *e, const props *v, const props *s, const struct field_path *at, const struct field_path *v_at, bool inner)
{
	if (!s) {
		struct str where = field_path_format(e->arena, v_at);

		field_required(e, at, arena_printf(e->arena, "because it is defined in %.*s", STR_ARG(where)).p);
		return;
	}
	if (v->not)
		complete(e, v->not, s, at, FIELD_CHILD(v_at, "not"), true);
	for (uint32_t i = 0; i < v->all_of.n; i++)
		complete(e, &v->all_of.v[i], s, at, FIELD_INDEX(FIELD_CHILD(v_at, "allOf"), i), true);
	for (uint32_t i = 0; i < v->any_of.n; i++)
		complete(e, &v->any_of.v[i], s, at, FIELD_INDEX(FIELD_CHILD(v_at, "anyOf"), i), true);
	for (uint32_t i = 0; i < v->one_of.n; i++)
		complete(e, &v->one_of.v[i], s, at, FIELD_INDEX(FIELD_CHILD(v_at, "oneOf"), i), true);
	if (!inner)
		return;
	if (item_schema(v))
		complete(e, item_schema(v), item_schema(s), FIELD_CHILD(at, "items"), FIELD_CHILD(v_at, "items"), true);
	for (uint32_t i = 0; i < v->properties.n; i++) {
		struct str key = v->properties.v[i].key;

		complete(e, &v->properties.v[i].value, property(s, key), FIELD_KEY(FIELD_CHILD(at, "properties"), key),
			 FIELD_KEY(FIELD_CHILD(v_at, "properties"), key), true);
	}
}

static int error_order(const void *x, const void *y)
{
	const struct field_error *a = x, *b = y;
	/* by field, ": ", body: a field that is the start of another comes by what follows it */
	size_t n = a->field.n < b->field.n ? a->field.n : b->field.n;
	int c = n ? memcmp(a->field.p, b->field.p, n) : 0;

	if (c)
		return c;
	if (a->field.n != b->field.n) {
		int ca = a->field.n > n ? (unsigned char)a->field.p[n] : ':', cb = b->field.n > n ? (unsigned char)b->field.p[n] : ':';

		return ca - cb;
	}
	return str_cmp(a->body, b->body);
}

/* ---- defaults ---- */

static bool parsed(struct arena *a, struct str json, struct jv *out)
{
	struct error *e = jv_parse(a, json, NULL, out);

	error_free(e);
	return !e;
}

static void value_error(struct field_errors *e, const struct field_path *at, const struct jv *v, const char *what)
{
	struct buf b buf_cleanup = {0};

	jv_encode(&b, v);
	field_invalid_raw(e, at, arena_str(e->arena, buf_view(&b)), "%s", what);
}

struct around { /* the way from an embedded resource to a value in its metadata */
	const struct around *up;
	struct str key; /* STR_NULL: the only item of a list */
};

/* A default in apiVersion, kind or metadata: a resource with it and nothing else has to be one that may be. */
static void default_in_meta(struct field_errors *e, const props *resource, const struct around *around, struct str json, const struct jv *v,
			    const struct field_path *where)
{
	struct arena *a = e->arena;
	struct field_errors found = {.arena = a};
	struct error *err;
	struct jv o;

	if (!parsed(a, json, &o))
		return;
	for (; around; around = around->up) {
		struct jv outer = around->key.p ? jv_object() : jv_array();

		if (around->key.p)
			jv_set(a, &outer, around->key, o);
		else
			jv_push(a, &outer, o);
		o = outer;
	}
	if (!jv_get(&o, STR("kind")))
		jv_set(a, &o, STR("kind"), jv_string(STR("Validation")));
	if (!jv_get(&o, STR("apiVersion")))
		jv_set(a, &o, STR("apiVersion"), jv_string(STR("validation/v1")));
	err = schema_coerce(a, resource, &o, true, STR_NULL, NULL);
	if (!err) {
		schema_embedded(&found, resource, &o, true, NULL);
		if (!found.list.n)
			return;
	}
	value_error(e, where, v, arena_printf(a, "must result in valid metadata: %.*s%s", STR_ARG(err ? STR_NULL : found.list.v[0].body),
					      err ? error_message(err) : "").p);
	error_free(err);
}

/* Resources in a default: one with a member of a wrong type is told nothing else. */
static void default_embedded(struct field_errors *e, const props *p, struct str json, const struct jv *v, bool embedded, const struct field_path *where)
{
	uint32_t from = e->list.n;
	struct jv o;
	struct error *err;

	schema_embedded(e, p, v, embedded, where);
	if (e->list.n == from || !parsed(e->arena, json, &o))
		return;
	err = schema_coerce(e->arena, p, &o, embedded, STR_NULL, NULL);
	for (uint32_t i = from; err && i < e->list.n; i++)
		if (e->list.v[i].type == FIELD_ERROR_INVALID) {
			e->list.v[from] = e->list.v[i];
			e->list.n = from + 1;
		}
	error_free(err);
}

/*
 * must_prune: they have no unknown fields, which is not asked of those that are there already. resource: the embedded one that p is in or is,
 * around: how to come from it to p.
 */
static void defaults(struct field_errors *e, const props *p, bool root, bool in_meta, bool must_prune, const struct field_path *at,
		     const props *resource, const struct around *around)
{
	struct jv v, pruned;
	bool embedded = root || p->x_kubernetes_embedded_resource;

	if (embedded) {
		in_meta = false;
		resource = p;
		around = NULL;
	}
	if (p->default_ && parsed(e->arena, *p->default_, &v)) {
		const struct field_path *where = FIELD_CHILD(at, "default");
		uint32_t before = e->list.n;

		if (must_prune && !in_meta && parsed(e->arena, *p->default_, &pruned)) {
			schema_prune(e->arena, p, &pruned, embedded, STR_NULL, NULL);
			if (!jv_equal(&pruned, &v))
				value_error(e, where, &v, "must not have unknown fields");
			before = e->list.n; /* it is judged all the same */
		}
		if (in_meta)
			default_in_meta(e, resource, around, *p->default_, &v, where);
		else
			default_embedded(e, p, *p->default_, &v, embedded, where);
		if (e->list.n == before)
			schema_judge_default(e, p, &v, where);
		if (e->list.n == before)
			crd_rules_default(e, p, &v, where);
	}
	if (item_schema(p))
		defaults(e, item_schema(p), false, in_meta, must_prune, FIELD_CHILD(at, "items"), resource, &(struct around){around, STR_NULL});
	for (uint32_t i = 0; i < p->properties.n; i++)
		defaults(e, &p->properties.v[i].value, false, in_meta || (embedded && type_meta(p->properties.v[i].key)), must_prune,
			 FIELD_KEY(FIELD_CHILD(at, "properties"), p->properties.v[i].key), resource,
			 &(struct around){around, p->properties.v[i].key});
}

/* ---- OpenAPI ---- */

struct place {
	bool root, in_meta;
	const char *no_default; /* why there may be no default here; NULL: there may */
};

static void open_api(struct field_errors *e, const props *p, struct place s, const struct field_path *at);

static void list_keys(struct field_errors *e, const props *p, const struct field_path *at)
{
	const struct field_path *keys = FIELD_CHILD(at, "x-kubernetes-list-map-keys"), *items = FIELD_CHILD(at, "items");
	const struct strings list = {.v = p->x_kubernetes_list_map_keys.v, .n = p->x_kubernetes_list_map_keys.n};
	const props *item = item_schema(p);

	if (!list.n)
		field_required(e, keys, "must not be empty if x-kubernetes-list-type is map");
	if (!p->items)
		field_required(e, items, "must have a schema if x-kubernetes-list-type is map");
	if (p->items && !item)
		field_invalid(e, items, STR(""), "must only have a single schema if x-kubernetes-list-type is map");
	if (!item)
		return;
	if (!str_eqz(item->type, "object")) {
		field_invalid(e, FIELD_CHILD(items, "type"), item->type, "must be object if parent array's x-kubernetes-list-type is map");
		return;
	}
	for (uint32_t i = 0; i < list.n; i++) {
		const props *k = property(item, list.v[i]);

		if (!k)
			field_invalid_list(e, keys, &list, "entries must all be names of item properties");
		else if (str_eqz(k->type, "array") || str_eqz(k->type, "object"))
			field_invalid(e, FIELD_CHILD(FIELD_KEY(FIELD_CHILD(items, "properties"), list.v[i]), "type"), item->type,
				      "must be a scalar type if parent array's x-kubernetes-list-type is map");
		for (uint32_t j = 0; j < i; j++)
			if (str_eq(list.v[i], list.v[j])) {
				field_invalid_list(e, keys, &list, "must not contain duplicate entries");
				break;
			}
	}
}

static void element_rules(struct field_errors *e, const props *p, struct str lt, const struct field_path *at)
{
	const struct field_path *items = FIELD_CHILD(at, "items");
	const props *item = item_schema(p);

	if (!item || (!str_eqz(lt, "set") && !str_eqz(lt, "map")))
		return;
	if (item->nullable)
		field_forbidden(e, FIELD_CHILD(items, "nullable"), "cannot be nullable when x-kubernetes-list-type is %.*s", STR_ARG(lt));
	for (uint32_t i = 0; str_eqz(lt, "map") && i < p->x_kubernetes_list_map_keys.n; i++) {
		struct str key = p->x_kubernetes_list_map_keys.v[i];
		const struct field_path *where = FIELD_KEY(FIELD_CHILD(items, "properties"), key);
		const props *k = property(item, key);
		bool required = false;

		for (uint32_t j = 0; j < item->required.n; j++)
			required |= str_eq(item->required.v[j], key);
		if (k && !required && !k->default_)
			field_required(e, FIELD_CHILD(where, "default"),
				       "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property");
		if (k && k->nullable)
			field_forbidden(e, FIELD_CHILD(where, "nullable"), "this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
	}
}

static void lists_and_maps(struct field_errors *e, const props *p, const struct field_path *at)
{
	static const struct str map_types[] = {STR_INIT("atomic"), STR_INIT("granular")};
	static const struct str list_types[] = {STR_INIT("atomic"), STR_INIT("map"), STR_INIT("set")};
	const struct field_path *type = FIELD_CHILD(at, "type"), *list = FIELD_CHILD(at, "x-kubernetes-list-type"), *items = FIELD_CHILD(at, "items");
	struct str lt = p->x_kubernetes_list_type ? *p->x_kubernetes_list_type : STR_NULL;
	struct str mt = p->x_kubernetes_map_type ? *p->x_kubernetes_map_type : STR_NULL;
	const props *item = item_schema(p);

	if (p->x_kubernetes_preserve_unknown_fields && !*p->x_kubernetes_preserve_unknown_fields)
		field_invalid_raw(e, FIELD_CHILD(at, "x-kubernetes-preserve-unknown-fields"), STR("false"), "must be true or undefined");
	if (p->x_kubernetes_map_type && !str_eqz(p->type, "object")) {
		if (!p->type.n)
			field_required(e, type, "must be object if x-kubernetes-map-type is specified");
		else
			field_invalid(e, type, p->type, "must be object if x-kubernetes-map-type is specified");
	}
	if (p->x_kubernetes_map_type && !str_eq(mt, map_types[0]) && !str_eq(mt, map_types[1]))
		field_not_supported(e, FIELD_CHILD(at, "x-kubernetes-map-type"), mt, map_types, 2);
	if (p->x_kubernetes_list_type && !str_eqz(p->type, "array")) {
		if (!p->type.n)
			field_required(e, type, "must be array if x-kubernetes-list-type is specified");
		else
			field_invalid(e, type, p->type, "must be array if x-kubernetes-list-type is specified");
	} else if (str_eqz(lt, "set") && item) {
		struct str ilt = item->x_kubernetes_list_type ? *item->x_kubernetes_list_type : STR_NULL;

		if (str_eqz(item->type, "array") && item->x_kubernetes_list_type && !str_eqz(ilt, "atomic"))
			field_invalid(e, FIELD_CHILD(items, "x-kubernetes-list-type"), ilt, "must be atomic as item of a list with x-kubernetes-list-type=set");
		if (str_eqz(item->type, "object") && (!item->x_kubernetes_map_type || !str_eqz(*item->x_kubernetes_map_type, "atomic"))) {
			if (item->x_kubernetes_list_type)
				field_invalid(e, FIELD_CHILD(items, "x-kubernetes-map-type"), ilt,
					      "must be atomic as item of a list with x-kubernetes-list-type=set");
			else
				field_invalid_raw(e, FIELD_CHILD(items, "x-kubernetes-map-type"), STR("null"),
						  "must be atomic as item of a list with x-kubernetes-list-type=set");
		}
	}
	if (p->x_kubernetes_list_type && !str_eqz(lt, "atomic") && !str_eqz(lt, "set") && !str_eqz(lt, "map"))
		field_not_supported(e, list, lt, list_types, 3);
	if (p->x_kubernetes_list_map_keys.n && !p->x_kubernetes_list_type)
		field_required(e, list, "must be map if x-kubernetes-list-map-keys is non-empty");
	else if (p->x_kubernetes_list_map_keys.n && !str_eqz(lt, "map"))
		field_invalid(e, list, lt, "must be map if x-kubernetes-list-map-keys is non-empty");
	if (str_eqz(lt, "map"))
		list_keys(e, p, at);
	element_rules(e, p, lt, at);
}

static void open_api_children(struct field_errors *e, const props *p, struct place s, const struct field_path *at)
{
	struct place below = s;

	below.root = false;
	if (value_schema(p)) {
		struct place c = below;

		if (s.in_meta)
			c.no_default = "inside additionalProperties applying to object metadata";
		open_api(e, value_schema(p), c, FIELD_CHILD(at, "additionalProperties"));
	}
	for (uint32_t i = 0; i < p->properties.n; i++) {
		struct str key = p->properties.v[i].key;
		struct place c = below;

		if ((s.root || p->x_kubernetes_embedded_resource) && type_meta(key)) {
			c.in_meta = true;
			if (s.root)
				c.no_default = arena_printf(e->arena, "in top-level %.*s", STR_ARG(key)).p;
		}
		open_api(e, &p->properties.v[i].value, c, FIELD_KEY(FIELD_CHILD(at, "properties"), key));
	}
	if (p->not)
		open_api(e, p->not, below, FIELD_CHILD(at, "not"));
	for (uint32_t i = 0; i < p->all_of.n; i++)
		open_api(e, &p->all_of.v[i], below, FIELD_INDEX(FIELD_CHILD(at, "allOf"), i));
	for (uint32_t i = 0; i < p->one_of.n; i++)
		open_api(e, &p->one_of.v[i], below, FIELD_INDEX(FIELD_CHILD(at, "oneOf"), i));
	for (uint32_t i = 0; i < p->any_of.n; i++)
		open_api(e, &p->any_of.v[i], below, FIELD_INDEX(FIELD_CHILD(at, "anyOf"), i));
	for (uint32_t i = 0; i < p->definitions.n; i++)
		open_api(e, &p->definitions.v[i].value, below, FIELD_KEY(FIELD_CHILD(at, "definitions"), p->definitions.v[i].key));
	if (item_schema(p))
		open_api(e, item_schema(p), below, FIELD_CHILD(at, "items"));
	for (uint32_t i = 0; p->items && i < p->items->j_son_schemas.n; i++)
		open_api(e, &p->items->j_son_schemas.v[i], below, FIELD_INDEX(FIELD_CHILD(at, "items"), i));
	for (uint32_t i = 0; i < p->dependencies.n; i++)
		if (p->dependencies.v[i].value.schema)
			open_api(e, p->dependencies.v[i].value.schema, below, FIELD_KEY(FIELD_CHILD(at, "dependencies"), p->dependencies.v[i].key));
}

static void open_api(struct field_errors *e, const props *p, struct place s, const struct field_path *at)
{
	static const struct str types[] = {STR_INIT("array"), STR_INIT("boolean"), STR_INIT("integer"), STR_INIT("number"), STR_INIT("object"),
					   STR_INIT("string")};
	bool known = !p->type.n;

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		known |= str_eq(p->type, types[i]);
	if (!known)
		field_not_supported(e, FIELD_CHILD(at, "type"), p->type, types, sizeof types / sizeof *types);
	if (p->default_ && s.no_default)
		field_forbidden(e, FIELD_CHILD(at, "default"), "must not be set %s", s.no_default);
	if (p->id.n)
		field_forbidden(e, FIELD_CHILD(at, "id"), "id is not supported");
	if (p->additional_items)
		field_forbidden(e, FIELD_CHILD(at, "additionalItems"), "additionalItems is not supported");
	if (p->pattern_properties.n)
		field_forbidden(e, FIELD_CHILD(at, "patternProperties"), "patternProperties is not supported");
	if (p->definitions.n)
		field_forbidden(e, FIELD_CHILD(at, "definitions"), "definitions is not supported");
	if (p->dependencies.v) /* an empty one, too */
		field_forbidden(e, FIELD_CHILD(at, "dependencies"), "dependencies is not supported");
	if (p->ref)
		field_forbidden(e, FIELD_CHILD(at, "$ref"), "$ref is not supported");
	if (str_eqz(p->type, "null"))
		field_forbidden(e, FIELD_CHILD(at, "type"), "type cannot be set to null, use nullable as an alternative");
	if (p->items && p->items->j_son_schemas.n)
		field_forbidden(e, FIELD_CHILD(at, "items"), "items must be a schema object and not an array");
	if (s.in_meta && p->x_kubernetes_embedded_resource)
		field_forbidden(e, FIELD_CHILD(at, "x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
	if (p->unique_items)
		field_forbidden(e, FIELD_CHILD(at, "uniqueItems"), "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
	if (p->additional_properties && p->properties.n && (!p->additional_properties->allows || value_schema(p)))
		field_forbidden(e, FIELD_CHILD(at, "additionalProperties"), "additionalProperties and properties are mutual exclusive");
	open_api_children(e, p, s, at);
	lists_and_maps(e, p, at);
}

/*
 * With the status subresource, the status is checked by what the root says of that member alone: it may say nothing of the whole, not even
 * with a list that is empty.
 */
static void root_of_status(struct field_errors *e, const props *p, const struct field_path *at)
{
	const struct schema_type *t = &apiextensions_v1_json_schema_props_type;

	if (p->id.n || p->schema.n || p->ref) {
		/* these come before the type */
	} else if (!str_eqz(p->type, "object") && p->type.n) {
		field_invalid(e, FIELD_CHILD(at, "type"), p->type, "only \"object\" is allowed as the type at the root of the schema if the "
								  "status subresource is enabled");
		return;
	} else if (!p->nullable && !p->default_ && !p->enum_.v && !p->max_properties && !p->min_properties && !p->all_of.v && !p->one_of.v &&
		   !p->any_of.v && !p->not && !p->additional_properties && !p->pattern_properties.v && !p->dependencies.v &&
		   !p->additional_items && !p->definitions.v && !p->x_kubernetes_embedded_resource && !p->x_kubernetes_int_or_string &&
		   !p->x_kubernetes_list_map_keys.v && !p->x_kubernetes_list_type && !p->x_kubernetes_map_type) {
		return;
	}
	field_invalid_obj(e, at, t, p, "only description, type, format, limits, required, items, properties, externalDocs, example, "
				       "x-kubernetes-preserve-unknown-fields and x-kubernetes-validations are allowed at the root of the schema "
				       "if the status subresource is enabled");
}

/* A member that no structural schema has, anywhere in it; NULL: none. What is structural is not looked at then. */
const char *schema_unsupported(const props *p)
{
	const char *why = !p                                      ? NULL
			  : p->id.n                               ? "id"
			  : p->schema.n                           ? "schema"
			  : p->ref && p->ref->n                   ? "$ref"
			  : p->pattern_properties.n               ? "patternProperties"
			  : p->dependencies.n                     ? "dependencies"
			  : p->additional_items                   ? "additionalItems"
			  : p->definitions.n                      ? "definitions"
			  : p->items && p->items->j_son_schemas.n ? "items"
			  : p->x_kubernetes_preserve_unknown_fields && !*p->x_kubernetes_preserve_unknown_fields ?
								  "x-kubernetes-preserve-unknown-fields"
								  : NULL;

	if (!p || why)
		return why;
	why = schema_unsupported(p->not);
	for (uint32_t i = 0; !why && i < p->all_of.n; i++)
		why = schema_unsupported(&p->all_of.v[i]);
	for (uint32_t i = 0; !why && i < p->any_of.n; i++)
		why = schema_unsupported(&p->any_of.v[i]);
	for (uint32_t i = 0; !why && i < p->one_of.n; i++)
		why = schema_unsupported(&p->one_of.v[i]);
	for (uint32_t i = 0; !why && i < p->properties.n; i++)
		why = schema_unsupported(&p->properties.v[i].value);
	if (!why)
		why = schema_unsupported(item_schema(p));
	return why ? why : schema_unsupported(value_schema(p));
}

void schema_check_structure(struct field_errors *e, const props *p, const struct field_path *at)
{
	structure(e, p, ROOT, at);
	complete(e, p, p, at, at, false);
}

void schema_check(struct field_errors *e, const props *p, bool status, const struct field_path *at, bool unchanged)
{
	struct field_errors of_structure = {.arena = e->arena};
	uint32_t n, before = e->list.n;
	const char *not_structural = schema_unsupported(p);
	bool structural;

	if (status)
		root_of_status(e, p, at);
	if (p->nullable)
		field_forbidden(e, FIELD_CHILD(at, "nullable"), "nullable cannot be true at the root");
	if (!not_structural)
		schema_check_structure(&of_structure, p, at);
	if (of_structure.list.n)
		qsort(of_structure.list.v, of_structure.list.n, sizeof *of_structure.list.v, error_order);
	for (uint32_t i = 0; i < of_structure.list.n && e->list.n < FIELD_ERRORS_MAX; i++)
		*arena_push(e->arena, &e->list) = of_structure.list.v[i];
	n = e->list.n;
	if (!not_structural && !of_structure.list.n)
		defaults(e, p, true, false, !unchanged, at, p, NULL);
	structural = !not_structural && !of_structure.list.n && e->list.n == n;
	open_api(e, p, (struct place){.root = true}, at);
	if (not_structural && e->list.n == before)
		field_invalid(e, at, STR(""), "OpenAPIV3Schema '%s' is not supported", not_structural);
	crd_rules_check(e, p, at, structural, unchanged);
}
