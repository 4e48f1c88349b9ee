/* The controllers' pure parts: indexes, policies and times of Jobs, names of StatefulSets, the order of deletion, hashes. */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>

#include "controller/job.h"
#include "controller/statefulset.h"

static void *from_json(struct arena *a, const struct schema_type *t, const char *json)
{
	void *obj = arena_alloc(a, t->size);

	assert_ok(json_decode(a, t, arena_str(a, str_from(json)), NULL, obj));
	return obj;
}

#define POD(a, json) ((struct core_v1_pod *)from_json((a), &core_v1_pod_type, (json)))

static void test_indexes(void **state)
{
	static const struct {
		const char *in, *out;
		int32_t completions, count;
	} v[] = {
		{"", "", 10, 0}, {"1", "1", 10, 1}, {"1,2", "1,2", 10, 2}, {"1-3", "1-3", 10, 3}, {"0,2-4,6,7", "0,2-4,6,7", 10, 6},
		{"1-3,4", "1-4", 10, 4}, {"5-20", "5-9", 10, 5}, {"12", "", 10, 0}, {"x,3,-1,4-2", "3", 10, 1}, {"0-99999", "0-99999", 2000000000, 100000},
	};
	arena_cleanup struct arena a = {0};

	for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
		struct indexes x = indexes_parse(&a, str_from(v[i].in), v[i].completions);

		assert_str(indexes_format(&a, &x), v[i].out);
		assert_int_equal(indexes_count(&x), v[i].count);
	}
	/* Against a plain set. */
	for (int round = 0; round < 200; round++) {
		bool set[64] = {0};
		struct indexes x = {0}, other = {0};
		int n = 0, common = 0;

		srand((unsigned)round);
		for (int k = 0; k < 5; k++) {
			int32_t more[8];

			for (int m = 0; m < 8; m++) {
				more[m] = rand() % 64;
				set[more[m]] = true;
			}
			x = indexes_with(&a, &x, more, 8);
			if (k == 2)
				other = x;
		}
		for (int k = 0; k < 64; k++) {
			n += set[k];
			common += set[k] && indexes_have(&other, k);
			assert_int_equal(indexes_have(&x, k), set[k]);
		}
		assert_int_equal(indexes_count(&x), n);
		assert_int_equal(indexes_common(&x, &other), common);
		for (uint32_t k = 1; k < x.n; k++)
			assert_true(x.v[k].first > x.v[k - 1].last + 1);
		struct indexes again = indexes_parse(&a, indexes_format(&a, &x), 64);

		assert_str(indexes_format(&a, &again), arena_strz(&a, indexes_format(&a, &x)));
	}
}

static void test_failure_policy(void **state)
{
	arena_cleanup struct arena a = {0};
	job_t *j = from_json(&a, &batch_v1_job_type, "{\"spec\":{\"backoffLimitPerIndex\":1,\"podFailurePolicy\":{\"rules\":["
		"{\"action\":\"Ignore\",\"onPodConditions\":[{\"type\":\"DisruptionTarget\",\"status\":\"True\"}]},"
		"{\"action\":\"FailJob\",\"onExitCodes\":{\"containerName\":\"main\",\"operator\":\"In\",\"values\":[42]}},"
		"{\"action\":\"FailIndex\",\"onExitCodes\":{\"operator\":\"NotIn\",\"values\":[1,42]}},"
		"{\"action\":\"Count\",\"onExitCodes\":{\"operator\":\"In\",\"values\":[1]}}]}}}");
	static const struct {
		const char *status;
		enum failure_action action;
	} v[] = {
		{"{\"phase\":\"Failed\"}", FAILURE_COUNT},
		{"{\"phase\":\"Failed\",\"conditions\":[{\"type\":\"DisruptionTarget\",\"status\":\"True\"}]}", FAILURE_IGNORE},
		{"{\"phase\":\"Failed\",\"conditions\":[{\"type\":\"DisruptionTarget\",\"status\":\"False\"}]}", FAILURE_COUNT},
		{"{\"phase\":\"Failed\",\"containerStatuses\":[{\"name\":\"main\",\"state\":{\"terminated\":{\"exitCode\":42}}}]}", FAILURE_FAIL_JOB},
		{"{\"phase\":\"Failed\",\"containerStatuses\":[{\"name\":\"side\",\"state\":{\"terminated\":{\"exitCode\":42}}}]}", FAILURE_COUNT},
		{"{\"phase\":\"Failed\",\"initContainerStatuses\":[{\"name\":\"main\",\"state\":{\"terminated\":{\"exitCode\":42}}}]}", FAILURE_FAIL_JOB},
		{"{\"phase\":\"Failed\",\"containerStatuses\":[{\"name\":\"main\",\"state\":{\"terminated\":{\"exitCode\":7}}}]}", FAILURE_FAIL_INDEX},
		{"{\"phase\":\"Failed\",\"containerStatuses\":[{\"name\":\"main\",\"state\":{\"terminated\":{\"exitCode\":0}}}]}", FAILURE_COUNT},
	};

	for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
		pod_t *p = POD(&a, arena_printf(&a, "{\"metadata\":{\"name\":\"p\",\"namespace\":\"n\"},\"status\":%s}", v[i].status).p);
		struct str message = STR_NULL;

		assert_int_equal(job_failure_action(&a, j, p, &message), v[i].action);
		assert_int_equal(message.n > 0, v[i].action == FAILURE_FAIL_JOB);
		/* The first failure does not use up a limit of one, unless the rule says so. */
		assert_int_equal(job_index_failed(&a, j, p), v[i].action == FAILURE_FAIL_INDEX);
		str_map_set(&a, API_MAP(&p->metadata.annotations), STR("batch.kubernetes.io/job-index-failure-count"), STR("1"));
		assert_int_equal(job_index_failed(&a, j, p), v[i].action != FAILURE_IGNORE);
	}
}

