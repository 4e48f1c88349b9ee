/* EncryptionConfiguration: decoding, upstream's validation (pkg/apis/apiserver/validation), reload. */
#include <ctype.h>
#include "apiserver/config_file.h"
#include "apiserver/encrypt_internal.h"
#include "apiserver/metrics.h"
#include "base/log.h"
#include "loop/fiber.h"

#define KMS_TIMEOUT_NS 3000000000 /* default of a call */
#define RELOAD_WAIT_MS 10000      /* for the plugins of a new file to be well: this, or twice their timeouts */
#define RELOAD_STEP_MS 100

typedef struct apiserverconfig_v1_encryption_configuration configuration;
typedef struct apiserverconfig_v1_provider_configuration provider_configuration;
typedef struct apiserverconfig_v1_kms_configuration kms_configuration;

/* ---- rules of upstream ---- */

struct names {
	LIST(struct str) v;
};

/* "deployments.apps" as (apps, deployments); "*." is everything of the core group. */
static void split_resource(struct str text, struct str *group, struct str *resource)
{
	*group = text;
	*resource = str_cut(group, '.');
}

static void check_overlap(struct field_errors *e, const struct field_path *at, const struct strings *list)
{
	bool twice = false, overlap = false;

	for (uint32_t i = 0; i < list->n; i++)
		for (uint32_t k = 0; k < list->n; k++) {
			struct str g1, r1, g2, r2;

			if (i == k)
				continue;
			split_resource(list->v[i], &g1, &r1);
			split_resource(list->v[k], &g2, &r2);
			if (str_eq(g1, g2) && str_eq(r1, r2))
				twice = true;
			else if ((str_eqz(g1, "*") && str_eqz(r1, "*")) || (str_eq(g1, g2) && (str_eqz(r1, "*") || str_eqz(r2, "*"))))
				overlap = true;
		}
	if (twice)
		field_invalid_list(e, at, list, "the same resource stands here more than once");
	if (overlap)
		field_invalid_list(e, at, list, "one of these covers another, such as '*.' covers 'secrets'");
}

static const char *bad_resource(struct str r)
{
	struct str group, resource;

	for (size_t i = 0; i < r.n; i++)
		if (isupper((unsigned char)r.p[i]))
			return "names of resources have no capital letters";
	if (str_eqz(r, "*"))
		return "use '*.' for all resources of the core group, '*.*' for all resources";
	if (str_eqz(r, "apiserveripinfo") || str_eqz(r, "serviceipallocations") || str_eqz(r, "servicenodeportallocations"))
		return "resources without a REST API cannot be encrypted";
	split_resource(r, &group, &resource);
	if (str_eqz(group, "events.k8s.io"))
		return "these objects are stored as those of the core group's 'events': name that";
	if (str_eqz(group, "extensions"))
		return "the group 'extensions' is no more";
	if (str_eqz(group, "*") && !str_eqz(resource, "*"))
		return "one resource of all groups cannot be named";
	return NULL;
}

static void check_keys(struct field_errors *e, const struct field_path *at, const struct apiserverconfig_v1_aes_configuration *c, bool only32)
{
	const struct field_path *keys = FIELD_CHILD(at, "keys");

	if (!c->keys.n)
		field_required(e, keys, "at least one key is required");
	for (uint32_t i = 0; i < c->keys.n; i++) {
		const struct field_path *p = FIELD_INDEX(keys, i);
		struct str secret;

		if (!c->keys.v[i].name.n)
			field_required(e, FIELD_CHILD(p, "name"), "a key has a name");
		if (!c->keys.v[i].secret.n)
			field_required(e, FIELD_CHILD(p, "secret"), "a key has a secret");
		else if (!base64_decode(e->arena, c->keys.v[i].secret, &secret))
			field_invalid(e, FIELD_CHILD(p, "secret"), STR("REDACTED"), "secrets must be base64 encoded");
		else if (secret.n != 32 && (only32 || (secret.n != 16 && secret.n != 24)))
			field_invalid(e, FIELD_CHILD(p, "secret"), STR("REDACTED"), "secret is not of the expected length, got %zu, expected one of %s",
				      secret.n, only32 ? "[32]" : "[16 24 32]");
	}
}

