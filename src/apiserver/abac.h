/*
 * apiserver/abac.h: the ABAC authorizer (pkg/auth/authorizer/abac): policies in a file, one JSON object a line, read at the start.
 */
#ifndef SKIFF_APISERVER_ABAC_H
#define SKIFF_APISERVER_ABAC_H

#include "apiserver/authz.h"

struct abac_policies {
	LIST(struct abac_v1beta1_policy_spec) v;
};
/* Into the arena; an error names the line. */
struct error *abac_read(struct arena *a, const char *path, struct abac_policies *out);
/* text: the file's. */
struct error *abac_parse(struct arena *a, struct str text, struct abac_policies *out);
enum authz abac_authorize(const struct abac_policies *p, const struct authz_attrs *at, struct str *reason);
/* Every rule that holds for the user in the namespace; non-resource rules among them. */
void abac_rules_for(const struct abac_policies *p, struct arena *a, const struct user *u, struct str ns, struct rbac_v1_policy_rule_list *out);

#endif
