/* What configurations of admission webhooks may be: upstream's pkg/apis/admissionregistration/validation. */
#include "apiserver/extend.h"
#include "apiserver/policy.h"

typedef struct admissionregistration_v1_mutating_webhook_configuration mwc;
typedef struct admissionregistration_v1_validating_webhook_configuration vwc;
typedef struct admissionregistration_v1_mutating_webhook hook;

#define VERSIONS "v1, v1beta1"
#define URL_FORM "; desired format: https://host[/path]"

struct hooks { /* of either kind */
	const hook *v;
	uint32_t n;
};

static bool no_side_effects(const hook *h)
{
	return h->side_effects && (str_eqz(*h->side_effects, "None") || str_eqz(*h->side_effects, "NoneOnDryRun"));
}

static bool known_version(const hook *h)
{
	for (uint32_t i = 0; i < h->admission_review_versions.n; i++)
		if (str_eqz(h->admission_review_versions.v[i], "v1") || str_eqz(h->admission_review_versions.v[i], "v1beta1"))
			return true;
	return false;
}

static bool name_before(const struct hooks *h, uint32_t i)
{
	for (uint32_t k = 0; k < i; k++)
		if (h->v[k].name.n && str_eq(h->v[k].name, h->v[i].name))
			return true;
	return false;
}

static bool same_conditions(const hook *x, const hook *y)
{
	if (x->match_conditions.n != y->match_conditions.n)
		return false;
	for (uint32_t i = 0; i < x->match_conditions.n; i++)
		if (!str_eq(x->match_conditions.v[i].name, y->match_conditions.v[i].name) ||
		    !str_eq(x->match_conditions.v[i].expression, y->match_conditions.v[i].expression))
			return false;
	return true;
}

/* What an object that was there before may go on doing. */
struct leniency {
	bool side_effects, versions, names, conditions;
};

static struct leniency leniency_of(const struct hooks *now, const struct hooks *old)
{
	struct leniency l = {0};

	if (!old)
		return l;
	l.conditions = now->n == old->n;
	for (uint32_t i = 0; i < old->n; i++) {
		l.side_effects |= !no_side_effects(&old->v[i]);
		l.versions |= !known_version(&old->v[i]);
		l.names |= name_before(old, i);
		l.conditions = l.conditions && same_conditions(&now->v[i], &old->v[i]);
	}
	return l;
}

static void name_rules(struct field_errors *e, struct str name, const struct field_path *p)
{
	const char *m;
	size_t dots = 0;

	if (!name.n) {
		field_required(e, p, "");
		return;
	}
	m = validate_dns1123_subdomain(e->arena, name);
	for (size_t i = 0; i < name.n; i++)
		dots += name.p[i] == '.';
	if (m)
		field_invalid(e, p, name, "%s", m);
	else if (dots < 2)
		field_invalid(e, p, name, "should be a domain with at least three segments separated by dots");
}

static void url_rules(struct field_errors *e, struct str url, const struct field_path *p)
{
	struct str rest = url, scheme = STR(""), user, fragment = STR_NULL, query = STR_NULL;
	ptrdiff_t at;

	for (size_t i = 0; i < url.n; i++)
		if ((unsigned char)url.p[i] < ' ' || url.p[i] == 0x7f) {
			field_required(e, p, "url must be a valid URL: net/url: invalid control character in URL" URL_FORM);
			return;
		}
	at = str_index(rest, '#');
	if (at >= 0) {
		fragment = str_sub(rest, (size_t)at + 1, rest.n);
		rest = str_sub(rest, 0, (size_t)at);
	}
	at = str_index(rest, '?');
	if (at >= 0) {
		query = str_sub(rest, (size_t)at + 1, rest.n);
		rest = str_sub(rest, 0, (size_t)at);
	}
	at = str_index(rest, ':');
	if (!at) {
		field_required(e, p, "url must be a valid URL: missing protocol scheme" URL_FORM);
		return;
	}
	if (at > 0 && str_index(str_sub(rest, 0, (size_t)at), '/') < 0) {
		scheme = str_sub(rest, 0, (size_t)at);
		rest = str_sub(rest, (size_t)at + 1, rest.n);
	}
	if (str_has_prefix(rest, STR("//"))) {
		rest = str_sub(rest, 2, rest.n);
		at = str_index(rest, '/');
		if (at >= 0)
			rest = str_sub(rest, 0, (size_t)at);
	} else {
		rest = STR("");
	}
	user = STR_NULL;
	for (size_t i = rest.n; i-- > 0;)
		if (rest.p[i] == '@') {
			user = str_sub(rest, 0, i);
			rest = str_sub(rest, i + 1, rest.n);
			break;
		}
	if (scheme.n != 5 || strncasecmp(scheme.p, "https", 5))
		field_invalid(e, p, scheme, "'https' is the only allowed URL scheme" URL_FORM);
	if (!rest.n)
		field_invalid(e, p, STR(""), "host must be specified" URL_FORM);
	if (user.p)
		field_invalid(e, p, user, "user information is not permitted in the URL");
	if (fragment.n)
		field_invalid(e, p, fragment, "fragments are not permitted in the URL");
	if (query.n)
		field_invalid(e, p, query, "query parameters are not permitted in the URL");
}

