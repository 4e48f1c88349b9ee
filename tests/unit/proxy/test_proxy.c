#include "../test.h"

#include <nftables/libnftables.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proxy/model.h"
#include "schema/codec.h"

struct world {
	struct arena a;
	struct ruleset rules;
	struct model m;
};

static void setup(struct world *w)
{
	*w = (struct world){0};
	w->m = (struct model){.a = &w->a, .node = STR("n1"), .cluster_cidr = true, .rules = &w->rules};
}

static void teardown(struct world *w)
{
	ruleset_free(&w->rules);
	model_free_udp(&w->m);
	arena_free(&w->a);
}

static void add(struct world *w, const char *service, const char *slice)
{
	struct core_v1_service *s = arena_new(&w->a, struct core_v1_service);
	struct discovery_v1_endpoint_slice *es = arena_new(&w->a, struct discovery_v1_endpoint_slice);

	assert_ok(json_decode(&w->a, &core_v1_service_type, str_from(service), NULL, s));
	if (slice)
		assert_ok(json_decode(&w->a, &discovery_v1_endpoint_slice_type, str_from(slice), NULL, es));
	model_add_service(&w->m, s, &es, slice ? 1 : 0);
}

#define SERVICE(spec) "{\"metadata\":{\"namespace\":\"d\",\"name\":\"s\"},\"spec\":{\"clusterIP\":\"10.96.0.9\"," \
	"\"ports\":[{\"port\":80,\"protocol\":\"TCP\",\"nodePort\":30080}]" spec "}}"
#define SLICE(endpoints) "{\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"\",\"port\":8080,\"protocol\":\"TCP\"}],\"endpoints\":[" endpoints "]}"
#define READY(ip, node) "{\"addresses\":[\"" ip "\"],\"nodeName\":\"" node "\",\"conditions\":{\"ready\":true}}"
#define ENDING(ip, node) "{\"addresses\":[\"" ip "\"],\"nodeName\":\"" node "\",\"conditions\":{\"ready\":false,\"serving\":true,\"terminating\":true}}"

/* The only chain whose name begins with prefix. */
static const char *chain(struct world *w, const char *prefix)
{
	struct str key;
	void *v;

	for (size_t it = 0; map_next(&w->rules.chains, &it, &key, &v);)
		if (str_has_prefix(key, str_from(prefix)))
			return v;
	return NULL;
}

static const char *element(struct world *w, const char *key)
{
	return map_get(&w->rules.elements, str_from(key));
}

static void balances(void **state)
{
	struct world w;

	setup(&w);
	add(&w, SERVICE(""), SLICE(READY("10.244.0.1", "n1") "," READY("10.244.1.1", "n2")));
	assert_string_equal(chain(&w, "cluster-"), "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.0.1 . 8080, 1 : 10.244.1.1 . 8080 }");
	assert_non_null(strstr(element(&w, "service-ips 10.96.0.9 . tcp . 80"), "goto clusterip-"));
	assert_non_null(strstr(element(&w, "service-nodeports tcp . 30080"), "goto external-"));
	assert_non_null(element(&w, "hairpin 10.244.0.1 . 10.244.0.1"));
	teardown(&w);
}

static void refuses_without_endpoints(void **state)
{
	struct world w;

	setup(&w);
	add(&w, SERVICE(""), NULL);
	assert_string_equal(element(&w, "no-endpoint-services 10.96.0.9 . tcp . 80"), "goto reject-chain");
	assert_string_equal(element(&w, "no-endpoint-nodeports tcp . 30080"), "goto reject-chain");
	teardown(&w);
}

static void terminating_serve_last(void **state)
{
	struct world w;

	setup(&w);
	add(&w, SERVICE(""), SLICE(ENDING("10.244.0.1", "n1") "," READY("10.244.0.2", "n1")));
	assert_string_equal(chain(&w, "cluster-"), "meta l4proto tcp dnat to 10.244.0.2:8080");
	teardown(&w);
	setup(&w);
	add(&w, SERVICE(""), SLICE(ENDING("10.244.0.1", "n1")));
	assert_string_equal(chain(&w, "cluster-"), "meta l4proto tcp dnat to 10.244.0.1:8080");
	teardown(&w);
}

