#include "apiserver/runtime_config.h"

#include "base/log.h"

struct runtime_config {
	LIST(struct str_pair) pairs; /* one a key */
};

/* Served by upstream's v1.36 when asked for; not built here. */
static const char not_built[] =
	"admissionregistration.k8s.io/v1alpha1 admissionregistration.k8s.io/v1beta1 authentication.k8s.io/v1alpha1 "
	"authentication.k8s.io/v1beta1 "
	"certificates.k8s.io/v1alpha1 certificates.k8s.io/v1beta1 coordination.k8s.io/v1alpha2 "
	"coordination.k8s.io/v1beta1 "
	"internal.apiserver.k8s.io/v1alpha1 networking.k8s.io/v1beta1 resource.k8s.io/v1alpha3 resource.k8s.io/v1beta1 "
	"resource.k8s.io/v1beta2 "
	"scheduling.k8s.io/v1alpha2 storage.k8s.io/v1alpha1 storage.k8s.io/v1beta1 storagemigration.k8s.io/v1beta1";

/* Known to upstream still, and served no more: said of these, nothing changes. */
static const char removed[] =
	"admission.k8s.io/v1 admission.k8s.io/v1beta1 apiextensions.k8s.io/v1beta1 apiregistration.k8s.io/v1beta1 "
	"apps/v1beta1 apps/v1beta2 "
	"authorization.k8s.io/v1beta1 batch/v1beta1 discovery.k8s.io/v1beta1 events.k8s.io/v1beta1 extensions/v1beta1 "
	"flowcontrol.apiserver.k8s.io/v1beta1 flowcontrol.apiserver.k8s.io/v1beta2 "
	"flowcontrol.apiserver.k8s.io/v1beta3 imagepolicy.k8s.io/v1alpha1 "
	"node.k8s.io/v1alpha1 node.k8s.io/v1beta1 policy/v1beta1 rbac.authorization.k8s.io/v1alpha1 "
	"rbac.authorization.k8s.io/v1beta1 "
	"scheduling.k8s.io/v1beta1";

static const char *const of_versions[] = {"api/all", "api/ga", "api/beta", "api/alpha",
					  NULL}; /* in the order in which they count */

/* Whether the list has the group-version, or with no version any of the group. */
static bool listed(const char *list, struct str group, struct str version)
{
	for (struct str rest = str_from(list); rest.n;) {
		struct str v = str_cut(&rest, ' '), g = str_cut(&v, '/');

		if (str_eq(g, group) && (!version.n || str_eq(v, version)))
			return true;
	}
	return false;
}

static bool served(struct str group, struct str version)
{
	for (size_t i = 0; i < n_api_resources; i++)
		if (str_eq(api_resources[i]->group, group) &&
		    (!version.n || str_eq(api_resources[i]->version, version)))
			return true;
	return false;
}

static struct str_pair *pair_of(const struct runtime_config *c, struct str key)
{
	for (uint32_t i = 0; i < c->pairs.n; i++)
		if (str_eq(c->pairs.v[i].key, key))
			return &c->pairs.v[i];
	return NULL;
}

static void put(struct arena *a, struct runtime_config *c, struct str key, struct str value)
{
	struct str_pair *p = pair_of(c, key);

	if (!p) {
		p = arena_push(a, &c->pairs);
		p->key = key;
	}
	p->value = value;
}

/* Of a key alone, true. */
static bool read_bool(struct str v, bool *out)
{
	*out = !v.n;
	return !v.n || str_to_bool(v, out);
}

static bool is_of_versions(struct str key)
{
	for (size_t i = 0; of_versions[i]; i++)
		if (str_eqz(key, of_versions[i]))
			return true;
	return false;
}

static struct error *check(const struct str_pair *p)
{
	struct str rest = p->key, group, version;
	bool on;

