#include "net/tls_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/log.h"

#define RECORD 16384
#define OUT_FLUSH (112u << 10)          /* ciphertext collected for one write */
#define OUT_CAP (OUT_FLUSH + 2 * 17408) /* and a record or two behind it */
#define IN_CAP (64u << 10)
#define HANDSHAKE_BYTES_MAX (1u << 20)  /* a peer that sends more without finishing is cut off */

/* ---- buffers: shared by all connections of a thread, so that an idle one holds none ---- */

struct spare {
	struct spare *next;
};
static _Thread_local struct spare *spares;
static _Thread_local int n_spares;
static _Thread_local char *scratch; /* ciphertext on its way in, between a read and SSL_read: no wait lies between */

static char *out_get(void)
{
	if (!spares)
		return xmalloc(OUT_CAP);
	struct spare *s = spares;

	spares = s->next;
	n_spares--;
	return (char *)s;
}

static void out_put(char *p)
{
	struct spare *s = (struct spare *)p;

	if (!p)
		return;
	if (n_spares >= 2) {
		free(p);
		return;
	}
	s->next = spares;
	spares = s;
	n_spares++;
}

/* ---- errors ---- */

struct error *ssl_error(const char *what)
{
	unsigned long code = ERR_get_error();
	const char *data = NULL, *reason;
	int flags = 0;

	/* The last entry tells the cause with its details; the first tells most to a person. */
	if (code)
		ERR_peek_error_data(&data, &flags);
	reason = code ? ERR_reason_error_string(code) : NULL;
	struct error *e = error_new("%s: %s", what, reason ? reason : "failed");

	ERR_clear_error();
	return e;
}

/* ---- certificates ---- */

char *dup_or_null(const char *z)
{
	return z ? xstrdup(z) : NULL;
}

struct file_id file_id(const char *path)
{
	struct stat st;

	if (!path || stat(path, &st) < 0)
		return (struct file_id){0};
	return (struct file_id){st.st_mtim, st.st_ino, st.st_size};
}

bool same_file(struct file_id a, struct file_id b)
{
	return a.mtime.tv_sec == b.mtime.tv_sec && a.mtime.tv_nsec == b.mtime.tv_nsec && a.ino == b.ino && a.size == b.size;
}

static BIO *pem_bio(const char *file, struct str pem)
{
	return pem.n ? BIO_new_mem_buf(pem.p, (int)pem.n) : BIO_new_file(file, "re");
}

struct error *use_cert(SSL_CTX *ctx, const char *cert_file, const char *key_file, struct str cert_pem,
		       struct str key_pem)
{
	const char *cname = cert_pem.n ? "certificate" : cert_file, *kname = key_pem.n ? "private key" : key_file;
	BIO *b = pem_bio(cert_file, cert_pem);

	ERR_clear_error();
	if (!b)
		return ssl_error(cname);
	X509 *leaf = PEM_read_bio_X509_AUX(b, NULL, NULL, NULL), *next;
	bool ok = leaf && SSL_CTX_use_certificate(ctx, leaf) == 1;

	X509_free(leaf);
	if (ok)
		SSL_CTX_clear_chain_certs(ctx);
	while (ok && (next = PEM_read_bio_X509(b, NULL, NULL, NULL)))
		if (SSL_CTX_add0_chain_cert(ctx, next) != 1) {
			X509_free(next);
			ok = false;
		}
	BIO_free(b);
	if (!ok)
		return ssl_error(cname);
	ERR_clear_error(); /* the end of the file shows as one */
	b = pem_bio(key_file, key_pem);
	if (!b)
		return ssl_error(kname);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(b, NULL, NULL, (void *)(uintptr_t)""); /* nobody is asked for a password */

	BIO_free(b);
	ok = key && SSL_CTX_use_PrivateKey(ctx, key) == 1;
	EVP_PKEY_free(key);
	if (!ok)
		return ssl_error(kname);
	return SSL_CTX_check_private_key(ctx) == 1 ? NULL : ssl_error(kname);
}

