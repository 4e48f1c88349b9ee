/*
 * proxy/ruleset.h: what the table should hold, and the transaction from what it
 * holds to that. Text in nft(8) syntax; knows nothing of Services.
 */
#ifndef SKIFF_PROXY_RULESET_H
#define SKIFF_PROXY_RULESET_H

#include "base/buf.h"
#include "base/error.h"
#include "base/map.h"

#define PROXY_TABLE "ip skiff-proxy"

struct ruleset { /* zeroed is empty */
	struct map chains;   /* name -> rules, a line each (malloc'ed) */
	struct map sets;     /* name -> declaration body, for affinity sets */
	struct map elements; /* "map key" -> value text; "" for sets */
};
void ruleset_free(struct ruleset *r);
/* Names and texts are copied. A chain given twice keeps the last rules. */
void ruleset_chain(struct ruleset *r, struct str name, struct str rules);
void ruleset_set(struct ruleset *r, struct str name, struct str body);
/* In map or set `map`: key, and for maps its value ("goto service-..."). */
void ruleset_element(struct ruleset *r, const char *map, struct str key, struct str value);
/*
 * Appends the commands that turn `from` into `to`, in an order that one nft transaction accepts: sets and chains come before
 * what names them, and go after it. Nothing is appended when they are equal.
 */
void ruleset_diff(const struct ruleset *from, const struct ruleset *to, struct buf *out);
/* The whole table anew, with its base chains and empty maps. cluster_cidr: the pods' range, or NULL when unknown. */
void ruleset_base(struct buf *out, const char *cluster_cidr);

#endif
