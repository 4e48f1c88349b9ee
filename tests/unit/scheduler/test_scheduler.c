#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop/fiber.h"
#include "scheduler/framework.h"
#include "scheduler/queue.h"
#include "schema/codec.h"

/* A cluster in memory: nodes and pods from JSON. */
struct world {
	struct arena a;
	struct cache cache;
	struct volume_lister volumes;
	struct scheduler_config config;
};

static struct core_v1_persistent_volume_claim *no_claim(void *ctx, struct arena *a, struct str ns, struct str name)
{
	return NULL;
}

static void setup(struct world *w)
{
	*w = (struct world){.volumes = {.claim = no_claim}};
	scheduler_config_default(&w->config);
}

static void add_node(struct world *w, const char *json)
{
	struct arena a = {0};
	struct core_v1_node *n = arena_new(&a, struct core_v1_node);

	assert_ok(json_decode(&a, &core_v1_node_type, arena_str(&a, str_from(json)), NULL, n));
	cache_set_node(&w->cache, n, &a);
}

static void nodes(struct world *w, int n, const char *cpu)
{
	char json[512];

	for (int i = 0; i < n; i++) {
		snprintf(json, sizeof json, "{\"metadata\":{\"name\":\"n%d\",\"labels\":{\"kubernetes.io/hostname\":\"n%d\",\"zone\":\"z%d\"}},"
			 "\"status\":{\"allocatable\":{\"cpu\":\"%s\",\"memory\":\"1Gi\",\"pods\":\"10\"}}}", i, i, i % 2, cpu);
		add_node(w, json);
	}
}

static struct core_v1_pod *pod(struct world *w, const char *json)
{
	struct core_v1_pod *p = arena_new(&w->a, struct core_v1_pod);

	assert_ok(json_decode(&w->a, &core_v1_pod_type, arena_str(&w->a, str_from(json)), NULL, p));
	return p;
}

static void run_pod(struct world *w, const char *json, const char *node)
{
	struct core_v1_pod *p = pod(w, json);

	p->spec.node_name = str_from(node);
	cache_set_pod(&w->cache, pod_info_new(p));
}

/* Schedules; returns the node's name, or the message. */
static struct str place(struct world *w, const char *json, struct pod_info **victim)
{
	struct core_v1_pod *p = pod(w, json);
	struct cycle c = {.a = &w->a, .cache = &w->cache, .profile = &w->config.profiles[0], .pod = p, .info = pod_info_new(p), .volumes = &w->volumes};
	struct node_info *n;
	struct diagnosis why;
	struct str answer;

	assert_ok(schedule_pod(&c, &n, &why));
	if (n) {
		answer = n->name;
	} else {
		struct pod_info **v = NULL;
		size_t k = 0;
		struct str post = find_victims(&c, &why, &n, &v, &k);

		if (victim)
			*victim = k ? v[0] : NULL;
		answer = arena_printf(&w->a, "%.*s%s%.*s", STR_ARG(why.message), post.n ? " " : "", STR_ARG(post));
	}
	pod_info_free(c.info);
	return answer;
}

static void free_world(struct world *w)
{
	while (w->cache.pods.n) {
		size_t it = 0;
		struct str key;

		map_next(&w->cache.pods, &it, &key, NULL);
		cache_delete_pod(&w->cache, arena_str(&w->a, key));
	}
	while (w->cache.n_nodes)
		cache_delete_node(&w->cache, w->cache.nodes[0]->name);
	map_free(&w->cache.by_name);
	map_free(&w->cache.pods);
	map_free(&w->cache.images);
	map_free(&w->cache.domains);
	free(w->cache.nodes);
	free(w->cache.free_domains);
	for (int k = 0; k < TOPOLOGY_KEYS_MAX; k++)
		free(w->cache.columns[k].at);
	arena_free(&w->a);
}

#define POD(name, spec) "{\"metadata\":{\"namespace\":\"d\",\"name\":\"" name "\",\"labels\":{\"app\":\"x\"}},\"spec\":{" spec "}}"
#define CPU(q) "\"containers\":[{\"name\":\"c\",\"resources\":{\"requests\":{\"cpu\":\"" q "\"}}}]"

static void resources_fit(void **state)
{
	struct world w;

	setup(&w);
	nodes(&w, 2, "1");
	run_pod(&w, POD("a", CPU("800m")), "n0");
	assert_str(place(&w, POD("b", CPU("500m")), NULL), "n1");
	run_pod(&w, POD("b", CPU("500m")), "n1");
	assert_str(place(&w, POD("c", CPU("600m")), NULL),
		   "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: "
		   "2 No preemption victims found for incoming pod.");
	/* More than any node has: eviction cannot help. */
	assert_str(place(&w, POD("d", CPU("3")), NULL),
		   "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: "
		   "2 Preemption is not helpful for scheduling.");
	free_world(&w);
}

