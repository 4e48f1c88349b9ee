#include "runtime/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/fiber.h"

/* A path of PATH_MAX bytes cannot be nested deeper than this. */
#define MAX_DEPTH 2048

void sys_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void sys_free_str(char **z)
{
	free(*z);
	*z = NULL;
}

char *sys_path(const char *a, const char *b)
{
	return xasprintf("%s/%s", a, b);
}

struct error *sys_read_file(int dirfd, const char *path, size_t max, struct buf *out)
{
	fd_cleanup int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(errno, "open %s", path);
	size_t start = out->n;
	for (;;) {
		buf_reserve(out, 16384);
		ssize_t r = read(fd, out->p + out->n, out->cap - out->n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return error_sys(errno, "read %s", path);
		if (r == 0)
			return NULL;
		out->n += (size_t)r;
		if (out->n - start > max)
			return error_status(413, "RequestEntityTooLarge", "%s is larger than %zu bytes", path, max);
	}
}

struct error *sys_write_all(int fd, const void *p, size_t n)
{
	const char *c = p;
	while (n) {
		ssize_t w = write(fd, c, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return error_sys(errno, "write");
		c += w;
		n -= (size_t)w;
	}
	return NULL;
}

static struct error *write_file(const char *tmp, struct str data, mode_t mode, bool durable)
{
	fd_cleanup int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return error_sys(errno, "create %s", tmp);
	struct error *e = sys_write_all(fd, data.p, data.n);
	if (e)
		return error_wrap(e, "%s", tmp);
	if (durable && fsync(fd) < 0)
		return error_sys(errno, "fsync %s", tmp);
	return NULL;
}

struct error *sys_write_atomic(const char *path, struct str data, mode_t mode, bool durable)
{
	str_cleanup char *tmp = xasprintf("%s.tmp", path);
	struct error *e = write_file(tmp, data, mode, durable);
	if (!e && rename(tmp, path) < 0)
		e = error_sys(errno, "rename %s", path);
	if (e) {
		unlink(tmp);
		return e;
	}
	if (durable) {
		str_cleanup char *dir = xstrdup(path);
		char *slash = strrchr(dir, '/');
		if (slash)
			*slash = 0;
		fd_cleanup int fd = open(slash && dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || fsync(fd) < 0)
			return error_sys(errno, "fsync the directory of %s", path);
	}
	return NULL;
}

struct error *sys_mkdirs(const char *path, mode_t mode)
{
	str_cleanup char *p = xstrdup(path);
	for (char *c = p + 1;; c++) {
		if (*c && *c != '/')
			continue;
		char was = *c;
		*c = 0;
		if (mkdir(p, mode) < 0 && errno != EEXIST)
			return error_sys(errno, "mkdir %s", p);
		*c = was;
		if (!was)
			return NULL;
	}
}

static struct error *remove_at(int dirfd, const char *name, dev_t dev, int depth)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return NULL;
	if (errno != EISDIR && errno != EPERM && errno != ENOTEMPTY)
		return error_sys(errno, "remove %s", name);
	if (depth > MAX_DEPTH)
		return error_new("%s: the tree is too deep", name);
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? NULL : error_sys(errno, "open %s", name);
	struct stat st;
	if (fstat(fd, &st) < 0 || (dev && st.st_dev != dev)) {
		close(fd);
		return error_sys(EBUSY, "%s is a mount point", name);
	}
	DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return error_sys(errno, "open %s", name);
	}
	struct error *e = NULL;
	struct dirent *de;
	while (!e && (de = readdir(d)))
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, ".."))
			e = remove_at(fd, de->d_name, st.st_dev, depth + 1);
	closedir(d);
	if (e)
		return error_wrap(e, "%s", name);
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return error_sys(errno, "remove %s", name);
	return NULL;
}

struct error *sys_remove_tree(const char *path)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? NULL : error_sys(errno, "stat %s", path);
	return remove_at(AT_FDCWD, path, 0, 0);
}

static struct error *usage_at(int dirfd, const char *name, double *bytes, double *inodes, int depth)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? NULL : error_sys(errno, "open %s", name);
	DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return error_sys(errno, "open %s", name);
	}
	struct error *e = NULL;
	struct dirent *de;
	while (!e && (de = readdir(d))) {
		struct stat st;
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue; /* removed meanwhile */
		/* Each link counts for its share: a set of the files seen would grow as large as a container likes. */
		double links = S_ISDIR(st.st_mode) || st.st_nlink < 1 ? 1 : (double)st.st_nlink;
		*bytes += (double)st.st_blocks * 512 / links;
		*inodes += 1 / links;
		if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH)
			e = usage_at(fd, de->d_name, bytes, inodes, depth + 1);
	}
	closedir(d);
	return e;
}

struct error *sys_disk_usage(const char *path, uint64_t *bytes, uint64_t *inodes)
{
	double b = 0, n = 0;
	struct error *e = usage_at(AT_FDCWD, path, &b, &n, 0);
	*bytes = (uint64_t)(b + 0.5);
	*inodes = (uint64_t)(n + 0.5);
	return e;
}

