/* Validators of names: patterns as small matchers, messages as upstream's. */
#include <arpa/inet.h>
#include <stdio.h>

#include "base/buf.h"
#include "schema/validate.h"

static bool lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool alpha(char c)
{
	return lower(c) || (c >= 'A' && c <= 'Z');
}

static bool lower_alnum(char c)
{
	return lower(c) || digit(c);
}

static bool alnum(char c)
{
	return alpha(c) || digit(c);
}

/* [a-z0-9]([-a-z0-9]*[a-z0-9])? */
static bool is_label(struct str s)
{
	if (!s.n || !lower_alnum(s.p[0]) || !lower_alnum(s.p[s.n - 1]))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!lower_alnum(s.p[i]) && s.p[i] != '-')
			return false;
	return true;
}

static bool is_subdomain(struct str s)
{
	struct str rest = s;

	if (!s.n)
		return false;
	while (rest.p)
		if (!is_label(str_cut(&rest, '.')))
			return false;
	return true;
}

/* ([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9] */
static bool is_name_part(struct str s)
{
	if (!s.n || !alnum(s.p[0]) || !alnum(s.p[s.n - 1]))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.')
			return false;
	return true;
}

/* ---- messages ---- */

struct problems {
	struct arena *a;
	const char *text; /* joined with "; " */
};

static void problem(struct problems *p, const char *prefix, const char *text)
{
	p->text = p->text ? arena_printf(p->a, "%s; %s%s", p->text, prefix, text).p : arena_printf(p->a, "%s%s", prefix, text).p;
}

/* Upstream's older validators count characters, those of labels bytes; both mean bytes. */
static void too_long(struct problems *p, const char *prefix, struct str s, size_t max, const char *unit)
{
	if (s.n > max)
		problem(p, prefix, arena_printf(p->a, "must be no more than %zu %s", max, unit).p);
}

#define LABEL_RE "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#define SUBDOMAIN_RE LABEL_RE "(\\." LABEL_RE ")*"
#define NAME_RE "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
#define NAME_MESSAGE                                                                                                       \
	"must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character " \
	"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '" NAME_RE "')"
#define SUBDOMAIN_MESSAGE                                                                                              \
	"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start " \
	"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '" SUBDOMAIN_RE "')"

const char *validate_dns1123_label(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};

	too_long(&p, "", s, 63, "characters");
	if (!is_label(s))
		problem(&p, "", is_subdomain(s) ? "must not contain dots"
			: "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
			  "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '"
			  LABEL_RE "')");
	return p.text;
}

static void subdomain(struct problems *p, const char *prefix, struct str s, const char *unit)
{
	too_long(p, prefix, s, 253, unit);
	if (!is_subdomain(s))
		problem(p, prefix, SUBDOMAIN_MESSAGE);
}

const char *validate_dns1123_subdomain(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};

	subdomain(&p, "", s, "characters");
	return p.text;
}

const char *validate_dns1123_subdomain_underscore(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};
	struct str rest = s;
	bool ok = s.n;

	too_long(&p, "", s, 253, "characters");
	while (rest.p && ok) {
		struct str part = str_cut(&rest, '.');

		if (part.n && part.p[0] == '_')
			part = str_sub(part, 1, part.n);
		ok = part.n && lower_alnum(part.p[0]) && lower_alnum(part.p[part.n - 1]);
		for (size_t i = 0; i < part.n; i++)
			ok = ok && (lower_alnum(part.p[i]) || part.p[i] == '-' || part.p[i] == '_');
	}
	if (!ok)
		problem(&p, "", "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
			"start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
			"'_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')");
	return p.text;
}

const char *validate_dns1035_label(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};

	too_long(&p, "", s, 63, "characters");
	if (!is_label(s) || !lower(s.p[0]))
		problem(&p, "", "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
			"alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex "
			"used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')");
	return p.text;
}

const char *validate_wildcard_dns1123_subdomain(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};

	too_long(&p, "", s, 253, "characters");
	if (!str_has_prefix(s, STR("*.")) || !is_subdomain(str_sub(s, 2, s.n)))
		problem(&p, "", "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
			"consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. "
			"'*.example.com', regex used for validation is '\\*\\." SUBDOMAIN_RE "')");
	return p.text;
}

const char *validate_qualified_name(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};
	ptrdiff_t slash = str_index(s, '/');
	struct str name = s;

	if (slash >= 0) {
		struct str prefix = str_sub(s, 0, (size_t)slash);

		name = str_sub(s, (size_t)slash + 1, s.n);
		if (str_index(name, '/') >= 0)
			return "a valid label key " NAME_MESSAGE
			       " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
		if (!prefix.n)
			problem(&p, "prefix part ", "must be non-empty");
		else
			subdomain(&p, "prefix part ", prefix, "bytes");
	}
	if (!name.n)
		problem(&p, "name part ", "must be non-empty");
	else
		too_long(&p, "name part ", name, 63, "bytes");
	if (!is_name_part(name))
		problem(&p, "name part ", NAME_MESSAGE);
	return p.text;
}

