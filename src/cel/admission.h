/*
 * cel/admission.h: the names that expressions of admission may use and their types: what the API server compiles with, and the
 * type checker of policies. Upstream's admission/plugin/cel (BuildRequestType, BuildNamespaceType, composition). Values are not
 * its business.
 */
#ifndef SKIFF_CEL_ADMISSION_H
#define SKIFF_CEL_ADMISSION_H

#include "cel/cel.h"

enum { /* what an expression may name beside object, oldObject, namespaceObject and request */
	EXPR_PARAMS = 1 << 0,
	EXPR_AUTHORIZER = 1 << 1,
	EXPR_PATCH = 1 << 2,      /* makes Objects and JSONPatches */
	EXPR_TYPE_CHECK = 1 << 3, /* as upstream's type checker has it: no authorizer.requestResource */
};
#define ADMISSION_VARS_MAX 8

/* Fills v, returns how many. object, params: NULL: dyn. variables: NULL: there are none. */
uint32_t admission_vars(unsigned have, const struct cel_type *object, const struct cel_type *params, const struct cel_type *variables,
			struct cel_var v[ADMISSION_VARS_MAX]);
/* The type of `variables` of these names and expressions' types (NULL: one that does not compile); in a. */
const struct cel_type *admission_variables_type(struct arena *a, const struct str *names, const struct cel_type *const *types, uint32_t n);
extern const struct cel_type *const expression_user_info; /* kubernetes.UserInfo */

#endif
