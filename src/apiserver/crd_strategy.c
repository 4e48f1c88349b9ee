/*
 * What is particular to CustomResourceDefinitions: their status, their deletion, and what they may say besides their schemas
 * (crd_check.c). Upstream: apiextensions-apiserver/pkg/registry/customresourcedefinition, pkg/apis/apiextensions/validation.
 */
#include <ctype.h>
#include "apiserver/crd_internal.h"
#include "apiserver/rules.h"
#include "net/tls.h"

#define APPROVED_BY "api-approved.kubernetes.io"
#define SELECTABLE_FIELDS_MAX 8
#define DEPRECATION_WARNING_MAX 256

typedef struct apiextensions_v1_custom_resource_definition_version version_t;
typedef struct apiextensions_v1_custom_resource_definition_names names_t;

static const struct schema_type *const validation_type = &apiextensions_v1_custom_resource_validation_type;

/* ---- approval of groups that are the community's ---- */

bool crd_group_protected(struct str group)
{
	return str_eqz(group, "k8s.io") || str_has_suffix(group, STR(".k8s.io")) || str_eqz(group, "kubernetes.io") ||
	       str_has_suffix(group, STR(".kubernetes.io"));
}

/* A URL with a scheme and a host. */
static bool names_host(struct str s)
{
	ptrdiff_t colon = str_index(s, ':');

	if (colon <= 0 || !isalpha((unsigned char)s.p[0]))
		return false;
	for (ptrdiff_t i = 0; i < colon; i++)
		if (!isalnum((unsigned char)s.p[i]) && !strchr("+-.", s.p[i]))
			return false;
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f)
			return false;
	s = str_sub(s, (size_t)colon + 1, s.n);
	return str_has_prefix(s, STR("//")) && s.n > 2 && s.p[2] != '/';
}

enum crd_approval crd_approval_of(struct arena *a, const crd_object_t *o, struct str *why)
{
	struct str v = str_map_get(API_MAP(&o->metadata.annotations), STR(APPROVED_BY));

	*why = STR("protected groups must have approval annotation \"" APPROVED_BY "\", see https://github.com/kubernetes/enhancements/pull/1111");
	if (!v.n)
		return CRD_APPROVAL_MISSING;
	*why = arena_printf(a, "not approved: \"%.*s\"", STR_ARG(v));
	if (str_has_prefix(v, STR("unapproved")))
		return CRD_APPROVAL_BYPASSED;
	*why = arena_printf(a, "approved in %.*s", STR_ARG(v));
	if (names_host(v))
		return CRD_APPROVED;
	*why = STR("protected groups must have approval annotation \"" APPROVED_BY "\" with either a URL or a reason starting with \"unapproved\", "
		   "see https://github.com/kubernetes/enhancements/pull/1111");
	return CRD_APPROVAL_INVALID;
}

static void approval_check(struct field_errors *e, const crd_object_t *o, const crd_object_t *was)
{
	const struct field_path *at = FIELD_KEY(FIELD_CHILD(FIELD_ROOT("metadata"), "annotations"), STR(APPROVED_BY));
	struct str why, ignored;
	enum crd_approval now;

	if (!crd_group_protected(o->spec.group))
		return;
	now = crd_approval_of(e->arena, o, &why);
	if (was && crd_approval_of(e->arena, was, &ignored) == now)
		return;
	if (now == CRD_APPROVAL_MISSING)
		field_required(e, at, arena_strz(e->arena, why));
	else if (now == CRD_APPROVAL_INVALID)
		field_invalid(e, at, str_map_get(API_MAP(&o->metadata.annotations), STR(APPROVED_BY)), "%.*s", STR_ARG(why));
}

/* ---- conversion ---- */

bool crd_ca_bundle_valid(struct str pem)
{
	struct tls_client_opts o = {.ca_pem = pem};
	struct tls_client *t;
	struct error *e = tls_client_new(&o, &t);

	if (!e)
		tls_client_free(t);
	error_free(e);
	return !e;
}

static bool known_review_version(const struct apiextensions_v1_webhook_conversion *w)
{
	for (uint32_t i = 0; w && i < w->conversion_review_versions.n; i++)
		if (str_eqz(w->conversion_review_versions.v[i], "v1") || str_eqz(w->conversion_review_versions.v[i], "v1beta1"))
			return true;
	return false;
}

