#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_test.h"

static void cleanup(void)
{
	assert_ok(dir_remove(test_dir));
}

LOOP_TEST(semantics)
{
	struct store *s = open_at(test_dir, 0);
	assert_int_equal(store_revision(s), 1);
	int64_t a = put(s, "/a", "1");
	assert_int_equal(a, 2);
	assert_int_equal(put_if(s, "/a", "x", 0, 0), 0);
	assert_int_equal(put_if(s, "/b", "2", 0, 0), 3);
	assert_int_equal(put_if(s, "/a", "x", 99, 0), 0);
	assert_int_equal(put_if(s, "/a", "1b", a, 0), 4);
	bool found, ok;
	int64_t rev;
	struct store_kv kv;
	assert_ok(store_get(s, STR("/a"), 0, &found, &kv));
	assert_true(found && kv.create_rev == 2 && kv.mod_rev == 4 && kv.version == 2);
	assert_str(kv.key, "/a");
	store_kv_free(&kv);
	/* A failed comparison shows what is there. */
	assert_ok(store_put(s, STR("/a"), STR("y"), 2, 0, 0, NULL, &ok, &rev, &kv));
	assert_true(!ok && kv.mod_rev == 4);
	assert_str(block_str(kv.value), "1b");
	store_kv_free(&kv);
	assert_ok(store_delete(s, STR("/none"), STORE_ANY, &ok, &rev, &kv));
	assert_true(!ok && kv.mod_rev == 0);
	assert_int_equal(del_if(s, "/a", 2), 0);
	assert_int_equal(del_if(s, "/a", 4), 5);
	want_value(s, "/a", 0, NULL);
	assert_int_equal(put_if(s, "/a", "again", 0, 0), 6);
	assert_ok(store_get(s, STR("/a"), 0, &found, &kv));
	assert_true(found && kv.create_rev == 6 && kv.version == 1);
	store_kv_free(&kv);
	/* Old revisions. */
	want_value(s, "/a", 2, "1");
	want_value(s, "/a", 3, "1");
	want_value(s, "/a", 4, "1b");
	want_value(s, "/a", 5, NULL);
	want_value(s, "/a", 6, "again");
	want_range(s, "/", "0", 4, 0, "/a=1b /b=2 ");
	want_range(s, "/", "0", 5, 0, "/b=2 ");
	want_range(s, "/", "", 0, 0, "/a=again /b=2 ");
	want_range(s, "/", "0", 0, 1, "/a=again ");
	want_range(s, "/a", "/b", 0, 0, "/a=again ");
	size_t n;
	assert_ok(store_count(s, STR("/"), STR("0"), &n));
	assert_int_equal(n, 2);
	int64_t future = 7;
	struct error *e = store_range(s, STR("/"), STR("0"), &future, 0, append_kv, NULL);
	assert_true(error_is(e, 504, "Timeout"));
	error_free(e);
	e = store_put(s, STR(""), STR("x"), 0, 0, 0, NULL, &ok, &rev, NULL);
	assert_true(error_is(e, 400, "BadRequest"));
	error_free(e);
	struct block *big = block_new(str_of(NULL, STORE_VALUE_MAX + 1));
	e = store_put(s, STR("/big"), block_str(big), 0, 0, 0, NULL, &ok, &rev, NULL);
	assert_true(error_is(e, 413, "RequestEntityTooLarge"));
	error_free(e);
	memset(big->bytes, 'x', big->n);
	assert_ok(store_put(s, STR("/big"), str_of(big->bytes, STORE_VALUE_MAX), 0, 0, 0, NULL, &ok, &rev, NULL));
	assert_ok(store_get(s, STR("/big"), 0, &found, &kv));
	assert_true(found && str_eq(block_str(kv.value), str_of(big->bytes, STORE_VALUE_MAX)));
	store_kv_free(&kv);
	block_unref(big);
	store_close(s);
	cleanup();
}

