/* PodSecurity (the three standards), and the certificates' plugins. */
#include "apiserver/admission.h"
#include "apiserver/authz.h"
#include "apiserver/server.h"

/* ---- Pod Security Standards ---- */

enum level { PRIVILEGED, BASELINE, RESTRICTED };

struct container { /* what the checks look at in any kind of container */
	struct str name;
	const struct core_v1_security_context *sc;
	const struct core_v1_container_port *ports;
	uint32_t n_ports;
	bool sidecar;
};
struct findings {
	struct arena *a;
	struct buf text;
	const struct container *c;
	size_t n;
	const struct core_v1_pod_spec *spec;
};

static void found(struct findings *f, const char *what, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void found(struct findings *f, const char *what, const char *fmt, ...)
{
	va_list ap;

	if (f->text.n)
		buf_puts(&f->text, ", ");
	buf_printf(&f->text, "%s (", what);
	va_start(ap, fmt);
	buf_vprintf(&f->text, fmt, ap);
	va_end(ap);
	buf_putc(&f->text, ')');
}

/* `container "a"` or `containers "a", "b"` of those for which bad holds; empty when none. */
static struct str who(struct findings *f, bool (*bad)(const struct core_v1_pod_spec *s, const struct container *c))
{
	struct buf b buf_cleanup = {0};
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++)
		if (bad(f->spec, &f->c[i])) {
			buf_printf(&b, "%s\"%.*s\"", n ? ", " : "", STR_ARG(f->c[i].name));
			n++;
		}
	if (!n)
		return STR_NULL;
	return arena_printf(f->a, "container%s %.*s", n > 1 ? "s" : "", STR_ARG(buf_view(&b)));
}

static bool yes(const bool *b)
{
	return b && *b;
}

static bool bad_privileged(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	return c->sc && yes(c->sc->privileged);
}

static bool capability_in(struct str cap, const char *const *list)
{
	for (; *list; list++)
		if (str_eqz(cap, *list))
			return true;
	return false;
}

static bool bad_caps_baseline(const struct core_v1_pod_spec *s, const struct container *c)
{
	static const char *const allowed[] = {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
					      "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", NULL};

	(void)s;
	for (uint32_t i = 0; c->sc && c->sc->capabilities && i < c->sc->capabilities->add.n; i++)
		if (!capability_in(c->sc->capabilities->add.v[i], allowed))
			return true;
	return false;
}

static bool bad_host_ports(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	for (uint32_t i = 0; i < c->n_ports; i++)
		if (c->ports[i].host_port)
			return true;
	return false;
}

static bool bad_proc_mount(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	return c->sc && c->sc->proc_mount && !str_eqz(*c->sc->proc_mount, "Default");
}

static bool bad_seccomp_baseline(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	return c->sc && c->sc->seccomp_profile && str_eqz(c->sc->seccomp_profile->type, "Unconfined");
}

static bool bad_escalation(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	return !c->sc || !c->sc->allow_privilege_escalation || *c->sc->allow_privilege_escalation;
}

static bool bad_drop(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	for (uint32_t i = 0; c->sc && c->sc->capabilities && i < c->sc->capabilities->drop.n; i++)
		if (str_eqz(c->sc->capabilities->drop.v[i], "ALL"))
			return false;
	return true;
}

static bool bad_add_restricted(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	for (uint32_t i = 0; c->sc && c->sc->capabilities && i < c->sc->capabilities->add.n; i++)
		if (!str_eqz(c->sc->capabilities->add.v[i], "NET_BIND_SERVICE"))
			return true;
	return false;
}

static bool bad_non_root(const struct core_v1_pod_spec *s, const struct container *c)
{
	if (c->sc && c->sc->run_as_non_root)
		return !*c->sc->run_as_non_root;
	return !(s->security_context && yes(s->security_context->run_as_non_root));
}

static bool bad_root_user(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	return c->sc && c->sc->run_as_user && *c->sc->run_as_user == 0;
}

static bool good_seccomp(const struct core_v1_seccomp_profile *p)
{
	return p && (str_eqz(p->type, "RuntimeDefault") || str_eqz(p->type, "Localhost"));
}

