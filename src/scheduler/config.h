/*
 * scheduler/config.h: profiles: which plugins run for which spec.schedulerName, with what weights and arguments; read from a
 * KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1). The order of plugins is upstream's default one and is not
 * configurable; extenders, and plugins that are not built in, are refused.
 */
#ifndef SKIFF_SCHEDULER_CONFIG_H
#define SKIFF_SCHEDULER_CONFIG_H

#include "base/error.h"
#include "schema/api.h"

#define PLUGINS_MAX 32
#define PROFILES_MAX 8
#define SCORE_RESOURCES_MAX 16
#define SHAPE_MAX 16

enum point { /* extension points at which plugins can be switched */
	POINT_PRE_ENQUEUE,
	POINT_PRE_FILTER,
	POINT_FILTER,
	POINT_POST_FILTER,
	POINT_PRE_SCORE,
	POINT_SCORE,
	POINT_RESERVE,
	POINT_PRE_BIND,
	N_POINTS,
};

enum fit_strategy { FIT_LEAST, FIT_MOST, FIT_RATIO };

struct score_resource {
	struct str name; /* "cpu", "memory" or an extended one */
	int64_t weight;
};

struct shape_point {
	int64_t utilization, score; /* both 0..100 */
};

struct profile {
	struct str name;                 /* spec.schedulerName */
	uint32_t on[N_POINTS];           /* bit by plugin index */
	int32_t weight[PLUGINS_MAX];
	bool preemption;                 /* DefaultPreemption at postFilter */
	int32_t percentage;              /* percentageOfNodesToScore; 0: by the size of the cluster */
	/* arguments */
	int64_t hard_affinity_weight;
	bool ignore_preferred_of_existing;
	enum fit_strategy fit;
	struct score_resource fit_resources[SCORE_RESOURCES_MAX];
	int n_fit_resources;
	struct shape_point shape[SHAPE_MAX];
	int n_shape;
	struct strings ignored_resources, ignored_groups;
	struct score_resource balanced[SCORE_RESOURCES_MAX];
	int n_balanced;
	const struct core_v1_topology_spread_constraint *spread; /* for pods without constraints */
	uint32_t n_spread;
	bool system_spread;              /* these are upstream's own: a pod that no Service or controller selects has none */
	const struct core_v1_node_affinity *added_affinity;
	int64_t bind_timeout_ms;         /* VolumeBinding */
	int32_t candidates_percent, candidates_min; /* DefaultPreemption */
};

struct scheduler_config {
	struct profile profiles[PROFILES_MAX];
	int n_profiles;
	int64_t backoff_min_ms, backoff_max_ms;
	bool leader_elect;
	int64_t lease_ms, renew_ms, retry_ms;
	const char *leader_ns, *leader_name;
	const char *kubeconfig;          /* NULL: not given */
	double qps;
	int burst;
};
/* Upstream's defaults: one profile, default-scheduler. */
void scheduler_config_default(struct scheduler_config *out);
/* Text of a file, over the defaults; everything kept points into the arena. Errors name the field. */
struct error *scheduler_config_parse(struct arena *a, struct str text, struct scheduler_config *out);
/* By spec.schedulerName; NULL when no profile serves it. */
const struct profile *scheduler_profile(const struct scheduler_config *c, struct str name);

#endif
