/* From a CRI ContainerConfig and an image's config to an OCI runtime config.json. */
#include "runtime/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PASSWD_MAX (1u << 20)
#define MAX_DEVICES 4096 /* of the host, for a privileged container */
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const char *const rt_default_capabilities[] = {
	"CAP_AUDIT_WRITE", "CAP_CHOWN",   "CAP_DAC_OVERRIDE", "CAP_FOWNER",  "CAP_FSETID", "CAP_KILL",	  "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP",	   "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT", NULL,
};
static const char *const all_capabilities[] = {
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE", NULL,
};

int rt_signal_number(struct str name)
{
	static const struct {
		const char *name;
		int n;
	} known[] = {
		{"HUP", SIGHUP},   {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"ILL", SIGILL},     {"TRAP", SIGTRAP}, {"ABRT", SIGABRT},
		{"IOT", SIGIOT},   {"BUS", SIGBUS},   {"FPE", SIGFPE},	 {"KILL", SIGKILL},   {"USR1", SIGUSR1}, {"SEGV", SIGSEGV},
		{"USR2", SIGUSR2}, {"PIPE", SIGPIPE}, {"ALRM", SIGALRM}, {"TERM", SIGTERM},   {"STKFLT", 16},	 {"CHLD", SIGCHLD},
		{"CLD", SIGCHLD},  {"CONT", SIGCONT}, {"STOP", SIGSTOP}, {"TSTP", SIGTSTP},   {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU},
		{"URG", SIGURG},   {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ}, {"VTALRM", SIGVTALRM}, {"PROF", SIGPROF}, {"WINCH", SIGWINCH},
		{"IO", SIGIO},	   {"POLL", SIGIO},   {"PWR", SIGPWR},	 {"SYS", SIGSYS},
	};
	int64_t n;
	if (str_to_i64(name, &n))
		return n > 0 && n <= SIGRTMAX ? (int)n : 0;
	if (str_eq_nocase(str_sub(name, 0, 3), STR("SIG")))
		name = str_sub(name, 3, name.n);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (str_eq_nocase(name, str_from(known[i].name)))
			return known[i].n;
	/* The kernel's numbers: 34 is what libc and Go call SIGRTMIN, 64 SIGRTMAX. */
	int base = str_eq_nocase(str_sub(name, 0, 5), STR("RTMIN")) ? 34 : str_eq_nocase(str_sub(name, 0, 5), STR("RTMAX")) ? 64 : 0;
	if (!base)
		return 0;
	if (name.n == 5)
		return base;
	char sign = name.p[5];
	if ((sign != '+' && sign != '-') || !str_to_i64(str_sub(name, 6, name.n), &n) || n < 0 || n > 30)
		return 0;
	base += sign == '+' ? (int)n : -(int)n;
	return base >= 34 && base <= 64 ? base : 0;
}

struct str rt_cgroup_path(struct rt *rt, struct arena *a, const struct rt_sandbox *s, const char *id)
{
	struct str parent = rt_sandbox_linux(s)->cgroup_parent;
	while (parent.n && parent.p[parent.n - 1] == '/')
		parent.n--;
	if (!parent.n)
		parent = str_from(rt->o.cgroup_root);
	return arena_printf(a, "%s%.*s/%s", parent.n && parent.p[0] == '/' ? "" : "/", STR_ARG(parent), id);
}

/* ---- users ---- */

