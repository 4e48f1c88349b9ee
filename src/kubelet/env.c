/* kubelet/env.c: what a container finds around itself: environment, host name, /etc/hosts, DNS. */
#include "kubelet/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ENV_MAX 20000 /* variables of one container */

struct str env_expand(struct arena *a, struct str in, struct str (*lookup)(void *ctx, struct str name), void *ctx)
{
	buf_cleanup struct buf b = {0};
	size_t i = 0;

	if (str_index(in, '$') < 0)
		return in;
	while (i < in.n) {
		char c = in.p[i++];

		if (c != '$' || i >= in.n) {
			buf_putc(&b, c);
			continue;
		}
		if (in.p[i] == '$') {
			buf_putc(&b, '$');
			i++;
		} else if (in.p[i] == '(') {
			ptrdiff_t end = str_index(str_sub(in, i + 1, in.n), ')');
			struct str name, value;

			if (end < 0) {
				buf_puts(&b, "$(");
				i++;
				continue;
			}
			name = str_sub(in, i + 1, i + 1 + (size_t)end);
			value = lookup(ctx, name);
			if (value.p)
				buf_str(&b, value);
			else
				buf_printf(&b, "$(%.*s)", STR_ARG(name));
			i += (size_t)end + 2;
		} else {
			buf_putc(&b, '$');
			buf_putc(&b, in.p[i++]);
		}
	}
	return arena_str(a, buf_view(&b));
}

struct str env_get(const struct env_list *e, struct str name)
{
	for (uint32_t i = 0; i < e->v.n; i++)
		if (str_eq(e->v.v[i].key, name))
			return e->v.v[i].value.p ? e->v.v[i].value : str_of("", 0);
	return STR_NULL;
}

void env_set(struct arena *a, struct env_list *e, struct str name, struct str value)
{
	struct str_pair *p;

	for (uint32_t i = 0; i < e->v.n; i++)
		if (str_eq(e->v.v[i].key, name)) {
			e->v.v[i].value = value;
			return;
		}
	if (e->v.n >= ENV_MAX)
		return;
	p = arena_push(a, &e->v);
	p->key = name;
	p->value = value;
}

struct two_lists {
	const struct env_list *first, *second;
};

static struct str lookup_two(void *ctx, struct str name)
{
	struct two_lists *t = ctx;
	struct str v = env_get(t->first, name);

	return v.p || !t->second ? v : env_get(t->second, name);
}

/* ---- services ---- */

static struct str upper(struct arena *a, struct str s)
{
	char *p = arena_strz(a, s);

	for (size_t i = 0; i < s.n; i++)
		p[i] = p[i] >= 'a' && p[i] <= 'z' ? (char)(p[i] - 32) : p[i] == '-' ? '_' : p[i];
	return str_of(p, s.n);
}

static void service_env(struct arena *a, const struct core_v1_service *s, struct env_list *out)
{
	struct str name = upper(a, s->metadata.name), ip = s->spec.cluster_ip;
	bool v6 = str_index(ip, ':') >= 0;
	struct str host = v6 ? arena_printf(a, "[%.*s]", STR_ARG(ip)) : ip;

	if (!ip.n || str_eqz(ip, "None") || !s->spec.ports.n)
		return;
	env_set(a, out, arena_printf(a, "%.*s_SERVICE_HOST", STR_ARG(name)), ip);
	env_set(a, out, arena_printf(a, "%.*s_SERVICE_PORT", STR_ARG(name)), arena_printf(a, "%d", s->spec.ports.v[0].port));
	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		const struct core_v1_service_port *p = &s->spec.ports.v[i];
		struct str proto = p->protocol.n ? upper(a, p->protocol) : STR("TCP");
		char *low = arena_strz(a, proto);
		struct str prefix, url;

		for (size_t j = 0; j < proto.n; j++)
			low[j] = (char)(low[j] >= 'A' && low[j] <= 'Z' ? low[j] + 32 : low[j]);
		if (p->name.n)
			env_set(a, out, arena_printf(a, "%.*s_SERVICE_PORT_%.*s", STR_ARG(name), STR_ARG(upper(a, p->name))),
				arena_printf(a, "%d", p->port));
		url = arena_printf(a, "%s://%.*s:%d", low, STR_ARG(host), p->port);
		if (i == 0)
			env_set(a, out, arena_printf(a, "%.*s_PORT", STR_ARG(name)), url);
		prefix = arena_printf(a, "%.*s_PORT_%d_%.*s", STR_ARG(name), p->port, STR_ARG(proto));
		env_set(a, out, prefix, url);
		env_set(a, out, arena_printf(a, "%.*s_PROTO", STR_ARG(prefix)), str_from(low));
		env_set(a, out, arena_printf(a, "%.*s_PORT", STR_ARG(prefix)), arena_printf(a, "%d", p->port));
		env_set(a, out, arena_printf(a, "%.*s_ADDR", STR_ARG(prefix)), ip);
	}
}

