/* One try to place a pod: the cycle, then binding or preemption, which go on by themselves. */
#include <stdlib.h>

#include "base/buf.h"
#include "base/log.h"
#include "scheduler/internal.h"

struct attempt { /* a cycle that goes on while binding */
	struct scheduler *s;
	struct arena arena;
	struct cycle cycle;
	struct core_v1_pod *pod;
	struct str key, node;
	int64_t began_ns;
};

static void done(struct attempt *t, enum result r)
{
	observe(&t->s->stats.attempt[r], (double)(now_ns() - t->began_ns) / 1e9, seconds_bounds);
}

static void attempt_free(struct attempt *t)
{
	pod_info_free(t->cycle.info);
	arena_free(&t->arena);
	free(t);
}

static struct core_v1_object_reference ref(const struct core_v1_pod *pod)
{
	return object_reference(&core_v1_pods_resource, pod);
}

/* Sets the PodScheduled condition to False, and status.nominatedNodeName. */
static struct error *report(struct attempt *t, const char *reason, struct str message, struct str nominated)
{
	buf_cleanup struct buf b = {0}, text = {0};
	const struct core_v1_pod *p = t->pod;

	for (uint32_t i = 0; i < p->status.conditions.n; i++) {
		const struct core_v1_pod_condition *k = &p->status.conditions.v[i];

		/* Unchanged: not written again. */
		if (str_eqz(k->type, "PodScheduled") && str_eqz(k->status, "False") && str_eqz(k->reason, reason) &&
		    str_eq(k->message, message) && str_eq(p->status.nominated_node_name, nominated))
			return NULL;
	}
	struct core_v1_pod_condition cond = {
		.type = STR("PodScheduled"), .status = STR("False"), .reason = str_from(reason), .message = message,
		.last_transition_time = {.s = wall_ns() / 1000000000, .set = true}, .observed_generation = p->metadata.generation,
	};

	json_encode(&text, &core_v1_pod_condition_type, &cond);
	buf_printf(&b, "{\"metadata\":{\"uid\":\"%.*s\"},\"status\":{\"conditions\":[%.*s]", STR_ARG(p->metadata.uid),
		   STR_ARG(buf_view(&text)));
	if (nominated.n)
		buf_printf(&b, ",\"nominatedNodeName\":\"%.*s\"", STR_ARG(nominated));
	else if (p->status.nominated_node_name.n)
		buf_puts(&b, ",\"nominatedNodeName\":null");
	buf_puts(&b, "}}");
	return client_patch(t->s->client, &t->arena, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name, "status",
			    PATCH_STRATEGIC, buf_view(&b), NULL, false, NULL);
}

static struct error *bind_pod(struct attempt *t)
{
	struct core_v1_binding b = {0};

	for (uint32_t m = t->cycle.profile->on[POINT_PRE_BIND] & ~t->cycle.skip_filter; m; m &= m - 1) {
		int i = __builtin_ctz(m);

		TRY(plugins[i]->pre_bind(&t->cycle, i, t->s->client, t->node));
	}
	b.metadata.name = t->pod->metadata.name;
	b.metadata.namespace = t->pod->metadata.namespace;
	b.metadata.uid = t->pod->metadata.uid;
	b.target.kind = STR("Node");
	b.target.name = t->node;
	return client_create_sub(t->s->client, &t->arena, &core_v1_pods_resource, b.metadata.namespace, b.metadata.name, "binding",
				 &core_v1_binding_type, &b, NULL, NULL);
}

static void unreserve(struct attempt *t)
{
	for (int i = 0; i < n_plugins; i++)
		if (plugins[i]->unreserve)
			plugins[i]->unreserve(&t->cycle, i);
}

static void bind_fiber(void *arg)
{
	struct attempt *t = arg;
	struct scheduler *s = t->s;
	struct core_v1_object_reference r = ref(t->pod);
	struct error *e = bind_pod(t);

	if (!e) {
		queue_done(s->queue, t->key);
		done(t, RESULT_SCHEDULED);
		event_record(s->events, &r, "Normal", "Scheduled", "Successfully assigned %.*s to %.*s", STR_ARG(t->key), STR_ARG(t->node));
	} else {
		struct pod_info *p = map_get(&s->cache.pods, t->key);

		unreserve(t);
		done(t, RESULT_ERROR);
		if (p && p->assumed) {
			cache_delete_pod(&s->cache, t->key);
			queue_event(s->queue, EVENT_POD_DELETE);
		}
		if (error_is(e, 404, NULL)) {
			queue_done(s->queue, t->key); /* deleted meanwhile */
		} else {
			event_record(s->events, &r, "Warning", "FailedScheduling", "binding rejected: %s", error_message(e));
			queue_requeue(s->queue, t->key, 0, true);
			log_warn("binding %.*s to %.*s: %s", STR_ARG(t->key), STR_ARG(t->node), error_message(e));
		}
		error_free(e);
	}
	s->bindings--;
	waitq_wake_all(&s->binding_done);
	attempt_free(t);
}

