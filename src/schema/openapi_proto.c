/*
 * OpenAPI v2 as protobuf: the messages of gnostic's openapi.v2 package
 * (OpenAPIv2.proto), written from the JSON document by tables of members.
 */
#include "schema/openapi.h"

enum how {
	STRING,
	BOOL,
	DOUBLE,
	INT,
	STRINGS,
	MESSAGE,
	MESSAGES,  /* an array of them */
	NAMED,     /* an object: one message of repeated {1: name, 2: value} */
	ANY,       /* {2: YAML text}; JSON is YAML */
	ANYS,
	TYPE,      /* "type": one name or several, in a message of repeated 1 */
	ITEMS,     /* "items": a message of repeated schemas */
	ADDITIONAL,/* "additionalProperties": {1: schema} or {2: bool} */
	SECURITY,  /* [{name: [scope]}] */
};

struct message;
struct rule {
	const char *json;
	uint8_t field, how;
	const struct message *sub;
	uint8_t inner;    /* NAMED: field of the repeated pairs, 0 is 1 */
	uint8_t wrap;     /* the value stands in one more message, at this field; 0: no */
};
struct message {
	const struct rule *rules;
	uint8_t n;
	uint8_t extension; /* field of NamedAny for "x-..." members, 0: none */
};

#define MSG(name, ext) static const struct message name = {name##_rules, sizeof name##_rules / sizeof *name##_rules, ext}

static const struct message schema_message;
static const struct rule docs_rules[] = {{"description", 1, STRING}, {"url", 2, STRING}};
MSG(docs, 3);
static const struct rule schema_rules[] = {
	{"$ref", 1, STRING}, {"format", 2, STRING}, {"title", 3, STRING}, {"description", 4, STRING}, {"default", 5, ANY},
	{"multipleOf", 6, DOUBLE}, {"maximum", 7, DOUBLE}, {"exclusiveMaximum", 8, BOOL}, {"minimum", 9, DOUBLE},
	{"exclusiveMinimum", 10, BOOL}, {"maxLength", 11, INT}, {"minLength", 12, INT}, {"pattern", 13, STRING}, {"maxItems", 14, INT},
	{"minItems", 15, INT}, {"uniqueItems", 16, BOOL}, {"maxProperties", 17, INT}, {"minProperties", 18, INT},
	{"required", 19, STRINGS}, {"enum", 20, ANYS}, {"additionalProperties", 21, ADDITIONAL}, {"type", 22, TYPE},
	{"items", 23, ITEMS}, {"allOf", 24, MESSAGES, &schema_message}, {"properties", 25, NAMED, &schema_message},
	{"discriminator", 26, STRING}, {"readOnly", 27, BOOL}, {"externalDocs", 29, MESSAGE, &docs}, {"example", 30, ANY},
};
static const struct message schema_message = {schema_rules, sizeof schema_rules / sizeof *schema_rules, 31};

static const struct rule body_rules[] = {
	{"description", 1, STRING}, {"name", 2, STRING}, {"in", 3, STRING}, {"required", 4, BOOL}, {"schema", 5, MESSAGE, &schema_message},
};
MSG(body, 6);
static const struct rule query_rules[] = {
	{"required", 1, BOOL}, {"in", 2, STRING}, {"description", 3, STRING}, {"name", 4, STRING}, {"type", 6, STRING}, {"format", 7, STRING},
	{"uniqueItems", 20, BOOL},
};
MSG(query, 23);
static const struct rule path_parameter_rules[] = {
	{"required", 1, BOOL}, {"in", 2, STRING}, {"description", 3, STRING}, {"name", 4, STRING}, {"type", 5, STRING}, {"format", 6, STRING},
	{"uniqueItems", 19, BOOL},
};
MSG(path_parameter, 22);
static const struct message parameter = {NULL, 0, 0}; /* one of the three above: write_parameter */

