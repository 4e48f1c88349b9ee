#include "apiserver/request.h"
#include <ctype.h>
#include <stdlib.h>
#include "base/map.h"
#include "schema/selector.h"

/* Go's url.QueryUnescape: p NULL for an escape that is none, which drops the parameter. */
static struct str query_unescape(struct arena *a, struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '%' && (i + 2 >= s.n || !isxdigit((unsigned char)s.p[i + 1]) || !isxdigit((unsigned char)s.p[i + 2])))
			return STR_NULL;
	s = http_unescape(a, s, true);
	return s.p ? s : STR("");
}

/* As Go's url.ParseQuery: what has a semicolon or a broken escape is left out. */
void query_parse(struct arena *a, struct str raw, struct query *out)
{
	LIST(struct query_param) list = {0};
	struct str rest = raw;
	size_t ands = 0;

	for (size_t i = 0; i < raw.n; i++)
		ands += raw.p[i] == '&';
	while (rest.p && rest.n && ands < QUERY_PARAMS_MAX) {
		struct str tok = str_cut(&rest, '&');
		ptrdiff_t eq = str_index(tok, '=');
		struct query_param p;

		if (!tok.n || str_index(tok, ';') >= 0)
			continue;
		p.name = query_unescape(a, eq < 0 ? tok : str_sub(tok, 0, (size_t)eq));
		p.value = query_unescape(a, eq < 0 ? STR("") : str_sub(tok, (size_t)eq + 1, tok.n));
		if (p.name.p && p.value.p)
			*arena_push(a, &list) = p;
	}
	out->v = list.v;
	out->n = list.n;
}

struct str query_get(const struct query *q, const char *name)
{
	for (size_t i = 0; i < q->n; i++)
		if (str_eqz(q->v[i].name, name))
			return q->v[i].value;
	return STR_NULL;
}

void query_all(struct arena *a, const struct query *q, const char *name, struct strings *out)
{
	for (size_t i = 0; i < q->n; i++)
		if (str_eqz(q->v[i].name, name))
			*arena_push(a, out) = q->v[i].value;
}

bool query_has(const struct query *q, const char *name)
{
	return query_get(q, name).p != NULL;
}

bool query_bool(const struct query *q, const char *name)
{
	struct str v = query_get(q, name);

	return v.p && query_true(v);
}

bool query_true(struct str v)
{
	return !str_eq_nocase(v, STR("false")) && !str_eqz(v, "0");
}

bool query_int(const struct query *q, const char *name, int64_t *out, struct error **err)
{
	struct str v = query_get(q, name);

	*err = NULL;
	if (!v.p)
		return false;
	if (!str_to_i64(v, out)) {
		*err = error_status(400, "BadRequest", "strconv.ParseInt: parsing \"%.*s\": invalid syntax", STR_ARG(v));
		return false;
	}
	return true;
}

static struct str lower(struct arena *a, struct str s)
{
	char *p = arena_bytes(a, s.n + 1);

	for (size_t i = 0; i < s.n; i++)
		p[i] = (char)tolower((unsigned char)s.p[i]);
	p[s.n] = 0;
	return str_of(p, s.n);
}

/* Segments of a decoded path, without slashes at its ends; empty ones between are segments. */
#define SEGMENTS_MAX 64
struct segments {
	struct str v[SEGMENTS_MAX];
	size_t end[SEGMENTS_MAX]; /* offset behind the segment in the raw path */
	size_t n;
};

/* The length of an encoded slash at i, or of a plain one, or 0. */
static size_t slash_at(struct str raw, size_t i)
{
	if (raw.p[i] == '/')
		return 1;
	return raw.p[i] == '%' && i + 2 < raw.n && raw.p[i + 1] == '2' && (raw.p[i + 2] | 0x20) == 'f' ? 3 : 0;
}

static void split(struct arena *a, struct str raw, struct segments *out)
{
	size_t i = 0, end = raw.n, slash;

	out->n = 0;
	while (i < end && (slash = slash_at(raw, i)) != 0)
		i += slash;
	for (;;) {
		if (end > i && raw.p[end - 1] == '/')
			end--;
		else if (end >= i + 3 && slash_at(raw, end - 3) == 3)
			end -= 3;
		else
			break;
	}
	while (i < end && out->n < SEGMENTS_MAX) {
		size_t start = i;

		while (i < end && !slash_at(raw, i))
			i++;
		out->v[out->n] = http_unescape(a, str_sub(raw, start, i), false);
		out->end[out->n++] = i;
		i += i < end ? slash_at(raw, i) : 0;
	}
}

