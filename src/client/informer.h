/*
 * client/informer.h: a local, always current copy of what one list+watch sees.
 *
 * It keeps the encoded bytes of each object and a small index, not decoded
 * structs: reads decode what they need into the caller's arena (idea 3).
 * Lists, then watches from there; resumes by resourceVersion after a lost
 * connection, relists after 410, backs off 1-30 s with jitter. Runs on a fiber
 * of the loop that started it.
 */
#ifndef SKIFF_CLIENT_INFORMER_H
#define SKIFF_CLIENT_INFORMER_H

#include "client/client.h"
#include "schema/selector.h"

struct cached_object { /* immutable once published; reference-counted */
	uint32_t refs;
	struct str ns, name, uid, resource_version;
	struct str controller_kind, controller_name, controller_uid; /* ownerReference with controller=true, or empty */
	struct str_map labels;
	bool deleting;               /* has deletionTimestamp */
	struct block *json;
};
struct cached_object *cached_ref(struct cached_object *o);
void cached_unref(struct cached_object *o);

struct informer;
struct informer_opts {
	const struct api_resource *resource;
	struct str ns;               /* empty: all */
	struct str label_selector, field_selector;
	bool metadata_only;          /* PartialObjectMetadata: objects decode as meta_v1_partial_object_metadata */
};
enum informer_event { INFORMER_ADDED, INFORMER_UPDATED, INFORMER_DELETED };
/* Called on the informer's fiber; must not wait. old is NULL for added, new is NULL for deleted. After a relist, what vanished comes as deleted. */
typedef void informer_handler(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_);

struct informer *informer_new(struct client *c, const struct informer_opts *o);
/* Before start; late handlers get ADDED for everything there is. At most 32. */
void informer_on_event(struct informer *i, informer_handler *h, void *ctx);
void informer_start(struct informer *i);
/* Suspends until the first list has been delivered to the handlers. */
struct error *informer_wait_synced(struct informer *i);
bool informer_synced(const struct informer *i);
void informer_stop(struct informer *i); /* ends and frees */

/* Reads: never wait. Decoded into the arena; NULL when absent. Decoded strings point into the block, which the arena's user must not
 * outlive: so the bytes are copied into the arena first. */
void *informer_get(struct informer *i, struct arena *a, struct str ns, struct str name);
/* Without decoding: borrowed, valid until the next wait; NULL when absent. */
const struct cached_object *informer_peek(struct informer *i, struct str ns, struct str name);
void *cached_decode(struct informer *i, struct arena *a, const struct cached_object *o);
/* Walks all (ns empty) or a namespace, in key order, optionally by selector; borrowed; `each` must not wait; false stops. */
void informer_each(struct informer *i, struct str ns, const struct selector *s,
		   bool (*each)(void *ctx, const struct cached_object *o), void *ctx);
/* Objects whose controller owner has this uid. */
void informer_each_owned(struct informer *i, struct str owner_uid,
			 bool (*each)(void *ctx, const struct cached_object *o), void *ctx);
/* Convenience: decoded array in the arena. */
size_t informer_list(struct informer *i, struct arena *a, struct str ns, const struct selector *s, void ***objs);
size_t informer_list_owned(struct informer *i, struct arena *a, struct str owner_uid, void ***objs);
size_t informer_count(const struct informer *i);

#endif
