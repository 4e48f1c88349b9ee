/* AES-CBC with PKCS#7 and AES-GCM (OpenSSL), XSalsa20-Poly1305 (libsodium) in upstream's envelopes: k8s:enc:PROVIDER:v1:KEYNAME:bytes. */
#include <openssl/evp.h>
#include <sodium.h>
#include <stdlib.h>
#include "apiserver/encrypt_internal.h"
#include "apiserver/gcm.h"

#define SEALS_MAX 127 /* ways to seal told apart; those behind count as stale always */

struct encryption {
	struct apiserver *s;
	struct str group, plural, prefix;
	char resource[300];                 /* "deployments.apps", for metrics */
	const struct encryption_rule *rule; /* of `all.set`; NULL: in the clear */
	struct encryption *next;
};
static struct { /* one server a process */
	struct encryption_set *set;         /* NULL: nothing is encrypted */
	struct encryption *list;
	struct map seals;                   /* what sealed a value -> its number, 1 to SEALS_MAX */
} all;

/* ---- local keys ---- */

static const EVP_CIPHER *cbc(const struct provider *p)
{
	return p->bits == 128 ? EVP_aes_128_cbc() : p->bits == 192 ? EVP_aes_192_cbc() : EVP_aes_256_cbc();
}

static bool cbc_seal(const struct provider *p, struct str plain, struct buf *out)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	unsigned char iv[16];
	int n = 0, m = 0;
	bool ok;

	random_bytes(iv, sizeof iv);
	buf_append(out, iv, sizeof iv);
	buf_reserve(out, plain.n + 32);
	ok = c && EVP_EncryptInit_ex(c, cbc(p), NULL, p->key, iv) == 1 &&
	     EVP_EncryptUpdate(c, (unsigned char *)out->p + out->n, &n, (const unsigned char *)plain.p, (int)plain.n) == 1 &&
	     EVP_EncryptFinal_ex(c, (unsigned char *)out->p + out->n + n, &m) == 1;
	if (ok)
		out->n += (size_t)(n + m);
	EVP_CIPHER_CTX_free(c);
	return ok;
}

static bool cbc_open(const struct provider *p, struct str in, struct buf *out)
{
	EVP_CIPHER_CTX *c;
	int n = 0, m = 0;
	bool ok;

	if (in.n < 16)
		return false;
	buf_reserve(out, in.n + 32);
	c = EVP_CIPHER_CTX_new();
	ok = c && EVP_DecryptInit_ex(c, cbc(p), NULL, p->key, (const unsigned char *)in.p) == 1 &&
	     EVP_DecryptUpdate(c, (unsigned char *)out->p + out->n, &n, (const unsigned char *)in.p + 16, (int)(in.n - 16)) == 1 &&
	     EVP_DecryptFinal_ex(c, (unsigned char *)out->p + out->n + n, &m) == 1;
	if (ok)
		out->n += (size_t)(n + m);
	EVP_CIPHER_CTX_free(c);
	return ok;
}

/* nonce, then what Go's secretbox.Seal makes: tag and ciphertext. */
static void secretbox_seal(const struct provider *p, struct str plain, struct buf *out)
{
	unsigned char nonce[crypto_secretbox_NONCEBYTES];
	size_t n = plain.n + crypto_secretbox_MACBYTES;

	random_bytes(nonce, sizeof nonce);
	buf_append(out, nonce, sizeof nonce);
	buf_reserve(out, n);
	crypto_secretbox_easy((unsigned char *)out->p + out->n, (const unsigned char *)plain.p, plain.n, nonce, p->key);
	out->n += n;
}

static bool secretbox_open(const struct provider *p, struct str in, struct buf *out)
{
	const unsigned char *bytes = (const unsigned char *)in.p;

	if (in.n < crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES)
		return false;
	size_t n = in.n - crypto_secretbox_NONCEBYTES;

	buf_reserve(out, n);
	if (crypto_secretbox_open_easy((unsigned char *)out->p + out->n, bytes + crypto_secretbox_NONCEBYTES, n, bytes, p->key) != 0)
		return false;
	out->n += n - crypto_secretbox_MACBYTES;
	return true;
}

static bool local_seal(const struct provider *p, struct str key, struct str plain, struct buf *out)
{
	if (p->kind == AESCBC)
		return cbc_seal(p, plain, out);
	if (p->kind == AESGCM)
		return gcm_seal(p->key, p->bits, key, plain, out);
	secretbox_seal(p, plain, out);
	return true;
}

