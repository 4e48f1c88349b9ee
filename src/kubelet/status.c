/* kubelet/status.c: the PodStatus: computed from the object, the runtime's view and what probes and starts said. */
#include "kubelet/internal.h"

#include <stdlib.h>

struct api_time time_from_ns(int64_t ns)
{
	return (struct api_time){.s = ns / 1000000000, .ns = 0, .set = ns > 0};
}

struct api_time kubelet_time_now(void)
{
	return time_from_ns(wall_ns());
}

/* ---- containers ---- */

static struct str container_id(struct kubelet *k, struct arena *a, struct str id)
{
	return arena_printf(a, "%s://%.*s", k->runtime_name ? k->runtime_name : "cri", STR_ARG(id));
}

static struct core_v1_container_state_terminated *terminated(struct kubelet *k, struct arena *a, const struct view_container *c)
{
	struct core_v1_container_state_terminated *t = arena_new(a, struct core_v1_container_state_terminated);

	t->exit_code = c->exit_code;
	t->reason = c->reason.n ? c->reason : c->exit_code ? STR("Error") : STR("Completed");
	t->message = c->term_message.n ? c->term_message : c->message;
	t->started_at = time_from_ns(c->started_at);
	t->finished_at = time_from_ns(c->finished_at);
	t->container_id = container_id(k, a, c->id);
	return t;
}

static void waiting(struct arena *a, struct core_v1_container_state *s, struct str reason, struct str message)
{
	s->waiting = arena_new(a, struct core_v1_container_state_waiting);
	s->waiting->reason = reason;
	s->waiting->message = message;
}

static struct str *signal_name(struct arena *a, int i)
{
	struct str *s;

	if (i <= 0 || i >= CRI_SIGNAL_COUNT)
		return NULL;
	s = arena_new(a, struct str);
	*s = str_from(cri_signal_names[i]);
	return s;
}

const struct core_v1_container_status *container_status_find(const void *list, struct str name)
{
	const struct { LIST(struct core_v1_container_status) l; } *s = list;

	for (uint32_t i = 0; i < s->l.n; i++)
		if (str_eq(s->l.v[i].name, name))
			return &s->l.v[i];
	return NULL;
}

/* While a resize waits the container runs with what was written of it last. */
static const struct core_v1_resource_requirements *in_force(const struct core_v1_pod *pod, const struct core_v1_container *c,
							    const struct cstate *cs, struct str id)
{
	const struct core_v1_container_status *was = container_status_find(&pod->status.container_statuses, c->name);

	return cs && (cs->resize || cs->resizing) && was && was->resources && str_eq(was->container_id, id) ? was->resources : &c->resources;
}

static void one(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct view *v, const struct core_v1_container *c,
		enum container_kind kind, bool inits_done, struct core_v1_container_status *o)
{
	struct view_container *cur = view_find(v, c->name), *last = view_nth(v, c->name, 1);
	struct cstate *cs = pod_cstate(p, c->name);
	bool sidecar = kind == CONTAINER_INIT && container_is_sidecar(c), *started = arena_new(a, bool);
	const struct core_v1_container_status *was = kind == CONTAINER_EPHEMERAL ? NULL : container_status_find(
		kind == CONTAINER_INIT ? (const void *)&pod->status.init_container_statuses : &pod->status.container_statuses, c->name);

