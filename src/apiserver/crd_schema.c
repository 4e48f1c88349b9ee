/* Structural schemas (KEP-1693 et al.) over trees: pruning, defaults, validation, and what a schema may say. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include "apiserver/custom.h"
#include "cel/cel.h"

typedef struct apiextensions_v1_json_schema_props props;

#define PATTERNS_MAX 4096

static const props *property(const props *p, struct str name)
{
	for (uint32_t i = 0; p && i < p->properties.n; i++)
		if (str_eq(p->properties.v[i].key, name))
			return &p->properties.v[i].value;
	return NULL;
}

static const props *item_schema(const props *p)
{
	return p && p->items ? p->items->schema : NULL;
}

static bool preserves(const props *p)
{
	return p->x_kubernetes_preserve_unknown_fields && *p->x_kubernetes_preserve_unknown_fields;
}

static bool type_meta(struct str key)
{
	return str_eqz(key, "apiVersion") || str_eqz(key, "kind") || str_eqz(key, "metadata");
}

/* ---- pruning ---- */

static struct str child_path(struct arena *a, struct str path, struct str key)
{
	return path.n ? arena_printf(a, "%.*s.%.*s", STR_ARG(path), STR_ARG(key)) : key;
}

void schema_prune(struct arena *a, const props *p, struct jv *v, bool resource, struct str path, struct decode_report *report)
{
	if (!p)
		return;
	if (v->kind == JV_ARRAY) {
		const props *item = item_schema(p);

		for (uint32_t i = 0; item && i < v->n; i++)
			schema_prune(a, item, &v->items[i], item->x_kubernetes_embedded_resource,
				     report ? arena_printf(a, "%.*s[%u]", STR_ARG(path), i) : path, report);
		return;
	}
	if (v->kind != JV_OBJECT || p->x_kubernetes_int_or_string)
		return;
	for (uint32_t i = 0; i < v->n;) {
		struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);
		bool keep = c != NULL;

		if (resource && type_meta(m->key)) {
			i++;
			continue;
		}
		if (!c && p->additional_properties) {
			c = p->additional_properties->schema;
			keep = c || p->additional_properties->allows;
		}
		if (!keep && preserves(p))
			keep = true;
		if (!keep) {
			if (report && report->problems.n < 1000) {
				struct str full = child_path(a, path, m->key);

				*arena_push(report->arena, &report->problems) = arena_printf(report->arena, "unknown field \"%.*s\"",
											     STR_ARG(full));
			}
			memmove(m, m + 1, (v->n - i - 1) * sizeof *m);
			v->n--;
			continue;
		}
		if (c)
			schema_prune(a, c, &m->value, c->x_kubernetes_embedded_resource, report ? child_path(a, path, m->key) : path, report);
		i++;
	}
}

/* ---- defaults ---- */

void schema_default(struct arena *a, const props *p, struct jv *v, bool resource)
{
	if (!p)
		return;
	if (v->kind == JV_ARRAY) {
		for (uint32_t i = 0; i < v->n; i++) {
			const props *item = item_schema(p);

			if (item && v->items[i].kind == JV_NULL && !item->nullable && item->default_) {
				struct error *e = jv_parse(a, *item->default_, NULL, &v->items[i]);

				log_and_free(e, "schema default");
			}
			schema_default(a, item, &v->items[i], false);
		}
		return;
	}
	if (v->kind != JV_OBJECT)
		return;
	for (uint32_t i = 0; i < p->properties.n; i++) {
		const props *c = &p->properties.v[i].value;
		struct str key = p->properties.v[i].key;
		struct jv *m = jv_get(v, key);

		if (resource && type_meta(key))
			continue;
		if (c->default_ && (!m || (m->kind == JV_NULL && !c->nullable))) {
			struct jv d;
			struct error *e = jv_parse(a, *c->default_, NULL, &d);

			if (e)
				log_and_free(e, "schema default of %.*s", STR_ARG(key));
			else
				m = jv_set(a, v, key, d);
		} else if (m && m->kind == JV_NULL && !c->nullable) {
			/* a null that may not be one counts as absent */
			jv_del(v, key);
			m = NULL;
		}
		if (m)
			schema_default(a, c, m, false);
	}
	if (p->additional_properties && p->additional_properties->schema)
		for (uint32_t i = 0; i < v->n; i++)
			if (!property(p, v->members[i].key))
				schema_default(a, p->additional_properties->schema, &v->members[i].value, false);
}

