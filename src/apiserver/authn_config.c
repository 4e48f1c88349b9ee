/* AuthenticationConfiguration (KEP-3331): from --authentication-config, or made of the older flags. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "apiserver/authn_internal.h"
#include "apiserver/config_file.h"
#include "apiserver/metrics.h"
#include "apiserver/jwt.h"
#include "apiserver/oidc.h"
#include "cel/cel.h"

#define FLAG(x) str_from(s->o.x ? s->o.x : "")
#define RELOAD_WAIT_MS 60000 /* for the issuers of a new file, as upstream */

static void anonymous_validate(struct field_errors *e, const authn_configuration *c)
{
	if (c->anonymous && !c->anonymous->enabled && c->anonymous->conditions.n)
		field_invalid_raw(e, FIELD_CHILD(FIELD_ROOT("anonymous"), "conditions"), STR("[]"),
				  "enabled should be set to true when conditions are defined");
}

static struct error *anonymous_init(struct apiserver *s, const authn_configuration *c)
{
	struct authn *n = s->authn;

	n->anonymous = s->o.anonymous_auth;
	if (n->anonymous && !c->anonymous)
		for (struct str rest = FLAG(authorization_mode); rest.p && rest.n;)
			if (str_eqz(str_trim(str_cut(&rest, ',')), "AlwaysAllow")) {
				log_warn("anonymous requests are refused, because the authorizer AlwaysAllow would let them do everything");
				n->anonymous = false;
			}
	if (!c->anonymous)
		return NULL;
	if (s->o.anonymous_auth_set)
		return error_new("anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in "
				 "authentication configuration file");
	n->anonymous = c->anonymous->enabled;
	n->n_anonymous_paths = c->anonymous->conditions.n;
	if (n->n_anonymous_paths) {
		struct str *paths = arena_array(&s->arena, struct str, n->n_anonymous_paths);

		for (uint32_t i = 0; i < n->n_anonymous_paths; i++)
			paths[i] = c->anonymous->conditions.v[i].path;
		n->anonymous_paths = paths;
	}
	return NULL;
}

/* ---- the older flags ---- */

static struct error *from_oidc_flags(struct apiserver *s, authn_configuration *c)
{
	struct apiserverconfig_v1_jwt_authenticator *t;
	struct apiserverconfig_v1_prefixed_claim_or_expression *user, *groups;
	struct arena *a = &s->arena;
	struct str *prefix = arena_new(a, struct str), rest;

	if (!s->o.oidc_issuer_url || !s->o.oidc_client_id)
		return error_new("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set");
	t = arena_push(a, &c->jwt);
	t->issuer.url = FLAG(oidc_issuer_url);
	*arena_push(a, &t->issuer.audiences) = FLAG(oidc_client_id);
	if (s->o.oidc_ca_file)
		TRY(error_wrap(config_file_read(a, s->o.oidc_ca_file, &t->issuer.certificate_authority), "--oidc-ca-file"));
	user = &t->claim_mappings.username;
	user->claim = s->o.oidc_username_claim ? FLAG(oidc_username_claim) : STR("sub");
	*prefix = FLAG(oidc_username_prefix);
	if (!prefix->n && !str_eqz(user->claim, "email"))
		*prefix = arena_printf(a, "%s#", s->o.oidc_issuer_url);
	else if (str_eqz(*prefix, "-"))
		*prefix = STR("");
	user->prefix = prefix;
	groups = &t->claim_mappings.groups;
	groups->claim = FLAG(oidc_groups_claim);
	if (groups->claim.n) {
		groups->prefix = arena_new(a, struct str);
		*groups->prefix = FLAG(oidc_groups_prefix);
	}
	for (rest = FLAG(oidc_required_claims); rest.p && rest.n;) {
		struct str v = str_cut(&rest, ','), k = str_cut(&v, '=');
		struct apiserverconfig_v1_claim_validation_rule *r = arena_push(a, &t->claim_validation_rules);

		if (!v.p)
			return error_new("--oidc-required-claim \"%.*s\" is not of the form key=value", STR_ARG(k));
		r->claim = str_trim(k);
		r->required_value = v;
	}
	return NULL;
}

