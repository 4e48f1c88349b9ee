/*
 * kubelet/volumes.c: the volumes of pods: what they hold, where they are on
 * the host, and how a container's mount of them (with a subPath) is made safe.
 */
#include "kubelet/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <mntent.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct str volume_dir(struct pod *p, struct arena *a, const char *plugin, struct str name)
{
	return arena_printf(a, "%s/pods/%s/volumes/kubernetes.io~%s/%.*s", p->k->c->root_dir, p->uid, plugin, STR_ARG(name));
}

static int64_t fs_group(const struct core_v1_pod *pod)
{
	return pod->spec.security_context && pod->spec.security_context->fs_group ? *pod->spec.security_context->fs_group : -1;
}

/* ---- files from objects ---- */

struct projection {
	struct pod *p;
	struct arena *a;
	const struct core_v1_pod *pod;
	struct volume_files files;
	int32_t mode; /* default */
};

static void add_file(struct projection *x, struct str path, struct str data, int32_t mode)
{
	struct volume_file *f;

	for (uint32_t i = 0; i < x->files.v.n; i++)
		if (str_eq(x->files.v.v[i].path, path)) { /* the later source wins */
			x->files.v.v[i].data = data;
			x->files.v.v[i].mode = (mode_t)mode;
			return;
		}
	f = arena_push(x->a, &x->files.v);
	f->path = path;
	f->data = data;
	f->mode = (mode_t)mode;
	f->uid = -1;
}

typedef LIST(struct core_v1_key_to_path) key_paths;

static struct error *add_map(struct projection *x, const char *what, struct str name, const struct str_map *one, const struct str_map *two,
			     const void *items_, bool optional)
{
	const key_paths *items = items_;
	struct str ns = x->pod->metadata.namespace;

	if (!items->n) {
		for (uint32_t i = 0; i < one->n; i++)
			add_file(x, one->v[i].key, one->v[i].value, x->mode);
		for (uint32_t i = 0; two && i < two->n; i++)
			add_file(x, two->v[i].key, two->v[i].value, x->mode);
		return NULL;
	}
	for (uint32_t i = 0; i < items->n; i++) {
		const struct core_v1_key_to_path *k = &items->v[i];
		struct str data;

		if (str_map_has(one, k->key))
			data = str_map_get(one, k->key);
		else if (two && str_map_has(two, k->key))
			data = str_map_get(two, k->key);
		else if (optional)
			continue;
		else
			return error_new("references non-existent %s key: %.*s (%.*s/%.*s)", what, STR_ARG(k->key), STR_ARG(ns), STR_ARG(name));
		add_file(x, k->path, data, k->mode ? *k->mode : x->mode);
	}
	return NULL;
}

static struct error *add_config_map(struct projection *x, struct str name, const void *items, const bool *opt)
{
	struct core_v1_config_map *m = NULL;
	struct str ns = x->pod->metadata.namespace;
	bool optional = opt && *opt;
	struct error *e = object_get(x->p->k, x->a, &core_v1_configmaps_resource, ns, name, (void **)&m);

	object_watch(x->p, &core_v1_configmaps_resource, ns, name);
	if (error_is(e, 404, NULL) && optional) {
		error_free(e);
		return NULL;
	}
	if (e)
		return e;
	return add_map(x, "config", name, API_MAP(&m->data), API_MAP(&m->binary_data), items, optional);
}

static struct error *add_secret(struct projection *x, struct str name, const void *items, const bool *opt)
{
	struct core_v1_secret *m = NULL;
	struct str ns = x->pod->metadata.namespace;
	bool optional = opt && *opt;
	struct error *e = object_get(x->p->k, x->a, &core_v1_secrets_resource, ns, name, (void **)&m);

	object_watch(x->p, &core_v1_secrets_resource, ns, name);
	if (error_is(e, 404, NULL) && optional) {
		error_free(e);
		return NULL;
	}
	if (e)
		return e;
	return add_map(x, "secret", name, API_MAP(&m->data), NULL, items, optional);
}

