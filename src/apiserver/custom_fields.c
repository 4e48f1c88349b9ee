/*
 * Field selectors of custom resources (spec.versions[].selectableFields): the cache's index answers where the
 * resource has one version; with several, each object is looked at as its version has it, which may ask a webhook.
 */
#include "apiserver/custom.h"

struct error *custom_selector(struct request *rq, struct cache_filter *f, const struct selector **post)
{
	const struct resource *res = rq->res;
	const struct apiextensions_v1_custom_resource_definition_version *v = crd_version(res);
	struct str key, value;
	bool neg, indexed = crd_object(res)->spec.versions.n == 1;
	struct error *e;

	*post = NULL;
	for (size_t i = 0; field_selector_get(f->fields, i, &key, &value, &neg); i++) {
		bool known = str_eqz(key, "metadata.name") || str_eqz(key, "metadata.namespace");

		for (uint32_t k = 0; !known && k < v->selectable_fields.n; k++) {
			struct str p = v->selectable_fields.v[k].json_path;

			known = p.n && str_eq(str_sub(p, 1, p.n), key);
		}
		if (!known)
			return error_status(400, "BadRequest", "field label not supported: %.*s", STR_ARG(key));
	}
	/* an index was made when the definition came: later fields are not in it */
	e = cache_check_fields(res->st->cache, f->fields);
	if (e || !indexed) {
		bool meta_only = true;

		for (size_t i = 0; field_selector_get(f->fields, i, &key, &value, &neg); i++)
			meta_only = meta_only && (str_eqz(key, "metadata.name") || str_eqz(key, "metadata.namespace"));
		if (!meta_only) {
			*post = f->fields;
			f->fields = NULL;
		}
	}
	error_free(e);
	return NULL;
}

bool custom_fields_match(struct arena *a, const struct resource *res, const void *obj, const struct selector *fields)
{
	struct jv tree;
	struct str key, want;
	bool neg;

	jv_from_object(a, res->api->type, obj, &tree);
	for (size_t i = 0; field_selector_get(fields, i, &key, &want, &neg); i++) {
		const struct jv *v = jv_path(&tree, key);
		struct buf b buf_cleanup = {0};
		struct str have = STR("");

		if (v && v->kind == JV_STRING) {
			have = jv_str(v);
		} else if (v && v->kind != JV_NULL) {
			jv_encode(&b, v);
			have = buf_view(&b);
		}
		if (str_eq(have, want) == neg)
			return false;
	}
	return true;
}
