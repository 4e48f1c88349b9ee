#include "../test.h"

#include <stdlib.h>

#include <errno.h>
#include <stdio.h>

#include "base/flags.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/map.h"
#include "base/ref.h"

static void sysctls(void **state)
{
	static const char *const names[][2] = {
		{"kernel.shm_rmid_forced", "kernel.shm_rmid_forced"},
		{"kernel/shm_rmid_forced", "kernel.shm_rmid_forced"},
		{"net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"},
		{"net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0/1.forwarding"},
		{"", ""},
		{"x", "x"},
	};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char name[64];

		snprintf(name, sizeof name, "%s", names[i][0]);
		str_sysctl_dots(name, strlen(name));
		assert_string_equal(name, names[i][1]);
	}
	char path[] = "net.ipv4.conf.eth0/1.forwarding";

	str_sysctl_swap(path, strlen(path));
	assert_string_equal(path, "net/ipv4/conf/eth0.1/forwarding");
}

static void str_cuts(void **state)
{
	struct str r = STR("a,,b");

	assert_str(str_cut(&r, ','), "a");
	assert_str(str_cut(&r, ','), "");
	assert_str(str_cut(&r, ','), "b");
	assert_null(r.p);
}

static void str_numbers(void **state)
{
	int64_t v = 7;

	assert_true(str_to_i64(STR("-9223372036854775808"), &v));
	assert_true(v == INT64_MIN);
	assert_false(str_to_i64(STR("9223372036854775808"), &v));
	assert_false(str_to_i64(STR(""), &v));
	assert_false(str_to_i64(STR("-"), &v));
	assert_false(str_to_i64(STR("1 "), &v));
	bool b = false;
	assert_true(str_to_bool(STR("True"), &b) && b);
	assert_true(str_to_bool(STR("F"), &b) && !b);
	assert_true(str_to_bool(STR("1"), &b) && b);
	assert_false(str_to_bool(STR("tRUE"), &b));
	assert_false(str_to_bool(STR(""), &b));
	assert_true(b);
	assert_true(v == INT64_MIN);
}

static void str_search(void **state)
{
	assert_true(str_has_prefix(STR("kube-system"), STR("kube-")));
	assert_false(str_has_suffix(STR("a"), STR("aa")));
	assert_int_equal(str_find(STR("abcabd"), STR("abd")), 3);
	assert_true(str_cmp(STR("a"), STR("ab")) < 0);
	assert_str(str_trim(STR(" \tx\n")), "x");
	assert_str(str_sub(STR("abc"), 1, 99), "bc");
}

static void arena_lists(void **state)
{
	struct arena a = {0};
	LIST(int) l = {0};

	for (int i = 0; i < 1000; i++)
		*arena_push(&a, &l) = i;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(l.v[i], i);
	/* A list that was not grown by arena_push is copied, never overrun. */
	int three[3] = {1, 2, 3};
	LIST(int) m = {three, 3, 0};

	*arena_push(&a, &m) = 4;
	assert_ptr_not_equal(m.v, three);
	assert_int_equal(m.v[2], 3);
	assert_int_equal(m.v[3], 4);
	arena_reset(&a);
	assert_str(arena_printf(&a, "%d-%s", 5, "x"), "5-x");
	arena_free(&a);
}

static void buf_limits(void **state)
{
	struct buf b = {.limit = 4};

	buf_puts(&b, "abc");
	buf_puts(&b, "de");
	buf_puts(&b, "f");
	assert_true(b.overflow);
	assert_str(buf_view(&b), "abc");
	buf_free(&b);
}

static void buf_quotes(void **state)
{
	struct buf b = {0};

	buf_quote(&b, STR("a\"\\<\x07\t\x1f\x7f" "\xc3\xa4" "\xff" "\xe4z"));
	assert_str(buf_view(&b), "\"a\\\"\\\\<\\a\\t\\x1f\\x7f" "\xc3\xa4" "\\xff\\xe4z\"");
	buf_free(&b);
}