static void next(struct store_watch *w, bool is_delete, const char *key, const char *value, int64_t rev)
{
	struct store_event e;
	assert_ok(store_watch_next(w, &e, NULL));
	assert_str(e.kv.key, key);
	assert_int_equal(e.is_delete, is_delete);
	assert_int_equal(e.kv.mod_rev, rev);
	if (value)
		assert_str(block_str(e.kv.value), value);
	else
		assert_null(e.kv.value);
	store_event_free(&e);
}

static size_t notified;
static struct store_watch *drained;
static int64_t drained_rev;
static void drain(void *ctx)
{
	notified++;
	for (;;) {
		struct store_event e;
		bool got;
		assert_ok(store_watch_poll(drained, &e, &got, &drained_rev));
		if (!got)
			return;
		*(int64_t *)ctx = e.kv.mod_rev;
		store_event_free(&e);
	}
}

LOOP_TEST(watches)
{
	struct store *s = open_at(test_dir, 0);
	put(s, "/a/1", "x");
	struct store_watch *all, *a, *b;
	assert_ok(store_watch_open(s, STR("/"), STR("0"), 1, &all));
	assert_ok(store_watch_open(s, STR("/a/"), STR("/a0"), 2, &a));
	assert_ok(store_watch_open(s, STR("/b/"), STR("/b0"), 1, &b));
	int64_t seen = 0;
	store_watch_notify(b, drain, &seen);
	drained = b;
	put(s, "/b/1", "y");
	assert_int_equal(seen, 3); /* before the writer goes on */
	struct block *cookie = block_new(STR("cookie"));
	bool ok;
	int64_t rev;
	assert_ok(store_put(s, STR("/a/1"), STR("x2"), 2, 0, 0, cookie, &ok, &rev, NULL));
	del_if(s, "/a/1", STORE_ANY);
	put_if(s, "/a/1", "hb", 0, STORE_NOSYNC);
	next(all, false, "/a/1", "x", 2);
	next(all, false, "/b/1", "y", 3);
	next(all, false, "/a/1", "x2", 4);
	next(all, true, "/a/1", NULL, 5);
	next(all, false, "/a/1", "hb", 6);
	struct store_event e;
	assert_ok(store_watch_next(a, &e, NULL));
	assert_true(e.cookie == cookie && e.prev_rev == 2);
	store_event_free(&e);
	block_unref(cookie);
	next(a, true, "/a/1", NULL, 5);
	/* From history, dirty ones included. */
	struct store_watch *h;
	assert_ok(store_watch_open(s, STR("/"), STR("0"), 3, &h));
	put(s, "/c", "live");
	next(h, false, "/a/1", "x2", 4);
	next(h, true, "/a/1", NULL, 5);
	next(h, false, "/a/1", "hb", 6);
	next(h, false, "/c", "live", 7);
	bool got;
	int64_t progress;
	assert_ok(store_watch_poll(h, &e, &got, &progress));
	assert_true(!got && progress == 7);
	assert_ok(store_wait_seen(s, 7, 0));
	struct error *err = store_wait_seen(s, 8, 20);
	assert_true(error_is_sys(err, ETIMEDOUT));
	error_free(err);
	deadline_push(10);
	err = store_watch_next(h, &e, NULL);
	assert_true(error_is_sys(err, ETIMEDOUT));
	error_free(err);
	store_watch_close(all);
	store_watch_close(a);
	store_watch_close(b);
	store_close(s);
	err = store_watch_next(h, &e, NULL);
	assert_true(error_is_sys(err, ECANCELED));
	error_free(err);
	store_watch_close(h);
	cleanup();
}

