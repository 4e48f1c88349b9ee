#include "schema/typed_merge.h"

#include <assert.h>
#include <stdlib.h>

/* ---- what a value is under a shape ---- */

enum value_class { CLASS_SCALAR, CLASS_LIST, CLASS_MAP }; /* how it is walked */

struct view {
	enum value_class class;
	bool atomic;
};

static struct view view_of(enum shape_kind kind, const struct jv *v)
{
	switch (kind) {
	case SHAPE_SCALAR:
		return (struct view){CLASS_SCALAR, true};
	case SHAPE_STRUCT:
	case SHAPE_MAP:
		return (struct view){CLASS_MAP, false};
	case SHAPE_ATOMIC_MAP:
		return (struct view){CLASS_MAP, true};
	case SHAPE_ATOMIC_LIST:
		return (struct view){CLASS_LIST, true};
	case SHAPE_SET:
	case SHAPE_LIST_MAP:
		return (struct view){CLASS_LIST, false};
	case SHAPE_UNTYPED:
		break;
	}
	if (!v || v->kind == JV_NULL || v->kind == JV_OBJECT)
		return (struct view){CLASS_MAP, false};
	return (struct view){v->kind == JV_ARRAY ? CLASS_LIST : CLASS_SCALAR, true};
}

/* Absent, null or of another kind counts as no list or map. */
static const struct jv *as(const struct jv *v, enum jv_kind kind)
{
	return v && v->kind == kind ? v : NULL;
}

static bool empty(const struct jv *v)
{
	return !v || !v->n;
}

/* ---- elements of lists ---- */

static int member_cmp(const void *x, const void *y)
{
	return str_cmp(((const struct jv_member *)x)->key, ((const struct jv_member *)y)->key);
}

/* The path element of a list's element; NULL or why it has none. */
static const char *element_of(struct arena *a, struct shape list, enum shape_kind kind, const struct jv *v,
			      struct path_element *out)
{
	if (kind == SHAPE_SET) {
		if (v->kind == JV_OBJECT)
			return "associative list without keys has an element that's a map type";
		if (v->kind == JV_ARRAY)
			return "not supported: associative list with lists as elements";
		if (v->kind == JV_NULL)
			return "associative list without keys has an element that's an explicit null";
		*out = (struct path_element){PE_VALUE, *v};
		return NULL;
	}
	struct str name, fallback;
	size_t n = 0;

	if (v->kind == JV_NULL)
		return "associative list with keys may not have a null element";
	if (v->kind != JV_OBJECT)
		return "associative list with keys may not have non-map elements";
	*out = (struct path_element){PE_KEY, jv_object()};
	for (; shape_list_key(list, n, &name, &fallback); n++) {
		const struct jv *k = jv_get(v, name);
		struct jv d;

		if (!k && fallback.n) {
			struct error *e = jv_parse(a, fallback, NULL, &d);

			if (e)
				error_free(e); /* a table's default is valid; a CRD's was checked */
			else
				k = &d;
		}
		if (k)
			jv_set(a, &out->value, name, *k);
	}
	if (n && !out->value.n) {
		buf_cleanup struct buf names = {0};

		for (size_t i = 0; shape_list_key(list, i, &name, &fallback); i++)
			buf_printf(&names, "%s\"%.*s\"", i ? " " : "", STR_ARG(name));
		return arena_printf(a, "associative list with keys has an element that omits all key fields [%.*s] (and doesn't "
				    "have default values for any key fields)", STR_ARG(buf_view(&names))).p;
	}
	if (out->value.n > 1)
		qsort(out->value.members, out->value.n, sizeof *out->value.members, member_cmp);
	return NULL;
}

/* Elements of a list by their path element. */
struct indexed {
	struct path_element pe;
	uint32_t at;    /* of the first such element */
	uint32_t count; /* elements of the same path element */
};

struct index {
	struct path_element *pe; /* of each element */
	bool *valid;             /* it has one */
	struct indexed *v;       /* sorted, each path element once */
	uint32_t n;
};

