/* Types: constants, equality, spelling, names of properties. */
#include "cel/internal.h"

#define SIMPLE(k, z, min) {.kind = k, .max_size = z, .min_serialized = min}

const struct cel_type cel_type_null = SIMPLE(CEL_NULL, 0, 4);
const struct cel_type cel_type_bool = SIMPLE(CEL_BOOL, 0, 4);
const struct cel_type cel_type_int = SIMPLE(CEL_INT, 0, 1);
const struct cel_type cel_type_uint = SIMPLE(CEL_UINT, 0, 1);
const struct cel_type cel_type_double = SIMPLE(CEL_DOUBLE, 0, 1);
const struct cel_type cel_type_string = SIMPLE(CEL_STRING, 0, 2);
const struct cel_type cel_type_bytes = SIMPLE(CEL_BYTES, 0, 2);
const struct cel_type cel_type_timestamp = SIMPLE(CEL_TIMESTAMP, 0, 12);
const struct cel_type cel_type_duration = SIMPLE(CEL_DURATION, 0, 3);
const struct cel_type cel_type_dyn = SIMPLE(CEL_DYN, 0, 1);
const struct cel_type cel_type_error = {.kind = CEL_ERROR};
const struct cel_type cel_type_type = {.kind = CEL_TYPE};
const struct cel_type cel_type_list_dyn = {.kind = CEL_LIST, .elem = &cel_type_dyn, .max_size = CEL_NO_MAX_SIZE, .min_serialized = 2};
const struct cel_type cel_type_list_string = {.kind = CEL_LIST, .elem = &cel_type_string, .max_size = CEL_NO_MAX_SIZE, .min_serialized = 2};
const struct cel_type cel_type_map_dyn = {
	.kind = CEL_MAP, .key = &cel_type_dyn, .elem = &cel_type_dyn, .max_size = CEL_NO_MAX_SIZE, .min_serialized = 2};
const struct cel_type cel_type_map_string_dyn = {
	.kind = CEL_MAP, .key = &cel_type_string, .elem = &cel_type_dyn, .max_size = CEL_NO_MAX_SIZE, .min_serialized = 2};

#define NAMED(k, z) {.kind = k, .name = STR_INIT(z)}
const struct cel_type cel_type_authorizer = NAMED(CEL_OBJECT, "kubernetes.authorization.Authorizer");
const struct cel_type cel_type_path_check = NAMED(CEL_OBJECT, "kubernetes.authorization.PathCheck");
const struct cel_type cel_type_group_check = NAMED(CEL_OBJECT, "kubernetes.authorization.GroupCheck");
const struct cel_type cel_type_resource_check = NAMED(CEL_OBJECT, "kubernetes.authorization.ResourceCheck");
const struct cel_type cel_type_decision = NAMED(CEL_OBJECT, "kubernetes.authorization.Decision");
const struct cel_type cel_type_url = NAMED(CEL_OBJECT, "kubernetes.URL");
const struct cel_type cel_type_quantity = NAMED(CEL_OBJECT, "kubernetes.Quantity");
const struct cel_type cel_type_semver = NAMED(CEL_OBJECT, "kubernetes.Semver");
const struct cel_type cel_type_format = NAMED(CEL_OBJECT, "kubernetes.NamedFormat");
const struct cel_type cel_type_ip = NAMED(CEL_OPAQUE, "net.IP");
const struct cel_type cel_type_cidr = NAMED(CEL_OPAQUE, "net.CIDR");
static const struct cel_field json_patch_fields[] = {
	{STR_INIT("op"), STR_INIT("op"), &cel_type_string},
	{STR_INIT("path"), STR_INIT("path"), &cel_type_string},
	{STR_INIT("from"), STR_INIT("from"), &cel_type_string},
	{STR_INIT("value"), STR_INIT("value"), &cel_type_dyn},
};
const struct cel_type cel_type_json_patch = {.kind = CEL_OBJECT, .name = STR_INIT("JSONPatch"), .fields = json_patch_fields, .n_fields = 4};
const struct cel_type cel_type_list_json_patch = {.kind = CEL_LIST, .elem = &cel_type_json_patch, .max_size = CEL_NO_MAX_SIZE};
const struct cel_type cel_type_object = {.kind = CEL_OBJECT, .name = STR_INIT("Object"), .any_field = true};

