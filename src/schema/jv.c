/* Trees: members and items, comparison, copies (texts: jv_text.c). */
#include "schema/jv_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/auxv.h>

/*
 * Items and members stand behind a hidden head: their room and, for objects
 * over INDEX_MIN members, an open-addressing table of member numbers + 1.
 * A NULL items/members pointer has no head.
 */
struct head {
	uint32_t cap, mask; /* mask: slots - 1, 0 without an index */
	uint32_t *index;
};
_Static_assert(sizeof(struct head) == 16, "elements behind the head stay aligned");
_Static_assert(sizeof(struct jv) == 16, "a node is 16 bytes");

#define INDEX_MIN 24

static struct head *head_of(const void *elements)
{
	return (struct head *)(void *)((char *)(uintptr_t)elements - sizeof(struct head));
}

void *jv_elements_new(struct arena *a, uint32_t cap, size_t size)
{
	struct head *h = arena_alloc(a, sizeof *h + (size_t)cap * size);

	h->cap = cap;
	return h + 1;
}

/* ---- objects ---- */

/*
 * First slot of a key. Multiplied by a secret of the process, so that nobody
 * can choose keys that all meet in one place.
 */
static uint32_t slot_of(struct str key, uint32_t mask)
{
	static uint64_t secret;
	uint64_t v = __atomic_load_n(&secret, __ATOMIC_RELAXED);

	if (!v) { /* racing threads store the same */
		const void *bytes = (const void *)getauxval(AT_RANDOM);

		v = 0x9e3779b97f4a7c15ull;
		if (bytes)
			memcpy(&v, bytes, sizeof v);
		v |= 1;
		__atomic_store_n(&secret, v, __ATOMIC_RELAXED);
	}
	return (uint32_t)((str_hash(key) * v) >> 32) & mask;
}

static void index_put(struct head *h, struct str key, uint32_t i)
{
	uint32_t at = slot_of(key, h->mask);

	while (h->index[at])
		at = (at + 1) & h->mask;
	h->index[at] = i + 1;
}

/* Slot of member i, which must be in the index. */
static uint32_t index_slot(const struct jv *o, uint32_t i)
{
	struct head *h = head_of(o->members);
	uint32_t at = slot_of(o->members[i].key, h->mask);

	while (h->index[at] != i + 1) {
		assert(h->index[at]);
		at = (at + 1) & h->mask;
	}
	return at;
}

static void index_build(struct arena *a, struct jv *o)
{
	struct head *h = head_of(o->members);
	uint32_t slots = 64;

	while (slots < h->cap * 2)
		slots *= 2;
	h->index = arena_array(a, uint32_t, slots);
	h->mask = slots - 1;
	for (uint32_t i = 0; i < o->n; i++)
		index_put(h, o->members[i].key, i);
}

void jv_members_new(struct arena *a, struct jv *o, uint32_t cap)
{
	o->members = jv_elements_new(a, cap, sizeof *o->members);
	if (cap > INDEX_MIN)
		index_build(a, o); /* still empty: filled by jv_set */
}

static struct jv_member *member_find(const struct jv *o, struct str key)
{
	if (!o || o->kind != JV_OBJECT || !o->n)
		return NULL;
	const struct head *h = head_of(o->members);

	if (h->mask) {
		uint32_t at = slot_of(key, h->mask);

		for (; h->index[at]; at = (at + 1) & h->mask)
			if (str_eq(o->members[h->index[at] - 1].key, key))
				return &o->members[h->index[at] - 1];
		return NULL;
	}
	for (uint32_t i = 0; i < o->n; i++)
		if (str_eq(o->members[i].key, key))
			return &o->members[i];
	return NULL;
}

struct jv *jv_get(const struct jv *o, struct str key)
{
	struct jv_member *m = member_find(o, key);

	return m ? &m->value : NULL;
}

struct jv *jv_at(const struct jv *o, ...)
{
	va_list ap;
	const char *name;
	struct jv *v = (struct jv *)(uintptr_t)o;

	va_start(ap, o);
	while (v && (name = va_arg(ap, const char *)))
		v = jv_get(v, str_from(name));
	va_end(ap);
	return v;
}

struct jv *jv_path(const struct jv *o, struct str path)
{
	struct jv *v = (struct jv *)(uintptr_t)o;
	size_t at = 0;

	while (v && at < path.n) {
		if (path.p[at] == '[') {
			int64_t i;
			ptrdiff_t end = str_index(str_sub(path, at, path.n), ']');

			if (end < 0 || !str_to_i64(str_sub(path, at + 1, at + (size_t)end), &i) || i < 0 ||
			    v->kind != JV_ARRAY || i >= v->n)
				return NULL;
			v = &v->items[i];
			at += (size_t)end + 1;
			continue;
		}
		at += path.p[at] == '.';
		size_t start = at;

		while (at < path.n && path.p[at] != '.' && path.p[at] != '[')
			at++;
		v = jv_get(v, str_sub(path, start, at));
	}
	return v;
}

