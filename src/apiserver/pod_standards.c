#include <limits.h>
#include <stdio.h>
#include "apiserver/pod_standards.h"
#include "base/buf.h"
#include "schema/value.h"

struct container { /* what the checks look at in any kind of container */
	struct str name;
	const struct core_v1_security_context *sc;
	const struct core_v1_container_port *ports;
	uint32_t n_ports;
	const struct core_v1_probe *probes[3];
	const struct core_v1_lifecycle *lifecycle;
};
struct names {
	LIST(struct str) v;
};
struct findings {
	struct arena *a;
	int version;
	const struct meta_v1_object_meta *m;
	const struct core_v1_pod_spec *spec;
	const struct core_v1_pod_security_context *psc; /* never NULL */
	LIST(struct container) c;
	struct buf reasons, details;
};

static void found(struct findings *f, const char *reason, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void found(struct findings *f, const char *reason, const char *fmt, ...)
{
	va_list ap;

	buf_printf(&f->reasons, "%s%s", f->reasons.n ? ", " : "", reason);
	buf_printf(&f->details, "%s%s (", f->details.n ? ", " : "", reason);
	va_start(ap, fmt);
	buf_vprintf(&f->details, fmt, ap);
	va_end(ap);
	buf_putc(&f->details, ')');
}

/* ---- names and values ---- */

static void add(struct findings *f, struct names *l, struct str v)
{
	*arena_push(f->a, &l->v) = v;
}

/* Each once, sorted. */
static void add_value(struct findings *f, struct names *l, struct str v)
{
	uint32_t at = 0;

	while (at < l->v.n && str_cmp(l->v.v[at], v) < 0)
		at++;
	if (at < l->v.n && str_eq(l->v.v[at], v))
		return;
	add(f, l, v);
	memmove(&l->v.v[at + 1], &l->v.v[at], (l->v.n - 1 - at) * sizeof *l->v.v);
	l->v.v[at] = v;
}

static struct str joined(struct findings *f, const struct names *l, const char *quote)
{
	struct buf b buf_cleanup = {0};

	for (uint32_t i = 0; i < l->v.n; i++)
		buf_printf(&b, "%s%s%.*s%s", i ? ", " : "", quote, STR_ARG(l->v.v[i]), quote);
	return arena_str(f->a, buf_view(&b));
}

static struct str quoted(struct findings *f, const struct names *l)
{
	return joined(f, l, "\"");
}

static const char *s_of(const struct names *l)
{
	return l->v.n == 1 ? "" : "s";
}

/* `container "a"`, `containers "a", "b"` */
static struct str containers(struct findings *f, const struct names *l)
{
	return arena_printf(f->a, "container%s %.*s", s_of(l), STR_ARG(quoted(f, l)));
}

/* `pod and container "a"` */
static struct str setters(struct findings *f, bool pod, const struct names *l)
{
	return arena_printf(f->a, "%s%s%.*s", pod ? "pod" : "", pod && l->v.n ? " and " : "", STR_ARG(l->v.n ? containers(f, l) : STR("")));
}

static bool among(struct str v, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (str_eqz(v, list[i]))
			return true;
	return false;
}
#define AMONG(v, list) among(v, list, sizeof list / sizeof *list)

static bool yes(const bool *b)
{
	return b && *b;
}

static bool is_windows(const struct findings *f)
{
	return f->version >= 25 && f->spec->os && str_eqz(f->spec->os->name, "windows");
}

/* Since v1.35 the root of a user namespace is nobody outside. */
static bool in_user_namespace(const struct findings *f)
{
	return f->version >= 35 && f->spec->host_users && !*f->spec->host_users;
}

#define EACH(f, c) for (const struct container *c = (f)->c.v; c < (f)->c.v + (f)->c.n; c++)

/* ---- baseline ---- */

static bool bad_apparmor(const struct core_v1_app_armor_profile *p)
{
	return p && !str_eqz(p->type, "RuntimeDefault") && !str_eqz(p->type, "Localhost");
}

static void apparmor(struct findings *f)
{
	static const char prefix[] = "container.apparmor.security.beta.kubernetes.io/";
	bool pod = bad_apparmor(f->psc->app_armor_profile);
	struct names bad = {0}, values = {0}, notes = {0};
	struct str who;

	if (pod)
		add_value(f, &values, f->psc->app_armor_profile->type);
	EACH(f, c)
		if (c->sc && bad_apparmor(c->sc->app_armor_profile)) {
			add(f, &bad, c->name);
			add_value(f, &values, c->sc->app_armor_profile->type);
		}
	for (uint32_t i = 0; i < f->m->annotations.n; i++) {
		struct str k = f->m->annotations.v[i].key, v = f->m->annotations.v[i].value;

		if (str_has_prefix(k, str_from(prefix)) && v.n && !str_eqz(v, "runtime/default") && !str_has_prefix(v, STR("localhost/")))
			add_value(f, &notes, arena_printf(f->a, "%.*s=\"%.*s\"", STR_ARG(k), STR_ARG(v)));
	}
	if (!pod && !bad.v.n && !notes.v.n)
		return;
	for (uint32_t i = 0; i < notes.v.n; i++)
		add(f, &values, notes.v.v[i]);
	who = setters(f, pod, &bad);
	found(f, values.v.n == 1 ? "forbidden AppArmor profile" : "forbidden AppArmor profiles", "%.*s%s%s%s must not set AppArmor profile type to %.*s",
	      STR_ARG(who), who.n && notes.v.n ? " and " : "", notes.v.n ? "annotation" : "", notes.v.n > 1 ? "s" : "", STR_ARG(quoted(f, &values)));
}

static void capabilities_baseline(struct findings *f)
{
	static const char *const allowed[] = {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
					      "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"};
	struct names bad = {0}, values = {0};

	EACH(f, c) {
		bool valid = true;

		for (uint32_t i = 0; c->sc && c->sc->capabilities && i < c->sc->capabilities->add.n; i++)
			if (!AMONG(c->sc->capabilities->add.v[i], allowed)) {
				add_value(f, &values, c->sc->capabilities->add.v[i]);
				valid = false;
			}
		if (!valid)
			add(f, &bad, c->name);
	}
	if (bad.v.n)
		found(f, "non-default capabilities", "%.*s must not include %.*s in securityContext.capabilities.add", STR_ARG(containers(f, &bad)),
		      STR_ARG(quoted(f, &values)));
}

static void host_namespaces(struct findings *f)
{
	struct names bad = {0};

	if (f->spec->host_network)
		add(f, &bad, STR("hostNetwork=true"));
	if (f->spec->host_pid)
		add(f, &bad, STR("hostPID=true"));
	if (f->spec->host_ipc)
		add(f, &bad, STR("hostIPC=true"));
	if (bad.v.n)
		found(f, "host namespaces", "%.*s", STR_ARG(joined(f, &bad, "")));
}

static void host_path(struct findings *f)
{
	struct names bad = {0};

	for (uint32_t i = 0; i < f->spec->volumes.n; i++)
		if (f->spec->volumes.v[i].volume_source.host_path)
			add(f, &bad, f->spec->volumes.v[i].name);
	if (bad.v.n)
		found(f, "hostPath volumes", "volume%s %.*s", s_of(&bad), STR_ARG(quoted(f, &bad)));
}

static void host_ports(struct findings *f)
{
	struct names bad = {0}, values = {0};

	EACH(f, c) {
		bool valid = true;

		for (uint32_t i = 0; i < c->n_ports; i++)
			if (c->ports[i].host_port) {
				add_value(f, &values, arena_printf(f->a, "%d", c->ports[i].host_port));
				valid = false;
			}
		if (!valid)
			add(f, &bad, c->name);
	}
	if (bad.v.n)
		found(f, "hostPort", "%.*s use%s hostPort%s %.*s", STR_ARG(containers(f, &bad)), bad.v.n == 1 ? "s" : "", s_of(&values),
		      STR_ARG(joined(f, &values, "")));
}

static void host_of(struct findings *f, const struct container *c, const struct core_v1_http_get_action *http,
		    const struct core_v1_tcp_socket_action *tcp, struct names *bad, struct names *values)
{
	struct str hosts[2] = {http ? http->host : STR_NULL, tcp ? tcp->host : STR_NULL};

	for (int i = 0; i < 2; i++)
		if (hosts[i].n) {
			add_value(f, values, hosts[i]);
			add_value(f, bad, c->name);
		}
}

static void host_probes(struct findings *f)
{
	struct names bad = {0}, values = {0};

	EACH(f, c) {
		for (int i = 0; i < 3; i++)
			if (c->probes[i])
				host_of(f, c, c->probes[i]->probe_handler.http_get, c->probes[i]->probe_handler.tcp_socket, &bad, &values);
		for (int i = 0; c->lifecycle && i < 2; i++) {
			const struct core_v1_lifecycle_handler *h = i ? c->lifecycle->pre_stop : c->lifecycle->post_start;

			if (h)
				host_of(f, c, h->http_get, h->tcp_socket, &bad, &values);
		}
	}
	if (bad.v.n)
		found(f, "probe or lifecycle host", "%.*s use%s probe or lifecycle host%s %.*s", STR_ARG(containers(f, &bad)),
		      bad.v.n == 1 ? "s" : "", s_of(&values), STR_ARG(quoted(f, &values)));
}

static void privileged(struct findings *f)
{
	struct names bad = {0};

	EACH(f, c)
		if (c->sc && yes(c->sc->privileged))
			add(f, &bad, c->name);
	if (bad.v.n)
		found(f, "privileged", "%.*s must not set securityContext.privileged=true", STR_ARG(containers(f, &bad)));
}

static void proc_mount(struct findings *f)
{
	struct names bad = {0}, values = {0};

	EACH(f, c)
		if (c->sc && c->sc->proc_mount && !str_eqz(*c->sc->proc_mount, "Default")) {
			add(f, &bad, c->name);
			add_value(f, &values, *c->sc->proc_mount);
		}
	if (bad.v.n)
		found(f, "procMount", "%.*s must not set securityContext.procMount to %.*s", STR_ARG(containers(f, &bad)), STR_ARG(quoted(f, &values)));
}

static void proc_mount_baseline(struct findings *f)
{
	if (!in_user_namespace(f))
		proc_mount(f);
}

struct selinux {
	struct names types;
	bool user, role;
};

static bool bad_selinux(struct findings *f, const struct core_v1_se_linux_options *o, struct selinux *x)
{
	static const char *const types[] = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"};
	bool bad_type;

	if (!o)
		return false;
	bad_type = !among(o->type, types, f->version >= 31 ? 5 : 4);
	if (bad_type)
		add_value(f, &x->types, o->type);
	x->user |= o->user.n > 0;
	x->role |= o->role.n > 0;
	return bad_type || o->user.n || o->role.n;
}

static void selinux(struct findings *f)
{
	struct selinux x = {0};
	struct names bad = {0};
	bool pod = bad_selinux(f, f->psc->se_linux_options, &x);

	EACH(f, c)
		if (c->sc && bad_selinux(f, c->sc->se_linux_options, &x))
			add(f, &bad, c->name);
	if (pod || bad.v.n)
		found(f, "seLinuxOptions", "%.*s set forbidden securityContext.seLinuxOptions: %s%s%s%.*s%s%s%s%s", STR_ARG(setters(f, pod, &bad)),
		      x.types.v.n ? "type" : "", x.types.v.n > 1 ? "s" : "", x.types.v.n ? " " : "", STR_ARG(quoted(f, &x.types)),
		      x.types.v.n && (x.user || x.role) ? "; " : "", x.user ? "user may not be set" : "", x.user && x.role ? "; " : "",
		      x.role ? "role may not be set" : "");
}

/* Before v1.19 seccomp profiles were annotations. */
static void seccomp_annotations(struct findings *f)
{
	static const char pod[] = "seccomp.security.alpha.kubernetes.io/pod";
	const struct str_map *notes = API_MAP(&f->m->annotations);
	struct names bad = {0};

	for (uint32_t i = 0; i <= f->c.n; i++) {
		struct str key = i ? arena_printf(f->a, "container.seccomp.security.alpha.kubernetes.io/%.*s", STR_ARG(f->c.v[i - 1].name)) : str_from(pod);
		struct str v = str_map_get(notes, key);

		if (str_map_has(notes, key) && !str_eqz(v, "runtime/default") && !str_eqz(v, "docker/default") && !str_has_prefix(v, STR("localhost/")))
			add_value(f, &bad, arena_printf(f->a, "%.*s=\"%.*s\"", STR_ARG(key), STR_ARG(v)));
	}
	if (bad.v.n)
		found(f, "seccompProfile", "forbidden annotation%s %.*s", s_of(&bad), STR_ARG(joined(f, &bad, "")));
}

static bool good_seccomp(const struct core_v1_seccomp_profile *p)
{
	return str_eqz(p->type, "RuntimeDefault") || str_eqz(p->type, "Localhost");
}

/* Profiles that are named must be good ones; true: one was not. *without: containers with none, where the pod has none. */
static bool seccomp_named(struct findings *f, struct names *without)
{
	const struct core_v1_seccomp_profile *of_pod = f->psc->seccomp_profile;
	bool pod = of_pod && !good_seccomp(of_pod);
	struct names bad = {0}, values = {0};

	if (pod)
		add_value(f, &values, of_pod->type);
	EACH(f, c) {
		const struct core_v1_seccomp_profile *p = c->sc ? c->sc->seccomp_profile : NULL;

		if (p && !good_seccomp(p)) {
			add(f, &bad, c->name);
			add_value(f, &values, p->type);
		} else if (!p && (!of_pod || pod)) {
			add(f, without, c->name);
		}
	}
	if (pod || bad.v.n)
		found(f, "seccompProfile", "%.*s must not set securityContext.seccompProfile.type to %.*s", STR_ARG(setters(f, pod, &bad)),
		      STR_ARG(quoted(f, &values)));
	return pod || bad.v.n;
}

static void seccomp_baseline(struct findings *f)
{
	struct names without = {0};

	if (f->version < 19)
		seccomp_annotations(f);
	else
		seccomp_named(f, &without);
}

static void sysctls(struct findings *f)
{
	static const char *const safe[] = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
					   "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", /* since v1.27: */
					   "net.ipv4.ip_local_reserved_ports", /* v1.29: */ "net.ipv4.tcp_keepalive_time",
					   "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
					   /* v1.32: */ "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"};
	size_t n = f->version >= 32 ? 12 : f->version >= 29 ? 10 : f->version >= 27 ? 6 : 5;
	struct names bad = {0};

	for (uint32_t i = 0; i < f->psc->sysctls.n; i++)
		if (!among(f->psc->sysctls.v[i].name, safe, n))
			add(f, &bad, f->psc->sysctls.v[i].name);
	if (bad.v.n)
		found(f, "forbidden sysctls", "%.*s", STR_ARG(joined(f, &bad, "")));
}

