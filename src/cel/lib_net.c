/* url, ip and cidr: Kubernetes' libraries over Go's net/url and net/netip. */
#include <ctype.h>
#include "cel/lib.h"

#define FN(name) struct cel_value name(struct run *r, const struct cel_value *v, uint32_t n)

/* ---- addresses ---- */

struct addr { /* of net.IP and net.CIDR */
	uint8_t size; /* what runtime costs count, in bytes; first: see cel_actual_size */
	bool six;
	uint8_t bits; /* of a CIDR */
	uint8_t b[16];
};

static bool parse4(struct str s, uint8_t *out)
{
	int field = 0, digits = 0, value = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (isdigit((unsigned char)s.p[i])) {
			if (digits == 1 && value == 0)
				return false; /* a leading zero */
			value = value * 10 + s.p[i] - '0';
			digits++;
			if (value > 255)
				return false;
		} else if (s.p[i] == '.') {
			if (!digits || field == 3)
				return false;
			out[field++] = (uint8_t)value;
			value = digits = 0;
		} else {
			return false;
		}
	}
	if (field < 3 || !digits)
		return false;
	out[3] = (uint8_t)value;
	return true;
}

static bool parse6(struct str s, uint8_t *out)
{
	int ellipsis = -1, at = 0;
	size_t i = 0;

	memset(out, 0, 16);
	if (s.n >= 2 && s.p[0] == ':' && s.p[1] == ':') {
		ellipsis = 0;
		i = 2;
		if (i == s.n)
			return true;
	}
	while (at < 16) {
		unsigned v = 0;
		size_t k = i;

		for (; k < s.n && isxdigit((unsigned char)s.p[k]); k++) {
			v = v * 16 + (unsigned)(isdigit((unsigned char)s.p[k]) ? s.p[k] - '0' : (s.p[k] | 32) - 'a' + 10);
			if (k - i > 3)
				return false;
		}
		if (k == i)
			return false;
		if (k < s.n && s.p[k] == '.') {
			if (ellipsis < 0 && at != 12)
				return false;
			if (at + 4 > 16 || !parse4(str_sub(s, i, s.n), out + at))
				return false;
			at += 4;
			i = s.n;
			break;
		}
		out[at++] = (uint8_t)(v >> 8);
		out[at++] = (uint8_t)v;
		i = k;
		if (i == s.n)
			break;
		if (s.p[i] != ':' || i + 1 == s.n)
			return false;
		i++;
		if (s.p[i] == ':') {
			if (ellipsis >= 0)
				return false;
			ellipsis = at;
			i++;
			if (i == s.n)
				break;
		}
	}
	if (i != s.n)
		return false;
	if (at < 16) {
		int move;

		if (ellipsis < 0)
			return false;
		move = 16 - at;
		for (int k = at - 1; k >= ellipsis; k--)
			out[k + move] = out[k];
		memset(out + ellipsis, 0, (size_t)move);
	} else if (ellipsis >= 0) {
		return false;
	}
	return true;
}

static const char *parse_addr(struct str s, struct addr *a)
{
	*a = (struct addr){0};
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '.') {
			a->size = 4;
			return parse4(s, a->b) ? NULL : "is not an address";
		}
		if (s.p[i] == ':') {
			if (str_index(s, '%') >= 0)
				return "with zone value is not allowed";
			a->six = true;
			a->size = 16;
			if (!parse6(s, a->b))
				return "is not an address";
			for (int k = 0; k < 10; k++)
				if (a->b[k])
					return NULL;
			return a->b[10] == 0xff && a->b[11] == 0xff ? "is an IPv4-mapped IPv6 address, which is not allowed" : NULL;
		}
		if (s.p[i] == '%')
			break;
	}
	return "is not an address";
}

static struct str addr_text(struct arena *a, const struct addr *x)
{
	struct buf b buf_cleanup = {0};
	int best = -1, len = 0;

