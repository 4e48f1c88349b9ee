/* Rules of networking.k8s.io and discovery.k8s.io. */
#include "apiserver/validate_kinds.h"
#include "apiserver/validate_pod.h"
#include "apiserver/validate_workloads.h"

/* ---- ingresses ---- */

#define CLASS_ANNOTATION "kubernetes.io/ingress.class"
#define CLASS_CONTROLLER_BYTES 250

/* What an update lets through because it was there before. */
struct ingress_lax {
	bool secret_name, wildcard_rule;
};

static void typed_reference(struct field_errors *e, const struct field_path *p, const struct str *group, struct str kind, struct str name)
{
	if (group)
		field_check(e, AT(p, "apiGroup"), *group, validate_dns1123_subdomain);
	rule_name(e, AT(p, "kind"), kind, validate_path_segment);
	rule_name(e, AT(p, "name"), name, validate_path_segment);
}

static void backend(struct field_errors *e, const struct field_path *p, const struct networking_v1_ingress_backend *b)
{
	const struct field_path *s = AT(p, "service"), *port = AT(s, "port");

	if (b->service && b->resource) {
		field_invalid(e, p, STR(""), "cannot set both resource and service backends");
	} else if (b->resource) {
		typed_reference(e, AT(p, "resource"), b->resource->api_group, b->resource->kind, b->resource->name);
	} else if (!b->service) {
		field_invalid(e, p, STR(""), "resource or service backend is required");
	} else {
		rule_name(e, AT(s, "name"), b->service->name, validate_dns1123_label);
		if (b->service->port.name.n && b->service->port.number)
			field_invalid(e, p, STR(""), "cannot set both port name & port number");
		else if (b->service->port.name.n)
			field_check(e, AT(port, "name"), b->service->port.name, validate_port_name);
		else if (b->service->port.number)
			rule_port_number(e, AT(port, "number"), b->service->port.number);
		else
			field_required(e, p, "port name or number is required");
	}
}

static void http_path(struct field_errors *e, const struct field_path *p, const struct networking_v1_http_ingress_path *h)
{
	static const char *const bad[] = {"//", "/./", "/../", "%2f", "%2F"}, *const bad_end[] = {"/..", "/."};
	const struct field_path *path = AT(p, "path");

	if (!h->path_type) {
		field_required(e, AT(p, "pathType"), "pathType must be specified");
		return;
	}
	if (ptr_is(h->path_type, "Exact") || ptr_is(h->path_type, "Prefix")) {
		if (!str_has_prefix(h->path, STR("/")))
			field_invalid(e, path, h->path, "must be an absolute path");
		for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
			if (str_contains(h->path, str_from(bad[i])))
				field_invalid(e, path, h->path, "must not contain '%s'", bad[i]);
		for (size_t i = 0; i < sizeof bad_end / sizeof *bad_end; i++)
			if (str_has_suffix(h->path, str_from(bad_end[i])))
				field_invalid(e, path, h->path, "cannot end with '%s'", bad_end[i]);
	} else if (ptr_is(h->path_type, "ImplementationSpecific")) {
		if (h->path.n && h->path.p[0] != '/')
			field_invalid(e, path, h->path, "must be an absolute path");
	} else {
		field_unsupported(e, AT(p, "pathType"), *h->path_type, "Exact,ImplementationSpecific,Prefix");
	}
	backend(e, AT(p, "backend"), &h->backend);
}

static void http_rule(struct field_errors *e, const struct field_path *p, const struct networking_v1_ingress_rule *r)
{
	const struct networking_v1_http_ingress_rule_value *http = r->ingress_rule_value.http;
	const struct field_path *paths = AT(AT(p, "http"), "paths");

	if (!http)
		return;
	if (!http->paths.n)
		field_required(e, paths, "");
	for (uint32_t i = 0; i < http->paths.n; i++)
		http_path(e, EL(paths, i), &http->paths.v[i]);
}

