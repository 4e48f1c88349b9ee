/*
 * apiserver/bootstrap.h: what every cluster starts with: the RBAC policy,
 * system namespaces, the kubernetes Service, priority classes, flow schemas;
 * made or repaired at each start.
 */
#ifndef SKIFF_APISERVER_BOOTSTRAP_H
#define SKIFF_APISERVER_BOOTSTRAP_H

#include "apiserver/server.h"

extern const char bootstrap_policy[]; /* bootstrap_policy.c says its form */

/* The rules of one default ClusterRole. */
void bootstrap_policy_rules(struct arena *a, struct str name, struct rbac_v1_policy_rule **rules, uint32_t *n);
/* Everything, in order; then keeps the kubernetes endpoints and the identity lease alive on a fiber. */
struct error *bootstrap_run(struct apiserver *s);

#endif
