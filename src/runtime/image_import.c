/* OCI layouts and `docker save` archives, from a directory or an archive. */
#include "runtime/image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define MAX_MEMBERS 20000   /* files in an image archive */
#define MAX_IMAGES 1000     /* images in one archive */
#define MAX_INDEX_DEPTH 4

struct import {
	struct image_store *s;
	struct arena *a;
	int dir;           /* the layout */
	struct str name;
	image_progress *progress;
	void *ctx;
	struct strings *names;
	const struct oci_v1_docker_archive_item *docker; /* of the image under way, or NULL */
	uint32_t images;
};

/* A path of the layout, which must stay inside it. */
static struct error *open_member(struct import *im, struct str path, int *fd)
{
	char clean[4096];
	str_cleanup char *z = str_dupz(path);
	if (memchr(path.n ? path.p : "", 0, path.n) || !tar_path_clean(z, clean) || !clean[0])
		return error_new("the path \"%.*s\" is not allowed", STR_ARG(path));
	*fd = openat(im->dir, clean, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (*fd < 0)
		return error_sys(errno, "%s", clean);
	struct stat st;
	if (fstat(*fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		sys_close(fd);
		return error_new("%s is not a regular file", clean);
	}
	return NULL;
}

static struct error *read_member(struct import *im, struct str path, struct str *out)
{
	fd_cleanup int fd = -1;
	TRY(open_member(im, path, &fd));
	str_cleanup char *p = xasprintf("/proc/self/fd/%d", fd);
	buf_cleanup struct buf b = {0};
	TRY(error_wrap(sys_read_file(AT_FDCWD, p, IMAGE_MAX_JSON, &b), "%.*s", STR_ARG(path)));
	*out = arena_str(im->a, buf_view(&b));
	return NULL;
}

static struct error *blob_name(struct import *im, struct str digest, struct str *out)
{
	if (!digest_valid(digest))
		return error_new("\"%.*s\" is not a sha256 digest", STR_ARG(digest));
	struct str hex = str_sub(digest, 7, digest.n);
	*out = arena_printf(im->a, "blobs/sha256/%.*s", STR_ARG(hex));
	return NULL;
}

static struct error *read_blob(struct import *im, struct str digest, struct str *out)
{
	struct str path;
	TRY(blob_name(im, digest, &path));
	TRY(read_member(im, path, out));
	char got[DIGEST_LEN + 1];
	digest_of(*out, got);
	if (!str_eqz(digest, got))
		return error_new("blob %.*s has the digest %s: it is damaged or was tampered with", STR_ARG(digest), got);
	return NULL;
}

static struct error *oci_layer(void *ctx, size_t i, const struct oci_v1_descriptor *d, int *fd)
{
	struct import *im = ctx;
	struct str path;
	TRY(blob_name(im, d->digest, &path));
	return open_member(im, path, fd);
}

/* Full names are kept, bare tags ("latest") need the caller's name. */
static struct error *image_name(struct import *im, struct str given, struct str *out)
{
	struct image_ref r;
	*out = STR_NULL;
	if (im->name.n)
		given = im->name;
	if (!given.n || (!im->name.n && str_index(given, '/') < 0 && str_index(given, ':') < 0))
		return NULL;
	TRY(image_ref_parse(im->a, given, &r));
	*out = image_ref_tagged(im->a, &r);
	return NULL;
}

static struct error *one_image(struct import *im, struct image_assemble *as, const struct str *tags, size_t n_tags)
{
	struct str id = STR_NULL;
	if (++im->images > MAX_IMAGES)
		return error_new("more than %d images in one archive", MAX_IMAGES);
	as->progress = im->progress;
	as->progress_ctx = im->ctx;
	for (size_t i = 0; i < (n_tags ? n_tags : 1); i++) {
		as->tag = STR_NULL;
		TRY(image_name(im, n_tags ? tags[i] : STR_NULL, &as->tag));
		TRY(image_assemble(im->s, im->a, as, &id));
		*arena_push(im->a, im->names) = as->tag.n ? as->tag : id;
		if (im->name.n)
			break;
	}
	return NULL;
}

static struct error *oci_image(struct import *im, struct str digest, struct str name, int depth)
{
	struct str bytes;
	struct oci_v1_manifest m = {0};
	TRY(read_blob(im, digest, &bytes));
	TRY(image_json(im->a, &oci_v1_manifest_type, bytes, "a manifest", &m));
	if (m.manifests.n) {
		const struct oci_v1_descriptor *d = platform_pick(&m);
		if (!d)
			return error_new("no image for linux/%s among the %u of its index", platform_arch(), m.manifests.n);
		if (depth >= MAX_INDEX_DEPTH)
			return error_new("indexes nested deeper than %d", MAX_INDEX_DEPTH);
		return oci_image(im, d->digest, name, depth + 1);
	}
	if (!m.config)
		return error_new("manifest %.*s has no config", STR_ARG(digest));
	struct image_assemble as = {.manifest_bytes = bytes, .open_layer = oci_layer, .open_ctx = im, .layer_digests = true};
	TRY(read_blob(im, m.config->digest, &as.config_bytes));
	return one_image(im, &as, &name, 1);
}

static struct error *import_oci(struct import *im, const struct oci_v1_manifest *index)
{
	if (!index->manifests.n)
		return error_new("index.json names no image");
	/* One image for several platforms may stand flat in index.json. */
	bool platforms = index->manifests.n > 1;
	for (uint32_t i = 0; i < index->manifests.n; i++)
		platforms &= index->manifests.v[i].platform != NULL && index->manifests.v[i].annotations.n == 0;
	const struct oci_v1_descriptor *only = platforms ? platform_pick(index) : NULL;
	if (platforms && !only)
		return error_new("no image for linux/%s in the layout", platform_arch());
	for (uint32_t i = 0; i < index->manifests.n; i++) {
		const struct oci_v1_descriptor *d = &index->manifests.v[i];
		if (only && d != only)
			continue;
		struct str name = str_map_get(API_MAP(&d->annotations), STR("io.containerd.image.name"));
		if (!name.n)
			name = str_map_get(API_MAP(&d->annotations), STR("org.opencontainers.image.ref.name"));
		TRY(oci_image(im, d->digest, name, 0));
	}
	return NULL;
}

static struct error *docker_layer(void *ctx, size_t i, const struct oci_v1_descriptor *d, int *fd)
{
	struct import *im = ctx;
	return open_member(im, im->docker->layers.v[i], fd);
}

/* `docker save`: the config and layer files by path; a manifest is made so that the image has one. */
static struct error *import_docker(struct import *im, struct str text)
{
	struct oci_v1_docker_archive doc = {0};
	text = str_trim(text);
	struct str wrapped = arena_printf(im->a, "{\"items\":%.*s}", STR_ARG(text));
	TRY(image_json(im->a, &oci_v1_docker_archive_type, wrapped, "manifest.json", &doc));
	if (!doc.items.n)
		return error_new("manifest.json names no image");
	for (uint32_t i = 0; i < doc.items.n; i++) {
		struct oci_v1_docker_archive_item *it = &doc.items.v[i];
		struct oci_v1_image config = {0};
		struct image_assemble as = {.open_layer = docker_layer, .open_ctx = im};
		im->docker = it;
		TRY(read_member(im, it->config, &as.config_bytes));
		TRY(image_json(im->a, &oci_v1_image_type, as.config_bytes, "the image config", &config));
		if (!config.rootfs || config.rootfs->diff_ids.n != it->layers.n)
			return error_new("manifest.json and the image config differ in the number of layers");
		char digest[DIGEST_LEN + 1];
		digest_of(as.config_bytes, digest);
		buf_cleanup struct buf m = {0};
		buf_printf(&m, "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":"
			       "{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"%s\",\"size\":%zu},\"layers\":[",
			   digest, as.config_bytes.n);
		for (uint32_t j = 0; j < it->layers.n; j++) {
			if (!digest_valid(config.rootfs->diff_ids.v[j]))
				return error_new("a diff_id of the image config is not a sha256 digest");
			buf_printf(&m, "%s{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"%.*s\",\"size\":0}",
				   j ? "," : "", STR_ARG(config.rootfs->diff_ids.v[j]));
		}
		buf_puts(&m, "]}");
		as.manifest_bytes = arena_str(im->a, buf_view(&m));
		TRY(one_image(im, &as, it->repo_tags.v, it->repo_tags.n));
	}
	return NULL;
}

static struct error *import_dir(struct import *im)
{
	struct str text;
	struct error *e = read_member(im, STR("index.json"), &text);
	if (!e) {
		struct oci_v1_manifest index = {0};
		TRY(image_json(im->a, &oci_v1_manifest_type, text, "index.json", &index));
		return import_oci(im, &index);
	}
	if (!error_is_sys(e, ENOENT))
		return e;
	error_free(e);
	e = read_member(im, STR("manifest.json"), &text);
	if (error_is_sys(e, ENOENT)) {
		error_free(e);
		return error_new("neither an OCI image layout (index.json) nor a `docker save` archive (manifest.json)");
	}
	if (e)
		return e;
	return import_docker(im, text);
}

/* ---- archives ---- */

struct reader {
	int fd;
	struct error *e;
	unsigned char buf[256 << 10];
};

static la_ssize_t read_fd(struct archive *a, void *arg, const void **buf)
{
	struct reader *r = arg;
	ssize_t n;
	do {
		n = read(r->fd, r->buf, sizeof(r->buf));
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		r->e = error_sys(errno, "read the archive");
	*buf = r->buf;
	return n;
}

static struct error *extract_file(const struct archive_api *ar, struct archive *tar, int dir, const char *path, uint64_t *left)
{
	/* Parents first; nothing but directories and regular files is ever made here, so no link can lead away. */
	str_cleanup char *p = xstrdup(path);
	for (char *c = strchr(p, '/'); c; c = strchr(c + 1, '/')) {
		*c = 0;
		if (mkdirat(dir, p, 0700) < 0 && errno != EEXIST)
			return error_sys(errno, "mkdir %s", p);
		*c = '/';
	}
	unlinkat(dir, path, 0);
	fd_cleanup int fd = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_sys(errno, "create %s", path);
	static const size_t chunk = 128 << 10;
	str_cleanup char *buf = xmalloc(chunk);
	la_ssize_t n;
	while ((n = ar->archive_read_data(tar, buf, chunk)) > 0) {
		if ((uint64_t)n > *left)
			return error_status(413, "RequestEntityTooLarge", "the archive is too large unpacked");
		*left -= (uint64_t)n;
		TRY(sys_write_all(fd, buf, (size_t)n));
	}
	if (n < 0)
		return error_new("the archive is damaged: %s", ar->archive_error_string(tar) ? ar->archive_error_string(tar) : "?");
	return NULL;
}

/* Older `docker save` writes a shared layer once and links to it: remembered, made as hard links at the end. */
struct link {
	struct str from, to;
};

static struct error *extract_all(const struct archive_api *ar, struct archive *tar, struct import *im)
{
	struct archive_entry *en;
	LIST(struct link) links = {0};
	uint64_t left = im->s->max_layer_bytes;
	int r, members = 0;
	while ((r = ar->archive_read_next_header(tar, &en)) != ARCHIVE_EOF) {
		char path[4096], target[8192];
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			return error_new("not a valid image archive: %s",
					 ar->archive_error_string(tar) ? ar->archive_error_string(tar) : "unknown format");
		const char *name = ar->archive_entry_pathname(en);
		if (!tar_path_clean(name, path))
			return error_new("the path \"%.200s\" is not allowed", name ? name : "(unreadable)");
		if (++members > MAX_MEMBERS)
			return error_new("more than %d files in one image archive", MAX_MEMBERS);
		mode_t type = ar->archive_entry_filetype(en);
		if (type == AE_IFREG && path[0]) {
			TRY(extract_file(ar, tar, im->dir, path, &left));
		} else if (type == AE_IFLNK && path[0] && ar->archive_entry_symlink(en)) {
			/* Relative to the link's directory, inside the archive: "../<layer>/layer.tar". */
			const char *to = ar->archive_entry_symlink(en), *slash = strrchr(path, '/');
			if (!strncmp(to, "../", 3) && slash && strchr(path, '/') == slash)
				snprintf(target, sizeof(target), "%s", to + 3);
			else
				return error_new("the link \"%s\" to \"%.200s\" is not allowed in an image archive", path, to);
			char clean[4096];
			if (!tar_path_clean(target, clean) || !clean[0])
				return error_new("the link \"%s\" is not allowed in an image archive", path);
			struct link *l = arena_push(im->a, &links);
			l->from = arena_str(im->a, str_from(path));
			l->to = arena_str(im->a, str_from(clean));
		} else if (type != AE_IFDIR) {
			return error_new("the file \"%s\" is of a kind that an image archive can't hold", path);
		}
	}
	for (uint32_t i = 0; i < links.n; i++) {
		char *from = arena_strz(im->a, links.v[i].from), *to = arena_strz(im->a, links.v[i].to);
		char *slash = strrchr(from, '/');
		*slash = 0;
		if (mkdirat(im->dir, from, 0700) < 0 && errno != EEXIST)
			return error_sys(errno, "mkdir %s", from);
		*slash = '/';
		if (linkat(im->dir, to, im->dir, from, 0) < 0 && errno != EEXIST)
			return error_sys(errno, "link %s to %s", from, to);
	}
	return NULL;
}

static struct error *import_archive(struct import *im, int fd)
{
	const struct archive_api *ar;
	TRY(archive_api(&ar));
	str_cleanup char *tmp = NULL;
	TRY(image_tmp_dir(im->s, &tmp));
	struct reader *rd = xcalloc(1, sizeof(*rd));
	rd->fd = fd;
	im->dir = open(tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct error *e = im->dir < 0 ? error_sys(errno, "open %s", tmp) : NULL;
	struct archive *tar = ar->archive_read_new();
	if (!tar)
		die_oom();
	ar->archive_read_support_filter_gzip(tar);
	ar->archive_read_support_filter_zstd(tar);
	ar->archive_read_support_filter_xz(tar);
	ar->archive_read_support_filter_bzip2(tar);
	ar->archive_read_support_format_tar(tar);
	if (!e && ar->archive_read_open2(tar, rd, NULL, read_fd, NULL, NULL) != ARCHIVE_OK)
		e = rd->e ? rd->e : error_new("not a tar archive: %s", ar->archive_error_string(tar));
	if (!e)
		e = extract_all(ar, tar, im);
	ar->archive_read_free(tar);
	free(rd);
	if (!e)
		e = import_dir(im);
	sys_close(&im->dir);
	struct error *cleanup = sys_remove_tree(tmp);
	log_and_free(cleanup, "remove %s", tmp);
	return e;
}

struct error *image_import(struct image_store *s, struct arena *a, const char *path, struct str name, image_progress *progress,
			   void *ctx, struct strings *names)
{
	struct import im = {.s = s, .a = a, .dir = -1, .name = name, .progress = progress, .ctx = ctx, .names = names};
	fd_cleanup int use = -1;
	*names = (struct strings){0};
	TRY(image_use_begin(s, &use));
	fd_cleanup int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_sys(errno, "%s", path);
	struct error *e;
	if (S_ISDIR(st.st_mode)) {
		im.dir = fd;
		e = import_dir(&im);
	} else {
		e = import_archive(&im, fd);
	}
	return error_wrap(e, "import %s", path);
}
