/* schema/openapi_internal.h: between the openapi_*.c files. */
#ifndef SKIFF_SCHEMA_OPENAPI_INTERNAL_H
#define SKIFF_SCHEMA_OPENAPI_INTERNAL_H

#include "base/map.h"
#include "schema/openapi.h"

struct openapi_doc { /* one document being made */
	struct arena *a;
	struct buf *b;
	bool v3;
	struct map seen;     /* definitions named so far */
	LIST(const struct schema_type *) types; /* to be defined, in order of first use */
	LIST(struct str) others; /* definitions that are no struct (Time, Quantity, ...) */
	/* v3: of the document; empty group and version: all (v2) */
	struct str group, version;
	bool all;
	const struct openapi_crd *crds;
	size_t n_crds;
};

/* {"$ref":"..."} to a type, which is defined later. */
void openapi_ref(struct openapi_doc *d, const struct schema_type *t);
/* The same to a definition by its full name. */
void openapi_ref_name(struct openapi_doc *d, struct str name);
/* "definitions" or "components": everything named so far and what that names. */
void openapi_definitions(struct openapi_doc *d);
/* Definition names of a CRD: "com.example.v1.Thing". */
struct str openapi_crd_name(struct arena *a, const struct openapi_crd *c, bool list);
/* A CRD's own schema as an OpenAPI schema, whole. */
void openapi_crd_definition(struct openapi_doc *d, const struct openapi_crd *c, bool list);

#endif
