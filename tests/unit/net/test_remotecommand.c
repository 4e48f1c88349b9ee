#include "net_test.h"

#include "net/remotecommand.h"
#include "net/websocket.h"

/* A "kubelet" whose command copies stdin to stdout, says what it saw on stderr, and exits with ?code=. */

static int port, sizes_seen;
static struct waitq q;
static uint16_t last_w, last_h;
static int gone_seen;
static struct listener *target;

static void resize_fiber(void *arg)
{
	for (;;) {
		struct error *e = rc_resize(arg, &last_w, &last_h);

		if (e) {
			error_free(e);
			return;
		}
		sizes_seen++;
		waitq_wake_all(&q);
	}
}

static void refuse(struct http_exchange *x, struct error *e)
{
	if (!http_started(x))
		error_free(http_respond(x, e->status ? e->status : 500, str_from(e->message)));
	error_free(e);
}

static void exec_handler(struct http_exchange *x)
{
	struct rc_opts o;
	struct rc_session *s;
	struct error *e = rc_opts_from_query(x->arena, x->query, &o);
	int64_t code = 0;
	char buf[4000];
	size_t n, total = 0;

	if (!e)
		e = rc_accept(x, &o, &s);
	if (e) {
		refuse(x, e);
		return;
	}
	str_to_i64(http_query_get(x->arena, x->query, "code", NULL), &code);
	if (code == -2) {
		error_free(rc_wait_gone(s));
		gone_seen++;
		waitq_wake_all(&q);
		rc_finish(s, 0, NULL);
		return;
	}
	struct fiber *f = o.tty ? fiber_start("resize", resize_fiber, s) : NULL;

	while (o.in) {
		OK(stream_read(s->in, buf, sizeof buf, &n));
		if (!n || (o.tty && memchr(buf, 4, n)))
			break;
		total += n;
		if (o.out)
			OK(stream_write(s->out, buf, n));
	}
	if (o.err)
		OK(stream_write(s->err, buf, (size_t)snprintf(buf, sizeof buf, "saw %zu", total)));
	else if (o.out && !o.in)
		OK(stream_write(s->out, "only output", 11));
	fiber_stop(f);
	rc_finish(s, code > 0 ? (int)code : 0, code == -1 ? error_new("container \"x\" not found\n") : NULL);
}

static void pf_pair(void *arg)
{
	struct pf_pair *p = arg;
	struct stream *s;
	char addr[32];

	snprintf(addr, sizeof addr, "127.0.0.1:%d", p->port);
	struct error *e = stream_connect(addr, &s);

	if (!e) {
		e = stream_splice(p->data, s);
		stream_close(s);
		if (error_is_sys(e, ECONNRESET) || error_is_sys(e, EPIPE))
			error_clear(&e);
	}
	pf_pair_finish(p, e);
	waitq_wake_all(&q);
}

static void pf_handler(struct http_exchange *x)
{
	struct pf_session *s;
	struct error *e = pf_accept(x, &s);
	struct fiber *f[100];
	int n = 0;

	if (e) {
		refuse(x, e);
		return;
	}
	for (;;) {
		struct pf_pair *p;

		e = pf_next(s, &p);
		if (e)
			break;
		f[n++] = fiber_start("pair", pf_pair, p);
	}
	CHECK(error_is_sys(e, EPIPE) || error_is_sys(e, ECANCELED));
	error_free(e);
	for (int i = 0; i < n; i++)
		fiber_stop(f[i]);
	pf_free(s);
}

static void handler(struct http_exchange *x, void *ctx)
{
	if (str_eqz(x->path, "/exec"))
		exec_handler(x);
	else
		pf_handler(x);
}

static void read_all(struct stream *s, struct buf *b)
{
	char chunk[3000];
	size_t n;

	do {
		OK(stream_read(s, chunk, sizeof chunk, &n));
		buf_append(b, chunk, n);
	} while (n);
}

struct feed {
	struct stream *s;
	const char *p;
	size_t n;
};

static void feed_fiber(void *arg)
{
	struct feed *f = arg;

	OK(stream_write(f->s, f->p, f->n));
	OK(stream_shutdown(f->s));
}

