/* apiserver/validate_workloads.h: rules of the kinds that run pods, of disruption budgets and autoscalers; for strategies_apps.c. */
#ifndef SKIFF_APISERVER_VALIDATE_WORKLOADS_H
#define SKIFF_APISERVER_VALIDATE_WORKLOADS_H

#include "apiserver/validate_core.h"


/* ---- workloads (validate_apps.c, validate_batch.c) ---- */
RULES(deployment);
RULES_UPDATE(deployment);
RULES_SUB(deployment);
RULES(replicaset);
RULES_UPDATE(replicaset);
RULES_SUB(replicaset);
RULES(daemonset);
RULES_UPDATE(daemonset);
RULES_SUB(daemonset);
RULES(statefulset);
RULES_UPDATE(statefulset);
RULES_SUB(statefulset);
RULES(revision);
RULES_UPDATE(revision);
RULES(job);
RULES_UPDATE(job);
RULES_SUB(job);
WARNINGS(job);
RULES(cronjob);
RULES_UPDATE(cronjob);
WARNINGS(cronjob);
RULES(hpa);
RULES_UPDATE(hpa);
RULES_SUB(hpa);
RULES(pdb);
RULES_SUB(pdb);
WARNINGS(workload);
void workload_name_warn(struct request *rq, struct str name);
/* spec.selector is there and not empty; `what` is the kind's word in the message. */
void rule_workload_selector(struct field_errors *e, const struct field_path *spec, const struct meta_v1_label_selector *s, const char *what, bool lax);
/* Whether a selector (none: nothing) selects the labels; one that cannot be read does, and is *readable (may be NULL) = false. */
bool rule_selects(struct arena *a, const struct meta_v1_label_selector *s, const struct str_map *labels, bool *readable);
/* The error of a selector that does not select the template; `bad`: what is said of one that cannot be read. */
bool rule_selects_template(struct field_errors *e, const struct field_path *spec, const struct meta_v1_label_selector *s,
			   const struct core_v1_pod_template_spec *template, const char *bad);
void rule_domain_prefixed_path(struct field_errors *e, const struct field_path *p, struct str v);

#endif
