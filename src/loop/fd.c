#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/internal.h"

#define SPLICE_BUF 32768

struct error *set_nonblock(int fd)
{
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0 || (!(fl & O_NONBLOCK) && fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0))
		return error_sys(errno, "non-blocking mode");
	int fdfl = fcntl(fd, F_GETFD);

	if (fdfl < 0 || (!(fdfl & FD_CLOEXEC) && fcntl(fd, F_SETFD, fdfl | FD_CLOEXEC) < 0))
		return error_sys(errno, "close-on-exec");
	return NULL;
}

/*
 * Registration with libuv is lazy in both directions: a wait that ends leaves
 * it as it is, and an event nobody waits for takes it away. A connection that
 * is read again and again thus costs no epoll_ctl at all.
 */
static void slot_cb(uv_poll_t *h, int status, int events)
{
	struct fd_slot *s = h->data;

	if (status < 0) {
		/* libuv has stopped watching; the next syscall says what is wrong. */
		s->started = 0;
		events = UV_READABLE | UV_WRITABLE | UV_DISCONNECT;
	}
	int keep = s->started;

	if (events & UV_READABLE) {
		if (s->rd)
			fiber_wake(s->rd, 0);
		else
			keep &= ~UV_READABLE;
	}
	if (events & UV_WRITABLE) {
		if (s->wr)
			fiber_wake(s->wr, 0);
		/* Writability is rarely asked for twice in a row. */
		keep &= ~UV_WRITABLE;
	}
	if (events & UV_DISCONNECT) {
		void (*hup)(void *arg) = s->hup;

		keep &= ~UV_DISCONNECT;
		s->hup = NULL;
		if (hup)
			hup(s->hup_arg);
	}
	if (keep == s->started)
		return;
	s->started = keep;
	if (!keep || uv_poll_start(h, keep, slot_cb) < 0)
		uv_poll_stop(h);
}

static void slot_freed(uv_handle_t *h)
{
	free(h->data);
}

static void slot_drop(struct loop *l, struct fd_slot *s)
{
	assert(!s->rd && !s->wr);
	l->fds[s->fd] = NULL;
	uv_poll_stop(&s->poll);
	uv_close((uv_handle_t *)&s->poll, slot_freed);
}

static struct error *slot_get(struct loop *l, int fd, bool owned, struct fd_slot **out)
{
	assert(fd >= 0);
	if ((size_t)fd >= l->fds_cap) {
		size_t cap = l->fds_cap ? l->fds_cap : 64;

		while (cap <= (size_t)fd)
			cap *= 2;
		l->fds = xrealloc(l->fds, cap * sizeof(struct fd_slot *));
		memset(l->fds + l->fds_cap, 0, (cap - l->fds_cap) * sizeof(struct fd_slot *));
		l->fds_cap = cap;
	}
	struct fd_slot *s = l->fds[fd];

	if (!s) {
		s = xcalloc(1, sizeof *s);
		s->fd = fd;
		s->owned = owned;
		int r = uv_poll_init(&l->uv, &s->poll, fd);

		if (r < 0) {
			free(s);
			return error_sys(r, "wait for descriptor %d", fd);
		}
		s->poll.data = s;
		l->fds[fd] = s;
	}
	*out = s;
	return NULL;
}

struct error *fd_wait(int fd, int event, bool owned)
{
	struct loop *l = loop_cur;
	int why = fiber_must_stop();
	struct fd_slot *s = NULL;

	if (why)
		return fiber_stop_error(why);
	struct error *e = slot_get(l, fd, owned, &s);

	if (error_is_sys(e, EPERM)) {
		/* Regular files are always ready. */
		error_free(e);
		return NULL;
	}
	if (e)
		return e;
	struct fiber **who = event == UV_READABLE ? &s->rd : &s->wr;

	assert(!*who && "one reader and one writer an fd");
	*who = l->cur;
	if (!(s->started & event)) {
		int r = uv_poll_start(&s->poll, s->started | event, slot_cb);

		if (r < 0) {
			*who = NULL;
			return error_sys(r, "wait for descriptor %d", fd);
		}
		s->started |= event;
	}
	why = fiber_park(l->cur->deadline, false);
	*who = NULL;
	/* The caller may close a raw fd without telling us: leave nothing behind. */
	if (!s->owned && !s->rd && !s->wr)
		slot_drop(l, s);
	return fiber_stop_error(why);
}