const char *validate_label_value(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};

	too_long(&p, "", s, 63, "bytes");
	if (s.n && !is_name_part(s))
		problem(&p, "", "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
			"and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
			"regex used for validation is '(" NAME_RE ")?')");
	return p.text;
}

const char *validate_c_identifier(struct arena *a, struct str s)
{
	bool ok = s.n && !digit(s.p[0]);

	for (size_t i = 0; i < s.n; i++)
		ok = ok && (alnum(s.p[i]) || s.p[i] == '_');
	return ok ? NULL
		  : "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric "
		    "characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is "
		    "'[A-Za-z_][A-Za-z0-9_]*')";
}

const char *validate_env_var_name(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};

	if (!s.n)
		problem(&p, "", "environment variable name must be non-empty");
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < 0x20 || s.p[i] > 0x7e || s.p[i] == '=') {
			problem(&p, "", "a valid environment variable name must consist only of printable ASCII characters other "
				"than '='");
			break;
		}
	}
	return p.text;
}

const char *validate_config_map_key(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};
	bool ok = s.n;

	too_long(&p, "", s, 253, "characters");
	for (size_t i = 0; i < s.n; i++)
		ok = ok && (alnum(s.p[i]) || s.p[i] == '-' || s.p[i] == '_' || s.p[i] == '.');
	if (!ok)
		problem(&p, "", "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
			"'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')");
	if (str_eqz(s, "."))
		problem(&p, "", "must not be '.'");
	else if (str_eqz(s, ".."))
		problem(&p, "", "must not be '..'");
	else if (str_has_prefix(s, STR("..")))
		problem(&p, "", "must not start with '..'");
	return p.text;
}

const char *validate_port_name(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};
	bool charset = s.n, letter = false, twice = false;

	if (s.n > 15)
		problem(&p, "", "must be no more than 15 characters");
	for (size_t i = 0; i < s.n; i++) {
		charset = charset && (lower_alnum(s.p[i]) || s.p[i] == '-');
		letter = letter || lower(s.p[i]);
		twice = twice || (i && s.p[i] == '-' && s.p[i - 1] == '-');
	}
	if (!charset)
		problem(&p, "", "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
	if (!letter)
		problem(&p, "", "must contain at least one letter (a-z)");
	if (twice)
		problem(&p, "", "must not contain consecutive hyphens");
	if (s.n && (s.p[0] == '-' || s.p[s.n - 1] == '-'))
		problem(&p, "", "must not begin or end with a hyphen");
	return p.text;
}

const char *validate_port_number(struct arena *a, int64_t port)
{
	return port >= 1 && port <= 65535 ? NULL : "must be between 1 and 65535, inclusive";
}

const char *validate_http_header_name(struct arena *a, struct str s)
{
	bool ok = s.n;

	for (size_t i = 0; i < s.n; i++)
		ok = ok && (alnum(s.p[i]) || s.p[i] == '-');
	return ok ? NULL
		  : "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
		    "validation is '[-A-Za-z0-9]+')";
}

const char *validate_percent(struct arena *a, struct str s)
{
	bool ok = s.n > 1 && s.p[s.n - 1] == '%';

	for (size_t i = 0; i + 1 < s.n; i++)
		ok = ok && digit(s.p[i]);
	return ok ? NULL
		  : "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used "
		    "for validation is '[0-9]+%')";
}

const char *validate_path_segment(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};

	if (str_eqz(s, "."))
		return "may not be '.'";
	if (str_eqz(s, ".."))
		return "may not be '..'";
	if (str_index(s, '/') >= 0)
		problem(&p, "", "may not contain '/'");
	if (str_index(s, '%') >= 0)
		problem(&p, "", "may not contain '%'");
	return p.text;
}

static bool steps_up(struct str path)
{
	while (path.p)
		if (str_eqz(str_cut(&path, '/'), ".."))
			return true;
	return false;
}

const char *validate_no_backsteps(struct arena *a, struct str s)
{
	(void)a;
	return steps_up(s) ? "must not contain '..'" : NULL;
}

const char *validate_descending_path(struct arena *a, struct str s)
{
	struct problems p = {a, NULL};

	if (s.n && s.p[0] == '/')
		problem(&p, "", "must be a relative path");
	if (steps_up(s))
		problem(&p, "", "must not contain '..'");
	return p.text;
}

