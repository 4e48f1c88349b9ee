/*
 * OpenAPI as protobuf: the messages of gnostic's openapi.v2 and openapi.v3 packages
 * (OpenAPIv2.proto, OpenAPIv3.proto), written from the JSON document by tables of members.
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
	ANY,       /* {2: YAML text} */
	ANYS,
	TYPE,      /* v2's "type": one name or several, in a message of repeated 1 */
	ITEMS,     /* "items": a message of repeated schemas */
	ADDITIONAL,/* "additionalProperties": {1: schema} or {2: bool} */
	SCALAR,    /* v3's "default": {1: double}, {2: bool} or {3: string}; of other values nothing is left */
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
	bool or_reference; /* stands in one more message: {1: this} or, where there is a $ref, {2: reference} */
};

#define MSG(name, ext) static const struct message name = {name##_rules, sizeof name##_rules / sizeof *name##_rules, ext, false}
#define MSG_OR_REF(name, ext) static const struct message name = {name##_rules, sizeof name##_rules / sizeof *name##_rules, ext, true}

/* ---- version 2 ---- */

static const struct message schema_message;
static const struct rule docs_rules[] = {{"description", 1, STRING}, {"url", 2, STRING}};
MSG(docs, 3);
static const struct rule schema_rules[] = {
	{"$ref", 1, STRING}, {"format", 2, STRING}, {"title", 3, STRING}, {"description", 4, STRING}, {"default", 5, ANY},
	{"multipleOf", 6, DOUBLE}, {"maximum", 7, DOUBLE}, {"exclusiveMaximum", 8, BOOL}, {"minimum", 9, DOUBLE},
	{"exclusiveMinimum", 10, BOOL}, {"maxLength", 11, INT}, {"minLength", 12, INT}, {"pattern", 13, STRING}, {"maxItems", 14, INT},
	{"minItems", 15, INT}, {"uniqueItems", 16, BOOL}, {"maxProperties", 17, INT}, {"minProperties", 18, INT},
	{"required", 19, STRINGS}, {"enum", 20, ANYS}, {"additionalProperties", 21, ADDITIONAL, &schema_message},
	{"type", 22, TYPE},
	{"items", 23, ITEMS, &schema_message}, {"allOf", 24, MESSAGES, &schema_message}, {"properties", 25, NAMED, &schema_message},
	{"discriminator", 26, STRING}, {"readOnly", 27, BOOL}, {"externalDocs", 29, MESSAGE, &docs}, {"example", 30, ANY},
};
static const struct message schema_message = {schema_rules, sizeof schema_rules / sizeof *schema_rules, 31, false};

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
static const struct message parameter = {NULL, 0, 0, false}; /* one of the three above: write_parameter */
static const struct message parameter_or_ref = {NULL, 0, 0, false};

static const struct rule response_rules[] = {{"description", 1, STRING}, {"schema", 2, MESSAGE, &schema_message, 0, 1}};
MSG(response, 5);
static const struct rule operation_rules[] = {
	{"tags", 1, STRINGS}, {"summary", 2, STRING}, {"description", 3, STRING}, {"operationId", 5, STRING}, {"produces", 6, STRINGS},
	{"consumes", 7, STRINGS}, {"parameters", 8, MESSAGES, &parameter_or_ref}, {"responses", 9, NAMED, &response, 1, 1}, {"schemes", 10, STRINGS},
	{"deprecated", 11, BOOL}, {"security", 12, SECURITY},
};
MSG(operation, 13);
static const struct rule path_item_rules[] = {
	{"get", 2, MESSAGE, &operation}, {"put", 3, MESSAGE, &operation}, {"post", 4, MESSAGE, &operation}, {"delete", 5, MESSAGE, &operation},
	{"options", 6, MESSAGE, &operation}, {"head", 7, MESSAGE, &operation}, {"patch", 8, MESSAGE, &operation},
	{"parameters", 9, MESSAGES, &parameter_or_ref},
};
MSG(path_item, 10);
static const struct rule key_rules[] = {{"type", 1, STRING}, {"name", 2, STRING}, {"in", 3, STRING}, {"description", 4, STRING}};
MSG(key, 5);
static const struct rule info_rules[] = {{"title", 1, STRING}, {"version", 2, STRING}, {"description", 3, STRING}};
MSG(info, 7);
static const struct rule document_rules[] = {
	{"swagger", 1, STRING}, {"info", 2, MESSAGE, &info}, {"host", 3, STRING}, {"basePath", 4, STRING}, {"schemes", 5, STRINGS},
	{"consumes", 6, STRINGS}, {"produces", 7, STRINGS}, {"paths", 8, NAMED, &path_item, 2}, {"definitions", 9, NAMED, &schema_message},
	{"parameters", 10, NAMED, &parameter}, {"security", 12, SECURITY}, {"securityDefinitions", 13, NAMED, &key, 1, 2},
};
MSG(document, 16);

