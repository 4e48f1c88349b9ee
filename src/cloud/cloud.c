#include "cloud/cloud.h"

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
#include "client/workqueue.h"
#include "cloud/csr.h"
#include "cloud/provider.h"

#define FINALIZER "service.kubernetes.io/load-balancer-cleanup"
#define TAINT_UNINITIALIZED "node.cloudprovider.kubernetes.io/uninitialized"
#define NODE_CHECK_MS 10000 /* a missing machine is noticed within it (upstream: 5 s and more) */

static const struct cloud_provider *const providers[] = {&cloud_local};

struct manager {
	const struct cloud_provider *cloud;
	struct client *client;
	struct event_recorder *events;
	struct informer *nodes, *services;
	struct workqueue *node_queue, *service_queue;
	const char *kubeconfig;
	bool leader_elect;
	struct error *error;
};

static struct error *ignore_missing(struct error *e)
{
	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

/* ---- nodes ---- */

static struct error *patch_node(struct manager *m, struct arena *a, struct str name, const char *sub, struct str body)
{
	return ignore_missing(client_patch(m->client, a, &core_v1_nodes_resource, STR_NULL, name, sub, PATCH_STRATEGIC, body, NULL, false, NULL));
}

static bool is_ready(const struct core_v1_node *n)
{
	for (uint32_t i = 0; i < n->status.conditions.n; i++)
		if (str_eqz(n->status.conditions.v[i].type, "Ready"))
			return str_eqz(n->status.conditions.v[i].status, "True");
	return false;
}

static struct error *remove_if_gone(struct manager *m, struct arena *a, const struct core_v1_node *n, bool *gone)
{
	bool exists = true;
	struct delete_opts d = DELETE_DEFAULT;

	*gone = false;
	/* A node that reports in is there, whatever the cloud says (upstream's rule). */
	if (is_ready(n) || !n->spec.provider_id.n)
		return NULL;
	TRY(m->cloud->instance_exists(n, &exists));
	if (exists)
		return NULL;
	struct core_v1_object_reference r = object_reference(&core_v1_nodes_resource, n);

	event_record(m->events, &r, "Normal", "DeletingNode", "Deleting node %.*s because it does not exist in the cloud provider",
		     STR_ARG(n->metadata.name));
	*gone = true;
	d.uid = n->metadata.uid;
	return ignore_missing(client_delete(m->client, a, &core_v1_nodes_resource, STR_NULL, n->metadata.name, &d));
}

static bool label_missing(const struct core_v1_node *n, const char *key, struct str value)
{
	return value.n && !str_eq(str_map_get(API_MAP(&n->metadata.labels), str_from(key)), value);
}

static bool has_taint(const struct core_v1_node *n)
{
	for (uint32_t i = 0; i < n->spec.taints.n; i++)
		if (str_eqz(n->spec.taints.v[i].key, TAINT_UNINITIALIZED))
			return true;
	return false;
}

static struct error *initialise(struct manager *m, struct arena *a, const struct core_v1_node *n)
{
	static const char *const keys[] = {"topology.kubernetes.io/zone", "topology.kubernetes.io/region", "node.kubernetes.io/instance-type"};
	struct cloud_instance in;
	buf_cleanup struct buf b = {0};
	bool change = false;

	TRY(m->cloud->instance(a, n, &in));
	struct str values[] = {in.zone, in.region, in.instance_type};