static struct error *signing_algs(struct apiserver *s, struct strings *out)
{
	/* a file accepts them all, the flags those that they name */
	struct str rest = s->o.authentication_config ? STR("ES256,ES384,ES512,PS256,PS384,PS512,RS256,RS384,RS512") :
			  s->o.oidc_signing_algs ? FLAG(oidc_signing_algs) : STR("RS256");

	while (rest.p && rest.n) {
		struct str alg = str_trim(str_cut(&rest, ','));

		if (!jws_alg_known(alg))
			return error_new("oidc: unsupported signing alg: \"%.*s\"", STR_ARG(alg));
		*arena_push(&s->arena, out) = alg;
	}
	return NULL;
}

/* ---- the file ---- */

static struct error *decode(struct arena *a, struct str text, authn_configuration *c)
{
	return config_decode(a, &apiserverconfig_v1_authentication_configuration_type, CONFIG_V1_AND_BETA("AuthenticationConfiguration"), text, c);
}

/* ---- flags ---- */

static struct error *no_blanks(const char *flag, const char *list)
{
	for (struct str rest = str_from(list); list && *list && rest.p;)
		if (!str_trim(str_cut(&rest, ',')).n)
			return error_new("empty value in \"%s\"", flag);
	return NULL;
}

/* The certificates of a PEM file; files that cannot be read are told of by whoever needs them. */
static STACK_OF(X509) *certificates_of(const char *path)
{
	STACK_OF(X509) *all = sk_X509_new_null();
	struct buf b buf_cleanup = {0};
	struct error *e = file_read(path, &b);
	BIO *bio = e ? NULL : BIO_new_mem_buf(b.p, (int)b.n);

	for (X509 *x; bio && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL));)
		sk_X509_push(all, x);
	BIO_free(bio);
	ERR_clear_error();
	error_free(e);
	return all;
}

static bool share_certificates(const char *one, const char *other)
{
	STACK_OF(X509) *a = certificates_of(one), *b = certificates_of(other);
	bool shared = false;

	for (int i = 0; i < sk_X509_num(a); i++)
		for (int k = 0; k < sk_X509_num(b); k++)
			shared |= X509_cmp(sk_X509_value(a, i), sk_X509_value(b, k)) == 0;
	sk_X509_pop_free(a, X509_free);
	sk_X509_pop_free(b, X509_free);
	return shared;
}

static bool has_nocase(const char *list, const char *name)
{
	for (struct str rest = str_from(list); rest.p;)
		if (str_eq_nocase(str_cut(&rest, ','), str_from(name)))
			return true;
	return false;
}

static struct error *issuers_check(const struct flag_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		struct arena a arena_cleanup = {0};
		struct str one = str_from(list->v[i]);
		const char *why = str_index(one, ':') >= 0 ? cel_uri_error(&a, one) : NULL;

		if (!one.n)
			return error_new("service-account-issuer should not be an empty string");
		if (why)
			return error_new("service-account-issuer \"%.*s\" contained a ':' but was not a valid URL: %s", STR_ARG(one), why);
		for (size_t k = 0; k < i; k++)
			if (str_eqz(one, list->v[k]))
				return error_new("service-account-issuer \"%.*s\" is already specified", STR_ARG(one));
	}
	return NULL;
}

struct error *authn_flags_check(struct apiserver *s)
{
	const struct options *o = &s->o;
	int64_t max = o->sa_max_token_expiration_s;

	TRY(issuers_check(&o->sa_issuers));
	if (o->sa_jwks_uri && *o->sa_jwks_uri && !str_has_prefix(str_from(o->sa_jwks_uri), STR("https://")))
		return error_new("service-account-jwks-uri requires https scheme, parsed as: %s", o->sa_jwks_uri);
	if (max && (max < 3600 || max > 1ll << 32))
		return error_new("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds");
	TRY(no_blanks("requestheader-username-headers", o->requestheader_username_headers));
	TRY(no_blanks("requestheader-group-headers", o->requestheader_group_headers));
	TRY(no_blanks("requestheader-extra-headers-prefix", o->requestheader_extra_prefixes));
	TRY(no_blanks("requestheader-allowed-names", o->requestheader_allowed_names));
	TRY(no_blanks("requestheader-uid-headers", o->requestheader_uid_headers));
	if (o->requestheader_uid_headers && *o->requestheader_uid_headers && !has_nocase(o->requestheader_uid_headers, "X-Remote-Uid"))
		return error_new("--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header: API aggregation would "
				 "not work");
	if (o->client_ca_file && o->requestheader_client_ca_file && !(o->requestheader_allowed_names && *o->requestheader_allowed_names) &&
	    share_certificates(o->client_ca_file, o->requestheader_client_ca_file))
		return error_new("--requestheader-client-ca-file and --client-ca-file contain overlapping certificates: without "
				 "--requestheader-allowed-names any client could say who it is");
	return NULL;
}