static void ingress_rules(struct field_errors *e, const struct networking_v1_ingress *in, struct ingress_lax lax)
{
	const struct networking_v1_ingress_spec *s = &in->spec;
	const struct field_path *spec = FIELD_ROOT("spec"), *rules = AT(spec, "rules"), *tls = AT(spec, "tls");

	if (!s->rules.n && !s->default_backend)
		field_invalid_raw(e, spec, STR("null"), "either `defaultBackend` or `rules` must be specified");
	if (s->default_backend)
		backend(e, AT(spec, "defaultBackend"), s->default_backend);
	for (uint32_t i = 0; i < s->rules.n; i++) {
		const struct networking_v1_ingress_rule *r = &s->rules.v[i];
		const struct field_path *p = EL(rules, i), *host = AT(p, "host");
		bool wildcard = str_index(r->host, '*') >= 0;

		if (r->host.n && ip_family(r->host))
			field_invalid(e, host, r->host, "must be a DNS name, not an IP address");
		if (r->host.n)
			field_check(e, host, r->host, wildcard ? validate_wildcard_dns1123_subdomain : validate_dns1123_subdomain);
		if (!wildcard || !lax.wildcard_rule)
			http_rule(e, p, r);
	}
	for (uint32_t i = 0; i < s->tls.n; i++) {
		const struct networking_v1_ingress_tls *t = &s->tls.v[i];

		for (uint32_t k = 0; k < t->hosts.n; k++)
			field_check(e, EL(AT(EL(tls, i), "hosts"), k), t->hosts.v[k],
				    str_index(t->hosts.v[k], '*') >= 0 ? validate_wildcard_dns1123_subdomain : validate_dns1123_subdomain);
		if (!lax.secret_name && t->secret_name.n)
			field_check(e, AT(EL(tls, i), "secretName"), t->secret_name, validate_dns1123_subdomain);
	}
	if (s->ingress_class_name)
		field_check(e, AT(spec, "ingressClassName"), *s->ingress_class_name, validate_dns1123_subdomain);
}

void ingress_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct networking_v1_ingress *in = obj;
	struct str class = str_map_get(API_MAP(&in->metadata.annotations), STR(CLASS_ANNOTATION));

	(void)rq;
	ingress_rules(e, in, (struct ingress_lax){0});
	if (str_map_has(API_MAP(&in->metadata.annotations), STR(CLASS_ANNOTATION)) && in->spec.ingress_class_name &&
	    !str_eq(class, *in->spec.ingress_class_name))
		field_invalid(e, AT(FIELD_ROOT("annotations"), CLASS_ANNOTATION), class, "must match `ingressClassName` when both are specified");
}

void ingress_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct networking_v1_ingress *o = old;
	struct ingress_lax lax = {0};

	(void)rq;
	for (uint32_t i = 0; i < o->spec.tls.n; i++)
		lax.secret_name |= o->spec.tls.v[i].secret_name.n && validate_dns1123_subdomain(e->arena, o->spec.tls.v[i].secret_name);
	for (uint32_t i = 0; i < o->spec.rules.n; i++) {
		struct field_errors were = {.arena = e->arena};

		if (str_index(o->spec.rules.v[i].host, '*') < 0)
			continue;
		http_rule(&were, FIELD_ROOT("http"), &o->spec.rules.v[i]);
		lax.wildcard_rule |= were.list.n > 0;
	}
	ingress_rules(e, obj, lax);
}

void ingress_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
{
	const struct networking_v1_ingress *in = obj, *o = old;
	const struct field_path *at = AT(AT(FIELD_ROOT("status"), "loadBalancer"), "ingress");
	struct str *had = arena_array(e->arena, struct str, o->status.load_balancer.ingress.n + 1);

	(void)rq;
	if (strcmp(sub, "status"))
		return;
	for (uint32_t i = 0; i < o->status.load_balancer.ingress.n; i++)
		had[i] = o->status.load_balancer.ingress.v[i].ip;
	for (uint32_t i = 0; i < in->status.load_balancer.ingress.n; i++) {
		const struct networking_v1_ingress_load_balancer_ingress *g = &in->status.load_balancer.ingress.v[i];

		if (g->ip.n)
			rule_legacy_ip(e, AT(EL(at, i), "ip"), g->ip, had, o->status.load_balancer.ingress.n);
		if (!g->hostname.n)
			continue;
		field_check(e, AT(EL(at, i), "hostname"), g->hostname, validate_dns1123_subdomain);
		if (ip_family(g->hostname))
			field_invalid(e, AT(EL(at, i), "hostname"), g->hostname, "must be a DNS name, not an IP address");
	}
}

