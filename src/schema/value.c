/* Text forms of values: RFC 3339 times, Go durations, base64; sorted maps. */
#include <stdlib.h>

#include "base/log.h"
#include "schema/codec.h"
#include "schema/codec_internal.h"

#define ZERO_TIME (-62135596800LL) /* 0001-01-01T00:00:00Z, Go's zero time */

/* Days since 1970-01-01 of a proleptic Gregorian date. */
static int64_t days_of(int64_t y, int m, int d)
{
	y -= m <= 2;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t yoe = y - era * 400;
	int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

	return era * 146097 + doe - 719468;
}

static void date_of(int64_t days, int64_t *y, int *m, int *d)
{
	days += 719468;
	int64_t era = (days >= 0 ? days : days - 146096) / 146097;
	int64_t doe = days - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;

	*d = (int)(doy - (153 * mp + 2) / 5 + 1);
	*m = (int)(mp < 10 ? mp + 3 : mp - 9);
	*y = yoe + era * 400 + (*m <= 2);
}

static bool digits(const char *p, int n, int *out)
{
	int v = 0;

	for (int i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		v = v * 10 + (p[i] - '0');
	}
	*out = v;
	return true;
}

/*
 * micro: six digits of a second, neither more nor fewer. On failure *at is where, *elem what was expected there ("" for a value out of range,
 * with *range naming it).
 */
static bool parse_time(struct str s, bool micro, struct api_time *out, size_t *at, const char **elem, const char **range)
{
	static const struct {
		uint8_t len;
		const char *elem;
	} parts[] = {{4, "2006"}, {1, "-"}, {2, "01"}, {1, "-"}, {2, "02"}, {1, "T"}, {2, "15"}, {1, ":"}, {2, "04"}, {1, ":"}, {2, "05"}};
	int v[6], n = 0;
	size_t i = 0;

	*range = NULL;
	for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
		*at = i;
		*elem = parts[k].elem;
		if (s.n - i < parts[k].len)
			return false;
		if (parts[k].len == 1) {
			if (s.p[i] != parts[k].elem[0])
				return false;
		} else if (!digits(s.p + i, parts[k].len, &v[n++])) {
			return false;
		}
		i += parts[k].len;
	}
	int64_t ns = 0;

	if (micro) {
		int us;

		*at = i;
		*elem = ".000000";
		if (s.n - i < 7 || (s.p[i] != '.' && s.p[i] != ',') || !digits(s.p + i + 1, 6, &us))
			return false;
		ns = us * INT64_C(1000);
		i += 7;
	} else if (i + 1 < s.n && (s.p[i] == '.' || s.p[i] == ',') && s.p[i + 1] >= '0' && s.p[i + 1] <= '9') {
		int64_t unit = 100000000;

		for (i++; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++, unit /= 10)
			ns += (s.p[i] - '0') * unit;
	}
	*at = i;
	*elem = "Z07:00";
	int64_t offset = 0;

	if (i < s.n && s.p[i] == 'Z') {
		i++;
	} else {
		int oh, om;

		if (s.n - i < 6 || (s.p[i] != '+' && s.p[i] != '-') || s.p[i + 3] != ':' || !digits(s.p + i + 1, 2, &oh) ||
		    !digits(s.p + i + 4, 2, &om))
			return false;
		if (oh > 24 || om >= 60) {
			*range = oh > 24 ? "time zone offset hour" : "time zone offset minute";
			return false;
		}
		offset = (oh * 60 + om) * 60;
		if (s.p[i] == '-')
			offset = -offset;
		i += 6;
	}
	if (v[1] < 1 || v[1] > 12)
		*range = "month";
	else if (v[2] < 1 || v[2] > month_days(v[0], v[1]))
		*range = "day";
	else if (v[3] > 23)
		*range = "hour";
	else if (v[4] > 59)
		*range = "minute";
	else if (v[5] > 59)
		*range = "second";
	if (*range)
		return false;
	if (i < s.n) {
		*at = i;
		*elem = NULL;
		return false;
	}
	out->s = days_of(v[0], v[1], v[2]) * 86400 + v[3] * 3600 + v[4] * 60 + v[5] - offset;
	out->ns = (int32_t)ns;
	out->set = out->s != ZERO_TIME || ns;
	if (!out->set)
		out->s = 0;
	return true;
}