static struct error *add_downward(struct projection *x, const void *items_)
{
	const struct { LIST(struct core_v1_downward_api_volume_file) l; } *items = items_;

	for (uint32_t i = 0; i < items->l.n; i++) {
		const struct core_v1_downward_api_volume_file *f = &items->l.v[i];
		struct str data = STR_NULL;

		if (f->field_ref)
			TRY(field_ref(x->p->k, x->a, x->p, x->pod, f->field_ref->field_path, &data));
		else if (f->resource_field_ref)
			TRY(resource_field(x->p->k, x->a, x->pod, NULL, f->resource_field_ref, &data));
		add_file(x, f->path, data, f->mode ? *f->mode : x->mode);
	}
	return NULL;
}

static const char *token_path(struct projection *x, struct str dir, struct str path)
{
	return arena_printf(x->a, "%.*s/%.*s", STR_ARG(dir), STR_ARG(path)).p;
}

/* The user that every container runs as (runAsUser); -1 when one names none or another. */
static int64_t one_user(const struct core_v1_pod_spec *s)
{
	int64_t user = -1;

	for (uint32_t i = 0; i < s->init_containers.n + s->containers.n; i++) {
		const struct core_v1_container *c =
			i < s->init_containers.n ? &s->init_containers.v[i] : &s->containers.v[i - s->init_containers.n];
		const int64_t *own = c->security_context ? c->security_context->run_as_user : NULL;

		if (!own && s->security_context)
			own = s->security_context->run_as_user;
		if (!own || (user >= 0 && *own != user))
			return -1;
		user = *own;
	}
	return user;
}

/* A token of the pod's service account; the one on disk is kept until four fifths of its life are over. */
static struct error *add_token(struct projection *x, struct str dir, const struct core_v1_service_account_token_projection *t)
{
	struct kubelet *k = x->p->k;
	struct authentication_v1_token_request req = {0}, *resp = NULL;
	struct authentication_v1_bound_object_reference ref = {
		.kind = STR("Pod"), .api_version = STR("v1"), .name = x->pod->metadata.name, .uid = x->pod->metadata.uid,
	};
	int64_t seconds = t->expiration_seconds ? *t->expiration_seconds : 3600, expires = 0, refresh;
	struct str sa = x->pod->spec.service_account_name.n ? x->pod->spec.service_account_name : STR("default");
	const char *path = token_path(x, dir, t->path);
	struct stat st;
	int32_t mode = x->mode;
	int64_t user = one_user(&x->pod->spec);

	/* A process that is not root can read it only with its group's help or as its owner. */
	if (fs_group(x->pod) >= 0 || user >= 0)
		mode = 0600;
	/* Its time of writing is its time of issue. */
	if (stat(path, &st) == 0 && st.st_size > 0 && x->p->token_refresh_at != INT64_MAX) {
		int64_t age = wall_ns() / 1000000000 - st.st_mtime;
		buf_cleanup struct buf b = {0};

		if (age >= 0 && age < seconds * 4 / 5 && age < 86400) {
			TRY(file_read(path, &b));
			add_file(x, t->path, arena_str(x->a, buf_view(&b)), mode);
			x->files.v.v[x->files.v.n - 1].uid = user;
			return NULL;
		}
	}
	if (!k->client)
		return error_new("a service account token cannot be had: this kubelet runs without an API server");
	req.spec.expiration_seconds = &seconds;
	req.spec.bound_object_ref = &ref;
	if (t->audience.n)
		*arena_push(x->a, &req.spec.audiences) = t->audience;
	TRY(error_wrap(client_create_sub(k->client, x->a, &core_v1_serviceaccounts_resource, x->pod->metadata.namespace, sa, "token",
					 &authentication_v1_token_request_type, &req, &authentication_v1_token_request_type, (void **)&resp),
		       "failed to fetch token of service account %.*s", STR_ARG(sa)));
	if (resp->status.expiration_timestamp.set)
		expires = resp->status.expiration_timestamp.s - wall_ns() / 1000000000;
	if (expires <= 0)
		expires = seconds;
	refresh = expires * 4 / 5;
	if (refresh > 86400)
		refresh = 86400;
	if (now_ms() + refresh * 1000 < x->p->token_refresh_at)
		x->p->token_refresh_at = now_ms() + refresh * 1000;
	add_file(x, t->path, resp->status.token, mode);
	x->files.v.v[x->files.v.n - 1].uid = user;
	return NULL;
}

