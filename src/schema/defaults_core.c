/* Conditional defaults of core/v1 (named by `defaults` in api/core.v1.api). */
#include <strings.h>

#include "schema/defaults.h"
#include "schema/quantity.h"

static struct str_map copy_map(struct arena *a, const struct str_map *m)
{
	struct str_map out = {0};

	for (uint32_t i = 0; i < m->n; i++)
		*arena_push(a, &out) = m->v[i];
	return out;
}

/* Adds what `to` does not have. */
static void add_missing(struct arena *a, struct str_map *to, const struct str_map *from)
{
	for (uint32_t i = 0; i < from->n; i++)
		if (!str_map_has(to, from->v[i].key))
			str_map_set(a, to, from->v[i].key, from->v[i].value);
}

#define MAP(field) API_MAP(&(field))

void core_v1_replication_controller_default(struct arena *a, void *obj)
{
	struct core_v1_replication_controller *rc = obj;
	const struct str_map *labels = rc->spec.template ? MAP(rc->spec.template->metadata.labels) : NULL;

	if (!labels || !labels->n)
		return;
	if (!rc->spec.selector.n)
		*MAP(rc->spec.selector) = copy_map(a, labels);
	if (!rc->metadata.labels.n)
		*MAP(rc->metadata.labels) = copy_map(a, labels);
}

/* ---- references of images, by the grammar of github.com/distribution/reference ---- */

