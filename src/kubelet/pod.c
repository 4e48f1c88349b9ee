/*
 * kubelet/pod.c: the pods of this node and the work on each: a fiber runs
 * while there is something to do, and ends when the pod is as it should be.
 */
#include "kubelet/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEVER INT64_MAX
#define RESYNC_MS 1000

struct kubelet kubelet;

/* ---- small things ---- */

struct error *pod_decode(struct pod *p, struct arena *a, struct core_v1_pod **out, struct block **hold)
{
	struct error *e;

	*hold = NULL;
	if (!p->spec)
		return error_new("pod %s has no object", p->uid);
	*out = arena_new(a, struct core_v1_pod);
	e = json_decode(a, &core_v1_pod_type, block_str(p->spec), NULL, *out);
	if (e)
		return error_wrap(e, "pod %s/%s", p->ns, p->name);
	*hold = block_ref(p->spec);
	return NULL;
}

static void view_cleanup_(struct view **v)
{
	view_unref(*v);
}
#define view_cleanup __attribute__((cleanup(view_cleanup_)))

static void hold_cleanup_(struct block **b)
{
	block_unref(*b);
}
#define hold_cleanup __attribute__((cleanup(hold_cleanup_)))

struct pod *pod_by_uid(struct kubelet *k, struct str uid)
{
	return uid.n ? map_get(&k->pods, uid) : NULL;
}

struct pod *pod_by_name(struct kubelet *k, struct str ns, struct str name)
{
	size_t it = 0;
	void *value;
	struct pod *found = NULL;

	while (map_next(&k->pods, &it, NULL, &value)) {
		struct pod *p = value;

		if (p->ns && str_eqz(ns, p->ns) && str_eqz(name, p->name) && (!found || !p->stopped))
			found = p;
	}
	return found;
}

struct cstate *pod_cstate(struct pod *p, struct str name)
{
	for (struct cstate *c = p->containers; c; c = c->next)
		if (str_eqz(name, c->name))
			return c;
	return NULL;
}

struct cstate *pod_cstate_make(struct pod *p, struct str name, enum container_kind kind)
{
	struct cstate *c = pod_cstate(p, name);

	if (c)
		return c;
	c = xcalloc(1, sizeof *c);
	c->name = str_dupz(name);
	c->kind = kind;
	c->kill_grace = -1;
	c->next = p->containers;
	p->containers = c;
	return c;
}

void cstate_waiting(struct cstate *c, const char *reason, const char *fmt, ...)
{
	buf_cleanup struct buf b = {0};
	va_list ap;

	free(c->wait_reason);
	free(c->wait_message);
	c->wait_reason = c->wait_message = NULL;
	if (!reason)
		return;
	va_start(ap, fmt);
	buf_vprintf(&b, fmt, ap);
	va_end(ap);
	c->wait_reason = xstrdup(reason);
	c->wait_message = xstrdup(buf_z(&b));
}

struct str pod_format(struct arena *a, const struct core_v1_pod *pod)
{
	return arena_printf(a, "%.*s_%.*s(%.*s)", STR_ARG(pod->metadata.name), STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.uid));
}

struct str container_field_path(struct arena *a, enum container_kind kind, struct str name)
{
	return arena_printf(a, "spec.%s{%.*s}", kind == CONTAINER_INIT ? "initContainers" : kind == CONTAINER_EPHEMERAL ? "ephemeralContainers" : "containers",
			    STR_ARG(name));
}

void pod_event(struct pod *p, const struct core_v1_pod *pod, const char *container_path, const char *type, const char *reason, const char *fmt, ...)
{
	struct core_v1_object_reference ref = {
		.kind = STR("Pod"), .api_version = STR("v1"), .namespace = pod->metadata.namespace, .name = pod->metadata.name,
		.uid = p->mirror_uid ? str_from(p->mirror_uid) : pod->metadata.uid, .resource_version = pod->metadata.resource_version,
		.field_path = str_from(container_path),
	};
	buf_cleanup struct buf b = {.limit = 1024};
	va_list ap;

	if (!p->k->events)
		return;
	va_start(ap, fmt);
	buf_vprintf(&b, fmt, ap);
	va_end(ap);
	event_record(p->k->events, &ref, type, reason, "%s", buf_z(&b));
}

/* ---- waking ---- */

void timers_poke(struct kubelet *k)
{
	waitq_wake_all(&k->timer_q);
}

void pod_kick_at(struct pod *p, int64_t at)
{
	if (at < p->next_at) {
		p->next_at = at;
		timers_poke(p->k);
	}
}

static void worker(void *arg);

void pod_kick(struct pod *p)
{
	p->dirty = true;
	if (p->working || p->removed || p->k->shutting_down)
		return;
	p->working = true;
	fiber_spawn("pod", worker, p);
}

void timers_run(void *arg)
{
	struct kubelet *k = arg;

	while (!fiber_cancelled()) {
		int64_t now = now_ms(), next = probes_due(k, now);
		size_t it = 0;
		void *value;
		struct error *e;

		while (map_next(&k->pods, &it, NULL, &value)) {
			struct pod *p = value;

			if (p->next_at <= now) {
				p->next_at = NEVER;
				pod_kick(p);
			} else if (p->next_at < next) {
				next = p->next_at;
			}
		}
		e = next == NEVER ? waitq_wait(&k->timer_q) : waitq_wait_ms(&k->timer_q, next - now > 0 ? next - now : 0);
		error_free(e);
	}
}

