/* schema/jv_internal.h: what trees (jv.c) and their texts (jv_text.c) share. */
#ifndef SKIFF_SCHEMA_JV_INTERNAL_H
#define SKIFF_SCHEMA_JV_INTERNAL_H

#include "schema/jv.h"

/* Room for the items of an array. */
void *jv_elements_new(struct arena *a, uint32_t cap, size_t size);
/* Gives an empty object room for cap > 0 members, for jv_set to fill. */
void jv_members_new(struct arena *a, struct jv *o, uint32_t cap);
/* malloc'ed pointers to the members in order of their keys. */
const struct jv_member **jv_members_sorted(const struct jv *o);

#endif
