#include "runtime/image_internal.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "schema/codec.h"

#define INDEX_MAX (16u << 20)

struct error *archive_api(const struct archive_api **out)
{
	static struct archive_api api;
	static bool ready;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct error *e = NULL;
	pthread_mutex_lock(&lock);
	if (!ready) {
		void *so = dlopen("libarchive.so.13", RTLD_NOW | RTLD_LOCAL);
		if (!so)
			e = error_new("libarchive is missing (Debian: apt-get install libarchive13): %s", dlerror());
#define X(f)                                                                                                                       \
	if (!e && !(api.f = (__typeof__(api.f))dlsym(so, #f)))                                                                     \
		e = error_new("libarchive has no " #f);
		ARCHIVE_FNS(X)
#undef X
		ready = !e;
	}
	pthread_mutex_unlock(&lock);
	*out = &api;
	return e;
}

void sha256_start(struct sha256 *h)
{
	h->ctx = EVP_MD_CTX_new();
	if (!h->ctx || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1)
		die_oom();
}

void sha256_add(struct sha256 *h, const void *p, size_t n)
{
	if (EVP_DigestUpdate(h->ctx, p, n) != 1)
		die_oom();
}

void sha256_end(struct sha256 *h, char out[DIGEST_LEN + 1])
{
	unsigned char md[32];
	if (EVP_DigestFinal_ex(h->ctx, md, NULL) != 1)
		die_oom();
	EVP_MD_CTX_free(h->ctx);
	h->ctx = NULL;
	memcpy(out, "sha256:", 7);
	for (int i = 0; i < 32; i++)
		snprintf(out + 7 + 2 * i, 3, "%02x", md[i]);
}

void digest_of(struct str bytes, char out[DIGEST_LEN + 1])
{
	struct sha256 h;
	sha256_start(&h);
	sha256_add(&h, bytes.p, bytes.n);
	sha256_end(&h, out);
}

struct error *image_json(struct arena *a, const struct schema_type *t, struct str in, const char *what, void *out)
{
	return error_wrap(json_decode(a, t, arena_str(a, in), NULL, out), "%s is not valid", what);
}

const char *platform_arch(void)
{
#if defined(__x86_64__)
	return "amd64";
#elif defined(__aarch64__)
	return "arm64";
#elif defined(__arm__)
	return "arm";
#elif defined(__riscv)
	return "riscv64";
#elif defined(__powerpc64__)
	return "ppc64le";
#elif defined(__s390x__)
	return "s390x";
#else
#error "name this architecture as Go does"
#endif
}

const struct oci_v1_descriptor *platform_pick(const struct oci_v1_manifest *index)
{
	for (uint32_t i = 0; i < index->manifests.n; i++) {
		const struct oci_v1_descriptor *d = &index->manifests.v[i];
		if (d->platform && str_eqz(d->platform->architecture, platform_arch()) && str_eqz(d->platform->os, "linux"))
			return d;
	}
	/* One manifest that doesn't say what it is for. */
	if (index->manifests.n == 1 && (!index->manifests.v[0].platform || !index->manifests.v[0].platform->architecture.n))
		return &index->manifests.v[0];
	return NULL;
}

struct error *image_store_open(const char *root, uint64_t max_layer_bytes, struct image_store **out)
{
	static const char *const dirs[] = {"blobs/sha256", "l", "tmp", "ingest", "claims"};
	*out = NULL;
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		str_cleanup char *p = sys_path(root, dirs[i]);
		TRY(sys_mkdirs(p, 0755));
	}
	/* Image trees keep setuid files: only root may come near. */
	if (chmod(root, 0710) < 0)
		return error_sys(errno, "chmod %s", root);
	struct image_store *s = xcalloc(1, sizeof(*s));
	s->root = xstrdup(root);
	s->layers = sys_path(root, "l");
	s->max_layer_bytes = max_layer_bytes ? max_layer_bytes : IMAGE_MAX_LAYER_BYTES;
	*out = s;
	return NULL;
}

void image_store_close(struct image_store *s)
{
	if (!s)
		return;
	free(s->root);
	free(s->layers);
	free(s);
}

const char *image_layers_dir(const struct image_store *s)
{
	return s->layers;
}

static struct error *lock_file(struct image_store *s, const char *name, int op, int *fd)
{
	str_cleanup char *p = sys_path(s->root, name);
	*fd = open(p, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*fd < 0)
		return error_sys(errno, "open %s", p);
	while (flock(*fd, op) < 0) {
		if (errno == EINTR)
			continue;
		struct error *e = error_sys(errno, "lock %s", p);
		sys_close(fd);
		return e;
	}
	return NULL;
}

struct error *image_use_begin(struct image_store *s, int *fd)
{
	return lock_file(s, "use.lock", LOCK_SH, fd);
}

void image_use_end(int *fd)
{
	sys_close(fd);
}

struct error *image_tmp_dir(struct image_store *s, char **out)
{
	*out = xasprintf("%s/tmp/XXXXXX", s->root);
	if (!mkdtemp(*out)) {
		struct error *e = error_sys(errno, "make a directory in %s/tmp", s->root);
		sys_free_str(out);
		return e;
	}
	return NULL;
}

char *blob_path(const struct image_store *s, struct str digest)
{
	struct str hex = str_sub(digest, 7, digest.n);
	return xasprintf("%s/blobs/sha256/%.*s", s->root, STR_ARG(hex));
}

struct error *blob_put(struct image_store *s, struct str bytes, struct str want)
{
	char got[DIGEST_LEN + 1];
	digest_of(bytes, got);
	if (want.n && !str_eqz(want, got))
		return error_new("blob %.*s has the digest %s: it is damaged or was tampered with", STR_ARG(want), got);
	str_cleanup char *p = blob_path(s, str_from(got));
	if (access(p, F_OK) == 0)
		return NULL;
	return sys_write_atomic(p, bytes, 0644, true);
}

struct error *blob_get(struct image_store *s, struct str digest, struct buf *out)
{
	if (!digest_valid(digest))
		return error_new("\"%.*s\" is not a sha256 digest", STR_ARG(digest));
	str_cleanup char *p = blob_path(s, digest);
	TRY(sys_read_file(AT_FDCWD, p, IMAGE_MAX_JSON, out));
	char got[DIGEST_LEN + 1];
	digest_of(buf_view(out), got);
	if (!str_eqz(digest, got))
		return error_new("%s is damaged (its digest is %s); remove the image and import it again", p, got);
	return NULL;
}

struct str chain_id(struct arena *a, struct str parent, struct str diff_id)
{
	if (!parent.n)
		return diff_id;
	struct str both = arena_printf(a, "%.*s %.*s", STR_ARG(parent), STR_ARG(diff_id));
	char out[DIGEST_LEN + 1];
	digest_of(both, out);
	return arena_str(a, str_from(out));
}

struct str layer_name(struct str chain)
{
	return str_sub(chain, 7, 23);
}

bool layer_present(struct image_store *s, struct str chain)
{
	struct str name = layer_name(chain);
	str_cleanup char *json = xasprintf("%s/%.*s.json", s->layers, STR_ARG(name));
	str_cleanup char *dir = xasprintf("%s/%.*s", s->layers, STR_ARG(name));
	return access(json, F_OK) == 0 && access(dir, F_OK) == 0;
}

/* ---- the index ---- */

static struct error *index_read(struct image_store *s, struct arena *a, struct rt_v1_image_index *out)
{
	str_cleanup char *p = sys_path(s->root, "index.json");
	buf_cleanup struct buf b = {0};
	*out = (struct rt_v1_image_index){.version = 1};
	struct error *e = sys_read_file(AT_FDCWD, p, INDEX_MAX, &b);
	if (error_is_sys(e, ENOENT)) {
		error_free(e);
		return NULL;
	}
	if (e)
		return e;
	TRY(image_json(a, &rt_v1_image_index_type, buf_view(&b), p, out));
	if (out->version > 1)
		return error_new("%s was written by a newer Skiff (version %d); nothing was changed", p, out->version);
	return NULL;
}

static struct error *index_write(struct image_store *s, struct rt_v1_image_index *x)
{
	str_cleanup char *p = sys_path(s->root, "index.json");
	buf_cleanup struct buf b = {0};
	x->version = 1;
	json_encode(&b, &rt_v1_image_index_type, x);
	return sys_write_atomic(p, buf_view(&b), 0644, true);
}

struct error *image_list(struct image_store *s, struct arena *a, struct rt_v1_image_index *out)
{
	return index_read(s, a, out);
}

static bool has_str(const struct str *v, size_t n, struct str x)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(v[i], x))
			return true;
	return false;
}

static void drop_str(struct str *v, uint32_t *n, struct str x)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < *n; i++)
		if (!str_eq(v[i], x))
			v[kept++] = v[i];
	*n = kept;
}

