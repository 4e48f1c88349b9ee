#include "cmd/join.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include "loop/io.h"
#include "schema/jv.h"

#define CLUSTER_INFO "/api/v1/namespaces/kube-public/configmaps/cluster-info"
#define KUBELET_CONFIG "/api/v1/namespaces/kube-system/configmaps/kubelet-config"
#define KUBE_PROXY "/api/v1/namespaces/kube-system/configmaps/kube-proxy"

struct error *join_ca_hash(struct arena *a, struct str pem, const char **out)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	unsigned char *der = NULL, sum[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	int len = x ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der) : -1;
	bool ok = len > 0 && EVP_Digest(der, (size_t)len, sum, &n, EVP_sha256(), NULL) == 1;
	char hex[2 * EVP_MAX_MD_SIZE + 1] = "";

	for (unsigned i = 0; ok && i < n; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	OPENSSL_free(der);
	X509_free(x);
	BIO_free(bio);
	if (!ok)
		return error_new("the cluster's certificate authority is not a PEM certificate");
	*out = arena_printf(a, "sha256:%s", hex).p;
	return NULL;
}

/* ---- the agent's side ---- */

/* One key of a ConfigMap. */
static struct error *config_map_key(struct client *k, struct arena *a, const char *path, const char *key, struct str *out)
{
	struct jv root;

	TRY(client_raw(k, a, "GET", str_from(path), NULL, STR_NULL, out));
	TRY(jv_parse(a, *out, NULL, &root));
	*out = jv_str(jv_get(jv_get(&root, STR("data")), str_from(key)));
	return out->n ? NULL : error_new("%s has no key \"%s\": this is not a cluster that agents can join", path, key);
}

/* Trust on the first use of the hash: whatever answers, its authority is the cluster's or nothing is done. */
static struct error *fetch_ca(struct cluster *c, const struct join *j, struct client_config *trusted)
{
	const struct client_config blind = {.server = j->server, .insecure_skip_tls_verify = true};
	buf_cleanup struct buf json = {0};
	const char *hash;
	struct client *k;
	struct str text;
	struct jv root;

	TRY(client_new(&blind, &k));
	struct error *e = config_map_key(k, c->a, CLUSTER_INFO, "kubeconfig", &text);

	client_free(k);
	TRY(error_wrap(e, "asking %s for its certificate authority", j->server));
	TRY(yaml_to_json(text, NULL, &json));
	TRY(jv_parse(c->a, arena_str(c->a, buf_view(&json)), NULL, &root));
	const struct jv *clusters = jv_get(&root, STR("clusters"));
	const struct jv *first = clusters && clusters->kind == JV_ARRAY && clusters->n ? jv_get(&clusters->items[0], STR("cluster")) : NULL;

	if (!base64_decode(c->a, jv_str(jv_get(first, STR("certificate-authority-data"))), &trusted->ca_pem))
		return error_new("the ConfigMap cluster-info of %s holds no certificate authority", j->server);
	TRY(join_ca_hash(c->a, trusted->ca_pem, &hash));
	if (strcasecmp(hash, j->ca_hash) != 0)
		return error_new("the certificate authority of %s has the hash %s, not the one given with --ca-cert-hash: wrong cluster, "
				 "or somebody in between; nothing was sent to it", j->server, hash);
	trusted->server = j->server;
	return file_write_atomic(data_path(c, "pki/ca.crt"), trusted->ca_pem, 0644);
}

static struct error *read_settings(struct cluster *c, struct client *k)
{
	struct str kubelet, proxy;
	struct jv root;

	TRY(config_map_key(k, c->a, KUBELET_CONFIG, "kubelet", &kubelet));
	TRY(jv_parse(c->a, kubelet, NULL, &root));
	const struct jv *dns = jv_get(&root, STR("clusterDNS"));

	c->dns_ip = arena_strz(c->a, dns && dns->kind == JV_ARRAY && dns->n ? jv_str(&dns->items[0]) : STR_NULL);
	c->cluster_domain = arena_strz(c->a, jv_str(jv_get(&root, STR("clusterDomain"))));
	TRY(config_map_key(k, c->a, KUBE_PROXY, "config.conf", &proxy));
	TRY(jv_parse(c->a, proxy, NULL, &root));
	c->pod_cidr = arena_strz(c->a, jv_str(jv_get(&root, STR("clusterCIDR"))));
	return *c->dns_ip && *c->cluster_domain && *c->pod_cidr
		? NULL : error_new("the cluster's kubelet-config and kube-proxy ConfigMaps do not tell clusterDNS, clusterDomain and clusterCIDR");
}

static struct error *write_bootstrap(struct cluster *c, const struct client_config *cfg)
{
	buf_cleanup struct buf b = {0};

	buf_printf(&b, "apiVersion: v1\nkind: Config\nclusters:\n- name: skiff\n  cluster:\n    server: %s\n    certificate-authority-data: ",
		   cfg->server);
	base64_encode(&b, cfg->ca_pem);
	buf_printf(&b, "\ncontexts:\n- name: skiff\n  context:\n    cluster: skiff\n    user: bootstrap\ncurrent-context: skiff\n"
		       "users:\n- name: bootstrap\n  user:\n    token: %s\n", cfg->token);
	return file_write_atomic(data_path(c, "kubeconfig/bootstrap.kubeconfig"), buf_view(&b), 0600);
}

struct error *join_cluster(struct cluster *c, const struct join *j)
{
	struct client_config cfg = {0};
	struct client *k;

	TRY(dir_make(data_path(c, "pki"), 0755));
	TRY(dir_make(data_path(c, "kubeconfig"), 0711));
	bool joined = access(data_path(c, "pki/ca.crt"), F_OK) == 0 && access(data_path(c, "kubeconfig/kubelet.kubeconfig"), F_OK) == 0;

