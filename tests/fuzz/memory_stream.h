/* A stream that reads from memory in pieces of odd sizes, and forgets what is written. */
#ifndef SKIFF_TESTS_MEMORY_STREAM_H
#define SKIFF_TESTS_MEMORY_STREAM_H

#include <stdlib.h>

#include "base/log.h"
#include "loop/io.h"

struct memory_stream {
	struct stream s;
	const uint8_t *p;
	size_t n;
	unsigned step;
};

static struct error *ms_read(struct stream *s, void *p, size_t n, size_t *got)
{
	struct memory_stream *m = (struct memory_stream *)s;
	size_t k = m->step++ % 3 == 0 ? 1 + m->step % 7 : 4096;

	/* As a socket does now and then: others run. */
	fiber_yield();
	*got = 0;
	TRY(fiber_check());
	k = k < n ? k : n;
	*got = k < m->n ? k : m->n;
	if (*got)
		memcpy(p, m->p, *got);
	m->p += *got;
	m->n -= *got;
	return NULL;
}

static struct error *ms_writev(struct stream *s, struct iovec *iov, int n)
{
	volatile char sum = 0;

	/* Read, so that a sanitizer sees every byte. */
	for (int i = 0; i < n; i++)
		for (size_t k = 0; k < iov[i].iov_len; k++)
			sum = (char)(sum + ((char *)iov[i].iov_base)[k]);
	fiber_yield();
	return fiber_check();
}

static struct error *ms_shutdown(struct stream *s)
{
	return NULL;
}

static void ms_close(struct stream *s)
{
	free(s);
}

static inline struct stream *memory_stream(const uint8_t *p, size_t n)
{
	static const struct stream_ops ops = {ms_read, ms_writev, ms_shutdown, ms_close};
	struct memory_stream *m = xcalloc(1, sizeof *m);

	m->s.ops = &ops;
	m->p = p;
	m->n = n;
	return &m->s;
}

struct fuzz_input {
	const uint8_t *p;
	size_t n;
};

#endif
