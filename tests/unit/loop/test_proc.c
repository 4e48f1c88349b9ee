#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/io.h"

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
#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

static bool is_sys(struct error *e, int sys)
{
	bool yes = error_is_sys(e, sys);

	error_free(e);
	return yes;
}

static void run_main(void *arg)
{
	buf_cleanup struct buf out = {0}, err = {0};
	int code = -1;

	OK(proc_run(ARGV("sh", "-c", "echo out; echo err >&2"), STR_NULL, &out, &err, &code));
	CHECK(code == 0 && str_eqz(buf_view(&out), "out\n") && str_eqz(buf_view(&err), "err\n"));
	buf_free(&out);
	/* More than the pipes hold, both ways at once. */
	char *big = malloc(1 << 20);

	memset(big, 'x', 1 << 20);
	OK(proc_run(ARGV("cat"), str_of(big, 1 << 20), &out, NULL, NULL));
	CHECK(out.n == 1 << 20 && memcmp(out.p, big, out.n) == 0);
	/* A program that does not read what it gets. */
	OK(proc_run(ARGV("true"), str_of(big, 1 << 20), NULL, NULL, NULL));
	free(big);
	struct error *e = proc_run(ARGV("sh", "-c", "echo first >&2; echo last words >&2; exit 7"), STR_NULL, NULL, NULL, &code);

	CHECK(e && code == 7 && strstr(e->message, "last words") && strstr(e->message, "sh -c") && !strstr(e->message, "first\n"));
	error_free(e);
	e = proc_run(ARGV("sh", "-c", "kill -9 $$"), STR_NULL, NULL, NULL, &code);
	CHECK(e && code == 128 + 9 && strstr(e->message, "signal 9"));
	error_free(e);
	e = proc_run(ARGV("no-such-program-here"), STR_NULL, NULL, NULL, NULL);
	CHECK(is_sys(e, ENOENT));
	CHECK(is_sys(proc_run(ARGV("/etc/passwd"), STR_NULL, NULL, NULL, NULL), EACCES));
	/* A deadline ends it and leaves nothing. */
	int64_t d = deadline_push(50), t = now_ms();

	CHECK(is_sys(proc_run(ARGV("sleep", "100"), STR_NULL, NULL, NULL, NULL), ETIMEDOUT));
	deadline_pop(d);
	CHECK(now_ms() - t < 5000);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	/* A daemon that keeps the pipe open does not hold us for ever. */
	buf_free(&out);
	t = now_ms();
	OK(proc_run(ARGV("sh", "-c", "sleep 8 & echo started"), STR_NULL, &out, NULL, NULL));
	CHECK(str_eqz(buf_view(&out), "started\n") && now_ms() - t < 7000);
}

static void test_run(void **state)
{
	assert_ok(loop_run(run_main, NULL));
}

