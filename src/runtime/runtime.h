/*
 * runtime/runtime.h: the container runtime: a CRI v1 server (RuntimeService and
 * ImageService) on a unix socket, over crun and conmon.
 *
 * It keeps images (runtime/image.h), pod sandboxes (pinned namespaces, no pause
 * process unless a pod shares its process namespace), containers, their network
 * (a bridge of its own or CNI plugins) and their streams. Containers do not
 * depend on it: it may be killed and started again at any moment; conmon holds
 * their logs and exit codes. It never talks to the API server.
 */
#ifndef SKIFF_RUNTIME_RUNTIME_H
#define SKIFF_RUNTIME_RUNTIME_H

/* `skiff runtime`: serves until SIGTERM or SIGINT, which leave all containers running. Returns the exit status. */
int skiff_runtime_main(int argc, char **argv);
/* `skiff pause`: process 1 of a pod that shares its process namespace; started by the runtime only, through /proc/self/exe. */
int skiff_pause_main(int argc, char **argv);
/*
 * Stops and removes every pod that the runtime with this root and state directory left (or would leave) behind, its
 * mounts, namespaces, bridge, nftables tables and the cgroups below cgroup_root (NULL: the default); images stay. For
 * `skiff down`, when the runtime does not run (its last child is waited for, 15 s). Must be called outside of loop_run.
 * 0, or 1 after logging what could not be undone.
 */
int skiff_runtime_cleanup(const char *root, const char *state_dir, const char *bridge, const char *cgroup_root);

#endif
