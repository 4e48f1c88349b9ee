/*
 * net/tls.h: TLS 1.2+ (OpenSSL 3) over loop/ streams, and the X.509 questions
 * the rest asks. Keys never leave this room but as PEM files (cmd/'s PKI uses OpenSSL itself).
 */
#ifndef SKIFF_NET_TLS_H
#define SKIFF_NET_TLS_H

#include "loop/io.h"

struct tls_peer { /* a verified client certificate, as Kubernetes' x509 authenticator reads it */
	struct str common_name;          /* user */
	struct str *organizations;       /* groups */
	size_t n_organizations;
	struct str uid;                  /* OID 1.3.6.1.4.1.57683.2, may be empty */
	size_t n_uids;                   /* how many there are: upstream takes one that is not empty, or none */
	struct str credential_id;        /* "X509SHA256=<hex>" */
	int64_t not_after;               /* seconds since 1970 */
	bool by_client_ca;               /* verified by client_ca_file: may be a user */
	bool by_requestheader_ca;        /* verified by requestheader_ca_file: may only be a front proxy */
};

struct tls_sni {                          /* another certificate, for clients that ask for one of its names */
	const char *cert_file, *key_file; /* PEM; reloaded when they change */
	const char *names; /* between commas, possibly "*.DOMAIN" or an address; NULL: those in the certificate */
};

struct tls_server_opts {
	const char *cert_file, *key_file; /* PEM, chain in cert_file; reloaded when the files change */
	const char *client_ca_file;       /* NULL: client certificates are not asked for */
	const char *requestheader_ca_file;/* second CA accepted for front-proxy certificates, or NULL */
	bool require_client_cert;         /* else a missing or unverified one only leaves the peer NULL */
	bool http2;                       /* offer h2 in ALPN */
	const char *min_version;          /* "VersionTLS10" to "VersionTLS13", Go's names; NULL: 1.2 */
	const char *cipher_suites; /* of TLS 1.2, IANA's names between commas; their order is Go's. NULL: OpenSSL's, "":
				      Go's */
	const char *curves;        /* numbers of TLS's named groups between commas; NULL: OpenSSL's */
	const struct tls_sni *sni; /* the first that has a name counts; names written out before those with "*" */
	size_t n_sni;
};
struct tls_server;
/* Everything is copied. An error for what is no version, suite or group, and for what HTTP/2 cannot be had with. */
struct error *tls_server_new(const struct tls_server_opts *o, struct tls_server **out);
void tls_server_free(struct tls_server *s);

/* Why the certificates of servers may be refused although somebody thinks them good. */
enum {
	TLS_NO_NAMES = 1,  /* their name is in the common name alone, which counts no more */
	TLS_WEAK_HASH = 2, /* a signature by SHA-1 */
};
struct tls_client_opts {
	const char *ca_file;              /* NULL: the system's */
	struct str ca_pem;                /* instead of ca_file */
	const char *cert_file, *key_file; /* client certificate, or NULL; reloaded when changed */
	struct str cert_pem, key_pem;     /* instead of the files */
	const char *server_name;          /* verified against instead of the host, or NULL */
	bool insecure_skip_verify;
	bool http2;                       /* offers h2 in ALPN, before http/1.1 */
};
struct tls_client;
struct error *tls_client_new(const struct tls_client_opts *o, struct tls_client **out);
void tls_client_free(struct tls_client *c);
/* Another number when its files have been read again since: connections from before show the old certificate. */
unsigned tls_client_generation(struct tls_client *c);
/* It offers HTTP/2. */
bool tls_client_http2(const struct tls_client *c);

/* Handshakes; for an error for a certificate that does not verify see tls_faults. On success `raw` belongs to *out, on failure it is closed. */
struct error *tls_accept(struct tls_server *s, struct stream *raw, struct stream **out);
/* Offers h2 if both `http2` and c want it. */
struct error *tls_connect(struct tls_client *c, struct stream *raw, const char *host, bool http2, struct stream **out);
/* The verified peer of a tls_accept stream, or NULL. Lives as long as the stream. */
const struct tls_peer *tls_stream_peer(struct stream *s);
/* Why the certificate the client showed was not accepted, or NULL (accepted, or none shown). */
const char *tls_stream_peer_error(struct stream *s);
/* TLS_NO_NAMES and TLS_WEAK_HASH of the server's certificates, as they are or (e) as tls_connect refused them; *refused: it did. */
unsigned tls_stream_faults(struct stream *s);
unsigned tls_faults(const struct error *e, bool *refused);
/* The stream below, for stream_fd and stream_on_hangup. */
struct stream *tls_stream_raw(struct stream *s);
bool stream_is_tls(const struct stream *s);
/* "h2", "http/1.1" or "". */
const char *tls_stream_alpn(struct stream *s);

#endif
