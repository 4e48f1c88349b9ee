/*
 * proxy/proxy.h: kube-proxy: Services as one nftables table (KEP-3866).
 *
 * It watches Services, EndpointSlices and its own Node through client/, and
 * never carries traffic itself: the kernel does. What it owns is the table
 * "skiff-proxy", and with --node-routes the routes to other nodes' pods.
 */
#ifndef SKIFF_PROXY_PROXY_H
#define SKIFF_PROXY_PROXY_H

/* The component: upstream's flags where they mean the same (--help lists them). */
int kube_proxy_main(int argc, char **argv);

#endif
