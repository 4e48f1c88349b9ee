/* Pods. */
#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

void validate_non_negative(struct field_errors *e, int64_t v, const struct field_path *at)
{
	if (v < 0)
		field_invalid_int(e, at, v, "must be greater than or equal to 0");
}

static bool absolute(struct str path)
{
	return path.n && path.p[0] == '/';
}

static bool steps_up(struct str path)
{
	while (path.p)
		if (str_eqz(str_cut(&path, '/'), ".."))
			return true;
	return false;
}

/* ---- resources ---- */

static bool standard_resource(struct str name)
{
	return str_eqz(name, "cpu") || str_eqz(name, "memory") || str_eqz(name, "ephemeral-storage") || str_has_prefix(name, STR("hugepages-"));
}

static void check_quantity(struct field_errors *e, struct str name, struct str q, const struct field_path *at)
{
	const char *m;

	if (str_index(name, '/') < 0 && !standard_resource(name)) {
		field_invalid(e, at, name, "must be a standard resource type or fully qualified");
		field_invalid(e, at, name, "must be a standard resource for containers");
	} else {
		m = validate_qualified_name(e->arena, name);
		if (m)
			field_invalid(e, at, name, "%s", m);
	}
	if (quantity_cmp(q, STR("0")) < 0)
		field_invalid(e, at, q, "must be greater than or equal to 0");
	if (!standard_resource(name) && str_index(name, '/') >= 0 && quantity_milli(q) % 1000)
		field_invalid(e, at, q, "must be an integer");
}

static void check_resources(struct field_errors *e, const struct core_v1_resource_requirements *r, const struct field_path *at)
{
	const struct field_path *lim = FIELD_CHILD(at, "limits"), *req = FIELD_CHILD(at, "requests");

	for (uint32_t i = 0; i < r->limits.n; i++)
		check_quantity(e, r->limits.v[i].key, r->limits.v[i].value, FIELD_KEY(lim, r->limits.v[i].key));
	for (uint32_t i = 0; i < r->requests.n; i++) {
		struct str name = r->requests.v[i].key, q = r->requests.v[i].value, l = str_map_get(API_MAP(&r->limits), name);

		check_quantity(e, name, q, FIELD_KEY(req, name));
		if (l.n && quantity_cmp(q, l) > 0)
			field_invalid(e, req, q, "must be less than or equal to %.*s limit of %.*s", STR_ARG(name), STR_ARG(l));
		if (str_index(name, '/') >= 0 && (!l.n || quantity_cmp(q, l)))
			field_required(e, lim, arena_printf(e->arena, "Limit must be set for non overcommitable resources").p);
	}
}

/* ---- handlers and probes ---- */

static void check_port(struct field_errors *e, const struct int_or_string *p, const struct field_path *at)
{
	const char *m = p->is_str ? validate_port_name(e->arena, p->s) : validate_port_number(e->arena, p->i);

	if (!m)
		return;
	if (p->is_str)
		field_invalid(e, at, p->s, "%s", m);
	else
		field_invalid_int(e, at, p->i, "%s", m);
}

static void check_handler(struct field_errors *e, const struct core_v1_exec_action *exec, const struct core_v1_http_get_action *http,
			  const struct core_v1_tcp_socket_action *tcp, bool other, bool others_set, const struct field_path *at)
{
	int n = (exec != NULL) + (http != NULL) + (tcp != NULL) + others_set;

	(void)other;
	if (!n)
		field_required(e, at, "must specify a handler type");
	if (n > 1)
		field_forbidden(e, at, "may not specify more than 1 handler type");
	if (exec && !exec->command.n)
		field_required(e, FIELD_CHILD(FIELD_CHILD(at, "exec"), "command"), "");
	if (http) {
		const struct field_path *h = FIELD_CHILD(at, "httpGet");

		if (!http->path.n)
			field_required(e, FIELD_CHILD(h, "path"), "");
		check_port(e, &http->port, FIELD_CHILD(h, "port"));
		for (uint32_t i = 0; i < http->http_headers.n; i++) {
			const char *m = validate_http_header_name(e->arena, http->http_headers.v[i].name);

			if (m)
				field_invalid(e, FIELD_CHILD(FIELD_INDEX(FIELD_CHILD(h, "httpHeaders"), i), "name"), http->http_headers.v[i].name, "%s",
					      m);
		}
	}
	if (tcp)
		check_port(e, &tcp->port, FIELD_CHILD(FIELD_CHILD(at, "tcpSocket"), "port"));
}

