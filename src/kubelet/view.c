/*
 * kubelet/view.c: what the runtime says about each pod. Kept current by CRI's
 * event stream; where the runtime has none, by a relist each 10 s.
 */
#include "kubelet/internal.h"

#include <stdlib.h>

#define RELIST_MS 10000
#define EVENT_RETRY_MS 1000

struct view *view_ref(struct view *v)
{
	v->refs++;
	return v;
}

void view_unref(struct view *v)
{
	if (v && --v->refs == 0) {
		arena_free(&v->arena);
		free(v);
	}
}

static struct view *view_new(void)
{
	struct view *v = xcalloc(1, sizeof *v);

	v->refs = 1;
	return v;
}

static struct str ann(const struct cri_v1_container_status *c, const char *name)
{
	return str_map_get(API_MAP(&c->annotations), str_from(name));
}

static void from_status(struct arena *a, const struct cri_v1_container_status *c, struct view_container *o)
{
	*o = (struct view_container){
		.id = arena_str(a, c->id),
		.name = c->metadata ? arena_str(a, c->metadata->name) : STR_NULL,
		.attempt = c->metadata ? c->metadata->attempt : 0,
		.image = c->image ? arena_str(a, c->image->user_specified_image.n ? c->image->user_specified_image : c->image->image) : STR_NULL,
		.image_ref = arena_str(a, c->image_ref),
		.image_id = arena_str(a, c->image_id),
		.reason = arena_str(a, c->reason),
		.message = arena_str(a, c->message),
		.hash = arena_str(a, ann(c, CRI_ANN_HASH)),
		.log_path = arena_str(a, c->log_path),
		.term_path = arena_str(a, ann(c, CRI_ANN_TERM_PATH)),
		.term_policy = arena_str(a, ann(c, CRI_ANN_TERM_POLICY)),
		.state = c->state,
		.created_at = c->created_at,
		.started_at = c->started_at,
		.finished_at = c->finished_at,
		.exit_code = c->exit_code,
		.stop_signal = c->stop_signal,
	};
	for (uint32_t i = 0; o->term_path.n && i < c->mounts.n; i++)
		if (str_eq(c->mounts.v[i].container_path, o->term_path))
			o->term_host_path = arena_str(a, c->mounts.v[i].host_path);
	if (c->user && c->user->linux_) {
		o->has_user = true;
		o->uid = c->user->linux_->uid;
		o->gid = c->user->linux_->gid;
		for (uint32_t i = 0; i < c->user->linux_->supplemental_groups.n && i < 256; i++)
			*arena_push(a, &o->groups) = c->user->linux_->supplemental_groups.v[i];
	}
}

static void copy_container(struct arena *a, const struct view_container *c, struct view_container *o)
{
	*o = *c;
	o->id = arena_str(a, c->id);
	o->name = arena_str(a, c->name);
	o->image = arena_str(a, c->image);
	o->image_ref = arena_str(a, c->image_ref);
	o->image_id = arena_str(a, c->image_id);
	o->reason = arena_str(a, c->reason);
	o->message = arena_str(a, c->message);
	o->hash = arena_str(a, c->hash);
	o->log_path = arena_str(a, c->log_path);
	o->term_path = arena_str(a, c->term_path);
	o->term_policy = arena_str(a, c->term_policy);
	o->term_host_path = arena_str(a, c->term_host_path);
	o->term_message = arena_str(a, c->term_message);
	memset(&o->groups, 0, sizeof o->groups);
	for (uint32_t i = 0; i < c->groups.n; i++)
		*arena_push(a, &o->groups) = c->groups.v[i];
}

static void from_sandbox(struct arena *a, const struct cri_v1_pod_sandbox_status *s, struct view_sandbox *o)
{
	*o = (struct view_sandbox){
		.id = arena_str(a, s->id),
		.attempt = s->metadata ? s->metadata->attempt : 0,
		.state = s->state,
		.created_at = s->created_at,
	};
	if (s->network && s->network->ip.n) {
		*arena_push(a, &o->ips) = arena_str(a, s->network->ip);
		for (uint32_t i = 0; i < s->network->additional_ips.n && i < 8; i++)
			*arena_push(a, &o->ips) = arena_str(a, s->network->additional_ips.v[i].ip);
	}
}

