/* kubelet/container.c: sandboxes and containers: their CRI configuration, start and end. */
#include "kubelet/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIN_GRACE_S 2 /* what a container gets after a preStop hook took all of the time */

struct str pod_log_dir(struct kubelet *k, struct arena *a, struct str ns, struct str name, struct str uid)
{
	return arena_printf(a, "%s/%.*s_%.*s_%.*s", k->c->pod_logs_dir, STR_ARG(ns), STR_ARG(name), STR_ARG(uid));
}

struct str pod_dir(struct kubelet *k, struct arena *a, struct str uid)
{
	return arena_printf(a, "%s/pods/%.*s", k->c->root_dir, STR_ARG(uid));
}

static void pod_labels(struct arena *a, const struct core_v1_pod *pod, void *map)
{
	struct str_map *m = map;

	str_map_set(a, m, STR(CRI_LABEL_POD_NAME), pod->metadata.name);
	str_map_set(a, m, STR(CRI_LABEL_POD_NS), pod->metadata.namespace);
	str_map_set(a, m, STR(CRI_LABEL_POD_UID), pod->metadata.uid);
}

static struct cri_v1_namespace_option *namespaces(struct arena *a, const struct core_v1_pod *pod, struct str target_id)
{
	struct cri_v1_namespace_option *o = arena_new(a, struct cri_v1_namespace_option);
	const struct core_v1_pod_spec *s = &pod->spec;

	o->network = s->host_network ? CRI_NAMESPACE_NODE : CRI_NAMESPACE_POD;
	o->ipc = s->host_ipc ? CRI_NAMESPACE_NODE : CRI_NAMESPACE_POD;
	o->pid = s->host_pid ? CRI_NAMESPACE_NODE
		 : s->share_process_namespace && *s->share_process_namespace ? CRI_NAMESPACE_POD
									     : CRI_NAMESPACE_CONTAINER;
	if (target_id.n) {
		o->pid = CRI_NAMESPACE_TARGET;
		o->target_id = target_id;
	}
	return o;
}

static struct cri_v1_int64_value *int64_value(struct arena *a, const int64_t *v)
{
	struct cri_v1_int64_value *o;

	if (!v)
		return NULL;
	o = arena_new(a, struct cri_v1_int64_value);
	o->value = *v;
	return o;
}

static struct cri_v1_security_profile *seccomp(struct kubelet *k, struct arena *a, const struct core_v1_seccomp_profile *p, bool privileged)
{
	struct cri_v1_security_profile *o = arena_new(a, struct cri_v1_security_profile);

	o->profile_type = CRI_PROFILE_UNCONFINED;
	if (!p || privileged)
		return o;
	if (str_eqz(p->type, "RuntimeDefault")) {
		o->profile_type = CRI_PROFILE_RUNTIME_DEFAULT;
	} else if (str_eqz(p->type, "Localhost") && p->localhost_profile) {
		o->profile_type = CRI_PROFILE_LOCALHOST;
		o->localhost_ref = arena_printf(a, "%s/seccomp/%.*s", k->c->root_dir, STR_ARG(*p->localhost_profile));
	}
	return o;
}

static struct cri_v1_security_profile *apparmor(struct arena *a, const struct core_v1_app_armor_profile *p)
{
	struct cri_v1_security_profile *o;

	if (!p)
		return NULL;
	o = arena_new(a, struct cri_v1_security_profile);
	o->profile_type = str_eqz(p->type, "RuntimeDefault") ? CRI_PROFILE_RUNTIME_DEFAULT
			  : str_eqz(p->type, "Localhost")    ? CRI_PROFILE_LOCALHOST
							     : CRI_PROFILE_UNCONFINED;
	if (p->localhost_profile)
		o->localhost_ref = *p->localhost_profile;
	return o;
}

static struct cri_v1_se_linux_option *selinux(struct arena *a, const struct core_v1_se_linux_options *s)
{
	struct cri_v1_se_linux_option *o;

	if (!s)
		return NULL;
	o = arena_new(a, struct cri_v1_se_linux_option);
	o->user = s->user;
	o->role = s->role;
	o->type = s->type;
	o->level = s->level;
	return o;
}

