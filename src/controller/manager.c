#include "base/flags.h"
#include "controller/controller.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/leaderelection.h"
#include "client/serve.h"
#include "controller/common.h"

static const struct {
	const char *name, *alias, *account; /* upstream's name, its old one, the service account (NULL: the manager itself) */
	controller_start *start;
	bool off; /* unless named */
} controllers[] = {
	{"serviceaccount-controller", "serviceaccount", "service-account-controller", serviceaccount_start, false},
	{"root-ca-certificate-publisher-controller", "root-ca-cert-publisher", "root-ca-cert-publisher", root_ca_start, false},
	{"namespace-controller", "namespace", "namespace-controller", namespace_start, false},
	{"replicaset-controller", "replicaset", "replicaset-controller", replicaset_start, false},
	{"replicationcontroller-controller", "replicationcontroller", "replication-controller", replicationcontroller_start, false},
	{"deployment-controller", "deployment", "deployment-controller", deployment_start, false},
	{"endpoints-controller", "endpoint", "endpoint-controller", endpoints_start, false},
	{"endpointslice-controller", "endpointslice", "endpointslice-controller", endpointslice_start, false},
	{"endpointslice-mirroring-controller", "endpointslicemirroring", "endpointslicemirroring-controller", endpointslicemirroring_start, false},
	{"job-controller", "job", "job-controller", job_start, false},
	{"cronjob-controller", "cronjob", "cronjob-controller", cronjob_start, false},
	{"ttl-after-finished-controller", "ttl-after-finished", "ttl-after-finished-controller", ttl_after_finished_start, false},
	{"certificatesigningrequest-approving-controller", "csrapproving", "certificate-controller", csr_approving_start, false},
	{"certificatesigningrequest-signing-controller", "csrsigning", "certificate-controller", csr_signing_start, false},
	{"certificatesigningrequest-cleaner-controller", "csrcleaner", "certificate-controller", csr_cleaner_start, false},
	{"node-ipam-controller", "nodeipam", "node-controller", node_ipam_start, false},
	{"node-lifecycle-controller", "nodelifecycle", "node-controller", node_lifecycle_start, false},
	{"taint-eviction-controller", "taint-eviction-controller", "node-controller", taint_eviction_start, false},
	{"daemonset-controller", "daemonset", "daemon-set-controller", daemonset_start, false},
	{"statefulset-controller", "statefulset", "statefulset-controller", statefulset_start, false},
	{"pod-garbage-collector-controller", "podgc", "pod-garbage-collector", pod_gc_start, false},
	{"resourcequota-controller", "resourcequota", "resourcequota-controller", resource_quota_start, false},
	{"disruption-controller", "disruption", "disruption-controller", disruption_start, false},
	{"persistentvolume-binder-controller", "persistentvolume-binder", "persistent-volume-binder", pv_binder_start, false},
	{"persistentvolume-protection-controller", "pv-protection", "pv-protection-controller", pv_protection_start, false},
	{"persistentvolumeclaim-protection-controller", "pvc-protection", "pvc-protection-controller", pvc_protection_start, false},
	{"volumeattributesclass-protection-controller", "volumeattributesclass-protection-controller", "volumeattributesclass-protection-controller", vac_protection_start, false},
	{"serviceaccount-token-controller", "serviceaccount-token", NULL, sa_token_start, false},
	{"bootstrap-signer-controller", "bootstrapsigner", "bootstrap-signer", bootstrap_signer_start, true},
	{"token-cleaner-controller", "tokencleaner", "token-cleaner", token_cleaner_start, true},
	{"ttl-controller", "ttl", "ttl-controller", ttl_start, false},
	{"validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status", "validatingadmissionpolicy-status-controller",
	 policy_status_start, false},
	{"service-cidr-controller", "service-cidr-controller", "service-cidrs-controller", service_cidr_start, false},
	{"horizontal-pod-autoscaler-controller", "horizontalpodautoscaling", "horizontal-pod-autoscaler", hpa_start, false},
	{"ephemeral-volume-controller", "ephemeral-volume", "ephemeral-volume-controller", ephemeral_volume_start, false},
	/* last: takes the informers that are there */
	{"garbage-collector-controller", "garbagecollector", "generic-garbage-collector", garbage_collector_start, false},
};
#define N_CONTROLLERS (sizeof(controllers) / sizeof(*controllers))

/* ---- informers ---- */

/* Whole objects and metadata have informers of their own, where both are asked for. */
static struct str informer_key(struct arena *a, const struct api_resource *r, bool metadata_only)
{
	return arena_printf(a, "%.*s/%.*s/%.*s%s", STR_ARG(r->group), STR_ARG(r->version), STR_ARG(r->plural),
			    metadata_only ? "#metadata" : "");
}

