/*
 * Patterns and formats of strings in the schemas of custom resources: those that upstream knows, as it reads them
 * (apiextensions-apiserver/pkg/apiserver/validation/formats.go, kube-openapi/pkg/validation/strfmt).
 */
#include <ctype.h>
#include "apiserver/custom.h"
#include "cel/cel.h"

#define PATTERNS_MAX 4096

static void forget(void *re)
{
	cel_regex_free(re);
}

/* Compiled patterns, kept: a CRD's are used for each write. Good until the next call. NULL: not a pattern. */
static const struct cel_regex *pattern_code(struct str pattern)
{
	static struct map known;
	const struct cel_regex *re = map_get(&known, pattern);
	const char *why;

	if (re || map_has(&known, pattern))
		return re;
	if (known.n >= PATTERNS_MAX)
		map_free_values(&known, forget);
	re = cel_regex_new(pattern, &why);
	map_set(&known, pattern, (void *)(uintptr_t)re);
	return re;
}

bool schema_pattern_valid(struct str pattern)
{
	return pattern_code(pattern) != NULL;
}

/* A pattern that runs away does not match. */
bool schema_pattern_matches(struct str pattern, struct str s)
{
	const struct cel_regex *re = pattern_code(pattern);
	const char *why;

	return !re || cel_regex_matches(re, s, &why); /* what is none was refused when the definition was written */
}

/* ---- formats ---- */

static bool is_date(struct arena *a, struct str s)
{
	struct api_time t;

	return s.n == 10 && time_parse(arena_printf(a, "%.*sT00:00:00Z", STR_ARG(s)), &t);
}

static bool is_date_time(struct arena *a, struct str s)
{
	static const struct str time = STR_INIT("(?i)^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$");

	size_t end = 11;

	if (s.n <= 11 || (s.p[10] | 32) != 't' || !is_date(a, str_sub(s, 0, 10)))
		return false;
	while (end < s.n && (s.p[end] | 32) != 't') /* nobody looks at what stands behind another T */
		end++;
	return schema_pattern_matches(time, str_sub(s, 11, end));
}

static bool is_hostname(struct arena *a, struct str s)
{
	static const struct str form = STR_INIT("^([a-zA-Z0-9\\p{S}\\p{L}]((-?[a-zA-Z0-9\\p{S}\\p{L}]{0,62})?)|([a-zA-Z0-9\\p{S}\\p{L}](([a-zA-Z0-9-\\p{S}"
						"\\p{L}]{0,61}[a-zA-Z0-9\\p{S}\\p{L}])?)(\\.)){1,}([a-zA-Z\\p{L}]){2,63})$");
	struct str rest = s;

	(void)a;
	while (rest.n)
		if (str_cut(&rest, '.').n > 63)
			return false;
	return s.n <= 255 && schema_pattern_matches(form, s);
}

/* Bits of the host may be set. */
static bool is_cidr(struct arena *a, struct str s)
{
	return cidr_canonical(a, s).n > 0;
}

static bool is_ipv4(struct arena *a, struct str s)
{
	return ip_family(s) != 0 && str_index(s, '.') >= 0;
}

static bool is_ipv6(struct arena *a, struct str s)
{
	return ip_family(s) != 0 && str_index(s, ':') >= 0;
}

/* 6, 8 or 20 bytes, in pairs with - or :, in fours with dots, or without anything between (Go's net.ParseMAC). */
static bool is_mac(struct arena *a, struct str s)
{
	char sep = s.n > 4 && s.p[4] == '.' ? '.' : s.n > 2 ? s.p[2] : 0;
	size_t group = sep == '.' ? 4 : 2, bytes;

	(void)a;
	if (sep && isxdigit((unsigned char)sep)) { /* none */
		for (size_t i = 0; i < s.n; i++)
			if (!isxdigit((unsigned char)s.p[i]))
				return false;
		return s.n == 12 || s.n == 16 || s.n == 40;
	}
	if ((sep != '.' && sep != ':' && sep != '-') || (s.n + 1) % (group + 1))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (i % (group + 1) == group ? s.p[i] != sep : !isxdigit((unsigned char)s.p[i]))
			return false;
	bytes = (s.n + 1) / (group + 1) * group / 2;
	return bytes == 6 || bytes == 8 || bytes == 20;
}

/* ---- one address of mail (RFC 5322, as Go's net/mail reads it) ---- */

struct mail {
	const char *p, *end;
};

static int mail_peek(const struct mail *m)
{
	return m->p < m->end ? (unsigned char)*m->p : -1;
}

static void mail_space(struct mail *m)
{
	while (mail_peek(m) == ' ' || mail_peek(m) == '\t')
		m->p++;
}

/* Spaces and comments; false: a comment does not end. */
static bool mail_comments(struct mail *m)
{
	for (mail_space(m); mail_peek(m) == '('; mail_space(m)) {
		int depth = 0;

		do {
			int c = mail_peek(m);

			if (c < 0)
				return false;
			if (c == '\\' && m->p + 1 < m->end)
				m->p++;
			else
				depth += (c == '(') - (c == ')');
			m->p++;
		} while (depth);
	}
	return true;
}