static bool any_privileged(const struct core_v1_pod *pod)
{
	const struct core_v1_security_context *sc;

	for (uint32_t i = 0; i < pod->spec.containers.n; i++)
		if ((sc = pod->spec.containers.v[i].security_context) && sc->privileged && *sc->privileged)
			return true;
	for (uint32_t i = 0; i < pod->spec.init_containers.n; i++)
		if ((sc = pod->spec.init_containers.v[i].security_context) && sc->privileged && *sc->privileged)
			return true;
	return false;
}

struct str sysctl_name(struct arena *a, const struct core_v1_sysctl *s)
{
	char *name = arena_strz(a, s->name);

	str_sysctl_dots(name, s->name.n);
	return str_of(name, s->name.n);
}

void sandbox_config(struct pod *p, struct arena *a, const struct core_v1_pod *pod, uint32_t attempt, struct cri_v1_pod_sandbox_config *out)
{
	struct kubelet *k = p->k;
	const struct core_v1_pod_spec *s = &pod->spec;
	const struct core_v1_pod_security_context *sc = s->security_context;
	struct str host, domain;
	struct cri_v1_linux_sandbox_security_context *lsc = arena_new(a, struct cri_v1_linux_sandbox_security_context);

	*out = (struct cri_v1_pod_sandbox_config){0};
	out->metadata = arena_new(a, struct cri_v1_pod_sandbox_metadata);
	out->metadata->name = pod->metadata.name;
	out->metadata->namespace = pod->metadata.namespace;
	out->metadata->uid = pod->metadata.uid;
	out->metadata->attempt = attempt;
	if (!s->host_network) {
		pod_hostname(k, a, pod, &host, &domain);
		if (s->set_hostname_as_fqdn && *s->set_hostname_as_fqdn && domain.n)
			host = arena_printf(a, "%.*s.%.*s", STR_ARG(host), STR_ARG(domain));
		out->hostname = host;
	}
	out->log_directory = pod_log_dir(k, a, pod->metadata.namespace, pod->metadata.name, pod->metadata.uid);
	for (uint32_t i = 0; i < pod->metadata.labels.n; i++)
		str_map_set(a, API_MAP(&out->labels), pod->metadata.labels.v[i].key, pod->metadata.labels.v[i].value);
	pod_labels(a, pod, &out->labels);
	for (uint32_t i = 0; i < pod->metadata.annotations.n; i++)
		str_map_set(a, API_MAP(&out->annotations), pod->metadata.annotations.v[i].key, pod->metadata.annotations.v[i].value);
	str_map_set(a, API_MAP(&out->annotations), STR("kubernetes.io/config.source"), p->is_static ? STR("file") : STR("api"));
	for (uint32_t i = 0; i < s->containers.n; i++)
		for (uint32_t j = 0; j < s->containers.v[i].ports.n; j++) {
			const struct core_v1_container_port *cp = &s->containers.v[i].ports.v[j];
			struct cri_v1_port_mapping *m = arena_push(a, &out->port_mappings);

			m->container_port = cp->container_port;
			m->host_port = s->host_network ? 0 : cp->host_port;
			m->host_ip = cp->host_ip;
			m->protocol = str_eqz(cp->protocol, "UDP") ? CRI_PROTOCOL_UDP : str_eqz(cp->protocol, "SCTP") ? CRI_PROTOCOL_SCTP : CRI_PROTOCOL_TCP;
		}
	out->linux_ = arena_new(a, struct cri_v1_linux_pod_sandbox_config);
	out->linux_->cgroup_parent = cgroup_pod_path(k, a, pod);
	out->linux_->security_context = lsc;
	lsc->namespace_options = namespaces(a, pod, STR_NULL);
	lsc->privileged = any_privileged(pod);
	lsc->seccomp = arena_new(a, struct cri_v1_security_profile);
	lsc->seccomp->profile_type = CRI_PROFILE_RUNTIME_DEFAULT;
	if (sc) {
		lsc->run_as_user = int64_value(a, sc->run_as_user);
		lsc->run_as_group = sc->run_as_user ? int64_value(a, sc->run_as_group) : NULL;
		lsc->selinux_options = selinux(a, sc->se_linux_options);
		if (sc->fs_group)
			*arena_push(a, &lsc->supplemental_groups) = *sc->fs_group;
		for (uint32_t i = 0; i < sc->supplemental_groups.n; i++)
			*arena_push(a, &lsc->supplemental_groups) = sc->supplemental_groups.v[i];
		if (sc->supplemental_groups_policy && str_eqz(*sc->supplemental_groups_policy, "Strict"))
			lsc->supplemental_groups_policy = CRI_SUPPLEMENTAL_GROUPS_STRICT;
		for (uint32_t i = 0; i < sc->sysctls.n; i++)
			str_map_set(a, API_MAP(&out->linux_->sysctls), sysctl_name(a, &sc->sysctls.v[i]),
				    sc->sysctls.v[i].value);
	}
}

