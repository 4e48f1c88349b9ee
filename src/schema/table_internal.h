/* schema/table_internal.h: between table.c and the computed cells (table_cells*.c). */
#ifndef SKIFF_SCHEMA_TABLE_INTERNAL_H
#define SKIFF_SCHEMA_TABLE_INTERNAL_H

#include "schema/jv.h"
#include "schema/table.h"

struct table_cell { /* what a computed cell sees */
	struct arena *a;
	const struct schema_type *type;
	const void *obj;
	const struct meta_v1_object_meta *meta;
	struct api_time now;
};

/* The value at a path of members ("spec.template.spec"), NULL where a pointer on the way is; *f is the last field. */
const void *table_value(const struct schema_type *t, const void *obj, struct str path, const struct schema_field **f);
/* A JSON string cell. */
void cell_str(struct buf *b, struct str s);
void cell_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The string, or other text when it is empty. */
void cell_str_or(struct buf *b, struct str s, const char *other);
/* Time since t in short form, "<unknown>" when it is not set. */
struct str table_since(const struct table_cell *c, struct api_time t);
/* What is written to text so far, as a cell (or `other` when there is none). */
void cell_text(struct buf *b, const struct buf *text, const char *other);
/* "a,b,c" of what was added; add returns false for the empty string. */
void text_add(struct buf *text, struct str s, const char *separator);
/* "k=v,k2=v2" of a map in key order, "<none>" when empty. */
void cell_labels(struct buf *b, const struct str_map *m);
void cell_label_selector(struct buf *b, struct arena *a, const struct meta_v1_label_selector *s);

#endif
