#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/internal.h"

#define BACKLOG 1024
#define ADDRS_MAX 16 /* of one name, tried in turn */

union addr {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
	struct sockaddr_storage ss;
};

struct addrs {
	union addr v[ADDRS_MAX];
	socklen_t len[ADDRS_MAX];
	int n;
};

static struct error *unix_addr(const char *path, union addr *a, socklen_t *len)
{
	size_t n = strlen(path);

	memset(a, 0, sizeof *a);
	a->un.sun_family = AF_UNIX;
	if (n == 0 || n >= sizeof a->un.sun_path)
		return error_sys(n ? ENAMETOOLONG : EINVAL, "unix socket \"%s\"", path);
	memcpy(a->un.sun_path, path, n + 1);
	*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	if (*path == '@') { /* the abstract namespace: no NUL behind the name */
		a->un.sun_path[0] = 0;
		--*len;
	}
	return NULL;
}

/* "HOST:PORT" or "[V6]:PORT"; host is empty for ":PORT". */
static struct error *split(const char *addr, char host[256], char port[8])
{
	const char *colon = strrchr(addr, ':'), *h = addr, *end = colon;
	int64_t n;

	if (!colon || !str_to_i64(str_from(colon + 1), &n) || n < 0 || n > 65535)
		return error_sys(EINVAL, "address \"%s\" is not HOST:PORT", addr);
	if (*h == '[') {
		h++;
		end--;
		if (end < h || *end != ']')
			return error_sys(EINVAL, "address \"%s\" is not [HOST]:PORT", addr);
	} else if (memchr(h, ':', (size_t)(end - h))) {
		return error_sys(EINVAL, "address \"%s\": write an IPv6 address as [ADDRESS]:PORT", addr);
	}
	if (end - h >= 256)
		return error_sys(ENAMETOOLONG, "address \"%s\"", addr);
	memcpy(host, h, (size_t)(end - h));
	host[end - h] = 0;
	snprintf(port, 8, "%d", (int)n);
	return NULL;
}

static void addrs_take(struct addrs *out, const struct addrinfo *ai)
{
	for (out->n = 0; ai && out->n < ADDRS_MAX; ai = ai->ai_next) {
		if (ai->ai_addrlen > sizeof out->v[0])
			continue;
		memset(&out->v[out->n], 0, sizeof out->v[0]);
		memcpy(&out->v[out->n], ai->ai_addr, ai->ai_addrlen);
		out->len[out->n++] = ai->ai_addrlen;
	}
}

/* Lives until both the pool and the fiber are done with it: a cancelled fiber does not wait for a slow name server. */
struct lookup {
	uv_getaddrinfo_t req;
	struct fiber *f; /* NULL: nobody waits any more */
	struct addrs *out;
	int status;
	bool done;
};

static void lookup_done(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
	struct lookup *k = req->data;

	if (k->f) {
		k->status = status;
		k->done = true;
		if (status == 0)
			addrs_take(k->out, res);
		fiber_wake(k->f, 0);
	} else {
		free(k);
	}
	uv_freeaddrinfo(res);
}

static struct error *resolve(const char *addr, int socktype, bool passive, struct addrs *out)
{
	char host[256], port[8];
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = socktype}, *ai;

	TRY(split(addr, host, port));
	if (!host[0] && !passive)
		strcpy(host, "localhost");
	hints.ai_flags = AI_NUMERICSERV | AI_NUMERICHOST | (passive ? AI_PASSIVE : 0);
	int r = getaddrinfo(host[0] ? host : NULL, port, &hints, &ai);

	if (r == 0) {
		addrs_take(out, ai);
		freeaddrinfo(ai);
		return NULL;
	}
	int why = fiber_must_stop();

	if (why)
		return fiber_stop_error(why);
	struct lookup *k = xcalloc(1, sizeof *k);

	k->req.data = k;
	k->f = loop_cur->cur;
	k->out = out;
	hints.ai_flags &= ~AI_NUMERICHOST;
	r = uv_getaddrinfo(&loop_cur->uv, &k->req, lookup_done, host, port, &hints);
	if (r < 0) {
		free(k);
		return error_sys(r, "look up %s", host);
	}
	do
		why = fiber_park(k->f->deadline, false);
	while (!why && !k->done);
	if (!k->done) {
		k->f = NULL;
		uv_cancel((uv_req_t *)&k->req);
		return fiber_stop_error(why);
	}
	int status = k->status;

	free(k);
	if (status < 0)
		return error_new("look up %s: %s", host, uv_strerror(status));
	if (!out->n)
		return error_sys(EADDRNOTAVAIL, "look up %s", host);
	return NULL;
}

