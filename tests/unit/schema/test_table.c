#include "../test.h"

#include "schema/table.h"

static const struct api_time now = {1700000000, 0, true};

static const struct {
	const struct api_resource *r;
	const char *obj, *cells;
} rows[] = {
#define META "\"metadata\":{\"name\":\"x\",\"creationTimestamp\":\"2023-11-14T22:12:20Z\"}" /* 60 s before now */
	{&core_v1_pods_resource, "{" META ",\"spec\":{\"containers\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"nodeName\":\"n\"},"
	 "\"status\":{\"phase\":\"Running\",\"podIPs\":[{\"ip\":\"10.0.0.1\"}],\"containerStatuses\":["
	 "{\"name\":\"a\",\"ready\":true,\"restartCount\":2,\"state\":{\"running\":{}},\"lastState\":{\"terminated\":{\"exitCode\":1,"
	 "\"finishedAt\":\"2023-11-14T22:12:30Z\"}}},"
	 "{\"name\":\"b\",\"state\":{\"waiting\":{\"reason\":\"ImagePullBackOff\"}}}]}}",
	 "[\"x\",\"1/2\",\"ImagePullBackOff\",\"2 (50s ago)\",\"60s\",\"10.0.0.1\",\"n\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\"]"},
	{&core_v1_pods_resource, "{" META ",\"spec\":{\"initContainers\":[{\"name\":\"i\"},{\"name\":\"s\",\"restartPolicy\":\"Always\"}],"
	 "\"containers\":[{\"name\":\"a\"}]},\"status\":{\"phase\":\"Pending\",\"initContainerStatuses\":["
	 "{\"name\":\"i\",\"state\":{\"terminated\":{\"exitCode\":0}}},{\"name\":\"s\",\"state\":{\"waiting\":{\"reason\":\"PodInitializing\"}}}]}}",
	 "[\"x\",\"0/2\",\"Init:1/2\",\"0\",\"60s\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\"]"},
	{&core_v1_pods_resource, "{" META ",\"spec\":{\"containers\":[{\"name\":\"a\"}],\"readinessGates\":[{\"conditionType\":\"g\"}]},"
	 "\"status\":{\"phase\":\"Failed\",\"reason\":\"Evicted\",\"conditions\":[{\"type\":\"g\",\"status\":\"True\"}]}}",
	 "[\"x\",\"0/1\",\"Evicted\",\"0\",\"60s\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\",\"1/1\"]"},
	{&core_v1_pods_resource, "{\"metadata\":{\"name\":\"x\",\"creationTimestamp\":\"2023-11-14T22:12:20Z\",\"deletionTimestamp\":"
	 "\"2023-11-14T22:12:20Z\"},\"spec\":{\"containers\":[{\"name\":\"a\"}]},\"status\":{\"phase\":\"Running\",\"containerStatuses\":"
	 "[{\"name\":\"a\",\"state\":{\"terminated\":{\"exitCode\":3}}}]}}",
	 "[\"x\",\"0/1\",\"Terminating\",\"0\",\"60s\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\",\"\\u003cnone\\u003e\"]"},
	{&apps_v1_deployments_resource, "{" META ",\"spec\":{\"replicas\":3,\"selector\":{\"matchLabels\":{\"a\":\"b\"}},\"template\":{\"spec\":"
	 "{\"containers\":[{\"name\":\"c\",\"image\":\"i:1\"},{\"name\":\"d\",\"image\":\"j\"}]}}},\"status\":{\"readyReplicas\":1,"
	 "\"updatedReplicas\":2,\"availableReplicas\":1}}",
	 "[\"x\",\"1/3\",2,1,\"60s\",\"c,d\",\"i:1,j\",\"a=b\"]"},
	{&core_v1_services_resource, "{" META ",\"spec\":{\"type\":\"NodePort\",\"clusterIPs\":[\"10.0.0.1\"],\"ports\":[{\"port\":80,"
	 "\"nodePort\":30080,\"protocol\":\"TCP\"},{\"port\":53,\"protocol\":\"UDP\"}],\"selector\":{\"a\":\"b\",\"c\":\"d\"}}}",
	 "[\"x\",\"NodePort\",\"10.0.0.1\",\"\\u003cnone\\u003e\",\"80:30080/TCP,53/UDP\",\"60s\",\"a=b,c=d\"]"},
	{&core_v1_services_resource, "{" META ",\"spec\":{\"type\":\"LoadBalancer\"},\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"2\"},"
	 "{\"ip\":\"1\"}]}}}", "[\"x\",\"LoadBalancer\",\"\\u003cnone\\u003e\",\"1,2\",\"\\u003cnone\\u003e\",\"60s\",\"\\u003cnone\\u003e\"]"},
	{&core_v1_nodes_resource, "{\"metadata\":{\"name\":\"n\",\"labels\":{\"node-role.kubernetes.io/control-plane\":\"\"}},\"spec\":"
	 "{\"unschedulable\":true},\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}],\"addresses\":[{\"type\":"
	 "\"InternalIP\",\"address\":\"1.1.1.1\"}],\"nodeInfo\":{\"kubeletVersion\":\"v1.36.0\",\"kernelVersion\":\"6.1\",\"architecture\":"
	 "\"amd64\"}}}",
	 "[\"n\",\"Ready,SchedulingDisabled\",\"control-plane\",\"\\u003cunknown\\u003e\",\"v1.36.0\",\"1.1.1.1\",\"\\u003cnone\\u003e\",\"\\u003cunknown\\u003e\","
	 "\"6.1 (amd64)\",\"\\u003cunknown\\u003e\"]"},
	{&batch_v1_jobs_resource, "{" META ",\"spec\":{\"completions\":3,\"selector\":{\"matchLabels\":{\"j\":\"1\"}},\"template\":{\"spec\":"
	 "{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}},\"status\":{\"succeeded\":3,\"startTime\":\"2023-11-14T22:10:00Z\","
	 "\"completionTime\":\"2023-11-14T22:13:05Z\",\"conditions\":[{\"type\":\"Complete\",\"status\":\"True\"}]}}",
	 "[\"x\",\"Complete\",\"3/3\",\"3m5s\",\"60s\",\"c\",\"i\",\"j=1\"]"},
	{&batch_v1_cronjobs_resource, "{" META ",\"spec\":{\"schedule\":\"* * * * *\",\"suspend\":false}}",
	 "[\"x\",\"* * * * *\",\"\\u003cnone\\u003e\",\"False\",0,\"\\u003cnone\\u003e\",\"60s\",\"\",\"\",\"\\u003cnone\\u003e\"]"},
	{&core_v1_events_resource, "{\"metadata\":{\"name\":\"e\"},\"involvedObject\":{\"kind\":\"Pod\",\"name\":\"p\",\"fieldPath\":\"f\"},"
	 "\"reason\":\"R\",\"message\":\" m \\n\",\"source\":{\"component\":\"kubelet\",\"host\":\"n\"},\"firstTimestamp\":"
	 "\"2023-11-14T22:12:20Z\",\"lastTimestamp\":\"2023-11-14T22:13:19Z\",\"count\":4,\"type\":\"Normal\"}",
	 "[\"1s\",\"Normal\",\"R\",\"pod/p\",\"f\",\"kubelet, n\",\"m\",\"60s\",4,\"e\"]"},
	{&core_v1_persistentvolumeclaims_resource, "{" META ",\"spec\":{\"volumeName\":\"pv\",\"storageClassName\":\"fast\",\"volumeMode\":"
	 "\"Block\"},\"status\":{\"phase\":\"Bound\",\"accessModes\":[\"ReadWriteMany\",\"ReadWriteOnce\"],\"capacity\":{\"storage\":\"1Gi\"}}}",
	 "[\"x\",\"Bound\",\"pv\",\"1Gi\",\"RWO,RWX\",\"fast\",\"\\u003cunset\\u003e\",\"60s\",\"Block\"]"},
	{&core_v1_endpoints_resource, "{" META ",\"subsets\":[{\"addresses\":[{\"ip\":\"1\"},{\"ip\":\"2\"}],\"ports\":[{\"port\":1},{\"port\":2}]}]}",
	 "[\"x\",\"1:1,2:1,1:2 + 1 more...\",\"60s\"]"},
	{&autoscaling_v2_horizontalpodautoscalers_resource, "{" META ",\"spec\":{\"scaleTargetRef\":{\"kind\":\"Deployment\",\"name\":\"d\"},"
	 "\"maxReplicas\":5,\"metrics\":[{\"type\":\"Resource\",\"resource\":{\"name\":\"cpu\",\"target\":{\"type\":\"Utilization\","
	 "\"averageUtilization\":80}}}]},\"status\":{\"currentReplicas\":1,\"desiredReplicas\":1}}",
	 "[\"x\",\"Deployment/d\",\"cpu: \\u003cunknown\\u003e/80%\",\"\\u003cunset\\u003e\",5,1,\"60s\"]"},
	{&core_v1_configmaps_resource, "{" META ",\"data\":{\"a\":\"\",\"b\":\"\"},\"binaryData\":{\"c\":\"\"}}", "[\"x\",3,\"60s\"]"},
	{&core_v1_resourcequotas_resource, "{" META ",\"status\":{\"hard\":{\"cpu\":\"2\",\"limits.cpu\":\"4\",\"pods\":\"5\"},\"used\":{\"cpu\":\"1\"}}}",
	 "[\"x\",\"cpu: 1/2, pods: 0/5\",\"limits.cpu: 0/4\",\"60s\"]"},
	{&storage_v1_storageclasses_resource, "{\"metadata\":{\"name\":\"s\",\"annotations\":{\"storageclass.kubernetes.io/is-default-class\":"
	 "\"true\"}},\"provisioner\":\"p\",\"reclaimPolicy\":\"Delete\",\"volumeBindingMode\":\"Immediate\"}",
	 "[\"s (default)\",\"p\",\"Delete\",\"Immediate\",false,\"\\u003cunknown\\u003e\"]"},
	{&rbac_v1_clusterrolebindings_resource, "{" META ",\"roleRef\":{\"kind\":\"ClusterRole\",\"name\":\"r\"},\"subjects\":[{\"kind\":\"User\","
	 "\"name\":\"u\"},{\"kind\":\"ServiceAccount\",\"namespace\":\"n\",\"name\":\"s\"},{\"kind\":\"User\",\"name\":\"v\"}]}",
	 "[\"x\",\"ClusterRole/r\",\"60s\",\"u, v\",\"\",\"n/s\"]"},
	{&rbac_v1_clusterroles_resource, "{" META "}", "[\"x\",\"2023-11-14T22:12:20Z\"]"},
	{&policy_v1_poddisruptionbudgets_resource, "{" META ",\"spec\":{\"minAvailable\":\"50%\"},\"status\":{\"disruptionsAllowed\":1}}",
	 "[\"x\",\"50%\",\"N/A\",1,\"60s\"]"},
};

