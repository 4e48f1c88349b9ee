#include "scheduler/scheduler.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "client/events.h"
#include "client/informer.h"
#include "client/leaderelection.h"
#include "scheduler/framework.h"
#include "scheduler/queue.h"

#define BINDINGS_MAX 512 /* under way at once; the loop waits for one to end past that */
#define UNSCHEDULABLE_SWEEP_MS 30000

struct scheduler {
	struct client *client;
	struct event_recorder *events;
	struct cache cache;
	struct queue *queue;
	struct informer *pods, *nodes, *namespaces, *claims, *volumes, *classes;
	struct volume_lister lister;
	const char *name; /* spec.schedulerName this one serves */
	size_t bindings;
	struct waitq binding_done;
	bool leader_elect;
	const char *leader_ns, *leader_name;
	const char *kubeconfig;
	struct error *error;
};

/* ---- what changes in the cluster ---- */

static bool is_terminal(const struct core_v1_pod *p)
{
	return str_eq(p->status.phase, STR("Succeeded")) || str_eq(p->status.phase, STR("Failed"));
}

static bool is_ours(const struct scheduler *s, const struct core_v1_pod *p)
{
	return str_eqz(p->spec.scheduler_name, s->name) && !p->metadata.deletion_timestamp;
}

static struct core_v1_pod *decode_pod(struct scheduler *s, struct arena *a, const struct cached_object *o)
{
	return o ? cached_decode(s->pods, a, o) : NULL;
}

static void enqueue(struct scheduler *s, struct arena *a, const struct core_v1_pod *p, struct str key, bool changed)
{
	int32_t priority = p->spec.priority ? *p->spec.priority : 0;

	for (int i = 0; i < n_plugins; i++) {
		if (plugins[i]->pre_enqueue && plugins[i]->pre_enqueue(p, a).code != CODE_SUCCESS) {
			queue_gate(s->queue, key, priority);
			return;
		}
	}
	queue_add(s->queue, key, priority, changed);
}

static void forget_pod(struct scheduler *s, struct str key)
{
	queue_delete(s->queue, key);
	if (map_has(&s->cache.pods, key)) {
		cache_delete_pod(&s->cache, key);
		queue_event(s->queue, EVENT_POD_DELETE);
	}
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct scheduler *s = ctx;
	arena_cleanup struct arena a = {0};
	const struct cached_object *o = new_ ? new_ : old;
	struct str key = arena_printf(&a, "%.*s/%.*s", STR_ARG(o->ns), STR_ARG(o->name));
	struct core_v1_pod *p = decode_pod(s, &a, new_);

	if (!p || is_terminal(p)) {
		forget_pod(s, key);
		return;
	}
	if (p->spec.node_name.n) {
		bool known = map_has(&s->cache.pods, key);

		queue_delete(s->queue, key);
		cache_set_pod(&s->cache, pod_info_new(p));
		queue_event(s->queue, known ? EVENT_POD_DELETE : EVENT_POD_ADD); /* a known one may have shrunk */
		return;
	}
	if (!is_ours(s, p)) {
		queue_delete(s->queue, key);
		return;
	}
	struct core_v1_pod *was = decode_pod(s, &a, old);
	bool changed = was && (!object_equal(&core_v1_pod_spec_type, &was->spec, &p->spec) ||
			       was->metadata.labels.n != p->metadata.labels.n);

	enqueue(s, &a, p, key, changed);
}

static unsigned node_change(const struct core_v1_node *old, const struct core_v1_node *new_)
{
	const struct str_map *a = API_MAP(&old->metadata.labels), *b = API_MAP(&new_->metadata.labels);
	unsigned ev = 0;
	bool same = a->n == b->n;

	for (uint32_t i = 0; i < a->n && same; i++)
		same = str_eq(a->v[i].key, b->v[i].key) && str_eq(a->v[i].value, b->v[i].value);
	if (!same)
		ev |= EVENT_NODE_LABEL;
	a = API_MAP(&old->status.allocatable);
	b = API_MAP(&new_->status.allocatable);
	same = a->n == b->n;
	for (uint32_t i = 0; i < a->n && same; i++)
		same = str_eq(a->v[i].key, b->v[i].key) && str_eq(a->v[i].value, b->v[i].value);
	if (!same)
		ev |= EVENT_NODE_ALLOCATABLE;
	if (!object_equal(&core_v1_node_spec_type, &old->spec, &new_->spec))
		ev |= EVENT_NODE_TAINT;
	return ev;
}