static const struct rule response_rules[] = {{"description", 1, STRING}, {"schema", 2, MESSAGE, &schema_message, 0, 1}};
MSG(response, 5);
static const struct rule operation_rules[] = {
	{"tags", 1, STRINGS}, {"summary", 2, STRING}, {"description", 3, STRING}, {"operationId", 5, STRING}, {"produces", 6, STRINGS},
	{"consumes", 7, STRINGS}, {"parameters", 8, MESSAGES, &parameter}, {"responses", 9, NAMED, &response, 1, 1}, {"schemes", 10, STRINGS},
	{"deprecated", 11, BOOL}, {"security", 12, SECURITY},
};
MSG(operation, 13);
static const struct rule path_item_rules[] = {
	{"get", 2, MESSAGE, &operation}, {"put", 3, MESSAGE, &operation}, {"post", 4, MESSAGE, &operation}, {"delete", 5, MESSAGE, &operation},
	{"options", 6, MESSAGE, &operation}, {"head", 7, MESSAGE, &operation}, {"patch", 8, MESSAGE, &operation},
	{"parameters", 9, MESSAGES, &parameter},
};
MSG(path_item, 10);
static const struct rule key_rules[] = {{"type", 1, STRING}, {"name", 2, STRING}, {"in", 3, STRING}, {"description", 4, STRING}};
MSG(key, 5);
static const struct rule info_rules[] = {{"title", 1, STRING}, {"version", 2, STRING}, {"description", 3, STRING}};
MSG(info, 7);
static const struct rule document_rules[] = {
	{"swagger", 1, STRING}, {"info", 2, MESSAGE, &info}, {"host", 3, STRING}, {"basePath", 4, STRING}, {"schemes", 5, STRINGS},
	{"consumes", 6, STRINGS}, {"produces", 7, STRINGS}, {"paths", 8, NAMED, &path_item, 2}, {"definitions", 9, NAMED, &schema_message},
	{"security", 12, SECURITY}, {"securityDefinitions", 13, NAMED, &key, 1, 2},
};
MSG(document, 16);

/* ---- writing ---- */

static void varint(struct buf *b, uint64_t v)
{
	while (v >= 0x80) {
		buf_putc(b, (char)(v | 0x80));
		v >>= 7;
	}
	buf_putc(b, (char)v);
}

static void bytes(struct buf *b, unsigned field, struct str s)
{
	varint(b, field << 3 | 2);
	varint(b, s.n);
	buf_str(b, s);
}

static void write_message(struct buf *b, const struct message *m, const struct jv *v);

/* Query, path and body parameters are different messages in two more around them. */
static void write_parameter(struct buf *b, const struct jv *v)
{
	buf_cleanup struct buf one = {0}, two = {0};
	struct str in = jv_str(jv_get(v, STR("in")));

	if (str_eqz(in, "body")) {
		write_message(&two, &body, v);
		bytes(&one, 1, buf_view(&two));
	} else {
		bool path = str_eqz(in, "path");
		buf_cleanup struct buf three = {0};

		write_message(&three, path ? &path_parameter : &query, v);
		bytes(&two, path ? 4 : 3, buf_view(&three));
		bytes(&one, 2, buf_view(&two));
	}
	bytes(b, 1, buf_view(&one));
}

/* As field f of b; wrapped where the rule says so. */
static void put_message(struct buf *b, unsigned f, const struct rule *r, const struct message *m, const struct jv *v)
{
	buf_cleanup struct buf one = {0};

	if (m == &parameter)
		write_parameter(&one, v);
	else
		write_message(&one, m, v);
	if (r->wrap) {
		buf_cleanup struct buf two = {0};

		bytes(&two, r->wrap, buf_view(&one));
		bytes(b, f, buf_view(&two));
	} else {
		bytes(b, f, buf_view(&one));
	}
}

static void put_any(struct buf *b, unsigned f, const struct jv *v)
{
	buf_cleanup struct buf text = {0}, any = {0};

	jv_encode(&text, v);
	buf_putc(&text, '\n');
	bytes(&any, 2, buf_view(&text));
	bytes(b, f, buf_view(&any));
}

static void put_strings(struct buf *b, unsigned f, const struct jv *v)
{
	if (v->kind == JV_STRING)
		bytes(b, f, jv_str(v));
	for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++)
		bytes(b, f, jv_str(&v->items[i]));
}

static void put_double(struct buf *b, unsigned f, const struct jv *v)
{
	double d = v->kind == JV_INT ? (double)v->i : v->kind == JV_DOUBLE ? v->d : 0;
	uint64_t bits;

	memcpy(&bits, &d, sizeof bits);
	varint(b, f << 3 | 1);
	for (int i = 0; i < 8; i++)
		buf_putc(b, (char)(bits >> (8 * i)));
}

