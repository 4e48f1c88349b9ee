/*
 * Literals of google.protobuf's well-known messages (protobuf.dev/reference/protobuf/google.protobuf): cel-go's
 * registry knows them everywhere. A message becomes the plain value that it stands for; only Empty stays an object.
 */
#include <math.h>
#include "cel/ast.h"

#define ANY_DEPTH 32 /* of messages within an Any: deeper ones are not read */

enum what {
	TIMESTAMP,
	DURATION,
	INT64,
	INT32,
	UINT64,
	UINT32,
	DOUBLE,
	FLOAT,
	BOOL,
	STRING,
	BYTES,
	STRUCT,
	VALUE,
	LIST_VALUE,
	ANY,
	EMPTY
};

struct cel_message {
	const char *name;            /* behind google.protobuf. */
	const struct cel_type *type; /* of the literal */
	uint8_t what, n_fields;
	bool named;                     /* its name is a value, too */
	const struct cel_field *fields; /* field number i + 1 */
};

#define WRAPPED(k)                                                                                                     \
	{                                                                                                              \
		.kind = k, .wrapper = true, .max_size = CEL_NO_MAX_SIZE                                                \
	}
static const struct cel_type wrapped_int = WRAPPED(CEL_INT), wrapped_uint = WRAPPED(CEL_UINT),
			     wrapped_double = WRAPPED(CEL_DOUBLE), wrapped_bool = WRAPPED(CEL_BOOL),
			     wrapped_string = WRAPPED(CEL_STRING), wrapped_bytes = WRAPPED(CEL_BYTES),
			     any_type = {.kind = CEL_DYN,
					 .name = STR_INIT("google.protobuf.Any"),
					 .max_size = CEL_NO_MAX_SIZE},
			     empty_type = {.kind = CEL_OBJECT, .name = STR_INIT("google.protobuf.Empty")};

#define FIELD(n, t)                                                                                                    \
	{                                                                                                              \
		STR_INIT(n), STR_INIT(n), &cel_type_##t                                                                \
	}
static const struct cel_field times[] = {FIELD("seconds", int), FIELD("nanos", int)}, an_int[] = {FIELD("value", int)},
			      a_uint[] = {FIELD("value", uint)}, a_double[] = {FIELD("value", double)},
			      a_bool[] = {FIELD("value", bool)}, a_string[] = {FIELD("value", string)},
			      a_bytes[] = {FIELD("value", bytes)}, a_struct[] = {FIELD("fields", map_string_dyn)},
			      a_list[] = {FIELD("values", list_dyn)},
			      a_value[] = {FIELD("null_value", int),
					   FIELD("number_value", double),
					   FIELD("string_value", string),
					   FIELD("bool_value", bool),
					   FIELD("struct_value", map_string_dyn),
					   FIELD("list_value", list_dyn)},
			      an_any[] = {FIELD("type_url", string), FIELD("value", bytes)};

#define MESSAGE(z, t, w, f, ...)                                                                                       \
	{                                                                                                              \
		.name = z, .type = t, .what = w, .n_fields = sizeof f / sizeof *f, .fields = f, __VA_ARGS__            \
	}
static const struct cel_message messages[] = {
	MESSAGE("Timestamp", &cel_type_timestamp, TIMESTAMP, times, .named = true),
	MESSAGE("Duration", &cel_type_duration, DURATION, times, .named = true),
	MESSAGE("Int64Value", &wrapped_int, INT64, an_int),
	MESSAGE("Int32Value", &wrapped_int, INT32, an_int),
	MESSAGE("UInt64Value", &wrapped_uint, UINT64, a_uint),
	MESSAGE("UInt32Value", &wrapped_uint, UINT32, a_uint),
	MESSAGE("DoubleValue", &wrapped_double, DOUBLE, a_double),
	MESSAGE("FloatValue", &wrapped_double, FLOAT, a_double),
	MESSAGE("BoolValue", &wrapped_bool, BOOL, a_bool),
	MESSAGE("StringValue", &wrapped_string, STRING, a_string),
	MESSAGE("BytesValue", &wrapped_bytes, BYTES, a_bytes),
	MESSAGE("Struct", &cel_type_map_string_dyn, STRUCT, a_struct),
	MESSAGE("Value", &cel_type_dyn, VALUE, a_value),
	MESSAGE("ListValue", &cel_type_list_dyn, LIST_VALUE, a_list),
	MESSAGE("Any", &any_type, ANY, an_any),
	{.name = "Empty", .type = &empty_type, .what = EMPTY, .named = true},
};