static bool parse(struct str s, bool micro, struct api_time *out)
{
	size_t at;
	const char *elem, *range;
	struct api_time t;

	if (!parse_time(s, micro, &t, &at, &elem, &range))
		return false;
	*out = t;
	return true;
}

bool time_parse(struct str s, struct api_time *out)
{
	return parse(s, false, out);
}

bool time_parse_micro(struct str s, struct api_time *out)
{
	return parse(s, true, out);
}

struct str time_parse_error(struct arena *a, struct str s, bool micro)
{
	size_t at;
	const char *elem, *range;
	struct api_time t;
	struct str shown = str_sub(s, 0, 256);

	if (parse_time(s, micro, &t, &at, &elem, &range))
		return STR_NULL;
	if (range)
		return arena_printf(a, "parsing time \"%.*s\": %s out of range", STR_ARG(shown), range);
	struct str rest = str_sub(str_sub(s, at, s.n), 0, 256);

	if (!elem)
		return arena_printf(a, "parsing time \"%.*s\": extra text: \"%.*s\"", STR_ARG(shown), STR_ARG(rest));
	return arena_printf(a, "parsing time \"%.*s\" as \"%s\": cannot parse \"%.*s\" as \"%s\"", STR_ARG(shown),
			    micro ? LAYOUT_MICRO : LAYOUT_RFC3339, STR_ARG(rest), elem);
}

static char *put_digits(char *p, int n, int64_t v)
{
	for (int i = n - 1; i >= 0; i--, v /= 10)
		p[i] = (char)('0' + v % 10);
	return p + n;
}

char *time_write(char *p, struct api_time t, bool micro)
{
	int64_t days = t.s / 86400, sec = t.s % 86400, y;
	int m, d;

	if (sec < 0) {
		sec += 86400;
		days--;
	}
	date_of(days, &y, &m, &d);
	if (y < 0 || y > 9999) {
		/* Outside RFC 3339, as Go prints it: sign and as many digits as it takes. */
		int n = y < 0 ? 1 : 0;
		int64_t abs = y < 0 ? -y : y;
		int len = 4;

		for (int64_t x = abs / 10000; x; x /= 10)
			len++;
		if (n)
			*p++ = '-';
		p = put_digits(p, len, abs);
	} else {
		p = put_digits(p, 4, y);
	}
	*p++ = '-';
	p = put_digits(p, 2, m);
	*p++ = '-';
	p = put_digits(p, 2, d);
	*p++ = 'T';
	p = put_digits(p, 2, sec / 3600);
	*p++ = ':';
	p = put_digits(p, 2, sec / 60 % 60);
	*p++ = ':';
	p = put_digits(p, 2, sec % 60);
	if (micro) {
		*p++ = '.';
		p = put_digits(p, 6, t.ns / 1000);
	}
	*p++ = 'Z';
	return p;
}

void time_put(struct buf *b, struct api_time t, bool micro)
{
	char tmp[48];

	buf_append(b, tmp, (size_t)(time_write(tmp, t, micro) - tmp));
}

static struct str arena_take(struct arena *a, struct buf *b)
{
	struct str s = arena_str(a, buf_view(b));

	buf_free(b);
	return s;
}

struct str time_format(struct arena *a, struct api_time t, bool micro)
{
	struct buf b = {0};

	if (!t.set)
		t = (struct api_time){.s = ZERO_TIME};
	time_put(&b, t, micro);
	return arena_take(a, &b);
}

