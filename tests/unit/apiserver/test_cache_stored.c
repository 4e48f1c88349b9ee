/* The watch cache over values that cannot be read, not yet, or only by who knows more than the schema. */
#include "cache_test.h"

/* ---- values that nobody can read ---- */

static void put_value(const char *key, const char *value)
{
	int64_t rev;
	bool ok;
	assert_ok(store_put(store, str_from(key), str_from(value), STORE_ANY, 0, 0, NULL, &ok, &rev, NULL));
}

static void whole(struct cache *c, bool want)
{
	struct error *e = cache_whole(c);
	if (want)
		assert_null(e);
	else
		assert_true(error_is(e, 429, "TooManyRequests") && e->retry_after_seconds == 1);
	error_free(e);
}

/* Of the pod a/one, what is written of it instead. */
static void refused(struct cache *c)
{
	struct cache_entry *e;
	struct error *err = cache_get(c, STR("a"), STR("one"), CACHE_CONSISTENT, 0, &e);
	assert_true(error_is(err, 500, "") && !e); /* which says no more: "InternalError" is what cannot be opened */
	error_free(err);
	err = cache_readable(c);
	assert_true(error_is(err, 500, ""));
	error_free(err);
	assert_int_equal(put_pod(c, "a", "one", "n1", "web", 0), 0); /* it is there */
	whole(c, false);
}

static const char pod_one[] = "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"one\",\"namespace\":\"a\"}}";

/* Before what is written of a/one: the past is served, single objects are the store's, writes go on and nobody is told of them. */
static void stands_still(struct cache *c, struct cache_watch *w)
{
	struct cache_entry *e;
	struct cache_snap *s;
	struct error *err = cache_get(c, STR("a"), STR("one"), CACHE_CONSISTENT, 0, &e);
	assert_true(error_is(err, 500, "") && !e);
	error_free(err);
	assert_int_equal(put_pod(c, "a", "three", "n1", "web", 0), 4);
	assert_ok(cache_get(c, STR("a"), STR("three"), CACHE_CONSISTENT, 0, &e));
	assert_int_equal(e->rev, 4);
	cache_entry_unref(e);
	assert_int_equal(del(c, "a", "three"), 5);
	assert_ok(cache_get(c, STR("a"), STR("three"), CACHE_CONSISTENT, 0, &e));
	assert_null(e);
	assert_int_equal(cache_rev(c), 2);
	assert_ok(cache_snapshot(c, CACHE_ANY, 0, &s));
	list_is(c, s, "", "", NULL, "a/one@2 ");
	cache_snap_free(s);
	quiet(w);
	whole(c, true);
}

static void until_refused(struct cache *c)
{
	struct error *e;
	while (!(e = cache_whole(c)))
		assert_ok(fiber_sleep(5));
	error_free(e);
}

static void ended(struct cache_watch *w)
{
	struct cache_event ev;
	struct error *e = cache_watch_next(w, &ev);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	cache_watch_close(w);
}

CACHE_TEST(broken)
{
	open_store();
	struct cache *c;
	struct cache_resource r = pods;
	r.held_ms = 50;
	assert_ok(cache_new(store, &r, &c));
	put_pod(c, "a", "one", "n1", "web", 0); /* 2 */
	struct cache_watch *w;
	struct cache_watch_opts o = {.rev = 2};
	assert_ok(cache_watch_open(c, &o, &w));
	whole(c, true);
	put_value("/registry/pods/a/one", "no object"); /* 3 */
	stands_still(c, w);
	until_refused(c); /* after a while the cache does not wait for it any more */
	ended(w);
	refused(c);
	put_value("/registry/pods/a/four", "no object"); /* 6: one more */
	put_pod(c, "a", "two", "n1", "web", 0); /* 7 */
	now_is(c, "", NULL, "a/two@7 ");
	put_value("/registry/pods/a/four", pod_one); /* 8 */
	whole(c, false);
	put_value("/registry/pods/a/one", pod_one); /* 9 */
	now_is(c, "", NULL, "a/four@8 a/one@9 a/two@7 ");
	whole(c, true);
	put_value("/registry/pods/a/one", "no object"); /* 10 */
	cache_free(c);
	assert_ok(cache_new(store, &pods, &c));
	refused(c);
	now_is(c, "", NULL, "a/four@8 a/two@7 ");
	bool ok;
	int64_t rev;
	assert_ok(store_delete(store, STR("/registry/pods/a/one"), STORE_ANY, &ok, &rev, NULL)); /* 11 */
	struct cache_entry *e;
	assert_ok(cache_get(c, STR("a"), STR("one"), CACHE_CONSISTENT, 0, &e));
	assert_null(e);
	whole(c, true);
	cache_free(c);
	done();
}