static void built_in(void **state)
{
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		arena_cleanup struct arena a = {0};
		buf_cleanup struct buf b = {0}, cells = {0};
		void *obj = arena_alloc(&a, rows[i].r->type->size);
		struct table_options o = {.now = now};
		struct jv table;

		assert_ok(json_decode(&a, rows[i].r->type, str_from(rows[i].obj), NULL, obj));
		table_begin(&b, rows[i].r, &o, NULL);
		table_row(&b, &a, rows[i].r, &o, obj, true);
		table_row(&b, &a, rows[i].r, &o, obj, false);
		table_end(&b, rows[i].r);
		assert_ok(jv_parse(&a, buf_view(&b), NULL, &table));
		assert_int_equal(jv_get(&table, STR("rows"))->n, 2);
		jv_encode(&cells, jv_path(&table, STR("rows[0].cells")));
		assert_string_equal(buf_z(&cells), rows[i].cells);
		assert_int_equal(jv_path(&table, STR("rows[0].cells"))->n, jv_get(&table, STR("columnDefinitions"))->n);
		assert_str(jv_str(jv_path(&table, STR("rows[1].object.kind"))), "PartialObjectMetadata");
	}
}

/* Every resource prints its empty object without a value out of nowhere. */
static void all_resources(void **state)
{
	for (size_t i = 0; i < n_api_resources; i++) {
		arena_cleanup struct arena a = {0};
		buf_cleanup struct buf b = {0};
		const struct api_resource *r = api_resources[i];
		struct table_options o = {.now = now};
		struct jv table;

		if (r->type->metadata < 0)
			continue;
		table_begin(&b, r, &o, NULL);
		table_row(&b, &a, r, &o, arena_alloc(&a, r->type->size), true);
		table_end(&b, r);
		assert_ok(jv_parse(&a, buf_view(&b), NULL, &table));
		size_t defined = jv_get(&table, STR("columnDefinitions"))->n;

		for (size_t k = 0; k < r->n_columns; k++)
			defined += r->columns[k].bare;
		assert_int_equal(jv_path(&table, STR("rows[0].cells"))->n, defined);
		for (size_t k = 0; k < r->n_columns; k++) {
			const struct schema_field *f = NULL;
			struct str path = r->columns[k].path;
			const struct schema_type *t = r->type;

			while (path.n) { /* the path exists in the tables */
				f = schema_field(t, str_cut(&path, '.'));
				if (!f)
					fail_msg("%s: column %s names no field", t->name, r->columns[k].name);
				t = f->type;
			}
		}
	}
}

