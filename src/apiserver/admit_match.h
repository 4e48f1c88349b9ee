/*
 * apiserver/admit_match.h: does a request fall under the rules and selectors
 * of a webhook or an admission policy (admissionregistration.k8s.io/v1), and as
 * which of the resources that its object is served as. Upstream's
 * admission/plugin/webhook/predicates and plugin/policy/matching.
 */
#ifndef SKIFF_APISERVER_ADMIT_MATCH_H
#define SKIFF_APISERVER_ADMIT_MATCH_H

#include "apiserver/admission.h"
#include "apiserver/server.h"

const char *admit_operation(const struct admission *a); /* "CREATE" ... */
/* Of the request's namespace (of the object itself for namespaces). *yes false: it does not match. 404 when there is no such namespace. */
struct error *admit_match_namespace(const struct admission *a, const struct meta_v1_label_selector *s, bool *yes);
/* Of the object or the old object. */
struct error *admit_match_object(const struct admission *a, const struct meta_v1_label_selector *s, bool *yes);
/* The rule covers the request as if it were for `as` (a->res: itself). */
bool admit_match_rule(const struct admission *a, const struct admissionregistration_v1_rule_with_operations *r, const struct resource *as);
/* Other resources that the same objects are served as: index i, NULL behind the last. */
const struct resource *admit_equivalent(const struct admission *a, size_t i);

/* All of it: *as is the resource that matched, NULL when it does not match. */
struct error *admit_match(const struct admission *a, const struct admissionregistration_v1_match_resources *m, const struct resource **as);

/*
 * The object and the old one in the version of `as`, with its kind and apiVersion: the admission's own structs where that is
 * the same type, else copies in the request's arena. For subresources with bodies of their own (type not the storage's): as they are.
 */
struct admit_version {
	const struct resource *as;
	const struct schema_type *type;
	void *obj, *old;
};
struct error *admit_version_of(struct admission *a, const struct resource *as, struct admit_version *out);
/* After v->obj has changed: a->obj follows (nothing to do where they are the same). */
struct error *admit_version_back(struct admission *a, const struct admit_version *v);
/* The same after a change that may have left out what has a default. */
struct error *admit_version_finish(struct admission *a, const struct admit_version *v);
/* The body is not the resource's: Eviction, Binding, TokenRequest, PodExecOptions. */
bool admit_own_kind(const struct admission *a);
/* The namespace of the request as AdmissionRequest has it: of a Namespace object its own name. */
struct str admit_namespace(const struct admission *a);

#endif