/* ---- addresses ---- */

struct address {
	uint8_t b[16];
	int n;          /* 4 or 16 bytes */
	bool zeros;     /* had leading zeros */
};

static bool parse_v4(struct str s, struct address *out)
{
	struct str rest = s;
	int i = 0;

	out->n = 4;
	while (rest.p) {
		struct str part = str_cut(&rest, '.');
		unsigned v = 0;

		if (i == 4 || !part.n)
			return false;
		for (size_t k = 0; k < part.n; k++) {
			if (!digit(part.p[k]))
				return false;
			v = v * 10 + (unsigned)(part.p[k] - '0');
			if (v > 255)
				return false;
		}
		out->zeros |= part.n > 1 && part.p[0] == '0';
		out->b[i++] = (uint8_t)v;
	}
	return i == 4;
}

static int hex(char c)
{
	return digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool parse_v6(struct str s, struct address *out)
{
	int n = 0, gap = -1;
	size_t i = 0;

	out->n = 16;
	if (s.n >= 2 && s.p[0] == ':' && s.p[1] == ':') {
		gap = 0;
		i = 2;
	}
	while (i < s.n) {
		size_t from = i;
		unsigned v = 0;

		if (n == 16)
			return false;
		while (i < s.n && hex(s.p[i]) >= 0 && i - from < 4)
			v = v * 16 + (unsigned)hex(s.p[i++]);
		if (i == from)
			return false;
		if (i < s.n && s.p[i] == '.') {
			struct address v4 = {0};

			if (n > 12 || !parse_v4(str_sub(s, from, s.n), &v4))
				return false;
			out->zeros |= v4.zeros;
			memcpy(out->b + n, v4.b, 4);
			n += 4;
			break;
		}
		out->b[n++] = (uint8_t)(v >> 8);
		out->b[n++] = (uint8_t)v;
		if (i == s.n)
			break;
		if (s.p[i] != ':')
			return false;
		i++;
		if (i < s.n && s.p[i] == ':') {
			if (gap >= 0)
				return false;
			gap = n;
			i++;
		} else if (i == s.n) {
			return false;
		}
	}
	if (gap < 0)
		return n == 16;
	if (n == 16)
		return false;
	memmove(out->b + 16 - (n - gap), out->b + gap, (size_t)(n - gap));
	memset(out->b + gap, 0, (size_t)(16 - n));
	return true;
}

static bool parse_address(struct str s, struct address *out)
{
	*out = (struct address){0};
	return str_index(s, ':') >= 0 ? parse_v6(s, out) : parse_v4(s, out);
}

static bool v4_in_v6(const struct address *a)
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return a->n == 16 && memcmp(a->b, prefix, 12) == 0;
}

const char *validate_ip(struct arena *a, struct str s)
{
	struct address ip;

	if (!parse_address(s, &ip))
		return "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
	if (ip.zeros)
		return "must not have leading 0s";
	return v4_in_v6(&ip) ? "must not be an IPv4-mapped IPv6 address" : NULL;
}

static struct str address_text(struct arena *a, const struct address *ip)
{
	char text[INET6_ADDRSTRLEN];

	/* Go prints an IPv4-mapped address as IPv4 */
	if (ip->n == 4 || v4_in_v6(ip))
		inet_ntop(AF_INET, ip->n == 4 ? ip->b : ip->b + 12, text, sizeof text);
	else
		inet_ntop(AF_INET6, ip->b, text, sizeof text);
	return arena_str(a, str_from(text));
}

int ip_family(struct str s)
{
	struct address ip;

	return !parse_address(s, &ip) ? 0 : ip.n == 4 || v4_in_v6(&ip) ? 4 : 6;
}

struct str ip_canonical(struct arena *a, struct str s)
{
	struct address ip;

	return parse_address(s, &ip) ? address_text(a, &ip) : STR_NULL;
}

enum ip_scope ip_scope(struct str s)
{
	struct address ip;
	static const uint8_t zero[16];

	if (!parse_address(s, &ip))
		return IP_INVALID;
	const uint8_t *b = ip.n == 16 && v4_in_v6(&ip) ? ip.b + 12 : ip.b;
	int n = b == ip.b ? ip.n : 4;

	if (!memcmp(b, zero, (size_t)n))
		return IP_UNSPECIFIED;
	if (n == 4)
		return b[0] == 127 ? IP_LOOPBACK : b[0] == 169 && b[1] == 254 ? IP_LINK_LOCAL :
		       b[0] == 224 && !b[1] && !b[2] ? IP_LINK_LOCAL_MULTICAST : IP_GLOBAL;
	if (!memcmp(b, zero, 15) && b[15] == 1)
		return IP_LOOPBACK;
	return b[0] == 0xfe && (b[1] & 0xc0) == 0x80 ? IP_LINK_LOCAL : b[0] == 0xff && (b[1] & 0x0f) == 2 ? IP_LINK_LOCAL_MULTICAST : IP_GLOBAL;
}

