/* Merging and filtering of OpenAPI v2 documents. */
#include <stdlib.h>
#include "base/map.h"
#include "schema/openapi_merge.h"

#define DEFINITION "#/definitions/"
#define PARAMETER "#/parameters/"
#define GVK "x-kubernetes-group-version-kind"

/* ---- references ---- */

struct walk {
	void (*ref)(struct walk *w, struct jv *ref); /* a string */
	struct arena *a;
	struct map *used;     /* used: references seen */
	struct jv pending;    /* used: what they lead to and nobody has walked yet */
	const struct map *to; /* renaming: old reference -> struct str * */
};

static void walk_schema(struct walk *w, struct jv *s);

static void walk_ref(struct walk *w, struct jv *o)
{
	struct jv *ref = jv_get(o, STR("$ref"));

	if (jv_is(ref, JV_STRING))
		w->ref(w, ref);
}

static void walk_map(struct walk *w, struct jv *m, void (*one)(struct walk *w, struct jv *v))
{
	for (uint32_t i = 0; jv_is(m, JV_OBJECT) && i < m->n; i++)
		one(w, &m->members[i].value);
}

static void walk_list(struct walk *w, struct jv *m, void (*one)(struct walk *w, struct jv *v))
{
	for (uint32_t i = 0; jv_is(m, JV_ARRAY) && i < m->n; i++)
		one(w, &m->items[i]);
}

static void walk_schema(struct walk *w, struct jv *s)
{
	struct jv *items;

	if (!jv_is(s, JV_OBJECT))
		return;
	walk_ref(w, s);
	walk_map(w, jv_get(s, STR("definitions")), walk_schema);
	walk_map(w, jv_get(s, STR("properties")), walk_schema);
	walk_map(w, jv_get(s, STR("patternProperties")), walk_schema);
	walk_list(w, jv_get(s, STR("allOf")), walk_schema);
	walk_list(w, jv_get(s, STR("anyOf")), walk_schema);
	walk_list(w, jv_get(s, STR("oneOf")), walk_schema);
	walk_schema(w, jv_get(s, STR("not")));
	walk_schema(w, jv_get(s, STR("additionalProperties")));
	walk_schema(w, jv_get(s, STR("additionalItems")));
	items = jv_get(s, STR("items"));
	walk_schema(w, items);
	walk_list(w, items, walk_schema);
}

static void walk_parameter(struct walk *w, struct jv *p)
{
	walk_ref(w, p);
	walk_schema(w, jv_get(p, STR("schema")));
	walk_ref(w, jv_get(p, STR("items")));
}

static void walk_response(struct walk *w, struct jv *r)
{
	walk_ref(w, r);
	walk_schema(w, jv_get(r, STR("schema")));
}

static const char *const methods[] = {"delete", "get", "head", "options", "patch", "post", "put"};
#define N_METHODS (sizeof methods / sizeof *methods)

static void walk_path(struct walk *w, struct jv *p)
{
	walk_list(w, jv_get(p, STR("parameters")), walk_parameter);
	for (size_t i = 0; i < N_METHODS; i++) {
		struct jv *op = jv_get(p, str_from(methods[i]));

		walk_list(w, jv_get(op, STR("parameters")), walk_parameter);
		walk_map(w, jv_get(op, STR("responses")), walk_response);
	}
}

static void use(struct walk *w, struct jv *ref)
{
	struct str to = jv_str(ref);

	if (!map_has(w->used, to)) {
		map_set(w->used, to, w);
		jv_push(w->a, &w->pending, *ref);
	}
}

/* References that are needed by the paths of a document, into `used` ("#/definitions/NAME" and others). */
static void used_by_paths(struct arena *a, struct jv *doc, struct map *used)
{
	struct walk w = {.ref = use, .a = a, .used = used, .pending = jv_array()};

	walk_map(&w, jv_get(doc, STR("paths")), walk_path);
	while (w.pending.n) {
		struct str to = jv_str(&w.pending.items[--w.pending.n]);

		if (str_has_prefix(to, STR(DEFINITION)))
			walk_schema(&w, jv_get(jv_get(doc, STR("definitions")), str_sub(to, strlen(DEFINITION), to.n)));
		else if (str_has_prefix(to, STR(PARAMETER)))
			walk_parameter(&w,
				       jv_get(jv_get(doc, STR("parameters")), str_sub(to, strlen(PARAMETER), to.n)));
	}
}

/* ---- filtering ---- */

static bool is_extension(struct str key)
{
	return str_has_prefix(key, STR("x-"));
}

struct error *openapi_v2_check(const struct jv *doc)
{
	static const char *const objects[] = {"paths", "definitions", "parameters", "responses"};

