/*
 * apiserver/forward.h: a request passed on to a backend (a kubelet, a pod, a Service, an aggregated API server) and its
 * answer streamed back: upstream's UpgradeAwareHandler. Bytes are spliced; only links of HTML pages and of Location are
 * looked at.
 */
#ifndef SKIFF_APISERVER_FORWARD_H
#define SKIFF_APISERVER_FORWARD_H
#include "apiserver/server.h"

struct forward {
	struct http_client *client;
	struct str target; /* path and query there, escaped */
	/* A proxy's own path, put before links of the answer (Location, HTML) to `host` ("name:port", the backend's).
	 */
	struct str prefix, host;
	const struct http_header *more; /* headers beside the client's */
	size_t n_more;
	bool aggregated; /* an API server: it is told its own host, and may not send the client elsewhere (502) */
};
/* The request asks to switch protocols, as upstream sees it: Connection speaks of "upgrade". */
bool forward_wants_upgrade(struct request *rq);
/*
 * What says who the client is (Authorization, impersonation, the front proxy's headers) and what is of the connection
 * stays here; X-Forwarded-For gets the client's address. An upgrade is passed on as one. Errors are 503, or for an
 * upgrade what the backend answered.
 */
struct error *forward_request(struct request *rq, const struct forward *f);

#endif
