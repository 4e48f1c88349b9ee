#include "cmd/preflight.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/buf.h"
#include "loop/io.h"

#define DISK_FREE_MIN (256ull << 20)

static bool in_path(const char *program)
{
	const char *path = getenv("PATH");
	char file[4096];

	for (struct str rest = str_from(path ? path : "/usr/sbin:/usr/bin:/sbin:/bin"); rest.p;) {
		struct str dir = str_cut(&rest, ':');

		snprintf(file, sizeof file, "%.*s/%s", STR_ARG(dir), program);
		if (access(file, X_OK) == 0)
			return true;
	}
	return false;
}

static bool file_has_word(const char *path, const char *word)
{
	buf_cleanup struct buf b = {0};
	struct error *e = file_read(path, &b);
	bool has = !e && str_contains(buf_view(&b), str_from(word));

	error_free(e);
	return has;
}

static bool port_free(int port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		return true; /* the component itself will say it */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	bool taken = bind(fd, (struct sockaddr *)&sin, sizeof sin) < 0 && errno == EADDRINUSE;

	close(fd);
	return !taken;
}

static void programs_missing(struct buf *b)
{
	static const struct {
		const char *program, *package;
	} needs[] = {{"crun", "crun"}, {"conmon", "conmon"}, {"ip", "iproute2"}, {"nft", "nftables"}};

	for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
		if (!in_path(needs[i].program))
			buf_printf(b, "\n  - the program %s is missing: apt-get install %s", needs[i].program, needs[i].package);
}

/* Components are users of their own: each directory above the data must let them through. */
static void closed_above(struct cluster *c, struct buf *b)
{
	struct stat st;

	for (struct str dir = str_from(c->data_dir); dir.n > 1;) {
		const char *path = arena_strz(c->a, dir);

		if (stat(path, &st) == 0 && !(st.st_mode & S_IXOTH))
			buf_printf(b, "\n  - %s may only be entered by its owner, the components are not root: chmod o+x %s, or give another "
				   "--data-dir", path, path);
		while (dir.n && dir.p[dir.n - 1] != '/')
			dir.n--;
		while (dir.n > 1 && dir.p[dir.n - 1] == '/')
			dir.n--;
	}
}

static void kernel_missing(struct cluster *c, struct buf *b)
{
	bool v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;

	if (!file_has_word("/proc/filesystems", "overlay")) {
		/* A module is loaded by its first mount: modprobe says whether there is one. */
		struct error *e = proc_run((const char *const[]){"modprobe", "overlay", NULL}, STR_NULL, NULL, NULL, NULL);

		if (e)
			buf_puts(b, "\n  - the kernel has no overlayfs (CONFIG_OVERLAY_FS)");
		error_free(e);
	}
	if (v2 && !file_has_word("/sys/fs/cgroup/cgroup.controllers", "memory"))
		buf_puts(b, "\n  - the memory cgroup controller is off: add cgroup_enable=memory to the kernel's command line");
	if (!v2 && (access("/sys/fs/cgroup/memory", F_OK) < 0 || access("/sys/fs/cgroup/cpu", F_OK) < 0))
		buf_puts(b, "\n  - no cgroup hierarchy is mounted at /sys/fs/cgroup: mount -t cgroup2 none /sys/fs/cgroup");
	struct error *e = proc_run((const char *const[]){"nft", "list", "tables", NULL}, STR_NULL, NULL, NULL, NULL);

	if (e && in_path("nft"))
		buf_printf(b, "\n  - nftables do not work here (%s): the kernel needs CONFIG_NF_TABLES", error_message(e));
	error_free(e);
}

struct error *preflight(struct cluster *c)
{
	buf_cleanup struct buf b = {0};
	struct statvfs vfs;

	if (geteuid() != 0)
		return error_new("a cluster needs root (namespaces, mounts, cgroups): run it with sudo");
	if (c->nodes) {
		programs_missing(&b);
		kernel_missing(c, &b);
	}
	if (!c->server && !port_free(c->api_port))
		buf_printf(&b, "\n  - port %d is taken by another program: stop it ('ss -ltnp sport = :%d' shows it) or use --https-listen-port",
			   c->api_port, c->api_port);
	if (c->nodes && !port_free(PORT_KUBELET))
		buf_printf(&b, "\n  - port %d is taken, probably by another kubelet: 'ss -ltnp sport = :%d' shows it", PORT_KUBELET, PORT_KUBELET);
	TRY(dir_make(c->data_dir, 0755));
	if (!c->server)
		closed_above(c, &b);
	if (statvfs(c->data_dir, &vfs) == 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize < DISK_FREE_MIN)
		buf_printf(&b, "\n  - %s has less than %llu MiB free", c->data_dir, DISK_FREE_MIN >> 20);
	return b.n ? error_new("this machine is not ready:%s", buf_z(&b)) : NULL;
}
