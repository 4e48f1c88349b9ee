/*
 * CustomResourceDefinitions as upstream stores them: JSON of apiextensions.k8s.io/v1beta1, what all versions share written once
 * at the top of the spec (pkg/apis/apiextensions/v1beta1 conversion). To everybody else here they are v1.
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
	jv_encode_floats(out, &doc);
	return NULL;
}

/* What each version has or lacks alike: taken out of all of them into `shared`; false: they differ, or none has it. */
static bool from_versions(struct jv *versions, const char *in_version, struct jv *shared)
{
	struct jv *first = versions->n ? jv_get(&versions->items[0], str_from(in_version)) : NULL;

	if (!first)
		return false;
	for (uint32_t i = 1; i < versions->n; i++) {
		struct jv *v = jv_get(&versions->items[i], str_from(in_version));

		if (!v || !jv_equal(v, first))
			return false;
	}
	*shared = *first;
	for (uint32_t i = 0; i < versions->n; i++)
		jv_del(&versions->items[i], str_from(in_version));
	return true;
}

static void move_member(struct arena *a, struct jv *to, struct jv *from, const char *name)
{
	struct jv *v = jv_get(from, str_from(name));

	if (v)
		jv_set(a, to, str_from(name), *v);
}

static void v1beta1_conversion(struct arena *a, struct jv *spec)
{
	struct jv *c = jv_get(spec, STR("conversion")), *webhook = c ? jv_get(c, STR("webhook")) : NULL;

	if (!webhook)
		return;
	struct jv had = *webhook, *client = jv_get(&had, STR("clientConfig"));

	jv_del(c, STR("webhook"));
	if (client)
		jv_set(a, c, STR("webhookClientConfig"), *client);
	move_member(a, c, &had, "conversionReviewVersions");
}

/* The members in the order of v1beta1's. */
static struct jv v1beta1_spec(struct arena *a, struct jv *spec)
{
	static const struct {
		const char *name, *in_version;
	} order[] = {{"group", NULL}, {"version", NULL}, {"names", NULL}, {"scope", NULL}, {"validation", "schema"},
		     {"subresources", "subresources"}, {"versions", NULL}, {"additionalPrinterColumns", "additionalPrinterColumns"},
		     {"selectableFields", "selectableFields"}, {"conversion", NULL}, {"preserveUnknownFields", NULL}};
	struct jv out = jv_object(), *versions = jv_get(spec, STR("versions")), *keep = jv_get(spec, STR("preserveUnknownFields"));

	for (uint32_t i = 0; i < versions->n; i++) {
		struct jv *columns = jv_get(&versions->items[i], STR("additionalPrinterColumns"));

		for (uint32_t k = 0; columns && k < columns->n; k++)
			rename_member(a, &columns->items[k], "jsonPath", "JSONPath");
	}
	if (versions->n)
		jv_set(a, spec, STR("version"), *jv_get(&versions->items[0], STR("name")));
	if (!keep)
		jv_set(a, spec, STR("preserveUnknownFields"), jv_bool(false));
	v1beta1_conversion(a, spec);
	for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
		struct jv shared;

		if (order[i].in_version && from_versions(jv_get(spec, STR("versions")), order[i].in_version, &shared))
			jv_set(a, spec, str_from(order[i].name), shared);
	}
	for (size_t i = 0; i < sizeof order / sizeof *order; i++)
		move_member(a, &out, spec, order[i].name);
	return out;
}

void crd_stored_form(struct arena *a, const void *obj, struct buf *out)
{
	struct jv doc, *spec;

	jv_from_object(a, &apiextensions_v1_custom_resource_definition_type, obj, &doc);
	jv_set(a, &doc, STR("apiVersion"), jv_string(STR("apiextensions.k8s.io/v1beta1")));
	spec = jv_get(&doc, STR("spec"));
	*spec = v1beta1_spec(a, spec);
	jv_encode_floats(out, &doc);
	buf_putc(out, '\n');
}
