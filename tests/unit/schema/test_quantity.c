/* Quantities, durations, times, base64. */
#include "../test.h"

#include "schema/codec.h"
#include "schema/quantity.h"

static void test_canonical(void **state)
{
	static const struct {
		const char *in, *out;
	} ok[] = {
		{"0", "0"}, {"0n", "0"}, {"0Ki", "0"}, {"000", "0"}, {"-0", "0"}, {"1", "1"}, {"1n", "1n"}, {"1u", "1u"},
		{"1m", "1m"}, {"1000m", "1"}, {"1500m", "1500m"}, {"1.5", "1500m"}, {"0.1", "100m"}, {".1", "100m"}, {"1.", "1."},
		{"1k", "1k"}, {"1000", "1k"}, {"1000000", "1M"}, {"1e3", "1e3"}, {"1E3", "1E3"}, {"1e6", "1e6"}, {"12e3", "12e3"},
		{"1e4", "10e3"}, {"1e-3", "1e-3"}, {"100e-3", "100e-3"}, {"1000e-3", "1"}, {"1e0", "1e0"}, {"12E-3", "12E-3"}, {"1E", "1E"},
		{"1Ki", "1Ki"}, {"1024Ki", "1Mi"}, {"1Gi", "1Gi"}, {"1.5Gi", "1536Mi"}, {"0.5Gi", "512Mi"}, {"0.3Ki", "307200m"},
		{"1024", "1024"}, {"1023Ki", "1023Ki"}, {"1.1Ki", "1126400m"}, {"2048", "2048"}, {"-1Ki", "-1Ki"}, {"-1.5", "-1500m"},
		{"0.0000000001", "1n"}, {"-0.0000000001", "-1n"}, {"0.00000000011", "1n"}, {"1.0000000001", "1000000001n"},
		{"9223372036854775807", "9223372036854775807"}, {"9223372036854775808", "9223372036854775808"},
		{"100000000000000000000", "100E"}, {"-9223372036854775809", "-9223372036854775809"},
		{"8Ei", "9223372036854775807"}, {"7Ei", "7Ei"}, {"1024Pi", "1Ei"}, {"10E", "10E"}, {"+5", "+5"}, {"110Mi", "110Mi"},
		{"123456789.123456789", "123456789.123456789"}, {"1.500", "1.500"}, {"0.100", "100m"}, {"01Ki", "01Ki"}, {"08Ki", "8Ki"}, {"Ki", "0"}, {".", "0"}, {"-", "0"}, {"m", "0"}, {"1.1234", "1123400u"}, {"5000", "5k"}, {"922337203685477580e100", "9223372036854775800e99"}, {"9223372036854775800e99", "9223372036854775800e99"}, {"1234567890123456789012345", "1234567890123456789012345"}, {"100000000000000000000000000000", "100000000000E"}, {"99Ei", "9223372036854775807"}, {"3000000Ki", "3000000Ki"}, {"3145728Ki", "3Gi"}, {"0.001Ki", "1024m"},
		{"1Mi", "1Mi"}, {"1M", "1M"}, {"100M", "100M"}, {"64Mi", "64Mi"}, {"1000Mi", "1000Mi"}, {"500Ki", "500Ki"},
		{"0.0001Mi", "104857600u"},
	};
	arena_cleanup struct arena a = {0};
	struct str out;

	for (size_t i = 0; i < sizeof ok / sizeof *ok; i++) {
		assert_ok(quantity_canonical(&a, str_from(ok[i].in), &out));
		if (!str_eqz(out, ok[i].out))
			fail_msg("%s gives %.*s instead of %s", ok[i].in, STR_ARG(out), ok[i].out);
		assert_int_equal(quantity_cmp(str_from(ok[i].in), out), 0);
	}
	static const char *const bad[] = {"", "x", "1x", "1 ", " 1", "1.2.3", "--1", "+-1", "1ki", "1e", "1ee3", "0.1mi", "1.1.M", "1+1.0M",
					  "1e2.5", "1i", "1KiKi", "12345678901234567890123456789012345678", "1K"};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct error *e = quantity_canonical(&a, str_from(bad[i]), &out);

		if (!e)
			fail_msg("%s was read as %.*s", bad[i], STR_ARG(out));
		error_free(e);
	}
}

