/* JWT authenticators: providers and their keys, verification, mapping of claims to a user. */
#include <stdlib.h>
#include "apiserver/authn_internal.h"
#include "apiserver/jwt.h"
#include "apiserver/metrics.h"
#include "apiserver/oidc.h"
#include "apiserver/oidc_rules.h"
#include "apiserver/outbound.h"
#include "cel/cel.h"

#define RETRY_MS 10000           /* between attempts to find a provider's keys, as upstream */
#define CALL_TIMEOUT_MS 30000
#define REFRESH_MIN_MS 1000      /* between two fetches of keys */
#define EXPIRY_DELTA_MS 30000    /* keys are looked for again so long before their Cache-Control ends */
#define CLAIM_PROVIDERS_MAX 16   /* other issuers that distributed claims may come from */
#define NBF_LEEWAY_S 60

/* ---- providers ---- */

struct provider {
	struct arena arena;
	unsigned refs;
	bool dropped;            /* nobody will ask again */
	bool counted;            /* of an issuer of its own, not of claims */
	struct str issuer, discovery;
	struct outbound *out;
	bool ready;              /* jwks_uri is known */
	struct str jwks_uri;
	char *problem;           /* of the last attempt, or NULL */
	struct jwk_set *keys;
	int64_t expire_ms, fetched_ms;
	bool fetching;
	struct waitq changed;    /* ready, dropped, fetching */
};

static void provider_unref(struct provider *p)
{
	if (--p->refs)
		return;
	jwk_set_free(p->keys);
	outbound_free(p->out);
	free(p->problem);
	arena_free(&p->arena);
	free(p);
}

static const char *issuer_label(struct arena *a, struct str issuer)
{
	char hash[METRICS_HASH];

	metrics_hash(issuer, hash);
	return arena_printf(a, "jwt_issuer_hash=\"%s\"", hash).p;
}

/* How many providers that are counted have an issuer: with the last of them go its series. */
static struct map counted_issuers;

static void count_from_now_on(struct provider *p)
{
	p->counted = true;
	map_set(&counted_issuers, p->issuer, (void *)((uintptr_t)map_get(&counted_issuers, p->issuer) + 1));
}

static void count_no_more(struct provider *p)
{
	struct arena a arena_cleanup = {0};
	uintptr_t n = (uintptr_t)map_get(&counted_issuers, p->issuer) - 1;
	const char *label = issuer_label(&a, p->issuer);

	if (n) {
		map_set(&counted_issuers, p->issuer, (void *)n);
		return;
	}
	map_del(&counted_issuers, p->issuer);
	metrics_forget_with(METRIC_JWKS_TIME, label);
	metrics_forget_with(METRIC_JWKS_INFO, label);
}

static void provider_drop(struct provider *p)
{
	if (p->counted)
		count_no_more(p);
	p->dropped = true;
	waitq_wake_all(&p->changed);
	provider_unref(p);
}

static void set_problem(struct provider *p, struct error *e)
{
	free(p->problem);
	p->problem = e ? xstrdup(error_message(e)) : NULL;
	error_free(e);
}

static struct error *discover(struct provider *p)
{
	arena_cleanup struct arena a = {0};
	struct outbound_answer ans;
	struct str issuer = p->issuer, url = p->discovery, said, uri;
	struct jv doc;

	if (!url.n) {
		while (issuer.n && issuer.p[issuer.n - 1] == '/')
			issuer.n--;
		url = arena_printf(&a, "%.*s/.well-known/openid-configuration", STR_ARG(issuer));
	}
	TRY(outbound_get(p->out, &a, url, STR_NULL, CALL_TIMEOUT_MS, &ans));
	if (ans.status != 200)
		return error_new("%d: %.*s", ans.status, STR_ARG(str_sub(ans.body, 0, 200)));
	TRY(error_wrap(jv_parse(&a, ans.body, NULL, &doc), "oidc: failed to decode provider discovery object"));
	said = jv_str(jv_get(&doc, STR("issuer")));
	if (!str_eq(said, p->issuer))
		return error_new("oidc: issuer did not match the issuer returned by provider, expected \"%.*s\" got \"%.*s\"",
				 STR_ARG(p->issuer), STR_ARG(said));
	uri = jv_str(jv_get(&doc, STR("jwks_uri")));
	if (!uri.n)
		return error_new("provider did not return JWKS URL");
	p->jwks_uri = arena_str(&p->arena, uri);
	return NULL;
}

