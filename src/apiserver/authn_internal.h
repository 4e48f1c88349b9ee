/*
 * apiserver/authn_internal.h: the inside of authentication, shared by authn.c,
 * authn_tokens.c, authn_config.c, oidc.c, authn_webhook.c and impersonate.c only.
 */
#ifndef SKIFF_APISERVER_AUTHN_INTERNAL_H
#define SKIFF_APISERVER_AUTHN_INTERNAL_H

#include "apiserver/authn.h"
#include "apiserver/oidc.h"

struct static_token {
	struct str token;
	struct user user;
};

struct authn {
	struct map cache; /* token -> struct token_entry * */
	struct static_token *tokens;
	uint32_t n_tokens;
	struct str allowed_names[32];
	size_t n_allowed;
	struct str user_headers[4], group_headers[4], extra_prefixes[4], uid_headers[4];
	size_t n_user, n_group, n_extra, n_uid;
	bool anonymous;                /* a request without credentials is system:anonymous */
	const struct str *anonymous_paths; /* only under these paths, when there are any */
	uint32_t n_anonymous_paths;
	const authn_configuration *config; /* at the start */
	struct strings algs;           /* of JWT authenticators */
	struct oidc *oidc;
	struct token_webhook *webhook; /* or NULL */
};

/* What there is to say about a valid token to whoever uses it. */
struct token_notes {
	struct str warning;            /* p NULL: none */
	LIST(struct str_pair) audit;   /* annotations of the event */
};

/* ---- authn_tokens.c ---- */
struct error *static_tokens_load(struct apiserver *s, const char *path);
bool static_token_user(struct apiserver *s, struct str token, struct user *u);
/* tmp: scratch; a: where the strings of the user and the notes live. False: *why. A Secret's token is labelled as used: may wait. */
bool service_account_user(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, const struct sa_claims *c, struct user *u,
			  struct token_notes *notes, struct str *why);
bool bootstrap_token_user(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, struct user *u);

/* ---- authn_config.c ---- */
/* What flags of authentication say alone and together, before anything is read. */
struct error *authn_flags_check(struct apiserver *s);
/* Reads --authentication-config, or makes the same of flags; sets who is anonymous. */
struct error *authn_config_init(struct apiserver *s);

/* ---- authn_webhook.c ---- */
struct error *token_webhook_init(struct apiserver *s);
/* *ok false without an error: it does not know the token, or there is no webhook. May wait. */
struct error *token_webhook_authenticate(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, const struct str *audiences,
					 size_t n, struct user *u, struct strings *auds, bool *ok);

/* Tokens are looked at again: what they are checked against has changed. */
void authn_cache_clear(struct apiserver *s);
/* The first is whose tokens are made here. */
const struct strings *sa_issuers(struct apiserver *s);

/* ---- users ---- */
/* Copies of `groups`, plus `extra` (a literal, NULL-able) where it is not among them. */
void user_set_groups(struct arena *a, struct user *u, const struct str *groups, size_t n, const char *extra);
/*
 * The groups, and system:authenticated, as every user is that shows credentials: but for one who is called system:anonymous or is in
 * system:unauthenticated. The name is set before.
 */
void user_set_authenticated(struct arena *a, struct user *u, const struct str *groups, size_t n);
/* What stands behind the prefix of a header for extra fields; as it is where it is not %-encoded well. */
struct str extra_key(struct arena *a, struct str encoded);
void user_add_extra(struct arena *a, struct user *u, const char *key, struct str value);
void user_copy(struct arena *a, const struct user *from, struct user *to);

#endif
