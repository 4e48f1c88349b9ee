#include <openssl/evp.h>
#include "apiserver/gcm.h"
#include "loop/fiber.h"

#define NONCE 12
#define TAG 16

static const EVP_CIPHER *cipher(int bits)
{
	return bits == 128 ? EVP_aes_128_gcm() : bits == 192 ? EVP_aes_192_gcm() : EVP_aes_256_gcm();
}

bool gcm_seal(const unsigned char *key, int bits, struct str also, struct str plain, struct buf *out)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	unsigned char nonce[NONCE], tag[TAG];
	int n = 0, m = 0;
	bool ok;

	random_bytes(nonce, sizeof nonce);
	buf_append(out, nonce, sizeof nonce);
	buf_reserve(out, plain.n + 32);
	ok = c && EVP_EncryptInit_ex(c, cipher(bits), NULL, key, nonce) == 1 &&
	     EVP_EncryptUpdate(c, NULL, &m, (const unsigned char *)also.p, (int)also.n) == 1 &&
	     EVP_EncryptUpdate(c, (unsigned char *)out->p + out->n, &n, (const unsigned char *)plain.p, (int)plain.n) == 1 &&
	     EVP_EncryptFinal_ex(c, (unsigned char *)out->p + out->n + n, &m) == 1 && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, tag) == 1;
	if (ok) {
		out->n += (size_t)(n + m);
		buf_append(out, tag, sizeof tag);
	}
	EVP_CIPHER_CTX_free(c);
	return ok;
}

bool gcm_open(const unsigned char *key, int bits, struct str also, struct str value, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)value.p;
	EVP_CIPHER_CTX *c;
	int n = 0, m = 0;
	bool ok;

	if (value.n < NONCE + TAG)
		return false;
	buf_reserve(out, value.n);
	c = EVP_CIPHER_CTX_new();
	ok = c && EVP_DecryptInit_ex(c, cipher(bits), NULL, key, p) == 1 &&
	     EVP_DecryptUpdate(c, NULL, &m, (const unsigned char *)also.p, (int)also.n) == 1 &&
	     EVP_DecryptUpdate(c, (unsigned char *)out->p + out->n, &n, p + NONCE, (int)(value.n - NONCE - TAG)) == 1 &&
	     EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, (void *)(uintptr_t)(p + value.n - TAG)) == 1 &&
	     EVP_DecryptFinal_ex(c, (unsigned char *)out->p + out->n + n, &m) == 1;
	if (ok)
		out->n += (size_t)(n + m);
	EVP_CIPHER_CTX_free(c);
	return ok;
}
