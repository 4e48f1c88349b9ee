/* Process 1 of a pod that shares its process namespace: reaps orphans, does nothing else, can do nothing else. */
#include "runtime/internal.h"
#include "runtime/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAUSE_UID 65535

static int fail(const char *what)
{
	fprintf(stderr, "skiff pause: %s: %s\n", what, strerror(errno));
	return 1;
}

static void nothing(int sig)
{
}

/* In the new process namespace: an empty read-only root, no rights, then wait. */
static int run(int ready)
{
	if (unshare(CLONE_NEWNS) < 0)
		return fail("unshare");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return fail("make mounts private");
	if (mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=555,size=4k") < 0)
		return fail("mount an empty root");
	if (chdir("/tmp") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return fail("change the root");
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return fail("make the root read-only");
	prctl(PR_SET_NAME, "pause", 0, 0, 0);
	/* Asleep forever in sigsuspend; the signals only interrupt it. */
	struct sigaction sa = {.sa_handler = nothing};
	sigset_t none, chld;
	sigemptyset(&none);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	sigaction(SIGCHLD, &sa, NULL);
	struct sigaction term = {.sa_handler = _exit};
	sigaction(SIGTERM, &term, NULL);
	sigaction(SIGINT, &term, NULL);
	if (setgroups(0, NULL) < 0 || setresgid(PAUSE_UID, PAUSE_UID, PAUSE_UID) < 0 || setresuid(PAUSE_UID, PAUSE_UID, PAUSE_UID) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail("drop privileges");
	if (write(ready, "+", 1) != 1)
		return 1;
	syscall(SYS_close_range, 0, ~0u, 0);
	for (;;) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		sigsuspend(&none);
	}
}

/* Prints the pause process's number (as the caller's namespace sees it) and ends. */
int skiff_pause_main(int argc, char **argv)
{
	int ready[2];
	if (argc > 1) {
		fprintf(stderr, "skiff pause: started by the container runtime only; it takes no arguments\n");
		return 2;
	}
	if (unshare(CLONE_NEWPID) < 0 || pipe2(ready, O_CLOEXEC) < 0)
		return fail("unshare");
	pid_t pid = fork();
	if (pid < 0)
		return fail("fork");
	if (pid == 0) {
		setsid();
		_exit(run(ready[1]));
	}
	close(ready[1]);
	char c;
	if (read(ready[0], &c, 1) != 1)
		return 1;
	printf("%d\n", (int)pid);
	fflush(stdout);
	_exit(0); /* this process can make no threads any more, so nothing else may run at its end */
}

struct error *rt_pause_start(struct rt *rt, struct rt_sandbox *s, const char *dir)
{
	const char *argv[] = {"/proc/self/exe", "pause", NULL};
	buf_cleanup struct buf out = {0};
	int64_t pid;
	TRY(error_wrap(proc_run(argv, STR_NULL, &out, NULL, NULL), "start the pod's pause process"));
	if (!str_to_i64(str_trim(buf_view(&out)), &pid) || pid <= 1)
		return error_new("the pod's pause process did not start");
	s->rec.pause_pid = (int32_t)pid;
	s->rec.pause_start = sys_proc_start((pid_t)pid);
	return NULL;
}
