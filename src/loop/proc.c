#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/internal.h"

#define CAPTURE_MAX (16u << 20)
#define HIGH_FD 100 /* sources are moved above all targets first, so that dup2 never overwrites one */
#define EXTRA_MAX 8
#define LEFT_OVER_MS 2000

extern char **environ;

struct proc {
	pid_t pid;
	int pidfd;
};

/* What the child needs; it shares our memory until it executes, so it only makes system calls. */
struct child {
	const struct proc_opts *o;
	const char *path;
	char *const *argv, *const *env;
	pid_t parent;
	sigset_t mask;
	volatile int err;
	const char *volatile what;
};

static bool child_step(struct child *c, bool ok, const char *what)
{
	if (!ok) {
		c->err = errno;
		c->what = what;
	}
	return ok;
}

static bool child_fds(struct child *c)
{
	const struct proc_opts *o = c->o;
	int fds[3 + EXTRA_MAX], n = 3 + o->n_extra_fds, want[3] = {o->stdin_fd, o->stdout_fd, o->stderr_fd};

	for (int i = 0; i < n; i++) {
		int from = i < 3 ? want[i] : o->extra_fds[i - 3];

		if (from < 0) {
			from = open("/dev/null", i == 0 ? O_RDONLY : O_WRONLY);
			if (!child_step(c, from >= 0, "/dev/null"))
				return false;
		}
		fds[i] = fcntl(from, F_DUPFD, HIGH_FD);
		if (!child_step(c, fds[i] >= 0, "file descriptors"))
			return false;
	}
	for (int i = 0; i < n; i++)
		if (!child_step(c, dup2(fds[i], i) >= 0, "file descriptors"))
			return false;
	/* The descriptor table is the child's own. Libraries' descriptors go too. */
	if (syscall(SYS_close_range, (unsigned)n, ~0u, 0) < 0)
		for (int fd = n; fd < 1024; fd++)
			fcntl(fd, F_SETFD, FD_CLOEXEC);
	return true;
}

static void child_run(struct child *c)
{
	const struct proc_opts *o = c->o;
	struct sigaction dfl = {.sa_handler = SIG_DFL}, was;

	/* Our handlers must not run here, and what we ignore is not to be ignored by the program. */
	for (int s = 1; s < NSIG; s++)
		if (sigaction(s, NULL, &was) == 0 && was.sa_handler != SIG_DFL)
			sigaction(s, &dfl, NULL);
	if (o->new_session && !child_step(c, setsid() >= 0, "setsid"))
		return;
	if (o->netns_fd > 0 && !child_step(c, setns(o->netns_fd, CLONE_NEWNET) == 0, "network namespace"))
		return;
	if (o->cwd && !child_step(c, chdir(o->cwd) == 0, o->cwd))
		return;
	if (o->die_with_parent) {
		if (!child_step(c, prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl"))
			return;
		if (getppid() != c->parent)
			_exit(127);
	}
	if (!child_fds(c))
		return;
	descriptors_restore();
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(c->path, c->argv, c->env);
	child_step(c, false, "exec");
}

static __attribute__((noinline)) pid_t spawn(struct child *c)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &c->mask);
	pid_t pid = vfork();

	if (pid == 0) {
		child_run(c);
		_exit(127);
	}
	int err = errno;

	pthread_sigmask(SIG_SETMASK, &c->mask, NULL);
	errno = err;
	return pid;
}