static void host_process(struct findings *f)
{
	bool pod = f->psc->windows_options && yes(f->psc->windows_options->host_process);
	struct names bad = {0};

	EACH(f, c)
		if (c->sc && c->sc->windows_options && yes(c->sc->windows_options->host_process))
			add(f, &bad, c->name);
	if (pod || bad.v.n)
		found(f, "hostProcess", "%.*s must not set securityContext.windowsOptions.hostProcess=true", STR_ARG(setters(f, pod, &bad)));
}

/* ---- restricted ---- */

static void escalation(struct findings *f)
{
	struct names bad = {0};

	if (is_windows(f))
		return;
	EACH(f, c)
		if (!c->sc || !c->sc->allow_privilege_escalation || *c->sc->allow_privilege_escalation)
			add(f, &bad, c->name);
	if (bad.v.n)
		found(f, "allowPrivilegeEscalation != false", "%.*s must set securityContext.allowPrivilegeEscalation=false",
		      STR_ARG(containers(f, &bad)));
}

static void capabilities_restricted(struct findings *f)
{
	static const char *const all[] = {"ALL"}, *const bind[] = {"NET_BIND_SERVICE"};
	struct names keeps = {0}, adds = {0}, values = {0};
	struct buf b buf_cleanup = {0};

	if (is_windows(f))
		return;
	EACH(f, c) {
		const struct core_v1_capabilities *caps = c->sc ? c->sc->capabilities : NULL;
		bool dropped = false, added = false;

		for (uint32_t i = 0; caps && i < caps->drop.n; i++)
			dropped |= AMONG(caps->drop.v[i], all);
		for (uint32_t i = 0; caps && i < caps->add.n; i++)
			if (!AMONG(caps->add.v[i], bind)) {
				add_value(f, &values, caps->add.v[i]);
				added = true;
			}
		if (!dropped)
			add(f, &keeps, c->name);
		if (added)
			add(f, &adds, c->name);
	}
	if (keeps.v.n)
		buf_printf(&b, "%.*s must set securityContext.capabilities.drop=[\"ALL\"]", STR_ARG(containers(f, &keeps)));
	if (adds.v.n)
		buf_printf(&b, "%s%.*s must not include %.*s in securityContext.capabilities.add", b.n ? "; " : "", STR_ARG(containers(f, &adds)),
			   STR_ARG(quoted(f, &values)));
	if (b.n)
		found(f, "unrestricted capabilities", "%s", buf_z(&b));
}