struct error *sandbox_create(struct pod *p, struct arena *a, const struct core_v1_pod *pod, uint32_t attempt, struct str *id)
{
	struct kubelet *k = p->k;
	struct cri_v1_pod_sandbox_config config;
	struct cri_v1_dns_config dns;
	struct cri_v1_run_pod_sandbox_request req = {.config = &config};
	struct cri_v1_run_pod_sandbox_response resp = {0};

	sandbox_config(p, a, pod, attempt, &config);
	TRY(dns_config(k, a, pod, &dns));
	config.dns_config = &dns;
	TRY(dir_make(config.log_directory.p, 0755));
	if (pod->spec.runtime_class_name && pod->spec.runtime_class_name->n && k->client) {
		struct node_v1_runtime_class *rc = NULL;

		TRY(error_wrap(object_get(k, a, &node_v1_runtimeclasses_resource, STR_NULL, *pod->spec.runtime_class_name, (void **)&rc),
			       "failed to get RuntimeClass %.*s", STR_ARG(*pod->spec.runtime_class_name)));
		req.runtime_handler = rc->handler;
	}
	TRY(CRI_CALL(k, a, RUNTIME, RunPodSandbox, run_pod_sandbox, &req, &resp));
	*id = resp.pod_sandbox_id;
	return view_refresh_sandbox(p, *id);
}

/* ---- containers ---- */

static const char *const masked[] = {
	"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
	"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/interrupts",
};
static const char *const readonly_paths[] = {
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};

static bool adds_sys_admin(const struct core_v1_security_context *sc)
{
	for (uint32_t i = 0; sc && sc->capabilities && i < sc->capabilities->add.n; i++)
		if (str_eqz(sc->capabilities->add.v[i], "SYS_ADMIN") || str_eqz(sc->capabilities->add.v[i], "CAP_SYS_ADMIN"))
			return true;
	return false;
}

