/*
 * dns/dns.h: the cluster's DNS server (the Kubernetes DNS specification 1.1.0):
 * Services, headless Services, pods, SRV, PTR; everything else is forwarded.
 *
 * It watches Services, EndpointSlices and Namespaces through client/ and changes
 * nothing. Not a recursive resolver: foreign names go to the machine's own ones.
 */
#ifndef SKIFF_DNS_DNS_H
#define SKIFF_DNS_DNS_H

/* The component; --help lists its options. */
int cluster_dns_main(int argc, char **argv);

#endif
