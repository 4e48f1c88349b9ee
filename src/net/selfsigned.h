/*
 * net/selfsigned.h: a serving certificate for a component that was given none, trusted by nobody. What upstream's
 * components do with --tls-cert-file unset.
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
/*
 * The same with an RSA key of 2048 bits, as upstream's, in base.crt (0644) and base.key (0600), in a folder that is made (0755) when missing, for `name` and sans
 * (OpenSSL's text: "DNS:a,IP:1.2.3.4"). A pair that is there is used as it is; one file of the two is an error.
 */
struct error *selfsigned_kept(struct arena *a, const char *base, const char *name, const char *sans,
			      const char **cert_file, const char **key_file);

#endif