static struct str read_in_root(struct arena *a, const char *rootfs, const char *path)
{
	fd_cleanup int root = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	fd_cleanup int fd = root < 0 ? -1 : (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	struct stat st;
	buf_cleanup struct buf b = {0};
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return STR_NULL;
	char self[64];
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	struct error *e = sys_read_file(AT_FDCWD, self, PASSWD_MAX, &b);
	log_and_free(e, "read the image's %s", path);
	return arena_str(a, buf_view(&b));
}

struct ident {
	int64_t uid, gid;
	struct str name;
	bool found;
};

/* name:x:uid:gid:... by name or number */
static struct ident passwd_find(struct str text, struct str name, int64_t uid)
{
	while (text.n) {
		struct str line = str_cut(&text, '\n');
		struct str n = str_cut(&line, ':');
		struct ident id = {.name = n, .found = true};
		str_cut(&line, ':');
		if (!str_to_i64(str_cut(&line, ':'), &id.uid) || !str_to_i64(str_cut(&line, ':'), &id.gid))
			continue;
		if (name.n ? str_eq(n, name) : id.uid == uid)
			return id;
	}
	return (struct ident){0};
}

static bool group_find(struct str text, struct str name, int64_t *gid)
{
	while (text.n) {
		struct str line = str_cut(&text, '\n');
		struct str n = str_cut(&line, ':');
		str_cut(&line, ':');
		if (str_eq(n, name) && str_to_i64(str_cut(&line, ':'), gid))
			return true;
	}
	return false;
}

static void add_gid(struct arena *a, struct oci_v1_user *u, int64_t gid)
{
	if (gid < 0 || gid > UINT32_MAX - 1)
		return;
	for (uint32_t i = 0; i < u->additional_gids.n; i++)
		if (u->additional_gids.v[i] == (uint32_t)gid)
			return;
	*arena_push(a, &u->additional_gids) = (uint32_t)gid;
}

static struct error *resolve_user(struct arena *a, const struct rt_spec_in *in, const struct cri_v1_linux_container_security_context *sc,
				  struct oci_v1_user *out)
{
	struct str passwd = read_in_root(a, in->rootfs, "etc/passwd");
	struct str group = read_in_root(a, in->rootfs, "etc/group");
	struct str user = STR_NULL, grp = STR_NULL;
	struct ident id = {0};
	int64_t n;
	if (sc->run_as_user) {
		id = passwd_find(passwd, STR_NULL, sc->run_as_user->value);
		id.uid = sc->run_as_user->value;
	} else {
		user = sc->run_as_username.n ? sc->run_as_username : in->image->config ? in->image->config->user : STR_NULL;
		grp = user;
		user = str_cut(&grp, ':');
		if (!user.n) {
			id = passwd_find(passwd, STR_NULL, 0);
			id.uid = 0;
		} else if (str_to_i64(user, &n)) {
			id = passwd_find(passwd, STR_NULL, n);
			id.uid = n;
		} else {
			id = passwd_find(passwd, user, -1);
			if (!id.found)
				return error_status(400, "Invalid", "unable to find user %.*s: no matching entries in passwd file", STR_ARG(user));
		}
	}
	if (sc->run_as_group) {
		id.gid = sc->run_as_group->value;
	} else if (grp.n) {
		if (!str_to_i64(grp, &id.gid) && !group_find(group, grp, &id.gid))
			return error_status(400, "Invalid", "unable to find group %.*s: no matching entries in group file", STR_ARG(grp));
	}
	if (id.uid < 0 || id.uid >= UINT32_MAX || id.gid < 0 || id.gid >= UINT32_MAX)
		return error_status(400, "Invalid", "user %lld or group %lld is out of range", (long long)id.uid, (long long)id.gid);
	out->uid = (uint32_t)id.uid;
	out->gid = (uint32_t)id.gid;
	add_gid(a, out, id.gid);
	if (sc->supplemental_groups_policy != CRI_SUPPLEMENTAL_GROUPS_STRICT && id.found)
		for (struct str text = group; text.n;) {
			struct str line = str_cut(&text, '\n');
			str_cut(&line, ':');
			str_cut(&line, ':');
			struct str gid = str_cut(&line, ':');
			if (!str_to_i64(gid, &n))
				continue;
			while (line.n)
				if (str_eq(str_trim(str_cut(&line, ',')), id.name))
					add_gid(a, out, n);
		}
	for (uint32_t i = 0; i < sc->supplemental_groups.n; i++)
		add_gid(a, out, sc->supplemental_groups.v[i]);
	return NULL;
}

/* ---- process ---- */

static void set_env(struct arena *a, struct oci_v1_process *p, struct str key, struct str whole)
{
	for (uint32_t i = 0; i < p->env.n; i++)
		if (str_has_prefix(p->env.v[i], key) && p->env.v[i].n > key.n && p->env.v[i].p[key.n] == '=') {
			p->env.v[i] = whole;
			return;
		}
	*arena_push(a, &p->env) = whole;
}

static bool has_env(const struct oci_v1_process *p, struct str key)
{
	for (uint32_t i = 0; i < p->env.n; i++)
		if (str_has_prefix(p->env.v[i], key) && p->env.v[i].n > key.n && p->env.v[i].p[key.n] == '=')
			return true;
	return false;
}

static bool all_caps_word(struct str s)
{
	return str_eq_nocase(s, STR("ALL")) || str_eq_nocase(s, STR("CAP_ALL"));
}

static struct str cap_name(struct arena *a, struct str s)
{
	bool prefixed = str_eq_nocase(str_sub(s, 0, 4), STR("CAP_"));
	char *z = arena_strz(a, arena_printf(a, "%s%.*s", prefixed ? "" : "CAP_", STR_ARG(s)));
	for (char *c = z; *c; c++)
		if (*c >= 'a' && *c <= 'z')
			*c -= 'a' - 'A';
	return str_from(z);
}

static bool cap_known(struct str s)
{
	for (size_t i = 0; all_capabilities[i]; i++)
		if (str_eqz(s, all_capabilities[i]))
			return true;
	return false;
}

static void cap_add(struct arena *a, struct strings *l, struct str s)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (str_eq(l->v[i], s))
			return;
	*arena_push(a, l) = s;
}

