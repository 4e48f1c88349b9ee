/* What YAML's plain scalars mean: YAML 1.1 as sigs.k8s.io/yaml and its goyaml.v2 read it. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "schema/codec_internal.h"

static bool one_of(struct str s, const char *const *words)
{
	for (; *words; words++)
		if (str_eqz(s, *words))
			return true;
	return false;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Go's ParseInt/ParseUint with base 0. */
static bool parse_int(struct str s, struct yaml_value *v)
{
	unsigned base = 10;
	bool sign = false;

	v->neg = false;
	if (s.n && (s.p[0] == '-' || s.p[0] == '+')) {
		sign = true;
		v->neg = s.p[0] == '-';
		s = str_sub(s, 1, s.n);
	}
	if (!s.n)
		return false;
	if (s.p[0] == '0') {
		char c = s.n >= 3 ? s.p[1] | 0x20 : 0;

		base = c == 'b' ? 2 : c == 'o' ? 8 : c == 'x' ? 16 : 8;
		s = str_sub(s, base == 8 && c != 'o' ? 1 : 2, s.n);
	}
	uint64_t i = 0;

	for (size_t k = 0; k < s.n; k++) {
		char c = s.p[k] | 0x20;
		unsigned d = is_digit(s.p[k]) ? (unsigned)(s.p[k] - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 99;

		if (d >= base || __builtin_mul_overflow(i, base, &i) || __builtin_add_overflow(i, d, &i))
			return false;
	}
	/* Only int64 has a sign; without one, uint64 is tried too. */
	if (sign && i > (uint64_t)INT64_MAX + (v->neg ? 1 : 0))
		return false;
	v->i = i;
	return true;
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool parse_float(struct str s, double *d)
{
	size_t i = 0, whole, frac = 0;
	char tmp[512];

	if (i < s.n && (s.p[i] == '-' || s.p[i] == '+'))
		i++;
	whole = i;
	while (i < s.n && is_digit(s.p[i]))
		i++;
	whole = i - whole;
	if (i < s.n && s.p[i] == '.') {
		frac = ++i;
		while (i < s.n && is_digit(s.p[i]))
			i++;
		frac = i - frac;
	}
	if (!whole && !frac)
		return false;
	if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
		i++;
		if (i < s.n && (s.p[i] == '-' || s.p[i] == '+'))
			i++;
		size_t from = i;

		while (i < s.n && is_digit(s.p[i]))
			i++;
		if (i == from)
			return false;
	}
	if (i != s.n || s.n >= sizeof tmp)
		return false; /* a number of over 500 characters stays a string */
	memcpy(tmp, s.p, s.n);
	tmp[s.n] = 0;
	*d = strtod(tmp, NULL);
	return isfinite(*d);
}

/* A number of at most `max` digits, up to `most`. */
static bool take_number(struct str s, size_t *i, size_t max, int most, int *v)
{
	size_t from = *i;

	for (*v = 0; *i < s.n && *i - from < max && is_digit(s.p[*i]); ++*i)
		*v = *v * 10 + (s.p[*i] - '0');
	return *i > from && *v <= most;
}

static bool eat(struct str s, size_t *i, const char *set)
{
	if (*i < s.n && strchr(set, s.p[*i]) && s.p[*i]) {
		++*i;
		return true;
	}
	return false;
}

/* A day that there is, alone or with a time of it; the zone has two digits each. */
static bool is_timestamp(struct str s)
{
	size_t i = 0;
	int y, m, d, v;

	if (s.n < 8 || !take_number(s, &i, 4, 9999, &y) || i != 4 || !eat(s, &i, "-") || !take_number(s, &i, 2, 12, &m) || !m ||
	    !eat(s, &i, "-") || !take_number(s, &i, 2, 31, &d))
		return false;
	if (!d || d > month_days(y, m))
		return false;
	if (i == s.n)
		return true;
	bool zone = s.p[i] != ' ';

	if (!eat(s, &i, "Tt ") || !take_number(s, &i, 2, 23, &v) || !eat(s, &i, ":") || !take_number(s, &i, 2, 59, &v) ||
	    !eat(s, &i, ":") || !take_number(s, &i, 2, 59, &v))
		return false;
	if (i + 1 < s.n && is_digit(s.p[i + 1]) && eat(s, &i, ".,"))
		while (i < s.n && is_digit(s.p[i]))
			i++;
	if (!zone || eat(s, &i, "Z"))
		return i == s.n;
	return i + 6 == s.n && s.p[i + 3] == ':' && eat(s, &i, "+-") && take_number(s, &i, 2, 24, &v) && eat(s, &i, ":") &&
	       take_number(s, &i, 2, 60, &v) && i == s.n;
}

struct yaml_value yaml_resolve(struct str s)
{
	static const char *const yes[] = {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", NULL};
	static const char *const no[] = {"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", NULL};
	static const char *const null[] = {"~", "null", "Null", "NULL", NULL};
	static const char *const nan_[] = {".nan", ".NaN", ".NAN", NULL};
	static const char *const inf[] = {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", NULL};
	static const char *const neg_inf[] = {"-.inf", "-.Inf", "-.INF", NULL};
	struct yaml_value v = {.kind = YAML_STR};

	if (!s.n) {
		v.kind = YAML_NULL;
		return v;
	}
	char c = s.p[0];

	if (strchr("yYnNtTfFoO~", c) && c) {
		if (s.n <= 5) {
			if (one_of(s, yes))
				v = (struct yaml_value){.kind = YAML_BOOL, .b = true};
			else if (one_of(s, no))
				v = (struct yaml_value){.kind = YAML_BOOL};
			else if (one_of(s, null))
				v.kind = YAML_NULL;
		}
		return v;
	}
	if (c == '.' || c == '+' || c == '-') {
		if (one_of(s, nan_))
			v = (struct yaml_value){.kind = YAML_FLOAT, .d = NAN};
		else if (one_of(s, inf))
			v = (struct yaml_value){.kind = YAML_FLOAT, .d = INFINITY};
		else if (one_of(s, neg_inf))
			v = (struct yaml_value){.kind = YAML_FLOAT, .d = -INFINITY};
		if (v.kind == YAML_FLOAT)
			return v;
	}
	if (c == '.') {
		if (parse_float(s, &v.d))
			v.kind = YAML_FLOAT;
		return v;
	}
	if (!is_digit(c) && c != '+' && c != '-')
		return v;
	if (is_timestamp(s)) {
		v.kind = YAML_TIMESTAMP;
		return v;
	}
	char plain[512];
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '_')
			continue;
		if (n == sizeof plain)
			return v;
		plain[n++] = s.p[i];
	}
	struct str t = str_of(plain, n);

	if (parse_int(t, &v))
		v.kind = YAML_INT;
	else if (parse_float(t, &v.d))
		v.kind = YAML_FLOAT;
	return v;
}

void put_double_g(struct buf *b, double d)
{
	char digits[20];
	int e;

	if (isnan(d) || isinf(d)) {
		buf_puts(b, isnan(d) ? ".nan" : d < 0 ? "-.inf" : ".inf");
		return;
	}
	unsigned n = double_digits(fabs(d), digits, &e);

	if (d == 0 || (e >= -4 && e < 6)) {
		json_put_double(b, d);
		return;
	}
	if (d < 0)
		buf_putc(b, '-');
	buf_putc(b, digits[0]);
	if (n > 1) {
		buf_putc(b, '.');
		buf_append(b, digits + 1, n - 1);
	}
	buf_printf(b, "e%c%02d", e < 0 ? '-' : '+', e < 0 ? -e : e);
}
