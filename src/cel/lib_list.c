/* Lists and sets: Kubernetes' lists library, cel-go's ext/lists.go (version 3) and ext/sets.go. */
#include <stdlib.h>
#include "cel/lib.h"

#define FN(name) struct cel_value name(struct run *r, const struct cel_value *v, uint32_t n)
#define RANGE_MAX 1000000 /* elements lists.range makes: what a call may cost */

/* Null, lists, maps, types and Kubernetes' own know no order. */
static bool has_order(struct cel_value v)
{
	return v.kind >= CEL_BOOL && v.kind <= CEL_DURATION;
}

FN(lib_is_sorted)
{
	uint32_t size = cel_size(v[0]);
	struct cel_value last = CEL_NULL_VALUE, e, c;
	bool ok;

	(void)n;
	for (uint32_t i = 0; i < size; i++, last = e) {
		e = cel_at(r->a, v[0], i);
		if (!has_order(e))
			return cel_failed(e) ? e : cel_no_overload(r);
		if (!i)
			continue;
		c = cel_compare(r->a, last, e, &ok); /* values of different types are in order, as upstream has it */
		if (ok && c.i > 0)
			return cel_bool(false);
	}
	return cel_bool(true);
}

static struct cel_value sum(struct run *r, struct cel_value list, struct cel_value zero)
{
	struct cel_value two[2] = {zero};
	uint32_t size = cel_size(list);

	for (uint32_t i = 0; i < size; i++) {
		two[1] = cel_at(r->a, list, i);
		if (two[1].kind != zero.kind)
			return cel_failed(two[1]) ? two[1] : cel_no_overload(r);
		two[0] = lib_add(r, two, 2);
		if (cel_failed(two[0]))
			return two[0];
	}
	return two[0];
}

FN(lib_sum_int)
{
	(void)n;
	return sum(r, v[0], cel_int(0));
}

FN(lib_sum_uint)
{
	(void)n;
	return sum(r, v[0], cel_uint(0));
}

FN(lib_sum_double)
{
	(void)n;
	return sum(r, v[0], cel_double(0));
}

FN(lib_sum_duration)
{
	(void)n;
	return sum(r, v[0], cel_duration(0));
}

static struct cel_value extreme(struct run *r, struct cel_value list, int want, const char *name)
{
	uint32_t size = cel_size(list);
	struct cel_value best = CEL_NULL_VALUE, e, c;
	bool ok;

	if (!size)
		return cel_fail(r, "%s called on empty list", name);
	for (uint32_t i = 0; i < size; i++) {
		e = cel_at(r->a, list, i);
		if (!has_order(e))
			return cel_failed(e) ? e : cel_no_overload(r);
		if (!i) {
			best = e;
			continue;
		}
		c = cel_compare(r->a, e, best, &ok);
		if (ok && c.i == want)
			best = e;
	}
	return best;
}

FN(lib_list_max)
{
	(void)n;
	return extreme(r, v[0], 1, "max");
}

FN(lib_list_min)
{
	(void)n;
	return extreme(r, v[0], -1, "min");
}

FN(lib_list_index_of)
{
	uint32_t size = cel_size(v[0]);

	(void)n;
	for (uint32_t i = 0; i < size; i++)
		if (cel_equal(r->a, cel_at(r->a, v[0], i), v[1]))
			return cel_int(i);
	return cel_int(-1);
}

FN(lib_list_last_index_of)
{
	(void)n;
	for (uint32_t i = cel_size(v[0]); i-- > 0;)
		if (cel_equal(r->a, cel_at(r->a, v[0], i), v[1]))
			return cel_int(i);
	return cel_int(-1);
}

FN(lib_slice)
{
	int64_t size = cel_size(v[0]), from = v[1].i, to = v[2].i;
	struct cel_value *out;

	(void)n;
	if (from < 0 || to < 0)
		return cel_fail(r, "cannot slice(%lld, %lld), negative indexes not supported", (long long)from, (long long)to);
	if (from > to)
		return cel_fail(r, "cannot slice(%lld, %lld), start index must be less than or equal to end index", (long long)from, (long long)to);
	if (size < to)
		return cel_fail(r, "cannot slice(%lld, %lld), list is length %lld", (long long)from, (long long)to, (long long)size);
	out = arena_array(r->a, struct cel_value, (size_t)(to - from) + 1);
	for (int64_t i = from; i < to; i++)
		out[i - from] = cel_at(r->a, v[0], (uint32_t)i);
	return cel_list(out, (uint32_t)(to - from));
}

static void flatten(struct run *r, struct growing *out, struct cel_value list, int64_t depth)
{
	uint32_t size = cel_size(list);

	for (uint32_t i = 0; i < size; i++) {
		struct cel_value e = cel_at(r->a, list, i);

		if (e.kind == CEL_LIST && depth > 0)
			flatten(r, out, e, depth - 1);
		else
			*arena_push(r->a, out) = e;
	}
}

