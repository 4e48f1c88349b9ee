/* Tokens that a webhook knows: TokenReviews (authentication.k8s.io) asked of a server that a kubeconfig names. */
#include <openssl/sha.h>
#include <stdlib.h>
#include "apiserver/authn_internal.h"
#include "apiserver/outbound.h"
#include "schema/jv.h"

#define CACHE_MAX 4096        /* answers; then all are forgotten */
#define TIMEOUT_MS 30000      /* of one call, as upstream's client has it */

struct known { /* an answer, good or bad; errors are not kept */
	struct arena arena;
	int64_t until;
	bool ok;
	struct user user;
	struct strings audiences;
};

struct token_webhook {
	struct outbound *out;
	bool v1beta1;
	int64_t ttl_ms;
	struct map answers; /* SHA-256 of audiences and token -> struct known * */
};

static void known_free(void *v)
{
	struct known *k = v;

	arena_free(&k->arena);
	free(k);
}

struct error *token_webhook_init(struct apiserver *s)
{
	struct token_webhook *w;
	struct str v = s->o.token_webhook_version ? str_from(s->o.token_webhook_version) : STR("v1beta1");

	if (!s->o.token_webhook_config)
		return NULL;
	if (!str_eqz(v, "v1") && !str_eqz(v, "v1beta1"))
		return error_new("unsupported authentication webhook version \"%.*s\", supported versions are \"v1\", \"v1beta1\"", STR_ARG(v));
	w = xcalloc(1, sizeof *w);
	TRY(error_wrap(outbound_from_kubeconfig(s->o.token_webhook_config, &w->out), "--authentication-token-webhook-config-file"));
	w->v1beta1 = str_eqz(v, "v1beta1");
	w->ttl_ms = s->o.token_webhook_cache_ms;
	s->authn->webhook = w;
	return NULL;
}

static struct error *ask(struct token_webhook *w, struct arena *a, struct str token, const struct str *audiences, size_t n,
			 struct authentication_v1_token_review_status *out)
{
	struct authentication_v1_token_review r = {.kind = STR("TokenReview")}, *ans = arena_new(a, struct authentication_v1_token_review);
	struct buf b buf_cleanup = {0};
	struct str body;

	/* v1beta1 has the same fields */
	r.api_version = w->v1beta1 ? STR("authentication.k8s.io/v1beta1") : STR("authentication.k8s.io/v1");
	r.spec.token = token;
	r.spec.audiences.v = (struct str *)(uintptr_t)audiences;
	r.spec.audiences.n = (uint32_t)n;
	json_encode(&b, &authentication_v1_token_review_type, &r);
	TRY(outbound_post(w->out, NULL, a, buf_view(&b), TIMEOUT_MS, OUTBOUND_FIRST_MS, &body));
	TRY(json_decode(a, &authentication_v1_token_review_type, body, NULL, ans));
	*out = ans->status;
	return NULL;
}

/* The audiences of the answer (none: those of this server) that were asked for. */
static void common_audiences(struct apiserver *s, struct arena *a, const struct str *want, size_t n,
			     const struct authentication_v1_token_review_status *st, struct strings *out)
{
	const struct str *got = st->audiences.v;
	size_t n_got = st->audiences.n;

	if (!n_got)
		sa_default_audiences(s, &got, &n_got);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n_got; k++)
			if (str_eq(want[i], got[k])) {
				*arena_push(a, out) = arena_str(a, want[i]);
				break;
			}
}

static void give(struct arena *a, const struct known *k, struct user *u, struct strings *auds, bool *ok)
{
	*ok = k->ok;
	if (!k->ok)
		return;
	user_copy(a, &k->user, u);
	for (uint32_t i = 0; auds && i < k->audiences.n; i++)
		*arena_push(a, auds) = arena_str(a, k->audiences.v[i]);
}

struct error *token_webhook_authenticate(struct apiserver *s, struct arena *tmp, struct arena *a, struct str token, const struct str *audiences,
					 size_t n, struct user *u, struct strings *auds, bool *ok)
{
	struct token_webhook *w = s->authn->webhook;
	struct authentication_v1_token_review_status st = {0};
	struct buf key buf_cleanup = {0};
	unsigned char sum[SHA256_DIGEST_LENGTH];
	struct user found = {0};
	struct known *k, *old;
	bool narrowed = n > 0;

	*ok = false;
	if (!w)
		return NULL;
	if (!narrowed)
		sa_default_audiences(s, &audiences, &n);
	for (size_t i = 0; i < n; i++)
		buf_printf(&key, "%zu:%.*s,", audiences[i].n, STR_ARG(audiences[i]));
	buf_str(&key, token);
	SHA256((const unsigned char *)key.p, key.n, sum);
	k = map_get(&w->answers, str_of((const char *)sum, sizeof sum));
	if (k && k->until > now_ms()) {
		give(a, k, u, narrowed ? auds : NULL, ok);
		return NULL;
	}
	TRY(ask(w, tmp, token, audiences, n, &st));
	if (!st.authenticated && st.error.n)
		return error_new("%.*s", STR_ARG(st.error));
	k = xcalloc(1, sizeof *k);
	common_audiences(s, &k->arena, audiences, n, &st, &k->audiences);
	k->ok = st.authenticated && k->audiences.n;
	k->until = now_ms() + w->ttl_ms;
	if (k->ok) {
		found.name = st.user.username;
		found.uid = st.user.uid;
		found.extra = (const struct strings_pair *)(const void *)st.user.extra.v;
		found.n_extra = st.user.extra.n;
		found.groups = st.user.groups.v;
		found.n_groups = st.user.groups.n;
		user_copy(&k->arena, &found, &k->user);
		user_set_authenticated(&k->arena, &k->user, found.groups, found.n_groups);
	}
	give(a, k, u, narrowed ? auds : NULL, ok);
	if (w->ttl_ms <= 0) {
		known_free(k);
		return NULL;
	}
	if (w->answers.n >= CACHE_MAX)
		map_free_values(&w->answers, known_free);
	old = map_set(&w->answers, str_of((const char *)sum, sizeof sum), k);
	if (old)
		known_free(old);
	return NULL;
}