	if (is_of_versions(p->key)) {
		if (!str_eqz(p->value, "true") && !str_eqz(p->value, "false"))
			return error_new("invalid value %.*s=%.*s", STR_ARG(p->key), STR_ARG(p->value));
		if (str_eqz(p->value, "true") && !str_eqz(p->key, "api/ga"))
			log_warn("--runtime-config=%.*s=true: no alpha and no beta versions are built here",
				 STR_ARG(p->key));
		return NULL;
	}
	group = str_cut(&rest, '/');
	if (!rest.p)
		return error_new("runtime-config invalid key %.*s", STR_ARG(p->key));
	version = str_cut(&rest, '/');
	if (!version.n || (rest.p && str_index(rest, '/') >= 0))
		return error_new("runtime-config invalid key %.*s", STR_ARG(p->key));
	if (!served(group, STR_NULL) && !listed(not_built, group, STR_NULL) && !listed(removed, group, STR_NULL))
		return error_new("unknown api groups %.*s/%.*s", STR_ARG(group), STR_ARG(version));
	if (!served(group, version) && !listed(not_built, group, version) && !listed(removed, group, version))
		return error_new("group version %.*s/%.*s that has not been registered", STR_ARG(group),
				 STR_ARG(version));
	if (!read_bool(p->value, &on))
		return error_new("invalid value of %.*s: %.*s", STR_ARG(p->key), STR_ARG(p->value));
	for (size_t i = 0; i < rest.n; i++)
		if (rest.p[i] >= 'A' && rest.p[i] <= 'Z')
			return error_new("invalid key %.*s: resources are lower case plurals", STR_ARG(p->key));
	if (on && listed(not_built, group, version))
		return error_new("%.*s/%.*s is an API of Kubernetes that is not built here", STR_ARG(group),
				 STR_ARG(version));
	return NULL;
}

struct error *runtime_config_parse(struct arena *a, const char *text, struct runtime_config **out)
{
	struct runtime_config *c = arena_new(a, struct runtime_config);

	*out = c;
	for (struct str rest = str_from(text ? text : ""); rest.n;) {
		struct str value = str_cut(&rest, ','), key = str_trim(str_cut(&value, '='));

		if (!key.n && !value.p)
			continue;
		value = str_trim(value);
		if (str_eqz(key, "api/legacy"))
			continue;
		/* the core's names of old; whatever is said of a part of it is said of it whole, as upstream's */
		if (str_eqz(key, "v1") || str_has_prefix(key, STR("v1/")) || str_eqz(key, "api/v1") ||
		    str_has_prefix(key, STR("api/v1/")))
			key = STR("/v1");
		put(a, c, key, value);
	}
	if (c->pairs.n == 1 && str_eqz(c->pairs.v[0].key, "api/all") && str_eqz(c->pairs.v[0].value, "false"))
		return error_new("invalid runtime-config with only api/all=false");
	for (uint32_t i = 0; i < c->pairs.n; i++)
		TRY(check(&c->pairs.v[i]));
	return NULL;
}

/* "v1" is ga; "v1beta1" beta, "v1alpha1" alpha. */
static bool of_stage(const char *key, struct str version)
{
	bool beta = str_contains(version, STR("beta")), alpha = str_contains(version, STR("alpha"));

	if (!strcmp(key, "api/ga"))
		return !beta && !alpha;
	if (!strcmp(key, "api/beta"))
		return beta;
	return !strcmp(key, "api/all") || alpha;
}

static void apply(const struct runtime_config *c, struct str key, bool *on)
{
	const struct str_pair *p = pair_of(c, key);

	if (p)
		read_bool(p->value, on);
}

bool runtime_config_serves(const struct runtime_config *c, const struct api_resource *r)
{
	struct arena a arena_cleanup = {0};
	bool on = true;

	for (size_t i = 0; of_versions[i]; i++)
		if (of_stage(of_versions[i], r->version))
			apply(c, str_from(of_versions[i]), &on);
	apply(c, arena_printf(&a, "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version)), &on);
	apply(c, arena_printf(&a, "%.*s/%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version), STR_ARG(r->plural)), &on);
	return on;
}

int runtime_config_said(const struct runtime_config *c, const char *const *keys)
{
	for (size_t i = 0; keys[i]; i++) {
		const struct str_pair *p = pair_of(c, str_from(keys[i]));

		if (p && (str_eqz(p->value, "true") || str_eqz(p->value, "false")))
			return str_eqz(p->value, "true");
	}
	return -1;
}
