/*
 * apiserver/pod_standards.h: the Pod Security Standards (KEP-2579, pod-security-admission/policy): what a level forbids, as it was in
 * each minor version of Kubernetes. Who is judged, and what follows, is admit_podsecurity.c's.
 */
#ifndef SKIFF_APISERVER_POD_STANDARDS_H
#define SKIFF_APISERVER_POD_STANDARDS_H

#include "schema/api.h"

enum pod_level { POD_PRIVILEGED, POD_BASELINE, POD_RESTRICTED };

#define POD_LATEST INT_MAX /* a version: minor of "v1.N", or this */

struct pod_findings { /* both empty: the pod may be; in the arena */
	struct str reasons; /* `host namespaces, privileged` */
	struct str details; /* `host namespaces (hostNetwork=true), privileged (container "a" must not ...)` */
};
void pod_standard_judge(struct arena *a, enum pod_level level, int version, const struct meta_v1_object_meta *m,
			const struct core_v1_pod_spec *s, struct pod_findings *out);

#endif