static void exec_all(struct http_client *h, enum rc_transport t)
{
	struct arena a = {0};
	struct rc_client *c;
	struct rc_opts all = {.in = true, .out = true, .err = true}, out = {.out = true}, tty = {.in = true, .out = true, .tty = true};
	buf_cleanup struct buf o = {0}, e = {0};
	size_t n = 700000;
	char *big = malloc(n), eot = 4;
	int code;

	random_bytes(big, n);
	OK(rc_dial(h, &a, t, STR("/exec?stdin=true&stdout=true&stderr=true&code=7"), NULL, 0, &all, &c));
	struct feed fd = {c->in, big, n};
	struct fiber *f = fiber_start("feed", feed_fiber, &fd);

	while (o.n < n) {
		char chunk[5000];
		size_t k;

		OK(stream_read(c->out, chunk, sizeof chunk, &k));
		CHECK(k);
		buf_append(&o, chunk, k);
	}
	fiber_join(f);
	CHECK(o.n == n && memcmp(o.p, big, n) == 0);
	OK(rc_client_wait(c, &code));
	CHECK(code == 7);
	read_all(c->err, &e);
	CHECK(str_eqz(buf_view(&e), "saw 700000"));
	rc_client_free(c);
	free(big);
	OK(rc_dial(h, &a, t, STR("/exec?output=1"), NULL, 0, &out, &c));
	CHECK(!c->in && !c->err);
	o.n = 0;
	OK(rc_client_wait(c, &code));
	CHECK(code == 0);
	read_all(c->out, &o);
	CHECK(str_eqz(buf_view(&o), "only output"));
	rc_client_free(c);
	OK(rc_dial(h, &a, t, STR("/exec?stdout=true&code=-1"), NULL, 0, &out, &c));
	struct error *err = rc_client_wait(c, &code);

	CHECK(err && code == -1 && strstr(err->message, "container \\\"x\\\" not found"));
	error_free(err);
	rc_client_free(c);
	/* A terminal with sizes. */
	int before = sizes_seen;

	OK(rc_dial(h, &a, t, STR("/exec?stdin=true&stdout=true&stderr=true&tty=true"), NULL, 0, &tty, &c));
	OK(rc_client_resize(c, 80, 24));
	OK(rc_client_resize(c, 132, 50));
	while (sizes_seen < before + 2)
		OK(waitq_wait_ms(&q, 5000));
	CHECK(last_w == 132 && last_h == 50);
	OK(stream_write(c->in, "ls\r", 3));
	char back[3];

	OK(stream_read_full(c->out, back, 3));
	CHECK(memcmp(back, "ls\r", 3) == 0);
	OK(stream_write(c->in, &eot, 1));
	OK(rc_client_wait(c, &code));
	CHECK(code == 0);
	rc_client_free(c);
	/* The client goes: the server learns it. */
	before = gone_seen;
	OK(rc_dial(h, &a, t, STR("/exec?stdin=true&stdout=true&code=-2"), NULL, 0, &(struct rc_opts){.in = true, .out = true}, &c));
	/* Even while stdin is full and nobody reads it. */
	char *junk = calloc(1, 40000);

	OK(stream_write(c->in, junk, 40000));
	free(junk);
	rc_client_free(c);
	while (gone_seen == before)
		OK(waitq_wait_ms(&q, 5000));
	err = rc_dial(h, &a, t, STR("/exec?tty=true"), NULL, 0, &out, &c);
	CHECK(error_is(err, 400, NULL) && strstr(err->message, "at least 1"));
	error_free(err);
	arena_free(&a);
}

static void upper_fiber(void *arg)
{
	struct stream *s = arg;
	char buf[1000];
	size_t n;

	error_free(stream_read(s, buf, sizeof buf, &n));
	for (size_t i = 0; i < n; i++)
		buf[i] = (char)(buf[i] - 32);
	error_free(stream_write(s, buf, n));
	stream_close(s);
}

static void target_fiber(void *arg)
{
	for (;;) {
		struct stream *s;
		struct error *e = listener_accept(target, &s, NULL);

		if (e) {
			error_free(e);
			return;
		}
		fiber_spawn("upper", upper_fiber, s);
	}
}

static void forward_all(struct http_client *h, enum rc_transport t)
{
	struct arena a = {0};
	struct pf_client *c;
	struct stream *s;
	uint16_t to = (uint16_t)listener_port(target), nobody;
	struct listener *l;
	char buf[6] = "";

	OK(pf_dial(h, &a, t, STR("/portforward"), NULL, 0, &c));
	for (int i = 0; i < 3; i++) {
		OK(pf_connect(c, to, &s));
		OK(stream_write(s, "hello", 5));
		OK(stream_read_full(s, buf, 5));
		CHECK(strcmp(buf, "HELLO") == 0);
		CHECK(is_sys(stream_read_full(s, buf, 1), EPIPE));
		stream_close(s);
	}
	/* A port on which nobody listens: the reason comes through the error stream. */
	OK(listener_open("127.0.0.1:0", 0, &l));
	nobody = (uint16_t)listener_port(l);
	listener_close(l);
	OK(pf_connect(c, nobody, &s));
	struct error *e = stream_read_full(s, buf, 1);

	CHECK(error_is_sys(e, ECONNREFUSED) && strstr(e->message, "Connection refused"));
	error_free(e);
	stream_close(s);
	pf_client_free(c);
	arena_free(&a);
}

