/* Services: rules, and what a client is told about one that is let through. Addresses and ports are alloc.c's. */
#include "apiserver/alloc.h"
#include "apiserver/validate_pod.h"

bool service_is(const struct core_v1_service *s, const char *type)
{
	return str_eqz(s->spec.type, type);
}

bool service_headless(const struct core_v1_service *s)
{
	return s->spec.cluster_ips.n == 1 && str_eqz(s->spec.cluster_ips.v[0], "None");
}

bool service_external(const struct core_v1_service *s)
{
	return service_is(s, "LoadBalancer") || service_is(s, "NodePort") || (service_is(s, "ClusterIP") && s->spec.external_ips.n);
}

bool service_needs_health_port(const struct core_v1_service *s)
{
	return service_is(s, "LoadBalancer") && str_eqz(s->spec.external_traffic_policy, "Local");
}

static const struct strings *ips_of(const struct core_v1_service *s)
{
	return (const void *)&s->spec.cluster_ips;
}

void service_rules_cluster_ips(const struct core_v1_service *s, const struct core_v1_service *o, struct field_errors *e)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *ips = AT(spec, "clusterIPs"), *families = AT(spec, "ipFamilies");
	bool bad = false;

	if (service_is(s, "ExternalName"))
		return;
	if (s->spec.cluster_ip.n && !s->spec.cluster_ips.n)
		field_required(e, ips, "");
	else if (s->spec.cluster_ip.n && !str_eq(s->spec.cluster_ips.v[0], s->spec.cluster_ip))
		field_invalid_list(e, ips, ips_of(s), "first value must match `clusterIP`");
	else if (!s->spec.cluster_ip.n && s->spec.cluster_ips.n)
		field_invalid_list(e, ips, ips_of(s), "must be empty when `clusterIP` is not specified");
	for (uint32_t i = 0; i < s->spec.ip_families.n; i++) {
		field_one_of(e, EL(families, i), s->spec.ip_families.v[i], "IPv4,IPv6");
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(s->spec.ip_families.v[k], s->spec.ip_families.v[i])) {
				field_duplicate(e, EL(families, i), s->spec.ip_families.v[i]);
				break;
			}
	}
	if (s->spec.ip_family_policy)
		field_one_of(e, AT(spec, "ipFamilyPolicy"), *s->spec.ip_family_policy, "PreferDualStack,RequireDualStack,SingleStack");
	for (uint32_t i = 0; i < s->spec.cluster_ips.n; i++) {
		uint32_t before = e->list.n;

		if (i == 0 && str_eqz(s->spec.cluster_ips.v[i], "None")) {
			if (s->spec.cluster_ips.n > 1) {
				bad = true;
				field_invalid_list(e, ips, ips_of(s), "'None' must be the first and only value");
			}
			continue;
		}
		rule_legacy_ip(e, EL(ips, i), s->spec.cluster_ips.v[i], o ? o->spec.cluster_ips.v : NULL, o ? o->spec.cluster_ips.n : 0);
		bad |= e->list.n > before;
	}
	if (s->spec.cluster_ips.n > 2)
		field_invalid_list(e, ips, ips_of(s), "may only hold up to 2 values");
	if (bad)
		return;
	if (s->spec.cluster_ips.n > 1) {
		bool v4 = false, v6 = false;

		for (uint32_t i = 0; i < s->spec.cluster_ips.n; i++) {
			v4 |= ip_family(s->spec.cluster_ips.v[i]) == 4;
			v6 |= ip_family(s->spec.cluster_ips.v[i]) == 6;
		}
		if (!v4 || !v6)
			field_invalid_list(e, ips, ips_of(s), "may specify no more than one IP for each IP family");
	}
	for (uint32_t i = 0; !service_headless(s) && i < s->spec.cluster_ips.n && i < s->spec.ip_families.n; i++) {
		struct str ip = s->spec.cluster_ips.v[i], family = s->spec.ip_families.v[i];

		if (str_eqz(family, "IPv4") && ip_family(ip) == 6)
			field_invalid(e, EL(ips, i), ip, "expected an IPv4 value as indicated by `ipFamilies[%u]`", i);
		if (str_eqz(family, "IPv6") && ip_family(ip) != 6)
			field_invalid(e, EL(ips, i), ip, "expected an IPv6 value as indicated by `ipFamilies[%u]`", i);
	}
}

