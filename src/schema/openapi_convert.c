/* An OpenAPI v2 document as one of version 3. */
#include "schema/openapi_merge.h"

/* Member `name` of from, if there is one, as `as`. */
static void take(struct arena *a, struct jv *to, const struct jv *from, const char *name, const char *as)
{
	const struct jv *v = jv_get(from, str_from(name));

	if (v && !jv_is(v, JV_NULL))
		jv_set(a, to, str_from(as), *v);
}

static void take_extensions(struct arena *a, struct jv *to, const struct jv *from)
{
	for (uint32_t i = 0; jv_is(from, JV_OBJECT) && i < from->n; i++)
		if (str_has_prefix(from->members[i].key, STR("x-")))
			jv_set(a, to, from->members[i].key, from->members[i].value);
}

/* A reference into another part of the document. */
static void take_ref(struct arena *a, struct jv *to, const struct jv *from, struct str prefix, struct str other)
{
	struct str ref = jv_str(jv_get(from, STR("$ref")));

	if (!ref.n)
		return;
	if (str_has_prefix(ref, prefix))
		ref = arena_printf(a, "%.*s%.*s", STR_ARG(other), STR_ARG(str_sub(ref, prefix.n, ref.n)));
	jv_set(a, to, STR("$ref"), jv_string(ref));
}

/* A reference stands alone in version 3: what is beside it goes around it. */
static struct jv wrap_ref(struct arena *a, struct jv s)
{
	struct jv all = jv_array(), alone = jv_object();
	const struct jv *ref = jv_get(&s, STR("$ref"));

	if (!ref || s.n == 1)
		return s;
	jv_set(a, &alone, STR("$ref"), *ref);
	jv_push(a, &all, alone);
	jv_del(&s, STR("$ref"));
	jv_set(a, &s, STR("allOf"), all);
	return s;
}

static struct jv schema(struct arena *a, const struct jv *v2)
{
	struct jv out = jv_object();

	if (!jv_is(v2, JV_OBJECT))
		return *v2;
	for (uint32_t i = 0; i < v2->n; i++) {
		struct str key = v2->members[i].key;
		const struct jv *v = &v2->members[i].value;
		struct jv made = *v;

		if (str_eqz(key, "$ref")) {
			take_ref(a, &out, v2, STR("#/definitions/"), STR("#/components/schemas/"));
			continue;
		}
		if (str_eqz(key, "properties") && jv_is(v, JV_OBJECT)) {
			made = jv_object();
			for (uint32_t k = 0; k < v->n; k++)
				jv_set(a, &made, v->members[k].key, schema(a, &v->members[k].value));
		} else if (str_eqz(key, "items") && jv_is(v, JV_ARRAY)) {
			made = jv_array();
			for (uint32_t k = 0; k < v->n; k++)
				jv_push(a, &made, schema(a, &v->items[k]));
		} else if (str_eqz(key, "items") || str_eqz(key, "additionalProperties") ||
			   str_eqz(key, "additionalItems")) {
			made = schema(a, v);
		}
		jv_set(a, &out, key, made);
	}
	return wrap_ref(a, out);
}

static struct jv external_docs(struct arena *a, const struct jv *v2)
{
	struct jv out = jv_object();

	take(a, &out, v2, "description", "description");
	jv_set(a, &out, STR("url"), jv_string(jv_str(jv_get(v2, STR("url")))));
	return out;
}

static struct jv parameter(struct arena *a, const struct jv *v2)
{
	static const char *const same[] = {"name", "description", "in", "required", "allowEmptyValue"};
	const struct jv *s = jv_get(v2, STR("schema"));
	struct jv out = jv_object(), simple = jv_object();

	take_ref(a, &out, v2, STR("#/parameters/"), STR("#/components/parameters/"));
	take_extensions(a, &out, v2);
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		take(a, &out, v2, same[i], same[i]);
	if (jv_is(s, JV_OBJECT)) {
		jv_set(a, &out, STR("schema"), schema(a, s));
		return out;
	}
	jv_set(a, &simple, STR("type"), jv_string(jv_str(jv_get(v2, STR("type")))));
	take(a, &simple, v2, "format", "format");
	take(a, &simple, v2, "uniqueItems", "uniqueItems");
	jv_set(a, &out, STR("schema"), simple);
	return out;
}

/* One schema for each media type of a list. */
static void content(struct arena *a, struct jv *to, const struct jv *types, const struct jv *s)
{
	struct jv out = jv_object();

	if (!jv_is(types, JV_ARRAY) || !types->n)
		return;
	for (uint32_t i = 0; i < types->n; i++) {
		struct jv media = jv_object();

		if (!jv_is(&types->items[i], JV_STRING))
			continue;
		jv_set(a, &media, STR("schema"), schema(a, s));
		jv_set(a, &out, jv_str(&types->items[i]), media);
	}
	jv_set(a, to, STR("content"), out);
}

static struct jv response(struct arena *a, const struct jv *v2, const struct jv *produces)
{
	const struct jv *s = jv_get(v2, STR("schema"));
	struct jv out = jv_object();

	take_ref(a, &out, v2, STR("#/responses/"), STR("#/components/responses/"));
	take_extensions(a, &out, v2);
	take(a, &out, v2, "description", "description");
	if (jv_is(s, JV_OBJECT))
		content(a, &out, produces, s);
	return out;
}