/* The program of argv[0] as execvp(3) finds it, malloc'ed; NULL when there is none. */
static char *find_program(const char *name, char *const *env)
{
	const char *path = NULL;
	struct stat st;

	if (strchr(name, '/'))
		return xstrdup(name);
	for (char *const *e = env; *e; e++)
		if (strncmp(*e, "PATH=", 5) == 0)
			path = *e + 5;
	for (struct str rest = str_from(path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	     rest.p;) {
		struct str dir = str_cut(&rest, ':');
		char *p = xasprintf("%.*s/%s", (int)(dir.n ? dir.n : 1), dir.n ? dir.p : ".", name);

		if (stat(p, &st) == 0 && S_ISREG(st.st_mode) && access(p, X_OK) == 0)
			return p;
		free(p);
	}
	return NULL;
}

struct error *proc_spawn(const struct proc_opts *o, struct proc **out)
{
	char *const *env = o->env ? (char *const *)(uintptr_t)o->env : environ;

	*out = NULL;
	assert(o->n_extra_fds >= 0 && o->n_extra_fds <= EXTRA_MAX);
	if (!o->argv || !o->argv[0])
		return error_sys(EINVAL, "no program given");
	char *path = find_program(o->argv[0], env);

	if (!path)
		return error_sys(ENOENT, "%s (is it installed?)", o->argv[0]);
	struct child c = {
		.o = o, .path = path, .argv = (char *const *)(uintptr_t)o->argv, .env = env, .parent = getpid(),
	};
	pid_t pid = spawn(&c);
	int err = errno;

	if (pid > 0 && c.err) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		struct error *e = error_sys(c.err, "%s: %s", path, c.what);

		free(path);
		return e;
	}
	free(path);
	if (pid < 0)
		return error_sys(err, "fork for %s", o->argv[0]);
	/* Not reaped by anyone else, so the pid is still this child's. */
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0) {
		err = errno;
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return error_sys(err, "pidfd of %s", o->argv[0]);
	}
	fd_adopt(pidfd);
	*out = xmalloc(sizeof **out);
	**out = (struct proc){.pid = pid, .pidfd = pidfd};
	return NULL;
}

pid_t proc_pid(const struct proc *p)
{
	return p->pid;
}

static void proc_free(struct proc *p)
{
	fd_forget(p->pidfd);
	close(p->pidfd);
	free(p);
}

struct error *proc_wait(struct proc *p, int *status)
{
	for (;;) {
		pid_t r = waitpid(p->pid, status, WNOHANG);

		if (r == p->pid) {
			proc_free(p);
			return NULL;
		}
		if (r < 0 && errno != EINTR) {
			struct error *e = error_sys(errno, "wait for process %d", (int)p->pid);

			proc_free(p);
			return e;
		}
		if (r == 0)
			TRY(fd_wait(p->pidfd, UV_READABLE, true));
	}
}

struct error *proc_kill(struct proc *p, int sig)
{
	return syscall(SYS_pidfd_send_signal, p->pidfd, sig, NULL, 0) < 0
		       ? error_sys(errno, "signal %d to process %d", sig, (int)p->pid)
		       : NULL;
}

void proc_destroy(struct proc *p)
{
	int status;

	if (!p)
		return;
	fiber_shield_begin();
	/* ESRCH: it has ended already. */
	error_free(proc_kill(p, SIGKILL));
	log_and_free(proc_wait(p, &status), "process");
	fiber_shield_end();
}

/* ---- run to the end ---- */

struct pipe_job {
	struct stream *s;
	struct str input;
	struct buf *out;
	size_t dropped;
	struct error *e;
	struct waitq *q;
	bool ended;
};

static void job_ended(struct pipe_job *j)
{
	stream_close(j->s);
	j->ended = true;
	waitq_wake_all(j->q);
}

static void feed_fiber(void *arg)
{
	struct pipe_job *j = arg;
	struct error *e = stream_write(j->s, j->input.p, j->input.n);

	/* A program need not read what it is given. */
	if (error_is_sys(e, EPIPE))
		error_clear(&e);
	j->e = e;
	job_ended(j);
}

static void drain_fiber(void *arg)
{
	struct pipe_job *j = arg;
	char chunk[4096];
	size_t n;

	while (!(j->e = stream_read(j->s, chunk, sizeof chunk, &n)) && n) {
		size_t room = CAPTURE_MAX - j->out->n;

		buf_append(j->out, chunk, n < room ? n : room);
		j->dropped += n < room ? 0 : n - room;
	}
	job_ended(j);
}

