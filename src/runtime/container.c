/* Containers: overlay root, OCI bundle, crun through conmon, and the watch for their end. */
#include "runtime/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CREATE_TIMEOUT_MS 120000 /* crun create, on a machine that is busy */
#define KILL_WAIT_MS 10000       /* for a SIGKILLed container to be gone */
#define EXIT_FILE_WAIT_MS 2000   /* conmon writes the exit code just after the process has ended */
#define SYNC_MAX 65536

/* ---- crun and conmon ---- */

void rt_argv_add(struct rt_argv *a, const char *word)
{
	if (a->n >= (int)(sizeof(a->v) / sizeof(a->v[0])) - 1)
		abort();
	a->v[a->n++] = word;
	a->v[a->n] = NULL;
}

/*
 * crun refuses hosts where cgroup v1 controllers stand beside a cgroup v2 tree that has controllers too. There, it and
 * conmon run in a mount namespace of their own that differs from the host's by that one tree.
 */
void rt_argv_start(struct rt *rt, struct rt_argv *a)
{
	static const char *const hybrid[] = {
		"unshare", "--mount", "--propagation", "unchanged", "sh", "-c",
		"mount --make-private /sys/fs/cgroup; umount /sys/fs/cgroup/unified; exec \"$@\"", "sh",
	};
	a->n = 0;
	for (size_t i = 0; rt->cgroups == RT_CGROUP_HYBRID && i < sizeof(hybrid) / sizeof(hybrid[0]); i++)
		rt_argv_add(a, hybrid[i]);
}

struct error *rt_crun(struct rt *rt, const char *const *extra, struct buf *out)
{
	struct rt_argv a;
	/* `start` touches no cgroup. */
	a.n = 0;
	if (strcmp(extra[0], "start"))
		rt_argv_start(rt, &a);
	str_cleanup char *root = xasprintf("--root=%s/crun", rt->o.state_dir);
	rt_argv_add(&a, rt->o.crun);
	rt_argv_add(&a, root);
	rt_argv_add(&a, "--cgroup-manager=cgroupfs");
	for (int i = 0; extra[i]; i++)
		rt_argv_add(&a, extra[i]);
	return proc_run(a.v, STR_NULL, out, NULL, NULL);
}

/* {"pid":123} or {"pid":-1,"message":"..."}; newer versions say "data". */
static struct error *parse_sync(struct str text, pid_t *pid)
{
	ptrdiff_t at = str_find(text, STR("\"pid\":"));
	size_t skip = 6;
	if (at < 0) {
		at = str_find(text, STR("\"data\":"));
		skip = 7;
	}
	str_cleanup char *z = str_dupz(at < 0 ? STR_NULL : str_sub(text, (size_t)at + skip, text.n));
	long v = at < 0 ? -1 : strtol(z, NULL, 10);
	if (v > 0) {
		*pid = (pid_t)v;
		return NULL;
	}
	at = str_find(text, STR("\"message\":"));
	struct str m = at < 0 ? STR("the container monitor gave no reason") : str_trim(str_sub(text, (size_t)at + 10, text.n));
	/* As it is written: quotes and escapes are few. */
	while (m.n && (m.p[0] == '"' || m.p[0] == ' '))
		m = str_sub(m, 1, m.n);
	while (m.n && (m.p[m.n - 1] == '}' || m.p[m.n - 1] == '"' || m.p[m.n - 1] == '\n'))
		m.n--;
	if (str_has_suffix(m, STR("\\n")))
		m.n -= 2;
	return error_new("crun can't create the container: %.*s", STR_ARG(m));
}

static struct error *read_sync(int fd, pid_t *pid)
{
	struct stream *s = fd_stream(fd);
	buf_cleanup struct buf b = {.limit = SYNC_MAX};
	struct error *e = NULL;
	for (;;) {
		char chunk[4096];
		size_t got;
		if ((e = stream_read(s, chunk, sizeof(chunk), &got)) || !got)
			break;
		buf_append(&b, chunk, got);
		if (memchr(chunk, '\n', got)) /* conmon keeps its end open */
			break;
	}
	stream_close(s);
	return e ? e : parse_sync(buf_view(&b), pid);
}