static bool bad_seccomp_restricted(const struct core_v1_pod_spec *s, const struct container *c)
{
	if (c->sc && c->sc->seccomp_profile)
		return !good_seccomp(c->sc->seccomp_profile);
	return !(s->security_context && good_seccomp(s->security_context->seccomp_profile));
}

static bool bad_windows(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	return c->sc && c->sc->windows_options && yes(c->sc->windows_options->host_process);
}

/* ---- options that name a bad value: AppArmor, SELinux ---- */

struct bad_values { /* unique, in order */
	struct str v[32];
	size_t n;
};

static void bad_value(struct bad_values *b, struct str v)
{
	size_t at = 0;

	while (at < b->n && str_cmp(b->v[at], v) < 0)
		at++;
	if (b->n == sizeof b->v / sizeof *b->v || (at < b->n && str_eq(b->v[at], v)))
		return;
	memmove(&b->v[at + 1], &b->v[at], (b->n - at) * sizeof *b->v);
	b->v[at] = v;
	b->n++;
}

static struct str quoted(struct arena *a, const struct bad_values *b)
{
	struct buf t buf_cleanup = {0};

	for (size_t i = 0; i < b->n; i++)
		buf_printf(&t, "%s\"%.*s\"", i ? ", " : "", STR_ARG(b->v[i]));
	return arena_str(a, buf_view(&t));
}

static bool bad_apparmor_profile(const struct core_v1_app_armor_profile *p)
{
	return p && !str_eqz(p->type, "RuntimeDefault") && !str_eqz(p->type, "Localhost");
}

static bool bad_apparmor(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	return c->sc && bad_apparmor_profile(c->sc->app_armor_profile);
}

static bool bad_selinux_options(const struct core_v1_se_linux_options *o)
{
	static const char *const types[] = {"container_t", "container_init_t", "container_kvm_t", "container_engine_t"};
	bool known = !o || !o->type.n;

	for (size_t i = 0; !known && i < sizeof types / sizeof *types; i++)
		known = str_eqz(o->type, types[i]);
	return o && (!known || o->user.n || o->role.n);
}

static bool bad_selinux(const struct core_v1_pod_spec *s, const struct container *c)
{
	(void)s;
	return c->sc && bad_selinux_options(c->sc->se_linux_options);
}

/* `pod and container "a"` */
static struct str setters(struct findings *f, bool pod, struct str containers)
{
	return arena_printf(f->a, "%s%s%.*s", pod ? "pod" : "", pod && containers.n ? " and " : "", STR_ARG(containers));
}

static void apparmor(struct findings *f)
{
	const struct core_v1_pod_security_context *psc = f->spec->security_context;
	bool pod = psc && bad_apparmor_profile(psc->app_armor_profile);
	struct str w = who(f, bad_apparmor);
	struct bad_values b = {0};

	if (!pod && !w.n)
		return;
	if (pod)
		bad_value(&b, psc->app_armor_profile->type);
	for (size_t i = 0; i < f->n; i++)
		if (bad_apparmor(f->spec, &f->c[i]))
			bad_value(&b, f->c[i].sc->app_armor_profile->type);
	found(f, b.n > 1 ? "forbidden AppArmor profiles" : "forbidden AppArmor profile", "%.*s must not set AppArmor profile type to %.*s",
	      STR_ARG(setters(f, pod, w)), STR_ARG(quoted(f->a, &b)));
}

static void selinux_values(const struct core_v1_se_linux_options *o, struct bad_values *types, bool *user, bool *role)
{
	struct core_v1_se_linux_options type = {.type = o->type};

	if (bad_selinux_options(&type))
		bad_value(types, o->type);
	*user |= o->user.n > 0;
	*role |= o->role.n > 0;
}

static void selinux(struct findings *f)
{
	const struct core_v1_pod_security_context *psc = f->spec->security_context;
	bool pod = psc && bad_selinux_options(psc->se_linux_options), user = false, role = false;
	struct str w = who(f, bad_selinux);
	struct bad_values types = {0};

	if (!pod && !w.n)
		return;
	if (pod)
		selinux_values(psc->se_linux_options, &types, &user, &role);
	for (size_t i = 0; i < f->n; i++)
		if (bad_selinux(f->spec, &f->c[i]))
			selinux_values(f->c[i].sc->se_linux_options, &types, &user, &role);
	found(f, "seLinuxOptions", "%.*s set forbidden securityContext.seLinuxOptions: %s%.*s%s%s%s%s", STR_ARG(setters(f, pod, w)),
	      types.n > 1 ? "types " : types.n ? "type " : "", STR_ARG(quoted(f->a, &types)), types.n && (user || role) ? "; " : "",
	      user ? "user may not be set" : "", user && role ? "; " : "", role ? "role may not be set" : "");
}