	if (joined && !j->token)
		return NULL;
	if (!j->server || !j->token || !j->ca_hash)
		return error_new("this machine has not joined a cluster yet: --server, --token and --ca-cert-hash are needed; "
				 "'skiff token create' on the cluster prints the whole command");
	TRY(fetch_ca(c, j, &cfg));
	cfg.token = j->token;
	TRY(client_new(&cfg, &k));
	struct error *e = read_settings(c, k);

	client_free(k);
	if (error_is(e, 401, NULL))
		return error_wrap(e, "the token was not accepted; it may have expired: 'skiff token create' on the cluster makes another");
	TRY(e);
	c->server = j->server;
	return write_bootstrap(c, &cfg);
}

/* ---- the cluster's side ---- */

static struct error *apply_config_map(struct client *k, struct cluster *c, const char *ns, const char *name, const char *key,
				      struct str value, apply_fn *apply)
{
	buf_cleanup struct buf b = {0};
	struct core_v1_config_map cm = {.kind = STR("ConfigMap"), .api_version = STR("v1")};

	cm.metadata.name = str_from(name);
	str_map_set(c->a, (struct str_map *)(void *)&cm.data, str_from(key), value);
	json_encode(&b, &core_v1_config_map_type, &cm);
	return apply(k, c, &core_v1_configmaps_resource, ns, name, buf_view(&b));
}

/* Roles in the namespaces of the ConfigMaps, and their bindings. */
static const struct {
	const char *ns, *name, *config_map, *subject_kind, *subject;
} readers[] = {
	{"kube-public", "skiff:cluster-info", "cluster-info", "User", "system:anonymous"},
	{"kube-system", "skiff:kubelet-config", "kubelet-config", "Group", NODE_BOOTSTRAP_GROUP},
	{"kube-system", "skiff:kube-proxy", "kube-proxy", "Group", NODE_BOOTSTRAP_GROUP},
};

static const struct {
	const char *name, *role, *group;
} bindings[] = {
	{"skiff:node-bootstrapper", "system:node-bootstrapper", NODE_BOOTSTRAP_GROUP},
	{"skiff:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient", NODE_BOOTSTRAP_GROUP},
	{"skiff:node-autoapprove-certificate-rotation", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "system:nodes"},
	/* An agent's kube-proxy is its node: it needs no identity of its own to keep. */
	{"skiff:node-proxier", "system:node-proxier", "system:nodes"},
};

#define RBAC "\"apiVersion\":\"rbac.authorization.k8s.io/v1\""

struct error *join_objects(struct client *k, struct cluster *c, apply_fn *apply)
{
	buf_cleanup struct buf ca = {0}, ca64 = {0};

	TRY(file_read(data_path(c, "pki/ca.crt"), &ca));
	base64_encode(&ca64, buf_view(&ca));
	TRY(apply_config_map(k, c, "kube-public", "cluster-info", "kubeconfig",
			     arena_printf(c->a, "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: %s\n"
						"    server: https://%s:%d\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\n"
						"users: null\n", buf_z(&ca64), c->node_ip, c->api_port), apply));
	TRY(apply_config_map(k, c, "kube-system", "kubelet-config", "kubelet",
			     arena_printf(c->a, "{\"apiVersion\":\"kubelet.config.k8s.io/v1beta1\",\"kind\":\"KubeletConfiguration\","
						"\"clusterDNS\":[\"%s\"],\"clusterDomain\":\"%s\",\"rotateCertificates\":true,"
						"\"serverTLSBootstrap\":true}", c->dns_ip, c->cluster_domain), apply));
	TRY(apply_config_map(k, c, "kube-system", "kube-proxy", "config.conf",
			     arena_printf(c->a, "{\"apiVersion\":\"kubeproxy.config.k8s.io/v1alpha1\",\"kind\":\"KubeProxyConfiguration\","
						"\"clusterCIDR\":\"%s\",\"mode\":\"nftables\"}", c->pod_cidr), apply));
	for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
		TRY(apply(k, c, &rbac_v1_roles_resource, readers[i].ns, readers[i].name,
			  arena_printf(c->a, "{" RBAC ",\"kind\":\"Role\",\"metadata\":{\"name\":\"%s\"},\"rules\":[{\"apiGroups\":[\"\"],"
					     "\"resources\":[\"configmaps\"],\"resourceNames\":[\"%s\"],\"verbs\":[\"get\"]}]}",
				       readers[i].name, readers[i].config_map)));
		TRY(apply(k, c, &rbac_v1_rolebindings_resource, readers[i].ns, readers[i].name,
			  arena_printf(c->a, "{" RBAC ",\"kind\":\"RoleBinding\",\"metadata\":{\"name\":\"%s\"},\"roleRef\":{\"apiGroup\":"
					     "\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"%s\"},\"subjects\":[{\"kind\":\"%s\","
					     "\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"%s\"}]}",
				       readers[i].name, readers[i].name, readers[i].subject_kind, readers[i].subject)));
	}
	for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++)
		TRY(apply(k, c, &rbac_v1_clusterrolebindings_resource, "", bindings[i].name,
			  arena_printf(c->a, "{" RBAC ",\"kind\":\"ClusterRoleBinding\",\"metadata\":{\"name\":\"%s\"},\"roleRef\":{\"apiGroup\":"
					     "\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"%s\"},\"subjects\":[{\"kind\":"
					     "\"Group\",\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"%s\"}]}",
				       bindings[i].name, bindings[i].role, bindings[i].group)));
	return NULL;
}
