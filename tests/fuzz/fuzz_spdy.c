#include "fuzz.h"
#include "memory_stream.h"
#include "net/spdy.h"

static void drain(void *arg)
{
	struct spdy_stream *st = arg;
	char buf[512];
	size_t got;
	struct error *e;

	while (!(e = stream_read(&st->s, buf, sizeof buf, &got)) && got)
		if ((e = stream_write(&st->s, buf, got)))
			break;
	error_free(e);
	stream_close(&st->s);
}

static void run(void *arg)
{
	struct fuzz_input *in = arg;
	struct spdy *c;
	struct fiber *f[64];
	int n = 0;

	if (in->n < 1)
		return;
	struct error *e = spdy_new(memory_stream(in->p + 1, in->n - 1), in->p[0] & 1, &c);

	if (e) {
		error_free(e);
		return;
	}
	for (struct spdy_stream *st; n < 64 && !(e = spdy_accept(c, &st));)
		f[n++] = fiber_start("drain", drain, st);
	error_free(e);
	error_free(spdy_wait_end(c));
	while (n > 0)
		fiber_stop(f[--n]);
	spdy_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct fuzz_input in = {p, n};

	error_free(loop_run(run, &in));
	return 0;
}
