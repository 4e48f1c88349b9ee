/*
 * runtime/sys.h: blocking file and process helpers for code that runs on a
 * thread of the pool (loop_offload) or in a plain command-line program: image
 * work and namespace set-up are long runs of system calls that would only
 * suffer from fibers. Nothing here may be called where it would block a loop
 * for long; the names say sys_ so that a reader sees it.
 */
#ifndef SKIFF_RUNTIME_SYS_H
#define SKIFF_RUNTIME_SYS_H

#include <sys/types.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

void sys_close(int *fd);
#define fd_cleanup __attribute__((cleanup(sys_close)))

/* Whole file, at most `max` bytes (413-like error past it); dirfd as openat(2). */
struct error *sys_read_file(int dirfd, const char *path, size_t max, struct buf *out);
/* Write to path.tmp and rename; `durable` adds the two fsyncs. */
struct error *sys_write_atomic(const char *path, struct str data, mode_t mode, bool durable);
/* write(2) until all is written. */
struct error *sys_write_all(int fd, const void *p, size_t n);
struct error *sys_mkdirs(const char *path, mode_t mode);
/* rm -rf that never follows a symlink and never leaves the file system it started on. A missing path is fine. */
struct error *sys_remove_tree(const char *path);
/* Bytes allocated and inodes below path, a file of several links once (by shares); follows no symlink. */
struct error *sys_disk_usage(const char *path, uint64_t *bytes, uint64_t *inodes);
/* Copies a tree (files, links, devices, owners, modes, xattrs) into an existing directory; applies overlayfs whiteouts. */
struct error *sys_copy_tree(const char *from, const char *to);
/* Runs fn(arg) on the pool and gives its error; the fiber waits. */
struct error *sys_offload(struct error *(*fn)(void *arg), void *arg);
/* Field 22 of /proc/PID/stat, 0 when there is no such process: (pid, start) names a process for good. */
uint64_t sys_proc_start(pid_t pid);
bool sys_proc_alive(pid_t pid, uint64_t start);

/* Exact-path joiner: malloc'ed "a/b". */
char *sys_path(const char *a, const char *b);
#define str_cleanup __attribute__((cleanup(sys_free_str)))
void sys_free_str(char **z);

#endif
