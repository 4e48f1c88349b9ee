#include "base/flags.h"
#include "scheduler/scheduler.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "client/leaderelection.h"
#include "client/serve.h"
#include "loop/io.h"
#include "scheduler/internal.h"
#include "schema/storage.h"

#define UNSCHEDULABLE_SWEEP_MS 30000
#define CONFIG_MAX (1u << 20) /* bytes of the configuration file */

/* ---- what changes in the cluster ---- */

static bool is_terminal(const struct core_v1_pod *p)
{
	return str_eq(p->status.phase, STR("Succeeded")) || str_eq(p->status.phase, STR("Failed"));
}

const struct profile *profile_of(const struct scheduler *s, const struct core_v1_pod *p)
{
	return p->metadata.deletion_timestamp ? NULL : scheduler_profile(&s->config, p->spec.scheduler_name);
}

static struct core_v1_pod *decode_pod(struct scheduler *s, struct arena *a, const struct cached_object *o)
{
	return o ? cached_decode(s->pods, a, o) : NULL;
}

static void enqueue(struct scheduler *s, struct arena *a, const struct profile *profile, const struct core_v1_pod *p, struct str key, bool changed)
{
	int32_t priority = p->spec.priority ? *p->spec.priority : 0;

	for (uint32_t m = profile->on[POINT_PRE_ENQUEUE]; m; m &= m - 1) {
		if (plugins[__builtin_ctz(m)]->pre_enqueue(p, a).code != CODE_SUCCESS) {
			queue_gate(s->queue, key, priority);
			return;
		}
	}
	queue_add(s->queue, key, priority, changed);
}

static void forget_pod(struct scheduler *s, struct str key)
{
	queue_delete(s->queue, key);
	if (cache_nomination(&s->cache, key)) {
		cache_denominate(&s->cache, key);
		queue_event(s->queue, EVENT_POD_DELETE);
	}
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
		cache_denominate(&s->cache, key);
		cache_set_pod(&s->cache, pod_info_new(p));
		queue_event(s->queue, known ? EVENT_POD_DELETE : EVENT_POD_ADD); /* a known one may have shrunk */
		return;
	}
	const struct profile *profile = profile_of(s, p);

	if (!profile) {
		queue_delete(s->queue, key);
		cache_denominate(&s->cache, key);
		return;
	}
	if (p->status.nominated_node_name.n && !map_has(&s->cache.pods, key)) /* an assumed one has its place */
		cache_nominate(&s->cache, pod_info_new(p));
	struct core_v1_pod *was = decode_pod(s, &a, old);
	bool changed = was && (!object_equal(&core_v1_pod_spec_type, &was->spec, &p->spec) ||
			       was->metadata.labels.n != p->metadata.labels.n);

	enqueue(s, &a, profile, p, key, changed);
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
	struct scheduler *s = ctx;

	queue_event(s->queue, EVENT_VOLUME);
	waitq_wake_all(&s->volume_changed);
}

