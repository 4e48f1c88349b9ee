/*
 * apiserver/kms.h: keys of a KMS v2 plugin (KEP-3299; k8s.io/kms/apis/v2 over a unix socket) and what is encrypted with them.
 *
 * The plugin wraps a random seed, never an object. Each value is encrypted with a key of its own, derived from the seed and 32 random
 * bytes that stand before the ciphertext (AES-256-GCM), and carries the wrapped seed: upstream's EncryptedObject. A fiber asks the
 * plugin's Status every minute (every ten seconds after a failure); another key ID makes a new seed. Without an answer
 * the last seed seals for three minutes more, and opens for ever.
 *
 * Unwrapped seeds are kept, KMS_KEYS_MAX of them, by a digest of all that the plugin was or would be given to unwrap them.
 */
#ifndef SKIFF_APISERVER_KMS_H
#define SKIFF_APISERVER_KMS_H

#include "apiserver/server.h"

#define KMS_KEYS_MAX 1000 /* unwrapped keys kept, the longest unused go */

struct kms;
/* `endpoint`: unix:///path or unix:///@abstract. Asks nobody yet. */
struct error *kms_new(struct apiserver *s, struct str name, struct str endpoint, int64_t timeout_ms, struct kms **out);
/* Asks the plugin (suspends), then from time to time on a fiber. */
void kms_start(struct kms *k);
/* Ends that fiber. */
void kms_stop(struct kms *k);
/* Not while a call on k runs. NULL is allowed. */
void kms_free(struct kms *k);
/* Whether the plugin is well, by an answer at most 20 s old (3 s, when it was bad); asks it otherwise. Suspends. */
struct error *kms_check(struct kms *k);

/* Appends upstream's EncryptedObject. Never suspends; 500 without a usable seed. */
struct error *kms_seal(struct kms *k, struct str key, struct str plain, struct buf *out);
/* EAGAIN: the key is not here, and (may_wait) the plugin does not unwrap it now. */
struct error *kms_open(struct kms *k, struct str key, struct str value, bool may_wait, struct buf *out);
/* Key ID and kind of key of an EncryptedObject as one name, in a; empty when it is none. */
struct str kms_sealed_with(struct arena *a, struct str value);
/* The same of what kms_seal makes now; empty while it makes nothing. */
struct str kms_seals_with(const struct kms *k);

#endif
