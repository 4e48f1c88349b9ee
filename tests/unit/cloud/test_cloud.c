#include "../test.h"

#include "cloud/provider.h"

static struct arena a;

static struct core_v1_service *service(const char *uid, const char *ip)
{
	struct core_v1_service *s = arena_new(&a, struct core_v1_service);

	s->metadata.uid = str_from(uid);
	if (ip)
		arena_push(&a, &s->status.load_balancer.ingress)->ip = str_from(ip);
	return s;
}

static void pool(void **state)
{
	struct error *e = NULL;
	struct core_v1_service *one = service("1", NULL), *two = service("2", "10.97.0.1"), *three = service("3", "10.97.0.2");
	struct core_v1_service *all[] = {one, two, three};
	struct core_v1_load_balancer_status st = {0};

	e = cloud_local.ensure_load_balancer(&a, one, all, 3, &st);
	assert_non_null(strstr(error_message(e), "--local-load-balancer-pool"));
	error_clear(&e);
	assert_true(cloud_local.option("local-load-balancer-pool", "10.97.0.9-10.97.0.1", &e));
	assert_non_null(e);
	error_clear(&e);
	assert_true(cloud_local.option("local-load-balancer-pool", "10.97.0.1-10.97.0.3", &e));
	assert_null(e);
	assert_ok(cloud_local.ensure_load_balancer(&a, one, all, 3, &st));
	assert_str(st.ingress.v[0].ip, "10.97.0.3");
	/* What it has stays. */
	st.ingress.n = 0;
	assert_ok(cloud_local.ensure_load_balancer(&a, two, all, 3, &st));
	assert_str(st.ingress.v[0].ip, "10.97.0.1");
	one->spec.load_balancer_ip = STR("10.97.0.2");
	e = cloud_local.ensure_load_balancer(&a, one, all, 3, &st);
	assert_non_null(e);
	error_clear(&e);
	one->spec.load_balancer_ip = STR_NULL;
	one = all[0] = service("1", "10.97.0.3");
	struct core_v1_service *four = service("4", NULL);

	e = cloud_local.ensure_load_balancer(&a, four, all, 3, &st);
	assert_non_null(strstr(error_message(e), "all 3 addresses"));
	error_clear(&e);
}

static void nodes(void **state)
{
	struct core_v1_node n = {.spec.provider_id = STR("local://n9")};
	struct error *e = NULL;
	bool exists;

	assert_true(cloud_local.option("local-nodes", "n1,n2", &e));
	assert_ok(cloud_local.instance_exists(&n, &exists));
	assert_false(exists);
	n.spec.provider_id = STR("local://n2");
	assert_ok(cloud_local.instance_exists(&n, &exists));
	assert_true(exists);
	n.spec.provider_id = STR("aws:///i-1");
	assert_ok(cloud_local.instance_exists(&n, &exists));
	assert_true(exists);
}

static int done(void **state)
{
	arena_free(&a);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(pool), cmocka_unit_test(nodes)};

	return cmocka_run_group_tests(tests, NULL, done);
}