/* ---- values whose key is elsewhere ---- */

static bool locked;
static int asked;

static struct error *unlock(void *ctx, struct str key, struct str stored, bool may_wait, struct buf *out)
{
	asked += may_wait;
	if (locked || !may_wait)
		return error_sys(EAGAIN, "the key of %.*s", STR_ARG(key));
	buf_str(out, stored);
	return NULL;
}

static uint8_t first_byte(void *ctx, struct str stored)
{
	return (uint8_t)stored.p[0];
}

static void put_foreign(const char *name)
{
	char key[100], value[100];
	int64_t rev;
	bool ok;
	snprintf(key, sizeof(key), "/registry/example.com/widgets/%s", name);
	snprintf(value, sizeof(value), "{\"metadata\":{\"name\":\"%s\"}}", name);
	assert_ok(store_put(store, str_from(key), str_from(value), STORE_ANY, 0, 0, NULL, &ok, &rev, NULL));
}

static struct error *seen;
static void read_third(void *arg)
{
	struct cache_snap *s = NULL;
	seen = cache_snapshot(arg, CACHE_CONSISTENT, 0, &s);
	cache_snap_free(s);
}

static void until_asked(int n)
{
	for (int from = asked; asked < from + n;)
		assert_ok(fiber_sleep(1));
}

CACHE_TEST(waits_for_keys)
{
	struct cache_resource r = widgets;
	struct cache_entry *e;
	struct cache_watch *w;
	struct cache *c;
	open_store();
	r.plain = unlock;
	r.sealed = first_byte;
	r.held_ms = 3300;
	put_foreign("one");
	locked = true;
	struct error *err = cache_new(store, &r, &c);
	assert_true(error_is_sys(err, EAGAIN));
	error_free(err);
	/* Not loaded: an answer would say that there is nothing. */
	r.late = true;
	assert_ok(cache_new(store, &r, &c));
	assert_false(cache_loaded(c));
	err = cache_get(c, STR(""), STR("one"), CACHE_ANY, 0, &e);
	assert_true(error_is(err, 500, "InternalError"));
	error_free(err);
	err = cache_watch_open(c, &(struct cache_watch_opts){.initial = true, .mode = CACHE_ANY}, &w);
	assert_true(error_is(err, 429, "TooManyRequests"));
	error_free(err);
	locked = false;
	until_asked(1);
	assert_true(cache_loaded(c));
	now_is(c, "", NULL, "one@2 ");
	assert_int_equal(cache_peek(c, STR(""), STR("one"))->sealed, '{');
	/* An event that cannot be read holds what is behind it; nobody is told a later revision. */
	locked = true;
	put_foreign("two");
	put_foreign("three");
	assert_int_equal(cache_rev(c), 2);
	struct fiber *f = fiber_start("reader", read_third, c);
	until_asked(2);
	assert_null(cache_peek(c, STR(""), STR("two")));
	assert_int_equal(cache_rev(c), 2);
	locked = false;
	fiber_join(f);
	assert_null(seen);
	now_is(c, "", NULL, "one@2 three@4 two@3 ");
	/* One that does not come: consistent reads say so, other ones after a while. */
	locked = true;
	put_foreign("three");
	err = cache_get(c, STR(""), STR("three"), CACHE_CONSISTENT, 0, &e);
	assert_true(error_is(err, 500, "InternalError"));
	error_free(err);
	struct cache_snap *s;
	err = cache_snapshot(c, CACHE_CONSISTENT, 0, &s); /* asks the store after three seconds */
	assert_true(error_is(err, 500, "InternalError"));
	error_free(err);
	assert_true(cache_loaded(c));
	until_refused(c);
	assert_false(cache_loaded(c));
	locked = false;
	assert_ok(cache_get(c, STR(""), STR("one"), CACHE_ANY, 0, &e));
	cache_entry_unref(e);
	while (!cache_loaded(c))
		assert_ok(fiber_sleep(5));
	now_is(c, "", NULL, "one@2 three@5 two@3 ");
	/* One that never comes: the cache can be freed. */
	locked = true;
	put_foreign("three");
	cache_free(c);
	done();
}