bool schema_has_defaults(const props *p)
{
	if (!p)
		return false;
	if (p->default_ || schema_has_defaults(item_schema(p)))
		return true;
	for (uint32_t i = 0; i < p->properties.n; i++)
		if (schema_has_defaults(&p->properties.v[i].value))
			return true;
	return p->additional_properties && schema_has_defaults(p->additional_properties->schema);
}

/* ---- validation ---- */

static const char *kind_name(const struct jv *v)
{
	static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};

	return names[v->kind];
}

static bool type_fits(const props *p, const struct jv *v)
{
	struct str t = p->type;

	if (p->x_kubernetes_int_or_string)
		return v->kind == JV_INT || v->kind == JV_STRING;
	if (!t.n)
		return true;
	if (v->kind == JV_NULL)
		return p->nullable;
	if (str_eqz(t, "object"))
		return v->kind == JV_OBJECT;
	if (str_eqz(t, "array"))
		return v->kind == JV_ARRAY;
	if (str_eqz(t, "string"))
		return v->kind == JV_STRING;
	if (str_eqz(t, "boolean"))
		return v->kind == JV_BOOL;
	if (str_eqz(t, "integer"))
		return v->kind == JV_INT || (v->kind == JV_DOUBLE && v->d == floor(v->d));
	if (str_eqz(t, "number"))
		return v->kind == JV_INT || v->kind == JV_DOUBLE;
	return true;
}

static struct str shown(struct arena *a, const struct jv *v)
{
	struct buf b buf_cleanup = {0};

	jv_encode(&b, v);
	return arena_str(a, str_sub(buf_view(&b), 0, 2000));
}

static void patterns_forget(struct map *known)
{
	size_t it = 0;
	struct str key;
	void *v;

	while (map_next(known, &it, &key, &v))
		pcre2_code_free(v);
	map_free(known);
	memset(known, 0, sizeof *known);
}

/* Compiled patterns, kept: a CRD's are used for each write. Good until the next call. NULL: not a pattern. */
static pcre2_code *pattern_code(struct str pattern)
{
	static struct map known;
	pcre2_code *c = map_get(&known, pattern);
	int err;
	PCRE2_SIZE off;

	if (c || map_has(&known, pattern))
		return c;
	if (known.n >= PATTERNS_MAX)
		patterns_forget(&known);
	c = pcre2_compile((PCRE2_SPTR)(pattern.n ? pattern.p : ""), pattern.n, PCRE2_UTF | PCRE2_MATCH_INVALID_UTF, &err, &off, NULL);
	map_set(&known, pattern, c);
	return c;
}

bool schema_pattern_valid(struct str pattern)
{
	return pattern_code(pattern) != NULL;
}

static bool pattern_matches(struct str pattern, struct str s)
{
	pcre2_code *c = pattern_code(pattern);
	pcre2_match_data *md;
	pcre2_match_context *mc;
	int rc;

	if (!c)
		return true; /* refused when the CRD was written */
	md = pcre2_match_data_create(1, NULL);
	mc = pcre2_match_context_create(NULL);
	pcre2_set_match_limit(mc, 1000000);
	rc = pcre2_match(c, (PCRE2_SPTR)(s.n ? s.p : ""), s.n, 0, 0, md, mc);
	pcre2_match_context_free(mc);
	pcre2_match_data_free(md);
	return rc >= 0;
}

static size_t utf8_length(struct str s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
	return n;
}

static bool format_fits(struct arena *a, struct str f, struct str s)
{
	struct api_time t;
	int64_t ns;

	if (str_eqz(f, "date-time") || str_eqz(f, "datetime"))
		return time_parse(s, &t);
	if (str_eqz(f, "date"))
		return s.n == 10 && time_parse(arena_printf(a, "%.*sT00:00:00Z", STR_ARG(s)), &t);
	if (str_eqz(f, "duration"))
		return cel_format_duration(s, &ns);
	if (str_eqz(f, "byte")) {
		struct str out;

		return base64_decode(a, s, &out);
	}
	if (str_eqz(f, "ipv4"))
		return !validate_ipv4(a, s);
	if (str_eqz(f, "ipv6"))
		return !validate_ipv6(a, s);
	if (str_eqz(f, "cidr"))
		return !validate_cidr(a, s);
	if (str_eqz(f, "uuid"))
		return pattern_matches(STR("^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"), s);
	if (str_eqz(f, "uri"))
		return pattern_matches(STR("^[A-Za-z][A-Za-z0-9+.-]*:|^/"), s);
	if (str_eqz(f, "email"))
		return pattern_matches(STR("^[^@\\s]+@[^@\\s]+$"), s);
	if (str_eqz(f, "hostname"))
		return !validate_dns1123_subdomain(a, s);
	return true; /* others are annotations */
}

