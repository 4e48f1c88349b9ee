/*
 * kubelet/cgroup.c: the cgroup tree of pods: ROOT/kubepods, with burstable and
 * besteffort below it, one cgroup a pod in these. cgroup v1 (each controller a
 * tree of its own) and v2. Containers' own cgroups are the runtime's.
 */
#include "kubelet/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREES_MAX 20

static struct {
	bool detected, v2;
	int n;
	struct tree {
		char path[256];
		bool cpu, memory, pids, cpuset, cpuacct;
	} trees[TREES_MAX];
} cg;

static void detect(void)
{
	FILE *f;
	struct mntent *m;

	if (cg.detected)
		return;
	cg.detected = true;
	f = setmntent("/proc/self/mounts", "r");
	while (f && (m = getmntent(f)) && cg.n < TREES_MAX) {
		struct tree *t = &cg.trees[cg.n];
		bool v1 = strcmp(m->mnt_type, "cgroup") == 0;

		if ((!v1 && strcmp(m->mnt_type, "cgroup2") != 0) || strlen(m->mnt_dir) >= sizeof t->path ||
		    strncmp(m->mnt_dir, "/sys/fs/cgroup", 14) != 0)
			continue;
		snprintf(t->path, sizeof t->path, "%s", m->mnt_dir);
		if (v1) {
			t->cpu = hasmntopt(m, "cpu") != NULL;
			t->memory = hasmntopt(m, "memory") != NULL;
			t->pids = hasmntopt(m, "pids") != NULL;
			t->cpuset = hasmntopt(m, "cpuset") != NULL;
			t->cpuacct = hasmntopt(m, "cpuacct") != NULL;
		} else if (strcmp(m->mnt_dir, "/sys/fs/cgroup") == 0) {
			cg.v2 = true;
		}
		cg.n++;
	}
	if (f)
		endmntent(f);
}

static struct error *put(const char *dir, const char *file, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static struct error *put(const char *dir, const char *file, const char *fmt, ...)
{
	char path[1024], text[128];
	va_list ap;
	int fd, n;
	ssize_t w;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(errno, "opening %s", path);
	w = write(fd, text, (size_t)n);
	n = errno;
	close(fd);
	return w < 0 ? error_sys(n, "writing %s to %s", text, path) : NULL;
}

static bool slurp(const char *dir, const char *file, char *out, size_t cap)
{
	char path[1024];
	int fd;
	ssize_t n;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, out, cap - 1);
	close(fd);
	if (n < 0)
		return false;
	out[n] = 0;
	return true;
}

/* mkdir of one level; on v2 the parent hands its controllers down first. */
static struct error *level(const struct tree *t, const char *parent, const char *dir)
{
	if (cg.v2) {
		static const char *const controllers[] = {"+cpu", "+memory", "+pids", "+cpuset", "+io", "+hugetlb"};

		for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
			struct error *e = put(parent, "cgroup.subtree_control", "%s", controllers[i]);

			/* cpu, memory and pids are needed; the others are as the kernel has them. */
			if (e && i < 3 && e->sys == EBUSY)
				log_warn("cgroup %s has processes of its own, so %s cannot be handed down: %s", parent, controllers[i] + 1,
					 e->message);
			error_free(e);
		}
	}
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return error_sys(errno, "making cgroup %s", dir);
	if (t->cpuset && !cg.v2) {
		static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};

		for (int i = 0; i < 2; i++) {
			char text[256] = "";

			if (slurp(dir, files[i], text, sizeof text) && text[strspn(text, " \n")] == 0 && slurp(parent, files[i], text, sizeof text))
				TRY(put(dir, files[i], "%s", text));
		}
	}
	return NULL;
}

static struct error *make(const struct tree *t, const char *path)
{
	char dir[1024], parent[1024];
	const char *p = path;
	size_t n;

	snprintf(dir, sizeof dir, "%s", t->path);
	while (*p == '/')
		p++;
	while (*p) {
		size_t len = strcspn(p, "/");

		memcpy(parent, dir, sizeof dir);
		n = strlen(dir);
		if (n + len + 2 > sizeof dir)
			return error_new("cgroup path %s is too long", path);
		snprintf(dir + n, sizeof dir - n, "/%.*s", (int)len, p);
		TRY(level(t, parent, dir));
		p += len;
		while (*p == '/')
			p++;
	}
	return NULL;
}

static struct str root(struct kubelet *k, struct arena *a)
{
	struct str r = str_from(k->c->cgroup_root);

	while (r.n && r.p[r.n - 1] == '/')
		r.n--;
	return arena_printf(a, "%.*s/kubepods", STR_ARG(r));
}

struct error *cgroup_setup(struct kubelet *k)
{
	arena_cleanup struct arena a = {0};
	struct str base = root(k, &a);

