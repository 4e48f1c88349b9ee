/* schema/patch_internal.h: shared by the patch_*.c files only. */
#ifndef SKIFF_SCHEMA_PATCH_INTERNAL_H
#define SKIFF_SCHEMA_PATCH_INTERNAL_H

#include "schema/patch.h"

/* 422 Invalid in upstream's words, with the reason as a cause. */
/* A strategic merge patch that cannot be applied: an internal error, as upstream's is. */
struct error *patch_broken(const char *fmt, ...) __attribute__((format(printf, 1, 2), warn_unused_result));
struct error *patch_unprocessable(const char *fmt, ...) __attribute__((format(printf, 1, 2), warn_unused_result));
/* json_patch that reports unknown and duplicate members of operations (report may be NULL). */
struct error *json_patch_reporting(struct arena *a, struct jv *doc, struct str text, struct decode_report *report);

#endif