LOOP_TEST(compaction)
{
	struct store *s = open_at(test_dir, 0);
	put(s, "/keep", "1");   /* 2 */
	put(s, "/k", "1");      /* 3 */
	put(s, "/k", "2");      /* 4 */
	put(s, "/gone", "1");   /* 5 */
	del_if(s, "/gone", STORE_ANY); /* 6 */
	put(s, "/k", "3");      /* 7 */
	assert_ok(store_compact(s, 6));
	int64_t rev = 5;
	struct error *e = store_range(s, STR("/"), STR("0"), &rev, 0, append_kv, NULL);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	struct store_watch *w;
	e = store_watch_open(s, STR("/"), STR("0"), 5, &w);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	want_range(s, "/", "0", 6, 0, "/k=2 /keep=1 ");
	assert_ok(store_watch_open(s, STR("/"), STR("0"), 6, &w));
	next(w, false, "/k", "3", 7);
	store_watch_close(w);
	put(s, "/x", "1"); /* 8: cleaning goes with it */
	want_range(s, "/", "0", 6, 0, "/k=2 /keep=1 ");
	want_range(s, "/", "0", 0, 0, "/k=3 /keep=1 /x=1 ");
	store_close(s);
	s = open_at(test_dir, 0);
	want_range(s, "/", "0", 6, 0, "/k=2 /keep=1 ");
	want_range(s, "/", "0", 0, 0, "/k=3 /keep=1 /x=1 ");
	rev = 5;
	e = store_range(s, STR("/"), STR("0"), &rev, 0, append_kv, NULL);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	/* The last record is a tombstone and is compacted away: the revision must not go back. */
	int64_t last = del_if(s, "/x", STORE_ANY);
	assert_ok(store_compact(s, last));
	store_close(s);
	s = open_at(test_dir, 0);
	assert_true(store_revision(s) >= last);
	struct store_stats st;
	store_stats(s, &st);
	assert_int_equal(st.keys, 2);
	store_close(s);
	cleanup();
}

LOOP_TEST(compaction_by_age)
{
	struct store *s = open_at(test_dir, 320);
	int64_t first = put(s, "/k", "0");
	int64_t until = now_ms() + 5000;
	struct error *e = NULL;
	char v[32];
	for (int i = 0; !e && now_ms() < until; i++) {
		snprintf(v, sizeof(v), "%d", i);
		put(s, "/k", v);
		int64_t rev = first;
		e = store_range(s, STR("/"), STR("0"), &rev, 0, append_kv, &(struct buf){.limit = 1});
		assert_ok(fiber_sleep(5));
	}
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	store_close(s);
	cleanup();
}

LOOP_TEST(nosync)
{
	struct store *s = open_at(test_dir, 0);
	put(s, "/lease/a", "v0");               /* 2 */
	struct store_stats st0, st;
	put_if(s, "/lease/a", "v1", 2, STORE_NOSYNC); /* 3: takes revisions, one commit */
	store_stats(s, &st0);
	for (int i = 0; i < 100; i++) {
		char v[16];
		snprintf(v, sizeof(v), "n%d", i);
		assert_int_equal(put_if(s, "/lease/a", v, 3 + i, STORE_NOSYNC), 4 + i);
	}
	put_if(s, "/lease/b", "new", 0, STORE_NOSYNC); /* 104 */
	store_stats(s, &st);
	assert_int_equal(st.commits, st0.commits);
	assert_int_equal(st.keys, 2);
	want_value(s, "/lease/a", 0, "n99");
	want_range(s, "/", "0", 0, 0, "/lease/a=n99 /lease/b=new ");
	/* Nor does LMDB's lock table reach the disk: it is memory. */
	char lock[4200];
	snprintf(lock, sizeof(lock), "%s/data.mdb-lock", test_dir);
	assert_int_equal(access(lock, F_OK), -1);
	assert_int_equal(put_if(s, "/lease/a", "x", 3, 0), 0);
	/* A synced write over it, and one in the same key space. */
	assert_int_equal(put_if(s, "/lease/a", "sync", 103, 0), 105);
	want_value(s, "/lease/a", 0, "sync");
	want_value(s, "/lease/a", 2, "v0");
	assert_int_equal(del_if(s, "/lease/b", 104), 106);
	want_value(s, "/lease/b", 0, NULL);
	put_if(s, "/lease/b", "back", 0, STORE_NOSYNC); /* 107 */
	put_if(s, "/lease/a", "end", 105, STORE_NOSYNC); /* 108 */
	store_close(s);
	s = open_at(test_dir, 0);
	assert_int_equal(store_revision(s), 108); /* a clean end: nothing lost, nothing skipped */
	want_range(s, "/", "0", 0, 0, "/lease/a=end /lease/b=back ");
	want_value(s, "/lease/a", 105, "sync");
	bool found;
	struct store_kv kv;
	assert_ok(store_get(s, STR("/lease/a"), 0, &found, &kv));
	assert_true(found && kv.mod_rev == 108 && kv.create_rev == 2);
	store_kv_free(&kv);
	store_close(s);
	cleanup();
}