static double number(const struct jv *v)
{
	return v->kind == JV_INT ? (double)v->i : v->d;
}

/* Made only for what is wrong. */
static const char *path_text(struct field_errors *e, const struct field_path *at)
{
	return arena_strz(e->arena, field_path_format(e->arena, at));
}

static void check_number(struct field_errors *e, const props *p, const struct jv *v, const struct field_path *at)
{
	double d = number(v);

	if (p->minimum && (p->exclusive_minimum ? d <= *p->minimum : d < *p->minimum))
		field_invalid_raw(e, at, shown(e->arena, v), "%s in body should be greater than%s %.15g", path_text(e, at),
				  p->exclusive_minimum ? "" : " or equal to", *p->minimum);
	if (p->maximum && (p->exclusive_maximum ? d >= *p->maximum : d > *p->maximum))
		field_invalid_raw(e, at, shown(e->arena, v), "%s in body should be less than%s %.15g", path_text(e, at),
				  p->exclusive_maximum ? "" : " or equal to", *p->maximum);
	if (p->multiple_of && *p->multiple_of > 0 && fabs(remainder(d, *p->multiple_of)) > 1e-9)
		field_invalid_raw(e, at, shown(e->arena, v), "%s in body should be a multiple of %.15g", path_text(e, at), *p->multiple_of);
	if (str_eqz(p->format, "int32") && (d < -2147483648.0 || d > 2147483647.0))
		field_invalid_raw(e, at, shown(e->arena, v), "%s in body must be of type int32: %s", path_text(e, at), arena_strz(e->arena, shown(e->arena, v)));
}

/* What is shown is the value, or the name of its type. */
static void type_invalid(struct field_errors *e, const struct field_path *at, struct str value, struct str type)
{
	struct field_error *f;
	struct str path = field_path_format(e->arena, at);

	if (e->list.n >= FIELD_ERRORS_MAX)
		return;
	f = arena_push(e->arena, &e->list);
	f->type = FIELD_ERROR_TYPE_INVALID;
	f->field = path;
	f->body = arena_printf(e->arena, "Invalid value: %.*s: %.*s in body must be of type %.*s: %.*s", STR_ARG(value), STR_ARG(path),
			       STR_ARG(type), STR_ARG(value));
}

static void check_string(struct field_errors *e, const props *p, const struct jv *v, const struct field_path *at)
{
	struct str s = jv_str(v);

	if (p->max_length && (int64_t)utf8_length(s) > *p->max_length)
		field_too_long(e, at, (int)*p->max_length);
	else if (p->min_length && (int64_t)utf8_length(s) < *p->min_length)
		field_invalid(e, at, s, "%s in body should be at least %lld chars long", path_text(e, at), (long long)*p->min_length);
	else if (p->pattern.n && !pattern_matches(p->pattern, s))
		field_invalid(e, at, s, "%s in body should match '%.*s'", path_text(e, at), STR_ARG(p->pattern));
	if (p->format.n && !format_fits(e->arena, p->format, s))
		type_invalid(e, at, arena_printf(e->arena, "\"%.*s\"", STR_ARG(s)), p->format);
}

/* ---- lists ---- */

struct list_index {
	const props *schema;
	const struct jv *items;
	uint32_t n;
	struct slot {
		uint64_t hash;
		uint32_t at;
	} *slots; /* by hash, then place */
};

static const struct jv no_key = {.kind = JV_NULL};

static const struct jv *key_of(const props *p, const struct jv *e, uint32_t i)
{
	const struct jv *k = jv_get(e, p->x_kubernetes_list_map_keys.v[i]);

	return k ? k : &no_key;
}

static uint64_t hash_of(const props *p, const struct jv *e)
{
	uint64_t h = 0;

	if (!p->x_kubernetes_list_map_keys.n)
		return jv_hash(e);
	for (uint32_t i = 0; i < p->x_kubernetes_list_map_keys.n; i++)
		h = (h ^ jv_hash(key_of(p, e, i))) * 0x9e3779b97f4a7c15u + 1;
	return h;
}