struct interruptible {
	struct error *(*fn)(void *arg);
	void *arg;
	struct error *error;
	bool done;
	struct waitq *q;
};

static void run_interruptible(void *arg)
{
	struct interruptible *i = arg;

	i->error = i->fn(i->arg);
	i->done = true;
	waitq_wake_all(i->q);
}

struct error *pod_interruptible(struct pod *p, const char *name, struct error *(*fn)(void *arg), void *arg)
{
	struct interruptible i = {.fn = fn, .arg = arg, .q = &p->wake};
	bool terminating = p->terminating;
	unsigned epoch = p->kill_epoch;
	struct error *e = fiber_check();
	struct fiber *f;

	if (e)
		return e;
	f = fiber_start(name, run_interruptible, &i);
	while (!i.done && !e && p->terminating == terminating && p->kill_epoch == epoch)
		e = waitq_wait(&p->wake);
	if (i.done) {
		error_free(e);
		fiber_join(f);
		return i.error;
	}
	fiber_stop(f);
	if (i.error || e) { /* cut short, however that showed */
		error_free(i.error);
		if (error_is_sys(e, ETIMEDOUT))
			return e;
		error_free(e);
		return error_sys(ECANCELED, "%s", name);
	}
	return NULL;
}

/* ---- ending ---- */

static void terminate(struct pod *p, int64_t grace)
{
	if (p->terminating && grace >= p->kill_grace)
		return;
	p->terminating = true;
	p->kill_grace = grace;
	p->kill_epoch++;
	waitq_wake_all(&p->wake);
	pod_kick(p);
}

void pod_fail(struct pod *p, const char *reason, const char *message, int64_t grace, bool disruption)
{
	if (p->fail_reason || p->stopped)
		return;
	p->fail_reason = xstrdup(reason);
	p->fail_message = xstrdup(message);
	p->disruption_target = disruption;
	terminate(p, grace);
}

static void free_cstate(struct cstate *c)
{
	free(c->name);
	free(c->wait_reason);
	free(c->wait_message);
	free(c->kill_reason);
	free(c->kill_message);
	free(c->probed_id);
	free(c->image_digest);
	free(c);
}

static void pod_free(struct pod *p)
{
	probes_stop(p);
	object_unwatch_all(p);
	while (p->containers) {
		struct cstate *c = p->containers;

		p->containers = c->next;
		free_cstate(c);
	}
	map_del(&p->k->pods, str_from(p->uid));
	block_unref(p->spec);
	block_unref(p->status);
	block_unref(p->status_sent);
	view_unref(p->view);
	free(p->fail_reason);
	free(p->fail_message);
	free(p->volume_error);
	free(p->sandbox_error);
	free(p->mirror_uid);
	free(p->ns);
	free(p->name);
	free(p->uid);
	free(p);
}

void pod_release(struct pod *p)
{
	if (p->removed && !p->working && !p->status_sending)
		pod_free(p);
}

/* ---- from the outside ---- */

static struct pod *pod_new(struct kubelet *k, struct str uid, struct str ns, struct str name)
{
	struct pod *p = xcalloc(1, sizeof *p);

	p->k = k;
	p->uid = str_dupz(uid);
	p->ns = str_dupz(ns);
	p->name = str_dupz(name);
	p->next_at = NEVER;
	p->token_refresh_at = NEVER;
	p->kill_grace = NEVER;
	p->volumes_dirty = true;
	map_set(&k->pods, uid, p);
	return p;
}

/* The mirror of a static pod in the API has this uid (empty: there is none): the status is written to it afresh. */
void mirror_is(struct pod *p, struct str uid)
{
	if (p->mirror_uid && str_eqz(uid, p->mirror_uid))
		return;
	free(p->mirror_uid);
	p->mirror_uid = uid.n ? str_dupz(uid) : NULL;
	p->mirror_deleting = false;
	block_unref(p->status_sent);
	p->status_sent = NULL;
}

static int64_t spec_grace(const struct core_v1_pod *pod)
{
	return pod->spec.termination_grace_period_seconds ? *pod->spec.termination_grace_period_seconds : 30;
}

/* Containers whose resources are others now: changed where they run, or restarted when their resizePolicy says so. */
static void note_resize(struct pod *p, const struct core_v1_pod *old, const struct core_v1_pod *new_)
{
	for (uint32_t i = 0; i < new_->spec.containers.n; i++) {
		const struct core_v1_container *c = &new_->spec.containers.v[i], *was = pod_find_container(old, c->name, NULL);
		struct cstate *cs;

		if (!was || object_equal(&core_v1_resource_requirements_type, &was->resources, &c->resources))
			continue;
		cs = pod_cstate_make(p, c->name, CONTAINER_MAIN);
		cs->resize = true;
		for (uint32_t j = 0; j < c->resize_policy.n; j++) {
			struct str name = c->resize_policy.v[j].resource_name;

			if (!str_eqz(c->resize_policy.v[j].restart_policy, "RestartContainer") || cs->kill_reason || !cs->probed_id ||
			    (str_eq(str_map_get(API_MAP(&was->resources.limits), name), str_map_get(API_MAP(&c->resources.limits), name)) &&
			     str_eq(str_map_get(API_MAP(&was->resources.requests), name), str_map_get(API_MAP(&c->resources.requests), name))))
				continue;
			cs->kill_reason = xstrdup("Resize");
			cs->kill_message = xasprintf("Container %s resize requires restart", cs->name);
			cs->kill_grace = -1;
		}
	}
}

