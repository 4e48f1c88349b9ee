/*
 * kubelet/internal.h: what the files of this room share. Everything runs on
 * one loop, so plain data needs no locks between waits.
 *
 * A pod has no fiber while nothing happens: a change (API, runtime event, timer,
 * probe) marks it dirty and a fiber works on it until it is clean again.
 */
#ifndef SKIFF_KUBELET_INTERNAL_H
#define SKIFF_KUBELET_INTERNAL_H

#include "base/log.h"
#include "base/map.h"
#include "client/client.h"
#include "client/events.h"
#include "client/informer.h"
#include "loop/io.h"
#include "net/grpc.h"
#include "net/http.h"
#include "schema/cri.h"
#include "schema/quantity.h"

#define KUBELET_VERSION "v1.36.0"
#define KUBELET_PODS_MAX 4096        /* pods known at once, whatever --max-pods says */
#define ARRAY_LEN(a) (sizeof(a) / sizeof *(a))

/* ---- config.c ---- */

struct kubelet_threshold { /* an eviction signal's limit: bytes or a percentage, or unset */
	bool set;
	int64_t quantity;
	double percent; /* of capacity, when > 0 */
};
enum eviction_signal {
	EVICT_MEMORY_AVAILABLE,
	EVICT_NODEFS_AVAILABLE,
	EVICT_NODEFS_INODES,
	EVICT_IMAGEFS_AVAILABLE,
	EVICT_IMAGEFS_INODES,
	EVICT_PID_AVAILABLE,
	EVICT_SIGNALS
};
extern const char *const eviction_signal_names[EVICT_SIGNALS];

struct kubelet_config { /* strings live as long as the process */
	struct arena arena;
	const char *kubeconfig, *bootstrap_kubeconfig, *node_name, *node_ip, *cri_endpoint, *root_dir, *manifest_dir;
	const char *cluster_domain, *cert_file, *key_file, *client_ca_file, *cgroup_root, *provider_id, *cloud_provider;
	const char *pod_logs_dir, *container_logs_dir, *resolv_conf, *address, *config_file;
	struct strings cluster_dns;
	struct str_map node_labels, system_reserved, kube_reserved;
	LIST(struct core_v1_taint) taints;
	struct kubelet_threshold eviction_hard[EVICT_SIGNALS];
	bool register_node, anonymous_auth, webhook_auth, always_allow, rotate_server_cert, rotate_client_cert, fail_swap_on;
	bool enable_debugging_handlers, make_iptables;
	int max_pods, port, read_only_port, healthz_port, verbosity;
	int image_gc_high, image_gc_low;
	int64_t log_max_size;
	int log_max_files;
	int64_t node_status_update_s, node_status_report_s, lease_s;
	bool serialize_image_pulls, single_process_oom_kill;
	int64_t pod_pids_limit;
	double cpu_cfs_period_us;
};
/* Parses flags and --config. Returns -1 to go on, else the exit status. */
int config_parse(int argc, char **argv, struct kubelet_config *c);
/* Reads --config, if given, and applies the flags again over it. On a fiber. */
struct error *config_load_file(struct kubelet_config *c, int argc, char **argv);
/* "memory.available<100Mi,nodefs.available<10%" into the table. */
struct error *config_eviction_parse(struct str text, struct kubelet_threshold out[EVICT_SIGNALS]);
/* "k=v,k2=v2" into the map (arena of c). */
struct error *config_pairs_parse(struct arena *a, struct str text, struct str_map *out);
/* "key=value:Effect,..." */
struct error *config_taints_parse(struct kubelet_config *c, struct str text);

/* ---- the view of a pod in the runtime (view.c) ---- */

struct view_sandbox {
	struct str id;
	uint32_t attempt;
	int state; /* enum cri_sandbox_state */
	int64_t created_at; /* ns since 1970 */
	struct strings ips;
};
struct view_container {
	struct str id, name, image, image_ref, image_id, reason, message, hash, log_path;
	struct str term_path, term_policy;
	struct str term_host_path; /* of the termination message file on the host */
	struct str term_message;   /* read once after the exit */
	bool term_read;
	uint32_t attempt; /* = restart count */
	int state; /* enum cri_container_state */
	int64_t created_at, started_at, finished_at;
	int32_t exit_code, stop_signal;
	bool has_user;
	int64_t uid, gid;
	LIST(int64_t) groups;
};
struct view { /* immutable once published, replaced as a whole; reference-counted, as it is read across waits */
	unsigned refs;
	struct arena arena;
	LIST(struct view_sandbox) sandboxes;    /* newest first */
	LIST(struct view_container) containers; /* newest first */
};
struct view *view_ref(struct view *v);
void view_unref(struct view *v); /* NULL is allowed */
/* Newest container of that name; NULL. */
struct view_container *view_find(const struct view *v, struct str name);
struct view_container *view_by_id(const struct view *v, struct str id);
/* The nth newest of that name (0: newest). */
struct view_container *view_nth(const struct view *v, struct str name, unsigned n);

