/* apiserver/alloc_internal.h: what giving addresses and ports (alloc.c) and repairing them (service_repair.c) share. */
#ifndef SKIFF_APISERVER_ALLOC_INTERNAL_H
#define SKIFF_APISERVER_ALLOC_INTERNAL_H

#include "apiserver/alloc.h"

struct cidr {
	int family;               /* AF_INET, AF_INET6 */
	unsigned char base[16];
	int bits;
	uint64_t size;            /* usable host numbers: 1 .. size */
	struct str text;
};
struct alloc {
	struct cidr cidrs[2];
	size_t n;
	int port_min, port_max;
	unsigned char *ports;     /* bit i: port_min + i is taken, as the store had it when ports_load() looked */
	int64_t ports_rev;        /* of that; 0: there was nothing */
	unsigned char *leaks;     /* of each port: 0, or 1 + the repairs for which it stays taken though nobody has it */
	struct storage *services, *ips;
	struct resource *ip_res;
	struct fiber_mutex lock;  /* of the ports */
};

bool port_in_range(const struct alloc *al, int32_t p);
bool port_taken(const struct alloc *al, int32_t p);
void port_set(struct alloc *al, int32_t p, bool taken);
/* Under the lock: reads what is taken from the store, which other servers write, too. */
struct error *ports_load(struct apiserver *s, struct arena *a);
/* Writes it back. *ok false: somebody else has written since ports_load(). */
struct error *ports_save(struct apiserver *s, struct arena *a, bool *ok);

/* Whether one of the ranges holds it, those that go among them. */
struct error *ip_in_ranges(struct request *rq, struct str ip, bool *in);
/* Makes the IPAddress that gives ip to svc; *taken: another has it. */
struct error *ip_object(struct request *rq, struct str ip, const struct core_v1_service *svc, bool *taken);

#endif
