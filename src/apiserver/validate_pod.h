/*
 * apiserver/validate_pod.h: rules of pods and pod templates beyond what the
 * tables say (required and enum values are schema/validate.h's).
 */
#ifndef SKIFF_APISERVER_VALIDATE_POD_H
#define SKIFF_APISERVER_VALIDATE_POD_H

#include "apiserver/server.h"

void validate_pod_spec(struct field_errors *e, const struct core_v1_pod_spec *s, const struct field_path *at);
void pod_validate(struct request *rq, const void *obj, struct field_errors *e);
void pod_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void pod_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e);
/* A template of a workload: labels, spec, the selector that must select it, the restart policies allowed. */
void validate_template(struct field_errors *e, const struct core_v1_pod_template_spec *t, const struct meta_v1_label_selector *selector,
		       const struct str *policies, size_t n_policies, const struct field_path *spec);
void validate_non_negative(struct field_errors *e, int64_t v, const struct field_path *at);
void pod_warn(struct request *rq, const void *obj, const void *old);

#endif
