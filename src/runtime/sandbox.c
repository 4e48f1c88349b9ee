/* Pod sandboxes: namespaces, addresses and files that a pod's containers share. Usually no process. */
#include "runtime/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHM_SIZE "65536k"

const struct cri_v1_linux_pod_sandbox_config *rt_sandbox_linux(const struct rt_sandbox *s)
{
	static const struct cri_v1_linux_pod_sandbox_config none;
	return s->rec.config && s->rec.config->linux_ ? s->rec.config->linux_ : &none;
}

const struct cri_v1_namespace_option *rt_sandbox_ns(const struct rt_sandbox *s)
{
	static const struct cri_v1_namespace_option none;
	const struct cri_v1_linux_sandbox_security_context *sc = rt_sandbox_linux(s)->security_context;
	return sc && sc->namespace_options ? sc->namespace_options : &none;
}

static struct error *validate(struct rt *rt, const struct cri_v1_run_pod_sandbox_request *req)
{
	const struct cri_v1_pod_sandbox_config *c = req->config;
	if (!c || !c->metadata || !c->metadata->name.n || !c->metadata->uid.n)
		return error_status(400, "Invalid", "the sandbox config has no metadata with name and uid");
	if (req->runtime_handler.n && !str_eqz(req->runtime_handler, "crun") && !str_eqz(req->runtime_handler, "runc"))
		return error_status(400, "Invalid", "no runtime for \"%.*s\" is configured; there is \"crun\" (and \"\")",
				    STR_ARG(req->runtime_handler));
	const struct cri_v1_linux_pod_sandbox_config *l = c->linux_;
	const struct cri_v1_namespace_option *ns = l && l->security_context ? l->security_context->namespace_options : NULL;
	if (ns && ns->userns_options && ns->userns_options->mode == CRI_NAMESPACE_POD)
		return error_status(501, "NotImplemented", "user namespaces (hostUsers: false) are not supported by this runtime");
	for (struct rt_sandbox *s = rt->sandbox_list; s; s = s->next) {
		const struct cri_v1_pod_sandbox_metadata *m = s->rec.config ? s->rec.config->metadata : NULL;
		if (m && m->attempt == c->metadata->attempt && str_eq(m->uid, c->metadata->uid) && str_eq(m->name, c->metadata->name) &&
		    str_eq(m->namespace, c->metadata->namespace))
			return error_status(409, "AlreadyExists", "pod sandbox %.*s/%.*s (uid %.*s, attempt %u) exists already: %s",
					    STR_ARG(m->namespace), STR_ARG(m->name), STR_ARG(m->uid), m->attempt, s->id);
	}
	return NULL;
}

struct pod_job {
	struct rt *rt;
	struct rt_sandbox *s;
	const char *dir;
	struct rt_ns_job ns;
	bool shm;
};

static void resolv_conf(const struct cri_v1_dns_config *d, struct buf *b)
{
	if (d->searches.n) {
		buf_puts(b, "search");
		for (uint32_t i = 0; i < d->searches.n; i++)
			buf_printf(b, " %.*s", STR_ARG(d->searches.v[i]));
		buf_putc(b, '\n');
	}
	for (uint32_t i = 0; i < d->servers.n; i++)
		buf_printf(b, "nameserver %.*s\n", STR_ARG(d->servers.v[i]));
	if (d->options.n) {
		buf_puts(b, "options");
		for (uint32_t i = 0; i < d->options.n; i++)
			buf_printf(b, " %.*s", STR_ARG(d->options.v[i]));
		buf_putc(b, '\n');
	}
}

static struct error *write_etc(struct pod_job *j)
{
	const struct cri_v1_pod_sandbox_config *c = j->s->rec.config;
	str_cleanup char *resolv = sys_path(j->dir, "resolv.conf");
	str_cleanup char *hostname = sys_path(j->dir, "hostname");
	buf_cleanup struct buf b = {0};
	const struct cri_v1_dns_config *d = c->dns_config;
	if (d && (d->servers.n || d->searches.n || d->options.n)) {
		resolv_conf(d, &b);
	} else {
		struct error *e = sys_read_file(AT_FDCWD, "/etc/resolv.conf", 65536, &b);
		if (error_is_sys(e, ENOENT))
			error_clear(&e);
		if (e)
			return e;
	}
	TRY(sys_write_atomic(resolv, buf_view(&b), 0644, false));
	b.n = 0;
	if (j->ns.uts) {
		buf_puts(&b, j->ns.hostname);
	} else {
		char name[65] = "";
		if (gethostname(name, sizeof(name) - 1) < 0)
			return error_sys(errno, "read the host's name");
		buf_puts(&b, name);
	}
	buf_putc(&b, '\n');
	return sys_write_atomic(hostname, buf_view(&b), 0644, false);
}

