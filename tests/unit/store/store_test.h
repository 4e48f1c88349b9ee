/* What the store's tests share: a directory of their own, stores in it, short calls. */
#ifndef SKIFF_TESTS_STORE_TEST_H
#define SKIFF_TESTS_STORE_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../test.h"
#include "base/log.h"
#include "loop/io.h"
#include "store/store.h"

static char test_dir[] = "/tmp/skiff-store-XXXXXX";

static inline void test_dir_make(void)
{
	snprintf(test_dir, sizeof(test_dir), "/tmp/skiff-store-XXXXXX");
	if (!mkdtemp(test_dir))
		abort();
}

static inline struct store *open_at(const char *dir, int64_t history_ms)
{
	struct store_opts o = {.dir = dir, .history_ms = history_ms, .map_size = (size_t)1 << 30};
	struct store *s;
	assert_ok(store_open(&o, &s));
	return s;
}

/* Writes; returns the revision, 0 when the comparison failed. */
static inline int64_t put_if(struct store *s, const char *key, const char *value, int64_t expect, unsigned flags)
{
	bool ok;
	int64_t rev;
	assert_ok(store_put(s, str_from(key), str_from(value), expect, 0, flags, NULL, &ok, &rev, NULL));
	return ok ? rev : 0;
}
static inline int64_t put(struct store *s, const char *key, const char *value)
{
	return put_if(s, key, value, STORE_ANY, 0);
}
static inline int64_t del_if(struct store *s, const char *key, int64_t expect)
{
	bool ok;
	int64_t rev;
	assert_ok(store_delete(s, str_from(key), expect, &ok, &rev, NULL));
	return ok ? rev : 0;
}

static inline void want_value(struct store *s, const char *key, int64_t rev, const char *value)
{
	bool found;
	struct store_kv kv;
	assert_ok(store_get(s, str_from(key), rev, &found, &kv));
	if (!value) {
		assert_false(found);
		return;
	}
	assert_true(found);
	assert_str(block_str(kv.value), value);
	store_kv_free(&kv);
}

static inline bool append_kv(void *ctx, struct store_kv *kv)
{
	struct buf *b = ctx;
	buf_printf(b, "%.*s=%.*s ", STR_ARG(kv->key), STR_ARG(block_str(kv->value)));
	return true;
}
static inline void want_range(struct store *s, const char *start, const char *end, int64_t rev, size_t limit, const char *want)
{
	struct buf b = {0};
	assert_ok(store_range(s, str_from(start), str_from(end), &rev, limit, append_kv, &b));
	assert_string_equal(buf_z(&b), want);
	buf_free(&b);
}

/* A range by way of a view: the keys first, then the values. */
struct viewed {
	struct store_view *view;
	struct store_kv *kv; /* their keys are malloc'ed */
	size_t n, cap, apart;
	struct error *e;
};
static inline bool viewed_kv(void *ctx, struct store_kv *kv)
{
	struct viewed *v = ctx;
	if (v->n == v->cap)
		v->kv = xrealloc(v->kv, (v->cap = v->cap ? 2 * v->cap : 64) * sizeof(*v->kv));
	v->kv[v->n] = *kv;
	v->kv[v->n++].key = str_of(str_dupz(kv->key), kv->key.n);
	v->apart += !kv->value;
	kv->value = NULL;
	return true;
}
/* Reads the values that did not come with their keys. On any thread. */
static inline void viewed_fetch(void *viewed)
{
	struct viewed *v = viewed;
	for (size_t i = 0; i < v->n && !v->e; i++) {
		struct store_kv *kv = &v->kv[i];
		struct str value;
		if (!kv->value && !(v->e = store_view_value(v->view, kv->key, kv->mod_rev, &value)))
			kv->value = block_new(value);
	}
}
/* As append_kv writes them. Ends the view. */
static inline void viewed_append(struct viewed *v, struct buf *b)
{
	viewed_fetch(v);
	assert_ok(v->e);
	for (size_t i = 0; i < v->n; i++) {
		append_kv(b, &v->kv[i]);
		store_kv_free(&v->kv[i]);
	}
	store_view_end(v->view);
	free(v->kv);
	*v = (struct viewed){0};
}

/* A cmocka test that runs `body` as the first fiber of a loop. */
#define LOOP_TEST(name)                                                                            \
	static void name##_body(void *arg);                                                        \
	static void name(void **state)                                                             \
	{                                                                                          \
		test_dir_make();                                                                   \
		assert_ok(loop_run(name##_body, NULL));                                            \
	}                                                                                          \
	static void name##_body(void *arg)

#endif
