/* cel/internal.h: what the files of this room share. */
#ifndef SKIFF_CEL_INTERNAL_H
#define SKIFF_CEL_INTERNAL_H

#include "cel/cel.h"

extern const struct cel_type cel_type_error, cel_type_path_check, cel_type_group_check, cel_type_decision, cel_type_url, cel_type_quantity,
	cel_type_semver, cel_type_format, cel_type_ip, cel_type_cidr;

static inline const struct cel_type *cel_elem(const struct cel_type *t)
{
	return t->elem ? t->elem : &cel_type_dyn;
}
static inline const struct cel_type *cel_key(const struct cel_type *t)
{
	return t->key ? t->key : &cel_type_dyn;
}
struct str cel_type_name(const struct cel_type *t); /* without parameters */
const struct cel_field *cel_type_field(const struct cel_type *t, struct str name);
const struct cel_type *cel_type_list_of(struct arena *a, const struct cel_type *elem);
const struct cel_type *cel_type_map_of(struct arena *a, const struct cel_type *key, const struct cel_type *value);
const struct cel_type *cel_type_optional_of(struct arena *a, const struct cel_type *elem);
const struct cel_type *cel_type_type_of(struct arena *a, const struct cel_type *elem);

#endif