static struct informer *informer_for(struct manager *m, const struct api_resource *r, bool metadata_only)
{
	arena_cleanup struct arena a = {0};
	struct str key = informer_key(&a, r, metadata_only);

	m = m->root;
	struct informer *i = map_get(&m->informers, key);

	if (!i && metadata_only)
		i = map_get(&m->informers, informer_key(&a, r, false));
	if (i)
		return i;
	i = informer_new(m->client, &(struct informer_opts){.resource = r, .metadata_only = metadata_only});
	map_set(&m->informers, key, i);
	informer_start(i);
	return i;
}

struct informer *manager_informer(struct manager *m, const struct api_resource *r)
{
	return informer_for(m, r, false);
}

struct informer *manager_metadata_informer(struct manager *m, const struct api_resource *r)
{
	return informer_for(m, r, true);
}

void manager_drop_informer(struct manager *m, const struct api_resource *r)
{
	arena_cleanup struct arena a = {0};
	struct informer *i = map_del(&m->root->informers, informer_key(&a, r, true));

	if (i)
		informer_stop(i);
}

/* ---- discovery ---- */

static struct {
	void (*fn)(void *ctx);
	void *ctx;
} discovery_listeners[4];
static int n_listeners;

static void on_served(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct manager *m = ctx;

	m->discovery.stale = true;
	for (int i = 0; i < n_listeners; i++)
		discovery_listeners[i].fn(discovery_listeners[i].ctx);
}

static void watch_discovery(struct manager *m)
{
	if (m->discovery.watching)
		return;
	m->discovery.watching = true;
	m->discovery.stale = true;
	informer_on_event(manager_metadata_informer(m, &apiextensions_v1_customresourcedefinitions_resource), on_served, m);
	informer_on_event(manager_metadata_informer(m, &apiregistration_v1_apiservices_resource), on_served, m);
}

void manager_on_discovery(struct manager *m, void (*fn)(void *ctx), void *ctx)
{
	if (n_listeners == 4)
		abort();
	discovery_listeners[n_listeners].fn = fn;
	discovery_listeners[n_listeners++].ctx = ctx;
	watch_discovery(m->root);
}

static struct error *discover(struct manager *m)
{
	int64_t age = now_ms() - m->discovery.at_ms;
	int64_t limit = m->discovery.stale ? 2000 : m->discovery.partial ? 30000 : 600000;

	if (m->discovery.v && age < limit)
		return NULL;
	int next = !m->discovery.current;
	const struct api_resource **v;
	size_t n;
	bool partial;

	arena_free(&m->discovery.a[next]);
	m->discovery.stale = false;
	TRY(client_discover(m->client, &m->discovery.a[next], &v, &n, &partial));
	m->discovery.current = next;
	m->discovery.v = v;
	m->discovery.n = n;
	m->discovery.partial = partial;
	m->discovery.at_ms = now_ms();
	return NULL;
}

struct error *manager_discover(struct manager *m, const struct api_resource ***v, size_t *n, bool *partial)
{
	m = m->root;
	watch_discovery(m);
	TRY(fiber_mutex_lock(&m->discovery.lock));
	struct error *e = discover(m);

	fiber_mutex_unlock(&m->discovery.lock);
	*v = m->discovery.v;
	*n = m->discovery.n;
	if (partial)
		*partial = m->discovery.partial;
	return e ? error_wrap(e, "discovery") : NULL;
}

bool manager_discovery_stale(const struct manager *m)
{
	return m->root->discovery.stale;
}

/* ---- starting ---- */

#define MAX_SYNC 12

struct starter {
	struct manager *m;
	struct workqueue *q;
	const char *name;
	int workers;
	reconcile_fn *fn;
	struct error *(*tick)(void *ctx, struct arena *a);
	int64_t ms;
	void *ctx;
	struct informer *need[MAX_SYNC];
	int n;
};

static void start_when_synced(void *arg)
{
	struct starter *s = arg;
	struct error *e = NULL;

	for (int i = 0; i < s->n && !e; i++)
		e = informer_wait_synced(s->need[i]);
	if (e) {
		error_free(e);
		free(s);
		return;
	}
	log_v(1, "starting %s", s->name);
	if (s->q) {
		workqueue_run(s->q, s->name, s->workers, s->fn, s->ctx);
		free(s);
		return;
	}
	while (!fiber_cancelled()) {
		arena_cleanup struct arena a = {0};

		e = s->tick(s->ctx, &a);
		if (e && !error_is_sys(e, ECANCELED))
			log_warn("%s: %s", s->name, error_message(e));
		error_free(e);
		e = fiber_sleep(s->ms);
		error_free(e);
	}
	free(s);
}