static void caps_fill(struct arena *a, struct strings *l, const char *const *names)
{
	l->n = 0;
	for (size_t i = 0; names[i]; i++)
		*arena_push(a, l) = str_from(names[i]);
}

/* What the runtime itself may give: in a container or a restricted machine it doesn't have all. */
static void caps_trim(struct strings *l)
{
	static uint64_t own;
	if (!own) {
		buf_cleanup struct buf b = {0};
		struct error *e = sys_read_file(AT_FDCWD, "/proc/self/status", 65536, &b);
		const char *at = e ? NULL : strstr(buf_z(&b), "CapBnd:");
		own = at ? strtoull(at + 7, NULL, 16) : UINT64_MAX;
		error_free(e);
	}
	uint32_t kept = 0;
	for (uint32_t i = 0; i < l->n; i++)
		for (int k = 0; all_capabilities[k]; k++) /* in the kernel's order: the index is the number */
			if ((own >> k & 1) && str_eqz(l->v[i], all_capabilities[k]))
				l->v[kept++] = l->v[i];
	l->n = kept;
}

static struct error *capabilities(struct arena *a, const struct cri_v1_linux_container_security_context *sc, struct strings *caps,
				  struct strings *ambient)
{
	const struct cri_v1_capability *c = sc->capabilities;
	caps_fill(a, caps, sc->privileged ? all_capabilities : rt_default_capabilities);
	for (uint32_t i = 0; c && !sc->privileged && i < c->add_capabilities.n; i++)
		if (all_caps_word(c->add_capabilities.v[i]))
			caps_fill(a, caps, all_capabilities);
	for (uint32_t i = 0; c && !sc->privileged && i < c->drop_capabilities.n; i++)
		if (all_caps_word(c->drop_capabilities.v[i]))
			caps->n = 0;
	for (uint32_t i = 0; c && i < c->add_capabilities.n; i++) {
		struct str s = cap_name(a, c->add_capabilities.v[i]);
		if (all_caps_word(c->add_capabilities.v[i]))
			continue;
		if (!cap_known(s))
			return error_status(400, "Invalid", "unknown capability \"%.*s\" to add", STR_ARG(s));
		cap_add(a, caps, s);
	}
	for (uint32_t i = 0; c && i < c->add_ambient_capabilities.n; i++) {
		struct str s = cap_name(a, c->add_ambient_capabilities.v[i]);
		if (!cap_known(s))
			return error_status(400, "Invalid", "unknown capability \"%.*s\" to add", STR_ARG(s));
		cap_add(a, caps, s);
		cap_add(a, ambient, s);
	}
	for (uint32_t i = 0; c && i < c->drop_capabilities.n; i++) {
		struct str s = cap_name(a, c->drop_capabilities.v[i]);
		uint32_t kept = 0;
		for (uint32_t k = 0; k < caps->n; k++)
			if (!str_eq(caps->v[k], s))
				caps->v[kept++] = caps->v[k];
		caps->n = kept;
	}
	caps_trim(caps);
	caps_trim(ambient);
	return NULL;
}

/*
 * Only CAP_SYS_RESOURCE may lower the score below one's own (inside another container it is often missing):
 * without it a container gets what can be had instead of none at all.
 */
