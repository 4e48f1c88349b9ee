/*
 * CustomResourceDefinitions as upstream stores them: JSON of apiextensions.k8s.io/v1beta1, what all versions share written once
 * at the top of the spec (pkg/apis/apiextensions/v1beta1 conversion). Read as v1; written as v1, which upstream reads as well.
 */
#include "apiserver/encrypt.h"
#include "apiserver/extend.h"
#include "schema/jv.h"

static void rename_member(struct arena *a, struct jv *o, const char *from, const char *to)
{
	struct jv *v = jv_get(o, str_from(from));

	if (!v)
		return;
	struct jv copy = *v;

	jv_del(o, str_from(from));
	jv_set(a, o, str_from(to), copy);
}

/* The member goes from the spec to every version that has none of its own. */
static void to_versions(struct arena *a, struct jv *spec, const char *name, const char *in_version)
{
	struct jv *v = jv_get(spec, str_from(name)), *versions;

	if (!v)
		return;
	struct jv shared = *v;

	jv_del(spec, str_from(name));
	versions = jv_get(spec, STR("versions")); /* members move when one goes */
	for (uint32_t i = 0; shared.kind != JV_NULL && i < versions->n; i++)
		if (jv_is(&versions->items[i], JV_OBJECT) && !jv_get(&versions->items[i], str_from(in_version)))
			jv_set(a, &versions->items[i], str_from(in_version), jv_copy(a, &shared));
}

static void to_v1(struct arena *a, struct jv *doc)
{
	struct jv *spec = jv_get(doc, STR("spec"));

	jv_set(a, doc, STR("apiVersion"), jv_string(STR("apiextensions.k8s.io/v1")));
	if (!jv_is(spec, JV_OBJECT))
		return;
	struct jv *versions = jv_get(spec, STR("versions"));

	if (!jv_is(versions, JV_ARRAY) || !versions->n) {
		struct jv one = jv_object();

		jv_set(a, &one, STR("name"), jv_string(jv_str(jv_get(spec, STR("version")))));
		jv_set(a, &one, STR("served"), jv_bool(true));
		jv_set(a, &one, STR("storage"), jv_bool(true));
		versions = jv_set(a, spec, STR("versions"), jv_array());
		jv_push(a, versions, one);
	}
	jv_del(spec, STR("version"));
	to_versions(a, spec, "validation", "schema");
	to_versions(a, spec, "subresources", "subresources");
	to_versions(a, spec, "additionalPrinterColumns", "additionalPrinterColumns");
	to_versions(a, spec, "selectableFields", "selectableFields");
	versions = jv_get(spec, STR("versions"));
	for (uint32_t i = 0; i < versions->n; i++) {
		struct jv *columns = jv_get(&versions->items[i], STR("additionalPrinterColumns"));

		for (uint32_t k = 0; jv_is(columns, JV_ARRAY) && k < columns->n; k++)
			rename_member(a, &columns->items[k], "JSONPath", "jsonPath");
	}
	struct jv *conversion, *keep = jv_get(spec, STR("preserveUnknownFields"));

	/* what v1beta1 takes for granted and v1 does not */
	if (jv_is(keep, JV_BOOL) && !keep->b)
		jv_del(spec, STR("preserveUnknownFields"));
	else
		jv_set(a, spec, STR("preserveUnknownFields"), jv_bool(true));
	if (!jv_str(jv_get(spec, STR("scope"))).n)
		jv_set(a, spec, STR("scope"), jv_string(STR("Namespaced")));
	conversion = jv_get(spec, STR("conversion"));
	if (jv_is(conversion, JV_OBJECT) && str_eqz(jv_str(jv_get(conversion, STR("strategy"))), "Webhook") &&
	    !jv_get(conversion, STR("conversionReviewVersions"))) {
		struct jv v = jv_array();

		jv_push(a, &v, jv_string(STR("v1beta1")));
		jv_set(a, conversion, STR("conversionReviewVersions"), v);
	}
	if (jv_is(conversion, JV_OBJECT) && jv_str(jv_get(conversion, STR("strategy"))).n &&
	    (jv_get(conversion, STR("webhookClientConfig")) || jv_get(conversion, STR("conversionReviewVersions")))) {
		struct jv webhook = jv_object(), *client = jv_get(conversion, STR("webhookClientConfig"));
		struct jv *reviews = jv_get(conversion, STR("conversionReviewVersions"));

		if (client)
			jv_set(a, &webhook, STR("clientConfig"), *client);
		if (reviews)
			jv_set(a, &webhook, STR("conversionReviewVersions"), *reviews);
		jv_del(conversion, STR("webhookClientConfig"));
		jv_del(conversion, STR("conversionReviewVersions"));
		jv_set(a, conversion, STR("webhook"), webhook);
	}
}

struct error *crd_stored_open(void *ctx, struct str key, struct str stored, bool may_wait, struct buf *out)
{
	struct arena a arena_cleanup = {0};
	struct buf opened buf_cleanup = {0};
	struct jv doc;

	if (ctx) {
		TRY(encryption_open(ctx, key, stored, may_wait, &opened));
		stored = buf_view(&opened);
	}
	if (!stored.n || stored.p[0] != '{') {
		buf_str(out, stored);
		return NULL;
	}
	TRY(jv_parse(&a, stored, NULL, &doc));
	if (!str_eqz(jv_str(jv_get(&doc, STR("apiVersion"))), "apiextensions.k8s.io/v1beta1")) {
		buf_str(out, stored);
		return NULL;
	}
	to_v1(&a, &doc);
	jv_encode(out, &doc);
	return NULL;
}
