/*
 * apiserver/connect.h: pod subresources that are streams, and proxies to pods,
 * services and nodes: through the kubelet or straight to the address.
 */
#ifndef SKIFF_APISERVER_CONNECT_H
#define SKIFF_APISERVER_CONNECT_H
#include "apiserver/server.h"
struct error *kubelet_clients_init(struct apiserver *s);
#endif
