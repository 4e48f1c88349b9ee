/*
 * schema/table.h: server-side printing: meta.k8s.io/v1 Table as JSON, with
 * upstream's columns for each resource. Never decides what is listed.
 */
#ifndef SKIFF_SCHEMA_TABLE_H
#define SKIFF_SCHEMA_TABLE_H

#include "schema/json_path.h"

enum table_object { /* ?includeObject= */
	TABLE_OBJECT_METADATA, /* PartialObjectMetadata: the default */
	TABLE_OBJECT_NONE,
	TABLE_OBJECT_FULL,
};

struct table_column { /* a CRD's additionalPrinterColumns */
	struct str name, type, format, description;
	const struct json_path *path;
	int32_t priority;
};

struct table_options {
	enum table_object object;
	bool v1beta1;        /* meta.k8s.io/v1beta1, else v1 */
	bool no_headers;     /* rows only, as watches send after the first event */
	struct api_time now; /* for ages */
	struct str api_version; /* of the objects: "apps/v1" */
	struct str kind;
	const void *full; /* the object of a row that has one whole, where it is not what the cells are made of */
	const struct schema_type *full_type;
	const struct table_column *columns; /* custom resources; NULL: built-in */
	size_t n_columns;
};

/*
 * One table: table_begin, table_row for each object, table_end. `list` may be
 * NULL. Objects are of type r->type; custom resources (r == NULL) are trees, with the object itself in o->full unless rows have none.
 */
void table_begin(struct buf *b, const struct api_resource *r, const struct table_options *o,
		 const struct meta_v1_list_meta *list);
void table_row(struct buf *b, struct arena *scratch, const struct api_resource *r, const struct table_options *o,
	       const void *obj, bool first);
void table_row_tree(struct buf *b, struct arena *scratch, const struct table_options *o, const struct jv *obj, bool first);
void table_end(struct buf *b, const struct api_resource *r);

/* Ages as kubectl prints them: "45s", "3m5s", "2d4h", "3y10d". */
struct str human_duration(struct arena *a, int64_t seconds);

#endif
