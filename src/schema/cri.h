/*
 * schema/cri.h: enum values and names of CRI runtime.v1, whose messages are the
 * tables of api/cri.v1.api (`struct cri_v1_...` in schema/api.h). The kubelet
 * and the runtime share only these. Enum fields are int32_t there.
 */
#ifndef SKIFF_SCHEMA_CRI_H
#define SKIFF_SCHEMA_CRI_H

#define CRI_RUNTIME_SERVICE "runtime.v1.RuntimeService" /* gRPC paths: "/" SERVICE "/" METHOD */
#define CRI_IMAGE_SERVICE "runtime.v1.ImageService"

/* RuntimeCondition.type */
#define CRI_CONDITION_RUNTIME_READY "RuntimeReady"
#define CRI_CONDITION_NETWORK_READY "NetworkReady"

/* ContainerStatus.reason as other runtimes give it. */
#define CRI_REASON_COMPLETED "Completed"
#define CRI_REASON_ERROR "Error"
#define CRI_REASON_OOM_KILLED "OOMKilled"

/* The largest message of either direction, bytes (upstream's kubelet uses the same). */
#define CRI_MAX_MESSAGE (16u << 20)

enum cri_protocol { CRI_PROTOCOL_TCP = 0, CRI_PROTOCOL_UDP = 1, CRI_PROTOCOL_SCTP = 2 };

enum cri_mount_propagation {
	CRI_PROPAGATION_PRIVATE = 0,
	CRI_PROPAGATION_HOST_TO_CONTAINER = 1,
	CRI_PROPAGATION_BIDIRECTIONAL = 2,
};

enum cri_namespace_mode {
	CRI_NAMESPACE_POD = 0,
	CRI_NAMESPACE_CONTAINER = 1,
	CRI_NAMESPACE_NODE = 2,
	CRI_NAMESPACE_TARGET = 3,
};

enum cri_supplemental_groups_policy {
	CRI_SUPPLEMENTAL_GROUPS_MERGE = 0,
	CRI_SUPPLEMENTAL_GROUPS_STRICT = 1,
};

enum cri_profile_type {
	CRI_PROFILE_RUNTIME_DEFAULT = 0,
	CRI_PROFILE_UNCONFINED = 1,
	CRI_PROFILE_LOCALHOST = 2,
};

enum cri_sandbox_state { CRI_SANDBOX_READY = 0, CRI_SANDBOX_NOTREADY = 1 };

enum cri_container_state {
	CRI_CONTAINER_CREATED = 0,
	CRI_CONTAINER_RUNNING = 1,
	CRI_CONTAINER_EXITED = 2,
	CRI_CONTAINER_UNKNOWN = 3,
};

enum cri_container_event {
	CRI_CONTAINER_CREATED_EVENT = 0,
	CRI_CONTAINER_STARTED_EVENT = 1,
	CRI_CONTAINER_STOPPED_EVENT = 2,
	CRI_CONTAINER_DELETED_EVENT = 3,
};

enum cri_metric_type { CRI_METRIC_COUNTER = 0, CRI_METRIC_GAUGE = 1 };

enum cri_cgroup_driver { CRI_CGROUP_SYSTEMD = 0, CRI_CGROUP_CGROUPFS = 1 };

/*
 * ContainerConfig.stop_signal: names by number (index), 0 is "" (the image's).
 * "SIGRTMIN+n" and "SIGRTMAX-n" stand for SIGRTMINPLUSn and SIGRTMAXMINUSn.
 */
enum { CRI_SIGNAL_RUNTIME_DEFAULT = 0, CRI_SIGNAL_COUNT = 66 };
static const char *const cri_signal_names[CRI_SIGNAL_COUNT] __attribute__((unused)) = {
	"",
	"SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT",
	"SIGIO", "SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSEGV", "SIGSTKFLT",
	"SIGSTOP", "SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2",
	"SIGVTALRM", "SIGWINCH", "SIGXCPU", "SIGXFSZ", "SIGRTMIN", "SIGRTMIN+1", "SIGRTMIN+2", "SIGRTMIN+3",
	"SIGRTMIN+4", "SIGRTMIN+5", "SIGRTMIN+6", "SIGRTMIN+7", "SIGRTMIN+8", "SIGRTMIN+9", "SIGRTMIN+10",
	"SIGRTMIN+11", "SIGRTMIN+12", "SIGRTMIN+13", "SIGRTMIN+14", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX-13",
	"SIGRTMAX-12", "SIGRTMAX-11", "SIGRTMAX-10", "SIGRTMAX-9", "SIGRTMAX-8", "SIGRTMAX-7", "SIGRTMAX-6",
	"SIGRTMAX-5", "SIGRTMAX-4", "SIGRTMAX-3", "SIGRTMAX-2", "SIGRTMAX-1", "SIGRTMAX",
};

#endif
