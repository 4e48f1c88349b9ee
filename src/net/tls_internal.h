/* net/tls_internal.h: between tls.c and tls_server.c. */
#ifndef SKIFF_NET_TLS_INTERNAL_H
#define SKIFF_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/tls.h"

#define CHECK_FILES_MS 1000 /* how often files are looked at, at most */

struct ctx_files;

struct file_id { /* what stat(2) says of a file, to see that it changed */
	struct timespec mtime;
	ino_t ino;
	off_t size;
};

struct tls {
	struct stream s;
	struct stream *raw;
	SSL *ssl;
	const char *in; /* ciphertext not read by OpenSSL yet: in scratch or stash */
	size_t in_n;
	char *stash;
	bool in_stash;
	char *out; /* ciphertext not written yet */
	size_t out_n;
	struct fiber_mutex wlock;
	bool raw_eof, broken, reading;
	struct arena arena;
	struct tls_peer *peer;
	char *peer_error;
	char alpn[16];
	unsigned faults; /* of a server's certificates */
	const struct ctx_files *files; /* during the handshake: the stores to verify clients against */
};

/* Once a process; before anything else of OpenSSL's. */
void tls_init(void);
extern int ssl_tls_index; /* SSL's ex_data: its struct tls */
/* What OpenSSL has to say of its last error; forgotten then. */
struct error *ssl_error(const char *what);
char *dup_or_null(const char *z);
struct file_id file_id(const char *path);
bool same_file(struct file_id a, struct file_id b);
/* The certificate with its chain, and its key, from files or PEM texts. */
struct error *use_cert(SSL_CTX *ctx, const char *cert_file, const char *key_file, struct str cert_pem,
		       struct str key_pem);
/* All certificates of a PEM text into a store; `names` (or NULL) gets their subjects. */
struct error *load_ca(const char *file, struct str pem, X509_STORE *store, STACK_OF(X509_NAME) * names);
void ctx_common(SSL_CTX *ctx);
struct tls *tls_make(SSL_CTX *ctx, struct stream *raw);
struct error *tls_handshake(struct tls *t);
/* After the handshake, which ended with e: as tls_accept and tls_connect say. */
struct error *tls_finish(struct tls *t, struct error *e, struct stream **out);

#endif
