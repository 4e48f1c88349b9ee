#include "../test.h"

#include "schema/openapi.h"
#include "schema/openapi_merge.h"

static struct jv parse(struct arena *a, const struct buf *b)
{
	struct jv v;

	assert_ok(jv_parse(a, arena_str(a, buf_view(b)), NULL, &v));
	return v;
}

/* Every reference leads to a definition. */
static void check_refs(const struct jv *definitions, const struct jv *v, const char *prefix)
{
	if (v->kind == JV_ARRAY)
		for (uint32_t i = 0; i < v->n; i++)
			check_refs(definitions, &v->items[i], prefix);
	if (v->kind != JV_OBJECT)
		return;
	for (uint32_t i = 0; i < v->n; i++) {
		struct str key = v->members[i].key, ref = jv_str(&v->members[i].value);

		if (str_eqz(key, "$ref") && str_has_prefix(ref, STR("#/parameters/")))
			continue; /* of operations: see described() */
		if (str_eqz(key, "$ref") && ref.n) {
			if (!str_has_prefix(ref, str_from(prefix)) || !jv_get(definitions, str_sub(ref, strlen(prefix), ref.n)))
				fail_msg("%.*s is not defined", STR_ARG(ref));
		} else {
			check_refs(definitions, &v->members[i].value, prefix);
		}
	}
}

static struct openapi_served all; /* built-in ones */

static void v3_documents(void **state)
{
	struct str group = {0}, version = {0};

	for (size_t i = 0; i < n_api_resources; i++) {
		arena_cleanup struct arena a = {0};
		buf_cleanup struct buf b = {0};
		const struct api_resource *r = api_resources[i];

		if (i && str_eq(group, r->group) && str_eq(version, r->version))
			continue;
		group = r->group;
		version = r->version;
		assert_true(openapi_v3(&b, group, version, &all));
		struct jv doc = parse(&a, &b), *schemas = jv_at(&doc, "components", "schemas", NULL);

		check_refs(schemas, &doc, "#/components/schemas/");
		assert_non_null(jv_get(schemas, str_from(r->type->openapi)));
	}
	buf_cleanup struct buf none = {0};

	assert_false(openapi_v3(&none, STR("nope"), STR("v1"), &all));
	assert_false(openapi_v3_discovery(&none, STR("apis/nope"), &all));
	static const char *const paths[] = {"api", "apis", "apis/apps", "version"};

	for (size_t i = 0; i < 4; i++) {
		arena_cleanup struct arena a = {0};
		buf_cleanup struct buf b = {0};

		assert_true(openapi_v3_discovery(&b, str_from(paths[i]), &all));
		parse(&a, &b);
	}
}

/* Spots of upstream's documents, as facts. */
static void v3_details(void **state)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};

	assert_true(openapi_v3(&b, STR("apps"), STR("v1"), &all));
	struct jv doc = parse(&a, &b);
	const struct jv *path = jv_at(&doc, "paths", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}", NULL);

	assert_str(jv_str(jv_at(path, "patch", "operationId", NULL)), "patchAppsV1NamespacedDeployment");
	assert_str(jv_str(jv_at(path, "patch", "x-kubernetes-action", NULL)), "patch");
	assert_str(jv_str(jv_path(path, STR("patch.tags[0]"))), "apps_v1");
	assert_int_equal(jv_get(path, STR("parameters"))->n, 3); /* name, namespace, pretty */
	assert_non_null(jv_at(path, "patch", "requestBody", "content", "application/apply-patch+yaml", NULL));
	assert_str(jv_str(jv_at(&doc, "paths", "/apis/apps/v1/deployments", "get", "operationId", NULL)), "listAppsV1DeploymentForAllNamespaces");
	assert_str(jv_str(jv_at(&doc, "paths", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", "get",
				"x-kubernetes-group-version-kind", "kind", NULL)), "Scale");
	const struct jv *schemas = jv_at(&doc, "components", "schemas", NULL);
	const struct jv *container = jv_at(schemas, "io.k8s.api.core.v1.Container", "properties", NULL);
	buf_cleanup struct buf text = {0};

	struct jv bare = jv_copy(&a, jv_get(container, STR("ports")));

	assert_true(jv_str(jv_get(&bare, STR("description"))).n > 10);
	jv_del(&bare, STR("description"));
	jv_encode_sorted(&text, &bare);
	assert_string_equal(buf_z(&text), "{\"items\":{\"$ref\":\"#/components/schemas/io.k8s.api.core.v1.ContainerPort\"},\"type\":\"array\","
					  "\"x-kubernetes-list-map-keys\":[\"containerPort\",\"protocol\"],\"x-kubernetes-list-type\":\"map\","
					  "\"x-kubernetes-patch-merge-key\":\"containerPort\",\"x-kubernetes-patch-strategy\":\"merge\"}");
	text.n = 0;
	bare = jv_copy(&a, jv_get(container, STR("imagePullPolicy")));
	jv_del(&bare, STR("description"));
	jv_encode_sorted(&text, &bare);
	assert_string_equal(buf_z(&text), "{\"enum\":[\"Always\",\"IfNotPresent\",\"Never\"],\"type\":\"string\"}");
	text.n = 0;
	jv_encode_sorted(&text, jv_at(schemas, "io.k8s.api.apps.v1.Deployment", "x-kubernetes-group-version-kind", NULL));
	assert_string_equal(buf_z(&text), "[{\"group\":\"apps\",\"kind\":\"Deployment\",\"version\":\"v1\"}]");
}

