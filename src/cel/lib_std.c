/* The standard library: arithmetic with overflow errors, comparison, conversions, optional types (cel-go's common/types). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include "cel/lib.h"

#define FN(name) struct cel_value name(struct run *r, const struct cel_value *v, uint32_t n)
#define UNUSED (void)r, (void)n

static struct cel_value overflow(struct run *r, const char *type)
{
	return cel_fail(r, "%s overflow", type);
}

FN(lib_not)
{
	UNUSED;
	return cel_bool(!v[0].b);
}

static struct cel_value timestamp_plus(struct run *r, struct cel_value t, int64_t ns)
{
	int64_t s = t.i + ns / 1000000000, rest = t.ns + ns % 1000000000;

	if (rest >= 1000000000) {
		rest -= 1000000000;
		s++;
	} else if (rest < 0) {
		rest += 1000000000;
		s--;
	}
	if (!cel_timestamp_ok(s))
		return overflow(r, "timestamp");
	t.i = s;
	t.ns = (int32_t)rest;
	return t;
}

static struct cel_value concat(struct run *r, struct cel_value x, struct cel_value y)
{
	uint64_t n = (uint64_t)x.n + y.n;
	char *p;

	if (!y.n)
		return x;
	if (!x.n)
		return y;
	if (n > UINT32_MAX)
		return cel_fail(r, "string is too long");
	p = arena_bytes(r->a, n);
	memcpy(p, x.p, x.n);
	memcpy(p + x.n, y.p, y.n);
	x.p = p;
	x.n = (uint32_t)n;
	return x;
}

FN(lib_add)
{
	struct cel_value x = v[0], y = v[1];

	(void)n;
	switch (x.kind) {
	case CEL_INT:
		return __builtin_add_overflow(x.i, y.i, &x.i) ? overflow(r, "integer") : x;
	case CEL_UINT:
		return __builtin_add_overflow(x.u, y.u, &x.u) ? overflow(r, "unsigned integer") : x;
	case CEL_DOUBLE:
		return cel_double(x.d + y.d);
	case CEL_STRING:
	case CEL_BYTES:
		return concat(r, x, y);
	case CEL_LIST:
		return cel_add_lists(r, x, y);
	case CEL_TIMESTAMP:
		return timestamp_plus(r, x, y.i);
	case CEL_DURATION:
		if (y.kind == CEL_TIMESTAMP)
			return timestamp_plus(r, y, x.i);
		return __builtin_add_overflow(x.i, y.i, &x.i) ? overflow(r, "duration") : x;
	default:
		return cel_no_overload(r);
	}
}

FN(lib_sub)
{
	struct cel_value x = v[0], y = v[1];
	int64_t s;

	(void)n;
	switch (x.kind) {
	case CEL_INT:
		return __builtin_sub_overflow(x.i, y.i, &x.i) ? overflow(r, "integer") : x;
	case CEL_UINT:
		return __builtin_sub_overflow(x.u, y.u, &x.u) ? overflow(r, "unsigned integer") : x;
	case CEL_DOUBLE:
		return cel_double(x.d - y.d);
	case CEL_DURATION:
		return __builtin_sub_overflow(x.i, y.i, &x.i) ? overflow(r, "duration") : x;
	case CEL_TIMESTAMP:
		if (y.kind == CEL_DURATION)
			return y.i == INT64_MIN ? overflow(r, "timestamp") : timestamp_plus(r, x, -y.i);
		if (__builtin_mul_overflow(x.i - y.i, 1000000000ll, &s) || __builtin_add_overflow(s, (int64_t)x.ns - y.ns, &s))
			return overflow(r, "timestamp");
		return cel_duration(s);
	default:
		return cel_no_overload(r);
	}
}

FN(lib_mul)
{
	struct cel_value x = v[0], y = v[1];

	(void)n;
	switch (x.kind) {
	case CEL_INT:
		return __builtin_mul_overflow(x.i, y.i, &x.i) ? overflow(r, "integer") : x;
	case CEL_UINT:
		return __builtin_mul_overflow(x.u, y.u, &x.u) ? overflow(r, "unsigned integer") : x;
	default:
		return cel_double(x.d * y.d);
	}
}

FN(lib_div)
{
	struct cel_value x = v[0], y = v[1];

	(void)n;
	switch (x.kind) {
	case CEL_INT:
		if (!y.i)
			return cel_fail(r, "division by zero");
		return x.i == INT64_MIN && y.i == -1 ? overflow(r, "integer") : cel_int(x.i / y.i);
	case CEL_UINT:
		return y.u ? cel_uint(x.u / y.u) : cel_fail(r, "division by zero");
	default:
		return cel_double(x.d / y.d);
	}
}

FN(lib_mod)
{
	struct cel_value x = v[0], y = v[1];

	(void)n;
	if (!y.u)
		return cel_fail(r, "modulus by zero");
	if (x.kind == CEL_UINT)
		return cel_uint(x.u % y.u);
	return x.i == INT64_MIN && y.i == -1 ? overflow(r, "integer") : cel_int(x.i % y.i);
}

FN(lib_neg)
{
	(void)n;
	if (v[0].kind == CEL_DOUBLE)
		return cel_double(-v[0].d);
	return v[0].i == INT64_MIN ? overflow(r, "integer") : cel_int(-v[0].i);
}

static struct cel_value ordered(struct run *r, const struct cel_value *v, int *c)
{
	bool ok;
	struct cel_value x = cel_compare(r->a, v[0], v[1], &ok);

	*c = (int)x.i;
	if (ok)
		return CEL_NULL_VALUE;
	return x.i == 2 ? cel_fail(r, "NaN values cannot be ordered") : cel_no_overload(r);
}

#define ORDER(name, expr)                                                                          \
	FN(name)                                                                                   \
	{                                                                                          \
		int c;                                                                             \
		struct cel_value e = ordered(r, v, &c);                                            \
                                                                                                   \
		(void)n;                                                                           \
		return cel_failed(e) ? e : cel_bool(expr);                                         \
	}

ORDER(lib_lt, c < 0)
ORDER(lib_le, c <= 0)
ORDER(lib_gt, c > 0)
ORDER(lib_ge, c >= 0)

/* Upstream's unstructuredList asks its elements, and tells when one cannot be compared; a list of values asks the value. */
FN(lib_in)
{
	struct cel_value out, failed = CEL_NULL_VALUE;
	bool view = cel_list_view(v[1]) != NULL;
	uint32_t size;
	int found;

	(void)n;
	if (v[1].kind != CEL_LIST) {
		found = cel_find(r->a, v[1], v[0], &out);
		return found < 0 ? out : cel_bool(found > 0);
	}
	size = cel_size(v[1]);
	for (uint32_t i = 0; i < size; i++) {
		struct cel_value e = cel_at(r->a, v[1], i);
		enum equality eq = view ? cel_equality(r->a, e, v[0]) : cel_equality(r->a, v[0], e);

		if (eq == EQ_YES)
			return cel_bool(true);
		if (view && eq == EQ_FAILED && !cel_failed(failed))
			failed = cel_failed(e) ? e : cel_no_overload(r);
	}
	return cel_failed(failed) ? failed : cel_bool(false);
}