static void discover_fiber(void *arg)
{
	struct provider *p = arg;

	while (!p->dropped && !p->ready) {
		struct error *e = discover(p);

		if (!e) {
			set_problem(p, NULL);
			p->ready = true;
			waitq_wake_all(&p->changed);
			break;
		}
		log_error("oidc authenticator: issuer %.*s: %s", STR_ARG(p->issuer), error_message(e));
		set_problem(p, e);
		/* a generation that nobody wants any more ends the pause */
		e = p->dropped ? NULL : waitq_wait_ms(&p->changed, RETRY_MS);
		if (error_is_sys(e, ECANCELED)) {
			error_free(e);
			break;
		}
		error_free(e);
	}
	provider_unref(p);
}

static struct provider *provider_new(struct str issuer, struct str discovery, struct outbound *out)
{
	struct provider *p = xcalloc(1, sizeof *p);

	p->refs = 2; /* the caller's and the fiber's */
	p->issuer = arena_str(&p->arena, issuer);
	p->discovery = arena_str(&p->arena, discovery);
	p->out = out;
	fiber_spawn("oidc-discovery", discover_fiber, p);
	return p;
}

/* Milliseconds that Cache-Control lets the answer be kept. */
static int64_t max_age_ms(const struct http_headers *h)
{
	struct str rest = http_header_get(h, "cache-control");
	int64_t age = 0;

	while (rest.p && rest.n) {
		struct str tok = str_trim(str_cut(&rest, ','));

		if (str_eq_nocase(tok, STR("no-store")) || str_eq_nocase(tok, STR("no-cache")))
			return 0;
		if (tok.n > 8 && str_eq_nocase(str_sub(tok, 0, 8), STR("max-age=")) && !str_to_i64(str_sub(tok, 8, tok.n), &age))
			age = 0;
	}
	return age < 0 ? 0 : age > 86400 * 365 ? INT64_C(86400000) * 365 : age * 1000;
}

static void count_fetch(struct provider *p, struct str keys, bool ok)
{
	struct arena a arena_cleanup = {0};
	const char *issuer = issuer_label(&a, p->issuer), *server = metrics_server_hash();
	char hash[METRICS_HASH];

	if (!p->counted || p->dropped)
		return;
	metrics_set(METRIC_JWKS_TIME, arena_printf(&a, "apiserver_id_hash=\"%s\",%s,result=\"%s\"", server, issuer, ok ? "success" : "failure").p,
		    (double)wall_ns() / 1e9);
	if (!ok)
		return;
	metrics_hash(keys, hash);
	metrics_forget_with(METRIC_JWKS_INFO, issuer);
	metrics_set(METRIC_JWKS_INFO, arena_printf(&a, "apiserver_id_hash=\"%s\",hash=\"%s\",%s", server, hash, issuer).p, 1);
}

static struct error *fetch_keys(struct provider *p)
{
	arena_cleanup struct arena a = {0};
	struct outbound_answer ans = {0};
	struct jwk_set *keys;
	struct error *e;

	e = error_wrap(outbound_get(p->out, &a, p->jwks_uri, STR_NULL, CALL_TIMEOUT_MS, &ans), "oidc: get keys failed");
	if (!e && ans.status != 200)
		e = error_new("oidc: get keys failed: %d %.*s", ans.status, STR_ARG(str_sub(ans.body, 0, 200)));
	if (!e)
		e = error_wrap(jwk_set_parse(&a, ans.body, &keys), "oidc: failed to decode keys");
	count_fetch(p, ans.body, !e);
	if (e)
		return e;
	jwk_set_free(p->keys);
	p->keys = keys;
	p->expire_ms = now_ms() + max_age_ms(&ans.headers);
	return NULL;
}