static void assume_and_bind(struct attempt *t, struct node_info *node)
{
	struct scheduler *s = t->s;
	struct core_v1_pod assumed = *t->pod;

	t->node = arena_str(&t->arena, node->name);
	assumed.spec.node_name = t->node;
	struct pod_info *p = pod_info_new(&assumed);

	p->assumed = true;
	cache_denominate(&s->cache, t->key);
	cache_set_pod(&s->cache, p);
	s->bindings++;
	fiber_spawn("bind", bind_fiber, t);
}

struct failure {
	struct str message, nominated;
	uint32_t rejected_by;
	struct pod_info **victims;
	size_t n_victims;
	bool error;
};

/* Less important pods that were to come to the same node look anew. */
static void clear_nominations(struct attempt *t, struct str node)
{
	struct scheduler *s = t->s;
	struct node_info *n = cache_node(&s->cache, node);
	LIST(struct str) keys = {0};

	for (uint32_t i = 0; n && i < n->nominated.n; i++)
		if (n->nominated.v[i]->priority < t->cycle.info->priority)
			*arena_push(&t->arena, &keys) = arena_str(&t->arena, n->nominated.v[i]->key);
	for (uint32_t i = 0; i < keys.n; i++) {
		arena_cleanup struct arena a = {0};
		struct str rest = keys.v[i], ns = str_cut(&rest, '/');

		cache_denominate(&s->cache, keys.v[i]);
		struct error *e = client_patch(s->client, &a, &core_v1_pods_resource, ns, rest, "status", PATCH_MERGE,
					       STR("{\"status\":{\"nominatedNodeName\":null}}"), NULL, false, NULL);

		if (error_is(e, 404, NULL))
			error_clear(&e);
		log_and_free(e, "clearing the nomination of %.*s", STR_ARG(keys.v[i]));
	}
}

static struct error *evict(struct attempt *t, const struct failure *f)
{
	struct scheduler *s = t->s;

	for (size_t i = 0; i < f->n_victims; i++) {
		arena_cleanup struct arena a = {0};
		struct str ns = arena_str(&a, f->victims[i]->ns), name = arena_str(&a, f->victims[i]->name);
		struct core_v1_object_reference r = {.kind = STR("Pod"), .api_version = STR("v1"), .namespace = ns, .name = name,
						     .uid = arena_str(&a, f->victims[i]->uid)};
		struct delete_opts d = DELETE_DEFAULT;

		struct error *e = client_patch(s->client, &a, &core_v1_pods_resource, ns, name, "status", PATCH_STRATEGIC,
			arena_printf(&a, "{\"metadata\":{\"uid\":\"%.*s\"},\"status\":{\"conditions\":[{\"type\":\"DisruptionTarget\",\"status\":\"True\","
				     "\"reason\":\"PreemptionByScheduler\",\"message\":\"%.*s: preempting to accommodate a higher priority pod\","
				     "\"lastTransitionTime\":\"%.*s\"}]}}", STR_ARG(r.uid), STR_ARG(t->pod->spec.scheduler_name),
				     STR_ARG(time_format(&a, (struct api_time){.s = wall_ns() / 1000000000, .set = true}, false))), NULL, false, NULL);

		if (error_is(e, 404, NULL)) {
			error_free(e);
			continue;
		}
		if (e)
			return error_wrap(e, "preempting %.*s/%.*s", STR_ARG(ns), STR_ARG(name));
		d.uid = r.uid;
		e = client_delete(s->client, &a, &core_v1_pods_resource, ns, name, &d);

		if (e && !error_is(e, 404, NULL))
			return error_wrap(e, "preempting %.*s/%.*s", STR_ARG(ns), STR_ARG(name));
		error_free(e);
		event_record(s->events, &r, "Normal", "Preempted", "Preempted by pod %.*s on node %.*s", STR_ARG(t->pod->metadata.uid),
			     STR_ARG(f->nominated));
	}
	return NULL;
}