static void ports(struct field_errors *e, const struct field_path *list, const struct core_v1_service *s)
{
	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		const struct core_v1_service_port *p = &s->spec.ports.v[i];
		const struct field_path *at = EL(list, i);

		if (s->spec.ports.n > 1 && !p->name.n) {
			field_required(e, AT(at, "name"), "");
		} else if (p->name.n) {
			field_check(e, AT(at, "name"), p->name, validate_dns1123_label);
			for (uint32_t k = 0; k < i; k++)
				if (str_eq(s->spec.ports.v[k].name, p->name)) {
					field_duplicate(e, AT(at, "name"), p->name);
					break;
				}
		}
		rule_port_number(e, AT(at, "port"), p->port);
		rule_enum(e, AT(at, "protocol"), p->protocol, "SCTP,TCP,UDP");
		rule_port(e, AT(at, "targetPort"), &p->target_port);
		if (p->app_protocol)
			field_check(e, AT(at, "appProtocol"), *p->app_protocol, validate_qualified_name);
	}
}

static void port_conflicts(struct field_errors *e, const struct field_path *list, const struct core_v1_service *s)
{
	for (uint32_t i = 0; i < s->spec.ports.n && service_is(s, "ClusterIP"); i++)
		if (s->spec.ports.v[i].node_port)
			field_forbidden(e, AT(EL(list, i), "nodePort"), "may not be used when `type` is 'ClusterIP'");
	for (uint32_t i = 0; i < s->spec.ports.n; i++)
		for (uint32_t k = 0; k < i && s->spec.ports.v[i].node_port; k++)
			if (s->spec.ports.v[k].node_port == s->spec.ports.v[i].node_port &&
			    str_eq(s->spec.ports.v[k].protocol, s->spec.ports.v[i].protocol)) {
				field_duplicate_int(e, AT(EL(list, i), "nodePort"), s->spec.ports.v[i].node_port);
				break;
			}
	for (uint32_t i = 0; i < s->spec.ports.n; i++)
		for (uint32_t k = 0; k < i; k++)
			if (s->spec.ports.v[k].port == s->spec.ports.v[i].port && str_eq(s->spec.ports.v[k].protocol, s->spec.ports.v[i].protocol)) {
				field_duplicate_raw(e, EL(list, i),
						    arena_printf(e->arena, "{\"Name\":\"\",\"Protocol\":\"%.*s\",\"AppProtocol\":null,\"Port\":%d,"
								 "\"TargetPort\":0,\"NodePort\":0}", STR_ARG(s->spec.ports.v[i].protocol),
								 s->spec.ports.v[i].port), "");
				break;
			}
}

#define AFFINITY_SECONDS_MAX 86400

static void affinity(struct field_errors *e, const struct field_path *spec, const struct core_v1_service *s)
{
	const struct field_path *p = AT(spec, "sessionAffinityConfig"), *client = AT(p, "clientIP"), *seconds = AT(client, "timeoutSeconds");
	const struct core_v1_session_affinity_config *c = s->spec.session_affinity_config;
	static const char when[] = "when session affinity type is ClientIP";

	rule_enum(e, AT(spec, "sessionAffinity"), s->spec.session_affinity, "ClientIP,None");
	if (str_eqz(s->spec.session_affinity, "None") && c)
		field_forbidden(e, p, "must not be set when session affinity is None");
	if (!str_eqz(s->spec.session_affinity, "ClientIP"))
		return;
	if (!c)
		field_required(e, p, when);
	else if (!c->client_ip)
		field_required(e, client, when);
	else if (!c->client_ip->timeout_seconds)
		field_required(e, seconds, when);
	else if (*c->client_ip->timeout_seconds <= 0 || *c->client_ip->timeout_seconds > AFFINITY_SECONDS_MAX)
		field_invalid_int(e, seconds, *c->client_ip->timeout_seconds, "must be greater than 0 and less than %d", AFFINITY_SECONDS_MAX);
}

static void source_ranges(struct field_errors *e, const struct core_v1_service *s, const struct core_v1_service *o)
{
	static const struct str key = STR_INIT("service.beta.kubernetes.io/load-balancer-source-ranges");
	const struct str_map *an = API_MAP(&s->metadata.annotations);
	const struct field_path *p = AT(FIELD_ROOT("spec"), "LoadBalancerSourceRanges"); /* so spelled upstream */

	if (s->spec.load_balancer_source_ranges.n) {
		struct strings old = {0};

		if (!service_is(s, "LoadBalancer"))
			field_forbidden(e, p, "may only be used when `type` is 'LoadBalancer'");
		for (uint32_t i = 0; o && i < o->spec.load_balancer_source_ranges.n; i++)
			*arena_push(e->arena, &old) = str_trim(o->spec.load_balancer_source_ranges.v[i]);
		for (uint32_t i = 0; i < s->spec.load_balancer_source_ranges.n; i++)
			rule_legacy_cidr(e, EL(p, i), str_trim(s->spec.load_balancer_source_ranges.v[i]), old.v, old.n);
	} else if (str_map_has(an, key)) {
		struct str v = str_map_get(an, key);

		p = KEY(AT(FIELD_ROOT("metadata"), "annotations"), key);
		if (!service_is(s, "LoadBalancer"))
			field_forbidden(e, p, "may only be used when `type` is 'LoadBalancer'");
		if (!o || !str_eq(str_map_get(API_MAP(&o->metadata.annotations), key), v))
			for (struct str rest = str_trim(v); rest.n;)
				rule_legacy_cidr(e, p, str_trim(str_cut(&rest, ',')), NULL, 0);
	}
}

