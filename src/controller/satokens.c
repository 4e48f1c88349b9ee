/*
 * controller/satokens.c: Secrets of type kubernetes.io/service-account-token get their token, namespace and CA, as long as the
 * ServiceAccount that they name lives; they go with it. Such tokens do not expire: new clusters use TokenRequest instead.
 */
#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>

#include "controller/base64url.h"
#include "controller/common.h"
#include "loop/io.h"

#define TYPE "kubernetes.io/service-account-token"
#define ANN_NAME "kubernetes.io/service-account.name"
#define ANN_UID "kubernetes.io/service-account.uid"
#define SELECTOR "type=" TYPE
#define FILE_MAX (1u << 20)

struct sa_tokens {
	struct manager *m;
	struct informer *accounts, *secrets; /* of that type only */
	struct workqueue *q;
	EVP_PKEY *key;
	const char *alg;
	char kid[64];
	struct str ca;
};

/* ---- JWT (RFC 7519): what upstream's legacy tokens say ---- */

/* ECDSA's DER to the fixed-length form that JWS wants (RFC 7518, 3.4). */
static bool raw_signature(struct arena *a, const unsigned char *der, size_t n, int coord, struct str *out)
{
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);
	unsigned char *p = (unsigned char *)arena_bytes(a, (size_t)coord * 2);
	bool ok = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), p, coord) == coord && BN_bn2binpad(ECDSA_SIG_get0_s(sig), p + coord, coord) == coord;

	ECDSA_SIG_free(sig);
	*out = str_of((char *)p, (size_t)coord * 2);
	return ok;
}

static struct error *sign(struct sa_tokens *c, struct arena *a, struct str text, struct str *out)
{
	int bits = EVP_PKEY_get_bits(c->key);
	bool ec = EVP_PKEY_is_a(c->key, "EC");
	const EVP_MD *md = !ec || bits <= 256 ? EVP_sha256() : bits <= 384 ? EVP_sha384() : EVP_sha512();
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t n = 0;
	unsigned char *sig = NULL;
	bool ok = EVP_DigestSignInit(ctx, NULL, md, NULL, c->key) == 1 &&
		  EVP_DigestSign(ctx, NULL, &n, (const unsigned char *)text.p, text.n) == 1;

	if (ok) {
		sig = (unsigned char *)arena_bytes(a, n);
		ok = EVP_DigestSign(ctx, sig, &n, (const unsigned char *)text.p, text.n) == 1;
	}
	EVP_MD_CTX_free(ctx);
	*out = str_of((char *)sig, n);
	if (ok && ec)
		ok = raw_signature(a, sig, n, (bits + 7) / 8, out);
	return ok ? NULL : error_new("signing a service account token failed");
}

static struct error *make_token(struct sa_tokens *c, struct arena *a, const struct core_v1_service_account *sa, struct str secret, struct str *out)
{
	struct buf b buf_cleanup = {0};
	struct str ns = sa->metadata.namespace, name = sa->metadata.name, sig;

	base64url(&b, arena_printf(a, "{\"alg\":\"%s\",\"kid\":\"%s\"}", c->alg, c->kid));
	buf_putc(&b, '.');
	base64url(&b, arena_printf(a, "{\"iss\":\"kubernetes/serviceaccount\",\"kubernetes.io/serviceaccount/namespace\":\"%.*s\","
				      "\"kubernetes.io/serviceaccount/secret.name\":\"%.*s\","
				      "\"kubernetes.io/serviceaccount/service-account.name\":\"%.*s\","
				      "\"kubernetes.io/serviceaccount/service-account.uid\":\"%.*s\",\"sub\":\"system:serviceaccount:%.*s:%.*s\"}",
				   STR_ARG(ns), STR_ARG(secret), STR_ARG(name), STR_ARG(sa->metadata.uid), STR_ARG(ns), STR_ARG(name)));
	TRY(sign(c, a, buf_view(&b), &sig));
	buf_putc(&b, '.');
	base64url(&b, sig);
	*out = arena_str(a, buf_view(&b));
	return NULL;
}

static struct error *load_key(struct sa_tokens *c, const char *path)
{
	struct buf pem buf_cleanup = {.limit = FILE_MAX}, kid buf_cleanup = {0};
	unsigned char *der = NULL, sum[SHA256_DIGEST_LENGTH];

	TRY(file_read(path, &pem));
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);

	c->key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(uintptr_t)""); /* nobody is asked for a password */
	BIO_free(bio);
	if (!c->key || (!EVP_PKEY_is_a(c->key, "RSA") && !EVP_PKEY_is_a(c->key, "EC")))
		return error_new("%s holds no RSA or EC private key", path);
	int bits = EVP_PKEY_get_bits(c->key), n = i2d_PUBKEY(c->key, &der);

	c->alg = EVP_PKEY_is_a(c->key, "RSA") ? "RS256" : bits <= 256 ? "ES256" : bits <= 384 ? "ES384" : "ES512";
	SHA256(der, n > 0 ? (size_t)n : 0, sum); /* the API server knows the key by this */
	OPENSSL_free(der);
	base64url(&kid, str_of((char *)sum, sizeof(sum)));
	snprintf(c->kid, sizeof(c->kid), "%s", buf_z(&kid));
	return NULL;
}

