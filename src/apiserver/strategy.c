/* The generic parts of strategies, and where the tables of kinds are found. */
#include <ctype.h>
#include "apiserver/server.h"

const struct strategy *strategy_find(struct str group, struct str plural)
{
	static const struct strategy *const *const tables[] = {strategies_core, strategies_apps, strategies_other};

	for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
		for (size_t i = 0; tables[t][i]; i++)
			if (str_eq(tables[t][i]->plural, plural) && str_eq(tables[t][i]->group, group))
				return tables[t][i];
	return NULL;
}

void object_field_copy(const struct schema_type *t, void *obj, const void *old, const char *name)
{
	const struct schema_field *f = schema_field(t, str_from(name));

	if (f)
		memcpy((char *)obj + f->offset, (const char *)old + f->offset, schema_field_size(f));
}

void object_field_zero(const struct schema_type *t, void *obj, const char *name)
{
	const struct schema_field *f = schema_field(t, str_from(name));

	if (f)
		memset((char *)obj + f->offset, 0, schema_field_size(f));
}

/* Equality of the whole objects with everything but the field (or but metadata and status) taken from one of them. */
static bool field_equal(const struct schema_type *t, const void *a, const void *b, const char *name,
			bool (*equal)(const struct schema_type *t, const void *a, const void *b))
{
	struct arena tmp arena_cleanup = {0};
	void *x = arena_alloc(&tmp, t->size), *y = arena_alloc(&tmp, t->size);

	object_field_copy(t, x, a, name);
	object_field_copy(t, y, b, name);
	return equal(t, x, y);
}

bool object_field_equal(const struct schema_type *t, const void *a, const void *b, const char *name)
{
	return field_equal(t, a, b, name, object_equal);
}

bool object_field_identical(const struct schema_type *t, const void *a, const void *b, const char *name)
{
	return field_equal(t, a, b, name, object_identical);
}

bool object_spec_changed(const struct schema_type *t, const void *a, const void *b, bool exact)
{
	struct arena tmp arena_cleanup = {0};
	void *x = arena_alloc(&tmp, t->size);

	memcpy(x, a, t->size);
	object_field_copy(t, x, b, "metadata");
	object_field_copy(t, x, b, "status");
	object_field_copy(t, x, b, "kind");
	object_field_copy(t, x, b, "apiVersion");
	return exact ? !object_identical(t, x, b) : !object_equal(t, x, b);
}

/* ---- metadata ---- */

static void standard_finalizers(struct field_errors *e, const struct meta_v1_object_meta *m, const struct field_path *p)
{
	for (uint32_t i = 0; i < m->finalizers.n; i++) {
		struct str f = m->finalizers.v[i];

		if (str_index(f, '/') < 0 && !str_eqz(f, "kubernetes") && !str_eqz(f, "orphan") && !str_eqz(f, "foregroundDeletion"))
			field_invalid(e, FIELD_INDEX(p, i), f, "name is neither a standard finalizer name nor is it fully qualified");
	}
}

static void validate_finalizers(struct field_errors *e, const struct meta_v1_object_meta *m, const struct field_path *p)
{
	bool orphan = false, foreground = false;

	for (uint32_t i = 0; i < m->finalizers.n; i++) {
		field_check(e, p, m->finalizers.v[i], validate_qualified_name);
		orphan |= str_eqz(m->finalizers.v[i], "orphan");
		foreground |= str_eqz(m->finalizers.v[i], "foregroundDeletion");
	}
	if (orphan && foreground)
		field_invalid_list(e, p, (const void *)&m->finalizers, "finalizer orphan and foregroundDeletion cannot be both set");
}

static void validate_owners(struct field_errors *e, const struct meta_v1_object_meta *m, const struct field_path *p)
{
	const struct meta_v1_owner_reference *controller = NULL;

	for (uint32_t i = 0; i < m->owner_references.n; i++) {
		const struct meta_v1_owner_reference *o = &m->owner_references.v[i];
		struct str group, version;

		api_version_split(o->api_version, &group, &version);
		if (!version.n || str_index(version, '/') >= 0)
			field_invalid(e, FIELD_CHILD(p, "apiVersion"), o->api_version, "version must not be empty");
		if (!o->kind.n)
			field_invalid(e, FIELD_CHILD(p, "kind"), o->kind, "must not be empty");
		if (!o->name.n)
			field_invalid(e, FIELD_CHILD(p, "name"), o->name, "must not be empty");
		if (!o->uid.n)
			field_invalid(e, FIELD_CHILD(p, "uid"), o->uid, "must not be empty");
		if (str_eqz(o->api_version, "v1") && str_eqz(o->kind, "Event"))
			field_invalid_raw(e, p, STR("/v1, Kind=Event"), "/v1, Kind=Event is disallowed from being an owner");
		if (o->controller && *o->controller) {
			if (controller)
				field_invalid_raw(e, p, STR("[]"), "Only one reference can have Controller set to true. Found \"true\" in "
						  "references for %.*s/%.*s and %.*s/%.*s", STR_ARG(controller->kind), STR_ARG(controller->name),
						  STR_ARG(o->kind), STR_ARG(o->name));
			else
				controller = o;
		}
	}
}

const char *validate_any_name(struct arena *a, struct str name)
{
	return validate_path_segment(a, name);
}

