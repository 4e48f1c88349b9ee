/*
 * apiserver/alloc.h: Services' cluster addresses (an IPAddress object each)
 * and node ports (one RangeAllocation in the store), and the hooks of the
 * Service strategy that take and give them back. What is in use survives
 * restarts; service_repair.c compares it with the Services.
 */
#ifndef SKIFF_APISERVER_ALLOC_H
#define SKIFF_APISERVER_ALLOC_H

#include "apiserver/server.h"

struct error *alloc_init(struct apiserver *s);
/* ---- service_repair.c ---- */
/*
 * Begins the repair of what addresses and ports say of Services and the other way round, as upstream's: at once what changes, everything
 * every three minutes, with events of what was wrong (events.k8s.io).
 */
void service_repair_start(struct apiserver *s);
/* ---- alloc.c ---- */
/* The first address of the primary range: the kubernetes Service's; in the arena. */
struct str alloc_first_ip(struct apiserver *s, struct arena *a);
/* The ranges as text, primary first; at most two. */
size_t alloc_cidrs(struct apiserver *s, struct str out[2]);

/* For /metrics: addresses and ports that are taken and left. */
void alloc_collect(struct apiserver *s);

void service_prepare_create(struct request *rq, void *obj);
void service_prepare_update(struct request *rq, void *obj, const void *old);
struct error *service_begin_write(struct request *rq, void *obj, const void *old, bool dry_run, void **state);
void service_end_write(struct request *rq, void *obj, const void *old, void *state, bool ok);
/* ---- validate_service.c ---- */
bool service_is(const struct core_v1_service *s, const char *type);
bool service_headless(const struct core_v1_service *s);
/* It is reached from outside the cluster, so that externalTrafficPolicy means something. */
bool service_external(const struct core_v1_service *s);
bool service_needs_health_port(const struct core_v1_service *s);
/* clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy fit each other; `o` is the Service before, or NULL. */
void service_rules_cluster_ips(const struct core_v1_service *s, const struct core_v1_service *o, struct field_errors *e);
void rule_load_balancer_hostname(struct field_errors *e, const struct field_path *p, struct str hostname);
void service_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e);
void service_warn(struct request *rq, const void *obj, const void *old);
void service_validate(struct request *rq, const void *obj, struct field_errors *e);
void service_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);

#endif
