/* The watch cache over a real store in a temporary directory. */
#include "cache_test.h"

CACHE_TEST(reads_and_writes)
{
	open_store();
	struct cache *c;
	assert_ok(cache_new(store, &pods, &c));
	assert_int_equal(put_pod(c, "a", "one", "n1", "web", 0), 2);
	assert_int_equal(put_pod(c, "b", "two", "n2", "web", 0), 3);
	assert_int_equal(put_pod(c, "a", "three", "", NULL, 0), 4);
	assert_int_equal(put_pod(c, "a", "one", "n1", "db", 0), 0);
	assert_int_equal(put_pod(c, "a", "one", "n1", "db", 2), 5);
	struct cache_entry *e;
	assert_ok(cache_get(c, STR("a"), STR("one"), CACHE_CONSISTENT, 0, &e));
	assert_str(json_of(c, e),
		   "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"one\",\"namespace\":\"a\","
		   "\"uid\":\"0b5e2f6e-0000-4000-8000-000000000001\",\"resourceVersion\":\"5\",\"labels\":{\"app\":\"db\"}},"
		   "\"spec\":{\"containers\":null,\"nodeName\":\"n1\"},\"status\":{\"phase\":\"Running\"}}");
	assert_str(cache_entry_uid(e), "0b5e2f6e-0000-4000-8000-000000000001");
	assert_str(cache_entry_field(c, e, 0), "n1");
	assert_str(cache_entry_field(c, e, 1), "Running");
	assert_str(cache_entry_field(c, e, 2), "false");
	struct str_pair labels[255];
	assert_int_equal(cache_entry_labels(e, labels), 1);
	assert_str(labels[0].value, "db");
	cache_entry_unref(e);
	assert_ok(cache_get(c, STR("a"), STR("nobody"), CACHE_ANY, 0, &e));
	assert_null(e);
	assert_null(cache_peek(c, STR(""), STR("one")));
	struct error *err = cache_get(c, STR("a"), STR("one"), CACHE_AT_LEAST, 99, &e);
	assert_true(error_is(err, 504, "Timeout") && err->n_causes == 1);
	error_free(err);

	now_is(c, "", NULL, "a/one@5 a/three@4 b/two@3 ");
	now_is(c, "a", NULL, "a/one@5 a/three@4 ");
	now_is(c, "x", NULL, "");
	struct arena a = {0};
	struct cache_filter f = {0};
	assert_ok(field_selector_parse(&a, STR("spec.nodeName=n2"), &f.fields));
	now_is(c, "", &f, "b/two@3 ");
	now_is(c, "a", &f, "");
	assert_ok(field_selector_parse(&a, STR("spec.nodeName!=n2,metadata.namespace=a,spec.hostNetwork=false"), &f.fields));
	now_is(c, "", &f, "a/one@5 a/three@4 ");
	assert_ok(cache_check_fields(c, f.fields));
	assert_ok(field_selector_parse(&a, STR("spec.unknown=1"), &f.fields));
	err = cache_check_fields(c, f.fields);
	assert_true(error_is(err, 400, "BadRequest"));
	error_free(err);
	f.fields = NULL;
	assert_ok(label_selector_parse(&a, STR("app in (web,db)"), &f.labels));
	now_is(c, "", &f, "a/one@5 b/two@3 ");
	arena_free(&a);

	/* Exact revisions, pages, counts. */
	struct cache_snap *s, *s4;
	assert_ok(cache_snapshot(c, CACHE_EXACT, 4, &s4));
	list_is(c, s4, "", "", NULL, "a/one@2 a/three@4 b/two@3 ");
	assert_int_equal(cache_snap_rev(s4), 4);
	assert_ok(cache_snapshot(c, CACHE_EXACT, 2, &s));
	list_is(c, s, "", "", NULL, "a/one@2 ");
	cache_snap_free(s);
	assert_int_equal(del(c, "a", "three"), 6);
	assert_ok(cache_snapshot(c, CACHE_EXACT, 4, &s));
	list_is(c, s, "", "a/one", NULL, "a/three@4 b/two@3 ");
	list_is(c, s, "a", "a/one", NULL, "a/three@4 ");
	assert_int_equal(cache_snap_count(s, STR(""), STR("a/one")), 2);
	assert_int_equal(cache_snap_count(s, STR("a"), STR("a/one")), 1);
	assert_int_equal(cache_snap_count(s, STR("a"), STR("")), 2);
	assert_int_equal(cache_snap_count(s, STR("a"), STR("a/onf")), 1);
	cache_snap_free(s);
	cache_snap_free(s4);
	assert_ok(cache_snapshot(c, CACHE_EXACT, 5, &s));
	list_is(c, s, "", "", NULL, "a/one@5 a/three@4 b/two@3 ");
	cache_snap_free(s);
	now_is(c, "", NULL, "a/one@5 b/two@3 ");
	err = cache_snapshot(c, CACHE_EXACT, 0, &s);
	assert_true(error_is(err, 410, "Expired"));
	error_free(err);

	/* A delete that fails shows what is there; one that works shows the object at its last revision. */
	bool ok;
	assert_ok(cache_delete(c, STR("a"), STR("one"), 4, &ok, &e));
	assert_true(!ok && e->rev == 5);
	cache_entry_unref(e);
	assert_ok(cache_delete(c, STR("a"), STR("one"), 5, &ok, &e));
	assert_true(ok && e->rev == 7 && str_contains(json_of(c, e), STR("\"resourceVersion\":\"7\"")));
	cache_entry_unref(e);
	assert_ok(cache_delete(c, STR("a"), STR("one"), STORE_ANY, &ok, &e));
	assert_true(!ok && !e);
	err = cache_delete(c, STR(""), STR("one"), STORE_ANY, &ok, &e);
	assert_true(error_is(err, 400, "BadRequest"));
	error_free(err);

	/* A cache made later decodes what is stored and holds the same bytes. */
	put_pod(c, "a", "one", "n1", "web", 0);
	struct cache *c2;
	assert_ok(cache_new(store, &pods, &c2));
	const struct cache_entry *e1 = cache_peek(c, STR("a"), STR("one")), *e2 = cache_peek(c2, STR("a"), STR("one"));
	assert_true(e1 && e2 && e1 != e2 && str_eq(json_of(c, e1), json_of(c2, e2)));
	/* And follows foreign writes. */
	put_pod(c, "a", "four", "n1", "web", 0);
	assert_non_null(cache_peek(c2, STR("a"), STR("four")));
	now_is(c2, "", NULL, "a/four@9 a/one@8 b/two@3 ");
	cache_free(c2);
	cache_free(c);
	done();
}

