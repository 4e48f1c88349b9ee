#include "base/flags.h"
#include "proxy/proxy.h"

#include <errno.h>
#include <nftables/libnftables.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "client/informer.h"
#include "proxy/conntrack.h"
#include "proxy/model.h"
#include "proxy/routes.h"
#include "net/http.h"
#include "schema/codec.h"

#define MIN_SYNC_MS 20      /* changes within it are one transaction */
#define RETRY_MS 1000
#define HEALTH_PORTS_MAX 256

struct health_port { /* spec.healthCheckNodePort */
	struct proxy *p;
	int port;
	struct str key;          /* "ns/name", owned */
	size_t local;
	bool wanted;
	struct http_server *server;
};

#define CONNTRACK_TIMEOUTS 4

struct proxy {
	struct client *client;
	struct informer *services, *slices, *nodes;
	const char *kubeconfig, *node, *cluster_cidr, *healthz, *metrics;
	bool node_routes, cleanup;
	struct nft_ctx *nft;
	struct ruleset applied;
	bool have_base;
	uint64_t udp_state; /* of the model by which stale UDP connections were last forgotten */
	struct map routes;
	bool dirty;
	struct waitq wake;
	int64_t last_sync_ms;    /* monotonic; 0: never */
	int64_t timeout_s[CONNTRACK_TIMEOUTS]; /* as `timeouts` */
	struct health_port *health[HEALTH_PORTS_MAX];
	size_t n_health;
	struct http_server *healthz_server, *metrics_server;
	struct error *error;
};

/* ---- nft ---- */

struct nft_run {
	struct nft_ctx *ctx;
	const char *text;
	int result;
};

static void run_nft(void *arg)
{
	struct nft_run *r = arg;

	r->result = nft_run_cmd_from_buffer(r->ctx, r->text);
}

static struct error *apply(struct proxy *p, struct buf *text)
{
	struct nft_run r = {p->nft, buf_z(text), 0};

	if (!text->n)
		return NULL;
	log_v(4, "nft transaction of %zu bytes", text->n);
	loop_offload(run_nft, &r);
	if (!r.result)
		return NULL;
	struct str why = str_trim(str_from(nft_ctx_get_error_buffer(p->nft)));

	return error_new("nftables refused a transaction: %.*s", (int)(why.n > 500 ? 500 : why.n), why.n ? why.p : "");
}

/* ---- the kernel's settings ---- */

static bool set_sysctl(const char *file, long value)
{
	FILE *f = fopen(file, "r+e");
	long have = -1;

	if (!f)
		return false;
	if (fscanf(f, "%ld", &have) != 1 || have != value) {
		rewind(f);
		fprintf(f, "%ld", value);
	}
	return fclose(f) == 0;
}

/* Forwarding between pods needs both; set here as upstream's kube-proxy does, and said clearly where it cannot be. */
static void set_sysctls(void)
{
	static const char *const files[] = {"/proc/sys/net/ipv4/ip_forward",
					    "/proc/sys/net/bridge/bridge-nf-call-iptables"};

	for (size_t i = 0; i < 2; i++)
		if (!set_sysctl(files[i], 1))
			log_warn("cannot set %s to 1 (%s): Services may not be reachable from pods of the same node%s",
				 files[i], strerror(errno), i ? "; 'modprobe br_netfilter' brings it" : "");
}

static const struct {
	const char *file;
	int64_t s; /* unless told otherwise; 0: left as it is */
} timeouts[CONNTRACK_TIMEOUTS] = {
	{"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", 24 * 3600},
	{"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", 3600},
	{"/proc/sys/net/netfilter/nf_conntrack_udp_timeout", 0},
	{"/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", 0},
};

/* The files are there once the kernel has rules that need conntrack. */
static void set_timeouts(const struct proxy *p)
{
	for (size_t i = 0; i < CONNTRACK_TIMEOUTS; i++)
		if (p->timeout_s[i] > 0 && !set_sysctl(timeouts[i].file, p->timeout_s[i]))
			log_warn("cannot set %s to %lld: %s", timeouts[i].file, (long long)p->timeout_s[i],
				 strerror(errno));
}