static struct error *make_pod(void *arg)
{
	struct pod_job *j = arg;
	TRY(sys_mkdirs(j->dir, 0711));
	TRY(rt_ns_make(&j->ns));
	if (j->shm) {
		str_cleanup char *shm = sys_path(j->dir, "shm");
		if (mkdir(shm, 01777) < 0 && errno != EEXIST)
			return error_sys(errno, "mkdir %s", shm);
		if (mount("shm", shm, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=" SHM_SIZE) < 0)
			return error_sys(errno, "mount %s", shm);
	}
	return write_etc(j);
}

static struct error *add_hostports(void *arg)
{
	struct pod_job *j = arg;
	return rt_hostports_add(j->rt, j->s);
}

struct unmake {
	struct rt *rt;
	struct rt_sandbox *s;
	const char *dir, *veth;
};

static struct error *unmake_pod(void *arg)
{
	struct unmake *u = arg;
	struct error *e = NULL;
	if (u->s->rec.veth.n)
		e = rt_veth_delete(u->rt, u->veth);
	if (rt_hostports_any(u->s) && u->s->rec.veth.n) {
		struct error *h = rt_hostports_del(u->rt, u->s);
		if (h)
			log_v(1, "pod %s: %s", u->s->id, h->message); /* never added, or flushed by somebody */
		error_free(h);
	}
	rt_ns_unmake(u->dir);
	return e;
}

/* Undoes whatever of a sandbox is there. */
static struct error *teardown(struct rt *rt, struct rt_sandbox *s)
{
	str_cleanup char *dir = rt_sandbox_dir(rt, s->id);
	str_cleanup char *veth = str_dupz(s->rec.veth);
	struct error *e = NULL;
	fiber_shield_begin();
	if (s->rec.pause_pid && sys_proc_alive(s->rec.pause_pid, s->rec.pause_start))
		kill(s->rec.pause_pid, SIGKILL);
	s->rec.pause_pid = 0;
	if (s->rec.cni.n) {
		str_cleanup char *netns = sys_path(dir, "net");
		e = rt_cni_del(rt, s, access(netns, F_OK) == 0 ? netns : "");
	}
	struct unmake u = {rt, s, dir, veth};
	struct error *e2 = sys_offload(unmake_pod, &u);
	if (e)
		log_and_free(e2, "pod sandbox %s", s->id);
	else
		e = e2;
	if (!e) {
		if (s->ip_index)
			rt_ip_free(rt, s->ip_index);
		s->ip_index = 0;
		s->rec.veth = s->rec.cni = STR_NULL;
	}
	fiber_shield_end();
	return e;
}

static struct error *set_up(struct rt *rt, struct rt_sandbox *s)
{
	const struct cri_v1_namespace_option *ns = rt_sandbox_ns(s);
	const struct cri_v1_pod_sandbox_config *c = s->rec.config;
	str_cleanup char *dir = rt_sandbox_dir(rt, s->id);
	str_cleanup char *hostname = str_dupz(c->hostname.n ? c->hostname : c->metadata->name);
	struct pod_job j = {.rt = rt, .s = s, .dir = dir};
	if (strlen(hostname) > 63)
		hostname[63] = 0;
	j.ns = (struct rt_ns_job){
		.rt = rt,
		.dir = dir,
		.net = ns->network != CRI_NAMESPACE_NODE,
		.ipc = ns->ipc != CRI_NAMESPACE_NODE,
		.uts = ns->network != CRI_NAMESPACE_NODE,
		.hostname = hostname,
		.sysctls = API_MAP(&rt_sandbox_linux(s)->sysctls),
	};
	j.shm = j.ns.ipc;
	str_cleanup char *cni = rt_cni_config(rt);
	if (j.ns.net && !cni) {
		if (!rt->network_up)
			return error_status(503, "Unavailable", "the pod network is not ready: %s",
					    rt->network_error ? rt->network_error : "no pod CIDR is known yet");
		TRY(rt_ip_take(rt, &s->ip_index));
		j.ns.bridged = true;
		j.ns.ip_index = s->ip_index;
		snprintf(j.ns.veth, sizeof(j.ns.veth), "sk%.11s", s->id);
		s->rec.veth = arena_str(&s->arena, str_from(j.ns.veth));
	}
	TRY(sys_offload(make_pod, &j));
	for (int i = 0; i < j.ns.n_ips; i++) {
		char text[INET6_ADDRSTRLEN];
		*arena_push(&s->arena, &s->rec.ips) = arena_str(&s->arena, str_from(rt_addr_text(&j.ns.ips[i], text)));
	}
	if (j.ns.net && cni) {
		arena_cleanup struct arena a = {0};
		str_cleanup char *netns = sys_path(dir, "net");
		struct strings ips = {0};
		TRY(rt_cni_add(rt, &a, s, netns, &ips));
		for (uint32_t i = 0; i < ips.n; i++)
			*arena_push(&s->arena, &s->rec.ips) = ips.v[i];
	} else if (j.ns.bridged && rt_hostports_any(s)) {
		struct pod_job ports = {.rt = rt, .s = s};
		TRY(sys_offload(add_hostports, &ports));
	}
	if (ns->pid == CRI_NAMESPACE_POD)
		TRY(rt_pause_start(rt, s, dir));
	return rt_sandbox_save(rt, s);
}

struct error *rt_run_sandbox(struct rt *rt, const struct cri_v1_run_pod_sandbox_request *req, struct rt_sandbox **out)
{
	*out = NULL;
	TRY(validate(rt, req));
	char id[RT_ID_LEN + 1];
	rt_new_id(id);
	sandbox_cleanup struct rt_sandbox *s = rt_sandbox_new(rt, id);
	s->refs++;
	s->rec.created_at = wall_ns();
	s->rec.not_ready = true; /* until it is */
	s->rec.runtime_handler = arena_str(&s->arena, req->runtime_handler);
	s->rec.config = arena_new(&s->arena, struct cri_v1_pod_sandbox_config);
	object_copy(&s->arena, &cri_v1_pod_sandbox_config_type, req->config, s->rec.config);
	struct error *e = fiber_mutex_lock(&s->lock);
	if (!e) {
		s->rec.not_ready = false;
		e = set_up(rt, s);
		if (e) {
			s->rec.not_ready = true;
			log_and_free(teardown(rt, s), "undo pod sandbox %s", s->id);
		}
		fiber_mutex_unlock(&s->lock);
	}
	if (e) {
		rt_sandbox_forget(rt, s);
		return e;
	}
	rt_event_sandbox(rt, s, CRI_CONTAINER_CREATED_EVENT);
	rt_event_sandbox(rt, s, CRI_CONTAINER_STARTED_EVENT);
	s->refs++;
	*out = s;
	return NULL;
}

/* A container of s with a reference, in a given condition; NULL when none is left. */
static struct rt_container *any_container(struct rt *rt, struct rt_sandbox *s, bool running)
{
	for (struct rt_container *c = rt->container_list; c; c = c->next)
		if (c->sandbox == s && (!running || c->rec.state != CRI_CONTAINER_EXITED)) {
			c->refs++;
			return c;
		}
	return NULL;
}

struct error *rt_stop_sandbox(struct rt *rt, struct rt_sandbox *s)
{
	TRY(fiber_mutex_lock(&s->lock));
	struct error *e = NULL;
	bool was_ready = !s->rec.not_ready;
	for (;;) {
		container_cleanup struct rt_container *c = any_container(rt, s, true);
		if (!c || (e = rt_stop_container(rt, c, 0)))
			break;
	}
	if (!e && (was_ready || s->rec.veth.n || s->rec.cni.n)) {
		s->rec.not_ready = true;
		e = teardown(rt, s);
		struct error *save = rt_sandbox_save(rt, s);
		if (e)
			log_and_free(save, "pod sandbox %s", s->id);
		else
			e = save;
		if (was_ready)
			rt_event_sandbox(rt, s, CRI_CONTAINER_STOPPED_EVENT);
	}
	fiber_mutex_unlock(&s->lock);
	return e;
}

struct error *rt_remove_sandbox(struct rt *rt, struct rt_sandbox *s)
{
	TRY(rt_stop_sandbox(rt, s));
	for (;;) {
		container_cleanup struct rt_container *c = any_container(rt, s, false);
		if (!c)
			break;
		TRY(rt_remove_container(rt, c));
	}
	TRY(fiber_mutex_lock(&s->lock));
	if (!s->removed) {
		str_cleanup char *p = xasprintf("%s/sandboxes/%s.json", rt->o.root, s->id);
		unlink(p);
		rt_event_sandbox(rt, s, CRI_CONTAINER_DELETED_EVENT);
		rt_sandbox_forget(rt, s);
	}
	fiber_mutex_unlock(&s->lock);
	return NULL;
}

void rt_sandbox_status(struct rt *rt, struct arena *a, struct rt_sandbox *s, struct cri_v1_pod_sandbox_status *out)
{
	const struct cri_v1_pod_sandbox_config *c = s->rec.config;
	*out = (struct cri_v1_pod_sandbox_status){
		.id = str_from(s->id),
		.metadata = c->metadata,
		.state = s->rec.not_ready ? CRI_SANDBOX_NOTREADY : CRI_SANDBOX_READY,
		.created_at = s->rec.created_at,
		.runtime_handler = s->rec.runtime_handler,
	};
	memcpy(&out->labels, &c->labels, sizeof(out->labels));
	memcpy(&out->annotations, &c->annotations, sizeof(out->annotations));
	out->network = arena_new(a, struct cri_v1_pod_sandbox_network_status);
	if (!s->rec.not_ready)
		for (uint32_t i = 0; i < s->rec.ips.n; i++) {
			if (i == 0)
				out->network->ip = s->rec.ips.v[i];
			else
				arena_push(a, &out->network->additional_ips)->ip = s->rec.ips.v[i];
		}
	out->linux_ = arena_new(a, struct cri_v1_linux_pod_sandbox_status);
	out->linux_->namespaces = arena_new(a, struct cri_v1_namespace);
	out->linux_->namespaces->options = arena_new(a, struct cri_v1_namespace_option);
	*out->linux_->namespaces->options = *rt_sandbox_ns(s);
}