static void path_rules(struct field_errors *e, struct str path, const struct field_path *p)
{
	struct str rest;

	if (!path.n || str_eqz(path, "/"))
		return;
	if (str_eqz(path, "//")) {
		field_invalid(e, p, path, "segment[0] may not be empty");
		return;
	}
	if (path.p[0] != '/')
		field_invalid(e, p, path, "must start with a '/'");
	rest = str_sub(path, 1, path.n);
	if (rest.n && rest.p[rest.n - 1] == '/')
		rest = str_sub(rest, 0, rest.n - 1);
	for (unsigned i = 0; rest.p; i++) {
		struct str step = str_cut(&rest, '/');
		const char *m = step.n ? validate_dns1123_subdomain(e->arena, step) : NULL;

		if (!step.n)
			field_invalid(e, p, path, "segment[%u] may not be empty", i);
		else if (m)
			field_invalid(e, p, path, "segment[%u]: %s", i, m);
	}
}

void webhook_client_check(struct field_errors *e, const struct admissionregistration_v1_webhook_client_config *c, const struct field_path *p)
{
	const struct field_path *s = FIELD_CHILD(p, "service");

	if (!c->url == !c->service) {
		field_required(e, p, "exactly one of url or service is required");
		return;
	}
	if (c->url) {
		url_rules(e, *c->url, FIELD_CHILD(p, "url"));
		return;
	}
	/* upstream mistakes one for the other */
	if (!c->service->namespace.n)
		field_required(e, FIELD_CHILD(s, "name"), "");
	if (!c->service->name.n)
		field_required(e, FIELD_CHILD(s, "namespace"), "");
	if (c->service->port && (*c->service->port < 1 || *c->service->port > 65535))
		field_invalid_int(e, FIELD_CHILD(s, "port"), *c->service->port, "port is not valid: must be between 1 and 65535, inclusive");
	if (c->service->path)
		path_rules(e, *c->service->path, FIELD_CHILD(s, "path"));
}

static void version_rules(struct field_errors *e, const hook *h, bool lenient, const struct field_path *p)
{
	const struct str *v = h->admission_review_versions.v;
	uint32_t n = h->admission_review_versions.n;
	struct buf list buf_cleanup = {0};

	if (!n) {
		field_required(e, p, "must specify one of " VERSIONS);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		const char *m = validate_dns1035_label(e->arena, v[i]);
		bool again = false;

		for (uint32_t k = 0; k < i; k++)
			again |= str_eq(v[k], v[i]);
		if (again)
			field_invalid(e, FIELD_INDEX(p, i), v[i], "duplicate version");
		else if (m)
			field_invalid(e, FIELD_INDEX(p, i), v[i], "%s", m);
		buf_printf(&list, "%s\"%.*s\"", i ? "," : "[", STR_ARG(v[i]));
	}
	buf_putc(&list, ']');
	if (!lenient && !known_version(h))
		field_invalid_raw(e, p, arena_str(e->arena, buf_view(&list)), "must include at least one of " VERSIONS);
}

static void side_effect_rules(struct field_errors *e, const hook *h, bool lenient, const struct field_path *p)
{
	if (!h->side_effects)
		field_required(e, p, lenient ? "must specify one of None, NoneOnDryRun, Some, Unknown" : "must specify one of None, NoneOnDryRun");
	else
		field_one_of(e, p, *h->side_effects, lenient ? "None,NoneOnDryRun,Some,Unknown" : "None,NoneOnDryRun");
}