static void put_json(struct cache *c, const char *name, const char *json)
{
	bool ok;
	struct cache_entry *e;
	assert_ok(cache_put(c, STR(""), str_from(name), STORE_ANY, str_from(json), STR_NULL, 0, 0, &ok, &e));
	assert_true(ok);
	cache_entry_unref(e);
}

static void json_is(struct cache *c, const char *name, const char *want, const char *color)
{
	const struct cache_entry *e = cache_peek(c, STR(""), str_from(name));
	assert_non_null(e);
	assert_str(json_of(c, e), want);
	assert_str(cache_entry_field(c, e, 0), color);
}

CACHE_TEST(custom_json)
{
	open_store();
	struct cache *c;
	assert_ok(cache_new(store, &widgets, &c));
	put_json(c, "w", "{\"kind\":\"Widget\",\"metadata\":{\"labels\":{\"a\":\"\\u00e9\\\"x\"},\"name\":\"w\",\"uid\":\"u1\"},\"spec\":{\"color\":\"red\"}}");
	json_is(c, "w", "{\"kind\":\"Widget\",\"metadata\":{\"labels\":{\"a\":\"\\u00e9\\\"x\"},\"name\":\"w\",\"resourceVersion\":\"2\",\"uid\":\"u1\"},\"spec\":{\"color\":\"red\"}}", "red");
	const struct cache_entry *e = cache_peek(c, STR(""), STR("w"));
	struct str_pair l[255];
	assert_int_equal(cache_entry_labels(e, l), 1);
	assert_str(l[0].value, "\xc3\xa9\"x");
	assert_str(cache_entry_uid(e), "u1");
	/* A revision that is there is replaced, whatever its width; white space; other paths; values of other kinds. */
	put_json(c, "v", "{\"spec\":{\"paint\":{\"name\":\"bl\\u0075e\"}},\n \"metadata\" : {\"resourceVersion\":\"123456789\",\"uid\":\"u2\"} }");
	json_is(c, "v", "{\"spec\":{\"paint\":{\"name\":\"bl\\u0075e\"}},\n \"metadata\" : {\"resourceVersion\":\"3\",\"uid\":\"u2\"} }", "blue");
	assert_str(cache_entry_uid(cache_peek(c, STR(""), STR("v"))), "u2");
	put_json(c, "u", "{\"metadata\":{},\"spec\":{\"color\":5,\"metadata\":{\"name\":\"no\"}}}");
	json_is(c, "u", "{\"metadata\":{\"resourceVersion\":\"4\"},\"spec\":{\"color\":5,\"metadata\":{\"name\":\"no\"}}}", "5");
	put_json(c, "t", "{\"metadata\":{\"labels\":null},\"spec\":{\"color\":null,\"x\":[1,{\"color\":\"no\"},\"}\"]}}");
	json_is(c, "t", "{\"metadata\":{\"labels\":null,\"resourceVersion\":\"5\"},\"spec\":{\"color\":null,\"x\":[1,{\"color\":\"no\"},\"}\"]}}", "none");
	/* Not an object with metadata: said to the writer who could not be shown it; others go on. */
	static const char *const bad[] = {"", "[]", "null", "{}", "{\"metadata\":3", "{\"metadata\":{\"name\":\"x", "{\"metadata\":{\"a\":1}",
					  "{\"metadata\":{\"a\" 1}}"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct cache_entry *none;
		struct error *err = entry_new(&widgets, STR("x"), 1, STR_NULL, str_from(bad[i]), &none);
		assert_true(error_is(err, 500, "InternalError"));
		assert_null(none);
		error_free(err);
	}
	cache_free(c);
	done();
}