void ingress_warn(struct request *rq, const void *obj, const void *old)
{
	const struct networking_v1_ingress *in = obj;
	const struct field_path *at = AT(AT(FIELD_ROOT("status"), "loadBalancer"), "ingress");

	if (!old && str_map_has(API_MAP(&in->metadata.annotations), STR(CLASS_ANNOTATION)) && !in->spec.ingress_class_name)
		request_warn(rq, "annotation \"" CLASS_ANNOTATION "\" is deprecated, please use 'spec.ingressClassName' instead");
	for (uint32_t i = 0; old && str_eqz(rq->info.subresource, "status") && i < in->status.load_balancer.ingress.n; i++)
		if (in->status.load_balancer.ingress.v[i].ip.n)
			ip_warn(rq, EL(at, i), in->status.load_balancer.ingress.v[i].ip);
}

/* ---- ingress classes ---- */

void ingressclass_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct networking_v1_ingress_class *c = obj;
	const struct networking_v1_ingress_class_parameters_reference *r = c->spec.parameters;
	const struct field_path *spec = FIELD_ROOT("spec"), *p = AT(spec, "parameters");

	(void)rq;
	if (c->spec.controller.n > CLASS_CONTROLLER_BYTES)
		field_too_long(e, AT(spec, "controller"), CLASS_CONTROLLER_BYTES);
	rule_domain_prefixed_path(e, AT(spec, "controller"), c->spec.controller);
	if (!r)
		return;
	typed_reference(e, p, r->api_group, r->kind, r->name);
	if (!r->scope) {
		field_required(e, AT(p, "scope"), "");
	} else if (ptr_is(r->scope, "Namespace")) {
		if (!r->namespace)
			field_required(e, AT(p, "namespace"), "`parameters.scope` is set to 'Namespace'");
		else
			field_check(e, AT(p, "namespace"), *r->namespace, validate_dns1123_label);
	} else if (!ptr_is(r->scope, "Cluster")) {
		field_unsupported(e, AT(p, "scope"), *r->scope, "Cluster,Namespace");
	} else if (r->namespace) {
		field_forbidden(e, AT(p, "namespace"), "`parameters.scope` is set to 'Cluster'");
	}
}

void ingressclass_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct networking_v1_ingress_class *c = obj, *o = old;

	rule_immutable(e, AT(FIELD_ROOT("spec"), "controller"), &networking_v1_ingress_class_spec_type, &c->spec, &o->spec, "controller");
	(void)rq;
}

/* ---- network policies ---- */

struct netpol_lax {
	bool selector;
	LIST(struct str) cidrs; /* there before */
};

static void netpol_port(struct field_errors *e, const struct field_path *p, const struct networking_v1_network_policy_port *t)
{
	if (t->protocol)
		field_one_of(e, AT(p, "protocol"), *t->protocol, "TCP,UDP,SCTP");
	if (!t->port) {
		if (t->end_port)
			field_invalid_int(e, AT(p, "endPort"), *t->end_port, "may not be specified when `port` is not specified");
	} else if (t->port->is_str) {
		if (t->end_port)
			field_invalid_int(e, AT(p, "endPort"), *t->end_port, "may not be specified when `port` is non-numeric");
		field_check(e, AT(p, "port"), t->port->s, validate_port_name);
	} else {
		rule_port_number(e, AT(p, "port"), t->port->i);
		if (!t->end_port)
			return;
		if (*t->end_port < t->port->i)
			field_invalid_int(e, AT(p, "endPort"), t->port->i, "must be greater than or equal to `port`");
		rule_port_number(e, AT(p, "endPort"), *t->end_port);
	}
}