	detect();
	if (!cg.n)
		return error_new("no cgroup file system is mounted at /sys/fs/cgroup");
	for (int i = 0; i < cg.n; i++) {
		struct tree *t = &cg.trees[i];

		if (!cg.v2 && !t->cpu && !t->memory && !t->pids)
			continue;
		TRY(make(t, arena_printf(&a, "%.*s/burstable", STR_ARG(base)).p));
		TRY(make(t, arena_printf(&a, "%.*s/besteffort", STR_ARG(base)).p));
		if (t->cpu)
			TRY(put(arena_printf(&a, "%s%.*s/besteffort", t->path, STR_ARG(base)).p, "cpu.shares", "2"));
		if (t->memory) {
			struct error *e = put(arena_printf(&a, "%s%.*s", t->path, STR_ARG(base)).p, "memory.use_hierarchy", "1");

			error_free(e); /* newer kernels know no other way */
		}
		if (cg.v2) {
			struct error *e = put(arena_printf(&a, "%s%.*s/besteffort", t->path, STR_ARG(base)).p, "cpu.weight", "1");

			if (e)
				log_warn("%s", e->message);
			error_free(e);
		}
	}
	return NULL;
}

struct str cgroup_pod_path(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod)
{
	struct str base = root(k, a);
	enum qos q = pod_qos(pod);

	return arena_printf(a, "%.*s%s/pod%.*s", STR_ARG(base), q == QOS_GUARANTEED ? "" : q == QOS_BURSTABLE ? "/burstable" : "/besteffort",
			    STR_ARG(pod->metadata.uid));
}

struct error *cgroup_pod_make(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod)
{
	struct str path = cgroup_pod_path(k, a, pod);
	struct pod_resources r;
	int64_t shares, quota, period = 100000;

	pod_resources_sum(pod, &r);
	shares = milli_to_shares(r.cpu_request_m ? r.cpu_request_m : r.cpu_limit_m > 0 ? r.cpu_limit_m : 0);
	quota = milli_to_quota(r.cpu_limit_m, period);
	detect();
	for (int i = 0; i < cg.n; i++) {
		struct tree *t = &cg.trees[i];
		const char *dir;

		if (!cg.v2 && !t->cpu && !t->memory && !t->pids)
			continue;
		TRY(make(t, path.p));
		dir = arena_printf(a, "%s%.*s", t->path, STR_ARG(path)).p;
		if (cg.v2) {
			TRY(put(dir, "cpu.weight", "%lld", (long long)shares_to_weight(shares)));
			if (quota > 0)
				TRY(put(dir, "cpu.max", "%lld %lld", (long long)quota, (long long)period));
			else
				TRY(put(dir, "cpu.max", "max %lld", (long long)period));
			if (r.memory_limit > 0)
				TRY(put(dir, "memory.max", "%lld", (long long)r.memory_limit));
			else
				TRY(put(dir, "memory.max", "max"));
			if (k->c->pod_pids_limit > 0)
				TRY(put(dir, "pids.max", "%lld", (long long)k->c->pod_pids_limit));
			continue;
		}
		if (t->cpu) {
			TRY(put(dir, "cpu.shares", "%lld", (long long)shares));
			/* Without CFS bandwidth control in the kernel there is no such file. */
			if (quota > 0) {
				TRY(put(dir, "cpu.cfs_period_us", "%lld", (long long)period));
				TRY(put(dir, "cpu.cfs_quota_us", "%lld", (long long)quota));
			}
		}
		if (t->memory && r.memory_limit > 0)
			TRY(put(dir, "memory.limit_in_bytes", "%lld", (long long)r.memory_limit));
		if (t->pids && k->c->pod_pids_limit > 0)
			TRY(put(dir, "pids.max", "%lld", (long long)k->c->pod_pids_limit));
	}
	return NULL;
}

/* rmdir from the leaves up, at most 8 levels; what still has processes stays for the next time. */
static bool remove_tree(const char *dir, int depth)
{
	DIR *d;
	struct dirent *e;

	if (rmdir(dir) == 0 || errno == ENOENT)
		return true;
	if (depth >= 8 || !(d = opendir(dir)))
		return false;
	while ((e = readdir(d))) {
		char sub[1024];

		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		if ((size_t)snprintf(sub, sizeof sub, "%s/%s", dir, e->d_name) < sizeof sub)
			remove_tree(sub, depth + 1);
	}
	closedir(d);
	return rmdir(dir) == 0 || errno == ENOENT;
}

static const char *const qos_dirs[] = {"", "/burstable", "/besteffort"};