/* ---- one Secret ---- */

static struct error *forget(struct sa_tokens *c, struct arena *a, const struct core_v1_secret *s)
{
	struct error *e = client_delete(c->m->client, a, &core_v1_secrets_resource, s->metadata.namespace, s->metadata.name,
					&(struct delete_opts){.grace_seconds = -1, .uid = s->metadata.uid});

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

static bool fill(struct arena *a, struct str_map *data, const char *key, struct str value)
{
	if (str_map_has(data, str_from(key)) && str_map_get(data, str_from(key)).n)
		return false;
	str_map_set(a, data, str_from(key), value);
	return true;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct sa_tokens *c = ctx;
	struct core_v1_secret *s = informer_get(c->secrets, a, ns, name);
	void *live = NULL;

	if (!s || s->metadata.deletion_timestamp)
		return NULL;
	struct str_map *notes = API_MAP(&s->metadata.annotations), *data = API_MAP(&s->data);
	struct str account = str_map_get(notes, STR(ANN_NAME)), uid = str_map_get(notes, STR(ANN_UID));
	const struct core_v1_service_account *sa = informer_get(c->accounts, a, ns, account);

	if (!sa || (uid.n && !str_eq(uid, sa->metadata.uid))) { /* gone, or only not seen yet: the server knows */
		struct error *e = client_get(c->m->client, a, &core_v1_serviceaccounts_resource, ns, account, &live);

		if (error_is(e, 404, NULL)) {
			error_free(e);
			return forget(c, a, s);
		}
		TRY(e);
		sa = live;
		if (uid.n && !str_eq(uid, sa->metadata.uid))
			return forget(c, a, s);
	}
	bool changed = false;

	if (!uid.n) {
		str_map_set(a, notes, STR(ANN_UID), sa->metadata.uid);
		changed = true;
	}
	if (!str_map_get(data, STR("token")).n) {
		struct str token;

		TRY(make_token(c, a, sa, name, &token));
		changed |= fill(a, data, "token", token);
	}
	changed |= fill(a, data, "namespace", ns);
	if (c->ca.n && !str_eq(str_map_get(data, STR("ca.crt")), c->ca)) {
		str_map_set(a, data, STR("ca.crt"), c->ca);
		changed = true;
	}
	if (!changed)
		return NULL;
	struct error *e = client_update(c->m->client, a, &core_v1_secrets_resource, ns, NULL, s, NULL);

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL)) /* its next event comes */
		error_clear(&e);
	return e;
}

static void on_secret(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct sa_tokens *c = ctx;
	arena_cleanup struct arena a = {0};

	if (new_)
		workqueue_add(c->q, object_key(&a, new_->ns, new_->name));
}

struct of_account {
	struct sa_tokens *c;
	struct str name;
};

static bool queue_if_named(void *ctx, const struct cached_object *o)
{
	struct of_account *w = ctx;
	arena_cleanup struct arena a = {0};
	const struct core_v1_secret *s = cached_decode(w->c->secrets, &a, o);

	if (s && str_eq(str_map_get(API_MAP(&s->metadata.annotations), STR(ANN_NAME)), w->name))
		workqueue_add(w->c->q, object_key(&a, o->ns, o->name));
	return true;
}

static void on_account(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct sa_tokens *c = ctx;
	struct of_account w = {c, (new_ ? new_ : old)->name};

	if (ev == INFORMER_UPDATED && str_eq(old->uid, new_->uid))
		return;
	informer_each(c->secrets, (new_ ? new_ : old)->ns, NULL, queue_if_named, &w);
}

void sa_token_start(struct manager *m)
{
	struct sa_tokens *c = xcalloc(1, sizeof(*c));
	struct buf ca buf_cleanup = {.limit = FILE_MAX};

	if (!m->flags.sa_private_key_file) {
		log_warn("serviceaccount-token-controller is off: there is no --service-account-private-key-file");
		free(c);
		return;
	}
	struct error *e = load_key(c, m->flags.sa_private_key_file);

	if (!e && m->flags.root_ca_file)
		e = file_read(m->flags.root_ca_file, &ca);
	if (e) {
		log_and_free(e, "serviceaccount-token-controller is off");
		EVP_PKEY_free(c->key);
		free(c);
		return;
	}
	c->m = m;
	c->ca = arena_str(&m->root->arena, buf_view(&ca));
	c->q = workqueue_new("serviceaccount_tokens_secret");
	c->accounts = manager_informer(m, &core_v1_serviceaccounts_resource);
	/* No other Secret is held here. */
	c->secrets = informer_new(m->root->client, &(struct informer_opts){.resource = &core_v1_secrets_resource, .field_selector = STR(SELECTOR)});
	informer_on_event(c->accounts, on_account, c);
	informer_on_event(c->secrets, on_secret, c);
	informer_start(c->secrets);
	controller_run(m, c->q, "serviceaccount-token", 2, reconcile, c, c->accounts, c->secrets, NULL);
}