static void collect_needs(struct starter *s, va_list ap)
{
	struct informer *i;

	while ((i = va_arg(ap, struct informer *))) {
		if (s->n == MAX_SYNC)
			abort(); /* a controller with more informers than this room has */
		s->need[s->n++] = i;
	}
}

void controller_run(struct manager *m, struct workqueue *q, const char *name, int workers, reconcile_fn *fn, void *ctx, ...)
{
	struct starter *s = xcalloc(1, sizeof(*s));
	va_list ap;

	*s = (struct starter){.m = m, .q = q, .name = name, .workers = workers, .fn = fn, .ctx = ctx};
	va_start(ap, ctx);
	collect_needs(s, ap);
	va_end(ap);
	fiber_spawn(name, start_when_synced, s);
}

void controller_every(struct manager *m, const char *name, int64_t ms, struct error *(*fn)(void *ctx, struct arena *a), void *ctx, ...)
{
	struct starter *s = xcalloc(1, sizeof(*s));
	va_list ap;

	*s = (struct starter){.m = m, .name = name, .tick = fn, .ms = ms, .ctx = ctx};
	va_start(ap, ctx);
	collect_needs(s, ap);
	va_end(ap);
	fiber_spawn(name, start_when_synced, s);
}

struct fan {
	struct error *(*fn)(void *ctx, struct arena *a, size_t i);
	void *ctx;
	size_t next, n, failed;
	struct error *first;
};

static void fan_work(void *arg)
{
	struct fan *f = arg;
	arena_cleanup struct arena a = {0};

	while (f->next < f->n) {
		struct error *e = f->fn(f->ctx, &a, f->next++);

		arena_reset(&a);
		if (!e)
			continue;
		f->failed++;
		if (f->first)
			error_free(e);
		else
			f->first = e;
	}
}

static struct error *fan_run(size_t n, struct error *(*fn)(void *ctx, struct arena *a, size_t i), void *ctx, size_t *failed)
{
	struct fan f = {.fn = fn, .ctx = ctx, .n = n};
	struct fiber *fibers[64];
	size_t k = n < 64 ? n : 64;

	if (n == 1) {
		fan_work(&f);
	} else {
		for (size_t i = 0; i < k; i++)
			fibers[i] = fiber_start("fan-out", fan_work, &f);
		for (size_t i = 0; i < k; i++)
			fiber_join(fibers[i]);
	}
	*failed = f.failed;
	return f.first;
}

struct error *fan_out(size_t n, struct error *(*fn)(void *ctx, struct arena *a, size_t i), void *ctx)
{
	size_t failed;

	return n ? fan_run(n, fn, ctx, &failed) : NULL;
}

struct shifted {
	struct error *(*fn)(void *ctx, struct arena *a, size_t i);
	void *ctx;
	size_t from;
};

static struct error *call_shifted(void *ctx, struct arena *a, size_t i)
{
	struct shifted *s = ctx;

	return s->fn(s->ctx, a, s->from + i);
}

struct error *slow_start(size_t n, struct error *(*fn)(void *ctx, struct arena *a, size_t i), void *ctx, size_t *done)
{
	struct shifted s = {fn, ctx, 0};

	*done = 0;
	for (size_t batch = 1; s.from < n; batch *= 2) {
		size_t failed, k = batch < n - s.from ? batch : n - s.from;
		struct error *e = fan_run(k, call_shifted, &s, &failed);

		*done += k - failed;
		s.from += k;
		if (e)
			return e;
	}
	return NULL;
}

/* ---- main ---- */

static bool enabled(const struct manager_flags *f, size_t k)
{
	bool star = false;
	struct str rest = str_from(f->controllers);

	while (rest.p) {
		struct str s = str_trim(str_cut(&rest, ','));

		if (str_eqz(s, controllers[k].name) || str_eqz(s, controllers[k].alias))
			return true;
		if (s.n && s.p[0] == '-') {
			s = str_sub(s, 1, s.n);
			if (str_eqz(s, controllers[k].name) || str_eqz(s, controllers[k].alias))
				return false;
		}
		star |= str_eqz(s, "*");
	}
	return star && !controllers[k].off;
}

/* Upstream's controllers that may have no counterpart here: naming one is no mistake. */
static const char *const known_elsewhere[] = {
	"cloud-node-lifecycle-controller", "cloud-node-lifecycle",
	"clusterrole-aggregation-controller", "clusterrole-aggregation",
	"device-taint-eviction-controller",
	"kube-apiserver-serving-clustertrustbundle-publisher-controller",
	"legacy-serviceaccount-token-cleaner-controller", "legacy-service-account-token-cleaner", "node-route-controller", "route",
	"persistentvolume-attach-detach-controller", "attachdetach",
	"persistentvolume-expander-controller", "persistentvolume-expander",
	"podcertificaterequest-cleaner-controller",
	"resourceclaim-controller", "resource-claim-controller", "selinux-warning-controller",
	"service-lb-controller", "service",
	"storage-version-migrator-controller", "storageversion-garbage-collector-controller",
	"storage-version-gc",
};

