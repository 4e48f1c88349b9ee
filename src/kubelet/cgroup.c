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
		bool cpu, memory, pids, cpuset, cpuacct, hugetlb;
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
			t->hugetlb = hasmntopt(m, "hugetlb") != NULL;
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

bool cgroup_is_v2(void)
{
	detect();
	return cg.v2;
}

/* The tree holds something that pods are limited by. */
static bool limits(const struct tree *t)
{
	return cg.v2 || t->cpu || t->memory || t->pids || t->hugetlb;
}

static bool has_word(const char *text, const char *word)
{
	for (struct str rest = str_trim(str_from(text)); rest.n;)
		if (str_eqz(str_cut(&rest, ' '), word))
			return true;
	return false;
}

/* Controllers of v2: the first three are needed, the others are used where the kernel has them. */
static const char *const controllers[] = {"cpu", "memory", "pids", "cpuset", "io", "hugetlb"};
#define CONTROLLERS_NEEDED 3

/*
 * A cgroup with processes hands nothing down (cgroups(7), "no internal processes"), but for the machine's root. Inside a
 * container what looks like the root is none: its processes move into a leaf.
 */
static struct error *vacate(const char *dir)
{
	char leaf[1024], text[65536];

	snprintf(leaf, sizeof leaf, "%s/init", dir);
	if (mkdir(leaf, 0755) < 0 && errno != EEXIST)
		return error_sys(errno, "making cgroup %s", leaf);
	if (!slurp(dir, "cgroup.procs", text, sizeof text))
		return error_sys(errno, "reading %s/cgroup.procs", dir);
	for (struct str rest = str_from(text); rest.n;) {
		int64_t pid;
		struct error *e = str_to_i64(str_trim(str_cut(&rest, '\n')), &pid) ? put(leaf, "cgroup.procs", "%lld", (long long)pid) : NULL;

		if (e && e->sys != ESRCH)
			return e;
		error_free(e);
	}
	return NULL;
}

/* Hands the controllers of `dir` down to the cgroups below it. */
static struct error *delegate(const struct tree *t, const char *dir)
{
	char has[512] = "", on[512] = "";

	if (!slurp(dir, "cgroup.controllers", has, sizeof has) || !slurp(dir, "cgroup.subtree_control", on, sizeof on))
		return error_sys(errno, "reading the controllers of cgroup %s", dir);
	for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
		struct error *e;

		if (has_word(on, controllers[i]))
			continue;
		if (!has_word(has, controllers[i])) {
			if (i < CONTROLLERS_NEEDED)
				return error_new("cgroup %s has no %s controller", dir, controllers[i]);
			continue;
		}
		e = put(dir, "cgroup.subtree_control", "+%s", controllers[i]);
		if (error_is_sys(e, EBUSY) && strcmp(dir, t->path) == 0) {
			error_free(e);
			TRY(vacate(dir));
			e = put(dir, "cgroup.subtree_control", "+%s", controllers[i]);
		}
		if (i < CONTROLLERS_NEEDED)
			TRY(e);
		log_and_free(e, "cgroup %s", dir);
	}
	return NULL;
}

/* mkdir of one level; on v2 the parent hands its controllers down first. */
static struct error *level(const struct tree *t, const char *parent, const char *dir)
{
	if (cg.v2)
		TRY(delegate(t, parent));
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

/* Huge pages: `of` gives a limit by the page's size; NULL: none. */
static struct error *put_hugepages(const struct tree *t, const char *dir, int64_t (*of)(const void *ctx, int64_t size), const void *ctx)
{
	int64_t sizes[HUGEPAGE_SIZES_MAX];
	char unit[32], file[64], path[1100];

	for (int i = 0, n = cg.v2 || t->hugetlb ? hugepage_sizes(sizes) : 0; i < n; i++) {
		hugepage_unit(sizes[i], unit);
		snprintf(file, sizeof file, cg.v2 ? "hugetlb.%s.max" : "hugetlb.%s.limit_in_bytes", unit);
		snprintf(path, sizeof path, "%s/%s", dir, file);
		if (access(path, F_OK) < 0)
			continue; /* the kernel has huge pages, but no controller of them */
		if (of)
			TRY(put(dir, file, "%lld", (long long)of(ctx, sizes[i])));
		else
			TRY(put(dir, file, "%s", cg.v2 ? "max" : "-1"));
	}
	return NULL;
}

/* All pods together: what the node has less what is reserved (upstream's enforceNodeAllocatable "pods"). */
static struct error *limit_all(struct kubelet *k, const struct tree *t, const char *dir)
{
	int64_t shares = milli_to_shares(node_allocatable(k, "cpu")), memory = node_pods_memory(k);

	if (cg.v2)
		TRY(put(dir, "cpu.weight", "%lld", (long long)shares_to_weight(shares)));
	else if (t->cpu)
		TRY(put(dir, "cpu.shares", "%lld", (long long)shares));
	if ((cg.v2 || t->memory) && memory > 0)
		TRY(put(dir, cg.v2 ? "memory.max" : "memory.limit_in_bytes", "%lld", (long long)memory));
	return put_hugepages(t, dir, NULL, NULL);
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

		if (!limits(t))
			continue;
		TRY(make(t, arena_printf(&a, "%.*s/burstable", STR_ARG(base)).p));
		TRY(make(t, arena_printf(&a, "%.*s/besteffort", STR_ARG(base)).p));
		log_and_free(limit_all(k, t, arena_printf(&a, "%s%.*s", t->path, STR_ARG(base)).p), "limits of all pods");
		TRY(put_hugepages(t, arena_printf(&a, "%s%.*s/burstable", t->path, STR_ARG(base)).p, NULL, NULL));
		TRY(put_hugepages(t, arena_printf(&a, "%s%.*s/besteffort", t->path, STR_ARG(base)).p, NULL, NULL));
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

static int64_t pod_hugepages(const void *pod, int64_t size)
{
	char name[40];

	return pod_request_sum(pod, hugepage_resource(size, name));
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

		if (!limits(t))
			continue;
		TRY(make(t, path.p));
		dir = arena_printf(a, "%s%.*s", t->path, STR_ARG(path)).p;
		TRY(put_hugepages(t, dir, pod_hugepages, pod));
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
			} else if (str_eqz(path, "/")) { /* the machine's root cgroup has no such file */
				struct mem_info m;
				struct error *e = mem_info(&m);

				out->found = !e;
				out->memory_usage = e ? 0 : (uint64_t)(m.total - m.free);
				log_and_free(e, "memory of the node");
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
