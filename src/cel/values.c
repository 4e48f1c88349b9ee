/* Values: views over trees and structs, lists and maps, equality, order. */
#include <math.h>
#include <stdlib.h>
#include "cel/internal.h"

#define INDEX_FROM 8 /* entries from which a map is hashed */

struct cel_value cel_error(struct arena *a, const char *fmt, ...)
{
	struct cel_error_info *e = arena_new(a, struct cel_error_info);
	va_list ap;

	va_start(ap, fmt);
	e->text = arena_vprintf(a, fmt, ap);
	va_end(ap);
	return (struct cel_value){.kind = CEL_ERROR, .ptr = e};
}

struct cel_value cel_fail(struct run *r, const char *fmt, ...)
{
	struct cel_error_info *e = arena_new(r->a, struct cel_error_info);
	va_list ap;

	va_start(ap, fmt);
	e->text = arena_vprintf(r->a, fmt, ap);
	va_end(ap);
	return (struct cel_value){.kind = CEL_ERROR, .ptr = e};
}

struct cel_value cel_no_overload(struct run *r)
{
	return cel_fail(r, "no such overload");
}

struct str cel_error_text(struct cel_value v)
{
	return v.kind == CEL_ERROR ? ((const struct cel_error_info *)v.ptr)->text : STR_NULL;
}

bool cel_error_is_cost(struct cel_value v)
{
	return v.kind == CEL_ERROR && ((const struct cel_error_info *)v.ptr)->cost;
}

struct cel_value cel_optional(const struct cel_value *v)
{
	return (struct cel_value){.kind = CEL_OPTIONAL, .ptr = v};
}

const struct cel_value *cel_optional_get(struct cel_value v)
{
	return v.kind == CEL_OPTIONAL ? v.ptr : NULL;
}

struct cel_value cel_list(const struct cel_value *v, uint32_t n)
{
	return (struct cel_value){.kind = CEL_LIST, .rep = REP_ARRAY, .n = n, .ptr = v};
}

struct cel_value cel_lazy_map(struct cel_lazy *self)
{
	return (struct cel_value){.kind = CEL_MAP, .rep = REP_LAZY, .ptr = self};
}

struct cel_value cel_opaque(const struct cel_type *t, const void *p)
{
	return (struct cel_value){.kind = CEL_OPAQUE, .ptr = p, .type = t};
}

uint64_t cel_runes(struct str s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
	return n;
}

/* ---- maps ---- */

static bool lossless(double d, int64_t *out)
{
	if (!(d >= -9223372036854775808.0 && d < 9223372036854775808.0) || d != floor(d))
		return false;
	*out = (int64_t)d;
	return true;
}

uint64_t cel_hash_key(struct cel_value k)
{
	int64_t i;

	switch (k.kind) {
	case CEL_STRING:
		return str_hash(cel_str(k));
	case CEL_DOUBLE:
		if (!lossless(k.d, &i))
			return (uint64_t)k.i * 0x9e3779b97f4a7c15ull;
		return (uint64_t)i * 0x9e3779b97f4a7c15ull;
	case CEL_BOOL:
		return k.b;
	case CEL_INT:
	case CEL_UINT:
		return k.u * 0x9e3779b97f4a7c15ull;
	default:
		return 0;
	}
}

/* Numbers of different types are the same key when they are equal. */
static bool same_key(struct cel_value x, struct cel_value y)
{
	int64_t i;

	if (x.kind == CEL_STRING || y.kind == CEL_STRING)
		return x.kind == y.kind && x.n == y.n && !memcmp(x.p, y.p, x.n);
	if (x.kind == CEL_TIMESTAMP || x.kind == CEL_DURATION) /* only cel.@mapInsert makes such keys */
		return x.kind == y.kind && x.i == y.i && (x.kind == CEL_DURATION || x.ns == y.ns);
	if (x.kind == y.kind)
		return x.kind == CEL_NULL || (x.kind == CEL_DOUBLE ? x.d == y.d : x.kind == CEL_BOOL ? x.b == y.b : x.kind <= CEL_UINT && x.i == y.i);
	if (y.kind == CEL_DOUBLE) {
		struct cel_value t = x;

		x = y;
		y = t;
	}
	if (x.kind == CEL_DOUBLE && y.kind == CEL_INT)
		return lossless(x.d, &i) && i == y.i;
	if (x.kind == CEL_DOUBLE && y.kind == CEL_UINT)
		return x.d >= 0 && x.d == floor(x.d) && x.d < 18446744073709551616.0 && (uint64_t)x.d == y.u;
	if ((x.kind == CEL_INT && y.kind == CEL_UINT) || (x.kind == CEL_UINT && y.kind == CEL_INT))
		return x.i >= 0 && y.i >= 0 && x.i == y.i;
	return false;
}

