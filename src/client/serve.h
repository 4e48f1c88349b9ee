/*
 * client/serve.h: what every component but the API server serves of itself: /healthz, /livez and /readyz to anybody, /metrics to
 * whom the API server lets (a bearer token, reviewed there). Upstream's secure port.
 */
#ifndef SKIFF_CLIENT_SERVE_H
#define SKIFF_CLIENT_SERVE_H

#include "base/buf.h"
#include "client/client.h"

struct serve_opts { /* borrowed: must live as long as the process */
	const char *name;            /* of the component, for its own certificate */
	const char *address;         /* "0.0.0.0" */
	int port;                    /* 0: nothing is served */
	const char *cert_file, *key_file; /* NULL: made at start, in memory */
	struct client *client;       /* asks for reviews */
	/* Why it is not ready or alive, or NULL; may be NULL itself. Must not wait. */
	const char *(*unready)(void *ctx);
	void (*metrics)(void *ctx, struct buf *out); /* Prometheus' text format; must not wait */
	void *ctx;
};
/* Starts serving, on fibers of this loop, until the process ends. */
struct error *component_serve(const struct serve_opts *o);

#endif