static void check_kms(struct field_errors *e, const struct field_path *at, const kms_configuration *c, struct names *seen, bool reload)
{
	bool v1 = !c->api_version.n || str_eqz(c->api_version, "v1");

	if (!c->name.n)
		field_required(e, FIELD_CHILD(at, "name"), "a provider has a name");
	if (!v1 && str_index(c->name, ':') >= 0)
		field_invalid(e, FIELD_CHILD(at, "name"), c->name, "the name of a KMS provider must not contain ':'");
	for (uint32_t i = 0; (reload || !v1) && i < seen->v.n; i++)
		if (str_eq(seen->v.v[i], c->name)) {
			field_invalid(e, FIELD_CHILD(at, "name"), c->name, "names of KMS providers must be unique");
			break;
		}
	*arena_push(e->arena, &seen->v) = c->name;
	if (c->timeout && *c->timeout <= 0)
		field_invalid(e, FIELD_CHILD(at, "timeout"), duration_format(e->arena, *c->timeout), "timeout should be a positive value");
	if (!c->endpoint.n)
		field_invalid(e, FIELD_CHILD(at, "endpoint"), STR(""), "a KMS provider has an endpoint");
	else if (!str_has_prefix(c->endpoint, STR("unix:///")) || c->endpoint.n == 8)
		field_invalid(e, FIELD_CHILD(at, "endpoint"), c->endpoint, "only unix:///PATH is supported for a KMS provider");
	if (c->cachesize && !v1)
		field_invalid_int(e, FIELD_CHILD(at, "cachesize"), *c->cachesize, "cachesize is not supported in v2");
	if (c->cachesize && v1 && *c->cachesize == 0)
		field_invalid_int(e, FIELD_CHILD(at, "cachesize"), 0, "cachesize should be a positive value, or negative to disable");
	if (!v1 && !str_eqz(c->api_version, "v2"))
		field_invalid(e, FIELD_CHILD(at, "apiVersion"), c->api_version, "only v1 and v2 are versions of KMS providers");
}

static void check_provider(struct field_errors *e, const struct field_path *p, const provider_configuration *c, struct names *seen, bool reload)
{
	int found = !!c->aesgcm + !!c->aescbc + !!c->secretbox + !!c->identity + !!c->kms;

	if (found != 1)
		field_invalid_raw(e, p, STR("{}"), found ? "one element has one provider: make a list of them" :
							   "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity");
	if (c->kms)
		check_kms(e, FIELD_CHILD(p, "kms"), c->kms, seen, reload);
	else if (c->aesgcm)
		check_keys(e, FIELD_CHILD(p, "aesgcm"), c->aesgcm, false);
	else if (c->aescbc)
		check_keys(e, FIELD_CHILD(p, "aescbc"), c->aescbc, false);
	else if (c->secretbox)
		check_keys(e, FIELD_CHILD(p, "secretbox"), (const void *)c->secretbox, true);
}

static struct error *check(struct arena *a, const configuration *c, bool reload)
{
	struct field_errors e = {.arena = a};
	struct names seen = {0};
	const struct field_path *root = FIELD_ROOT("resources");

	if (!c->resources.n)
		field_required(&e, root, "at least one entry is required");
	for (uint32_t i = 0; i < c->resources.n; i++) {
		const struct apiserverconfig_v1_resource_configuration *r = &c->resources.v[i];
		const struct field_path *at = FIELD_INDEX(root, i), *res = FIELD_CHILD(at, "resources"), *prov = FIELD_CHILD(at, "providers");

		if (!r->resources.n)
			field_required(&e, res, "at least one resource is required");
		check_overlap(&e, res, (const struct strings *)&r->resources);
		for (uint32_t k = 0; k < r->resources.n; k++) {
			const char *why = bad_resource(r->resources.v[k]);

			if (why)
				field_invalid(&e, FIELD_INDEX(res, k), r->resources.v[k], "%s", why);
		}
		if (!r->providers.n)
			field_required(&e, prov, "at least one provider is required");
		for (uint32_t k = 0; k < r->providers.n; k++)
			check_provider(&e, FIELD_INDEX(prov, k), &r->providers.v[k], &seen, reload);
	}
	return config_errors(&e);
}

/* ---- from the file ---- */

struct providers { /* in the set's arena */
	LIST(struct provider *) v;
};