/* ---- objects of other releases ---- */

static struct error *younger(void *ctx, struct arena *a, struct str api_version, struct str text, void *obj)
{
	struct core_v1_pod *p = obj;
	if (!p->spec.scheduler_name.n)
		p->spec.scheduler_name = arena_printf(a, "%s of %.*s", (const char *)ctx, STR_ARG(api_version));
	return NULL;
}

static void put_raw(const char *name, struct str value)
{
	char key[100];
	int64_t rev;
	bool ok;
	snprintf(key, sizeof(key), "/registry/pods/ns/%s", name);
	assert_ok(store_put(store, str_from(key), value, STORE_ANY, 0, 0, NULL, &ok, &rev, NULL));
}

static void scheduler_is(struct cache *c, const char *name, const char *want, bool filled)
{
	struct arena a = {0};
	struct core_v1_pod p = {0};
	struct cache_entry *e;
	assert_ok(cache_get(c, STR("ns"), str_from(name), CACHE_CONSISTENT, 0, &e));
	assert_non_null(e);
	assert_int_equal(e->unlike, filled);
	assert_ok(cache_entry_decode(&a, &core_v1_pod_type, e, false, &p));
	assert_str(p.spec.scheduler_name, want);
	assert_str(p.metadata.name, name);
	cache_entry_unref(e);
	arena_free(&a);
}

CACHE_TEST(completes)
{
	struct cache_resource r = pods;
	struct core_v1_pod p = {.kind = STR("Pod"), .api_version = STR("v0")};
	struct buf pb = {0};
	struct cache *c;
	open_store();
	r.complete = younger;
	r.complete_ctx = (char[]){"new"};
	/* What is loaded, in either encoding, and what others write later. */
	p.metadata.name = STR("old");
	object_encode(&pb, MEDIA_PROTOBUF, &core_v1_pod_type, &p);
	put_raw("old", buf_view(&pb));
	put_raw("json", STR("{\"apiVersion\":\"v00\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"json\"}}"));
	put_raw("whole", STR("{\"kind\":\"Pod\",\"metadata\":{\"name\":\"whole\"},\"spec\":{\"schedulerName\":\"s\"}}"));
	assert_ok(cache_new(store, &r, &c));
	scheduler_is(c, "old", "new of v0", true);
	scheduler_is(c, "json", "new of v00", true);
	scheduler_is(c, "whole", "s", false);
	p.metadata.name = STR("later");
	pb.n = 0;
	object_encode(&pb, MEDIA_PROTOBUF, &core_v1_pod_type, &p);
	put_raw("later", buf_view(&pb));
	scheduler_is(c, "later", "new of v0", true);
	/* Ours is as we wrote it. */
	put_pod(c, "ns", "own", "n", NULL, 0);
	scheduler_is(c, "own", "", false);
	buf_free(&pb);
	cache_free(c);
	done();
}

int main(void)
{
	log_init("test", 0);
	const struct CMUnitTest tests[] = {cmocka_unit_test(broken), cmocka_unit_test(waits_for_keys), cmocka_unit_test(completes)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
