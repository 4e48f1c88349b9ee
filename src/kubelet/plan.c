/* kubelet/plan.c: what must be done for a pod, from its object and the view of the runtime. Pure. */
#include "kubelet/internal.h"

#include <stdio.h>

bool container_is_sidecar(const struct core_v1_container *c)
{
	return c->restart_policy && str_eqz(*c->restart_policy, "Always");
}

static bool policy_restarts(struct str policy, bool once, int32_t exit_code)
{
	if (str_eqz(policy, "Never"))
		return false;
	if (str_eqz(policy, "OnFailure") || once)
		return exit_code != 0;
	return true;
}

bool container_restarts(const struct core_v1_pod *pod, const struct core_v1_container *c, enum container_kind kind, int32_t exit_code)
{
	if (kind == CONTAINER_EPHEMERAL)
		return false;
	for (uint32_t i = 0; i < c->restart_policy_rules.n; i++) {
		const struct core_v1_container_restart_rule *r = &c->restart_policy_rules.v[i];
		bool in = false;

		if (!r->exit_codes)
			continue;
		for (uint32_t j = 0; j < r->exit_codes->values.n; j++)
			in |= r->exit_codes->values.v[j] == exit_code;
		if (in == str_eqz(r->exit_codes->operator, "In"))
			return true;
	}
	if (kind == CONTAINER_INIT && container_is_sidecar(c))
		return true;
	/* An init container that succeeded is never run again in its sandbox. */
	if (c->restart_policy && c->restart_policy->n)
		return policy_restarts(*c->restart_policy, kind == CONTAINER_INIT, exit_code);
	return policy_restarts(pod->spec.restart_policy, kind == CONTAINER_INIT, exit_code);
}

/*
 * FNV-1a (32 bit) over Go's "%#v" of the JSON bytes, as upstream's kubelet makes its annotation: containers that
 * it started are recognised here, and the other way round.
 */
struct str container_hash(struct arena *a, const struct core_v1_container *c)
{
	buf_cleanup struct buf json = {0}, text = {0};
	uint32_t h = 2166136261u;

	buf_puts(&json, "{\"image\":\"");
	buf_str(&json, c->image);
	buf_puts(&json, "\",\"name\":\"");
	buf_str(&json, c->name);
	buf_puts(&json, "\"}");
	buf_puts(&text, "([]uint8)[");
	for (size_t i = 0; i < json.n; i++)
		buf_printf(&text, "%s%u", i ? " " : "", (unsigned char)json.p[i]);
	buf_puts(&text, "]");
	for (size_t i = 0; i < text.n; i++)
		h = (h ^ (unsigned char)text.p[i]) * 16777619u;
	return arena_printf(a, "%x", h);
}

const struct core_v1_container *pod_find_container(const struct core_v1_pod *pod, struct str name, enum container_kind *kind)
{
	const struct core_v1_pod_spec *s = &pod->spec;
	enum container_kind k;
	enum container_kind *out = kind ? kind : &k;

	for (uint32_t i = 0; i < s->containers.n; i++)
		if (str_eq(s->containers.v[i].name, name)) {
			*out = CONTAINER_MAIN;
			return &s->containers.v[i];
		}
	for (uint32_t i = 0; i < s->init_containers.n; i++)
		if (str_eq(s->init_containers.v[i].name, name)) {
			*out = CONTAINER_INIT;
			return &s->init_containers.v[i];
		}
	for (uint32_t i = 0; i < s->ephemeral_containers.n; i++)
		if (str_eq(s->ephemeral_containers.v[i].ephemeral_container_common.name, name)) {
			*out = CONTAINER_EPHEMERAL;
			return EPHEMERAL_CONTAINER(&s->ephemeral_containers.v[i]);
		}
	return NULL;
}

struct view_container *view_nth(const struct view *v, struct str name, unsigned n)
{
	for (uint32_t i = 0; v && i < v->containers.n; i++)
		if (str_eq(v->containers.v[i].name, name) && n-- == 0)
			return &v->containers.v[i];
	return NULL;
}

struct view_container *view_find(const struct view *v, struct str name)
{
	return view_nth(v, name, 0);
}

struct view_container *view_by_id(const struct view *v, struct str id)
{
	for (uint32_t i = 0; v && i < v->containers.n; i++)
		if (str_eq(v->containers.v[i].id, id))
			return &v->containers.v[i];
	return NULL;
}

