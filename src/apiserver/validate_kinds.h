/* apiserver/validate_kinds.h: rules and warnings of the groups other than core and the workloads', for strategies_other.c. */
#ifndef SKIFF_APISERVER_VALIDATE_KINDS_H
#define SKIFF_APISERVER_VALIDATE_KINDS_H

#include "apiserver/rules.h"

#define RULES(kind) void kind##_validate(struct request *rq, const void *obj, struct field_errors *e)
#define RULES_UPDATE(kind) void kind##_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
#define RULES_SUB(kind) void kind##_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
#define WARNINGS(kind) void kind##_warn(struct request *rq, const void *obj, const void *old)

/* networking.k8s.io, discovery.k8s.io: validate_networking.c */
RULES(ingress);
RULES_UPDATE(ingress);
RULES_SUB(ingress);
WARNINGS(ingress);
RULES(ingressclass);
RULES_UPDATE(ingressclass);
RULES(netpol);
RULES_UPDATE(netpol);
WARNINGS(netpol);
RULES(ipaddress);
RULES_UPDATE(ipaddress);
RULES(servicecidr);
RULES_UPDATE(servicecidr);
RULES(slice);
RULES_UPDATE(slice);
WARNINGS(slice);

/* storage.k8s.io: validate_storage.c */
RULES(storageclass);
RULES_UPDATE(storageclass);
WARNINGS(storageclass);
RULES(attributesclass);
RULES_UPDATE(attributesclass);
RULES(attachment);
RULES_UPDATE(attachment);
RULES_SUB(attachment);
RULES(csidriver);
RULES_UPDATE(csidriver);
WARNINGS(csidriver);
RULES(csinode);
RULES_UPDATE(csinode);
RULES(capacity);
RULES_UPDATE(capacity);
WARNINGS(capacity);

/* flowcontrol.apiserver.k8s.io, apiregistration.k8s.io: validate_flow.c */
RULES(flowschema);
RULES_UPDATE(flowschema);
RULES_SUB(flowschema);
RULES(prioritylevel);
RULES_UPDATE(prioritylevel);
RULES_SUB(prioritylevel);
RULES(apiservice);
RULES_UPDATE(apiservice);
RULES_SUB(apiservice);

/* claim_status.c: what the request's user may not write of a claim's status. */
void claim_authorize_status(struct request *rq, const struct resource_v1_resource_claim *c, const struct resource_v1_resource_claim *old,
			    struct field_errors *e);
/* resource.k8s.io: validate_devices.c */
RULES(claim);
RULES_UPDATE(claim);
RULES_SUB(claim);
RULES(claimtemplate);
RULES_UPDATE(claimtemplate);
RULES(deviceclass);
RULES_UPDATE(deviceclass);
RULES(resourceslice);
RULES_UPDATE(resourceslice);
WARNINGS(resourceslice);

/* node.k8s.io, scheduling.k8s.io, coordination.k8s.io, rbac.authorization.k8s.io: validate_small.c */
RULES(runtimeclass);
RULES_UPDATE(runtimeclass);
WARNINGS(runtimeclass);
RULES(priorityclass);
RULES_UPDATE(priorityclass);
RULES(lease);
RULES_UPDATE(lease);
RULES(role);
RULES_UPDATE(role);
RULES(clusterrole);
RULES_UPDATE(clusterrole);
RULES(binding);
RULES_UPDATE(binding);

/* certificates.k8s.io: validate_certificates.c */
RULES(csr);
RULES_UPDATE(csr);
RULES_SUB(csr);
/* Counts certificates that are issued. */
void csr_issued(struct request *rq, const char *sub, const void *obj, const void *old);

#endif
