/*
 * apiserver/audit.h: the audit log: one JSON line (audit.k8s.io/v1 Event) a
 * request at ResponseComplete, at the level the policy file says (None,
 * Metadata; Request and RequestResponse log as Metadata and say so at start).
 */
#ifndef SKIFF_APISERVER_AUDIT_H
#define SKIFF_APISERVER_AUDIT_H
#include "apiserver/server.h"
struct error *audit_init(struct apiserver *s);
void audit_begin(struct request *rq);
void audit_end(struct request *rq);
#endif
