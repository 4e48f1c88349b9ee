#include "base/str.h"

#include <ctype.h>
#include <limits.h>
#include <xxhash.h>

#include "base/log.h"

int str_cmp(struct str a, struct str b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;

	if (c)
		return c;
	return a.n < b.n ? -1 : a.n > b.n;
}

bool str_has_prefix(struct str s, struct str prefix)
{
	return s.n >= prefix.n && str_eq(str_of(s.p, prefix.n), prefix);
}

bool str_has_suffix(struct str s, struct str suffix)
{
	return s.n >= suffix.n && str_eq(str_sub(s, s.n - suffix.n, s.n), suffix);
}

bool str_eq_nocase(struct str a, struct str b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++) {
		unsigned char x = (unsigned char)a.p[i], y = (unsigned char)b.p[i];

		x = x >= 'A' && x <= 'Z' ? x | 0x20 : x;
		y = y >= 'A' && y <= 'Z' ? y | 0x20 : y;
		if (x != y)
			return false;
	}
	return true;
}

ptrdiff_t str_index(struct str s, char c)
{
	const char *p = s.n ? memchr(s.p, c, s.n) : NULL;

	return p ? p - s.p : -1;
}

ptrdiff_t str_rindex(struct str s, char c)
{
	for (size_t i = s.n; i > 0; i--)
		if (s.p[i - 1] == c)
			return (ptrdiff_t)i - 1;
	return -1;
}

ptrdiff_t str_find(struct str s, struct str needle)
{
	if (needle.n == 0)
		return 0;
	const char *p = s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;

	return p ? p - s.p : -1;
}

struct str str_sub(struct str s, size_t from, size_t to)
{
	if (to > s.n)
		to = s.n;
	if (from >= to)
		return str_of(s.p ? s.p + to : NULL, 0);
	return str_of(s.p + from, to - from);
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
	while (s.n && is_space(s.p[0]))
		s = str_of(s.p + 1, s.n - 1);
	while (s.n && is_space(s.p[s.n - 1]))
		s.n--;
	return s;
}

struct str str_cut(struct str *rest, char sep)
{
	struct str head = *rest;
	ptrdiff_t i = str_index(*rest, sep);

	if (i < 0) {
		*rest = STR_NULL;
		return head;
	}
	head.n = (size_t)i;
	*rest = str_of(rest->p + i + 1, rest->n - (size_t)i - 1);
	return head;
}

bool str_to_u64(struct str s, uint64_t *out)
{
	uint64_t v = 0;

	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned d = (unsigned)(unsigned char)s.p[i] - '0';

		if (d > 9 || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, d, &v))
			return false;
	}
	*out = v;
	return true;
}

bool str_to_i64(struct str s, int64_t *out)
{
	bool neg = s.n && s.p[0] == '-';
	uint64_t v;

	if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
		s = str_sub(s, 1, s.n);
	if (!str_to_u64(s, &v) || v > (uint64_t)INT64_MAX + neg)
		return false;
	*out = neg ? (int64_t)(0 - v) : (int64_t)v;
	return true;
}

bool str_to_bool(struct str s, bool *out)
{
	static const char *const words[] = {"1", "t", "T", "true", "True", "TRUE", "0", "f", "F", "false", "False", "FALSE"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (str_eqz(s, words[i])) {
			*out = i < 6;
			return true;
		}
	return false;
}

uint64_t str_hash(struct str s)
{
	return XXH3_64bits(s.n ? s.p : "", s.n);
}

char *str_dupz(struct str s)
{
	char *z = xmalloc(s.n + 1);

	if (s.n)
		memcpy(z, s.p, s.n);
	z[s.n] = 0;
	return z;
}

void str_sysctl_swap(char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = p[i] == '/' ? '.' : p[i] == '.' ? '/' : p[i];
}

void str_sysctl_dots(char *p, size_t n)
{
	for (size_t i = 0; i < n && p[i] != '.'; i++)
		if (p[i] == '/') {
			str_sysctl_swap(p, n);
			return;
		}
}