static void traffic(struct field_errors *e, const struct field_path *spec, const struct core_v1_service *s)
{
	const struct field_path *external = AT(spec, "externalTrafficPolicy"), *health = AT(spec, "healthCheckNodePort"),
				*internal = AT(spec, "internalTrafficPolicy");

	if (!service_external(s)) {
		if (s->spec.external_traffic_policy.n)
			field_invalid(e, external, s->spec.external_traffic_policy, "may only be set for externally-accessible services");
	} else {
		rule_enum(e, external, s->spec.external_traffic_policy, "Cluster,Local");
	}
	if (!service_needs_health_port(s)) {
		if (s->spec.health_check_node_port)
			field_invalid_int(e, health, s->spec.health_check_node_port,
					  "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
	} else if (!s->spec.health_check_node_port) {
		field_required(e, health, "");
	} else {
		rule_port_number(e, health, s->spec.health_check_node_port);
	}
	if (!s->spec.internal_traffic_policy && (service_is(s, "NodePort") || service_is(s, "LoadBalancer") || service_is(s, "ClusterIP")))
		field_required(e, internal, "");
	if (s->spec.internal_traffic_policy)
		field_one_of(e, internal, *s->spec.internal_traffic_policy, "Cluster,Local");
	if (s->spec.traffic_distribution)
		field_one_of(e, AT(spec, "trafficDistribution"), *s->spec.traffic_distribution, "PreferClose,PreferSameZone,PreferSameNode");
}

static void balancer_class(struct field_errors *e, const struct core_v1_service *s)
{
	const struct field_path *p = AT(FIELD_ROOT("spec"), "loadBalancerClass");

	if (!s->spec.load_balancer_class)
		return;
	if (service_is(s, "LoadBalancer"))
		field_check(e, p, *s->spec.load_balancer_class, validate_qualified_name);
	else
		field_forbidden(e, p, "may only be used when `type` is 'LoadBalancer'");
}

static void rules(const struct core_v1_service *s, const struct core_v1_service *o, struct field_errors *e)
{
	static const struct str hints = STR_INIT("service.kubernetes.io/topology-aware-hints"), mode = STR_INIT("service.kubernetes.io/topology-mode");
	const struct str_map *an = API_MAP(&s->metadata.annotations);
	const struct field_path *spec = FIELD_ROOT("spec"), *list = AT(spec, "ports");
	bool headless = service_headless(s);

	if (str_map_has(an, hints) && str_map_has(an, mode) && !str_eq(str_map_get(an, hints), str_map_get(an, mode)))
		field_invalid(e, KEY(AT(FIELD_ROOT("metadata"), "annotations"), mode), str_map_get(an, mode),
			      "must match annotations[service.kubernetes.io/topology-aware-hints] when both are specified");
	if (!s->spec.ports.n && !headless && !service_is(s, "ExternalName"))
		field_required(e, list, "");
	if (headless && (service_is(s, "LoadBalancer") || service_is(s, "NodePort")))
		field_invalid(e, EL(AT(spec, "clusterIPs"), 0), s->spec.cluster_ips.v[0], "may not be set to 'None' for %.*s services",
			      STR_ARG(s->spec.type));
	if (service_is(s, "ExternalName")) {
		struct str name = s->spec.external_name;

		if (s->spec.cluster_ips.n)
			field_forbidden(e, AT(spec, "clusterIPs"), "may not be set for ExternalName services");
		if (s->spec.ip_families.n)
			field_forbidden(e, AT(spec, "ipFamilies"), "may not be set for ExternalName services");
		if (s->spec.ip_family_policy)
			field_forbidden(e, AT(spec, "ipFamilyPolicy"), "may not be set for ExternalName services");
		if (name.n && name.p[name.n - 1] == '.')
			name.n--;
		rule_name(e, AT(spec, "externalName"), name, validate_dns1123_subdomain);
	}
	ports(e, list, s);
	validate_labels(e, API_MAP(&s->spec.selector), AT(spec, "selector"));
	affinity(e, spec, s);
	service_rules_cluster_ips(s, o, e);
	for (uint32_t i = 0; i < s->spec.external_ips.n; i++) {
		const struct field_path *at = EL(AT(spec, "externalIPs"), i);
		uint32_t before = e->list.n;

		rule_legacy_ip(e, at, s->spec.external_ips.v[i], o ? o->spec.external_ips.v : NULL, o ? o->spec.external_ips.n : 0);
		if (e->list.n == before)
			rule_endpoint_ip(e, at, s->spec.external_ips.v[i]);
	}
	rule_enum(e, AT(spec, "type"), s->spec.type, "ClusterIP,ExternalName,LoadBalancer,NodePort");
	port_conflicts(e, list, s);
	source_ranges(e, s, o);
	if (s->spec.allocate_load_balancer_node_ports && !service_is(s, "LoadBalancer"))
		field_forbidden(e, AT(spec, "allocateLoadBalancerNodePorts"), "may only be used when `type` is 'LoadBalancer'");
	if (!s->spec.allocate_load_balancer_node_ports && service_is(s, "LoadBalancer"))
		field_required(e, FIELD_ROOT("allocateLoadBalancerNodePorts"), "");
	balancer_class(e, s);
	traffic(e, spec, s);
}

void service_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	rules(obj, NULL, e);
}