static struct str last_line(const struct buf *b)
{
	struct str s = str_trim(buf_view(b));
	ptrdiff_t nl = str_rindex(s, '\n');

	s = nl < 0 ? s : str_sub(s, (size_t)nl + 1, s.n);
	return str_sub(s, 0, 1024);
}

static struct error *exit_error(const char *const *argv, int status, const struct buf *err)
{
	buf_cleanup struct buf cmd = {0};
	struct str line = last_line(err);

	for (int i = 0; argv[i] && cmd.n < 200; i++)
		buf_printf(&cmd, "%s%.200s", i ? " " : "", argv[i]);
	if (WIFSIGNALED(status))
		return error_new("%s: killed by signal %d%s%.*s", buf_z(&cmd), WTERMSIG(status), line.n ? ": " : "",
				 STR_ARG(line));
	return error_new("%s: exit status %d%s%.*s", buf_z(&cmd), WEXITSTATUS(status), line.n ? ": " : "",
			 STR_ARG(line));
}

static void close_all(int *fds, int n)
{
	for (int i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

struct error *proc_run(const char *const *argv, struct str input, struct buf *out, struct buf *err, int *code)
{
	int fds[6] = {-1, -1, -1, -1, -1, -1}; /* input, output, errors: reading end, writing end */
	buf_cleanup struct buf own_out = {0}, own_err = {0};
	struct proc *p = NULL;

	TRY(fiber_check());
	for (int i = input.n ? 0 : 2; i < 6; i += 2) {
		if (pipe2(fds + i, O_CLOEXEC) < 0) {
			struct error *e = error_sys(errno, "pipe");

			close_all(fds, 6);
			return e;
		}
	}
	struct proc_opts o = {.argv = argv, .stdin_fd = fds[0], .stdout_fd = fds[3], .stderr_fd = fds[5]};
	struct error *e = proc_spawn(&o, &p);

	if (e) {
		close_all(fds, 6);
		return e;
	}
	int theirs[3] = {fds[0], fds[3], fds[5]};

	close_all(theirs, 3);
	struct waitq q = {0};
	struct pipe_job in = {.input = input, .q = &q, .ended = !input.n};
	struct pipe_job so = {.s = fd_stream(fds[2]), .out = out ? out : &own_out, .q = &q};
	struct pipe_job se = {.s = fd_stream(fds[4]), .out = err ? err : &own_err, .q = &q};
	struct pipe_job *jobs[3] = {&in, &so, &se};
	struct fiber *f[3] = {NULL};
	int status = 0;

	if (input.n) {
		in.s = fd_stream(fds[1]);
		f[0] = fiber_start("proc input", feed_fiber, &in);
	}
	f[1] = fiber_start("proc output", drain_fiber, &so);
	f[2] = fiber_start("proc errors", drain_fiber, &se);
	e = proc_wait(p, &status);
	if (e)
		proc_destroy(p);
	/* A daemon it left behind may hold the pipes: what is not in them soon does not count. */
	int64_t end = now_ms() + LEFT_OVER_MS;

	while (!e && !(in.ended && so.ended && se.ended) && now_ms() < end) {
		e = waitq_wait_ms(&q, end - now_ms());
		if (error_is_sys(e, ETIMEDOUT) && !fiber_must_stop())
			error_clear(&e);
	}
	for (int i = 0; i < 3; i++) {
		if (!jobs[i]->ended)
			fiber_cancel(f[i]);
		if (f[i])
			fiber_join(f[i]);
		if (error_is_sys(jobs[i]->e, ECANCELED))
			error_clear(&jobs[i]->e);
		if (!e)
			e = jobs[i]->e;
		else
			error_free(jobs[i]->e);
	}
	if (!e && (so.dropped || se.dropped))
		e = error_new("%s: output is larger than %u bytes", argv[0], CAPTURE_MAX);
	if (!e && status != 0)
		e = exit_error(argv, status, se.out);
	if (code)
		*code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return e;
}
