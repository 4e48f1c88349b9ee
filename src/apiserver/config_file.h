/*
 * apiserver/config_file.h: the API server's configuration files: strict
 * decoding of one object, and a fiber that looks again
 * when the file changes. Nothing here knows what is in them.
 */
#ifndef SKIFF_APISERVER_CONFIG_FILE_H
#define SKIFF_APISERVER_CONFIG_FILE_H

#include "schema/codec.h"
#include "schema/validate.h"

#define CONFIG_FILE_MAX (4u << 20) /* bytes */

/* The file's text into the arena. */
struct error *config_file_read(struct arena *a, const char *path, struct str *text);
/*
 * YAML or JSON text to a struct of type t, whose first members are kind and apiVersion (struct str). Fields that are unknown
 * or given twice are errors. `kinds`: what it may say it is, "Kind of apiVersion" with | between them.
 */
#define CONFIG_V1(kind) kind " of apiserver.config.k8s.io/v1"
#define CONFIG_V1_AND_BETA(kind) CONFIG_V1(kind) "|" CONFIG_V1(kind) "beta1|" CONFIG_V1(kind) "alpha1"
struct error *config_decode(struct arena *a, const struct schema_type *t, const char *kinds, struct str text, void *out);
/* The list as one error, as upstream's ToAggregate prints it; NULL when it is empty. */
struct error *config_errors(const struct field_errors *e);

/*
 * Calls fn(ctx, text) on a fiber of its own whenever the file's text differs from the last text seen, at first `text`; looks when
 * its directory changes and once a minute (what changes behind links is seen then). When fn returns false the same text
 * is tried again at the next look. Runs to the end of the process.
 */
void config_file_follow(const char *path, struct str text, bool (*fn)(void *ctx, struct str text), void *ctx);

#endif