LOOP_TEST(leases)
{
	struct store *s = open_at(test_dir, 0);
	int64_t id, kept, rev;
	bool ok;
	assert_ok(store_lease_grant(s, 150, &id));
	assert_ok(store_lease_grant(s, 3600000, &kept));
	assert_ok(store_put(s, STR("/e/1"), STR("x"), 0, id, 0, NULL, &ok, &rev, NULL));
	assert_ok(store_put(s, STR("/e/2"), STR("x"), 0, id, 0, NULL, &ok, &rev, NULL));
	assert_ok(store_put(s, STR("/e/3"), STR("x"), 0, id, 0, NULL, &ok, &rev, NULL));
	assert_ok(store_put(s, STR("/e/3"), STR("moved"), rev, kept, 0, NULL, &ok, &rev, NULL));
	struct error *e = store_put(s, STR("/e/4"), STR("x"), 0, 12345, 0, NULL, &ok, &rev, NULL);
	assert_true(error_is(e, 404, "NotFound"));
	error_free(e);
	struct store_watch *w;
	assert_ok(store_watch_open(s, STR("/"), STR("0"), store_revision(s), &w));
	struct store_event ev;
	deadline_push(5000);
	for (int i = 0; i < 2; i++) {
		assert_ok(store_watch_next(w, &ev, NULL));
		assert_true(ev.is_delete && (str_eqz(ev.kv.key, "/e/1") || str_eqz(ev.kv.key, "/e/2")));
		store_event_free(&ev);
	}
	want_range(s, "/", "0", 0, 0, "/e/3=moved ");
	/* The lease's own record goes last. */
	while (!(e = store_lease_keepalive(s, id)))
		assert_ok(fiber_sleep(5));
	assert_true(error_is(e, 404, "NotFound"));
	error_free(e);
	store_watch_close(w);
	store_close(s);
	s = open_at(test_dir, 0);
	assert_ok(store_lease_keepalive(s, kept));
	assert_ok(store_lease_revoke(s, kept));
	want_range(s, "/", "0", 0, 0, "");
	store_close(s);
	cleanup();
}

/* Many fibers at once: each comparison is answered once, revisions are given in order without gaps. */
struct racer {
	struct store *s;
	int wins, ops;
	int64_t last;
};
static void race(void *arg)
{
	struct racer *r = arg;
	for (int i = 0; i < 50; i++) {
		bool found, ok;
		struct store_kv kv, now;
		int64_t rev;
		assert_ok(store_get(r->s, STR("/counter"), 0, &found, &kv));
		int64_t n = 0;
		if (found)
			assert_true(str_to_i64(block_str(kv.value), &n));
		char v[32];
		snprintf(v, sizeof(v), "%lld", (long long)n + 1);
		assert_ok(store_put(r->s, STR("/counter"), str_from(v), found ? kv.mod_rev : 0, 0, i % 3 ? 0 : STORE_NOSYNC, NULL,
				    &ok, &rev, &now));
		r->wins += ok;
		r->ops++;
		if (ok) {
			assert_true(rev > r->last);
			r->last = rev;
		} else {
			assert_true(now.mod_rev > (found ? kv.mod_rev : 0));
		}
		store_kv_free(&kv);
		store_kv_free(&now);
	}
}

