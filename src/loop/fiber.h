/*
 * loop/fiber.h: fibers (stackful coroutines) over one libuv loop a thread.
 *
 * A fiber reads from top to bottom as if it blocked; every wait (sockets,
 * timers, children, queues, offloaded work) suspends only the fiber. Fibers of
 * a thread run one at a time and switch only inside waits, so plain data needs
 * no locks between waits.
 *
 * This room is the only way to time, randomness, network, disk and processes.
 *
 * Cancellation: fiber_cancel(f) makes the wait f is in, and every later wait,
 * return an error with sys == ECANCELED until f ends. A deadline makes waits
 * return sys == ETIMEDOUT once it has passed. Code on a fiber therefore simply
 * returns the errors it gets; destructors run through cleanup attributes.
 * Clean-up that must itself wait does so inside fiber_shield_begin/end.
 *
 * It never preempts: a fiber that computes long calls fiber_yield().
 */
#ifndef SKIFF_LOOP_FIBER_H
#define SKIFF_LOOP_FIBER_H

#include <sys/types.h>
#include "base/arena.h"
#include "base/error.h"

struct fiber;
typedef void fiber_fn(void *arg);

/* Default usable stack of a fiber, bytes; below it lies a guard page. */
#define FIBER_STACK (128 * 1024)

/*
 * Runs a loop on the calling thread with `fn` as its first fiber and returns
 * when that fiber has returned (other fibers are cancelled and waited for, 10 s
 * at most). One loop a thread at a time. The first raises the process's limit of descriptors (RLIMIT_NOFILE) to the hard one; programs
 * started with proc_spawn get the former again.
 */
struct error *loop_run(fiber_fn *fn, void *arg);
/* In a child made with fork(2) on a loop's thread, first of all: forgets the parent's loop, so that loop_run may be called. */
void loop_forked(void);

/*
 * Lets everything that is ready run, and the loop look once for what has come in from outside, before going on: for long work that is
 * less urgent than requests.
 */
void fiber_yield_io(void);

/* Starts a fiber, to run after the caller next waits. `name` is a literal, for logs and /debug. Detached unless joined:
 * keep the handle only if you will call fiber_join on it exactly once, and then say so with fiber_start. */
void fiber_spawn(const char *name, fiber_fn *fn, void *arg);
/* As fiber_spawn, but joinable: the handle stays valid until fiber_join. */
struct fiber *fiber_start(const char *name, fiber_fn *fn, void *arg) __attribute__((warn_unused_result));
/* Waits until f has ended and frees the handle. Not itself cancellable: cancel f first if it must end soon. */
void fiber_join(struct fiber *f);
/* Asks f to end (see above). Idempotent. */
void fiber_cancel(struct fiber *f);
/* fiber_cancel + fiber_join; NULL is allowed. */
void fiber_stop(struct fiber *f);
struct fiber *fiber_self(void);
bool fiber_cancelled(void);
/* ECANCELED/ETIMEDOUT if the current fiber must stop, else NULL. For compute loops. */
struct error *fiber_check(void);
void fiber_yield(void);

/* Deadlines nest; the earliest counts. `ms` from now; < 0: none. Pop with the value push returned. */
int64_t deadline_push(int64_t ms);
void deadline_pop(int64_t token);
int64_t deadline_left(void); /* ms until the deadline of this fiber, 0 when it has passed; -1: there is none */
void fiber_shield_begin(void); /* waits ignore cancellation and outer deadlines */
void fiber_shield_end(void);

/* Suspends for `ms`; ECANCELED / ETIMEDOUT as above, NULL when slept. */
struct error *fiber_sleep(int64_t ms);

/* A condition to wait on: re-check your predicate after each wait. Zero-initialised. */
struct waitq {
	struct waiter *head, *tail;
};
struct error *waitq_wait(struct waitq *q);
/* As waitq_wait, at most `ms`; sys == ETIMEDOUT when it ran out. */
struct error *waitq_wait_ms(struct waitq *q, int64_t ms);
void waitq_wake_one(struct waitq *q);
void waitq_wake_all(struct waitq *q);

/* Mutual exclusion between fibers of one thread, across waits. Zero-initialised. */
struct fiber_mutex {
	bool locked;
	struct waitq q;
};
struct error *fiber_mutex_lock(struct fiber_mutex *m);
void fiber_mutex_unlock(struct fiber_mutex *m);

/* Runs fn(arg) on libuv's thread pool (blocking syscalls, fsync, crypto); the fiber waits for its end even when cancelled. */
void loop_offload(void (*fn)(void *arg), void *arg);
/* From any other thread: runs fn(arg) on the loop's thread, outside fibers, soon. `l` from loop_self() taken on the loop's thread. */
struct loop;
struct loop *loop_self(void);
void loop_post(struct loop *l, void (*fn)(void *arg), void *arg);

/* Time. Monotonic for intervals, wall for timestamps (may jump). */
int64_t now_ms(void);   /* monotonic, of this loop iteration's start or later */
int64_t now_ns(void);   /* monotonic, exact */
int64_t wall_ns(void);  /* since 1970 UTC */
/* Cryptographic random bytes. */
void random_bytes(void *p, size_t n);
uint64_t random_u64(void);
/* RFC 4122 version 4, lower case, 36 characters + NUL. */
void random_uuid(char out[37]);

/* Suspends until one of the signals since the first call arrives; returns its number in *sig. The first call installs handlers. */
struct error *signal_wait(const int *signals, size_t n, int *sig);
/* Only installs them: a signal from now on is kept for signal_wait. */
struct error *signal_catch(const int *signals, size_t n);

/* How many more fibers this thread may have: some 29,000 in all where the kernel is older than 6.13 (vm.max_map_count), else
 * a million. Starting one more aborts; servers refuse work before. */
size_t loop_fiber_room(void);
/* For /debug and /metrics: fibers alive, peak stack use in bytes since start. */
void loop_stats(size_t *fibers, size_t *stack_high_water);

#endif
