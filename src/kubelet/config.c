/* kubelet/config.c: flags and the KubeletConfiguration file. */
#include "base/flags.h"
#include "kubelet/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "schema/jv.h"

const char *const eviction_signal_names[EVICT_SIGNALS] = {
	"memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree", "pid.available",
};

struct error *config_pairs_parse(struct arena *a, struct str text, struct str_map *out)
{
	for (struct str rest = text; rest.p;) {
		struct str item = str_trim(str_cut(&rest, ',')), key, value = item;

		if (!item.n)
			continue;
		key = str_cut(&value, '=');
		if (!value.p || !key.n)
			return error_new("\"%.*s\" is not KEY=VALUE", STR_ARG(item));
		str_map_set(a, out, arena_str(a, key), arena_str(a, value));
	}
	return NULL;
}

static struct error *threshold(struct str signal, struct str value, struct kubelet_threshold out[EVICT_SIGNALS])
{
	for (int i = 0; i < EVICT_SIGNALS; i++) {
		struct kubelet_threshold *t = &out[i];

		if (!str_eqz(signal, eviction_signal_names[i]))
			continue;
		*t = (struct kubelet_threshold){.set = true};
		if (value.n && value.p[value.n - 1] == '%') {
			char num[32];

			snprintf(num, sizeof num, "%.*s", (int)(value.n - 1 < 31 ? value.n - 1 : 31), value.p);
			t->percent = strtod(num, NULL);
			if (t->percent < 0 || t->percent > 100)
				return error_new("eviction threshold %.*s is not between 0%% and 100%%", STR_ARG(value));
			t->set = t->percent > 0;
		} else {
			arena_cleanup struct arena a = {0};
			struct str canonical;

			TRY(quantity_canonical(&a, value, &canonical));
			t->quantity = quantity_value(value);
			t->set = t->quantity > 0;
		}
		return NULL;
	}
	if (str_eqz(signal, "allocatableMemory.available") || str_has_prefix(signal, STR("containerfs.")))
		return NULL;
	return error_new("unknown eviction signal %.*s", STR_ARG(signal));
}

struct error *config_eviction_parse(struct str text, struct kubelet_threshold out[EVICT_SIGNALS])
{
	for (int i = 0; i < EVICT_SIGNALS; i++)
		out[i] = (struct kubelet_threshold){0};
	for (struct str rest = text; rest.p;) {
		struct str item = str_trim(str_cut(&rest, ',')), value = item, signal;

		if (!item.n)
			continue;
		signal = str_cut(&value, '<');
		if (!value.p)
			return error_new("eviction threshold \"%.*s\" is not SIGNAL<VALUE", STR_ARG(item));
		TRY(threshold(signal, value, out));
	}
	return NULL;
}

struct error *config_taints_parse(struct kubelet_config *c, struct str text)
{
	for (struct str rest = text; rest.p;) {
		struct str item = str_trim(str_cut(&rest, ',')), effect = item, key, value;
		struct core_v1_taint *t;

		if (!item.n)
			continue;
		value = str_cut(&effect, ':');
		key = str_cut(&value, '=');
		if (!effect.p || (!str_eqz(effect, "NoSchedule") && !str_eqz(effect, "PreferNoSchedule") && !str_eqz(effect, "NoExecute")))
			return error_new("taint \"%.*s\" is not KEY=VALUE:EFFECT with effect NoSchedule, PreferNoSchedule or NoExecute", STR_ARG(item));
		t = arena_push(&c->arena, &c->taints);
		t->key = arena_str(&c->arena, key);
		t->value = arena_str(&c->arena, value);
		t->effect = arena_str(&c->arena, effect);
	}
	return NULL;
}