	if (!x->six)
		return arena_printf(a, "%u.%u.%u.%u", x->b[0], x->b[1], x->b[2], x->b[3]);
	for (int i = 0; i < 16; i += 2) {
		int k = i;

		while (k < 16 && !x->b[k] && !x->b[k + 1])
			k += 2;
		if (k - i > len && k - i > 2) {
			best = i;
			len = k - i;
		}
	}
	for (int i = 0; i < 16; i += 2) {
		if (i == best) {
			buf_puts(&b, "::");
			i += len;
			if (i >= 16)
				break;
		} else if (i) {
			buf_putc(&b, ':');
		}
		buf_printf(&b, "%x", x->b[i] << 8 | x->b[i + 1]);
	}
	return arena_str(a, buf_view(&b));
}

static struct cel_value addr_value(struct run *r, const struct cel_type *t, const struct addr *x)
{
	struct addr *kept = arena_new(r->a, struct addr);

	*kept = *x;
	return cel_opaque(t, kept);
}

FN(lib_ip)
{
	struct addr a;
	const char *why = parse_addr(cel_str(v[0]), &a);

	(void)n;
	if (why)
		return cel_fail(r, "IP Address \"%.*s\" parse error during conversion from string: it %s", STR_ARG(cel_str(v[0])), why);
	return addr_value(r, &cel_type_ip, &a);
}

FN(lib_is_ip)
{
	struct addr a;

	(void)r, (void)n;
	return cel_bool(!parse_addr(cel_str(v[0]), &a));
}

FN(lib_ip_canonical)
{
	struct addr a;
	const char *why = parse_addr(cel_str(v[0]), &a);

	(void)n;
	if (why)
		return cel_fail(r, "IP Address \"%.*s\" parse error during conversion from string: it %s", STR_ARG(cel_str(v[0])), why);
	return cel_bool(str_eq(addr_text(r->a, &a), cel_str(v[0])));
}

#define ADDR(v) ((const struct addr *)(v).ptr)

FN(lib_ip_family)
{
	(void)r, (void)n;
	return cel_int(ADDR(v[0])->six ? 6 : 4);
}

static bool all_zero(const uint8_t *p, int n)
{
	while (n--)
		if (p[n])
			return false;
	return true;
}

static bool loopback(const struct addr *a)
{
	return a->six ? all_zero(a->b, 15) && a->b[15] == 1 : a->b[0] == 127;
}

static bool link_local(const struct addr *a)
{
	return a->six ? a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80 : a->b[0] == 169 && a->b[1] == 254;
}

static bool multicast(const struct addr *a)
{
	return a->six ? a->b[0] == 0xff : (a->b[0] & 0xf0) == 0xe0;
}

FN(lib_ip_unspecified)
{
	(void)r, (void)n;
	return cel_bool(all_zero(ADDR(v[0])->b, 16));
}

FN(lib_ip_loopback)
{
	(void)r, (void)n;
	return cel_bool(loopback(ADDR(v[0])));
}

FN(lib_ip_llm)
{
	const struct addr *a = ADDR(v[0]);

	(void)r, (void)n;
	return cel_bool(a->six ? a->b[0] == 0xff && (a->b[1] & 15) == 2 : a->b[0] == 224 && a->b[1] == 0 && a->b[2] == 0);
}

FN(lib_ip_llu)
{
	(void)r, (void)n;
	return cel_bool(link_local(ADDR(v[0])));
}

FN(lib_ip_global)
{
	const struct addr *a = ADDR(v[0]);
	bool none = all_zero(a->b, 16), broadcast = !a->six && a->b[0] == 255 && a->b[1] == 255 && a->b[2] == 255 && a->b[3] == 255;

	(void)r, (void)n;
	return cel_bool(!none && !broadcast && !loopback(a) && !multicast(a) && !link_local(a));
}

FN(lib_ip_string)
{
	(void)n;
	return cel_string(addr_text(r->a, ADDR(v[0])));
}

static const char *parse_cidr(struct str s, struct addr *a)
{
	ptrdiff_t slash = str_rindex(s, '/');
	struct str bits;
	const char *why;
	int value = 0;

	if (slash < 0)
		return "has no '/'";
	bits = str_sub(s, (size_t)slash + 1, s.n);
	why = parse_addr(str_sub(s, 0, (size_t)slash), a);
	if (why)
		return why;
	if (!bits.n || bits.n > 3 || (bits.n > 1 && bits.p[0] == '0'))
		return "has a bad prefix length";
	for (size_t i = 0; i < bits.n; i++) {
		if (!isdigit((unsigned char)bits.p[i]))
			return "has a bad prefix length";
		value = value * 10 + bits.p[i] - '0';
	}
	if (value > (a->six ? 128 : 32))
		return "has a prefix length out of range";
	a->bits = (uint8_t)value;
	a->size = (uint8_t)((value + 7) / 8);
	return NULL;
}