static struct cri_v1_linux_container_security_context *security(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod,
								const struct core_v1_container *c, struct str target_id)
{
	const struct core_v1_pod_security_context *psc = pod->spec.security_context;
	const struct core_v1_security_context *sc = c->security_context;
	struct cri_v1_linux_container_security_context *o = arena_new(a, struct cri_v1_linux_container_security_context);
	bool unmasked = false;

	o->namespace_options = namespaces(a, pod, target_id);
	o->privileged = sc && sc->privileged && *sc->privileged;
	o->run_as_user = int64_value(a, sc && sc->run_as_user ? sc->run_as_user : psc ? psc->run_as_user : NULL);
	o->run_as_group = int64_value(a, sc && sc->run_as_group ? sc->run_as_group : psc ? psc->run_as_group : NULL);
	o->selinux_options = selinux(a, sc && sc->se_linux_options ? sc->se_linux_options : psc ? psc->se_linux_options : NULL);
	o->seccomp = seccomp(k, a, sc && sc->seccomp_profile ? sc->seccomp_profile : psc ? psc->seccomp_profile : NULL, o->privileged);
	o->apparmor = apparmor(a, sc && sc->app_armor_profile ? sc->app_armor_profile : psc ? psc->app_armor_profile : NULL);
	if (psc) {
		if (psc->fs_group)
			*arena_push(a, &o->supplemental_groups) = *psc->fs_group;
		for (uint32_t i = 0; i < psc->supplemental_groups.n; i++)
			*arena_push(a, &o->supplemental_groups) = psc->supplemental_groups.v[i];
		if (psc->supplemental_groups_policy && str_eqz(*psc->supplemental_groups_policy, "Strict"))
			o->supplemental_groups_policy = CRI_SUPPLEMENTAL_GROUPS_STRICT;
	}
	if (sc) {
		o->readonly_rootfs = sc->read_only_root_filesystem && *sc->read_only_root_filesystem;
		o->no_new_privs = sc->allow_privilege_escalation && !*sc->allow_privilege_escalation && !o->privileged && !adds_sys_admin(sc);
		unmasked = sc->proc_mount && str_eqz(*sc->proc_mount, "Unmasked");
		if (sc->capabilities) {
			o->capabilities = arena_new(a, struct cri_v1_capability);
			o->capabilities->add_capabilities.v = sc->capabilities->add.v;
			o->capabilities->add_capabilities.n = sc->capabilities->add.n;
			o->capabilities->drop_capabilities.v = sc->capabilities->drop.v;
			o->capabilities->drop_capabilities.n = sc->capabilities->drop.n;
		}
	}
	if (!unmasked && !o->privileged) {
		for (size_t i = 0; i < ARRAY_LEN(masked); i++)
			*arena_push(a, &o->masked_paths) = str_from(masked[i]);
		for (size_t i = 0; i < ARRAY_LEN(readonly_paths); i++)
			*arena_push(a, &o->readonly_paths) = str_from(readonly_paths[i]);
	}
	return o;
}

/* runAsNonRoot against what the container will really be. */
static struct error *check_non_root(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
				    struct str image)
{
	const struct core_v1_pod_security_context *psc = pod->spec.security_context;
	const struct core_v1_security_context *sc = c->security_context;
	const bool *want = sc && sc->run_as_non_root ? sc->run_as_non_root : psc ? psc->run_as_non_root : NULL;
	const int64_t *user = sc && sc->run_as_user ? sc->run_as_user : psc ? psc->run_as_user : NULL;
	struct cri_v1_image_spec spec = {.image = image};
	struct cri_v1_image_status_request req = {.image = &spec};
	struct cri_v1_image_status_response resp = {0};

	if (!want || !*want)
		return NULL;
	if (user) {
		if (*user == 0)
			return error_new("container's runAsUser breaks non-root policy (pod: \"%.*s_%.*s(%.*s)\", container: %.*s)",
					 STR_ARG(pod->metadata.name), STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.uid), STR_ARG(c->name));
		return NULL;
	}
	TRY(CRI_CALL(k, a, IMAGE, ImageStatus, image_status, &req, &resp));
	if (resp.image && resp.image->username.n)
		return error_new("container has runAsNonRoot and image has non-numeric user (%.*s), cannot verify user is non-root (pod: \"%.*s_%.*s(%.*s)\", container: %.*s)",
				 STR_ARG(resp.image->username), STR_ARG(pod->metadata.name), STR_ARG(pod->metadata.namespace),
				 STR_ARG(pod->metadata.uid), STR_ARG(c->name));
	if (!resp.image || !resp.image->uid || resp.image->uid->value == 0)
		return error_new("container has runAsNonRoot and image will run as root (pod: \"%.*s_%.*s(%.*s)\", container: %.*s)",
				 STR_ARG(pod->metadata.name), STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.uid), STR_ARG(c->name));
	return NULL;
}

static struct error *write_file(const char *path, struct str data, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	size_t done = 0;

	if (fd < 0)
		return error_sys(errno, "making %s", path);
	fchmod(fd, mode);
	while (done < data.n) {
		ssize_t n = write(fd, data.p + done, data.n - done);

		if (n < 0) {
			int err = errno;

			close(fd);
			return error_sys(err, "writing %s", path);
		}
		done += (size_t)n;
	}
	close(fd);
	return NULL;
}

static struct str lookup_env(void *ctx, struct str name)
{
	return env_get(ctx, name);
}

static struct error *mounts(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			    const struct env_list *env, const struct plan_start *s, struct cri_v1_container_config *out)
{
	struct kubelet *k = p->k;
	struct str dir = pod_dir(k, a, pod->metadata.uid), term_dir;
	bool hosts = false;