static int64_t lowest_oom_score_adj(int64_t want)
{
	long long own = 0;

	if (want >= 0 || prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE, 0, 0, 0) == 1)
		return want;
	FILE *f = fopen("/proc/self/oom_score_adj", "re");

	if (f) {
		if (fscanf(f, "%lld", &own) != 1)
			own = 0;
		fclose(f);
	}
	return want < own ? own : want;
}

static struct error *process(struct arena *a, const struct rt_spec_in *in, const struct cri_v1_linux_container_security_context *sc,
			     struct oci_v1_process *p)
{
	const struct cri_v1_container_config *c = in->container->rec.config;
	static const struct oci_v1_image_config empty;
	const struct oci_v1_image_config *im = in->image->config ? in->image->config : &empty;
	p->terminal = c->tty;
	if (c->command.n) {
		for (uint32_t i = 0; i < c->command.n; i++)
			*arena_push(a, &p->args) = c->command.v[i];
	} else {
		for (uint32_t i = 0; i < im->entrypoint.n; i++)
			*arena_push(a, &p->args) = im->entrypoint.v[i];
		for (uint32_t i = 0; !c->args.n && i < im->cmd.n; i++)
			*arena_push(a, &p->args) = im->cmd.v[i];
	}
	for (uint32_t i = 0; i < c->args.n; i++)
		*arena_push(a, &p->args) = c->args.v[i];
	if (!p->args.n)
		return error_status(400, "Invalid", "no command specified: neither the container nor its image names one");
	p->cwd = c->working_dir.n ? c->working_dir : im->working_dir.n ? im->working_dir : STR("/");
	if (p->cwd.p[0] != '/')
		p->cwd = arena_printf(a, "/%.*s", STR_ARG(p->cwd));
	for (uint32_t i = 0; i < im->env.n; i++) {
		struct str rest = im->env.v[i];
		set_env(a, p, str_cut(&rest, '='), im->env.v[i]);
	}
	if (c->tty && !has_env(p, STR("TERM")))
		set_env(a, p, STR("TERM"), STR("TERM=xterm"));
	for (uint32_t i = 0; i < c->envs.n; i++) {
		const struct cri_v1_key_value *kv = &c->envs.v[i];
		if (memchr(kv->value.n ? kv->value.p : "", 0, kv->value.n))
			return error_status(400, "Invalid", "the value of environment variable %.*s holds a NUL byte", STR_ARG(kv->key));
		set_env(a, p, kv->key, arena_printf(a, "%.*s=%.*s", STR_ARG(kv->key), STR_ARG(kv->value)));
	}
	if (!has_env(p, STR("PATH")))
		set_env(a, p, STR("PATH"), STR(DEFAULT_PATH));
	if (!has_env(p, STR("HOSTNAME")) && in->sandbox->rec.config->hostname.n)
		set_env(a, p, STR("HOSTNAME"), arena_printf(a, "HOSTNAME=%.*s", STR_ARG(in->sandbox->rec.config->hostname)));
	TRY(resolve_user(a, in, sc, &p->user));
	struct strings caps = {0}, ambient = {0};
	TRY(capabilities(a, sc, &caps, &ambient));
	p->capabilities = arena_new(a, struct oci_v1_capabilities);
	memcpy(&p->capabilities->bounding, &caps, sizeof(caps));
	memcpy(&p->capabilities->effective, &caps, sizeof(caps));
	memcpy(&p->capabilities->permitted, &caps, sizeof(caps));
	memcpy(&p->capabilities->inheritable, &ambient, sizeof(ambient));
	memcpy(&p->capabilities->ambient, &ambient, sizeof(ambient));
	p->no_new_privileges = sc->no_new_privs && !sc->privileged;
	if (c->linux_ && c->linux_->resources) {
		p->oom_score_adj = arena_new(a, int64_t);
		*p->oom_score_adj = lowest_oom_score_adj(c->linux_->resources->oom_score_adj);
	}
	if (in->rt->apparmor && !sc->privileged) {
		struct str profile = sc->apparmor && sc->apparmor->profile_type == CRI_PROFILE_LOCALHOST ? sc->apparmor->localhost_ref
												    : STR_NULL;
		if (str_has_prefix(profile, STR("localhost/")))
			profile = str_sub(profile, 10, profile.n);
		p->apparmor_profile = profile;
	} else if (sc->apparmor && sc->apparmor->profile_type == CRI_PROFILE_LOCALHOST && !in->rt->apparmor) {
		return error_status(400, "Invalid", "AppArmor is not enabled on this node");
	}
	return NULL;
}