static bool lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool word(char c)
{
	return lower_alnum(c) || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Lower-case words joined by ".", "_", "__" or any number of "-". */
static bool path_component(struct str s)
{
	size_t i = 0;

	for (;;) {
		size_t start = i;

		while (i < s.n && lower_alnum(s.p[i]))
			i++;
		if (i == start)
			return false;
		if (i == s.n)
			return true;
		if (s.p[i] == '-')
			while (i < s.n && s.p[i] == '-')
				i++;
		else if (s.p[i] == '.')
			i++;
		else if (s.p[i] == '_')
			i += i + 1 < s.n && s.p[i + 1] == '_' ? 2 : 1;
		else
			return false;
	}
}

/* A host, or an IPv6 address in brackets, and a port. */
static bool registry_domain(struct str s)
{
	ptrdiff_t colon = str_rindex(s, ':');
	struct str host = s, part;

	if (colon >= 0 && (s.p[0] != '[' || s.p[colon - 1] == ']')) {
		struct str port = str_sub(s, (size_t)colon + 1, s.n);

		for (size_t i = 0; i < port.n; i++)
			if (port.p[i] < '0' || port.p[i] > '9')
				return false;
		if (!port.n)
			return false;
		host = str_sub(s, 0, (size_t)colon);
	}
	if (host.n > 2 && host.p[0] == '[')
		return host.p[host.n - 1] == ']';
	while (host.p) {
		part = str_cut(&host, '.');
		for (size_t i = 0; i < part.n; i++)
			if (part.p[i] == '_' || (!word(part.p[i]) && (part.p[i] != '-' || !i || i + 1 == part.n)))
				return false;
		if (!part.n)
			return false;
	}
	return true;
}

static bool image_name(struct str name)
{
	ptrdiff_t slash = str_index(name, '/');
	struct str first = slash < 0 ? STR_NULL : str_sub(name, 0, (size_t)slash), rest = name;
	bool domain = str_index(first, '.') >= 0 || str_index(first, ':') >= 0 || str_eqz(first, "localhost"), hex = name.n == 64;

	for (size_t i = 0; i < first.n; i++)
		domain |= first.p[i] >= 'A' && first.p[i] <= 'Z';
	for (size_t i = 0; hex && i < name.n; i++)
		hex = (name.p[i] >= 'a' && name.p[i] <= 'f') || (name.p[i] >= '0' && name.p[i] <= '9');
	if (hex || (domain && !registry_domain(first)))
		return false; /* an identifier is no name */
	if (domain)
		rest = str_sub(name, (size_t)slash + 1, name.n);
	/* what is of Docker's own registry and has one component is under library/ */
	if (!rest.n || rest.n + (str_index(rest, '/') < 0 && (!domain || str_eqz(first, "docker.io") || str_eqz(first, "index.docker.io")) ? 8 : 0) > 255)
		return false;
	while (rest.p)
		if (!path_component(str_cut(&rest, '/')))
			return false;
	return true;
}

static bool image_digest(struct str s)
{
	struct str hex = s, algorithm = str_cut(&hex, ':');

	if (!algorithm.n || hex.n < 32)
		return false;
	for (size_t i = 0; i < hex.n; i++)
		if (!((hex.p[i] >= '0' && hex.p[i] <= '9') || (hex.p[i] >= 'a' && hex.p[i] <= 'f') || (hex.p[i] >= 'A' && hex.p[i] <= 'F')))
			return false;
	return true;
}

/* The tag is "latest": named so, or neither a tag nor a digest given. What is no reference has no tag. */
static bool image_is_latest(struct str image)
{
	struct str digest = image, name = str_cut(&digest, '@'), tag = STR_NULL;
	ptrdiff_t slash = str_rindex(name, '/'), colon = str_rindex(name, ':');

	if (digest.p && !image_digest(digest))
		return false;
	if (colon > slash) {
		tag = str_sub(name, (size_t)colon + 1, name.n);
		name = str_sub(name, 0, (size_t)colon);
		if (!tag.n || tag.n > 128 || !word(tag.p[0]))
			return false;
		for (size_t i = 0; i < tag.n; i++)
			if (!word(tag.p[i]) && tag.p[i] != '.' && tag.p[i] != '-')
				return false;
	}
	return image_name(name) && (colon > slash ? str_eqz(tag, "latest") : !digest.p);
}

static struct str pull_policy(struct str image)
{
	return image_is_latest(image) ? STR("Always") : STR("IfNotPresent");
}

void core_v1_volume_default(struct arena *a, void *obj)
{
	struct core_v1_volume *v = obj;
	bool any = false;

	/* Every source is a pointer behind the name. */
	for (uint16_t i = 0; i < core_v1_volume_type.n_fields && !any; i++) {
		const struct schema_field *f = &core_v1_volume_type.fields[i];

		any = f->card == CARD_PTR && *(void **)(void *)((char *)obj + f->offset);
	}
	if (!any)
		v->volume_source.empty_dir = arena_new(a, struct core_v1_empty_dir_volume_source);
	if (v->volume_source.image && !v->volume_source.image->pull_policy.n)
		v->volume_source.image->pull_policy = pull_policy(v->volume_source.image->reference);
}

void core_v1_container_default(struct arena *a, void *obj)
{
	struct core_v1_container *c = obj;

	if (!c->image_pull_policy.n)
		c->image_pull_policy = pull_policy(c->image);
}

void core_v1_ephemeral_container_default(struct arena *a, void *obj)
{
	struct core_v1_ephemeral_container_common *c = &((struct core_v1_ephemeral_container *)obj)->ephemeral_container_common;

	if (!c->image_pull_policy.n)
		c->image_pull_policy = pull_policy(c->image);
}

void core_v1_service_default(struct arena *a, void *obj)
{
	struct core_v1_service *s = obj;

	if (!str_eqz(s->spec.type, "LoadBalancer"))
		return;
	for (uint32_t i = 0; i < s->status.load_balancer.ingress.n; i++) {
		struct core_v1_load_balancer_ingress *in = &s->status.load_balancer.ingress.v[i];

		if (in->ip.n && !in->ip_mode) {
			in->ip_mode = arena_new(a, struct str);
			*in->ip_mode = STR("VIP");
		}
	}
}

void core_v1_service_spec_default(struct arena *a, void *obj)
{
	struct core_v1_service_spec *s = obj;
	bool balancer = str_eqz(s->type, "LoadBalancer"), node_port = str_eqz(s->type, "NodePort");
	bool cluster_ip = str_eqz(s->type, "ClusterIP");

	if (str_eqz(s->session_affinity, "None"))
		s->session_affinity_config = NULL;
	if (str_eqz(s->session_affinity, "ClientIP") &&
	    (!s->session_affinity_config || !s->session_affinity_config->client_ip ||
	     !s->session_affinity_config->client_ip->timeout_seconds)) {
		s->session_affinity_config = arena_new(a, struct core_v1_session_affinity_config);
		s->session_affinity_config->client_ip = arena_new(a, struct core_v1_client_ip_config);
		s->session_affinity_config->client_ip->timeout_seconds = arena_new(a, int32_t);
		*s->session_affinity_config->client_ip->timeout_seconds = 10800;
	}
	if ((balancer || node_port || (cluster_ip && s->external_ips.n)) && !s->external_traffic_policy.n)
		s->external_traffic_policy = STR("Cluster");
	if (!s->internal_traffic_policy && (balancer || node_port || cluster_ip)) {
		s->internal_traffic_policy = arena_new(a, struct str);
		*s->internal_traffic_policy = STR("Cluster");
	}
	if (balancer && !s->allocate_load_balancer_node_ports) {
		s->allocate_load_balancer_node_ports = arena_new(a, bool);
		*s->allocate_load_balancer_node_ports = true;
	}
}

void core_v1_service_port_default(struct arena *a, void *obj)
{
	struct core_v1_service_port *p = obj;

	if (p->target_port.is_str ? !p->target_port.s.n : !p->target_port.i)
		p->target_port = (struct int_or_string){.i = p->port};
}

/* ---- pods ---- */

static bool huge_pages(struct str name)
{
	return str_has_prefix(name, STR("hugepages-"));
}

/* Resources a pod as a whole may have amounts of. */
static bool pod_level(struct str name)
{
	return str_eqz(name, "cpu") || str_eqz(name, "memory") || huge_pages(name);
}

static void add_amounts(struct arena *a, struct str_map *to, const struct str_map *from)
{
	for (uint32_t i = 0; i < from->n; i++) {
		struct str have = str_map_get(to, from->v[i].key);

		str_map_set(a, to, from->v[i].key, have.p ? quantity_add(a, have, from->v[i].value) : from->v[i].value);
	}
}

static void max_amounts(struct arena *a, struct str_map *to, const struct str_map *from)
{
	for (uint32_t i = 0; i < from->n; i++) {
		struct str have = str_map_get(to, from->v[i].key);

		if (!have.p || quantity_cmp(from->v[i].value, have) > 0)
			str_map_set(a, to, from->v[i].key, from->v[i].value);
	}
}

/*
 * What the containers need together: all containers and sidecars at once, or
 * an init container beside the sidecars started before it, whichever is more.
 */
static struct str_map aggregate(struct arena *a, const struct core_v1_pod_spec *spec, bool limits)
{
	struct str_map total = {0}, sidecars = {0}, init = {0};

	for (uint32_t i = 0; i < spec->containers.n; i++) {
		const struct core_v1_resource_requirements *r = &spec->containers.v[i].resources;

		add_amounts(a, &total, limits ? MAP(r->limits) : MAP(r->requests));
	}
	for (uint32_t i = 0; i < spec->init_containers.n; i++) {
		const struct core_v1_container *c = &spec->init_containers.v[i];
		const struct str_map *r = limits ? MAP(c->resources.limits) : MAP(c->resources.requests);

		if (c->restart_policy && str_eqz(*c->restart_policy, "Always")) {
			add_amounts(a, &total, r);
			add_amounts(a, &sidecars, r);
			max_amounts(a, &init, &sidecars);
		} else {
			struct str_map with = copy_map(a, &sidecars);

			add_amounts(a, &with, r);
			max_amounts(a, &init, &with);
		}
	}
	max_amounts(a, &total, &init);
	return total;
}

static void pod_level_resources(struct arena *a, struct core_v1_pod_spec *spec)
{
	struct core_v1_resource_requirements *r = spec->resources;

	if (!r || (!r->limits.n && !r->requests.n))
		return;
	struct str_map sum = aggregate(a, spec, true);

	for (uint32_t i = 0; i < sum.n; i++) {
		struct str key = sum.v[i].key;

		if (huge_pages(key) && !str_map_has(MAP(r->requests), key) && !str_map_has(MAP(r->limits), key))
			str_map_set(a, MAP(r->limits), key, sum.v[i].value);
	}
	if (!r->limits.n)
		return;
	sum = aggregate(a, spec, false);
	for (uint32_t i = 0; i < sum.n; i++)
		if (pod_level(sum.v[i].key) && !huge_pages(sum.v[i].key) && !str_map_has(MAP(r->requests), sum.v[i].key))
			str_map_set(a, MAP(r->requests), sum.v[i].key, sum.v[i].value);
	for (uint32_t i = 0; i < r->limits.n; i++)
		if (pod_level(r->limits.v[i].key) && !str_map_has(MAP(r->requests), r->limits.v[i].key))
			str_map_set(a, MAP(r->requests), r->limits.v[i].key, MAP(r->limits)->v[i].value);
}

static void requests_from_limits(struct arena *a, struct core_v1_container *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		add_missing(a, MAP(v[i].resources.requests), MAP(v[i].resources.limits));
}

static void host_ports(struct core_v1_container *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < v[i].ports.n; k++)
			if (!v[i].ports.v[k].host_port)
				v[i].ports.v[k].host_port = v[i].ports.v[k].container_port;
}