	for (uint32_t i = 0; i < c->volume_mounts.n; i++) {
		const struct core_v1_volume_mount *m = &c->volume_mounts.v[i];
		struct str sub = m->sub_path;

		hosts |= str_eqz(m->mount_path, "/etc/hosts");
		if (m->sub_path_expr.n) {
			struct str name = m->sub_path_expr;

			/* As upstream: an unknown variable is an error here, not left as it stands. */
			sub = env_expand(a, name, lookup_env, (void *)(uintptr_t)env);
			if (str_contains(sub, STR("$(")))
				return error_new("missing value for subPathExpr \"%.*s\"", STR_ARG(name));
		}
		TRY(volume_mount_path(p, a, pod, c, i, sub, arena_push(a, &out->mounts)));
	}
	if (!hosts && s->kind != CONTAINER_EPHEMERAL) {
		struct str host, domain, path = arena_printf(a, "%.*s/etc-hosts", STR_ARG(dir));
		struct strings none = {0};
		const struct strings *ips = p->view && p->view->sandboxes.n ? &p->view->sandboxes.v[0].ips : &none;
		struct cri_v1_mount *m;

		pod_hostname(k, a, pod, &host, &domain);
		TRY(write_file(path.p, hosts_file(k, a, pod, ips, host, domain), 0644));
		m = arena_push(a, &out->mounts);
		m->container_path = STR("/etc/hosts");
		m->host_path = path;
		m->readonly = c->security_context && c->security_context->read_only_root_filesystem &&
			      *c->security_context->read_only_root_filesystem;
	} else if (!hosts) {
		struct cri_v1_mount *m = arena_push(a, &out->mounts);

		m->container_path = STR("/etc/hosts");
		m->host_path = arena_printf(a, "%.*s/etc-hosts", STR_ARG(dir));
	}
	if (c->termination_message_path.n) {
		struct cri_v1_mount *m;
		struct str path;

		term_dir = arena_printf(a, "%.*s/containers/%.*s", STR_ARG(dir), STR_ARG(c->name));
		TRY(dir_make(term_dir.p, 0750));
		path = arena_printf(a, "%.*s/%u", STR_ARG(term_dir), s->attempt);
		TRY(write_file(path.p, STR_NULL, 0666));
		m = arena_push(a, &out->mounts);
		m->container_path = c->termination_message_path;
		m->host_path = path;
	}
	return NULL;
}

static int signal_index(struct str name)
{
	for (int i = 1; i < CRI_SIGNAL_COUNT; i++)
		if (str_eqz(name, cri_signal_names[i]))
			return i;
	return 0;
}

static struct error *container_config(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct plan_start *s, struct str image_ref,
				      struct cri_v1_container_config *out)
{
	struct kubelet *k = p->k;
	const struct core_v1_container *c = s->c;
	struct env_list env = {0};
	buf_cleanup struct buf ports = {0};

