/* Figures under upstream's names. */
#include <stdio.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "scheduler/internal.h"

/* Upstream's exponential buckets: 1 ms doubling; 1 victim doubling. */
const double seconds_bounds[BUCKETS] = {0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384};
const double victims_bounds[BUCKETS] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

void observe(struct histogram *h, double v, const double *bounds)
{
	int i = 0;

	while (i < BUCKETS && v > bounds[i])
		i++;
	h->count[i]++;
	h->n++;
	h->sum += v;
}

static void histogram(struct buf *b, const char *name, const char *labels, const struct histogram *h, const double *bounds)
{
	const char *comma = *labels ? "," : "";
	uint64_t sum = 0;

	for (int i = 0; i < BUCKETS; i++) {
		sum += h->count[i];
		buf_printf(b, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, labels, comma, bounds[i], (unsigned long long)sum);
	}
	buf_printf(b, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, comma, (unsigned long long)h->n);
	buf_printf(b, "%s_sum%s%s%s %g\n", name, *labels ? "{" : "", labels, *labels ? "}" : "", h->sum);
	buf_printf(b, "%s_count%s%s%s %llu\n", name, *labels ? "{" : "", labels, *labels ? "}" : "", (unsigned long long)h->n);
}

static void head(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void scheduler_metrics(void *ctx, struct buf *b)
{
	static const char *const results[N_RESULTS] = {"scheduled", "unschedulable", "error"};
	const struct scheduler *s = ctx;
	size_t active, backoff, unschedulable, gated;
	struct rusage ru;
	char labels[128];

	head(b, "scheduler_pending_pods", "gauge", "Number of pending pods, by the queue they are in.");
	queue_counts(s->queue, &active, &backoff, &unschedulable, &gated);
	buf_printf(b, "scheduler_pending_pods{queue=\"active\"} %zu\nscheduler_pending_pods{queue=\"backoff\"} %zu\n", active, backoff);
	buf_printf(b, "scheduler_pending_pods{queue=\"unschedulable\"} %zu\nscheduler_pending_pods{queue=\"gated\"} %zu\n", unschedulable, gated);
	head(b, "scheduler_schedule_attempts_total", "counter", "Number of attempts to schedule pods, by the result.");
	for (int i = 0; i < N_RESULTS; i++)
		buf_printf(b, "scheduler_schedule_attempts_total{profile=\"%.*s\",result=\"%s\"} %llu\n", STR_ARG(s->config.profiles[0].name), results[i],
			   (unsigned long long)s->stats.attempt[i].n);
	head(b, "scheduler_scheduling_attempt_duration_seconds", "histogram", "Scheduling attempt latency in seconds (algorithm and binding).");
	for (int i = 0; i < N_RESULTS; i++) {
		snprintf(labels, sizeof labels, "profile=\"%.*s\",result=\"%s\"", STR_ARG(s->config.profiles[0].name), results[i]);
		histogram(b, "scheduler_scheduling_attempt_duration_seconds", labels, &s->stats.attempt[i], seconds_bounds);
	}
	head(b, "scheduler_preemption_attempts_total", "counter", "Total preemption attempts in the cluster till now.");
	buf_printf(b, "scheduler_preemption_attempts_total %llu\n", (unsigned long long)s->stats.preemptions);
	head(b, "scheduler_preemption_victims", "histogram", "Number of selected preemption victims.");
	histogram(b, "scheduler_preemption_victims", "", &s->stats.victims, victims_bounds);
	head(b, "scheduler_cache_size", "gauge", "Number of nodes, pods, and assumed pods in the scheduler cache.");
	buf_printf(b, "scheduler_cache_size{type=\"nodes\"} %zu\nscheduler_cache_size{type=\"pods\"} %zu\n", s->cache.n_nodes, s->cache.pods.n);
	head(b, "scheduler_goroutines", "gauge", "Number of bindings and preemptions under way.");
	buf_printf(b, "scheduler_goroutines{operation=\"binding\"} %zu\n", s->bindings);
	if (getrusage(RUSAGE_SELF, &ru) == 0) {
		head(b, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.");
		buf_printf(b, "process_cpu_seconds_total %.3f\n", (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
			   (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
	}
}
