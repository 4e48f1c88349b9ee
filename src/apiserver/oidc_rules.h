/*
 * apiserver/oidc_rules.h: from the claims of a verified token to a user: claim
 * mappings, validation rules and CEL expressions of one JWTAuthenticator. Pure.
 */
#ifndef SKIFF_APISERVER_OIDC_RULES_H
#define SKIFF_APISERVER_OIDC_RULES_H

#include "apiserver/server.h"
#include "schema/jv.h"
#include "schema/validate.h"

struct jwt_rules; /* points into c and into the arena it is made of */
/* What is wrong goes to e below p (NULL: c is known to be valid). */
void jwt_rules_compile(struct arena *a, const struct apiserverconfig_v1_jwt_authenticator *c, struct field_errors *e, const struct field_path *p,
		       struct jwt_rules **out);
void jwt_rules_free(struct jwt_rules *r); /* its programs; NULL is allowed */
/* tmp: scratch; u's strings in a. Errors in upstream's words. */
struct error *jwt_rules_user(const struct jwt_rules *r, struct arena *tmp, struct arena *a, const struct jv *claims, struct user *u);
/* "string", "number"...: as Go's json names it. */
const char *claim_kind(const struct jv *v);

#endif
