/*
 * runtime/image.h: the image store: images from OCI layouts, `docker save`
 * archives and registries, unpacked once a layer into overlayfs lower
 * directories. Used by the CRI server (on the thread pool) and by `skiff image`
 * (as plain calls): every call blocks. Several processes may use one store;
 * files and locks below `root` are all they share:
 *
 *   index.json       images: ids, names, layers (atomic, fsynced)
 *   blobs/sha256/    manifests and configs (layer blobs are dropped once unpacked)
 *   l/NAME           a layer's tree, NAME = first 16 hex digits of its chain id
 *   l/NAME.json      written when the tree is whole
 *   claims/          which layers containers use
 *   tmp/             unfinished work; ingest/ keeps partial downloads to resume
 *   lock, use.lock   flock: the index; running imports (shared) against layer removal (exclusive)
 *
 * Every blob is verified against its sha256 digest before it is used. It never
 * writes outside root and never runs anything from an image.
 */
#ifndef SKIFF_RUNTIME_IMAGE_H
#define SKIFF_RUNTIME_IMAGE_H

#include <stdatomic.h>
#include "base/buf.h"
#include "base/error.h"
#include "schema/api.h"

/* Limits on what others send. */
#define IMAGE_MAX_LAYERS 120            /* overlayfs takes its layers in one page */
#define IMAGE_MAX_ENTRIES 2000000       /* files of one layer */
#define IMAGE_MAX_DEVICES 256           /* device nodes of one layer */
#define IMAGE_MAX_JSON (4u << 20)       /* a manifest, index or config, bytes (the distribution spec's limit) */
#define IMAGE_MAX_LAYER_BYTES (64ull << 30) /* one layer unpacked, unless the store was opened with less */

struct image_store;
/* Opens (makes) the store in directory root (the --root flag + "/images"). max_layer_bytes 0: IMAGE_MAX_LAYER_BYTES. */
struct error *image_store_open(const char *root, uint64_t max_layer_bytes, struct image_store **out);
void image_store_close(struct image_store *s);

/* A reference split and normalised as Docker's: "busybox" is docker.io/library/busybox:latest. */
struct image_ref {
	struct str domain; /* "docker.io", "localhost:5000" */
	struct str path;   /* "library/busybox" */
	struct str tag;    /* "latest"; empty when only a digest was given */
	struct str digest; /* "sha256:..." or empty */
};
struct error *image_ref_parse(struct arena *a, struct str text, struct image_ref *out);
struct str image_ref_tagged(struct arena *a, const struct image_ref *r);   /* "docker.io/library/busybox:latest" */
struct str image_ref_digested(struct arena *a, const struct image_ref *r, struct str digest);

/* All images, in the order they came. */
struct error *image_list(struct image_store *s, struct arena *a, struct rt_v1_image_index *out);
/* By name, name@digest, id ("sha256:...", hex, or a unique prefix of at least 3 digits). *out is NULL when there is none. */
struct error *image_find(struct image_store *s, struct arena *a, struct str ref, struct rt_v1_image_record **out);
/* The image's OCI config. */
struct error *image_config(struct image_store *s, struct arena *a, const struct rt_v1_image_record *r, struct oci_v1_image *out);

/* Called now and then with what is being done; `done` of `total` bytes (total 0: unknown). May be NULL. */
typedef void image_progress(void *ctx, const char *what, uint64_t done, uint64_t total);

/*
 * Imports an OCI layout (directory, or tar plain/gzip/zstd/xz) or a `docker save` archive. `name` (or empty) names images
 * that carry no full name of their own. The names (or ids of unnamed images) are appended to *names.
 */
struct error *image_import(struct image_store *s, struct arena *a, const char *path, struct str name, image_progress *progress,
			   void *ctx, struct strings *names);

struct image_auth { /* CRI AuthConfig; all may be empty */
	struct str username, password;
	struct str auth;           /* base64 of "user:password" */
	struct str server_address;
	struct str identity_token; /* OAuth2 refresh token */
	struct str registry_token; /* a bearer token for the registry */
};
struct image_pull {
	struct str ref;
	struct image_auth auth;
	bool plain_http;     /* http instead of https; localhost registries are http anyway */
	atomic_bool *cancel; /* set by another thread to give up; or NULL */
	image_progress *progress;
	void *ctx;
};
/* Pulls from a registry (distribution API v2), the manifest of this machine's platform. The image's id goes to *id. */
struct error *image_pull(struct image_store *s, struct arena *a, const struct image_pull *p, struct str *id);

/* Removes a name, or with an id the image; layers go when neither an image nor a container's claim uses them.
 * Nothing to remove is no error, as CRI wants. */
struct error *image_remove(struct image_store *s, struct str ref);
/* Frees what no image and no container uses, and unfinished work; skipped while an import runs. */
struct error *image_gc(struct image_store *s);
struct error *image_usage(struct image_store *s, uint64_t *bytes, uint64_t *inodes);

/*
 * For containers: keeps the layers of image `id` from removal as long as the directory `owner` exists (or until
 * image_unclaim), and gives their NAMEs below image_layers_dir, uppermost first, as overlayfs wants them.
 */
struct error *image_claim(struct image_store *s, struct arena *a, struct str id, const char *owner, struct strings *layers);
void image_unclaim(struct image_store *s, const char *owner);
/* The directory that layer NAMEs stand in. */
const char *image_layers_dir(const struct image_store *s);

#endif
