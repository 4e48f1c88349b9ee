/*
 * apiserver/encrypt.h: encryption at rest as upstream's EncryptionConfiguration has it: aescbc, aesgcm, secretbox,
 * KMS v2 (kms.h) and identity, values with upstream's prefixes, so that either server reads what the other wrote; following the file with
 * --encryption-provider-config-automatic-reload. KMS v1 is refused, as upstream refuses it unless a feature gate is set.
 *
 * All of it belongs to the loop's thread.
 */
#ifndef SKIFF_APISERVER_ENCRYPT_H
#define SKIFF_APISERVER_ENCRYPT_H

#include "apiserver/server.h"

struct encryption; /* of one stored resource; lives as long as the server */

/* Reads --encryption-provider-config (nothing without one) and asks its KMS plugins once: one that does not answer is no error. */
struct error *encryption_init(struct apiserver *s);
/* `prefix`: of the store's keys, "/registry/secrets/". NULL: stored as it is, now and later. */
struct encryption *encryption_for(struct apiserver *s, struct str group, struct str plural, struct str prefix);
/* `key` is the store's key, which is authenticated with the value. Never suspends; 500 while a KMS plugin has given no key, or not lately. */
struct error *encryption_seal(struct encryption *e, struct str key, struct str plain, struct buf *out);
/* Whether a value with this cache_entry.sealed would now be written with another provider, key or KMS key ID. */
bool encryption_stale(const struct encryption *e, uint8_t sealed);
/* Whether one with this could be read from the store now: the configuration may have changed since the cache read it. */
bool encryption_opens(const struct encryption *e, uint8_t sealed);
/*
 * The watch cache's hooks (cache_resource.plain, sealed); ctx is a struct encryption, `key` may be what follows its prefix.
 * EAGAIN while a KMS plugin has not unwrapped the key of the value.
 */
struct error *encryption_open(void *ctx, struct str key, struct str stored, bool may_wait, struct buf *out);
uint8_t encryption_sealed(void *ctx, struct str stored);

/* The health check kms-providers: whether there is one, and what ails its plugins (asks those not asked lately: suspends). */
bool encryption_has_check(void);
struct error *encryption_check(struct apiserver *s);

#endif
