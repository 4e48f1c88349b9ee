/*
 * apiserver/authn.h: who a request is from: client certificates, front-proxy
 * headers, static, bootstrap and service-account tokens; and the tokens that
 * the server issues. It decides nothing about what they may do (authz.h).
 */
#ifndef SKIFF_APISERVER_AUTHN_H
#define SKIFF_APISERVER_AUTHN_H

#include "apiserver/server.h"

/* Reads key and token files named by the options. */
struct error *authn_init(struct apiserver *s);
/* Sets rq->user and rq->real_user; 401. */
struct error *authenticate(struct request *rq);
/* A header (lower case) in which front proxies say who somebody is, by upstream's names or this server's flags. */
bool authn_front_proxy_header(const struct apiserver *s, struct str name);
/* Impersonation headers: checks that the user may, and sets rq->user; 403. */
struct error *impersonate(struct request *rq);
/*
 * What "Authorization: Bearer " and these bytes would be (TokenReview): *out in the arena, NULL when that is nobody (then *why, or NULL).
 * `audiences` empty: the server's own; *auds gets those of them that hold. What was found holds for ten seconds. May wait.
 */
void authenticate_token(struct request *rq, struct str token, const struct str *audiences, size_t n_audiences, const struct user **out,
			struct strings *auds, struct str *why);

/* ---- service-account tokens (sa_tokens.c) ---- */
/* Loads the keys that s->o names into s->tokens; what was loaded stays there after an error, too. */
struct error *sa_tokens_init(struct apiserver *s);
/* The keys again; the server itself keeps them as long as it runs. */
void sa_tokens_free(struct apiserver *s);
struct sa_claims { /* all strings in the caller's arena; of a verified token: a name with p == NULL says that it is bound to no such thing */
	struct str ns, name, uid;          /* of the service account */
	struct str pod_name, pod_uid, secret_name, secret_uid, node_name, node_uid;
	struct str jti, subject;
	struct strings audiences;
	int64_t iat, nbf, exp, warn_after; /* unix seconds; of a verified token: 0 when it does not say */
	bool legacy;                       /* of a Secret, by an issuer of old */
	bool no_audience;                  /* it named none: it is for this server */
};
/*
 * Signature, times, issuer and audience; not the bound objects. NULL error and *ours false: not one of our tokens at all. A token without
 * audiences is for this server; `audiences` empty: the server's own; out->audiences: those of them that the token is for.
 */
struct error *sa_token_verify(struct apiserver *s, struct arena *a, struct str token, const struct str *audiences, size_t n_audiences,
			      bool *ours, struct sa_claims *out);
struct error *sa_token_issue(struct apiserver *s, struct arena *a, const struct sa_claims *c, struct str *token);
/* serviceaccounts/NAME/token: POST TokenRequest. */
struct error *rest_token_request(struct request *rq);
/* /.well-known/openid-configuration and /openid/v1/jwks; JSON in the arena. */
struct error *sa_openid_configuration(struct apiserver *s, struct arena *a, struct str *out);
struct error *sa_jwks(struct apiserver *s, struct arena *a, struct str *out);
/* The audiences tokens of this server have by default. */
void sa_default_audiences(struct apiserver *s, const struct str **v, size_t *n);

#endif