enum {
	O_KUBECONFIG = 256, O_BOOTSTRAP, O_HOSTNAME, O_NODE_IP, O_ENDPOINT, O_IMAGE_ENDPOINT, O_ROOT, O_MANIFESTS, O_CONFIG, O_DNS, O_DOMAIN,
	O_REGISTER, O_LABELS, O_TAINTS, O_MAX_PODS, O_PORT, O_RO_PORT, O_HEALTHZ_PORT, O_CERT, O_KEY, O_CLIENT_CA, O_EVICTION, O_SYSTEM, O_KUBE,
	O_CGROUP_ROOT, O_PROVIDER, O_CLOUD, O_RESOLV, O_ADDRESS, O_LOGS_DIR, O_ANONYMOUS, O_WEBHOOK, O_AUTHZ, O_ROTATE, O_ROTATE_CLIENT, O_GC_HIGH,
	O_GC_LOW, O_LOG_SIZE, O_LOG_FILES, O_SERIALIZE, O_PIDS, O_CGROUP_DRIVER, O_IGNORED, O_FAIL_SWAP, O_STATUS_FREQ, O_CERT_DIR, O_VERSION,
	O_DEBUG_HANDLERS,
};

static const struct option options[] = {
	{"kubeconfig", required_argument, NULL, O_KUBECONFIG},
	{"bootstrap-kubeconfig", required_argument, NULL, O_BOOTSTRAP},
	{"hostname-override", required_argument, NULL, O_HOSTNAME},
	{"node-ip", required_argument, NULL, O_NODE_IP},
	{"container-runtime-endpoint", required_argument, NULL, O_ENDPOINT},
	{"image-service-endpoint", required_argument, NULL, O_IMAGE_ENDPOINT},
	{"root-dir", required_argument, NULL, O_ROOT},
	{"pod-manifest-path", required_argument, NULL, O_MANIFESTS},
	{"config", required_argument, NULL, O_CONFIG},
	{"cluster-dns", required_argument, NULL, O_DNS},
	{"cluster-domain", required_argument, NULL, O_DOMAIN},
	{"register-node", optional_argument, NULL, O_REGISTER},
	{"node-labels", required_argument, NULL, O_LABELS},
	{"register-with-taints", required_argument, NULL, O_TAINTS},
	{"max-pods", required_argument, NULL, O_MAX_PODS},
	{"port", required_argument, NULL, O_PORT},
	{"read-only-port", required_argument, NULL, O_RO_PORT},
	{"healthz-port", required_argument, NULL, O_HEALTHZ_PORT},
	{"tls-cert-file", required_argument, NULL, O_CERT},
	{"tls-private-key-file", required_argument, NULL, O_KEY},
	{"client-ca-file", required_argument, NULL, O_CLIENT_CA},
	{"eviction-hard", required_argument, NULL, O_EVICTION},
	{"system-reserved", required_argument, NULL, O_SYSTEM},
	{"kube-reserved", required_argument, NULL, O_KUBE},
	{"cgroup-root", required_argument, NULL, O_CGROUP_ROOT},
	{"cgroup-driver", required_argument, NULL, O_CGROUP_DRIVER},
	{"provider-id", required_argument, NULL, O_PROVIDER},
	{"cloud-provider", required_argument, NULL, O_CLOUD},
	{"resolv-conf", required_argument, NULL, O_RESOLV},
	{"address", required_argument, NULL, O_ADDRESS},
	{"pod-logs-dir", required_argument, NULL, O_LOGS_DIR},
	{"anonymous-auth", optional_argument, NULL, O_ANONYMOUS},
	{"authentication-token-webhook", optional_argument, NULL, O_WEBHOOK},
	{"authorization-mode", required_argument, NULL, O_AUTHZ},
	{"rotate-server-certificates", optional_argument, NULL, O_ROTATE},
	{"rotate-certificates", optional_argument, NULL, O_ROTATE_CLIENT},
	{"image-gc-high-threshold", required_argument, NULL, O_GC_HIGH},
	{"image-gc-low-threshold", required_argument, NULL, O_GC_LOW},
	{"container-log-max-size", required_argument, NULL, O_LOG_SIZE},
	{"container-log-max-files", required_argument, NULL, O_LOG_FILES},
	{"serialize-image-pulls", optional_argument, NULL, O_SERIALIZE},
	{"pod-max-pids", required_argument, NULL, O_PIDS},
	{"fail-swap-on", optional_argument, NULL, O_FAIL_SWAP},
	{"node-status-update-frequency", required_argument, NULL, O_STATUS_FREQ},
	{"enable-debugging-handlers", optional_argument, NULL, O_DEBUG_HANDLERS},
	{"cert-dir", required_argument, NULL, O_CERT_DIR},
	{"v", required_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},
	{"version", optional_argument, NULL, O_VERSION},
	{NULL, 0, NULL, 0},
};

