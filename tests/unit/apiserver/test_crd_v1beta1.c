/* Definitions stored as apiextensions.k8s.io/v1beta1, read as v1 (apiserver/crd_internal.h). */
#include "../test.h"

#include "apiserver/crd_internal.h"

static crd_object_t *read(struct arena *a, const char *version, const char *spec)
{
	struct str text = arena_printf(a, "{\"kind\":\"CustomResourceDefinition\",\"apiVersion\":\"apiextensions.k8s.io/%s\",\"spec\":%s}", version, spec);
	crd_object_t *o = arena_new(a, crd_object_t);

	assert_ok(object_decode(a, MEDIA_JSON, &apiextensions_v1_custom_resource_definition_type, text, NULL, o));
	assert_ok(crd_read_text(a, o->api_version, text, o));
	return o;
}

/* What is said once is said of each version. */
static void once(void **state)
{
	struct arena a arena_cleanup = {0};
	crd_object_t *o = read(&a, "v1beta1", "{\"group\":\"g\",\"version\":\"v1\",\"names\":{\"plural\":\"things\",\"kind\":\"Thing\"},"
		"\"validation\":{\"openAPIV3Schema\":{\"type\":\"object\"}},\"subresources\":{\"status\":{}},"
		"\"additionalPrinterColumns\":[{\"name\":\"C\",\"type\":\"integer\",\"priority\":1,\"JSONPath\":\".spec.c\"}]}");

	assert_int_equal(o->spec.versions.n, 1);
	assert_str(o->spec.versions.v[0].name, "v1");
	assert_true(o->spec.versions.v[0].served && o->spec.versions.v[0].storage);
	assert_str(o->spec.versions.v[0].schema->open_apiv3_schema->type, "object");
	assert_non_null(o->spec.versions.v[0].subresources->status);
	assert_int_equal(o->spec.versions.v[0].additional_printer_columns.n, 1);
	assert_str(o->spec.versions.v[0].additional_printer_columns.v[0].json_path, ".spec.c");
	assert_int_equal(o->spec.versions.v[0].additional_printer_columns.v[0].priority, 1);
	assert_str(o->spec.scope, "Namespaced");
	assert_true(o->spec.preserve_unknown_fields);
}

static void each(void **state)
{
	struct arena a arena_cleanup = {0};
	crd_object_t *o = read(&a, "v1beta1", "{\"group\":\"g\",\"version\":\"v1\",\"scope\":\"Cluster\",\"preserveUnknownFields\":false,\"versions\":["
		"{\"name\":\"v1\",\"served\":true,\"storage\":true,\"schema\":{\"openAPIV3Schema\":{\"description\":\"one\"}},"
		"\"additionalPrinterColumns\":[{\"name\":\"C\",\"type\":\"string\",\"JSONPath\":\".c\"}]},"
		"{\"name\":\"v2\",\"served\":false,\"storage\":false}],"
		"\"conversion\":{\"strategy\":\"Webhook\",\"webhookClientConfig\":{\"url\":\"https://x\"},\"conversionReviewVersions\":[\"v1beta1\",\"v1\"]}}");

	assert_int_equal(o->spec.versions.n, 2);
	assert_str(o->spec.versions.v[0].schema->open_apiv3_schema->description, "one");
	assert_str(o->spec.versions.v[0].additional_printer_columns.v[0].json_path, ".c");
	assert_true(!o->spec.versions.v[1].served && !o->spec.versions.v[1].schema && !o->spec.versions.v[1].additional_printer_columns.n);
	assert_str(o->spec.scope, "Cluster");
	assert_false(o->spec.preserve_unknown_fields);
	assert_str(*o->spec.conversion->webhook->client_config->url, "https://x");
	assert_int_equal(o->spec.conversion->webhook->conversion_review_versions.n, 2);
}

static void current(void **state)
{
	struct arena a arena_cleanup = {0};
	crd_object_t *o = read(&a, "v1", "{\"group\":\"g\",\"version\":\"v1\",\"versions\":[]}");

	assert_int_equal(o->spec.versions.n, 0);
	assert_false(o->spec.preserve_unknown_fields);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(once), cmocka_unit_test(each), cmocka_unit_test(current)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