static void check_probe(struct field_errors *e, const struct core_v1_probe *p, const struct field_path *at, bool one_success)
{
	if (!p)
		return;
	check_handler(e, p->probe_handler.exec, p->probe_handler.http_get, p->probe_handler.tcp_socket, true, p->probe_handler.grpc != NULL, at);
	validate_non_negative(e, p->initial_delay_seconds, FIELD_CHILD(at, "initialDelaySeconds"));
	validate_non_negative(e, p->timeout_seconds, FIELD_CHILD(at, "timeoutSeconds"));
	validate_non_negative(e, p->period_seconds, FIELD_CHILD(at, "periodSeconds"));
	validate_non_negative(e, p->success_threshold, FIELD_CHILD(at, "successThreshold"));
	validate_non_negative(e, p->failure_threshold, FIELD_CHILD(at, "failureThreshold"));
	if (one_success && p->success_threshold != 1)
		field_invalid_int(e, FIELD_CHILD(at, "successThreshold"), p->success_threshold, "must be 1");
	if (p->termination_grace_period_seconds && *p->termination_grace_period_seconds <= 0)
		field_invalid_int(e, FIELD_CHILD(at, "terminationGracePeriodSeconds"), *p->termination_grace_period_seconds, "must be greater than 0");
}

/* ---- containers ---- */

static bool has_volume(const struct core_v1_pod_spec *s, struct str name)
{
	for (uint32_t i = 0; i < s->volumes.n; i++)
		if (str_eq(s->volumes.v[i].name, name))
			return true;
	return false;
}

struct common { /* what containers of every kind have */
	struct str name, image;
	const struct core_v1_container_port *ports;
	uint32_t n_ports;
	const struct core_v1_env_var *env;
	uint32_t n_env;
	const struct core_v1_env_from_source *env_from;
	uint32_t n_env_from;
	const struct core_v1_volume_mount *mounts;
	uint32_t n_mounts;
	const struct core_v1_resource_requirements *resources;
};

static void check_env(struct field_errors *e, const struct common *c, const struct field_path *at)
{
	const struct field_path *env = FIELD_CHILD(at, "env"), *from = FIELD_CHILD(at, "envFrom");

	for (uint32_t i = 0; i < c->n_env; i++) {
		const struct core_v1_env_var *v = &c->env[i];
		const struct field_path *p = FIELD_INDEX(env, i);
		const char *m;

		if (!v->name.n) {
			field_required(e, FIELD_CHILD(p, "name"), "");
		} else {
			m = validate_env_var_name(e->arena, v->name);
			if (m)
				field_invalid(e, FIELD_CHILD(p, "name"), v->name, "%s", m);
		}
		if (v->value_from) {
			const struct core_v1_env_var_source *s = v->value_from;
			int n = (s->field_ref != NULL) + (s->resource_field_ref != NULL) + (s->config_map_key_ref != NULL) +
				(s->secret_key_ref != NULL) + (s->file_key_ref != NULL);
			const struct field_path *vf = FIELD_CHILD(p, "valueFrom");

			if (v->value.n)
				field_invalid(e, vf, STR(""), "may not be specified when `value` is not empty");
			else if (!n)
				field_invalid(e, vf, STR(""), "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
					      "`secretKeyRef` or `fileKeyRef`");
			else if (n > 1)
				field_invalid(e, vf, STR(""), "may not have more than one field specified at a time");
			if (s->config_map_key_ref && !s->config_map_key_ref->key.n)
				field_required(e, FIELD_CHILD(FIELD_CHILD(vf, "configMapKeyRef"), "key"), "");
			if (s->secret_key_ref && !s->secret_key_ref->key.n)
				field_required(e, FIELD_CHILD(FIELD_CHILD(vf, "secretKeyRef"), "key"), "");
		}
	}
	for (uint32_t i = 0; i < c->n_env_from; i++) {
		const struct core_v1_env_from_source *s = &c->env_from[i];
		const struct field_path *p = FIELD_INDEX(from, i);

		if (!s->config_map_ref && !s->secret_ref)
			field_invalid(e, p, STR(""), "must specify one of: `configMapRef` or `secretRef`");
		else if (s->config_map_ref && s->secret_ref)
			field_invalid(e, p, STR(""), "may not have more than one field specified at a time");
	}
}

