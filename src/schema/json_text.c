/* JSON text as Go's encoding/json writes it: strings, doubles, raw values. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "schema/codec.h"
#include "schema/codec_internal.h"

/* Copies [p, end) up to the first byte that needs care (or its last 15 bytes bytewise); returns how far it got. */
static inline const char *copy_plain(char **to, const char *p, const char *end)
{
	char *w = *to;
#ifdef __SSE2__
	const __m128i space = _mm_set1_epi8(0x20), back = _mm_set1_epi8('\\'), two = _mm_set1_epi8(2), four = _mm_set1_epi8(4),
		      angle = _mm_set1_epi8('>'), amp = _mm_set1_epi8('&');

	while (end - p >= 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
		/* '<'|2 and '>'|2 are '>'; '"'|4 and '&'|4 are '&'; negative bytes are below 0x20. */
		__m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmplt_epi8(v, space), _mm_cmpeq_epi8(v, back)),
					   _mm_or_si128(_mm_cmpeq_epi8(_mm_or_si128(v, two), angle),
							_mm_cmpeq_epi8(_mm_or_si128(v, four), amp)));
		unsigned m = (unsigned)_mm_movemask_epi8(hit);

		_mm_storeu_si128((__m128i *)(void *)w, v);
		if (m) {
			unsigned k = (unsigned)__builtin_ctz(m);

			*to = w + k;
			return p + k;
		}
		p += 16;
		w += 16;
	}
#endif
	while (p < end) {
		unsigned char c = (unsigned char)*p;

		if (c < 0x20 || c > 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&')
			break;
		*w++ = *p++;
	}
	*to = w;
	return p;
}

static const char hex[] = "0123456789abcdef";

static char *put_u(char *w, unsigned c)
{
	memcpy(w, "\\u", 2);
	w[2] = hex[c >> 12 & 15];
	w[3] = hex[c >> 8 & 15];
	w[4] = hex[c >> 4 & 15];
	w[5] = hex[c & 15];
	return w + 6;
}

/* The general case: something in s needs care. */
static __attribute__((noinline)) void put_string_slow(struct buf *b, struct str s)
{
	const char *p = s.p, *end = s.p + s.n;
	char *w = json_room(b, s.n + 2 + 16);

	*w++ = '"';
	for (;;) {
		p = copy_plain(&w, p, end);
		if (likely(p == end))
			break;
		/* One special byte grows to at most six; keep room for it and for the plain rest. */
		b->n = (size_t)(w - b->p);
		w = json_room(b, (size_t)(end - p) + 6 + 2 + 16);
		unsigned char c = (unsigned char)*p;

		if (c < 0x80) {
			p++;
			switch (c) {
			case '"': case '\\':
				*w++ = '\\';
				*w++ = (char)c;
				break;
			case '\b': case '\f': case '\n': case '\r': case '\t':
				*w++ = '\\';
				*w++ = "btn.fr"[c - 8];
				break;
			default:
				w = put_u(w, c);
			}
			continue;
		}
		unsigned n = utf8_len(p, end);

		if (!n) {
			w = put_u(w, 0xfffd);
			p++;
		} else if (n == 3 && c == 0xe2 && (unsigned char)p[1] == 0x80 && ((unsigned char)p[2] & 0xfe) == 0xa8) {
			w = put_u(w, 0x2000 | ((unsigned char)p[2] & 0x3f));
			p += 3;
		} else {
			memcpy(w, p, n);
			w += n;
			p += n;
		}
	}
	*w++ = '"';
	b->n = (size_t)(w - b->p);
}

#ifdef __SSE2__
/* Bytes of v that cannot be copied as they are. */
static inline unsigned special_bytes(__m128i v)
{
	/* '<'|2 and '>'|2 are '>'; '"'|4 and '&'|4 are '&'; negative bytes are below 0x20. */
	__m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmplt_epi8(v, _mm_set1_epi8(0x20)), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))),
				   _mm_or_si128(_mm_cmpeq_epi8(_mm_or_si128(v, _mm_set1_epi8(2)), _mm_set1_epi8('>')),
						_mm_cmpeq_epi8(_mm_or_si128(v, _mm_set1_epi8(4)), _mm_set1_epi8('&'))));

	return (unsigned)_mm_movemask_epi8(hit);
}
#endif

