/*
 * Quantities: sign, digits, scale; rules of precision, rounding and canonical form
 * are those of k8s.io/apimachinery/pkg/api/resource.
 */
#include <stdio.h>
#include <stdlib.h>

#include "schema/codec_internal.h"
#include "schema/quantity.h"

#define MAX_TEXT 1000     /* longer texts are refused */
#define PAD 20
#define MAX_EXPONENT 1000 /* so are larger decimal exponents */

typedef unsigned __int128 u128;

enum format { DECIMAL_SI, BINARY_SI, DECIMAL_EXPONENT };

struct quantity { /* (neg ? -1 : 1) * m * 10^scale; m < 2^117 as parsed */
	u128 m;
	int32_t scale;
	bool neg;
	bool keep; /* upstream keeps the text as it is written */
	bool small; /* upstream has it in an int64 */
	uint8_t format;
};

static const struct {
	char text[3];
	uint8_t base;
	int8_t exponent;
} suffixes[] = {
	{"Ki", 2, 10}, {"Mi", 2, 20}, {"Gi", 2, 30}, {"Ti", 2, 40}, {"Pi", 2, 50}, {"Ei", 2, 60},
	{"n", 10, -9}, {"u", 10, -6}, {"m", 10, -3}, {"", 10, 0}, {"k", 10, 3}, {"M", 10, 6},
	{"G", 10, 9}, {"T", 10, 12}, {"P", 10, 15}, {"E", 10, 18},
};

static const u128 max_nano = (u128)INT64_MAX * 1000000000u; /* binary ones are capped there */
static const u128 max_decimal = (u128)1 << 116;              /* 8.3e25 units; upstream has no limit */

/* 0: ok; 1: not a quantity; 2: bad suffix; 3: not representable here. */
enum parsed { PARSED, BAD_FORMAT, BAD_SUFFIX, BAD_NUMERIC };

static bool suffix_of(struct str s, int *base, int *exponent, enum format *format)
{
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
		if (str_eqz(s, suffixes[i].text)) {
			*base = suffixes[i].base;
			*exponent = suffixes[i].exponent;
			*format = *base == 2 ? BINARY_SI : DECIMAL_SI;
			return true;
		}
	if (s.n < 2 || (s.p[0] != 'e' && s.p[0] != 'E'))
		return false;
	struct str digits = str_sub(s, 1, s.n);
	int64_t e;

	if (digits.p[0] == '+')
		digits = str_sub(digits, 1, digits.n);
	if (!digits.n || !str_to_i64(digits, &e) || e > MAX_EXPONENT || e < -MAX_EXPONENT)
		return false;
	*base = 10;
	*exponent = (int)e;
	*format = DECIMAL_EXPONENT;
	return true;
}

/* Whole value of the digits as nano units, away from zero; more than max gives max. point: digits before the decimal point. */
static u128 to_nano(const uint8_t *digit, int n, int point, u128 max)
{
	u128 v = 0;
	int upto = point + 9;

	for (int i = 0; i < upto; i++) {
		/* Zeros before the first digit, and after the last. */
		v = v * 10 + (i < n ? digit[i] : 0);
		if (v > max)
			return max;
	}
	for (int i = upto < 0 ? 0 : upto; i < n; i++)
		if (digit[i]) {
			v++;
			break;
		}
	return v > max ? max : v;
}

/* Canonical text would need an exponent that is not read again. */
static bool beyond(const struct quantity *q)
{
	u128 m = q->m;
	int scale = q->scale;

	if (scale <= MAX_EXPONENT - 40)
		return false;
	for (; m && m % 10 == 0; m /= 10)
		scale++;
	return scale > MAX_EXPONENT;
}

static enum parsed parse(struct str s, struct quantity *q)
{
	*q = (struct quantity){0};
	if (!s.n || s.n > MAX_TEXT)
		return BAD_FORMAT;
	size_t i = 0;

	if (s.p[0] == '-' || s.p[0] == '+') {
		q->neg = s.p[0] == '-';
		i++;
	}
	size_t num = i;

	while (i < s.n && s.p[i] == '0')
		i++; /* leading zeros do not count as digits */

	num = i;
	while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
		i++;
	size_t num_n = i - num, denom = i, denom_n = 0;

