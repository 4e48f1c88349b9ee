#include "schema/cron.h"

#include "schema/codec.h"

#define STAR (1ull << 63)
#define YEARS 5          /* how far a time is looked for */
#define MAX_STEPS 100000
#define ZONE_MAX (1u << 20)
#define MAX_TRANSITIONS 10000

/* ---- civil time ---- */

int64_t civil_days(int64_t y, int m, int d)
{
	/* Days of a shifted year that begins in March. */
	y += (m - 1) / 12;
	m = (m - 1) % 12 + 1;
	if (m < 1) {
		m += 12;
		y--;
	}
	y -= m <= 2;
	int64_t era = (y >= 0 ? y : y - 399) / 400, yoe = y - era * 400;
	int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1, doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

	return era * 146097 + doe - 719468;
}

struct civil civil_of(int64_t t)
{
	int64_t days = t / 86400, s = t % 86400;

	if (s < 0) {
		s += 86400;
		days--;
	}
	int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	struct civil c = {.day = (int)(doy - (153 * mp + 2) / 5 + 1), .month = (int)(mp < 10 ? mp + 3 : mp - 9), .hour = (int)(s / 3600),
			  .minute = (int)(s / 60 % 60), .second = (int)(s % 60), .weekday = (int)(((days + 4) % 7 + 7) % 7)};

	c.year = yoe + era * 400 + (c.month <= 2);
	return c;
}

/* ---- time zones ---- */

struct rule_day { /* of a POSIX TZ rule */
	char kind;     /* 'M', 'J', or 'n' for a day counted from 0 */
	int month, week, day;
	int32_t time;  /* seconds after midnight, may be negative or beyond a day */
};

struct time_zone {
	int64_t *at;        /* transitions, ascending */
	int32_t *offset;    /* from at[i] on */
	size_t n;
	int32_t first;      /* before all of them */
	bool footer, dst;
	int32_t std_offset, dst_offset;
	struct rule_day begin, end;
};

static int64_t be(const char *p, int n)
{
	uint64_t v = 0;

	for (int i = 0; i < n; i++)
		v = v << 8 | (unsigned char)p[i];
	return n == 8 ? (int64_t)v : (int32_t)(uint32_t)v;
}

static bool digits(struct str *s, int max, int *out)
{
	int v = 0, n = 0;

	while (n < 4 && s->n && s->p[0] >= '0' && s->p[0] <= '9') {
		v = v * 10 + s->p[0] - '0';
		*s = str_sub(*s, 1, s->n);
		n++;
	}
	*out = v;
	return n && v <= max;
}

static bool skip_char(struct str *s, char c)
{
	if (!s->n || s->p[0] != c)
		return false;
	*s = str_sub(*s, 1, s->n);
	return true;
}

static bool hms(struct str *s, int32_t *out)
{
	int h, m = 0, sec = 0, sign = skip_char(s, '-') ? -1 : 1;

	if (sign > 0)
		skip_char(s, '+');
	if (!digits(s, 167, &h) || (skip_char(s, ':') && (!digits(s, 59, &m) || (skip_char(s, ':') && !digits(s, 59, &sec)))))
		return false;
	*out = sign * (h * 3600 + m * 60 + sec);
	return true;
}

static bool zone_abbreviation(struct str *s)
{
	size_t n = 0;

	if (skip_char(s, '<')) {
		ptrdiff_t end = str_index(*s, '>');

		if (end < 0)
			return false;
		*s = str_sub(*s, (size_t)end + 1, s->n);
		return true;
	}
	while (n < s->n && ((s->p[n] >= 'A' && s->p[n] <= 'Z') || (s->p[n] >= 'a' && s->p[n] <= 'z')))
		n++;
	*s = str_sub(*s, n, s->n);
	return n >= 3;
}

static bool rule_day(struct str *s, struct rule_day *d)
{
	d->kind = 'n';
	d->time = 7200;
	if (skip_char(s, 'M')) {
		d->kind = 'M';
		if (!digits(s, 12, &d->month) || !d->month || !skip_char(s, '.') || !digits(s, 5, &d->week) || !d->week ||
		    !skip_char(s, '.') || !digits(s, 6, &d->day))
			return false;
	} else if (skip_char(s, 'J')) {
		d->kind = 'J';
		if (!digits(s, 365, &d->day) || !d->day)
			return false;
	} else if (!digits(s, 365, &d->day)) {
		return false;
	}
	return !skip_char(s, '/') || hms(s, &d->time);
}

