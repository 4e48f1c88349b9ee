/*
 * The store against a model: random puts, deletes, comparisons, NOSYNC writes,
 * compactions and clean reopenings; after each step reads at random revisions,
 * and at the end the whole history as watches give it, must be the model's.
 */
#include "store_test.h"

#define KEYS 24
#define STEPS 4000

struct change { /* of the model: revision -> key, value or NULL */
	int key;
	char *value;
	bool nosync;
};
static struct change history[STEPS + 16];
static int64_t last_rev, compacted;
static uint64_t seed;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

static const char *key_name(int k, char *buf)
{
	sprintf(buf, "/%c/key%02d", 'a' + k % 3, k);
	return buf;
}

/* Revision of the newest change of key at or below rev that still counts; 0: none. NOSYNC versions may be skipped in old reads. */
static int64_t model_at(int key, int64_t rev)
{
	for (int64_t r = rev; r > 1; r--)
		if (history[r].key == key)
			return r;
	return 0;
}

static void check_get(struct store *s, int key, int64_t rev)
{
	char name[32];
	bool found;
	struct store_kv kv;
	assert_ok(store_get(s, str_from(key_name(key, name)), rev, &found, &kv));
	int64_t at = model_at(key, rev ? rev : last_rev);
	if (rev && rev < last_rev) /* an overwritten NOSYNC version may be missing: then the one before it is answered */
		while (at && history[at].nosync && (!found || kv.mod_rev != at) && model_at(key, last_rev) != at)
			at = model_at(key, at - 1);
	const char *want = at ? history[at].value : NULL;
	if (!want) {
		if (found)
			fail_msg("key %d at %lld: unexpected value of revision %lld", key, (long long)rev, (long long)kv.mod_rev);
		return;
	}
	if (!found)
		fail_msg("key %d at %lld: missing revision %lld", key, (long long)rev, (long long)at);
	assert_int_equal(kv.mod_rev, at);
	assert_str(block_str(kv.value), want);
	store_kv_free(&kv);
}

static void step(struct store **s)
{
	char name[32], value[64];
	int key = (int)rnd(KEYS);
	int64_t at = model_at(key, last_rev), there = at && history[at].value ? at : 0;
	uint32_t what = rnd(100);
	bool wrong = rnd(5) == 0;
	int64_t expect = rnd(2) ? STORE_ANY : wrong ? there + 1 : there;
	bool ok;
	int64_t rev;
	struct store_kv now = {0};
	key_name(key, name);
	if (what < 65) {
		bool nosync = what < 25;
		int n = snprintf(value, sizeof(value), "%s@%lld", name, (long long)last_rev + 1);
		assert_ok(store_put(*s, str_from(name), str_of(value, (size_t)n), expect, 0, nosync ? STORE_NOSYNC : 0, NULL, &ok, &rev,
				    &now));
		assert_int_equal(ok, expect == STORE_ANY || expect == there);
		if (ok) {
			assert_int_equal(rev, last_rev + 1);
			history[++last_rev] = (struct change){key, xstrdup(value), nosync};
		} else {
			assert_int_equal(now.mod_rev, there);
		}
	} else if (what < 85) {
		assert_ok(store_delete(*s, str_from(name), expect, &ok, &rev, &now));
		assert_int_equal(ok, there && (expect == STORE_ANY || expect == there));
		if (ok) {
			assert_int_equal(rev, last_rev + 1);
			history[++last_rev] = (struct change){.key = key};
		}
	} else if (what < 87) {
		int64_t to = last_rev - rnd(100);
		if (to > compacted) {
			assert_ok(store_compact(*s, to));
			compacted = to;
		}
	} else if (what < 88 && rnd(3) == 0) {
		store_close(*s);
		*s = open_at(test_dir, 3600000);
		assert_int_equal(store_revision(*s), last_rev);
		struct store_stats st;
		store_stats(*s, &st);
		if (st.compacted > compacted)
			fail_msg("compacted %lld > %lld", (long long)st.compacted, (long long)compacted);
	} else {
		int64_t r = compacted + rnd((uint32_t)(last_rev - compacted + 1));
		check_get(*s, key, r > 1 ? r : 0);
	}
	store_kv_free(&now);
}

static bool count_kv(void *ctx, struct store_kv *kv)
{
	++*(size_t *)ctx;
	return true;
}

static void check_view(struct store *s, int64_t rev)
{
	struct buf want = {0}, got = {0};
	struct viewed v = {0};
	assert_ok(store_range(s, STR("/"), STR("0"), &rev, 0, append_kv, &want));
	assert_ok(store_range_view(s, STR("/"), STR("0"), &rev, 0, viewed_kv, &v, &v.view));
	viewed_append(&v, &got);
	assert_string_equal(buf_z(&got), buf_z(&want));
	buf_free(&want);
	buf_free(&got);
}

LOOP_TEST(model)
{
	struct store *s = open_at(test_dir, 3600000);
	last_rev = 1;
	compacted = 0;
	history[1].key = history[0].key = -1;
	seed = random_u64();
	print_message("# seed %llu\n", (unsigned long long)seed);
	struct store_watch *w = NULL;
	for (int i = 0; i < STEPS; i++) {
		step(&s);
		if (i % 97 == 0) {
			size_t live = 0, n = 0, c;
			for (int k = 0; k < KEYS; k++) {
				check_get(s, k, 0);
				int64_t at = model_at(k, last_rev);
				live += at && history[at].value;
			}
			int64_t rev = 0;
			assert_ok(store_range(s, STR("/"), STR("0"), &rev, 0, count_kv, &n));
			assert_int_equal(rev, last_rev);
			assert_int_equal(n, live);
			assert_ok(store_count(s, STR("/"), STR(""), &c));
			assert_int_equal(c, live);
			struct store_stats st;
			store_stats(s, &st);
			assert_int_equal(st.keys, live);
			check_view(s, 0);
			int64_t past = compacted + rnd((uint32_t)(last_rev - compacted + 1));
			check_view(s, past > 1 ? past : 0);
		}
	}
	/* All synced changes since the compaction come, in order; NOSYNC ones that were overwritten may be missing. */
	int64_t at = compacted > 1 ? compacted : 1;
	assert_ok(store_watch_open(s, STR("/"), STR("0"), at, &w));
	for (;;) {
		struct store_event e;
		bool got;
		assert_ok(store_watch_poll(w, &e, &got, NULL));
		if (!got)
			break;
		while (++at < e.kv.mod_rev)
			if (!history[at].nosync)
				fail_msg("the event of revision %lld is missing", (long long)at);
		assert_int_equal(at, e.kv.mod_rev);
		assert_int_equal(e.is_delete, history[at].value == NULL);
		if (!e.is_delete)
			assert_str(block_str(e.kv.value), history[at].value);
		store_event_free(&e);
	}
	while (++at <= last_rev)
		assert_true(history[at].nosync);
	store_watch_close(w);
	store_close(s);
	for (int64_t r = 0; r <= last_rev; r++)
		free(history[r].value);
	assert_ok(dir_remove(test_dir));
}

int main(void)
{
	log_init("test", 0);
	const struct CMUnitTest tests[] = {cmocka_unit_test(model)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
