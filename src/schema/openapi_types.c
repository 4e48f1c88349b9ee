/* Definitions of OpenAPI documents: types of the tables. */
#include <stdlib.h>

#include "schema/openapi_internal.h"

#define META "io.k8s.apimachinery.pkg.apis.meta.v1."

/* Types whose JSON is not an object of members. */
static const struct {
	const char *name;
	const char *doc;
	const char *v2, *v3; /* the schema without its description; v3 NULL: the same */
} scalars[] = {
	{META "Time", "A time to the second, as RFC 3339 writes it.",
	 "{\"format\":\"date-time\",\"type\":\"string\"}", NULL},
	{META "MicroTime", "A time to the microsecond, as RFC 3339 writes it.",
	 "{\"format\":\"date-time\",\"type\":\"string\"}", NULL},
	{META "Duration", "A length of time, as numbers with units: 1h30m, 500ms.", "{\"type\":\"string\"}", NULL},
	{META "FieldsV1",
	 "A tree of fields: f:NAME is a member, k:KEYS a list element by its keys, "
	 "v:VALUE one by its value, i:INDEX one by its place; a dot is the place itself.",
	 "{\"type\":\"object\"}", NULL},
	{"io.k8s.apimachinery.pkg.version.Info",
	 "The version of the server and how it was built.",
	 "{\"properties\":{\"buildDate\":{\"type\":\"string\"},\"compiler\":{\"type\":\"string\"},\"emulationMajor\":{\"type\":\"string\"},"
	 "\"emulationMinor\":{\"type\":\"string\"},\"gitCommit\":{\"type\":\"string\"},\"gitTreeState\":{\"type\":\"string\"},"
	 "\"gitVersion\":{\"type\":\"string\"},\"goVersion\":{\"type\":\"string\"},\"major\":{\"type\":\"string\"},"
	 "\"minCompatibilityMajor\":{\"type\":\"string\"},\"minCompatibilityMinor\":{\"type\":\"string\"},"
	 "\"minor\":{\"type\":\"string\"},\"platform\":{\"type\":\"string\"}},\"required\":[\"major\",\"minor\",\"gitVersion\","
	 "\"gitCommit\",\"gitTreeState\",\"buildDate\",\"goVersion\",\"compiler\",\"platform\"],\"type\":\"object\"}",
	 "{\"properties\":{\"buildDate\":{\"default\":\"\",\"type\":\"string\"},\"compiler\":{\"default\":\"\",\"type\":\"string\"},\"emulationMajor\":{\"type\":\"string\"},"
	 "\"emulationMinor\":{\"type\":\"string\"},\"gitCommit\":{\"default\":\"\",\"type\":\"string\"},\"gitTreeState\":{\"default\":\"\",\"type\":\"string\"},"
	 "\"gitVersion\":{\"default\":\"\",\"type\":\"string\"},\"goVersion\":{\"default\":\"\",\"type\":\"string\"},\"major\":{\"default\":\"\",\"type\":\"string\"},"
	 "\"minCompatibilityMajor\":{\"type\":\"string\"},\"minCompatibilityMinor\":{\"type\":\"string\"},"
	 "\"minor\":{\"default\":\"\",\"type\":\"string\"},\"platform\":{\"default\":\"\",\"type\":\"string\"}},\"required\":[\"major\",\"minor\",\"gitVersion\","
	 "\"gitCommit\",\"gitTreeState\",\"buildDate\",\"goVersion\",\"compiler\",\"platform\"],\"type\":\"object\"}"},
	{META "Patch", "Changes of an object, in the form that the Content-Type names.",
	 "{\"type\":\"object\"}", NULL},
	{"io.k8s.apimachinery.pkg.runtime.RawExtension", "An object of any kind.", "{\"type\":\"object\"}", NULL},
	{"io.k8s.apimachinery.pkg.api.resource.Quantity",
	 "A decimal number with an optional unit: n, u, m, k, M, G, T, P, E, or Ki, Mi, "
	 "Gi, Ti, Pi, Ei for powers of 1024, or an exponent of ten: 100m, 1.5Gi, 12e6.",
	 "{\"type\":\"string\"}",
	 "{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"number\"}]}"},
	{"io.k8s.apimachinery.pkg.util.intstr.IntOrString",
	 "An integer or a string, such as a port by its number or name, or a percentage.",
	 "{\"format\":\"int-or-string\",\"type\":\"string\"}",
	 "{\"format\":\"int-or-string\",\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}"},
	{"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "Any JSON value.", "{}", NULL},
};

static void ref_open(struct openapi_doc *d, struct str name)
{
	buf_puts(d->b, d->v3 ? "{\"$ref\":\"#/components/schemas/" : "{\"$ref\":\"#/definitions/");
	buf_str(d->b, name);
	buf_puts(d->b, "\"}");
}

void openapi_ref(struct openapi_doc *d, const struct schema_type *t)
{
	struct str name = str_from(t->openapi);

	if (!map_has(&d->seen, name)) {
		map_set(&d->seen, name, (void *)(uintptr_t)t);
		*arena_push(d->a, &d->types) = t;
	}
	ref_open(d, name);
}

static void ref_other(struct openapi_doc *d, struct openapi_other o)
{
	if (!map_has(&d->seen, o.name)) {
		map_set(&d->seen, o.name, d);
		*arena_push(d->a, &d->others) = o;
	}
	ref_open(d, o.name);
}

void openapi_ref_name(struct openapi_doc *d, struct str name)
{
	ref_other(d, (struct openapi_other){.name = name});
}

void openapi_ref_crd(struct openapi_doc *d, const struct openapi_crd *c, bool list)
{
	ref_other(d, (struct openapi_other){.name = openapi_crd_name(d, c, list), .crd = c, .list = list});
}

/* The definition a scalar kind refers to; NULL: written in place. */
static const char *scalar_ref(enum field_kind k)
{
	switch (k) {
	case FIELD_TIME:
		return META "Time";
	case FIELD_MICROTIME:
		return META "MicroTime";
	case FIELD_DURATION:
		return META "Duration";
	case FIELD_FIELDSV1:
		return META "FieldsV1";
	case FIELD_RAW:
		return "io.k8s.apimachinery.pkg.runtime.RawExtension";
	case FIELD_QUANTITY:
		return "io.k8s.apimachinery.pkg.api.resource.Quantity";
	case FIELD_INTSTR:
		return "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
	case FIELD_JSON:
		return "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
	default:
		return NULL;
	}
}

/* Members "format" and "type" of a kind written in place. */
static void inline_type(struct buf *b, enum field_kind k)
{
	switch (k) {
	case FIELD_BOOL:
		buf_puts(b, "\"type\":\"boolean\"");
		break;
	case FIELD_INT32:
		buf_puts(b, "\"format\":\"int32\",\"type\":\"integer\"");
		break;
	case FIELD_INT64:
		buf_puts(b, "\"format\":\"int64\",\"type\":\"integer\"");
		break;
	case FIELD_UINT32:
	case FIELD_UINT64:
		buf_puts(b, "\"format\":\"int64\",\"type\":\"integer\"");
		break;
	case FIELD_DOUBLE:
		buf_puts(b, "\"format\":\"double\",\"type\":\"number\"");
		break;
	case FIELD_BYTES:
		buf_puts(b, "\"format\":\"byte\",\"type\":\"string\"");
		break;
	case FIELD_STRINGS:
		buf_puts(b, "\"items\":{\"type\":\"string\"},\"type\":\"array\"");
		break;
	case FIELD_ANY:
		buf_puts(b, "\"type\":\"object\"");
		break;
	default:
		buf_puts(b, "\"type\":\"string\"");
	}
}

/* Whether upstream's source marks the type +enum: nearly always where its values are all there are. */
static bool published(const struct schema_enum *e)
{
	if (!strcmp(e->name, "FieldValueErrorReason"))
		return true;
	return e->closed && strcmp(e->name, "ContainerRestartPolicy") && strcmp(e->name, "ParameterNotFoundActionType");
}

static void enum_values(struct buf *b, const struct schema_field *f)
{
	const struct schema_enum *e = f->info->enum_;
	bool first = true;

	if (!e || !published(e))
		return;
	buf_puts(b, ",\"enum\":[");
	for (uint32_t i = 0; i < e->n; i++) {
		if (!first)
			buf_putc(b, ',');
		first = false;
		jv_encode_string(b, e->values[i]);
	}
	buf_putc(b, ']');
}

/* The schema of one value: of a field without list or map around it. */
static void value_schema(struct openapi_doc *d, const struct schema_field *f)
{
	const char *ref = scalar_ref(f->kind);

	if (f->kind == FIELD_MESSAGE) {
		openapi_ref(d, f->type);
	} else if (ref) {
		openapi_ref_name(d, str_from(ref));
	} else {
		buf_putc(d->b, '{');
		inline_type(d->b, f->kind);
		enum_values(d->b, f);
		buf_putc(d->b, '}');
	}
}

static void list_extensions(struct buf *b, const struct schema_field *f)
{
	if (f->flags & FIELD_LIST_MAP) {
		buf_puts(b, ",\"x-kubernetes-list-map-keys\":[");
		for (uint8_t i = 0; i < f->info->n_list_keys; i++) {
			if (i)
				buf_putc(b, ',');
			jv_encode_string(b, f->info->list_keys[i]);
		}
		buf_puts(b, "],\"x-kubernetes-list-type\":\"map\"");
	} else if (f->flags & FIELD_LIST_SET) {
		buf_puts(b, ",\"x-kubernetes-list-type\":\"set\"");
	} else if (f->flags & FIELD_LIST_ATOMIC) {
		buf_puts(b, ",\"x-kubernetes-list-type\":\"atomic\"");
	}
	if (f->info->patch_key.n) {
		buf_puts(b, ",\"x-kubernetes-patch-merge-key\":");
		jv_encode_string(b, f->info->patch_key);
	}
}

static void extensions(struct buf *b, const struct schema_field *f)
{
	if (f->flags & FIELD_PATCH_REPLACE)
		buf_puts(b, ",\"x-kubernetes-patch-strategy\":\"replace\"");
	bool merge = f->flags & FIELD_PATCH_MERGE, retain = f->flags & FIELD_PATCH_RETAIN;

	list_extensions(b, f);
	if (merge || retain)
		buf_printf(b, ",\"x-kubernetes-patch-strategy\":\"%s%s%s\"", merge ? "merge" : "", merge && retain ? "," : "",
			   retain ? "retainKeys" : "");
	if (f->flags & FIELD_ATOMIC)
		buf_puts(b, ",\"x-kubernetes-map-type\":\"atomic\"");
	if (f->flags & FIELD_GRANULAR)
		buf_puts(b, ",\"x-kubernetes-map-type\":\"granular\"");
}

/* v3 tells what an absent field means where Go always writes it. */
static void default_value(struct openapi_doc *d, const struct schema_field *f)
{
	const char *value = d->v3 ? schema_absent_value(f) : NULL;

	if (value)
		buf_printf(d->b, ",\"default\":%s", value);
}

/* Fields that upstream says nothing about: their references have no siblings. */
static bool undocumented(const struct schema_type *t, const struct schema_field *f)
{
	return (t == &apiextensions_v1_json_schema_props_type && !str_eqz(f->name, "default")) ||
	       (t == &networking_v1_ingress_rule_type && str_eqz(f->name, "http"));
}

static void field_schema(struct openapi_doc *d, const struct schema_type *t, const struct schema_field *f,
			 const char *doc)
{
	struct buf *b = d->b;
	bool ref = f->kind == FIELD_MESSAGE || scalar_ref(f->kind);

	if (f->card == CARD_LIST) {
		buf_puts(b, "{\"items\":");
		value_schema(d, f);
		buf_puts(b, ",\"type\":\"array\"");
	} else if (f->card == CARD_MAP) {
		buf_puts(b, "{\"additionalProperties\":");
		value_schema(d, f);
		buf_puts(b, ",\"type\":\"object\"");
	} else if (ref && d->v3 && !undocumented(t, f)) {
		/* A reference may have no siblings in v3. */
		buf_puts(b, "{\"allOf\":[");
		value_schema(d, f);
		buf_putc(b, ']');
	} else {
		value_schema(d, f);
		b->n -= !b->overflow; /* the closing brace, to add members */
	}
	if (*doc && !(ref && undocumented(t, f))) {
		buf_puts(b, ",\"description\":");
		jv_encode_string(b, str_from(doc));
	}
	default_value(d, f);
	extensions(b, f);
	buf_putc(b, '}');
}

/* ---- group, version, kind ---- */

static void gvk(struct buf *b, struct str group, struct str version, struct str kind)
{
	buf_puts(b, "{\"group\":");
	jv_encode_string(b, group);
	buf_puts(b, ",\"kind\":");
	jv_encode_string(b, kind);
	buf_puts(b, ",\"version\":");
	jv_encode_string(b, version);
	buf_putc(b, '}');
}

/* Every group and version that upstream's types are registered in, served or not: each has a DeleteOptions and a WatchEvent. */
static const struct {
	const char *group, *version;
} registered[] = {
	{"", "v1"}, {"admission.k8s.io", "v1"}, {"admission.k8s.io", "v1beta1"}, {"admissionregistration.k8s.io", "v1"},
	{"admissionregistration.k8s.io", "v1alpha1"}, {"admissionregistration.k8s.io", "v1beta1"}, {"apiextensions.k8s.io", "v1"},
	{"apiextensions.k8s.io", "v1beta1"}, {"apiregistration.k8s.io", "v1"}, {"apiregistration.k8s.io", "v1beta1"}, {"apps", "v1"},
	{"apps", "v1beta1"}, {"apps", "v1beta2"}, {"authentication.k8s.io", "v1"}, {"authentication.k8s.io", "v1alpha1"},
	{"authentication.k8s.io", "v1beta1"}, {"authorization.k8s.io", "v1"}, {"authorization.k8s.io", "v1beta1"},
	{"autoscaling", "v1"}, {"autoscaling", "v2"}, {"batch", "v1"}, {"batch", "v1beta1"}, {"certificates.k8s.io", "v1"},
	{"certificates.k8s.io", "v1alpha1"}, {"certificates.k8s.io", "v1beta1"}, {"coordination.k8s.io", "v1"},
	{"coordination.k8s.io", "v1alpha2"}, {"coordination.k8s.io", "v1beta1"}, {"discovery.k8s.io", "v1"},
	{"discovery.k8s.io", "v1beta1"}, {"events.k8s.io", "v1"}, {"events.k8s.io", "v1beta1"}, {"extensions", "v1beta1"},
	{"flowcontrol.apiserver.k8s.io", "v1"}, {"flowcontrol.apiserver.k8s.io", "v1beta1"},
	{"flowcontrol.apiserver.k8s.io", "v1beta2"}, {"flowcontrol.apiserver.k8s.io", "v1beta3"}, {"imagepolicy.k8s.io", "v1alpha1"},
	{"internal.apiserver.k8s.io", "v1alpha1"}, {"networking.k8s.io", "v1"}, {"networking.k8s.io", "v1beta1"}, {"node.k8s.io", "v1"},
	{"node.k8s.io", "v1alpha1"}, {"node.k8s.io", "v1beta1"}, {"policy", "v1"}, {"policy", "v1beta1"},
	{"rbac.authorization.k8s.io", "v1"}, {"rbac.authorization.k8s.io", "v1alpha1"}, {"rbac.authorization.k8s.io", "v1beta1"},
	{"resource.k8s.io", "v1"}, {"resource.k8s.io", "v1alpha3"}, {"resource.k8s.io", "v1beta1"}, {"resource.k8s.io", "v1beta2"},
	{"scheduling.k8s.io", "v1"}, {"scheduling.k8s.io", "v1alpha2"}, {"scheduling.k8s.io", "v1beta1"}, {"storage.k8s.io", "v1"},
	{"storage.k8s.io", "v1alpha1"}, {"storage.k8s.io", "v1beta1"}, {"storagemigration.k8s.io", "v1beta1"},
};

/* Those that upstream's client has no types of; documents of custom resources are made with its. */
static bool of_servers(struct str group)
{
	return str_eqz(group, "admission.k8s.io") || str_eqz(group, "apiextensions.k8s.io") ||
	       str_eqz(group, "apiregistration.k8s.io") || str_eqz(group, "imagepolicy.k8s.io");
}

/* Types of meta/v1 that every group has (DeleteOptions, WatchEvent). */
static bool in_every_group(const struct schema_type *t)
{
	return t == &meta_v1_delete_options_type || t == &meta_v1_watch_event_type;
}

static void group_version_kinds(struct openapi_doc *d, const struct schema_type *t)
{
	struct str kind = str_from(t->name), group = t->group;
	bool every = in_every_group(t);

	if (!every && (!t->top || !t->openapi[0]))
		return;
	buf_puts(d->b, ",\"x-kubernetes-group-version-kind\":[");
	if (!every) {
		gvk(d->b, str_eqz(group, "meta.k8s.io") ? STR("") : group, t->version, kind);
	} else {
		for (size_t i = 0; i < sizeof registered / sizeof *registered; i++) {
			struct str g = str_from(registered[i].group), v = str_from(registered[i].version);

			if (d->custom ? of_servers(g)
				      : !d->all && g.n && (!str_eq(g, d->group) || !str_eq(v, d->version)))
				continue;
			if (i)
				buf_putc(d->b, ',');
			gvk(d->b, g, v, kind);
		}
	}
	buf_putc(d->b, ']');
}

static void unions(struct buf *b, const struct schema_type *t)
{
	if (!t->n_union_members)
		return;
	buf_puts(b, ",\"x-kubernetes-unions\":[{");
	if (t->discriminator) {
		buf_puts(b, "\"discriminator\":");
		jv_encode_string(b, str_from(t->discriminator));
		buf_putc(b, ',');
	}
	buf_puts(b, "\"fields-to-discriminateBy\":{");
	for (uint8_t i = 0; i < t->n_union_members; i++) {
		if (i)
			buf_putc(b, ',');
		jv_encode_string(b, str_from(t->union_members[i].field));
		buf_putc(b, ':');
		jv_encode_string(b, str_from(t->union_members[i].go));
	}
	buf_puts(b, "}}]");
}

static int by_name(const void *x, const void *y)
{
	return str_cmp((*(const struct schema_field *const *)x)->name, (*(const struct schema_field *const *)y)->name);
}

const char **openapi_docs(struct openapi_doc *d, const struct schema_type *t)
{
	const char **docs = arena_array(d->a, const char *, t->n_fields + 1u), *next = t->docs ? t->docs : "";

	for (uint16_t i = 0; i <= t->n_fields; i++) {
		docs[i] = next;
		next += t->docs ? strlen(next) + 1 : 0;
	}
	return docs;
}

static void type_definition(struct openapi_doc *d, const struct schema_type *t)
{
	struct buf *b = d->b;
	const struct schema_field **order = arena_array(d->a, const struct schema_field *, t->n_fields + 1u);
	const char **docs = openapi_docs(d, t), *doc = docs[0];
	bool any = false;

	if (t->json != SCHEMA_OBJECT) { /* a schema, or something else */
		buf_puts(b, "{\"description\":");
		jv_encode_string(b, str_from(doc));
		buf_putc(b, '}');
		return;
	}
	for (uint16_t i = 0; i < t->n_fields; i++)
		order[i] = &t->fields[i];
	qsort(order, t->n_fields, sizeof *order, by_name);
	buf_putc(b, '{');
	if (*doc) {
		buf_puts(b, "\"description\":");
		jv_encode_string(b, str_from(doc));
		buf_putc(b, ',');
	}
	if (t->n_fields) {
		buf_puts(b, "\"properties\":{");
		for (uint16_t i = 0; i < t->n_fields; i++) {
			if (i)
				buf_putc(b, ',');
			jv_encode_string(b, order[i]->name);
			buf_putc(b, ':');
			field_schema(d, t, order[i], docs[1 + (order[i] - t->fields)]);
		}
		buf_puts(b, "},");
	}
	for (uint16_t i = 0; i < t->n_fields; i++) {
		if (!(t->fields[i].flags & FIELD_REQUIRED))
			continue;
		buf_puts(b, any ? "," : "\"required\":[");
		any = true;
		jv_encode_string(b, t->fields[i].name);
	}
	buf_puts(b, any ? "],\"type\":\"object\"" : "\"type\":\"object\"");
	group_version_kinds(d, t);
	if (t->atomic)
		buf_puts(b, ",\"x-kubernetes-map-type\":\"atomic\"");
	unions(b, t);
	buf_putc(b, '}');
}

static void other_definition(struct openapi_doc *d, struct str name)
{
	for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++) {
		if (str_eqz(name, scalars[i].name)) {
			const char *members = (d->v3 && scalars[i].v3 ? scalars[i].v3 : scalars[i].v2) + 1;

			buf_printf(d->b, "{\"description\":\"%s\"%s%s", scalars[i].doc, *members == '}' ? "" : ",", members);
			return;
		}
	}
	buf_puts(d->b, "{\"type\":\"object\"}");
}