CACHE_TEST(watches)
{
	open_store();
	struct cache *c;
	struct arena a = {0};
	assert_ok(cache_new(store, &pods, &c));
	put_pod(c, "a", "one", "n1", "web", 0); /* 2 */
	put_pod(c, "b", "two", "", "web", 0);   /* 3 */
	struct cache_watch *all, *ns, *web, *node, *init, *late;
	struct cache_watch_opts o = {.rev = 2};
	assert_ok(cache_watch_open(c, &o, &all));
	o = (struct cache_watch_opts){.ns = STR("b"), .rev = 3};
	assert_ok(cache_watch_open(c, &o, &ns));
	o = (struct cache_watch_opts){.rev = 3};
	assert_ok(label_selector_parse(&a, STR("app=web"), &o.filter.labels));
	assert_ok(cache_watch_open(c, &o, &web));
	o = (struct cache_watch_opts){.rev = 1};
	assert_ok(field_selector_parse(&a, STR("spec.nodeName=n1"), &o.filter.fields));
	assert_ok(cache_watch_open(c, &o, &node));
	o = (struct cache_watch_opts){.initial = true, .mode = CACHE_CONSISTENT, .initial_end = true};
	assert_ok(cache_watch_open(c, &o, &init));
	put_pod(c, "b", "two", "n1", "web", 3); /* 4: bound */
	put_pod(c, "a", "one", "n1", "db", 2);  /* 5: leaves web */
	put_pod(c, "a", "one", "n1", "web", 5); /* 6: comes back */
	del(c, "a", "one");                     /* 7 */
	put_pod(c, "a", "six", "n2", "db", 0);  /* 8 */

	event(all, CACHE_ADDED, "b/two", 3);
	event(all, CACHE_MODIFIED, "b/two", 4);
	event(all, CACHE_MODIFIED, "a/one", 5);
	event(all, CACHE_MODIFIED, "a/one", 6);
	event(all, CACHE_DELETED, "a/one", 7);
	event(all, CACHE_ADDED, "a/six", 8);
	quiet(all);
	event(ns, CACHE_MODIFIED, "b/two", 4);
	quiet(ns);
	event(web, CACHE_MODIFIED, "b/two", 4);
	event(web, CACHE_DELETED, "a/one", 5);
	event(web, CACHE_ADDED, "a/one", 6);
	event(web, CACHE_DELETED, "a/one", 7);
	quiet(web);
	event(node, CACHE_ADDED, "a/one", 2);
	event(node, CACHE_ADDED, "b/two", 4);
	event(node, CACHE_MODIFIED, "a/one", 5);
	event(node, CACHE_MODIFIED, "a/one", 6);
	event(node, CACHE_DELETED, "a/one", 7);
	quiet(node);
	event(init, CACHE_ADDED, "a/one", 2);
	event(init, CACHE_ADDED, "b/two", 3);
	assert_true(cache_watch_ready(init));
	struct cache_event ev;
	assert_ok(cache_watch_next(init, &ev));
	assert_true(ev.type == CACHE_BOOKMARK && ev.initial_end && ev.rev == 3);
	event(init, CACHE_MODIFIED, "b/two", 4);
	/* The shared forms: one event, two readers, one slot a type. */
	o = (struct cache_watch_opts){.rev = 4};
	assert_ok(cache_watch_open(c, &o, &late));
	assert_ok(cache_watch_next(late, &ev));
	assert_true(ev.rev == 5 && ev.forms && !ev.forms[1]);
	ev.forms[1] = block_new(STR("table row"));
	assert_ok(cache_watch_next(init, &ev));
	assert_true(ev.rev == 5 && ev.forms[1]);
	assert_str(block_str(ev.forms[1]), "table row");
	/* A waiting watcher is woken by what concerns it and only by that. */
	put_pod(c, "a", "seven", "n3", "db", 0); /* 9 */
	quiet(node);
	put_pod(c, "a", "eight", "n1", "db", 0); /* 10 */
	event(node, CACHE_ADDED, "a/eight", 10);
	/* Timeout with a last bookmark. */
	cache_watch_close(late);
	o = (struct cache_watch_opts){.rev = 9, .bookmarks = true, .timeout_ms = 2050};
	assert_ok(cache_watch_open(c, &o, &late));
	event(late, CACHE_ADDED, "a/eight", 10);
	put_pod(c, "a", "nine", "n1", "db", 0); /* 11 */
	del(c, "a", "nine"); /* 12 */
	event(late, CACHE_ADDED, "a/nine", 11);
	event(late, CACHE_DELETED, "a/nine", 12);
	bool ok;
	int64_t rev;
	assert_ok(store_put(store, STR("/elsewhere"), STR("x"), 0, 0, 0, NULL, &ok, &rev, NULL)); /* 13 */
	assert_int_equal(cache_rev(c), 13);
	event(late, CACHE_BOOKMARK, NULL, 13);
	struct error *e = cache_watch_next(late, &ev);
	assert_true(error_is_sys(e, ETIMEDOUT));
	error_free(e);
	/* Too old; and from the future: waits for what comes after. */
	cache_watch_close(late);
	o = (struct cache_watch_opts){.rev = 0};
	e = cache_watch_open(c, &o, &late);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	o.rev = 14;
	assert_ok(cache_watch_open(c, &o, &late));
	put_pod(c, "a", "x", "n1", "db", 0); /* 14: not after 14 */
	put_pod(c, "a", "y", "n1", "db", 0); /* 15 */
	event(late, CACHE_ADDED, "a/y", 15);
	cache_watch_close(all);
	cache_watch_close(ns);
	cache_watch_close(web);
	cache_watch_close(node);
	cache_watch_close(init);
	assert_int_equal(c->nodes.n, 0);
	cache_free(c);
	e = cache_watch_next(late, &ev);
	assert_true(error_is_sys(e, ECANCELED));
	error_free(e);
	cache_watch_close(late);
	arena_free(&a);
	done();
}