/* ---- build ---- */

struct build {
	struct proxy *p;
	struct arena a;
	struct ruleset rules;
	struct model model;
	struct map by_service;   /* "ns/name" -> struct slice_list * */
	struct map routes;       /* see routes.h */
};

struct slice_list {
	LIST(struct discovery_v1_endpoint_slice *) s;
};

static bool collect_slice(void *ctx, const struct cached_object *o)
{
	struct build *b = ctx;
	struct str service = str_map_get(&o->labels, STR("kubernetes.io/service-name"));

	if (!service.n)
		return true;
	struct str key = arena_printf(&b->a, "%.*s/%.*s", STR_ARG(o->ns), STR_ARG(service));
	struct slice_list *l = map_get(&b->by_service, key);

	if (!l) {
		l = arena_new(&b->a, struct slice_list);
		map_set(&b->by_service, key, l);
	}
	*arena_push(&b->a, &l->s) = cached_decode(b->p->slices, &b->a, o);
	return true;
}

static void want_health(struct proxy *p, const struct core_v1_service *s, size_t local);

static bool add_service(void *ctx, const struct cached_object *o)
{
	struct build *b = ctx;
	struct core_v1_service *s = cached_decode(b->p->services, &b->a, o);
	struct slice_list *l = map_get(&b->by_service, arena_printf(&b->a, "%.*s/%.*s", STR_ARG(o->ns), STR_ARG(o->name)));
	struct discovery_v1_endpoint_slice *const *slices = l ? l->s.v : NULL;
	size_t n = l ? l->s.n : 0;

	if (!model_serves(s))
		return true;
	model_add_service(&b->model, s, slices, n);
	if (s->spec.health_check_node_port)
		want_health(b->p, s, model_local_endpoints(&b->model, slices, n));
	return true;
}

static bool add_route(void *ctx, const struct cached_object *o)
{
	struct build *b = ctx;
	struct core_v1_node *n = cached_decode(b->p->nodes, &b->a, o);

	if (str_eqz(o->name, b->p->node) || !n->spec.pod_cidr.n)
		return true;
	for (uint32_t i = 0; i < n->status.addresses.n; i++) {
		if (!str_eq(n->status.addresses.v[i].type, STR("InternalIP")) || str_index(n->status.addresses.v[i].address, ':') >= 0)
			continue;
		map_set(&b->routes, n->spec.pod_cidr, arena_strz(&b->a, n->status.addresses.v[i].address));
		break;
	}
	return true;
}

static struct error *sync_routes(struct proxy *p)
{
	struct build b = {.p = p};

	informer_each(p->nodes, STR_NULL, NULL, add_route, &b);
	struct error *e = routes_sync(&p->routes, &b.routes);

	map_free(&b.routes);
	arena_free(&b.a);
	return error_wrap(e, "routes to other nodes");
}

struct conntrack_run {
	const struct map *udp;
	unsigned deleted;
	struct error *error;
};

static void run_conntrack(void *arg)
{
	struct conntrack_run *r = arg;

	r->error = conntrack_clean_udp(r->udp, &r->deleted);
}

static struct error *apply_diff(struct proxy *p, struct build *b)
{
	buf_cleanup struct buf text = {0};

	if (!p->have_base)
		ruleset_base(&text, p->cluster_cidr);
	ruleset_diff(&p->applied, &b->rules, &text);
	if (!text.n)
		return NULL;
	struct error *e = apply(p, &text);

	if (e) {
		/* What the kernel holds is not what we think (another program changed the table): all anew next time. */
		p->have_base = false;
		ruleset_free(&p->applied);
		return e;
	}
	p->have_base = true;
	ruleset_free(&p->applied);
	p->applied = b->rules;
	b->rules = (struct ruleset){0};
	return NULL;
}

/*
 * After the rules, so that no flow begins by the old ones. Also when the rules stay as they were: an endpoint that
 * ended may have got no new flows for long, but kept its old ones.
 */
