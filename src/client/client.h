/*
 * client/client.h: the Kubernetes API client that every component but the API
 * server is built on. Typed by descriptors, on fibers, over one HTTP/2
 * connection; knows nothing of stores.
 *
 * Objects are the generated structs (schema/api.h), decoded into the caller's
 * arena. Errors carry the server's Status (status, reason, message, causes).
 */
#ifndef SKIFF_CLIENT_CLIENT_H
#define SKIFF_CLIENT_CLIENT_H

#include "net/http.h"
#include "schema/codec.h"
#include "schema/patch.h" /* enum patch_type */

struct client_config { /* zeroed and filled, or from a kubeconfig; strings live in the arena it was read into */
	const char *server;       /* "https://127.0.0.1:6443" */
	const char *ca_file, *cert_file, *key_file;
	struct str ca_pem, cert_pem, key_pem; /* instead of the files */
	const char *token;
	const char *token_file;   /* re-read each minute */
	const char *tls_server_name;
	bool insecure_skip_tls_verify;
	const char *ns;           /* default namespace of the context */
	const char *user_agent;   /* default "skiff/VERSION" */
	double qps;               /* requests a second, default 0: unlimited; watches do not count */
	int burst;
};
/* kubeconfig file (context NULL: current-context). */
struct error *client_config_load(struct arena *a, const char *path, const char *context, struct client_config *out);
/* /var/run/secrets/kubernetes.io/serviceaccount. */
struct error *client_config_in_cluster(struct arena *a, struct client_config *out);

struct client;
struct error *client_new(const struct client_config *c, struct client **out);
void client_free(struct client *c);

/*
 * A bearer token for a client: *token is malloc'ed and becomes the client's, *valid_ms is for how long it is used. May wait;
 * called when the first request needs it, when its time is over, and when the server refuses it.
 */
typedef struct error *client_token_fn(void *ctx, char **token, int64_t *valid_ms);
/*
 * Another identity at the same server: a client that shares the connection of `base`, which must present no certificate and
 * no token of its own (a certificate would win) and must outlive it.
 */
struct client *client_with_token(struct client *base, client_token_fn *fn, void *ctx, const char *user_agent);

struct list_opts {
	struct str label_selector, field_selector;
	struct str resource_version;  /* "0": from the cache; empty: consistent */
	int64_t limit;
	struct str continue_;
};
struct delete_opts {
	int64_t grace_seconds;        /* < 0: the object's default; set -1 when unused */
	const char *propagation;      /* "Background", "Foreground", "Orphan" or NULL */
	struct str uid;               /* precondition, may be empty */
	struct str resource_version;  /* precondition, may be empty */
};
#define DELETE_DEFAULT ((struct delete_opts){.grace_seconds = -1})

/* ns is empty for cluster-scoped resources (and for lists: all namespaces). *obj: a struct of r->type in the arena. */
struct error *client_get(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, struct str name, void **obj);
/* *list: a struct of r->list_type. */
struct error *client_list(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, const struct list_opts *o, void **list);
/* kind and apiVersion are set by the client; out may be NULL. */
struct error *client_create(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, const void *obj, void **out);
/* Create of a subresource: e.g. pods "web-1", "binding" or "eviction", serviceaccounts/token; types of body and answer are given. */
struct error *client_create_sub(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, struct str name,
				const char *sub, const struct schema_type *body_type, const void *body,
				const struct schema_type *out_type, void **out);
/* sub: NULL, "status", ... */
struct error *client_update(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, const char *sub,
			    const void *obj, void **out);
/* field_manager and force count for PATCH_APPLY (YAML or JSON body). */
struct error *client_patch(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, struct str name,
			   const char *sub, enum patch_type type, struct str body, const char *field_manager, bool force, void **out);
struct error *client_delete(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, struct str name,
			    const struct delete_opts *o);
struct error *client_delete_collection(struct client *c, struct arena *a, const struct api_resource *r, struct str ns,
				       const struct list_opts *o, const struct delete_opts *d);

/* Anything else: `target` is path and query. JSON in and out; a status >= 400 is an error made from the Status body. */
struct error *client_raw(struct client *c, struct arena *a, const char *method, struct str target, const char *content_type,
			 struct str body, struct str *out);
/* The streaming response itself (logs, watches of unknown types). The caller closes it. */
struct error *client_stream(struct client *c, struct arena *a, const char *method, struct str target, const char *accept,
			    struct http_response *out);
/* REST path of a resource: "/apis/apps/v1/namespaces/NS/deployments/NAME/SUB"; ns, name, sub may be empty. */
struct str client_path(struct arena *a, const struct api_resource *r, struct str ns, struct str name, const char *sub);

/*
 * A resource known only at run time (custom, aggregated, or any as the server's discovery tells it), for clients that need
 * nothing but metadata: type is meta_v1_partial_object_metadata and every request asks for that form.
 */
struct api_resource *client_dynamic_resource(struct arena *a, struct str group, struct str version, struct str plural,
					     struct str kind, bool namespaced, uint16_t verbs);
/*
 * What the server serves, by discovery: each resource (no subresources) in its group's preferred version first; copies in the
 * arena, as client_dynamic_resource. Groups that do not answer (an aggregated server that is down) are left out
 * and *partial is set (it may be NULL). An error only when nothing was learnt.
 */
struct error *client_discover(struct client *c, struct arena *a, const struct api_resource ***out, size_t *n, bool *partial);
/* The default namespace of the context, "default" when it names none. */
const char *client_namespace(const struct client *c);

/* Retry helper: true when err is 409 Conflict and the caller should read again (at most 5 times; counts in *tries). Frees the error then. */
bool client_retry_conflict(struct error **e, int *tries);

#endif
