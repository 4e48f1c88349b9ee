/* The pod spec, and templates of pods: what stands beside the containers and volumes. */
#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

/* ---- affinity and spreading ---- */

static void label_keys(struct field_errors *e, const struct field_path *p, const struct strings *keys, bool selector)
{
	if (keys->n && !selector)
		field_forbidden(e, p, "must not be specified when labelSelector is not set");
	for (uint32_t i = 0; i < keys->n && selector; i++)
		field_check(e, EL(p, i), keys->v[i], validate_qualified_name);
}

/* Keys of the selector that the server added from matchLabelKeys stand there once; written by hand, too, they are an error. */
static void match_label_keys(struct field_errors *e, const struct field_path *p, const struct strings *match, const struct strings *mismatch,
			     const struct meta_v1_label_selector *s)
{
	struct strings seen = {0};

	label_keys(e, AT(p, "matchLabelKeys"), match, s != NULL);
	label_keys(e, AT(p, "mismatchLabelKeys"), mismatch, s != NULL);
	for (uint32_t i = 0; s && i < s->match_labels.n; i++)
		*arena_push(e->arena, &seen) = s->match_labels.v[i].key;
	for (uint32_t i = 0; s && i < s->match_expressions.n; i++) {
		struct str key = s->match_expressions.v[i].key;

		for (uint32_t k = match->n; k-- > 0;)
			if (str_eq(match->v[k], key)) {
				if (strings_have(&seen, key))
					field_invalid(e, EL(p, k), key, "exists in both matchLabelKeys and labelSelector");
				break;
			}
		*arena_push(e->arena, &seen) = key;
	}
	for (uint32_t i = 0; i < match->n; i++)
		if (strings_have(mismatch, match->v[i]))
			field_invalid(e, EL(AT(p, "matchLabelKeys"), i), match->v[i], "exists in both matchLabelKeys and mismatchLabelKeys");
}

static void affinity_term(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_affinity_term *t, const struct pod_options *o)
{
	validate_label_selector_lax(e, t->label_selector, AT(p, "labelSelector"), o->lax_selectors);
	validate_label_selector_lax(e, t->namespace_selector, AT(p, "namespaceSelector"), o->lax_selectors);
	for (uint32_t i = 0; i < t->namespaces.n; i++)
		field_check(e, AT(p, "namespace"), t->namespaces.v[i], validate_dns1123_label);
	match_label_keys(e, p, (const void *)&t->match_label_keys, (const void *)&t->mismatch_label_keys, t->label_selector);
	if (!t->topology_key.n)
		field_required(e, AT(p, "topologyKey"), "can not be empty");
	field_check(e, AT(p, "topologyKey"), t->topology_key, validate_qualified_name);
}

static void weight(struct field_errors *e, const struct field_path *p, int32_t w)
{
	if (w <= 0 || w > 100)
		field_invalid_int(e, AT(p, "weight"), w, "must be in the range 1-100");
}

/* PodAffinity and PodAntiAffinity have the same members. */
_Static_assert(sizeof(struct core_v1_pod_affinity) == sizeof(struct core_v1_pod_anti_affinity), "one rule for both");

static void pod_affinity(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_affinity *a, const struct pod_options *o)
{
	const struct field_path *req = AT(p, "requiredDuringSchedulingIgnoredDuringExecution"),
				*pref = AT(p, "preferredDuringSchedulingIgnoredDuringExecution");

	if (!a)
		return;
	for (uint32_t i = 0; i < a->required_during_scheduling_ignored_during_execution.n; i++)
		affinity_term(e, EL(req, i), &a->required_during_scheduling_ignored_during_execution.v[i], o);
	for (uint32_t i = 0; i < a->preferred_during_scheduling_ignored_during_execution.n; i++) {
		const struct core_v1_weighted_pod_affinity_term *t = &a->preferred_during_scheduling_ignored_during_execution.v[i];

		weight(e, EL(pref, i), t->weight);
		affinity_term(e, AT(EL(pref, i), "podAffinityTerm"), &t->pod_affinity_term, o);
	}
}

static void affinity(struct field_errors *e, const struct field_path *p, const struct core_v1_affinity *a, const struct pod_options *o)
{
	if (!a)
		return;
	if (a->node_affinity) {
		const struct core_v1_node_affinity *n = a->node_affinity;
		const struct field_path *at = AT(p, "nodeAffinity"), *pref = AT(at, "preferredDuringSchedulingIgnoredDuringExecution");

		if (n->required_during_scheduling_ignored_during_execution)
			rule_node_selector(e, AT(at, "requiredDuringSchedulingIgnoredDuringExecution"),
					   n->required_during_scheduling_ignored_during_execution, o->lax_node_affinity);
		for (uint32_t i = 0; i < n->preferred_during_scheduling_ignored_during_execution.n; i++) {
			const struct core_v1_preferred_scheduling_term *t = &n->preferred_during_scheduling_ignored_during_execution.v[i];

			weight(e, EL(pref, i), t->weight);
			rule_node_selector_term(e, AT(EL(pref, i), "preference"), &t->preference, true);
		}
	}
	pod_affinity(e, AT(p, "podAffinity"), a->pod_affinity, o);
	pod_affinity(e, AT(p, "podAntiAffinity"), (const void *)a->pod_anti_affinity, o);
}