/* ---- mounts ---- */

static struct oci_v1_mount *add_mount(struct arena *a, struct oci_v1_spec *s, struct str dest, const char *type, const char *source,
				      const char *options)
{
	struct oci_v1_mount *m = arena_push(a, &s->mounts);
	m->destination = dest;
	m->type = str_from(type);
	m->source = arena_str(a, str_from(source));
	for (struct str rest = str_from(options); rest.n;)
		*arena_push(a, &m->options) = str_cut(&rest, ',');
	return m;
}

static struct str clean_path(struct arena *a, struct str p)
{
	buf_cleanup struct buf b = {0};
	while (p.n) {
		struct str part = str_cut(&p, '/');
		if (part.n && !str_eq(part, STR(".")))
			buf_printf(&b, "/%.*s", STR_ARG(part));
	}
	return b.n ? arena_str(a, buf_view(&b)) : STR("/");
}

static bool cri_mounts_at(struct arena *a, const struct cri_v1_container_config *c, const char *dest)
{
	for (uint32_t i = 0; i < c->mounts.n; i++)
		if (str_eqz(clean_path(a, c->mounts.v[i].container_path), dest))
			return true;
	return false;
}

static int mount_order(const void *x, const void *y)
{
	const struct oci_v1_mount *a = x, *b = y;
	int da = 0, db = 0;
	for (size_t i = 1; i < a->destination.n; i++)
		da += a->destination.p[i] == '/';
	for (size_t i = 1; i < b->destination.n; i++)
		db += b->destination.p[i] == '/';
	return da != db ? da - db : str_cmp(a->destination, b->destination);
}

static struct error *cri_mounts(struct arena *a, const struct rt_spec_in *in, struct oci_v1_spec *s)
{
	const struct cri_v1_container_config *c = in->container->rec.config;
	for (uint32_t i = 0; i < c->mounts.n; i++) {
		const struct cri_v1_mount *m = &c->mounts.v[i];
		struct str dest = clean_path(a, m->container_path);
		struct stat st;
		if (dest.n == 1 || !m->container_path.n)
			return error_status(400, "Invalid", "a mount needs a container path other than /");
		if (m->uid_mappings.n || m->gid_mappings.n)
			return error_status(501, "NotImplemented", "id-mapped mounts are not supported by this runtime");
		if (in->image_paths && in->image_paths[i]) {
			add_mount(a, s, dest, "bind", in->image_paths[i], "rbind,rprivate,ro,nosuid,nodev");
			continue;
		}
		char *host = arena_strz(a, m->host_path);
		if (!*host)
			return error_status(400, "Invalid", "the mount at %.*s has no host path", STR_ARG(dest));
		if (stat(host, &st) < 0) {
			if (errno != ENOENT)
				return error_sys(errno, "mount of %s", host);
			TRY(sys_mkdirs(host, 0755));
		}
		const char *prop = "rprivate";
		if (m->propagation == CRI_PROPAGATION_HOST_TO_CONTAINER) {
			prop = "rslave";
			if (!s->linux_->rootfs_propagation.n)
				s->linux_->rootfs_propagation = STR("rslave");
		} else if (m->propagation == CRI_PROPAGATION_BIDIRECTIONAL) {
			prop = "rshared";
			s->linux_->rootfs_propagation = STR("rshared");
		}
		struct str opts = arena_printf(a, "rbind,%s,%s", prop, m->readonly ? (m->recursive_read_only ? "rro" : "ro") : "rw");
		add_mount(a, s, dest, "bind", host, arena_strz(a, opts));
	}
	return NULL;
}