static void init_containers_count(void **state)
{
	struct world w;

	setup(&w);
	struct core_v1_pod *p = pod(&w, POD("a", CPU("300m") ",\"initContainers\":["
		"{\"name\":\"s\",\"restartPolicy\":\"Always\",\"resources\":{\"requests\":{\"cpu\":\"200m\"}}},"
		"{\"name\":\"i\",\"resources\":{\"requests\":{\"cpu\":\"400m\",\"memory\":\"1Mi\"}}}]"));
	struct resources r = pod_requests(p);

	/* Containers + sidecar = 500m; init beside the sidecar = 600m. */
	assert_int_equal(r.milli_cpu, 600);
	assert_int_equal(r.memory, 1 << 20);
	free_world(&w);
}

static void taints_and_unschedulable(void **state)
{
	struct world w;

	setup(&w);
	add_node(&w, "{\"metadata\":{\"name\":\"t\"},\"spec\":{\"taints\":[{\"key\":\"k\",\"value\":\"v\",\"effect\":\"NoSchedule\"}]},"
		     "\"status\":{\"allocatable\":{\"cpu\":\"1\",\"memory\":\"1Gi\",\"pods\":\"10\"}}}");
	add_node(&w, "{\"metadata\":{\"name\":\"u\"},\"spec\":{\"unschedulable\":true},"
		     "\"status\":{\"allocatable\":{\"cpu\":\"1\",\"memory\":\"1Gi\",\"pods\":\"10\"}}}");
	assert_str(place(&w, POD("a", CPU("1m")), NULL),
		   "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. "
		   "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.");
	assert_str(place(&w, POD("b", CPU("1m") ",\"tolerations\":[{\"key\":\"k\",\"operator\":\"Exists\"}]"), NULL), "t");
	assert_str(place(&w, POD("c", CPU("1m") ",\"tolerations\":[{\"operator\":\"Exists\"}],\"nodeName\":\"\""), NULL).n == 1 ? STR("one") : STR("none"), "one");
	free_world(&w);
}

static void node_affinity(void **state)
{
	struct world w;

	setup(&w);
	nodes(&w, 4, "1");
	assert_str(place(&w, POD("a", CPU("1m") ",\"nodeSelector\":{\"kubernetes.io/hostname\":\"n2\"}"), NULL), "n2");
	assert_str(place(&w, POD("b", CPU("1m") ",\"affinity\":{\"nodeAffinity\":{\"requiredDuringSchedulingIgnoredDuringExecution\":"
		"{\"nodeSelectorTerms\":[{\"matchFields\":[{\"key\":\"metadata.name\",\"operator\":\"In\",\"values\":[\"n3\"]}]}]}}}"), NULL), "n3");
	assert_str(place(&w, POD("c", CPU("1m") ",\"affinity\":{\"nodeAffinity\":{\"preferredDuringSchedulingIgnoredDuringExecution\":"
		"[{\"weight\":100,\"preference\":{\"matchExpressions\":[{\"key\":\"kubernetes.io/hostname\",\"operator\":\"In\",\"values\":[\"n1\"]}]}}]}}"), NULL), "n1");
	assert_str(place(&w, POD("d", CPU("1m") ",\"nodeSelector\":{\"x\":\"y\"}"), NULL),
		   "0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector. "
		   "preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.");
	free_world(&w);
}

static void host_ports(void **state)
{
	struct world w;

	setup(&w);
	nodes(&w, 1, "1");
#define PORT "\"containers\":[{\"name\":\"c\",\"ports\":[{\"containerPort\":80,\"hostPort\":80,\"protocol\":\"TCP\"}]}]"
	run_pod(&w, POD("a", PORT), "n0");
	assert_true(str_contains(place(&w, POD("b", PORT), NULL), STR("1 node(s) didn't have free ports for the requested pod ports")));
	free_world(&w);
}

static void topology_spread(void **state)
{
	struct world w;

	setup(&w);
	nodes(&w, 2, "1");
#define SPREAD CPU("1m") ",\"topologySpreadConstraints\":[{\"maxSkew\":1,\"topologyKey\":\"zone\",\"whenUnsatisfiable\":\"DoNotSchedule\"," \
	"\"labelSelector\":{\"matchLabels\":{\"app\":\"x\"}}}]"
	run_pod(&w, POD("a", SPREAD), "n0");
	assert_str(place(&w, POD("b", SPREAD), NULL), "n1");
	run_pod(&w, POD("b", SPREAD), "n0");
	cache_delete_node(&w.cache, STR("n1"));
	/* One domain is left: its own minimum, so anything goes. */
	assert_str(place(&w, POD("c", SPREAD), NULL), "n0");
	free_world(&w);
}

