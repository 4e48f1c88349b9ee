#include "../test.h"

#include <stdio.h>

#include "dns/records.h"
#include "schema/codec.h"

static struct arena a;

static bool has_namespace(void *ctx, struct str ns)
{
	return str_eq(ns, STR("d"));
}

static struct core_v1_service *service(void *ctx, struct arena *ar, struct str ns, struct str name)
{
	static const char *const all[][2] = {
		{"web", "{\"metadata\":{\"namespace\":\"d\",\"name\":\"web\"},\"spec\":{\"clusterIP\":\"10.96.0.9\",\"clusterIPs\":[\"10.96.0.9\",\"fd00::9\"],"
			"\"ports\":[{\"name\":\"http\",\"port\":80,\"protocol\":\"TCP\"}]}}"},
		{"db", "{\"metadata\":{\"namespace\":\"d\",\"name\":\"db\"},\"spec\":{\"clusterIP\":\"None\",\"ports\":[{\"name\":\"pg\",\"port\":5432}]}}"},
		{"ext", "{\"metadata\":{\"namespace\":\"d\",\"name\":\"ext\"},\"spec\":{\"type\":\"ExternalName\",\"externalName\":\"example.org\"}}"},
	};
	for (size_t i = 0; i < 3; i++) {
		if (!str_eqz(name, all[i][0]) || !str_eq(ns, STR("d")))
			continue;
		struct core_v1_service *s = arena_new(ar, struct core_v1_service);

		assert_ok(json_decode(ar, &core_v1_service_type, str_from(all[i][1]), NULL, s));
		return s;
	}
	return NULL;
}

static size_t slices(void *ctx, struct arena *ar, struct str ns, struct str name, struct discovery_v1_endpoint_slice ***out)
{
	static const char text[] = "{\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"pg\",\"port\":5432,\"protocol\":\"TCP\"}],\"endpoints\":["
		"{\"addresses\":[\"10.244.0.1\"],\"hostname\":\"db-0\",\"conditions\":{\"ready\":true}},"
		"{\"addresses\":[\"10.244.0.2\"],\"conditions\":{\"ready\":true}},"
		"{\"addresses\":[\"10.244.0.3\"],\"conditions\":{\"ready\":false}}]}";

	*out = arena_array(ar, struct discovery_v1_endpoint_slice *, 1);
	(*out)[0] = arena_new(ar, struct discovery_v1_endpoint_slice);
	assert_ok(json_decode(ar, &discovery_v1_endpoint_slice_type, str_from(text), NULL, (*out)[0]));
	return 1;
}

static bool by_ip(void *ctx, struct arena *ar, struct str ip, struct str *ns, struct str *svc, struct str *endpoint)
{
	*ns = STR("d");
	*svc = STR("web");
	*endpoint = STR_NULL;
	return str_eq(ip, STR("10.96.0.9"));
}

static const struct dns_view view = {NULL, has_namespace, service, slices, by_ip};

/* All answers joined by '|', or the code. */
static struct str ask(const char *name, uint16_t type)
{
	struct dns_answer ans;
	struct str s = STR_NULL;

	dns_resolve(&view, &a, STR("cluster.local"), str_from(name), type, &ans);
	if (ans.rcode)
		return arena_printf(&a, "rcode %d", ans.rcode);
	for (uint32_t i = 0; i < ans.answers.n; i++)
		s = arena_printf(&a, "%.*s%s%.*s", STR_ARG(s), i ? "|" : "", STR_ARG(ans.answers.v[i]));
	for (uint32_t i = 0; i < ans.additional.n; i++)
		s = arena_printf(&a, "%.*s+%.*s", STR_ARG(s), STR_ARG(ans.additional.v[i]));
	return s;
}

static void cluster_ip(void **state)
{
	assert_str(ask("web.d.svc.cluster.local", 1), "web.d.svc.cluster.local. 30 IN A 10.96.0.9");
	assert_str(ask("web.d.svc.cluster.local", 28), "web.d.svc.cluster.local. 30 IN AAAA fd00::9");
	assert_str(ask("web.d.svc.cluster.local", 15), "");
	assert_str(ask("x.web.d.svc.cluster.local", 1), "rcode 3");
	assert_str(ask("nope.d.svc.cluster.local", 1), "rcode 3");
	assert_str(ask("web.other.svc.cluster.local", 1), "rcode 3");
	assert_str(ask("d.svc.cluster.local", 1), "");
}

static void srv(void **state)
{
	assert_str(ask("_http._tcp.web.d.svc.cluster.local", 33),
		   "_http._tcp.web.d.svc.cluster.local. 30 IN SRV 0 100 80 web.d.svc.cluster.local."
		   "+web.d.svc.cluster.local. 30 IN A 10.96.0.9");
	assert_str(ask("_http._udp.web.d.svc.cluster.local", 33), "rcode 3");
	assert_str(ask("_pg._tcp.db.d.svc.cluster.local", 33),
		   "_pg._tcp.db.d.svc.cluster.local. 30 IN SRV 0 33 5432 db-0.db.d.svc.cluster.local.|"
		   "_pg._tcp.db.d.svc.cluster.local. 30 IN SRV 0 33 5432 10-244-0-2.db.d.svc.cluster.local."
		   "+db-0.db.d.svc.cluster.local. 30 IN A 10.244.0.1+10-244-0-2.db.d.svc.cluster.local. 30 IN A 10.244.0.2");
}

static void headless(void **state)
{
	assert_str(ask("db.d.svc.cluster.local", 1),
		   "db.d.svc.cluster.local. 30 IN A 10.244.0.1|db.d.svc.cluster.local. 30 IN A 10.244.0.2");
	assert_str(ask("db-0.db.d.svc.cluster.local", 1), "db-0.db.d.svc.cluster.local. 30 IN A 10.244.0.1");
	assert_str(ask("10-244-0-2.db.d.svc.cluster.local", 1), "10-244-0-2.db.d.svc.cluster.local. 30 IN A 10.244.0.2");
	/* Not ready: not published. */
	assert_str(ask("10-244-0-3.db.d.svc.cluster.local", 1), "rcode 3");
}

static void others(void **state)
{
	assert_str(ask("ext.d.svc.cluster.local", 1), "ext.d.svc.cluster.local. 30 IN CNAME example.org.");
	assert_str(ask("10-1-2-3.d.pod.cluster.local", 1), "10-1-2-3.d.pod.cluster.local. 30 IN A 10.1.2.3");
	assert_str(ask("10-1-2-300.d.pod.cluster.local", 1), "rcode 3");
	assert_str(ask("dns-version.cluster.local", 16), "dns-version.cluster.local. 30 IN TXT \"1.1.0\"");
	assert_str(ask("9.0.96.10.in-addr.arpa", 12), "9.0.96.10.in-addr.arpa. 30 IN PTR web.d.svc.cluster.local.");
	assert_true(dns_ours(&view, &a, STR("cluster.local"), STR("x.cluster.local")));
	assert_false(dns_ours(&view, &a, STR("cluster.local"), STR("xcluster.local")));
	assert_false(dns_ours(&view, &a, STR("cluster.local"), STR("1.1.1.1.in-addr.arpa")));
}

static int done(void **state)
{
	arena_free(&a);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cluster_ip), cmocka_unit_test(srv), cmocka_unit_test(headless), cmocka_unit_test(others),
	};
	return cmocka_run_group_tests(tests, NULL, done);
}
