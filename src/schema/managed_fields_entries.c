/* The entries of metadata.managedFields: read and written as trees and as structs. */
#include "schema/managed_fields_internal.h"

#include <stdlib.h>

/* Apply entries are one for all versions. */
bool manager_same(const struct manager *a, const struct manager *b)
{
	return a->applied == b->applied && a->self == b->self && str_eq(a->name, b->name) &&
	       str_eq(a->subresource, b->subresource) && (a->applied || str_eq(a->api_version, b->api_version));
}

struct manager *managers_find(struct managers *m, const struct manager *key)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (manager_same(&m->v[i], key))
			return &m->v[i];
	return NULL;
}

void managers_remove(struct managers *m, uint32_t i)
{
	memmove(&m->v[i], &m->v[i + 1], (m->n - i - 1) * sizeof *m->v);
	m->n--;
}

void managers_remove_empty(struct managers *m)
{
	for (uint32_t i = 0; i < m->n;) {
		if (field_set_empty(m->v[i].set))
			managers_remove(m, i);
		else
			i++;
	}
}

static struct error *decode_entry(struct arena *a, const struct jv *v, uint32_t i, struct manager *m)
{
	struct str operation = jv_str(jv_get(v, STR("operation"))), type = jv_str(jv_get(v, STR("fieldsType")));
	const struct jv *fields = jv_get(v, STR("fieldsV1"));

	if (!str_eqz(operation, "Apply") && !str_eqz(operation, "Update"))
		return error_status(422, "Invalid", "operation must be `Apply` or `Update`");
	*m = (struct manager){
		.name = jv_str(jv_get(v, STR("manager"))),
		.api_version = jv_str(jv_get(v, STR("apiVersion"))),
		.subresource = jv_str(jv_get(v, STR("subresource"))),
		.applied = str_eqz(operation, "Apply"),
		.time = jv_str(jv_get(v, STR("time"))),
	};
	if (!m->api_version.n)
		return error_status(422, "Invalid", "apiVersion must not be empty");
	if (!type.n)
		return error_status(422, "Invalid", "missing fieldsType in managed fields entry %u", i);
	if (!str_eqz(type, "FieldsV1"))
		return error_status(422, "Invalid", "invalid fieldsType \"%.*s\" in managed fields entry %u", STR_ARG(type), i);
	if (!fields)
		return NULL;
	buf_cleanup struct buf b = {0};

	jv_encode(&b, fields);
	m->raw = arena_str(a, buf_view(&b));
	TRY(field_set_parse(a, m->raw, &m->set));
	m->raw_set = m->set;
	return NULL;
}

static void add_manager(struct arena *a, struct managers *out, const struct manager *m)
{
	struct manager *old = managers_find(out, m);

	if (old)
		*old = *m;
	else
		*arena_push(a, out) = *m;
}

struct error *managers_decode(struct arena *a, const struct jv *list, struct managers *out)
{
	*out = (struct managers){0};
	for (uint32_t i = 0; list && list->kind == JV_ARRAY && i < list->n; i++) {
		struct manager m;

		TRY(decode_entry(a, &list->items[i], i, &m));
		add_manager(a, out, &m);
	}
	return NULL;
}

int manager_order(const void *x, const void *y)
{
	const struct manager *a = x, *b = y;
	int c;

	if (a->applied != b->applied)
		return a->applied ? -1 : 1; /* "Apply" < "Update" */
	if ((c = str_cmp(a->time, b->time)) || (c = str_cmp(a->name, b->name)) ||
	    (c = str_cmp(a->api_version, b->api_version)))
		return c;
	return str_cmp(a->subresource, b->subresource);
}

/* FieldsV1 of an entry: as it was when nothing changed. */
static struct str fields_text(struct arena *a, const struct manager *m)
{
	buf_cleanup struct buf b = {0};

	if (m->raw.n && m->set == m->raw_set)
		return m->raw;
	field_set_encode(&b, m->set);
	return arena_str(a, buf_view(&b));
}

static struct jv encode(struct arena *a, struct managers *m)
{
	struct jv list = jv_array();

	if (m->n)
		qsort(m->v, m->n, sizeof *m->v, manager_order);
	for (uint32_t i = 0; i < m->n; i++) {
		const struct manager *e = &m->v[i];
		struct jv o = jv_object(), fields;

		if (e->name.n)
			jv_set(a, &o, STR("manager"), jv_string(e->name));
		jv_set(a, &o, STR("operation"), jv_string(e->applied ? STR("Apply") : STR("Update")));
		jv_set(a, &o, STR("apiVersion"), jv_string(e->api_version));
		if (e->time.n)
			jv_set(a, &o, STR("time"), jv_string(e->time));
		jv_set(a, &o, STR("fieldsType"), jv_string(STR("FieldsV1")));
		/* Well-formed by construction, and no deeper than the object. */
		struct error *err = jv_parse(a, fields_text(a, e), NULL, &fields);

		if (err) {
			error_free(err);
			fields = jv_object();
		}
		jv_set(a, &o, STR("fieldsV1"), fields);
		if (e->subresource.n)
			jv_set(a, &o, STR("subresource"), jv_string(e->subresource));
		jv_push(a, &list, o);
	}
	return list;
}

