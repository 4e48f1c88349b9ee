/*
 * kubelet/probe.c: liveness, readiness and startup probes. A probe has a fiber
 * only while it runs; between runs it is an entry in a list with a time.
 */
#include "kubelet/internal.h"

#include <stdlib.h>

bool probe_feed(struct probe_state *s, bool success, int success_threshold, int failure_threshold)
{
	bool was = s->result, decided = s->decided;

	if (success) {
		s->failures = 0;
		if (s->successes < INT32_MAX)
			s->successes++;
		if (s->successes >= (success_threshold > 0 ? success_threshold : 1)) {
			s->result = true;
			s->decided = true;
		}
	} else {
		s->successes = 0;
		if (s->failures < INT32_MAX)
			s->failures++;
		if (s->failures >= (failure_threshold > 0 ? failure_threshold : 3)) {
			s->result = false;
			s->decided = true;
		}
	}
	return s->decided && (!decided || s->result != was);
}

static const char *const kind_names[PROBE_KINDS] = {"Liveness", "Readiness", "Startup"};

static const struct core_v1_probe *spec_of(const struct core_v1_container *c, enum probe_kind k)
{
	return k == PROBE_LIVENESS ? c->liveness_probe : k == PROBE_READINESS ? c->readiness_probe : c->startup_probe;
}

static void probe_unref(struct probe *p)
{
	if (--p->refs)
		return;
	free(p->container);
	free(p->container_id);
	free(p);
}

static void probe_drop(struct kubelet *k, struct probe **slot)
{
	struct probe *p = *slot;

	if (!p)
		return;
	*slot = NULL;
	p->dead = true;
	if (p->prev)
		p->prev->next = p->next;
	else
		k->probes = p->next;
	if (p->next)
		p->next->prev = p->prev;
	probe_unref(p);
}

static void drop_all(struct kubelet *k, struct cstate *cs)
{
	for (int i = 0; i < PROBE_KINDS; i++)
		probe_drop(k, &cs->probes[i]);
}

void probes_terminating(struct pod *p)
{
	for (struct cstate *cs = p->containers; cs; cs = cs->next) {
		probe_drop(p->k, &cs->probes[PROBE_LIVENESS]);
		probe_drop(p->k, &cs->probes[PROBE_STARTUP]);
	}
}

void probes_stop(struct pod *p)
{
	for (struct cstate *cs = p->containers; cs; cs = cs->next)
		drop_all(p->k, cs);
}

static struct error *attempt(struct pod *p, struct arena *a, const struct core_v1_pod *pod,
			     const struct core_v1_container *c, const struct core_v1_probe *s, struct str id,
			     struct str *warning)
{
	const struct core_v1_probe_handler *h = &s->probe_handler;
	int64_t timeout = s->timeout_seconds > 0 ? s->timeout_seconds : 1;
	struct kubelet *k = p->k;
	struct str ip = STR_NULL;

	if (pod->spec.host_network)
		ip = k->n_host_ips ? str_from(k->host_ips[0]) : STR_NULL;
	else if (p->view && p->view->sandboxes.n && p->view->sandboxes.v[0].ips.n)
		ip = arena_str(a, p->view->sandboxes.v[0].ips.v[0]);
	if (h->exec) {
		struct cri_v1_exec_sync_response resp = {0};
		struct strings cmd = {0};
		struct env_list env = {0};
		struct error *e;

		(void)env;
		for (uint32_t i = 0; i < h->exec->command.n; i++)
			*arena_push(a, &cmd) = h->exec->command.v[i];
		e = cri_exec(k, a, id, &cmd, timeout, &resp);
		if (grpc_error_code(e) == GRPC_DEADLINE_EXCEEDED) {
			error_free(e);
			return error_new("command timed out: \"%.*s\" timed out after %llds", STR_ARG(cmd.n ? cmd.v[0] : STR("")), (long long)timeout);
		}
		if (e)
			return e;
		if (resp.exit_code)
			return error_new("%.*s%.*s", STR_ARG(str_sub(resp.stdout, 0, 5120)), STR_ARG(str_sub(resp.stderr, 0, 5120)));
		return NULL;
	}
	if (h->http_get)
		return probe_http(k, a, h->http_get, c, ip, timeout, warning);
	if (h->tcp_socket)
		return probe_tcp(k, a, h->tcp_socket->port, h->tcp_socket->host, c, ip, timeout);
	if (h->grpc)
		return probe_grpc(k, a, h->grpc, ip, timeout);
	return error_new("missing probe handler");
}

