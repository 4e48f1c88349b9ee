/* loop/internal.h: what the files of this room share; nobody else includes it. */
#ifndef SKIFF_LOOP_INTERNAL_H
#define SKIFF_LOOP_INTERNAL_H

#include <pthread.h>
#include <uv.h>

#include "loop/fiber.h"
#include "loop/io.h"

#if defined(__SANITIZE_ADDRESS__)
#define LOOP_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LOOP_ASAN 1
#endif
#endif
#ifndef LOOP_ASAN
#define LOOP_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__)
#define LOOP_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LOOP_TSAN 1
#endif
#endif
#ifndef LOOP_TSAN
#define LOOP_TSAN 0
#endif

#define NEVER INT64_MAX
#define SHIELDS_MAX 8

/* ---- stacks (stack.c) ---- */
/* Several pages: whatever the page size, and frames that would step over one. */
#define STACK_GUARD ((size_t)65536)
struct stack {
	struct stack *next;              /* free list */
	struct stack *all_next, *all_prev;
	char *base;                      /* lowest usable byte; the guard page lies below */
	size_t size;
	unsigned uses;
};
/*
 * Stacks lie a multiple of pages apart: started at the same offset, the lines that all waiting fibers use would share a few sets of the
 * processor's caches. So each starts somewhere else in its uppermost 2 KiB.
 */
static inline size_t stack_color(const struct stack *s)
{
	return ((uintptr_t)s->base >> 12) * 11 % 32 * 64;
}
struct stack_pool {
	struct stack *hot, *cold; /* hot: pages kept; cold: pages given back */
	size_t n_hot, n_cold, low_hot;
	struct stack *all;
	size_t n_all;
	size_t high_water; /* of stacks whose pages were given back already */
};
struct stack *stack_get(struct stack_pool *p);
/* Gives back the pages below what a waiting fiber uses. */
void stack_rest(struct stack_pool *p, struct stack *s, const void *sp);
void stack_put(struct stack_pool *p, struct stack *s);
/* Gives back what the last seconds did not need. */
void stack_trim(struct stack_pool *p);
size_t stack_room(const struct stack_pool *p); /* how many more there may be */
size_t stack_high_water(struct stack_pool *p);
void stack_pool_free(struct stack_pool *p);

/* ---- fibers (fiber.c) ---- */
struct fiber {
	void *sp; /* where it stands, when it does not run */
	struct stack *stack;
	struct fiber *next;                /* ready queue */
	struct fiber *all_next, *all_prev;
	const char *name;
	fiber_fn *fn;
	void *arg;
	struct fiber *joiner;
	bool ready, waiting, nointr, cancelled, joinable, done;
	uint8_t rest;                      /* passes of rest_some() since it last ran; 2: its stack's unused pages are given back */
	int why;                           /* how the wait ended: 0, ECANCELED, ETIMEDOUT */
	int io_budget;                     /* I/O calls left before it lets others run */
	int shield;
	int64_t shielded[SHIELDS_MAX];     /* deadlines set aside */
	int64_t deadline;                  /* monotonic ms, NEVER */
	int64_t until;                     /* of the present wait */
	int64_t heap_at;                   /* when the timer heap looks at it next */
	size_t heap_idx;                   /* index + 1; 0: not in the heap */
	void *tsan;
	void *fake_stack;
};

struct fd_slot {
	uv_poll_t poll;
	int fd;
	int started;     /* UV_READABLE | UV_WRITABLE | UV_DISCONNECT that libuv watches */
	bool owned;      /* the fd is closed through this room: the registration may stay */
	struct fiber *rd, *wr;
	void (*hup)(void *arg); /* told once that the peer has gone */
	void *hup_arg;
};

struct posted {
	struct posted *next;
	void (*fn)(void *arg);
	void *arg;
};

struct loop {
	uv_loop_t uv;
	bool in_uv;
	struct fiber *cur;
	struct fiber *ready, *ready_tail;
	size_t n_ready;
	struct fiber *later, **later_end; /* ready once the loop has looked outside */
	struct fiber *rest_at;            /* where the present pass over all fibers is; NULL: none */
	int64_t rest_ms;                  /* when the next one begins */
	struct fiber *all;
	size_t n_fibers;
	struct stack_pool stacks;
	void *sched_sp;
	void *sched_tsan;
	void *sched_fake;
	const void *sched_bottom; /* ASan: the thread's own stack */
	size_t sched_size;
	struct fiber *dead;       /* ended; its stack is returned once we are off it */

	struct fiber **heap;      /* waits with a deadline, soonest first */
	size_t heap_n, heap_cap;
	uv_timer_t timer;
	int64_t timer_at;
	uv_timer_t trim;
	int64_t trimmed_at;

	uv_async_t async;
	pthread_mutex_t post_lock;
	struct posted *posts, *posts_tail;

	struct fd_slot **fds;
	size_t fds_cap;

	struct sig {
		uv_signal_t h;
		int signum;
		bool pending;
	} *signals[65];
	struct waitq sig_q;
};

struct waiter {
	struct waiter *next, *prev;
	struct fiber *f;
	bool queued;
};

extern _Thread_local struct loop *loop_cur;

/* ECANCELED or ETIMEDOUT if the current fiber must stop, 0 otherwise. */
int fiber_must_stop(void);
struct error *fiber_stop_error(int why);
/* Suspends the current fiber until fiber_wake, a deadline or cancellation (neither, if nointr). Returns 0 or why. */
int fiber_park(int64_t until, bool nointr);
void fiber_wake(struct fiber *f, int why);
/* Called before every I/O try: lets others run now and then, and says if the fiber must stop. */
struct error *fiber_io_point(void);
int64_t deadline_after(int64_t ms);

/* ---- fd waits (fd.c) ---- */
struct error *fd_wait(int fd, int event, bool owned);
void fd_adopt(int fd);  /* forgets what an fd of that number was before */
void fd_forget(int fd); /* before close(2) of an fd that was waited on */
void fd_slots_close(struct loop *l);
struct error *set_nonblock(int fd);

/* ---- signals (sys.c) ---- */
void signals_close(struct loop *l);

/* ---- the limit of descriptors (sys.c) ---- */
/* Once a process: the soft limit becomes the hard one. */
void descriptors_raise(void);
/* In a child, before it executes: what the program would have got from whoever started us. Makes system calls only. */
void descriptors_restore(void);

/* ---- context switch (ctx.c) ---- */
void ctx_switch(void **save_sp, void *to_sp);
void *ctx_make(void *stack_top, void (*entry)(void *), void *arg);

#endif