	*out = (struct cri_v1_container_config){0};
	out->metadata = arena_new(a, struct cri_v1_container_metadata);
	out->metadata->name = c->name;
	out->metadata->attempt = s->attempt;
	out->image = arena_new(a, struct cri_v1_image_spec);
	out->image->image = image_ref;
	out->image->user_specified_image = c->image;
	TRY(check_non_root(k, a, pod, c, image_ref));
	TRY(env_make(k, a, p, pod, c, &env));
	for (uint32_t i = 0; i < env.v.n; i++) {
		struct cri_v1_key_value *kv = arena_push(a, &out->envs);

		kv->key = env.v.v[i].key;
		kv->value = env.v.v[i].value;
	}
	for (uint32_t i = 0; i < c->command.n; i++)
		*arena_push(a, &out->command) = env_expand(a, c->command.v[i], lookup_env, &env);
	for (uint32_t i = 0; i < c->args.n; i++)
		*arena_push(a, &out->args) = env_expand(a, c->args.v[i], lookup_env, &env);
	out->working_dir = c->working_dir;
	TRY(mounts(p, a, pod, c, &env, s, out));
	if (c->volume_devices.n)
		return error_new("container %.*s: volumeDevices (raw block volumes) are not supported by this kubelet", STR_ARG(c->name));
	pod_labels(a, pod, &out->labels);
	str_map_set(a, API_MAP(&out->labels), STR(CRI_LABEL_CONTAINER), c->name);
	str_map_set(a, API_MAP(&out->annotations), STR(CRI_ANN_HASH), container_hash(a, c));
	str_map_set(a, API_MAP(&out->annotations), STR(CRI_ANN_RESTARTS), arena_printf(a, "%u", s->attempt));
	str_map_set(a, API_MAP(&out->annotations), STR(CRI_ANN_TERM_PATH), c->termination_message_path);
	str_map_set(a, API_MAP(&out->annotations), STR(CRI_ANN_TERM_POLICY), c->termination_message_policy);
	if (pod->spec.termination_grace_period_seconds)
		str_map_set(a, API_MAP(&out->annotations), STR(CRI_ANN_GRACE),
			    arena_printf(a, "%lld", (long long)*pod->spec.termination_grace_period_seconds));
	if (c->ports.n) {
		buf_putc(&ports, '[');
		for (uint32_t i = 0; i < c->ports.n; i++) {
			if (i)
				buf_putc(&ports, ',');
			json_encode(&ports, &core_v1_container_port_type, &c->ports.v[i]);
		}
		buf_putc(&ports, ']');
		str_map_set(a, API_MAP(&out->annotations), STR(CRI_ANN_PORTS), arena_str(a, buf_view(&ports)));
	}
	out->log_path = arena_printf(a, "%.*s/%u.log", STR_ARG(c->name), s->attempt);
	out->stdin = c->stdin;
	out->stdin_once = c->stdin_once;
	out->tty = c->tty;
	if (c->lifecycle && c->lifecycle->stop_signal)
		out->stop_signal = signal_index(*c->lifecycle->stop_signal);
	out->linux_ = arena_new(a, struct cri_v1_linux_container_config);
	out->linux_->security_context = security(k, a, pod, c, s->target_id);
	out->linux_->resources = arena_new(a, struct cri_v1_linux_container_resources);
	container_linux_resources(k, a, pod, c, out->linux_->resources);
	return NULL;
}

void container_log_links(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, struct str container, struct str id, uint32_t attempt,
			 bool remove)
{
	struct str link, target;

	if (!*k->c->container_logs_dir)
		return;
	link = arena_printf(a, "%s/%.*s_%.*s_%.*s-%.*s.log", k->c->container_logs_dir, STR_ARG(pod->metadata.name), STR_ARG(pod->metadata.namespace),
			    STR_ARG(container), STR_ARG(id));
	target = arena_printf(a, "%.*s/%.*s/%u.log", STR_ARG(pod_log_dir(k, a, pod->metadata.namespace, pod->metadata.name, pod->metadata.uid)),
			      STR_ARG(container), attempt);
	if (remove)
		unlink(link.p);
	else if (symlink(target.p, link.p) < 0 && errno != EEXIST)
		log_v(2, "link %s: %s", link.p, strerror(errno));
}

struct hook {
	struct pod *p;
	struct arena *a;
	const struct core_v1_pod *pod;
	const struct core_v1_container *c;
	struct str id;
	const struct core_v1_lifecycle_handler *h;
	int64_t timeout_s;
};

static struct error *run_hook(void *arg)
{
	struct hook *h = arg;

	return handler_run(h->p, h->a, h->pod, h->c, h->id, h->h, h->timeout_s);
}

/* True when it must wait because it crashed a moment ago. */
static bool in_backoff(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct plan_start *s, struct cstate *cs, const char *path)
{
	int64_t ended, left, now;

	if (!s->last || s->last->state != CRI_CONTAINER_EXITED)
		return false;
	now = wall_ns() / 1000000;
	ended = s->last->finished_at / 1000000;
	left = backoff_wait(cs->backoff_ms, ended, now);
	if (left == 0) {
		backoff_next(&cs->backoff_ms, &cs->backoff_at, now);
		return false;
	}
	if (!cs->wait_reason || strcmp(cs->wait_reason, "CrashLoopBackOff") != 0)
		pod_event(p, pod, path, "Warning", "BackOff", "Back-off restarting failed container %.*s in pod %s", STR_ARG(s->c->name),
			  pod_format(a, pod).p);
	cstate_waiting(cs, "CrashLoopBackOff", "back-off %s restarting failed container=%.*s pod=%s", duration_format(a, cs->backoff_ms * 1000000).p,
		       STR_ARG(s->c->name), pod_format(a, pod).p);
	pod_kick_at(p, now_ms() + left);
	return true;
}