	/* How it ended stays known when the runtime has forgotten it. */
	if (p->stopped && !cur && was && was->state.terminated) {
		*o = *was;
		return;
	}
	o->name = c->name;
	o->image = cur && cur->image.n ? cur->image : c->image;
	o->started = started;
	if (cur) {
		o->image_id = cur->image_ref.n ? cur->image_ref : cur->image_id;
		o->container_id = container_id(p->k, a, cur->id);
		o->restart_count = (int32_t)cur->attempt;
		if (last && last->state == CRI_CONTAINER_EXITED)
			o->last_state.terminated = terminated(p->k, a, last);
	}
	if (cur && cur->state == CRI_CONTAINER_RUNNING) {
		bool mine = cs && cs->probed_id && str_eqz(cur->id, cs->probed_id);

		if (cs && cs->hook_running) {
			waiting(a, &o->state, pod->spec.init_containers.n ? STR("PodInitializing") : STR("ContainerCreating"), STR_NULL);
		} else {
			o->state.running = arena_new(a, struct core_v1_container_state_running);
			o->state.running->started_at = time_from_ns(cur->started_at);
			*started = !c->startup_probe || (mine && cs->startup_done);
			if (kind == CONTAINER_MAIN || sidecar)
				o->ready = *started && (!c->readiness_probe || (mine && cs->ready));
		}
		if (c->resources.limits.n || c->resources.requests.n) {
			o->resources = arena_new(a, struct core_v1_resource_requirements);
			*o->resources = *in_force(pod, c, cs, o->container_id);
			memcpy(&o->allocated_resources, &c->resources.requests, sizeof o->allocated_resources);
		} else {
			o->resources = arena_new(a, struct core_v1_resource_requirements);
		}
		if (cur->has_user) {
			o->user = arena_new(a, struct core_v1_container_user);
			o->user->linux_ = arena_new(a, struct core_v1_linux_container_user);
			o->user->linux_->uid = cur->uid;
			o->user->linux_->gid = cur->gid;
			o->user->linux_->supplemental_groups.v = cur->groups.v;
			o->user->linux_->supplemental_groups.n = cur->groups.n;
		}
		if (c->lifecycle && c->lifecycle->stop_signal)
			o->stop_signal = signal_name(a, cur->stop_signal);
	} else if (p->stopped && cur) {
		o->state.terminated = terminated(p->k, a, cur);
	} else if (!p->stopped && cs && cs->wait_reason) {
		waiting(a, &o->state, arena_str(a, str_from(cs->wait_reason)), arena_str(a, str_trim(str_from(cs->wait_message))));
		if (cur && cur->state == CRI_CONTAINER_EXITED)
			o->last_state.terminated = terminated(p->k, a, cur);
	} else if (cur && cur->state == CRI_CONTAINER_EXITED) {
		o->state.terminated = terminated(p->k, a, cur);
	} else if (p->stopped && kind != CONTAINER_INIT && inits_done && !p->rejected) {
		o->state.terminated = arena_new(a, struct core_v1_container_state_terminated);
		o->state.terminated->exit_code = 137;
		o->state.terminated->reason = STR("ContainerStatusUnknown");
		o->state.terminated->message = STR("The container could not be located when the pod was terminated");
	} else {
		waiting(a, &o->state, pod->spec.init_containers.n ? STR("PodInitializing") : STR("ContainerCreating"), STR_NULL);
	}
	if (kind == CONTAINER_INIT && !sidecar)
		o->ready = o->state.terminated && o->state.terminated->exit_code == 0;
	for (uint32_t i = 0; cur && i < c->volume_mounts.n; i++) {
		const struct core_v1_volume_mount *m = &c->volume_mounts.v[i];
		struct core_v1_volume_mount_status *s = arena_push(a, &o->volume_mounts);

		s->name = m->name;
		s->mount_path = m->mount_path;
		s->read_only = m->read_only;
		if (m->read_only) {
			s->recursive_read_only = arena_new(a, struct str);
			*s->recursive_read_only = m->recursive_read_only && !str_eqz(*m->recursive_read_only, "Disabled") ? STR("Enabled") : STR("Disabled");
		}
	}
}

static int by_name(const void *x, const void *y)
{
	const struct core_v1_container_status *a = x, *b = y;

	return str_cmp(a->name, b->name);
}

/* ---- phase ---- */

struct str pod_phase(const struct core_v1_pod *pod, const struct core_v1_pod_status *s, bool terminal)
{
	int pending_init = 0, pending_sidecar = 0, failed_init = 0, unknown = 0, running = 0, wait = 0, stopped = 0, succeeded = 0;
	bool regular_started = false, restarts = false;