static bool all_hex(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
			return false;
	return s.n > 0;
}

static struct rt_v1_image_record *find(struct arena *a, struct rt_v1_image_index *x, struct str ref, struct str *tag)
{
	*tag = STR_NULL;
	struct str hex = str_has_prefix(ref, STR("sha256:")) ? str_sub(ref, 7, ref.n) : ref;
	struct image_ref r;
	struct error *e = image_ref_parse(a, ref, &r);
	if (!e) {
		struct str tagged = image_ref_tagged(a, &r);
		struct str digested = r.digest.n ? image_ref_digested(a, &r, r.digest) : STR_NULL;
		for (uint32_t i = 0; i < x->images.n; i++) {
			struct rt_v1_image_record *im = &x->images.v[i];
			if (digested.n ? has_str(im->digests.v, im->digests.n, digested) || str_eq(im->manifest, r.digest)
				       : has_str(im->tags.v, im->tags.n, tagged)) {
				*tag = digested.n ? STR_NULL : tagged;
				return im;
			}
		}
	}
	error_free(e); /* an id is no valid reference, and need not be */
	if (!all_hex(hex) || hex.n < 3)
		return NULL;
	struct rt_v1_image_record *found = NULL;
	for (uint32_t i = 0; i < x->images.n; i++) {
		struct rt_v1_image_record *im = &x->images.v[i];
		if (str_has_prefix(str_sub(im->id, 7, im->id.n), hex)) {
			if (found)
				return NULL; /* ambiguous */
			found = im;
		}
	}
	return found;
}