struct cel_map *cel_map_new(struct arena *a, uint32_t room)
{
	struct cel_map *m = arena_new(a, struct cel_map);

	m->cap = room;
	m->v = room ? arena_array(a, struct cel_entry, room) : NULL;
	return m;
}

static void map_index(struct arena *a, struct cel_map *m)
{
	uint32_t size = 32;

	while (size < m->n * 4)
		size *= 2;
	m->index = arena_array(a, uint32_t, size);
	m->mask = size - 1;
	for (uint32_t i = 0; i < m->n; i++) {
		uint32_t at = (uint32_t)cel_hash_key(m->v[i].key) & m->mask;

		while (m->index[at])
			at = (at + 1) & m->mask;
		m->index[at] = i + 1;
	}
}

static struct cel_entry *map_entry(const struct cel_map *m, struct cel_value key)
{
	if (!m->index) {
		for (uint32_t i = 0; i < m->n; i++)
			if (same_key(m->v[i].key, key))
				return &m->v[i];
		return NULL;
	}
	for (uint32_t at = (uint32_t)cel_hash_key(key) & m->mask; m->index[at]; at = (at + 1) & m->mask)
		if (same_key(m->v[m->index[at] - 1].key, key))
			return &m->v[m->index[at] - 1];
	return NULL;
}

struct cel_value *cel_map_find(const struct cel_map *m, struct cel_value key)
{
	struct cel_entry *e = map_entry(m, key);

	return e ? &e->value : NULL;
}

void cel_map_put(struct arena *a, struct cel_map *m, struct cel_value key, struct cel_value value)
{
	struct cel_entry *e = map_entry(m, key);

	if (e && e->key.kind == key.kind) {
		e->value = value;
		return;
	}
	if (m->n == m->cap) {
		uint32_t cap = m->cap ? m->cap * 2 : 8;
		struct cel_entry *v = arena_array(a, struct cel_entry, cap);

		if (m->n)
			memcpy(v, m->v, m->n * sizeof *v);
		m->v = v;
		m->cap = cap;
	}
	m->v[m->n++] = (struct cel_entry){key, value};
	if (m->index && m->n * 2 <= m->mask) {
		uint32_t at = (uint32_t)cel_hash_key(key) & m->mask;

		while (m->index[at])
			at = (at + 1) & m->mask;
		m->index[at] = m->n;
	} else if (m->n >= INDEX_FROM) {
		map_index(a, m);
	}
}

struct cel_value cel_map_value(const struct cel_map *m)
{
	return (struct cel_value){.kind = CEL_MAP, .rep = REP_MAP, .ptr = m};
}

struct cel_value cel_string_map(struct arena *a, const struct str *keys, const struct cel_value *values, uint32_t n)
{
	struct cel_map *m = cel_map_new(a, n);

	for (uint32_t i = 0; i < n; i++)
		cel_map_put(a, m, cel_string(keys[i]), values[i]);
	return cel_map_value(m);
}

/* ---- trees ---- */

static struct cel_value bad_data(struct arena *a, const char *want, const struct jv *v)
{
	static const char *const names[] = {"null", "bool", "int64", "float64", "string", "[]interface {}", "map[string]interface {}"};

	return cel_error(a, "invalid data, expected %s, got %s", want, names[v->kind]);
}