/* Every description stands at the field it is written for: first, last, inlined, by a rule. */
static void v3_descriptions(void **state)
{
	static const struct {
		const char *type, *field, *words;
	} cases[] = {
		{"PodSpec", "volumes", "Volumes that the containers may mount"},
		{"Volume", "emptyDir", "An empty directory"},
		{"Volume", "name", "Name of the volume"},
		{"ConfigMap", "binaryData", "Keys with bytes"},
		{"ServiceList", "items", "List of services"},
		{"ServiceList", "metadata", "Standard list metadata"},
		{"Service", "metadata", "Standard object's metadata"},
		{"Service", "apiVersion", "APIVersion defines"},
		{"Service", "kind", "Kind says"},
	};
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};

	assert_true(openapi_v3(&b, STR(""), STR("v1"), &all));
	struct jv doc = parse(&a, &b);
	const struct jv *schemas = jv_at(&doc, "components", "schemas", NULL);

	for (uint32_t i = 0; i < schemas->n; i++)
		if (!jv_str(jv_get(&schemas->members[i].value, STR("description"))).n)
			fail_msg("%.*s is not described", STR_ARG(schemas->members[i].key));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct str type = arena_printf(&a, "io.k8s.api.core.v1.%s", cases[i].type);
		struct str text =
			jv_str(jv_at(jv_get(schemas, type), "properties", cases[i].field, "description", NULL));

		if (!str_has_prefix(text, str_from(cases[i].words)))
			fail_msg("%s.%s: %.*s", cases[i].type, cases[i].field, STR_ARG(text));
	}
}

static struct openapi_crd crd_of(struct arena *a)
{
	struct apiextensions_v1_json_schema_props *schema = arena_new(a, struct apiextensions_v1_json_schema_props);
	buf_cleanup struct buf pb = {0};

	assert_ok(json_decode(a, &apiextensions_v1_json_schema_props_type,
			      STR("{\"type\":\"object\",\"description\":\"A thing\",\"properties\":{\"spec\":{\"type\":\"object\",\"properties\":{\"size\":"
				  "{\"type\":\"integer\",\"default\":1,\"anyOf\":[{\"minimum\":1}]},\"port\":{\"x-kubernetes-int-or-string\":true}}}}}"),
			      NULL, schema));
	pb_encode(&pb, &apiextensions_v1_json_schema_props_type, schema);
	return (struct openapi_crd){STR("example.com"), STR("v1"), STR("things"), STR("thing"), STR("Thing"), STR("ThingList"),
				    true, true, true, arena_str(a, buf_view(&pb))};
}

