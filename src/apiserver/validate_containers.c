/* Containers of every kind: ports, environment, mounts, probes, resources, security. */
#include <ctype.h>

#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

/* One walk serves both: an ephemeral container has a container's members. */
_Static_assert(sizeof(struct core_v1_container) == sizeof(struct core_v1_ephemeral_container_common) &&
		       offsetof(struct core_v1_container, tty) == offsetof(struct core_v1_ephemeral_container_common, tty),
	       "an ephemeral container is laid out as a container");

bool container_next(struct container_iter *it)
{
	static const struct str names[] = {STR_INIT("initContainers"), STR_INIT("containers"), STR_INIT("ephemeralContainers")};
	const uint32_t n[] = {it->spec->init_containers.n, it->spec->containers.n, it->spec->ephemeral_containers.n};

	if (it->c)
		it->i++;
	while (it->list < 3 && it->i >= n[it->list]) {
		it->list++;
		it->i = 0;
	}
	if (it->list == 3)
		return false;
	it->c = it->list == 0 ? &it->spec->init_containers.v[it->i] : it->list == 1 ? &it->spec->containers.v[it->i] :
		(const void *)&it->spec->ephemeral_containers.v[it->i].ephemeral_container_common;
	it->path.name = names[it->list];
	it->index = (struct field_path){.parent = &it->path, .index = (int32_t)it->i};
	return true;
}

/* ---- resources ---- */

/* The page size stands behind "hugepages-". */
bool pages_divide(struct arena *a, struct str name, struct str q)
{
	struct str size;
	struct error *err = quantity_canonical(a, str_sub(name, 10, name.n), &size);

	if (err) {
		error_free(err);
		return false;
	}
	return quantity_cmp(size, STR("0")) > 0 && quantity_milli(size) % 1000 == 0 && quantity_value(q) % quantity_value(size) == 0;
}

static void one_resource(struct field_errors *e, const struct field_path *p, struct str name, struct str q, bool pod_level)
{
	if (pod_level) {
		uint32_t before = e->list.n;

		rule_resource_name(e, p, name);
		if (e->list.n == before && !str_eqz(name, "cpu") && !str_eqz(name, "memory") && !resource_hugepages(name))
			field_unsupported(e, p, name, "cpu,hugepages-,memory");
	} else {
		rule_container_resource_name(e, p, name);
	}
	rule_quantity(e, p, name, q);
}

static bool has_claim(const struct core_v1_pod_spec *s, struct str name)
{
	for (uint32_t i = 0; s && i < s->resource_claims.n; i++)
		if (str_eq(s->resource_claims.v[i].name, name))
			return true;
	return false;
}

