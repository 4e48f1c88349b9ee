/* Connections of the HTTP client: how many there are, and when they end. */
#include "net_test.h"

#include "net/internal.h"

static char dir[] = "/tmp/skiff-pool-XXXXXX";
static struct test_ca ca;

static struct {
	int hold, in;          /* handlers that wait for others, and how many do */
	const void *conns[64]; /* seen */
	int n_conns;
	struct waitq q;
} seen;

static void handler(struct http_exchange *x, void *ctx)
{
	int i = 0;

	while (i < seen.n_conns && seen.conns[i] != x->connection)
		i++;
	if (i == seen.n_conns)
		seen.conns[seen.n_conns++] = x->connection;
	if (++seen.in >= seen.hold)
		waitq_wake_all(&seen.q);
	while (seen.in < seen.hold)
		OK(waitq_wait_ms(&seen.q, 10000));
	OK(http_respond(x, 200, STR("ok")));
}

struct pair {
	struct http_server *s;
	struct tls_server *ts;
	struct tls_client *tc;
	struct http_client *c;
};

static const char *file(const char *name)
{
	static char paths[4][512];
	static int n;

	snprintf(paths[n %= 4], sizeof *paths, "%s/%s", dir, name);
	return paths[n++];
}

static struct pair pair_new(bool http2, size_t max_streams)
{
	struct pair p;
	struct listener *l;
	char base[64];

	seen.hold = seen.in = seen.n_conns = 0;
	OK(tls_server_new(&(struct tls_server_opts){.cert_file = file("s.crt"), .key_file = file("s.key"), .http2 = http2}, &p.ts));
	OK(listener_open("127.0.0.1:0", 0, &l));
	snprintf(base, sizeof base, "https://127.0.0.1:%d", listener_port(l));
	OK(http_server_start(l, &(struct http_server_opts){.tls = p.ts, .handler = handler, .max_streams = max_streams}, &p.s));
	OK(tls_client_new(&(struct tls_client_opts){.ca_file = file("ca.crt"), .http2 = true}, &p.tc));
	OK(http_client_new(&(struct http_client_opts){.base = base, .tls = p.tc}, &p.c));
	return p;
}

static void pair_free(struct pair *p)
{
	http_client_free(p->c);
	http_server_stop(p->s, 1000);
	tls_client_free(p->tc);
	tls_server_free(p->ts);
}

static void one(void *arg)
{
	struct arena a = {0};
	struct http_response r;
	struct str body;

	OK(http_do(arg, &a, "POST", STR("/"), NULL, 0, STR("x"), &r));
	OK(http_response_all(&r, &a, 100, &body));
	CHECK(r.status == 200 && str_eqz(body, "ok"));
	http_response_close(&r);
	arena_free(&a);
}

static void many(struct http_client *c, int n)
{
	struct fiber *f[64];

	for (int i = 0; i < n; i++)
		f[i] = fiber_start("one", one, c);
	for (int i = 0; i < n; i++)
		fiber_join(f[i]);
}

static void streams_main(void *arg)
{
	struct pair p = pair_new(true, 2);

	one(p.c);
	seen.hold = 1 + 5;
	many(p.c, 5);
	CHECK(seen.n_conns == 3);
	/* Eight connections at most: the others wait for a place. */
	seen.in = 0;
	seen.hold = 16;
	many(p.c, 20);
	CHECK(seen.n_conns == 8);
	pair_free(&p);
	/* What speaks HTTP/1.1 has a connection for each request at a time. */
	p = pair_new(false, 2);
	seen.hold = 10;
	many(p.c, 10);
	CHECK(seen.n_conns == 10);
	pair_free(&p);
}

static void test_streams(void **state)
{
	assert_ok(loop_run(streams_main, NULL));
}

static void idle_main(void *arg)
{
	for (int http2 = 0; http2 < 2; http2++) {
		struct pair p = pair_new(http2, 100);
		int64_t end = now_ms() + 10000;

		http_idle_ms = 100;
		h2_ping_after_ms = 50;
		for (int round = 1; round <= 2; round++) {
			seen.in = 0;
			seen.hold = 3;
			many(p.c, 3);
			CHECK(p.s->n_conns == (http2 ? 1 : 3));
			while (p.s->n_conns && now_ms() < end)
				OK(fiber_sleep(5));
			CHECK(p.s->n_conns == 0);
		}
		/* Not while a request runs, however long. */
		seen.in = 0;
		seen.hold = 2;
		struct fiber *f = fiber_start("one", one, p.c);

		OK(fiber_sleep(300));
		CHECK(seen.in == 1);
		one(p.c);
		fiber_join(f);
		CHECK(p.s->n_conns == (http2 ? 1 : 2));
		http_idle_ms = 90000;
		h2_ping_after_ms = 30000;
		pair_free(&p);
	}
}

static void test_idle(void **state)
{
	assert_ok(loop_run(idle_main, NULL));
}

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	ca = make_cert(dir, "ca", "CN=test ca", NULL, NULL, 10);
	free_ca(make_cert(dir, "s", "CN=s", "IP:127.0.0.1", &ca, 5));
	return 0;
}

static int teardown(void **state)
{
	free_ca(ca);
	log_and_free(dir_remove(dir), "teardown");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_idle),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
