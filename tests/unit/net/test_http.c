#include "net_test.h"

#include <sys/socket.h>

#include "net/internal.h"

/* A server and clients of this room against each other, and raw bytes against the server. */

static char dir[] = "/tmp/skiff-http-XXXXXX";
static struct test_ca ca, other_ca;

#define BIG_N (3u << 20)
static char *big;

struct server {
	struct http_server *srv;
	int port;
	struct tls_server *tls;
	int in_slow, cancelled, gone;
	size_t written; /* by /endless */
	struct waitq q;
};

static void endless(struct http_exchange *x, struct server *s)
{
	struct error *e = http_start(x, 200);

	while (!e) {
		e = http_write(x, str_of(big, 65536));
		if (!e)
			s->written += 65536;
	}
	s->cancelled += error_is_sys(e, ECANCELED) || error_is_sys(e, ECONNRESET) || error_is_sys(e, EPIPE);
	error_free(e);
}

static void handler(struct http_exchange *x, void *ctx)
{
	struct server *s = ctx;
	struct error *e = NULL;
	struct str body;

	if (str_eqz(x->path, "/hello")) {
		http_set_header(x, "Content-Type", STR("text/plain"));
		http_set_header(x, "X-Set", STR("first"));
		http_set_header(x, "x-set", STR("second\r\nInjected: yes"));
		http_add_header(x, "Warning", STR("299 - \"a\""));
		http_add_header(x, "Warning", STR("299 - \"b\""));
		http_set_header(x, "Content-Length", STR("999"));
		e = http_respond(x, 200, arena_printf(x->arena, "%.*s %.*s?%.*s host=%.*s v=%d n=%lld", STR_ARG(x->method),
						      STR_ARG(x->path), STR_ARG(x->query), STR_ARG(x->host), x->version,
						      (long long)x->content_length));
	} else if (str_eqz(x->path, "/echo")) {
		e = http_body_all(x, 4 << 20, &body);
		if (e && e->status == 413) {
			struct error *e2 = http_respond(x, 413, str_from(e->message));

			error_free(e);
			e = e2;
		} else if (!e) {
			e = http_respond(x, 200, body);
		}
	} else if (str_eqz(x->path, "/big")) {
		struct iovec v[2000];
		int n = 0;

		/* Vectors of all sizes. */
		for (size_t off = 0, k = 1; off < BIG_N; off += k, k = k * 3 % 20011)
			v[n++] = (struct iovec){big + off, off + k > BIG_N ? BIG_N - off : k};
		CHECK(n < 2000);
		e = http_respond_iov(x, 200, v, n);
	} else if (str_eqz(x->path, "/stream")) {
		e = http_start(x, 200);
		for (int i = 0; !e && i < 5; i++) {
			e = http_write(x, arena_printf(x->arena, "event %d\n", i));
			if (!e)
				e = fiber_sleep(5);
		}
		http_set_trailer(x, "Grpc-Status", STR("0"));
		if (!e)
			e = http_end(x);
	} else if (str_eqz(x->path, "/sized")) {
		e = http_start_length(x, 200, 10);
		if (!e)
			e = http_write(x, STR("01234"));
		/* more than was announced is not sent */
		CHECK(is_sys(http_write(x, STR("567890")), EPROTO));
		if (!e && str_eqz(x->query, "whole"))
			e = http_write(x, STR("56789"));
		if (!e) {
			struct error *end = http_end(x);

			CHECK(str_eqz(x->query, "whole") ? !end : is_sys(end, EPROTO));
		}
	} else if (str_eqz(x->path, "/slow")) {
		s->in_slow++;
		waitq_wake_all(&s->q);
		e = fiber_sleep(20000);
		s->cancelled += error_is_sys(e, ECANCELED);
		s->gone += http_peer_gone(x);
		waitq_wake_all(&s->q);
		if (!e)
			e = http_respond(x, 200, STR("slow"));
	} else if (str_eqz(x->path, "/soon")) {
		s->in_slow++;
		waitq_wake_all(&s->q);
		e = fiber_sleep(150);
		if (!e)
			e = http_respond(x, 200, str_of(big, BIG_N));
	} else if (str_eqz(x->path, "/endless")) {
		endless(x, s);
		waitq_wake_all(&s->q);
		return;
	} else if (str_eqz(x->path, "/cut")) {
		e = http_start(x, 200);
		if (!e)
			e = http_write(x, STR("half"));
		error_free(e);
		return; /* no end */
	} else if (str_eqz(x->path, "/silent")) {
		return;
	} else if (str_eqz(x->path, "/nobody")) {
		e = http_respond(x, 204, STR_NULL);
	} else if (str_eqz(x->path, "/upgrade")) {
		struct stream *st;
		char buf[64];
		size_t n;

		e = http_upgrade(x, "echo", &st);
		if (e && !http_started(x)) {
			error_free(e);
			e = http_respond(x, 400, STR("no upgrade"));
		} else if (!e) {
			while (!stream_read(st, buf, sizeof buf, &n) && n)
				OK(stream_write(st, buf, n));
			stream_close(st);
		}
	} else if (str_eqz(x->path, "/whoami")) {
		buf_cleanup struct buf b = {0};

		if (x->peer) {
			buf_printf(&b, "%.*s", STR_ARG(x->peer->common_name));
			for (size_t i = 0; i < x->peer->n_organizations; i++)
				buf_printf(&b, "|%.*s", STR_ARG(x->peer->organizations[i]));
			buf_printf(&b, " %d %d %.*s", x->peer->by_client_ca, x->peer->by_requestheader_ca,
				   STR_ARG(str_sub(x->peer->credential_id, 0, 11)));
		} else {
			buf_printf(&b, "nobody: %s", x->peer_error ? x->peer_error : "no certificate");
		}
		e = http_respond(x, 200, buf_view(&b));
	} else {
		e = http_respond(x, 404, STR("not here"));
	}
	/* Broken connections are part of these tests. */
	error_free(e);
}