static void test_arithmetic(void **state)
{
	arena_cleanup struct arena a = {0};

	assert_int_equal(quantity_value(STR("1500m")), 2);
	assert_int_equal(quantity_value(STR("-1500m")), -2);
	assert_int_equal(quantity_milli(STR("1.5")), 1500);
	assert_int_equal(quantity_milli(STR("1u")), 1);
	assert_int_equal(quantity_value(STR("1Gi")), 1 << 30);
	assert_int_equal(quantity_milli(STR("7Ei")), INT64_MAX);
	assert_int_equal(quantity_value(STR("")), 0);
	assert_int_equal(quantity_value(STR("junk")), 0);
	assert_true(quantity_cmp(STR("1Gi"), STR("1G")) > 0);
	assert_true(quantity_cmp(STR("-1"), STR("1n")) < 0);
	assert_true(quantity_cmp(STR("0"), STR("")) == 0);
	assert_true(quantity_cmp(STR("1e100"), STR("1e99")) > 0);
	assert_true(quantity_cmp(STR("1e900"), STR("1n")) > 0);
	assert_str(quantity_add(&a, STR("1Gi"), STR("512Mi")), "1536Mi");
	assert_str(quantity_add(&a, STR("100m"), STR("1")), "1100m");
	assert_str(quantity_add(&a, STR("0"), STR("1Ki")), "1Ki");
	assert_str(quantity_add(&a, STR("1Ki"), STR("1m")), "1024001m");
	assert_str(quantity_sub(&a, STR("1"), STR("1500m")), "-500m");
	assert_str(quantity_sub(&a, STR("1Gi"), STR("1Gi")), "0");
	assert_str(quantity_from(&a, 1 << 20, true), "1Mi");
	assert_str(quantity_from(&a, 1000000, false), "1M");
	assert_str(quantity_from(&a, -1, false), "-1");
	assert_str(quantity_from_milli(&a, 250), "250m");
	assert_str(quantity_from_milli(&a, 2000), "2");
}

static void test_duration(void **state)
{
	static const struct {
		const char *in, *out;
		int64_t ns;
	} ok[] = {
		{"0", "0s", 0}, {"1h", "1h0m0s", 3600000000000}, {"90s", "1m30s", 90000000000}, {"1.5s", "1.5s", 1500000000},
		{"100ms", "100ms", 100000000}, {"-1m", "-1m0s", -60000000000}, {"1us", "1\xc2\xb5s", 1000}, {"2h3m4.5s", "2h3m4.5s", 7384500000000},
		{"1\xc2\xb5s", "1\xc2\xb5s", 1000}, {".5s", "500ms", 500000000}, {"+1ns", "1ns", 1}, {"1.5us", "1.5\xc2\xb5s", 1500},
		{"2562047h47m16.854775807s", "2562047h47m16.854775807s", INT64_MAX},
		{"-2562047h47m16.854775808s", "-2562047h47m16.854775808s", INT64_MIN},
	};
	arena_cleanup struct arena a = {0};
	int64_t ns;

	for (size_t i = 0; i < sizeof ok / sizeof *ok; i++) {
		if (!duration_parse(str_from(ok[i].in), &ns) || ns != ok[i].ns)
			fail_msg("%s", ok[i].in);
		assert_str(duration_format(&a, ns), ok[i].out);
	}
	static const char *const bad[] = {"", "1", "s", "1x", "-", ".s", "1h1", "2562047h47m16.854775808s", "1 s", "3000000h"};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (duration_parse(str_from(bad[i]), &ns))
			fail_msg("%s", bad[i]);
}

static void test_time(void **state)
{
	arena_cleanup struct arena a = {0};
	struct api_time t = {0};

	assert_true(time_parse(STR("2000-02-29T12:34:56Z"), &t));
	assert_int_equal(t.s, 951827696);
	assert_true(t.set);
	assert_str(time_format(&a, t, false), "2000-02-29T12:34:56Z");
	assert_str(time_format(&a, t, true), "2000-02-29T12:34:56.000000Z");
	assert_true(time_parse(STR("1960-01-01T00:00:00.5-07:30"), &t));
	assert_str(time_format(&a, t, true), "1960-01-01T07:30:00.500000Z");
	assert_true(time_parse(STR("9999-12-31T23:59:59Z"), &t));
	assert_str(time_format(&a, t, false), "9999-12-31T23:59:59Z");
	assert_true(time_parse(STR("0001-01-01T00:00:00Z"), &t));
	assert_false(t.set);
	static const char *const bad[] = {"", "2000", "2001-02-29T00:00:00Z", "2000-01-01 00:00:00Z", "2000-01-01T00:00:00", "2000-13-01T00:00:00Z",
					  "2000-01-01T24:00:00Z", "2000-01-01T00:60:00Z", "2000-01-01T00:00:60Z", "2000-01-01T00:00:00Zx",
					  "2000-01-01T00:00:00+25:00", "2000-01-01T00:00:00.Z", "2000-01-01T00:00:00z"};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (time_parse(str_from(bad[i]), &t))
			fail_msg("%s", bad[i]);
}

static void test_base64(void **state)
{
	arena_cleanup struct arena a = {0};
	struct str out;

	for (size_t n = 0; n < 70; n++) {
		buf_cleanup struct buf b = {0};
		char bytes[70];

		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)(i * 37 + n);
		base64_encode(&b, str_of(bytes, n));
		assert_int_equal(b.n, (n + 2) / 3 * 4);
		assert_true(base64_decode(&a, buf_view(&b), &out));
		assert_true(str_eq(out, str_of(bytes, n)));
	}
	static const char *const bad[] = {"A", "AA", "AAA", "AA=", "A===", "AA==A", "A*==", "====", "AA=A"};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (base64_decode(&a, str_from(bad[i]), &out))
			fail_msg("%s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_canonical), cmocka_unit_test(test_arithmetic), cmocka_unit_test(test_duration),
		cmocka_unit_test(test_time), cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