static struct error *add_projected(struct projection *x, struct str dir, const struct core_v1_projected_volume_source *s)
{
	for (uint32_t i = 0; i < s->sources.n; i++) {
		const struct core_v1_volume_projection *v = &s->sources.v[i];

		if (v->config_map)
			TRY(add_config_map(x, v->config_map->local_object_reference.name, &v->config_map->items, v->config_map->optional));
		else if (v->secret)
			TRY(add_secret(x, v->secret->local_object_reference.name, &v->secret->items, v->secret->optional));
		else if (v->downward_api)
			TRY(add_downward(x, &v->downward_api->items));
		else if (v->service_account_token)
			TRY(add_token(x, dir, v->service_account_token));
		else if (v->cluster_trust_bundle && v->cluster_trust_bundle->optional && *v->cluster_trust_bundle->optional)
			continue;
		else if (v->cluster_trust_bundle)
			return error_new("projected volume: clusterTrustBundle is not supported by this kubelet");
		else if (v->pod_certificate)
			return error_new("projected volume: podCertificate is not supported by this kubelet");
	}
	return NULL;
}

/* ---- mounts of the kubelet's own ---- */

/* Makes dir a mount of a file system in memory unless it is one. */
static struct error *memory_fs(struct arena *a, const char *dir, const char *type, const char *options)
{
	struct stat st, parent;

	TRY(dir_make(dir, 0755));
	if (stat(dir, &st) == 0 && stat(arena_printf(a, "%s/..", dir).p, &parent) == 0 && st.st_dev != parent.st_dev)
		return NULL;
	if (mount(type, dir, type, MS_NOSUID | MS_NODEV, options) < 0)
		return error_sys(errno, "mounting %s on %s", type, dir);
	return NULL;
}

/* A small one: what is secret stays off the disk. */
static struct error *tmpfs(struct arena *a, const char *dir, int64_t size, mode_t mode)
{
	struct str options = size > 0 ? arena_printf(a, "mode=%o,size=%lld", mode, (long long)size) : arena_printf(a, "mode=%o", mode);

	return memory_fs(a, dir, "tmpfs", options.p);
}

/* Medium HugePages: of the one size that the pod asks for; HugePages-2Mi: of that size. */
static struct error *hugetlbfs(struct arena *a, const char *dir, const struct core_v1_pod *pod, struct str medium)
{
	int64_t sizes[HUGEPAGE_SIZES_MAX], size = 0;
	char name[40];
	int asked = 0;

	for (int i = 0, n = hugepage_sizes(sizes); i < n; i++) {
		struct str resource = str_from(hugepage_resource(sizes[i], name));

		if (!pod_request_sum(pod, name) ||
		    (!str_eqz(medium, "HugePages") && !str_eq(str_sub(medium, 10, medium.n), str_sub(resource, 10, resource.n))))
			continue;
		size = sizes[i];
		asked++;
	}
	if (!asked)
		return error_new("the pod requests no huge pages of this kernel for the medium %.*s of its emptyDir", STR_ARG(medium));
	if (asked > 1)
		return error_new("the pod requests huge pages of several sizes: the medium of its emptyDir must name one");
	return memory_fs(a, dir, "hugetlbfs", arena_printf(a, "mode=777,pagesize=%lldK", (long long)(size / 1024)).p);
}

struct own_job {
	const char *dir;
	int64_t gid;
	bool on_root_mismatch;
	int err;
};

