/* Strings: the standard functions, cel-go's ext/strings.go (version 2), Kubernetes' regex library and jsonpatch.escapeKey. */
#include "cel/lib.h"

#define FN(name) struct cel_value name(struct run *r, const struct cel_value *v, uint32_t n)

/* Byte offset of code point i; s.n when i is behind the end. */
static size_t offset_of(struct str s, uint64_t i)
{
	size_t at = 0;

	for (; at < s.n && i; i--) {
		at++;
		while (at < s.n && ((unsigned char)s.p[at] & 0xc0) == 0x80)
			at++;
	}
	return at;
}

static size_t next(struct str s, size_t at)
{
	at++;
	while (at < s.n && ((unsigned char)s.p[at] & 0xc0) == 0x80)
		at++;
	return at;
}

FN(lib_contains)
{
	(void)r, (void)n;
	return cel_bool(str_contains(cel_str(v[0]), cel_str(v[1])));
}

FN(lib_starts_with)
{
	(void)r, (void)n;
	return cel_bool(str_has_prefix(cel_str(v[0]), cel_str(v[1])));
}

FN(lib_ends_with)
{
	(void)r, (void)n;
	return cel_bool(str_has_suffix(cel_str(v[0]), cel_str(v[1])));
}

FN(lib_char_at)
{
	struct str s = cel_str(v[0]);
	uint64_t len = cel_runes(s);
	size_t at;

	(void)n;
	if (v[1].i < 0 || (uint64_t)v[1].i > len)
		return cel_fail(r, "index out of range: %lld", (long long)v[1].i);
	if ((uint64_t)v[1].i == len)
		return cel_string(STR(""));
	at = offset_of(s, (uint64_t)v[1].i);
	return cel_string(str_sub(s, at, next(s, at)));
}

FN(lib_index_of)
{
	struct str s = cel_str(v[0]), what = cel_str(v[1]);
	int64_t from = n > 2 ? v[2].i : 0;
	ptrdiff_t at;
	size_t start;

	if (!what.n)
		return cel_int(from);
	if (from < 0)
		return cel_fail(r, "index out of range: %lld", (long long)from);
	start = offset_of(s, (uint64_t)from);
	if (start >= s.n)
		return cel_int(-1);
	at = str_find(str_sub(s, start, s.n), what);
	return at < 0 ? cel_int(-1) : cel_int(from + (int64_t)cel_runes(str_of(s.p + start, (size_t)at)));
}

FN(lib_last_index_of)
{
	struct str s = cel_str(v[0]), what = cel_str(v[1]);
	int64_t len = (int64_t)cel_runes(s), wlen = (int64_t)cel_runes(what), from = n > 2 ? v[2].i : len - 1;
	size_t at;

	if (!what.n)
		return cel_int(n > 2 ? from : len);
	if (n == 2 && s.n < what.n)
		return cel_int(-1);
	if (from < 0)
		return cel_fail(r, "index out of range: %lld", (long long)from);
	if (from >= len)
		return cel_int(-1);
	if (from > len - wlen)
		from = len - wlen;
	for (; from >= 0; from--) {
		at = offset_of(s, (uint64_t)from);
		/* walk back from there instead of counting again */
		for (;; from--) {
			if (at + what.n <= s.n && !memcmp(s.p + at, what.p, what.n))
				return cel_int(from);
			if (!from)
				return cel_int(-1);
			at--;
			while (((unsigned char)s.p[at] & 0xc0) == 0x80)
				at--;
		}
	}
	return cel_int(-1);
}

static struct cel_value mapped(struct run *r, struct str s, char from, char to)
{
	char *p = arena_bytes(r->a, s.n);

	for (size_t i = 0; i < s.n; i++)
		p[i] = s.p[i] >= from && s.p[i] <= to ? (char)(s.p[i] ^ 32) : s.p[i];
	return cel_string(str_of(p, s.n));
}

FN(lib_lower)
{
	(void)n;
	return mapped(r, cel_str(v[0]), 'A', 'Z');
}

FN(lib_upper)
{
	(void)n;
	return mapped(r, cel_str(v[0]), 'a', 'z');
}