/* As the API names it; NULL: one that is allowed. */
static const char *restricted_volume(const struct core_v1_volume_source *v)
{
	if (v->config_map || v->csi || v->downward_api || v->empty_dir || v->ephemeral || v->image || v->persistent_volume_claim ||
	    v->projected || v->secret)
		return NULL;
	return v->host_path ? "hostPath" : v->gce_persistent_disk ? "gcePersistentDisk" : v->aws_elastic_block_store ? "awsElasticBlockStore" :
	       v->git_repo ? "gitRepo" : v->nfs ? "nfs" : v->iscsi ? "iscsi" : v->glusterfs ? "glusterfs" : v->rbd ? "rbd" :
	       v->flex_volume ? "flexVolume" : v->cinder ? "cinder" : v->cephfs ? "cephfs" : v->flocker ? "flocker" : v->fc ? "fc" :
	       v->azure_file ? "azureFile" : v->vsphere_volume ? "vsphereVolume" : v->quobyte ? "quobyte" : v->azure_disk ? "azureDisk" :
	       v->photon_persistent_disk ? "photonPersistentDisk" : v->portworx_volume ? "portworxVolume" : v->scale_io ? "scaleIO" :
	       v->storageos ? "storageos" : "unknown";
}

static void volumes(struct findings *f)
{
	struct names bad = {0}, types = {0};

	for (uint32_t i = 0; i < f->spec->volumes.n; i++) {
		const char *type = restricted_volume(&f->spec->volumes.v[i].volume_source);

		if (!type)
			continue;
		add(f, &bad, f->spec->volumes.v[i].name);
		add_value(f, &types, str_from(type));
	}
	if (bad.v.n)
		found(f, "restricted volume types", "volume%s %.*s use%s restricted volume type%s %.*s", s_of(&bad), STR_ARG(quoted(f, &bad)),
		      bad.v.n == 1 ? "s" : "", s_of(&types), STR_ARG(quoted(f, &types)));
}

