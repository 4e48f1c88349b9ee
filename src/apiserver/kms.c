/* KMS v2: upstream's kmsv2 envelope (pkg/storage/value/encrypt/envelope/kmsv2) and the probe that rotates its seed. */
#include <errno.h>
#include <stdlib.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include "apiserver/gcm.h"
#include "apiserver/kms.h"
#include "apiserver/metrics.h"
#include "base/log.h"
#include "loop/fiber.h"
#include "net/grpc.h"
#include "schema/codec.h"
#include "schema/validate.h"

/* Upstream's numbers. */
#define POLL_WELL_MS 60000
#define POLL_ILL_MS 10000
#define TTL_WELL_MS 20000
#define TTL_ILL_MS 3000
#define SEAL_MS 180000           /* a seed seals that long behind the last good Status */
#define KEY_ID_MAX 1024
#define WRAPPED_MAX 1024         /* of encryptedDEKSource */
#define ANNOTATIONS_MAX_BYTES (32 * 1024)
#define INFO 32                  /* random bytes before the ciphertext, from which a value's key is derived */
#define SEED 32
#define KEY_MAX 64               /* of an unwrapped key or seed */

enum { AES_GCM_KEY = 0, HKDF_SEED = 1 }; /* EncryptedDEKSourceType */

typedef struct kms_v2_encrypted_object encrypted_object;

struct unwrapped {
	int type;
	unsigned char key[KEY_MAX];
	size_t n;
	uint64_t used; /* of kms.uses */
};

struct kms {
	struct apiserver *s;
	char *name;
	struct grpc_client *client;
	int64_t timeout_ms;
	struct fiber *poller;
	struct fiber_mutex asking, unwrapping;
	/* the last Status */
	int64_t asked_ms, ttl_ms; /* ttl 0: never asked */
	char *ill;                /* what was wrong, or NULL */
	char version[16];         /* of the first answer */
	/* the seed that seals: without encrypted_data; strings in seal_arena */
	bool sealing;
	struct arena seal_arena;
	encrypted_object seal;
	unsigned char seed[SEED];
	int64_t seal_until_ms;
	struct str seals_with;
	/* unwrapped keys: digest -> struct unwrapped */
	struct map keys;
	uint64_t uses;
};

/* ---- messages ---- */

static struct error *check_key_id(struct str id)
{
	if (!id.n)
		return error_new("keyID is empty");
	return id.n > KEY_ID_MAX ? error_new("keyID is %zu bytes, which exceeds the max size of %d", id.n, KEY_ID_MAX) : NULL;
}

/* A name of at least two labels; a dot may end it. */
static bool is_full_domain(struct arena *a, struct str s)
{
	if (s.n && s.p[s.n - 1] == '.')
		s.n--;
	return str_index(s, '.') >= 0 && !validate_dns1123_subdomain(a, s);
}

static struct error *check_object(struct arena *a, const encrypted_object *o)
{
	size_t bytes = 0;

	if (o->encrypted_dek_source_type != AES_GCM_KEY && o->encrypted_dek_source_type != HKDF_SEED)
		return error_new("unknown encryptedDEKSourceType: %d", o->encrypted_dek_source_type);
	if (!o->encrypted_dek_source.n)
		return error_new("encrypted DEK source is empty");
	if (o->encrypted_dek_source.n > WRAPPED_MAX)
		return error_new("encrypted DEK source is %zu bytes, which exceeds the max size of %d", o->encrypted_dek_source.n, WRAPPED_MAX);
	TRY(check_key_id(o->key_id));
	for (uint32_t i = 0; i < o->annotations.n; i++) {
		if (!is_full_domain(a, o->annotations.v[i].key))
			return error_new("annotation \"%.*s\" is no fully qualified domain name", STR_ARG(o->annotations.v[i].key));
		bytes += o->annotations.v[i].key.n + o->annotations.v[i].value.n;
	}
	if (bytes > ANNOTATIONS_MAX_BYTES)
		return error_new("total size of annotations is %zu, which exceeds the max size of %d", bytes, ANNOTATIONS_MAX_BYTES);
	return NULL;
}

static struct error *decode_object(struct arena *a, struct str value, encrypted_object *o)
{
	memset(o, 0, sizeof *o);
	TRY(pb_decode(a, &kms_v2_encrypted_object_type, value, o));
	if (!o->encrypted_data.n)
		return error_new("encrypted data is empty");
	return check_object(a, o);
}