/* "CET-1CEST,M3.5.0,M10.5.0/3" (POSIX.1, TZ). */
static bool parse_footer(struct time_zone *z, struct str s)
{
	if (!zone_abbreviation(&s) || !hms(&s, &z->std_offset))
		return false;
	z->std_offset = -z->std_offset; /* POSIX counts west */
	if (!s.n)
		return true;
	z->dst = true;
	z->dst_offset = z->std_offset + 3600;
	if (!zone_abbreviation(&s))
		return false;
	if (s.n && s.p[0] != ',') {
		if (!hms(&s, &z->dst_offset))
			return false;
		z->dst_offset = -z->dst_offset;
	}
	return skip_char(&s, ',') && rule_day(&s, &z->begin) && skip_char(&s, ',') && rule_day(&s, &z->end) && !s.n;
}

static bool leap(int64_t y)
{
	return y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
}

/* Seconds since 1970, in the local time before the change. */
static int64_t rule_time(const struct rule_day *d, int64_t year)
{
	int64_t day;

	if (d->kind == 'M') {
		int64_t first = civil_days(year, d->month, 1), next = civil_days(year, d->month + 1, 1);
		int weekday = (int)((first + 4) % 7 + 7) % 7;

		day = first + (d->day - weekday + 7) % 7 + 7 * (d->week - 1);
		while (day >= next)
			day -= 7;
	} else {
		day = civil_days(year, 1, 1) + d->day;
		if (d->kind == 'J')
			day -= !(leap(year) && d->day >= 60); /* 29 February is never counted */
	}
	return day * 86400 + d->time;
}

static int32_t footer_offset(const struct time_zone *z, int64_t t)
{
	if (!z->dst)
		return z->std_offset;
	int64_t year = civil_of(t + z->std_offset).year;
	int64_t begin = rule_time(&z->begin, year) - z->std_offset, end = rule_time(&z->end, year) - z->dst_offset;
	bool in = begin < end ? t >= begin && t < end : t >= begin || t < end;

	return in ? z->dst_offset : z->std_offset;
}

int32_t time_zone_offset(const struct time_zone *z, int64_t t)
{
	if (!z)
		return 0;
	if (!z->n || t < z->at[0])
		return z->n || !z->footer ? z->first : footer_offset(z, t);
	if (z->footer && t >= z->at[z->n - 1])
		return footer_offset(z, t);
	size_t lo = 0, hi = z->n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (z->at[mid] <= t)
			lo = mid;
		else
			hi = mid;
	}
	return z->offset[lo];
}

struct tz_header {
	size_t isut, isstd, leap, time, type, chars;
};

static bool read_header(struct str s, struct tz_header *h)
{
	if (s.n < 44 || memcmp(s.p, "TZif", 4))
		return false;
	size_t *v[] = {&h->isut, &h->isstd, &h->leap, &h->time, &h->type, &h->chars};

	for (int i = 0; i < 6; i++) {
		int64_t n = be(s.p + 20 + 4 * i, 4);

		if (n < 0 || n > MAX_TRANSITIONS)
			return false;
		*v[i] = (size_t)n;
	}
	return true;
}

static size_t body_size(const struct tz_header *h, size_t width)
{
	return h->time * width + h->time + h->type * 6 + h->chars + h->leap * (width + 4) + h->isstd + h->isut;
}

struct error *time_zone_parse(struct arena *a, struct str bytes, const struct time_zone **out)
{
	struct time_zone *z = arena_new(a, struct time_zone);
	struct tz_header h;
	size_t width = 4;

	if (bytes.n > ZONE_MAX || !read_header(bytes, &h))
		return error_new("not a time zone file");
	char version = bytes.p[4];

	bytes = str_sub(bytes, 44, bytes.n);
	if (version >= '2') { /* the second part has times of 64 bits */
		if (bytes.n < body_size(&h, 4))
			return error_new("time zone file is cut short");
		bytes = str_sub(bytes, body_size(&h, 4), bytes.n);
		if (!read_header(bytes, &h))
			return error_new("time zone file has no second part");
		bytes = str_sub(bytes, 44, bytes.n);
		width = 8;
	}
	if (bytes.n < body_size(&h, width) || !h.type)
		return error_new("time zone file is cut short");
	const char *index = bytes.p + h.time * width, *types = index + h.time;