static void usage(FILE *f)
{
	fprintf(f,
		"usage: kubelet --kubeconfig FILE [options]\n\n"
		"Runs the pods of this node. Flags have upstream's meaning.\n\n"
		"API and node\n"
		"  --kubeconfig FILE              how to reach the API; without it only static pods run\n"
		"  --hostname-override NAME       name of the Node (default: the host's)\n"
		"  --node-ip IP[,IP6]             address of the Node (default: of the default route)\n"
		"  --register-node[=BOOL]         make the Node object (default true)\n"
		"  --node-labels K=V,...          labels of a new Node\n"
		"  --register-with-taints K=V:EFFECT,...\n"
		"  --provider-id ID, --cloud-provider external\n"
		"  --max-pods N                   (default 110)\n"
		"  --config FILE                  KubeletConfiguration (kubelet.config.k8s.io/v1beta1)\n\n"
		"Pods\n"
		"  --container-runtime-endpoint unix:///PATH   CRI v1 (default unix:///run/skiff/runtime.sock)\n"
		"  --root-dir DIR                 (default /var/lib/kubelet)\n"
		"  --pod-logs-dir DIR             (default /var/log/pods)\n"
		"  --pod-manifest-path DIR        static pods\n"
		"  --cluster-dns IP,... --cluster-domain NAME --resolv-conf FILE\n"
		"  --cgroup-root PATH             (default /)\n"
		"  --pod-max-pids N, --serialize-image-pulls[=BOOL]\n"
		"  --container-log-max-size SIZE --container-log-max-files N   (default 10Mi, 5)\n"
		"  --system-reserved, --kube-reserved cpu=..,memory=..\n"
		"  --eviction-hard SIGNAL<VALUE,...   (default memory.available<100Mi,nodefs.available<10%%,imagefs.available<15%%,nodefs.inodesFree<5%%)\n"
		"  --image-gc-high-threshold N, --image-gc-low-threshold N   percent (default 85, 80)\n\n"
		"Server\n"
		"  --address IP --port N          HTTPS (default 0.0.0.0:10250)\n"
		"  --read-only-port N             plain HTTP, no authentication (default 0: off)\n"
		"  --healthz-port N               on loopback (default 10248, 0: off)\n"
		"  --tls-cert-file, --tls-private-key-file FILE   (default: self-signed, in ROOT-DIR/pki)\n"
		"  --client-ca-file FILE          who may come with a certificate\n"
		"  --anonymous-auth[=BOOL], --authentication-token-webhook[=BOOL], --authorization-mode Webhook|AlwaysAllow\n\n"
		"  --v N                          verbosity\n"
		"  --help, --version\n");
}

static bool boolean(const char *s)
{
	return !s || strcmp(s, "true") == 0 || strcmp(s, "1") == 0 || strcmp(s, "t") == 0 || strcmp(s, "T") == 0 || strcmp(s, "True") == 0;
}

static void add_list(struct kubelet_config *c, struct strings *l, struct str text)
{
	for (struct str rest = text; rest.p;) {
		struct str item = str_trim(str_cut(&rest, ','));

		if (item.n)
			*arena_push(&c->arena, l) = arena_str(&c->arena, item);
	}
}

/* ---- KubeletConfiguration ---- */

static struct str jstr(const struct jv *doc, const char *name)
{
	return jv_str(jv_get(doc, str_from(name)));
}

static void jtext(struct kubelet_config *c, const struct jv *doc, const char *name, const char **out)
{
	struct str s = jstr(doc, name);

	if (s.n)
		*out = arena_strz(&c->arena, s);
}

static void jbool(const struct jv *v, bool *out)
{
	if (jv_is(v, JV_BOOL))
		*out = v->b;
}

static void jint(const struct jv *v, int *out)
{
	if (jv_is(v, JV_INT) && v->i >= INT32_MIN && v->i <= INT32_MAX)
		*out = (int)v->i;
}

