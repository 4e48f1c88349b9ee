#include "cmd/teardown.h"

#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/node_net.h"
#include "loop/io.h"
#include "runtime/runtime.h"

#define CGROUP_DEPTH_MAX 32

bool teardown_pods(struct cluster *c)
{
	bool ok = true;

	for (int i = 0; i < c->nodes; i++) {
		const char *suffix = i ? arena_printf(c->a, "-%d", i + 1).p : "";

		if (skiff_runtime_cleanup(data_path(c, "runtime%s", suffix), run_path(c, "runtime%s", suffix), "skiff0",
					  arena_printf(c->a, "%s%s", c->cgroup, suffix).p) != 0)
			ok = false;
	}
	return ok;
}

/* Kills what is in a cgroup and below, then removes it. The kernel frees a cgroup a moment after its last process ended. */
static void remove_cgroup(const char *path, int depth, bool *ok)
{
	DIR *d = depth < CGROUP_DEPTH_MAX ? opendir(path) : NULL;
	struct dirent *ent;
	char file[4096];
	int pid;

	if (!d)
		return;
	while ((ent = readdir(d))) {
		if (ent->d_type != DT_DIR || ent->d_name[0] == '.')
			continue;
		snprintf(file, sizeof file, "%s/%s", path, ent->d_name);
		remove_cgroup(file, depth + 1, ok);
	}
	closedir(d);
	for (int tries = 0; tries < 100 && rmdir(path) < 0 && errno == EBUSY; tries++) {
		snprintf(file, sizeof file, "%s/cgroup.procs", path);
		FILE *f = fopen(file, "re");

		while (f && fscanf(f, "%d", &pid) == 1)
			if (pid > 1)
				kill(pid, SIGKILL);
		if (f)
			fclose(f);
		error_free(fiber_sleep(10));
	}
	if (access(path, F_OK) == 0) {
		log_error("could not remove cgroup %s", path);
		*ok = false;
	}
}

/* "skiff" or "skiff-N" of node N: other clusters' (of other data directories) have other names. */
static bool is_ours(const struct cluster *c, const char *name)
{
	struct str s = str_from(name), own = str_from(c->cgroup + 1);
	int64_t node;

	if (!str_has_prefix(s, own))
		return false;
	s = str_sub(s, own.n, s.n);
	return !s.n || (s.p[0] == '-' && s.n <= 3 && str_to_i64(str_sub(s, 1, s.n), &node) && node > 1);
}

/* At the root of the hierarchy (v2), or of each controller's (v1). */
static void remove_cgroups_in(const struct cluster *c, const char *root, int depth, bool *ok)
{
	DIR *d = opendir(root);
	struct dirent *ent;
	char path[4096];

	if (!d)
		return;
	while ((ent = readdir(d))) {
		if (ent->d_type != DT_DIR || ent->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", root, ent->d_name);
		if (is_ours(c, ent->d_name))
			remove_cgroup(path, 0, ok);
		else if (depth == 0)
			remove_cgroups_in(c, path, 1, ok);
	}
	closedir(d);
}

/* Mounts below the cluster's directories, newest first; lazily, as a killed process may still hold one. */
static void remove_mounts(struct cluster *c, bool *ok)
{
	LIST(char *) points = {0};
	FILE *f = fopen("/proc/self/mounts", "re");
	char line[8192], point[4096];

	while (f && fgets(line, sizeof line, f)) {
		if (sscanf(line, "%*s %4095s", point) != 1)
			continue;
		struct str p = str_from(point);

		if (str_has_prefix(p, arena_printf(c->a, "%s/", c->data_dir)) || str_has_prefix(p, arena_printf(c->a, "%s/", c->run_dir)))
			*arena_push(c->a, &points) = arena_strz(c->a, p);
	}
	if (f)
		fclose(f);
	for (uint32_t i = points.n; i > 0; i--) {
		if (umount2(points.v[i - 1], MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT) {
			log_error("could not unmount %s: %s", points.v[i - 1], strerror(errno));
			*ok = false;
		}
	}
}

static void remove_tables(struct cluster *c, bool *ok)
{
	static const char *const list[] = {"nft", "list", "tables", NULL};
	buf_cleanup struct buf out = {0};
	struct error *e = proc_run(list, STR_NULL, &out, NULL, NULL);

	for (struct str rest = buf_view(&out); !e && rest.p;) {
		struct str line = str_cut(&rest, '\n'), words = line;

		str_cut(&words, ' ');
		struct str family = str_cut(&words, ' '), name = str_cut(&words, ' ');

		if (!str_has_prefix(name, STR("skiff")))
			continue;
		const char *del[] = {"nft", "delete", "table", arena_strz(c->a, family), arena_strz(c->a, name), NULL};

		e = proc_run(del, STR_NULL, NULL, NULL, NULL);
	}
	if (e)
		*ok = false;
	log_and_free(e, "removing nftables tables");
}

static void remove_links(bool *ok)
{
	static const char *const ours[] = {"skiff0", "skiff-lb"};

	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
		if (!if_nametoindex(ours[i]))
			continue;
		const char *del[] = {"ip", "link", "del", ours[i], NULL};
		struct error *e = proc_run(del, STR_NULL, NULL, NULL, NULL);

		if (e)
			*ok = false;
		log_and_free(e, "removing link %s", ours[i]);
	}
}

bool teardown_rest(struct cluster *c)
{
	bool ok = true;

	/* `up` makes it first, and it goes last: without it there is nothing of this cluster, and the network is another's. */
	if (access(c->run_dir, F_OK) < 0 && errno == ENOENT)
		return true;
	remove_cgroups_in(c, "/sys/fs/cgroup", 0, &ok);
	remove_mounts(c, &ok);
	remove_tables(c, &ok);
	remove_links(&ok);
	struct error *e = node_net_down(c);

	if (e)
		ok = false;
	log_and_free(e, "removing the nodes' networks");
	e = dir_remove(c->run_dir);
	if (e)
		ok = false;
	log_and_free(e, "removing %s", c->run_dir);
	return ok;
}