/* Older and plainer WebSocket forms. */
static void plain_ws(struct http_client *h)
{
	static const char *const b64[] = {"base64.channel.k8s.io", NULL}, *const v4[] = {"v4.channel.k8s.io", NULL};
	struct arena a = {0};
	struct websocket *w;
	enum ws_kind kind;
	struct str m;
	char ports[64];
	int p = listener_port(target);

	OK(ws_connect(h, &a, STR("/exec?stdin=1&stdout=1&tty=1&code=-1"), NULL, 0, b64, 100000, NULL, &w));
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(kind == WS_TEXT && str_eqz(m, "1"));
	OK(ws_write(w, WS_TEXT, STR("0"), STR("bHM="))); /* ls */
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(str_eqz(m, "1bHM="));
	OK(ws_write(w, WS_TEXT, STR("0"), STR("BA=="))); /* end of transmission */
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(str_eqz(m, "3Y29udGFpbmVyICJ4IiBub3QgZm91bmQK"));
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(kind == WS_CLOSE);
	ws_free(w);
	snprintf(ports, sizeof ports, "/portforward?ports=%d&ports=%d", p, p);
	OK(ws_connect(h, &a, str_from(ports), NULL, 0, v4, 100000, NULL, &w));
	for (int i = 0; i < 4; i++) {
		OK(ws_read(w, &kind, &m, NULL));
		CHECK(m.n == 3 && m.p[0] == i && (unsigned char)m.p[1] == (p & 255) && (unsigned char)m.p[2] == p >> 8);
	}
	OK(ws_write(w, WS_BINARY, str_of("\2", 1), STR("hello")));
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(str_eqz(m, "\2HELLO"));
	OK(ws_close(w, 1000, STR_NULL));
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(kind == WS_CLOSE);
	ws_free(w);
	/* When every port's connection has ended, so does the session. */
	struct listener *l;

	OK(listener_open("127.0.0.1:0", 0, &l));
	snprintf(ports, sizeof ports, "/portforward?ports=%d", listener_port(l));
	listener_close(l);
	OK(ws_connect(h, &a, str_from(ports), NULL, 0, v4, 100000, NULL, &w));
	OK(ws_read(w, &kind, &m, NULL));
	OK(ws_read(w, &kind, &m, NULL));
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(kind == WS_BINARY && m.n > 1 && m.p[0] == 1 && str_contains(m, STR("refused")));
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(kind == WS_CLOSE);
	ws_free(w);
	struct error *e = ws_connect(h, &a, STR("/portforward?ports=99999"), NULL, 0, v4, 1000, NULL, &w);

	CHECK(error_is(e, 400, NULL));
	error_free(e);
	struct http_response r;

	OK(http_do(h, &a, "POST", STR("/exec?stdout=1"), NULL, 0, STR_NULL, &r));
	CHECK(r.status == 400);
	http_response_close(&r);
	arena_free(&a);
}

static void main_fiber(void *arg)
{
	struct http_server *srv;
	struct http_client *h;
	struct listener *l;
	char base[64];

	OK(listener_open("127.0.0.1:0", 0, &l));
	OK(listener_open("127.0.0.1:0", 0, &target));
	port = listener_port(l);
	OK(http_server_start(l, &(struct http_server_opts){.handler = handler}, &srv));
	snprintf(base, sizeof base, "http://127.0.0.1:%d", port);
	OK(http_client_new(&(struct http_client_opts){.base = base}, &h));
	struct fiber *f = fiber_start("target", target_fiber, NULL);

	for (int t = RC_WEBSOCKET; t <= RC_SPDY; t++) {
		exec_all(h, (enum rc_transport)t);
		forward_all(h, (enum rc_transport)t);
	}
	plain_ws(h);
	fiber_stop(f);
	listener_close(target);
	http_client_free(h);
	http_server_stop(srv, 1000);
}

static void test_remotecommand(void **state)
{
	assert_ok(loop_run(main_fiber, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_remotecommand)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