struct grouped {
	struct cache_watch *w;
	int group;
};
static int woken[64], n_woken;

static void grouped_watcher(void *arg)
{
	struct grouped *g = arg;
	struct cache_event ev;
	struct error *e;
	while (!(e = cache_watch_next(g->w, &ev)))
		woken[n_woken++] = g->group;
	error_free(e);
	cache_watch_close(g->w);
}

/* Watchers of a group are woken one after the other, whatever the order they came in and went. */
CACHE_TEST(groups)
{
	open_store();
	struct cache *c;
	assert_ok(cache_new(store, &pods, &c));
	struct grouped g[12];
	struct fiber *f[12];
	for (int i = 0; i < 12; i++) {
		struct cache_watch_opts o = {.rev = cache_rev(c), .group = i % 4 ? &g[i % 4] : NULL};
		g[i].group = i % 4;
		assert_ok(cache_watch_open(c, &o, &g[i].w));
		f[i] = fiber_start("watcher", grouped_watcher, &g[i]);
	}
	static const int go[] = {9, 1, 6, 5, 11, 0};
	int left = 12;
	for (int round = 0; round < 7; round++) {
		n_woken = 0;
		put_pod(c, "a", "p", "n1", "x", round ? STORE_ANY : 0);
		while (n_woken < left)
			assert_ok(fiber_sleep(1));
		assert_int_equal(n_woken, left);
		int runs[4] = {0};
		for (int i = 0; i < left; i++)
			runs[woken[i]] += !i || woken[i] != woken[i - 1];
		for (int i = 1; i < 4; i++)
			assert_true(runs[i] <= 1);
		if (round < 6) {
			fiber_stop(f[go[round]]);
			f[go[round]] = NULL;
			left--;
		}
	}
	for (int i = 0; i < 12; i++)
		fiber_stop(f[i]);
	assert_int_equal(c->groups.n, 0);
	cache_free(c);
	done();
}