static void add_keys(struct encryption_set *set, struct providers *out, enum provider_kind kind, const char *name,
		     const struct apiserverconfig_v1_aes_configuration *c)
{
	for (uint32_t i = 0; i < c->keys.n; i++) {
		struct provider *p = arena_new(&set->arena, struct provider);
		struct str secret;
		char digest[METRICS_HASH];

		/* check() has seen that it is base64 of a right length */
		base64_decode(&set->arena, c->keys.v[i].secret, &secret);
		p->kind = kind;
		p->bits = (int)secret.n * 8;
		memcpy(p->key, secret.p, secret.n);
		p->shown = arena_printf(&set->arena, "k8s:enc:%s:v1:", name);
		p->prefix = arena_printf(&set->arena, "%.*s%.*s:", STR_ARG(p->shown), STR_ARG(c->keys.v[i].name));
		metrics_hash(str_of((const char *)p->key, sizeof p->key), digest);
		p->seal = arena_printf(&set->arena, "%.*s%s", STR_ARG(p->prefix), digest);
		*arena_push(&set->arena, &out->v) = p;
	}
}

static struct error *add_kms(struct apiserver *s, struct encryption_set *set, struct providers *out, const kms_configuration *c)
{
	int64_t ms = (c->timeout ? *c->timeout : KMS_TIMEOUT_NS) / 1000000;
	struct provider *p = arena_new(&set->arena, struct provider);

	if (!str_eqz(c->api_version, "v2"))
		return error_new("KMS provider %.*s: KMS v1 is deprecated and not supported; give apiVersion: v2", STR_ARG(c->name));
	ms = ms ? ms : 1;
	TRY(error_wrap(kms_new(s, c->name, c->endpoint, ms, &p->kms), "KMS provider %.*s", STR_ARG(c->name)));
	*arena_push(&set->arena, &set->kms) = p->kms;
	set->timeouts_ms += ms;
	p->kind = KMS;
	p->prefix = p->shown = arena_printf(&set->arena, "k8s:enc:kms:v2:%.*s:", STR_ARG(c->name));
	*arena_push(&set->arena, &out->v) = p;
	return NULL;
}

static struct error *add_provider(struct apiserver *s, struct encryption_set *set, struct providers *out, const provider_configuration *c)
{
	if (c->kms)
		return add_kms(s, set, out, c->kms);
	if (c->aescbc)
		add_keys(set, out, AESCBC, "aescbc", c->aescbc);
	else if (c->aesgcm)
		add_keys(set, out, AESGCM, "aesgcm", c->aesgcm);
	else if (c->secretbox)
		add_keys(set, out, SECRETBOX, "secretbox", (const void *)c->secretbox);
	else
		*arena_push(&set->arena, &out->v) = arena_new(&set->arena, struct provider);
	return NULL;
}

static const struct encryption_rule *rule_of(const struct encryption_set *set, const char *group, const char *resource)
{
	for (uint32_t i = 0; i < set->rules.n; i++)
		if (str_eqz(set->rules.v[i].group, group) && str_eqz(set->rules.v[i].resource, resource))
			return &set->rules.v[i];
	return NULL;
}

const struct encryption_rule *encryption_set_rule(const struct encryption_set *set, struct str group, struct str plural)
{
	struct arena a arena_cleanup = {0};
	const char *g = arena_strz(&a, group);
	const struct encryption_rule *r = rule_of(set, g, arena_strz(&a, plural));

	r = r ? r : rule_of(set, g, "*");
	return r ? r : rule_of(set, "*", "*");
}

/* The providers of one entry belong to each of its resources, behind those of earlier entries. */
static struct error *add_rule(struct encryption_set *set, struct str text, const struct providers *p)
{
	struct arena *a = &set->arena;
	struct str group, resource;
	struct encryption_rule *r;

	split_resource(text, &group, &resource);
	if (rule_of(set, arena_strz(a, group), "*") || rule_of(set, "*", "*"))
		return error_new("resource \"%.*s\" is masked by an earlier rule for all of its group", STR_ARG(text));
	r = (struct encryption_rule *)(uintptr_t)rule_of(set, arena_strz(a, group), arena_strz(a, resource));
	if (!r)
		r = arena_push(a, &set->rules);
	r->group = group;
	r->resource = resource;
	for (uint32_t i = 0; i < p->v.n; i++)
		*arena_push(a, &r->providers) = p->v.v[i];
	return NULL;
}

