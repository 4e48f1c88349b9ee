#include "base/ref.h"

#include <assert.h>
#include <stdlib.h>

#include "base/log.h"

struct block *block_new(struct str s)
{
	assert(s.n < BLOCK_MAX);
	struct block *b = xmalloc(sizeof *b + s.n);

	atomic_init(&b->refs, 1);
	b->n = (uint32_t)s.n;
	if (s.p)
		memcpy(b->bytes, s.p, s.n);
	return b;
}

void block_unref(struct block *b)
{
	if (b && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
		free(b);
}