void pod_update(struct kubelet *k, struct block *json, bool is_static)
{
	arena_cleanup struct arena a = {0};
	struct core_v1_pod *pod = arena_new(&a, struct core_v1_pod);
	struct meta_v1_object_meta *m = &pod->metadata;
	struct pod *p;
	bool same;
	struct error *e = json_decode(&a, &core_v1_pod_type, block_str(json), NULL, pod);

	if (e) {
		log_and_free(e, "a pod of the API");
		return;
	}
	if (!is_static && str_map_has(API_MAP(&m->annotations), STR("kubernetes.io/config.mirror"))) {
		p = pod_by_name(k, m->namespace, m->name);
		if (p && p->is_static) {
			mirror_is(p, m->uid);
			p->mirror_deleting = m->deletion_timestamp != NULL;
			pod_kick(p);
		}
		return;
	}
	p = pod_by_uid(k, m->uid);
	if (!p) {
		if (k->pods.n >= KUBELET_PODS_MAX) {
			log_error("pod %.*s/%.*s is not run: %d pods are known already", STR_ARG(m->namespace), STR_ARG(m->name), KUBELET_PODS_MAX);
			return;
		}
		p = pod_new(k, m->uid, m->namespace, m->name);
		p->is_static = is_static;
		if (pod->status.start_time)
			p->start_time = pod->status.start_time->s;
		/* It ended in a former life of this kubelet: nothing is started again. */
		if (str_eqz(pod->status.phase, "Succeeded") || str_eqz(pod->status.phase, "Failed")) {
			buf_cleanup struct buf b = {0};

			json_encode(&b, &core_v1_pod_status_type, &pod->status);
			p->status = block_new(buf_view(&b));
			p->status_sent = block_ref(p->status);
			p->terminating = true;
			p->kill_grace = spec_grace(pod);
		}
	}
	p->is_orphan = false;
	same = p->spec && str_eq(block_str(p->spec), block_str(json));
	if (same)
		return;
	if (p->spec) {
		/* Labels, annotations and volumes may show in files. Our own status writes do not. */
		arena_cleanup struct arena b = {0};
		struct core_v1_pod *old;
		hold_cleanup struct block *hold = NULL;

		e = pod_decode(p, &b, &old, &hold);
		if (!e) {
			bool spec_same = object_equal(&core_v1_pod_spec_type, &old->spec, &pod->spec);
			bool meta_same = old->metadata.labels.n == pod->metadata.labels.n && old->metadata.annotations.n == pod->metadata.annotations.n;

			for (uint32_t i = 0; meta_same && i < m->labels.n; i++)
				meta_same = str_eq(old->metadata.labels.v[i].key, m->labels.v[i].key) &&
					    str_eq(old->metadata.labels.v[i].value, m->labels.v[i].value);
			for (uint32_t i = 0; meta_same && i < m->annotations.n; i++)
				meta_same = str_eq(old->metadata.annotations.v[i].key, m->annotations.v[i].key) &&
					    str_eq(old->metadata.annotations.v[i].value, m->annotations.v[i].value);
			if (!spec_same || !meta_same)
				p->volumes_dirty = true;
			if (!spec_same)
				note_resize(p, old, pod);
			/* Only the status changed (mostly our own write): conditions of readiness gates are all that matters. */
			if (spec_same && meta_same && !m->deletion_timestamp && !pod->spec.readiness_gates.n && m->generation == old->metadata.generation) {
				block_unref(p->spec);
				p->spec = block_ref(json);
				return;
			}
		}
		error_free(e);
	}
	block_unref(p->spec);
	p->spec = block_ref(json);
	if (m->deletion_timestamp && !p->api_deleting) {
		p->api_deleting = true;
		p->status_final = false;
	}
	if (m->deletion_timestamp)
		terminate(p, m->deletion_grace_period_seconds ? *m->deletion_grace_period_seconds : spec_grace(pod));
	pod_kick(p);
}

void pod_gone(struct kubelet *k, struct str uid)
{
	struct pod *p = pod_by_uid(k, uid);
	size_t it = 0;
	void *value;

	if (!p) {
		/* Perhaps a mirror, which is made again. */
		while (map_next(&k->pods, &it, NULL, &value)) {
			struct pod *s = value;

			if (s->is_static && s->mirror_uid && str_eqz(uid, s->mirror_uid)) {
				mirror_is(s, STR_NULL);
				pod_kick(s);
			}
		}
		return;
	}
	if (p->is_static)
		return;
	p->api_gone = true;
	if (!p->terminating) {
		arena_cleanup struct arena a = {0};
		struct core_v1_pod *pod;
		hold_cleanup struct block *hold = NULL;
		struct error *e = pod_decode(p, &a, &pod, &hold);
		int64_t grace = 30;

		if (!e)
			grace = pod->metadata.deletion_grace_period_seconds ? *pod->metadata.deletion_grace_period_seconds : spec_grace(pod);
		error_free(e);
		terminate(p, grace < 1 ? 1 : grace);
	}
	pod_kick(p);
}

