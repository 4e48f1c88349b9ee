/*
 * One layer's bytes to a tree: compressed bytes -> (sha256) -> decompress -> (sha256, the diff id) -> tar -> files.
 * Every name is resolved below the layer's root by openat2(RESOLVE_IN_ROOT), so that no symlink, ".." or absolute
 * path inside the archive reaches outside of it. Whiteouts become overlayfs's.
 */
#include "runtime/image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"
#include "schema/codec.h"

#define CHUNK (256u << 10)

bool tar_path_clean(const char *in, char out[4096])
{
	size_t n = 0;
	if (!in || strlen(in) > 4095)
		return false;
	for (const char *p = in; *p;) {
		size_t len = strcspn(p, "/");
		if (len == 2 && p[0] == '.' && p[1] == '.')
			return false;
		if (len > 255)
			return false;
		if (len && !(len == 1 && p[0] == '.')) {
			if (n)
				out[n++] = '/';
			memcpy(out + n, p, len);
			n += len;
		}
		p += len;
		while (*p == '/')
			p++;
	}
	out[n] = 0;
	return true;
}

/* ---- the byte pipeline ---- */

struct pipeline {
	const struct archive_api *ar;
	int fd;
	struct sha256 packed, plain;
	struct archive *raw; /* decompression */
	uint64_t in, out, max;
	uint64_t total;
	bool end;
	struct error *e;
	image_progress *progress;
	void *ctx;
	unsigned char in_buf[CHUNK], out_buf[CHUNK];
};

static la_ssize_t read_packed(struct archive *a, void *arg, const void **buf)
{
	struct pipeline *p = arg;
	ssize_t n;
	do {
		n = read(p->fd, p->in_buf, sizeof(p->in_buf));
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		p->e = p->e ? p->e : error_sys(errno, "read the layer");
		return -1;
	}
	sha256_add(&p->packed, p->in_buf, (size_t)n);
	p->in += (size_t)n;
	if (p->progress)
		p->progress(p->ctx, "unpack", p->in, p->total);
	*buf = p->in_buf;
	return n;
}

static la_ssize_t read_plain(struct archive *a, void *arg, const void **buf)
{
	struct pipeline *p = arg;
	if (p->end || p->e)
		return p->e ? -1 : 0;
	la_ssize_t n = p->ar->archive_read_data(p->raw, p->out_buf, sizeof(p->out_buf));
	if (n < 0) {
		const char *why = p->ar->archive_error_string(p->raw);
		p->e = p->e ? p->e : error_new("the layer can't be decompressed: %s", why ? why : "damaged data");
		return -1;
	}
	if (n == 0) {
		p->end = true;
		return 0;
	}
	p->out += (uint64_t)n;
	if (p->out > p->max) {
		p->e = error_status(413, "RequestEntityTooLarge", "the layer is larger than %llu bytes unpacked",
				    (unsigned long long)p->max);
		return -1;
	}
	sha256_add(&p->plain, p->out_buf, (size_t)n);
	*buf = p->out_buf;
	return n;
}

/* ---- files ---- */

struct unpack {
	struct pipeline *p;
	int root;                /* the layer's tree */
	const int *parent_roots; /* uppermost first */
	size_t n_parents;
	uint64_t entries, devices;
};

static int open_in(int root, const char *path, int flags)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	return (int)syscall(SYS_openat2, root, path[0] ? path : ".", &how, sizeof(how));
}

/*
 * The directory that holds `path` (made where it is missing: with the owner and mode it has in a layer below, so that
 * the merged view keeps them) and the last component.
 */