static void fetch_fiber(void *arg)
{
	struct provider *p = arg;
	int64_t pause = p->fetched_ms ? p->fetched_ms + REFRESH_MIN_MS - now_ms() : 0;
	struct error *e = pause > 0 ? fiber_sleep(pause) : NULL;

	if (!e)
		e = fetch_keys(p);
	p->fetched_ms = now_ms();
	if (e)
		log_warn("oidc authenticator: issuer %.*s: %s", STR_ARG(p->issuer), error_message(e));
	set_problem(p, e);
	p->fetching = false;
	waitq_wake_all(&p->changed);
	provider_unref(p);
}

/* Signed by the provider? With keys that are known, else with those it has now. */
static struct error *verify_signature(struct provider *p, const struct jws *j)
{
	struct error *e = NULL;

	if (p->keys && jwk_set_verify(p->keys, j))
		return NULL;
	if (p->keys && now_ms() + EXPIRY_DELTA_MS <= p->expire_ms)
		return error_new("failed to verify signature: failed to verify id token signature");
	p->refs++;
	if (!p->fetching) {
		p->fetching = true;
		p->refs++;
		fiber_spawn("oidc-keys", fetch_fiber, p);
	}
	while (p->fetching && !e)
		e = waitq_wait(&p->changed);
	if (!e && p->problem)
		e = error_new("failed to verify signature: fetching keys %s", p->problem);
	else if (!e && !(p->keys && jwk_set_verify(p->keys, j)))
		e = error_new("failed to verify signature: failed to verify id token signature");
	provider_unref(p);
	return e;
}

/* ---- authenticators ---- */

struct authenticator {
	const struct apiserverconfig_v1_jwt_authenticator *c;
	struct jwt_rules *rules;
	struct provider *provider;
	LIST(struct provider *) claim_providers;
};

struct oidc {
	struct arena arena;
	unsigned refs;
	authn_configuration c;
	struct strings algs;
	struct authenticator *v;
	uint32_t n;
};

void oidc_unref(struct oidc *o)
{
	if (!o || --o->refs)
		return;
	for (uint32_t i = 0; i < o->n; i++) {
		jwt_rules_free(o->v[i].rules);
		if (o->v[i].provider)
			provider_drop(o->v[i].provider);
		for (uint32_t k = 0; k < o->v[i].claim_providers.n; k++)
			provider_drop(o->v[i].claim_providers.v[k]);
	}
	arena_free(&o->arena);
	free(o);
}

static struct error *provider_of(struct authenticator *t, struct str issuer, struct str discovery, struct provider **out)
{
	struct tls_client_opts o = {.ca_pem = t->c->issuer.certificate_authority};
	struct outbound *ob;

	TRY(outbound_new(&o, &ob));
	*out = provider_new(issuer, discovery, ob);
	return NULL;
}

struct error *oidc_new(const authn_configuration *c, const struct str *algs, size_t n_algs, struct oidc **out)
{
	struct oidc *o = xcalloc(1, sizeof *o);

	o->refs = 1;
	object_copy(&o->arena, &apiserverconfig_v1_authentication_configuration_type, c, &o->c);
	for (size_t i = 0; i < n_algs; i++)
		*arena_push(&o->arena, &o->algs) = arena_str(&o->arena, algs[i]);
	o->n = o->c.jwt.n;
	o->v = arena_array(&o->arena, struct authenticator, o->n);
	for (uint32_t i = 0; i < o->n; i++) {
		struct authenticator *t = &o->v[i];
		struct error *e;

		t->c = &o->c.jwt.v[i];
		jwt_rules_compile(&o->arena, t->c, NULL, NULL, &t->rules);
		e = provider_of(t, t->c->issuer.url, t->c->issuer.discovery_url ? *t->c->issuer.discovery_url : STR_NULL, &t->provider);
		if (e) {
			oidc_unref(o);
			return e;
		}
		count_from_now_on(t->provider);
	}
	*out = o;
	return NULL;
}