bool duration_parse(struct str s, int64_t *ns)
{
	size_t i = 0;
	bool neg = false;
	uint64_t total = 0;
	const uint64_t limit = 1ULL << 63;

	if (s.n && (s.p[0] == '-' || s.p[0] == '+')) {
		neg = s.p[0] == '-';
		i++;
	}
	if (s.n - i == 1 && s.p[i] == '0') {
		*ns = 0;
		return true;
	}
	if (i == s.n)
		return false;
	while (i < s.n) {
		uint64_t v = 0, f = 0;
		double scale = 1;
		bool any = false, f_full = false;

		for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) {
			any = true;
			if (v > limit / 10)
				return false;
			v = v * 10 + (uint64_t)(s.p[i] - '0');
			if (v > limit)
				return false;
		}
		if (i < s.n && s.p[i] == '.') {
			for (i++; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) {
				any = true;
				if (f_full)
					continue;
				if (f > (limit - 1) / 10 || f * 10 + (uint64_t)(s.p[i] - '0') > limit) {
					f_full = true;
					continue;
				}
				f = f * 10 + (uint64_t)(s.p[i] - '0');
				scale *= 10;
			}
		}
		if (!any)
			return false;
		size_t from = i;

		while (i < s.n && s.p[i] != '.' && (s.p[i] < '0' || s.p[i] > '9'))
			i++;
		struct str unit = str_sub(s, from, i);
		uint64_t mul;

		if (str_eqz(unit, "ns"))
			mul = 1;
		else if (str_eqz(unit, "us") || str_eqz(unit, "\xc2\xb5s") || str_eqz(unit, "\xce\xbcs"))
			mul = 1000;
		else if (str_eqz(unit, "ms"))
			mul = 1000000;
		else if (str_eqz(unit, "s"))
			mul = 1000000000;
		else if (str_eqz(unit, "m"))
			mul = 60000000000;
		else if (str_eqz(unit, "h"))
			mul = 3600000000000;
		else
			return false;
		if (v > limit / mul)
			return false;
		v *= mul;
		if (f > 0) {
			v += (uint64_t)((double)f * ((double)mul / scale));
			if (v > limit)
				return false;
		}
		total += v;
		if (total > limit)
			return false;
	}
	if (!neg && total > limit - 1)
		return false;
	*ns = neg ? (int64_t)(0 - total) : (int64_t)total;
	return true;
}

void duration_put(struct buf *b, int64_t ns)
{
	char tmp[40];
	size_t w = sizeof tmp;
	uint64_t u = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
	int prec = 0;

	if (ns == 0) {
		buf_puts(b, "0s");
		return;
	}
	tmp[--w] = 's';
	if (u < 1000000000) {
		if (u < 1000) {
			tmp[--w] = 'n';
		} else if (u < 1000000) {
			prec = 3;
			tmp[--w] = (char)0xb5;
			tmp[--w] = (char)0xc2;
		} else {
			prec = 6;
			tmp[--w] = 'm';
		}
	} else {
		prec = 9;
	}
	bool print = false;

	for (int i = 0; i < prec; i++, u /= 10) {
		print = print || u % 10;
		if (print)
			tmp[--w] = (char)('0' + u % 10);
	}
	if (print)
		tmp[--w] = '.';
	if (prec < 9) {
		do {
			tmp[--w] = (char)('0' + u % 10);
			u /= 10;
		} while (u);
	} else {
		uint64_t part[3] = {u % 60, u / 60 % 60, u / 3600};
		int n = u >= 3600 ? 3 : u >= 60 ? 2 : 1;

		for (int i = 0; i < n; i++) {
			if (i)
				tmp[--w] = i == 1 ? 'm' : 'h';
			uint64_t x = part[i];

			do {
				tmp[--w] = (char)('0' + x % 10);
				x /= 10;
			} while (x);
		}
	}
	if (ns < 0)
		tmp[--w] = '-';
	buf_append(b, tmp + w, sizeof tmp - w);
}

struct str duration_format(struct arena *a, int64_t ns)
{
	struct buf b = {0};

