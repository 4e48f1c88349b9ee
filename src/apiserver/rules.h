/*
 * apiserver/rules.h: rules that several kinds share, over schema/validate.h:
 * upstream's pkg/apis/core/validation and apimachinery's validation helpers. Each
 * adds its errors to `e` at the path it gets; none changes what it looks at.
 */
#ifndef SKIFF_APISERVER_RULES_H
#define SKIFF_APISERVER_RULES_H

#include "apiserver/server.h"

/* Paths, short: rules are read by the hundred. */
#define AT(p, member) FIELD_CHILD((p), member)
#define EL(p, i) FIELD_INDEX((p), (i))
#define KEY(p, k) FIELD_KEY((p), (k))

static inline bool is_true(const bool *b)
{
	return b && *b;
}

static inline bool ptr_is(const struct str *s, const char *z)
{
	return s && str_eqz(*s, z);
}

/* ---- scalars ---- */
void rule_min(struct field_errors *e, const struct field_path *p, int64_t v, int64_t min); /* must be greater than or equal to MIN */
void rule_nonneg(struct field_errors *e, const struct field_path *p, int64_t v);
void rule_nonneg32(struct field_errors *e, const struct field_path *p, const int32_t *v); /* NULL is fine */
void rule_nonneg64(struct field_errors *e, const struct field_path *p, const int64_t *v);
void rule_positive(struct field_errors *e, const struct field_path *p, int64_t v);          /* must be greater than zero */
void rule_range(struct field_errors *e, const struct field_path *p, int64_t v, int64_t min, int64_t max);
void rule_id(struct field_errors *e, const struct field_path *p, const int64_t *v);         /* of a user or group */
/* metadata.name, and what it is generated from, have to be `want`: said before what is wrong with the rest of metadata. Nothing is said of
 * one that `first` (NULL-able) finds fault with. */
void rule_object_name(struct field_errors *e, const struct meta_v1_object_meta *m, struct str want,
		      const char *(*first)(struct arena *a, struct str name), const char *message);
void rule_required(struct field_errors *e, const struct field_path *p, struct str v);
/* Required, and of a form. */
void rule_name(struct field_errors *e, const struct field_path *p, struct str v, const char *(*check)(struct arena *a, struct str s));
/* "" is required, another value not of the list unsupported. */
void rule_enum(struct field_errors *e, const struct field_path *p, struct str v, const char *valid);
void rule_port(struct field_errors *e, const struct field_path *p, const struct int_or_string *v); /* ValidatePortNumOrName */
void rule_port_number(struct field_errors *e, const struct field_path *p, int32_t v);
void rule_percent_or_count(struct field_errors *e, const struct field_path *p, const struct int_or_string *v); /* NULL is fine */
void rule_at_most_100_percent(struct field_errors *e, const struct field_path *p, const struct int_or_string *v);
/* An address in a field older than strict parsing: what was there before is let through (`old` may be NULL). */
void rule_legacy_ip(struct field_errors *e, const struct field_path *p, struct str v, const struct str *old, uint32_t n_old);
void rule_legacy_cidr(struct field_errors *e, const struct field_path *p, struct str v, const struct str *old, uint32_t n_old);
void rule_endpoint_ip(struct field_errors *e, const struct field_path *p, struct str v);
/* "field is immutable" unless the members of both structs are equal; the path is p, not its child. */
void rule_immutable(struct field_errors *e, const struct field_path *p, const struct schema_type *t, const void *a, const void *b,
		    const char *member);
void rule_csi_driver_name(struct field_errors *e, const struct field_path *p, struct str v);
void rule_conditions(struct field_errors *e, const struct field_path *p, const struct meta_v1_condition *c, uint32_t n);
/* Domain and path, as "example.com/foo". */
void rule_signer_name(struct field_errors *e, const struct field_path *p, struct str v);
/* Counts of pods in a status: not negative, no part more than the whole. */
void rule_replica_status(struct field_errors *e, const struct field_path *p, int32_t replicas, int32_t labeled, int32_t ready, int32_t available,
			 int64_t observed);
bool strings_have(const struct strings *l, struct str s);

/* ---- resources ---- */
bool resource_native(struct str name);        /* no domain, or kubernetes.io's */
bool resource_hugepages(struct str name);
bool resource_extended(struct str name, struct arena *a);
bool resource_overcommit(struct str name);
bool resource_standard_quota(struct str name);
void rule_resource_name(struct field_errors *e, const struct field_path *p, struct str name);
void rule_container_resource_name(struct field_errors *e, const struct field_path *p, struct str name);
void rule_quota_resource_name(struct field_errors *e, const struct field_path *p, struct str name);
void rule_quantity(struct field_errors *e, const struct field_path *p, struct str name, struct str q); /* not negative, whole where counted */

/* ---- selectors of nodes ---- */
void rule_node_selector(struct field_errors *e, const struct field_path *p, const struct core_v1_node_selector *s, bool lax);
void rule_node_selector_term(struct field_errors *e, const struct field_path *p, const struct core_v1_node_selector_term *t, bool lax);
bool node_selector_has_bad_values(const struct core_v1_node_selector *s, struct arena *a);
void rule_topology_terms(struct field_errors *e, const struct field_path *p, const struct core_v1_topology_selector_term *t, uint32_t n);
void rule_taints(struct field_errors *e, const struct field_path *p, const struct core_v1_taint *t, uint32_t n);
/* `comparison`: Gt and Lt are operators (feature TaintTolerationComparisonOperators) */
void rule_tolerations(struct field_errors *e, const struct field_path *p, const struct core_v1_toleration *t, uint32_t n, bool comparison);

/* ---- volumes (validate_volumes.c) ---- */
struct pod_options;
void rule_volumes(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, struct str pod_name,
		  const struct pod_options *o, struct map *good /* names of the valid ones */);
void rule_pv_spec(struct field_errors *e, const struct field_path *p, const struct core_v1_persistent_volume_spec *s, struct str name, bool inlined,
		  bool lax_affinity);
struct pvc_options {
	bool lax_selector;  /* invalid label values were there before */
	bool lax_group;     /* an invalid apiGroup of a data source, too */
};
void rule_pvc_spec(struct field_errors *e, const struct field_path *p, const struct core_v1_persistent_volume_claim_spec *s,
		   const struct pvc_options *o);
/* metadata of a template: labels and annotations, nothing else. */
void rule_template_meta(struct field_errors *e, const struct field_path *p, const struct meta_v1_object_meta *m);

#endif