static void non_root(struct findings *f)
{
	const bool *of_pod = f->psc->run_as_non_root;
	struct names bad = {0}, without = {0};
	bool pod = of_pod && !*of_pod;

	if (in_user_namespace(f))
		return;
	EACH(f, c) {
		const bool *b = c->sc ? c->sc->run_as_non_root : NULL;

		if (b && !*b)
			add(f, &bad, c->name);
		else if (!b && !yes(of_pod))
			add(f, &without, c->name);
	}
	if (pod || bad.v.n)
		found(f, "runAsNonRoot != true", "%.*s must not set securityContext.runAsNonRoot=false", STR_ARG(setters(f, pod, &bad)));
	else if (without.v.n)
		found(f, "runAsNonRoot != true", "pod or %.*s must set securityContext.runAsNonRoot=true", STR_ARG(containers(f, &without)));
}

static void root_user(struct findings *f)
{
	bool pod = f->psc->run_as_user && *f->psc->run_as_user == 0;
	struct names bad = {0};

	if (in_user_namespace(f))
		return;
	EACH(f, c)
		if (c->sc && c->sc->run_as_user && *c->sc->run_as_user == 0)
			add(f, &bad, c->name);
	if (pod || bad.v.n)
		found(f, "runAsUser=0", "%.*s must not set runAsUser=0", STR_ARG(setters(f, pod, &bad)));
}

