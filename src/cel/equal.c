/* Equality and order of values as cel-go has them, with Kubernetes' lists of type set and map; what these make of sums. */
#include <math.h>
#include "cel/internal.h"

/* ---- numbers, order ---- */

static int order_d(double x, double y)
{
	return x < y ? -1 : x > y;
}

static int order_i(int64_t x, int64_t y)
{
	return x < y ? -1 : x > y;
}

static int order_u(uint64_t x, uint64_t y)
{
	return x < y ? -1 : x > y;
}

static int order_di(double d, int64_t i)
{
	if (d < -9223372036854775808.0)
		return -1;
	if (d > 9223372036854775807.0)
		return 1;
	return order_d(d, (double)i);
}

static int order_du(double d, uint64_t u)
{
	if (d < 0)
		return -1;
	if (d > 18446744073709551615.0)
		return 1;
	return order_d(d, (double)u);
}

static int order_iu(int64_t i, uint64_t u)
{
	if (i < 0 || u > INT64_MAX)
		return -1;
	return order_i(i, (int64_t)u);
}

static bool number(struct cel_value v)
{
	return v.kind == CEL_INT || v.kind == CEL_UINT || v.kind == CEL_DOUBLE;
}

static int order_numbers(struct cel_value x, struct cel_value y)
{
	switch (x.kind) {
	case CEL_INT:
		return y.kind == CEL_INT ? order_i(x.i, y.i) : y.kind == CEL_UINT ? order_iu(x.i, y.u) : -order_di(y.d, x.i);
	case CEL_UINT:
		return y.kind == CEL_UINT ? order_u(x.u, y.u) : y.kind == CEL_INT ? -order_iu(y.i, x.u) : -order_du(y.d, x.u);
	default:
		return y.kind == CEL_DOUBLE ? order_d(x.d, y.d) : y.kind == CEL_INT ? order_di(x.d, y.i) : order_du(x.d, y.u);
	}
}

struct cel_value cel_compare(struct arena *a, struct cel_value x, struct cel_value y, bool *ok)
{
	(void)a;
	*ok = true;
	if (number(x) && number(y)) {
		if ((x.kind == CEL_DOUBLE && isnan(x.d)) || (y.kind == CEL_DOUBLE && isnan(y.d))) {
			*ok = false;
			return cel_int(2); /* NaN: not an error, all comparisons are false */
		}
		return cel_int(order_numbers(x, y));
	}
	if (x.kind != y.kind) {
		*ok = false;
		return cel_int(0);
	}
	switch (x.kind) {
	case CEL_BOOL:
		return cel_int(order_i(x.b, y.b));
	case CEL_STRING:
	case CEL_BYTES: {
		int c = str_cmp(cel_str(x), cel_str(y));

		return cel_int(c < 0 ? -1 : c > 0);
	}
	case CEL_TIMESTAMP:
		return cel_int(x.i != y.i ? order_i(x.i, y.i) : order_i(x.ns, y.ns));
	case CEL_DURATION:
		return cel_int(order_i(x.i, y.i));
	default:
		*ok = false;
		return cel_int(0);
	}
}

static enum equality equal(struct arena *a, struct cel_value x, struct cel_value y, int depth);

/* ---- lists of type set and map (x-kubernetes-list-type): elements are found by what tells them apart ---- */

/* The schema that a list is read by, or was: a sum keeps that of its first part. NULL: none. */
const struct cel_type *cel_list_view(struct cel_value v)
{
	return v.kind == CEL_LIST && (v.rep == REP_JV || v.rep == REP_ARRAY) ? v.type : NULL;
}

struct finder { /* a table of places by hash, where what tells elements apart are plain values */
	const struct cel_type *t;
	uint64_t *hashes; /* by place */
	uint32_t *slots;  /* places + 1, 0: free; NULL: every place has to be looked at */
	uint32_t mask;
};

static bool plain(const struct cel_type *t)
{
	return t && (t->kind == CEL_STRING || t->kind == CEL_INT || t->kind == CEL_BOOL);
}

static bool plain_keys(const struct cel_type *t)
{
	for (uint8_t j = 0; j < t->n_list_keys; j++) {
		bool fine = false;

		for (uint32_t k = 0; k < t->elem->n_fields && !fine; k++)
			fine = str_eq(t->elem->fields[k].json_name, t->list_keys[j]) && plain(t->elem->fields[k].type);
		if (!fine)
			return false;
	}
	return true;
}

