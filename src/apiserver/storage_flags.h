/*
 * apiserver/storage_flags.h: what flags say of how each resource is stored: in which etcd (--etcd-servers-overrides), as what
 * (--storage-media-type), and whether upstream would keep a watch cache of it (--watch-cache, --watch-cache-sizes), which shows in
 * what lists make of options. It reads and writes no objects.
 */
#ifndef SKIFF_APISERVER_STORAGE_FLAGS_H
#define SKIFF_APISERVER_STORAGE_FLAGS_H

#include "apiserver/server.h"

/* An error for what upstream refuses. */
struct error *storage_flags_check(const struct options *o);

/* Opens s->store and those of the overrides, s->other_stores: one a set of servers, in the order of the flag. Suspends. */
struct error *stores_open(struct apiserver *s);
void stores_close(struct apiserver *s);
/* Where a built-in resource is kept; custom resources are all in s->store. */
struct store *store_of(const struct apiserver *s, struct str group, struct str plural);

/* As what objects of a built-in group are stored, but for a storage's stored_form. */
enum media_type storage_media(const struct apiserver *s, struct str group);

/* False: upstream would read each list from its store. */
bool storage_cached(const struct options *o, struct str group, struct str plural);

#endif