	buf_puts(&b, "{\"metadata\":{\"labels\":{");
	for (size_t i = 0; i < 3; i++) {
		if (!label_missing(n, keys[i], values[i]))
			continue;
		buf_printf(&b, "%s\"%s\":\"%.*s\"", change ? "," : "", keys[i], STR_ARG(values[i]));
		change = true;
	}
	buf_puts(&b, "}},\"spec\":{");
	if (!n->spec.provider_id.n && in.provider_id.n) {
		buf_printf(&b, "\"providerID\":\"%.*s\"%s", STR_ARG(in.provider_id), has_taint(n) ? "," : "");
		change = true;
	}
	if (has_taint(n)) {
		buf_puts(&b, "\"taints\":[{\"$patch\":\"delete\",\"key\":\"" TAINT_UNINITIALIZED "\"}]");
		change = true;
	}
	buf_puts(&b, "}}");
	return change ? patch_node(m, a, n->metadata.name, NULL, buf_view(&b)) : NULL;
}

static struct error *reconcile_node(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct manager *m = ctx;
	struct core_v1_node *n = informer_get(m->nodes, a, STR_NULL, name);
	bool gone;

	if (!n)
		return NULL;
	TRY(remove_if_gone(m, a, n, &gone));
	if (gone)
		return NULL;
	if (!is_ready(n) && n->spec.provider_id.n)
		workqueue_add_after(m->node_queue, name, NODE_CHECK_MS);
	/* Nodes of other providers, or of none, are left as they are. */
	if (!has_taint(n) && !str_has_prefix(n->spec.provider_id, arena_printf(a, "%s://", m->cloud->name)))
		return NULL;
	return initialise(m, a, n);
}

/* ---- Services ---- */

static bool wants_balancer(const struct core_v1_service *s)
{
	return str_eq(s->spec.type, STR("LoadBalancer")) && !s->spec.load_balancer_class && !s->metadata.deletion_timestamp;
}

static bool has_finalizer(const struct core_v1_service *s)
{
	for (uint32_t i = 0; i < s->metadata.finalizers.n; i++)
		if (str_eqz(s->metadata.finalizers.v[i], FINALIZER))
			return true;
	return false;
}

static struct error *patch_service(struct manager *m, struct arena *a, const struct core_v1_service *s, const char *sub, struct str body)
{
	return ignore_missing(client_patch(m->client, a, &core_v1_services_resource, s->metadata.namespace, s->metadata.name, sub,
					   PATCH_STRATEGIC, body, NULL, false, NULL));
}

static struct error *release(struct manager *m, struct arena *a, const struct core_v1_service *s)
{
	if (!has_finalizer(s))
		return NULL;
	TRY(m->cloud->delete_load_balancer(s));
	if (s->status.load_balancer.ingress.n && !s->metadata.deletion_timestamp)
		TRY(patch_service(m, a, s, "status", STR("{\"status\":{\"loadBalancer\":{\"ingress\":null}}}")));
	TRY(patch_service(m, a, s, NULL, STR("{\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[\"" FINALIZER "\"]}}")));
	struct core_v1_object_reference r = object_reference(&core_v1_services_resource, s);

	event_record(m->events, &r, "Normal", "DeletedLoadBalancer", "Deleted load balancer");
	return NULL;
}

static struct error *ensure(struct manager *m, struct arena *a, struct core_v1_service *s)
{
	struct core_v1_load_balancer_status status = {0};
	struct core_v1_object_reference r = object_reference(&core_v1_services_resource, s);
	void **all;
	size_t n = informer_list(m->services, a, STR_NULL, NULL, &all);

	if (!has_finalizer(s)) {
		event_record(m->events, &r, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer");
		TRY(patch_service(m, a, s, NULL, STR("{\"metadata\":{\"finalizers\":[\"" FINALIZER "\"]}}")));
	}
	struct error *e = m->cloud->ensure_load_balancer(a, s, (struct core_v1_service *const *)all, n, &status);

	if (e) {
		event_record(m->events, &r, "Warning", "SyncLoadBalancerFailed", "Error syncing load balancer: %s", error_message(e));
		return e;
	}
	if (object_equal(&core_v1_load_balancer_status_type, &status, &s->status.load_balancer))
		return NULL;
	buf_cleanup struct buf b = {0};

	buf_puts(&b, "{\"status\":{\"loadBalancer\":");
	json_encode(&b, &core_v1_load_balancer_status_type, &status);
	buf_puts(&b, "}}");
	TRY(patch_service(m, a, s, "status", buf_view(&b)));
	event_record(m->events, &r, "Normal", "EnsuredLoadBalancer", "Ensured load balancer");
	return NULL;
}

static struct error *reconcile_service(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct manager *m = ctx;
	struct core_v1_service *s = informer_get(m->services, a, ns, name);

	if (!s)
		return NULL;
	return wants_balancer(s) ? ensure(m, a, s) : release(m, a, s);
}

/* ---- the component ---- */

static void add_key(struct workqueue *q, const struct cached_object *o)
{
	arena_cleanup struct arena a = {0};

	workqueue_add(q, object_key(&a, o->ns, o->name));
}

static void on_node(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	if (new_)
		add_key(((struct manager *)ctx)->node_queue, new_);
}

static void on_service(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	if (new_)
		add_key(((struct manager *)ctx)->service_queue, new_);
}

static void lost_lease(void *ctx)
{
	log_error("leader election lost; another cloud-controller-manager took over");
	exit(1);
}

static struct informer *watch(struct manager *m, const struct api_resource *r, informer_handler *h)
{
	struct informer_opts o = {.resource = r};
	struct informer *i = informer_new(m->client, &o);