static void hook_rules(struct field_errors *e, const hook *h, bool mutating, const struct leniency *l, const struct field_path *p)
{
	name_rules(e, h->name, FIELD_CHILD(p, "name"));
	for (uint32_t i = 0; i < h->rules.n; i++)
		operations_rule_validate(e, &h->rules.v[i], FIELD_INDEX(FIELD_CHILD(p, "rules"), i));
	if (h->failure_policy)
		field_one_of(e, FIELD_CHILD(p, "failurePolicy"), *h->failure_policy, "Fail,Ignore");
	if (h->match_policy)
		field_one_of(e, FIELD_CHILD(p, "matchPolicy"), *h->match_policy, "Equivalent,Exact");
	side_effect_rules(e, h, l->side_effects, FIELD_CHILD(p, "sideEffects"));
	if (h->timeout_seconds && (*h->timeout_seconds > 30 || *h->timeout_seconds < 1))
		field_invalid_int(e, FIELD_CHILD(p, "timeoutSeconds"), *h->timeout_seconds, "the timeout value must be between 1 and 30 seconds");
	if (h->namespace_selector)
		validate_label_selector(e, h->namespace_selector, FIELD_CHILD(p, "namespaceSelector"));
	if (h->object_selector)
		validate_label_selector(e, h->object_selector, FIELD_CHILD(p, "objectSelector"));
	if (mutating && h->reinvocation_policy)
		field_one_of(e, FIELD_CHILD(p, "reinvocationPolicy"), *h->reinvocation_policy, "IfNeeded,Never");
	webhook_client_check(e, &h->client_config, FIELD_CHILD(p, "clientConfig"));
	if (!l->conditions)
		match_conditions_validate(e, h->match_conditions.v, h->match_conditions.n, false, FIELD_CHILD(p, "matchConditions"));
	version_rules(e, h, l->versions, FIELD_CHILD(p, "admissionReviewVersions"));
}

static void hooks_rules(struct field_errors *e, struct hooks now, const struct hooks *old, bool mutating)
{
	struct leniency l = leniency_of(&now, old);

	for (uint32_t i = 0; i < now.n; i++) {
		const struct field_path *p = FIELD_INDEX(FIELD_ROOT("webhooks"), i);

		hook_rules(e, &now.v[i], mutating, &l, p);
		if (!l.names && name_before(&now, i))
			field_duplicate(e, FIELD_CHILD(p, "name"), now.v[i].name);
	}
}

static void mwc_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const mwc *o = obj, *was = old;
	struct hooks before = {was ? was->webhooks.v : NULL, was ? was->webhooks.n : 0};

	hooks_rules(e, (struct hooks){o->webhooks.v, o->webhooks.n}, was ? &before : NULL, true);
}

static void mwc_create(struct request *rq, const void *obj, struct field_errors *e)
{
	mwc_update(rq, obj, NULL, e);
}

static struct hooks validating(struct arena *a, const vwc *o)
{
	hook *v = arena_array(a, hook, o->webhooks.n);

	for (uint32_t i = 0; i < o->webhooks.n; i++)
		webhook_as_mutating(&o->webhooks.v[i], &v[i]);
	return (struct hooks){v, o->webhooks.n};
}

static void vwc_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	struct hooks before = {0};

	if (old)
		before = validating(e->arena, old);
	hooks_rules(e, validating(e->arena, obj), old ? &before : NULL, false);
}

static void vwc_create(struct request *rq, const void *obj, struct field_errors *e)
{
	vwc_update(rq, obj, NULL, e);
}

#define HOOKS(var, res, ...)                                                                                                          \
	const struct strategy var = {.group = STR_INIT("admissionregistration.k8s.io"), .plural = STR_INIT(res), .generation = true,  \
				     .no_unconditional_update = true, .checks_all = true, .meta_create = "m*", .meta_update = "m*", __VA_ARGS__}

HOOKS(strategy_vwc, "validatingwebhookconfigurations", .generation_exact = true, .validate = vwc_create, .validate_update = vwc_update);
HOOKS(strategy_mwc, "mutatingwebhookconfigurations", .generation_exact = true, .validate = mwc_create, .validate_update = mwc_update);
