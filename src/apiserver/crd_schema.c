/* Structural schemas (KEP-1693 et al.) over trees: pruning, defaults, elements of lists found again. */
#include <stdlib.h>
#include "apiserver/custom.h"
#include "apiserver/schema_props.h"

#define PROBLEMS_MAX 1000

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

static void unknown(struct arena *a, struct decode_report *report, struct str path, struct str key)
{
	struct str full;

	if (!report || report->problems.n >= PROBLEMS_MAX)
		return;
	full = child_path(a, path, key);
	*arena_push(report->arena, &report->problems) = arena_printf(report->arena, "unknown field \"%.*s\"", STR_ARG(full));
}

/*
 * What is inside of values that are none of their schema's goes, too: it is known to nobody. keep: not what this value has beside its schema,
 * which is what a list says of its elements when it says that of itself.
 */
static void prune(struct arena *a, const props *p, struct jv *v, bool resource, bool keep, struct str path, struct decode_report *report)
{
	static const props nothing;

	if (!p)
		p = &nothing;
	keep |= preserves(p);
	if (v->kind == JV_ARRAY) {
		const props *item = item_schema(p);

		for (uint32_t i = 0; (item || !keep) && i < v->n; i++)
			prune(a, item, &v->items[i], item && item->x_kubernetes_embedded_resource, keep,
			      report ? arena_printf(a, "%.*s[%u]", STR_ARG(path), i) : path, report);
		return;
	}
	if (v->kind != JV_OBJECT)
		return;
	for (uint32_t i = 0; i < v->n;) {
		struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);
		bool known = c != NULL;

		if (resource && type_meta(m->key)) {
			i++;
			continue;
		}
		if (!c && p->additional_properties) {
			c = p->additional_properties->schema;
			known = c || p->additional_properties->allows;
		}
		if (!known && !keep) {
			unknown(a, report, path, m->key);
			memmove(m, m + 1, (v->n - i - 1) * sizeof *m);
			v->n--;
			continue;
		}
		if (known)
			prune(a, c, &m->value, c && c->x_kubernetes_embedded_resource, false, report ? child_path(a, path, m->key) : path, report);
		i++;
	}
}

void schema_prune(struct arena *a, const props *p, struct jv *v, bool resource, struct str path, struct decode_report *report)
{
	prune(a, p, v, resource, false, path, report);
}

void schema_drop_nulls(const props *p, struct jv *v)
{
	if (!p)
		return;
	if (v->kind == JV_ARRAY)
		for (uint32_t i = 0; i < v->n; i++)
			schema_drop_nulls(item_schema(p), &v->items[i]);
	for (uint32_t i = 0; v->kind == JV_OBJECT && i < v->n;) {
		struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);

		if (!c)
			c = value_schema(p);
		if (c && m->value.kind == JV_NULL && !c->nullable && !c->default_) {
			memmove(m, m + 1, (v->n - i - 1) * sizeof *m);
			v->n--;
			continue;
		}
		schema_drop_nulls(c, &m->value);
		i++;
	}
}

/* ---- embedded resources ---- */

static bool embeds(const props *p)
{
	return p && p->x_kubernetes_embedded_resource;
}

bool schema_has_embedded(const props *p)
{
	if (!p)
		return false;
	if (embeds(p) || schema_has_embedded(item_schema(p)) || schema_has_embedded(value_schema(p)))
		return true;
	for (uint32_t i = 0; i < p->properties.n; i++)
		if (schema_has_embedded(&p->properties.v[i].value))
			return true;
	return false;
}

static struct error *coerce_metadata(struct arena *a, struct jv *v, struct str path, struct decode_report *report)
{
	static const char said[] = "unknown field \"";
	struct meta_v1_object_meta *m = arena_new(a, struct meta_v1_object_meta);
	struct decode_report inner = {.arena = a};
	struct error *e, *w;