/* ---- version 3 ---- */

static const struct message schema3, schema3_bare;
static const struct rule schema3_rules[] = {
	{"nullable", 1, BOOL}, {"readOnly", 3, BOOL}, {"writeOnly", 4, BOOL}, {"externalDocs", 6, MESSAGE, &docs}, {"example", 7, ANY},
	{"deprecated", 8, BOOL}, {"title", 9, STRING}, {"multipleOf", 10, DOUBLE}, {"maximum", 11, DOUBLE}, {"exclusiveMaximum", 12, BOOL},
	{"minimum", 13, DOUBLE}, {"exclusiveMinimum", 14, BOOL}, {"maxLength", 15, INT}, {"minLength", 16, INT}, {"pattern", 17, STRING},
	{"maxItems", 18, INT}, {"minItems", 19, INT}, {"uniqueItems", 20, BOOL}, {"maxProperties", 21, INT}, {"minProperties", 22, INT},
	{"required", 23, STRINGS}, {"enum", 24, ANYS}, {"type", 25, STRING}, {"allOf", 26, MESSAGES, &schema3},
	{"oneOf", 27, MESSAGES, &schema3}, {"anyOf", 28, MESSAGES, &schema3}, {"not", 29, MESSAGE, &schema3_bare},
	{"items", 30, ITEMS, &schema3}, {"properties", 31, NAMED, &schema3}, {"additionalProperties", 32, ADDITIONAL, &schema3},
	{"default", 33, SCALAR}, {"description", 34, STRING}, {"format", 35, STRING},
};
static const struct message schema3 = {schema3_rules, sizeof schema3_rules / sizeof *schema3_rules, 36, true};
static const struct message schema3_bare = {schema3_rules, sizeof schema3_rules / sizeof *schema3_rules, 36, false};

static const struct rule reference_rules[] = {{"$ref", 1, STRING}, {"summary", 2, STRING}, {"description", 3, STRING}};
MSG(reference, 0);
static const struct rule parameter3_rules[] = {
	{"name", 1, STRING}, {"in", 2, STRING}, {"description", 3, STRING}, {"required", 4, BOOL}, {"schema", 10, MESSAGE, &schema3},
};
MSG_OR_REF(parameter3, 14);
static const struct rule media_type_rules[] = {{"schema", 1, MESSAGE, &schema3}, {"example", 2, ANY}};
MSG(media_type, 5);
static const struct rule request_body_rules[] = {{"description", 1, STRING}, {"content", 2, NAMED, &media_type}, {"required", 3, BOOL}};
MSG_OR_REF(request_body, 4);
static const struct rule response3_rules[] = {{"description", 1, STRING}, {"content", 3, NAMED, &media_type}};
MSG_OR_REF(response3, 5);
static const struct rule operation3_rules[] = {
	{"tags", 1, STRINGS}, {"summary", 2, STRING}, {"description", 3, STRING}, {"operationId", 5, STRING},
	{"parameters", 6, MESSAGES, &parameter3}, {"requestBody", 7, MESSAGE, &request_body}, {"responses", 8, NAMED, &response3, 2},
	{"deprecated", 10, BOOL}, {"security", 11, SECURITY},
};
MSG(operation3, 13);
static const struct rule path_item3_rules[] = {
	{"summary", 2, STRING}, {"description", 3, STRING}, {"get", 4, MESSAGE, &operation3}, {"put", 5, MESSAGE, &operation3},
	{"post", 6, MESSAGE, &operation3}, {"delete", 7, MESSAGE, &operation3}, {"options", 8, MESSAGE, &operation3},
	{"head", 9, MESSAGE, &operation3}, {"patch", 10, MESSAGE, &operation3}, {"parameters", 13, MESSAGES, &parameter3},
};
MSG(path_item3, 14);
static const struct rule security_scheme_rules[] = {
	{"type", 1, STRING}, {"description", 2, STRING}, {"name", 3, STRING}, {"in", 4, STRING}, {"scheme", 5, STRING},
	{"bearerFormat", 6, STRING},
};
MSG_OR_REF(security_scheme, 9);
static const struct rule components_rules[] = {
	{"schemas", 1, NAMED, &schema3}, {"responses", 2, NAMED, &response3}, {"parameters", 3, NAMED, &parameter3},
	{"requestBodies", 5, NAMED, &request_body}, {"securitySchemes", 7, NAMED, &security_scheme},
};
MSG(components, 10);
static const struct rule info3_rules[] = {{"title", 1, STRING}, {"description", 2, STRING}, {"version", 6, STRING}, {"summary", 8, STRING}};
MSG(info3, 7);
static const struct rule document3_rules[] = {
	{"openapi", 1, STRING}, {"info", 2, MESSAGE, &info3}, {"paths", 4, NAMED, &path_item3}, {"components", 5, MESSAGE, &components},
	{"security", 6, SECURITY}, {"externalDocs", 8, MESSAGE, &docs},
};
MSG(document3, 9);

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