FN(lib_cidr)
{
	struct addr a;
	const char *why = parse_cidr(cel_str(v[0]), &a);

	(void)n;
	if (why)
		return cel_fail(r, "network address parse error during conversion from string: \"%.*s\" %s", STR_ARG(cel_str(v[0])), why);
	return addr_value(r, &cel_type_cidr, &a);
}

FN(lib_is_cidr)
{
	struct addr a;

	(void)r, (void)n;
	return cel_bool(!parse_cidr(cel_str(v[0]), &a));
}

static bool same_prefix(const uint8_t *x, const uint8_t *y, int bits)
{
	if (memcmp(x, y, (size_t)bits / 8))
		return false;
	return bits % 8 == 0 || !((x[bits / 8] ^ y[bits / 8]) >> (8 - bits % 8));
}

FN(lib_contains_ip)
{
	const struct addr *c = ADDR(v[0]), *ip = ADDR(v[1]);
	struct addr parsed;

	(void)n;
	if (v[1].kind == CEL_STRING) {
		const char *why = parse_addr(cel_str(v[1]), &parsed);

		if (why)
			return cel_fail(r, "IP Address \"%.*s\" parse error during conversion from string: it %s", STR_ARG(cel_str(v[1])), why);
		ip = &parsed;
	}
	return cel_bool(c->six == ip->six && same_prefix(c->b, ip->b, c->bits));
}

FN(lib_contains_cidr)
{
	const struct addr *c = ADDR(v[0]), *o = ADDR(v[1]);
	struct addr parsed;

	(void)n;
	if (v[1].kind == CEL_STRING) {
		const char *why = parse_cidr(cel_str(v[1]), &parsed);

		if (why)
			return cel_fail(r, "network address parse error during conversion from string: \"%.*s\" %s", STR_ARG(cel_str(v[1])), why);
		o = &parsed;
	}
	return cel_bool(c->six == o->six && c->bits <= o->bits && same_prefix(c->b, o->b, c->bits));
}

FN(lib_cidr_ip)
{
	struct addr a = *ADDR(v[0]);

	(void)n;
	a.bits = 0;
	a.size = a.six ? 16 : 4;
	return addr_value(r, &cel_type_ip, &a);
}

FN(lib_cidr_prefix)
{
	(void)r, (void)n;
	return cel_int(ADDR(v[0])->bits);
}

FN(lib_cidr_masked)
{
	struct addr a = *ADDR(v[0]);

	(void)n;
	for (int i = 0; i < 16; i++) {
		int keep = a.bits - i * 8;

		if (keep <= 0)
			a.b[i] = 0;
		else if (keep < 8)
			a.b[i] &= (uint8_t)(0xff << (8 - keep));
	}
	return addr_value(r, &cel_type_cidr, &a);
}

FN(lib_cidr_string)
{
	const struct addr *a = ADDR(v[0]);
	struct str s = addr_text(r->a, a);

	(void)n;
	return cel_string(arena_printf(r->a, "%.*s/%u", STR_ARG(s), a->bits));
}

/* ---- URLs (RFC 3986 as Go's net/url reads it) ---- */

struct url {
	struct str text, scheme, user, host, path /* as written */, query, fragment;
	bool has_user, opaque, force_query;
};

enum part { PART_HOST, PART_ZONE, PART_USER, PART_PATH, PART_QUERY, PART_FRAGMENT };

static bool unreserved(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '_' || c == '.' || c == '~';
}

/* Go's shouldEscape, for what a part's escaped form keeps. */
static bool keeps(char c, enum part p)
{
	if (unreserved(c))
		return true;
	if (p <= PART_ZONE && c && strchr("!$&'()*+,;=:[]<>\"", c))
		return true;
	if (c && strchr("$&+,/:;=?@", c)) {
		switch (p) {
		case PART_PATH:
			return c != '?';
		case PART_USER:
			return c != '@' && c != '/' && c != '?' && c != ':';
		case PART_FRAGMENT:
			return true;
		default:
			return false;
		}
	}
	if (p == PART_FRAGMENT && c && strchr("!()*", c))
		return true;
	return false;
}