static void tune(int fd, int family)
{
	int one = 1, idle = 15, every = 15, times = 9;

	/* Failure costs speed, nothing else. */
	if (family != AF_INET && family != AF_INET6)
		return;
	/* Answers are written whole; waiting for more to send only adds delay. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	/* A peer that vanished without a word is found out in two and a half minutes, as in Go. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
}

static struct error *connect_one(const union addr *a, socklen_t len, struct stream **out)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return error_sys(errno, "socket");
	tune(fd, a->sa.sa_family);
	fd_adopt(fd);
	/* A full backlog of a unix socket answers EAGAIN, which no poll ends. */
	for (int tries = 0; connect(fd, &a->sa, len) < 0;) {
		struct error *e = NULL;
		socklen_t el = sizeof err;

		if (errno == EINPROGRESS) {
			e = fd_wait(fd, UV_WRITABLE, true);
			if (!e && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &el) < 0)
				err = errno;
			if (!e && !err)
				break;
		} else if (errno == EAGAIN && a->sa.sa_family == AF_UNIX && ++tries < 100) {
			e = fiber_sleep(10);
			if (!e)
				continue;
		} else if (errno == EINTR) {
			continue;
		} else {
			err = errno;
		}
		fd_forget(fd);
		close(fd);
		return e ? e : error_sys(err, "connect");
	}
	*out = fd_stream(fd);
	return NULL;
}

struct error *stream_connect(const char *addr, struct stream **out)
{
	struct error *e = fiber_check();

	*out = NULL;
	if (e)
		return e;
	if (strncmp(addr, "unix:", 5) == 0) {
		union addr a;
		socklen_t len;

		TRY(unix_addr(addr + 5, &a, &len));
		return error_wrap(connect_one(&a, len, out), "%s", addr);
	}
	struct addrs *as = xcalloc(1, sizeof *as);

	e = resolve(addr, SOCK_STREAM, false, as);
	for (int i = 0; i < as->n && (i == 0 || e); i++) {
		/* A fiber that must stop tries no further address. */
		if (e && (error_is_sys(e, ECANCELED) || error_is_sys(e, ETIMEDOUT)) && fiber_must_stop())
			break;
		error_free(e);
		e = connect_one(&as->v[i], as->len[i], out);
	}
	free(as);
	return error_wrap(e, "%s", addr);
}

/* ---- listeners ---- */

struct listener {
	int fd;
	char *path; /* of a unix socket we made: removed at the end */
	dev_t dev;
	ino_t ino;
};

static struct error *bind_unix(int fd, const char *path, int mode, struct listener *l)
{
	union addr a;
	socklen_t len;
	struct stat st;