void validate_object_meta(struct field_errors *e, const struct meta_v1_object_meta *m, bool namespaced,
			  const char *(*name_check)(struct arena *a, struct str name), const struct field_path *p, bool built_in)
{
	if (!name_check)
		name_check = validate_dns1123_subdomain;
	if (m->generate_name.n) {
		struct str g = m->generate_name;
		const char *msg;

		/* more will follow: a trailing dash is fine, and dots are where any name is */
		if (name_check != validate_path_segment && name_check != validate_ip_canonical && g.n > 1 && g.p[g.n - 1] == '-')
			g = arena_printf(e->arena, "%.*sa", (int)g.n - 2, g.p);
		msg = name_check == validate_any_name && (str_eqz(g, ".") || str_eqz(g, "..")) ? NULL : name_check(e->arena, g);
		for (struct str rest = str_from(msg ? msg : ""); rest.n;) {
			ptrdiff_t i = str_find(rest, STR("; "));

			field_invalid(e, FIELD_CHILD(p, "generateName"), m->generate_name, "%.*s", i < 0 ? (int)rest.n : (int)i, rest.p);
			rest = i < 0 ? STR_NULL : str_sub(rest, (size_t)i + 2, rest.n);
		}
	}
	if (!m->name.n)
		field_required(e, FIELD_CHILD(p, "name"), "name or generateName is required");
	else
		field_check(e, FIELD_CHILD(p, "name"), m->name, name_check);
	if (namespaced) {
		if (!m->namespace.n)
			field_required(e, FIELD_CHILD(p, "namespace"), "");
		else
			field_check(e, FIELD_CHILD(p, "namespace"), m->namespace, validate_dns1123_label);
	} else if (m->namespace.n) {
		field_forbidden(e, FIELD_CHILD(p, "namespace"), "not allowed on this type");
	}
	if (m->generation < 0)
		field_invalid_int(e, FIELD_CHILD(p, "generation"), m->generation, "must be greater than or equal to 0");
	validate_labels(e, API_MAP(&m->labels), FIELD_CHILD(p, "labels"));
	validate_annotations(e, API_MAP(&m->annotations), FIELD_CHILD(p, "annotations"));
	validate_owners(e, m, FIELD_CHILD(p, "ownerReferences"));
	validate_finalizers(e, m, FIELD_CHILD(p, "finalizers"));
	if (built_in)
		standard_finalizers(e, m, FIELD_CHILD(p, "finalizers"));
}

static void immutable(struct field_errors *e, const struct field_path *p, struct str now, struct str old)
{
	if (!str_eq(now, old))
		field_invalid(e, p, now, "field is immutable");
}

void validate_object_meta_update(struct field_errors *e, const struct meta_v1_object_meta *m, const struct meta_v1_object_meta *old,
				 const struct field_path *p, bool built_in)
{
	if (old->deletion_timestamp) {
		/* in deletion, finalizers can only be taken away */
		struct buf b buf_cleanup = {0};

		for (uint32_t i = 0; i < m->finalizers.n; i++) {
			bool was = false;

			for (uint32_t k = 0; k < old->finalizers.n; k++)
				was |= str_eq(m->finalizers.v[i], old->finalizers.v[k]);
			if (!was)
				buf_printf(&b, "%s\"%.*s\"", b.n ? ", " : "", STR_ARG(m->finalizers.v[i]));
		}
		if (b.n)
			field_forbidden(e, FIELD_CHILD(p, "finalizers"),
					"no new finalizers can be added if the object is being deleted, found new finalizers []string{%s}",
					buf_z(&b));
	}
	if (!m->resource_version.n)
		field_invalid(e, FIELD_CHILD(p, "resourceVersion"), m->resource_version, "must be specified for an update");
	if (m->generation < old->generation)
		field_invalid_int(e, FIELD_CHILD(p, "generation"), m->generation, "must not be decremented");
	immutable(e, FIELD_CHILD(p, "name"), m->name, old->name);
	immutable(e, FIELD_CHILD(p, "namespace"), m->namespace, old->namespace);
	immutable(e, FIELD_CHILD(p, "uid"), m->uid, old->uid);
	if (m->creation_timestamp.s != old->creation_timestamp.s)
		field_invalid_raw(e, FIELD_CHILD(p, "creationTimestamp"), time_format(e->arena, m->creation_timestamp, false),
				  "field is immutable");
	if (!m->deletion_timestamp != !old->deletion_timestamp ||
	    (m->deletion_timestamp && m->deletion_timestamp->s != old->deletion_timestamp->s))
		field_invalid_raw(e, FIELD_CHILD(p, "deletionTimestamp"),
				  m->deletion_timestamp ? time_format(e->arena, *m->deletion_timestamp, false) : STR("null"),
				  "field is immutable");
	if (m->deletion_grace_period_seconds &&
	    (!old->deletion_grace_period_seconds || *m->deletion_grace_period_seconds != *old->deletion_grace_period_seconds))
		field_invalid_int(e, FIELD_CHILD(p, "deletionGracePeriodSeconds"), *m->deletion_grace_period_seconds, "field is immutable");
	validate_labels(e, API_MAP(&m->labels), FIELD_CHILD(p, "labels"));
	validate_annotations(e, API_MAP(&m->annotations), FIELD_CHILD(p, "annotations"));
	validate_owners(e, m, FIELD_CHILD(p, "ownerReferences"));
	if (built_in)
		standard_finalizers(e, m, FIELD_CHILD(p, "finalizers"));
}

/* ---- clocks and names ---- */

struct api_time time_now(void)
{
	return (struct api_time){.s = wall_ns() / 1000000000, .set = true};
}

struct api_time time_now_micro(void)
{
	int64_t ns = wall_ns();

	return (struct api_time){.s = ns / 1000000000, .ns = (int32_t)(ns % 1000000000 / 1000 * 1000), .set = true};
}

void random_suffix(char *out, size_t n)
{
	static const char letters[] = "bcdfghjklmnpqrstvwxz2456789";

	for (size_t i = 0; i < n; i++)
		out[i] = letters[random_u64() % (sizeof letters - 1)];
	out[n] = 0;
}