struct error *image_find(struct image_store *s, struct arena *a, struct str ref, struct rt_v1_image_record **out)
{
	struct rt_v1_image_index x;
	struct str tag;
	*out = NULL;
	TRY(index_read(s, a, &x));
	*out = find(a, &x, ref, &tag);
	return NULL;
}

struct error *image_config(struct image_store *s, struct arena *a, const struct rt_v1_image_record *r, struct oci_v1_image *out)
{
	buf_cleanup struct buf b = {0};
	TRY(blob_get(s, r->id, &b));
	*out = (struct oci_v1_image){0};
	return image_json(a, &oci_v1_image_type, buf_view(&b), "the image's config", out);
}

static int64_t layer_size(struct image_store *s, struct str chain)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct rt_v1_layer_record rec = {0};
	struct str name = layer_name(chain);
	str_cleanup char *p = xasprintf("%s/%.*s.json", s->layers, STR_ARG(name));
	struct error *e = sys_read_file(AT_FDCWD, p, 65536, &b);
	if (!e)
		e = image_json(&a, &rt_v1_layer_record_type, buf_view(&b), p, &rec);
	log_and_free(e, "layer size");
	return rec.size;
}

struct error *image_register(struct image_store *s, const struct image_new *n)
{
	arena_cleanup struct arena a = {0};
	fd_cleanup int lock = -1;
	TRY(lock_file(s, "lock", LOCK_EX, &lock));
	struct rt_v1_image_index x;
	TRY(index_read(s, &a, &x));
	struct rt_v1_image_record *im = NULL;
	for (uint32_t i = 0; i < x.images.n; i++) {
		struct rt_v1_image_record *o = &x.images.v[i];
		if (n->tag.n)
			drop_str(o->tags.v, &o->tags.n, n->tag);
		if (str_eq(o->id, n->id))
			im = o;
	}
	if (!im) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		im = arena_push(&a, &x.images);
		im->id = n->id;
		im->created_at = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	}
	im->manifest = n->manifest;
	im->user = n->user;
	im->layers.n = 0;
	im->size = 0;
	for (size_t i = 0; i < n->n_layers; i++) {
		*arena_push(&a, &im->layers) = n->layers[i];
		im->size += layer_size(s, n->layers[i]);
	}
	if (n->tag.n)
		*arena_push(&a, &im->tags) = n->tag;
	if (n->repo_digest.n && !has_str(im->digests.v, im->digests.n, n->repo_digest))
		*arena_push(&a, &im->digests) = n->repo_digest;
	return index_write(s, &x);
}