static void want_restart(struct cstate *cs, const struct core_v1_probe *s, enum probe_kind kind, const char *container)
{
	if (cs->kill_reason)
		return;
	cs->kill_reason = xstrdup("Unhealthy");
	cs->kill_message = xasprintf("Container %s failed %s probe, will be restarted", container, kind == PROBE_LIVENESS ? "liveness" : "startup");
	cs->kill_grace = s->termination_grace_period_seconds ? *s->termination_grace_period_seconds : -1;
}

static bool still_runs(const struct pod *p, struct str id)
{
	const struct view_container *c = p->view ? view_by_id(p->view, id) : NULL;

	return c && c->state == CRI_CONTAINER_RUNNING;
}

static void run_probe(void *arg)
{
	struct probe *pr = arg;
	struct pod *p = pr->pod;
	struct kubelet *k = &kubelet;
	arena_cleanup struct arena a = {0};
	struct core_v1_pod *pod;
	struct block *hold = NULL;
	const struct core_v1_container *c;
	const struct core_v1_probe *s;
	enum container_kind kind;
	struct cstate *cs;
	struct str warning = STR_NULL;
	struct error *e;

	if (pr->dead)
		goto out;
	e = pod_decode(p, &a, &pod, &hold);
	if (e) {
		log_and_free(e, "probe");
		goto out;
	}
	c = pod_find_container(pod, str_from(pr->container), &kind);
	s = c ? spec_of(c, pr->kind) : NULL;
	if (!s || (p->terminating && !still_runs(p, str_from(pr->container_id))))
		goto out;
	e = attempt(p, &a, pod, c, s, str_from(pr->container_id), &warning);
	if (pr->dead || fiber_cancelled()) { /* the pod may be gone by now */
		error_free(e);
		goto out;
	}
	k->n_probe[pr->kind][e != NULL]++;
	cs = pod_cstate(p, c->name);
	if (e) {
		log_v(3, "pod %s/%s, container %s: %s probe failed: %s", p->ns, p->name, pr->container, kind_names[pr->kind], e->message);
		pod_event(p, pod, container_field_path(&a, kind, c->name).p, "Warning", "Unhealthy", "%s probe failed: %s", kind_names[pr->kind], e->message);
	} else if (warning.n) {
		pod_event(p, pod, container_field_path(&a, kind, c->name).p, "Warning", "ProbeWarning",
			  "%s probe warning: %.*s", kind_names[pr->kind], STR_ARG(warning));
	}
	if (cs && probe_feed(&pr->state, e == NULL, s->success_threshold, s->failure_threshold)) {
		bool good = pr->state.result;

		if (pr->kind == PROBE_READINESS) {
			cs->ready = good;
		} else if (!good) {
			want_restart(cs, s, pr->kind, pr->container);
		} else if (pr->kind == PROBE_STARTUP) {
			cs->startup_done = true;
			for (int i = 0; i < PROBE_KINDS; i++)
				if (cs->probes[i])
					cs->probes[i]->next_at = now_ms();
		}
		pod_kick(p);
		if (p->terminating) /* its worker waits for the containers' end */
			status_update(p, &a, pod, &(struct plan){.finished = true});
		/* Its work is done when the container has started, or is to be killed. */
		if (pr->kind == PROBE_STARTUP || (pr->kind == PROBE_LIVENESS && !good))
			pr->next_at = INT64_MAX;
	}
	error_free(e);
out:
	block_unref(hold);
	pr->running = false;
	if (pr->next_at != INT64_MAX) {
		int64_t now = now_ms();

		pr->next_at = pr->next_at + pr->period_ms > now ? pr->next_at + pr->period_ms : now + pr->period_ms;
	}
	if (!pr->dead)
		timers_poke(k);
	probe_unref(pr);
}