static void ip_block(struct field_errors *e, const struct field_path *p, const struct networking_v1_ip_block *b, const struct netpol_lax *lax)
{
	if (!b->cidr.n) {
		field_required(e, AT(p, "cidr"), "");
		return;
	}
	rule_legacy_cidr(e, AT(p, "cidr"), b->cidr, lax->cidrs.v, lax->cidrs.n);
	if (!cidr_canonical(e->arena, b->cidr).n)
		return;
	for (uint32_t i = 0; i < b->except.n; i++) {
		rule_legacy_cidr(e, EL(AT(p, "except"), i), b->except.v[i], lax->cidrs.v, lax->cidrs.n);
		if (cidr_canonical(e->arena, b->except.v[i]).n && !cidr_within(b->except.v[i], b->cidr))
			field_invalid(e, EL(AT(p, "except"), i), b->except.v[i], "must be a strict subset of `cidr`");
	}
}

static void netpol_peer(struct field_errors *e, const struct field_path *p, const struct networking_v1_network_policy_peer *r,
			const struct netpol_lax *lax)
{
	if (r->pod_selector)
		validate_label_selector_lax(e, r->pod_selector, AT(p, "podSelector"), lax->selector);
	if (r->namespace_selector)
		validate_label_selector_lax(e, r->namespace_selector, AT(p, "namespaceSelector"), lax->selector);
	if (r->ip_block)
		ip_block(e, AT(p, "ipBlock"), r->ip_block, lax);
	if (!r->pod_selector && !r->namespace_selector && !r->ip_block)
		field_required(e, p, "must specify a peer");
	else if (r->ip_block && (r->pod_selector || r->namespace_selector))
		field_forbidden(e, p, "may not specify both ipBlock and another peer");
}

static void netpol_rules(struct field_errors *e, const struct networking_v1_network_policy_spec *s, const struct netpol_lax *lax)
{
	const struct field_path *spec = FIELD_ROOT("spec");

	validate_label_selector_lax(e, &s->pod_selector, AT(spec, "podSelector"), lax->selector);
	for (uint32_t i = 0; i < s->ingress.n; i++) {
		const struct field_path *at = EL(AT(spec, "ingress"), i);

		for (uint32_t k = 0; k < s->ingress.v[i].ports.n; k++)
			netpol_port(e, EL(AT(at, "ports"), k), &s->ingress.v[i].ports.v[k]);
		for (uint32_t k = 0; k < s->ingress.v[i].from.n; k++)
			netpol_peer(e, EL(AT(at, "from"), k), &s->ingress.v[i].from.v[k], lax);
	}
	for (uint32_t i = 0; i < s->egress.n; i++) {
		const struct field_path *at = EL(AT(spec, "egress"), i);

		for (uint32_t k = 0; k < s->egress.v[i].ports.n; k++)
			netpol_port(e, EL(AT(at, "ports"), k), &s->egress.v[i].ports.v[k]);
		for (uint32_t k = 0; k < s->egress.v[i].to.n; k++)
			netpol_peer(e, EL(AT(at, "to"), k), &s->egress.v[i].to.v[k], lax);
	}
	if (s->policy_types.n > 2) {
		field_invalid_list(e, AT(spec, "policyTypes"), (const struct strings *)&s->policy_types, "may not specify more than two policyTypes");
		return;
	}
	for (uint32_t i = 0; i < s->policy_types.n; i++)
		field_one_of(e, EL(AT(spec, "policyTypes"), i), s->policy_types.v[i], "Ingress,Egress");
}

void netpol_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct networking_v1_network_policy *n = obj;

	(void)rq;
	netpol_rules(e, &n->spec, &(struct netpol_lax){0});
}