static int indexed_cmp(const void *x, const void *y)
{
	const struct indexed *a = x, *b = y;
	int c = pe_cmp(&a->pe, &b->pe);

	return c ? c : a->at < b->at ? -1 : a->at > b->at;
}

static struct index index_list(struct arena *a, struct shape shape, enum shape_kind kind, const struct jv *list)
{
	uint32_t n = list ? list->n : 0, to = 0;
	struct index x = {
		.pe = arena_array(a, struct path_element, n + 1),
		.valid = arena_array(a, bool, n + 1),
		.v = arena_array(a, struct indexed, n + 1),
	};

	for (uint32_t i = 0; i < n; i++) {
		x.valid[i] = !element_of(a, shape, kind, &list->items[i], &x.pe[i]);
		if (x.valid[i])
			x.v[x.n++] = (struct indexed){x.pe[i], i, 1};
	}
	if (x.n)
		qsort(x.v, x.n, sizeof *x.v, indexed_cmp);
	for (uint32_t i = 0; i < x.n; i++) {
		if (to && !pe_cmp(&x.v[to - 1].pe, &x.v[i].pe))
			x.v[to - 1].count++;
		else
			x.v[to++] = x.v[i];
	}
	x.n = to;
	return x;
}

static const struct indexed *index_find(const struct index *x, const struct path_element *pe)
{
	uint32_t lo = 0, hi = x->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int c = pe_cmp(&x->v[mid].pe, pe);

		if (!c)
			return &x->v[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* ---- validation ---- */

struct frame {
	const struct frame *parent;
	const struct path_element *pe;
};

static void frame_text(struct buf *b, const struct frame *f)
{
	if (!f)
		return;
	frame_text(b, f->parent);
	pe_text(b, f->pe);
}

static const char *problem(struct arena *a, const struct frame *f, const char *text)
{
	buf_cleanup struct buf b = {0};

	frame_text(&b, f);
	return b.n ? arena_printf(a, "%s: %s", buf_z(&b), text).p : text;
}

static const char *expected(struct arena *a, const struct frame *f, const char *what, const struct jv *v)
{
	buf_cleanup struct buf b = {.limit = 200};

	jv_encode(&b, v);
	return problem(a, f, arena_printf(a, "expected %s, got %.*s", what, STR_ARG(buf_view(&b))).p);
}

/* What a scalar must be: 's' string, 'n' number, 'b' boolean, '*' any of them, 'a' anything at all: raw JSON is one leaf. */
static char scalar_type(struct shape s)
{
	if (s.props) {
		if (str_eqz(s.props->type, "string")) /* of a format, it may be another scalar */
			return !s.props->format.n || str_eqz(s.props->format, "byte") ? 's' : '*';
		return str_eqz(s.props->type, "boolean") ? 'b' : 'n';
	}
	switch ((enum field_kind)s.field->kind) {
	case FIELD_BOOL:
		return 'b';
	case FIELD_INT32:
	case FIELD_INT64:
	case FIELD_UINT32:
	case FIELD_UINT64:
	case FIELD_DOUBLE:
		return 'n';
	case FIELD_QUANTITY:
	case FIELD_INTSTR:
	case FIELD_TIME:
	case FIELD_MICROTIME:
		return '*';
	case FIELD_RAW:
		return 'a';
	default:
		return 's';
	}
}

static const char *validate_scalar(struct arena *a, struct shape s, const struct jv *v, const struct frame *f)
{
	bool number = v->kind == JV_INT || v->kind == JV_DOUBLE;

	if (v->kind == JV_NULL)
		return NULL;
	switch (scalar_type(s)) {
	case 'a':
		return NULL;
	case 'n':
		return number ? NULL
			      : problem(a, f, arena_printf(a, "expected numeric (int or float), got %s",
							   v->kind == JV_STRING ? "string" : v->kind == JV_BOOL ? "bool"
							   : v->kind == JV_ARRAY ? "[]interface {}" : "map[string]interface {}").p);
	case 's':
		return v->kind == JV_STRING ? NULL : expected(a, f, "string", v);
	case 'b':
		return v->kind == JV_BOOL ? NULL : expected(a, f, "boolean", v);
	default:
		return number || v->kind == JV_STRING || v->kind == JV_BOOL ? NULL : expected(a, f, "any scalar", v);
	}
}

static const char *validate(struct arena *a, struct shape shape, const struct jv *v, bool duplicates, const struct frame *f)
{
	enum shape_kind kind = shape_kind(shape);
	struct view view = view_of(kind, v);

	if (v->kind == JV_NULL)
		return NULL;
	if (kind == SHAPE_UNTYPED) /* an object of which no member is named is an object all the same */
		return shape.props && str_eqz(shape.props->type, "object") && v->kind != JV_OBJECT ? expected(a, f, "map", v) : NULL;
	if (view.class == CLASS_SCALAR)
		return validate_scalar(a, shape, v, f);
	if (view.class == CLASS_LIST) {
		if (v->kind != JV_ARRAY)
			return expected(a, f, "list", v);
		struct index x = {0};

		if (!view.atomic)
			x = index_list(a, shape, kind, v);
		for (uint32_t i = 0; i < v->n; i++) {
			struct path_element pe = {PE_INDEX, jv_int(i)};

			if (!view.atomic) {
				const char *why = element_of(a, shape, kind, &v->items[i], &pe);

				if (why)
					return problem(a, f, arena_printf(a, "element %u: %s", i, why).p);
				const struct indexed *same = index_find(&x, &pe);

				if (!duplicates && same->count > 1) {
					buf_cleanup struct buf b = {0};

					pe_text(&b, &pe);
					return problem(a, f, arena_printf(a, "duplicate entries for key %s", buf_z(&b)).p);
				}
			}
			const char *why = validate(a, shape_element(shape), &v->items[i], duplicates, &(struct frame){f, &pe});

			if (why)
				return why;
		}
		return NULL;
	}
	if (v->kind != JV_OBJECT)
		return expected(a, f, "map", v);
	for (uint32_t i = 0; i < v->n; i++) {
		struct path_element pe = pe_field(v->members[i].key);
		struct frame here = {f, &pe};
		struct shape child;

		if (!shape_member(shape, v->members[i].key, &child))
			return problem(a, &here, "field not declared in schema");
		const char *why = validate(a, child, &v->members[i].value, duplicates, &here);

		if (why)
			return why;
	}
	return NULL;
}

const char *typed_validate(struct arena *a, struct shape shape, const struct jv *v, bool allow_duplicates)
{
	return validate(a, shape, v, allow_duplicates, NULL);
}

/* ---- comparison ---- */

enum { REMOVED, MODIFIED, ADDED };

struct changes { /* of one value: itself, and what is below it */
	bool member[3];
	struct field_set below[3];
};

static void compare(struct arena *a, struct shape shape, const struct jv *l, const struct jv *r, struct changes *out);

/* One child's changes into its parent's. */
static void changes_add(struct arena *a, struct changes *to, struct path_element pe, const struct changes *child)
{
	for (int i = 0; i < 3; i++)
		if (child->member[i] || child->below[i].n)
			fs_push(a, &to->below[i], pe, child->member[i], fs_keep(a, &child->below[i]));
}

static void changes_sort(struct changes *c)
{
	for (int i = 0; i < 3; i++)
		fs_sort(&c->below[i]);
}

static void compare_leaf(const struct jv *l, const struct jv *r, struct changes *out)
{
	if (!l)
		out->member[ADDED] = true;
	else if (!r)
		out->member[REMOVED] = true;
	else if (!jv_equal(l, r))
		out->member[MODIFIED] = true;
}

static void compare_map(struct arena *a, struct shape shape, const struct jv *l, const struct jv *r, struct changes *out)
{
	for (uint32_t i = 0; l && i < l->n; i++) {
		const struct jv_member *m = &l->members[i];
		struct changes c = {0};
		struct shape child;

		shape_member(shape, m->key, &child);
		compare(a, child, &m->value, jv_get(r, m->key), &c);
		changes_add(a, out, pe_field(m->key), &c);
	}
	for (uint32_t i = 0; r && i < r->n; i++) {
		const struct jv_member *m = &r->members[i];
		struct changes c = {0};
		struct shape child;

		if (jv_get(l, m->key))
			continue;
		shape_member(shape, m->key, &child);
		compare(a, child, NULL, &m->value, &c);
		changes_add(a, out, pe_field(m->key), &c);
	}
	changes_sort(out);
}

/* Both have several elements of one path element: the same ones in order? */
static bool same_elements(const struct jv *l, const struct index *lx, const struct jv *r, const struct index *rx,
			  const struct path_element *pe)
{
	uint32_t j = 0;

	for (uint32_t i = 0; i < l->n; i++) {
		if (!lx->valid[i] || pe_cmp(&lx->pe[i], pe))
			continue;
		while (j < r->n && (!rx->valid[j] || pe_cmp(&rx->pe[j], pe)))
			j++;
		if (j == r->n || !jv_equal(&l->items[i], &r->items[j]))
			return false;
		j++;
	}
	return true;
}

static void compare_element(struct arena *a, struct shape elem, const struct jv *l, const struct index *lx,
			    const struct jv *r, const struct index *rx, const struct path_element *pe, struct changes *out)
{
	const struct indexed *li = index_find(lx, pe), *ri = index_find(rx, pe);
	const struct jv *lv = li ? &l->items[li->at] : NULL, *rv = ri ? &r->items[ri->at] : NULL;
	struct changes c = {0};

	if ((!li || li->count == 1) && (!ri || ri->count == 1)) {
		compare(a, elem, lv, rv, &c);
	} else if (li && ri && li->count > 1 && ri->count > 1) {
		c.member[MODIFIED] = li->count != ri->count || !same_elements(l, lx, r, rx, pe);
	} else if (li && li->count > 1) {
		if (rv)
			compare(a, elem, NULL, rv, &c);
		c.member[REMOVED] = true;
	} else {
		if (lv)
			compare(a, elem, lv, NULL, &c);
		c.member[ADDED] = true;
	}
	changes_add(a, out, *pe, &c);
}

static void compare_list(struct arena *a, struct shape shape, enum shape_kind kind, const struct jv *l, const struct jv *r,
			 struct changes *out)
{
	struct index lx = index_list(a, shape, kind, l), rx = index_list(a, shape, kind, r);
	struct shape elem = shape_element(shape);

	for (uint32_t i = 0; i < lx.n; i++)
		compare_element(a, elem, l, &lx, r, &rx, &lx.v[i].pe, out);
	for (uint32_t i = 0; i < rx.n; i++)
		if (!index_find(&lx, &rx.v[i].pe))
			compare_element(a, elem, l, &lx, r, &rx, &rx.v[i].pe, out);
	changes_sort(out);
}

/* As one class of value; true when it was compared as a whole. */
static bool compare_as(struct arena *a, struct shape shape, enum shape_kind kind, struct view view, const struct jv *l,
		       const struct jv *r, struct changes *out)
{
	if (view.class == CLASS_SCALAR) {
		compare_leaf(l, r, out);
		return true;
	}
	const struct jv *lv = as(l, view.class == CLASS_LIST ? JV_ARRAY : JV_OBJECT);
	const struct jv *rv = as(r, view.class == CLASS_LIST ? JV_ARRAY : JV_OBJECT);

	if (view.atomic || (empty(lv) && empty(rv))) {
		compare_leaf(l, r, out);
		return true;
	}
	if (view.class == CLASS_LIST)
		compare_list(a, shape, kind, lv, rv, out);
	else
		compare_map(a, shape, lv, rv, out);
	return false;
}

static bool same_view(struct view x, struct view y)
{
	return x.class == y.class && x.atomic == y.atomic;
}

static void compare(struct arena *a, struct shape shape, const struct jv *l, const struct jv *r, struct changes *out)
{
	enum shape_kind kind = shape_kind(shape);
	struct view lv = view_of(kind, l), rv = view_of(kind, r);
	bool leaf;

	if (l && r && !same_view(lv, rv)) {
		/* Untyped and of two kinds: what was goes, what is comes. */
		struct changes gone = {0};

		compare_as(a, shape, kind, lv, l, r, &gone);
		leaf = compare_as(a, shape, kind, rv, l, r, out);
		for (int i = 0; i < 3; i++) {
			const struct field_set *u = field_set_union(a, fs_keep(a, &gone.below[i]), fs_keep(a, &out->below[i]));

			out->member[i] |= gone.member[i];
			out->below[i] = u ? *u : (struct field_set){0};
		}
	} else {
		leaf = compare_as(a, shape, kind, r ? rv : lv, l, r, out);
	}
	if (!leaf && !l)
		out->member[ADDED] = true;
	else if (!leaf && !r)
		out->member[REMOVED] = true;
}

struct comparison typed_compare(struct arena *a, struct shape shape, const struct jv *lhs, const struct jv *rhs)
{
	struct changes c = {0};

	compare(a, shape, lhs, rhs, &c);
	return (struct comparison){fs_keep(a, &c.below[REMOVED]), fs_keep(a, &c.below[MODIFIED]), fs_keep(a, &c.below[ADDED])};
}

/* ---- merge ---- */

static bool merge(struct arena *a, struct shape shape, const struct jv *l, const struct jv *r, struct jv *out);

static bool merge_map(struct arena *a, struct shape shape, const struct jv *l, const struct jv *r, struct jv *out)
{
	*out = jv_object();
	for (uint32_t i = 0; l && i < l->n; i++) {
		const struct jv_member *m = &l->members[i];
		struct shape child;
		struct jv v;

		shape_member(shape, m->key, &child);
		if (merge(a, child, &m->value, jv_get(r, m->key), &v))
			jv_set(a, out, m->key, v);
	}
	for (uint32_t i = 0; r && i < r->n; i++) {
		const struct jv_member *m = &r->members[i];
		struct shape child;
		struct jv v;

		if (jv_get(l, m->key))
			continue;
		shape_member(shape, m->key, &child);
		if (merge(a, child, NULL, &m->value, &v))
			jv_set(a, out, m->key, v);
	}
	return out->n > 0;
}

struct list_merge {
	struct arena *a;
	struct shape elem;
	const struct jv *l, *r;
	struct index lx, rx;
	struct jv out;
};

/* Elements of one key that the live list has twice are not merged into. */
static const struct jv *only_element(const struct jv *list, const struct index *x, const struct path_element *pe)
{
	static const struct jv null = {0};
	const struct indexed *i = index_find(x, pe);

	return !i ? NULL : i->count > 1 ? &null : &list->items[i->at];
}

static void merge_element(struct list_merge *m, const struct path_element *pe, const struct jv *l)
{
	struct jv v;

	if (merge(m->a, m->elem, l, only_element(m->r, &m->rx, pe), &v))
		jv_push(m->a, &m->out, v);
}

/*
 * Elements of both in the order of rhs, those only lhs has where they stood
 * before the shared ones that follow them.
 */
static bool merge_list(struct arena *a, struct shape shape, enum shape_kind kind, const struct jv *l, const struct jv *r,
		       struct jv *out)
{
	struct list_merge m = {a, shape_element(shape), l, r, index_list(a, shape, kind, l), index_list(a, shape, kind, r),
			       jv_array()};
	uint32_t ln = l ? l->n : 0, rn = r ? r->n : 0, i = 0, j = 0, shared = 0;
	bool *merged = arena_array(a, bool, rn + 1); /* elements of rhs that are out */

	/* shared: the next element of rhs, not yet merged, that lhs has too. */
#define NEXT_SHARED()                                                                                                  \
	while (shared < rn && (merged[shared] || !index_find(&m.lx, &m.rx.pe[shared])))                                \
	shared++
	NEXT_SHARED();
	while (i < ln || j < rn) {
		if (i < ln && !m.lx.valid[i]) {
			i++;
			continue;
		}
		if (i < ln && j < rn) {
			const struct path_element *pe = &m.lx.pe[i];

			if (!pe_cmp(pe, &m.rx.pe[j])) {
				merged[j] = true;
				merge_element(&m, pe, only_element(l, &m.lx, pe));
				i++;
				j++;
				NEXT_SHARED();
				continue;
			}
			if (index_find(&m.rx, pe) && shared < rn && pe_cmp(&m.rx.pe[shared], pe)) {
				i++; /* shared, but its turn comes in the order of rhs */
				continue;
			}
		}
		if (i < ln) {
			const struct path_element *pe = &m.lx.pe[i];
			const struct indexed *other = index_find(&m.rx, pe);

			if (!other) {
				merge_element(&m, pe, &l->items[i]);
				i++;
				continue;
			}
			if (merged[other->at])
				i++;
		}
		if (j < rn) {
			const struct path_element *pe = &m.rx.pe[j];

			merged[j] = true;
			merge_element(&m, pe, only_element(l, &m.lx, pe));
			j++;
			NEXT_SHARED();
		}
	}
#undef NEXT_SHARED
	*out = m.out;
	return out->n > 0;
}

/* false: the result has no value. */
static bool merge_as(struct arena *a, struct shape shape, enum shape_kind kind, struct view view, const struct jv *l,
		     const struct jv *r, struct jv *out)
{
	const struct jv *lv = as(l, view.class == CLASS_LIST ? JV_ARRAY : JV_OBJECT);
	const struct jv *rv = as(r, view.class == CLASS_LIST ? JV_ARRAY : JV_OBJECT);

	if (view.class == CLASS_SCALAR || view.atomic || (empty(lv) && empty(rv))) {
		*out = r ? *r : *l;
		return true;
	}
	return view.class == CLASS_LIST ? merge_list(a, shape, kind, lv, rv, out) : merge_map(a, shape, lv, rv, out);
}

static bool merge(struct arena *a, struct shape shape, const struct jv *l, const struct jv *r, struct jv *out)
{
	enum shape_kind kind = shape_kind(shape);

	return merge_as(a, shape, kind, view_of(kind, r ? r : l), l, r, out);
}

struct jv typed_merge(struct arena *a, struct shape shape, const struct jv *lhs, const struct jv *rhs)
{
	struct jv out;

	return merge(a, shape, lhs, rhs, &out) ? out : JV_NULL_VALUE;
}

/* ---- the set of a value ---- */

/* Returns whether the value itself is a member; below gets its children. */
static bool set_of(struct arena *a, struct shape shape, const struct jv *v, struct field_set *below)
{
	enum shape_kind kind = shape_kind(shape);
	struct view view = view_of(kind, v);

	if (view.class == CLASS_SCALAR || view.atomic)
		return true;
	if (view.class == CLASS_LIST) {
		if (v->kind != JV_ARRAY)
			return false;
		struct index x = index_list(a, shape, kind, v);

		for (uint32_t i = 0; i < x.n; i++) {
			struct field_set child = {0};

			if (x.v[i].count == 1)
				set_of(a, shape_element(shape), &v->items[x.v[i].at], &child);
			fs_push(a, below, x.v[i].pe, true, fs_keep(a, &child));
		}
		return false;
	}
	if (v->kind != JV_OBJECT)
		return false;
	for (uint32_t i = 0; i < v->n; i++) {
		const struct jv_member *m = &v->members[i];
		struct field_set child = {0};
		struct shape s;

		shape_member(shape, m->key, &s);
		bool member = set_of(a, s, &m->value, &child);

		/* Members no schema names are owned themselves, not only what is in them. */
		member |= m->value.kind == JV_NULL || (m->value.kind == JV_OBJECT && !m->value.n) || kind != SHAPE_STRUCT ||
			  !(s.field || s.props || s.type);
		fs_push(a, below, pe_field(m->key), member, fs_keep(a, &child));
	}
	fs_sort(below);
	return false;
}

const struct field_set *typed_set(struct arena *a, struct shape shape, const struct jv *v)
{
	struct field_set s = {0};

	set_of(a, shape, v, &s);
	return fs_keep(a, &s);
}

const struct field_set *field_set_of(struct arena *a, struct shape shape, const struct jv *v)
{
	return typed_set(a, shape, v);
}

/* ---- removal ---- */

struct jv typed_remove(struct arena *a, struct shape shape, const struct jv *v, const struct field_set *items)
{
	enum shape_kind kind = shape_kind(shape);
	struct view view = view_of(kind, v);
	struct jv out;

	/* Nothing inside an atomic value can be removed. */
	if (view.class == CLASS_SCALAR || view.atomic || field_set_empty(items) ||
	    (v->kind != JV_ARRAY && v->kind != JV_OBJECT) || !v->n)
		return *v;
	if (v->kind == JV_ARRAY) {
		out = jv_array();
		for (uint32_t i = 0; i < v->n; i++) {
			struct path_element pe;
			const struct fs_node *n = element_of(a, shape, kind, &v->items[i], &pe) ? NULL : fs_find(items, &pe);

			if (n && n->member)
				continue;
			jv_push(a, &out, n && n->child ? typed_remove(a, shape_element(shape), &v->items[i], n->child)
						       : v->items[i]);
		}
		return out;
	}
	out = jv_object();
	for (uint32_t i = 0; i < v->n; i++) {
		const struct jv_member *m = &v->members[i];
		struct path_element pe = pe_field(m->key);
		const struct fs_node *n = fs_find(items, &pe);
		struct shape child;

		if (n && n->member)
			continue;
		if (!n || !n->child) {
			jv_set(a, &out, m->key, m->value);
			continue;
		}
		shape_member(shape, m->key, &child);
		jv_set(a, &out, m->key, typed_remove(a, child, &m->value, n->child));
	}
	return out;
}

/* ---- named fields ---- */

const struct field_set *typed_named_fields(struct arena *a, struct shape shape, const struct field_set *s)
{
	enum shape_kind kind = shape_kind(shape);
	bool known = kind == SHAPE_STRUCT || (kind == SHAPE_ATOMIC_MAP && (shape.type || shape.field || shape.props));
	struct field_set out = {0};

	for (uint32_t i = 0; s && i < s->n; i++) {
		const struct fs_node *n = &s->v[i];
		struct shape child = {0};
		bool named = false;

		if (n->pe.kind == PE_FIELD && (known || kind == SHAPE_MAP))
			named = shape_member(shape, jv_str(&n->pe.value), &child) && known && (child.field || child.props || child.type);
		else if (n->pe.kind == PE_KEY && kind == SHAPE_LIST_MAP)
			child = shape_element(shape);
		fs_push(a, &out, n->pe, n->member || (named && n->child), typed_named_fields(a, child, n->child));
	}
	return fs_keep(a, &out);
}

/* ---- changes of the schema ---- */

static bool atomic_kind(enum shape_kind k)
{
	return k == SHAPE_ATOMIC_MAP || k == SHAPE_ATOMIC_LIST;
}

const struct field_set *typed_reconcile(struct arena *a, struct shape shape, const struct field_set *s)
{
	enum shape_kind kind = shape_kind(shape);
	struct field_set out = {0};
	bool changed = false;

	if (kind == SHAPE_UNTYPED)
		return s;
	for (uint32_t i = 0; s && i < s->n; i++) {
		struct fs_node n = s->v[i];
		struct shape child = {0};

		if (n.child && n.pe.kind == PE_FIELD)
			shape_member(shape, jv_str(&n.pe.value), &child);
		else if (n.child)
			child = shape_element(shape);
		if (n.child && atomic_kind(shape_kind(child))) {
			n.member = true;
			n.child = NULL;
		} else if (n.child) {
			n.child = typed_reconcile(a, child, n.child);
		}
		changed |= n.child != s->v[i].child;
		*arena_push(a, &out) = n;
	}
	return changed ? fs_keep(a, &out) : s;
}
