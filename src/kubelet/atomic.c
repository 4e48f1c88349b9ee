/*
 * kubelet/atomic.c: volumes made of files that change as one. The files lie in
 * a directory ..TIMESTAMP, the link ..data points to it, and what the user sees
 * are links through ..data; an update makes a new directory and swaps the link.
 */
#include "kubelet/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

bool volume_path_ok(struct str path)
{
	struct str rest = path;

	if (!path.n || path.n > 4096 || path.p[0] == '/' || memchr(path.p, 0, path.n))
		return false;
	/* Names that start with ".." are the volume's own. */
	if (str_has_prefix(path, STR("..")))
		return false;
	while (rest.p) {
		struct str part = str_cut(&rest, '/');

		if (str_eqz(part, ".."))
			return false;
	}
	return true;
}

static struct error *put_file(const char *base, const struct volume_file *f, struct arena *a, int64_t gid)
{
	struct str path = arena_printf(a, "%s/%.*s", base, STR_ARG(f->path));
	ptrdiff_t slash = str_rindex(f->path, '/');
	size_t done = 0;
	mode_t mode = f->mode & 0777;
	int fd, err = 0;

	if (slash > 0)
		TRY(dir_make(arena_printf(a, "%s/%.*s", base, (int)slash, f->path.p).p, 0755));
	fd = open(path.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_sys(errno, "making %s", path.p);
	while (!err && done < f->data.n) {
		ssize_t n = write(fd, f->data.p + done, f->data.n - done);

		if (n < 0 && errno != EINTR)
			err = errno;
		else if (n > 0)
			done += (size_t)n;
	}
	/* The group of the pod may read what the owner may. */
	if (gid >= 0)
		mode |= 0440;
	if (!err && (gid >= 0 || f->uid >= 0) && fchown(fd, f->uid >= 0 ? (uid_t)f->uid : 0, gid >= 0 ? (gid_t)gid : 0) < 0)
		err = errno;
	if (!err && fchmod(fd, mode) < 0)
		err = errno;
	close(fd);
	return err ? error_sys(err, "writing %s", path.p) : NULL;
}

static bool same_file(struct arena *a, const char *base, const struct volume_file *f)
{
	struct str path = arena_printf(a, "%s/%.*s", base, STR_ARG(f->path));
	struct stat st;
	buf_cleanup struct buf b = {0};
	struct error *e;

	if (lstat(path.p, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size != f->data.n || ((st.st_mode ^ f->mode) & 0737) != 0)
		return false;
	e = file_read(path.p, &b);
	if (e) {
		error_free(e);
		return false;
	}
	return str_eq(buf_view(&b), f->data);
}

static size_t count_files(const char *dir, int depth)
{
	DIR *d = depth < 32 ? opendir(dir) : NULL;
	struct dirent *e;
	size_t n = 0;

	while (d && (e = readdir(d))) {
		char sub[4096];

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (e->d_type == DT_DIR && (size_t)snprintf(sub, sizeof sub, "%s/%s", dir, e->d_name) < sizeof sub)
			n += count_files(sub, depth + 1);
		else
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

static struct str first_part(struct str path)
{
	struct str rest = path;

	return str_cut(&rest, '/');
}

struct error *atomic_write(struct arena *a, const char *dir, const struct volume_files *files, int64_t gid, bool *changed)
{
	char old[256] = "", stamp[64];
	const char *data = arena_printf(a, "%s/..data", dir).p, *tmp = arena_printf(a, "%s/..data_tmp", dir).p, *fresh;
	ssize_t n;
	bool same;
	struct timespec ts;
	struct tm tm;
	DIR *d;
	struct dirent *de;

	*changed = false;
	for (uint32_t i = 0; i < files->v.n; i++)
		if (!volume_path_ok(files->v.v[i].path))
			return error_new("invalid path %.*s: it must be relative and may not contain '..'", STR_ARG(files->v.v[i].path));
	n = readlink(data, old, sizeof old - 1);
	same = n > 0;
	if (same) {
		const char *base = arena_printf(a, "%s/%s", dir, old).p;

		same = count_files(base, 0) == files->v.n;
		for (uint32_t i = 0; same && i < files->v.n; i++)
			same = same_file(a, base, &files->v.v[i]);
	}
	if (same)
		return NULL;
	*changed = true;
	ts.tv_sec = wall_ns() / 1000000000;
	gmtime_r(&ts.tv_sec, &tm);
	snprintf(stamp, sizeof stamp, "..%04d_%02d_%02d_%02d_%02d_%02d.%010llu", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
		 tm.tm_sec, (unsigned long long)(random_u64() % 10000000000ull));
	fresh = arena_printf(a, "%s/%s", dir, stamp).p;
	if (mkdir(fresh, 0755) < 0)
		return error_sys(errno, "making %s", fresh);
	chmod(fresh, 0755);
	for (uint32_t i = 0; i < files->v.n; i++) {
		struct error *e = put_file(fresh, &files->v.v[i], a, gid);

		if (e) {
			struct error *re = dir_remove(fresh);

			error_free(re);
			return e;
		}
	}
	unlink(tmp);
	if (symlink(stamp, tmp) < 0)
		return error_sys(errno, "making the link %s", tmp);
	if (rename(tmp, data) < 0)
		return error_sys(errno, "renaming %s", tmp);
	/* What users see: a link for each first path element. */
	for (uint32_t i = 0; i < files->v.n; i++) {
		struct str part = first_part(files->v.v[i].path);
		struct str link = arena_printf(a, "%s/%.*s", dir, STR_ARG(part));

		if (symlink(arena_printf(a, "..data/%.*s", STR_ARG(part)).p, link.p) < 0 && errno != EEXIST)
			return error_sys(errno, "making the link %s", link.p);
	}
	/* Links to what is no more, and earlier versions, go. */
	d = opendir(dir);
	while (d && (de = readdir(d))) {
		struct str name = str_from(de->d_name);
		bool keep = str_eqz(name, ".") || str_eqz(name, "..") || str_eqz(name, "..data") || str_eqz(name, stamp);

		for (uint32_t i = 0; !keep && i < files->v.n; i++)
			keep = str_eq(first_part(files->v.v[i].path), name);
		if (keep)
			continue;
		if (str_has_prefix(name, STR(".."))) {
			struct error *e = dir_remove(arena_printf(a, "%s/%s", dir, de->d_name).p);

			log_and_free(e, "old version of a volume");
		} else {
			unlinkat(dirfd(d), de->d_name, 0);
		}
	}
	if (d)
		closedir(d);
	return NULL;
}
