/*
 * base/ref.h: an immutable, reference-counted block of bytes: what is stored,
 * cached, listed and watched is one of these. Counting is atomic, so blocks
 * may cross threads; the bytes never change after publication.
 */
#ifndef SKIFF_BASE_REF_H
#define SKIFF_BASE_REF_H

#include <stdatomic.h>
#include "base/str.h"

struct block {
	atomic_uint refs;
	uint32_t n;
	char bytes[];
};

#define BLOCK_MAX (1u << 31)

/* One reference, the caller's, over a copy of s (NULL p: bytes left for the caller to fill before publishing). */
struct block *block_new(struct str s);
static inline struct block *block_ref(struct block *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}
void block_unref(struct block *b); /* NULL is allowed */
static inline struct str block_str(const struct block *b)
{
	return str_of(b->bytes, b->n);
}

#endif
