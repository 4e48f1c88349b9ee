/* runtime/internal.h: what the files of the CRI server share. All of it runs on the one loop, but what says "blocking". */
#ifndef SKIFF_RUNTIME_INTERNAL_H
#define SKIFF_RUNTIME_INTERNAL_H

#include <netinet/in.h>
#include "base/log.h"
#include "base/map.h"
#include "loop/io.h"
#include "net/grpc.h"
#include "runtime/image.h"
#include "runtime/sys.h"
#include "schema/codec.h"
#include "schema/cri.h"

#define RT_ID_LEN 64
#define RT_VERSION "0.1.0"
#define RT_NAME "skiff"
#define RT_API_VERSION "v1"

/* ---- addresses ---- */

struct rt_addr {
	int family; /* AF_INET, AF_INET6, 0: none */
	uint8_t b[16];
};
struct rt_cidr {
	struct rt_addr addr;
	int bits;
};
bool rt_cidr_parse(struct str s, struct rt_cidr *out);
bool rt_addr_parse(struct str s, struct rt_addr *out);
/* "10.244.0.5" */
const char *rt_addr_text(const struct rt_addr *a, char out[INET6_ADDRSTRLEN]);
/* Address number n of the range (0 is the network's own). */
struct rt_addr rt_cidr_nth(const struct rt_cidr *c, uint32_t n);

/* ---- the server ---- */

struct rt_opts {
	const char *listen, *root, *image_root, *state_dir, *cgroup_root, *cni_conf_dir, *cni_bin_dir, *pod_cidr, *cluster_cidr, *service_cidr, *bridge;
	const char *crun, *conmon;
	const char *stream_addr; /* "127.0.0.1:0" */
	uint64_t max_layer_bytes;
};

enum rt_cgroups { RT_CGROUP_V1, RT_CGROUP_V2, RT_CGROUP_HYBRID };

struct rt_sandbox {
	char id[RT_ID_LEN + 1];
	int refs;
	struct arena arena;         /* of rec */
	struct rt_v1_sandbox rec;
	struct fiber_mutex lock;    /* run, stop, remove: one at a time */
	bool removed;
	uint32_t ip_index;          /* 0: none */
	struct rt_sandbox *prev, *next;
};

struct rt_container {
	char id[RT_ID_LEN + 1];
	int refs;
	struct arena arena;
	struct rt_v1_container rec;
	struct rt_sandbox *sandbox; /* counted */
	struct fiber_mutex lock;    /* start, stop, remove */
	struct waitq changed;       /* woken when rec.state changes */
	bool removed;
	/* stats */
	int64_t usage_at;           /* ms; disk usage below is cached */
	uint64_t disk_bytes, disk_inodes;
	int64_t cpu_at;
	uint64_t cpu_ns;
	struct rt_container *prev, *next;
};

struct rt_event {
	int refs;
	struct str bytes; /* encoded ContainerEventResponse, malloc'ed */
};
#define RT_EVENTS_MAX 1024 /* waiting for one slow listener; past it the call ends */
struct rt_listener {
	struct rt_event *q[RT_EVENTS_MAX];
	size_t head, n;
	bool overflow;
	struct waitq wait;
	struct rt_listener *next;
};

struct rt {
	struct rt_opts o;
	struct image_store *images;
	enum rt_cgroups cgroups;
	bool overlay, seccomp, apparmor, hugetlb; /* hugetlb: a cgroup controller of huge pages */
	char boot_id[37];
	int host_netns;                 /* the namespace the runtime runs in */
	struct map sandboxes, containers; /* by id */
	struct rt_sandbox *sandbox_list;  /* newest first */
	struct rt_container *container_list;
	struct rt_listener *listeners;
	/* network */
	bool network_up;
	struct rt_cidr pod_cidrs[2];
	int n_cidrs;
	int bridge_index;
	uint8_t *ip_used;               /* bitmap by address number of the smallest range */
	uint32_t ip_count, ip_next;
	struct fiber_mutex network_lock;
	char *network_error;
	char *crun_path, *conmon_path;
	/* streaming */
	char stream_base[64];           /* "http://127.0.0.1:1234" */
	struct map stream_tokens;
	int pulls;                      /* under way */
	struct waitq pull_done;
};

