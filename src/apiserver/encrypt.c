/* AES-CBC with PKCS#7 and AES-GCM (OpenSSL), XSalsa20-Poly1305 (libsodium) in upstream's envelopes: k8s:enc:PROVIDER:v1:KEYNAME:bytes. */
#include <openssl/evp.h>
#include <sodium.h>
#include "apiserver/encrypt.h"
#include "schema/jv.h"

enum kind { IDENTITY, AESCBC, AESGCM, SECRETBOX };

struct enc_key {
	enum kind kind;
	struct str prefix;        /* "k8s:enc:aescbc:v1:key1:" */
	unsigned char key[32];
	int bits;
};
struct encryption {
	LIST(struct str) resources;
	LIST(struct enc_key) keys; /* the first one seals */
	bool identity;             /* plain values are accepted */
};
struct encryptions {
	LIST(struct encryption) list;
};
static struct encryptions all; /* one server a process */

static const EVP_CIPHER *cipher(const struct enc_key *k)
{
	if (k->kind == AESCBC)
		return k->bits == 128 ? EVP_aes_128_cbc() : k->bits == 192 ? EVP_aes_192_cbc() : EVP_aes_256_cbc();
	return k->bits == 128 ? EVP_aes_128_gcm() : k->bits == 192 ? EVP_aes_192_gcm() : EVP_aes_256_gcm();
}

static struct error *add_keys(struct apiserver *s, struct encryption *e, enum kind kind, const char *name, const struct jv *provider)
{
	const struct jv *keys = jv_get(provider, STR("keys"));

	if (!jv_is(keys, JV_ARRAY) || !keys->n)
		return error_new("encryption config: %s needs keys", name);
	for (uint32_t i = 0; i < keys->n; i++) {
		struct enc_key *k = arena_push(&s->arena, &e->keys);
		struct str kn = jv_str(jv_get(&keys->items[i], STR("name"))), secret;

		if (!kn.n || !base64_decode(&s->arena, jv_str(jv_get(&keys->items[i], STR("secret"))), &secret))
			return error_new("encryption config: a key of %s needs name and secret (base64)", name);
		if (kind == SECRETBOX && secret.n != 32)
			return error_new("encryption config: key %.*s is not of 32 bytes", STR_ARG(kn));
		if (secret.n != 16 && secret.n != 24 && secret.n != 32)
			return error_new("encryption config: key %.*s is not of 16, 24 or 32 bytes", STR_ARG(kn));
		k->kind = kind;
		k->bits = (int)secret.n * 8;
		memcpy(k->key, secret.p, secret.n);
		k->prefix = arena_printf(&s->arena, "k8s:enc:%s:v1:%.*s:", name, STR_ARG(kn));
	}
	return NULL;
}

struct error *encryption_init(struct apiserver *s)
{
	struct buf b buf_cleanup = {0}, json buf_cleanup = {0};
	struct jv doc;
	const struct jv *list;

	if (!s->o.encryption_config)
		return NULL;
	if (sodium_init() < 0)
		return error_new("libsodium does not start");
	TRY(error_wrap(file_read(s->o.encryption_config, &b), "encryption config"));
	TRY(error_wrap(yaml_to_json(buf_view(&b), NULL, &json), "encryption config"));
	TRY(error_wrap(jv_parse(&s->arena, arena_str(&s->arena, buf_view(&json)), NULL, &doc), "encryption config"));
	list = jv_get(&doc, STR("resources"));
	for (uint32_t i = 0; jv_is(list, JV_ARRAY) && i < list->n; i++) {
		struct encryption *e = arena_push(&s->arena, &all.list);
		const struct jv *res = jv_get(&list->items[i], STR("resources")), *prov = jv_get(&list->items[i], STR("providers"));

		for (uint32_t k = 0; jv_is(res, JV_ARRAY) && k < res->n; k++)
			*arena_push(&s->arena, &e->resources) = jv_str(&res->items[k]);
		if (!jv_is(prov, JV_ARRAY) || !prov->n)
			return error_new("encryption config: resources[%u] has no providers", i);
		for (uint32_t k = 0; k < prov->n; k++) {
			const struct jv *p = &prov->items[k], *v;

			if ((v = jv_get(p, STR("aescbc"))) != NULL) {
				TRY(add_keys(s, e, AESCBC, "aescbc", v));
			} else if ((v = jv_get(p, STR("aesgcm"))) != NULL) {
				TRY(add_keys(s, e, AESGCM, "aesgcm", v));
			} else if ((v = jv_get(p, STR("secretbox"))) != NULL) {
				TRY(add_keys(s, e, SECRETBOX, "secretbox", v));
			} else if (jv_get(p, STR("kms"))) {
				return error_new("encryption config: resources[%u].providers[%u]: kms is not built", i, k);
			} else if (jv_get(p, STR("identity"))) {
				struct enc_key *id = arena_push(&s->arena, &e->keys);

				id->kind = IDENTITY;
				e->identity = true;
			} else {
				return error_new("encryption config: resources[%u].providers[%u] is none of aescbc, aesgcm, secretbox, identity", i, k);
			}
		}
	}
	if (!all.list.n)
		return error_new("encryption config: it names no resources");
	return NULL;
}

struct encryption *encryption_for(struct apiserver *s, struct str group, struct str plural)
{
	char full[400], group_star[300];

	(void)s;
	snprintf(full, sizeof full, "%.*s%s%.*s", STR_ARG(plural), group.n ? "." : "", STR_ARG(group));
	snprintf(group_star, sizeof group_star, "*.%.*s", STR_ARG(group));
	for (uint32_t i = 0; i < all.list.n; i++)
		for (uint32_t k = 0; k < all.list.v[i].resources.n; k++) {
			struct str r = all.list.v[i].resources.v[k];

			if (str_eqz(r, full) || str_eqz(r, "*.*") || str_eqz(r, group_star))
				return &all.list.v[i];
		}
	return NULL;
}

