#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/io.h"

/* Checks on fibers: cmocka's assertions long-jump and must stay on the thread's own stack. */
#define CHECK(c)                                                                                   \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			log_error("%s:%d: %s", __FILE__, __LINE__, #c);                            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)
#define OK(call)                                                                                   \
	do {                                                                                       \
		struct error *ok_e_ = (call);                                                      \
		if (ok_e_) {                                                                       \
			log_error("%s:%d: %s: %s", __FILE__, __LINE__, #call, ok_e_->message);     \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static bool is_sys(struct error *e, int sys)
{
	bool yes = error_is_sys(e, sys);

	error_free(e);
	return yes;
}

static char dir[] = "/tmp/skiff-io-XXXXXX";

static char *in_dir(const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

/* ---- pipes ---- */

#define BIG (1 << 20)

static void write_big(void *arg)
{
	char *p = malloc(BIG);

	for (int i = 0; i < BIG; i++)
		p[i] = (char)(i * 7 >> 3);
	/* In vectors of odd sizes, with empty ones between. */
	struct iovec v[5] = {{p, 1}, {p + 1, 0}, {p + 1, 70000}, {p + 70001, BIG - 70001}, {p + BIG, 0}};

	OK(stream_writev(arg, v, 5));
	OK(stream_shutdown(arg));
	stream_close(arg);
	free(p);
}

static void read_big(struct stream *s)
{
	char chunk[5000];
	size_t n, total = 0;

	for (;;) {
		OK(stream_read(s, chunk, sizeof chunk, &n));
		if (!n)
			break;
		for (size_t i = 0; i < n; i++)
			CHECK(chunk[i] == (char)((int)(total + i) * 7 >> 3));
		total += n;
	}
	CHECK(total == BIG);
}

static void pipe_main(void *arg)
{
	int fd[2];

	CHECK(pipe(fd) == 0);
	struct stream *r = fd_stream(fd[0]);

	fiber_spawn("writer", write_big, fd_stream(fd[1]));
	read_big(r);
	CHECK(is_sys(stream_read_full(r, &fd, 1), EPIPE));
	stream_close(r);
	/* Nobody reads: an error, not a signal. */
	CHECK(pipe(fd) == 0);
	close(fd[0]);
	r = fd_stream(fd[1]);
	CHECK(is_sys(stream_write(r, "x", 1), EPIPE));
	stream_close(r);
	/* A deadline while the pipe is empty; the fd is raw. */
	CHECK(pipe(fd) == 0);
	int64_t d = deadline_push(20);

	CHECK(is_sys(fd_wait_read(fd[0]), ETIMEDOUT));
	deadline_pop(d);
	CHECK(write(fd[1], "x", 1) == 1);
	OK(fd_wait_read(fd[0]));
	OK(fd_wait_write(fd[1]));
	close(fd[0]);
	close(fd[1]);
	/* The numbers are used again for a file, which is always ready. */
	int f = open("/proc/self/exe", O_RDONLY);

	OK(fd_wait_read(f));
	close(f);
}

static void test_pipes(void **state)
{
	assert_ok(loop_run(pipe_main, NULL));
}

/* ---- sockets ---- */

struct echo {
	struct listener *l;
	struct sockaddr_storage peer;
};

static void echo_one(void *arg)
{
	struct stream *s = arg;
	char buf[1000];
	size_t n;

	for (;;) {
		struct error *e = stream_read(s, buf, sizeof buf, &n);

		if (e || !n) {
			error_free(e);
			break;
		}
		OK(stream_write(s, buf, n));
	}
	stream_close(s);
}

static void echo_server(void *arg)
{
	struct echo *e = arg;
	struct stream *s;

	for (;;) {
		struct error *err = listener_accept(e->l, &s, &e->peer);

		if (err) {
			CHECK(error_is_sys(err, ECANCELED));
			error_free(err);
			return;
		}
		fiber_spawn("echo", echo_one, s);
	}
}

static void talk(const char *addr)
{
	struct stream *s;
	char buf[6] = "";

	OK(stream_connect(addr, &s));
	OK(stream_write(s, "hello", 5));
	OK(stream_read_full(s, buf, 5));
	CHECK(strcmp(buf, "hello") == 0);
	OK(stream_shutdown(s));
	CHECK(is_sys(stream_read_full(s, buf, 1), EPIPE));
	stream_close(s);
}

static void talk_fiber(void *arg)
{
	talk(arg);
}

static void serve(const char *addr, const char *connect_as)
{
	struct echo e = {0};

	OK(listener_open(addr, 0600, &e.l));
	struct fiber *f = fiber_start("server", echo_server, &e);
	char *to = listener_port(e.l) ? xasprintf("%s:%d", connect_as, listener_port(e.l)) : xstrdup(connect_as);
	struct fiber *c[100];

	talk(to);
	for (int i = 0; i < 100; i++)
		c[i] = fiber_start("client", talk_fiber, to);
	for (int i = 0; i < 100; i++)
		fiber_join(c[i]);
	fiber_stop(f);
	listener_close(e.l);
	struct stream *s;

	/* Nobody listens any more. */
	struct error *err = stream_connect(to, &s);

	CHECK(err && !s);
	error_free(err);
	free(to);
}

static void splice_fiber(void *arg)
{
	struct stream **ab = arg;

	OK(stream_splice(ab[0], ab[1]));
	stream_close(ab[0]);
	stream_close(ab[1]);
}

static struct stream *pair(struct stream **other)
{
	int fd[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	*other = fd_stream(fd[1]);
	return fd_stream(fd[0]);
}

static void socket_main(void *arg)
{
	char *path = in_dir("sock"), *unix_at = xasprintf("unix:%s", path);
	struct stat st;

	serve("127.0.0.1:0", "127.0.0.1");
	serve("127.0.0.1:0", "localhost");
	serve(":0", "127.0.0.1");
	struct listener *l, *l2;

	OK(listener_open(unix_at, 0660, &l));
	CHECK(stat(path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0660);
	/* Someone listens there already. */
	CHECK(is_sys(listener_open(unix_at, 0660, &l2), EADDRINUSE));
	listener_close(l);
	CHECK(stat(path, &st) < 0);
	/* A dead socket file is replaced; a plain file is not. */
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_storage ss = {.ss_family = AF_UNIX};

	strcpy((char *)&ss + 2, path);
	CHECK(bind(fd, (struct sockaddr *)&ss, sizeof(sa_family_t) + strlen(path) + 1) == 0);
	close(fd);
	CHECK(stat(path, &st) == 0);
	serve(unix_at, unix_at);
	OK(file_write_atomic(path, STR("x"), 0600));
	CHECK(is_sys(listener_open(unix_at, 0660, &l2), EADDRINUSE));
	unlink(path);
	free(path);
	free(unix_at);
	struct stream *s;

	CHECK(is_sys(stream_connect("127.0.0.1", &s), EINVAL));
	CHECK(is_sys(stream_connect("::1:80", &s), EINVAL));
	CHECK(is_sys(stream_connect("1.2.3.4:99999", &s), EINVAL));
	struct error *e = stream_connect("no-such-host.invalid:80", &s);

	CHECK(e && !s);
	error_free(e);
	/* Splice: bytes through two pairs, both ways, and the ends pass through. */
	struct stream *a, *b, *ab[2];
	char buf[8] = "";

	a = pair(&ab[0]);
	b = pair(&ab[1]);
	struct fiber *f = fiber_start("splice", splice_fiber, ab);

	OK(stream_write(a, "ping", 4));
	OK(stream_read_full(b, buf, 4));
	CHECK(memcmp(buf, "ping", 4) == 0);
	OK(stream_shutdown(a));
	CHECK(is_sys(stream_read_full(b, buf, 1), EPIPE));
	OK(stream_write(b, "pong", 4));
	OK(stream_shutdown(b));
	OK(stream_read_full(a, buf, 4));
	CHECK(memcmp(buf, "pong", 4) == 0);
	fiber_join(f);
	stream_close(a);
	stream_close(b);
}

static void test_sockets(void **state)
{
	assert_ok(loop_run(socket_main, NULL));
}

/* A reader and a writer wait on one socket at once, and a stalled writer takes no memory and ends by its deadline. */
struct both {
	struct stream *s;
	bool read_done, write_done;
};

static void both_reader(void *arg)
{
	struct both *b = arg;
	char c;

	OK(stream_read_full(b->s, &c, 1));
	CHECK(c == 'r');
	b->read_done = true;
}

static void both_writer(void *arg)
{
	struct both *b = arg;
	char *p = calloc(1, BIG);
	int64_t d = deadline_push(60);

	CHECK(is_sys(stream_write(b->s, p, BIG), ETIMEDOUT));
	deadline_pop(d);
	b->write_done = true;
	free(p);
}

static void both_main(void *arg)
{
	struct both b = {0};
	struct stream *other;

	b.s = pair(&other);
	struct fiber *r = fiber_start("r", both_reader, &b), *w = fiber_start("w", both_writer, &b);

	OK(fiber_sleep(10));
	CHECK(!b.read_done && !b.write_done);
	OK(stream_write(other, "r", 1));
	fiber_join(r);
	CHECK(!b.write_done);
	fiber_join(w);
	stream_close(b.s);
	stream_close(other);
}

static void test_reader_and_writer(void **state)
{
	assert_ok(loop_run(both_main, NULL));
}

static void udp_main(void *arg)
{
	int a, b;
	char buf[64];
	size_t n;
	struct sockaddr_storage from;
	socklen_t fl, tl = sizeof from;

	OK(udp_open("127.0.0.1:0", &a));
	OK(udp_open("127.0.0.1:0", &b));
	int64_t d = deadline_push(10);

	CHECK(is_sys(udp_recv(a, buf, sizeof buf, &n, &from, &fl), ETIMEDOUT));
	deadline_pop(d);
	CHECK(getsockname(a, (struct sockaddr *)&from, &tl) == 0);
	OK(udp_send(b, "dns", 3, (struct sockaddr *)&from, tl));
	OK(udp_recv(a, buf, sizeof buf, &n, &from, &fl));
	CHECK(n == 3 && memcmp(buf, "dns", 3) == 0 && from.ss_family == AF_INET);
	OK(udp_send(a, "", 0, (struct sockaddr *)&from, fl));
	OK(udp_recv(b, buf, sizeof buf, &n, &from, &fl));
	CHECK(n == 0);
	/* Nobody listens any more: who is connected hears of it and need not wait. */
	CHECK(getsockname(a, (struct sockaddr *)&from, &tl) == 0);
	CHECK(connect(b, (struct sockaddr *)&from, tl) == 0);
	udp_close(a);
	CHECK(send(b, "x", 1, 0) == 1);
	CHECK(is_sys(udp_recv(b, buf, sizeof buf, &n, &from, &fl), ECONNREFUSED));
	udp_close(b);
}

static void test_udp(void **state)
{
	assert_ok(loop_run(udp_main, NULL));
}

/* ---- files ---- */

static void file_main(void *arg)
{
	char *p = in_dir("sub/deeper/file"), *d = in_dir("sub/deeper"), *tmp = xasprintf("%s.tmp", p), *top = in_dir("sub");
	buf_cleanup struct buf b = {0};
	struct stat st;

	CHECK(is_sys(file_read(p, &b), ENOENT));
	CHECK(is_sys(file_write_atomic(p, STR("x"), 0600), ENOENT));
	OK(dir_make(d, 0700));
	OK(dir_make(d, 0700));
	OK(file_write_atomic(p, STR("first"), 0600));
	/* What a crash or an attacker left is not written through. */
	CHECK(symlink("/etc/passwd", tmp) == 0);
	OK(file_write_atomic(p, STR("second"), 0644));
	CHECK(stat(p, &st) == 0 && (st.st_mode & 0777) == 0644);
	CHECK(lstat(tmp, &st) < 0 && errno == ENOENT);
	buf_puts(&b, "> ");
	OK(file_read(p, &b));
	CHECK(str_eqz(buf_view(&b), "> second"));
	buf_free(&b);
	OK(file_read("/proc/self/status", &b));
	CHECK(b.n > 100);
	CHECK(is_sys(file_read("/", &b), EISDIR));
	CHECK(is_sys(dir_make("/proc/self/status/x", 0700), ENOTDIR));
	char *big = calloc(1, 3 << 20);

	OK(file_write_atomic(p, str_of(big, 3 << 20), 0600));
	buf_free(&b);
	OK(file_read(p, &b));
	CHECK(b.n == 3 << 20);
	free(big);
	OK(dir_remove(top));
	CHECK(stat(top, &st) < 0);
	OK(dir_remove(top)); /* gone already is fine */
	free(p);
	free(d);
	free(tmp);
	free(top);
}

static void remove_main(void *arg)
{
	char *top = in_dir("tree"), *keep = in_dir("keep"), *kept = in_dir("keep/me"), *link = in_dir("tree/link");
	struct stat st;

	OK(dir_make(keep, 0700));
	OK(file_write_atomic(kept, STR("x"), 0600));
	OK(dir_make(top, 0700));
	CHECK(symlink(keep, link) == 0);
	/* Deeper than descriptors allow, and a directory without permissions. */
	int at = open(top, O_RDONLY | O_DIRECTORY);

	for (int i = 0; i < 700; i++) {
		CHECK(mkdirat(at, "d", 0700) == 0);
		int next = openat(at, "d", O_RDONLY | O_DIRECTORY);

		CHECK(next >= 0);
		close(at);
		at = next;
	}
	close(at);
	char *closed = in_dir("tree/closed/inner");

	OK(dir_make(closed, 0700));
	*strrchr(closed, '/') = 0;
	CHECK(chmod(closed, 0) == 0);
	OK(dir_remove(top));
	CHECK(stat(top, &st) < 0);
	CHECK(stat(kept, &st) == 0);
	/* A mount inside stays and is an error; only root can try. */
	char *m = in_dir("mnt/inner");

	OK(dir_make(m, 0700));
	if (mount(keep, m, NULL, MS_BIND, NULL) == 0) {
		char *mtop = in_dir("mnt");

		CHECK(is_sys(dir_remove(mtop), EBUSY));
		CHECK(stat(kept, &st) == 0);
		CHECK(umount(m) == 0);
		OK(dir_remove(mtop));
		free(mtop);
	}
	/* A plain file and a symlink to a directory are removed themselves. */
	CHECK(symlink(keep, top) == 0);
	OK(dir_remove(top));
	CHECK(stat(kept, &st) == 0);
	OK(dir_remove(kept));
	CHECK(stat(kept, &st) < 0);
	free(top);
	free(keep);
	free(kept);
	free(link);
	free(closed);
	free(m);
}

static void write_later(void *arg)
{
	OK(fiber_sleep(10));
	OK(file_write_atomic(arg, STR("changed"), 0600));
}

static void watch_main(void *arg)
{
	char *f = in_dir("watched");
	struct fs_watch *w;

	OK(fs_watch_open(dir, &w));
	int64_t d = deadline_push(20);

	CHECK(is_sys(fs_watch_wait(w), ETIMEDOUT));
	deadline_pop(d);
	struct fiber *x = fiber_start("writer", write_later, f);

	OK(fs_watch_wait(w));
	fiber_join(x);
	fs_watch_close(w);
	CHECK(is_sys(fs_watch_open("/no/such", &w), ENOENT));
	free(f);
}

static void test_files(void **state)
{
	assert_ok(loop_run(file_main, NULL));
	assert_ok(loop_run(remove_main, NULL));
	assert_ok(loop_run(watch_main, NULL));
}

static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	struct error *e = dir_remove(dir);

	log_and_free(e, "teardown");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pipes),
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_reader_and_writer),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
