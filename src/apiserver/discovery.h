/*
 * apiserver/discovery.h: everything served outside resources: discovery (plain
 * and aggregated), /version, OpenAPI, health, metrics, OIDC documents, /debug.
 */
#ifndef SKIFF_APISERVER_DISCOVERY_H
#define SKIFF_APISERVER_DISCOVERY_H

#include "apiserver/server.h"

struct error *serve_path(struct request *rq);
/* health.c */
struct error *serve_health(struct request *rq, const char *kind);
/* metrics.c */
struct error *serve_metrics(struct request *rq);
struct error *serve_debug(struct request *rq, bool *handled);
/* openapi_doc.c: /openapi/v2, /openapi/v3... */
struct error *serve_openapi(struct request *rq);
/* One page of the aggregated document of a group served by someone else (extend.h) joins here. */
void storage_version_hash(struct str group, struct str version, struct str kind, char out[16]);

#define SKIFF_GIT_VERSION "v1.36.0+skiff"

#endif