static int by_text(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static void unknown_claim(struct field_errors *e, const struct field_path *p, struct str name, const struct core_v1_pod_spec *s)
{
	struct buf b buf_cleanup = {0};
	struct strings names = {0};

	for (uint32_t i = 0; s && i < s->resource_claims.n; i++)
		if (s->resource_claims.v[i].name.n && !strings_have(&names, s->resource_claims.v[i].name))
			*arena_push(e->arena, &names) = s->resource_claims.v[i].name;
	if (names.n)
		qsort(names.v, names.n, sizeof *names.v, by_text);
	buf_puts(&b, "must be one of the names in pod.spec.resourceClaims");
	buf_puts(&b, names.n ? ": " : " which is empty");
	for (uint32_t i = 0; i < names.n; i++)
		buf_printf(&b, "%s%.*s", i ? ", " : "", STR_ARG(names.v[i]));
	field_not_found_detail(e, p, name, buf_z(&b));
}

static void claims(struct field_errors *e, const struct field_path *p, const struct core_v1_resource_requirements *r,
		   const struct core_v1_pod_spec *s)
{
	struct strings seen = {0};

	for (uint32_t i = 0; i < r->claims.n; i++) {
		const struct core_v1_resource_claim *c = &r->claims.v[i];
		const struct field_path *at = EL(p, i);

		if (!c->name.n) {
			field_required(e, at, "");
			continue;
		}
		if (strings_have(&seen, c->name)) {
			field_duplicate(e, at, c->name);
		} else {
			struct str key = c->request.n ? arena_printf(e->arena, "%.*s/%.*s", STR_ARG(c->name), STR_ARG(c->request)) : c->name;

			if (c->request.n)
				field_check(e, AT(at, "request"), c->request, validate_dns1123_label);
			if (strings_have(&seen, key))
				field_duplicate(e, at, key);
			else if (!c->request.n)
				for (uint32_t k = 0; k < seen.n; k++) {
					ptrdiff_t slash = str_index(seen.v[k], '/');

					if (slash >= 0 && str_eq(str_sub(seen.v[k], 0, (size_t)slash), c->name))
						field_duplicate(e, at, c->name);
				}
			*arena_push(e->arena, &seen) = key;
		}
		if (!has_claim(s, c->name))
			unknown_claim(e, at, c->name, s);
	}
}

void rule_resources(struct field_errors *e, const struct field_path *p, const struct core_v1_resource_requirements *r,
		    const struct core_v1_pod_spec *claims_of, const struct pod_options *o, bool pod_level)
{
	const struct field_path *lim = AT(p, "limits"), *req = AT(p, "requests");
	bool compute = false, pages = false;

	for (uint32_t i = 0; i < r->limits.n; i++) {
		struct str name = r->limits.v[i].key, q = r->limits.v[i].value;
		const struct field_path *at = KEY(lim, name);

		one_resource(e, at, name, q, pod_level);
		if (resource_hugepages(name)) {
			pages = true;
			if (!o->lax_hugepages && !pages_divide(e->arena, name, q))
				field_invalid(e, at, q, "%.*s is not positive integer multiple of %.*s", STR_ARG(q), STR_ARG(name));
		}
		compute |= str_eqz(name, "cpu") || str_eqz(name, "memory");
	}
	for (uint32_t i = 0; i < r->requests.n; i++) {
		struct str name = r->requests.v[i].key, q = r->requests.v[i].value, l = str_map_get(API_MAP(&r->limits), name);
		const struct field_path *at = KEY(req, name);

		one_resource(e, at, name, q, pod_level);
		if (l.n && quantity_cmp(q, l) && !resource_overcommit(name))
			field_invalid(e, req, q, "must be equal to %.*s limit of %.*s", STR_ARG(name), STR_ARG(l));
		else if (l.n && quantity_cmp(q, l) > 0)
			field_invalid(e, req, q, "must be less than or equal to %.*s limit of %.*s", STR_ARG(name), STR_ARG(l));
		else if (!l.n && !resource_overcommit(name))
			field_required(e, lim, "Limit must be set for non overcommitable resources");
		if (resource_hugepages(name)) {
			pages = true;
			if (!o->lax_hugepages && !pages_divide(e->arena, name, q))
				field_invalid(e, at, q, "%.*s is not positive integer multiple of %.*s", STR_ARG(q), STR_ARG(name));
		}
		compute |= str_eqz(name, "cpu") || str_eqz(name, "memory");
	}
	if (pages && !compute)
		field_forbidden(e, p, "HugePages require cpu or memory");
	claims(e, AT(p, "claims"), r, claims_of);
}

/* ---- environment ---- */

static bool subscript(struct str path, struct str *head, struct str *key)
{
	ptrdiff_t open = str_find(path, STR("['"));

	if (open < 0 || !str_has_suffix(path, STR("']")) || (size_t)open + 4 > path.n || !open)
		return false;
	*head = str_sub(path, 0, (size_t)open);
	*key = str_sub(path, (size_t)open + 2, path.n - 2);
	return true;
}

void rule_field_ref(struct field_errors *e, const struct field_path *p, const struct core_v1_object_field_selector *f, bool volume)
{
	static const char env_paths[] =
		"metadata.name,metadata.namespace,metadata.uid,spec.nodeName,spec.serviceAccountName,status.hostIP,status.hostIPs,status.podIP,"
		"status.podIPs",
			  volume_paths[] = "metadata.annotations,metadata.labels,metadata.name,metadata.namespace,metadata.uid",
			  pod_paths[] = "metadata.annotations,metadata.labels,metadata.name,metadata.namespace,metadata.uid,spec.nodeName,"
					"spec.restartPolicy,spec.serviceAccountName,spec.schedulerName,status.phase,status.hostIP,status.hostIPs,"
					"status.podIP,status.podIPs";
	struct str path = f->field_path, head, key;
	bool known = false;

	if (!f->api_version.n) {
		field_required(e, AT(p, "apiVersion"), "");
		return;
	}
	if (!path.n) {
		field_required(e, AT(p, "fieldPath"), "");
		return;
	}
	if (!str_eqz(f->api_version, "v1")) {
		field_invalid(e, AT(p, "fieldPath"), path, "error converting fieldPath: unsupported pod version: %.*s", STR_ARG(f->api_version));
		return;
	}
	if (subscript(path, &head, &key)) {
		if (str_eqz(head, "metadata.annotations")) {
			char *z = arena_strz(e->arena, key);

			for (size_t i = 0; i < key.n; i++)
				z[i] = (char)tolower((unsigned char)z[i]);
			field_check(e, p, str_of(z, key.n), validate_qualified_name);
		} else if (str_eqz(head, "metadata.labels")) {
			field_check(e, p, key, validate_qualified_name);
		} else {
			field_invalid(e, AT(p, "fieldPath"), path, "error converting fieldPath: field label does not support subscript: %.*s",
				      STR_ARG(path));
		}
		return;
	}
	if (str_eqz(path, "spec.host"))
		path = STR("spec.nodeName");
	for (struct str rest = str_from(pod_paths); rest.p;)
		known |= str_eq(str_cut(&rest, ','), path);
	if (!known)
		field_invalid(e, AT(p, "fieldPath"), path, "error converting fieldPath: field label not supported: %.*s", STR_ARG(path));
	else
		field_one_of(e, AT(p, "fieldPath"), path, volume ? volume_paths : env_paths);
}

void rule_resource_field_ref(struct field_errors *e, const struct field_path *p, const struct core_v1_resource_field_selector *f, bool volume)
{
	static const char names[] = "limits.cpu,limits.ephemeral-storage,limits.memory,requests.cpu,requests.ephemeral-storage,requests.memory";
	static const char units[] = "1,1k,1M,1G,1T,1P,1E,1Ki,1Mi,1Gi,1Ti,1Pi,1Ei";
	struct str r = f->resource;
	bool pages = str_has_prefix(r, STR("requests.hugepages-")) || str_has_prefix(r, STR("limits.hugepages-"));
	const char *valid = units, *what = NULL;

	if (volume && !f->container_name.n)
		field_required(e, AT(p, "containerName"), "");
	else if (!r.n)
		field_required(e, AT(p, "resource"), "");
	else if (!pages)
		field_one_of(e, AT(p, "resource"), r, names);
	if (quantity_cmp(f->divisor, STR("0")) == 0)
		return;
	if (str_eqz(r, "limits.cpu") || str_eqz(r, "requests.cpu"))
		what = "cpu", valid = "1m,1";
	else if (str_eqz(r, "limits.memory") || str_eqz(r, "requests.memory"))
		what = "memory";
	else if (str_eqz(r, "limits.ephemeral-storage") || str_eqz(r, "requests.ephemeral-storage"))
		what = "local ephemeral storage";
	else if (pages)
		what = "hugepages";
	for (struct str rest = str_from(valid); rest.p;)
		if (str_eq(str_cut(&rest, ','), f->divisor))
			return;
	if (what)
		field_invalid(e, AT(p, "divisor"), r, "only divisor's values %s are supported with the %s resource",
			      valid == units ? "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei" : "1m and 1", what);
}

static void key_selector(struct field_errors *e, const struct field_path *p, struct str name, const struct schema_type *t, const void *s)
{
	field_check(e, AT(p, "name"), name, validate_dns1123_subdomain);
	validate_rules(e, t, s, p);
}

static void file_key(struct field_errors *e, const struct field_path *p, const struct core_v1_file_key_selector *s)
{
	rule_name(e, AT(p, "key"), s->key, validate_env_var_name);
	rule_name(e, AT(p, "volumeName"), s->volume_name, validate_dns1123_label);
	rule_name(e, AT(p, "path"), s->path, validate_no_backsteps);
}

static void value_from(struct field_errors *e, const struct field_path *p, const struct core_v1_env_var *v)
{
	const struct core_v1_env_var_source *s = v->value_from;
	int n = (s->field_ref != NULL) + (s->resource_field_ref != NULL) + (s->config_map_key_ref != NULL) + (s->secret_key_ref != NULL) +
		(s->file_key_ref != NULL);

	if (s->field_ref)
		rule_field_ref(e, AT(p, "fieldRef"), s->field_ref, false);
	if (s->resource_field_ref)
		rule_resource_field_ref(e, AT(p, "resourceFieldRef"), s->resource_field_ref, false);
	if (s->config_map_key_ref)
		key_selector(e, AT(p, "configMapKeyRef"), s->config_map_key_ref->local_object_reference.name, &core_v1_config_map_key_selector_type,
			     s->config_map_key_ref);
	if (s->secret_key_ref)
		key_selector(e, AT(p, "secretKeyRef"), s->secret_key_ref->local_object_reference.name, &core_v1_secret_key_selector_type,
			     s->secret_key_ref);
	if (s->file_key_ref)
		file_key(e, AT(p, "fileKeyRef"), s->file_key_ref);
	if (!n)
		field_invalid(e, p, STR(""), "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
	else if (v->value.n)
		field_invalid(e, p, STR(""), "may not be specified when `value` is not empty");
	else if (n > 1)
		field_invalid(e, p, STR(""), "may not have more than one field specified at a time");
}

static void environment(struct field_errors *e, const struct field_path *p, const struct core_v1_container *c)
{
	const struct field_path *env = AT(p, "env"), *from = AT(p, "envFrom");

	for (uint32_t i = 0; i < c->env.n; i++) {
		const struct field_path *at = EL(env, i);

		rule_name(e, AT(at, "name"), c->env.v[i].name, validate_env_var_name);
		if (c->env.v[i].value_from)
			value_from(e, AT(at, "valueFrom"), &c->env.v[i]);
	}
	for (uint32_t i = 0; i < c->env_from.n; i++) {
		const struct core_v1_env_from_source *s = &c->env_from.v[i];
		const struct field_path *at = EL(from, i);

		if (s->prefix.n)
			field_check(e, AT(at, "prefix"), s->prefix, validate_env_var_name);
		if (s->config_map_ref)
			rule_name(e, AT(AT(at, "configMapRef"), "name"), s->config_map_ref->local_object_reference.name, validate_dns1123_subdomain);
		if (s->secret_ref)
			rule_name(e, AT(AT(at, "secretRef"), "name"), s->secret_ref->local_object_reference.name, validate_dns1123_subdomain);
		/* upstream's path is the list's */
		if (!s->config_map_ref && !s->secret_ref)
			field_invalid(e, from, STR(""), "must specify one of: `configMapRef` or `secretRef`");
		else if (s->config_map_ref && s->secret_ref)
			field_invalid(e, from, STR(""), "may not have more than one field specified at a time");
	}
}

/* ---- ports, mounts, devices ---- */

static void ports(struct field_errors *e, const struct field_path *list, const struct core_v1_container *c)
{
	struct strings names = {0};

	for (uint32_t i = 0; i < c->ports.n; i++) {
		const struct core_v1_container_port *p = &c->ports.v[i];
		const struct field_path *at = EL(list, i);

		if (p->name.n && !field_check(e, AT(at, "name"), p->name, validate_port_name)) {
			if (strings_have(&names, p->name))
				field_duplicate(e, AT(at, "name"), p->name);
			*arena_push(e->arena, &names) = p->name;
		}
		if (!p->container_port)
			field_required(e, AT(at, "containerPort"), "");
		else
			rule_port_number(e, AT(at, "containerPort"), p->container_port);
		if (p->host_port)
			rule_port_number(e, AT(at, "hostPort"), p->host_port);
		rule_enum(e, AT(at, "protocol"), p->protocol, "SCTP,TCP,UDP");
	}
}

static void host_ports(struct field_errors *e, const struct field_path *list, const struct core_v1_container *c, uint32_t n)
{
	struct strings seen = {0};

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < c[i].ports.n; k++) {
			const struct core_v1_container_port *p = &c[i].ports.v[k];
			struct str id;

			if (!p->host_port)
				continue;
			id = arena_printf(e->arena, "%.*s/%.*s/%d", STR_ARG(p->protocol), STR_ARG(p->host_ip), p->host_port);
			if (strings_have(&seen, id))
				field_duplicate(e, AT(EL(AT(EL(list, i), "ports"), k), "hostPort"), id);
			else
				*arena_push(e->arena, &seen) = id;
		}
}

/* No later element has its name: upstream looks for paths in a map by name. */
#define LAST_NAMED(l, k)                                                                                               \
	({                                                                                                             \
		bool last_ = true;                                                                                     \
		for (uint32_t j_ = (k) + 1; j_ < (l).n; j_++)                                                          \
			last_ &= !str_eq((l).v[j_].name, (l).v[k].name);                                               \
		last_;                                                                                                 \
	})

static void mounts(struct field_errors *e, const struct field_path *list, const struct core_v1_container *c, struct map *volumes)
{
	bool privileged = c->security_context && is_true(c->security_context->privileged);

	for (uint32_t i = 0; i < c->volume_mounts.n; i++) {
		const struct core_v1_volume_mount *m = &c->volume_mounts.v[i];
		const struct field_path *at = EL(list, i);
		bool name = false, path = false;

		rule_required(e, AT(at, "name"), m->name);
		if (!map_has(volumes, m->name))
			field_not_found(e, AT(at, "name"), m->name);
		rule_required(e, AT(at, "mountPath"), m->mount_path);
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(c->volume_mounts.v[k].mount_path, m->mount_path)) {
				field_invalid(e, AT(at, "mountPath"), m->mount_path, "must be unique");
				break;
			}
		for (uint32_t k = 0; k < c->volume_devices.n; k++) {
			name |= str_eq(c->volume_devices.v[k].name, m->name);
			path |= str_eq(c->volume_devices.v[k].device_path, m->mount_path) &&
				LAST_NAMED(c->volume_devices, k);
		}
		if (name)
			field_invalid(e, AT(at, "name"), m->name, "must not already exist in volumeDevices");
		if (path)
			field_invalid(e, AT(at, "mountPath"), m->mount_path, "must not already exist as a path in volumeDevices");
		/* the paths of these are the list's upstream, too */
		if (m->sub_path.n)
			field_check(e, AT(list, "subPath"), m->sub_path, validate_descending_path);
		if (m->sub_path_expr.n) {
			if (m->sub_path.n)
				field_invalid(e, AT(at, "subPathExpr"), m->sub_path_expr, "subPathExpr and subPath are mutually exclusive");
			field_check(e, AT(list, "subPathExpr"), m->sub_path_expr, validate_descending_path);
		}
		if (m->mount_propagation) {
			field_one_of(e, AT(list, "mountPropagation"), *m->mount_propagation, "Bidirectional,HostToContainer,None");
			if (ptr_is(m->mount_propagation, "Bidirectional") && !privileged)
				field_forbidden(e, AT(list, "mountPropagation"),
						"Bidirectional mount propagation is available only to privileged containers");
		}
		if (m->recursive_read_only && field_one_of(e, AT(list, "recursiveReadOnly"), *m->recursive_read_only, "Disabled,Enabled,IfPossible") &&
		    !ptr_is(m->recursive_read_only, "Disabled")) {
			if (!m->read_only)
				field_forbidden(e, AT(list, "recursiveReadOnly"), "may only be specified when readOnly is true");
			if (m->mount_propagation && !ptr_is(m->mount_propagation, "None"))
				field_forbidden(e, AT(list, "recursiveReadOnly"),
						"may only be specified when mountPropagation is None or not specified");
		}
	}
}