	for (uint32_t i = 0; i < pod->spec.containers.n; i++) {
		const struct core_v1_container_status *c = container_status_find(&s->container_statuses, pod->spec.containers.v[i].name);

		if (!c) {
			unknown++;
		} else if (c->state.running) {
			running++;
			regular_started = true;
		} else if (c->state.terminated) {
			stopped++;
			succeeded += c->state.terminated->exit_code == 0;
			regular_started = true;
			/* Between its end and its next start it counts as if it ran. */
			restarts |= container_restarts(pod, &pod->spec.containers.v[i], CONTAINER_MAIN, c->state.terminated->exit_code);
		} else if (c->last_state.terminated) {
			stopped++;
			regular_started = true;
		} else {
			wait++;
		}
	}
	for (uint32_t i = 0; i < pod->spec.init_containers.n; i++) {
		const struct core_v1_container_status *c = container_status_find(&s->init_container_statuses, pod->spec.init_containers.v[i].name);

		if (container_is_sidecar(&pod->spec.init_containers.v[i])) {
			/* One that ended doesn't count, one that runs keeps the pod running: it is stopped once the others have ended. */
			if (!c) {
				unknown++;
			} else if (c->state.running) {
				running++;
				pending_sidecar += !(c->started && *c->started);
			} else if (!c->state.terminated && !c->last_state.terminated) {
				pending_sidecar++;
				wait++;
			}
		} else if (!c || c->state.running) {
			pending_init++;
		} else if (c->state.terminated) {
			if (container_restarts(pod, &pod->spec.init_containers.v[i], CONTAINER_INIT, c->state.terminated->exit_code))
				pending_init++;
			else
				failed_init += c->state.terminated->exit_code != 0;
		} else {
			pending_init++;
		}
	}
	if (failed_init && (terminal || str_eqz(pod->spec.restart_policy, "Never")))
		return STR("Failed");
	if (terminal && running == 0)
		return stopped > 0 && stopped == succeeded && wait == 0 && unknown == 0 ? STR("Succeeded") : STR("Failed");
	if (failed_init || pending_init || (pending_sidecar && !regular_started))
		return STR("Pending");
	if (wait)
		return STR("Pending");
	if (running && !unknown)
		return STR("Running");
	if (!running && stopped && !unknown) {
		if (restarts)
			return STR("Running");
		if (str_eqz(pod->spec.restart_policy, "Always") || !pod->spec.restart_policy.n)
			return STR("Running");
		if (stopped == succeeded)
			return STR("Succeeded");
		return str_eqz(pod->spec.restart_policy, "Never") ? STR("Failed") : STR("Running");
	}
	return STR("Pending");
}

/* ---- conditions ---- */

static const struct core_v1_pod_condition *find_condition(const struct core_v1_pod_status *s, struct str type)
{
	for (uint32_t i = 0; s && i < s->conditions.n; i++)
		if (str_eq(s->conditions.v[i].type, type))
			return &s->conditions.v[i];
	return NULL;
}

static void condition(struct arena *a, struct core_v1_pod_status *out, const struct core_v1_pod *pod, const struct core_v1_pod_status *old,
		      struct str type, bool status, struct str reason, struct str message)
{
	struct core_v1_pod_condition *c = arena_push(a, &out->conditions);
	const struct core_v1_pod_condition *was = find_condition(old, type);

	c->type = type;
	c->status = status ? STR("True") : STR("False");
	c->reason = reason;
	c->message = message;
	c->observed_generation = pod->metadata.generation;
	c->last_transition_time = was && str_eq(was->status, c->status) && was->last_transition_time.set ? was->last_transition_time : kubelet_time_now();
}

static struct str name_list(struct arena *a, const char *what, const struct strings *names)
{
	buf_cleanup struct buf b = {0};

	if (!names->n)
		return STR_NULL;
	buf_printf(&b, "containers with %s: [", what);
	for (uint32_t i = 0; i < names->n; i++)
		buf_printf(&b, "%s%.*s", i ? " " : "", STR_ARG(names->v[i]));
	buf_putc(&b, ']');
	return arena_str(a, buf_view(&b));
}

