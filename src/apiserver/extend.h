/*
 * apiserver/extend.h: what others add to the API: aggregated API servers
 * (APIService) and admission webhooks.
 */
#ifndef SKIFF_APISERVER_EXTEND_H
#define SKIFF_APISERVER_EXTEND_H

#include "apiserver/server.h"

struct error *aggregator_init(struct apiserver *s);
/* Proxies the request when its group and version belong to a remote APIService. */
struct error *aggregate(struct request *rq, bool *handled);
/* Its condition of type Available says that it is local. */
void apiservice_local_condition(struct arena *a, struct apiregistration_v1_api_service *o);
/* Local APIService objects for every group-version that this server has. */
struct error *aggregator_register_local(struct apiserver *s);
/* groupPriorityMinimum and versionPriority of a group-version that this server has itself, built in or custom. */
void local_priority(struct str group, struct str version, int32_t *group_priority, int32_t *version_priority);
/* Resources of this server's own have come or gone: their APIServices follow soon. */
void aggregator_wake(struct apiserver *s);

struct api_service_info { /* strings are good until the next wait */
	struct str name, group, version;
	int32_t group_priority, version_priority;
	bool remote, available;
	struct str resources; /* remote: as aggregated discovery has them, "[...]"; empty: none are known */
	bool stale;           /* remote: it could not be asked last time */
};

/* APIServices, highest group priority first, then by name; false behind the last. i 0 takes up what has changed. */
bool aggregator_at(struct apiserver *s, size_t i, struct api_service_info *out);
/* Paths ("apis/G/V") of the OpenAPI v3 documents that remote servers list, and their URLs there; borrowed; false behind the last. */
bool aggregator_document_at(struct apiserver *s, size_t i, struct str *path, struct str *url);
/* Proxies the request to the first remote server that lists this document. */
struct error *aggregate_document(struct request *rq, struct str path, bool *handled);
/* Of a remote server that has OpenAPI v2 alone: its path, and the document as version 3; borrowed; false behind the
 * last. */
bool aggregator_converted_at(struct apiserver *s, size_t i, struct arena *a, struct str *path, struct str *json);
/* OpenAPI v2 of this server with that of remote ones; b is replaced where there are any. */
struct error *aggregator_merge_v2(struct apiserver *s, struct buf *b);
/* Another number when what the last two give is other than before. */
uint64_t aggregator_specs_epoch(struct apiserver *s);
/* For /metrics: APIServices that cannot be reached. */
void aggregate_collect(struct apiserver *s);

struct error *webhooks_init(struct apiserver *s);
/* The same members in the other kind's struct; they are shared. */
void webhook_as_mutating(const struct admissionregistration_v1_validating_webhook *w, struct admissionregistration_v1_mutating_webhook *out);
/* webhook_rules.c: what is wrong with where a webhook is. */
void webhook_client_check(struct field_errors *e, const struct admissionregistration_v1_webhook_client_config *c, const struct field_path *p);

/* Connections of one webhook configuration, kept between calls; zeroed at first. */
struct hook_conn {
	const struct outbound_users *users; /* who we are to webhooks, or NULL */
	const struct outbound_user *user;   /* of them; found with tls */
	struct tls_client *tls;
	bool self;                          /* the webhook is behind this server: it is asked as system:apiserver */
	struct map clients;
};

void hook_conn_free(struct hook_conn *h);
/* POSTs JSON to a webhook (its url or Service), for a request or NULL; *answer in the arena. Errors are plain text for the caller to wrap. */
struct error *webhook_post(struct apiserver *s, struct request *rq, struct arena *a, struct hook_conn *conn,
			   const struct admissionregistration_v1_webhook_client_config *cc, int timeout_s, struct str body, struct str *answer);

/*
 * The watch cache's hook (cache_resource.plain) for CustomResourceDefinitions: those that upstream has stored (v1beta1) as v1.
 * ctx: a struct encryption, or NULL.
 */
struct error *crd_stored_open(void *ctx, struct str key, struct str stored, bool may_wait, struct buf *out);
/* A definition (v1) as it is stored; what it has is shared with `out` no longer than this call. */
void crd_stored_form(struct arena *a, const void *obj, struct buf *out);

#endif
