#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

void buf_free(struct buf *b)
{
	free(b->p);
	*b = (struct buf){.limit = b->limit};
}

void buf_reserve(struct buf *b, size_t more)
{
	if (b->cap - b->n >= more)
		return;
	size_t cap = b->cap ? b->cap : 256, need;

	if (__builtin_add_overflow(b->n, more, &need))
		die_oom();
	while (cap < need)
		cap = cap > SIZE_MAX / 2 ? need : cap * 2;
	b->p = xrealloc(b->p, cap);
	b->cap = cap;
}

void buf_append_slow(struct buf *b, const char *p, size_t n)
{
	if (b->limit && (b->overflow || n > b->limit - b->n)) {
		b->overflow = true;
		return;
	}
	buf_reserve(b, n);
	if (n)
		memcpy(b->p + b->n, p, n);
	b->n += n;
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	char small[256];
	va_list again;

	va_copy(again, ap);
	int n = vsnprintf(small, sizeof small, fmt, ap);

	if (n >= 0 && (size_t)n < sizeof small) {
		buf_append(b, small, (size_t)n);
	} else if (n > 0) {
		char *big = xmalloc((size_t)n + 1);

		vsnprintf(big, (size_t)n + 1, fmt, again);
		buf_append(b, big, (size_t)n);
		free(big);
	}
	va_end(again);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(b, fmt, ap);
	va_end(ap);
}

void buf_u64(struct buf *b, uint64_t v)
{
	char tmp[20];
	size_t i = sizeof tmp;

	do {
		tmp[--i] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	buf_append(b, tmp + i, sizeof tmp - i);
}

void buf_i64(struct buf *b, int64_t v)
{
	if (v < 0)
		buf_putc(b, '-');
	buf_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

const char *buf_z(struct buf *b)
{
	buf_reserve(b, 1);
	b->p[b->n] = 0;
	return b->p;
}

char *buf_take(struct buf *b, size_t *n)
{
	buf_z(b);
	char *p = b->p;

	if (n)
		*n = b->n;
	*b = (struct buf){.limit = b->limit};
	return p;
}

void buf_quote(struct buf *b, struct str s)
{
	buf_putc(b, '"');
	for (size_t i = 0; i < s.n;) {
		unsigned char c = (unsigned char)s.p[i];
		unsigned n = utf8_len(s.p + i, s.p + s.n);

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c >= '\a' && c <= '\r')
			buf_printf(b, "\\%c", "abtnvfr"[c - '\a']);
		else if (c < 0x20 || c == 0x7f || !n)
			buf_printf(b, "\\x%02x", c);
		else
			buf_append(b, s.p + i, n);
		i += n ? n : 1;
	}
	buf_putc(b, '"');
}
