#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/log.h"
#include "loop/internal.h"

#if LOOP_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif

/* Sanitizers put red zones around every local. */
#define STACK_SIZE ((size_t)FIBER_STACK * (LOOP_ASAN || LOOP_TSAN ? 4 : 1))
#define PAGE ((size_t)4096)
#define GUARD STACK_GUARD
#define HOT_MAX 256u          /* free stacks that keep their pages under load */
#define HOT_IDLE 4u           /* and at rest */
#define COLD_MAX 1024u        /* free stacks that keep their address space */
#define KEEP_TOP ((size_t)16384)

static size_t touched(const struct stack *s)
{
	size_t pages = s->size / PAGE;
	unsigned char vec[STACK_SIZE / PAGE];

	if (mincore(s->base, s->size, vec) < 0)
		return 0;
	for (size_t i = 0; i < pages; i++)
		if (vec[i] & 1)
			return s->size - i * PAGE;
	return 0;
}

static void note_high_water(struct stack_pool *p, const struct stack *s)
{
	size_t t = touched(s);

	if (t > p->high_water)
		p->high_water = t;
}

static void stack_unmap(struct stack_pool *p, struct stack *s)
{
	if (s->all_prev)
		s->all_prev->all_next = s->all_next;
	else
		p->all = s->all_next;
	if (s->all_next)
		s->all_next->all_prev = s->all_prev;
	p->n_all--;
#if LOOP_ASAN
	__lsan_unregister_root_region(s->base, s->size);
#endif
	munmap(s->base - GUARD, s->size + GUARD);
	free(s);
}

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif
#define MAPS_OTHERS 6000u      /* mappings left to everything that is not a stack */
#define STACKS_MAX 1000000u

/* Guards inside a mapping leave neighbouring stacks one mapping; older kernels need two a stack, of 65,530 that a process may have. */
static atomic_int guard_kind; /* 0: not known yet, 1: inside, 2: mprotect; loops of several threads find out the same */

static bool guard(char *m)
{
	if (guard_kind != 2 && madvise(m, GUARD, MADV_GUARD_INSTALL) == 0) {
		if (!guard_kind)
			guard_kind = 1;
		return true;
	}
	if (mprotect(m, GUARD, PROT_NONE) < 0)
		return false;
	guard_kind = 2;
	return true;
}

size_t stack_room(const struct stack_pool *p)
{
	static atomic_size_t limit;
	size_t max = STACKS_MAX;

	if (guard_kind == 2) {
		if (!limit) {
			FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
			size_t maps = 65530;

			if (f && fscanf(f, "%zu", &maps) != 1)
				maps = 65530;
			if (f)
				fclose(f);
			limit = maps > 2 * MAPS_OTHERS ? (maps - MAPS_OTHERS) / 2 : maps / 4;
		}
		max = limit < max ? limit : max;
	}
	return p->n_all < max ? max - p->n_all + p->n_hot + p->n_cold : p->n_hot + p->n_cold;
}

static struct stack *stack_map(struct stack_pool *p)
{
	char *m = mmap(NULL, STACK_SIZE + GUARD, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	if (m == MAP_FAILED)
		die_oom();
	/* Huge pages would make every fiber cost 2 MiB. */
	madvise(m, STACK_SIZE + GUARD, MADV_NOHUGEPAGE);
	if (!guard(m))
		die_oom();
	struct stack *s = xcalloc(1, sizeof *s);

	s->base = m + GUARD;
	s->size = STACK_SIZE;
	s->all_next = p->all;
	if (p->all)
		p->all->all_prev = s;
	p->all = s;
	p->n_all++;
#if LOOP_ASAN
	/* What a suspended fiber alone points to isn't lost. */
	__lsan_register_root_region(s->base, s->size);
#endif
	return s;
}

struct stack *stack_get(struct stack_pool *p)
{
	struct stack *s = p->hot;

	if (s) {
		p->hot = s->next;
		if (--p->n_hot < p->low_hot)
			p->low_hot = p->n_hot;
	} else if ((s = p->cold)) {
		p->cold = s->next;
		p->n_cold--;
	} else {
		s = stack_map(p);
	}
	s->next = NULL;
	return s;
}

static void go_cold(struct stack_pool *p, struct stack *s)
{
	note_high_water(p, s);
	if (p->n_cold >= COLD_MAX) {
		stack_unmap(p, s);
		return;
	}
	madvise(s->base, s->size, MADV_DONTNEED);
	s->next = p->cold;
	p->cold = s;
	p->n_cold++;
}

void stack_rest(struct stack_pool *p, struct stack *s, const void *sp)
{
#if !LOOP_ASAN
	uintptr_t base = (uintptr_t)s->base, end = ((uintptr_t)sp - 256) & ~(uintptr_t)4095;

	note_high_water(p, s);
	if (end > base)
		madvise(s->base, end - base, MADV_DONTNEED);
#endif
}

void stack_put(struct stack_pool *p, struct stack *s)
{
#if LOOP_ASAN
	__asan_unpoison_memory_region(s->base, s->size);
#endif
	if (p->n_hot >= HOT_MAX) {
		go_cold(p, s);
		return;
	}
	/* A stack once used deeply must not stay large for ever. */
	if ((++s->uses & 63) == 0) {
		note_high_water(p, s);
		madvise(s->base, s->size - KEEP_TOP, MADV_DONTNEED);
	}
	s->next = p->hot;
	p->hot = s;
	p->n_hot++;
}

void stack_trim(struct stack_pool *p)
{
	size_t drop = p->low_hot > HOT_IDLE ? p->low_hot - HOT_IDLE : 0;

	while (drop-- && p->hot) {
		struct stack *s = p->hot;

		p->hot = s->next;
		p->n_hot--;
		go_cold(p, s);
	}
	for (struct stack *s = p->hot; s; s = s->next) {
		note_high_water(p, s);
		madvise(s->base, s->size - KEEP_TOP, MADV_DONTNEED);
	}
	p->low_hot = p->n_hot;
}

size_t stack_high_water(struct stack_pool *p)
{
	for (struct stack *s = p->all; s; s = s->all_next)
		note_high_water(p, s);
	return p->high_water;
}

void stack_pool_free(struct stack_pool *p)
{
	while (p->hot) {
		struct stack *s = p->hot;

		p->hot = s->next;
		stack_unmap(p, s);
	}
	while (p->cold) {
		struct stack *s = p->cold;

		p->cold = s->next;
		stack_unmap(p, s);
	}
	p->n_hot = p->n_cold = p->low_hot = 0;
}