static void raw_rest(struct str raw, const struct segments *s, size_t last, struct request_info *out)
{
	out->raw_rest = str_sub(raw, s->end[last], raw.n);
	out->rest_slash = out->raw_rest.n > 0 && slash_at(out->raw_rest, 0);
}

struct str selected_name(struct arena *a, struct str fields)
{
	const struct selector *s;
	struct str key, value;
	bool negated;
	struct error *e = field_selector_parse(a, fields, &s);

	if (e) {
		error_free(e);
		return STR_NULL;
	}
	for (size_t i = 0; field_selector_get(s, i, &key, &value, &negated); i++)
		if (str_eqz(key, "metadata.name") && !negated)
			return str_eqz(value, ".") || str_eqz(value, "..") || str_index(value, '/') >= 0 || str_index(value, '%') >= 0 ?
				       STR_NULL : value;
	return STR_NULL;
}

static bool selectors_parse(struct arena *a, const struct query *q)
{
	const struct selector *s;
	struct error *e = label_selector_parse(a, query_get(q, "labelSelector"), &s);
	int64_t n;

	if (!e)
		e = field_selector_parse(a, query_get(q, "fieldSelector"), &s);
	if (!e)
		query_int(q, "timeoutSeconds", &n, &e);
	if (!e)
		query_int(q, "limit", &n, &e);
	if (!e)
		return true;
	error_free(e);
	return false;
}

/* A get without a name is a list or a watch; of an object's name, when nothing of the query is broken and it selects one. */
static void list_or_watch(struct arena *a, const struct query *q, struct request_info *out)
{
	out->verb = query_bool(q, "watch") ? STR("watch") : STR("list");
	if (query_get(q, "fieldSelector").n && selectors_parse(a, q))
		out->name = selected_name(a, query_get(q, "fieldSelector"));
}

static struct str verb_of(struct str method)
{
	static const char *const verbs[][2] = {
		{"POST", "create"}, {"GET", "get"}, {"HEAD", "get"}, {"PUT", "update"}, {"PATCH", "patch"}, {"DELETE", "delete"},
	};

	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (str_eqz(method, verbs[i][0]))
			return str_from(verbs[i][1]);
	return STR("");
}

/* What stands behind the version: [namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE...]]. */
static void resource_parts(struct arena *a, struct str raw_path, const struct segments *s, size_t i, struct request_info *out)
{
	if (str_eqz(s->v[i], "namespaces") && s->n - i > 1) {
		out->ns = s->v[i + 1];
		/* /namespaces/NAME/status is of the namespace; /namespaces/NS/RESOURCE is in it */
		if (s->n - i > 2 && !str_eqz(s->v[i + 2], "status") && !str_eqz(s->v[i + 2], "finalize"))
			i += 2;
	}
	out->resource = s->v[i];
	if (s->n - i >= 2)
		out->name = s->v[i + 1];
	if (s->n - i >= 3 && !str_eqz(out->verb, "proxy")) {
		out->subresource = s->v[i + 2];
		raw_rest(raw_path, s, i + 2, out);
		out->rest = http_unescape(a, str_sub(out->raw_rest, out->rest_slash ? slash_at(out->raw_rest, 0) : 0, out->raw_rest.n), false);
	}
}

void request_info_parse(struct arena *a, struct str method, struct str raw_path, struct str query, struct request_info *out)
{
	struct segments s;
	struct query q;
	size_t i = 1;

	memset(out, 0, sizeof *out);
	out->path = http_unescape(a, raw_path, false);
	out->verb = lower(a, method);
	split(a, raw_path, &s);
	if (s.n < 3 || (!str_eqz(s.v[0], "api") && !str_eqz(s.v[0], "apis")))
		return;
	out->api_prefix = s.v[0];
	if (str_eqz(s.v[0], "apis")) {
		if (s.n < 4)
			return;
		out->group = s.v[i++];
	}
	out->resource_request = true;
	out->version = s.v[i++];
	/* the deprecated prefix form */
	out->by_path = str_eqz(s.v[i], "watch") || str_eqz(s.v[i], "proxy");
	if (out->by_path && s.n - i < 2) {
		out->broken = true;
		return;
	}
	out->verb = out->by_path ? s.v[i++] : verb_of(method);
	resource_parts(a, raw_path, &s, i, out);
	query_parse(a, query, &q);
	if (!out->name.n && str_eqz(out->verb, "get"))
		list_or_watch(a, &q, out);
	if (!out->name.n && str_eqz(out->verb, "delete"))
		out->verb = STR("deletecollection");
	if (!out->by_path && (str_eqz(out->verb, "list") || str_eqz(out->verb, "watch") || str_eqz(out->verb, "deletecollection"))) {
		struct str fs = query_get(&q, "fieldSelector"), ls = query_get(&q, "labelSelector");

		out->field_selector = fs.n ? arena_strz(a, fs) : NULL;
		out->label_selector = ls.n ? arena_strz(a, ls) : NULL;
	}
}

