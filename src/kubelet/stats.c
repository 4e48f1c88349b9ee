/* /stats/summary and /metrics/...: usage of the node from cgroups and statvfs, of containers from the runtime. */
#include <string.h>

#include "kubelet/internal.h"

struct stats_run {
	struct kubelet *k;
	struct arena *a;
	struct cri_v1_list_container_stats_response containers;
	struct str now;
};

static struct error *collect(struct kubelet *k, struct arena *a, struct stats_run *r)
{
	struct cri_v1_list_container_stats_request req = {0};

	*r = (struct stats_run){.k = k, .a = a, .now = time_format(a, kubelet_time_now(), false)};
	return CRI_CALL(k, a, RUNTIME, ListContainerStats, list_container_stats, &req, &r->containers);
}

static uint64_t value(const struct cri_v1_u_int64_value *v)
{
	return v ? v->value : 0;
}

static struct str label(const struct cri_v1_container_stats *c, const char *name)
{
	return c->attributes ? str_map_get(API_MAP(&c->attributes->labels), str_from(name)) : STR_NULL;
}

static struct str container_name(const struct cri_v1_container_stats *c)
{
	return c->attributes && c->attributes->metadata ? c->attributes->metadata->name : STR_NULL;
}

static void cpu_memory(struct buf *b, struct str now, uint64_t cpu_ns, uint64_t nano_cores, uint64_t usage, uint64_t working_set, uint64_t rss)
{
	buf_printf(b, "\"cpu\":{\"time\":\"%.*s\",\"usageNanoCores\":%llu,\"usageCoreNanoSeconds\":%llu},", STR_ARG(now),
		   (unsigned long long)nano_cores, (unsigned long long)cpu_ns);
	buf_printf(b, "\"memory\":{\"time\":\"%.*s\",\"usageBytes\":%llu,\"workingSetBytes\":%llu,\"rssBytes\":%llu}", STR_ARG(now),
		   (unsigned long long)usage, (unsigned long long)working_set, (unsigned long long)rss);
}

static void fs(struct buf *b, const char *name, struct str now, const char *path)
{
	struct fs_usage u;
	struct error *e = fs_usage(path, &u);

	if (!e)
		buf_printf(b, ",\"%s\":{\"time\":\"%.*s\",\"availableBytes\":%lld,\"capacityBytes\":%lld,\"usedBytes\":%lld,\"inodesFree\":%lld,"
			   "\"inodes\":%lld,\"inodesUsed\":%lld}", name, STR_ARG(now), (long long)u.available, (long long)u.capacity, (long long)u.used,
			   (long long)u.inodes_free, (long long)u.inodes, (long long)(u.inodes - u.inodes_free));
	log_and_free(e, "usage of %s", path);
}

static void pod_summary(struct stats_run *r, struct pod *p, struct buf *b)
{
	uint64_t cpu = 0, nano = 0, usage = 0, ws = 0, rss = 0;
	bool first = true;

	buf_printf(b, "{\"podRef\":{\"name\":\"%s\",\"namespace\":\"%s\",\"uid\":\"%s\"},\"startTime\":\"%.*s\",\"containers\":[", p->name, p->ns, p->uid,
		   STR_ARG(time_format(r->a, (struct api_time){.s = p->start_time, .set = true}, false)));
	for (uint32_t i = 0; i < r->containers.stats.n; i++) {
		const struct cri_v1_container_stats *c = &r->containers.stats.v[i];

		if (!str_eqz(label(c, CRI_LABEL_POD_UID), p->uid))
			continue;
		uint64_t v[5] = {c->cpu ? value(c->cpu->usage_core_nano_seconds) : 0, c->cpu ? value(c->cpu->usage_nano_cores) : 0,
				 c->memory ? value(c->memory->usage_bytes) : 0, c->memory ? value(c->memory->working_set_bytes) : 0,
				 c->memory ? value(c->memory->rss_bytes) : 0};

		buf_printf(b, "%s{\"name\":\"%.*s\",", first ? "" : ",", STR_ARG(container_name(c)));
		cpu_memory(b, r->now, v[0], v[1], v[2], v[3], v[4]);
		buf_puts(b, "}");
		first = false;
		cpu += v[0];
		nano += v[1];
		usage += v[2];
		ws += v[3];
		rss += v[4];
	}
	buf_puts(b, "],");
	cpu_memory(b, r->now, cpu, nano, usage, ws, rss);
	buf_puts(b, "}");
}

struct error *stats_summary(struct kubelet *k, struct arena *a, bool only_cpu_and_memory, struct buf *b)
{
	struct cgroup_usage node;
	struct stats_run r;
	bool first = true;
	void *v;

	TRY(collect(k, a, &r));
	cgroup_usage(k, STR("/"), &node);
	buf_printf(b, "{\"node\":{\"nodeName\":\"%s\",\"startTime\":\"%.*s\",", k->c->node_name,
		   STR_ARG(time_format(a, time_from_ns(k->started_wall), false)));
	cpu_memory(b, r.now, node.cpu_ns, 0, node.memory_usage, node.working_set, node.rss);
	if (!only_cpu_and_memory) {
		fs(b, "fs", r.now, k->c->root_dir);
		buf_puts(b, ",\"runtime\":{\"time\":\"");
		buf_str(b, r.now);
		buf_puts(b, "\"}");
	}
	buf_puts(b, "},\"pods\":[");
	for (size_t it = 0; map_next(&k->pods, &it, NULL, &v);) {
		struct pod *p = v;

		if (p->is_orphan || p->stopped)
			continue;
		buf_printf(b, "%s", first ? "" : ",");
		pod_summary(&r, p, b);
		first = false;
	}
	buf_puts(b, "]}");
	return NULL;
}