static struct jv operation(struct arena *a, const struct jv *v2)
{
	static const char *const same[] = {"description", "tags", "summary", "deprecated", "operationId"};
	const struct jv *list = jv_get(v2, STR("parameters")), *answers = jv_get(v2, STR("responses")),
			*docs = jv_get(v2, STR("externalDocs"));
	struct jv out = jv_object(), parameters = jv_array(), responses = jv_object();

	take_extensions(a, &out, v2);
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		take(a, &out, v2, same[i], same[i]);
	if (jv_is(docs, JV_OBJECT))
		jv_set(a, &out, STR("externalDocs"), external_docs(a, docs));
	for (uint32_t i = 0; jv_is(list, JV_ARRAY) && i < list->n; i++) {
		const struct jv *s = jv_get(&list->items[i], STR("schema"));

		if (str_eqz(jv_str(jv_get(&list->items[i], STR("name"))), "body") && jv_is(s, JV_OBJECT)) {
			struct jv body = jv_object();

			content(a, &body, jv_get(v2, STR("consumes")), s);
			jv_set(a, &out, STR("requestBody"), body);
		} else if (jv_is(&list->items[i], JV_OBJECT)) {
			jv_push(a, &parameters, parameter(a, &list->items[i]));
		}
	}
	if (parameters.n)
		jv_set(a, &out, STR("parameters"), parameters);
	take_extensions(a, &responses, answers);
	for (uint32_t i = 0; jv_is(answers, JV_OBJECT) && i < answers->n; i++)
		if (!str_has_prefix(answers->members[i].key, STR("x-")))
			jv_set(a, &responses, answers->members[i].key,
			       response(a, &answers->members[i].value, jv_get(v2, STR("produces"))));
	jv_set(a, &out, STR("responses"), responses);
	return out;
}

static struct jv path_item(struct arena *a, const struct jv *v2)
{
	static const char *const methods[] = {"delete", "get", "head", "options", "patch", "post", "put"};
	const struct jv *list = jv_get(v2, STR("parameters"));
	struct jv out = jv_object(), parameters = jv_array();

	take(a, &out, v2, "$ref", "$ref");
	take_extensions(a, &out, v2);
	for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
		const struct jv *op = jv_get(v2, str_from(methods[i]));

		if (jv_is(op, JV_OBJECT))
			jv_set(a, &out, str_from(methods[i]), operation(a, op));
	}
	for (uint32_t i = 0; jv_is(list, JV_ARRAY) && i < list->n; i++)
		jv_push(a, &parameters, parameter(a, &list->items[i]));
	if (parameters.n)
		jv_set(a, &out, STR("parameters"), parameters);
	return out;
}

static struct jv security_scheme(struct arena *a, const struct jv *v2)
{
	static const char *const same[] = {"description", "type", "name", "in"};
	struct str flow = jv_str(jv_get(v2, STR("flow")));
	struct jv out = jv_object(), flows = jv_object(), one = jv_object();

	take_extensions(a, &out, v2);
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		take(a, &out, v2, same[i], same[i]);
	if (flow.n) {
		take(a, &one, v2, "authorizationUrl", "authorizationUrl");
		take(a, &one, v2, "tokenUrl", "tokenUrl");
		take(a, &one, v2, "scopes", "scopes");
		jv_set(a, &flows, flow, one);
		jv_set(a, &out, STR("flows"), flows);
	}
	return out;
}

/* A map of components, where the document has one that is not empty. */
static void component(struct arena *a, struct jv *to, const char *name, const struct jv *from,
		      const struct jv *produces,
		      struct jv (*one)(struct arena *a, const struct jv *v2, const struct jv *produces))
{
	struct jv out = jv_object();

	for (uint32_t i = 0; jv_is(from, JV_OBJECT) && i < from->n; i++)
		jv_set(a, &out, from->members[i].key, one(a, &from->members[i].value, produces));
	if (out.n)
		jv_set(a, to, str_from(name), out);
}

static struct jv schema_component(struct arena *a, const struct jv *v2, const struct jv *produces)
{
	(void)produces;
	return schema(a, v2);
}

static struct jv security_component(struct arena *a, const struct jv *v2, const struct jv *produces)
{
	(void)produces;
	return security_scheme(a, v2);
}

void openapi_v2_to_v3(struct arena *a, const struct jv *v2, struct jv *v3)
{
	const struct jv *docs = jv_get(v2, STR("externalDocs")), *paths = jv_get(v2, STR("paths")),
			*produces = jv_get(v2, STR("produces"));
	struct jv components = jv_object(), out = jv_object();

	*v3 = jv_object();
	jv_set(a, v3, STR("openapi"), jv_string(STR("3.0.0")));
	take(a, v3, v2, "info", "info");
	if (jv_is(docs, JV_OBJECT))
		jv_set(a, v3, STR("externalDocs"), external_docs(a, docs));
	if (jv_is(paths, JV_OBJECT)) {
		take_extensions(a, &out, paths);
		for (uint32_t i = 0; i < paths->n; i++)
			if (str_has_prefix(paths->members[i].key, STR("/")))
				jv_set(a, &out, paths->members[i].key, path_item(a, &paths->members[i].value));
		jv_set(a, v3, STR("paths"), out);
	}
	component(a, &components, "schemas", jv_get(v2, STR("definitions")), NULL, schema_component);
	component(a, &components, "securitySchemes", jv_get(v2, STR("securityDefinitions")), NULL, security_component);
	component(a, &components, "responses", jv_get(v2, STR("responses")), produces, response);
	jv_set(a, v3, STR("components"), components);
}
