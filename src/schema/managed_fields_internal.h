/*
 * schema/managed_fields_internal.h: what managed_fields.c (ownership and updates), managed_fields_entries.c (the list in metadata) and
 * managed_fields_apply.c share.
 */
#ifndef SKIFF_SCHEMA_MANAGED_FIELDS_INTERNAL_H
#define SKIFF_SCHEMA_MANAGED_FIELDS_INTERNAL_H

#include "schema/managed_fields.h"
#include "schema/typed_merge.h"

struct manager { /* one entry of metadata.managedFields */
	struct str name, api_version, subresource;
	bool applied;
	struct str time; /* RFC 3339, empty: none */
	const struct field_set *set;
	struct str raw;  /* FieldsV1 of raw_set, as it was read */
	const struct field_set *raw_set;
	bool self;       /* the write under way, before it is joined with its entry */
};

struct managers {
	struct manager *v;
	uint32_t n, cap;
};

typedef __typeof__(((struct meta_v1_object_meta *)0)->managed_fields) entry_list;

/* ---- managed_fields_entries.c ---- */
/* Apply entries are one for all versions. */
bool manager_same(const struct manager *a, const struct manager *b);
int manager_order(const void *x, const void *y); /* of qsort: as they are written */
struct manager *managers_find(struct managers *m, const struct manager *key);
void managers_remove(struct managers *m, uint32_t i);
void managers_remove_empty(struct managers *m); /* those that own nothing */
/* The same entries but for their times. */
bool managers_same(struct arena *a, struct managers *x, struct managers *y);
/* 422 for what is no entry. list: NULL and what is no array are none. */
struct error *managers_decode(struct arena *a, const struct jv *list, struct managers *out);
struct error *managers_decode_typed(struct arena *a, const entry_list *list, struct managers *out);
void managers_encode_typed(struct arena *a, struct managers *m, entry_list *out);
/* The list of a tree; NULL: it has none. */
const struct jv *managed_fields_of(const struct jv *obj);
/* obj without it; a copy of the two objects on the way, so that obj stays. */
struct jv managed_fields_without(struct arena *a, const struct jv *obj);
void managed_fields_set(struct arena *a, struct jv *obj, struct managers *m);

/* ---- managed_fields.c ---- */
struct work {
	struct arena *a;
	const struct managed_fields_request *req;
	const struct field_set *reset;
	const struct jv *live; /* what was before; NULL: not known */
	struct {
		struct live_at {
			struct str version;
			struct jv v;
			struct shape shape;
			bool gone;
		} *v;
		uint32_t n, cap;
	} lives; /* it at versions that were asked for: somebody else's work */
};
struct conflict {
	struct manager manager;
	const struct field_set *set;
};

struct conflicts {
	struct conflict *v;
	uint32_t n, cap;
};

extern const struct field_set stripped_fields; /* what nobody owns */

struct work work_of(struct arena *a, const struct managed_fields_request *req);
struct str work_now(struct work *w);
struct str request_manager(const struct managed_fields_request *req);
/* What an object of the kind is before it exists. */
struct jv empty_object(struct arena *a, const struct managed_fields_request *req, const struct jv *like);
/* The object at a version, and its shape there; *gone when that version is not served. 500 when it has what that version does not know. */
struct error *work_at_version(struct work *w, const struct jv *v, struct str version, struct jv *out, struct shape *shape, bool *gone);
/* The fields of a set that may be owned through the request's resource. */
const struct field_set *work_filter(struct work *w, const struct field_set *s);
/* Entries from before the schema changed. */
struct error *work_reconcile(struct work *w, const struct jv *live, struct managers *m);
/* Changes between old and new become `name`'s; others lose them. */
struct error *work_update(struct work *w, const struct jv *old, const struct jv *new, struct managers *m, struct str name);
/*
 * Takes what changed between old and new from all managers but `self`. Without
 * force, changed fields of others are conflicts and nothing is taken.
 */
struct error *take_ownership(struct work *w, const struct jv *old, const struct jv *new, struct managers *m, const struct manager *self,
			     bool force, struct comparison *own, struct conflicts *conflicts);

#endif