static void conditions(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct view *v, const struct core_v1_pod_status *old,
		       struct core_v1_pod_status *out)
{
	struct strings unready = {0}, incomplete = {0};
	bool succeeded = str_eqz(out->phase, "Succeeded"), failed = str_eqz(out->phase, "Failed"), main_started = false, ready;
	struct str reason = STR_NULL, message = STR_NULL;
	buf_cleanup struct buf gates = {0};

	condition(a, out, pod, old, STR("PodReadyToStartContainers"),
		  !p->stopped && v && v->sandboxes.n && v->sandboxes.v[0].state == CRI_SANDBOX_READY, STR_NULL, STR_NULL);
	for (uint32_t i = 0; i < out->container_statuses.n; i++) {
		const struct core_v1_container_status *c = &out->container_statuses.v[i];

		main_started |= c->state.running || c->state.terminated || c->last_state.terminated;
	}
	for (uint32_t i = 0; i < pod->spec.init_containers.n; i++) {
		const struct core_v1_container *c = &pod->spec.init_containers.v[i];
		const struct core_v1_container_status *s = container_status_find(&out->init_container_statuses, c->name);
		bool sidecar = container_is_sidecar(c);

		if (!s || (sidecar ? !(s->started && *s->started) : !s->ready))
			*arena_push(a, &incomplete) = c->name;
		if (sidecar && (!s || !s->ready))
			*arena_push(a, &unready) = c->name;
	}
	for (uint32_t i = 0; i < pod->spec.containers.n; i++) {
		const struct core_v1_container_status *s = container_status_find(&out->container_statuses, pod->spec.containers.v[i].name);

		if (!s || !s->ready)
			*arena_push(a, &unready) = pod->spec.containers.v[i].name;
	}
	if (succeeded)
		condition(a, out, pod, old, STR("Initialized"), true, STR("PodCompleted"), STR_NULL);
	else if (main_started || !incomplete.n)
		condition(a, out, pod, old, STR("Initialized"), true, STR_NULL, STR_NULL);
	else
		condition(a, out, pod, old, STR("Initialized"), false, STR("ContainersNotInitialized"), name_list(a, "incomplete status", &incomplete));

	ready = !unready.n && !succeeded && !failed;
	if (succeeded)
		reason = STR("PodCompleted");
	else if (failed)
		reason = STR("PodFailed");
	else if (unready.n) {
		reason = STR("ContainersNotReady");
		message = name_list(a, "unready status", &unready);
	}
	if (ready) {
		for (uint32_t i = 0; i < pod->spec.readiness_gates.n; i++) {
			struct str type = pod->spec.readiness_gates.v[i].condition_type;
			const struct core_v1_pod_condition *c = find_condition(&pod->status, type);

			if (!c)
				buf_printf(&gates, "%scorresponding condition of pod readiness gate \"%.*s\" does not exist.", gates.n ? ", " : "",
					   STR_ARG(type));
			else if (!str_eqz(c->status, "True"))
				buf_printf(&gates, "%sthe status of pod readiness gate \"%.*s\" is not \"True\", but %.*s", gates.n ? ", " : "",
					   STR_ARG(type), STR_ARG(c->status));
		}
	}
	if (gates.n)
		condition(a, out, pod, old, STR("Ready"), false, STR("ReadinessGatesNotReady"), arena_str(a, buf_view(&gates)));
	else
		condition(a, out, pod, old, STR("Ready"), ready, reason, message);
	condition(a, out, pod, old, STR("ContainersReady"), ready, reason, message);
	condition(a, out, pod, old, STR("PodScheduled"), true, STR_NULL, STR_NULL);
	if (p->disruption_target)
		condition(a, out, pod, old, STR("DisruptionTarget"), true, STR("TerminationByKubelet"), arena_str(a, str_from(p->fail_message)));
}

/* ---- the whole ---- */

