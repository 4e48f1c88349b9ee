/*
 * schema/codec_internal.h: what the codecs of this room share: sizes of values,
 * scanning of JSON text, list growth. Not for other rooms.
 */
#ifndef SKIFF_SCHEMA_CODEC_INTERNAL_H
#define SKIFF_SCHEMA_CODEC_INTERNAL_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "schema/schema.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define CODEC_MAX_DEPTH 128 /* nesting of objects and lists in any format; a level costs under 500 bytes of stack */
#define JSON_SKIP_DEPTH 10000 /* of what is passed over: Go's limit */
#define CODEC_MAX_PROBLEMS 100 /* strict decoding reports at most this many, as upstream */

#define unlikely(x) __builtin_expect(!!(x), 0)
#define likely(x) __builtin_expect(!!(x), 1)

struct decode_report;

#define QUANTITY_REGEX_ERROR \
	"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
#define LAYOUT_RFC3339 "2006-01-02T15:04:05Z07:00"
#define LAYOUT_MICRO "2006-01-02T15:04:05.000000Z07:00"

/* Bytes of one value of a kind (FIELD_MESSAGE: its type's). */
static inline size_t value_size(uint8_t kind, const struct schema_type *type)
{
	static const uint8_t size[] = {
		[FIELD_STRING] = sizeof(struct str), [FIELD_BOOL] = sizeof(bool), [FIELD_INT32] = 4, [FIELD_INT64] = 8,
		[FIELD_UINT32] = 4, [FIELD_UINT64] = 8, [FIELD_DOUBLE] = sizeof(double), [FIELD_BYTES] = sizeof(struct str),
		[FIELD_QUANTITY] = sizeof(struct str), [FIELD_INTSTR] = sizeof(struct int_or_string),
		[FIELD_TIME] = sizeof(struct api_time), [FIELD_MICROTIME] = sizeof(struct api_time),
		[FIELD_DURATION] = 8, [FIELD_RAW] = sizeof(struct str), [FIELD_FIELDSV1] = sizeof(struct str),
		[FIELD_JSON] = sizeof(struct str), [FIELD_ANY] = sizeof(struct str), [FIELD_STRINGS] = sizeof(struct strings),
		[FIELD_MESSAGE] = 0,
	};
	return kind == FIELD_MESSAGE ? type->size : size[kind];
}

/* The shape of every LIST(), element size known only from the descriptor. */
struct raw_list {
	char *v;
	uint32_t n, cap;
};

/* Room for `more` elements behind l->n; new memory is zeroed. Growth is geometric. */
static inline void raw_list_reserve(struct arena *a, struct raw_list *l, size_t elem, uint32_t more)
{
	if (l->n + (uint64_t)more <= l->cap)
		return;
	uint32_t cap = l->n + more;

	if (l->n && cap < l->n * 2)
		cap = l->n * 2;
	char *v = arena_alloc(a, cap * elem);

	if (l->n)
		memcpy(v, l->v, l->n * elem);
	l->v = v;
	l->cap = cap;
}

/* Appends one zeroed element. */
static inline void *raw_list_push(struct arena *a, struct raw_list *l, size_t elem)
{
	if (l->n == l->cap)
		raw_list_reserve(a, l, elem, l->n ? l->n : elem >= 256 ? 1 : elem >= 64 ? 2 : 4);
	return l->v + elem * l->n++;
}

/* Makes a map's elements (key first) sorted and unique, the last of equal keys winning. */
void map_sort(struct raw_list *l, size_t elem);
/* True when keys are strictly ascending. */
bool map_is_sorted(const struct raw_list *l, size_t elem);

/* First byte of [p, end) that is '"', '\\', below 0x20 or above 0x7f; end when none. */
static inline const char *json_plain_end(const char *p, const char *end)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"'), back = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);

	while (end - p >= 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
		/* Signed compare: bytes above 0x7f are negative, so below 0x20 too. */
		__m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, back)),
					   _mm_cmplt_epi8(v, space));
		unsigned m = (unsigned)_mm_movemask_epi8(hit);

		if (m)
			return p + __builtin_ctz(m);
		p += 16;
	}