FN(lib_flatten)
{
	struct growing out = {0};
	int64_t depth = n > 1 ? v[1].i : 1;

	if (depth < 0)
		return cel_fail(r, "level must be non-negative");
	flatten(r, &out, v[0], depth);
	return cel_list(out.v, out.n);
}

struct keyed {
	struct cel_value key;
	uint32_t i;
};

static int keyed_order(const void *x, const void *y)
{
	const struct keyed *p = x, *q = y;
	bool ok;
	struct cel_value c = cel_compare(NULL, p->key, q->key, &ok);

	if (ok && c.i)
		return (int)c.i;
	return p->i < q->i ? -1 : p->i > q->i;
}

static struct cel_value sort_by(struct run *r, struct cel_value list, struct cel_value keys)
{
	uint32_t size = cel_size(list);
	struct keyed *k;
	struct cel_value *out;
	bool ok;

	if (size != cel_size(keys))
		return cel_fail(r, "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got %u and %u elements "
				"respectively", size, cel_size(keys));
	k = arena_array(r->a, struct keyed, size + 1);
	out = arena_array(r->a, struct cel_value, size + 1);
	for (uint32_t i = 0; i < size; i++) {
		k[i] = (struct keyed){cel_at(r->a, keys, i), i};
		if (cel_failed(k[i].key))
			return k[i].key;
		if (k[i].key.kind != k[0].key.kind)
			return cel_fail(r, "list elements must have the same type");
	}
	if (size && cel_compare(r->a, k[0].key, k[0].key, &ok).i != 2 && !ok)
		return cel_fail(r, "list elements must be comparable");
	qsort(k, size, sizeof *k, keyed_order);
	for (uint32_t i = 0; i < size; i++)
		out[i] = cel_at(r->a, list, k[i].i);
	return cel_list(out, size);
}

FN(lib_sort)
{
	(void)n;
	return sort_by(r, v[0], v[0]);
}

FN(lib_sort_by)
{
	(void)n;
	return sort_by(r, v[0], v[1]);
}

FN(lib_range)
{
	int64_t size = v[0].i < 0 ? 0 : v[0].i;
	struct cel_value *out;

	(void)n;
	if (size > RANGE_MAX)
		return cel_fail(r, "lists.range(%lld) is too long", (long long)size);
	out = arena_array(r->a, struct cel_value, (size_t)size + 1);
	for (int64_t i = 0; i < size; i++)
		out[i] = cel_int(i);
	return cel_list(out, (uint32_t)size);
}

FN(lib_reverse)
{
	uint32_t size = cel_size(v[0]);
	struct cel_value *out = arena_array(r->a, struct cel_value, size + 1);

	(void)n;
	for (uint32_t i = 0; i < size; i++)
		out[i] = cel_at(r->a, v[0], size - 1 - i);
	return cel_list(out, size);
}

FN(lib_distinct)
{
	uint32_t size = cel_size(v[0]), k = 0;
	struct cel_value *out;

	(void)n;
	/* its work is quadratic, its cost is counted afterwards: refuse what the limit would */
	if ((uint64_t)size * size * 2 > r->limit)
		return cel_fail(r, "distinct() called on a list of %u elements", size);
	out = arena_array(r->a, struct cel_value, size + 1);
	for (uint32_t i = 0; i < size; i++) {
		struct cel_value e = cel_at(r->a, v[0], i);
		uint32_t j = 0;

		while (j < k && !cel_equal(r->a, e, out[j]))
			j++;
		if (j == k)
			out[k++] = e;
	}
	return cel_list(out, k);
}

static bool contains(struct run *r, struct cel_value list, struct cel_value e)
{
	uint32_t size = cel_size(list);

	for (uint32_t i = 0; i < size; i++)
		if (cel_equal(r->a, cel_at(r->a, list, i), e))
			return true;
	return false;
}

static bool too_long(struct run *r, const struct cel_value *v)
{
	return (uint64_t)cel_size(v[0]) * cel_size(v[1]) > r->limit;
}

static bool contains_all(struct run *r, struct cel_value list, struct cel_value of)
{
	uint32_t size = cel_size(of);

	for (uint32_t i = 0; i < size; i++)
		if (!contains(r, list, cel_at(r->a, of, i)))
			return false;
	return true;
}

FN(lib_sets_contains)
{
	(void)n;
	if (too_long(r, v))
		return cel_fail(r, "sets.contains() called on lists that are too long");
	return cel_bool(contains_all(r, v[0], v[1]));
}

FN(lib_sets_equivalent)
{
	(void)n;
	if (too_long(r, v))
		return cel_fail(r, "sets.equivalent() called on lists that are too long");
	return cel_bool(contains_all(r, v[0], v[1]) && contains_all(r, v[1], v[0]));
}

FN(lib_sets_intersects)
{
	uint32_t size = cel_size(v[0]);

	(void)n;
	if (too_long(r, v))
		return cel_fail(r, "sets.intersects() called on lists that are too long");
	for (uint32_t i = 0; i < size; i++)
		if (contains(r, v[1], cel_at(r->a, v[0], i)))
			return cel_bool(true);
	return cel_bool(false);
}