static bool is_elsewhere(struct str s)
{
	for (size_t k = 0; k < sizeof(known_elsewhere) / sizeof(*known_elsewhere); k++)
		if (str_eqz(s, known_elsewhere[k]))
			return true;
	return false;
}

static bool is_here(struct str s)
{
	for (size_t k = 0; k < N_CONTROLLERS; k++)
		if (str_eqz(s, controllers[k].name) || str_eqz(s, controllers[k].alias))
			return true;
	return false;
}

/* False, with what is wrong on standard error, when --controllers names what does not exist. */
static bool check_controllers(const struct manager_flags *f)
{
	struct str rest = str_from(f->controllers);
	bool ok = true;

	while (rest.p) {
		struct str s = str_trim(str_cut(&rest, ','));

		if (str_eqz(s, "*"))
			continue;
		bool off = s.n && s.p[0] == '-';

		s = str_sub(s, off, s.n);
		if (is_here(s))
			continue;
		if (is_elsewhere(s)) {
			if (!off)
				fprintf(stderr, "kube-controller-manager: --controllers: \"%.*s\" is not built\n", STR_ARG(s));
			continue;
		}
		fprintf(stderr, "kube-controller-manager: --controllers: \"%.*s\" is not in the list of known controllers\n", STR_ARG(s));
		ok = false;
	}
	if (ok)
		return true;
	fputs("Known controllers:", stderr);
	for (size_t k = 0; k < N_CONTROLLERS; k++)
		fprintf(stderr, "%s %s", k ? "," : "", controllers[k].name);
	fputs(".\n", stderr);
	return false;
}

static void lease_lost(void *ctx)
{
	log_error("leader election lost; ending");
	_exit(1); /* at once: another leads now, and whatever we still wrote would be wrong */
}

static struct error *lead(struct manager *m, struct arena *a)
{
	char host[256] = "", uuid[37];
	const struct manager_flags *f = &m->flags;

	if (!f->leader_elect)
		return NULL;
	gethostname(host, sizeof(host) - 1);
	random_uuid(uuid);
	return leader_acquire(&(struct leader_opts){
		.client = m->client, .ns = f->leader_ns, .name = f->leader_name,
		.identity = arena_printf(a, "%s_%s", host, uuid).p,
		.lease_ms = f->leader_lease_ms, .renew_ms = f->leader_renew_ms, .retry_ms = f->leader_retry_ms}, lease_lost, NULL);
}

struct main_args {
	struct manager_flags flags;
	int status;
};

