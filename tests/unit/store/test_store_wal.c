/* The write-ahead log: what is read back of it after a crash, damage in it, its absence, and formats before it. */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>

#include "store_test.h"

#define WRITES 40
#define PAGE 4096

static void read_file(const char *dir, const char *name, struct buf *b)
{
	char *path = xasprintf("%s/%s", dir, name);
	b->n = 0;
	assert_ok(file_read(path, b));
	free(path);
}

/* Without a sync: there are many. */
static void write_file(const char *dir, const char *name, struct str content)
{
	char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(content.p, 1, content.n, f), content.n);
	assert_int_equal(fclose(f), 0);
	free(path);
}

/* A directory as a killed process leaves it: these two files. The next call takes it away. */
static const char *left_behind(const struct buf *data, const struct buf *wal)
{
	static char dir[128];
	snprintf(dir, sizeof(dir), "%s/left", test_dir);
	assert_ok(dir_remove(dir));
	assert_ok(dir_make(dir, 0700));
	write_file(dir, "data.mdb", buf_view(data));
	if (wal)
		write_file(dir, "data.wal", buf_view(wal));
	return dir;
}

/* The files of a store whose log holds WRITES single writes and a delete. */
static void logged(struct buf *data, struct buf *wal)
{
	struct store *s = open_at(test_dir, 0);
	char key[32], value[6000];
	put(s, "/first", "makes a checkpoint");
	assert_ok(store_sync(s));
	for (int i = 0; i < WRITES; i++) { /* of one page and of two */
		snprintf(key, sizeof(key), "/w/%02d", i);
		memset(value, 'a' + i % 26, sizeof(value));
		value[i % 3 ? 10 : 5000] = 0;
		put(s, key, value);
	}
	del_if(s, "/w/00", STORE_ANY);
	read_file(test_dir, "data.mdb", data);
	read_file(test_dir, "data.wal", wal);
	store_close(s);
}

/* How many of the writes are there; they are the first ones, with their values. */
static int prefix(struct store *s)
{
	int64_t last = store_revision(s) - 2; /* of /first, and an empty store has 1 */
	for (int i = 0; i < WRITES; i++) {
		char key[32];
		bool found;
		struct store_kv kv;
		snprintf(key, sizeof(key), "/w/%02d", i);
		assert_ok(store_get(s, str_from(key), 0, &found, &kv));
		assert_int_equal(found, i < last && !(i == 0 && last > WRITES));
		if (found)
			assert_true(kv.value->n == (i % 3 ? 10 : 5000) && block_str(kv.value).p[0] == 'a' + i % 26);
		store_kv_free(&kv);
	}
	return (int)last;
}

static struct error *try_open(const char *dir, struct store **s)
{
	struct store_opts o = {.dir = dir, .map_size = (size_t)1 << 30};
	return store_open(&o, s);
}

static void refused(const struct buf *data, const struct buf *wal, const char *text)
{
	struct store *s;
	struct buf after = {0};
	const char *dir = left_behind(data, wal);
	struct error *e = try_open(dir, &s);
	if (!e || !strstr(e->message, text))
		fail_msg("\"%s\" does not say \"%s\"", e ? e->message : "(opened)", text);
	error_free(e);
	read_file(dir, "data.mdb", &after);
	assert_true(str_eq(buf_view(data), buf_view(&after)));
	if (wal) {
		read_file(dir, "data.wal", &after);
		assert_true(str_eq(buf_view(wal), buf_view(&after)));
	}
	buf_free(&after);
}

