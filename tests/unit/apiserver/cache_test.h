/* What the watch cache's tests share: a store in a directory of its own, resources, short calls. */
#ifndef SKIFF_TESTS_CACHE_TEST_H
#define SKIFF_TESTS_CACHE_TEST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../test.h"
#include "apiserver/cache_follow.h"
#include "apiserver/cache_internal.h"
#include "base/log.h"
#include "loop/io.h"

static char dir[] = "/tmp/skiff-cache-XXXXXX";
static struct store *store;

static const struct cache_field pod_fields[] = {
	{STR_INIT("spec.nodeName"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("status.phase"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("spec.hostNetwork"), STR_INIT(""), STR_INIT("false"), STR_INIT("")},
};
static const struct cache_resource pods = {
	.prefix = STR_INIT("/registry/pods/"), .group = STR_INIT(""), .version = STR_INIT("v1"), .kind = STR_INIT("Pod"),
	.type = &core_v1_pod_type, .namespaced = true, .fields = pod_fields, .n_fields = 3, .node_field = 0,
};
static const struct cache_field widget_fields[] = {
	{STR_INIT("spec.color"), STR_INIT(""), STR_INIT("none"), STR_INIT("spec.paint.name")},
};
static const struct cache_resource widgets = {
	.prefix = STR_INIT("/registry/example.com/widgets/"), .group = STR_INIT("example.com"), .version = STR_INIT("v1"),
	.kind = STR_INIT("Widget"), .namespaced = false, .fields = widget_fields, .n_fields = 1, .node_field = -1,
};

static inline void open_store(void)
{
	struct store_opts o = {.dir = dir, .map_size = (size_t)1 << 30};
	assert_ok(store_open(&o, &store));
}

/* The JSON of e; valid until the call after the next. */
static inline struct str json_of(const struct cache *c, const struct cache_entry *e)
{
	static struct buf bufs[2];
	static unsigned turn;
	struct buf *b = &bufs[turn++ % 2];
	struct block *json;
	assert_ok(cache_entry_json(c, e, &json));
	b->n = 0;
	buf_str(b, block_str(json));
	block_unref(json);
	/* What is kept and what is made anew are the same. */
	size_t n = b->n;
	assert_ok(cache_entry_json_append(c, e, STR_NULL, b));
	assert_true(b->n == 2 * n && !memcmp(b->p, b->p + n, n));
	return str_of(b->p, n);
}

/* metadata.resourceVersion as the entry's bytes have it. */
static inline void rv_is(const struct cache_entry *e, int64_t rev)
{
	struct arena a = {0};
	struct meta_v1_partial_object_metadata m = {0};
	char want[24];
	snprintf(want, sizeof(want), "%lld", (long long)rev);
	assert_ok(cache_entry_decode(&a, &meta_v1_partial_object_metadata_type, e, false, &m));
	assert_str(m.metadata.resource_version, want);
	arena_free(&a);
}

#define CACHE_TEST(name)                                                                           \
	static void name##_body(void *arg);                                                        \
	static void name(void **state)                                                             \
	{                                                                                          \
		snprintf(dir, sizeof(dir), "/tmp/skiff-cache-XXXXXX");                             \
		assert_non_null(mkdtemp(dir));                                                     \
		assert_ok(loop_run(name##_body, NULL));                                            \
	}                                                                                          \
	static void name##_body(void *arg)

static inline void done(void)
{
	store_close(store);
	store = NULL;
	assert_ok(dir_remove(dir));
}

/* Writes a pod (protobuf in the store, JSON by hand-over); returns its revision, 0: the comparison failed. */
static inline int64_t put_pod(struct cache *c, const char *ns, const char *name, const char *node, const char *app, int64_t expect)
{
	struct arena a = {0};
	struct core_v1_pod *p = arena_new(&a, struct core_v1_pod);
	p->kind = STR("Pod");
	p->api_version = STR("v1");
	p->metadata.name = str_from(name);
	p->metadata.namespace = str_from(ns);
	p->metadata.uid = str_from("0b5e2f6e-0000-4000-8000-000000000001");
	if (app)
		str_map_set(&a, API_MAP(&p->metadata.labels), STR("app"), str_from(app));
	p->spec.node_name = str_from(node);
	p->status.phase = STR("Running");
	struct buf pb = {0};
	object_encode(&pb, MEDIA_PROTOBUF, &core_v1_pod_type, p);
	bool ok;
	struct cache_entry *e;
	assert_ok(cache_put(c, str_from(ns), str_from(name), expect, buf_view(&pb), STR_NULL, 0, 0, &ok, &e));
	int64_t rev = ok ? e->rev : 0;
	cache_entry_unref(e);
	buf_free(&pb);
	arena_free(&a);
	return rev;
}

static inline int64_t del(struct cache *c, const char *ns, const char *name)
{
	bool ok;
	struct cache_entry *e;
	assert_ok(cache_delete(c, str_from(ns), str_from(name), STORE_ANY, &ok, &e));
	int64_t rev = ok ? e->rev : 0;
	cache_entry_unref(e);
	return rev;
}

static inline void list_is(struct cache *c, struct cache_snap *s, const char *ns, const char *after, const struct cache_filter *f, const char *want)
{
	struct buf b = {0};
	struct cache_iter it;
	const struct cache_entry *e;
	cache_iter_init(&it, c, s, str_from(ns), str_from(after), f);
	while ((e = cache_iter_next(&it)))
		buf_printf(&b, "%.*s@%lld ", STR_ARG(cache_entry_key(e)), (long long)e->rev);
	assert_string_equal(buf_z(&b), want);
	buf_free(&b);
}

static inline void now_is(struct cache *c, const char *ns, const struct cache_filter *f, const char *want)
{
	struct cache_snap *s;
	assert_ok(cache_snapshot(c, CACHE_CONSISTENT, 0, &s));
	list_is(c, s, ns, "", f, want);
	cache_snap_free(s);
}

static inline void event(struct cache_watch *w, enum cache_event_type t, const char *key, int64_t rev)
{
	struct cache_event ev;
	int64_t d = deadline_push(3000);
	struct error *e = cache_watch_next(w, &ev);
	deadline_pop(d);
	if (e)
		fail_msg("waiting for %s@%lld: %s", key ? key : "a bookmark", (long long)rev, error_message(e));
	assert_int_equal(ev.type, t);
	assert_int_equal(ev.rev, rev);
	if (t == CACHE_BOOKMARK) {
		assert_null(ev.obj);
		return;
	}
	assert_str(cache_entry_key(ev.obj), key);
	rv_is(ev.obj, rev);
}

static inline void quiet(struct cache_watch *w)
{
	assert_false(cache_watch_ready(w));
	struct cache_event ev;
	int64_t d = deadline_push(20);
	struct error *e = cache_watch_next(w, &ev);
	deadline_pop(d);
	assert_true(error_is_sys(e, ETIMEDOUT));
	error_free(e);
}

static inline void field_is(struct cache *c, const struct cache_entry *e, size_t i, const char *want)
{
	struct str v = cache_entry_field(c, e, i);
	if (!str_eqz(v, want))
		fail_msg("field %zu is \"%.*s\", not \"%s\"", i, STR_ARG(v), want);
}

#endif
