#include "base/arena.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define CHUNK_MIN 4096u
#define CHUNK_KEEP 65536u

struct arena_chunk {
	struct arena_chunk *next;
	size_t size; /* of data */
	char data[] __attribute__((aligned(16)));
};

void arena_init(struct arena *a)
{
	*a = (struct arena){0};
}

static void free_chunks(struct arena_chunk *c)
{
	while (c) {
		struct arena_chunk *next = c->next;

		free(c);
		c = next;
	}
}

void arena_free(struct arena *a)
{
	free_chunks(a->chunks);
	arena_init(a);
}

void arena_reset(struct arena *a)
{
	struct arena_chunk *keep = NULL, **link = &a->chunks;

	for (struct arena_chunk *c; (c = *link); link = &c->next) {
		if (c->size <= CHUNK_KEEP) {
			keep = c;
			*link = c->next;
			break;
		}
	}
	free_chunks(a->chunks);
	arena_init(a);
	if (keep) {
		keep->next = NULL;
		a->chunks = keep;
		a->cur = keep->data;
		a->end = keep->data + keep->size;
		a->total = keep->size;
	}
}

static void add_chunk(struct arena *a, size_t n)
{
	/* Doubling keeps the number of chunks logarithmic; the cap keeps the slack small. */
	size_t size = a->total < CHUNK_MIN ? CHUNK_MIN : a->total;

	if (size > 1u << 20)
		size = 1u << 20;
	if (size < n)
		size = n;
	struct arena_chunk *c = xmalloc(sizeof *c + size);

	c->next = a->chunks;
	c->size = size;
	a->chunks = c;
	a->cur = c->data;
	a->end = c->data + size;
	a->total += size;
}

void *arena_alloc(struct arena *a, size_t n)
{
	size_t pad = (size_t)(-(uintptr_t)a->cur & 15);

	if (n == 0)
		n = 1; /* a pointer of its own: non-nil, empty */
	if (!a->cur || (size_t)(a->end - a->cur) < pad || (size_t)(a->end - a->cur) - pad < n) {
		if (n > SIZE_MAX / 2)
			die_oom();
		add_chunk(a, n);
		pad = 0;
	}
	char *p = a->cur + pad;

	a->cur = p + n;
	memset(p, 0, n);
	return p;
}

char *arena_bytes(struct arena *a, size_t n)
{
	if (!a->cur || (size_t)(a->end - a->cur) < n) {
		if (n > SIZE_MAX / 2)
			die_oom();
		add_chunk(a, n);
	}
	char *p = a->cur;

	a->cur += n;
	return p;
}

char *arena_strz(struct arena *a, struct str s)
{
	char *p = arena_bytes(a, s.n + 1);

	if (s.n)
		memcpy(p, s.p, s.n);
	p[s.n] = 0;
	return p;
}

struct str arena_str(struct arena *a, struct str s)
{
	return str_of(arena_strz(a, s), s.n);
}

struct str arena_vprintf(struct arena *a, const char *fmt, va_list ap)
{
	va_list again;

	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);

	if (n < 0)
		n = 0;
	char *p = arena_bytes(a, (size_t)n + 1);

	vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	return str_of(p, (size_t)n);
}

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	struct str s = arena_vprintf(a, fmt, ap);

	va_end(ap);
	return s;
}

void *arena_push_(struct arena *a, void *v, uint32_t n, uint32_t *cap, size_t size)
{
	if (n < *cap) {
		memset((char *)v + n * size, 0, size);
		return v;
	}
	if (n > UINT32_MAX / 2)
		die_oom();
	uint32_t want = n < 4 ? 4 : n * 2;
	void *p = arena_alloc(a, want * size);

	if (n)
		memcpy(p, v, n * size);
	*cap = want;
	return p;
}