void fd_adopt(int fd)
{
	struct loop *l = loop_cur;

	if (l && (size_t)fd < l->fds_cap && l->fds[fd])
		slot_drop(l, l->fds[fd]);
}

void fd_forget(int fd)
{
	fd_adopt(fd);
}

void fd_slots_close(struct loop *l)
{
	for (size_t i = 0; i < l->fds_cap; i++)
		if (l->fds[i])
			slot_drop(l, l->fds[i]);
	free(l->fds);
	l->fds = NULL;
	l->fds_cap = 0;
}

struct error *fd_wait_read(int fd)
{
	return fd_wait(fd, UV_READABLE, false);
}

struct error *fd_wait_write(int fd)
{
	return fd_wait(fd, UV_WRITABLE, false);
}

/* ---- streams ---- */

struct error *stream_read(struct stream *s, void *p, size_t n, size_t *got)
{
	*got = 0;
	return s->ops->read(s, p, n, got);
}

struct error *stream_read_full(struct stream *s, void *p, size_t n)
{
	for (size_t have = 0, got; have < n; have += got) {
		TRY(stream_read(s, (char *)p + have, n - have, &got));
		if (!got)
			return error_sys(EPIPE, "unexpected end of stream");
	}
	return NULL;
}

struct error *stream_write(struct stream *s, const void *p, size_t n)
{
	struct iovec v = {(void *)(uintptr_t)p, n};

	return n ? s->ops->writev(s, &v, 1) : NULL;
}

struct error *stream_writev(struct stream *s, struct iovec *iov, int n)
{
	return s->ops->writev(s, iov, n);
}

struct error *stream_shutdown(struct stream *s)
{
	return s->ops->shutdown(s);
}

void stream_close(struct stream *s)
{
	if (s)
		s->ops->close(s);
}

struct half {
	struct stream *from, *to;
	struct error *e;
	struct fiber *other;
	struct waitq *q;
	bool ended;
};

static struct error *pump(struct half *h)
{
	char *buf = xmalloc(SPLICE_BUF);
	struct error *e;
	size_t n;

	while (!(e = stream_read(h->from, buf, SPLICE_BUF, &n)) && n)
		if ((e = stream_write(h->to, buf, n)))
			break;
	free(buf);
	return e ? e : stream_shutdown(h->to);
}

static void pump_fiber(void *arg)
{
	struct half *h = arg;

	h->e = pump(h);
	h->ended = true;
	/* A failure ends the other direction too. */
	if (h->e && h->other)
		fiber_cancel(h->other);
	waitq_wake_all(h->q);
}

struct error *stream_splice(struct stream *a, struct stream *b)
{
	struct waitq q = {0};
	struct half ab = {.from = a, .to = b, .q = &q}, ba = {.from = b, .to = a, .q = &q};
	struct fiber *fa = fiber_start("splice", pump_fiber, &ab), *fb = fiber_start("splice", pump_fiber, &ba);
	struct error *e = NULL;

	ab.other = fb;
	ba.other = fa;
	while (!e && !(ab.ended && ba.ended))
		e = waitq_wait(&q);
	fiber_cancel(fb);
	fiber_stop(fa);
	ba.other = NULL;
	fiber_stop(fb);
	if (!e) {
		/* The cause, not the cancellation it led to. */
		struct error **cause = !ab.e || error_is_sys(ab.e, ECANCELED) ? &ba.e : &ab.e;

		if (!*cause)
			cause = &ab.e;
		e = *cause;
		*cause = NULL;
	}
	error_free(ab.e);
	error_free(ba.e);
	return e;
}

/* ---- streams over descriptors ---- */

struct fd_str {
	struct stream s;
	int fd;
	bool drained; /* the last read got all there was: the next one had better wait first */
};

static struct error *fds_read(struct stream *s, void *p, size_t n, size_t *got)
{
	struct fd_str *f = (struct fd_str *)s;
	int fd = f->fd;