struct planner {
	struct arena *a;
	struct pod *p;
	const struct core_v1_pod *pod;
	const struct view *v;
	struct plan *out;
	const struct view_sandbox *sandbox; /* ready, or NULL */
};

/* The newest container of that name in the ready sandbox. */
static struct view_container *current(struct planner *pl, struct str name)
{
	struct view_container *c = view_find(pl->v, name);

	return c && pl->sandbox && c->created_at >= pl->sandbox->created_at ? c : NULL;
}

static bool ended(const struct view_container *c)
{
	return c && c->state == CRI_CONTAINER_EXITED;
}

static bool running(const struct view_container *c)
{
	return c && c->state == CRI_CONTAINER_RUNNING;
}

static void start(struct planner *pl, const struct core_v1_container *c, enum container_kind kind, struct view_container *last)
{
	struct plan_start *s = arena_push(pl->a, &pl->out->starts);

	s->c = c;
	s->kind = kind;
	s->last = last;
	s->attempt = last ? last->attempt + 1 : 0;
}

static void kill_it(struct planner *pl, const struct view_container *c, enum container_kind kind, const char *reason, struct str message,
		    int64_t grace)
{
	struct plan_kill *k = arena_push(pl->a, &pl->out->kills);

	k->id = c->id;
	k->name = c->name;
	k->kind = kind;
	k->reason = reason;
	k->message = message;
	k->grace = grace;
}

/* A running container that has to end: changed, or a probe says so. True when it was put on the list. */
static bool check_running(struct planner *pl, const struct core_v1_container *c, enum container_kind kind, struct view_container *cur)
{
	struct cstate *cs = pod_cstate(pl->p, c->name);

	if (cur->hash.n && !str_eq(cur->hash, container_hash(pl->a, c)) && kind != CONTAINER_EPHEMERAL) {
		kill_it(pl, cur, kind, "SpecChanged",
			arena_printf(pl->a, "Container %.*s definition changed, will be restarted", STR_ARG(c->name)), -1);
		return true;
	}
	if (cs && cs->kill_reason && cs->probed_id && str_eqz(cur->id, cs->probed_id)) {
		kill_it(pl, cur, kind, cs->kill_reason, arena_str(pl->a, str_from(cs->kill_message)), cs->kill_grace);
		return true;
	}
	return false;
}

/* Whether a container that is not running is to be started, given the newest of its name (of any sandbox). */
static bool wants_start(struct planner *pl, const struct core_v1_container *c, enum container_kind kind, const struct view_container *last)
{
	if (!last || last->state == CRI_CONTAINER_CREATED || last->state == CRI_CONTAINER_UNKNOWN)
		return true;
	return last->state == CRI_CONTAINER_EXITED && container_restarts(pl->pod, c, kind, last->exit_code);
}

/* Init containers in their order. False when the pod has failed for good. */
static bool plan_inits(struct planner *pl)
{
	const struct core_v1_pod_spec *s = &pl->pod->spec;
	bool main_seen = false;

	for (uint32_t i = 0; i < s->containers.n; i++)
		main_seen |= current(pl, s->containers.v[i].name) != NULL;
	for (uint32_t i = 0; i < s->init_containers.n; i++) {
		const struct core_v1_container *c = &s->init_containers.v[i];
		struct view_container *cur = current(pl, c->name), *last = view_find(pl->v, c->name);
		bool sidecar = container_is_sidecar(c);
		struct cstate *cs;

		if (sidecar) {
			if (!running(cur)) {
				start(pl, c, CONTAINER_INIT, last);
				if (!main_seen)
					return true;
				continue;
			}
			check_running(pl, c, CONTAINER_INIT, cur);
			cs = pod_cstate(pl->p, c->name);
			if (!main_seen && c->startup_probe && !(cs && cs->startup_done && cs->probed_id && str_eqz(cur->id, cs->probed_id)))
				return true;
			if (!main_seen && cs && cs->hook_running)
				return true;
			continue;
		}
		if (main_seen)
			continue; /* they have done their work, wherever their remains are */
		if (!cur) {
			start(pl, c, CONTAINER_INIT, last);
			return true;
		}
		if (running(cur)) {
			check_running(pl, c, CONTAINER_INIT, cur);
			return true;
		}
		if (ended(cur) && cur->exit_code == 0)
			continue;
		if (!wants_start(pl, c, CONTAINER_INIT, cur))
			return false;
		start(pl, c, CONTAINER_INIT, cur);
		return true;
	}
	pl->out->inits_done = true;
	return true;
}