static struct cel_value from_buf(struct run *r, const struct buf *b)
{
	return b->n > UINT32_MAX ? cel_fail(r, "string is too long") : cel_string(arena_str(r->a, buf_view(b)));
}

FN(lib_replace)
{
	struct str s = cel_str(v[0]), old = cel_str(v[1]), with = cel_str(v[2]);
	int64_t left = n > 3 ? v[3].i : -1;
	struct buf b buf_cleanup = {0};
	size_t at = 0;
	bool first = true;

	/* with a long replacement the result may be large: no more than the limit lets anyone look at */
	b.limit = 64u << 20;
	while (left && at <= s.n) {
		ptrdiff_t found;

		if (!old.n) {
			if (!first && at >= s.n)
				break;
			if (!first) {
				size_t to = next(s, at);

				buf_append(&b, s.p + at, to - at);
				at = to;
			}
			buf_str(&b, with);
			first = false;
			left--;
			continue;
		}
		found = str_find(str_sub(s, at, s.n), old);
		if (found < 0)
			break;
		buf_append(&b, s.p + at, (size_t)found);
		buf_str(&b, with);
		at += (size_t)found + old.n;
		left--;
	}
	if (at < s.n)
		buf_append(&b, s.p + at, s.n - at);
	if (b.overflow)
		return cel_fail(r, "string is too long");
	return from_buf(r, &b);
}

FN(lib_split)
{
	struct str s = cel_str(v[0]), sep = cel_str(v[1]);
	int64_t left = n > 2 ? v[2].i : -1;
	struct growing out = {0};
	size_t at = 0;

	if (!left)
		return cel_list(NULL, 0);
	if (!sep.n) {
		while (at < s.n && left != 1) {
			size_t to = next(s, at);

			*arena_push(r->a, &out) = cel_string(str_sub(s, at, to));
			at = to;
			left--;
		}
		if (at < s.n)
			*arena_push(r->a, &out) = cel_string(str_sub(s, at, s.n));
		return cel_list(out.v, out.n);
	}
	while (left != 1) {
		ptrdiff_t found = str_find(str_sub(s, at, s.n), sep);

		if (found < 0)
			break;
		*arena_push(r->a, &out) = cel_string(str_sub(s, at, at + (size_t)found));
		at += (size_t)found + sep.n;
		left--;
	}
	*arena_push(r->a, &out) = cel_string(str_sub(s, at, s.n));
	return cel_list(out.v, out.n);
}

FN(lib_substring)
{
	struct str s = cel_str(v[0]);
	int64_t len = (int64_t)cel_runes(s), from = v[1].i, to = n > 2 ? v[2].i : len;

	if (n > 2 && from > to)
		return cel_fail(r, "invalid substring range. start: %lld, end: %lld", (long long)from, (long long)to);
	if (from < 0 || from > len)
		return cel_fail(r, "index out of range: %lld", (long long)from);
	if (to < 0 || to > len)
		return cel_fail(r, "index out of range: %lld", (long long)to);
	return cel_string(str_sub(s, offset_of(s, (uint64_t)from), offset_of(s, (uint64_t)to)));
}