	if (!jv_is(doc, JV_OBJECT))
		return error_status(400, "BadRequest", "an OpenAPI document is an object");
	for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) {
		const struct jv *v = jv_get(doc, str_from(objects[i]));

		if (v && !jv_is(v, JV_OBJECT) && !jv_is(v, JV_NULL))
			return error_status(400, "BadRequest", "%s of an OpenAPI document is no object", objects[i]);
	}
	return NULL;
}

static bool in_map(const struct map *m, struct arena *a, const char *prefix, struct str name)
{
	return map_has(m, arena_printf(a, "%s%.*s", prefix, STR_ARG(name)));
}

/* Paths that keep() does not want go, and the definitions that were needed by those alone. */
static void filter(struct arena *a, struct jv *doc, bool (*keep)(const void *ctx, struct str path), const void *ctx)
{
	struct jv *paths = jv_get(doc, STR("paths")), *definitions, kept = jv_object(), needed = jv_object();
	struct map before = {0}, after = {0};

	if (!jv_is(paths, JV_OBJECT))
		return;
	used_by_paths(a, doc, &before);
	for (uint32_t i = 0; i < paths->n; i++)
		if (keep(ctx, paths->members[i].key) || is_extension(paths->members[i].key))
			jv_set(a, &kept, paths->members[i].key, paths->members[i].value);
	*paths = kept;
	used_by_paths(a, doc, &after);
	definitions = jv_get(doc, STR("definitions"));
	for (uint32_t i = 0; jv_is(definitions, JV_OBJECT) && i < definitions->n; i++) {
		struct str name = definitions->members[i].key;

		if (in_map(&after, a, DEFINITION, name) || !in_map(&before, a, DEFINITION, name))
			jv_set(a, &needed, name, definitions->members[i].value);
	}
	if (definitions)
		*definitions = needed;
	map_free(&before);
	map_free(&after);
}

static bool begins(const void *ctx, struct str path)
{
	return str_has_prefix(path, *(const struct str *)ctx);
}

void openapi_v2_filter(struct arena *a, struct jv *doc, struct str prefix)
{
	filter(a, doc, begins, &prefix);
}

/* ---- merging ---- */

/* The same but for the kinds that it is the schema of. */
static bool same_schema(const struct jv *x, const struct jv *y)
{
	uint32_t nx, ny;

	if (!jv_is(x, JV_OBJECT) || !jv_is(y, JV_OBJECT))
		return jv_equal(x, y);
	nx = x->n - (jv_get(x, STR(GVK)) ? 1 : 0);
	ny = y->n - (jv_get(y, STR(GVK)) ? 1 : 0);
	if (nx != ny)
		return false;
	for (uint32_t i = 0; i < x->n; i++) {
		const struct jv *other = jv_get(y, x->members[i].key);

		if (!str_eqz(x->members[i].key, GVK) && (!other || !jv_equal(&x->members[i].value, other)))
			return false;
	}
	return true;
}

static void rename_ref(struct walk *w, struct jv *ref)
{
	const struct str *to = map_get(w->to, jv_str(ref));

	if (to)
		*ref = jv_string(*to);
}

/* Every reference of a document that `to` has is written as it says. */
static void rename_refs(struct jv *doc, const struct map *to)
{
	struct walk w = {.ref = rename_ref, .to = to};

	walk_map(&w, jv_get(doc, STR("parameters")), walk_parameter);
	walk_map(&w, jv_get(doc, STR("responses")), walk_response);
	walk_map(&w, jv_get(doc, STR("definitions")), walk_schema);
	walk_map(&w, jv_get(doc, STR("paths")), walk_path);
}

/* The name under which `into` has, or may get, what `mine` has under `name`. */
static struct str free_name(struct arena *a, const struct jv *into, const struct jv *mine, struct str name,
			    const struct jv *v, const struct map *taken,
			    bool (*same)(const struct jv *, const struct jv *))
{
	struct str to;
	const struct jv *there;

	for (unsigned i = 2;; i++) {
		to = arena_printf(a, "%.*s_v%u", STR_ARG(name), i);
		there = jv_get(into, to);
		if (there && same(there, v))
			return to;
		if (!there && !map_has(taken, to) && !jv_get(mine, to))
			return to;
	}
}

/* Members of from's map `what` whose name stands for something else in into get another one, wherever they are referred
 * to. */
