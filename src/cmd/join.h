/*
 * cmd/join.h: how a machine elsewhere joins: bootstrap tokens and what they may do (as kubeadm's bootstrap-token phase), and the
 * agent's side of it. The token proves the agent to the cluster, the hash of the authority's key the cluster to the agent.
 */
#ifndef SKIFF_CMD_JOIN_H
#define SKIFF_CMD_JOIN_H

#include "client/client.h"
#include "cmd/cluster.h"

/* Group of bootstrap tokens for nodes (Secret's auth-extra-groups). */
#define NODE_BOOTSTRAP_GROUP "system:bootstrappers:skiff:default-node-token"

struct join {
	const char *server;  /* URL */
	const char *token;   /* "abcdef.0123456789abcdef" */
	const char *token_file; /* or the token in a file */
	const char *ca_hash; /* "sha256:<hex of the authority's SubjectPublicKeyInfo>" */
};

/*
 * The agent's files and what it must know of the cluster: verifies the authority of j->server by its hash, writes
 * DATA-DIR/pki/ca.crt and DATA-DIR/kubeconfig/bootstrap.kubeconfig, fills c's DNS address, domain and pod range from the
 * ConfigMaps kubelet-config and kube-proxy (kube-system). A machine that has joined before needs no token again. On a fiber.
 */
struct error *join_cluster(struct cluster *c, const struct join *j);
/* Server-side apply of one object (cmd/addons.c). */
typedef struct error *apply_fn(struct client *k, struct cluster *c, const struct api_resource *r, const char *ns, const char *name,
			       struct str body);
/* The objects that agents need: cluster-info, kubelet-config, kube-proxy, their roles. `k` is an administrator's. */
struct error *join_objects(struct client *k, struct cluster *c, apply_fn *apply);
/* "sha256:<hex>" of the first certificate in a PEM file, as kubeadm's discovery-token-ca-cert-hash. */
struct error *join_ca_hash(struct arena *a, struct str pem, const char **out);

#endif
