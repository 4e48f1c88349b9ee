/* Timestamps, durations, time zones, and numbers as Go writes them. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <strings.h>
#include "base/log.h"
#include "base/map.h"
#include "cel/lib.h"

#define MIN_SECONDS (-62135596800ll)
#define MAX_SECONDS 253402300799ll
#define ZONE_FILE_MAX (256 * 1024)
#define ZONES_MAX 1024

bool cel_timestamp_ok(int64_t s)
{
	return s >= MIN_SECONDS && s <= MAX_SECONDS;
}

static bool two_digits(struct str s, size_t at, int *out)
{
	if (at + 2 > s.n || s.p[at] < '0' || s.p[at] > '9' || s.p[at + 1] < '0' || s.p[at + 1] > '9')
		return false;
	*out = (s.p[at] - '0') * 10 + s.p[at + 1] - '0';
	return true;
}

bool cel_parse_timestamp(struct str s, struct cel_value *out)
{
	struct api_time t;
	int h, m, offset = 0;

	if (!time_parse(s, &t))
		return false;
	if (!t.set) /* Go's zero time: the year 1 */
		t.s = MIN_SECONDS;
	if (!cel_timestamp_ok(t.s))
		return false;
	if (s.n > 6 && (s.p[s.n - 6] == '+' || s.p[s.n - 6] == '-') && two_digits(s, s.n - 5, &h) && two_digits(s, s.n - 2, &m))
		offset = (h * 3600 + m * 60) * (s.p[s.n - 6] == '-' ? -1 : 1);
	*out = cel_timestamp(t.s, t.ns);
	out->offset = offset;
	return true;
}

bool cel_parse_duration(struct str s, int64_t *ns)
{
	return duration_parse(s, ns);
}

struct civil {
	int64_t year;
	int month, day, hour, minute, second, weekday, yearday; /* month, day from 1 */
};

static struct civil civil_of(int64_t s)
{
	int64_t days = s / 86400, rem = s % 86400, z, era, doe, yoe, doy, mp;
	static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	struct civil c;
	bool leap;

	if (rem < 0) {
		rem += 86400;
		days--;
	}
	c.hour = (int)(rem / 3600);
	c.minute = (int)(rem / 60 % 60);
	c.second = (int)(rem % 60);
	c.weekday = (int)((days % 7 + 11) % 7);
	z = days + 719468;
	era = (z >= 0 ? z : z - 146096) / 146097;
	doe = z - era * 146097;
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	c.day = (int)(doy - (153 * mp + 2) / 5 + 1);
	c.month = (int)(mp < 10 ? mp + 3 : mp - 9);
	c.year = yoe + era * 400 + (c.month <= 2);
	leap = (c.year % 4 == 0 && c.year % 100 != 0) || c.year % 400 == 0;
	c.yearday = before[c.month - 1] + c.day + (leap && c.month > 2);
	return c;
}

struct str cel_timestamp_text(struct arena *a, struct cel_value t)
{
	struct civil c = civil_of(t.i + t.offset);
	char frac[16] = "", zone[8] = "Z";
	int o = t.offset < 0 ? -t.offset : t.offset;

	if (t.ns) {
		int n = snprintf(frac, sizeof frac, ".%09d", t.ns);

		while (n > 1 && frac[n - 1] == '0')
			frac[--n] = 0;
	}
	if (t.offset)
		snprintf(zone, sizeof zone, "%c%02d:%02d", t.offset < 0 ? '-' : '+', o / 3600 % 100, o / 60 % 60);
	return arena_printf(a, "%04lld-%02d-%02dT%02d:%02d:%02d%s%s", (long long)c.year, c.month, c.day, c.hour, c.minute, c.second, frac, zone);
}

/* Shortest digits that read back as d: "d.ddde[+-]xx" cut apart. */
static int shortest(double d, char *digits, int *exp)
{
	char text[40];

	for (int p = 0; p <= 17; p++) {
		char *e;
		int n = 0;

		snprintf(text, sizeof text, "%.*e", p, d);
		if (strtod(text, NULL) != d && p < 17)
			continue;
		e = strchr(text, 'e');
		*exp = atoi(e + 1);
		for (char *q = text; q < e; q++)
			if (*q >= '0' && *q <= '9')
				digits[n++] = *q;
		digits[n] = 0;
		return n;
	}
	return 0;
}

/* strconv.FormatFloat(d, 'f', -1, 64) */
static struct str plain_text(struct arena *a, double d)
{
	char digits[40];
	int exp, n = shortest(fabs(d), digits, &exp);
	struct buf b buf_cleanup = {0};