/* Unicode's White_Space: bytes of the one at p, 0 for none. */
static size_t space_at(struct str s, size_t at)
{
	static const char *const wide[] = {"\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83",
					   "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89",
					   "\xe2\x80\x8a", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
	struct str rest = str_sub(s, at, s.n);

	if (rest.n && (rest.p[0] == ' ' || (rest.p[0] >= 9 && rest.p[0] <= 13)))
		return 1;
	for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
		if (str_has_prefix(rest, str_from(wide[i])))
			return strlen(wide[i]);
	return 0;
}

FN(lib_trim)
{
	struct str s = cel_str(v[0]);
	size_t from = 0, to, k;

	(void)r, (void)n;
	while (from < s.n && (k = space_at(s, from)))
		from += k;
	for (to = s.n; to > from;) {
		k = to - 1;
		while (k > from && ((unsigned char)s.p[k] & 0xc0) == 0x80)
			k--;
		if (space_at(s, k) != to - k)
			break;
		to = k;
	}
	return cel_string(str_sub(s, from, to));
}

FN(lib_format)
{
	(void)n;
	return cel_format(r, cel_str(v[0]), v[1]);
}

FN(lib_quote)
{
	struct str s = cel_str(v[0]);
	struct buf b buf_cleanup = {0};
	static const char from[] = "\a\b\f\n\r\t\v\\\"", to[] = "abfnrtv\\\"";

	(void)n;
	buf_putc(&b, '"');
	for (size_t i = 0; i < s.n; i++) {
		const char *at = s.p[i] ? strchr(from, s.p[i]) : NULL;

		if (at)
			buf_putc(&b, '\\');
		buf_putc(&b, at ? to[at - from] : s.p[i]);
	}
	buf_putc(&b, '"');
	return from_buf(r, &b);
}

FN(lib_join)
{
	struct str sep = n > 1 ? cel_str(v[1]) : STR_NULL;
	uint32_t size = cel_size(v[0]);
	struct buf b buf_cleanup = {0};

	b.limit = 64u << 20;
	for (uint32_t i = 0; i < size; i++) {
		struct cel_value e = cel_at(r->a, v[0], i);

		if (e.kind != CEL_STRING) {
			struct str s = cel_show(r->a, e);

			return cel_failed(e) ? e : cel_fail(r, "join: invalid input: %.*s", STR_ARG(s));
		}
		if (i)
			buf_str(&b, sep);
		buf_str(&b, cel_str(e));
	}
	return b.overflow ? cel_fail(r, "string is too long") : from_buf(r, &b);
}

/* ---- regular expressions ---- */

/* The call's pattern: the program's own, or made for this call (*own, to be freed). */
static const struct cel_regex *pattern(struct run *r, struct str text, const struct cel_regex **own, const char **why)
{
	*own = NULL;
	if (r->pattern)
		return r->pattern;
	*own = cel_regex_new(text, why);
	return *own;
}

FN(lib_matches)
{
	const struct cel_regex *own, *re;
	const char *why;
	bool found;

	(void)n;
	re = pattern(r, cel_str(v[1]), &own, &why);
	if (!re)
		return cel_fail(r, "error parsing regexp: %s", why);
	found = cel_regex_matches(re, cel_str(v[0]), &why);
	cel_regex_free(own);
	return why ? cel_fail(r, "%s", why) : cel_bool(found);
}

FN(lib_find)
{
	const struct cel_regex *own, *re;
	const char *why;
	size_t from, to;
	bool found;

	(void)n;
	re = pattern(r, cel_str(v[1]), &own, &why);
	if (!re)
		return cel_fail(r, "Illegal regex: error parsing regexp: %s", why);
	found = cel_regex_find(re, cel_str(v[0]), 0, &from, &to, &why);
	cel_regex_free(own);
	if (why)
		return cel_fail(r, "%s", why);
	return cel_string(found ? str_sub(cel_str(v[0]), from, to) : STR(""));
}

FN(lib_find_all)
{
	const struct cel_regex *own, *re;
	struct str s = cel_str(v[0]);
	int64_t left = n > 2 ? v[2].i : -1;
	struct growing out = {0};
	const char *why = NULL;
	size_t at = 0, from, to, last = SIZE_MAX;

	re = pattern(r, cel_str(v[1]), &own, &why);
	if (!re)
		return cel_fail(r, "Illegal regex: error parsing regexp: %s", why);
	why = NULL;
	while (left && at <= s.n && cel_regex_find(re, s, at, &from, &to, &why)) {
		/* an empty match right behind a match is none (Go's rule) */
		if (!(from == to && from == last)) {
			*arena_push(r->a, &out) = cel_string(str_sub(s, from, to));
			left--;
		}
		last = to;
		at = to > from ? to : to < s.n ? next(s, to) : s.n + 1;
	}
	cel_regex_free(own);
	return why ? cel_fail(r, "%s", why) : cel_list(out.v, out.n);
}

FN(lib_escape_key)
{
	struct str s = cel_str(v[0]);
	struct buf b buf_cleanup = {0};

	(void)n;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '/')
			buf_puts(&b, "~1");
		else if (s.p[i] == '~')
			buf_puts(&b, "~0");
		else
			buf_putc(&b, s.p[i]);
	}
	return from_buf(r, &b);
}