static void seccomp_restricted(struct findings *f)
{
	struct names without = {0};

	if (!is_windows(f) && !seccomp_named(f, &without) && without.v.n)
		found(f, "seccompProfile", "pod or %.*s must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
		      STR_ARG(containers(f, &without)));
}

/* ---- the standards ---- */

#define NEVER INT_MAX
/* In upstream's order: by level, then name. */
static const struct check {
	enum pod_level level;
	int since;    /* minor version */
	int replaced; /* baseline: since then the restricted level has its own instead */
	void (*look)(struct findings *f);
} checks[] = {
	{POD_BASELINE, 0, NEVER, apparmor},
	{POD_BASELINE, 0, 22, capabilities_baseline},
	{POD_BASELINE, 0, NEVER, host_namespaces},
	{POD_BASELINE, 0, 0, host_path},
	{POD_BASELINE, 0, NEVER, host_ports},
	{POD_BASELINE, 34, NEVER, host_probes},
	{POD_BASELINE, 0, NEVER, privileged},
	{POD_BASELINE, 0, 35, proc_mount_baseline},
	{POD_BASELINE, 0, NEVER, selinux},
	{POD_BASELINE, 0, 19, seccomp_baseline},
	{POD_BASELINE, 0, NEVER, sysctls},
	{POD_BASELINE, 0, NEVER, host_process},
	{POD_RESTRICTED, 8, 0, escalation},
	{POD_RESTRICTED, 22, 0, capabilities_restricted},
	{POD_RESTRICTED, 35, 0, proc_mount},
	{POD_RESTRICTED, 0, 0, volumes},
	{POD_RESTRICTED, 0, 0, non_root},
	{POD_RESTRICTED, 23, 0, root_user},
	{POD_RESTRICTED, 19, 0, seccomp_restricted},
};