static struct error *mounts(struct arena *a, const struct rt_spec_in *in, bool privileged, struct oci_v1_spec *s)
{
	const struct cri_v1_container_config *c = in->container->rec.config;
	const struct cri_v1_namespace_option *ns = rt_sandbox_ns(in->sandbox);
	str_cleanup char *dir = rt_sandbox_dir(in->rt, in->sandbox->id);
	struct {
		const char *dest, *type, *source, *options;
	} standard[] = {
		{"/proc", "proc", "proc", "nosuid,noexec,nodev"},
		{"/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"},
		{"/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"},
		{"/sys", "sysfs", "sysfs", privileged ? "nosuid,noexec,nodev,rw" : "nosuid,noexec,nodev,ro"},
		{"/sys/fs/cgroup", "cgroup", "cgroup", privileged ? "nosuid,noexec,nodev,relatime,rw" : "nosuid,noexec,nodev,relatime,ro"},
	};
	for (size_t i = 0; i < sizeof(standard) / sizeof(standard[0]); i++)
		if (!cri_mounts_at(a, c, standard[i].dest))
			add_mount(a, s, str_from(standard[i].dest), standard[i].type, standard[i].source, standard[i].options);
	str_cleanup char *resolv = sys_path(dir, "resolv.conf");
	str_cleanup char *hostname = sys_path(dir, "hostname");
	str_cleanup char *shm = sys_path(dir, "shm");
	const char *ro = c->linux_ && c->linux_->security_context && c->linux_->security_context->readonly_rootfs ? "rbind,rprivate,ro"
														    : "rbind,rprivate,rw";
	if (!cri_mounts_at(a, c, "/etc/resolv.conf"))
		add_mount(a, s, STR("/etc/resolv.conf"), "bind", resolv, ro);
	if (!cri_mounts_at(a, c, "/etc/hostname"))
		add_mount(a, s, STR("/etc/hostname"), "bind", hostname, ro);
	if (!cri_mounts_at(a, c, "/dev/shm"))
		add_mount(a, s, STR("/dev/shm"), "bind", ns->ipc == CRI_NAMESPACE_NODE ? "/dev/shm" : shm, "rbind,rprivate,rw");
	TRY(cri_mounts(a, in, s));
	qsort(s->mounts.v, s->mounts.n, sizeof(*s->mounts.v), mount_order);
	return NULL;
}

/* ---- devices ---- */

static void device_rule(struct arena *a, struct oci_v1_resources *r, bool allow, const char *type, int64_t major, int64_t minor,
			struct str access)
{
	struct oci_v1_device_rule *d = arena_push(a, &r->devices);
	d->allow = allow;
	d->access = access;
	if (type) {
		d->type = str_from(type);
		d->major = arena_new(a, int64_t);
		*d->major = major;
		d->minor = arena_new(a, int64_t);
		*d->minor = minor;
	}
}

static bool add_device(struct arena *a, struct oci_v1_spec *s, struct str path, const char *host)
{
	struct stat st;
	if (stat(host, &st) < 0 || (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)))
		return false;
	struct oci_v1_device *d = arena_push(a, &s->linux_->devices);
	d->path = path;
	d->type = S_ISCHR(st.st_mode) ? STR("c") : STR("b");
	d->major = major(st.st_rdev);
	d->minor = minor(st.st_rdev);
	d->file_mode = arena_new(a, uint32_t);
	d->uid = arena_new(a, uint32_t);
	d->gid = arena_new(a, uint32_t);
	*d->file_mode = st.st_mode & 07777;
	*d->uid = st.st_uid;
	*d->gid = st.st_gid;
	return true;
}

static void host_devices(struct arena *a, struct oci_v1_spec *s, const char *dir, int depth)
{
	DIR *d = depth < 8 ? opendir(dir) : NULL;
	struct dirent *de;
	while (d && (de = readdir(d)) && s->linux_->devices.n < MAX_DEVICES) {
		static const char *const skip[] = {"pts", "shm", "fd", "mqueue", "console", ".", "..", "ptmx"};
		bool skipped = false;
		for (size_t i = 0; i < sizeof(skip) / sizeof(skip[0]); i++)
			skipped |= !strcmp(de->d_name, skip[i]) && (depth == 0 || i == 5 || i == 6);
		if (skipped || de->d_type == DT_LNK)
			continue;
		char *p = arena_strz(a, arena_printf(a, "%s/%s", dir, de->d_name));
		if (de->d_type == DT_DIR)
			host_devices(a, s, p, depth + 1);
		else
			add_device(a, s, str_from(p), p);
	}
	if (d)
		closedir(d);
}

