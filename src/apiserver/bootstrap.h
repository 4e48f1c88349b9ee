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
/* Everything, in order. */
struct error *bootstrap_run(struct apiserver *s);
/* aggregate_roles.c: keeps the rules of aggregated ClusterRoles, on a fiber. */
void aggregate_roles_start(struct apiserver *s);

#endif