	if (i < s.n && s.p[i] == '.') {
		denom = ++i;
		while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
			i++;
		denom_n = i - denom;
	}
	size_t suffix = i;

	while (i < s.n && memchr("eEinumkKMGTP", s.p[i], 12))
		i++;
	if (i < s.n && (s.p[i] == '-' || s.p[i] == '+'))
		i++;
	while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
		i++;
	if (i != s.n)
		return BAD_FORMAT;
	int base, exponent;
	enum format format;

	if (!suffix_of(str_sub(s, suffix, s.n), &base, &exponent, &format))
		return BAD_SUFFIX;
	uint8_t digit[MAX_TEXT + 32]; /* the whole digits behind PAD zeros; a factor of 2^60 adds 19 digits */
	uint8_t *d = digit + PAD;

	memset(digit, 0, PAD + 1);
	for (size_t k = 0; k < num_n; k++)
		d[k] = (uint8_t)(s.p[num + k] - '0');
	if (!num_n)
		num_n = 1; /* one zero; upstream takes no digits at all for it, too */
	for (size_t k = 0; k < denom_n; k++)
		d[num_n + k] = (uint8_t)(s.p[denom + k] - '0');

	/* Few digits are kept exactly as written, whatever their scale; others are rounded up to nano. */
	int precision, scale = 0, n = (int)(num_n + denom_n), point = (int)num_n;
	uint64_t mantissa = 1;

	if (base == 10) {
		scale = exponent;
		precision = 18 - n;
	} else if (denom_n) {
		precision = -1;
	} else {
		mantissa = 1ULL << exponent;
		precision = 15 - n - exponent * 3 / 10 - 1;
	}
	q->format = (uint8_t)format;
	if (precision >= 0 && scale - (int)denom_n >= -9) {
		uint64_t v = 0;

		for (int k = 0; k < n; k++)
			v = v * 10 + d[k];
		if (!__builtin_mul_overflow(v, mantissa, &v) && v <= INT64_MAX) {
			q->m = v;
			q->small = true;
			q->scale = scale - (int)denom_n;
			if (format == BINARY_SI)
				q->keep = v / mantissa & 7;
			else
				q->keep = q->scale % 3 == 0 && d[0] && !(n >= 3 && !d[n - 1] && !d[n - 2] && !d[n - 3]);
			return beyond(q) ? BAD_NUMERIC : PARSED;
		}
	}
	if (base == 10) {
		/* Without trailing zeros; as written when no rounding is asked for. */
		while (n > 1 && !d[n - 1])
			n--;
		if (n <= 34 && n - point <= 9 + scale) {
			for (int k = 0; k < n; k++)
				q->m = q->m * 10 + d[k];
			q->scale = scale - (n - point);
			/* Without an exponent all beyond exa must be digits again. */
			return (format == DECIMAL_SI && n + q->scale - 18 > 34) || beyond(q) ? BAD_NUMERIC : PARSED;
		}
		q->m = to_nano(d, n, point + exponent, max_decimal);
		if (q->m == max_decimal)
			return BAD_NUMERIC;
	} else {
		n += PAD;
		point += PAD;
		for (int e = 0; e < exponent; e += 10) {
			unsigned carry = 0;

			for (int k = n - 1; k >= 0; k--) {
				carry += digit[k] * 1024u;
				digit[k] = (uint8_t)(carry % 10);
				carry /= 10;
			}
		}
		q->m = to_nano(digit, n, point, max_nano);
	}
	q->scale = -9;
	if (format == BINARY_SI && q->m && q->m < 1000000000u)
		q->format = DECIMAL_SI;
	return PARSED;
}

/* m * 10^by, saturating at 2^120. */
static u128 scale_up(u128 m, int by)
{
	for (; by > 0 && m; by--) {
		if (m >> 116)
			return (u128)1 << 120;
		m *= 10;
	}
	return m;
}

static size_t print_u128(char *to, u128 v)
{
	char tmp[40];
	size_t n = 0;

	do {
		tmp[n++] = (char)('0' + (int)(v % 10));
		v /= 10;
	} while (v);
	for (size_t i = 0; i < n; i++)
		to[i] = tmp[n - 1 - i];
	return n;
}

