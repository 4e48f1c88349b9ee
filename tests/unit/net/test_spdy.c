#include "net_test.h"

#include <sys/socket.h>

#include "net/spdy.h"

struct side {
	struct spdy *c;
	int accepted;
};

static void echo_fiber(void *arg)
{
	struct spdy_stream *st = arg;
	char buf[5000];
	size_t n;

	for (;;) {
		struct error *e = stream_read(&st->s, buf, sizeof buf, &n);

		if (e || !n) {
			error_free(e);
			break;
		}
		OK(stream_write(&st->s, buf, n));
	}
	OK(stream_shutdown(&st->s));
	stream_close(&st->s);
}

static void server(void *arg)
{
	struct side *s = arg;
	struct spdy_stream *st;

	for (;;) {
		struct error *e = spdy_accept(s->c, &st);

		if (e) {
			CHECK(error_is_sys(e, EPIPE) || error_is_sys(e, ECANCELED));
			error_free(e);
			return;
		}
		s->accepted++;
		struct str type = http_header_get(&st->headers, "streamtype");

		if (str_eqz(type, "echo"))
			fiber_spawn("echo", echo_fiber, st);
		else if (str_eqz(type, "reset"))
			stream_close(&st->s);
		else
			CHECK(str_eqz(type, "hold") && str_eqz(http_header_get(&st->headers, "x-long"), "kept"));
	}
}

struct flow {
	struct spdy_stream *st;
	size_t sent;
};

static void flood(void *arg)
{
	struct flow *f = arg;
	char *p = calloc(1, 65536);

	for (;;) {
		struct error *e = stream_write(&f->st->s, p, 65536);

		if (e) {
			error_free(e);
			break;
		}
		f->sent += 65536;
	}
	free(p);
}

static void one_stream(void *arg)
{
	struct spdy *c = arg;
	struct http_header h = {STR("StreamType"), STR("echo")};
	struct spdy_stream *st;
	char out[3000], in[3000];

	random_bytes(out, sizeof out);
	OK(spdy_open(c, &h, 1, &st));
	OK(stream_write(&st->s, out, sizeof out));
	OK(stream_read_full(&st->s, in, sizeof in));
	CHECK(memcmp(in, out, sizeof in) == 0);
	OK(stream_shutdown(&st->s));
	CHECK(is_sys(stream_read_full(&st->s, in, 1), EPIPE));
	CHECK(is_sys(stream_write(&st->s, "x", 1), EPIPE));
	stream_close(&st->s);
}

static struct fiber *connect_pair(struct side *s, struct spdy **c)
{
	int fd[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	OK(spdy_new(fd_stream(fd[0]), true, &s->c));
	OK(spdy_new(fd_stream(fd[1]), false, c));
	return fiber_start("server", server, s);
}

static void main_fiber(void *arg)
{
	struct side s = {0};
	struct spdy *c;
	struct fiber *srv = connect_pair(&s, &c), *f[100];
	struct spdy_stream *st, *held;
	struct http_header reset = {STR("streamtype"), STR("reset")};
	struct http_header hold[2] = {{STR("streamtype"), STR("hold")}, {STR("X-Long"), STR("kept")}};
	char buf[100];

	one_stream(c);
	OK(spdy_ping(c));
	OK(spdy_ping(s.c));
	for (int i = 0; i < 100; i++)
		f[i] = fiber_start("stream", one_stream, c);
	for (int i = 0; i < 100; i++)
		fiber_join(f[i]);
	CHECK(s.accepted == 101);
	OK(spdy_open(c, &reset, 1, &st));
	CHECK(is_sys(stream_read_full(&st->s, buf, 1), ECONNRESET));
	CHECK(is_sys(stream_write(&st->s, buf, 1), EPIPE));
	stream_close(&st->s);
	/* A stream nobody reads stops its writer, and no other stream. */
	OK(spdy_open(c, hold, 2, &held));
	struct flow fl = {held, 0};
	struct fiber *w = fiber_start("flood", flood, &fl);

	OK(fiber_sleep(50));
	CHECK(fl.sent <= 65536);
	one_stream(c);
	fiber_stop(w);
	/* Bytes of many sizes. */
	struct http_header h = {STR("streamtype"), STR("echo")};
	size_t n = 1 << 20, got = 0, k;
	char *big = malloc(n), *back = malloc(n);

	random_bytes(big, n);
	OK(spdy_open(c, &h, 1, &st));
	for (size_t off = 0, step = 1; off < n || got < n;) {
		if (off < n) {
			step = step * 3 % 50021;
			k = n - off < step ? n - off : step;
			OK(stream_write(&st->s, big + off, k));
			off += k;
		}
		while (got < n && (off == n || got + 30000 < off)) {
			OK(stream_read(&st->s, back + got, n - got, &k));
			CHECK(k);
			got += k;
		}
	}
	CHECK(memcmp(big, back, n) == 0);
	free(big);
	free(back);
	/* The peer goes: everything ends. */
	spdy_free(c);
	OK(spdy_wait_end(s.c));
	CHECK(spdy_ended(s.c));
	fiber_join(srv);
	spdy_free(s.c);
}

static void test_spdy(void **state)
{
	assert_ok(loop_run(main_fiber, NULL));
}

/* Frames of a peer that misbehaves. */
static void bad_frames(void *arg)
{
	static const struct {
		const char *bytes;
		size_t n;
	} bads[] = {
		{"\x80\x02\0\1\0\0\0\x0a\0\0\0\1\0\0\0\0\0\0", 18},        /* version 2 */
		{"\x80\x03\0\1\0\0\0\x0a\0\0\0\2\0\0\0\0\0\0", 18},        /* even number from a client */
		{"\x80\x03\0\1\0\0\0\x04\0\0\0\1", 12},                    /* too short */
		{"\x80\x03\0\1\0\0\0\x0c\0\0\0\1\0\0\0\0\0\0\xff\xff", 20}, /* no zlib */
		{"\x80\x03\0\1\0\xff\xff\xff\0\0\0\1", 12},                 /* larger than any */
		{"\x80\x03\0\4\0\0\0\x04\0\0\0\x05", 12},                  /* SETTINGS that are not there */
		{"\x80\x03\0\x09\0\0\0\x04\0\0\0\x05", 12},
		{"\x80\x03\0\x03\0\0\0\x04\0\0\0\x05", 12},
	};

	for (size_t i = 0; i < sizeof bads / sizeof *bads + 200; i++) {
		int fd[2];
		struct spdy *c;
		char noise[300];

		CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
		OK(spdy_new(fd_stream(fd[0]), true, &c));
		struct stream *s = fd_stream(fd[1]);

		if (i < sizeof bads / sizeof *bads) {
			OK(stream_write(s, bads[i].bytes, bads[i].n));
			int64_t d = deadline_push(5000);
			struct error *e = spdy_wait_end(c);

			deadline_pop(d);
			CHECK(is_sys(e, ECONNRESET));
		} else {
			random_bytes(noise, sizeof noise);
			noise[0] = i % 3 ? (char)0x80 : 0;
			noise[1] = 3;
			noise[2] = 0;
			noise[3] = (char)(i % 11);
			noise[5] = 0;
			noise[6] = (char)(i % 2);
			OK(stream_write(s, noise, sizeof noise));
			OK(stream_shutdown(s));
			error_free(spdy_wait_end(c));
		}
		spdy_free(c);
		stream_close(s);
	}
}

static void test_bad_frames(void **state)
{
	assert_ok(loop_run(bad_frames, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_spdy), cmocka_unit_test(test_bad_frames)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