static void jmap(struct kubelet_config *c, const struct jv *v, struct str_map *out)
{
	for (uint32_t i = 0; jv_is(v, JV_OBJECT) && i < v->n; i++)
		str_map_set(&c->arena, out, arena_str(&c->arena, v->members[i].key), arena_str(&c->arena, jv_str(&v->members[i].value)));
}

static struct error *load_config(struct kubelet_config *c, const char *path)
{
	buf_cleanup struct buf text = {0}, json = {0};
	arena_cleanup struct arena a = {0};
	struct jv doc;
	const struct jv *v;
	int64_t ns;

	TRY(file_read(path, &text));
	TRY(error_wrap(yaml_to_json(buf_view(&text), NULL, &json), "%s", path));
	TRY(error_wrap(jv_parse(&a, buf_view(&json), NULL, &doc), "%s", path));
	if (!str_eqz(jstr(&doc, "kind"), "KubeletConfiguration"))
		return error_new("%s: kind is \"%.*s\", not KubeletConfiguration", path, STR_ARG(jstr(&doc, "kind")));
	jtext(c, &doc, "staticPodPath", &c->manifest_dir);
	jtext(c, &doc, "address", &c->address);
	jtext(c, &doc, "clusterDomain", &c->cluster_domain);
	jtext(c, &doc, "tlsCertFile", &c->cert_file);
	jtext(c, &doc, "tlsPrivateKeyFile", &c->key_file);
	jtext(c, &doc, "cgroupRoot", &c->cgroup_root);
	jtext(c, &doc, "providerID", &c->provider_id);
	jtext(c, &doc, "resolvConf", &c->resolv_conf);
	jtext(c, &doc, "podLogsDir", &c->pod_logs_dir);
	jtext(c, &doc, "containerRuntimeEndpoint", &c->cri_endpoint);
	jint(jv_get(&doc, STR("port")), &c->port);
	jint(jv_get(&doc, STR("readOnlyPort")), &c->read_only_port);
	jint(jv_get(&doc, STR("healthzPort")), &c->healthz_port);
	jint(jv_get(&doc, STR("maxPods")), &c->max_pods);
	jint(jv_get(&doc, STR("imageGCHighThresholdPercent")), &c->image_gc_high);
	jint(jv_get(&doc, STR("imageGCLowThresholdPercent")), &c->image_gc_low);
	jint(jv_get(&doc, STR("containerLogMaxFiles")), &c->log_max_files);
	if (jstr(&doc, "containerLogMaxSize").n)
		c->log_max_size = quantity_value(jstr(&doc, "containerLogMaxSize"));
	jbool(jv_get(&doc, STR("registerNode")), &c->register_node);
	jbool(jv_get(&doc, STR("singleProcessOOMKill")), &c->single_process_oom_kill);
	jbool(jv_get(&doc, STR("serializeImagePulls")), &c->serialize_image_pulls);
	jbool(jv_get(&doc, STR("serverTLSBootstrap")), &c->rotate_server_cert);
	jbool(jv_get(&doc, STR("rotateCertificates")), &c->rotate_client_cert);
	jbool(jv_get(&doc, STR("failSwapOn")), &c->fail_swap_on);
	jbool(jv_get(&doc, STR("enableDebuggingHandlers")), &c->enable_debugging_handlers);
	jbool(jv_at(&doc, "authentication", "anonymous", "enabled", NULL), &c->anonymous_auth);
	jbool(jv_at(&doc, "authentication", "webhook", "enabled", NULL), &c->webhook_auth);
	v = jv_at(&doc, "authentication", "x509", "clientCAFile", NULL);
	if (jv_str(v).n)
		c->client_ca_file = arena_strz(&c->arena, jv_str(v));
	v = jv_at(&doc, "authorization", "mode", NULL);
	if (jv_str(v).n)
		c->always_allow = str_eqz(jv_str(v), "AlwaysAllow");
	v = jv_get(&doc, STR("podPidsLimit"));
	if (jv_is(v, JV_INT))
		c->pod_pids_limit = v->i;
	v = jv_get(&doc, STR("clusterDNS"));
	for (uint32_t i = 0; jv_is(v, JV_ARRAY) && i < v->n; i++)
		add_list(c, &c->cluster_dns, jv_str(&v->items[i]));
	jmap(c, jv_get(&doc, STR("systemReserved")), &c->system_reserved);
	jmap(c, jv_get(&doc, STR("kubeReserved")), &c->kube_reserved);
	v = jv_get(&doc, STR("evictionHard"));
	if (jv_is(v, JV_OBJECT)) {
		for (int i = 0; i < EVICT_SIGNALS; i++)
			c->eviction_hard[i] = (struct kubelet_threshold){0};
		for (uint32_t i = 0; i < v->n; i++)
			TRY(threshold(v->members[i].key, jv_str(&v->members[i].value), c->eviction_hard));
	}
	v = jv_get(&doc, STR("registerWithTaints"));
	for (uint32_t i = 0; jv_is(v, JV_ARRAY) && i < v->n; i++) {
		struct core_v1_taint *t = arena_push(&c->arena, &c->taints);

		t->key = arena_str(&c->arena, jstr(&v->items[i], "key"));
		t->value = arena_str(&c->arena, jstr(&v->items[i], "value"));
		t->effect = arena_str(&c->arena, jstr(&v->items[i], "effect"));
	}
	if (duration_parse(jstr(&doc, "nodeStatusUpdateFrequency"), &ns) && ns > 0)
		c->node_status_update_s = ns / 1000000000;
	if (duration_parse(jstr(&doc, "nodeStatusReportFrequency"), &ns) && ns > 0)
		c->node_status_report_s = ns / 1000000000;
	return NULL;
}

