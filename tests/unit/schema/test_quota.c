#include "../test.h"

#include "schema/codec.h"
#include "schema/quantity.h"
#include "schema/quota.h"

static struct arena a;

static void *decode(const struct schema_type *t, const char *json)
{
	void *o = arena_alloc(&a, t->size);

	assert_ok(json_decode(&a, t, arena_str(&a, str_from(json)), NULL, o));
	return o;
}

static void same(struct str got, const char *want)
{
	assert_string_equal(arena_strz(&a, got), want);
}

/* One line: "cpu=1,pods=1". */
static void usage(const char *group, const char *plural, const void *o, const char *want)
{
	struct str_map m;
	struct buf b = {0};

	quota_usage(&a, str_from(group), str_from(plural), o, 1000, NULL, &m);
	for (uint32_t i = 0; i < m.n; i++)
		buf_printf(&b, "%s%.*s=%.*s", i ? "," : "", STR_ARG(m.v[i].key), STR_ARG(m.v[i].value));
	same(buf_view(&b), want);
	buf_free(&b);
}

#define POD(spec, status) decode(&core_v1_pod_type, "{\"spec\":" spec ",\"status\":" status "}")

static void pods(void **state)
{
	usage("", "pods", POD("{\"containers\":[{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"100m\"},\"limits\":{\"cpu\":\"1\",\"example.com/gpu\":\"1\"}}},"
			      "{\"name\":\"b\",\"resources\":{\"requests\":{\"cpu\":\"200m\",\"hugepages-2Mi\":\"2Mi\",\"example.com/gpu\":\"2\"}}}]}", "{}"),
	      "count/pods=1,cpu=300m,hugepages-2Mi=2Mi,limits.cpu=1,pods=1,requests.cpu=300m,requests.example.com/gpu=2,requests.hugepages-2Mi=2Mi");
	/* init containers: the largest alone; those that stay on are added to all that follow */
	usage("", "pods", POD("{\"initContainers\":[{\"name\":\"s\",\"restartPolicy\":\"Always\",\"resources\":{\"requests\":{\"cpu\":\"1\"}}},"
			      "{\"name\":\"i\",\"resources\":{\"requests\":{\"cpu\":\"5\"}}}],"
			      "\"containers\":[{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"2\"}}}],\"overhead\":{\"cpu\":\"250m\"}}", "{}"),
	      "count/pods=1,cpu=6250m,pods=1,requests.cpu=6250m");
	/* and nothing to a limit of zero */
	usage("", "pods", POD("{\"containers\":[{\"name\":\"a\",\"resources\":{\"limits\":{\"cpu\":\"0\",\"memory\":\"1\"}}}],"
			      "\"overhead\":{\"cpu\":\"250m\",\"memory\":\"2\"}}", "{}"),
	      "count/pods=1,cpu=250m,limits.cpu=0,limits.memory=3,memory=2,pods=1,requests.cpu=250m,requests.memory=2");
	/* resources of the pod itself go before the sum */
	usage("", "pods", POD("{\"resources\":{\"requests\":{\"cpu\":\"3\"}},\"containers\":[{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"1\"}}}]}", "{}"),
	      "count/pods=1,cpu=3,pods=1,requests.cpu=3");
	/* a resize under way counts the larger side; an impossible one does not */
	usage("", "pods", POD("{\"containers\":[{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"1\"}}}]}",
			      "{\"containerStatuses\":[{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"2\"}},\"allocatedResources\":{\"cpu\":\"2\"}}]}"),
	      "count/pods=1,cpu=2,pods=1,requests.cpu=2");
	usage("", "pods", POD("{\"containers\":[{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"9\"}}}]}",
			      "{\"conditions\":[{\"type\":\"PodResizePending\",\"reason\":\"Infeasible\"}],"
			      "\"containerStatuses\":[{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"2\"}}}]}"),
	      "count/pods=1,cpu=2,pods=1,requests.cpu=2");
	usage("", "pods", POD("{\"containers\":[{\"name\":\"a\"}]}", "{\"phase\":\"Failed\"}"), "count/pods=1");
}

