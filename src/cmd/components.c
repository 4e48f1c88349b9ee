#include <linux/capability.h>
#include <string.h>

#include "cmd/addons.h"
#include "cmd/cluster.h"
#include "cmd/node_net.h"
#include "cmd/pki.h"

#include "apiserver/apiserver.h"
#include "cloud/cloud.h"
#include "controller/controller.h"
#include "dns/dns.h"
#include "kubelet/kubelet.h"
#include "proxy/proxy.h"
#include "runtime/runtime.h"
#include "scheduler/scheduler.h"

/* Both ends of the demo and of real work: every process of a cluster, by upstream's name where it has one. */
const struct program programs[] = {
	{"kube-apiserver", "the API server and its store", kube_apiserver_main, true},
	{"kube-controller-manager", "the controllers", kube_controller_manager_main, true},
	{"kube-scheduler", "assigns pods to nodes", kube_scheduler_main, true},
	{"cloud-controller-manager", "node addresses, zones and LoadBalancers (provider: local)", cloud_controller_manager_main, true},
	{"kubelet", "runs the pods of one node", kubelet_main, true},
	{"container-runtime", "CRI server over crun and conmon", skiff_runtime_main, true},
	{"pause", "process 1 of a pod that shares its process namespace; started by the runtime", skiff_pause_main, false},
	{"kube-proxy", "Services as nftables rules", kube_proxy_main, true},
	{"cluster-dns", "names of services and pods", cluster_dns_main, true},
	{"cluster-addons", "applies what every cluster has: the DNS Service, roles of Skiff's own components", cluster_addons_main, true},
};
const size_t n_programs = sizeof programs / sizeof *programs;

const struct program *program_find(const char *name)
{
	for (size_t i = 0; i < n_programs; i++)
		if (strcmp(programs[i].name, name) == 0)
			return &programs[i];
	return NULL;
}

#define COMPONENT_ARGS_MAX 48

struct args {
	struct cluster *c;
	const char **v;
	size_t n;
};