/* ---- pods ---- */

enum container_kind { CONTAINER_INIT, CONTAINER_MAIN, CONTAINER_EPHEMERAL };
enum probe_kind { PROBE_LIVENESS, PROBE_READINESS, PROBE_STARTUP, PROBE_KINDS };

/* The state machine of one probe (probe.c), pure. */
struct probe_state {
	int successes, failures;
	bool result;     /* liveness: healthy; readiness: ready; startup: started */
	bool decided;    /* a threshold has been reached */
};
/* Feeds one outcome; true when result changed (or was decided for the first time). */
bool probe_feed(struct probe_state *s, bool success, int success_threshold, int failure_threshold);

struct pod;
struct probe {
	struct pod *pod;
	enum probe_kind kind;
	char *container, *container_id;
	struct probe_state state;
	int64_t next_at, period_ms;
	bool running, dead;
	unsigned refs;
	struct probe *prev, *next; /* of all */
};

struct cstate { /* what is known of a container beside what the runtime says */
	struct cstate *next;
	char *name;
	enum container_kind kind;
	int64_t backoff_ms, backoff_at;      /* CrashLoopBackOff */
	int64_t pull_backoff_ms, pull_failed_at;
	char *wait_reason, *wait_message;    /* why it is not running */
	char *kill_reason, *kill_message;    /* a probe wants it restarted */
	int64_t kill_grace;                  /* seconds; < 0: the pod's */
	bool startup_done, ready;
	char *probed_id;                     /* the container that probes belong to */
	struct probe *probes[PROBE_KINDS];
	bool hook_running;
	bool resize, resizing;               /* its resources are not those it runs with; they are being changed */
	int start_failures;                  /* in a row */
	char *image_digest;
};

struct pod {
	struct kubelet *k;
	char *uid, *ns, *name;
	struct block *spec;         /* JSON of the object */
	bool is_static;             /* from the manifest directory */
	char *mirror_uid;           /* static: uid of its mirror pod in the API */
	bool mirror_deleting;       /* somebody deletes it: it has to go at once, and come again */
	bool api_deleting, api_gone;
	bool is_orphan;             /* runs, but nobody wants it: no object */

	/* worker */
	bool dirty, working, admitted, rejected;
	int64_t next_at;            /* wake at; NEVER: INT64_MAX */
	struct waitq wake;          /* interruptible waits */
	bool terminating;
	int64_t kill_grace;         /* seconds */
	unsigned kill_epoch;        /* changes when kill_grace shrinks */
	char *fail_reason, *fail_message; /* Evicted, DeadlineExceeded, ... : phase Failed */
	bool disruption_target;
	char *disruption_reason;
	bool stopped;               /* no container runs and none will */
	bool cleaned;               /* volumes, cgroup gone */
	bool removed;
	int64_t start_time;         /* s since 1970 */
	int sync_failures;

	struct view *view;
	bool view_stale, fetching;

	struct cstate *containers;
	/* volumes */
	bool volumes_ready, volumes_dirty;
	char *volume_error;
	int64_t token_refresh_at;   /* ms, monotonic; INT64_MAX */
	LIST(char *) watched;       /* keys of object watches held */
	/* status */
	struct block *status;       /* JSON of the last computed status */
	struct block *status_sent;  /* of the last one written */
	bool status_sending;
	int64_t status_after;       /* monotonic ms: not before */
	bool status_final;          /* delete the object once it is written */
	struct waitq status_q;
	char *sandbox_error;
	int64_t events_at;
};

struct image_pull_state;
struct obj_watch;