	TRY(unix_addr(path, &a, &len));
	/* Linux gives the socket file the mode of the socket, less umask: never a moment too open. */
	fchmod(fd, (mode_t)mode);
	if (bind(fd, &a.sa, len) < 0) {
		if (errno != EADDRINUSE)
			return error_sys(errno, "unix socket %s", path);
		if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
			return error_sys(EADDRINUSE, "%s exists and is not a socket", path);
		int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		int r = probe < 0 ? -1 : connect(probe, &a.sa, len), err = errno;

		if (probe >= 0)
			close(probe);
		if (r == 0 || err != ECONNREFUSED)
			return error_sys(EADDRINUSE, "unix socket %s", path);
		if (unlink(path) < 0 || bind(fd, &a.sa, len) < 0)
			return error_sys(errno, "unix socket %s", path);
	}
	if (chmod(path, (mode_t)mode) < 0)
		return error_sys(errno, "mode of %s", path);
	if (lstat(path, &st) == 0) {
		l->path = xstrdup(path);
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	return NULL;
}

bool source_address(int family, char *out)
{
	struct sockaddr_storage to = {0}, me;
	socklen_t n = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok = false;

	if (fd < 0)
		return false;
	to.ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		struct sockaddr_in *s = (void *)&to;

		s->sin_port = htons(53);
		inet_pton(AF_INET, "192.0.2.1", &s->sin_addr);
	} else {
		struct sockaddr_in6 *s = (void *)&to;

		s->sin6_port = htons(53);
		inet_pton(AF_INET6, "2001:db8::1", &s->sin6_addr);
	}
	if (connect(fd, (void *)&to, n) == 0 && (n = sizeof me, getsockname(fd, (void *)&me, &n) == 0)) {
		const void *a = family == AF_INET ? (void *)&((struct sockaddr_in *)(void *)&me)->sin_addr
						  : (void *)&((struct sockaddr_in6 *)(void *)&me)->sin6_addr;

		ok = inet_ntop(family, a, out, INET6_ADDRSTRLEN) != NULL && strcmp(out, "0.0.0.0") != 0 &&
		     strncmp(out, "127.", 4) != 0;
	}
	close(fd);
	return ok;
}

static struct error *bind_inet(const union addr *a, socklen_t len, int type, bool shared, int *out)
{
	int fd = socket(a->sa.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, zero = 0;

	if (fd < 0)
		return error_sys(errno, "socket");
	if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (shared)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
	/* [::] serves IPv4 too. */
	if (a->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	if (bind(fd, &a->sa, len) < 0) {
		int err = errno;

		close(fd);
		return error_sys(err, "bind");
	}
	fd_adopt(fd);
	*out = fd;
	return NULL;
}

/* The address to bind: for ":PORT" all of both families where the kernel has IPv6. */
static struct error *open_inet(const char *addr, int type, bool shared, int *fd)
{
	struct addrs *as = xcalloc(1, sizeof *as);
	struct error *e = resolve(addr, type, true, as);

	for (int want6 = 1; !e && want6 >= 0; want6--) {
		for (int i = 0; i < as->n; i++) {
			if ((as->v[i].sa.sa_family == AF_INET6) != want6)
				continue;
			error_clear(&e);
			e = bind_inet(&as->v[i], as->len[i], type, shared, fd);
			if (!e) {
				free(as);
				return NULL;
			}
		}
		if (e && want6)
			for (int i = 0; i < as->n; i++)
				if (as->v[i].sa.sa_family != AF_INET6) {
					error_clear(&e); /* no IPv6 here: IPv4 it is */
					break;
				}
	}
	free(as);
	return error_wrap(e ? e : error_sys(EADDRNOTAVAIL, "bind"), "%s", addr);
}

static struct error *listener_fill(const char *addr, int mode, bool shared, struct listener *l)
{
	if (strncmp(addr, "unix:", 5) == 0) {
		l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (l->fd < 0)
			return error_sys(errno, "socket");
		fd_adopt(l->fd);
		TRY(bind_unix(l->fd, addr + 5, mode, l));
	} else {
		TRY(open_inet(addr, SOCK_STREAM, shared, &l->fd));
	}
	return listen(l->fd, BACKLOG) < 0 ? error_sys(errno, "listen on %s", addr) : NULL;
}

static struct error *open_listener(const char *addr, int unix_mode, bool shared, struct listener **out)
{
	struct listener *l = xcalloc(1, sizeof *l);

	l->fd = -1;
	*out = NULL;
	struct error *e = listener_fill(addr, unix_mode, shared, l);

	if (e) {
		listener_close(l);
		return e;
	}
	*out = l;
	return NULL;
}

struct error *listener_open(const char *addr, int unix_mode, struct listener **out)
{
	return open_listener(addr, unix_mode, false, out);
}

struct error *listener_open_shared(const char *addr, struct listener **out)
{
	return open_listener(addr, 0, true, out);
}

struct error *listener_from_fd(int fd, struct listener **out)
{
	int accepts = 0;
	socklen_t n = sizeof accepts;

	*out = NULL;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &n) < 0)
		return error_sys(errno, "descriptor %d", fd);
	if (!accepts)
		return error_sys(EINVAL, "descriptor %d does not listen", fd);
	TRY(set_nonblock(fd));
	struct listener *l = xcalloc(1, sizeof *l);

