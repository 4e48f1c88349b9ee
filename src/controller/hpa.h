/* controller/hpa.h: what the files of the HorizontalPodAutoscaler controller share. */
#ifndef SKIFF_CONTROLLER_HPA_H
#define SKIFF_CONTROLLER_HPA_H

#include "controller/common.h"

struct tolerances { /* ratios within [1 - down, 1 + up] change nothing */
	double up, down;
};

struct hpa_target { /* what metrics are asked of */
	struct manager *m;
	struct informer *pods;
	struct str ns;
	struct str selector_text;           /* of the scale */
	const struct selector *selector;
	int32_t current;                    /* replicas in spec of the scale */
	int32_t observed;                   /* in its status */
	struct tolerances tolerances;
};

struct hpa_answer { /* of one metric */
	int32_t replicas;
	struct str name;                    /* for people: "cpu resource utilization (percentage of request)" */
	struct autoscaling_v2_metric_status status;
	const char *condition;              /* of an error: reason of ScalingActive, "FailedGetResourceMetric" */
};
/* How many replicas one metric of the spec wants. */
struct error *hpa_metric(const struct hpa_target *t, struct arena *a, const struct autoscaling_v2_metric_spec *m, struct hpa_answer *out);

#endif
