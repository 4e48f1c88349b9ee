/*
 * apiserver/audit.h: the audit log (audit.k8s.io/v1): what is logged is the policy's choice (--audit-policy-file;
 * without one, nothing), where to is the backends': a file (--audit-log-path) and a webhook
 * (--audit-webhook-config-file).
 *
 * In mode "batch" it never holds up a request: a backend that cannot keep up loses events and counts them
 * (apiserver_audit_error_total). In the modes "blocking" a request waits until its events are written; in
 * "blocking-strict" it does not begin when they cannot be.
 */
#ifndef SKIFF_APISERVER_AUDIT_H
#define SKIFF_APISERVER_AUDIT_H

#include "apiserver/server.h"

#define AUDIT_BODY_MAX (4u << 20) /* bytes of one answer; longer ones are left out of the event */

struct error *audit_init(struct apiserver *s);
/* The request is known: decides, and logs RequestReceived. rq->user is NULL when it was not authenticated. */
/* 500 when that could not be written and must be. */
struct error *audit_begin(struct request *rq);
/* A long-running request's headers are out; one that did not get so far has begun when it ends. */
void audit_started(struct request *rq);
/*
 * All of the answer is known and goes out next. The last event is written before, as upstream's is before a short answer leaves its
 * buffer: who has the answer finds it in the log.
 */
void audit_answered(struct request *rq);
void audit_end(struct request *rq);
/* The body as it came; kept when the level wants it. */
void audit_request_body(struct request *rq, struct str body);
/* What it was read as, of type t (kind and apiVersion set), not defaulted yet; borrowed until the request ends. */
void audit_request_object(struct request *rq, const struct schema_type *t, const void *obj);
/* The answer is a Status; copied. */
void audit_answer_status(struct request *rq, const struct meta_v1_status *st);
/* A piece of the answer's body, as it goes out before compression; copied when the level wants it. */
void audit_answer_piece(struct request *rq, struct str content_type, struct str piece);

/* ---- the policy (audit_policy.c) ---- */
struct audit_policy;
/* audit.k8s.io/v1 Policy, strict as upstream: unknown levels, stages and rules of both kinds are errors. Lives in the arena. */
struct error *audit_policy_parse(struct arena *a, struct str text, struct audit_policy **out);
/* The first rule that fits; none: not logged. */
struct audit_decision audit_policy_decide(const struct audit_policy *p, const struct request *rq);

/* ---- the backends (audit_sink.c) ---- */
struct audit_sink;
struct error *audit_sinks_start(struct apiserver *s, struct audit_sink **log, struct audit_sink **webhook);
/*
 * One event as a line without its end; copied. In a blocking mode it waits until that is written. False: it is lost,
 * and the mode is strict.
 */
bool audit_sink_put(struct audit_sink *k, struct str event);
void audit_sink_flush(struct audit_sink *k, int64_t ms); /* waits until everything is written */
/* When the server ends: what waits is written, as far as that takes no long time. */
void audit_flush(struct apiserver *s);

#endif
