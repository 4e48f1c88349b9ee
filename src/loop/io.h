/*
 * loop/io.h: byte streams, files and processes for fibers.
 *
 * A `struct stream` is anything one reads from and writes to: TCP, unix
 * sockets, pipes, ptys, and what net/ puts on top (TLS). At most one fiber
 * reads and one writes a stream at a time. All calls suspend the fiber, and
 * end with ECANCELED/ETIMEDOUT as loop/fiber.h says.
 */
#ifndef SKIFF_LOOP_IO_H
#define SKIFF_LOOP_IO_H

#include <sys/socket.h>
#include <sys/uio.h>
#include "loop/fiber.h"
#include "base/buf.h"

struct stream;
struct stream_ops {
	/* At most n bytes into p, at least 1; *got == 0: end of stream. */
	struct error *(*read)(struct stream *s, void *p, size_t n, size_t *got);
	/* All bytes of all vectors, or an error. iov may be modified. */
	struct error *(*writev)(struct stream *s, struct iovec *iov, int n);
	/* Ends our direction (FIN, close_notify); reading goes on. */
	struct error *(*shutdown)(struct stream *s);
	/* Ends both and frees s. Never waits long. */
	void (*close)(struct stream *s);
};
struct stream {
	const struct stream_ops *ops;
};

struct error *stream_read(struct stream *s, void *p, size_t n, size_t *got);
/* Exactly n bytes; sys == EPIPE ("unexpected end of stream") when it ends before. */
struct error *stream_read_full(struct stream *s, void *p, size_t n);
struct error *stream_write(struct stream *s, const void *p, size_t n);
struct error *stream_writev(struct stream *s, struct iovec *iov, int n);
struct error *stream_shutdown(struct stream *s);
void stream_close(struct stream *s); /* NULL is allowed */
/* Both directions until both end or one fails; for port-forward, proxy upgrade. Closes neither. */
struct error *stream_splice(struct stream *a, struct stream *b);

/* Raw fds. fd_stream owns the fd (set to non-blocking, close-on-exec). */
struct stream *fd_stream(int fd);
int stream_fd(struct stream *s); /* of fd_streams only, -1 for others */
/* Of fd_streams: calls fn once, outside fibers (it must not wait), when the peer has ended its direction or the connection
 * broke, also while nobody reads. NULL: no more. Other streams: nothing happens. */
void stream_on_hangup(struct stream *s, void (*fn)(void *arg), void *arg);
/* Suspends until fd is readable / writable (edge cases as poll(2)). At most one reader and one writer wait for an fd.
 * The fd must stay open meanwhile: stop the waiting fiber first, then close. */
struct error *fd_wait_read(int fd);
struct error *fd_wait_write(int fd);

/* Sockets. `addr` is "HOST:PORT", "[V6]:PORT", "unix:/path", or (to connect) "unix:@name" of the abstract namespace. Hosts are IP addresses or names (resolved off-loop). */
struct error *stream_connect(const char *addr, struct stream **out);
/* The address (of AF_INET or AF_INET6, as text) that packets to the outside would carry: the default route's, nothing
 * is sent. False: there is none but loopback. out: INET6_ADDRSTRLEN. */
bool source_address(int family, char *out);
struct listener;
/* backlog 1024; a unix socket path is replaced if nothing listens on it, and made with mode `unix_mode`. */
struct error *listener_open(const char *addr, int unix_mode, struct listener **out);
/* The same on an address that others, opened so, may listen on too (SO_REUSEPORT). */
struct error *listener_open_shared(const char *addr, struct listener **out);
struct error *listener_from_fd(int fd, struct listener **out); /* inherited socket */
struct error *listener_accept(struct listener *l, struct stream **out, struct sockaddr_storage *peer /* or NULL */);
int listener_port(struct listener *l);
/* Another handle on the same socket, for a second thread's loop (call it on that thread or hand it over unused). */
struct error *listener_dup(const struct listener *l, struct listener **out);
void listener_close(struct listener *l);
/*
 * UDP: one datagram at a time. An fd of udp_open is closed with udp_close, never with close(2). Only one that
 * connect(2) tied to a peer learns that nobody is there (ECONNREFUSED, from the peer's ICMP answer to an earlier
 * datagram).
 */
struct error *udp_open(const char *addr, int *fd);
void udp_close(int fd);
struct error *udp_recv(int fd, void *p, size_t cap, size_t *n, struct sockaddr_storage *from, socklen_t *fromlen);
struct error *udp_send(int fd, const void *p, size_t n, const struct sockaddr *to, socklen_t tolen);

/* Files. Small-file calls are synchronous; anything that can be slow (fsync, large) is offloaded to the pool. */
#define FILE_READ_MAX (256u << 20)
/* Whole file, malloc'ed through *out (append). Error keeps sys (ENOENT...). */
struct error *file_read(const char *path, struct buf *out);
/* Write to path.tmp, fsync, rename, fsync the directory. */
struct error *file_write_atomic(const char *path, struct str data, mode_t mode);
struct error *dir_make(const char *path, mode_t mode); /* mkdir -p; existing is fine */
struct error *dir_remove(const char *path);            /* rm -rf, never follows symlinks, never crosses a mount; offloaded */
/* inotify on one directory or file: waits until anything changed in it. */
struct fs_watch;
struct error *fs_watch_open(const char *path, struct fs_watch **out);
struct error *fs_watch_wait(struct fs_watch *w);
void fs_watch_close(struct fs_watch *w);

/* Processes. */
struct proc_opts {
	const char *const *argv;     /* NULL-terminated; argv[0] looked up in PATH when it has no '/' */
	const char *const *env;      /* NULL: inherit */
	const char *cwd;             /* NULL: inherit */
	int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null; else dup'ed into the child; inherit by naming 0, 1, 2 */
	int extra_fds[8];            /* become 3, 4, ... in the child */
	int n_extra_fds;
	bool new_session;            /* setsid */
	int netns_fd;                /* > 0: setns(CLONE_NEWNET) before exec */
	bool die_with_parent;        /* PR_SET_PDEATHSIG SIGKILL */
};
struct proc;
struct error *proc_spawn(const struct proc_opts *o, struct proc **out); /* exec failure is an error here */
pid_t proc_pid(const struct proc *p);
/* Exit status as waitpid(2) gives it. Frees p; when it ends early (ECANCELED, ETIMEDOUT) p is still the caller's. */
struct error *proc_wait(struct proc *p, int *status);
struct error *proc_kill(struct proc *p, int sig);
/* SIGKILL, reaps, frees; for the error paths, and waits even when cancelled. NULL is allowed. */
void proc_destroy(struct proc *p);
/* Runs to the end, captures stdout and stderr (each at most 16 MiB; either may be NULL), feeds `input`.
 * A non-zero exit is an error whose message holds the command and the last line of stderr; *code gets it (or NULL). */
struct error *proc_run(const char *const *argv, struct str input, struct buf *out, struct buf *err, int *code);

#endif