static bool alike(const props *p, const struct jv *x, const struct jv *y)
{
	if (!p->x_kubernetes_list_map_keys.n)
		return jv_equal(x, y);
	for (uint32_t i = 0; i < p->x_kubernetes_list_map_keys.n; i++)
		if (!jv_equal(key_of(p, x, i), key_of(p, y, i)))
			return false;
	return true;
}

static int slot_order(const void *x, const void *y)
{
	const struct slot *a = x, *b = y;

	return a->hash != b->hash ? (a->hash < b->hash ? -1 : 1) : a->at < b->at ? -1 : a->at > b->at;
}

struct list_index *list_index_new(struct arena *a, const props *p, const struct jv *list)
{
	struct list_index *x = arena_new(a, struct list_index);

	*x = (struct list_index){p, list->items, list->n, arena_array(a, struct slot, list->n + 1)};
	for (uint32_t i = 0; i < x->n; i++)
		x->slots[i] = (struct slot){hash_of(p, &x->items[i]), i};
	qsort(x->slots, x->n, sizeof *x->slots, slot_order);
	return x;
}

const struct jv *list_index_get(const struct list_index *x, const struct jv *e)
{
	uint64_t h = hash_of(x->schema, e);
	uint32_t lo = 0, hi = x->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (x->slots[mid].hash < h)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < x->n && x->slots[lo].hash == h; lo++)
		if (alike(x->schema, &x->items[x->slots[lo].at], e))
			return &x->items[x->slots[lo].at];
	return NULL;
}

static void check_array(struct field_errors *e, const props *p, const struct jv *v, const struct jv *old, const struct field_path *at)
{
	const props *item = item_schema(p);
	struct str lt = p->x_kubernetes_list_type ? *p->x_kubernetes_list_type : STR_NULL;
	bool set = str_eqz(lt, "set"), map = str_eqz(lt, "map") && p->x_kubernetes_list_map_keys.n;
	/* elements of maps are found again by their keys; of other lists, nothing is */
	struct list_index *now = v->n > 1 && (set || map || p->unique_items) ? list_index_new(e->arena, p, v) : NULL;
	struct list_index *before = map && jv_is(old, JV_ARRAY) ? list_index_new(e->arena, p, old) : NULL;

	if (p->max_items && v->n > *p->max_items)
		field_too_many(e, at, v->n, *p->max_items);
	if (p->min_items && v->n < *p->min_items)
		field_invalid_int(e, at, v->n, "%s in body should have at least %lld items", path_text(e, at), (long long)*p->min_items);
	for (uint32_t i = 0; i < v->n; i++) {
		const struct jv *was = before ? list_index_get(before, &v->items[i]) : NULL;

		if (now && list_index_get(now, &v->items[i]) != &v->items[i])
			field_duplicate_raw(e, FIELD_INDEX(at, i), shown(e->arena, &v->items[i]), "");
		schema_validate(e, item, &v->items[i], was, FIELD_INDEX(at, i), item && item->x_kubernetes_embedded_resource);
	}
}

/* apiVersion and kind of an embedded resource */
static void named_type(struct field_errors *e, const struct jv *v, const char *key, const struct field_path *at)
{
	const struct jv *m = jv_get(v, str_from(key));

	if (!m)
		field_required(e, FIELD_CHILD_S(at, str_from(key)), "");
	else if (m->kind != JV_STRING)
		field_invalid_raw(e, FIELD_CHILD_S(at, str_from(key)), shown(e->arena, m), "must be a string");
	else if (!m->n)
		field_invalid(e, FIELD_CHILD_S(at, str_from(key)), STR(""), "must not be empty");
}

static void check_object(struct field_errors *e, const props *p, const struct jv *v, const struct jv *old, const struct field_path *at,
			 bool resource)
{
	for (uint32_t i = 0; i < p->required.n; i++)
		if (!jv_get(v, p->required.v[i]))
			field_required(e, FIELD_CHILD_S(at, p->required.v[i]), "");
	if (p->max_properties && v->n > *p->max_properties)
		field_too_many(e, at, v->n, *p->max_properties);
	if (p->min_properties && v->n < *p->min_properties)
		field_invalid_int(e, at, v->n, "%s in body should have at least %lld properties", path_text(e, at), (long long)*p->min_properties);
	for (uint32_t i = 0; i < v->n; i++) {
		const struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);
		const struct jv *was = jv_is(old, JV_OBJECT) ? jv_get(old, m->key) : NULL;

		if (resource && type_meta(m->key)) {
			/* of metadata a schema may restrict name and generateName only */
			if (str_eqz(m->key, "metadata") && c)
				schema_validate(e, c, &m->value, was, FIELD_CHILD_S(at, m->key), false);
			continue;
		}
		if (c)
			schema_validate(e, c, &m->value, was, FIELD_CHILD_S(at, m->key), c->x_kubernetes_embedded_resource);
		else if (p->additional_properties && p->additional_properties->schema)
			schema_validate(e, p->additional_properties->schema, &m->value, was, FIELD_CHILD_S(at, m->key), false);
	}
	if (resource && at && p->x_kubernetes_embedded_resource) {
		named_type(e, v, "apiVersion", at);
		named_type(e, v, "kind", at);
	}
}