static struct error *fill(struct apiserver *s, struct encryption_set *set, struct str text, bool reload)
{
	configuration *c = arena_new(&set->arena, configuration);

	TRY(config_decode(&set->arena, &apiserverconfig_v1_encryption_configuration_type, CONFIG_V1("EncryptionConfiguration") "|EncryptionConfig of v1", text, c));
	TRY(check(&set->arena, c, reload));
	for (uint32_t i = 0; i < c->resources.n; i++) {
		const struct apiserverconfig_v1_resource_configuration *r = &c->resources.v[i];
		struct providers p = {0};

		for (uint32_t k = 0; k < r->providers.n; k++)
			TRY(add_provider(s, set, &p, &r->providers.v[k]));
		for (uint32_t k = 0; k < r->resources.n; k++)
			TRY(add_rule(set, r->resources.v[k], &p));
	}
	return NULL;
}

struct error *encryption_set_new(struct apiserver *s, struct str text, bool reload, struct encryption_set **out)
{
	struct encryption_set *set = xcalloc(1, sizeof *set);
	struct error *e;

	set->refs = 1;
	metrics_hash(text, set->hash);
	e = fill(s, set, text, reload);
	if (e) {
		encryption_set_unref(set);
		*out = NULL;
		return e;
	}
	for (uint32_t i = 0; i < set->kms.n; i++)
		kms_start(set->kms.v[i]);
	*out = set;
	return NULL;
}

void encryption_set_unref(struct encryption_set *set)
{
	if (!set || --set->refs)
		return;
	for (uint32_t i = 0; i < set->kms.n; i++) {
		kms_stop(set->kms.v[i]);
		kms_free(set->kms.v[i]);
	}
	arena_free(&set->arena);
	free(set);
}

/* ---- reload ---- */

static struct error *wait_well(struct encryption_set *set)
{
	int64_t ms = 2 * set->timeouts_ms, end = now_ms() + (ms > RELOAD_WAIT_MS ? ms : RELOAD_WAIT_MS);
	struct error *e;

	for (;;) {
		e = NULL;
		for (uint32_t i = 0; !e && i < set->kms.n; i++)
			e = kms_check(set->kms.v[i]);
		if (!e || now_ms() >= end)
			return e;
		error_free(e);
		TRY(fiber_sleep(RELOAD_STEP_MS));
	}
}

/* The file has changed: what it says holds when its plugins are well. */
static bool reload(void *ctx, struct str text)
{
	struct apiserver *s = ctx;
	struct encryption_set *set;
	struct error *e = encryption_set_new(s, text, true, &set);
	bool again = false;

	if (!e) {
		again = true;
		e = wait_well(set);
	}
	if (e) {
		log_and_free(e, "reloading encryption config %s; the one before stays", s->o.encryption_config);
		encryption_set_unref(set);
		metrics_reloaded(METRIC_ENCRYPTION_RELOADS, METRIC_ENCRYPTION_RELOAD_TIME, false);
		return !again; /* a text that is wrong is wrong for ever */
	}
	metrics_in_use(METRIC_ENCRYPTION_CONFIG, set->hash);
	encryption_set_use(set);
	metrics_reloaded(METRIC_ENCRYPTION_RELOADS, METRIC_ENCRYPTION_RELOAD_TIME, true);
	log_info("reloaded encryption config %s", s->o.encryption_config);
	return true;
}

struct error *encryption_init(struct apiserver *s)
{
	bool follow = s->o.encryption_config_reload;
	struct encryption_set *set;
	struct str text;

	if (!s->o.encryption_config || !*s->o.encryption_config)
		return follow ? error_new("--encryption-provider-config-automatic-reload needs --encryption-provider-config") : NULL;
	TRY(error_wrap(config_file_read(&s->arena, s->o.encryption_config, &text), "encryption config"));
	TRY(error_wrap(encryption_set_new(s, text, follow, &set), "encryption config %s", s->o.encryption_config));
	metrics_in_use(METRIC_ENCRYPTION_CONFIG, set->hash);
	encryption_set_use(set);
	if (follow)
		config_file_follow(s->o.encryption_config, text, reload, s);
	return NULL;
}
