/*
 * scheduler/queue.h: the scheduling queue: active (by priority, then age),
 * backing off (1-10 s by default), unschedulable (until an event helps, 5 minutes at most).
 */
#ifndef SKIFF_SCHEDULER_QUEUE_H
#define SKIFF_SCHEDULER_QUEUE_H

#include "loop/fiber.h"
#include "scheduler/framework.h"

#define QUEUE_UNSCHEDULABLE_MAX_MS 300000

struct queue;
/* Backoff of the first and of the later attempts: doubles from min to max, ms. */
struct queue *queue_new(int64_t backoff_min_ms, int64_t backoff_max_ms);
void queue_free(struct queue *q); /* nobody waits in queue_pop any more */
/* A new or changed pending pod. A change moves an unschedulable one to active only with `spec_changed`. */
void queue_add(struct queue *q, struct str key, int32_t priority, bool spec_changed);
/* Held back by pre_enqueue (scheduling gates): known, but in no queue until queue_add. */
void queue_gate(struct queue *q, struct str key, int32_t priority);
void queue_delete(struct queue *q, struct str key);
/* Suspends; the key is copied into the arena. *attempts: how often it was popped, this time included. */
struct error *queue_pop(struct queue *q, struct arena *a, struct str *key, int *attempts);
/* After a failed attempt: waits for events that a plugin of rejected_by cares for (0: any), or for its backoff (error: true). */
void queue_requeue(struct queue *q, struct str key, uint32_t rejected_by, bool error);
/* The attempt succeeded. */
void queue_done(struct queue *q, struct str key);
/* Something changed in the cluster. */
void queue_event(struct queue *q, unsigned event);
void queue_counts(const struct queue *q, size_t *active, size_t *backoff, size_t *unschedulable, size_t *gated);

#endif