void pod_orphan(struct kubelet *k, struct str uid, struct str ns, struct str name)
{
	struct pod *p = pod_new(k, uid, ns, name);

	log_info("pod %.*s/%.*s (%.*s) runs but is not wanted any more: stopping it", STR_ARG(ns), STR_ARG(name), STR_ARG(uid));
	p->is_orphan = true;
	p->api_gone = true;
	p->terminating = true;
	p->kill_grace = 30;
	pod_kick(p);
}

/* ---- the work ---- */

struct kill_job {
	struct pod *p;
	const struct core_v1_pod *pod;
	struct plan_kill k;
	struct error *error;
	struct fiber *f;
};

static void kill_one(void *arg)
{
	struct kill_job *j = arg;

	j->error = container_kill(j->p, j->pod, j->k.id, j->k.name, j->k.kind, j->k.reason, j->k.message, j->k.grace);
}

/* All at once; the first error is returned. */
static struct error *kill_all(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct plan_kill *kills, size_t n)
{
	struct kill_job *jobs = arena_array(a, struct kill_job, n ? n : 1);
	struct error *first = NULL;

	for (size_t i = 0; i < n; i++) {
		jobs[i] = (struct kill_job){.p = p, .pod = pod, .k = kills[i]};
		if (n > 1)
			jobs[i].f = fiber_start("kill", kill_one, &jobs[i]);
		else
			kill_one(&jobs[i]);
	}
	for (size_t i = 0; i < n; i++) {
		if (jobs[i].f)
			fiber_join(jobs[i].f);
		if (!first)
			first = jobs[i].error;
		else
			error_free(jobs[i].error);
	}
	return first;
}

/* The message a container left behind, read once. */
static void read_messages(struct pod *p, struct arena *a)
{
	view_cleanup struct view *v = view_ref(p->view);
	struct str dir = pod_log_dir(p->k, a, str_from(p->ns), str_from(p->name), str_from(p->uid));

	for (uint32_t i = 0; i < v->containers.n; i++) {
		struct view_container *c = &v->containers.v[i];
		buf_cleanup struct buf b = {0};
		struct error *e;

		if (c->state != CRI_CONTAINER_EXITED || c->term_read)
			continue;
		c->term_read = true;
		if (c->term_host_path.n) {
			struct stat st;
			const char *path = arena_strz(a, c->term_host_path);

			if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= 1 << 20) {
				e = file_read(path, &b);
				if (e)
					log_v(2, "%s", e->message);
				error_free(e);
			}
		}
		if (b.n > 4096)
			b.n = 4096;
		if (b.n) {
			c->term_message = arena_str(&v->arena, buf_view(&b));
		} else if (str_eqz(c->term_policy, "FallbackToLogsOnError") && c->exit_code != 0) {
			struct str log = log_tail(a, arena_printf(a, "%.*s/%.*s/%u.log", STR_ARG(dir), STR_ARG(c->name), c->attempt).p);

			c->term_message = arena_str(&v->arena, log);
		}
	}
}

static struct error *remove_container(struct pod *p, struct str id)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_remove_container_request req = {.container_id = id};
	struct cri_v1_remove_container_response resp = {0};
	struct error *e = CRI_CALL(p->k, &a, RUNTIME, RemoveContainer, remove_container, &req, &resp);

	if (grpc_error_code(e) == GRPC_NOT_FOUND)
		error_clear(&e);
	return e;
}

static void forget(struct pod *p, struct str id)
{
	struct view *v = view_merge(p->view, NULL, NULL, 0, id);

	view_unref(p->view);
	p->view = v;
}

/* Of each container the newest and the one before it stay, for logs --previous. */
static void collect_garbage(struct pod *p, struct arena *a, const struct core_v1_pod *pod)
{
	struct view *v = view_ref(p->view);

	for (uint32_t i = 0; i < v->containers.n; i++) {
		struct view_container *c = &v->containers.v[i];
		unsigned rank = 0;
		struct error *e;

		if (c->state == CRI_CONTAINER_RUNNING)
			continue;
		for (uint32_t j = 0; j < i; j++)
			rank += str_eq(v->containers.v[j].name, c->name);
		if (rank < 2)
			continue;
		e = remove_container(p, c->id);
		if (e) {
			log_and_free(e, "removing an old container of %s/%s", p->ns, p->name);
			continue;
		}
		container_log_links(p->k, a, pod, c->name, c->id, c->attempt, true);
		unlink(arena_printf(a, "%.*s/%.*s/%u.log", STR_ARG(pod_log_dir(p->k, a, str_from(p->ns), str_from(p->name), str_from(p->uid))),
				    STR_ARG(c->name), c->attempt).p);
		forget(p, c->id);
	}
	view_unref(v);
}