static void review_versions_check(struct field_errors *e, const struct apiextensions_v1_webhook_conversion *w, bool lenient,
				  const struct field_path *at)
{
	const struct strings list = {.v = w ? w->conversion_review_versions.v : NULL, .n = w ? w->conversion_review_versions.n : 0};

	if (!list.n) {
		field_required(e, at, "");
		return;
	}
	for (uint32_t i = 0; i < list.n; i++) {
		bool again = false;
		const char *m = validate_dns1035_label(e->arena, list.v[i]);

		for (uint32_t k = 0; k < i; k++)
			again |= str_eq(list.v[k], list.v[i]);
		if (again)
			field_invalid(e, FIELD_INDEX(at, i), list.v[i], "duplicate version");
		else if (m)
			field_invalid(e, FIELD_INDEX(at, i), list.v[i], "%s", m);
	}
	if (!lenient && !known_review_version(w))
		field_invalid_list(e, at, &list, "must include at least one of v1, v1beta1");
}

static const struct apiextensions_v1_webhook_client_config *client_config(const crd_object_t *o)
{
	return o->spec.conversion && o->spec.conversion->webhook ? o->spec.conversion->webhook->client_config : NULL;
}

/* A bundle that cannot be used is let through before the definition is established, and where there was one. */
static bool lenient_about_ca(const crd_object_t *was)
{
	const struct apiextensions_v1_webhook_client_config *c = was ? client_config(was) : NULL;

	if (!was || !crd_condition(was, "Established"))
		return true;
	return c && c->ca_bundle.n && !crd_ca_bundle_valid(c->ca_bundle);
}

/* Paths are those of upstream's internal version: webhookClientConfig and conversionReviewVersions beside the strategy. */
static void conversion_check(struct field_errors *e, const crd_object_t *o, const crd_object_t *was)
{
	const struct apiextensions_v1_custom_resource_conversion *c = o->spec.conversion;
	const struct field_path *at = FIELD_CHILD(FIELD_ROOT("spec"), "conversion"), *client = FIELD_CHILD(at, "webhookClientConfig"),
				*versions = FIELD_CHILD(at, "conversionReviewVersions");
	const struct apiextensions_v1_webhook_conversion *old = was && was->spec.conversion ? was->spec.conversion->webhook : NULL;
	const struct apiextensions_v1_webhook_client_config *cc = client_config(o);

	if (!c)
		return;
	rule_enum(e, FIELD_CHILD(at, "strategy"), c->strategy, "None,Webhook");
	if (!str_eqz(c->strategy, "Webhook")) {
		if (cc)
			field_forbidden(e, client, "should not be set when strategy is not set to Webhook");
		if (c->webhook && c->webhook->conversion_review_versions.n)
			field_forbidden(e, versions, "should not be set when strategy is not set to Webhook");
		return;
	}
	if (!cc) {
		field_required(e, client, "required when strategy is set to Webhook");
	} else {
		struct admissionregistration_v1_service_reference ref = {0};
		struct admissionregistration_v1_webhook_client_config like = {.url = cc->url};

		if (cc->service) {
			ref = (struct admissionregistration_v1_service_reference){.namespace = cc->service->namespace, .name = cc->service->name,
										  .path = cc->service->path, .port = cc->service->port};
			like.service = &ref;
		}
		webhook_client_check(e, &like, client);
		if (cc->ca_bundle.n && !lenient_about_ca(was) && !crd_ca_bundle_valid(cc->ca_bundle))
			field_invalid(e, FIELD_CHILD(client, "caBundle"), STR("..."), "unable to load root certificates");
	}
	review_versions_check(e, c->webhook, old && old->conversion_review_versions.n && !known_review_version(old), versions);
}

/* ---- versions ---- */

static const struct apiextensions_v1_json_schema_props *schema_of(const version_t *v)
{
	return v->schema ? v->schema->open_apiv3_schema : NULL;
}

