/* What the watch cache indexes, found in JSON. */
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "apiserver/cache_internal.h"

/* ---- finding things in JSON ---- */

/*
 * A scanner over JSON that a codec made or accepted: it finds a few members and passes over the rest. It stays inside the text
 * whatever that is, and fails on what it cannot follow.
 */
#define SCAN_DEPTH 600
struct scan {
	const char *start, *p, *end;
	bool bad;
};

static void ws(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
		s->p++;
}

static bool eat(struct scan *s, char c)
{
	ws(s);
	if (s->p < s->end && *s->p == c) {
		s->p++;
		return true;
	}
	return false;
}

/* What a byte is to skip(): 0 ordinary, 1 string, 2 opens, 3 closes, 4 NUL (no JSON). */
static const uint8_t byte_class[256] = {[0] = 4, ['"'] = 1, ['{'] = 2, ['['] = 2, ['}'] = 3, [']'] = 3};

/* At the opening quote; *text is what stands between the quotes, still escaped when *escaped. */
static bool string(struct scan *s, struct str *text, bool *escaped)
{
	const char *p = s->p, *end = s->end;
	*escaped = false;
	if (p >= end || *p != '"') {
		ws(s);
		p = s->p;
		if (p >= end || *p != '"') {
			s->bad = true;
			return false;
		}
	}
	const char *from = ++p;
	for (;;) {
#ifdef __SSE2__
		while (end - p >= 16) {
			__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
			unsigned hit = (unsigned)_mm_movemask_epi8(
				_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))));
			if (hit) {
				p += __builtin_ctz(hit);
				break;
			}
			p += 16;
		}
#endif
		while (p < end && *p != '"' && *p != '\\')
			p++;
		if (p >= end) {
			s->bad = true;
			return false;
		}
		if (*p == '"')
			break;
		*escaped = true;
		p += 2;
		if (p > end)
			p = end;
	}
	*text = str_of(from, (size_t)(p - from));
	s->p = p + 1;
	return true;
}

/* Passes one value. Inside it only strings and brackets count: the JSON was valid when it was stored. */
static void skip(struct scan *s)
{
	struct str t;
	bool esc;
	int depth = 0;
	ws(s);
	if (s->p < s->end && !byte_class[(uint8_t)*s->p]) { /* a number or a word */
		const char *p = s->p;
		while (p < s->end && *p != ',' && *p != '}' && *p != ']' && (uint8_t)*p > ' ' && *p != ':' && *p != '"')
			p++;
		s->bad = p == s->p;
		s->p = p;
		return;
	}
	do {
		while (s->p < s->end && !byte_class[(uint8_t)*s->p])
			s->p++;
		if (s->p >= s->end) {
			s->bad = true;
			return;
		}
		switch (byte_class[(uint8_t)*s->p]) {
		case 1:
			if (!string(s, &t, &esc))
				return;
			break;
		case 2:
			depth++;
			s->p++;
			break;
		case 3:
			depth--;
			s->p++;
			break;
		default:
			depth = -1;
		}
		if (depth < 0 || depth > SCAN_DEPTH) {
			s->bad = true;
			return;
		}
	} while (depth);
}

static void utf8(struct buf *b, uint32_t c)
{
	if (c < 0x80) {
		buf_putc(b, (char)c);
	} else if (c < 0x800) {
		buf_putc(b, (char)(0xc0 | c >> 6));
		buf_putc(b, (char)(0x80 | (c & 63)));
	} else if (c < 0x10000) {
		buf_putc(b, (char)(0xe0 | c >> 12));
		buf_putc(b, (char)(0x80 | (c >> 6 & 63)));
		buf_putc(b, (char)(0x80 | (c & 63)));
	} else {
		buf_putc(b, (char)(0xf0 | c >> 18));
		buf_putc(b, (char)(0x80 | (c >> 12 & 63)));
		buf_putc(b, (char)(0x80 | (c >> 6 & 63)));
		buf_putc(b, (char)(0x80 | (c & 63)));
	}
}

static uint32_t hex4(const char *p)
{
	uint32_t v = 0;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		v = v << 4 | (uint32_t)(c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 0);
	}
	return v;
}

static void unescape(struct buf *b, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] != '\\' || i + 1 == s.n) {
			buf_putc(b, s.p[i]);
			continue;
		}
		char c = s.p[++i];
		static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
		const char *at = strchr(from, c);
		if (c == 'u' && s.n - i > 4) {
			uint32_t v = hex4(s.p + i + 1);
			i += 4;
			if (v >= 0xd800 && v < 0xdc00 && s.n - i > 6 && s.p[i + 1] == '\\' && s.p[i + 2] == 'u') {
				uint32_t lo = hex4(s.p + i + 3);
				if (lo >= 0xdc00 && lo < 0xe000) {
					v = 0x10000 + ((v - 0xd800) << 10) + (lo - 0xdc00);
					i += 6;
				}
			}
			utf8(b, v);
		} else {
			buf_putc(b, at && c ? to[at - from] : c);
		}
	}
}

/* ---- index ---- */