LOOP_TEST(damage)
{
	struct buf data = {0}, wal = {0}, bad = {0};
	struct store *s;
	logged(&data, &wal);
	s = open_at(left_behind(&data, &wal), 0);
	assert_int_equal(prefix(s), WRITES + 1);
	want_value(s, "/w/01", store_revision(s) - WRITES, NULL);
	bool found;
	struct store_kv kv;
	assert_ok(store_get(s, STR("/w/00"), store_revision(s) - WRITES, &found, &kv));
	assert_true(found && kv.value->n == 5000);
	store_kv_free(&kv);
	store_close(s);

	refused(&data, NULL, "data.wal is missing");
	struct {
		const char *what;
		size_t at, n;
		const char *text;
	} cases[] = {{"magic", 8, 4, "damaged (its first page)"}, {"cluster", 24, 1, "damaged (its first page)"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		bad.n = 0;
		buf_append(&bad, wal.p, wal.n);
		memset(bad.p + cases[i].at, 0x5a, cases[i].n);
		refused(&data, &bad, cases[i].text);
	}
	bad.n = 0;
	buf_append(&bad, wal.p, wal.n - 1);
	refused(&data, &bad, "its end is missing");
	bad.n = 0;
	refused(&data, &bad, "damaged");

	/* Any page that holds frames, damaged: the last write of all looks like one cut short, any other is told. */
	size_t used = 1, lost = 0, told = 0;
	for (size_t p = 1; p < wal.n / PAGE; p++)
		for (size_t i = 0; i < PAGE; i++)
			if (wal.p[p * PAGE + i]) {
				used = p + 1;
				break;
			}
	assert_true(used > WRITES && used < 2 * WRITES + 3);
	for (size_t p = 1; p < used; p++) {
		bad.n = 0;
		buf_append(&bad, wal.p, wal.n);
		bad.p[p * PAGE + 30] ^= 1;
		struct error *e = try_open(left_behind(&data, &bad), &s);
		if (e) {
			assert_non_null(strstr(e->message, "a frame in its middle"));
			error_free(e);
			told++;
		} else {
			assert_int_equal(prefix(s), WRITES); /* the delete is gone */
			store_close(s);
			lost++;
		}
	}
	assert_int_equal(lost, 1);
	assert_int_equal(told, used - 2);

	/* Cut short anywhere, as by a crash during the last write. */
	for (size_t cut = (used - 1) * PAGE; cut < (used - 1) * PAGE + 200; cut += 7) {
		bad.n = 0;
		buf_append(&bad, wal.p, wal.n);
		memset(bad.p + cut, 0, bad.n - cut);
		s = open_at(left_behind(&data, &bad), 0);
		assert_true(prefix(s) >= WRITES);
		put(s, "/next", "1"); /* goes where that was */
		store_close(s);
	}
	/* Bytes changed at random: said, or no more than the end is missing. */
	uint64_t seed = random_u64();
	print_message("# seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < 200; i++) {
		bad.n = 0;
		buf_append(&bad, wal.p, wal.n);
		for (int k = 0; k < 1 + i % 4; k++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			bad.p[(seed >> 20) % (used * PAGE)] = (char)(seed >> 50);
		}
		struct error *e = try_open(left_behind(&data, &bad), &s);
		if (e) {
			assert_non_null(strstr(e->message, "damaged"));
			error_free(e);
		} else {
			assert_true(prefix(s) >= WRITES);
			store_close(s);
		}
	}
	buf_free(&data);
	buf_free(&wal);
	buf_free(&bad);
	assert_ok(dir_remove(test_dir));
}

/* Frames of before the last checkpoint stay in the file: they are of another log. */
LOOP_TEST(checkpoints)
{
	struct buf data = {0}, wal = {0};
	struct store *s = open_at(test_dir, 0);
	char key[32];
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 30 - 7 * round; i++) {
			snprintf(key, sizeof(key), "/c/%02d", i);
			put(s, key, "x");
		}
		assert_ok(store_sync(s));
		put(s, "/only", round % 2 ? "odd" : "even");
		read_file(test_dir, "data.mdb", &data);
		read_file(test_dir, "data.wal", &wal);
		struct store *k = open_at(left_behind(&data, &wal), 0);
		assert_int_equal(store_revision(k), store_revision(s));
		want_value(k, "/only", 0, round % 2 ? "odd" : "even");
		want_value(k, "/c/29", 0, "x");
		put(k, "/only", "more");
		store_close(k);
	}
	/* A store whose log was full of writes, closed and opened without the log's file: it holds nothing then. */
	store_close(s);
	read_file(test_dir, "data.mdb", &data);
	s = open_at(left_behind(&data, NULL), 0);
	want_value(s, "/only", 0, "odd");
	store_close(s);
	/* The data file is gone: an empty store, and the log is kept. */
	const char *dir = left_behind(&data, &wal);
	char *path = xasprintf("%s/data.mdb", dir), *old = xasprintf("%s/data.wal.old", dir);
	assert_int_equal(unlink(path), 0);
	s = open_at(dir, 0);
	want_value(s, "/only", 0, NULL);
	assert_int_equal(access(old, F_OK), 0);
	store_close(s);
	free(path);
	free(old);
	/* The log of another store, or one of another size, behind a clean close: replaced. */
	wal.p[24] ^= 1;
	wal.n /= 2;
	s = open_at(left_behind(&data, &wal), 0);
	want_value(s, "/only", 0, "odd");
	put(s, "/only", "new");
	store_close(s);
	buf_free(&data);
	buf_free(&wal);
	assert_ok(dir_remove(test_dir));
}

