/*
 * schema/defaults.h: the v1 defaults of every kind. Static ones are data
 * (default= in api/), conditional ones a function a type (defaults_*.c).
 */
#ifndef SKIFF_SCHEMA_DEFAULTS_H
#define SKIFF_SCHEMA_DEFAULTS_H

#include "schema/api.h"

/* Fills absent fields of obj (type t, any depth, lists of objects too) as upstream's versioned defaulting does. Idempotent. */
void object_default(struct arena *a, const struct schema_type *t, void *obj);

#endif
