#include "apiserver/abac.h"
#include "apiserver/config_file.h"
#include "base/log.h"

typedef struct abac_v1beta1_policy_spec spec;

/* Lines from before policies had versions: what is not said holds for all. */
static void from_unversioned(spec *p)
{
	bool anywhere = !p->namespace.n && !p->resource.n;

	if (!p->user.n && !p->group.n)
		p->group = STR("system:authenticated");
	if (!p->namespace.n)
		p->namespace = STR("*");
	if (!p->resource.n)
		p->resource = STR("*");
	p->api_group = STR("*");
	p->non_resource_path = anywhere ? STR("*") : STR("");
}

static struct error *parse_line(struct arena *a, struct str line, spec *out, bool *unversioned)
{
	struct abac_v1beta1_policy p = {0};
	struct str group, version;

	TRY(json_decode(a, &abac_v1beta1_policy_type, line, NULL, &p));
	api_version_split(p.api_version, &group, &version);
	*out = p.spec;
	if (!str_eqz(p.kind, "Policy") || !str_eqz(group, "abac.authorization.kubernetes.io") || !str_eqz(version, "v1beta1")) {
		*unversioned = true;
		memset(out, 0, sizeof *out);
		TRY(json_decode(a, &abac_v1beta1_policy_spec_type, line, NULL, out));
		from_unversioned(out);
	}
	if (str_eqz(out->user, "*") || str_eqz(out->group, "*")) {
		out->group = STR("system:authenticated");
		out->user = STR_NULL;
	}
	return NULL;
}

struct error *abac_parse(struct arena *a, struct str text, struct abac_policies *out)
{
	bool unversioned = false;
	int n = 0;

	for (struct str rest = text; rest.p && rest.n;) {
		struct str line = str_trim(str_cut(&rest, '\n'));

		n++;
		if (!line.n || line.p[0] == '#')
			continue;
		TRY(error_wrap(parse_line(a, line, arena_push(a, &out->v), &unversioned), "line %d", n));
	}
	if (unversioned)
		log_warn("the ABAC policy file has lines without a version");
	return NULL;
}

struct error *abac_read(struct arena *a, const char *path, struct abac_policies *out)
{
	struct str text;

	TRY(error_wrap(config_file_read(a, path, &text), "ABAC policy file"));
	return error_wrap(abac_parse(a, text, out), "ABAC policy file %s", path);
}

static bool subject_matches(const spec *p, const struct user *u)
{
	if (p->user.n && !str_eq(p->user, u->name))
		return false;
	for (size_t i = 0; p->group.n && i <= u->n_groups; i++) {
		if (i == u->n_groups)
			return false;
		if (str_eq(u->groups[i], p->group))
			break;
	}
	return p->user.n || p->group.n;
}

static bool is(struct str pattern, struct str v)
{
	return str_eqz(pattern, "*") || str_eq(pattern, v);
}

static bool path_matches(struct str pattern, struct str path)
{
	struct str stem = pattern;

	if (is(pattern, path))
		return true;
	while (stem.n && stem.p[stem.n - 1] == '*')
		stem.n--;
	return stem.n < pattern.n && str_has_prefix(path, stem);
}

static bool matches(const spec *p, const struct authz_attrs *at)
{
	bool reads = str_eqz(at->verb, "get") || str_eqz(at->verb, "list") || str_eqz(at->verb, "watch");

	if (!subject_matches(p, at->user) || (p->readonly && !reads))
		return false;
	if (!at->resource_request)
		return path_matches(p->non_resource_path, at->path);
	return is(p->namespace, at->ns) && is(p->resource, at->resource) && is(p->api_group, at->group);
}

enum authz abac_authorize(const struct abac_policies *p, const struct authz_attrs *at, struct str *reason)
{
	for (uint32_t i = 0; i < p->v.n; i++)
		if (matches(&p->v.v[i], at))
			return AUTHZ_ALLOW;
	*reason = STR("No policy matched.");
	return AUTHZ_NO_OPINION;
}

void abac_rules_for(const struct abac_policies *p, struct arena *a, const struct user *u, struct str ns, struct rbac_v1_policy_rule_list *out)
{
	static const char *const reads[] = {"get", "list", "watch"};

	for (uint32_t i = 0; i < p->v.n; i++) {
		const spec *s = &p->v.v[i];

		if (!subject_matches(s, u) || !is(s->namespace, ns))
			continue;
		for (int paths = 0; paths < 2; paths++) {
			struct str what = paths ? s->non_resource_path : s->resource;
			struct rbac_v1_policy_rule *r;

			if (!what.n)
				continue;
			r = arena_push(a, out);
			for (int k = 0; k < (s->readonly ? 3 : 1); k++)
				*arena_push(a, &r->verbs) = str_from(s->readonly ? reads[k] : "*");
			if (paths) {
				*arena_push(a, &r->non_resource_urls) = what;
			} else {
				*arena_push(a, &r->api_groups) = s->api_group;
				*arena_push(a, &r->resources) = what;
			}
		}
	}
}