static bool mail_visible(int c)
{
	return c > ' ' && c != 0x7f;
}

/* The content's length, -1: none. */
static ptrdiff_t mail_quoted(struct mail *m)
{
	const char *start = ++m->p;

	for (bool escaped = false;; m->p++) {
		int c = mail_peek(m);

		if (c != ' ' && c != '\t' && !mail_visible(c))
			return -1;
		if (!escaped && c == '"')
			return m->p++ - start;
		escaped = !escaped && c == '\\';
	}
}

static bool mail_atom(struct mail *m, bool any_dots)
{
	const char *start = m->p;

	for (; mail_visible(mail_peek(m)) && !strchr("()<>[]:;@\\,\"", *m->p); m->p++)
		if (!any_dots && *m->p == '.' && (m->p == start || m->p[-1] == '.'))
			return false;
	return m->p > start && (any_dots || m->p[-1] != '.');
}

static bool mail_spec(struct mail *m)
{
	mail_space(m);
	if (mail_peek(m) == '"' ? mail_quoted(m) <= 0 : !mail_atom(m, false))
		return false;
	if (mail_peek(m) != '@')
		return false;
	m->p++;
	mail_space(m);
	if (mail_peek(m) == '[') {
		const char *start = ++m->p;

		while (mail_peek(m) != ']' && mail_visible(mail_peek(m)))
			m->p++;
		return mail_peek(m) == ']' && ip_family(str_of(start, (size_t)(m->p++ - start)));
	}
	return mail_atom(m, false);
}

/* How many addresses, -1: it is none. */
static int mail_address(struct mail *m, bool may_be_group)
{
	const char *start;
	int n = 0, words = 0;

	mail_space(m);
	start = m->p;
	if (mail_spec(m)) {
		mail_space(m);
		return mail_peek(m) != '(' || mail_comments(m) ? 1 : -1;
	}
	m->p = start;
	for (; mail_peek(m) != '<'; words++) { /* a name */
		const char *word;

		if (words && !mail_comments(m))
			return -1;
		mail_space(m);
		word = m->p;
		if (mail_peek(m) == '"' ? mail_quoted(m) < 0 : !mail_atom(m, true)) {
			m->p = word;
			if (!words)
				return -1;
			break;
		}
	}
	mail_space(m);
	if (may_be_group && mail_peek(m) == ':') {
		m->p++;
		mail_space(m);
		for (bool first = true; first || mail_peek(m) == ','; first = false) {
			if (first && mail_peek(m) == ';')
				break;
			m->p += !first;
			if (mail_address(m, false) < 0 || !mail_comments(m))
				return -1;
			n++;
		}
		if (mail_peek(m) != ';')
			return -1;
		m->p++;
		return mail_comments(m) ? n : -1;
	}
	if (mail_peek(m) != '<')
		return -1;
	m->p++;
	if (!mail_spec(m) || mail_peek(m) != '>')
		return -1;
	m->p++;
	return 1;
}

static bool is_email(struct arena *a, struct str s)
{
	struct mail m = {s.p, s.p + s.n};

	(void)a; /* strings are UTF-8 where they were decoded */
	return s.n && mail_address(&m, true) == 1 && mail_comments(&m) && m.p == m.end;
}

static bool is_uri(struct arena *a, struct str s)
{
	return !cel_uri_error(a, s);
}

/* Digits (and a last X) of s without what `skip` has. */
static size_t digits(struct str s, const char *skip, char out[32])
{
	size_t n = 0;

	for (size_t i = 0; i < s.n && n < 31; i++)
		if (skip ? !s.p[i] || !strchr(skip, s.p[i]) : isdigit((unsigned char)s.p[i]))
			out[n++] = s.p[i];
	out[n] = 0;
	return n;
}

static bool is_isbn10(struct arena *a, struct str s)
{
	char d[32];
	int sum = 0;

	(void)a;
	if (digits(s, " \t\r\n\f\v-", d) != 10 || !schema_pattern_matches(STR("^(?:[0-9]{9}X|[0-9]{10})$"), str_from(d)))
		return false;
	for (int i = 0; i < 10; i++)
		sum += (i + 1) * (d[i] == 'X' ? 10 : d[i] - '0');
	return sum % 11 == 0;
}

static bool is_isbn13(struct arena *a, struct str s)
{
	char d[32];
	int sum = 0;

	(void)a;
	if (digits(s, " \t\r\n\f\v-", d) != 13 || !schema_pattern_matches(STR("^[0-9]{13}$"), str_from(d)))
		return false;
	for (int i = 0; i < 12; i++)
		sum += (i % 2 ? 3 : 1) * (d[i] - '0');
	return d[12] - '0' == (10 - sum % 10) % 10;
}