static void services_env(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, struct env_list *out)
{
	struct core_v1_service *master;
	bool links = !pod->spec.enable_service_links || *pod->spec.enable_service_links;

	if (!k->service_informer || !informer_synced(k->service_informer))
		return;
	if (links) {
		void **objs;
		size_t n = informer_list(k->service_informer, a, pod->metadata.namespace, NULL, &objs);

		for (size_t i = 0; i < n; i++)
			service_env(a, objs[i], out);
	}
	if (env_get(out, STR("KUBERNETES_SERVICE_HOST")).p)
		return;
	master = informer_get(k->service_informer, a, STR("default"), STR("kubernetes"));
	if (master)
		service_env(a, master, out);
}

/* ---- fields ---- */

static void quote(struct buf *b, struct str s)
{
	buf_putc(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c == '\n')
			buf_puts(b, "\\n");
		else if (c == '\t')
			buf_puts(b, "\\t");
		else if (c == '\r')
			buf_puts(b, "\\r");
		else if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\x%02x", c);
		else
			buf_putc(b, (char)c);
	}
	buf_putc(b, '"');
}

static struct str format_map(struct arena *a, const struct str_map *m)
{
	buf_cleanup struct buf b = {0};

	for (uint32_t i = 0; i < m->n; i++) {
		if (i)
			buf_putc(&b, '\n');
		buf_str(&b, m->v[i].key);
		buf_putc(&b, '=');
		quote(&b, m->v[i].value);
	}
	return arena_str(a, buf_view(&b));
}

static struct str join(struct arena *a, const struct strings *s, char sep)
{
	buf_cleanup struct buf b = {0};

	for (uint32_t i = 0; i < s->n; i++) {
		if (i)
			buf_putc(&b, sep);
		buf_str(&b, s->v[i]);
	}
	return arena_str(a, buf_view(&b));
}

/* "metadata.labels['x']" -> x; false when the path has no subscript of that map. */
static bool subscript(struct str path, const char *map, struct str *key)
{
	struct str prefix = str_from(map);

	if (!str_has_prefix(path, prefix) || path.n < prefix.n + 4 || path.p[prefix.n] != '[' || path.p[path.n - 1] != ']' ||
	    path.p[prefix.n + 1] != '\'' || path.p[path.n - 2] != '\'')
		return false;
	*key = str_sub(path, prefix.n + 2, path.n - 2);
	return true;
}

struct error *field_ref(struct kubelet *k, struct arena *a, struct pod *p, const struct core_v1_pod *pod, struct str path, struct str *out)
{
	const struct meta_v1_object_meta *m = &pod->metadata;
	struct strings host = {0}, none = {0}, *ips = &none;
	struct str key;

	for (int i = 0; i < k->n_host_ips; i++)
		*arena_push(a, &host) = str_from(k->host_ips[i]);
	if (pod->spec.host_network)
		ips = &host;
	else if (p && p->view && p->view->sandboxes.n)
		ips = &p->view->sandboxes.v[0].ips;
	if (str_eqz(path, "metadata.name"))
		*out = m->name;
	else if (str_eqz(path, "metadata.namespace"))
		*out = m->namespace;
	else if (str_eqz(path, "metadata.uid"))
		*out = m->uid;
	else if (str_eqz(path, "metadata.labels"))
		*out = format_map(a, API_MAP(&m->labels));
	else if (str_eqz(path, "metadata.annotations"))
		*out = format_map(a, API_MAP(&m->annotations));
	else if (subscript(path, "metadata.labels", &key))
		*out = str_map_get(API_MAP(&m->labels), key);
	else if (subscript(path, "metadata.annotations", &key))
		*out = str_map_get(API_MAP(&m->annotations), key);
	else if (str_eqz(path, "spec.nodeName"))
		*out = pod->spec.node_name.n ? pod->spec.node_name : str_from(k->c->node_name);
	else if (str_eqz(path, "spec.serviceAccountName"))
		*out = pod->spec.service_account_name;
	else if (str_eqz(path, "status.hostIP"))
		*out = host.n ? host.v[0] : STR_NULL;
	else if (str_eqz(path, "status.hostIPs"))
		*out = join(a, &host, ',');
	else if (str_eqz(path, "status.podIP")) /* the view it stands in may be replaced while its user waits */
		*out = ips->n ? arena_str(a, ips->v[0]) : STR_NULL;
	else if (str_eqz(path, "status.podIPs"))
		*out = join(a, ips, ',');
	else
		return error_new("unsupported fieldPath: %.*s", STR_ARG(path));
	if (!out->p)
		*out = str_of("", 0);
	return NULL;
}

