/*
 * schema/patch.h: the three patches of PATCH: JSON patch (RFC 6902), JSON merge
 * patch (RFC 7386) and strategic merge patch (API conventions). They work on
 * trees; the strategic one is guided by the tables. Server-side apply is
 * schema/managed_fields.h.
 *
 * Errors as upstream: 400 BadRequest for what cannot be parsed, 422 Invalid for
 * what cannot be applied, 413 RequestEntityTooLarge past the limits.
 */
#ifndef SKIFF_SCHEMA_PATCH_H
#define SKIFF_SCHEMA_PATCH_H

#include "schema/jv.h"

#define JSON_PATCH_MAX_OPERATIONS 10000

enum patch_type {
	PATCH_JSON,      /* application/json-patch+json */
	PATCH_MERGE,     /* application/merge-patch+json */
	PATCH_STRATEGIC, /* application/strategic-merge-patch+json */
	PATCH_APPLY,     /* application/apply-patch+yaml */
	PATCH_APPLY_CBOR,/* application/apply-patch+cbor */
};

/* From a Content-Type without parameters; false when it is none of them. */
bool patch_type_parse(struct str content_type, enum patch_type *out);

/* Each changes *doc in place (parts of the patch are shared with it); `text` must live as long as the arena. */
struct error *json_patch(struct arena *a, struct jv *doc, struct str text);
struct error *json_merge_patch(struct arena *a, struct jv *doc, struct str text, struct decode_report *report);
struct error *strategic_merge_patch(struct arena *a, const struct schema_type *t, struct jv *doc, struct str text,
				    struct decode_report *report);
/* The merge of parsed trees (RFC 7386): returns the merged value. */
struct jv json_merge(struct arena *a, const struct jv *doc, const struct jv *patch);

/*
 * Applies a patch of the first three types to a typed object: *out (zeroed,
 * t->size bytes) gets the result, decoded and not yet defaulted. report (may be
 * NULL) gets unknown and duplicate fields of the patch.
 */
struct error *object_patch(struct arena *a, enum patch_type type, const struct schema_type *t, const void *obj,
			   struct str text, struct decode_report *report, void *out);
/* The 422 of a patched object (its JSON; cut to 4 KiB) that is not of its type; takes the cause. */
struct error *object_not_of_type(struct arena *a, struct error *cause, struct str json);

#endif
