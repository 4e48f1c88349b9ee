/*
 * dns/records.h: a question about the cluster's zone to resource records. Pure: what is known of the cluster comes through
 * struct dns_view.
 */
#ifndef SKIFF_DNS_RECORDS_H
#define SKIFF_DNS_RECORDS_H

#include "schema/api.h"

#define DNS_TTL 30
#define DNS_ANSWERS_MAX 1000 /* of one question; a TCP answer holds 64 KiB */

struct dns_view {
	void *ctx;
	bool (*has_namespace)(void *ctx, struct str ns);
	struct core_v1_service *(*service)(void *ctx, struct arena *a, struct str ns, struct str name);
	/* All slices of one Service. */
	size_t (*slices)(void *ctx, struct arena *a, struct str ns, struct str name, struct discovery_v1_endpoint_slice ***out);
	/* Who has this address: a Service's ClusterIP, or an endpoint (hostname may be empty). False: nobody. */
	bool (*by_ip)(void *ctx, struct arena *a, struct str ip, struct str *ns, struct str *service, struct str *endpoint);
};

enum dns_rcode { DNS_NOERROR = 0, DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_NOTIMP = 4, DNS_REFUSED = 5 };

struct dns_answer {
	enum dns_rcode rcode;
	LIST(struct str) answers;    /* records in presentation format: "name. 30 IN A 10.96.0.1" */
	LIST(struct str) additional; /* addresses of SRV targets */
	struct str cname;            /* an external name to ask for and append, or empty */
};

/* Is name (lower case, no final dot) in the zone, or a reverse name that the cluster answers? */
bool dns_ours(const struct dns_view *v, struct arena *a, struct str domain, struct str name);
/* type: the query type's number (A 1, NS 2, SOA 6, PTR 12, TXT 16, AAAA 28, SRV 33, ANY 255). */
void dns_resolve(const struct dns_view *v, struct arena *a, struct str domain, struct str name, uint16_t type, struct dns_answer *out);

#endif