/* That version has the schema that it had. */
static bool schema_unchanged(const version_t *v, const crd_object_t *was)
{
	for (uint32_t i = 0; was && i < was->spec.versions.n; i++) {
		const struct apiextensions_v1_json_schema_props *x = schema_of(v), *y = schema_of(&was->spec.versions.v[i]);

		if (str_eq(v->name, was->spec.versions.v[i].name))
			return x && y ? object_equal(&apiextensions_v1_json_schema_props_type, x, y) : x == y;
	}
	return false;
}

/* A path with dots, below one of two members (under2 may be NULL). */
static void replicas_path(struct field_errors *e, struct str path, const char *under, const char *under2, const struct field_path *at)
{
	if (path.p[0] != '.')
		field_invalid(e, at, path, "must be a simple json path starting with .");
	else if (!str_has_prefix(path, str_from(under)) && !(under2 && str_has_prefix(path, str_from(under2))))
		field_invalid(e, at, path, "should be a json path under %s%s%s", under, under2 ? " or " : "", under2 ? under2 : "");
}

static void subresources_check(struct field_errors *e, const struct apiextensions_v1_custom_resource_subresources *s, const struct field_path *at)
{
	const struct apiextensions_v1_custom_resource_subresource_scale *sc = s ? s->scale : NULL;
	const struct field_path *p = FIELD_CHILD(FIELD_CHILD(at, "subresources"), "scale");

	if (!sc)
		return;
	if (!sc->spec_replicas_path.n)
		field_required(e, FIELD_CHILD(p, "specReplicasPath"), "");
	else
		replicas_path(e, sc->spec_replicas_path, ".spec.", NULL, FIELD_CHILD(p, "specReplicasPath"));
	if (!sc->status_replicas_path.n)
		field_required(e, FIELD_CHILD(p, "statusReplicasPath"), "");
	else
		replicas_path(e, sc->status_replicas_path, ".status.", NULL, FIELD_CHILD(p, "statusReplicasPath"));
	if (sc->label_selector_path && sc->label_selector_path->n)
		replicas_path(e, *sc->label_selector_path, ".spec.", ".status.", FIELD_CHILD(p, "labelSelectorPath"));
}

static bool in_csv(struct str s, const char *csv)
{
	struct str rest = str_from(csv);

	while (rest.n)
		if (str_eq(str_cut(&rest, ','), s))
			return true;
	return false;
}

static void columns_check(struct field_errors *e, const version_t *v, const struct field_path *columns)
{
	static const char types[] = "boolean,date,integer,number,string", formats[] = "byte,date,date-time,double,float,int32,int64,password";

	for (uint32_t i = 0; i < v->additional_printer_columns.n; i++) {
		const struct apiextensions_v1_custom_resource_column_definition *c = &v->additional_printer_columns.v[i];
		const struct field_path *at = FIELD_INDEX(columns, i);

		if (!c->name.n)
			field_required(e, FIELD_CHILD(at, "name"), "");
		if (!c->type.n)
			field_required(e, FIELD_CHILD(at, "type"), arena_printf(e->arena, "must be one of %s", types).p);
		else if (!in_csv(c->type, types))
			field_invalid(e, FIELD_CHILD(at, "type"), c->type, "must be one of %s", types);
		if (c->format.n && !in_csv(c->format, formats))
			field_invalid(e, FIELD_CHILD(at, "format"), c->format, "must be one of %s", formats);
		if (!c->json_path.n)
			field_required(e, FIELD_CHILD(at, "JSONPath"), "");
		else if (c->json_path.p[0] != '.')
			field_invalid(e, FIELD_CHILD(at, "JSONPath"), c->json_path, "must be a simple json path starting with .");
	}
}

/* More than are allowed stay where they were. */
static bool too_many_before(const version_t *v, const crd_object_t *was)
{
	for (uint32_t i = 0; was && i < was->spec.versions.n; i++) {
		const version_t *o = &was->spec.versions.v[i];
		bool same = o->selectable_fields.n == v->selectable_fields.n;

		if (!str_eq(o->name, v->name))
			continue;
		for (uint32_t k = 0; same && k < v->selectable_fields.n; k++)
			same = str_eq(o->selectable_fields.v[k].json_path, v->selectable_fields.v[k].json_path);
		return same && o->selectable_fields.n > SELECTABLE_FIELDS_MAX;
	}
	return false;
}