static void arg(struct args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void arg(struct args *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (a->n + 1 < COMPONENT_ARGS_MAX)
		a->v[a->n++] = arena_vprintf(a->c->a, fmt, ap).p;
	va_end(ap);
}

static struct component *add(struct cluster *c, struct component *list, size_t *n, const char *program, struct args *a)
{
	struct component *p = &list[(*n)++];

	p->name = program;
	p->main = program_find(program)->main;
	p->argv = arena_array(c->a, const char *, COMPONENT_ARGS_MAX);
	p->pidfd = -1;
	*a = (struct args){c, p->argv, 0};
	arg(a, "%s", program);
	if (c->verbosity)
		arg(a, "--v=%d", c->verbosity);
	return p;
}

static void control_plane(struct cluster *c, struct component *list, size_t *n)
{
	struct args a;
	struct component *p = add(c, list, n, "kube-apiserver", &a);

	p->uid = UID_APISERVER;
	arg(&a, "--secure-port=%d", c->api_port);
	arg(&a, "--advertise-address=%s", c->node_ip);
	if (c->etcd_servers)
		arg(&a, "--etcd-servers=%s", c->etcd_servers);
	else
		arg(&a, "--data-dir=%s", data_path(c, "store"));
	arg(&a, "--tls-cert-file=%s", data_path(c, "pki/apiserver.crt"));
	arg(&a, "--tls-private-key-file=%s", data_path(c, "pki/apiserver.key"));
	arg(&a, "--client-ca-file=%s", data_path(c, "pki/ca.crt"));
	arg(&a, "--service-account-issuer=https://kubernetes.default.svc.%s", c->cluster_domain);
	arg(&a, "--service-account-key-file=%s", data_path(c, "pki/sa.pub"));
	arg(&a, "--service-account-signing-key-file=%s", data_path(c, "pki/sa.key"));
	arg(&a, "--service-cluster-ip-range=%s", c->service_cidr);
	arg(&a, "--kubelet-client-certificate=%s", data_path(c, "pki/apiserver-kubelet-client.crt"));
	arg(&a, "--kubelet-client-key=%s", data_path(c, "pki/apiserver-kubelet-client.key"));
	arg(&a, "--kubelet-certificate-authority=%s", data_path(c, "pki/ca.crt"));
	arg(&a, "--requestheader-client-ca-file=%s", data_path(c, "pki/front-proxy-ca.crt"));
	arg(&a, "--requestheader-allowed-names=front-proxy-client");
	arg(&a, "--requestheader-username-headers=X-Remote-User");
	arg(&a, "--requestheader-group-headers=X-Remote-Group");
	arg(&a, "--requestheader-extra-headers-prefix=X-Remote-Extra-");
	arg(&a, "--proxy-client-cert-file=%s", data_path(c, "pki/front-proxy-client.crt"));
	arg(&a, "--proxy-client-key-file=%s", data_path(c, "pki/front-proxy-client.key"));
	arg(&a, "--enable-bootstrap-token-auth=true");
	arg(&a, "--authorization-mode=Node,RBAC");
	arg(&a, "--allow-privileged=true");
	arg(&a, "--enable-admission-plugins=NodeRestriction");

	p = add(c, list, n, "kube-controller-manager", &a);
	p->uid = UID_CONTROLLER_MANAGER;
	arg(&a, "--kubeconfig=%s", data_path(c, "kubeconfig/kube-controller-manager.kubeconfig"));
	arg(&a, "--bind-address=127.0.0.1");
	arg(&a, "--leader-elect=%s", c->etcd_servers ? "true" : "false");
	arg(&a, "--use-service-account-credentials=true");
	arg(&a, "--root-ca-file=%s", data_path(c, "pki/ca.crt"));
	arg(&a, "--cluster-signing-cert-file=%s", data_path(c, "pki/ca.crt"));
	arg(&a, "--cluster-signing-key-file=%s", data_path(c, "pki/ca.key"));
	arg(&a, "--service-account-private-key-file=%s", data_path(c, "pki/sa.key"));
	arg(&a, "--allocate-node-cidrs=true");
	arg(&a, "--cluster-cidr=%s", c->pod_cidr);

	p = add(c, list, n, "kube-scheduler", &a);
	p->uid = UID_SCHEDULER;
	arg(&a, "--kubeconfig=%s", data_path(c, "kubeconfig/kube-scheduler.kubeconfig"));
	arg(&a, "--bind-address=127.0.0.1");
	arg(&a, "--leader-elect=%s", c->etcd_servers ? "true" : "false");

	p = add(c, list, n, "cloud-controller-manager", &a);
	p->uid = UID_CLOUD_CONTROLLER_MANAGER;
	arg(&a, "--kubeconfig=%s", data_path(c, "kubeconfig/cloud-controller-manager.kubeconfig"));
	arg(&a, "--leader-elect=%s", c->etcd_servers ? "true" : "false");
	arg(&a, "--cloud-provider=local");
	arg(&a, "--local-load-balancer-pool=%s", c->lb_pool);
	struct str names = STR_NULL;

	for (int i = 0; i < c->nodes; i++)
		names = arena_printf(c->a, "%.*s%s%s", STR_ARG(names), i ? "," : "", cluster_node_name(c, i));
	arg(&a, "--local-nodes=%.*s", STR_ARG(names));
}

static void node(struct cluster *c, int i, struct component *list, size_t *n)
{
	const char *name = cluster_node_name(c, i), *ip = cluster_node_ip(c, i);
	const char *suffix = i ? arena_printf(c->a, "-%d", i + 1).p : "";
	const char *netns = i ? node_netns_path(c, i) : NULL;
	const char *socket = run_path(c, "runtime%s/runtime.sock", suffix);
	size_t first = *n;
	struct args a;
	struct component *p = add(c, list, n, "container-runtime", &a);

	arg(&a, "--listen=unix://%s", socket);
	arg(&a, "--root=%s", data_path(c, "runtime%s", suffix));
	/* One machine, one copy of an image: the nodes beyond the first use the first one's store. */
	if (i)
		arg(&a, "--image-root=%s", data_path(c, "runtime"));
	arg(&a, "--state-dir=%s", run_path(c, "runtime%s", suffix));
	arg(&a, "--cluster-cidr=%s", c->pod_cidr);
	arg(&a, "--service-cidr=%s", c->service_cidr);
	arg(&a, "--cgroup-root=%s%s", c->cgroup, suffix);

	p = add(c, list, n, "kubelet", &a);
	if (c->server) {
		arg(&a, "--bootstrap-kubeconfig=%s", data_path(c, "kubeconfig/bootstrap.kubeconfig"));
		arg(&a, "--kubeconfig=%s", data_path(c, "kubeconfig/kubelet.kubeconfig"));
		arg(&a, "--rotate-certificates=true");
		arg(&a, "--rotate-server-certificates=true");
	} else {
		arg(&a, "--kubeconfig=%s", data_path(c, "kubeconfig/kubelet-%s.kubeconfig", name));
		arg(&a, "--tls-cert-file=%s", data_path(c, "pki/kubelet-server-%s.crt", name));
		arg(&a, "--tls-private-key-file=%s", data_path(c, "pki/kubelet-server-%s.key", name));
		arg(&a, "--provider-id=local://%s", name);
	}
	arg(&a, "--hostname-override=%s", name);
	arg(&a, "--node-ip=%s", ip);
	arg(&a, "--container-runtime-endpoint=unix://%s", socket);
	arg(&a, "--root-dir=%s", data_path(c, "kubelet%s", suffix));
	arg(&a, "--pod-manifest-path=%s", data_path(c, "manifests%s", suffix));
	arg(&a, "--cluster-dns=%s", c->dns_ip);
	arg(&a, "--cluster-domain=%s", c->cluster_domain);
	arg(&a, "--client-ca-file=%s", data_path(c, "pki/ca.crt"));
	arg(&a, "--cgroup-root=%s%s", c->cgroup, suffix);
	if (i || strcmp(c->data_dir, SKIFF_DATA_DIR) != 0)
		arg(&a, "--pod-logs-dir=%s", data_path(c, "pod-logs%s", suffix));

	p = add(c, list, n, "kube-proxy", &a);
	if (c->server) {
		/* It acts as its node, whose key only root may read. */
		arg(&a, "--kubeconfig=%s", data_path(c, "kubeconfig/kubelet.kubeconfig"));
	} else {
		p->uid = UID_PROXY;
		p->keep_caps = 1ull << CAP_NET_ADMIN | 1ull << CAP_NET_RAW | 1ull << CAP_NET_BIND_SERVICE;
		arg(&a, "--kubeconfig=%s", data_path(c, "kubeconfig/kube-proxy.kubeconfig"));
	}
	arg(&a, "--hostname-override=%s", name);
	arg(&a, "--cluster-cidr=%s", c->pod_cidr);
	arg(&a, "--node-routes=true");

	for (; first < *n; first++) {
		list[first].node = true;
		list[first].netns = netns;
		if (i)
			list[first].name = arena_printf(c->a, "%s@%d", list[first].name, i + 1).p;
	}
}

struct component *cluster_components(struct cluster *c, size_t *n)
{
	struct component *list = arena_array(c->a, struct component, 8 + 3 * (size_t)c->nodes);
	struct args a;

	*n = 0;
	if (!c->server)
		control_plane(c, list, n);
	if (!c->server) {
		struct component *p = add(c, list, n, "cluster-addons", &a);

		p->oneshot = true;
		arg(&a, "--data-dir=%s", c->data_dir);
	}
	for (int i = 0; i < c->nodes; i++)
		node(c, i, list, n);
	if (!c->server) {
		struct component *p = add(c, list, n, "cluster-dns", &a);

		p->uid = UID_DNS;
		arg(&a, "--kubeconfig=%s", data_path(c, "kubeconfig/cluster-dns.kubeconfig"));
		arg(&a, "--listen=%s:%d", c->node_ip, PORT_DNS);
		arg(&a, "--cluster-domain=%s", c->cluster_domain);
	}
	return list;
}