/* nonce, then what Go's secretbox.Seal makes: tag and ciphertext. */
static void secretbox_seal(const struct enc_key *k, struct str plain, struct buf *out)
{
	unsigned char nonce[crypto_secretbox_NONCEBYTES];
	size_t n = plain.n + crypto_secretbox_MACBYTES;

	random_bytes(nonce, sizeof nonce);
	buf_str(out, k->prefix);
	buf_append(out, nonce, sizeof nonce);
	buf_reserve(out, n);
	crypto_secretbox_easy((unsigned char *)out->p + out->n, (const unsigned char *)plain.p, plain.n, nonce, k->key);
	out->n += n;
}

static bool secretbox_open(const struct enc_key *k, struct str in, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)in.p;

	if (in.n < crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES)
		return false;
	size_t n = in.n - crypto_secretbox_NONCEBYTES;

	buf_reserve(out, n);
	if (crypto_secretbox_open_easy((unsigned char *)out->p + out->n, p + crypto_secretbox_NONCEBYTES, n, p, k->key) != 0)
		return false;
	out->n += n - crypto_secretbox_MACBYTES;
	return true;
}

struct error *encryption_seal(struct encryption *e, struct str key, struct str plain, struct buf *out)
{
	const struct enc_key *k = &e->keys.v[0];
	EVP_CIPHER_CTX *c;
	unsigned char iv[16], tag[16];
	int iv_n = k->kind == AESGCM ? 12 : 16, n = 0, m = 0;
	bool ok;

	if (k->kind == IDENTITY) {
		buf_str(out, plain);
		return NULL;
	}
	if (k->kind == SECRETBOX) {
		secretbox_seal(k, plain, out);
		return NULL;
	}
	random_bytes(iv, sizeof iv);
	buf_str(out, k->prefix);
	buf_append(out, iv, (size_t)iv_n);
	buf_reserve(out, plain.n + 32);
	c = EVP_CIPHER_CTX_new();
	ok = EVP_EncryptInit_ex(c, cipher(k), NULL, k->key, iv) == 1;
	if (ok && k->kind == AESGCM)
		ok = EVP_EncryptUpdate(c, NULL, &m, (const unsigned char *)key.p, (int)key.n) == 1;
	ok = ok && EVP_EncryptUpdate(c, (unsigned char *)out->p + out->n, &n, (const unsigned char *)plain.p, (int)plain.n) == 1 &&
	     EVP_EncryptFinal_ex(c, (unsigned char *)out->p + out->n + n, &m) == 1;
	if (ok)
		out->n += (size_t)(n + m);
	if (ok && k->kind == AESGCM) {
		ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, 16, tag) == 1;
		buf_append(out, tag, 16);
	}
	EVP_CIPHER_CTX_free(c);
	return ok ? NULL : err_internal("encrypting failed");
}

static bool open_with(const struct enc_key *k, struct str key, struct str in, struct buf *out)
{
	EVP_CIPHER_CTX *c;
	size_t iv_n = k->kind == AESGCM ? 12 : 16, tag_n = k->kind == AESGCM ? 16 : 0;
	int n = 0, m = 0;
	bool ok;
	const unsigned char *p = (const unsigned char *)in.p;

	if (k->kind == SECRETBOX)
		return secretbox_open(k, in, out);
	if (in.n < iv_n + tag_n)
		return false;
	buf_reserve(out, in.n + 32);
	c = EVP_CIPHER_CTX_new();
	ok = EVP_DecryptInit_ex(c, cipher(k), NULL, k->key, p) == 1;
	if (ok && k->kind == AESGCM)
		ok = EVP_DecryptUpdate(c, NULL, &m, (const unsigned char *)key.p, (int)key.n) == 1;
	ok = ok && EVP_DecryptUpdate(c, (unsigned char *)out->p + out->n, &n, p + iv_n, (int)(in.n - iv_n - tag_n)) == 1;
	if (ok && k->kind == AESGCM)
		ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, 16, (void *)(uintptr_t)(p + in.n - 16)) == 1;
	ok = ok && EVP_DecryptFinal_ex(c, (unsigned char *)out->p + out->n + n, &m) == 1;
	if (ok)
		out->n += (size_t)(n + m);
	EVP_CIPHER_CTX_free(c);
	return ok;
}

struct error *encryption_open(void *ctx, struct str key, struct str stored, struct buf *out)
{
	const struct encryption_place *place = ctx;
	const struct encryption *e = place->e;
	struct buf full buf_cleanup = {0};

	if (!str_has_prefix(key, place->prefix)) {
		buf_str(&full, place->prefix);
		buf_str(&full, key);
		key = buf_view(&full);
	}
	if (!str_has_prefix(stored, STR("k8s:enc:"))) {
		if (!e->identity)
			return error_new("%.*s is stored in the clear, and the encryption config does not allow it (add identity)", STR_ARG(key));
		buf_str(out, stored);
		return NULL;
	}
	for (uint32_t i = 0; i < e->keys.n; i++) {
		const struct enc_key *k = &e->keys.v[i];

		if (k->kind == IDENTITY || !str_has_prefix(stored, k->prefix))
			continue;
		if (open_with(k, key, str_sub(stored, k->prefix.n, stored.n), out))
			return NULL;
		return error_new("%.*s cannot be decrypted with its key %.*s", STR_ARG(key), STR_ARG(k->prefix));
	}
	return error_new("%.*s was encrypted with a key the encryption config does not have", STR_ARG(key));
}