static void start_opts(struct server *s, struct http_server_opts o)
{
	struct listener *l;

	*s = (struct server){.tls = o.tls};
	OK(listener_open("127.0.0.1:0", 0, &l));
	s->port = listener_port(l);
	o.handler = handler;
	o.ctx = s;
	OK(http_server_start(l, &o, &s->srv));
}

static void stop(struct server *s)
{
	http_server_stop(s->srv, 100);
	tls_server_free(s->tls);
}

static char *path_of(const char *name)
{
	static char p[4][256];
	static int i;

	i = (i + 1) % 4;
	snprintf(p[i], sizeof p[i], "%s/%s", dir, name);
	return p[i];
}

enum kind { H1, H2, H1_TLS, H2_TLS, KINDS };

static void start_kind(struct server *s, enum kind k)
{
	struct http_server_opts o = {0};

	if (k >= H1_TLS)
		OK(tls_server_new(&(struct tls_server_opts){.cert_file = path_of("srv.crt"), .key_file = path_of("srv.key"),
							     .client_ca_file = path_of("ca.crt"),
							     .requestheader_ca_file = path_of("other.crt"), .http2 = k == H2_TLS},
				  &o.tls));
	start_opts(s, o);
}

struct client {
	struct http_client *c;
	struct tls_client *tls;
};

static struct client client_kind(const struct server *s, enum kind k, const char *cert)
{
	struct client c = {0};
	char base[64];
	struct tls_client_opts t = {.ca_file = path_of("ca.crt"), .http2 = true};

	if (cert) {
		t.cert_file = strcpy(malloc(300), path_of(cert));
		strcat((char *)(uintptr_t)t.cert_file, ".crt");
		t.key_file = strcpy(malloc(300), path_of(cert));
		strcat((char *)(uintptr_t)t.key_file, ".key");
	}
	if (k >= H1_TLS)
		OK(tls_client_new(&t, &c.tls));
	free((char *)(uintptr_t)t.cert_file);
	free((char *)(uintptr_t)t.key_file);
	snprintf(base, sizeof base, "http%s://127.0.0.1:%d", k >= H1_TLS ? "s" : "", s->port);
	OK(http_client_new(&(struct http_client_opts){.base = base, .tls = c.tls, .http2_prior_knowledge = k == H2}, &c.c));
	return c;
}

static void client_free(struct client c)
{
	http_client_free(c.c);
	tls_client_free(c.tls);
}

static struct str get(struct http_client *c, struct arena *a, const char *target, int *status)
{
	struct http_response r;
	struct str body;

	OK(http_do(c, a, "GET", str_from(target), NULL, 0, STR_NULL, &r));
	*status = r.status;
	OK(http_response_all(&r, a, 64 << 20, &body));
	http_response_close(&r);
	return body;
}

/* ---- everything, in each of the four ways ---- */

static struct error *produce(void *ctx, void *p, size_t cap, size_t *n)
{
	size_t *off = ctx;

	*n = BIG_N / 2 - *off < cap ? BIG_N / 2 - *off : cap;
	if (*n > 10000)
		*n = 10000;
	memcpy(p, big + *off, *n);
	*off += *n;
	return fiber_check();
}

