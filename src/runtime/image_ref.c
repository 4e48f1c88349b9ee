#include "runtime/image_internal.h"

#include <ctype.h>

/* Grammar and normalisation of github.com/distribution/reference. */

static bool alnum_lower(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* */
static bool component_valid(struct str c)
{
	if (!c.n || !alnum_lower(c.p[0]) || !alnum_lower(c.p[c.n - 1]))
		return false;
	for (size_t i = 0; i < c.n;) {
		if (alnum_lower(c.p[i])) {
			i++;
			continue;
		}
		size_t from = i;
		char sep = c.p[i];
		while (i < c.n && c.p[i] == sep)
			i++;
		size_t n = i - from;
		if (sep == '-' || (sep == '.' && n == 1) || (sep == '_' && n <= 2)) {
			if (i < c.n && alnum_lower(c.p[i]))
				continue;
		}
		return false;
	}
	return true;
}

static bool domain_valid(struct str d)
{
	struct str host = d, port = STR_NULL;
	if (d.n && d.p[0] == '[') {
		ptrdiff_t close = str_index(d, ']');
		if (close < 0)
			return false;
		for (ptrdiff_t i = 1; i < close; i++)
			if (!isxdigit((unsigned char)d.p[i]) && d.p[i] != ':')
				return false;
		host = STR_NULL;
		port = str_sub(d, (size_t)close + 1, d.n);
		if (port.n && port.p[0] != ':')
			return false;
		port = str_sub(port, 1, port.n);
	} else {
		ptrdiff_t colon = str_index(d, ':');
		if (colon >= 0) {
			host = str_sub(d, 0, (size_t)colon);
			port = str_sub(d, (size_t)colon + 1, d.n);
			if (!port.n)
				return false;
		}
		if (!host.n)
			return false;
	}
	for (size_t i = 0; i < port.n; i++)
		if (!isdigit((unsigned char)port.p[i]))
			return false;
	for (size_t i = 0; i < host.n; i++) {
		char c = host.p[i];
		bool edge = i == 0 || i + 1 == host.n || host.p[i - 1] == '.' || host.p[i + 1] == '.';
		if (!isalnum((unsigned char)c) && (edge ? (c != '.' || i == 0 || i + 1 == host.n) : (c != '-' && c != '.')))
			return false;
	}
	return true;
}

static bool tag_valid(struct str t)
{
	if (!t.n || t.n > 128)
		return false;
	for (size_t i = 0; i < t.n; i++)
		if (!isalnum((unsigned char)t.p[i]) && t.p[i] != '_' && (i == 0 || (t.p[i] != '.' && t.p[i] != '-')))
			return false;
	return true;
}

bool digest_valid(struct str d)
{
	if (d.n != DIGEST_LEN || !str_has_prefix(d, STR("sha256:")))
		return false;
	for (size_t i = 7; i < d.n; i++)
		if (!((d.p[i] >= '0' && d.p[i] <= '9') || (d.p[i] >= 'a' && d.p[i] <= 'f')))
			return false;
	return true;
}

struct error *image_ref_parse(struct arena *a, struct str text, struct image_ref *out)
{
	*out = (struct image_ref){0};
	struct str rest = text;
	struct error *bad = NULL;
	ptrdiff_t at = str_index(rest, '@');
	if (at >= 0) {
		out->digest = str_sub(rest, (size_t)at + 1, rest.n);
		rest = str_sub(rest, 0, (size_t)at);
		if (!digest_valid(out->digest))
			bad = error_status(400, "Invalid", "invalid image reference \"%.*s\": the digest must be sha256: and 64 hex digits",
					   STR_ARG(text));
		if (bad)
			return bad;
	}
	ptrdiff_t slash = str_index(rest, '/');
	struct str first = slash < 0 ? STR_NULL : str_sub(rest, 0, (size_t)slash);
	bool upper = false;
	for (size_t i = 0; i < first.n; i++)
		upper |= isupper((unsigned char)first.p[i]) != 0;
	if (first.n && (str_index(first, '.') >= 0 || str_index(first, ':') >= 0 || upper || str_eq(first, STR("localhost")))) {
		out->domain = first;
		rest = str_sub(rest, (size_t)slash + 1, rest.n);
	} else {
		out->domain = STR("docker.io");
	}
	if (str_eq(out->domain, STR("index.docker.io")))
		out->domain = STR("docker.io");
	ptrdiff_t colon = str_rindex(rest, ':');
	if (colon >= 0) {
		out->tag = str_sub(rest, (size_t)colon + 1, rest.n);
		rest = str_sub(rest, 0, (size_t)colon);
		if (!tag_valid(out->tag))
			return error_status(400, "Invalid", "invalid image reference \"%.*s\": invalid tag", STR_ARG(text));
	} else if (!out->digest.n) {
		out->tag = STR("latest");
	}
	if (str_eq(out->domain, STR("docker.io")) && str_index(rest, '/') < 0 && rest.n)
		rest = arena_printf(a, "library/%.*s", STR_ARG(rest));
	out->path = rest;
	if (!domain_valid(out->domain))
		return error_status(400, "Invalid", "invalid image reference \"%.*s\": invalid registry host", STR_ARG(text));
	if (out->domain.n + out->path.n + 1 > 255)
		return error_status(400, "Invalid", "invalid image reference \"%.*s\": longer than 255 characters", STR_ARG(text));
	if (!rest.n)
		return error_status(400, "Invalid", "invalid image reference \"%.*s\": no repository name", STR_ARG(text));
	while (rest.p) {
		struct str c = str_cut(&rest, '/');
		if (!component_valid(c))
			return error_status(400, "Invalid",
					    "invalid image reference \"%.*s\": repository name must be lower-case letters, digits "
					    "and separators",
					    STR_ARG(text));
	}
	return NULL;
}

struct str image_ref_tagged(struct arena *a, const struct image_ref *r)
{
	return r->tag.n ? arena_printf(a, "%.*s/%.*s:%.*s", STR_ARG(r->domain), STR_ARG(r->path), STR_ARG(r->tag)) : STR_NULL;
}

struct str image_ref_digested(struct arena *a, const struct image_ref *r, struct str digest)
{
	return arena_printf(a, "%.*s/%.*s@%.*s", STR_ARG(r->domain), STR_ARG(r->path), STR_ARG(digest));
}