static void rename_conflicts(struct arena *a, const struct jv *into, struct jv *from, const char *what,
			     const char *prefix, bool (*same)(const struct jv *, const struct jv *))
{
	const struct jv *theirs = jv_get(into, str_from(what));
	struct jv *mine = jv_get(from, str_from(what)), renamed = jv_object();
	struct map to = {0}, taken = {0};

	for (uint32_t i = 0; jv_is(mine, JV_OBJECT) && i < mine->n; i++) {
		struct str name = mine->members[i].key;
		const struct jv *there = jv_get(theirs, name);

		if (there && !same(there, &mine->members[i].value)) {
			struct str *ref = arena_new(a, struct str),
				   other = free_name(a, theirs, mine, name, &mine->members[i].value, &taken, same);

			map_set(&taken, other, ref);
			*ref = arena_printf(a, "%s%.*s", prefix, STR_ARG(other));
			map_set(&to, arena_printf(a, "%s%.*s", prefix, STR_ARG(name)), ref);
			name = other;
		}
		jv_set(a, &renamed, name, mine->members[i].value);
	}
	if (to.n) {
		*mine = renamed;
		rename_refs(from, &to);
	}
	map_free(&to);
	map_free(&taken);
}

static struct str gvk_key(struct arena *a, const struct jv *gvk)
{
	struct str g = jv_str(jv_get(gvk, STR("group"))), v = jv_str(jv_get(gvk, STR("version"))),
		   k = jv_str(jv_get(gvk, STR("kind")));

	return arena_printf(a, "%.*s/%.*s.%.*s", STR_ARG(g), STR_ARG(v), STR_ARG(k));
}

struct keyed {
	struct str key;
	struct jv value;
};

static int by_key(const void *x, const void *y)
{
	return str_cmp(((const struct keyed *)x)->key, ((const struct keyed *)y)->key);
}

/* A schema of both documents is that of the kinds of both. */
static void merge_kinds(struct arena *a, struct jv *into, const struct jv *from)
{
	const struct jv *mine = jv_get(from, STR(GVK));
	struct jv *theirs = jv_get(into, STR(GVK)), all = jv_array();
	struct keyed *list;
	struct map seen = {0};

	if (!jv_is(into, JV_OBJECT) || !jv_is(mine, JV_ARRAY))
		return;
	if (!jv_is(theirs, JV_ARRAY)) {
		if (!theirs)
			jv_set(a, into, STR(GVK), *mine);
		return;
	}
	list = arena_array(a, struct keyed, theirs->n + mine->n);
	for (uint32_t i = 0; i < theirs->n + mine->n; i++) {
		const struct jv *v = i < theirs->n ? &theirs->items[i] : &mine->items[i - theirs->n];
		struct str key = gvk_key(a, v);

		if (i >= theirs->n && map_has(&seen, key))
			continue;
		map_set(&seen, key, list);
		list[all.n] = (struct keyed){key, *v};
		jv_push(a, &all, *v);
	}
	if (all.n > theirs->n) {
		qsort(list, all.n, sizeof *list, by_key);
		for (uint32_t i = 0; i < all.n; i++)
			all.items[i] = list[i].value;
		*theirs = all;
	}
	map_free(&seen);
}

/* Members that `to` has not; extensions of paths are no paths. */
static void add_members(struct arena *a, struct jv *doc, const char *what, const struct jv *from)
{
	struct jv *to;

	if (!jv_is(from, JV_OBJECT) || !from->n)
		return;
	to = jv_sub(a, doc, str_from(what));
	for (uint32_t i = 0; i < from->n; i++)
		if (!jv_get(to, from->members[i].key) && !is_extension(from->members[i].key))
			jv_set(a, to, from->members[i].key, from->members[i].value);
}

static bool not_there(const void *ctx, struct str path)
{
	return !jv_get(ctx, path);
}

void openapi_v2_merge(struct arena *a, struct jv *into, struct jv *from)
{
	struct jv *paths = jv_get(from, STR("paths")), *theirs, *mine;
	bool any = false, conflict = false;

	if (!jv_is(paths, JV_OBJECT))
		return; /* nothing needs its definitions */
	theirs = jv_sub(a, into, STR("paths"));
	for (uint32_t i = 0; i < paths->n; i++) {
		bool there = jv_get(theirs, paths->members[i].key) != NULL;

		conflict |= there;
		any |= !there && !is_extension(paths->members[i].key);
	}
	if (!any)
		return;
	if (conflict)
		filter(a, from, not_there, theirs);
	rename_conflicts(a, into, from, "definitions", DEFINITION, same_schema);
	rename_conflicts(a, into, from, "parameters", PARAMETER, jv_equal);
	theirs = jv_get(into, STR("definitions"));
	mine = jv_get(from, STR("definitions"));
	for (uint32_t i = 0; jv_is(mine, JV_OBJECT) && i < mine->n; i++) {
		struct jv *there = jv_get(theirs, mine->members[i].key);

		if (there)
			merge_kinds(a, there, &mine->members[i].value);
	}
	add_members(a, into, "definitions", mine);
	add_members(a, into, "parameters", jv_get(from, STR("parameters")));
	add_members(a, into, "paths", jv_get(from, STR("paths")));
}