static void topology_spread(struct field_errors *e, const struct field_path *list, const struct core_v1_pod_spec *s, const struct pod_options *o)
{
	for (uint32_t i = 0; i < s->topology_spread_constraints.n; i++) {
		const struct core_v1_topology_spread_constraint *c = &s->topology_spread_constraints.v[i];
		const struct field_path *p = EL(list, i);
		static const struct strings none;

		rule_positive(e, AT(p, "maxSkew"), c->max_skew);
		if (!c->topology_key.n)
			field_required(e, AT(p, "topologyKey"), "can not be empty");
		field_one_of(e, AT(p, "whenUnsatisfiable"), c->when_unsatisfiable, "DoNotSchedule,ScheduleAnyway");
		for (uint32_t k = i + 1; k < s->topology_spread_constraints.n; k++)
			if (str_eq(c->topology_key, s->topology_spread_constraints.v[k].topology_key) &&
			    str_eq(c->when_unsatisfiable, s->topology_spread_constraints.v[k].when_unsatisfiable)) {
				field_duplicate(e, AT(p, "{topologyKey, whenUnsatisfiable}"),
						arena_printf(e->arena, "{%.*s, %.*s}", STR_ARG(c->topology_key), STR_ARG(c->when_unsatisfiable)));
				break;
			}
		if (c->min_domains) {
			rule_positive(e, AT(p, "minDomains"), *c->min_domains);
			if (!str_eqz(c->when_unsatisfiable, "DoNotSchedule"))
				field_invalid_int(e, AT(p, "minDomains"), *c->min_domains,
						  "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %.*s", STR_ARG(c->when_unsatisfiable));
		}
		if (c->node_affinity_policy)
			field_one_of(e, AT(p, "nodeAffinityPolicy"), *c->node_affinity_policy, "Honor,Ignore");
		if (c->node_taints_policy)
			field_one_of(e, AT(p, "nodeTaintsPolicy"), *c->node_taints_policy, "Honor,Ignore");
		if (!o->lax_match_label_keys)
			match_label_keys(e, p, (const void *)&c->match_label_keys, &none, c->label_selector);
		else
			label_keys(e, AT(p, "matchLabelKeys"), (const void *)&c->match_label_keys, c->label_selector != NULL);
		if (!o->lax_spread_selector)
			validate_label_selector(e, c->label_selector, AT(p, "labelSelector"));
	}
}

/* ---- DNS ---- */

#define DNS_SERVERS_MAX 3
#define DNS_SEARCHES_MAX 32
#define DNS_SEARCH_CHARS_MAX 2048