/* ---- content negotiation ---- */

/* More telling clauses go first; as upstream's goautoneg orders them, which is no strict order. */
static bool before(const struct accept_clause *x, const struct accept_clause *y)
{
	if (x->q > y->q || (!str_eqz(x->main, "*") && str_eqz(y->main, "*")))
		return true;
	return !str_eqz(x->sub, "*") && str_eqz(y->sub, "*");
}

static struct str trim_spaces(struct str s)
{
	while (s.n && s.p[0] == ' ')
		s = str_sub(s, 1, s.n);
	while (s.n && s.p[s.n - 1] == ' ')
		s.n--;
	return s;
}

static bool accept_type(struct str type, struct accept_clause *c)
{
	ptrdiff_t slash;

	c->type = trim_spaces(type);
	c->sub = type;
	c->main = trim_spaces(str_cut(&c->sub, '/'));
	if (!c->sub.n) {
		c->sub = STR("*");
		return str_eqz(c->main, "*");
	}
	slash = str_index(c->sub, '/');
	if (slash >= 0 && (size_t)slash != c->sub.n - 1)
		return false;
	c->sub = trim_spaces(slash < 0 ? c->sub : str_sub(c->sub, 0, (size_t)slash));
	return true;
}

/* 0 for what is no number; white space is none either. */
static double quality(struct arena *a, struct str value)
{
	char *end, *z = arena_strz(a, value);
	double q = strtod(z, &end);

	return *end || isspace((unsigned char)*z) ? 0 : q;
}

size_t accept_parse(struct arena *a, struct str header, struct accept_clause **out)
{
	enum { MAX = 64 };
	struct accept_clause *v = arena_array(a, struct accept_clause, MAX);
	size_t n = 0;
	struct str rest = header;

	while (rest.p && rest.n && n < MAX) {
		struct str params = trim_spaces(str_cut(&rest, ','));
		LIST(struct query_param) list = {0};
		struct accept_clause c = {.q = 1};

		if (!accept_type(str_cut(&params, ';'), &c))
			continue;
		while (params.p && params.n && list.n < 16) {
			struct str value = str_cut(&params, ';'), key = trim_spaces(str_cut(&value, '='));

			if (!value.p || !value.n || str_index(str_sub(value, 0, value.n - 1), '=') >= 0)
				continue;
			if (value.p[value.n - 1] == '=')
				value.n--;
			if (str_eqz(key, "q"))
				c.q = quality(a, value);
			else
				*arena_push(a, &list) = (struct query_param){key, trim_spaces(value)};
		}
		c.params.v = list.v;
		c.params.n = list.n;
		v[n++] = c;
	}
	for (size_t i = 1; i < n; i++)
		for (size_t j = i; j > 0 && before(&v[j], &v[j - 1]); j--) {
			struct accept_clause c = v[j];

			v[j] = v[j - 1];
			v[j - 1] = c;
		}
	*out = v;
	return n;
}

static const struct {
	const char *type, *subtype; /* application/... */
	enum media_type media;
	struct str content_type, stream_type;
} media_types[] = {
	{"application/json", "json", MEDIA_JSON, STR_INIT("application/json"), STR_INIT("application/json")},
	{"application/yaml", "yaml", MEDIA_YAML, STR_INIT("application/yaml"), {0}},
	{"application/vnd.kubernetes.protobuf", "vnd.kubernetes.protobuf", MEDIA_PROTOBUF, STR_INIT("application/vnd.kubernetes.protobuf"),
	 STR_INIT("application/vnd.kubernetes.protobuf;stream=watch")},
	{"application/cbor", "cbor", MEDIA_CBOR, STR_INIT("application/cbor"), STR_INIT("application/cbor-seq")},
};
#define N_MEDIA (sizeof media_types / sizeof *media_types)

