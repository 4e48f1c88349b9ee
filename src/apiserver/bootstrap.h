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
/* Makes obj (not defaulted; changed) when there is none of its name: *existed false, and it is written. */
struct error *bootstrap_ensure(struct apiserver *s, struct arena *a, const char *group, const char *plural, struct str ns, void *obj,
			       bool *existed);
/*
 * Applies a condition to the status of what is there, by force and as upstream's controller that goes by `manager` does; not waited for on the
 * disk. What is null is left out; the time is now. 404 where there is no such object.
 */
struct applied_condition {
	struct str type, status, reason, message;
};
struct error *bootstrap_apply_condition(struct apiserver *s, struct arena *a, const char *group, const char *plural, struct str name,
					struct str manager, const struct applied_condition *c);
/* Everything, in order. */
struct error *bootstrap_run(struct apiserver *s);
/* trust_info.c: ConfigMap kube-system/extension-apiserver-authentication, then keeps it as the files of CAs change, on fibers. */
struct error *trust_info_write(struct apiserver *s);
void trust_info_start(struct apiserver *s);
/*
 * kubernetes_service.c: what says in a store that several share where this server is: an Endpoints under a key of its own, with the store's
 * lease of 15 s. Renewing makes *lease 0 when it has ended; it is written, with a new one, at first and then.
 */
struct error *address_renew(struct apiserver *s, int64_t *lease);
struct error *address_write(struct apiserver *s, struct str key, struct core_v1_endpoints *ep, int64_t *lease); /* changes ep */
/* aggregate_roles.c: keeps the rules of aggregated ClusterRoles, on a fiber. */
void aggregate_roles_start(struct apiserver *s);

/*
 * kubernetes_service.c: the Service "kubernetes", and in its endpoints the addresses of all API servers on the store, as
 * --endpoint-reconciler-type says: made at first, then looked after each 10 s on a fiber. A server that ends takes its address out.
 */
struct error *kubernetes_service(struct apiserver *s);
void kubernetes_service_start(struct apiserver *s);
void kubernetes_service_leave(struct apiserver *s); /* suspends, 20 s at most */

#endif