static void copy_sandbox(struct arena *a, const struct view_sandbox *s, struct view_sandbox *o)
{
	*o = *s;
	o->id = arena_str(a, s->id);
	o->ips = (struct strings){0};
	for (uint32_t i = 0; i < s->ips.n; i++)
		*arena_push(a, &o->ips) = arena_str(a, s->ips.v[i]);
}

static int by_newest_container(const void *x, const void *y)
{
	const struct view_container *a = x, *b = y;

	if (a->created_at != b->created_at)
		return a->created_at < b->created_at ? 1 : -1;
	return a->attempt < b->attempt ? 1 : a->attempt > b->attempt ? -1 : 0;
}

static int by_newest_sandbox(const void *x, const void *y)
{
	const struct view_sandbox *a = x, *b = y;

	if (a->created_at != b->created_at)
		return a->created_at < b->created_at ? 1 : -1;
	return a->attempt < b->attempt ? 1 : a->attempt > b->attempt ? -1 : 0;
}

static void sort(struct view *v)
{
	if (v->containers.n)
		qsort(v->containers.v, v->containers.n, sizeof *v->containers.v, by_newest_container);
	if (v->sandboxes.n)
		qsort(v->sandboxes.v, v->sandboxes.n, sizeof *v->sandboxes.v, by_newest_sandbox);
}

/* States only go forward: an event that was under way while we asked directly must not turn time back. */
static bool stale_container(const struct view *old, const struct cri_v1_container_status *c)
{
	struct view_container *o = view_by_id(old, c->id);

	return o && o->state <= CRI_CONTAINER_EXITED && c->state < o->state;
}

struct view *view_merge(const struct view *old, const struct cri_v1_pod_sandbox_status *sandbox,
			const struct cri_v1_container_status *containers, size_t n, struct str deleted_id)
{
	struct view *v = view_new();
	struct arena *a = &v->arena;

	for (size_t i = 0; i < n; i++) {
		if (str_eq(containers[i].id, deleted_id) || stale_container(old, &containers[i]))
			continue;
		struct view_container *o = arena_push(a, &v->containers), *was = view_by_id(old, containers[i].id);

		from_status(a, &containers[i], o);
		if (was && was->term_read && o->state == CRI_CONTAINER_EXITED) {
			o->term_read = true;
			o->term_message = arena_str(a, was->term_message);
		}
	}
	for (uint32_t i = 0; old && i < old->containers.n; i++)
		if (!view_by_id(v, old->containers.v[i].id) && !str_eq(old->containers.v[i].id, deleted_id))
			copy_container(a, &old->containers.v[i], arena_push(a, &v->containers));
	if (sandbox && sandbox->id.n && !str_eq(sandbox->id, deleted_id))
		from_sandbox(a, sandbox, arena_push(a, &v->sandboxes));
	for (uint32_t i = 0; old && i < old->sandboxes.n; i++) {
		const struct view_sandbox *o = &old->sandboxes.v[i];

		if (str_eq(o->id, deleted_id))
			continue;
		if (sandbox && str_eq(o->id, sandbox->id)) {
			if (o->state > v->sandboxes.v[0].state)
				v->sandboxes.v[0].state = o->state;
			if (!v->sandboxes.v[0].ips.n)
				for (uint32_t j = 0; j < o->ips.n; j++)
					*arena_push(a, &v->sandboxes.v[0].ips) = arena_str(a, o->ips.v[j]);
			continue;
		}
		copy_sandbox(a, o, arena_push(a, &v->sandboxes));
	}
	sort(v);
	return v;
}

static void publish(struct pod *p, struct view *v)
{
	view_unref(p->view);
	p->view = v;
}

struct error *view_refresh_container(struct pod *p, struct str id)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_container_status_request req = {.container_id = id};
	struct cri_v1_container_status_response resp = {0};

	TRY(CRI_CALL(p->k, &a, RUNTIME, ContainerStatus, container_status, &req, &resp));
	if (resp.status)
		publish(p, view_merge(p->view, NULL, resp.status, 1, STR_NULL));
	return NULL;
}