int64_t probes_due(struct kubelet *k, int64_t now)
{
	int64_t next = INT64_MAX;

	for (struct probe *pr = k->probes; pr; pr = pr->next) {
		struct cstate *cs;

		if (pr->running || pr->next_at == INT64_MAX)
			continue;
		if (pr->next_at > now) {
			if (pr->next_at < next)
				next = pr->next_at;
			continue;
		}
		cs = pod_cstate(pr->pod, str_from(pr->container));
		if (pr->kind != PROBE_STARTUP && cs && !cs->startup_done) {
			/* Held back until the startup probe has passed, which sets next_at. */
			pr->next_at = now + pr->period_ms;
			if (pr->next_at < next)
				next = pr->next_at;
			continue;
		}
		pr->running = true;
		pr->refs++;
		fiber_spawn("probe", run_probe, pr);
	}
	return next;
}

static void start_probe(struct pod *p, struct cstate *cs, enum probe_kind kind, const struct core_v1_probe *s, const struct view_container *c)
{
	struct kubelet *k = p->k;
	struct probe *pr = xcalloc(1, sizeof *pr);
	int64_t age = (wall_ns() - c->started_at) / 1000000, delay = (int64_t)s->initial_delay_seconds * 1000 - age;

	pr->pod = p;
	pr->kind = kind;
	pr->container = str_dupz(c->name);
	pr->container_id = str_dupz(c->id);
	pr->refs = 1;
	pr->period_ms = (s->period_seconds > 0 ? s->period_seconds : 10) * 1000ll;
	pr->next_at = now_ms() + (delay > 0 ? delay : 0);
	pr->state.result = kind == PROBE_LIVENESS || (kind == PROBE_READINESS && cs->ready);
	pr->state.decided = kind != PROBE_STARTUP;
	pr->next = k->probes;
	if (k->probes)
		k->probes->prev = pr;
	k->probes = pr;
	cs->probes[kind] = pr;
}

static void update_one(struct pod *p, const struct core_v1_pod *pod, const struct view *v, const struct core_v1_container *c, enum container_kind kind)
{
	const struct view_container *cur = view_find(v, c->name);
	struct cstate *cs = pod_cstate(p, c->name);
	bool any = false;

	if (!cur || cur->state != CRI_CONTAINER_RUNNING) {
		if (cs)
			drop_all(p->k, cs);
		return;
	}
	if (cs && cs->probed_id && str_eqz(cur->id, cs->probed_id))
		return;
	cs = pod_cstate_make(p, c->name, kind);
	drop_all(p->k, cs);
	free(cs->probed_id);
	cs->probed_id = str_dupz(cur->id);
	free(cs->kill_reason);
	free(cs->kill_message);
	cs->kill_reason = cs->kill_message = NULL;
	cs->startup_done = c->startup_probe == NULL;
	cs->ready = c->readiness_probe == NULL;
	/* Adopted after a restart of the kubelet: what it was in the API holds until a probe says otherwise. */
	for (uint32_t i = 0; i < pod->status.container_statuses.n; i++) {
		const struct core_v1_container_status *s = &pod->status.container_statuses.v[i];

		if (str_eq(s->name, c->name) && str_has_suffix(s->container_id, cur->id)) {
			cs->ready |= s->ready;
			cs->startup_done |= s->started && *s->started;
		}
	}
	if (c->startup_probe && !cs->startup_done) {
		start_probe(p, cs, PROBE_STARTUP, c->startup_probe, cur);
		any = true;
	}
	if (c->liveness_probe) {
		start_probe(p, cs, PROBE_LIVENESS, c->liveness_probe, cur);
		any = true;
	}
	if (c->readiness_probe) {
		start_probe(p, cs, PROBE_READINESS, c->readiness_probe, cur);
		any = true;
	}
	if (any)
		timers_poke(p->k);
}

void probes_update(struct pod *p, const struct core_v1_pod *pod, const struct view *v)
{
	for (uint32_t i = 0; i < pod->spec.init_containers.n; i++)
		if (container_is_sidecar(&pod->spec.init_containers.v[i]))
			update_one(p, pod, v, &pod->spec.init_containers.v[i], CONTAINER_INIT);
	for (uint32_t i = 0; i < pod->spec.containers.n; i++)
		update_one(p, pod, v, &pod->spec.containers.v[i], CONTAINER_MAIN);
}