/* All certificates of a PEM text into a store; `names` (or NULL) gets their subjects. */
struct error *load_ca(const char *file, struct str pem, X509_STORE *store, STACK_OF(X509_NAME) * names)
{
	BIO *b = pem_bio(file, pem);
	const char *what = pem.n ? "CA certificates" : file;
	int n = 0;

	ERR_clear_error();
	if (!b)
		return ssl_error(what);
	for (X509 *x; (x = PEM_read_bio_X509(b, NULL, NULL, NULL)); n++) {
		X509_STORE_add_cert(store, x);
		X509_NAME *name = names ? X509_NAME_dup(X509_get_subject_name(x)) : NULL;

		if (name && !sk_X509_NAME_push(names, name))
			X509_NAME_free(name);
		X509_free(x);
	}
	BIO_free(b);
	ERR_clear_error();
	if (!n)
		return error_new("%s: no certificate in it", what);
	/* As Go does: what is in the file is trusted, also when it is no root. */
	X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	return NULL;
}

/* ---- streams ---- */

static int bio_read(BIO *b, char *p, int n)
{
	struct tls *t = BIO_get_data(b);
	size_t k = (size_t)n < t->in_n ? (size_t)n : t->in_n;

	BIO_clear_retry_flags(b);
	if (!k) {
		if (t->raw_eof)
			return 0;
		BIO_set_retry_read(b);
		return -1;
	}
	memcpy(p, t->in, k);
	t->in += k;
	t->in_n -= k;
	return (int)k;
}

static int bio_write(BIO *b, const char *p, int n)
{
	struct tls *t = BIO_get_data(b);

	BIO_clear_retry_flags(b);
	if (!t->out)
		t->out = out_get();
	/* Flushed at OUT_FLUSH; only an endless handshake gets here. */
	if ((size_t)n > OUT_CAP - t->out_n)
		return -1;
	memcpy(t->out + t->out_n, p, (size_t)n);
	t->out_n += (size_t)n;
	return n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

static int bio_create(BIO *b)
{
	BIO_set_init(b, 1);
	return 1;
}

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;
int ssl_tls_index;

static void method_init(void)
{
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "skiff stream");
	ssl_tls_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	if (!method || ssl_tls_index < 0)
		die_oom();
	BIO_meth_set_read(method, bio_read);
	BIO_meth_set_write(method, bio_write);
	BIO_meth_set_ctrl(method, bio_ctrl);
	BIO_meth_set_create(method, bio_create);
}

void tls_init(void)
{
	pthread_once(&method_once, method_init);
}

/* Called with wlock held or where nobody else can write. */
static struct error *flush(struct tls *t)
{
	struct error *e = NULL;

	while (!e && t->out_n) {
		char *out = t->out;
		size_t n = t->out_n;

		/* OpenSSL may add to it (a key update) while we wait. */
		t->out = NULL;
		t->out_n = 0;
		e = stream_write(t->raw, out, n);
		out_put(out);
	}
	if (e)
		t->broken = true;
	return e;
}

static struct error *fill(struct tls *t)
{
	size_t n;

	if (!scratch)
		scratch = xmalloc(IN_CAP);
	/* The read fills scratch only at its very end, when it no longer waits. */
	TRY(stream_read(t->raw, scratch, IN_CAP, &n));
	t->in = scratch;
	t->in_n = n;
	t->raw_eof = n == 0;
	return NULL;
}

/* What OpenSSL has not taken must leave scratch before anything waits. */
static void stash_rest(struct tls *t)
{
	if (!t->in_n) {
		free(t->stash);
		t->stash = NULL;
		t->in = NULL;
		t->in_stash = false;
	} else if (!t->in_stash) {
		t->stash = xmalloc(t->in_n);
		memcpy(t->stash, t->in, t->in_n);
		t->in = t->stash;
		t->in_stash = true;
	}
}