static bool local_open(const struct provider *p, struct str key, struct str in, struct buf *out)
{
	return p->kind == AESCBC ? cbc_open(p, in, out) : p->kind == AESGCM ? gcm_open(p->key, p->bits, key, in, out) : secretbox_open(p, in, out);
}

/* ---- values ---- */

static void record(const struct encryption *e, const char *way, struct str prefix, int64_t since, bool ok)
{
	char labels[500];

	snprintf(labels, sizeof labels, "resource=\"%s\",status=\"%s\",transformation_type=\"%s\",transformer_prefix=\"%.*s\"", e->resource,
		 ok ? "OK" : "unknown-non-grpc", way, STR_ARG(prefix));
	metrics_count(METRIC_TRANSFORMS, labels, 1);
	if (!ok)
		return;
	snprintf(labels, sizeof labels, "transformation_type=\"%s\",transformer_prefix=\"%.*s\"", way, STR_ARG(prefix));
	metrics_observe(METRIC_TRANSFORM_TIME, labels, (double)(now_ns() - since) / 1e9);
}

struct error *encryption_seal(struct encryption *e, struct str key, struct str plain, struct buf *out)
{
	const struct provider *p = e->rule ? e->rule->providers.v[0] : NULL;
	int64_t since = now_ns();
	struct error *err = NULL;

	if (!p || p->kind == IDENTITY) {
		buf_str(out, plain);
		return NULL;
	}
	buf_str(out, p->prefix);
	if (p->kind == KMS)
		err = kms_seal(p->kms, key, plain, out);
	else if (!local_seal(p, key, plain, out))
		err = error_status(500, "InternalError", "encrypting failed");
	record(e, "to_storage", p->shown, since, !err);
	return err;
}

static struct error *open_with(const struct provider *p, struct str key, struct str stored, bool may_wait, struct buf *out)
{
	struct str value = str_sub(stored, p->prefix.n, stored.n);

	if (p->kind == KMS)
		return kms_open(p->kms, key, value, may_wait, out);
	return local_open(p, key, value, out) ? NULL : error_new("it cannot be decrypted with its key %.*s", STR_ARG(p->prefix));
}

/* As upstream, providers are tried in their order, and a failure of one whose prefix fits lets the next one try. */
static struct error *open_any(const struct encryption *e, struct str key, struct str stored, bool may_wait, struct buf *out)
{
	const struct encryption_rule *r = e->rule;
	bool sealed = str_has_prefix(stored, STR("k8s:enc:"));
	struct error *err = NULL;

	if (!r && !sealed) {
		buf_str(out, stored);
		return NULL;
	}
	for (uint32_t i = 0; r && i < r->providers.n; i++) {
		const struct provider *p = r->providers.v[i];
		int64_t since = now_ns();
		size_t before = out->n;

		if (p->kind == IDENTITY && !sealed) {
			buf_str(out, stored);
			return NULL;
		}
		if (p->kind == IDENTITY || !str_has_prefix(stored, p->prefix))
			continue;
		error_free(err);
		err = open_with(p, key, stored, may_wait, out);
		if (may_wait || !error_is_sys(err, EAGAIN))
			record(e, "from_storage", p->shown, since, !err);
		if (!err)
			return NULL;
		out->n = before;
	}
	if (err)
		return err;
	return error_new(sealed ? "it was encrypted with a key the encryption config does not have" :
				  "it is stored in the clear, and the encryption config does not allow that (add identity)");
}

struct error *encryption_open(void *ctx, struct str key, struct str stored, bool may_wait, struct buf *out)
{
	struct encryption *e = ctx;
	struct encryption_set *set = all.set; /* in use until we have waited */
	struct buf full buf_cleanup = {0};
	struct error *err;

	if (!str_has_prefix(key, e->prefix)) {
		buf_str(&full, e->prefix);
		buf_str(&full, key);
		key = buf_view(&full);
	}
	set->refs++;
	err = open_any(e, key, stored, may_wait, out);
	encryption_set_unref(set);
	return error_wrap(err, "%.*s", STR_ARG(key));
}

/* ---- what a value is sealed with ---- */

static uint8_t seal_number(struct str name)
{
	uintptr_t n = (uintptr_t)map_get(&all.seals, name);

	if (!n && name.n && all.seals.n < SEALS_MAX) {
		n = all.seals.n + 1;
		map_set(&all.seals, name, (void *)n);
	}
	return (uint8_t)n;
}

