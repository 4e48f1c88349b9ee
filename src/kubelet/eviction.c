/*
 * kubelet/eviction.c: what is done when the node runs out of memory, disk or
 * process ids: conditions, and the end of the pods that use more than they asked for.
 */
#include "kubelet/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#define PERIOD_MS 10000
#define TRANSITION_MS (5 * 60 * 1000) /* a condition stays this long after its cause has gone */
#define CRITICAL_PRIORITY 2000000000

struct error *fs_usage(const char *path, struct fs_usage *out)
{
	struct statvfs s;

	if (statvfs(path, &s) < 0)
		return error_sys(errno, "file system of %s", path);
	out->capacity = (int64_t)s.f_blocks * (int64_t)s.f_frsize;
	out->available = (int64_t)s.f_bavail * (int64_t)s.f_frsize;
	out->used = out->capacity - (int64_t)s.f_bfree * (int64_t)s.f_frsize;
	out->inodes = (int64_t)s.f_files;
	out->inodes_free = (int64_t)s.f_ffree;
	return NULL;
}

struct error *mem_info(struct mem_info *out)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	long long v;

	*out = (struct mem_info){0};
	if (!f)
		return error_sys(errno, "/proc/meminfo");
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "MemTotal: %lld", &v) == 1)
			out->total = v * 1024;
		else if (sscanf(line, "MemAvailable: %lld", &v) == 1)
			out->available = v * 1024;
		else if (sscanf(line, "MemFree: %lld", &v) == 1)
			out->free = v * 1024;
		else if (sscanf(line, "SwapTotal: %lld", &v) == 1)
			out->swap_total = v * 1024;
	}
	fclose(f);
	return NULL;
}

static bool under(const struct kubelet_threshold *t, int64_t available, int64_t capacity, int64_t *limit)
{
	if (!t->set || capacity <= 0)
		return false;
	*limit = t->percent > 0 ? (int64_t)((double)capacity * t->percent / 100) : t->quantity;
	return available < *limit;
}

static int64_t pids_max(void)
{
	FILE *f = fopen("/proc/sys/kernel/pid_max", "re");
	long long v = 0;

	if (f) {
		if (fscanf(f, "%lld", &v) != 1)
			v = 0;
		fclose(f);
	}
	return v;
}

static int64_t pids_used(void)
{
	FILE *f = fopen("/proc/loadavg", "re");
	long long v = 0;

	if (f) {
		if (fscanf(f, "%*f %*f %*f %*d/%lld", &v) != 1)
			v = 0;
		fclose(f);
	}
	return v;
}

struct victim {
	struct pod *p;
	int64_t priority, usage, request;
};

/* Those above their request first, then by priority, then by how much they are above it. */
static int worse(const void *x, const void *y)
{
	const struct victim *a = x, *b = y;
	bool ao = a->usage > a->request, bo = b->usage > b->request;
	int64_t ae = a->usage - a->request, be = b->usage - b->request;

	if (ao != bo)
		return ao ? -1 : 1;
	if (a->priority != b->priority)
		return a->priority < b->priority ? -1 : 1;
	return ae > be ? -1 : ae < be ? 1 : 0;
}