static struct error *spawn_conmon(struct rt *rt, struct rt_container *c, const char *bundle, const char *log, pid_t *pid)
{
	const struct cri_v1_container_config *cfg = c->rec.config;
	str_cleanup char *root = xasprintf("--root=%s/crun", rt->o.state_dir);
	str_cleanup char *exits = sys_path(rt->o.state_dir, "exits");
	str_cleanup char *sockets = sys_path(rt->o.state_dir, "s");
	str_cleanup char *pidfile = sys_path(bundle, "pidfile");
	str_cleanup char *conmon_pid = sys_path(bundle, "conmon.pid");
	str_cleanup char *logpath = xasprintf("k8s-file:%s", log);
	struct rt_argv a;
	rt_argv_start(rt, &a);
	const char *words[] = {
		rt->o.conmon, "--cid", c->id, "--cuuid", c->id, "--name", c->id, "--runtime", rt->o.crun, "--runtime-arg", root,
		"--runtime-arg", "--cgroup-manager=cgroupfs", "--bundle", bundle, "--persist-dir", bundle, "--exit-dir", exits,
		"--socket-dir-path", sockets, "--container-pidfile", pidfile, "--conmon-pidfile", conmon_pid, "--log-path", logpath,
		"--log-level", "error", "--no-sync-log", "--full-attach",
	};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		rt_argv_add(&a, words[i]);
	if (cfg->tty)
		rt_argv_add(&a, "--terminal");
	if (cfg->stdin) {
		rt_argv_add(&a, "--stdin");
		if (!cfg->stdin_once)
			rt_argv_add(&a, "--leave-stdin-open");
	}
	int sync[2];
	if (pipe2(sync, O_CLOEXEC) < 0)
		return error_sys(errno, "make a pipe");
	static const char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "_OCI_SYNCPIPE=3", NULL};
	struct proc_opts o = {
		.argv = a.v, .env = env, .cwd = bundle, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1,
		.extra_fds = {sync[1]}, .n_extra_fds = 1, .new_session = true,
	};
	struct proc *p;
	struct error *e = proc_spawn(&o, &p);
	close(sync[1]);
	if (e) {
		close(sync[0]);
		return e;
	}
	int64_t token = deadline_push(CREATE_TIMEOUT_MS);
	e = read_sync(sync[0], pid);
	deadline_pop(token);
	/* conmon has forked itself away; its first process ends at once. */
	int status;
	fiber_shield_begin();
	if (e && error_is_sys(e, ETIMEDOUT))
		log_and_free(proc_kill(p, SIGKILL), "kill conmon");
	struct error *w = proc_wait(p, &status);
	fiber_shield_end();
	if (e)
		error_clear(&w);
	return e ? e : w;
}

/* ---- roots ---- */

struct root_job {
	struct rt *rt;
	struct rt_container *c;
	struct arena *a;
	const char *dir, *bundle, *rootfs;
	struct str image_id;
	const char **image_paths;
};

static struct error *copy_root(struct root_job *j, const struct strings *layers)
{
	str_cleanup char *copy = sys_path(j->dir, "copy");
	TRY(sys_mkdirs(copy, 0755));
	for (uint32_t i = layers->n; i-- > 0;) {
		str_cleanup char *layer = xasprintf("%s/%.*s", image_layers_dir(j->rt->images), STR_ARG(layers->v[i]));
		TRY(sys_copy_tree(layer, copy));
	}
	if (mount(copy, j->rootfs, NULL, MS_BIND, NULL) < 0)
		return error_sys(errno, "mount %s", j->rootfs);
	j->c->rec.copied = true;
	return NULL;
}