static void own_tree(int dirfd, const char *name, int64_t gid, int depth, int *err)
{
	struct stat st;
	mode_t mode;
	int fd;
	DIR *d;
	struct dirent *e;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISLNK(st.st_mode))
		return;
	if (st.st_gid != (gid_t)gid && fchownat(dirfd, name, (uid_t)-1, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0)
		*err = errno;
	mode = (st.st_mode & 07777) | 0660;
	if (S_ISDIR(st.st_mode))
		mode |= S_ISGID | 0110;
	if (mode != (st.st_mode & 07777) && fchmodat(dirfd, name, mode, 0) < 0)
		*err = errno;
	if (!S_ISDIR(st.st_mode) || depth >= 64)
		return;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || !(d = fdopendir(fd)))
		return;
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			own_tree(fd, e->d_name, gid, depth + 1, err);
	closedir(d);
}

static void own_offloaded(void *arg)
{
	struct own_job *j = arg;
	struct stat st;

	if (j->on_root_mismatch && stat(j->dir, &st) == 0 && st.st_gid == (gid_t)j->gid && (st.st_mode & (S_ISGID | 0770)) == (S_ISGID | 0770))
		return;
	own_tree(AT_FDCWD, j->dir, j->gid, 0, &j->err);
}

static struct error *own(const struct core_v1_pod *pod, const char *dir)
{
	const struct core_v1_pod_security_context *sc = pod->spec.security_context;
	struct own_job j = {.dir = dir, .gid = fs_group(pod)};

	if (j.gid < 0)
		return NULL;
	j.on_root_mismatch = sc->fs_group_change_policy && str_eqz(*sc->fs_group_change_policy, "OnRootMismatch");
	loop_offload(own_offloaded, &j);
	return j.err ? error_sys(j.err, "giving %s to group %lld", dir, (long long)j.gid) : NULL;
}

/* ---- hostPath ---- */

static struct error *host_path(struct str path, struct str type)
{
	char *z = str_dupz(path);
	struct stat st;
	bool there = stat(z, &st) == 0;
	struct error *e = NULL;

	if (!type.n)
		; /* whatever it is */
	else if (str_eqz(type, "DirectoryOrCreate")) {
		if (!there)
			e = dir_make(z, 0755);
		else if (!S_ISDIR(st.st_mode))
			e = error_new("hostPath type check failed: %s is not a directory", z);
	} else if (str_eqz(type, "FileOrCreate")) {
		if (!there) {
			int fd = open(z, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

			if (fd < 0)
				e = error_sys(errno, "hostPath: making %s", z);
			else
				close(fd);
		} else if (!S_ISREG(st.st_mode)) {
			e = error_new("hostPath type check failed: %s is not a file", z);
		}
	} else if (str_eqz(type, "Directory") && !(there && S_ISDIR(st.st_mode)))
		e = error_new("hostPath type check failed: %s is not a directory", z);
	else if (str_eqz(type, "File") && !(there && S_ISREG(st.st_mode)))
		e = error_new("hostPath type check failed: %s is not a file", z);
	else if (str_eqz(type, "Socket") && !(there && S_ISSOCK(st.st_mode)))
		e = error_new("hostPath type check failed: %s is not a socket file", z);
	else if (str_eqz(type, "CharDevice") && !(there && S_ISCHR(st.st_mode)))
		e = error_new("hostPath type check failed: %s is not a character device", z);
	else if (str_eqz(type, "BlockDevice") && !(there && S_ISBLK(st.st_mode)))
		e = error_new("hostPath type check failed: %s is not a block device", z);
	free(z);
	return e;
}

/* The host directory behind a claim: PersistentVolumes of type hostPath and local. */
static struct error *claim_path(struct pod *p, struct arena *a, const struct core_v1_pod *pod, struct str claim, struct str *path, struct str *type)
{
	struct core_v1_persistent_volume_claim *c = NULL;
	struct core_v1_persistent_volume *v = NULL;
	const struct core_v1_persistent_volume_source *s;
	struct str ns = pod->metadata.namespace;