static void give_up(struct attempt *t, const struct failure *f)
{
	struct scheduler *s = t->s;
	struct core_v1_object_reference r = ref(t->pod);
	struct failure copy = *f;

	/* Copied first: eviction waits, and the cache's pods may go meanwhile. */
	copy.victims = arena_array(&t->arena, struct pod_info *, f->n_victims + 1);
	for (size_t i = 0; i < f->n_victims; i++) {
		copy.victims[i] = arena_new(&t->arena, struct pod_info);
		copy.victims[i]->ns = arena_str(&t->arena, f->victims[i]->ns);
		copy.victims[i]->name = arena_str(&t->arena, f->victims[i]->name);
		copy.victims[i]->uid = arena_str(&t->arena, f->victims[i]->uid);
	}
	event_record(s->events, &r, "Warning", "FailedScheduling", "%.*s", STR_ARG(f->message));
	struct error *e = report(t, f->error ? "SchedulerError" : "Unschedulable", f->message, f->nominated);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	log_and_free(e, "reporting that %.*s does not fit", STR_ARG(t->key));
	e = evict(t, &copy);
	log_and_free(e, "making room for %.*s", STR_ARG(t->key));
	if (f->nominated.n)
		clear_nominations(t, f->nominated);
	queue_requeue(s->queue, t->key, f->rejected_by, f->error);
	attempt_free(t);
}

struct give_up_arg {
	struct attempt *t;
	struct failure f;
};

static void give_up_fiber(void *arg)
{
	struct give_up_arg *g = arg;
	struct scheduler *s = g->t->s;

	give_up(g->t, &g->f);
	s->bindings--;
	waitq_wake_all(&s->binding_done);
}

/* At once, so that no pod of the next cycles takes the room. */
static void nominate(struct attempt *t, struct str node)
{
	struct core_v1_pod p = *t->pod;

	p.status.nominated_node_name = node;
	cache_nominate(&t->s->cache, pod_info_new(&p));
}

static void failed(struct attempt *t, struct diagnosis *why, struct error *error)
{
	struct give_up_arg *g = arena_new(&t->arena, struct give_up_arg);
	struct node_info *node = NULL;

	g->t = t;
	g->f.error = error != NULL;
	done(t, error ? RESULT_ERROR : RESULT_UNSCHEDULABLE);
	if (error) {
		g->f.message = arena_str(&t->arena, str_from(error_message(error)));
		error_free(error);
	} else {
		struct str post = find_victims(&t->cycle, why, &node, &g->f.victims, &g->f.n_victims);

		const struct pod_info *before = cache_nomination(&t->s->cache, t->key);

		g->f.rejected_by = why->rejected_by;
		/* Whoever made room keeps it while its victims are going. */
		g->f.nominated = node ? arena_str(&t->arena, node->name) :
				 before && str_contains(post, STR("terminating pod")) ? arena_str(&t->arena, before->nominated) : STR_NULL;
		nominate(t, g->f.nominated);
		if (node) {
			t->s->stats.preemptions++;
			observe(&t->s->stats.victims, (double)g->f.n_victims, victims_bounds);
		}
		/* Upstream's dynamic-resources plugin always has its word first. */
		g->f.message = post.n && why->n_nodes ? arena_printf(&t->arena, "%.*s no new claims to deallocate, %.*s",
								     STR_ARG(why->message), STR_ARG(post))
						      : arena_str(&t->arena, why->message);
	}
	t->s->bindings++;
	fiber_spawn("unschedulable", give_up_fiber, g);
}

static struct error *reserve(struct attempt *t, const struct node_info *n)
{
	for (uint32_t m = t->cycle.profile->on[POINT_RESERVE]; m; m &= m - 1) {
		int i = __builtin_ctz(m);
		struct status s = plugins[i]->reserve(&t->cycle, i, n);

		if (s.code != CODE_SUCCESS) {
			unreserve(t);
			return error_new("running Reserve plugin \"%s\": %.*s", plugins[i]->name, STR_ARG(s.reason));
		}
	}
	return NULL;
}

void schedule_one(struct scheduler *s, struct str key)
{
	struct attempt *t = xcalloc(1, sizeof *t);
	struct str ns, name, rest = key;
	struct node_info *node;
	struct diagnosis why;

	t->s = s;
	t->key = arena_str(&t->arena, key);
	ns = str_cut(&rest, '/');
	name = rest;
	t->pod = informer_get(s->pods, &t->arena, ns, name);
	const struct profile *profile = t->pod ? profile_of(s, t->pod) : NULL;

	if (!profile || t->pod->spec.node_name.n) {
		queue_done(s->queue, key);
		attempt_free(t);
		return;
	}
	t->began_ns = now_ns();
	t->cycle = (struct cycle){.a = &t->arena, .cache = &s->cache, .profile = profile, .pod = t->pod, .info = pod_info_new(t->pod),
				  .volumes = &s->volume_lister, .owners = &s->owner_lister, .budgets = &s->budget_lister};
	struct error *e = schedule_pod(&t->cycle, &node, &why);

	if (!e && node)
		e = reserve(t, node);
	if (!e && node)
		assume_and_bind(t, node);
	else
		failed(t, &why, e);
}