/* ---- environment ---- */

static bool optional(const bool *b)
{
	return b && *b;
}

static struct error *from_source(struct kubelet *k, struct arena *a, struct pod *p, const struct core_v1_pod *pod,
				 const struct core_v1_container *c, const struct core_v1_env_var *v, struct str *out, bool *skip)
{
	const struct core_v1_env_var_source *s = v->value_from;
	struct str ns = pod->metadata.namespace;
	struct error *e;

	if (s->field_ref)
		return field_ref(k, a, p, pod, s->field_ref->field_path, out);
	if (s->resource_field_ref)
		return resource_field(k, a, pod, c, s->resource_field_ref, out);
	if (s->config_map_key_ref) {
		const struct core_v1_config_map_key_selector *r = s->config_map_key_ref;
		struct str name = r->local_object_reference.name;
		struct core_v1_config_map *m;

		e = object_get(k, a, &core_v1_configmaps_resource, ns, name, (void **)&m);
		if (error_is(e, 404, NULL) && optional(r->optional)) {
			error_free(e);
			*skip = true;
			return NULL;
		}
		if (e)
			return e;
		*out = str_map_get(API_MAP(&m->data), r->key);
		if (!str_map_has(API_MAP(&m->data), r->key)) {
			*skip = optional(r->optional);
			return *skip ? NULL : error_new("couldn't find key %.*s in ConfigMap %.*s/%.*s", STR_ARG(r->key), STR_ARG(ns), STR_ARG(name));
		}
		return NULL;
	}
	if (s->secret_key_ref) {
		const struct core_v1_secret_key_selector *r = s->secret_key_ref;
		struct str name = r->local_object_reference.name;
		struct core_v1_secret *m;

		e = object_get(k, a, &core_v1_secrets_resource, ns, name, (void **)&m);
		if (error_is(e, 404, NULL) && optional(r->optional)) {
			error_free(e);
			*skip = true;
			return NULL;
		}
		if (e)
			return e;
		*out = str_map_get(API_MAP(&m->data), r->key);
		if (!str_map_has(API_MAP(&m->data), r->key)) {
			*skip = optional(r->optional);
			return *skip ? NULL : error_new("couldn't find key %.*s in Secret %.*s/%.*s", STR_ARG(r->key), STR_ARG(ns), STR_ARG(name));
		}
		return NULL;
	}
	if (s->file_key_ref)
		return error_new("env variable %.*s: fileKeyRef is not supported by this kubelet", STR_ARG(v->name));
	*out = str_of("", 0);
	return NULL;
}

struct error *env_make(struct kubelet *k, struct arena *a, struct pod *p, const struct core_v1_pod *pod,
		       const struct core_v1_container *c, struct env_list *out)
{
	struct env_list services = {0};
	struct two_lists both = {out, &services};
	struct str ns = pod->metadata.namespace;

	services_env(k, a, pod, &services);
	for (uint32_t i = 0; i < c->env_from.n; i++) {
		const struct core_v1_env_from_source *f = &c->env_from.v[i];
		const struct str_map *data = NULL;
		bool opt;
		struct error *e;

		if (f->config_map_ref) {
			struct core_v1_config_map *m = NULL;

			opt = optional(f->config_map_ref->optional);
			e = object_get(k, a, &core_v1_configmaps_resource, ns, f->config_map_ref->local_object_reference.name, (void **)&m);
			data = m ? API_MAP(&m->data) : NULL;
		} else if (f->secret_ref) {
			struct core_v1_secret *m = NULL;

			opt = optional(f->secret_ref->optional);
			e = object_get(k, a, &core_v1_secrets_resource, ns, f->secret_ref->local_object_reference.name, (void **)&m);
			data = m ? API_MAP(&m->data) : NULL;
		} else {
			continue;
		}
		if (error_is(e, 404, NULL) && opt) {
			error_free(e);
			continue;
		}
		if (e)
			return e;
		for (uint32_t j = 0; j < data->n; j++)
			env_set(a, out, f->prefix.n ? arena_printf(a, "%.*s%.*s", STR_ARG(f->prefix), STR_ARG(data->v[j].key)) : data->v[j].key,
				data->v[j].value);
	}
	for (uint32_t i = 0; i < c->env.n; i++) {
		const struct core_v1_env_var *v = &c->env.v[i];
		struct str value = v->value;
		bool skip = false;

		if (value.n)
			value = env_expand(a, value, lookup_two, &both);
		else if (v->value_from)
			TRY(from_source(k, a, p, pod, c, v, &value, &skip));
		if (!skip)
			env_set(a, out, v->name, value);
	}
	for (uint32_t i = 0; i < services.v.n; i++)
		if (!env_get(out, services.v.v[i].key).p)
			env_set(a, out, services.v.v[i].key, services.v.v[i].value);
	return NULL;
}