/* rest: of a KMS plugin's key. */
static struct str seal_name(struct arena *a, const struct provider *p, struct str rest)
{
	if (p->kind == IDENTITY)
		return STR("identity");
	if (p->kind != KMS)
		return p->seal;
	return rest.n ? arena_printf(a, "%.*s%.*s", STR_ARG(p->prefix), STR_ARG(rest)) : STR_NULL;
}

uint8_t encryption_sealed(void *ctx, struct str stored)
{
	const struct encryption *e = ctx;
	struct arena a arena_cleanup = {0};

	for (uint32_t i = 0; e->rule && i < e->rule->providers.n; i++) {
		const struct provider *p = e->rule->providers.v[i];

		if (p->kind == IDENTITY ? !str_has_prefix(stored, STR("k8s:enc:")) : str_has_prefix(stored, p->prefix))
			return seal_number(seal_name(&a, p, p->kind != KMS ? STR_NULL : kms_sealed_with(&a, str_sub(stored, p->prefix.n, stored.n))));
	}
	return str_has_prefix(stored, STR("k8s:enc:")) ? 0 : seal_number(STR("identity"));
}

bool encryption_stale(const struct encryption *e, uint8_t sealed)
{
	struct arena a arena_cleanup = {0};
	static const struct provider identity;
	const struct provider *p = e->rule ? e->rule->providers.v[0] : &identity;
	struct str rest = p->kind == KMS ? kms_seals_with(p->kms) : STR_NULL;

	if (p->kind == KMS && !rest.n)
		return false; /* it could not be written anew */
	return !sealed || sealed != seal_number(seal_name(&a, p, rest));
}

bool encryption_opens(const struct encryption *e, uint8_t sealed)
{
	struct arena a arena_cleanup = {0};
	struct str name;
	size_t it = 0;
	void *n;

	while (map_next(&all.seals, &it, &name, &n)) {
		if ((uintptr_t)n != sealed)
			continue;
		for (uint32_t i = 0; e->rule && i < e->rule->providers.n; i++) {
			const struct provider *p = e->rule->providers.v[i];

			if (p->kind == KMS ? str_has_prefix(name, p->prefix) : str_eq(name, seal_name(&a, p, STR_NULL)))
				return true;
		}
		return !e->rule && str_eqz(name, "identity");
	}
	return true; /* nobody knows what it was */
}

/* ---- who has which providers ---- */

static void point(struct encryption *e)
{
	e->rule = encryption_set_rule(all.set, e->group, e->plural);
}

void encryption_set_use(struct encryption_set *set)
{
	struct encryption_set *old = all.set;

	all.set = set;
	for (struct encryption *e = all.list; e; e = e->next)
		point(e);
	for (uint32_t i = 0; old && i < old->kms.n; i++)
		kms_stop(old->kms.v[i]);
	encryption_set_unref(old);
}

struct encryption *encryption_for(struct apiserver *s, struct str group, struct str plural, struct str prefix)
{
	struct encryption *e;

	for (e = all.list; e; e = e->next)
		if (str_eq(e->group, group) && str_eq(e->plural, plural))
			return e;
	if (!all.set || (!s->o.encryption_config_reload && !encryption_set_rule(all.set, group, plural)))
		return NULL;
	e = xcalloc(1, sizeof *e);
	e->s = s;
	e->group = arena_str(&s->arena, group);
	e->plural = arena_str(&s->arena, plural);
	e->prefix = arena_str(&s->arena, prefix);
	snprintf(e->resource, sizeof e->resource, "%.*s%s%.*s", STR_ARG(plural), group.n ? "." : "", STR_ARG(group));
	e->next = all.list;
	all.list = e;
	point(e);
	return e;
}

/* ---- health ---- */

bool encryption_has_check(void)
{
	return all.set && all.set->kms.n;
}

struct error *encryption_check(struct apiserver *s)
{
	struct encryption_set *set = all.set;
	struct buf why buf_cleanup = {0};
	uint32_t n = 0;

	(void)s;
	if (!set)
		return NULL;
	set->refs++;
	for (uint32_t i = 0; i < set->kms.n; i++) {
		struct error *e = kms_check(set->kms.v[i]);

		if (e)
			buf_printf(&why, "%skms-provider-%u: %s", n++ ? ", " : "", i, error_message(e));
		error_free(e);
	}
	encryption_set_unref(set);
	return n ? error_new(n > 1 ? "[%s]" : "%s", buf_z(&why)) : NULL;
}