static void others(void **state)
{
	usage("apps", "deployments", NULL, "count/deployments.apps=1");
	usage("", "secrets", NULL, "count/secrets=1,secrets=1");
	usage("", "services", decode(&core_v1_service_type, "{\"spec\":{\"type\":\"LoadBalancer\",\"allocateLoadBalancerNodePorts\":false,"
							    "\"ports\":[{\"port\":1,\"nodePort\":30000},{\"port\":2}]}}"),
	      "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1");
	usage("", "persistentvolumeclaims", decode(&core_v1_persistent_volume_claim_type,
						   "{\"spec\":{\"storageClassName\":\"g\",\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}},"
						   "\"status\":{\"allocatedResources\":{\"storage\":\"2Gi\"}}}"),
	      "count/persistentvolumeclaims=1,g.storageclass.storage.k8s.io/persistentvolumeclaims=1,"
	      "g.storageclass.storage.k8s.io/requests.storage=2Gi,persistentvolumeclaims=1,requests.storage=2Gi");
	usage("", "persistentvolumeclaims", decode(&core_v1_persistent_volume_claim_type,
						   "{\"metadata\":{\"annotations\":{\"volume.beta.kubernetes.io/storage-class\":\"\"}},"
						   "\"spec\":{\"storageClassName\":\"g\"}}"),
	      "count/persistentvolumeclaims=1,persistentvolumeclaims=1");
	usage("resource.k8s.io", "resourceclaims", decode(&resource_v1_resource_claim_type,
		"{\"spec\":{\"devices\":{\"requests\":[{\"name\":\"a\",\"exactly\":{\"deviceClassName\":\"x\",\"allocationMode\":\"ExactCount\",\"count\":2}},"
		"{\"name\":\"b\",\"firstAvailable\":[{\"name\":\"1\",\"deviceClassName\":\"x\",\"allocationMode\":\"All\"},"
		"{\"name\":\"2\",\"deviceClassName\":\"x\",\"allocationMode\":\"ExactCount\",\"count\":1}]}]}}}"),
	      "count/resourceclaims.resource.k8s.io=1,x.deviceclass.resource.k8s.io/devices=34");
}

/* Devices of a class are what the class says, and what it is called; the pod's share was charged with the pod. */
static void extended(void **state)
{
	struct quota_devices d = {0};
	struct str_map m;
	struct str gpu = STR("requests.example.com/gpu"), by_name = STR("requests.deviceclass.resource.kubernetes.io/x");
	const void *claim = decode(&resource_v1_resource_claim_type,
		"{\"spec\":{\"devices\":{\"requests\":[{\"name\":\"a\",\"exactly\":{\"deviceClassName\":\"x\",\"allocationMode\":\"ExactCount\",\"count\":2}},"
		"{\"name\":\"b\",\"exactly\":{\"deviceClassName\":\"y\",\"allocationMode\":\"ExactCount\",\"count\":1}}]}}}");

	str_map_set(&a, &d.classes, STR("x"), STR("example.com/gpu"));
	str_map_set(&a, &d.classes, STR("z"), STR(""));
	assert_true(quota_counts(STR("resource.k8s.io"), STR("resourceclaims"), gpu, &d));
	assert_true(quota_counts(STR("resource.k8s.io"), STR("resourceclaims"), by_name, &d));
	assert_true(quota_counts(STR("resource.k8s.io"), STR("resourceclaims"), STR("requests.deviceclass.resource.kubernetes.io/z"), &d));
	assert_false(quota_counts(STR("resource.k8s.io"), STR("resourceclaims"), STR("requests.deviceclass.resource.kubernetes.io/y"), &d));
	assert_false(quota_counts(STR("resource.k8s.io"), STR("resourceclaims"), STR("requests.example.com/foo"), &d));
	assert_false(quota_counts(STR("resource.k8s.io"), STR("resourceclaims"), gpu, NULL));
	quota_usage(&a, STR("resource.k8s.io"), STR("resourceclaims"), claim, 1000, &d, &m);
	same(str_map_get(&m, gpu), "2");
	same(str_map_get(&m, by_name), "2");
	same(str_map_get(&m, STR("requests.deviceclass.resource.kubernetes.io/y")), "1");
	str_map_set(&a, &d.charged, gpu, STR("1"));
	str_map_set(&a, &d.charged, by_name, STR("2"));
	quota_usage(&a, STR("resource.k8s.io"), STR("resourceclaims"), claim, 1000, &d, &m);
	same(str_map_get(&m, gpu), "1");
	assert_false(str_map_has(&m, by_name));
}