void container_start(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct plan *plan, struct plan_start *s)
{
	struct kubelet *k = p->k;
	const struct core_v1_container *c = s->c;
	struct cstate *cs = pod_cstate_make(p, c->name, s->kind);
	const char *path = container_field_path(a, s->kind, c->name).p;
	struct cri_v1_container_config config;
	struct cri_v1_pod_sandbox_config sandbox;
	struct cri_v1_create_container_request creq = {.pod_sandbox_id = plan->sandbox_id, .config = &config, .sandbox_config = &sandbox};
	struct cri_v1_create_container_response cresp = {0};
	struct cri_v1_start_container_request sreq = {0};
	struct cri_v1_start_container_response sresp = {0};
	struct str image_ref = STR_NULL;
	const char *reason = "";
	struct error *e;

	if (in_backoff(p, a, pod, s, cs, path))
		return;
	e = image_ensure(p, a, pod, c, cs, str_from(path), &image_ref, &reason);
	if (e) {
		if (!error_is_sys(e, ECANCELED))
			cstate_waiting(cs, reason, "%s", e->message);
		error_free(e);
		return;
	}
	if (!s->last)
		s->attempt = log_next_attempt(arena_printf(a, "%.*s/%.*s", STR_ARG(pod_log_dir(k, a, pod->metadata.namespace, pod->metadata.name, pod->metadata.uid)),
							   STR_ARG(c->name)).p);
	e = container_config(p, a, pod, s, image_ref, &config);
	if (e) {
		cstate_waiting(cs, "CreateContainerConfigError", "%s", e->message);
		goto failed;
	}
	sandbox_config(p, a, pod, plan->sandbox_attempt, &sandbox);
	e = CRI_CALL(k, a, RUNTIME, CreateContainer, create_container, &creq, &cresp);
	if (e) {
		cstate_waiting(cs, "CreateContainerError", "%s", e->message);
		goto failed;
	}
	pod_event(p, pod, path, "Normal", "Created", "Container created");
	sreq.container_id = cresp.container_id;
	container_log_links(k, a, pod, c->name, cresp.container_id, s->attempt, false);
	e = CRI_CALL(k, a, RUNTIME, StartContainer, start_container, &sreq, &sresp);
	if (e) {
		struct error *re = view_refresh_container(p, cresp.container_id);

		error_free(re);
		cstate_waiting(cs, "RunContainerError", "%s", e->message);
		goto failed;
	}
	k->n_started++;
	cs->start_failures = 0;
	pod_event(p, pod, path, "Normal", "Started", "Container started");
	e = view_refresh_container(p, cresp.container_id);
	log_and_free(e, "container %.*s", STR_ARG(c->name));
	if (c->lifecycle && c->lifecycle->post_start) {
		struct hook h = {p, a, pod, c, cresp.container_id, c->lifecycle->post_start, 0};

		cs->hook_running = true;
		e = pod_interruptible(p, "post-start", run_hook, &h);
		cs->hook_running = false;
		if (error_is_sys(e, ECANCELED)) {
			error_free(e);
			return;
		}
		if (e) {
			log_warn("pod %s, container %.*s: postStart hook: %s", pod_format(a, pod).p, STR_ARG(c->name), e->message);
			pod_event(p, pod, path, "Warning", "FailedPostStartHook", "PostStartHook failed");
			error_free(e);
			e = container_kill(p, pod, cresp.container_id, c->name, s->kind, "FailedPostStartHook", STR("FailedPostStartHook"), -1);
			log_and_free(e, "killing %.*s", STR_ARG(c->name));
			cstate_waiting(cs, "PostStartHookError", "PostStartHook failed");
			return;
		}
	}
	cstate_waiting(cs, NULL, " ");
	return;
failed:
	log_warn("pod %s, container %.*s: %s: %s", pod_format(a, pod).p, STR_ARG(c->name), cs->wait_reason, e->message);
	pod_event(p, pod, path, "Warning", "Failed", "Error: %s", e->message);
	error_free(e);
	/* Soon at first, as what is missing often comes at once; then each 10 s. */
	pod_kick_at(p, now_ms() + (cs->start_failures++ < 5 ? 2000 : 10000));
}

