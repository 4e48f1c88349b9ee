/*
 * schema/json_path.h: the JSONPath of printer columns (client-go/util/jsonpath, without range): fields, indices and
 * slices, wildcards, unions, filters, recursive descent. Never changes a value.
 */
#ifndef SKIFF_SCHEMA_JSON_PATH_H
#define SKIFF_SCHEMA_JSON_PATH_H

#include "schema/jv.h"

struct json_path;
/* ".spec.list[?(@.name=='a')].value", compiled into the arena, text shared; NULL: it cannot be read (or has above 256
 * steps). */
const struct json_path *json_path_new(struct arena *a, struct str text);
/* The first value it leads to; NULL: none, or it does not fit what is there (an index out of bounds, kinds that do not
 * compare). */
const struct jv *json_path_first(struct arena *a, const struct json_path *p, const struct jv *v);

#endif