	if (v->kind == JV_NULL) {
		*v = jv_object();
		return NULL;
	}
	e = jv_to_object(a, &meta_v1_object_meta_type, v, &inner, m);
	if (e) {
		struct buf b buf_cleanup = {0};

		jv_encode_sorted(&b, v);
		w = error_new("%.*s: Invalid value: %.*s: %s", STR_ARG(path), STR_ARG(str_sub(buf_view(&b), 0, 2000)),
			      error_message(e));
		error_free(e);
		return w;
	}
	for (uint32_t i = 0; report && i < inner.problems.n && report->problems.n < PROBLEMS_MAX; i++)
		if (str_has_prefix(inner.problems.v[i], str_from(said)))
			*arena_push(report->arena, &report->problems) = arena_printf(
				report->arena, "%s%.*s.%.*s", said, STR_ARG(path),
				STR_ARG(str_sub(inner.problems.v[i], sizeof said - 1, inner.problems.v[i].n)));
	jv_from_object(a, &meta_v1_object_meta_type, m, v);
	return NULL;
}

void schema_repair_metadata(struct arena *a, struct jv *v)
{
	struct meta_v1_object_meta *m = arena_new(a, struct meta_v1_object_meta);

	for (uint32_t i = 0; v->kind == JV_OBJECT && i < v->n;) {
		struct jv one = {.kind = JV_OBJECT, .n = 1, .members = &v->members[i]};
		struct error *e = jv_to_object(a, &meta_v1_object_meta_type, &one, NULL, arena_new(a, struct meta_v1_object_meta));

		if (e)
			jv_del(v, v->members[i].key);
		else
			i++;
		error_free(e);
	}
	if (v->kind != JV_OBJECT)
		*v = jv_object();
	error_free(jv_to_object(a, &meta_v1_object_meta_type, v, NULL, m)); /* each of them could be read */
	jv_from_object(a, &meta_v1_object_meta_type, m, v);
}

void schema_coerce_dropping(struct arena *a, const props *p, struct jv *v, bool resource)
{
	if (!p)
		return;
	for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++)
		schema_coerce_dropping(a, item_schema(p), &v->items[i], embeds(item_schema(p)));
	for (uint32_t i = 0; v->kind == JV_OBJECT && i < v->n;) {
		struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);

		if (resource && str_eqz(m->key, "metadata")) {
			schema_repair_metadata(a, &m->value);
		} else if (resource && type_meta(m->key) && m->value.kind != JV_STRING) {
			jv_del(v, m->key);
			continue;
		}
		if (!c)
			c = value_schema(p);
		schema_coerce_dropping(a, c, &m->value, embeds(c));
		i++;
	}
}

struct error *schema_coerce(struct arena *a, const props *p, struct jv *v, bool resource, struct str path,
			    struct decode_report *report)
{
	if (!p)
		return NULL;
	for (uint32_t i = 0; v->kind == JV_ARRAY && i < v->n; i++)
		TRY(schema_coerce(a, item_schema(p), &v->items[i], embeds(item_schema(p)),
				  arena_printf(a, "%.*s[%u]", STR_ARG(path), i), report));
	for (uint32_t i = 0; v->kind == JV_OBJECT && i < v->n; i++) {
		struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);
		struct str at = child_path(a, path, m->key);

		if (resource && str_eqz(m->key, "metadata"))
			TRY(coerce_metadata(a, &m->value, at, report));
		else if (resource && type_meta(m->key) && m->value.kind != JV_STRING)
			return error_new("%.*s: Invalid value: must be a string", STR_ARG(at));
		if (!c) {
			c = value_schema(p);
			at = c ? arena_printf(a, "%.*s[%.*s]", STR_ARG(path), STR_ARG(m->key)) : at;
		}
		TRY(schema_coerce(a, c, &m->value, embeds(c), at, report));
	}
	return NULL;
}

/* ---- defaults ---- */

/* Values of a map: a null that may not be one becomes the default. */
static void default_values(struct arena *a, const props *p, struct jv *v)
{
	const props *c = p->additional_properties->schema;

	for (uint32_t i = 0; i < v->n; i++) {
		struct jv *value = &v->members[i].value;

		if (property(p, v->members[i].key))
			continue;
		if (value->kind == JV_NULL && !c->nullable && c->default_)
			log_and_free(jv_parse(a, *c->default_, NULL, value), "schema default");
		schema_default(a, c, value, false);
	}
}

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
		}
		if (m)
			schema_default(a, c, m, false);
	}
	if (p->additional_properties && p->additional_properties->schema)
		default_values(a, p, v);
}

static void normalize_value(struct arena *a, struct str *text)
{
	struct buf b buf_cleanup = {0};
	struct jv v;
	struct error *e = jv_parse(a, *text, NULL, &v);

	if (!e) {
		jv_encode_sorted(&b, &v);
		if (!str_eq(buf_view(&b), *text))
			*text = arena_str(a, buf_view(&b));
	}
	error_free(e); /* what cannot be read is refused where it is judged */
}