static void on_node(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct scheduler *s = ctx;

	if (!new_) {
		cache_delete_node(&s->cache, old->name);
		return;
	}
	struct arena a = {0}; /* goes to the cache */
	struct core_v1_node *n = cached_decode(s->nodes, &a, new_);
	struct node_info *was = cache_node(&s->cache, new_->name);
	unsigned change = was ? node_change(was->node, n) : EVENT_NODE_ADD | EVENT_NODE_LABEL | EVENT_NODE_TAINT | EVENT_NODE_ALLOCATABLE;

	cache_set_node(&s->cache, n, &a);
	if (change)
		queue_event(s->queue, change);
}

static void on_namespace(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct scheduler *s = ctx;
	struct ns_info *was;

	if (!new_) {
		was = map_del(&s->cache.namespaces, old->name);
	} else {
		struct ns_info *i = xcalloc(1, sizeof *i);

		for (uint32_t k = 0; k < new_->labels.n; k++)
			*arena_push(&i->arena, &i->labels) = (struct str_pair){arena_str(&i->arena, new_->labels.v[k].key),
									      arena_str(&i->arena, new_->labels.v[k].value)};
		was = map_set(&s->cache.namespaces, new_->name, i);
	}
	if (was)
		arena_free(&was->arena);
	free(was);
}

static void on_volume(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	queue_event(((struct scheduler *)ctx)->queue, EVENT_VOLUME);
}

static struct core_v1_persistent_volume_claim *get_claim(void *ctx, struct arena *a, struct str ns, struct str name)
{
	return informer_get(((struct scheduler *)ctx)->claims, a, ns, name);
}

static struct core_v1_persistent_volume *get_volume(void *ctx, struct arena *a, struct str name)
{
	return informer_get(((struct scheduler *)ctx)->volumes, a, STR_NULL, name);
}

static struct storage_v1_storage_class *get_class(void *ctx, struct arena *a, struct str name)
{
	return informer_get(((struct scheduler *)ctx)->classes, a, STR_NULL, name);
}

/* ---- one pod ---- */

struct attempt { /* a cycle that goes on while binding */
	struct scheduler *s;
	struct arena arena;
	struct cycle cycle;
	struct core_v1_pod *pod;
	struct str key, node;
};

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
	buf_puts(&b, "}}");
	return client_patch(t->s->client, &t->arena, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name, "status",
			    PATCH_STRATEGIC, buf_view(&b), NULL, false, NULL);
}

static struct error *bind_pod(struct attempt *t)
{
	struct core_v1_binding b = {0};

	for (int i = 0; i < n_plugins; i++)
		if (plugins[i]->pre_bind && !(t->cycle.skip_filter >> i & 1))
			TRY(plugins[i]->pre_bind(&t->cycle, i, t->s->client, t->node));
	b.metadata.name = t->pod->metadata.name;
	b.metadata.namespace = t->pod->metadata.namespace;
	b.metadata.uid = t->pod->metadata.uid;
	b.target.kind = STR("Node");
	b.target.name = t->node;
	return client_create_sub(t->s->client, &t->arena, &core_v1_pods_resource, b.metadata.namespace, b.metadata.name, "binding",
				 &core_v1_binding_type, &b, NULL, NULL);
}