	TRY(error_wrap(object_get(p->k, a, &core_v1_persistentvolumeclaims_resource, ns, claim, (void **)&c), "PVC %.*s/%.*s", STR_ARG(ns),
		       STR_ARG(claim)));
	if (!c->spec.volume_name.n || !str_eqz(c->status.phase, "Bound"))
		return error_new("PVC %.*s/%.*s has non-bound phase (\"%.*s\") or empty pvc.Spec.VolumeName (\"%.*s\")", STR_ARG(ns), STR_ARG(claim),
				 STR_ARG(c->status.phase), STR_ARG(c->spec.volume_name));
	TRY(object_get(p->k, a, &core_v1_persistentvolumes_resource, STR_NULL, c->spec.volume_name, (void **)&v));
	if (v->spec.claim_ref && v->spec.claim_ref->uid.n && !str_eq(v->spec.claim_ref->uid, c->metadata.uid))
		return error_new("PV %.*s is bound to another claim", STR_ARG(v->metadata.name));
	if (v->spec.volume_mode && str_eqz(*v->spec.volume_mode, "Block"))
		return error_new("PV %.*s: raw block volumes are not supported by this kubelet", STR_ARG(v->metadata.name));
	s = &v->spec.persistent_volume_source;
	if (s->host_path) {
		*path = s->host_path->path;
		*type = s->host_path->type && s->host_path->type->n ? *s->host_path->type : STR("DirectoryOrCreate");
		return NULL;
	}
	if (s->local) {
		*path = s->local->path;
		*type = STR("Directory");
		return NULL;
	}
	return error_new("PV %.*s: its volume type is not supported by this kubelet, which knows hostPath and local", STR_ARG(v->metadata.name));
}

/* ---- one volume ---- */

/* Where volume v is on the host; *files: it is made of files. Does not touch anything but what claims need to read. */
static struct error *where(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_volume *v, struct str *dir,
			   struct str *type)
{
	const struct core_v1_volume_source *s = &v->volume_source;

	*type = STR_NULL;
	if (s->empty_dir)
		*dir = volume_dir(p, a, "empty-dir", v->name);
	else if (s->config_map)
		*dir = volume_dir(p, a, "configmap", v->name);
	else if (s->secret)
		*dir = volume_dir(p, a, "secret", v->name);
	else if (s->projected)
		*dir = volume_dir(p, a, "projected", v->name);
	else if (s->downward_api)
		*dir = volume_dir(p, a, "downward-api", v->name);
	else if (s->host_path) {
		*dir = s->host_path->path;
		*type = s->host_path->type ? *s->host_path->type : STR_NULL;
	} else if (s->persistent_volume_claim)
		TRY(claim_path(p, a, pod, s->persistent_volume_claim->claim_name, dir, type));
	else if (s->ephemeral)
		TRY(claim_path(p, a, pod, arena_printf(a, "%.*s-%.*s", STR_ARG(pod->metadata.name), STR_ARG(v->name)), dir, type));
	else
		return error_new("its volume type is not supported by this kubelet; it knows configMap, downwardAPI, emptyDir, ephemeral, hostPath, "
				 "image, persistentVolumeClaim (hostPath and local), projected and secret");
	return NULL;
}

static struct error *setup(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_volume *v)
{
	const struct core_v1_volume_source *s = &v->volume_source;
	struct projection x = {.p = p, .a = a, .pod = pod, .mode = 0644};
	struct str dir, type;
	bool changed;

