/*
 * base/buf.h: a growing, owned run of bytes. With a limit, appends past it set
 * `overflow` and drop the bytes, so that a writer checks once at the end.
 */
#ifndef SKIFF_BASE_BUF_H
#define SKIFF_BASE_BUF_H

#include <stdarg.h>
#include "base/str.h"

struct buf {
	char *p;
	size_t n, cap;
	size_t limit; /* 0: none */
	bool overflow;
};

void buf_free(struct buf *b);
void buf_reserve(struct buf *b, size_t more); /* room for `more` bytes behind n */
void buf_append_slow(struct buf *b, const char *p, size_t n);
static inline void buf_append(struct buf *b, const void *p, size_t n)
{
	if (b->cap - b->n >= n && !b->limit) {
		if (n)
			memcpy(b->p + b->n, p, n);
		b->n += n;
	} else {
		buf_append_slow(b, (const char *)p, n);
	}
}
static inline void buf_str(struct buf *b, struct str s)
{
	buf_append(b, s.p, s.n);
}
static inline void buf_putc(struct buf *b, char c)
{
	buf_append(b, &c, 1);
}
static inline void buf_puts(struct buf *b, const char *z)
{
	buf_append(b, z, strlen(z));
}
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap);
/* s as Go's %q writes it: in quotes, what is not printed in ASCII and what is not UTF-8 escaped. */
void buf_quote(struct buf *b, struct str s);
void buf_u64(struct buf *b, uint64_t v);
void buf_i64(struct buf *b, int64_t v);
/* The bytes so far; valid until the next append. */
static inline struct str buf_view(const struct buf *b)
{
	return str_of(b->p, b->n);
}
/* NUL-terminates (the NUL is not counted) and returns p, never NULL. */
const char *buf_z(struct buf *b);
/* Gives the malloc'ed bytes to the caller and empties the buffer. */
char *buf_take(struct buf *b, size_t *n);

#define buf_cleanup __attribute__((cleanup(buf_free)))

#endif
