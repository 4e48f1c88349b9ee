/* What the kernel's control groups say about containers; crun makes and removes them. */
#include "runtime/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <sys/stat.h>
#include <unistd.h>

#define CGROUP2_MAGIC 0x63677270
#define ROOT "/sys/fs/cgroup"
#define MAX_DEPTH 32

void rt_cgroup_detect(struct rt *rt)
{
	struct statfs fs;
	buf_cleanup struct buf b = {0};
	rt->cgroups = RT_CGROUP_V1;
	if (statfs(ROOT, &fs) == 0 && fs.f_type == CGROUP2_MAGIC) {
		rt->cgroups = RT_CGROUP_V2;
	} else if (statfs(ROOT "/unified", &fs) == 0 && fs.f_type == CGROUP2_MAGIC) {
		struct error *e = sys_read_file(AT_FDCWD, ROOT "/unified/cgroup.controllers", 4096, &b);
		if (!e && str_trim(buf_view(&b)).n)
			rt->cgroups = RT_CGROUP_HYBRID;
		error_free(e);
	}
	b.n = 0;
	if (rt->cgroups == RT_CGROUP_V2)
		log_and_free(sys_read_file(AT_FDCWD, ROOT "/cgroup.controllers", 4096, &b), "cgroup controllers");
	rt->hugetlb = rt->cgroups == RT_CGROUP_V2 ? str_contains(buf_view(&b), STR("hugetlb")) : access(ROOT "/hugetlb", F_OK) == 0;
}

static bool read_cg(struct rt *rt, const char *controller, const char *path, const char *file, struct buf *b)
{
	str_cleanup char *p = rt->cgroups == RT_CGROUP_V2 ? xasprintf(ROOT "%s/%s", path, file)
							   : xasprintf(ROOT "/%s%s/%s", controller, path, file);
	b->n = 0;
	struct error *e = sys_read_file(AT_FDCWD, p, 1 << 20, b);
	bool ok = !e;
	error_free(e);
	return ok;
}

static bool read_u64(struct rt *rt, const char *controller, const char *path, const char *file, uint64_t *out)
{
	buf_cleanup struct buf b = {0};
	return read_cg(rt, controller, path, file, &b) && str_to_u64(str_trim(buf_view(&b)), out);
}

/* "key value" lines */
static uint64_t keyed(struct str text, const char *key)
{
	while (text.n) {
		struct str line = str_cut(&text, '\n');
		struct str k = str_cut(&line, ' ');
		uint64_t v = 0;
		if (str_eqz(k, key) && str_to_u64(str_trim(line), &v))
			return v;
	}
	return 0;
}

#define UNLIMITED (1ull << 60)

static void psi(struct rt *rt, const char *path, const char *file, struct rt_usage *out, int which)
{
	buf_cleanup struct buf b = {0};
	if (!read_cg(rt, "", path, file, &b))
		return;
	for (struct str text = buf_view(&b); text.n;) {
		str_cleanup char *line = str_dupz(str_cut(&text, '\n'));
		char kind[8];
		double a10, a60, a300;
		unsigned long long total;
		if (sscanf(line, "%7s avg10=%lf avg60=%lf avg300=%lf total=%llu", kind, &a10, &a60, &a300, &total) != 5)
			continue;
		bool full = !strcmp(kind, "full");
		__typeof__(out->cpu_some) *t = which == 0   ? (full ? &out->cpu_full : &out->cpu_some)
					       : which == 1 ? (__typeof__(out->cpu_some) *)(full ? &out->mem_full : &out->mem_some)
							    : (__typeof__(out->cpu_some) *)(full ? &out->io_full : &out->io_some);
		t->total = total;
		t->avg10 = a10;
		t->avg60 = a60;
		t->avg300 = a300;
		out->has_psi = true;
	}
}