static const char *const safe_sysctls[] = {
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
	"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
};

static void reject(struct pod *p, const struct core_v1_pod *pod, const char *reason, const char *message)
{
	pod_event(p, pod, NULL, "Warning", reason, "%s", message);
	p->rejected = true;
	pod_fail(p, reason, message, 0, false);
}

/* The kubelet's own look at a new pod: a scheduler may have erred, or been passed by. */
static void admit(struct pod *p, struct arena *a, const struct core_v1_pod *pod)
{
	struct kubelet *k = p->k;
	struct pod_resources want, used = {0}, r;
	int64_t cpu = node_allocatable(k, "cpu"), memory = node_allocatable(k, "memory"), pods = 0;
	size_t it = 0;
	void *value;

	p->admitted = true;
	if (p->view && p->view->sandboxes.n)
		return; /* runs since before we started */
	if (pod->spec.os && !str_eqz(pod->spec.os->name, "linux")) {
		reject(p, pod, "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
		return;
	}
	if (pod->spec.security_context)
		for (uint32_t i = 0; i < pod->spec.security_context->sysctls.n; i++) {
			struct str name = sysctl_name(a, &pod->spec.security_context->sysctls.v[i]);
			bool ok = false;

			for (size_t j = 0; j < ARRAY_LEN(safe_sysctls); j++)
				ok |= str_eqz(name, safe_sysctls[j]);
			if (!ok) {
				reject(p, pod, "SysctlForbidden", arena_printf(a, "forbidden sysctl: \"%.*s\" not allowlisted", STR_ARG(name)).p);
				return;
			}
		}
	if (k->memory_pressure && pod_qos(pod) == QOS_BEST_EFFORT && !(pod->spec.priority && *pod->spec.priority >= 2000000000)) {
		reject(p, pod, "Evicted", "The node had condition: [MemoryPressure]. ");
		return;
	}
	if (k->disk_pressure && !p->is_static && !(pod->spec.priority && *pod->spec.priority >= 2000000000)) {
		reject(p, pod, "Evicted", "The node had condition: [DiskPressure]. ");
		return;
	}
	pod_resources_sum(pod, &want);
	while (map_next(&k->pods, &it, NULL, &value)) {
		struct pod *o = value;
		arena_cleanup struct arena b = {0};
		struct core_v1_pod *op;
		hold_cleanup struct block *hold = NULL;
		struct error *e;

		if (o == p || o->is_orphan || !o->admitted || o->stopped || o->rejected)
			continue;
		e = pod_decode(o, &b, &op, &hold);
		if (e) {
			error_free(e);
			continue;
		}
		if (pod_ports_conflict(pod, op)) {
			reject(p, pod, "NodePorts", "Predicate NodePorts failed");
			return;
		}
		pod_resources_sum(op, &r);
		used.cpu_request_m += r.cpu_request_m;
		used.memory_request += r.memory_request;
		pods++;
	}
	if (pods + 1 > k->c->max_pods)
		reject(p, pod, "OutOfpods",
		       arena_printf(a, "Node didn't have enough resource: pods, requested: 1, used: %lld, capacity: %d", (long long)pods, k->c->max_pods).p);
	else if (want.cpu_request_m > 0 && want.cpu_request_m + used.cpu_request_m > cpu)
		reject(p, pod, "OutOfcpu",
		       arena_printf(a, "Node didn't have enough resource: cpu, requested: %lld, used: %lld, capacity: %lld", (long long)want.cpu_request_m,
				    (long long)used.cpu_request_m, (long long)cpu).p);
	else if (want.memory_request > 0 && want.memory_request + used.memory_request > memory)
		reject(p, pod, "OutOfmemory",
		       arena_printf(a, "Node didn't have enough resource: memory, requested: %lld, used: %lld, capacity: %lld",
				    (long long)want.memory_request, (long long)used.memory_request, (long long)memory).p);
}

/* In waiting terms: nothing can be done before `ms` have passed. */
static void retry(struct pod *p, int64_t ms)
{
	if (p->sync_failures < 8)
		p->sync_failures++;
	pod_kick_at(p, now_ms() + ms);
}

struct volumes_job {
	struct pod *p;
	struct arena a;
	const struct core_v1_pod *pod;
	struct error *error;
};

static void setup_volumes(void *arg)
{
	struct volumes_job *j = arg;

	j->error = volumes_setup(j->p, &j->a, j->pod);
}

static struct error *prepare(struct pod *p, struct arena *a, const struct core_v1_pod *pod)
{
	struct kubelet *k = p->k;

	TRY(dir_make(pod_dir(k, a, pod->metadata.uid).p, 0750));
	return cgroup_pod_make(k, a, pod);
}

/* The volumes' error is the user's to see: event and status; true when all is well. */
static bool volumes_done(struct pod *p, const struct core_v1_pod *pod, struct error *e)
{
	free(p->volume_error);
	p->volume_error = NULL;
	if (!e) {
		p->volumes_ready = true;
		return true;
	}
	p->volumes_dirty = true;
	if (!p->terminating) {
		log_warn("pod %s/%s: %s", p->ns, p->name, e->message);
		pod_event(p, pod, NULL, "Warning", "FailedMount", "%s", e->message);
		p->volume_error = xstrdup(e->message);
		retry(p, p->sync_failures < 4 ? 500ll << p->sync_failures : 10000);
	}
	error_free(e);
	return false;
}

/* A limit below what is used now would kill: such a resize waits. */
static struct error *fits(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct view_container *vc, int64_t limit)
{
	struct cri_v1_container_stats_request req = {.container_id = arena_str(a, vc->id)};
	struct cri_v1_container_stats_response resp = {0};
	struct pod_resources r;
	struct cgroup_usage u;

	pod_resources_sum(pod, &r);
	cgroup_usage(p->k, cgroup_pod_path(p->k, a, pod), &u);
	if (r.memory_limit > 0 && u.memory_usage >= (uint64_t)r.memory_limit)
		return error_new("cannot decrease memory limits: attempting to set pod memory limit (%lld) below current usage (%llu)",
				 (long long)r.memory_limit, (unsigned long long)u.memory_usage);
	if (limit <= 0)
		return NULL;
	TRY(CRI_CALL(p->k, a, RUNTIME, ContainerStats, container_stats, &req, &resp));
	const struct cri_v1_memory_usage *m = resp.stats ? resp.stats->memory : NULL;

	if (m && m->usage_bytes && m->usage_bytes->value >= (uint64_t)limit)
		return error_new("cannot decrease memory limits: attempting to set container \"%.*s\" memory limit (%lld) below current usage (%llu)",
				 STR_ARG(vc->name), (long long)limit, (unsigned long long)m->usage_bytes->value);
	return NULL;
}

/* New requests and limits for containers that run; the pod's own cgroup makes room first and closes in last. */
static void resize(struct pod *p, struct arena *a, const struct core_v1_pod *pod)
{
	bool any = false;
	struct error *e;

	for (uint32_t i = 0; i < pod->spec.containers.n; i++) {
		const struct core_v1_container *c = &pod->spec.containers.v[i];
		struct cstate *cs = pod_cstate(p, c->name);
		struct view_container *vc = view_find(p->view, c->name);
		struct cri_v1_linux_container_resources r;
		struct cri_v1_update_container_resources_request req = {.linux_ = &r};
		struct cri_v1_update_container_resources_response resp = {0};

		if (!cs || !cs->resize)
			continue;
		cs->resize = false; /* may be set again while this waits */
		if (!vc || vc->state != CRI_CONTAINER_RUNNING)
			continue;
		container_linux_resources(p->k, a, pod, c, &r);
		req.container_id = arena_str(a, vc->id);
		cs->resizing = true;
		e = fits(p, a, pod, vc, r.memory_limit_in_bytes);
		if (!e && !any)
			e = cgroup_pod_make(p->k, a, pod);
		if (!e) {
			any = true;
			e = CRI_CALL(p->k, a, RUNTIME, UpdateContainerResources, update_container_resources, &req, &resp);
		}
		if (e) {
			pod_event(p, pod, container_field_path(a, CONTAINER_MAIN, c->name).p, "Warning", "ResizeError", "%s", e->message);
			log_and_free(e, "pod %s/%s: resizing %.*s", p->ns, p->name, STR_ARG(c->name));
			cs->resize = true;
			pod_kick_at(p, now_ms() + 5000);
		}
		cs->resizing = false;
	}
	if (any) {
		e = cgroup_pod_make(p->k, a, pod);
		log_and_free(e, "pod %s/%s: resizing its cgroup", p->ns, p->name);
	}
}

static void run(struct pod *p, struct arena *a, const struct core_v1_pod *pod, struct plan *plan)
{
	struct kubelet *k = p->k;
	struct volumes_job vj = {.p = p, .pod = pod};
	struct fiber *vf = NULL;
	struct error *e;

	if (plan->kills.n) {
		e = kill_all(p, a, pod, plan->kills.v, plan->kills.n);
		for (uint32_t i = 0; i < plan->kills.n; i++) {
			struct cstate *cs = pod_cstate(p, plan->kills.v[i].name);

			if (cs && cs->kill_reason) {
				free(cs->kill_reason);
				free(cs->kill_message);
				cs->kill_reason = cs->kill_message = NULL;
			}
		}
		log_and_free(e, "pod %s/%s", p->ns, p->name);
		p->dirty = true; /* plan again with them gone */
		return;
	}
	if (!plan->create_sandbox)
		resize(p, a, pod);
	if (!plan->create_sandbox && !plan->starts.n) {
		if (p->volumes_dirty && plan->sandbox_id.n)
			volumes_done(p, pod, volumes_setup(p, a, pod));
		return;
	}
	if (!k->runtime_ok) {
		retry(p, RESYNC_MS);
		return;
	}
	if (!k->network_ok && !pod->spec.host_network) {
		if (p->events_at == 0 || now_ms() - p->events_at > 30000) {
			p->events_at = now_ms();
			pod_event(p, pod, NULL, "Warning", "NetworkNotReady", "network is not ready: %s", k->network_message ? k->network_message : "");
		}
		retry(p, RESYNC_MS);
		return;
	}
	e = prepare(p, a, pod);
	if (e) {
		pod_event(p, pod, NULL, "Warning", "FailedCreatePodContainer", "unable to ensure pod container exists: %s", e->message);
		log_and_free(e, "pod %s/%s", p->ns, p->name);
		retry(p, 5000);
		return;
	}
	/* Volumes that do not need the pod's address are made while the sandbox is. */
	if (p->volumes_dirty || !p->volumes_ready) {
		if (plan->create_sandbox)
			vf = fiber_start("volumes", setup_volumes, &vj);
		else if (!volumes_done(p, pod, volumes_setup(p, a, pod)))
			return;
	}
	if (plan->create_sandbox) {
		bool ok = true;

		if (plan->sandbox_attempt > 0)
			pod_event(p, pod, NULL, "Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
		e = sandbox_create(p, a, pod, plan->sandbox_attempt, &plan->sandbox_id);
		free(p->sandbox_error);
		p->sandbox_error = NULL;
		if (e) {
			pod_event(p, pod, NULL, "Warning", "FailedCreatePodSandBox", "Failed to create pod sandbox: %s", e->message);
			p->sandbox_error = xstrdup(e->message);
			log_and_free(e, "pod %s/%s: creating its sandbox", p->ns, p->name);
			retry(p, p->sync_failures < 4 ? 500ll << p->sync_failures : 10000);
			ok = false;
		}
		if (vf) {
			fiber_join(vf);
			ok &= volumes_done(p, pod, vj.error);
			arena_free(&vj.a);
		}
		if (!ok)
			return;
	}
	p->sync_failures = 0;
	for (uint32_t i = 0; i < plan->starts.n && !p->terminating; i++)
		container_start(p, a, pod, plan, &plan->starts.v[i]);
	if (!plan->inits_done && !p->terminating) {
		/* A sidecar that needs no time lets the next one start at once. */
		struct plan_start *s = plan->starts.n ? &plan->starts.v[plan->starts.n - 1] : NULL;
		struct view_container *c = s ? view_find(p->view, s->c->name) : NULL;

		if (s && s->kind == CONTAINER_INIT && container_is_sidecar(s->c) && !s->c->startup_probe && c && c->state == CRI_CONTAINER_RUNNING)
			p->dirty = true;
	}
	collect_garbage(p, a, pod);
}

static struct error *stop_sandboxes(struct pod *p, struct arena *a)
{
	struct view *v = view_ref(p->view);
	struct error *e = NULL;

	for (uint32_t i = 0; !e && i < v->sandboxes.n; i++) {
		struct cri_v1_stop_pod_sandbox_request req = {.pod_sandbox_id = v->sandboxes.v[i].id};
		struct cri_v1_stop_pod_sandbox_response resp = {0};

		if (v->sandboxes.v[i].state != CRI_SANDBOX_READY)
			continue;
		e = CRI_CALL(p->k, a, RUNTIME, StopPodSandbox, stop_pod_sandbox, &req, &resp);
		if (grpc_error_code(e) == GRPC_NOT_FOUND)
			error_clear(&e);
		if (!e)
			v->sandboxes.v[i].state = CRI_SANDBOX_NOTREADY;
	}
	view_unref(v);
	return e;
}

static struct error *remove_all(struct pod *p, struct arena *a, const struct core_v1_pod *pod)
{
	struct view *v = view_ref(p->view);
	struct error *e = NULL;

	for (uint32_t i = 0; !e && i < v->containers.n; i++) {
		e = remove_container(p, v->containers.v[i].id);
		if (!e && pod)
			container_log_links(p->k, a, pod, v->containers.v[i].name, v->containers.v[i].id, v->containers.v[i].attempt, true);
	}
	for (uint32_t i = 0; !e && i < v->sandboxes.n; i++) {
		struct cri_v1_remove_pod_sandbox_request req = {.pod_sandbox_id = v->sandboxes.v[i].id};
		struct cri_v1_remove_pod_sandbox_response resp = {0};

		e = CRI_CALL(p->k, a, RUNTIME, RemovePodSandbox, remove_pod_sandbox, &req, &resp);
		if (grpc_error_code(e) == GRPC_NOT_FOUND)
			error_clear(&e);
	}
	view_unref(v);
	return e;
}

/* Containers end (sidecars last, in reverse order), then the sandbox, then what it used. */
static struct error *end(struct pod *p, struct arena *a, const struct core_v1_pod *pod)
{
	struct view *v = view_ref(p->view);
	LIST(struct plan_kill) mains = {0}, sidecars = {0};
	int64_t deadline = now_ms() + p->kill_grace * 1000, left;
	struct error *e;

	for (uint32_t i = 0; i < v->containers.n; i++) {
		const struct view_container *c = &v->containers.v[i];
		enum container_kind kind = CONTAINER_MAIN;
		const struct core_v1_container *spec = pod ? pod_find_container(pod, c->name, &kind) : NULL;
		struct plan_kill *k;

		if (c->state == CRI_CONTAINER_EXITED)
			continue;
		if (spec && kind == CONTAINER_INIT && container_is_sidecar(spec))
			k = arena_push(a, &sidecars);
		else
			k = arena_push(a, &mains);
		*k = (struct plan_kill){.id = c->id, .name = c->name, .kind = kind, .reason = "Terminating", .grace = p->kill_grace};
	}
	e = kill_all(p, a, pod, mains.v, mains.n);
	for (uint32_t i = pod ? pod->spec.init_containers.n : 0; !e && i-- > 0;)
		for (uint32_t j = 0; j < sidecars.n; j++)
			if (str_eq(sidecars.v[j].name, pod->spec.init_containers.v[i].name)) {
				left = (deadline - now_ms()) / 1000;
				sidecars.v[j].grace = left > 1 ? left : p->kill_grace > 0 ? 1 : 0;
				if (!e)
					e = kill_all(p, a, pod, &sidecars.v[j], 1);
			}
	view_unref(v);
	if (!e)
		e = stop_sandboxes(p, a);
	return e;
}

static void finish(struct pod *p, struct arena *a, const struct core_v1_pod *pod)
{
	struct plan none = {.finished = true};
	struct error *e;

	probes_terminating(p);
	if (!p->stopped) {
		e = end(p, a, pod);
		if (e) {
			if (!error_is_sys(e, ECANCELED))
				log_warn("pod %s/%s: %s", p->ns, p->name, e->message);
			error_free(e);
			if (pod)
				status_update(p, a, pod, &none);
			retry(p, 1000);
			return;
		}
		p->stopped = true;
		read_messages(p, a);
	}
	probes_stop(p);
	if (pod && !p->api_gone)
		status_update(p, a, pod, &none);
	if (!p->cleaned) {
		object_unwatch_all(p);
		e = volumes_teardown(p->k, str_from(p->uid));
		if (e) {
			log_and_free(e, "pod %s/%s", p->ns, p->name);
			retry(p, 2000);
			return;
		}
		cgroup_pod_remove(p->k, str_from(p->uid));
		p->cleaned = true;
	}
	if (p->api_deleting && !p->api_gone) {
		/* The status writer deletes the object when the last status stands in the API. */
		p->status_final = true;
		status_update(p, a, pod, &none);
		return;
	}
	if (!p->api_gone)
		return;
	e = remove_all(p, a, pod);
	if (!e)
		e = dir_remove(pod_dir(p->k, a, str_from(p->uid)).p);
	if (!e)
		e = dir_remove(pod_log_dir(p->k, a, str_from(p->ns), str_from(p->name), str_from(p->uid)).p);
	if (e) {
		log_and_free(e, "removing pod %s/%s", p->ns, p->name);
		retry(p, 2000);
		return;
	}
	cgroup_pod_remove(p->k, str_from(p->uid));
	p->removed = true;
}

static void sync_pod(struct pod *p)
{
	arena_cleanup struct arena a = {0};
	struct core_v1_pod *pod = NULL;
	hold_cleanup struct block *hold = NULL;
	struct kubelet *k = p->k;
	struct plan plan;
	struct error *e;

	k->n_syncs++;
	if (p->spec) {
		e = pod_decode(p, &a, &pod, &hold);
		if (e) {
			log_and_free(e, "sync");
			return;
		}
	}
	if (!p->start_time)
		p->start_time = wall_ns() / 1000000000;
	if (!p->view || p->view_stale) {
		struct view *v;

		p->view_stale = false;
		p->fetching = true;
		e = view_fetch(k, str_from(p->uid), &v);
		p->fetching = false;
		if (e) {
			log_v(2, "pod %s/%s: %s", p->ns, p->name, e->message);
			error_free(e);
			p->view_stale = true;
			retry(p, RESYNC_MS);
			return;
		}
		view_unref(p->view);
		p->view = v;
	}
	read_messages(p, &a);
	if (!p->terminating && pod->spec.active_deadline_seconds) {
		int64_t left = p->start_time + *pod->spec.active_deadline_seconds - wall_ns() / 1000000000;

		if (left <= 0)
			pod_fail(p, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline", spec_grace(pod), false);
		else
			pod_kick_at(p, now_ms() + left * 1000 + 500);
	}
	if (p->is_static)
		mirror_pod_ensure(p);
	if (!p->terminating && !p->admitted)
		admit(p, &a, pod);
	if (!p->terminating) {
		/* The plan points into the view it was made from, which events replace while we wait. */
		view_cleanup struct view *held = view_ref(p->view);

		plan_make(&a, p, pod, held, &plan);
		if (plan.finished) {
			p->terminating = true;
			p->kill_grace = spec_grace(pod);
		} else {
			run(p, &a, pod, &plan);
			if (!p->terminating) {
				probes_update(p, pod, p->view);
				read_messages(p, &a);
				status_update(p, &a, pod, &plan);
				if (p->token_refresh_at <= now_ms()) {
					p->volumes_dirty = true;
					p->token_refresh_at = NEVER;
					p->dirty = true;
				} else if (p->token_refresh_at != NEVER) {
					pod_kick_at(p, p->token_refresh_at);
				}
				return;
			}
		}
	}
	finish(p, &a, pod);
}

static void worker(void *arg)
{
	struct pod *p = arg;

	while (p->dirty && !p->removed && !fiber_cancelled()) {
		p->dirty = false;
		sync_pod(p);
	}
	p->working = false;
	pod_release(p);
}