FN(lib_size)
{
	UNUSED;
	return cel_int(cel_size(v[0]));
}

FN(lib_type)
{
	UNUSED;
	return (struct cel_value){.kind = CEL_TYPE, .type = cel_runtime_type(v[0])};
}

FN(lib_dyn)
{
	UNUSED;
	return v[0];
}

/* ---- conversions ---- */

static struct cel_value no_conversion(struct run *r, struct cel_value v, const char *to)
{
	struct str from = cel_kind_name(v);

	return cel_fail(r, "type conversion error from '%.*s' to '%s'", STR_ARG(from), to);
}

FN(lib_to_bool)
{
	bool b;

	(void)n;
	return str_to_bool(cel_str(v[0]), &b) ? cel_bool(b) : no_conversion(r, v[0], "bool");
}

FN(lib_to_bytes)
{
	UNUSED;
	return cel_bytes(cel_str(v[0]));
}

/* Go's ParseFloat: decimal, hexadecimal, inf, infinity, nan; no spaces. */
static bool parse_double(struct arena *a, struct str s, double *out)
{
	char *z, *end;

	if (str_index(s, 'x') >= 0 || str_index(s, 'X') >= 0) /* hexadecimal needs its exponent */
		if (str_index(s, 'p') < 0 && str_index(s, 'P') < 0)
			return false;
	if (!s.n || s.n > 1000 || (unsigned char)s.p[0] <= ' ' || memchr(s.p, 0, s.n) || memchr(s.p, '(', s.n))
		return false;
	z = arena_strz(a, s);
	errno = 0;
	*out = strtod(z, &end);
	return !*end && !(errno == ERANGE && fabs(*out) > 1);
}

