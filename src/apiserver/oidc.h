/*
 * apiserver/oidc.h: tokens of OpenID Connect providers: a generation of JWT
 * authenticators made of one AuthenticationConfiguration (KEP-3331). Keys come
 * from the providers' discovery documents and are cached as upstream does.
 */
#ifndef SKIFF_APISERVER_OIDC_H
#define SKIFF_APISERVER_OIDC_H

#include "apiserver/server.h"
#include "schema/validate.h"

#define OIDC_ISSUERS_MAX 64 /* upstream's */

typedef struct apiserverconfig_v1_authentication_configuration authn_configuration;

/* The rules of `jwt` (compiles its expressions); service_account_issuers may not be issuers. */
void oidc_validate(struct field_errors *e, const authn_configuration *c, const struct strings *service_account_issuers);

struct oidc;
/*
 * Starts fetching the keys of every issuer. c must be valid and is copied. algs: the signing algorithms accepted. One reference,
 * the caller's.
 */
struct error *oidc_new(const authn_configuration *c, const struct str *algs, size_t n_algs, struct oidc **out);
void oidc_unref(struct oidc *o); /* NULL is allowed */
/* Waits until the keys' addresses of all issuers are known, at most `ms`; says which is not. */
struct error *oidc_wait_ready(struct oidc *o, int64_t ms);
/* *ok false without an error: no issuer of it. May wait. tmp: scratch; u's strings in a. */
struct error *oidc_authenticate(struct oidc *o, struct arena *tmp, struct arena *a, struct str token, struct user *u, bool *ok);

#endif