/* Query, path and body parameters are different messages. */
static void write_parameter(struct buf *b, const struct jv *v)
{
	buf_cleanup struct buf one = {0}, two = {0};
	struct str in = jv_str(jv_get(v, STR("in")));

	if (str_eqz(in, "body")) {
		write_message(&one, &body, v);
		bytes(b, 1, buf_view(&one));
	} else {
		bool path = str_eqz(in, "path");

		write_message(&one, path ? &path_parameter : &query, v);
		bytes(&two, path ? 4 : 3, buf_view(&one));
		bytes(b, 2, buf_view(&two));
	}
}

/* As field f of b; wrapped where the rule says so. */
static void put_message(struct buf *b, unsigned f, const struct rule *r, const struct message *m, const struct jv *v)
{
	buf_cleanup struct buf one = {0};

	if (m == &parameter) {
		write_parameter(&one, v);
	} else if (m == &parameter_or_ref) {
		const struct jv *ref = jv_get(v, STR("$ref"));
		buf_cleanup struct buf inner = {0};

		if (ref)
			bytes(&inner, 1, jv_str(ref));
		else
			write_parameter(&inner, v);
		bytes(&one, ref ? 2 : 1, buf_view(&inner));
	} else if (m->or_reference) {
		const struct message *which = jv_get(v, STR("$ref")) ? &reference : m;
		buf_cleanup struct buf inner = {0};

		write_message(&inner, which, v);
		bytes(&one, which == m ? 1 : 2, buf_view(&inner));
	} else {
		write_message(&one, m, v);
	}
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
	buf_cleanup struct buf json = {0}, text = {0}, any = {0};
	struct error *e;

	jv_encode(&json, v);
	e = json_to_yaml_nodes(buf_view(&json), &text);
	if (e) { /* which JSON that we have made does not give; it is YAML as well */
		error_free(e);
		text.n = 0;
		buf_printf(&text, "%.*s\n", STR_ARG(buf_view(&json)));
	}
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

static void put_scalar(struct buf *b, unsigned f, const struct jv *v)
{
	buf_cleanup struct buf one = {0};

	if (v->kind == JV_STRING) {
		bytes(&one, 3, jv_str(v));
	} else if (v->kind == JV_BOOL) {
		varint(&one, 2 << 3);
		varint(&one, v->b);
	} else if (v->kind == JV_INT || v->kind == JV_DOUBLE) {
		put_double(&one, 1, v);
	}
	bytes(b, f, buf_view(&one));
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
	case STRING: /* proto3: what is empty is left out; so too below */
		if (jv_str(v).n)
			bytes(b, r->field, jv_str(v));
		break;
	case BOOL:
		if (v->b) {
			varint(b, (unsigned)r->field << 3);
			varint(b, 1);
		}
		break;
	case INT:
		if (v->kind == JV_INT && v->i) {
			varint(b, (unsigned)r->field << 3);
			varint(b, (uint64_t)v->i);
		}
		break;
	case DOUBLE:
		if ((v->kind == JV_INT && v->i) || (v->kind == JV_DOUBLE && v->d != 0))
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
			put_message(&inner, 1, &plain, r->sub, v);
		for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++)
			put_message(&inner, 1, &plain, r->sub, &v->items[i]);
		bytes(b, r->field, buf_view(&inner));
		break;
	case ADDITIONAL:
		if (v->kind == JV_OBJECT) {
			put_message(&inner, 1, &plain, r->sub, v);
		} else {
			varint(&inner, 2 << 3);
			varint(&inner, v->b);
		}
		bytes(b, r->field, buf_view(&inner));
		break;
	case SCALAR:
		put_scalar(b, r->field, v);
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

static struct error *to_proto(const struct message *m, struct str json, struct buf *b)
{
	arena_cleanup struct arena a = {0};
	struct jv v;

	TRY(error_wrap(jv_parse(&a, json, NULL, &v), "OpenAPI"));
	write_message(b, m, &v);
	return NULL;
}

struct error *openapi_v2_to_proto(struct str json, struct buf *b)
{
	return to_proto(&document, json, b);
}

struct error *openapi_v3_to_proto(struct str json, struct buf *b)
{
	return to_proto(&document3, json, b);
}
