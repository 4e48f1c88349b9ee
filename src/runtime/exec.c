/* Processes run inside a running container: crun exec, with pipes or a terminal. */
#include "runtime/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXEC_OUTPUT_MAX (16u << 20) /* each of stdout and stderr of ExecSync */
#define CONSOLE_WAIT_MS 30000
#define DRAIN_MS 1000               /* for output of children that outlive the process */
#define SPEC_MAX (4u << 20)

static struct error *write_spec(struct rt *rt, struct rt_exec *x)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	str_cleanup char *bundle = rt_bundle_dir(rt, x->c->id);
	str_cleanup char *config = sys_path(bundle, "config.json");
	TRY(sys_read_file(AT_FDCWD, config, SPEC_MAX, &b));
	struct oci_v1_spec spec = {0};
	TRY(json_decode(&a, &oci_v1_spec_type, arena_str(&a, buf_view(&b)), NULL, &spec));
	if (!spec.process)
		return error_new("%s has no process", config);
	spec.process->terminal = x->tty;
	memcpy(&spec.process->args, x->cmd, sizeof(*x->cmd));
	bool term = false;
	for (uint32_t i = 0; i < spec.process->env.n; i++)
		term |= str_has_prefix(spec.process->env.v[i], STR("TERM="));
	if (x->tty && !term)
		*arena_push(&a, &spec.process->env) = STR("TERM=xterm");
	b.n = 0;
	json_encode(&b, &oci_v1_process_type, spec.process);
	x->spec = xasprintf("%s/exec-%016llx", bundle, (unsigned long long)random_u64());
	return sys_write_atomic(x->spec, buf_view(&b), 0600, false);
}

static struct error *console_listen(const char *path, int *fd)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(un.sun_path))
		return error_sys(ENAMETOOLONG, "%s", path);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0 || bind(*fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(*fd, 1) < 0)
		return error_sys(errno, "listen on %s", path);
	return NULL;
}

static struct error *receive_fd(int s, int *fd)
{
	char text[512];
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {text, sizeof(text)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
	TRY(fd_wait_read(s));
	if (recvmsg(s, &m, MSG_CMSG_CLOEXEC) < 0)
		return error_sys(errno, "receive the terminal from crun");
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return error_new("crun sent no terminal");
	memcpy(fd, CMSG_DATA(c), sizeof(int));
	return NULL;
}

/* Waits for crun to hand over the terminal, or to fail. */
static struct error *console_accept(struct rt_exec *x, int listener)
{
	fd_cleanup int ep = epoll_create1(EPOLL_CLOEXEC);
	fd_cleanup int pidfd = (int)syscall(SYS_pidfd_open, proc_pid(x->proc), 0);
	struct epoll_event in = {.events = EPOLLIN};
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &in) < 0 ||
	    (pidfd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, pidfd, &in) < 0))
		return error_sys(errno, "wait for crun");
	int64_t token = deadline_push(CONSOLE_WAIT_MS);
	struct error *e = fd_wait_read(ep);
	fd_cleanup int s = e ? -1 : accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!e && s < 0)
		e = error_new("the command could not be started");
	if (!e)
		e = receive_fd(s, &x->console);
	deadline_pop(token);
	return e;
}

struct error *rt_exec_start(struct rt *rt, struct rt_exec *x)
{
	x->proc = NULL;
	x->console = -1;
	if (x->c->removed || x->c->rec.state != CRI_CONTAINER_RUNNING)
		return error_status(412, "FailedPrecondition", "container %s is not running", x->c->id);
	if (!x->cmd->n)
		return error_status(400, "Invalid", "no command given");
	TRY(write_spec(rt, x));
	str_cleanup char *root = xasprintf("--root=%s/crun", rt->o.state_dir);
	str_cleanup char *pidfile = xasprintf("%s.pid", x->spec);
	str_cleanup char *sock = xasprintf("%s/s/%016llx", rt->o.state_dir, (unsigned long long)random_u64());
	fd_cleanup int listener = -1;
	struct rt_argv a;
	rt_argv_start(rt, &a);
	const char *words[] = {rt->o.crun, root, "--cgroup-manager=cgroupfs", "exec", "--process", x->spec, "--pid-file", pidfile};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		rt_argv_add(&a, words[i]);
	if (x->tty) {
		TRY(console_listen(sock, &listener));
		rt_argv_add(&a, "--console-socket");
		rt_argv_add(&a, sock);
	}
	rt_argv_add(&a, x->c->id);
	struct proc_opts o = {.argv = a.v, .stdin_fd = x->in, .stdout_fd = x->out, .stderr_fd = x->err, .die_with_parent = true};
	struct error *e = proc_spawn(&o, &x->proc);
	if (!e && x->tty) {
		e = console_accept(x, listener);
		if (e) {
			int status;
			fiber_shield_begin();
			log_and_free(proc_kill(x->proc, SIGKILL), "kill crun exec");
			error_free(proc_wait(x->proc, &status));
			fiber_shield_end();
			x->proc = NULL;
		}
	}
	if (x->tty)
		unlink(sock);
	if (e) {
		unlink(x->spec);
		unlink(pidfile);
		sys_free_str(&x->spec);
	}
	return e;
}