static void check_ports(struct field_errors *e, const struct common *c, bool host_network, const struct field_path *at)
{
	const struct field_path *ports = FIELD_CHILD(at, "ports");
	static const struct str protocols[] = {STR_INIT("SCTP"), STR_INIT("TCP"), STR_INIT("UDP")};

	for (uint32_t i = 0; i < c->n_ports; i++) {
		const struct core_v1_container_port *p = &c->ports[i];
		const struct field_path *f = FIELD_INDEX(ports, i);
		const char *m;

		if (p->name.n) {
			m = validate_port_name(e->arena, p->name);
			if (m)
				field_invalid(e, FIELD_CHILD(f, "name"), p->name, "%s", m);
			for (uint32_t k = 0; k < i; k++)
				if (str_eq(c->ports[k].name, p->name)) {
					field_duplicate(e, FIELD_CHILD(f, "name"), p->name);
					break;
				}
		}
		if (!p->container_port) {
			field_required(e, FIELD_CHILD(f, "containerPort"), "");
		} else {
			m = validate_port_number(e->arena, p->container_port);
			if (m)
				field_invalid_int(e, FIELD_CHILD(f, "containerPort"), p->container_port, "%s", m);
		}
		if (p->host_port) {
			m = validate_port_number(e->arena, p->host_port);
			if (m)
				field_invalid_int(e, FIELD_CHILD(f, "hostPort"), p->host_port, "%s", m);
			else if (host_network && p->host_port != p->container_port)
				field_invalid_int(e, FIELD_CHILD(f, "hostPort"), p->host_port, "must match `containerPort` when `hostNetwork` is true");
		}
		if (!p->protocol.n)
			field_required(e, FIELD_CHILD(f, "protocol"), "");
		else if (!str_eqz(p->protocol, "TCP") && !str_eqz(p->protocol, "UDP") && !str_eqz(p->protocol, "SCTP"))
			field_not_supported(e, FIELD_CHILD(f, "protocol"), p->protocol, protocols, 3);
	}
}

static void check_mounts(struct field_errors *e, const struct common *c, const struct core_v1_pod_spec *s, const struct field_path *at)
{
	const struct field_path *mounts = FIELD_CHILD(at, "volumeMounts");

	for (uint32_t i = 0; i < c->n_mounts; i++) {
		const struct core_v1_volume_mount *m = &c->mounts[i];
		const struct field_path *p = FIELD_INDEX(mounts, i);

		if (!m->name.n)
			field_required(e, FIELD_CHILD(p, "name"), "");
		else if (!has_volume(s, m->name))
			field_not_found(e, FIELD_CHILD(p, "name"), m->name);
		if (!m->mount_path.n)
			field_required(e, FIELD_CHILD(p, "mountPath"), "");
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(c->mounts[k].mount_path, m->mount_path)) {
				field_invalid(e, FIELD_CHILD(p, "mountPath"), m->mount_path, "must be unique");
				break;
			}
		if (m->sub_path.n && (absolute(m->sub_path) || steps_up(m->sub_path)))
			field_invalid(e, FIELD_CHILD(p, "subPath"), m->sub_path,
				      absolute(m->sub_path) ? "must be a relative path" : "must not contain '..'");
		if (m->sub_path.n && m->sub_path_expr.n)
			field_invalid(e, FIELD_CHILD(p, "subPathExpr"), m->sub_path_expr, "subPathExpr and subPath are mutually exclusive");
	}
}

static void check_common(struct field_errors *e, const struct common *c, const struct core_v1_pod_spec *s, struct map *names,
			 const struct field_path *at)
{
	const char *m;

	if (!c->name.n) {
		field_required(e, FIELD_CHILD(at, "name"), "");
	} else {
		m = validate_dns1123_label(e->arena, c->name);
		if (m)
			field_invalid(e, FIELD_CHILD(at, "name"), c->name, "%s", m);
		if (map_has(names, c->name))
			field_duplicate(e, FIELD_CHILD(at, "name"), c->name);
		else
			map_set(names, c->name, names);
	}
	if (!c->image.n)
		field_required(e, FIELD_CHILD(at, "image"), "");
	else if (str_trim(c->image).n != c->image.n)
		field_invalid(e, FIELD_CHILD(at, "image"), c->image, "must not have leading or trailing whitespace");
	check_ports(e, c, s->host_network, at);
	check_env(e, c, at);
	check_mounts(e, c, s, at);
	if (c->resources)
		check_resources(e, c->resources, FIELD_CHILD(at, "resources"));
}