static int nibble(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : (c | 32) - 'a' + 10;
}

/* What is wrong with a URL: a text, around the part that it is about. */
struct flaw {
	const char *before, *after;
	struct str part;
};

static bool wrong(struct flaw *f, const char *before)
{
	*f = (struct flaw){.before = before};
	return false;
}

static bool wrong_part(struct flaw *f, const char *before, struct str part, const char *after)
{
	*f = (struct flaw){before, after, part};
	return false;
}

/* Go's unescape, as far as it fails. */
static bool escapes_fit(struct str s, enum part p, struct flaw *f)
{
	for (size_t i = 0; i < s.n; i++) {
		struct str three = str_sub(s, i, i + 3 < s.n ? i + 3 : s.n);

		if (s.p[i] == '%') {
			if (i + 2 >= s.n || !isxdigit((unsigned char)s.p[i + 1]) || !isxdigit((unsigned char)s.p[i + 2]))
				return wrong_part(f, "invalid URL escape ", three, "");
			/* hosts: only non-ASCII bytes may be escaped, and a zone's %25 */
			if (p == PART_HOST && s.p[i + 1] < '8' && !str_eqz(three, "%25"))
				return wrong_part(f, "invalid URL escape ", three, "");
			if (p == PART_ZONE && !str_eqz(three, "%25") && !str_eqz(three, "%20") &&
			    !keeps((char)(nibble(s.p[i + 1]) << 4 | nibble(s.p[i + 2])), PART_HOST))
				return wrong_part(f, "invalid URL escape ", three, "");
			i += 2;
		} else if (p <= PART_ZONE && (unsigned char)s.p[i] < 0x80 && !keeps(s.p[i], p)) {
			return wrong_part(f, "invalid character ", str_sub(s, i, i + 1), " in host name");
		}
	}
	return true;
}

static bool port_fits(struct str s, struct flaw *f)
{
	bool fits = !s.n || s.p[0] == ':';

	for (size_t i = 1; i < s.n && fits; i++)
		fits = isdigit((unsigned char)s.p[i]) != 0;
	return fits || wrong_part(f, "invalid port ", s, " after host");
}

static bool literal_fits(struct str s, struct flaw *f)
{
	ptrdiff_t close = str_rindex(s, ']'), zone;
	struct addr a;
	struct str inner, port;

	if (close < 0)
		return wrong(f, "missing ']' in host");
	inner = str_sub(s, 1, (size_t)close);
	port = str_sub(s, (size_t)close + 1, s.n);
	if (!port_fits(port, f))
		return false;
	zone = str_find(inner, STR("%25"));
	if (zone >= 0 && !escapes_fit(str_sub(inner, (size_t)zone, inner.n), PART_ZONE, f))
		return false;
	if (zone >= 0)
		inner = str_sub(inner, 0, (size_t)zone);
	if (!escapes_fit(inner, PART_HOST, f))
		return false;
	return parse6(inner, a.b) || wrong(f, parse4(inner, a.b) ? "invalid IP-literal" : "invalid host");
}

static bool parse_authority(struct str s, struct url *u, struct flaw *f)
{
	ptrdiff_t at = str_rindex(s, '@'), bracket, colon, last;

	u->host = str_sub(s, (size_t)(at + 1), s.n);
	bracket = str_rindex(u->host, '[');
	if (bracket > 0)
		return wrong(f, "invalid IP-literal");
	colon = str_index(u->host, ':');
	last = str_rindex(u->host, ':');
	if (bracket < 0 && colon != last && !str_eq_nocase(u->scheme, STR("http")) && !str_eq_nocase(u->scheme, STR("https")))
		colon = last;
	if (bracket == 0 ? !literal_fits(u->host, f) :
			   (colon >= 0 && !port_fits(str_sub(u->host, (size_t)colon, u->host.n), f)) || !escapes_fit(u->host, PART_HOST, f))
		return false;
	if (at < 0)
		return true;
	u->user = str_sub(s, 0, (size_t)at);
	u->has_user = true;
	for (size_t i = 0; i < u->user.n; i++)
		if (!u->user.p[i] || (!unreserved(u->user.p[i]) && !strchr(":!$&'()*+,;=%@", u->user.p[i])))
			return wrong(f, "net/url: invalid userinfo");
	return escapes_fit(u->user, PART_USER, f);
}