/* Names the key: a digest of everything that the plugin is given to unwrap it. */
static void key_digest(const encrypted_object *o, char out[SHA256_DIGEST_LENGTH])
{
	struct buf b buf_cleanup = {0};
	uint32_t n = o->annotations.n;

	buf_append(&b, &o->encrypted_dek_source_type, sizeof o->encrypted_dek_source_type);
	buf_append(&b, &n, sizeof n);
	for (uint32_t i = 0; i <= n; i++) { /* sorted by key; each string behind its length */
		struct str k = i < n ? o->annotations.v[i].key : o->encrypted_dek_source, v = i < n ? o->annotations.v[i].value : o->key_id;

		buf_append(&b, &k.n, sizeof k.n);
		buf_str(&b, k);
		buf_append(&b, &v.n, sizeof v.n);
		buf_str(&b, v);
	}
	SHA256((const unsigned char *)b.p, b.n, (unsigned char *)out);
}

/* req_type NULL: an empty message. */
static struct error *call(struct kms *k, struct arena *a, const char *method, const struct schema_type *req_type, const void *req,
			  const struct schema_type *resp_type, void *resp)
{
	struct buf b buf_cleanup = {0};
	struct str path = arena_printf(a, "/v2.KeyManagementService/%s", method), answer = STR_NULL;
	int64_t since = now_ns(), d = deadline_push(k->timeout_ms);
	struct error *e;

	if (req_type)
		pb_encode(&b, req_type, req);
	e = grpc_call(k->client, a, path.p, buf_view(&b), &answer);
	deadline_pop(d);
	metrics_observe(METRIC_KMS_LATENCY,
			arena_printf(a, "grpc_status_code=\"%s\",method_name=\"%.*s\",provider_name=\"%s\"",
				     grpc_code_name(grpc_error_code(e)), STR_ARG(path), k->name)
				.p,
			(double)(now_ns() - since) / 1e9);
	if (!e)
		e = pb_decode(a, resp_type, answer, resp);
	OPENSSL_cleanse(b.p, b.n);
	return e;
}

/* ---- unwrapped keys ---- */

static void forget(void *unwrapped)
{
	OPENSSL_cleanse(unwrapped, sizeof(struct unwrapped));
	free(unwrapped);
}

static void remember(struct kms *k, struct str digest, int type, struct str key)
{
	struct unwrapped *u = map_get(&k->keys, digest);
	char labels[300];

	if (!u && k->keys.n >= KMS_KEYS_MAX) {
		struct str at, oldest = STR_NULL;
		uint64_t used = UINT64_MAX;
		size_t it = 0;
		void *v;

		while (map_next(&k->keys, &it, &at, &v))
			if (((struct unwrapped *)v)->used < used) {
				used = ((struct unwrapped *)v)->used;
				oldest = at;
			}
		forget(map_del(&k->keys, oldest));
	}
	if (!u) {
		u = xcalloc(1, sizeof *u);
		map_set(&k->keys, digest, u);
	}
	u->type = type;
	u->n = key.n;
	u->used = ++k->uses;
	memcpy(u->key, key.p, key.n);
	snprintf(labels, sizeof labels, "provider_name=\"%s\"", k->name);
	metrics_set(METRIC_DEK_CACHE, labels, (double)k->keys.n);
}

static struct error *check_key(int type, struct str key)
{
	if (type == HKDF_SEED && (key.n < SEED || key.n > KEY_MAX))
		return error_new("an unwrapped seed has %zu bytes", key.n);
	if (type == AES_GCM_KEY && key.n != 16 && key.n != 24 && key.n != 32)
		return error_new("an unwrapped key has %zu bytes", key.n);
	return NULL;
}

static struct error *unwrap(struct kms *k, const encrypted_object *o, struct str digest)
{
	struct arena a arena_cleanup = {0};
	struct kms_v2_decrypt_request req = {.ciphertext = o->encrypted_dek_source, .key_id = o->key_id};
	struct kms_v2_decrypt_response resp = {0};
	char uid[37];

	memcpy(&req.annotations, &o->annotations, sizeof req.annotations);
	random_uuid(uid);
	req.uid = str_of(uid, 36);
	metrics_count(METRIC_KMS_MISSES, "", 1);
	TRY(error_wrap(call(k, &a, "Decrypt", &kms_v2_decrypt_request_type, &req, &kms_v2_decrypt_response_type, &resp), "Decrypt of KMS provider %s",
		       k->name));
	TRY(error_wrap(check_key(o->encrypted_dek_source_type, resp.plaintext), "KMS provider %s", k->name));
	remember(k, digest, o->encrypted_dek_source_type, resp.plaintext);
	return NULL;
}

