/* What a server may send to our HTTP/2 client. */
#include "fuzz.h"
#include "memory_stream.h"
#include "net/internal.h"

static void run(void *arg)
{
	struct fuzz_input *in = arg;
	struct h2 *c = h2_client_new(memory_stream(in->p, in->n), true);
	struct h2_request rq = {.method = "GET", .scheme = "http", .authority = STR("a"), .target = STR("/")};
	struct arena a = {0};
	struct http_response r;
	bool unsent;
	struct error *e = h2_do(c, &a, &rq, &r, &unsent);

	if (!e) {
		struct str body;

		error_free(http_response_all(&r, &a, 65536, &body));
		http_response_close(&r);
	}
	error_free(e);
	h2_unref(c);
	arena_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct fuzz_input in = {p, n};

	error_free(loop_run(run, &in));
	return 0;
}
