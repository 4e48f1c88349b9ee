/* controller/job.h: what the two files of the Job controller share. */
#ifndef SKIFF_CONTROLLER_JOB_H
#define SKIFF_CONTROLLER_JOB_H

#include "controller/common.h"

#define JOB_TRACKING "batch.kubernetes.io/job-tracking" /* finalizer of pods that are not counted yet (KEP-2307) */

typedef struct batch_v1_job job_t;
typedef struct core_v1_pod pod_t;

/* Indexes as ascending ranges that neither touch nor overlap; "1,3-5,7" in the API. */
struct index_range {
	int32_t first, last;
};
struct indexes {
	struct index_range *v;
	uint32_t n, cap;
};
/* Indexes from `completions` on are left out, as is what cannot be read. */
struct indexes indexes_parse(struct arena *a, struct str text, int32_t completions);
struct str indexes_format(struct arena *a, const struct indexes *x);
bool indexes_have(const struct indexes *x, int32_t i);
int32_t indexes_count(const struct indexes *x);
struct indexes indexes_merge(struct arena *a, const struct indexes *x, const struct indexes *y);
/* With n more, in any order (sorted in place). */
struct indexes indexes_with(struct arena *a, const struct indexes *x, int32_t *more, size_t n);
/* How many are in both. */
int32_t indexes_common(const struct indexes *x, const struct indexes *y);

/* ---- a pod of a job ---- */
int32_t job_pod_index(const pod_t *p); /* -1: none */
static inline bool job_pod_tracked(const pod_t *p)
{
	return has_finalizer(&p->metadata, JOB_TRACKING);
}
/* Only pods that have failed are replaced, not those that are being deleted (KEP-3939). */
bool job_replaces_failed_only(const job_t *j);
/* Failed, or being deleted where that counts as failing. */
bool job_pod_failed(const job_t *j, const pod_t *p);
/* When it ended, in ms since 1970, by the best that is known. */
int64_t job_pod_finished_ms(const pod_t *p);
/* Failures of the index before this pod: counted and ignored ones. */
int32_t job_pod_failures(const pod_t *p);
int32_t job_pod_ignored_failures(const pod_t *p);

enum failure_action { FAILURE_COUNT, FAILURE_IGNORE, FAILURE_FAIL_JOB, FAILURE_FAIL_INDEX };
/* What the pod failure policy says of a failed pod; *message (may be NULL) is filled for FAILURE_FAIL_JOB. */
enum failure_action job_failure_action(struct arena *a, const job_t *j, const pod_t *p, struct str *message);
/* Does the failure use up the index's backoff limit? */
bool job_index_failed(struct arena *a, const job_t *j, const pod_t *p);
/* The rule of the success policy that is met, as its message; false when none is. */
bool job_success_policy(struct arena *a, const job_t *j, const struct indexes *succeeded, struct str *message);
/* ms left after `failures` in a row, the last at last_ms: 10 s, doubled each time, at most 10 minutes. */
int64_t job_backoff_ms(int32_t failures, int64_t last_ms);
/* A pod by the job's template. index -1: none; replaced: the failed pod of that index, or NULL. */
pod_t *job_new_pod(struct arena *a, const job_t *j, int32_t index, const pod_t *replaced);

#endif