struct error *oidc_wait_ready(struct oidc *o, int64_t ms)
{
	int64_t d = deadline_push(ms);
	struct error *e = NULL;

	o->refs++;
	for (uint32_t i = 0; i < o->n && !e; i++) {
		struct provider *p = o->v[i].provider;

		while (!p->ready && !e)
			e = waitq_wait(&p->changed);
		if (e)
			e = error_wrap(e, "oidc: authenticator for issuer \"%.*s\" is not healthy: %s", STR_ARG(p->issuer),
				       p->problem ? p->problem : "it is not initialized");
	}
	deadline_pop(d);
	oidc_unref(o);
	return e;
}

/* ---- tokens ---- */

static bool claim_seconds(const struct jv *claims, const char *name, int64_t *out)
{
	const struct jv *v = jv_get(claims, str_from(name));

	if (jv_is(v, JV_INT))
		*out = v->i;
	else if (jv_is(v, JV_DOUBLE) && v->d > -9e15 && v->d < 9e15)
		*out = (int64_t)v->d;
	else
		return false;
	return true;
}

static bool google(struct str issuer, struct str said)
{
	return str_eqz(issuer, "https://accounts.google.com") && str_eqz(said, "accounts.google.com");
}

static struct str quoted_list(struct arena *a, const struct str *v, size_t n)
{
	struct buf b buf_cleanup = {0};

	for (size_t i = 0; i < n; i++)
		buf_printf(&b, "%s\"%.*s\"", i ? " " : "[", STR_ARG(v[i]));
	buf_puts(&b, n ? "]" : "[]");
	return arena_str(a, buf_view(&b));
}

static struct error *check_audience(struct arena *a, const struct apiserverconfig_v1_issuer *c, const struct jv *claims)
{
	const struct jv *aud = jv_get(claims, STR("aud"));
	struct strings got = {0};

	if (jv_is(aud, JV_STRING))
		*arena_push(a, &got) = jv_str(aud);
	for (uint32_t i = 0; jv_is(aud, JV_ARRAY) && i < aud->n; i++)
		*arena_push(a, &got) = jv_str(&aud->items[i]);
	for (uint32_t i = 0; i < got.n; i++)
		for (uint32_t k = 0; k < c->audiences.n; k++)
			if (str_eq(got.v[i], c->audiences.v[k]))
				return NULL;
	if (c->audiences.n == 1)
		return error_new("oidc: expected audience \"%.*s\" got %.*s", STR_ARG(c->audiences.v[0]), STR_ARG(quoted_list(a, got.v, got.n)));
	return error_new("oidc: expected audience in %.*s got %.*s", STR_ARG(quoted_list(a, c->audiences.v, c->audiences.n)),
			 STR_ARG(quoted_list(a, got.v, got.n)));
}

static struct error *verify(struct oidc *o, struct authenticator *t, struct provider *p, struct arena *a, struct str token, struct jws *j)
{
	bool alg = false;
	int64_t now_at = wall_ns(), now = now_at / 1000000000, exp, nbf;
	struct str iss;

	TRY(error_wrap(jws_parse(a, token, j), "oidc"));
	for (uint32_t i = 0; i < o->algs.n; i++)
		alg |= str_eq(o->algs.v[i], j->alg);
	if (!alg)
		return error_new("oidc: id token signed with unsupported algorithm, expected %.*s got \"%.*s\"",
				 STR_ARG(quoted_list(a, o->algs.v, o->algs.n)), STR_ARG(j->alg));
	TRY(verify_signature(p, j));
	iss = jv_str(jv_get(&j->payload, STR("iss")));
	if (!str_eq(iss, p->issuer) && !google(p->issuer, iss))
		return error_new("oidc: id token issued by a different provider, expected \"%.*s\" got \"%.*s\"", STR_ARG(p->issuer), STR_ARG(iss));
	TRY(check_audience(a, &t->c->issuer, &j->payload));
	/* the second that is named is no longer good once it has begun */
	if (!claim_seconds(&j->payload, "exp", &exp) || exp < now || (exp == now && now_at % 1000000000))
		return error_new("oidc: token is expired (Token Expiry: %.*s)",
				 STR_ARG(claim_seconds(&j->payload, "exp", &exp) ? time_format(a, (struct api_time){.s = exp, .set = true}, false) :
										   STR("none")));
	if (claim_seconds(&j->payload, "nbf", &nbf) && now + NBF_LEEWAY_S < nbf)
		return error_new("oidc: current time %.*s before the nbf (not before) time: %.*s",
				 STR_ARG(time_format(a, (struct api_time){.s = now, .set = true}, false)),
				 STR_ARG(time_format(a, (struct api_time){.s = nbf, .set = true}, false)));
	return NULL;
}