static void exchange_all(enum kind k)
{
	struct server s;
	struct arena a = {0};
	struct http_response r;
	struct str body;
	int status;

	start_kind(&s, k);
	struct client cl = client_kind(&s, k, NULL);
	struct http_client *c = cl.c;
	int version = k == H2 || k == H2_TLS ? 20 : 11;

	body = get(c, &a, "/hello?a=b%20c&d", &status);
	CHECK(status == 200);
	CHECK(str_eq(body, arena_printf(&a, "GET /hello?a=b%%20c&d host=127.0.0.1:%d v=%d n=0", s.port, version)));
	struct http_header hs[] = {{STR("X-Name"), STR("value")}, {STR("Host"), STR("other.example")}};

	OK(http_do(c, &a, "POST", STR("/hello"), hs, 2, STR("12345"), &r));
	CHECK(r.status == 200 && str_eqz(http_header_get(&r.headers, "x-set"), "second  Injected: yes"));
	CHECK(!http_header_get(&r.headers, "injected").p && str_eqz(http_header_get(&r.headers, "content-type"), "text/plain"));
	CHECK(http_header_get(&r.headers, "date").n == 29);
	int warnings = 0;

	for (size_t i = 0; i < r.headers.n; i++)
		warnings += str_eqz(r.headers.v[i].name, "warning");
	CHECK(warnings == 2);
	OK(http_response_all(&r, &a, 1000, &body));
	CHECK(str_eq(body, arena_printf(&a, "POST /hello? host=other.example v=%d n=5", version)));
	CHECK(r.content_length == (int64_t)body.n);
	http_response_close(&r);
	/* Bodies both ways, whole and produced. */
	OK(http_do(c, &a, "PUT", STR("/echo"), NULL, 0, str_of(big, BIG_N), &r));
	OK(http_response_all(&r, &a, BIG_N, &body));
	CHECK(r.status == 200 && body.n == BIG_N && memcmp(body.p, big, BIG_N) == 0);
	http_response_close(&r);
	size_t off = 0;

	OK(http_do_stream(c, &a, "POST", STR("/echo"), NULL, 0, produce, &off, -1, &r));
	OK(http_response_all(&r, &a, BIG_N, &body));
	CHECK(r.status == 200 && body.n == BIG_N / 2 && memcmp(body.p, big, BIG_N / 2) == 0);
	http_response_close(&r);
	off = 0;
	OK(http_do_stream(c, &a, "POST", STR("/echo"), NULL, 0, produce, &off, BIG_N / 2, &r));
	OK(http_response_all(&r, &a, BIG_N, &body));
	CHECK(r.status == 200 && body.n == BIG_N / 2 && memcmp(body.p, big, BIG_N / 2) == 0);
	http_response_close(&r);
	/* An answer whose length is known before it is made. */
	OK(http_do(c, &a, "GET", STR("/sized?whole"), NULL, 0, STR_NULL, &r));
	OK(http_response_all(&r, &a, 1000, &body));
	CHECK(r.content_length == 10 && str_eqz(body, "0123456789"));
	http_response_close(&r);
	OK(http_do(c, &a, "GET", STR("/sized"), NULL, 0, STR_NULL, &r));
	struct error *cut = http_response_all(&r, &a, 1000, &body);

	CHECK(cut);
	error_free(cut);
	http_response_close(&r);
	/* Too large: refused, and the next request works. */
	char *larger = calloc(1, 5 << 20);

	OK(http_do(c, &a, "PUT", STR("/echo"), NULL, 0, str_of(larger, 5 << 20), &r));
	CHECK(r.status == 413);
	http_response_close(&r);
	free(larger);
	body = get(c, &a, "/big", &status);
	CHECK(body.n == BIG_N && memcmp(body.p, big, BIG_N) == 0);
	OK(http_do(c, &a, "GET", STR("/big"), NULL, 0, STR_NULL, &r));
	CHECK(is_sys(http_response_all(&r, &a, 1000, &body), EMSGSIZE));
	http_response_close(&r);
	/* Streams, trailers. */
	OK(http_do(c, &a, "GET", STR("/stream"), NULL, 0, STR_NULL, &r));
	CHECK(r.content_length == -1);
	OK(http_response_all(&r, &a, 1000, &body));
	CHECK(str_eqz(body, "event 0\nevent 1\nevent 2\nevent 3\nevent 4\n"));
	struct http_headers t = http_response_trailers(&r);

	CHECK(t.n == 1 && str_eqz(http_header_get(&t, "grpc-status"), "0"));
	http_response_close(&r);
	OK(http_do(c, &a, "HEAD", STR("/hello"), NULL, 0, STR_NULL, &r));
	OK(http_response_all(&r, &a, 1000, &body));
	CHECK(r.status == 200 && body.n == 0 && r.content_length > 10);
	http_response_close(&r);
	OK(http_do(c, &a, "DELETE", STR("/nobody"), NULL, 0, STR_NULL, &r));
	OK(http_response_all(&r, &a, 1000, &body));
	CHECK(r.status == 204 && body.n == 0);
	http_response_close(&r);
	get(c, &a, "/nope", &status);
	CHECK(status == 404);
	get(c, &a, "/silent", &status);
	CHECK(status == 500);
	/* Cut off answers do not look whole. */
	OK(http_do(c, &a, "GET", STR("/cut"), NULL, 0, STR_NULL, &r));
	struct error *e = http_response_all(&r, &a, 1000, &body);

	CHECK(e);
	error_free(e);
	http_response_close(&r);
	get(c, &a, "/hello", &status);
	CHECK(status == 200);
	/* A deadline ends the wait here and cancels the handler there. */
	int64_t d = deadline_push(50);

	CHECK(is_sys(http_do(c, &a, "GET", STR("/slow"), NULL, 0, STR_NULL, &r), ETIMEDOUT));
	deadline_pop(d);
	while (!s.cancelled)
		OK(waitq_wait_ms(&s.q, 5000));
	CHECK(s.gone == 1);
	/* A reader that stops suspends the writer. */
	OK(http_do(c, &a, "GET", STR("/endless"), NULL, 0, STR_NULL, &r));
	size_t before;

	do {
		before = s.written;
		OK(fiber_sleep(100));
	} while (s.written != before);
	CHECK(s.written < 32 << 20);
	http_response_close(&r);
	while (s.cancelled < 2)
		OK(waitq_wait_ms(&s.q, 5000));
	get(c, &a, "/hello", &status);
	CHECK(status == 200);
	client_free(cl);
	stop(&s);
	arena_free(&a);
}

static void kinds_main(void *arg)
{
	for (enum kind k = H1; k < KINDS; k++)
		exchange_all(k);
}