static void dns(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, const struct pod_options *o)
{
	const struct core_v1_pod_dns_config *d = s->dns_config;
	size_t chars = 0;

	if (str_eqz(s->dns_policy, "None")) {
		if (!d) {
			field_required(e, p, "must provide `dnsConfig` when `dnsPolicy` is None");
			return;
		}
		if (!d->nameservers.n) {
			field_required(e, AT(p, "nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
			return;
		}
	}
	if (!d)
		return;
	if (d->nameservers.n > DNS_SERVERS_MAX)
		field_invalid_list(e, AT(p, "nameservers"), (const void *)&d->nameservers, "must not have more than %d nameservers", DNS_SERVERS_MAX);
	for (uint32_t i = 0; i < d->nameservers.n; i++)
		rule_legacy_ip(e, EL(AT(p, "nameservers"), i), d->nameservers.v[i], NULL, 0);
	if (d->searches.n > DNS_SEARCHES_MAX)
		field_invalid_list(e, AT(p, "searches"), (const void *)&d->searches, "must not have more than %d search paths", DNS_SEARCHES_MAX);
	for (uint32_t i = 0; i < d->searches.n; i++)
		chars += d->searches.v[i].n + (i > 0);
	if (chars > DNS_SEARCH_CHARS_MAX)
		field_invalid_list(e, AT(p, "searches"), (const void *)&d->searches,
				   "must not have more than %d characters (including spaces) in the search list", DNS_SEARCH_CHARS_MAX);
	for (uint32_t i = 0; i < d->searches.n; i++) {
		struct str v = d->searches.v[i];

		if (str_eqz(v, "."))
			continue;
		if (v.n && v.p[v.n - 1] == '.')
			v = str_sub(v, 0, v.n - 1);
		field_check(e, EL(AT(p, "searches"), i), v, validate_dns1123_subdomain_underscore);
	}
	for (uint32_t i = 0; i < d->options.n; i++)
		if (!d->options.v[i].name.n)
			field_required(e, EL(AT(p, "options"), i), "must not be empty");
	(void)o;
}

/* ---- security of the pod ---- */

static bool sysctl_name(struct str s)
{
	bool edge = true; /* at the start of a segment */

	if (!s.n || s.n > 253)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'), sep = c == '.' || c == '/';

		if (sep ? edge || s.p[i - 1] == '-' || s.p[i - 1] == '_' : !alnum && (edge || (c != '-' && c != '_')))
			return false;
		edge = sep;
	}
	return !edge && s.p[s.n - 1] != '-' && s.p[s.n - 1] != '_';
}

static const char *sysctl_on_host(struct arena *a, struct str name, const struct core_v1_pod_spec *s)
{
	static const char *const ipc[] = {"kernel.shm", "kernel.msg", "fs.mqueue."};
	char *z = arena_strz(a, name);
	struct str n = str_of(z, name.n);
	bool is_ipc;

	str_sysctl_dots(z, name.n);
	is_ipc = str_eqz(n, "kernel.sem");
	for (size_t i = 0; i < sizeof ipc / sizeof *ipc; i++)
		is_ipc |= str_has_prefix(n, str_from(ipc[i]));
	if (s->host_network && str_has_prefix(n, STR("net.")))
		return "may not be specified when 'hostNetwork' is true";
	return s->host_ipc && is_ipc ? "may not be specified when 'hostIPC' is true" : NULL;
}

static void pod_security(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, const struct pod_options *o)
{
	const struct core_v1_pod_security_context *sc = s->security_context;

	if (!sc)
		return;
	rule_id(e, AT(p, "fsGroup"), sc->fs_group);
	rule_id(e, AT(p, "runAsUser"), sc->run_as_user);
	rule_id(e, AT(p, "runAsGroup"), sc->run_as_group);
	for (uint32_t i = 0; i < sc->supplemental_groups.n; i++)
		rule_id(e, EL(AT(p, "supplementalGroups"), i), &sc->supplemental_groups.v[i]);
	if (is_true(s->share_process_namespace) && s->host_pid)
		field_invalid_raw(e, AT(p, "shareProcessNamespace"), STR("true"), "ShareProcessNamespace and HostPID cannot both be enabled");
	for (uint32_t i = 0; i < sc->sysctls.n; i++) {
		struct str name = sc->sysctls.v[i].name;
		const struct field_path *at = AT(EL(AT(p, "sysctls"), i), "name");
		const char *host = o->lax_host_sysctls ? NULL : sysctl_on_host(e->arena, name, s);

		if (!name.n) {
			field_required(e, at, "");
		} else if (!sysctl_name(name)) {
			field_invalid(e, at, name, "must have at most 253 characters and match regex "
				      "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
		} else {
			for (uint32_t k = 0; k < i; k++)
				if (str_eq(sc->sysctls.v[k].name, name)) {
					field_duplicate(e, at, name);
					break;
				}
		}
		if (host)
			field_invalid(e, at, name, "%s", host);
	}
	if (sc->fs_group_change_policy)
		field_one_of(e, AT(p, "fsGroupChangePolicy"), *sc->fs_group_change_policy, "Always,OnRootMismatch");
	rule_seccomp(e, AT(p, "seccompProfile"), sc->seccomp_profile);
	rule_windows_options(e, AT(p, "windowsOptions"), sc->windows_options);
	rule_app_armor(e, AT(p, "appArmorProfile"), sc->app_armor_profile);
	if (sc->supplemental_groups_policy)
		field_one_of(e, AT(p, "supplementalGroupsPolicy"), *sc->supplemental_groups_policy, "Merge,Strict");
	if (sc->se_linux_change_policy)
		field_one_of(e, AT(p, "seLinuxChangePolicy"), *sc->se_linux_change_policy, "Recursive"); /* MountOption: feature SELinuxMount */
}

static void windows_host_process(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s)
{
	const bool *pod = s->security_context && s->security_context->windows_options ? s->security_context->windows_options->host_process : NULL;
	int all = 0, host = 0;

	POD_CONTAINERS(it, s, p) {
		const struct core_v1_security_context *sc = it.c->security_context;
		const bool *own = sc && sc->windows_options ? sc->windows_options->host_process : NULL;

		all++;
		if (pod && own && *pod != *own)
			field_invalid_raw(e, AT(AT(AT(&it.index, "securityContext"), "windowsOptions"), "hostProcess"), *own ? STR("true") : STR("false"),
					  "pod hostProcess value must be identical if both are specified, was %s", *pod ? "true" : "false");
		host += own ? *own : is_true(pod);
	}
	if (!host)
		return;
	if (host != all)
		field_invalid(e, p, STR(""), "If pod contains any hostProcess containers then all containers must be HostProcess containers");
	if (!s->host_network)
		field_invalid_raw(e, AT(p, "hostNetwork"), STR("false"), "hostNetwork must be true if pod contains any hostProcess containers");
	if (!rules_privileged_allowed())
		field_forbidden(e, p, "hostProcess containers are disallowed by cluster policy");
}

static void host_users(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, const struct pod_options *o)
{
	if (!s->host_users || *s->host_users)
		return;
	if (s->host_network)
		field_forbidden(e, AT(p, "hostNetwork"), "when `hostUsers` is false");
	if (s->host_pid)
		field_forbidden(e, AT(p, "HostPID"), "when `hostUsers` is false");
	if (s->host_ipc)
		field_forbidden(e, AT(p, "HostIPC"), "when `hostUsers` is false");
	POD_CONTAINERS(it, s, p)
		if (it.c->volume_devices.n && !o->lax_userns_devices)
			field_forbidden(e, AT(&it.index, "volumeDevices"), "when `hostUsers` is false");
}

/* Members that one operating system does not have. */
static void forbidden_members(struct field_errors *e, const struct field_path *p, const struct schema_type *t, const void *v, const char *members,
			      const char *why)
{
	struct arena tmp arena_cleanup = {0};
	void *none = arena_alloc(&tmp, t->size);

	for (struct str rest = str_from(members); rest.p;) {
		struct str m = str_cut(&rest, ',');

		if (!object_field_equal(t, v, none, arena_strz(&tmp, m)))
			field_forbidden(e, FIELD_CHILD_S(p, m), "%s", why);
	}
}

static void operating_system(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s)
{
	static const char windows[] = "cannot be set for a windows pod", linux_[] = "windows options cannot be set for a linux pod";

	if (!s->os)
		return;
	if (!s->os->name.n) {
		field_required(e, AT(AT(p, "os"), "name"), "");
	} else if (str_eqz(s->os->name, "linux")) {
		if (s->security_context && s->security_context->windows_options)
			field_forbidden(e, AT(AT(p, "securityContext"), "windowsOptions"), "%s", linux_);
		POD_CONTAINERS(it, s, p)
			if (it.c->security_context && it.c->security_context->windows_options)
				field_forbidden(e, AT(AT(&it.index, "securityContext"), "windowsOptions"), "%s", linux_);
	} else if (str_eqz(s->os->name, "windows")) {
		if (s->security_context)
			forbidden_members(e, AT(p, "securityContext"), &core_v1_pod_security_context_type, s->security_context,
					  "appArmorProfile,seLinuxOptions,seccompProfile,fsGroup,fsGroupChangePolicy,sysctls,runAsUser,runAsGroup,"
					  "supplementalGroups,supplementalGroupsPolicy,seLinuxChangePolicy", windows);
		forbidden_members(e, p, &core_v1_pod_spec_type, s, "hostUsers,hostPID,hostIPC,shareProcessNamespace", windows);
		POD_CONTAINERS(it, s, p)
			if (it.c->security_context)
				forbidden_members(e, AT(&it.index, "securityContext"), &core_v1_security_context_type, it.c->security_context,
						  "appArmorProfile,seLinuxOptions,seccompProfile,capabilities,readOnlyRootFilesystem,privileged,"
						  "allowPrivilegeEscalation,procMount,runAsUser,runAsGroup", windows);
	} else {
		field_unsupported(e, AT(p, "os"), s->os->name, "linux,windows");
	}
}

/* ---- claims, pod-level resources ---- */

static void resource_claims(struct field_errors *e, const struct field_path *list, const struct core_v1_pod_spec *s,
			    const struct meta_v1_object_meta *meta)
{
	struct strings names = {0};

	for (uint32_t i = 0; i < s->resource_claims.n; i++) {
		const struct core_v1_pod_resource_claim *c = &s->resource_claims.v[i];
		const struct field_path *p = EL(list, i);

		if (meta && str_map_has(API_MAP(&meta->annotations), STR("kubernetes.io/config.mirror"))) {
			field_forbidden(e, FIELD_ROOT("[]"), "static pods do not support resource claims");
			continue;
		}
		if (!c->name.n) {
			field_required(e, AT(p, "name"), "");
		} else if (strings_have(&names, c->name)) {
			field_duplicate(e, AT(p, "name"), c->name);
		} else {
			field_check(e, AT(p, "name"), c->name, validate_dns1123_label);
			*arena_push(e->arena, &names) = c->name;
		}
		if (c->resource_claim_name && c->resource_claim_template_name)
			field_invalid_obj(e, p, &core_v1_pod_resource_claim_type, c,
					  "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified");
		if (!c->resource_claim_name && !c->resource_claim_template_name)
			field_invalid_obj(e, p, &core_v1_pod_resource_claim_type, c,
					  "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
		if (c->resource_claim_name)
			field_check(e, AT(p, "resourceClaimName"), *c->resource_claim_name, validate_dns1123_subdomain);
		if (c->resource_claim_template_name)
			field_check(e, AT(p, "resourceClaimTemplateName"), *c->resource_claim_template_name, validate_dns1123_subdomain);
	}
}

/* What the containers ask for of one resource together: the sum of those that run at once, or the most an init container needs. */
static struct str aggregate(struct arena *a, const struct core_v1_pod_spec *s, struct str name, bool limits)
{
	struct str sum = STR("0"), sidecars = STR("0"), most = STR("0");

	for (uint32_t i = 0; i < s->containers.n; i++) {
		const struct core_v1_resource_requirements *r = &s->containers.v[i].resources;
		struct str q = str_map_get(limits ? API_MAP(&r->limits) : API_MAP(&r->requests), name);

		if (q.n)
			sum = quantity_add(a, q, sum);
	}
	for (uint32_t i = 0; i < s->init_containers.n; i++) {
		const struct core_v1_container *c = &s->init_containers.v[i];
		struct str q = str_map_get(limits ? API_MAP(&c->resources.limits) : API_MAP(&c->resources.requests), name), now;

		if (ptr_is(c->restart_policy, "Always")) {
			if (q.n)
				sidecars = quantity_add(a, q, sidecars);
			now = sidecars;
		} else {
			now = q.n ? quantity_add(a, q, sidecars) : sidecars;
		}
		if (quantity_cmp(now, most) > 0)
			most = now;
	}
	sum = quantity_add(a, sum, sidecars);
	return quantity_cmp(most, sum) > 0 ? most : sum;
}

static void pod_resources(struct field_errors *e, const struct field_path *spec, const struct core_v1_pod_spec *s, const struct pod_options *o)
{
	const struct core_v1_resource_requirements *r = s->resources;
	const struct field_path *p = AT(spec, "resources");

	if (!r)
		return;
	if (s->os && str_eqz(s->os->name, "windows")) {
		field_forbidden(e, p, "may not be set for a windows pod");
		return;
	}
	if (r->claims.v)
		field_forbidden(e, AT(p, "claims"), "claims may not be set for Resources at pod-level");
	rule_resources(e, p, r, s, o, true);
	for (uint32_t i = 0; i < r->requests.n; i++) {
		struct str all = aggregate(e->arena, s, r->requests.v[i].key, false);

		if (quantity_cmp(all, STR("0")) && quantity_cmp(all, r->requests.v[i].value) > 0)
			field_invalid(e, KEY(AT(p, "requests"), r->requests.v[i].key), r->requests.v[i].value,
				      "must be greater than or equal to aggregate container requests of %.*s", STR_ARG(all));
	}
	for (uint32_t i = 0; i < r->limits.n; i++) {
		struct str name = r->limits.v[i].key, l = r->limits.v[i].value, all = aggregate(e->arena, s, name, true);

		if (resource_hugepages(name) && quantity_cmp(all, l) > 0)
			field_invalid(e, KEY(AT(p, "limits"), name), l, "must be greater than or equal to aggregate container limits of %.*s",
				      STR_ARG(all));
		for (uint32_t k = 0; k < s->containers.n; k++) {
			struct str own = str_map_get(API_MAP(&s->containers.v[k].resources.limits), name);

			if (own.n && quantity_cmp(own, l) > 0)
				field_invalid(e, AT(KEY(EL(AT(p, "containers"), k), name), "limits"), own,
					      "must be less than or equal to pod limits of %.*s", STR_ARG(l));
		}
	}
}

static void file_key_volumes(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s)
{
	POD_CONTAINERS(it, s, p)
		for (uint32_t i = 0; i < it.c->env.n; i++) {
			const struct core_v1_env_var_source *from = it.c->env.v[i].value_from;
			const struct core_v1_volume *v = NULL;
			const struct field_path *at = AT(AT(AT(EL(AT(&it.index, "env"), i), "valueFrom"), "fileKeyRef"), "volumeName");

			if (!from || !from->file_key_ref)
				continue;
			for (uint32_t k = 0; k < s->volumes.n; k++)
				if (str_eq(s->volumes.v[k].name, from->file_key_ref->volume_name))
					v = &s->volumes.v[k];
			if (!v)
				field_not_found(e, at, from->file_key_ref->volume_name);
			else if (!v->volume_source.empty_dir)
				field_invalid(e, at, from->file_key_ref->volume_name, "referenced volume must be of type emptyDir");
		}
}

/* ---- the spec ---- */

static void host_network_ports(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, bool is_pod)
{
	for (uint32_t i = 0; s->host_network && i < s->containers.n; i++)
		for (uint32_t k = 0; k < s->containers.v[i].ports.n; k++) {
			const struct core_v1_container_port *port = &s->containers.v[i].ports.v[k];

			if ((is_pod || port->host_port) && port->host_port != port->container_port)
				field_invalid_int(e, AT(EL(AT(EL(AT(p, "containers"), i), "ports"), k), "hostPort"), port->host_port,
						  "must match `containerPort` when `hostNetwork` is true");
		}
}

static void names(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, const struct pod_options *o)
{
	if (s->hostname_override) {
		const struct field_path *at = AT(p, "hostnameOverride");

		if (is_true(s->set_hostname_as_fqdn))
			field_forbidden(e, at, "may not be specified when setHostnameAsFQDN is true");
		if (s->host_network)
			field_forbidden(e, at, "may not be specified when hostNetwork is true");
		if (s->hostname_override->n > 64)
			field_too_long(e, at, 64);
		field_check(e, at, *s->hostname_override, validate_dns1123_subdomain);
	}
	if (s->service_account_name.n)
		field_check(e, AT(p, "serviceAccountName"), s->service_account_name, validate_dns1123_subdomain);
	if (s->node_name.n)
		field_check(e, AT(p, "nodeName"), s->node_name, validate_dns1123_subdomain);
	if (s->active_deadline_seconds)
		rule_range(e, AT(p, "activeDeadlineSeconds"), *s->active_deadline_seconds, 1, INT32_MAX);
	if (s->hostname.n)
		field_check(e, AT(p, "hostname"), s->hostname, validate_dns1123_label);
	if (s->subdomain.n)
		field_check(e, AT(p, "subdomain"), s->subdomain, validate_dns1123_label);
	rule_tolerations(e, AT(p, "tolerations"), s->tolerations.v, s->tolerations.n, o->toleration_comparison);
	for (uint32_t i = 0; i < s->host_aliases.n; i++) {
		const struct field_path *at = EL(AT(p, "hostAliases"), i);

		rule_legacy_ip(e, AT(at, "ip"), s->host_aliases.v[i].ip, NULL, 0);
		for (uint32_t k = 0; k < s->host_aliases.v[i].hostnames.n; k++)
			field_check(e, EL(AT(at, "hostnames"), k), s->host_aliases.v[i].hostnames.v[k], validate_dns1123_subdomain);
	}
	if (s->priority_class_name.n)
		field_check(e, AT(p, "priorityClassName"), s->priority_class_name, validate_dns1123_subdomain);
	if (s->runtime_class_name)
		field_check(e, AT(p, "runtimeClassName"), *s->runtime_class_name, validate_dns1123_subdomain);
	if (s->preemption_policy)
		rule_enum(e, AT(p, "preemptionPolicy"), *s->preemption_policy, "PreemptLowerPriority,Never");
}

void rule_pod_spec(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, const struct meta_v1_object_meta *meta,
		   const struct pod_options *o)
{
	struct map volumes = {0};
	struct container_context x = {.spec = s, .o = o, .volumes = &volumes, .host_users = !s->host_users || *s->host_users};
	const struct field_path *gates = AT(p, "schedulingGates");

	if (!s->termination_grace_period_seconds)
		field_required(e, AT(p, "terminationGracePeriodSeconds"), "");
	rule_volumes(e, AT(p, "volumes"), s, meta ? meta->name : STR_NULL, o, &volumes);
	resource_claims(e, AT(p, "resourceClaims"), s, meta);
	rule_containers(e, p, &x);
	map_free(&volumes);
	pod_resources(e, p, s, o);
	host_network_ports(e, p, s, o->is_pod);
	rule_enum(e, AT(p, "restartPolicy"), s->restart_policy, "Always,OnFailure,Never");
	rule_enum(e, AT(p, "dnsPolicy"), s->dns_policy, "ClusterFirstWithHostNet,ClusterFirst,Default,None");
	validate_labels(e, API_MAP(&s->node_selector), AT(p, "nodeSelector"));
	pod_security(e, AT(p, "securityContext"), s, o);
	affinity(e, AT(p, "affinity"), s->affinity, o);
	dns(e, AT(p, "dnsConfig"), s, o);
	for (uint32_t i = 0; i < s->readiness_gates.n; i++)
		field_check(e, AT(EL(AT(p, "readinessGates"), i), "conditionType"), s->readiness_gates.v[i].condition_type, validate_qualified_name);
	for (uint32_t i = 0; i < s->scheduling_gates.n; i++) {
		field_check(e, EL(gates, i), s->scheduling_gates.v[i].name, validate_qualified_name);
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(s->scheduling_gates.v[k].name, s->scheduling_gates.v[i].name)) {
				field_duplicate(e, EL(gates, i), s->scheduling_gates.v[i].name);
				break;
			}
	}
	topology_spread(e, AT(p, "topologySpreadConstraints"), s, o);
	windows_host_process(e, p, s);
	host_users(e, p, s, o);
	names(e, p, s, o);
	if (s->overhead.n) {
		struct core_v1_resource_requirements r = {0};

		memcpy(&r.limits, &s->overhead, sizeof r.limits);
		rule_resources(e, AT(p, "overhead"), &r, NULL, o, false);
	}
	operating_system(e, p, s);
	file_key_volumes(e, p, s);
}

/* ---- annotations ---- */

#define APP_ARMOR_PREFIX "container.apparmor.security.beta.kubernetes.io/"
#define SECCOMP_POD "seccomp.security.alpha.kubernetes.io/pod"
#define SECCOMP_CONTAINER "container.seccomp.security.alpha.kubernetes.io/"

static void seccomp_annotation(struct field_errors *e, const struct field_path *p, struct str v)
{
	if (str_eqz(v, "runtime/default") || str_eqz(v, "docker/default") || str_eqz(v, "unconfined"))
		return;
	if (str_has_prefix(v, STR("localhost/")))
		field_check(e, p, str_sub(v, 10, v.n), validate_descending_path);
	else
		field_invalid(e, p, v, "must be a valid seccomp profile");
}

/* A 32-bit integer without a sign of plus or leading zeros. */
static bool deletion_cost(struct str v)
{
	int64_t n;

	return v.n && (v.p[0] == '-' || str_eqz(v, "0") || (v.p[0] >= '1' && v.p[0] <= '9')) && str_to_i64(v, &n) && n >= INT32_MIN && n <= INT32_MAX;
}

void rule_pod_annotations(struct field_errors *e, const struct field_path *p, const struct str_map *an, const struct core_v1_pod_spec *s,
			  const struct pod_options *o)
{
	static const char cost_key[] = "controller.kubernetes.io/pod-deletion-cost", mirror[] = "kubernetes.io/config.mirror";

	if (str_map_has(an, str_from(mirror)) && !s->node_name.n)
		field_invalid(e, KEY(p, str_from(mirror)), str_map_get(an, str_from(mirror)), "must set spec.nodeName if mirror pod annotation is set");
	if (!o->lax_deletion_cost && str_map_has(an, str_from(cost_key)) && !deletion_cost(str_map_get(an, str_from(cost_key))))
		field_invalid(e, KEY(p, str_from(cost_key)), str_map_get(an, str_from(cost_key)), "must be a 32bit integer");
	for (uint32_t i = 0; i < an->n; i++) {
		struct str k = an->v[i].key, v = an->v[i].value, name;
		bool found = false;

		if (str_eqz(k, SECCOMP_POD) || str_has_prefix(k, STR(SECCOMP_CONTAINER)))
			seccomp_annotation(e, FIELD_CHILD_S(p, k), v);
		if (!str_has_prefix(k, STR(APP_ARMOR_PREFIX)))
			continue;
		name = str_sub(k, sizeof APP_ARMOR_PREFIX - 1, k.n);
		POD_CONTAINERS(it, s, NULL)
			found |= str_eq(it.c->name, name);
		if (!found)
			field_invalid(e, KEY(p, k), name, "container not found");
		if (v.n && !str_eqz(v, "runtime/default") && !str_eqz(v, "unconfined") && !str_has_prefix(v, STR("localhost/")))
			field_invalid(e, KEY(p, k), v, "invalid AppArmor profile name: \"%.*s\"", STR_ARG(v));
	}
}

/* What `type` and `profile` are called in an annotation: the same must be meant. */
static void same_profile(struct field_errors *e, const struct field_path *p, struct str annotation, struct str type, const struct str *profile,
			 const char *what, bool docker)
{
	bool local = str_has_prefix(annotation, STR("localhost/"));

	if (str_eqz(type, "Unconfined") ? !str_eqz(annotation, "unconfined") :
	    str_eqz(type, "RuntimeDefault") ? !str_eqz(annotation, "runtime/default") && !(docker && str_eqz(annotation, "docker/default")) :
	    str_eqz(type, "Localhost") ? !local : false)
		field_forbidden(e, AT(p, "type"), "%s type in annotation and field must match", what);
	else if (str_eqz(type, "Localhost") && (!profile || !str_eq(str_sub(annotation, 10, annotation.n), *profile)))
		field_forbidden(e, AT(p, "localhostProfile"), "%s profile in annotation and field must match", what);
}

void rule_annotations_match_fields(struct field_errors *e, const struct field_path *spec, const struct str_map *an, const struct core_v1_pod_spec *s)
{
	const struct core_v1_pod_security_context *pod = s->security_context;
	const struct core_v1_app_armor_profile *pod_armor = pod ? pod->app_armor_profile : NULL;

	if (pod && pod->seccomp_profile && str_map_has(an, STR(SECCOMP_POD)))
		same_profile(e, AT(AT(spec, "securityContext"), "seccompProfile"), str_map_get(an, STR(SECCOMP_POD)), pod->seccomp_profile->type,
			     pod->seccomp_profile->localhost_profile, "seccomp", true);
	POD_CONTAINERS(it, s, spec) {
		const struct core_v1_security_context *sc = it.c->security_context;
		struct str key = arena_printf(e->arena, SECCOMP_CONTAINER "%.*s", STR_ARG(it.c->name));

		if (sc && sc->seccomp_profile && str_map_has(an, key))
			same_profile(e, AT(AT(&it.index, "securityContext"), "seccompProfile"), str_map_get(an, key), sc->seccomp_profile->type,
				     sc->seccomp_profile->localhost_profile, "seccomp", true);
	}
	if (s->os && str_eqz(s->os->name, "windows"))
		return;
	POD_CONTAINERS(it, s, spec) {
		const struct core_v1_security_context *sc = it.c->security_context;
		const struct core_v1_app_armor_profile *own = sc && sc->app_armor_profile ? sc->app_armor_profile : pod_armor;
		struct str key = arena_printf(e->arena, APP_ARMOR_PREFIX "%.*s", STR_ARG(it.c->name));

		if (own && str_map_has(an, key))
			same_profile(e, AT(AT(&it.index, "securityContext"), "appArmorProfile"), str_map_get(an, key), own->type,
				     own->localhost_profile, "apparmor", false);
	}
}

/* ---- options ---- */

static bool selector_has_bad_values(struct arena *a, const struct meta_v1_label_selector *s)
{
	for (uint32_t i = 0; s && i < s->match_expressions.n; i++)
		for (uint32_t k = 0; k < s->match_expressions.v[i].values.n; k++)
			if (validate_label_value(a, s->match_expressions.v[i].values.v[k]))
				return true;
	return false;
}

static bool affinity_has_bad_values(struct arena *a, const struct core_v1_pod_affinity *p)
{
	for (uint32_t i = 0; p && i < p->required_during_scheduling_ignored_during_execution.n; i++)
		if (selector_has_bad_values(a, p->required_during_scheduling_ignored_during_execution.v[i].label_selector) ||
		    selector_has_bad_values(a, p->required_during_scheduling_ignored_during_execution.v[i].namespace_selector))
			return true;
	for (uint32_t i = 0; p && i < p->preferred_during_scheduling_ignored_during_execution.n; i++) {
		const struct core_v1_pod_affinity_term *t = &p->preferred_during_scheduling_ignored_during_execution.v[i].pod_affinity_term;

		if (selector_has_bad_values(a, t->label_selector) || selector_has_bad_values(a, t->namespace_selector))
			return true;
	}
	return false;
}

struct pod_options pod_options_from(struct arena *a, const struct core_v1_pod_spec *s, const struct meta_v1_object_meta *meta)
{
	struct pod_options o = {0};
	struct field_errors e = {.arena = a};
	static const struct strings none;

	if (!s)
		return o;
	if (s->affinity) {
		o.lax_selectors = affinity_has_bad_values(a, s->affinity->pod_affinity) ||
				  affinity_has_bad_values(a, (const void *)s->affinity->pod_anti_affinity);
		o.lax_node_affinity = s->affinity->node_affinity &&
				      node_selector_has_bad_values(s->affinity->node_affinity->required_during_scheduling_ignored_during_execution, a);
	}
	for (uint32_t i = 0; i < s->topology_spread_constraints.n; i++) {
		const struct core_v1_topology_spread_constraint *c = &s->topology_spread_constraints.v[i];
		uint32_t before = e.list.n;

		validate_label_selector(&e, c->label_selector, NULL);
		o.lax_spread_selector |= e.list.n > before;
		before = e.list.n;
		match_label_keys(&e, FIELD_ROOT(""), (const void *)&c->match_label_keys, &none, c->label_selector);
		o.lax_match_label_keys |= e.list.n > before;
	}
	POD_CONTAINERS(it, s, NULL) {
		const struct core_v1_resource_requirements *r = &it.c->resources;

		o.lax_userns_devices |= s->host_users && !*s->host_users && it.c->volume_devices.n;
		for (uint32_t i = 0; i < r->limits.n; i++)
			o.lax_hugepages |= resource_hugepages(r->limits.v[i].key) && !pages_divide(a, r->limits.v[i].key, r->limits.v[i].value);
		for (uint32_t i = 0; i < r->requests.n; i++)
			o.lax_hugepages |= resource_hugepages(r->requests.v[i].key) && !pages_divide(a, r->requests.v[i].key, r->requests.v[i].value);
		for (uint32_t i = 0; i < it.c->resize_policy.n && it.list == 0 && !ptr_is(it.c->restart_policy, "Always"); i++)
			o.lax_init_resize |= str_eqz(it.c->resize_policy.v[i].restart_policy, "RestartContainer");
	}
	for (uint32_t i = 0; i < s->volumes.n; i++) {
		const struct core_v1_projected_volume_source *p = s->volumes.v[i].volume_source.projected;

		for (uint32_t k = 0; p && k < p->sources.n; k++)
			o.lax_token_path |= p->sources.v[k].service_account_token &&
					    validate_descending_path(a, p->sources.v[k].service_account_token->path) != NULL;
	}
	for (uint32_t i = 0; s->security_context && i < s->security_context->sysctls.n; i++)
		o.lax_host_sysctls |= sysctl_on_host(a, s->security_context->sysctls.v[i].name, s) != NULL;
	for (uint32_t i = 0; i < s->tolerations.n; i++)
		o.toleration_comparison |= str_eqz(s->tolerations.v[i].operator, "Lt") || str_eqz(s->tolerations.v[i].operator, "Gt");
	if (meta) {
		struct str key = STR("controller.kubernetes.io/pod-deletion-cost");

		o.lax_deletion_cost = str_map_has(API_MAP(&meta->annotations), key) &&
				      !deletion_cost(str_map_get(API_MAP(&meta->annotations), key));
	}
	return o;
}

/* ---- templates ---- */

void rule_pod_template(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_template_spec *t,
		       const struct core_v1_pod_template_spec *old)
{
	struct pod_options o = pod_options_from(e->arena, old ? &old->spec : NULL, old ? &old->metadata : NULL);
	const struct str_map *an = API_MAP(&t->metadata.annotations);

	/* upstream's paths have no metadata in them */
	validate_labels(e, API_MAP(&t->metadata.labels), AT(p, "labels"));
	validate_annotations(e, an, AT(p, "annotations"));
	rule_pod_annotations(e, AT(p, "annotations"), an, &t->spec, &o);
	rule_pod_spec(e, AT(p, "spec"), &t->spec, NULL, &o);
	rule_annotations_match_fields(e, AT(p, "spec"), an, &t->spec);
	if (t->spec.ephemeral_containers.n)
		field_forbidden(e, AT(AT(p, "spec"), "ephemeralContainers"), "ephemeral containers not allowed in pod template");
}
