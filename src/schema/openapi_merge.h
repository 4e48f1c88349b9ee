/*
 * schema/openapi_merge.h: OpenAPI documents of other servers, as trees: what is taken of them, how they go into one
 * document, and version 2 as version 3. Upstream's kube-openapi (pkg/aggregator, pkg/openapiconv). The documents come
 * from outside: what has not the shape that is expected is treated as absent. All functions recurse no deeper than the
 * tree.
 */
#ifndef SKIFF_SCHEMA_OPENAPI_MERGE_H
#define SKIFF_SCHEMA_OPENAPI_MERGE_H

#include "schema/jv.h"

/* 400 when it is no document of version 2: no object, or paths or definitions that are none. */
struct error *openapi_v2_check(const struct jv *doc);
/* Paths that do not begin with `prefix` go, and the definitions that only those need. */
void openapi_v2_filter(struct arena *a, struct jv *doc, struct str prefix);
/*
 * Paths, definitions and parameters of `from` into `into`, whose paths stay where both have one. A definition or
 * parameter of the same name and another meaning becomes NAME_v2 (or _v3 ...); one of the same meaning is shared, with
 * the kinds of both. `from` is used up: its nodes become part of `into`. a: where new nodes go.
 */
void openapi_v2_merge(struct arena *a, struct jv *into, struct jv *from);
/* The document as version 3.0.0; shares nodes with v2. What version 3 of upstream leaves out is left out. */
void openapi_v2_to_v3(struct arena *a, const struct jv *v2, struct jv *v3);

#endif
