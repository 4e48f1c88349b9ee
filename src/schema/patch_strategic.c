/*
 * Strategic merge patch (API conventions, "Strategic Merge Patch"): a merge
 * patch whose lists merge by key, guided by patch keys and strategies of the
 * tables and by directives in the patch. Both trees are consumed.
 */
#include <stdlib.h>

#include "schema/patch_internal.h"
#include "schema/shape.h"

#define DIRECTIVE "$patch"
#define RETAIN_KEYS "$retainKeys"
#define DELETE_PREFIX "$deleteFromPrimitiveList"
#define ORDER_PREFIX "$setElementOrder"
/* Elements of a list that is merged by key or value; looking them up is quadratic. */
#define LIST_MAX 4096

/* ---- text of values in messages: Go's %v ---- */

static int key_cmp(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

static void go_text(struct buf *b, const struct jv *v)
{
	if (b->n > 400)
		return;
	if (v->kind == JV_OBJECT) {
		struct str *keys = malloc((v->n + 1) * sizeof *keys);

		if (!keys)
			abort();
		for (uint32_t i = 0; i < v->n; i++)
			keys[i] = v->members[i].key;
		qsort(keys, v->n, sizeof *keys, key_cmp);
		buf_puts(b, "map[");
		for (uint32_t i = 0; i < v->n; i++) {
			if (i)
				buf_putc(b, ' ');
			buf_str(b, keys[i]);
			buf_putc(b, ':');
			go_text(b, jv_get(v, keys[i]));
		}
		buf_putc(b, ']');
		free(keys);
	} else if (v->kind == JV_ARRAY) {
		buf_putc(b, '[');
		for (uint32_t i = 0; i < v->n; i++) {
			if (i)
				buf_putc(b, ' ');
			go_text(b, &v->items[i]);
		}
		buf_putc(b, ']');
	} else if (v->kind == JV_STRING) {
		buf_str(b, jv_str(v));
	} else if (v->kind == JV_NULL) {
		buf_puts(b, "<nil>");
	} else {
		jv_encode(b, v);
	}
}

static struct error *no_merge_key(const struct jv *map, struct str key)
{
	buf_cleanup struct buf b = {0};

	go_text(&b, map);
	return patch_broken("map: %s does not contain declared merge key: %.*s", buf_z(&b), STR_ARG(key));
}

static const char *go_type(const struct jv *v)
{
	static const char *const names[] = {
		[JV_NULL] = "nil", [JV_BOOL] = "bool", [JV_INT] = "int64", [JV_DOUBLE] = "float64", [JV_STRING] = "string",
		[JV_ARRAY] = "[]interface {}", [JV_OBJECT] = "map[string]interface {}",
	};

	return names[v->kind];
}

static struct error *bad_type(const char *expected, const struct jv *got)
{
	return patch_broken("expected a %s, but received a %s", expected, go_type(got));
}

static struct error *bad_patch(const char *text)
{
	return error_status(400, "BadRequest", "%s", text);
}

/* ---- small helpers ---- */

static bool scalar_equal(const struct jv *a, const struct jv *b)
{
	return a->kind != JV_OBJECT && a->kind != JV_ARRAY && jv_equal(a, b);
}

static bool array_has(const struct jv *array, const struct jv *v)
{
	for (uint32_t i = 0; i < array->n; i++)
		if (scalar_equal(&array->items[i], v))
			return true;
	return false;
}

/* Element with this value of the merge key; -1 when there is none. */
static struct error *find_by_key(const struct jv *list, struct str key, const struct jv *value, int64_t *out)
{
	*out = -1;
	for (uint32_t i = 0; i < list->n; i++) {
		if (list->items[i].kind != JV_OBJECT)
			return patch_broken("value for key %u is not a map", i);
		const struct jv *v = jv_get(&list->items[i], key);

		if (v && scalar_equal(v, value)) {
			*out = i;
			return NULL;
		}
	}
	return NULL;
}

/* Position of an element of the same key (or value) in the list; -1. */
static int64_t position(const struct jv *list, const struct jv *item, struct str key)
{
	const struct jv *want = item->kind == JV_OBJECT ? jv_get(item, key) : item;

	if (!want)
		return -1;
	for (uint32_t i = 0; i < list->n; i++) {
		const struct jv *v = &list->items[i];

		if (v->kind == JV_OBJECT)
			v = jv_get(v, key);
		if (v && scalar_equal(v, want))
			return i;
	}
	return -1;
}

static void discard_nulls(struct jv *v)
{
	if (v->kind == JV_OBJECT) {
		for (uint32_t i = 0; i < v->n;) {
			if (v->members[i].value.kind == JV_NULL) {
				jv_del(v, v->members[i].key);
				continue;
			}
			discard_nulls(&v->members[i].value);
			i++;
		}
	} else if (v->kind == JV_ARRAY) {
		for (uint32_t i = 0; i < v->n; i++)
			discard_nulls(&v->items[i]);
	}
}

/* The value without directives; false when it is nothing but one. */
static bool strip_directives(struct jv *v)
{
	if (v->kind == JV_OBJECT) {
		if (jv_get(v, STR(DIRECTIVE)))
			return false;
		for (uint32_t i = 0; i < v->n;) {
			if (strip_directives(&v->members[i].value))
				i++;
			else
				jv_del(v, v->members[i].key);
		}
	} else if (v->kind == JV_ARRAY) {
		for (uint32_t i = 0; i < v->n;) {
			if (strip_directives(&v->items[i]))
				i++;
			else
				jv_remove(v, i);
		}
	}
	return true;
}

/* ---- order of merged lists ---- */

struct ranked {
	int64_t rank;
	uint32_t at;
};

static int ranked_cmp(const void *x, const void *y)
{
	const struct ranked *a = x, *b = y;

	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	return a->at < b->at ? -1 : a->at > b->at;
}

/* Stable sort of list by position in `order`. */
static void sort_by(struct arena *a, struct jv *list, const struct jv *order, struct str key)
{
	if (list->n < 2)
		return;
	struct ranked *r = arena_array(a, struct ranked, list->n);
	struct jv out = jv_array();

	for (uint32_t i = 0; i < list->n; i++) {
		r[i].rank = position(order, &list->items[i], key);
		r[i].at = i;
	}
	qsort(r, list->n, sizeof *r, ranked_cmp);
	for (uint32_t i = 0; i < list->n; i++)
		jv_push(a, &out, list->items[r[i].at]);
	*list = out;
}

/* Patch items in the patch's order, items only the server has among them by the live order where both are known. */
static struct jv interleave(struct arena *a, struct jv patch, struct jv server, const struct jv *patch_order,
			    const struct jv *server_order, struct str key)
{
	struct jv out = jv_array();
	uint32_t i = 0, j = 0;

	sort_by(a, &patch, patch_order, key);
	sort_by(a, &server, server_order, key);
	while (i < server.n || j < patch.n) {
		bool left = j >= patch.n;

		if (i < server.n && j < patch.n) {
			int64_t l = position(server_order, &server.items[i], key);
			int64_t r = position(server_order, &patch.items[j], key);

			left = l >= 0 && r >= 0 && l < r;
		}
		jv_push(a, &out, left ? server.items[i++] : patch.items[j++]);
	}
	return out;
}

static struct error *partition(struct arena *a, const struct jv *list, const struct jv *by, struct str key,
			       struct jv *in, struct jv *others)
{
	*in = *others = jv_array();
	for (uint32_t i = 0; i < list->n; i++) {
		const struct jv *v = &list->items[i];
		bool found;

		if (!key.n) {
			found = array_has(by, v);
		} else {
			if (v->kind != JV_OBJECT)
				return bad_type("map[string]interface {}", v);
			const struct jv *value = jv_get(v, key);
			int64_t at;

			if (!value)
				return no_merge_key(v, key);
			TRY(find_by_key(by, key, value, &at));
			found = at >= 0;
		}
		jv_push(a, found ? in : others, *v);
	}
	return NULL;
}

/* ---- lists ---- */

static struct error *merge_map(struct arena *a, struct shape shape, struct jv *original, struct jv *patch);

static struct error *too_long(uint32_t n)
{
	return error_status(413, "RequestEntityTooLarge", "a strategic merge patch merges lists of at most %d elements, not %u; use a "
			    "JSON patch or a JSON merge patch", LIST_MAX, n);
}

/* All elements of one JSON type, integers and fractions being two; lists of lists have no meaning. */
static struct error *check_elements(const struct jv *x, const struct jv *y, bool *maps)
{
	const struct jv *first = NULL;

	if (x->n > LIST_MAX || y->n > LIST_MAX)
		return too_long(x->n > y->n ? x->n : y->n);
	for (int side = 0; side < 2; side++) {
		const struct jv *list = side ? y : x;

		for (uint32_t i = 0; i < list->n; i++) {
			const struct jv *v = &list->items[i];

			if (v->kind == JV_ARRAY)
				return patch_broken("lists of lists are not supported");
			if (first && first->kind != v->kind)
				return patch_broken("list element types are not identical: %s", go_type(v));
			first = first ? first : v;
		}
	}
	*maps = first && first->kind == JV_OBJECT;
	return NULL;
}

/* Elements with $patch: carries them out on original, leaves the others in patch. */
static struct error *special_elements(struct jv *original, struct jv *patch, struct str key, bool *replace)
{
	*replace = false;
	for (uint32_t i = 0; i < patch->n;) {
		struct jv *v = &patch->items[i];
		const struct jv *directive = jv_get(v, STR(DIRECTIVE));

		if (!directive) {
			i++;
			continue;
		}
		struct str d = jv_str(directive);

		if (str_eqz(d, "delete")) {
			const struct jv *value = jv_get(v, key);
			int64_t at;

			if (!value)
				return no_merge_key(v, key);
			for (;;) {
				TRY(find_by_key(original, key, value, &at));
				if (at < 0)
					break;
				jv_remove(original, (uint32_t)at);
			}
		} else if (str_eqz(d, "replace")) {
			*replace = true;
		} else if (str_eqz(d, "merge")) {
			return patch_broken("merging lists cannot yet be specified in the patch");
		} else {
			buf_cleanup struct buf b = {0};

			go_text(&b, v);
			return patch_broken("unknown patch type: %.*s in map: %s", STR_ARG(d), buf_z(&b));
		}
		jv_remove(patch, i);
	}
	return NULL;
}

static struct error *merge_list_of_maps(struct arena *a, struct shape elem, struct jv *merged, struct jv *patch,
					struct str key)
{
	for (uint32_t i = 0; i < patch->n; i++) {
		const struct jv *value = jv_get(&patch->items[i], key);
		int64_t at;

		if (!value)
			return no_merge_key(&patch->items[i], key);
		TRY(find_by_key(merged, key, value, &at));
		if (at >= 0)
			TRY(merge_map(a, elem, &merged->items[at], &patch->items[i]));
		else
			jv_push(a, merged, patch->items[i]);
	}
	return NULL;
}

/* deletes: of scalars, the patch has those to take away; of maps it is merged all the same, as upstream's is. */
static struct error *merge_list(struct arena *a, struct shape shape, struct jv *original, struct jv *patch, struct str key,
				bool deletes)
{
	bool maps, replace = false;
	struct jv merged = jv_array(), in, others;

	if (!original->n && !patch->n)
		return NULL;
	TRY(check_elements(original, patch, &maps));
	if (!maps && deletes) {
		for (uint32_t i = 0; i < original->n; i++)
			if (!array_has(patch, &original->items[i]))
				jv_push(a, &merged, original->items[i]);
		*original = merged;
		return NULL;
	}
	if (!maps) {
		for (uint32_t i = 0; i < original->n; i++)
			if (!array_has(&merged, &original->items[i]))
				jv_push(a, &merged, original->items[i]);
		for (uint32_t i = 0; i < patch->n; i++)
			if (!array_has(&merged, &patch->items[i]))
				jv_push(a, &merged, patch->items[i]);
	} else {
		if (!key.n)
			return patch_broken("cannot merge lists without merge key for %.*s",
						   STR_ARG(shape.field->name));
		TRY(special_elements(original, patch, key, &replace));
		if (replace) {
			*original = *patch;
			*patch = jv_array();
		}
		for (uint32_t i = 0; i < original->n; i++)
			jv_push(a, &merged, original->items[i]);
		TRY(merge_list_of_maps(a, shape_element(shape), &merged, patch, key));
	}
	TRY(partition(a, &merged, patch, key, &in, &others));
	*original = interleave(a, in, others, patch, original, key);
	return NULL;
}

static struct error *merge_list_field(struct arena *a, struct shape shape, struct jv *original, struct jv *patch,
				      bool deletes)
{
	bool list = shape.field && !shape.elem;

	if (!deletes && !(list && (shape.field->flags & FIELD_PATCH_MERGE))) {
		*original = *patch;
		return NULL;
	}
	return merge_list(a, shape, original, patch, list ? shape.field->info->patch_key : STR_NULL, deletes);
}

/* ---- directives of maps ---- */

static struct error *retain_keys(struct arena *a, struct jv *original, struct jv *patch)
{
	const struct jv *found = jv_get(patch, STR(RETAIN_KEYS));

	if (!found)
		return NULL;
	struct jv keep = *found;

	jv_del(patch, STR(RETAIN_KEYS));
	if (keep.kind != JV_ARRAY)
		return bad_patch("invalid patch format of retainKeys");
	if (keep.n > LIST_MAX)
		return too_long(keep.n);
	for (uint32_t i = 0; i < patch->n; i++) {
		const struct jv_member *m = &patch->members[i];
		struct jv name = jv_string(m->key);

		if (m->value.kind == JV_NULL || str_has_prefix(m->key, STR(DELETE_PREFIX)) ||
		    str_has_prefix(m->key, STR(ORDER_PREFIX)))
			continue;
		if (!array_has(&keep, &name))
			return bad_patch("invalid patch format of retainKeys");
	}
	struct jv kept = jv_object();

	for (uint32_t i = 0; i < original->n; i++) {
		struct jv name = jv_string(original->members[i].key);

		if (array_has(&keep, &name))
			jv_set(a, &kept, original->members[i].key, original->members[i].value);
	}
	*original = kept;
	return NULL;
}

/* "PREFIX/name" -> name. */
static bool directive_target(struct str key, const char *prefix, struct str *out)
{
	struct str head = str_cut(&key, '/');

	*out = key;
	return key.p && str_eqz(head, prefix);
}

static bool deletes_element(const struct jv *v)
{
	const struct jv *d = jv_get(v, STR(DIRECTIVE));

	return d && d->kind == JV_STRING && str_eqz(jv_str(d), "delete");
}

/* Elements of the patch list stand in the order list, in the same order. Directives behind the order list's last are none of it. */
static struct error *check_order(const struct jv *patch, const struct jv *order, struct str key)
{
	uint32_t p = 0, o = 0;

	if (!patch->n || !order->n)
		return NULL;
	while (p < patch->n && o < order->n) {
		const struct jv *x = &patch->items[p], *y = &order->items[o];

		if (key.n) {
			if (jv_get(x, STR(DIRECTIVE))) {
				p++;
				continue;
			}
			if (x->kind != JV_OBJECT)
				return bad_type("map[string]interface {}", x);
			if (y->kind != JV_OBJECT)
				return bad_type("map[string]interface {}", y);
			if (!jv_get(x, key))
				return no_merge_key(x, key);
			if (!jv_get(y, key))
				return no_merge_key(y, key);
			x = jv_get(x, key);
			y = jv_get(y, key);
		}
		p += scalar_equal(x, y);
		o++;
	}
	for (; p < patch->n && key.n && deletes_element(&patch->items[p]); p++)
		;
	if (p < patch->n && o >= order->n) {
		buf_cleanup struct buf b = {0};

		buf_puts(&b, "The order in patch list:\n");
		go_text(&b, patch);
		buf_puts(&b, "\n doesn't match " ORDER_PREFIX " list:\n");
		go_text(&b, order);
		return patch_broken("%s", buf_z(&b));
	}
	return NULL;
}

/*
 * The live order that merged items are compared with. Upstream's list keeps its
 * length while it merges: what the patch adds takes the places of what it
 * deleted. Results depend on it, so it is done alike.
 */
static struct jv live_order(struct arena *a, const struct jv *before, const struct jv *merged, const struct jv *patch,
			    struct str key)
{
	struct jv out = jv_array();

	for (uint32_t i = 0; i < before->n; i++)
		if (position(merged, &before->items[i], key) >= 0)
			jv_push(a, &out, before->items[i]);
	for (uint32_t i = 0, kept = out.n; i < patch->n && out.n < before->n; i++) {
		struct jv old = {.kind = JV_ARRAY, .n = kept, .items = out.items};

		if (position(&old, &patch->items[i], key) < 0)
			jv_push(a, &out, patch->items[i]);
	}
	return out;
}

/* A member that upstream's structs have; maps and those that hold any JSON have none. */
static struct error *member_of(struct shape s, struct str name, struct shape *out)
{
	const char *of = s.type ? s.type->name : "";
	bool any = s.field && (s.elem || s.field->card == CARD_ONE || s.field->card == CARD_PTR);

	if (s.field && !s.elem && s.field->card == CARD_MAP)
		return patch_broken("merging an object in json but data type is not struct, instead is: map");
	if (any && s.field->kind == FIELD_RAW)
		of = "RawExtension";
	else if (any && s.field->kind == FIELD_JSON)
		of = "JSON";
	else if (shape_member(s, name, out))
		return NULL;
	return patch_broken("unable to find api field in struct %s for the json field \"%.*s\"", of, STR_ARG(name));
}

/* The same, where the patch speaks of a list; behind a pointer anything may be one. */
static struct error *list_of(struct shape s, struct str name, struct shape *out)
{
	TRY(member_of(s, name, out));
	if (out->field && !out->elem && out->field->card != CARD_LIST && out->field->card != CARD_PTR &&
	    out->field->kind != FIELD_BYTES && out->field->kind != FIELD_STRINGS)
		return patch_broken("expected slice or array type, but got: struct");
	return NULL;
}

/* A list that does not merge by a key has maps without any: their order cannot be told. */
static struct error *all_have_key(const struct jv *list, struct str key)
{
	for (uint32_t i = 0; i < list->n; i++) {
		if (list->items[i].kind != JV_OBJECT)
			return bad_type("map[string]interface {}", &list->items[i]);
		if (!jv_get(&list->items[i], key))
			return no_merge_key(&list->items[i], key);
	}
	return NULL;
}

/* One $setElementOrder/name: merges the list it speaks of and puts it in order. */
static struct error *set_element_order(struct arena *a, struct shape shape, struct jv *original, struct jv *patch,
				       struct str name, struct jv *order)
{
	struct shape list;
	struct jv *live = jv_get(original, name), *change = jv_get(patch, name), none = jv_array(), merged, in, others;
	struct str key = STR_NULL;
	bool maps;

	if (order->n > LIST_MAX)
		return too_long(order->n);
	if (live && live->kind != JV_ARRAY)
		return bad_type("[]interface {}", live);
	if (change && change->kind != JV_ARRAY)
		return bad_type("[]interface {}", change);
	TRY(list_of(shape, name, &list));
	if (list.field && !list.elem)
		key = list.field->info->patch_key;
	if (change && change->n > LIST_MAX)
		return too_long(change->n);
	TRY(check_order(change ? change : &none, order, key));
	if (!live && !change)
		return NULL;
	struct jv before = live ? jv_copy(a, live) : jv_array();

	if (!live) {
		merged = *change;
		strip_directives(&merged);
	} else {
		merged = *live;
		if (change)
			TRY(merge_list_field(a, list, &merged, change, false));
		if (change && key.n)
			before = live_order(a, &before, &merged, change, key);
	}
	TRY(partition(a, &merged, order, key, &in, &others));
	TRY(check_elements(&before, change ? change : &none, &maps));
	if (!before.n && !(change && change->n))
		return patch_broken("no elements in any of the given slices");
	if (maps) {
		const struct jv *lists[] = {&in, order, &others, &before};

		for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
			TRY(all_have_key(lists[i], key));
	}
	jv_set(a, original, name, interleave(a, in, others, order, &before, key));
	jv_del(patch, name);
	return NULL;
}

static struct error *set_element_orders(struct arena *a, struct shape shape, struct jv *original, struct jv *patch)
{
	for (uint32_t i = 0; i < patch->n;) {
		struct str directive = patch->members[i].key, name;
		struct jv order = patch->members[i].value;

		if (!str_has_prefix(directive, STR(ORDER_PREFIX))) {
			i++;
			continue;
		}
		if (order.kind != JV_ARRAY)
			return bad_type("[]interface {}", &order);
		if (!directive_target(directive, ORDER_PREFIX, &name))
			return bad_patch("invalid patch format of setElementOrder list");
		jv_del(patch, directive);
		TRY(set_element_order(a, shape, original, patch, name, &order));
		i = 0; /* members moved */
	}
	return NULL;
}

/* ---- maps ---- */

static void take(struct arena *a, struct jv *original, struct str key, struct jv *value)
{
	discard_nulls(value);
	if (strip_directives(value))
		jv_set(a, original, key, *value);
	else
		jv_del(original, key);
}

static struct error *merge_member(struct arena *a, struct shape shape, struct jv *original, struct str key,
				  struct jv *value)
{
	bool deletes = false;
	struct shape child;

	if (str_has_prefix(key, STR(DELETE_PREFIX))) {
		if (!directive_target(key, DELETE_PREFIX, &key))
			return bad_patch("invalid patch format of primitive list");
		deletes = true;
	}
	if (value->kind == JV_NULL) {
		jv_del(original, key);
		return NULL;
	}
	struct jv *live = jv_get(original, key);

	if (!live || live->kind != value->kind) {
		if (!deletes)
			take(a, original, key, value);
		return NULL;
	}
	if (value->kind != JV_OBJECT && value->kind != JV_ARRAY) {
		*live = *value;
		return NULL;
	}
	TRY(value->kind == JV_OBJECT ? member_of(shape, key, &child) : list_of(shape, key, &child));
	if (value->kind == JV_OBJECT && child.field && !child.elem && (child.field->flags & FIELD_PATCH_REPLACE)) {
		*live = *value;
		return NULL;
	}
	if (value->kind == JV_OBJECT)
		return merge_map(a, child, live, value);
	return merge_list_field(a, child, live, value, deletes);
}

static struct error *merge_map(struct arena *a, struct shape shape, struct jv *original, struct jv *patch)
{
	const struct jv *directive = jv_get(patch, STR(DIRECTIVE));

	if (directive) {
		struct str d = jv_str(directive);

		if (str_eqz(d, "replace")) {
			jv_del(patch, STR(DIRECTIVE));
			*original = *patch;
			return NULL;
		}
		if (str_eqz(d, "delete")) {
			*original = jv_object();
			return NULL;
		}
		buf_cleanup struct buf b = {0};

		go_text(&b, patch);
		return patch_broken("unknown patch type: %.*s in map: %s", STR_ARG(d), buf_z(&b));
	}
	TRY(retain_keys(a, original, patch));
	TRY(set_element_orders(a, shape, original, patch));
	for (uint32_t i = 0; i < patch->n; i++)
		TRY(merge_member(a, shape, original, patch->members[i].key, &patch->members[i].value));
	return NULL;
}

struct error *strategic_merge_patch(struct arena *a, const struct schema_type *t, struct jv *doc, struct str text,
				    struct decode_report *report)
{
	struct jv patch;

	TRY(jv_parse(a, text, report, &patch));
	if (patch.kind == JV_NULL)
		return NULL; /* a patch of nothing, to Go's decoder */
	if (patch.kind != JV_OBJECT)
		return error_status(400, "BadRequest", "invalid JSON document");
	if (doc->kind != JV_OBJECT)
		*doc = jv_object();
	return merge_map(a, shape_of_type(t), doc, &patch);
}
