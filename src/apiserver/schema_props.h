/* apiserver/schema_props.h: steps into the schema of a custom resource (apiextensions.k8s.io/v1 JSONSchemaProps). Never allocates; what is
 * returned lives as long as the schema. */
#ifndef SKIFF_APISERVER_SCHEMA_PROPS_H
#define SKIFF_APISERVER_SCHEMA_PROPS_H

#include "schema/api.h"

typedef struct apiextensions_v1_json_schema_props props;

/* Of properties; NULL when it has none of that name, or p is NULL. */
static inline const props *property(const props *p, struct str name)
{
	for (uint32_t i = 0; p && i < p->properties.n; i++)
		if (str_eq(p->properties.v[i].key, name))
			return &p->properties.v[i].value;
	return NULL;
}

/* Of a list's elements; NULL when there is none, or p is NULL. */
static inline const props *item_schema(const props *p)
{
	return p && p->items ? p->items->schema : NULL;
}

/* Of a map's values, additionalProperties; NULL when there is none, or p is NULL. */
static inline const props *value_schema(const props *p)
{
	return p && p->additional_properties ? p->additional_properties->schema : NULL;
}

#endif