const struct cel_message *cel_message_find(struct str name)
{
	if (!str_has_prefix(name, STR("google.protobuf.")))
		return NULL;
	for (size_t i = 0; i < sizeof messages / sizeof *messages; i++)
		if (str_eqz(str_sub(name, 16, name.n), messages[i].name))
			return &messages[i];
	return NULL;
}

const struct cel_type *cel_message_type(const struct cel_message *m)
{
	return m->type;
}

bool cel_message_named(const struct cel_message *m)
{
	return m->named;
}

const struct cel_field *cel_message_field(const struct cel_message *m, struct str name)
{
	for (size_t i = 0; i < m->n_fields; i++)
		if (str_eq(m->fields[i].name, name))
			return &m->fields[i];
	return NULL;
}

/* ---- values ---- */

static struct cel_value object_of(const struct cel_type *t, struct cel_map *m)
{
	return (struct cel_value){.kind = CEL_OBJECT, .rep = REP_OBJECT, .ptr = m, .type = t};
}

static struct cel_value timestamp(int64_t s, int64_t ns)
{
	s += ns / 1000000000 - (ns % 1000000000 < 0);
	return cel_timestamp(s, (int32_t)((ns % 1000000000 + 1000000000) % 1000000000));
}

/* Durations too long for nanoseconds in 64 bits end there. */
static struct cel_value duration(int64_t s, int64_t ns)
{
	int64_t d;

	if (__builtin_mul_overflow(s, (int64_t)1000000000, &d) || __builtin_add_overflow(d, ns, &d))
		d = s < 0 ? INT64_MIN : INT64_MAX;
	return cel_duration(d);
}

/* Numbers of JSON are doubles. */
static struct cel_value from_json(struct arena *a, const struct jv *v)
{
	struct cel_value *items;
	struct str *keys;

	switch ((enum jv_kind)v->kind) {
	case JV_BOOL:
		return cel_bool(v->b);
	case JV_INT:
	case JV_DOUBLE:
		return cel_double(v->kind == JV_INT ? (double)v->i : v->d);
	case JV_STRING:
		return cel_string(jv_str(v));
	case JV_ARRAY:
		items = arena_array(a, struct cel_value, v->n);
		for (uint32_t i = 0; i < v->n; i++)
			items[i] = from_json(a, &v->items[i]);
		return cel_list(items, v->n);
	case JV_OBJECT:
		items = arena_array(a, struct cel_value, v->n);
		keys = arena_array(a, struct str, v->n);
		for (uint32_t i = 0; i < v->n; i++) {
			keys[i] = v->members[i].key;
			items[i] = from_json(a, &v->members[i].value);
		}
		return cel_string_map(a, keys, items, v->n);
	default:
		return CEL_NULL_VALUE;
	}
}

static struct cel_value as_json(struct run *r, struct cel_value v)
{
	struct jv tree;
	struct error *e = cel_to_jv(r->a, v, &tree);
	struct cel_value out = e ? cel_fail(r, "%s", error_message(e)) : from_json(r->a, &tree);

	error_free(e);
	return out;
}

static struct cel_value unread(struct run *r)
{
	return cel_fail(r, "unsupported conversion to ref.Val: google.protobuf.Any");
}

/* ---- the wire format, for Any ---- */

struct wire {
	const unsigned char *p, *end;
	uint32_t field, type;
	uint64_t number;
	struct str bytes;
};

static bool varint(struct wire *w, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; shift < 64 && w->p < w->end; shift += 7) {
		unsigned char c = *w->p++;

		*out |= (uint64_t)(c & 0x7f) << shift;
		if (c < 0x80)
			return shift < 63 || c < 2;
	}
	return false;
}