void status_make(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct view *v, const struct plan *plan,
		 const struct core_v1_pod_status *old, struct core_v1_pod_status *out)
{
	const struct core_v1_pod_spec *s = &pod->spec;
	struct kubelet *k = p->k;
	bool inits_done = true, terminal = p->stopped || (plan && plan->finished && !p->api_deleting && p->stopped);

	*out = (struct core_v1_pod_status){0};
	out->observed_generation = pod->metadata.generation;
	out->qos_class = str_from(qos_name(pod_qos(pod)));
	out->start_time = arena_new(a, struct api_time);
	*out->start_time = (struct api_time){.s = p->start_time, .set = true};
	for (int i = 0; i < k->n_host_ips; i++) {
		if (i == 0)
			out->host_ip = str_from(k->host_ips[0]);
		((struct core_v1_host_ip *)arena_push(a, &out->host_ips))->ip = str_from(k->host_ips[i]);
	}
	if (p->rejected) {
		out->phase = STR("Failed");
		out->reason = arena_str(a, str_from(p->fail_reason));
		out->message = arena_printf(a, "Pod was rejected: %s", p->fail_message);
		out->host_ip = STR_NULL;
		out->host_ips.n = 0;
		condition(a, out, pod, old, STR("PodScheduled"), true, STR_NULL, STR_NULL);
		return;
	}
	for (uint32_t i = 0; i < s->init_containers.n; i++) {
		struct core_v1_container_status *c = arena_push(a, &out->init_container_statuses);

		one(p, a, pod, v, &s->init_containers.v[i], CONTAINER_INIT, inits_done, c);
		if (!container_is_sidecar(&s->init_containers.v[i]))
			inits_done &= c->ready;
	}
	for (uint32_t i = 0; i < s->containers.n; i++)
		one(p, a, pod, v, &s->containers.v[i], CONTAINER_MAIN, inits_done, arena_push(a, &out->container_statuses));
	if (out->container_statuses.n)
		qsort(out->container_statuses.v, out->container_statuses.n, sizeof *out->container_statuses.v, by_name);
	for (uint32_t i = 0; i < s->ephemeral_containers.n; i++) {
		struct core_v1_container_status *c = arena_push(a, &out->ephemeral_container_statuses);

		one(p, a, pod, v, EPHEMERAL_CONTAINER(&s->ephemeral_containers.v[i]), CONTAINER_EPHEMERAL, true, c);
		c->started = NULL;
	}
	out->phase = pod_phase(pod, out, terminal);
	/* What ended stays ended. */
	if (str_eqz(pod->status.phase, "Succeeded") || str_eqz(pod->status.phase, "Failed")) {
		out->phase = pod->status.phase;
		out->reason = pod->status.reason;
		out->message = pod->status.message;
	}
	if (p->fail_reason && p->stopped) {
		out->phase = STR("Failed");
		out->reason = arena_str(a, str_from(p->fail_reason));
		out->message = arena_str(a, str_from(p->fail_message));
	}
	if (s->host_network) {
		for (int i = 0; i < k->n_host_ips; i++)
			((struct core_v1_pod_ip *)arena_push(a, &out->pod_ips))->ip = str_from(k->host_ips[i]);
	} else if (v && v->sandboxes.n) {
		for (uint32_t i = 0; i < v->sandboxes.v[0].ips.n; i++)
			((struct core_v1_pod_ip *)arena_push(a, &out->pod_ips))->ip = v->sandboxes.v[0].ips.v[i];
	}
	if (!out->pod_ips.n) /* kept after the end */
		for (uint32_t i = 0; i < pod->status.pod_ips.n; i++)
			*(struct core_v1_pod_ip *)arena_push(a, &out->pod_ips) = pod->status.pod_ips.v[i];
	if (out->pod_ips.n)
		out->pod_ip = out->pod_ips.v[0].ip;
	conditions(p, a, pod, v, old, out);
}

/* ---- the patch ---- */

