/* HTTP/2 peers that mean harm: raw frames against the server. */
#include "net_test.h"

#include <sys/socket.h>

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };

static int port;
static int handlers, most, total;
static size_t written;
static char *big;
static struct waitq q;

static void handler(struct http_exchange *x, void *ctx)
{
	struct error *e;

	total++;
	if (++handlers > most)
		most = handlers;
	if (str_eqz(x->path, "/endless")) {
		e = http_start(x, 200);
		while (!e) {
			e = http_write(x, str_of(big, 65536));
			written += e ? 0 : 65536;
		}
	} else {
		e = fiber_sleep(str_eqz(x->path, "/wait") ? 60000 : 0);
		if (!e)
			e = http_respond(x, 200, STR("ok"));
	}
	error_free(e);
	handlers--;
	waitq_wake_all(&q);
}

static struct stream *dial(void)
{
	struct stream *s;
	char addr[32];

	snprintf(addr, sizeof addr, "127.0.0.1:%d", port);
	OK(stream_connect(addr, &s));
	return s;
}

static void frame(struct buf *b, int type, int flags, uint32_t id, const char *p, size_t n)
{
	unsigned char h[9] = {(unsigned char)(n >> 16), (unsigned char)(n >> 8), (unsigned char)n, (unsigned char)type,
			      (unsigned char)flags, (unsigned char)(id >> 24), (unsigned char)(id >> 16),
			      (unsigned char)(id >> 8), (unsigned char)id};

	buf_append(b, h, 9);
	buf_append(b, p, n);
}

static void hello(struct buf *b)
{
	buf_puts(b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	frame(b, SETTINGS, 0, 0, NULL, 0);
}

#define GET_ROOT "\x82\x86\x84\x41\x01" "a"
#define GET_WAIT "\x82\x86\x41\x01" "a" "\x04\x05/wait"
#define GET_ENDLESS "\x82\x86\x41\x01" "a" "\x04\x08/endless"

/* Reads frames until the connection ends; counts kinds, keeps the last GOAWAY's code. */
struct seen {
	int kinds[16], refused;
	int goaway;
	bool ended;
};

static void see(struct stream *s, struct seen *k, int64_t ms, int until_kind, int until_n)
{
	unsigned char h[9];
	char *body = malloc(1 << 20);
	int64_t d = deadline_push(ms);

	*k = (struct seen){.goaway = -1};
	while (until_kind < 0 || k->kinds[until_kind] < until_n) {
		struct error *e = stream_read_full(s, h, 9);
		size_t n = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];

		if (!e)
			e = stream_read_full(s, body, n);
		if (e) {
			k->ended = !error_is_sys(e, ETIMEDOUT);
			error_free(e);
			break;
		}
		k->kinds[h[3] & 15]++;
		if (h[3] == GOAWAY && n >= 8)
			k->goaway = (unsigned char)body[7];
		if (h[3] == RST_STREAM && n == 4)
			k->refused += body[3] == 7;
	}
	deadline_pop(d);
	free(body);
}

struct send_job {
	struct stream *s;
	struct buf *b;
	bool done;
};

static void send_fiber(void *arg)
{
	struct send_job *j = arg;

	/* The server may well close before it has all. */
	error_free(stream_write(j->s, j->b->p, j->b->n));
	j->done = true;
}

/* Sends all of b and expects the server to end the connection with that GOAWAY code. */
static void expect_end(struct buf *b, int code)
{
	struct stream *s = dial();
	struct send_job j = {.s = s, .b = b};
	struct fiber *f = fiber_start("send", send_fiber, &j);
	struct seen k;

	see(s, &k, 10000, -1, 0);
	if (!k.ended || (code >= 0 && k.goaway != code && k.goaway != -1))
		log_error("ended %d, goaway %d, wanted %d", k.ended, k.goaway, code);
	/* The GOAWAY may be lost to the reset that unread bytes cause: the end counts. */
	CHECK(k.ended && (code < 0 || k.goaway == code || k.goaway == -1));
	fiber_stop(f);
	stream_close(s);
	b->n = 0;
}