#endif
	while (p < end) {
		unsigned char c = (unsigned char)*p;

		if (c == '"' || c == '\\' || c < 0x20 || c > 0x7f)
			break;
		p++;
	}
	return p;
}

/* Appends code point c as UTF-8; returns bytes written (1..4). */
static inline unsigned utf8_put(char *p, uint32_t c)
{
	if (c < 0x80) {
		p[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		p[0] = (char)(0xc0 | c >> 6);
		p[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		p[0] = (char)(0xe0 | c >> 12);
		p[1] = (char)(0x80 | (c >> 6 & 0x3f));
		p[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	p[0] = (char)(0xf0 | c >> 18);
	p[1] = (char)(0x80 | (c >> 12 & 0x3f));
	p[2] = (char)(0x80 | (c >> 6 & 0x3f));
	p[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

static inline const char *json_space_slow(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

/* Behind white space. */
static inline const char *json_space(const char *p, const char *end)
{
	if (likely(p < end && (unsigned char)*p > ' '))
		return p;
	return json_space_slow(p, end);
}

/*
 * One JSON value of any kind at p (behind white space): checks its syntax and
 * nesting (at most `depth` levels) without recursion. Returns the first byte
 * behind it, or NULL and where and why (a format with upstream's words) it is not JSON.
 * *spaces is set when there is white space outside strings.
 */
struct json_syntax_error {
	const char *at;
	const char *context; /* "looking for beginning of value"; NULL: unexpected end of input */
	struct str huge;     /* no syntax error: the last number that is beyond a double */
};
const char *json_skip(const char *p, const char *end, unsigned depth, bool *spaces, struct json_syntax_error *e);
/* The string whose first byte behind the quote is p: skips it. As json_skip. */
const char *json_skip_string(const char *p, const char *end, struct json_syntax_error *e);
/* The number at p (a digit or '-'). As json_skip. */
const char *json_skip_number(const char *p, const char *end, struct json_syntax_error *e);
/* The error object of a syntax error in `in`. */
struct error *json_syntax_error(struct str in, const struct json_syntax_error *e);
/* Copies the valid JSON text v without white space outside strings; the room for it is v.n bytes. Returns bytes written. */
size_t json_compact(char *to, struct str v);
/* String at p (behind its quote) with escapes resolved, invalid UTF-8 replaced. Points into the input when nothing changes. */
const char *json_string(struct arena *a, const char *p, const char *end, struct str *out, struct json_syntax_error *e);

/* Room for n more bytes; the encoder has lifted the limit, so this always gives it. */
static inline char *json_room(struct buf *b, size_t n)
{
	if (unlikely(b->cap - b->n < n))
		buf_reserve(b, n);
	return b->p + b->n;
}

/*
 * The typed encoders write at a pointer they hand on. JE_SLACK bytes are free behind it whenever a function of theirs starts,
 * so punctuation, keys, numbers and times (one key and one such value: under 110 bytes) are written without looking.
 */
#define JE_SLACK 128
#define JE_KEY_MAX 64 /* longer names are written the careful way */
struct je {
	struct buf *b;
	char *full; /* at or below it JE_SLACK bytes are free */
	bool sorted; /* members stand by name, as in maps */
};
char *je_grow(struct je *e, char *w, size_t n);
/* After appends to e->b itself. */
static inline char *je_resume(struct je *e)
{
	if (unlikely(e->b->cap - e->b->n < JE_SLACK))
		buf_reserve(e->b, 2 * JE_SLACK);
	e->full = e->b->p + e->b->cap - JE_SLACK;
	return e->b->p + e->b->n;
}
static inline char *je_begin(struct je *e)
{
	buf_reserve(e->b, 4 * JE_SLACK);
	return je_resume(e);
}
static inline char *je_check(struct je *e, char *w)
{
	return likely(w <= e->full) ? w : je_grow(e, w, 0);
}
/* Room for n bytes and the slack. */
static inline char *je_need(struct je *e, char *w, size_t n)
{
	return likely((ptrdiff_t)n <= e->full - w) ? w : je_grow(e, w, n);
}
/* `before` and `"name":`; leaves 64 bytes free. */
static inline char *je_key(struct je *e, char *w, char before, const struct schema_field *f)
{
	size_t n = f->name.n + 3;

	w = je_check(e, w);
	*w++ = before;
	if (likely(f->json_key && n < JE_KEY_MAX)) {
		memcpy(w, f->json_key, 32);
		for (size_t i = 32; unlikely(i < n); i += 16)
			memcpy(w + i, f->json_key + i, 16);
		return w + n;
	}
	w = je_need(e, w, n);
	*w = '"';
	memcpy(w + 1, f->name.p, f->name.n);
	memcpy(w + 1 + f->name.n, "\":", 2);
	return je_check(e, w + n);
}
/* s quoted and escaped; the slack is there again. */
char *je_string(struct je *e, char *w, struct str s);
/* One value of a kind, laid out as in json_encode. Takes at most 64 bytes of the slack. */
char *je_value(struct je *e, char *w, uint8_t kind, const struct schema_type *type, const void *v);
/* The text of a time, without quotes, at most 48 bytes. t.set must be true. */
char *time_write(char *w, struct api_time t, bool micro);
/* Appends s quoted and escaped as Go's encoding/json does (HTML characters too). */
void json_put_string(struct buf *b, struct str s);
/* Appends a double as Go's encoding/json does; infinities and NaN as null. */
void json_put_double(struct buf *b, double d);
/* The fewest digits (at most 17) that read back as d >= 0: d = digits[0].digits[1].. * 10^exp10. Returns how many. */
unsigned double_digits(double d, char *digits, int *exp10);
/* Appends raw JSON, compacted and HTML-escaped; "null" for empty or invalid text. */
void json_put_raw(struct buf *b, struct str raw);

/* The quantity's canonical text; as quantity_canonical, but points into `text` when that is canonical. False when invalid. */
bool quantity_normal(struct arena *a, struct str text, struct str *out);
/* Offset of the first byte Go's base64 decoder stumbles over, for messages. */
size_t base64_error_offset(struct str text);
/* Why time text (micro: of a MicroTime) is wrong, in Go's words: for messages. */
struct str time_parse_error(struct arena *a, struct str s, bool micro);
/* Adds a problem to a report (deduplicated, at most CODEC_MAX_PROBLEMS); NULL report is ignored. */
void decode_problem(struct decode_report *r, struct str problem);

/* Appends the text of a time, without quotes. t.set must be true. */
void time_put(struct buf *b, struct api_time t, bool micro);
void duration_put(struct buf *b, int64_t ns);

/* pb_decode of what a client sent: JSON within must be such that trees of the whole can hold it. */
struct error *pb_decode_outside(struct arena *a, const struct schema_type *t, struct str in, void *out);
/*
 * A message of fixed shape (FIELD_QUANTITY to FIELD_JSON, FIELD_STRINGS) into its value, as pb_decode does; false when malformed.
 */
bool pb_special(struct arena *a, uint8_t kind, struct str s, void *dst);

/* How many days a month (1 to 12) has. */
static inline int month_days(int year, int month)
{
	static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return days[month - 1] + (month == 2 && ((year % 4 == 0 && year % 100 != 0) || year % 400 == 0));
}

/* What a YAML 1.1 scalar without quotes is, by the rules of sigs.k8s.io/yaml. */
enum yaml_scalar { YAML_STR, YAML_BOOL, YAML_NULL, YAML_INT, YAML_FLOAT, YAML_TIMESTAMP };
struct yaml_value {
	enum yaml_scalar kind;
	bool b, neg;
	uint64_t i; /* magnitude of an integer */
	double d;
};
struct yaml_value yaml_resolve(struct str plain);
/* A double as Go's FormatFloat(d, 'g', -1, 64) prints it. */
void put_double_g(struct buf *b, double d);

#endif
