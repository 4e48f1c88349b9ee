/*
 * cmd/cluster.h: what every subcommand knows of the cluster on this machine:
 * where its files are, its addresses, its components.
 *
 * A cluster is one data directory (what must survive) and one run directory
 * (what is made anew: sockets, pid file). Nothing is kept elsewhere.
 */
#ifndef SKIFF_CMD_CLUSTER_H
#define SKIFF_CMD_CLUSTER_H

#include "base/arena.h"
#include "base/error.h"

#define SKIFF_DATA_DIR "/var/lib/skiff"
#define SKIFF_NODES_MAX 64

/* Ports, all but the API's on loopback or the node's address, as upstream's defaults where it has one. */
#define PORT_API 6443
#define PORT_KUBELET 10250
#define PORT_DNS 10053

struct cluster {
	struct arena *a;
	const char *data_dir;      /* absolute */
	const char *run_dir;       /* /run/skiff for the default data directory, else DATA-DIR/run */
	int nodes;                 /* nodes on this machine, 0: control plane only */
	const char *node_ip;       /* of the first node, and what the API server advertises */
	const char *node_name;     /* of the first node; others: NAME-2, ... */
	int api_port;
	const char *service_cidr, *pod_cidr; /* "10.96.0.0/16", "10.244.0.0/16" */
	const char *api_service_ip, *dns_ip; /* first and tenth address of service_cidr */
	const char *cluster_domain;
	const char *lb_pool;       /* LoadBalancer addresses: "FIRST-LAST" */
	const char *server;        /* agents: URL of the API server elsewhere, else NULL */
	const char *etcd_servers;  /* or NULL: the embedded store */
	const char *cgroup;        /* parent of all its pods' cgroups: "/skiff", or "/skiff-<hash>" of another data directory */
	int verbosity;
};

/* Fills the rest of c from data_dir, nodes and what is set; finds the node's address and name. */
struct error *cluster_init(struct cluster *c);
/* Writes DATA-DIR/cluster.json / reads it into unset fields, so that `down`, `status` and a second `up` see the same cluster. */
struct error *cluster_save(const struct cluster *c);
struct error *cluster_load(struct cluster *c);
/* "DATA-DIR/..." and "RUN-DIR/..." in the cluster's arena. */
const char *data_path(const struct cluster *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *run_path(const struct cluster *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Name and address of node i (0-based). */
const char *cluster_node_name(const struct cluster *c, int i);
const char *cluster_node_ip(const struct cluster *c, int i);
/* pid of the running supervisor, 0 when none runs. */
int cluster_supervisor_pid(const struct cluster *c);

/* One supervised process. */
struct component {
	const char *name;            /* "kube-apiserver", with "@2" behind it for the second node's */
	int (*main)(int argc, char **argv);
	const char **argv;           /* NULL-terminated, argv[0] is the upstream name */
	unsigned uid;                /* 0: stays root */
	uint64_t keep_caps;          /* ambient capabilities for uid != 0, bit mask */
	const char *netns;           /* joined before it starts, or NULL */
	bool oneshot;                /* not started again after exit code 0 */
	bool node;                   /* belongs to a node (stopped first on the way down) */
	/* supervisor's state */
	int pid, pidfd, failures;
	int64_t started_ms, restart_at_ms;
};
/* The components of c in start order; *n of them. */
struct component *cluster_components(struct cluster *c, size_t *n);

/* The table of everything the executable can be, by upstream name. */
struct program {
	const char *name, *summary;
	int (*main)(int argc, char **argv);
	bool component;
};
extern const struct program programs[];
extern const size_t n_programs;
const struct program *program_find(const char *name);

#endif