static struct cel_value untyped(const struct jv *v)
{
	switch (v->kind) {
	case JV_BOOL:
		return cel_bool(v->b);
	case JV_INT:
		return cel_int(v->i);
	case JV_DOUBLE:
		return cel_double(v->d);
	case JV_STRING:
		return (struct cel_value){.kind = CEL_STRING, .n = v->n, .p = v->p};
	case JV_ARRAY:
		return (struct cel_value){.kind = CEL_LIST, .rep = REP_JV, .n = v->n, .ptr = v};
	case JV_OBJECT:
		return (struct cel_value){.kind = CEL_MAP, .rep = REP_JV, .n = v->n, .ptr = v};
	default:
		return CEL_NULL_VALUE;
	}
}

static struct cel_value typed(struct arena *a, const struct jv *v, const struct cel_type *t)
{
	struct cel_value out;
	struct str s, bytes;
	int64_t ns;

	if (v->kind == JV_NULL)
		return t->nullable || (t->kind == CEL_DYN && !t->int_or_string) ? CEL_NULL_VALUE :
					       cel_error(a, "invalid data, got null for schema with nullable=false");
	switch (t->kind) {
	case CEL_DYN:
		if (t->int_or_string && v->kind != JV_INT && v->kind != JV_STRING)
			return cel_error(a, "invalid data, expected XIntOrString value to be either a string or integer");
		return untyped(v);
	case CEL_BOOL:
		return v->kind == JV_BOOL ? cel_bool(v->b) : bad_data(a, "bool", v);
	case CEL_INT:
		return v->kind == JV_INT ? cel_int(v->i) : bad_data(a, "int", v);
	case CEL_DOUBLE:
		if (v->kind == JV_INT)
			return cel_double((double)v->i);
		return v->kind == JV_DOUBLE ? cel_double(v->d) : bad_data(a, "float", v);
	case CEL_LIST:
		if (v->kind != JV_ARRAY)
			return cel_error(a, "invalid data, expected an array for the provided schema with type=array");
		return (struct cel_value){.kind = CEL_LIST, .rep = REP_JV, .n = v->n, .ptr = v, .type = t};
	case CEL_MAP:
	case CEL_OBJECT:
		if (v->kind != JV_OBJECT)
			return cel_error(a, "invalid data, expected a map for the provided schema with type=object");
		return (struct cel_value){.kind = CEL_MAP, .rep = REP_JV, .n = v->n, .ptr = v, .type = t};
	default:
		break;
	}
	if (v->kind != JV_STRING)
		return bad_data(a, "string", v);
	s = jv_str(v);
	switch (t->kind) {
	case CEL_BYTES:
		if (!base64_decode(a, s, &bytes))
			return cel_error(a, "Invalid byte formatted string %.*s", STR_ARG(s));
		return cel_bytes(bytes);
	case CEL_DURATION:
		if (!cel_format_duration(s, &ns))
			return cel_error(a, "Invalid duration %.*s", STR_ARG(s));
		return cel_duration(ns);
	case CEL_TIMESTAMP:
		if (t->date)
			s = arena_printf(a, "%.*sT00:00:00Z", STR_ARG(s));
		if ((t->date && s.n != 20) || !cel_parse_timestamp(s, &out))
			return cel_error(a, t->date ? "Invalid date formatted string %.*s" : "Invalid date-time formatted string %.*s", STR_ARG(s));
		return out;
	default:
		return cel_string(s);
	}
}

struct cel_value cel_from_jv(struct arena *a, const struct jv *v, const struct cel_type *type)
{
	static const struct jv null;

	if (!v)
		v = &null;
	return type ? typed(a, v, type) : untyped(v);
}

/* ---- structs ---- */

static struct cel_value field_value(struct arena *a, uint8_t kind, const struct schema_type *t, const void *v)
{
	struct jv j;
	struct error *e;
	struct str s;