static void test_success_policy(void **state)
{
	arena_cleanup struct arena a = {0};
	job_t *j = from_json(&a, &batch_v1_job_type, "{\"spec\":{\"completions\":10,\"successPolicy\":{\"rules\":["
		"{\"succeededIndexes\":\"0,2-4\"},{\"succeededIndexes\":\"5-9\",\"succeededCount\":2},{\"succeededCount\":6}]}}}");
	static const struct {
		const char *done, *message;
	} v[] = {
		{"", NULL}, {"0,2,3", NULL}, {"0,2-4", "Matched rules at index 0"}, {"5", NULL}, {"5,9", "Matched rules at index 1"},
		{"0-5", "Matched rules at index 0"}, {"0,1,2,3,5", NULL}, {"1-3,5", NULL},
	};

	for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
		struct indexes done = indexes_parse(&a, str_from(v[i].done), 10);
		struct str message = STR_NULL;

		assert_int_equal(job_success_policy(&a, j, &done, &message), v[i].message != NULL);
		if (v[i].message)
			assert_str(message, v[i].message);
	}
}

static void test_backoff(void **state)
{
	int64_t now = wall_ms();

	assert_int_equal(job_backoff_ms(0, now), 0);
	assert_in_range(job_backoff_ms(1, now), 9000, 10000);
	assert_in_range(job_backoff_ms(3, now), 39000, 40000);
	assert_in_range(job_backoff_ms(7, now), 599000, 600000);
	assert_in_range(job_backoff_ms(2000000000, now), 599000, 600000);
	assert_int_equal(job_backoff_ms(1, now - 10000), 0);
	assert_in_range(job_backoff_ms(2, now - 10000), 9000, 10000);
}

static void test_finished(void **state)
{
	arena_cleanup struct arena a = {0};

	assert_int_equal(job_pod_finished_ms(POD(&a, "{\"metadata\":{\"creationTimestamp\":\"1970-01-01T00:00:01Z\"}}")), 1000);
	assert_int_equal(job_pod_finished_ms(POD(&a, "{\"metadata\":{\"creationTimestamp\":\"1970-01-01T00:00:01Z\"},\"status\":{\"conditions\":["
		"{\"type\":\"Ready\",\"status\":\"False\",\"lastTransitionTime\":\"1970-01-01T00:00:05Z\"}]}}")), 5000);
	assert_int_equal(job_pod_finished_ms(POD(&a, "{\"metadata\":{\"deletionTimestamp\":\"1970-01-01T00:01:00Z\",\"deletionGracePeriodSeconds\":30}}")),
			 30000);
	/* The latest container, sidecars too, other init containers not. */
	assert_int_equal(job_pod_finished_ms(POD(&a, "{\"spec\":{\"initContainers\":[{\"name\":\"s\",\"restartPolicy\":\"Always\"},{\"name\":\"i\"}]},"
		"\"status\":{\"containerStatuses\":[{\"name\":\"c\",\"state\":{\"terminated\":{\"finishedAt\":\"1970-01-01T00:00:02Z\"}}}],"
		"\"initContainerStatuses\":[{\"name\":\"s\",\"state\":{\"terminated\":{\"finishedAt\":\"1970-01-01T00:00:03Z\"}}},"
		"{\"name\":\"i\",\"state\":{\"terminated\":{\"finishedAt\":\"1970-01-01T00:00:09Z\"}}}]}}")), 3000);
}

static void test_ordinals(void **state)
{
	arena_cleanup struct arena a = {0};
	sts_t *s = from_json(&a, &apps_v1_stateful_set_type, "{\"metadata\":{\"name\":\"web\"},\"spec\":{\"replicas\":2,\"ordinals\":{\"start\":3}}}");

	assert_int_equal(sts_ordinal(s, STR("web-0")), 0);
	assert_int_equal(sts_ordinal(s, STR("web-12")), 12);
	static const char *const none[] = {"web", "web-", "web-x", "web--1", "web-+1", "webs-1", "we-1", "other-web-1", "web-99999999999"};

	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		assert_int_equal(sts_ordinal(s, str_from(none[i])), -1);
	assert_false(sts_in_range(s, 2));
	assert_true(sts_in_range(s, 3));
	assert_true(sts_in_range(s, 4));
	assert_false(sts_in_range(s, 5));
}