/* *u until the next wait. */
static struct error *key_of(struct kms *k, const encrypted_object *o, bool may_wait, struct unwrapped **u)
{
	char digest[SHA256_DIGEST_LENGTH];
	struct str d = str_of(digest, sizeof digest);
	struct error *e = NULL;

	key_digest(o, digest);
	*u = map_get(&k->keys, d);
	if (!*u && may_wait) {
		/* one at a time: those waiting most often want the same key */
		TRY(fiber_mutex_lock(&k->unwrapping));
		if (!map_get(&k->keys, d))
			e = unwrap(k, o, d);
		fiber_mutex_unlock(&k->unwrapping);
		*u = map_get(&k->keys, d);
	}
	if (*u) {
		(*u)->used = ++k->uses;
		return NULL;
	}
	if (!e)
		return error_sys(EAGAIN, "KMS provider %s has not unwrapped a key yet", k->name);
	e->sys = EAGAIN;
	e->status = 500;
	e->reason = "InternalError";
	return e;
}

/* HKDF-Expand with SHA-256 (RFC 5869), the first 32 bytes. */
static void derive(const unsigned char *seed, size_t n, const unsigned char info[INFO], unsigned char key[32])
{
	unsigned char in[INFO + 1];
	unsigned len = 32;

	memcpy(in, info, INFO);
	in[INFO] = 1;
	HMAC(EVP_sha256(), seed, (int)n, in, sizeof in, key, &len);
}

static void record_key_id(struct kms *k, const char *way, struct str key_id)
{
	char hash[METRICS_HASH], labels[500];

	metrics_hash(key_id, hash);
	snprintf(labels, sizeof labels, "apiserver_id_hash=\"%s\",key_id_hash=\"%s\",provider_name=\"%s\",transformation_type=\"%s\"",
		 metrics_server_hash(), hash, k->name, way);
	metrics_count(METRIC_KMS_KEY_IDS, labels, 1);
	metrics_set(METRIC_KMS_KEY_ID_TIME, labels, (double)wall_ns() / 1e9);
}

struct error *kms_open(struct kms *k, struct str key, struct str value, bool may_wait, struct buf *out)
{
	struct arena a arena_cleanup = {0};
	unsigned char derived[32];
	struct unwrapped *u;
	encrypted_object o;
	struct str data;
	bool ok;

	TRY(decode_object(&a, value, &o));
	TRY(key_of(k, &o, may_wait, &u));
	record_key_id(k, "from_storage", o.key_id);
	data = o.encrypted_data;
	if (o.encrypted_dek_source_type == AES_GCM_KEY) {
		ok = gcm_open(u->key, (int)u->n * 8, key, data, out);
	} else {
		if (data.n < INFO)
			return error_new("the value is shorter than what its key is derived from");
		derive(u->key, u->n, (const unsigned char *)data.p, derived);
		ok = gcm_open(derived, 256, key, str_sub(data, INFO, data.n), out);
		OPENSSL_cleanse(derived, sizeof derived);
	}
	return ok ? NULL : error_new("it cannot be decrypted with the key that KMS provider %s has unwrapped", k->name);
}

struct error *kms_seal(struct kms *k, struct str key, struct str plain, struct buf *out)
{
	struct buf data buf_cleanup = {0};
	unsigned char info[INFO], derived[32];
	encrypted_object o = k->seal;
	bool ok;

	if (!k->sealing)
		return error_status(500, "InternalError", "KMS provider %s has not given a key yet: %s", k->name, k->ill ? k->ill : "not asked");
	if (now_ms() > k->seal_until_ms)
		return error_status(500, "InternalError", "the key of KMS provider %s has expired: %s", k->name, k->ill ? k->ill : "not asked");
	random_bytes(info, sizeof info);
	derive(k->seed, SEED, info, derived);
	buf_append(&data, info, sizeof info);
	ok = gcm_seal(derived, 256, key, plain, &data);
	OPENSSL_cleanse(derived, sizeof derived);
	if (!ok)
		return error_status(500, "InternalError", "encrypting failed");
	o.encrypted_data = buf_view(&data);
	pb_encode(out, &kms_v2_encrypted_object_type, &o);
	record_key_id(k, "to_storage", o.key_id);
	return NULL;
}