#define UDP_SERVICE                                                                                                    \
	"{\"metadata\":{\"namespace\":\"d\",\"name\":\"s\"},\"spec\":{\"clusterIP\":\"10.96.0.9\",\"externalIPs\":["   \
	"\"192.0.2.1\"],"                                                                                              \
	"\"ports\":[{\"port\":80,\"protocol\":\"UDP\",\"nodePort\":30080}]},\"status\":{\"loadBalancer\":{"            \
	"\"ingress\":[{\"ip\":\"192.0.2.2\"}]}}}"
#define UDP_SLICE(endpoints)                                                                                           \
	"{\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"\",\"port\":8080,\"protocol\":\"UDP\"}],"                    \
	"\"endpoints\":[" endpoints "]}"
#define ENDED(ip, node)                                                                                                \
	"{\"addresses\":[\"" ip "\"],\"nodeName\":\"" node                                                             \
	"\",\"conditions\":{\"ready\":false,\"serving\":false,\"terminating\":true}}"

/* An endpoint that ends takes its UDP flows along when it serves no longer, though the rules have left it out for long.
 */
static void udp_flows(void **state)
{
	static const char *const slices[] = {
		UDP_SLICE(ENDING("10.244.0.1", "n1") "," READY("10.244.0.2", "n1")),
		UDP_SLICE(ENDED("10.244.0.1", "n1") "," READY("10.244.0.2", "n1")),
		UDP_SLICE(READY("10.244.0.2", "n1")),
	};
	uint64_t was = 0;

	for (size_t i = 0; i < 3; i++) {
		static const char *const addresses[] = {"10.96.0.9:80", "192.0.2.1:80", "192.0.2.2:80", ":30080"};
		struct world w;

		setup(&w);
		add(&w, UDP_SERVICE, slices[i]);
		assert_string_equal(chain(&w, "cluster-"), "meta l4proto udp dnat to 10.244.0.2:8080");
		for (size_t k = 0; k < 4; k++) {
			struct map *eps = map_get(&w.m.udp, str_from(addresses[k]));

			assert_non_null(eps);
			assert_true(map_has(eps, STR("10.244.0.2:8080")));
			assert_int_equal(map_has(eps, STR("10.244.0.1:8080")), i == 0);
		}
		assert_int_equal(w.m.udp.n, 4);
		assert_int_equal(w.m.udp_state == was, i == 2);
		was = w.m.udp_state;
		teardown(&w);
	}
	/* Nobody to lead them to: they stay. */
	struct world w;

	setup(&w);
	add(&w, UDP_SERVICE, UDP_SLICE(ENDED("10.244.0.1", "n1")));
	assert_int_equal(w.m.udp.n, 0);
	assert_int_equal(w.m.udp_state, 0);
	teardown(&w);
}

static void local_policy(void **state)
{
	struct world w;

	setup(&w);
	add(&w, SERVICE(",\"externalTrafficPolicy\":\"Local\""), SLICE(READY("10.244.0.1", "n1") "," READY("10.244.1.1", "n2")));
	assert_string_equal(chain(&w, "local-"), "meta l4proto tcp dnat to 10.244.0.1:8080");
	assert_null(strstr(chain(&w, "external-"), "\njump mark"));
	teardown(&w);
	setup(&w);
	/* None here: dropped, not refused, so that a load balancer tries another node. */
	add(&w, SERVICE(",\"externalTrafficPolicy\":\"Local\""), SLICE(READY("10.244.1.1", "n2")));
	assert_non_null(strstr(chain(&w, "external-"), "drop"));
	teardown(&w);
	setup(&w);
	add(&w, SERVICE(",\"internalTrafficPolicy\":\"Local\""), SLICE(READY("10.244.1.1", "n2")));
	assert_string_equal(element(&w, "no-endpoint-services 10.96.0.9 . tcp . 80"), "drop");
	teardown(&w);
}

