/*
 * apiserver/metrics.h: /metrics and /metrics/slis: counters, gauges and histograms under upstream's names, types and
 * labels (test/instrumentation/testdata/stable-metrics-list.yaml), as Prometheus' text or protobuf.
 *
 * Something is counted where it happens; what other rooms keep anyway (objects, sizes, processes) is read when somebody
 * asks. One loop.
 */
#ifndef SKIFF_APISERVER_METRICS_H
#define SKIFF_APISERVER_METRICS_H
#include "apiserver/server.h"

enum metric_id {
#define METRIC(id, name, type, level, buckets, help) METRIC_##id,
#include "apiserver/metrics_families.h"
#undef METRIC
	METRICS
};

/*
 * One series of a family: labels is the text between the braces, the names in order ("a=\"x\",b=\"y\""; metric_label
 * for values of which nobody knows what is in them). It stays where it is for the life of the process (as does the
 * registry), so that whoever counts often keeps the pointer. At most METRIC_SERIES_MAX of all families; what would be
 * one more shares one that is never shown.
 */
struct metric;
#define METRIC_SERIES_MAX 20000
struct metric *metric_series(enum metric_id id, const char *labels);
size_t metric_count(enum metric_id id); /* series of a family */
void metric_add(struct metric *m, double n);
void metric_set(struct metric *m, double value);
void metric_observe(struct metric *m, double value); /* of a histogram or summary */
/*
 * A histogram of how high something stands beside its limit, each nanosecond an observation (upstream's timing
 * histograms). Set m and limit; value goes by metric_level_add; shown is what it was until the last of these.
 */
struct metric_level {
	struct metric *m;
	double value, limit; /* > 0 */
	int64_t since_ns;    /* 0: has not begun */
};
void metric_level_add(struct metric_level *l, double n, int64_t now_ns);
void metric_touch(struct metric *m);                 /* it is shown from now on */
/* `value` as it stands in quotes: backslashes, quotes and line ends escaped. */
struct str metric_label(struct arena *a, struct str value);

/* The same where it happens seldom. */
void metrics_count(enum metric_id id, const char *labels, int64_t n);
void metrics_set(enum metric_id id, const char *labels, double value);
void metrics_observe(enum metric_id id, const char *labels, double value);
void metrics_forget(enum metric_id id); /* every series of a family, until it is counted again */
void metrics_forget_with(enum metric_id id, const char *label); /* those that have this among their labels (a="x") */

/* ---- what flags say of families, before anything is counted (metrics_flags.c) ---- */
struct error *metrics_configure(const struct options *o);
/* One is not shown; a label of one takes these values (joined with commas), and "unexpected" stands for every other. */
void metrics_switch_off(struct str name);
void metrics_allow(struct str name, struct str label, struct str values);

/* A configuration file was read again: how often, and when last. */
void metrics_reloaded(enum metric_id count, enum metric_id when, bool ok);
/* The digest (metrics_hash) of the text that is in use now. */
void metrics_in_use(enum metric_id id, const char *hash);

/* "sha256:HEX", as upstream's labels show what is not to be read; empty for nothing. */
#define METRICS_HASH 72
void metrics_hash(struct str s, char out[METRICS_HASH]);
/* That of identity_name(). */
const char *metrics_server_hash(void);

/* ---- requests (metrics_request.c) ---- */
/* A resource's request that upstream's router would hand on: it will be counted. */
void metrics_routed(struct request *rq);
/* A request of another path: it will be counted when it is one of the few that upstream counts. */
void metrics_routed_path(struct request *rq);
/* It is long-running and has begun. */
void metrics_long_running(struct request *rq);
/* A watch has sent its initial events. */
void metrics_watch_list(struct request *rq);
/* Refused because there were too many. */
void metrics_dropped(struct request *rq);
/* Ended early, for the server's sake, and answered so. */
void metrics_terminated(struct request *rq, int code);
/* At most so many series of a family are made by names that clients choose. */
#define METRICS_UNPASSED_MAX 1000
/* An aggregated server's request that could not be passed on. */
void metrics_unpassed(struct request *rq, int code);
/* Its authentication has come out: by rq->user; refused: what was shown for it is not good. */
void metrics_authenticated(struct request *rq, bool refused);
/* A step before the request's own has let it through: the time since the one before it, or since the request came, was that step's. */
enum metrics_filter { FILTER_AUTHENTICATION, FILTER_AUDIT, FILTER_IMPERSONATION, FILTER_FLOW, FILTER_AUTHORIZATION, FILTERS };
void metrics_filter(struct request *rq, enum metrics_filter f);
/* Its answer has broken off. */
void metrics_aborted(struct request *rq);
/* A client's certificate was good, and is until then (seconds since 1970). */
void metrics_client_certificate(int64_t not_after);
/* So has its authorization, begun at since_ns; the first three are enum authz's. */
enum metrics_authz { METRICS_NO_OPINION, METRICS_ALLOWED, METRICS_DENIED, METRICS_AUTHZ_ERROR };
void metrics_authorized(enum metrics_authz r, int64_t since_ns);
/* What a watch counts its events in. */
struct watch_counts {
	struct metric *events, *sizes;
};
struct watch_counts metrics_watch(const struct request *rq);
/* It has been answered. */
void metrics_request(struct request *rq);

/* ---- the store and the watch cache, by resource (metrics_storage.c) ---- */
/* For the life of the process. */
struct storage_metrics *metrics_storage(struct str group, struct str resource);
/* cache_resource.called: ctx is metrics_storage()'s. */
void metrics_store_call(void *ctx, enum cache_call call, int64_t ns, size_t n, bool failed);
/* cache_resource.waited. */
void metrics_cache_waited(void *ctx, int64_t ns);
/* The cache answered a list, of the newest state, with `returned` of `fetched` objects that it looked at. */
void metrics_list(struct storage_metrics *m, bool newest, size_t fetched, size_t returned);

/*
 * A call to a webhook or an aggregated server has ended: certificates that Go refuses, or would if it looked, are counted, and of a request
 * (or NULL) the audit log is told.
 */
void metrics_certificates(struct request *rq, bool aggregated, struct str host, const struct error *e, unsigned faults);

/* What is read when somebody asks (metrics_collect.c). */
void metrics_collect(struct apiserver *s);
#endif
