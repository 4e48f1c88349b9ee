/* A whole server connection (HTTP/1.1, or HTTP/2 behind its preface) and the parser of responses. */
#include "fuzz.h"
#include "memory_stream.h"
#include "net/internal.h"

static void handler(struct http_exchange *x, void *ctx)
{
	struct str body = STR_NULL;
	struct error *e = http_body_all(x, 65536, &body);

	http_set_header(x, "Content-Type", STR("text/plain"));
	if (e && e->status)
		error_free(http_respond(x, e->status, str_from(e->message)));
	else if (!e && x->path.n % 2)
		error_free(http_respond(x, 200, body));
	else if (!e && !http_start(x, 200)) {
		error_free(http_write(x, x->query));
		http_set_trailer(x, "x-sum", STR("1"));
		error_free(http_end(x));
	}
	error_free(e);
}

static void serve(void *arg)
{
	struct fuzz_input *in = arg;
	struct http_server srv = {.o = {.handler = handler, .max_header_bytes = 65536, .max_streams = 100,
					.header_timeout_ms = 5000, .idle_timeout_ms = 5000}};
	struct conn c = {.srv = &srv, .s = memory_stream(in->p, in->n), .fiber = fiber_self()};
	struct rbuf rb = {.s = c.s};

	c.raw = c.s;
	if (h1_serve(&c, &rb))
		h2_serve(&c, &rb);
	rbuf_free(&rb);
	stream_close(c.s);
}

static void respond(const uint8_t *p, size_t n)
{
	struct arena a = {0};
	char *copy = arena_strz(&a, str_of((const char *)p, n));
	size_t len = h1_head_end(copy, n, 0);
	struct h1_head h;

	if (len)
		error_free(h1_parse_response(&a, copy, len, &h));
	arena_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct fuzz_input in = {p, n};

	error_free(loop_run(serve, &in));
	respond(p, n);
	return 0;
}
