/*
 * What is wrong with a custom object besides its metadata: its schema's OpenAPI part (custom_openapi.c), embedded resources, lists
 * that are sets or maps, numbers of the scale subresource, and its rules (crd_cel.c); in upstream's order
 * (apiextensions-apiserver/pkg/registry/customresource).
 */
#include <ctype.h>
#include "apiserver/crd_internal.h"
#include "apiserver/schema_props.h"
#include "schema/jv.h"

static struct str shown(struct arena *a, const struct jv *v)
{
	struct buf b buf_cleanup = {0};

	jv_encode(&b, v);
	return arena_str(a, str_sub(buf_view(&b), 0, 2000));
}

/* ---- embedded resources ---- */

static void embedded_kind(struct field_errors *e, struct str kind, const struct field_path *at)
{
	char *lower = arena_strz(e->arena, kind);
	const char *m;

	for (size_t i = 0; i < kind.n; i++)
		lower[i] = (char)tolower((unsigned char)lower[i]);
	m = validate_dns1035_label(e->arena, str_of(lower, kind.n));
	if (m)
		field_invalid(e, at, kind, "may have mixed case, but should otherwise match: %s", m);
}

/* apiVersion or kind */
static void embedded_type(struct field_errors *e, const struct jv *v, const char *key, const struct field_path *parent)
{
	const struct jv *m = jv_get(v, str_from(key));
	const struct field_path *at = FIELD_CHILD_S(parent, str_from(key));
	struct str s;
	ptrdiff_t slash;

	if (!m) {
		field_required(e, at, "");
		return;
	}
	if (m->kind != JV_STRING) {
		field_invalid_raw(e, at, shown(e->arena, m), "must be a string");
		return;
	}
	s = jv_str(m);
	slash = str_index(s, '/');
	if (!s.n)
		field_invalid(e, at, s, "must not be empty");
	else if (!strcmp(key, "kind"))
		embedded_kind(e, s, at);
	else if (slash >= 0 && str_index(str_sub(s, (size_t)slash + 1, s.n), '/') >= 0)
		field_invalid(e, at, s, "unexpected GroupVersion string: %.*s", STR_ARG(s));
}

static const char *any_segment(struct arena *a, struct str name)
{
	(void)a;
	if (str_eqz(name, ".") || str_eqz(name, ".."))
		return "may not be '.' or '..'";
	return str_index(name, '/') >= 0 || str_index(name, '%') >= 0 ? "may not contain '/' or '%'" : NULL;
}

static void embedded_meta(struct field_errors *e, const struct jv *v, const struct field_path *at)
{
	struct meta_v1_object_meta *m = arena_new(e->arena, struct meta_v1_object_meta);
	struct error *err = jv_to_object(e->arena, &meta_v1_object_meta_type, v, NULL, m);

	if (err) {
		field_invalid_raw(e, at, shown(e->arena, v), "%s", error_message(err));
		error_free(err);
		return;
	}
	if (!m->name.n)
		m->name = STR("fakename");
	validate_object_meta(e, m, m->namespace.n > 0, any_segment, at, false);
}

void schema_embedded(struct field_errors *e, const props *p, const struct jv *v, bool resource, const struct field_path *at)
{
	if (!p)
		return;
	for (uint32_t i = 0; v->kind == JV_ARRAY && item_schema(p) && i < v->n; i++)
		schema_embedded(e, item_schema(p), &v->items[i], item_schema(p)->x_kubernetes_embedded_resource, FIELD_INDEX(at, i));
	if (v->kind != JV_OBJECT)
		return;
	if (resource) {
		embedded_type(e, v, "apiVersion", at);
		embedded_type(e, v, "kind", at);
		if (jv_get(v, STR("metadata")))
			embedded_meta(e, jv_get(v, STR("metadata")), FIELD_CHILD(at, "metadata"));
	}
	for (uint32_t i = 0; i < v->n; i++) {
		const struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);

		if (c)
			schema_embedded(e, c, &m->value, c->x_kubernetes_embedded_resource, FIELD_CHILD_S(at, m->key));
		else if (value_schema(p))
			schema_embedded(e, value_schema(p), &m->value, value_schema(p)->x_kubernetes_embedded_resource, FIELD_KEY(at, m->key));
	}
}

/* ---- sets and maps ---- */

static void unique(struct field_errors *e, const props *p, const struct jv *v, const struct field_path *at)
{
	bool map = str_eqz(*p->x_kubernetes_list_type, "map");
	struct list_index *x;
	struct map said = {0}; /* the second of several alike is said, the others are not */

	for (uint32_t i = 0; map && i < v->n; i++)
		if (v->items[i].kind != JV_OBJECT && v->items[i].kind != JV_NULL) {
			field_invalid_raw(e, FIELD_INDEX(at, i), shown(e->arena, &v->items[i]), "must be an object for an array of list-type map");
			return;
		}
	if (v->n < 2)
		return;
	x = list_index_new(e->arena, p, v);
	for (uint32_t i = 0; i < v->n; i++) {
		const struct jv *first = list_index_get(x, &v->items[i]);
		struct str key = str_of((const char *)&first, sizeof first);
		struct jv keys = jv_object();

		if (first == &v->items[i] || map_has(&said, key))
			continue;
		map_set(&said, key, e);
		for (uint32_t k = 0; map && k < p->x_kubernetes_list_map_keys.n; k++) {
			const struct jv *kv = jv_get(&v->items[i], p->x_kubernetes_list_map_keys.v[k]);

			if (kv)
				jv_set(e->arena, &keys, p->x_kubernetes_list_map_keys.v[k], *kv);
		}
		field_duplicate_raw(e, FIELD_INDEX(at, i), shown(e->arena, map ? &keys : &v->items[i]), "");
	}
	map_free(&said);
}

