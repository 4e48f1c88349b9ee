/*
 * base/arena.h: bump allocation with one lifetime, usually a request's or a
 * reconcile's. Never shared between threads. Memory is returned by
 * arena_free/arena_reset only; there is no free of a single allocation.
 */
#ifndef SKIFF_BASE_ARENA_H
#define SKIFF_BASE_ARENA_H

#include <stdarg.h>
#include "base/str.h"

struct arena_chunk;
struct arena {
	struct arena_chunk *chunks; /* newest first */
	char *cur, *end;
	size_t total; /* bytes taken from malloc */
};

/* An empty arena takes no memory. `struct arena a = {0};` is the same. */
void arena_init(struct arena *a);
/* Frees everything; the arena may be used again. */
void arena_free(struct arena *a);
/* Forgets all allocations, keeps at most one chunk (64 KiB) for the next use. */
void arena_reset(struct arena *a);

/* Zeroed memory aligned to 16 bytes. Never NULL: out of memory aborts (see docs/architecture.md). */
void *arena_alloc(struct arena *a, size_t n);
/* As arena_alloc, not zeroed, no alignment beyond 1: for bytes. */
char *arena_bytes(struct arena *a, size_t n);
/* A copy of s, NUL-terminated behind its n bytes. */
struct str arena_str(struct arena *a, struct str s);
/* The same as a C string. */
char *arena_strz(struct arena *a, struct str s);
struct str arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct str arena_vprintf(struct arena *a, const char *fmt, va_list ap);

#define arena_new(a, type) ((type *)arena_alloc((a), sizeof(type)))
#define arena_array(a, type, n) ((type *)arena_alloc((a), sizeof(type) * (n)))

/*
 * LIST(T): the shape of every slice in API structs: n elements at v.
 * v == NULL is Go's nil slice; an empty, non-nil slice has n == 0, v != NULL.
 * cap is room at v, at least n; 0 where nobody said (then arena_push copies first).
 */
#define LIST(T)                                                                                    \
	struct {                                                                                   \
		T *v;                                                                              \
		uint32_t n, cap;                                                                   \
	}

/* Appends a zeroed element to *list in arena `a` (any arena that lives as long); O(1) amortised. Returns the element. */
#define arena_push(a, list)                                                                        \
	((list)->v = arena_push_((a), (list)->v, (list)->n, &(list)->cap, sizeof(*(list)->v)),     \
	 &(list)->v[(list)->n++])
void *arena_push_(struct arena *a, void *v, uint32_t n, uint32_t *cap, size_t size);

#define arena_cleanup __attribute__((cleanup(arena_free)))

#endif