static struct error *devices(struct arena *a, const struct rt_spec_in *in, bool privileged, struct oci_v1_spec *s)
{
	const struct cri_v1_container_config *c = in->container->rec.config;
	if (privileged) {
		host_devices(a, s, "/dev", 0);
		device_rule(a, s->linux_->resources, true, NULL, 0, 0, STR("rwm"));
		return NULL;
	}
	device_rule(a, s->linux_->resources, false, NULL, 0, 0, STR("rwm"));
	if (c->cdi_devices.n)
		return error_status(501, "NotImplemented", "CDI devices are not supported by this runtime");
	for (uint32_t i = 0; i < c->devices.n; i++) {
		const struct cri_v1_device *d = &c->devices.v[i];
		char *host = arena_strz(a, d->host_path);
		struct stat st;
		if (!add_device(a, s, d->container_path, host) || stat(host, &st) < 0)
			return error_status(400, "Invalid", "%s is not a device", host);
		device_rule(a, s->linux_->resources, true, S_ISCHR(st.st_mode) ? "c" : "b", major(st.st_rdev), minor(st.st_rdev),
			    d->permissions.n ? d->permissions : STR("rwm"));
	}
	return NULL;
}

/* ---- the rest ---- */

static int64_t *box(struct arena *a, int64_t v)
{
	int64_t *p = arena_new(a, int64_t);
	*p = v;
	return p;
}

void rt_resources(struct rt *rt, struct arena *a, const struct cri_v1_linux_container_resources *r, struct oci_v1_resources *out)
{
	if (!r)
		return;
	if (r->cpu_shares || r->cpu_quota || r->cpu_period || r->cpuset_cpus.n || r->cpuset_mems.n) {
		out->cpu = arena_new(a, struct oci_v1_cpu);
		if (r->cpu_shares)
			out->cpu->shares = (uint64_t *)box(a, r->cpu_shares);
		if (r->cpu_quota)
			out->cpu->quota = box(a, r->cpu_quota);
		if (r->cpu_period)
			out->cpu->period = (uint64_t *)box(a, r->cpu_period);
		out->cpu->cpus = r->cpuset_cpus;
		out->cpu->mems = r->cpuset_mems;
	}
	if (r->memory_limit_in_bytes || r->memory_swap_limit_in_bytes) {
		out->memory = arena_new(a, struct oci_v1_memory);
		if (r->memory_limit_in_bytes)
			out->memory->limit = box(a, r->memory_limit_in_bytes);
		/* Kernels without swap accounting refuse the value. */
		if (r->memory_swap_limit_in_bytes && (access("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", F_OK) == 0 ||
						      access("/sys/fs/cgroup/memory", F_OK) < 0))
			out->memory->swap = box(a, r->memory_swap_limit_in_bytes);
	}
	/* Where no controller of huge pages is there is nothing to limit: crun would refuse. */
	for (uint32_t i = 0; rt->hugetlb && i < r->hugepage_limits.n; i++) {
		struct oci_v1_hugepage_limit *h = arena_push(a, &out->hugepage_limits);
		h->page_size = r->hugepage_limits.v[i].page_size;
		h->limit = r->hugepage_limits.v[i].limit;
	}
	memcpy(&out->unified, &r->unified, sizeof(out->unified));
}

static void add_ns(struct arena *a, struct oci_v1_spec *s, const char *type, struct str path)
{
	struct oci_v1_namespace *n = arena_push(a, &s->linux_->namespaces);
	n->type = str_from(type);
	n->path = path;
}

