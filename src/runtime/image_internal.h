/* runtime/image_internal.h: what the files of the image store share. */
#ifndef SKIFF_RUNTIME_IMAGE_INTERNAL_H
#define SKIFF_RUNTIME_IMAGE_INTERNAL_H

#include <archive.h>
#include <archive_entry.h>
#include "runtime/image.h"
#include "runtime/sys.h"

struct image_store {
	char *root;
	char *layers;      /* root/l */
	uint64_t max_layer_bytes;
};

/*
 * libarchive is opened when the first image is read: it brings ICU and libxml2
 * along, which no idle process of Skiff should pay for.
 */
#define ARCHIVE_FNS(X)                                                                                                             \
	X(archive_read_new) X(archive_read_free) X(archive_read_open2) X(archive_read_support_filter_all)                          \
	X(archive_read_support_filter_none) X(archive_read_support_filter_gzip) X(archive_read_support_filter_zstd)                \
	X(archive_read_support_filter_xz) X(archive_read_support_filter_bzip2)                                                     \
	X(archive_read_support_format_raw) X(archive_read_support_format_tar) X(archive_read_support_format_empty)                 \
	X(archive_read_next_header) X(archive_read_data) X(archive_read_data_block) X(archive_error_string) X(archive_errno)       \
	X(archive_read_data_skip)                                                                                                  \
	X(archive_entry_pathname) X(archive_entry_filetype) X(archive_entry_mode) X(archive_entry_uid) X(archive_entry_gid)        \
	X(archive_entry_size) X(archive_entry_mtime) X(archive_entry_mtime_nsec) X(archive_entry_hardlink)                         \
	X(archive_entry_symlink) X(archive_entry_rdevmajor) X(archive_entry_rdevminor) X(archive_entry_xattr_reset)                \
	X(archive_entry_xattr_next)
struct archive_api {
#define X(f) __typeof__(&f) f;
	ARCHIVE_FNS(X)
#undef X
};
struct error *archive_api(const struct archive_api **out);

/* sha256, as "sha256:<hex>" */
#define DIGEST_LEN 71
struct sha256 {
	void *ctx;
};
void sha256_start(struct sha256 *h);
void sha256_add(struct sha256 *h, const void *p, size_t n);
void sha256_end(struct sha256 *h, char out[DIGEST_LEN + 1]); /* frees */
void digest_of(struct str bytes, char out[DIGEST_LEN + 1]);
/* "sha256:" + 64 lower-case hex digits. Other algorithms are refused: nothing else is in use. */
bool digest_valid(struct str d);
/* ROOT/blobs/sha256/<hex>, malloc'ed. */
char *blob_path(const struct image_store *s, struct str digest);
/* Stores small bytes (manifest, config) under their digest, verified when want is not empty. */
struct error *blob_put(struct image_store *s, struct str bytes, struct str want);
struct error *blob_get(struct image_store *s, struct str digest, struct buf *out);

/* Shared claim that imports hold so that layers are not removed under them. */
struct error *image_use_begin(struct image_store *s, int *fd);
void image_use_end(int *fd);
/* A new directory below tmp/, malloc'ed path. */
struct error *image_tmp_dir(struct image_store *s, char **out);

/* chain ids: *out is replaced by the chain of (*out, diff_id). */
struct str chain_id(struct arena *a, struct str parent, struct str diff_id);
struct str layer_name(struct str chain); /* 16 hex digits of it */
bool layer_present(struct image_store *s, struct str chain);

/* Where a layer's compressed bytes come from. */
struct layer_source {
	int fd;               /* read from its current offset to the end */
	struct str digest;    /* of the compressed bytes; empty: unknown (docker save), only diff_id is checked */
	struct str diff_id;   /* of the tar */
	struct str chain;
	const struct str *parents; /* chain ids below, lowest first */
	size_t n_parents;
	uint64_t total;       /* compressed bytes, for progress */
};
/* Unpacks, verifies and publishes one layer. */
struct error *layer_unpack(struct image_store *s, const struct layer_source *src, image_progress *progress, void *ctx);
/*
 * Cleans a tar member's path into out ("" is the root): no "..", no NUL, no empty parts, at most 4095 bytes.
 * False: refuse the archive.
 */
bool tar_path_clean(const char *in, char out[4096]);

/* Adds or updates an image; tags move to it from others. */
struct image_new {
	struct str id;        /* config digest */
	struct str manifest;  /* digest of the manifest */
	struct str tag;       /* full name or empty */
	struct str repo_digest; /* domain/path@digest or empty */
	const struct str *layers; /* chain ids, lowest first */
	size_t n_layers;
	struct str user;      /* config.User */
};
struct error *image_register(struct image_store *s, const struct image_new *n);

/*
 * From a manifest and config (bytes, verified) to a registered image; `open_layer` gives layer i's bytes.
 */
struct image_assemble {
	struct str manifest_bytes, config_bytes;
	struct str tag, repo_digest;
	struct error *(*open_layer)(void *ctx, size_t i, const struct oci_v1_descriptor *d, int *fd);
	void *open_ctx;
	bool layer_digests; /* the manifest's layer digests are true and are checked */
	image_progress *progress;
	void *progress_ctx;
};
struct error *image_assemble(struct image_store *s, struct arena *a, const struct image_assemble *as, struct str *id);

/* json_decode of a whole JSON document with a clear error. */
struct error *image_json(struct arena *a, const struct schema_type *t, struct str in, const char *what, void *out);
/* The manifest for this machine among an index's; NULL when there is none. */
const struct oci_v1_descriptor *platform_pick(const struct oci_v1_manifest *index);
const char *platform_arch(void); /* "amd64" */

#endif