static struct error *overlay_root(struct root_job *j, const struct strings *layers)
{
	str_cleanup char *upper = sys_path(j->dir, "upper");
	str_cleanup char *work = sys_path(j->dir, "work");
	if ((mkdir(upper, 0755) < 0 && errno != EEXIST) || (mkdir(work, 0700) < 0 && errno != EEXIST))
		return error_sys(errno, "make the container's directories in %s", j->dir);
	/* The kernel takes one page of options: layers are named by a descriptor's short path. */
	fd_cleanup int base = open(image_layers_dir(j->rt->images), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (base < 0)
		return error_sys(errno, "open %s", image_layers_dir(j->rt->images));
	buf_cleanup struct buf b = {0};
	buf_puts(&b, "lowerdir=");
	if (!layers->n) { /* an image of no layer: an empty root */
		str_cleanup char *empty = sys_path(j->dir, "empty");
		if (mkdir(empty, 0755) < 0 && errno != EEXIST)
			return error_sys(errno, "mkdir %s", empty);
		buf_puts(&b, empty);
	}
	for (uint32_t i = 0; i < layers->n; i++)
		buf_printf(&b, "%s/proc/self/fd/%d/%.*s", i ? ":" : "", base, STR_ARG(layers->v[i]));
	/* volatile: nobody expects a container's own layer to outlive a power cut, so it isn't synced either. */
	buf_printf(&b, ",upperdir=%s,workdir=%s,volatile", upper, work);
	if (b.n >= 4096)
		return error_new("the image has too many layers for overlayfs");
	const char *opts = buf_z(&b);
	if (mount("overlay", j->rootfs, "overlay", 0, opts) == 0)
		return NULL;
	if (errno == EINVAL) { /* kernels before 5.10 don't know volatile */
		b.n -= strlen(",volatile");
		if (mount("overlay", j->rootfs, "overlay", 0, buf_z(&b)) == 0)
			return NULL;
	}
	return error_sys(errno, "mount the container's root (overlayfs)");
}

static struct error *make_root(void *arg)
{
	struct root_job *j = arg;
	struct strings layers = {0};
	TRY(sys_mkdirs(j->dir, 0700));
	TRY(sys_mkdirs(j->rootfs, 0711));
	TRY(image_claim(j->rt->images, j->a, j->image_id, j->dir, &layers));
	TRY(j->rt->overlay ? overlay_root(j, &layers) : copy_root(j, &layers));
	return rt_image_mounts(j->rt, j->a, j->c->rec.config, j->dir, j->bundle, &j->image_paths);
}

struct spec_job {
	struct arena *a;
	struct rt_spec_in in;
	struct oci_v1_spec spec;
	struct str image_id;
	struct rt_v1_image_record *rec;
	struct oci_v1_image image;
};

static struct error *make_spec(void *arg)
{
	struct spec_job *j = arg;
	TRY(rt_spec(j->a, &j->in, &j->spec));
	buf_cleanup struct buf b = {0};
	json_encode(&b, &oci_v1_spec_type, &j->spec);
	str_cleanup char *path = sys_path(j->in.bundle, "config.json");
	return sys_write_atomic(path, buf_view(&b), 0600, false);
}

struct clean_job {
	struct rt *rt;
	const char *dir, *bundle, *id;
	bool all; /* the container's own layer too */
	const struct cri_v1_container_config *config;
};

static struct error *clean_root(void *arg)
{
	struct clean_job *j = arg;
	str_cleanup char *rootfs = sys_path(j->bundle, "rootfs");
	while (umount2(rootfs, MNT_DETACH) == 0)
		;
	rt_image_unmounts(j->rt, j->config, j->dir, j->bundle, j->all);
	if (!j->all)
		return NULL;
	str_cleanup char *exit_file = xasprintf("%s/exits/%s", j->rt->o.state_dir, j->id);
	unlink(exit_file);
	struct error *e = sys_remove_tree(j->bundle);
	struct error *e2 = sys_remove_tree(j->dir);
	if (!e2)
		image_unclaim(j->rt->images, j->dir);
	if (!e)
		return e2;
	log_and_free(e2, "remove container %s", j->id);
	return e;
}

/* ---- create ---- */

static struct error *find_image(struct rt *rt, struct arena *a, struct str ref, struct rt_v1_image_record **rec, struct oci_v1_image *image)
{
	TRY(image_find(rt->images, a, ref, rec));
	if (!*rec)
		return error_status(404, "NotFound", "image \"%.*s\" is not present on this node", STR_ARG(ref));
	return image_config(rt->images, a, *rec, image);
}

static struct error *log_file(struct rt_sandbox *s, const struct cri_v1_container_config *c, struct buf *out)
{
	if (c->log_path.n && s->rec.config->log_directory.n) {
		if (str_contains(c->log_path, STR("..")))
			return error_status(400, "Invalid", "the log path \"%.*s\" is not allowed", STR_ARG(c->log_path));
		buf_printf(out, "%.*s/%.*s", STR_ARG(s->rec.config->log_directory), STR_ARG(c->log_path));
		str_cleanup char *dir = xstrdup(buf_z(out));
		*strrchr(dir, '/') = 0;
		return sys_mkdirs(dir, 0755);
	}
	buf_puts(out, "/dev/null");
	return NULL;
}

static struct error *create(struct rt *rt, struct rt_sandbox *s, struct rt_container *c, struct arena *a)
{
	str_cleanup char *dir = rt_container_dir(rt, c->id);
	str_cleanup char *bundle = rt_bundle_dir(rt, c->id);
	str_cleanup char *rootfs = sys_path(bundle, "rootfs");
	struct spec_job sj = {.a = a};
	TRY(find_image(rt, a, c->rec.config->image->image, &sj.rec, &sj.image));
	c->rec.image_id = arena_str(&c->arena, sj.rec->id);
	c->rec.image = arena_str(&c->arena, sj.rec->digests.n ? sj.rec->digests.v[0] : sj.rec->id);
	if (c->rec.config->stop_signal > 0 && c->rec.config->stop_signal < CRI_SIGNAL_COUNT)
		c->rec.stop_signal = str_from(cri_signal_names[c->rec.config->stop_signal]);
	else if (sj.image.config)
		c->rec.stop_signal = arena_str(&c->arena, sj.image.config->stop_signal);