/* The value of a key of e; not found: absent, or e is no map. */
static int list_key(struct arena *a, const struct cel_type *t, uint8_t j, struct cel_value e, struct cel_value *out)
{
	struct str name;

	if (!cel_escape(a, t->list_keys[j], &name))
		name = t->list_keys[j];
	return e.kind == CEL_MAP ? cel_find_field(a, e, name, out) : 0;
}

static uint64_t element_hash(struct arena *a, const struct cel_type *t, struct cel_value e)
{
	uint64_t h = 0;
	struct cel_value k;

	if (t->list_type == CEL_LIST_SET)
		return cel_hash_key(e);
	for (uint8_t j = 0; j < t->n_list_keys; j++)
		h = (h ^ (list_key(a, t, j, e, &k) == 1 ? cel_hash_key(k) : 0)) * 0x9e3779b97f4a7c15u + 1;
	return h;
}

static void finder_init(struct arena *a, struct finder *f, struct cel_value x, struct cel_value y)
{
	const struct cel_type *t = cel_list_view(x);
	uint64_t n = (uint64_t)cel_size(x) + cel_size(y), size = 16;

	*f = (struct finder){.t = t};
	if (n < 16 || !t || !t->elem || !(t->list_type == CEL_LIST_SET ? plain(t->elem) : t->elem->kind == CEL_OBJECT && plain_keys(t)))
		return;
	while (size < 2 * n)
		size *= 2;
	f->hashes = arena_array(a, uint64_t, n);
	f->slots = arena_array(a, uint32_t, size);
	f->mask = (uint32_t)(size - 1);
}

static void finder_add(struct arena *a, struct finder *f, uint32_t place, struct cel_value e)
{
	uint64_t h;
	uint32_t i;

	if (!f->slots)
		return;
	h = f->hashes[place] = element_hash(a, f->t, e);
	for (i = (uint32_t)h & f->mask; f->slots[i]; i = (i + 1) & f->mask)
		;
	f->slots[i] = place + 1;
}

/* The next place below n that an element with that hash may be at; *at is UINT32_MAX at first. False: no more. */
static bool finder_next(const struct finder *f, uint64_t h, uint32_t n, uint32_t *at, uint32_t *place)
{
	if (!f->slots) {
		*place = ++*at;
		return *place < n;
	}
	*at = *at == UINT32_MAX ? (uint32_t)h & f->mask : (*at + 1) & f->mask;
	for (; f->slots[*at]; *at = (*at + 1) & f->mask)
		if (f->hashes[f->slots[*at] - 1] == h) {
			*place = f->slots[*at] - 1;
			return true;
		}
	return false;
}

static bool same_element(struct arena *a, const struct cel_type *t, struct cel_value o, struct cel_value e, int depth)
{
	if (t->list_type == CEL_LIST_SET)
		return equal(a, o, e, depth) == EQ_YES;
	for (uint8_t j = 0; j < t->n_list_keys; j++) {
		struct cel_value p, q;
		int fp = list_key(a, t, j, o, &p), fq = list_key(a, t, j, e, &q);

		if (fp != fq || (fp == 1 && equal(a, p, q, depth) != EQ_YES))
			return false;
	}
	return true;
}

/* They compare without order. */
static enum equality equal_unordered(struct arena *a, const struct cel_type *t, struct cel_value x, struct cel_value y, int depth)
{
	uint32_t n = cel_size(x);
	struct finder f;

	finder_init(a, &f, x, y);
	for (uint32_t i = 0; f.slots && i < n; i++)
		finder_add(a, &f, i, cel_at(a, x, i));
	for (uint32_t i = 0; i < n; i++) {
		struct cel_value e = cel_at(a, y, i);
		uint64_t h = f.slots ? element_hash(a, t, e) : 0;
		uint32_t at = UINT32_MAX, k;
		bool found = false;

		while (!found && finder_next(&f, h, n, &at, &k)) {
			struct cel_value o = cel_at(a, x, k);
			enum equality eq;

			found = same_element(a, t, o, e, depth);
			eq = found && t->list_type == CEL_LIST_MAP ? equal(a, o, e, depth) : EQ_YES;
			if (eq != EQ_YES)
				return eq;
		}
		if (!found)
			return EQ_NO;
	}
	return EQ_YES;
}

static enum equality equal_or_null(struct arena *a, struct cel_value x, struct cel_value y, int depth)
{
	if (x.kind == CEL_NULL || y.kind == CEL_NULL)
		return x.kind == y.kind;
	return equal(a, x, y, depth);
}

