/*
 * apiserver/validate_pod.h: rules of pods and pod templates: upstream's
 * ValidatePod*, ValidatePodTemplateSpec and pkg/api/pod's warnings.
 */
#ifndef SKIFF_APISERVER_VALIDATE_POD_H
#define SKIFF_APISERVER_VALIDATE_POD_H

#include "apiserver/rules.h"

/* PodValidationOptions: what is judged by rules of an earlier version because the old object would fail the newer ones. */
struct pod_options {
	bool is_pod;              /* a pod, not a template */
	bool lax_deletion_cost;
	bool lax_selectors;       /* invalid label values in affinity selectors */
	bool lax_node_affinity;
	bool lax_hugepages;       /* amounts that are no multiple of the page size */
	bool lax_spread_selector;
	bool lax_match_label_keys;
	bool lax_token_path;
	bool lax_host_sysctls;
	bool lax_userns_devices;
	bool lax_dns_search;
	bool lax_init_resize;     /* RestartContainer for init containers that are no sidecars */
	bool toleration_comparison;
};
/* Of an update of `old` (NULL: create). */
struct pod_options pod_options_from(struct arena *a, const struct core_v1_pod_spec *old, const struct meta_v1_object_meta *old_meta);

/* A container of any kind, as upstream's VisitContainersWithPath goes through them: init, main, ephemeral. */
struct container_iter {
	const struct core_v1_pod_spec *spec;
	uint32_t i;
	int list;                 /* 0 init, 1 main, 2 ephemeral */
	const struct core_v1_container *c;
	struct field_path path, index;
};
#define POD_CONTAINERS(it, s, at)                                                                                      \
	for (struct container_iter it = {.spec = (s), .path = {.parent = (at), .index = -1}}; container_next(&(it));)
bool container_next(struct container_iter *it);

/* ---- containers (validate_containers.c) ---- */
/* --allow-privileged, for the whole process; set before the first rule is asked. Without it nothing is privileged. */
void rules_allow_privileged(bool yes);
bool rules_privileged_allowed(void);
struct container_context {
	const struct core_v1_pod_spec *spec;
	const struct pod_options *o;
	struct map *volumes;      /* valid volumes by name */
	bool host_users;
};
void rule_containers(struct field_errors *e, const struct field_path *spec, const struct container_context *c);
void rule_field_ref(struct field_errors *e, const struct field_path *p, const struct core_v1_object_field_selector *f, bool volume);
void rule_resource_field_ref(struct field_errors *e, const struct field_path *p, const struct core_v1_resource_field_selector *f, bool volume);
/* `pod_level`: names of resources are those a pod as a whole can have. */
void rule_resources(struct field_errors *e, const struct field_path *p, const struct core_v1_resource_requirements *r,
		    const struct core_v1_pod_spec *claims_of, const struct pod_options *o, bool pod_level);
/* `q` is a multiple of the page size behind "hugepages-". */
bool pages_divide(struct arena *a, struct str name, struct str q);
/* The image of a pod's container: no white space around it. */
void rule_pod_images(struct field_errors *e, const struct field_path *spec, const struct core_v1_pod_spec *s);
void rule_seccomp(struct field_errors *e, const struct field_path *p, const struct core_v1_seccomp_profile *s);
void rule_app_armor(struct field_errors *e, const struct field_path *p, const struct core_v1_app_armor_profile *s);
void rule_windows_options(struct field_errors *e, const struct field_path *p, const struct core_v1_windows_security_context_options *w);

/* ---- the spec (validate_podspec.c) ---- */
/* `meta` NULL: a template. */
void rule_pod_spec(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, const struct meta_v1_object_meta *meta,
		   const struct pod_options *o);
void rule_pod_annotations(struct field_errors *e, const struct field_path *p, const struct str_map *annotations, const struct core_v1_pod_spec *s,
			  const struct pod_options *o);
/* Annotations of old and the fields that replaced them say the same. */
void rule_annotations_match_fields(struct field_errors *e, const struct field_path *spec, const struct str_map *annotations,
				   const struct core_v1_pod_spec *s);
/* ValidatePodTemplateSpec. `old`: the template before, or NULL. */
void rule_pod_template(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_template_spec *t,
		       const struct core_v1_pod_template_spec *old);

/* ---- pods (validate_pod.c) ---- */
void pod_validate(struct request *rq, const void *obj, struct field_errors *e);
void pod_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e);
void pod_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e);
/* What upstream's conversion does to a spec: one service account under two names. */
void pod_spec_normalize(struct arena *a, struct core_v1_pod_spec *s);
struct str pod_qos_class(const struct core_v1_pod *p);

/* ---- warnings (warn_pod.c) ---- */
void pod_warn(struct request *rq, const void *obj, const void *old);
/* A template at `p` (the template's own path: metadata and spec are its members). */
void template_warn(struct request *rq, const struct field_path *p, const struct core_v1_pod_template_spec *t);
void pvc_spec_warn(struct request *rq, const struct field_path *p, const struct core_v1_persistent_volume_claim_spec *s);
/* What to use instead of a label of nodes, or NULL. */
const char *node_label_deprecated(struct str key);
void node_term_warn(struct request *rq, const struct field_path *p, const struct core_v1_node_selector_term *t, bool values);
void ip_warn(struct request *rq, const struct field_path *p, struct str v);
void cidr_warn(struct request *rq, const struct field_path *p, struct str v);

#endif