void schema_lists(struct field_errors *e, const props *p, const struct jv *v, const struct field_path *at)
{
	struct str lt = p && p->x_kubernetes_list_type ? *p->x_kubernetes_list_type : STR_NULL;

	if (!p)
		return;
	if (v->kind == JV_ARRAY) {
		if (str_eqz(lt, "set") || (str_eqz(lt, "map") && p->x_kubernetes_list_map_keys.n))
			unique(e, p, v, at);
		for (uint32_t i = 0; item_schema(p) && i < v->n; i++)
			schema_lists(e, item_schema(p), &v->items[i], FIELD_INDEX(at, i));
	}
	for (uint32_t i = 0; v->kind == JV_OBJECT && i < v->n; i++) {
		const struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);

		if (value_schema(p))
			schema_lists(e, value_schema(p), &m->value, FIELD_KEY(at, m->key));
		if (c)
			schema_lists(e, c, &m->value, FIELD_CHILD_S(at, m->key));
	}
}

/* ---- scale ---- */

const struct jv *custom_at_path(const struct jv *v, struct str path, bool *wrong)
{
	*wrong = false;
	if (path.n && path.p[0] == '.')
		path = str_sub(path, 1, path.n);
	while (path.n) {
		struct str key = str_cut(&path, '.');

		if (v->kind != JV_OBJECT) {
			*wrong = v->kind != JV_NULL;
			return NULL;
		}
		v = jv_get(v, key);
		if (!v)
			return NULL;
	}
	return v;
}

static void replicas(struct field_errors *e, const struct jv *obj, struct str path)
{
	const struct field_path *at = FIELD_CHILD_S(NULL, path);
	bool wrong;
	const struct jv *v = custom_at_path(obj, path, &wrong);

	if (!v && !wrong)
		return;
	if (wrong || v->kind != JV_INT)
		field_invalid_raw(e, at, STR("0"), "accessor error: a number is wanted");
	else if (v->i < 0)
		field_invalid_int(e, at, v->i, "should be a non-negative integer");
	else if (v->i > INT32_MAX)
		field_invalid_int(e, at, v->i, "should be less than or equal to %d", INT32_MAX);
}

static void scale_check(const struct resource *res, bool spec, const struct jv *obj, struct field_errors *e)
{
	const struct apiextensions_v1_custom_resource_subresource_scale *sc = custom_scale(res);
	const struct jv *v;
	bool wrong;

	if (!sc)
		return;
	if (spec)
		replicas(e, obj, sc->spec_replicas_path);
	replicas(e, obj, sc->status_replicas_path);
	if (!sc->label_selector_path)
		return;
	v = custom_at_path(obj, *sc->label_selector_path, &wrong);
	if (wrong || (v && v->kind != JV_STRING))
		field_invalid(e, FIELD_CHILD_S(NULL, *sc->label_selector_path), STR(""), "accessor error: a string is wanted");
}

/* ---- the whole ---- */

static bool has_finalizer(const struct meta_v1_object_meta *m, struct str name)
{
	for (uint32_t i = 0; m && i < m->finalizers.n; i++)
		if (str_eq(m->finalizers.v[i], name))
			return true;
	return false;
}

static bool standard_finalizer(struct str f)
{
	return str_eqz(f, "kubernetes") || str_eqz(f, "orphan") || str_eqz(f, "foregroundDeletion");
}

/* New finalizers that name no domain: of built-in resources they are errors. */
static void warn_finalizers(struct request *rq, const struct meta_v1_object_meta *m,
			    const struct meta_v1_object_meta *old)
{
	for (uint32_t i = 0; i < m->finalizers.n; i++) {
		struct str f = m->finalizers.v[i];

		if (str_index(f, '/') < 0 && !standard_finalizer(f) && !has_finalizer(old, f))
			request_warn(rq,
				     "metadata.finalizers: \"%.*s\": another writer may choose the same name; better "
				     "one with a domain and a path (/)",
				     STR_ARG(f));
	}
}

void custom_validate(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	struct crd_tree *t = crd_tree(rq->res);
	const props *p = t ? t->schema : NULL;
	bool status = sub && !strcmp(sub, "status");
	struct field_errors before = {.arena = rq->a};
	struct jv now, was = {0};

	jv_from_object(rq->a, rq->res->st->type, obj, &now);
	if (old)
		jv_from_object(rq->a, rq->res->st->type, old, &was);
	if (p && status) {
		const struct jv *s = jv_get(&now, STR("status")), *had = jv_get(&was, STR("status"));
		const props *of = property(p, STR("status"));

		if (s && of && (had || s->kind != JV_NULL)) /* to upstream null is what there was where there was nothing */
			schema_judge(e, of, s, had, FIELD_ROOT("status"));
	} else if (p) {
		schema_judge(e, p, &now, old ? &was : NULL, NULL);
	}
	scale_check(rq->res, !status, &now, e);
	if (!p)
		goto warn;
	if (!status)
		schema_embedded(e, p, &now, false, NULL);
	if (old)
		schema_lists(&before, p, &was, NULL);
	if (!before.list.n)
		schema_lists(e, p, &now, NULL);
	if (!t->rules_known) {
		t->rules = crd_rules_new(p);
		t->rules_known = true;
	}
	crd_rules_validate(rq, t->rules, p, &now, old ? &was : NULL, e);
warn:
	if (!e->list.n)
		warn_finalizers(rq, &((const struct custom_head *)obj)->metadata,
				old ? &((const struct custom_head *)old)->metadata : NULL);
}