/* Calls fn for each address block of a policy. */
#define EACH_BLOCK(s, block, at, ...)                                                                                        \
	do {                                                                                                                   \
		for (uint32_t i_ = 0; i_ < (s)->ingress.n; i_++)                                                               \
			for (uint32_t k_ = 0; k_ < (s)->ingress.v[i_].from.n; k_++) {                                          \
				const struct networking_v1_ip_block *block = (s)->ingress.v[i_].from.v[k_].ip_block;           \
				const struct field_path *at = AT(EL(AT(EL(AT(FIELD_ROOT("spec"), "ingress"), i_), "from"), k_), "ipBlock"); \
				(void)at;                                                                                      \
				if (block) {                                                                                   \
					__VA_ARGS__                                                                            \
				}                                                                                              \
			}                                                                                                      \
		for (uint32_t i_ = 0; i_ < (s)->egress.n; i_++)                                                                \
			for (uint32_t k_ = 0; k_ < (s)->egress.v[i_].to.n; k_++) {                                             \
				const struct networking_v1_ip_block *block = (s)->egress.v[i_].to.v[k_].ip_block;              \
				const struct field_path *at = AT(EL(AT(EL(AT(FIELD_ROOT("spec"), "egress"), i_), "to"), k_), "ipBlock"); \
				(void)at;                                                                                      \
				if (block) {                                                                                   \
					__VA_ARGS__                                                                            \
				}                                                                                              \
			}                                                                                                      \
	} while (0)

void netpol_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct networking_v1_network_policy *n = obj, *o = old;
	struct netpol_lax lax = {0};
	struct field_errors were = {.arena = e->arena};

	(void)rq;
	EACH_BLOCK(&o->spec, b, at, {
		*arena_push(e->arena, &lax.cidrs) = b->cidr;
		for (uint32_t x = 0; x < b->except.n; x++)
			*arena_push(e->arena, &lax.cidrs) = b->except.v[x];
	});
	validate_label_selector(&were, &o->spec.pod_selector, FIELD_ROOT("podSelector"));
	lax.selector = were.list.n > 0;
	netpol_rules(e, &n->spec, &lax);
}

void netpol_warn(struct request *rq, const void *obj, const void *old)
{
	const struct networking_v1_network_policy *n = obj;

	(void)old;
	EACH_BLOCK(&n->spec, b, at, {
		cidr_warn(rq, AT(at, "cidr"), b->cidr);
		for (uint32_t x = 0; x < b->except.n; x++)
			cidr_warn(rq, EL(AT(at, "except"), x), b->except.v[x]);
	});
}

/* ---- addresses and ranges of Services ---- */

void ipaddress_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct networking_v1_ip_address *a = obj;
	const struct networking_v1_parent_reference *r = a->spec.parent_ref;
	const struct field_path *p = AT(FIELD_ROOT("spec"), "parentRef");

	(void)rq;
	if (!r) {
		field_required(e, p, "");
		return;
	}
	if (r->group.n)
		field_check(e, AT(p, "group"), r->group, validate_dns1123_subdomain);
	rule_name(e, AT(p, "resource"), r->resource, validate_path_segment);
	rule_name(e, AT(p, "name"), r->name, validate_path_segment);
	if (r->namespace.n)
		field_check(e, AT(p, "namespace"), r->namespace, validate_path_segment);
}

void ipaddress_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct networking_v1_ip_address *a = obj, *o = old;

	rule_immutable(e, AT(FIELD_ROOT("spec"), "parentRef"), &networking_v1_ip_address_spec_type, &a->spec, &o->spec, "parentRef");
	(void)rq;
}

void servicecidr_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	const struct networking_v1_service_cidr *c = obj;
	const struct field_path *p = AT(FIELD_ROOT("spec"), "cidrs");
	int family[2] = {0};

	(void)rq;
	if (!c->spec.cidrs.n) {
		field_required(e, p, "at least one CIDR required");
		return;
	}
	if (c->spec.cidrs.n > 2) {
		field_invalid_obj(e, p, &networking_v1_service_cidr_spec_type, &c->spec, "may only hold up to 2 values");
		return;
	}
	for (uint32_t i = 0; i < c->spec.cidrs.n; i++) {
		struct str masked = cidr_canonical(e->arena, c->spec.cidrs.v[i]);

		field_check(e, EL(p, i), c->spec.cidrs.v[i], validate_cidr_canonical);
		family[i] = masked.n ? ip_family(str_sub(masked, 0, (size_t)str_index(masked, '/'))) : 0;
	}
	if (family[0] && family[0] == family[1])
		field_invalid_list(e, p, (const struct strings *)&c->spec.cidrs,
				   "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
}

