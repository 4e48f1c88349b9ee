/* schema/patch_internal.h: shared by the patch_*.c files only. */
#ifndef SKIFF_SCHEMA_PATCH_INTERNAL_H
#define SKIFF_SCHEMA_PATCH_INTERNAL_H

#include "schema/patch.h"

/* 422 Invalid in upstream's words, with the reason as a cause. */
struct error *patch_unprocessable(const char *fmt, ...) __attribute__((format(printf, 1, 2), warn_unused_result));
/* json_patch that reports unknown and duplicate members of operations (report may be NULL). */
struct error *json_patch_reporting(struct arena *a, struct jv *doc, struct str text, struct decode_report *report);

#endif
