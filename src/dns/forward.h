/*
 * dns/forward.h: asks the machine's own resolvers, with a small cache.
 * Messages go through as they are but for the id; answers are taken only from
 * the server asked, for the id and question asked.
 */
#ifndef SKIFF_DNS_FORWARD_H
#define SKIFF_DNS_FORWARD_H

#include "base/arena.h"
#include "base/error.h"

#define FORWARD_TIMEOUT_MS 2000   /* a server */
#define FORWARD_SERVERS_MAX 8
#define FORWARD_CACHE_MAX 2000    /* answers */
#define FORWARD_CACHE_TTL_MAX_S 30
#define FORWARD_BUSY_MAX 512      /* questions under way; past it SERVFAIL at once */

struct forwarder;
/* servers: "IP[:PORT]" comma-separated, or NULL: /etc/resolv.conf's, read again when it changes. Never ourselves: `self` is left out. */
struct forwarder *forwarder_new(const char *servers, const char *self);
void forwarder_free(struct forwarder *f);
/* Suspends. *answer: a whole message with the query's id, in the arena. An error when no server answers. */
struct error *forward(struct forwarder *f, struct arena *a, struct str query, struct str *answer);

#endif