static void test_deletion_order(void **state)
{
	arena_cleanup struct arena a = {0};
#define READY(t) "\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\",\"lastTransitionTime\":\"" t "\"}]"
	/* In the order they go; ranks beside. */
	static const struct {
		const char *json;
		int rank;
	} v[] = {
		{"{\"status\":{\"phase\":\"Running\"}}", 0}, /* on no node */
		{"{\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":\"Pending\"}}", 0},
		{"{\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":\"Unknown\"}}", 0},
		{"{\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":\"Running\"}}", 0}, /* not ready */
		{"{\"metadata\":{\"annotations\":{\"controller.kubernetes.io/pod-deletion-cost\":\"-1\"}},\"spec\":{\"nodeName\":\"n\"},\"status\":{"
		 "\"phase\":\"Running\"," READY("2026-01-01T00:00:00Z") "}}", 0},
		{"{\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":\"Running\"," READY("2026-01-01T00:00:00Z") "}}", 9}, /* with many others */
		{"{\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":\"Running\"," READY("2026-01-01T00:00:09Z") "}}", 1}, /* ready for less long */
		{"{\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":\"Running\"," READY("2026-01-01T00:00:00Z") ",\"containerStatuses\":["
		 "{\"restartCount\":3}]}}", 1},
		{"{\"metadata\":{\"creationTimestamp\":\"2026-01-01T00:00:05Z\"},\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":\"Running\","
		 READY("2026-01-01T00:00:00Z") "}}", 1},
		{"{\"metadata\":{\"creationTimestamp\":\"2026-01-01T00:00:01Z\"},\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":\"Running\","
		 READY("2026-01-01T00:00:00Z") "}}", 1},
		{"{\"metadata\":{\"annotations\":{\"controller.kubernetes.io/pod-deletion-cost\":\"5\"}},\"spec\":{\"nodeName\":\"n\"},\"status\":{"
		 "\"phase\":\"Running\"," READY("2026-01-01T00:00:09Z") "}}", 9},
	};
	enum { N = sizeof v / sizeof *v };

	for (int round = 0; round < 50; round++) {
		struct core_v1_pod *pods[N], *order[N];
		int ranks[N], place[N];

		srand((unsigned)round);
		for (int i = 0; i < N; i++)
			place[i] = i;
		for (int i = N - 1; i > 0; i--) {
			int k = rand() % (i + 1), t = place[i];

			place[i] = place[k];
			place[k] = t;
		}
		for (int i = 0; i < N; i++) {
			order[i] = POD(&a, v[i].json);
			pods[place[i]] = order[i];
			ranks[place[i]] = v[i].rank;
		}
		pods_sort_for_deletion(pods, N, ranks);
		for (int i = 0; i < N; i++)
			assert_ptr_equal(pods[i], order[i]);
	}
}

static void test_scaled(void **state)
{
	struct int_or_string percent = {.is_str = true, .s = STR_INIT("25%")}, plain = {.i = 3}, bad = {.is_str = true, .s = STR_INIT("x")};

	assert_int_equal(scaled_value(&percent, 10, true), 3);
	assert_int_equal(scaled_value(&percent, 10, false), 2);
	assert_int_equal(scaled_value(&percent, 0, true), 0);
	assert_int_equal(scaled_value(&plain, 10, true), 3);
	assert_int_equal(scaled_value(&bad, 10, true), 0);
	assert_int_equal(scaled_value(NULL, 10, true), 0);
}

static void test_hash(void **state)
{
	arena_cleanup struct arena a = {0};
	struct core_v1_pod_template_spec *t = from_json(&a, &core_v1_pod_template_spec_type, "{\"metadata\":{\"labels\":{\"a\":\"b\"}}}");
	int32_t zero = 0, one = 1;
	struct str x = object_hash(&a, &core_v1_pod_template_spec_type, t, NULL), y = object_hash(&a, &core_v1_pod_template_spec_type, t, &one);

	assert_true(str_eq(x, object_hash(&a, &core_v1_pod_template_spec_type, t, NULL)));
	assert_false(str_eq(x, y));
	assert_false(str_eq(object_hash(&a, &core_v1_pod_template_spec_type, t, &zero), y));
	for (size_t i = 0; i < x.n; i++)
		assert_non_null(strchr("bcdfghjklmnpqrstvwxz2456789", x.p[i]));
	assert_int_equal(fnv32a(0, STR("a")), 0xe40c292c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_indexes), cmocka_unit_test(test_failure_policy), cmocka_unit_test(test_success_policy),
		cmocka_unit_test(test_backoff), cmocka_unit_test(test_finished), cmocka_unit_test(test_ordinals),
		cmocka_unit_test(test_deletion_order), cmocka_unit_test(test_scaled), cmocka_unit_test(test_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
