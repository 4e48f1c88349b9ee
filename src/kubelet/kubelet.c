/* kubelet/kubelet.c: the process: what is started in which order, and how it ends. */
#include "kubelet/kubelet.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "kubelet/internal.h"

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct kubelet *k = ctx;

	if (new_)
		pod_update(k, new_->json, false);
	else
		pod_gone(k, old->uid);
}

static struct error *watch_pods(struct kubelet *k)
{
	arena_cleanup struct arena a = {0};
	struct informer_opts o = {.resource = &core_v1_pods_resource};

	o.field_selector = arena_printf(&a, "spec.nodeName=%s", k->c->node_name);
	k->service_informer = informer_new(k->client, &(struct informer_opts){.resource = &core_v1_services_resource});
	informer_start(k->service_informer);
	/* Before any pod: their environment names the Services. */
	TRY(informer_wait_synced(k->service_informer));
	k->pod_informer = informer_new(k->client, &o);
	informer_on_event(k->pod_informer, on_pod, k);
	informer_start(k->pod_informer);
	TRY(informer_wait_synced(k->pod_informer));
	k->sources_ready = true;
	struct error *e = cri_relist(k);

	/* A runtime that starts beside us is listed once its events flow (cri_events_run). */
	if (e)
		log_v(1, "listing what the runtime has: %s", e->message);
	error_free(e);
	return NULL;
}

static struct error *run(struct kubelet *k)
{
	static const int stop[] = {SIGTERM, SIGINT};
	struct client_config cfg = {0};
	struct http_server *server = NULL;
	int sig;

	k->started_wall = wall_ns();
	TRY(dir_make(k->c->root_dir, 0750));
	TRY(dir_make(k->c->pod_logs_dir, 0755));
	if (*k->c->container_logs_dir)
		TRY(dir_make(k->c->container_logs_dir, 0755));
	TRY(client_cert_ensure(k));
	if (k->c->kubeconfig) {
		TRY(client_config_load(&k->c->arena, k->c->kubeconfig, NULL, &cfg));
		TRY(client_new(&cfg, &k->client));
		k->events = event_recorder_new(k->client, "kubelet", k->c->node_name);
	}
	TRY(grpc_client_new(k->c->cri_endpoint, &k->cri));
	TRY(node_host_ips(k));
	TRY(cgroup_setup(k));
	TRY(server_start(k, &server));
	TRY(server_start_plain(k));
	fiber_spawn("node", node_run, k);
	if (k->client) {
		fiber_spawn("lease", lease_run, k);
		fiber_spawn("certificates", certificates_run, k);
	}
	fiber_spawn("timers", timers_run, k);
	fiber_spawn("cri-events", cri_events_run, k);
	fiber_spawn("eviction", eviction_run, k);
	fiber_spawn("image-gc", image_gc_run, k);
	fiber_spawn("log-rotate", log_rotate_run, k);
	if (k->c->manifest_dir)
		fiber_spawn("static-pods", static_pods_run, k);
	if (k->client)
		TRY(watch_pods(k));
	else
		k->sources_ready = true;
	TRY(signal_wait(stop, 2, &sig));
	log_info("signal %d: ending; pods keep running", sig);
	k->shutting_down = true;
	if (server)
		http_server_stop(server, 0);
	return NULL;
}

static struct error *result;

static void main_fiber(void *arg)
{
	result = run(arg);
}

int kubelet_main(int argc, char **argv)
{
	static struct kubelet_config config;
	int code = config_parse(argc, argv, &config);

	if (code >= 0)
		return code;
	log_init("kubelet", config.verbosity);
	kubelet.c = &config;
	struct error *e = loop_run(main_fiber, &kubelet);

	if (!e)
		e = result;
	if (e && !error_is_sys(e, ECANCELED)) {
		log_and_free(e, "kubelet");
		return 1;
	}
	error_free(e);
	return 0;
}