static void map_many(void **state)
{
	struct map m = {0};
	char key[16];

	for (intptr_t i = 1; i <= 5000; i++) {
		snprintf(key, sizeof key, "k%d", (int)i);
		assert_null(map_set(&m, str_from(key), (void *)i));
	}
	for (intptr_t i = 1; i <= 5000; i += 2) {
		snprintf(key, sizeof key, "k%d", (int)i);
		assert_ptr_equal(map_del(&m, str_from(key)), (void *)i);
	}
	assert_int_equal(m.n, 2500);
	for (intptr_t i = 1; i <= 5000; i++) {
		snprintf(key, sizeof key, "k%d", (int)i);
		assert_ptr_equal(map_get(&m, str_from(key)), i % 2 ? NULL : (void *)i);
	}
	size_t it = 0, n = 0;

	while (map_next(&m, &it, NULL, NULL))
		n++;
	assert_int_equal(n, 2500);
	map_free(&m);
}

static int freed;

static void count_value(void *v)
{
	freed += v ? *(int *)v : 100;
}

static void map_values(void **state)
{
	struct map m = {0};
	int ones[] = {1, 1, 1}, gone = 10;

	map_free_values(&m, count_value);
	assert_int_equal(freed, 0);
	map_set(&m, STR("a"), &ones[0]);
	map_set(&m, STR("b"), &gone);
	map_set(&m, STR("b"), &ones[1]); /* what was replaced and what was deleted are no values any more */
	map_set(&m, STR("c"), &gone);
	map_del(&m, STR("c"));
	map_set(&m, STR("d"), &ones[2]);
	map_set(&m, STR("e"), NULL);
	map_free_values(&m, count_value);
	assert_int_equal(freed, 103);
	assert_int_equal(m.n, 0);
	assert_false(map_has(&m, STR("a")));
	assert_null(map_set(&m, STR("a"), &ones[0])); /* an empty map, good for more */
	map_free(&m);
}

static void errors_wrap(void **state)
{
	struct error *e = error_sys(ENOENT, "open %s", "x");

	e = error_wrap(e, "reading config");
	assert_true(error_is_sys(e, ENOENT));
	assert_string_equal(error_message(e), "reading config: open x: No such file or directory");
	error_add_cause(e, "FieldValueInvalid", "spec.x", "no %d", 1);
	assert_string_equal(e->causes[0].field, "spec.x");
	error_clear(&e);
	assert_null(error_wrap(NULL, "x"));
}

static void blocks_count(void **state)
{
	struct block *b = block_new(STR("hello"));

	block_ref(b);
	block_unref(b);
	assert_str(block_str(b), "hello");
	block_unref(b);
}

static void upstream_flags_are_known(void **state)
{
	static const struct upstream_flags f = {"c", "quiet! size log", "lost! path"};
	static const struct option own[] = {{"name", required_argument, NULL, 1}, {"log", no_argument, NULL, 2}, {0}};
	char *argv[] = {"c", "--name", "--size", "--size", "3", "--quiet", "--size=4", "--log", "--quiet=false", "x", "--", "--path", NULL};
	const char *want[] = {"c", "--name", "--size", "--log", "x", "--", "--path"};
	int argc = 12;

	assert_int_equal(upstream_flags_sift(&f, own, &argc, argv), 0);
	assert_int_equal(argc, 7);
	for (int i = 0; i < argc; i++)
		assert_string_equal(argv[i], want[i]);
	assert_null(argv[argc]);
	char *refused[] = {"c", "--path=x", NULL}, *alone[] = {"c", "--lost", NULL}, *unknown[] = {"c", "--los", "--sizes", NULL};

	argc = 2;
	assert_int_equal(upstream_flags_sift(&f, own, &argc, refused), 2);
	argc = 2;
	assert_int_equal(upstream_flags_sift(&f, NULL, &argc, alone), 2);
	argc = 3; /* the component says what it thinks of those */
	assert_int_equal(upstream_flags_sift(&f, own, &argc, unknown), 0);
	assert_int_equal(argc, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(upstream_flags_are_known),
		cmocka_unit_test(str_cuts),
		cmocka_unit_test(sysctls),
		cmocka_unit_test(str_numbers),
		cmocka_unit_test(str_search),
		cmocka_unit_test(arena_lists),
		cmocka_unit_test(buf_limits),
		cmocka_unit_test(buf_quotes),
		cmocka_unit_test(map_many),
		cmocka_unit_test(map_values),
		cmocka_unit_test(errors_wrap),
		cmocka_unit_test(blocks_count),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
