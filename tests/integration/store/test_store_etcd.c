/*
 * The etcd engine against real etcd servers on loopback ports of their own: semantics under TLS with client certificates,
 * other users of the same etcd, the watch cache on top, three members of which one and then two are killed.
 */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../unit/test.h"
#include "apiserver/cache.h"
#include "base/log.h"
#include "loop/io.h"
#include "store/store.h"

static char dir[64];

struct member {
	int client_port, peer_port;
	struct proc *proc;
	char url[64];
};
static struct member members[3];
static int n_members;
static bool tls;

static bool have(const char *program)
{
	char path[256];
	static const char *const dirs[] = {"/usr/bin", "/usr/local/bin", "/usr/sbin"};
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dirs[i], program);
		if (!access(path, X_OK))
			return true;
	}
	return false;
}

static int free_port(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	close(fd);
	return ntohs(a.sin_port);
}

static void start_member(int i)
{
	struct arena a = {0};
	struct member *m = &members[i];
	struct buf cluster = {0};
	for (int k = 0; k < n_members; k++)
		buf_printf(&cluster, "%sm%d=http://127.0.0.1:%d", k ? "," : "", k, members[k].peer_port);
	const char *argv[40];
	int n = 0;
#define ARG(...) argv[n++] = arena_printf(&a, __VA_ARGS__).p
	ARG("etcd");
	ARG("--name=m%d", i);
	ARG("--data-dir=%s/m%d", dir, i);
	ARG("--listen-client-urls=%s", m->url);
	ARG("--advertise-client-urls=%s", m->url);
	ARG("--listen-peer-urls=http://127.0.0.1:%d", m->peer_port);
	ARG("--initial-advertise-peer-urls=http://127.0.0.1:%d", m->peer_port);
	ARG("--initial-cluster=%s", buf_z(&cluster));
	ARG("--initial-cluster-state=new");
	ARG("--heartbeat-interval=50");
	ARG("--election-timeout=500");
	ARG("--log-level=panic");
	ARG("--logger=zap");
	if (tls) {
		ARG("--cert-file=%s/server.pem", dir);
		ARG("--key-file=%s/server.key", dir);
		ARG("--trusted-ca-file=%s/ca.pem", dir);
		ARG("--client-cert-auth");
	}
	argv[n] = NULL;
	struct proc_opts o = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .die_with_parent = true};
	assert_ok(proc_spawn(&o, &m->proc));
	buf_free(&cluster);
	arena_free(&a);
}

static void kill_member(int i)
{
	int status;
	if (!members[i].proc)
		return;
	assert_ok(proc_kill(members[i].proc, SIGKILL));
	assert_ok(proc_wait(members[i].proc, &status));
	members[i].proc = NULL;
}

static void start_etcd(int n, bool with_tls)
{
	n_members = n;
	tls = with_tls;
	for (int i = 0; i < n; i++) {
		members[i].client_port = free_port();
		members[i].peer_port = free_port();
		snprintf(members[i].url, sizeof(members[i].url), "%s://127.0.0.1:%d", tls ? "https" : "http", members[i].client_port);
	}
	for (int i = 0; i < n; i++)
		start_member(i);
}

static void sh(const char *fmt, ...)
{
	char cmd[2000];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	struct buf err = {0};
	const char *argv[] = {"sh", "-c", cmd, NULL};
	struct error *e = proc_run(argv, STR_NULL, NULL, &err, NULL);
	if (e)
		fail_msg("%s: %s", e->message, buf_z(&err));
	buf_free(&err);
}

static void make_certificates(void)
{
	sh("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 1 -subj /CN=ca && "
	   "for c in server client; do openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $c.key -out $c.csr -subj /CN=$c && "
	   "printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' > ext && "
	   "openssl x509 -req -in $c.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile ext -out $c.pem; done", dir);
}

