#include "cmd/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/capability.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/pki.h"
#include "loop/io.h"

#define STOP_MS 10000
#define HOUSEKEEPING_MS 60000
#define OOM_SCORE_ADJ "-999" /* as upstream's kubelet and kube-proxy */
#define PKI_CHECK_MS (24 * 3600 * 1000LL)

static int pid_fd = -1; /* the pid file's lock says that the supervisor lives: what outlives it must not hold it */

static int64_t mono_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static const char *log_path(const struct cluster *c, const struct component *p)
{
	return data_path(c, "log/%s.log", p->name);
}

/*
 * What holds the node together goes last when memory runs out: pods have scores from -997 (guaranteed) to 1000. The runtime
 * gives containers theirs. Inside a container that may not lower it the score stays as it is.
 */
static void protect_from_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	static const char score[] = OOM_SCORE_ADJ;

	if (fd < 0 || write(fd, score, sizeof score - 1) < 0)
		log_v(1, "the OOM score cannot be lowered: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Becomes `uid` with only the capabilities the component needs. */
static struct error *drop_privileges(const struct component *p)
{
	if (!p->uid)
		return NULL;
	if (prctl(PR_SET_KEEPCAPS, 1) < 0 || setgroups(0, NULL) < 0 || setresgid(p->uid, p->uid, p->uid) < 0 ||
	    setresuid(p->uid, p->uid, p->uid) < 0)
		return error_sys(errno, "changing to user %u", p->uid);
	cap_t caps = cap_init();

	for (int i = 0; i < 64; i++) {
		cap_value_t v = i;

		if (p->keep_caps >> i & 1) {
			cap_set_flag(caps, CAP_PERMITTED, 1, &v, CAP_SET);
			cap_set_flag(caps, CAP_EFFECTIVE, 1, &v, CAP_SET);
			cap_set_flag(caps, CAP_INHERITABLE, 1, &v, CAP_SET);
		}
	}
	int r = cap_set_proc(caps), err = errno;

	cap_free(caps);
	if (r < 0)
		return error_sys(err, "setting capabilities");
	/* Ambient: kept across exec of helpers such as nft. */
	for (int i = 0; i < 64; i++)
		if (p->keep_caps >> i & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
			return error_sys(errno, "raising an ambient capability");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_sys(errno, "no_new_privs");
	/* Changing uid made the process undumpable: /proc/self (and with it memory figures) would be root's. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	return NULL;
}

static struct error *join_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_sys(errno, "open %s", path);
	int r = setns(fd, CLONE_NEWNET), err = errno;

	close(fd);
	return r < 0 ? error_sys(err, "joining the network namespace %s", path) : NULL;
}

_Noreturn static void child(struct cluster *c, struct component *p, bool foreground, const sigset_t *mask)
{
	int argc = 0;

	close(pid_fd);
	/* The supervisor's death must not leave components that nobody watches. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_NAME, p->argv[0]);
	sigprocmask(SIG_SETMASK, mask, NULL);
	if (!foreground) {
		int fd = open(log_path(c, p), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

		if (fd >= 0) {
			dup2(fd, STDOUT_FILENO);
			dup2(fd, STDERR_FILENO);
			close(fd);
		}
	}
	log_init(p->name, c->verbosity);
	struct error *e = p->netns ? join_netns(p->netns) : NULL;

	if (!e)
		e = drop_privileges(p);
	if (e) {
		log_and_free(e, "starting %s", p->name);
		_exit(1);
	}
	/* PDEATHSIG is cleared by a change of credentials. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	while (p->argv[argc])
		argc++;
	optind = 0;
	int code = p->main(argc, (char **)(void *)p->argv);

	/* Not exit(3): destructors of libraries would wait for threads that only the parent had. */
	fflush(NULL);
	_exit(code);
}

static void start(struct cluster *c, struct component *p, bool foreground, const sigset_t *mask)
{
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0)
		child(c, p, foreground, mask);
	p->restart_at_ms = 0;
	p->started_ms = mono_ms();
	if (pid < 0) {
		log_error("cannot start %s: fork: %s; trying again in a second", p->name, strerror(errno));
		p->restart_at_ms = mono_ms() + 1000;
		return;
	}
	p->pid = pid;
	p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
}

static void reap(struct component *p, bool stopping)
{
	int status = 0;

	if (waitpid(p->pid, &status, WNOHANG) != p->pid)
		return;
	if (p->pidfd >= 0)
		close(p->pidfd);
	p->pidfd = -1;
	p->pid = 0;
	if (stopping || (p->oneshot && WIFEXITED(status) && WEXITSTATUS(status) == 0))
		return;
	int64_t now = mono_ms(), delay = SUPERVISOR_BACKOFF_MIN_MS;

	if (now - p->started_ms > 60000)
		p->failures = 0;
	for (int i = 0; i < p->failures && delay < SUPERVISOR_BACKOFF_MAX_MS; i++)
		delay *= 2;
	if (delay > SUPERVISOR_BACKOFF_MAX_MS)
		delay = SUPERVISOR_BACKOFF_MAX_MS;
	p->failures++;
	p->restart_at_ms = now + delay;
	if (WIFSIGNALED(status))
		log_warn("%s was ended by signal %d (%s); starting it again in %lld ms", p->name, WTERMSIG(status),
			 strsignal(WTERMSIG(status)), (long long)delay);
	else
		log_warn("%s exited with code %d; starting it again in %lld ms; see its log", p->name, WEXITSTATUS(status),
			 (long long)delay);
}

/* Writers append, so cutting a log in place is safe: the newest half is kept. */
static void trim_log(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_size > SUPERVISOR_LOG_MAX) {
		size_t keep = SUPERVISOR_LOG_MAX / 2;
		char *p = malloc(keep);
		ssize_t n = p ? pread(fd, p, keep, st.st_size - (off_t)keep) : -1;

		if (n > 0 && ftruncate(fd, 0) == 0 && pwrite(fd, p, (size_t)n, 0) != n)
			log_warn("%s: could not keep its newest lines: %s", path, strerror(errno));
		free(p);
	}
	close(fd);
}

