/*
 * apiserver/encrypt.h: encryption at rest as upstream's EncryptionConfiguration has it: aescbc, aesgcm, secretbox
 * and identity, values with upstream's prefixes, so that either server reads what the other wrote. KMS is refused by name.
 */
#ifndef SKIFF_APISERVER_ENCRYPT_H
#define SKIFF_APISERVER_ENCRYPT_H

#include "apiserver/server.h"

struct encryption; /* the providers of one resource */

/* Reads --encryption-provider-config; nothing without one. */
struct error *encryption_init(struct apiserver *s);
/* NULL: stored as it is. */
struct encryption *encryption_for(struct apiserver *s, struct str group, struct str plural);
/* `key` is the store's key: authenticated with the value by aesgcm. */
struct error *encryption_seal(struct encryption *e, struct str key, struct str plain, struct buf *out);
/* The watch cache's hook (cache_resource.plain); ctx is a struct encryption_place, `key` what follows its prefix. Any thread. */
struct encryption_place {
	struct encryption *e;
	struct str prefix; /* "/registry/secrets/" */
};
struct error *encryption_open(void *ctx, struct str key, struct str stored, struct buf *out);

#endif