static struct error *tls_read(struct stream *s, void *p, size_t n, size_t *got)
{
	struct tls *t = (struct tls *)s;

	*got = 0;
	for (;;) {
		size_t k = 0;

		ERR_clear_error();
		int r = SSL_read_ex(t->ssl, (char *)p + *got, n - *got, &k);

		if (r == 1) {
			*got += k;
			/* More records may be here already. */
			if (*got < n && (t->in_n || SSL_pending(t->ssl)))
				continue;
			stash_rest(t);
			return NULL;
		}
		int err = SSL_get_error(t->ssl, r);

		stash_rest(t);
		if (*got)
			return NULL; /* the same comes again with the next read */
		if (err == SSL_ERROR_ZERO_RETURN)
			return NULL;
		if (err != SSL_ERROR_WANT_READ) {
			t->broken = true;
			if (t->raw_eof)
				return error_sys(ECONNRESET, "TLS connection ended without close_notify");
			struct error *e = ssl_error("TLS read");

			e->sys = EPROTO;
			return e;
		}
		if (t->out_n && !t->wlock.locked) {
			TRY(fiber_mutex_lock(&t->wlock));
			struct error *e = flush(t);

			fiber_mutex_unlock(&t->wlock);
			TRY(e);
		}
		TRY(fill(t));
	}
}

static struct error *write_records(struct tls *t, struct iovec *iov, int n)
{
	/* Small vectors share a record: gathered without a wait in between, so one buffer does for the thread. */
	static _Thread_local char *gather;

	for (int i = 0; i < n;) {
		const char *p = iov[i].iov_base;
		size_t len = iov[i].iov_len, put;

		if (t->out_n >= OUT_FLUSH)
			TRY(flush(t));
		if (len >= RECORD || i == n - 1) {
			/* Many records with one call; what is over a whole number of them shares the next one. */
			size_t most = (OUT_FLUSH - t->out_n + RECORD - 1) / RECORD * RECORD;

			if (i < n - 1)
				len -= len % RECORD;
			len = len < most ? len : most;
			iov[i].iov_base = (char *)iov[i].iov_base + len;
			iov[i].iov_len -= len;
			if (!iov[i].iov_len)
				i++;
		} else {
			if (!gather)
				gather = xmalloc(RECORD);
			len = 0;
			while (i < n && len < RECORD) {
				size_t k = iov[i].iov_len < RECORD - len ? iov[i].iov_len : RECORD - len;

				if (k)
					memcpy(gather + len, iov[i].iov_base, k);
				len += k;
				iov[i].iov_base = (char *)iov[i].iov_base + k;
				iov[i].iov_len -= k;
				if (!iov[i].iov_len)
					i++;
			}
			p = gather;
		}
		if (!len)
			continue;
		ERR_clear_error();
		if (SSL_write_ex(t->ssl, p, len, &put) != 1 || put != len) {
			t->broken = true;
			struct error *e = ssl_error("TLS write");

			e->sys = EPIPE;
			return e;
		}
	}
	return flush(t);
}

static struct error *tls_writev(struct stream *s, struct iovec *iov, int n)
{
	struct tls *t = (struct tls *)s;

	TRY(fiber_mutex_lock(&t->wlock));
	struct error *e = t->broken ? error_sys(EPIPE, "TLS connection is broken") : write_records(t, iov, n);

	fiber_mutex_unlock(&t->wlock);
	return e;
}

static struct error *tls_shutdown(struct stream *s)
{
	struct tls *t = (struct tls *)s;

	TRY(fiber_mutex_lock(&t->wlock));
	struct error *e = NULL;

	if (!t->broken && !(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN)) {
		ERR_clear_error();
		SSL_shutdown(t->ssl);
		ERR_clear_error();
		e = flush(t);
	}
	fiber_mutex_unlock(&t->wlock);
	return e;
}

static void tls_free(struct tls *t)
{
	SSL_free(t->ssl);
	out_put(t->out);
	free(t->stash);
	free(t->peer_error);
	arena_free(&t->arena);
	free(t);
}