/* What this process is binding is known to all once the volume says so. */
static void on_pv(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct scheduler *s = ctx;
	arena_cleanup struct arena a = {0};
	const struct core_v1_persistent_volume *v;

	if (map_has(&s->cache.assumed_volumes, (new_ ? new_ : old)->name)) {
		v = new_ ? cached_decode(s->volumes, &a, new_) : NULL;
		if (!new_ || (v && v->spec.claim_ref))
			free(map_del(&s->cache.assumed_volumes, (new_ ? new_ : old)->name));
	}
	on_volume(ctx, ev, old, new_);
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

static bool is_class(void *ctx, const struct core_v1_persistent_volume *v)
{
	return str_eq(volume_class(v), *(struct str *)ctx);
}

static size_t volumes_of_class(void *ctx, struct arena *a, struct str class, struct core_v1_persistent_volume ***out)
{
	struct core_v1_persistent_volume **v;
	size_t n = informer_list(((struct scheduler *)ctx)->volumes, a, STR_NULL, NULL, (void ***)&v), k = 0;

	for (size_t i = 0; i < n; i++)
		if (is_class(&class, v[i]))
			v[k++] = v[i];
	*out = v;
	return k;
}

static struct storage_v1_csi_node *get_csi_node(void *ctx, struct arena *a, struct str node)
{
	return informer_get(((struct scheduler *)ctx)->csi_nodes, a, STR_NULL, node);
}

static struct error *wait_volume(void *ctx, int64_t ms)
{
	struct scheduler *s = ctx;

	/* May take minutes: who waits for a provisioner holds up no other pod. */
	s->bindings--;
	waitq_wake_all(&s->binding_done);
	struct error *e = waitq_wait_ms(&s->volume_changed, ms);

	s->bindings++;
	if (error_is_sys(e, ETIMEDOUT) && !fiber_cancelled())
		error_clear(&e);
	return e;
}

/* ---- the component ---- */

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

struct flags {
	const char *config, *kubeconfig, *master, *name;
	const char *address, *cert_file, *key_file;
	int port;
	int leader_elect;            /* -1: not given */
	const char *leader_ns, *leader_name;
	int64_t lease_ms, renew_ms, retry_ms;
	int verbosity;
};

struct component {
	struct scheduler s;
	struct flags f;
};

static struct error *configure(struct component *c)
{
	struct scheduler *s = &c->s;
	struct scheduler_config *cfg = &s->config;
	const struct flags *f = &c->f;

	scheduler_config_default(cfg);
	if (f->config) {
		struct buf text buf_cleanup = {.limit = CONFIG_MAX};

		TRY(file_read(f->config, &text));
		if (text.overflow)
			return error_new("%s is larger than %u bytes", f->config, CONFIG_MAX);
		TRY(error_wrap(scheduler_config_parse(&s->config_arena, arena_str(&s->config_arena, buf_view(&text)), cfg), "%s", f->config));
	}
	/* As upstream: what the file says of the client and the lease stands; flags fill in what it does not. */
	if (f->kubeconfig && !cfg->kubeconfig)
		cfg->kubeconfig = f->kubeconfig;
	if (f->leader_elect >= 0)
		cfg->leader_elect = f->leader_elect;
	if (f->leader_ns)
		cfg->leader_ns = f->leader_ns;
	if (f->leader_name)
		cfg->leader_name = f->leader_name;
	if (f->lease_ms)
		cfg->lease_ms = f->lease_ms;
	if (f->renew_ms)
		cfg->renew_ms = f->renew_ms;
	if (f->retry_ms)
		cfg->retry_ms = f->retry_ms;
	if (f->name)
		cfg->profiles[0].name = str_from(f->name);
	return NULL;
}

static struct error *lead(struct scheduler *s, struct arena *a)
{
	const struct scheduler_config *cfg = &s->config;
	char host[65] = "", uuid[37];

	if (!cfg->leader_elect)
		return NULL;
	gethostname(host, sizeof host - 1);
	random_uuid(uuid);
	struct leader_opts o = {.client = s->client, .ns = cfg->leader_ns, .name = cfg->leader_name, .lease_ms = cfg->lease_ms,
				.renew_ms = cfg->renew_ms, .retry_ms = cfg->retry_ms,
				.identity = arena_printf(a, "%s_%s", host, uuid).p};

	return leader_acquire(&o, lost_lease, s);
}

static const char *unready(void *ctx)
{
	return NULL; /* it answers, so its loop turns; one that waits for the lease is as ready as upstream's */
}

static void ignore(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
}

static struct error *start(struct scheduler *s)
{
	s->nodes = watch(s, &core_v1_nodes_resource, NULL, on_node);
	s->namespaces = watch(s, &core_v1_namespaces_resource, NULL, on_namespace);
	s->claims = watch(s, &core_v1_persistentvolumeclaims_resource, NULL, on_volume);
	s->volumes = watch(s, &core_v1_persistentvolumes_resource, NULL, on_pv);
	s->classes = watch(s, &storage_v1_storageclasses_resource, NULL, on_volume);
	s->csi_nodes = watch(s, &storage_v1_csinodes_resource, NULL, on_volume);
	s->services = watch(s, &core_v1_services_resource, NULL, on_service);
	s->rcs = watch(s, &core_v1_replicationcontrollers_resource, NULL, ignore);
	s->sets = watch(s, &apps_v1_replicasets_resource, NULL, ignore);
	s->statefulsets = watch(s, &apps_v1_statefulsets_resource, NULL, ignore);
	s->budgets = watch(s, &policy_v1_poddisruptionbudgets_resource, NULL, ignore);
	s->pods = watch(s, &core_v1_pods_resource, "status.phase!=Succeeded,status.phase!=Failed", on_pod);
	struct informer *all[] = {s->nodes, s->namespaces, s->claims, s->volumes, s->classes, s->csi_nodes, s->services, s->rcs, s->sets,
				  s->statefulsets, s->budgets, s->pods};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		TRY(informer_wait_synced(all[i]));
	s->ready = true;
	log_info("scheduling: %zu nodes, %zu pods known", s->cache.n_nodes, s->cache.pods.n);
	fiber_spawn("schedule", loop_fiber, s);
	fiber_spawn("sweep", sweep, s);
	return NULL;
}

static struct error *run(struct component *c)
{
	struct scheduler *s = &c->s;
	const struct flags *f = &c->f;
	arena_cleanup struct arena a = {0};
	struct client_config cfg = {0};
	static const int stop[] = {SIGTERM, SIGINT};
	int sig;

	TRY(configure(c));
	if (s->config.kubeconfig)
		TRY(client_config_load(&a, s->config.kubeconfig, NULL, &cfg));
	else if (!f->master)
		TRY(client_config_in_cluster(&a, &cfg));
	if (f->master)
		cfg.server = f->master;
	cfg.user_agent = "kube-scheduler/v1.36.0 (skiff)";
	TRY(client_new(&cfg, &s->client));
	s->events = event_recorder_new(s->client, arena_strz(&s->config_arena, s->config.profiles[0].name), "");
	s->queue = queue_new(s->config.backoff_min_ms, s->config.backoff_max_ms);
	s->volume_lister = (struct volume_lister){s, get_claim, get_volume, get_class, volumes_of_class, get_csi_node, wait_volume};
	s->owner_lister = (struct owner_lister){s, owners_selector};
	s->budget_lister = (struct budget_lister){s, owners_budgets};
	TRY(component_serve(&(struct serve_opts){.name = "kube-scheduler", .address = f->address, .port = f->port, .cert_file = f->cert_file,
						 .key_file = f->key_file, .client = s->client, .unready = unready, .metrics = scheduler_metrics,
						 .ctx = s}));
	TRY(lead(s, &a));
	TRY(start(s));
	TRY(signal_wait(stop, 2, &sig));
	log_info("signal %d: ending", sig);
	if (s->config.leader_elect)
		leader_release();
	return NULL;
}

static void main_fiber(void *arg)
{
	struct component *c = arg;
	struct error *e = run(c);

	if (e)
		c->s.error = e;
}

static const char usage[] = "usage: kube-scheduler [options]\nGives each pod without a node one.\n\n"
	"  --config FILE          KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): profiles, plugins, their arguments\n"
	"  --kubeconfig FILE      how to reach the API server (default: the service account of the pod it runs in)\n"
	"  --master URL           address of the API server, instead of the kubeconfig's\n"
	"  --bind-address IP      where to serve /healthz, /livez, /readyz and /metrics (default 0.0.0.0)\n"
	"  --secure-port N        their port, HTTPS (default 10259); 0: none\n"
	"  --tls-cert-file FILE, --tls-private-key-file FILE\n"
	"                         serving certificate (default: made at start, in memory)\n"
	"  --leader-elect=BOOL    only one of several schedulers works (default true)\n"
	"  --leader-elect-resource-namespace NS, --leader-elect-resource-name NAME\n"
	"                         the Lease (default kube-system, kube-scheduler)\n"
	"  --leader-elect-lease-duration D (15s), --leader-elect-renew-deadline D (10s), --leader-elect-retry-period D (2s)\n"
	"  --scheduler-name NAME  of the first profile: serve pods with this spec.schedulerName (default default-scheduler)\n"
	"  --v N                  log more\n"
	"  --version, --help\n";

enum {
	OPT_KUBECONFIG = 256, OPT_LEADER, OPT_LEADER_NS, OPT_LEADER_NAME, OPT_VERSION, OPT_NAME, OPT_CONFIG, OPT_MASTER, OPT_ADDRESS, OPT_PORT,
	OPT_CERT, OPT_KEY, OPT_LEASE, OPT_RENEW, OPT_RETRY, OPT_IGNORED,
};

static const struct option options[] = {
	{"kubeconfig", required_argument, NULL, OPT_KUBECONFIG},
	{"config", required_argument, NULL, OPT_CONFIG},
	{"master", required_argument, NULL, OPT_MASTER},
	{"bind-address", required_argument, NULL, OPT_ADDRESS},
	{"secure-port", required_argument, NULL, OPT_PORT},
	{"tls-cert-file", required_argument, NULL, OPT_CERT},
	{"tls-private-key-file", required_argument, NULL, OPT_KEY},
	{"leader-elect", optional_argument, NULL, OPT_LEADER},
	{"leader-elect-resource-namespace", required_argument, NULL, OPT_LEADER_NS},
	{"leader-elect-resource-name", required_argument, NULL, OPT_LEADER_NAME},
	{"leader-elect-lease-duration", required_argument, NULL, OPT_LEASE},
	{"leader-elect-renew-deadline", required_argument, NULL, OPT_RENEW},
	{"leader-elect-retry-period", required_argument, NULL, OPT_RETRY},
	{"leader-elect-resource-lock", required_argument, NULL, OPT_IGNORED},
	{"scheduler-name", required_argument, NULL, OPT_NAME},
	/* Upstream's, without meaning here: tokens are reviewed by the one client there is; requests are not limited. */
	{"authentication-kubeconfig", required_argument, NULL, OPT_IGNORED},
	{"authorization-kubeconfig", required_argument, NULL, OPT_IGNORED},
	{"client-ca-file", required_argument, NULL, OPT_IGNORED},
	{"requestheader-client-ca-file", required_argument, NULL, OPT_IGNORED},
	{"profiling", optional_argument, NULL, OPT_IGNORED},
	{"kube-api-qps", required_argument, NULL, OPT_IGNORED},
	{"kube-api-burst", required_argument, NULL, OPT_IGNORED},
	{"v", required_argument, NULL, 'v'},
	{"version", no_argument, NULL, OPT_VERSION},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static bool parse_duration(const char *arg, int64_t *ms)
{
	int64_t ns;

	if (!duration_parse(str_from(arg), &ns) || ns <= 0)
		return false;
	*ms = ns / 1000000;
	return true;
}

static bool parse_bool(const char *arg, int *out)
{
	if (!arg || !strcmp(arg, "true") || !strcmp(arg, "1"))
		*out = 1;
	else if (!strcmp(arg, "false") || !strcmp(arg, "0"))
		*out = 0;
	else
		return false;
	return true;
}

static bool parse_int(const char *arg, int max, int *out)
{
	int64_t v;

	if (!str_to_i64(str_from(arg), &v) || v < 0 || v > max)
		return false;
	*out = (int)v;
	return true;
}

static const struct upstream_flags upstream = {
	"kube-scheduler",
	UPSTREAM_LOG_FLAGS UPSTREAM_SERVING_FLAGS
	"pod-max-in-unschedulable-pods-duration",
	"tls-sni-cert-key write-config-to",
};

/* -1: go on; else the exit status. */
static int parse_flags(int argc, char **argv, struct flags *f)
{
	int index = 0;

	int sifted = upstream_flags_sift(&upstream, options, &argc, argv);

	if (sifted)
		return sifted;
	optind = 1;
	for (int o; (o = getopt_long(argc, argv, "v:h", options, &index)) != -1;) {
		bool ok = true;

		switch (o) {
		case OPT_KUBECONFIG: f->kubeconfig = optarg; break;
		case OPT_CONFIG: f->config = optarg; break;
		case OPT_MASTER: f->master = optarg; break;
		case OPT_ADDRESS: f->address = optarg; break;
		case OPT_PORT: ok = parse_int(optarg, 65535, &f->port); break;
		case OPT_CERT: f->cert_file = optarg; break;
		case OPT_KEY: f->key_file = optarg; break;
		case OPT_LEADER: ok = parse_bool(optarg, &f->leader_elect); break;
		case OPT_LEADER_NS: f->leader_ns = optarg; break;
		case OPT_LEADER_NAME: f->leader_name = optarg; break;
		case OPT_LEASE: ok = parse_duration(optarg, &f->lease_ms); break;
		case OPT_RENEW: ok = parse_duration(optarg, &f->renew_ms); break;
		case OPT_RETRY: ok = parse_duration(optarg, &f->retry_ms); break;
		case OPT_NAME: f->name = optarg; break;
		case OPT_IGNORED: break;
		case 'v': ok = parse_int(optarg, 10, &f->verbosity); break;
		case OPT_VERSION: printf("Kubernetes v1.36.0+skiff\n"); return 0;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs("See kube-scheduler --help.\n", stderr); return 2;
		}
		if (!ok) {
			fprintf(stderr, "kube-scheduler: --%s: \"%s\" is not a value of this flag\n", o == 'v' ? "v" : options[index].name,
				optarg ? optarg : "");
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "kube-scheduler: unexpected argument \"%s\"\n", argv[optind]);
		return 2;
	}
	return -1;
}

int kube_scheduler_main(int argc, char **argv)
{
	static struct component component; /* goes with the process */
	struct component *c = &component;

	c->f = (struct flags){.address = "0.0.0.0", .port = 10259, .leader_elect = -1};
	int status = parse_flags(argc, argv, &c->f);

	if (status >= 0)
		return status;
	log_init("kube-scheduler", c->f.verbosity);
	struct error *e = loop_run(main_fiber, c);

	if (!e)
		e = c->s.error;
	status = e && !error_is_sys(e, ECANCELED);
	if (status)
		log_and_free(e, "kube-scheduler");
	else
		error_free(e);
	return status;
}