	switch (kind) {
	case FIELD_STRING:
		return cel_string(*(const struct str *)v);
	case FIELD_BOOL:
		return cel_bool(*(const bool *)v);
	case FIELD_INT32:
		return cel_int(*(const int32_t *)v);
	case FIELD_INT64:
		return cel_int(*(const int64_t *)v);
	case FIELD_UINT32:
		return cel_int(*(const uint32_t *)v);
	case FIELD_UINT64:
		return cel_int((int64_t)*(const uint64_t *)v);
	case FIELD_DOUBLE:
		return cel_double(*(const double *)v);
	case FIELD_QUANTITY:
		s = *(const struct str *)v;
		return cel_string(s.n ? s : STR("0"));
	case FIELD_INTSTR: {
		const struct int_or_string *is = v;

		return is->is_str ? cel_string(is->s) : cel_int(is->i);
	}
	case FIELD_TIME:
	case FIELD_MICROTIME: {
		const struct api_time *at = v;

		return at->set ? cel_string(time_format(a, *at, kind == FIELD_MICROTIME)) : CEL_NULL_VALUE;
	}
	case FIELD_DURATION:
		return cel_string(duration_format(a, *(const int64_t *)v));
	case FIELD_BYTES: {
		struct buf b buf_cleanup = {0};

		s = *(const struct str *)v;
		if (!s.p)
			return CEL_NULL_VALUE;
		base64_encode(&b, s);
		return cel_string(arena_str(a, buf_view(&b)));
	}
	case FIELD_STRINGS: {
		const struct strings *l = v;

		return l->v ? (struct cel_value){.kind = CEL_LIST, .rep = REP_STRINGS, .n = l->n, .ptr = l->v} : CEL_NULL_VALUE;
	}
	case FIELD_MESSAGE:
		if (t->json == SCHEMA_OBJECT)
			return (struct cel_value){.kind = CEL_MAP, .rep = REP_TYPED, .ptr = v, .type = t};
		jv_from_object(a, t, v, &j);
		break;
	default: /* raw JSON */
		s = *(const struct str *)v;
		if (!s.n)
			return CEL_NULL_VALUE;
		e = jv_parse(a, s, NULL, &j);
		if (e) {
			struct cel_value bad = cel_error(a, "invalid data: %s", error_message(e));

			error_free(e);
			return bad;
		}
	}
	{
		struct jv *kept = arena_new(a, struct jv);

		*kept = j;
		return untyped(kept);
	}
}

struct raw { /* the shape of every LIST() */
	const char *v;
	uint32_t n, cap;
};

static struct cel_value member_value(struct arena *a, const struct schema_field *f, const void *v)
{
	const struct raw *l = v;

	switch (f->card) {
	case CARD_PTR:
		v = *(void *const *)v;
		return v ? field_value(a, f->kind, f->type, v) : CEL_NULL_VALUE;
	case CARD_LIST:
		return l->v || l->n ? (struct cel_value){.kind = CEL_LIST, .rep = REP_FIELD, .n = l->n, .ptr = l, .type = f} : CEL_NULL_VALUE;
	case CARD_MAP:
		return l->v || l->n ? (struct cel_value){.kind = CEL_MAP, .rep = REP_FIELD, .n = l->n, .ptr = l, .type = f} : CEL_NULL_VALUE;
	default:
		return field_value(a, f->kind, f->type, v);
	}
}

struct cel_value cel_from_object(const struct schema_type *t, const void *obj)
{
	return obj ? (struct cel_value){.kind = CEL_MAP, .rep = REP_TYPED, .ptr = obj, .type = t} : CEL_NULL_VALUE;
}

static bool visible(const struct schema_field *f, const char *obj)
{
	return !(f->flags & FIELD_NOJSON) && !json_omits(f, obj + f->offset);
}

/* ---- reading ---- */

/* The i-th of the members that a struct has in JSON. */
static const struct schema_field *struct_field(struct cel_value v, uint32_t i)
{
	const struct schema_type *t = v.type;

	for (uint32_t k = 0; k < t->n_fields; k++)
		if (visible(&t->fields[k], v.ptr) && !i--)
			return &t->fields[k];
	return NULL;
}