struct definition {
	struct str name, json;
};

static int definition_cmp(const void *x, const void *y)
{
	return str_cmp(((const struct definition *)x)->name, ((const struct definition *)y)->name);
}

void openapi_definitions(struct openapi_doc *d)
{
	struct buf *out = d->b;
	LIST(struct definition) made = {0};
	uint32_t t = 0, o = 0;

	/* Each may name others: until nothing new comes. */
	while (t < d->types.n || o < d->others.n) {
		buf_cleanup struct buf b = {0};
		struct definition *def = arena_push(d->a, &made);

		d->b = &b;
		if (t < d->types.n) {
			const struct schema_type *type = d->types.v[t++];

			def->name = str_from(type->openapi);
			type_definition(d, type);
		} else {
			const struct openapi_other other = d->others.v[o++];

			def->name = other.name;
			if (other.crd)
				openapi_crd_definition(d, other.crd, other.list);
			else
				other_definition(d, other.name);
		}
		/* The list may have moved. */
		made.v[made.n - 1].json = arena_str(d->a, buf_view(&b));
	}
	d->b = out;
	if (made.n)
		qsort(made.v, made.n, sizeof *made.v, definition_cmp);
	buf_puts(out, d->v3 ? "\"components\":{\"schemas\":{" : "\"definitions\":{");
	for (uint32_t i = 0; i < made.n; i++) {
		if (i)
			buf_putc(out, ',');
		jv_encode_string(out, made.v[i].name);
		buf_putc(out, ':');
		buf_str(out, made.v[i].json);
	}
	buf_putc(out, '}');
}
