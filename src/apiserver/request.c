#include "apiserver/request.h"
#include <ctype.h>
#include <stdlib.h>

void query_parse(struct arena *a, struct str raw, struct query *out)
{
	LIST(struct query_param) list = {0};
	struct str rest = raw;

	while (rest.p && rest.n && list.n < QUERY_PARAMS_MAX) {
		struct str tok = str_cut(&rest, '&');
		ptrdiff_t eq = str_index(tok, '=');
		struct query_param *p;

		if (!tok.n)
			continue;
		p = arena_push(a, &list);
		p->name = http_unescape(a, eq < 0 ? tok : str_sub(tok, 0, (size_t)eq), true);
		p->value = eq < 0 ? STR("") : http_unescape(a, str_sub(tok, (size_t)eq + 1, tok.n), true);
		if (!p->value.p)
			p->value = STR("");
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

bool query_has(const struct query *q, const char *name)
{
	return query_get(q, name).p != NULL;
}

bool query_bool(const struct query *q, const char *name)
{
	struct str v = query_get(q, name);

	if (!v.p)
		return false;
	return !(str_eqz(v, "") ? false : str_eq_nocase(v, STR("false")) || str_eqz(v, "0"));
}

bool query_int(const struct query *q, const char *name, int64_t *out, struct error **err)
{
	struct str v = query_get(q, name);

	*err = NULL;
	if (!v.p || !v.n)
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

/* Segments of a path without empty ones; `raw` keeps the encoded text. */
#define SEGMENTS_MAX 64
struct segments {
	struct str v[SEGMENTS_MAX];
	size_t end[SEGMENTS_MAX]; /* offset behind the segment in the raw path */
	size_t n;
};

static void split(struct arena *a, struct str raw, struct segments *out)
{
	size_t i = 0;

	out->n = 0;
	while (i < raw.n && out->n < SEGMENTS_MAX) {
		size_t start;

		if (raw.p[i] == '/') {
			i++;
			continue;
		}
		start = i;
		while (i < raw.n && raw.p[i] != '/')
			i++;
		out->v[out->n] = http_unescape(a, str_of(raw.p + start, i - start), false);
		out->end[out->n++] = i;
	}
}

static void raw_rest(struct str raw, const struct segments *s, size_t last, struct request_info *out)
{
	out->raw_rest = str_sub(raw, s->end[last], raw.n);
	out->rest_slash = out->raw_rest.n > 0 && out->raw_rest.p[0] == '/';
}

void request_info_parse(struct arena *a, struct str method, struct str raw_path, struct str query, struct request_info *out)
{
	struct segments s;
	size_t i = 0, left;

	memset(out, 0, sizeof *out);
	out->path = http_unescape(a, raw_path, false);
	out->verb = lower(a, method);
	split(a, raw_path, &s);
	if (s.n < 3)
		return;
	if (!str_eqz(s.v[0], "api") && !str_eqz(s.v[0], "apis"))
		return;
	out->api_prefix = s.v[0];
	i = 1;
	if (str_eqz(s.v[0], "apis")) {
		if (s.n < 4)
			return;
		out->group = s.v[i++];
	}
	out->resource_request = true;
	out->version = s.v[i++];
	if (str_eqz(s.v[i], "watch") || str_eqz(s.v[i], "proxy")) {
		/* the deprecated prefix form */
		if (s.n - i < 2) {
			out->resource_request = false;
			return;
		}
		out->verb = s.v[i];
		i++;
	} else if (str_eqz(method, "POST")) {
		out->verb = STR("create");
	} else if (str_eqz(method, "GET") || str_eqz(method, "HEAD")) {
		out->verb = STR("get");
	} else if (str_eqz(method, "PUT")) {
		out->verb = STR("update");
	} else if (str_eqz(method, "PATCH")) {
		out->verb = STR("patch");
	} else if (str_eqz(method, "DELETE")) {
		out->verb = STR("delete");
	} else {
		out->verb = STR("");
	}
	left = s.n - i;
	if (left && str_eqz(s.v[i], "namespaces")) {
		if (left > 1) {
			out->ns = s.v[i + 1];
			/* /namespaces/NAME/status is of the namespace; /namespaces/NS/RESOURCE is in it */
			if (left > 2 && !str_eqz(s.v[i + 2], "status") && !str_eqz(s.v[i + 2], "finalize"))
				i += 2;
		}
	}
	left = s.n - i;
	if (left >= 1)
		out->resource = s.v[i];
	if (left >= 2)
		out->name = s.v[i + 1];
	if (left >= 3 && !str_eqz(out->verb, "proxy")) {
		out->subresource = s.v[i + 2];
		raw_rest(raw_path, &s, i + 2, out);
		out->rest = http_unescape(a, str_sub(out->raw_rest, out->rest_slash ? 1 : 0, out->raw_rest.n), false);
	}
	if (!out->name.n && (str_eqz(out->verb, "get") || str_eqz(out->verb, "watch"))) {
		struct query q;
		struct str fs, ls;

		query_parse(a, query, &q);
		if (str_eqz(out->verb, "get"))
			out->verb = query_bool(&q, "watch") ? STR("watch") : STR("list");
		fs = query_get(&q, "fieldSelector");
		ls = query_get(&q, "labelSelector");
		if (fs.n) {
			static const char eq[] = "metadata.name=";
			struct str v = fs;

			out->field_selector = arena_strz(a, fs);
			while (v.p) {
				struct str tok = str_cut(&v, ',');

				if (str_has_prefix(tok, str_from(eq))) {
					struct str name = str_sub(tok, sizeof eq - 1, tok.n);

					if (name.n && name.p[0] == '=')
						name = str_sub(name, 1, name.n);
					out->name = name;
				}
			}
		}
		if (ls.n)
			out->label_selector = arena_strz(a, ls);
	} else if (!out->name.n && str_eqz(out->verb, "delete")) {
		struct query q;
		struct str v;

		out->verb = STR("deletecollection");
		query_parse(a, query, &q);
		v = query_get(&q, "fieldSelector");
		out->field_selector = v.n ? arena_strz(a, v) : NULL;
		v = query_get(&q, "labelSelector");
		out->label_selector = v.n ? arena_strz(a, v) : NULL;
	}
}

/* ---- content negotiation ---- */

size_t accept_parse(struct arena *a, struct str header, struct accept_clause **out)
{
	enum { MAX = 64 };
	struct accept_clause *v = arena_array(a, struct accept_clause, MAX);
	size_t n = 0;
	struct str rest = header;

	while (rest.p && n < MAX) {
		struct str clause = str_trim(str_cut(&rest, ','));
		struct str params = clause, type;
		LIST(struct query_param) list = {0};

		if (!clause.n)
			continue;
		type = str_trim(str_cut(&params, ';'));
		v[n].type = lower(a, type);
		v[n].q = 1;
		while (params.p && list.n < 16) {
			struct str tok = str_trim(str_cut(&params, ';'));
			ptrdiff_t eq = str_index(tok, '=');
			struct str key, value;

			if (eq < 0)
				continue;
			key = lower(a, str_trim(str_sub(tok, 0, (size_t)eq)));
			value = str_trim(str_sub(tok, (size_t)eq + 1, tok.n));
			if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"')
				value = str_sub(value, 1, value.n - 1);
			if (str_eqz(key, "q")) {
				v[n].q = strtod(arena_strz(a, value), NULL);
			} else {
				struct query_param *p = arena_push(a, &list);

				p->name = key;
				p->value = value;
			}
		}
		v[n].params.v = list.v;
		v[n].params.n = list.n;
		n++;
	}
	/* insertion sort keeps the order of equals */
	for (size_t i = 1; i < n; i++) {
		struct accept_clause c = v[i];
		size_t j = i;

		while (j > 0 && v[j - 1].q < c.q) {
			v[j] = v[j - 1];
			j--;
		}
		v[j] = c;
	}
	*out = v;
	return n;
}

static const struct {
	const char *type;
	enum media_type media;
	struct str content_type, stream_type;
} media_types[] = {
	{"application/json", MEDIA_JSON, STR_INIT("application/json"), STR_INIT("application/json")},
	{"application/yaml", MEDIA_YAML, STR_INIT("application/yaml"), STR_INIT("application/yaml")},
	{"application/vnd.kubernetes.protobuf", MEDIA_PROTOBUF, STR_INIT("application/vnd.kubernetes.protobuf"),
	 STR_INIT("application/vnd.kubernetes.protobuf;stream=watch")},
	{"application/cbor", MEDIA_CBOR, STR_INIT("application/cbor"), STR_INIT("application/cbor-seq")},
};

static bool type_matches(struct str clause, const char *type)
{
	if (str_eqz(clause, "*/*") || str_eqz(clause, "*") || str_eqz(clause, "application/*"))
		return true;
	return str_eqz(clause, type);
}

/* The parameters of a clause; false when the clause cannot be served (then the next is tried). */
static bool accept_params(const struct accept_clause *c, bool stream, bool transform, struct negotiated *out)
{
	struct str as = STR_NULL, v = STR_NULL, g = STR_NULL, profile = STR_NULL;

	for (size_t i = 0; i < c->params.n; i++) {
		struct str name = c->params.v[i].name, value = c->params.v[i].value;

		if (str_eqz(name, "as"))
			as = value;
		else if (str_eqz(name, "v"))
			v = value;
		else if (str_eqz(name, "g"))
			g = value;
		else if (str_eqz(name, "pretty"))
			out->pretty = str_eqz(value, "1") || str_eqz(value, "true");
		else if (str_eqz(name, "stream") && !stream && !str_eqz(value, "watch"))
			return false;
		else if (str_eqz(name, "profile"))
			profile = value;
	}
	if (!as.n)
		return true;
	if (str_eqz(g, "apidiscovery.k8s.io") && str_eqz(as, "APIGroupDiscoveryList")) {
		if (!str_eqz(v, "v2"))
			return false;
		out->discovery = STR("v2");
		out->discovery_nopeer = str_eqz(profile, "nopeer");
		return true;
	}
	if (!transform || !str_eqz(g, "meta.k8s.io"))
		return false;
	if (!str_eqz(v, "v1") && !str_eqz(v, "v1beta1"))
		return false;
	if (str_eqz(as, "Table"))
		out->as = ANSWER_TABLE;
	else if (str_eqz(as, "PartialObjectMetadata"))
		out->as = ANSWER_PARTIAL;
	else if (str_eqz(as, "PartialObjectMetadataList"))
		out->as = ANSWER_PARTIAL_LIST;
	else
		return false;
	/* protobuf has no form for Table rows; upstream refuses it too */
	if (out->as == ANSWER_TABLE && out->media == MEDIA_PROTOBUF)
		return false;
	out->table_v1beta1 = str_eqz(v, "v1beta1");
	return true;
}

static bool pretty_wanted(const struct http_headers *h, const struct query *q)
{
	struct str p = query_get(q, "pretty"), ua;

	if (p.n)
		return query_bool(q, "pretty");
	ua = http_header_get(h, "user-agent");
	return str_has_prefix(ua, STR("curl")) || str_has_prefix(ua, STR("Wget")) || str_has_prefix(ua, STR("Mozilla/5.0"));
}

struct error *negotiate_answer(struct arena *a, const struct http_headers *h, const struct query *q, bool stream,
			       bool allow_transform, struct negotiated *out)
{
	struct str accept = http_header_get(h, "accept");
	struct accept_clause *v;
	size_t n;
	bool no_protobuf = out->no_protobuf, any = false;
	struct error *e;

	memset(out, 0, sizeof *out);
	if (!str_trim(accept).n) {
		out->content_type = media_types[0].content_type;
		out->pretty = pretty_wanted(h, q);
		return NULL;
	}
	n = accept_parse(a, accept, &v);
	for (size_t i = 0; i < n; i++) {
		for (size_t m = 0; m < sizeof media_types / sizeof *media_types; m++) {
			struct negotiated try = {.media = media_types[m].media};

			if (!type_matches(v[i].type, media_types[m].type) &&
			    !(stream && try.media == MEDIA_CBOR && str_eqz(v[i].type, "application/cbor-seq")))
				continue;
			any = true;
			if (stream && try.media == MEDIA_YAML)
				continue;
			if (!accept_params(&v[i], stream, allow_transform, &try))
				continue;
			if (no_protobuf && try.media == MEDIA_PROTOBUF && try.as == ANSWER_OBJECT)
				continue;
			try.content_type = stream ? media_types[m].stream_type : media_types[m].content_type;
			if (!try.pretty)
				try.pretty = pretty_wanted(h, q);
			*out = try;
			return NULL;
		}
	}
	out->content_type = media_types[0].content_type;
	e = error_status(406, "NotAcceptable", stream ?
		"only the following media types are accepted: application/json, application/vnd.kubernetes.protobuf;stream=watch, application/cbor-seq" :
		"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor");
	/* a type that no answer has is refused by the router, which fills in details that say nothing */
	if (!any)
		error_set_details(e, STR(""), STR(""), STR(""));
	return e;
}

struct error *negotiate_body(struct arena *a, struct str content_type, enum media_type *out)
{
	struct str rest = content_type, type = lower(a, str_trim(str_cut(&rest, ';')));

	*out = MEDIA_JSON;
	if (!type.n)
		return NULL;
	for (size_t m = 0; m < sizeof media_types / sizeof *media_types; m++)
		if (str_eqz(type, media_types[m].type)) {
			*out = media_types[m].media;
			return NULL;
		}
	return error_status(415, "UnsupportedMediaType",
			    "the body of the request was in an unknown format - accepted media types include: application/json, "
			    "application/yaml, application/vnd.kubernetes.protobuf, application/cbor");
}

bool accepts_gzip(const struct http_headers *h)
{
	struct str rest = http_header_get(h, "accept-encoding");

	while (rest.p) {
		struct str tok = str_trim(str_cut(&rest, ',')), params = tok;

		if (str_eqz(str_trim(str_cut(&params, ';')), "gzip"))
			return !str_contains(tok, STR("q=0")) || str_contains(tok, STR("q=0."));
	}
	return false;
}