struct stop {
	struct pod *p;
	struct arena *a;
	struct str id;
	int64_t timeout;
};

static struct error *do_stop(void *arg)
{
	struct stop *s = arg;
	struct cri_v1_stop_container_request req = {.container_id = s->id, .timeout = s->timeout};
	struct str answer = STR_NULL;
	buf_cleanup struct buf b = {0};
	struct error *e;
	int64_t token;

	pb_encode(&b, &cri_v1_stop_container_request_type, &req);
	token = deadline_push((s->timeout + 120) * 1000);
	e = grpc_call(s->p->k->cri, s->a, "/" CRI_RUNTIME_SERVICE "/StopContainer", buf_view(&b), &answer);
	deadline_pop(token);
	return e;
}

struct error *container_kill(struct pod *p, const struct core_v1_pod *pod, struct str id, struct str name, enum container_kind kind,
			     const char *reason, struct str message, int64_t grace)
{
	arena_cleanup struct arena a = {0};
	const struct core_v1_container *c = pod ? pod_find_container(pod, name, NULL) : NULL;
	const char *path = container_field_path(&a, kind, name).p;
	int64_t deadline, left;
	struct error *e;

	if (grace < 0)
		grace = pod && pod->spec.termination_grace_period_seconds ? *pod->spec.termination_grace_period_seconds : 30;
	if (pod)
		pod_event(p, pod, path, "Normal", "Killing", "%s", message.n ? arena_strz(&a, message) : arena_printf(&a, "Stopping container %.*s", STR_ARG(name)).p);
	log_v(2, "stopping container %.*s (%.12s): %s, grace %llds", STR_ARG(name), id.p, reason, (long long)grace);
	deadline = now_ms() + grace * 1000;
	if (c && grace > 0 && c->lifecycle && c->lifecycle->pre_stop) {
		struct hook h = {p, &a, pod, c, id, c->lifecycle->pre_stop, grace};
		int64_t token = deadline_push(grace * 1000);

		e = pod_interruptible(p, "pre-stop", run_hook, &h);
		deadline_pop(token);
		if (e && !error_is_sys(e, ECANCELED) && grpc_error_code(e) != GRPC_DEADLINE_EXCEEDED && !error_is_sys(e, ETIMEDOUT)) {
			log_warn("container %.*s: preStop hook: %s", STR_ARG(name), e->message);
			pod_event(p, pod, path, "Warning", "FailedPreStopHook", "PreStopHook failed");
		}
		error_free(e);
	}
	for (;;) {
		struct stop s = {p, &a, id, 0};
		unsigned epoch = p->kill_epoch;

		left = (deadline - now_ms() + 999) / 1000;
		if (grace > 0 && left < MIN_GRACE_S)
			left = grace < MIN_GRACE_S ? grace : MIN_GRACE_S;
		if (p->terminating && p->kill_grace >= 0 && left > p->kill_grace)
			left = p->kill_grace;
		s.timeout = left < 0 ? 0 : left;
		e = pod_interruptible(p, "stop-container", do_stop, &s);
		if (error_is_sys(e, ECANCELED) && epoch != p->kill_epoch && !fiber_cancelled()) {
			error_clear(&e); /* the pod is to end sooner now */
			continue;
		}
		break;
	}
	if (grpc_error_code(e) == GRPC_NOT_FOUND)
		error_clear(&e);
	if (e)
		return error_wrap(e, "stopping container %.*s", STR_ARG(name));
	e = view_refresh_container(p, id);
	if (grpc_error_code(e) == GRPC_NOT_FOUND)
		error_clear(&e);
	return e;
}