	l->fd = fd;
	fd_adopt(fd);
	*out = l;
	return NULL;
}

struct error *listener_dup(const struct listener *l, struct listener **out)
{
	int fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 3);

	*out = NULL;
	if (fd < 0)
		return error_sys(errno, "listener");
	struct error *e = listener_from_fd(fd, out);

	if (e)
		close(fd);
	return e;
}

struct error *listener_accept(struct listener *l, struct stream **out, struct sockaddr_storage *peer)
{
	*out = NULL;
	for (;;) {
		struct sockaddr_storage ss = {0};
		socklen_t n = sizeof ss;

		TRY(fiber_io_point());
		int fd = accept4(l->fd, (struct sockaddr *)&ss, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			tune(fd, ss.ss_family);
			if (peer)
				*peer = ss;
			*out = fd_stream(fd);
			return NULL;
		}
		switch (errno) {
		case EAGAIN:
			TRY(fd_wait(l->fd, UV_READABLE, true));
			break;
		case EINTR:
		case ECONNABORTED:
		case EPROTO:
		case ENETDOWN:
		case EHOSTDOWN:
		case EHOSTUNREACH:
		case ENETUNREACH:
			break; /* that connection's trouble, not ours */
		default:
			return error_sys(errno, "accept");
		}
	}
}

int listener_port(struct listener *l)
{
	union addr a;
	socklen_t n = sizeof a;

	if (getsockname(l->fd, &a.sa, &n) < 0)
		return 0;
	return a.sa.sa_family == AF_INET ? ntohs(a.in.sin_port) : a.sa.sa_family == AF_INET6 ? ntohs(a.in6.sin6_port) : 0;
}

void listener_close(struct listener *l)
{
	struct stat st;

	if (!l)
		return;
	if (l->fd >= 0) {
		fd_forget(l->fd);
		close(l->fd);
	}
	/* Only if nobody has replaced it meanwhile. */
	if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
	free(l->path);
	free(l);
}

/* ---- UDP ---- */

struct error *udp_open(const char *addr, int *fd)
{
	return open_inet(addr, SOCK_DGRAM, false, fd);
}

void udp_close(int fd)
{
	if (fd < 0)
		return;
	fd_forget(fd);
	close(fd);
}

struct error *udp_recv(int fd, void *p, size_t cap, size_t *n, struct sockaddr_storage *from, socklen_t *fromlen)
{
	*n = 0;
	for (;;) {
		TRY(fiber_io_point());
		*fromlen = sizeof *from;
		ssize_t r = recvfrom(fd, p, cap, 0, (struct sockaddr *)from, fromlen);

		if (r >= 0) {
			*n = (size_t)r;
			return NULL;
		}
		if (errno == EAGAIN)
			TRY(fd_wait(fd, UV_READABLE, true));
		else if (errno != EINTR)
			return error_sys(errno, "receive");
	}
}

struct error *udp_send(int fd, const void *p, size_t n, const struct sockaddr *to, socklen_t tolen)
{
	for (;;) {
		TRY(fiber_io_point());
		if (sendto(fd, p, n, 0, to, tolen) >= 0)
			return NULL;
		if (errno == EAGAIN)
			TRY(fd_wait(fd, UV_WRITABLE, true));
		else if (errno != EINTR && errno != ECONNREFUSED)
			return error_sys(errno, "send");
	}
}