static void forget_udp(struct proxy *p, const struct model *m)
{
	struct conntrack_run r = {.udp = &m->udp};

	if (m->udp_state == p->udp_state)
		return;
	loop_offload(run_conntrack, &r);
	if (r.deleted)
		log_v(2, "%u stale UDP connections forgotten", r.deleted);
	if (!r.error && r.deleted < CONNTRACK_DELETE_MAX)
		p->udp_state = m->udp_state;
	log_and_free(r.error, "forgetting stale UDP connections");
}

static void drop_health(struct proxy *p);

static struct error *sync_rules(struct proxy *p)
{
	struct build b = {.p = p};
	struct core_v1_node *node = informer_get(p->nodes, &b.a, STR_NULL, str_from(p->node));

	b.model = (struct model){.a = &b.a, .node = str_from(p->node), .rules = &b.rules, .cluster_cidr = p->cluster_cidr != NULL};
	if (node)
		b.model.zone = str_map_get(API_MAP(&node->metadata.labels), STR("topology.kubernetes.io/zone"));
	for (size_t i = 0; i < p->n_health; i++)
		p->health[i]->wanted = false;
	informer_each(p->slices, STR_NULL, NULL, collect_slice, &b);
	informer_each(p->services, STR_NULL, NULL, add_service, &b);
	drop_health(p);
	struct error *e = apply_diff(p, &b);

	if (!e)
		forget_udp(p, &b.model);
	ruleset_free(&b.rules);
	map_free(&b.by_service);
	model_free_udp(&b.model);
	arena_free(&b.a);
	if (!e && p->node_routes)
		e = sync_routes(p);
	if (!e && !p->last_sync_ms)
		set_timeouts(p);
	if (!e)
		p->last_sync_ms = now_ms();
	return e;
}

/* ---- health ---- */

static void answer_health(struct http_exchange *x, void *ctx)
{
	struct health_port *h = ctx;
	struct str key = h->key, ns = str_cut(&key, '/');
	struct str body = arena_printf(x->arena, "{\"service\":{\"namespace\":\"%.*s\",\"name\":\"%.*s\"},\"localEndpoints\":%zu,"
				       "\"serviceProxyHealthy\":true}", STR_ARG(ns), STR_ARG(key), h->local);

	http_set_header(x, "content-type", STR("application/json"));
	log_and_free(http_respond(x, h->local ? 200 : 503, body), "answering a health check");
}

#define HEALTH_TIMEOUT_MS 60000

/* `ago` ms before now. */
static struct str http_time(struct arena *a, int64_t ago)
{
	return time_format(a, (struct api_time){.s = (wall_ns() / 1000000 - ago) / 1000, .set = true}, false);
}

/* Load balancers leave a node that goes (KEP-3836). */
static bool node_eligible(struct proxy *p, struct arena *a)
{
	struct core_v1_node *n = informer_get(p->nodes, a, STR_NULL, str_from(p->node));

	if (!n)
		return true;
	for (uint32_t i = 0; i < n->spec.taints.n; i++)
		if (str_eqz(n->spec.taints.v[i].key, "ToBeDeletedByClusterAutoscaler"))
			return false;
	return !n->metadata.deletion_timestamp;
}

static void answer_healthz(struct http_exchange *x, void *ctx)
{
	struct proxy *p = ctx;
	bool livez = str_eq(x->path, STR("/livez")), busy = !p->have_base || p->dirty;
	int64_t now = now_ms();
	bool good = !busy || now - p->last_sync_ms < HEALTH_TIMEOUT_MS, eligible = livez || node_eligible(p, x->arena);
	struct str at = http_time(x->arena, 0), last = busy && p->last_sync_ms ? http_time(x->arena, now - p->last_sync_ms) : at;

	if (!livez && !str_eq(x->path, STR("/healthz"))) {
		log_and_free(http_respond(x, 404, STR("404 page not found\n")), "answering /healthz");
		return;
	}
	http_set_header(x, "content-type", STR("application/json"));
	http_set_header(x, "x-content-type-options", STR("nosniff"));
	log_and_free(http_respond(x, good && eligible ? 200 : 503,
				  arena_printf(x->arena, "{\"lastUpdated\":\"%.*s\",\"currentTime\":\"%.*s\"%s,\"healthy\":%s,\"status\":{\"IPv4\":"
							 "{\"lastUpdated\":\"%.*s\",\"healthy\":%s}}}", STR_ARG(last), STR_ARG(at),
					       livez ? "" : eligible ? ",\"nodeEligible\":true" : ",\"nodeEligible\":false",
					       good && eligible ? "true" : "false", STR_ARG(last), good ? "true" : "false")),
		     "answering /healthz");
}

