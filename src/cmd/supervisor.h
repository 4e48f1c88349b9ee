/*
 * cmd/supervisor.h: the parent of all components: forks them, brings back what
 * ends, lowers privileges, keeps their logs short.
 *
 * It runs no loop and no thread (a fork of either would be unsafe): poll(2)
 * over pidfds and signals. Children are forked, not executed anew, so that
 * what the loader relocated once stays shared.
 */
#ifndef SKIFF_CMD_SUPERVISOR_H
#define SKIFF_CMD_SUPERVISOR_H

#include "cmd/cluster.h"

/* Restart backoff: 100 ms doubling to 10 s; forgotten after a minute of life. */
#define SUPERVISOR_BACKOFF_MIN_MS 100
#define SUPERVISOR_BACKOFF_MAX_MS 10000
/* A component's log is cut to its newest half past this. */
#define SUPERVISOR_LOG_MAX (16 << 20)

/*
 * Runs until SIGTERM or SIGINT, then ends the components (SIGTERM, after 10 s SIGKILL); containers keep running.
 * SIGHUP renews certificates. `ready_fd` (or -1) gets one byte once all have been started.
 * `foreground`: logs go to standard error instead of DATA-DIR/log.
 */
struct error *supervisor_run(struct cluster *c, bool foreground, int ready_fd);

#endif
