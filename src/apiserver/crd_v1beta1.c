/* CustomResourceDefinitions that a release before 1.22 has stored as v1beta1, and nobody has written since. */
#include "apiserver/crd_internal.h"

typedef struct apiextensions_v1_custom_resource_definition_version spec_version;

/* The columns in v1's words; only the path has another name. */
static void read_columns(struct arena *a, const struct apiextensions_v1beta1_custom_resource_column_definition *v, uint32_t n, spec_version *out)
{
	out->additional_printer_columns.n = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct apiextensions_v1_custom_resource_column_definition *c = arena_push(a, &out->additional_printer_columns);

		c->name = v[i].name;
		c->type = v[i].type;
		c->format = v[i].format;
		c->description = v[i].description;
		c->priority = v[i].priority;
		c->json_path = v[i].json_path;
	}
}

static void read_conversion(struct arena *a, const struct apiextensions_v1beta1_custom_resource_conversion *old,
			    struct apiextensions_v1_custom_resource_conversion *out)
{
	if (!old->webhook_client_config && !old->conversion_review_versions.n)
		return;
	out->webhook = arena_new(a, struct apiextensions_v1_webhook_conversion);
	out->webhook->client_config = old->webhook_client_config;
	for (uint32_t i = 0; i < old->conversion_review_versions.n; i++)
		*arena_push(a, &out->webhook->conversion_review_versions) = old->conversion_review_versions.v[i];
}

/* What v1beta1 says once for all versions, v1 says for each. */
struct error *crd_read_text(struct arena *a, struct str api_version, struct str text, void *obj)
{
	struct apiextensions_v1_custom_resource_definition_spec *sp = &((struct apiextensions_v1_custom_resource_definition *)obj)->spec;
	struct apiextensions_v1beta1_custom_resource_definition crd = {0};
	const struct apiextensions_v1beta1_custom_resource_definition_spec *old = &crd.spec;

	if (!str_eqz(api_version, "apiextensions.k8s.io/v1beta1"))
		return NULL;
	TRY(object_decode(a, media_recognize(text), &apiextensions_v1beta1_custom_resource_definition_type, text, NULL, &crd));
	if (!sp->scope.n)
		sp->scope = STR("Namespaced");
	sp->preserve_unknown_fields = !old->preserve_unknown_fields || *old->preserve_unknown_fields;
	if (sp->conversion && old->conversion)
		read_conversion(a, old->conversion, sp->conversion);
	if (!sp->versions.n && old->version.n) {
		spec_version *v = arena_push(a, &sp->versions);

		v->name = old->version;
		v->served = v->storage = true;
	}
	for (uint32_t i = 0; i < sp->versions.n; i++) {
		spec_version *v = &sp->versions.v[i];

		if (i < old->versions.n)
			read_columns(a, old->versions.v[i].additional_printer_columns.v, old->versions.v[i].additional_printer_columns.n, v);
		if (old->additional_printer_columns.n)
			read_columns(a, old->additional_printer_columns.v, old->additional_printer_columns.n, v);
		if (old->validation)
			v->schema = old->validation;
		if (old->subresources)
			v->subresources = old->subresources;
		for (uint32_t k = 0; k < old->selectable_fields.n; k++)
			*arena_push(a, &v->selectable_fields) = old->selectable_fields.v[k];
	}
	return NULL;
}