static int number(const char *name, const char *text, int64_t min, int64_t max, int64_t *out)
{
	int64_t n;

	if (!str_to_i64(str_from(text), &n) || n < min || n > max) {
		fprintf(stderr, "kubelet: --%s: \"%s\" is not a number between %lld and %lld\n", name, text, (long long)min, (long long)max);
		return 2;
	}
	*out = n;
	return 0;
}

static int fail(const char *flag, struct error *e)
{
	fprintf(stderr, "kubelet: --%s: %s\n", flag, e->message);
	error_free(e);
	return 2;
}

static int one(struct kubelet_config *c, int o, const char *name, const char *arg)
{
	struct arena *a = &c->arena;
	struct error *e = NULL;
	int64_t n = 0, ns;
	int r = 0;

	switch (o) {
	case O_KUBECONFIG: c->kubeconfig = arg; break;
	case O_BOOTSTRAP: c->bootstrap_kubeconfig = arg; break;
	case O_HOSTNAME: c->node_name = arg; break;
	case O_NODE_IP: c->node_ip = arg; break;
	case O_ENDPOINT: c->cri_endpoint = arg; break;
	case O_ROOT: c->root_dir = arg; break;
	case O_MANIFESTS: c->manifest_dir = arg; break;
	case O_DNS: add_list(c, &c->cluster_dns, str_from(arg)); break;
	case O_DOMAIN: c->cluster_domain = arg; break;
	case O_REGISTER: c->register_node = boolean(arg); break;
	case O_LABELS: e = config_pairs_parse(a, str_from(arg), &c->node_labels); break;
	case O_TAINTS: e = config_taints_parse(c, str_from(arg)); break;
	case O_MAX_PODS: r = number(name, arg, 1, 4000, &n); c->max_pods = (int)n; break;
	case O_PORT: r = number(name, arg, 0, 65535, &n); c->port = (int)n; break;
	case O_RO_PORT: r = number(name, arg, 0, 65535, &n); c->read_only_port = (int)n; break;
	case O_HEALTHZ_PORT: r = number(name, arg, 0, 65535, &n); c->healthz_port = (int)n; break;
	case O_CERT: c->cert_file = arg; break;
	case O_KEY: c->key_file = arg; break;
	case O_CLIENT_CA: c->client_ca_file = arg; break;
	case O_EVICTION: e = config_eviction_parse(str_from(arg), c->eviction_hard); break;
	case O_SYSTEM: e = config_pairs_parse(a, str_from(arg), &c->system_reserved); break;
	case O_KUBE: e = config_pairs_parse(a, str_from(arg), &c->kube_reserved); break;
	case O_CGROUP_ROOT: c->cgroup_root = arg; break;
	case O_CGROUP_DRIVER:
		if (strcmp(arg, "cgroupfs") != 0) {
			fprintf(stderr, "kubelet: --cgroup-driver: only cgroupfs is built\n");
			return 2;
		}
		break;
	case O_PROVIDER: c->provider_id = arg; break;
	case O_CLOUD: c->cloud_provider = arg; break;
	case O_RESOLV: c->resolv_conf = arg; break;
	case O_ADDRESS: c->address = arg; break;
	case O_LOGS_DIR: c->pod_logs_dir = arg; break;
	case O_ANONYMOUS: c->anonymous_auth = boolean(arg); break;
	case O_WEBHOOK: c->webhook_auth = boolean(arg); break;
	case O_AUTHZ:
		if (strcmp(arg, "AlwaysAllow") != 0 && strcmp(arg, "Webhook") != 0) {
			fprintf(stderr, "kubelet: --authorization-mode: %s is not Webhook or AlwaysAllow\n", arg);
			return 2;
		}
		c->always_allow = strcmp(arg, "AlwaysAllow") == 0;
		break;
	case O_ROTATE: c->rotate_server_cert = boolean(arg); break;
	case O_ROTATE_CLIENT: c->rotate_client_cert = boolean(arg); break;
	case O_GC_HIGH: r = number(name, arg, 0, 100, &n); c->image_gc_high = (int)n; break;
	case O_GC_LOW: r = number(name, arg, 0, 100, &n); c->image_gc_low = (int)n; break;
	case O_LOG_SIZE: c->log_max_size = quantity_value(str_from(arg)); break;
	case O_LOG_FILES: r = number(name, arg, 2, 1000, &n); c->log_max_files = (int)n; break;
	case O_SERIALIZE: c->serialize_image_pulls = boolean(arg); break;
	case O_PIDS: r = number(name, arg, -1, 1 << 30, &c->pod_pids_limit); break;
	case O_FAIL_SWAP: c->fail_swap_on = boolean(arg); break;
	case O_DEBUG_HANDLERS: c->enable_debugging_handlers = boolean(arg); break;
	case O_STATUS_FREQ:
		if (duration_parse(str_from(arg), &ns) && ns >= 1000000000)
			c->node_status_update_s = ns / 1000000000;
		break;
	case O_CONFIG: /* read before all flags */
	case O_IMAGE_ENDPOINT:
	case O_CERT_DIR:
		break;
	case 'v':
		r = number(name, arg, 0, 100, &n);
		c->verbosity = (int)n;
		break;
	default: return 2;
	}
	return e ? fail(name, e) : r;
}