static struct error *open_parent(struct unpack *u, char *path, int *dir, const char **base)
{
	char *slash = strrchr(path, '/');
	if (!slash) {
		*base = path;
		*dir = open_in(u->root, ".", O_RDONLY | O_DIRECTORY);
		return *dir < 0 ? error_sys(errno, "open the layer's root") : NULL;
	}
	*base = slash + 1;
	*slash = 0;
	struct error *e = NULL;
	*dir = open_in(u->root, path, O_RDONLY | O_DIRECTORY);
	for (char *c = path; *dir < 0 && errno == ENOENT && !e && c;) {
		/* Make the first missing part, then look again. */
		c = strchr(c, '/');
		if (c)
			*c = 0;
		int have = open_in(u->root, path, O_PATH);
		if (have < 0 && errno == ENOENT) {
			char *last = strrchr(path, '/');
			if (last)
				*last = 0;
			fd_cleanup int up = open_in(u->root, last ? path : ".", O_RDONLY | O_DIRECTORY);
			if (last)
				*last = '/';
			struct stat st = {.st_mode = 0755};
			for (size_t i = 0; i < u->n_parents; i++) {
				fd_cleanup int below = open_in(u->parent_roots[i], path, O_PATH | O_DIRECTORY);
				if (below >= 0 && fstat(below, &st) == 0)
					break;
			}
			const char *name = last ? last + 1 : path;
			if (up < 0 || mkdirat(up, name, 0755) < 0 ||
			    fchownat(up, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
			    fchmodat(up, name, st.st_mode & 07777, 0) < 0)
				e = error_sys(errno, "make the directory %s", path);
		} else if (have < 0) {
			e = error_sys(errno, "%s", path);
		} else {
			close(have);
		}
		if (c)
			*c++ = '/';
		*dir = e ? -1 : open_in(u->root, path, O_RDONLY | O_DIRECTORY);
		if (*dir < 0 && !e && !c && errno == ENOENT)
			e = error_sys(ENOENT, "%s", path);
		else if (*dir < 0 && !e && c && errno != ENOENT)
			e = error_sys(errno, "%s", path);
	}
	if (*dir < 0 && !e)
		e = error_sys(errno, "open the directory %s", path);
	*slash = '/';
	return e;
}

static struct error *write_data(struct unpack *u, struct archive *tar, int fd)
{
	const struct archive_api *ar = u->p->ar;
	const void *buf;
	size_t n;
	la_int64_t off, end = 0;
	int r;
	while ((r = ar->archive_read_data_block(tar, &buf, &n, &off)) == ARCHIVE_OK) {
		const char *c = buf;
		if (off < 0 || (uint64_t)off + n > u->p->max) /* a sparse bomb */
			return error_status(413, "RequestEntityTooLarge", "a file is larger than %llu bytes",
					    (unsigned long long)u->p->max);
		end = off + (la_int64_t)n;
		while (n) {
			ssize_t w = pwrite(fd, c, n, off);
			if (w < 0 && errno == EINTR)
				continue;
			if (w < 0)
				return error_sys(errno, "write");
			c += w;
			off += w;
			n -= (size_t)w;
		}
	}
	if (r != ARCHIVE_EOF)
		return error_new("the archive is damaged: %s", ar->archive_error_string(tar) ? ar->archive_error_string(tar) : "?");
	struct stat st;
	if (fstat(fd, &st) == 0 && st.st_size < end && ftruncate(fd, end) < 0)
		return error_sys(errno, "truncate");
	return NULL;
}

static struct error *set_xattrs(struct unpack *u, struct archive_entry *en, int fd)
{
	const struct archive_api *ar = u->p->ar;
	const char *name;
	const void *value;
	size_t size;
	ar->archive_entry_xattr_reset(en);
	while (ar->archive_entry_xattr_next(en, &name, &value, &size) == ARCHIVE_OK) {
		/* File capabilities are part of an image; trusted.* (overlayfs's own) and labels are not its business. */
		if (strcmp(name, "security.capability") && strncmp(name, "user.", 5))
			continue;
		if (fsetxattr(fd, name, value, size, 0) < 0 && errno != ENOTSUP)
			return error_sys(errno, "set the attribute %s", name);
	}
	return NULL;
}

static struct error *entry(struct unpack *u, struct archive *tar, struct archive_entry *en)
{
	const struct archive_api *ar = u->p->ar;
	char path[4096];
	const char *name = ar->archive_entry_pathname(en), *base;
	if (!tar_path_clean(name, path))
		return error_new("the path \"%.200s\" is not allowed", name ? name : "(unreadable)");
	if (++u->entries > IMAGE_MAX_ENTRIES)
		return error_status(413, "RequestEntityTooLarge", "more than %d files", IMAGE_MAX_ENTRIES);
	mode_t type = ar->archive_entry_filetype(en);
	mode_t mode = ar->archive_entry_mode(en) & 07777;
	uid_t uid = (uid_t)ar->archive_entry_uid(en);
	gid_t gid = (gid_t)ar->archive_entry_gid(en);
	struct timespec times[2] = {{ar->archive_entry_mtime(en), ar->archive_entry_mtime_nsec(en)}};
	if (!path[0]) { /* the root itself */
		if (fchown(u->root, uid, gid) < 0 || fchmod(u->root, mode) < 0)
			return error_sys(errno, "set the owner of the root");
		return NULL;
	}
	fd_cleanup int dir = -1;
	TRY(open_parent(u, path, &dir, &base));