static struct error *namespaces(struct arena *a, const struct rt_spec_in *in, const struct cri_v1_linux_container_security_context *sc,
				struct oci_v1_spec *s)
{
	static const struct cri_v1_namespace_option none;
	const struct cri_v1_namespace_option *pod = rt_sandbox_ns(in->sandbox);
	const struct cri_v1_namespace_option *own = sc->namespace_options ? sc->namespace_options : &none;
	str_cleanup char *dir = rt_sandbox_dir(in->rt, in->sandbox->id);
	add_ns(a, s, "mount", STR_NULL);
	if (pod->network != CRI_NAMESPACE_NODE) {
		add_ns(a, s, "network", arena_printf(a, "%s/net", dir));
		add_ns(a, s, "uts", arena_printf(a, "%s/uts", dir));
	}
	if (pod->ipc != CRI_NAMESPACE_NODE)
		add_ns(a, s, "ipc", arena_printf(a, "%s/ipc", dir));
	switch (own->pid) {
	case CRI_NAMESPACE_NODE:
		break;
	case CRI_NAMESPACE_TARGET: {
		container_cleanup struct rt_container *t = rt_container_get(in->rt, own->target_id);
		if (!t || t->sandbox != in->sandbox || t->rec.state != CRI_CONTAINER_RUNNING)
			return error_status(400, "Invalid", "target container %.*s is not running in this pod", STR_ARG(own->target_id));
		add_ns(a, s, "pid", arena_printf(a, "/proc/%d/ns/pid", t->rec.pid));
		break;
	}
	case CRI_NAMESPACE_POD:
		if (in->sandbox->rec.pause_pid) {
			add_ns(a, s, "pid", arena_printf(a, "/proc/%d/ns/pid", in->sandbox->rec.pause_pid));
			break;
		}
		__attribute__((fallthrough));
	default:
		add_ns(a, s, "pid", STR_NULL);
	}
	if (in->rt->cgroups == RT_CGROUP_V2 && !sc->privileged)
		add_ns(a, s, "cgroup", STR_NULL);
	return NULL;
}

static struct error *seccomp(struct arena *a, const struct rt_spec_in *in, const struct cri_v1_linux_container_security_context *sc,
			     struct oci_v1_spec *s)
{
	if (sc->privileged || !sc->seccomp || sc->seccomp->profile_type == CRI_PROFILE_UNCONFINED)
		return NULL;
	if (!in->rt->seccomp)
		return error_status(400, "Invalid", "seccomp is not supported by this kernel");
	if (sc->seccomp->profile_type == CRI_PROFILE_RUNTIME_DEFAULT) {
		struct strings caps;
		memcpy(&caps, &s->process->capabilities->bounding, sizeof(caps));
		s->linux_->seccomp = rt_seccomp_default(a, &caps);
		return NULL;
	}
	struct str path = sc->seccomp->localhost_ref;
	if (str_has_prefix(path, STR("localhost/")))
		path = str_sub(path, 10, path.n);
	buf_cleanup struct buf b = {0};
	char *z = arena_strz(a, path);
	TRY(error_wrap(sys_read_file(AT_FDCWD, z, 1 << 20, &b), "seccomp profile"));
	s->linux_->seccomp = arena_str(a, str_trim(buf_view(&b)));
	return NULL;
}

struct error *rt_spec(struct arena *a, const struct rt_spec_in *in, struct oci_v1_spec *out)
{
	static const struct cri_v1_linux_container_security_context no_sc;
	const struct cri_v1_container_config *c = in->container->rec.config;
	const struct cri_v1_linux_container_security_context *sc =
		c->linux_ && c->linux_->security_context ? c->linux_->security_context : &no_sc;
	*out = (struct oci_v1_spec){.oci_version = STR("1.0.2")};
	out->process = arena_new(a, struct oci_v1_process);
	out->root = arena_new(a, struct oci_v1_root);
	out->linux_ = arena_new(a, struct oci_v1_linux_);
	out->linux_->resources = arena_new(a, struct oci_v1_resources);
	out->root->path = arena_str(a, str_from(in->rootfs));
	out->root->readonly = sc->readonly_rootfs;
	TRY(process(a, in, sc, out->process));
	TRY(mounts(a, in, sc->privileged, out));
	TRY(namespaces(a, in, sc, out));
	TRY(devices(a, in, sc->privileged, out));
	rt_resources(in->rt, a, c->linux_ ? c->linux_->resources : NULL, out->linux_->resources);
	out->linux_->cgroups_path = rt_cgroup_path(in->rt, a, in->sandbox, in->container->id);
	if (!sc->privileged) {
		memcpy(&out->linux_->masked_paths, &sc->masked_paths, sizeof(out->linux_->masked_paths));
		memcpy(&out->linux_->readonly_paths, &sc->readonly_paths, sizeof(out->linux_->readonly_paths));
	}
	TRY(seccomp(a, in, sc, out));
	return NULL;
}