/* ---- names ---- */

void pod_hostname(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, struct str *host, struct str *domain)
{
	const struct core_v1_pod_spec *s = &pod->spec;

	*domain = STR_NULL;
	if (s->hostname_override && s->hostname_override->n) {
		*host = *s->hostname_override;
		return;
	}
	if (s->host_network) {
		*host = str_from(k->c->node_name);
		return;
	}
	*host = s->hostname.n ? s->hostname : pod->metadata.name;
	if (host->n > 63)
		*host = str_sub(*host, 0, 63);
	while (host->n && (host->p[host->n - 1] == '-' || host->p[host->n - 1] == '.'))
		host->n--;
	if (s->subdomain.n)
		*domain = arena_printf(a, "%.*s.%.*s.svc.%s", STR_ARG(s->subdomain), STR_ARG(pod->metadata.namespace), k->c->cluster_domain);
}

struct str hosts_file(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, const struct strings *ips, struct str hostname,
		      struct str domain)
{
	buf_cleanup struct buf b = {0};

	if (pod->spec.host_network) {
		struct error *e;

		buf_puts(&b, "# Kubernetes-managed hosts file (host network).\n");
		e = file_read("/etc/hosts", &b);
		if (e)
			log_v(2, "%s", e->message);
		error_free(e);
		if (b.n && b.p[b.n - 1] != '\n')
			buf_putc(&b, '\n');
	} else {
		buf_puts(&b, "# Kubernetes-managed hosts file.\n"
			     "127.0.0.1\tlocalhost\n"
			     "::1\tlocalhost ip6-localhost ip6-loopback\n"
			     "fe00::0\tip6-localnet\n"
			     "fe00::0\tip6-mcastprefix\n"
			     "fe00::1\tip6-allnodes\n"
			     "fe00::2\tip6-allrouters\n");
		for (uint32_t i = 0; i < ips->n; i++) {
			if (domain.n)
				buf_printf(&b, "%.*s\t%.*s.%.*s\t%.*s\n", STR_ARG(ips->v[i]), STR_ARG(hostname), STR_ARG(domain), STR_ARG(hostname));
			else
				buf_printf(&b, "%.*s\t%.*s\n", STR_ARG(ips->v[i]), STR_ARG(hostname));
		}
	}
	if (pod->spec.host_aliases.n) {
		buf_puts(&b, "\n# Entries added by HostAliases.\n");
		for (uint32_t i = 0; i < pod->spec.host_aliases.n; i++) {
			const struct core_v1_host_alias *h = &pod->spec.host_aliases.v[i];

			buf_str(&b, h->ip);
			for (uint32_t j = 0; j < h->hostnames.n; j++)
				buf_printf(&b, "\t%.*s", STR_ARG(h->hostnames.v[j]));
			buf_putc(&b, '\n');
		}
	}
	(void)k;
	return arena_str(a, buf_view(&b));
}

/* ---- DNS ---- */

static void add_unique(struct arena *a, void *list, struct str s, uint32_t max)
{
	struct strings *l = list;

	for (uint32_t i = 0; i < l->n; i++)
		if (str_eq(l->v[i], s))
			return;
	if (l->n < max)
		*arena_push(a, l) = s;
}

#define DNS_SERVERS_MAX 3
#define DNS_SEARCHES_MAX 32

static struct error *host_dns(struct kubelet *k, struct arena *a, struct cri_v1_dns_config *out)
{
	buf_cleanup struct buf b = {0};
	const char *path = k->c->resolv_conf;
	struct str rest;