CACHE_TEST(slow_watcher)
{
	open_store();
	struct cache *c;
	struct arena a = {0};
	assert_ok(cache_new(store, &pods, &c));
	struct cache_watch *w, *node;
	struct cache_watch_opts o = {.rev = cache_rev(c)};
	assert_ok(cache_watch_open(c, &o, &w));
	assert_ok(field_selector_parse(&a, STR("spec.nodeName=n1"), &o.filter.fields));
	assert_ok(cache_watch_open(c, &o, &node));
	int64_t rev = put_pod(c, "a", "p", "n1", "x", 0);
	for (int i = 0; i < 300; i++)
		rev = put_pod(c, "a", "p", "n1", "x", rev);
	struct cache_event ev;
	assert_ok(cache_watch_next(w, &ev));
	/* Time passes: events older than the window go, all but a few. */
	ring_trim(c, now_ms() + 400000);
	struct cache_stats st;
	cache_stats(c, &st);
	assert_int_equal(st.events, 100);
	struct error *e = cache_watch_next(w, &ev);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	assert_true(cache_watch_ready(node));
	e = cache_watch_next(node, &ev);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	cache_watch_close(w);
	cache_watch_close(node);
	struct cache_snap *s;
	/* what the cache has no more is read from the store, as long as that has it */
	char was[64];
	assert_ok(cache_snapshot(c, CACHE_EXACT, st.oldest_rev - 1, &s));
	snprintf(was, sizeof was, "a/p@%lld ", (long long)(st.oldest_rev - 1));
	list_is(c, s, "", "", NULL, was);
	cache_snap_free(s);
	assert_ok(store_compact(store, st.oldest_rev));
	e = cache_snapshot(c, CACHE_EXACT, st.oldest_rev - 1, &s);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	assert_ok(cache_snapshot(c, CACHE_EXACT, st.oldest_rev, &s));
	char want[40];
	snprintf(want, sizeof(want), "a/p@%lld ", (long long)st.oldest_rev);
	list_is(c, s, "", "", NULL, want);
	cache_snap_free(s);
	arena_free(&a);
	cache_free(c);
	done();
}

/* Random writes, snapshots kept all along, exact reads, watchers with filters: all must agree with a plain array. */
#define MODEL_KEYS 400
#define MODEL_STEPS 2500
struct model {
	int64_t rev[MODEL_KEYS];
	char node[MODEL_KEYS];
};
static uint64_t seed;
static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % n;
}

static void check_snap(struct cache *c, struct cache_snap *s, const struct model *m)
{
	struct cache_iter it;
	const struct cache_entry *e;
	size_t n = 0;
	cache_iter_init(&it, c, s, STR_NULL, STR_NULL, NULL);
	for (int i = 0; i < MODEL_KEYS; i++) {
		if (!m->rev[i])
			continue;
		n++;
		char key[32];
		snprintf(key, sizeof(key), "ns%d/p%03d", i / 100, i);
		e = cache_iter_next(&it);
		assert_non_null(e);
		assert_str(cache_entry_key(e), key);
		assert_int_equal(e->rev, m->rev[i]);
	}
	assert_null(cache_iter_next(&it));
	assert_int_equal(cache_snap_count(s, STR_NULL, STR_NULL), n);
	struct arena a = {0};
	struct cache_filter f = {0};
	char sel[32] = "spec.nodeName=nX";
	int node = (int)rnd(5);
	sel[15] = (char)('0' + node);
	assert_ok(field_selector_parse(&a, str_from(sel), &f.fields));
	cache_iter_init(&it, c, s, STR_NULL, STR_NULL, &f);
	for (int i = 0; i < MODEL_KEYS; i++)
		if (m->rev[i] && m->node[i] == '0' + node) {
			e = cache_iter_next(&it);
			assert_non_null(e);
			assert_int_equal(e->rev, m->rev[i]);
		}
	assert_null(cache_iter_next(&it));
	arena_free(&a);
}