static void tls_close(struct stream *s)
{
	struct tls *t = (struct tls *)s;
	int fd = stream_fd(t->raw);

	/* A good-bye if the socket takes it at once; the peer must cope without. */
	if (fd >= 0 && !t->broken && !(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN) && SSL_is_init_finished(t->ssl)) {
		ERR_clear_error();
		SSL_shutdown(t->ssl);
		if (t->out_n && send(fd, t->out, t->out_n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			ERR_clear_error();
	}
	ERR_clear_error();
	stream_close(t->raw);
	tls_free(t);
}

static const struct stream_ops tls_ops = {tls_read, tls_writev, tls_shutdown, tls_close};

bool stream_is_tls(const struct stream *s)
{
	return s->ops == &tls_ops;
}

static struct tls *as_tls(const struct stream *s)
{
	return stream_is_tls(s) ? (struct tls *)(uintptr_t)s : NULL;
}

const struct tls_peer *tls_stream_peer(struct stream *s)
{
	struct tls *t = as_tls(s);

	return t ? t->peer : NULL;
}

const char *tls_stream_peer_error(struct stream *s)
{
	struct tls *t = as_tls(s);

	return t ? t->peer_error : NULL;
}

struct stream *tls_stream_raw(struct stream *s)
{
	struct tls *t = as_tls(s);

	return t ? t->raw : s;
}

const char *tls_stream_alpn(struct stream *s)
{
	struct tls *t = as_tls(s);

	return t ? t->alpn : "";
}

/* ---- handshake ---- */

/* In errno's words: EKEYREJECTED, or which faults it has. */
static const int refused_as[] = {EKEYREJECTED, ENOKEY, EKEYREVOKED, EKEYEXPIRED};

struct error *tls_handshake(struct tls *t)
{
	size_t total = 0;

	for (;;) {
		ERR_clear_error();
		int r = SSL_do_handshake(t->ssl), err = r == 1 ? 0 : SSL_get_error(t->ssl, r);

		stash_rest(t);
		if (r == 1)
			return flush(t);
		if (err != SSL_ERROR_WANT_READ) {
			struct error *e;

			if (t->raw_eof)
				e = error_sys(ECONNRESET, "TLS handshake: connection closed");
			else if (SSL_get_verify_result(t->ssl) != X509_V_OK && !SSL_is_server(t->ssl)) {
				e = error_new("TLS handshake: certificate: %s",
					      X509_verify_cert_error_string(SSL_get_verify_result(t->ssl)));
				e->sys = refused_as[t->faults];
			} else
				e = ssl_error("TLS handshake");
			/* The alert tells the peer why. */
			error_free(flush(t));
			ERR_clear_error();
			return e;
		}
		TRY(flush(t));
		TRY(fill(t));
		total += t->in_n;
		if (total > HANDSHAKE_BYTES_MAX)
			return error_sys(EMSGSIZE, "TLS handshake");
	}
}

struct tls *tls_make(SSL_CTX *ctx, struct stream *raw)
{
	struct tls *t = xcalloc(1, sizeof *t);
	BIO *b;

	tls_init();
	t->s.ops = &tls_ops;
	t->raw = raw;
	t->ssl = SSL_new(ctx);
	b = BIO_new(method);
	if (!t->ssl || !b)
		die_oom();
	BIO_set_data(b, t);
	SSL_set_bio(t->ssl, b, b);
	SSL_set_ex_data(t->ssl, ssl_tls_index, t);
	return t;
}

struct error *tls_finish(struct tls *t, struct error *e, struct stream **out)
{
	const unsigned char *alpn;
	unsigned n;

	if (e) {
		stream_close(t->raw);
		tls_free(t);
		return e;
	}
	SSL_get0_alpn_selected(t->ssl, &alpn, &n);
	if (n && n < sizeof t->alpn)
		memcpy(t->alpn, alpn, n);
	*out = &t->s;
	return NULL;
}

void ctx_common(SSL_CTX *ctx)
{
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
}

/* ---- client ---- */

struct tls_client {
	char *ca_file, *cert_file, *key_file, *server_name;
	char *ca_pem, *cert_pem, *key_pem;
	size_t ca_n, cert_n, key_n;
	bool insecure, http2;
	SSL_CTX *ctx;
	struct file_id ids[3];
	int64_t checked_ms;
	unsigned generation;
};

static bool weak_hash(const X509 *cert)
{
	int hash = NID_undef;

	return X509_get_signature_info((X509 *)(uintptr_t)cert, &hash, NULL, NULL, NULL) && hash == NID_sha1;
}

static bool has_names(const X509 *cert)
{
	return X509_get_ext_by_NID(cert, NID_subject_alt_name, -1) >= 0;
}

/* OpenSSL's callback for what it has found of a server's certificate: changes nothing, and takes a note. */
static int look_at_server(int ok, X509_STORE_CTX *xc)
{
	struct tls *t = SSL_get_ex_data(X509_STORE_CTX_get_ex_data(xc, SSL_get_ex_data_X509_STORE_CTX_idx()), ssl_tls_index);
	X509 *leaf = X509_STORE_CTX_get0_cert(xc), *at = X509_STORE_CTX_get_current_cert(xc);
	const char *name = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);

	if (ok)
		return ok;
	switch (X509_STORE_CTX_get_error(xc)) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
		if (name && !has_names(leaf) && X509_check_host(leaf, name, 0, X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT, NULL) == 1)
			t->faults |= TLS_NO_NAMES;
		break;
	case X509_V_ERR_CA_MD_TOO_WEAK:
		if (at && weak_hash(at))
			t->faults |= TLS_WEAK_HASH;
	}
	return ok;
}