LOOP_TEST(races)
{
	struct store *s = open_at(test_dir, 0);
	struct racer r[16] = {0};
	struct fiber *f[16];
	int64_t before = store_revision(s);
	for (int i = 0; i < 16; i++) {
		r[i].s = s;
		f[i] = fiber_start("racer", race, &r[i]);
	}
	int wins = 0;
	for (int i = 0; i < 16; i++) {
		fiber_join(f[i]);
		wins += r[i].wins;
	}
	assert_true(wins >= 50);
	char v[32];
	snprintf(v, sizeof(v), "%d", wins);
	want_value(s, "/counter", 0, v);
	assert_int_equal(store_revision(s), before + wins);
	store_close(s);
	s = open_at(test_dir, 0);
	want_value(s, "/counter", 0, v);
	store_close(s);
	cleanup();
}

static void expect_open_error(const char *dir, const char *text)
{
	struct store_opts o = {.dir = dir};
	struct store *s = NULL;
	struct error *e = store_open(&o, &s);
	assert_non_null(e);
	assert_null(s);
	if (!strstr(e->message, text))
		fail_msg("\"%s\" does not say \"%s\"", e->message, text);
	error_free(e);
}

static void read_all(const char *path, struct buf *b)
{
	b->n = 0;
	assert_ok(file_read(path, b));
}