const struct jv *managed_fields_of(const struct jv *obj)
{
	return jv_at(obj, "metadata", "managedFields", NULL);
}

/* obj without metadata.managedFields; a copy of the two objects on the way, so that obj stays. */
struct jv managed_fields_without(struct arena *a, const struct jv *obj)
{
	struct jv out = jv_object();

	if (!managed_fields_of(obj))
		return *obj;
	for (uint32_t i = 0; i < obj->n; i++) {
		struct jv v = obj->members[i].value;

		if (str_eqz(obj->members[i].key, "metadata")) {
			struct jv meta = jv_object();

			for (uint32_t k = 0; k < v.n; k++)
				if (!str_eqz(v.members[k].key, "managedFields"))
					jv_set(a, &meta, v.members[k].key, v.members[k].value);
			v = meta;
		}
		jv_set(a, &out, obj->members[i].key, v);
	}
	return out;
}

bool managed_fields_alone_differ(struct arena *a, const struct jv *x, const struct jv *y)
{
	struct jv p = managed_fields_without(a, x), q = managed_fields_without(a, y);

	return jv_equal(&p, &q);
}

void managed_fields_set(struct arena *a, struct jv *obj, struct managers *m)
{
	if (!m->n)
		return;
	jv_set(a, jv_sub(a, obj, STR("metadata")), STR("managedFields"), encode(a, m));
}

/* The same entries but for their times. */
bool managers_same(struct arena *a, struct managers *x, struct managers *y)
{
	if (x->n != y->n)
		return false;
	for (uint32_t i = 0; i < x->n; i++) {
		const struct manager *m = managers_find(y, &x->v[i]);

		if (!m || !str_eq(m->api_version, x->v[i].api_version) || !field_set_equal(m->set, x->v[i].set))
			return false;
	}
	return true;
}

/* ---- typed objects ---- */

struct error *managers_decode_typed(struct arena *a, const entry_list *list, struct managers *out)
{
	*out = (struct managers){0};
	for (uint32_t i = 0; i < list->n; i++) {
		const struct meta_v1_managed_fields_entry *e = &list->v[i];
		struct manager m = {
			.name = e->manager,
			.api_version = e->api_version,
			.subresource = e->subresource,
			.applied = str_eqz(e->operation, "Apply"),
			.time = e->time && e->time->set ? time_format(a, *e->time, false) : STR_NULL,
		};

		if ((!m.applied && !str_eqz(e->operation, "Update")) || !m.api_version.n || !str_eqz(e->fields_type, "FieldsV1"))
			return error_status(422, "Invalid", "managed fields entry %u is not valid", i);
		if (e->fields_v1 && e->fields_v1->n) {
			TRY(field_set_parse(a, *e->fields_v1, &m.set));
			m.raw = *e->fields_v1;
			m.raw_set = m.set;
		}
		add_manager(a, out, &m);
	}
	return NULL;
}

struct error *managed_fields_check(struct arena *a, const struct meta_v1_object_meta *m)
{
	struct managers out;

	for (uint32_t i = 0; i < m->managed_fields.n; i++) {
		const struct meta_v1_managed_fields_entry *e = &m->managed_fields.v[i];

		if (!str_eqz(e->operation, "Apply") && !str_eqz(e->operation, "Update"))
			return error_new("operation must be `Apply` or `Update`");
		if (!e->api_version.n)
			return error_new("apiVersion must not be empty");
		if (!e->fields_type.n)
			return error_new("missing fieldsType in managed fields entry %u", i);
		if (!str_eqz(e->fields_type, "FieldsV1"))
			return error_new("invalid fieldsType \"%.*s\" in managed fields entry %u", STR_ARG(e->fields_type), i);
	}
	return error_wrap(managers_decode_typed(a, &m->managed_fields, &out), "error decoding versioned set");
}

void managers_encode_typed(struct arena *a, struct managers *m, entry_list *out)
{
	memset(out, 0, sizeof *out);
	if (m->n)
		qsort(m->v, m->n, sizeof *m->v, manager_order);
	for (uint32_t i = 0; i < m->n; i++) {
		const struct manager *from = &m->v[i];
		struct meta_v1_managed_fields_entry *e = arena_push(a, out);
		struct api_time t;

		e->manager = from->name;
		e->operation = from->applied ? STR("Apply") : STR("Update");
		e->api_version = from->api_version;
		if (from->time.n && time_parse(from->time, &t)) {
			e->time = arena_new(a, struct api_time);
			*e->time = t;
		}
		e->fields_type = STR("FieldsV1");
		e->fields_v1 = arena_new(a, struct str);
		*e->fields_v1 = fields_text(a, from);
		e->subresource = from->subresource;
	}
}