static void names(void **state)
{
	static const struct {
		const char *group, *plural, *name;
		bool counts;
	} cases[] = {
		{"", "pods", "count/pods", true}, {"", "pods", "requests.cpu", true}, {"", "pods", "requests.storage", false},
		{"", "pods", "requests.example.com/gpu", true}, {"", "pods", "count/podtemplates", false},
		{"apps", "deployments", "count/deployments.apps", true}, {"apps", "deployments", "count/deployments", false},
		{"example.com", "pods", "pods", false}, {"", "configmaps", "configmaps", true}, {"", "endpoints", "endpoints", false},
		{"", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage", true},
		{"", "services", "services.nodeports", true},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (quota_counts(str_from(cases[i].group), str_from(cases[i].plural), str_from(cases[i].name), NULL) != cases[i].counts)
			fail_msg("%s/%s, %s", cases[i].group, cases[i].plural, cases[i].name);
	assert_true(quota_ignores(STR("events.k8s.io"), STR("events")));
	assert_false(quota_ignores(STR("example.com"), STR("events")));
}

static void scopes(void **state)
{
	const struct core_v1_resource_quota_spec *be = decode(&core_v1_resource_quota_spec_type, "{\"scopes\":[\"BestEffort\",\"NotTerminating\"]}");
	const struct core_v1_resource_quota_spec *cls = decode(&core_v1_resource_quota_spec_type,
		"{\"scopeSelector\":{\"matchExpressions\":[{\"scopeName\":\"PriorityClass\",\"operator\":\"NotIn\",\"values\":[\"low\"]}]}}");
	const void *plain = POD("{\"containers\":[{\"name\":\"a\"}]}", "{}");
	const void *ends = POD("{\"activeDeadlineSeconds\":5,\"containers\":[{\"name\":\"a\"}]}", "{}");
	const void *low = POD("{\"priorityClassName\":\"low\",\"containers\":[{\"name\":\"a\"}]}", "{}");

	assert_true(quota_scopes_match(be, STR(""), STR("pods"), plain));
	assert_false(quota_scopes_match(be, STR(""), STR("pods"), ends));
	assert_false(quota_scopes_match(be, STR(""), STR("services"), NULL));
	assert_true(quota_scopes_match(cls, STR(""), STR("pods"), plain));
	assert_false(quota_scopes_match(cls, STR(""), STR("pods"), low));
}

static void missing(void **state)
{
	struct str_map hard = {0};
	const struct core_v1_pod *p = POD("{\"containers\":[{\"name\":\"b\"},{\"name\":\"a\",\"resources\":{\"requests\":{\"cpu\":\"1\"}}}]}", "{}");

	str_map_set(&a, &hard, STR("cpu"), STR("1"));
	str_map_set(&a, &hard, STR("limits.memory"), STR("1"));
	str_map_set(&a, &hard, STR("requests.ephemeral-storage"), STR("1"));
	same(quota_missing(&a, &hard, p), "cpu for: b; limits.memory for: a,b");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(pods), cmocka_unit_test(others), cmocka_unit_test(extended), cmocka_unit_test(names),
					   cmocka_unit_test(scopes), cmocka_unit_test(missing)};
	int failed = cmocka_run_group_tests_name("quota", tests, NULL, NULL);

	arena_free(&a);
	return failed;
}