FN(lib_to_double)
{
	double d;

	(void)n;
	switch (v[0].kind) {
	case CEL_INT:
		return cel_double((double)v[0].i);
	case CEL_UINT:
		return cel_double((double)v[0].u);
	default:
		return parse_double(r->a, cel_str(v[0]), &d) ? cel_double(d) : no_conversion(r, v[0], "double");
	}
}

FN(lib_to_duration)
{
	int64_t ns;

	(void)n;
	if (v[0].kind == CEL_INT) /* declared in cel-go, and not implemented there */
		return no_conversion(r, v[0], "google.protobuf.Duration");
	return cel_parse_duration(cel_str(v[0]), &ns) ? cel_duration(ns) : no_conversion(r, v[0], "google.protobuf.Duration");
}

FN(lib_to_int)
{
	struct str s;
	int64_t i;
	double d;

	(void)n;
	switch (v[0].kind) {
	case CEL_DOUBLE:
		d = v[0].d;
		if (!(d > -9223372036854775808.0 && d < 9223372036854775808.0))
			return overflow(r, "integer");
		return cel_int((int64_t)d);
	case CEL_UINT:
		return v[0].u > INT64_MAX ? overflow(r, "integer") : cel_int(v[0].i);
	case CEL_TIMESTAMP:
	case CEL_DURATION:
		return cel_int(v[0].i);
	default:
		s = cel_str(v[0]);
		if (s.n > 1 && s.p[0] == '+' && s.p[1] >= '0' && s.p[1] <= '9')
			s = str_sub(s, 1, s.n);
		return str_to_i64(s, &i) ? cel_int(i) : no_conversion(r, v[0], "int");
	}
}

FN(lib_to_uint)
{
	uint64_t u;
	double d;

	(void)n;
	switch (v[0].kind) {
	case CEL_DOUBLE:
		d = v[0].d;
		if (!(d >= 0 && d < 18446744073709551616.0))
			return overflow(r, "unsigned integer");
		return cel_uint((uint64_t)d);
	case CEL_INT:
		return v[0].i < 0 ? overflow(r, "unsigned integer") : cel_uint(v[0].u);
	default:
		return str_to_u64(cel_str(v[0]), &u) ? cel_uint(u) : no_conversion(r, v[0], "uint");
	}
}

bool cel_valid_utf8(struct str s)
{
	for (size_t i = 0; i < s.n;) {
		unsigned char c = (unsigned char)s.p[i];
		unsigned len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
		unsigned char d = i + 1 < s.n ? (unsigned char)s.p[i + 1] : 0;

		if (!len || i + len > s.n)
			return false;
		for (unsigned k = 1; k < len; k++)
			if (((unsigned char)s.p[i + k] & 0xc0) != 0x80)
				return false;
		if ((c == 0xe0 && d < 0xa0) || (c == 0xed && d >= 0xa0) || (c == 0xf0 && d < 0x90) || (c == 0xf4 && d >= 0x90))
			return false;
		i += len;
	}
	return true;
}