static void baseline(struct findings *f)
{
	const struct core_v1_pod_spec *s = f->spec;
	static const char *const sysctls[] = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
					      "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
					      "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
					      "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", NULL};
	struct str w;
	struct buf b buf_cleanup = {0};

	apparmor(f);
	if (s->host_network || s->host_pid || s->host_ipc)
		found(f, "host namespaces", "%s%s%s", s->host_network ? "hostNetwork=true" : "",
		      s->host_pid ? (s->host_network ? ", hostPID=true" : "hostPID=true") : "",
		      s->host_ipc ? (s->host_network || s->host_pid ? ", hostIPC=true" : "hostIPC=true") : "");
	w = who(f, bad_windows);
	if (w.n)
		found(f, "hostProcess", "%.*s must not set securityContext.windowsOptions.hostProcess=true", STR_ARG(w));
	w = who(f, bad_privileged);
	if (w.n)
		found(f, "privileged", "%.*s must not set securityContext.privileged=true", STR_ARG(w));
	w = who(f, bad_caps_baseline);
	if (w.n)
		found(f, "non-default capabilities", "%.*s must not include disallowed capabilities in securityContext.capabilities.add", STR_ARG(w));
	for (uint32_t i = 0; i < s->volumes.n; i++)
		if (s->volumes.v[i].volume_source.host_path)
			buf_printf(&b, "%s\"%.*s\"", b.n ? ", " : "", STR_ARG(s->volumes.v[i].name));
	if (b.n)
		found(f, "hostPath volumes", "volume%s %.*s", str_contains(buf_view(&b), STR(",")) ? "s" : "", STR_ARG(buf_view(&b)));
	w = who(f, bad_host_ports);
	if (w.n)
		found(f, "hostPort", "%.*s uses hostPort", STR_ARG(w));
	w = who(f, bad_proc_mount);
	if (w.n)
		found(f, "procMount", "%.*s must not set securityContext.procMount to \"Unmasked\"", STR_ARG(w));
	selinux(f);
	w = who(f, bad_seccomp_baseline);
	if (w.n || (s->security_context && s->security_context->seccomp_profile &&
		    str_eqz(s->security_context->seccomp_profile->type, "Unconfined")))
		found(f, "seccompProfile", "%.*s must not set securityContext.seccompProfile.type to \"Unconfined\"", STR_ARG(w.n ? w : STR("pod")));
	for (uint32_t i = 0; s->security_context && i < s->security_context->sysctls.n; i++)
		if (!capability_in(s->security_context->sysctls.v[i].name, sysctls)) {
			found(f, "forbidden sysctls", "%.*s", STR_ARG(s->security_context->sysctls.v[i].name));
			break;
		}
}

static bool volume_allowed(const struct core_v1_volume_source *v)
{
	return v->config_map || v->csi || v->downward_api || v->empty_dir || v->ephemeral || v->persistent_volume_claim || v->projected ||
	       v->secret || v->image;
}