void plan_make(struct arena *a, struct pod *p, const struct core_v1_pod *pod, const struct view *v, struct plan *out)
{
	const struct core_v1_pod_spec *s = &pod->spec;
	struct planner pl = {.a = a, .p = p, .pod = pod, .v = v, .out = out};
	bool any = false, busy = false;

	*out = (struct plan){0};
	if (v && v->sandboxes.n) {
		if (v->sandboxes.v[0].state == CRI_SANDBOX_READY) {
			pl.sandbox = &v->sandboxes.v[0];
			out->sandbox_id = pl.sandbox->id;
			out->sandbox_attempt = pl.sandbox->attempt;
		} else {
			out->sandbox_attempt = v->sandboxes.v[0].attempt + 1;
		}
	}
	if (!pl.sandbox) {
		/* What still runs without a sandbox cannot stay. */
		for (uint32_t i = 0; v && i < v->containers.n; i++)
			if (running(&v->containers.v[i]))
				kill_it(&pl, &v->containers.v[i], CONTAINER_MAIN, "SandboxChanged",
					STR("Pod sandbox changed, it will be killed and re-created."), -1);
		for (uint32_t i = 0; i < s->containers.n; i++)
			any |= wants_start(&pl, &s->containers.v[i], CONTAINER_MAIN, view_find(v, s->containers.v[i].name)) ||
			       running(view_find(v, s->containers.v[i].name));
		/* An init container that failed for good decides, too. */
		for (uint32_t i = 0; i < s->init_containers.n; i++) {
			struct view_container *c = view_find(v, s->init_containers.v[i].name);

			if (ended(c) && c->exit_code && !wants_start(&pl, &s->init_containers.v[i], CONTAINER_INIT, c))
				any = false;
		}
		if (!any) {
			out->finished = true;
			return;
		}
		out->create_sandbox = true;
		for (uint32_t i = 0; i < s->init_containers.n; i++) {
			start(&pl, &s->init_containers.v[i], CONTAINER_INIT, view_find(v, s->init_containers.v[i].name));
			return;
		}
		out->inits_done = true;
		for (uint32_t i = 0; i < s->containers.n; i++) {
			struct view_container *last = view_find(v, s->containers.v[i].name);

			if (wants_start(&pl, &s->containers.v[i], CONTAINER_MAIN, last))
				start(&pl, &s->containers.v[i], CONTAINER_MAIN, last);
		}
		return;
	}
	if (!plan_inits(&pl)) {
		out->finished = true;
		return;
	}
	for (uint32_t i = 0; i < s->ephemeral_containers.n; i++) {
		const struct core_v1_ephemeral_container *e = &s->ephemeral_containers.v[i];
		const struct core_v1_container *c = EPHEMERAL_CONTAINER(e);

		if (view_find(v, c->name))
			continue;
		start(&pl, c, CONTAINER_EPHEMERAL, NULL);
		if (e->target_container_name.n) {
			struct view_container *t = view_find(v, e->target_container_name);

			if (running(t))
				out->starts.v[out->starts.n - 1].target_id = t->id;
		}
	}
	if (!out->inits_done)
		return;
	for (uint32_t i = 0; i < s->containers.n; i++) {
		const struct core_v1_container *c = &s->containers.v[i];
		struct view_container *cur = current(&pl, c->name), *last = view_find(v, c->name);

		if (running(cur)) {
			busy = true;
			check_running(&pl, c, CONTAINER_MAIN, cur);
		} else if (wants_start(&pl, c, CONTAINER_MAIN, last)) {
			busy = true;
			start(&pl, c, CONTAINER_MAIN, last);
		}
	}
	if (!busy) {
		out->finished = true;
		out->starts.n = 0;
	}
}

int64_t backoff_wait(int64_t backoff_ms, int64_t since_ms, int64_t now)
{
	int64_t left;

	if (backoff_ms == 0)
		return 0;
	left = since_ms + backoff_ms - now;
	return left > 0 ? left : 0;
}

void backoff_next(int64_t *backoff_ms, int64_t *at, int64_t now)
{
	/* What ran well for twice the longest wait starts again from the shortest. */
	if (*backoff_ms == 0 || now - *at > 2 * BACKOFF_MAX_MS)
		*backoff_ms = BACKOFF_INITIAL_MS;
	else
		*backoff_ms = *backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : *backoff_ms * 2;
	*at = now;
}