static struct cache_slice slice(struct index *x, struct scan *s, struct str text, bool escaped)
{
	if (!escaped)
		return (struct cache_slice){(uint32_t)(text.p - s->start), (uint32_t)text.n};
	size_t at = x->tail.n;
	unescape(&x->tail, text);
	return (struct cache_slice){(uint32_t)at | SLICE_TAIL, (uint32_t)(x->tail.n - at)};
}

/* A value as a selectable field shows it: a string's text, anything else as it stands. */
static struct cache_slice value(struct index *x, struct scan *s)
{
	struct str t;
	bool esc;
	ws(s);
	if (s->p < s->end && *s->p == '"') {
		if (!string(s, &t, &esc))
			return (struct cache_slice){0};
		return slice(x, s, t, esc);
	}
	const char *from = s->p;
	skip(s);
	if (s->bad || str_eq(str_of(from, (size_t)(s->p - from)), STR("null")))
		return (struct cache_slice){0};
	return slice(x, s, str_of(from, (size_t)(s->p - from)), false);
}

static void labels(struct index *x, struct scan *s)
{
	struct str k;
	bool esc;
	ws(s);
	if (s->p < s->end && *s->p != '{') {
		skip(s);
		return;
	}
	if (!eat(s, '{') || eat(s, '}'))
		return;
	do {
		if (!string(s, &k, &esc) || !eat(s, ':')) {
			s->bad = true;
			return;
		}
		if (x->n_labels < 255) {
			x->labels[2 * x->n_labels] = slice(x, s, k, esc);
			x->labels[2 * x->n_labels + 1] = value(x, s);
			x->n_labels++;
		} else {
			skip(s);
		}
	} while (!s->bad && eat(s, ','));
	if (!eat(s, '}'))
		s->bad = true;
}

/* Members stand by name. */
static bool before_rv(struct str k)
{
	return str_cmp(k, STR("resourceVersion")) < 0;
}

/* The segment of path after `depth` dots; *last: nothing follows it. */
static struct str segment(struct str path, int depth, bool *last)
{
	const char *p = path.p, *end = path.p + path.n;
	*last = false;
	for (; depth; depth--) {
		while (p < end && *p != '.')
			p++;
		if (p == end)
			return STR_NULL;
		p++;
	}
	const char *q = p;
	while (q < end && *q != '.')
		q++;
	*last = q == end;
	return str_of(p, (size_t)(q - p));
}

/*
 * An object at `depth`. want/want2: the fields whose path (path2) leads through here. metadata: we are in it.
 */
static void object(struct index *x, struct scan *s, int depth, uint32_t want, uint32_t want2, bool metadata)
{
	struct str k;
	bool esc;
	if (!eat(s, '{')) {
		skip(s);
		return;
	}
	if (metadata) {
		x->insert = s->p;
		x->first = true;
	}
	if (eat(s, '}'))
		return;
	do {
		if (!string(s, &k, &esc) || !eat(s, ':')) {
			s->bad = true;
			return;
		}
		uint32_t down = 0, down2 = 0;
		int here = -1, here2 = -1;
		for (int i = 0; (want | want2) >> i; i++) {
			bool last;
			const struct cache_field *f = &x->r->fields[i];
			if (want & 1u << i && str_eq(segment(f->path.n ? f->path : f->name, depth, &last), k)) {
				if (last)
					here = i;
				else
					down |= 1u << i;
			}
			if (want2 & 1u << i && str_eq(segment(f->path2, depth, &last), k)) {
				if (last)
					here2 = i;
				else
					down2 |= 1u << i;
			}
		}
		if (here >= 0 || here2 >= 0) {
			struct cache_slice v = value(x, s);
			if (here >= 0)
				x->fields[here] = v;
			if (here2 >= 0)
				x->alt[here2] = v;
		} else if (!depth && str_eqz(k, "metadata")) {
			x->has_metadata = true;
			object(x, s, 1, down, down2, true);
		} else if (metadata && str_eqz(k, "labels")) {
			labels(x, s);
		} else if (metadata && str_eqz(k, "uid")) {
			x->uid = value(x, s);
		} else if (metadata && str_eqz(k, "resourceVersion")) {
			ws(s);
			const char *from = s->p;
			skip(s);
			x->rv = str_of(from, (size_t)(s->p - from));
		} else if (down || down2) {
			object(x, s, depth + 1, down, down2, false);
		} else {
			skip(s);
		}
		if (metadata && !s->bad && before_rv(k)) {
			x->insert = s->p;
			x->first = false;
		}
	} while (!s->bad && eat(s, ','));
	if (!eat(s, '}'))
		s->bad = true;
}

bool index_json(struct index *x, struct str json)
{
	struct scan s = {json.p, json.p, json.p + json.n, false};
	uint32_t all = x->r->n_fields ? (uint32_t)((1ull << x->r->n_fields) - 1) : 0, two = 0;
	for (int i = 0; i < x->r->n_fields; i++)
		if (x->r->fields[i].path2.n)
			two |= 1u << i;
	ws(&s);
	if (s.p >= s.end || *s.p != '{')
		return false;
	object(x, &s, 0, all, two, false);
	return !s.bad && x->has_metadata && x->insert;
}