static void ip_list(struct buf *b, const char *name, const struct core_v1_pod_ip *now, uint32_t n_now, const struct core_v1_pod_ip *was, uint32_t n_was)
{
	bool same = n_now == n_was;

	for (uint32_t i = 0; same && i < n_now; i++)
		same = str_eq(now[i].ip, was[i].ip);
	if (same)
		return;
	buf_printf(b, ",\"%s\":[", name);
	for (uint32_t i = 0; i < n_now; i++)
		buf_printf(b, "%s{\"ip\":\"%.*s\"}", i ? "," : "", STR_ARG(now[i].ip));
	/* The lists are merged by address, so what was must be told to go. */
	if (n_was)
		buf_printf(b, "%s{\"$patch\":\"replace\"}", n_now ? "," : "");
	buf_putc(b, ']');
}

static void json_text(struct buf *b, struct str s)
{
	buf_putc(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c < 0x20)
			buf_printf(b, "\\u%04x", c);
		else
			buf_putc(b, (char)c);
	}
	buf_putc(b, '"');
}

static void text_or_null(struct buf *b, const char *name, struct str s)
{
	buf_printf(b, ",\"%s\":", name);
	if (s.n)
		json_text(b, s);
	else
		buf_puts(b, "null");
}

_Static_assert(sizeof(struct core_v1_pod_ip) == sizeof(struct core_v1_host_ip), "both are one string");

void status_patch(struct arena *a, struct str uid, const struct core_v1_pod_status *old, const struct core_v1_pod_status *new_, struct buf *out)
{
	struct core_v1_pod_status s = *new_;

	memset(&s.conditions, 0, sizeof s.conditions);
	memset(&s.pod_ips, 0, sizeof s.pod_ips);
	memset(&s.host_ips, 0, sizeof s.host_ips);
	buf_puts(out, "{\"metadata\":{\"uid\":");
	json_text(out, uid);
	buf_puts(out, "},\"status\":");
	json_encode(out, &core_v1_pod_status_type, &s);
	out->n--; /* the closing brace */
	if (old->reason.n && !s.reason.n)
		buf_puts(out, ",\"reason\":null");
	if (old->message.n && !s.message.n)
		buf_puts(out, ",\"message\":null");
	if (old->container_statuses.n && !s.container_statuses.n)
		buf_puts(out, ",\"containerStatuses\":null");
	if (old->init_container_statuses.n && !s.init_container_statuses.n)
		buf_puts(out, ",\"initContainerStatuses\":null");
	ip_list(out, "podIPs", new_->pod_ips.v, new_->pod_ips.n, old->pod_ips.v, old->pod_ips.n);
	ip_list(out, "hostIPs", (void *)new_->host_ips.v, new_->host_ips.n, (void *)old->host_ips.v, old->host_ips.n);
	buf_puts(out, ",\"conditions\":[");
	for (uint32_t i = 0; i < new_->conditions.n; i++) {
		const struct core_v1_pod_condition *c = &new_->conditions.v[i];

		buf_printf(out, "%s{\"type\":", i ? "," : "");
		json_text(out, c->type);
		buf_puts(out, ",\"status\":");
		json_text(out, c->status);
		if (c->observed_generation)
			buf_printf(out, ",\"observedGeneration\":%lld", (long long)c->observed_generation);
		buf_puts(out, ",\"lastProbeTime\":null,\"lastTransitionTime\":");
		json_text(out, time_format(a, c->last_transition_time, false));
		text_or_null(out, "reason", c->reason);
		text_or_null(out, "message", c->message);
		buf_putc(out, '}');
	}
	buf_puts(out, "]}}");
}

/* ---- writing ---- */

#define PENDING_DELAY_MS 300 /* a pod that runs sooner than this is written once, not twice */

static struct error *write_status(struct pod *p, struct block *status)
{
	arena_cleanup struct arena a = {0};
	struct kubelet *k = p->k;
	struct core_v1_pod *pod;
	struct core_v1_pod_status s = {0};
	struct block *hold = NULL;
	buf_cleanup struct buf b = {0};
	struct str uid;
	struct error *e = pod_decode(p, &a, &pod, &hold);

