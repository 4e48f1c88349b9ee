/*
 * base/str.h: byte strings as (pointer, length) slices.
 *
 * A `struct str` never owns its bytes: whoever made it says how long they live
 * (an arena, a published block, a literal). Bytes are not NUL-terminated unless
 * the function that returned them says so. Comparison is bytewise, as Go's.
 */
#ifndef SKIFF_BASE_STR_H
#define SKIFF_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
	const char *p; /* NULL only when n == 0 */
	size_t n;      /* bytes */
};

/* A literal as a slice; STR_INIT is its form for static initializers. */
#define STR(lit) ((struct str){("" lit), sizeof(lit) - 1})
#define STR_INIT(lit) {("" lit), sizeof(lit) - 1}
#define STR_NULL ((struct str){NULL, 0})

/* printf("%.*s", STR_ARG(s)) */
#define STR_ARG(s) (int)(s).n, (s).n ? (s).p : ""

/* The slice over a NUL-terminated string; NULL gives the empty slice. */
static inline struct str str_from(const char *z)
{
	return z ? (struct str){z, strlen(z)} : STR_NULL;
}

static inline struct str str_of(const char *p, size_t n)
{
	return (struct str){p, n};
}

static inline bool str_empty(struct str s)
{
	return s.n == 0;
}

static inline bool str_eq(struct str a, struct str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Equal to a NUL-terminated string. */
static inline bool str_eqz(struct str a, const char *z)
{
	return str_eq(a, str_from(z));
}

/* <0, 0, >0: bytewise order, a prefix sorts first. */
int str_cmp(struct str a, struct str b);
bool str_has_prefix(struct str s, struct str prefix);
bool str_has_suffix(struct str s, struct str suffix);
bool str_eq_nocase(struct str a, struct str b); /* ASCII only */
/* Index of the first `c` or of `needle`, -1 when absent. */
ptrdiff_t str_index(struct str s, char c);
ptrdiff_t str_rindex(struct str s, char c);
ptrdiff_t str_find(struct str s, struct str needle);
static inline bool str_contains(struct str s, struct str needle)
{
	return str_find(s, needle) >= 0;
}
/* s[from, to), clamped to s. */
struct str str_sub(struct str s, size_t from, size_t to);
/* Without leading and trailing ASCII white space. */
struct str str_trim(struct str s);
/*
 * Cuts `*rest` at the first `sep`: returns what stands before it and moves
 * *rest behind it. Without a `sep` returns all of *rest and leaves it empty
 * with p == NULL. Loop: for (r = s; r.p;) tok = str_cut(&r, ',');
 */
struct str str_cut(struct str *rest, char sep);
/* Whole-string decimal parse; false (and *out untouched) on anything else or on overflow. */
bool str_to_i64(struct str s, int64_t *out);
bool str_to_u64(struct str s, uint64_t *out);
/* What Go's strconv.ParseBool takes, "1", "t", "T", "true", "True", "TRUE" and so on; false (and *out untouched) for all else. */
bool str_to_bool(struct str s, bool *out);
/* 64-bit hash (xxHash XXH3); not stable between versions, never stored. */
uint64_t str_hash(struct str s);
/* malloc'ed NUL-terminated copy; the caller frees it. Aborts when out of memory. */
char *str_dupz(struct str s);
/*
 * A sysctl's name may be written net.ipv4.conf.eth0/1.forwarding or net/ipv4/conf/eth0.1/forwarding (sysctl.d(5)): the
 * first separator says which. swap makes either of the other, dots leaves the first form whatever it was; both in
 * place.
 */
void str_sysctl_swap(char *p, size_t n);
void str_sysctl_dots(char *p, size_t n);

/* Length of the valid UTF-8 sequence at p (1..4), 0 when invalid. */
static inline unsigned utf8_len(const char *p, const char *end)
{
	unsigned char c = (unsigned char)*p;
	size_t left = (size_t)(end - p);

	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4)
		return 0;
	if (left < 2)
		return 0;
	unsigned char c1 = (unsigned char)p[1];

	if (c < 0xe0)
		return (c1 & 0xc0) == 0x80 ? 2 : 0;
	if (left < 3 || ((unsigned char)p[2] & 0xc0) != 0x80)
		return 0;
	if (c < 0xf0) {
		unsigned char lo = c == 0xe0 ? 0xa0 : 0x80, hi = c == 0xed ? 0x9f : 0xbf;

		return c1 >= lo && c1 <= hi ? 3 : 0;
	}
	if (left < 4 || ((unsigned char)p[3] & 0xc0) != 0x80)
		return 0;
	unsigned char lo = c == 0xf0 ? 0x90 : 0x80, hi = c == 0xf4 ? 0x8f : 0xbf;

	return c1 >= lo && c1 <= hi ? 4 : 0;
}

#endif