	if (s->image)
		return NULL; /* mounted by the runtime, pulled when a container needs it */
	TRY(where(p, a, pod, v, &dir, &type));
	if (s->host_path || s->persistent_volume_claim || s->ephemeral) {
		TRY(host_path(dir, type));
		return s->host_path ? NULL : own(pod, arena_strz(a, dir));
	}
	if (s->empty_dir) {
		struct stat st;
		bool fresh = stat(dir.p, &st) < 0, memory = str_eqz(s->empty_dir->medium, "Memory");
		mode_t mode = memory ? 01777 : 0777; /* a tmpfs is as the kernel makes it */

		if (memory) {
			int64_t size = s->empty_dir->size_limit ? quantity_value(*s->empty_dir->size_limit) : 0;
			struct pod_resources r;

			/* No larger than the pod's memory may be. */
			pod_resources_sum(pod, &r);
			if (r.memory_limit > 0 && (size <= 0 || r.memory_limit < size))
				size = r.memory_limit;
			TRY(tmpfs(a, dir.p, size, mode));
		} else if (str_eqz(s->empty_dir->medium, "HugePages") || str_has_prefix(s->empty_dir->medium, STR("HugePages-"))) {
			TRY(hugetlbfs(a, dir.p, pod, s->empty_dir->medium));
		} else if (s->empty_dir->medium.n) {
			return error_new("emptyDir medium %.*s is not supported by this kubelet", STR_ARG(s->empty_dir->medium));
		} else {
			TRY(dir_make(dir.p, 0777));
		}
		if (fresh && chmod(dir.p, mode) < 0)
			return error_sys(errno, "%s", dir.p);
		return own(pod, dir.p);
	}
	if (s->config_map) {
		x.mode = s->config_map->default_mode ? *s->config_map->default_mode : 0644;
		TRY(error_wrap(add_config_map(&x, s->config_map->local_object_reference.name, &s->config_map->items, s->config_map->optional),
			       "configmap"));
		TRY(dir_make(dir.p, 0777));
	} else if (s->secret) {
		x.mode = s->secret->default_mode ? *s->secret->default_mode : 0644;
		TRY(add_secret(&x, s->secret->secret_name, &s->secret->items, s->secret->optional));
		TRY(tmpfs(a, dir.p, 0, 0777));
	} else if (s->projected) {
		x.mode = s->projected->default_mode ? *s->projected->default_mode : 0644;
		TRY(add_projected(&x, dir, s->projected));
		TRY(tmpfs(a, dir.p, 0, 0777));
	} else {
		x.mode = s->downward_api->default_mode ? *s->downward_api->default_mode : 0644;
		TRY(add_downward(&x, &s->downward_api->items));
		TRY(dir_make(dir.p, 0777));
	}
	chmod(dir.p, 0777);
	return atomic_write(a, dir.p, &x.files, fs_group(pod), &changed);
}

struct error *volumes_setup(struct pod *p, struct arena *a, const struct core_v1_pod *pod)
{
	p->volumes_dirty = false;
	for (uint32_t i = 0; i < pod->spec.volumes.n; i++) {
		struct error *e = setup(p, a, pod, &pod->spec.volumes.v[i]);

		if (e)
			return error_wrap(e, "MountVolume.SetUp failed for volume \"%.*s\"", STR_ARG(pod->spec.volumes.v[i].name));
	}
	return NULL;
}

/* ---- teardown ---- */

struct teardown_job {
	const char *prefix;
	int err;
	char path[512];
};

/* Whatever is mounted on the entries `depth` levels below dir. */
static void unmount_entries(const char *dir, int depth)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[4096];

	while (d && (e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    (size_t)snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= sizeof path)
			continue;
		if (depth > 1)
			unmount_entries(path, depth - 1);
		else
			for (int i = 0; i < 64 && umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0; i++)
				;
	}
	if (d)
		closedir(d);
}

/*
 * Unmounts everything below prefix, the deepest first. Blocking. Our own mounts are taken by their places: the
 * list of mounts may miss some while others come and go.
 */
static void unmount_below(void *arg)
{
	struct teardown_job *j = arg;
	size_t n = strlen(j->prefix);
	char path[4096];

	snprintf(path, sizeof path, "%s/volume-subpaths", j->prefix);
	unmount_entries(path, 3);
	snprintf(path, sizeof path, "%s/volumes", j->prefix);
	unmount_entries(path, 2);

	for (int round = 0; round < 64; round++) {
		FILE *f = setmntent("/proc/self/mounts", "r");
		struct mntent *m;
		char *best = NULL;

		while (f && (m = getmntent(f)))
			if (strncmp(m->mnt_dir, j->prefix, n) == 0 && m->mnt_dir[n] == '/' && (!best || strlen(m->mnt_dir) >= strlen(best))) {
				free(best);
				best = strdup(m->mnt_dir);
			}
		if (f)
			endmntent(f);
		if (!best)
			return;
		if (umount2(best, UMOUNT_NOFOLLOW) < 0 && umount2(best, MNT_DETACH | UMOUNT_NOFOLLOW) < 0) {
			j->err = errno;
			snprintf(j->path, sizeof j->path, "%s", best);
			free(best);
			return;
		}
		free(best);
	}
}

