/* Targets of HTTP/1.1 requests (RFC 9112, 3.2), as Go's net/url reads them: what upstream serves and what it refuses.
 */
#include <arpa/inet.h>
#include <ctype.h>

#include "net/internal.h"

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

bool http_escapes_ok(struct str target)
{
	ptrdiff_t q = str_index(target, '?');
	size_t n = q < 0 ? target.n : (size_t)q;

	for (size_t i = 0; i < n; i++)
		if (target.p[i] == '%' && (i + 2 >= n || !is_hex(target.p[i + 1]) || !is_hex(target.p[i + 2])))
			return false;
	return true;
}

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static bool all_of(struct str s, const char *signs)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_alnum(s.p[i]) && !(s.p[i] && strchr(signs, s.p[i])))
			return false;
	return true;
}

bool http_host_ok(struct str host)
{
	return all_of(host, "!$%&'()*+,-.:;=[]_~");
}

/* What may stand in a host unescaped; only bytes above ASCII may be escaped, and the % of a zone. */
static bool host_bytes_ok(struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '%') {
			if (i + 2 >= s.n || !is_hex(s.p[i + 1]) || !is_hex(s.p[i + 2]) ||
			    (s.p[i + 1] < '8' && memcmp(s.p + i, "%25", 3) != 0))
				return false;
			i += 2;
		} else if ((unsigned char)c < 0x80 && !is_alnum(c) && !strchr("-_.~!$&'()*+,;=:[]<>\"", c)) {
			return false;
		}
	}
	return true;
}

/* Nothing, or a colon and digits, if any. */
static bool port_ok(struct str s)
{
	for (size_t i = 1; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return !s.n || s.p[0] == ':';
}

static bool host_ok(struct str host, bool web)
{
	ptrdiff_t open = str_rindex(host, '['), colon;

	if (open > 0)
		return false;
	if (open == 0) {
		ptrdiff_t close = str_rindex(host, ']'), zone;
		struct str ip = str_sub(host, 1, close < 0 ? host.n : (size_t)close);
		struct in6_addr to;
		char text[INET6_ADDRSTRLEN];

		zone = str_find(ip, STR("%25"));
		if (zone >= 0 && (size_t)zone + 3 == ip.n)
			return false;
		ip = zone < 0 ? ip : str_sub(ip, 0, (size_t)zone);
		if (close < 0 || ip.n >= sizeof text || !port_ok(str_sub(host, (size_t)close + 1, host.n)))
			return false;
		memcpy(text, ip.p, ip.n);
		text[ip.n] = 0;
		return inet_pton(AF_INET6, text, &to) == 1;
	}
	colon = web ? str_index(host, ':') : str_rindex(host, ':');
	return port_ok(colon < 0 ? STR_NULL : str_sub(host, (size_t)colon, host.n)) && host_bytes_ok(host);
}

static bool authority_ok(struct str authority, bool web, struct str *host)
{
	ptrdiff_t at = str_rindex(authority, '@');
	struct str user = str_sub(authority, 0, at < 0 ? 0 : (size_t)at);

	*host = str_sub(authority, (size_t)(at + 1), authority.n);
	return all_of(user, "-._:~!$&'()*+,;=%@") && http_escapes_ok(user) && host_ok(*host, web);
}

/* The length of "scheme:" at the front, 0: none; -1: a colon where a scheme would begin. */
static int scheme_length(struct str t)
{
	for (size_t i = 0; i < t.n; i++) {
		char c = t.p[i];

		if ((c | 32) >= 'a' && (c | 32) <= 'z')
			continue;
		if (c == ':')
			return i ? (int)i + 1 : -1;
		if (!i || !(is_alnum(c) || c == '+' || c == '-' || c == '.'))
			return 0;
	}
	return 0;
}

bool h1_target_parse(struct h1_head *h)
{
	struct str t = h->target, authority = STR_NULL, path;
	bool connect = str_eq(h->method, STR("CONNECT")) && !str_has_prefix(t, STR("/")), web = connect;
	int scheme = 0;

	for (size_t i = 0; i < t.n; i++)
		if ((unsigned char)t.p[i] <= 32 || t.p[i] == 127)
			return false;
	if (!connect) {
		if (!t.n)
			return false;
		if (str_eq(t, STR("*")))
			return true;
		scheme = scheme_length(t);
		if (scheme < 0)
			return false;
		web = str_eq_nocase(str_sub(t, 0, (size_t)scheme), STR("http:")) ||
		      str_eq_nocase(str_sub(t, 0, (size_t)scheme), STR("https:"));
	}
	t = str_sub(t, (size_t)scheme, t.n);
	ptrdiff_t q = str_index(t, '?');
	size_t end = q < 0 ? t.n : (size_t)q;

	if (!connect && !(end && t.p[0] == '/')) {
		/* what is opaque has no path */
		h->target = str_sub(t, end, t.n);
		return scheme > 0;
	}
	if (connect || (scheme && end >= 2 && t.p[1] == '/')) {
		struct str rest = str_sub(t, connect ? 0 : 2, end), host;
		ptrdiff_t slash = str_index(rest, '/');

		authority = slash < 0 ? rest : str_sub(rest, 0, (size_t)slash);
		if (!authority_ok(authority, web, &host))
			return false;
		if (host.n)
			h->host = host; /* counts more than the field */
		t = str_sub(t, (size_t)(authority.p + authority.n - t.p), t.n);
	}
	h->target = t;
	q = str_index(t, '?');
	path = q < 0 ? t : str_sub(t, 0, (size_t)q);
	return http_escapes_ok(path);
}