	informer_on_event(i, h, m);
	informer_start(i);
	return i;
}

static struct error *run(struct manager *m)
{
	static const int stop[] = {SIGTERM, SIGINT};
	arena_cleanup struct arena a = {0};
	struct client_config cfg = {0};
	int sig;

	TRY(m->kubeconfig ? client_config_load(&a, m->kubeconfig, NULL, &cfg) : client_config_in_cluster(&a, &cfg));
	TRY(client_new(&cfg, &m->client));
	m->events = event_recorder_new(m->client, "cloud-controller-manager", "");
	m->node_queue = workqueue_new("cloud-node");
	m->service_queue = workqueue_new("service");
	if (m->leader_elect) {
		char host[65] = "", uuid[37];

		gethostname(host, sizeof host - 1);
		random_uuid(uuid);
		struct leader_opts o = {.client = m->client, .ns = "kube-system", .name = "cloud-controller-manager",
					.identity = arena_printf(&a, "%s_%s", host, uuid).p};

		TRY(leader_acquire(&o, lost_lease, m));
	}
	m->nodes = watch(m, &core_v1_nodes_resource, on_node);
	m->services = watch(m, &core_v1_services_resource, on_service);
	TRY(informer_wait_synced(m->nodes));
	TRY(informer_wait_synced(m->services));
	workqueue_run(m->node_queue, "cloud-node", 1, reconcile_node, m);
	/* One at a time: which addresses are taken is read from the Services themselves. */
	workqueue_run(m->service_queue, "service", 1, reconcile_service, m);
	TRY(serving_csr_start(m->client, m->nodes));
	log_info("cloud provider %s", m->cloud->name);
	TRY(signal_wait(stop, 2, &sig));
	log_info("signal %d: ending", sig);
	if (m->leader_elect)
		leader_release();
	return NULL;
}

static void main_fiber(void *arg)
{
	struct manager *m = arg;

	m->error = run(m);
}

enum { OPT_KUBECONFIG = 256, OPT_PROVIDER, OPT_LEADER, OPT_VERSION, OPT_PROVIDERS_OWN };

int cloud_controller_manager_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"kubeconfig", required_argument, NULL, OPT_KUBECONFIG},
		{"cloud-provider", required_argument, NULL, OPT_PROVIDER},
		{"leader-elect", optional_argument, NULL, OPT_LEADER},
		{"local-load-balancer-pool", required_argument, NULL, OPT_PROVIDERS_OWN},
		{"local-nodes", required_argument, NULL, OPT_PROVIDERS_OWN},
		{"v", required_argument, NULL, 'v'},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	static const char usage[] = "usage: cloud-controller-manager [options]\nNodes' machines, and addresses for Services of type LoadBalancer.\n\n"
		"  --kubeconfig FILE                   how to reach the API server (default: the pod's service account)\n"
		"  --cloud-provider NAME               local is the only one\n"
		"  --leader-elect=BOOL                 only one of several works (default true)\n"
		"  --local-load-balancer-pool A-B      addresses for Services of type LoadBalancer\n"
		"  --local-nodes NAME,...              nodes of this machine that exist: others of it are removed when they are not ready\n"
		"  --v N                               log more\n";
	struct manager m = {.cloud = &cloud_local, .leader_elect = true};
	struct error *e = NULL;

	for (int o, index = 0; (o = getopt_long(argc, argv, "h", options, &index)) != -1;) {
		switch (o) {
		case OPT_KUBECONFIG: m.kubeconfig = optarg; break;
		case OPT_LEADER: m.leader_elect = !optarg || strcmp(optarg, "true") == 0; break;
		case OPT_PROVIDER:
			m.cloud = NULL;
			for (size_t i = 0; i < sizeof providers / sizeof *providers; i++)
				if (strcmp(providers[i]->name, optarg) == 0)
					m.cloud = providers[i];
			if (!m.cloud) {
				fprintf(stderr, "cloud-controller-manager: no cloud provider \"%s\"; there is: local\n", optarg);
				return 2;
			}
			break;
		case OPT_PROVIDERS_OWN:
			m.cloud->option(options[index].name, optarg, &e);
			if (e) {
				fprintf(stderr, "cloud-controller-manager: %s\n", error_message(e));
				error_free(e);
				return 2;
			}
			break;
		case 'v': log_init("cloud-controller-manager", atoi(optarg)); break;
		case OPT_VERSION: printf("Kubernetes v1.36.0+skiff\n"); return 0;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	}
	e = loop_run(main_fiber, &m);
	if (!e)
		e = m.error;
	if (e && !error_is_sys(e, ECANCELED)) {
		log_and_free(e, "cloud-controller-manager");
		return 1;
	}
	error_free(e);
	return 0;
}