struct error *view_refresh_sandbox(struct pod *p, struct str id)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_pod_sandbox_status_request req = {.pod_sandbox_id = id};
	struct cri_v1_pod_sandbox_status_response resp = {0};

	TRY(CRI_CALL(p->k, &a, RUNTIME, PodSandboxStatus, pod_sandbox_status, &req, &resp));
	if (resp.status)
		publish(p, view_merge(p->view, resp.status, NULL, 0, STR_NULL));
	return NULL;
}

struct error *view_fetch(struct kubelet *k, struct str uid, struct view **out)
{
	arena_cleanup struct arena a = {0};
	struct view *v = view_new();
	struct str_pair sel = {STR(CRI_LABEL_POD_UID), uid};
	struct cri_v1_pod_sandbox_filter sf = {.label_selector = {&sel, 1, 0}};
	struct cri_v1_container_filter cf = {.label_selector = {&sel, 1, 0}};
	struct cri_v1_list_pod_sandbox_request sreq = {.filter = &sf};
	struct cri_v1_list_pod_sandbox_response sresp = {0};
	struct cri_v1_list_containers_request creq = {.filter = &cf};
	struct cri_v1_list_containers_response cresp = {0};
	struct error *e;

	e = CRI_CALL(k, &a, RUNTIME, ListPodSandbox, list_pod_sandbox, &sreq, &sresp);
	if (!e)
		e = CRI_CALL(k, &a, RUNTIME, ListContainers, list_containers, &creq, &cresp);
	for (uint32_t i = 0; !e && i < sresp.items.n; i++) {
		struct cri_v1_pod_sandbox_status_request req = {.pod_sandbox_id = sresp.items.v[i].id};
		struct cri_v1_pod_sandbox_status_response resp = {0};

		e = CRI_CALL(k, &a, RUNTIME, PodSandboxStatus, pod_sandbox_status, &req, &resp);
		if (grpc_error_code(e) == GRPC_NOT_FOUND) {
			error_clear(&e);
			continue;
		}
		if (!e && resp.status)
			from_sandbox(&v->arena, resp.status, arena_push(&v->arena, &v->sandboxes));
	}
	for (uint32_t i = 0; !e && i < cresp.containers.n; i++) {
		struct cri_v1_container_status_request req = {.container_id = cresp.containers.v[i].id};
		struct cri_v1_container_status_response resp = {0};

		e = CRI_CALL(k, &a, RUNTIME, ContainerStatus, container_status, &req, &resp);
		if (grpc_error_code(e) == GRPC_NOT_FOUND) {
			error_clear(&e);
			continue;
		}
		if (!e && resp.status)
			from_status(&v->arena, resp.status, arena_push(&v->arena, &v->containers));
	}
	if (e) {
		view_unref(v);
		return error_wrap(e, "reading the pod from the runtime");
	}
	sort(v);
	*out = v;
	return NULL;
}

/* ---- events ---- */

static struct error *on_event(void *ctx, struct str message)
{
	struct kubelet *k = ctx;
	arena_cleanup struct arena a = {0};
	struct cri_v1_container_event_response ev = {0};
	struct str uid = STR_NULL;
	struct pod *p;

	TRY(pb_decode(&a, &cri_v1_container_event_response_type, message, &ev));
	if (ev.pod_sandbox_status && ev.pod_sandbox_status->metadata)
		uid = ev.pod_sandbox_status->metadata->uid;
	for (uint32_t i = 0; !uid.n && i < ev.containers_statuses.n; i++)
		uid = str_map_get(API_MAP(&ev.containers_statuses.v[i].labels), STR(CRI_LABEL_POD_UID));
	p = pod_by_uid(k, uid);
	log_v(4, "runtime event %d of %.12s, pod %.*s%s", ev.container_event_type, ev.container_id.p ? ev.container_id.p : "", STR_ARG(uid),
	      p ? "" : " (unknown)");
	if (!p)
		return NULL;
	if (!p->view || p->view_stale || p->fetching)
		p->view_stale = true; /* what is being read may be from before this event: read once more */
	else
		publish(p, view_merge(p->view, ev.pod_sandbox_status, ev.containers_statuses.v, ev.containers_statuses.n,
				      ev.container_event_type == CRI_CONTAINER_DELETED_EVENT ? ev.container_id : STR_NULL));
	/* Creations are this kubelet's own doing and are known already. */
	if (ev.container_event_type != CRI_CONTAINER_CREATED_EVENT)
		pod_kick(p);
	return NULL;
}

