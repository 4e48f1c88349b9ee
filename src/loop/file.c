#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <dirent.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/internal.h"

#define OFFLOAD_BYTES (1u << 20) /* reads above this leave the loop's thread */
#define REMOVE_DEPTH 128         /* descriptors open at once; deeper trees are moved up */

/* ---- reading ---- */

struct read_job {
	int fd;
	struct buf *out;
	size_t want;
	int err;
};

static void read_some(void *arg)
{
	struct read_job *j = arg;
	size_t have = 0;

	for (;;) {
		/* One byte more than announced shows the end without growing twice; /proc announces nothing. */
		if (j->out->cap - j->out->n < 1)
			buf_reserve(j->out, have < 4096 ? 4096 : have);
		ssize_t r = read(j->fd, j->out->p + j->out->n, j->out->cap - j->out->n);

		if (r == 0)
			return;
		if (r < 0) {
			if (errno == EINTR)
				continue;
			j->err = errno;
			return;
		}
		j->out->n += (size_t)r;
		have += (size_t)r;
		if (have > FILE_READ_MAX) {
			j->err = EFBIG;
			return;
		}
	}
}

struct error *file_read(const char *path, struct buf *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return error_sys(errno, "%s", path);
	if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode)) {
		close(fd);
		return error_sys(EISDIR, "%s", path);
	}
	if (S_ISREG(st.st_mode) && st.st_size > (off_t)FILE_READ_MAX) {
		close(fd);
		return error_sys(EFBIG, "%s", path);
	}
	struct read_job j = {.fd = fd, .out = out};
	size_t start = out->n;

	buf_reserve(out, (size_t)(S_ISREG(st.st_mode) ? st.st_size : 0) + 1);
	if (st.st_size > (off_t)OFFLOAD_BYTES)
		loop_offload(read_some, &j);
	else
		read_some(&j);
	close(fd);
	if (j.err) {
		out->n = start;
		return error_sys(j.err, "%s", path);
	}
	return NULL;
}

/* ---- writing ---- */

struct write_job {
	const char *path;
	struct str data;
	mode_t mode;
	int err;
	const char *what;
};

static bool fail(struct write_job *j, const char *what)
{
	j->err = errno;
	j->what = what;
	return false;
}

static bool write_tmp(struct write_job *j, int fd)
{
	for (size_t off = 0; off < j->data.n;) {
		ssize_t w = write(fd, j->data.p + off, j->data.n - off);

		if (w < 0 && errno != EINTR)
			return fail(j, "write");
		off += w > 0 ? (size_t)w : 0;
	}
	/* The mode asked for, whatever umask is. */
	if (fchmod(fd, j->mode) < 0)
		return fail(j, "chmod");
	return fsync(fd) == 0 || fail(j, "fsync");
}

static bool sync_dir_of(struct write_job *j, const char *path)
{
	char *dir = xstrdup(path), *slash = strrchr(dir, '/');

	if (slash)
		slash[slash == dir ? 1 : 0] = 0;
	int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	free(dir);
	if (fd < 0)
		return fail(j, "open directory");
	bool ok = fsync(fd) == 0 || fail(j, "fsync directory");

	close(fd);
	return ok;
}

static void write_atomic(void *arg)
{
	struct write_job *j = arg;
	char *tmp = xasprintf("%s.tmp", j->path);

	unlink(tmp); /* left by a crash, or a trap: never written through */
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, j->mode & 0700);

	if (fd < 0) {
		fail(j, "create");
	} else {
		bool ok = write_tmp(j, fd);

		close(fd);
		if (ok && rename(tmp, j->path) < 0)
			ok = fail(j, "rename");
		if (!ok)
			unlink(tmp);
		else
			sync_dir_of(j, j->path);
	}
	free(tmp);
}

struct error *file_write_atomic(const char *path, struct str data, mode_t mode)
{
	struct write_job j = {.path = path, .data = data, .mode = mode};

	loop_offload(write_atomic, &j);
	return j.err ? error_sys(j.err, "%s: %s", path, j.what) : NULL;
}

/* ---- directories ---- */

struct error *dir_make(const char *path, mode_t mode)
{
	char *p = xstrdup(path);
	struct error *e = NULL;
	struct stat st;

	for (char *c = p + 1; !e && *p; c++) {
		char was = *c;

		if (was && was != '/')
			continue;
		*c = 0;
		if (mkdir(p, mode) < 0 && (errno != EEXIST || stat(p, &st) < 0 || !S_ISDIR(st.st_mode)))
			e = error_sys(errno == EEXIST ? ENOTDIR : errno, "directory %s", p);
		*c = was;
		if (!was)
			break;
	}
	free(p);
	return e;
}