/* url.ParseRequestURI; without `request` what url.Parse makes of the part before a fragment. */
static bool parse_part(struct str s, bool request, struct url *u, struct flaw *f)
{
	struct str rest = s;
	ptrdiff_t at;

	*u = (struct url){.text = s};
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return wrong(f, "net/url: invalid control character in URL");
	if (!s.n)
		return wrong(f, "empty url");
	if (str_eqz(s, "*")) {
		u->path = s;
		return true;
	}
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (isalpha((unsigned char)c) || (i && (isdigit((unsigned char)c) || c == '+' || c == '-' || c == '.')))
			continue;
		if (c == ':' && !i)
			return wrong(f, "missing protocol scheme");
		if (c == ':') {
			u->scheme = str_sub(s, 0, i);
			rest = str_sub(s, i + 1, s.n);
		}
		break;
	}
	at = str_index(rest, '?');
	if (at >= 0) {
		u->query = str_sub(rest, (size_t)at + 1, rest.n);
		rest = str_sub(rest, 0, (size_t)at);
	}
	if (!(rest.n && rest.p[0] == '/')) {
		u->opaque = true;
		return u->scheme.n || wrong(f, "invalid URI for request");
	}
	if (str_has_prefix(rest, STR("//")) && (u->scheme.n || (!request && !str_has_prefix(rest, STR("///"))))) {
		struct str authority = str_sub(rest, 2, rest.n);

		at = str_index(authority, '/');
		rest = at >= 0 ? str_sub(authority, (size_t)at, authority.n) : STR_NULL;
		authority = at >= 0 ? str_sub(authority, 0, (size_t)at) : authority;
		if (!parse_authority(authority, u, f))
			return false;
	}
	u->path = rest;
	return escapes_fit(rest, PART_PATH, f);
}

/* As a request's URI a URL has no fragment: # is a part of what it stands in. It is then read again, with one. */
static bool parse_url(struct str s, struct url *u, struct flaw *f)
{
	ptrdiff_t at = str_index(s, '#');

	if (!parse_part(s, true, u, f) || !parse_part(at >= 0 ? str_sub(s, 0, (size_t)at) : s, false, u, f))
		return false;
	if (at >= 0)
		u->fragment = str_sub(s, (size_t)at + 1, s.n);
	u->text = s;
	return escapes_fit(u->fragment, PART_FRAGMENT, f);
}

static const char *flaw_text(struct arena *a, struct str s, const struct flaw *f)
{
	struct buf b buf_cleanup = {0};

	buf_puts(&b, "parse ");
	buf_quote(&b, s);
	buf_printf(&b, ": %s", f->before);
	if (f->after) {
		buf_quote(&b, f->part);
		buf_puts(&b, f->after);
	}
	return arena_strz(a, buf_view(&b));
}

FN(lib_url)
{
	struct url *u = arena_new(r->a, struct url);
	struct flaw f;

	(void)n;
	if (!parse_url(cel_str(v[0]), u, &f))
		return cel_fail(r, "URL parse error during conversion from string: %s", flaw_text(r->a, cel_str(v[0]), &f));
	return cel_opaque(&cel_type_url, u);
}

FN(lib_is_url)
{
	struct url u;
	struct flaw f;

	(void)r, (void)n;
	return cel_bool(parse_part(cel_str(v[0]), true, &u, &f));
}

const char *cel_uri_error(struct arena *a, struct str s)
{
	struct url u;
	struct flaw f;

	return parse_part(s, true, &u, &f) ? NULL : flaw_text(a, s, &f);
}

#define URL(v) ((const struct url *)(v).ptr)

FN(lib_url_scheme)
{
	struct str s = URL(v[0])->scheme;
	char *p = arena_bytes(r->a, s.n + 1);

	(void)n;
	for (size_t i = 0; i < s.n; i++)
		p[i] = (char)tolower((unsigned char)s.p[i]);
	return cel_string(str_of(p, s.n));
}