/*
 * beside: the schema stands on the same level, of one version or of all. Of all (shared), a `schema` with nothing in it is one in which every path
 * is wrong.
 */
static void selectable_check(struct field_errors *e, const version_t *v, const crd_object_t *was, bool beside, bool shared,
			     const struct field_path *fields)
{
	const struct apiextensions_v1_json_schema_props *p = beside ? schema_of(v) : NULL, *found;
	bool each = p || (beside && shared && v->schema);
	struct map seen = {0};

	if (v->selectable_fields.n && !each)
		field_invalid(e, fields, STR(""), "may only be set when there is a schema");
	for (uint32_t i = 0; each && i < v->selectable_fields.n; i++) {
		struct str path = v->selectable_fields.v[i].json_path, shown;
		const struct field_path *at = FIELD_CHILD(FIELD_INDEX(fields, i), "jsonPath");

		if (!path.n) {
			field_required(e, at, "");
			continue;
		}
		found = p ? schema_at_path(e->arena, p, path, false, &shown) : NULL;
		if (!found) {
			field_invalid(e, at, path, "is an invalid path");
			continue;
		}
		if (str_eqz(shown, "metadata") || str_has_prefix(shown, STR("metadata.")) || str_has_prefix(shown, STR("metadata[")))
			field_invalid(e, at, path, "must not point to fields in metadata");
		if (!str_eqz(found->type, "string") && !str_eqz(found->type, "boolean") && !str_eqz(found->type, "integer"))
			field_invalid(e, at, path, "must point to a field of type string, boolean or integer. Enum string fields and strings with "
						   "formats are allowed.");
		if (map_has(&seen, shown))
			field_duplicate(e, at, path);
		else
			map_set(&seen, shown, e);
	}
	if (seen.n > SELECTABLE_FIELDS_MAX && !too_many_before(v, was))
		field_too_many(e, fields, (int64_t)seen.n, SELECTABLE_FIELDS_MAX);
	map_free(&seen);
}

static void deprecation_check(struct field_errors *e, const version_t *v, const struct field_path *at)
{
	const struct str *w = v->deprecation_warning;

	if (!w)
		return;
	if (!v->deprecated) {
		field_invalid(e, at, *w, "can only be set for deprecated versions");
		return;
	}
	if (w->n > DEPRECATION_WARNING_MAX)
		field_invalid(e, at, *w, "must be <= %d characters long", DEPRECATION_WARNING_MAX);
	if (!w->n)
		field_invalid(e, at, *w, "must not be an empty string");
	for (size_t i = 0; i < w->n; i++)
		if ((unsigned char)w->p[i] < ' ' || w->p[i] == 0x7f) {
			field_invalid(e, at, *w, "must only contain printable UTF-8 characters; non-printable character found at index %zu", i);
			break;
		}
}

/*
 * Upstream keeps what all versions say alike once, in the spec, and reports it there: the schema as spec.validation. These tell what is
 * said alike; what no version says is, too, and found wrong nowhere.
 */
struct alike {
	bool schema, subresources, columns, selectable;
};

static bool same_list(const struct schema_type *t, const void *x, uint32_t nx, const void *y, uint32_t ny, size_t size)
{
	bool same = nx == ny;

	for (uint32_t i = 0; same && i < nx; i++)
		same = object_equal(t, (const char *)x + i * size, (const char *)y + i * size);
	return same;
}

static struct alike alike_of(const crd_object_t *o)
{
	struct alike l = {true, true, true, true};
	const version_t *v = o->spec.versions.v;

	for (uint32_t i = 1; i < o->spec.versions.n; i++) {
		const version_t *w = &o->spec.versions.v[i];

		l.schema &= v->schema && w->schema ? object_equal(validation_type, v->schema, w->schema) : v->schema == w->schema;
		l.subresources &= v->subresources && w->subresources ?
					  object_equal(&apiextensions_v1_custom_resource_subresources_type, v->subresources, w->subresources) :
					  v->subresources == w->subresources;
		l.columns &= same_list(&apiextensions_v1_custom_resource_column_definition_type, v->additional_printer_columns.v,
				       v->additional_printer_columns.n, w->additional_printer_columns.v, w->additional_printer_columns.n,
				       sizeof *v->additional_printer_columns.v);
		l.selectable &= same_list(&apiextensions_v1_selectable_field_type, v->selectable_fields.v, v->selectable_fields.n,
					  w->selectable_fields.v, w->selectable_fields.n, sizeof *v->selectable_fields.v);
	}
	return l;
}