/* More than the log takes: many records, large ones, and one commit that is larger than the log. */
struct writer {
	struct store *s;
	int id;
};
static int running;

static void write_large(void *arg)
{
	struct writer *w = arg;
	size_t n = 1 << 20;
	char *value = xmalloc(n), key[32];
	bool ok;
	int64_t rev;
	memset(value, 'A' + w->id, n);
	snprintf(key, sizeof(key), "/large/%d", w->id);
	assert_ok(store_put(w->s, str_from(key), str_of(value, n), STORE_ANY, 0, 0, NULL, &ok, &rev, NULL));
	assert_true(ok);
	free(value);
	running--;
}

LOOP_TEST(overflowing)
{
	struct buf data = {0}, wal = {0};
	struct store *s = open_at(test_dir, 0);
	struct writer w[12];
	char key[32];
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "/many/%d", i % 700);
		if (i % 11 == 5)
			del_if(s, key, STORE_ANY);
		else
			put(s, key, i < 1500 ? "a" : "b");
	}
	for (int i = 0; i < 12; i++) {
		w[i] = (struct writer){s, i};
		running++;
		fiber_spawn("large", write_large, &w[i]);
	}
	while (running)
		assert_ok(fiber_sleep(1));
	put(s, "/last", "1");
	read_file(test_dir, "data.mdb", &data);
	read_file(test_dir, "data.wal", &wal);
	struct store *k = open_at(left_behind(&data, &wal), 0);
	struct store *of[] = {s, k};
	size_t n[2];
	for (int i = 0; i < 2; i++) {
		assert_ok(store_count(of[i], STR("/many/"), STR("/many0"), &n[i]));
		want_value(of[i], "/last", 0, "1");
		for (int j = 0; j < 12; j++) {
			bool found;
			struct store_kv kv;
			snprintf(key, sizeof(key), "/large/%d", j);
			assert_ok(store_get(of[i], str_from(key), 0, &found, &kv));
			assert_true(found && kv.value->n == 1 << 20 && block_str(kv.value).p[77] == 'A' + j);
			store_kv_free(&kv);
		}
	}
	assert_int_equal(n[0], n[1]);
	assert_int_equal(store_revision(s), store_revision(k));
	store_close(k);
	store_close(s);
	buf_free(&data);
	buf_free(&wal);
	assert_ok(dir_remove(test_dir));
}

/* ---- formats before it ---- */

static MDB_txn *edit(const char *path, MDB_env **env)
{
	MDB_txn *txn;
	assert_int_equal(mdb_env_create(env), 0);
	assert_int_equal(mdb_env_set_maxdbs(*env, 8), 0);
	assert_int_equal(mdb_env_open(*env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600), 0);
	assert_int_equal(mdb_txn_begin(*env, NULL, 0, &txn), 0);
	return txn;
}

/*
 * As an older version had the file. Format 1: the state record has three numbers. Format 2: its fourth is the revision up to which
 * the table of keys knows the log; keys that came later are missing from it.
 */