static const struct upstream_flags upstream = {
	"kubelet",
	UPSTREAM_LOG_FLAGS
	"authentication-token-webhook-cache-ttl authorization-webhook-cache-authorized-ttl "
	"authorization-webhook-cache-unauthorized-ttl contention-profiling! cpu-manager-reconcile-period "
	"enable-controller-attach-detach! event-burst event-qps experimental-allocatable-ignore-eviction! "
	"experimental-mounter-path fail-cgroupv1! feature-gates file-check-frequency hairpin-mode healthz-bind-address "
	"http-check-frequency kernel-memcg-notification! kube-api-burst kube-api-content-type kube-api-qps kubelet-cgroups "
	"local-storage-capacity-isolation! make-iptables-util-chains! max-open-files maximum-dead-containers "
	"maximum-dead-containers-per-container minimum-container-ttl-duration node-status-max-images oom-score-adj "
	"registry-burst registry-qps runtime-cgroups runtime-request-timeout streaming-connection-idle-timeout sync-frequency "
	"tls-cipher-suites tls-min-version volume-stats-agg-period",
	"allowed-unsafe-sysctls cgroups-per-qos! config-dir cpu-cfs-quota! cpu-cfs-quota-period cpu-manager-policy "
	"cpu-manager-policy-options enable-server! enforce-node-allocatable eviction-max-pod-grace-period "
	"eviction-minimum-reclaim eviction-pressure-transition-period eviction-soft eviction-soft-grace-period "
	"exit-on-lock-contention! image-credential-provider-bin-dir image-credential-provider-config kube-reserved-cgroup "
	"lock-file manifest-url manifest-url-header memory-manager-policy minimum-image-ttl-duration pod-cidr pods-per-core "
	"protect-kernel-defaults! qos-reserved reserved-cpus reserved-memory runonce! seccomp-default! system-cgroups "
	"system-reserved-cgroup topology-manager-policy topology-manager-policy-options topology-manager-scope "
	"volume-plugin-dir windows-priorityclass windows-service!",
};