static bool has_status(const version_t *v)
{
	return v->subresources && v->subresources->status;
}

static void version_check(struct field_errors *e, const version_t *v, const struct alike *l, const crd_object_t *was, const struct field_path *at)
{
	const char *m = validate_dns1035_label(e->arena, v->name);

	if (m)
		field_invalid(e, FIELD_CHILD(at, "name"), v->name, "%s", m);
	deprecation_check(e, v, FIELD_CHILD(at, "deprecationWarning"));
	if (!l->schema && schema_of(v))
		schema_check(e, schema_of(v), has_status(v), FIELD_CHILD(FIELD_CHILD(at, "schema"), "openAPIV3Schema"), schema_unchanged(v, was));
	if (!l->subresources)
		subresources_check(e, v->subresources, at);
	if (!l->columns)
		columns_check(e, v, FIELD_CHILD(at, "additionalPrinterColumns"));
	if (!l->selectable)
		selectable_check(e, v, was, !l->schema, false, FIELD_CHILD(at, "selectableFields"));
}

static void versions_check(struct field_errors *e, const crd_object_t *o, const crd_object_t *was)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *versions = FIELD_CHILD(spec, "versions");
	const struct alike l = alike_of(o);
	uint32_t stored = 0;
	bool unique = true, defaults = false;
	const char *m;

	for (uint32_t i = 0; i < o->spec.versions.n; i++)
		if (!schema_of(&o->spec.versions.v[i]))
			field_required(e, FIELD_CHILD(FIELD_CHILD(FIELD_INDEX(versions, i), "schema"), "openAPIV3Schema"), "");
		else
			defaults |= schema_has_defaults(schema_of(&o->spec.versions.v[i]));
	if (defaults && o->spec.preserve_unknown_fields)
		field_invalid_raw(e, FIELD_CHILD(spec, "preserveUnknownFields"), STR("true"), "must be false in order to use defaults in the schema");
	for (uint32_t i = 0; i < o->spec.versions.n; i++) {
		const version_t *v = &o->spec.versions.v[i];

		stored += v->storage;
		for (uint32_t k = 0; k < i; k++)
			unique &= !str_eq(o->spec.versions.v[k].name, v->name);
		version_check(e, v, &l, was, FIELD_INDEX(versions, i));
	}
	if (!unique)
		field_invalid_raw(e, versions, STR("[]"), "must contain unique version names");
	if (stored != 1)
		field_invalid_raw(e, versions, STR("[]"), "must have exactly one version marked as storage version");
	/* upstream's internal version has the first one's name in the spec, too */
	if (o->spec.versions.n && o->spec.versions.v[0].name.n && (m = validate_dns1035_label(e->arena, o->spec.versions.v[0].name)) != NULL)
		field_invalid(e, FIELD_CHILD(spec, "version"), o->spec.versions.v[0].name, "%s", m);
}

/* What is said alike, at the places of the spec. */
static void shared_check(struct field_errors *e, const crd_object_t *o, const crd_object_t *was)
{
	const struct field_path *spec = FIELD_ROOT("spec");
	const struct alike l = alike_of(o);
	const version_t *v = o->spec.versions.v;
	bool status = false;

	if (!o->spec.versions.n)
		return;
	for (uint32_t i = 0; i < o->spec.versions.n; i++)
		status |= has_status(&v[i]);
	if (l.schema && schema_of(v))
		schema_check(e, schema_of(v), status, FIELD_CHILD(FIELD_CHILD(spec, "validation"), "openAPIV3Schema"), schema_unchanged(v, was));
	if (l.subresources)
		subresources_check(e, v->subresources, spec);
	if (l.columns)
		columns_check(e, v, FIELD_CHILD(spec, "additionalPrinterColumns"));
	if (l.selectable)
		selectable_check(e, v, was, l.schema, true, FIELD_CHILD(spec, "selectableFields"));
}