static void pod_affinity(void **state)
{
	struct world w;

	setup(&w);
	nodes(&w, 2, "1");
#define TERM "\"requiredDuringSchedulingIgnoredDuringExecution\":[{\"topologyKey\":\"kubernetes.io/hostname\"," \
	"\"labelSelector\":{\"matchLabels\":{\"app\":\"x\"}}}]"
#define ANTI CPU("1m") ",\"affinity\":{\"podAntiAffinity\":{" TERM "}}"
#define NEAR CPU("1m") ",\"affinity\":{\"podAffinity\":{" TERM "}}"
	run_pod(&w, POD("a", ANTI), "n0");
	assert_str(place(&w, POD("b", ANTI), NULL), "n1");
	/* The running pod's anti-affinity holds against pods without any. */
	assert_str(place(&w, POD("c", CPU("1m")), NULL), "n1");
	run_pod(&w, POD("d", CPU("1m")), "n1");
	assert_true(str_contains(place(&w, POD("e", ANTI), NULL), STR("anti-affinity rules")));
	cache_delete_pod(&w.cache, STR("d/a"));
	assert_str(place(&w, POD("f", NEAR), NULL), "n1");
	free_world(&w);
}

static void first_of_group(void **state)
{
	struct world w;

	setup(&w);
	nodes(&w, 1, "1");
	/* Nothing matches yet, but the pod itself would: it may start the group. */
	assert_str(place(&w, POD("a", NEAR), NULL), "n0");
	free_world(&w);
}

static void preempts_least(void **state)
{
	struct world w;
	struct pod_info *victim = NULL;

	setup(&w);
	nodes(&w, 2, "1");
	run_pod(&w, POD("low", CPU("900m") ",\"priority\":5"), "n0");
	run_pod(&w, POD("lower", CPU("900m") ",\"priority\":1"), "n1");
	place(&w, POD("high", CPU("500m") ",\"priority\":10"), &victim);
	assert_non_null(victim);
	assert_str(victim->name, "lower");
	/* The cache is as it was. */
	assert_int_equal(cache_node(&w.cache, STR("n1"))->requested.milli_cpu, 900);
	assert_int_equal(cache_node(&w.cache, STR("n1"))->pods.n, 1);
	place(&w, POD("none", CPU("500m") ",\"priority\":10,\"preemptionPolicy\":\"Never\""), &victim);
	assert_null(victim);
	free_world(&w);
}

static void queue_order(void *arg)
{
	struct queue *q = queue_new(1000, 10000);
	struct arena a = {0};
	struct str key;
	int attempts;
	size_t active, backoff, unschedulable, gated;

	queue_add(q, STR("d/low"), 0, false);
	queue_add(q, STR("d/high"), 10, false);
	queue_add(q, STR("d/low2"), 0, false);
	assert_ok(queue_pop(q, &a, &key, &attempts));
	assert_str(key, "d/high");
	queue_requeue(q, key, 1u << 6, false); /* NodeResourcesFit */
	queue_counts(q, &active, &backoff, &unschedulable, &gated);
	assert_int_equal(unschedulable, 1);
	queue_event(q, EVENT_POD_ADD); /* does not help */
	queue_counts(q, &active, &backoff, &unschedulable, &gated);
	assert_int_equal(unschedulable, 1);
	queue_event(q, EVENT_POD_DELETE); /* helps: through its backoff */
	queue_counts(q, &active, &backoff, &unschedulable, &gated);
	assert_int_equal(backoff, 1);
	assert_ok(queue_pop(q, &a, &key, &attempts));
	assert_str(key, "d/low");
	/* An event during the attempt is not lost. */
	queue_event(q, EVENT_NODE_ADD);
	queue_requeue(q, key, 1u << 6, false);
	queue_counts(q, &active, &backoff, &unschedulable, &gated);
	assert_int_equal(backoff, 2);
	queue_delete(q, STR("d/low2"));
	queue_gate(q, STR("d/gated"), 0);
	queue_counts(q, &active, &backoff, &unschedulable, &gated);
	assert_int_equal(active, 0);
	assert_int_equal(gated, 1);
	assert_ok(queue_pop(q, &a, &key, &attempts)); /* waits for the backoff */
	assert_int_equal(attempts, 2);
	arena_free(&a);
	queue_free(q);
}

static void queue_test(void **state)
{
	assert_ok(loop_run(queue_order, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resources_fit), cmocka_unit_test(init_containers_count), cmocka_unit_test(taints_and_unschedulable),
		cmocka_unit_test(node_affinity), cmocka_unit_test(host_ports), cmocka_unit_test(topology_spread),
		cmocka_unit_test(pod_affinity), cmocka_unit_test(first_of_group), cmocka_unit_test(preempts_least),
		cmocka_unit_test(queue_test),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
