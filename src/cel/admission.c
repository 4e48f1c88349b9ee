/* What the expressions of admission may name, and of which types. */
#include "cel/admission.h"

/* ---- types of the variables (upstream's BuildRequestType, BuildNamespaceType) ---- */

#define FIELD(n, t) {STR_INIT(n), STR_INIT(n), t}
#define OBJECT(var, title, ...)                                                                                                       \
	static const struct cel_field var##_fields[] = {__VA_ARGS__};                                                                  \
	static const struct cel_type var = {.kind = CEL_OBJECT, .name = STR_INIT(title), .fields = var##_fields,                       \
					    .n_fields = sizeof var##_fields / sizeof *var##_fields, .max_size = CEL_NO_MAX_SIZE}

static const struct cel_type map_strings = {.kind = CEL_MAP, .key = &cel_type_string, .elem = &cel_type_string, .max_size = CEL_NO_MAX_SIZE};
static const struct cel_type map_lists = {.kind = CEL_MAP, .key = &cel_type_string, .elem = &cel_type_list_string, .max_size = CEL_NO_MAX_SIZE};

OBJECT(gvk, "kubernetes.GroupVersionKind", FIELD("group", &cel_type_string), FIELD("version", &cel_type_string), FIELD("kind", &cel_type_string));
OBJECT(gvr, "kubernetes.GroupVersionResource", FIELD("group", &cel_type_string), FIELD("version", &cel_type_string),
       FIELD("resource", &cel_type_string));
OBJECT(user_info, "kubernetes.UserInfo", FIELD("username", &cel_type_string), FIELD("uid", &cel_type_string),
       FIELD("groups", &cel_type_list_string), FIELD("extra", &map_lists));
const struct cel_type *const expression_user_info = &user_info;
OBJECT(admission_request, "kubernetes.AdmissionRequest", FIELD("kind", &gvk), FIELD("resource", &gvr), FIELD("subResource", &cel_type_string),
       FIELD("requestKind", &gvk), FIELD("requestResource", &gvr), FIELD("requestSubResource", &cel_type_string),
       FIELD("name", &cel_type_string), FIELD("namespace", &cel_type_string), FIELD("operation", &cel_type_string),
       FIELD("userInfo", &user_info), FIELD("dryRun", &cel_type_bool), FIELD("options", &cel_type_dyn));
OBJECT(ns_spec, "kubernetes.NamespaceSpec", FIELD("finalizers", &cel_type_list_string));
OBJECT(ns_condition, "kubernetes.NamespaceCondition", FIELD("status", &cel_type_string), FIELD("type", &cel_type_string),
       FIELD("lastTransitionTime", &cel_type_timestamp), FIELD("message", &cel_type_string), FIELD("reason", &cel_type_string));
static const struct cel_type ns_conditions = {.kind = CEL_LIST, .elem = &ns_condition, .max_size = CEL_NO_MAX_SIZE};
OBJECT(ns_status, "kubernetes.NamespaceStatus", FIELD("conditions", &ns_conditions), FIELD("phase", &cel_type_string));
OBJECT(ns_metadata, "kubernetes.NamespaceMetadata", FIELD("name", &cel_type_string), FIELD("generateName", &cel_type_string),
       FIELD("namespace", &cel_type_string), FIELD("labels", &map_strings), FIELD("annotations", &map_strings), FIELD("UID", &cel_type_string),
       FIELD("creationTimestamp", &cel_type_timestamp), FIELD("deletionGracePeriodSeconds", &cel_type_int),
       FIELD("deletionTimestamp", &cel_type_timestamp), FIELD("generation", &cel_type_int), FIELD("resourceVersion", &cel_type_string),
       FIELD("finalizers", &cel_type_list_string));
OBJECT(ns_object, "kubernetes.Namespace", FIELD("metadata", &ns_metadata), FIELD("spec", &ns_spec), FIELD("status", &ns_status));

uint32_t admission_vars(unsigned have, const struct cel_type *object, const struct cel_type *params, const struct cel_type *variables,
			struct cel_var v[ADMISSION_VARS_MAX])
{
	uint32_t n = 0;

	v[n++] = (struct cel_var){STR("object"), object ? object : &cel_type_dyn};
	v[n++] = (struct cel_var){STR("oldObject"), object ? object : &cel_type_dyn};
	v[n++] = (struct cel_var){STR("namespaceObject"), &ns_object};
	v[n++] = (struct cel_var){STR("request"), &admission_request};
	if (have & EXPR_PARAMS)
		v[n++] = (struct cel_var){STR("params"), params ? params : &cel_type_dyn};
	if (have & EXPR_AUTHORIZER)
		v[n++] = (struct cel_var){STR("authorizer"), &cel_type_authorizer};
	if (have & EXPR_AUTHORIZER && !(have & EXPR_TYPE_CHECK))
		v[n++] = (struct cel_var){STR("authorizer.requestResource"), &cel_type_resource_check};
	if (variables)
		v[n++] = (struct cel_var){STR("variables"), variables};
	return n;
}

/* The type that a variable has for those who read it: containers by their parts, what is not plain is dyn. */
static const struct cel_type *declared(struct arena *a, const struct cel_type *t)
{
	struct cel_type *d;

	if (!t)
		return &cel_type_dyn;
	switch ((enum cel_kind)t->kind) {
	case CEL_NULL:
	case CEL_BOOL:
	case CEL_INT:
	case CEL_UINT:
	case CEL_DOUBLE:
	case CEL_STRING:
	case CEL_BYTES:
	case CEL_TIMESTAMP:
	case CEL_DURATION:
		return t;
	case CEL_LIST:
	case CEL_MAP:
		d = arena_new(a, struct cel_type);
		d->kind = t->kind;
		d->elem = declared(a, t->elem);
		d->key = t->kind == CEL_MAP ? declared(a, t->key) : NULL;
		d->max_size = CEL_NO_MAX_SIZE;
		return d;
	default:
		return &cel_type_dyn;
	}
}

const struct cel_type *admission_variables_type(struct arena *a, const struct str *names, const struct cel_type *const *types, uint32_t n)
{
	struct cel_type *t = arena_new(a, struct cel_type);
	struct cel_field *f = arena_array(a, struct cel_field, n);

	t->kind = CEL_OBJECT;
	t->name = STR("kubernetes.variables");
	t->max_size = CEL_NO_MAX_SIZE;
	for (uint32_t i = 0; i < n; i++) {
		/* of a name given twice the last is the one */
		f[t->n_fields].name = f[t->n_fields].json_name = names[i];
		f[t->n_fields].type = declared(a, types[i]);
		for (uint32_t k = 0; k < t->n_fields; k++)
			if (str_eq(f[k].name, names[i])) {
				f[k] = f[t->n_fields];
				t->n_fields--;
				break;
			}
		t->n_fields++;
	}
	t->fields = f;
	return t;
}