void cgroup_pod_remove(struct kubelet *k, struct str uid)
{
	arena_cleanup struct arena a = {0};
	struct str base = root(k, &a);

	detect();
	for (int i = 0; i < cg.n; i++)
		for (size_t q = 0; q < ARRAY_LEN(qos_dirs); q++) {
			struct str dir = arena_printf(&a, "%s%.*s%s/pod%.*s", cg.trees[i].path, STR_ARG(base), qos_dirs[q], STR_ARG(uid));

			if (!remove_tree(dir.p, 0))
				log_v(3, "cgroup %s is still in use", dir.p);
		}
}

/* Once a minute: leftovers of pods that are gone, and the share of burstable pods beside the guaranteed ones. */
void cgroup_gc(struct kubelet *k)
{
	arena_cleanup struct arena a = {0};
	struct str base = root(k, &a);
	int64_t burstable_m = 0;
	size_t it = 0;
	void *value;

	detect();
	for (int i = 0; i < cg.n; i++)
		for (size_t q = 0; q < ARRAY_LEN(qos_dirs); q++) {
			struct str dir = arena_printf(&a, "%s%.*s%s", cg.trees[i].path, STR_ARG(base), qos_dirs[q]);
			DIR *d = opendir(dir.p);
			struct dirent *e;

			while (d && (e = readdir(d)))
				if (strncmp(e->d_name, "pod", 3) == 0 && e->d_type == DT_DIR && k->sources_ready &&
				    !pod_by_uid(k, str_from(e->d_name + 3)))
					remove_tree(arena_printf(&a, "%s/%s", dir.p, e->d_name).p, 0);
			if (d)
				closedir(d);
		}
	while (map_next(&k->pods, &it, NULL, &value)) {
		struct pod *p = value;
		struct core_v1_pod *pod;
		struct block *hold;
		struct pod_resources r;
		struct error *e;

		if (p->is_orphan || p->stopped)
			continue;
		e = pod_decode(p, &a, &pod, &hold);
		if (e) {
			error_free(e);
			continue;
		}
		if (pod_qos(pod) == QOS_BURSTABLE) {
			pod_resources_sum(pod, &r);
			burstable_m += r.cpu_request_m;
		}
		block_unref(hold);
	}
	for (int i = 0; i < cg.n; i++) {
		struct str dir = arena_printf(&a, "%s%.*s/burstable", cg.trees[i].path, STR_ARG(base));
		struct error *e = NULL;

		if (cg.trees[i].cpu)
			e = put(dir.p, "cpu.shares", "%lld", (long long)milli_to_shares(burstable_m));
		else if (cg.v2)
			e = put(dir.p, "cpu.weight", "%lld", (long long)shares_to_weight(milli_to_shares(burstable_m)));
		if (e)
			log_v(2, "%s", e->message);
		error_free(e);
	}
}

static uint64_t field(const char *text, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (strncmp(p, name, n) == 0 && p[n] == ' ')
			return strtoull(p + n + 1, NULL, 10);
	return 0;
}

void cgroup_usage(struct kubelet *k, struct str path, struct cgroup_usage *out)
{
	char dir[1024], text[8192];

	(void)k;
	*out = (struct cgroup_usage){0};
	detect();
	for (int i = 0; i < cg.n; i++) {
		struct tree *t = &cg.trees[i];

		snprintf(dir, sizeof dir, "%s%.*s", t->path, STR_ARG(path));
		if (cg.v2) {
			if (slurp(dir, "cpu.stat", text, sizeof text))
				out->cpu_ns = field(text, "usage_usec") * 1000;
			if (slurp(dir, "memory.current", text, sizeof text)) {
				out->memory_usage = strtoull(text, NULL, 10);
				out->found = true;
			}
			if (slurp(dir, "memory.stat", text, sizeof text)) {
				uint64_t inactive = field(text, "inactive_file");

				out->rss = field(text, "anon");
				out->page_faults = field(text, "pgfault");
				out->major_faults = field(text, "pgmajfault");
				out->working_set = out->memory_usage > inactive ? out->memory_usage - inactive : 0;
			}
			continue;
		}
		if (t->cpuacct && slurp(dir, "cpuacct.usage", text, sizeof text))
			out->cpu_ns = strtoull(text, NULL, 10);
		if (t->memory && slurp(dir, "memory.usage_in_bytes", text, sizeof text)) {
			out->found = true;
			out->memory_usage = strtoull(text, NULL, 10);
			if (slurp(dir, "memory.stat", text, sizeof text)) {
				uint64_t inactive = field(text, "total_inactive_file");

				out->rss = field(text, "total_rss");
				out->page_faults = field(text, "total_pgfault");
				out->major_faults = field(text, "total_pgmajfault");
				out->working_set = out->memory_usage > inactive ? out->memory_usage - inactive : 0;
			}
		}
	}
}