	if (!e)
		e = json_decode(&a, &core_v1_pod_status_type, block_str(status), NULL, &s);
	if (!e) {
		uid = p->is_static ? str_from(p->mirror_uid) : pod->metadata.uid;
		status_patch(&a, uid, &pod->status, &s, &b);
		k->n_status_writes++;
		e = client_patch(k->client, &a, &core_v1_pods_resource, pod->metadata.namespace, pod->metadata.name, "status", PATCH_STRATEGIC,
				 buf_view(&b), NULL, false, NULL);
	}
	block_unref(hold);
	return e;
}

static void writer(void *arg)
{
	struct pod *p = arg;
	int64_t backoff = 200;
	struct error *e;

	while (!fiber_cancelled() && !p->removed && !p->api_gone) {
		struct block *status = p->status;
		int64_t left = p->status_after - now_ms();

		if (p->status_sent == status && !p->status_final)
			break;
		if (left > 0) {
			e = waitq_wait_ms(&p->status_q, left);
			error_free(e);
			continue;
		}
		if (p->status_sent != status) {
			block_ref(status);
			e = write_status(p, status);
			if (error_is(e, 404, NULL)) {
				error_clear(&e); /* deleted meanwhile; the watch says so, too */
			}
			if (e) {
				log_warn("pod %s/%s: writing its status: %s", p->ns, p->name, e->message);
				error_free(e);
				block_unref(status);
				e = fiber_sleep(backoff);
				error_free(e);
				backoff = backoff * 2 > 10000 ? 10000 : backoff * 2;
				continue;
			}
			block_unref(p->status_sent);
			p->status_sent = status;
			backoff = 200;
			continue;
		}
		{
			arena_cleanup struct arena a = {0};
			struct delete_opts o = {.grace_seconds = 0, .uid = str_from(p->uid)};

			e = client_delete(p->k->client, &a, &core_v1_pods_resource, str_from(p->ns), str_from(p->name), &o);
		}
		if (!e || error_is(e, 404, NULL) || error_is(e, 409, NULL)) {
			error_free(e);
			p->status_final = false;
			continue;
		}
		log_warn("pod %s/%s: deleting it after its end: %s", p->ns, p->name, e->message);
		error_free(e);
		e = fiber_sleep(backoff);
		error_free(e);
		backoff = backoff * 2 > 10000 ? 10000 : backoff * 2;
	}
	p->status_sending = false;
	pod_release(p);
}

void status_update(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct plan *plan)
{
	struct core_v1_pod_status old = {0}, s;
	buf_cleanup struct buf b = {0};
	struct error *e;

	if (p->status) {
		e = json_decode(a, &core_v1_pod_status_type, block_str(p->status), NULL, &old);
		log_and_free(e, "status");
	} else {
		old = pod->status;
	}
	status_make(p, a, pod, p->view, plan, &old, &s);
	stats_terminations(p->k, a, &old, &s);
	json_encode(&b, &core_v1_pod_status_type, &s);
	if (!p->status) {
		buf_cleanup struct buf have = {0};

		json_encode(&have, &core_v1_pod_status_type, &pod->status);
		if (str_eq(buf_view(&have), buf_view(&b))) {
			p->status = block_new(buf_view(&b));
			p->status_sent = block_ref(p->status);
		} else if (str_eqz(s.phase, "Pending") && !pod->status.start_time) {
			p->status_after = now_ms() + PENDING_DELAY_MS;
		}
	}
	if (!p->status || !str_eq(block_str(p->status), buf_view(&b))) {
		block_unref(p->status);
		p->status = block_new(buf_view(&b));
	}
	if (!str_eqz(s.phase, "Pending") || p->terminating) {
		p->status_after = 0;
		waitq_wake_all(&p->status_q);
	}
	if (!p->k->client || (p->is_static && !p->mirror_uid)) {
		return;
	}
	if ((p->status == p->status_sent && !p->status_final) || p->status_sending)
		return;
	p->status_sending = true;
	fiber_spawn("pod-status", writer, p);
}
