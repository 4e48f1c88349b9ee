/*
 * apiserver/aggregator.h: the inside of API aggregation, shared by aggregator*.c only. An APIService that names a
 * Service is remote: a fiber of its own checks it, learns what it serves and its OpenAPI documents; requests for its
 * group-version are passed on to it.
 */
#ifndef SKIFF_APISERVER_AGGREGATOR_H
#define SKIFF_APISERVER_AGGREGATOR_H

#include "apiserver/cache_follow.h"
#include "apiserver/extend.h"
#include "base/ref.h"

/* Where an APIService's spec leads; replaced when the spec changes. */
struct remote {
	unsigned refs; /* its APIService, and who talks to it */
	struct arena arena;
	const struct apiregistration_v1_api_service_spec *spec;
	struct tls_client *tls;
	struct str error;   /* why there is no tls; empty: there is */
	struct map clients; /* base URL -> struct http_client * */
};
#define REMOTE_CLIENTS_MAX 256 /* addresses that connections to one remote are kept to; then all are begun anew */

/* When something is to be done again. */
struct due {
	int64_t at_ms, pause_ms; /* pause_ms 0: it did not fail last time */
};

#define DOCUMENTS_MAX 1000                /* OpenAPI v3 documents of one remote that are listed */
#define DISCOVERY_MAX ((size_t)4 << 20)   /* bytes of an answer about what is served */
#define SPEC_MAX ((size_t)16 << 20)       /* bytes of an OpenAPI v2 document as it is fetched */
#define SPEC_KEPT_MAX ((size_t)8 << 20)   /* bytes of what is kept of one */
#define SPECS_KEPT_MAX ((size_t)64 << 20) /* of all */
#define CHECK_EVERY_MS 30000              /* one that answered is asked again */
#define DISCOVERY_TIMEOUT_MS 5000
#define SPEC_TIMEOUT_MS 60000

struct api_service {   /* as long as the object is there */
	unsigned refs; /* the aggregator's, and its fiber's */
	struct str name;
	bool gone; /* the object is */
	struct arena arena, name_arena;
	struct apiregistration_v1_api_service *obj; /* as last seen; replaced without a wait */
	bool available;
	struct remote *remote; /* NULL: local */
	bool attended;         /* it has a fiber */
	struct waitq wake;
	struct due check, discovery, v3, v2;
	/* discovery: the resources of its group-version as aggregated discovery has them; NULL: none */
	struct block *resources;
	bool fresh;
	struct str discovery_etag; /* malloc'ed */
	/* OpenAPI */
	struct arena documents_arena;
	LIST(struct str_pair) documents; /* path of an OpenAPI v3 document -> where it is there */
	bool only_v2;                    /* it has no OpenAPI v3 */
	struct block *spec;              /* what is taken of its OpenAPI v2 document, or NULL */
	struct block *converted;         /* the document as version 3, of one that has only version 2 */
	struct str spec_etag;            /* malloc'ed */
	unsigned char spec_sum[32];      /* of one without a tag */
};

struct aggregator {
	struct cache_follower follower;
	struct map by_name;        /* "v1.group" -> struct api_service * */
	struct api_service **list; /* by group priority, then by name */
	size_t n, remotes;         /* remotes: how many of them are */
	struct waitq changed;      /* an APIService was written */
	uint64_t specs_epoch;      /* raised when what is merged into OpenAPI documents changes; from 1 on */
	size_t specs_kept;         /* bytes */
};

/* ---- aggregator.c ---- */
/* Takes up what has changed in the APIServices. */
void aggregator_sync(struct apiserver *s);
void remote_unref(struct remote *r);
/* Its condition of type Available, or NULL. */
const struct apiregistration_v1_api_service_condition *
available_condition(const struct apiregistration_v1_api_service *o);
void due_set(struct due *d, int64_t in_ms);
/* After an attempt: again in every_ms, or when it failed after pauses that double from first_ms to most_ms. */
void due_next(struct due *d, bool ok, int64_t every_ms, int64_t first_ms, int64_t most_ms);
static inline bool due(const struct due *d)
{
	return now_ms() >= d->at_ms;
}

/* ---- aggregator_proxy.c ---- */
struct remote_ask {
	struct str target, user, group, accept, etag; /* group, accept, etag: empty for none */
	size_t limit;                                 /* bytes of the answer */
};
struct remote_told {
	int status;
	struct str type, etag, body; /* in the arena */
};
/* The server's own GET, within the fiber's deadline. The remote is held meanwhile. An answer of any status is no error.
 */
struct error *remote_get(struct apiserver *s, struct arena *a, struct remote *r, const struct remote_ask *ask,
			 struct remote_told *out);

/* ---- aggregator_check.c ---- */
/* Looks whether it answers, and writes its condition. */
void aggregator_check(struct apiserver *s, struct api_service *v);
/* Local ones are always available. */
void aggregator_local_status(struct apiserver *s, struct str name);
/* Only what is known without asking it: its Service and EndpointSlices. False: there is no way to it, and that is
 * written. */
bool aggregator_check_way(struct apiserver *s, struct api_service *v);

/* ---- aggregator_discovery.c ---- */
/* Asks for what it serves; false: that failed, and what is known is stale. */
bool aggregator_learn_resources(struct apiserver *s, struct api_service *v);
/*
 * The resources of a group-version as aggregated discovery writes them ("[...]", appended; nothing when there are
 * none), from an APIGroupDiscoveryList, or from an APIResourceList. An error: it is no such list.
 */
struct error *discovery_of_aggregated(struct arena *a, struct str json, struct str group, struct str version,
				      struct buf *out);
struct error *discovery_of_legacy(struct arena *a, struct str json, struct buf *out);

/* ---- aggregator_openapi.c ---- */
bool aggregator_learn_documents(struct apiserver *s, struct api_service *v);
bool aggregator_learn_spec(struct apiserver *s, struct api_service *v);
/* Forgets what it told; the object has gone, or names no Service any more. */
void aggregator_forget(struct aggregator *g, struct api_service *v);

#endif
