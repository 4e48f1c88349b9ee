#include "cmd/addons.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "client/client.h"
#include "cmd/cluster.h"
#include "cmd/join.h"

#define WAIT_MS (5 * 60 * 1000)
#define RETRY_MS 50

static struct error *apply(struct client *k, struct cluster *c, const struct api_resource *r, const char *ns, const char *name,
			   struct str body)
{
	arena_cleanup struct arena a = {0};
	struct error *e = client_patch(k, &a, r, str_from(ns), str_from(name), NULL, PATCH_APPLY, body, "skiff", true, NULL);

	return error_wrap(e, "applying %.*s %s", STR_ARG(r->kind), name);
}

static struct error *bind_role(struct client *k, struct cluster *c, const char *binding, const char *cluster_role, const char *user)
{
	return apply(k, c, &rbac_v1_clusterrolebindings_resource, "", binding,
		     arena_printf(c->a, "{\"apiVersion\":\"rbac.authorization.k8s.io/v1\",\"kind\":\"ClusterRoleBinding\","
					"\"metadata\":{\"name\":\"%s\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\","
					"\"kind\":\"ClusterRole\",\"name\":\"%s\"},\"subjects\":[{\"kind\":\"User\","
					"\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"%s\"}]}", binding, cluster_role, user));
}

static struct error *role(struct client *k, struct cluster *c, const char *name, const char *user, const char *rules)
{
	TRY(apply(k, c, &rbac_v1_clusterroles_resource, "", name,
		  arena_printf(c->a, "{\"apiVersion\":\"rbac.authorization.k8s.io/v1\",\"kind\":\"ClusterRole\","
				     "\"metadata\":{\"name\":\"%s\"},\"rules\":[%s]}", name, rules)));
	return bind_role(k, c, name, name, user);
}

static struct error *apply_all(struct client *k, struct cluster *c)
{
	TRY(role(k, c, "system:cluster-dns", "system:cluster-dns",
		 "{\"apiGroups\":[\"\"],\"resources\":[\"services\",\"namespaces\",\"pods\",\"nodes\"],\"verbs\":[\"list\",\"watch\"]},"
		 "{\"apiGroups\":[\"discovery.k8s.io\"],\"resources\":[\"endpointslices\"],\"verbs\":[\"list\",\"watch\"]}"));
	TRY(role(k, c, "system:cloud-controller-manager", "system:cloud-controller-manager",
		 "{\"apiGroups\":[\"\"],\"resources\":[\"nodes\"],\"verbs\":[\"get\",\"list\",\"watch\",\"update\",\"patch\",\"delete\"]},"
		 "{\"apiGroups\":[\"\"],\"resources\":[\"nodes/status\",\"services/status\"],\"verbs\":[\"update\",\"patch\"]},"
		 "{\"apiGroups\":[\"\"],\"resources\":[\"services\"],\"verbs\":[\"get\",\"list\",\"watch\",\"update\",\"patch\"]},"
		 "{\"apiGroups\":[\"\",\"events.k8s.io\"],\"resources\":[\"events\"],\"verbs\":[\"create\",\"patch\",\"update\"]},"
		 "{\"apiGroups\":[\"coordination.k8s.io\"],\"resources\":[\"leases\"],\"verbs\":[\"get\",\"create\",\"update\"]},"
		 "{\"apiGroups\":[\"certificates.k8s.io\"],\"resources\":[\"certificatesigningrequests\"],\"verbs\":[\"get\",\"list\",\"watch\"]},"
		 "{\"apiGroups\":[\"certificates.k8s.io\"],\"resources\":[\"certificatesigningrequests/approval\"],\"verbs\":[\"update\"]},"
		 "{\"apiGroups\":[\"certificates.k8s.io\"],\"resources\":[\"signers\"],\"resourceNames\":[\"kubernetes.io/kubelet-serving\"],"
		 "\"verbs\":[\"approve\"]}"));
	TRY(join_objects(k, c, apply));
	TRY(apply(k, c, &core_v1_services_resource, "kube-system", "kube-dns",
		  arena_printf(c->a, "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"kube-dns\","
				     "\"namespace\":\"kube-system\",\"labels\":{\"k8s-app\":\"kube-dns\","
				     "\"kubernetes.io/cluster-service\":\"true\",\"kubernetes.io/name\":\"CoreDNS\"}},"
				     "\"spec\":{\"clusterIP\":\"%s\",\"ports\":[{\"name\":\"dns\",\"port\":53,\"protocol\":\"UDP\","
				     "\"targetPort\":%d},{\"name\":\"dns-tcp\",\"port\":53,\"protocol\":\"TCP\",\"targetPort\":%d}]}}",
			       c->dns_ip, PORT_DNS, PORT_DNS)));
	return apply(k, c, &discovery_v1_endpointslices_resource, "kube-system", "kube-dns-skiff",
		     arena_printf(c->a, "{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"metadata\":{"
					"\"name\":\"kube-dns-skiff\",\"namespace\":\"kube-system\",\"labels\":{"
					"\"kubernetes.io/service-name\":\"kube-dns\","
					"\"endpointslice.kubernetes.io/managed-by\":\"skiff\"}},\"addressType\":\"IPv4\","
					"\"endpoints\":[{\"addresses\":[\"%s\"],\"conditions\":{\"ready\":true,\"serving\":true,"
					"\"terminating\":false}}],\"ports\":[{\"name\":\"dns\",\"port\":%d,\"protocol\":\"UDP\"},"
					"{\"name\":\"dns-tcp\",\"port\":%d,\"protocol\":\"TCP\"}]}",
				  c->node_ip, PORT_DNS, PORT_DNS));
}

static void run(void *arg)
{
	struct cluster *c = arg;
	struct client_config cfg;
	struct client *k = NULL;
	struct error *e = cluster_init(c);

	if (!e)
		e = client_config_load(c->a, data_path(c, "admin.kubeconfig"), NULL, &cfg);
	if (!e)
		e = client_new(&cfg, &k);
	if (!e) {
		int64_t until = now_ms() + WAIT_MS;

		/* The API server starts at the same time, and its bootstrap objects come a moment after it answers. */
		while ((e = apply_all(k, c)) && now_ms() < until && !fiber_cancelled()) {
			log_v(2, "%s; trying again", error_message(e));
			error_clear(&e);
			if ((e = fiber_sleep(RETRY_MS)))
				break;
		}
	}
	client_free(k);
	c->verbosity = e ? -1 : 0;
	log_and_free(e, "cluster add-ons");
}

int cluster_addons_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"data-dir", required_argument, NULL, 'd'}, {"v", required_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'}, {0},
	};
	arena_cleanup struct arena a = {0};
	struct cluster c = {.a = &a, .nodes = -1};

	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (o == 'd')
			c.data_dir = optarg;
		else if (o == 'v')
			log_init("cluster-addons", atoi(optarg));
		else {
			fprintf(o == 'h' ? stdout : stderr, "usage: skiff cluster-addons [--data-dir DIR]\n"
				"Applies the objects that every Skiff cluster has, then exits.\n");
			return o == 'h' ? 0 : 2;
		}
	}
	struct error *e = loop_run(run, &c);

	if (e) {
		log_and_free(e, "cluster add-ons");
		return 1;
	}
	return c.verbosity < 0;
}
