/*
 * apiserver/runtime_config.h: --runtime-config: which of the built-in APIs are served. Pairs KEY=BOOL with commas
 * between; KEY is api/all, api/ga, api/beta, api/alpha, GROUP/VERSION or GROUP/VERSION/RESOURCE. The more particular
 * counts; a key given twice has its last value.
 */
#ifndef SKIFF_APISERVER_RUNTIME_CONFIG_H
#define SKIFF_APISERVER_RUNTIME_CONFIG_H

#include "apiserver/apierr.h"
#include "schema/schema.h"

struct runtime_config;
/*
 * text NULL: everything is served. An error for what upstream refuses (keys and values that are none, groups and
 * versions nobody has, api/all=false alone) and for versions that upstream serves when asked and that are not built
 * here. Lives in the arena.
 */
struct error *runtime_config_parse(struct arena *a, const char *text, struct runtime_config **out);
bool runtime_config_serves(const struct runtime_config *c, const struct api_resource *r);
/* What was said of the first of the keys (NULL behind the last) that anything was said of: 1 true, 0 false; -1: nothing
 * of any. */
int runtime_config_said(const struct runtime_config *c, const char *const *keys);

#endif