/* s with quotes at w, which has room for s.n + 2; NULL when something in it needs care. */
static inline char *put_plain(char *w, struct str s)
{
	const char *p = s.p;
	size_t n = s.n;

	*w++ = '"';
#ifdef __SSE2__
	/* The tail is copied by overlapping loads, never beyond s. */
	if (n >= 16) {
		size_t i = 0;
		__m128i v;
		unsigned hit = 0;

		for (; i + 16 <= n; i += 16) {
			v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
			hit |= special_bytes(v);
			_mm_storeu_si128((__m128i *)(void *)(w + i), v);
		}
		v = _mm_loadu_si128((const __m128i *)(const void *)(p + n - 16));
		hit |= special_bytes(v);
		_mm_storeu_si128((__m128i *)(void *)(w + n - 16), v);
		if (unlikely(hit))
			return NULL;
	} else if (n >= 8) {
		__m128i lo = _mm_loadl_epi64((const __m128i *)(const void *)p),
			hi = _mm_loadl_epi64((const __m128i *)(const void *)(p + n - 8));

		if (unlikely(special_bytes(_mm_unpacklo_epi64(lo, hi))))
			return NULL;
		_mm_storel_epi64((__m128i *)(void *)w, lo);
		_mm_storel_epi64((__m128i *)(void *)(w + n - 8), hi);
	} else if (n >= 4) {
		uint32_t lo, hi;

		memcpy(&lo, p, 4);
		memcpy(&hi, p + n - 4, 4);
		if (unlikely(special_bytes(_mm_set1_epi64x((long long)((uint64_t)hi << 32 | lo)))))
			return NULL;
		memcpy(w, &lo, 4);
		memcpy(w + n - 4, &hi, 4);
	} else
#endif
		for (size_t i = 0; i < n; i++) {
			unsigned char c = (unsigned char)p[i];

			if (unlikely(c < 0x20 || c > 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&'))
				return NULL;
			w[i] = (char)c;
		}
	w[n] = '"';
	return w + n + 1;
}

char *je_string(struct je *e, char *w, struct str s)
{
	w = je_need(e, w, s.n + 2);
	char *after = put_plain(w, s);

	if (likely(after != NULL))
		return je_check(e, after);
	e->b->n = (size_t)(w - e->b->p);
	put_string_slow(e->b, s);
	return je_resume(e);
}

void json_put_string(struct buf *b, struct str s)
{
	char *w = put_plain(json_room(b, s.n + 2), s);

	if (likely(w != NULL))
		b->n = (size_t)(w - b->p);
	else
		put_string_slow(b, s);
}

unsigned double_digits(double d, char *digits, int *exp10)
{
	char tmp[40];

	for (unsigned n = 1;; n++) {
		snprintf(tmp, sizeof tmp, "%.*e", (int)n - 1, d);
		char *e = strchr(tmp, 'e');

		*exp10 = atoi(e + 1);
		digits[0] = tmp[0];
		if (n > 1)
			memcpy(digits + 1, tmp + 2, n - 1);
		if (n == 17 || strtod(tmp, NULL) == d)
			return n;
		/* The next number up of as many digits: at ties, and above powers of two, it may be the one. */
		char *last = e - 1;

		if (*last < '9') {
			++*last;
			if (strtod(tmp, NULL) == d) {
				++digits[n - 1];
				return n;
			}
		}
	}
}

void json_put_double(struct buf *b, double d)
{
	char digits[20];
	int e;

	if (!isfinite(d)) {
		buf_puts(b, "null");
		return;
	}
	if (signbit(d))
		buf_putc(b, '-');
	d = fabs(d);
	unsigned n = double_digits(d, digits, &e);

	if (d != 0 && (d < 1e-6 || d >= 1e21)) {
		buf_putc(b, digits[0]);
		if (n > 1) {
			buf_putc(b, '.');
			buf_append(b, digits + 1, n - 1);
		}
		buf_printf(b, e < 0 ? "e%d" : "e+%d", e);
		return;
	}
	if (e < 0)
		buf_puts(b, "0.");
	for (int i = e + 1; i < 0; i++)
		buf_putc(b, '0');
	for (unsigned i = 0; i < n; i++) {
		buf_putc(b, digits[i]);
		if ((int)i == e && i + 1 < n)
			buf_putc(b, '.');
	}
	for (int i = (int)n; i <= e; i++)
		buf_putc(b, '0');
}

/* First byte of [p, end) that is '<', '>', '&' or 0xe2 (the first of U+2028). */
static const char *html_end(const char *p, const char *end)
{
#ifdef __SSE2__
	for (; end - p >= 16; p += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
		__m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('&')), _mm_cmpeq_epi8(v, _mm_set1_epi8((char)0xe2))),
					   _mm_cmpeq_epi8(_mm_or_si128(v, _mm_set1_epi8(2)), _mm_set1_epi8('>')));
		unsigned m = (unsigned)_mm_movemask_epi8(hit);

		if (m)
			return p + __builtin_ctz(m);
	}
#endif
	for (; p < end; p++) {
		unsigned char c = (unsigned char)*p;

		if (c == '<' || c == '>' || c == '&' || c == 0xe2)
			break;
	}
	return p;
}

void json_put_raw(struct buf *b, struct str raw)
{
	const char *p = raw.n ? raw.p : "", *q = NULL, *end = p + raw.n;
	bool spaces = false;
	struct json_syntax_error ignored;

	p = json_space(p, end);
	if (p < end)
		q = json_skip(p, end, CODEC_MAX_DEPTH, &spaces, &ignored);
	if (!q || json_space(q, end) != end) {
		buf_puts(b, "null");
		return;
	}
	struct str v = str_of(p, (size_t)(q - p));
	char *copy = NULL;

	if (spaces) {
		copy = xmalloc(v.n);
		v = str_of(copy, json_compact(copy, v));
	}
	/* Outside strings no special character but '"' occurs, so one pass escapes HTML and line separators. */
	p = v.p;
	end = v.p + v.n;
	char *w = json_room(b, v.n + 16);

	while (p < end) {
		q = html_end(p, end);
		memcpy(w, p, (size_t)(q - p));
		w += q - p;
		p = q;
		if (p == end)
			break;
		unsigned char c = (unsigned char)*p;

		if (c != 0xe2) {
			b->n = (size_t)(w - b->p);
			w = put_u(json_room(b, (size_t)(end - p) + 6 + 16), c);
			p++;
		} else if (end - p >= 3 && (unsigned char)p[1] == 0x80 && ((unsigned char)p[2] & 0xfe) == 0xa8) {
			b->n = (size_t)(w - b->p);
			w = put_u(json_room(b, (size_t)(end - p) + 6 + 16), 0x2000 | ((unsigned char)p[2] & 0x3f));
			p += 3;
		} else {
			*w++ = *p++;
		}
	}
	b->n = (size_t)(w - b->p);
	free(copy);
}