static struct str unescape(struct arena *a, struct str s, bool plus)
{
	char *p = arena_bytes(a, s.n + 1);
	size_t k = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '%' && i + 2 < s.n) {
			p[k++] = (char)(nibble(s.p[i + 1]) << 4 | nibble(s.p[i + 2]));
			i += 2;
		} else {
			p[k++] = plus && s.p[i] == '+' ? ' ' : s.p[i];
		}
	}
	return str_of(p, k);
}

FN(lib_url_host)
{
	(void)n;
	return cel_string(unescape(r->a, URL(v[0])->host, false));
}

FN(lib_url_hostname)
{
	struct str h = unescape(r->a, URL(v[0])->host, false);
	ptrdiff_t colon = str_rindex(h, ':');

	(void)n;
	if (h.n && h.p[0] == '[') {
		ptrdiff_t close = str_index(h, ']');

		return cel_string(close > 0 ? str_sub(h, 1, (size_t)close) : h);
	}
	return cel_string(colon >= 0 ? str_sub(h, 0, (size_t)colon) : h);
}

FN(lib_url_port)
{
	struct str h = URL(v[0])->host;
	ptrdiff_t colon = str_rindex(h, ':'), close = str_rindex(h, ']');

	(void)r, (void)n;
	return cel_string(colon >= 0 && colon > close ? str_sub(h, (size_t)colon + 1, h.n) : STR(""));
}

FN(lib_url_path)
{
	struct str p = URL(v[0])->path;
	struct buf b buf_cleanup = {0};
	bool valid = true;

	(void)n;
	/* what was written, if it is a valid encoding; else encoded anew */
	for (size_t i = 0; i < p.n && valid; i++)
		valid = (p.p[i] && strchr("!$&'()*+,;=:@[]%", p.p[i])) || keeps(p.p[i], PART_PATH);
	if (valid)
		return cel_string(p);
	p = unescape(r->a, p, false);
	for (size_t i = 0; i < p.n; i++) {
		if (keeps(p.p[i], PART_PATH))
			buf_putc(&b, p.p[i]);
		else
			buf_printf(&b, "%%%02X", (unsigned char)p.p[i]);
	}
	return cel_string(arena_str(r->a, buf_view(&b)));
}

FN(lib_url_query)
{
	struct str rest = URL(v[0])->query;
	struct cel_map *m = cel_map_new(r->a, 0);
	struct flaw f;

	(void)n;
	while (rest.n) {
		struct str pair = str_cut(&rest, '&'), key = pair, value = STR_NULL;
		ptrdiff_t eq = str_index(pair, '=');
		struct cel_value k, *found;
		struct growing list = {0};

		if (eq >= 0) {
			key = str_sub(pair, 0, (size_t)eq);
			value = str_sub(pair, (size_t)eq + 1, pair.n);
		}
		/* like Go's Query(), what cannot be read is left out */
		if (!pair.n || str_index(pair, ';') >= 0 || !escapes_fit(key, PART_QUERY, &f) || !escapes_fit(value, PART_QUERY, &f))
			continue;
		k = cel_string(unescape(r->a, key, true));
		found = cel_map_find(m, k);
		for (uint32_t i = 0; found && i < cel_size(*found); i++)
			*arena_push(r->a, &list) = cel_at(r->a, *found, i);
		*arena_push(r->a, &list) = cel_string(unescape(r->a, value, true));
		cel_map_put(r->a, m, k, cel_list(list.v, list.n));
	}
	return cel_map_value(m);
}

bool cel_net_equal(struct cel_value x, struct cel_value y)
{
	const struct addr *a = x.ptr, *b = y.ptr;

	if (x.type == &cel_type_url) { /* by text: both were read by the same rules */
		size_t from = URL(x)->scheme.n;

		return str_eq_nocase(URL(x)->scheme, URL(y)->scheme) &&
		       str_eq(str_sub(URL(x)->text, from, URL(x)->text.n), str_sub(URL(y)->text, from, URL(y)->text.n));
	}
	return a->six == b->six && a->bits == b->bits && !memcmp(a->b, b->b, 16);
}
