/* controller/history.h: ControllerRevisions of DaemonSets and StatefulSets: the templates they had. */
#ifndef SKIFF_CONTROLLER_HISTORY_H
#define SKIFF_CONTROLLER_HISTORY_H

#include "controller/common.h"

struct history {
	struct manager *m;
	struct informer *revisions;
	struct owner owner;
	const struct selector *selector;
	const char *hash_label;  /* of the revision: "controller-revision-hash", of StatefulSets "controller.kubernetes.io/hash" */
};

/*
 * The revision of the template: found (and made the newest), or created. *all gets every revision of the owner, oldest first,
 * with *current among them. Hash collisions raise *collisions and are tried again here, at most 10 times.
 */
struct error *history_sync(const struct history *h, struct arena *a, const struct core_v1_pod_template_spec *t, int32_t *collisions,
			   struct apps_v1_controller_revision **current, struct apps_v1_controller_revision ***all, size_t *n);
/* Deletes the oldest revisions beyond `limit` that `live` does not name. */
struct error *history_truncate(const struct history *h, struct arena *a, struct apps_v1_controller_revision **all, size_t n, int32_t limit,
			       const struct str *live, size_t n_live);
/* The template a revision holds. */
struct error *history_template(struct arena *a, const struct apps_v1_controller_revision *r, struct core_v1_pod_template_spec **out);

#endif
