/*
 * apiserver/server.h: the state of the API server and of one request in it,
 * shared by the files of this room.
 */
#ifndef SKIFF_APISERVER_SERVER_H
#define SKIFF_APISERVER_SERVER_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "apiserver/apierr.h"
#include "apiserver/cache.h"
#include "apiserver/grace.h"
#include "apiserver/request.h"
#include "apiserver/strategy.h"
#include "base/log.h"
#include "base/map.h"
#include "loop/fiber.h"
#include "net/tls.h"
#include "schema/patch.h"
#include "store/store.h"

/* ---- who asks ---- */
struct user {
	struct str name, uid;
	const struct str *groups;
	size_t n_groups;
	const struct strings_pair *extra; /* keys lower case */
	size_t n_extra;
	bool x509;
};
bool user_in_group(const struct user *u, const char *group);
bool user_is_node(const struct user *u, struct str *node); /* system:node:NAME in system:nodes */

/* ---- what is served ---- */
/* One kind of object in the store: shared by the versions and groups it is served under. */
struct storage {
	struct str group, plural;        /* upstream's place for it */
	struct str prefix;               /* "/registry/pods/" */
	const struct schema_type *type;  /* the storage version's */
	struct str api_version, kind;    /* written into the envelope */
	bool namespaced;
	bool versions;                   /* a built-in kind that is served in another version than this, too */
	enum media_type media;           /* as what it is stored, but for stored_form */
	struct store *store;
	bool uncached;                   /* upstream keeps no watch cache of it, which shows in lists */
	struct str stored_version;       /* the version that stored bytes name: upstream's choice, where it is another than api_version */
	/* NULL, or: the bytes that are stored; the cache has others, which the opened ones become (struct cache_resource's `plain`) */
	void (*stored_form)(struct arena *a, const void *obj, struct buf *out);
	int64_t ttl_ms;                  /* > 0: kept that long (events) */
	struct {
		int64_t id, until_ms, objects;
	} lease;                         /* of those written now */
	const struct strategy *strategy; /* may be NULL */
	struct cache *cache;
	struct crd *crd;                 /* NULL for built-ins */
	struct encryption *encryption;   /* at rest, or NULL */
	struct storage_metrics *metrics;
	const struct apiserver *s;
	struct str json_prefix;          /* `{"kind":"Pod","apiVersion":"v1",`: how every cached JSON block begins */
};

struct resource { /* one (group, version, plural) a client can address */
	const struct api_resource *api;
	struct storage *st;              /* NULL: virtual (reviews, bindings) */
	/* Between the request's version and the storage version; NULL where they are the same type. */
	void (*to_storage)(struct arena *a, const void *from, void *to);
	void (*from_storage)(struct arena *a, const void *from, void *to);
	/*
	 * Tables and metadata alone are made of upstream's internal version. Its metadata, where it is another (the
	 * argument is a copy), and the resource whose columns are its, where this version does not have all of them.
	 */
	void (*internal_meta)(struct arena *a, struct meta_v1_object_meta *m);
	const struct api_resource *printed;
	/* Selectable fields by this version's names and by the storage version's; NULL where they are the same. */
	const struct str (*field_names)[2];
	size_t n_field_names;
	struct crd *crd;
	const struct crd_version *crd_version;
	struct str api_version;          /* "apps/v1" */
	bool defaults;                   /* the type has defaults */
};

struct request;
struct apiserver;

/* labelSelector and fieldSelector of the request. *post: what is left to ask of each object, see custom_selector. */
struct error *request_selectors(struct request *rq, struct cache_filter *f, const struct selector **post);

/* What the audit policy says of a request (audit.h). */
enum audit_level { AUDIT_NONE, AUDIT_METADATA, AUDIT_REQUEST, AUDIT_RESPONSE };
enum audit_stage { AUDIT_RECEIVED, AUDIT_STARTED, AUDIT_COMPLETE, AUDIT_PANIC, AUDIT_STAGES };
struct audit_decision {
	enum audit_level level;
	unsigned omit_stages; /* bits of enum audit_stage */
	bool omit_managed_fields;
};

