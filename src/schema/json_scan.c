/* JSON text: syntax, skipping, strings, compacting. Messages are in the words of Go's encoding/json. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "schema/codec.h"
#include "schema/codec_internal.h"

static const char *fail(struct json_syntax_error *e, const char *at, const char *end, const char *context)
{
	e->at = at;
	e->context = at < end ? context : NULL;
	return NULL;
}

struct error *json_syntax_error(struct str in, const struct json_syntax_error *e)
{
	size_t line = 1, column = 1;

	if (!e->context && e->at == in.p + in.n)
		return error_status(400, "BadRequest", "unexpected end of JSON input");
	for (const char *p = in.p; p < e->at; p++) {
		column++;
		if (*p == '\n') {
			line++;
			column = 1;
		}
	}
	if (!e->context)
		return error_status(400, "BadRequest", "exceeded max depth (line %zu, column %zu): at most %d levels of nesting are decoded",
				    line, column, CODEC_MAX_DEPTH);
	unsigned char c = (unsigned char)*e->at;
	char shown[16];

	/* As Go's quoteChar. */
	if (c == '\'')
		snprintf(shown, sizeof shown, "'\\''");
	else if (c == '"')
		snprintf(shown, sizeof shown, "'\"'");
	else if (c == '\n' || c == '\r' || c == '\t' || c == '\\')
		snprintf(shown, sizeof shown, "'\\%c'", c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : '\\');
	else if (c < 0x20 || c == 0x7f)
		snprintf(shown, sizeof shown, "'\\x%02x'", c);
	else if (c < 0x80)
		snprintf(shown, sizeof shown, "'%c'", c);
	else if (c < 0xa0)
		snprintf(shown, sizeof shown, "'\\u%04x'", c);
	else
		snprintf(shown, sizeof shown, "'\xc3%c'", c < 0xc0 ? c : c - 0x40); /* the byte as a Latin-1 character */
	if (c >= 0xa0 && c < 0xc0)
		shown[1] = (char)0xc2;
	return error_status(400, "BadRequest", "invalid character %s %s", shown, e->context);
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static uint32_t hex4(const char *p)
{
	uint32_t v = 0;

	for (int i = 0; i < 4; i++) {
		char c = p[i];

		v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return v;
}

/* Behind the escape whose '\\' is at p. */
static const char *skip_escape(const char *p, const char *end, struct json_syntax_error *e)
{
	if (++p == end)
		return fail(e, p, end, NULL);
	switch (*p) {
	case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
		return p + 1;
	case 'u':
		for (int i = 1; i <= 4; i++)
			if (p + i >= end || !is_hex(p[i]))
				return fail(e, p + i < end ? p + i : end, end, "in \\u hexadecimal character escape");
		return p + 5;
	default:
		return fail(e, p, end, "in string escape code");
	}
}

const char *json_skip_string(const char *p, const char *end, struct json_syntax_error *e)
{
	for (;;) {
		p = json_plain_end(p, end);
		if (p == end)
			return fail(e, p, end, NULL);
		if (*p == '"')
			return p + 1;
		if (*p == '\\') {
			p = skip_escape(p, end, e);
			if (!p)
				return NULL;
		} else if ((unsigned char)*p < 0x20) {
			return fail(e, p, end, "in string literal");
		} else {
			p++;
		}
	}
}

/* Writes the text of [p, end), escapes resolved and invalid UTF-8 replaced; syntax is already checked. */
static size_t resolve(char *to, const char *p, const char *end)
{
	char *w = to;

	while (p < end) {
		const char *q = json_plain_end(p, end);

		memcpy(w, p, (size_t)(q - p));
		w += q - p;
		p = q;
		if (p == end)
			break;
		if (*p != '\\') {
			unsigned n = utf8_len(p, end);

			if (n) {
				memcpy(w, p, n);
				w += n;
				p += n;
			} else {
				w += utf8_put(w, 0xfffd);
				p++;
			}
			continue;
		}
		char c = p[1];

		p += 2;
		switch (c) {
		case 'b':
			*w++ = '\b';
			break;
		case 'f':
			*w++ = '\f';
			break;
		case 'n':
			*w++ = '\n';
			break;
		case 'r':
			*w++ = '\r';
			break;
		case 't':
			*w++ = '\t';
			break;
		case 'u': {
			uint32_t u = hex4(p);

			p += 4;
			if (u >= 0xd800 && u < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
				uint32_t low = hex4(p + 2);

				if (low >= 0xdc00 && low < 0xe000) {
					u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
					p += 6;
				}
			}
			if (u >= 0xd800 && u < 0xe000)
				u = 0xfffd;
			w += utf8_put(w, u);
			break;
		}
		default:
			*w++ = c;
		}
	}
	return (size_t)(w - to);
}

const char *json_string(struct arena *a, const char *p, const char *end, struct str *out, struct json_syntax_error *e)
{
	const char *start = p;
	bool same = true;
	size_t growth = 0; /* of invalid bytes becoming three */

	for (;;) {
		p = json_plain_end(p, end);
		if (p == end)
			return fail(e, p, end, NULL);
		if (*p == '"')
			break;
		if (*p == '\\') {
			same = false;
			p = skip_escape(p, end, e);
			if (!p)
				return NULL;
		} else if ((unsigned char)*p < 0x20) {
			return fail(e, p, end, "in string literal");
		} else {
			unsigned n = utf8_len(p, end);

			if (!n) {
				same = false;
				growth += 2;
				n = 1;
			}
			p += n;
		}
	}
	if (same) {
		*out = str_of(start, (size_t)(p - start));
	} else {
		size_t room = (size_t)(p - start) + growth;
		char *to = arena_bytes(a, room);
		size_t n = resolve(to, start, p);

		if (a->cur == to + room)
			a->cur = to + n;
		*out = str_of(to, n);
	}
	return p + 1;
}

/* Whether a number is beyond a double. */
static bool is_huge(struct str number)
{
	char small[64], *z = number.n < sizeof small ? small : xmalloc(number.n + 1);
	double d;

	memcpy(z, number.p, number.n);
	z[number.n] = 0;
	d = strtod(z, NULL);
	if (z != small)
		free(z);
	return d - d != 0;
}

const char *json_skip_number(const char *p, const char *end, struct json_syntax_error *e)
{
	const char *start = p;

	if (*p == '-' && ++p == end)
		return fail(e, p, end, NULL);
	if (*p == '0') {
		p++;
	} else if (*p >= '1' && *p <= '9') {
		while (p < end && *p >= '0' && *p <= '9')
			p++;
	} else {
		return fail(e, p, end, "in numeric literal");
	}
	if (p < end && *p == '.') {
		const char *from = ++p;

		while (p < end && *p >= '0' && *p <= '9')
			p++;
		if (p == from)
			return fail(e, p, end, "after decimal point in numeric literal");
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		const char *from = p;

		while (p < end && *p >= '0' && *p <= '9')
			p++;
		if (p == from)
			return fail(e, p, end, "in exponent of numeric literal");
		if ((p - from > 2 || p - start > 200) && is_huge(str_of(start, (size_t)(p - start))))
			e->huge = str_of(start, (size_t)(p - start));
	} else if (p - start > 300 && is_huge(str_of(start, (size_t)(p - start)))) {
		e->huge = str_of(start, (size_t)(p - start));
	}
	return p;
}

static const char *skip_literal(const char *p, const char *end, const char *word, struct json_syntax_error *e)
{
	static const char *const expecting[] = {
		"in literal true (expecting 'r')", "in literal true (expecting 'u')", "in literal true (expecting 'e')",
		"in literal false (expecting 'a')", "in literal false (expecting 'l')", "in literal false (expecting 's')",
		"in literal false (expecting 'e')", "in literal null (expecting 'u')", "in literal null (expecting 'l')",
		"in literal null (expecting 'l')",
	};
	int base = word[0] == 't' ? 0 : word[0] == 'f' ? 3 : 7;

	for (int i = 0; word[i]; i++, p++)
		if (p == end || *p != word[i])
			return fail(e, p, end, expecting[base + i - 1]);
	return p;
}

/* A scalar at p; NULL also when a value cannot start there. */
static const char *skip_scalar(const char *p, const char *end, struct json_syntax_error *e)
{
	switch (*p) {
	case '"':
		return json_skip_string(p + 1, end, e);
	case 't':
		return skip_literal(p, end, "true", e);
	case 'f':
		return skip_literal(p, end, "false", e);
	case 'n':
		return skip_literal(p, end, "null", e);
	case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
		return json_skip_number(p, end, e);
	default:
		return fail(e, p, end, "looking for beginning of value");
	}
}

static inline const char *space(const char *p, const char *end, bool *spaces)
{
	if (p < end && (unsigned char)*p <= ' ') {
		const char *q = json_space_slow(p, end);

		if (q != p)
			*spaces = true;
		return q;
	}
	return p;
}

const char *json_skip(const char *p, const char *end, unsigned depth, bool *spaces, struct json_syntax_error *e)
{
	uint64_t object[(JSON_SKIP_DEPTH + 63) / 64]; /* one bit a level: 1 object, 0 list; set when it is entered */
	unsigned level = 0;

	if (depth > JSON_SKIP_DEPTH)
		depth = JSON_SKIP_DEPTH;
	for (;;) {
		/* A value starts at p. */
		if (p == end)
			return fail(e, p, end, NULL);
		if (*p == '{' || *p == '[') {
			bool is_object = *p == '{';

			if (level == depth) {
				e->at = p;
				e->context = NULL;
				return NULL;
			}
			if (is_object)
				object[level / 64] |= 1ULL << level % 64;
			else
				object[level / 64] &= ~(1ULL << level % 64);
			level++;
			p = space(p + 1, end, spaces);
			if (p == end)
				return fail(e, p, end, NULL);
			if (*p == (is_object ? '}' : ']')) {
				p++;
				level--;
			} else if (is_object) {
				goto key;
			} else {
				continue;
			}
		} else {
			p = skip_scalar(p, end, e);
			if (!p)
				return NULL;
		}
		/* A value ended before p. */
		for (;;) {
			if (!level)
				return p;
			p = space(p, end, spaces);
			if (p == end)
				return fail(e, p, end, NULL);
			bool in_object = object[(level - 1) / 64] >> (level - 1) % 64 & 1;

			if (*p == ',') {
				p = space(p + 1, end, spaces);
				if (in_object)
					goto key;
				break;
			}
			if (*p != (in_object ? '}' : ']'))
				return fail(e, p, end, in_object ? "after object key:value pair" : "after array element");
			p++;
			level--;
		}
		continue;
key:
		if (p == end || *p != '"')
			return fail(e, p, end, "looking for beginning of object key string");
		p = json_skip_string(p + 1, end, e);
		if (!p)
			return NULL;
		p = space(p, end, spaces);
		if (p == end || *p != ':')
			return fail(e, p, end, "after object key");
		p = space(p + 1, end, spaces);
	}
}

size_t json_compact(char *to, struct str v)
{
	const char *p = v.p, *end = v.p + v.n;
	char *w = to;

	while (p < end) {
		char c = *p;

		if (c == '"') {
			const char *q = p + 1;

			while (*q != '"')
				q += *q == '\\' ? 2 : 1;
			q++;
			memcpy(w, p, (size_t)(q - p));
			w += q - p;
			p = q;
		} else {
			if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
				*w++ = c;
			p++;
		}
	}
	return (size_t)(w - to);
}
