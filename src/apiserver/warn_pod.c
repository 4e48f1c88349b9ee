/* What a client is told about a pod or a template that is let through: pkg/api/pod/warnings.go. */
#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

static const char *path_text(struct request *rq, const struct field_path *p)
{
	return arena_strz(rq->a, field_path_format(rq->a, p));
}

#define WARN(rq, p, fmt, ...) request_warn((rq), "%s: " fmt, path_text((rq), (p)), ##__VA_ARGS__)

void ip_warn(struct request *rq, const struct field_path *p, struct str v)
{
	struct str c = ip_canonical(rq->a, v);

	if (!c.n)
		return;
	if (validate_ip(rq->a, v))
		WARN(rq, p, "non-standard IP address \"%.*s\" is invalid: use \"%.*s\"", STR_ARG(v), STR_ARG(c));
	else if (ip_family(v) == 6 && !str_eq(c, v))
		WARN(rq, p, "IPv6 address \"%.*s\" should be in RFC 5952 canonical format (\"%.*s\")", STR_ARG(v), STR_ARG(c));
}

void cidr_warn(struct request *rq, const struct field_path *p, struct str v)
{
	struct str c = cidr_canonical(rq->a, v), ip, net;
	ptrdiff_t slash = str_index(v, '/'), end = str_index(c, '/');

	if (!c.n)
		return;
	ip = ip_canonical(rq->a, str_sub(v, 0, (size_t)slash));
	net = str_sub(c, 0, (size_t)end);
	if (!str_eq(ip, net))
		WARN(rq, p, "CIDR value \"%.*s\" is ambiguous in this context (should be \"%.*s\" or \"%.*s/%d\"?)", STR_ARG(v), STR_ARG(c), STR_ARG(ip),
		     ip_family(ip) == 6 ? 128 : 32);
	else if (validate_cidr(rq->a, v))
		WARN(rq, p, "non-standard CIDR value \"%.*s\" is invalid: use \"%.*s\"", STR_ARG(v), STR_ARG(c));
	else if (ip_family(ip) == 6 && !str_eq(c, v))
		WARN(rq, p, "IPv6 CIDR value \"%.*s\" should be in RFC 5952 canonical format (\"%.*s\")", STR_ARG(v), STR_ARG(c));
}