/* A second range may be added, nothing else. */
void servicecidr_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct networking_v1_service_cidr *c = obj, *o = old;
	const struct field_path *p = AT(FIELD_ROOT("spec"), "cidrs");
	bool grown = o->spec.cidrs.n == 1 && c->spec.cidrs.n == 2;

	if (!grown && o->spec.cidrs.n != c->spec.cidrs.n) {
		field_invalid_list(e, p, (const struct strings *)&c->spec.cidrs, "field is immutable");
		return;
	}
	for (uint32_t i = 0; i < o->spec.cidrs.n; i++)
		if (!str_eq(o->spec.cidrs.v[i], c->spec.cidrs.v[i]))
			field_invalid(e, EL(p, i), c->spec.cidrs.v[i], "field is immutable");
	if (grown)
		servicecidr_validate(rq, obj, e);
}

/* ---- endpoint slices ---- */

enum { SLICE_TOPOLOGY_LABELS = 16, SLICE_ADDRESSES = 100, SLICE_PORTS = 20000, SLICE_ENDPOINTS = 1000, SLICE_HINTS = 8 };

static void full_domain_name(struct field_errors *e, const struct field_path *p, struct str name)
{
	const char *m;

	if (!name.n) {
		field_required(e, p, "");
		return;
	}
	if (str_has_suffix(name, STR(".")))
		name.n--;
	m = validate_dns1123_subdomain(e->arena, name);
	if (m) {
		field_invalid(e, p, name, "%s", m);
		return;
	}
	if (str_index(name, '.') < 0) {
		field_invalid(e, p, name, "should be a domain with at least two segments separated by dots");
		return;
	}
	for (size_t from = 0, i = 0; i <= name.n; i++) {
		if (i < name.n && name.p[i] != '.')
			continue;
		struct str label = str_sub(name, from, i);

		m = validate_dns1123_label(e->arena, label);
		if (m) {
			field_invalid(e, p, label, "%s", m);
			return;
		}
		from = i + 1;
	}
}

static void slice_address(struct field_errors *e, const struct field_path *all, uint32_t i, struct str type, struct str a, bool internal)
{
	const struct field_path *p = EL(all, i);
	bool v4 = str_eqz(type, "IPv4");

	if (str_eqz(type, "FQDN")) {
		full_domain_name(e, p, a);
	} else if (v4 || str_eqz(type, "IPv6")) {
		if (field_check(e, p, a, v4 ? validate_ip : validate_ip_canonical))
			return;
		if ((ip_family(a) == 4) != v4)
			field_invalid(e, all, a, v4 ? "must be an IPv4 address" : "must be an IPv6 address");
		if (!internal)
			rule_endpoint_ip(e, p, a);
	}
}

#define HINTS(e, p, l, check)                                                                        \
	do {                                                                                         \
		if ((l).n > SLICE_HINTS) {                                                           \
			field_too_many(e, p, (l).n, SLICE_HINTS);                                    \
			return;                                                                      \
		}                                                                                    \
		for (uint32_t i_ = 0; i_ < (l).n; i_++) {                                            \
			for (uint32_t k_ = 0; k_ < i_; k_++)                                         \
				if (str_eq((l).v[k_].name, (l).v[i_].name)) {                        \
					field_duplicate(e, AT(EL(p, i_), "name"), (l).v[i_].name);   \
					break;                                                       \
				}                                                                    \
			field_check(e, AT(EL(p, i_), "name"), (l).v[i_].name, check);                \
		}                                                                                    \
	} while (0)

static void slice_hints(struct field_errors *e, const struct field_path *p, const struct discovery_v1_endpoint_hints *h)
{
	HINTS(e, AT(p, "forZones"), h->for_zones, validate_label_value);
	HINTS(e, AT(p, "forNodes"), h->for_nodes, validate_dns1123_subdomain);
}

