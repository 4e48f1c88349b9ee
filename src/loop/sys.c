#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
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

uint64_t random_u64(void)
{
	uint64_t v;

	random_bytes(&v, sizeof v);
	return v;
}

void random_uuid(char out[37])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char b[16];
	char *p = out;

	random_bytes(b, sizeof b);
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

struct error *signal_wait(const int *signals, size_t n, int *sig)
{
	struct loop *l = loop_cur;

	for (size_t i = 0; i < n; i++)
		TRY(watch_signal(l, signals[i]));
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