static bool is_isbn(struct arena *a, struct str s)
{
	return is_isbn10(a, s) || is_isbn13(a, s);
}

static bool is_credit_card(struct arena *a, struct str s)
{
	static const struct str form = STR_INIT("^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|"
						"[68][0-9])[0-9]{11}|(?:2131|1800|35\\d{3})\\d{11})$");
	char d[32];
	size_t n = digits(s, NULL, d);
	int sum = 0;

	(void)a;
	if (!schema_pattern_matches(form, str_from(d)))
		return false;
	for (size_t i = 0; i < n; i++) {
		int x = (d[n - 1 - i] - '0') * (i % 2 ? 2 : 1);

		sum += x >= 10 ? x % 10 + 1 : x;
	}
	return sum % 10 == 0;
}

static bool is_duration(struct arena *a, struct str s)
{
	int64_t ns;

	(void)a;
	return cel_format_duration(s, &ns);
}

static bool is_short_name(struct arena *a, struct str s)
{
	return !validate_dns1123_label(a, s);
}

static bool is_long_name(struct arena *a, struct str s)
{
	return !validate_dns1123_subdomain(a, s);
}

static bool is_ssn(struct arena *a, struct str s)
{
	(void)a;
	return s.n == 11 && schema_pattern_matches(STR("^\\d{3}[- ]?\\d{2}[- ]?\\d{4}$"), s);
}

#define HEX(n) "[0-9a-f]{" #n "}-?"
#define BYTE_OF_COLOR "\\s*(0|[1-9]\\d?|1\\d\\d?|2[0-4]\\d|25[0-5])\\s*"
/* Names are compared without their dashes, as upstream normalises them. */
static const struct format {
	const char *name;
	const char *pattern; /* or fits; neither: anything */
	bool (*fits)(struct arena *a, struct str s);
} formats[] = {
	{.name = "bsonobjectid", .pattern = "^[0-9a-fA-F]{24}$"},
	{.name = "uri", .fits = is_uri},
	{.name = "email", .fits = is_email},
	{.name = "hostname", .fits = is_hostname},
	{.name = "ipv4", .fits = is_ipv4},
	{.name = "ipv6", .fits = is_ipv6},
	{.name = "cidr", .fits = is_cidr},
	{.name = "mac", .fits = is_mac},
	{.name = "uuid", .pattern = "(?i)^" HEX(8) HEX(4) HEX(4) HEX(4) "[0-9a-f]{12}$"},
	{.name = "uuid3", .pattern = "(?i)^" HEX(8) HEX(4) "3" HEX(3) HEX(4) "[0-9a-f]{12}$"},
	{.name = "uuid4", .pattern = "(?i)^" HEX(8) HEX(4) "4" HEX(3) "[89ab]" HEX(3) "[0-9a-f]{12}$"},
	{.name = "uuid5", .pattern = "(?i)^" HEX(8) HEX(4) "5" HEX(3) "[89ab]" HEX(3) "[0-9a-f]{12}$"},
	{.name = "isbn", .fits = is_isbn},
	{.name = "isbn10", .fits = is_isbn10},
	{.name = "isbn13", .fits = is_isbn13},
	{.name = "creditcard", .fits = is_credit_card},
	{.name = "ssn", .fits = is_ssn},
	{.name = "hexcolor", .pattern = "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"},
	{.name = "rgbcolor", .pattern = "^rgb\\(" BYTE_OF_COLOR "," BYTE_OF_COLOR "," BYTE_OF_COLOR "\\)$"},
	{.name = "byte", .pattern = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"},
	{.name = "password"},
	{.name = "date", .fits = is_date},
	{.name = "duration", .fits = is_duration},
	{.name = "datetime", .fits = is_date_time},
	{.name = "k8sshortname", .fits = is_short_name},
	{.name = "k8slongname", .fits = is_long_name},
};

static const struct format *format_find(struct str name)
{
	char plain[32];
	size_t n = 0;

	for (size_t i = 0; i < name.n; i++) {
		if (name.p[i] == '-')
			continue;
		if (n == sizeof plain - 1)
			return NULL;
		plain[n++] = name.p[i];
	}
	plain[n] = 0;
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
		if (!strcmp(formats[i].name, plain))
			return &formats[i];
	return NULL;
}

bool schema_format_known(struct str type, struct str format)
{
	if (!type.n || str_eqz(type, "string"))
		return format_find(format) != NULL;
	if (str_eqz(type, "integer"))
		return str_eqz(format, "int32") || str_eqz(format, "int64");
	if (str_eqz(type, "number"))
		return str_eqz(format, "float") || str_eqz(format, "double");
	return false;
}

bool schema_format_fits(struct arena *a, struct str format, struct str s)
{
	const struct format *f = format_find(format);

	if (!f || (!f->pattern && !f->fits))
		return true;
	return f->fits ? f->fits(a, s) : schema_pattern_matches(str_from(f->pattern), s);
}