static struct store *open_store(int64_t history_ms)
{
	struct arena a = {0};
	struct buf urls = {0};
	for (int i = 0; i < n_members; i++)
		buf_printf(&urls, "%s%s", i ? "," : "", members[i].url);
	struct store_opts o = {.etcd_servers = buf_z(&urls), .history_ms = history_ms};
	if (tls) {
		o.etcd_ca = arena_printf(&a, "%s/ca.pem", dir).p;
		o.etcd_cert = arena_printf(&a, "%s/client.pem", dir).p;
		o.etcd_key = arena_printf(&a, "%s/client.key", dir).p;
	}
	struct store *s;
	assert_ok(store_open(&o, &s));
	buf_free(&urls);
	arena_free(&a);
	return s;
}

static void finish(struct store *s)
{
	store_close(s);
	for (int i = 0; i < n_members; i++)
		kill_member(i);
	assert_ok(dir_remove(dir));
}

#define ETCD_TEST(name)                                                                            \
	static void name##_body(void *arg);                                                        \
	static void name(void **state)                                                             \
	{                                                                                          \
		if (!have("etcd") || !have("etcdctl") || !have("openssl")) {                       \
			print_message("# etcd, etcdctl or openssl is not installed: not tried\n"); \
			skip();                                                                    \
		}                                                                                  \
		snprintf(dir, sizeof(dir), "/tmp/skiff-etcd-XXXXXX");                              \
		assert_non_null(mkdtemp(dir));                                                     \
		assert_ok(loop_run(name##_body, NULL));                                            \
	}                                                                                          \
	static void name##_body(void *arg)

/* ---- short calls ---- */

static int64_t put_if(struct store *s, const char *key, const char *value, int64_t expect)
{
	bool ok;
	int64_t rev;
	struct store_kv now;
	assert_ok(store_put(s, str_from(key), str_from(value), expect, 0, 0, NULL, &ok, &rev, &now));
	store_kv_free(&now);
	return ok ? rev : 0;
}

static int64_t del_if(struct store *s, const char *key, int64_t expect)
{
	bool ok;
	int64_t rev;
	assert_ok(store_delete(s, str_from(key), expect, &ok, &rev, NULL));
	return ok ? rev : 0;
}

static void value_is(struct store *s, const char *key, int64_t rev, const char *want)
{
	bool found;
	struct store_kv kv;
	assert_ok(store_get(s, str_from(key), rev, &found, &kv));
	assert_int_equal(found, want != NULL);
	if (want)
		assert_str(block_str(kv.value), want);
	store_kv_free(&kv);
}

static bool append_kv(void *ctx, struct store_kv *kv)
{
	buf_printf(ctx, "%.*s=%.*s ", STR_ARG(kv->key), STR_ARG(block_str(kv->value)));
	return true;
}
static void range_is(struct store *s, const char *start, const char *end, int64_t rev, size_t limit, const char *want)
{
	struct buf b = {0};
	assert_ok(store_range(s, str_from(start), str_from(end), &rev, limit, append_kv, &b));
	assert_string_equal(buf_z(&b), want);
	buf_free(&b);
}

static void next(struct store_watch *w, bool is_delete, const char *key, const char *value, int64_t rev)
{
	struct store_event e;
	int64_t d = deadline_push(20000);
	assert_ok(store_watch_next(w, &e, NULL));
	deadline_pop(d);
	assert_str(e.kv.key, key);
	assert_int_equal(e.is_delete, is_delete);
	if (rev)
		assert_int_equal(e.kv.mod_rev, rev);
	if (value)
		assert_str(block_str(e.kv.value), value);
	store_event_free(&e);
}

static void etcdctl(const char *args)
{
	sh("ETCDCTL_API=3 etcdctl --endpoints=%s %s >/dev/null", members[0].url, args);
}

static bool count_kv(void *ctx, struct store_kv *kv)
{
	size_t *n = ctx;
	n[0]++;
	n[1] += kv->value->n;
	return true;
}

ETCD_TEST(semantics)
{
	make_certificates();
	start_etcd(1, true);
	struct store *s = open_store(0);
	int64_t base = store_revision(s);
	assert_true(base >= 1);
	struct store_watch *w, *a;
	assert_ok(store_watch_open(s, STR("/"), STR("0"), base, &w));
	assert_ok(store_watch_open(s, STR("/a/"), STR("/a0"), base, &a));
	assert_int_equal(put_if(s, "/a/1", "1", 0), base + 1);
	assert_int_equal(store_revision(s), base + 1); /* shown before the writer goes on */
	assert_int_equal(put_if(s, "/a/1", "x", 0), 0);
	assert_int_equal(put_if(s, "/b/1", "2", 0), base + 2);
	assert_int_equal(put_if(s, "/a/1", "1b", base + 1), base + 3);
	bool ok, found;
	int64_t rev;
	struct store_kv kv;
	assert_ok(store_put(s, STR("/a/1"), STR("no"), base, 0, 0, NULL, &ok, &rev, &kv));
	assert_true(!ok && kv.mod_rev == base + 3 && kv.create_rev == base + 1 && kv.version == 2);
	assert_str(block_str(kv.value), "1b");
	store_kv_free(&kv);
	value_is(s, "/a/1", 0, "1b");
	value_is(s, "/a/1", base + 2, "1");
	value_is(s, "/none", 0, NULL);
	range_is(s, "/", "0", 0, 0, "/a/1=1b /b/1=2 ");
	range_is(s, "/", "0", base + 1, 0, "/a/1=1 ");
	range_is(s, "/", "", 0, 1, "/a/1=1b ");
	size_t n;
	assert_ok(store_count(s, STR("/"), STR("0"), &n));
	assert_int_equal(n, 2);
	assert_int_equal(del_if(s, "/a/1", base + 1), 0);
	assert_int_equal(del_if(s, "/none", STORE_ANY), 0);
	assert_int_equal(del_if(s, "/a/1", 0), 0);
	assert_int_equal(del_if(s, "/a/1", base + 3), base + 4);
	next(w, false, "/a/1", "1", base + 1);
	next(w, false, "/b/1", "2", base + 2);
	next(w, false, "/a/1", "1b", base + 3);
	next(w, true, "/a/1", NULL, base + 4);
	next(a, false, "/a/1", "1", base + 1);
	next(a, false, "/a/1", "1b", base + 3);
	next(a, true, "/a/1", NULL, base + 4);
	/* From history, then live. */
	struct store_watch *h;
	assert_ok(store_watch_open(s, STR("/a/"), STR("/a0"), base + 1, &h));
	struct block *cookie = block_new(STR("cookie"));
	assert_ok(store_put(s, STR("/a/2"), STR("live"), 0, 0, 0, cookie, &ok, &rev, NULL));
	next(h, false, "/a/1", "1b", base + 3);
	next(h, true, "/a/1", NULL, base + 4);
	struct store_event ev;
	assert_ok(store_watch_next(h, &ev, NULL));
	assert_true(ev.cookie == cookie && ev.kv.mod_rev == rev);
	store_event_free(&ev);
	block_unref(cookie);
	assert_ok(store_current(s, &rev));
	assert_true(rev >= base + 5);
	/* Compaction. */
	assert_ok(store_compact(s, base + 4));
	assert_ok(store_compact(s, base + 3)); /* somebody was quicker: fine */
	struct error *e = store_get(s, STR("/b/1"), base + 1, &found, &kv);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	struct store_watch *old;
	e = store_watch_open(s, STR("/"), STR("0"), base + 1, &old);
	assert_true(error_is(e, 410, "Expired"));
	error_free(e);
	rev = base + 1000;
	e = store_range(s, STR("/"), STR("0"), &rev, 0, append_kv, NULL);
	assert_true(error_is(e, 504, "Timeout"));
	error_free(e);
	/* Leases. */
	int64_t id;
	assert_ok(store_lease_grant(s, 1000, &id));
	assert_ok(store_put(s, STR("/a/leased"), STR("x"), 0, id, 0, NULL, &ok, &rev, NULL));
	assert_ok(store_lease_keepalive(s, id));
	next(h, false, "/a/leased", "x", rev);
	next(h, true, "/a/leased", NULL, 0);
	e = store_lease_keepalive(s, id);
	assert_true(error_is(e, 404, "NotFound"));
	error_free(e);
	assert_ok(store_lease_grant(s, 100000, &id));
	assert_ok(store_put(s, STR("/a/leased"), STR("x"), 0, id, 0, NULL, &ok, &rev, NULL));
	assert_ok(store_lease_revoke(s, id));
	value_is(s, "/a/leased", 0, NULL);
	e = store_put(s, STR("/a/leased"), STR("x"), 0, id, 0, NULL, &ok, &rev, NULL);
	assert_true(error_is(e, 404, "NotFound"));
	error_free(e);
	/* Many objects, some of them large: pages. */
	struct block *big = block_new(str_of(NULL, 1000000));
	memset(big->bytes, 'b', big->n);
	for (int i = 0; i < 330; i++) {
		char key[32];
		snprintf(key, sizeof(key), "/many/%03d", i);
		bool large = i >= 200 && i < 230;
		assert_ok(store_put(s, str_from(key), large ? block_str(big) : str_of(big->bytes, 100), 0, 0, 0, NULL, &ok, &rev, NULL));
	}
	block_unref(big);
	size_t got[2] = {0};
	rev = 0;
	assert_ok(store_range(s, STR("/many/"), STR("/many0"), &rev, 0, count_kv, got));
	assert_int_equal(got[0], 330);
	assert_int_equal(got[1], 30 * 1000000 + 300 * 100);
	got[0] = 0;
	assert_ok(store_range(s, STR("/many/"), STR("/many0"), &rev, 150, count_kv, got));
	assert_int_equal(got[0], 150);
	struct store_stats st;
	store_stats(s, &st);
	assert_true(st.keys >= 332 && st.bytes_map > 0);
	store_watch_close(w);
	store_watch_close(a);
	store_watch_close(h);

	/* Without the client certificate, or with another CA, it is refused and said. */
	struct store *none;
	char ca[100];
	snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
	struct store_opts o = {.etcd_servers = members[0].url, .etcd_ca = ca};
	int64_t d = deadline_push(4000);
	e = store_open(&o, &none);
	deadline_pop(d);
	assert_non_null(e);
	assert_non_null(strstr(e->message, members[0].url));
	error_free(e);
	o.etcd_servers = "localhost:2379";
	e = store_open(&o, &none);
	assert_non_null(strstr(e->message, "http://HOST:PORT"));
	error_free(e);
	finish(s);
}

/* ---- the cache above, and others on the same etcd ---- */

static const struct cache_resource configmaps = {
	.prefix = STR_INIT("/registry/configmaps/"), .group = STR_INIT(""), .version = STR_INIT("v1"), .kind = STR_INIT("ConfigMap"),
	.type = &core_v1_config_map_type, .namespaced = true, .node_field = -1,
};

static int64_t put_map(struct cache *c, const char *name, const char *value, int64_t expect)
{
	struct arena a = {0};
	struct core_v1_config_map *m = arena_new(&a, struct core_v1_config_map);
	m->kind = STR("ConfigMap");
	m->api_version = STR("v1");
	m->metadata.name = str_from(name);
	m->metadata.namespace = STR("default");
	str_map_set(&a, API_MAP(&m->data), STR("k"), str_from(value));
	struct buf pb = {0};
	object_encode(&pb, MEDIA_PROTOBUF, &core_v1_config_map_type, m);
	bool ok;
	struct cache_entry *e;
	assert_ok(cache_put(c, STR("default"), str_from(name), expect, buf_view(&pb), STR_NULL, 0, 0, &ok, &e));
	int64_t rev = ok ? e->rev : 0;
	cache_entry_unref(e);
	buf_free(&pb);
	arena_free(&a);
	return rev;
}

ETCD_TEST(two_servers)
{
	start_etcd(1, false);
	struct store *s1 = open_store(0), *s2 = open_store(0);
	struct cache *c1, *c2;
	assert_ok(cache_new(s1, &configmaps, &c1));
	assert_ok(cache_new(s2, &configmaps, &c2));
	struct cache_watch *w;
	struct cache_watch_opts o = {.rev = cache_rev(c2)};
	assert_ok(cache_watch_open(c2, &o, &w));
	for (int i = 0; i < 50; i++) {
		char name[16];
		snprintf(name, sizeof(name), "m%02d", i);
		int64_t rev = put_map(c1, name, "one", 0);
		assert_true(rev > 0);
		/* A consistent read of the other server sees it, whatever the watch's delay. */
		struct cache_entry *e;
		assert_ok(cache_get(c2, STR("default"), str_from(name), CACHE_CONSISTENT, 0, &e));
		assert_non_null(e);
		assert_int_equal(e->rev, rev);
		const struct cache_entry *mine = cache_peek(c1, STR("default"), str_from(name));
		assert_true(str_eq(block_str(mine->body), block_str(e->body)));
		cache_entry_unref(e);
		/* Only one of two writers with the same expectation wins. */
		int64_t a = put_map(c1, name, "two", rev), b = put_map(c2, name, "three", rev);
		assert_true(a > 0 && b == 0);
		struct cache_event ev;
		int64_t d = deadline_push(5000);
		assert_ok(cache_watch_next(w, &ev));
		assert_true(ev.type == CACHE_ADDED && ev.rev == rev);
		assert_ok(cache_watch_next(w, &ev));
		assert_true(ev.type == CACHE_MODIFIED && ev.rev == a);
		deadline_pop(d);
	}
	/* Somebody with etcdctl. */
	etcdctl("del /registry/configmaps/default/m00");
	struct cache_event ev;
	int64_t d = deadline_push(5000);
	assert_ok(cache_watch_next(w, &ev));
	assert_int_equal(ev.type, CACHE_DELETED);
	deadline_pop(d);
	etcdctl("put /registry/configmaps/default/bad not-an-object");
	assert_ok(store_current(s2, &ev.rev));
	struct cache_entry *e;
	struct error *bad = cache_get(c2, STR("default"), STR("bad"), CACHE_CONSISTENT, 0, &e);
	assert_true(bad && error_is(bad, 500, NULL)); /* it is there, and nobody can read it */
	error_free(bad);
	cache_watch_close(w);
	cache_free(c1);
	cache_free(c2);
	store_close(s2);
	finish(s1);
}

/* ---- three members ---- */

ETCD_TEST(three_members)
{
	start_etcd(3, false);
	struct store *s = open_store(0);
	struct store_watch *w;
	int64_t base = store_revision(s), acked[400];
	int n = 0;
	assert_ok(store_watch_open(s, STR("/k/"), STR("/k0"), base, &w));
	char key[32];
	/* One member after the other dies and comes back: nothing acknowledged may be missing, and it goes on. */
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 60; i++) {
			if (i == 10)
				kill_member(round);
			if (i == 50)
				start_member(round);
			bool ok;
			int64_t rev;
			snprintf(key, sizeof(key), "/k/%03d", n);
			struct error *e = store_put(s, str_from(key), str_from(key), 0, 0, 0, NULL, &ok, &rev, NULL);
			if (e) { /* one on its way when its member died may have been done or not */
				if (e->status != 503 && e->status != 504)
					fail_msg("%d %s", e->status, e->message);
				error_free(e);
				acked[n++] = 0;
				continue;
			}
			assert_true(ok);
			acked[n++] = rev;
		}
		/* It must be back in the quorum before the next one goes. */
		int64_t until = now_ms() + 20000;
		for (;;) {
			char cmd[300];
			snprintf(cmd, sizeof(cmd), "ETCDCTL_API=3 etcdctl --endpoints=%s endpoint health >/dev/null 2>&1", members[round].url);
			const char *argv[] = {"sh", "-c", cmd, NULL};
			struct error *e = proc_run(argv, STR_NULL, NULL, NULL, NULL);
			if (!e)
				break;
			error_free(e);
			assert_true(now_ms() < until);
			assert_ok(fiber_sleep(50));
		}
	}
	int confirmed = 0, seen = 0;
	for (int i = 0; i < n; i++)
		confirmed += acked[i] != 0;
	assert_true(confirmed > n - 15);
	/* The watch, over all failures: in order, each once. */
	for (int i = 0, last = -1; i < n; i++) {
		struct store_event e;
		if (!acked[i]) {
			bool found;
			struct store_kv kv;
			snprintf(key, sizeof(key), "/k/%03d", i);
			assert_ok(store_get(s, str_from(key), 0, &found, &kv));
			store_kv_free(&kv);
			if (!found)
				continue;
		}
		int64_t d = deadline_push(20000);
		assert_ok(store_watch_next(w, &e, NULL));
		deadline_pop(d);
		int64_t k;
		assert_true(str_to_i64(str_sub(e.kv.key, 3, 6), &k));
		assert_int_equal(k, i);
		assert_true(k > last);
		if (acked[i])
			assert_int_equal(e.kv.mod_rev, acked[i]);
		last = (int)k;
		seen++;
		store_event_free(&e);
	}
	print_message("# %d of %d writes confirmed while members died, %d events\n", confirmed, n, seen);

	/* Two dead: no quorum. Errors, soon, that say so; no reads that might be wrong. */
	kill_member(0);
	kill_member(1);
	bool ok, found;
	int64_t rev;
	struct store_kv kv;
	int64_t t0 = now_ms();
	struct error *e = store_put(s, STR("/k/lost"), STR("x"), 0, 0, 0, NULL, &ok, &rev, NULL);
	assert_non_null(e);
	assert_true(e->status == 503 || e->status == 504);
	print_message("# without quorum, put after %lld ms: %d %s\n", (long long)(now_ms() - t0), e->status, e->message);
	assert_true(now_ms() - t0 < 25000);
	error_free(e);
	t0 = now_ms();
	e = store_get(s, STR("/k/000"), 0, &found, &kv);
	assert_non_null(e);
	print_message("# without quorum, get after %lld ms: %d %s\n", (long long)(now_ms() - t0), e->status, e->message);
	assert_true(e->status == 503 || e->status == 504);
	error_free(e);
	/* They come back, and it goes on by itself. */
	start_member(0);
	start_member(1);
	t0 = now_ms();
	do {
		e = store_put(s, STR("/k/zzz"), STR("back"), STORE_ANY, 0, 0, NULL, &ok, &rev, NULL);
		if (e)
			assert_true(now_ms() - t0 < 30000);
	} while (e && (error_free(e), true));
	value_is(s, "/k/000", 0, "/k/000");
	struct store_event ev;
	do {
		int64_t d = deadline_push(20000);
		assert_ok(store_watch_next(w, &ev, NULL));
		deadline_pop(d);
		ok = str_eqz(ev.kv.key, "/k/zzz");
		store_event_free(&ev);
	} while (!ok);
	store_watch_close(w);
	finish(s);
}

int main(void)
{
	log_init("test", 0);
	const struct CMUnitTest tests[] = {cmocka_unit_test(semantics), cmocka_unit_test(two_servers), cmocka_unit_test(three_members)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