/* ---- distributed claims (OpenID Connect Core 1.0, 5.6.2): the groups claim may be at another place ---- */

static struct error *claim_provider(struct authenticator *t, struct oidc *o, struct str issuer, struct provider **out)
{
	for (uint32_t i = 0; i < t->claim_providers.n; i++)
		if (str_eq(t->claim_providers.v[i]->issuer, issuer)) {
			*out = t->claim_providers.v[i];
			return NULL;
		}
	if (str_eq(t->provider->issuer, issuer)) {
		*out = t->provider;
		return NULL;
	}
	if (t->claim_providers.n >= CLAIM_PROVIDERS_MAX)
		return error_new("more than %d issuers of distributed claims", CLAIM_PROVIDERS_MAX);
	TRY(provider_of(t, issuer, STR_NULL, out));
	*arena_push(&o->arena, &t->claim_providers) = *out;
	return NULL;
}

static struct error *resolve_claim(struct oidc *o, struct authenticator *t, struct arena *a, struct str name, struct str url, struct str bearer,
				   struct jv *claims)
{
	struct outbound_answer ans;
	struct jws j;
	struct provider *p = NULL;
	const struct jv *v;
	struct str iss;
	struct error *e;

	TRY(error_wrap(outbound_get(t->provider->out, a, url, bearer, CALL_TIMEOUT_MS, &ans), "while getting distributed claim \"%.*s\"",
		       STR_ARG(name)));
	if (ans.status < 200 || ans.status > 226)
		return error_new("while getting distributed claim \"%.*s\": error while getting distributed claim JWT: %d", STR_ARG(name),
				 ans.status);
	TRY(error_wrap(jws_parse(a, ans.body, &j), "getting untrusted issuer from endpoint %.*s failed for claim \"%.*s\"", STR_ARG(url),
		       STR_ARG(name)));
	iss = jv_str(jv_get(&j.payload, STR("iss")));
	TRY(claim_provider(t, o, iss, &p));
	if (!p->ready)
		return error_new("verifying untrusted issuer %.*s failed: verifier not initialized for issuer: \"%.*s\"", STR_ARG(iss), STR_ARG(iss));
	p->refs++;
	e = error_wrap(verify(o, t, p, a, ans.body, &j), "verify distributed claim token");
	provider_unref(p);
	TRY(e);
	v = jv_get(&j.payload, name);
	if (!v)
		return error_new("jwt returned by distributed claim endpoint \"%.*s\" did not contain claim: %.*s", STR_ARG(url), STR_ARG(name));
	jv_set(a, claims, name, *v);
	return NULL;
}

static struct error *expand_claims(struct oidc *o, struct authenticator *t, struct arena *a, struct jv *claims)
{
	struct str name = t->c->claim_mappings.groups.claim, source, url;
	const struct jv *names = jv_get(claims, STR("_claim_names")), *sources, *ep;