FN(lib_to_string)
{
	(void)n;
	switch (v[0].kind) {
	case CEL_BYTES:
		return cel_valid_utf8(cel_str(v[0])) ? cel_string(cel_str(v[0]))
						     : cel_fail(r, "invalid UTF-8 in bytes, cannot convert to string");
	case CEL_BOOL:
	case CEL_DOUBLE:
	case CEL_DURATION:
	case CEL_INT:
	case CEL_TIMESTAMP:
	case CEL_UINT:
		return cel_string(cel_show(r->a, v[0]));
	default:
		return no_conversion(r, v[0], "string");
	}
}

FN(lib_to_timestamp)
{
	struct cel_value t;

	(void)n;
	if (v[0].kind == CEL_INT)
		return cel_timestamp_ok(v[0].i) ? cel_timestamp(v[0].i, 0) : overflow(r, "timestamp");
	return cel_parse_timestamp(cel_str(v[0]), &t) ? t : no_conversion(r, v[0], "google.protobuf.Timestamp");
}

/* ---- optional types ---- */

static struct cel_value optional_of(struct run *r, struct cel_value v)
{
	struct cel_value *kept = arena_new(r->a, struct cel_value);

	*kept = v;
	return cel_optional(kept);
}

FN(lib_optional_of)
{
	(void)n;
	return optional_of(r, v[0]);
}

FN(lib_optional_nonzero)
{
	(void)n;
	return cel_is_zero(r->a, v[0]) ? cel_optional(NULL) : optional_of(r, v[0]);
}

FN(lib_optional_none)
{
	UNUSED;
	(void)v;
	return cel_optional(NULL);
}

FN(lib_optional_value)
{
	(void)n;
	return v[0].ptr ? *(const struct cel_value *)v[0].ptr : cel_fail(r, "optional.none() dereference");
}

FN(lib_optional_has)
{
	UNUSED;
	return cel_bool(v[0].ptr != NULL);
}

FN(lib_first)
{
	(void)n;
	return cel_size(v[0]) ? optional_of(r, cel_at(r->a, v[0], 0)) : cel_optional(NULL);
}

FN(lib_last)
{
	uint32_t size = cel_size(v[0]);

	(void)n;
	return size ? optional_of(r, cel_at(r->a, v[0], size - 1)) : cel_optional(NULL);
}

FN(lib_unwrap)
{
	uint32_t size = cel_size(v[0]), k = 0;
	struct cel_value *out = arena_array(r->a, struct cel_value, size ? size : 1);

	(void)n;
	for (uint32_t i = 0; i < size; i++) {
		struct cel_value e = cel_at(r->a, v[0], i);

		if (e.kind != CEL_OPTIONAL) {
			struct str s = cel_show(r->a, e);

			return cel_fail(r, "value %.*s is not optional", STR_ARG(s));
		}
		if (e.ptr)
			out[k++] = *(const struct cel_value *)e.ptr;
	}
	return cel_list(out, k);
}

/* transformMap's accumulator: only comprehensions call it, with a map of their own */
FN(lib_map_insert)
{
	struct cel_map *m = (struct cel_map *)v[0].ptr;
	struct cel_value add = n == 2 ? v[1] : CEL_NULL_VALUE, key = n == 3 ? v[1] : CEL_NULL_VALUE, value = n == 3 ? v[2] : CEL_NULL_VALUE;
	uint32_t size = n == 2 ? cel_size(add) : 1;

	for (uint32_t i = 0; i < size; i++) {
		if (n == 2)
			key = cel_map_at(r->a, add, i, &value);
		if (cel_failed(key) || cel_failed(value))
			return cel_failed(key) ? key : value;
		if (cel_map_find(m, key)) {
			struct str s = cel_show(r->a, key);

			return cel_fail(r, "insert failed: key %.*s already exists", STR_ARG(s));
		}
		cel_map_put(r->a, m, key, value);
	}
	return v[0];
}