void rt_cgroup_usage(struct rt *rt, const char *path, struct rt_usage *out)
{
	buf_cleanup struct buf b = {0};
	uint64_t inactive = 0;
	*out = (struct rt_usage){0};
	if (rt->cgroups == RT_CGROUP_V2) {
		if (!read_cg(rt, "", path, "cpu.stat", &b))
			return;
		out->found = true;
		out->cpu_ns = keyed(buf_view(&b), "usage_usec") * 1000;
		read_u64(rt, "", path, "memory.current", &out->memory_usage);
		read_u64(rt, "", path, "memory.swap.current", &out->swap);
		read_u64(rt, "", path, "pids.current", &out->pids);
		if (!read_u64(rt, "", path, "memory.max", &out->memory_limit))
			out->memory_limit = 0;
		if (read_cg(rt, "", path, "memory.stat", &b)) {
			inactive = keyed(buf_view(&b), "inactive_file");
			out->rss = keyed(buf_view(&b), "anon");
			out->page_faults = keyed(buf_view(&b), "pgfault");
			out->major_faults = keyed(buf_view(&b), "pgmajfault");
		}
		psi(rt, path, "cpu.pressure", out, 0);
		psi(rt, path, "memory.pressure", out, 1);
		psi(rt, path, "io.pressure", out, 2);
	} else {
		if (!read_u64(rt, "cpuacct", path, "cpuacct.usage", &out->cpu_ns))
			return;
		out->found = true;
		read_u64(rt, "memory", path, "memory.usage_in_bytes", &out->memory_usage);
		read_u64(rt, "pids", path, "pids.current", &out->pids);
		read_u64(rt, "memory", path, "memory.limit_in_bytes", &out->memory_limit);
		if (read_cg(rt, "memory", path, "memory.stat", &b)) {
			inactive = keyed(buf_view(&b), "total_inactive_file");
			out->rss = keyed(buf_view(&b), "total_rss");
			out->swap = keyed(buf_view(&b), "total_swap");
			out->page_faults = keyed(buf_view(&b), "total_pgfault");
			out->major_faults = keyed(buf_view(&b), "total_pgmajfault");
		}
	}
	if (out->memory_limit >= UNLIMITED)
		out->memory_limit = 0;
	out->working_set = out->memory_usage > inactive ? out->memory_usage - inactive : 0;
}

static void kill_below(const char *dir, int depth)
{
	str_cleanup char *procs = sys_path(dir, "cgroup.procs");
	buf_cleanup struct buf b = {0};
	struct error *e = sys_read_file(AT_FDCWD, procs, 1 << 20, &b);
	error_free(e); /* gone: nothing to kill */
	for (struct str text = buf_view(&b); text.n;) {
		int64_t pid;
		if (str_to_i64(str_trim(str_cut(&text, '\n')), &pid) && pid > 1)
			kill((pid_t)pid, SIGKILL);
	}
	DIR *d = depth < MAX_DEPTH ? opendir(dir) : NULL;
	struct dirent *de;
	while (d && (de = readdir(d)))
		if (de->d_type == DT_DIR && de->d_name[0] != '.') {
			str_cleanup char *sub = sys_path(dir, de->d_name);
			kill_below(sub, depth + 1);
		}
	if (d)
		closedir(d);
}

void rt_cgroup_kill(struct rt *rt, const char *path)
{
	str_cleanup char *dir = rt->cgroups == RT_CGROUP_V2 ? xasprintf(ROOT "%s", path) : xasprintf(ROOT "/pids%s", path);
	if (rt->cgroups == RT_CGROUP_V2) {
		str_cleanup char *k = sys_path(dir, "cgroup.kill");
		fd_cleanup int fd = open(k, O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, "1", 1) == 1)
			return;
	}
	kill_below(dir, 0);
}

bool rt_cgroup_oom_killed(struct rt *rt, const char *path)
{
	buf_cleanup struct buf b = {0};
	const char *file = rt->cgroups == RT_CGROUP_V2 ? "memory.events" : "memory.oom_control";
	return read_cg(rt, "memory", path, file, &b) && keyed(buf_view(&b), "oom_kill") > 0;
}

static void remove_below(const char *dir, int depth)
{
	DIR *d = depth < MAX_DEPTH ? opendir(dir) : NULL;
	struct dirent *de;
	while (d && (de = readdir(d)))
		if (de->d_type == DT_DIR && de->d_name[0] != '.') {
			str_cleanup char *sub = sys_path(dir, de->d_name);
			remove_below(sub, depth + 1);
		}
	if (d)
		closedir(d);
	rmdir(dir);
}

void rt_cgroup_remove(struct rt *rt, const char *path)
{
	if (rt->cgroups == RT_CGROUP_V2) {
		str_cleanup char *dir = xasprintf(ROOT "%s", path);
		remove_below(dir, 0);
		return;
	}
	DIR *d = opendir(ROOT);
	struct dirent *de;
	while (d && (de = readdir(d)))
		if (de->d_name[0] != '.' && de->d_type != DT_LNK) {
			str_cleanup char *dir = xasprintf(ROOT "/%s%s", de->d_name, path);
			remove_below(dir, 0);
		}
	if (d)
		closedir(d);
}
