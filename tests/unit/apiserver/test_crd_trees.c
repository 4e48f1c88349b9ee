/* Schemas of custom resources as trees (apiserver/crd_internal.h): made when asked for, gone when unused. */
#include "../test.h"

#include "apiserver/crd_internal.h"
#include "loop/fiber.h"

#define N 3

static struct apiserver server;
static struct crds table;
static struct crd definition = {.s = &server};
static struct crd_version versions[N];
static struct resource resources[N];
static struct str schemas[N];

static void make(struct arena *a)
{
	table = (struct crds){0};
	server.crds = &table;
	server.grace = grace_new();
	for (int i = 0; i < N; i++) {
		struct apiextensions_v1_json_schema_props p = {.type = STR("object"), .description = arena_printf(a, "number %d", i)};
		struct buf b = {0};

		pb_encode(&b, &apiextensions_v1_json_schema_props_type, &p);
		schemas[i] = i < N - 1 ? arena_str(a, buf_view(&b)) : STR_NULL;
		buf_free(&b);
		versions[i] = (struct crd_version){.schema = &schemas[i]};
		resources[i] = (struct resource){.crd = &definition, .crd_version = &versions[i]};
	}
}

static void until_freed(uint64_t n)
{
	for (int i = 0; i < 1000 && grace_stats(server.grace).freed < n; i++)
		assert_ok(fiber_sleep(1));
	assert_int_equal(grace_stats(server.grace).freed, n);
}

static void trees(void *arg)
{
	struct arena a arena_cleanup = {0};
	struct grace_reader reader = {0};
	struct crd_tree *first, *second;

	make(&a);
	assert_null(crd_tree_at(&resources[N - 1], 1)); /* has none */
	first = crd_tree_at(&resources[0], 1);
	assert_str(first->schema->description, "number 0");
	assert_ptr_equal(crd_tree_at(&resources[0], 2), first);
	second = crd_tree_at(&resources[1], CRD_TREE_UNUSED_NS);
	assert_str(second->schema->description, "number 1");
	assert_ptr_equal(versions[0].tree, first); /* not for so long yet */

	/* The first goes, but not from under a request that has it. */
	grace_enter(server.grace, &reader);
	first = crd_tree_at(&resources[0], CRD_TREE_UNUSED_NS + 1);
	assert_ptr_equal(crd_tree_at(&resources[1], 2 * CRD_TREE_UNUSED_NS + 2), second);
	assert_null(versions[0].tree);
	assert_int_equal(grace_stats(server.grace).retired, 1);
	assert_str(first->schema->description, "number 0");
	grace_leave(&reader);
	until_freed(1);

	/* Asked for again it is made anew; the one that was asked for longest ago is the next to go. */
	first = crd_tree_at(&resources[0], 2 * CRD_TREE_UNUSED_NS + 3);
	assert_str(first->schema->description, "number 0");
	assert_ptr_equal(crd_tree_at(&resources[0], 3 * CRD_TREE_UNUSED_NS + 3), first);
	assert_null(versions[1].tree);
	until_freed(2);
	crd_tree_drop(&table, &versions[0]);
	crd_tree_drop(&table, &versions[1]);
	assert_null(table.newest);
	assert_null(table.oldest);
}

static void test_trees(void **state)
{
	assert_ok(loop_run(trees, NULL));
}

/* Stored bytes are answered as they stand only when this server has written them, through the schema of now. */
static bool fits(const char *text, int64_t rev, const char *uid)
{
	struct cache_entry e = {.rev = rev, .body = block_new(str_from(text))};
	const char *at = uid ? strstr(text, uid) : NULL;
	bool r;

	if (at)
		e.uid = (struct cache_slice){(uint32_t)(at - text), (uint32_t)strlen(uid)};
	r = custom_bytes_fit(&resources[0], &e);
	block_unref(e.body);
	return r;
}

static void test_fits(void **state)
{
#define BEGIN "{\"apiVersion\":\"e.io/v1\",\"kind\":\"A\","
	const char *ours = BEGIN "\"metadata\":{\"name\":\"a\",\"uid\":\"u-1\"}}";

	(void)state;
	versions[0] = (struct crd_version){.json_version = STR("\"apiVersion\":\"e.io/v1\"")};
	resources[0] = (struct resource){.crd = &definition, .crd_version = &versions[0]};
	definition.rev = 5;
	assert_true(fits(ours, 6, "u-1"));
	assert_false(fits(ours, 5, "u-1"));
	assert_true(fits("{\"a\":{\"apiVersion\":\"no\",\"b\":[1,\"\\\"}\",{}]},\"aa\":\"x\\\\\"," "\"apiVersion\":\"e.io/v1\",\"uid\":\"u-1\"}", 6, "u-1"));
	assert_false(fits("{\"a\":{\"apiVersion\":\"e.io/v1\"},\"aa\":1,\"apiVersion\":\"e.io/v2\",\"uid\":\"u-1\"}", 6, "u-1"));
	assert_false(fits("{\"a\":{\"apiVersion\":\"e.io/v1\"},\"uid\":\"u-1\"}", 6, "u-1"));
	assert_false(fits(BEGIN "\"metadata\":{\"name\":\"a\",\"uid\":\"u-1\"}}\n", 6, "u-1"));
	assert_false(fits("{\"kind\":\"A\",\"apiVersion\":\"e.io/v1\",\"metadata\":{\"uid\":\"u-1\"}}", 6, "u-1"));
	assert_false(fits(BEGIN "\"metadata\":{\"name\":\"a\",\"unknown\":42}}", 6, NULL));
	definition.rev = 0;
#undef BEGIN
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_trees), cmocka_unit_test(test_fits)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