static void evict_one(struct kubelet *k, struct arena *a, const char *resource, struct str available, struct str limit)
{
	LIST(struct victim) list = {0};
	size_t it = 0;
	void *value;

	while (map_next(&k->pods, &it, NULL, &value)) {
		struct pod *p = value;
		struct core_v1_pod *pod;
		struct block *hold = NULL;
		struct pod_resources r;
		struct cgroup_usage u = {0};
		struct victim *v;
		struct error *e;

		if (p->terminating || p->is_orphan || p->is_static)
			continue;
		e = pod_decode(p, a, &pod, &hold);
		if (e) {
			error_free(e);
			continue;
		}
		if (!(pod->spec.priority && *pod->spec.priority >= CRITICAL_PRIORITY)) {
			pod_resources_sum(pod, &r);
			v = arena_push(a, &list);
			v->p = p;
			v->priority = pod->spec.priority ? *pod->spec.priority : 0;
			v->request = r.memory_request;
			if (strcmp(resource, "memory") == 0) {
				cgroup_usage(k, cgroup_pod_path(k, a, pod), &u);
				v->usage = (int64_t)u.working_set;
			}
		}
		block_unref(hold);
	}
	if (!list.n)
		return;
	qsort(list.v, list.n, sizeof *list.v, worse);
	for (uint32_t i = 0; i < 1; i++) {
		struct pod *p = list.v[i].p;
		struct str message = arena_printf(a, "The node was low on resource: %s. Threshold quantity: %.*s, available: %.*s. ", resource, STR_ARG(limit),
						  STR_ARG(available));
		struct core_v1_object_reference ref = {.kind = STR("Pod"), .api_version = STR("v1"), .namespace = str_from(p->ns), .name = str_from(p->name),
						       .uid = str_from(p->uid)};

		log_warn("evicting pod %s/%s: %.*s", p->ns, p->name, STR_ARG(message));
		if (k->events)
			event_record(k->events, &ref, "Warning", "Evicted", "%.*s", STR_ARG(message));
		pod_fail(p, "Evicted", message.p, 0, true);
	}
}

/* Keeps a condition for a while after its cause; true when it changed. */
static bool condition(bool now_bad, bool *state, int64_t *at)
{
	bool was = *state;

	if (now_bad) {
		*state = true;
		*at = now_ms();
	} else if (*state && now_ms() - *at >= TRANSITION_MS) {
		*state = false;
	}
	return was != *state;
}

static void check(struct kubelet *k)
{
	arena_cleanup struct arena a = {0};
	const struct kubelet_threshold *t = k->c->eviction_hard;
	struct mem_info m = {0};
	struct fs_usage u = {0};
	int64_t limit = 0, disk_limit = 0, pids = pids_max();
	bool memory, disk, pid, changed;
	struct error *e = mem_info(&m);

	log_and_free(e, "eviction");
	e = fs_usage(k->c->root_dir, &u);
	log_and_free(e, "eviction");
	memory = under(&t[EVICT_MEMORY_AVAILABLE], m.available, m.total, &limit);
	disk = under(&t[EVICT_NODEFS_AVAILABLE], u.available, u.capacity, &disk_limit) ||
	       under(&t[EVICT_NODEFS_INODES], u.inodes_free, u.inodes, &disk_limit) ||
	       under(&t[EVICT_IMAGEFS_AVAILABLE], u.available, u.capacity, &disk_limit);
	pid = under(&t[EVICT_PID_AVAILABLE], pids - pids_used(), pids, &(int64_t){0});
	if (disk && image_gc_free(k, disk_limit - u.available) > 0) {
		e = fs_usage(k->c->root_dir, &u);
		error_free(e);
		disk = under(&t[EVICT_NODEFS_AVAILABLE], u.available, u.capacity, &disk_limit);
	}
	changed = condition(memory, &k->memory_pressure, &k->memory_pressure_at);
	changed |= condition(disk, &k->disk_pressure, &k->disk_pressure_at);
	changed |= condition(pid, &k->pid_pressure, &k->pid_pressure_at);
	if (changed)
		node_kick(k);
	if (memory)
		evict_one(k, &a, "memory", arena_printf(&a, "%lldKi", (long long)(m.available / 1024)), arena_printf(&a, "%lldKi", (long long)(limit / 1024)));
	else if (disk)
		evict_one(k, &a, "ephemeral-storage", arena_printf(&a, "%lldKi", (long long)(u.available / 1024)),
			  arena_printf(&a, "%lldKi", (long long)(disk_limit / 1024)));
}

void eviction_run(void *arg)
{
	struct kubelet *k = arg;
	int minute = 0;

	while (!fiber_cancelled()) {
		struct error *e;

		check(k);
		if (++minute % 6 == 0)
			cgroup_gc(k);
		e = fiber_sleep(PERIOD_MS);
		error_free(e);
	}
}
