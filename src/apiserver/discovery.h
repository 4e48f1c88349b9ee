/*
 * apiserver/discovery.h: everything served outside resources: discovery (plain
 * and aggregated), /version, OpenAPI, health, metrics, OIDC documents, /debug.
 */
#ifndef SKIFF_APISERVER_DISCOVERY_H
#define SKIFF_APISERVER_DISCOVERY_H

#include "apiserver/server.h"

/* paths.c */
struct error *serve_path(struct request *rq);
/* Everything that is served beside resources, sorted; in the request's arena. */
struct str *served_paths(struct request *rq, size_t *n);
/* 404 in plain text: no such path, of anything. */
struct error *respond_unknown(struct request *rq);

/* A group of the server itself. */
bool built_in_group(struct apiserver *s, struct str group);
/* discovery.c: /api, /apis, /apis/GROUP, /apis/GROUP/VERSION in the negotiated format. */
struct error *discovery_versions(struct request *rq);
struct error *discovery_groups(struct request *rq);
struct error *discovery_group(struct request *rq, struct str group);
bool discovery_has_group(struct request *rq, struct str group);
bool discovery_knows(struct request *rq, struct str group, struct str version);
struct error *discovery_resources(struct request *rq, struct str group, struct str version);
/* The paths of all groups and versions but the core's; strings in the request's arena. */
void discovery_paths(struct request *rq, void (*add)(void *ctx, struct str path), void *ctx);
void storage_version_hash(struct str group, struct str version, struct str kind, char out[16]);
/* content.c: a document of which a client may have a copy already. */
struct content {
	struct str type, etag; /* etag with its quotes, or empty */
	int64_t modified_ns;   /* wall clock */
	struct str body;
	bool compressed; /* when the client takes that and it is long */
};
/* 200, 206 for a range, 304, 412 or 416. */
struct error *respond_content(struct request *rq, const struct content *c);
struct str http_date_at(struct arena *a, int64_t wall_ns);
/* If-None-Match names the entity tag (with its quotes) or "*", RFC 9110 section 13.1.2. */
bool etag_matches(struct request *rq, struct str etag);

/* health.c: /healthz, /livez, /readyz and their checks; *handled false: no such path. */
/* Once, when the stores are open. */
void health_init(struct apiserver *s);
struct error *serve_health(struct request *rq, bool *handled);
/* Path number i of these is appended, or nothing where there is none; false behind the last. */
bool health_path_at(const struct apiserver *s, size_t i, struct buf *out);

/* metrics.c: /metrics, or /metrics/slis */
struct error *serve_metrics(struct request *rq, bool slis);
/* debug.c: /debug */
struct error *serve_debug(struct request *rq, bool *handled);
/* zpages.c */
struct error *serve_statusz(struct request *rq);
struct error *serve_flagz(struct request *rq);
/* options.c: name and value of flag i, false behind the last. */
bool option_at(struct arena *a, const struct options *o, size_t i, const char **name, struct buf *value);
/* The version reported: the one built, or what a flag says. */
const char *git_version(const struct options *o);
/* openapi_doc.c: /openapi/v2, /openapi/v3... */
struct error *serve_openapi(struct request *rq);

#define SKIFF_GIT_VERSION "v1.36.0+skiff"
#define SKIFF_BUILD_DATE "1970-01-01T00:00:00Z"
#ifdef __aarch64__
#define SKIFF_PLATFORM "linux/arm64"
#else
#define SKIFF_PLATFORM "linux/amd64"
#endif

#endif
