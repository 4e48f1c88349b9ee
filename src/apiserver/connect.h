/*
 * apiserver/connect.h: pod subresources that are streams, and proxies to pods,
 * services and nodes: through the kubelet or straight to the address.
 */
#ifndef SKIFF_APISERVER_CONNECT_H
#define SKIFF_APISERVER_CONNECT_H
#include "apiserver/server.h"
struct error *kubelet_clients_init(struct apiserver *s);
/* Passes a plain request on with more headers and streams the answer back; `prefix` is put before links of the
 * answer (Location, HTML) to `host`. */
struct error *connect_forward(struct request *rq, struct http_client *c, struct str target, struct str prefix, struct str host,
			      const struct http_header *more, size_t n_more);
struct error *connect_endpoint(struct apiserver *srv, struct arena *a, struct str ns, struct str name, struct str port_name, struct str *host,
			       int *port);
/* The Service's port number or name to the name endpoints know it by. 404 when there is no such Service. */
struct error *connect_service_port(struct apiserver *s, struct arena *a, struct str ns, struct str name, int port, struct str *port_name);

#endif