struct error *volumes_teardown(struct kubelet *k, struct str uid)
{
	arena_cleanup struct arena a = {0};
	struct str dir = pod_dir(k, &a, uid);
	struct teardown_job j = {.prefix = dir.p};
	static const char *const parts[] = {"volumes", "volume-subpaths"};

	if (access(dir.p, F_OK) < 0)
		return NULL;
	loop_offload(unmount_below, &j);
	if (j.err)
		return error_sys(j.err, "unmounting %s", j.path);
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		TRY(dir_remove(arena_printf(&a, "%.*s/%s", STR_ARG(dir), parts[i]).p));
	return NULL;
}

/* ---- mounts of containers ---- */

/*
 * Opens base/sub without ever leaving base, whatever links users put there. With `create` missing directories are made,
 * one level at a time.
 */
struct error *volume_subpath_open(const char *base, struct str sub, bool create, bool is_file, mode_t mode, int *fd)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	int root = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC), err;
	char *path = str_dupz(sub);
	long r;

	(void)is_file;
	*fd = -1;
	if (root < 0) {
		free(path);
		return error_sys(errno, "opening the volume %s", base);
	}
	how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
	r = syscall(SYS_openat2, root, path, &how, sizeof how);
	if (r < 0 && errno == ENOENT && create) {
		size_t n = strlen(path), at = 0;

		while (at < n) {
			size_t end = at + strcspn(path + at, "/");
			char was = path[end];
			int parent = -1;
			char *name;

			path[end] = 0;
			r = syscall(SYS_openat2, root, path, &how, sizeof how);
			if (r < 0 && errno == ENOENT) {
				char *slash = strrchr(path, '/');

				if (slash) {
					*slash = 0;
					parent = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
					*slash = '/';
					name = slash + 1;
				} else {
					parent = dup(root);
					name = path;
				}
				if (parent < 0 || (*name && mkdirat(parent, name, mode) < 0 && errno != EEXIST)) {
					err = errno;
					if (parent >= 0)
						close(parent);
					close(root);
					free(path);
					return error_sys(err, "making subPath %.*s", STR_ARG(sub));
				}
				if (*name)
					fchmodat(parent, name, mode, 0);
				close(parent);
			} else if (r >= 0) {
				close((int)r);
			}
			path[end] = was;
			at = end + (was != 0);
			if (!was)
				break;
		}
		r = syscall(SYS_openat2, root, path, &how, sizeof how);
	}
	err = errno;
	close(root);
	free(path);
	if (r < 0 && (err == EXDEV || err == ELOOP))
		return error_new("subPath \"%.*s\" leads out of the volume", STR_ARG(sub));
	if (r < 0)
		return error_sys(err, "subPath \"%.*s\"", STR_ARG(sub));
	*fd = (int)r;
	return NULL;
}

static const struct core_v1_volume *find_volume(const struct core_v1_pod *pod, struct str name)
{
	for (uint32_t i = 0; i < pod->spec.volumes.n; i++)
		if (str_eq(pod->spec.volumes.v[i].name, name))
			return &pod->spec.volumes.v[i];
	return NULL;
}

/* Binds what fd stands for to a place of our own, so that nobody can swap it before the runtime mounts it. */
static struct error *pin_subpath(struct pod *p, struct arena *a, const struct core_v1_container *c, size_t index, struct str volume, int fd, struct str *out)
{
	struct str dir = arena_printf(a, "%s/pods/%s/volume-subpaths/%.*s/%.*s", p->k->c->root_dir, p->uid, STR_ARG(volume), STR_ARG(c->name));
	struct str target = arena_printf(a, "%.*s/%zu", STR_ARG(dir), index);
	struct stat st;
	char self[64];