	if (signbit(d))
		buf_putc(&b, '-');
	if (exp < 0) {
		buf_puts(&b, "0.");
		for (int i = -1; i > exp; i--)
			buf_putc(&b, '0');
		buf_append(&b, digits, (size_t)n);
	} else {
		for (int i = 0; i <= exp || i < n; i++) {
			if (i == exp + 1)
				buf_putc(&b, '.');
			buf_putc(&b, i < n ? digits[i] : '0');
		}
	}
	return arena_str(a, buf_view(&b));
}

/* fmt's %g with the shortest digits: exponents below -4 and from 6 on are written out */
struct str cel_double_text(struct arena *a, double d)
{
	char digits[40];
	int exp, n;

	if (isnan(d))
		return STR("NaN");
	if (isinf(d))
		return d > 0 ? STR("+Inf") : STR("-Inf");
	n = shortest(fabs(d), digits, &exp);
	if (d != 0 && (exp < -4 || exp >= 6)) {
		struct buf b buf_cleanup = {0};

		if (d < 0)
			buf_putc(&b, '-');
		buf_putc(&b, digits[0]);
		if (n > 1) {
			buf_putc(&b, '.');
			buf_append(&b, digits + 1, (size_t)n - 1);
		}
		buf_printf(&b, "e%c%02d", exp < 0 ? '-' : '+', exp < 0 ? -exp : exp);
		return arena_str(a, buf_view(&b));
	}
	return plain_text(a, d);
}

static bool unit_is(struct str unit, const char *variant, bool last)
{
	size_t n = strlen(variant);

	return (unit.n == n || (last && unit.n > n)) && !strncasecmp(unit.p, variant, n);
}

bool cel_format_duration(struct str s, int64_t *ns)
{
	static const struct {
		const char *variants[4];
		int64_t ns;
	} units[] = {
		{{"ns", "nano"}, 1}, {{"us", "\302\265s", "micro"}, 1000}, {{"ms", "milli"}, 1000000}, {{"s", "sec"}, 1000000000},
		{{"m", "min"}, 60000000000}, {{"h", "hr", "hour"}, 3600000000000}, {{"d", "day"}, 86400000000000},
		{{"w", "wk", "week"}, 604800000000000},
	};
	int64_t sum = 0;
	bool any = false;

	if (duration_parse(s, ns))
		return true;
	for (size_t i = 0; i < s.n;) {
		size_t start = i, unit;
		int64_t factor;

		while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
			i++;
		if (i == start) {
			i++;
			continue;
		}
		unit = i;
		while (unit < s.n && (s.p[unit] == ' ' || (s.p[unit] >= '\t' && s.p[unit] <= '\r' && s.p[unit] != '\v')))
			unit++;
		for (i = unit; i < s.n;)
			if ((s.p[i] | 0x20) >= 'a' && (s.p[i] | 0x20) <= 'z')
				i++;
			else if (i + 1 < s.n && s.p[i] == '\302' && s.p[i + 1] == '\265')
				i += 2;
			else
				break;
		if (i == unit)
			continue;
		errno = 0;
		factor = strtoll(s.p + start, NULL, 10);
		if (errno == ERANGE)
			return false;
		for (size_t k = 0; k < sizeof units / sizeof *units; k++)
			for (size_t v = 0; v < 4 && units[k].variants[v]; v++)
				if (unit_is(str_sub(s, unit, i), units[k].variants[v], v == 3 || !units[k].variants[v + 1])) {
					/* wraps around, as Go's does */
					sum = (int64_t)((uint64_t)sum + (uint64_t)factor * (uint64_t)units[k].ns);
					any = true;
				}
	}
	*ns = sum;
	return any;
}

struct str cel_duration_text(struct arena *a, int64_t ns)
{
	double s = (double)(ns / 1000000000) + (double)(ns % 1000000000) / 1e9;
	struct str t = plain_text(a, s);

	return arena_printf(a, "%.*ss", STR_ARG(t));
}

/* ---- time zones: /usr/share/zoneinfo (RFC 8536), read once a zone ---- */

struct zone {
	uint32_t n;
	int64_t *at;      /* transitions, ascending */
	int32_t *offset;  /* from at[i] on */
	int32_t first;    /* before the first */
	char rule[64];    /* POSIX TZ behind the last, "" for none */
};