void schema_normalize(struct arena *a, props *p)
{
	if (!p)
		return;
	if (p->default_)
		normalize_value(a, p->default_);
	if (p->example)
		normalize_value(a, p->example);
	for (uint32_t i = 0; i < p->enum_.n; i++)
		normalize_value(a, &p->enum_.v[i]);
	if (p->items)
		schema_normalize(a, p->items->schema);
	if (p->additional_properties)
		schema_normalize(a, p->additional_properties->schema);
	schema_normalize(a, p->not);
	for (uint32_t i = 0; i < p->properties.n; i++)
		schema_normalize(a, &p->properties.v[i].value);
	for (uint32_t i = 0; i < p->all_of.n; i++)
		schema_normalize(a, &p->all_of.v[i]);
	for (uint32_t i = 0; i < p->any_of.n; i++)
		schema_normalize(a, &p->any_of.v[i]);
	for (uint32_t i = 0; i < p->one_of.n; i++)
		schema_normalize(a, &p->one_of.v[i]);
}

/* Where a default stands: below `up`, as a member (key) or an element. */
struct stand {
	const struct stand *up;
	struct str key;
	bool element;
};

static struct jv wrapped(struct arena *a, const struct stand *s, struct jv v)
{
	struct jv out;

	if (!s)
		return v;
	out = s->element ? jv_array() : jv_object();
	if (s->element)
		jv_push(a, &out, v);
	else
		jv_set(a, &out, s->key, v);
	return wrapped(a, s->up, out);
}

static const struct jv *unwrapped(const struct stand *s, const struct jv *root)
{
	const struct jv *v = s ? unwrapped(s->up, root) : root;

	if (!s || !v)
		return v;
	return s->element ? (jv_is(v, JV_ARRAY) && v->n ? &v->items[0] : NULL) : jv_get(v, s->key);
}

static void prune_default(struct arena *a, const props *root, props *p, const struct stand *s)
{
	struct buf b buf_cleanup = {0};
	struct jv d, whole;
	const struct jv *left;
	struct error *e = jv_parse(a, *p->default_, NULL, &d);

	if (e) {
		log_and_free(e, "schema default");
		return;
	}
	whole = wrapped(a, s, jv_copy(a, &d));
	schema_coerce_dropping(a, root, &whole, true);
	schema_prune(a, root, &whole, true, STR_NULL, NULL);
	left = unwrapped(s, &whole);
	if (!left) {
		p->default_ = NULL;
	} else if (!jv_equal(left, &d)) {
		struct str *text = arena_new(a, struct str);

		jv_encode(&b, left);
		*text = arena_str(a, buf_view(&b));
		p->default_ = text;
	}
}

static void prune_defaults(struct arena *a, const props *root, props *p, const struct stand *s)
{
	if (p->default_)
		prune_default(a, root, p, s);
	if (item_schema(p))
		prune_defaults(a, root, p->items->schema, &(struct stand){.up = s, .element = true});
	if (value_schema(p))
		prune_defaults(a, root, p->additional_properties->schema, &(struct stand){.up = s, .key = STR("*")});
	for (uint32_t i = 0; i < p->properties.n; i++)
		prune_defaults(a, root, &p->properties.v[i].value, &(struct stand){.up = s, .key = p->properties.v[i].key});
}

void schema_prune_defaults(struct arena *a, props *p)
{
	prune_defaults(a, p, p, NULL);
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

/* Scalars are what upstream's trees have, an int64 or a float64: 1 is not 1.0. */
static bool same_scalar(const struct jv *x, const struct jv *y)
{
	return x->kind >= JV_ARRAY || x->kind == y->kind;
}

static bool alike(const props *p, const struct jv *x, const struct jv *y)
{
	if (!p->x_kubernetes_list_map_keys.n)
		return same_scalar(x, y) && jv_equal(x, y);
	for (uint32_t i = 0; i < p->x_kubernetes_list_map_keys.n; i++)
		if (!jv_equal(key_of(p, x, i), key_of(p, y, i)) ||
		    (p->x_kubernetes_list_map_keys.n == 1 && !same_scalar(key_of(p, x, i), key_of(p, y, i))))
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