/* On the loopback address: what upstream's --metrics-bind-address serves. */
static void answer_metrics(struct http_exchange *x, void *ctx)
{
	struct proxy *p = ctx;
	struct str body;

	http_set_header(x, "content-type", STR("text/plain; charset=utf-8"));
	if (str_eqz(x->path, "/proxyMode")) {
		body = STR("nftables");
	} else if (str_eqz(x->path, "/healthz")) {
		body = STR("ok");
	} else if (str_eqz(x->path, "/metrics")) {
		body = arena_printf(x->arena, "# HELP kubeproxy_sync_proxy_rules_last_timestamp_seconds The last time proxy rules were successfully synced\n"
				    "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n"
				    "kubeproxy_sync_proxy_rules_last_timestamp_seconds %.3f\n",
				    p->last_sync_ms ? (double)wall_ns() / 1e9 - (double)(now_ms() - p->last_sync_ms) / 1e3 : 0.0);
	} else {
		log_and_free(http_respond(x, 404, STR("404 page not found\n")), "answering metrics");
		return;
	}
	log_and_free(http_respond(x, 200, body), "answering metrics");
}

static struct error *serve(const char *addr, http_handler *h, void *ctx, struct http_server **out)
{
	struct listener *l;
	struct http_server_opts o = {.handler = h, .ctx = ctx, .max_connections = 100};

	TRY(listener_open(addr, 0, &l));
	return http_server_start(l, &o, out);
}

static void want_health(struct proxy *p, const struct core_v1_service *s, size_t local)
{
	arena_cleanup struct arena a = {0};

	for (size_t i = 0; i < p->n_health; i++) {
		if (p->health[i]->port == s->spec.health_check_node_port) {
			p->health[i]->wanted = true;
			p->health[i]->local = local;
			return;
		}
	}
	if (p->n_health == HEALTH_PORTS_MAX) {
		log_warn("more than %d health-check node ports: %d is not served", HEALTH_PORTS_MAX, s->spec.health_check_node_port);
		return;
	}
	struct health_port *h = xcalloc(1, sizeof *h);

	h->p = p;
	h->port = s->spec.health_check_node_port;
	h->local = local;
	h->wanted = true;
	h->key = str_from(xasprintf("%.*s/%.*s", STR_ARG(s->metadata.namespace), STR_ARG(s->metadata.name)));
	struct error *e = serve(arena_printf(&a, "0.0.0.0:%d", h->port).p, answer_health, h, &h->server);

	log_and_free(e, "health-check node port %d", h->port);
	p->health[p->n_health++] = h;
}

static void drop_health(struct proxy *p)
{
	for (size_t i = 0; i < p->n_health;) {
		struct health_port *h = p->health[i];

		if (h->wanted) {
			i++;
			continue;
		}
		if (h->server)
			http_server_stop(h->server, 0);
		free((char *)h->key.p);
		free(h);
		p->health[i] = p->health[--p->n_health];
	}
}

/* ---- the component ---- */

static void on_change(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct proxy *p = ctx;

	p->dirty = true;
	waitq_wake_all(&p->wake);
}

static struct error *sync_loop(struct proxy *p)
{
	int64_t wait = MIN_SYNC_MS;

	for (;;) {
		while (!p->dirty)
			TRY(waitq_wait(&p->wake));
		TRY(fiber_sleep(wait));
		p->dirty = false;
		struct error *e = sync_rules(p);

		wait = MIN_SYNC_MS;
		if (e) {
			if (fiber_cancelled())
				return e;
			p->dirty = true;
			wait = RETRY_MS;
			log_and_free(e, "trying again in %d ms", RETRY_MS);
		}
	}
}

static void sync_fiber(void *arg)
{
	struct proxy *p = arg;

	p->error = sync_loop(p);
}