	duration_put(&b, ns);
	return arena_take(a, &b);
}

void base64_encode(struct buf *b, struct str s)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t i = 0;

	if (!b->limit)
		buf_reserve(b, (s.n + 2) / 3 * 4);
	for (; i + 3 <= s.n; i += 3) {
		uint32_t v = (uint32_t)(uint8_t)s.p[i] << 16 | (uint32_t)(uint8_t)s.p[i + 1] << 8 | (uint8_t)s.p[i + 2];
		char q[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], alphabet[v >> 6 & 63], alphabet[v & 63]};

		buf_append(b, q, 4);
	}
	if (i < s.n) {
		bool two = s.n - i == 2;
		uint32_t v = (uint32_t)(uint8_t)s.p[i] << 16 | (two ? (uint32_t)(uint8_t)s.p[i + 1] << 8 : 0);
		char q[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], two ? alphabet[v >> 6 & 63] : '=', '='};

		buf_append(b, q, 4);
	}
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct arena *a, struct str text, struct str *out)
{
	char *to = arena_bytes(a, text.n / 4 * 3 + 4);
	size_t n = 0, i = 0;

	/* As Go's StdEncoding: line ends are skipped, padding is required, trailing bits are not checked. */
	for (;;) {
		uint32_t v = 0;
		int k = 0, pad = 0;

		while (i < text.n && k + pad < 4) {
			char c = text.p[i++];

			if (c == '\n' || c == '\r')
				continue;
			if (c == '=' && k >= 2) {
				pad++;
				continue;
			}
			int d = base64_digit(c);

			if (d < 0 || pad)
				return false;
			v = v << 6 | (uint32_t)d;
			k++;
		}
		if (k + pad == 0)
			break;
		if (k + pad < 4)
			return false;
		v <<= 6 * pad;
		to[n++] = (char)(v >> 16);
		if (pad < 2)
			to[n++] = (char)(v >> 8);
		if (pad < 1)
			to[n++] = (char)v;
		if (pad) {
			for (; i < text.n; i++)
				if (text.p[i] != '\n' && text.p[i] != '\r')
					return false;
			break;
		}
	}
	*out = str_of(to, n);
	return true;
}

size_t base64_error_offset(struct str text)
{
	int k = 0;

	for (size_t i = 0; i < text.n; i++) {
		char c = text.p[i];

		if (c == '\n' || c == '\r' || (c == '=' && k % 4 >= 2))
			continue;
		if (base64_digit(c) < 0)
			return i;
		k++;
	}
	return text.n - text.n % 4;
}

bool map_is_sorted(const struct raw_list *l, size_t elem)
{
	for (uint32_t i = 1; i < l->n; i++) {
		const struct str *x = (const void *)(l->v + (i - 1) * elem), *y = (const void *)(l->v + i * elem);

		if (str_cmp(*x, *y) >= 0)
			return false;
	}
	return true;
}

static int key_order(const void *x, const void *y)
{
	const struct str *const *kx = x, *const *ky = y;
	int c = str_cmp(**kx, **ky);

	return c ? c : (*kx > *ky) - (*kx < *ky);
}

void map_sort(struct raw_list *l, size_t elem)
{
	if (map_is_sorted(l, elem))
		return;
	const struct str **at = xmalloc(l->n * sizeof *at);
	char *copy = xmalloc(l->n * elem);

	memcpy(copy, l->v, l->n * elem);
	for (uint32_t i = 0; i < l->n; i++)
		at[i] = (const void *)(copy + i * elem);
	qsort(at, l->n, sizeof *at, key_order);
	uint32_t n = 0;

	for (uint32_t i = 0; i < l->n; i++) {
		if (i + 1 < l->n && str_eq(*at[i], *at[i + 1]))
			continue; /* a later one with this key follows */
		memcpy(l->v + n++ * elem, at[i], elem);
	}
	l->n = n;
	free(at);
	free(copy);
}