static void bind_fiber(void *arg)
{
	struct attempt *t = arg;
	struct scheduler *s = t->s;
	struct core_v1_object_reference r = ref(t->pod);
	struct error *e = bind_pod(t);

	if (!e) {
		queue_done(s->queue, t->key);
		event_record(s->events, &r, "Normal", "Scheduled", "Successfully assigned %.*s to %.*s", STR_ARG(t->key), STR_ARG(t->node));
	} else {
		struct pod_info *p = map_get(&s->cache.pods, t->key);

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

static struct error *evict(struct attempt *t, const struct failure *f)
{
	struct scheduler *s = t->s;

	for (size_t i = 0; i < f->n_victims; i++) {
		arena_cleanup struct arena a = {0};
		struct str ns = arena_str(&a, f->victims[i]->ns), name = arena_str(&a, f->victims[i]->name);
		struct core_v1_object_reference r = {.kind = STR("Pod"), .api_version = STR("v1"), .namespace = ns, .name = name,
						     .uid = arena_str(&a, f->victims[i]->uid)};
		struct delete_opts d = DELETE_DEFAULT;

		/* The victim may be gone when the request is answered: nothing of it is used behind this. */
		d.uid = r.uid;
		struct error *e = client_delete(s->client, &a, &core_v1_pods_resource, ns, name, &d);

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

static void failed(struct attempt *t, struct diagnosis *why, struct error *error)
{
	struct give_up_arg *g = arena_new(&t->arena, struct give_up_arg);
	struct node_info *node = NULL;

	g->t = t;
	g->f.error = error != NULL;
	if (error) {
		g->f.message = arena_str(&t->arena, str_from(error_message(error)));
		error_free(error);
	} else {
		struct str post = find_victims(&t->cycle, why, &node, &g->f.victims, &g->f.n_victims);

		g->f.rejected_by = why->rejected_by;
		g->f.nominated = node ? arena_str(&t->arena, node->name) : STR_NULL;
		/* Upstream's dynamic-resources plugin always has its word first. */
		g->f.message = post.n && why->n_nodes ? arena_printf(&t->arena, "%.*s no new claims to deallocate, %.*s",
								     STR_ARG(why->message), STR_ARG(post))
						      : arena_str(&t->arena, why->message);
	}
	t->s->bindings++;
	fiber_spawn("unschedulable", give_up_fiber, g);
}

static void schedule_one(struct scheduler *s, struct str key)
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
	if (!t->pod || t->pod->spec.node_name.n || !is_ours(s, t->pod)) {
		queue_done(s->queue, key);
		attempt_free(t);
		return;
	}
	t->cycle = (struct cycle){.a = &t->arena, .cache = &s->cache, .pod = t->pod, .info = pod_info_new(t->pod), .volumes = &s->lister};
	struct error *e = schedule_pod(&t->cycle, &node, &why);

	if (!e && node)
		assume_and_bind(t, node);
	else
		failed(t, &why, e);
}

static struct error *schedule_loop(struct scheduler *s)
{
	arena_cleanup struct arena a = {0};

	for (;;) {
		struct str key;
		int attempts;

		arena_reset(&a);
		TRY(queue_pop(s->queue, &a, &key, &attempts));
		schedule_one(s, key);
		while (s->bindings >= BINDINGS_MAX)
			TRY(waitq_wait(&s->binding_done));
		fiber_yield(); /* bindings and informers get their turn */
	}
}

/* ---- the component ---- */

static struct informer *watch(struct scheduler *s, const struct api_resource *r, const char *fields, informer_handler *h)
{
	struct informer_opts o = {.resource = r, .field_selector = str_from(fields)};
	struct informer *i = informer_new(s->client, &o);

	informer_on_event(i, h, s);
	informer_start(i);
	return i;
}

static void lost_lease(void *ctx)
{
	log_error("leader election lost; another scheduler took over");
	exit(1);
}

static void sweep(void *arg)
{
	struct scheduler *s = arg;

	for (;;) {
		struct error *e = fiber_sleep(UNSCHEDULABLE_SWEEP_MS);

		if (e) {
			error_free(e);
			return;
		}
		queue_event(s->queue, 0); /* what waits too long is tried again */
	}
}

static void loop_fiber(void *arg)
{
	struct scheduler *s = arg;

	s->error = schedule_loop(s);
}

static struct error *run(struct scheduler *s)
{
	arena_cleanup struct arena a = {0};
	struct client_config cfg = {0};
	static const int stop[] = {SIGTERM, SIGINT};
	int sig;

	TRY(s->kubeconfig ? client_config_load(&a, s->kubeconfig, NULL, &cfg) : client_config_in_cluster(&a, &cfg));
	TRY(client_new(&cfg, &s->client));
	s->events = event_recorder_new(s->client, s->name, "");
	s->queue = queue_new();
	s->lister = (struct volume_lister){s, get_claim, get_volume, get_class};
	if (s->leader_elect) {
		char host[65] = "", uuid[37];

		gethostname(host, sizeof host - 1);
		random_uuid(uuid);
		struct leader_opts o = {.client = s->client, .ns = s->leader_ns, .name = s->leader_name,
					.identity = arena_printf(&a, "%s_%s", host, uuid).p};

		TRY(leader_acquire(&o, lost_lease, s));
	}
	s->nodes = watch(s, &core_v1_nodes_resource, NULL, on_node);
	s->namespaces = watch(s, &core_v1_namespaces_resource, NULL, on_namespace);
	s->claims = watch(s, &core_v1_persistentvolumeclaims_resource, NULL, on_volume);
	s->volumes = watch(s, &core_v1_persistentvolumes_resource, NULL, on_volume);
	s->classes = watch(s, &storage_v1_storageclasses_resource, NULL, on_volume);
	s->pods = watch(s, &core_v1_pods_resource, "status.phase!=Succeeded,status.phase!=Failed", on_pod);
	struct informer *all[] = {s->nodes, s->namespaces, s->claims, s->volumes, s->classes, s->pods};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		TRY(informer_wait_synced(all[i]));
	log_info("scheduling: %zu nodes, %zu pods known", s->cache.n_nodes, s->cache.pods.n);
	fiber_spawn("schedule", loop_fiber, s);
	fiber_spawn("sweep", sweep, s);
	TRY(signal_wait(stop, 2, &sig));
	log_info("signal %d: ending", sig);
	if (s->leader_elect)
		leader_release();
	return NULL;
}

static void main_fiber(void *arg)
{
	struct scheduler *s = arg;
	struct error *e = run(s);

	if (e)
		s->error = e;
}

enum { OPT_KUBECONFIG = 256, OPT_LEADER, OPT_LEADER_NS, OPT_LEADER_NAME, OPT_VERSION, OPT_NAME };

int kube_scheduler_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"kubeconfig", required_argument, NULL, OPT_KUBECONFIG},
		{"leader-elect", optional_argument, NULL, OPT_LEADER},
		{"leader-elect-resource-namespace", required_argument, NULL, OPT_LEADER_NS},
		{"leader-elect-resource-name", required_argument, NULL, OPT_LEADER_NAME},
		{"scheduler-name", required_argument, NULL, OPT_NAME},
		{"v", required_argument, NULL, 'v'},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	static const char usage[] = "usage: kube-scheduler [options]\nGives each pod without a node one.\n\n"
		"  --kubeconfig FILE      how to reach the API server (default: the service account of the pod it runs in)\n"
		"  --leader-elect=BOOL    only one of several schedulers works (default true)\n"
		"  --leader-elect-resource-namespace NS, --leader-elect-resource-name NAME\n"
		"                         the Lease (default kube-system, kube-scheduler)\n"
		"  --scheduler-name NAME  serve pods with this spec.schedulerName (default default-scheduler)\n"
		"  --v N                  log more\n";
	struct scheduler s = {.name = "default-scheduler", .leader_elect = true, .leader_ns = "kube-system", .leader_name = "kube-scheduler"};

	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		switch (o) {
		case OPT_KUBECONFIG: s.kubeconfig = optarg; break;
		case OPT_LEADER: s.leader_elect = !optarg || strcmp(optarg, "true") == 0; break;
		case OPT_LEADER_NS: s.leader_ns = optarg; break;
		case OPT_LEADER_NAME: s.leader_name = optarg; break;
		case OPT_NAME: s.name = optarg; break;
		case 'v': log_init("kube-scheduler", atoi(optarg)); break;
		case OPT_VERSION: printf("Kubernetes v1.36.0+skiff\n"); return 0;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	}
	struct error *e = loop_run(main_fiber, &s);

	if (!e)
		e = s.error;
	if (e && !error_is_sys(e, ECANCELED)) {
		log_and_free(e, "kube-scheduler");
		return 1;
	}
	error_free(e);
	return 0;
}
