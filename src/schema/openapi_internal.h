/* schema/openapi_internal.h: between the openapi_*.c files. */
#ifndef SKIFF_SCHEMA_OPENAPI_INTERNAL_H
#define SKIFF_SCHEMA_OPENAPI_INTERNAL_H

#include "base/map.h"
#include "schema/openapi.h"

struct openapi_other { /* a definition that is no struct (Time, Quantity, ...), or that of a custom resource */
	struct str name;
	const struct openapi_crd *crd;
	bool list;
};

struct openapi_param { /* v2: one that many operations refer to */
	const char *name;
	struct str shown, json;
};

struct openapi_doc { /* one document being made */
	struct arena *a;
	struct buf *b;
	bool v3;
	struct map seen;     /* definitions named so far */
	struct map built_in; /* v2: names of the definitions of built-in types, once there is a custom resource */
	LIST(const struct schema_type *) types; /* to be defined, in order of first use */
	LIST(struct openapi_other) others;
	struct map param_names; /* JSON -> struct openapi_param */
	LIST(struct openapi_param *) params;
	/* v3: of the document; empty group and version: all (v2) */
	struct str group, version;
	bool all;
	bool custom; /* v3: custom resources only */
};

/* What t is and then what each of its fields is, in the order of t->fields; "": not described. Lives as long as d's arena. */
const char **openapi_docs(struct openapi_doc *d, const struct schema_type *t);
/* {"$ref":"..."} to a type, which is defined later. */
void openapi_ref(struct openapi_doc *d, const struct schema_type *t);
/* The same to a definition by its full name. */
void openapi_ref_name(struct openapi_doc *d, struct str name);
/* "definitions" or "components": everything named so far and what that names. */
void openapi_definitions(struct openapi_doc *d);
/* To a custom resource, or to the list of it. */
void openapi_ref_crd(struct openapi_doc *d, const struct openapi_crd *c, bool list);
/* openapi_crd.c: the definition of that, whole; and its name: "com.example.v1.Thing", with "_v2" behind that of a built-in type. */
void openapi_crd_definition(struct openapi_doc *d, const struct openapi_crd *c, bool list);
struct str openapi_crd_name(struct openapi_doc *d, const struct openapi_crd *c, bool list);

#endif