static void custom_resources(void **state)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0}, b2 = {0};
	struct openapi_crd crd = crd_of(&a);
	struct openapi_served served = {api_resources, n_api_resources, &crd, 1};

	assert_true(openapi_v3(&b, STR("example.com"), STR("v1"), &served));
	struct jv doc = parse(&a, &b), *schemas = jv_at(&doc, "components", "schemas", NULL);

	check_refs(schemas, &doc, "#/components/schemas/");
	assert_non_null(jv_at(&doc, "paths", "/apis/example.com/v1/namespaces/{namespace}/things/{name}/status", "put", NULL));
	assert_str(jv_str(jv_at(&doc, "paths", "/apis/example.com/v1/things", "get", "operationId", NULL)),
		   "listExampleComV1ThingForAllNamespaces");
	const struct jv *thing = jv_get(schemas, STR("com.example.v1.Thing"));

	assert_int_equal(jv_at(thing, "properties", "spec", "properties", "size", "default", NULL)->i, 1);
	assert_non_null(jv_at(thing, "properties", "metadata", "allOf", NULL));
	assert_str(jv_str(jv_path(thing, STR("x-kubernetes-group-version-kind[0].kind"))), "Thing");
	openapi_v2(&b2, &served);
	struct jv v2 = parse(&a, &b2);

	check_refs(jv_get(&v2, STR("definitions")), &v2, "#/definitions/");
	thing = jv_at(&v2, "definitions", "com.example.v1.Thing", NULL);
	/* What v2 cannot say is left out. */
	assert_null(jv_at(thing, "properties", "spec", "properties", "size", "anyOf", NULL));
	assert_str(jv_str(jv_at(thing, "properties", "spec", "properties", "size", "type", NULL)), "integer");
	assert_non_null(jv_at(&v2, "paths", "/api/v1/namespaces/{namespace}/pods/{name}/exec", "post", NULL));
	assert_non_null(jv_at(&v2, "paths", "/version/", NULL));
}

/* gnostic's messages, byte for byte on a small document. */
static void v2_protobuf(void **state)
{
	static const char want[] =
		"\x0a\x03" "2.0" "\x12\x06\x0a\x01" "T" "\x12\x01" "1"
		/* paths: {2: {1: "/a", 2: {2: get}}} */
		"\x42\x1a\x12\x18\x0a\x02" "/a" "\x12\x12\x12\x10\x2a\x01" "x" "\x4a\x0b\x0a\x09\x0a\x03" "200" "\x12\x02\x0a\x00"
		/* definitions: {1: {1: "D", 2: schema}}, an extension as YAML */
		"\x4a\x20\x0a\x1e\x0a\x01" "D" "\x12\x19\xb2\x01\x03\x0a\x01" "s" "\xfa\x01\x10\x0a\x03" "x-y" "\x12\x09\x12\x07- b: 1\n";
	buf_cleanup struct buf b = {0};

	assert_ok(openapi_v2_to_proto(STR("{\"swagger\":\"2.0\",\"info\":{\"title\":\"T\",\"version\":\"1\"},\"paths\":{\"/a\":{\"get\":"
					  "{\"operationId\":\"x\",\"responses\":{\"200\":{\"description\":\"\"}}}}},\"definitions\":{\"D\":{\"type\":"
					  "\"s\",\"x-y\":[{\"b\":1}]}}}"), &b));
	assert_int_equal(b.n, sizeof want - 1);
	assert_memory_equal(b.p, want, b.n);
	error_cleanup struct error *e = openapi_v2_to_proto(STR("{"), &b);

	assert_non_null(e);
}

/* Parameters that operations share stand at the end, and are referred to. */
static void v2_protobuf_parameters(void **state)
{
	static const char want[] =
		/* paths: {2: {1: "/a", 2: {9: {2: {1: reference}}, 9: {1: {2: {4: path parameter}}}}} */
		"\x42\x32\x12\x30\x0a\x02" "/a" "\x12\x2a\x4a\x12\x12\x10\x0a\x0e" "#/parameters/p" "\x4a\x14\x0a\x12\x12\x10\x22\x0e\x08\x01"
		"\x12\x04" "path" "\x22\x04" "name"
		/* parameters: {1: {1: "p", 2: {1: body}}} */
		"\x52\x13\x0a\x11\x0a\x01" "p" "\x12\x0c\x0a\x0a\x12\x02" "bo" "\x1a\x04" "body";
	buf_cleanup struct buf b = {0};

	assert_ok(openapi_v2_to_proto(STR("{\"paths\":{\"/a\":{\"parameters\":[{\"$ref\":\"#/parameters/p\"},{\"in\":\"path\",\"name\":"
					  "\"name\",\"required\":true}]}},\"parameters\":{\"p\":{\"in\":\"body\",\"name\":\"bo\"}}}"), &b));
	assert_int_equal(b.n, sizeof want - 1);
	assert_memory_equal(b.p, want, b.n);
}