/* ---- names ---- */

static void label_check(struct field_errors *e, struct str s, const struct field_path *at)
{
	const char *m = s.n ? validate_dns1035_label(e->arena, s) : NULL;

	if (m)
		field_invalid(e, at, s, "%s", m);
}

static void kind_check(struct field_errors *e, struct str s, const struct field_path *at)
{
	char *lower = arena_strz(e->arena, s);
	const char *m;

	for (size_t i = 0; i < s.n; i++)
		lower[i] = (char)tolower((unsigned char)lower[i]);
	m = s.n ? validate_dns1035_label(e->arena, str_of(lower, s.n)) : NULL;
	if (m)
		field_invalid(e, at, s, "may have mixed case, but should otherwise match: %s", m);
}

static void label_list_check(struct field_errors *e, const struct str *v, uint32_t n, const struct field_path *at)
{
	for (uint32_t i = 0; i < n; i++) {
		const char *m = validate_dns1035_label(e->arena, v[i]);

		if (m)
			field_invalid(e, FIELD_INDEX(at, i), v[i], "%s", m);
	}
}

static void names_check(struct field_errors *e, const names_t *n, const struct field_path *at)
{
	label_check(e, n->plural, FIELD_CHILD(at, "plural"));
	label_check(e, n->singular, FIELD_CHILD(at, "singular"));
	kind_check(e, n->kind, FIELD_CHILD(at, "kind"));
	kind_check(e, n->list_kind, FIELD_CHILD(at, "listKind"));
	label_list_check(e, n->short_names.v, n->short_names.n, FIELD_CHILD(at, "shortNames"));
	if (n->kind.n && str_eq(n->kind, n->list_kind))
		field_invalid(e, FIELD_CHILD(at, "listKind"), n->list_kind, "kind and listKind may not be the same");
	label_list_check(e, n->categories.v, n->categories.n, FIELD_CHILD(at, "categories"));
}

static void required_names_check(struct field_errors *e, const names_t *n, const struct field_path *at)
{
	rule_required(e, FIELD_CHILD(at, "plural"), n->plural);
	rule_required(e, FIELD_CHILD(at, "singular"), n->singular);
	rule_required(e, FIELD_CHILD(at, "kind"), n->kind);
	rule_required(e, FIELD_CHILD(at, "listKind"), n->list_kind);
}

/* ---- the whole ---- */

static void stored_versions_check(struct field_errors *e, const crd_object_t *o)
{
	const struct field_path *at = FIELD_CHILD(FIELD_ROOT("status"), "storedVersions");
	const struct strings list = {.v = o->status.stored_versions.v, .n = o->status.stored_versions.n};

	if (!list.n) {
		field_invalid_list(e, at, &list, "must have at least one stored version");
		return;
	}
	for (uint32_t i = 0; i < o->spec.versions.n; i++) {
		bool before = false; /* a name counts once */

		for (uint32_t k = 0; k < i; k++)
			before |= str_eq(o->spec.versions.v[k].name, o->spec.versions.v[i].name);
		if (o->spec.versions.v[i].storage && (before || !strings_have(&list, o->spec.versions.v[i].name)))
			field_invalid_list(e, at, &list, "must have the storage version %.*s", STR_ARG(o->spec.versions.v[i].name));
	}
	for (uint32_t i = 0; i < list.n; i++) {
		bool there = false;

		for (uint32_t k = 0; k < o->spec.versions.n; k++)
			there |= str_eq(o->spec.versions.v[k].name, list.v[i]);
		if (!there)
			field_invalid(e, FIELD_INDEX(at, i), list.v[i], "missing from spec.versions; it was a storage version, and must remain in "
				      "spec.versions until a storage migration ensures no data remains persisted in it and removes it from "
				      "status.storedVersions");
	}
}