/* ---- update ---- */

/* How addresses and families may change: the first stays, the second comes and goes with the policy. */
static void upgrades(struct field_errors *e, const struct core_v1_service *s, const struct core_v1_service *o)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *ips = AT(spec, "clusterIPs"), *families = EL(AT(spec, "ipFamilies"), 0),
				*policy = AT(spec, "ipFamilyPolicy");
	const struct strings *now = ips_of(s), *was = ips_of(o), *f = (const void *)&s->spec.ip_families, *wf = (const void *)&o->spec.ip_families;
	bool single = ptr_is(s->spec.ip_family_policy, "SingleStack");

	if (service_is(s, "ExternalName") || service_is(o, "ExternalName") || (service_headless(s) && service_headless(o)))
		return;
	if (now->n == was->n) {
		for (uint32_t i = 0; i < was->n; i++)
			if (!str_eq(now->v[i], was->v[i]))
				field_invalid_list(e, EL(ips, i), now, "may not change once set");
	} else if (was->n > now->n) {
		if (!now->n)
			field_invalid_list(e, EL(ips, 0), now, "primary clusterIP can not be unset");
		else if (!str_eq(now->v[0], was->v[0]))
			field_invalid_list(e, EL(ips, 0), now, "may not change once set");
		if (now->n == 1 && !single)
			field_invalid(e, policy, s->spec.ip_family_policy ? *s->spec.ip_family_policy : STR_NULL,
				      "must be set to 'SingleStack' when releasing the secondary clusterIP");
	} else if (was->n && !str_eq(now->v[0], was->v[0])) {
		field_invalid_list(e, EL(ips, 0), now, "may not change once set");
	}
	if (service_headless(s) || service_headless(o))
		return;
	if (f->n == wf->n) {
		for (uint32_t i = 0; i < wf->n; i++)
			if (!str_eq(f->v[i], wf->v[i]))
				field_invalid_list(e, families, f, "may not change once set");
	} else if (wf->n > f->n) {
		if (!now->n)
			field_invalid_list(e, families, f, "primary ipFamily can not be unset");
		if (f->n && !str_eq(f->v[0], wf->v[0]))
			field_invalid_list(e, families, now, "may not change once set");
		if (f->n == 1 && !single)
			field_invalid(e, policy, s->spec.ip_family_policy ? *s->spec.ip_family_policy : STR_NULL,
				      "must be set to 'SingleStack' when releasing the secondary ipFamily");
	} else if (wf->n && f->n && !str_eq(f->v[0], wf->v[0])) {
		field_invalid_list(e, families, now, "may not change once set");
	}
}

void service_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_service *s = obj, *o = old;
	const struct str *c = s->spec.load_balancer_class, *w = o->spec.load_balancer_class;

	(void)rq;
	upgrades(e, s, o);
	if (service_is(s, "LoadBalancer") && service_is(o, "LoadBalancer") && (!c != !w || (c && !str_eq(*c, *w))))
		field_invalid_raw(e, AT(FIELD_ROOT("spec"), "loadBalancerClass"), c ? arena_printf(e->arena, "\"%.*s\"", STR_ARG(*c)) : STR("null"),
				  "may not change once set");
	balancer_class(e, s);
	if (service_needs_health_port(s) && service_needs_health_port(o) && s->spec.health_check_node_port != o->spec.health_check_node_port)
		field_forbidden(e, AT(FIELD_ROOT("spec"), "healthCheckNodePort"), "field is immutable");
	rules(s, o, e);
}