struct error *image_assemble(struct image_store *s, struct arena *a, const struct image_assemble *as, struct str *id)
{
	struct oci_v1_manifest m = {0};
	struct oci_v1_image config = {0};
	TRY(image_json(a, &oci_v1_manifest_type, as->manifest_bytes, "the image manifest", &m));
	TRY(image_json(a, &oci_v1_image_type, as->config_bytes, "the image config", &config));
	if (!config.rootfs || config.rootfs->diff_ids.n != m.layers.n)
		return error_new("the image is not valid: its manifest names %u layers, its config %u", m.layers.n,
				 config.rootfs ? config.rootfs->diff_ids.n : 0);
	if (m.layers.n > IMAGE_MAX_LAYERS)
		return error_new("the image has %u layers; at most %d can be stacked", m.layers.n, IMAGE_MAX_LAYERS);
	if (config.os.n && !str_eqz(config.os, "linux"))
		return error_new("the image is for %.*s, not for linux", STR_ARG(config.os));
	if (config.architecture.n && !str_eqz(config.architecture, platform_arch()))
		return error_new("the image is for %.*s, this machine is %s", STR_ARG(config.architecture), platform_arch());
	char config_digest[DIGEST_LEN + 1], manifest_digest[DIGEST_LEN + 1];
	digest_of(as->config_bytes, config_digest);
	digest_of(as->manifest_bytes, manifest_digest);

	struct str *chains = arena_array(a, struct str, m.layers.n + 1);
	struct str chain = STR_NULL;
	for (uint32_t i = 0; i < m.layers.n; i++) {
		struct str diff = config.rootfs->diff_ids.v[i];
		if (!digest_valid(diff))
			return error_new("the image config's diff_id \"%.*s\" is not a sha256 digest", STR_ARG(diff));
		chains[i] = chain = chain_id(a, chain, diff);
		if (layer_present(s, chain))
			continue;
		fd_cleanup int fd = -1;
		TRY(as->open_layer(as->open_ctx, i, &m.layers.v[i], &fd));
		struct layer_source src = {
			.fd = fd,
			.digest = as->layer_digests ? m.layers.v[i].digest : STR_NULL,
			.diff_id = diff,
			.chain = chain,
			.parents = chains,
			.n_parents = i,
			.total = m.layers.v[i].size > 0 ? (uint64_t)m.layers.v[i].size : 0,
		};
		TRY(error_wrap(layer_unpack(s, &src, as->progress, as->progress_ctx), "layer %u of %u", i + 1, m.layers.n));
	}
	TRY(blob_put(s, as->config_bytes, STR_NULL));
	TRY(blob_put(s, as->manifest_bytes, STR_NULL));
	*id = arena_str(a, str_from(config_digest));
	struct image_new n = {
		.id = *id,
		.manifest = str_from(manifest_digest),
		.tag = as->tag,
		.repo_digest = as->repo_digest,
		.layers = chains,
		.n_layers = m.layers.n,
		.user = config.config ? config.config->user : STR_NULL,
	};
	return image_register(s, &n);
}

/* ---- removal ---- */

static char *claim_path(const struct image_store *s, const char *owner)
{
	char d[DIGEST_LEN + 1];
	digest_of(str_from(owner), d);
	return xasprintf("%s/claims/%.32s", s->root, d + 7);
}