/* Lists that a schema reads pass on what cannot be compared, those of values overlook it. */
static enum equality equal_lists(struct arena *a, struct cel_value x, struct cel_value y, int depth)
{
	const struct cel_type *t = cel_list_view(x);
	uint32_t n;

	if (y.kind != CEL_LIST)
		return t ? EQ_FAILED : EQ_NO;
	n = cel_size(x);
	if (n != cel_size(y))
		return EQ_NO;
	if (t && t->list_type != CEL_LIST_ATOMIC)
		return equal_unordered(a, t, x, y, depth);
	for (uint32_t i = 0; i < n; i++) {
		struct cel_value p = cel_at(a, x, i), q = cel_at(a, y, i);
		enum equality eq = t ? equal(a, p, q, depth) : equal_or_null(a, p, q, depth);

		if (eq == EQ_NO || (t && eq == EQ_FAILED))
			return eq;
	}
	return EQ_YES;
}

/* Objects that a schema reads: fields are found by their names in JSON; nulls are absent, and what the schema does not know compares as it is. */
static enum equality equal_fields(struct arena *a, struct cel_value x, struct cel_value y, int depth)
{
	const struct cel_type *t = x.type, *u = y.rep == REP_JV ? y.type : NULL;
	const struct jv *j = x.ptr, *o = y.rep == REP_JV ? y.ptr : NULL;

	for (uint32_t i = 0; i < j->n; i++) {
		const struct jv *m = &j->members[i].value, *om = jv_get(o, j->members[i].key);
		const struct cel_field *f = NULL, *g = NULL;
		struct cel_value q;
		enum equality eq;
		bool there;

		for (uint32_t k = 0; k < t->n_fields && !f; k++)
			f = str_eq(t->fields[k].json_name, j->members[i].key) ? &t->fields[k] : NULL;
		if (!f) {
			if (!u)
				return EQ_FAILED;
			if (om && !jv_equal(m, om))
				return EQ_NO;
			continue;
		}
		for (uint32_t k = 0; u && u->kind == CEL_OBJECT && k < u->n_fields && !g; k++)
			g = str_eq(u->fields[k].json_name, j->members[i].key) ? &u->fields[k] : NULL;
		if (u && u->kind == CEL_OBJECT) {
			there = g && om && om->kind != JV_NULL;
			if (there)
				q = cel_from_jv(a, om, g->type);
		} else {
			there = cel_find_field(a, y, j->members[i].key, &q) != 0;
		}
		if (there != (m->kind != JV_NULL))
			return EQ_NO;
		eq = there ? equal(a, cel_from_jv(a, m, f->type), q, depth) : EQ_YES;
		if (eq != EQ_YES)
			return eq;
	}
	return EQ_YES;
}

static enum equality equal_maps(struct arena *a, struct cel_value x, struct cel_value y, int depth)
{
	const struct cel_type *t = x.rep == REP_JV ? x.type : NULL;
	uint32_t n = cel_size(x);

	if (y.kind != x.kind)
		return t ? EQ_FAILED : EQ_NO;
	if (x.rep == REP_LAZY || y.rep == REP_LAZY)
		return x.rep == y.rep && x.ptr == y.ptr;
	if (n != cel_size(y))
		return EQ_NO;
	if (t && t->kind == CEL_OBJECT)
		return equal_fields(a, x, y, depth);
	for (uint32_t i = 0; i < n; i++) {
		struct cel_value v, o, key = cel_map_at(a, x, i, &v);
		enum equality eq;

		if (!cel_find(a, y, key, &o))
			return EQ_NO;
		eq = t ? equal(a, v, o, depth) : equal_or_null(a, v, o, depth);
		if (eq == EQ_NO || (t && eq == EQ_FAILED))
			return eq;
	}
	return EQ_YES;
}