static void main_fiber(void *arg)
{
	struct http_server *srv;
	struct listener *l;
	buf_cleanup struct buf b = {0};
	struct seen k;

	OK(listener_open("127.0.0.1:0", 0, &l));
	port = listener_port(l);
	OK(http_server_start(l, &(struct http_server_opts){.handler = handler, .max_streams = 100, .max_header_bytes = 65536,
							    .header_timeout_ms = 1000, .idle_timeout_ms = 60000}, &srv));
	/* Rapid reset (CVE-2023-44487): the connection ends long before all of it was served. */
	hello(&b);
	for (uint32_t i = 0; i < 20000; i++) {
		frame(&b, HEADERS, 5, 2 * i + 1, GET_WAIT, sizeof GET_WAIT - 1);
		frame(&b, RST_STREAM, 0, 2 * i + 1, "\0\0\0\x08", 4);
	}
	expect_end(&b, 11);
	CHECK(total < 5000); /* a thousand, and what a slow machine refills */
	/* Floods of frames that cost an answer. */
	hello(&b);
	for (int i = 0; i < 20000; i++)
		frame(&b, PING, 0, 0, "12345678", 8);
	expect_end(&b, 11);
	hello(&b);
	for (int i = 0; i < 20000; i++)
		frame(&b, SETTINGS, 0, 0, NULL, 0);
	expect_end(&b, 11);
	/* Streams that reset themselves by nonsense (a zero window update). */
	hello(&b);
	for (uint32_t i = 0; i < 20000; i++) {
		frame(&b, HEADERS, 4, 2 * i + 1, GET_WAIT, sizeof GET_WAIT - 1);
		frame(&b, WINDOW_UPDATE, 0, 2 * i + 1, "\0\0\0\0", 4);
	}
	expect_end(&b, -1);
	/* A head without end, and one that decompresses to far too much. */
	hello(&b);
	frame(&b, HEADERS, 1, 1, GET_ROOT, sizeof GET_ROOT - 1);
	char filler[16000];

	for (int i = 0; i < 16000; i += 4)
		memcpy(filler + i, "\0\1a\0", 4);
	for (int i = 0; i < 1000; i++)
		frame(&b, CONTINUATION, 0, 1, filler, sizeof filler);
	expect_end(&b, -1);
	hello(&b);
	/* x-....: one dynamic entry of 4,000 bytes, then a thousand references to it, a byte each. */
	char bomb[6000] = "\x82\x86\x84\x41\x01" "a" "\x40\x01x\x7f\xa1\x1e";
	size_t n = 12;

	memset(bomb + n, 'y', 4000);
	n += 4000;
	memset(bomb + n, '\xbe', 1000);
	n += 1000;
	frame(&b, HEADERS, 5, 1, bomb, n);
	struct stream *s = dial();

	OK(stream_write(s, b.p, b.n));
	see(s, &k, 5000, HEADERS, 1);
	CHECK(k.kinds[HEADERS] == 1 || k.ended); /* 431 */
	stream_close(s);
	b.n = 0;
	/* More streams at once than allowed: the rest is refused, and no more handlers run. */
	while (handlers)
		OK(waitq_wait_ms(&q, 5000));
	most = 0;
	hello(&b);
	for (uint32_t i = 0; i < 150; i++)
		frame(&b, HEADERS, 5, 2 * i + 1, GET_WAIT, sizeof GET_WAIT - 1);
	s = dial();
	OK(stream_write(s, b.p, b.n));
	see(s, &k, 5000, RST_STREAM, 50);
	CHECK(k.ended || k.refused == 50);
	CHECK(most <= 100 && most > 0);
	stream_close(s);
	b.n = 0;
	while (handlers)
		OK(waitq_wait_ms(&q, 5000));
	/* A reader with a huge window that reads nothing: its writer waits, memory does not grow. */
	hello(&b);
	frame(&b, SETTINGS, 0, 0, "\0\4\x7f\xff\xff\xff", 6);
	frame(&b, WINDOW_UPDATE, 0, 0, "\x7f\xff\0\0", 4);
	for (uint32_t i = 0; i < 50; i++)
		frame(&b, HEADERS, 5, 2 * i + 1, GET_ENDLESS, sizeof GET_ENDLESS - 1);
	s = dial();
	OK(stream_write(s, b.p, b.n));
	size_t before;

	do {
		before = written;
		OK(fiber_sleep(100));
	} while (written != before);
	CHECK(written < 24 << 20); /* the kernel's socket buffers, a MiB of ours, a piece a stream */
	stream_close(s);
	b.n = 0;
	while (handlers)
		OK(waitq_wait_ms(&q, 5000));
	/* A preface and then nothing does not hold a place for longer than the idle time; a part of one only the head's. */
	int64_t t = now_ms();

	s = dial();
	OK(stream_write(s, "PRI * HTTP/2.0\r\n", 16));
	see(s, &k, 5000, -1, 0);
	CHECK(k.ended && now_ms() - t < 4000);
	stream_close(s);
	/* The server still serves. */
	hello(&b);
	frame(&b, HEADERS, 5, 1, GET_ROOT, sizeof GET_ROOT - 1);
	s = dial();
	OK(stream_write(s, b.p, b.n));
	see(s, &k, 5000, DATA, 1);
	CHECK(k.kinds[HEADERS] == 1 && k.kinds[DATA] == 1);
	stream_close(s);
	http_server_stop(srv, 100);
}

static void test_abuse(void **state)
{
	big = calloc(1, 65536);
	assert_ok(loop_run(main_fiber, NULL));
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_abuse)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