	z->n = h.time;
	z->at = arena_array(a, int64_t, h.time + 1);
	z->offset = arena_array(a, int32_t, h.time + 1);
	for (size_t i = 0; i < h.time; i++) {
		size_t type = (unsigned char)index[i];

		z->at[i] = be(bytes.p + i * width, (int)width);
		if (type >= h.type || (i && z->at[i] <= z->at[i - 1]))
			return error_new("time zone file is broken");
		z->offset[i] = (int32_t)be(types + type * 6, 4);
		if (z->offset[i] < -100000 || z->offset[i] > 100000)
			return error_new("time zone file is broken");
	}
	z->first = (int32_t)be(types, 4);
	if (z->first < -100000 || z->first > 100000)
		return error_new("time zone file is broken");
	if (width == 8) {
		struct str footer = str_sub(bytes, body_size(&h, width), bytes.n);

		if (footer.n >= 2 && footer.p[0] == '\n') {
			footer = str_sub(footer, 1, footer.n);
			ptrdiff_t end = str_index(footer, '\n');

			footer = str_sub(footer, 0, end < 0 ? footer.n : (size_t)end);
			z->footer = footer.n > 0;
			if (z->footer && !parse_footer(z, footer))
				return error_new("time zone file has a rule nobody understands: \"%.*s\"", STR_ARG(footer));
		}
	}
	*out = z;
	return NULL;
}

bool time_zone_name_ok(struct str name)
{
	if (!name.n || name.n > 255)
		return false;
	while (name.p) {
		struct str part = str_cut(&name, '/');

		if (!part.n || part.n > 64 || str_eqz(part, ".") || str_eqz(part, "..") || part.p[0] == '-')
			return false;
		for (size_t i = 0; i < part.n; i++) {
			char c = part.p[i];

			if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("._-+", c)) || !c)
				return false;
		}
	}
	return true;
}

/* ---- cron ---- */

struct bounds {
	unsigned min, max;
	const char *names; /* three letters each, from min on */
};