struct jv *jv_set(struct arena *a, struct jv *o, struct str key, struct jv value)
{
	assert(o->kind == JV_OBJECT);
	struct jv_member *m = member_find(o, key);

	if (m) {
		m->value = value;
		return &m->value;
	}
	struct head *h = o->members ? head_of(o->members) : NULL;
	bool grown = !h || o->n == h->cap;

	if (grown) {
		struct jv_member *v = jv_elements_new(a, h ? h->cap * 2 : 4, sizeof *v);

		if (o->n)
			memcpy(v, o->members, o->n * sizeof *v);
		o->members = v;
		h = head_of(v);
	}
	m = &o->members[o->n++];
	m->key = key;
	m->value = value;
	if (h->mask)
		index_put(h, key, o->n - 1);
	else if (o->n > INDEX_MIN)
		index_build(a, o);
	return &m->value;
}

struct jv *jv_sub(struct arena *a, struct jv *o, struct str key)
{
	struct jv *v = jv_get(o, key);

	if (v && v->kind == JV_OBJECT)
		return v;
	return jv_set(a, o, key, jv_object());
}

/* Empties a slot of the index and moves back the entries that were pushed past it. */
static void index_clear(const struct jv *o, struct head *h, uint32_t at)
{
	uint32_t next = at;

	for (;;) {
		h->index[at] = 0;
		for (;;) {
			next = (next + 1) & h->mask;
			if (!h->index[next])
				return;
			uint32_t home = slot_of(o->members[h->index[next] - 1].key, h->mask);

			/* May stay if its home lies behind the hole (cyclically). */
			if (((next - home) & h->mask) < ((next - at) & h->mask))
				continue;
			break;
		}
		h->index[at] = h->index[next];
		at = next;
	}
}

bool jv_del(struct jv *o, struct str key)
{
	struct jv_member *m = member_find(o, key);

	if (!m)
		return false;
	struct head *h = head_of(o->members);
	uint32_t i = (uint32_t)(m - o->members);

	if (!h->mask) {
		memmove(m, m + 1, (o->n - i - 1) * sizeof *m);
		o->n--;
		return true;
	}
	uint32_t last = o->n - 1;

	index_clear(o, h, index_slot(o, i));
	if (i != last) {
		uint32_t slot = index_slot(o, last);

		o->members[i] = o->members[last];
		h->index[slot] = i + 1;
	}
	o->n--;
	return true;
}

/* ---- arrays ---- */

struct jv *jv_insert(struct arena *a, struct jv *array, uint32_t i, struct jv value)
{
	assert(array->kind == JV_ARRAY && i <= array->n);
	struct head *h = array->items ? head_of(array->items) : NULL;

	if (!h || array->n == h->cap) {
		struct jv *v = jv_elements_new(a, h ? h->cap * 2 : 4, sizeof *v);

		if (array->n)
			memcpy(v, array->items, array->n * sizeof *v);
		array->items = v;
	}
	memmove(&array->items[i + 1], &array->items[i], (array->n - i) * sizeof *array->items);
	array->n++;
	array->items[i] = value;
	return &array->items[i];
}

struct jv *jv_push(struct arena *a, struct jv *array, struct jv value)
{
	return jv_insert(a, array, array->n, value);
}

void jv_remove(struct jv *array, uint32_t i)
{
	assert(array->kind == JV_ARRAY && i < array->n);
	memmove(&array->items[i], &array->items[i + 1], (array->n - i - 1) * sizeof *array->items);
	array->n--;
}

/* ---- comparison and copies ---- */

static double number(const struct jv *v)
{
	return v->kind == JV_INT ? (double)v->i : v->d;
}

bool jv_equal(const struct jv *a, const struct jv *b)
{
	if (a->kind != b->kind)
		return ((a->kind == JV_INT && b->kind == JV_DOUBLE) || (a->kind == JV_DOUBLE && b->kind == JV_INT)) &&
		       number(a) == number(b);
	switch ((enum jv_kind)a->kind) {
	case JV_NULL:
		return true;
	case JV_BOOL:
		return a->b == b->b;
	case JV_INT:
		return a->i == b->i;
	case JV_DOUBLE:
		return a->d == b->d;
	case JV_STRING:
		return str_eq(jv_str(a), jv_str(b));
	case JV_ARRAY:
		if (a->n != b->n)
			return false;
		for (uint32_t i = 0; i < a->n; i++)
			if (!jv_equal(&a->items[i], &b->items[i]))
				return false;
		return true;
	case JV_OBJECT:
		if (a->n != b->n)
			return false;
		for (uint32_t i = 0; i < a->n; i++) {
			const struct jv_member *m = &a->members[i];
			/* Mostly in the same order. */
			const struct jv_member *o = str_eq(b->members[i].key, m->key) ? &b->members[i]
										      : member_find(b, m->key);

			if (!o || !jv_equal(&m->value, &o->value))
				return false;
		}
		return true;
	}
	return false;
}