struct kubelet {
	struct kubelet_config *c;
	struct client *client;             /* NULL without --kubeconfig */
	struct event_recorder *events;
	struct grpc_client *cri;
	struct informer *pod_informer, *service_informer, *node_informer;
	struct map pods;                   /* by uid */
	bool sources_ready;                /* the API's list has been seen */
	bool runtime_ok, network_ok, events_ok;
	char *runtime_message, *network_message;
	bool shutting_down;
	bool static_pending;               /* a static pod waits for an earlier one of its manifest to end */
	struct waitq timer_q;
	struct probe *probes;
	struct map watches;                /* object watches by key */
	struct map secret_cache;
	/* node */
	char *node_uid;
	struct str_map node_labels;        /* of the Node object; arena below */
	struct arena node_arena;
	char *pod_cidr;                    /* told to the runtime */
	char *host_ips[2];
	int n_host_ips;
	bool node_registered;
	struct waitq node_q;
	bool node_dirty;
	bool memory_pressure, disk_pressure, pid_pressure;
	int64_t memory_pressure_at, disk_pressure_at, pid_pressure_at; /* last seen, monotonic ms */
	int64_t memory_capacity, ephemeral_capacity;
	int cpus;
	char *runtime_version;             /* "containerd://1.7.0" */
	char *runtime_name;
	/* images */
	struct fiber_mutex pull_lock;
	struct map pulls;                  /* under way, by image */
	/* server */
	struct map authn_cache, authz_cache;
	/* counters for /metrics */
	uint64_t n_syncs, n_status_writes, n_cri_calls, n_cri_errors, n_started, n_pulls, n_probe[PROBE_KINDS][2];
	struct map terminations; /* labels of a series -> how often, a uintptr_t; see stats_terminations */
	int64_t started_wall;
};

extern struct kubelet kubelet; /* the one of this process */