static const struct bounds minutes = {0, 59, NULL}, hours = {0, 23, NULL}, doms = {1, 31, NULL},
	months = {1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"}, dows = {0, 6, "sunmontuewedthufrisat"};

static struct error *number(struct str s, const struct bounds *b, unsigned *out)
{
	int64_t v;

	for (unsigned i = 0; b && b->names && s.n == 3 && i <= b->max - b->min; i++)
		if (str_eq_nocase(s, str_of(b->names + 3 * i, 3))) {
			*out = b->min + i;
			return NULL;
		}
	struct str digits = s.n > 1 && s.p[0] == '+' ? str_sub(s, 1, s.n) : s;

	if (!str_to_i64(digits, &v))
		return error_new("failed to parse int from %.*s: strconv.Atoi: parsing \"%.*s\": invalid syntax", STR_ARG(s), STR_ARG(s));
	if (v < 0)
		return error_new("negative number (%lld) not allowed: %.*s", (long long)v, STR_ARG(s));
	*out = v > 1000000 ? 1000000 : (unsigned)v;
	return NULL;
}

/* "*", "5", "1-5", "1-5/2", "5/2". */
static struct error *range(struct str expr, const struct bounds *b, uint64_t *bits)
{
	struct str rest = expr, span = str_cut(&rest, '/'), step_text = rest, high = span, low = str_cut(&high, '-');
	bool stepped = rest.p != NULL, single = high.p == NULL;
	unsigned start, end, step = 1;
	uint64_t extra = 0;

	if (str_eqz(low, "*") || str_eqz(low, "?")) {
		start = b->min;
		end = b->max;
		extra = STAR;
	} else {
		TRY(number(low, b, &start));
		end = start;
		if (!single) {
			if (str_index(high, '-') >= 0)
				return error_new("too many hyphens: %.*s", STR_ARG(expr));
			TRY(number(high, b, &end));
		}
	}
	if (stepped) {
		if (str_index(step_text, '/') >= 0)
			return error_new("too many slashes: %.*s", STR_ARG(expr));
		TRY(number(step_text, NULL, &step));
		if (single)
			end = b->max;
		if (step > 1)
			extra = 0;
	}
	if (start < b->min)
		return error_new("beginning of range (%u) below minimum (%u): %.*s", start, b->min, STR_ARG(expr));
	if (end > b->max)
		return error_new("end of range (%u) above maximum (%u): %.*s", end, b->max, STR_ARG(expr));
	if (start > end)
		return error_new("beginning of range (%u) beyond end of range (%u): %.*s", start, end, STR_ARG(expr));
	if (!step)
		return error_new("step of range should be a positive number: %.*s", STR_ARG(expr));
	for (unsigned i = start; i <= end; i += step)
		*bits |= 1ull << i;
	*bits |= extra;
	return NULL;
}

static struct error *field(struct str s, const struct bounds *b, uint64_t *bits)
{
	*bits = 0;
	while (s.p) {
		struct str expr = str_cut(&s, ',');

		if (expr.n)
			TRY(range(expr, b, bits));
	}
	return NULL;
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct error *descriptor(struct str s, struct cron *c)
{
	static const struct {
		const char *name;
		const char *fields;
	} known[] = {
		{"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"}, {"@weekly", "0 0 * * 0"},
		{"@daily", "0 0 * * *"}, {"@midnight", "0 0 * * *"}, {"@hourly", "0 * * * *"},
	};
	int64_t ns;

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (str_eqz(s, known[i].name))
			return cron_parse(str_from(known[i].fields), c);
	if (!str_has_prefix(s, STR("@every ")))
		return error_new("unrecognized descriptor: %.*s", STR_ARG(s));
	struct str text = str_sub(s, 7, s.n);

	if (!duration_parse(text, &ns))
		return error_new("failed to parse duration %.*s: time: invalid duration \"%.*s\"", STR_ARG(s), STR_ARG(text));
	c->every_s = ns < 1000000000 ? 1 : ns / 1000000000;
	return NULL;
}

struct error *cron_parse(struct str text, struct cron *out)
{
	struct str zone = STR_NULL, fields[5] = {0};
	size_t n = 0;

	*out = (struct cron){0};
	if (!text.n)
		return error_new("empty spec string");
	if (str_has_prefix(text, STR("TZ=")) || str_has_prefix(text, STR("CRON_TZ="))) {
		ptrdiff_t eq = str_index(text, '='), space = str_index(text, ' ');

		if (space < 0)
			return error_new("no schedule behind the time zone: %.*s", STR_ARG(text));
		zone = str_sub(text, (size_t)eq + 1, (size_t)space);
		text = str_trim(str_sub(text, (size_t)space, text.n));
	}
	if (text.n && text.p[0] == '@') {
		struct error *e = descriptor(text, out);

		out->zone = zone;
		return e;
	}
	for (size_t i = 0; i < text.n;) {
		size_t from = i;

		if (is_space(text.p[i])) {
			i++;
			continue;
		}
		while (i < text.n && !is_space(text.p[i]))
			i++;
		if (n < 5)
			fields[n] = str_sub(text, from, i);
		n++;
	}
	if (n != 5)
		return error_new("expected exactly 5 fields, found %zu: [%.*s]", n, STR_ARG(text));
	TRY(field(fields[0], &minutes, &out->minute));
	TRY(field(fields[1], &hours, &out->hour));
	TRY(field(fields[2], &doms, &out->dom));
	TRY(field(fields[3], &months, &out->month));
	TRY(field(fields[4], &dows, &out->dow));
	out->zone = zone;
	return NULL;
}

/* A local time; where clocks are set forward or back, that of one of the two offsets (as Go's time.Date). */
static int64_t from_local(const struct time_zone *z, int64_t local)
{
	int32_t offset = time_zone_offset(z, local);

	return offset ? local - time_zone_offset(z, local - offset) : local;
}

static struct civil local(const struct time_zone *z, int64_t t)
{
	return civil_of(t + time_zone_offset(z, t));
}

static int64_t at_hour(const struct time_zone *z, const struct civil *c, int day, int hour)
{
	return from_local(z, civil_days(c->year, c->month, day) * 86400 + hour * 3600);
}

static bool day_matches(const struct cron *c, const struct civil *t)
{
	bool dom = c->dom >> t->day & 1, dow = c->dow >> t->weekday & 1;

	/* Only when both are restricted one of them is enough. */
	return (c->dom | c->dow) & STAR ? dom && dow : dom || dow;
}

bool cron_next(const struct cron *c, const struct time_zone *z, int64_t t, int64_t *next)
{
	if (c->every_s) {
		*next = t + c->every_s;
		return true;
	}
	if (!(c->minute & ~STAR) || !(c->hour & ~STAR) || !(c->dom & ~STAR) || !(c->month & ~STAR) || !(c->dow & ~STAR))
		return false; /* a field of commas only */
	int64_t last = local(z, ++t).year + YEARS;
	bool moved = false; /* smaller units are at their beginning */

	for (int steps = 0; steps < MAX_STEPS; steps++) {
		struct civil v = local(z, t);
		int64_t old = t;

		if (v.year > last)
			return false;
		if (!(c->month >> v.month & 1)) {
			t = from_local(z, civil_days(v.year, v.month + 1, 1) * 86400);
		} else if (!day_matches(c, &v)) {
			t = at_hour(z, &v, v.day + 1, 0);
			v = local(z, t);
			if (v.hour > 12) /* there is no midnight where clocks change then */
				t += (24 - v.hour) * 3600;
		} else if (!(c->hour >> v.hour & 1)) {
			t = (moved ? t : at_hour(z, &v, v.day, v.hour)) + 3600;
		} else if (!(c->minute >> v.minute & 1)) {
			t = t - ((t % 60) + 60) % 60 + 60;
		} else if (v.second) {
			t++;
			continue;
		} else {
			*next = t;
			return true;
		}
		moved = true;
		if (t <= old) /* a zone file with absurd changes */
			t = old + 3600;
	}
	return false;
}