/* Canonical text; at most 64 bytes. */
static size_t print(char *to, struct quantity q)
{
	size_t n = 0;

	if (!q.m) {
		to[0] = '0';
		return 1;
	}
	u128 m = q.m;
	int scale = q.scale;

	while (m % 10 == 0) {
		m /= 10;
		scale++;
	}
	if (q.neg)
		to[n++] = '-';
	if (q.format == BINARY_SI) {
		u128 v = scale >= 0 ? scale_up(m, scale) : 0;

		/* Fractions, and less than 1024, are shown decimal. */
		if (scale >= 0 && v >= 1024 && v < (u128)1 << 120) {
			unsigned k = 0;

			while (v % 1024 == 0 && k < 6) {
				v /= 1024;
				k++;
			}
			n += print_u128(to + n, v);
			if (k) {
				to[n++] = "KMGTPE"[k - 1];
				to[n++] = 'i';
			}
			return n;
		}
		q.format = DECIMAL_SI;
	}
	while (scale % 3) {
		m *= 10;
		scale--;
	}
	for (; q.format == DECIMAL_SI && scale > 18 && !(m >> 116); scale--)
		m *= 10; /* there is no suffix beyond exa */
	n += print_u128(to + n, m);
	if (q.format == DECIMAL_EXPONENT) {
		if (scale)
			n += (size_t)snprintf(to + n, 16, "e%d", scale);
		return n;
	}
	if (scale >= -9 && scale <= 18 && scale)
		to[n++] = "num kMGTPE"[scale / 3 + 3];
	return n;
}

static const char *message_of(enum parsed r)
{
	return r == BAD_SUFFIX ? "unable to parse quantity's suffix" : r == BAD_NUMERIC ? "unable to parse numeric part of quantity"
											   : QUANTITY_REGEX_ERROR;
}

/* By far the most texts: up to four digits and a suffix, kept as they are. False says nothing. */
static bool is_plain(struct str s)
{
	unsigned v = 0;
	size_t i = 0;

	if (!s.n || s.n > 6 || s.p[0] < '1' || s.p[0] > '9')
		return s.n == 1 && s.p[0] == '0';
	for (; i < s.n && i < 4 && s.p[i] >= '0' && s.p[i] <= '9'; i++)
		v = v * 10 + (unsigned)(s.p[i] - '0');
	if (i == s.n)
		return v % 1000 != 0;
	if (s.n == i + 1)
		return v % 1000 != 0 && (s.p[i] == 'm' || s.p[i] == 'k' || s.p[i] == 'M' || s.p[i] == 'G');
	return s.n == i + 2 && s.p[i + 1] == 'i' && v % 1024 != 0 &&
	       (s.p[i] == 'K' || s.p[i] == 'M' || s.p[i] == 'G' || s.p[i] == 'T');
}

bool quantity_normal(struct arena *a, struct str text, struct str *out)
{
	struct quantity q;
	char tmp[64];

	if (is_plain(text)) {
		*out = text;
		return true;
	}
	if (parse(text, &q) != PARSED)
		return false;
	if (q.keep) {
		*out = text;
		return true;
	}
	size_t n = print(tmp, q);

	*out = n == text.n && memcmp(tmp, text.p, n) == 0 ? text : arena_str(a, str_of(tmp, n));
	return true;
}

struct error *quantity_canonical(struct arena *a, struct str text, struct str *out)
{
	struct quantity q;
	char tmp[64];
	enum parsed r = parse(text, &q);

	if (r != PARSED)
		return error_status(400, "BadRequest", "%s", message_of(r));
	*out = arena_str(a, q.keep ? text : str_of(tmp, print(tmp, q)));
	return NULL;
}

/* Units of 10^-digits, rounded away from zero, saturated. */
static int64_t value_at(struct str text, int digits)
{
	struct quantity q;

	if (parse(text, &q) != PARSED)
		return 0;
	int shift = q.scale + digits;
	u128 v = q.m;

	if (shift >= 0) {
		v = scale_up(v, shift);
	} else {
		bool rest = false;

		for (; shift < 0 && v; shift++) {
			rest |= v % 10 != 0;
			v /= 10;
		}
		v += rest;
	}
	if (v > INT64_MAX)
		return q.neg ? INT64_MIN : INT64_MAX;
	return q.neg ? -(int64_t)v : (int64_t)v;
}

