/* apiserver/options.h: flags, between options.c (the table) and options_check.c (what they mean together). */
#ifndef SKIFF_APISERVER_OPTIONS_H
#define SKIFF_APISERVER_OPTIONS_H

#include "apiserver/server.h"

/* What upstream refuses before it starts anything: values out of range, flags that do not go together. */
struct error *options_check(struct options *o); /* cleans etcd_prefix, finds advertise_address */
/* s->tls; the certificate is made when none was given. */
struct error *serving_certificates(struct apiserver *s);

#endif