static const struct {
	const char *key, *message;
} old_node_labels[] = {
	{"beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"},
	{"beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"},
	{"failure-domain.beta.kubernetes.io/region", "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"},
	{"failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"},
	{"beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"},
	{"app.kubernetes.io/created-by", "deprecated since v1.9"},
	{"scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"},
	{"node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"},
}, old_annotations[] = {
	{"scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+; use the \"priorityClassName\" field instead"},
	{"security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"},
	{"security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"},
}, old_volumes[] = {
	{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
	{"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"},
	{"scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
	{"flocker", "deprecated in v1.22, non-functional in v1.25+"},
	{"storageos", "deprecated in v1.22, non-functional in v1.25+"},
	{"quobyte", "deprecated in v1.22, non-functional in v1.25+"},
	{"glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
	{"cephfs", "deprecated in v1.28, non-functional in v1.31+"},
	{"rbd", "deprecated in v1.28, non-functional in v1.31+"},
};

const char *node_label_deprecated(struct str key)
{
	for (size_t i = 0; i < sizeof old_node_labels / sizeof *old_node_labels; i++)
		if (str_eqz(key, old_node_labels[i].key))
			return old_node_labels[i].message;
	return NULL;
}

void node_term_warn(struct request *rq, const struct field_path *p, const struct core_v1_node_selector_term *t, bool values)
{
	for (uint32_t i = 0; i < t->match_expressions.n; i++) {
		const struct core_v1_node_selector_requirement *r = &t->match_expressions.v[i];
		const struct field_path *at = EL(AT(p, "matchExpressions"), i);
		const char *m = node_label_deprecated(r->key);

		if (m)
			WARN(rq, AT(at, "key"), "%.*s is %s", STR_ARG(r->key), m);
		for (uint32_t k = 0; values && k < r->values.n; k++) {
			m = validate_label_value(rq->a, r->values.v[k]);
			if (m)
				WARN(rq, EL(AT(at, "values"), k), "%.*s is invalid, %s", STR_ARG(r->values.v[k]), m);
		}
	}
}

static void whole_bytes(struct request *rq, const struct field_path *p, const struct str_map *list)
{
	static const char *const names[] = {"memory", "ephemeral-storage"};

	for (int i = 0; i < 2; i++) {
		struct str q = str_map_get(list, str_from(names[i]));

		if (q.n && !quantity_whole(q))
			WARN(rq, KEY(p, str_from(names[i])), "fractional byte value \"%.*s\" is invalid, must be an integer", STR_ARG(q));
	}
}

/* ---- paths that lie over each other ---- */

struct mapped {
	struct str path, source;
};
struct mapped_list {
	struct mapped *v;
	uint32_t n, cap;
};

static const char *mapped_text(struct request *rq, const struct mapped *m)
{
	return m->source.n ? arena_printf(rq->a, "\"%.*s\" (%.*s)", STR_ARG(m->path), STR_ARG(m->source)).p :
			     arena_printf(rq->a, "\"%.*s\"", STR_ARG(m->path)).p;
}

static bool below(struct str a, struct str b)
{
	return a.n > b.n && str_has_prefix(a, b) && a.p[b.n] == '/';
}

static void map_path(struct request *rq, struct mapped_list *l, struct str path, struct str source, struct str volume, const char *desc)
{
	struct mapped m = {path, source};

	while (m.path.n && m.path.p[m.path.n - 1] == '/')
		m.path.n--;
	for (uint32_t i = 0; m.path.n && i < l->n; i++)
		if (str_eq(l->v[i].path, m.path) || below(l->v[i].path, m.path) || below(m.path, l->v[i].path))
			request_warn(rq, "volume \"%.*s\" (%s): overlapping paths: %s with %s", STR_ARG(volume), desc, mapped_text(rq, &m),
				     mapped_text(rq, &l->v[i]));
	*arena_push(rq->a, l) = m;
}

static void overlaps(struct request *rq, const struct core_v1_volume *v)
{
	const struct core_v1_volume_source *s = &v->volume_source;
	struct mapped_list l = {0};

	if (s->config_map) {
		const char *desc = arena_printf(rq->a, "ConfigMap \"%.*s\"", STR_ARG(s->config_map->local_object_reference.name)).p;

		for (uint32_t i = 0; i < s->config_map->items.n; i++)
			map_path(rq, &l, s->config_map->items.v[i].path, STR_NULL, v->name, desc);
	}
	if (s->secret) {
		const char *desc = arena_printf(rq->a, "Secret \"%.*s\"", STR_ARG(s->secret->secret_name)).p;

		l.n = 0;
		for (uint32_t i = 0; i < s->secret->items.n; i++)
			map_path(rq, &l, s->secret->items.v[i].path, STR_NULL, v->name, desc);
	}
	l.n = 0;
	for (uint32_t i = 0; s->downward_api && i < s->downward_api->items.n; i++)
		map_path(rq, &l, s->downward_api->items.v[i].path, STR_NULL, v->name, "DownwardAPI");
	l.n = 0;
	for (uint32_t i = 0; s->projected && i < s->projected->sources.n; i++) {
		const struct core_v1_volume_projection *p = &s->projected->sources.v[i];

		if (!p->config_map && !p->secret && !p->downward_api && !p->service_account_token) {
			request_warn(rq, "volume \"%.*s\" (Projected) has no sources provided", STR_ARG(v->name));
		} else if (p->config_map && p->config_map->items.v) {
			for (uint32_t k = 0; k < p->config_map->items.n; k++)
				map_path(rq, &l, p->config_map->items.v[k].path,
					 arena_printf(rq->a, "ConfigMap \"%.*s\"", STR_ARG(p->config_map->local_object_reference.name)), v->name, "Projected");
		} else if (p->secret && p->secret->items.v) {
			for (uint32_t k = 0; k < p->secret->items.n; k++)
				map_path(rq, &l, p->secret->items.v[k].path,
					 arena_printf(rq->a, "Secret \"%.*s\"", STR_ARG(p->secret->local_object_reference.name)), v->name, "Projected");
		} else if (p->downward_api && p->downward_api->items.v) {
			for (uint32_t k = 0; k < p->downward_api->items.n; k++)
				map_path(rq, &l, p->downward_api->items.v[k].path, STR("DownwardAPI"), v->name, "Projected");
		} else if (p->service_account_token) {
			map_path(rq, &l, p->service_account_token->path, STR("ServiceAccountToken"), v->name, "Projected");
		}
	}
}

/* ---- containers ---- */

static void env_hidden(struct request *rq, const struct field_path *p, const struct core_v1_container *c)
{
	for (uint32_t i = 0; i < c->env.n; i++) {
		const struct core_v1_env_var *v = &c->env.v[i];
		struct str ref = arena_printf(rq->a, "$(%.*s)", STR_ARG(v->name));
		bool before = false;

		for (uint32_t k = 0; k < i; k++)
			before |= str_eq(c->env.v[k].name, v->name);
		/* a value that goes on from the one before means it */
		if (before && (v->value_from || str_eq(v->value, ref) || !str_contains(v->value, ref)))
			WARN(rq, EL(AT(p, "env"), i), "hides previous definition of \"%.*s\", which may be dropped when using apply", STR_ARG(v->name));
	}
}

struct seen_port {
	const struct core_v1_container_port *p;
	const char *at;
};

static void ports(struct request *rq, const struct field_path *spec, const struct core_v1_pod_spec *s)
{
	LIST(struct seen_port) seen = {0}, named = {0};

	POD_CONTAINERS(it, s, spec)
		for (uint32_t i = 0; i < it.c->ports.n; i++) {
			const struct core_v1_container_port *p = &it.c->ports.v[i];
			const char *at = path_text(rq, EL(AT(&it.index, "ports"), i));

			if (p->host_ip.n && !p->host_port)
				request_warn(rq, "%s: hostIP set without hostPort: {Name:%.*s HostPort:%d ContainerPort:%d Protocol:%.*s HostIP:%.*s}", at,
					     STR_ARG(p->name), p->host_port, p->container_port, STR_ARG(p->protocol), STR_ARG(p->host_ip));
			for (uint32_t k = 0; k < seen.n; k++) {
				const struct core_v1_container_port *o = seen.v[k].p;

				if (o->container_port != p->container_port || !str_eq(o->protocol, p->protocol))
					continue;
				if (str_eq(p->host_ip, o->host_ip) && p->host_port == o->host_port)
					request_warn(rq, "%s: duplicate port definition with %s", at, seen.v[k].at);
				else if (!p->host_port || !o->host_port)
					request_warn(rq, "%s: overlapping port definition with %s", at, seen.v[k].at);
				else if (p->host_port == o->host_port && !p->host_ip.n != !o->host_ip.n)
					request_warn(rq, "%s: dangerously ambiguous port definition with %s", at, seen.v[k].at);
			}
			*arena_push(rq->a, &seen) = (struct seen_port){p, at};
		}
	POD_CONTAINERS(it, s, spec)
		for (uint32_t i = 0; i < it.c->ports.n; i++) {
			const struct core_v1_container_port *p = &it.c->ports.v[i];
			const char *at = path_text(rq, EL(AT(&it.index, "ports"), i)), *other = NULL;

			for (uint32_t k = 0; k < named.n && p->name.n; k++)
				if (str_eq(named.v[k].p->name, p->name))
					other = named.v[k].at;
			if (other)
				request_warn(rq, "%s: duplicate port name \"%.*s\" with %s, services and probes that select ports by name will use %s", at,
					     STR_ARG(p->name), other, other);
			else if (p->name.n)
				*arena_push(rq->a, &named) = (struct seen_port){p, at};
		}
}

static void affinity_selectors(struct request *rq, const struct field_path *p, const struct core_v1_pod_affinity *a)
{
	static const char none[] = "a null labelSelector results in matching no pod";

	for (uint32_t i = 0; a && i < a->required_during_scheduling_ignored_during_execution.n; i++)
		if (!a->required_during_scheduling_ignored_during_execution.v[i].label_selector)
			WARN(rq, AT(EL(AT(p, "requiredDuringSchedulingIgnoredDuringExecution"), i), "labelSelector"), "%s", none);
	for (uint32_t i = 0; a && i < a->preferred_during_scheduling_ignored_during_execution.n; i++)
		if (!a->preferred_during_scheduling_ignored_during_execution.v[i].pod_affinity_term.label_selector)
			WARN(rq, AT(AT(EL(AT(p, "preferredDuringSchedulingIgnoredDuringExecution"), i), "podAffinityTerm"), "labelSelector"), "%s", none);
}

static void node_affinity(struct request *rq, const struct field_path *spec, const struct core_v1_pod_spec *s)
{
	const struct field_path *p = AT(AT(spec, "affinity"), "nodeAffinity");
	const struct core_v1_node_affinity *n = s->affinity ? s->affinity->node_affinity : NULL;

	for (uint32_t i = 0; i < s->node_selector.n; i++) {
		const char *m = node_label_deprecated(s->node_selector.v[i].key);

		if (m)
			WARN(rq, KEY(AT(spec, "nodeSelector"), s->node_selector.v[i].key), "%s", m);
	}
	if (!n)
		return;
	if (n->required_during_scheduling_ignored_during_execution) {
		const struct core_v1_node_selector *r = n->required_during_scheduling_ignored_during_execution;

		for (uint32_t i = 0; i < r->node_selector_terms.n; i++)
			node_term_warn(rq, EL(AT(AT(p, "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms"), i),
				       &r->node_selector_terms.v[i], false);
	}
	for (uint32_t i = 0; i < n->preferred_during_scheduling_ignored_during_execution.n; i++)
		node_term_warn(rq, AT(EL(AT(p, "preferredDuringSchedulingIgnoredDuringExecution"), i), "preference"),
			       &n->preferred_during_scheduling_ignored_during_execution.v[i].preference, true);
}

static void old_seccomp(struct request *rq, const struct field_path *root, const struct core_v1_pod_spec *s, const struct str_map *an, bool template)
{
	static const char pod_key[] = "seccomp.security.alpha.kubernetes.io/pod";
	static const char use[] = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
	const struct field_path *at = AT(AT(root, "metadata"), "annotations");

	if ((!s->security_context || !s->security_context->seccomp_profile) && str_map_has(an, str_from(pod_key)))
		WARN(rq, KEY(at, str_from(pod_key)), "%s", use);
	POD_CONTAINERS(it, s, NULL) {
		const struct core_v1_security_context *sc = it.c->security_context;
		struct str key = arena_printf(rq->a, "container.seccomp.security.alpha.kubernetes.io/%.*s", STR_ARG(it.c->name));

		if ((!sc || !sc->seccomp_profile) && str_map_has(an, key))
			WARN(rq, KEY(at, key), "%s", use);
		key = arena_printf(rq->a, "container.apparmor.security.beta.kubernetes.io/%.*s", STR_ARG(it.c->name));
		if (template && (!sc || !sc->app_armor_profile) && str_map_has(an, key))
			WARN(rq, KEY(at, key), "deprecated since v1.30; use the \"appArmorProfile\" field instead");
	}
}

static void spec_and_meta(struct request *rq, const struct field_path *root, const struct core_v1_pod_spec *s, const struct meta_v1_object_meta *meta,
			  bool template)
{
	const struct field_path *spec = AT(root, "spec"), *affinity = AT(spec, "affinity");
	const struct str_map *an = API_MAP(&meta->annotations);

	node_affinity(rq, spec, s);
	for (uint32_t i = 0; i < s->topology_spread_constraints.n; i++) {
		const struct core_v1_topology_spread_constraint *c = &s->topology_spread_constraints.v[i];
		const struct field_path *at = EL(AT(spec, "topologySpreadConstraints"), i);
		const char *m = node_label_deprecated(c->topology_key);

		if (m)
			WARN(rq, AT(at, "topologyKey"), "%.*s is %s", STR_ARG(c->topology_key), m);
		if (!c->label_selector)
			WARN(rq, AT(at, "labelSelector"), "a null labelSelector results in matching no pod");
	}
	for (size_t i = 0; i < sizeof old_annotations / sizeof *old_annotations; i++)
		if (str_map_has(an, str_from(old_annotations[i].key)))
			WARN(rq, KEY(AT(AT(root, "metadata"), "annotations"), str_from(old_annotations[i].key)), "%s", old_annotations[i].message);
	for (uint32_t i = 0; i < s->volumes.n; i++) {
		const struct core_v1_volume_source *v = &s->volumes.v[i].volume_source;
		const struct field_path *at = EL(AT(spec, "volumes"), i);

		for (size_t k = 0; k < sizeof old_volumes / sizeof *old_volumes; k++) {
			const struct schema_field *f = schema_field(&core_v1_volume_source_type, str_from(old_volumes[k].key));

			if (*(void *const *)(const void *)((const char *)v + f->offset))
				WARN(rq, FIELD_CHILD_S(at, str_from(strcmp(old_volumes[k].key, "storageos") ? old_volumes[k].key : "storageOS")), "%s",
				     old_volumes[k].message);
		}
		if (v->ephemeral && v->ephemeral->volume_claim_template)
			pvc_spec_warn(rq, AT(AT(AT(at, "ephemeral"), "volumeClaimTemplate"), "spec"), &v->ephemeral->volume_claim_template->spec);
	}
	for (uint32_t i = 0; i < s->volumes.n; i++)
		overlaps(rq, &s->volumes.v[i]);
	for (uint32_t i = 1; i < s->host_aliases.n; i++)
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(s->host_aliases.v[i].ip, s->host_aliases.v[k].ip)) {
				WARN(rq, AT(EL(AT(spec, "hostAliases"), i), "ip"), "duplicate ip \"%.*s\"", STR_ARG(s->host_aliases.v[i].ip));
				break;
			}
	for (uint32_t i = 0; i < s->image_pull_secrets.n; i++) {
		const struct field_path *at = AT(EL(AT(spec, "imagePullSecrets"), i), "name");
		struct str name = s->image_pull_secrets.v[i].name;

		for (uint32_t k = 0; k < i; k++)
			if (str_eq(name, s->image_pull_secrets.v[k].name)) {
				WARN(rq, at, "duplicate name \"%.*s\"", STR_ARG(name));
				break;
			}
		if (!name.n)
			WARN(rq, at, "invalid empty name \"\"");
	}
	whole_bytes(rq, AT(spec, "overhead"), API_MAP(&s->overhead));
	old_seccomp(rq, root, s, an, template);
	POD_CONTAINERS(it, s, spec) {
		whole_bytes(rq, AT(AT(&it.index, "resources"), "limits"), API_MAP(&it.c->resources.limits));
		whole_bytes(rq, AT(AT(&it.index, "resources"), "requests"), API_MAP(&it.c->resources.requests));
		env_hidden(rq, &it.index, it.c);
	}
	ports(rq, spec, s);
	if (s->termination_grace_period_seconds && *s->termination_grace_period_seconds < 0)
		WARN(rq, AT(spec, "terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1");
	if (s->affinity) {
		affinity_selectors(rq, AT(affinity, "podAffinity"), s->affinity->pod_affinity);
		affinity_selectors(rq, AT(affinity, "podAntiAffinity"), (const void *)s->affinity->pod_anti_affinity);
	}
	for (uint32_t i = 0; s->dns_config && i < s->dns_config->nameservers.n; i++)
		ip_warn(rq, EL(AT(AT(spec, "dnsConfig"), "nameservers"), i), s->dns_config->nameservers.v[i]);
	for (uint32_t i = 0; i < s->host_aliases.n; i++)
		ip_warn(rq, AT(EL(AT(spec, "hostAliases"), i), "ip"), s->host_aliases.v[i].ip);
}

void template_warn(struct request *rq, const struct field_path *p, const struct core_v1_pod_template_spec *t)
{
	spec_and_meta(rq, p, &t->spec, &t->metadata, true);
}

void pod_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_pod *p = obj;
	const char *m;

	if (old)
		return;
	m = validate_dns1123_label(rq->a, p->metadata.name);
	if (m)
		request_warn(rq, "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: "
				 "[%s]", m);
	spec_and_meta(rq, NULL, &p->spec, &p->metadata, false);
}

void pvc_spec_warn(struct request *rq, const struct field_path *p, const struct core_v1_persistent_volume_claim_spec *s)
{
	static const char *const lists[] = {"requests", "limits"};

	for (int i = 0; i < 2; i++) {
		struct str q = str_map_get(i ? API_MAP(&s->resources.limits) : API_MAP(&s->resources.requests), STR("storage"));

		if (q.n && !quantity_whole(q))
			WARN(rq, KEY(FIELD_CHILD_S(AT(p, "resources"), str_from(lists[i])), STR("storage")),
			     "fractional byte value \"%.*s\" is invalid, must be an integer", STR_ARG(q));
	}
}