int64_t quantity_value(struct str q)
{
	return value_at(q, 0);
}

int64_t quantity_milli(struct str q)
{
	return value_at(q, 3);
}

bool quantity_whole(struct str text)
{
	struct quantity q;
	int up;
	uint64_t wrapped;

	if (parse(text, &q) != PARSED)
		return true;
	for (; q.scale < 0 && q.m && q.m % 10 == 0; q.scale++)
		q.m /= 10;
	up = q.scale + 3;
	if (up < 0)
		return value_at(text, 3) % 1000 == 0;
	if (scale_up(q.m, up) <= INT64_MAX)
		return scale_up(q.m, up) % 1000 == 0;
	/* upstream's small integers: scaled in one step by some powers of ten, else step by step until that overflows, which gives 0 */
	if (q.m <= INT64_MAX && q.small && up > 3 && up != 6 && up != 9)
		return true;
	wrapped = (uint64_t)q.m;
	for (int i = 0; i < up; i++)
		wrapped *= 10;
	return (int64_t)(q.neg ? 0 - wrapped : wrapped) % 1000 == 0;
}

struct str quantity_round_milli(struct arena *a, struct str text)
{
	struct quantity q;
	char tmp[64];
	bool rest = false;

	if (parse(text, &q) != PARSED)
		return text;
	for (; q.scale < -3; q.scale++) {
		rest |= q.m % 10 != 0;
		q.m /= 10;
	}
	q.m += rest;
	return arena_str(a, str_of(tmp, print(tmp, q)));
}

/* Brings two to one scale. A value beyond 2^120 of the smaller scale saturates. */
static void align(struct quantity *x, struct quantity *y)
{
	if (!x->m)
		x->scale = y->scale;
	if (!y->m)
		y->scale = x->scale;
	if (x->scale > y->scale) {
		x->m = scale_up(x->m, x->scale - y->scale);
		x->scale = y->scale;
	} else {
		y->m = scale_up(y->m, y->scale - x->scale);
		y->scale = x->scale;
	}
}

int quantity_cmp(struct str a, struct str b)
{
	struct quantity x, y;

	/* Invalid text counts as 0, as in quantity_value. */
	if (parse(a, &x) != PARSED)
		x = (struct quantity){0};
	if (parse(b, &y) != PARSED)
		y = (struct quantity){0};
	align(&x, &y);
	bool xn = x.neg && x.m, yn = y.neg && y.m;

	if (xn != yn)
		return xn ? -1 : 1;
	int c = (x.m > y.m) - (x.m < y.m);

	return xn ? -c : c;
}

static struct str add(struct arena *a, struct str x, struct str y, bool negate)
{
	struct quantity p, q;
	char tmp[64];

	if (parse(x, &p) != PARSED)
		p = (struct quantity){0};
	if (parse(y, &q) != PARSED)
		q = (struct quantity){0};
	if (negate)
		q.neg = !q.neg;
	if (!p.m)
		p.format = q.format;
	align(&p, &q);
	if (p.neg == q.neg) {
		p.m += q.m;
	} else if (p.m >= q.m) {
		p.m -= q.m;
	} else {
		p.m = q.m - p.m;
		p.neg = q.neg;
	}
	return arena_str(a, str_of(tmp, print(tmp, p)));
}

struct str quantity_add(struct arena *a, struct str x, struct str y)
{
	return add(a, x, y, false);
}

struct str quantity_sub(struct arena *a, struct str x, struct str y)
{
	return add(a, x, y, true);
}

static struct str from(struct arena *a, int64_t n, int32_t scale, enum format format)
{
	struct quantity q = {.m = n < 0 ? 0 - (uint64_t)n : (uint64_t)n, .scale = scale, .neg = n < 0, .format = (uint8_t)format};
	char tmp[64];

	return arena_str(a, str_of(tmp, print(tmp, q)));
}

struct str quantity_from(struct arena *a, int64_t n, bool binary)
{
	return from(a, n, 0, binary ? BINARY_SI : DECIMAL_SI);
}

struct str quantity_from_milli(struct arena *a, int64_t milli)
{
	return from(a, milli, -3, DECIMAL_SI);
}