bool cel_type_equal(const struct cel_type *a, const struct cel_type *b)
{
	if (a == b)
		return true;
	if (a->kind != b->kind)
		return false;
	switch (a->kind) {
	case CEL_LIST:
	case CEL_OPTIONAL:
	case CEL_TYPE:
		return cel_type_equal(cel_elem(a), cel_elem(b));
	case CEL_MAP:
		return cel_type_equal(cel_key(a), cel_key(b)) && cel_type_equal(cel_elem(a), cel_elem(b));
	case CEL_OBJECT:
	case CEL_OPAQUE:
	case CEL_PARAM:
		return str_eq(a->name, b->name);
	default:
		return true;
	}
}

static const char *const kind_names[] = {
	[CEL_NULL] = "null_type",
	[CEL_BOOL] = "bool",
	[CEL_INT] = "int",
	[CEL_UINT] = "uint",
	[CEL_DOUBLE] = "double",
	[CEL_STRING] = "string",
	[CEL_BYTES] = "bytes",
	[CEL_TIMESTAMP] = "google.protobuf.Timestamp",
	[CEL_DURATION] = "google.protobuf.Duration",
	[CEL_LIST] = "list",
	[CEL_MAP] = "map",
	[CEL_OBJECT] = "object",
	[CEL_TYPE] = "type",
	[CEL_OPTIONAL] = "optional_type",
	[CEL_OPAQUE] = "opaque",
	[CEL_ERROR] = "!error!",
	[CEL_DYN] = "dyn",
	[CEL_PARAM] = "param",
};

struct str cel_type_name(const struct cel_type *t)
{
	if (t->kind == CEL_OBJECT || t->kind == CEL_OPAQUE || t->kind == CEL_PARAM)
		return t->name;
	return str_from(kind_names[t->kind]);
}

static struct str type_text(struct arena *a, const struct cel_type *t, bool brief)
{
	struct str x, y;

	switch (t->kind) {
	case CEL_LIST:
	case CEL_OPTIONAL:
	case CEL_TYPE:
		if (!t->elem && t->kind != CEL_LIST)
			break;
		x = type_text(a, cel_elem(t), brief);
		return arena_printf(a, "%s(%.*s)", kind_names[t->kind], STR_ARG(x));
	case CEL_MAP:
		x = type_text(a, cel_key(t), brief);
		y = type_text(a, cel_elem(t), brief);
		return arena_printf(a, "map(%.*s, %.*s)", STR_ARG(x), STR_ARG(y));
	case CEL_TIMESTAMP:
		return brief ? STR("timestamp") : cel_type_name(t);
	case CEL_DURATION:
		return brief ? STR("duration") : cel_type_name(t);
	case CEL_NULL:
		return brief ? STR("null") : cel_type_name(t);
	case CEL_DYN:
		return t->name.n ? t->name : cel_type_name(t);
	default:
		break;
	}
	return t->wrapper ? arena_printf(a, "wrapper(%s)", kind_names[t->kind]) : cel_type_name(t);
}

struct str cel_type_text(struct arena *a, const struct cel_type *t)
{
	return type_text(a, t, false);
}

struct str cel_type_shown(struct arena *a, const struct cel_type *t)
{
	return type_text(a, t, true);
}

/* ---- names of properties (upstream's pkg/cel/escaping.go) ---- */

static bool reserved(struct str s)
{
	static const char *const words[] = {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
					    "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (str_eqz(s, words[i]))
			return true;
	return false;
}

bool cel_escape(struct arena *a, struct str name, struct str *out)
{
	struct buf b buf_cleanup = {0};
	bool changed = false;

	if (!name.n || (name.p[0] >= '0' && name.p[0] <= '9'))
		return false;
	if (reserved(name)) {
		*out = arena_printf(a, "__%.*s__", STR_ARG(name));
		return true;
	}
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];

		if (c == '_' && i + 1 < name.n && name.p[i + 1] == '_') {
			buf_puts(&b, "__underscores__");
			changed = true;
			i++;
		} else if (c == '.') {
			buf_puts(&b, "__dot__");
			changed = true;
		} else if (c == '-') {
			buf_puts(&b, "__dash__");
			changed = true;
		} else if (c == '/') {
			buf_puts(&b, "__slash__");
			changed = true;
		} else if (c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
			buf_putc(&b, c);
		} else {
			return false;
		}
	}
	*out = changed ? arena_str(a, buf_view(&b)) : name;
	return true;
}

const struct cel_field *cel_type_field(const struct cel_type *t, struct str name)
{
	for (uint32_t i = 0; i < t->n_fields; i++)
		if (str_eq(t->fields[i].name, name))
			return &t->fields[i];
	/* reserved words may be written as they are: after a dot nothing else can be meant */
	for (uint32_t i = 0; i < t->n_fields && reserved(name); i++) {
		struct str f = t->fields[i].name;

		if (f.n == name.n + 4 && str_has_prefix(f, STR("__")) && str_eq(str_sub(f, 2, f.n - 2), name) && str_has_suffix(f, STR("__")))
			return &t->fields[i];
	}
	return NULL;
}