static void collect(struct findings *f)
{
#define CONTAINER(x)                                                                                                                        \
	(*arena_push(f->a, &f->c) = (struct container){(x)->name, (x)->security_context, (x)->ports.v, (x)->ports.n,                        \
						       {(x)->liveness_probe, (x)->readiness_probe, (x)->startup_probe}, (x)->lifecycle})
	for (uint32_t i = 0; i < f->spec->init_containers.n; i++)
		CONTAINER(&f->spec->init_containers.v[i]);
	for (uint32_t i = 0; i < f->spec->containers.n; i++)
		CONTAINER(&f->spec->containers.v[i]);
	for (uint32_t i = 0; i < f->spec->ephemeral_containers.n; i++)
		CONTAINER(&f->spec->ephemeral_containers.v[i].ephemeral_container_common);
#undef CONTAINER
}

void pod_standard_judge(struct arena *a, enum pod_level level, int version, const struct meta_v1_object_meta *m,
			const struct core_v1_pod_spec *s, struct pod_findings *out)
{
	static const struct core_v1_pod_security_context none;
	struct findings f = {.a = a, .version = version, .m = m, .spec = s, .psc = s->security_context ? s->security_context : &none};

	if (level != POD_PRIVILEGED)
		collect(&f);
	for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
		const struct check *c = &checks[i];

		/* the latest version is the highest number, as NEVER is */
		bool replaced = c->level < level && c->replaced != NEVER && version >= c->replaced;

		if (c->level <= level && version >= c->since && !replaced)
			c->look(&f);
	}
	out->reasons = arena_str(a, buf_view(&f.reasons));
	out->details = arena_str(a, buf_view(&f.details));
	buf_free(&f.reasons);
	buf_free(&f.details);
}