/* What was shown and not refused: nobody may have looked, and not everything is needed. */
static unsigned shown_faults(const struct tls *t)
{
	const STACK_OF(X509) *shown = SSL_get_peer_cert_chain(t->ssl);
	unsigned faults = sk_X509_num(shown) > 0 && !has_names(sk_X509_value(shown, 0)) ? TLS_NO_NAMES : 0;

	for (int i = 0; i < sk_X509_num(shown); i++) {
		const X509 *cert = sk_X509_value(shown, i);

		if (weak_hash(cert) && X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(cert)))
			faults |= TLS_WEAK_HASH;
	}
	return faults;
}

unsigned tls_faults(const struct error *e, bool *refused)
{
	for (unsigned i = 0; i < sizeof refused_as / sizeof *refused_as; i++)
		if (error_is_sys(e, refused_as[i])) {
			*refused = true;
			return i;
		}
	*refused = false;
	return 0;
}

unsigned tls_stream_faults(struct stream *s)
{
	struct tls *t = as_tls(s);

	return t ? t->faults : 0;
}

static struct error *fill_client(struct tls_client *c, SSL_CTX *ctx)
{
	if (c->insecure) {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	} else {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, look_at_server);
		if (c->ca_file || c->ca_n)
			TRY(load_ca(c->ca_file, str_of(c->ca_pem, c->ca_n), SSL_CTX_get_cert_store(ctx), NULL));
		else if (SSL_CTX_set_default_verify_paths(ctx) != 1)
			return ssl_error("system's CA certificates");
	}
	if (c->cert_file || c->cert_n)
		TRY(use_cert(ctx, c->cert_file, c->key_file, str_of(c->cert_pem, c->cert_n), str_of(c->key_pem, c->key_n)));
	return NULL;
}

static struct error *load_client(struct tls_client *c)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx)
		die_oom();
	ctx_common(ctx);
	struct error *e = fill_client(c, ctx);

	if (e) {
		SSL_CTX_free(ctx);
		return e;
	}
	SSL_CTX_free(c->ctx);
	c->ctx = ctx;
	return NULL;
}