static void make_format(const char *path, uint32_t format, int64_t indexed)
{
	MDB_env *env;
	MDB_txn *txn = edit(path, &env);
	MDB_dbi main, keys;
	MDB_cursor *cur;
	MDB_val k = {7, "~format"}, v;
	char rec[64];
	assert_int_equal(mdb_dbi_open(txn, NULL, 0, &main), 0);
	assert_int_equal(mdb_dbi_open(txn, "keys", 0, &keys), 0);
	assert_int_equal(mdb_get(txn, main, &k, &v), 0);
	memcpy(rec, v.mv_data, v.mv_size);
	memcpy(rec, &format, 4);
	v.mv_data = rec;
	assert_int_equal(mdb_put(txn, main, &k, &v, 0), 0);
	k = (MDB_val){6, "~state"};
	assert_int_equal(mdb_get(txn, main, &k, &v), 0);
	assert_int_equal(v.mv_size, 32);
	memcpy(rec, v.mv_data, v.mv_size);
	memcpy(rec + 24, &indexed, 8);
	v = (MDB_val){format == 1 ? 24 : 32, rec};
	assert_int_equal(mdb_put(txn, main, &k, &v, 0), 0);
	assert_int_equal(mdb_cursor_open(txn, keys, &cur), 0);
	while (format == 2 && !mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		int64_t mod;
		memcpy(&mod, v.mv_data, 8);
		if (mod > indexed)
			assert_int_equal(mdb_cursor_del(cur, 0), 0);
	}
	mdb_cursor_close(cur);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void check_old(const char *dir)
{
	struct store *s = open_at(dir, 0);
	want_range(s, "/", "0", 0, 0, "/a=1 /b=2 /c=3 ");
	assert_true(put(s, "/d", "4") > 0);
	want_range(s, "/", "0", 0, 0, "/a=1 /b=2 /c=3 /d=4 ");
	store_close(s);
	s = open_at(dir, 0);
	want_range(s, "/", "0", 0, 0, "/a=1 /b=2 /c=3 /d=4 ");
	store_close(s);
}

LOOP_TEST(older_formats)
{
	struct buf data = {0};
	struct store *s = open_at(test_dir, 0);
	put(s, "/a", "1");
	int64_t indexed = put(s, "/b", "2");
	put(s, "/c", "3");
	store_close(s);
	read_file(test_dir, "data.mdb", &data);
	for (uint32_t format = 1; format <= 2; format++) {
		const char *dir = left_behind(&data, NULL);
		char *path = xasprintf("%s/data.mdb", dir), *restored = xasprintf("%s/restored-%u", test_dir, format);
		make_format(path, format, indexed);
		struct store_snapshot_status st;
		assert_ok(store_snapshot_status(path, &st));
		assert_true(st.keys == 3 && st.revision == indexed + 1);
		assert_ok(store_restore(path, restored));
		check_old(restored);
		check_old(dir);
		free(path);
		free(restored);
	}
	buf_free(&data);
	assert_ok(dir_remove(test_dir));
}

/* Revisions that a clean close noted are not given again, also when the first commit after it writes no record. */
LOOP_TEST(revisions)
{
	struct buf data = {0}, wal = {0};
	struct store *s = open_at(test_dir, 0);
	int64_t lease, rev;
	for (int i = 0; i < 10; i++)
		put_if(s, "/n", "2", STORE_ANY, STORE_NOSYNC);
	put(s, "/n", "3"); /* what was not synced never will be */
	put_if(s, "/m", "4", STORE_ANY, STORE_NOSYNC);
	assert_true(del_if(s, "/m", STORE_ANY) > 0);
	rev = put_if(s, "/m", "5", STORE_ANY, STORE_NOSYNC);
	store_close(s);
	s = open_at(test_dir, 0);
	assert_int_equal(store_revision(s), rev);
	assert_ok(store_lease_grant(s, 600000, &lease));
	read_file(test_dir, "data.mdb", &data);
	read_file(test_dir, "data.wal", &wal);
	struct store *k = open_at(left_behind(&data, &wal), 0);
	assert_true(store_revision(k) >= rev);
	assert_true(put(k, "/after", "1") > rev);
	store_close(k);
	store_close(s);
	buf_free(&data);
	buf_free(&wal);
	assert_ok(dir_remove(test_dir));
}

/* The last revision that heartbeats may have had on disk's word: who saw it lost is told so. */
LOOP_TEST(gap)
{
	struct buf data = {0}, wal = {0};
	struct store *s = open_at(test_dir, 0);
	struct store_watch *w;
	int64_t rev = 0, first = put_if(s, "/n", "kept", STORE_ANY, STORE_NOSYNC);
	while (rev < first + 4096) /* the ceiling */
		rev = put_if(s, "/n", "lost", STORE_ANY, STORE_NOSYNC);
	read_file(test_dir, "data.mdb", &data);
	read_file(test_dir, "data.wal", &wal);
	struct store *k = open_at(left_behind(&data, &wal), 0);
	assert_true(store_revision(k) > rev);
	struct error *e = store_watch_open(k, STR("/"), STR("0"), rev, &w);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	assert_ok(store_watch_open(k, STR("/"), STR("0"), store_revision(k), &w));
	store_watch_close(w);
	store_close(k);
	store_close(s);
	buf_free(&data);
	buf_free(&wal);
	assert_ok(dir_remove(test_dir));
}

/* A lease is revoked by the commit that gives it to a key, and the process dies before it has deleted that key. */
static struct buf at_commit[2];
static struct store *leased;
static int64_t lease_id;

static void on_commit(void *ctx) /* must not wait */
{
	store_watch_notify(ctx, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		char *path = xasprintf("%s/%s", test_dir, i ? "data.wal" : "data.mdb"), part[4096];
		FILE *f = fopen(path, "r");
		assert_non_null(f);
		for (size_t n; (n = fread(part, 1, sizeof(part), f));)
			buf_append(&at_commit[i], part, n);
		fclose(f);
		free(path);
	}
}

static void revoke_lease(void *arg)
{
	assert_ok(store_lease_revoke(leased, lease_id));
	running--;
}

LOOP_TEST(revoked_in_the_same_commit)
{
	struct store_watch *w;
	bool ok, found;
	int64_t rev;
	struct store_kv kv;
	leased = open_at(test_dir, 0);
	assert_ok(store_lease_grant(leased, 600000, &lease_id));
	assert_ok(store_watch_open(leased, STR("/"), STR("0"), store_revision(leased), &w));
	store_watch_notify(w, on_commit, w);
	running = 1;
	fiber_spawn("revoke", revoke_lease, NULL);
	assert_ok(store_put(leased, STR("/l"), STR("1"), 0, lease_id, 0, NULL, &ok, &rev, NULL));
	while (running)
		assert_ok(fiber_sleep(1));
	assert_true(at_commit[1].n > 0);
	struct store *k = open_at(left_behind(&at_commit[0], &at_commit[1]), 0), *both[] = {leased, k};
	for (int i = 0; i < 2; i++)
		do {
			assert_ok(fiber_sleep(5));
			assert_ok(store_get(both[i], STR("/l"), 0, &found, &kv));
			store_kv_free(&kv);
		} while (found);
	store_watch_close(w);
	store_close(k);
	store_close(leased);
	buf_free(&at_commit[0]);
	buf_free(&at_commit[1]);
	assert_ok(dir_remove(test_dir));
}

/* The file's own limit: said, nothing is lost, deletes work and make room. */
LOOP_TEST(size_limit)
{
	struct store_opts o = {.dir = test_dir, .map_size = 12 << 20};
	struct store *s;
	struct error *e = NULL;
	char key[32], *value = xmalloc(40000);
	bool ok;
	int64_t rev;
	int n = 0;
	assert_ok(store_open(&o, &s));
	memset(value, 'v', 40000);
	for (; !e && n < 1000; n++) {
		snprintf(key, sizeof(key), "/k/%03d", n);
		e = store_put(s, str_from(key), str_of(value, 40000), 0, 0, 0, NULL, &ok, &rev, NULL);
	}
	assert_true(error_is(e, 507, "InsufficientStorage"));
	assert_non_null(strstr(e->message, "size limit"));
	error_free(e);
	n--;
	assert_true(n > 100);
	for (int i = 0; i < n / 2; i++) {
		snprintf(key, sizeof(key), "/k/%03d", i);
		assert_true(del_if(s, key, STORE_ANY) > 0);
	}
	int again = 0;
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "/again/%03d", i);
		e = store_put(s, str_from(key), str_of(value, 40000), 0, 0, 0, NULL, &ok, &rev, NULL);
		again += !e;
		error_free(e);
	}
	assert_true(again > 20);
	store_close(s);
	assert_ok(store_open(&o, &s));
	size_t have;
	assert_ok(store_count(s, STR("/"), STR("0"), &have));
	assert_int_equal(have, n - n / 2 + again);
	store_close(s);
	free(value);
	assert_ok(dir_remove(test_dir));
}

int main(void)
{
	log_init("test", 0);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(damage), cmocka_unit_test(checkpoints), cmocka_unit_test(overflowing),
		cmocka_unit_test(older_formats), cmocka_unit_test(revisions), cmocka_unit_test(size_limit),
		cmocka_unit_test(gap), cmocka_unit_test(revoked_in_the_same_commit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