static void spec_check(struct field_errors *e, const crd_object_t *o, const crd_object_t *was)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *group = FIELD_CHILD(spec, "group");
	const char *m = validate_dns1123_subdomain(e->arena, o->spec.group);

	if (!o->spec.group.n)
		field_required(e, group, "");
	else if (m)
		field_invalid(e, group, o->spec.group, "%s", m);
	else if (str_index(o->spec.group, '.') < 0)
		field_invalid(e, group, o->spec.group, "should be a domain with at least one dot");
	rule_enum(e, FIELD_CHILD(spec, "scope"), o->spec.scope, "Cluster,Namespaced");
	versions_check(e, o, was);
	required_names_check(e, &o->spec.names, FIELD_CHILD(spec, "names"));
	names_check(e, &o->spec.names, FIELD_CHILD(spec, "names"));
	shared_check(e, o, was);
	if (o->spec.conversion && !str_eqz(o->spec.conversion->strategy, "None") && o->spec.preserve_unknown_fields)
		field_invalid(e, FIELD_CHILD(FIELD_CHILD(spec, "conversion"), "strategy"), o->spec.conversion->strategy,
			      "must be None if spec.preserveUnknownFields is true");
	conversion_check(e, o, was);
}

static void rest_check(struct field_errors *e, const crd_object_t *o, const crd_object_t *was)
{
	names_check(e, &o->status.accepted_names, FIELD_CHILD(FIELD_ROOT("status"), "acceptedNames"));
	stored_versions_check(e, o);
	approval_check(e, o, was);
	if (o->spec.preserve_unknown_fields && !(was && was->spec.preserve_unknown_fields))
		field_invalid_raw(e, FIELD_CHILD(FIELD_ROOT("spec"), "preserveUnknownFields"), STR("true"),
				  "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead");
}

static void crd_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const crd_object_t *o = obj;
	struct str want = arena_printf(rq->a, "%.*s.%.*s", STR_ARG(o->spec.names.plural), STR_ARG(o->spec.group));

	rule_object_name(e, &o->metadata, want, NULL, "must be spec.names.plural+\".\"+spec.group");
	spec_check(e, o, NULL);
	rest_check(e, o, NULL);
}

static void immutable(struct field_errors *e, struct str now, struct str was, const struct field_path *at)
{
	if (!str_eq(now, was))
		field_invalid(e, at, now, "field is immutable");
}

static void crd_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const crd_object_t *o = obj, *was = old;
	const struct field_path *spec = FIELD_ROOT("spec"), *names = FIELD_CHILD(spec, "names");

	(void)rq;
	spec_check(e, o, was);
	if (crd_condition(was, "Established")) {
		immutable(e, o->spec.scope, was->spec.scope, FIELD_CHILD(spec, "scope"));
		immutable(e, o->spec.names.kind, was->spec.names.kind, FIELD_CHILD(names, "kind"));
	}
	immutable(e, o->spec.group, was->spec.group, FIELD_CHILD(spec, "group"));
	immutable(e, o->spec.names.plural, was->spec.names.plural, FIELD_CHILD(names, "plural"));
	rest_check(e, o, was);
}

struct formats {
	struct arena *a;
	LIST(struct str) v;
};

static void odd_formats(struct formats *f, const struct apiextensions_v1_json_schema_props *p)
{
	if (!p)
		return;
	if (p->format.n && !schema_format_known(p->type, p->format))
		*arena_push(f->a, &f->v) = p->format;
	odd_formats(f, p->items ? p->items->schema : NULL);
	for (uint32_t i = 0; i < p->all_of.n; i++)
		odd_formats(f, &p->all_of.v[i]);
	for (uint32_t i = 0; i < p->any_of.n; i++)
		odd_formats(f, &p->any_of.v[i]);
	for (uint32_t i = 0; i < p->one_of.n; i++)
		odd_formats(f, &p->one_of.v[i]);
	odd_formats(f, p->not);
	for (uint32_t i = 0; i < p->properties.n; i++)
		odd_formats(f, &p->properties.v[i].value);
	odd_formats(f, p->additional_properties ? p->additional_properties->schema : NULL);
}