static void client_ids(const struct tls_client *c, struct file_id ids[3])
{
	ids[0] = file_id(c->ca_file);
	ids[1] = file_id(c->cert_file);
	ids[2] = file_id(c->key_file);
}

static char *dup_pem(struct str s, size_t *n)
{
	*n = s.n;
	return s.n ? str_dupz(s) : NULL;
}

struct error *tls_client_new(const struct tls_client_opts *o, struct tls_client **out)
{
	struct tls_client *c = xcalloc(1, sizeof *c);

	*out = NULL;
	tls_init();
	c->ca_file = dup_or_null(o->ca_pem.n ? NULL : o->ca_file);
	c->cert_file = dup_or_null(o->cert_pem.n ? NULL : o->cert_file);
	c->key_file = dup_or_null(o->key_pem.n ? NULL : o->key_file);
	c->server_name = dup_or_null(o->server_name);
	c->ca_pem = dup_pem(o->ca_pem, &c->ca_n);
	c->cert_pem = dup_pem(o->cert_pem, &c->cert_n);
	c->key_pem = dup_pem(o->key_pem, &c->key_n);
	c->insecure = o->insecure_skip_verify;
	c->http2 = o->http2;
	client_ids(c, c->ids);
	struct error *e = load_client(c);

	if (e) {
		tls_client_free(c);
		return e;
	}
	c->checked_ms = now_ms();
	*out = c;
	return NULL;
}

void tls_client_free(struct tls_client *c)
{
	if (!c)
		return;
	SSL_CTX_free(c->ctx);
	free(c->ca_file);
	free(c->cert_file);
	free(c->key_file);
	free(c->server_name);
	free(c->ca_pem);
	free(c->cert_pem);
	if (c->key_pem)
		OPENSSL_cleanse(c->key_pem, c->key_n);
	free(c->key_pem);
	free(c);
}

static void reload_client(struct tls_client *c)
{
	struct file_id ids[3];

	if (now_ms() - c->checked_ms < CHECK_FILES_MS)
		return;
	c->checked_ms = now_ms();
	client_ids(c, ids);
	if (same_file(ids[0], c->ids[0]) && same_file(ids[1], c->ids[1]) && same_file(ids[2], c->ids[2]))
		return;
	struct error *e = load_client(c);

	if (e) {
		log_and_free(e, "reload client certificates");
	} else {
		memcpy(c->ids, ids, sizeof ids);
		c->generation++;
	}
}

unsigned tls_client_generation(struct tls_client *c)
{
	reload_client(c);
	return c->generation;
}

bool tls_client_http2(const struct tls_client *c)
{
	return c->http2;
}

struct error *tls_connect(struct tls_client *c, struct stream *raw, const char *host, bool http2, struct stream **out)
{
	static const unsigned char protos[] = "\x02h2\x08http/1.1";
	unsigned skip = c->http2 && http2 ? 0 : 3;
	const char *name = c->server_name ? c->server_name : host;
	unsigned char ip[16];

	*out = NULL;
	reload_client(c);
	struct tls *t = tls_make(c->ctx, raw);
	X509_VERIFY_PARAM *vp = SSL_get0_param(t->ssl);
	bool is_ip = inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
	struct error *e = NULL;

	X509_VERIFY_PARAM_set_hostflags(vp, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if ((is_ip ? X509_VERIFY_PARAM_set1_ip_asc(vp, name) : X509_VERIFY_PARAM_set1_host(vp, name, 0)) != 1 ||
	    (!is_ip && SSL_set_tlsext_host_name(t->ssl, name) != 1))
		e = ssl_error("TLS server name");
	SSL_set_connect_state(t->ssl);
	if (SSL_set_alpn_protos(t->ssl, protos + skip, sizeof protos - 1 - skip) != 0)
		die_oom();
	if (!e)
		e = error_wrap(tls_handshake(t), "%s", host);
	if (!e)
		t->faults = shown_faults(t);
	return tls_finish(t, e, out);
}