/* ---- status ---- */

void rule_load_balancer_hostname(struct field_errors *e, const struct field_path *p, struct str hostname)
{
	if (!hostname.n)
		return;
	field_check(e, p, hostname, validate_dns1123_subdomain);
	if (ip_family(hostname))
		field_invalid(e, p, hostname, "must be a DNS name, not an IP address");
}

void service_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct core_v1_service *s = obj, *o = old;
	const struct field_path *list = AT(AT(FIELD_ROOT("status"), "loadBalancer"), "ingress");
	struct strings was = {0};

	(void)rq;
	if (strcmp(sub, "status"))
		return;
	if (!service_is(s, "LoadBalancer")) {
		if (s->status.load_balancer.ingress.n)
			field_forbidden(e, list, "may only be used when `spec.type` is 'LoadBalancer'");
		return;
	}
	for (uint32_t i = 0; i < o->status.load_balancer.ingress.n; i++)
		if (o->status.load_balancer.ingress.v[i].ip.n)
			*arena_push(e->arena, &was) = o->status.load_balancer.ingress.v[i].ip;
	for (uint32_t i = 0; i < s->status.load_balancer.ingress.n; i++) {
		const struct core_v1_load_balancer_ingress *g = &s->status.load_balancer.ingress.v[i];
		const struct field_path *at = EL(list, i);

		if (g->ip.n)
			rule_legacy_ip(e, AT(at, "ip"), g->ip, was.v, was.n);
		if (!g->ip_mode && g->ip.n)
			field_required(e, AT(at, "ipMode"), "must be specified when `ip` is set");
		else if (g->ip_mode && !g->ip.n)
			field_forbidden(e, AT(at, "ipMode"), "may not be specified when `ip` is not set");
		else if (g->ip_mode)
			field_one_of(e, AT(at, "ipMode"), *g->ip_mode, "Proxy,VIP");
		rule_load_balancer_hostname(e, AT(at, "hostname"), g->hostname);
	}
}

/* ---- warnings ---- */

void service_warn(struct request *rq, const void *obj, const void *old)
{
	const struct core_v1_service *s = obj;
	const struct field_path *spec = FIELD_ROOT("spec");
	bool headless = service_is(s, "ClusterIP") && str_eqz(s->spec.cluster_ip, "None");

	(void)old;
	if (str_map_has(API_MAP(&s->metadata.annotations), STR("service.kubernetes.io/topology-aware-hints")))
		request_warn(rq, "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode "
				 "instead");
	for (uint32_t i = 0; s->spec.cluster_ip.n && !str_eqz(s->spec.cluster_ip, "None") && i < s->spec.cluster_ips.n; i++)
		ip_warn(rq, EL(AT(spec, "clusterIPs"), i), s->spec.cluster_ips.v[i]);
	if (headless && s->spec.load_balancer_ip.n)
		request_warn(rq, "spec.loadBalancerIP is ignored for headless services");
	if (headless && s->spec.external_ips.n)
		request_warn(rq, "spec.externalIPs is ignored for headless services");
	if (headless && !str_eqz(s->spec.session_affinity, "None"))
		request_warn(rq, "spec.SessionAffinity is ignored for headless services");
	for (uint32_t i = 0; i < s->spec.external_ips.n; i++)
		ip_warn(rq, EL(AT(spec, "externalIPs"), i), s->spec.external_ips.v[i]);
	if (s->spec.external_ips.n && !headless && !service_is(s, "ExternalName"))
		request_warn(rq, "spec.externalIPs is deprecated and may no longer be implemented in some clusters");
	if (s->spec.load_balancer_ip.n)
		ip_warn(rq, AT(spec, "loadBalancerIP"), s->spec.load_balancer_ip);
	for (uint32_t i = 0; i < s->spec.load_balancer_source_ranges.n; i++)
		cidr_warn(rq, EL(AT(spec, "loadBalancerSourceRanges"), i), s->spec.load_balancer_source_ranges.v[i]);
	if (service_is(s, "ExternalName") && s->spec.external_ips.n)
		request_warn(rq, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
	if (!service_is(s, "ExternalName") && s->spec.external_name.n)
		request_warn(rq, "spec.externalName is ignored when spec.type is not \"ExternalName\"");
	if (ptr_is(s->spec.traffic_distribution, "PreferClose"))
		request_warn(rq, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
}
