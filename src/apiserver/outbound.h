/*
 * apiserver/outbound.h: HTTP(S) calls that the API server makes because its
 * configuration says so: to identity providers, and to the webhooks that a
 * kubeconfig file names. Admission and conversion webhooks, which objects of
 * the API name, are webhook.c's. HTTP/2 is spoken where the other side has it.
 */
#ifndef SKIFF_APISERVER_OUTBOUND_H
#define SKIFF_APISERVER_OUTBOUND_H

#include "base/map.h"
#include "net/http.h"

#define OUTBOUND_ANSWER_MAX (4u << 20) /* bytes of a body */
#define OUTBOUND_HOSTS_MAX 16          /* connections are kept to so many servers of one outbound */

/*
 * The client for o->base, of those kept by it. When there are `max` for others, all are let go: who talks over one holds it, until it is
 * done. For all that the API server calls by addresses that come and go.
 */
struct error *clients_get(struct map *clients, size_t max, const struct http_client_opts *o, struct http_client **out);
void clients_let_go(struct map *clients);

struct request;
struct outbound; /* used by many fibers of one loop; freed when the last call in it has ended */
/* The CA and names of t; its strings are copied. */
struct error *outbound_new(const struct tls_client_opts *t, struct outbound **out);
/*
 * A webhook by kubeconfig: the current context's cluster and user. The server's URL is called as it stands. Exec plugins, auth
 * providers, impersonation and proxies are errors.
 */
struct error *outbound_from_kubeconfig(const char *path, struct outbound **out);
void outbound_free(struct outbound *o); /* NULL is allowed */

/* How a kubeconfig says that somebody shows who it is. Strings are where it was read to. */
struct outbound_user {
	const char *cert_file, *key_file;
	struct str cert_pem, key_pem;
	struct str authorization; /* header, or empty */
	const char *token_file;   /* read at each call */
};
/* The user's Authorization header now, in a; empty: none. */
struct error *outbound_user_header(const struct outbound_user *u, struct arena *a, struct str *header);
/*
 * The users of a kubeconfig by the servers they are for (upstream's webhook.AuthenticationInfoResolver): named HOST:PORT, *.DOMAIN:PORT, the
 * same without port for 443, or *; else the current context's. NULL of outbound_users_find: nobody.
 */
struct outbound_users;
struct error *outbound_users_read(const char *path, struct outbound_users **out);
const struct outbound_user *outbound_users_find(const struct outbound_users *u, struct str host, int port);

/*
 * A request and where it is redirected to, as Go's client goes: ten requests at most; after 301 to 303 without its body, as GET; with what
 * says who we are to other hosts only when it is the connection that says it, not the request.
 */
struct hop {
	const char *method;
	struct str url, body;         /* absolute, without a fragment */
	struct http_header h[5];
	size_t n;
	bool says_who;                /* authorization is the connection's */
	struct request *rq;           /* for which it is asked, or NULL */
	struct str first;             /* URL of the first */
	unsigned redirects;
};
/* The answer sends us elsewhere: *again, and what to ask next in h. */
struct error *hop_next(struct hop *h, struct arena *a, int status, const struct http_headers *answer, bool *again);
struct str url_host(struct arena *a, struct str url); /* without port */
/* "https://host/path?query" into base and target. */
struct error *url_split(struct arena *a, struct str url, struct str *base, struct str *target);

struct outbound_answer { /* all in the arena */
	int status;
	struct str body;
	struct http_headers headers;
};
/* GET, redirects followed; bearer may be empty. Answers of any status are no error. */
struct error *outbound_get(struct outbound *o, struct arena *a, struct str url, struct str bearer, int64_t timeout_ms, struct outbound_answer *out);
/*
 * POSTs JSON to the kubeconfig's server for a request (or NULL), redirects followed. Connections that are reset and answers 429, 500, 504 or with Retry-After are tried
 * again: five times in all, from first_ms on, each pause half as long again (upstream's webhook backoff). timeout_ms is for each try.
 * Anything but a 2xx answer is an error then.
 */
#define OUTBOUND_FIRST_MS 500 /* upstream's, where nothing else is said */
struct error *outbound_post(struct outbound *o, struct request *rq, struct arena *a, struct str body, int64_t timeout_ms, int64_t first_ms, struct str *answer);
/* The same for what must not be lost: tried again after anything that went wrong, from first_ms on. */
struct error *outbound_deliver(struct outbound *o, struct arena *a, struct str body, int64_t timeout_ms,
			       int64_t first_ms);

#endif