static bool served(size_t m, bool cbor)
{
	return media_types[m].media != MEDIA_CBOR || cbor;
}

/* What as, g and v ask for, or that nobody asked. */
static bool converted(const struct accept_clause *c, enum answers answers, struct negotiated *out)
{
	struct str as = STR_NULL, v = STR_NULL, g = STR_NULL;
	bool asked = false;

	for (size_t i = 0; i < c->params.n; i++) {
		const struct query_param *p = &c->params.v[i];
		struct str *which = str_eqz(p->name, "as") ? &as : str_eqz(p->name, "v") ? &v : str_eqz(p->name, "g") ? &g : NULL;

		if (which) {
			*which = p->value;
			asked = true;
		}
	}
	if (answers == ANSWERS_DISCOVERY) {
		out->discovery = STR("v2");
		return str_eqz(g, "apidiscovery.k8s.io") && str_eqz(v, "v2") && str_eqz(as, "APIGroupDiscoveryList");
	}
	if (!asked)
		return !out->no_protobuf || out->media != MEDIA_PROTOBUF;
	if (answers == ANSWERS_PLAIN || !str_eqz(g, "meta.k8s.io") || (!str_eqz(v, "v1") && !str_eqz(v, "v1beta1")))
		return false;
	out->table_v1beta1 = str_eqz(v, "v1beta1");
	out->as = str_eqz(as, "Table") ? ANSWER_TABLE : str_eqz(as, "PartialObjectMetadataList") ? ANSWER_PARTIAL_LIST : ANSWER_PARTIAL;
	if (out->as == ANSWER_TABLE)
		return answers == ANSWERS_RESOURCE && (out->media == MEDIA_JSON || out->media == MEDIA_YAML);
	return out->as == ANSWER_PARTIAL_LIST || str_eqz(as, "PartialObjectMetadata");
}

/* The parameters of a clause; false when the clause cannot be served (then the next is tried). */
static bool accept_params(const struct accept_clause *c, enum answers answers, struct negotiated *out)
{
	for (size_t i = 0; i < c->params.n; i++) {
		struct str name = c->params.v[i].name, value = c->params.v[i].value;

		if (str_eqz(name, "pretty"))
			out->pretty = str_eqz(value, "1");
		else if (str_eqz(name, "stream") && value.n && (out->media == MEDIA_YAML || !str_eqz(value, "watch")))
			return false;
		else if (str_eqz(name, "sv") && value.n && (answers == ANSWERS_PLAIN || answers == ANSWERS_DISCOVERY || !str_eqz(value, "v1")))
			return false;
		else if (str_eqz(name, "profile"))
			out->discovery_nopeer = str_eqz(value, "nopeer");
	}
	return converted(c, answers, out);
}

static bool pretty_wanted(const struct http_headers *h, const struct query *q)
{
	struct str p = query_get(q, "pretty"), ua;
	bool pretty = false;

	if (p.n) {
		str_to_bool(p, &pretty);
		return pretty;
	}
	ua = http_header_get(h, "user-agent");
	return str_has_prefix(ua, STR("curl")) || str_has_prefix(ua, STR("Wget")) || str_has_prefix(ua, STR("Mozilla/5.0"));
}

static bool clause_matches(const struct accept_clause *c, size_t m)
{
	if (str_eqz(c->main, "*"))
		return str_eqz(c->sub, "*");
	return str_eqz(c->main, "application") && (str_eqz(c->sub, "*") || str_eqz(c->sub, media_types[m].subtype));
}

/* Upstream's router knows whole media types only, and looks at them before the resource does. */
static bool router_accepts(struct str accept, const struct negotiation *n)
{
	struct str rest = accept;

	while (rest.p) {
		struct str type = str_cut(&rest, ',');

		type = trim_spaces(str_cut(&type, ';'));
		if (str_eqz(type, "*/*") || (n->only && str_eqz(type, n->only)) || (n->listed && n->cbor && str_eqz(type, "application/cbor-seq")))
			return true;
		for (size_t m = 0; !n->only && m < N_MEDIA; m++)
			if (served(m, n->cbor) && str_eqz(type, media_types[m].type))
				return true;
	}
	return false;
}

/* As errors list them. */
static const char *served_types(bool stream, bool cbor)
{
	if (stream)
		return cbor ? "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch, application/cbor-seq"
			    : "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
	return cbor ? "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor"
		    : "application/json, application/yaml, application/vnd.kubernetes.protobuf";
}

