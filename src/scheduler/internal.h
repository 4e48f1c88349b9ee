/* scheduler/internal.h: what the files of this room share. Not for other rooms. */
#ifndef SKIFF_SCHEDULER_INTERNAL_H
#define SKIFF_SCHEDULER_INTERNAL_H

#include "client/events.h"
#include "client/informer.h"
#include "scheduler/framework.h"
#include "scheduler/queue.h"

#define BINDINGS_MAX 1024 /* under way at once; the loop waits for one to end past that */

enum result { RESULT_SCHEDULED, RESULT_UNSCHEDULABLE, RESULT_ERROR, N_RESULTS };
#define BUCKETS 15

struct histogram {
	uint64_t count[BUCKETS + 1]; /* the last: above all */
	uint64_t n;
	double sum;
};

struct scheduler {
	struct client *client;
	struct event_recorder *events;
	struct scheduler_config config;
	struct arena config_arena;
	struct cache cache;
	struct queue *queue;
	struct informer *pods, *nodes, *namespaces, *claims, *volumes, *classes, *csi_nodes;
	struct informer *services, *rcs, *sets, *statefulsets, *budgets;
	struct volume_lister volume_lister;
	struct owner_lister owner_lister;
	struct budget_lister budget_lister;
	struct map service_selectors; /* namespace -> struct ns_services, see owners.c */
	size_t bindings;
	struct waitq binding_done, volume_changed;
	bool ready;
	struct {
		struct histogram attempt[N_RESULTS], victims; /* seconds; pods */
		uint64_t preemptions;
	} stats;
	struct error *error;
};

/* attempt.c: one try to place the pod; goes on while binding. */
void schedule_one(struct scheduler *s, struct str key);
/* Ours: some profile serves it, and it is not being deleted. NULL otherwise. */
const struct profile *profile_of(const struct scheduler *s, const struct core_v1_pod *p);

/* owners.c: what selects pods from outside, and what guards them. */
void on_service(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_);
const struct meta_v1_label_selector *owners_selector(void *ctx, struct arena *a, const struct core_v1_pod *pod);
size_t owners_budgets(void *ctx, struct arena *a, struct budget **out);

/* metrics.c */
void observe(struct histogram *h, double v, const double *bounds);
extern const double seconds_bounds[BUCKETS], victims_bounds[BUCKETS];
void scheduler_metrics(void *ctx, struct buf *out);

#endif