static void restricted(struct findings *f)
{
	const struct core_v1_pod_spec *s = f->spec;
	struct str w;
	struct buf b buf_cleanup = {0};
	bool windows = s->os && str_eqz(s->os->name, "windows");

	baseline(f);
	if (!windows) {
		w = who(f, bad_escalation);
		if (w.n)
			found(f, "allowPrivilegeEscalation != false", "%.*s must set securityContext.allowPrivilegeEscalation=false", STR_ARG(w));
		w = who(f, bad_drop);
		if (w.n)
			found(f, "unrestricted capabilities", "%.*s must set securityContext.capabilities.drop=[\"ALL\"]", STR_ARG(w));
		w = who(f, bad_add_restricted);
		if (w.n)
			found(f, "unrestricted capabilities", "%.*s must not include capabilities other than NET_BIND_SERVICE in "
			      "securityContext.capabilities.add", STR_ARG(w));
	}
	for (uint32_t i = 0; i < s->volumes.n; i++)
		if (!volume_allowed(&s->volumes.v[i].volume_source) && !s->volumes.v[i].volume_source.host_path)
			buf_printf(&b, "%s\"%.*s\"", b.n ? ", " : "", STR_ARG(s->volumes.v[i].name));
	if (b.n)
		found(f, "restricted volume types", "volume %.*s uses restricted volume type", STR_ARG(buf_view(&b)));
	w = who(f, bad_non_root);
	if (w.n)
		found(f, "runAsNonRoot != true", "pod or %.*s must set securityContext.runAsNonRoot=true", STR_ARG(w));
	w = who(f, bad_root_user);
	if (w.n || (s->security_context && s->security_context->run_as_user && *s->security_context->run_as_user == 0))
		found(f, "runAsUser=0", "%.*s must not set runAsUser=0", STR_ARG(w.n ? w : STR("pod")));
	if (!windows) {
		w = who(f, bad_seccomp_restricted);
		if (w.n)
			found(f, "seccompProfile", "pod or %.*s must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
			      STR_ARG(w));
	}
}

static struct str evaluate(struct arena *a, const struct core_v1_pod_spec *s, enum level level)
{
	LIST(struct container) c = {0};
	struct findings f = {.a = a, .spec = s};
	struct str out;

	for (uint32_t i = 0; i < s->containers.n; i++)
		*arena_push(a, &c) = (struct container){s->containers.v[i].name, s->containers.v[i].security_context, s->containers.v[i].ports.v,
							s->containers.v[i].ports.n, false};
	for (uint32_t i = 0; i < s->init_containers.n; i++)
		*arena_push(a, &c) = (struct container){s->init_containers.v[i].name, s->init_containers.v[i].security_context,
							s->init_containers.v[i].ports.v, s->init_containers.v[i].ports.n, false};
	for (uint32_t i = 0; i < s->ephemeral_containers.n; i++) {
		const struct core_v1_ephemeral_container_common *e = &s->ephemeral_containers.v[i].ephemeral_container_common;

		*arena_push(a, &c) = (struct container){e->name, e->security_context, NULL, 0, false};
	}
	f.c = c.v;
	f.n = c.n;
	if (level == BASELINE)
		baseline(&f);
	else if (level == RESTRICTED)
		restricted(&f);
	out = arena_str(a, buf_view(&f.text));
	buf_free(&f.text);
	return out;
}

/* ---- what the labels of a namespace say ---- */

struct pod_policy {
	enum level level;
	struct str version; /* "latest" or "v1.N" */
};
struct pod_policies {
	struct pod_policy enforce, audit, warn;
};
static const char *const level_names[] = {"privileged", "baseline", "restricted"};

static bool parse_level(struct str v, enum level *out)
{
	for (int i = PRIVILEGED; i <= RESTRICTED; i++)
		if (str_eqz(v, level_names[i])) {
			*out = (enum level)i;
			return true;
		}
	return false;
}

static bool is_version(struct str v)
{
	struct str n = str_has_prefix(v, STR("v1.")) ? str_sub(v, 3, v.n) : STR("");

	if (str_eqz(v, "latest"))
		return true;
	for (size_t i = 0; i < n.n; i++)
		if (n.p[i] < '0' || n.p[i] > '9')
			return false;
	return n.n && n.n < 10 && (n.n == 1 || n.p[0] != '0');
}

/* One mode's labels; otherwise: the level when the label's is none. *level_set: it has a level that is one. */
static void mode_policy(const struct str_map *labels, const char *mode, enum level otherwise, struct pod_policy *out, bool *level_set,
			struct field_errors *e)
{
	const struct field_path *p = FIELD_CHILD(FIELD_ROOT("metadata"), "labels");
	struct str key = arena_printf(e->arena, "pod-security.kubernetes.io/%s", mode), version = arena_printf(e->arena, "%.*s-version", STR_ARG(key));
	struct str v = str_map_get(labels, key);

