/*
 * schema/field_set.h: the inside of struct field_set, shared by field_set.c,
 * typed_merge.c and managed_fields*.c only. A set is a trie: nodes sorted by
 * path element; a node may be a member and may have children.
 */
#ifndef SKIFF_SCHEMA_FIELD_SET_H
#define SKIFF_SCHEMA_FIELD_SET_H

#include "schema/managed_fields.h"

enum pe_kind { /* in upstream's order */
	PE_FIELD, /* value: the name, a string */
	PE_KEY,   /* value: an object of the keys, sorted by name */
	PE_VALUE, /* value: the element of a set */
	PE_INDEX, /* value: an integer */
};

struct path_element {
	uint8_t kind;
	struct jv value;
};

struct fs_node {
	struct path_element pe;
	bool member;
	const struct field_set *child; /* NULL or not empty */
};

struct field_set {
	struct fs_node *v;
	uint32_t n, cap;
};

static inline struct path_element pe_field(struct str name)
{
	return (struct path_element){PE_FIELD, jv_string(name)};
}
int pe_cmp(const struct path_element *a, const struct path_element *b);
/* ".name", "[k=\"v\"]", "[=v]", "[0]". */
void pe_text(struct buf *b, const struct path_element *pe);
/* Appends a node unless it is neither a member nor has children; fs_sort must follow when order is not known. */
void fs_push(struct arena *a, struct field_set *s, struct path_element pe, bool member, const struct field_set *child);
void fs_sort(struct field_set *s);
const struct fs_node *fs_find(const struct field_set *s, const struct path_element *pe);
/* s as a value of an arena, NULL when it is empty. */
const struct field_set *fs_keep(struct arena *a, const struct field_set *s);
/* Only paths that a dotted pattern leads to ("spec.containers.*.resources"), with all below them. */
const struct field_set *fs_only(struct arena *a, const struct field_set *s, const char *const *patterns);

#endif
