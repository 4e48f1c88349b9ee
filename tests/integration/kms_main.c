/*
 * A KMS v2 plugin for tests/integration/kms_test.py (and, by hand, for upstream's server).
 *   kms_main unix:SOCKET CONTROL
 * CONTROL is a file, read at every call, of lines NAME=VALUE: `key` (the key ID that Status names and Encrypt uses), `encrypt_key` (Encrypt
 * uses this one instead), `healthz` (default ok), `version` (default v2), `fail` (a method that answers an error), `wrong` (Decrypt
 * answers other bytes), `annotation` (NAME that Encrypt's answer bears and Decrypt wants), `delay_ms`.
 */
#include <openssl/sha.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "apiserver/gcm.h"
#include "base/log.h"
#include "loop/fiber.h"
#include "loop/io.h"
#include "net/grpc.h"
#include "schema/codec.h"

static const char *address, *control;

static struct str setting(struct arena *a, const char *name, const char *absent)
{
	struct buf b buf_cleanup = {0};
	struct error *e = file_read(control, &b);
	struct str rest;

	if (e) {
		log_and_free(e, "control file");
		return str_from(absent);
	}
	for (rest = arena_str(a, buf_view(&b)); rest.p && rest.n;) {
		struct str v = str_cut(&rest, '\n'), k = str_cut(&v, '=');

		if (str_eqz(k, name))
			return v;
	}
	return str_from(absent);
}

static struct error *before(struct arena *a, const char *method)
{
	int64_t ms;

	if (str_to_i64(setting(a, "delay_ms", ""), &ms))
		TRY(fiber_sleep(ms));
	return str_eqz(setting(a, "fail", ""), method) ? grpc_error(GRPC_UNKNOWN, "%s fails, as the test wants", method) : NULL;
}

static void kek(struct str id, unsigned char out[32])
{
	SHA256((const unsigned char *)id.p, id.n, out);
}

static struct error *status(struct arena *a, struct str req, struct str *resp, void *ctx)
{
	struct kms_v2_status_response r = {.version = setting(a, "version", "v2"), .healthz = setting(a, "healthz", "ok"),
					   .key_id = setting(a, "key", "1")};
	struct buf b buf_cleanup = {0};

	(void)req, (void)ctx;
	TRY(before(a, "Status"));
	pb_encode(&b, &kms_v2_status_response_type, &r);
	*resp = arena_str(a, buf_view(&b));
	return NULL;
}

static struct error *encrypt(struct arena *a, struct str req, struct str *resp, void *ctx)
{
	struct kms_v2_encrypt_request in = {0};
	struct kms_v2_encrypt_response r = {.key_id = setting(a, "encrypt_key", "")};
	struct buf b buf_cleanup = {0}, sealed buf_cleanup = {0};
	struct str note = setting(a, "annotation", "");
	unsigned char key[32];

	(void)ctx;
	TRY(before(a, "Encrypt"));
	TRY(pb_decode(a, &kms_v2_encrypt_request_type, req, &in));
	if (!r.key_id.n)
		r.key_id = setting(a, "key", "1");
	kek(r.key_id, key);
	if (in.uid.n != 36 || !gcm_seal(key, 256, note, in.plaintext, &sealed))
		return grpc_error(GRPC_INVALID_ARGUMENT, "nothing to encrypt");
	r.ciphertext = buf_view(&sealed);
	if (note.n)
		*arena_push(a, &r.annotations) = (struct str_pair){note, note};
	pb_encode(&b, &kms_v2_encrypt_response_type, &r);
	*resp = arena_str(a, buf_view(&b));
	return NULL;
}

static struct error *decrypt(struct arena *a, struct str req, struct str *resp, void *ctx)
{
	struct kms_v2_decrypt_request in = {0};
	struct kms_v2_decrypt_response r = {0};
	struct buf b buf_cleanup = {0}, plain buf_cleanup = {0};
	unsigned char key[32];

	(void)ctx;
	TRY(before(a, "Decrypt"));
	TRY(pb_decode(a, &kms_v2_decrypt_request_type, req, &in));
	kek(in.key_id, key);
	if (!gcm_open(key, 256, in.annotations.n ? in.annotations.v[0].value : STR_NULL, in.ciphertext, &plain))
		return grpc_error(GRPC_INVALID_ARGUMENT, "this was not encrypted here");
	if (setting(a, "wrong", "").n)
		plain.p[0] ^= 1;
	r.plaintext = buf_view(&plain);
	pb_encode(&b, &kms_v2_decrypt_response_type, &r);
	*resp = arena_str(a, buf_view(&b));
	return NULL;
}

static void serve(void *arg)
{
	static const struct grpc_method methods[] = {
		{.path = "/v2.KeyManagementService/Status", .unary = status},
		{.path = "/v2.KeyManagementService/Encrypt", .unary = encrypt},
		{.path = "/v2.KeyManagementService/Decrypt", .unary = decrypt},
	};
	static const int signals[] = {SIGTERM, SIGINT};
	struct grpc_server_opts o = {.methods = methods, .n_methods = sizeof methods / sizeof *methods};
	struct grpc_server *server = NULL;
	struct listener *l = NULL;
	struct error **out = arg;
	int sig;

	*out = listener_open(address, 0600, &l);
	if (!*out)
		*out = grpc_server_start(l, &o, &server);
	if (!*out)
		*out = signal_wait(signals, 2, &sig);
	grpc_server_stop(server, 100);
}

int main(int argc, char **argv)
{
	struct error *e = NULL, *run;

	if (argc != 3) {
		fprintf(stderr, "usage: kms_main unix:SOCKET CONTROL\n");
		return 2;
	}
	log_init("kms", 0);
	signal(SIGPIPE, SIG_IGN);
	address = argv[1];
	control = argv[2];
	run = loop_run(serve, &e);
	e = e ? e : run;
	if (e)
		log_error("%s", e->message);
	return e ? 1 : 0;
}
