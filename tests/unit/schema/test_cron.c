/* Schedules and time zones. Times were computed with Python's zoneinfo. */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "schema/cron.h"

static const struct time_zone *zone(struct arena *a, const char *name)
{
	const char *dir = getenv("SKIFF_TEST_DATA");
	char *bytes = arena_bytes(a, 8192);
	const struct time_zone *z;

	if (!name)
		return NULL;
	FILE *f = fopen(arena_printf(a, "%s/zoneinfo/%s", dir ? dir : "tests/data", name).p, "rb");

	assert_non_null(f);
	size_t n = fread(bytes, 1, 8192, f);

	fclose(f);
	assert_ok(time_zone_parse(a, str_of(bytes, n), &z));
	return z;
}

static void test_offsets(void **state)
{
	static const struct {
		const char *zone;
		int64_t t;
		int32_t offset;
	} v[] = {
		{"Berlin", 2540246400, 7200}, {"Berlin", 2524608000, 3600}, {"Sao_Paulo", -631152000, -7200}, {"Dublin", 2840140800, 0},
		{"Dublin", 2855865600, 3600}, {"Troll", 2256249600, 7200}, {"Casablanca", 1780272000, 3600}, {"Lord_Howe", 2368051200, 39600},
		{"Godthab", 2531995200, -3600}, {NULL, 0, 0},
	};
	arena_cleanup struct arena a = {0};

	for (size_t i = 0; i < sizeof v / sizeof *v; i++)
		assert_int_equal(time_zone_offset(zone(&a, v[i].zone), v[i].t), v[i].offset);
}

static void test_next(void **state)
{
	static const struct {
		const char *zone, *schedule;
		int64_t t, next; /* next 0: none */
	} v[] = {
		{"Berlin", "30 2 * * *", 1774699200, 1774830600},  /* 2:30 is left out when clocks go forward */
		{"Berlin", "30 2 * * *", 1792843200, 1792888200},
		{"New_York", "0 9 * * *", 2224713600, 2224760400}, /* beyond the last transition of the file */
		{"Sao_Paulo", "0 0 * * *", 1541246400, 1541383200},/* no midnight that day */
		{"Kolkata", "15 5 * * ?", 1767225600, 1767311100},
		{"Beirut", "0 1 27 * *", 1648296000, 1648332000},
		{"Lord_Howe", "@daily", 2368051200, 2368098000},
		{NULL, "@every 90s", 100, 190}, {NULL, "@every 1ms", 100, 101}, {NULL, "* * * * *", 0, 60}, {NULL, "* * * * *", 59, 60},
		{NULL, "*/15 * * * *", 1, 900}, {NULL, "5/20 * * * *", 301, 1500}, {NULL, "0 0 29 2 *", 0, 68169600},
		{NULL, "0 0 31 2 *", 0, 0}, {NULL, ", * * * *", 0, 0},
		{NULL, "0 0 13 * fri", 0, 86400},                  /* either: the first Friday, 2 January 1970 */
		{NULL, "0 0 13 * *", 0, 12 * 86400}, {NULL, "0 0 * * Mon-Wed", 0, 4 * 86400}, {NULL, "0 0 1 jan,JUL *", 1, 15638400},
		{NULL, "@yearly", 0, 31536000}, {NULL, "@monthly", 0, 2678400}, {NULL, "@weekly", 0, 3 * 86400}, {NULL, "@hourly", 0, 3600},
		{NULL, "59 23 31 12 *", 0, 31535940}, {NULL, "0 0 */2 * 1", 0, 2 * 86400},
	};
	arena_cleanup struct arena a = {0};

	for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
		struct cron c;
		int64_t next = 0;

		assert_ok(cron_parse(str_from(v[i].schedule), &c));
		if (!cron_next(&c, zone(&a, v[i].zone), v[i].t, &next))
			next = 0;
		if (next != v[i].next)
			print_error("%s in %s after %lld: %lld\n", v[i].schedule, v[i].zone ? v[i].zone : "UTC", (long long)v[i].t, (long long)next);
		assert_int_equal(next, v[i].next);
	}
}

static void test_bad(void **state)
{
	static const char *const v[] = {"", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *",
		"* * * * 7", "5-1 * * * *", "1-2-3 * * * *", "1/2/3 * * * *", "*/0 * * * *", "-1 * * * *", "a * * * *", "* * * jann *", "@often",
		"@every", "@every x", "TZ=UTC", "99999999999999999999 * * * *"};
	arena_cleanup struct arena a = {0};

	for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
		struct cron c;
		struct error *e = cron_parse(str_from(v[i]), &c);

		if (!e)
			print_error("\"%s\" is taken\n", v[i]);
		assert_non_null(e);
		error_free(e);
	}
	assert_false(time_zone_name_ok(STR("../etc/passwd")));
	assert_false(time_zone_name_ok(STR("/etc/localtime")));
	assert_false(time_zone_name_ok(STR("Europe//Berlin")));
	assert_true(time_zone_name_ok(STR("America/Argentina/Buenos_Aires")));
	assert_true(time_zone_name_ok(STR("Etc/GMT+5")));
}

static void test_zone_prefix(void **state)
{
	struct cron c;

	assert_ok(cron_parse(STR("CRON_TZ=Asia/Tokyo  @hourly"), &c));
	assert_true(str_eqz(c.zone, "Asia/Tokyo"));
	assert_int_equal(c.minute & 1, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_offsets), cmocka_unit_test(test_next), cmocka_unit_test(test_bad), cmocka_unit_test(test_zone_prefix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
