/* Pulls from registries: the OCI distribution API v2 over libcurl, on a thread of its own. */
#include "runtime/image_internal.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "schema/codec.h"

#define ATTEMPTS 4              /* of one blob, each resuming where the last one stopped */
#define LOW_SPEED_SECONDS 60L   /* a transfer slower than 1 KiB/s for so long is given up */
#define CONNECT_SECONDS 30L
#define MAX_REDIRECTS 5L

/* libcurl is opened at the first pull, as libarchive: idle processes don't pay for it. */
#define CURL_FNS(X)                                                                                                                \
	X(curl_global_init) X(curl_easy_init) X(curl_easy_cleanup) X(curl_easy_perform) X(curl_easy_strerror) X(curl_easy_reset)   \
	X(curl_slist_append) X(curl_slist_free_all)
#undef curl_easy_setopt
#undef curl_easy_getinfo
struct curl_api {
#define X(f) __typeof__(&f) f;
	CURL_FNS(X)
#undef X
	CURLcode (*setopt)(CURL *c, CURLoption o, ...);
	CURLcode (*getinfo)(CURL *c, CURLINFO i, ...);
};

static struct error *curl_api(const struct curl_api **out)
{
	static struct curl_api api;
	static bool ready;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct error *e = NULL;
	pthread_mutex_lock(&lock);
	if (!ready) {
		void *so = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
		if (!so)
			so = dlopen("libcurl-gnutls.so.4", RTLD_NOW | RTLD_LOCAL);
		if (!so)
			e = error_new("libcurl is missing (Debian: apt-get install libcurl4): %s", dlerror());
#define X(f)                                                                                                                       \
	if (!e && !(api.f = (__typeof__(api.f))dlsym(so, #f)))                                                                     \
		e = error_new("libcurl has no " #f);
		CURL_FNS(X)
#undef X
		if (!e && (!(api.setopt = (__typeof__(api.setopt))dlsym(so, "curl_easy_setopt")) ||
			   !(api.getinfo = (__typeof__(api.getinfo))dlsym(so, "curl_easy_getinfo"))))
			e = error_new("libcurl has no curl_easy_setopt");
		if (!e && api.curl_global_init(CURL_GLOBAL_DEFAULT))
			e = error_new("libcurl can't be started");
		ready = !e;
	}
	pthread_mutex_unlock(&lock);
	*out = &api;
	return e;
}

struct pull {
	struct image_store *s;
	struct arena *a;
	const struct curl_api *api;
	CURL *curl;
	struct image_ref ref;
	struct str base;    /* "https://registry-1.docker.io/v2/library/busybox" */
	struct str bearer;  /* "Authorization: ..." header or empty */
	struct str user, pass;
	const struct image_pull *p;
	/* of the request under way */
	struct buf *body;   /* small answers */
	int fd;             /* or a file */
	uint64_t max, got, base_off, total;
	struct str challenge;
	const char *what;
	bool too_big;
};

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct pull *u = arg;
	n *= size;
	if (u->got + n > u->max) {
		u->too_big = true;
		return 0;
	}
	u->got += n;
	if (u->body) {
		buf_append(u->body, p, n);
	} else {
		struct error *e = sys_write_all(u->fd, p, n);
		if (e) {
			log_and_free(e, "store a blob");
			return 0;
		}
	}
	return n;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct pull *u = arg;
	static const char name[] = "www-authenticate:";
	n *= size;
	struct str h = str_of(p, n);
	/* Bearer is preferred where a registry offers several schemes. */
	if (n > sizeof(name) && str_eq_nocase(str_sub(h, 0, sizeof(name) - 1), STR("www-authenticate:"))) {
		struct str v = str_trim(str_sub(h, sizeof(name) - 1, n));
		if (!u->challenge.n || str_eq_nocase(str_sub(v, 0, 6), STR("bearer")))
			u->challenge = arena_str(u->a, v);
	}
	return n;
}

static int on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t ut, curl_off_t un)
{
	struct pull *u = arg;
	if (u->p->progress && u->what)
		u->p->progress(u->p->ctx, u->what, u->base_off + (uint64_t)now, u->total);
	return u->p->cancel && atomic_load(u->p->cancel);
}

/* One request; *status is the HTTP status. Network errors are errors. */
static struct error *request(struct pull *u, const char *url, struct str auth, const char *accept, uint64_t from, const char *post,
			     struct str userpwd, long *status)
{
	const struct curl_api *c = u->api;
	char range[32], err[CURL_ERROR_SIZE] = "";
	struct curl_slist *headers = NULL;
	u->got = 0;
	u->too_big = false;
	u->challenge = STR_NULL;
	c->curl_easy_reset(u->curl);
	c->setopt(u->curl, CURLOPT_URL, url);
	c->setopt(u->curl, CURLOPT_ERRORBUFFER, err);
	c->setopt(u->curl, CURLOPT_NOSIGNAL, 1L);
	c->setopt(u->curl, CURLOPT_USERAGENT, "skiff");
	c->setopt(u->curl, CURLOPT_FOLLOWLOCATION, 1L);
	c->setopt(u->curl, CURLOPT_MAXREDIRS, MAX_REDIRECTS);
	c->setopt(u->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	c->setopt(u->curl, CURLOPT_REDIR_PROTOCOLS_STR, str_has_prefix(str_from(url), STR("https")) ? "https" : "http,https");
	c->setopt(u->curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	c->setopt(u->curl, CURLOPT_LOW_SPEED_LIMIT, 1024L);
	c->setopt(u->curl, CURLOPT_LOW_SPEED_TIME, LOW_SPEED_SECONDS);
	c->setopt(u->curl, CURLOPT_WRITEFUNCTION, on_body);
	c->setopt(u->curl, CURLOPT_WRITEDATA, u);
	c->setopt(u->curl, CURLOPT_HEADERFUNCTION, on_header);
	c->setopt(u->curl, CURLOPT_HEADERDATA, u);
	c->setopt(u->curl, CURLOPT_NOPROGRESS, 0L);
	c->setopt(u->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
	c->setopt(u->curl, CURLOPT_XFERINFODATA, u);
	if (auth.n)
		headers = c->curl_slist_append(headers, arena_strz(u->a, auth));
	if (accept)
		headers = c->curl_slist_append(headers, accept);
	c->setopt(u->curl, CURLOPT_HTTPHEADER, headers);
	if (userpwd.n)
		c->setopt(u->curl, CURLOPT_USERPWD, arena_strz(u->a, userpwd));
	if (post)
		c->setopt(u->curl, CURLOPT_POSTFIELDS, post);
	if (from) {
		snprintf(range, sizeof(range), "%llu-", (unsigned long long)from);
		c->setopt(u->curl, CURLOPT_RANGE, range);
	}
	CURLcode r = c->curl_easy_perform(u->curl);
	c->curl_slist_free_all(headers);
	*status = 0;
	c->getinfo(u->curl, CURLINFO_RESPONSE_CODE, status);
	if (r == CURLE_OK)
		return NULL;
	if (u->too_big)
		return error_status(413, "RequestEntityTooLarge", "%s: the answer is larger than %llu bytes", url,
				    (unsigned long long)u->max);
	if (r == CURLE_ABORTED_BY_CALLBACK)
		return error_sys(ECANCELED, "%s", url);
	return error_new("%s: %s", url, err[0] ? err : c->curl_easy_strerror(r));
}

/* key="value" among a challenge's parameters. */
static struct str param(struct str challenge, const char *key)
{
	struct str k = str_from(key);
	for (size_t i = 0; i + k.n + 1 < challenge.n; i++) {
		if (!str_eq_nocase(str_sub(challenge, i, i + k.n), k) || challenge.p[i + k.n] != '=' ||
		    (i && challenge.p[i - 1] != ' ' && challenge.p[i - 1] != ','))
			continue;
		struct str v = str_sub(challenge, i + k.n + 1, challenge.n);
		if (v.n && v.p[0] == '"') {
			v = str_sub(v, 1, v.n);
			return str_cut(&v, '"');
		}
		return str_cut(&v, ',');
	}
	return STR_NULL;
}

static void escape(struct buf *b, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c))
			buf_putc(b, (char)c);
		else
			buf_printf(b, "%%%02X", c);
	}
}

/* Answers a 401: a bearer token from the realm named in the challenge, or Basic. */
static struct error *authenticate(struct pull *u, struct str challenge)
{
	struct str userpwd = u->user.n ? arena_printf(u->a, "%.*s:%.*s", STR_ARG(u->user), STR_ARG(u->pass)) : STR_NULL;
	if (str_eq_nocase(str_sub(challenge, 0, 5), STR("basic"))) {
		if (!userpwd.n)
			return error_status(401, "Unauthorized", "the registry wants a user name and password (imagePullSecrets)");
		buf_cleanup struct buf b = {0};
		buf_puts(&b, "Authorization: Basic ");
		base64_encode(&b, userpwd);
		u->bearer = arena_str(u->a, buf_view(&b));
		return NULL;
	}
	struct str realm = param(challenge, "realm"), service = param(challenge, "service"), scope = param(challenge, "scope");
	if (!str_eq_nocase(str_sub(challenge, 0, 6), STR("bearer")) || !realm.n)
		return error_new("the registry asks for an authentication that is not supported: %.*s", STR_ARG(challenge));
	struct str base = u->base;
	if (str_has_prefix(base, STR("https:")) && !str_has_prefix(realm, STR("https:")))
		return error_new("the registry wants credentials sent to %.*s, which is not https", STR_ARG(realm));
	buf_cleanup struct buf url = {0}, post = {0}, body = {0};
	if (!scope.n)
		scope = arena_printf(u->a, "repository:%.*s:pull", STR_ARG(u->ref.path));
	buf_str(&url, realm);
	struct str refresh = u->p->auth.identity_token;
	struct buf *q = refresh.n ? &post : &url;
	if (refresh.n) {
		buf_puts(&post, "grant_type=refresh_token&client_id=skiff&refresh_token=");
		escape(&post, refresh);
		buf_puts(&post, "&service=");
	} else {
		buf_puts(&url, str_index(realm, '?') < 0 ? "?service=" : "&service=");
	}
	escape(q, service);
	buf_puts(q, "&scope=");
	escape(q, scope);
	long status;
	u->body = &body;
	u->max = IMAGE_MAX_JSON;
	u->what = NULL;
	TRY(request(u, buf_z(&url), STR_NULL, NULL, 0, refresh.n ? buf_z(&post) : NULL, refresh.n ? STR_NULL : userpwd, &status));
	if (status != 200)
		return error_status(status == 401 || status == 403 ? (int)status : 500, status == 401 ? "Unauthorized" : "Forbidden",
				    "%.*s answered %ld to the request for a token", STR_ARG(realm), status);
	struct oci_v1_registry_token t = {0};
	TRY(image_json(u->a, &oci_v1_registry_token_type, buf_view(&body), "the registry's token", &t));
	struct str token = t.token.n ? t.token : t.access_token;
	if (!token.n)
		return error_new("%.*s gave no token", STR_ARG(realm));
	for (size_t i = 0; i < token.n; i++)
		if ((unsigned char)token.p[i] <= ' ')
			return error_new("%.*s gave a malformed token", STR_ARG(realm));
	u->bearer = arena_printf(u->a, "Authorization: Bearer %.*s", STR_ARG(token));
	return NULL;
}

/* request() that authenticates once when asked to. */
static struct error *authed(struct pull *u, const char *url, const char *accept, uint64_t from, long *status)
{
	struct buf *body = u->body;
	uint64_t max = u->max;
	const char *what = u->what;
	TRY(request(u, url, u->bearer, accept, from, NULL, STR_NULL, status));
	if (*status != 401)
		return NULL;
	TRY(authenticate(u, u->challenge));
	u->body = body;
	u->max = max;
	u->what = what;
	if (body)
		body->n = 0;
	else if (ftruncate(u->fd, (off_t)from) < 0 || lseek(u->fd, (off_t)from, SEEK_SET) < 0)
		return error_sys(errno, "truncate a partial download");
	return request(u, url, u->bearer, accept, from, NULL, STR_NULL, status);
}

static struct error *http_error(struct pull *u, const char *what, long status)
{
	if (status == 404)
		return error_status(404, "NotFound", "%s: not found in registry %.*s", what, STR_ARG(u->ref.domain));
	if (status == 401 || status == 403)
		return error_status((int)status, status == 401 ? "Unauthorized" : "Forbidden",
				    "%s: registry %.*s refuses access: the repository does not exist or needs credentials "
				    "(imagePullSecrets)",
				    what, STR_ARG(u->ref.domain));
	if (status == 429)
		return error_status(429, "TooManyRequests", "%s: registry %.*s limits the rate of pulls", what, STR_ARG(u->ref.domain));
	return error_new("%s: registry %.*s answered %ld", what, STR_ARG(u->ref.domain), status);
}

#define ACCEPT                                                                                                                     \
	"Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "                            \
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

static struct error *get_small(struct pull *u, const char *kind, struct str name, struct str digest, struct str *out)
{
	buf_cleanup struct buf body = {0};
	str_cleanup char *url = xasprintf("%.*s/%s/%.*s", STR_ARG(u->base), kind, STR_ARG(name));
	long status;
	u->body = &body;
	u->max = IMAGE_MAX_JSON;
	u->what = kind;
	u->base_off = u->total = 0;
	TRY(authed(u, url, kind[0] == 'm' ? ACCEPT : NULL, 0, &status));
	if (status != 200) {
		str_cleanup char *what = xasprintf("%.*s", STR_ARG(u->p->ref));
		return http_error(u, what, status);
	}
	char got[DIGEST_LEN + 1];
	digest_of(buf_view(&body), got);
	if (digest.n && !str_eqz(digest, got))
		return error_new("the registry's answer for %.*s has the digest %s", STR_ARG(digest), got);
	*out = arena_str(u->a, buf_view(&body));
	return NULL;
}

/* Layer to ingest/<hex>, locked against a second download of the same; resumed when a part is there. */
static struct error *get_layer(void *ctx, size_t i, const struct oci_v1_descriptor *d, int *out)
{
	struct pull *u = ctx;
	if (!digest_valid(d->digest))
		return error_new("layer %zu has no sha256 digest", i + 1);
	if (d->size < 0 || (uint64_t)d->size > u->s->max_layer_bytes)
		return error_status(413, "RequestEntityTooLarge", "layer %zu is larger than %llu bytes", i + 1,
				    (unsigned long long)u->s->max_layer_bytes);
	struct str hex = str_sub(d->digest, 7, d->digest.n);
	str_cleanup char *path = xasprintf("%s/ingest/%.*s", u->s->root, STR_ARG(hex));
	str_cleanup char *url = xasprintf("%.*s/blobs/%.*s", STR_ARG(u->base), STR_ARG(d->digest));
	fd_cleanup int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_sys(errno, "open %s", path);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return error_sys(errno, "lock %s", path);
	struct error *e = NULL;
	for (int attempt = 0;; attempt++) {
		struct stat st;
		long status = 0;
		if (fstat(fd, &st) < 0)
			return error_sys(errno, "stat %s", path);
		if (st.st_size > d->size && ftruncate(fd, 0) == 0)
			st.st_size = 0;
		if (st.st_size == d->size)
			break;
		if (lseek(fd, st.st_size, SEEK_SET) < 0)
			return error_sys(errno, "seek %s", path);
		u->body = NULL;
		u->fd = fd;
		u->max = (uint64_t)(d->size - st.st_size);
		u->what = "download";
		u->base_off = (uint64_t)st.st_size;
		u->total = (uint64_t)d->size;
		e = authed(u, url, NULL, (uint64_t)st.st_size, &status);
		bool resumed = st.st_size == 0 || status == 206;
		if (!e && status != 200 && status != 206)
			e = http_error(u, "layer", status);
		if (!resumed || (e && status >= 300)) { /* what came is no part of the blob */
			if (ftruncate(fd, 0) < 0)
				return error_sys(errno, "truncate %s", path);
		}
		if (e && (attempt + 1 >= ATTEMPTS || error_is_sys(e, ECANCELED) || (status >= 400 && status < 500)))
			return e;
		if (!e && attempt + 1 >= ATTEMPTS && fstat(fd, &st) == 0 && st.st_size < d->size)
			return error_new("layer %zu is shorter than its manifest says", i + 1);
		if (e)
			log_v(2, "pull %.*s: %s; trying again", STR_ARG(u->p->ref), e->message);
		error_clear(&e);
	}
	if (lseek(fd, 0, SEEK_SET) < 0)
		return error_sys(errno, "seek %s", path);
	/* The open file is all that is needed from here; an unpack that fails on a bad digest starts anew. */
	unlink(path);
	*out = fd;
	fd = -1;
	return NULL;
}

static bool is_localhost(struct str domain)
{
	struct str host = domain;
	if (domain.n && domain.p[0] == '[')
		host = str_sub(domain, 0, (size_t)(str_index(domain, ']') + 1));
	else
		host = str_cut(&domain, ':');
	return str_eq(host, STR("localhost")) || str_has_prefix(host, STR("127.")) || str_eq(host, STR("[::1]"));
}

static struct error *pull(struct pull *u, struct str *id)
{
	struct str tagged = image_ref_tagged(u->a, &u->ref);
	struct str name = u->ref.digest.n ? u->ref.digest : u->ref.tag, bytes;
	struct oci_v1_manifest m = {0};
	TRY(get_small(u, "manifests", name, u->ref.digest, &bytes));
	TRY(image_json(u->a, &oci_v1_manifest_type, bytes, "the manifest", &m));
	char digest[DIGEST_LEN + 1];
	digest_of(bytes, digest);
	struct str repo_digest = image_ref_digested(u->a, &u->ref, str_from(digest));
	for (int depth = 0; m.manifests.n; depth++) {
		const struct oci_v1_descriptor *d = platform_pick(&m);
		if (!d)
			return error_new("no image for linux/%s in the index", platform_arch());
		if (depth == 4 || !digest_valid(d->digest))
			return error_new("the image index is not valid");
		TRY(get_small(u, "manifests", d->digest, d->digest, &bytes));
		m = (struct oci_v1_manifest){0};
		TRY(image_json(u->a, &oci_v1_manifest_type, bytes, "the manifest", &m));
	}
	if (!m.config || !digest_valid(m.config->digest))
		return error_new("the manifest has no config (schema 1 images are not supported)");
	struct image_assemble as = {
		.manifest_bytes = bytes,
		.tag = u->ref.digest.n ? STR_NULL : tagged,
		.repo_digest = repo_digest,
		.open_layer = get_layer,
		.open_ctx = u,
		.layer_digests = true,
		.progress = u->p->progress,
		.progress_ctx = u->p->ctx,
	};
	TRY(get_small(u, "blobs", m.config->digest, m.config->digest, &as.config_bytes));
	return image_assemble(u->s, u->a, &as, id);
}

struct error *image_pull(struct image_store *s, struct arena *a, const struct image_pull *p, struct str *id)
{
	struct pull u = {.s = s, .a = a, .p = p, .fd = -1};
	TRY(image_ref_parse(a, p->ref, &u.ref));
	TRY(curl_api(&u.api));
	bool http = p->plain_http || is_localhost(u.ref.domain);
	struct str host = str_eq(u.ref.domain, STR("docker.io")) ? STR("registry-1.docker.io") : u.ref.domain;
	u.base = arena_printf(a, "%s://%.*s/v2/%.*s", http ? "http" : "https", STR_ARG(host), STR_ARG(u.ref.path));
	u.user = p->auth.username;
	u.pass = p->auth.password;
	if (p->auth.auth.n && !u.user.n) {
		struct str plain;
		if (!base64_decode(a, p->auth.auth, &plain) || str_index(plain, ':') < 0)
			return error_status(400, "Invalid", "the pull credentials are not base64 of user:password");
		u.user = str_cut(&plain, ':');
		u.pass = plain;
	}
	if (p->auth.registry_token.n)
		u.bearer = arena_printf(a, "Authorization: Bearer %.*s", STR_ARG(p->auth.registry_token));
	for (size_t i = 0; i < u.bearer.n; i++)
		if ((unsigned char)u.bearer.p[i] < ' ')
			return error_status(400, "Invalid", "the pull credentials hold control characters");
	fd_cleanup int use = -1;
	TRY(image_use_begin(s, &use));
	u.curl = u.api->curl_easy_init();
	if (!u.curl)
		die_oom();
	struct error *e = pull(&u, id);
	u.api->curl_easy_cleanup(u.curl);
	return error_wrap(e, "pull %.*s", STR_ARG(p->ref));
}