static bool quietly(struct arena *a, const props *p, const struct jv *v, bool resource)
{
	struct field_errors e = {.arena = a};

	schema_validate(&e, p, v, NULL, NULL, resource);
	return e.list.n == 0;
}

void schema_validate(struct field_errors *e, const props *p, const struct jv *v, const struct jv *old, const struct field_path *at, bool resource)
{
	uint32_t n = 0;

	if (!p)
		return;
	/* ratcheting (KEP-4008): what did not change is not judged again */
	if (old && jv_equal(v, old))
		return;
	if (!type_fits(p, v)) {
		type_invalid(e, at, arena_printf(e->arena, "\"%s\"", kind_name(v)),
			     p->x_kubernetes_int_or_string ? STR("integer,string") : p->type);
		return;
	}
	if (v->kind == JV_NULL && p->nullable)
		return;
	if (p->enum_.n) {
		bool found = false;
		struct str *values = arena_array(e->arena, struct str, p->enum_.n);

		for (uint32_t i = 0; i < p->enum_.n; i++) {
			struct jv x;
			struct error *err = jv_parse(e->arena, p->enum_.v[i], NULL, &x);

			if (err) {
				error_free(err);
				continue;
			}
			found |= jv_equal(&x, v);
			values[i] = x.kind == JV_STRING ? jv_str(&x) : p->enum_.v[i];
		}
		if (!found)
			field_not_supported(e, at, v->kind == JV_STRING ? jv_str(v) : shown(e->arena, v), values, p->enum_.n);
	}
	switch (v->kind) {
	case JV_INT:
	case JV_DOUBLE:
		check_number(e, p, v, at);
		break;
	case JV_STRING:
		check_string(e, p, v, at);
		break;
	case JV_ARRAY:
		check_array(e, p, v, old, at);
		break;
	case JV_OBJECT:
		check_object(e, p, v, old, at, resource);
		break;
	default:
		break;
	}
	for (uint32_t i = 0; i < p->all_of.n; i++)
		schema_validate(e, &p->all_of.v[i], v, old, at, resource);
	if (p->any_of.n) {
		for (uint32_t i = 0; i < p->any_of.n; i++)
			n += quietly(e->arena, &p->any_of.v[i], v, resource);
		if (!n)
			field_invalid_raw(e, at, shown(e->arena, v), "%s in body must validate at least one schema (anyOf)", path_text(e, at));
	}
	if (p->one_of.n) {
		n = 0;
		for (uint32_t i = 0; i < p->one_of.n; i++)
			n += quietly(e->arena, &p->one_of.v[i], v, resource);
		if (n != 1)
			field_invalid_raw(e, at, shown(e->arena, v), "%s in body must validate one and only one schema (oneOf). Found %s",
					  path_text(e, at), n ? "more than one valid alternatives" : "none valid");
	}
	if (p->not && quietly(e->arena, p->not, v, resource))
		field_invalid_raw(e, at, shown(e->arena, v), "%s in body must not validate the schema (not)", path_text(e, at));
}

/* ---- schemas themselves ---- */

bool schema_has_rules(const props *p)
{
	if (p->x_kubernetes_validations.n)
		return true;
	for (uint32_t i = 0; i < p->properties.n; i++)
		if (schema_has_rules(&p->properties.v[i].value))
			return true;
	if (item_schema(p) && schema_has_rules(item_schema(p)))
		return true;
	for (uint32_t i = 0; i < p->all_of.n; i++)
		if (schema_has_rules(&p->all_of.v[i]))
			return true;
	return p->additional_properties && p->additional_properties->schema && schema_has_rules(p->additional_properties->schema);
}