static void signal_all(struct component *list, size_t n, int sig)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].pid)
			kill(list[i].pid, sig);
}

static size_t alive(const struct component *list, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		k += list[i].pid != 0;
	return k;
}

/* For `skiff status`: name pid restarts started-ms, a line each. */
static void write_state(struct cluster *c, const struct component *list, size_t n)
{
	const char *path = run_path(c, "components"), *tmp = run_path(c, "components.tmp");
	FILE *f = fopen(tmp, "we");

	if (!f) {
		log_warn("%s: %s", tmp, strerror(errno));
		return;
	}
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s %d %d %lld\n", list[i].name, list[i].pid, list[i].failures, (long long)list[i].started_ms);
	if (fclose(f) != 0 || rename(tmp, path) != 0)
		log_warn("%s: %s", path, strerror(errno));
}

static void stop_all(struct component *list, size_t n)
{
	int64_t until = mono_ms() + STOP_MS;

	signal_all(list, n, SIGTERM);
	while (alive(list, n)) {
		struct pollfd fds[256];
		nfds_t k = 0;

		for (size_t i = 0; i < n && k < 256; i++)
			if (list[i].pidfd >= 0)
				fds[k++] = (struct pollfd){.fd = list[i].pidfd, .events = POLLIN};
		int64_t left = until - mono_ms();

		if (left <= 0) {
			log_warn("some components did not end within %d s of SIGTERM; killing them", STOP_MS / 1000);
			signal_all(list, n, SIGKILL);
			until = mono_ms() + STOP_MS;
			left = STOP_MS;
		}
		poll(fds, k, (int)left);
		for (size_t i = 0; i < n; i++)
			if (list[i].pid)
				reap(&list[i], true);
	}
}