	struct root_job rj = {.rt = rt, .c = c, .a = a, .dir = dir, .bundle = bundle, .rootfs = rootfs, .image_id = sj.rec->id};
	TRY(sys_offload(make_root, &rj));
	sj.in = (struct rt_spec_in){.rt = rt, .sandbox = s, .container = c, .image = &sj.image, .rootfs = rootfs, .bundle = bundle,
				    .image_paths = rj.image_paths};
	TRY(sys_offload(make_spec, &sj));
	c->rec.user = arena_new(&c->arena, struct cri_v1_container_user);
	c->rec.user->linux_ = arena_new(&c->arena, struct cri_v1_linux_container_user);
	c->rec.user->linux_->uid = sj.spec.process->user.uid;
	c->rec.user->linux_->gid = sj.spec.process->user.gid;
	for (uint32_t i = 0; i < sj.spec.process->user.additional_gids.n; i++)
		*arena_push(&c->arena, &c->rec.user->linux_->supplemental_groups) = sj.spec.process->user.additional_gids.v[i];
	buf_cleanup struct buf log = {0};
	TRY(log_file(s, c->rec.config, &log));
	pid_t pid = 0;
	TRY(spawn_conmon(rt, c, bundle, buf_z(&log), &pid));
	c->rec.pid = pid;
	c->rec.pid_start = sys_proc_start(pid);
	c->rec.created_at = wall_ns();
	c->rec.state = CRI_CONTAINER_CREATED;
	return rt_container_save(rt, c);
}

static void undo_create(struct rt *rt, struct rt_container *c)
{
	str_cleanup char *dir = rt_container_dir(rt, c->id);
	str_cleanup char *bundle = rt_bundle_dir(rt, c->id);
	const char *del[] = {"delete", "--force", c->id, NULL};
	struct clean_job j = {rt, dir, bundle, c->id, true, c->rec.config};
	fiber_shield_begin();
	error_free(rt_crun(rt, del, NULL)); /* may not exist */
	log_and_free(sys_offload(clean_root, &j), "undo container %s", c->id);
	fiber_shield_end();
}

struct error *rt_create_container(struct rt *rt, const struct cri_v1_create_container_request *req, struct rt_container **out)
{
	arena_cleanup struct arena a = {0};
	const struct cri_v1_container_config *cfg = req->config;
	*out = NULL;
	if (!cfg || !cfg->metadata || !cfg->metadata->name.n)
		return error_status(400, "Invalid", "the container config has no metadata with a name");
	if (!cfg->image || !cfg->image->image.n)
		return error_status(400, "Invalid", "the container config names no image");
	sandbox_cleanup struct rt_sandbox *s = rt_sandbox_get(rt, req->pod_sandbox_id);
	if (!s)
		return error_status(404, "NotFound", "pod sandbox \"%.*s\" not found", STR_ARG(req->pod_sandbox_id));
	if (s->rec.not_ready)
		return error_status(412, "FailedPrecondition", "pod sandbox %s is not ready", s->id);
	for (struct rt_container *o = rt->container_list; o; o = o->next)
		if (o->sandbox == s && o->rec.config && o->rec.config->metadata->attempt == cfg->metadata->attempt &&
		    str_eq(o->rec.config->metadata->name, cfg->metadata->name))
			return error_status(409, "AlreadyExists", "container %.*s (attempt %u) exists already: %s",
					    STR_ARG(cfg->metadata->name), cfg->metadata->attempt, o->id);
	char id[RT_ID_LEN + 1];
	rt_new_id(id);
	container_cleanup struct rt_container *c = rt_container_new(rt, id, s);
	c->refs++;
	c->rec.created_at = wall_ns();
	c->rec.state = CRI_CONTAINER_UNKNOWN; /* until it is created */
	c->rec.config = arena_new(&c->arena, struct cri_v1_container_config);
	object_copy(&c->arena, &cri_v1_container_config_type, cfg, c->rec.config);
	struct error *e = create(rt, s, c, &a);
	if (!e && s->rec.not_ready)
		e = error_status(412, "FailedPrecondition", "pod sandbox %s was stopped meanwhile", s->id);
	if (e) {
		undo_create(rt, c);
		rt_container_forget(rt, c);
		return e;
	}
	rt_watch_container(rt, c);
	rt_event(rt, c, CRI_CONTAINER_CREATED_EVENT);
	c->refs++;
	*out = c;
	return NULL;
}

/* ---- the end of a container ---- */

static bool read_exit_file(struct rt *rt, struct rt_container *c, int *code, int64_t *at)
{
	str_cleanup char *p = xasprintf("%s/exits/%s", rt->o.state_dir, c->id);
	buf_cleanup struct buf b = {0};
	struct stat st;
	int64_t v;
	struct error *e = sys_read_file(AT_FDCWD, p, 64, &b);
	bool ok = !e && stat(p, &st) == 0 && str_to_i64(str_trim(buf_view(&b)), &v);
	error_free(e);
	if (!ok)
		return false;
	*code = (int)v;
	*at = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	return true;
}

static void finish(struct rt *rt, struct rt_container *c)
{
	arena_cleanup struct arena a = {0};
	int code = 137;
	int64_t at = wall_ns(), until = now_ms() + EXIT_FILE_WAIT_MS, nap = 1;
	bool known = false, started;
	/* The process is gone; its code comes from conmon within a moment, unless conmon was killed. */
	while (!(known = read_exit_file(rt, c, &code, &at)) && now_ms() < until) {
		struct error *stop = fiber_sleep(nap);
		if (stop) { /* the runtime ends: the next one finds the exit file */
			error_free(stop);
			return;
		}
		nap = nap < 64 ? nap * 2 : nap;
	}
	/* A start that is under way goes first. */
	struct error *e = fiber_mutex_lock(&c->lock);
	if (e || c->removed) {
		if (!e)
			fiber_mutex_unlock(&c->lock);
		error_free(e);
		return;
	}
	started = c->rec.state == CRI_CONTAINER_RUNNING;
	char *cg = arena_strz(&a, rt_cgroup_path(rt, &a, c->sandbox, c->id));
	bool oom = rt_cgroup_oom_killed(rt, cg);
	if (started)
		rt_cgroup_kill(rt, cg); /* what shared a pid namespace with others may have left children */
	c->rec.state = CRI_CONTAINER_EXITED;
	c->rec.exit_code = code;
	c->rec.finished_at = at;
	c->rec.pid = 0;
	c->rec.reason = oom && code ? STR(CRI_REASON_OOM_KILLED) : code ? STR(CRI_REASON_ERROR) : STR(CRI_REASON_COMPLETED);
	if (!known) {
		c->rec.reason = oom ? STR(CRI_REASON_OOM_KILLED) : STR("Unknown");
		c->rec.message = STR("the container's monitor died before it could tell the exit code");
	}
	log_and_free(rt_container_save(rt, c), "save container %s", c->id);
	waitq_wake_all(&c->changed);
	rt_event(rt, c, CRI_CONTAINER_STOPPED_EVENT);
	log_v(2, "container %s ended with %d%s", c->id, code, oom ? " (out of memory)" : "");
	const char *del[] = {"delete", "--force", c->id, NULL};
	str_cleanup char *dir = rt_container_dir(rt, c->id);
	str_cleanup char *bundle = rt_bundle_dir(rt, c->id);
	struct clean_job j = {rt, dir, bundle, c->id, false, c->rec.config};
	e = rt_crun(rt, del, NULL);
	if (e)
		log_v(2, "container %s: %s", c->id, e->message);
	error_free(e);
	log_and_free(sys_offload(clean_root, &j), "container %s", c->id);
	fiber_mutex_unlock(&c->lock);
}

struct watch {
	struct rt *rt;
	struct rt_container *c;
};

static void watch(void *arg)
{
	struct watch w = *(struct watch *)arg;
	free(arg);
	container_cleanup struct rt_container *c = w.c;
	struct error *e = NULL;
	int fd = (int)syscall(SYS_pidfd_open, c->rec.pid, 0);
	if (fd >= 0 && sys_proc_start(c->rec.pid) == c->rec.pid_start)
		e = fd_wait_read(fd);
	else if (fd < 0 && errno != ESRCH)
		log_warn("container %s can't be watched: %s", c->id, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (e) { /* the runtime ends */
		error_free(e);
		return;
	}
	if (!c->removed && c->rec.state != CRI_CONTAINER_EXITED)
		finish(w.rt, c);
}

void rt_watch_container(struct rt *rt, struct rt_container *c)
{
	struct watch *w = xcalloc(1, sizeof(*w));
	w->rt = rt;
	w->c = c;
	c->refs++;
	fiber_spawn("container", watch, w);
}

/* ---- start, stop, remove ---- */

struct error *rt_start_container(struct rt *rt, struct rt_container *c)
{
	TRY(fiber_mutex_lock(&c->lock));
	struct error *e = NULL;
	if (c->removed || c->rec.state != CRI_CONTAINER_CREATED) {
		e = error_status(412, "FailedPrecondition", "container %s is not in created state", c->id);
	} else {
		const char *start[] = {"start", c->id, NULL};
		e = error_wrap(rt_crun(rt, start, NULL), "start container %s", c->id);
		if (!e) {
			c->rec.started_at = wall_ns();
			/* It may have ended already: then its end is found by the watch, which waits for this state. */
			if (c->rec.state == CRI_CONTAINER_CREATED)
				c->rec.state = CRI_CONTAINER_RUNNING;
			e = rt_container_save(rt, c);
			waitq_wake_all(&c->changed);
			rt_event(rt, c, CRI_CONTAINER_STARTED_EVENT);
		}
	}
	fiber_mutex_unlock(&c->lock);
	return e;
}

/* Waits until the container has ended; *ended says whether it did. */
static struct error *wait_end(struct rt_container *c, int64_t ms, bool *ended)
{
	int64_t until = now_ms() + ms;
	while (!(*ended = c->removed || c->rec.state == CRI_CONTAINER_EXITED)) {
		int64_t left = until - now_ms();
		if (left <= 0)
			return NULL;
		struct error *e = waitq_wait_ms(&c->changed, left);
		if (error_is_sys(e, ETIMEDOUT) && now_ms() >= until)
			error_clear(&e);
		if (e)
			return e;
	}
	return NULL;
}

struct error *rt_stop_container(struct rt *rt, struct rt_container *c, int64_t timeout)
{
	bool ended = false;
	if (c->rec.state == CRI_CONTAINER_EXITED || c->removed)
		return NULL;
	/* No lock: a second stop with a shorter grace must get through, and killing twice does no harm. */
	if (timeout > 0 && c->rec.state == CRI_CONTAINER_RUNNING) {
		int sig = c->rec.stop_signal.n ? rt_signal_number(c->rec.stop_signal) : SIGTERM;
		if (sys_proc_alive(c->rec.pid, c->rec.pid_start))
			kill(c->rec.pid, sig ? sig : SIGTERM);
		TRY(wait_end(c, timeout > 86400 * 365 ? 86400ll * 365 * 1000 : timeout * 1000, &ended));
		if (ended)
			return NULL;
	}
	if (sys_proc_alive(c->rec.pid, c->rec.pid_start))
		kill(c->rec.pid, SIGKILL);
	TRY(wait_end(c, 200, &ended));
	if (!ended) {
		arena_cleanup struct arena a = {0};
		rt_cgroup_kill(rt, arena_strz(&a, rt_cgroup_path(rt, &a, c->sandbox, c->id)));
		TRY(wait_end(c, KILL_WAIT_MS, &ended));
	}
	return ended ? NULL : error_status(504, "Timeout", "container %s does not end although it was killed", c->id);
}

struct error *rt_remove_container(struct rt *rt, struct rt_container *c)
{
	if (c->rec.state == CRI_CONTAINER_UNKNOWN && !c->removed)
		return error_status(412, "FailedPrecondition", "container %s is being created", c->id);
	TRY(rt_stop_container(rt, c, 0));
	TRY(fiber_mutex_lock(&c->lock));
	struct error *e = NULL;
	if (!c->removed) {
		str_cleanup char *dir = rt_container_dir(rt, c->id);
		str_cleanup char *bundle = rt_bundle_dir(rt, c->id);
		struct clean_job j = {rt, dir, bundle, c->id, true, c->rec.config};
		e = sys_offload(clean_root, &j);
		if (!e) {
			rt_event(rt, c, CRI_CONTAINER_DELETED_EVENT);
			rt_container_forget(rt, c);
		}
	}
	fiber_mutex_unlock(&c->lock);
	return e;
}

/* ---- the rest ---- */

void rt_container_status(struct rt *rt, struct arena *a, struct rt_container *c, struct cri_v1_container_status *out)
{
	const struct cri_v1_container_config *cfg = c->rec.config;
	*out = (struct cri_v1_container_status){
		.id = str_from(c->id),
		.metadata = cfg->metadata,
		.state = c->rec.state,
		.created_at = c->rec.created_at,
		.started_at = c->rec.started_at,
		.finished_at = c->rec.finished_at,
		.exit_code = c->rec.exit_code,
		.image_ref = c->rec.image,
		.image_id = c->rec.image_id,
		.reason = c->rec.reason,
		.message = c->rec.message,
		.user = c->rec.user,
		.stop_signal = cfg->stop_signal,
	};
	out->image = arena_new(a, struct cri_v1_image_spec);
	*out->image = *cfg->image;
	if (cfg->image->user_specified_image.n)
		out->image->image = cfg->image->user_specified_image;
	memcpy(&out->labels, &cfg->labels, sizeof(out->labels));
	memcpy(&out->annotations, &cfg->annotations, sizeof(out->annotations));
	memcpy(&out->mounts, &cfg->mounts, sizeof(out->mounts));
	if (cfg->log_path.n)
		out->log_path = arena_printf(a, "%.*s/%.*s", STR_ARG(c->sandbox->rec.config->log_directory), STR_ARG(cfg->log_path));
	if (cfg->linux_ && cfg->linux_->resources) {
		out->resources = arena_new(a, struct cri_v1_container_resources);
		out->resources->linux_ = cfg->linux_->resources;
	}
	int sig = c->rec.stop_signal.n ? rt_signal_number(c->rec.stop_signal) : SIGTERM;
	for (int i = 1; !out->stop_signal && i < CRI_SIGNAL_COUNT; i++)
		if (rt_signal_number(str_from(cri_signal_names[i])) == sig)
			out->stop_signal = i;
}

struct error *rt_update_container(struct rt *rt, struct rt_container *c, const struct cri_v1_linux_container_resources *r)
{
	arena_cleanup struct arena a = {0};
	if (c->removed || (c->rec.state != CRI_CONTAINER_RUNNING && c->rec.state != CRI_CONTAINER_CREATED))
		return error_status(412, "FailedPrecondition", "container %s is not running", c->id);
	if (!r)
		return error_status(400, "Invalid", "no resources given");
	struct oci_v1_resources res = {0};
	rt_resources(rt, &a, r, &res);
	buf_cleanup struct buf b = {0};
	json_encode(&b, &oci_v1_resources_type, &res);
	str_cleanup char *bundle = rt_bundle_dir(rt, c->id);
	str_cleanup char *file = sys_path(bundle, "update.json");
	TRY(sys_write_atomic(file, buf_view(&b), 0600, false));
	const char *update[] = {"update", "--resources", file, c->id, NULL};
	struct error *e = rt_crun(rt, update, NULL);
	unlink(file);
	if (e)
		return error_wrap(e, "update container %s", c->id);
	struct cri_v1_container_config *cfg = c->rec.config;
	if (!cfg->linux_)
		cfg->linux_ = arena_new(&c->arena, struct cri_v1_linux_container_config);
	/* What is not given stays as it was. */
	struct cri_v1_linux_container_resources *now = arena_new(&c->arena, struct cri_v1_linux_container_resources), copy = {0};
	if (cfg->linux_->resources)
		*now = *cfg->linux_->resources;
	object_copy(&c->arena, &cri_v1_linux_container_resources_type, r, &copy);
#define KEEP(f)                                                                                                                    \
	if (copy.f)                                                                                                                \
	now->f = copy.f
	KEEP(cpu_period);
	KEEP(cpu_quota);
	KEEP(cpu_shares);
	KEEP(memory_limit_in_bytes);
	KEEP(memory_swap_limit_in_bytes);
	KEEP(oom_score_adj);
#undef KEEP
	if (copy.cpuset_cpus.n)
		now->cpuset_cpus = copy.cpuset_cpus;
	if (copy.cpuset_mems.n)
		now->cpuset_mems = copy.cpuset_mems;
	if (copy.hugepage_limits.n)
		memcpy(&now->hugepage_limits, &copy.hugepage_limits, sizeof(copy.hugepage_limits));
	cfg->linux_->resources = now;
	return rt_container_save(rt, c);
}

/* conmon reads commands from the FIFO "ctl" of the bundle: 1 is a window size, 2 reopens the log. */
struct error *rt_reopen_log(struct rt *rt, struct rt_container *c)
{
	if (c->rec.state != CRI_CONTAINER_RUNNING)
		return error_status(412, "FailedPrecondition", "container %s is not running", c->id);
	str_cleanup char *bundle = rt_bundle_dir(rt, c->id);
	str_cleanup char *ctl = sys_path(bundle, "ctl");
	fd_cleanup int fd = open(ctl, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return error_sys(errno, "reach the monitor of container %s", c->id);
	if (write(fd, "2 0 0\n", 6) != 6)
		return error_sys(errno, "tell the monitor of container %s to reopen its log", c->id);
	/* The kubelet goes on when the new file is there. */
	buf_cleanup struct buf log = {0};
	TRY(log_file(c->sandbox, c->rec.config, &log));
	int64_t until = now_ms() + 5000;
	while (access(buf_z(&log), F_OK) < 0) {
		if (now_ms() > until)
			return error_status(504, "Timeout", "the monitor of container %s did not reopen its log", c->id);
		TRY(fiber_sleep(2));
	}
	return NULL;
}