	TRY(dir_make(dir.p, 0750));
	if (fstat(fd, &st) < 0)
		return error_sys(errno, "subPath of volume %.*s", STR_ARG(volume));
	/* From an earlier container of this name. */
	umount2(target.p, MNT_DETACH | UMOUNT_NOFOLLOW);
	if (S_ISDIR(st.st_mode)) {
		TRY(dir_make(target.p, 0750));
	} else {
		int t = open(target.p, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);

		if (t < 0)
			return error_sys(errno, "making %s", target.p);
		close(t);
	}
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	if (mount(self, target.p, NULL, MS_BIND | MS_REC, NULL) < 0)
		return error_sys(errno, "binding subPath of volume %.*s", STR_ARG(volume));
	*out = target;
	return NULL;
}

struct error *volume_mount_path(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c, size_t index,
				struct str sub, struct cri_v1_mount *out)
{
	const struct core_v1_volume_mount *m = &c->volume_mounts.v[index];
	const struct core_v1_volume *v = find_volume(pod, m->name);
	struct str dir, type;

	if (!v)
		return error_new("volume \"%.*s\" of container %.*s is not among the pod's volumes", STR_ARG(m->name), STR_ARG(c->name));
	out->container_path = m->mount_path.n && m->mount_path.p[0] == '/' ? m->mount_path : arena_printf(a, "/%.*s", STR_ARG(m->mount_path));
	out->readonly = m->read_only;
	if (m->mount_propagation && str_eqz(*m->mount_propagation, "HostToContainer"))
		out->propagation = CRI_PROPAGATION_HOST_TO_CONTAINER;
	else if (m->mount_propagation && str_eqz(*m->mount_propagation, "Bidirectional"))
		out->propagation = CRI_PROPAGATION_BIDIRECTIONAL;
	if (m->recursive_read_only && m->read_only && !str_eqz(*m->recursive_read_only, "Disabled"))
		out->recursive_read_only = true;
	if (v->volume_source.image) {
		struct str ref = STR_NULL;

		TRY(image_ensure_volume(p, a, pod, v->volume_source.image->reference, v->volume_source.image->pull_policy, &ref));
		out->image = arena_new(a, struct cri_v1_image_spec);
		out->image->image = ref;
		out->image->user_specified_image = v->volume_source.image->reference;
		out->image_sub_path = sub;
		out->readonly = true;
		return NULL;
	}
	if (v->volume_source.persistent_volume_claim)
		out->readonly |= v->volume_source.persistent_volume_claim->read_only;
	if (v->volume_source.config_map || v->volume_source.secret || v->volume_source.projected || v->volume_source.downward_api)
		out->readonly = true;
	TRY(where(p, a, pod, v, &dir, &type));
	out->host_path = arena_str(a, dir);
	if (sub.n) {
		bool owned = !(v->volume_source.config_map || v->volume_source.secret || v->volume_source.projected || v->volume_source.downward_api);
		int fd;
		struct stat st;
		struct error *e;

		if (sub.p[0] == '/' || str_eqz(sub, "..") || str_has_prefix(sub, STR("../")) || str_contains(sub, STR("/../")) ||
		    str_has_suffix(sub, STR("/..")))
			return error_new("subPath \"%.*s\" must be relative and may not contain '..'", STR_ARG(sub));
		/* What has to be made is as open as the volume is. */
		if (stat(arena_strz(a, dir), &st) < 0)
			return error_sys(errno, "volume %.*s", STR_ARG(m->name));
		TRY(volume_subpath_open(arena_strz(a, dir), sub, owned, false, st.st_mode & 07777, &fd));
		e = pin_subpath(p, a, c, index, m->name, fd, &out->host_path);
		close(fd);
		return e;
	}
	return NULL;
}