static void devices(struct field_errors *e, const struct field_path *list, const struct core_v1_container *c, struct map *volumes)
{
	struct strings names = {0}, paths = {0};

	for (uint32_t i = 0; i < c->volume_devices.n; i++) {
		const struct core_v1_volume_device *d = &c->volume_devices.v[i];
		const struct field_path *at = EL(list, i);
		const struct core_v1_volume *v = map_get(volumes, d->name);
		bool name = false, path = false;

		rule_required(e, AT(at, "name"), d->name);
		if (strings_have(&names, d->name))
			field_invalid(e, AT(at, "name"), d->name, "must be unique");
		if (v && !v->volume_source.persistent_volume_claim && !v->volume_source.ephemeral)
			field_invalid(e, AT(at, "name"), d->name,
				      "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
		if (!v)
			field_not_found(e, AT(at, "name"), d->name);
		rule_required(e, AT(at, "devicePath"), d->device_path);
		if (strings_have(&paths, d->device_path))
			field_invalid(e, AT(at, "devicePath"), d->device_path, "must be unique");
		if (d->device_path.n && validate_no_backsteps(e->arena, d->device_path))
			field_invalid(e, AT(at, "devicePath"), d->device_path, "can not contain backsteps ('..')");
		else
			*arena_push(e->arena, &paths) = d->device_path;
		for (uint32_t k = 0; k < c->volume_mounts.n; k++) {
			name |= str_eq(c->volume_mounts.v[k].name, d->name);
			path |= str_eq(c->volume_mounts.v[k].mount_path, d->device_path) &&
				LAST_NAMED(c->volume_mounts, k);
		}
		if (name)
			field_invalid(e, AT(at, "name"), d->name, "must not already exist in volumeMounts");
		if (path)
			field_invalid(e, AT(at, "devicePath"), d->device_path, "must not already exist as a path in volumeMounts");
		if (d->name.n)
			*arena_push(e->arena, &names) = d->name;
	}
}

/* ---- handlers and probes ---- */

struct handler {
	const struct core_v1_exec_action *exec;
	const struct core_v1_http_get_action *http;
	const struct core_v1_tcp_socket_action *tcp;
	const struct core_v1_grpc_action *grpc;
	const struct core_v1_sleep_action *sleep;
};

static bool another(struct field_errors *e, const struct field_path *p, int *n)
{
	if (!(*n)++)
		return false;
	field_forbidden(e, p, "may not specify more than 1 handler type");
	return true;
}

static void handler(struct field_errors *e, const struct field_path *p, const struct handler *h, const int64_t *grace)
{
	int n = 0;

	if (h->exec && !another(e, AT(p, "exec"), &n))
		validate_rules(e, &core_v1_exec_action_type, h->exec, AT(p, "exec"));
	if (h->http && !another(e, AT(p, "httpGet"), &n)) {
		const struct field_path *at = AT(p, "httpGet");

		rule_required(e, AT(at, "path"), h->http->path);
		rule_port(e, AT(at, "port"), &h->http->port);
		field_one_of(e, AT(at, "scheme"), h->http->scheme, "HTTP,HTTPS");
		for (uint32_t i = 0; i < h->http->http_headers.n; i++)
			field_check(e, AT(at, "httpHeaders"), h->http->http_headers.v[i].name, validate_http_header_name);
	}
	if (h->tcp && !another(e, AT(p, "tcpSocket"), &n))
		rule_port(e, AT(AT(p, "tcpSocket"), "port"), &h->tcp->port);
	if (h->grpc && !another(e, AT(p, "grpc"), &n))
		rule_port_number(e, AT(AT(p, "grpc"), "port"), h->grpc->port);
	if (h->sleep && !another(e, AT(p, "sleep"), &n) && grace && (h->sleep->seconds < 0 || h->sleep->seconds > *grace))
		field_invalid_int(e, AT(p, "sleep"), h->sleep->seconds, "must be non-negative and less than terminationGracePeriodSeconds (%lld)",
				  (long long)*grace);
	if (!n)
		field_required(e, p, "must specify a handler type");
}

enum probe_kind { LIVENESS, READINESS, STARTUP };

static void probe(struct field_errors *e, const struct field_path *p, const struct core_v1_probe *pr, const int64_t *grace, enum probe_kind kind)
{
	const int64_t *seconds;

	if (!pr)
		return;
	handler(e, p, &(struct handler){pr->probe_handler.exec, pr->probe_handler.http_get, pr->probe_handler.tcp_socket, pr->probe_handler.grpc, NULL},
		grace);
	rule_nonneg(e, AT(p, "initialDelaySeconds"), pr->initial_delay_seconds);
	rule_nonneg(e, AT(p, "timeoutSeconds"), pr->timeout_seconds);
	rule_nonneg(e, AT(p, "periodSeconds"), pr->period_seconds);
	rule_nonneg(e, AT(p, "successThreshold"), pr->success_threshold);
	rule_nonneg(e, AT(p, "failureThreshold"), pr->failure_threshold);
	seconds = pr->termination_grace_period_seconds;
	if (seconds && *seconds <= 0)
		field_invalid_int(e, AT(p, "terminationGracePeriodSeconds"), *seconds, "must be greater than 0");
	if (kind != READINESS && pr->success_threshold != 1)
		field_invalid_int(e, AT(p, "successThreshold"), pr->success_threshold, "must be 1");
	if (kind == READINESS && seconds)
		field_invalid_int(e, AT(p, "terminationGracePeriodSeconds"), *seconds, "must not be set for readinessProbes");
}

static void probes(struct field_errors *e, const struct field_path *p, const struct core_v1_container *c, const struct core_v1_pod_spec *s)
{
	const int64_t *grace = s->termination_grace_period_seconds;

	if (c->lifecycle) {
		const struct field_path *at = AT(p, "lifecycle");
		const struct core_v1_lifecycle_handler *h = c->lifecycle->post_start;

		if (h)
			handler(e, AT(at, "postStart"), &(struct handler){h->exec, h->http_get, h->tcp_socket, NULL, h->sleep}, grace);
		h = c->lifecycle->pre_stop;
		if (h)
			handler(e, AT(at, "preStop"), &(struct handler){h->exec, h->http_get, h->tcp_socket, NULL, h->sleep}, grace);
		if (c->lifecycle->stop_signal && !s->os)
			field_forbidden(e, AT(at, "stopSignal"), "may not be set for containers with empty `spec.os.name`");
	}
	probe(e, AT(p, "livenessProbe"), c->liveness_probe, grace, LIVENESS);
	probe(e, AT(p, "readinessProbe"), c->readiness_probe, grace, READINESS);
	probe(e, AT(p, "startupProbe"), c->startup_probe, grace, STARTUP);
}

/* ---- security ---- */

void rule_seccomp(struct field_errors *e, const struct field_path *p, const struct core_v1_seccomp_profile *s)
{
	if (!s)
		return;
	if (!s->type.n)
		field_required(e, AT(p, "type"), "type is required when seccompProfile is set");
	else
		field_one_of(e, AT(p, "type"), s->type, "Localhost,RuntimeDefault,Unconfined");
	if (str_eqz(s->type, "Localhost")) {
		if (!s->localhost_profile)
			field_required(e, AT(p, "localhostProfile"), "must be set when seccomp type is Localhost");
		else
			field_check(e, AT(p, "localhostProfile"), *s->localhost_profile, validate_descending_path);
	} else if (s->localhost_profile) {
		field_invalid_obj(e, AT(p, "localhostProfile"), &core_v1_seccomp_profile_type, s, "can only be set when seccomp type is Localhost");
	}
}

#define PROFILE_PATH_MAX 4095

void rule_app_armor(struct field_errors *e, const struct field_path *p, const struct core_v1_app_armor_profile *s)
{
	const struct field_path *path = AT(p, "localhostProfile");

	if (!s)
		return;
	if (str_eqz(s->type, "Localhost")) {
		if (!s->localhost_profile) {
			field_required(e, path, "must be set when AppArmor type is Localhost");
		} else {
			struct str trimmed = str_trim(*s->localhost_profile);

			if (trimmed.n != s->localhost_profile->n)
				field_invalid(e, path, *s->localhost_profile, "must not be padded with whitespace");
			else if (!trimmed.n)
				field_required(e, path, "must be set when AppArmor type is Localhost");
			if (s->localhost_profile->n > PROFILE_PATH_MAX)
				field_too_long(e, path, PROFILE_PATH_MAX);
		}
	} else if (str_eqz(s->type, "RuntimeDefault") || str_eqz(s->type, "Unconfined")) {
		if (s->localhost_profile)
			field_invalid(e, path, *s->localhost_profile, "can only be set when AppArmor type is Localhost");
	} else if (!s->type.n) {
		field_required(e, AT(p, "type"), "type is required when appArmorProfile is set");
	} else {
		field_unsupported(e, AT(p, "type"), s->type, "Localhost,RuntimeDefault,Unconfined");
	}
}

#define GMSA_SPEC_MAX_KIB 64
#define WINDOWS_DOMAIN_MAX 256
#define WINDOWS_USER_MAX 104

static bool any_of(struct str s, const char *chars)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] && strchr(chars, s.p[i]))
			return true;
	return false;
}

