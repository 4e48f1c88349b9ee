/*
 * apiserver/snapshot.h: backup of the embedded store: /debug/snapshot of a running server, and the look at and restoring of
 * what it gave, for the command line (nobody but the API server's room knows the store).
 */
#ifndef SKIFF_APISERVER_SNAPSHOT_H
#define SKIFF_APISERVER_SNAPSHOT_H

#include <stdint.h>

#include "base/error.h"

#define SNAPSHOT_PATH "/debug/snapshot"

struct request;
/*
 * GET /debug/snapshot: the store at one revision, as bytes; authorised as any non-resource path. The copy is made in the data
 * directory first, so that a slow reader holds up nothing; one at a time (429). With etcd: 501, `etcdctl snapshot save` does it.
 */
struct error *serve_snapshot(struct request *rq);

struct snapshot_info {
	int64_t revision, keys, bytes;
	uint64_t hash; /* equal for equal contents */
};
/* On a fiber. Errors say what is wrong with the file. */
struct error *snapshot_info(const char *file, struct snapshot_info *out);
/* Makes a store of `file` in `dir`, which must hold none; no API server may run there. Owner of the files: uid. */
struct error *snapshot_restore(const char *file, const char *dir, unsigned uid);

#endif