static struct error *not_acceptable(bool stream, bool cbor)
{
	return error_status(406, "NotAcceptable", "only the following media types are accepted: %s", served_types(stream, cbor));
}

struct error *not_streamable(bool cbor)
{
	return not_acceptable(true, cbor);
}

struct error *negotiate_answer(struct arena *a, const struct http_headers *h, const struct query *q, const struct negotiation *n,
			       struct negotiated *out)
{
	struct str accept = http_header_get(h, "accept");
	struct accept_clause *v;
	size_t count;

	memset(out, 0, sizeof *out);
	out->content_type = media_types[0].content_type;
	if (!accept.n && n->answers != ANSWERS_DISCOVERY) {
		out->pretty = pretty_wanted(h, q);
		return NULL;
	}
	if (n->routed && !router_accepts(accept, n)) {
		struct error *e = error_status(406, "NotAcceptable", "406: Not Acceptable\n\nAvailable representations: %s%s%s",
					       n->only ? n->only : served_types(false, n->cbor), n->listed ? ", " : "",
					       n->listed ? served_types(true, n->cbor) : "");

		error_set_details(e, STR(""), STR(""), STR("")); /* the router's details say nothing */
		out->unrouted = true;
		return e;
	}
	if (n->only)
		return NULL;
	count = accept_parse(a, accept, &v);
	for (size_t i = 0; i < count; i++) {
		for (size_t m = 0; m < N_MEDIA; m++) {
			struct negotiated try = {.media = media_types[m].media, .no_protobuf = n->no_protobuf};

			if (!served(m, n->cbor) || !clause_matches(&v[i], m) || !accept_params(&v[i], n->answers, &try))
				continue;
			try.no_stream = n->stream && !media_types[m].stream_type.p;
			try.content_type = n->stream && !try.no_stream ? media_types[m].stream_type : media_types[m].content_type;
			try.pretty |= pretty_wanted(h, q);
			*out = try;
			return NULL;
		}
	}
	return not_acceptable(false, n->cbor); /* a watch, too, is first a request for any answer */
}

static bool is_token(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* `; name=value` to the end, each name once: else upstream does not know the type either. */
static bool media_params_valid(struct arena *a, struct str rest)
{
	struct map names = {0};
	bool ok = true;

	while (ok && (rest = str_trim(rest)).n) {
		size_t n = 0;

		if (rest.p[0] != ';')
			break;
		rest = str_trim(str_sub(rest, 1, rest.n));
		if (!rest.n)
			break; /* a last semicolon is forgiven */
		while (n < rest.n && is_token(rest.p[n]))
			n++;
		struct str name = lower(a, str_sub(rest, 0, n));

		rest = str_trim(str_sub(rest, n, rest.n));
		ok = n && rest.n && rest.p[0] == '=' && !map_get(&names, name);
		if (!ok)
			break;
		map_set(&names, name, &names);
		rest = str_trim(str_sub(rest, 1, rest.n));
		n = 0;
		if (rest.n && rest.p[0] == '"') {
			for (n = 1; n < rest.n && rest.p[n] != '"'; n++)
				n += rest.p[n] == '\\';
			ok = n++ < rest.n;
		} else {
			while (n < rest.n && is_token(rest.p[n]))
				n++;
			ok = n > 0;
		}
		rest = ok ? str_sub(rest, n, rest.n) : rest;
	}
	map_free(&names);
	return ok && (!rest.n || rest.p[0] == ';');
}

struct error *negotiate_body(struct arena *a, struct str content_type, bool cbor, enum media_type *out)
{
	ptrdiff_t semicolon = str_index(content_type, ';');
	size_t end = semicolon < 0 ? content_type.n : (size_t)semicolon;
	struct str type = lower(a, str_trim(str_sub(content_type, 0, end)));

	*out = MEDIA_JSON;
	if (!content_type.n)
		return NULL;
	for (size_t m = 0; m < N_MEDIA && media_params_valid(a, str_sub(content_type, end, content_type.n)); m++)
		if (served(m, cbor) && str_eqz(type, media_types[m].type)) {
			*out = media_types[m].media;
			return NULL;
		}
	return error_status(415, "UnsupportedMediaType",
			    "the body of the request was in an unknown format - accepted media types include: %s", served_types(false, cbor));
}

bool accepts_gzip(const struct http_headers *h)
{
	struct str rest = http_header_get(h, "accept-encoding");

	while (rest.p)
		if (str_eqz(str_trim(str_cut(&rest, ',')), "gzip"))
			return true;
	return false;
}