/* Formats that nobody knows, and that were not there before. */
static void crd_warn(struct request *rq, const void *obj, const void *old)
{
	const crd_object_t *o = obj, *was = old;
	struct formats now = {.a = rq->a}, before = {.a = rq->a};

	for (uint32_t i = 0; i < o->spec.versions.n; i++)
		odd_formats(&now, schema_of(&o->spec.versions.v[i]));
	for (uint32_t i = 0; was && i < was->spec.versions.n; i++)
		odd_formats(&before, schema_of(&was->spec.versions.v[i]));
	for (uint32_t i = 0; i < now.v.n; i++) {
		const struct strings list = {.v = before.v.v, .n = before.v.n};

		if (!strings_have(&list, now.v.v[i]))
			request_warn(rq, "unrecognized format \"%.*s\"", STR_ARG(now.v.v[i]));
	}
}

static void crd_validate_status(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const crd_object_t *o = obj;

	(void)rq;
	(void)sub;
	(void)old;
	names_check(e, &o->status.accepted_names, FIELD_CHILD(FIELD_ROOT("status"), "acceptedNames"));
}

/* ---- writes ---- */

static void store_version(struct request *rq, crd_object_t *o)
{
	const version_t *sv = crd_storage_version(o);
	const struct strings list = {.v = o->status.stored_versions.v, .n = o->status.stored_versions.n};

	if (!sv || !sv->storage || strings_have(&list, sv->name))
		return;
	o->status.stored_versions.cap = 0; /* a list of its own */
	*arena_push(rq->a, &o->status.stored_versions) = sv->name;
}

static void crd_create(struct request *rq, void *obj)
{
	crd_object_t *o = obj;

	memset(&o->status, 0, sizeof o->status);
	store_version(rq, o);
}

static void crd_update(struct request *rq, void *obj, const void *old)
{
	crd_object_t *o = obj;

	o->status = ((const crd_object_t *)old)->status;
	store_version(rq, o);
}

/* The first delete marks, and leaves the objects to the server (crd_names.c); whatever was asked of dependents. */
static struct error *crd_before_delete(struct request *rq, void *obj, bool *marked)
{
	crd_object_t *o = obj;
	const struct strings list = {.v = o->metadata.finalizers.v, .n = o->metadata.finalizers.n};

	if (o->metadata.deletion_timestamp)
		return NULL;
	o->metadata.deletion_timestamp = arena_new(rq->a, struct api_time);
	*o->metadata.deletion_timestamp = time_now();
	if (!strings_have(&list, STR(CRD_FINALIZER))) {
		o->metadata.finalizers.cap = 0;
		*arena_push(rq->a, &o->metadata.finalizers) = STR(CRD_FINALIZER);
	}
	crd_set_condition(rq->a, o, "Terminating", STR("True"), STR("InstanceDeletionPending"),
			  STR("CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"));
	*marked = true;
	return NULL;
}

/* A webhook that says nothing is none, as upstream's internal version has its members one by one. */
static void crd_normalize(struct arena *a, void *obj)
{
	crd_object_t *o = obj;
	struct apiextensions_v1_custom_resource_conversion *c = o->spec.conversion;

	(void)a;
	if (c && c->webhook && !c->webhook->client_config && !c->webhook->conversion_review_versions.v)
		c->webhook = NULL;
}

/* Values in schemas are judged as they were sent, and stored as Go writes them. */
static void crd_canonicalize(struct request *rq, void *obj)
{
	crd_object_t *o = obj;

	for (uint32_t i = 0; i < o->spec.versions.n; i++)
		if (o->spec.versions.v[i].schema && o->spec.versions.v[i].schema->open_apiv3_schema)
			schema_normalize(rq->a, o->spec.versions.v[i].schema->open_apiv3_schema);
}

const struct strategy strategy_crd = {
	.group = STR_INIT("apiextensions.k8s.io"), .plural = STR_INIT("customresourcedefinitions"), .generation = true,
	.keep_status_on_create = true, .checks_all = true, .meta_create = "m*", .meta_update = "u*", .meta_status = "u*", .no_unconditional_update = true,
	.read_text = crd_read_text, .normalize = crd_normalize, .canonicalize = crd_canonicalize, .prepare_create = crd_create, .prepare_update = crd_update, .validate = crd_validate, .validate_update = crd_validate_update,
	.validate_sub_update = crd_validate_status, .warn = crd_warn, .before_delete = crd_before_delete, .return_deleted = true,
};