static int64_t be(const uint8_t *p, int n)
{
	uint64_t v = n == 4 && p[0] & 0x80 ? UINT64_MAX << 32 : 0;

	for (int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return (int64_t)v;
}

static struct zone *parse_zone(const uint8_t *p, size_t n)
{
	struct zone *z;
	uint32_t isutc, isstd, leaps, times, types, chars;
	size_t head = 44, body;
	const uint8_t *idx, *tt;

	for (int version = 1; version <= 2; version++) {
		int w = version == 1 ? 4 : 8;

		if (n < head || memcmp(p, "TZif", 4))
			return NULL;
		isutc = (uint32_t)be(p + 20, 4);
		isstd = (uint32_t)be(p + 24, 4);
		leaps = (uint32_t)be(p + 28, 4);
		times = (uint32_t)be(p + 32, 4);
		types = (uint32_t)be(p + 36, 4);
		chars = (uint32_t)be(p + 40, 4);
		if (isutc > 256 || isstd > 256 || leaps > 4096 || times > 65536 || types > 256 || chars > 65536)
			return NULL;
		body = times * (size_t)(w + 1) + types * (size_t)6 + chars + leaps * (size_t)(w + 4) + isstd + isutc;
		if (head + body > n)
			return NULL;
		if (version == 1) {
			if (p[4] < '2')
				return NULL; /* older files are not made any more */
			p += head + body;
			n -= head + body;
		}
	}
	if (!types)
		return NULL;
	z = xcalloc(1, sizeof *z);
	z->n = times;
	z->at = xcalloc(times + 1, sizeof *z->at);
	z->offset = xcalloc(times + 1, sizeof *z->offset);
	idx = p + head + times * (size_t)8;
	tt = idx + times;
	z->first = (int32_t)be(tt, 4);
	for (uint32_t i = 0; i < types; i++)
		if (!tt[i * 6 + 4]) { /* the first standard time */
			z->first = (int32_t)be(tt + i * 6, 4);
			break;
		}
	for (uint32_t i = 0; i < times; i++) {
		if (idx[i] >= types)
			idx = p; /* never: files are the system's */
		z->at[i] = be(p + head + i * (size_t)8, 8);
		z->offset[i] = (int32_t)be(tt + idx[i] * (size_t)6, 4);
	}
	p += head + body;
	n -= head + body;
	if (n > 2 && p[0] == '\n') {
		size_t k = 1;

		while (k < n && p[k] != '\n')
			k++;
		if (k - 1 < sizeof z->rule)
			memcpy(z->rule, p + 1, k - 1);
	}
	return z;
}

static const struct zone *zone_load(struct str name)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct map known;
	char path[256];
	struct zone *z = NULL;
	uint8_t *p;
	ssize_t n;
	int fd;

	/* "Local" is the server's; no way out of the directory */
	if (!name.n || name.n > 64 || name.p[0] == '/' || str_find(name, STR("..")) >= 0 || memchr(name.p, 0, name.n))
		return NULL;
	pthread_mutex_lock(&lock);
	z = map_get(&known, name);
	if (!z && known.n < ZONES_MAX) {
		if (str_eqz(name, "Local"))
			snprintf(path, sizeof path, "/etc/localtime");
		else
			snprintf(path, sizeof path, "/usr/share/zoneinfo/%.*s", STR_ARG(name));
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			p = xmalloc(ZONE_FILE_MAX);
			n = read(fd, p, ZONE_FILE_MAX);
			close(fd);
			if (n > 0)
				z = parse_zone(p, (size_t)n);
			free(p);
			if (z)
				map_set(&known, name, z);
		}
	}
	pthread_mutex_unlock(&lock);
	return z;
}

/* A POSIX TZ rule such as "CET-1CEST,M3.5.0,M10.5.0/3" (the form zone files end with). */
static const char *rule_name(const char *p)
{
	if (*p == '<') {
		while (*p && *p != '>')
			p++;
		return *p ? p + 1 : p;
	}
	while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z'))
		p++;
	return p;
}

static const char *rule_hms(const char *p, int *out)
{
	int sign = 1, v[3] = {0};

	if (*p == '+' || *p == '-')
		sign = *p++ == '-' ? -1 : 1;
	for (int i = 0; i < 3; i++) {
		v[i] = (int)strtol(p, (char **)&p, 10);
		if (*p != ':')
			break;
		p++;
	}
	*out = sign * (v[0] * 3600 + v[1] * 60 + v[2]);
	return p;
}