/* Marks what the claims name. A claim whose owner (its first line, a directory) is gone is dropped. */
static struct error *claims_use(struct image_store *s, struct map *used)
{
	str_cleanup char *dir = sys_path(s->root, "claims");
	DIR *d = opendir(dir);
	if (!d)
		return error_sys(errno, "open %s", dir);
	struct error *e = NULL;
	struct dirent *de;
	while (!e && (de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		buf_cleanup struct buf b = {0};
		str_cleanup char *p = sys_path(dir, de->d_name);
		e = sys_read_file(AT_FDCWD, p, 1 << 20, &b);
		if (error_is_sys(e, ENOENT)) {
			error_clear(&e);
			continue;
		}
		struct str rest = buf_view(&b);
		str_cleanup char *owner = str_dupz(str_cut(&rest, '\n'));
		if (!e && access(owner, F_OK) < 0 && errno == ENOENT) {
			unlink(p);
			continue;
		}
		while (rest.n) {
			struct str line = str_cut(&rest, '\n');
			if (line.n)
				map_set(used, line, used);
		}
	}
	closedir(d);
	return e;
}

static struct error *sweep_dir(const char *dir, bool strip_json, const struct map *used)
{
	DIR *d = opendir(dir);
	if (!d)
		return error_sys(errno, "open %s", dir);
	struct error *e = NULL;
	struct dirent *de;
	while (!e && (de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		struct str name = str_from(de->d_name);
		if (strip_json && str_has_suffix(name, STR(".json")))
			name.n -= 5;
		if (map_has(used, name))
			continue;
		str_cleanup char *p = sys_path(dir, de->d_name);
		/* The .json goes first: a layer without it is not there. */
		if (strip_json) {
			str_cleanup char *json = xasprintf("%s/%.*s.json", dir, STR_ARG(name));
			unlink(json);
		}
		e = sys_remove_tree(p);
	}
	closedir(d);
	return e;
}

/* Removes old partial downloads: nobody came back for them in a day. */
static void sweep_ingest(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	if (!d)
		return;
	while ((de = readdir(d))) {
		struct stat st;
		if (de->d_name[0] != '.' && fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    st.st_mtime + 86400 < time(NULL))
			unlinkat(dirfd(d), de->d_name, 0);
	}
	closedir(d);
}

struct error *image_gc(struct image_store *s)
{
	fd_cleanup int use = -1;
	struct error *e = lock_file(s, "use.lock", LOCK_EX | LOCK_NB, &use);
	if (error_is_sys(e, EWOULDBLOCK)) {
		error_free(e);
		return NULL;
	}
	if (e)
		return e;
	fd_cleanup int lock = -1;
	TRY(lock_file(s, "lock", LOCK_EX, &lock));
	arena_cleanup struct arena a = {0};
	struct rt_v1_image_index x;
	TRY(index_read(s, &a, &x));
	struct map layers = {0}, blobs = {0}, none = {0};
	e = claims_use(s, &layers);
	for (uint32_t i = 0; i < x.images.n; i++) {
		map_set(&blobs, str_sub(x.images.v[i].id, 7, DIGEST_LEN), &blobs);
		map_set(&blobs, str_sub(x.images.v[i].manifest, 7, DIGEST_LEN), &blobs);
		for (uint32_t j = 0; j < x.images.v[i].layers.n; j++)
			map_set(&layers, layer_name(x.images.v[i].layers.v[j]), &layers);
	}
	str_cleanup char *blob_dir = sys_path(s->root, "blobs/sha256");
	str_cleanup char *tmp = sys_path(s->root, "tmp");
	str_cleanup char *ingest = sys_path(s->root, "ingest");
	if (!e)
		e = sweep_dir(s->layers, true, &layers);
	if (!e)
		e = sweep_dir(blob_dir, false, &blobs);
	if (!e)
		e = sweep_dir(tmp, false, &none);
	sweep_ingest(ingest);
	map_free(&layers);
	map_free(&blobs);
	return e;
}

static struct error *unregister(struct image_store *s, struct str ref)
{
	arena_cleanup struct arena a = {0};
	fd_cleanup int lock = -1;
	TRY(lock_file(s, "lock", LOCK_EX, &lock));
	struct rt_v1_image_index x;
	struct str tag;
	TRY(index_read(s, &a, &x));
	struct rt_v1_image_record *im = find(&a, &x, ref, &tag);
	if (!im)
		return NULL;
	if (tag.n && im->tags.n > 1) {
		drop_str(im->tags.v, &im->tags.n, tag);
	} else {
		size_t i = (size_t)(im - x.images.v);
		memmove(im, im + 1, (x.images.n - i - 1) * sizeof(*im));
		x.images.n--;
	}
	return index_write(s, &x);
}

struct error *image_remove(struct image_store *s, struct str ref)
{
	TRY(unregister(s, ref));
	return image_gc(s);
}

struct error *image_usage(struct image_store *s, uint64_t *bytes, uint64_t *inodes)
{
	return sys_disk_usage(s->root, bytes, inodes);
}

struct error *image_claim(struct image_store *s, struct arena *a, struct str id, const char *owner, struct strings *layers)
{
	fd_cleanup int lock = -1;
	TRY(lock_file(s, "lock", LOCK_SH, &lock));
	struct rt_v1_image_index x;
	TRY(index_read(s, a, &x));
	for (uint32_t i = 0; i < x.images.n; i++) {
		struct rt_v1_image_record *im = &x.images.v[i];
		if (!str_eq(im->id, id))
			continue;
		buf_cleanup struct buf b = {0};
		buf_printf(&b, "%s\n", owner);
		*layers = (struct strings){0};
		for (uint32_t j = im->layers.n; j-- > 0;) {
			*arena_push(a, layers) = layer_name(im->layers.v[j]);
			if (!layer_present(s, im->layers.v[j]))
				return error_new("layer %.*s of image %.*s is missing on disk; pull the image again",
						 STR_ARG(im->layers.v[j]), STR_ARG(id));
			buf_str(&b, layer_name(im->layers.v[j]));
			buf_putc(&b, '\n');
		}
		str_cleanup char *claim = claim_path(s, owner);
		return sys_write_atomic(claim, buf_view(&b), 0600, false);
	}
	return error_status(404, "NotFound", "image \"%.*s\" is not present", STR_ARG(id));
}

void image_unclaim(struct image_store *s, const char *owner)
{
	str_cleanup char *claim = claim_path(s, owner);
	unlink(claim);
}
