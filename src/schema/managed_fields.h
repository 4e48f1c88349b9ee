/*
 * schema/managed_fields.h: server-side apply (KEP-555): which manager owns
 * which field, on every write path. Semantics of structured-merge-diff v6, as
 * far as users see them: metadata.managedFields and conflicts.
 */
#ifndef SKIFF_SCHEMA_MANAGED_FIELDS_H
#define SKIFF_SCHEMA_MANAGED_FIELDS_H

#include "schema/shape.h"

/* ---- sets of field paths ---- */

struct field_set; /* in an arena, immutable once returned; NULL is the empty set */

/* FieldsV1 ({"f:spec":{...}}) to a set and back; errors are parse errors with upstream's words. */
struct error *field_set_parse(struct arena *a, struct str fields_v1, const struct field_set **out);
void field_set_encode(struct buf *b, const struct field_set *s);
bool field_set_equal(const struct field_set *a, const struct field_set *b);
bool field_set_empty(const struct field_set *s);
const struct field_set *field_set_union(struct arena *a, const struct field_set *x, const struct field_set *y);
const struct field_set *field_set_difference(struct arena *a, const struct field_set *x, const struct field_set *y);
const struct field_set *field_set_intersection(struct arena *a, const struct field_set *x, const struct field_set *y);
/* The difference that also removes everything below a member of y. */
const struct field_set *field_set_recursive_difference(struct arena *a, const struct field_set *x,
						       const struct field_set *y);
/* Only leaves: members that have no member below them. */
const struct field_set *field_set_leaves(struct arena *a, const struct field_set *s);
/* Calls fn with the text of each member (".spec.containers[name=\"a\"].image"), in order. */
void field_set_each(struct arena *a, const struct field_set *s, void (*fn)(void *ctx, struct str path), void *ctx);
/* The one path that is named with dots ("spec.replicas"). */
const struct field_set *field_set_of_path(struct arena *a, struct str dotted);
/* All fields of a value of a shape. */
const struct field_set *field_set_of(struct arena *a, struct shape shape, const struct jv *v);

/* ---- managed fields of objects ---- */

struct managed_fields_request {
	struct shape shape;      /* of the object */
	struct str api_version;  /* the request's group/version ("apps/v1") */
	struct str subresource;  /* "" or "status", "scale", ... */
	struct str manager;      /* at most 128 bytes; field_manager_from_user_agent() when none was given */
	struct api_time now;
	/*
	 * Fields this (sub)resource's strategy resets and so nobody may own
	 * through it: dotted paths ("status"). With `only`, the paths that may be
	 * owned instead (custom resources: "status").
	 * NULL-terminated or NULL.
	 */
	const char *const *reset;
	const char *const *only;
	/* The object (of whatever version) at another version, for entries of other versions; NULL: same schema, only
	 * apiVersion differs. */
	struct error *(*convert)(void *ctx, struct arena *a, const struct jv *obj, struct str api_version, struct jv *out,
				 struct shape *shape);
	void *convert_ctx;
};

/* Upstream's reset fields of a built-in resource and subresource ("" for the main one). */
void managed_fields_reset_of(const struct api_resource *r, struct str subresource, struct managed_fields_request *req);
/* What stands before the first '/' of a User-Agent, cut to 128 bytes of printable text. */
struct str field_manager_from_user_agent(struct arena *a, struct str user_agent);

/*
 * After a create (live == NULL), update or patch: gives `obj` (the new object, as
 * it will be stored, still with the managedFields the client sent) its
 * metadata.managedFields. live is the stored object before the write. An empty
 * list sent by the client resets; an invalid one keeps live's.
 */
struct error *managed_fields_update(struct arena *a, const struct managed_fields_request *req, const struct jv *live,
				    struct jv *obj);
/* What stands in the metadata can be read; else a sentence. */
struct error *managed_fields_check(struct arena *a, const struct meta_v1_object_meta *m);
/*
 * Applies `config` (apply-patch body, parsed) to live (NULL: create) as
 * manager: *out is the merged object with its managedFields; *changed is false
 * when nothing but timestamps would change (then *out is live). 409 Conflict
 * with causes FieldManagerConflict when other managers own different values
 * and !force; 400 when config carries managedFields; 422 and 500s as upstream.
 */
struct error *managed_fields_apply(struct arena *a, const struct managed_fields_request *req, const struct jv *live,
				   const struct jv *config, bool force, struct jv *out, bool *changed);

/*
 * The scale subresource (managed_fields_scale.c): its field is the object's replicas, so who manages these manages
 * that. Where the replicas are, by the version that an entry names; an empty path: that version has no scale. Entries
 * of other versions go.
 */
struct replicas_path {
	struct str api_version, path; /* "apps/v1", "spec.replicas" */
};
/* The entries of an object's scale. */
struct error *managed_fields_to_scale(struct arena *a, const struct replicas_path *paths, size_t n,
				      const struct meta_v1_object_meta *parent, struct meta_v1_object_meta *scale);
/* parent's entries after a write of its scale through api_version, which left the scale with its entries. */
struct error *managed_fields_from_scale(struct arena *a, const struct replicas_path *paths, size_t n,
					struct str api_version, const struct meta_v1_object_meta *scale,
					struct meta_v1_object_meta *parent);

/*
 * Merges config into live as an apply would, but nobody comes to own anything (apply_configuration.c). Errors: sentences; among them
 * that config sets what only ever changes as a whole (atomic lists, maps and structs).
 */
struct error *apply_configuration(struct arena *a, struct shape shape, const struct jv *live, const struct jv *config, struct jv *out);

/* Two trees of objects are equal, whatever their managedFields. */
bool managed_fields_alone_differ(struct arena *a, const struct jv *x, const struct jv *y);
/* managed_fields_update and managed_fields_apply for typed objects of type req->shape.type; `obj`/`out` are changed in place / filled (zeroed before). */
struct error *managed_fields_update_object(struct arena *a, const struct managed_fields_request *req, const void *live,
					   void *obj);
struct error *managed_fields_apply_object(struct arena *a, const struct managed_fields_request *req, const void *live,
					  const struct jv *config, bool force, void *out, bool *changed);

#endif
