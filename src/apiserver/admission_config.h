/*
 * apiserver/admission_config.h: --admission-control-config-file (AdmissionConfiguration): what each admission plugin is told there.
 */
#ifndef SKIFF_APISERVER_ADMISSION_CONFIG_H
#define SKIFF_APISERVER_ADMISSION_CONFIG_H

#include "apiserver/config_file.h"

struct apiserver;
/* Reads the file (none: every plugin has nothing) and the files it names. Texts are in the server's arena. */
struct error *admission_config_init(struct apiserver *s);
/* YAML or JSON of one plugin; empty when there is none. */
struct str admission_config_of(struct str plugin);

#endif
