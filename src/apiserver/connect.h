/*
 * apiserver/connect.h: pod subresources that are streams, and proxies to pods,
 * services and nodes: through the kubelet or straight to the address.
 */
#ifndef SKIFF_APISERVER_CONNECT_H
#define SKIFF_APISERVER_CONNECT_H
#include "apiserver/server.h"
struct error *kubelet_clients_init(struct apiserver *s);
/* The EndpointSlices of a Service, decoded into the arena. */
struct endpoint_slices {
	LIST(const struct discovery_v1_endpoint_slice *) list;
};
struct error *connect_slices(struct apiserver *s, struct arena *a, struct str ns, struct str name,
			     struct endpoint_slices *out);
/*
 * Where aggregated servers and webhooks behind a Service are: "https://HOST:PORT". Of a Service with a cluster IP that
 * is one of its ready endpoints, which kube-proxy would choose too; of type ExternalName its name. With
 * --enable-aggregator-routing headless Services have a way and those of type ExternalName have none, as upstream's.
 * 503.
 */
struct error *connect_service(struct apiserver *s, struct arena *a, struct str ns, struct str name, int port,
			      struct str *base);

#endif
