/*
 * net/selfsigned.h: a serving certificate for a component that was given none: made at start, kept in memory only, trusted by
 * nobody. What upstream's components do with --tls-cert-file unset.
 */
#ifndef SKIFF_NET_SELFSIGNED_H
#define SKIFF_NET_SELFSIGNED_H

#include "base/arena.h"
#include "base/error.h"

/*
 * A P-256 key and a certificate for a year, for `name` and 127.0.0.1. The paths name anonymous files of this process, open until
 * it ends.
 */
struct error *selfsigned_files(struct arena *a, const char *name, const char **cert_file, const char **key_file);

#endif