/* ---- one request ---- */
#define WARNINGS_MAX 512
#define ANNOTATIONS_MAX 256 /* of one audit event */
struct request {
	struct http_exchange *x;         /* NULL: the server's own */
	struct arena *a;
	struct apiserver *s;
	struct request_info info;
	struct query q;
	const struct user *user;         /* the one acted as */
	const struct user *real_user;    /* before impersonation */
	struct str impersonation;        /* the constrained mode that allowed it ("impersonate:user-info"), or empty */
	struct resource *res;
	struct grace_reader reading;     /* what the tables of custom resources give out stays */
	struct negotiated out;
	struct str audit_id;
	LIST(struct str) warnings;
	LIST(struct str_pair) annotations; /* of the audit event */
	struct audit_decision audit;
	bool audit_begun, audit_streams, audit_complete, audit_answer_cut;
	struct str audit_body, audit_answer_type;
	struct str audit_object; /* JSON of what the body was read as; empty: the level wants none, or it could not be
				    read */
	struct {
		struct str ns, name, uid, resource_version;
	} audit_ref;                               /* what it says of itself */
	const struct meta_v1_status *audit_status; /* of an answer that is one */
	struct buf audit_answer;         /* only at level RequestResponse */
	int64_t start_ns;
	bool dry_run;
	bool long_running;
	struct flow_seat *seat;          /* what it holds of priority and fairness; of a watch, until it has begun */
	bool watching;                   /* counted among the watches that writes concern */
	struct str cache_control;        /* of the answer; empty: "no-cache, private" */
	bool nosync;                     /* the server's own: what is lost with the power is made again at the next start */
	bool applied;                    /* managedFields of the object being created are made (server-side apply) */
	bool internal;                   /* the server's own: no admission by webhooks, no authorization */
	struct str manager;              /* field manager of writes */
	struct str ns;                   /* of the object written: info.ns, or an internal caller's */
	struct str authz_reason;
	int status;                      /* answered, for logs and metrics */
	bool routed, deprecated; /* for metrics: it has come to a resource or a path that is counted; of an API that is
				    deprecated */
	const struct path_metrics *path_metrics; /* of a path, its labels */
	struct metric *open;                     /* a long-running one is counted there while it lasts */
	int64_t waited_ns;                       /* for seats and webhooks */
	int64_t filtered_ns;                     /* when the last step before its own was over */
	struct {
		int64_t authentication, authorization, impersonation, queue, mutating, validating, store;
	} spent_ns; /* for the audit event of one that took long */
	bool body_read;
	size_t body_bytes;
};
/* A request of the server itself, as system:apiserver in system:masters. */
void request_internal(struct request *rq, struct apiserver *s, struct arena *a, struct resource *res, struct str ns);
/* Adds a Warning header (deduplicated, at most WARNINGS_MAX). */
void request_warn(struct request *rq, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Adds an annotation to the audit event (both copied); of a key given twice the first stays, as upstream. */
void request_annotate(struct request *rq, struct str key, struct str value);
/* The whole body in the request's arena, at most `limit` bytes (413); the audit log's, when its policy wants it. */
struct error *request_body(struct request *rq, size_t limit, struct str *out);

/* ---- the server ---- */
#define TLS_SNI_MAX 32
#define FLAG_LIST_MAX 16
struct options { /* flags, see options.c */
	const char *etcd_prefix; /* of the store's keys: "" or "/a/b", as options_check made it */
	const char *data_dir, *etcd_servers, *etcd_ca, *etcd_cert, *etcd_key;
	const char *bind_address;
	int secure_port;
	const char *tls_cert_file, *tls_key_file, *client_ca_file, *cert_dir;
	const char *tls_min_version, *tls_cipher_suites, *tls_curves;
	struct tls_sni tls_sni[TLS_SNI_MAX];
	size_t n_tls_sni;
	bool disable_http2;
	int http2_max_streams; /* 0: the default */
	double goaway_chance;
	bool allow_privileged;
	const char *runtime_config; /* runtime_config.h */
	const char *storage_media_type, *etcd_overrides, *watch_cache_sizes;
	const char *version; /* "v...": git_version */
	bool watch_cache;
	const char *endpoint_reconciler;
	int apiserver_count;
	int kubernetes_node_port; /* of the Service kubernetes; 0: it has none */
	bool sa_lookup;           /* tokens of Secrets are looked for there */
	bool priority_and_fairness, garbage_collector;
	bool port_sharing;
	int64_t etcd_healthcheck_ms, etcd_readycheck_ms, livez_grace_ms;
	bool shutdown_retry_after;
	const char *emulated_version, *min_compatibility_version;
	const char *requestheader_client_ca_file, *requestheader_allowed_names, *requestheader_username_headers,
		*requestheader_group_headers, *requestheader_extra_prefixes, *requestheader_uid_headers;
	const char *proxy_client_cert_file, *proxy_client_key_file;
	bool aggregator_routing;
	const char *sa_signing_key_file, *sa_jwks_uri, *api_audiences;
	struct flag_list {
		const char *v[FLAG_LIST_MAX];
		size_t n;
	} sa_issuers, sa_key_files;
	int64_t sa_max_token_expiration_s;
	bool sa_extend_expiration;
	const char *service_cidr, *node_port_range;
	const char *kubelet_client_cert, *kubelet_client_key, *kubelet_ca;
	const char *kubelet_address_types;
	const char *token_auth_file;
	const char *authentication_config;
	const char *oidc_issuer_url, *oidc_client_id, *oidc_ca_file, *oidc_username_claim, *oidc_username_prefix, *oidc_groups_claim,
		*oidc_groups_prefix, *oidc_signing_algs, *oidc_required_claims;
	bool oidc_set;                   /* any of them */
	bool bootstrap_token_auth, anonymous_auth, anonymous_auth_set;
	const char *authorization_mode, *authorization_policy_file, *authorization_config, *authorization_webhook_config, *authorization_webhook_version;
	int64_t authorization_webhook_authorized_ms, authorization_webhook_unauthorized_ms;
	bool authorization_set;          /* any of them but authorization_config */
	const char *token_webhook_config, *token_webhook_version;
	int64_t token_webhook_cache_ms;
	const char *enable_admission, *disable_admission, *admission_config;
	int not_ready_toleration_s, unreachable_toleration_s; /* defaults of pods */
	const char *advertise_address, *peer_advertise_ip, *peer_advertise_port;
	const char *external_hostname;
	const char *audit_log_path, *audit_policy_file, *audit_webhook_config_file;
	int audit_log_maxsize, audit_log_maxbackup, audit_log_maxage;
	const char *audit_log_format; /* "json" or "legacy" */
	bool audit_log_compress;
	struct audit_backend {              /* what both backends are told */
		const char *mode, *version; /* "batch", "blocking" or "blocking-strict"; "audit.k8s.io/v1" */
		int buffer_size, max_size, throttle_burst;
		int64_t max_wait_ms;
		bool throttle, truncate;
		double throttle_qps;
		int64_t truncate_batch, truncate_event; /* bytes */
	} audit_log, audit_webhook;
	int64_t audit_webhook_backoff_ms;
	const char *encryption_config;
	bool encryption_config_reload;
	const char *port_file;           /* the port bound is written there (tests, supervisors) */
	int max_requests_inflight, max_mutating_inflight;
	bool cbor;                 /* feature CBORServingAndStorage: alpha, and off unless asked for */
	int64_t request_timeout_ms, min_request_timeout_s, event_ttl_ms, lease_reuse_s, compaction_interval_ms;
	int64_t shutdown_delay_ms;
	const char *cors_allowed_origins, *hsts_directives;
	bool profiling;
	const char *disabled_metrics, *metric_labels, *metric_labels_file, *show_hidden_metrics;
	int verbosity;
};

/* How many there are, and the most there were within the last second (metrics_collect.c). */
struct watermark {
	int now, high, before; /* high: of the second that began at since_ms; before: of the one before it */
	int64_t since_ms;
};
void watermark_add(struct watermark *w, int n);
int watermark_high(struct watermark *w);

enum bootstrap_hook { HOOK_RBAC, HOOK_PRIORITY, HOOK_FLOW, HOOK_NAMESPACES, HOOK_SERVICE, HOOK_TOKENS, HOOK_IDENTITY, HOOK_CRDS, HOOK_APISERVICES, HOOKS };

#define STORES_MAX 32 /* etcds beside the first */

struct apiserver {
	struct options o;
	struct store *store;
	struct store *other_stores[STORES_MAX]; /* of --etcd-servers-overrides */
	size_t n_other_stores;
	struct store_override { /* a resource, or all ("*") of a group */
		struct str group, plural, servers;
		struct store *store; /* one of the others */
	} *overrides;
	size_t n_overrides;
	struct http_server *http;
	char loopback_token[37]; /* by which the server knows itself as system:apiserver; of this process, told to nobody */
	struct tls_server *tls;          /* http's certificates */
	struct map by_path;              /* "group/version/plural" -> struct resource * */
	struct map storages;             /* "group/plural" -> struct storage * */
	struct resource **resources;     /* built-in, in discovery order */
	const struct api_resource **served; /* the same's tables */
	size_t n_resources;
	struct resource **hidden; /* what --runtime-config says is not served, and the server itself lives with */
	size_t n_hidden;
	struct runtime_config *runtime_config;
	struct arena arena;              /* of the server's life */
	uint64_t resources_epoch;        /* raised when what is served changes (CRDs, APIServices) */
	struct authn *authn;
	struct map impersonation_modes;  /* impersonate.c */
	struct rbac *rbac;
	struct authz_state *authz;
	struct node_graph *node_graph;
	struct sa_tokens *tokens;
	struct aggregator *aggregator;
	struct grace *grace;             /* when what CustomResourceDefinitions became is freed */
	struct crds *crds;
	struct webhooks *webhooks;
	struct policies *policies;
	struct alloc *alloc;             /* service addresses and ports */
	struct request_metrics *request_metrics;
	struct cors *cors;
	struct discovery *discovery;
	struct audit *audit;
	struct kubelet_clients *kubelets;
	const struct admission_plugin *plugins[40];
	size_t n_plugins;
	bool ready, stopping, closed;  /* closed: new requests are sent away */
	struct background *background; /* background.h */
	struct waitq background_gone;
	bool background_stopping;
	struct fiber_mutex contended[64]; /* by name: who lost a race for an object goes after the others who did */
	bool snapshotting;               /* a copy of the store is being written */
	bool bootstrapped[HOOKS];        /* what bootstrap_run has done, for health checks */
	struct watermark inflight, inflight_mutating, inqueue, inqueue_mutating;
	int64_t started_wall_ns;
	int port;
};

/* The resource a client addresses; NULL when there is none. */
struct resource *resource_find(struct apiserver *s, struct str group, struct str version, struct str plural);
/* The preferred served version of a group's resource; of one that is not served any, for the server itself. */
struct resource *resource_any(struct apiserver *s, struct str group, struct str plural);
/* False for what only the server itself knows (--runtime-config). */
bool resource_served(const struct apiserver *s, const struct resource *r);
struct storage *storage_find(struct apiserver *s, struct str group, struct str plural);
struct resource *resource_for_kind(struct apiserver *s, struct str group, struct str version, struct str kind);
struct error *resources_init(struct apiserver *s);

/* ---- answers (respond.c) ---- */
void respond_error(struct request *rq, struct error *e); /* takes e */
/* What is wrong with the parameters of a Table, when that is asked for: looked at when there is something to show, not before. */
struct error *respond_table_options(const struct request *rq);
/* A struct of type t in the negotiated format; `status` HTTP. */
struct error *respond_struct(struct request *rq, int status, const struct schema_type *t, const void *obj);
/* A resource's object (storage struct) with the request's version, or as Table or PartialObjectMetadata. */
struct error *respond_object(struct request *rq, int status, struct resource *res, void *obj);
/* Whether the cached bytes are what the request's version looks like. */
bool entry_fits(const struct resource *res, const struct cache_entry *e);
/* The cached bytes where they are what was asked for: *done false, and nothing done, where they are not. */
struct error *respond_entry(struct request *rq, int status, struct resource *res, const struct cache_entry *e, bool *done);
struct error *respond_success(struct request *rq, struct resource *res, struct str name, struct str uid);
struct error *respond_bytes(struct request *rq, int status, struct str content_type, struct str body);
/* An answer in plain text, as Go's http.Error writes it: a line end is put behind. */
struct error *respond_text(struct request *rq, int status, struct str text);
/* metadata as an answer of nothing else has it; obj: the request version's struct. */
void partial_meta(struct arena *a, const struct resource *res, const void *obj, struct meta_v1_object_meta *out);
struct table_options;
/* Columns of a custom resource into o; one row, whatever the kind of resource (obj: the request version's struct, that
 * of the storage where the resource has `printed`). */
const struct api_resource *
table_resource(const struct resource *res); /* whose columns a table has; NULL: a custom resource's */
void table_for(struct request *rq, struct resource *res, struct table_options *o);
void table_append(struct request *rq, struct buf *b, struct resource *res, const struct table_options *o, const void *obj, bool first);
/* JSON text in the negotiated format. */
struct error *respond_json(struct request *rq, int status, struct str json);
/* Compresses when asked for and large enough, sets headers, writes. */
struct error *respond_iov(struct request *rq, int status, struct str content_type, struct iovec *iov, int n);
/* An answer too long to be held at once, written piece by piece; compressed when the client takes that. pieces_end also after errors. */
struct pieces;
struct error *pieces_begin(struct request *rq, int status, struct str content_type, struct pieces **out);
struct error *pieces_write(struct pieces *w, struct str piece); /* suspends; the bytes are free to change when it returns */
struct error *pieces_end(struct pieces *w, struct error *e);    /* e: what writing ended with, handed through; then there is no proper end */
/* "k8s\0" and the runtime.Unknown up to its raw bytes, whose own tag and length follow; behind them goes PB_ENVELOPE_END. */
void pb_envelope_begin(struct buf *b, struct str api_version, struct str kind);
#define PB_ENVELOPE_END str_of("\x1a\0\x22\0", 4) /* contentEncoding "", contentType "" */
void pb_put_varint(struct buf *b, uint64_t v);
void pb_put_bytes(struct buf *b, unsigned field, struct str s); /* field with its tag and length */
void pretty_json(struct buf *out, struct str json);
/* Sets Audit-Id, Cache-Control, Warning and flow headers: before any answer. */
void respond_headers(struct request *rq);

/* ---- verbs (rest_*.c); each answers, or returns the error to answer ---- */
struct error *rest_get(struct request *rq);
/* The options of a get: 400, or 500 for a resourceVersion that is none. */
struct error *rest_get_options(struct request *rq, enum cache_mode *mode, int64_t *rev);
struct error *rest_list(struct request *rq);
struct error *rest_watch(struct request *rq);
/*
 * The body of a create or update (options: "CreateOptions" or "UpdateOptions", which the query has) as a t of that kind and version, not
 * defaulted; dry_run and manager of rq are set.
 */
struct error *rest_body(struct request *rq, const char *options, const struct schema_type *t, struct str kind, struct str api_version, void **out);
/* 422 for values that are none, and for two that do not go together. */
struct error *delete_options_validate(struct request *rq, const struct meta_v1_delete_options *o);
/* What kind of patch Content-Type says; 415. */
struct error *rest_patch_type(struct request *rq, enum patch_type *type);
struct error *rest_create(struct request *rq);
struct error *rest_update(struct request *rq);
struct error *rest_patch(struct request *rq);
struct error *rest_delete(struct request *rq);
struct error *rest_delete_collection(struct request *rq);
struct error *rest_scale(struct request *rq);
/* subresources that are not plain objects; NULL-able *handled false: not one of these */
struct error *rest_connect(struct request *rq, bool *handled);
struct error *rest_special(struct request *rq, bool *handled);
struct error *rest_component_status(struct request *rq); /* component_status.c */

/* ---- registry (registry*.c): the same for requests and for the server itself ---- */
/* 400 for what can be no name in a path: ".", "..", and what has '/' or '%' in it. */
struct error *registry_name(struct request *rq, struct str name);
/* Decodes the newest object into the request's arena (a copy of its own); 404. */
struct error *registry_get(struct request *rq, struct str ns, struct str name, void **obj);
/* 400 for a name that no object's key can have: whoever refers to it gave a bad one, before it is looked for. */
struct error *registry_check_name(struct arena *a, struct str name);
/* From the cache without a 404: *obj NULL when absent. For built-in lookups by admission and authorization. */
void *registry_peek(struct apiserver *s, struct arena *a, struct storage *st, struct str ns, struct str name);

struct write_result {
	void *obj;               /* storage struct as written, with resourceVersion */
	struct cache_entry *entry; /* as cached, a reference of the receiver's, or NULL */
	bool created, deleted;
};
/* obj: storage version struct, defaulted; changed in place. Admission, strategy, validation, managedFields, store. */
struct error *registry_create(struct request *rq, void *obj, struct write_result *out);

enum { UPDATE_CREATE = 1 /* make it when missing */, UPDATE_NO_ADMISSION = 2, UPDATE_UNCONDITIONAL = 4 };
struct update {
	/* Makes the new object from the current one (NULL: creating); called again after a conflict when retry is allowed. *out is in
	 * the request's arena; the argument stays as it is: the two are compared. */
	struct error *(*make)(void *ctx, struct request *rq, const void *old, void **out);
	void *ctx;
	const char *sub;         /* NULL: the main resource */
	struct str uid;          /* precondition, or empty */
	struct str rv;           /* precondition, or empty */
	unsigned flags;
	bool apply;              /* managedFields were made by `make` (server-side apply) */
	const bool *same;        /* NULL, or set by `make`: its object is the current one, and gets no defaults either */
	bool retry;              /* on a lost race when the new object names no resourceVersion */
};
struct error *registry_update(struct request *rq, struct str ns, struct str name, const struct update *u, struct write_result *out);

/* How entries of other versions than the request's see its object: for kinds that have several. */
struct managed_fields_request;
void managed_fields_versions(struct request *rq, struct managed_fields_request *mr);
/* 500 when the configuration of encryption has changed so that the object could not be read from the store now. */
struct error *registry_readable(const struct storage *st, const struct cache_entry *entry);
struct error *registry_delete(struct request *rq, struct str ns, struct str name, const struct meta_v1_delete_options *o,
			      struct write_result *out);
struct str storage_key(struct arena *a, const struct storage *st, struct str ns, struct str name);

/* special.c: the lease that events of now are put with. */
struct error *event_lease(struct storage *st, int64_t *lease);

/* ---- clocks and small things ---- */
struct api_time time_now(void);       /* whole seconds */
struct api_time time_now_micro(void);
void random_suffix(char *out, size_t n); /* of bcdfghjklmnpqrstvwxz2456789, NUL-terminated: n characters */

#endif