static void metric(struct buf *b, const char *name, const char *type, double v)
{
	buf_printf(b, "# TYPE %s %s\n%s %.17g\n", name, type, name, v);
}

#define TERMINATIONS_MAX 1024

/* Whether a label's value needs no escapes. */
static bool is_plain(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '"' || s.p[i] == '\\' || (unsigned char)s.p[i] < ' ')
			return false;
	return true;
}

static void terminations_of(struct kubelet *k, struct arena *a, const char *type, const void *old,
			    const struct core_v1_container_status *now, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct core_v1_container_state_terminated *t = now[i].state.terminated;
		const struct core_v1_container_status *was = container_status_find(old, now[i].name);
		struct str labels;
		uintptr_t count;

		if (!t || (was && was->state.terminated))
			continue;
		labels = arena_printf(a, "container_type=\"%s\",exit_code=\"%d\",reason=\"%.*s\"", type, t->exit_code,
				      STR_ARG(is_plain(t->reason) ? t->reason : STR("Unknown")));
		count = (uintptr_t)map_get(&k->terminations, labels);
		if (count || k->terminations.n < TERMINATIONS_MAX)
			map_set(&k->terminations, labels, (void *)(count + 1));
	}
}

void stats_terminations(struct kubelet *k, struct arena *a, const struct core_v1_pod_status *old,
			const struct core_v1_pod_status *now)
{
	terminations_of(k, a, "init_container", &old->init_container_statuses, now->init_container_statuses.v,
			now->init_container_statuses.n);
	terminations_of(k, a, "container", &old->container_statuses, now->container_statuses.v,
			now->container_statuses.n);
	terminations_of(k, a, "ephemeral_container", &old->ephemeral_container_statuses,
			now->ephemeral_container_statuses.v, now->ephemeral_container_statuses.n);
}

struct error *stats_metrics(struct kubelet *k, struct arena *a, struct buf *b)
{
	struct str labels;
	size_t fibers, stack, running = 0, pods = 0;
	void *v;

	for (size_t it = 0; map_next(&k->pods, &it, NULL, &v);) {
		struct pod *p = v;

		pods += !p->is_orphan;
		running += !p->is_orphan && !p->stopped;
	}
	loop_stats(&fibers, &stack);
	metric(b, "kubelet_running_pods", "gauge", (double)running);
	metric(b, "kubelet_desired_pods", "gauge", (double)pods);
	metric(b, "kubelet_started_containers_total", "counter", (double)k->n_started);
	metric(b, "kubelet_runtime_operations_total", "counter", (double)k->n_cri_calls);
	metric(b, "kubelet_runtime_operations_errors_total", "counter", (double)k->n_cri_errors);
	metric(b, "kubelet_image_pulls_total", "counter", (double)k->n_pulls);
	metric(b, "kubelet_pod_syncs_total", "counter", (double)k->n_syncs);
	metric(b, "kubelet_pod_status_writes_total", "counter", (double)k->n_status_writes);
	if (k->terminations.n)
		buf_puts(b, "# TYPE kubelet_terminated_containers_total counter\n");
	for (size_t it = 0; map_next(&k->terminations, &it, &labels, &v);)
		buf_printf(b, "kubelet_terminated_containers_total{%.*s} %zu\n", STR_ARG(labels), (size_t)(uintptr_t)v);
	metric(b, "skiff_fibers", "gauge", (double)fibers);
	metric(b, "skiff_fiber_stack_high_water_bytes", "gauge", (double)stack);
	return NULL;
}

struct error *stats_resource_metrics(struct kubelet *k, struct arena *a, struct buf *b)
{
	struct cgroup_usage node;
	struct stats_run r;

	TRY(collect(k, a, &r));
	cgroup_usage(k, STR("/"), &node);
	metric(b, "node_cpu_usage_seconds_total", "counter", (double)node.cpu_ns / 1e9);
	metric(b, "node_memory_working_set_bytes", "gauge", (double)node.working_set);
	for (int pass = 0; pass < 2; pass++) {
		const char *name = pass ? "container_memory_working_set_bytes" : "container_cpu_usage_seconds_total";

		buf_printf(b, "# TYPE %s %s\n", name, pass ? "gauge" : "counter");
		for (uint32_t i = 0; i < r.containers.stats.n; i++) {
			const struct cri_v1_container_stats *c = &r.containers.stats.v[i];
			double v = pass ? (double)(c->memory ? value(c->memory->working_set_bytes) : 0)
					: (double)(c->cpu ? value(c->cpu->usage_core_nano_seconds) : 0) / 1e9;

			buf_printf(b, "%s{container=\"%.*s\",namespace=\"%.*s\",pod=\"%.*s\"} %.17g\n", name, STR_ARG(container_name(c)),
				   STR_ARG(label(c, CRI_LABEL_POD_NS)), STR_ARG(label(c, CRI_LABEL_POD_NAME)), v);
		}
	}
	return NULL;
}

/* The part of cAdvisor's metrics that dashboards ask for most, under its names. */
struct error *stats_cadvisor(struct kubelet *k, struct arena *a, struct buf *b)
{
	return stats_resource_metrics(k, a, b);
}