static struct informer *watch(struct proxy *p, const struct api_resource *r, const char *labels, struct str fields)
{
	struct informer_opts o = {.resource = r, .label_selector = str_from(labels), .field_selector = fields};
	struct informer *i = informer_new(p->client, &o);

	informer_on_event(i, on_change, p);
	informer_start(i);
	return i;
}

static struct error *clean_up(struct proxy *p)
{
	buf_cleanup struct buf text = {0};

	buf_puts(&text, "add table " PROXY_TABLE "\ndelete table " PROXY_TABLE "\n");
	return apply(p, &text);
}

static struct error *run(struct proxy *p)
{
	static const int stop[] = {SIGTERM, SIGINT};
	static const char *const labels = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
	arena_cleanup struct arena a = {0};
	struct client_config cfg = {0};
	int sig;

	p->nft = nft_ctx_new(NFT_CTX_DEFAULT);
	if (!p->nft)
		return error_new("libnftables cannot be initialised: the kernel needs CONFIG_NF_TABLES");
	nft_ctx_buffer_error(p->nft);
	nft_ctx_buffer_output(p->nft);
	if (p->cleanup)
		return clean_up(p);
	TRY(p->kubeconfig ? client_config_load(&a, p->kubeconfig, NULL, &cfg) : client_config_in_cluster(&a, &cfg));
	TRY(client_new(&cfg, &p->client));
	set_sysctls();
	p->services = watch(p, &core_v1_services_resource, NULL, STR_NULL);
	p->slices = watch(p, &discovery_v1_endpointslices_resource, labels, STR_NULL);
	p->nodes = watch(p, &core_v1_nodes_resource, NULL,
			 p->node_routes ? STR_NULL : arena_printf(&a, "metadata.name=%s", p->node));
	TRY(informer_wait_synced(p->services));
	TRY(informer_wait_synced(p->slices));
	TRY(informer_wait_synced(p->nodes));
	if (p->healthz[0])
		TRY(serve(p->healthz, answer_healthz, p, &p->healthz_server));
	if (p->metrics[0])
		log_and_free(serve(p->metrics, answer_metrics, p, &p->metrics_server), "no metrics address");
	p->dirty = true;
	fiber_spawn("sync", sync_fiber, p);
	TRY(signal_wait(stop, 2, &sig));
	/* The rules stay: traffic goes on while the proxy is replaced. */
	log_info("signal %d: ending; Services keep working", sig);
	return NULL;
}

static void main_fiber(void *arg)
{
	struct proxy *p = arg;
	struct error *e = run(p);

	if (e)
		p->error = e;
}

enum {
	OPT_KUBECONFIG = 256,
	OPT_NODE,
	OPT_CIDR,
	OPT_HEALTHZ,
	OPT_METRICS,
	OPT_ROUTES,
	OPT_CLEANUP,
	OPT_MODE,
	OPT_VERSION,
	OPT_TIMEOUT
};

static const struct upstream_flags upstream = {
	"kube-proxy",
	UPSTREAM_LOG_FLAGS
	"config-sync-period conntrack-max-per-core conntrack-min conntrack-tcp-be-liberal! feature-gates "
	"iptables-localhost-nodeports! iptables-masquerade-bit "
	"iptables-min-sync-period iptables-sync-period ipvs-exclude-cidrs ipvs-min-sync-period ipvs-scheduler "
	"ipvs-strict-arp! "
	"ipvs-sync-period ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout kube-api-burst kube-api-content-type "
	"kube-api-qps oom-score-adj profiling! show-hidden-metrics-for-version",
	"bind-address bind-address-hard-fail! config detect-local-mode healthz-port init-only! masquerade-all! master "
	"metrics-port nodeport-addresses pod-bridge-interface pod-interface-name-prefix write-config-to",
};