static struct common of_container(const struct core_v1_container *c)
{
	return (struct common){.name = c->name, .image = c->image, .ports = c->ports.v, .n_ports = c->ports.n, .env = c->env.v, .n_env = c->env.n,
			       .env_from = c->env_from.v, .n_env_from = c->env_from.n, .mounts = c->volume_mounts.v,
			       .n_mounts = c->volume_mounts.n, .resources = &c->resources};
}

static void check_container(struct field_errors *e, const struct core_v1_container *c, const struct core_v1_pod_spec *s, struct map *names,
			    bool init, const struct field_path *at)
{
	struct common k = of_container(c);
	bool sidecar = init && c->restart_policy && str_eqz(*c->restart_policy, "Always");

	check_common(e, &k, s, names, at);
	if (init && !sidecar) {
		if (c->liveness_probe)
			field_forbidden(e, FIELD_CHILD(at, "livenessProbe"), "may not be set for init containers without restartPolicy=Always");
		if (c->readiness_probe)
			field_forbidden(e, FIELD_CHILD(at, "readinessProbe"), "may not be set for init containers without restartPolicy=Always");
		if (c->startup_probe)
			field_forbidden(e, FIELD_CHILD(at, "startupProbe"), "may not be set for init containers without restartPolicy=Always");
		if (c->lifecycle)
			field_forbidden(e, FIELD_CHILD(at, "lifecycle"), "may not be set for init containers without restartPolicy=Always");
	} else {
		check_probe(e, c->liveness_probe, FIELD_CHILD(at, "livenessProbe"), true);
		check_probe(e, c->readiness_probe, FIELD_CHILD(at, "readinessProbe"), false);
		check_probe(e, c->startup_probe, FIELD_CHILD(at, "startupProbe"), true);
	}
	if (c->lifecycle) {
		const struct core_v1_lifecycle_handler *h = c->lifecycle->post_start;

		if (h)
			check_handler(e, h->exec, h->http_get, h->tcp_socket, true, h->sleep != NULL,
				      FIELD_CHILD(FIELD_CHILD(at, "lifecycle"), "postStart"));
		h = c->lifecycle->pre_stop;
		if (h)
			check_handler(e, h->exec, h->http_get, h->tcp_socket, true, h->sleep != NULL,
				      FIELD_CHILD(FIELD_CHILD(at, "lifecycle"), "preStop"));
	}
	if (c->security_context) {
		const struct core_v1_security_context *sc = c->security_context;
		const struct field_path *p = FIELD_CHILD(at, "securityContext");

		if (sc->run_as_user && *sc->run_as_user < 0)
			field_invalid_int(e, FIELD_CHILD(p, "runAsUser"), *sc->run_as_user, "must be between 0 and 2147483647, inclusive");
		if (sc->allow_privilege_escalation && !*sc->allow_privilege_escalation) {
			if (sc->privileged && *sc->privileged)
				field_invalid_raw(e, p, STR("null"), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
		}
	}
}

/* ---- volumes ---- */

static void check_volumes(struct field_errors *e, const struct core_v1_pod_spec *s, const struct field_path *at)
{
	const struct field_path *volumes = FIELD_CHILD(at, "volumes");
	const struct schema_type *t = &core_v1_volume_source_type;

	for (uint32_t i = 0; i < s->volumes.n; i++) {
		const struct core_v1_volume *v = &s->volumes.v[i];
		const struct field_path *p = FIELD_INDEX(volumes, i);
		const char *m;
		int sources = 0;

		if (!v->name.n) {
			field_required(e, FIELD_CHILD(p, "name"), "");
		} else {
			m = validate_dns1123_label(e->arena, v->name);
			if (m)
				field_invalid(e, FIELD_CHILD(p, "name"), v->name, "%s", m);
			for (uint32_t k = 0; k < i; k++)
				if (str_eq(s->volumes.v[k].name, v->name)) {
					field_duplicate(e, FIELD_CHILD(p, "name"), v->name);
					break;
				}
		}
		for (uint16_t f = 0; f < t->n_fields; f++) {
			if (t->fields[f].card != CARD_PTR || !*(void *const *)(const void *)((const char *)&v->volume_source + t->fields[f].offset))
				continue;
			if (sources++)
				field_forbidden(e, FIELD_CHILD_S(p, t->fields[f].name), "may not specify more than 1 volume type");
		}
		if (!sources)
			field_required(e, p, "must specify a volume type");
		if (v->volume_source.host_path && !v->volume_source.host_path->path.n)
			field_required(e, FIELD_CHILD(FIELD_CHILD(p, "hostPath"), "path"), "");
		if (v->volume_source.host_path && steps_up(v->volume_source.host_path->path))
			field_invalid(e, FIELD_CHILD(FIELD_CHILD(p, "hostPath"), "path"), v->volume_source.host_path->path, "must not contain '..'");
		if (v->volume_source.secret && !v->volume_source.secret->secret_name.n)
			field_required(e, FIELD_CHILD(FIELD_CHILD(p, "secret"), "secretName"), "");
		if (v->volume_source.config_map && !v->volume_source.config_map->local_object_reference.name.n)
			field_required(e, FIELD_CHILD(FIELD_CHILD(p, "configMap"), "name"), "");
		if (v->volume_source.persistent_volume_claim && !v->volume_source.persistent_volume_claim->claim_name.n)
			field_required(e, FIELD_CHILD(FIELD_CHILD(p, "persistentVolumeClaim"), "claimName"), "");
	}
}

static void check_tolerations(struct field_errors *e, const struct core_v1_pod_spec *s, const struct field_path *at)
{
	const struct field_path *list = FIELD_CHILD(at, "tolerations");

	for (uint32_t i = 0; i < s->tolerations.n; i++) {
		const struct core_v1_toleration *t = &s->tolerations.v[i];
		const struct field_path *p = FIELD_INDEX(list, i);
		const char *m = t->key.n ? validate_qualified_name(e->arena, t->key) : NULL;

		if (m)
			field_invalid(e, FIELD_CHILD(p, "key"), t->key, "%s", m);
		if (!t->key.n && !str_eqz(t->operator, "Exists"))
			field_invalid(e, FIELD_CHILD(p, "operator"), t->operator, "operator must be Exists when `key` is empty, which means \"match all "
				      "values and all keys\"");
		if (str_eqz(t->operator, "Exists") && t->value.n)
			field_invalid(e, FIELD_CHILD(p, "operator"), t->value, "value must be empty when `operator` is 'Exists'");
		if (t->toleration_seconds && !str_eqz(t->effect, "NoExecute"))
			field_invalid(e, FIELD_CHILD(p, "effect"), t->effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
	}
}

void validate_pod_spec(struct field_errors *e, const struct core_v1_pod_spec *s, const struct field_path *at)
{
	struct map names = {0};
	const char *m;

	check_volumes(e, s, at);
	if (!s->containers.n)
		field_required(e, FIELD_CHILD(at, "containers"), "");
	for (uint32_t i = 0; i < s->containers.n; i++)
		check_container(e, &s->containers.v[i], s, &names, false, FIELD_INDEX(FIELD_CHILD(at, "containers"), i));
	for (uint32_t i = 0; i < s->init_containers.n; i++)
		check_container(e, &s->init_containers.v[i], s, &names, true, FIELD_INDEX(FIELD_CHILD(at, "initContainers"), i));
	for (uint32_t i = 0; i < s->ephemeral_containers.n; i++) {
		const struct core_v1_ephemeral_container_common *c = &s->ephemeral_containers.v[i].ephemeral_container_common;
		struct common k = {.name = c->name, .image = c->image, .env = c->env.v, .n_env = c->env.n, .env_from = c->env_from.v,
				   .n_env_from = c->env_from.n, .mounts = c->volume_mounts.v, .n_mounts = c->volume_mounts.n};
		const struct field_path *p = FIELD_INDEX(FIELD_CHILD(at, "ephemeralContainers"), i);
		struct str target = s->ephemeral_containers.v[i].target_container_name;

		check_common(e, &k, s, &names, p);
		if (target.n && !map_has(&names, target))
			field_not_found(e, FIELD_CHILD(p, "targetContainerName"), target);
		if (c->ports.n)
			field_forbidden(e, FIELD_CHILD(p, "ports"), "cannot be set for an Ephemeral Container");
		if (c->liveness_probe)
			field_forbidden(e, FIELD_CHILD(p, "livenessProbe"), "cannot be set for an Ephemeral Container");
		if (c->readiness_probe)
			field_forbidden(e, FIELD_CHILD(p, "readinessProbe"), "cannot be set for an Ephemeral Container");
		if (c->lifecycle)
			field_forbidden(e, FIELD_CHILD(p, "lifecycle"), "cannot be set for an Ephemeral Container");
		if (c->resources.limits.n || c->resources.requests.n)
			field_forbidden(e, FIELD_CHILD(p, "resources"), "cannot be set for an Ephemeral Container");
	}
	map_free(&names);
	if (s->service_account_name.n) {
		m = validate_dns1123_subdomain(e->arena, s->service_account_name);
		if (m)
			field_invalid(e, FIELD_CHILD(at, "serviceAccountName"), s->service_account_name, "%s", m);
	}
	if (s->node_name.n) {
		m = validate_dns1123_subdomain(e->arena, s->node_name);
		if (m)
			field_invalid(e, FIELD_CHILD(at, "nodeName"), s->node_name, "%s", m);
	}
	validate_labels(e, API_MAP(&s->node_selector), FIELD_CHILD(at, "nodeSelector"));
	if (s->active_deadline_seconds && (*s->active_deadline_seconds < 1 || *s->active_deadline_seconds > 2147483647))
		field_invalid_int(e, FIELD_CHILD(at, "activeDeadlineSeconds"), *s->active_deadline_seconds,
				  "must be between 1 and 2147483647, inclusive");
	if (s->hostname.n) {
		m = validate_dns1123_label(e->arena, s->hostname);
		if (m)
			field_invalid(e, FIELD_CHILD(at, "hostname"), s->hostname, "%s", m);
	}
	if (s->subdomain.n) {
		m = validate_dns1123_label(e->arena, s->subdomain);
		if (m)
			field_invalid(e, FIELD_CHILD(at, "subdomain"), s->subdomain, "%s", m);
	}
	if (s->priority_class_name.n) {
		m = validate_dns1123_subdomain(e->arena, s->priority_class_name);
		if (m)
			field_invalid(e, FIELD_CHILD(at, "priorityClassName"), s->priority_class_name, "%s", m);
	}
	if (s->runtime_class_name) {
		m = validate_dns1123_subdomain(e->arena, *s->runtime_class_name);
		if (m)
			field_invalid(e, FIELD_CHILD(at, "runtimeClassName"), *s->runtime_class_name, "%s", m);
	}
	for (uint32_t i = 0; i < s->host_aliases.n; i++)
		if ((m = validate_ip(e->arena, s->host_aliases.v[i].ip)) != NULL)
			field_invalid(e, FIELD_CHILD(FIELD_INDEX(FIELD_CHILD(at, "hostAliases"), i), "ip"), s->host_aliases.v[i].ip, "%s", m);
	check_tolerations(e, s, at);
	if (s->share_process_namespace && *s->share_process_namespace && s->host_pid)
		field_invalid_raw(e, FIELD_CHILD(at, "shareProcessNamespace"), STR("true"),
				  "ShareProcessNamespace and HostPID cannot both be enabled");
	if (str_eqz(s->dns_policy, "None") && (!s->dns_config || !s->dns_config->nameservers.n))
		field_required(e, FIELD_CHILD(FIELD_CHILD(at, "dnsConfig"), "nameservers"),
			       "must provide at least one DNS nameserver when `dnsPolicy` is None");
	for (uint32_t i = 0; i < s->topology_spread_constraints.n; i++) {
		const struct core_v1_topology_spread_constraint *c = &s->topology_spread_constraints.v[i];
		const struct field_path *p = FIELD_INDEX(FIELD_CHILD(at, "topologySpreadConstraints"), i);

		if (c->max_skew <= 0)
			field_invalid_int(e, FIELD_CHILD(p, "maxSkew"), c->max_skew, "must be greater than zero");
		if (!c->topology_key.n)
			field_required(e, FIELD_CHILD(p, "topologyKey"), "can not be empty");
		if (c->label_selector)
			validate_label_selector(e, c->label_selector, FIELD_CHILD(p, "labelSelector"));
	}
}

void pod_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct core_v1_pod *p = obj;

	(void)rq;
	validate_pod_spec(e, &p->spec, FIELD_ROOT("spec"));
	if (p->spec.ephemeral_containers.n && !rq->internal)
		field_forbidden(e, FIELD_CHILD(FIELD_ROOT("spec"), "ephemeralContainers"), "cannot be set on create");
	if (p->spec.scheduling_gates.n && p->spec.node_name.n)
		field_forbidden(e, FIELD_CHILD(FIELD_ROOT("spec"), "nodeName"), "cannot be set until all schedulingGates have been cleared");
}

static bool has_toleration(const struct core_v1_pod_spec *s, const struct core_v1_toleration *t)
{
	for (uint32_t i = 0; i < s->tolerations.n; i++)
		if (object_equal(&core_v1_toleration_type, &s->tolerations.v[i], t))
			return true;
	return false;
}

void pod_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_pod *p = obj, *o = old;
	const struct field_path *spec = FIELD_ROOT("spec");
	struct core_v1_pod_spec x = p->spec;
	LIST(struct core_v1_container) list = {0}, init = {0};

	(void)rq;
	if (p->spec.containers.n != o->spec.containers.n) {
		field_forbidden(e, FIELD_CHILD(spec, "containers"), "pod updates may not add or remove containers");
		return;
	}
	if (p->spec.init_containers.n != o->spec.init_containers.n) {
		field_forbidden(e, FIELD_CHILD(spec, "initContainers"), "pod updates may not add or remove containers");
		return;
	}
	for (uint32_t i = 0; i < p->spec.containers.n; i++) {
		struct core_v1_container *c = arena_push(e->arena, &list);

		*c = p->spec.containers.v[i];
		if (!c->image.n)
			field_required(e, FIELD_CHILD(FIELD_INDEX(FIELD_CHILD(spec, "containers"), i), "image"), "");
		c->image = o->spec.containers.v[i].image;
	}
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++) {
		struct core_v1_container *c = arena_push(e->arena, &init);

		*c = p->spec.init_containers.v[i];
		c->image = o->spec.init_containers.v[i].image;
	}
	if (p->spec.active_deadline_seconds) {
		if (*p->spec.active_deadline_seconds < 0)
			field_invalid_int(e, FIELD_CHILD(spec, "activeDeadlineSeconds"), *p->spec.active_deadline_seconds,
					  "must be between 0 and 2147483647, inclusive");
		if (o->spec.active_deadline_seconds && *p->spec.active_deadline_seconds > *o->spec.active_deadline_seconds)
			field_invalid_int(e, FIELD_CHILD(spec, "activeDeadlineSeconds"), *p->spec.active_deadline_seconds,
					  "must be less than or equal to previous value");
	} else if (o->spec.active_deadline_seconds) {
		field_invalid_raw(e, FIELD_CHILD(spec, "activeDeadlineSeconds"), STR("null"), "must not update from a positive integer to nil value");
	}
	for (uint32_t i = 0; i < o->spec.tolerations.n; i++)
		if (!has_toleration(&p->spec, &o->spec.tolerations.v[i])) {
			field_forbidden(e, FIELD_CHILD(spec, "tolerations"), "existing toleration can not be modified except its tolerationSeconds");
			break;
		}
	for (uint32_t i = 0; i < p->spec.scheduling_gates.n; i++) {
		bool was = false;

		for (uint32_t k = 0; k < o->spec.scheduling_gates.n; k++)
			was |= str_eq(o->spec.scheduling_gates.v[k].name, p->spec.scheduling_gates.v[i].name);
		if (!was)
			field_forbidden(e, FIELD_INDEX(FIELD_CHILD(spec, "schedulingGates"), i),
					"only deletion is allowed, but found new scheduling gate '%.*s'", STR_ARG(p->spec.scheduling_gates.v[i].name));
	}
	if (e->list.n)
		return;
	/* with what may change set back, nothing may have changed */
	memcpy(&x.containers, &list, sizeof list);
	memcpy(&x.init_containers, &init, sizeof init);
	x.active_deadline_seconds = o->spec.active_deadline_seconds;
	memcpy(&x.tolerations, &o->spec.tolerations, sizeof x.tolerations);
	memcpy(&x.scheduling_gates, &o->spec.scheduling_gates, sizeof x.scheduling_gates);
	if (o->spec.termination_grace_period_seconds && *o->spec.termination_grace_period_seconds < 0 && x.termination_grace_period_seconds &&
	    *x.termination_grace_period_seconds == 1)
		x.termination_grace_period_seconds = o->spec.termination_grace_period_seconds;
	if (o->spec.scheduling_gates.n) {
		/* gated pods may be narrowed */
		memcpy(&x.node_selector, &o->spec.node_selector, sizeof x.node_selector);
		x.affinity = o->spec.affinity;
	}
	if (!object_equal(&core_v1_pod_spec_type, &x, &o->spec))
		field_forbidden(e, spec, "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
				"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
				"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n");
}

