#include "apiserver/proxy_html.h"

/* HTML 4's and 5's attributes that hold a URL. */
static const struct {
	const char *tag, *attrs[4];
} url_attrs[] = {
	{"a", {"href"}}, {"applet", {"codebase"}}, {"area", {"href"}}, {"audio", {"src"}}, {"base", {"href"}}, {"blockquote", {"cite"}},
	{"body", {"background"}}, {"button", {"formaction"}}, {"command", {"icon"}}, {"del", {"cite"}}, {"embed", {"src"}},
	{"form", {"action"}}, {"frame", {"longdesc", "src"}}, {"head", {"profile"}}, {"html", {"manifest"}}, {"iframe", {"longdesc", "src"}},
	{"img", {"longdesc", "src", "usemap"}}, {"input", {"src", "usemap", "formaction"}}, {"ins", {"cite"}}, {"link", {"href"}},
	{"object", {"classid", "codebase", "data", "usemap"}}, {"q", {"cite"}}, {"script", {"src"}}, {"source", {"src"}},
	{"video", {"poster", "src"}},
};

static bool same(struct str s, const char *z)
{
	size_t n = strlen(z);

	if (s.n != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] + 32 : s.p[i]) != z[i])
			return false;
	return true;
}

static bool holds_url(struct str tag, struct str attr)
{
	for (size_t i = 0; i < sizeof url_attrs / sizeof *url_attrs; i++)
		if (same(tag, url_attrs[i].tag))
			for (int k = 0; k < 4 && url_attrs[i].attrs[k]; k++)
				if (same(attr, url_attrs[i].attrs[k]))
					return true;
	return false;
}

void proxy_url_rewrite(struct str url, struct str prefix, struct str host, struct str client_host, struct buf *out)
{
	struct str path = url;
	ptrdiff_t at = str_index(url, ':');

	if (at > 0 && str_has_prefix(str_sub(url, (size_t)at, url.n), STR("://")))
		path = str_sub(url, (size_t)at + 1, url.n);
	if (str_has_prefix(path, STR("//"))) {
		struct str rest = str_sub(path, 2, path.n), h;
		size_t end = 0;

		while (end < rest.n && rest.p[end] != '/' && rest.p[end] != '?' && rest.p[end] != '#')
			end++;
		h = str_sub(rest, 0, end);
		path = str_sub(rest, end, rest.n);
		if ((!str_eq(h, host) && !str_eq(h, client_host)) || !path.n || path.p[0] != '/') {
			buf_str(out, url);
			return;
		}
	} else if (!path.n || path.p[0] != '/') {
		buf_str(out, url);
		return;
	}
	if (!str_has_prefix(path, prefix))
		buf_str(out, prefix);
	buf_str(out, path);
}

static bool space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

/* The value of an attribute, its entities &amp; left as they are: a path's prefix does not depend on them. */
static void attribute(struct str tag, struct str name, struct str value, struct str prefix, struct str host, struct str client_host,
		      struct buf *out)
{
	if (holds_url(tag, name))
		proxy_url_rewrite(value, prefix, host, client_host, out);
	else
		buf_str(out, value);
}

/* Behind "<" and a letter; returns where the tag ends. */
static size_t tag(struct str h, size_t i, struct str prefix, struct str host, struct str client_host, struct buf *out, struct str *name)
{
	size_t start = i;

	while (i < h.n && !space(h.p[i]) && h.p[i] != '>' && h.p[i] != '/')
		i++;
	*name = str_sub(h, start, i);
	buf_str(out, *name);
	while (i < h.n && h.p[i] != '>') {
		size_t from = i;
		struct str attr;

		while (i < h.n && (space(h.p[i]) || h.p[i] == '/'))
			i++;
		buf_str(out, str_sub(h, from, i));
		from = i;
		while (i < h.n && !space(h.p[i]) && h.p[i] != '>' && h.p[i] != '/' && h.p[i] != '=')
			i++;
		if (i == from && i < h.n && h.p[i] == '=')
			i++; /* a stray = begins a name */
		attr = str_sub(h, from, i);
		buf_str(out, attr);
		from = i;
		while (i < h.n && space(h.p[i]))
			i++;
		if (i >= h.n || h.p[i] != '=') {
			i = from;
			if (!attr.n && i < h.n && h.p[i] != '>' && !space(h.p[i]) && h.p[i] != '/')
				buf_putc(out, h.p[i++]);
			continue;
		}
		i++;
		while (i < h.n && space(h.p[i]))
			i++;
		buf_str(out, str_sub(h, from, i));
		if (i < h.n && (h.p[i] == '"' || h.p[i] == '\'')) {
			char quote = h.p[i];

			buf_putc(out, quote);
			from = ++i;
			while (i < h.n && h.p[i] != quote)
				i++;
			attribute(*name, attr, str_sub(h, from, i), prefix, host, client_host, out);
			if (i < h.n)
				buf_putc(out, h.p[i++]);
		} else {
			from = i;
			while (i < h.n && !space(h.p[i]) && h.p[i] != '>')
				i++;
			attribute(*name, attr, str_sub(h, from, i), prefix, host, client_host, out);
		}
	}
	if (i < h.n)
		buf_putc(out, h.p[i++]);
	return i;
}

/* Where "</name" begins at or behind i, else the end. */
static size_t raw_end(struct str h, size_t i, const char *name)
{
	size_t n = strlen(name);

	for (; i + n + 2 <= h.n; i++)
		if (h.p[i] == '<' && h.p[i + 1] == '/' && same(str_sub(h, i + 2, i + 2 + n), name))
			return i;
	return h.n;
}

void proxy_html_rewrite(struct str h, struct str prefix, struct str host, struct str client_host, struct buf *out)
{
	static const char *const raw[] = {"script", "style", "textarea", "title"};
	size_t i = 0;

	while (i < h.n) {
		size_t from = i;
		struct str name;

		while (i < h.n && h.p[i] != '<')
			i++;
		buf_str(out, str_sub(h, from, i));
		if (i >= h.n)
			break;
		if (str_has_prefix(str_sub(h, i, h.n), STR("<!--"))) {
			ptrdiff_t end = str_find(str_sub(h, i + 4, h.n), STR("-->"));
			size_t to = end < 0 ? h.n : i + 4 + (size_t)end + 3;

			buf_str(out, str_sub(h, i, to));
			i = to;
			continue;
		}
		buf_putc(out, h.p[i++]);
		if (i >= h.n || !((h.p[i] >= 'a' && h.p[i] <= 'z') || (h.p[i] >= 'A' && h.p[i] <= 'Z')))
			continue;
		i = tag(h, i, prefix, host, client_host, out, &name);
		for (size_t k = 0; k < sizeof raw / sizeof *raw; k++)
			if (same(name, raw[k])) {
				size_t to = raw_end(h, i, raw[k]);

				buf_str(out, str_sub(h, i, to));
				i = to;
			}
	}
}