CACHE_TEST(model)
{
	open_store();
	struct cache *c;
	assert_ok(cache_new(store, &pods, &c));
	seed = random_u64();
	print_message("# seed %llu\n", (unsigned long long)seed);
	struct model m = {0};
	struct {
		struct cache_snap *s;
		struct model m;
	} kept[8] = {0};
	struct model *past = calloc(MODEL_STEPS + 2, sizeof(*past));
	int64_t base = cache_rev(c);
	past[0] = m;
	struct cache_watch *w;
	struct arena a = {0};
	struct cache_watch_opts o = {.rev = base};
	assert_ok(field_selector_parse(&a, STR("spec.nodeName=n3"), &o.filter.fields));
	assert_ok(cache_watch_open(c, &o, &w));
	int64_t seen[MODEL_KEYS] = {0};
	for (int i = 0; i < MODEL_STEPS; i++) {
		int k = (int)rnd(i < MODEL_STEPS / 2 ? MODEL_KEYS : 40);
		char ns[16], name[16], node[4] = "n0";
		snprintf(ns, sizeof(ns), "ns%d", k / 100);
		snprintf(name, sizeof(name), "p%03d", k);
		if (m.rev[k] && rnd(i < MODEL_STEPS / 3 ? 8 : 2) == 0) {
			m.rev[k] = 0;
			assert_int_equal(del(c, ns, name), base + i + 1);
		} else {
			m.node[k] = node[1] = (char)('0' + rnd(5));
			m.rev[k] = put_pod(c, ns, name, node, NULL, STORE_ANY);
			assert_int_equal(m.rev[k], base + i + 1);
		}
		past[i + 1] = m;
		if (rnd(50) == 0) {
			int slot = (int)rnd(8);
			if (kept[slot].s) {
				check_snap(c, kept[slot].s, &kept[slot].m);
				cache_snap_free(kept[slot].s);
			}
			assert_ok(cache_snapshot(c, CACHE_ANY, 0, &kept[slot].s));
			kept[slot].m = m;
		}
		if (rnd(50) == 0) {
			int back = (int)rnd((uint32_t)(i < 300 ? i : 300) + 1);
			struct cache_snap *s;
			assert_ok(cache_snapshot(c, CACHE_EXACT, base + i + 1 - back, &s));
			check_snap(c, s, &past[i + 1 - back]);
			cache_snap_free(s);
		}
		while (rnd(3) == 0 && cache_watch_ready(w)) {
			struct cache_event ev;
			assert_ok(cache_watch_next(w, &ev));
			int64_t n;
			assert_true(str_to_i64(str_sub(cache_entry_name(ev.obj), 1, 4), &n));
			assert_int_equal(ev.type, ev.type == CACHE_DELETED ? CACHE_DELETED : seen[n] ? CACHE_MODIFIED : CACHE_ADDED);
			seen[n] = ev.type == CACHE_DELETED ? 0 : ev.rev;
		}
	}
	while (cache_watch_ready(w)) {
		struct cache_event ev;
		assert_ok(cache_watch_next(w, &ev));
		int64_t n;
		assert_true(str_to_i64(str_sub(cache_entry_name(ev.obj), 1, 4), &n));
		seen[n] = ev.type == CACHE_DELETED ? 0 : ev.rev;
	}
	for (int i = 0; i < MODEL_KEYS; i++)
		assert_int_equal(seen[i], m.rev[i] && m.node[i] == '3' ? m.rev[i] : 0);
	for (int i = 0; i < 8; i++) {
		if (kept[i].s)
			check_snap(c, kept[i].s, &kept[i].m);
		cache_snap_free(kept[i].s);
	}
	now_is(c, "nothing", NULL, "");
	for (int i = 0; i < MODEL_KEYS; i++) {
		char ns[8], name[8];
		snprintf(ns, sizeof(ns), "ns%d", i / 100);
		snprintf(name, sizeof(name), "p%03d", i);
		assert_int_equal(del(c, ns, name) != 0, m.rev[i] != 0);
	}
	assert_null(c->main.root);
	assert_null(c->node.root);
	struct cache_stats st;
	cache_stats(c, &st);
	assert_int_equal(st.object_bytes, 0);
	assert_int_equal(st.index_bytes, 0);
	cache_watch_close(w);
	arena_free(&a);
	free(past);
	cache_free(c);
	done();
}

/* ---- protobuf ---- */

