#include "schema/shape.h"

/* A value of a message type. */
static enum shape_kind kind_of_type(const struct schema_type *t, uint16_t flags)
{
	if (t->json != SCHEMA_OBJECT)
		return SHAPE_UNTYPED;
	if (flags & FIELD_GRANULAR)
		return SHAPE_STRUCT;
	return t->atomic || (flags & FIELD_ATOMIC) ? SHAPE_ATOMIC_MAP : SHAPE_STRUCT;
}

static enum shape_kind kind_of_scalar(uint8_t kind)
{
	switch ((enum field_kind)kind) {
	case FIELD_RAW: /* bytes, whatever they say */
		return SHAPE_SCALAR;
	case FIELD_FIELDSV1:
	case FIELD_JSON:
	case FIELD_ANY:
		return SHAPE_UNTYPED;
	case FIELD_STRINGS:
		return SHAPE_ATOMIC_LIST;
	default:
		return SHAPE_SCALAR;
	}
}

static bool crd_type(const struct apiextensions_v1_json_schema_props *p, const char *type)
{
	return str_eqz(p->type, type);
}

static bool str_is(const struct str *s, const char *z)
{
	return s && str_eqz(*s, z);
}

static enum shape_kind kind_of_props(const struct apiextensions_v1_json_schema_props *p)
{
	if (p->x_kubernetes_int_or_string)
		return SHAPE_UNTYPED; /* it has no type, and validation comes later */
	if (crd_type(p, "object")) {
		if (str_is(p->x_kubernetes_map_type, "atomic"))
			return SHAPE_ATOMIC_MAP;
		if (p->properties.n || p->x_kubernetes_embedded_resource)
			return SHAPE_STRUCT;
		return p->additional_properties && p->additional_properties->schema ? SHAPE_MAP : SHAPE_UNTYPED;
	}
	if (crd_type(p, "array")) {
		if (str_is(p->x_kubernetes_list_type, "set"))
			return SHAPE_SET;
		if (str_is(p->x_kubernetes_list_type, "map"))
			return SHAPE_LIST_MAP;
		return SHAPE_ATOMIC_LIST;
	}
	return p->type.n ? SHAPE_SCALAR : SHAPE_UNTYPED;
}

enum shape_kind shape_kind(struct shape s)
{
	if (s.resource)
		return SHAPE_STRUCT;
	if (s.props)
		return kind_of_props(s.props);
	if (s.type)
		return kind_of_type(s.type, 0);
	if (!s.field)
		return SHAPE_UNTYPED;
	const struct schema_field *f = s.field;

	if (!s.elem && f->card == CARD_LIST) {
		if (f->flags & FIELD_LIST_SET)
			return SHAPE_SET;
		return f->flags & FIELD_LIST_MAP ? SHAPE_LIST_MAP : SHAPE_ATOMIC_LIST;
	}
	if (!s.elem && f->card == CARD_MAP)
		return f->flags & FIELD_ATOMIC ? SHAPE_ATOMIC_MAP : SHAPE_MAP;
	if (f->kind == FIELD_MESSAGE)
		return kind_of_type(f->type, s.elem ? 0 : f->flags);
	return kind_of_scalar(f->kind);
}

/* The shape of a field's single value or element. */
static struct shape of_field(const struct schema_field *f, bool elem)
{
	return (struct shape){.field = f, .elem = elem};
}

static bool preserves(const struct apiextensions_v1_json_schema_props *p)
{
	return p && p->x_kubernetes_preserve_unknown_fields && *p->x_kubernetes_preserve_unknown_fields;
}

/* Below `above`: once unknown fields are preserved, they are for all that is below, whatever pruning makes of them. */
static struct shape of_props(struct shape above, const struct apiextensions_v1_json_schema_props *p)
{
	return (struct shape){.props = p, .resource = p->x_kubernetes_embedded_resource, .open = above.open || preserves(p)};
}

struct shape shape_of_crd(const struct apiextensions_v1_json_schema_props *schema)
{
	return (struct shape){.props = schema, .resource = true, .open = preserves(schema)};
}

static const struct apiextensions_v1_json_schema_props *
property(const struct apiextensions_v1_json_schema_props *p, struct str name)
{
	for (uint32_t i = 0; p && i < p->properties.n; i++)
		if (str_eq(p->properties.v[i].key, name))
			return &p->properties.v[i].value;
	return NULL;
}

static bool props_member(struct shape s, struct str name, struct shape *out)
{
	const struct apiextensions_v1_json_schema_props *p = s.props, *child;

	if (s.resource) {
		static const struct schema_type *const meta = &meta_v1_object_meta_type;

		if (str_eqz(name, "metadata")) {
			*out = shape_of_type(meta);
			return true;
		}
		if (str_eqz(name, "kind") || str_eqz(name, "apiVersion")) {
			const struct schema_field *f = schema_field(meta, STR("name"));

			*out = of_field(f, false); /* a string */
			return true;
		}
	}
	child = property(p, name);
	if (child) {
		*out = of_props(s, child);
		return true;
	}
	if (!p)
		return true;
	if (p->additional_properties && p->additional_properties->schema) {
		*out = of_props(s, p->additional_properties->schema);
		return true;
	}
	if (p->additional_properties)
		return p->additional_properties->allows;
	/* an object of which nothing is said may have any members, as one without a type may */
	return s.open || shape_kind(s) == SHAPE_UNTYPED || (!p->properties.n && !s.resource);
}

bool shape_member(struct shape s, struct str name, struct shape *out)
{
	*out = (struct shape){0};
	if (s.resource || s.props)
		return props_member(s, name, out);
	const struct schema_type *t = s.type;

	if (!t && s.field) {
		if (!s.elem && s.field->card == CARD_MAP) {
			*out = of_field(s.field, true);
			return true;
		}
		t = s.field->kind == FIELD_MESSAGE ? s.field->type : NULL;
	}
	if (!t || t->json != SCHEMA_OBJECT)
		return true; /* nothing is known about it */
	const struct schema_field *f = schema_field(t, name);

	if (!f)
		return false;
	*out = of_field(f, false);
	return true;
}

struct shape shape_element(struct shape s)
{
	if (s.props) {
		if (s.props->items && s.props->items->schema)
			return of_props(s, s.props->items->schema);
		return (struct shape){0};
	}
	if (s.field && s.field->card == CARD_LIST && !s.elem)
		return of_field(s.field, true);
	return (struct shape){0};
}

bool shape_list_key(struct shape s, size_t i, struct str *name, struct str *default_json)
{
	*default_json = STR_NULL;
	if (s.props) {
		if (i >= s.props->x_kubernetes_list_map_keys.n)
			return false;
		*name = s.props->x_kubernetes_list_map_keys.v[i];
		const struct apiextensions_v1_json_schema_props *p =
			s.props->items ? property(s.props->items->schema, *name) : NULL;

		if (p && p->default_)
			*default_json = *p->default_;
		return true;
	}
	if (!s.field || i >= s.field->info->n_list_keys)
		return false;
	*name = s.field->info->list_keys[i];
	const struct schema_field *f = s.field->type ? schema_field(s.field->type, *name) : NULL;

	if (f)
		*default_json = str_from(schema_absent_value(f));
	return true;
}