/* ---- state.c ---- */
void rt_new_id(char out[RT_ID_LEN + 1]);
struct rt_sandbox *rt_sandbox_new(struct rt *rt, const char *id);
struct rt_container *rt_container_new(struct rt *rt, const char *id, struct rt_sandbox *sb);
/* By id or unique prefix, with a reference; NULL when there is none. */
struct rt_sandbox *rt_sandbox_get(struct rt *rt, struct str id);
struct rt_container *rt_container_get(struct rt *rt, struct str id);
void rt_sandbox_put(struct rt_sandbox **s);
void rt_container_put(struct rt_container **c);
#define sandbox_cleanup __attribute__((cleanup(rt_sandbox_put)))
#define container_cleanup __attribute__((cleanup(rt_container_put)))
void rt_sandbox_forget(struct rt *rt, struct rt_sandbox *s);   /* out of the maps; drops their reference */
void rt_container_forget(struct rt *rt, struct rt_container *c);
struct error *rt_sandbox_save(struct rt *rt, struct rt_sandbox *s);
struct error *rt_container_save(struct rt *rt, struct rt_container *c);
struct error *rt_load(struct rt *rt);
/* Paths, malloc'ed. */
char *rt_sandbox_dir(struct rt *rt, const char *id);   /* STATE/p/ID: namespaces, shm, etc files */
char *rt_bundle_dir(struct rt *rt, const char *id);    /* STATE/c/ID: config.json, rootfs, conmon's files */
char *rt_container_dir(struct rt *rt, const char *id); /* ROOT/containers/ID: state, upper, work */
void rt_event(struct rt *rt, struct rt_container *c, int type);
void rt_event_sandbox(struct rt *rt, struct rt_sandbox *s, int type);

/* ---- sandbox.c ---- */
struct error *rt_run_sandbox(struct rt *rt, const struct cri_v1_run_pod_sandbox_request *req, struct rt_sandbox **out);
struct error *rt_stop_sandbox(struct rt *rt, struct rt_sandbox *s);
struct error *rt_remove_sandbox(struct rt *rt, struct rt_sandbox *s);
void rt_sandbox_status(struct rt *rt, struct arena *a, struct rt_sandbox *s, struct cri_v1_pod_sandbox_status *out);
/* The pod's NamespaceOption, never NULL. */
const struct cri_v1_namespace_option *rt_sandbox_ns(const struct rt_sandbox *s);
const struct cri_v1_linux_pod_sandbox_config *rt_sandbox_linux(const struct rt_sandbox *s);

/* ---- container.c ---- */
struct error *rt_create_container(struct rt *rt, const struct cri_v1_create_container_request *req, struct rt_container **out);
struct error *rt_start_container(struct rt *rt, struct rt_container *c);
/* timeout in seconds; 0: kill at once */
struct error *rt_stop_container(struct rt *rt, struct rt_container *c, int64_t timeout);
struct error *rt_remove_container(struct rt *rt, struct rt_container *c);
void rt_container_status(struct rt *rt, struct arena *a, struct rt_container *c, struct cri_v1_container_status *out);
struct error *rt_update_container(struct rt *rt, struct rt_container *c, const struct cri_v1_linux_container_resources *r);
struct error *rt_reopen_log(struct rt *rt, struct rt_container *c);
/* Watches a running (or just created) container for its exit; called by create and by rt_load. */
void rt_watch_container(struct rt *rt, struct rt_container *c);
/* crun with the runtime's global flags; extra ends with NULL, at most 12 words. */
struct error *rt_crun(struct rt *rt, const char *const *extra, struct buf *out);

/* argv for crun or conmon, wrapped where the host's cgroups need it. */
struct rt_argv {
	const char *v[64];
	int n;
};
void rt_argv_start(struct rt *rt, struct rt_argv *a);
void rt_argv_add(struct rt_argv *a, const char *word);

/* ---- spec.c ---- */
struct rt_spec_in {
	struct rt *rt;
	struct rt_sandbox *sandbox;
	struct rt_container *container;
	const struct oci_v1_image *image;
	const char *rootfs;     /* mounted: users are looked up there */
	const char *bundle;
	const char **image_paths; /* by the config's mounts: where an image to be mounted stands, else NULL */
};
/* image_mounts.c (blocking): images to be mounted, made to stand below `bundle`; claims belong to directories of `dir`. */
struct error *rt_image_mounts(struct rt *rt, struct arena *a, const struct cri_v1_container_config *c, const char *dir, const char *bundle,
			      const char ***paths);
/* Takes the mounts away, with `all` the claims too. What is not there is fine. */
void rt_image_unmounts(struct rt *rt, const struct cri_v1_container_config *c, const char *dir, const char *bundle, bool all);
/* Blocking (reads the image's /etc/passwd). Fills out and the record's user. */
struct error *rt_spec(struct arena *a, const struct rt_spec_in *in, struct oci_v1_spec *out);
void rt_resources(struct rt *rt, struct arena *a, const struct cri_v1_linux_container_resources *r, struct oci_v1_resources *out);
/* "SIGTERM", "TERM", "15", "SIGRTMIN+3"; 0 when unknown. */
int rt_signal_number(struct str name);
extern const char *const rt_default_capabilities[];
/* RuntimeDefault in OCI form; the process's capabilities open more calls. */
struct str rt_seccomp_default(struct arena *a, const struct strings *capabilities);
struct str rt_cgroup_path(struct rt *rt, struct arena *a, const struct rt_sandbox *s, const char *id);