	if (!*path)
		return NULL; /* --resolv-conf= : nothing of the host */
	/* systemd-resolved's stub is on the host's loopback, where no pod reaches it. */
	if (strcmp(path, "/etc/resolv.conf") == 0) {
		TRY(file_read(path, &b));
		if (str_contains(buf_view(&b), STR("127.0.0.53")) && access("/run/systemd/resolve/resolv.conf", R_OK) == 0) {
			b.n = 0;
			path = "/run/systemd/resolve/resolv.conf";
			TRY(file_read(path, &b));
		}
	} else {
		TRY(file_read(path, &b));
	}
	for (rest = arena_str(a, buf_view(&b)); rest.p;) {
		struct str line = str_trim(str_cut(&rest, '\n')), word = str_cut(&line, ' ');

		if (str_index(word, '\t') >= 0) { /* tab after the keyword */
			line = str_of(word.p, (size_t)((line.p ? line.p + line.n : word.p + word.n) - word.p));
			word = str_cut(&line, '\t');
		}
		if (str_eqz(word, "nameserver")) {
			add_unique(a, &out->servers, str_trim(line), DNS_SERVERS_MAX);
		} else if (str_eqz(word, "search") || str_eqz(word, "options")) {
			bool search = word.p[0] == 's';

			if (search)
				out->searches.n = 0;
			while (line.p) {
				struct str t = str_trim(str_cut(&line, ' '));

				if (t.n)
					add_unique(a, search ? (void *)&out->searches : (void *)&out->options, t, DNS_SEARCHES_MAX);
			}
		}
	}
	return NULL;
}

struct error *dns_config(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, struct cri_v1_dns_config *out)
{
	const struct core_v1_pod_spec *s = &pod->spec;
	struct str policy = s->dns_policy;
	bool cluster = str_eqz(policy, "ClusterFirstWithHostNet") || ((!policy.n || str_eqz(policy, "ClusterFirst")) && !s->host_network);

	*out = (struct cri_v1_dns_config){0};
	if (cluster && !k->c->cluster_dns.n)
		cluster = false; /* as dnsPolicy Default */
	if (cluster) {
		struct cri_v1_dns_config host = {0};

		TRY(host_dns(k, a, &host));
		for (uint32_t i = 0; i < k->c->cluster_dns.n; i++)
			add_unique(a, &out->servers, k->c->cluster_dns.v[i], DNS_SERVERS_MAX);
		if (*k->c->cluster_domain) {
			add_unique(a, &out->searches, arena_printf(a, "%.*s.svc.%s", STR_ARG(pod->metadata.namespace), k->c->cluster_domain),
				   DNS_SEARCHES_MAX);
			add_unique(a, &out->searches, arena_printf(a, "svc.%s", k->c->cluster_domain), DNS_SEARCHES_MAX);
			add_unique(a, &out->searches, str_from(k->c->cluster_domain), DNS_SEARCHES_MAX);
		}
		for (uint32_t i = 0; i < host.searches.n; i++)
			add_unique(a, &out->searches, host.searches.v[i], DNS_SEARCHES_MAX);
		*arena_push(a, &out->options) = STR("ndots:5");
	} else if (!str_eqz(policy, "None")) {
		TRY(host_dns(k, a, out));
	}
	if (s->dns_config) {
		for (uint32_t i = 0; i < s->dns_config->nameservers.n; i++)
			add_unique(a, &out->servers, s->dns_config->nameservers.v[i], DNS_SERVERS_MAX);
		for (uint32_t i = 0; i < s->dns_config->searches.n; i++)
			add_unique(a, &out->searches, s->dns_config->searches.v[i], DNS_SEARCHES_MAX);
		for (uint32_t i = 0; i < s->dns_config->options.n; i++) {
			const struct core_v1_pod_dns_config_option *o = &s->dns_config->options.v[i];
			struct str text = o->value && o->value->n ? arena_printf(a, "%.*s:%.*s", STR_ARG(o->name), STR_ARG(*o->value)) : o->name;
			bool replaced = false;

			for (uint32_t j = 0; j < out->options.n; j++) {
				struct str have = out->options.v[j], name = str_cut(&have, ':');

				if (str_eq(name, o->name)) {
					out->options.v[j] = text;
					replaced = true;
				}
			}
			if (!replaced)
				*arena_push(a, &out->options) = text;
		}
	}
	return NULL;
}
