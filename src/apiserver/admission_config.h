/*
 * apiserver/admission_config.h: --admission-control-config-file (AdmissionConfiguration): what each admission plugin is told there.
 */
#ifndef SKIFF_APISERVER_ADMISSION_CONFIG_H
#define SKIFF_APISERVER_ADMISSION_CONFIG_H

#include "apiserver/config_file.h"

struct apiserver;
/* Reads the file (none: every plugin has nothing). */
struct error *admission_config_init(struct apiserver *s);
/* YAML or JSON of one plugin in the server's arena, from a file of its own where one is named; empty when there is none. */
struct error *admission_config_of(struct apiserver *s, struct str plugin, struct str *text);
/* What webhooks and policies say to staticManifestsDir. */
#define NO_STATIC_MANIFESTS "staticManifestsDir: Forbidden: the feature gate ManifestBasedAdmissionControlConfig is off"

#endif