/* ---- cgroup.c (blocking, short) ---- */
void rt_cgroup_detect(struct rt *rt);
struct rt_usage {
	uint64_t cpu_ns, memory_usage, working_set, rss, page_faults, major_faults, memory_limit, swap, swap_limit, pids;
	bool found;
	bool has_psi;
	struct {
		uint64_t total;
		double avg10, avg60, avg300;
	} cpu_some, cpu_full, mem_some, mem_full, io_some, io_full;
};
void rt_cgroup_usage(struct rt *rt, const char *path, struct rt_usage *out);
/* SIGKILL to all in it and below. */
void rt_cgroup_kill(struct rt *rt, const char *path);
bool rt_cgroup_oom_killed(struct rt *rt, const char *path);
void rt_cgroup_remove(struct rt *rt, const char *path);

/* ---- net.c ---- */
/* Sets up bridge, forwarding and masquerading for the ranges ("10.1.0.0/24[,fd00::/64]"). Idempotent. */
struct error *rt_network_configure(struct rt *rt, struct str cidrs);
struct error *rt_ip_take(struct rt *rt, uint32_t *index);
void rt_ip_mark(struct rt *rt, uint32_t index);
void rt_ip_free(struct rt *rt, uint32_t index);
uint32_t rt_ip_index(struct rt *rt, struct str ip);
struct rt_ns_job { /* makes and pins a pod's namespaces; blocking */
	struct rt *rt;
	const char *dir;            /* files net, ipc, uts are made here */
	bool net, ipc, uts;
	const char *hostname;
	const struct str_map *sysctls;
	bool bridged;               /* eth0 on the bridge */
	char veth[16];
	uint32_t ip_index;
	struct rt_addr ips[2];
	int n_ips;
};
struct error *rt_ns_make(void *job);
void rt_ns_unmake(const char *dir); /* blocking: unmounts and removes dir */
struct error *rt_veth_delete(struct rt *rt, const char *name); /* blocking */
/* A TCP socket made inside the pod's network namespace (blocking, short). */
struct error *rt_netns_socket(const char *netns, int family, int *fd);
struct rt_netdev {
	uint64_t rx_bytes, rx_errors, tx_bytes, tx_errors;
};
bool rt_veth_stats(const char *name, struct rt_netdev *out); /* from the host's side, turned round */

/* ---- nft.c (blocking) ---- */
struct error *rt_nft_run(const char *commands);
struct error *rt_nft_masquerade(struct rt *rt);
struct error *rt_hostports_add(struct rt *rt, struct rt_sandbox *s);
struct error *rt_hostports_del(struct rt *rt, struct rt_sandbox *s);
bool rt_hostports_any(const struct rt_sandbox *s);

/* ---- cni.c ---- */
/* The first configuration of --cni-conf-dir in name order, malloc'ed; NULL when there is none. */
char *rt_cni_config(struct rt *rt);
struct error *rt_cni_add(struct rt *rt, struct arena *a, struct rt_sandbox *s, const char *netns, struct strings *ips);
struct error *rt_cni_del(struct rt *rt, struct rt_sandbox *s, const char *netns);

/* ---- exec.c, stream.c ---- */
struct rt_exec {
	struct rt_container *c;
	const struct strings *cmd;
	bool tty;
	int in, out, err;       /* -1: none; with tty all NULL */
	struct proc *proc;
	int console;            /* pty master, with tty */
	char *spec;             /* path of the process file */
};
struct error *rt_exec_start(struct rt *rt, struct rt_exec *x);
struct error *rt_exec_wait(struct rt *rt, struct rt_exec *x, int *exit_code);
void rt_exec_kill(struct rt *rt, struct rt_exec *x);
struct error *rt_exec_sync(struct rt *rt, struct rt_container *c, const struct strings *cmd, int64_t timeout_s, struct buf *out,
			   struct buf *err, int *code);
struct error *rt_stream_start(struct rt *rt);
enum rt_stream_kind { RT_STREAM_EXEC, RT_STREAM_ATTACH, RT_STREAM_PORTFORWARD };
struct error *rt_stream_url(struct rt *rt, struct arena *a, enum rt_stream_kind kind, struct str id, const struct strings *cmd, bool tty,
			    bool in, bool out, bool err, struct str *url);

/* ---- service.c ---- */
extern const struct grpc_method rt_methods[];
extern const size_t rt_n_methods;

/* ---- pause.c ---- */
struct error *rt_pause_start(struct rt *rt, struct rt_sandbox *s, const char *dir);

#endif
