/* The accepting side: certificates by name, clients verified, files followed. */
#include "net/tls_internal.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <sys/socket.h>

#include "base/log.h"

struct ctx_files { /* one generation of a server's certificates; connections hold it while they shake hands */
	unsigned refs;
	SSL_CTX *ctx;
	X509_STORE *client_ca, *requestheader_ca;
	bool require, http2;
	const struct tls_server *of;
	SSL_CTX **sni; /* holders of the other certificates */
	size_t n_sni;
};

struct tls_server {
	char *cert_file, *key_file, *client_ca_file, *requestheader_ca_file;
	bool require_client_cert, http2;
	int min_version;
	bool ciphers_set;
	char *ciphers, *groups; /* as OpenSSL writes them, or NULL */
	struct tls_sni *sni;
	size_t n_sni;
	struct ctx_files *cur;
	struct file_id *ids, *ids_now; /* of all files */
	int64_t checked_ms;
};

static void files_unref(struct ctx_files *f)
{
	if (!f || --f->refs)
		return;
	SSL_CTX_free(f->ctx);
	for (size_t i = 0; i < f->n_sni; i++)
		SSL_CTX_free(f->sni[i]);
	free(f->sni);
	X509_STORE_free(f->client_ca);
	X509_STORE_free(f->requestheader_ca);
	free(f);
}

static struct str name_text(struct arena *a, const X509_NAME_ENTRY *ne)
{
	unsigned char *utf8 = NULL;
	int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(ne));
	struct str s = n > 0 ? arena_str(a, str_of((char *)utf8, (size_t)n)) : STR_NULL;

	OPENSSL_free(utf8);
	return s;
}

static struct tls_peer *read_peer(struct arena *a, X509 *cert)
{
	struct tls_peer *p = arena_new(a, struct tls_peer);
	X509_NAME *subject = X509_get_subject_name(cert);
	int n = X509_NAME_entry_count(subject);
	unsigned char md[SHA256_DIGEST_LENGTH];
	unsigned mdn = 0;
	char oid[64];

	p->organizations = arena_array(a, struct str, (size_t)n);
	for (int i = 0; i < n; i++) {
		X509_NAME_ENTRY *ne = X509_NAME_get_entry(subject, i);
		ASN1_OBJECT *o = X509_NAME_ENTRY_get_object(ne);

		/* Of several common names the last counts, as in Go. */
		if (OBJ_obj2nid(o) == NID_commonName)
			p->common_name = name_text(a, ne);
		else if (OBJ_obj2nid(o) == NID_organizationName)
			p->organizations[p->n_organizations++] = name_text(a, ne);
		else if (OBJ_obj2txt(oid, sizeof oid, o, 1) > 0 && strcmp(oid, "1.3.6.1.4.1.57683.2") == 0) {
			p->uid = name_text(a, ne);
			p->n_uids++;
		}
	}
	if (X509_digest(cert, EVP_sha256(), md, &mdn) == 1) {
		char hex[2 * SHA256_DIGEST_LENGTH + 1];

		for (unsigned i = 0; i < mdn; i++) {
			hex[2 * i] = "0123456789abcdef"[md[i] >> 4];
			hex[2 * i + 1] = "0123456789abcdef"[md[i] & 15];
		}
		p->credential_id = arena_printf(a, "X509SHA256=%.*s", (int)(2 * mdn), hex);
	}
	struct tm tm;

	if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1)
		p->not_after = timegm(&tm);
	return p;
}

static bool verified_by(X509_STORE *store, X509 *cert, STACK_OF(X509) * chain, const char **why)
{
	X509_STORE_CTX *c = store ? X509_STORE_CTX_new() : NULL;
	bool ok = false;

	if (!c)
		return false;
	if (X509_STORE_CTX_init(c, store, cert, chain) == 1) {
		X509_STORE_CTX_set_default(c, "ssl_client");
		ok = X509_verify_cert(c) == 1;
		if (!ok)
			*why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(c));
	}
	X509_STORE_CTX_free(c);
	return ok;
}

/*
 * Verifies against each CA by itself: a front proxy's certificate must not make
 * a user. A bad certificate is told to the handler, who may have other credentials to look at.
 */