/* The file has changed: what it says replaces the old when its issuers are there. */
static bool reload(void *ctx, struct str text)
{
	char hash[METRICS_HASH];
	struct apiserver *s = ctx;
	struct authn *n = s->authn;
	arena_cleanup struct arena a = {0};
	authn_configuration *c = arena_new(&a, authn_configuration);
	struct field_errors fe = {.arena = &a};
	struct oidc *fresh = NULL, *old = n->oidc;
	struct error *e = decode(&a, text, c);

	if (!e) {
		anonymous_validate(&fe, c);
		oidc_validate(&fe, c, sa_issuers(s));
		if (!c->anonymous != !n->config->anonymous ||
		    (c->anonymous && !object_equal(&apiserverconfig_v1_anonymous_auth_config_type, c->anonymous, n->config->anonymous)))
			field_forbidden(&fe, FIELD_ROOT("anonymous"), "changed from initial configuration file");
		e = config_errors(&fe);
	}
	if (e) {
		metrics_reloaded(METRIC_AUTHN_RELOADS, METRIC_AUTHN_RELOAD_TIME, false);
		log_and_free(e, "reloading authentication config %s; the one before stays", s->o.authentication_config);
		return true; /* the same text is wrong for ever */
	}
	e = oidc_new(c, n->algs.v, n->algs.n, &fresh);
	if (!e)
		e = oidc_wait_ready(fresh, RELOAD_WAIT_MS);
	if (e) {
		metrics_reloaded(METRIC_AUTHN_RELOADS, METRIC_AUTHN_RELOAD_TIME, false);
		log_and_free(e, "reloading authentication config %s; the one before stays", s->o.authentication_config);
		oidc_unref(fresh);
		return false;
	}
	n->oidc = fresh;
	oidc_unref(old);
	authn_cache_clear(s);
	metrics_reloaded(METRIC_AUTHN_RELOADS, METRIC_AUTHN_RELOAD_TIME, true);
	metrics_hash(text, hash);
	metrics_in_use(METRIC_AUTHN_CONFIG, hash);
	log_info("reloaded authentication config %s", s->o.authentication_config);
	return true;
}

struct error *authn_config_init(struct apiserver *s)
{
	char hash[METRICS_HASH];
	struct authn *n = s->authn;
	authn_configuration *c = arena_new(&s->arena, authn_configuration);
	struct field_errors fe = {.arena = &s->arena};
	struct str text = STR_NULL;

	if (s->o.authentication_config && s->o.oidc_set)
		return error_new("authentication-config file and oidc-* flags are mutually exclusive");
	if (s->o.authentication_config) {
		TRY(error_wrap(config_file_read(&s->arena, s->o.authentication_config, &text), "authentication config"));
		TRY(error_wrap(decode(&s->arena, text, c), "authentication config %s", s->o.authentication_config));
	} else if (s->o.oidc_set) {
		TRY(from_oidc_flags(s, c));
	}
	anonymous_validate(&fe, c);
	oidc_validate(&fe, c, sa_issuers(s));
	TRY(error_wrap(config_errors(&fe), "invalid authentication configuration"));
	TRY(anonymous_init(s, c));
	TRY(signing_algs(s, &n->algs));
	n->config = c;
	TRY(oidc_new(c, n->algs.v, n->algs.n, &n->oidc));
	if (s->o.authentication_config) {
		metrics_hash(text, hash);
		metrics_in_use(METRIC_AUTHN_CONFIG, hash);
		config_file_follow(s->o.authentication_config, text, reload, s);
	}
	return NULL;
}