static void test_all_kinds(void **state)
{
	assert_ok(loop_run(kinds_main, NULL));
}

/* ---- many at once ---- */

struct many {
	struct http_client *c;
	int done;
};

static void one_of_many(void *arg)
{
	struct many *m = arg;
	struct arena a = {0};
	int status;

	for (int i = 0; i < 5; i++) {
		struct str b = get(m->c, &a, i % 2 ? "/hello" : "/big", &status);

		CHECK(status == 200 && (i % 2 || (b.n == BIG_N && memcmp(b.p, big, BIG_N) == 0)));
		arena_reset(&a);
	}
	arena_free(&a);
	m->done++;
}

static void many_main(void *arg)
{
	for (enum kind k = H1; k < KINDS; k++) {
		struct server s;
		struct fiber *f[30];

		start_kind(&s, k);
		struct client c = client_kind(&s, k, NULL);
		struct many m = {.c = c.c};

		for (int i = 0; i < 30; i++)
			f[i] = fiber_start("many", one_of_many, &m);
		for (int i = 0; i < 30; i++)
			fiber_join(f[i]);
		CHECK(m.done == 30);
		client_free(c);
		stop(&s);
	}
}

static void test_many(void **state)
{
	assert_ok(loop_run(many_main, NULL));
}

/* ---- certificates ---- */

static void certs_main(void *arg)
{
	struct server s;
	struct arena a = {0};
	struct http_response r;
	int status;

	for (enum kind k = H1_TLS; k <= H2_TLS; k++) {
		start_kind(&s, k);
		const struct {
			const char *cert, *want;
		} who[] = {
			{NULL, "nobody: no certificate"},
			{"admin", "admin|system:masters|second 1 0 X509SHA256="},
			{"proxy", "front 0 1 X509SHA256="},
			{"expired", "nobody: certificate has expired"},
		};

		for (size_t i = 0; i < sizeof who / sizeof *who; i++) {
			struct client c = client_kind(&s, k, who[i].cert);
			struct str b = get(c.c, &a, "/whoami", &status);

			if (!str_eqz(b, who[i].want))
				log_error("%.*s, want %s", STR_ARG(b), who[i].want);
			CHECK(str_eqz(b, who[i].want));
			client_free(c);
		}
		/* Clients verify: a CA that is not theirs, a name that is not the server's. */
		struct client c = {0};
		char base[64];

		snprintf(base, sizeof base, "https://127.0.0.1:%d", s.port);
		OK(tls_client_new(&(struct tls_client_opts){.ca_file = path_of("other.crt")}, &c.tls));
		OK(http_client_new(&(struct http_client_opts){.base = base, .tls = c.tls}, &c.c));
		struct error *e = http_do(c.c, &a, "GET", STR("/hello"), NULL, 0, STR_NULL, &r);

		CHECK(e && strstr(e->message, "certificate"));
		error_free(e);
		client_free(c);
		OK(tls_client_new(&(struct tls_client_opts){.ca_file = path_of("ca.crt"), .server_name = "else.example"}, &c.tls));
		OK(http_client_new(&(struct http_client_opts){.base = base, .tls = c.tls}, &c.c));
		e = http_do(c.c, &a, "GET", STR("/hello"), NULL, 0, STR_NULL, &r);
		CHECK(e && strstr(e->message, "certificate"));
		error_free(e);
		client_free(c);
		OK(tls_client_new(&(struct tls_client_opts){.insecure_skip_verify = true, .server_name = "else.example"}, &c.tls));
		OK(http_client_new(&(struct http_client_opts){.base = base, .tls = c.tls}, &c.c));
		get(c.c, &a, "/hello", &status);
		CHECK(status == 200);
		client_free(c);
		/* Clear text to a TLS port. */
		snprintf(base, sizeof base, "http://127.0.0.1:%d", s.port);
		OK(http_client_new(&(struct http_client_opts){.base = base}, &c.c));
		e = http_do(c.c, &a, "GET", STR("/hello"), NULL, 0, STR_NULL, &r);
		CHECK(e);
		error_free(e);
		http_client_free(c.c);
		stop(&s);
	}
	/* A client whose certificate is replaced shows the new one, and not over a connection that it has. */
	for (enum kind k = H1_TLS; k <= H2_TLS; k++) {
		struct test_ca own = make_cert(dir, "own", "CN=before", NULL, &ca, 5);
		bool seen = false;

		start_kind(&s, k);
		struct client cl = client_kind(&s, k, "own");
		struct str b = get(cl.c, &a, "/whoami", &status);

		CHECK(str_has_prefix(b, STR("before ")));
		free_ca(own);
		own = make_cert(dir, "own", "CN=after", NULL, &ca, 5);
		for (int i = 0; i < 100 && !seen; i++) {
			OK(fiber_sleep(50));
			seen = str_has_prefix(get(cl.c, &a, "/whoami", &status), STR("after "));
		}
		CHECK(seen);
		client_free(cl);
		stop(&s);
		free_ca(own);
	}
	/* New certificates are taken up without a restart. */
	struct test_ca renewed_ca = make_cert(dir, "rca", "CN=renewed ca", NULL, NULL, 5);
	struct test_ca leaf = make_cert(dir, "r", "CN=srv", "IP:127.0.0.1", &ca, 5);
	struct http_server_opts o = {0};

	OK(tls_server_new(&(struct tls_server_opts){.cert_file = path_of("r.crt"), .key_file = path_of("r.key")}, &o.tls));
	start_opts(&s, o);
	struct client c = client_kind(&s, H1_TLS, NULL);

	get(c.c, &a, "/hello", &status);
	CHECK(status == 200);
	free_ca(leaf);
	leaf = make_cert(dir, "r", "CN=srv", "IP:127.0.0.1", &renewed_ca, 5);
	struct error *e = NULL;

	for (int i = 0; i < 100 && !e; i++) {
		struct client fresh = client_kind(&s, H1_TLS, NULL);

		OK(fiber_sleep(50));
		e = http_do(fresh.c, &a, "GET", STR("/hello"), NULL, 0, STR_NULL, &r);
		if (!e)
			http_response_close(&r);
		client_free(fresh);
	}
	CHECK(e && strstr(e->message, "certificate"));
	error_free(e);
	client_free(c);
	stop(&s);
	free_ca(leaf);
	free_ca(renewed_ca);
	/* Files that are not there or do not belong together. */
	struct tls_server *t;

	e = tls_server_new(&(struct tls_server_opts){.cert_file = "/no/such", .key_file = "/no/such"}, &t);
	CHECK(e && strstr(e->message, "/no/such"));
	error_free(e);
	e = tls_server_new(&(struct tls_server_opts){.cert_file = path_of("srv.crt"), .key_file = path_of("admin.key")}, &t);
	CHECK(e);
	error_free(e);
	arena_free(&a);
}