static bool parse_cidr(struct str s, struct address *ip, int64_t *bits)
{
	ptrdiff_t slash = str_index(s, '/');

	return slash >= 0 && parse_address(str_sub(s, 0, (size_t)slash), ip) && (size_t)slash + 1 < s.n && digit(s.p[slash + 1]) && str_to_i64(str_sub(s, (size_t)slash + 1, s.n), bits) &&
	       *bits >= 0 && *bits <= ip->n * 8;
}

struct str cidr_canonical(struct arena *a, struct str s)
{
	struct address ip;
	int64_t bits;

	if (!parse_cidr(s, &ip, &bits))
		return STR_NULL;
	for (int64_t i = bits; i < ip.n * 8; i++)
		ip.b[i / 8] &= (uint8_t)~(0x80 >> (i % 8));
	return arena_printf(a, "%.*s/%lld", STR_ARG(address_text(a, &ip)), (long long)bits);
}

const char *validate_ip_canonical(struct arena *a, struct str s)
{
	const char *m = validate_ip(a, s);
	struct str c = ip_canonical(a, s);

	return m ? m : str_eq(c, s) ? NULL : arena_printf(a, "must be in canonical form (\"%.*s\")", STR_ARG(c)).p;
}

bool cidr_within(struct str inner, struct str outer)
{
	struct address in, out;
	int64_t in_bits, out_bits;

	if (!parse_cidr(inner, &in, &in_bits) || !parse_cidr(outer, &out, &out_bits) || in.n != out.n || in_bits <= out_bits)
		return false;
	for (int64_t i = 0; i < out_bits; i++)
		if ((in.b[i / 8] ^ out.b[i / 8]) & (0x80 >> (i % 8)))
			return false;
	return true;
}

const char *validate_interface_address(struct arena *a, struct str s)
{
	struct address ip;
	int64_t bits;
	struct str c;

	if (!parse_cidr(s, &ip, &bits))
		return "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
	if (v4_in_v6(&ip) && bits > 32)
		bits -= 96;
	c = arena_printf(a, "%.*s/%lld", STR_ARG(address_text(a, &ip)), (long long)bits);
	return str_eq(c, s) ? NULL : arena_printf(a, "must be in canonical form (\"%.*s\")", STR_ARG(c)).p;
}

const char *validate_cidr_canonical(struct arena *a, struct str s)
{
	const char *m = validate_cidr(a, s);
	struct str c = cidr_canonical(a, s);

	return m ? m : str_eq(c, s) ? NULL : arena_printf(a, "must be in canonical form (\"%.*s\")", STR_ARG(c)).p;
}

const char *validate_ipv4(struct arena *a, struct str s)
{
	struct address ip;

	return parse_address(s, &ip) && ip.n == 4 && !ip.zeros ? NULL : "must be a valid IPv4 address";
}

const char *validate_ipv6(struct arena *a, struct str s)
{
	struct address ip;

	return parse_address(s, &ip) && ip.n == 16 && !v4_in_v6(&ip) ? NULL : "must be a valid IPv6 address";
}

static bool split_cidr(struct str s, struct address *ip, struct str *length, int64_t *bits)
{
	ptrdiff_t slash = str_index(s, '/');

	*length = slash < 0 ? STR_NULL : str_sub(s, (size_t)slash + 1, s.n);
	return slash >= 0 && parse_address(str_sub(s, 0, (size_t)slash), ip) && length->n && length->n <= 3 && digit(length->p[0]) &&
	       str_to_i64(*length, bits) && *bits <= ip->n * 8;
}

bool cidr_parses(struct str s)
{
	struct address ip;
	struct str length;
	int64_t bits;

	return split_cidr(s, &ip, &length, &bits);
}

const char *validate_cidr(struct arena *a, struct str s)
{
	struct address ip;
	int64_t bits;
	struct str length;

	if (!split_cidr(s, &ip, &length, &bits))
		return "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
	if (ip.zeros || (length.n > 1 && length.p[0] == '0'))
		return "must not have leading 0s in IP or prefix length";
	if (v4_in_v6(&ip))
		return "must not have an IPv4-mapped IPv6 address";
	for (int64_t i = bits; i < ip.n * 8; i++)
		if (ip.b[i / 8] & (0x80 >> (i % 8)))
			return "must not have bits set beyond the prefix length";
	return NULL;
}