	*level_set = false;
	if (str_map_has(labels, key)) {
		*level_set = parse_level(v, &out->level);
		if (!*level_set) {
			out->level = otherwise;
			field_invalid(e, FIELD_KEY(p, key), v, "must be one of privileged, baseline, restricted");
		}
	}
	if (!str_map_has(labels, version))
		return;
	v = str_map_get(labels, version);
	if (is_version(v))
		out->version = v;
	else
		field_invalid(e, FIELD_KEY(p, version), v, "must be \"latest\" or \"v1.x\"");
}

static void policies_of(const struct str_map *labels, struct pod_policies *out, struct field_errors *e)
{
	bool enforces, audits, warns;

	*out = (struct pod_policies){{PRIVILEGED, STR("latest")}, {PRIVILEGED, STR("latest")}, {PRIVILEGED, STR("latest")}};
	mode_policy(labels, "enforce", RESTRICTED, &out->enforce, &enforces, e);
	mode_policy(labels, "audit", PRIVILEGED, &out->audit, &audits, e);
	mode_policy(labels, "warn", PRIVILEGED, &out->warn, &warns, e);
	/* what is enforced is warned of, unless the labels say something of warnings */
	if (enforces && !str_map_has(labels, STR("pod-security.kubernetes.io/warn")) && out->enforce.level > out->warn.level) {
		out->warn.level = out->enforce.level;
		if (!str_map_has(labels, STR("pod-security.kubernetes.io/warn-version")))
			out->warn.version = out->enforce.version;
	}
}

static bool same_errors(const struct field_errors *x, const struct field_errors *y)
{
	if (x->list.n != y->list.n)
		return false;
	for (uint32_t i = 0; i < x->list.n; i++)
		if (!str_eq(x->list.v[i].field, y->list.v[i].field) || !str_eq(x->list.v[i].body, y->list.v[i].body))
			return false;
	return true;
}

/* Labels of a namespace must be levels and versions; those that were wrong before may stay. */
static struct error *namespace_labels(struct admission *a)
{
	const struct core_v1_namespace *ns = a->obj, *old = a->old;
	struct field_errors now = {.arena = a->rq->a}, was = {.arena = a->rq->a};
	struct pod_policies p;

	if (a->subresource.n)
		return NULL;
	policies_of(API_MAP(&ns->metadata.labels), &p, &now);
	if (old)
		policies_of(API_MAP(&old->metadata.labels), &p, &was);
	if (!now.list.n || (old && same_errors(&now, &was)))
		return NULL;
	return field_errors_status(&now, STR(""), STR("Namespace"), a->name.n ? a->name : ns->metadata.name);
}

static const struct core_v1_pod_spec *spec_of(struct admission *a, bool *template)
{
	*template = true;
	if (a->type == &apps_v1_deployment_type)
		return &((struct apps_v1_deployment *)a->obj)->spec.template.spec;
	if (a->type == &apps_v1_replica_set_type)
		return &((struct apps_v1_replica_set *)a->obj)->spec.template.spec;
	if (a->type == &apps_v1_stateful_set_type)
		return &((struct apps_v1_stateful_set *)a->obj)->spec.template.spec;
	if (a->type == &apps_v1_daemon_set_type)
		return &((struct apps_v1_daemon_set *)a->obj)->spec.template.spec;
	if (a->type == &batch_v1_job_type)
		return &((struct batch_v1_job *)a->obj)->spec.template.spec;
	if (a->type == &batch_v1_cron_job_type)
		return &((struct batch_v1_cron_job *)a->obj)->spec.job_template.spec.template.spec;
	if (a->type == &core_v1_replication_controller_type && ((struct core_v1_replication_controller *)a->obj)->spec.template)
		return &((struct core_v1_replication_controller *)a->obj)->spec.template->spec;
	*template = false;
	if (a->type == &core_v1_pod_type)
		return &((struct core_v1_pod *)a->obj)->spec;
	return NULL;
}

static struct str policy_text(struct arena *a, const struct pod_policy *p)
{
	return arena_printf(a, "%s:%.*s", level_names[p->level], STR_ARG(p->version));
}

/* `PodSecurity "LEVEL:VERSION": what it violates`, or empty. */
static struct str violations(struct arena *a, const struct core_v1_pod_spec *s, const struct pod_policy *p)
{
	struct str why = p->level == PRIVILEGED ? STR_NULL : evaluate(a, s, p->level);