static int64_t days_of(int64_t y, int m, int d)
{
	int64_t era, yoe, doy;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

/* Seconds since 1970 (as local time) when a rule of this year begins. */
static const char *rule_date(const char *p, int64_t year, int64_t *out)
{
	int m, w, d, at = 7200;
	int64_t first;

	if (*p == 'M') {
		m = (int)strtol(p + 1, (char **)&p, 10);
		w = *p == '.' ? (int)strtol(p + 1, (char **)&p, 10) : 1;
		d = *p == '.' ? (int)strtol(p + 1, (char **)&p, 10) : 0;
		if (m < 1 || m > 12)
			m = 1;
		first = days_of(year, m, 1);
		first += (d - (int)((first % 7 + 11) % 7) + 7) % 7 + (w - 1) * 7;
		while (first >= (m == 12 ? days_of(year + 1, 1, 1) : days_of(year, m + 1, 1)))
			first -= 7;
	} else {
		bool julian = *p == 'J';

		d = (int)strtol(p + julian, (char **)&p, 10);
		first = days_of(year, 1, 1) + d - julian;
		if (julian && d >= 60 && days_of(year, 3, 1) - days_of(year, 2, 1) == 29)
			first++;
	}
	if (*p == '/')
		p = rule_hms(p + 1, &at);
	*out = first * 86400 + at;
	return p;
}

static int32_t rule_offset(const char *rule, int64_t s)
{
	const char *p = rule_name(rule);
	int std, dst;
	int64_t year, from, to;

	p = rule_hms(p, &std);
	std = -std;
	if (!*p)
		return std;
	p = rule_name(p);
	dst = std + 3600;
	if (*p && *p != ',') {
		p = rule_hms(p, &dst);
		dst = -dst;
	}
	if (*p != ',')
		return std;
	year = civil_of(s + std).year;
	p = rule_date(p + 1, year, &from);
	if (*p == ',')
		rule_date(p + 1, year, &to);
	else
		return std;
	from -= std;
	to -= dst;
	if (from < to)
		return s >= from && s < to ? dst : std;
	return s >= to && s < from ? std : dst;
}

static int32_t zone_offset(const struct zone *z, int64_t s)
{
	uint32_t lo = 0, hi = z->n;

	if (!z->n || s < z->at[0])
		return z->n ? z->first : z->rule[0] ? rule_offset(z->rule, s) : z->first;
	if (s >= z->at[z->n - 1] && z->rule[0])
		return rule_offset(z->rule, s);
	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;

		if (z->at[mid] <= s)
			lo = mid;
		else
			hi = mid;
	}
	return z->offset[lo];
}

/* Offset of a zone's name, or of "+01:30". */
static bool offset_of(struct str tz, int64_t s, int32_t *out)
{
	ptrdiff_t colon = str_index(tz, ':');
	const struct zone *z;
	int64_t h, m;
	struct str hs;

	if (colon >= 0) {
		hs = str_sub(tz, 0, (size_t)colon);
		if (hs.n && hs.p[0] == '+')
			hs = str_sub(hs, 1, hs.n);
		if (!str_to_i64(hs, &h) || !str_to_i64(str_sub(tz, (size_t)colon + 1, tz.n), &m) || h < -100 || h > 100 || m < -100 || m > 100)
			return false;
		*out = (int32_t)((h * 60 + (tz.p[0] == '-' ? -m : m)) * 60);
		return true;
	}
	if (!tz.n || str_eqz(tz, "UTC")) {
		*out = 0;
		return true;
	}
	z = zone_load(tz);
	if (!z && !str_eqz(tz, "Local"))
		return false;
	*out = z ? zone_offset(z, s) : 0;
	return true;
}

static bool local_time(struct run *r, const struct cel_value *v, uint32_t n, struct civil *c, struct cel_value *err)
{
	int32_t offset = 0;

	if (n > 1 && !offset_of(cel_str(v[1]), v[0].i, &offset)) {
		*err = cel_fail(r, "unknown time zone %.*s", STR_ARG(cel_str(v[1])));
		return false;
	}
	*c = civil_of(v[0].i + offset);
	return true;
}

#define PART(fn, expr)                                                                             \
	struct cel_value fn(struct run *r, const struct cel_value *v, uint32_t n)                  \
	{                                                                                          \
		struct civil c;                                                                    \
		struct cel_value e;                                                                \
                                                                                                   \
		return local_time(r, v, n, &c, &e) ? cel_int(expr) : e;                            \
	}

PART(lib_year, c.year)
PART(lib_month, c.month - 1)
PART(lib_day_of_year, c.yearday - 1)
PART(lib_day_of_month, c.day - 1)
PART(lib_date, c.day)
PART(lib_day_of_week, c.weekday)

#define PART_OR_DURATION(fn, expr, whole)                                                          \
	struct cel_value fn(struct run *r, const struct cel_value *v, uint32_t n)                  \
	{                                                                                          \
		struct civil c;                                                                    \
		struct cel_value e;                                                                \
                                                                                                   \
		if (v[0].kind == CEL_DURATION)                                                     \
			return cel_int(whole);                                                     \
		return local_time(r, v, n, &c, &e) ? cel_int(expr) : e;                            \
	}

PART_OR_DURATION(lib_hours, c.hour, v[0].i / 3600000000000ll)
PART_OR_DURATION(lib_minutes, c.minute, v[0].i / 60000000000ll)
PART_OR_DURATION(lib_seconds, c.second, v[0].i / 1000000000ll)
PART_OR_DURATION(lib_milliseconds, v[0].ns / 1000000, v[0].i / 1000000ll)
