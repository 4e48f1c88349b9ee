/*
 * apiserver/request.h: what a request asks for: upstream's RequestInfo, the
 * options in its query, and the formats it can read. Pure: no I/O, no server state.
 */
#ifndef SKIFF_APISERVER_REQUEST_H
#define SKIFF_APISERVER_REQUEST_H

#include "net/http.h"
#include "schema/codec.h"

struct request_info { /* as k8s.io/apiserver RequestInfo; strings live in the request's arena */
	bool resource_request;
	bool by_path;            /* the verb is in the path: the deprecated /watch and /proxy */
	bool broken;             /* /watch or /proxy and nothing behind it */
	struct str path;         /* decoded, with the leading slash */
	struct str verb;         /* get list watch create update patch delete deletecollection; lower-cased method else */
	struct str api_prefix;   /* "api" or "apis" */
	struct str group, version, ns, resource, subresource, name;
	struct str rest;         /* behind the subresource, decoded, no leading slash: proxy paths */
	struct str raw_rest;     /* the same, still percent-encoded, with its leading slash when there is one */
	bool rest_slash;         /* a slash followed the subresource */
	const char *label_selector, *field_selector; /* raw, for authorization */
};
/* Never fails: what is not under /api or /apis is a non-resource request. */
void request_info_parse(struct arena *a, struct str method, struct str raw_path, struct str query, struct request_info *out);

/* The name that a field selector asks for and no other; p NULL: none that could be one. */
struct str selected_name(struct arena *a, struct str fields);

/* The query decoded once: parameters in order, names and values in the arena. */
struct query_param {
	struct str name, value;
};
struct query {
	struct query_param *v;
	size_t n;
};
#define QUERY_PARAMS_MAX 10000 /* of a query that has more, nothing is taken: Go's limit */
void query_parse(struct arena *a, struct str raw, struct query *out);
struct str query_get(const struct query *q, const char *name); /* first; STR_NULL when absent */
/* Every value that is given, pushed to *out. */
void query_all(struct arena *a, const struct query *q, const char *name, struct strings *out);
bool query_has(const struct query *q, const char *name);
/* A boolean as upstream's Convert_Slice_string_To_bool: absent, "0" and "false" in any case are false, all else is true. */
bool query_true(struct str value);
bool query_bool(const struct query *q, const char *name);
/* Present and a decimal number; false when absent; *err when malformed (400). */
bool query_int(const struct query *q, const char *name, int64_t *out, struct error **err);

/* What the answer is converted to. */
enum answer_as { ANSWER_OBJECT, ANSWER_TABLE, ANSWER_PARTIAL, ANSWER_PARTIAL_LIST };
struct negotiated {
	enum media_type media;
	enum answer_as as;
	bool pretty;
	bool table_v1beta1;      /* as=Table;v=v1beta1: answered as v1beta1 */
	struct str content_type; /* of the answer; a literal */
	struct str discovery;    /* "v2", "v2beta1" for as=APIGroupDiscoveryList, else empty */
	bool discovery_nopeer;
	bool no_protobuf;        /* negotiation's */
	bool unrouted;           /* refused before anybody could look at the request */
	bool no_stream;          /* a watch in a format that no stream has: it is refused when nothing else is wrong with it (not_streamable) */
};
/* What an endpoint can answer with: its own objects; Tables and metadata alone too; metadata alone too; aggregated discovery and nothing else. */
enum answers { ANSWERS_PLAIN, ANSWERS_RESOURCE, ANSWERS_PARTIAL, ANSWERS_DISCOVERY };
struct negotiation {
	enum answers answers;
	bool stream;             /* a watch */
	bool listed;             /* a list or a watch: of one route, which has the types of both */
	bool routed;             /* upstream's router comes first (everything but custom resources), and knows whole media types only */
	bool no_protobuf;        /* objects of this resource have no protobuf (custom ones) */
	bool cbor;               /* feature CBORServingAndStorage */
	const char *only;        /* the one type the router knows here, in which the answer is; NULL: the usual ones */
};
/* Accept and ?pretty and User-Agent. 406 NotAcceptable when nothing fits; *out is for JSON then. */
struct error *not_streamable(bool cbor);
struct error *negotiate_answer(struct arena *a, const struct http_headers *h, const struct query *q, const struct negotiation *n,
			       struct negotiated *out);
/* Content-Type of a body (empty: JSON); 415 UnsupportedMediaType. */
struct error *negotiate_body(struct arena *a, struct str content_type, bool cbor, enum media_type *out);
/* Accept-Encoding lists gzip. */
bool accepts_gzip(const struct http_headers *h);

/* One element of an Accept header. */
struct accept_clause {
	struct str type;          /* "application/json" */
	struct str main, sub;     /* its halves; "*": any */
	struct query params;
	double q;
};
/* As upstream's goautoneg parses and sorts them: by q, then stars last. At most 64. */
size_t accept_parse(struct arena *a, struct str header, struct accept_clause **out);

#endif
