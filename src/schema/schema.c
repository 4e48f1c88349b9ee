#include "schema/schema.h"

const char *schema_absent_value(const struct schema_field *f)
{
	if (f->info->default_json)
		return f->info->default_json;
	if (f->card != CARD_ONE)
		return NULL;
	if (f->kind == FIELD_MESSAGE)
		return f->type->json == SCHEMA_OBJECT ? "{}" : NULL;
	if (f->flags & FIELD_OMITEMPTY)
		return NULL;
	switch ((enum field_kind)f->kind) {
	case FIELD_STRING:
		return "\"\"";
	case FIELD_BOOL:
		return "false";
	case FIELD_INT32:
	case FIELD_INT64:
	case FIELD_UINT32:
	case FIELD_UINT64:
	case FIELD_DOUBLE:
		return "0";
	default:
		return NULL;
	}
}

const struct schema_field *schema_field(const struct schema_type *t, struct str name)
{
	for (uint16_t i = 0; i < t->n_fields; i++)
		if (str_eq(t->fields[i].name, name))
			return &t->fields[i];
	return NULL;
}

const struct api_resource *api_resource_find(struct str group, struct str version, struct str plural)
{
	for (size_t i = 0; i < n_api_resources; i++) {
		const struct api_resource *r = api_resources[i];

		if (str_eq(r->plural, plural) && str_eq(r->group, group) && str_eq(r->version, version))
			return r;
	}
	return NULL;
}

const struct api_resource *api_resource_for_kind(struct str group, struct str version, struct str kind)
{
	for (size_t i = 0; i < n_api_resources; i++) {
		const struct api_resource *r = api_resources[i];

		if (str_eq(r->kind, kind) && str_eq(r->group, group) && str_eq(r->version, version))
			return r;
	}
	return NULL;
}

const struct schema_type *schema_type_for_kind(struct str group, struct str version, struct str kind)
{
	const struct schema_type *meta = NULL;

	for (size_t i = 0; i < n_api_types; i++) {
		const struct schema_type *t = api_types[i];

		if (!str_eqz(kind, t->name))
			continue;
		if (str_eq(t->group, group) && str_eq(t->version, version))
			return t;
		if (str_eq(t->group, STR("meta.k8s.io")))
			meta = t;
	}
	return meta;
}

void api_version_split(struct str api_version, struct str *group, struct str *version)
{
	ptrdiff_t slash = str_index(api_version, '/');

	*group = slash < 0 ? STR_NULL : str_sub(api_version, 0, (size_t)slash);
	*version = slash < 0 ? api_version : str_sub(api_version, (size_t)slash + 1, api_version.n);
}

static ptrdiff_t map_index(const struct str_map *m, struct str key)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (str_eq(m->v[i].key, key))
			return i;
	return -1;
}

struct str str_map_get(const struct str_map *m, struct str key)
{
	ptrdiff_t i = map_index(m, key);

	if (i < 0)
		return STR_NULL;
	return m->v[i].value.p ? m->v[i].value : STR("");
}

bool str_map_has(const struct str_map *m, struct str key)
{
	return map_index(m, key) >= 0;
}

void str_map_set(struct arena *a, struct str_map *m, struct str key, struct str value)
{
	ptrdiff_t i = map_index(m, key);

	if (i >= 0) {
		m->v[i].value = value;
		return;
	}
	arena_push(a, m);
	uint32_t at = m->n - 1;

	while (at > 0 && str_cmp(m->v[at - 1].key, key) > 0) {
		m->v[at] = m->v[at - 1];
		at--;
	}
	m->v[at] = (struct str_pair){key, value};
}

void str_map_del(struct str_map *m, struct str key)
{
	ptrdiff_t i = map_index(m, key);

	if (i < 0)
		return;
	memmove(&m->v[i], &m->v[i + 1], (m->n - (size_t)i - 1) * sizeof *m->v);
	m->n--;
}

size_t schema_field_size(const struct schema_field *f)
{
	switch (f->card) {
	case CARD_PTR:
		return sizeof(void *);
	case CARD_LIST:
	case CARD_MAP:
		return sizeof(struct str_map);
	default:
		break;
	}
	switch (f->kind) {
	case FIELD_BOOL:
		return sizeof(bool);
	case FIELD_INT32:
	case FIELD_UINT32:
		return 4;
	case FIELD_INT64:
	case FIELD_UINT64:
	case FIELD_DOUBLE:
	case FIELD_DURATION:
		return 8;
	case FIELD_TIME:
	case FIELD_MICROTIME:
		return sizeof(struct api_time);
	case FIELD_INTSTR:
		return sizeof(struct int_or_string);
	case FIELD_STRINGS:
		return sizeof(struct strings);
	case FIELD_MESSAGE:
		return f->type->size;
	default:
		return sizeof(struct str);
	}
}