uint32_t cel_size(struct cel_value v)
{
	switch (v.kind) {
	case CEL_STRING:
		return (uint32_t)cel_runes(cel_str(v));
	case CEL_LIST:
		return v.rep == REP_GROWING ? ((const struct growing *)v.ptr)->n : v.n;
	case CEL_BYTES:
		return v.n;
	case CEL_MAP:
	case CEL_OBJECT:
		switch (v.rep) {
		case REP_MAP:
		case REP_OBJECT:
			return ((const struct cel_map *)v.ptr)->n;
		case REP_TYPED: {
			const struct schema_type *t = v.type;
			uint32_t n = 0;

			for (uint32_t k = 0; k < t->n_fields; k++)
				n += visible(&t->fields[k], v.ptr);
			return n;
		}
		case REP_LAZY:
			return 0;
		default:
			return v.n;
		}
	default:
		return 0;
	}
}

struct cel_value cel_at(struct arena *a, struct cel_value v, uint32_t i)
{
	switch (v.rep) {
	case REP_ARRAY:
		return ((const struct cel_value *)v.ptr)[i];
	case REP_GROWING:
		return ((const struct growing *)v.ptr)->v[i];
	case REP_STRINGS:
		return cel_string(((const struct str *)v.ptr)[i]);
	case REP_JV: {
		const struct jv *x = &((const struct jv *)v.ptr)->items[i];
		const struct cel_type *t = v.type;

		return t ? typed(a, x, cel_elem(t)) : untyped(x);
	}
	case REP_FIELD: {
		const struct schema_field *f = v.type;
		const struct raw *l = v.ptr;

		return field_value(a, f->kind, f->type, l->v + (size_t)i * f->elem_size);
	}
	default:
		return CEL_NULL_VALUE;
	}
}

const struct cel_value *cel_items(struct arena *a, struct cel_value v)
{
	struct cel_value *out;
	uint32_t n = cel_size(v);

	if (v.rep == REP_ARRAY)
		return v.ptr;
	if (v.rep == REP_GROWING)
		return ((const struct growing *)v.ptr)->v;
	out = arena_array(a, struct cel_value, n ? n : 1);
	for (uint32_t i = 0; i < n; i++)
		out[i] = cel_at(a, v, i);
	return out;
}

struct cel_value cel_map_at(struct arena *a, struct cel_value v, uint32_t i, struct cel_value *value)
{
	switch (v.rep) {
	case REP_MAP:
	case REP_OBJECT: {
		const struct cel_map *m = v.ptr;

		*value = m->v[i].value;
		return m->v[i].key;
	}
	case REP_JV: {
		const struct jv_member *m = &((const struct jv *)v.ptr)->members[i];
		const struct cel_type *t = v.type;

		if (!t) {
			*value = untyped(&m->value);
			return cel_string(m->key);
		}
		if (t->kind == CEL_MAP) {
			*value = typed(a, &m->value, cel_elem(t));
			return cel_string(m->key);
		}
		for (uint32_t k = 0; k < t->n_fields; k++)
			if (str_eq(t->fields[k].json_name, m->key)) {
				*value = typed(a, &m->value, t->fields[k].type);
				return cel_string(t->fields[k].name);
			}
		*value = untyped(&m->value);
		return cel_string(m->key);
	}
	case REP_TYPED: {
		const struct schema_field *f = struct_field(v, i);

		*value = member_value(a, f, (const char *)v.ptr + f->offset);
		return cel_string(f->name);
	}
	case REP_FIELD: {
		const struct schema_field *f = v.type;
		const char *e = ((const struct raw *)v.ptr)->v + (size_t)i * f->elem_size;

		*value = field_value(a, f->kind, f->type, e + f->value_offset);
		return cel_string(*(const struct str *)(const void *)e);
	}
	default:
		*value = CEL_NULL_VALUE;
		return CEL_NULL_VALUE;
	}
}