void core_v1_pod_default(struct arena *a, void *obj)
{
	struct core_v1_pod *pod = obj;
	struct core_v1_pod_spec *spec = &pod->spec;

	requests_from_limits(a, spec->containers.v, spec->containers.n);
	requests_from_limits(a, spec->init_containers.v, spec->init_containers.n);
	pod_level_resources(a, spec);
	if (!spec->enable_service_links) {
		spec->enable_service_links = arena_new(a, bool);
		*spec->enable_service_links = true;
	}
	if (spec->host_network) {
		host_ports(spec->containers.v, spec->containers.n);
		host_ports(spec->init_containers.v, spec->init_containers.n);
	}
}

/* ---- others ---- */

void core_v1_persistent_volume_default(struct arena *a, void *obj)
{
	struct core_v1_persistent_volume *pv = obj;

	if (!pv->spec.persistent_volume_reclaim_policy.n)
		pv->spec.persistent_volume_reclaim_policy = STR("Retain");
	if (!pv->spec.volume_mode) {
		pv->spec.volume_mode = arena_new(a, struct str);
		*pv->spec.volume_mode = STR("Filesystem");
	}
}

void core_v1_node_status_default(struct arena *a, void *obj)
{
	struct core_v1_node_status *s = obj;

	if (!s->allocatable.v && s->capacity.n)
		*MAP(s->allocatable) = copy_map(a, MAP(s->capacity));
}

void core_v1_limit_range_item_default(struct arena *a, void *obj)
{
	struct core_v1_limit_range_item *i = obj;

	if (!str_eqz(i->type, "Container"))
		return;
	add_missing(a, MAP(i->default_), MAP(i->max));
	add_missing(a, MAP(i->default_request), MAP(i->default_));
	add_missing(a, MAP(i->default_request), MAP(i->min));
}

void core_v1_namespace_default(struct arena *a, void *obj)
{
	struct core_v1_namespace *n = obj;

	if (n->metadata.name.n)
		str_map_set(a, MAP(n->metadata.labels), STR("kubernetes.io/metadata.name"), n->metadata.name);
}