const struct cel_type *cel_type_list_of(struct arena *a, const struct cel_type *elem)
{
	struct cel_type *t = arena_new(a, struct cel_type);

	t->kind = CEL_LIST;
	t->elem = elem;
	t->max_size = CEL_NO_MAX_SIZE;
	return t;
}

const struct cel_type *cel_type_map_of(struct arena *a, const struct cel_type *key, const struct cel_type *value)
{
	struct cel_type *t = arena_new(a, struct cel_type);

	t->kind = CEL_MAP;
	t->key = key;
	t->elem = value;
	t->max_size = CEL_NO_MAX_SIZE;
	return t;
}

const struct cel_type *cel_type_optional_of(struct arena *a, const struct cel_type *elem)
{
	struct cel_type *t = arena_new(a, struct cel_type);

	t->kind = CEL_OPTIONAL;
	t->elem = elem;
	return t;
}

const struct cel_type *cel_type_type_of(struct arena *a, const struct cel_type *elem)
{
	struct cel_type *t = arena_new(a, struct cel_type);

	t->kind = CEL_TYPE;
	t->elem = elem;
	return t;
}

/* ---- built-in objects ---- */

struct seen {
	const struct schema_type *t;
	const struct cel_type *c;
};
struct seens {
	LIST(struct seen) list;
};

static const struct cel_type *of_schema(struct arena *a, struct seens *seen, const struct schema_type *t);

static const struct cel_type *of_value(struct arena *a, struct seens *seen, const struct schema_field *f)
{
	switch (f->kind) {
	case FIELD_BOOL:
		return &cel_type_bool;
	case FIELD_INT32:
	case FIELD_INT64:
	case FIELD_UINT32:
	case FIELD_UINT64:
		return &cel_type_int;
	case FIELD_DOUBLE:
		return &cel_type_double;
	case FIELD_BYTES:
		return &cel_type_bytes;
	case FIELD_STRING:
	case FIELD_QUANTITY:
	case FIELD_DURATION:
		return &cel_type_string;
	case FIELD_TIME:
	case FIELD_MICROTIME:
		return &cel_type_timestamp;
	case FIELD_STRINGS:
		return &cel_type_list_string;
	case FIELD_MESSAGE:
		return of_schema(a, seen, f->type);
	default: /* int-or-string, raw JSON */
		return &cel_type_dyn;
	}
}

static const struct cel_type *of_schema(struct arena *a, struct seens *seen, const struct schema_type *t)
{
	struct cel_type *c;
	struct cel_field *fields;
	uint32_t n = 0;

	if (t->json != SCHEMA_OBJECT)
		return &cel_type_dyn;
	for (uint32_t i = 0; i < seen->list.n; i++)
		if (seen->list.v[i].t == t)
			return seen->list.v[i].c;
	c = arena_new(a, struct cel_type);
	*arena_push(a, &seen->list) = (struct seen){t, c};
	c->kind = CEL_OBJECT;
	c->name = t->openapi && *t->openapi ? str_from(t->openapi) : str_from(t->name);
	c->max_size = CEL_NO_MAX_SIZE;
	fields = arena_array(a, struct cel_field, t->n_fields + 2u);
	if (t->top) {
		fields[n++] = (struct cel_field){STR("kind"), STR("kind"), &cel_type_string};
		fields[n++] = (struct cel_field){STR("apiVersion"), STR("apiVersion"), &cel_type_string};
	}
	for (uint32_t i = 0; i < t->n_fields; i++) {
		const struct schema_field *f = &t->fields[i];
		const struct cel_type *v;

		if ((f->flags & (FIELD_NOJSON | FIELD_TYPEMETA)) || !cel_escape(a, f->name, &fields[n].name))
			continue;
		v = of_value(a, seen, f);
		if (f->card == CARD_LIST)
			v = cel_type_list_of(a, v);
		else if (f->card == CARD_MAP)
			v = cel_type_map_of(a, &cel_type_string, v);
		fields[n].json_name = f->name;
		fields[n++].type = v;
	}
	c->fields = fields;
	c->n_fields = n;
	return c;
}

const struct cel_type *cel_type_of_schema(struct arena *a, const struct schema_type *t)
{
	struct seens seen = {0};

	return of_schema(a, &seen, t);
}