static void spawn_main(void *arg)
{
	struct proc *p;
	int status, fd[2], extra[2];
	char buf[512];
	size_t n;

	CHECK(pipe2(fd, O_CLOEXEC) == 0 && pipe2(extra, O_CLOEXEC) == 0);
	struct proc_opts o = {
		.argv = ARGV("sh", "-c", "echo $A; pwd; read x; echo got $x; echo extra >&3; ls /proc/self/fd | wc -l"),
		.env = ARGV("A=1", "PATH=/usr/bin:/bin"), .cwd = "/proc", .stdin_fd = -1, .stdout_fd = fd[1],
		.stderr_fd = 2, .extra_fds = {extra[1]}, .n_extra_fds = 1, .new_session = true, .die_with_parent = true,
	};

	OK(proc_spawn(&o, &p));
	CHECK(getsid(proc_pid(p)) == proc_pid(p));
	close(fd[1]);
	close(extra[1]);
	struct stream *s = fd_stream(fd[0]), *x = fd_stream(extra[0]);
	buf_cleanup struct buf all = {0};

	do {
		OK(stream_read(s, buf, sizeof buf, &n));
		buf_append(&all, buf, n);
	} while (n);
	/* ls itself: 0, 1, 2, 3 and the directory */
	CHECK(str_eqz(buf_view(&all), "1\n/proc\ngot\n5\n"));
	OK(stream_read_full(x, buf, 6));
	CHECK(memcmp(buf, "extra\n", 6) == 0);
	OK(proc_wait(p, &status));
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	stream_close(s);
	stream_close(x);
	/* Waiting ends by cancellation, the process is still ours. */
	o = (struct proc_opts){.argv = ARGV("sleep", "100"), .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
	OK(proc_spawn(&o, &p));
	int64_t d = deadline_push(20);

	CHECK(is_sys(proc_wait(p, &status), ETIMEDOUT));
	deadline_pop(d);
	OK(proc_kill(p, SIGTERM));
	OK(proc_wait(p, &status));
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	OK(proc_spawn(&o, &p));
	proc_destroy(p);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	/* Failures before exec are told, with what failed. */
	o.cwd = "/no/such/dir";
	struct error *e = proc_spawn(&o, &p);

	CHECK(error_is_sys(e, ENOENT) && strstr(e->message, "/no/such/dir") && !p);
	error_free(e);
	o.cwd = NULL;
	o.netns_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	e = proc_spawn(&o, &p);
	CHECK(e && strstr(e->message, "network namespace"));
	error_free(e);
	close(o.netns_fd);
	/* Ignored and blocked signals are not inherited. */
	buf_cleanup struct buf out = {0};

	OK(proc_run(ARGV("sh", "-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status"), STR_NULL, &out, NULL, NULL));
	unsigned long long blocked = 1, ignored = 1;

	/* 32 and 33 are the C library's own; make(1) leaves them ignored and sigaction(2) refuses them. */
	CHECK(sscanf(buf_z(&out), "SigBlk: %llx SigIgn: %llx", &blocked, &ignored) == 2);
	CHECK(blocked == 0 && (ignored & ~(3ull << 31)) == 0);
}

static void test_spawn(void **state)
{
	assert_ok(loop_run(spawn_main, NULL));
}

static void one_run(void *arg)
{
	buf_cleanup struct buf out = {0};

	OK(proc_run(ARGV("echo", "hello"), STR_NULL, &out, NULL, NULL));
	CHECK(out.n == 6);
	(*(int *)arg)++;
}

static void many_main(void *arg)
{
	struct fiber *f[50];

	for (int i = 0; i < 50; i++)
		f[i] = fiber_start("run", one_run, arg);
	for (int i = 0; i < 50; i++)
		fiber_join(f[i]);
}

static void test_many_at_once(void **state)
{
	int n = 0;

	assert_ok(loop_run(many_main, &n));
	assert_int_equal(n, 50);
}

/* A loop may have all descriptors there are; what it starts sees the limit it was started with. */
#define SOFT 300

static void limits_main(void *arg)
{
	struct rlimit r;
	buf_cleanup struct buf out = {0};

	CHECK(getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur == r.rlim_max && r.rlim_max > SOFT);
	OK(proc_run(ARGV("sh", "-c", "ulimit -S -n; ulimit -H -n"), STR_NULL, &out, NULL, NULL));
	char want[64];

	snprintf(want, sizeof want, r.rlim_max == RLIM_INFINITY ? "%d\nunlimited\n" : "%d\n%llu\n", SOFT, (unsigned long long)r.rlim_max);
	CHECK(str_eqz(buf_view(&out), want));
}

static void test_descriptors(void **state)
{
	assert_ok(loop_run(limits_main, NULL));
}

int main(void)
{
	struct rlimit r;

	CHECK(getrlimit(RLIMIT_NOFILE, &r) == 0);
	r.rlim_cur = SOFT;
	CHECK(setrlimit(RLIMIT_NOFILE, &r) == 0);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_run),
		cmocka_unit_test(test_spawn),
		cmocka_unit_test(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