int cel_find_field(struct arena *a, struct cel_value v, struct str name, struct cel_value *out)
{
	switch (v.rep) {
	case REP_MAP:
	case REP_OBJECT: {
		struct cel_entry *e = map_entry(v.ptr, cel_string(name));

		if (!e)
			return 0;
		*out = e->value;
		return 1;
	}
	case REP_JV: {
		const struct cel_type *t = v.type;
		const struct jv *m;

		if (!t || t->kind == CEL_MAP) {
			m = jv_get(v.ptr, name);
			if (!m)
				return 0;
			*out = t ? typed(a, m, cel_elem(t)) : untyped(m);
			return out->kind == CEL_ERROR ? -1 : 1;
		}
		const struct cel_field *f = cel_type_field(t, name);

		m = f ? jv_get(v.ptr, f->json_name) : NULL;
		if (!m || m->kind == JV_NULL)
			return 0;
		*out = typed(a, m, f->type);
		return out->kind == CEL_ERROR ? -1 : 1;
	}
	case REP_TYPED: {
		const struct schema_field *f = schema_field(v.type, name);

		if (!f || !visible(f, v.ptr))
			return 0;
		*out = member_value(a, f, (const char *)v.ptr + f->offset);
		return out->kind == CEL_ERROR ? -1 : 1;
	}
	case REP_FIELD: {
		const struct schema_field *f = v.type;
		const struct raw *l = v.ptr;

		for (uint32_t i = 0; i < l->n; i++) {
			const char *e = l->v + (size_t)i * f->elem_size;

			if (!str_eq(*(const struct str *)(const void *)e, name))
				continue;
			*out = field_value(a, f->kind, f->type, e + f->value_offset);
			return out->kind == CEL_ERROR ? -1 : 1;
		}
		return 0;
	}
	case REP_LAZY: {
		struct cel_lazy *z = (struct cel_lazy *)v.ptr;

		if (!z->get(z, a, name, out))
			return 0;
		return out->kind == CEL_ERROR ? -1 : 1;
	}
	default:
		return 0;
	}
}

int cel_find(struct arena *a, struct cel_value v, struct cel_value key, struct cel_value *out)
{
	struct cel_entry *e;

	if (key.kind == CEL_STRING)
		return cel_find_field(a, v, cel_str(key), out);
	if (v.rep != REP_MAP) {
		if (v.rep == REP_JV && v.type) {
			*out = cel_error(a, "no such overload");
			return -1;
		}
		return 0;
	}
	if (key.kind == CEL_BYTES) {
		*out = cel_error(a, "internal error: runtime error: hash of unhashable type types.Bytes");
		return -1;
	}
	e = map_entry(v.ptr, key);
	if (!e)
		return 0;
	*out = e->value;
	return 1;
}

bool cel_get(struct arena *a, struct cel_value map, struct str key, struct cel_value *out)
{
	if (map.kind != CEL_MAP && map.kind != CEL_OBJECT)
		return false;
	return cel_find_field(a, map, key, out) != 0;
}

struct str cel_object_type(struct cel_value v)
{
	return v.kind == CEL_OBJECT ? ((const struct cel_type *)v.type)->name : STR("");
}

/* ---- others ---- */

const struct cel_type *cel_runtime_type(struct cel_value v)
{
	static const struct cel_type optional = {.kind = CEL_OPTIONAL};
	static const struct cel_type *const types[] = {
		[CEL_NULL] = &cel_type_null, [CEL_BOOL] = &cel_type_bool, [CEL_INT] = &cel_type_int, [CEL_UINT] = &cel_type_uint,
		[CEL_DOUBLE] = &cel_type_double, [CEL_STRING] = &cel_type_string, [CEL_BYTES] = &cel_type_bytes,
		[CEL_TIMESTAMP] = &cel_type_timestamp, [CEL_DURATION] = &cel_type_duration, [CEL_LIST] = &cel_type_list_dyn,
		[CEL_MAP] = &cel_type_map_dyn, [CEL_TYPE] = &cel_type_type, [CEL_OPTIONAL] = &optional,
	};

	if (v.kind == CEL_OBJECT || v.kind == CEL_OPAQUE)
		return v.type;
	return v.kind <= CEL_OPTIONAL ? types[v.kind] : &cel_type_error;
}

struct str cel_kind_name(struct cel_value v)
{
	return cel_type_name(cel_runtime_type(v));
}

