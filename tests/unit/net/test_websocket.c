#include "net_test.h"

#include <sys/socket.h>

#include "net/websocket.h"

static int port;
static int last_code;
static struct waitq done_q;
static int done;

static void handler(struct http_exchange *x, void *ctx)
{
	static const char *const protocols[] = {"two", "one", NULL};
	struct websocket *w;
	const char *chosen;
	struct error *e = ws_accept(x, protocols, 100000, &chosen, &w);

	if (e) {
		error_free(http_respond(x, e->status, str_from(e->message)));
		error_free(e);
		return;
	}
	if (chosen)
		OK(ws_write(w, WS_TEXT, STR("protocol "), str_from(chosen)));
	for (;;) {
		enum ws_kind kind;
		struct str m;

		e = ws_read(w, &kind, &m, &last_code);
		if (e || kind == WS_CLOSE)
			break;
		e = ws_write(w, kind, m, STR_NULL);
		if (e)
			break;
	}
	error_free(e);
	ws_free(w);
	done++;
	waitq_wake_all(&done_q);
}

static void wait_done(int n)
{
	while (done < n)
		OK(waitq_wait_ms(&done_q, 5000));
}

static struct websocket *dial(const char *const *protocols, const char **chosen)
{
	struct http_client *c;
	struct arena a = {0};
	struct websocket *w;
	char base[64];

	snprintf(base, sizeof base, "http://127.0.0.1:%d", port);
	OK(http_client_new(&(struct http_client_opts){.base = base}, &c));
	OK(ws_connect(c, &a, STR("/"), NULL, 0, protocols, 1 << 20, chosen, &w));
	http_client_free(c);
	arena_free(&a);
	return w;
}

static void echo(struct websocket *w, enum ws_kind kind, struct str m)
{
	enum ws_kind got;
	struct str back;

	OK(ws_write(w, kind, m, STR_NULL));
	OK(ws_read(w, &got, &back, NULL));
	CHECK(got == kind && str_eq(back, m));
}

/* A raw connection past its handshake. */
static struct stream *raw(const char *extra, char *answer, size_t cap)
{
	struct stream *s;
	char addr[32];
	size_t n = 0;

	snprintf(addr, sizeof addr, "127.0.0.1:%d", port);
	OK(stream_connect(addr, &s));
	char *req = xasprintf("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n%s\r\n", extra);

	OK(stream_write(s, req, strlen(req)));
	free(req);
	do
		OK(stream_read_full(s, answer + n++, 1));
	while (n + 1 < cap && (n < 4 || memcmp(answer + n - 4, "\r\n\r\n", 4)));
	answer[n] = 0;
	return s;
}

#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