static bool only_of(struct str s, const char *chars)
{
	for (size_t i = 0; i < s.n; i++)
		if (!s.p[i] || !strchr(chars, s.p[i]))
			return false;
	return s.n > 0;
}

static bool windows_domain(struct str d)
{
	bool netbios = d.n >= 1 && d.n <= 15 && d.p[0] != '.' && !any_of(d, "\\/:*?\"<>|"), dns = d.n > 0;

	for (struct str rest = d; rest.p && dns;) {
		struct str l = str_cut(&rest, '.');

		dns = l.n >= 1 && l.n <= 63 && isalnum((unsigned char)l.p[0]) && isalnum((unsigned char)l.p[l.n - 1]);
		for (size_t i = 0; i < l.n; i++)
			dns = dns && (isalnum((unsigned char)l.p[i]) || l.p[i] == '-');
	}
	return netbios || dns;
}

static void windows_user(struct field_errors *e, const struct field_path *p, struct str v)
{
	struct str user = v, domain = STR_NULL;
	size_t slashes = 0;
	bool control = false;

	for (size_t i = 0; i < v.n; i++) {
		slashes += v.p[i] == '\\';
		control |= iscntrl((unsigned char)v.p[i]) != 0;
	}
	if (!v.n) {
		field_invalid(e, p, v, "runAsUserName cannot be an empty string");
		return;
	}
	if (control) {
		field_invalid(e, p, v, "runAsUserName cannot contain control characters");
		return;
	}
	if (slashes > 1) {
		field_invalid(e, p, v, "runAsUserName cannot contain more than one backslash");
		return;
	}
	if (slashes)
		domain = str_cut(&user, '\\');
	if (domain.n >= WINDOWS_DOMAIN_MAX)
		field_invalid(e, p, v, "runAsUserName's Domain length must be under %d characters", WINDOWS_DOMAIN_MAX);
	if (slashes && !windows_domain(domain))
		field_invalid(e, p, v, "runAsUserName's Domain doesn't match the NetBios nor the DNS format");
	if (!user.n)
		field_invalid(e, p, v, "runAsUserName's User cannot be empty");
	else if (user.n > WINDOWS_USER_MAX)
		field_invalid(e, p, v, "runAsUserName's User length must not be longer than %d characters", WINDOWS_USER_MAX);
	if (only_of(user, ". "))
		field_invalid(e, p, v, "runAsUserName's User cannot contain only periods or spaces");
	if (any_of(user, "\"/\\:;|=,+*?<>@[]"))
		field_invalid(e, p, v, "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
}

void rule_windows_options(struct field_errors *e, const struct field_path *p, const struct core_v1_windows_security_context_options *w)
{
	if (!w)
		return;
	if (w->gmsa_credential_spec_name)
		field_check(e, AT(p, "gmsaCredentialSpecName"), *w->gmsa_credential_spec_name, validate_dns1123_subdomain);
	if (w->gmsa_credential_spec && !w->gmsa_credential_spec->n)
		field_invalid(e, AT(p, "gmsaCredentialSpec"), *w->gmsa_credential_spec, "gmsaCredentialSpec cannot be an empty string");
	else if (w->gmsa_credential_spec && w->gmsa_credential_spec->n > GMSA_SPEC_MAX_KIB << 10)
		field_invalid(e, AT(p, "gmsaCredentialSpec"), *w->gmsa_credential_spec, "gmsaCredentialSpec size must be under %d KiB",
			      GMSA_SPEC_MAX_KIB);
	if (w->run_as_user_name)
		windows_user(e, AT(p, "runAsUserName"), *w->run_as_user_name);
}

static bool allow_privileged;

void rules_allow_privileged(bool yes)
{
	allow_privileged = yes;
}

bool rules_privileged_allowed(void)
{
	return allow_privileged;
}

static void security_context(struct field_errors *e, const struct field_path *p, const struct core_v1_security_context *sc, bool host_users)
{
	if (!sc)
		return;
	if (is_true(sc->privileged) && !allow_privileged)
		field_forbidden(e, AT(p, "privileged"), "disallowed by cluster policy");
	rule_id(e, AT(p, "runAsUser"), sc->run_as_user);
	rule_id(e, AT(p, "runAsGroup"), sc->run_as_group);
	if (sc->proc_mount) {
		field_one_of(e, AT(p, "procMount"), *sc->proc_mount, "Default,Unmasked");
		if (host_users && ptr_is(sc->proc_mount, "Unmasked"))
			field_invalid(e, AT(p, "procMount"), *sc->proc_mount, "`hostUsers` must be false to use `Unmasked`");
	}
	rule_seccomp(e, AT(p, "seccompProfile"), sc->seccomp_profile);
	if (sc->allow_privilege_escalation && !*sc->allow_privilege_escalation) {
		if (is_true(sc->privileged))
			field_invalid_obj(e, p, &core_v1_security_context_type, sc,
					  "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
		for (uint32_t i = 0; sc->capabilities && i < sc->capabilities->add.n; i++)
			if (str_eqz(sc->capabilities->add.v[i], "CAP_SYS_ADMIN"))
				field_invalid_obj(e, p, &core_v1_security_context_type, sc,
						  "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
	}
	rule_windows_options(e, AT(p, "windowsOptions"), sc->windows_options);
	rule_app_armor(e, AT(p, "appArmorProfile"), sc->app_armor_profile);
}

/* ---- containers ---- */

static void resize_policy(struct field_errors *e, const struct field_path *p, const struct core_v1_container *c, struct str pod_policy)
{
	for (uint32_t i = 0; i < c->resize_policy.n; i++) {
		const struct core_v1_container_resize_policy *r = &c->resize_policy.v[i];

		for (uint32_t k = 0; k < i; k++)
			if (str_eq(c->resize_policy.v[k].resource_name, r->resource_name)) {
				field_duplicate(e, EL(p, i), r->resource_name);
				break;
			}
		rule_enum(e, p, r->resource_name, "cpu,memory");
		rule_enum(e, p, r->restart_policy, "NotRequired,RestartContainer");
		if (str_eqz(pod_policy, "Never") && !str_eqz(r->restart_policy, "NotRequired"))
			field_invalid(e, p, r->restart_policy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
	}
}

#define RESTART_RULES_MAX 20
#define EXIT_CODES_MAX 255

static void restart_rules(struct field_errors *e, const struct field_path *p, const struct core_v1_container *c)
{
	const struct field_path *rules = AT(p, "restartPolicyRules");

	if (!c->restart_policy) {
		if (!c->restart_policy_rules.n)
			return;
		field_required(e, AT(p, "restartPolicy"), "must specify restartPolicy when restart rules are used");
	} else {
		field_one_of(e, AT(p, "restartPolicy"), *c->restart_policy, "Always,Never,OnFailure");
	}
	if (c->restart_policy_rules.n > RESTART_RULES_MAX)
		field_too_many(e, rules, c->restart_policy_rules.n, RESTART_RULES_MAX);
	for (uint32_t i = 0; i < c->restart_policy_rules.n; i++) {
		const struct core_v1_container_restart_rule *r = &c->restart_policy_rules.v[i];
		const struct field_path *at = EL(rules, i), *codes = AT(at, "exitCodes");

		field_one_of(e, AT(at, "action"), r->action, "Restart,RestartAllContainers");
		if (!r->exit_codes) {
			field_required(e, codes, "must be specified");
			continue;
		}
		field_one_of(e, AT(codes, "operator"), r->exit_codes->operator, "In,NotIn");
		if (r->exit_codes->values.n > EXIT_CODES_MAX)
			field_too_many(e, AT(codes, "values"), r->exit_codes->values.n, EXIT_CODES_MAX);
	}
}

static void common(struct field_errors *e, const struct field_path *p, const struct core_v1_container *c, const struct container_context *x)
{
	rule_name(e, AT(p, "name"), c->name, validate_dns1123_label);
	rule_required(e, AT(p, "image"), c->image);
	rule_enum(e, AT(p, "terminationMessagePolicy"), c->termination_message_policy, "File,FallbackToLogsOnError");
	ports(e, AT(p, "ports"), c);
	environment(e, p, c);
	mounts(e, AT(p, "volumeMounts"), c, x->volumes);
	devices(e, AT(p, "volumeDevices"), c, x->volumes);
	rule_enum(e, AT(p, "imagePullPolicy"), c->image_pull_policy, "Always,IfNotPresent,Never");
	rule_resources(e, AT(p, "resources"), &c->resources, x->spec, x->o, false);
	resize_policy(e, AT(p, "resizePolicy"), c, x->spec->restart_policy);
	security_context(e, AT(p, "securityContext"), c->security_context, x->host_users);
}

static void init_containers(struct field_errors *e, const struct field_path *list, const struct container_context *x, struct map *names)
{
	const struct core_v1_pod_spec *s = x->spec;
	static const char not_init[] = "may not be set for init containers without restartPolicy=Always";

	for (uint32_t i = 0; i < s->init_containers.n; i++) {
		const struct core_v1_container *c = &s->init_containers.v[i];
		const struct field_path *p = EL(list, i);
		bool sidecar = ptr_is(c->restart_policy, "Always");

		common(e, p, c, x);
		if (c->restart_policy)
			restart_rules(e, p, c);
		else if (c->restart_policy_rules.n)
			field_required(e, AT(p, "restartPolicy"), "must specify restartPolicy when restart rules are used");
		if (map_has(names, c->name))
			field_duplicate(e, AT(p, "name"), c->name);
		else if (c->name.n)
			map_set(names, c->name, names);
		host_ports(e, list, c, 1);
		if (sidecar) {
			probes(e, p, c, s);
		} else {
			if (c->lifecycle)
				field_forbidden(e, AT(p, "lifecycle"), "%s", not_init);
			if (c->liveness_probe)
				field_forbidden(e, AT(p, "livenessProbe"), "%s", not_init);
			if (c->readiness_probe)
				field_forbidden(e, AT(p, "readinessProbe"), "%s", not_init);
			if (c->startup_probe)
				field_forbidden(e, AT(p, "startupProbe"), "%s", not_init);
		}
		for (uint32_t k = 0; !sidecar && !x->o->lax_init_resize && k < c->resize_policy.n; k++)
			if (str_eqz(c->resize_policy.v[k].restart_policy, "RestartContainer"))
				field_invalid(e, AT(EL(AT(p, "resizePolicy"), k), "restartPolicy"), c->resize_policy.v[k].restart_policy,
					      "must not be set to 'RestartContainer' for non-sidecar initContainers");
	}
}

static void ephemeral_containers(struct field_errors *e, const struct field_path *list, const struct container_context *x, struct map *names)
{
	const struct core_v1_pod_spec *s = x->spec;
	static const char *const refused[] = {"ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules", "livenessProbe",
					      "readinessProbe", "startupProbe", "lifecycle"};
	static const struct core_v1_container none;
	struct map all = {0};

	for (uint32_t i = 0; i < s->ephemeral_containers.n; i++) {
		const struct core_v1_container *c = (const void *)&s->ephemeral_containers.v[i].ephemeral_container_common;
		const struct field_path *p = EL(list, i);
		struct str target = s->ephemeral_containers.v[i].target_container_name;

		common(e, p, c, x);
		if (str_trim(c->image).n != c->image.n)
			field_invalid(e, AT(p, "image"), c->image, "must not have leading or trailing whitespace");
		if (map_has(names, c->name) || map_has(&all, c->name))
			field_duplicate(e, AT(p, "name"), c->name);
		else
			map_set(&all, c->name, &all);
		if (target.n && !map_has(names, target))
			field_not_found(e, AT(p, "targetContainerName"), target);
		for (size_t k = 0; k < sizeof refused / sizeof *refused; k++)
			if (!object_field_identical(&core_v1_container_type, c, &none, refused[k]))
				field_forbidden(e, FIELD_CHILD_S(p, str_from(refused[k])), "cannot be set for an Ephemeral Container");
		for (uint32_t k = 0; k < c->volume_mounts.n; k++) {
			const struct field_path *m = EL(AT(p, "volumeMounts"), k);

			if (c->volume_mounts.v[k].sub_path.n)
				field_forbidden(e, AT(m, "subPath"), "cannot be set for an Ephemeral Container");
			if (c->volume_mounts.v[k].sub_path_expr.n)
				field_forbidden(e, AT(m, "subPathExpr"), "cannot be set for an Ephemeral Container");
		}
	}
	map_free(&all);
}

void rule_containers(struct field_errors *e, const struct field_path *spec, const struct container_context *x)
{
	const struct core_v1_pod_spec *s = x->spec;
	const struct field_path *list = AT(spec, "containers");
	struct map names = {0};

	if (!s->containers.n)
		field_required(e, list, "");
	for (uint32_t i = 0; i < s->containers.n; i++) {
		const struct core_v1_container *c = &s->containers.v[i];
		const struct field_path *p = EL(list, i);

		common(e, p, c, x);
		if (map_has(&names, c->name))
			field_duplicate(e, AT(p, "name"), c->name);
		else
			map_set(&names, c->name, &names);
		probes(e, p, c, s);
		restart_rules(e, p, c);
	}
	host_ports(e, list, s->containers.v, s->containers.n);
	init_containers(e, AT(spec, "initContainers"), x, &names);
	ephemeral_containers(e, AT(spec, "ephemeralContainers"), x, &names);
	map_free(&names);
}

void rule_pod_images(struct field_errors *e, const struct field_path *spec, const struct core_v1_pod_spec *s)
{
	for (uint32_t i = 0; i < s->containers.n; i++)
		if (str_trim(s->containers.v[i].image).n != s->containers.v[i].image.n)
			field_invalid(e, AT(EL(AT(spec, "containers"), i), "image"), s->containers.v[i].image,
				      "must not have leading or trailing whitespace");
	for (uint32_t i = 0; i < s->init_containers.n; i++)
		if (str_trim(s->init_containers.v[i].image).n != s->init_containers.v[i].image.n)
			field_invalid(e, AT(EL(AT(spec, "initContainers"), i), "image"), s->init_containers.v[i].image,
				      "must not have leading or trailing whitespace");
}