static void custom(void **state)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0}, cells = {0};
#define COL(n, t, p)                                                                                                   \
	{                                                                                                              \
		.name = STR_INIT(n), .type = STR_INIT(t), .path = json_path_new(&a, STR(p))                            \
	}
	const struct table_column cols[] = {
		COL("S", "string", ".spec.size"),
		COL("I", "integer", ".spec.size"),
		COL("N", "number", ".spec.f"),
		COL("B", "boolean", ".spec.on"),
		COL("C", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
		COL("Q", "string", ".metadata.labels['a.b/c']"),
		COL("E", "string", ".metadata.labels.a\\.b/c"),
		COL("L", "string", ".spec.list[-1]"),
		COL("W", "string", ".spec.list[*]"),
		COL("O", "string", ".spec.list"),
		COL("Q2", "string", ".metadata.labels['a\\.b/c']"),
		COL("Sl", "string", ".spec.list[1:]"),
		COL("Out", "string", ".spec.list[2]"),
		COL("R", "integer", "..size"),
		COL("U", "integer", ".spec['nope','size']"),
		COL("Ge", "string", ".status.conditions[?(@.status>='Y')].type"),
		COL("Ki", "string", ".status.conditions[?(@.status==1)].type"),
		COL("Nul", "string", ".spec.nul"),
		COL("Big", "string", ".spec.big"),
		COL("M", "string", ".nope.x"),
		COL("D", "date", ".metadata.creationTimestamp"),
		COL("X", "integer", ".spec.on"),
	};
	struct table_options o = {.now = now, .columns = cols, .n_columns = sizeof cols / sizeof *cols, .object = TABLE_OBJECT_NONE};
	struct jv obj, table;

	assert_ok(jv_parse(&a,
			   STR("{\"metadata\":{\"name\":\"x\",\"creationTimestamp\":\"2023-11-14T22:12:20Z\","
			       "\"labels\":{\"a.b/c\":\"l\"}},"
			       "\"spec\":{\"size\":3,\"f\":1.5,\"nul\":null,\"big\":12345678.5,\"on\":true,\"list\":["
			       "\"p\",\"q\"]},\"status\":{\"conditions\":[{\"type\":"
			       "\"Other\",\"status\":\"No\"},{\"type\":\"Ready\",\"status\":\"Yes\"}]}}"),
			   NULL, &obj));
	table_begin(&b, NULL, &o, &(struct meta_v1_list_meta){.resource_version = STR_INIT("5")});
	table_row_tree(&b, &a, &o, &obj, true);
	table_end(&b, NULL);
	assert_ok(jv_parse(&a, buf_view(&b), NULL, &table));
	jv_encode(&cells, jv_path(&table, STR("rows[0].cells")));
	assert_string_equal(buf_z(&cells),
			    "[\"x\",\"3\",3,1.5,true,\"Yes\",null,\"l\",\"q\",\"p\",\"[\\\"p\\\",\\\"q\\\"]\","
			    "\"l\",\"q\",null,3,3,\"Ready\",null,\"\\u003cno value\\u003e\",\"1.23456785e+07\",null,\"60s\",null]");
	assert_str(jv_str(jv_path(&table, STR("metadata.resourceVersion"))), "5");
	assert_true(jv_is(jv_path(&table, STR("rows[0].object")), JV_NULL));
}

static void durations(void **state)
{
	static const struct {
		int64_t s;
		const char *text;
	} cases[] = {{-5, "<invalid>"}, {-1, "0s"}, {0, "0s"}, {119, "119s"}, {120, "2m"}, {185, "3m5s"}, {600, "10m"}, {10799, "179m"},
		     {10800, "3h"}, {11100, "3h5m"}, {28800, "8h"}, {172799, "47h"}, {172800, "2d"}, {176400, "2d1h"}, {691200, "8d"},
		     {63072000, "2y"}, {63158400, "2y1d"}, {252288000, "8y"}};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};

		assert_str(human_duration(&a, cases[i].s), cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(built_in), cmocka_unit_test(all_resources), cmocka_unit_test(custom),
					   cmocka_unit_test(durations)};

	return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
