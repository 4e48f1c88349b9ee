/* apiserver/validate_workloads.h: rules of kinds beyond the tables: workloads, storage, networking, scheduling; for strategies. */
#ifndef SKIFF_APISERVER_VALIDATE_WORKLOADS_H
#define SKIFF_APISERVER_VALIDATE_WORKLOADS_H

#include "apiserver/server.h"

void deployment_validate(struct request *rq, const void *obj, struct field_errors *e);
void deployment_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void replicaset_validate(struct request *rq, const void *obj, struct field_errors *e);
void replicaset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void daemonset_validate(struct request *rq, const void *obj, struct field_errors *e);
void daemonset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void statefulset_validate(struct request *rq, const void *obj, struct field_errors *e);
void statefulset_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void rc_validate(struct request *rq, const void *obj, struct field_errors *e);
void job_validate(struct request *rq, const void *obj, struct field_errors *e);
void job_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void cronjob_validate(struct request *rq, const void *obj, struct field_errors *e);
void hpa_validate(struct request *rq, const void *obj, struct field_errors *e);
void pdb_validate(struct request *rq, const void *obj, struct field_errors *e);
void pvc_validate(struct request *rq, const void *obj, struct field_errors *e);
void pvc_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void storageclass_validate(struct request *rq, const void *obj, struct field_errors *e);
void storageclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void priorityclass_validate(struct request *rq, const void *obj, struct field_errors *e);
void priorityclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void lease_validate(struct request *rq, const void *obj, struct field_errors *e);
void slice_validate(struct request *rq, const void *obj, struct field_errors *e);
void slice_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void ingress_validate(struct request *rq, const void *obj, struct field_errors *e);
void event_validate(struct request *rq, const void *obj, struct field_errors *e);
void csr_validate(struct request *rq, const void *obj, struct field_errors *e);

#endif