LOOP_TEST(refusals)
{
	struct store *s = open_at(test_dir, 0);
	char data[100], other[100], snap[100];
	snprintf(data, sizeof(data), "%s/data.mdb", test_dir);
	snprintf(other, sizeof(other), "%s/other", test_dir);
	snprintf(snap, sizeof(snap), "%s/snap", test_dir);
	char key[32], value[3000];
	memset(value, 'v', sizeof(value));
	value[sizeof(value) - 1] = 0;
	for (int i = 0; i < 400; i++) {
		snprintf(key, sizeof(key), "/k/%03d", i);
		put(s, key, value);
	}
	put_if(s, "/k/hb", "beat", 0, STORE_NOSYNC);
	expect_open_error(test_dir, "in use by another");
	/* Snapshot, and what it refuses. */
	assert_ok(store_snapshot_save(s, snap));
	struct error *e = store_restore(snap, test_dir);
	assert_non_null(e);
	error_free(e);
	store_close(s);
	e = store_restore(snap, test_dir);
	assert_non_null(e);
	assert_non_null(strstr(e->message, "already holds a store"));
	error_free(e);
	struct store_snapshot_status st, again;
	assert_ok(store_snapshot_status(snap, &st));
	assert_int_equal(st.keys, 401);
	assert_int_equal(st.revision, 402);
	assert_ok(store_restore(snap, other));
	s = open_at(other, 0);
	/* Revisions that the lost store may have given are not given again. */
	assert_true(store_revision(s) >= st.revision + 1000000000);
	assert_true(put_if(s, "/k/hb", "beat", STORE_ANY, 0) > st.revision + 1000000000);
	assert_ok(store_snapshot_save(s, snap));
	assert_ok(store_snapshot_status(snap, &again));
	assert_true(again.hash != st.hash && again.keys == st.keys && again.revision > st.revision);
	assert_int_equal(truncate(snap, again.bytes - 4096), 0);
	e = store_snapshot_status(snap, &again);
	assert_non_null(e);
	error_free(e);
	want_value(s, "/k/hb", 0, "beat");
	want_value(s, "/k/399", 0, value);
	store_close(s);

	/* Truncated anywhere, damaged pages, another's file, a newer format: said, and nothing changed. */
	struct buf good = {0}, after = {0};
	read_all(data, &good);
	struct {
		const char *what;
		size_t keep, at, n;
		const char *text;
	} cases[] = {
		{"empty", 0, 0, 0, "truncated"},
		{"cut", 20000, 0, 0, "truncated"},
		{"half", good.n / 2 / 4096 * 4096 + 100, 0, 0, "truncated"},
		{"magic", good.n, 16, 4, "damaged"},
		{"second header", good.n, 4096 + 16, 4, "damaged"},
		{"other", 4096, 0, 0, "truncated"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct buf bad = {0};
		buf_append(&bad, good.p, cases[i].keep);
		if (cases[i].n)
			memset(bad.p + cases[i].at, 0x5a, cases[i].n);
		assert_ok(file_write_atomic(data, buf_view(&bad), 0600));
		expect_open_error(test_dir, cases[i].text);
		read_all(data, &after);
		assert_true(str_eq(buf_view(&bad), buf_view(&after)));
		buf_free(&bad);
	}
	/* Every page but the headers, damaged in turn: either it is free and all data is there, or it is said. */
	size_t refused = 0, fine = 0;
	for (size_t page = 2; page < good.n / 4096; page += good.n / 4096 / 60 + 1) {
		struct buf bad = {0};
		buf_append(&bad, good.p, good.n);
		memset(bad.p + page * 4096, 0xa5, 2048);
		assert_ok(file_write_atomic(data, buf_view(&bad), 0600));
		struct store_opts o = {.dir = test_dir};
		e = store_open(&o, &s);
		if (e) {
			assert_non_null(strstr(e->message, "damaged"));
			read_all(data, &after);
			assert_true(str_eq(buf_view(&bad), buf_view(&after)));
			error_free(e);
			refused++;
		} else {
			for (int i = 0; i < 400; i++) {
				snprintf(key, sizeof(key), "/k/%03d", i);
				want_value(s, key, 0, value);
			}
			store_close(s);
			fine++;
		}
		buf_free(&bad);
	}
	assert_true(refused > 10);
	/* A torn page behind the end, as a crash in the middle of a commit leaves it, does no harm. */
	struct buf torn = {0};
	buf_append(&torn, good.p, good.n);
	for (int i = 0; i < 700; i++)
		buf_append(&torn, "torn", 4);
	assert_ok(file_write_atomic(data, buf_view(&torn), 0600));
	s = open_at(test_dir, 0);
	want_value(s, "/k/000", 0, value);
	put(s, "/k/000", "on");
	store_close(s);
	buf_free(&torn);
	/* A newer format: the record is found by its content. */
	struct buf newer = {0};
	buf_append(&newer, good.p, good.n);
	size_t hits = 0;
	for (ptrdiff_t at; (at = str_find(str_of(newer.p, newer.n), STR("~format"))) >= 0; hits++) {
		newer.p[at] = '!'; /* not found again */
		newer.p[at + 7] = 9;
	}
	assert_true(hits > 0);
	for (size_t i = 0; i + 7 < newer.n; i++)
		if (!memcmp(newer.p + i, "!format", 7))
			newer.p[i] = '~';
	assert_ok(file_write_atomic(data, buf_view(&newer), 0600));
	expect_open_error(test_dir, "newer Skiff");
	read_all(data, &after);
	assert_true(str_eq(buf_view(&newer), buf_view(&after)));
	buf_free(&newer);
	assert_ok(file_write_atomic(data, STR("just a text file, and long enough to be read as one"), 0600));
	expect_open_error(test_dir, "truncated");
	buf_free(&good);
	buf_free(&after);
	expect_open_error("/proc/skiff-none/x", "proc");
	cleanup();
}

static void copy_file(const char *from, const char *to, const char *name)
{
	char path[128];
	struct buf file = {0};
	snprintf(path, sizeof(path), "%s/%s", from, name);
	read_all(path, &file);
	snprintf(path, sizeof(path), "%s/%s", to, name);
	assert_ok(file_write_atomic(path, buf_view(&file), 0600));
	buf_free(&file);
}

/* What a process that is killed now leaves behind, in a directory of its own. */
static char *killed(const char *name)
{
	char *dir = xasprintf("%s/%s", test_dir, name);
	assert_ok(dir_make(dir, 0700));
	copy_file(test_dir, dir, "data.mdb");
	copy_file(test_dir, dir, "data.wal");
	return dir;
}

static struct store *crashed(const char *name)
{
	char *dir = killed(name);
	struct store *s = open_at(dir, 0);
	free(dir);
	return s;
}

static void check_ahead(struct store *s, int64_t before)
{
	size_t n;
	struct store_stats st;
	want_range(s, "/i/", "/i0", 0, 0, "/i/a=2 /i/c=1 /i/d=new /i/e=1 ");
	want_range(s, "/i/", "/i0", before, 0, "/i/a=1 /i/b=1 /i/c=1 ");
	want_range(s, "/i/b", "/i0", 0, 2, "/i/c=1 /i/d=new ");
	want_value(s, "/i/b", 0, NULL);
	assert_ok(store_count(s, STR("/i/"), STR("/i0"), &n));
	assert_int_equal(n, 4);
	store_stats(s, &st);
	assert_int_equal(st.keys, 4);
	assert_int_equal(put_if(s, "/i/a", "3", before, 0), 0); /* not what is there */
	assert_int_equal(put_if(s, "/i/b", "3", before, 0), 0);
}

/* Commits are in the write-ahead log only: reads, restarts, copies and compaction see them all the same. */
LOOP_TEST(log_ahead)
{
	struct store *s = open_at(test_dir, 0);
	char key[32];
	bool ok;
	int64_t rev, lease;
	put(s, "/i/a", "1");
	put(s, "/i/b", "1");
	assert_ok(store_lease_grant(s, 600000, &lease));
	assert_ok(store_put(s, STR("/i/c"), STR("1"), 0, lease, 0, NULL, &ok, &rev, NULL));
	int64_t before = rev;
	assert_ok(store_sync(s)); /* these are in the data file, what follows is not */
	put(s, "/i/a", "2");
	del_if(s, "/i/b", STORE_ANY);
	put(s, "/i/d", "old");
	put_if(s, "/i/d", "new", STORE_ANY, STORE_NOSYNC);
	put(s, "/i/e", "1");
	check_ahead(s, before);
	want_value(s, "/i/d", 0, "new");
	struct store *k = crashed("k1"); /* the write that was not synced is lost */
	want_range(k, "/i/", "/i0", 0, 0, "/i/a=2 /i/c=1 /i/d=old /i/e=1 ");
	put(k, "/i/d", "new");
	check_ahead(k, before);
	assert_ok(store_lease_revoke(k, lease)); /* it knows its key */
	want_range(k, "/i/", "/i0", 0, 0, "/i/a=2 /i/d=new /i/e=1 ");
	store_close(k);

	/* A copy saved by this process and one saved by who read its log tell of the same contents. */
	struct store_snapshot_status x, y;
	char *saved = xasprintf("%s/saved", test_dir), *copy = xasprintf("%s/saved-2", test_dir);
	put(s, "/i/d", "new");
	k = crashed("k2");
	assert_ok(store_snapshot_save(k, copy));
	assert_ok(store_snapshot_status(copy, &x));
	assert_ok(store_snapshot_save(s, saved));
	assert_ok(store_snapshot_status(saved, &y));
	assert_int_equal(x.keys, 4);
	assert_int_equal(x.keys, y.keys);
	assert_int_equal(x.revision, y.revision);
	assert_true(x.hash == y.hash);
	store_close(k);
	free(saved);
	free(copy);

	/* So many that there are checkpoints on the way, and history is forgotten. */
	for (int i = 0; i < 2600; i++) {
		snprintf(key, sizeof(key), "/j/%03d", i % 200);
		if (i % 7 == 3)
			del_if(s, key, STORE_ANY);
		else
			put(s, key, "x");
		if (i % 100 == 50)
			assert_ok(store_compact(s, store_revision(s)));
	}
	struct buf want = {0}, got = {0};
	int64_t at = 0;
	assert_ok(store_range(s, STR("/"), STR("0"), &at, 0, append_kv, &want));
	k = crashed("k3");
	at = 0;
	assert_ok(store_range(k, STR("/"), STR("0"), &at, 0, append_kv, &got));
	assert_string_equal(buf_z(&want), buf_z(&got));
	store_close(k);
	store_close(s);
	buf_free(&want);
	buf_free(&got);
	cleanup();
}

static void put_many(struct store *s, const char *what)
{
	char key[32], value[2100];
	for (int i = 0; i < 1500; i++) {
		snprintf(key, sizeof(key), "/v/%04d", i);
		memset(value, 'a' + i % 26, sizeof(value) - 1);
		snprintf(value + 2000, sizeof(value) - 2000, "%s %d", what, i);
		put(s, key, value);
	}
}

/* What a view shows stays, whatever is written and forgotten meanwhile, and can be read by another thread. */
LOOP_TEST(views)
{
	struct store *s = open_at(test_dir, 3600000);
	struct buf want = {0}, got = {0};
	struct viewed v = {0};
	int64_t rev = 0, again = 0;
	put_many(s, "old");
	assert_ok(store_range(s, STR("/v/"), STR("/v0"), &rev, 0, append_kv, &want));
	assert_ok(store_range_view(s, STR("/v/"), STR("/v0"), &again, 0, viewed_kv, &v, &v.view));
	assert_int_equal(again, rev);
	assert_int_equal(v.n, 1500);
	assert_true(v.apart > 300 && v.apart < 1500); /* the newest are in the log's tail */
	for (int i = 0; i < 4; i++)
		put_many(s, "new");
	assert_ok(store_compact(s, store_revision(s)));
	put_many(s, "newer");
	loop_offload(viewed_fetch, &v);
	viewed_append(&v, &got);
	assert_true(str_eq(buf_view(&got), buf_view(&want)));
	/* So many that some get none: then the values come with the keys. */
	struct viewed many[80] = {0};
	size_t without = 0;
	want.n = 0;
	again = 0;
	assert_ok(store_range(s, STR("/v/"), STR("/v/0010"), &again, 0, append_kv, &want));
	for (size_t i = 0; i < 80; i++) {
		int64_t at = 0;
		assert_ok(store_range_view(s, STR("/v/"), STR("/v/0010"), &at, 0, viewed_kv, &many[i], &many[i].view));
		without += !many[i].view;
	}
	for (size_t i = 0; i < 80; i++) {
		got.n = 0;
		viewed_append(&many[i], &got);
		assert_true(str_eq(buf_view(&got), buf_view(&want)));
	}
	assert_int_equal(without, 80 - 64);
	store_close(s);
	/* A value that is damaged is told. */
	char *data = xasprintf("%s/data.mdb", test_dir);
	struct buf file = {0};
	assert_ok(file_read(data, &file));
	ptrdiff_t at = str_find(buf_view(&file), STR("newer 700"));
	assert_true(at > 0);
	file.p[at]++;
	assert_ok(file_write_atomic(data, buf_view(&file), 0600));
	s = open_at(test_dir, 3600000);
	again = 0;
	assert_ok(store_range_view(s, STR("/v/0700"), STR("/v/0701"), &again, 0, viewed_kv, &v, &v.view));
	viewed_fetch(&v);
	assert_non_null(strstr(error_message(v.e), "damaged; restore a snapshot"));
	error_clear(&v.e);
	store_view_end(v.view);
	store_kv_free(&v.kv[0]);
	free(v.kv);
	free(data);
	buf_free(&file);
	buf_free(&want);
	buf_free(&got);
	store_close(s);
	assert_ok(dir_remove(test_dir));
}

int main(void)
{
	log_init("test", 0);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(semantics), cmocka_unit_test(watches), cmocka_unit_test(compaction),
		cmocka_unit_test(compaction_by_age), cmocka_unit_test(nosync), cmocka_unit_test(leases),
		cmocka_unit_test(races), cmocka_unit_test(views), cmocka_unit_test(refusals), cmocka_unit_test(log_ahead),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
