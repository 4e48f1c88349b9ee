#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

#include "base/log.h"
#include "loop/internal.h"

static int64_t clock_ns(clockid_t c)
{
	struct timespec ts;

	clock_gettime(c, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int64_t now_ms(void)
{
	return now_ns() / 1000000;
}

int64_t wall_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

void random_bytes(void *p, size_t n)
{
	for (size_t have = 0; have < n;) {
		ssize_t r = getrandom((char *)p + have, n - have, 0);

		if (r > 0) {
			have += (size_t)r;
		} else if (errno != EINTR) {
			log_error("getrandom: %s", strerror(errno));
			abort(); /* going on with predictable secrets is worse */
		}
	}
}

/*
 * Identifiers are made often and are small: they come from a pool that is filled with one call. What was given out is wiped,
 * and a forked child begins with an empty one.
 */
static atomic_uint forks;
static pthread_once_t forks_once = PTHREAD_ONCE_INIT;

static void forked(void)
{
	atomic_fetch_add(&forks, 1);
}

static void watch_forks(void)
{
	if (pthread_atfork(NULL, NULL, forked) != 0)
		die_oom();
}

static void pooled(void *p, size_t n)
{
	static _Thread_local unsigned char pool[512];
	static _Thread_local size_t left;
	static _Thread_local unsigned filled_at;

	pthread_once(&forks_once, watch_forks);
	unsigned now = atomic_load(&forks);

	if (left < n || filled_at != now) {
		random_bytes(pool, sizeof pool);
		left = sizeof pool;
		filled_at = now;
	}
	left -= n;
	memcpy(p, pool + left, n);
	explicit_bzero(pool + left, n);
}

uint64_t random_u64(void)
{
	uint64_t v;

	pooled(&v, sizeof v);
	return v;
}

void random_uuid(char out[37])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char b[16];
	char *p = out;

	pooled(b, sizeof b);
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = hex[b[i] >> 4];
		*p++ = hex[b[i] & 15];
	}
	*p = 0;
}

/* ---- signals ---- */

static void signal_cb(uv_signal_t *h, int signum)
{
	struct loop *l = h->data;

	l->signals[signum]->pending = true;
	waitq_wake_all(&l->sig_q);
}

static struct error *watch_signal(struct loop *l, int signum)
{
	assert(signum > 0 && signum < 65);
	if (l->signals[signum])
		return NULL;
	struct sig *s = xcalloc(1, sizeof *s);

	s->signum = signum;
	uv_signal_init(&l->uv, &s->h);
	s->h.data = l;
	int r = uv_signal_start(&s->h, signal_cb, signum);

	l->signals[signum] = s;
	return r < 0 ? error_sys(r, "signal %d", signum) : NULL;
}

struct error *signal_catch(const int *signals, size_t n)
{
	for (size_t i = 0; i < n; i++)
		TRY(watch_signal(loop_cur, signals[i]));
	return NULL;
}

struct error *signal_wait(const int *signals, size_t n, int *sig)
{
	struct loop *l = loop_cur;

	TRY(signal_catch(signals, n));
	for (;;) {
		for (size_t i = 0; i < n; i++) {
			struct sig *s = l->signals[signals[i]];

			if (s->pending) {
				s->pending = false;
				*sig = s->signum;
				return NULL;
			}
		}
		TRY(waitq_wait(&l->sig_q));
	}
}

static void signal_freed(uv_handle_t *h)
{
	free((char *)h - offsetof(struct sig, h));
}

void signals_close(struct loop *l)
{
	for (int i = 0; i < 65; i++)
		if (l->signals[i])
			uv_close((uv_handle_t *)&l->signals[i]->h, signal_freed);
}

/* ---- the limit of descriptors ---- */

/*
 * The soft limit is low for the sake of programs that use select(2); a server of ten thousand connections needs the hard one, as every Go
 * program takes it. Programs we start are not to notice.
 */
static struct rlimit descriptors_was;
static bool descriptors_raised;
static pthread_once_t descriptors_once = PTHREAD_ONCE_INIT;

static void raise_once(void)
{
	if (getrlimit(RLIMIT_NOFILE, &descriptors_was) < 0 || descriptors_was.rlim_cur == descriptors_was.rlim_max)
		return;
	struct rlimit all = {descriptors_was.rlim_max, descriptors_was.rlim_max};

	if (setrlimit(RLIMIT_NOFILE, &all) < 0)
		log_warn("only %llu descriptors at once: %s", (unsigned long long)descriptors_was.rlim_cur, strerror(errno));
	else
		descriptors_raised = true;
}

void descriptors_raise(void)
{
	pthread_once(&descriptors_once, raise_once);
}

void descriptors_restore(void)
{
	struct rlimit now;

	/* Only what we raised: the child's caller may have set another. */
	if (descriptors_raised && getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == descriptors_was.rlim_max) {
		now.rlim_cur = descriptors_was.rlim_cur;
		setrlimit(RLIMIT_NOFILE, &now);
	}
}
