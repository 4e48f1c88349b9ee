/*
 * apiserver/authz_internal.h: the chain of authorizers, shared by authz.c,
 * authz_config.c and authz_webhook.c only.
 */
#ifndef SKIFF_APISERVER_AUTHZ_INTERNAL_H
#define SKIFF_APISERVER_AUTHZ_INTERNAL_H

#include "apiserver/abac.h"
#include "apiserver/authz.h"
#include "schema/validate.h"

typedef struct apiserverconfig_v1_authorization_configuration authz_configuration;

/* ABAC comes of flags only. */
enum authorizer_type { AUTHORIZER_NODE, AUTHORIZER_RBAC, AUTHORIZER_WEBHOOK, AUTHORIZER_ALWAYS_ALLOW, AUTHORIZER_ALWAYS_DENY, AUTHORIZER_ABAC,
		       N_AUTHORIZER_TYPES };
extern const char *const authorizer_names[N_AUTHORIZER_TYPES];

struct authorizer {
	enum authorizer_type type;
	struct authz_webhook *webhook;
	struct abac_policies *abac; /* in the server's arena */
	const char *allowed, *denied; /* labels of metrics, in the chain's arena */
};
/* One configuration's; counted, because a request may be waiting in it when it is replaced. */
struct authz_chain {
	struct arena arena;
	unsigned refs;
	struct authorizer *v;
	uint32_t n;
};
struct authz_state {
	struct authz_chain *chain;
	unsigned required;       /* bits of types: what a changed file must still have */
};

/* ---- authz_config.c ---- */
/* The chain of --authorization-config or of the flags. */
struct error *authz_config_init(struct apiserver *s);
void authz_chain_unref(struct authz_chain *c);

/* ---- authz_webhook.c: SubjectAccessReviews asked of others ---- */
struct authz_webhook;
/* c is copied; path: its kubeconfig. */
struct error *authz_webhook_new(struct str name, const struct apiserverconfig_v1_webhook_configuration *c, const char *path,
				struct authz_webhook **out);
void authz_webhook_free(struct authz_webhook *w); /* NULL is allowed */
struct cel_program;
/* A match condition; false: *error says why not. */
bool authz_condition_compile(struct arena *a, struct str source, struct cel_program **out, struct str *error);
/* May wait. Words in the arena; *trouble as authorize_explained. */
enum authz authz_webhook_ask(struct authz_webhook *w, struct arena *a, const struct authz_attrs *at, struct str *reason, struct str *trouble);

#endif