void pod_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_pod *p = obj, *o = old;

	(void)rq;
	if (!strcmp(sub, "ephemeralcontainers")) {
		const struct field_path *at = FIELD_CHILD(FIELD_ROOT("spec"), "ephemeralContainers");

		validate_pod_spec(e, &p->spec, FIELD_ROOT("spec"));
		for (uint32_t i = 0; i < o->spec.ephemeral_containers.n; i++) {
			const struct core_v1_ephemeral_container *was = &o->spec.ephemeral_containers.v[i], *now = NULL;

			for (uint32_t k = 0; k < p->spec.ephemeral_containers.n; k++)
				if (str_eq(p->spec.ephemeral_containers.v[k].ephemeral_container_common.name, was->ephemeral_container_common.name))
					now = &p->spec.ephemeral_containers.v[k];
			if (!now)
				field_forbidden(e, at, "existing ephemeral containers \"%.*s\" may not be removed\n",
						STR_ARG(was->ephemeral_container_common.name));
			else if (!object_equal(&core_v1_ephemeral_container_type, now, was))
				field_forbidden(e, at, "existing ephemeral containers \"%.*s\" may not be changed\n",
						STR_ARG(was->ephemeral_container_common.name));
		}
	} else if (!strcmp(sub, "resize")) {
		validate_pod_spec(e, &p->spec, FIELD_ROOT("spec"));
	}
}