/* Decodes the pod; the strings point into p->spec, of which *hold gets a reference (block_unref it after use). */
struct error *pod_decode(struct pod *p, struct arena *a, struct core_v1_pod **out, struct block **hold);
struct pod *pod_by_uid(struct kubelet *k, struct str uid);
struct pod *pod_by_name(struct kubelet *k, struct str ns, struct str name);
struct cstate *pod_cstate(struct pod *p, struct str name); /* NULL when unknown */
/* As pod_cstate, made when missing. */
struct cstate *pod_cstate_make(struct pod *p, struct str name, enum container_kind kind);
void cstate_waiting(struct cstate *c, const char *reason, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* "NAME_NS(UID)" as upstream prints pods. */
struct str pod_format(struct arena *a, const struct core_v1_pod *pod);
/* Marks dirty and makes sure a fiber works on it. */
void pod_kick(struct pod *p);
/* Sync at the latest at that monotonic time, ms. */
void pod_kick_at(struct pod *p, int64_t at);
/* Fails the pod: its containers are killed, phase Failed. First call wins. */
void pod_fail(struct pod *p, const char *reason, const char *message, int64_t grace, bool disruption);
/* Frees a pod that is removed once nobody holds it any more. */
void pod_release(struct pod *p);
/* A pod of the API or the manifest directory is here in this version. */
void pod_update(struct kubelet *k, struct block *json, bool is_static);
void pod_gone(struct kubelet *k, struct str uid);
void mirror_is(struct pod *p, struct str uid);
/* Something runs that belongs to no pod we know. */
void pod_orphan(struct kubelet *k, struct str uid, struct str ns, struct str name);
void pod_event(struct pod *p, const struct core_v1_pod *pod, const char *container_path, const char *type, const char *reason,
	       const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* "spec.containers{web}" */
struct str container_field_path(struct arena *a, enum container_kind kind, struct str name);
/* The fiber that wakes pods and probes at their times. */
void timers_run(void *arg);
void timers_poke(struct kubelet *k);
/* Runs fn(arg) on a fiber; ends it early (and returns ECANCELED) when the pod begins to terminate or kill_epoch changes. */
struct error *pod_interruptible(struct pod *p, const char *name, struct error *(*fn)(void *arg), void *arg);

/* view.c */
struct error *view_fetch(struct kubelet *k, struct str uid, struct view **out);
/* Publishes a fresher view of containers and sandboxes that were just touched. */
struct error *view_refresh_container(struct pod *p, struct str id);
struct error *view_refresh_sandbox(struct pod *p, struct str id);
/* Builds from an event: merged with old. */
struct view *view_merge(const struct view *old, const struct cri_v1_pod_sandbox_status *sandbox,
			const struct cri_v1_container_status *containers, size_t n, struct str deleted_id);
void cri_events_run(void *arg);
struct error *cri_relist(struct kubelet *k);

/* ---- CRI (cri.c) ---- */
struct error *cri_call(struct kubelet *k, struct arena *a, const char *path, const struct schema_type *req_type, const void *req,
		       const struct schema_type *resp_type, void *resp);
/* CRI_CALL(k, a, RUNTIME, Version, version, &req, &resp) */
#define CRI_CALL(k, a, service, Method, snake, req, resp)                                          \
	cri_call(k, a, "/" CRI_##service##_SERVICE "/" #Method, &cri_v1_##snake##_request_type, req, \
		 &cri_v1_##snake##_response_type, resp)
#define CRI_LABEL_POD_NAME "io.kubernetes.pod.name"
#define CRI_LABEL_POD_NS "io.kubernetes.pod.namespace"
#define CRI_LABEL_POD_UID "io.kubernetes.pod.uid"
#define CRI_LABEL_CONTAINER "io.kubernetes.container.name"
#define CRI_ANN_HASH "io.kubernetes.container.hash"
#define CRI_ANN_RESTARTS "io.kubernetes.container.restartCount"
#define CRI_ANN_TERM_PATH "io.kubernetes.container.terminationMessagePath"
#define CRI_ANN_TERM_POLICY "io.kubernetes.container.terminationMessagePolicy"
#define CRI_ANN_GRACE "io.kubernetes.pod.terminationGracePeriod"
#define CRI_ANN_PORTS "io.kubernetes.container.ports"
struct error *cri_exec(struct kubelet *k, struct arena *a, struct str id, const struct strings *cmd, int64_t timeout_s,
		       struct cri_v1_exec_sync_response *out);

/* ---- plan.c: what must be done for a pod; pure ---- */

struct plan_kill {
	struct str id, name;
	enum container_kind kind;
	const char *reason;
	struct str message;
	int64_t grace; /* < 0: the pod's */
};
struct plan_start {
	const struct core_v1_container *c;
	enum container_kind kind;
	uint32_t attempt;
	struct str target_id; /* ephemeral: of the container whose processes it shares */
	struct view_container *last;
};
struct plan {
	bool finished;       /* every container is done and stays so */
	bool create_sandbox;
	uint32_t sandbox_attempt;
	struct str sandbox_id; /* the ready one, or empty */
	bool inits_done;
	LIST(struct plan_kill) kills;
	LIST(struct plan_start) starts; /* in order; those of a kind that must wait for others are not in it */
};
void plan_make(struct arena *a, struct pod *p, const struct core_v1_pod *pod, const struct view *v, struct plan *out);
/* Restart policy of a container against its exit code (container policy and rules before the pod's). */
bool container_restarts(const struct core_v1_pod *pod, const struct core_v1_container *c, enum container_kind kind, int32_t exit_code);
bool container_is_sidecar(const struct core_v1_container *c);
/* Hash of the parts of a container that mean a restart when changed (name, image), hex as upstream's annotation. */
struct str container_hash(struct arena *a, const struct core_v1_container *c);
const struct core_v1_container *pod_find_container(const struct core_v1_pod *pod, struct str name, enum container_kind *kind);
#define EPHEMERAL_CONTAINER(e) ((const struct core_v1_container *)(const void *)&(e)->ephemeral_container_common)

/* Crash loop: ms to wait before the container that ended at finished_ms (wall) may start; 0: now. */
#define BACKOFF_INITIAL_MS 10000
#define BACKOFF_MAX_MS 300000
int64_t backoff_wait(int64_t backoff_ms, int64_t since_ms, int64_t now);
void backoff_next(int64_t *backoff_ms, int64_t *at, int64_t now);

/* ---- resources.c: pure ---- */
enum qos { QOS_GUARANTEED, QOS_BURSTABLE, QOS_BEST_EFFORT };
enum qos pod_qos(const struct core_v1_pod *pod);
const char *qos_name(enum qos q);
struct pod_resources { /* of the whole pod; -1: no limit set by some container */
	int64_t cpu_request_m, cpu_limit_m, memory_request, memory_limit;
	int64_t ephemeral_request, ephemeral_limit;
};
void pod_resources_sum(const struct core_v1_pod *pod, struct pod_resources *out);
/* What the pod's containers ask of a resource that is no cpu and no memory, together, in whole units. */
int64_t pod_request_sum(const struct core_v1_pod *pod, const char *name);
/* Sizes in bytes of the huge pages that this kernel knows; returns how many. */
#define HUGEPAGE_SIZES_MAX 8
int hugepage_sizes(int64_t out[HUGEPAGE_SIZES_MAX]);
/* "2MB": what files of cgroups and CRI call the size; "hugepages-2Mi": the resource. Both return out. */
const char *hugepage_unit(int64_t size, char out[32]);
const char *hugepage_resource(int64_t size, char out[40]);
/* Both want the same port of the node: same protocol and number, at addresses that overlap. */
bool pod_ports_conflict(const struct core_v1_pod *x, const struct core_v1_pod *y);
int64_t milli_to_shares(int64_t milli);
int64_t milli_to_quota(int64_t milli, int64_t period);
/* cgroup v2 cpu.weight from v1 cpu.shares (the formula of OCI runtimes). */
int64_t shares_to_weight(int64_t shares);
int oom_score_adj(const struct core_v1_pod *pod, const struct core_v1_container *c, int64_t memory_capacity);
void container_linux_resources(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			       struct cri_v1_linux_container_resources *out);
/* limits.cpu and so on for resourceFieldRef; error for what is unknown. */
struct error *resource_field(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			     const struct core_v1_resource_field_selector *f, struct str *out);

/* ---- cgroup.c ---- */
struct error *cgroup_setup(struct kubelet *k); /* the QoS tree */
bool cgroup_is_v2(void);
/* The pod's cgroup, as CRI's cgroup_parent ("/kubepods/burstable/podUID"). */
struct str cgroup_pod_path(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod);
struct error *cgroup_pod_make(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod);
void cgroup_pod_remove(struct kubelet *k, struct str uid);
/* Removes cgroups of pods that are gone. */
void cgroup_gc(struct kubelet *k);
struct cgroup_usage {
	uint64_t cpu_ns, memory_usage, working_set, rss, page_faults, major_faults;
	bool found;
};
void cgroup_usage(struct kubelet *k, struct str path, struct cgroup_usage *out); /* "/" is the node */

/* ---- env.c ---- */
/* Expands $(VAR) and $$ as the API says; lookup gives STR_NULL p for unknown names. */
struct str env_expand(struct arena *a, struct str in, struct str (*lookup)(void *ctx, struct str name), void *ctx);
struct env_list {
	LIST(struct str_pair) v;
};
struct str env_get(const struct env_list *e, struct str name);
void env_set(struct arena *a, struct env_list *e, struct str name, struct str value);
struct error *env_make(struct kubelet *k, struct arena *a, struct pod *p, const struct core_v1_pod *pod,
		       const struct core_v1_container *c, struct env_list *out);
/* metadata.name, status.podIP...: what fieldRef can name. container may be NULL. */
struct error *field_ref(struct kubelet *k, struct arena *a, struct pod *p, const struct core_v1_pod *pod, struct str path, struct str *out);
struct str hosts_file(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, const struct strings *ips, struct str hostname,
		      struct str domain);
void pod_hostname(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, struct str *host, struct str *domain);
struct error *dns_config(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, struct cri_v1_dns_config *out);

/* ---- objects.c: ConfigMaps, Secrets and others by name ---- */
/* A fresh copy in the arena. 404 as from the API. */
struct error *object_get(struct kubelet *k, struct arena *a, const struct api_resource *r, struct str ns, struct str name, void **out);
/* The pod's volumes are marked dirty when the object changes; until object_unwatch_all. */
void object_watch(struct pod *p, const struct api_resource *r, struct str ns, struct str name);
void object_unwatch_all(struct pod *p);

/* ---- container.c ---- */
struct error *sandbox_create(struct pod *p, struct arena *a, const struct core_v1_pod *pod, uint32_t attempt, struct str *id);
/* Pulls, creates and starts; what fails stands in the cstate (reason and message) and is recorded as an event. */
void container_start(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct plan *plan, struct plan_start *s);
/* preStop and stop within grace seconds. Waits until it has ended. */
struct error *container_kill(struct pod *p, const struct core_v1_pod *pod, struct str id, struct str name, enum container_kind kind,
			     const char *reason, struct str message, int64_t grace);
struct str pod_log_dir(struct kubelet *k, struct arena *a, struct str ns, struct str name, struct str uid);
struct str pod_dir(struct kubelet *k, struct arena *a, struct str uid);
/* A sysctl's name with dots, however it is written. */
struct str sysctl_name(struct arena *a, const struct core_v1_sysctl *s);
void sandbox_config(struct pod *p, struct arena *a, const struct core_v1_pod *pod, uint32_t attempt, struct cri_v1_pod_sandbox_config *out);
void container_log_links(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, struct str container, struct str id, uint32_t attempt,
			 bool remove);

/* ---- hooks.c: lifecycle handlers and the actions of probes ---- */
struct error *handler_run(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			  struct str container_id, const struct core_v1_lifecycle_handler *h, int64_t timeout_s);
/* NULL: success. *warning (NULL: a hook, no probe) is set where it passed with a remark. */
struct error *probe_http(struct kubelet *k, struct arena *a, const struct core_v1_http_get_action *g,
			 const struct core_v1_container *c, struct str pod_ip, int64_t timeout_s, struct str *warning);
struct error *probe_tcp(struct kubelet *k, struct arena *a, struct int_or_string port, struct str host, const struct core_v1_container *c,
			struct str pod_ip, int64_t timeout_s);
struct error *probe_grpc(struct kubelet *k, struct arena *a, const struct core_v1_grpc_action *g, struct str pod_ip, int64_t timeout_s);

/* ---- probe.c ---- */
/* Starts, adopts or ends probes so that they fit what runs. */
void probes_update(struct pod *p, const struct core_v1_pod *pod, const struct view *v);
void probes_stop(struct pod *p);
/* While a pod ends only readiness is asked: an endpoint may leave before its container does (KEP-1672). */
void probes_terminating(struct pod *p);
/* Runs what is due; the next time something is, or INT64_MAX. */
int64_t probes_due(struct kubelet *k, int64_t now);

/* ---- images.c ---- */
/* The image is here afterwards. On error *reason is the waiting reason (ErrImagePull...). *ref: image id. */
struct error *image_ensure(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			   struct cstate *cs, struct str field_path, struct str *ref, const char **reason);
struct error *image_ensure_volume(struct pod *p, struct arena *a, const struct core_v1_pod *pod, struct str image, struct str policy,
				  struct str *ref);
void image_gc_run(void *arg);
/* Removes unused images until `bytes` are free; returns what was freed. */
int64_t image_gc_free(struct kubelet *k, int64_t bytes);
/* "docker.io/library/busybox:latest" for "busybox". */
struct str image_normalize(struct arena *a, struct str image);

/* ---- volumes.c ---- */
struct error *volumes_setup(struct pod *p, struct arena *a, const struct core_v1_pod *pod);
/* Unmounts and removes; waits. */
struct error *volumes_teardown(struct kubelet *k, struct str uid);
/* Host path of a mount for the runtime, made safe when it has a subPath. */
struct error *volume_mount_path(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c, size_t index,
				struct str sub_path, struct cri_v1_mount *out);
struct volume_file {
	struct str path, data;
	mode_t mode;
	int64_t uid; /* -1: root */
};
struct volume_files {
	LIST(struct volume_file) v;
};
/* atomic.c: writes the files below dir through a timestamped directory and the ..data link; nothing changes when they are equal. */
struct error *atomic_write(struct arena *a, const char *dir, const struct volume_files *files, int64_t gid, bool *changed);
/* Relative, no "..", no absolute: what a file of a volume may be called. */
bool volume_path_ok(struct str path);
struct error *volume_subpath_open(const char *base, struct str sub, bool create, bool is_file, mode_t mode, int *fd);

/* ---- status.c ---- */
/* Computes the pod's status from the object, the view and the cstates. `old`: the one before (transition times). */
void status_make(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct view *v, const struct plan *plan,
		 const struct core_v1_pod_status *old, struct core_v1_pod_status *out);
/* Computes, keeps and (when changed) sends. */
void status_update(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct plan *plan);
/* The one of that name in a list of container statuses (any of a pod's three); NULL if there is none. */
const struct core_v1_container_status *container_status_find(const void *list, struct str name);
struct str pod_phase(const struct core_v1_pod *pod, const struct core_v1_pod_status *s, bool terminal);
/* The patch that brings `old` to `new`. Pure. */
void status_patch(struct arena *a, struct str uid, const struct core_v1_pod_status *old, const struct core_v1_pod_status *new_, struct buf *out);
struct api_time kubelet_time_now(void);
struct api_time time_from_ns(int64_t ns);

/* ---- static_pods.c ---- */
void static_pods_run(void *arg);
void mirror_pod_ensure(struct pod *p);

/* ---- node.c ---- */
void node_run(void *arg);  /* registration, status */
void lease_run(void *arg);
void node_kick(struct kubelet *k);
void node_capacity(struct kubelet *k, struct arena *a, struct str_map *capacity, struct str_map *allocatable);
int64_t node_allocatable(struct kubelet *k, const char *resource); /* cpu in thousandths */
int64_t node_pods_memory(struct kubelet *k); /* bytes that all pods together may use: what is evicted for counts too */
struct error *node_host_ips(struct kubelet *k);

/* ---- eviction.c ---- */
void eviction_run(void *arg);
struct fs_usage {
	int64_t capacity, available, used, inodes, inodes_free;
};
struct error *fs_usage(const char *path, struct fs_usage *out);
struct mem_info {
	int64_t total, available, free, swap_total;
};
struct error *mem_info(struct mem_info *out);

/* ---- logs.c ---- */
enum log_stream { LOG_STDOUT, LOG_STDERR };
struct log_entry {
	struct str time;    /* as written */
	enum log_stream stream;
	bool partial;       /* tag P: the line goes on in the next entry */
	struct str content; /* with its newline unless partial */
};
/* One line of the CRI log format (with its newline); false when it is none. */
bool pod_log_parse(struct str line, struct log_entry *out);
struct log_opts {
	bool follow, timestamps, has_tail, has_limit, want_out, want_err;
	int64_t tail, limit;
	int64_t since_ns; /* 0: none */
};
/* Sends lines to `write` until the end (or, with follow, until *running says false and all was read). */
struct error *log_read(const char *path, const struct log_opts *o, bool (*running)(void *ctx), struct error *(*write)(void *ctx, struct str s),
		       void *ctx);
/* The last bytes of a log as text, at most 80 lines and 2048 bytes: FallbackToLogsOnError. */
struct str log_tail(struct arena *a, const char *path);
/* How often a container ran already, by the logs ("N.log") in its directory: the runtime forgets with a restart of the machine. */
uint32_t log_next_attempt(const char *dir);
void log_rotate_run(void *arg);

/* ---- server.c ---- */
struct error *server_start(struct kubelet *k, struct http_server **out);
/* --healthz-port (loopback) and --read-only-port. A health port that is taken is only a warning: nodes of one machine share it. */
struct error *server_start_plain(struct kubelet *k);
void server_pods(struct kubelet *k, struct buf *b);
/* server_auth.c: false when it has answered 401 or 403. */
bool server_authorize(struct kubelet *k, struct http_exchange *x);
/* server_exec.c */
void server_stream(struct kubelet *k, struct http_exchange *x, struct str *seg, size_t n);
void server_run(struct kubelet *k, struct http_exchange *x, struct str *seg, size_t n);
void server_error(struct http_exchange *x, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* stats.c */
struct error *stats_summary(struct kubelet *k, struct arena *a, bool only_cpu_and_memory, struct buf *out);
struct error *stats_metrics(struct kubelet *k, struct arena *a, struct buf *out);
/*
 * Counts for kubelet_terminated_containers_total the containers that have ended in `now` and had not in `old`. At most
 * 1,024 combinations of type, exit code and reason are told apart; further ones are not counted.
 */
void stats_terminations(struct kubelet *k, struct arena *a, const struct core_v1_pod_status *old,
			const struct core_v1_pod_status *now);
struct error *stats_resource_metrics(struct kubelet *k, struct arena *a, struct buf *out);
struct error *stats_cadvisor(struct kubelet *k, struct arena *a, struct buf *out);
/* certificates.c: the serving certificate in root_dir/pki: the cluster's, or a self-signed one. */
struct error *serving_cert_ensure(struct kubelet *k);
/* TLS bootstrap: when --bootstrap-kubeconfig is given and --kubeconfig leads nowhere, asks for a client certificate and waits. */
struct error *client_cert_ensure(struct kubelet *k);
/* Fiber: asks for the serving certificate, renews both before they end. The TLS room reloads them. */
void certificates_run(void *arg);

#endif