/* Every operation and parameter says what it is, in both versions; references of v2 lead somewhere. */
static void check_described(const struct jv *doc, const struct jv *list)
{
	for (uint32_t i = 0; list && i < list->n; i++) {
		const struct jv *p = &list->items[i], *ref = jv_get(p, STR("$ref"));

		if (ref) {
			p = jv_get(jv_get(doc, STR("parameters")), str_sub(jv_str(ref), 13, jv_str(ref).n));
			assert_non_null(p);
		}
		if (!str_eqz(jv_str(jv_get(p, STR("in"))), "body") && !jv_str(jv_get(p, STR("description"))).n)
			fail_msg("parameter %.*s is not described", STR_ARG(jv_str(jv_get(p, STR("name")))));
	}
}

static void described(void **state)
{
	arena_cleanup struct arena a = {0};
	struct openapi_crd crd = crd_of(&a);
	struct openapi_served served = all;

	served.crds = &crd;
	served.n_crds = 1;
	for (int version = 2; version <= 3; version++) {
		buf_cleanup struct buf b = {0};

		if (version == 2)
			openapi_v2(&b, &served);
		else
			assert_true(openapi_v3(&b, STR(""), STR("v1"), &all));
		struct jv doc = parse(&a, &b);
		const struct jv *paths = jv_get(&doc, STR("paths"));

		assert_true(paths->n > 50);
		for (uint32_t i = 0; i < paths->n; i++) {
			const struct jv *item = &paths->members[i].value;

			for (uint32_t k = 0; k < item->n; k++) {
				const struct jv *op = &item->members[k].value;

				if (str_eqz(item->members[k].key, "parameters")) {
					check_described(&doc, op);
					continue;
				}
				check_described(&doc, jv_get(op, STR("parameters")));
				if (!jv_str(jv_get(op, STR("description"))).n)
					fail_msg("%.*s %.*s is not described", STR_ARG(item->members[k].key), STR_ARG(paths->members[i].key));
			}
		}
	}
}

/* The same of v3: schemas and references stand in a message of either, what is empty is left out. */
static void v3_protobuf(void **state)
{
	static const char want[] =
		"\x0a\x03" "3.0"
		/* paths: {1: {1: "/a", 2: {4: get}}}, the response {1: {1: text}} under "200" */
		"\x22\x19\x0a\x17\x0a\x02" "/a" "\x12\x11\x22\x0f\x42\x0d\x12\x0b\x0a\x03" "200" "\x12\x04\x0a\x02\x1a\x00"
		/* components: schemas: {1: {1: "D", 2: {1: schema}}}: items, a default number and one that is an object */
		"\x2a\x2e\x0a\x2c\x0a\x2a\x0a\x01" "D" "\x12\x25\x0a\x23"
		"\xf2\x01\x07\x0a\x05\x12\x03\x0a\x01" "#"
		"\xfa\x01\x0e\x0a\x0c\x0a\x01" "p" "\x12\x07\x0a\x05\x8a\x02\x02\x10\x01"
		"\x82\x02\x02\x10\x00" "\x8a\x02\x00";
	buf_cleanup struct buf b = {0};

	assert_ok(openapi_v3_to_proto(STR("{\"openapi\":\"3.0\",\"paths\":{\"/a\":{\"get\":{\"responses\":{\"200\":{\"description\":\"\",\"content\":{}}}}}},"
					  "\"components\":{\"schemas\":{\"D\":{\"items\":{\"$ref\":\"#\"},\"properties\":{\"p\":{\"default\":true}},"
					  "\"additionalProperties\":false,\"default\":{},\"minimum\":0}}}}"), &b));
	for (size_t i = 0; i < b.n && i < sizeof want - 1; i++)
		if (b.p[i] != want[i])
			fail_msg("byte %zu is %02x, not %02x", i, (unsigned char)b.p[i], (unsigned char)want[i]);
	assert_int_equal(b.n, sizeof want - 1);
	error_cleanup struct error *e = openapi_v3_to_proto(STR("{"), &b);

	assert_non_null(e);
}