	if (!name.n || jv_get(claims, name) || !names)
		return NULL;
	if (names->kind != JV_OBJECT)
		return error_new("oidc: error parsing distributed claim names: json: cannot unmarshal %s", claim_kind(names));
	sources = jv_get(claims, STR("_claim_sources"));
	if (!sources)
		return error_new("oidc: no claim sources");
	if (sources->kind != JV_OBJECT)
		return error_new("oidc: could not parse claim sources: json: cannot unmarshal %s", claim_kind(sources));
	source = jv_str(jv_get(names, name));
	if (!source.n)
		return NULL;
	ep = jv_get(sources, source);
	if (!ep)
		return error_new("id token _claim_names contained a source %.*s missing in _claims_sources", STR_ARG(source));
	url = jv_str(jv_get(ep, STR("endpoint")));
	return url.n ? resolve_claim(o, t, a, name, url, jv_str(jv_get(ep, STR("access_token"))), claims) : NULL;
}

/* ---- one token ---- */

static struct error *authenticate_one(struct oidc *o, struct authenticator *t, struct arena *tmp, struct arena *a, struct str token, struct user *u)
{
	struct jws j;

	if (!t->provider->ready)
		return error_new("oidc: authenticator not initialized");
	TRY(error_wrap(verify(o, t, t->provider, tmp, token, &j), "oidc: verify token"));
	TRY(error_wrap(expand_claims(o, t, tmp, &j.payload), "oidc: could not expand distributed claims"));
	return jwt_rules_user(t->rules, tmp, a, &j.payload, u);
}

struct error *oidc_authenticate(struct oidc *o, struct arena *tmp, struct arena *a, struct str token, struct user *u, bool *ok)
{
	struct jws j;
	struct str iss;
	struct error *e = jws_parse(tmp, token, &j);
	int64_t since;

	*ok = false;
	if (e) {
		/* some other kind of token */
		error_free(e);
		return NULL;
	}
	iss = jv_str(jv_get(&j.payload, STR("iss")));
	o->refs++;
	for (uint32_t i = 0; i < o->n && !e && !*ok; i++) {
		struct str want = o->v[i].c->issuer.url;

		if (!str_eq(want, iss) && !google(want, iss))
			continue;
		since = now_ns();
		e = authenticate_one(o, &o->v[i], tmp, a, token, u);
		*ok = e == NULL;
		metrics_observe(METRIC_JWT_TIME, arena_printf(tmp, "%s,result=\"%s\"", issuer_label(tmp, want), *ok ? "success" : "failure").p,
				(double)(now_ns() - since) / 1e9);
	}
	oidc_unref(o);
	return e;
}

/* ---- what a configuration may be ---- */

/* As Go prints a list. */
static const char *list_text(struct arena *a, const struct strings *l)
{
	struct buf b buf_cleanup = {0};

	for (uint32_t i = 0; i < l->n; i++)
		buf_printf(&b, "%s%.*s", i ? " " : "[", STR_ARG(l->v[i]));
	buf_putc(&b, ']');
	return arena_strz(a, buf_view(&b));
}

static void url_validate(struct field_errors *e, struct str url, const struct strings *refused, const struct field_path *p)
{
	ptrdiff_t at = str_find(url, STR("://"));
	struct str host = at < 0 ? STR_NULL : str_sub(url, (size_t)at + 3, url.n), user = host;

	for (uint32_t i = 0; refused && i < refused->n; i++)
		if (str_eq(url, refused->v[i])) {
			field_invalid(e, p, url, "URL must not overlap with disallowed issuers: %s", list_text(e->arena, refused));
			break;
		}
	if (!str_has_prefix(url, STR("https://"))) {
		field_invalid(e, p, url, "URL scheme must be https");
		return;
	}
	if (cel_uri_error(e->arena, url)) {
		field_invalid(e, p, url, "%s", cel_uri_error(e->arena, url));
		return;
	}
	user = str_cut(&host, '/');
	if (str_index(user, '@') >= 0)
		field_invalid(e, p, url, "URL must not contain a username or password");
	if (str_index(url, '?') >= 0 && (size_t)str_index(url, '?') + 1 < url.n)
		field_invalid(e, p, url, "URL must not contain a query");
	if (str_index(url, '#') >= 0 && (size_t)str_index(url, '#') + 1 < url.n)
		field_invalid(e, p, url, "URL must not contain a fragment");
}

static struct str without_slashes(struct str s)
{
	while (s.n && s.p[s.n - 1] == '/')
		s.n--;
	return s;
}