	if (fd < 0)
		return error_sys(EBADF, "read");
	for (;;) {
		TRY(fiber_io_point());
		if (f->drained) {
			f->drained = false;
			TRY(fd_wait(fd, UV_READABLE, true));
		}
		ssize_t r = read(fd, p, n);

		if (r >= 0) {
			f->drained = r > 0 && (size_t)r < n;
			*got = (size_t)r;
			return NULL;
		}
		if (errno == EAGAIN)
			TRY(fd_wait(fd, UV_READABLE, true));
		else if (errno == EIO)
			return NULL; /* a pty whose other side has gone: its end of stream */
		else if (errno != EINTR)
			return error_sys(errno, "read");
	}
}

static struct error *fds_writev(struct stream *s, struct iovec *iov, int n)
{
	int fd = ((struct fd_str *)s)->fd;

	if (fd < 0)
		return error_sys(EPIPE, "write");
	for (;;) {
		for (; n && !iov->iov_len; iov++)
			n--;
		if (!n)
			return NULL;
		TRY(fiber_io_point());
		ssize_t w = n == 1 ? write(fd, iov->iov_base, iov->iov_len) : writev(fd, iov, n < 1024 ? n : 1024);

		if (w < 0) {
			if (errno == EAGAIN)
				TRY(fd_wait(fd, UV_WRITABLE, true));
			else if (errno != EINTR)
				return error_sys(errno, "write");
			continue;
		}
		for (size_t left = (size_t)w; left;) {
			size_t k = left < iov->iov_len ? left : iov->iov_len;

			iov->iov_base = (char *)iov->iov_base + k;
			iov->iov_len -= k;
			left -= k;
			if (!iov->iov_len && left) {
				iov++;
				n--;
			}
		}
	}
}

static struct error *fds_shutdown(struct stream *s)
{
	struct fd_str *f = (struct fd_str *)s;
	struct stat st;

	if (f->fd < 0)
		return NULL;
	if (shutdown(f->fd, SHUT_WR) == 0 || errno == ENOTCONN)
		return NULL;
	if (errno != ENOTSOCK)
		return error_sys(errno, "shutdown");
	/* A pipe ends when its writing end is closed; a terminal has no such end. */
	if (fstat(f->fd, &st) == 0 && S_ISFIFO(st.st_mode)) {
		fd_forget(f->fd);
		close(f->fd);
		f->fd = -1;
	}
	return NULL;
}

static void fds_close(struct stream *s)
{
	struct fd_str *f = (struct fd_str *)s;

	if (f->fd >= 0) {
		fd_forget(f->fd);
		close(f->fd);
	}
	free(f);
}

static const struct stream_ops fd_ops = {fds_read, fds_writev, fds_shutdown, fds_close};

struct stream *fd_stream(int fd)
{
	struct fd_str *f = xmalloc(sizeof *f);
	struct error *e = set_nonblock(fd);

	if (e)
		log_and_free(e, "descriptor %d", fd); /* an invalid fd: its first read or write tells */
	fd_adopt(fd);
	*f = (struct fd_str){.s.ops = &fd_ops, .fd = fd};
	return &f->s;
}

void stream_on_hangup(struct stream *s, void (*fn)(void *arg), void *arg)
{
	struct fd_slot *slot;
	int fd = stream_fd(s);

	if (fd < 0)
		return;
	if (!fn) {
		if ((size_t)fd < loop_cur->fds_cap && loop_cur->fds[fd])
			loop_cur->fds[fd]->hup = NULL;
		return;
	}
	struct error *e = slot_get(loop_cur, fd, true, &slot);

	if (e) {
		error_free(e); /* not a descriptor that hangs up */
		return;
	}
	slot->hup = fn;
	slot->hup_arg = arg;
	if (!(slot->started & UV_DISCONNECT)) {
		/* A connection is about to be read in any case. */
		int want = slot->started | UV_READABLE | UV_DISCONNECT;

		if (uv_poll_start(&slot->poll, want, slot_cb) == 0)
			slot->started = want;
	}
}

int stream_fd(struct stream *s)
{
	return s->ops == &fd_ops ? ((struct fd_str *)s)->fd : -1;
}
