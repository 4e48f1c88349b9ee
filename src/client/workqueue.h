/*
 * client/workqueue.h: keys to work on, each at most once at a time
 * (client-go's workqueue semantics), and the loop around them.
 */
#ifndef SKIFF_CLIENT_WORKQUEUE_H
#define SKIFF_CLIENT_WORKQUEUE_H

#include "loop/fiber.h"

struct workqueue;
struct workqueue *workqueue_new(const char *name);
void workqueue_free(struct workqueue *q); /* after its workers ended */
/* A key that is queued is not queued twice; one being worked on is queued again when done. */
void workqueue_add(struct workqueue *q, struct str key);
void workqueue_add_after(struct workqueue *q, struct str key, int64_t ms);
/* With per-key exponential backoff, 5 ms to 1,000 s (upstream's default limiter). */
void workqueue_add_rate_limited(struct workqueue *q, struct str key);
void workqueue_forget(struct workqueue *q, struct str key);
int workqueue_requeues(struct workqueue *q, struct str key);
size_t workqueue_len(const struct workqueue *q);
/* Figures of all queues of the process, under upstream's names (workqueue_depth{name="..."}, ...), Prometheus' text format. */
struct buf;
void workqueue_metrics(struct buf *out);
/* Suspends; the key is a copy in the arena. End it with workqueue_done. */
struct error *workqueue_get(struct workqueue *q, struct arena *a, struct str *key);
void workqueue_done(struct workqueue *q, struct str key);

/* Works on one key ("ns/name" or "name"). An error is logged and the key retried with backoff; NULL forgets the backoff. */
typedef struct error *reconcile_fn(void *ctx, struct arena *a, struct str ns, struct str name);
/* Starts `workers` fibers that get, reconcile, done; each reconcile has a fresh arena. They end when cancelled with the calling fiber's loop. */
void workqueue_run(struct workqueue *q, const char *name, int workers, reconcile_fn *fn, void *ctx);

/* "ns/name" <-> parts. */
struct str object_key(struct arena *a, struct str ns, struct str name);
void object_key_split(struct str key, struct str *ns, struct str *name);

#endif
