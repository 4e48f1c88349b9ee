/* apiserver/registry_internal.h: what creating (registry.c), updating (registry_update.c) and deleting (registry_delete.c) share. */
#ifndef SKIFF_APISERVER_REGISTRY_INTERNAL_H
#define SKIFF_APISERVER_REGISTRY_INTERNAL_H

#include "apiserver/admission.h"
#include "apiserver/server.h"
#include "apiserver/stored.h"

#define UPDATE_RETRIES 32 /* of updates and deletions that others' writes overtake */

static inline struct meta_v1_object_meta *meta_of(const struct storage *st, const void *obj)
{
	return object_meta(st->type, (void *)(uintptr_t)obj);
}

/* ---- registry.c ---- */
/* A private copy of a cached object, in the version of the request. */
struct error *decode_for(struct request *rq, const struct cache_entry *e, void **obj);
struct str rv_text(struct arena *a, int64_t rev);
struct admission admission_of(struct request *rq, enum admission_op op, const char *sub, struct str ns, struct str name, void *obj,
			      const void *old);
/* Of what is answered: what no read shows of an object is in no answer either. */
void show(struct request *rq, void *obj);
/* Gives obj its managedFields; live: what was there, or NULL. */
struct error *manage_fields(struct request *rq, const char *sub, const void *live, void *obj);
/* The group that errors of validation name: that of the kind as it is stored. */
struct str kind_group(const struct resource *res);
/* What validation says of an object as one that is created. */
void create_rules(struct request *rq, const void *obj, struct field_errors *fe);
void meta_without_generate_name(struct field_errors *fe, const struct storage *st, const struct meta_v1_object_meta *m);
void canonicalize(struct request *rq, void *obj);
/* The namespace after admission: that of the request (ns; none: cluster-wide). 400: another one. */
struct error *settle_namespace(struct meta_v1_object_meta *m, struct str ns);

/* ---- registry_update.c ---- */
/* 409 when uid or rv, each possibly empty, are not om's; `what` names the kind in it. */
struct error *check_preconditions(struct request *rq, const struct meta_v1_object_meta *om, struct str what, struct str name,
				  struct str uid, struct str rv);
/*
 * For who lost a race for an object. Upstream tries until it succeeds; of many writers of one object each round lets one through: in turn,
 * none of them waits for long. Not within other requests, which may hold a lock already. *held: what the caller unlocks at the end, or NULL.
 */
struct error *wait_turn(struct request *rq, struct str ns, struct str name, struct fiber_mutex **held);
/* Of a custom resource that reads as it did, *same false: what is stored at rev is not what would be, which is in *s. */
struct error *as_stored(struct request *rq, void *obj, int64_t rev, struct stored *s, bool *same);

#endif