static void put_named(struct buf *b, const struct rule *r, const struct jv *v)
{
	buf_cleanup struct buf all = {0};

	for (uint32_t i = 0; v->kind == JV_OBJECT && i < v->n; i++) {
		buf_cleanup struct buf pair = {0};

		bytes(&pair, 1, v->members[i].key);
		put_message(&pair, 2, r, r->sub, &v->members[i].value);
		bytes(&all, r->inner ? r->inner : 1, buf_view(&pair));
	}
	bytes(b, r->field, buf_view(&all));
}

static void put_security(struct buf *b, const struct rule *r, const struct jv *v)
{
	for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++) {
		const struct jv *o = &v->items[i];
		buf_cleanup struct buf all = {0};

		for (uint32_t k = 0; o->kind == JV_OBJECT && k < o->n; k++) {
			buf_cleanup struct buf pair = {0}, scopes = {0};

			put_strings(&scopes, 1, &o->members[k].value);
			bytes(&pair, 1, o->members[k].key);
			bytes(&pair, 2, buf_view(&scopes));
			bytes(&all, 1, buf_view(&pair));
		}
		bytes(b, r->field, buf_view(&all));
	}
}

static void put(struct buf *b, const struct rule *r, const struct jv *v)
{
	static const struct rule plain = {0};
	buf_cleanup struct buf inner = {0};

	switch ((enum how)r->how) {
	case STRING:
		bytes(b, r->field, jv_str(v));
		break;
	case BOOL:
		if (v->b) {
			varint(b, (unsigned)r->field << 3);
			varint(b, 1);
		}
		break;
	case INT:
		varint(b, (unsigned)r->field << 3);
		varint(b, v->kind == JV_INT ? (uint64_t)v->i : 0);
		break;
	case DOUBLE:
		put_double(b, r->field, v);
		break;
	case STRINGS:
		put_strings(b, r->field, v);
		break;
	case MESSAGE:
		put_message(b, r->field, r, r->sub, v);
		break;
	case MESSAGES:
		for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++)
			put_message(b, r->field, r, r->sub, &v->items[i]);
		break;
	case NAMED:
		put_named(b, r, v);
		break;
	case ANY:
		put_any(b, r->field, v);
		break;
	case ANYS:
		for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++)
			put_any(b, r->field, &v->items[i]);
		break;
	case TYPE:
		put_strings(&inner, 1, v);
		bytes(b, r->field, buf_view(&inner));
		break;
	case ITEMS:
		if (v->kind == JV_OBJECT)
			put_message(&inner, 1, &plain, &schema_message, v);
		for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++)
			put_message(&inner, 1, &plain, &schema_message, &v->items[i]);
		bytes(b, r->field, buf_view(&inner));
		break;
	case ADDITIONAL:
		if (v->kind == JV_OBJECT) {
			put_message(&inner, 1, &plain, &schema_message, v);
		} else {
			varint(&inner, 2 << 3);
			varint(&inner, v->b);
		}
		bytes(b, r->field, buf_view(&inner));
		break;
	case SECURITY:
		put_security(b, r, v);
		break;
	}
}

static void write_message(struct buf *b, const struct message *m, const struct jv *v)
{
	if (v->kind != JV_OBJECT)
		return;
	for (uint8_t i = 0; i < m->n; i++) {
		const struct jv *member = jv_get(v, str_from(m->rules[i].json));

		if (member)
			put(b, &m->rules[i], member);
	}
	for (uint32_t i = 0; m->extension && i < v->n; i++) {
		if (!str_has_prefix(v->members[i].key, STR("x-")))
			continue;
		buf_cleanup struct buf named = {0};

		bytes(&named, 1, v->members[i].key);
		put_any(&named, 2, &v->members[i].value);
		bytes(b, m->extension, buf_view(&named));
	}
}

struct error *openapi_v2_to_proto(struct str json, struct buf *b)
{
	arena_cleanup struct arena a = {0};
	struct jv v;

	TRY(error_wrap(jv_parse(&a, json, NULL, &v), "OpenAPI v2"));
	write_message(b, &document, &v);
	return NULL;
}
