/*
 * apiserver/gcm.h: AES-GCM as values are stored with it: a random nonce of 12 bytes, the ciphertext, a tag of 16.
 */
#ifndef SKIFF_APISERVER_GCM_H
#define SKIFF_APISERVER_GCM_H

#include "base/buf.h"

/* `bits` of the key: 128, 192 or 256; `also` is authenticated with the value. Appends; false: nothing usable was appended. */
bool gcm_seal(const unsigned char *key, int bits, struct str also, struct str plain, struct buf *out);
bool gcm_open(const unsigned char *key, int bits, struct str also, struct str value, struct buf *out);

#endif