	return why.n ? arena_printf(a, "PodSecurity \"%.*s\": %.*s", STR_ARG(policy_text(a, p)), STR_ARG(why)) : STR_NULL;
}

static struct error *pod_security(struct admission *a)
{
	struct arena *ar = a->rq->a;
	struct field_errors ignored = {.arena = ar};
	struct core_v1_namespace *ns;
	const struct core_v1_pod_spec *s;
	struct pod_policies p;
	bool template;
	struct str why, audited;

	if (admission_is(a, "", "namespaces", "") && a->obj)
		return namespace_labels(a);
	if (!a->obj || !a->ns.n || (a->subresource.n && !str_eqz(a->subresource, "ephemeralcontainers") && !str_eqz(a->subresource, "resize")))
		return NULL;
	s = spec_of(a, &template);
	if (!s)
		return NULL;
	if (!template && a->op == ADMIT_UPDATE && object_field_equal(&core_v1_pod_type, a->obj, a->old, "spec"))
		return NULL;
	ns = registry_peek(a->rq->s, ar, storage_find(a->rq->s, STR(""), STR("namespaces")), STR_NULL, a->ns);
	policies_of(API_MAP(ns ? &ns->metadata.labels : &(struct core_v1_namespace){0}.metadata.labels), &p, &ignored);
	why = template ? STR_NULL : violations(ar, s, &p.enforce);
	if (!template)
		request_annotate(a->rq, STR("pod-security.kubernetes.io/enforce-policy"), policy_text(ar, &p.enforce));
	audited = violations(ar, s, &p.audit);
	if (audited.n)
		request_annotate(a->rq, STR("pod-security.kubernetes.io/audit-violations"),
				 arena_printf(ar, "would violate %.*s", STR_ARG(audited)));
	if (why.n)
		return admission_forbidden(a, "violates %.*s", STR_ARG(why));
	why = violations(ar, s, &p.warn);
	if (why.n)
		request_warn(a->rq, "would violate %.*s", STR_ARG(why));
	return NULL;
}

const struct admission_plugin admit_pod_security = {.name = "PodSecurity", .ops = ADMIT_CREATE | ADMIT_UPDATE, .validate = pod_security};

/* ---- certificates ---- */

static bool may_use_signer(struct admission *a, struct str signer, const char *verb)
{
	struct authz_attrs at = {.user = a->rq->user, .verb = str_from(verb), .resource_request = true, .group = STR("certificates.k8s.io"),
				 .version = STR("*"), .resource = STR("signers"), .name = signer};
	ptrdiff_t slash = str_index(signer, '/');

	if (authorize(a->rq->s, a->rq->a, &at, NULL) == AUTHZ_ALLOW)
		return true;
	at.name = arena_printf(a->rq->a, "%.*s/*", (int)(slash < 0 ? 0 : slash), signer.p);
	return authorize(a->rq->s, a->rq->a, &at, NULL) == AUTHZ_ALLOW;
}

static struct error *approval(struct admission *a)
{
	const struct certificates_v1_certificate_signing_request *c = a->old;

	if (!admission_is(a, "certificates.k8s.io", "certificatesigningrequests", "approval") || a->rq->internal)
		return NULL;
	if (may_use_signer(a, c->spec.signer_name, "approve"))
		return NULL;
	return admission_forbidden(a, "user not permitted to approve requests with signerName \"%.*s\"", STR_ARG(c->spec.signer_name));
}

const struct admission_plugin admit_certificate_approval = {.name = "CertificateApproval", .ops = ADMIT_UPDATE, .validate = approval};

static struct error *signing(struct admission *a)
{
	const struct certificates_v1_certificate_signing_request *c = a->obj, *o = a->old;

	if (!admission_is(a, "certificates.k8s.io", "certificatesigningrequests", "status") || a->rq->internal ||
	    str_eq(c->status.certificate, o->status.certificate))
		return NULL;
	if (may_use_signer(a, o->spec.signer_name, "sign"))
		return NULL;
	return admission_forbidden(a, "user not permitted to sign requests with signerName \"%.*s\"", STR_ARG(o->spec.signer_name));
}

const struct admission_plugin admit_certificate_signing = {.name = "CertificateSigning", .ops = ADMIT_UPDATE, .validate = signing};