int kube_proxy_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"kubeconfig", required_argument, NULL, OPT_KUBECONFIG},
		{"hostname-override", required_argument, NULL, OPT_NODE},
		{"cluster-cidr", required_argument, NULL, OPT_CIDR},
		{"healthz-bind-address", required_argument, NULL, OPT_HEALTHZ},
		{"metrics-bind-address", required_argument, NULL, OPT_METRICS},
		{"node-routes", optional_argument, NULL, OPT_ROUTES},
		{"cleanup", no_argument, NULL, OPT_CLEANUP},
		{"proxy-mode", required_argument, NULL, OPT_MODE},
		{"conntrack-tcp-timeout-established", required_argument, NULL, OPT_TIMEOUT},
		{"conntrack-tcp-timeout-close-wait", required_argument, NULL, OPT_TIMEOUT + 1},
		{"conntrack-udp-timeout", required_argument, NULL, OPT_TIMEOUT + 2},
		{"conntrack-udp-timeout-stream", required_argument, NULL, OPT_TIMEOUT + 3},
		{"v", required_argument, NULL, 'v'},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	static const char usage[] =
		"usage: kube-proxy [options]\nServices as nftables rules.\n\n"
		"  --kubeconfig FILE          how to reach the API server (default: the service account of the pod it "
		"runs in)\n"
		"  --hostname-override NAME   this node's name (default: the host name)\n"
		"  --cluster-cidr CIDR        the pods' range: other clients of a ClusterIP are masqueraded\n"
		"  --healthz-bind-address A   address of /healthz and /livez (default 0.0.0.0:10256; \"\" for none)\n"
		"  --metrics-bind-address A   address of /metrics and /proxyMode (default 127.0.0.1:10249; \"\" for "
		"none)\n"
		"  --node-routes[=BOOL]       also set routes to the other nodes' pods, when all nodes share a link\n"
		"  --proxy-mode MODE          nftables is the only one\n"
		"  --conntrack-tcp-timeout-established, --conntrack-tcp-timeout-close-wait, --conntrack-udp-timeout,\n"
		"  --conntrack-udp-timeout-stream DURATION\n"
		"                             how long the kernel remembers such connections (default 24h, 1h, 0, 0; "
		"0: left as it is)\n"
		"  --cleanup                  remove the rules and exit\n"
		"  --v N                      log more\n";
	static char host[65];
	int64_t ns;
	struct proxy p = {.healthz = "0.0.0.0:10256", .metrics = "127.0.0.1:10249"};

	int sifted = upstream_flags_sift(&upstream, options, &argc, argv);

	if (sifted)
		return sifted;
	gethostname(host, sizeof host - 1);
	p.node = host;
	for (size_t i = 0; i < CONNTRACK_TIMEOUTS; i++)
		p.timeout_s[i] = timeouts[i].s;
	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		switch (o) {
		case OPT_KUBECONFIG: p.kubeconfig = optarg; break;
		case OPT_NODE: p.node = optarg; break;
		case OPT_CIDR: p.cluster_cidr = optarg; break;
		case OPT_HEALTHZ: p.healthz = optarg; break;
		case OPT_METRICS: p.metrics = optarg; break;
		case OPT_ROUTES: p.node_routes = !optarg || strcmp(optarg, "true") == 0; break;
		case OPT_CLEANUP: p.cleanup = true; break;
		case OPT_MODE:
			if (strcmp(optarg, "nftables") != 0) {
				fprintf(stderr, "kube-proxy: --proxy-mode %s is not built; nftables is\n", optarg);
				return 2;
			}
			break;
		case OPT_TIMEOUT ... OPT_TIMEOUT + CONNTRACK_TIMEOUTS - 1:
			if (!duration_parse(str_from(optarg), &ns) || ns < 0) {
				fprintf(stderr, "kube-proxy: \"%s\" is no duration\n", optarg);
				return 2;
			}
			p.timeout_s[o - OPT_TIMEOUT] = ns / 1000000000;
			break;
		case 'v': log_init("kube-proxy", atoi(optarg)); break;
		case OPT_VERSION: printf("Kubernetes v1.36.0+skiff\n"); return 0;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	}
	struct error *e = loop_run(main_fiber, &p);

	if (!e)
		e = p.error;
	if (p.nft)
		nft_ctx_free(p.nft);
	if (e && !error_is_sys(e, ECANCELED)) {
		log_and_free(e, "kube-proxy");
		return 1;
	}
	error_free(e);
	return 0;
}