struct remove_job {
	const char *path;
	int top;          /* where trees too deep are moved to */
	unsigned moved;
	int err;          /* the first failure; the rest goes on */
	char *where;
};

static void remove_failed(struct remove_job *j, int err, const char *name)
{
	if (j->err)
		return;
	j->err = err;
	j->where = xstrdup(name);
}

static int open_dir_at(int at, const char *name)
{
	/* Neither symlinks nor mounts, bind mounts of the same file system included. */
	struct open_how how = {
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
	};
	int fd = (int)syscall(SYS_openat2, at, name, &how, sizeof how);

	if (fd < 0 && errno == EACCES && fchmodat(at, name, 0700, 0) == 0)
		fd = (int)syscall(SYS_openat2, at, name, &how, sizeof how);
	return fd;
}

static void remove_entries(struct remove_job *j, int fd, int depth);

static void remove_entry(struct remove_job *j, int at, const char *name, int depth)
{
	if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
		return;
	if (errno != EISDIR && errno != EPERM) {
		remove_failed(j, errno, name);
		return;
	}
	if (depth >= REMOVE_DEPTH) {
		char moved[64];

		snprintf(moved, sizeof moved, ".remove-%d-%u", (int)getpid(), j->moved++);
		if (renameat(at, name, j->top, moved) < 0)
			remove_failed(j, errno, name);
		return;
	}
	int fd = open_dir_at(at, name);

	if (fd < 0) {
		if (errno == ENOENT)
			return;
		remove_failed(j, errno == EXDEV ? EBUSY : errno, name);
		return;
	}
	remove_entries(j, fd, depth + 1);
	if (unlinkat(at, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		remove_failed(j, errno, name);
}

/* Takes fd over. */
static void remove_entries(struct remove_job *j, int fd, int depth)
{
	DIR *d = fdopendir(fd);

	if (!d) {
		remove_failed(j, errno, ".");
		close(fd);
		return;
	}
	for (struct dirent *de; (de = readdir(d));)
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, ".."))
			remove_entry(j, dirfd(d), de->d_name, depth);
	closedir(d);
}

static void remove_tree(void *arg)
{
	struct remove_job *j = arg;

	if (unlink(j->path) == 0 || errno == ENOENT)
		return;
	if (errno != EISDIR && errno != EPERM) {
		remove_failed(j, errno, j->path);
		return;
	}
	/* Trees moved up show as new entries: as long as there were some, look again. */
	for (unsigned before = ~0u; !j->err && before != j->moved;) {
		before = j->moved;
		j->top = open(j->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (j->top < 0) {
			remove_failed(j, errno, j->path);
			return;
		}
		int fd = openat(j->top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			remove_failed(j, errno, j->path);
		else
			remove_entries(j, fd, 0);
		close(j->top);
	}
	if (rmdir(j->path) < 0 && errno != ENOENT)
		remove_failed(j, errno, j->path);
}

struct error *dir_remove(const char *path)
{
	struct remove_job j = {.path = path};

	loop_offload(remove_tree, &j);
	if (!j.err)
		return NULL;
	struct error *e = strcmp(j.where, path) == 0 ? error_sys(j.err, "remove %s", path)
						     : error_sys(j.err, "remove %s: %s", path, j.where);

	free(j.where);
	return e;
}

/* ---- inotify ---- */

struct fs_watch {
	int fd;
};

struct error *fs_watch_open(const char *path, struct fs_watch **out)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

	*out = NULL;
	if (fd < 0)
		return error_sys(errno, "inotify");
	if (inotify_add_watch(fd, path, IN_CREATE | IN_DELETE | IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_FROM |
				IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF) < 0) {
		int err = errno;

		close(fd);
		return error_sys(err, "watch %s", path);
	}
	fd_adopt(fd);
	*out = xmalloc(sizeof **out);
	(*out)->fd = fd;
	return NULL;
}

struct error *fs_watch_wait(struct fs_watch *w)
{
	char buf[4096] __attribute__((aligned(8)));
	bool any = false;

	for (;;) {
		TRY(fiber_io_point());
		ssize_t r = read(w->fd, buf, sizeof buf);

		if (r > 0)
			any = true; /* what changed is not told: whoever watches looks for himself */
		else if (r < 0 && errno == EAGAIN && any)
			return NULL;
		else if (r < 0 && errno == EAGAIN)
			TRY(fd_wait(w->fd, UV_READABLE, true));
		else if (r == 0 || errno != EINTR)
			return error_sys(r == 0 ? EIO : errno, "inotify");
	}
}

void fs_watch_close(struct fs_watch *w)
{
	if (!w)
		return;
	fd_forget(w->fd);
	close(w->fd);
	free(w);
}
