/* Frames to a server behind a handshake that the target makes itself. */
#include "fuzz.h"
#include "memory_stream.h"
#include "net/internal.h"
#include "net/websocket.h"

static const char hello[] = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

static void handler(struct http_exchange *x, void *ctx)
{
	struct websocket *w;
	struct error *e = ws_accept(x, NULL, 65536, NULL, &w);

	while (!e) {
		enum ws_kind kind;
		struct str m;
		int code;

		e = ws_read(w, &kind, &m, &code);
		if (e || kind == WS_CLOSE)
			break;
		e = ws_write(w, kind, m, STR_NULL);
	}
	error_free(e);
	ws_free(w);
}

static void serve(void *arg)
{
	struct fuzz_input *in = arg;
	struct http_server srv = {.o = {.handler = handler, .max_header_bytes = 65536, .header_timeout_ms = 5000,
					.idle_timeout_ms = 5000}};
	struct conn c = {.srv = &srv, .s = memory_stream(in->p, in->n), .fiber = fiber_self()};
	struct rbuf rb = {.s = c.s};

	c.raw = c.s;
	h1_serve(&c, &rb);
	rbuf_free(&rb);
	stream_close(c.s);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct fuzz_input in = {0};
	uint8_t *all = xmalloc(sizeof hello - 1 + n);

	memcpy(all, hello, sizeof hello - 1);
	if (n)
		memcpy(all + sizeof hello - 1, p, n);
	in.p = all;
	in.n = sizeof hello - 1 + n;
	error_free(loop_run(serve, &in));
	free(all);
	return 0;
}
