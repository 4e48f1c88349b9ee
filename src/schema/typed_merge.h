/*
 * schema/typed_merge.h: values walked along a shape: structured-merge-diff's
 * `typed` package, for managed_fields*.c and
 * apply_configuration.c only. Walks are as deep as the values
 * (JV_MAX_DEPTH).
 */
#ifndef SKIFF_SCHEMA_TYPED_MERGE_H
#define SKIFF_SCHEMA_TYPED_MERGE_H

#include "schema/field_set.h"

struct comparison {
	const struct field_set *removed, *modified, *added;
};

/* NULL when v is of the shape, else what is wrong (".spec.x: field not declared in schema"), in the arena. */
const char *typed_validate(struct arena *a, struct shape shape, const struct jv *v, bool allow_duplicates);
struct comparison typed_compare(struct arena *a, struct shape shape, const struct jv *lhs, const struct jv *rhs);
/* lhs with everything rhs has; rhs must be valid without duplicates. */
struct jv typed_merge(struct arena *a, struct shape shape, const struct jv *lhs, const struct jv *rhs);
const struct field_set *typed_set(struct arena *a, struct shape shape, const struct jv *v);
/* v without the items of the set. */
struct jv typed_remove(struct arena *a, struct shape shape, const struct jv *v, const struct field_set *items);
/* The set with every named field on the way to a member as a member. */
const struct field_set *typed_named_fields(struct arena *a, struct shape shape, const struct field_set *s);

/* The set after its schema changed: what has become atomic is owned as a whole. The same pointer when nothing changes. */
const struct field_set *typed_reconcile(struct arena *a, struct shape shape, const struct field_set *s);

#endif