bool cel_is_zero(struct arena *a, struct cel_value v)
{
	(void)a;
	switch (v.kind) {
	case CEL_NULL:
		return true;
	case CEL_BOOL:
		return !v.b;
	case CEL_INT:
	case CEL_UINT:
	case CEL_DURATION:
		return v.i == 0;
	case CEL_DOUBLE:
		return v.d == 0;
	case CEL_STRING:
	case CEL_BYTES:
		return v.n == 0;
	case CEL_TIMESTAMP:
		return v.i == -62135596800 && v.ns == 0;
	case CEL_LIST:
	case CEL_MAP:
		/* views through a schema are no zero values in upstream, even when empty */
		return !(v.rep == REP_JV && v.type) && !cel_list_view(v) && v.rep != REP_LAZY && cel_size(v) == 0;
	case CEL_OBJECT:
		return cel_size(v) == 0;
	default:
		return false;
	}
}

uint64_t cel_actual_size(struct cel_value v, bool through_optional)
{
	switch (v.kind) {
	case CEL_STRING:
	case CEL_BYTES:
	case CEL_LIST:
	case CEL_MAP:
		return cel_size(v);
	case CEL_OPTIONAL:
		return through_optional && v.ptr ? cel_actual_size(*(const struct cel_value *)v.ptr, true) : 1;
	case CEL_OPAQUE:
		if (v.type == &cel_type_ip || v.type == &cel_type_cidr)
			return ((const uint8_t *)v.ptr)[0]; /* see net.c: first byte of both */
		return 1;
	default:
		return 1;
	}
}

struct str cel_show(struct arena *a, struct cel_value v)
{
	struct buf b buf_cleanup = {0};
	uint32_t n;

	switch (v.kind) {
	case CEL_NULL:
		return STR("NULL_VALUE");
	case CEL_BOOL:
		return v.b ? STR("true") : STR("false");
	case CEL_INT:
		return arena_printf(a, "%lld", (long long)v.i);
	case CEL_UINT:
		return arena_printf(a, "%llu", (unsigned long long)v.u);
	case CEL_DOUBLE:
		return cel_double_text(a, v.d);
	case CEL_STRING:
	case CEL_BYTES:
		return cel_str(v);
	case CEL_TIMESTAMP:
		return cel_timestamp_text(a, v);
	case CEL_DURATION:
		return cel_duration_text(a, v.i);
	case CEL_LIST:
		buf_putc(&b, '[');
		n = cel_size(v);
		for (uint32_t i = 0; i < n && b.n < 4096; i++) {
			if (i)
				buf_puts(&b, ", ");
			buf_str(&b, cel_show(a, cel_at(a, v, i)));
		}
		buf_putc(&b, ']');
		return arena_str(a, buf_view(&b));
	default:
		return cel_kind_name(v);
	}
}

struct cel_value cel_native(struct arena *a, struct cel_value v)
{
	struct jv *tree;
	struct error *e;
	struct str s;

	while (v.kind == CEL_OPTIONAL)
		v = v.ptr ? *(const struct cel_value *)v.ptr : CEL_NULL_VALUE;
	switch (v.kind) {
	case CEL_TYPE:
		return cel_string(cel_type_name(v.type));
	case CEL_LIST:
	case CEL_MAP:
		if (v.rep == REP_LAZY)
			return cel_error(a, "no such overload");
		if (v.rep == REP_ARRAY)
			v.type = NULL;
		return v.rep == REP_JV ? untyped(v.ptr) : v;
	case CEL_OBJECT:
		if (v.type == &cel_type_json_patch)
			return v;
		tree = arena_new(a, struct jv);
		e = cel_to_configuration(a, v, tree);
		if (e) {
			v = cel_error(a, "%s", error_message(e));
			error_free(e);
			return v;
		}
		return untyped(tree);
	case CEL_OPAQUE:
		if (v.type == &cel_type_format)
			return v;
		s = cel_kind_name(v);
		return cel_error(a, "unsupported conversion to ref.Val: %.*s", STR_ARG(s));
	default:
		return v;
	}
}