static void main_fiber(void *arg)
{
	static const char *const protocols[] = {"none", "one", NULL}, *const bad[] = {"none", NULL};
	struct http_server *srv;
	struct listener *l;
	const char *chosen;
	enum ws_kind kind;
	struct str m;
	int code, want_done = 0;
	char answer[2048];

	OK(listener_open("127.0.0.1:0", 0, &l));
	port = listener_port(l);
	OK(http_server_start(l, &(struct http_server_opts){.handler = handler}, &srv));
	struct websocket *w = dial(NULL, NULL);

	echo(w, WS_TEXT, STR("hello"));
	echo(w, WS_TEXT, STR("gr\xc3\xbc\xc3\x9f"));
	echo(w, WS_BINARY, STR_NULL);
	char *big = malloc(100001);

	for (int i = 0; i < 100001; i++)
		big[i] = (char)(i * 7);
	echo(w, WS_BINARY, str_of(big, 125));
	echo(w, WS_BINARY, str_of(big, 126));
	echo(w, WS_BINARY, str_of(big, 65535));
	echo(w, WS_BINARY, str_of(big, 65536));
	echo(w, WS_BINARY, str_of(big, 100000));
	OK(ws_ping(w));
	echo(w, WS_TEXT, STR("after ping"));
	OK(ws_close(w, 4001, STR("bye")));
	CHECK(is_sys(ws_write(w, WS_TEXT, STR("x"), STR_NULL), EPIPE));
	OK(ws_read(w, &kind, &m, &code));
	CHECK(kind == WS_CLOSE && code == 4001);
	ws_free(w);
	wait_done(++want_done);
	CHECK(last_code == 4001);
	/* Too large: 1009, both told. */
	w = dial(NULL, NULL);
	OK(ws_write(w, WS_BINARY, str_of(big, 100001), STR_NULL));
	OK(ws_read(w, &kind, &m, &code));
	CHECK(kind == WS_CLOSE && code == 1009);
	ws_free(w);
	wait_done(++want_done);
	free(big);
	/* Subprotocols. */
	w = dial(protocols, &chosen);
	CHECK(chosen && strcmp(chosen, "one") == 0);
	OK(ws_read(w, &kind, &m, NULL));
	CHECK(str_eqz(m, "protocol one"));
	ws_free(w);
	wait_done(++want_done);
	CHECK(last_code == 1006);
	struct http_client *c;
	struct arena a = {0};
	char base[64];

	snprintf(base, sizeof base, "http://127.0.0.1:%d", port);
	OK(http_client_new(&(struct http_client_opts){.base = base}, &c));
	struct error *e = ws_connect(c, &a, STR("/"), NULL, 0, bad, 1000, NULL, &w);

	CHECK(error_is(e, 400, NULL) && strstr(e->message, "subprotocols"));
	error_free(e);
	http_client_free(c);
	arena_free(&a);
	/* RFC 6455, 1.3: the example's key. */
	struct stream *s = raw(KEY "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.dG9rZW4\r\n", answer, sizeof answer);

	CHECK(strstr(answer, "HTTP/1.1 101") && strstr(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") &&
	      !strstr(answer, "Sec-Websocket-Protocol"));
	/* A fragmented text with a ping in the middle, masked by hand (mask 0). */
	static const char fragments[] = "\x01\x83\0\0\0\0abc" "\x89\x82\0\0\0\0hi" "\x00\x80\0\0\0\0" "\x80\x82\0\0\0\0de";

	OK(stream_write(s, fragments, sizeof fragments - 1));
	OK(stream_read_full(s, answer, 11));
	CHECK(memcmp(answer, "\x8a\x02hi\x81\x05" "abcde", 11) == 0);
	stream_close(s);
	wait_done(++want_done);
	s = raw("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n", answer, sizeof answer);
	CHECK(strstr(answer, "HTTP/1.1 400"));
	stream_close(s);
	s = raw("Sec-WebSocket-Version: 13\r\n", answer, sizeof answer);
	CHECK(strstr(answer, "HTTP/1.1 400"));
	stream_close(s);
	/* Violations end with the right code. */
	static const struct {
		const char *bytes;
		size_t n;
		int code;
	} bads[] = {
		{"\x81\x02hi", 4, 1002},                              /* not masked */
		{"\xc1\x80\0\0\0\0", 6, 1002},                        /* reserved bit */
		{"\x83\x80\0\0\0\0", 6, 1002},                        /* unknown kind */
		{"\x80\x80\0\0\0\0", 6, 1002},                        /* continues nothing */
		{"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", 12, 1002},       /* a second beginning */
		{"\x09\x80\0\0\0\0", 6, 1002},                        /* fragmented ping */
		{"\x89\xfe\0\x7e\0\0\0\0", 8, 1002},                  /* long ping */
		{"\x81\xfe\0\x01\0\0\0\0", 8, 1002},                  /* length not minimal */
		{"\x88\x81\0\0\0\0x", 7, 1002},                       /* close of one byte */
		{"\x88\x82\0\0\0\0\x03\xed", 8, 1002},                /* close code 1005 */
		{"\x81\x82\0\0\0\0\xc3\x28", 8, 1007},                /* not UTF-8 */
		{"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0x", 15, 1009},
	};

	for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
		unsigned char end[4];

		s = raw(KEY, answer, sizeof answer);
		OK(stream_write(s, bads[i].bytes, bads[i].n));
		OK(stream_read_full(s, end, 4));
		if (end[0] != 0x88 || (end[2] << 8 | end[3]) != bads[i].code)
			log_error("case %zu: %02x code %d", i, end[0], end[2] << 8 | end[3]);
		CHECK(end[0] == 0x88 && (end[2] << 8 | end[3]) == bads[i].code);
		stream_close(s);
		wait_done(++want_done);
	}
	http_server_stop(srv, 100);
}

static void test_websocket(void **state)
{
	assert_ok(loop_run(main_fiber, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_websocket)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