static const struct cache_field odd_fields[] = {
	{STR_INIT("spec.unschedulable"), STR_INIT(""), STR_INIT("false"), STR_INIT("")},
	{STR_INIT("status.daemonEndpoints.kubeletEndpoint.Port"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("either"), STR_INIT("spec.podCIDR"), STR_INIT("nothing"), STR_INIT("spec.providerID")},
	{STR_INIT("metadata.generation"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
};
static const struct cache_field far_fields[] = {
	{STR_INIT("spec.providerID"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("born"), STR_INIT("metadata.creationTimestamp"), STR_INIT("never"), STR_INIT("")}, /* no plain value: by way of JSON */
};
static const struct cache_resource nodes = {
	.prefix = STR_INIT("/registry/minions/"), .group = STR_INIT(""), .version = STR_INIT("v1"), .kind = STR_INIT("Node"),
	.type = &core_v1_node_type, .fields = odd_fields, .n_fields = 4, .node_field = -1,
};
static const struct cache_resource far_nodes = {
	.prefix = STR_INIT("/registry/minions/"), .group = STR_INIT(""), .version = STR_INIT("v1"), .kind = STR_INIT("Node"),
	.type = &core_v1_node_type, .fields = far_fields, .n_fields = 2, .node_field = -1,
};

/* Puts stored bytes as they are. */
static const struct cache_entry *put_bytes(struct cache *c, const char *name, struct str stored)
{
	bool ok;
	struct cache_entry *e;
	assert_ok(cache_put(c, STR(""), str_from(name), STORE_ANY, stored, STR_NULL, 0, 0, &ok, &e));
	assert_true(ok);
	cache_entry_unref(e);
	return cache_peek(c, STR(""), str_from(name));
}

CACHE_TEST(protobuf)
{
	open_store();
	struct cache *c, *far;
	struct arena a = {0};
	assert_ok(cache_new(store, &nodes, &c));
	assert_ok(cache_new(store, &far_nodes, &far));
	struct core_v1_node n = {.metadata.name = STR("n"), .metadata.uid = STR("u-1"), .metadata.generation = 7};
	n.spec.unschedulable = true;
	n.spec.provider_id = STR("here://1");
	n.status.daemon_endpoints.kubelet_endpoint.port = 10250;
	n.metadata.creation_timestamp = (struct api_time){.set = true, .s = 1700000000};
	str_map_set(&a, API_MAP(&n.metadata.labels), STR("zone"), STR("a"));
	str_map_set(&a, API_MAP(&n.metadata.labels), STR("arch"), STR("b\"c"));
	struct buf b = {0};
	pb_envelope_encode(&b, STR("v1"), STR("Node"), &core_v1_node_type, &n);
	const struct cache_entry *e = put_bytes(c, "n", buf_view(&b));
	assert_true(e && e->pb);
	rv_is(e, 2);
	assert_str(cache_entry_uid(e), "u-1");
	field_is(c, e, 0, "true");
	field_is(c, e, 1, "10250");
	field_is(c, e, 2, "here://1");
	field_is(c, e, 3, "7");
	struct str_pair l[255];
	assert_int_equal(cache_entry_labels(e, l), 2);
	assert_str(l[0].key, "arch");
	assert_str(l[0].value, "b\"c");
	assert_str(l[1].value, "a");
	/* The body is an item of a list: tag, length, the message the encoder would write. */
	struct core_v1_node back = {0};
	struct buf again = {0};
	assert_int_equal((unsigned char)e->body->bytes[0], 0x12);
	assert_ok(cache_entry_decode(&a, &core_v1_node_type, e, true, &back));
	assert_str(back.metadata.resource_version, "2");
	pb_encode(&again, &core_v1_node_type, &back);
	assert_true(str_eq(entry_raw(e), buf_view(&again)));
	const struct cache_entry *f = cache_peek(far, STR(""), STR("n"));
	field_is(far, f, 0, "here://1");
	field_is(far, f, 1, "2023-11-14T22:13:20Z");
	assert_str(cache_entry_uid(f), "u-1");
	assert_true(str_eq(block_str(e->body), block_str(f->body)));

	/* A resourceVersion that was stored is replaced; zero values are absent where JSON has none. */
	n.metadata.resource_version = STR("123456789012");
	n.metadata.generation = 0;
	n.spec.unschedulable = false;
	n.spec.pod_cidr = STR("10.0.0.0/24");
	b.n = 0;
	pb_envelope_encode(&b, STR("v1"), STR("Node"), &core_v1_node_type, &n);
	e = put_bytes(c, "n", buf_view(&b));
	rv_is(e, 3);
	field_is(c, e, 0, "false");
	field_is(c, e, 2, "10.0.0.0/24");
	field_is(c, e, 3, "");
	assert_str(cache_entry_uid(e), "u-1");
	struct cache_entry *late = entry_at_rev(cache_resource(c), e, 1234567);
	rv_is(late, 1234567);
	assert_str(cache_entry_uid(late), "u-1");
	field_is(c, late, 2, "10.0.0.0/24");
	cache_entry_unref(late);

	/* JSON, as upstream stores it with --storage-media-type=application/json, is held as protobuf. */
	e = put_bytes(c, "j", STR("{\"kind\":\"Node\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"j\",\"labels\":{\"x\":\"y\"}},"
				  "\"spec\":{\"unschedulable\":true}}"));
	assert_true(e && e->pb);
	rv_is(e, 4);
	field_is(c, e, 0, "true");
	assert_int_equal(cache_entry_labels(e, l), 1);
	/* And so is YAML. */
	e = put_bytes(c, "ya", STR("apiVersion: v1\nkind: Node\nmetadata: {name: ya, labels: {x: z}}\nspec:\n  unschedulable: true\n"));
	assert_true(e && e->pb);
	rv_is(e, 5);
	field_is(c, e, 0, "true");
	assert_int_equal(cache_entry_labels(e, l), 1);
	/* Metadata in two pieces, unsorted labels: valid protobuf, but not how an encoder writes it. */
	static const char odd[] = "k8s\0\x0a\x0a\x0a\x02v1\x12\x04Node\x12\x1d\x0a\x03\x0a\x01o\x0a\x10\x5a\x06\x0a\x01z\x12\x01" "1\x5a\x06\x0a\x01" "a\x12\x01"
				  "2\x12\x04\x3a\x02p:";
	e = put_bytes(c, "o", str_of(odd, sizeof(odd) - 1));
	assert_true(e && e->pb);
	rv_is(e, 6);
	assert_str(cache_entry_name(e), "o");
	assert_int_equal(cache_entry_labels(e, l), 2);
	assert_str(l[0].key, "a");
	assert_str(l[1].value, "1");
	/* What is no object is nobody's: an error, and the older version goes on. */
	static const char *const bad[] = {"", "no", "{\"metadata\":", "k8s", "a: b", "k8s\0"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct cache_entry *none;
		struct error *err = entry_new(cache_resource(c), STR("x"), 1, STR_NULL, str_of(bad[i], i == 5 ? 4 : strlen(bad[i])), &none);
		if (i < 5 && !err)
			fail_msg("case %zu was taken", i);
		assert_true(!err == (none != NULL));
		cache_entry_unref(none);
		error_free(err);
	}
	/* Cut anywhere, it is refused or read, never past its end. */
	for (size_t i = 0; i < b.n; i++) {
		char *cut = memcpy(malloc(i + 1), b.p, i);
		struct cache_entry *none;
		struct error *err = entry_new(cache_resource(c), STR("x"), 1, STR_NULL, str_of(cut, i), &none);
		error_free(err);
		cache_entry_unref(none);
		free(cut);
	}
	buf_free(&b);
	buf_free(&again);
	arena_free(&a);
	cache_free(far);
	cache_free(c);
	done();
}

/* JSON that was made stays for the next reader, within the limit, and goes when nobody wants it. */
CACHE_TEST(hot)
{
	open_store();
	struct cache *c;
	assert_ok(cache_new(store, &pods, &c));
	put_pod(c, "a", "one", "n1", "web", 0);
	struct cache_entry *e;
	struct block *j1, *j2;
	assert_ok(cache_get(c, STR("a"), STR("one"), CACHE_ANY, 0, &e));
	assert_null(e->hot);
	assert_ok(cache_entry_json(c, e, &j1));
	assert_ok(cache_entry_json(c, e, &j2));
	assert_true(j1 == j2 && e->hot);
	assert_true(hot_bytes() >= j1->n);
	hot_sweep(false); /* it was used */
	assert_non_null(e->hot);
	hot_sweep(false);
	assert_null(e->hot);
	assert_int_equal(hot_bytes(), 0);
	assert_true(str_contains(block_str(j1), STR("\"one\""))); /* readers keep theirs */
	block_unref(j1);
	block_unref(j2);
	/* A deleted object's JSON goes with the next sweeps; 2,000 objects stay within the limit. */
	assert_ok(cache_entry_json(c, e, &j1));
	block_unref(j1);
	cache_entry_unref(e);
	del(c, "a", "one");
	struct buf pb = {0};
	struct arena a = {0};
	struct core_v1_pod p = {.metadata.name = STR("x"), .metadata.namespace = STR("a")};
	char *big = arena_bytes(&a, 4096);
	memset(big, 'x', 4096);
	p.spec.hostname = str_of(big, 4096);
	pb_envelope_encode(&pb, STR("v1"), STR("Pod"), &core_v1_pod_type, &p);
	for (int i = 0; i < 2000; i++) {
		char key[32];
		snprintf(key, sizeof(key), "a/p%d", i);
		assert_ok(entry_new(cache_resource(c), str_from(key), i + 1, STR_NULL, buf_view(&pb), &e));
		assert_ok(cache_entry_json(c, e, &j1));
		block_unref(j1);
		cache_entry_unref(e);
		assert_true(hot_bytes() <= cache_hot_limit());
	}
	assert_true(hot_bytes() > cache_hot_limit() / 2);
	buf_free(&pb);
	arena_free(&a);
	cache_free(c);
	assert_int_equal(hot_bytes(), 0);
	done();
}

/* ---- followers ---- */

static struct buf told;

static void tell(void *ctx, struct str key, const struct cache_entry *e)
{
	buf_printf(&told, "%s%.*s ", e ? "+" : "-", STR_ARG(key));
}

static void told_is(struct cache_follower *f, const char *want)
{
	told.n = 0;
	cache_follow(f);
	assert_string_equal(buf_z(&told), want);
}

CACHE_TEST(followers)
{
	struct cache *c;
	open_store();
	assert_ok(cache_new(store, &pods, &c));
	struct cache_follower f = {.cache = c, .what = "pods", .apply = tell};
	put_pod(c, "a", "one", "", NULL, 0);
	put_pod(c, "b", "two", "", NULL, 0);
	told_is(&f, "+a/one +b/two ");
	told_is(&f, "");
	put_pod(c, "a", "one", "n1", NULL, STORE_ANY);
	put_pod(c, "a", "three", "", NULL, 0);
	del(c, "b", "two");
	told_is(&f, "+a/one +a/three -b/two ");
	/* What goes while it does not watch is told all the same. */
	cache_watch_close(f.watch);
	f.watch = NULL;
	del(c, "a", "one");
	put_pod(c, "a", "four", "", NULL, 0);
	told_is(&f, "+a/four +a/three -a/one ");
	cache_watch_close(f.watch);
	map_free(&f.keys);
	buf_free(&told);
	cache_free(c);
	done();
}

int main(void)
{
	log_init("test", 0);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_writes), cmocka_unit_test(custom_json), cmocka_unit_test(protobuf), cmocka_unit_test(hot), cmocka_unit_test(watches),
		cmocka_unit_test(slow_watcher), cmocka_unit_test(groups), cmocka_unit_test(model), cmocka_unit_test(followers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