struct error *cri_relist(struct kubelet *k)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_list_pod_sandbox_request sreq = {0};
	struct cri_v1_list_pod_sandbox_response sresp = {0};
	struct cri_v1_list_containers_request creq = {0};
	struct cri_v1_list_containers_response cresp = {0};
	size_t it = 0;
	void *value;

	TRY(CRI_CALL(k, &a, RUNTIME, ListPodSandbox, list_pod_sandbox, &sreq, &sresp));
	TRY(CRI_CALL(k, &a, RUNTIME, ListContainers, list_containers, &creq, &cresp));
	/* Pods whose view differs from the lists read theirs again. */
	while (map_next(&k->pods, &it, NULL, &value)) {
		struct pod *p = value;
		uint32_t sandboxes = 0, containers = 0;
		bool differs = false;

		if (!p->view)
			continue;
		for (uint32_t i = 0; i < sresp.items.n; i++) {
			const struct cri_v1_pod_sandbox *s = &sresp.items.v[i];
			bool found = false;

			if (!s->metadata || !str_eqz(s->metadata->uid, p->uid))
				continue;
			sandboxes++;
			for (uint32_t j = 0; j < p->view->sandboxes.n; j++)
				found |= str_eq(p->view->sandboxes.v[j].id, s->id) && p->view->sandboxes.v[j].state == s->state;
			differs |= !found;
		}
		for (uint32_t i = 0; i < cresp.containers.n; i++) {
			const struct cri_v1_container *c = &cresp.containers.v[i];
			struct view_container *vc;

			if (!str_eqz(str_map_get(API_MAP(&c->labels), STR(CRI_LABEL_POD_UID)), p->uid))
				continue;
			containers++;
			vc = view_by_id(p->view, c->id);
			differs |= !vc || vc->state != c->state;
		}
		if (differs || sandboxes != p->view->sandboxes.n || containers != p->view->containers.n) {
			p->view_stale = true;
			pod_kick(p);
		}
	}
	if (!k->sources_ready)
		return NULL;
	for (uint32_t i = 0; i < sresp.items.n; i++) {
		const struct cri_v1_pod_sandbox *s = &sresp.items.v[i];

		if (s->metadata && s->metadata->uid.n && !pod_by_uid(k, s->metadata->uid))
			pod_orphan(k, s->metadata->uid, s->metadata->namespace, s->metadata->name);
	}
	return NULL;
}

struct event_call {
	struct kubelet *k;
	struct error *error;
	bool done;
	struct waitq q;
};

static void event_stream(void *arg)
{
	struct event_call *c = arg;

	c->error = grpc_call_stream(c->k->cri, "/" CRI_RUNTIME_SERVICE "/GetContainerEvents", STR_NULL, on_event, c->k);
	c->done = true;
	waitq_wake_all(&c->q);
}

void cri_events_run(void *arg)
{
	struct kubelet *k = arg;
	struct error *e;
	bool said = false;

	while (!fiber_cancelled()) {
		struct event_call call = {.k = k};
		struct fiber *f = fiber_start("cri-events", event_stream, &call);

		/* The stream first, then the list: nothing is missed between them. */
		fiber_yield();
		k->events_ok = true;
		e = cri_relist(k);
		if (e)
			log_v(2, "relist: %s", e->message);
		error_clear(&e);
		while (!call.done && !fiber_cancelled()) {
			e = waitq_wait(&call.q);
			error_clear(&e);
		}
		fiber_stop(f);
		k->events_ok = false;
		if (fiber_cancelled()) {
			error_clear(&call.error);
			return;
		}
		if (grpc_error_code(call.error) == GRPC_UNIMPLEMENTED) {
			if (!said)
				log_warn("the runtime has no event stream; its state is listed every %d s", RELIST_MS / 1000);
			said = true;
			error_clear(&call.error);
			e = fiber_sleep(RELIST_MS);
			error_clear(&e);
			continue;
		}
		log_v(2, "runtime events ended: %s", call.error ? call.error->message : "end of stream");
		error_clear(&call.error);
		e = fiber_sleep(EVENT_RETRY_MS);
		error_clear(&e);
	}
}