static struct str sealed_with(struct arena *a, const encrypted_object *o)
{
	return arena_printf(a, "%d:%.*s", o->encrypted_dek_source_type, STR_ARG(o->key_id));
}

struct str kms_sealed_with(struct arena *a, struct str value)
{
	encrypted_object o;
	struct error *e = decode_object(a, value, &o);
	bool bad = e != NULL;

	error_free(e);
	return bad ? STR_NULL : sealed_with(a, &o);
}

struct str kms_seals_with(const struct kms *k)
{
	return k->sealing ? k->seals_with : STR_NULL;
}

/* ---- Status ---- */

/* A new seed, wrapped by the plugin; taken up when it was wrapped with the key that Status has named. */
static struct error *rotate(struct kms *k, struct arena *a, struct str key_id, int64_t until)
{
	struct kms_v2_encrypt_request req;
	struct kms_v2_encrypt_response resp = {0};
	encrypted_object o = {.encrypted_dek_source_type = HKDF_SEED};
	char digest[SHA256_DIGEST_LENGTH], uid[37];
	unsigned char seed[SEED];
	struct arena keep = {0};
	int64_t since = now_ns();

	random_bytes(seed, sizeof seed);
	metrics_observe(METRIC_DATA_KEY_TIME, "", (double)(now_ns() - since) / 1e9);
	random_uuid(uid);
	req = (struct kms_v2_encrypt_request){.plaintext = str_of((char *)seed, sizeof seed), .uid = str_of(uid, 36)};
	TRY(error_wrap(call(k, a, "Encrypt", &kms_v2_encrypt_request_type, &req, &kms_v2_encrypt_response_type, &resp), "Encrypt of KMS provider %s",
		       k->name));
	o.key_id = arena_str(&keep, resp.key_id);
	o.encrypted_dek_source = arena_str(&keep, resp.ciphertext);
	for (uint32_t i = 0; i < resp.annotations.n; i++)
		*arena_push(&keep, &o.annotations) = (struct str_pair){arena_str(&keep, resp.annotations.v[i].key),
								      arena_str(&keep, resp.annotations.v[i].value)};
	struct error *e = check_object(a, &o);

	if (!e && !str_eq(o.key_id, key_id))
		e = error_new("Status names another key than Encrypt has used");
	if (e) {
		arena_free(&keep);
		return e;
	}
	arena_free(&k->seal_arena);
	k->seal_arena = keep;
	k->seal = o;
	memcpy(k->seed, seed, sizeof seed);
	OPENSSL_cleanse(seed, sizeof seed);
	k->seal_until_ms = until;
	k->seals_with = sealed_with(&k->seal_arena, &o);
	k->sealing = true;
	key_digest(&o, digest);
	remember(k, str_of(digest, sizeof digest), HKDF_SEED, str_of((char *)k->seed, SEED));
	log_info("KMS provider %s: a new key seals", k->name);
	return NULL;
}

static struct error *judge_version(struct kms *k, struct str v)
{
	if (!str_eqz(v, "v2") && !str_eqz(v, "v2beta1"))
		return error_new("expected KMSv2 API version v2, got \"%.*s\"", STR_ARG(v));
	if (!*k->version)
		snprintf(k->version, sizeof k->version, "%.*s", STR_ARG(v));
	return str_eqz(v, k->version) ? NULL : error_new("the API version was %s before and is %.*s now", k->version, STR_ARG(v));
}

static struct error *judge_key(struct kms *k, struct arena *a, struct str id)
{
	int64_t until = now_ms() + SEAL_MS; /* from before the plugin is asked */
	char hash[METRICS_HASH];
	struct error *e = check_key_id(id);

	if (e) {
		metrics_count(
			METRIC_KMS_BAD_KEY_ID,
			arena_printf(a, "error=\"%s\",provider_name=\"%s\"", id.n ? "too_long" : "empty", k->name).p,
			1);
		return e;
	}
	metrics_hash(id, hash);
	metrics_set(METRIC_KMS_KEY_ID_STATUS,
		    arena_printf(a, "apiserver_id_hash=\"%s\",key_id_hash=\"%s\",provider_name=\"%s\"",
				 metrics_server_hash(), hash, k->name)
			    .p,
		    (double)wall_ns() / 1e9);
	if (k->sealing && str_eq(k->seal.key_id, id)) {
		k->seal_until_ms = until;
		return NULL;
	}
	return error_wrap(rotate(k, a, id, until), "a new key");
}