static void slice_endpoint(struct field_errors *e, const struct field_path *p, const struct discovery_v1_endpoint *ep, struct str type, bool internal)
{
	const struct field_path *at = AT(p, "addresses"), *topology = AT(p, "deprecatedTopology");

	if (!ep->addresses.n)
		field_required(e, at, "must contain at least 1 address");
	else if (ep->addresses.n > SLICE_ADDRESSES)
		field_too_many(e, at, ep->addresses.n, SLICE_ADDRESSES);
	for (uint32_t i = 0; i < ep->addresses.n; i++)
		slice_address(e, at, i, type, ep->addresses.v[i], internal);
	if (ep->node_name)
		field_check(e, AT(p, "nodeName"), *ep->node_name, validate_dns1123_subdomain);
	if (ep->deprecated_topology.n > SLICE_TOPOLOGY_LABELS)
		field_too_many(e, topology, ep->deprecated_topology.n, SLICE_TOPOLOGY_LABELS);
	validate_labels(e, API_MAP(&ep->deprecated_topology), topology);
	if (ep->hostname)
		field_check(e, AT(p, "hostname"), *ep->hostname, validate_dns1123_label);
	if (ep->hints)
		slice_hints(e, AT(p, "hints"), ep->hints);
}

static void slice_ports(struct field_errors *e, const struct discovery_v1_endpoint_slice *s)
{
	const struct field_path *ports = FIELD_ROOT("ports");
	__attribute__((cleanup(map_free))) struct map names = {0};

	if (s->ports.n > SLICE_PORTS) {
		field_too_many(e, ports, s->ports.n, SLICE_PORTS);
		return;
	}
	for (uint32_t i = 0; i < s->ports.n; i++) {
		const struct discovery_v1_endpoint_port *t = &s->ports.v[i];
		const struct field_path *p = EL(ports, i);
		struct str name = t->name ? *t->name : STR("");

		if (name.n)
			field_check(e, AT(p, "name"), name, validate_dns1123_label);
		if (map_get(&names, name))
			field_duplicate(e, AT(p, "name"), name);
		else
			map_set(&names, name, (void *)t);
		if (!t->protocol)
			field_required(e, AT(p, "protocol"), "");
		else
			field_one_of(e, AT(p, "protocol"), *t->protocol, "SCTP,TCP,UDP");
		if (t->app_protocol)
			field_check(e, AT(p, "appProtocol"), *t->app_protocol, validate_qualified_name);
	}
}

static void slice_rules(struct request *rq, struct field_errors *e, const struct discovery_v1_endpoint_slice *s,
			const struct discovery_v1_endpoint_slice *o)
{
	const struct field_path *eps = FIELD_ROOT("endpoints");

	rule_enum(e, FIELD_ROOT("addressType"), s->address_type, "FQDN,IPv4,IPv6");
	slice_ports(e, s);
	if (o && object_field_equal(&discovery_v1_endpoint_slice_type, s, o, "endpoints"))
		return;
	if (s->endpoints.n > SLICE_ENDPOINTS) {
		field_too_many(e, eps, s->endpoints.n, SLICE_ENDPOINTS);
		return;
	}
	for (uint32_t i = 0; i < s->endpoints.n; i++)
		slice_endpoint(e, EL(eps, i), &s->endpoints.v[i], s->address_type, rq->internal);
}

void slice_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	slice_rules(rq, e, obj, NULL);
}

void slice_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct discovery_v1_endpoint_slice *s = obj, *o = old;

	slice_rules(rq, e, s, o);
	if (!str_eq(s->address_type, o->address_type))
		field_invalid(e, FIELD_ROOT("addressType"), s->address_type, "field is immutable");
}

void slice_warn(struct request *rq, const void *obj, const void *old)
{
	const struct discovery_v1_endpoint_slice *s = obj;
	struct str by = str_map_get(API_MAP(&s->metadata.labels), STR("endpointslice.kubernetes.io/managed-by"));

	if (!old && str_eqz(s->address_type, "FQDN"))
		request_warn(rq, "spec.addressType: FQDN endpoints are deprecated");
	if (str_eqz(by, "endpointslice-controller.k8s.io") || str_eqz(by, "endpointslicemirroring-controller.k8s.io"))
		return;
	for (uint32_t i = 0; i < s->endpoints.n; i++)
		for (uint32_t k = 0; k < s->endpoints.v[i].addresses.n; k++)
			ip_warn(rq, EL(AT(EL(FIELD_ROOT("endpoints"), i), "addresses"), k), s->endpoints.v[i].addresses.v[k]);
}
