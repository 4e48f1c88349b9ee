/* An apply configuration merged into an object without ownership of fields: what MutatingAdmissionPolicies do (KEP-3962). */
#include "schema/typed_merge.h"

/* Paths of everything in v that would be replaced as a whole, as upstream's findAtomics. */
static void atomics(struct arena *a, struct shape s, const struct jv *v, struct str path, struct buf *out)
{
	enum shape_kind k = shape_kind(s);

	if ((v->kind == JV_OBJECT && k == SHAPE_ATOMIC_MAP) || (v->kind == JV_ARRAY && k == SHAPE_ATOMIC_LIST))
		buf_printf(out, "%s%.*s", out->n ? ", " : "", STR_ARG(path));
	for (uint32_t i = 0; v->kind == JV_OBJECT && (k == SHAPE_STRUCT || k == SHAPE_ATOMIC_MAP) && i < v->n; i++) {
		struct shape m;

		if (shape_member(s, v->members[i].key, &m))
			atomics(a, m, &v->members[i].value, arena_printf(a, "%.*s.%.*s", STR_ARG(path), STR_ARG(v->members[i].key)), out);
	}
	for (uint32_t i = 0; v->kind == JV_ARRAY && (k == SHAPE_LIST_MAP || k == SHAPE_SET || k == SHAPE_ATOMIC_LIST) && i < v->n; i++)
		atomics(a, shape_element(s), &v->items[i], arena_printf(a, "%.*s[%u]", STR_ARG(path), i), out);
}

struct error *apply_configuration(struct arena *a, struct shape shape, const struct jv *live, const struct jv *config, struct jv *out)
{
	struct buf found buf_cleanup = {0};
	const char *wrong = typed_validate(a, shape, config, false);

	if (wrong)
		return error_new("failed to convert patch object to typed object: %s", wrong);
	atomics(a, shape, config, STR(""), &found);
	if (found.n)
		return error_new("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: %s", buf_z(&found));
	wrong = typed_validate(a, shape, live, true);
	if (wrong)
		return error_new("failed to convert original object to typed object: %s", wrong);
	*out = typed_merge(a, shape, live, config);
	return NULL;
}