static void metrics(void *ctx, struct buf *out)
{
	struct rusage ru;

	workqueue_metrics(out);
	if (getrusage(RUSAGE_SELF, &ru) == 0)
		buf_printf(out, "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n"
				"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.3f\n",
			   (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) + (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
}

static struct error *run_manager(struct manager *m)
{
	arena_cleanup struct arena a = {0};
	struct client_config cfg;
	const struct manager_flags *f = &m->flags;

	if (f->kubeconfig) {
		TRY(client_config_load(&a, f->kubeconfig, NULL, &cfg));
	} else if (f->master) {
		cfg = (struct client_config){0};
	} else {
		TRY(client_config_in_cluster(&a, &cfg));
	}
	if (f->master)
		cfg.server = f->master;
	cfg.user_agent = "kube-controller-manager/v1.36.0 (skiff)";
	TRY(client_new(&cfg, &m->client));
	TRY(component_serve(&(struct serve_opts){.name = "kube-controller-manager", .address = f->bind_address, .port = f->secure_port,
						 .cert_file = f->cert_file, .key_file = f->key_file, .client = m->client, .metrics = metrics}));
	TRY(lead(m, &a));
	struct map accounts = {0};

	if (f->use_accounts) {
		cfg.cert_file = cfg.key_file = cfg.token = cfg.token_file = NULL;
		cfg.cert_pem = cfg.key_pem = STR_NULL;
		TRY(client_new(&cfg, &m->connection));
	}
	for (size_t k = 0; k < N_CONTROLLERS; k++) {
		struct str account = str_from(controllers[k].account);
		struct manager *as = m->connection && account.n ? map_get(&accounts, account) : m;

		if (!enabled(f, k))
			continue;
		if (!as) {
			as = manager_as(m, controllers[k].account);
			map_set(&accounts, account, as);
		}
		controllers[k].start(as);
	}
	map_free(&accounts);
	log_info("controllers started");
	return NULL;
}

static void wait_for_end(void *arg)
{
	struct fiber *main_fiber = arg;
	int sig;
	struct error *e = signal_wait((const int[]){SIGTERM, SIGINT}, 2, &sig);

	if (!e)
		log_info("signal %d: ending", sig);
	error_free(e);
	fiber_cancel(main_fiber);
}

static void main_fiber(void *arg)
{
	struct main_args *args = arg;
	struct manager *m = xcalloc(1, sizeof(*m));

	m->root = m;
	m->flags = args->flags;
	struct fiber *waiter = fiber_start("signals", wait_for_end, fiber_self());
	struct error *e = run_manager(m);

	if (e && !fiber_cancelled()) {
		log_and_free(e, "kube-controller-manager");
		args->status = 1;
	} else {
		error_free(e);
		struct waitq forever = {0};

		while (!fiber_cancelled())
			error_free(waitq_wait(&forever));
		leader_release();
	}
	fiber_stop(waiter);
	/* The process ends here: informers and queues go with it. */
}

static const char usage[] =
	"usage: skiff kube-controller-manager [flags]\n\n"
	"The controllers of a cluster: each watches the API server and makes things as the objects say.\n\n"
	"  --kubeconfig FILE                    how to reach the API server (in a pod: its service account)\n"
	"  --master URL                         address of the API server, instead of the kubeconfig's\n"
	"  --controllers LIST                   which to run: \"*\" all that are on by default, \"name\", \"-name\" (default *)\n"
	"  --leader-elect BOOL                  wait for the lease before working (default true)\n"
	"  --leader-elect-lease-duration D      (default 15s), --leader-elect-renew-deadline D (10s),\n"
	"  --leader-elect-retry-period D        (2s), --leader-elect-resource-name, --leader-elect-resource-namespace\n"
	"  --cluster-signing-cert-file FILE     CA that signs certificate requests, with\n"
	"  --cluster-signing-key-file FILE      its key; --cluster-signing-duration D (default 8760h)\n"
	"  --root-ca-file FILE                  CA of the API server, published to every namespace\n"
	"  --service-account-private-key-file FILE   signs tokens of service-account-token Secrets\n"
	"  --allocate-node-cidrs BOOL           give each node a range of --cluster-cidr (default false)\n"
	"  --cluster-cidr CIDR[,CIDR]           addresses of pods\n"
	"  --service-cluster-ip-range CIDR      addresses of Services, never given to nodes\n"
	"  --node-cidr-mask-size N              (default 24; IPv6 64), -ipv4 and -ipv6 forms too\n"
	"  --node-monitor-period D              (default 5s)\n"
	"  --node-monitor-grace-period D        a node silent for this long is unreachable (default 50s)\n"
	"  --node-startup-grace-period D        the same for a new node (default 1m)\n"
	"  --node-eviction-rate N               nodes a second of a zone whose pods are evicted (default 0.1), and\n"
	"  --secondary-node-eviction-rate N     the same when the zone is ill (default 0.01; 0 in a small cluster)\n"
	"  --unhealthy-zone-threshold N         part of a zone's nodes that must be silent for that (default 0.55)\n"
	"  --large-cluster-size-threshold N     nodes of a zone above which it is not small (default 50)\n"
	"  --terminated-pod-gc-threshold N      ended pods kept (default 12500)\n"
	"  --use-service-account-credentials BOOL  each controller acts as a service account of its own (default false)\n"
	"  --bind-address IP                    where to serve /healthz, /livez, /readyz and /metrics (default 0.0.0.0)\n"
	"  --secure-port N                      their port, HTTPS (default 10257); 0: none\n"
	"  --tls-cert-file FILE, --tls-private-key-file FILE   serving certificate (default: made at start, in memory)\n"
	"  --v N                                log verbosity\n"
	"  --version, --help\n";

enum {
	OPT_KUBECONFIG = 256, OPT_MASTER, OPT_CONTROLLERS, OPT_LEADER_ELECT, OPT_LEASE, OPT_RENEW, OPT_RETRY, OPT_LEASE_NAME, OPT_LEASE_NS,
	OPT_SIGN_CERT, OPT_SIGN_KEY, OPT_SIGN_DURATION, OPT_ROOT_CA, OPT_SA_KEY, OPT_ALLOCATE, OPT_CLUSTER_CIDR, OPT_SERVICE_CIDR,
	OPT_MASK, OPT_MASK4, OPT_MASK6, OPT_MONITOR_PERIOD, OPT_MONITOR_GRACE, OPT_STARTUP_GRACE, OPT_EVICTION_RATE,
	OPT_SECONDARY_RATE, OPT_ZONE_THRESHOLD, OPT_LARGE_CLUSTER, OPT_POD_GC, OPT_PV_SYNC, OPT_HPA_SYNC,
	OPT_USE_ACCOUNTS, OPT_ADDRESS, OPT_PORT, OPT_CERT, OPT_KEY, OPT_VERSION, OPT_IGNORED,
};

static const struct option options[] = {
	{"kubeconfig", required_argument, NULL, OPT_KUBECONFIG},
	{"master", required_argument, NULL, OPT_MASTER},
	{"controllers", required_argument, NULL, OPT_CONTROLLERS},
	{"leader-elect", optional_argument, NULL, OPT_LEADER_ELECT},
	{"leader-elect-lease-duration", required_argument, NULL, OPT_LEASE},
	{"leader-elect-renew-deadline", required_argument, NULL, OPT_RENEW},
	{"leader-elect-retry-period", required_argument, NULL, OPT_RETRY},
	{"leader-elect-resource-name", required_argument, NULL, OPT_LEASE_NAME},
	{"leader-elect-resource-namespace", required_argument, NULL, OPT_LEASE_NS},
	{"leader-elect-resource-lock", required_argument, NULL, OPT_IGNORED},
	{"cluster-signing-cert-file", required_argument, NULL, OPT_SIGN_CERT},
	{"cluster-signing-key-file", required_argument, NULL, OPT_SIGN_KEY},
	{"cluster-signing-duration", required_argument, NULL, OPT_SIGN_DURATION},
	{"root-ca-file", required_argument, NULL, OPT_ROOT_CA},
	{"service-account-private-key-file", required_argument, NULL, OPT_SA_KEY},
	{"allocate-node-cidrs", optional_argument, NULL, OPT_ALLOCATE},
	{"cluster-cidr", required_argument, NULL, OPT_CLUSTER_CIDR},
	{"service-cluster-ip-range", required_argument, NULL, OPT_SERVICE_CIDR},
	{"node-cidr-mask-size", required_argument, NULL, OPT_MASK},
	{"node-cidr-mask-size-ipv4", required_argument, NULL, OPT_MASK4},
	{"node-cidr-mask-size-ipv6", required_argument, NULL, OPT_MASK6},
	{"node-monitor-period", required_argument, NULL, OPT_MONITOR_PERIOD},
	{"node-monitor-grace-period", required_argument, NULL, OPT_MONITOR_GRACE},
	{"node-startup-grace-period", required_argument, NULL, OPT_STARTUP_GRACE},
	{"node-eviction-rate", required_argument, NULL, OPT_EVICTION_RATE},
	{"secondary-node-eviction-rate", required_argument, NULL, OPT_SECONDARY_RATE},
	{"unhealthy-zone-threshold", required_argument, NULL, OPT_ZONE_THRESHOLD},
	{"large-cluster-size-threshold", required_argument, NULL, OPT_LARGE_CLUSTER},
	{"terminated-pod-gc-threshold", required_argument, NULL, OPT_POD_GC},
	{"pvclaimbinder-sync-period", required_argument, NULL, OPT_PV_SYNC},
	{"horizontal-pod-autoscaler-sync-period", required_argument, NULL, OPT_HPA_SYNC},
	{"use-service-account-credentials", optional_argument, NULL, OPT_USE_ACCOUNTS},
	{"bind-address", required_argument, NULL, OPT_ADDRESS},
	{"secure-port", required_argument, NULL, OPT_PORT},
	{"tls-cert-file", required_argument, NULL, OPT_CERT},
	{"tls-private-key-file", required_argument, NULL, OPT_KEY},
	/* Upstream's, without meaning here: tokens are reviewed by the one client there is; requests are not limited. */
	{"authentication-kubeconfig", required_argument, NULL, OPT_IGNORED},
	{"authorization-kubeconfig", required_argument, NULL, OPT_IGNORED},
	{"client-ca-file", required_argument, NULL, OPT_IGNORED},
	{"requestheader-client-ca-file", required_argument, NULL, OPT_IGNORED},
	{"cluster-name", required_argument, NULL, OPT_IGNORED},
	{"profiling", optional_argument, NULL, OPT_IGNORED},
	{"kube-api-qps", required_argument, NULL, OPT_IGNORED},
	{"kube-api-burst", required_argument, NULL, OPT_IGNORED},
	{"v", required_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, OPT_VERSION},
	{NULL, 0, NULL, 0},
};

static bool parse_rate(const char *arg, double *out)
{
	char *end;

	*out = strtod(arg, &end);
	return end != arg && !*end && *out >= 0 && *out < 1e9;
}

static bool parse_bool(const char *arg, bool *out)
{
	if (!arg || !strcmp(arg, "true") || !strcmp(arg, "1"))
		*out = true;
	else if (!strcmp(arg, "false") || !strcmp(arg, "0"))
		*out = false;
	else
		return false;
	return true;
}

static bool parse_duration(const char *arg, int64_t *ms)
{
	int64_t ns;

	if (!duration_parse(str_from(arg), &ns) || ns < 0)
		return false;
	*ms = ns / 1000000;
	return true;
}

static bool parse_int(const char *arg, int lo, int hi, int *out)
{
	int64_t v;

	if (!str_to_i64(str_from(arg), &v) || v < lo || v > hi)
		return false;
	*out = (int)v;
	return true;
}

static const struct upstream_flags upstream = {
	"kube-controller-manager",
	UPSTREAM_LOG_FLAGS UPSTREAM_SERVING_FLAGS
	"attach-detach-reconcile-sync-period cloud-provider cidr-allocator-type concurrent-cron-job-syncs concurrent-daemonset-syncs "
	"concurrent-deployment-syncs concurrent-device-taint-eviction-syncs concurrent-endpoint-syncs "
	"concurrent-ephemeralvolume-syncs concurrent-gc-syncs concurrent-horizontal-pod-autoscaler-syncs concurrent-job-syncs "
	"concurrent-namespace-syncs concurrent-node-status-updates concurrent-node-syncs concurrent-replicaset-syncs "
	"concurrent-resource-quota-syncs concurrent-resourceclaim-syncs concurrent-service-endpoint-syncs "
	"concurrent-service-syncs concurrent-serviceaccount-token-syncs concurrent-statefulset-syncs "
	"concurrent-ttl-after-finished-syncs concurrent-validating-admission-policy-status-syncs configure-cloud-routes! "
	"controller-start-interval disable-attach-detach-reconcile-sync! disable-force-detach-on-timeout! "
	"enable-dynamic-provisioning! endpoint-updates-batch-period endpointslice-updates-batch-period flex-volume-plugin-dir "
	"legacy-service-account-token-clean-up-period min-resync-period "
	"mirroring-concurrent-service-endpoint-syncs mirroring-endpointslice-updates-batch-period "
	"mirroring-max-endpoints-per-subset namespace-sync-period node-sync-period resource-quota-sync-period "
	"route-reconciliation-period",
	"allow-untagged-cloud! cloud-config cluster-signing-kube-apiserver-client-cert-file "
	"cluster-signing-kube-apiserver-client-key-file cluster-signing-kubelet-client-cert-file "
	"cluster-signing-kubelet-client-key-file cluster-signing-kubelet-serving-cert-file "
	"cluster-signing-kubelet-serving-key-file cluster-signing-legacy-unknown-cert-file "
	"cluster-signing-legacy-unknown-key-file enable-garbage-collector! enable-hostpath-provisioner! "
	"external-cloud-volume-plugin horizontal-pod-autoscaler-cpu-initialization-period "
	"horizontal-pod-autoscaler-downscale-stabilization horizontal-pod-autoscaler-initial-readiness-delay "
	"horizontal-pod-autoscaler-tolerance max-endpoints-per-slice node-status-update-frequency "
	"pv-recycler-increment-timeout-nfs pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs "
	"pv-recycler-pod-template-filepath-hostpath pv-recycler-pod-template-filepath-nfs "
	"pv-recycler-timeout-increment-hostpath tls-sni-cert-key",
};

/* -1: go on; else the exit status. */
static int parse_flags(int argc, char **argv, struct manager_flags *f)
{
	int c, index, n;

	int sifted = upstream_flags_sift(&upstream, options, &argc, argv);

	if (sifted)
		return sifted;
	optind = 1;
	while ((c = getopt_long(argc, argv, "v:h", options, &index)) != -1) {
		bool ok = true;

		switch (c) {
		case OPT_KUBECONFIG: f->kubeconfig = optarg; break;
		case OPT_MASTER: f->master = optarg; break;
		case OPT_CONTROLLERS: f->controllers = optarg; break;
		case OPT_LEADER_ELECT: ok = parse_bool(optarg, &f->leader_elect); break;
		case OPT_LEASE: ok = parse_duration(optarg, &f->leader_lease_ms); break;
		case OPT_RENEW: ok = parse_duration(optarg, &f->leader_renew_ms); break;
		case OPT_RETRY: ok = parse_duration(optarg, &f->leader_retry_ms); break;
		case OPT_LEASE_NAME: f->leader_name = optarg; break;
		case OPT_LEASE_NS: f->leader_ns = optarg; break;
		case OPT_SIGN_CERT: f->signing_cert_file = optarg; break;
		case OPT_SIGN_KEY: f->signing_key_file = optarg; break;
		case OPT_SIGN_DURATION: ok = parse_duration(optarg, &f->signing_duration_s); f->signing_duration_s /= 1000; break;
		case OPT_ROOT_CA: f->root_ca_file = optarg; break;
		case OPT_SA_KEY: f->sa_private_key_file = optarg; break;
		case OPT_ALLOCATE: ok = parse_bool(optarg, &f->allocate_node_cidrs); break;
		case OPT_CLUSTER_CIDR: f->cluster_cidr = optarg; break;
		case OPT_SERVICE_CIDR: f->service_cidr = optarg; break;
		case OPT_MASK:
			ok = parse_int(optarg, 1, 128, &n);
			if (ok && n <= 32)
				f->node_mask_v4 = n;
			if (ok)
				f->node_mask_v6 = n;
			break;
		case OPT_MASK4: ok = parse_int(optarg, 1, 32, &f->node_mask_v4); break;
		case OPT_MASK6: ok = parse_int(optarg, 1, 128, &f->node_mask_v6); break;
		case OPT_MONITOR_PERIOD: ok = parse_duration(optarg, &f->node_monitor_period_ms) && f->node_monitor_period_ms > 0; break;
		case OPT_MONITOR_GRACE: ok = parse_duration(optarg, &f->node_monitor_grace_ms); break;
		case OPT_STARTUP_GRACE: ok = parse_duration(optarg, &f->node_startup_grace_ms); break;
		case OPT_EVICTION_RATE: ok = parse_rate(optarg, &f->eviction_rate); break;
		case OPT_SECONDARY_RATE: ok = parse_rate(optarg, &f->secondary_eviction_rate); break;
		case OPT_ZONE_THRESHOLD: ok = parse_rate(optarg, &f->unhealthy_zone_threshold) && f->unhealthy_zone_threshold <= 1; break;
		case OPT_LARGE_CLUSTER: ok = parse_int(optarg, 0, INT_MAX, &f->large_cluster_size); break;
		case OPT_POD_GC: ok = str_to_i64(str_from(optarg), &f->terminated_pod_threshold); break;
		case OPT_PV_SYNC: ok = parse_duration(optarg, &f->pv_sync_ms) && f->pv_sync_ms > 0; break;
		case OPT_HPA_SYNC: ok = parse_duration(optarg, &f->hpa_sync_ms) && f->hpa_sync_ms > 0; break;
		case OPT_USE_ACCOUNTS: ok = parse_bool(optarg, &f->use_accounts); break;
		case OPT_ADDRESS: f->bind_address = optarg; break;
		case OPT_PORT: ok = parse_int(optarg, 0, 65535, &f->secure_port); break;
		case OPT_CERT: f->cert_file = optarg; break;
		case OPT_KEY: f->key_file = optarg; break;
		case OPT_IGNORED: break;
		case 'v': ok = parse_int(optarg, 0, 10, &f->verbosity); break;
		case 'h': fputs(usage, stdout); return 0;
		case OPT_VERSION: puts("Kubernetes v1.36.0 (skiff)"); return 0;
		default: fputs("See kube-controller-manager --help.\n", stderr); return 2;
		}
		if (!ok) {
			fprintf(stderr, "kube-controller-manager: --%s: \"%s\" is not a value of this flag\n",
				c == 'v' ? "v" : options[index].name, optarg ? optarg : "");
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "kube-controller-manager: unexpected argument \"%s\"\n", argv[optind]);
		return 2;
	}
	if (!check_controllers(f))
		return 2;
	if (f->allocate_node_cidrs && !f->cluster_cidr) {
		fputs("kube-controller-manager: --allocate-node-cidrs needs --cluster-cidr\n", stderr);
		return 2;
	}
	return -1;
}

int kube_controller_manager_main(int argc, char **argv)
{
	struct main_args args = {.flags = {
		.controllers = "*",
		.leader_elect = true,
		.leader_ns = "kube-system",
		.leader_name = "kube-controller-manager",
		.signing_duration_s = 8760 * 3600,
		.node_mask_v4 = 24,
		.node_mask_v6 = 64,
		.node_monitor_period_ms = 5000,
		.node_monitor_grace_ms = 50000,
		.eviction_rate = 0.1,
		.secondary_eviction_rate = 0.01,
		.unhealthy_zone_threshold = 0.55,
		.large_cluster_size = 50,
		.node_startup_grace_ms = 60000,
		.terminated_pod_threshold = 12500,
		.pv_sync_ms = 15000,
		.bind_address = "0.0.0.0",
		.secure_port = 10257,
		.hpa_sync_ms = 15000,
	}};
	int status = parse_flags(argc, argv, &args.flags);

	if (status >= 0)
		return status;
	log_init("kube-controller-manager", args.flags.verbosity);
	signal(SIGPIPE, SIG_IGN);
	struct error *e = loop_run(main_fiber, &args);

	if (e) {
		log_and_free(e, "kube-controller-manager");
		return 1;
	}
	return args.status;
}