/* cel-go's x.Equal(y). */
static enum equality equal(struct arena *a, struct cel_value x, struct cel_value y, int depth)
{
	if (depth > JV_MAX_DEPTH * 2)
		return EQ_NO;
	if (number(x) && number(y)) {
		if ((x.kind == CEL_DOUBLE && isnan(x.d)) || (y.kind == CEL_DOUBLE && isnan(y.d)))
			return EQ_NO;
		return order_numbers(x, y) == 0;
	}
	switch (x.kind) {
	case CEL_ERROR:
		return EQ_FAILED;
	case CEL_LIST:
		return equal_lists(a, x, y, depth + 1);
	case CEL_MAP:
		return equal_maps(a, x, y, depth + 1);
	case CEL_OPAQUE:
		return cel_opaque_equal(x, y);
	default:
		break;
	}
	if (x.kind != y.kind)
		return EQ_NO;
	switch (x.kind) {
	case CEL_NULL:
		return EQ_YES;
	case CEL_BOOL:
		return x.b == y.b;
	case CEL_STRING:
	case CEL_BYTES:
		return x.n == y.n && !memcmp(x.p, y.p, x.n);
	case CEL_TIMESTAMP:
		return x.i == y.i && x.ns == y.ns;
	case CEL_DURATION:
		return x.i == y.i;
	case CEL_OBJECT:
		return cel_type_equal(x.type, y.type) ? equal_maps(a, x, y, depth + 1) : EQ_NO;
	case CEL_TYPE:
		return str_eq(cel_type_name(x.type), cel_type_name(y.type));
	case CEL_OPTIONAL:
		if (!x.ptr || !y.ptr)
			return x.ptr == y.ptr;
		return equal(a, *(const struct cel_value *)x.ptr, *(const struct cel_value *)y.ptr, depth + 1);
	default:
		return EQ_NO;
	}
}

enum equality cel_equality(struct arena *a, struct cel_value x, struct cel_value y)
{
	return equal_or_null(a, x, y, 0);
}

bool cel_equal(struct arena *a, struct cel_value x, struct cel_value y)
{
	return cel_equality(a, x, y) == EQ_YES;
}

/* ---- sums ---- */

/* e as an element of a list that a schema reads: it is native then. */
static struct cel_value as_element(struct arena *a, struct cel_value e, const struct cel_type *t)
{
	struct jv v;
	struct str s;

	if (t->hidden)
		return e;
	e = cel_native(a, e);
	switch (e.kind) {
	case CEL_BOOL:
		v = jv_bool(e.b);
		return cel_from_jv(a, &v, t);
	case CEL_INT:
		v = jv_int(e.i);
		return cel_from_jv(a, &v, t);
	case CEL_DOUBLE:
		v = jv_double(e.d);
		return cel_from_jv(a, &v, t);
	case CEL_STRING:
		v = jv_string(cel_str(e));
		return cel_from_jv(a, &v, t);
	case CEL_LIST:
	case CEL_MAP:
		if (e.rep == REP_JV)
			return cel_from_jv(a, e.ptr, t);
		break;
	case CEL_ERROR:
		return e;
	default:
		break;
	}
	s = cel_kind_name(e);
	return cel_error(a, "invalid data, got %.*s", STR_ARG(s));
}

/* x + y of lists; one that a schema reads stays so, and those of type set and map merge. */
struct cel_value cel_add_lists(struct run *r, struct cel_value x, struct cel_value y)
{
	uint32_t nx = cel_size(x), ny = cel_size(y), n = nx;
	const struct cel_type *t = cel_list_view(x);
	struct finder f = {0};
	struct cel_value *v;

	if (x.rep == REP_GROWING) { /* a comprehension's own list */
		struct growing *g = (struct growing *)x.ptr;

		for (uint32_t i = 0; i < ny; i++)
			*arena_push(r->a, g) = cel_at(r->a, y, i);
		return x;
	}
	if (!ny && !t)
		return x;
	if ((uint64_t)nx + ny > UINT32_MAX / sizeof *v)
		return cel_fail(r, "list is too long");
	v = arena_array(r->a, struct cel_value, (size_t)nx + ny + 1);
	if (t && t->list_type)
		finder_init(r->a, &f, x, y);
	for (uint32_t i = 0; i < nx; i++) {
		v[i] = cel_at(r->a, x, i);
		finder_add(r->a, &f, i, v[i]);
	}
	for (uint32_t i = 0; i < ny; i++) {
		struct cel_value e = cel_at(r->a, y, i);
		uint64_t h;
		uint32_t at = n, k, slot = UINT32_MAX;

		if (t)
			e = as_element(r->a, e, cel_elem(t));
		h = f.slots ? element_hash(r->a, t, e) : 0;
		while (t && t->list_type && at == n && finder_next(&f, h, n, &slot, &k))
			if (same_element(r->a, t, v[k], e, 0))
				at = k;
		if (at == n)
			finder_add(r->a, &f, n, e);
		v[at] = e;
		if (at == n)
			n++;
	}
	x = cel_list(v, n);
	x.type = t;
	return x;
}