static int verify_client(X509_STORE_CTX *xc, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(xc, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls *t = SSL_get_ex_data(ssl, ssl_tls_index);
	const struct ctx_files *f = t->files;
	X509 *cert = X509_STORE_CTX_get0_cert(xc);
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(xc);
	const char *why = "no CA to verify it";
	bool front = verified_by(f->requestheader_ca, cert, chain, &why);
	bool client = verified_by(f->client_ca, cert, chain, &why);

	X509_STORE_CTX_set_error(xc, X509_V_OK);
	if (client || front) {
		t->peer = read_peer(&t->arena, cert);
		t->peer->by_client_ca = client;
		t->peer->by_requestheader_ca = front;
		return 1;
	}
	free(t->peer_error);
	t->peer_error = xstrdup(why);
	if (!f->require)
		return 1;
	X509_STORE_CTX_set_error(xc, X509_V_ERR_CERT_REJECTED);
	return 0;
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned n,
		       void *arg)
{
	static const unsigned char ours[] = "\x02h2\x08http/1.1";
	struct ctx_files *f = arg;
	unsigned skip = f->http2 ? 0 : 3;

	/* Cast: the API gives a pointer into one of the two lists, which stays. */
	return SSL_select_next_proto((unsigned char **)(uintptr_t)out, outlen, ours + skip, sizeof ours - 1 - skip, in,
				     n) == OPENSSL_NPN_NEGOTIATED
		       ? SSL_TLSEXT_ERR_OK
		       : SSL_TLSEXT_ERR_NOACK;
}

/* ---- certificates by name ---- */

enum names { EXACT, WILD };

/* "*.b.c" for "a.b.c". */
static bool wild_equal(struct str pattern, struct str name)
{
	ptrdiff_t dot = str_index(name, '.');

	return dot > 0 && pattern.n > 2 && pattern.p[0] == '*' &&
	       str_eq_nocase(str_sub(pattern, 1, pattern.n), str_sub(name, (size_t)dot, name.n));
}

static bool has_name(const struct tls_sni *n, X509 *cert, const char *name, enum names kind)
{
	unsigned flags = X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;

	if (n->names) {
		for (struct str rest = str_from(n->names); rest.p;) {
			struct str p = str_trim(str_cut(&rest, ','));

			if (kind == EXACT ? str_eq_nocase(p, str_from(name)) : wild_equal(p, str_from(name)))
				return true;
		}
		return false;
	}
	if (kind == EXACT && X509_check_ip_asc(cert, name, 0) == 1)
		return true;
	return X509_check_host(cert, name, 0, flags | (kind == EXACT ? X509_CHECK_FLAG_NO_WILDCARDS : 0), NULL) == 1;
}

/* Names that were given go before those of certificates, written ones before patterns. */
static SSL_CTX *by_name(const struct ctx_files *f, const char *name)
{
	for (int kind = EXACT; kind <= WILD; kind++)
		for (int given = 1; given >= 0; given--)
			for (size_t i = 0; i < f->n_sni; i++) {
				const struct tls_sni *n = &f->of->sni[i];

				if ((n->names != NULL) == given &&
				    has_name(n, SSL_CTX_get0_certificate(f->sni[i]), name, (enum names)kind))
					return f->sni[i];
			}
	return NULL;
}

/* A name nobody was given for: the first certificate that it fits, as Go's; NULL: the server's own. */
static SSL_CTX *by_fit(const struct ctx_files *f, const char *name)
{
	if (X509_check_host(SSL_CTX_get0_certificate(f->ctx), name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1)
		return NULL;
	for (size_t i = 0; i < f->n_sni; i++)
		if (X509_check_host(SSL_CTX_get0_certificate(f->sni[i]), name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
				    NULL) == 1)
			return f->sni[i];
	return NULL;
}

/* Who names no server has come to an address. */
static bool local_address(struct tls *t, char out[INET6_ADDRSTRLEN])
{
	struct sockaddr_storage a = {0};
	socklen_t n = sizeof a;
	const void *ip;

	if (getsockname(stream_fd(t->raw), (struct sockaddr *)&a, &n) < 0 ||
	    (a.ss_family != AF_INET && a.ss_family != AF_INET6))
		return false;
	ip = a.ss_family == AF_INET ? (const void *)&((struct sockaddr_in *)(void *)&a)->sin_addr
				    : (const void *)&((struct sockaddr_in6 *)(void *)&a)->sin6_addr;
	return inet_ntop(a.ss_family, ip, out, INET6_ADDRSTRLEN) != NULL;
}

static int choose_cert(SSL *ssl, void *arg)
{
	struct tls *t = SSL_get_ex_data(ssl, ssl_tls_index);
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	char ip[INET6_ADDRSTRLEN];
	STACK_OF(X509) *chain = NULL;
	SSL_CTX *from = NULL;

	if (name && *name) {
		from = by_name(t->files, name);
		if (!from)
			from = by_fit(t->files, name);
	} else if (local_address(t, ip)) {
		from = by_name(t->files, ip);
	}
	if (!from)
		return 1;
	SSL_CTX_get0_chain_certs(from, &chain);
	SSL_certs_clear(ssl); /* there is one place a type of key: the server's own would stay beside this one */
	return SSL_use_cert_and_key(ssl, SSL_CTX_get0_certificate(from), SSL_CTX_get0_privatekey(from), chain, 1);
}

/* ---- versions, suites, groups ---- */

/* Go's names and order (crypto/tls cipherSuitesPreferenceOrder); those behind the line are not used unless named. */
static const char *const suites[] = {
	"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
	"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
	"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
	"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
	"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
	"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
	"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
	"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
	"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
#define N_SUITES_DEFAULT 10
	"TLS_RSA_WITH_AES_128_GCM_SHA256",
	"TLS_RSA_WITH_AES_256_GCM_SHA384",
	"TLS_RSA_WITH_AES_128_CBC_SHA",
	"TLS_RSA_WITH_AES_256_CBC_SHA",
	"TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
	"TLS_RSA_WITH_3DES_EDE_CBC_SHA",
	"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
	"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
	"TLS_RSA_WITH_AES_128_CBC_SHA256",
	"TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
	"TLS_ECDHE_RSA_WITH_RC4_128_SHA",
	"TLS_RSA_WITH_RC4_128_SHA",
};
#define N_SUITES (sizeof suites / sizeof *suites)
static const char of_13[] =
	"TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384,TLS_CHACHA20_POLY1305_SHA256"; /* always all */

static bool in_list(const char *list, struct str name)
{
	for (struct str rest = str_from(list); rest.p;)
		if (str_eq(str_trim(str_cut(&rest, ',')), name))
			return true;
	return false;
}

static int suite_index(struct str name)
{
	/* Upstream's names of old for these two. */
	if (str_eqz(name, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305") ||
	    str_eqz(name, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"))
		return str_eqz(name, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305") ? 4 : 5;
	for (size_t i = 0; i < N_SUITES; i++)
		if (str_eqz(name, suites[i]))
			return (int)i;
	return -1;
}

static struct error *read_suites(struct tls_server *s, const char *list)
{
	bool on[N_SUITES] = {0};
	struct buf b buf_cleanup = {0};

	s->ciphers_set = list && *list;
	if (!list)
		return NULL;
	for (size_t i = 0; !*list && i < N_SUITES_DEFAULT; i++)
		on[i] = true;
	for (struct str rest = str_from(list); *list && rest.p;) {
		struct str name = str_trim(str_cut(&rest, ','));
		int i = suite_index(name);

		if (i >= 0)
			on[i] = true;
		else if (!in_list(of_13, name))
			return error_new("Cipher suite %.*s not supported or doesn't exist", STR_ARG(name));
	}
	if (s->http2 && s->min_version < TLS1_3_VERSION && !on[0] && !on[1])
		return error_new("HTTP/2 needs one of the cipher suites %s, %s (or --disable-http2-serving)", suites[1],
				 suites[0]);
	for (size_t i = 0; i < N_SUITES; i++) {
		const char *name = on[i] ? OPENSSL_cipher_name(suites[i]) : NULL;

		if (name && *name != '(')
			buf_printf(&b, "%s%s", b.n ? ":" : "", name);
		else if (on[i])
			log_warn("cipher suite %s is none of this machine's OpenSSL", suites[i]);
	}
	s->ciphers = xstrdup(buf_z(&b));
	return NULL;
}

static struct error *read_version(struct tls_server *s, const char *name)
{
	static const struct {
		const char *name;
		int version;
	} versions[] = {{"VersionTLS10", TLS1_VERSION},
			{"VersionTLS11", TLS1_1_VERSION},
			{"VersionTLS12", TLS1_2_VERSION},
			{"VersionTLS13", TLS1_3_VERSION}};

	s->min_version = TLS1_2_VERSION;
	if (!name || !*name)
		return NULL;
	for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
		if (!strcmp(name, versions[i].name)) {
			s->min_version = versions[i].version;
			return NULL;
		}
	return error_new("unknown tls version \"%s\"", name);
}

/* Those that Go knows, in its order; the ones without a name are none of OpenSSL 3.0's. */
static const struct {
	int64_t id;
	const char *name;
} groups[] = {{4588, NULL}, {4587, NULL}, {4589, NULL}, {29, "X25519"}, {23, "P-256"}, {24, "P-384"}, {25, "P-521"}};
#define N_GROUPS (sizeof groups / sizeof *groups)

static struct error *read_groups(struct tls_server *s, const char *list)
{
	bool on[N_GROUPS] = {0};
	struct buf b buf_cleanup = {0};

	if (!list || !*list)
		return NULL;
	for (struct str rest = str_from(list); rest.p;) {
		struct str text = str_trim(str_cut(&rest, ','));
		size_t i = 0;
		int64_t id;

		if (!str_to_i64(text, &id))
			return error_new("curve preference \"%.*s\" is no number", STR_ARG(text));
		if (id <= 0 || id > UINT16_MAX)
			return error_new("curve preference %lld is out of range (must be 1-65535)", (long long)id);
		while (i < N_GROUPS && groups[i].id != id)
			i++;
		if (i == N_GROUPS)
			return error_new("curve preference %lld is not supported", (long long)id);
		if (on[i])
			return error_new("duplicate curve preference %lld", (long long)id);
		on[i] = true;
	}
	for (size_t i = 0; i < N_GROUPS; i++) {
		if (on[i] && groups[i].name)
			buf_printf(&b, "%s%s", b.n ? ":" : "", groups[i].name);
		else if (on[i])
			log_warn("curve preference %lld is none of this machine's OpenSSL", (long long)groups[i].id);
	}
	if (!b.n)
		return error_new("none of the curve preferences %s is built here", list);
	s->groups = xstrdup(buf_z(&b));
	return NULL;
}

static struct error *use_limits(const struct tls_server *s, SSL_CTX *ctx)
{
	int min = s->min_version;

	/* Suites of TLS 1.3 alone leave nothing for the version before. */
	if (s->ciphers && !*s->ciphers)
		min = TLS1_3_VERSION;
	SSL_CTX_set_min_proto_version(ctx, min);
	/* What came before TLS 1.2 is signed with SHA-1, which OpenSSL does not take otherwise; and suites of old were
	 * asked for by name. */
	if (min < TLS1_2_VERSION || s->ciphers_set)
		SSL_CTX_set_security_level(ctx, min < TLS1_2_VERSION ? 0 : 1);
	if (s->ciphers && *s->ciphers && SSL_CTX_set_cipher_list(ctx, s->ciphers) != 1)
		return ssl_error("cipher suites");
	return !s->groups || SSL_CTX_set1_groups_list(ctx, s->groups) == 1 ? NULL : ssl_error("curve preferences");
}

static struct error *fill_sni(struct tls_server *s, struct ctx_files *f)
{
	for (size_t i = 0; i < s->n_sni; i++) {
		f->sni[i] = SSL_CTX_new(TLS_server_method());
		if (!f->sni[i])
			die_oom();
		TRY(error_wrap(use_cert(f->sni[i], s->sni[i].cert_file, s->sni[i].key_file, STR_NULL, STR_NULL),
			       "certificate by name"));
	}
	if (s->n_sni)
		SSL_CTX_set_cert_cb(f->ctx, choose_cert, NULL);
	return NULL;
}

static struct error *fill_server(struct tls_server *s, struct ctx_files *f)
{
	STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
	struct error *e = use_limits(s, f->ctx);

	if (!names)
		die_oom();
	if (!e)
		e = use_cert(f->ctx, s->cert_file, s->key_file, STR_NULL, STR_NULL);
	if (!e)
		e = fill_sni(s, f);
	if (!e && s->client_ca_file) {
		f->client_ca = X509_STORE_new();
		e = load_ca(s->client_ca_file, STR_NULL, f->client_ca, names);
	}
	if (!e && s->requestheader_ca_file) {
		f->requestheader_ca = X509_STORE_new();
		e = load_ca(s->requestheader_ca_file, STR_NULL, f->requestheader_ca, names);
	}
	if (e) {
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		return e;
	}
	SSL_CTX_set_client_CA_list(f->ctx, names);
	if (s->client_ca_file || s->requestheader_ca_file) {
		SSL_CTX_set_verify(
			f->ctx, SSL_VERIFY_PEER | (s->require_client_cert ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
		SSL_CTX_set_cert_verify_callback(f->ctx, verify_client, NULL);
	}
	/* Go's order: AES-128 first, which takes a third less time than what OpenSSL's clients ask for; ChaCha20 for
	 * who has no AES. */
	SSL_CTX_set_options(f->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	if (SSL_CTX_set_ciphersuites(f->ctx,
				     "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1)
		die_oom();
	/* A resumed session would carry an identity past its certificate's end. */
	SSL_CTX_set_options(f->ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(f->ctx, 0);
	SSL_CTX_set_alpn_select_cb(f->ctx, choose_alpn, f);
	return NULL;
}

static struct error *load_server(struct tls_server *s)
{
	struct ctx_files *f = xcalloc(1, sizeof *f);

	tls_init();
	f->refs = 1;
	f->require = s->require_client_cert;
	f->http2 = s->http2;
	f->of = s;
	f->n_sni = s->n_sni;
	f->sni = xcalloc(s->n_sni + 1, sizeof(SSL_CTX *));
	f->ctx = SSL_CTX_new(TLS_server_method());
	if (!f->ctx)
		die_oom();
	ctx_common(f->ctx);
	struct error *e = fill_server(s, f);

	if (e) {
		files_unref(f);
		return e;
	}
	files_unref(s->cur);
	s->cur = f;
	return NULL;
}

#define N_FILES(s) (4 + 2 * (s)->n_sni)

static void server_ids(const struct tls_server *s, struct file_id *ids)
{
	ids[0] = file_id(s->cert_file);
	ids[1] = file_id(s->key_file);
	ids[2] = file_id(s->client_ca_file);
	ids[3] = file_id(s->requestheader_ca_file);
	for (size_t i = 0; i < s->n_sni; i++) {
		ids[4 + 2 * i] = file_id(s->sni[i].cert_file);
		ids[5 + 2 * i] = file_id(s->sni[i].key_file);
	}
}

static void reload_server(struct tls_server *s)
{
	bool same = true;

	if (now_ms() - s->checked_ms < CHECK_FILES_MS)
		return;
	s->checked_ms = now_ms();
	server_ids(s, s->ids_now);
	for (size_t i = 0; i < N_FILES(s); i++)
		same = same && same_file(s->ids_now[i], s->ids[i]);
	if (same)
		return;
	struct error *e = load_server(s);

	/* Half-written files: the old ones go on, and we look again in a second. */
	if (e)
		log_and_free(e, "reload certificates");
	else
		memcpy(s->ids, s->ids_now, N_FILES(s) * sizeof *s->ids);
}

struct error *tls_server_new(const struct tls_server_opts *o, struct tls_server **out)
{
	struct tls_server *s = xcalloc(1, sizeof *s);

	*out = NULL;
	s->cert_file = dup_or_null(o->cert_file);
	s->key_file = dup_or_null(o->key_file);
	s->client_ca_file = dup_or_null(o->client_ca_file);
	s->requestheader_ca_file = dup_or_null(o->requestheader_ca_file);
	s->require_client_cert = o->require_client_cert;
	s->http2 = o->http2;
	s->n_sni = o->n_sni;
	s->sni = xcalloc(s->n_sni + 1, sizeof *s->sni);
	for (size_t i = 0; i < s->n_sni; i++)
		s->sni[i] = (struct tls_sni){xstrdup(o->sni[i].cert_file), xstrdup(o->sni[i].key_file),
					     dup_or_null(o->sni[i].names)};
	s->ids = xcalloc(N_FILES(s), sizeof *s->ids);
	s->ids_now = xcalloc(N_FILES(s), sizeof *s->ids);
	server_ids(s, s->ids);
	struct error *e = read_version(s, o->min_version);

	if (!e)
		e = read_suites(s, o->cipher_suites);
	if (!e)
		e = read_groups(s, o->curves);
	if (!e)
		e = load_server(s);

	if (e) {
		tls_server_free(s);
		return e;
	}
	s->checked_ms = now_ms();
	*out = s;
	return NULL;
}

void tls_server_free(struct tls_server *s)
{
	if (!s)
		return;
	files_unref(s->cur);
	free(s->cert_file);
	free(s->key_file);
	free(s->client_ca_file);
	free(s->requestheader_ca_file);
	free(s->ciphers);
	free(s->groups);
	for (size_t i = 0; i < s->n_sni; i++) {
		free((char *)s->sni[i].cert_file);
		free((char *)s->sni[i].key_file);
		free((char *)s->sni[i].names);
	}
	free(s->sni);
	free(s->ids);
	free(s->ids_now);
	free(s);
}

struct error *tls_accept(struct tls_server *s, struct stream *raw, struct stream **out)
{
	*out = NULL;
	reload_server(s);
	struct ctx_files *f = s->cur;
	struct tls *t = tls_make(f->ctx, raw);

	f->refs++;
	t->files = f;
	SSL_set_accept_state(t->ssl);
	struct error *e = tls_handshake(t);

	t->files = NULL;
	files_unref(f);
	return tls_finish(t, e, out);
}