static void issuer_validate(struct field_errors *e, const struct apiserverconfig_v1_issuer *i, const struct strings *refused, const struct field_path *p)
{
	const struct field_path *aud = FIELD_CHILD(p, "audiences");
	struct tls_client_opts o = {.ca_pem = i->certificate_authority};
	bool any = str_eqz(i->audience_match_policy, "MatchAny");

	if (!i->url.n)
		field_required(e, FIELD_CHILD(p, "url"), "");
	else
		url_validate(e, i->url, refused, FIELD_CHILD(p, "url"));
	if (i->discovery_url && i->discovery_url->n) {
		const struct field_path *d = FIELD_CHILD(p, "discoveryURL");

		if (i->url.n && str_eq(without_slashes(i->url), without_slashes(*i->discovery_url)))
			field_invalid(e, d, *i->discovery_url, "discoveryURL must be different from URL");
		url_validate(e, *i->discovery_url, NULL, d);
	}
	if (!i->audiences.n)
		field_required(e, aud, arena_printf(e->arena, "at least one %.*s is required", STR_ARG(field_path_format(e->arena, aud))).p);
	for (uint32_t k = 0; k < i->audiences.n; k++) {
		if (!i->audiences.v[k].n)
			field_required(e, FIELD_INDEX(aud, k), "");
		for (uint32_t m = 0; m < k; m++)
			if (str_eq(i->audiences.v[m], i->audiences.v[k])) {
				field_duplicate(e, FIELD_INDEX(aud, k), i->audiences.v[k]);
				break;
			}
	}
	if (i->audiences.n > 1 && !any)
		field_invalid(e, FIELD_CHILD(p, "audienceMatchPolicy"), i->audience_match_policy,
			      "audienceMatchPolicy must be MatchAny for multiple audiences");
	if (i->audiences.n == 1 && i->audience_match_policy.n && !any)
		field_invalid(e, FIELD_CHILD(p, "audienceMatchPolicy"), i->audience_match_policy,
			      "audienceMatchPolicy must be empty or MatchAny for single audience");
	if (i->certificate_authority.n) {
		struct tls_client *t = NULL;
		struct error *te = tls_client_new(&o, &t);

		if (te)
			field_invalid(e, FIELD_CHILD(p, "certificateAuthority"), STR("<omitted>"), "%s", error_message(te));
		error_free(te);
		tls_client_free(t);
	}
	if (i->egress_selector_type.n)
		field_invalid(e, FIELD_CHILD(p, "egressSelectorType"), i->egress_selector_type, "egress selectors are not built");
}

void oidc_validate(struct field_errors *e, const authn_configuration *c, const struct strings *refused)
{
	const struct field_path *root = FIELD_ROOT("jwt");

	if (c->jwt.n > OIDC_ISSUERS_MAX) {
		field_too_many(e, root, c->jwt.n, OIDC_ISSUERS_MAX);
		return;
	}
	for (uint32_t i = 0; i < c->jwt.n; i++) {
		const struct apiserverconfig_v1_jwt_authenticator *t = &c->jwt.v[i];
		const struct field_path *p = FIELD_INDEX(root, i), *iss = FIELD_CHILD(p, "issuer");
		struct jwt_rules *rules;

		issuer_validate(e, &t->issuer, refused, iss);
		jwt_rules_compile(e->arena, t, e, p, &rules);
		jwt_rules_free(rules);
		for (uint32_t k = 0; k < i; k++) {
			const struct apiserverconfig_v1_issuer *o = &c->jwt.v[k].issuer;

			if (str_eq(o->url, t->issuer.url))
				field_duplicate(e, FIELD_CHILD(iss, "url"), t->issuer.url);
			if (o->discovery_url && t->issuer.discovery_url && o->discovery_url->n &&
			    str_eq(*o->discovery_url, *t->issuer.discovery_url))
				field_duplicate(e, FIELD_CHILD(iss, "discoveryURL"), *t->issuer.discovery_url);
		}
	}
}