static struct jv text(struct arena *a, const char *json)
{
	struct jv v;

	assert_ok(jv_parse(a, str_from(json), NULL, &v));
	assert_ok(openapi_v2_check(&v));
	return v;
}

static void assert_json(const struct jv *got, const char *want)
{
	buf_cleanup struct buf b = {0};

	jv_encode_sorted(&b, got);
	assert_string_equal(buf_z(&b), want);
}

/* What paths of another group need alone goes with them; what nobody needs stays. */
static void filtering(void **state)
{
	arena_cleanup struct arena a = {0};
	struct jv doc = text(&a, "{\"paths\":{\"/apis/g/v1/x\":{\"get\":{\"parameters\":[{\"$ref\":\"#/parameters/"
				 "p\"}],\"responses\":{\"200\":"
				 "{\"schema\":{\"items\":{\"$ref\":\"#/definitions/A\"}}}}}},\"/apis/g/v10/"
				 "x\":{\"get\":{\"responses\":{\"200\":"
				 "{\"schema\":{\"$ref\":\"#/definitions/"
				 "B\"}}}}}},\"parameters\":{\"p\":{\"schema\":{\"$ref\":\"#/definitions/P\"}}},"
				 "\"definitions\":{\"A\":{\"properties\":{\"a\":{\"$ref\":\"#/definitions/"
				 "C\"}}},\"B\":{\"properties\":{\"b\":"
				 "{\"$ref\":\"#/definitions/C\"},\"d\":{\"$ref\":\"#/definitions/"
				 "D\"}}},\"C\":{},\"D\":{},\"P\":{},\"U\":{}}}");

	openapi_v2_filter(&a, &doc, STR("/apis/g/v1/"));
	assert_int_equal(jv_get(&doc, STR("paths"))->n, 1);
	assert_json(jv_get(&doc, STR("definitions")),
		    "{\"A\":{\"properties\":{\"a\":{\"$ref\":\"#/definitions/C\"}}},\"C\":{},\"P\":{},\"U\":{}}");
}