static struct error *take_pid_file(struct cluster *c, int *fd)
{
	const char *path = run_path(c, "supervisor.pid");

	*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (*fd < 0)
		return error_sys(errno, "open %s", path);
	if (flock(*fd, LOCK_EX | LOCK_NB) < 0)
		return error_new("a supervisor for %s is running already (see 'skiff status')", c->data_dir);
	if (ftruncate(*fd, 0) < 0 || dprintf(*fd, "%d\n", getpid()) < 0)
		return error_sys(errno, "write %s", path);
	return NULL;
}

static void renew_on_loop(void *arg)
{
	struct cluster *c = arg;
	int renewed = 0;
	struct error *e = pki_ensure(c, &renewed);

	if (renewed)
		log_info("%d certificates renewed", renewed);
	log_and_free(e, "renewing certificates");
}

/* In a child: the supervisor itself runs no loop. Servers and clients notice the new files. */
static void renew_certificates(struct cluster *c)
{
	if (c->server) /* the kubelet renews its own */
		return;
	pid_t pid = fork();

	if (pid == 0) {
		struct error *e = loop_run(renew_on_loop, c);

		_exit(e ? 1 : 0);
	}
	if (pid < 0)
		log_error("cannot renew certificates: fork: %s", strerror(errno));
	else
		waitpid(pid, NULL, 0);
}

struct error *supervisor_run(struct cluster *c, bool foreground, int ready_fd)
{
	size_t n;
	struct component *list = cluster_components(c, &n);
	struct pollfd *fds = arena_array(c->a, struct pollfd, n + 1);
	sigset_t mask, old;

	TRY(take_pid_file(c, &pid_fd));
	protect_from_oom();
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, &old);
	int sfd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);

	if (sfd < 0)
		return error_sys(errno, "signalfd");
	for (size_t i = 0; i < n; i++)
		start(c, &list[i], foreground, &old);
	write_state(c, list, n);
	if (ready_fd >= 0 && write(ready_fd, "1", 1) != 1)
		log_warn("nobody waits for the supervisor any more");
	int64_t housekeeping = mono_ms() + HOUSEKEEPING_MS, pki = mono_ms() + PKI_CHECK_MS;

	for (bool running = true; running;) {
		int64_t now = mono_ms(), wake = housekeeping;
		nfds_t k = 0;

		fds[k++] = (struct pollfd){.fd = sfd, .events = POLLIN};
		for (size_t i = 0; i < n; i++) {
			if (list[i].pidfd >= 0)
				fds[k++] = (struct pollfd){.fd = list[i].pidfd, .events = POLLIN};
			if (list[i].restart_at_ms && list[i].restart_at_ms < wake)
				wake = list[i].restart_at_ms;
		}
		poll(fds, k, wake > now ? (int)(wake - now) : 0);
		struct signalfd_siginfo si;

		while (read(sfd, &si, sizeof si) == (ssize_t)sizeof si) {
			if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
				running = false;
			else if (si.ssi_signo == SIGHUP)
				renew_certificates(c);
		}
		bool changed = false;

		now = mono_ms();
		for (size_t i = 0; i < n; i++) {
			int pid = list[i].pid;

			if (pid)
				reap(&list[i], false);
			if (running && list[i].restart_at_ms && list[i].restart_at_ms <= now)
				start(c, &list[i], foreground, &old);
			changed |= pid != list[i].pid;
		}
		if (changed)
			write_state(c, list, n);
		if (now >= housekeeping) {
			housekeeping = now + HOUSEKEEPING_MS;
			for (size_t i = 0; i < n && !foreground; i++)
				trim_log(log_path(c, &list[i]));
			if (now >= pki) {
				pki = now + PKI_CHECK_MS;
				renew_certificates(c);
			}
		}
	}
	stop_all(list, n);
	unlink(run_path(c, "components"));
	unlink(run_path(c, "supervisor.pid"));
	close(sfd);
	close(pid_fd);
	return NULL;
}
