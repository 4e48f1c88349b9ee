/* Microseconds of what every write and every `kubectl get` costs beside decoding: defaults, owners, patches, rows. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "schema/defaults.h"
#include "schema/managed_fields.h"
#include "schema/patch.h"
#include "schema/table.h"
#include "schema/validate.h"

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void check(struct error *e)
{
	if (!e)
		return;
	fprintf(stderr, "%s\n", e->message);
	exit(1);
}

static const char pod[] =
	"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\",\"namespace\":\"default\",\"creationTimestamp\":\"2023-11-14T22:12:20Z\","
	"\"labels\":{\"a\":\"b\"}},\"spec\":{\"nodeName\":\"n1\",\"containers\":[{\"name\":\"c\",\"image\":\"i:1\",\"env\":[{\"name\":\"A\",\"value\":\"1\"}],"
	"\"ports\":[{\"containerPort\":80}],\"resources\":{\"limits\":{\"cpu\":\"1\"}}}]},\"status\":{\"phase\":\"Running\",\"conditions\":[{\"type\":\"Ready\","
	"\"status\":\"True\"}],\"containerStatuses\":[{\"name\":\"c\",\"ready\":true,\"restartCount\":1,\"state\":{\"running\":{}}}]}}";
static const char status_patch[] = "{\"metadata\":{\"uid\":\"u\"},\"status\":{\"$setElementOrder/conditions\":[{\"type\":\"Ready\"}],"
				   "\"conditions\":[{\"type\":\"Ready\",\"status\":\"False\"}]}}";

#define ROUNDS 20000
#define TIME(what, setup, call)                                                                                        \
	do {                                                                                                           \
		double us = 0;                                                                                         \
		for (int i_ = 0; i_ < ROUNDS; i_++) {                                                                  \
			arena_reset(&a);                                                                               \
			setup;                                                                                         \
			double from = now_us();                                                                        \
			call;                                                                                          \
			us += now_us() - from;                                                                         \
		}                                                                                                      \
		printf("%-28s %8.2f us\n", what, us / ROUNDS);                                                         \
	} while (0)

int main(void)
{
	const struct schema_type *t = &core_v1_pod_type;
	arena_cleanup struct arena a = {0}, keep = {0};
	buf_cleanup struct buf b = {0};
	struct managed_fields_request req = {
		.shape = shape_of_type(t), .api_version = STR("v1"), .manager = STR("bench"), .now = {1700000000, 0, true}};
	struct table_options o = {.now = {1700000000, 0, true}};
	struct core_v1_pod *live = arena_new(&keep, struct core_v1_pod), *p = NULL;
	struct jv config;
	bool changed;

	check(json_decode(&keep, t, str_from(pod), NULL, live));
	object_default(&keep, t, live);
	check(managed_fields_update_object(&keep, &req, NULL, live));
	check(jv_parse(&keep, STR("{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\",\"labels\":{\"c\":\"d\"}}}"), NULL, &config));
#define FRESH                                                                                                          \
	p = arena_new(&a, struct core_v1_pod);                                                                         \
	check(json_decode(&a, t, str_from(pod), NULL, p))
	TIME("defaults", FRESH, object_default(&a, t, p));
	TIME("validation over the tables", FRESH, validate_object(&(struct field_errors){.arena = &a}, t, p, NULL));
	TIME("managedFields of a create", FRESH, check(managed_fields_update_object(&a, &req, NULL, p)));
	TIME("managedFields of an update", FRESH; p->status.phase = STR("Failed"),
	     check(managed_fields_update_object(&a, &req, live, p)));
	TIME("server-side apply", p = arena_new(&a, struct core_v1_pod),
	     check(managed_fields_apply_object(&a, &req, live, &config, false, p, &changed)));
	TIME("strategic merge patch", p = arena_new(&a, struct core_v1_pod),
	     check(object_patch(&a, PATCH_STRATEGIC, t, live, str_from(status_patch), NULL, p)));
	TIME("row of a table", b.n = 0, table_row(&b, &a, &core_v1_pods_resource, &o, live, true));
	return 0;
}
