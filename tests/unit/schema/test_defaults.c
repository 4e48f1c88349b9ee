#include "../test.h"

#include "schema/defaults.h"
#include "schema/jv.h"

/* After defaulting, each "path=json" holds; defaulting twice changes nothing. */
struct want {
	const struct schema_type *type;
	const char *in;
	const char *want[24];
};

static const struct want cases[] = {
	{&core_v1_pod_type,
	 "{\"spec\":{\"containers\":[{\"name\":\"a\",\"image\":\"x\",\"ports\":[{\"containerPort\":80}],"
	 "\"livenessProbe\":{\"httpGet\":{\"port\":1}},\"resources\":{\"limits\":{\"cpu\":\"1\",\"memory\":\"1Gi\"},"
	 "\"requests\":{\"cpu\":\"500u\"}}},{\"name\":\"b\",\"image\":\"r.io:5000/x:1.2\"},"
	 "{\"name\":\"c\",\"image\":\"x@sha256:00\"},{\"name\":\"d\",\"image\":\"r.io:5000/x\"}],"
	 "\"volumes\":[{\"name\":\"e\"},{\"name\":\"s\",\"secret\":{}},{\"name\":\"h\",\"hostPath\":{\"path\":\"/\"}},"
	 "{\"name\":\"p\",\"projected\":{\"sources\":[{\"serviceAccountToken\":{\"path\":\"t\"}}]}}]}}",
	 {"spec.dnsPolicy=\"ClusterFirst\"", "spec.restartPolicy=\"Always\"", "spec.securityContext={}",
	  "spec.terminationGracePeriodSeconds=30", "spec.schedulerName=\"default-scheduler\"", "spec.enableServiceLinks=true",
	  "spec.containers[0].imagePullPolicy=\"Always\"", "spec.containers[1].imagePullPolicy=\"IfNotPresent\"",
	  "spec.containers[2].imagePullPolicy=\"IfNotPresent\"", "spec.containers[3].imagePullPolicy=\"Always\"",
	  "spec.containers[0].terminationMessagePath=\"/dev/termination-log\"", "spec.containers[0].ports[0].protocol=\"TCP\"",
	  "spec.containers[0].livenessProbe.httpGet={\"path\":\"/\",\"port\":1,\"scheme\":\"HTTP\"}",
	  "spec.containers[0].livenessProbe.failureThreshold=3",
	  "spec.containers[0].resources.requests={\"cpu\":\"1m\",\"memory\":\"1Gi\"}", "spec.volumes[0].emptyDir={}",
	  "spec.volumes[1].secret.defaultMode=420", "spec.volumes[2].hostPath.type=\"\"",
	  "spec.volumes[3].projected.sources[0].serviceAccountToken.expirationSeconds=3600"}},
	{&core_v1_pod_type,
	 "{\"spec\":{\"hostNetwork\":true,\"resources\":{\"limits\":{\"cpu\":\"4\",\"memory\":\"1Gi\"}},"
	 "\"containers\":[{\"name\":\"a\",\"ports\":[{\"containerPort\":80}],\"resources\":{\"requests\":{\"cpu\":\"1\"}}},"
	 "{\"name\":\"b\",\"resources\":{\"requests\":{\"cpu\":\"500m\"}}}],"
	 "\"ephemeralContainers\":[{\"name\":\"e\",\"image\":\"x:1\"}]}}",
	 {"spec.containers[0].ports[0].hostPort=80", "spec.resources.requests={\"cpu\":\"1500m\",\"memory\":\"1Gi\"}",
	  "spec.ephemeralContainers[0].imagePullPolicy=\"IfNotPresent\"",
	  "spec.ephemeralContainers[0].terminationMessagePolicy=\"File\""}},
	{&apps_v1_deployment_type, "{\"spec\":{\"template\":{\"spec\":{}}}}",
	 {"spec.replicas=1", "spec.strategy={\"rollingUpdate\":{\"maxSurge\":\"25%\",\"maxUnavailable\":\"25%\"},\"type\":\"RollingUpdate\"}",
	  "spec.revisionHistoryLimit=10", "spec.progressDeadlineSeconds=600", "spec.template.spec.dnsPolicy=\"ClusterFirst\"",
	  "spec.template.spec.enableServiceLinks"}},
	{&apps_v1_deployment_type, "{\"spec\":{\"replicas\":0,\"strategy\":{\"type\":\"Recreate\"}}}",
	 {"spec.replicas=0", "spec.strategy={\"type\":\"Recreate\"}"}},
	{&apps_v1_daemon_set_type, "{}",
	 {"spec.updateStrategy={\"rollingUpdate\":{\"maxSurge\":0,\"maxUnavailable\":1},\"type\":\"RollingUpdate\"}"}},
	{&apps_v1_stateful_set_type, "{\"spec\":{\"volumeClaimTemplates\":[{}]}}",
	 {"spec.podManagementPolicy=\"OrderedReady\"", "spec.updateStrategy={\"rollingUpdate\":{\"partition\":0},\"type\":\"RollingUpdate\"}",
	  "spec.persistentVolumeClaimRetentionPolicy={\"whenDeleted\":\"Retain\",\"whenScaled\":\"Retain\"}",
	  "spec.volumeClaimTemplates[0].spec.volumeMode=\"Filesystem\"", "spec.volumeClaimTemplates[0].status.phase=\"Pending\""}},
	{&apps_v1_stateful_set_type, "{\"spec\":{\"updateStrategy\":{\"type\":\"RollingUpdate\"}}}",
	 {"spec.updateStrategy={\"type\":\"RollingUpdate\"}"}},
	{&batch_v1_job_type, "{\"spec\":{\"template\":{\"metadata\":{\"labels\":{\"a\":\"b\"}}},\"podFailurePolicy\":{\"rules\":[]}}}",
	 {"spec.completions=1", "spec.parallelism=1", "spec.backoffLimit=6", "spec.completionMode=\"NonIndexed\"", "spec.suspend=false",
	  "spec.podReplacementPolicy=\"Failed\"", "metadata.labels={\"a\":\"b\"}", "spec.manualSelector=false"}},
	{&batch_v1_job_type, "{\"spec\":{\"parallelism\":3,\"backoffLimitPerIndex\":1}}",
	 {"spec.completions", "spec.parallelism=3", "spec.backoffLimit=2147483647"}},
	{&batch_v1_cron_job_type, "{}",
	 {"spec.concurrencyPolicy=\"Allow\"", "spec.suspend=false", "spec.successfulJobsHistoryLimit=3",
	  "spec.failedJobsHistoryLimit=1", "spec.jobTemplate.spec.completions"}},
	{&core_v1_service_type, "{\"spec\":{\"ports\":[{\"port\":80},{\"port\":1,\"targetPort\":\"x\",\"protocol\":\"UDP\"}]}}",
	 {"spec.type=\"ClusterIP\"", "spec.sessionAffinity=\"None\"", "spec.internalTrafficPolicy=\"Cluster\"",
	  "spec.externalTrafficPolicy", "spec.ports[0]={\"port\":80,\"protocol\":\"TCP\",\"targetPort\":80}",
	  "spec.ports[1]={\"port\":1,\"protocol\":\"UDP\",\"targetPort\":\"x\"}"}},
	{&core_v1_service_type, "{\"spec\":{\"type\":\"LoadBalancer\",\"sessionAffinity\":\"ClientIP\"},"
				"\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"1.2.3.4\"},{\"hostname\":\"x\"}]}}}",
	 {"spec.externalTrafficPolicy=\"Cluster\"", "spec.allocateLoadBalancerNodePorts=true",
	  "spec.sessionAffinityConfig.clientIP.timeoutSeconds=10800", "status.loadBalancer.ingress[0].ipMode=\"VIP\"",
	  "status.loadBalancer.ingress[1].ipMode"}},
	{&core_v1_service_type, "{\"spec\":{\"type\":\"ExternalName\"}}", {"spec.internalTrafficPolicy", "spec.externalTrafficPolicy"}},
	{&core_v1_secret_type, "{}", {"type=\"Opaque\""}},
	{&core_v1_namespace_type, "{\"metadata\":{\"name\":\"x\"}}",
	 {"metadata.labels={\"kubernetes.io/metadata.name\":\"x\"}", "status.phase=\"Active\""}},
	{&core_v1_persistent_volume_type, "{\"spec\":{\"iscsi\":{\"targetPortal\":\"a\",\"iqn\":\"b\",\"lun\":0}}}",
	 {"spec.persistentVolumeReclaimPolicy=\"Retain\"", "spec.volumeMode=\"Filesystem\"", "status.phase=\"Pending\"",
	  "spec.iscsi.iscsiInterface=\"default\""}},
	{&core_v1_node_type, "{\"status\":{\"capacity\":{\"cpu\":\"4\"}}}", {"status.allocatable={\"cpu\":\"4\"}"}},
	{&core_v1_limit_range_type, "{\"spec\":{\"limits\":[{\"type\":\"Container\",\"max\":{\"cpu\":\"2\"},\"min\":{\"memory\":\"1Mi\"}},"
				    "{\"type\":\"Pod\",\"max\":{\"cpu\":\"2\"}}]}}",
	 {"spec.limits[0].default={\"cpu\":\"2\"}", "spec.limits[0].defaultRequest={\"cpu\":\"2\",\"memory\":\"1Mi\"}",
	  "spec.limits[1].default"}},
	{&core_v1_replication_controller_type, "{\"spec\":{\"template\":{\"metadata\":{\"labels\":{\"a\":\"b\"}}}}}",
	 {"spec.replicas=1", "spec.selector={\"a\":\"b\"}", "metadata.labels={\"a\":\"b\"}"}},
	{&core_v1_endpoints_type, "{\"subsets\":[{\"ports\":[{\"port\":1}]}]}", {"subsets[0].ports[0].protocol=\"TCP\""}},
	{&discovery_v1_endpoint_slice_type, "{\"ports\":[{\"port\":1}]}", {"ports[0]={\"name\":\"\",\"port\":1,\"protocol\":\"TCP\"}"}},
	{&autoscaling_v2_horizontal_pod_autoscaler_type, "{\"spec\":{\"behavior\":{\"scaleDown\":{\"stabilizationWindowSeconds\":5}}}}",
	 {"spec.minReplicas=1", "spec.metrics[0].resource.target={\"averageUtilization\":80,\"type\":\"Utilization\"}",
	  "spec.behavior.scaleDown={\"policies\":[{\"periodSeconds\":15,\"type\":\"Percent\",\"value\":100}],\"selectPolicy\":\"Max\","
	  "\"stabilizationWindowSeconds\":5}",
	  "spec.behavior.scaleUp.policies[0].value=4", "spec.behavior.scaleUp.stabilizationWindowSeconds=0"}},
	{&networking_v1_network_policy_type, "{\"spec\":{\"egress\":[{\"ports\":[{\"port\":53}]}]}}",
	 {"spec.policyTypes=[\"Ingress\",\"Egress\"]", "spec.egress[0].ports[0].protocol=\"TCP\""}},
	{&rbac_v1_role_binding_type, "{\"subjects\":[{\"kind\":\"User\",\"name\":\"u\"},{\"kind\":\"ServiceAccount\",\"name\":\"s\"}]}",
	 {"roleRef.apiGroup=\"rbac.authorization.k8s.io\"", "subjects[0].apiGroup=\"rbac.authorization.k8s.io\"", "subjects[1].apiGroup"}},
	{&storage_v1_storage_class_type, "{}", {"reclaimPolicy=\"Delete\"", "volumeBindingMode=\"Immediate\""}},
	{&storage_v1_csi_driver_type, "{}",
	 {"spec.attachRequired=true", "spec.fsGroupPolicy=\"ReadWriteOnceWithFSType\"", "spec.volumeLifecycleModes=[\"Persistent\"]",
	  "spec.seLinuxMount=false"}},
	{&scheduling_v1_priority_class_type, "{}", {"preemptionPolicy=\"PreemptLowerPriority\""}},
	{&admissionregistration_v1_mutating_webhook_configuration_type,
	 "{\"webhooks\":[{\"name\":\"x\",\"clientConfig\":{\"service\":{}},\"rules\":[{}]}]}",
	 {"webhooks[0].failurePolicy=\"Fail\"", "webhooks[0].reinvocationPolicy=\"Never\"", "webhooks[0].namespaceSelector={}",
	  "webhooks[0].rules[0].scope=\"*\"", "webhooks[0].clientConfig.service.port=443", "webhooks[0].timeoutSeconds=10"}},
	{&apiextensions_v1_custom_resource_definition_type,
	 "{\"spec\":{\"names\":{\"kind\":\"FooBar\"},\"versions\":[{\"name\":\"v1\"},{\"name\":\"v2\",\"storage\":true}]}}",
	 {"spec.names.singular=\"foobar\"", "spec.names.listKind=\"FooBarList\"", "spec.conversion={\"strategy\":\"None\"}",
	  "status.storedVersions=[\"v2\"]"}},
	{&flowcontrol_v1_priority_level_configuration_type, "{\"spec\":{\"limited\":{\"limitResponse\":{\"queuing\":{}}}}}",
	 {"spec.limited.nominalConcurrencyShares=30", "spec.limited.limitResponse.queuing={\"handSize\":8,\"queueLengthLimit\":50,\"queues\":64}"}},
	{&resource_v1_resource_claim_type, "{\"spec\":{\"devices\":{\"requests\":[{\"name\":\"a\",\"exactly\":{}}]}}}",
	 {"spec.devices.requests[0].exactly.allocationMode=\"ExactCount\"", "spec.devices.requests[0].exactly.count=1"}},
	/* lists too */
	{&core_v1_secret_list_type, "{\"items\":[{}]}", {"items[0].type=\"Opaque\""}},
};

static void defaults(void **state)
{
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct want *c = &cases[i];
		arena_cleanup struct arena a = {0};
		void *obj = arena_alloc(&a, c->type->size);
		struct jv v, again;

		assert_ok(json_decode(&a, c->type, str_from(c->in), NULL, obj));
		object_default(&a, c->type, obj);
		jv_from_object(&a, c->type, obj, &v);
		for (const char *const *w = c->want; *w; w++) {
			struct str rest = str_from(*w), path = str_cut(&rest, '=');
			const struct jv *got = jv_path(&v, path);
			buf_cleanup struct buf b = {0};

			if (got)
				jv_encode_sorted(&b, got);
			if (!str_eq(buf_view(&b), rest))
				fail_msg("%s: %s: got %s", c->in, *w, buf_z(&b));
		}
		object_default(&a, c->type, obj);
		jv_from_object(&a, c->type, obj, &again);
		assert_true(jv_equal(&v, &again));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(defaults)};

	return cmocka_run_group_tests_name("defaults", tests, NULL, NULL);
}