static pid_t exec_pid(struct rt_exec *x)
{
	str_cleanup char *pidfile = xasprintf("%s.pid", x->spec);
	buf_cleanup struct buf b = {0};
	int64_t pid = 0;
	struct error *e = sys_read_file(AT_FDCWD, pidfile, 64, &b);
	if (!e && !str_to_i64(str_trim(buf_view(&b)), &pid))
		pid = 0;
	error_free(e);
	return (pid_t)pid;
}

void rt_exec_kill(struct rt *rt, struct rt_exec *x)
{
	pid_t pid = x->spec ? exec_pid(x) : 0;
	/* While crun waits for it, the number can't be taken by another process. */
	if (pid > 1 && x->proc)
		kill(pid, SIGKILL);
	else if (x->proc)
		log_and_free(proc_kill(x->proc, SIGKILL), "kill crun exec");
}

struct error *rt_exec_wait(struct rt *rt, struct rt_exec *x, int *exit_code)
{
	int status = 0;
	struct error *e = proc_wait(x->proc, &status);
	if (e) {
		rt_exec_kill(rt, x);
		fiber_shield_begin();
		error_free(proc_wait(x->proc, &status));
		fiber_shield_end();
	}
	x->proc = NULL;
	bool started = exec_pid(x) > 0;
	str_cleanup char *pidfile = xasprintf("%s.pid", x->spec);
	unlink(pidfile);
	unlink(x->spec);
	sys_free_str(&x->spec);
	if (e)
		return e;
	*exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	if (!started && *exit_code)
		return error_status(500, "InternalError", "the command could not be started");
	return NULL;
}

struct capture {
	int fd;
	struct buf *to;
	bool done;
	struct waitq *q;
};

static void capture(void *arg)
{
	struct capture *c = arg;
	struct stream *s = fd_stream(c->fd);
	for (;;) {
		char chunk[8192];
		size_t got;
		struct error *e = stream_read(s, chunk, sizeof(chunk), &got);
		if (e || !got) {
			error_free(e);
			break;
		}
		buf_append(c->to, chunk, got); /* past its limit it drops, and the process goes on */
	}
	stream_close(s);
	c->done = true;
	waitq_wake_all(c->q);
}

struct error *rt_exec_sync(struct rt *rt, struct rt_container *c, const struct strings *cmd, int64_t timeout_s, struct buf *out,
			   struct buf *err, int *code)
{
	int o[2] = {-1, -1}, r[2] = {-1, -1};
	if (pipe2(o, O_CLOEXEC) < 0 || pipe2(r, O_CLOEXEC) < 0) {
		int sys = errno;
		sys_close(&o[0]);
		sys_close(&o[1]);
		return error_sys(sys, "make a pipe");
	}
	struct rt_exec x = {.c = c, .cmd = cmd, .in = -1, .out = o[1], .err = r[1]};
	out->limit = err->limit = EXEC_OUTPUT_MAX;
	struct error *e = rt_exec_start(rt, &x);
	close(o[1]);
	close(r[1]);
	if (e) {
		close(o[0]);
		close(r[0]);
		return e;
	}
	struct waitq q = {0};
	struct capture co = {o[0], out, false, &q}, cr = {r[0], err, false, &q};
	struct fiber *fo = fiber_start("exec-stdout", capture, &co), *fr = fiber_start("exec-stderr", capture, &cr);
	int64_t token = deadline_push(timeout_s > 0 ? timeout_s * 1000 : -1);
	e = rt_exec_wait(rt, &x, code);
	deadline_pop(token);
	int64_t until = now_ms() + DRAIN_MS;
	while (!e && !(co.done && cr.done) && now_ms() < until)
		error_free(waitq_wait_ms(&q, until - now_ms()));
	fiber_stop(fo);
	fiber_stop(fr);
	if (error_is_sys(e, ETIMEDOUT)) {
		error_free(e);
		e = error_status(504, "Timeout", "command timed out after %llds", (long long)timeout_s);
	} else if (e && err->n) {
		struct str why = str_trim(buf_view(err));
		e = error_wrap(e, "%.*s", STR_ARG(why));
	}
	return e;
}