/* 1: a field; 0: the end; -1: these bytes are no message. */
static int next(struct wire *w)
{
	uint64_t key;
	size_t n;

	if (w->p == w->end)
		return 0;
	if (!varint(w, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff)
		return -1;
	w->field = (uint32_t)(key >> 3);
	w->type = key & 7;
	w->number = 0;
	if (w->type == 0)
		return varint(w, &w->number) ? 1 : -1;
	if (w->type == 2) {
		if (!varint(w, &w->number) || w->number > (uint64_t)(w->end - w->p))
			return -1;
		n = (size_t)w->number;
	} else if (w->type == 1 || w->type == 5) {
		n = w->type == 1 ? 8 : 4;
		if ((size_t)(w->end - w->p) < n)
			return -1;
		for (size_t i = n; i-- > 0;)
			w->number = w->number << 8 | w->p[i];
	} else {
		return -1;
	}
	w->bytes = str_of((const char *)w->p, n);
	w->p += n;
	return 1;
}

static double as_double(uint64_t bits)
{
	double d;

	memcpy(&d, &bits, sizeof d);
	return d;
}

static double as_float(uint64_t bits)
{
	uint32_t low = (uint32_t)bits;
	float f;

	memcpy(&f, &low, sizeof f);
	return f;
}

static bool read_message(struct run *r, const struct cel_message *m, struct str bytes, int depth,
			 struct cel_value *out);

static bool read_any(struct run *r, struct str url, struct str bytes, int depth, struct cel_value *out)
{
	const struct cel_message *m;

	for (ptrdiff_t i; (i = str_index(url, '/')) >= 0;)
		url = str_sub(url, (size_t)i + 1, url.n);
	m = cel_message_find(url);
	return m && read_message(r, m, bytes, depth + 1, out);
}

/* An entry of a Struct. */
static bool read_entry(struct run *r, struct str bytes, int depth, struct cel_map *into)
{
	struct wire w = {.p = (const unsigned char *)bytes.p, .end = (const unsigned char *)bytes.p + bytes.n};
	struct cel_value key = cel_string(STR_NULL), value = CEL_NULL_VALUE;
	int more;

	while ((more = next(&w)) > 0) {
		if (w.type != 2)
			continue;
		if (w.field == 1 && !cel_valid_utf8(w.bytes))
			return false;
		if (w.field == 1)
			key = cel_string(w.bytes);
		else if (w.field == 2 &&
			 !read_message(r, cel_message_find(STR("google.protobuf.Value")), w.bytes, depth + 1, &value))
			return false;
	}
	cel_map_put(r->a, into, key, value);
	return more == 0;
}

/* One field of the type that it has. */
static bool read_value(struct run *r, const struct wire *w, int depth, struct cel_value *out)
{
	switch (w->field << 3 | w->type) {
	case 1 << 3:
		*out = CEL_NULL_VALUE;
		return true;
	case 2 << 3 | 1:
		*out = cel_double(as_double(w->number));
		return true;
	case 3 << 3 | 2:
		*out = cel_string(w->bytes);
		return cel_valid_utf8(w->bytes);
	case 4 << 3:
		*out = cel_bool(w->number != 0);
		return true;
	case 5 << 3 | 2:
		return read_message(r, cel_message_find(STR("google.protobuf.Struct")), w->bytes, depth + 1, out);
	case 6 << 3 | 2:
		return read_message(r, cel_message_find(STR("google.protobuf.ListValue")), w->bytes, depth + 1, out);
	default:
		return true;
	}
}

static bool read_wrapper(enum what what, const struct wire *w, struct cel_value *out)
{
	if (w->type == 0 && (what == INT64 || what == INT32))
		*out = cel_int(what == INT64 ? (int64_t)w->number : (int32_t)w->number);
	else if (w->type == 0 && (what == UINT64 || what == UINT32))
		*out = cel_uint(what == UINT64 ? w->number : (uint32_t)w->number);
	else if (w->type == 0 && what == BOOL)
		*out = cel_bool(w->number != 0);
	else if (w->type == 1 && what == DOUBLE)
		*out = cel_double(as_double(w->number));
	else if (w->type == 5 && what == FLOAT)
		*out = cel_double(as_float(w->number));
	else if (w->type == 2 && what == BYTES)
		*out = cel_bytes(w->bytes);
	else if (w->type == 2 && what == STRING)
		*out = cel_string(w->bytes);
	return what != STRING || w->type != 2 || cel_valid_utf8(w->bytes);
}

static struct cel_value zero(enum what what)
{
	static const uint8_t kinds[] = {
		[INT64] = CEL_INT,     [INT32] = CEL_INT,    [UINT64] = CEL_UINT, [UINT32] = CEL_UINT,
		[DOUBLE] = CEL_DOUBLE, [FLOAT] = CEL_DOUBLE, [BOOL] = CEL_BOOL};

	if (what == STRING || what == BYTES)
		return what == STRING ? cel_string(STR_NULL) : cel_bytes(STR_NULL);
	return (struct cel_value){.kind = kinds[what]};
}

static bool read_message(struct run *r, const struct cel_message *m, struct str bytes, int depth, struct cel_value *out)
{
	struct wire w = {.p = (const unsigned char *)bytes.p, .end = (const unsigned char *)bytes.p + bytes.n};
	int64_t seconds = 0, nanos = 0;
	struct str url = STR_NULL, inner = STR_NULL;
	struct cel_map *map = cel_map_new(r->a, 0);
	LIST(struct cel_value) list = {0};
	bool wrapper = m->what >= INT64 && m->what <= BYTES, ok = depth < ANY_DEPTH;
	struct cel_value v = wrapper ? zero(m->what) : CEL_NULL_VALUE, item;
	int more = 0;

	while (ok && (more = next(&w)) > 0) {
		if (m->what == VALUE) {
			ok = read_value(r, &w, depth, &v);
			continue;
		}
		if (wrapper && w.field == 1)
			ok = read_wrapper(m->what, &w, &v);
		else if (m->what <= DURATION && w.type == 0 && w.field == 1)
			seconds = (int64_t)w.number;
		else if (m->what <= DURATION && w.type == 0 && w.field == 2)
			nanos = (int32_t)w.number;
		else if (m->what == STRUCT && w.type == 2 && w.field == 1)
			ok = read_entry(r, w.bytes, depth, map);
		else if (m->what == LIST_VALUE && w.type == 2 && w.field == 1 &&
			 (ok = read_message(r, cel_message_find(STR("google.protobuf.Value")), w.bytes, depth + 1,
					    &item)))
			*arena_push(r->a, &list) = item;
		else if (m->what == ANY && w.type == 2 && w.field == 1)
			url = w.bytes;
		else if (m->what == ANY && w.type == 2 && w.field == 2)
			inner = w.bytes;
	}
	if (!ok || more < 0)
		return false;
	*out = m->what == TIMESTAMP    ? timestamp(seconds, nanos)
	       : m->what == DURATION   ? duration(seconds, nanos)
	       : m->what == STRUCT     ? cel_map_value(map)
	       : m->what == LIST_VALUE ? cel_list(list.v, list.n)
	       : m->what == EMPTY      ? object_of(&empty_type, map)
				       : v;
	return m->what != ANY || read_any(r, url, inner, depth, out);
}

/* ---- literals ---- */

static struct cel_value member(const struct cel_map *given, const char *name)
{
	const struct cel_value *v = cel_map_find(given, cel_string(str_from(name)));

	return v ? *v : CEL_NULL_VALUE;
}

struct cel_value cel_message_make(struct run *r, const struct cel_message *m, const struct cel_map *given)
{
	struct cel_value v = CEL_NULL_VALUE, out = CEL_NULL_VALUE, part;

	/* what was dyn when it was checked must fit now */
	for (uint32_t i = 0; i < given->n; i++) {
		const struct cel_field *f = cel_message_field(m, cel_str(given->v[i].key));

		v = given->v[i].value;
		if (!f || f->type->kind != v.kind)
			return cel_fail(r,
					"field type conversion error for google.protobuf.%s.%.*s value type: "
					"unsupported type conversion",
					m->name, STR_ARG(cel_str(given->v[i].key)));
		if ((f->type->kind == CEL_INT && (m->what == INT32 || m->what == VALUE || str_eqz(f->name, "nanos")) &&
		     v.i != (int32_t)v.i) ||
		    (m->what == UINT32 && v.u > UINT32_MAX))
			return cel_fail(
				r,
				"field type conversion error for google.protobuf.%s.%.*s value type: integer overflow",
				m->name, STR_ARG(f->name));
		if (m->what != VALUE && m->what != STRUCT && m->what != LIST_VALUE)
			continue;
		/* of the members of a Value the last one is it */
		out = f == &a_value[0] ? CEL_NULL_VALUE : as_json(r, v);
		if (out.kind == CEL_ERROR)
			return out;
	}
	switch ((enum what)m->what) {
	case TIMESTAMP:
		return timestamp(member(given, "seconds").i, member(given, "nanos").i);
	case DURATION:
		return duration(member(given, "seconds").i, member(given, "nanos").i);
	case STRUCT:
		return given->n ? out : cel_map_value(cel_map_new(r->a, 0));
	case LIST_VALUE:
		return given->n ? out : cel_list(NULL, 0);
	case VALUE:
		return out;
	case EMPTY:
		return object_of(&empty_type, cel_map_new(r->a, 0));
	case ANY:
		part = member(given, "value");
		return read_any(r, cel_str(member(given, "type_url")), cel_str(part), 0, &out) ? out : unread(r);
	case FLOAT:
		return given->n ? cel_double((double)(float)v.d) : zero(FLOAT);
	default:
		return given->n ? v : zero(m->what);
	}
}
