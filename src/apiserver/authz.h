/*
 * apiserver/authz.h: may this user do that: system:masters, the Node
 * authorizer and RBAC, evaluated over indexes that follow the watch caches;
 * the reviews that ask about it; checks against privilege escalation.
 */
#ifndef SKIFF_APISERVER_AUTHZ_H
#define SKIFF_APISERVER_AUTHZ_H

#include "apiserver/server.h"

struct authz_attrs {
	const struct user *user;
	struct str verb;
	bool resource_request;
	struct str ns, group, version, resource, subresource, name;
	struct str path;         /* of non-resource requests */
	/*
	 * What list, watch and deletecollection are narrowed to (KEP-4601). Requirements that cannot be read are left out, which only asks
	 * for more. `broken`: some could not be read.
	 */
	const struct meta_v1_field_selector_requirement *fields; /* In and NotIn with one value */
	uint32_t n_fields;
	const struct meta_v1_label_selector_requirement *labels;
	uint32_t n_labels;
	bool fields_broken, labels_broken;
	struct request *rq;      /* on whose behalf it is asked, or NULL */
};
enum authz { AUTHZ_NO_OPINION, AUTHZ_ALLOW, AUTHZ_DENY };

struct error *authz_init(struct apiserver *s);
/* The authorizers in order, until one allows or denies; webhooks make it wait. reason (or NULL) gets words in the arena. */
enum authz authorize(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason);
/* The same; *trouble (p == NULL: none) says what kept an authorizer from deciding. */
enum authz authorize_explained(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason, struct str *trouble);
/* The request itself; 403 in upstream's words. */
struct error *authorize_request(struct request *rq);
/* 403 when the user may not create what an update or a patch of theirs would make. */
struct error *authorize_create(struct request *rq);
/* `User "x" cannot get resource "pods" in API group "" at the cluster scope`, in the arena. */
struct str authz_forbidden_text(struct arena *a, const struct authz_attrs *at);
struct authz_attrs authz_attrs_of(struct request *rq);
/* Fills fields and labels from selector texts (empty: none); strings in the arena. */
void authz_selectors(struct arena *a, struct authz_attrs *at, struct str fields, struct str labels);
/* What authorizers could not find out, each once. */
struct authz_untold {
	struct str *v;
	uint32_t n, cap;
};
void authz_untold_add(struct arena *a, struct authz_untold *u, struct str text);
/* As upstream's aggregated errors print: `one`, or `[one, other]`; at most AUTHZ_UNTOLD_MAX of them. */
struct str authz_untold_text(struct arena *a, const struct authz_untold *u);
#define AUTHZ_UNTOLD_MAX 200
struct rbac_v1_policy_rule_list {
	struct rbac_v1_policy_rule *v;
	uint32_t n, cap;
};
/*
 * Every rule that holds for the user in the namespace, by those authorizers that can tell; false when there are others. untold gets
 * their names, and roles that are bound but are not there.
 */
bool authz_rules_for(struct apiserver *s, struct arena *a, const struct user *u, struct str ns, struct rbac_v1_policy_rule_list *out,
		     struct authz_untold *untold);

/* ---- RBAC (rbac.c) ---- */
struct error *rbac_init(struct apiserver *s);
enum authz rbac_authorize(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason);
/* Every rule that holds for the user in the namespace; missing: bound roles that are not there. */
void rbac_rules_for(struct apiserver *s, struct arena *a, const struct user *u, struct str ns, struct rbac_v1_policy_rule_list *out,
		    struct authz_untold *missing);
/* Writes to roles and bindings: 403 when the user would give more than it has (and may not escalate or bind). */
/* all: the role aggregates others, which takes all rights. */
struct error *rbac_check_role(struct request *rq, struct str ns, struct str name, const struct rbac_v1_policy_rule *rules, uint32_t n, bool all);
struct error *rbac_check_binding(struct request *rq, struct str ns, struct str name, const struct rbac_v1_role_ref *ref);
/*
 * Every single (group, resource, verb, name) or (url, verb) of the rules that none of `own` covers, as a rule of its own, in order. They
 * share their strings and arrays with `rules`.
 */
void rbac_uncovered(struct arena *a, const struct rbac_v1_policy_rule *own, uint32_t n_own, const struct rbac_v1_policy_rule *rules, uint32_t n,
		    struct rbac_v1_policy_rule_list *out);
bool rbac_rule_covers(const struct rbac_v1_policy_rule *owner, const struct rbac_v1_policy_rule *want);

/* ---- Node authorizer (node_authz.c) ---- */
enum authz node_authorize(struct apiserver *s, struct arena *a, const struct authz_attrs *at, struct str *reason);
struct error *node_authz_init(struct apiserver *s);

/* ---- reviews (reviews.c): create of SubjectAccessReview and its kin, TokenReview, SelfSubjectReview ---- */
/* metadata.managedFields of an object that is answered but not kept: what the request itself gave. */
struct error *review_manage_fields(struct request *rq, const struct schema_type *t, void *obj);
struct error *rest_review(struct request *rq, bool *handled);

/* The pod names this Secret (or ConfigMap): in volumes, environment, pull secrets. name.p NULL: any. */
bool pod_refers(const struct core_v1_pod *pod, bool secret, struct str name);

#endif