void validate_template(struct field_errors *e, const struct core_v1_pod_template_spec *t, const struct meta_v1_label_selector *selector,
		       const struct str *policies, size_t n_policies, const struct field_path *spec)
{
	const struct field_path *at = FIELD_CHILD(spec, "template");
	const struct selector *sel;
	bool allowed = n_policies == 0;

	if (selector) {
		struct error *err = label_selector_from(e->arena, selector, &sel);

		if (err)
			error_free(err);
		else if (!selector_matches(sel, API_MAP(&t->metadata.labels))) {
			struct buf b buf_cleanup = {0};

			json_encode(&b, &meta_v1_object_meta_type, &(struct meta_v1_object_meta){0});
			b.n = 0;
			buf_putc(&b, '{');
			for (uint32_t i = 0; i < t->metadata.labels.n; i++)
				buf_printf(&b, "%s\"%.*s\":\"%.*s\"", i ? "," : "", STR_ARG(t->metadata.labels.v[i].key),
					   STR_ARG(t->metadata.labels.v[i].value));
			buf_putc(&b, '}');
			field_invalid_raw(e, FIELD_CHILD(FIELD_CHILD(at, "metadata"), "labels"), arena_str(e->arena, buf_view(&b)),
					  "`selector` does not match template `labels`");
		}
	}
	validate_labels(e, API_MAP(&t->metadata.labels), FIELD_CHILD(FIELD_CHILD(at, "metadata"), "labels"));
	validate_annotations(e, API_MAP(&t->metadata.annotations), FIELD_CHILD(FIELD_CHILD(at, "metadata"), "annotations"));
	validate_pod_spec(e, &t->spec, FIELD_CHILD(at, "spec"));
	for (size_t i = 0; i < n_policies; i++)
		allowed |= str_eq(t->spec.restart_policy, policies[i]);
	if (!allowed)
		field_not_supported(e, FIELD_CHILD(FIELD_CHILD(at, "spec"), "restartPolicy"), t->spec.restart_policy, policies, n_policies);
	if (t->spec.ephemeral_containers.n)
		field_forbidden(e, FIELD_CHILD(FIELD_CHILD(at, "spec"), "ephemeralContainers"), "ephemeral containers not allowed in pod template");
}

void pod_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_pod *p = obj;

	if (old)
		return;
	for (uint32_t i = 0; i < p->spec.containers.n; i++) {
		const struct core_v1_container *c = &p->spec.containers.v[i];

		for (uint32_t k = 0; k < c->env.n; k++)
			for (uint32_t j = 0; j < k; j++)
				if (str_eq(c->env.v[j].name, c->env.v[k].name))
					request_warn(rq, "spec.containers[%u].env[%u]: hides previous definition of \"%.*s\", which may be dropped when "
							 "using apply", i, k, STR_ARG(c->env.v[k].name));
	}
}
