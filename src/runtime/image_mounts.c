/*
 * Images as volumes (CRI Mount.image, KEP-4639): the image's tree, read-only, at a path of the bundle, from where it is bound
 * into the container. Layers are claimed by a directory of the container, so that they stay as long as it does.
 */
#include "runtime/internal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Overlayfs without an upper directory is read-only and wants two layers at least. */
static struct error *mount_layers(struct rt *rt, const struct strings *layers, const char *dir, const char *at)
{
	fd_cleanup int base = open(image_layers_dir(rt->images), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (base < 0)
		return error_sys(errno, "open %s", image_layers_dir(rt->images));
	str_cleanup char *empty = sys_path(dir, "empty");
	TRY(sys_mkdirs(empty, 0755));
	buf_cleanup struct buf b = {0};
	buf_puts(&b, "lowerdir=");
	for (uint32_t i = 0; i < layers->n; i++)
		buf_printf(&b, "/proc/self/fd/%d/%.*s:", base, STR_ARG(layers->v[i]));
	buf_puts(&b, empty);
	if (!layers->n)
		buf_printf(&b, ":%s", empty);
	if (b.n >= 4096)
		return error_new("the image has too many layers for overlayfs");
	if (mount("overlay", at, "overlay", MS_RDONLY | MS_NODEV | MS_NOSUID, buf_z(&b)) < 0)
		return error_sys(errno, "mount the image volume (overlayfs)");
	return NULL;
}

static struct error *copy_layers(struct rt *rt, const struct strings *layers, const char *dir, const char *at)
{
	str_cleanup char *copy = sys_path(dir, "copy");
	TRY(sys_mkdirs(copy, 0755));
	for (uint32_t i = layers->n; i-- > 0;) {
		str_cleanup char *layer = xasprintf("%s/%.*s", image_layers_dir(rt->images), STR_ARG(layers->v[i]));
		TRY(sys_copy_tree(layer, copy));
	}
	if (mount(copy, at, NULL, MS_BIND, NULL) < 0)
		return error_sys(errno, "mount the image volume at %s", at);
	return NULL;
}

/* `sub` below the image's root, no link leading out of it, as a path without links. */
static struct error *resolve_sub(struct arena *a, const char *root, struct str sub, const char **out)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	fd_cleanup int base = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char link[64], path[PATH_MAX];
	ssize_t n;

	fd_cleanup int fd = base < 0 ? -1 : (int)syscall(SYS_openat2, base, arena_strz(a, sub), &how, sizeof(how));
	if (fd < 0)
		return error_status(400, "Invalid", "ImageVolumeMountFailed: subPath \"%.*s\" of the image: %s", STR_ARG(sub), strerror(errno));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0 || (size_t)n >= sizeof(path) - 1)
		return error_sys(n < 0 ? errno : ENAMETOOLONG, "subPath of an image volume");
	*out = arena_strz(a, str_of(path, (size_t)n));
	return NULL;
}

struct error *rt_image_mounts(struct rt *rt, struct arena *a, const struct cri_v1_container_config *c, const char *dir, const char *bundle,
			      const char ***paths)
{
	const char **out = arena_array(a, const char *, c->mounts.n + 1);

	*paths = out;
	for (uint32_t i = 0; i < c->mounts.n; i++) {
		const struct cri_v1_mount *m = &c->mounts.v[i];
		struct rt_v1_image_record *rec;
		struct strings layers = {0};
		struct error *e;

		if (!m->image || !m->image->image.n)
			continue;
		TRY(image_find(rt->images, a, m->image->image, &rec));
		if (!rec)
			return error_status(404, "NotFound", "image \"%.*s\" of a volume is not present on this node",
					    STR_ARG(m->image->image));
		str_cleanup char *own = xasprintf("%s/image-%u", dir, i);
		const char *at = arena_printf(a, "%s/images/%u", bundle, i).p;
		TRY(sys_mkdirs(own, 0700));
		TRY(sys_mkdirs(at, 0700));
		TRY(image_claim(rt->images, a, rec->id, own, &layers));
		e = rt->overlay ? mount_layers(rt, &layers, own, at) : copy_layers(rt, &layers, own, at);
		if (!e && m->image_sub_path.n)
			e = resolve_sub(a, at, m->image_sub_path, &at);
		if (e)
			return e;
		out[i] = at;
	}
	return NULL;
}

void rt_image_unmounts(struct rt *rt, const struct cri_v1_container_config *c, const char *dir, const char *bundle, bool all)
{
	for (uint32_t i = 0; c && i < c->mounts.n; i++) {
		if (!c->mounts.v[i].image)
			continue;
		str_cleanup char *at = xasprintf("%s/images/%u", bundle, i);
		str_cleanup char *own = xasprintf("%s/image-%u", dir, i);
		while (umount2(at, MNT_DETACH) == 0)
			;
		if (all)
			image_unclaim(rt->images, own);
	}
}