static void test_certificates(void **state)
{
	assert_ok(loop_run(certs_main, NULL));
}

/* ---- raw bytes ---- */

static char *raw(int port, const char *bytes, size_t n, bool end)
{
	static char answer[65536];
	struct stream *s;
	size_t got, have = 0;
	char addr[32];

	snprintf(addr, sizeof addr, "127.0.0.1:%d", port);
	OK(stream_connect(addr, &s));
	error_free(stream_write(s, bytes, n));
	if (end)
		error_free(stream_shutdown(s));
	int64_t d = deadline_push(3000);

	for (;;) {
		struct error *e = stream_read(s, answer + have, sizeof answer - 1 - have, &got);

		CHECK(!error_is_sys(e, ETIMEDOUT));
		have += e ? 0 : got;
		if (e || !got) {
			error_free(e);
			break;
		}
	}
	deadline_pop(d);
	answer[have] = 0;
	stream_close(s);
	return answer;
}

static char *raws(int port, const char *text, bool end)
{
	return raw(port, text, strlen(text), end);
}

static int count(const char *hay, const char *needle)
{
	int n = 0;

	for (const char *p = hay; (p = strstr(p, needle)); p += strlen(needle))
		n++;
	return n;
}

static void raw_main(void *arg)
{
	struct server s;

	start_opts(&s, (struct http_server_opts){.header_timeout_ms = 300, .idle_timeout_ms = 300, .max_header_bytes = 8192});
	static const struct {
		const char *req, *status;
	} cases[] = {
		{"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200"},
		{"GET /hello HTTP/1.0\r\n\r\n", "200"},
		{"\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "400"},
		{"GET http://b/hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200"},
		{"GET HTTP://b:80/hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200"},
		{"GET http://u:p@[::1]:80/hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200"},
		{"GET http://b:x/hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET http://b:1:2/hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET http://[::1/hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET http://[1.2.3.4]/hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET http://a%20b/hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET :a/hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200"},
		{"GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"},
		{"GET /hello HTTP/x.y\r\nHost: a\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\r\n\r\n", "400"}, /* no Host */
		{"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		{"GET /hello HTTP/2.0\r\nHost: a\r\n\r\n", "505"},
		{"GET  /hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET /hel lo HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"G(T /hello HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\r\nHost : a\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\r\nHost: a\r\nConnection:\r\n close\r\n\r\n", "200"},
		{"GET /hello HTTP/1.1\r\n Host: a\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\r\nHost: a\r\nX: a\001b\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\nHost: a\nConnection: close\r\n\n", "200"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", "400"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", "400"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", "400"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc", "400"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: "
		 "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		 "200"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
		 "chunked\r\n\r\n0\r\n\r\n",
		 "501"},
		{"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x, Content-Length\r\n\r\n0\r\n\r\n", "400"},
		{"GET /hello HTTP/1.1\r\nHost: a\r\nTrailer: Content-Length\r\nConnection: close\r\n\r\n", "200"},
		{"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", "417"},
		{"GET /upgrade HTTP/1.0\r\nHost: a\r\n\r\n", "400"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *a = raw(s.port, cases[i].req, strlen(cases[i].req), false);

		/* who speaks HTTP/1.0 need not be told */
		int told = strncmp(a, "HTTP/1.0", 8) != 0;

		if (strncmp(a, "HTTP/1.", 7) || strncmp(a + 9, cases[i].status, 3) ||
		    count(a, "Connection: close") != told)
			log_error("%s\n gave %s", cases[i].req, a);
		CHECK(strncmp(a, "HTTP/1.", 7) == 0 && strncmp(a + 9, cases[i].status, 3) == 0 &&
		      count(a, "Connection: close") == told);
	}
	/* Chunked bodies: good ones, and ones that must end the connection without an answer that looks right. */
	const char *head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
	static const struct {
		const char *body;
		const char *echo;
	} chunks[] = {
		{"3\r\nabc\r\n0\r\n\r\n", "\r\n\r\nabc"},
		{"3;ext=1\r\nabc\r\n2 \r\nde\r\n0\r\nTrailer: x\r\n\r\n", "\r\n\r\nabcde"},
		{"A\r\n0123456789\r\n00\r\n\r\n", "\r\n\r\n0123456789"},
		{"3\r\nabcd\r\n0\r\n\r\n", NULL},
		{"3\nabc\r\n0\r\n\r\n", NULL},
		{"g\r\nabc\r\n0\r\n\r\n", NULL},
		{"\r\nabc\r\n0\r\n\r\n", NULL},
		{"-3\r\nabc\r\n0\r\n\r\n", NULL},
		{"0x3\r\nabc\r\n0\r\n\r\n", NULL},
		{"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n", NULL},
		{"3\r\nab", NULL},
		{"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n", NULL},
	};

	for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
		char req[512];
		int n = snprintf(req, sizeof req, "%s%s", head, chunks[i].body);
		char *a = raw(s.port, req, (size_t)n, chunks[i].echo == NULL);

		if (chunks[i].echo ? !strstr(a, chunks[i].echo) : strstr(a, " 200 ") != NULL)
			log_error("%s gave %s", chunks[i].body, a);
		CHECK(chunks[i].echo ? strstr(a, chunks[i].echo) != NULL : !strstr(a, " 200 "));
	}
	/* A refusal's body ends with the connection, as Go's. */
	char *a = raws(s.port, "GET /hello\r\n\r\n", false);

	CHECK(count(a, "HTTP/1.1 400 ") == 1 && !count(a, "Content-Length"));
	/* Who speaks HTTP/1.0 and wants the connection kept has it, whatever else is said. */
	a = raws(s.port, "GET /hello HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false);
	CHECK(count(a, " 200 ") == 2);
	a = raws(s.port, "GET /hello HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false);
	CHECK(count(a, " 200 ") == 1);
	/* Pipelining: three answers in order, unread bodies skipped. */
	const char *pipelined = "GET /hello?1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /hello?2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345"
				"GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
	a = raw(s.port, pipelined, strlen(pipelined), false);

	CHECK(count(a, "HTTP/1.1 200") == 2 && count(a, "HTTP/1.1 404") == 1 && strstr(a, "?1") < strstr(a, "?2"));
	/* Expect: 100-continue only when the handler reads. */
	a = raws(s.port, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\nabc", false);
	CHECK(strncmp(a, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200", 37) == 0);
	a = raws(s.port, "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", false);
	CHECK(strncmp(a, "HTTP/1.1 200", 12) == 0);
	/* Slow loris, oversized head, a head cut off, silence. */
	int64_t t = now_ms();

	a = raws(s.port, "GET /hello HTTP/1.1\r\nHost: a\r\nX: ", false);
	CHECK(strncmp(a, "HTTP/1.1 408", 12) == 0 && now_ms() - t < 2500);
	t = now_ms();
	a = raws(s.port, "", false);
	CHECK(a[0] == 0 && now_ms() - t < 2500);
	char *large = malloc(20000);
	int n = snprintf(large, 20000, "GET /hello HTTP/1.1\r\nHost: a\r\nX: %016000d\r\n\r\n", 1);

	a = raw(s.port, large, (size_t)n, false);
	CHECK(strncmp(a, "HTTP/1.1 431", 12) == 0);
	n = 0;
	n += snprintf(large, 20000, "GET /hello HTTP/1.1\r\nHost: a\r\n");
	for (int i = 0; i < 1200; i++)
		n += snprintf(large + n, 20000 - (size_t)n, "a:\r\n");
	n += snprintf(large + n, 20000 - (size_t)n, "Connection: close\r\n\r\n");
	a = raw(s.port, large, (size_t)n, false);
	CHECK(strncmp(a, "HTTP/1.1 200", 12) == 0); /* many, but small */
	a = raws(s.port, "GET /hello HTTP/1.1\r\nHost", true);
	CHECK(a[0] == 0);
	/* Random bytes and a TLS hello. */
	for (int i = 0; i < 50; i++) {
		random_bytes(large, 2000);
		a = raw(s.port, large, 2000, true);
		CHECK(!strstr(a, " 200 "));
	}
	/* HTTP/2: nonsense behind the preface. */
	memcpy(large, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
	for (int i = 0; i < 50; i++) {
		random_bytes(large + 24, 1000);
		raw(s.port, large, 1024, true);
	}
	/* Bytes one at a time, but not with more about them than there is of them. */
	for (int ext = 1; ext <= 3500; ext += 3499) {
		n = snprintf(large, 20000, "%s", head);
		for (int i = 0; i < 5; i++)
			n += snprintf(large + n, 20000 - (size_t)n, "1;%0*d\r\n%d\r\n", ext, 0, i);
		n += snprintf(large + n, 20000 - (size_t)n, "0\r\n\r\n");
		a = raw(s.port, large, (size_t)n, ext > 1);
		CHECK(ext == 1 ? strstr(a, "\r\n\r\n01234") != NULL : !strstr(a, " 200 "));
	}
	free(large);
	stop(&s);
}

static void test_raw(void **state)
{
	assert_ok(loop_run(raw_main, NULL));
}

/* ---- upgrade, cancellation, pools, stopping ---- */

static void slow_request(void *arg)
{
	struct client *c = arg;
	struct arena a = {0};
	struct http_response r;
	struct error *e = http_do(c->c, &a, "GET", STR("/slow"), NULL, 0, STR_NULL, &r);

	CHECK(e);
	error_free(e);
	arena_free(&a);
}

static void life_main(void *arg)
{
	struct server s;
	struct arena a = {0};
	struct http_response r;
	int status;

	for (enum kind k = H1; k < KINDS; k++) {
		struct stream *up;
		char buf[8] = "";

		start_kind(&s, k);
		struct client c = client_kind(&s, k, NULL);
		struct http_header h = {STR("Upgrade"), STR("echo")};

		if (k == H1 || k == H1_TLS) {
			OK(http_do_upgrade(c.c, &a, "GET", STR("/upgrade"), &h, 1, &r, &up));
			CHECK(r.status == 101 && up && str_eqz(http_header_get(&r.headers, "upgrade"), "echo"));
			OK(stream_write(up, "ping", 4));
			OK(stream_read_full(up, buf, 4));
			CHECK(strcmp(buf, "ping") == 0);
			stream_close(up);
			OK(http_do_upgrade(c.c, &a, "GET", STR("/hello"), &h, 1, &r, &up));
			CHECK(r.status == 200 && !up);
			http_response_close(&r);
		} else {
			get(c.c, &a, "/upgrade", &status);
			CHECK(status == 400);
		}
		/* The client goes while the handler waits: it is told. */
		struct fiber *f = fiber_start("slow", slow_request, &c);

		while (!s.in_slow)
			OK(waitq_wait_ms(&s.q, 5000));
		fiber_stop(f);
		while (!s.cancelled)
			OK(waitq_wait_ms(&s.q, 5000));
		/* The server goes while a client waits. */
		f = fiber_start("slow", slow_request, &c);
		while (s.in_slow < 2)
			OK(waitq_wait_ms(&s.q, 5000));
		int64_t t = now_ms();

		stop(&s);
		fiber_join(f);
		CHECK(now_ms() - t < 5000);
		/* A server again on the same port: pooled connections are found dead and replaced. */
		struct listener *l;
		char addr[32];

		snprintf(addr, sizeof addr, "127.0.0.1:%d", s.port);
		OK(listener_open(addr, 0, &l));
		struct http_server_opts o = {.handler = handler, .ctx = &s};

		if (k >= H1_TLS)
			OK(tls_server_new(&(struct tls_server_opts){.cert_file = path_of("srv.crt"), .key_file = path_of("srv.key"),
								     .http2 = k == H2_TLS}, &o.tls));
		OK(http_server_start(l, &o, &s.srv));
		s.tls = o.tls;
		for (int i = 0; i < 3; i++) {
			get(c.c, &a, "/hello", &status);
			CHECK(status == 200);
		}
		stop(&s);
		struct error *e = http_do(c.c, &a, "GET", STR("/hello"), NULL, 0, STR_NULL, &r);

		CHECK(e);
		error_free(e);
		client_free(c);
	}
	/* unix sockets */
	char *at = xasprintf("unix:%s", path_of("sock")), *base = xasprintf("http+unix://%s", path_of("sock"));
	struct listener *l;
	struct client c = {0};

	OK(listener_open(at, 0600, &l));
	OK(http_server_start(l, &(struct http_server_opts){.handler = handler, .ctx = &s}, &s.srv));
	OK(http_client_new(&(struct http_client_opts){.base = base, .http2_prior_knowledge = true}, &c.c));
	CHECK(str_eqz(get(c.c, &a, "/hello", &status), "GET /hello? host=localhost v=20 n=0"));
	http_client_free(c.c);
	http_server_stop(s.srv, 100);
	free(at);
	free(base);
	struct http_client *bad;

	CHECK(is_sys(http_client_new(&(struct http_client_opts){.base = "ftp://x"}, &bad), EINVAL));
	CHECK(is_sys(http_client_new(&(struct http_client_opts){.base = "http://x/path"}, &bad), EINVAL));
	CHECK(is_sys(http_client_new(&(struct http_client_opts){.base = "https://x"}, &bad), EINVAL));
	arena_free(&a);
}

static void test_life(void **state)
{
	assert_ok(loop_run(life_main, NULL));
}

/* A server that stops lets running requests end, whole, and takes no others. */
static void soon_request(void *arg)
{
	struct client *c = arg;
	struct arena a = {0};
	int status;
	struct str b = get(c->c, &a, "/soon", &status);

	CHECK(status == 200 && b.n == BIG_N && memcmp(b.p, big, BIG_N) == 0);
	arena_free(&a);
}

static void drain_main(void *arg)
{
	for (enum kind k = H1; k < KINDS; k++) {
		struct server s;
		struct fiber *f[5];

		start_kind(&s, k);
		struct client c = client_kind(&s, k, NULL);

		for (int i = 0; i < 5; i++)
			f[i] = fiber_start("soon", soon_request, &c);
		while (s.in_slow < 5)
			OK(waitq_wait_ms(&s.q, 5000));
		int64_t t = now_ms();

		http_server_stop(s.srv, 5000);
		CHECK(now_ms() - t >= 100 && now_ms() - t < 4000);
		for (int i = 0; i < 5; i++)
			fiber_join(f[i]);
		tls_server_free(s.tls);
		client_free(c);
	}
}

static void test_drain(void **state)
{
	assert_ok(loop_run(drain_main, NULL));
}

/* A server that vanished without a word is found out by a ping; one that answers pings may take its time. */
struct pinged {
	struct stream *s;
	bool answers;
	int pings;
};

static void ping_fiber(void *arg)
{
	struct pinged *p = arg;
	unsigned char h[24], body[1024];

	OK(stream_read_full(p->s, h, 24)); /* the preface */
	OK(stream_write(p->s, "\0\0\0\4\0\0\0\0\0", 9));
	for (;;) {
		struct error *e = stream_read_full(p->s, h, 9);

		if (!e)
			e = stream_read_full(p->s, body, (size_t)h[1] << 8 | h[2]);
		if (e) {
			error_free(e);
			return;
		}
		if (h[3] != 6 || h[4])
			continue;
		p->pings++;
		h[4] = 1;
		if (p->answers) {
			OK(stream_write(p->s, h, 9));
			OK(stream_write(p->s, body, 8));
		}
	}
}

static void silent_main(void *arg)
{
	h2_ping_after_ms = 50;
	h2_ping_wait_ms = 50;
	for (int answers = 0; answers < 2; answers++) {
		struct h2_request rq = {.method = "GET", .scheme = "http", .authority = STR("a"), .target = STR("/")};
		struct arena a = {0};
		struct http_response r;
		int fd[2];
		bool unsent;

		CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
		struct h2 *c = h2_client_new(fd_stream(fd[0]), true);
		struct pinged p = {.s = fd_stream(fd[1]), .answers = answers};
		struct fiber *f = fiber_start("pinged", ping_fiber, &p);
		int64_t d = deadline_push(answers ? 400 : 5000);
		struct error *e = h2_do(c, &a, &rq, &r, &unsent);

		deadline_pop(d);
		CHECK(is_sys(e, answers ? ETIMEDOUT : ECONNRESET));
		CHECK(answers ? p.pings >= 3 : p.pings == 1);
		h2_unref(c);
		fiber_stop(f);
		stream_close(p.s);
		arena_free(&a);
	}
	h2_ping_after_ms = 30000;
	h2_ping_wait_ms = 15000;
}

static void test_silent_server(void **state)
{
	assert_ok(loop_run(silent_main, NULL));
}

/* Run last: all the connections above are closed again. */
static void test_no_descriptor_left(void **state)
{
	for (int fd = 3; fd < 1000; fd++) {
		char link[64], to[128];

		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		ssize_t n = readlink(link, to, sizeof to - 1);

		if (n > 0 && (strncmp(to, "socket:", 7) == 0 || strncmp(to, "anon_inode:", 11) == 0)) {
			to[n] = 0;
			fail_msg("descriptor %d is still open: %s", fd, to);
		}
	}
}

static void targets(void **state)
{
	struct arena a = {0};
	bool there;

	assert_str(http_unescape(&a, STR("a%20b%2Fc%zz%4"), false), "a b/c%zz%4");
	assert_str(http_unescape(&a, STR("a+b%2b"), true), "a b+");
	assert_str(http_unescape(&a, STR("a+b"), false), "a+b");
	assert_str(http_escape(&a, STR("a b/c=\xff~")), "a%20b%2Fc%3D%FF~");
	assert_str(http_query_get(&a, STR("x=1&y=a%3Db+c&z"), "y", &there), "a=b c");
	assert_true(there);
	assert_str(http_query_get(&a, STR("x=1&y=2&z"), "z", &there), "");
	assert_true(there);
	http_query_get(&a, STR("x=1"), "y", &there);
	assert_false(there);
	http_query_get(&a, STR_NULL, "y", &there);
	assert_false(there);
	arena_free(&a);
}

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	big = malloc(BIG_N);
	for (size_t i = 0; i < BIG_N; i++)
		big[i] = (char)(i * 31 >> 5 ^ i);
	ca = make_cert(dir, "ca", "CN=test ca", NULL, NULL, 10);
	other_ca = make_cert(dir, "other", "CN=front proxy ca", NULL, NULL, 10);
	free_ca(make_cert(dir, "srv", "CN=srv", "IP:127.0.0.1,DNS:localhost", &ca, 5));
	free_ca(make_cert(dir, "admin", "O=system:masters,O=second,CN=admin", NULL, &ca, 5));
	free_ca(make_cert(dir, "proxy", "CN=front", NULL, &other_ca, 5));
	free_ca(make_cert(dir, "expired", "O=system:masters,CN=old", NULL, &ca, -1));
	return 0;
}

static int teardown(void **state)
{
	free_ca(ca);
	free_ca(other_ca);
	free(big);
	log_and_free(dir_remove(dir), "teardown");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(targets),
		cmocka_unit_test(test_all_kinds),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_silent_server),
		cmocka_unit_test(test_no_descriptor_left),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