static void merging(void **state)
{
	arena_cleanup struct arena a = {0};
	struct jv into =
		text(&a, "{\"info\":1,\"paths\":{\"/"
			 "a\":{}},\"definitions\":{\"S\":{\"type\":\"object\",\"x-kubernetes-group-version-kind\":"
			 "[{\"group\":\"m\",\"version\":\"v1\",\"kind\":\"S\"}]},\"T\":{\"type\":\"string\"},\"T_v2\":{"
			 "\"type\":\"array\"}},"
			 "\"parameters\":{\"p\":{\"in\":\"query\"}}}");
	struct jv from = text(
		&a,
		"{\"info\":2,\"paths\":{\"/a\":{\"get\":{\"responses\":{\"200\":{\"schema\":{\"$ref\":\"#/definitions/"
		"Only\"}}}}},"
		"\"/b\":{\"get\":{\"parameters\":[{\"$ref\":\"#/parameters/"
		"p\"}],\"responses\":{\"200\":{\"schema\":{\"$ref\":"
		"\"#/definitions/T\"}}}}},\"x-c\":1},\"definitions\":{\"Only\":{},\"S\":{\"type\":\"object\","
		"\"x-kubernetes-group-version-kind\":[{\"group\":\"a\",\"version\":\"v1\",\"kind\":\"S\"}]},\"T\":{"
		"\"type\":\"object\","
		"\"properties\":{\"s\":{\"$ref\":\"#/definitions/S\",\"default\":{\"$ref\":\"#/definitions/T\"}}}}},"
		"\"parameters\":{\"p\":{\"in\":\"path\"}}}");

	openapi_v2_merge(&a, &into, &from);
	assert_json(&into, "{\"definitions\":{\"S\":{\"type\":\"object\",\"x-kubernetes-group-version-kind\":[{"
			   "\"group\":\"a\",\"kind\":\"S\","
			   "\"version\":\"v1\"},{\"group\":\"m\",\"kind\":\"S\",\"version\":\"v1\"}]},\"T\":{\"type\":"
			   "\"string\"},\"T_v2\":{\"type\":"
			   "\"array\"},\"T_v3\":{\"properties\":{\"s\":{\"$ref\":\"#/definitions/"
			   "S\",\"default\":{\"$ref\":\"#/definitions/T\"}}},"
			   "\"type\":\"object\"}},\"info\":1,\"parameters\":{\"p\":{\"in\":\"query\"},\"p_v2\":{\"in\":"
			   "\"path\"}},\"paths\":{\"/a\":{},"
			   "\"/b\":{\"get\":{\"parameters\":[{\"$ref\":\"#/parameters/"
			   "p_v2\"}],\"responses\":{\"200\":{\"schema\":{\"$ref\":"
			   "\"#/definitions/T_v3\"}}}}}}}");
	/* a document without new paths adds nothing */
	from = text(&a, "{\"paths\":{\"/a\":{}},\"definitions\":{\"New\":{}}}");
	openapi_v2_merge(&a, &into, &from);
	assert_null(jv_at(&into, "definitions", "New", NULL));
}

static void converting(void **state)
{
	arena_cleanup struct arena a = {0};
	struct jv v3, v2 = text(&a, "{\"info\":{},\"paths\":{\"/a\":{\"get\":{\"consumes\":[\"c/d\"],\"produces\":[\"e/"
				    "f\"],\"operationId\":\"o\","
				    "\"parameters\":[{\"name\":\"body\",\"in\":\"body\",\"schema\":{\"$ref\":\"#/"
				    "definitions/A\"}},{\"name\":\"q\","
				    "\"in\":\"query\",\"type\":\"integer\"}],\"responses\":{\"200\":{\"description\":"
				    "\"d\",\"schema\":{\"$ref\":"
				    "\"#/definitions/"
				    "A\"},\"headers\":{}}}}}},\"definitions\":{\"A\":{\"properties\":{\"p\":{\"$ref\":"
				    "\"#/definitions/A\","
				    "\"default\":{}}}}}}");

	openapi_v2_to_v3(&a, &v2, &v3);
	assert_json(&v3, "{\"components\":{\"schemas\":{\"A\":{\"properties\":{\"p\":{\"allOf\":[{\"$ref\":\"#/"
			 "components/schemas/A\"}],"
			 "\"default\":{}}}}}},\"info\":{},\"openapi\":\"3.0.0\",\"paths\":{\"/"
			 "a\":{\"get\":{\"operationId\":\"o\",\"parameters\":"
			 "[{\"in\":\"query\",\"name\":\"q\",\"schema\":{\"type\":\"integer\"}}],\"requestBody\":{"
			 "\"content\":{\"c/d\":{\"schema\":"
			 "{\"$ref\":\"#/components/schemas/A\"}}}},\"responses\":{\"200\":{\"content\":{\"e/"
			 "f\":{\"schema\":{\"$ref\":"
			 "\"#/components/schemas/A\"}}},\"description\":\"d\"}}}}}}");
}

int main(void)
{
	all = (struct openapi_served){api_resources, n_api_resources};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v3_documents),    cmocka_unit_test(v3_details),
		cmocka_unit_test(v3_descriptions), cmocka_unit_test(custom_resources),
		cmocka_unit_test(v2_protobuf),     cmocka_unit_test(v2_protobuf_parameters),
		cmocka_unit_test(described),       cmocka_unit_test(v3_protobuf),
		cmocka_unit_test(filtering),       cmocka_unit_test(merging),
		cmocka_unit_test(converting),
	};

	return cmocka_run_group_tests_name("openapi", tests, NULL, NULL);
}