/* *silent: it gave no answer, and the error says why in the words of gRPC. */
static struct error *ask(struct kms *k, bool *silent)
{
	struct arena a arena_cleanup = {0};
	struct kms_v2_status_response r = {0};
	struct error *e, *more[2], *f;

	e = call(k, &a, "Status", NULL, NULL, &kms_v2_status_response_type, &r);
	*silent = e != NULL;
	if (error_is_sys(e, ECANCELED))
		return e;
	if (e) {
		f = error_new("rpc error: code = %s desc = %s", grpc_code_name(grpc_error_code(e)), error_message(e));
		error_free(e);
		return f;
	}
	e = str_eqz(r.healthz, "ok") ? NULL : error_new("its health is \"%.*s\"", STR_ARG(r.healthz));
	more[0] = judge_version(k, r.version);
	more[1] = judge_key(k, &a, r.key_id); /* a plugin that is not well may still give keys */
	for (int i = 0; i < 2; i++) {
		if (e && more[i])
			e = error_wrap(e, "%s", more[i]->message);
		else if (more[i])
			e = error_new("%s", more[i]->message);
		error_free(more[i]);
	}
	return e;
}

static void take_note(struct kms *k, const struct error *e)
{
	const char *was = k->ill;

	if (e && (!was || strcmp(was, e->message)))
		log_warn("KMS provider %s is not healthy: %s", k->name, e->message);
	else if (!e && was)
		log_info("KMS provider %s is well again", k->name);
	free(k->ill);
	k->ill = e ? xstrdup(e->message) : NULL;
	k->asked_ms = now_ms();
	k->ttl_ms = e ? TTL_ILL_MS : TTL_WELL_MS;
}

struct error *kms_check(struct kms *k)
{
	struct error *e;
	bool silent = false;

	TRY(fiber_mutex_lock(&k->asking));
	if (k->ttl_ms && now_ms() - k->asked_ms < k->ttl_ms) {
		e = k->ill ? error_new("%s", k->ill) : NULL;
	} else {
		e = ask(k, &silent);
		if (!error_is_sys(e, ECANCELED))
			take_note(k, e);
		if (silent) /* upstream says so to who has it asked, and not to those that are told later */
			e = error_wrap(e, "failed to perform status section of the healthz check for KMS Provider %s, error", k->name);
	}
	fiber_mutex_unlock(&k->asking);
	return e;
}

static void poll_status(void *arg)
{
	struct kms *k = arg;
	struct error *e = NULL;

	while (!e && !fiber_cancelled()) {
		e = fiber_sleep(k->ill ? POLL_ILL_MS : POLL_WELL_MS);
		if (!e)
			error_free(kms_check(k)); /* noted */
	}
	error_free(e);
}

/* ---- life ---- */

struct error *kms_new(struct apiserver *s, struct str name, struct str endpoint, int64_t timeout_ms, struct kms **out)
{
	struct kms *k = xcalloc(1, sizeof *k);
	struct str path = str_sub(endpoint, strlen("unix://"), endpoint.n);
	struct error *e;
	struct buf target buf_cleanup = {0};

	*out = NULL;
	if (path.n > 1 && path.p[1] == '@') /* unix:///@name: of the abstract namespace */
		path = str_sub(path, 1, path.n);
	buf_puts(&target, "unix://");
	buf_str(&target, path);
	e = grpc_client_new(buf_z(&target), &k->client);
	if (e) {
		free(k);
		return e;
	}
	k->s = s;
	k->name = str_dupz(name);
	k->timeout_ms = timeout_ms;
	*out = k;
	return NULL;
}

void kms_start(struct kms *k)
{
	error_free(kms_check(k)); /* noted: it may come up later */
	k->poller = fiber_start("kms-status", poll_status, k);
}

void kms_stop(struct kms *k)
{
	struct fiber *f = k->poller;

	k->poller = NULL;
	fiber_stop(f);
}

void kms_free(struct kms *k)
{
	if (!k)
		return;
	map_free_values(&k->keys, forget);
	grpc_client_free(k->client);
	OPENSSL_cleanse(k->seed, sizeof k->seed);
	arena_free(&k->seal_arena);
	free(k->ill);
	free(k->name);
	free(k);
}