int config_parse(int argc, char **argv, struct kubelet_config *c)
{
	static char host[256];
	struct error *e;
	int o, index, r;

	*c = (struct kubelet_config){
		.cri_endpoint = "unix:///run/skiff/runtime.sock", .root_dir = "/var/lib/kubelet", .cluster_domain = "cluster.local", .cgroup_root = "/",
		.pod_logs_dir = "/var/log/pods", .container_logs_dir = "", .resolv_conf = "/etc/resolv.conf", .address = "0.0.0.0", .register_node = true,
		.webhook_auth = true, .max_pods = 110, .port = 10250, .healthz_port = 10248, .image_gc_high = 85, .image_gc_low = 80,
		.log_max_size = 10 << 20, .log_max_files = 5, .node_status_update_s = 10, .node_status_report_s = 300, .lease_s = 40, .pod_pids_limit = -1,
		.serialize_image_pulls = true, .enable_debugging_handlers = true,
	};
	e = config_eviction_parse(STR("memory.available<100Mi,nodefs.available<10%,imagefs.available<15%,nodefs.inodesFree<5%,imagefs.inodesFree<5%"),
				  c->eviction_hard);
	if (e)
		return fail("eviction-hard", e);
	r = upstream_flags_sift(&upstream, options, &argc, argv);
	if (r)
		return r;
	/* The file first: flags win over it. */
	for (int pass = 0; pass < 2; pass++) {
		optind = 0;
		while ((index = 0, o = getopt_long(argc, argv, "v:h", options, &index)) != -1) {
			if (o == '?')
				return 2;
			if (o == 'h') {
				usage(stdout);
				return 0;
			}
			if (o == O_VERSION) {
				printf("Kubernetes %s\n", KUBELET_VERSION);
				return 0;
			}
			if (pass == 0 && o == O_CONFIG)
				c->config_file = optarg; /* its path, until it is read below */
			if (pass == 1 && (r = one(c, o, o == 'v' ? "v" : options[index].name, optarg)) != 0)
				return r;
		}
		if (optind < argc) {
			fprintf(stderr, "kubelet: unknown argument \"%s\"; see --help\n", argv[optind]);
			return 2;
		}
		if (pass == 0)
			c->kubeconfig = NULL;
	}
	if (!c->node_name) {
		if (gethostname(host, sizeof host - 1) < 0) {
			fprintf(stderr, "kubelet: no host name; give --hostname-override\n");
			return 1;
		}
		for (char *p = host; *p; p++)
			if (*p >= 'A' && *p <= 'Z')
				*p = (char)(*p + 32);
		c->node_name = host;
	}
	if (strcmp(c->pod_logs_dir, "/var/log/pods") == 0)
		c->container_logs_dir = "/var/log/containers";
	return -1;
}


struct error *config_load_file(struct kubelet_config *c, int argc, char **argv)
{
	const char *path = c->config_file;
	struct error *e;

	c->config_file = NULL;
	if (!path)
		return NULL;
	/* Once more from the defaults: file, then flags. */
	e = load_config(c, path);
	if (e)
		return e;
	optind = 0;
	for (int o, index; (index = 0, o = getopt_long(argc, argv, "v:h", options, &index)) != -1;)
		if (o != O_CONFIG && o != O_DNS && o != O_TAINTS && one(c, o, o == 'v' ? "v" : options[index].name, optarg) != 0)
			return error_new("flags");
	return NULL;
}
