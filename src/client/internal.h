/*
 * client/internal.h: what the files of this room share. Not for other rooms.
 */
#ifndef SKIFF_CLIENT_INTERNAL_H
#define SKIFF_CLIENT_INTERNAL_H

#include "client/client.h"

#define CLIENT_BODY_MAX (256u << 20)   /* bytes of one answer that is not streamed */
#define CLIENT_TIMEOUT_MS 60000        /* of one request that is not streamed */

#define ACCEPT_JSON "application/json"
#define ACCEPT_PARTIAL "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
#define ACCEPT_PARTIAL_LIST "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

struct client_request {
	const char *method;
	struct str target;       /* path and query below the server's base */
	const char *accept;      /* NULL: JSON */
	const char *content_type;/* of the body */
	struct str body;
	bool no_retry;           /* an answer 429 is the caller's business (eviction) */
};
/* Sends, waits for the whole answer (in the arena), makes errors of statuses >= 400. out may be NULL. */
struct error *client_do(struct client *c, struct arena *a, const struct client_request *q, struct str *out);
/* ?labelSelector=... of a list; appended to b, first character '?' or '&' as needed. */
void client_query_add(struct buf *b, const char *name, struct str value);
void client_list_query(struct buf *b, struct arena *a, const struct list_opts *o);
/* An error from the answer to a request: `body` should be a Status. */
struct error *client_error(struct arena *a, int status, struct str body, const char *method, struct str target);
/* An error from a Status. */
struct error *client_status_error(const struct meta_v1_status *s, int http_status);

#endif