static void affinity(void **state)
{
	struct world w;

	setup(&w);
	add(&w, SERVICE(",\"sessionAffinity\":\"ClientIP\",\"sessionAffinityConfig\":{\"clientIP\":{\"timeoutSeconds\":60}}"),
	    SLICE(READY("10.244.0.1", "n1") "," READY("10.244.1.1", "n2")));
	assert_int_equal(w.rules.sets.n, 2);
	assert_non_null(strstr(chain(&w, "endpoint-"), "update @affinity-60-"));
	teardown(&w);
}

static void headless_has_no_rules(void **state)
{
	struct world w;

	setup(&w);
	add(&w, "{\"metadata\":{\"namespace\":\"d\",\"name\":\"h\"},\"spec\":{\"clusterIP\":\"None\",\"ports\":[{\"port\":80}]}}",
	    SLICE(READY("10.244.0.1", "n1")));
	assert_int_equal(w.rules.chains.n + w.rules.elements.n, 0);
	teardown(&w);
}

/* The kernel takes every kind of rule, and every step between two states. */
static void kernel_accepts(void **state)
{
	static const char *const services[] = {
		SERVICE(""), SERVICE(",\"sessionAffinity\":\"ClientIP\""), SERVICE(",\"externalTrafficPolicy\":\"Local\""),
		"{\"metadata\":{\"namespace\":\"d\",\"name\":\"s\"},\"spec\":{\"type\":\"LoadBalancer\",\"clusterIP\":\"10.96.0.9\",\"externalIPs\":[\"192.0.2.7\"],"
		"\"loadBalancerSourceRanges\":[\"192.0.2.0/24\",\"198.51.100.0/24\"],\"ports\":[{\"port\":80,\"nodePort\":30080}]},"
		"\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"10.97.0.1\"}]}}}",
	};
	static const char *const slices[] = {
		SLICE(READY("10.244.0.1", "n1")), SLICE(READY("10.244.0.1", "n1") "," READY("10.244.1.1", "n2")), NULL,
		SLICE(READY("10.244.1.1", "n2")),
	};
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		skip();
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	struct ruleset applied = {0};
	struct buf text = {0};

	nft_ctx_buffer_error(nft);
	nft_ctx_buffer_output(nft);
	ruleset_base(&text, "10.244.0.0/16");
	for (int i = 0; i < 16; i++) {
		struct world w;

		setup(&w);
		add(&w, services[i % 4], slices[(i / 4 + i) % 4]);
		ruleset_diff(&applied, &w.rules, &text);
		if (nft_run_cmd_from_buffer(nft, buf_z(&text)) != 0)
			fail_msg("step %d: %s\n%s", i, nft_ctx_get_error_buffer(nft), buf_z(&text));
		ruleset_free(&applied);
		applied = w.rules;
		w.rules = (struct ruleset){0};
		text.n = 0;
		ruleset_diff(&applied, &applied, &text);
		assert_int_equal(text.n, 0);
		teardown(&w);
	}
	struct ruleset none = {0};

	ruleset_diff(&applied, &none, &text);
	assert_int_equal(nft_run_cmd_from_buffer(nft, buf_z(&text)), 0);
	ruleset_free(&applied);
	buf_free(&text);
	nft_ctx_free(nft);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(balances),
		cmocka_unit_test(refuses_without_endpoints),
		cmocka_unit_test(terminating_serve_last),
		cmocka_unit_test(udp_flows),
		cmocka_unit_test(local_policy),
		cmocka_unit_test(affinity),
		cmocka_unit_test(headless_has_no_rules),
		cmocka_unit_test(kernel_accepts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