uint64_t jv_hash(const struct jv *v)
{
	uint64_t h = 0;
	double d;

	switch ((enum jv_kind)v->kind) {
	case JV_NULL:
		break;
	case JV_BOOL:
		return 1 + v->b;
	case JV_INT:
	case JV_DOUBLE:
		d = number(v) == 0 ? 0 : number(v); /* -0 is 0 */
		return str_hash(str_of((const char *)&d, sizeof d));
	case JV_STRING:
		return str_hash(jv_str(v));
	case JV_ARRAY:
		for (uint32_t i = 0; i < v->n; i++)
			h = (h ^ jv_hash(&v->items[i])) * 0x9e3779b97f4a7c15u + 1;
		return h;
	case JV_OBJECT:
		for (uint32_t i = 0; i < v->n; i++) /* in any order */
			h += (str_hash(v->members[i].key) ^ (jv_hash(&v->members[i].value) * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
		return h;
	}
	return h;
}

static int member_cmp(const void *x, const void *y)
{
	return str_cmp((*(const struct jv_member *const *)x)->key, (*(const struct jv_member *const *)y)->key);
}

const struct jv_member **jv_members_sorted(const struct jv *o)
{
	const struct jv_member **v = malloc((o->n + 1) * sizeof *v);

	if (!v)
		abort();
	for (uint32_t i = 0; i < o->n; i++)
		v[i] = &o->members[i];
	qsort(v, o->n, sizeof *v, member_cmp);
	return v;
}

/* numbers < strings < booleans < arrays < objects < null: structured-merge-diff's order. */
static int rank(const struct jv *v)
{
	switch ((enum jv_kind)v->kind) {
	case JV_INT:
	case JV_DOUBLE:
		return 0;
	case JV_STRING:
		return 1;
	case JV_BOOL:
		return 2;
	case JV_ARRAY:
		return 3;
	case JV_OBJECT:
		return 4;
	case JV_NULL:
		break;
	}
	return 5;
}

int jv_cmp(const struct jv *a, const struct jv *b)
{
	int ra = rank(a), rb = rank(b), c = 0;

	if (ra != rb)
		return ra < rb ? -1 : 1;
	switch ((enum jv_kind)a->kind) {
	case JV_NULL:
		return 0;
	case JV_BOOL:
		return (int)a->b - (int)b->b;
	case JV_INT:
		if (b->kind == JV_INT)
			return (a->i > b->i) - (a->i < b->i);
		/* fall through */
	case JV_DOUBLE:
		return (number(a) > number(b)) - (number(a) < number(b));
	case JV_STRING:
		return str_cmp(jv_str(a), jv_str(b));
	case JV_ARRAY:
		for (uint32_t i = 0; i < a->n && i < b->n; i++)
			if ((c = jv_cmp(&a->items[i], &b->items[i])))
				return c;
		return (a->n > b->n) - (a->n < b->n);
	case JV_OBJECT: {
		const struct jv_member **ma = jv_members_sorted(a), **mb = jv_members_sorted(b);

		for (uint32_t i = 0; i < a->n && i < b->n && !c; i++) {
			c = str_cmp(ma[i]->key, mb[i]->key);
			if (!c)
				c = jv_cmp(&ma[i]->value, &mb[i]->value);
		}
		free(ma);
		free(mb);
		return c ? c : (a->n > b->n) - (a->n < b->n);
	}
	}
	return 0;
}

static struct jv copy(struct arena *a, const struct jv *v, bool bytes)
{
	struct jv out = *v;

	switch ((enum jv_kind)v->kind) {
	case JV_STRING:
		if (bytes)
			out.p = arena_str(a, jv_str(v)).p;
		break;
	case JV_ARRAY:
		if (!v->n) {
			out.items = NULL;
			break;
		}
		out.items = jv_elements_new(a, v->n, sizeof *out.items);
		for (uint32_t i = 0; i < v->n; i++)
			out.items[i] = copy(a, &v->items[i], bytes);
		break;
	case JV_OBJECT:
		if (!v->n) {
			out.members = NULL;
			break;
		}
		out.members = jv_elements_new(a, v->n, sizeof *out.members);
		for (uint32_t i = 0; i < v->n; i++) {
			struct str key = v->members[i].key;

			out.members[i].key = bytes ? arena_str(a, key) : key;
			out.members[i].value = copy(a, &v->members[i].value, bytes);
		}
		if (v->n > INDEX_MIN)
			index_build(a, &out);
		break;
	default:
		break;
	}
	return out;
}

struct jv jv_copy(struct arena *a, const struct jv *v)
{
	return copy(a, v, false);
}

struct jv jv_copy_all(struct arena *a, const struct jv *v)
{
	return copy(a, v, true);
}
