#include "../test.h"

#include <stdio.h>

#include "schema/codec.h"
#include "schema/storage.h"

static struct arena a;

static struct core_v1_persistent_volume *volume(const char *name, const char *size, const char *modes, const char *more)
{
	struct core_v1_persistent_volume *v = arena_new(&a, struct core_v1_persistent_volume);
	struct str json = arena_printf(&a, "{\"metadata\":{\"name\":\"%s\"},\"spec\":{\"capacity\":{\"storage\":\"%s\"},\"accessModes\":[%s]%s},"
					   "\"status\":{\"phase\":\"Available\"}}", name, size, modes, more);

	assert_ok(json_decode(&a, &core_v1_persistent_volume_type, json, NULL, v));
	return v;
}

static struct core_v1_persistent_volume_claim *claim(const char *size, const char *modes, const char *more)
{
	struct core_v1_persistent_volume_claim *c = arena_new(&a, struct core_v1_persistent_volume_claim);
	struct str json = arena_printf(&a, "{\"metadata\":{\"name\":\"c\",\"namespace\":\"n\",\"uid\":\"u\"},\"spec\":{\"resources\":{\"requests\":"
					   "{\"storage\":\"%s\"}},\"accessModes\":[%s]%s}}", size, modes, more);

	assert_ok(json_decode(&a, &core_v1_persistent_volume_claim_type, json, NULL, c));
	return c;
}

static const char *found(const struct core_v1_persistent_volume_claim *c, struct core_v1_persistent_volume **v, size_t n,
			 bool (*fits)(void *ctx, const struct core_v1_persistent_volume *v, bool bound), bool delay)
{
	struct core_v1_persistent_volume *out;

	assert_ok(volume_find(&a, c, v, n, fits, NULL, delay, &out));
	return out ? arena_strz(&a, out->metadata.name) : "";
}

#define RWO "\"ReadWriteOnce\""
#define RWX "\"ReadWriteMany\""

static bool not_small(void *ctx, const struct core_v1_persistent_volume *v, bool bound)
{
	return !str_eqz(v->metadata.name, "small");
}

static void choosing(void **state)
{
	struct core_v1_persistent_volume *v[] = {
		volume("many", "2Gi", RWO "," RWX, ""), volume("big", "5Gi", RWO, ""), volume("small", "2Gi", RWO, ""),
		volume("class", "1Gi", RWO, ",\"storageClassName\":\"fast\""), volume("block", "1Gi", RWO, ",\"volumeMode\":\"Block\""),
		volume("taken", "1Gi", RWO, ",\"claimRef\":{\"namespace\":\"n\",\"name\":\"other\"}"),
	};
	size_t n = sizeof v / sizeof *v;

	assert_string_equal(found(claim("1Gi", RWO, ""), v, n, NULL, false), "small");
	assert_string_equal(found(claim("3Gi", RWO, ""), v, n, NULL, false), "big");
	assert_string_equal(found(claim("1Gi", RWX, ""), v, n, NULL, false), "many");
	assert_string_equal(found(claim("6Gi", RWO, ""), v, n, NULL, false), "");
	assert_string_equal(found(claim("1Gi", RWO, ",\"storageClassName\":\"fast\""), v, n, NULL, false), "class");
	assert_string_equal(found(claim("1Gi", RWO, ",\"volumeMode\":\"Block\""), v, n, NULL, false), "block");
	assert_string_equal(found(claim("1Gi", RWO, ""), v, n, NULL, true), ""); /* the scheduler's to choose */
	assert_string_equal(found(claim("1Gi", RWO, ""), v, n, not_small, false), "big");
	v[5]->spec.claim_ref->name = STR("c");
	assert_string_equal(found(claim("1Gi", RWO, ""), v, n, NULL, true), "taken"); /* reserved for it */
	v[5]->spec.claim_ref->uid = STR("another");
	assert_string_equal(found(claim("1Gi", RWO, ""), v, n, NULL, false), "small");
}

static void named(void **state)
{
	assert_null(volume_mismatch(volume("v", "1Gi", RWO, ""), claim("1Gi", RWO, "")));
	assert_string_equal(volume_mismatch(volume("v", "1Gi", RWO, ""), claim("2Gi", RWO, "")), "requested PV is too small");
	assert_string_equal(volume_mismatch(volume("v", "1Gi", RWO, ""), claim("1Gi", RWX, "")), "incompatible accessMode");
	assert_string_equal(volume_mismatch(volume("v", "1Gi", RWO, ",\"storageClassName\":\"x\""), claim("1Gi", RWO, "")),
			    "storageClassName does not match");
	assert_string_equal(volume_mismatch(volume("v", "1Gi", RWO, ",\"volumeMode\":\"Block\""), claim("1Gi", RWO, "")), "incompatible volumeMode");
}

static void binding(void **state)
{
	struct core_v1_persistent_volume *v = volume("v", "1Gi", RWO, "");
	struct core_v1_persistent_volume_claim *c = claim("1Gi", RWO, "");

	assert_true(volume_set_claim(&a, v, c));
	assert_true(volume_bound_to(v, c));
	assert_true(str_map_has(API_MAP(&v->metadata.annotations), STR(ANN_BOUND_BY_CONTROLLER)));
	assert_false(volume_set_claim(&a, v, c));
	/* what the user reserved is not marked as ours */
	v = volume("v", "1Gi", RWO, ",\"claimRef\":{\"namespace\":\"n\",\"name\":\"c\"}");
	assert_true(volume_set_claim(&a, v, c));
	assert_false(str_map_has(API_MAP(&v->metadata.annotations), STR(ANN_BOUND_BY_CONTROLLER)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(choosing), cmocka_unit_test(named), cmocka_unit_test(binding)};
	int failed = cmocka_run_group_tests_name("storage", tests, NULL, NULL);

	arena_free(&a);
	return failed;
}