	if (!strncmp(base, ".wh.", 4)) {
		if (!strcmp(base, ".wh..wh..opq")) {
			if (fsetxattr(dir, "trusted.overlay.opaque", "y", 1, 0) < 0)
				return error_sys(errno, "mark %s opaque", path);
			return NULL;
		}
		base += 4;
		if (!*base || !strcmp(base, ".") || !strcmp(base, ".."))
			return error_new("the whiteout \"%s\" is not allowed", path);
		if (mknodat(dir, base, S_IFCHR, makedev(0, 0)) < 0 && errno != EEXIST)
			return error_sys(errno, "whiteout %s", path);
		return NULL;
	}

	const char *link = ar->archive_entry_hardlink(en);
	struct stat old;
	bool exists = fstatat(dir, base, &old, AT_SYMLINK_NOFOLLOW) == 0;
	if (exists && !(type == AE_IFDIR && S_ISDIR(old.st_mode) && !link)) {
		str_cleanup char *p = xasprintf("/proc/self/fd/%d/%s", dir, base);
		TRY(sys_remove_tree(p));
		exists = false;
	}
	if (link) {
		char target[4096];
		const char *tbase;
		if (!tar_path_clean(link, target) || !target[0])
			return error_new("the link target \"%.200s\" is not allowed", link);
		fd_cleanup int tdir = -1;
		TRY(open_parent(u, target, &tdir, &tbase));
		if (linkat(tdir, tbase, dir, base, 0) < 0)
			return error_sys(errno, "link %s to %s", path, target);
		return NULL;
	}
	switch (type) {
	case AE_IFDIR:
		if (!exists && mkdirat(dir, base, 0700) < 0)
			return error_sys(errno, "mkdir %s", path);
		break;
	case AE_IFREG: {
		fd_cleanup int fd = openat(dir, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return error_sys(errno, "create %s", path);
		TRY(error_wrap(write_data(u, tar, fd), "%s", path));
		if (fchown(fd, uid, gid) < 0 || fchmod(fd, mode) < 0)
			return error_sys(errno, "set the owner of %s", path);
		TRY(error_wrap(set_xattrs(u, en, fd), "%s", path));
		times[0] = times[0].tv_sec || times[0].tv_nsec ? times[0] : (struct timespec){0};
		times[1] = times[0];
		if (futimens(fd, times) < 0)
			return error_sys(errno, "set the times of %s", path);
		return NULL;
	}
	case AE_IFLNK: {
		const char *target = ar->archive_entry_symlink(en);
		if (!target || !*target || strlen(target) > 4095)
			return error_new("the symlink %s has no valid target", path);
		if (symlinkat(target, dir, base) < 0)
			return error_sys(errno, "symlink %s", path);
		break;
	}
	case AE_IFCHR:
	case AE_IFBLK:
	case AE_IFIFO: {
		dev_t dev = makedev((unsigned)ar->archive_entry_rdevmajor(en), (unsigned)ar->archive_entry_rdevminor(en));
		if (type == AE_IFIFO)
			dev = 0;
		else if (dev == 0)
			return error_new("the device %s is a whiteout in disguise", path);
		if (++u->devices > IMAGE_MAX_DEVICES)
			return error_new("more than %d devices in one layer", IMAGE_MAX_DEVICES);
		if (mknodat(dir, base, type | 0600, dev) < 0)
			return error_sys(errno, "mknod %s", path);
		break;
	}
	default:
		return error_new("%s is of a kind (%o) that an image can't hold", path, type);
	}
	if (fchownat(dir, base, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 || (type != AE_IFLNK && fchmodat(dir, base, mode, 0) < 0))
		return error_sys(errno, "set the owner of %s", path);
	times[1] = times[0];
	if (utimensat(dir, base, times, AT_SYMLINK_NOFOLLOW) < 0)
		return error_sys(errno, "set the times of %s", path);
	return NULL;
}

static struct error *tar_error(struct pipeline *p, struct archive *tar)
{
	if (p->e) {
		struct error *e = p->e;
		p->e = NULL;
		return e;
	}
	const char *why = p->ar->archive_error_string(tar);
	return error_new("the layer is not a valid tar archive: %s", why ? why : "unknown reason");
}

static struct error *untar(struct unpack *u)
{
	struct pipeline *p = u->p;
	const struct archive_api *ar = p->ar;
	struct archive_entry *en;
	p->raw = ar->archive_read_new();
	struct archive *tar = ar->archive_read_new();
	if (!p->raw || !tar)
		die_oom();
	/* Only what images use: no lrzip, no external programs. */
	ar->archive_read_support_filter_none(p->raw);
	ar->archive_read_support_filter_gzip(p->raw);
	ar->archive_read_support_filter_zstd(p->raw);
	ar->archive_read_support_filter_xz(p->raw);
	ar->archive_read_support_filter_bzip2(p->raw);
	ar->archive_read_support_format_raw(p->raw);
	ar->archive_read_support_format_empty(p->raw);
	ar->archive_read_support_filter_none(tar);
	ar->archive_read_support_format_tar(tar);
	ar->archive_read_support_format_empty(tar);
	struct error *e = NULL;
	if (ar->archive_read_open2(p->raw, p, NULL, read_packed, NULL, NULL) != ARCHIVE_OK)
		e = tar_error(p, p->raw);
	int r = e ? ARCHIVE_FATAL : ar->archive_read_next_header(p->raw, &en);
	if (!e && r == ARCHIVE_EOF)
		p->end = true;
	else if (!e && r != ARCHIVE_OK)
		e = tar_error(p, p->raw);
	if (!e && ar->archive_read_open2(tar, p, NULL, read_plain, NULL, NULL) != ARCHIVE_OK)
		e = tar_error(p, tar);
	while (!e && (r = ar->archive_read_next_header(tar, &en)) != ARCHIVE_EOF) {
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			e = tar_error(p, tar);
		else
			e = entry(u, tar, en);
	}
	/* Padding behind the archive belongs to the digests. */
	const void *skip;
	while (!e && read_plain(NULL, p, &skip) > 0)
		;
	while (!e && !p->e && read_packed(NULL, p, &skip) > 0)
		;
	if (p->e) { /* the reason below whatever the archive said */
		error_free(e);
		e = p->e;
		p->e = NULL;
	}
	ar->archive_read_free(tar);
	ar->archive_read_free(p->raw);
	return e;
}

static struct error *check(struct pipeline *p, const struct layer_source *src)
{
	char packed[DIGEST_LEN + 1], plain[DIGEST_LEN + 1];
	sha256_end(&p->packed, packed);
	sha256_end(&p->plain, plain);
	if (src->digest.n && !str_eqz(src->digest, packed))
		return error_new("its digest is %s instead of %.*s: it is damaged or was tampered with", packed, STR_ARG(src->digest));
	if (!str_eqz(src->diff_id, plain))
		return error_new("its diff_id is %s instead of %.*s: it is damaged or was tampered with", plain, STR_ARG(src->diff_id));
	return NULL;
}

static struct error *publish(struct image_store *s, const struct layer_source *src, const char *tree, struct unpack *u)
{
	struct str name = layer_name(src->chain);
	str_cleanup char *to = xasprintf("%s/%.*s", s->layers, STR_ARG(name));
	str_cleanup char *json = xasprintf("%s.json", to);
	uint64_t bytes, inodes;
	TRY(sys_disk_usage(tree, &bytes, &inodes));
	if (syncfs(u->root) < 0)
		return error_sys(errno, "sync the layer to disk");
	if (layer_present(s, src->chain))
		return NULL; /* somebody was faster with the same layer */
	TRY(sys_remove_tree(to)); /* a tree without its .json: left by a crash */
	if (rename(tree, to) < 0)
		return error_sys(errno, "rename the layer to %s", to);
	struct rt_v1_layer_record rec = {
		.chain_id = src->chain,
		.diff_id = src->diff_id,
		.size = (int64_t)bytes,
		.entries = (int64_t)u->entries,
	};
	buf_cleanup struct buf b = {0};
	json_encode(&b, &rt_v1_layer_record_type, &rec);
	return sys_write_atomic(json, buf_view(&b), 0644, true);
}

struct error *layer_unpack(struct image_store *s, const struct layer_source *src, image_progress *progress, void *ctx)
{
	const struct archive_api *ar;
	TRY(archive_api(&ar));
	str_cleanup char *tmp = NULL;
	TRY(image_tmp_dir(s, &tmp));
	str_cleanup char *tree = sys_path(tmp, "fs");
	struct pipeline *p = xcalloc(1, sizeof(*p));
	int parents[IMAGE_MAX_LAYERS];
	size_t n_parents = 0;
	struct error *e = NULL;
	*p = (struct pipeline){.ar = ar, .fd = src->fd, .max = s->max_layer_bytes, .total = src->total, .progress = progress, .ctx = ctx};
	sha256_start(&p->packed);
	sha256_start(&p->plain);
	/* Names in pax headers are UTF-8; this thread must be too for libarchive to give them back. */
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	locale_t was = utf8 ? uselocale(utf8) : (locale_t)0;
	struct unpack u = {.p = p, .root = -1, .parent_roots = parents};
	if (mkdir(tree, 0755) < 0 || (u.root = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		e = error_sys(errno, "make %s", tree);
	for (size_t i = src->n_parents; i-- > 0 && !e && n_parents < IMAGE_MAX_LAYERS;) {
		struct str name = layer_name(src->parents[i]);
		str_cleanup char *dir = xasprintf("%s/%.*s", s->layers, STR_ARG(name));
		int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			e = error_sys(errno, "open the layer below, %s", dir);
		else
			parents[n_parents++] = fd;
	}
	u.n_parents = n_parents;
	if (!e)
		e = untar(&u);
	if (!e) {
		e = check(p, src);
	} else {
		char unused[DIGEST_LEN + 1];
		sha256_end(&p->packed, unused);
		sha256_end(&p->plain, unused);
	}
	if (!e)
		e = publish(s, src, tree, &u);
	if (utf8) {
		uselocale(was);
		freelocale(utf8);
	}
	for (size_t i = 0; i < n_parents; i++)
		close(parents[i]);
	sys_close(&u.root);
	free(p);
	struct error *cleanup = sys_remove_tree(tmp);
	if (e && cleanup)
		log_and_free(cleanup, "remove %s", tmp);
	else if (cleanup)
		e = cleanup;
	return e;
}
