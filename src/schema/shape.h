/*
 * schema/shape.h: how a value merges: the one view of built-in tables and of
 * CustomResourceDefinition schemas that patches and server-side apply walk by.
 * A shape is a few pointers, passed by value; nothing is built.
 */
#ifndef SKIFF_SCHEMA_SHAPE_H
#define SKIFF_SCHEMA_SHAPE_H

#include "schema/jv.h"

struct shape {
	const struct schema_type *type;   /* a struct of the built-in API */
	const struct schema_field *field; /* a field of one, or its element */
	const struct apiextensions_v1_json_schema_props *props; /* a node of a CRD's schema */
	bool elem;     /* of field: one element of the list or map, not the whole */
	bool resource; /* props of a whole object: kind, apiVersion and metadata are known */
	bool open;     /* props: this or what is above it has x-kubernetes-preserve-unknown-fields: members that it does not name are known, too */
};

enum shape_kind {
	SHAPE_UNTYPED, /* no schema: deduced from the value (maps granular, lists atomic) */
	SHAPE_SCALAR,
	SHAPE_STRUCT,      /* object with known members, merged member by member */
	SHAPE_MAP,         /* object with any members, merged member by member */
	SHAPE_ATOMIC_MAP,  /* object owned as a whole */
	SHAPE_ATOMIC_LIST, /* list owned as a whole */
	SHAPE_SET,         /* list of scalars, owned by value */
	SHAPE_LIST_MAP,    /* list of objects, owned by keys */
};

/* A whole object of a built-in type. */
static inline struct shape shape_of_type(const struct schema_type *t)
{
	return (struct shape){.type = t};
}
/* A whole custom resource: openAPIV3Schema of its version; NULL: no schema. */
struct shape shape_of_crd(const struct apiextensions_v1_json_schema_props *schema);
enum shape_kind shape_kind(struct shape s);
/* The shape of member `name`; false when the schema does not know it (then *out is SHAPE_UNTYPED). */
bool shape_member(struct shape s, struct str name, struct shape *out);
/* The shape of an element of a list. */
struct shape shape_element(struct shape s);
/* SHAPE_LIST_MAP: key i, false behind the last; *default_json is empty or the key's default as JSON. */
bool shape_list_key(struct shape s, size_t i, struct str *name, struct str *default_json);

#endif