static struct error *copy_file(int from_dir, int to_dir, const char *name, const struct stat *st)
{
	fd_cleanup int in = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (in < 0)
		return error_sys(errno, "open %s", name);
	fd_cleanup int out = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return error_sys(errno, "create %s", name);
	for (off_t left = st->st_size; left > 0;) {
		ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_sys(n < 0 ? errno : EIO, "copy %s", name);
		left -= n;
	}
	if (fchown(out, st->st_uid, st->st_gid) < 0 || fchmod(out, st->st_mode & 07777) < 0)
		return error_sys(errno, "set the owner of %s", name);
	char cap[256];
	ssize_t n = fgetxattr(in, "security.capability", cap, sizeof(cap));
	if (n > 0 && fsetxattr(out, "security.capability", cap, (size_t)n, 0) < 0)
		return error_sys(errno, "set the capabilities of %s", name);
	return NULL;
}

static struct error *copy_dir(int from, int to, int depth)
{
	if (depth > MAX_DEPTH)
		return error_new("the tree is too deep");
	int dup = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = dup < 0 ? NULL : fdopendir(dup);
	if (!d) {
		int sys = errno;
		if (dup >= 0)
			close(dup);
		return error_sys(sys, "open a directory");
	}
	struct error *e = NULL;
	struct dirent *de;
	while (!e && (de = readdir(d))) {
		const char *name = de->d_name;
		struct stat st, old;
		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			e = error_sys(errno, "stat %s", name);
			break;
		}
		bool exists = fstatat(to, name, &old, AT_SYMLINK_NOFOLLOW) == 0;
		bool whiteout = S_ISCHR(st.st_mode) && st.st_rdev == 0;
		fd_cleanup int sub = -1;
		bool opaque = false;
		if (S_ISDIR(st.st_mode)) {
			sub = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			char y = 0;
			opaque = sub >= 0 && fgetxattr(sub, "trusted.overlay.opaque", &y, 1) == 1 && y == 'y';
		}
		if (exists && (whiteout || opaque || !S_ISDIR(st.st_mode) || !S_ISDIR(old.st_mode))) {
			if ((e = remove_at(to, name, 0, 0)))
				break;
			exists = false;
		}
		if (whiteout)
			continue;
		if (S_ISDIR(st.st_mode)) {
			if (!exists && mkdirat(to, name, 0700) < 0) {
				e = error_sys(errno, "mkdir %s", name);
				break;
			}
			fd_cleanup int tsub = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (sub < 0 || tsub < 0)
				e = error_sys(errno, "open %s", name);
			else if (!(e = copy_dir(sub, tsub, depth + 1)) &&
				 (fchown(tsub, st.st_uid, st.st_gid) < 0 || fchmod(tsub, st.st_mode & 07777) < 0))
				e = error_sys(errno, "set the owner of %s", name);
		} else if (S_ISREG(st.st_mode)) {
			e = copy_file(from, to, name, &st);
		} else if (S_ISLNK(st.st_mode)) {
			char target[4096];
			ssize_t n = readlinkat(from, name, target, sizeof(target) - 1);
			if (n < 0) {
				e = error_sys(errno, "readlink %s", name);
				break;
			}
			target[n] = 0;
			if (symlinkat(target, to, name) < 0)
				e = error_sys(errno, "symlink %s", name);
		} else if (mknodat(to, name, st.st_mode, st.st_rdev) < 0) {
			e = error_sys(errno, "mknod %s", name);
		}
		if (!e && !S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode) &&
		    fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
			e = error_sys(errno, "set the owner of %s", name);
		struct timespec times[2] = {st.st_atim, st.st_mtim};
		if (!e && utimensat(to, name, times, AT_SYMLINK_NOFOLLOW) < 0)
			e = error_sys(errno, "set the times of %s", name);
	}
	closedir(d);
	return e;
}

struct error *sys_copy_tree(const char *from, const char *to)
{
	fd_cleanup int f = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd_cleanup int t = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f < 0 || t < 0)
		return error_sys(errno, "open %s", f < 0 ? from : to);
	return error_wrap(copy_dir(f, t, 0), "copy %s", from);
}

struct offloaded {
	struct error *(*fn)(void *);
	void *arg;
	struct error *e;
};

static void offloaded(void *p)
{
	struct offloaded *o = p;
	o->e = o->fn(o->arg);
}

struct error *sys_offload(struct error *(*fn)(void *arg), void *arg)
{
	struct offloaded o = {fn, arg, NULL};
	loop_offload(offloaded, &o);
	return o.e;
}

uint64_t sys_proc_start(pid_t pid)
{
	char path[64], line[1024];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd_cleanup int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	if (n <= 0)
		return 0;
	line[n] = 0;
	char *p = strrchr(line, ')'); /* the name may hold anything */
	if (!p)
		return 0;
	p++;
	for (int field = 3; field < 22; field++) {
		p = strchr(p + 1, ' ');
		if (!p)
			return 0;
	}
	return strtoull(p, NULL, 10);
}

bool sys_proc_alive(pid_t pid, uint64_t start)
{
	char path[64], line[1024];
	if (pid <= 0 || sys_proc_start(pid) != start)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd_cleanup int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	if (n <= 0)
		return false;
	line[n] = 0;
	char *p = strrchr(line, ')');
	return p && p[1] == ' ' && p[2] != 'Z' && p[2] != 'X';
}
